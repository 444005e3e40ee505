"""Einhorn as PID 1 of a pid namespace, as in a container: it reaps whoever is left to it, passes signals on, ends with
the status that a container's runtime shows, and in its own time."""

import os
import re
import signal

import pytest
from harness import wait_until
from harness.load import connect

pytestmark = pytest.mark.root

# The namespace's own /proc, as in a container; nobody in it outlives PID 1.
CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]


@pytest.fixture
def make_container(make_pool):
    def make(args, worker_command="http_worker", **kwargs):
        return make_pool(args, worker_command, wrapper=CONTAINER, **kwargs)

    return make


def inside(pool):
    """Stats of the processes in the namespace, by the pid that they have there."""
    found = {}
    for stat in pool.processes():
        try:
            with open(f"/proc/{stat.pid}/status", encoding="utf-8") as file:
                pids = re.search(r"^NSpid:\t(.*)$", file.read(), re.MULTILINE)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if len(pids) == 2:
            found[int(pids[1])] = stat
    return found


def first(pool):
    """PID 1, as it is called outside."""
    return wait_until(lambda: inside(pool).get(1), 20).pid


def test_it_is_pid_1_and_serves(make_container, make_load):
    pool = make_container(["-n", "2", "-m", "manual", "-b", "127.0.0.1:0"], "http_worker --ack=path")
    pool.wait_ready(2)
    state = pool.state_json()
    assert state["guard"] == 1
    names = {stat.name for pid, stat in inside(pool).items() if pid > 1}
    assert len(inside(pool)) == 4, names
    load = make_load(pool.address, connections=8, rate=500)
    load.wait_ok(50)
    os.kill(inside(pool)[state["master"]].pid, signal.SIGKILL)
    pool.wait_state(lambda s: s["master"] != state["master"], 20)
    with pool.client(timeout=60) as client:
        assert client.conversation({"command": "upgrade", "id": 1})[-1]["message"] == "Upgrade done"
    load.wait_more(50)
    assert load.stop()["failures"] == 0
    os.kill(first(pool), signal.SIGTERM)
    assert pool.wait_exit() == 0


def test_who_is_left_behind_is_reaped(make_container):
    """A worker leaves grandchildren that nobody waits for. As PID 1 we do."""
    orphans = "for i in 1 2 3 4 5 6 7 8; do (exec sleep 0.05 &) ; done; exec sleep 1000"
    pool = make_container(["-n", "2", "-m", "0.01"], ["sh", "-c", orphans])
    pool.wait_ready(2)

    def only_ours():
        processes = inside(pool)
        return sorted(s.name for s in processes.values()) == ["einhorn", "einhorn", "sleep", "sleep"] and not any(
            s.state == "Z" for s in processes.values()
        )

    wait_until(only_ours, 20, lambda: [(s.name, s.state) for s in inside(pool).values()])


SIGNALS = {signal.SIGTERM: (0, "TERM"), signal.SIGINT: (0, "USR2"), signal.SIGQUIT: (1, "QUIT")}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_signals_and_exit_codes(make_container, number):
    code, heard = SIGNALS[number]
    command = ["http_worker", "--ack=path", "--events=events", "--on=TERM:exit", "--on=QUIT:exit"]
    pool = make_container(["-n", "2", "-m", "manual", "-b", "127.0.0.1:0"], command)
    pool.wait_ready(2)
    os.kill(first(pool), number)
    assert pool.wait_exit() == code
    if code == 0:
        assert (pool.dir / "events").read_text().count(f"signal {heard} ") == 2


def test_a_pool_that_fails_ends_the_container(make_container):
    pool = make_container(["-n", "2", "-m", "manual", "--give-up", "3", "-s", "0.01"], "http_worker --exit-at-start=4")
    assert pool.wait_exit(60) == 1


def test_a_wrong_option_ends_it_too(make_container):
    pool = make_container(["-n", "zero"])
    assert pool.wait_exit() == 1


def test_stop_timeout(make_container):
    """Workers that do not leave are killed after -t, before the runtime's own patience ends."""
    command = ["http_worker", "--ack=path", "--on=USR2:note", "--on=TERM:note"]
    pool = make_container(["-n", "2", "-m", "manual", "-t", "1", "-b", "127.0.0.1:0"], command)
    pool.wait_ready(2)
    os.kill(first(pool), signal.SIGTERM)
    assert pool.wait_exit(20) == 0
    pool.wait_log("KILL")


def test_a_request_under_way_is_answered(make_container):
    pool = make_container(
        ["-n", "1", "-m", "manual", "-b", "127.0.0.1:0"], "http_worker --ack=path --request-delay-ms=700 --on=TERM:drain"
    )
    pool.wait_ready(1)
    address = pool.address
    with connect(address) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        os.kill(first(pool), signal.SIGTERM)
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
    assert pool.wait_exit() == 0


def test_the_death_of_pid_1_is_the_end(make_container):
    """The kernel ends a namespace whose PID 1 dies: no half of a pool stays behind."""
    pool = make_container(["-n", "2", "-m", "0.05"])
    pool.wait_ready(2)
    os.kill(first(pool), signal.SIGKILL)
    assert pool.wait_exit() != 0
    pool.wait_gone()
