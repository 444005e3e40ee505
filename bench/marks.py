"""Reads the marks that launch and worker write (mark.h)."""

import fcntl
import os
import select
import struct
import time

LAYOUT = struct.Struct("=Qii")
LAUNCHED, MAIN, ACKED = (ord(letter) for letter in "LMA")

# Room for 65536 marks, so that a writer never waits for us.
PIPE_SIZE = 1 << 20
# How often `gather` looks: a reader that woke at each mark would compete for the CPU it measures.
GATHER_INTERVAL = 0.002


class Marks:
    """One FIFO and the marks that came through it, in order of arrival."""

    def __init__(self, path):
        os.mkfifo(path, 0o600)
        # Open for both directions: no writer ever waits for a reader, no reader ever sees the end.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except PermissionError:
            pass  # The user's share of pipe memory is used up; the smaller pipe works too.
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def close(self):
        os.close(self._fd)

    def read(self):
        """The marks that are there now: [(nanoseconds, pid, kind)]."""
        marks = []
        while True:
            try:
                data = os.read(self._fd, LAYOUT.size * 4096)
            except BlockingIOError:
                return marks
            marks += LAYOUT.iter_unpack(data)

    def wait(self, seconds):
        """Waits for at least one mark; nothing if none came in time."""
        if not self._poll.poll(max(0.0, seconds) * 1000):
            return []
        return self.read()

    def gather(self, seconds):
        """Yields what came since the last look, perhaps nothing, until the time is over."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            yield self.read()
            time.sleep(GATHER_INTERVAL)
