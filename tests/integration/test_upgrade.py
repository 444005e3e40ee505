"""Upgrades that come through: smooth and fleet, paced, bumped, from one directory to the next, and
never fewer ready workers than asked for."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from harness import http_get, program, wait_until
from harness.processes import open_descriptors
from harness.upgrades import (
    Releases,
    Watch,
    ask,
    labels,
    messages,
    read_last,
    settled,
    shell,
    upgrade,
)
from harness.waiting import stays_true

UPGRADED = r"Upgraded successfully to version %d \(Einhorn [\d.]+\)\."


def replay(log):
    """Follows ready workers through the log; yields (line, number of ready workers behind it)."""
    ready = set()
    for line in log.splitlines():
        acked = re.search(r"manual ACK from (\d+)|Worker (\d+) has been up for [\d.]+s, so", line)
        gone = re.search(r"Sending USR2 to \[([\d, ]*)\]|Exited worker (\d+)", line)
        if acked:
            ready.add(acked[1] or acked[2])
        elif gone:
            ready -= set((gone[1] or gone[2]).split(", "))
        yield line, len(ready)


def fewest_in_log(pool, number):
    """The fewest ready workers that the log tells of, once there had been `number`."""
    counts = [count for _, count in replay(pool.log())]
    return min(counts[counts.index(number) :])


@pytest.fixture
def start(make_pool):
    """start(number, args, options): a pool whose workers ACK by hand, in release `r0`."""

    def make(number=4, args=(), options=(), bind=("-b", "127.0.0.1:0"), **kwargs):
        words = ["-n", number, "-m", "manual", *bind, "--chdir", "@DIR@/current", *args]
        pool = make_pool(words, "http_worker --options-file=options", start=False, **kwargs)
        pool.releases = Releases(pool.dir)
        pool.releases.add("r0", *options)
        pool.start().wait_ready(number)
        return pool

    return make


# --- the order of things --------------------------------------------------------------------------


def test_smooth_one_old_worker_goes_per_ready_replacement(start):
    pool = start(6, ["--max-unacked", "2"])
    pool.releases.add("r1", "--ack-delay-ms=60")
    mark = len(pool.log().splitlines())
    with Watch(pool) as watch:
        assert messages(upgrade(pool))[-1] == "Upgrade done"
        pool.wait_state(settled(1, 6))
    assert watch.fewest_ready() >= 6
    assert fewest_in_log(pool, 6) == 6
    story = list(replay(pool.log()))[mark:]
    for line, ready in story:
        if "===> Launched" in line:
            assert ready == 6, f"whoever was replaced is gone before the next one starts: {line}"
    culled = [int(n) for n in re.findall(r"[Kk]illing off (\d+) old workers", pool.log())]
    assert sum(culled) == 6 and max(culled) <= 2, culled


def test_fleet_all_new_ones_are_up_before_an_old_one_goes(start):
    pool = start(5, ["--max-unacked", "1"], ["--drain-delay-ms=100"])
    pool.releases.add("r1", "--ack-delay-ms=60")
    mark = pool.log_size()
    with Watch(pool) as watch:
        replies = messages(upgrade(pool, "upgrade_fleet"))
    assert replies[0] == "Upgrading fleet, as commanded" and replies[-1] == "Upgrade done"
    assert "Starting fleet upgrade from version 0..." in replies
    log = pool.log(mark)
    assert log.index("Up to 5 / 5") < log.index("Sending USR2")
    assert log.count("Sending USR2") == 1
    assert max(watch.counts("ready")) == 10 or pool.count_log("Killing off 5 old workers") == 1
    assert max(watch.counts("starting", version=1)) == 4, "behind the canary all start at once"
    assert watch.fewest_ready() >= 5


def test_fleet_without_a_canary_starts_all_at_once(start):
    pool = start(4, ["--max-unacked", "1", "--canary", "0"])
    pool.releases.add("r1", "--ack-delay-ms=100")
    mark = pool.log_size()
    upgrade(pool, "upgrade_fleet")
    log = pool.log(mark)
    assert log[: log.index("manual ACK")].count("===> Launched") == 4
    assert "has proved itself" not in log


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGALRM])
def test_by_signal_it_is_a_smooth_one(start, number):
    pool = start(3)
    pool.releases.add("r1")
    with Watch(pool) as watch:
        pool.send(number)
        pool.wait_log(UPGRADED % 1)
        pool.wait_state(settled(1, 3))
    assert watch.fewest_ready() >= 3
    assert "Starting smooth upgrade from version 0..." in pool.log()
    assert set(labels(pool).values()) == {"r1"}


def test_a_signal_during_an_upgrade_bumps_it(start):
    pool = start(2)
    pool.releases.add("r1", ack=None)
    pool.send(signal.SIGHUP)
    pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
    pool.releases.add("r2")
    pool.send(signal.SIGHUP)
    pool.wait_log(UPGRADED % 2)
    pool.wait_state(settled(2, 2))


# --- pacing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
def test_max_unacked(start, most):
    pool = start(6, ["--max-unacked", most, "--canary", "0"])
    pool.releases.add("r1", "--ack-delay-ms=40")
    with Watch(pool) as watch:
        upgrade(pool)
    assert max(watch.counts("spawning", "starting", version=1)) == most
    assert watch.fewest_ready() >= 6


def test_max_upgrade_additional_counts_those_that_drain(start):
    """Two more than four, and a draining worker takes a place: never more than six, and slowly the
    upgrade comes through."""
    pool = start(
        4, ["--max-unacked", "4", "--max-upgrade-additional", "2"], ["--drain-delay-ms=150"]
    )
    pool.releases.add("r1")
    with Watch(pool) as watch:
        upgrade(pool)
        pool.wait_state(settled(1, 4))
    assert max(watch.counts()) == 6
    assert watch.fewest_ready() >= 4


def test_drain_timeout_ends_old_workers_only(start):
    pool = start(2, ["--drain-timeout", "0.3"], ["--on=USR2:note"])
    pool.releases.add("r1", "--on=USR2:note")
    old = pool.pids()
    upgrade(pool)
    for pid in old:
        pool.wait_log(rf"Child {pid} is still active after 0\.\d+s\. Sending SIGKILL\.")
    pool.wait_state(settled(1, 2))
    mark = pool.log_size()
    pool.command("dec")
    state = pool.wait_state(lambda s: [w["state"] for w in s["workers"]].count("stopping") == 1)
    (stopping,) = [w["pid"] for w in state["workers"] if w["state"] == "stopping"]
    stays_true(lambda: stopping in pool.pids(), 0.6, "of the current version: nobody kills it")
    assert "SIGKILL" not in pool.log(mark)


def test_several_old_versions_drain_at_once(start):
    pool = start(2, options=["--drain-delay-ms=6000"])
    for version in (1, 2, 3):
        pool.releases.add(f"r{version}", "--drain-delay-ms=6000" if version < 3 else "--threads=4")
        upgrade(pool)
    state = pool.state_json()
    alive = sorted((w["version"], w["state"]) for w in state["workers"])
    assert alive == [(v, "stopping") for v in (0, 0, 1, 1, 2, 2)] + [(3, "ready")] * 2
    assert len({w["index"] for w in state["workers"]}) == 8, "an index has one owner"
    # Once the last of them has heard its signal.
    wait_until(lambda: {http_get(pool.address)["label"] for _ in range(10)} == {"r3"}, 5)
    pool.wait_state(settled(3, 2), 20)
    assert [v["version"] for v in pool.state_json()["versions"]][-1] == 3


def test_many_upgrades_leave_nothing_behind(start):
    pool = start(2)
    pool.releases.add("r1")
    upgrade(pool)
    pool.wait_state(settled(1, 2))
    guard = pool.guard_pid
    before = len(open_descriptors(guard)), len(open_descriptors(pool.master_pid))
    for version in range(2, 10):
        upgrade(pool, "upgrade" if version % 2 else "upgrade_fleet")
    state = pool.wait_state(settled(9, 2))
    assert state["generation"] == 10 and state["guard"] == guard
    assert [v["version"] for v in state["versions"]][0] >= 7, "old ones are forgotten"
    wait_until(lambda: len(open_descriptors(guard)) <= before[0], what="the guard's descriptors")
    assert len(open_descriptors(state["master"])) <= before[1] + 1


# --- an upgrade in the middle of an upgrade -------------------------------------------------------


def test_bump_takes_the_old_version_for_the_old_one_still(start):
    """The first upgrade hangs; the second one starts over with the next version, the pool serves
    all the time with the workers it had, and both who asked are told."""
    pool = start(3)
    old = set(pool.pids())
    pool.releases.add("r1", ack=None)
    with Watch(pool) as watch, pool.client(timeout=30) as one, pool.client(timeout=30) as two:
        ask(one)
        pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
        assert {w["pid"] for w in pool.workers() if w["state"] == "ready"} == old
        pool.releases.add("r2")
        ask(two, number=2)
        first, second = read_last(one), read_last(two)
    bumped = "Currently upgrading (0 ACKs; bumping version to 2 and starting over)..."
    assert bumped in messages(first) and bumped in messages(second)
    assert messages(first)[-1] == messages(second)[-1] == "Upgrade done"
    assert {r["request_id"] for r in first} == {1} and {r["request_id"] for r in second} == {2}
    pool.wait_state(settled(2, 3))
    assert set(labels(pool).values()) == {"r2"}
    assert watch.fewest_ready() >= 3


def test_bump_with_workers_of_three_versions(start):
    pool = start(4, ["--max-unacked", "1"])
    pool.releases.add("r1", "--ack-delay-ms=1500")
    with Watch(pool) as watch, pool.client(timeout=30) as one:
        ask(one)
        pool.wait_state(
            lambda s: sum(w["version"] == 1 and w["state"] == "ready" for w in s["workers"]) == 2
        )
        pool.releases.add("r2")
        assert messages(upgrade(pool))[-1] == "Upgrade done"
        assert messages(read_last(one))[-1] == "Upgrade done"
        pool.wait_state(settled(2, 4))
    assert re.search(r"Currently upgrading \([23] ACKs; bumping version to 2", pool.log())
    assert watch.fewest_ready() >= 4
    assert fewest_in_log(pool, 4) == 4


def test_bump_that_fails_goes_back_to_what_ran(start):
    """Not to the version in between, which nobody has seen come up."""
    pool = start(3, ["-s", "0.02"])
    pool.releases.add("r1", ack=None)
    with Watch(pool) as watch, pool.client(timeout=30) as one:
        ask(one)
        pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
        pool.releases.add("r2", "--exit-at-start=3")
        last = upgrade(pool)[-1]
        assert last["status"] == "failed"
        assert last["message"] == "Upgrade failed; rolled back to version 0"
        assert read_last(one)[-1]["status"] == "failed"
        pool.wait_state(settled(0, 3))
    assert watch.fewest_ready() >= 3


def test_one_that_does_not_begin_is_the_end_of_no_other(start):
    pool = start(2)
    pool.releases.add("r1", ack=None)
    with pool.client(timeout=30) as waits, pool.client(timeout=30) as refused:
        ask(waits)
        pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
        refused.send_line(b'{"command":"upgrade","args":["--to-ruby"],"id":2}\n')
        last = read_last(refused)[-1]
        assert (last["status"], last["request_id"]) == ("could_not_start", 2) and "--to-ruby" in last["message"]
        shell(pool, "-e", "rollback")
        heard = read_last(waits)
        assert heard[-1]["status"] == "failed" and not any("--to-ruby" in text for text in messages(heard))
    pool.wait_state(settled(0, 2))


def test_number_changes_in_the_middle(start):
    pool = start(4, ["--max-unacked", "1"])
    pool.releases.add("r1", "--ack-delay-ms=100")
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        ask(client)
        pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["proved"])
        pool.command("set_workers", "6")
        assert messages(read_last(client))[-1] == "Upgrade done"
        pool.wait_state(settled(1, 6))
        pool.releases.add("r2", "--ack-delay-ms=100")
        ask(client)
        pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["proved"])
        pool.command("set_workers", "2")
        assert messages(read_last(client))[-1] == "Upgrade done"
        pool.wait_state(settled(2, 2))
    assert all(
        sum(w["state"] == "ready" for w in s["workers"]) >= min(4, s["number"])
        for s in watch.states
    )


def test_going_down_in_the_middle(start):
    """Whoever waits for the upgrade is told, and the pool ends as always."""
    pool = start(2)
    pool.releases.add("r1", ack=None)
    with pool.client(timeout=30) as client:
        ask(client)
        pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
        pool.send(signal.SIGINT)
        last = read_last(client)[-1]
    assert last["message"] == "Einhorn is going down; the upgrade is over"
    assert last["status"] == "failed"
    assert pool.wait_exit() == 0
    pool.wait_gone()


# --- what a version is ----------------------------------------------------------------------------


def test_a_link_that_moves_is_looked_up_once_per_version(start):
    pool = start(2)
    pool.releases.add("r1")
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_state(lambda s: s["deaths"] == 1)
    pool.wait_ready(2)
    assert set(labels(pool).values()) == {"r0"}, "nobody has asked for an upgrade"
    upgrade(pool)
    pool.wait_state(settled(1, 2))
    assert set(labels(pool).values()) == {"r1"}
    recorded = {v["version"]: v["directory"] for v in pool.state_json()["versions"]}
    assert recorded == {v: str(pool.releases.path(f"r{v}")) for v in (0, 1)}


def test_a_death_in_the_middle_is_replaced_by_the_right_version(start):
    pool = start(3, ["--max-unacked", "1"])
    pool.releases.add("r1", ack=None)
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        ask(client)
        pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
        for deaths in (1, 2):
            victim = min(w["pid"] for w in pool.workers() if w["version"] == 0)
            os.kill(victim, signal.SIGKILL)
            state = pool.wait_state(
                lambda s: s["deaths"] == deaths
                and sum(w["state"] == "ready" for w in s["workers"]) == 3
            )
            assert {w["version"] for w in state["workers"] if w["state"] == "ready"} == {0}
        by_label = sorted(labels(pool).values())
        assert by_label == ["r0", "r0", "r0", "r1"]
        pool.releases.write("r1")  # the next one of version 1 will ACK
        os.kill(max(w["pid"] for w in pool.workers() if w["version"] == 1), signal.SIGKILL)
        assert messages(read_last(client))[-1] == "Upgrade done"
        pool.wait_state(settled(1, 3))
    assert watch.fewest_ready() >= 1, "what died was missed, nothing else"
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_state(lambda s: s["deaths"] == 4)
    pool.wait_ready(3)
    assert set(labels(pool).values()) == {"r1"}


def test_all_old_workers_die_while_the_new_version_is_unproved(start):
    pool = start(3, ["--max-unacked", "2"])
    old = set(pool.pids())
    pool.releases.add("r1", ack=None)
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    state = pool.wait_state(
        lambda s: s["deaths"] == 3 and sum(w["state"] == "ready" for w in s["workers"]) == 3
    )
    ready = [w for w in state["workers"] if w["state"] == "ready"]
    assert {w["version"] for w in ready} == {0} and not {w["pid"] for w in ready} & old
    assert http_get(pool.address)["label"] == "r0"
    assert state["upgrading"] is True


def test_a_dead_old_worker_after_the_proof_is_replaced_by_a_new_one(start):
    pool = start(4, ["--max-unacked", "1"])
    pool.releases.add("r1", "--ack-delay-ms=150")
    with pool.client(timeout=30) as client:
        ask(client)
        state = pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["proved"])
        victim = [w for w in state["workers"] if w["version"] == 0 and w["state"] == "ready"][0]
        mark = pool.log_size()
        os.kill(victim["pid"], signal.SIGKILL)
        assert messages(read_last(client))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 4))
    with_versions = [w["version"] for w in pool.workers()]
    assert with_versions == [1] * 4
    assert f"===> Exited worker {victim['pid']}" in pool.log(mark)


SERVER = "#!/bin/sh\nexec {worker} --ack=path --label={label}\n"


@pytest.mark.parametrize("how", ["relative", "by PATH", "absolute"])
def test_the_program_is_looked_up_once_per_version(make_pool, how):
    from harness import worker

    pool = make_pool(start=False)
    current = pool.dir / "current"
    word = {"relative": "./server", "by PATH": "server", "absolute": str(current / "server")}[how]
    args = ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0"]
    if how == "relative":
        args += ["--chdir", str(current)]
    pool.args, pool.worker_command = args, [word]
    if how == "by PATH":
        pool.env["PATH"] = f"{current}:{pool.env['PATH']}"
    releases = Releases(pool.dir)

    def add(label):
        releases.add(label)
        path = releases.path(label) / "server"
        path.write_text(SERVER.format(worker=worker("http_worker"), label=label))
        path.chmod(0o755)

    add("r0")
    pool.start().wait_ready(2)
    add("r1")
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_state(lambda s: s["deaths"] == 1)
    pool.wait_ready(2)
    assert {http_get(pool.address)["label"] for _ in range(10)} == {"r0"}
    upgrade(pool)
    state = pool.wait_state(settled(1, 2))
    assert {http_get(pool.address)["label"] for _ in range(10)} == {"r1"}
    programs = {v["version"]: v["program"] for v in state["versions"]}
    assert [os.path.realpath(programs[v]) for v in (0, 1)] == [
        str(releases.path(label) / "server") for label in ("r0", "r1")
    ] or how == "relative"


# --- under load -----------------------------------------------------------------------------------


def test_no_request_over_new_connections_is_lost(start, make_load):
    pool = start(4, options=["--request-delay-ms=2"])
    load = make_load(pool.address, connections=12, rate=800)
    load.wait_ok(100)
    for version in range(1, 5):
        pool.releases.add(f"r{version}", "--request-delay-ms=2")
        assert messages(upgrade(pool, ["upgrade", "upgrade_fleet"][version % 2]))[-1] == (
            "Upgrade done"
        )
        load.wait_more(60)
    result = load.stop()
    assert result["failures"] == 0, result
    assert len(result["by_pid"]) >= 10


# Takes leave of a kept connection as HTTP has it: in the answer to the next request.
KEEP_ALIVE_WORKER = r"""
import json, os, select, signal, socket, threading

wake, waker = os.pipe()
stopping = threading.Event()

def stop(*_):
    stopping.set()
    os.write(waker, b"x")

def serve(connection):
    connection.settimeout(3)
    while True:
        data = b""
        try:
            while not data.endswith(b"\r\n\r\n"):
                got = connection.recv(4096)
                if not got:
                    return connection.close()
                data += got
        except TimeoutError:
            return connection.close()
        select.select([], [], [], 0.02)
        closing = stopping.is_set()
        body = json.dumps({"pid": os.getpid()}, separators=(",", ":"))
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n"
        head += "Connection: close\r\n" if closing else ""
        connection.sendall(f"{head}\r\n{body}".encode())
        if closing:
            return connection.close()

signal.signal(signal.SIGUSR2, stop)
listener = socket.socket(fileno=int(os.environ["EINHORN_FD_0"]))
with socket.socket(socket.AF_UNIX) as master:
    master.connect(os.environ["EINHORN_SOCK_PATH"])
    master.sendall(json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\n")
threads = []
while not stopping.is_set():
    ready, _, _ = select.select([listener, wake], [], [])
    if listener in ready:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        connection.setblocking(True)
        threads.append(threading.Thread(target=serve, args=(connection,)))
        threads[-1].start()
for thread in threads:
    thread.join()
"""


def test_no_request_over_kept_connections_is_lost(make_pool, make_load, tmp_path):
    script = tmp_path / "keep_alive.py"
    script.write_text(KEEP_ALIVE_WORKER)
    pool = make_pool(
        ["-n", "3", "-m", "manual", "-b", "127.0.0.1:0,n"], [sys.executable, str(script)]
    )
    pool.wait_ready(3)
    load = make_load(pool.address, connections=12, mode="keepalive", rate=0)
    load.wait_ok(100)
    for command in ("upgrade", "upgrade_fleet", "upgrade"):
        assert messages(upgrade(pool, command))[-1] == "Upgrade done"
        load.wait_more(60)
    result = load.stop()
    assert result["failures"] == 0, result
    assert len(result["by_pid"]) >= 6


# --- the exit code of who asked -------------------------------------------------------------------


def test_shell_exits_with_0_when_upgraded(start):
    pool = start(2)
    pool.releases.add("r1")
    done = shell(pool, "-e", "upgrade")
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[0] == "Upgrading smoothly, as commanded" and lines[-1] == "Upgrade done"
    assert re.fullmatch(UPGRADED % 1, lines[-2])
    assert done.stderr == ""


def test_shell_exits_with_1_when_rolled_back(start):
    pool = start(2, ["-s", "0.02"])
    pool.releases.add("r1", "--exit-at-start=9")
    done = shell(pool, "-e", "upgrade")
    assert done.returncode == 1, done
    assert "exited with status 9 before it was ACKed" in done.stdout
    assert done.stdout.splitlines()[-1] == "Upgrade failed; rolled back to version 0"


def test_shell_exits_with_2_when_it_could_not_start(start):
    pool = start(2)
    os.unlink(pool.dir / "current")
    done = shell(pool, "-e", "upgrade")
    assert done.returncode == 2, done
    assert "Could not start the upgrade" in done.stdout and "current" in done.stdout
    assert shell(pool, "-e", "upgrade --nonsense").returncode == 2
    assert pool.wait_ready(2) and pool.state_json()["version"] == 0
    pool.releases.add("r1")
    assert shell(pool, "-e", "upgrade_fleet").returncode == 0, "as able to upgrade as before"


def test_shell_streams_events_as_json(start):
    pool = start(2)
    pool.releases.add("r1")
    done = shell(pool, "--json", "-e", "upgrade")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and lines[-1]["status"] == "ok"
    assert all(line["wait"] is True for line in lines[:-1])
    assert sum("===> Launched" in line["message"] for line in lines) == 2


def test_interrupting_the_shell_leaves_the_upgrade_alone(start):
    pool = start(2)
    pool.releases.add("r1", "--ack-delay-ms=400")
    command = [program("einhornsh"), "-d", str(pool.socket_path), "-e", "upgrade"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        while "===> Launched" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == "Detached; the upgrade goes on.\n"
    assert pool.state_json()["upgrading"] is True
    pool.wait_log(UPGRADED % 1)
    pool.wait_state(settled(1, 2))
