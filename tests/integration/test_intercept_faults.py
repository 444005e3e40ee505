"""--intercept while those who make it work are killed, under load; and where it ends and says so."""

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess

import pytest
from harness import wait_until
from harness.programs import worker

from test_intercept import PYTHON, SERVER, answers_of_all, make_either, python, supervisor_of  # noqa: F401

# A request takes a moment, so that one is always under way.
BUSY = [worker("http_worker"), "--adopt=bind:3000", "--request-delay-ms=5"]
FLAGS = ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web", "--stop-signal", "USR2"]


def kill_supervisor(pool, killed):
    """-9 to the one that is there; an upgrade renews it with the master."""
    pid = wait_until(lambda: supervisor_of(pool), 20, pool.log)
    killed.add(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def over(version):
    return lambda s: s["upgrade"] is None and [(w["version"], w["state"]) for w in s["workers"]] == [
        (version, "ready")
    ] * 2


@pytest.mark.parametrize("how", ["running", "stopped", "with its master"])
def test_supervisor_killed_under_load(make_either, make_load, how):  # noqa: F811
    """Upgrades go on, programs wait for the next supervisor, and no request is lost. `stopped`: it
    has not read what the programs ask when it dies."""
    pool = make_either(FLAGS, BUSY)
    pool.wait_ready(2)
    load = make_load(pool.address, connections=6, rate=400)
    killed = set()
    for version in range(1, 6):
        load.wait_more(30)
        pool.command("upgrade")
        pool.wait_state(lambda s, v=version: s["version"] == v, 20)
        if how == "stopped":
            with contextlib.suppress(ProcessLookupError):
                os.kill(wait_until(lambda: supervisor_of(pool), 20, pool.log), signal.SIGSTOP)
            pool.wait_state(
                lambda s: s["upgrade"] is None or any(w["state"] == "starting" for w in s["workers"]), 20
            )
        kill_supervisor(pool, killed)
        if how == "with its master":
            with contextlib.suppress(ProcessLookupError):
                os.kill(pool.master_pid, signal.SIGKILL)
        pool.wait_state(over(version), 40)
    wait_until(lambda: supervisor_of(pool) not in {0, *killed}, 20, pool.log)
    load.wait_more(30)
    result = load.stop()
    assert result["failures"] == 0, result
    assert len(killed) == 5
    assert pool.stop() == 0
    pool.wait_gone()


def test_supervisor_is_told_again_by_each_master(make_pool):
    """Who is watched already is not watched twice, and who is gone is forgotten."""
    pool = make_pool(FLAGS + ["--intercept=seccomp"], BUSY)
    pool.wait_ready(2)
    supervisor = wait_until(lambda: supervisor_of(pool), 20, pool.log)

    def threads():
        return len(os.listdir(f"/proc/{supervisor}/task"))

    def open_files():
        return len(os.listdir(f"/proc/{supervisor}/fd"))

    before = (threads(), open_files())
    for _ in range(4):
        pool.kill_master()
        pool.kill_worker(pool.wait_ready(2)[0]["pid"])
        pool.wait_ready(2)
    wait_until(lambda: (threads(), open_files()) == before, 10, lambda: (before, threads(), open_files()))
    assert supervisor_of(pool) == supervisor
    answers_of_all(pool, pool.address)


# --- where seccomp is refused, and what a program may not be -----------------------------------------

DENY = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 317), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("HBBI", *rule) for rule in rules)
buffer = ctypes.create_string_buffer(code)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
program = Program(len(rules), ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.root
@pytest.mark.parametrize("flag", ["--intercept", "--intercept=auto"])
def test_auto_takes_the_library_where_seccomp_is_refused(make_pool, flag):
    pool = make_pool(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", flag, "--intercept", "3000=web"],
        python(SERVER, "127.0.0.1", 3000),
        wrapper=[PYTHON, "-c", DENY],
    )
    pool.wait_ready(2)
    assert "seccomp: Operation not permitted" in pool.log()
    assert "A library is preloaded instead" in pool.log()
    answers_of_all(pool, pool.address)


def test_auto_takes_seccomp_where_it_can(make_pool):
    pool = make_pool(
        ["-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(SERVER, "127.0.0.1", 3000)
    )
    (entry,) = pool.wait_ready(1)
    with open(f"/proc/{entry['pid']}/status", encoding="ascii") as status:
        assert "Seccomp:\t2" in status.read()
    with open(f"/proc/{entry['pid']}/environ", "rb") as environment:
        assert b"libeinhorn-intercept" not in environment.read()


def test_the_library_does_not_reach_a_static_program(make_pool, tmp_path):
    (tmp_path / "static.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "static", tmp_path / "static.c"], check=True)
    pool = make_pool(["-b", "127.0.0.1:0", "--intercept=preload"], [tmp_path / "static"])
    assert pool.wait_exit() == 1
    assert "can't be intercepted by a preloaded library: it is statically linked" in pool.log()
    assert pool.log().count("\n") <= 2


def set_user_id(path):
    path.chmod(0o4755)


def with_capability(path):
    """The right to bind low ports, as setcap would give it."""
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))


@pytest.mark.root
@pytest.mark.parametrize("raise_rights", [set_user_id, with_capability])
@pytest.mark.parametrize(
    "way, said",
    [
        ("seccomp", "it will run without them"),
        ("preload", "the loader ignores LD_PRELOAD for it, so what it binds is its own"),
    ],
)
def test_programs_with_rights_of_their_own_are_warned_of(make_pool, way, said, raise_rights):
    pool = make_pool(
        [f"--intercept={way}", "-b", "127.0.0.1:0", "-m", "0.05"], ["@PROGRAM@", "1000"], start=False
    )
    program = pool.dir / "sleep"
    shutil.copy("/bin/sleep", program)
    raise_rights(program)
    pool.worker_command = [str(program), "1000"]
    os.chmod(pool.dir, 0o755)
    os.chown(pool.dir, 65534, 65534)
    pool.wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    pool.start()
    (entry,) = pool.wait_ready(1)
    assert f"{program} is set-user-id, set-group-id or has capabilities: " in pool.log()
    assert said in pool.log()
    with open(f"/proc/{entry['pid']}/status", encoding="ascii") as status:
        lines = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    effective = lines["Uid"].split("\t")[1]
    if way == "seccomp":
        assert lines["NoNewPrivs"] == "1" and effective == "65534" and int(lines["CapEff"], 16) == 0
    elif raise_rights is set_user_id:
        assert effective == "0", "the library takes no rights away"


# --- unix sockets -----------------------------------------------------------------------------------

# As most programs treat the file: it is removed before bind, and at the end.
UNIX = """
import os, signal, socket, sys
path = sys.argv[1]
if os.path.exists(path): os.unlink(path)
s = socket.socket(socket.AF_UNIX)
s.bind("\\0" + path[1:] if path.startswith("@") else path)
s.listen(5)
def leave(*_):
    if os.path.exists(path): os.unlink(path)
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
while True:
    c = s.accept()[0]
    c.sendall(b"%d" % os.getpid())
    c.close()
"""


def ask_unix(path):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect("\0" + path[1:] if path.startswith("@") else path)
        return int(stream.recv(100))


def answered_by_all(pool, path):
    seen = set()

    def look():
        seen.add(ask_unix(path))
        return seen >= set(pool.pids())

    wait_until(look, 20, lambda: f"{pool.pids()} answer, {seen} did\n{pool.log()}")


@pytest.mark.parametrize("rewritten", [False, True], ids=["same", "rewritten"])
def test_a_unix_socket_whose_file_programs_remove(make_either, tmp_path, rewritten):  # noqa: F811
    path = str(tmp_path / "app.sock")
    wanted = str(tmp_path / "elsewhere") if rewritten else path
    pool = make_either(
        ["-n", "2", "-b", f"unix:{path},name=app", "--drain", "10"]
        + (["--intercept", f"unix:{wanted}=app"] if rewritten else []),
        python(UNIX, wanted),
    )
    pool.wait_ready(2)
    answered_by_all(pool, path)
    inode = os.stat(path).st_ino
    for version in (1, 2):
        old = set(pool.pids())
        pool.command("upgrade")
        pool.wait_state(lambda s, v=version: s["version"] == v and s["upgrade"] is None, 30)
        wait_until(lambda gone=old: not gone & set(pool.pids()), 20, pool.log)
        wait_until(lambda: os.path.exists(path), 10, "the file comes back")
        answered_by_all(pool, path)
    assert os.stat(path).st_ino == inode, "it is the same socket"
    assert not rewritten or not os.path.exists(wanted)
    assert pool.stop() == 0
    pool.wait_gone()
    assert not os.path.exists(path) and os.listdir(tmp_path) == []


def test_an_abstract_unix_socket(make_either):  # noqa: F811
    name = f"@einhorn-test-{os.getpid()}-{os.urandom(4).hex()}"
    pool = make_either(["-n", "2", "-b", f"unix:{name}"], python(UNIX, name))
    pool.wait_ready(2)
    answered_by_all(pool, name)


# --- addresses that are rewritten --------------------------------------------------------------------


def test_a_rule_with_an_address_is_for_that_address_only(make_either):  # noqa: F811
    text = """
import socket, sys
one = socket.create_server(("127.0.0.1", 3000))
print("one", one.getsockname()[1], flush=True)
two = socket.socket()
two.bind(("127.0.0.2", 0))
print("two", two.getsockname()[1], flush=True)
while True: one.accept()[0].close()
"""
    pool = make_either(
        ["-b", "127.0.0.1:0,name=web", "--intercept", "127.0.0.1:3000=web", "--intercept-all"],
        python(text),
    )
    pool.wait_ready(1)
    wait_until(lambda: "two" in pool.stdout_text(), 10, pool.log)
    words = pool.stdout_text().split()
    assert words[1] == pool.address.rsplit(":", 1)[1] and words[3] != words[1]


def test_the_port_of_a_b_is_enough(make_either):  # noqa: F811
    """No rule: the program binds the port of a -b, on whatever address."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))  # so that nobody else gets it meanwhile; it does not listen
        port = held.getsockname()[1]
        pool = make_either(
            ["-n", "2", "-b", f"127.0.0.1:{port},r"], python(SERVER, "0.0.0.0", port)
        )
        pool.wait_ready(2)
        answers_of_all(pool, f"127.0.0.1:{port}")
