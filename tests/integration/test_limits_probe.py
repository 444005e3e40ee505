"""Probes: whoever can't speak is asked, by a process that is not the master."""

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from harness import wait_until
from test_limits_hung import get, honest, running


def free_base(count):
    """A port with `count` free ones from it on. Somebody may take one before we do; the range of
    ports that the kernel gives away by itself is avoided, so that takes a program that asks."""
    for base in range(20000 + os.getpid() % 5000, 32000, count):
        held = []
        try:
            for port in range(base, base + count):
                held.append(socket.create_server(("127.0.0.1", port)))
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
        return base
    raise AssertionError("no free ports")


FAST = ("--probe-interval", "0.3", "--probe-timeout", "1", "--probe-failures", "2", "-t", "1")


def probed(make_pool, *args, number=2, language="python", env=None):
    pool = make_pool(
        ["-b", "127.0.0.1:0", "-m", "manual", "-n", number, *FAST, *args],
        honest(language, "0"),
        env=env,
    )
    pool.wait_ready(number, deadline=40)
    return pool


def title_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def prober_of(pool):
    """The process that asks; 0: there is none (yet)."""
    titled = [s.pid for s in pool.processes() if title_of(s.pid).startswith(b"einhorn-probe")]
    return titled[0] if titled else 0


def test_http(make_pool):
    base = free_base(20)
    pool = probed(
        make_pool,
        *("--probe-address", f"127.0.0.1:{{{base}+index}}"),
        *("--probe", "http://{addr}/healthcheck"),
    )
    pids = pool.pids()
    # Both have answered their probe, on addresses of their own.
    pool.wait_state(lambda s: all(w["requests"] > 1 for w in s["workers"]), 30)
    with get(pool.address, "/hang"):
        pool.wait_log(r"Probe of worker (\d+) failed \(1 of 2\): .*did not answer within 1000 ms", 30)
        found = pool.wait_log(r"Worker (\d+) hangs: 2 probes in a row failed", 30)
        pid = int(found[1])
        pool.wait_log(rf"===> Exited worker {pid}", 30)
        pool.wait_ready(2, deadline=30)
    assert set(pids) & set(pool.pids()) == set(pids) - {pid}


def test_tcp(make_pool):
    """A worker that listens nowhere is found; one that does is left alone."""
    base = free_base(20)
    pool = probed(
        make_pool, "--probe-address", f"127.0.0.1:{{{base}+index}}", "--probe", "tcp", number=1
    )
    (pid,) = pool.pids()
    pool.wait_state(lambda s: s["workers"][0]["pid"] == pid)
    wait_until(lambda: prober_of(pool), 20)
    assert "Probe of worker" not in pool.log()
    other = make_pool(
        ["-m", "0", *FAST, "--probe", f"tcp://127.0.0.1:{{{base + 10}+index}}"], "/bin/sleep 1000"
    )
    other.wait_log(r"Worker \d+ hangs: 2 probes in a row failed.*Connection refused", 30)


def test_command(make_pool):
    pool = probed(
        make_pool,
        *("--probe-command", 'test "{pid}" = "$EINHORN_WORKER_PID" && ! test -e sick-{index}'),
    )
    wait_until(lambda: prober_of(pool), 20)
    (pool.dir / "sick-1").touch()
    (sick,) = [w["pid"] for w in pool.workers() if w["index"] == 1]
    pool.wait_log(rf"Worker {sick} hangs: 2 probes in a row failed.*ended with status 1", 30)
    pool.wait_log(rf"===> Exited worker {sick}", 30)
    (pool.dir / "sick-1").unlink()
    pool.wait_ready(2, deadline=30)


def test_a_command_that_hangs_is_killed_with_its_group(make_pool):
    pool = probed(
        make_pool, "--probe-command", "echo $$ >> started; sleep 1000 & wait", number=1
    )
    pool.wait_log(r"Worker \d+ hangs: 2 probes in a row failed.*did not answer within 1000 ms", 30)
    shells = [int(word) for word in (pool.dir / "started").read_text().split()]
    wait_until(lambda: not running(shells[0]), 20)


def test_a_prober_that_dies_is_started_again(make_pool):
    pool = probed(make_pool, "--probe-command", "echo x >> probed", number=1)
    pids = pool.pids()
    prober = wait_until(lambda: prober_of(pool), 20)
    os.kill(prober, signal.SIGKILL)
    pool.wait_log("The prober is gone", 20)
    wait_until(lambda: prober_of(pool) not in (0, prober), 30)
    lines = len((pool.dir / "probed").read_text())
    wait_until(lambda: len((pool.dir / "probed").read_text()) > lines, 30)
    assert pool.pids() == pids


def test_probes_go_on_under_the_next_master_and_none_is_left_behind(make_pool):
    pool = probed(make_pool, "--probe-command", "echo x >> probed", number=1)
    first = wait_until(lambda: prober_of(pool), 20)
    pool.kill_master()
    wait_until(lambda: not running(first), 20, "the end of the first prober")
    wait_until(lambda: prober_of(pool), 20)
    assert pool.stop() == 0
    pool.wait_gone()


@pytest.mark.parametrize(
    "args, why",
    [
        (["--probe", "http://{addr}/healthcheck"], "can't tell which worker answered"),
        (["--probe", "tcp"], "can't tell which worker answered"),
        (["--probe", "http://127.0.0.1:80/"], "is the same for every worker"),
        (["--probe", "tcp", "--probe-address", "127.0.0.1:80"], "is the same for every worker"),
        (["--probe", "ftp://x"], "is no probe"),
        (["--probe-command", "x", "--probe", "tcp"], "only one of them"),
    ],
)
def test_a_probe_that_can_not_tell_workers_apart_is_refused(make_pool, args, why):
    pool = make_pool(["-b", "127.0.0.1:0", *args], "/bin/true")
    assert pool.wait_exit() == 1
    assert re.search(f"--probe.*{re.escape(why)}", pool.log()), pool.log()
    assert len(pool.log().splitlines()) == 1
