"""`reload` reads the config file again: what changes at once, sockets that come and go under load,
files that are no good, several pools, and pools in the background."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness import einhorn_command, http_get, is_alive, wait_until, worker
from harness.wire import Client

KEPT = r"The configuration stays as it was: "


@pytest.fixture
def configured(make_pool, tmp_path):
    """A pool out of a file; `write` changes the file."""

    def start(**options):
        path = tmp_path / "einhorn.yaml"

        def write(**changed):
            whole = {"command": [worker("http_worker")], "ack-mode": 0.05, **options, **changed}
            path.write_text(json.dumps({k: v for k, v in whole.items() if v is not None}))

        write()
        pool = make_pool(["--config", path], worker_command=())
        pool.wait_ready()
        return pool, write, path

    return start


def reload(pool):
    since = pool.log_size()
    answer = pool.command("reload", id=1)
    if answer == "Reloading, as commanded":
        pool.wait_log(r"A new master goes on", since=since)
    return answer


# --- at once, or later ----------------------------------------------------------------------------


def test_what_changes_at_once(configured):
    pool, write, _ = configured(number=1)
    before = pool.pids()
    write(number="1+1", canary=2, **{"signal-timeout": 9})
    assert reload(pool) == "Reloading, as commanded"
    pool.wait_log(r"The configuration has changed: number, signal-timeout, canary$")
    assert set(before) <= {entry["pid"] for entry in pool.wait_ready(2)}


def test_what_was_changed_by_hand_stays(configured):
    pool, write, _ = configured(number=2)
    pool.command("inc", id=1)
    pool.wait_ready(3)
    write(number=2, backlog=77)
    reload(pool)
    assert pool.state_json()["number"] == 3
    write(number=4)
    reload(pool)
    pool.wait_ready(4)


def test_what_waits_for_the_next_upgrade(configured):
    pool, write, _ = configured(env={"A": "old"})
    old = pool.pids()[0]
    write(env={"A": "new"}, **{"socket-path": str(pool.dir / "other.sock")})
    reload(pool)
    pool.wait_log(r"At the next upgrade: env$")
    pool.wait_log(r"Not before Einhorn is started anew: socket-path$")
    assert pool.pids() == [old] and b"A=old" in environ(old)
    os.kill(old, signal.SIGKILL)  # its replacement is of the same version
    same = pool.wait_state(lambda s: s["ready"] == 1 and s["workers"][0]["pid"] != old)
    assert b"A=old" in environ(same["workers"][0]["pid"])
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    assert b"A=new" in environ(pool.wait_ready(1)[0]["pid"])


def environ(pid):
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_the_log_moves(configured):
    pool, write, _ = configured()
    new = pool.dir / "new.log"
    write(**{"log-file": str(new), "log-format": "json"})
    pool.command("reload", id=1)
    wait_until(lambda: new.exists() and "A new master goes on" in new.read_text())
    assert all(json.loads(line)["message"] for line in new.read_text().splitlines())


# --- files that are no good -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", "folder", "mistake", "half", "empty"])
def test_a_file_that_is_no_good_changes_nothing(configured, how):
    pool, _, path = configured(number=2)
    master = pool.master_pid
    path.unlink()
    text = {"mistake": "numbr: 3\n", "half": "number: [", "empty": ""}
    if how == "folder":
        path.mkdir()
    elif how in text:
        path.write_text(text[how])
    since = pool.log_size()
    answer = pool.command("reload", id=1)
    assert answer.startswith("Could not reload: ") and "\n" not in answer
    pool.wait_log(KEPT, since=since)
    assert pool.count_log(KEPT, since=since) == 1
    assert pool.master_pid == master and len(pool.wait_ready(2)) == 2
    # An upgrade goes on with what there is.
    pool.command("upgrade", id=2)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    assert len(pool.wait_ready(2)) == 2


def test_a_socket_that_can_not_be_opened_changes_nothing(configured):
    pool, write, _ = configured(number=1, bind=["127.0.0.1:0"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write(number=2, bind=["127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}"])
        reload(pool)
        pool.wait_log(KEPT + r".*Address already in use")
    assert pool.state_json()["number"] == 1 and len(pool.state_json()["sockets"]) == 1


# --- sockets --------------------------------------------------------------------------------------


def test_sockets_come_and_go_under_load(configured, make_load):
    unix = "unix:@DIR@/shop.sock"
    pool, write, _ = configured(number=2, bind=["127.0.0.1:0"])
    unix = unix.replace("@DIR@", str(pool.dir))
    load = make_load(pool.address)
    for round_number in range(3):
        version = pool.state_json()["version"]
        write(bind=["127.0.0.1:0", unix])
        reload(pool)
        pool.wait_state(lambda s: s["version"] == version + 1 and not s["upgrading"])
        assert [s["bind"] for s in pool.state_json()["sockets"]] == ["127.0.0.1:0", unix]
        for entry in pool.wait_ready(2):
            assert b"EINHORN_FD_COUNT=2" in environ(entry["pid"])
        write(bind=["127.0.0.1:0"])
        reload(pool)
        pool.wait_state(lambda s: s["version"] == version + 2 and len(s["sockets"]) == 1)
        assert not (pool.dir / "shop.sock").exists()
    report = load.stop()
    assert report["failures"] == 0 and report["ok"] > 0, report


def test_a_socket_that_is_taken_out_is_drained(configured):
    """It stays open as long as a worker has it, also over the death of a master."""
    pool, write, _ = configured(number=1, bind=["127.0.0.1:0", "[::1]:0"])
    first, second = (s["address"] for s in pool.state_json()["sockets"])
    old = pool.pids()[0]
    # Held: a worker that is stopped does not leave.
    os.kill(old, signal.SIGSTOP)
    write(bind=["127.0.0.1:0"])
    reload(pool)
    pool.wait_state(lambda s: s["version"] == 1)
    pool.kill_master()
    pool.wait_state(lambda s: s["generation"] >= 2 and len(s["sockets"]) == 2)
    host, port = second.rsplit(":", 1)
    with socket.create_connection((host.strip("[]"), int(port))):
        pass
    os.kill(old, signal.SIGCONT)
    pool.wait_state(lambda s: len(s["sockets"]) == 1)
    pool.wait_log(rf"Closed {re.escape(second)}, which no worker has any more")
    assert http_get(first)["pid"] in pool.pids()


def test_a_reload_while_an_upgrade_is_under_way(configured, make_load):
    pool, write, _ = configured(number=2, bind=["127.0.0.1:0"], **{"canary-seconds": 1})
    load = make_load(pool.address)
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["upgrading"])
    write(number=3, bind=["127.0.0.1:0", "[::1]:0"])
    reload(pool)
    pool.wait_state(lambda s: not s["upgrading"] and s["ready"] == 3 and len(s["sockets"]) == 2, 60)
    for entry in pool.wait_ready(3):
        assert b"EINHORN_FD_COUNT=2" in environ(entry["pid"])
    assert load.stop()["failures"] == 0


# --- several pools --------------------------------------------------------------------------------


@pytest.fixture
def up(make_pool, tmp_path):
    def start(pools, **common):
        path = tmp_path / "pools.yaml"
        path.write_text(json.dumps({"ack-mode": 0.05, **common, "pools": pools}))
        process = make_pool(["--config", path, "up"], worker_command=())
        return process, path

    return start


class Named:
    """One of the pools of `einhorn up`."""

    def __init__(self, pool, name):
        self.path = str(pool.dir / f"einhorn-{name}.sock")

    def state(self):
        with Client(self.path) as client:
            return json.loads(client.request({"command": "state", "args": ["json"], "id": 1})["message"])

    def command(self, command):
        with Client(self.path) as client:
            return client.request({"command": command, "args": [], "id": 1})["message"]

    def wait(self, predicate, deadline=20.0):
        def look():
            try:
                state = self.state()
            except (OSError, ValueError):
                return None
            return state if predicate(state) else None

        return wait_until(look, deadline)


def test_up_runs_all_pools(up):
    command = [worker("http_worker")]
    pool, _ = up(
        {
            "web": {"command": command, "number": 2, "bind": "127.0.0.1:0"},
            "job": {"command": command, "number": 1},
        }
    )
    web, job = Named(pool, "web"), Named(pool, "job")
    first = web.wait(lambda s: s["ready"] == 2)
    other = job.wait(lambda s: s["ready"] == 1)
    assert first["name"] == "web" and other["name"] == "job"
    # A guard that is killed: the same pool goes on.
    os.kill(first["guard"], signal.SIGKILL)
    again = web.wait(lambda s: s["guard"] not in (None, first["guard"]))
    assert {w["pid"] for w in again["workers"]} == {w["pid"] for w in first["workers"]}
    assert job.state()["guard"] == other["guard"]
    # HUP upgrades all, TERM ends all.
    pool.send(signal.SIGHUP)
    web.wait(lambda s: s["version"] == 1 and not s["upgrading"])
    job.wait(lambda s: s["version"] == 1 and not s["upgrading"])
    assert pool.stop(signal.SIGTERM) == 0
    assert not is_alive(again["guard"]) and not is_alive(other["guard"])


def test_up_goes_on_with_its_pools_after_its_own_death(up, make_load):
    command = [worker("http_worker")]
    pool, path = up(
        {
            "web": {"command": command, "number": 2, "bind": "127.0.0.1:0"},
            "job": {"command": command, "number": 1},
        }
    )
    web, job = Named(pool, "web"), Named(pool, "job")
    first, other = web.wait(lambda s: s["ready"] == 2), job.wait(lambda s: s["ready"] == 1)
    with make_load(first["sockets"][0]["address"], connections=4, rate=300) as load:
        load.wait_ok(50)
        pool.process.kill()
        pool.wait_exit()
        pool.start()
        pool.wait_log(rf"pool web runs already, as {first['guard']}$")
        pool.wait_log(rf"pool job runs already, as {other['guard']}$")
        # It looks after them as after its own: a guard that is killed, HUP, TERM.
        os.kill(first["guard"], signal.SIGKILL)
        again = web.wait(lambda s: s["guard"] not in (None, first["guard"]))
        assert {w["pid"] for w in again["workers"]} == {w["pid"] for w in first["workers"]}
        pool.send(signal.SIGHUP)
        job.wait(lambda s: s["version"] == 1 and not s["upgrading"])
        web.wait(lambda s: s["version"] == 1 and not s["upgrading"])
        load.wait_more(100)
    assert load.result["failures"] == 0, load.result
    assert job.state()["guard"] == other["guard"]
    # One that is asked to end stays ended, and is no failure.
    job.command("die")
    pool.wait_log(r"pool job has ended$")
    assert pool.stop(signal.SIGTERM) == 0
    assert not is_alive(again["guard"]) and not is_alive(other["guard"])


def test_a_pool_that_fails_does_not_hurt_the_others(up):
    pool, path = up(
        {
            "good": {"command": [worker("http_worker")]},
            "bad": {"command": ["/no/such/program"]},
        }
    )
    good = Named(pool, "good")
    good.wait(lambda s: s["ready"] == 1)
    pool.wait_log(r"ERROR: pool bad exited with status 1; it is started again in \d+ ms")
    # Mended in the file: it comes up, and the other one is as it was.
    whole = json.loads(path.read_text())
    whole["pools"]["bad"]["command"] = [worker("http_worker")]
    guard = good.state()["guard"]
    path.write_text(json.dumps(whole))
    Named(pool, "bad").wait(lambda s: s["ready"] == 1, 60)
    assert good.state()["guard"] == guard
    # One that is asked to end stays ended.
    good.command("die")
    pool.wait_log(r"pool good has ended")
    assert pool.stop(signal.SIGTERM) in (0, 1)


def test_wrong_files_for_up(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("command: /bin/true\n")
    result = subprocess.run([*einhorn_command(), "up", path], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (1, f"einhorn: {path}: it has no `pools`\n")
    path.write_text("pools: {web: {numbr: 3}}\n")
    result = subprocess.run([*einhorn_command(), "up", path], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (
        1,
        f"einhorn: {path}:1:15: unknown key 'numbr', did you mean 'number'?\n",
    )


# --- in the background ----------------------------------------------------------------------------


def daemonized(pool, *words):
    return subprocess.run(
        [*einhorn_command(), "--daemonize", "--log-file", str(pool.dir / "d.log"), "-e",
         str(pool.dir / "d.pid"), "-d", str(pool.dir / "d.sock"), *words],
        capture_output=True, text=True, timeout=60, env=pool.env, cwd=pool.dir,
    )  # fmt: skip


def test_daemonize_ends_when_the_workers_are_up(make_pool):
    pool = make_pool(start=False)
    result = daemonized(pool, "-n", "2", "-m", "0.3", worker("http_worker"))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    guard = int((pool.dir / "d.pid").read_text())
    with Client(str(pool.dir / "d.sock")) as client:
        state = json.loads(client.request({"command": "state", "args": ["json"], "id": 1})["message"])
    assert state["ready"] == 2 and state["guard"] == guard and os.getsid(guard) == guard
    assert os.readlink(f"/proc/{guard}/fd/2") == str(pool.dir / "d.log")
    os.kill(guard, signal.SIGTERM)
    wait_until(lambda: not is_alive(guard))


def test_daemonize_says_why_not(make_pool):
    pool = make_pool(start=False)
    result = daemonized(pool, "/no/such/program")
    assert result.returncode == 1 and "/no/such/program" in result.stderr
    result = daemonized(pool, "-m", "manual", "--", "/bin/sh", "-c", "exit 3")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "einhorn: workers die before they are up; the pool is ended"
    )
    assert not (pool.dir / "d.pid").exists()
    nowhere = subprocess.run(
        [*einhorn_command(), "--daemonize", "/bin/true"], capture_output=True, text=True, timeout=30
    )
    assert nowhere.stderr == "einhorn: --daemonize: needs --log-file, since nobody reads standard error\n"
