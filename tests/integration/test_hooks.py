"""Hooks: commands before and after what the pool does. What they are told, what waits for them, and
what becomes of it all when they are slow, hang, fail, talk too much or are killed, and when the
master is."""

import json
import os
import re
import signal
import subprocess

import pytest
from harness import einhorn_command, is_alive, wait_until, worker
from harness.events import Events
from harness.upgrades import ask, messages, read_last, settled, shell, upgrade
from harness.waiting import stays_true

HOOKS = [f"{when}-{what}" for when, what in
         [("before", "start"), ("after", "ack"), ("before", "stop"), ("after", "exit"),
          ("before", "upgrade"), ("after", "upgrade")]]

# Notes what it was told, and waits for the file `go-HOOK` if there is one called `hold-HOOK`.
NOTE = """#!/bin/sh
cd "$TMPDIR"
echo "$EINHORN_HOOK index=$EINHORN_HOOK_INDEX version=$EINHORN_HOOK_VERSION\
 pid=$EINHORN_HOOK_PID status=$EINHORN_HOOK_STATUS signal=$EINHORN_HOOK_SIGNAL\
 from=$EINHORN_HOOK_FROM_VERSION result=$EINHORN_HOOK_RESULT" >> told
if [ -e "hold-$EINHORN_HOOK" ]; then
  echo $$ >> "held-$EINHORN_HOOK"
  while [ ! -e "go-$EINHORN_HOOK" ]; do sleep 0.02; done
fi
echo done >> "done-$EINHORN_HOOK"
"""


@pytest.fixture
def hooked(make_pool):
    """A pool in whose directory a script notes what its hooks are told; `hooks`: those with other
    commands."""

    def start(number=1, args=(), hooks=None, only=HOOKS, ready=True, hold=(), **kwargs):
        # An ACK that a dead master had read and not written down is lost (docs/reliability.md).
        words = ["-n", number, "-m", "manual", "--ack-timeout", "8", "-b", "127.0.0.1:0", "-t", "20", *args]
        commands = {hook: "@DIR@/note" for hook in only} | (hooks or {})
        for hook, command in commands.items():
            words += [f"--hook-{hook}", command]
        pool = make_pool(words, ["http_worker", "--ack=path"], start=False, **kwargs)
        path = pool.dir / "note"
        path.write_text(NOTE)
        path.chmod(0o755)
        for hook in hold:
            (pool.dir / f"hold-{hook}").touch()
        pool.start()
        if ready:
            pool.wait_ready(number)
        return pool

    return start


def told(pool, hook=None):
    """What hooks were told, a dict each, in their order."""
    path = pool.dir / "told"
    lines = path.read_text().splitlines() if path.exists() else []
    found = []
    for line in lines:
        name, *words = line.split(" ")
        found.append({"hook": name, **dict(word.split("=", 1) for word in words)})
    return [one for one in found if hook in (None, one["hook"])]


def wait_told(pool, hook, count=1):
    return wait_until(lambda: len(told(pool, hook)) >= count and told(pool, hook), 20, hook)


def held(pool, hook):
    """Pids of hooks that wait."""

    def look():
        path = pool.dir / f"held-{hook}"
        return path.exists() and [int(line) for line in path.read_text().split()]

    return wait_until(look, 20, f"a {hook} hook that waits")


def go(pool, hook):
    (pool.dir / f"go-{hook}").touch()


# --- what they are told ---------------------------------------------------------------------------


def test_every_step_has_its_hook(hooked):
    pool = hooked(2)
    first = {w["index"]: w["pid"] for w in pool.workers()}
    assert messages(upgrade(pool))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 2))
    wait_told(pool, "after-exit", 2)
    wait_told(pool, "after-upgrade")
    assert pool.stop() == 0
    for hook in HOOKS:
        assert (pool.dir / f"done-{hook}").exists(), hook
    start = told(pool, "before-start")
    assert [(s["version"], s["pid"]) for s in start] == [("0", "")] * 2 + [("1", "")] * 2
    assert {s["index"] for s in start[:2]} == {"0", "1"}
    for hook in ("after-ack", "before-stop", "after-exit"):
        old = [(int(t["index"]), int(t["pid"])) for t in told(pool, hook) if t["version"] == "0"]
        assert sorted(old) == sorted(first.items()), hook
        assert len(told(pool, hook)) == 4
    assert {t["status"] for t in told(pool, "after-exit") if t["version"] == "0"} == {"0"}
    assert [(t["from"], t["version"]) for t in told(pool, "before-upgrade")] == [("0", "1")]
    assert [(t["result"], t["version"]) for t in told(pool, "after-upgrade")] == [("ok", "1")]


def test_each_is_an_event(hooked):
    pool = hooked(hooks={"after-ack": "/bin/sleep 0.3", "after-exit": "/bin/false"})
    with Events(pool) as events:
        os.kill(pool.pids()[0], signal.SIGKILL)
        exited = events.wait("hook_ended", hook="after-exit")
        assert exited["ok"] is False and "status 1" in exited["reason"], exited
        acked = events.wait("hook_ended", hook="after-ack", ok=True)
        assert 0.3 <= acked["seconds"] < 30, acked


def test_how_a_worker_ended(hooked):
    pool = hooked()
    os.kill(pool.pids()[0], signal.SIGKILL)
    end = wait_told(pool, "after-exit")[0]
    assert (end["signal"], end["status"]) == ("KILL", "")


def test_their_order_around_a_worker(hooked):
    pool = hooked(args=["-v"])
    os.kill(pool.pids()[0], signal.SIGKILL)
    wait_told(pool, "after-ack", 2)
    names = [t["hook"] for t in told(pool)]
    assert names[:2] == ["before-start", "after-ack"]
    assert sorted(names[2:]) == ["after-ack", "after-exit", "before-start"]


def test_they_stand_where_the_version_lies_and_have_its_variables(hooked):
    pool = hooked(
        args=["--env", "COLOUR=blue", "--chdir", "@DIR@", "--hook-shell"],
        only=(),
        hooks={"before-start": 'pwd; echo "$COLOUR"; echo "$EINHORN_SOCK_PATH"'},
    )
    for text in (pool.dir, "blue", pool.socket_path):
        pool.wait_log(rf"before-start hook of worker 0: {re.escape(str(text))}$")


# --- no shell unless asked ------------------------------------------------------------------------


def test_no_shell_unless_asked(hooked):
    pool = hooked(only=(), hooks={"before-start": "/bin/echo 'one  word' $HOME; exit 1"})
    pool.wait_log(r"before-start hook of worker 0: one  word \$HOME; exit 1$")


def test_a_shell_that_was_asked_for(hooked):
    pool = hooked(
        args=["--hook-shell"],
        only=(),
        hooks={"before-start": 'echo "$EINHORN_HOOK" | tr a-z A-Z; wc -c'},
    )
    pool.wait_log(r"before-start hook of worker 0: BEFORE-START$")
    pool.wait_log(r"before-start hook of worker 0: 0$")  # nothing to read, and no waiting for it


# --- failing --------------------------------------------------------------------------------------


def test_a_start_that_is_refused_is_tried_again(hooked):
    script = 'test -e "$TMPDIR/allowed" || { echo not yet; exit 3; }'
    pool = hooked(
        args=["-s", "0.05", "--hook-shell"], only=(), hooks={"before-start": script}, ready=False
    )
    pool.wait_log(r"Could not launch a worker \(index: 0\): its before-start hook exited with "
                  r"status 3: not yet$")
    pool.wait_log(r"There have been \d+ consecutive unacked worker deaths")
    (pool.dir / "allowed").touch()
    pool.wait_ready(1, deadline=30)


def test_refused_starts_roll_an_upgrade_back(hooked):
    pool = hooked(
        2,
        args=["-s", "0.02", "--hook-shell"],
        only=("after-upgrade",),
        hooks={
            "before-start": 'test "$EINHORN_HOOK_VERSION" = 0 || { echo no room; exit 1; }',
            "after-upgrade": '"$TMPDIR"/note',
        },
    )
    before = sorted(pool.pids())
    said = messages(upgrade(pool))
    assert said[-1] == "Upgrade failed; rolled back to version 0"
    assert any("its before-start hook exited with status 1: no room" in line for line in said)
    pool.wait_state(settled(0, 2))
    assert sorted(pool.pids()) == before
    assert [t["result"] for t in wait_told(pool, "after-upgrade")] == ["rolled-back"]


@pytest.mark.parametrize("how", ["exit", "killed", "missing", "time"])
def test_an_upgrade_that_is_refused(hooked, how):
    command = {
        "exit": "echo the tables are locked; echo by bob >&2; exit 4",
        "killed": "echo the tables are locked; echo by bob; kill -SEGV $$",
        "missing": "",
        "time": "echo the tables are locked; echo by bob; sleep 1000",
    }[how]
    args = ["--hook-shell", "--hook-upgrade-timeout", "0.5"]
    if how == "missing":
        args, command = [], "@DIR@/nowhere"
    pool = hooked(2, args=args, only=(), hooks={"before-upgrade": command})
    before = sorted(pool.pids())
    replies = upgrade(pool)
    last = replies[-1]["message"]
    why = {
        "exit": "exited with status 4",
        "killed": "was killed by signal 11",
        "missing": "can't be started: ",
        "time": "took longer than 0.5 s",
    }[how]
    assert last.startswith("Could not start the upgrade: its before-upgrade hook " + why)
    if how != "missing":
        assert "\n  the tables are locked\n  by bob" in last
    assert replies[-1]["status"] == "could_not_start"
    state = pool.state_json()
    assert state["version"] == 0 and not state["upgrading"] and sorted(pool.pids()) == before
    result = shell(pool, "-e", "upgrade")
    assert result.returncode == 2 and "before-upgrade hook" in result.stdout


@pytest.mark.parametrize("hook", ["after-ack", "before-stop", "after-exit", "after-upgrade"])
def test_all_others_only_warn(hooked, hook):
    pool = hooked(only=(), hooks={hook: "/bin/false"})
    assert messages(upgrade(pool))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 1))
    pool.wait_log(rf"ERROR: {hook} hook.* exited with status 1$")
    assert pool.stop() == 0


# --- slow, hanging, talking -----------------------------------------------------------------------


def test_nobody_waits_while_they_run(hooked):
    pool = hooked(2, hold=HOOKS, ready=False)
    held(pool, "before-start")
    state = pool.wait_state(lambda s: len(s["workers"]) == 2)
    assert {(w["state"], w["hook"], w["pid"]) for w in state["workers"]} == {
        ("spawning", "before-start", None)
    }
    assert "spawning before-start" in pool.command("status")
    go(pool, "before-start")
    pool.wait_ready(2)
    held(pool, "after-ack")
    go(pool, "after-ack")
    with pool.client(timeout=40) as client:
        ask(client)
        held(pool, "before-upgrade")
        assert pool.state_json()["version"] == 0
        go(pool, "before-upgrade")
        held(pool, "before-stop")
        state = pool.state_json()
        waiting = [w for w in state["workers"] if w["hook"] == "before-stop"]
        assert waiting and all(w["signaled"] == [] and w["state"] == "stopping" for w in waiting)
        assert "stopping before-stop" in pool.command("status")
        go(pool, "before-stop")
        assert read_last(client)[-1]["message"] == "Upgrade done"
    held(pool, "after-exit")
    held(pool, "after-upgrade")
    go(pool, "after-exit")
    go(pool, "after-upgrade")
    pool.wait_state(settled(1, 2))
    assert pool.stop() == 0


def test_a_hanging_one_is_ended_with_all_it_started(hooked):
    script = (
        "trap '' TERM; (trap '' TERM; echo $$ > $TMPDIR/hung; while :; do sleep 1; done) &"
        " while :; do sleep 1; done"
    )
    pool = hooked(
        args=["--hook-shell", "--hook-timeout", "0.5"], only=(), hooks={"before-stop": script}
    )
    worker_pid = pool.pids()[0]
    pool.command("upgrade", id=1)
    pool.wait_log(r"before-stop hook of worker 0 took longer than 0.5 s$")
    wait_until(lambda: not is_alive(worker_pid), 10, "its end: its time is up")
    hung = int((pool.dir / "hung").read_text())
    wait_until(lambda: not is_alive(hung), 10, "the end of the hook")
    pool.wait_state(settled(1, 1))
    pool.process.send_signal(signal.SIGQUIT)
    assert pool.wait_exit() == 1
    pool.wait_gone()


def test_kill_counts_from_the_signal(hooked):
    pool = hooked(
        args=["-t", "1", "--stop-signal", "USR1"], only=("before-stop",), hold=["before-stop"]
    )
    pid = pool.pids()[0]
    pool.command("upgrade", id=1)
    held(pool, "before-stop")
    stays_true(lambda: is_alive(pid), 1.5)
    assert pool.count_log(r"KILL") == 0
    go(pool, "before-stop")
    pool.wait_log(r"Sending USR1 to \[" + str(pid))
    pool.wait_state(settled(1, 1), deadline=20)


def test_megabytes_of_output(hooked):
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; " \
             "head -c 20000000 /dev/zero | tr '\\0' x; echo; echo the end"
    pool = hooked(args=["--hook-shell"], only=(), hooks={"before-start": script})
    log = pool.log()
    lines = re.findall(r"before-start hook of worker 0: line (\d+)$", log, re.MULTILINE)
    assert lines == [str(i) for i in range(200)]
    dropped = int(pool.wait_log(r"before-start hook of worker 0 wrote (\d+) bytes more")[1])
    assert dropped > 20_000_000 - 10_000
    assert len(log) < 200_000


def test_strange_bytes_are_made_readable(hooked):
    pool = hooked(
        args=["--hook-shell"], only=(), hooks={"before-start": r"printf 'a\033[31mb\377c'; exit 0"}
    )
    line = pool.wait_log(r"before-start hook of worker 0: (a.*)$")[1]
    assert "\x1b" not in line and line.startswith("a?[31mb")


def test_what_it_leaves_behind_holds_nobody_up(hooked):
    pool = hooked(
        args=["--hook-shell"], only=(), hooks={"before-start": "sleep 600 & echo $!; exit 0"}
    )
    left = int(pool.wait_log(r"before-start hook of worker 0: (\d+)$")[1])
    assert is_alive(left)
    os.kill(left, signal.SIGKILL)


def test_quitting_ends_them(hooked):
    pool = hooked(2, hold=["before-stop", "after-exit"])
    os.kill(pool.pids()[0], signal.SIGKILL)
    running = held(pool, "after-exit")
    pool.wait_ready(2)
    pool.send(signal.SIGTERM)
    running += held(pool, "before-stop")
    pool.send(signal.SIGQUIT)
    assert pool.wait_exit() == 1
    for pid in running:
        wait_until(lambda pid=pid: not is_alive(pid), 10, "its end")


def test_leaving_waits_for_the_last_ones(hooked):
    pool = hooked(hold=["after-exit"])
    pool.send(signal.SIGTERM)
    held(pool, "after-exit")
    pool.wait_log(r"All workers are gone")
    assert pool.exit_code is None
    go(pool, "after-exit")
    assert pool.wait_exit() == 0
    assert (pool.dir / "done-after-exit").exists()


def test_one_that_is_not_wanted_any_more(hooked):
    pool = hooked(2, hold=["before-start"], ready=False)
    first = held(pool, "before-start")
    pool.wait_state(lambda s: len(s["workers"]) == 2)
    pool.send(signal.SIGTERM)
    assert pool.wait_exit() == 0
    assert pool.count_log(r"Launched") == 0
    for pid in first:
        wait_until(lambda pid=pid: not is_alive(pid), 10, "its end")


def test_many_at_a_time(hooked):
    pool = hooked(90, only=("before-start", "after-ack"), args=["-s", "0.001"])
    wait_told(pool, "after-ack", 90)
    assert sorted(int(t["index"]) for t in told(pool, "before-start")) == list(range(90))


# --- masters that die ------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_a_master_that_is_killed_while_one_runs(hooked, hook):
    """The next one goes on with the very process, once, and loses nothing of what it writes."""
    pool = hooked(2, hold=[hook], ready=hook not in ("before-start",))
    client = None
    if hook in ("before-stop", "after-exit", "before-upgrade", "after-upgrade"):
        client = pool.client(timeout=40)
        ask(client)
    running = held(pool, hook)
    for _ in range(2):
        pool.kill_master()
        pool.wait_log(r"A new master goes on")
        pool.state_json()
    assert all(is_alive(pid) for pid in running)
    go(pool, hook)
    if client:
        assert read_last(client)[-1]["message"] == "Upgrade done"
        client.close()
        pool.wait_state(settled(1, 2))
    else:
        pool.wait_ready(2)
    count = len(told(pool, hook))
    assert pool.stop() == 0
    # None was run twice: each stands for another worker, or the one upgrade.
    said = [(t["index"], t["version"], t["pid"]) for t in told(pool, hook)]
    assert len(said) == len(set(said)) >= count > 0, said


def test_one_that_ended_while_there_was_no_master(hooked):
    pool = hooked(hold=["before-stop"], args=["-v"])
    pool.command("upgrade", id=1)
    running = held(pool, "before-stop")
    master = pool.master_pid
    os.kill(master, signal.SIGSTOP)
    go(pool, "before-stop")
    wait_until(lambda: not os.path.exists(f"/proc/{running[0]}"), 10, "its end")
    os.kill(master, signal.SIGKILL)  # the guard had told this one, and nobody else knows
    pool.wait_state(settled(1, 1), deadline=20)
    pool.wait_log(r"before-stop hook of worker 0 is run again, as nobody knows how it ended$")
    assert len(told(pool, "before-stop")) == 2


def test_the_guard_is_killed_while_one_runs(hooked):
    pool = hooked(hold=["before-stop"])
    old = pool.pids()[0]
    pool.command("upgrade", id=1)
    running = held(pool, "before-stop")
    os.kill(pool.guard_pid, signal.SIGKILL)
    pool.wait_log(r"The guard is gone")
    go(pool, "before-stop")
    wait_until(lambda: not is_alive(old), 20, "the end of the old worker")
    assert len(running) == 1
    pool.start()  # takes it over
    pool.wait_state(settled(1, 1), deadline=20)


def test_an_upgrade_without_a_guard_has_its_hook(hooked):
    pool = hooked(args=["--hook-shell"], only=(), hooks={
        "before-upgrade": 'test -e "$TMPDIR/allowed" || { echo not yet; exit 1; }'})
    os.kill(pool.guard_pid, signal.SIGKILL)
    pool.wait_log(r"The guard is gone")
    assert "not yet" in messages(upgrade(pool))[-1]
    (pool.dir / "allowed").touch()
    assert messages(upgrade(pool))[-1] == "Upgrade done"


# --- under load -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", HOOKS)
def test_upgrades_under_load_lose_nothing(hooked, make_load, hook):
    """Each with this hook slow, and the master killed while it runs."""
    slow = f"sleep 0.2; echo {hook}"
    pool = hooked(3, args=["--hook-shell"], only=(), hooks={hook: slow})
    with make_load(pool.address, connections=8, rate=400) as load:
        load.wait_ok(100)
        for version in (1, 2):
            with pool.client(timeout=60) as client:
                ask(client)
                pool.kill_master()
                assert read_last(client)[-1]["message"] == "Upgrade done"
            pool.wait_state(settled(version, 3), deadline=30)
        load.wait_ok(300)
    assert load.result["failures"] == 0, load.result


# --- options, config files ------------------------------------------------------------------------


def check(tmp_path, text):
    path = tmp_path / "einhorn.yaml"
    path.write_text(text)
    words = einhorn_command() + ["--config", str(path), "--check-config"]
    return subprocess.run(words, capture_output=True, text=True, timeout=20), path


@pytest.mark.parametrize(
    "text, where, why",
    [
        ("hooks: no", "1:8", "hooks: commands should stand here, each as `NAME: CMD`"),
        (
            "hooks: {before-strat: [a]}",
            "1:9",
            "hooks: unknown key 'before-strat', did you mean 'before-start'?",
        ),
        ("hooks: {before-start: []}", "1:23", "hook-before-start: it names no program"),
        ("hooks: {before-start: {a: b}}", "1:23", "hook-before-start: one value is needed"),
        ("hooks: {timeout: soon}", "1:18", "hook-timeout: "),
        ("hooks: {shell: 1}", "1:16", "hook-shell: true or false is needed"),
        ("hook-before-start: \"it's\"", "1:20", "hook-before-start: "),
    ],
)
def test_wrong_files(tmp_path, text, where, why):
    result, path = check(tmp_path, "command: [sleep, 1]\n".replace("\n", "") + "\n" + text + "\n")
    line, column = where.split(":")
    assert result.returncode == 1
    assert f"{path}:{int(line) + 1}:{column}: {why}" in result.stdout + result.stderr


@pytest.mark.parametrize(
    "words, why",
    [
        (["--hook-timeout", "0"], "--hook-timeout"),
        (["--hook-timeout", "100000"], "out of range"),
        (["--hook-before-start", "'a"], "--hook-before-start"),
        (["--hook-before-start", "  "], "names no program"),
        (["--hook-shell"], "needs a hook"),
    ],
)
def test_wrong_options(words, why):
    command = einhorn_command() + words + ["sleep", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert result.returncode == 1 and why in result.stderr + result.stdout
    assert len((result.stderr + result.stdout).strip().splitlines()) == 1


def test_a_config_file_has_them_and_reload_changes_them(make_pool, tmp_path):
    path = tmp_path / "einhorn.yaml"

    def write(**hooks):
        path.write_text(
            json.dumps(
                {"command": [worker("http_worker")], "ack-mode": 0.05, "number": 1, "hooks": hooks}
            )
        )

    write(**{"before-start": ["/bin/echo", "two  words", "$HOME"], "timeout": 7})
    pool = make_pool(["--config", path], worker_command=())
    pool.wait_ready(1)
    pool.wait_log(r"before-start hook of worker 0: two  words \$HOME$")
    write(**{"before-start": "/bin/echo other", "after-exit": ["/bin/echo", "gone"]})
    since = pool.log_size()
    pool.command("reload", id=1)
    pool.wait_log(r"The configuration has changed: hooks, hook-timeout$", since=since)
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_log(r"after-exit hook of worker 0: gone$", since=since)
    pool.wait_log(r"before-start hook of worker 0: other$", since=since)
    printed = subprocess.run(
        einhorn_command() + ["--config", str(path), "--print-config"],
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout
    assert "hook-before-start: " in printed and "hook-timeout: 30" in printed
