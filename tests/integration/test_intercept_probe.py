"""--listen-probe: a worker counts as up when it answers, not when it listens."""

import os
import signal

import pytest
from harness import wait_until

from test_intercept import PYTHON, supervisor_of

# Listens at once; accepts when there is a file named "accept", and then answers with the status in
# the file "status".
SERVER = """
import os, socket, sys, time
s = socket.create_server(("127.0.0.1", 3000))
while not os.path.exists("accept"): time.sleep(0.005)
while True:
    c = s.accept()[0]
    if c.recv(4096):
        status = open("status").read() if os.path.exists("status") else "503 Not yet"
        c.sendall(b"HTTP/1.1 " + status.encode() + b"\\r\\nContent-Length: 0\\r\\n\\r\\n")
    c.close()
"""


@pytest.fixture(params=["seccomp", "preload"])
def probed_pool(request, make_pool):
    def make(probe, *flags):
        return make_pool(
            ["-b", "127.0.0.1:0,name=web", f"--intercept={request.param}", "--intercept=3000=web"]
            + ["--listen-probe", probe, *flags],
            [PYTHON, "-c", SERVER],
        )

    return make


def listens(pool):
    inode = None
    with open("/proc/net/tcp", encoding="ascii") as file:
        port = int(pool.state_json()["sockets"][0]["address"].rsplit(":", 1)[1])
        for line in list(file)[1:]:
            words = line.split()
            if int(words[1].rsplit(":", 1)[1], 16) == port and words[3] == "0A":
                inode = words[9]
    return inode is not None


def test_tcp(probed_pool):
    pool = probed_pool("tcp")
    wait_until(lambda: listens(pool), 20, pool.log)
    assert [w["state"] for w in pool.workers()] == ["starting"]
    (pool.dir / "accept").touch()
    pool.wait_ready(1)


def test_http_and_who_it_is_that_answers(probed_pool):
    pool = probed_pool("http:/health")
    (pool.dir / "accept").touch()
    wait_until(lambda: listens(pool), 20, pool.log)
    assert [w["state"] for w in pool.workers()] == ["starting"], "503 is no good answer"
    (pool.dir / "status").write_text("204 Fine")
    pool.wait_ready(1)
    # Another one does not accept: that the first one answers does not make it ready.
    (pool.dir / "accept").unlink()
    pool.command("inc")
    wait_until(lambda: len(pool.pids()) == 2, 20, pool.log)
    new = pool.workers()[-1]["pid"]
    wait_until(lambda: holds_a_socket(new), 20, "it has bound")
    states = {w["state"] for w in pool.workers()}
    assert states == {"ready", "starting"}
    (pool.dir / "accept").touch()
    pool.wait_ready(2, 60)


def holds_a_socket(pid):
    try:
        return any(
            os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
            for fd in os.listdir(f"/proc/{pid}/fd")
            if int(fd) > 2
        )
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("victim", ["supervisor", "master"])
def test_a_probe_goes_on_after_a_death(probed_pool, victim):
    pool = probed_pool("tcp")
    wait_until(lambda: listens(pool), 20, pool.log)
    if victim == "master":
        pool.kill_master()
    else:
        before = supervisor_of(pool)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: supervisor_of(pool) not in (0, before), 10, pool.log)
    (pool.dir / "accept").touch()
    pool.wait_ready(1, 30)


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--listen-probe", "tcp"], "--listen-probe: it needs --intercept"),
        (["--intercept", "--listen-probe", "tcp", "-m", "1"], "--listen-probe: it needs -m listen"),
        (["--intercept", "--listen-probe", "ftp"], "is no probe (allowed: tcp, http:/PATH)"),
        (["--intercept", "--listen-probe", "http:/a b"], "is no probe"),
    ],
)
def test_bad_flags(make_pool, flags, said):
    pool = make_pool(flags, [PYTHON, "-c", SERVER])
    assert pool.wait_exit() == 1
    assert said in pool.log()
    assert pool.log().count("\n") <= 2
