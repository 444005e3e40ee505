"""Workers that hang, in four languages: found, looked at, replaced at once, stopped, killed."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from harness import programs, wait_until
from harness.load import connect
from harness.waiting import stays_true

HONEST = programs.SOURCES / "honest"
LANGUAGES = ("python", "ruby", "node", "c++")


def honest(language, *args):
    """The command line of the program that goes wrong as it is asked."""
    words = {
        "python": ["/usr/bin/python3", HONEST / "worker.py"],
        "ruby": ["/usr/bin/ruby", HONEST / "worker.rb"],
        "node": [shutil.which("node"), HONEST / "worker.js"],
        "c++": [programs.worker("honest_worker")],
    }[language]
    return [str(word) for word in [*words, *args]]


def get(address, path, wait=True):
    """Asks for `path`; the connection, to be read from. Nobody may ever answer."""
    stream = connect(address, 30)
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    return stream


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pool_of(make_pool, language, *args, number=3, worker=("100",)):
    pool = make_pool(
        ["-b", "127.0.0.1:0", "-m", "manual", "-n", number, *args], honest(language, *worker)
    )
    pool.wait_ready(number, deadline=40)
    return pool


def hung_one(state):
    """The only one that was taken out."""
    (entry,) = state["hung"]
    return entry


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_silent_worker_is_replaced_and_nobody_else_fails(make_pool, make_load, language):
    pool = pool_of(make_pool, language, "--ping-timeout", "3", "-t", "1")
    before = pool.wait_state(lambda s: all(w["pinged_at"] for w in s["workers"]), 20)
    with get(pool.address, "/hang"), make_load(pool.address, connections=2, rate=50) as load:
        load.wait_ok(20, deadline=30)
        pool.wait_log(r"Worker \d+ hangs: no ping for [\d.]+s, last request \"r\d+-\d+\"", 30)
        state = pool.wait_state(lambda s: s["hung"], 20)
        hung = hung_one(state)
        assert hung["ailment"] == "silent"
        assert hung["request_id"].endswith(f"-{hung['pid']}")
        # Killed after -t, as it can't hear its stop signal; Ruby's handler may run in its sleep.
        pool.wait_log(rf"===> Exited worker {hung['pid']}", 30)
        workers = pool.wait_ready(3, deadline=30)
        old = {w["pid"] for w in before["workers"]}
        assert len(old & {w["pid"] for w in workers}) == 2, "only one was replaced"
    # Node accepts more than the request that it hangs in: what is in its hands then is lost with it.
    assert load.result["failures"] <= (2 if language == "node" else 0)
    log = pool.log()
    told = log.index(f"Sending USR2 to [{hung['pid']}]")
    assert log.index("===> Launched", log.index("hangs: no ping")) < told, "replaced at once"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_slow_request(make_pool, language):
    pool = pool_of(make_pool, language, "--request-timeout", "3", "-t", "1", worker=("0",))
    get(pool.address, "/sleep/1").close()  # in time
    with get(pool.address, "/sleep/600"):
        pool.wait_log(r"hangs: busy with request \"r\d+-\d+\" for [\d.]+s", 30)
        hung = hung_one(pool.wait_state(lambda s: s["hung"], 20))
        assert hung["ailment"] == "slow"
        pool.wait_log(rf"===> Exited worker {hung['pid']}", 30)
        pool.wait_ready(3, deadline=30)
    assert pool.count_log("hangs: ") == 1


def test_the_stack_is_taken_before_it_is_stopped(make_pool):
    pool = pool_of(make_pool, "c++", "--ping-timeout", "2", "-t", "5")
    with get(pool.address, "/hang"):
        hung = hung_one(pool.wait_state(lambda s: s["hung"] and s["hung"][0]["stack"], 30))
        assert any("hang_for_ever" in line for line in hung["stack"]), hung["stack"]
        pool.wait_log(rf"Sending USR2 to \[{hung['pid']}\]")
        log = pool.log()
        assert log.index("hang_for_ever") < log.index(f"Sending USR2 to [{hung['pid']}]")
        assert "hang_for_ever" in pool.command("state"), "also for people who read YAML"
        assert f"last taken out: worker {hung['pid']}" in pool.command("status")


def test_a_stack_that_can_not_be_taken_holds_nobody_up(make_pool, tmp_path):
    tool = tmp_path / "eu-stack"
    tool.write_text("#!/bin/sh\necho begun\nexec sleep 1000\n")
    tool.chmod(0o755)
    pool = make_pool(
        ["-b", "127.0.0.1:0", "-m", "manual", "-n", "2", "--ping-timeout", "2", "-t", "1"],
        honest("c++", "100"),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    pool.wait_ready(2)
    with get(pool.address, "/hang"):
        pool.wait_log(r"Taking the stack of worker \d+: eu-stack took longer than 2 s", 30)
        hung = hung_one(pool.wait_state(lambda s: s["hung"] and s["hung"][0]["stack"], 20))
        assert hung["stack"] == ["begun"]
        pool.wait_log(rf"===> Exited worker {hung['pid']}", 20)
        pool.wait_ready(2, deadline=20)


def test_without_eu_stack_it_is_said_at_the_start(make_pool, tmp_path):
    pool = make_pool(
        ["-m", "0", "--ping-timeout", "1"], "/bin/sleep 1000", env={"PATH": str(tmp_path)}
    )
    pool.wait_log("eu-stack is not installed")


def test_dump_signal(make_pool):
    """Python's faulthandler says where it is, into what the worker's standard error is."""
    pool = pool_of(
        make_pool, "python", "--ping-timeout", "2.5", "--dump-signal", "USR1", "-t", "1"
    )
    with get(pool.address, "/hang"):
        pool.wait_log(r"Sent USR1 to worker \d+", 30)
        pool.wait_log(r"File .*worker\.py.* in hang_for_ever", 20)
        pool.wait_log(r"Sending USR2 to \[", 20)
        log = pool.log()
        assert log.index("in hang_for_ever") < log.index("Sending USR2 to [", log.index("hangs: "))


def test_the_whole_group_is_killed(make_pool):
    pool = pool_of(
        make_pool, "c++", "--ping-timeout", "2", "-t", "1", number=1, worker=("100", "ignore")
    )
    (worker,) = pool.workers()
    with get(pool.address, "/fork") as stream:
        assert stream.recv(100)
    group = [s.pid for s in pool.processes() if s.ppid == worker["pid"]]
    assert len(group) == 1
    with get(pool.address, "/hang"):
        pool.wait_log(rf"Child {worker['pid']} is still active after 1s\. Sending SIGKILL", 30)
        wait_until(lambda: not running(worker["pid"]) and not running(group[0]), 20)
        pool.wait_ready(1, deadline=20)


def test_the_watchdog_of_systemd(make_pool):
    """WATCHDOG=1 arms it, WATCHDOG_USEC says how often, and a worker that stops saying it hangs."""
    pool = make_pool(
        ["-m", "notify", "--ping-timeout", "2.5", "-t", "1"],
        ["http_worker", "--ack=notify", "--watchdog-ms=100"],
    )
    (worker,) = pool.wait_ready(1)
    environment = Path(f"/proc/{worker['pid']}/environ").read_bytes().split(b"\0")
    assert b"WATCHDOG_USEC=2500000" in environment
    pool.wait_state(lambda s: s["workers"][0]["pinged_at"])
    os.kill(worker["pid"], signal.SIGSTOP)
    pool.wait_log(rf"Worker {worker['pid']} hangs: no ping for", 30)
    pool.wait_log(rf"===> Exited worker {worker['pid']}", 30)
    (other,) = pool.wait_ready(1, deadline=20)
    assert other["pid"] != worker["pid"]


def test_a_worker_that_never_pings_is_left_alone(make_pool):
    pool = make_pool(["-m", "0", "--ping-timeout", "0.3", "-n", "2"], "/bin/sleep 1000")
    pids = [w["pid"] for w in pool.wait_ready(2)]
    pool.command("inc")
    pool.wait_ready(3)
    assert set(pids) <= set(pool.pids())
    assert "hangs" not in pool.log()


def test_a_new_master_blames_nobody_for_its_own_absence(make_pool):
    pool = pool_of(make_pool, "c++", "--ping-timeout", "3", worker=("200",))
    pids = pool.pids()
    master = pool.master_pid
    os.kill(master, signal.SIGSTOP)
    stays_true(lambda: running(pids[0]), 4)  # longer than the timeout
    os.kill(master, signal.SIGCONT)
    pool.kill_master()
    pool.wait_state(lambda s: len(s["workers"]) == 3)
    assert pool.pids() == pids
    assert not re.search("hangs", pool.log())


@pytest.mark.parametrize(
    "option, value, allowed",
    [
        ("--ping-timeout", "0", "more than 0"),
        ("--request-timeout", "soon", "is not a number"),
        ("--dump-signal", "KILL", "no signal that a program can handle"),
    ],
)
def test_nonsense_is_refused(make_pool, option, value, allowed):
    pool = make_pool([option, value], "/bin/true")
    assert pool.wait_exit() == 1
    assert re.search(rf"{option}.*{re.escape(value)}.*{allowed}", pool.log())
