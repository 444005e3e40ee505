"""The guard allocates nothing once it runs, whatever happens: a library that is preloaded into it
ends it if it does (tests/interpose/no_allocation.cpp)."""

import os
import signal

import pytest
from harness import wait_until
from harness.processes import read_stat
from harness.programs import interposed
from test_renewal import OwnProgramPool, executable, upgrade

pytestmark = pytest.mark.unsanitized  # they have an allocator of their own

WATCHES = "no_allocation: watches "
ALLOCATES = "no_allocation: an allocation in the guard"


@pytest.fixture
def start(request, make_pool):
    def make(args=(), **env):
        words = ["-n", "3", "-m", "manual", "-b", "127.0.0.1:0", *args]
        pool = OwnProgramPool(
            words, "http_worker --ack=path", env={"LD_PRELOAD": interposed("no_allocation"), **env}
        )
        request.node.pools.append(pool)
        return pool

    return make


def check(pool, renewals=0):
    """It is the guard that is watched, from its start and from each renewal on, and it lives."""
    assert pool.count_log(f"{WATCHES}{pool.process.pid}\n") == 1 + renewals
    assert pool.count_log(WATCHES) == 1 + renewals
    assert ALLOCATES not in pool.log()
    assert pool.exit_code is None


def test_an_allocation_would_be_noticed(start):
    pool = start(NO_ALLOCATION_TRIP="1")
    assert pool.wait_exit() == -signal.SIGABRT
    assert f"{ALLOCATES} {pool.process.pid}" in pool.log()


@pytest.mark.parametrize("log", ["text", "json"])
def test_through_everything_that_happens_to_a_guard(start, tmp_path, log):
    pool = start(["--log-format", log, "-e", tmp_path / "pid"])
    workers = pool.wait_ready(3)
    check(pool)
    # Workers die: one by one, all at once, and while there is no master.
    for victim in (workers[:1], workers):
        for each in victim:
            if read_stat(each["pid"]) is not None:
                os.kill(each["pid"], signal.SIGKILL)
        gone = {each["pid"] for each in victim}
        pool.wait_state(lambda s: not gone & {w["pid"] for w in s["workers"]}, 20)
        pool.wait_ready(3)
    master, victim = pool.master_pid, pool.pids()[0]
    os.kill(master, signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)
    os.kill(master, signal.SIGKILL)
    pool.wait_state(lambda s: victim not in [w["pid"] for w in s["workers"]], 20)
    pool.wait_ready(3)
    # Masters die, also as soon as they are there: that is said in the log, and there are pauses.
    for _ in range(3):
        pool.kill_master()
    for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGTRAP):
        master = pool.master_pid
        os.kill(master, number)
        pool.wait_state(lambda s: s["master"] != master, 20)
    # Signals, to the guard as to the pool.
    for number, workers in (
        (signal.SIGTTIN, 4),
        (signal.SIGTTIN, 5),
        (signal.SIGTTOU, 4),
        (signal.SIGTTOU, 3),
    ):
        pool.send(number)
        pool.wait_state(lambda s, n=workers: s["number"] == n, 20)  # two at once may become one
    pool.send(signal.SIGPIPE)
    pool.send(signal.SIGUSR1)
    pool.wait_ready(3)
    check(pool)
    # A hand-off that works, one whose successor dies, and a plain new version.
    pool.command("reload", id=1)
    pool.wait_state(lambda s: s["generation"] > 0 and not s["upgrading"], 20)
    pool.send(signal.SIGHUP)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"], 30)
    check(pool)
    assert upgrade(pool)["message"] == "Upgrade done"
    check(pool)
    # The end.
    pool.send(signal.SIGTERM)
    assert pool.wait_exit() == 0
    assert ALLOCATES not in pool.log()


def test_when_it_becomes_another_program(start):
    pool = start()
    pool.wait_ready(3)
    for count in (1, 2):
        inode = pool.replace_program()
        assert upgrade(pool)["message"] == "Upgrade done"
        wait_until(lambda: executable(pool.process.pid) == inode, what="the new program")
        pool.wait_ready(3)
        check(pool, renewals=count)
        pool.kill_master()
        pool.wait_ready(3)
        check(pool, renewals=count)


def test_when_it_takes_over_what_another_guard_left(start):
    pool = start()
    pool.wait_ready(3)
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.wait_exit()
    seen = pool.log_size()
    pool.start()
    pool.wait_state(lambda s: s["guard"] == pool.process.pid, 20)
    pool.wait_ready(3, 20)
    pool.kill_master()
    pool.wait_ready(3)
    assert pool.count_log(f"{WATCHES}{pool.process.pid}\n", since=seen) == 1
    assert ALLOCATES not in pool.log()
    assert pool.stop() == 0
