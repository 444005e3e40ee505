"""What the kernel says about a process: parent, children, memory, CPU time, context switches."""

import os
from pathlib import Path


def _threads(pid):
    return [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]


def parent(pid):
    """The parent's pid, or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text[text.rindex(")") + 1 :].split()[1])


def children(pid):
    found = []
    for thread in _threads(pid):
        found += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return [int(child) for child in found]


def program(pid):
    """The file the process runs, or None if it is gone or a zombie."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def memory(pid):
    """(resident, proportional) bytes. A page shared by n processes counts 1/n in the second."""
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split(":")
        sizes[key] = int(value.split()[0]) * 1024
    return sizes["Rss"], sizes["Pss"]


def cpu_nanoseconds(pid):
    """User and system time of all its threads. From the scheduler's own account, which is exact; a
    kernel without it has only ticks."""
    total = 0
    for thread in _threads(pid):
        try:
            text = Path(f"/proc/{pid}/task/{thread}/schedstat").read_text()
        except FileNotFoundError:
            text = "0"
        total += int(text.split()[0])
    if total > 0:
        return total
    text = Path(f"/proc/{pid}/stat").read_text()
    fields = text[text.rindex(")") + 1 :].split()
    return (int(fields[11]) + int(fields[12])) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def context_switches(pid):
    """How often its threads gave up a CPU, willingly or not: at least once for each wake-up."""
    total = 0
    for thread in _threads(pid):
        for line in Path(f"/proc/{pid}/task/{thread}/status").read_text().splitlines():
            if line.startswith(("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")):
                total += int(line.split()[1])
    return total
