"""Upgrades that fail: the old version serves at its full number all the time, everybody is told
why, and the next upgrade works. And the way back by hand."""

import os
import re
import shutil
import signal

import pytest
from harness import load_yaml, worker
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

SERVER = '#!/bin/sh\nexec "{worker}" --options-file=options\n'


@pytest.fixture
def start(make_pool):
    """start(number, args): each release has its own ./server. `-s` keeps the pauses between failing
    workers short."""

    def make(number=3, args=(), options=()):
        words = ["-n", number, "-m", "manual", "-s", "0.02", "-b", "127.0.0.1:0"]
        words += ["--chdir", "@DIR@/current", *args]
        pool = make_pool(words, ["./server"], start=False)
        pool.releases = Releases(pool.dir)
        release(pool, "r0", *options)
        pool.start().wait_ready(number)
        return pool

    return make


def release(pool, label, *options, ack="--ack=path", server=SERVER):
    pool.releases.add(label, *options, ack=ack)
    path = pool.releases.path(label) / "server"
    path.write_text(server.format(worker=worker("http_worker")))
    path.chmod(0o755)
    return path


def works_again(pool, number=3):
    """After all that, a good release is upgraded to as if nothing had been."""
    release(pool, "good")
    assert messages(upgrade(pool))[-1] == "Upgrade done"
    newest = pool.state_json()["newest_version"]
    state = pool.wait_state(settled(newest, number))
    assert state["version"] == newest and state["failure"] is None
    assert set(labels(pool).values()) == {"good"}


def crash_at_start(pool):
    release(pool, "r1", "--exit-at-start=7")


def crash_by_signal(pool):
    release(pool, "r1", server="#!/bin/sh\nkill -SEGV $$\n")


def crash_after_ack(pool):
    release(pool, "r1", "--exit-after-ms=60", "--exit-code=5")


def never_ack(pool):
    release(pool, "r1", ack=None)


def missing_interpreter(pool):
    release(pool, "r1", server="#!/no/such/interpreter\n")


def no_permission(pool):
    release(pool, "r1").chmod(0o644)


def no_executable(pool):
    release(pool, "r1", server="\x7fELF not really")


FAILURES = [
    pytest.param(crash_at_start, [], r"exited with status 7 before it was ACKed", id="crash"),
    pytest.param(
        crash_by_signal, [], r"was killed by signal 11 \(SEGV\)(, core dumped)? before", id="signal"
    ),
    pytest.param(
        crash_after_ack,
        ["--canary-seconds", "0.5"],
        r"exited with status 5 after its ACK",
        id="ack-then-crash",
    ),
    pytest.param(
        never_ack,
        ["--ack-timeout", "0.25", "--upgrade-failures", "2"],
        r"did not ACK within \d+",
        id="never-ack",
    ),
    pytest.param(
        missing_interpreter, [], r"exec .*server: No such file or directory", id="interpreter"
    ),
    pytest.param(no_permission, [], r"exec .*server: Permission denied", id="permission"),
    pytest.param(no_executable, [], r"exec .*server: Exec format error", id="format"),
]


@pytest.mark.parametrize("command", ["upgrade", "upgrade_fleet"])
@pytest.mark.parametrize("prepare, args, reason", FAILURES)
def test_a_version_that_fails(start, make_load, prepare, args, reason, command):
    pool = start(3, args)
    old = set(pool.pids())
    load = make_load(pool.address, connections=8, rate=500)
    load.wait_ok(50)
    prepare(pool)
    mark = pool.log_size()
    with Watch(pool) as watch:
        replies = upgrade(pool, command)
        state = pool.wait_state(settled(0, 3))
    assert watch.fewest_ready() >= 3
    assert set(pool.pids()) == old, "they were never touched"
    # The reason, wherever somebody may look for it.
    told = "\n".join(messages(replies))
    assert replies[-1]["message"] == "Upgrade failed; rolled back to version 0"
    assert replies[-1]["status"] == "failed" and "wait" not in replies[-1]
    failures = 2 if "--upgrade-failures" in args else 3
    headline = f"Upgrade to version 1 failed: {failures} new workers failed."
    assert f"ERROR: {headline}" in told and f"ERROR: {headline}" in pool.log(mark)
    assert len(re.findall(rf"ERROR:   (worker \d+ .*)?{reason}", told)) == failures, told
    assert len(re.findall(rf"ERROR:   (worker \d+ .*)?{reason}", pool.log(mark))) == failures
    assert "Rolling back from version 1 to version 0..." in told
    assert "Rolled back to version 0." in told
    assert state["failure"].startswith("upgrade to version 1 failed: ")
    assert sum(bool(re.search(reason, part)) for part in state["failure"].split("; ")) == failures
    assert load_yaml(pool.command("state", language="yaml"))[":state"][":failure"] == (
        state["failure"]
    )
    assert "last failure: upgrade to version 1 failed" in pool.command("status")
    assert state["newest_version"] == 1 and state["failed"] is False
    works_again(pool)
    result = load.stop()
    if prepare is not crash_after_ack:  # that one takes requests and drops them
        assert result["failures"] == 0, result


def vanish(pool):
    os.unlink(pool.dir / "current")


def dangle(pool):
    pool.releases.switch("nowhere")


def no_directory(pool):
    (pool.dir / "file").write_text("")
    pool.releases.switch("file")


def missing_program(pool):
    release(pool, "r1").unlink()


def program_is_a_directory(pool):
    path = release(pool, "r1")
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "prepare, reason",
    [
        (vanish, r"current: No such file or directory"),
        (dangle, r"current: No such file or directory"),
        (no_directory, r"(current|file).*: Not a directory"),
        (missing_program, r"Could not find \./server: there is no /\S*/r1/server"),
        (program_is_a_directory, r"Could not find \./server: /\S*/r1/server is no file"),
    ],
)
def test_an_upgrade_that_could_not_start(start, make_load, prepare, reason):
    """Found out before anything has happened: there is no new version at all."""
    pool = start(3)
    old = set(pool.pids())
    load = make_load(pool.address, connections=8, rate=500)
    load.wait_ok(50)
    prepare(pool)
    with Watch(pool) as watch:
        replies = upgrade(pool)
    assert replies[-1]["status"] == "could_not_start"
    assert re.search(rf"Could not start the upgrade: .*{reason}", replies[-1]["message"])
    assert re.search(rf"ERROR: Could not start the upgrade: .*{reason}", pool.log())
    assert watch.fewest_ready() == 3 and set(pool.pids()) == old
    state = pool.state_json()
    assert (state["version"], state["newest_version"], state["upgrading"]) == (0, 0, False)
    works_again(pool)
    assert load.stop()["failures"] == 0


def test_could_not_start_by_signal_is_in_the_log(start):
    pool = start(2)
    vanish(pool)
    pool.send(signal.SIGHUP)
    pool.wait_log(r"ERROR: Could not start the upgrade: .*current")
    assert pool.state_json()["version"] == 0
    works_again(pool, 2)


@pytest.mark.parametrize("what", ["program", "directory"])
def test_what_vanishes_in_the_middle(start, make_load, what):
    """The first new worker is up; then the release goes. The first one has to go too, and what it
    had replaced comes back."""
    pool = start(3, ["--max-unacked", "1", "--ack-timeout", "2"])
    load = make_load(pool.address, connections=8, rate=500)
    load.wait_ok(50)
    path = release(pool, "r1", "--ack-delay-ms=150")
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        ask(client)
        pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["proved"])
        if what == "program":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        replies = read_last(client)
        assert replies[-1]["status"] == "failed"
        pool.wait_state(settled(0, 3))
    assert re.search(r"ERROR:   worker .*: No such file or directory", "\n".join(messages(replies)))
    assert watch.fewest_ready() >= 3
    works_again(pool)
    assert load.stop()["failures"] == 0


def test_failing_after_the_proof(start):
    """The canary is fine, the one behind it is not: what has been replaced is filled up again, from
    the old version's own directory, before the canary goes."""
    pool = start(4, ["--max-unacked", "1", "--upgrade-failures", "1"], ["--drain-delay-ms=1000"])
    release(pool, "r1", "--exit-at-start=3", "--only-index=5", "--drain-delay-ms=1")
    with Watch(pool) as watch:
        replies = upgrade(pool)
        assert replies[-1]["status"] == "failed"
        pool.wait_state(settled(0, 4))
    assert "Version 1 has proved itself with 1 worker; the rest follows." in messages(replies)
    assert watch.fewest_ready() >= 4
    assert set(labels(pool).values()) == {"r0"}
    works_again(pool, 4)


def test_upgrade_failures_of_one(start):
    pool = start(2, ["--upgrade-failures", "1"])
    crash_at_start(pool)
    assert "ERROR: Upgrade to version 1 failed: 1 new workers failed." in messages(upgrade(pool))
    assert pool.count_log(r"===> Launched") == 3


def test_upgrade_failures_of_none_never_gives_up(start):
    pool = start(2, ["--upgrade-failures", "0"])
    crash_at_start(pool)
    with pool.client(timeout=30) as client:
        ask(client)
        pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["failures"] >= 5)
        pool.releases.write("r1")
        assert messages(read_last(client))[-1] == "Upgrade done"


def test_upgrade_timeout(start):
    pool = start(3, ["--upgrade-timeout", "0.4"])
    old = set(pool.pids())
    never_ack(pool)
    with Watch(pool) as watch:
        replies = upgrade(pool)
        pool.wait_state(settled(0, 3))
    assert replies[-1]["status"] == "failed"
    assert any("failed: it was not over within" in text for text in messages(replies))
    assert watch.fewest_ready() == 3 and set(pool.pids()) == old
    assert "not over within" in pool.state_json()["failure"]
    works_again(pool)


def test_upgrade_timeout_of_one_that_is_half_through(start):
    pool = start(4, ["--upgrade-timeout", "0.5", "--max-unacked", "1"])
    release(pool, "r1", "--ack-delay-ms=200")
    with Watch(pool) as watch:
        assert upgrade(pool)[-1]["status"] == "failed"
        pool.wait_state(settled(0, 4))
    assert watch.fewest_ready() >= 4
    assert max(watch.counts("ready", version=1)) >= 1


def test_upgrade_timeout_is_no_concern_of_one_in_time(start):
    pool = start(2, ["--upgrade-timeout", "1"])
    works_again(pool, 2)
    stays_true(lambda: pool.state_json()["version"] == 1, 1.1)
    assert pool.state_json()["failure"] is None


# --- canaries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["upgrade", "upgrade_fleet"])
def test_no_more_than_the_canaries_before_the_proof(start, command):
    pool = start(4, ["--canary", "2", "--canary-seconds", "0.4", "--max-unacked", "4"])
    old = set(pool.pids())
    release(pool, "r1")
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        ask(client, command)
        pool.wait_log(r"Version 1 has proved itself with 2 workers; the rest follows\.")
        replies = read_last(client)
    assert messages(replies)[-1] == "Upgrade done"
    unproved = [s for s in watch.states if s["upgrade"] and not s["upgrade"]["proved"]]
    assert max(sum(w["version"] == 1 for w in s["workers"]) for s in unproved) == 2
    assert all(old <= {w["pid"] for w in s["workers"] if w["state"] == "ready"} for s in unproved)
    assert len(unproved) > 10
    pool.wait_state(settled(1, 4))


def test_a_canary_has_to_stay_up(start):
    """It dies within its time, again and again: nobody of the old ones was ever touched."""
    pool = start(3, ["--canary-seconds", "5"])
    old = set(pool.pids())
    release(pool, "r1", "--exit-after-ms=100")
    assert upgrade(pool)[-1]["status"] == "failed"
    assert "has proved itself" not in pool.log()
    pool.wait_state(settled(0, 3))
    assert set(pool.pids()) == old


def test_more_canaries_than_workers(start):
    pool = start(2, ["--canary", "9"])
    works_again(pool, 2)
    assert "proved itself with 2 workers" in pool.log()


def test_without_canaries_a_failing_version_goes_back_too(start):
    pool = start(3, ["--canary", "0"])
    crash_at_start(pool)
    with Watch(pool) as watch:
        assert upgrade(pool, "upgrade_fleet")[-1]["status"] == "failed"
        pool.wait_state(settled(0, 3))
    assert watch.fewest_ready() == 3
    works_again(pool)


def test_the_proof_survives_the_masters_death(start):
    """A canary's time goes on in the next master."""
    pool = start(2, ["--canary-seconds", "0.6"])
    release(pool, "r1")
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: any(w["version"] == 1 and w["acked"] for w in s["workers"]))
    pool.kill_master()
    assert pool.state_json()["upgrade"]["proved"] is False
    pool.wait_log("Version 1 has proved itself")
    pool.wait_state(settled(1, 2))


def test_the_failure_survives_the_masters_death(start):
    pool = start(2, ["--upgrade-failures", "1"])
    crash_at_start(pool)
    upgrade(pool)
    failure = pool.state_json()["failure"]
    pool.kill_master()
    assert failure and pool.state_json()["failure"] == failure
    works_again(pool, 2)


# --- as upstream does it --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["upgrade", "upgrade_fleet"])
def test_no_rollback(start, command):
    """It goes on with the new version, however often it fails; the old ones serve until then."""
    pool = start(2, ["--upgrade-failures", "1"])
    old = set(pool.pids())
    crash_at_start(pool)
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        client.send_line(b'{"command":"%s","args":["--no-rollback"],"id":1}\n' % command.encode())
        state = pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["failures"] >= 4)
        assert old <= {w["pid"] for w in state["workers"] if w["state"] == "ready"}
        assert "Rolling back" not in pool.log()
        pool.releases.write("r1")
        assert messages(read_last(client))[-1] == "Upgrade done"
        pool.wait_state(settled(1, 2))
    assert watch.fewest_ready() >= 2


def test_no_rollback_can_be_rolled_back_by_hand(start):
    pool = start(2)
    crash_at_start(pool)
    with pool.client(timeout=30) as client:
        client.send_line(b'{"command":"upgrade","args":["--no-rollback"],"id":1}\n')
        pool.wait_state(lambda s: s["upgrade"] and s["upgrade"]["failures"] >= 4)
        done = shell(pool, "-e", "rollback")
        assert read_last(client)[-1]["status"] == "failed"
    assert "Rolled back to version 0." in done.stdout
    pool.wait_state(settled(0, 2))
    assert "rolled back by hand" in pool.state_json()["failure"]
    works_again(pool, 2)


# --- by hand --------------------------------------------------------------------------------------


def test_by_hand_there_and_back(start, make_load):
    """The previous version, from its own directory; and again: then it is the newer one."""
    pool = start(3)
    load = make_load(pool.address, connections=8, rate=500)
    release(pool, "r1")
    upgrade(pool)
    pool.releases.switch("r0")
    with Watch(pool) as watch:
        for version in (0, 1, 0):
            done = shell(pool, "-e", "rollback")
            assert done.returncode == 0, done
            lines = done.stdout.splitlines()
            assert lines[0] == "Rolling back, as commanded" and lines[-1] == "Rollback done"
            assert f"Rolled back to version {version}." in lines
            state = pool.wait_state(settled(version, 3))
            assert state["failure"] is None
            assert set(labels(pool).values()) == {f"r{version}"}
            load.wait_more(20)
    assert watch.fewest_ready() >= 3
    assert load.stop()["failures"] == 0
    works_again(pool)
    assert pool.state_json()["version"] == 2, "a number is used once"
    assert shell(pool, "-e", "rollback").returncode == 0
    pool.wait_state(settled(0, 3))


def test_by_hand_without_a_previous_version(start):
    pool = start(2)
    done = shell(pool, "-e", "rollback")
    assert done.returncode == 1
    assert done.stdout == "Can't roll back: there is no version before this one\n"
    crash_at_start(pool)
    upgrade(pool)
    assert shell(pool, "-e", "rollback").returncode == 1, "a failed one is no version to go to"


def test_by_hand_in_the_middle_of_an_upgrade(start):
    """Whoever asked for the upgrade is told that it failed, and why."""
    pool = start(3)
    never_ack(pool)
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        ask(client)
        pool.wait_state(lambda s: any(w["version"] == 1 for w in s["workers"]))
        done = shell(pool, "-e", "rollback")
        replies = read_last(client)
        pool.wait_state(settled(0, 3))
    assert "ERROR: Upgrade to version 1 failed: rolled back by hand." in messages(replies)
    assert replies[-1]["status"] == "failed"
    assert "Rolled back to version 0." in done.stdout
    assert watch.fewest_ready() >= 3
    works_again(pool)


def test_a_roll_back_under_way_is_not_started_again(start):
    pool = start(3, ["--max-unacked", "1"], ["--ack-delay-ms=250"])
    release(pool, "r1")
    upgrade(pool)
    with pool.client(timeout=30) as client:
        ask(client, "rollback")
        pool.wait_state(lambda s: s["upgrading"])
        done = shell(pool, "-e", "rollback")
        assert done.returncode == 1
        assert "a roll-back is already under way" in done.stdout
        assert messages(read_last(client))[-1] == "Rollback done"


def test_an_upgrade_in_the_middle_of_a_roll_back(start):
    pool = start(3, ["--max-unacked", "1"], ["--ack-delay-ms=250"])
    release(pool, "r1")
    upgrade(pool)
    with Watch(pool) as watch, pool.client(timeout=30) as client:
        ask(client, "rollback")
        pool.wait_state(lambda s: s["upgrading"])
        release(pool, "r2")
        assert messages(upgrade(pool))[-1] == "Upgrade done"
        read_last(client)
        pool.wait_state(settled(2, 3))
    assert watch.fewest_ready() >= 3


@pytest.mark.parametrize("number", [1, 3])
def test_by_hand_to_a_version_that_is_gone(start, make_load, number):
    """Its directory has been tidied away: the pool stays with what serves."""
    pool = start(number)
    release(pool, "r1")
    upgrade(pool)
    pool.wait_state(settled(1, number))
    serving = set(pool.pids())
    load = make_load(pool.address, connections=4, rate=300)
    load.wait_ok(20)
    shutil.rmtree(pool.releases.path("r0"))
    with Watch(pool) as watch:
        done = shell(pool, "-e", "rollback")
        assert done.returncode == 1, done
        assert re.search(r"r0.*No such file or directory", done.stdout)
        stays_true(lambda: serving <= set(pool.pids()), 0.5)
    assert watch.fewest_ready() >= number
    load.wait_more(20)
    assert load.stop()["failures"] == 0
    works_again(pool, number)


def test_the_old_version_is_gone_when_the_new_one_fails(start):
    """Neither comes up: who serves goes on serving, and the pool tries on."""
    pool = start(3, ["--max-unacked", "1", "--upgrade-failures", "2"], ["--drain-delay-ms=1500"])
    release(pool, "r1", "--exit-at-start=3", "--only-index=4")
    shutil.rmtree(pool.releases.path("r0"))
    replies = upgrade(pool)
    assert replies[-1]["status"] == "failed", replies
    assert any("fail as well" in text for text in messages(replies))
    ready = [w for w in pool.workers() if w["state"] == "ready"]
    assert len(ready) >= 3, "nobody was stopped for whom there is no replacement"
    stays_true(lambda: sum(w["state"] == "ready" for w in pool.workers()) >= 3, 0.5)
    works_again(pool)
