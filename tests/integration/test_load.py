"""Requests that are lost: none, but those in the hands of a worker that was killed."""

import os
import random
import signal

import pytest
from harness import wait_until

THREADS = 4  # of a worker: as many requests can be in its hands


def start(make_pool, number=4, more=(), worker="http_worker"):
    pool = make_pool(["-n", str(number), "-m", "0.05", "-b", "127.0.0.1:0", *more], worker)
    pool.wait_ready(number)
    return pool


def living_worker(pool, moments):
    """A worker's pid, found without the master's help."""
    from harness.processes import descendants

    found = wait_until(
        lambda: [
            s.pid
            for s in descendants(pool.process.pid)
            if s.name == "http_worker" and s.state != "Z"
        ]
    )
    return moments.choice(found)


def kill(pid, number=signal.SIGKILL):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def test_ten_thousand_while_workers_and_the_master_are_killed(make_pool, make_load):
    """Workers that die with nothing in their hands, and a master killed again and again: every
    one of 10,000 requests is answered."""
    moments = random.Random(1)
    pool = start(make_pool, worker="http_worker --on=USR1:kill")
    load = make_load(pool.address, connections=16, requests=10_000, rate=1500)
    masters, workers = 0, 0
    while load.process.poll() is None:
        before = load.counts()[0]
        kill(living_worker(pool, moments), signal.SIGUSR1)
        workers += 1
        if workers % 2 == 0:
            pool.kill_master()
            masters += 1
        wait_until(lambda: load.counts()[0] >= before + 300 or load.process.poll() is not None, 60)
    result = load.wait_end()
    assert result["ok"] == 10_000 and result["failures"] == 0, result
    assert masters >= 4 and workers >= 8
    assert len(result["by_pid"]) > 4, "new workers took part"
    pool.wait_ready(4)


def test_killed_workers_lose_only_what_they_held(make_pool, make_load):
    moments = random.Random(2)
    pool = start(make_pool)
    load = make_load(pool.address, connections=16, requests=10_000, rate=1500)
    killed = 0
    while load.process.poll() is None:
        before = load.counts()[0]
        kill(living_worker(pool, moments))
        killed += 1
        wait_until(lambda: load.counts()[0] >= before + 800 or load.process.poll() is not None, 60)
    result = load.wait_end()
    assert killed >= 5
    assert set(result["failed"]) <= {"reset", "eof"}, "never refused, never waiting in vain"
    assert not any(f["connecting"] for f in result["first_failures"])
    assert result["failures"] <= killed * THREADS, result
    assert result["ok"] + result["failures"] == 10_000
    pool.wait_ready(4)


def test_master_killed_all_the_time(make_pool, make_load):
    pool = start(make_pool)
    before = {w["pid"] for w in pool.workers()}
    load = make_load(pool.address, connections=16, requests=6000, rate=1500)
    kills = 0
    while load.process.poll() is None:
        pool.kill_master()
        kills += 1
    result = load.wait_end()
    assert result["ok"] == 6000 and result["failures"] == 0, result
    assert kills >= 3
    assert {int(pid) for pid in result["by_pid"]} == before == set(pool.pids())


@pytest.mark.parametrize("command", ["upgrade", "upgrade_fleet"])
def test_upgrade_under_load(make_pool, make_load, command):
    pool = start(make_pool, worker="http_worker --request-delay-ms=2")
    load = make_load(pool.address, connections=16, rate=1000)
    load.wait_ok(100)
    for version in (1, 2, 3):
        with pool.client(timeout=30) as client:
            replies = client.conversation({"command": command, "id": version})
        assert replies[-1]["message"] == "Upgrade done"
        state = pool.wait_state(lambda s: not s["upgrading"] and len(s["workers"]) == 4)
        assert {w["version"] for w in state["workers"]} == {version}
        load.wait_more(100)
    result = load.stop()
    assert result["failures"] == 0, result
    assert len(result["by_pid"]) >= 12


def test_capacity_while_upgrading(make_pool, make_load):
    """At no moment are there fewer ready workers than asked for."""
    pool = start(make_pool)
    with pool.client(timeout=30) as client:
        client.send_line(b'{"command":"upgrade","id":1}\n')
        seen = []

        def upgraded():
            state = pool.state_json()
            seen.append(sum(w["state"] == "ready" for w in state["workers"]))
            return state["version"] == 1 and not state["upgrading"]

        wait_until(upgraded, 20)
    assert min(seen) >= 4, seen


def test_upgrade_with_the_master_killed(make_pool, make_load):
    pool = start(make_pool)
    load = make_load(pool.address, connections=16, rate=1000)
    load.wait_ok(50)
    pool.command("upgrade", id=1)
    for _ in range(4):
        pool.kill_master()
    state = pool.wait_state(
        lambda s: s["version"] == 1
        and not s["upgrading"]
        and [w["version"] for w in s["workers"]] == [1] * 4,
        30,
    )
    assert all(w["state"] == "ready" for w in state["workers"])
    load.wait_more(100)
    assert load.stop()["failures"] == 0


def test_unix_socket_under_load(make_pool, make_load):
    pool = make_pool(["-n", "3", "-m", "0.05", "-b", "unix:@DIR@/web.sock"])
    pool.wait_ready(3)
    load = make_load(f"unix:{pool.dir / 'web.sock'}", connections=8, rate=1000)
    load.wait_ok(100)
    pool.kill_master()
    with pool.client(timeout=30) as client:
        client.conversation({"command": "upgrade", "id": 1})
    load.wait_more(100)
    assert load.stop()["failures"] == 0


def test_max_upgrade_additional(make_pool):
    """With one more allowed there are never more than five; the upgrade still comes through."""
    pool = start(make_pool, more=["--max-upgrade-additional", "1"])
    pool.command("upgrade", id=1)
    most = []

    def upgraded():
        state = pool.state_json()
        most.append(len(state["workers"]))
        return state["version"] == 1 and not state["upgrading"]

    wait_until(upgraded, 20)
    assert max(most) <= 5, most
    pool.wait_ready(4)
