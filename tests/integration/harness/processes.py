"""Which processes are ours, and ending exactly those.

The test process is a subreaper: whatever it started, or what those started, stays its descendant
however often parents die. A process is ended by its pid, and only after its start time has shown
that it is still the one we mean."""

import ctypes
import os
import signal
import socket

from .waiting import wait_until

PR_SET_CHILD_SUBREAPER = 36
SYS_PIDFD_GETFD = 438


def become_subreaper():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Stat:
    """Some fields of /proc/PID/stat."""

    def __init__(self, pid, text):
        fields = text[text.rindex(")") + 2 :].split()
        self.pid = pid
        self.name = text[text.index("(") + 1 : text.rindex(")")]
        self.state = fields[0]
        self.ppid = int(fields[1])
        self.pgid = int(fields[2])
        self.start_time = int(fields[19])
        self.nice = int(fields[16])


def read_stat(pid):
    """The Stat of a process, None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return Stat(pid, file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_alive(pid):
    """Running: neither gone nor a zombie."""
    stat = read_stat(pid)
    return stat is not None and stat.state not in "ZX"


# Pids of children that outlive single tests; with what is below them they are nobody's leftovers.
kept = set()


def descendants(root=None):
    """Stats of all processes below `root` (default: this process), zombies too."""
    root = os.getpid() if root is None else root
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = read_stat(int(entry))
            if stat is not None:
                children.setdefault(stat.ppid, []).append(stat)
    found, queue = [], [root]
    while queue:
        below = [stat for stat in children.get(queue.pop(0), []) if stat.pid not in kept]
        found += below
        queue += [stat.pid for stat in below]
    return found


def environment_of(pid):
    """A process's environment as it was at its start; empty for zombies and for the gone."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    pairs = [word.decode(errors="surrogateescape").split("=", 1) for word in words if b"=" in word]
    return {name: value for name, value in pairs}


def directory_of(pid):
    """A process's working directory; None for zombies and for the gone."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def reap_adopted(known=()):
    """Reaps the zombies that became our children; those of `known` belong to a Popen."""
    for stat in descendants():
        if stat.ppid == os.getpid() and stat.state == "Z" and stat.pid not in known:
            try:
                os.waitpid(stat.pid, os.WNOHANG)
            except ChildProcessError:
                pass


def kill_exactly(stat, number=signal.SIGKILL):
    """Signals the process of that Stat, unless its pid has gone to another one."""
    now = read_stat(stat.pid)
    if now is not None and now.start_time == stat.start_time and now.state not in "ZX":
        try:
            os.kill(stat.pid, number)
        except ProcessLookupError:
            pass


def end_all(processes, popens=()):
    """Ends what `processes()` lists (parents first, so that nobody starts them again), reaps it,
    and waits until it is gone."""

    def gone():
        left = processes()
        for stat in left:
            kill_exactly(stat)
        for popen in popens:
            popen.poll()
        reap_adopted({popen.pid for popen in popens if popen.returncode is None})
        return not left

    wait_until(gone, 20, lambda: f"still there: {[(s.pid, s.name, s.state) for s in processes()]}")


def context_switches(pid):
    """Voluntary and forced switches of all threads of a process: its wake-ups."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
    return total


def open_descriptors(pid):
    """{number: target} of a process's descriptors."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/{pid}/fd/{entry}")
        except FileNotFoundError:
            pass
    return found


def borrow_socket(pid, fd):
    """A duplicate of another process's socket, to ask it for its options."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        number = libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)
    return socket.socket(fileno=number)
