"""The dead are replaced: at once if they were up, ever slower if they never came up; and those that
do not go are made to."""

import os
import re
import signal
import time

import pytest
from harness import http_get, is_alive, wait_until
from harness.processes import descendants, read_stat
from harness.waiting import stays_true


def launches(pool, events="events"):
    """Start lines of the workers: (pid, index)."""
    try:
        lines = (pool.dir / events).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [tuple(map(int, line.split()[1:])) for line in lines if line.startswith("start ")]


def test_the_dead_are_replaced_at_once(make_pool):
    pool = make_pool(["-n", "3", "-m", "0.1", "-b", "127.0.0.1:0"])
    workers = pool.wait_ready(3)
    victim = workers[1]
    os.kill(victim["pid"], signal.SIGKILL)
    pool.wait_log(rf"===> Exited worker {victim['pid']}$")
    state = pool.wait_state(
        lambda s: len(s["workers"]) == 3 and victim["pid"] not in [w["pid"] for w in s["workers"]]
    )
    assert sorted(w["index"] for w in state["workers"]) == [0, 1, 2], "the lowest free index"
    assert state["deaths_before_ack"] == 0
    assert http_get(pool.address)


@pytest.mark.parametrize("status", ["--exit-code=0", "--exit-code=7"])
def test_a_worker_that_leaves_is_replaced(make_pool, status):
    pool = make_pool(
        ["-m", "0.05"], ["http_worker", "--options-file=options", "--events=events"], start=False
    )
    (pool.dir / "options").write_text(f"--exit-after-ms=300\n{status}\n")
    pool.start()
    pool.wait_ready(1)
    (pool.dir / "options").write_text("")
    wait_until(lambda: len(launches(pool)) == 2, 10, pool.log)
    pool.wait_ready(1)


def test_fifty_do_not_take_fifty_seconds(make_pool):
    pool = make_pool(["-n", "50", "-m", "0"])
    pool.wait_ready(50, deadline=15)


def test_killed_all_at_once(make_pool):
    pool = make_pool(["-n", "10", "-m", "0.05"])
    old = {w["pid"] for w in pool.wait_ready(10)}
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    pool.wait_state(
        lambda s: not old & {w["pid"] for w in s["workers"]}
        and [w["state"] for w in s["workers"]] == ["ready"] * 10,
        15,
    )


# --- back-off -------------------------------------------------------------------------------------


def test_back_off_grows(make_pool):
    """Deaths before ACK: intervals x 1.5, so five of them take seconds, not milliseconds."""
    pool = make_pool(
        ["-m", "5", "-s", "0.1"], ["http_worker", "--exit-at-start=1", "--events=events"]
    )
    begin = time.monotonic()
    seen = []

    def note():
        while len(seen) < len(launches(pool)):
            seen.append(time.monotonic() - begin)
        return len(seen) >= 7

    wait_until(note, 20, pool.log)
    # Interval k is 0.1 x 1.5^k: from the second to the seventh start at least 1.5 s together.
    assert seen[6] - seen[0] >= 0.9 * sum(0.1 * 1.5**k for k in range(1, 7))
    gaps = [b - a for a, b in zip(seen[1:], seen[2:])]
    assert gaps[-1] > gaps[0]
    assert pool.state_json()["deaths_before_ack"] >= 6
    assert re.search(r"before it was ACKed", pool.log())


def test_first_ack_ends_the_back_off(make_pool):
    """One slot fails, the other comes up late: its ACK resets the count and cancels the wait."""
    pool = make_pool(
        ["-n", "2", "-m", "manual", "-s", "0.1"],
        ["http_worker", "--options-file=options", "--ack=path", "--events=events"],
        start=False,
    )
    (pool.dir / "options").write_text("--exit-at-start=1\n--only-index=1\n--ack-delay-ms=4000\n")
    pool.start()
    pool.wait_state(lambda s: s["deaths_before_ack"] >= 5, 10)
    (pool.dir / "options").write_text("")
    pool.wait_log("consecutive unacked workers dying|streak", 10)
    pool.wait_state(
        lambda s: s["deaths_before_ack"] == 0
        and [w["state"] for w in s["workers"]] == ["ready", "ready"],
        3,
    )


def test_seconds_between_spin_ups(make_pool):
    pool = make_pool(["-n", "1", "-m", "0", "-s", "0.5"], "http_worker --events=events")
    pool.wait_ready(1)
    begin = time.monotonic()
    pool.command("set_workers", "5")
    pool.wait_ready(5, deadline=10)
    assert time.monotonic() - begin >= 1.5, "at least three whole intervals lie between five starts"


def test_without_seconds_as_fast_as_acks_come(make_pool):
    pool = make_pool(["-n", "1", "-m", "0"])
    pool.wait_ready(1)
    begin = time.monotonic()
    pool.command("set_workers", "8")
    pool.wait_ready(8, deadline=10)
    assert time.monotonic() - begin < 4


def test_max_unacked(make_pool):
    pool = make_pool(
        ["-n", "1", "-m", "manual", "--max-unacked", "2"],
        ["http_worker", "--options-file=options", "--events=events"],
        start=False,
    )
    (pool.dir / "options").write_text("--ack=path\n")
    pool.start()
    pool.wait_ready(1)
    (pool.dir / "options").write_text("")
    pool.command("set_workers", "6")
    pool.wait_state(lambda s: len(s["workers"]) == 3)
    stays_true(lambda: len(pool.workers()) == 3, 0.8, "two that are not ACKed are enough")


# --- giving up ------------------------------------------------------------------------------------


def test_give_up(make_pool):
    pool = make_pool(
        ["-m", "5", "-s", "0.05", "--give-up", "3"],
        ["http_worker", "--exit-at-start=1", "--events=events"],
    )
    assert pool.wait_exit(20) == 1
    assert len(launches(pool)) == 3
    assert re.search(r"(?i)g(ave|iving) up", pool.log())
    pool.wait_gone()


def test_give_up_with_somebody_serving(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.2", "-s", "0.05", "--give-up", "3", "-b", "127.0.0.1:0"],
        ["http_worker", "--options-file=options", "--events=events"],
        start=False,
    )
    (pool.dir / "options").write_text("")
    pool.start()
    workers = pool.wait_ready(2)
    (pool.dir / "options").write_text("--exit-at-start=1\n")
    os.kill(workers[1]["pid"], signal.SIGKILL)
    state = pool.wait_state(lambda s: s["failed"], 20)
    assert [w["pid"] for w in state["workers"]] == [workers[0]["pid"]]
    assert http_get(pool.address)["pid"] == workers[0]["pid"]
    assert pool.exit_code is None
    stays_true(lambda: len(launches(pool)) == 5, 0.5, "it really gave up")


def test_never_gives_up_by_default(make_pool):
    pool = make_pool(
        ["-m", "5", "-s", "0.01"], ["http_worker", "--exit-at-start=1", "--events=events"]
    )
    wait_until(lambda: len(launches(pool)) >= 10, 20, pool.log)
    assert pool.exit_code is None and pool.state_json()["failed"] is False


# --- those that do not go -------------------------------------------------------------------------


def test_signal_timeout_kills_the_whole_group(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "-t", "1"], "http_worker --on=USR2:note --children=2"
    )
    workers = pool.wait_ready(2)
    for worker in workers:  # a timer may be over before they have forked
        wait_until(lambda: len([s for s in descendants() if s.pgid == worker["pid"]]) == 3)
    pool.command("dec")
    stopping = pool.wait_state(lambda s: any(w["signaled"] for w in s["workers"]))
    target = next(w["pid"] for w in stopping["workers"] if w["signaled"])
    group = [s.pid for s in descendants() if s.pgid == target]
    pool.wait_log(rf"Child {target} .*[Kk]ill|SIGKILL.*{target}|{target}.*SIGKILL")
    wait_until(lambda: not any(is_alive(pid) for pid in group), 5, "the whole group gone")
    pool.wait_ready(1)


def test_signal_timeout_at_the_end(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "-t", "1"], "http_worker --on=USR2:note --on=TERM:note"
    )
    pool.wait_ready(2)
    assert pool.stop(signal.SIGINT, deadline=8) == 0
    pool.wait_gone()


def test_without_signal_timeout_nobody_is_killed(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05"], "http_worker --on=USR2:note")
    pool.wait_ready(2)
    pool.command("dec")
    pool.wait_state(lambda s: any("USR2" in w["signaled"] for w in s["workers"]))
    stays_true(lambda: len(pool.workers()) == 2, 1.0)


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "term"])
def test_stop_signal(make_pool, text):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "--stop-signal", text],
        "http_worker --on=TERM:drain --on=USR2:note --events=events",
    )
    pool.wait_ready(2)
    pool.command("dec")
    pool.wait_ready(1)
    assert re.search(r"^signal TERM", (pool.dir / "events").read_text(), re.MULTILINE)
    assert pool.stop(signal.SIGINT) == 0
    assert "signal USR2" not in (pool.dir / "events").read_text()


def test_culled_workers_leave_softly(make_pool, make_load):
    pool = make_pool(
        ["-n", "4", "-m", "0.05", "-b", "127.0.0.1:0"], "http_worker --request-delay-ms=5"
    )
    pool.wait_ready(4)
    load = make_load(pool.address, connections=8, rate=500)
    load.wait_ok(100)
    pool.command("set_workers", "1")
    pool.wait_ready(1)
    load.wait_more(100)
    assert load.stop()["failures"] == 0


# --- -k -------------------------------------------------------------------------------------------


def test_kill_children_on_exit(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-k"], "http_worker --events=events")
    workers = pool.wait_ready(2)
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.wait_gone()
    events = (pool.dir / "events").read_text()
    for entry in workers:
        assert f"signal USR2 {entry['pid']}" in events


def test_kill_children_on_exit_does_not_mean_the_masters_death(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-k"])
    before = {w["pid"] for w in pool.wait_ready(2)}
    pool.kill_master()
    assert set(pool.pids()) == before


def test_children_of_a_dead_worker_are_reaped(make_pool):
    """What a worker leaves behind becomes the guard's and does not stay as a zombie."""
    pool = make_pool(["-n", "1", "-m", "0.05"], "http_worker --children=2")
    (entry,) = pool.wait_ready(1)
    orphans = [s.pid for s in descendants() if s.pgid == entry["pid"] and s.pid != entry["pid"]]
    assert len(orphans) == 2
    os.kill(entry["pid"], signal.SIGKILL)
    wait_until(lambda: all(read_stat(pid).ppid == pool.process.pid for pid in orphans), 5)
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(read_stat(pid) is None for pid in orphans), 5, "both reaped")
    pool.wait_ready(1)
