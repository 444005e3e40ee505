"""The master's death costs nothing; the guard's death costs little; two of a name do not meet."""

import contextlib
import os
import random
import signal
import stat
import time

import pytest
from harness import http_get, is_alive, wait_until, worker
from harness.processes import descendants, environment_of, read_stat
from harness.wire import decode, encode


def survivors_of(state):
    keys = ("guard", "number", "version", "upgrading", "failed", "deaths_before_ack", "sockets")
    workers = {w["pid"]: {k: v for k, v in w.items() if k != "rss"} for w in state["workers"]}
    return {key: state[key] for key in keys}, workers


def current_master(pool):
    """The guard's child that runs einhorn itself, found without asking anybody. A worker that has
    not reached its exec is younger."""
    guard = pool.process.pid
    own = os.readlink(f"/proc/{guard}/exe")
    with open(f"/proc/{guard}/task/{guard}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    found = []
    for pid in children:
        try:
            same = os.readlink(f"/proc/{pid}/exe") == own
        except OSError:
            continue  # a zombie, or gone
        stat = read_stat(pid)
        if same and stat is not None and stat.state != "Z":
            found.append(stat)
    return min(found, key=lambda s: (s.start_time, s.pid)).pid if found else None


def kill_current_master(pool, number=signal.SIGKILL):
    pid = wait_until(lambda: current_master(pool), 15, pool.log)
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    return pid


# --- the master dies ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_masters_death_changes_nothing(make_pool, number):
    pool = make_pool(
        ["-n", "3", "-m", "manual", "-b", "127.0.0.1:0"],
        "http_worker --ack=path --ping=p1 --on=USR2:note",
    )
    pool.wait_ready(3)
    pool.command("dec")
    pool.wait_state(
        lambda s: any(w["signaled"] for w in s["workers"])
        and all(w["pinged_request_id"] == "p1" for w in s["workers"])
    )
    before = pool.state_json()
    os.kill(before["master"], number)
    after = pool.wait_state(lambda s: s["master"] != before["master"], 15)
    assert survivors_of(after) == survivors_of(before)
    assert pool.process.pid == after["guard"]
    assert http_get(pool.address)["pid"] in pool.pids()
    assert pool.exit_code is None


def test_guard_is_the_parent_of_the_workers(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05"])
    workers = pool.wait_ready(2)
    pool.kill_master()
    os.kill(workers[0]["pid"], signal.SIGKILL)
    pool.wait_state(
        lambda s: workers[0]["pid"] not in [w["pid"] for w in s["workers"]]
        and len(s["workers"]) == 2
    )
    for pid in pool.pids():
        assert read_stat(pid).ppid == pool.process.pid
        assert environment_of(pid)["EINHORN_MASTER_PID"] == str(pool.process.pid)


def test_pid_file_and_sockets_stay(make_pool):
    pool = make_pool(["-m", "0.05", "-b", "127.0.0.1:0"])
    pool.wait_ready(1)
    files = {k: (os.stat(pool.path(k)).st_ino, pool.path(k).name) for k in ("pid", "sock", "lock")}
    addresses = pool.addresses()
    for _ in range(3):
        pool.kill_master()
    assert files == {k: (os.stat(pool.path(k)).st_ino, pool.path(k).name) for k in files}
    assert pool.addresses() == addresses


@pytest.mark.parametrize("how", ["kill", "HUP"])
@pytest.mark.parametrize("ack", ["manual", "notify"])
def test_deleted_sockets_come_back_with_the_next_master(make_pool, make_load, how, ack):
    """Commands and ACKs find their way again; nothing is left behind at the end."""
    option = "path" if ack == "manual" else "notify"
    pool = make_pool(
        ["-n", "2", "-m", ack, "-b", "127.0.0.1:0", "--socket-mode", "0640"],
        f"http_worker --ack={option}",
    )
    old = {w["pid"] for w in pool.wait_ready(2)}
    load = make_load(pool.address, connections=4, rate=200)
    sockets = [pool.socket_path, pool.dir / "einhorn.sock.notify"]
    for path in sockets:
        path.unlink()
    pool.send(signal.SIGHUP) if how == "HUP" else kill_current_master(pool)
    pool.wait_log(f"{sockets[1]} was gone; it has been made again", 15)
    assert [stat.S_IMODE(os.stat(path).st_mode) for path in sockets] == [0o640] * 2
    if how == "kill":
        assert {w["pid"] for w in pool.wait_ready(2)} == old
        pool.command("upgrade", id=1)
    pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [1, 1], 20)
    pool.kill_master()
    pool.wait_ready(2)
    assert pool.count_log("was gone") == 2, "only once each"
    assert load.stop()["failures"] == 0
    assert pool.stop() == 0
    assert [path for path in [*sockets, pool.path("pid")] if path.exists()] == []
    pool.wait_gone()


def test_a_command_sent_while_there_is_no_master_is_answered(make_pool):
    pool = make_pool(["-m", "0.05"])
    pool.wait_ready(1)
    master = pool.master_pid
    os.kill(master, signal.SIGSTOP)
    with pool.client() as client:
        client.send_line(b'{"command":"ehlo","user":"early"}\n')
        os.kill(master, signal.SIGKILL)
        # Whether the first master had taken the connection is luck: answered, or closed.
        try:
            assert b"early" in client.read_line()
        except (EOFError, ConnectionError):
            pass
    with pool.client() as client:
        assert "early" in client.request({"command": "ehlo", "user": "early"})["message"]


def test_deaths_while_there_is_no_master_are_noticed(make_pool):
    pool = make_pool(["-n", "3", "-m", "0.05"])
    workers = pool.wait_ready(3)
    master = pool.master_pid
    os.kill(master, signal.SIGSTOP)
    os.kill(workers[0]["pid"], signal.SIGKILL)
    os.kill(workers[1]["pid"], signal.SIGKILL)
    os.kill(master, signal.SIGKILL)
    dead = {workers[0]["pid"], workers[1]["pid"]}
    state = pool.wait_state(
        lambda s: not dead & {w["pid"] for w in s["workers"]} and len(s["workers"]) == 3, 15
    )
    assert workers[2]["pid"] in [w["pid"] for w in state["workers"]]
    assert sorted(w["index"] for w in state["workers"]) == [0, 1, 2]
    for pid in dead:
        wait_until(lambda: read_stat(pid) is None, 5, "reaped")


def test_deaths_that_come_as_one_signal(make_pool):
    """While the guard is stopped a worker and then the master die: to it that is one SIGCHLD. The
    master is the younger one, as after any restart."""
    pool = make_pool(["-n", "2", "-m", "0.05"])
    workers = pool.wait_ready(2)
    master = pool.kill_master()
    guard, victim = pool.process.pid, workers[0]["pid"]
    os.kill(guard, signal.SIGSTOP)
    wait_until(lambda: read_stat(guard).state == "T")
    for pid in (victim, master):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: read_stat(pid).state == "Z")
    os.kill(guard, signal.SIGCONT)
    state = pool.wait_state(lambda s: s["master"] != master, 15)
    pool.wait_state(lambda s: victim not in [w["pid"] for w in s["workers"]])
    pool.wait_ready(2)
    assert workers[1]["pid"] in [w["pid"] for w in state["workers"]]


def test_killed_again_and_again(make_pool, make_load):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    before = {w["pid"] for w in pool.wait_ready(2)}
    load = make_load(pool.address, connections=8, rate=1000)
    killed = set()
    while len(killed) < 6:
        killed.add(kill_current_master(pool))
    state = pool.wait_state(lambda s: s["master"] not in killed, 20)
    load.wait_more(100)
    assert load.stop()["failures"] == 0
    assert {w["pid"] for w in state["workers"]} == before
    assert pool.process.pid == state["guard"]


def send_and_forget(pool, command):
    """A command whose answer nobody waits for; the master may die with it."""
    try:
        with pool.client() as client:
            client.send_line(b'{"command":"%s"}\n' % command.encode())
    except (ConnectionError, FileNotFoundError):
        pass


@pytest.mark.parametrize("command", ["inc", "dec", "upgrade", "upgrade_fleet"])
def test_killed_in_the_middle_of_a_command(make_pool, make_load, command):
    """At eight different moments after the command; then the pool must come to rest with as many
    workers as it says, none of them twice, none of them forgotten."""
    moments = random.Random(command)
    pool = make_pool(["-n", "4", "-m", "0.02", "-b", "127.0.0.1:0"])
    pool.wait_ready(4)
    load = make_load(pool.address, connections=8, rate=800)
    for _ in range(8):
        busy = load.counts()[0]
        send_and_forget(pool, command)
        for _ in range(moments.randrange(0, 40)):
            os.sched_yield()
        master = kill_current_master(pool)
        pool.wait_state(lambda s: s["master"] != master, 15)
        assert load.counts()[0] >= busy
    state = pool.wait_state(
        lambda s: not s["upgrading"]
        and [w["state"] for w in s["workers"]] == ["ready"] * s["number"],
        30,
    )
    pids = [w["pid"] for w in state["workers"]]
    indexes = [w["index"] for w in state["workers"]]
    assert len(set(indexes)) == len(indexes)
    assert all(w["version"] == state["version"] for w in state["workers"])
    running = [s.pid for s in descendants(pool.process.pid) if s.name == "http_worker"]
    assert sorted(running) == sorted(pids), "no worker that nobody knows"
    load.wait_more(100)
    assert load.stop()["failures"] == 0


def test_killed_during_the_first_start(make_pool):
    for _ in range(4):
        pool = make_pool(["-n", "3", "-m", "0.05", "-b", "127.0.0.1:0"], name="first")
        kill_current_master(pool)
        workers = pool.wait_ready(3, deadline=20)
        assert [w["index"] for w in workers] == [0, 1, 2]
        running = [s.pid for s in descendants(pool.process.pid) if s.name == "http_worker"]
        assert sorted(running) == sorted(w["pid"] for w in workers)
        assert pool.stop() == 0


def test_killed_while_ending(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05"], "http_worker --drain-delay-ms=500 --events=events")
    pool.wait_ready(2)
    events = pool.dir / "events"
    wait_until(lambda: events.exists() and events.read_text().count("start ") == 2)
    pool.send(signal.SIGINT)
    wait_until(lambda: "signal USR2" in events.read_text())
    kill_current_master(pool)
    assert pool.wait_exit() == 0
    assert events.read_text().count("start ") == 2, "still going down"
    pool.wait_gone()


def test_timers_go_on_in_the_next_master(make_pool):
    """A worker told to stop by the first master is killed in time by the second."""
    pool = make_pool(["-n", "2", "-m", "0.05", "-t", "2"], "http_worker --on=USR2:note")
    pool.wait_ready(2)
    pool.command("dec")
    state = pool.wait_state(lambda s: any(w["signaled"] for w in s["workers"]))
    (target,) = [w["pid"] for w in state["workers"] if w["signaled"]]
    pool.kill_master()
    wait_until(lambda: not is_alive(target), 6, pool.log)
    pool.wait_ready(1)


def test_no_descriptors_are_lost_on_the_way(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    pool.wait_ready(2)
    pool.kill_master()

    def count(pid):
        return len(os.listdir(f"/proc/{pid}/fd"))

    def counts():
        return count(pool.process.pid), count(pool.master_pid)

    before = counts()  # with a connection or two that are just being closed
    for _ in range(10):
        pool.kill_master()
    wait_until(
        lambda: all(now <= then for now, then in zip(counts(), before)),
        5,
        lambda: f"{before} -> {counts()}",
    )


# --- the guard dies -------------------------------------------------------------------------------


def test_guards_death_leaves_the_pool_serving(make_pool, make_load):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    workers = pool.wait_ready(2)
    address, master = pool.address, pool.master_pid
    load = make_load(address, connections=8, rate=500)
    load.wait_ok(50)
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.wait_exit()
    load.wait_more(300)
    assert is_alive(master)
    assert all(is_alive(w["pid"]) for w in workers)
    assert "Welcome" in pool.command("ehlo", user="me")
    assert load.stop()["failures"] == 0


def test_the_next_one_takes_over(make_pool, make_load):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    pool.wait_ready(2)
    address, old_master = pool.address, pool.master_pid
    load = make_load(address, connections=8, rate=500)
    load.wait_ok(50)
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.wait_exit()
    load.wait_more(50)
    pool.start()
    state = pool.wait_state(lambda s: s["guard"] == pool.process.pid, 15)
    assert state["sockets"][0]["address"] == address, "the same socket"
    pool.wait_ready(2, deadline=20)
    wait_until(lambda: not is_alive(old_master), 10, pool.log)
    load.wait_more(300)
    assert load.stop()["failures"] == 0
    assert pool.path("pid").read_text() == str(pool.process.pid)
    # The new guard is as good as the old one.
    pool.kill_master()
    assert http_get(address)["pid"] in pool.pids()
    assert pool.stop() == 0
    pool.wait_gone()


def test_clients_stay_connected_to_the_next_one(make_pool):
    """More of them than fit into one message, one of them in the middle of a request."""
    pool = make_pool(["-n", "2", "-m", "manual", "-b", "127.0.0.1:0"], "http_worker --ack=path")
    pool.wait_ready(2)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(pool.client(timeout=20)) for _ in range(100)]
        for number, client in enumerate(clients):
            client.request({"command": "ehlo", "user": "me", "id": number})
        half = encode({"command": "ehlo", "user": "half", "id": "half"}, "json")
        clients[0].send_line(half[:20])
        os.kill(pool.process.pid, signal.SIGKILL)
        pool.wait_exit()
        old_master = pool.master_pid
        pool.start()
        pool.wait_state(lambda s: s["guard"] == pool.process.pid, 15)
        wait_until(lambda: not is_alive(old_master), 10, pool.log)
        clients[0].send_line(half[20:])
        assert "half" in decode(clients[0].read_line())["message"], "its first half was kept"
        for number, client in enumerate(clients):
            reply = client.request({"command": "ehlo", "user": "still", "id": number}, "json")
            assert reply["request_id"] == number
    pool.wait_ready(2)


def test_guards_death_with_a_request_to_stop_everything(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-k", "-b", "127.0.0.1:0"])
    pool.wait_ready(2)
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.wait_gone()


# --- two of a name --------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["-b", "127.0.0.1:0"]])
def test_second_of_the_same_name_is_refused(make_pool, more):
    first = make_pool(["-n", "2", "-m", "0.05", "-b", "unix:@DIR@/web.sock"], name="shop")
    before = {w["pid"] for w in first.wait_ready(2)}
    inodes = [
        os.stat(first.dir / f).st_ino for f in ("einhorn-shop.sock", "einhorn-shop.pid", "web.sock")
    ]
    second = make_pool(
        [*more, "-m", "0.05"],
        ["touch", "started"],
        name="shop",
        directory=first.dir,
        stderr=None,
        start=False,
    )
    second.log_path = first.dir / "second.log"
    second.start()
    assert second.wait_exit() == 1
    assert "einhorn-shop.sock" in second.log() or "shop" in second.log()
    assert not (first.dir / "started").exists()
    assert first.path("pid").read_text() == str(first.process.pid)
    assert inodes == [
        os.stat(first.dir / f).st_ino for f in ("einhorn-shop.sock", "einhorn-shop.pid", "web.sock")
    ]
    assert set(first.pids()) == before
    assert first.exit_code is None
    assert first.stop() == 0


def test_same_socket_path_is_refused(make_pool):
    first = make_pool(["-m", "0.05"])
    first.wait_ready(1)
    second = make_pool(["-d", str(first.path("sock"))], ["touch", "started"])
    assert second.wait_exit() == 1
    assert str(first.path("sock")) in second.log()
    assert "Welcome" in first.command("ehlo", user="me")


def test_two_of_different_names_get_along(make_pool):
    first = make_pool(["-m", "0.05"], name="a")
    second = make_pool(["-m", "0.05"], name="b", directory=first.dir)
    first.wait_ready(1)
    second.wait_ready(1)
    assert second.stop() == 0
    assert len(first.pids()) == 1 and first.path("pid").exists()


# --- as the first process of a container ----------------------------------------------------------


@pytest.mark.root
def test_as_pid_1(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"],
        ["sh", "-c", '(true &); exec "$0" --children=1', worker("http_worker")],
        wrapper=["unshare", "--pid", "--fork", "--mount-proc"],
    )
    pool.wait_ready(2)
    state = pool.state_json()
    assert state["guard"] == 1
    assert http_get(pool.address)["pid"] in {w["pid"] for w in state["workers"]}
    # Outside of it, pids are others: the guard is the only child of `unshare`.
    (guard,) = [s for s in descendants(pool.process.pid) if s.ppid == pool.process.pid]
    zombies = lambda: [s for s in descendants(guard.pid) if s.state == "Z"]  # noqa: E731
    wait_until(lambda: not zombies(), 5, "orphans are reaped")
    # An orphan that dies later is reaped too, and a worker is replaced.
    waiting = [s for s in descendants(guard.pid) if s.name == "http_worker"]
    leaders = [s for s in waiting if s.pgid == s.pid]
    assert len(leaders) == 2 and len(waiting) == 4
    for stat in waiting:
        os.kill(stat.pid, signal.SIGKILL)
    pool.wait_state(
        lambda s: not {w["pid"] for w in state["workers"]} & {w["pid"] for w in s["workers"]}
        and [w["state"] for w in s["workers"]] == ["ready", "ready"]
    )
    wait_until(lambda: not zombies(), 5, "nobody is left as a zombie")
    os.kill(guard.pid, signal.SIGTERM)
    assert pool.wait_exit() == 0
    pool.wait_gone()


def test_master_that_fails_to_start_ten_times(make_pool, make_load):
    """Each new one is killed before it has said ready; the pool serves on, and comes back."""
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    before = {w["pid"] for w in pool.wait_ready(2)}
    load = make_load(pool.address, connections=4, rate=200)
    killed = [pool.master_pid]
    os.kill(killed[0], signal.SIGKILL)
    end = time.monotonic() + 60
    while len(killed) < 11:
        assert time.monotonic() < end, pool.log()
        pid = current_master(pool)  # no pause: it needs but a moment to be ready
        if pid is not None and pid != killed[-1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
    mark = pool.log_size()
    pool.wait_log("new master", deadline=30, since=mark)
    state = pool.wait_state(lambda s: s["master"] not in killed)
    assert {w["pid"] for w in state["workers"]} == before
    assert pool.exit_code is None
    assert load.stop()["failures"] == 0
