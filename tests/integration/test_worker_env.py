"""What a worker gets: environment, descriptors, arguments, signals, process group; and what is said
when it can't be started."""

import json
import os
import signal

import pytest
from harness import wait_until, worker
from harness.processes import read_stat


def dumps(pool, number=1, deadline=10):
    """What `number` env_dump workers wrote, by index."""

    def complete():
        found = [p for p in pool.dir.glob("dump.*") if p.suffix != ".unfinished"]
        return found if len(found) >= number else None

    read = [json.loads(p.read_text()) for p in wait_until(complete, deadline, pool.log)]
    for dump in read:
        dump["environ"] = dict(word.split("=", 1) for word in dump["environ"])
    return sorted(read, key=lambda d: int(d["environ"].get("EINHORN_CHILD_INDEX", 0)))


@pytest.fixture
def dump_pool(make_pool):
    def make(args=(), words=(), program="env_dump", **kwargs):
        env = {"ENV_DUMP_FILE": "dump", **kwargs.pop("env", {})}
        return make_pool(["-m", "0.05", *args], [program, *words], env=env, **kwargs)

    return make


def test_environment(dump_pool):
    pool = dump_pool(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "-b", "127.0.0.1:0", "-d", "./s.sock"]
    )
    for index, dump in enumerate(dumps(pool, 2)):
        env = dump["environ"]
        assert env["EINHORN_MASTER_PID"] == str(pool.process.pid) == str(dump["ppid"])
        assert env["EINHORN_SOCK_PATH"] == "./s.sock", "exactly as given to -d"
        assert env["EINHORN_FD_COUNT"] == "2"
        assert (env["EINHORN_FD_0"], env["EINHORN_FD_1"]) == ("3", "4")
        assert env["EINHORN_FDS"] == "3 4"
        assert env["EINHORN_CHILD_INDEX"] == str(index)
        assert env["LISTEN_FDS"] == "2"
        assert env["LISTEN_PID"] == str(dump["pid"])
        assert env["LISTEN_FDNAMES"].split(":")[0] == "web"
        assert len(env["LISTEN_FDNAMES"].split(":")) == 2
        assert "EINHORN_SOCK_FD" not in env


def test_notify_socket_is_named(dump_pool):
    env = dumps(dump_pool())[0]["environ"]
    assert env["NOTIFY_SOCKET"][0] in "/@"


def test_default_socket_path(dump_pool):
    pool = dump_pool(name="shop")
    assert dumps(pool)[0]["environ"]["EINHORN_SOCK_PATH"] == str(pool.path("sock"))


def test_environment_without_sockets(dump_pool):
    env = dumps(dump_pool())[0]["environ"]
    assert env["EINHORN_FD_COUNT"] == "0"
    assert env.get("LISTEN_FDS", "0") == "0"
    assert "EINHORN_FD_0" not in env


def test_nothing_else_in_the_environment(dump_pool):
    pool = dump_pool(["-b", "127.0.0.1:0"], env={"MINE": "a b", "EMPTY": ""})
    env = dumps(pool)[0]["environ"]
    own = {
        k: v
        for k, v in env.items()
        if not k.startswith("EINHORN_") and not k.startswith("LISTEN_") and k != "NOTIFY_SOCKET"
    }
    assert own == pool.env


def test_environment_of_the_caller_does_not_leak(dump_pool):
    """A pool started from a worker of another pool tells its workers nothing of that one."""
    foreign = {
        "EINHORN_FD_7": "99",
        "EINHORN_FD_COUNT": "8",
        "EINHORN_CHILD_INDEX": "5",
        "EINHORN_SOCK_FD": "77",
        "LISTEN_PID": "1",
        "LISTEN_FDS": "3",
        "LISTEN_FDNAMES": "a:b:c",
        "NOTIFY_SOCKET": "/nowhere",
    }
    env = dumps(dump_pool(env=foreign))[0]["environ"]
    assert "EINHORN_FD_7" not in env and "EINHORN_SOCK_FD" not in env
    assert env["EINHORN_FD_COUNT"] == "0" and env["EINHORN_CHILD_INDEX"] == "0"
    assert env.get("LISTEN_FDS", "0") == "0"
    assert env["NOTIFY_SOCKET"] != "/nowhere"


@pytest.mark.parametrize("extra, more", [([], []), (["-g"], ["EINHORN_SOCK_FD"])])
def test_descriptors_exactly(dump_pool, extra, more):
    pool = dump_pool(["-b", "127.0.0.1:0", "-b", "unix:@DIR@/a.sock", "-n", "2", *extra])
    for dump in dumps(pool, 2):
        expected = {"0", "1", "2", "3", "4"} | {dump["environ"][name] for name in more}
        assert set(dump["fds"]) == expected
        assert all(dump["fds"][n]["listening"] for n in "34")
        assert dump["fds"]["0"]["target"] == "/dev/null"
        assert dump["fds"]["1"]["target"] == str(pool.stdout_path)
        assert dump["fds"]["2"]["target"] == str(pool.log_path)
        for name in more:
            assert dump["fds"][dump["environ"][name]]["target"].startswith("socket:")


def test_signals_are_clean_whatever_the_caller_had(dump_pool):
    def dirty():
        for number in (
            signal.SIGHUP,
            signal.SIGPIPE,
            signal.SIGCHLD,
            signal.SIGINT,
            signal.SIGUSR1,
        ):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD})

    for pool in (dump_pool(name="clean"), dump_pool(name="dirty", preexec=dirty)):
        (dump,) = dumps(pool)
        masks = {name: int(text, 16) for name, text in dump["signals"].items() if name != "SigQ"}
        assert masks["SigBlk"] == masks["SigIgn"] == masks["SigPnd"] == masks["ShdPnd"] == 0
        for path in pool.dir.glob("dump.*"):
            path.unlink()
        assert pool.stop() == 0


def test_own_process_group_and_directory(dump_pool):
    pool = dump_pool(["-n", "2"])
    for dump in dumps(pool, 2):
        assert dump["pgid"] == dump["pid"]
        assert dump["cwd"] == str(pool.dir)
        assert dump["sid"] == os.getsid(pool.process.pid)


def test_replacements_in_arguments(dump_pool):
    words = ["--fd={fd}", "{fd:admin}", "worker-{index}", "{unknown}", "plain"]
    pool = dump_pool(["-n", "2", "-b", "127.0.0.1:0", "-b", "127.0.0.1:0,name=admin"], words)
    for index, dump in enumerate(dumps(pool, 2)):
        assert dump["argv"][1:] == ["--fd=3", "4", f"worker-{index}", "{unknown}", "plain"]


def test_srv_form(dump_pool):
    spec = "srv:127.0.0.1:0,r"
    pool = dump_pool(words=[f"--socket={spec}", spec, "srv:127.0.0.1:0", "xsrv:127.0.0.1:0"])
    (dump,) = dumps(pool)
    assert dump["argv"][1:] == ["--socket=3", "3", "4", "xsrv:127.0.0.1:0"]
    assert dump["fds"]["3"]["reuseaddr"] and not dump["fds"]["4"]["reuseaddr"]
    assert dump["fds"]["3"]["listening"] and dump["fds"]["4"]["listening"]


def test_program_is_found_by_path_once(dump_pool):
    directory = os.path.dirname(worker("env_dump"))
    pool = dump_pool(program="env_dump", env={"PATH": directory}, start=False)
    pool.worker_command = ["env_dump", "x"]
    pool.start()
    (dump,) = dumps(pool)
    assert dump["argv"] == [worker("env_dump"), "x"]


@pytest.mark.root
def test_nice(dump_pool):
    pool = dump_pool(["--nice", "1:5"])
    assert dumps(pool)[0]["nice"] == 5
    assert read_stat(pool.master_pid).nice == 1


@pytest.mark.root
def test_nice_levels_without_the_right_to_them(make_pool):
    """Said, and no reason not to serve."""
    pool = make_pool(
        ["-m", "0.05", "--nice=-5:-6"],
        wrapper=["prlimit", "--nice=0", "setpriv", "--bounding-set=-sys_nice"],
    )
    (entry,) = pool.wait_ready(1)
    pool.wait_log("Could not set the nice level of the master to -5, but continuing on anyway: ")
    pool.wait_log(rf"Could not set the nice level of worker {entry['pid']} to -6, but continuing")
    assert read_stat(entry["pid"]).nice == os.getpriority(os.PRIO_PROCESS, 0), "as it was"


@pytest.mark.root
def test_nice_levels_set_by_a_command(make_pool, tmp_path):
    """Who lacks the right to a level gives a command that has it, such as `sudo renice`."""
    script = tmp_path / "renice"
    script.write_text('#!/bin/sh\necho "$*" >>"$0.calls"\nexec renice "$2" -p "$4" >/dev/null\n')
    script.chmod(0o755)
    pool = make_pool(["-n", "2", "-m", "0.05", "--nice", f"3:7:{script} -x"])
    calls = tmp_path / "renice.calls"
    pids = [entry["pid"] for entry in pool.wait_ready(2)]
    wanted = {pool.master_pid: 3, **{pid: 7 for pid in pids}}
    wait_until(lambda: {pid: read_stat(pid).nice for pid in wanted} == wanted)
    assert sorted(calls.read_text().splitlines()) == sorted(
        f"-x {level} -p {pid}" for pid, level in wanted.items()
    )
    pool.wait_log(rf'Running "{script} -x 7 -p {pids[0]}" to renice to level 7')
    master = pool.kill_master()
    wait_until(lambda: read_stat(master).nice == 3)
    script.write_text("#!/bin/sh\nexit 4\n")
    os.kill(pids[0], signal.SIGKILL)
    pool.wait_log("Renice command exited with status 4, but continuing on anyway")
    pool.wait_ready(2)


# --- workers that can't be started ----------------------------------------------------------------


def failing_exec(make_pool, content, mode, **kwargs):
    pool = make_pool(["-m", "0.05"], ["./server"], start=False, **kwargs)
    if content is not None:
        path = pool.dir / "server"
        path.write_text(content)
        path.chmod(mode)
    return pool.start()


@pytest.mark.parametrize(
    "content, mode, reason",
    [
        ("#!/bin/sh\n", 0o644, "Permission denied"),
        ("#!/no/such/interpreter\n", 0o755, "No such file or directory"),
        ("\x7fELF is not enough", 0o755, "Exec format error"),
    ],
)
def test_failed_exec_is_said(make_pool, content, mode, reason):
    pool = failing_exec(make_pool, content, mode)
    pool.wait_log(rf"exec \S*/server: {reason}")
    state = pool.wait_state(lambda s: s["deaths_before_ack"] >= 1)
    assert state["workers"] == []
    assert "Exited worker" not in pool.log()


def test_failed_exec_is_known_at_once(make_pool):
    pool = failing_exec(make_pool, "#!/bin/sh\n", 0o644)
    pool.wait_log(r"exec \S*/server: Permission denied", deadline=2)


def test_failed_exec_heals(make_pool):
    pool = failing_exec(make_pool, "#!/bin/sh\n", 0o644)
    pool.wait_log("Permission denied")
    (pool.dir / "server").unlink()
    os.symlink(worker("http_worker"), pool.dir / "server")
    pool.wait_ready(1, deadline=20)


def test_variables_dropped_at_upgrades(dump_pool):
    pool = dump_pool(["--drop-env-var", "SECRET"], env={"SECRET": "1", "KEPT": "2"})
    (first,) = dumps(pool)
    assert first["environ"]["SECRET"] == "1"
    pool.wait_ready(1)
    pool.command("upgrade", id=1)
    both = dumps(pool, 2)
    (second,) = [dump for dump in both if dump["pid"] != first["pid"]]
    assert "SECRET" not in second["environ"] and second["environ"]["KEPT"] == "2"
