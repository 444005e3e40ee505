"""Signals to the pid the world knows."""

import os
import re
import signal

import pytest
from harness import http_get, wait_until

WORKER = [
    "http_worker",
    "--events=events",
    "--on=TERM:exit",
    "--on=QUIT:exit",
    "--on=USR1:note",
    "--on=HUP:note",
]


def events(pool):
    try:
        return (pool.dir / "events").read_text()
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize(
    "sent, seen, code",
    [
        (signal.SIGINT, "USR2", 0),
        (signal.SIGUSR2, "USR2", 0),
        (signal.SIGTERM, "TERM", 0),
        (signal.SIGQUIT, "QUIT", 1),
    ],
)
def test_ending(make_pool, sent, seen, code):
    pool = make_pool(["-n", "2", "-m", "0.05"], WORKER)
    workers = pool.wait_ready(2)
    assert pool.stop(sent) == code
    for entry in workers:
        wait_until(lambda: f"signal {seen} {entry['pid']}" in events(pool))
    pool.wait_log(rf"Sending {seen} to \[")
    pool.wait_gone()


def test_int_waits_for_the_workers(make_pool):
    pool = make_pool(
        ["-n", "1", "-m", "0.05", "-b", "127.0.0.1:0"],
        "http_worker --drain-delay-ms=700 --events=events",
    )
    (entry,) = pool.wait_ready(1)
    pool.send(signal.SIGINT)
    wait_until(lambda: f"signal USR2 {entry['pid']}" in events(pool))
    assert pool.exit_code is None
    assert pool.wait_exit() == 0
    assert f"exit {entry['pid']}" in events(pool)


def test_quit_does_not_wait(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"], "http_worker --on=QUIT:note --events=events")
    (entry,) = pool.wait_ready(1)
    assert pool.stop(signal.SIGQUIT, deadline=3) == 1
    wait_until(lambda: f"signal QUIT {entry['pid']}" in events(pool))
    assert os.path.exists(f"/proc/{entry['pid']}"), "it was not waited for"


def test_the_ending_does_not_respawn(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05"], "http_worker --drain-delay-ms=300 --events=events")
    pool.wait_ready(2)
    assert pool.stop(signal.SIGINT) == 0
    assert events(pool).count("start ") == 2


def test_hup_is_a_smooth_upgrade(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], WORKER)
    old = {w["pid"] for w in pool.wait_ready(2)}
    pool.send(signal.SIGHUP)
    pool.wait_log(r"Upgraded successfully to version 1 \(Einhorn [\d.]+\)\.")
    new = {w["pid"] for w in pool.wait_ready(2)}
    assert not old & new
    assert pool.state_json()["version"] == 1
    for pid in old:
        assert f"signal USR2 {pid}" in events(pool)
    assert http_get(pool.address)["pid"] in new


def test_alrm_is_a_smooth_upgrade_too(make_pool):
    pool = make_pool(["-m", "0.05"], WORKER)
    pool.wait_ready(1)
    pool.send(signal.SIGALRM)
    pool.wait_log(r"Upgraded successfully to version 1")


def test_ttin_and_ttou(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"], WORKER)
    pool.wait_ready(1)
    pool.send(signal.SIGTTIN)
    pool.wait_ready(2)
    pool.send(signal.SIGTTIN)
    pool.wait_ready(3)
    pool.send(signal.SIGTTOU)
    pool.wait_ready(2)


def test_ttou_leaves_one(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"], WORKER)
    (entry,) = pool.wait_ready(1)
    mark = pool.log_size()
    pool.send(signal.SIGTTOU)
    pool.wait_log(r"Can't decrease number of workers \(already at 1\)", since=mark)
    assert pool.pids() == [entry["pid"]]


@pytest.mark.parametrize(
    "number", [signal.SIGUSR1, signal.SIGPIPE, signal.SIGWINCH, signal.SIGCONT]
)
def test_harmless(make_pool, number):
    pool = make_pool(["-m", "0.05"], WORKER)
    (entry,) = pool.wait_ready(1)
    pool.send(number)
    # Signals keep no order, but this one is answered only by a loop that still runs.
    pool.send(signal.SIGTTIN)
    assert entry["pid"] in [w["pid"] for w in pool.wait_ready(2)]


def test_signals_while_there_is_no_master(make_pool):
    """A signal that comes just after the master's death is not lost."""
    pool = make_pool(["-n", "1", "-m", "0.05"], WORKER)
    pool.wait_ready(1)
    os.kill(pool.master_pid, signal.SIGKILL)
    pool.send(signal.SIGTTIN)
    pool.wait_ready(2)
    os.kill(pool.master_pid, signal.SIGKILL)
    assert pool.stop(signal.SIGTERM) == 0
    pool.wait_gone()


def test_second_int_says_it_again(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"], "http_worker --on=USR2:note --events=events")
    (entry,) = pool.wait_ready(1)
    pool.send(signal.SIGINT)
    wait_until(lambda: events(pool).count("signal USR2") == 1)
    pool.send(signal.SIGINT)
    wait_until(lambda: events(pool).count("signal USR2") == 2)
    pool.wait_log(rf"Re-sending USR2 to already-signaled child {entry['pid']}")
    pool.send(signal.SIGTERM)
    assert pool.wait_exit() == 0
    assert re.search("Sending TERM to", pool.log())
