"""What workers wrote down about the connections in their hands (tests/workers/ledger.h)."""

import socket
import struct
from pathlib import Path

from harness.processes import read_stat

HEADER = struct.Struct("<8sIi48x")
SLOT = struct.Struct("<I4sHHIq32x")  # the port stands in network byte order
IDLE, ACCEPTING, HOLDING = range(3)


class Slot:
    """One thread of a worker: `client` is "127.0.0.7:40000", `accepted` in seconds (monotonic)."""

    def __init__(self, state, address, port, _, requests, accepted_ns):
        self.state = state
        self.client = f"{socket.inet_ntoa(address)}:{socket.ntohs(port)}"
        self.requests = requests
        self.accepted = accepted_ns / 1e9


class Ledger:
    """One worker's file."""

    def __init__(self, path):
        self.path = path
        self.pid = int(path.name.split("-")[0])
        data = path.read_bytes()
        magic, count, pid = HEADER.unpack_from(data)
        assert magic.rstrip(b"\0") == b"LEDGER1" and pid == self.pid, path
        self.slots = [Slot(*SLOT.unpack_from(data, 64 + 64 * i)) for i in range(count)]

    def is_alive(self):
        stat = read_stat(self.pid)
        return stat is not None and stat.state not in "ZX"


def read_all(directory):
    """The ledgers there are, oldest first. One that goes while we look is not among them."""
    found = []
    for path in sorted(Path(directory).iterdir(), key=lambda p: p.name.rpartition("-")[2]):
        if path.name.startswith("."):
            continue  # not finished yet, or killed before it was
        try:
            found.append(Ledger(path))
        except FileNotFoundError:
            pass
    return found


def serving(directory):
    """Pids of the living workers, those that drain included."""
    return [ledger.pid for ledger in read_all(directory) if ledger.is_alive()]


def dead(directory):
    """Ledgers of workers that ended without leaving in order."""
    return [ledger for ledger in read_all(directory) if not ledger.is_alive()]
