"""A pool of Ruby's Einhorn becomes ours and ours becomes Ruby's, in the same pid, and no request is
lost.

ruby/master.rb stands for Ruby's Einhorn. EINHORN_RUBY_COMMAND, for instance `ruby
-I/usr/src/einhorn/lib /usr/src/einhorn/bin/einhorn`, puts a real one in its place."""

import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from harness import Pool, einhorn_command, http_get, is_alive, load_yaml, wait_until
from harness.processes import environment_of, open_descriptors, read_stat
from harness.wire import Closed, decode, encode

STAND_IN = Path(__file__).resolve().parent / "ruby" / "master.rb"


def ruby_command():
    words = shlex.split(os.environ.get("EINHORN_RUBY_COMMAND", ""))
    return words or ["ruby", str(STAND_IN)]


OURS = shlex.join(einhorn_command())
RUBYS = shlex.join(ruby_command())


class RubyPool(Pool):
    """A pool that Ruby's Einhorn starts."""

    def command_line(self):
        name = [] if self.name is None else ["-c", self.name]
        return [*self.wrapper, *ruby_command(), *name, *self.args, "--", *self.worker_command]


@pytest.fixture
def make_ruby(make_pool, request):
    """Like make_pool, of RubyPool."""

    def make(*args, **kwargs):
        pool = RubyPool(*args, **kwargs)
        request.node.pools.append(pool)
        return pool

    return make


def ruby_state(pool):
    """`state` as both tell it."""
    return load_yaml(pool.command("state", language="yaml"))[":state"]


def ruby_children(pool):
    return {
        pid: child
        for pid, child in ruby_state(pool)[":children"].items()
        if child[":type"] == ":worker"
    }


def wait_children(pool, number, version=None, deadline=20):
    """Waits until there are just so many workers, all ACKed, none signaled."""

    def there():
        children = ruby_children(pool)
        return len(children) == number and all(
            c[":acked"] and not c[":signaled"] and version in (None, c[":version"])
            for c in children.values()
        )

    wait_until(there, deadline, lambda: f"{number} workers: {ruby_children(pool)}\n{pool.log()}")
    return ruby_children(pool)


def ports(pool):
    return ruby_state(pool)[":bound_ports"]


def address(pool):
    return f"127.0.0.1:{ports(pool)[0]}"


def is_ours(pool):
    """Whose program runs in the pid that everybody knows."""
    mine = os.path.realpath(einhorn_command()[0])
    return os.path.realpath(f"/proc/{pool.process.pid}/exe") == mine


def upgrade(pool, command="upgrade", *args):
    """Asks, waits for the end; the messages."""
    with pool.client(timeout=40) as client:
        document = {"command": command, "id": 7, **({"args": list(args)} if args else {})}
        replies = client.conversation(document, "yaml")
    assert {reply["request_id"] for reply in replies} == {7}
    return [reply["message"] for reply in replies]


def zombies(pool):
    return [s.pid for s in pool.processes() if s.state == "Z" and s.pid != pool.process.pid]


def sockets_of(pid):
    return sorted(n for n, target in open_descriptors(pid).items() if target.startswith("socket:"))


def check_whole(pool, number, version):
    """Everything that has to be true of a pool that has just changed hands."""
    workers = wait_children(pool, number, version)
    assert sorted(c[":index"] for c in workers.values())[0] >= 0
    assert len({c[":index"] for c in workers.values()}) == number
    for pid in workers:
        assert read_stat(pid).ppid == pool.process.pid
    found = environment_of(next(iter(workers)))
    assert found["EINHORN_MASTER_PID"] == str(pool.process.pid)
    wait_until(lambda: not zombies(pool), what=lambda: f"zombies: {zombies(pool)}")
    assert ruby_state(pool)[":version"] == version
    return workers


# name: (arguments, the worker)
SHAPES = {
    "manual ACK": (["-n", "3", "-m", "manual"], "http_worker --ack=path"),
    "timer ACK": (["-n", "3", "-m", "0.2"], "http_worker"),
    "several sockets": (
        ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0,r"],
        "http_worker --ack=path",
    ),
    "eight workers": (["-n", "8", "-m", "manual"], "http_worker --ack=path"),
    "named": (["-c", "shop", "-n", "2", "-m", "manual"], "http_worker --ack=path"),
    "own paths": (
        "-n 2 -m manual -d @DIR@/a.sock -e @DIR@/a.pid -f @DIR@/a.lock".split(),
        "http_worker --ack=path",
    ),
    "killed on exit": (["-k", "-n", "2", "-m", "manual"], "http_worker --ack=path"),
    "max unacked": (["--max-unacked", "1", "-n", "3", "-m", "manual"], "http_worker --ack=path"),
}


def start_ruby(make_ruby, shape="manual ACK", to=OURS, **kwargs):
    arguments, worker = SHAPES[shape]
    words = [*arguments, "-b", "127.0.0.1:0", "--reexec-as", to]
    name = None
    if words[0] == "-c":
        name, words = words[1], words[2:]
    pool = make_ruby(words, worker, name=name, **kwargs)
    pool.number = int(words[words.index("-n") + 1])
    wait_children(pool, pool.number, 0)
    return pool


# --- from Ruby to ours ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_a_ruby_pool_becomes_ours_under_load(make_ruby, make_load, shape):
    pool = start_ruby(make_ruby, shape)
    before, bound, pid = ruby_children(pool), ports(pool), pool.process.pid
    load = make_load(address(pool), connections=12, rate=600)
    load.wait_ok(50)
    command = "upgrade_fleet" if shape in ("named", "eight workers") else "upgrade"
    said = upgrade(pool, command)
    assert said[-1] == "Upgrade done" and is_ours(pool) and pool.process.pid == pid
    after = check_whole(pool, pool.number, 1)
    assert not set(before) & set(after) and not any(is_alive(old) for old in before)
    assert ports(pool) == bound
    for port in bound:
        assert http_get(f"127.0.0.1:{port}")["pid"] in after
    load.wait_more(100)
    result = load.stop()
    assert result["failures"] == 0, result
    state = pool.state_json()
    assert state["guard"] == pid and state["number"] == pool.number
    assert pool.count_log("Could not find any config|probably indicates a bug") == 0


def test_everything_that_was_set_is_carried_over(make_ruby):
    words = "-n 3 -m 0.3 -b 127.0.0.1:0,r,n -k -q -d @DIR@/x.sock -e @DIR@/x.pid -f @DIR@/x.lock"
    pool = make_ruby(
        [*words.split(), "--max-unacked", "2", "--drop-env-var", "SECRET", "--reexec-as", OURS],
        "http_worker",
        name="shop",
        env={"SECRET": "1", "KEPT": "1"},
    )
    wait_children(pool, 3)
    before = ruby_state(pool)
    upgrade(pool)
    wait_children(pool, 3, 1)
    after = ruby_state(pool)
    changed = {":children", ":version", ":generation", ":last_spinup", ":last_upgraded"}
    changed |= {":smooth_upgrade", ":script_name"}  # it was one; and Ruby's is not ours
    same = set(before) - changed
    assert {key: after.get(key) for key in same} == {key: before[key] for key in same}
    assert after[":generation"] >= before[":generation"] + 1
    for pid in ruby_children(pool):
        assert "SECRET" not in environment_of(pid) and environment_of(pid)["KEPT"] == "1"
    assert (pool.dir / "x.pid").read_text() == str(pool.process.pid)
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()
    assert sorted(p.name for p in pool.dir.iterdir()) == ["log", "stdout", "x.lock"]


def test_the_default_paths_stay(make_ruby):
    pool = start_ruby(make_ruby)
    inode = os.stat(pool.socket_path).st_ino
    upgrade(pool)
    assert os.stat(pool.socket_path).st_ino == inode
    assert pool.path("pid").read_text() == str(pool.process.pid)
    assert pool.stop() == 0
    pool.wait_gone()
    assert not pool.socket_path.exists() and not pool.path("pid").exists()


def test_by_hup(make_ruby):
    pool = start_ruby(make_ruby)
    pool.send(signal.SIGHUP)
    pool.wait_log(r"Upgraded successfully to version 1 \(Einhorn")
    assert is_ours(pool)
    check_whole(pool, 3, 1)


def test_no_descriptor_leaks_into_the_workers(make_ruby):
    pool = start_ruby(make_ruby)
    upgrade(pool)
    for pid in wait_children(pool, 3, 1):
        sockets = sockets_of(pid)
        listener = int(environment_of(pid)["EINHORN_FD_0"])
        assert sockets == [listener], open_descriptors(pid)


def test_whatever_comes_next_works(make_ruby, make_load):
    """Not only the first upgrade: workers that die, more of them, another upgrade, kill -9."""
    pool = start_ruby(make_ruby)
    load = make_load(address(pool), connections=8, rate=400)
    load.wait_ok(20)
    upgrade(pool)
    wait_children(pool, 3, 1)
    pool.command("set_workers", "5")
    wait_children(pool, 5, 1)
    pool.kill_master()
    assert upgrade(pool)[-1] == "Upgrade done"
    wait_children(pool, 5, 2)
    load.wait_more(50)
    assert load.stop()["failures"] == 0
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_state(lambda s: s["deaths"] == 1)
    check_whole(pool, 5, 2)


def test_a_reload_changes_hands_and_no_worker(make_ruby, make_load):
    pool = start_ruby(make_ruby)
    before = set(ruby_children(pool))
    load = make_load(address(pool), connections=8, rate=400)
    load.wait_ok(20)
    assert pool.command("reload") == "Reloading, as commanded"
    wait_until(lambda: is_ours(pool))
    assert set(check_whole(pool, 3, 0)) == before
    load.wait_more(50)
    assert load.stop()["failures"] == 0


def test_a_first_upgrade_that_fails_leaves_the_old_workers(make_ruby, make_load, tmp_path):
    options = tmp_path / "options"
    options.write_text("--ack=path\n")
    pool = make_ruby(
        ["-n", "3", "-m", "manual", "-b", "127.0.0.1:0", "--reexec-as", OURS],
        ["http_worker", f"--options-file={options}"],
    )
    before = set(wait_children(pool, 3, 0))
    load = make_load(address(pool), connections=8, rate=400)
    load.wait_ok(20)
    options.write_text("--exit-at-start=9\n")
    said = upgrade(pool)
    assert said[-1] == "Upgrade failed; rolled back to version 0"
    assert any("exited with status 9" in line for line in said)
    assert is_ours(pool) and set(check_whole(pool, 3, 0)) == before
    options.write_text("--ack=path\n")
    assert upgrade(pool)[-1] == "Upgrade done"
    check_whole(pool, 3, 2)
    load.wait_more(50)
    assert load.stop()["failures"] == 0


def test_timers_that_run_go_on(make_ruby):
    """Workers that are not ACKed yet when the pool changes hands are, when their time has come."""
    pool = make_ruby(
        ["-n", "2", "-m", "2", "-b", "127.0.0.1:0", "--reexec-as", OURS], "http_worker"
    )
    wait_until(lambda: len(ruby_children(pool)) == 2)
    first = ruby_children(pool)
    assert not any(child[":acked"] for child in first.values())
    pool.send(signal.SIGHUP)
    wait_until(lambda: is_ours(pool))
    for pid in first:
        pool.wait_log(rf"Worker {pid} has been up for 2s, so we are considering it alive")
    assert set(wait_children(pool, 2, 1)) & set(first) == set()


def inherited_connections(pid, pool):
    """The descriptor that -g gave a worker, and what is at it."""
    number = environment_of(pid).get("EINHORN_SOCK_FD")
    return number and open_descriptors(pid).get(int(number), "")


def test_workers_with_a_connection_of_their_own(make_ruby, make_load):
    """-g: of no use to programs under Ruby's, where it is closed on exec; after the change of hands
    new workers have one, it outlives masters, and an ACK by it counts."""
    pool = make_ruby(
        ["-g", "-n", "3", "-m", "manual", "-b", "127.0.0.1:0", "--reexec-as", OURS],
        "http_worker --ack=path",
    )
    wait_children(pool, 3, 0)
    load = make_load(address(pool), connections=8, rate=400)
    load.wait_ok(20)
    assert upgrade(pool)[-1] == "Upgrade done" and is_ours(pool)
    workers = check_whole(pool, 3, 1)
    assert ruby_state(pool)[":command_socket_as_fd"] is True
    for pid in workers:
        assert inherited_connections(pid, pool).startswith("socket:")
    pool.kill_master()
    assert upgrade(pool)[-1] == "Upgrade done"
    for pid in check_whole(pool, 3, 2):
        assert inherited_connections(pid, pool).startswith("socket:")
    load.wait_more(50)
    assert load.stop()["failures"] == 0


def test_acks_by_a_connection_of_their_own_after_the_change(make_ruby, tmp_path):
    """The same with workers that say it over that connection alone."""
    options = tmp_path / "options"
    options.write_text("--ack=path\n")
    pool = make_ruby(
        ["-g", "-n", "2", "-m", "manual", "-b", "127.0.0.1:0", "--reexec-as", OURS],
        ["http_worker", f"--options-file={options}"],
    )
    wait_children(pool, 2, 0)
    options.write_text("--ack=fd\n")
    assert upgrade(pool)[-1] == "Upgrade done" and is_ours(pool)
    check_whole(pool, 2, 1)
    assert upgrade(pool)[-1] == "Upgrade done"
    check_whole(pool, 2, 2)


# --- from ours to Ruby ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_ours_becomes_rubys_under_load(make_pool, make_load, shape):
    arguments, worker = SHAPES[shape]
    name = None
    if shape == "named":
        name, arguments = arguments[1], arguments[2:]
    pool = make_pool([*arguments, "-b", "127.0.0.1:0", "--reexec-as", RUBYS], worker, name=name)
    number = pool.state_json()["number"]
    before, bound, pid = wait_children(pool, number, 0), ports(pool), pool.process.pid
    load = make_load(address(pool), connections=12, rate=600)
    load.wait_ok(50)
    command = "upgrade_fleet" if shape in ("named", "eight workers") else "upgrade"
    said = upgrade(pool, command, "--to-ruby")
    assert said[-1] == "Upgrade done" and not is_ours(pool) and pool.process.pid == pid
    after = check_whole(pool, number, 1)
    assert not set(before) & set(after)
    assert ports(pool) == bound
    load.wait_more(100)
    result = load.stop()
    assert result["failures"] == 0, result
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()
    assert not pool.socket_path.exists()


SWITCH = "#!/bin/sh\nexec $(cat {target}) \"$@\"\n"


def switch(pool_directory):
    """A command whose meaning changes: (command, set)."""
    target, command = pool_directory / "target", pool_directory / "switch"
    command.write_text(SWITCH.format(target=target))
    command.chmod(0o755)
    return str(command), lambda words: target.write_text(words)


@pytest.mark.parametrize("mode", ["manual", "0.1"])
def test_back_and_forth(make_ruby, make_load, tmp_path, mode):
    command, point_to = switch(tmp_path)
    worker = "http_worker --ack=path" if mode == "manual" else "http_worker"
    pool = make_ruby(
        ["-n", "2", "-m", mode, "-b", "127.0.0.1:0", "--reexec-as", command], worker
    )
    wait_children(pool, 2, 0)
    load = make_load(address(pool), connections=8, rate=400)
    load.wait_ok(20)
    descriptors = []
    rounds = int(os.environ.get("EINHORN_MIGRATION_ROUNDS", "2"))
    for turn in range(rounds):
        point_to(OURS)
        assert upgrade(pool)[-1] == "Upgrade done" and is_ours(pool)
        check_whole(pool, 2, 2 * turn + 1)
        descriptors.append(open_descriptors(pool.process.pid))
        point_to(RUBYS)
        assert upgrade(pool, "upgrade", "--to-ruby")[-1] == "Upgrade done" and not is_ours(pool)
        check_whole(pool, 2, 2 * turn + 2)
    load.wait_more(50)
    result = load.stop()
    assert result["failures"] == 0, result
    assert len(descriptors[-1]) <= len(descriptors[0]), descriptors
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


# --- what may go wrong ----------------------------------------------------------------------------

# Stands between the two: reads the state, does what the test wants, and goes on with einhorn.
BETWEEN = r"""
import os, re, signal, stat, sys

source, words = sys.argv[1], sys.argv[2:]
at = words.index("--with-state-fd") + 1 if "--with-state-fd" in words else 0
if at and not stat.S_ISSOCK(os.fstat(int(words[at])).st_mode):  # what Ruby hands over
    os.set_blocking(int(words[at]), True)
    with open(int(words[at])) as file:
        names = {"state": file.read(), "os": os, "re": re, "signal": signal}
    workers = re.findall(r"^    (\d+):\n      :type: :worker", names["state"], re.M)
    names["pids"] = [int(pid) for pid in workers]
    with open(source) as file:
        exec(file.read(), names)
    new = os.memfd_create("state", 0)
    os.write(new, names["state"].encode())
    os.set_inheritable(new, True)
    words[at] = str(new)
os.execvp(words[0], words)
"""


@pytest.fixture
def start_between(make_ruby, tmp_path):
    """start(code, shape): a Ruby pool; `code` runs between Ruby's end and our beginning."""

    def make(code, shape="manual ACK", **kwargs):
        (tmp_path / "between.py").write_text(BETWEEN)
        (tmp_path / "code").write_text(code)
        words = [sys.executable, str(tmp_path / "between.py"), str(tmp_path / "code"), OURS]
        return start_ruby(make_ruby, shape, to=" ".join(words), **kwargs)

    return make


def test_unknown_and_missing_keys(start_between):
    pool = start_between(
        r"""
state = state.replace("  :preloaded: false\n", "  :wings: 2\n")
state = re.sub(r"^  :bound_ports:\n  - \d+\n", "", state, flags=re.M)
state = re.sub(r"^      :index: \d+\n", "", state, flags=re.M)
last = ":persistent_descriptors:\n"
state = state.replace(last, last + "- :class: Einhorn::Event::Horn\n", 1)
"""
    )
    port = ports(pool)
    assert upgrade(pool)[-1] == "Upgrade done"
    check_whole(pool, 3, 1)
    assert ports(pool) == port, "asked of the socket itself"
    missing = pool.wait_log(r"Not in the state, taken as default: (.*)")[1].split(", ")
    assert {"preloaded", "bound_ports"} <= set(missing)
    assert sum(name.endswith(".index") for name in missing) == 3
    unknown = pool.wait_log(r"Unknown in the state, left aside: (.*)")[1].split(", ")
    assert "wings" in unknown and "persistent_descriptors.0" in unknown


def test_workers_without_an_index_get_different_ones(start_between):
    pool = start_between(r"state = re.sub(r'^      :index: \d+\n', '', state, flags=re.M)")
    first = set(ruby_children(pool))
    with pool.client() as client:
        client.send_line(encode({"command": "upgrade", "id": 1}, "json"))
        pool.wait_log(r"A new master goes on")
        while decode(client.read_line()).get("wait"):
            pass
    assert len(first) == 3
    # The new ones came beside the old ones, each under a number of its own.
    indexes = [int(n) for n in re.findall(r"Launched \d+ \(index: (\d+)\)", pool.log())]
    assert indexes[:3] == [0, 1, 2] and indexes[3] == 3
    check_whole(pool, 3, 1)


def test_what_early_versions_called_an_upgrade(start_between):
    pool = start_between(
        "state = state.replace(':reloading_for_upgrade:', ':reloading_for_preload_upgrade:')"
    )
    assert upgrade(pool)[-1] == "Upgrade done"
    check_whole(pool, 3, 1)
    pool.wait_log(r"left aside: reloading_for_preload_upgrade$")


@pytest.mark.parametrize(
    "reap", ["os.waitid(os.P_PID, pids[0], os.WEXITED | os.WNOWAIT)", "os.waitpid(pids[0], 0)"]
)
def test_a_worker_that_dies_in_between(start_between, make_load, reap):
    """Whether it is still to be reaped or somebody has done that."""
    pool = start_between(f"os.kill(pids[0], signal.SIGTERM)\n{reap}")
    victim = min(ruby_children(pool))
    assert upgrade(pool)[-1] == "Upgrade done"
    after = check_whole(pool, 3, 1)
    assert victim not in after and not is_alive(victim)
    assert pool.count_log(rf"===> Exited worker {victim}\b") == 1
    load = make_load(address(pool), requests=100)
    assert load.wait_end()["failures"] == 0


@pytest.mark.parametrize(
    "code, said",
    [
        ("state = ''", "state of the Ruby master"),
        ("state = state[:200]", "state of the Ruby master"),
        ("state = state[:len(state) // 2]", "state of the Ruby master"),
        ("state = 'no state'", "no :state in it"),
        ("state = '{' * 100000", "state of the Ruby master"),
        ("state = ':state: !ruby/object:Object {}'", "state of the Ruby master"),
        (r"os.close(int(re.search(r':bind_fds:\n  - (\d+)', state)[1]))", r"listen:0: .*Bad file"),
        (r"os.close(int(re.search(r':server: (\d+)', state)[1]))", r"command: .*Bad file"),
        (r"state = re.sub(r':server: \d+', ':server: 1', state)", "command: .*it is no socket"),
    ],
)
def test_a_state_that_can_not_be_used(start_between, code, said):
    """Says why, exits with 1, and leaves the workers, which serve on."""
    pool = start_between(code)
    where, workers = address(pool), set(ruby_children(pool))
    with pytest.raises((Closed, ConnectionResetError)):
        upgrade(pool)
    assert pool.wait_exit() == 1
    pool.wait_log(rf"^einhorn: .*{said}")
    assert all(is_alive(pid) for pid in workers)
    assert http_get(where)["pid"] in workers


@pytest.mark.skipif(ruby_command()[-1] != str(STAND_IN), reason="only the stand-in can be made to")
def test_a_state_that_can_not_be_taken_over_is_refused_by_the_check(make_ruby):
    """Before anything has happened: the Ruby master goes on."""
    pool = start_ruby(make_ruby, env={"STAND_IN_HIDES_ITS_SOCKET": "1"})
    workers = set(ruby_children(pool))
    pool.send(signal.SIGHUP)
    pool.wait_log(r"^einhorn: state of the Ruby master: there is no command socket in it")
    pool.wait_log(r"Can not initiate einhorn master reload safely, aborting")
    assert not is_ours(pool) and set(ruby_children(pool)) == workers
    assert http_get(address(pool))["pid"] in workers


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda path: path.write_text("x"), "Non-socket file present at"),
        (lambda path: path.symlink_to("nothing"), "Non-socket file present at"),
    ],
    ids=["a file", "a link"],
)
def test_what_is_in_the_way_of_a_file_of_ours_is_found_by_the_check(make_ruby, make, why):
    """The notification socket is one that Ruby's Einhorn has not: it has to be possible."""
    pool = start_ruby(make_ruby)
    workers = set(ruby_children(pool))
    path = pool.dir / (pool.socket_path.name + ".notify")
    make(path)
    pool.send(signal.SIGHUP)
    pool.wait_log(rf"^einhorn: {why}.*{re.escape(str(path))}")
    pool.wait_log(r"Can not initiate einhorn master reload safely, aborting")
    assert not is_ours(pool) and set(ruby_children(pool)) == workers
    assert http_get(address(pool))["pid"] in workers
    path.unlink()
    assert upgrade(pool)[-1] == "Upgrade done" and is_ours(pool)


def test_a_client_that_is_gone(start_between):
    pool = start_between(r"os.close(int(re.search(r':socket: (\d+)', state)[1]))")
    with pool.client(timeout=20) as client:
        client.send_line(encode({"command": "upgrade", "id": 1}, "json"))
        with pytest.raises((Closed, ConnectionResetError)):
            while True:
                client.read_line()
    pool.wait_log(r"Upgraded successfully to version 1")
    check_whole(pool, 3, 1)


BLOCKED = """
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{0}])
os.kill(os.getpid(), signal.{0})
"""


@pytest.mark.parametrize("name, number", [("SIGINT", "USR2"), ("SIGTERM", "TERM")])
def test_told_to_stop_right_after_the_exec(start_between, name, number):
    pool = start_between(BLOCKED.format(name))
    pool.send(signal.SIGHUP)
    assert pool.wait_exit() == 0
    assert f"Sending {number} to [" in pool.log()
    pool.wait_gone()
    assert not pool.socket_path.exists() and not pool.path("pid").exists()


def test_another_hup_right_after_the_exec(start_between, make_load):
    pool = start_between(BLOCKED.format("SIGHUP"))
    load = make_load(address(pool), connections=8, rate=400)
    load.wait_ok(20)
    pool.send(signal.SIGHUP)
    pool.wait_log(r"Upgraded successfully to version 2")
    check_whole(pool, 3, 2)
    assert load.stop()["failures"] == 0


def test_the_command_socket_stays_ours_alone(make_ruby):
    pool = start_ruby(make_ruby)
    upgrade(pool)
    other = Pool([*pool.args[:-2]], "http_worker --ack=path", directory=pool.dir, start=False)
    other.env, other.log_path = pool.env, pool.dir / "other"
    other.start()
    try:
        assert other.wait_exit() == 1
    finally:
        other.own_directory = False
    check_whole(pool, 3, 1)


def test_an_upgrade_under_way_goes_on(make_ruby, make_load, tmp_path):
    """Ruby is in the middle of one, and its new workers never ACK; the next one is ours."""
    command, point_to = switch(tmp_path)
    point_to(RUBYS)
    options = tmp_path / "options"
    options.write_text("--ack=path\n")
    pool = make_ruby(
        ["-n", "2", "-m", "manual", "--max-unacked", "1", "-b", "127.0.0.1:0"]
        + ["--reexec-as", command],
        ["http_worker", f"--options-file={options}"],
    )
    wait_children(pool, 2, 0)
    load = make_load(address(pool), connections=8, rate=400)
    options.write_text("--threads=0\n")
    pool.send(signal.SIGHUP)
    wait_until(lambda: any(c[":version"] == 1 for c in ruby_children(pool).values()))
    options.write_text("--ack=path\n")
    point_to(OURS)
    with pool.client(timeout=40) as client:
        replies = client.conversation({"command": "upgrade", "id": 3}, "json")
    assert replies[-1]["message"] == "Upgrade done" and is_ours(pool)
    assert any("Currently upgrading" in reply["message"] for reply in replies)
    check_whole(pool, 2, 2)
    load.wait_more(50)
    assert load.stop()["failures"] == 0


# --- a Ruby that can't take over ------------------------------------------------------------------


@pytest.fixture
def start_leaving(make_pool, make_load, tmp_path):
    """start(script): one of our pools under load, whose --reexec-as is that shell script."""

    def make(script):
        command = tmp_path / "successor"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        pool = make_pool(
            ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0", "--reexec-as", str(command)],
            "http_worker --ack=path",
        )
        pool.wait_ready(2)
        pool.load = make_load(pool.address, connections=8, rate=400)
        pool.load.wait_ok(20)
        return pool

    return make


@pytest.mark.parametrize(
    "arguments, words, why",
    [
        (["-m", "notify"], [], "-m notify, so no worker would ever count as up"),
        (["--chdir", "@DIR@"], [], "--chdir, so workers would start in another directory"),
        ([], ["{fd}"], 'replacements in arguments, so workers would be given "{fd}"'),
        ([], ["x={fd:web}"], 'replacements in arguments, so workers would be given "x={fd:web}"'),
        ([], ["{index}"], 'replacements in arguments, so workers would be given "{index}"'),
    ],
)
def test_what_rubys_can_not_do_is_refused_at_once(make_pool, arguments, words, why):
    pool = make_pool(
        ["-n", "1", "-b", "127.0.0.1:0,name=web", "--reexec-as", RUBYS, *arguments],
        ["sleep", "1000", *words] if not words else ["sh", "-c", "exec sleep 1000", *words],
    )
    before = pool.wait_state(lambda s: s["workers"])
    (_, last) = upgrade(pool, "upgrade", "--to-ruby")
    assert last == f"Could not start the upgrade: --to-ruby: Ruby's Einhorn has no {why}"
    after = pool.state_json()
    assert is_ours(pool) and not after["upgrading"]
    assert [after[key] for key in ("master", "generation")] == [
        before[key] for key in ("master", "generation")
    ]


def test_an_upgrade_of_ours_does_not_wait_for_rubys(make_pool):
    """--reexec-as names Ruby's, and nobody has said --to-ruby: the check finds it out at once."""
    pool = make_pool(["-n", "1", "-m", "0.05", "-b", "127.0.0.1:0", "--reexec-as", RUBYS])
    pool.wait_ready(1)
    master = pool.master_pid
    begun = time.monotonic()
    last = upgrade(pool)[-1]
    assert time.monotonic() - begun < 20
    assert last.startswith("Could not start the upgrade: ")
    assert last.endswith("if --reexec-as names Ruby's Einhorn, say --to-ruby")
    assert pool.master_pid == master and is_ours(pool)
    assert upgrade(pool, "upgrade", "--to-ruby")[-1] == "Upgrade done" and not is_ours(pool)


@pytest.mark.parametrize(
    "script, why",
    [
        ("exit 3", "exited with status 3"),
        ("kill -9 $$", "killed by signal 9"),
        # gone when it is wanted, after the check
        ('{ rm -- "$0"; exit 0; }', "ended before it was ready"),
    ],
)
def test_nothing_happens_when_it_is_not_able_to(start_leaving, script, why):
    pool = start_leaving(script)
    before = pool.state_json()
    said = upgrade(pool, "upgrade", "--to-ruby")
    assert said[-1].startswith("Could not start the upgrade") and why in said[-1]
    after = pool.wait_state(lambda s: not s["upgrading"])
    for key in ("guard", "master", "version", "generation"):
        assert after[key] == before[key]
    assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
    assert pool.load.stop()["failures"] == 0
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


def test_an_exec_that_fails_too_late(start_leaving):
    """The master has left already: another one of ours goes on, and makes the upgrade."""
    pool = start_leaving('{ printf "#!/missing\\n" >"$0"; exit 0; }')
    pid = pool.process.pid
    said = upgrade(pool, "upgrade", "--to-ruby")
    assert said[-1] == "Upgrade done"
    pool.wait_log(r"ERROR: Could not become .*: exec .*No such file")
    state = pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    assert state["guard"] == pid and is_ours(pool)
    pool.wait_ready(2)
    assert pool.load.stop()["failures"] == 0
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()
