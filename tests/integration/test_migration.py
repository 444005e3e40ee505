"""A pool of Ruby's Einhorn becomes ours in the same pid, and no request is lost."""

import os
import signal

import pytest
from harness import http_get, is_alive, wait_until
from harness.migration import (
    OURS,
    SHAPES,
    address,
    check_whole,
    is_ours,
    ports,
    ruby_children,
    ruby_state,
    sockets_of,
    start_ruby,
    upgrade,
    wait_children,
)
from harness.processes import environment_of, open_descriptors


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
