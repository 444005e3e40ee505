"""A program at a terminal: what it shows, what is typed."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from .waiting import wait_until

DEADLINE = 20.0

ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\x1b\([A-Z]")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command, env, columns=80):
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(columns)
        self.before = termios.tcgetattr(slave)
        self.seen = b""
        self.raw = b""  # all of it, as it came
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def resize(self, columns):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, text, deadline=DEADLINE):
        """Waits until the text is on the screen behind what was expected before."""
        end = time.monotonic() + deadline
        wanted = text.encode()
        while True:
            plain = ESCAPE.sub(b"", self.seen).replace(b"\r", b"")
            if wanted in plain:
                self.seen = plain[plain.index(wanted) + len(wanted) :]
                return plain[: plain.index(wanted)].decode()
            left = end - time.monotonic()
            assert left > 0, f"{text!r} did not come; there is {plain!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    got = os.read(self.master, 65536)
                except OSError:
                    raise AssertionError(f"ended before {text!r}; there is {plain!r}") from None
                self.seen += got
                self.raw += got

    def screen(self):
        """All lines as they look now; the program ended them with a newline, or is in the last."""
        lines = []
        for line in self.raw.decode().split("\n"):
            shown = ""
            for piece in line.split("\r"):
                text, erased, rest = piece.partition("\x1b[K")
                shown = text + (rest if erased else shown[len(text) :] + rest)
            lines.append(shown)
        return lines

    def prompt(self):
        """Waits for the prompt; only then is the terminal in the editor's mode."""
        self.expect("> ")
        wait_until(lambda: not termios.tcgetattr(self.slave)[3] & termios.ICANON, DEADLINE)

    def wait(self):
        return self.process.wait(DEADLINE)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.slave)
        os.close(self.master)
