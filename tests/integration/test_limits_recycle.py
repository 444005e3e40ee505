"""Workers that grow, in four languages, are replaced before they go; hard limits kill; flapping."""

import os
import re
from pathlib import Path

import pytest
from harness import wait_until
from harness.waiting import stays_true
from test_limits_hung import LANGUAGES, get, honest, pool_of, running


def ask(address, path):
    """The whole answer."""
    with get(address, path) as stream:
        data = b""
        while got := stream.recv(65536):
            data += got
    return data


def replaced(pool, old, number, deadline=40):
    """Waits until `number` workers are ready, none of them of `old`; the most that there were."""
    most = []

    def look(state):
        most.append(len(state["workers"]))
        pids = {w["pid"] for w in state["workers"]}
        return len(pids) == number and not pids & set(old)

    pool.wait_state(look, deadline, f"other workers than {old}")
    pool.wait_ready(number, deadline=deadline)
    return max(most)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_leaking_worker_is_recycled_under_load(make_pool, make_load, language):
    pool = pool_of(
        make_pool,
        language,
        *("--max-memory", "100M,times=2/3", "--sample-interval", "0.2"),
        number=2,
        worker=("0",),
    )
    old = pool.pids()
    with make_load(pool.address, connections=2, rate=50) as load:
        load.wait_ok(20, deadline=30)
        answered = ask(pool.address, "/leak/110")
        assert answered.startswith(b"HTTP/1.1 200")
        pid = int(re.search(rb'"pid": ?(\d+)', answered)[1])
        pool.wait_log(
            rf"Worker {pid} has to be replaced: memory \d+\.\dM is over 100\.0M in 2 of 3", 30
        )
        pool.wait_log(rf"===> Exited worker {pid}", 40)
        pool.wait_ready(2, deadline=40)
        load.wait_ok(100, deadline=30)
    assert load.result["failures"] == 0
    assert set(pool.pids()) & set(old) == set(old) - {pid}
    log = pool.log()
    launched = log.index("===> Launched", log.index(f"Recycling worker {pid}"))
    ready = log.index("Received a manual ACK", launched)
    assert launched < ready < log.index(f"Sending USR2 to [{pid}]"), "its replacement came first"
    assert pool.state_json()["deaths"] == 0


def test_no_more_than_one_at_a_time(make_pool):
    pool = pool_of(
        make_pool,
        "c++",
        *("--max-age", "2", "--recycle-jitter", "0", "-t", "5"),
        number=4,
        worker=("0",),
    )
    most = replaced(pool, pool.pids(), 4)
    assert most <= 5


def test_requests_are_counted(make_pool):
    pool = pool_of(
        make_pool, "c++", "--max-requests", "20", "--recycle-jitter", "50", number=1, worker=("0",)
    )
    (first,) = pool.pids()
    for _ in range(25):
        assert ask(pool.address, "/").startswith(b"HTTP/1.1 200")
    pool.wait_log(rf"Worker {first} has to be replaced: 1\d requests|20 requests")
    replaced(pool, [first], 1)


@pytest.mark.parametrize(
    "option, path, complaint",
    [
        ("--max-descriptors=50,times=1/1", "/open/100", r"descriptors 1\d\d is over 50"),
        ("--max-threads=5,times=1/1", "/thread/10", r"threads \d+ is over 5"),
        ("--max-pss=60M,times=1/1", "/leak/80", r"pss \d+\.\dM is over 60\.0M"),
        ("--max-cpu=2%,over=2,times=1/1", "/burn/600", r"cpu \d+% is over 2%"),
    ],
)
def test_what_else_is_limited(make_pool, option, path, complaint):
    pool = pool_of(
        make_pool, "python", option, "--sample-interval", "0.2", number=1, worker=("0",)
    )
    (first,) = pool.pids()
    assert ask(pool.address, path).startswith(b"HTTP/1.1 200")
    pool.wait_log(rf"Worker {first} has to be replaced: {complaint}", 30)
    replaced(pool, [first], 1)


def test_a_hard_limit_kills_the_group(make_pool):
    pool = pool_of(
        make_pool,
        "c++",
        *("--max-memory", "hard=60M", "--sample-interval", "0.2"),
        number=2,
        worker=("0", "ignore"),
    )
    forked = int(re.search(rb'"pid":(\d+)', ask(pool.address, "/fork"))[1])
    (child,) = [s.pid for s in pool.processes() if s.ppid == forked]
    # Whoever answers leaks, and is killed for it, perhaps before it has answered.
    for killed in range(1, 20):
        with get(pool.address, "/leak/80"):
            wait_until(
                lambda killed=killed: pool.count_log("is killed: memory .* hard limit") >= killed, 30
            )
        pool.wait_ready(2, deadline=30)
        if f"Worker {forked} is killed" in pool.log():
            break
    pool.wait_log(rf"===> Exited worker {forked}", 30)
    wait_until(lambda: not running(child), 20, "the end of its child")


def test_an_upgrade_in_the_middle_of_recycling(make_pool):
    pool = pool_of(
        make_pool,
        "c++",
        *("--max-memory", "50M,times=1/1", "--sample-interval", "0.1", "-t", "5"),
        number=3,
        worker=("0",),
    )
    old = pool.pids()
    for _ in range(6):
        ask(pool.address, "/leak/60")
    pool.command("upgrade")
    pool.wait_state(
        lambda s: s["version"] == 1 and not s["upgrading"] and len(s["workers"]) == 3, 60
    )
    assert not set(pool.pids()) & set(old)


def test_limits_outlive_the_master(make_pool):
    pool = pool_of(
        make_pool,
        "c++",
        *("--max-memory", "50M,times=1/1", "--sample-interval", "0.1"),
        number=1,
        worker=("0",),
    )
    (first,) = pool.pids()
    pool.kill_master()
    ask(pool.address, "/leak/60")
    replaced(pool, [first], 1)


def test_resource_limits(make_pool):
    pool = make_pool(
        ["-m", "0", "--rlimit", "nofile=100:200", "--rlimit", "core=0", "--rlimit", "fsize=5M"],
        "/bin/sleep 1000",
    )
    (worker,) = pool.wait_ready(1)
    limits = Path(f"/proc/{worker['pid']}/limits").read_text()
    assert re.search(r"Max open files +100 +200", limits)
    assert re.search(r"Max core file size +0 +0", limits)
    assert re.search(r"Max file size +5242880 +5242880", limits)
    guard = Path(f"/proc/{pool.guard_pid}/limits").read_text()
    assert not re.search(r"Max file size +5242880", guard)


@pytest.mark.root
def test_a_resource_limit_that_can_not_be_set_is_said(make_pool):
    """A hard limit above Einhorn's own, and no right to raise it."""
    pool = make_pool(
        ["-m", "0", "--rlimit", "nproc=100000:unlimited"],
        "/bin/sleep 1000",
        wrapper=[
            *("/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            *("/usr/bin/prlimit", "--nproc=90000:90000", "--"),
        ],
        start=False,
    )
    os.chown(pool.dir, 65534, 65534)
    pool.start()
    pool.wait_log(r"Could not launch a worker .*setrlimit", 20)


# --- flapping -------------------------------------------------------------------------------------


def test_flapping(make_pool):
    """A worker that dies again and again is left alone, then tried again; the others serve."""
    pool = make_pool(
        [
            *("-b", "127.0.0.1:0", "-n", "2", "-m", "0"),
            *("--flapping", "3/60", "--flapping-pause", "2", "--flapping-retries", "1"),
        ],
        "http_worker --exit-after-ms=50 --exit-code=3 --only-index=0",
    )
    pool.wait_log(r"Index 0 is flapping: 3 deaths within 60s; paused for 2s \(retry 1 of 1\)", 30)
    state = pool.wait_state(lambda s: s["paused"], 20)
    assert [(p["index"], p["given_up"]) for p in state["paused"]] == [(0, False)]
    assert re.search(r"^PAUSED: index 0 is flapping, next try in", pool.command("status"), re.M)
    assert ":paused:" in pool.command("state")
    pool.wait_log("Index 0 is tried again after its pause", 20)
    pool.wait_log("Index 0 is flapping: .*given up after 1 retries", 30)
    size = pool.log_size()
    stays_true(lambda: "===> Launched" not in pool.log(size), 1.5)
    assert [w["index"] for w in pool.workers()] == [1]
    pool.command("inc")
    pool.wait_log(r"===> Launched \d+ \(index: 0\)", 20, since=size)


def test_without_it_workers_are_restarted_for_ever(make_pool):
    pool = make_pool(["-m", "0"], "http_worker --exit-after-ms=10 --exit-code=3")
    wait_until(lambda: pool.count_log("===> Launched") >= 12, 30)
    assert "flapping" not in pool.log()


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "option, value, allowed",
    [
        ("--max-memory", "lots", "is no size"),
        ("--max-memory", "100M,hard=50M", "hard limit that is not above"),
        ("--max-memory", "100M,times=6/5", "is no K/N"),
        ("--max-memory", "100M,often", "allowed: hard=..., times=K/N"),
        ("--max-cpu", "0", "out of range"),
        ("--max-cpu", "90,over=x", "is not a number"),
        ("--max-requests", "-1", "out of range"),
        ("--max-recycling", "0", "out of range"),
        ("--sample-interval", "0.01", "too often"),
        ("--recycle-jitter", "101", "out of range"),
        ("--flapping", "5", "is no N/SECONDS"),
        ("--rlimit", "files=3", "allowed names: .*nofile"),
        ("--rlimit", "nofile=10:5", "below the soft one"),
        ("--rlimit", "nofile=many", "is not a whole number"),
    ],
)
def test_nonsense_is_refused(make_pool, option, value, allowed):
    pool = make_pool([option, value], "/bin/true")
    assert pool.wait_exit() == 1
    assert re.search(rf"{option}.*{allowed}", pool.log()), pool.log()
    assert len(pool.log().splitlines()) == 1
