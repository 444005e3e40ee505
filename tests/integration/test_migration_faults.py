"""What may go wrong while a pool of Ruby's Einhorn becomes ours: states that are not as we know
them, workers and clients that die in between, signals, upgrades under way."""

import re
import signal
import sys

import pytest
from harness import Pool, http_get, is_alive, wait_until
from harness.migration import (
    OURS,
    RUBYS,
    STAND_IN,
    address,
    check_whole,
    is_ours,
    ports,
    ruby_children,
    ruby_command,
    start_ruby,
    switch,
    upgrade,
    wait_children,
)
from harness.wire import Closed, decode, encode

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
