"""einhornsh top, in a terminal of tmux: what its screen shows at several sizes, with a real pool,
and with 500 workers of a master that is made of Python."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from harness import program, wait_until
from harness.fake_master import FakeMaster
from harness.tmux import Tmux
from harness.upgrades import upgrade

HEAD = "  INDEX      PID  VER    STATE      AGE   MEMORY   CPU%  BUSY  REQUESTS    PING"


@pytest.fixture
def make_top():
    opened = []

    def make(socket_path, columns=80, rows=24):
        command = [program("einhornsh"), "-d", socket_path, "top"]
        opened.append(Tmux(command, columns, rows))
        return opened[-1]

    yield make
    for tmux in opened:
        tmux.close()
        shutil.rmtree(tmux.directory, ignore_errors=True)


def plain(line):
    """Without the mark of the column that it is sorted by."""
    return re.sub(r" ?([A-Z%]+)[\^v]", r" \1", line)


def workers(lines):
    """The rows of the table, as lists of words."""
    head = next((i for i, line in enumerate(lines) if line.split() and line.split()[0].startswith("INDEX")), None)
    if head is None:
        return []
    rows = []
    for line in lines[head + 1 :]:
        words = line.split()
        if len(words) != 10:
            break
        rows.append(words)
    return rows


def test_a_pool_at_80x24(make_pool, make_top):
    pool = make_pool(["-n", "4", "-m", "0.05", "-b", "127.0.0.1:0"], name="shop")
    pool.wait_ready(4)
    top = make_top(pool.socket_path)
    lines = top.wait(
        lambda lines: len(workers(lines)) == 4 and all(row[5] != "-" and row[6] != "-" for row in workers(lines)),
        what="four workers with memory and CPU",
    )
    assert len(lines) == 24 and all(len(line) <= 80 for line in lines)
    assert lines[0].startswith(
        f"shop  4 of 4 ready  version 0  master {pool.master_pid}  guard {pool.process.pid}  "
    )
    assert plain(lines[3]).split() == HEAD.split()
    assert [int(row[1]) for row in workers(lines)] == [
        w["pid"] for w in sorted(pool.workers(), key=lambda w: w["index"])
    ]
    assert all(row[3] == "ready" and row[5].endswith("M") for row in workers(lines))
    bars = [line for line in lines if re.match(r" +\d +\d+ .*0+$", line)]
    assert len(bars) == 4, "and each worker's life in the waterfall"
    assert lines[-1].startswith("q leave")
    top.type("q")
    top.wait_text("ended with 0")


def test_an_upgrade_and_a_crash_are_seen(make_pool, make_top):
    pool = make_pool(["-n", "3", "-m", "0.05"], name="shop")
    pool.wait_ready(3)
    top = make_top(pool.socket_path)
    top.wait(lambda lines: len(workers(lines)) == 3)
    upgrade(pool)
    lines = top.wait(lambda lines: {row[2] for row in workers(lines)} == {"1"} and len(workers(lines)) == 3)
    top.wait_text("smooth upgrade v0 -> v1: upgraded")
    victim = pool.pids()[0]
    os.kill(victim, signal.SIGSEGV)
    top.wait_text("crashes 1")
    lines = top.wait(lambda lines: any(re.match(rf" +\d +{victim} .*X$", line.rstrip()) for line in lines))
    assert any(re.search(r"1\|?$", line.rstrip()) for line in lines)
    pool.command("set_workers", "5")
    top.wait(lambda lines: len(workers(lines)) == 5 and "5 of 5 ready" in lines[0])


def test_it_loses_its_master_and_comes_back(make_pool, make_top):
    pool = make_pool(["-n", "2", "-m", "0.05"], name="shop")
    pool.wait_ready(2)
    top = make_top(pool.socket_path)
    top.wait(lambda lines: len(workers(lines)) == 2)
    pool.kill_master()
    top.wait(lambda lines: f"master {pool.master_pid} " in lines[0] and "no master" not in "".join(lines))
    assert len(workers(top.screen())) == 2
    pool.stop()
    top.wait_text("no master: ")
    top.wait_text("trying again")
    pool.start()
    pool.wait_ready(2)
    lines = top.wait(lambda lines: len(workers(lines)) == 2 and "no master" not in "".join(lines))
    assert {int(row[1]) for row in workers(lines)} == set(pool.pids())


def test_keys_and_sizes(make_pool, make_top):
    pool = make_pool(["-n", "30", "-m", "0.05"], name="shop")
    pool.wait_ready(30, 60)
    top = make_top(pool.socket_path)
    top.wait_text("workers 1 to 11 of 30")
    first = int(workers(top.screen())[0][1])
    top.type("PageDown")
    top.wait_text("workers 12 to 22 of 30")
    top.type("End")
    top.wait_text("workers 20 to 30 of 30")
    top.type("Home", "Down")
    lines = top.wait_text("workers 2 to 12 of 30")
    assert int(workers(lines)[0][1]) != first
    top.type("p")
    lines = top.wait(lambda lines: "PID^" in lines[3])
    pids = [int(row[1]) for row in workers(lines)]
    assert pids == sorted(pids) and pids[0] == min(pool.pids())
    top.type("p")
    lines = top.wait(lambda lines: "PIDv" in lines[3])
    assert int(workers(lines)[0][1]) == max(pool.pids())
    top.type("w")
    lines = top.wait_text("workers 1 to 19 of 30")
    assert not any("now" in line for line in lines), "no waterfall"
    top.type("w")
    lines = top.wait(lambda lines: not workers(lines) and any(line.rstrip().endswith("now") for line in lines))
    top.type("+")
    top.wait_text("-15m")
    top.type("h")
    top.wait_text("sort by index, pid, version")
    top.type("h")
    top.wait(lambda lines: len(workers(lines)) == 11)
    top.resize(120, 50)
    lines = top.wait(lambda lines: len(lines) == 50 and len(workers(lines)) == 27)
    assert lines[-1].startswith("q leave")
    top.resize(40, 10)
    lines = top.wait(lambda lines: len(lines) == 10 and lines[-1].startswith("q leave"))
    assert all(len(line) <= 40 for line in lines)
    top.resize(80, 24)
    top.wait_text("workers 1 to 11 of 30")
    top.type("q")
    top.wait_text("ended with 0")


# --- 500 workers ----------------------------------------------------------------------------------


class Feeder:
    """A stream of 500 workers: a snapshot, then events and samples as the test wants them."""

    COUNT = 500

    def __init__(self, connection, number):
        self.connection, self.number, self.sent = connection, number, 0
        self.say({"message": "Subscribed to a test", "request_id": 1, "wait": True})
        now = time.time()
        fleet = [
            {"epoch": i + 1, "index": i, "pid": 10_000 + i, "version": 3, "state": "ready",
             "started_at": now - 1000 - i, "acked_at": now - 999 - i, "rss": (i + 1) << 20, "requests": i, "busy": []}
            for i in range(self.COUNT)
        ]
        state = {"number": self.COUNT, "version": 3, "master": 77, "guard": 76, "failed": False,
                 "respawn": True, "workers": fleet}
        self.say({"event": "snapshot", "after": 0, "stream": "500", "missed": 0, "at": now, "state": state})

    def say(self, line):
        self.connection.sendall(json.dumps(line).encode() + b"\n")

    def event(self, name, **fields):
        self.sent += 1
        self.say({"event": name, "n": self.sent, "at": time.time(), **fields})

    def sample(self, cpu):
        seen = [{"slot": i, "epoch": i + 1, "rss": (i + 1) << 20, "cpu": cpu * (i + 1)} for i in range(self.COUNT)]
        self.say({"event": "sample", "after": self.sent, "at": time.time(), "number": self.COUNT,
                  "ready": self.COUNT, "workers": seen, "sockets": []})


@pytest.fixture
def big(tmp_path):
    feeders = []
    master = FakeMaster(
        tmp_path / "einhorn-big.sock",
        {"subscribe": lambda connection, request: feeders.append(Feeder(connection, request.get("sample")))},
    )
    yield master, feeders
    master.stop()


def test_500_workers(big, make_top):
    master, feeders = big
    top = make_top(master.path)
    lines = top.wait_text("workers 1 to 11 of 500")
    assert lines[0].startswith("big  500 of 500 ready  version 3  master 77  guard 76")
    assert feeders[0].number == 2, "a sample each two seconds"
    assert [row[:2] for row in workers(lines)[:2]] == [["0", "10000"], ["1", "10001"]]
    feeders[0].sample(1.0)
    first = time.time()
    wait_until(lambda: time.time() - first > 1, 10)
    feeders[0].sample(1.002)
    top.type("c")
    lines = top.wait(lambda lines: workers(lines) and workers(lines)[0][0] == "499")
    cpu = [float(row[6]) for row in workers(lines)]
    assert cpu == sorted(cpu, reverse=True) and cpu[0] > 10
    top.type("m", "m")
    lines = top.wait(lambda lines: "MEMORY^" in lines[3])
    assert [row[5] for row in workers(lines)[:2]] == ["1.0M", "2.0M"]
    for _ in range(2000):
        feeders[0].event("pinged", slot=7, epoch=8, pid=10_007, request_id=str(feeders[0].sent), busy=True)
    feeders[0].event("exited", slot=9, epoch=10, pid=10_009, version=3, how="exited with status 1", status=1,
                     stopping=False, stage="ready", lived=1.0)
    top.wait_text("crashes 1")
    top.type("n")
    lines = top.wait(lambda lines: workers(lines) and workers(lines)[0][:2] == ["7", "10007"])
    assert workers(lines)[0][7:9] == ["busy", "2007"]
    assert any(re.match(r" +9 +10009 .*X$", line.rstrip()) for line in lines), "what changed last is in the waterfall"
    # It is let go, and comes back.
    feeders[0].connection.shutdown(2)
    wait_until(lambda: len(feeders) == 2, 20, "a second subscription")
    top.wait_text("500 of 500 ready")
    top.type("q")
    top.wait_text("ended with 0")


# --- what is wrong --------------------------------------------------------------------------------


def shell(*words, **more):
    return subprocess.run(
        [program("einhornsh"), *map(str, words)], capture_output=True, text=True, timeout=20, check=False, **more
    )


def test_it_needs_a_terminal_and_a_master(make_pool, tmp_path, make_top):
    done = shell("-d", tmp_path / "none", "top")
    assert done.returncode == 1 and "Could not connect" in done.stderr
    pool = make_pool(["-n", "1", "-m", "0.05"], name="shop")
    pool.wait_ready(1)
    done = shell("-d", pool.socket_path, "top", stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stderr) == (
        1, "einhornsh: top: standard input and output must be a terminal\n"
    )
    done = shell("-d", pool.socket_path, "-e", "state", "top")
    assert done.returncode == 1 and done.stderr.startswith("einhornsh: top takes neither -e nor --json\n")


def test_a_terminal_that_nobody_knows(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"], name="shop")
    pool.wait_ready(1)
    command = ["env", "TERM=no-such-thing", program("einhornsh"), "-d", pool.socket_path, "top"]
    tmux = Tmux(command)
    try:
        tmux.wait_text("this kind of terminal is not known (TERM=no-such-thing)")
        tmux.wait_text("ended with 1")
    finally:
        tmux.close()
        shutil.rmtree(tmux.directory, ignore_errors=True)
