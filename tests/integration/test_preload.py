"""Preloading: a zygote per version loads the code, and workers are its forks (docs/preload.md)."""

import os
import pwd
import re
import signal
import subprocess
from pathlib import Path

import pytest
from harness import processes, wait_until
from harness.events import Events
from harness.programs import ROOT
from harness.upgrades import ask, messages, settled, shell, upgrade
from preload.programs import ACKS, LANGUAGES, SERVER, Code, alive, wait_zygote, zygotes


@pytest.fixture
def start(make_pool):
    """start(language, number, args): a pool whose workers are preloaded and write what they see."""

    def make(language="python", number=2, args=(), command=None, ready=True, text=None, env=None):
        pool = make_pool(["-n", number, "-m", "0.05", "-s", "0.02", *args], [], start=False, env=env)
        pool.code = Code(pool, language)
        if text is not None:
            pool.code.write(text=text)
        pool.worker_command = pool.code.command if command is None else command
        pool.args += ["-p", pool.code.file]
        pool.start()
        if ready:
            pool.wait_ready(number, 60)
        return pool

    return make


@pytest.fixture
def server(make_pool):
    """A pool that serves HTTP, preloaded."""

    def make(number=2, args=()):
        words = ["-n", number, "-m", "manual", "-s", "0.02", "-b", "127.0.0.1:0,r", "-p", "web.py"]
        pool = make_pool([*words, *args], ["/usr/bin/python3", "web.py"], start=False)
        (pool.dir / "web.py").write_text(SERVER)
        pool.start().wait_ready(number, 60)
        return pool

    return make


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages(start, language):
    """Loaded once, and each worker is as one that was executed: parent, group, environment, words."""
    pool = start(language, 3, ["--gc-before-fork", "-b", "127.0.0.1:0", "-k"])
    state = pool.state_json()
    (zygote,) = state["zygotes"]
    seen = pool.code.seen(pool.pids())
    assert {one["loaded"] for one in seen} == {zygote["pid"]}
    assert zygote["loaded"] and zygote["version"] == 0
    for one in seen:
        environment = one["environment"]
        assert one["parent"] == state["guard"] == int(environment["EINHORN_MASTER_PID"])
        assert one["group"] == one["pid"] == int(environment["LISTEN_PID"])
        assert one["arguments"] == ["one", "two words"]
        assert one["script"] == ("app" if language == "c" else pool.code.file)
        assert environment["EINHORN_FD_COUNT"] == "1" and environment["EINHORN_FD_0"] == "3"
        assert "EINHORN_ZYGOTE_FD" not in environment
        assert os.readlink(f"/proc/{one['pid']}/fd/3").startswith("socket:")
    assert {one["environment"]["EINHORN_CHILD_INDEX"] for one in seen} == {"0", "1", "2"}
    assert language == "python" or len({one["random"] for one in seen}) == 3
    assert shell(pool, "-e", "status").stdout.count(" own)") == 3

    pool.code.write("second")
    assert messages(upgrade(pool, deadline=60))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 3), 30)
    assert {one["label"] for one in pool.code.seen(pool.pids())} == {"second"}
    wait_until(lambda: not alive(zygote["pid"]), 20, lambda: f"the old zygote\n{pool.log()}")
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


def test_a_worker_that_its_hook_holds_up_is_forked_after_younger_ones(start, tmp_path):
    """Its zygote is asked for it last, though it was to be the first one."""
    go = tmp_path / "go"
    os.mkfifo(go)
    hold = f"""sh -c '[ "$EINHORN_HOOK_INDEX" != 0 ] || read line < {go}'"""
    pool = start(number=3, args=["--hook-before-start", hold], ready=False)
    pool.wait_state(lambda state: sum(w["state"] == "ready" for w in state["workers"]) == 2, 60)
    zygote = zygotes(pool)[0]
    go.write_text("on\n")
    pool.wait_ready(3, 8)  # the zygote would be given up after 10 seconds
    assert zygotes(pool) == {0: zygote}
    assert pool.stop() == 0


def test_module_and_function(start):
    pool = start(ready=False, command=["shop", "x"])
    pool.stop()
    (pool.dir / "shop").mkdir()
    (pool.dir / "shop" / "web.py").write_text(
        pool.code.text.format(label="module", out=pool.code.out).replace("einhorn_main", "serve")
    )
    pool.args[-1] = "shop.web:serve"
    pool.start().wait_ready(2, 60)
    assert {one["label"] for one in pool.code.seen(pool.pids())} == {"module"}


def test_without_a_command(start):
    pool = start(command=[])
    assert {tuple([one["script"], *one["arguments"]]) for one in pool.code.seen(pool.pids())} == {
        ("app.py",)
    }


def test_memory_is_told(start):
    pool = start("ruby", args=["--gc-before-fork"])
    for worker in pool.workers():
        assert worker["shared"] > worker["private"] > 0
    text = pool.command("state", id=1)
    assert ":preloaded: true" in text and re.search(r":private: \d+\n", text), text
    assert f"zygote {zygotes(pool)[0]}  version 0  loaded" in shell(pool, "-e", "status").stdout


def test_upgrades_and_deaths_under_load(server, make_load):
    """Upgrades, kills of the master and of the zygote: no request fails."""
    pool = server()
    load = make_load(pool.address, connections=8, rate=400)
    load.wait_ok(50)
    for version, command in ((1, "upgrade"), (2, "upgrade_fleet")):
        assert messages(upgrade(pool, command, deadline=90))[-1] == "Upgrade done"
        pool.wait_state(settled(version, 2), 60)
        load.wait_more(30)
    zygote = wait_zygote(pool, 2)
    pool.kill_master()
    assert wait_zygote(pool, 2) == zygote, "the new master goes on with it"
    pids = pool.pids()
    os.kill(zygote, signal.SIGKILL)
    wait_zygote(pool, 2, other_than=zygote)
    assert pool.pids() == pids
    assert pool.command("inc", id=1)
    pool.wait_ready(3, 60)
    load.wait_more(50)
    result = load.stop()
    assert result["failures"] == 0, load.failures()
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


def test_a_worker_that_dies_comes_from_the_zygote(start):
    pool = start()
    zygote = zygotes(pool)[0]
    first, second = pool.pids()
    os.kill(first, signal.SIGKILL)
    pool.wait_state(lambda s: {w["pid"] for w in s["workers"]} not in ({first, second}, {second}))
    pool.wait_ready(2)
    assert {one["loaded"] for one in pool.code.seen(pool.pids())} == {zygote}
    pool.wait_log(rf"===> Exited worker {first}")


def test_the_zygote_dies_and_then_a_worker(start):
    """Later workers come from the new one; those that run stay."""
    pool = start()
    zygote, (first, second) = zygotes(pool)[0], pool.pids()
    os.kill(zygote, signal.SIGKILL)
    os.kill(first, signal.SIGKILL)
    new = wait_zygote(pool, 0, other_than=zygote)
    state = pool.wait_state(lambda s: len([w for w in s["workers"] if w["state"] == "ready"]) == 2, 30)
    pids = {w["pid"] for w in state["workers"]}
    assert second in pids and first not in pids
    assert {one["loaded"] for one in pool.code.seen(pids - {second})} == {new}
    pool.wait_log(rf"zygote of version 0 \(pid {zygote}\) was killed by signal 9")


def test_zygotes_on_the_event_stream(start):
    pool = start()
    zygote = zygotes(pool)[0]
    with Events(pool) as events:
        os.kill(zygote, signal.SIGKILL)
        lost = events.wait("zygote_lost", pid=zygote, version=0)
        assert lost["reason"].startswith("was killed by signal 9")
        started = events.wait("preloading", version=0)
        assert events.wait("preloaded", version=0, pid=started["pid"])["after"] > 0
        assert zygotes(pool) == {0: started["pid"]} and started["pid"] != zygote
        pool.code.write(text="raise ValueError('no')")
        upgrade(pool, deadline=60)
        assert "ValueError: no" in events.wait("preload_failed", version=1)["reason"]


def test_a_zygote_that_does_not_answer_is_ended(start):
    pool = start()
    zygote, (first, second) = zygotes(pool)[0], pool.pids()
    os.kill(zygote, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    pool.wait_log(r"has not forked a worker within 10 s; ending it", 60)
    wait_zygote(pool, 0, other_than=zygote)
    pool.wait_ready(2, 60)
    assert second in pool.pids() and not alive(zygote)


# What the code of a release does while it is loaded, and what is said of it.
FAULTS = {
    "crash": ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", r"was killed by signal 11"),
    "exit": ("import sys; sys.exit(3)", r"the code called exit \(3\) while it was loaded"),
    "vanish": ("import os; os._exit(4)", r"exited with status 4 while it was loaded"),
    "raise": ("raise ValueError('no database')", r"ValueError: no database \(.*app.py, line 1\)"),
    "syntax": ("def einhorn_main(:", r"SyntaxError: .*line 1"),
    "nothing": ("x = 1", r"has no function einhorn_main\(\)"),
    "hang": ("import time; time.sleep(1000)", r"it was not loaded within 8 s"),
    "daemon": ("import os\nif os.fork(): os._exit(0)\n", r"exited with status 0 while it was loaded"),
    "close": ("import os; os.closerange(3, 1000)\ndef einhorn_main(): pass", r"closed its socket"),
    "close-listener": ("import os; os.close(3)\ndef einhorn_main(): pass", r"closed a socket of -b"),
    "threads": (
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(100,), name='poller', daemon=True).start()\n"
        "def einhorn_main(): pass",
        r"started threads while it was loaded \(poller\)",
    ),
    "loop": ("import asyncio\nloop = asyncio.new_event_loop()\ndef einhorn_main(): pass", r"event loop"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_release_that_can_not_be_loaded(start, fault):
    """The upgrade fails with what was wrong, and the pool is as it was."""
    pool = start(args=["-b", "127.0.0.1:0", "--preload-timeout", "8" if fault == "hang" else "60"])
    pids, zygote = pool.pids(), zygotes(pool)[0]
    text, said = FAULTS[fault]
    pool.code.write(text=text)
    replies = upgrade(pool, deadline=90)
    assert replies[-1]["message"] == "Upgrade failed; rolled back to version 0"
    state = pool.wait_state(lambda s: settled(0, 2)(s) and len(s["zygotes"]) == 1, 30)
    assert sorted(w["pid"] for w in state["workers"]) == pids and zygotes(pool) == {0: zygote}
    assert re.search(said, state["failure"]), state["failure"]
    pool.wait_log(r"Could not preload app.py \(version 1\): .*" + said)
    pool.code.write("third")
    assert messages(upgrade(pool, deadline=60))[-1] == "Upgrade done"
    pool.wait_state(settled(2, 2), 30)
    assert {one["label"] for one in pool.code.seen(pool.pids())} == {"third"}
    pool.stop()
    pool.wait_gone()


def test_code_that_forks_a_child_at_load(start):
    """A child that goes on is left aside, and the zygote's own process serves."""
    pool = start(ready=False)
    pool.stop()
    text = pool.code.text.format(label="fork", out=pool.code.out)
    pool.code.write(text=text + "\nos.fork()\n")
    pool.start().wait_ready(2, 60)
    pool.wait_log(r"has forked while it was loaded; this child of it ends")
    assert {one["loaded"] for one in pool.code.seen(pool.pids())} == {zygotes(pool)[0]}


def test_a_zygote_that_is_killed_while_it_loads(start):
    """Nothing is wrong with the code, so the upgrade tries again."""
    pool = start(args=["--upgrade-failures", "3"])
    gate = pool.dir / "gate"
    text = pool.code.text.format(label="slow", out=pool.code.out)
    pool.code.write(text=f"import os, time\nwhile not os.path.exists('{gate}'): time.sleep(0.01)\n{text}")
    with pool.client(timeout=90) as client:
        ask(client)
        state = pool.wait_state(lambda s: any(not z["loaded"] for z in s["zygotes"]), 30)
        os.kill(next(z["pid"] for z in state["zygotes"] if not z["loaded"]), signal.SIGKILL)
        pool.wait_log(r"was killed by signal 9 \(KILL\) while it was loaded", 30)
        pool.kill_master()  # also while it loads again
        gate.touch()
        pool.wait_state(settled(1, 2), 60)
    assert {one["label"] for one in pool.code.seen(pool.pids())} == {"slow"}


def test_stopping_does_not_wait_for_a_load(start):
    pool = start(ready=False, text="import time; time.sleep(1000)")
    pool.wait_log(r"Preloading app.py \(version 0")
    assert pool.stop(signal.SIGTERM, 20) == 0
    pool.wait_gone()


def test_the_first_load_fails(start):
    """It is tried again, at growing intervals, as with workers that do not come up."""
    pool = start(ready=False, text="raise ValueError('no')")
    pool.wait_log(r"Could not preload app.py \(version 0\): ValueError: no")
    pool.code.write("mended")
    pool.wait_ready(2, 60)
    assert {one["label"] for one in pool.code.seen(pool.pids())} == {"mended"}


def test_fallback(start):
    """--preload-fallback: the command is executed where its code can't be preloaded."""
    pool = start(args=["--preload-fallback"], command=["/bin/sleep", "1000"])
    assert {one["loaded"] for one in pool.code.seen(pool.pids())} == {zygotes(pool)[0]}
    pool.code.write(text="raise ValueError('no')")
    assert messages(upgrade(pool, deadline=60))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 2), 30)
    pool.wait_log(r"Proceeding with postload")
    assert {processes.read_stat(pid).name for pid in pool.pids()} == {"sleep"}
    pool.kill_master()
    pool.kill_worker(pool.pids()[0])
    pool.wait_ready(2, 30)
    assert {processes.read_stat(pid).name for pid in pool.pids()} == {"sleep"}


def test_the_guard_dies(start):
    """The next guard takes the workers over and has a zygote of its own."""
    pool = start()
    pids, zygote = pool.pids(), zygotes(pool)[0]
    os.kill(pool.guard_pid, signal.SIGKILL)
    pool.process.wait()
    pool.wait_state(lambda s: s["guard"] is None, 20)
    os.kill(pids[0], signal.SIGKILL)
    pool.wait_state(lambda s: pids[0] not in [w["pid"] for w in s["workers"]], 20)
    pool.wait_ready(2, 30)
    pids = pool.pids()
    pool.start().wait_state(lambda s: s["guard"] == pool.process.pid, 30)
    assert pool.pids() == pids
    os.kill(pids[0], signal.SIGKILL)
    pool.wait_state(lambda s: pids[0] not in [w["pid"] for w in s["workers"]], 20)
    pool.wait_ready(2, 30)
    wait_until(lambda: not alive(zygote), 20)
    new = set(pool.pids()) - set(pids)
    assert {one["loaded"] for one in pool.code.seen(new)} == {wait_zygote(pool, 0)}
    assert {processes.read_stat(pid).ppid for pid in new} == {pool.process.pid}
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


@pytest.mark.parametrize("language", LANGUAGES)
def test_workers_end_with_the_guard(start, language):
    """-k, which needs the worker's real parent."""
    pool = start(language, args=["-k"])
    pids = pool.pids()
    pool.code.seen(pids)  # they handle the signal by now
    os.kill(pool.guard_pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in pids), 20)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_command_socket_as_a_descriptor(start, language):
    """-g: each worker has its own connection, by which it ACKs; programs that it executes get it too."""
    pool = start(language, args=["-g", "-m", "manual"], text=ACKS[language])
    assert pool.count_log("Received a manual ACK") == 2
    pids = pool.pids()
    assert len({os.readlink(f"/proc/{pid}/fd/{sock_fd(pid)}") for pid in pids}) == 2
    for pid in pids:
        flags = Path(f"/proc/{pid}/fdinfo/{sock_fd(pid)}").read_text().split("flags:")[1].split()[0]
        assert not int(flags, 8) & os.O_CLOEXEC


def sock_fd(pid):
    """The only socket that a worker without -b has, but for standard ones."""
    links = {fd.name: os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    (found,) = [fd for fd, link in links.items() if link.startswith("socket:")]
    return found


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.root
def test_who_and_where_preloaded_workers_are(make_pool, shared_directory):
    """User, nice level, limits and the like come by the zygote; CPUs are each worker's own."""
    (shared_directory / "app.py").write_text("import signal\ndef einhorn_main(): signal.pause()\n")
    words = ["-n", "2", "-m", "0.05", "-s", "0.02", "-p", "app.py", "--user", "nobody", "--nice", "0:5"]
    words += ["--umask", "027", "--oom-score-adj", "321", "--ionice", "idle", "--no-new-privs"]
    words += ["--rlimit", "nofile=200:300", "--cpu-affinity", "each"]
    pool = make_pool(words, ["/usr/bin/python3", "app.py"], directory=shared_directory)
    pool.wait_ready(2, 60)
    here = os.sched_getaffinity(0)
    places = {}

    def check():
        for worker in pool.workers():
            pid = worker["pid"]
            status = status_of(pid)
            assert status["Uid"] == [str(pwd.getpwnam("nobody").pw_uid)] * 4
            assert status["Umask"] == ["0027"] and status["NoNewPrivs"] == ["1"]
            assert os.getpriority(os.PRIO_PROCESS, pid) == 5
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "321\n"
            assert "idle" in subprocess.check_output(["ionice", "-p", str(pid)], text=True)
            limits = re.search(r"Max open files +(\d+) +(\d+)", Path(f"/proc/{pid}/limits").read_text())
            assert limits.groups() == ("200", "300")
            (cpu,) = os.sched_getaffinity(pid)
            assert places.setdefault(worker["index"], cpu) == cpu
        assert len(set(places.values())) == min(2, len(here))
        assert os.sched_getaffinity(wait_zygote(pool, 0)) == here

    check()
    pool.kill_master()
    victim = pool.pids()[0]
    os.kill(victim, signal.SIGKILL)
    pool.wait_state(lambda s: victim not in [w["pid"] for w in s["workers"]], 20)
    pool.wait_ready(2, 30)
    check()


def test_another_programs_zygote(start):
    """The one of docs/preload.md, which speaks the protocol itself."""
    text = (ROOT / "docs" / "preload.md").read_text()
    program = re.search(r"```python\n(#!/usr/bin/env python3\n.*?)```", text, re.S).group(1)
    pool = start(ready=False)
    pool.stop()
    (pool.dir / "zygote").write_text(program)
    os.chmod(pool.dir / "zygote", 0o755)
    pool.args = pool.args[:-2] + ["--preload-command", "/usr/bin/python3 ./zygote", "-b", "127.0.0.1:0"]
    pool.worker_command = []
    pool.start().wait_ready(2, 60)
    pool.kill_worker(pool.pids()[0])
    pool.wait_ready(2, 30)
    assert {processes.read_stat(pid).ppid for pid in pool.pids()} == {pool.process.pid}
    assert pool.stop(signal.SIGTERM) == 0
    pool.wait_gone()


@pytest.mark.parametrize(
    "words, said",
    [
        (["-p", "app.js"], "Node.js can't fork"),
        (["-p", "main.go"], "Go programs can't fork"),
        (["-p", "missing.py"], '-p "missing.py": there is no file'),
        (["-p", "app"], "the language can't be told from its ending"),
        (["-p", "app.cob"], "the language can't be told from its ending"),
        (["-p", "app.py", "--intercept"], "can't be combined with --intercept"),
        (["-p", "app.py", "--preload-interpreter", "no-such-python"], "Could not find no-such-python"),
        (["--preload-fallback"], "needs -p/--preload"),
    ],
)
def test_misuse(make_pool, words, said):
    pool = make_pool(words, ["/bin/sleep", "1000"], start=False)
    (pool.dir / "app.py").write_text("def einhorn_main(): pass\n")
    assert pool.start().wait_exit() == 1
    assert said in pool.log() and len(pool.log().splitlines()) <= 2, pool.log()
