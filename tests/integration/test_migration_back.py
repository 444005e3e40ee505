"""A pool of ours becomes Ruby's in the same pid, and ours again; or stays ours, if Ruby's Einhorn
can't take over. No request is lost."""

import os
import signal
import time

import pytest
from harness.migration import (
    OURS,
    RUBYS,
    SHAPES,
    address,
    check_whole,
    is_ours,
    ports,
    switch,
    upgrade,
    wait_children,
)
from harness.processes import open_descriptors


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
