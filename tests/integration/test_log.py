"""The log: upstream's lines or JSON, to stderr or to a file that moves; never a reason to stop."""

import json
import os
import re
import signal

from harness import http_get, wait_until

LINE = re.compile(r"\[(MASTER|WORKER|GUARD) \d+\] (DEBUG|INFO|WARN|WARNING|ERROR|FATAL): \S.*")


def exercise(pool):
    """Things that are logged: a death, more workers, an upgrade."""
    pool.wait_ready(2)
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_ready(2)
    pool.command("inc")
    pool.wait_ready(3)
    pool.command("upgrade", id=1)
    pool.wait_state(
        lambda s: s["version"] == 1
        and not s["upgrading"]
        and [w["state"] for w in s["workers"]] == ["ready"] * 3
    )


def test_whole_lines_in_upstreams_form(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    exercise(pool)
    pool.kill_master()
    lines = pool.log().splitlines()
    assert len(lines) > 10
    assert [line for line in lines if not LINE.fullmatch(line)] == []


def test_json(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "--log-format", "json"])
    exercise(pool)
    entries = [json.loads(line) for line in pool.log().splitlines()]
    for entry in entries:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", entry["time"])
        assert entry["level"].upper() in ("DEBUG", "INFO", "WARN", "WARNING", "ERROR")
        assert entry["event"]
    about_workers = [e for e in entries if "worker" in e]
    assert about_workers and any(e.get("version") == 1 for e in about_workers)


def test_log_file_and_usr1(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "--log-file", "mine.log"], "http_worker --on=USR1:note"
    )
    pool.wait_ready(2)
    path, moved = pool.dir / "mine.log", pool.dir / "moved.log"
    wait_until(lambda: "Launched" in path.read_text())
    assert "Launched" not in pool.log()
    path.rename(moved)
    pool.send(signal.SIGUSR1)
    wait_until(path.exists, 5, "reopened")
    size = moved.stat().st_size
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_ready(2)
    wait_until(lambda: "Exited worker" in path.read_text())
    assert moved.stat().st_size == size


def test_log_file_after_the_masters_death(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05", "--log-file", "mine.log"])
    pool.wait_ready(1)
    pool.kill_master()
    os.kill(pool.pids()[0], signal.SIGKILL)
    wait_until(lambda: "Exited worker" in (pool.dir / "mine.log").read_text())


def test_closed_stderr_stops_nobody(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"],
        wrapper=["bash", "-c", 'exec "$@" 2>&-', "bash"],
    )
    exercise(pool)
    assert http_get(pool.address)["pid"] in pool.pids()
    pool.kill_master()
    assert pool.stop() == 0


def test_reader_of_stderr_that_left_stops_nobody(make_pool):
    reader, writer = os.pipe()
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], stderr=writer)
    os.close(writer)
    os.close(reader)
    exercise(pool)
    assert pool.stop() == 0


def test_reader_of_stderr_that_does_not_read_stops_nobody(make_pool):
    reader, writer = os.pipe()
    pool = make_pool(["-v", "-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], stderr=writer)
    os.close(writer)
    try:
        exercise(pool)
        for _ in range(400):  # debug lines of commands: more than a pipe holds
            with pool.client() as client:
                client.request({"command": "ehlo", "user": "x" * 500, "id": 1})
        os.kill(pool.pids()[0], signal.SIGKILL)
        pool.wait_ready(3)
        assert pool.stop() == 0
    finally:
        os.close(reader)


def test_full_disk_stops_nobody(make_pool):
    with open("/dev/full", "wb") as full:
        pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], stderr=full)
    exercise(pool)
    pool.kill_master()
    assert http_get(pool.address)["pid"] in pool.pids()
    assert pool.stop() == 0


def test_full_disk_of_a_log_file(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "--log-file", "/dev/full"])
    exercise(pool)
    assert pool.stop() == 0
