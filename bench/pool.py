"""A running pool, einhorn's or the bare loop's, and what can be done to it and read from it."""

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import marks
import procfs

PR_SET_CHILD_SUBREAPER = 36
STOP_SECONDS = 20
DEATH_SECONDS = 60


class PoolError(Exception):
    """The pool did not do what the figure needs; the text has the end of its log."""


def adopt_orphans():
    """Processes whose parent dies become this one's children, so that `stop` can end them."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Pool:
    """Starts `command` for `count` workers; use it with `with`, which ends every process of it.

    `arguments(pool)` makes the command line from the pool's directory and count. The program under
    test is the process started here; if it has a child that runs the same program, that is its
    master and the process itself the guard, otherwise the one process is both.
    """

    _guards = set()  # Of every pool alive: `stop` of one must not touch another.

    def __init__(self, programs, arguments, count, environment=None):
        self.count = count
        self.launched = None
        self.mains = {}  # Live worker's pid -> when its main began.
        self.acked = {}  # Worker's pid -> when its ACK had been read.
        self._process = None
        self._random = random.Random(count)
        self._helpers = None
        self.directory = tempfile.mkdtemp(prefix="bench-")
        self.socket_path = os.path.join(self.directory, "socket")
        self.log_path = os.path.join(self.directory, "log")
        fifo = os.path.join(self.directory, "marks")
        self._marks = marks.Marks(fifo)
        self._environment = {**os.environ, "BENCH_FIFO": fifo, **(environment or {})}
        self._command = [programs["launch"], *arguments(self)]

    # ---- life --------------------------------------------------------------------------------

    def __enter__(self):
        with open(self.log_path, "wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._guards.add(self.guard)
        return self

    def __exit__(self, *_):
        self.stop()
        self._marks.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def guard(self):
        return self._process.pid

    def stop(self):
        """Asks the pool to end; then ends what is left of it."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._guards.discard(self.guard)
        while True:
            orphans = [pid for pid in procfs.children(os.getpid()) if pid not in self._guards]
            if not orphans:
                return
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def fail(self, what):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            end = "".join(f"\n    {line.rstrip()}" for line in log.readlines()[-8:])
        code = self._process.poll()
        ended = "" if code is None else f" (it ended with {code})"
        raise PoolError(f"{what}{ended}{end}")

    # ---- what the workers say ----------------------------------------------------------------

    def _take(self, new):
        for nanoseconds, pid, kind in new:
            if kind == marks.LAUNCHED:
                self.launched = nanoseconds
            elif kind == marks.MAIN:
                self.mains[pid] = nanoseconds
                self.acked.pop(pid, None)
            else:
                self.acked[pid] = nanoseconds

    def _gather(self, table, count, what):
        began = time.monotonic()
        for new in self._marks.gather(60 + self.count / 50):
            ended = self._process.poll() is not None
            self._take(new)
            if len(table) >= count:
                return
            if ended:
                break
        self.fail(f"{len(table)} of {count} workers {what} in {time.monotonic() - began:.1f} s")

    def wait_for_mains(self):
        """Waits until all workers run. Returns when the first and the last began, in nanoseconds
        since the launch."""
        self._gather(self.mains, self.count, "began")
        times = sorted(self.mains.values())
        return times[0] - self.launched, times[-1] - self.launched

    def wait_for_acks(self):
        """Waits until all workers had their ACK read. Returns when the last had, in nanoseconds
        since the launch."""
        self._gather(self.acked, self.count, "had their ACK read")
        return max(self.acked.values()) - self.launched

    def wait_for_ack_of(self, pid):
        deadline = time.monotonic() + DEATH_SECONDS
        while pid not in self.acked:
            if time.monotonic() > deadline:
                self.fail(f"worker {pid} had no ACK read after {DEATH_SECONDS} s")
            self._take(self._marks.wait(deadline - time.monotonic()))

    # ---- death -------------------------------------------------------------------------------

    def oldest(self, count):
        """The pids of the workers that have been up for longest."""
        return sorted(self.mains, key=self.mains.get)[:count]

    def any_worker(self):
        return self._random.choice(list(self.mains))

    def replace(self, victim):
        """Kills a worker and waits for its replacement. Returns (the replacement's pid, the time
        from the kill to its main in nanoseconds)."""
        if procfs.parent(victim) != self.guard:
            self.fail(f"worker {victim} is not there any more, or not a child of {self.guard}")
        del self.mains[victim]
        self.acked.pop(victim, None)
        others = set(self.mains)
        killed = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + DEATH_SECONDS
        while len(self.mains) == len(others):
            if time.monotonic() > deadline:
                self.fail(f"no replacement for worker {victim} after {DEATH_SECONDS} s")
            self._take(self._marks.wait(deadline - time.monotonic()))
        begun = set(self.mains) - others
        if len(begun) > 1:
            self.fail(f"{len(begun)} workers began where one had been killed")
        (replacement,) = begun
        return replacement, self.mains[replacement] - killed

    # ---- upgrade -----------------------------------------------------------------------------

    def _begun_since(self, nanoseconds):
        return {pid: main for pid, main in self.mains.items() if main > nanoseconds}

    def upgrade(self):
        """A smooth upgrade. Returns the time from the command to its last reply, in nanoseconds."""
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        with self.connect() as client:
            client.sendall(b"{command: upgrade, id: 1}\n")
            with client.makefile("r", encoding="utf-8") as replies:
                for reply in replies:
                    if "wait: true" not in reply:
                        break
                else:
                    self.fail("the connection was closed in the middle of an upgrade")
        ended = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._take(self._marks.read())
        self.mains = self._begun_since(began)
        if len(self.mains) != self.count:
            self.fail(f"{len(self.mains)} of {self.count} workers are new after {reply!r}")
        return ended - began

    def replace_all(self):
        """The bare loop's upgrade. Returns the time until the last new main began."""
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        os.kill(self.guard, signal.SIGHUP)
        deadline = time.monotonic() + DEATH_SECONDS
        while len(self._begun_since(began)) < self.count:
            if time.monotonic() > deadline:
                self.fail(f"not all {self.count} copies are new after {DEATH_SECONDS} s")
            self._take(self._marks.wait(deadline - time.monotonic()))
        self.mains = self._begun_since(began)
        return max(self.mains.values()) - began

    # ---- the processes that are not workers ---------------------------------------------------

    def helpers(self):
        """Guard and master: the process started, and its children that run the same program."""
        if self._helpers is None:
            own = procfs.program(self.guard)
            masters = [pid for pid in procfs.children(self.guard) if procfs.program(pid) == own]
            self._helpers = [self.guard, *masters]
        return self._helpers

    def memory(self):
        """(resident, proportional) bytes of guard and master together."""
        sizes = [procfs.memory(pid) for pid in self.helpers()]
        return sum(size[0] for size in sizes), sum(size[1] for size in sizes)

    def cpu_nanoseconds(self):
        return sum(procfs.cpu_nanoseconds(pid) for pid in self.helpers())

    def context_switches(self):
        return sum(procfs.context_switches(pid) for pid in self.helpers())

    # ---- commands ----------------------------------------------------------------------------

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(DEATH_SECONDS)
        client.connect(self.socket_path)
        return client


def ask(client, line):
    """Sends one line, returns the one line that answers it."""
    client.sendall(line)
    reply = bytearray()
    while not reply.endswith(b"\n"):
        data = client.recv(1 << 18)
        if not data:
            raise PoolError("the connection was closed in the middle of a reply")
        reply += data
    return bytes(reply)
