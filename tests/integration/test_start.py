"""Starting and ending: workers, exit codes, the command line and its wrong uses, files."""

import os
import re
import resource
import signal
import stat
import subprocess

import pytest
from harness import einhorn_command, http_get, is_alive, program, wait_until, worker
from harness.waiting import stays_true

# --- what comes up --------------------------------------------------------------------------------


def test_requests_reach_all_workers(make_pool):
    pool = make_pool(["-b", "127.0.0.1:0", "-n", "3", "-m", "0.1"])
    workers = pool.wait_ready(3)
    address = pool.address
    seen = set()
    wait_until(lambda: seen.add(http_get(address)["pid"]) or len(seen) == 3)
    assert seen == {w["pid"] for w in workers}
    assert [w["index"] for w in workers] == [0, 1, 2]


def test_one_worker_by_default(make_pool):
    pool = make_pool(["-m", "0.05"])
    assert len(pool.wait_ready(1)) == 1
    assert pool.state_json()["number"] == 1


def test_state_json_says_who_is_who(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0,name=web"], name="who")
    pool.wait_ready(2)
    state = pool.state_json()
    assert state["name"] == "who"
    assert state["guard"] == pool.process.pid
    assert state["master"] != state["guard"] and is_alive(state["master"])
    assert state["version"] == 0 and state["upgrading"] is False and state["failed"] is False
    assert re.fullmatch(r"127\.0\.0\.1:\d+", state["sockets"][0]["address"])
    assert state["sockets"][0]["name"] == "web"
    assert re.match(r"\d+\.\d+", state["einhorn"])
    for entry in state["workers"]:
        assert entry["state"] == "ready" and entry["acked"] and entry["signaled"] == []
        assert entry["rss"] > 0 and entry["version"] == 0


def test_log_tells_of_launches(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.1"])
    for entry in pool.wait_ready(2):
        pid, index = entry["pid"], entry["index"]
        pool.wait_log(rf"^\[MASTER \d+\] INFO: ===> Launched {pid} \(index: {index}\)$")
        pool.wait_log(rf"Worker {pid} has been up for 0\.1s, so we are considering it alive\.")
    pool.wait_log(r"Up to 2 / 2 timer ACKs")


# --- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGUSR2, 0), (signal.SIGQUIT, 1)],
)
def test_exit_code_of_signals(make_pool, number, code):
    pool = make_pool(["-n", "2", "-m", "0.05"])
    pool.wait_ready(2)
    assert pool.stop(number) == code
    pool.wait_gone()
    assert not pool.path("sock").exists() and not pool.path("pid").exists()


def test_nothing_is_left_after_die(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    pool.wait_ready(2)
    with pool.client() as client:
        message = client.request({"command": "die", "args": []})["message"]
    assert message.startswith("Einhorn is going down!")
    assert pool.wait_exit() == 0
    pool.wait_gone()


@pytest.mark.parametrize("moment", ["lock", "sock", "pid", "Binding", "Launching", "Launched"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_while_starting(make_pool, moment, number):
    """However early it is told to end: no process and no file is left."""
    pool = make_pool(["-n", "3", "-m", "0.05", "-b", "unix:@DIR@/web.sock"])
    if moment in ("lock", "sock", "pid"):
        wait_until(pool.path(moment).exists)
    else:
        pool.wait_log(moment)
    assert pool.stop(number) == 0
    pool.wait_gone()
    assert {p.name for p in pool.dir.iterdir()} <= {"log", "stdout", "einhorn.lock"}


# --- the command line -----------------------------------------------------------------------------


def run(*args, env=None, cwd=None):
    return subprocess.run(
        [*einhorn_command(), *args],
        capture_output=True,
        text=True,
        timeout=20,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )


def test_no_arguments_shows_usage():
    done = run()
    assert done.returncode == 1
    assert "einhorn [options] program" in done.stdout
    assert done.stderr == ""


ALL_FLAGS = [
    "-b",
    "--bind",
    "-c",
    "--command-name",
    "-d",
    "--socket-path",
    "-e",
    "--pidfile",
    "-f",
    "--lockfile",
    "-g",
    "--command-socket-as-fd",
    "-h",
    "--help",
    "-k",
    "--kill-children-on-exit",
    "-l",
    "--backlog",
    "-m",
    "--ack-mode",
    "-n",
    "--number",
    "-p",
    "--preload",
    "-q",
    "--quiet",
    "-s",
    "--seconds",
    "-v",
    "--verbose",
    "--drop-env-var",
    "--reexec-as",
    "--nice",
    "-t",
    "--signal-timeout",
    "--max-unacked",
    "--max-upgrade-additional",
    "--gc-before-fork",
    "--version",
    "--ack-timeout",
    "--give-up",
    "--stop-signal",
    "--socket-mode",
    "--socket-group",
    "--log-format",
    "--log-file",
]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_option(flag):
    done = run(flag)
    assert done.returncode == 1
    missing = [f for f in ALL_FLAGS if not re.search(rf"(?<![\w-]){f}(?![\w-])", done.stdout)]
    assert missing == []


def test_version():
    done = run("--version")
    assert done.returncode == 0
    assert re.search(r"\d+\.\d+\.\d+", done.stdout)


def test_upgrade_check():
    done = run("--upgrade-check", "--", "/bin/true")
    assert done.returncode == 0


WRONG_USES = [
    # option by option: the words, and what the complaint must name
    (["-b"], "-b|--bind"),
    (["-b", ""], "-b|--bind"),
    (["-b", "127.0.0.1:99999"], "99999"),
    (["-b", "127.0.0.1:http:x"], "127.0.0.1:http:x"),
    (["-b", "127.0.0.1:-1"], "-1"),
    (["-b", "[::1:80"], r"\[::1:80"),
    (["-b", "127.0.0.1:0,bogus"], "bogus"),
    (["-b", "127.0.0.1:0,backlog=many"], "backlog"),
    (["-b", "127.0.0.1:0,backlog=-5"], "backlog"),
    (["-b", "127.0.0.1:0,fastopen=x"], "fastopen"),
    (["-b", "127.0.0.1:0,name="], "name"),
    (["-b", "127.0.0.1:0,mode=0600"], "mode"),
    (["-b", "unix:"], "unix:"),
    (["-b", "unix:/tmp/x,mode=9"], "mode"),
    (["-b", "unix:/tmp/x,user=no-such-user-here"], "no-such-user-here"),
    (["-b", "unix:/" + "x" * 200], "x{60}"),
    (["-b", "unix:/no-such-directory/socket"], "/no-such-directory/socket"),
    (["-b", "udp:"], "udp:"),
    (["-b", "fd:77"], "fd:77"),
    (["-b", "fd:nobody"], "fd:nobody"),
    (["-b", "no-such-host.invalid:80"], "no-such-host.invalid"),
    (["-b", "192.0.2.1:0"], "192.0.2.1"),
    (["-c"], "-c|--command-name"),
    (["-d"], "-d|--socket-path"),
    (["-d", "/no-such-directory/einhorn.sock"], "/no-such-directory/einhorn.sock"),
    (["-d", "/tmp/" + "x" * 200], "x{60}"),
    (["-e"], "-e|--pidfile"),
    (["-e", "/no-such-directory/pid"], "/no-such-directory/pid"),
    (["-f"], "-f|--lockfile"),
    (["-f", "/no-such-directory/lock"], "/no-such-directory/lock"),
    (["--command-socket-as-fd=yes"], "command-socket-as-fd"),
    (["--kill-children-on-exit=yes"], "kill-children-on-exit"),
    (["-l"], "-l|--backlog"),
    (["-l", "abc"], "abc"),
    (["-l", "-1"], "-1"),
    (["-m"], "-m|--ack-mode"),
    (["-m", "sometimes"], "sometimes"),
    (["-m", "-1"], "-1"),
    (["-m", "1s"], "1s"),
    (["-m", "nan"], "nan"),
    (["-m", "inf"], "inf"),
    (["-m", ""], "-m|--ack-mode"),
    (["-n"], "-n|--number"),
    (["-n", "abc"], "abc"),
    (["-n", "3x"], "3x"),
    (["-n", "1.5"], "1.5"),
    (["-n", "0"], "-n|--number"),
    (["-n", "-1"], "-1"),
    (["-n", "99999999999999999999"], "99999999999999999999"),
    (["--quiet=1"], "quiet"),
    (["--verbose=1"], "verbose"),
    (["-s"], "-s|--seconds"),
    (["-s", "abc"], "abc"),
    (["-s", "0"], "-s|--seconds"),
    (["-s", "-1"], "-1"),
    (["-t"], "-t|--signal-timeout"),
    (["-t", "abc"], "abc"),
    (["-t", "-1"], "-1"),
    (["--stop-signal"], "stop-signal"),
    (["--stop-signal", "NOPE"], "NOPE"),
    (["--give-up"], "give-up"),
    (["--give-up", "abc"], "abc"),
    (["--give-up", "-1"], "-1"),
    (["--ack-timeout"], "ack-timeout"),
    (["--ack-timeout", "abc"], "abc"),
    (["--ack-timeout", "-1"], "-1"),
    (["--max-unacked"], "max-unacked"),
    (["--max-unacked", "0"], "max-unacked"),
    (["--max-unacked", "abc"], "abc"),
    (["--max-upgrade-additional"], "max-upgrade-additional"),
    (["--max-upgrade-additional", "-1"], "-1"),
    (["--max-upgrade-additional", "abc"], "abc"),
    (["--gc-before-fork=yes"], "gc-before-fork"),
    (["--nice"], "nice"),
    (["--nice", "abc"], "abc"),
    (["--nice", "1:abc"], "abc"),
    (["--drop-env-var"], "drop-env-var"),
    (["--reexec-as"], "reexec-as"),
    (["--reexec-as", "'unbalanced"], "reexec-as|unbalanced"),
    (["--with-state-fd"], "with-state-fd"),
    (["--with-state-fd", "abc"], "abc|with-state-fd"),
    (["--log-format"], "log-format"),
    (["--log-format", "xml"], "xml"),
    (["--log-file"], "log-file"),
    (["--log-file", "/no-such-directory/log"], "/no-such-directory/log"),
    (["--socket-mode"], "socket-mode"),
    (["--socket-mode", "rw"], "rw"),
    (["--socket-mode", "99999"], "99999"),
    (["--socket-group"], "socket-group"),
    (["--socket-group", "no-such-group-here"], "no-such-group-here"),
    (["--version=1"], "version"),
    (["--help=1"], "help"),
    (["--no-such-option"], "no-such-option"),
    (["-Z"], "-Z"),
]


@pytest.mark.parametrize("words, named", WRONG_USES, ids=[" ".join(w)[:40] for w, _ in WRONG_USES])
def test_wrong_use_is_refused(tmp_path, words, named):
    marker = tmp_path / "started"
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    # An option that lacks its value stands last; otherwise a command follows.
    lacks_value = (
        len(words) == 1 and "=" not in words[0] and words[0] not in ("--no-such-option", "-Z")
    )
    command = [] if lacks_value else ["--", "/usr/bin/touch", str(marker)]
    done = run(*words, *command, env=env)
    assert done.returncode == 1, done.stderr
    assert re.search(named, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) <= 5, "a clear word, no page of text"
    assert not marker.exists()
    assert [p.name for p in tmp_path.iterdir() if p.suffix in (".sock", ".pid")] == []


@pytest.mark.parametrize("words", [["-n", "3"], ["-n", "3", "--"], ["-k"]])
def test_missing_command_is_refused(tmp_path, words):
    done = run(*words, env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)})
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_too_few_descriptors_are_refused(tmp_path):
    limited = ["prlimit", "--nofile=255:255", *einhorn_command()]
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*limited, "--", "/usr/bin/touch", str(tmp_path / "started")],
        capture_output=True,
        text=True,
        env=env,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert re.search("open files: .*RLIMIT_NOFILE.* is 255, at least 256", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_soft_limit_of_descriptors_does_not_matter(make_pool):
    pool = make_pool(
        ["-m", "0.05"],
        "http_worker",
        wrapper=["prlimit", f"--nofile=32:{resource.getrlimit(resource.RLIMIT_NOFILE)[1]}"],
    )
    (worker,) = pool.wait_ready(1)
    limit = lambda: resource.prlimit(worker["pid"], resource.RLIMIT_NOFILE)[0]  # noqa: E731
    assert limit() == 32, "workers keep it"
    pool.kill_master()
    with pool.client(timeout=30) as client:
        client.conversation({"command": "upgrade", "id": 1})
    (worker,) = pool.wait_ready(1)
    assert limit() == 32, "and so with every later master"


@pytest.mark.parametrize(
    "words",
    [["-n3"], ["-n", "3"], ["--number", "3"], ["--number=3"], ["--num", "3"], ["--num=3"]],
    ids=" ".join,
)
def test_forms_of_an_option(make_pool, words):
    pool = make_pool([*words, "-m", "0.05"])
    assert len(pool.wait_ready(3)) == 3


def test_options_stop_at_the_first_other_word(make_pool):
    out = "dump"
    pool = make_pool(
        ["-n", "1", worker("env_dump"), "-n", "5", "--version"], [], env={"ENV_DUMP_FILE": out}
    )
    pool.wait_log("Launched")
    dump = wait_until(lambda: [p for p in pool.dir.glob("dump.*") if p.suffix != ".unfinished"])
    assert len(dump) == 1
    assert '"-n","5","--version"]' in dump[0].read_text()
    stays_true(lambda: len(pool.workers()) == 1, 0.2)


# --- files ----------------------------------------------------------------------------------------


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("name", [None, "shop"])
def test_default_files(make_pool, name):
    pool = make_pool(["-m", "0.05"], name=name)
    pool.wait_ready(1)
    assert pool.path("pid").read_bytes() == str(pool.process.pid).encode()
    assert mode_of(pool.path("pid")) == 0o644
    assert mode_of(pool.path("sock")) == 0o600
    assert mode_of(pool.path("lock")) == 0o600
    assert pool.stop() == 0
    assert not pool.path("pid").exists()
    assert not pool.path("sock").exists()
    assert pool.path("lock").exists()


def test_named_files(make_pool):
    pool = make_pool(["-m", "0.05", "-d", "s", "-e", "p", "-f", "l"])
    pool.wait_ready(1)
    assert (pool.dir / "p").read_text() == str(pool.process.pid)
    assert stat.S_ISSOCK(os.stat(pool.dir / "s").st_mode)
    assert (pool.dir / "l").exists()
    assert not pool.path("sock").exists() and not pool.path("pid").exists()
    assert pool.stop() == 0
    assert not (pool.dir / "p").exists() and not (pool.dir / "s").exists()


@pytest.mark.parametrize("variable", ["TMPDIR", "TMP", "TEMP"])
def test_directory_for_files(make_pool, tmp_path, variable):
    env = {"TMPDIR": None, variable: str(tmp_path)}
    pool = make_pool(["-m", "0.05"], env=env)
    wait_until((tmp_path / "einhorn.sock").exists)
    assert wait_until(lambda: (tmp_path / "einhorn.pid").exists())
    assert pool.stop() == 0


def test_socket_mode_and_group(make_pool):
    group = os.getgid()
    pool = make_pool(["-m", "0.05", "--socket-mode", "0660", "--socket-group", str(group)])
    pool.wait_ready(1)
    assert mode_of(pool.path("sock")) == 0o660
    assert os.stat(pool.path("sock")).st_gid == group


def test_socket_is_private_whatever_the_umask(make_pool):
    pool = make_pool(["-m", "0.05"], preexec=lambda: os.umask(0))
    pool.wait_ready(1)
    assert mode_of(pool.path("sock")) == 0o600
    assert mode_of(pool.path("pid")) & 0o022 == 0


def test_dead_socket_file_is_replaced(make_pool):
    pool = make_pool(["-m", "0.05"], start=False)
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(pool.path("sock")))
    pool.start()
    pool.wait_ready(1)
    assert pool.command("ehlo", user="me").startswith("Welcome, me!")


def test_file_at_the_socket_path_is_refused_and_kept(make_pool):
    pool = make_pool(["-m", "0.05"], start=False)
    pool.path("sock").write_text("precious")
    pool.start()
    assert pool.wait_exit() == 1
    assert str(pool.path("sock")) in pool.log()
    assert pool.path("sock").read_text() == "precious"


def test_names_in_ps(make_pool):
    pool = make_pool(["-m", "0.05"], name="shop")
    pool.wait_ready(1)
    state = pool.state_json()

    def title(pid):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode()

    assert title(state["guard"]).startswith("einhorn: ruby shop")
    assert title(state["master"]).startswith("einhorn-master: shop")


def test_quiet_and_verbose(make_pool):
    quiet = make_pool(["-q", "-m", "0.05"], name="quiet")
    verbose = make_pool(["-v", "-m", "0.05"], name="verbose")
    quiet.wait_ready(1)
    verbose.wait_ready(1)
    assert " INFO: " not in quiet.log()
    assert verbose.count_log(r"\] DEBUG: ") > 0


@pytest.mark.unsanitized
@pytest.mark.parametrize("name, wanted", [("einhorn", set()), ("einhornsh", {"libedit.so.2", "libncursesw.so.6", "libtinfo.so.6"})])
def test_libraries_that_are_loaded_at_each_start(name, wanted):
    """Every master and every check of one pays for them."""
    said = subprocess.run(
        ["readelf", "-d", program(name)], capture_output=True, text=True, check=True
    ).stdout
    found = set(re.findall(r"\(NEEDED\)[^\[]*\[([^\]]+)\]", said))
    assert {one for one in found if not one.startswith("ld-linux")} == {"libc.so.6", *wanted}
