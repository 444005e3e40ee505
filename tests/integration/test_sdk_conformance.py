"""The worker libraries of sdk/: the same life in every language, with real processes in a real
pool. What the programs do is written down in sdk/scenario.py."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import tomllib

import pytest
from harness import wait_until
from harness.load import connect
from harness.processes import read_stat
from harness.programs import ROOT
from sdk import scenario
from sdk.scenario import LANGUAGES, SDK, ask, request


@pytest.fixture(scope="session")
def libraries():
    return scenario.build_libraries()


@pytest.fixture(params=LANGUAGES)
def library(request, libraries):
    return libraries[request.param]


@pytest.fixture
def start(make_pool, library):
    """Starts a pool of the library's conformance program."""

    def make(*args, **env):
        return make_pool(args, list(library.command), env={**library.env, **env})

    return make


def has_read_all(client):
    """Has the server read everything that this connection has sent up to now?"""
    own, other = (f"0100007F:{name[1]:04X}" for name in (client.getsockname(), client.getpeername()))
    for line in open("/proc/net/tcp", encoding="ascii"):
        words = line.split()
        if (words[1], words[2]) == (other, own):
            # Of an accepted connection the inode is known.
            return words[4].endswith(":00000000") and words[9] != "0"
    return False


def state_of(pid):
    return read_stat(pid).state


def pending(pid, number):
    """Does a signal wait to be handled?"""
    text = open(f"/proc/{pid}/status", encoding="ascii").read()
    masks = re.findall(r"^(?:SigPnd|ShdPnd):\s*(\w+)", text, re.MULTILINE)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


# --- outside Einhorn ------------------------------------------------------------------------------


def test_outside(library):
    """Nothing is there: a clean answer, and a reason where one is asked for."""
    told = library.tell()
    assert told == {
        "worker": False,
        "why": "not a worker of Einhorn: EINHORN_MASTER_PID is not set",
        "index": -1,
        "count": 0,
        "fd": -1,
        "error": "there is no socket 0: 0 were handed in (einhorn -b)",
        "ack": False,
        "ping": False,
        "status": False,
    }


def test_below_a_worker(library):
    """A program that a worker starts inherits its variables and is no worker itself."""
    told = library.tell(
        {
            "EINHORN_MASTER_PID": "1",
            "EINHORN_SOCK_PATH": "/nowhere",
            "EINHORN_FD_COUNT": "1",
            "EINHORN_FD_0": "99",
            "EINHORN_CHILD_INDEX": "3",
        }
    )
    assert told["worker"] is False and told["ack"] is False and told["ping"] is False
    expected = f"EINHORN_MASTER_PID is 1, but the parent is {os.getpid()}"
    assert told["why"] == f"not a worker of Einhorn: {expected}"
    assert told["index"] == 3 and told["count"] == 1 and told["fd"] == -1
    assert "descriptor 99 is no open socket" in told["error"]


def test_no_such_socket(library):
    """What is wrong with the socket that is asked for is said."""
    one = {"EINHORN_FD_COUNT": "1", "EINHORN_FD_0": "0"}
    cases = [
        ({**one}, "descriptor 0 is no open socket"),
        ({**one, "SDK_SOCKET": "1"}, "there is no socket 1: 1 were handed in (einhorn -b)"),
        ({"EINHORN_FD_COUNT": "1"}, "EINHORN_FD_0 is not set, or is no number"),
        (
            {**one, "SDK_SOCKET": "web", "LISTEN_FDNAMES": "admin"},
            'there is no socket named "web"; there are: admin',
        ),
        ({**one, "SDK_SOCKET": "web"}, 'there is no socket named "web"; there are: none'),
    ]
    for env, expected in cases:
        told = library.tell(env)
        assert told["fd"] == -1 and expected in told["error"], env


def test_sockets_of_systemd(library):
    """LISTEN_FDS without Einhorn: for the process that LISTEN_PID names, and for no other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wrapped = scenario.Library(
            library.name,
            ("/bin/sh", "-c", 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"', "-", *library.command),
            library.env,
        )
        env = {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "SDK_SOCKET": "web"}
        place = {"pass_fds": [3], "preexec_fn": lambda: os.dup2(listener.fileno(), 3)}
        told = wrapped.tell(env, **place)
        assert (told["count"], told["fd"], told["error"]) == (1, 3, None)
        told = library.tell({**env, "LISTEN_PID": "1"}, **place)
        assert (told["count"], told["fd"]) == (0, -1)


def test_by_hand(library, tmp_path):
    """Started without Einhorn it serves, tells nobody anything, and leaves when asked to."""
    said = tmp_path / "said"
    with open(said, "wb") as out:
        process = subprocess.Popen(library.command, env=library.environment(), stdout=out)
    try:
        wait_until(lambda: said.read_text().endswith("\n"), 20)
        address = "127.0.0.1:" + re.fullmatch(r"listening on (\d+)\n", said.read_text())[1]
        answer = ask(address)
        assert answer["worker"] is False and answer["index"] in (None, -1)
        assert ask(address, "/ack")["sent"] is False
        assert ask(address, "/ping")["sent"] is False
        with connect(address) as client:
            client.sendall(b"GET / HTTP/1.1\r\n")
            wait_until(lambda: has_read_all(client) and state_of(process.pid) == "S", 10)
            process.send_signal(signal.SIGUSR2)
            wait_until(lambda: not pending(process.pid, signal.SIGUSR2), 10)
            client.sendall(b"Host: test\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200"), "what was begun is answered"
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


# --- in a pool ------------------------------------------------------------------------------------


def test_life(start):
    """A socket by name, an ACK that comes late, a ping, a status, a stop."""
    pool = start(
        *("-m", "manual", "-b", "127.0.0.1:0", "-b", "127.0.0.1:0,name=web"),
        SDK_SOCKET="web",
        SDK_ACK_AT="request",
        SDK_ACK="path",
    )
    (entry,) = pool.wait_state(lambda s: s["workers"])["workers"]
    web = pool.addresses()[1]
    answer = ask(web)
    assert answer == {"pid": entry["pid"], "index": 0, "worker": True, "sent": False}
    assert pool.workers()[0]["state"] == "starting", "it serves, and has not said that it is ready"

    assert ask(web, "/ack")["sent"] is True
    assert pool.wait_ready(1)[0]["pid"] == entry["pid"]
    assert ask(web, "/ping")["sent"] is True
    pool.wait_state(lambda s: s["workers"][0]["pinged_request_id"] == scenario.PING_ID)
    assert ask(web, "/status")["sent"] is True
    pool.wait_state(lambda s: s["workers"][0]["status"] == "warming up")

    assert pool.stop(signal.SIGINT) == 0
    assert re.search(rf"Exited worker {entry['pid']}\b", pool.log())
    assert "ignoring" not in pool.log()


def test_ack_by_descriptor(start):
    """EINHORN_SOCK_FD, and an IPv6 socket."""
    pool = start("-m", "manual", "-g", "-b", "[::1]:0", SDK_ACK="fd")
    (entry,) = pool.wait_ready(1)
    assert ask(pool.address)["pid"] == entry["pid"]


def test_ack_where_the_path_leads_nowhere(start, library):
    """The command socket's path is relative, and the workers are elsewhere: the descriptor is left."""
    pool = start("-m", "manual", "-g", "-d", "./s.sock", "--chdir", "/", "-b", "127.0.0.1:0",
                 SDK_ACK="auto" if library.name != "ruby" else "fd")  # fmt: skip
    pool.wait_ready(1)


def test_ack_by_notification(start):
    """NOTIFY_SOCKET, and a unix socket."""
    pool = start("-m", "notify", "-b", "unix:@DIR@/web.sock", SDK_ACK="notify")
    (entry,) = pool.wait_ready(1)
    address = f"unix:{pool.dir / 'web.sock'}"
    assert ask(address)["pid"] == entry["pid"]
    assert ask(address, "/ack")["sent"] is True, "once more does no harm"
    assert pool.stop(signal.SIGINT) == 0
    assert not (pool.dir / "web.sock").exists()


@pytest.mark.parametrize("library", ["c", "ruby", "python"], indirect=True)
def test_a_child_that_is_told_to_stop_does_not_wake_its_parent(start):
    """The parent sleeps on, serves, and leaves when it is told so itself."""
    pool = start("-m", "manual", "-b", "127.0.0.1:0")
    (entry,) = pool.wait_ready(1)
    for _ in range(3):
        assert ask(pool.address, "/fork")["sent"] is True
        wait_until(lambda: state_of(entry["pid"]) == "S", what="it never sleeps")
    assert ask(pool.address)["pid"] == entry["pid"]
    assert pool.stop(signal.SIGINT) == 0


def test_ack_that_can_not_be_sent(start):
    """Nobody listens where the command socket should be: the library says so, the program leaves."""
    pool = start("-m", "manual", "-d", "./s.sock", "--chdir", "/", "-b", "127.0.0.1:0",
                 SDK_ACK="path")  # fmt: skip
    pool.wait_log(r"Exited worker \d+ before it was ACKed")
    pool.wait_log(r"s\.sock")


def test_upgrade_under_load(start, make_load):
    """Upgrades, a killed master, a request that takes its time: nothing is lost, and whoever is told
    to leave leaves."""
    pool = start("-n", "2", "-m", "manual", "-b", "127.0.0.1:0")
    old = {w["pid"] for w in pool.wait_ready(2)}
    load = make_load(pool.address, connections=8, rate=400)
    load.wait_ok(100)

    go = pool.dir / "go"
    slow = {}
    thread = threading.Thread(target=lambda: slow.update(ask(pool.address, f"/slow?{go}")))
    thread.start()
    try:
        wait_until((pool.dir / "go.begun").exists)
        with pool.client(timeout=30) as client:
            replies = client.conversation({"command": "upgrade", "id": 1})
        assert replies[-1]["message"] == "Upgrade done"
        state = pool.wait_state(lambda s: len(s["workers"]) == 3)
        (left,) = [w for w in state["workers"] if w["version"] == 0]
        assert left["pid"] in old and left["state"] == "stopping", "it still has a request"
        assert sorted(w["state"] for w in state["workers"] if w["version"] == 1) == ["ready"] * 2
        pool.kill_master()
        load.wait_more(100)
    finally:
        go.touch()
        thread.join()
    assert slow["pid"] == left["pid"]
    pool.wait_ready(2)

    with pool.client(timeout=30) as client:
        client.conversation({"command": "upgrade_fleet", "id": 2})
    state = pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [2, 2])
    load.wait_more(100)
    result = load.stop()
    assert result["failures"] == 0, result
    assert {int(pid) for pid in result["by_pid"]} > old
    assert pool.stop(signal.SIGINT) == 0
    assert pool.count_log(r"Exited worker \d+$") == 6, "each once, and none before its ACK"
    assert not pool.count_log(r"Worker \d+ (exited with|was killed|died)"), "and by itself"
    pool.wait_gone()


# --- READMEs and packages -------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_readme_example(make_pool, tmp_path, libraries, language):
    """The example of the README, as it stands there, serves, and survives an upgrade."""
    command = scenario.example_command(language, tmp_path, libraries)
    pool = make_pool(
        ["-m", "manual", "-n", "2", "-b", "127.0.0.1:0,name=web"],
        command,
        env=libraries[language].env,
    )
    pool.wait_ready(2)
    assert request(pool.address) == "hello\n"
    with pool.client(timeout=30) as client:
        client.conversation({"command": "upgrade", "id": 1})
    pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [1, 1])
    assert request(pool.address) == "hello\n"
    assert pool.stop(signal.SIGINT) == 0
    assert pool.count_log("Exited worker") == 4 == pool.count_log(r"Exited worker \d+$")


def test_versions_agree():
    """Every library has the version of Einhorn, wherever it is written."""
    text = (ROOT / "CMakeLists.txt").read_text()
    version = re.search(r"project\(einhorn VERSION ([\d.]+)", text)[1]
    places = {
        "c/CMakeLists.txt": rf"VERSION {version} ",
        "c/include/einhorn/worker.h": rf'EINHORN_WORKER_VERSION "{version}"',
        "python/einhorn_worker.py": rf'__version__ = "{version}"',
        "ruby/einhorn-worker.gemspec": rf'gem.version = "{version}"',
        "go/einhorn.go": rf'Version = "{version}"',
        "php/src/Worker.php": rf"VERSION = '{version}'",
        "perl/lib/Einhorn/Worker.pm": rf"VERSION = '{version}'",
    }
    for name, pattern in places.items():
        assert re.search(pattern, (SDK / name).read_text()), f"sdk/{name}: {pattern}"
    for name in ("node/package.json", "php/composer.json"):
        assert json.loads((SDK / name).read_text())["version"] == version, name
    with open(SDK / "python/pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == version


def test_python_drains_asyncio():
    """A connection that asyncio has accepted, and done nothing else with, is answered."""
    program = """
import asyncio, socket, einhorn_worker

async def answer(reader, writer):
    writer.write(await reader.readexactly(1))
    await writer.drain()
    writer.close()

async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = await asyncio.start_server(answer, sock=listener)
    client = socket.create_connection(listener.getsockname())
    client.send(b"x")
    before = len(asyncio.all_tasks())
    while len(asyncio.all_tasks()) == before:
        await asyncio.sleep(0)  # until it is accepted, and not one turn longer
    await einhorn_worker.drain(server)
    print(client.recv(1) == b"x", server.is_serving())

asyncio.run(main())
"""
    said = scenario.run("/usr/bin/python3", "-c", program, env={"PYTHONPATH": str(SDK / "python")})
    assert said == "True False\n"


def test_cmake_package(tmp_path, libraries):
    """find_package(einhorn-worker) finds what was installed."""
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(server LANGUAGES CXX)\n"
        "find_package(einhorn-worker 0.1 REQUIRED)\nadd_executable(server server.cpp)\n"
        "target_link_libraries(server Einhorn::worker)\n"
    )
    (tmp_path / "server.cpp").write_text(
        "#include <einhorn/worker.hpp>\nint main() { return einhorn::is_worker() ? 1 : 0; }\n"
    )
    out = tmp_path / "build"
    scenario.run("cmake", "-S", tmp_path, "-B", out, f"-DCMAKE_PREFIX_PATH={scenario.BUILD}/prefix")
    scenario.run("cmake", "--build", out)
    scenario.run(out / "server")


def test_perl_makefile(tmp_path):
    """perl Makefile.PL comes through without a warning."""
    scenario.shutil.copytree(SDK / "perl", tmp_path / "perl")
    said = scenario.run("/usr/bin/perl", "Makefile.PL", cwd=tmp_path / "perl")
    assert (tmp_path / "perl" / "Makefile").exists() and "arning" not in said, said


def test_every_function_is_documented_for_node():
    """What index.js exports, index.d.ts declares, and nothing else."""
    code = (SDK / "node/index.js").read_text()
    exported = set(re.findall(r"\w+", code.split("module.exports = {")[1].split("}")[0]))
    types = (SDK / "node/index.d.ts").read_text()
    declared = set(re.findall(r"^export (?:function|class) (\w+)", types, re.MULTILINE))
    assert exported == declared


def test_ruby_has_the_interface_of_ruby_einhorn(make_pool, libraries):
    """Einhorn::Worker and Einhorn::Client: arguments, results, exceptions."""
    program = ["/usr/bin/ruby", "-W", str(SDK / "ruby/tests/compatibility.rb"), "found"]
    pool = make_pool(
        ["-m", "manual", "-g", "-b", "127.0.0.1:0", "-b", "127.0.0.1:0"],
        program,
        env=libraries["ruby"].env,
    )
    wait_until((pool.dir / "found").exists, 10, pool.log)
    found = json.loads((pool.dir / "found").read_text())
    (entry,) = pool.wait_ready(1)
    worker_error = "Einhorn::Worker::WorkerError < RuntimeError"
    runtime_error = "RuntimeError < StandardError"
    assert found.pop("ehlo")["message"].startswith("Welcome, me 100%! You are speaking to Einhorn")
    assert found == {
        "is_worker?": True,
        "ensure_worker!": True,
        "einhorn_child_index": 0,
        "socket": 3,
        "socket(1)": 4,
        "socket(7)": None,
        "socket!": 3,
        "socket!(1)": 4,
        "socket!(7)": runtime_error,
        "einhorn_fd(0)": 3,
        "einhorn_fd(7)": None,
        "einhorn_fd_count": 2,
        "TCPServer": True,
        "ack! bad": runtime_error,
        "ack! direct": True,
        "ack! nowhere": "Errno::ENOENT < SystemCallError",
        "ack! fd kept": True,
        "fd kept": False,
        "ping!": True,
        "ping! env": True,
        "ack": True,
        "ack!": True,
        "graceful_shutdown": "DEFAULT",
        "signal": signal.SIGUSR2,
        "other is_worker?": False,
        "other ensure_worker!": worker_error,
        "other ack": None,
        "other ack!": worker_error,
        "other ping!": worker_error,
        "none ensure_worker!": worker_error,
        "none socket": None,
        "none socket!": runtime_error,
        "none einhorn_fd_count": 0,
        "none einhorn_child_index": None,
        "no fd": runtime_error,
        "state id": ":two",
        "state": ["worker", "Set", "7"],
        "client close": None,
        "round trip": True,
        "one line": 1,
        "bad class": "Psych::DisallowedClass < Psych::Exception",
        "bad yaml": "Psych::SyntaxError < Psych::Exception",
        "ParseError": "Psych::SyntaxError",
        "for_fd": [{"command": "x"}, "EOFError"],
    }
    assert entry["pinged_request_id"] == 7
