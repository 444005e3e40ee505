"""The accounting on which a game day stands: what counts as lost with a killed worker, and what as
failed. If this were lax, every scenario would hold."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from harness import wait_until, worker
from harness.processes import read_stat
from harness.programs import ROOT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gameday"))

import ledger  # noqa: E402
from account import Account  # noqa: E402

THREADS = 2


class Server:
    """Workers on a socket that only they hold, without any einhorn."""

    def __init__(self, directory, number=1, delay_ms=60_000):
        self.ledger = directory / "ledger"
        self.ledger.mkdir()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(100)
            listener.setblocking(False)
            listener.set_inheritable(True)
            self.address = "127.0.0.1:%d" % listener.getsockname()[1]
            words = [worker("http_worker"), f"--adopt={listener.fileno()}"]
            words += [f"--threads={THREADS}", f"--ledger={self.ledger}", "--linger-ms=300"]
            words += [f"--request-delay-ms={delay_ms}"]
            actions = [(os.POSIX_SPAWN_DUP2, listener.fileno(), listener.fileno())]
            self.pids = [
                os.posix_spawn(words[0], words, os.environ, file_actions=actions)
                for _ in range(number)
            ]
        wait_until(lambda: len(ledger.serving(self.ledger)) == number, 10)

    def end(self, pid, number=signal.SIGKILL):
        """Signals a worker and waits until it is gone; when it was signalled."""
        when = time.monotonic()
        os.kill(pid, number)
        os.waitpid(pid, 0)
        self.pids.remove(pid)
        return when

    def holds(self):
        slots = [slot for each in ledger.read_all(self.ledger) for slot in each.slots]
        return [slot.client for slot in slots if slot.state == ledger.HOLDING]


@pytest.fixture
def server(tmp_path):
    servers = []

    def make(**kwargs):
        servers.append(Server(tmp_path, **kwargs))
        return servers[-1]

    yield make
    for each in servers:
        for pid in list(each.pids):
            if read_stat(pid) is not None:
                each.end(pid)


def settle(load, server, killed):
    account = Account()
    account.add(load.result, load.failures())
    return account.settle(ledger.dead(server.ledger), killed)


def test_a_queue_that_is_closed_is_a_failure_of_ours(server, make_load):
    """Two requests are in the only worker's hands, the other ten wait to be accepted: the kernel
    resets all twelve, and only the two are excused."""
    one = server()
    load = make_load(one.address, connections=12, requests=12, rate=0)
    wait_until(lambda: len(one.holds()) == THREADS and len(queue_of(one.address)) == 10, 10)
    pid = one.pids[0]
    when = one.end(pid)
    result = load.wait_end()
    assert result["ok"] + result["failures"] == 12
    account = settle(load, one, {pid: when})
    assert account.lost == THREADS and account.unnamed == 0
    assert len(account.failed) == result["failures"] - THREADS == 10


def queue_of(address):
    """Clients of connections that nobody has accepted: sockets without an inode."""
    port = int(address.split(":")[1])
    found = []
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in list(file)[1:]:
            _, local, remote, state, *_, inode = line.split()[:10]
            if int(local.split(":")[1], 16) == port and state == "01" and inode == "0":
                found.append(remote)
    return found


def test_a_worker_that_nobody_killed_excuses_nothing(server, make_load):
    one = server()
    load = make_load(one.address, connections=2, requests=2, rate=0)
    wait_until(lambda: len(one.holds()) == 2, 10)
    one.end(one.pids[0])
    load.wait_end()
    account = settle(load, one, {})
    assert account.lost == 0 and len(account.failed) == 2


def test_refused_is_never_excused(server, make_load):
    one = server()
    pid = one.pids[0]
    when = one.end(pid)
    load = make_load(one.address, connections=2, requests=4, rate=0)
    load.wait_end()
    account = settle(load, one, {pid: when})
    assert account.lost == 0
    assert [f["kind"] for f in account.failed] == ["refused"] * 4
    assert {f["errno"] for f in account.failed} == {111}


@pytest.mark.parametrize("mode", ["new", "keepalive"])
def test_a_worker_that_drains_loses_nothing(server, make_load, mode):
    """Told to leave under load, with another one beside it that has a thread for each connection;
    its ledger goes with it."""
    pair = server(number=2, delay_ms=1)
    load = make_load(pair.address, connections=THREADS, mode=mode, rate=300)
    load.wait_ok(60)
    pair.end(pair.pids[0], signal.SIGUSR2)
    load.wait_more(60)
    result = load.stop()
    assert result["failures"] == 0, result
    assert ledger.dead(pair.ledger) == []
    assert (result["reused"] > 0) == (mode == "keepalive")


def test_each_hand_excuses_one():
    """A dead thread accounts for one request of that client's address, at the time of the death."""

    class Dead:
        pid = 7

        def __init__(self, *slots):
            self.slots = slots

    def slot(state, client):
        made = ledger.Slot(state, bytes([127, 0, 0, 2]), 0, 0, 0, 10**9)
        made.client = client
        return made

    def failure(local, ended=5.0, kind="reset"):
        return {"kind": kind, "ended": ended, "local": local}

    slots = [(ledger.HOLDING, "a:1"), (ledger.ACCEPTING, "?"), (ledger.IDLE, "b:2")]
    dead = [Dead(*[slot(state, client) for state, client in slots])]

    def count(*failures, when=5.0):
        account = Account(failed=list(failures)).settle(dead, {7: when})
        return account.lost, account.unnamed, len(account.failed)

    assert count(failure("a:1")) == (1, 0, 0)
    assert count(failure("a:1"), failure("a:1"), failure("a:1")) == (2, 1, 1)
    assert count(failure("b:2"), failure("c:3")) == (1, 1, 1)
    assert count(failure("a:1", ended=4.0)) == (0, 0, 1), "it broke before the worker was killed"
    assert count(failure("a:1", ended=9.0)) == (0, 0, 1), "it broke long after"
    assert count(failure("a:1", ended=9.0), when=None) == (1, 0, 0)
    assert count(failure("a:1", kind="timeout"), failure("x", kind="refused")) == (0, 0, 2)


def test_every_scenario_is_in_the_document():
    from day import SCENARIOS
    import scenarios  # noqa: F401

    text = (ROOT / "docs" / "gameday.md").read_text()
    for one in SCENARIOS.values():
        assert f"| {one.name} | {one.hypothesis} |" in text, one.name
