"""Other users of the machine: what they can't see of a running pool, and can't do to it."""

import json
import os
import signal
import socket
import subprocess

import pytest
from harness import descendants, program, stranger
from harness.load import connect
from harness.processes import open_descriptors
from harness.stranger import as_stranger, attempts

pytestmark = pytest.mark.root

REFUSED = "PermissionError"
GONE = "FileNotFoundError"


@pytest.fixture
def open_pool(make_pool, shared_directory):
    """A pool in a directory for everybody, started with an umask that hides nothing."""

    def start(*args, **kwargs):
        kwargs.setdefault("preexec", lambda: os.umask(0) and None)
        return make_pool(*args, directory=shared_directory, **kwargs)

    return start


def mode_of(path):
    return os.lstat(path).st_mode & 0o7777


def processes_of(pool):
    state = pool.state_json()
    return state["guard"], state["master"]


# --- files and sockets ----------------------------------------------------------------------------


def test_files_have_their_modes_from_the_start(open_pool):
    pool = open_pool(["-n", "1", "-m", "0.05", "--log-file", "@DIR@/pool.log"])
    pool.wait_ready(1)
    modes = {p.name: mode_of(p) for p in pool.dir.iterdir() if p.name not in ("log", "stdout")}
    assert modes == {
        "einhorn.sock": 0o600,
        "einhorn.sock.notify": 0o600,
        "einhorn.lock": 0o600,
        "einhorn.pid": 0o644,
        "pool.log": 0o640,
    }


def test_nobody_else_can_use_or_replace_the_files(open_pool):
    pool = open_pool(["-n", "1", "-m", "0.05", "--log-file", "@DIR@/pool.log"])
    pool.wait_ready(1)
    found = attempts(
        "socket.socket(socket.AF_UNIX).connect(sock)",
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', sock + '.notify')",
        "open(lock)",
        "open(log)",
        "open(pid, 'a')",
        *(f"os.unlink({name})" for name in ("sock", "sock + '.notify'", "lock", "pid", "log")),
        *(f"os.rename({name}, there)" for name in ("sock", "sock + '.notify'", "lock", "pid")),
        *(f"os.replace(mine, {name})" for name in ("sock", "lock", "pid", "log")),
        sock=pool.path("sock"),
        lock=pool.path("lock"),
        pid=pool.path("pid"),
        log=pool.dir / "pool.log",
        there=pool.dir / "taken",
        mine="/proc/self/environ",
    )
    found = {
        text: answer
        for text, answer in found.items()
        if answer != REFUSED and not (text.startswith("os.replace") and answer == "OSError")
    }
    assert found == {}
    assert attempts("open(pid).read()", pid=pool.path("pid")) == {"open(pid).read()": "done"}
    assert "Welcome" in pool.command("ehlo", user="me")


def test_nobody_else_replaces_them_by_files_of_their_own(open_pool):
    pool = open_pool(["-n", "1", "-m", "0.05"])
    pool.wait_ready(1)
    with as_stranger():
        (pool.dir / "mine").write_text("x")
    expressions = [f"os.replace(mine, {name})" for name in ("sock", "lock", "pid")]
    found = attempts(
        *expressions,
        mine=pool.dir / "mine",
        **{kind: pool.path(kind) for kind in ("sock", "lock", "pid")},
    )
    assert set(found.values()) == {REFUSED}
    assert pool.path("pid").read_text() == str(pool.guard_pid)


@pytest.mark.parametrize(
    "options, umask, mode",
    [
        ("mode=0600", 0, 0o600),
        ("mode=0660", 0o077, 0o660),
        ("", 0o077, 0o700),
        ("", 0o022, 0o755),
        ("mode=0666", 0o077, 0o666),
    ],
)
def test_unix_listeners_have_the_mode_asked_for(open_pool, options, umask, mode):
    """Without mode= it is the umask's business, as for every program that binds one."""
    address = "unix:@DIR@/web.sock" + ("," + options if options else "")
    pool = open_pool(["-b", address, "-n", "1", "-m", "0.05"], preexec=lambda: os.umask(umask))
    pool.wait_ready(1)
    path = pool.dir / "web.sock"
    assert mode_of(path) == mode
    found = attempts("socket.socket(socket.AF_UNIX).connect(path)", path=path)
    assert list(found.values()) == ["done" if mode & 0o002 else REFUSED]
    connect(f"unix:{path}").close()


# --- processes ------------------------------------------------------------------------------------


def test_nobody_else_looks_into_the_processes(open_pool):
    pool = open_pool(["-n", "1", "-m", "0.05"], env={"TOKEN": "very-secret"})
    pool.wait_ready(1)
    for pid in processes_of(pool):
        found = attempts(
            "os.listdir(proc + '/fd')",
            "open(proc + '/environ').read()",
            "open(proc + '/mem', 'rb').read(1)",
            "os.readlink(proc + '/exe')",
            "os.readlink(proc + '/cwd')",
            *(f"open(proc + '/fd/{number}')" for number in open_descriptors(pid)),
            "os.kill(int(proc.split('/')[-1]), 0)",
            proc=f"/proc/{pid}",
        )
        assert set(found.values()) == {REFUSED}, found


def memory_files(pid):
    """{name: mode} of a process's memory files."""
    found = {}
    for number, target in open_descriptors(pid).items():
        if target.startswith("/memfd:"):
            found[target.split()[0][7:]] = os.stat(f"/proc/{pid}/fd/{number}").st_mode & 0o7777
    return found


def test_memory_files_are_for_their_owner_alone(open_pool):
    """Also those of later masters, and in an upgrade."""
    pool = open_pool(["-n", "1", "-m", "0.05"])
    pool.wait_ready(1)
    for after in (lambda: None, pool.kill_master, lambda: pool.command("upgrade")):
        after()
        pool.wait_ready(1)
        for pid in processes_of(pool):
            assert memory_files(pid) == {"einhorn-snapshot": 0o600}


def test_secrets_stay_where_they_are(open_pool):
    """Nothing that Einhorn says holds a value of the environment."""
    secret = "s3cret-of-the-test"
    pool = open_pool(
        ["-n", "2", "-m", "0.05", "-v", "-v", "--log-file", "@DIR@/pool.log"],
        env={"DATABASE_PASSWORD": secret, "API_KEY": secret + "\nX=1"},
    )
    pool.wait_ready(2)
    said = [
        pool.command("state"),
        pool.command("state", "json", id=1),
        pool.command("state", language="yaml"),
        pool.command("status"),
        pool.command("help"),
        pool.command("config", {"seconds": "x"}),
        pool.command("nonsense"),
        pool.command("ehlo", user="$DATABASE_PASSWORD"),
    ]
    with pool.client() as client:
        said += [reply["message"] for reply in client.conversation({"command": "upgrade", "id": 1})]
    pool.wait_ready(2)
    pool.kill_master()
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_ready(2)
    for pid in processes_of(pool):
        for name in ("cmdline", "comm", "status"):
            with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
                said.append(file.read())
    assert pool.stop() == 0
    said += [(pool.dir / "pool.log").read_text(), pool.log(), pool.stdout_text()]
    assert "Upgraded successfully" in said[-3]
    for text in said:
        assert secret not in text


# --- the command socket, open to everybody --------------------------------------------------------

SAY = """
import json, socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(10)
stream.connect(sys.argv[1])
stream.sendall(sys.argv[2].encode() + b"\\n")
answer = b""
while b"\\n" not in answer:
    got = stream.recv(65536)
    if not got:
        break
    answer += got
print(json.dumps(answer.decode()))
"""


def say(pool, command, **fields):
    """One command of the stranger's; the answer's line, "" if there is none."""
    return stranger.run(SAY, pool.path("sock"), json.dumps({"command": command, **fields}))


COMMANDS = (
    "state status inc dec die upgrade upgrade_fleet rollback reload louder quieter config signal "
    "set_workers help guard:takeover"
)


def test_nobody_else_commands_even_if_everybody_may_connect(open_pool):
    pool = open_pool(["-n", "2", "-m", "0.05", "--socket-mode", "0666"])
    before = [w["pid"] for w in pool.wait_ready(2)]
    for command in COMMANDS.split():
        answer = json.loads(say(pool, command, id=1, args=["1"]))
        assert answer["message"] == (
            "Permission denied: only root and the user that Einhorn runs as may say "
            f'"{command}"'
        )
    assert sorted(before) == pool.pids()
    assert "Welcome" in pool.command("ehlo", user="me")


def test_a_pool_without_a_guard_is_not_given_to_anybody_else(open_pool):
    pool = open_pool(["-n", "1", "-m", "0.05", "--socket-mode", "0666"])
    pool.wait_ready(1)
    os.kill(pool.guard_pid, signal.SIGKILL)
    pool.wait_log("The guard is gone")
    assert "Permission denied" in say(pool, "guard:takeover", id=1)
    assert len(pool.pids()) == 1


def test_nobody_else_speaks_for_a_worker(open_pool):
    pool = open_pool(["-n", "2", "-m", "manual", "--socket-mode", "0666"], "sleep 1000")
    pids = [w["pid"] for w in pool.wait_state(lambda s: len(s["workers"]) == 2)["workers"]]
    for pid in pids:
        assert say(pool, "worker:ack", pid=pid) == ""
        pool.wait_log(rf"\(user {stranger.UID}\) tried to ACK for worker {pid} but is neither it")
        assert say(pool, "worker:ping", pid=pid, request_id="x") == ""
        pool.wait_log(rf"sent a ping for PID {pid}, which is not its worker")
    assert not any(w["acked"] or w["pinged_at"] for w in pool.workers())


def test_nobody_else_notifies_for_a_worker(open_pool):
    pool = open_pool(["-n", "1", "-m", "notify", "--socket-mode", "0666", "-v"], "sleep 1000")
    pool.wait_state(lambda s: s["workers"])
    text = "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', path)"
    assert attempts(text, path=str(pool.path("sock")) + ".notify") == {text: "done"}
    pool.wait_log("A notification from process [0-9]+, which belongs to no worker")
    assert not any(w["acked"] for w in pool.workers())


MANY = """
import socket, sys
held = []
for _ in range(700):
    stream = socket.socket(socket.AF_UNIX)
    stream.settimeout(20)
    stream.connect(sys.argv[1])
    stream.sendall(b'{"command":"ehlo","user":"x"}\\n')
    held.append(stream)
print("held", flush=True)
sys.stdin.read()
"""


def test_nobody_else_takes_the_places_of_those_who_command(open_pool):
    """More connections than there are places: none of Einhorn's own user's goes for them."""
    pool = open_pool(["-n", "1", "-m", "0.05", "--socket-mode", "0666"])
    pool.wait_ready(1)
    with pool.client() as silent:  # first to go among equals: it has never said a word
        with subprocess.Popen(
            ["/usr/bin/python3", "-c", MANY, str(pool.path("sock"))],
            user=stranger.UID,
            group=stranger.UID,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as many:
            assert many.stdout.readline() == b"held\n"
            assert "Welcome" in silent.request({"command": "ehlo", "user": "me"})["message"]
            assert "Welcome" in pool.command("ehlo", user="me")
            many.stdin.close()


# In the pool's own pid namespace, as root: the stranger connects and ends, leaving the connection
# to a child; the next worker gets its pid; and the child sends an ACK from "that process".
USED_AGAIN = """
import json, os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])

def command(document):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(10)
        stream.connect(path)
        stream.sendall(json.dumps(document).encode() + b"\\n")
        return json.loads(stream.makefile().readline())["message"]

def workers():
    state = json.loads(command({"command": "state", "args": ["json"]}))
    return {w["pid"]: w for w in state["workers"]}

for attempt in range(20):
    say_end, say_begin = os.pipe()
    known_end, known_begin = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(path)
        if os.fork() == 0:
            os.close(say_begin)
            number = os.read(say_end, 16)
            if number:
                stream.sendall(b'{"command":"worker:ack","pid":%d}\\n' % int(number))
                stream.settimeout(10)
                stream.recv(1)  # closed: the master has dealt with it
            os.write(known_begin, b"x")
        os._exit(0)
    os.waitpid(pid, 0)
    before = workers()
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(pid - 1))
    command({"command": "inc"})
    while len(workers()) == len(before):
        pass
    met = pid in workers()
    os.write(say_begin, b"%d" % pid) if met else None
    os.close(say_begin)
    os.read(known_end, 1)
    if met:
        print(json.dumps(workers()[pid]["acked"]))
        break
else:
    raise SystemExit("no worker got the pid")
"""


def test_a_pid_that_was_used_before_is_no_proof(open_pool):
    pool = open_pool(
        ["-n", "1", "-m", "manual", "--socket-mode", "0666", "--max-unacked", "99"],
        "sleep 1000",
        wrapper=["unshare", "--pid", "--fork", "--mount-proc"],
    )
    pool.wait_state(lambda s: s["workers"])
    (guard,) = [s for s in descendants(pool.process.pid) if s.ppid == pool.process.pid]
    done = subprocess.run(
        ["nsenter", f"--target={guard.pid}", "--pid", "--mount", "/usr/bin/python3", "-c"]
        + [USED_AGAIN, str(pool.path("sock")), str(stranger.UID)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) is False
    pool.wait_log(rf"\(user {stranger.UID}\) tried to ACK")
    os.kill(guard.pid, signal.SIGTERM)
    assert pool.wait_exit() == 0


# --- what a stranger could hand to a process with more rights -------------------------------------


def run_einhorn(*arguments, **kwargs):
    """Runs einhorn to its end."""
    return subprocess.run(
        [program("einhorn"), *arguments], capture_output=True, text=True, timeout=20, **kwargs
    )


def make_file():
    number = os.memfd_create("state")
    os.write(number, b"einhorn-guard 1\nhow 1\nmaster 2 3\n")
    return number


def make_pipe():
    end, begin = os.pipe()
    os.write(begin, b"---\n:state: {}\n")
    os.close(begin)
    return end


def make_socket():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.detach()
    return ours.detach()


@pytest.mark.parametrize("make", [make_file, make_pipe, make_socket])
def test_a_state_of_somebody_else_is_not_taken(make):
    with as_stranger():
        number = make()
    try:
        done = run_einhorn("--with-state-fd", str(number), "--", "/bin/true", pass_fds=(number,))
    finally:
        os.close(number)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"einhorn: --with-state-fd {number}: it belongs to user {stranger.UID}; "
        "this option is for Einhorn's own use\n"
    )


@pytest.mark.parametrize("name", ["einhorn", "einhornsh"])
@pytest.mark.parametrize("ids", ["user", "group"])
def test_set_user_id_is_refused(name, ids):
    """As if the program's file had that bit; it would run what its caller's environment says."""

    def change():
        if ids == "user":
            os.setresuid(stranger.UID, 0, 0)
        else:
            os.setresgid(stranger.UID, 0, 0)

    done = subprocess.run(
        [program(name), "--version"], capture_output=True, text=True, timeout=20, preexec_fn=change
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "set-user-ID" in line


# --- leaving --------------------------------------------------------------------------------------


def test_what_lies_at_the_pid_files_place_stops_nobody_from_leaving(make_pool):
    """A pipe there must not keep the guard waiting, and is not ours to remove."""
    pool = make_pool(["-n", "1", "-m", "0.05"])
    pool.wait_ready(1)
    pool.path("pid").unlink()
    os.mkfifo(pool.path("pid"))
    assert pool.stop() == 0
    assert pool.path("pid").is_fifo()
