"""When a worker counts as up: the timer, ACKs by hand, READY=1."""

import json
import os
import sys

import pytest
from harness import wait_until, worker
from harness.waiting import stays_true


def starting(pool):
    return [w for w in pool.workers() if w["state"] == "starting"]


def acked(pool):
    return [w for w in pool.workers() if w["acked"]]


# --- timer ----------------------------------------------------------------------------------------


def test_timer(make_pool):
    pool = make_pool(["-m", "0.6"])
    state = pool.wait_state(lambda s: s["workers"])
    (entry,) = state["workers"]
    assert entry["state"] == "starting" and not entry["acked"] and entry["acked_at"] is None
    (entry,) = pool.wait_ready(1)
    pool.wait_log(rf"Worker {entry['pid']} has been up for 0\.6s, so we are considering it alive\.")


def test_timer_is_one_second_by_default(make_pool):
    pool = make_pool()
    pool.wait_ready(1)
    pool.wait_log(r"has been up for 1s, so we are considering it alive\.")


def test_timer_of_zero(make_pool):
    pool = make_pool(["-m", "0", "-n", "3"])
    pool.wait_ready(3, deadline=5)
    pool.wait_log("Up to 3 / 3 timer ACKs")


def test_ack_by_hand_is_ignored_in_timer_mode(make_pool):
    pool = make_pool(["-m", "30"], "http_worker --ack=path")
    pool.wait_state(lambda s: s["workers"])
    pool.wait_log(r"(?i)ack.*(ignoring|timer)|ignor.*ack")
    assert acked(pool) == []


# --- manual ---------------------------------------------------------------------------------------


def test_manual_by_path(make_pool):
    pool = make_pool(["-m", "manual", "-n", "2"], "http_worker --ack=path")
    workers = pool.wait_ready(2)
    for entry in workers:
        pool.wait_log(rf"Received a manual ACK from {entry['pid']}")
    pool.wait_log("Up to 2 / 2 manual ACKs")


def test_manual_by_descriptor(make_pool):
    pool = make_pool(["-m", "manual", "-g", "-n", "2"], "http_worker --ack=fd")
    pool.wait_ready(2)


def test_manual_by_a_child_of_the_worker(make_pool):
    pool = make_pool(["-m", "manual"], "http_worker --ack=path --ack-from=child")
    pool.wait_ready(1)


def test_nothing_is_ready_without_its_ack(make_pool):
    pool = make_pool(["-m", "manual"])
    pool.wait_state(lambda s: s["workers"])
    stays_true(lambda: len(starting(pool)) == 1, 1.2)


def test_manual_with_a_wrong_pid(make_pool):
    pool = make_pool(["-m", "manual"], "http_worker --ack=path --ack-pid=1")
    pool.wait_state(lambda s: s["workers"])
    pool.wait_log(r"(?i)\b1\b.*ack|ack.*\b1\b")
    stays_true(lambda: acked(pool) == [], 0.3)


def test_manual_for_another_worker(make_pool):
    """Worker 1 names worker 0's pid: neither of them counts as up."""
    pool = make_pool(["-m", "manual", "--max-unacked", "2"], "http_worker --options-file=options --events=events")
    wait_until((pool.dir / "events").exists)
    (victim,) = pool.pids()
    (pool.dir / "options").write_text(f"--ack=path\n--ack-pid={victim}\n")
    pool.command("inc")
    pool.wait_state(lambda s: len(s["workers"]) == 2)
    pool.wait_log(rf"tried to ACK for worker {victim}|ignoring ACK")
    stays_true(lambda: acked(pool) == [], 0.5)


def test_manual_by_somebody_who_is_no_descendant(make_pool):
    pool = make_pool(["-m", "manual"])
    (entry,) = pool.wait_state(lambda s: s["workers"])["workers"]
    with pool.client() as client:
        client.send_line(
            json.dumps({"command": "worker:ack", "pid": entry["pid"]}).encode() + b"\n"
        )
        assert client.at_end(), "no reply, the connection is closed"
    stays_true(lambda: acked(pool) == [], 0.3)


@pytest.mark.parametrize("pid", ["abc", None, -1, 1.5, [1], 99999999999999999999, ""])
def test_manual_with_nonsense(make_pool, pid):
    pool = make_pool(["-m", "manual"])
    pool.wait_state(lambda s: s["workers"])
    with pool.client() as client:
        client.send_line(json.dumps({"command": "worker:ack", "pid": pid}).encode() + b"\n")
        assert client.at_end()
    assert acked(pool) == []


def test_second_ack_is_ignored(make_pool):
    pool = make_pool(["-m", "manual"], "http_worker --ack=path --ping=after")
    (entry,) = pool.wait_ready(1)
    at = entry["acked_at"]
    pool.wait_state(lambda s: s["workers"][0]["pinged_request_id"] == "after")
    assert pool.workers()[0]["acked_at"] == at


# --- notify ---------------------------------------------------------------------------------------


def test_notify(make_pool):
    pool = make_pool(["-m", "notify", "-n", "2"], "http_worker --ack=notify")
    pool.wait_ready(2)
    pool.wait_log("Up to 2 / 2 notify ACKs")


def test_notify_status_is_shown(make_pool):
    pool = make_pool(["-m", "notify"], ["http_worker", "--ack=notify", "--status=warming up"])
    pool.wait_state(lambda s: [w["status"] for w in s["workers"]] == ["warming up"])
    assert "warming up" in pool.command("status")


def test_watchdog_counts_as_a_ping(make_pool):
    pool = make_pool(["-m", "notify"], "http_worker --ack=notify --watchdog-ms=50")
    pool.wait_ready(1)
    first = pool.wait_state(lambda s: s["workers"][0]["pinged_at"])["workers"][0]["pinged_at"]
    pool.wait_state(lambda s: s["workers"][0]["pinged_at"] != first)


def test_notify_survives_the_masters_death(make_pool):
    pool = make_pool(["-m", "notify"], "http_worker --ack=notify --ack-delay-ms=1500")
    pool.wait_state(lambda s: s["workers"])
    pool.kill_master()
    pool.wait_ready(1)


SLOW_ACK = """
import os, socket, sys, time
stream = socket.socket(socket.AF_UNIX)
stream.connect(os.environ["EINHORN_SOCK_PATH"])
extra = [socket.socket(socket.AF_UNIX) for _ in range(int(sys.argv[1]))]
for one in extra:
    one.connect(os.environ["EINHORN_SOCK_PATH"])
open("connected", "w").close()
os.mkfifo("speak")
open("speak").close()
stream.sendall(b'{"command": "worker:ack", "pid": %d}\\n' % os.getpid())
open("spoken", "w").close()
while True:
    time.sleep(1000)
"""


@pytest.mark.parametrize("more", [0, 40])
def test_ack_that_comes_after_its_master(make_pool, more):
    """Connected under one master, it speaks under the next. Of many connections of one that has not
    been ACKed, one outlives the master."""
    pool = make_pool(
        ["-m", "manual", "--ack-timeout", "60"], [sys.executable, "-c", SLOW_ACK, str(more)]
    )
    wait_until((pool.dir / "speak").exists)
    pool.state_json()  # who connected before us is known by now
    (entry,) = starting(pool)
    for _ in range(2):
        pool.kill_master()
    with open(pool.dir / "speak", "w", encoding="utf-8"):
        pass
    wait_until((pool.dir / "spoken").exists)
    (ready,) = pool.wait_ready(1)
    assert ready["pid"] == entry["pid"]
    assert len(os.listdir(f"/proc/{pool.guard_pid}/fd")) < 30


# --- not in time ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["manual", "notify"])
def test_ack_timeout(make_pool, mode):
    pool = make_pool(["-m", mode, "--ack-timeout", "0.3"])
    first = pool.wait_state(lambda s: s["workers"])["workers"][0]["pid"]
    pool.wait_log(rf"===> Exited worker {first} before it was ACKed")
    state = pool.wait_state(lambda s: s["workers"] and s["workers"][0]["pid"] != first)
    assert state["deaths_before_ack"] >= 1


def test_ack_timeout_kills_a_worker_that_does_not_listen(make_pool):
    pool = make_pool(
        ["-m", "manual", "--ack-timeout", "0.2", "-t", "1"], "http_worker --on=USR2:note"
    )
    first = pool.wait_state(lambda s: s["workers"])["workers"][0]["pid"]
    pool.wait_log(rf"Exited worker {first} before it was ACKed")
    assert not os.path.exists(f"/proc/{first}")


def test_ack_in_time_is_no_timeout(make_pool):
    pool = make_pool(
        ["-m", "manual", "--ack-timeout", "0.8"], "http_worker --ack=path --ack-delay-ms=100"
    )
    (entry,) = pool.wait_ready(1)
    stays_true(lambda: [w["pid"] for w in pool.workers()] == [entry["pid"]], 1.2)
    assert wait_until(lambda: pool.state_json()["deaths_before_ack"] == 0)


@pytest.mark.root
def test_workers_of_another_user(make_pool):
    """A worker that has changed its user may still ACK, and nothing more."""
    pool = make_pool(
        ["-m", "manual", "--socket-mode", "0666"],
        ["setpriv", "--reuid=65534", "--clear-groups", worker("http_worker"), "--ack=path"],
        start=False,
    )
    pool.dir.chmod(0o755)
    pool.start().wait_ready(1)
