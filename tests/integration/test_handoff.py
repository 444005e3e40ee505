"""Every upgrade and every reload starts a new master beside the old one; whatever happens to
either, the pool serves and whoever asked is told."""

import os
import re
import signal
import time

import pytest
from harness import descendants, einhorn_command, wait_until
from harness.processes import environment_of, kill_exactly, read_stat
from harness.upgrades import Watch, ask, messages, read_last, settled, upgrade
from harness.wire import Closed, decode, encode

ABORTED = "Can not initiate einhorn master reload safely, aborting: "


@pytest.fixture
def start(make_pool):
    def make(number=2, args=(), worker="http_worker --ack=path", **kwargs):
        words = ["-n", number, "-m", "manual", "-b", "127.0.0.1:0", *args]
        pool = make_pool(words, worker, **kwargs)
        pool.wait_ready(number)
        return pool

    return make


def write_script(path, text):
    """An executable script, put in its place at once."""
    unfinished = path.with_suffix(".new")
    unfinished.write_text("#!/bin/sh\n" + text.replace("EINHORN", " ".join(einhorn_command())))
    unfinished.chmod(0o755)
    os.replace(unfinished, path)


def stack_of(pid):
    """Where a process's stack starts: the same for a child that was not exec'd yet."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[25]
    except (FileNotFoundError, ProcessLookupError):
        return None


def masters(pool):
    """Stats of the guard's children that are masters, or checks or wrappers on their way."""
    found = {}
    for stat in descendants(pool.process.pid):
        if stat.ppid == pool.process.pid and stat.state != "Z" and stat.name != "http_worker":
            found.setdefault(stack_of(stat.pid), stat)
    return sorted(found.values(), key=lambda stat: stat.start_time)


# --- how it goes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["upgrade", "upgrade_fleet", "reload", "HUP"])
def test_a_new_master_beside_the_old_one(start, how):
    pool = start()
    before = pool.state_json()
    workers = set(pool.pids())
    if how == "HUP":
        pool.send(signal.SIGHUP)
    else:
        pool.command(how, id=1)
    after = pool.wait_state(lambda s: s["master"] != before["master"])
    assert after["guard"] == before["guard"] == pool.process.pid
    assert after["generation"] == before["generation"] + 1
    assert read_stat(after["master"]).ppid == pool.process.pid
    wait_until(lambda: read_stat(before["master"]) is None, what="the old master's end")
    pool.wait_log(r"Reloading einhorn master \(.+\)\.\.\.")
    if how == "reload":
        assert set(pool.pids()) == workers and after["version"] == 0
    else:
        pool.wait_state(settled(1, 2))
    with open(pool.path("pid"), encoding="utf-8") as file:
        assert file.read() == str(pool.process.pid)


def test_reexec_as_gives_directory_and_environment(start, tmp_path):
    """A wrapper that changes to a release directory by its link: what the new master finds there is
    what the new version gets."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    script = tmp_path / "wrapper"
    text = f'cd {link}\nFROM_WRAPPER=$(pwd -P)\nexport FROM_WRAPPER\nexec EINHORN "$@"\n'
    write_script(script, text)
    env = {"KEPT": "yes", "DROPPED": "no", "FROM_WRAPPER": "nobody"}
    args = ["--reexec-as", str(script), "--drop-env-var", "DROPPED"]
    pool = start(args=args, env=env)
    for pid in pool.pids():
        assert environment_of(pid)["DROPPED"] == "no"
        assert os.readlink(f"/proc/{pid}/cwd") == str(pool.dir)
    for version, name in ((1, "one"), (2, "two")):
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        assert messages(upgrade(pool))[-1] == "Upgrade done"
        pool.wait_state(settled(version, 2))
        for pid in pool.pids():
            seen = environment_of(pid)
            assert seen["KEPT"] == "yes" and "DROPPED" not in seen
            assert seen["FROM_WRAPPER"] == str(tmp_path / name)
            assert os.readlink(f"/proc/{pid}/cwd") == str(tmp_path / name)
    pool.wait_log(r"Reloading einhorn master \(wrapper\)\.\.\.")
    assert pool.guard_pid == pool.process.pid


# --- a new master that fails ----------------------------------------------------------------------

CHECK_FAILS = [
    pytest.param("exit 3\n", r"the check \(--upgrade-check\) exited with status 3", id="status"),
    pytest.param(
        "kill -KILL $$\n", r"the check \(--upgrade-check\) was killed by signal 9", id="signal"
    ),
]
# Passes the check with einhorn's own help, then does something else.
MASTER_FAILS = 'case " $* " in *" --upgrade-check "*) exec EINHORN "$@";; esac\n'
MASTERS = [
    pytest.param(MASTER_FAILS + "exit 1\n", id="exits"),
    pytest.param(MASTER_FAILS + "exit 0\n", id="exits-with-0"),
    pytest.param(MASTER_FAILS + "kill -SEGV $$\n", id="crashes"),
]


def stays_and_recovers(pool, make_load, script, reason, during=lambda: None):
    """One upgrade that can't be started, while everything serves; then one that can."""
    load = make_load(pool.address, connections=4, rate=300)
    load.wait_ok(20)
    before, workers = pool.master_pid, set(pool.pids())
    mark = pool.log_size()
    with pool.client(timeout=30) as client:
        ask(client)
        during()
        last = read_last(client)[-1]
    assert last["status"] == "could_not_start"
    assert re.search("Could not start the upgrade: .*" + reason, last["message"]), last
    assert re.search("ERROR: .*" + reason, pool.log(mark))
    state = pool.state_json()
    assert (state["version"], state["master"], state["upgrading"]) == (0, before, False)
    assert set(pool.pids()) == workers
    write_script(script, 'exec EINHORN "$@"\n')
    assert messages(upgrade(pool))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 2))
    assert pool.master_pid != before
    assert load.stop()["failures"] == 0


@pytest.mark.parametrize("text, reason", CHECK_FAILS)
def test_the_check_fails(start, make_load, tmp_path, text, reason):
    script = tmp_path / "wrapper"
    write_script(script, text)
    pool = start(args=["--reexec-as", str(script)])
    stays_and_recovers(pool, make_load, script, re.escape(ABORTED) + reason)


@pytest.mark.parametrize("text", MASTERS)
def test_the_new_master_ends(start, make_load, tmp_path, text):
    script = tmp_path / "wrapper"
    write_script(script, text)
    pool = start(args=["--reexec-as", str(script)])
    stays_and_recovers(
        pool, make_load, script, re.escape(ABORTED) + "the new master ended before it was ready"
    )


@pytest.mark.parametrize(
    "text, reason",
    [
        ("exec sleep 120\n", "was killed by signal 9"),
        (MASTER_FAILS + "exec sleep 120\n", "the new master ended before it was ready"),
    ],
    ids=["check", "master"],
)
def test_who_hangs_holds_nobody_up(start, make_load, tmp_path, text, reason):
    """Commands are answered, workers are replaced; until the end of the one that hangs, which is
    ours here (it has 30 s for the check, 60 s to come up)."""
    script = tmp_path / "wrapper"
    write_script(script, text)
    pool = start(args=["--reexec-as", str(script)])

    def end_it():
        (hanging,) = wait_until(lambda: [s for s in masters(pool) if s.name == "sleep"])
        assert pool.command("inc") and pool.command("dec")
        pool.wait_ready(2)
        kill_exactly(hanging)

    # The number goes up and down, so the workers are not the same: only who acts is compared.
    load = make_load(pool.address, connections=4, rate=300)
    load.wait_ok(20)
    before = pool.master_pid
    with pool.client(timeout=30) as client:
        ask(client)
        end_it()
        last = read_last(client)[-1]
    assert last["status"] == "could_not_start" and reason in last["message"], last
    assert pool.master_pid == before and pool.state_json()["version"] == 0
    write_script(script, 'exec EINHORN "$@"\n')
    assert messages(upgrade(pool))[-1] == "Upgrade done"
    assert load.stop()["failures"] == 0


def test_reexec_as_something_that_is_not_there(start, make_load, tmp_path):
    script = tmp_path / "wrapper"
    write_script(script, 'exec EINHORN "$@"\n')
    pool = start(args=["--reexec-as", str(script)])
    script.unlink()
    stays_and_recovers(pool, make_load, script, "wrapper")


def test_reload_that_fails_changes_nothing(start, tmp_path):
    script = tmp_path / "wrapper"
    write_script(script, "exit 3\n")
    pool = start(args=["--reexec-as", str(script)])
    before = pool.master_pid
    assert pool.command("reload", id=1) == "Reloading, as commanded"
    pool.wait_log(re.escape(ABORTED) + r"the check \(--upgrade-check\) exited with status 3")
    assert pool.master_pid == before


# --- kill -9 --------------------------------------------------------------------------------------


def kill_at(pool, old, victim, delay):
    """SIGKILL to the old master, or to the newest process beside it, `delay` after now. False:
    there was nobody."""
    due = time.monotonic() + delay
    wait_until(lambda: time.monotonic() >= due)
    found = [s for s in masters(pool) if (s.pid == old) == (victim == "old")]
    for stat in found[-1:]:
        kill_exactly(stat)
    return bool(found)


def stages(ends):
    """Delays: every 4 ms at first, then further apart, until an upgrade was through before the kill."""
    delay = 0.0
    while delay < 0.056 or ("ok" not in ends and delay < 10):
        yield delay
        delay += 0.004 if delay < 0.056 else delay / 4


@pytest.mark.parametrize("victim", ["old", "new"])
def test_killed_at_every_stage(start, make_load, victim):
    """The upgrade comes to its end or is refused; who asked is told; all workers are of one version
    and no request is lost."""
    pool = start(args=["--max-unacked", "1"], worker="http_worker --ack=path --ack-delay-ms=10")
    load = make_load(pool.address, connections=8, rate=400)
    load.wait_ok(20)
    ends = []
    with Watch(pool) as watch:
        for delay in stages(ends):
            state = pool.state_json()
            with pool.client(timeout=30) as client:
                ask(client)
                first = decode(client.read_line())
                assert first["message"] == "Upgrading smoothly, as commanded"
                kill_at(pool, state["master"], victim, delay)
                last = read_last(client)[-1]
            ends.append(last["status"])
            assert last["status"] in ("ok", "could_not_start"), last
            wanted = state["version"] + (last["status"] == "ok")
            after = pool.wait_state(
                lambda s: not s["upgrading"]
                and [w["state"] for w in s["workers"]] == ["ready"] * 2
                and len({w["version"] for w in s["workers"]}) == 1
            )
            assert after["version"] >= wanted and after["guard"] == pool.process.pid
            wait_until(lambda: len(masters(pool)) == 1, what="one master")
    assert watch.fewest_ready() >= 2
    assert "ok" in ends, ends
    if victim == "old":
        assert set(ends) == {"ok"}, "it had been written down"
    assert load.stop()["failures"] == 0


def test_who_asked_is_told_after_the_masters_death(start, tmp_path):
    """kill -9 in the middle of the upgrade itself, twice."""
    options = tmp_path / "options"
    options.write_text("--ack=path\n")
    pool = start(worker=["http_worker", f"--options-file={options}"])
    options.write_text("--ack=path\n--ack-delay-ms=800\n")
    with pool.client(timeout=30) as client, pool.client(timeout=30) as other:
        ask(client, number="a")
        ask(other, number="b")
        pool.wait_state(lambda s: any(w["version"] >= 1 for w in s["workers"]))
        # At once: a worker that starts now must find the one or the other, not an empty file.
        (tmp_path / "new").write_text("--ack=path\n")
        (tmp_path / "new").replace(options)
        pool.kill_master()
        pool.kill_master()
        for asked, number in ((client, "a"), (other, "b")):
            replies = read_last(asked)
            assert replies[-1]["message"] == "Upgrade done" and replies[-1]["status"] == "ok"
            assert {reply["request_id"] for reply in replies} == {number}
    assert all(w["version"] == pool.state_json()["version"] for w in pool.wait_ready(2))


def test_upgrades_asked_for_during_a_hand_off_are_one(start):
    """Each would begin a version of its own at once, and only the last one would ever run."""
    pool = start()
    with pool.client(timeout=20) as client:
        asked = [encode({"command": "upgrade", "id": i}, "json") for i in range(5)]
        client.send_line(b"".join(asked))
        pool.wait_state(settled(1, 2))
        client.send_line(encode({"command": "ehlo", "user": "me", "id": "last"}, "json"))
        answers = {}
        while "last" not in answers:
            reply = decode(client.read_line())
            answers.setdefault(reply["request_id"], []).append(reply)
    assert set(answers) == {0, 1, 2, 3, 4, "last"}
    assert not any("starting over" in line for line in messages(sum(answers.values(), [])))


# --- connections ----------------------------------------------------------------------------------


def test_idle_connections_survive(start):
    pool = start()
    clients = [pool.client() for _ in range(8)]
    halves = encode({"command": "ehlo", "user": "half", "id": 1}, "json")
    for number, client in enumerate(clients):
        client.request({"command": "ehlo", "user": "me", "id": number})
    clients[0].send_line(halves[:20])
    for command in ("reload", "upgrade"):
        before = pool.master_pid
        pool.command(command, id=1)
        pool.wait_state(lambda s: s["master"] != before)
    clients[0].send_line(halves[20:])
    assert "half" in decode(clients[0].read_line())["message"], "its first half was kept"
    for number, client in enumerate(clients[1:]):
        reply = client.request({"command": "ehlo", "user": "still", "id": number}, "yaml")
        assert reply["request_id"] == number
    for client in clients:
        client.close()


def test_a_connection_that_never_said_a_word_survives(start):
    pool = start()
    with pool.client() as silent:
        before = pool.master_pid
        pool.command("reload", id=1)
        pool.wait_state(lambda s: s["master"] != before)
        assert silent.request({"command": "ehlo", "user": "now", "id": 1})["request_id"] == 1


def test_pipelined_requests_behind_a_reload_are_answered_in_order(start):
    pool = start()
    before = pool.master_pid
    with pool.client(timeout=20) as client:
        lines = [encode({"command": "reload", "id": 0}, "json")]
        lines += [
            encode({"command": "ehlo", "user": f"u{i}", "id": i}, "json") for i in range(1, 300)
        ]
        client.send_line(b"".join(lines))
        for i in range(300):
            assert decode(client.read_line())["request_id"] == i
        pool.wait_state(lambda s: s["master"] != before)
        client.send_line(b"".join(lines[1:]))
        for i in range(1, 300):
            assert decode(client.read_line())["request_id"] == i


def test_requests_all_the_time_while_masters_change(start):
    """One connection asks on and on through five reloads: every answer comes, once and in order."""
    pool = start()
    with pool.client(timeout=20) as client:
        number = 0
        for _ in range(5):
            before = pool.master_pid
            pool.command("reload", id=1)

            def changed():
                nonlocal number
                number += 1
                reply = client.request({"command": "ehlo", "user": "x", "id": number})
                assert reply["request_id"] == number
                return pool.master_pid != before

            wait_until(changed)
        with pytest.raises((Closed, TimeoutError)):
            client.socket.settimeout(0.1)
            client.read_line()
