"""Programs that know nothing of Einhorn: they bind themselves, and share the pool's sockets."""

import json
import os
import signal
import socket
import subprocess

import pytest
from harness import http_get, wait_until
from harness.processes import borrow_socket, descendants, open_descriptors

PYTHON = "/usr/bin/python3"
HAS_IPV6 = os.path.exists("/proc/net/if_inet6")

# A server as anybody writes one: it tells its pid, and finishes what it is doing on SIGTERM.
SERVER = """
import http.server, json, os, signal, socket, sys, threading
host, port = sys.argv[1], int(sys.argv[2])
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    daemon_threads = False
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = json.dumps({"pid": os.getpid(), "name": name}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = Server((host, port), Handler)
name = server.socket.getsockname()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(0.02)
server.server_close()
"""


def python(text, *arguments):
    return [PYTHON, "-c", text, *map(str, arguments)]


@pytest.fixture(params=["seccomp", "preload"])
def make_either(request, make_pool):
    """Makes pools that intercept in either way: what a program sees is the same."""

    def make(flags, *arguments, **kwargs):
        return make_pool([f"--intercept={request.param}", *flags], *arguments, **kwargs)

    return make


def supervisor_of(pool):
    """The pid of the pool's supervisor, 0 if there is none just now."""
    for stat in pool.processes():
        if stat.name == "einhorn-watch" and stat.state not in "ZX":
            return stat.pid
    return 0


def port_of(pool, position=0):
    return int(pool.state_json()["sockets"][position]["address"].rsplit(":", 1)[1])


def answers_of_all(pool, address):
    """Asks until every worker has answered."""
    pids = set()

    def all_answered():
        pids.add(http_get(address)["pid"])
        return pids == set(pool.pids())

    wait_until(all_answered, 20, lambda: f"answers from {pool.pids()}, got {pids}")


def answers_by_connection(pool, address):
    """The same for programs that do not tell their pid: who holds the accepted connection."""
    host, port = address.rsplit(":", 1)
    seen = set()

    def all_answered():
        with socket.create_connection((host, int(port)), timeout=10) as stream:
            own = stream.getsockname()[1]
            seen.update(wait_until(lambda: owners(own, int(port)), 10, "somebody who accepts"))
            stream.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert stream.recv(65536).startswith(b"HTTP/1.")
        return len(seen) >= len(pool.pids())

    wait_until(all_answered, 20, lambda: f"connections to {pool.pids()}, got {seen}")


def owners(client_port, server_port):
    """Pids of our descendants that hold the server's end of that connection."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not os.path.exists(table):
            continue
        with open(table, encoding="ascii") as file:
            for line in list(file)[1:]:
                words = line.split()
                local, remote = (int(words[i].rsplit(":", 1)[1], 16) for i in (1, 2))
                if (local, remote) == (server_port, client_port):
                    inodes.add(f"socket:[{words[9]}]")
    found = set()
    for stat in descendants():
        try:
            if inodes & set(open_descriptors(stat.pid).values()):
                found.add(stat.pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def test_unmodified_server_of_python(make_either):
    pool = make_either(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        [PYTHON, "-m", "http.server", "-b", "127.0.0.1", "3000"],
    )
    pool.wait_ready(2)
    assert pool.count_log("listens, ") == 2, "each was ACKed when it called listen"
    answers_by_connection(pool, pool.address)
    assert pool.stop() == 0, "the stop signal is TERM"
    pool.wait_gone()


def test_getsockname_and_backlog(make_either):
    pool = make_either(
        ["-n", "2", "-b", "127.0.0.1:0,name=web,backlog=77", "--intercept=3000=web"],
        python(SERVER, "127.0.0.1", 3000),
    )
    pool.wait_ready(2)
    assert http_get(pool.address)["name"] == ["127.0.0.1", port_of(pool)]
    answers_of_all(pool, pool.address)
    listing = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout
    waiting = [line.split()[2] for line in listing.splitlines() if f":{port_of(pool)} " in line]
    assert waiting == ["77"], "the program's own backlog (5) does not count"


def test_upgrades_under_load_lose_nothing(make_either, make_load):
    pool = make_either(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(SERVER, "127.0.0.1", 3000),
    )
    pool.wait_ready(2)
    load = make_load(pool.address, connections=4, rate=300)
    for version in (1, 2):
        load.wait_more(50)
        pool.command("upgrade")
        pool.wait_state(lambda s, v=version: s["version"] == v and s["upgrade"] is None, 30)
        pool.wait_ready(2)
    load.wait_more(50)
    result = load.stop()
    assert result["failures"] == 0, result


@pytest.mark.parametrize(
    "bind, host, reached",
    [
        ("0", "0.0.0.0", ["127.0.0.1"]),
        ("0", "::", ["127.0.0.1", "::1"]),
        ("127.0.0.1:0", "0.0.0.0", ["127.0.0.1"]),
        ("127.0.0.1:0", "::", ["127.0.0.1"]),
        ("0.0.0.0:0", "::", ["127.0.0.1"]),
        ("[::1]:0", "::", ["::1"]),
        ("[::]:0,v6only", "::1", ["::1"]),
        ("localhost:0", "127.0.0.1", ["127.0.0.1"]),
    ],
)
def test_families(make_either, bind, host, reached):
    if not HAS_IPV6:
        pytest.skip("no IPv6 here")
    pool = make_either(
        ["-n", "2", "-b", f"{bind},name=web", "--intercept", "3000=web"], python(SERVER, host, 3000)
    )
    pool.wait_ready(2)
    for where in reached:
        answers_of_all(pool, f"[{where}]:{port_of(pool)}" if ":" in where else f"{where}:{port_of(pool)}")


def test_impossible_family_is_refused_and_said(make_either):
    if not HAS_IPV6:
        pytest.skip("no IPv6 here")
    pool = make_either(
        ["-b", "[::1]:0,name=web", "--intercept", "3000=web"], python(SERVER, "0.0.0.0", 3000)
    )
    pool.wait_log(r"can't have 0\.0\.0\.0:3000: the program asks for IPv4, and it is for IPv6 only")


def test_supervisor_dies_and_comes_back(make_either):
    pool = make_either(
        ["-n", "1", "-b", "0,name=web", "--intercept", "3000=web"], python(SERVER, "0.0.0.0", 3000)
    )
    pool.wait_ready(1)
    for number in (2, 3):
        supervisor = supervisor_of(pool)
        os.kill(supervisor, signal.SIGSTOP)
        pool.command("inc")
        pool.wait_state(lambda s, n=number: len(s["workers"]) == n)
        os.kill(supervisor, signal.SIGKILL)
        pool.wait_log(r"The supervisor of programs has died")
        pool.wait_ready(number)
        answers_of_all(pool, f"127.0.0.1:{port_of(pool)}")
    assert supervisor_of(pool) not in (0, supervisor)


def test_master_dies_and_the_supervisor_stays(make_either):
    pool = make_either(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(SERVER, "127.0.0.1", 3000),
    )
    pool.wait_ready(2)
    supervisor, workers = supervisor_of(pool), pool.pids()
    pool.kill_master()
    pool.wait_ready(2)
    assert pool.pids() == workers
    assert supervisor_of(pool) == supervisor
    pool.command("inc")
    pool.wait_ready(3)
    answers_of_all(pool, pool.address)


def test_reload_renews_the_supervisor(make_either):
    pool = make_either(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(SERVER, "127.0.0.1", 3000),
    )
    pool.wait_ready(2)
    supervisor, workers = supervisor_of(pool), pool.pids()
    pool.command("reload")
    wait_until(lambda: supervisor_of(pool) not in (0, supervisor), 15, pool.log)
    assert pool.pids() == workers
    pool.command("inc")
    pool.wait_ready(3)
    answers_of_all(pool, pool.address)


DIE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
ssize_t sendmsg(int fd, const struct msghdr* message, int flags) {
  const char* at = getenv("DIE_AT");
  if (at && message->msg_iovlen == 1 &&
      memmem(message->msg_iov->iov_base, message->msg_iov->iov_len, at, strlen(at)) &&
      open(getenv("DIE_ONCE"), O_CREAT | O_EXCL, 0600) >= 0) {
    kill(getpid(), SIGKILL);
  }
  ssize_t (*real)(int, const struct msghdr*, int) = dlsym(RTLD_NEXT, "sendmsg");
  return real(fd, message, flags);
}
"""


@pytest.mark.unsanitized
def test_worker_without_a_watcher_is_replaced(make_pool, tmp_path):
    """What a master leaves that is killed before it hands the notify descriptor on: here, in the
    very call that would."""
    library = tmp_path / "die.so"
    (tmp_path / "die.c").write_text(DIE)
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "die.c", "-ldl"], check=True
    )
    pool = make_pool(
        ["-n", "1", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(SERVER, "127.0.0.1", 3000),
        env={"LD_PRELOAD": library, "DIE_AT": "FDNAME=watch:2", "DIE_ONCE": tmp_path / "died"},
    )
    (worker,) = pool.wait_ready(1)
    master = pool.master_pid
    with pool.client() as client:
        client.send_line(b'{"command":"inc"}\n')
        pool.wait_log("Nobody can answer what worker \\d+ binds; it is ended and replaced")
    pool.wait_state(lambda s: s["master"] != master, 15)
    pool.wait_ready(1, 30)  # the command was never answered, so it was not carried out
    assert pool.count_log("already ACKed") == 0, "listening is said again, and taken once"
    pool.command("inc")
    pool.wait_ready(2)
    assert worker["pid"] in pool.pids()
    answers_of_all(pool, pool.address)


def test_other_binds_pass_and_are_told(make_either):
    text = """
import socket, time
own = socket.create_server(("127.0.0.1", 0))
print("own", own.getsockname()[1], flush=True)
seen = socket.socket()
seen.bind(("127.0.0.2", own.getsockname()[1]))
shared = socket.create_server(("127.0.0.1", 3000))
while True: shared.accept()[0].close()
"""
    pool = make_either(
        ["-b", "127.0.0.1:0,name=web", "--intercept-all", "--intercept", "3000=web"], python(text)
    )
    pool.wait_ready(1)
    own = pool.stdout_text().split()[1]
    pool.wait_log(rf"binds 127\.0\.0\.2:{own}, which is not managed")
    pool.wait_log(r"binds 127\.0\.0\.1:3000: it gets the shared 127\.0\.0\.1")
    socket.create_connection(("127.0.0.1", int(own)), timeout=5).close()


def test_udp(make_either):
    text = """
import json, os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 3000))
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(json.dumps({"pid": os.getpid()}).encode(), peer)
"""
    pool = make_either(
        ["-n", "2", "-b", "udp:0,name=dns", "--intercept", "3000=dns"], python(text)
    )
    pool.wait_ready(2)
    pids = set()

    def ask():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.settimeout(10)
            peer.sendto(b"?", ("127.0.0.1", port_of(pool)))
            pids.add(json.loads(peer.recv(2048))["pid"])
        return pids == set(pool.pids())

    wait_until(ask, 20, lambda: f"{pool.pids()}, answered: {pids}")


def test_listen_in_a_child_is_its_workers_ack(make_either):
    text = """
import os, socket, sys
if os.fork():
    os.wait()
s = socket.create_server(("127.0.0.1", 3000))
while True: s.accept()[0].close()
"""
    pool = make_either(["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(text))
    pool.wait_ready(2)


def test_options_are_carried_over_or_refused(make_either):
    text = """
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50000)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
s.setblocking(sys.argv[1] == "0")
s.bind(("127.0.0.1", 3000))
s.listen(5)
s.setblocking(True)
while True: s.accept()[0].close()
"""
    pool = make_either(["-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(text, 0))
    (worker,) = pool.wait_ready(1)
    sockets = [
        number
        for number, target in open_descriptors(worker["pid"]).items()
        if target.startswith("socket:") and number > 2
    ]
    shared = borrow_socket(worker["pid"], sockets[0])
    with shared:
        assert shared.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
        assert shared.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 100000
        assert shared.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b""
    pool.wait_log("has set SO_BINDTODEVICE on its socket")


def test_nonblock_of_two_programs_that_disagree(make_either):
    text = """
import fcntl, os, select, socket
s = socket.socket()
s.setblocking(os.environ["EINHORN_CHILD_INDEX"] == "0")
s.bind(("127.0.0.1", 3000))
s.listen(5)
select.select([], [], [])
"""
    pool = make_either(
        ["-n", "2", "--max-unacked", "1", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(text),
    )
    pool.wait_log("O_NONBLOCK, but another worker wants the opposite")


def test_descriptor_that_is_in_epoll_is_found(make_either):
    text = """
import select, socket
s = socket.socket()
e = select.epoll()
e.register(s, select.EPOLLIN)
s.bind(("127.0.0.1", 3000))
s.listen(5)
e.poll()
"""
    pool = make_either(["-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(text))
    pool.wait_log(r"has put its socket for 127\.0\.0\.1:3000 into an epoll set")


def test_io_uring_is_not_to_be_had(make_either):
    text = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(256)
fd = libc.syscall(425, 4, buffer)
print(os.strerror(ctypes.get_errno()) if fd < 0 else "allowed", flush=True)
s = socket.create_server(("127.0.0.1", 3000))
while True: s.accept()[0].close()
"""
    for flags, expected in (([], "Function not implemented"), (["--intercept-io-uring"], None)):
        pool = make_either(
            ["-b", "127.0.0.1:0,name=web", "--intercept", "3000=web", *flags], python(text)
        )
        pool.wait_ready(1)
        said = pool.stdout_text().strip()
        assert said == expected if expected else said != "Function not implemented"


def test_close_on_exec_is_kept(make_either):
    text = """
import fcntl, os, socket
s = socket.socket()
t = socket.socket()
os.set_inheritable(t.fileno(), True)
s.bind(("127.0.0.1", 3000))
t.bind(("127.0.0.1", 3001))
print(fcntl.fcntl(s, fcntl.F_GETFD), fcntl.fcntl(t, fcntl.F_GETFD), flush=True)
s.listen(5)
while True: s.accept()[0].close()
"""
    pool = make_either(
        ["-b", "127.0.0.1:0,name=a", "-b", "127.0.0.1:0,name=b", "--intercept", "3000=a"]
        + ["--intercept", "3001=b"],
        python(text),
    )
    pool.wait_ready(1)
    assert pool.stdout_text().split() == ["1", "0"]


@pytest.mark.root
def test_unprivileged(make_pool, tmp_path):
    pool = make_pool(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(SERVER, "127.0.0.1", 3000),
        start=False,
    )
    os.chown(pool.dir, 65534, 65534)
    pool.wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    pool.start()
    pool.wait_ready(2)
    pool.wait_log("takes no_new_privs")
    answers_of_all(pool, pool.address)
    with open(f"/proc/{pool.pids()[0]}/status", encoding="ascii") as status:
        assert "NoNewPrivs:\t1" in status.read()


@pytest.mark.root
def test_refused_where_seccomp_is(make_pool):
    """In a container without it: what is missing is said, nothing is started."""
    deny = """
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
    pool = make_pool(
        ["-b", "127.0.0.1:0,name=web", "--intercept=seccomp"],
        python(SERVER, "127.0.0.1", 3000),
        wrapper=[PYTHON, "-c", deny],
    )
    assert pool.wait_exit() == 1
    assert "seccomp: Operation not permitted" in pool.log()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["-m", "listen"], '-m/--ack-mode: "listen" needs --intercept'),
        (["--intercept=maybe"], "neither a way to intercept nor a rule"),
        (["-b", "127.0.0.1:0", "--intercept=3000=web"], "there is no -b with that name"),
        (["-b", "127.0.0.1:0", "--intercept=3000=8080"], "there is no -b with that port"),
        (["--intercept=x=80"], '"x" is no port'),
        (["--intercept=80=99999"], '"99999" is no port'),
    ],
)
def test_bad_flags(make_pool, flags, said):
    pool = make_pool(flags, python(SERVER, "127.0.0.1", 3000))
    assert pool.wait_exit() == 1
    assert said in pool.log()
    assert pool.log().count("\n") <= 2


def test_a_program_that_does_not_listen_where_somebody_does(make_either):
    """As HAProxy: who finds that its socket listens already does not call listen. It counts as up
    when it waits for connections."""
    text = """
import os, select, socket, time
s = socket.socket()
s.bind(("127.0.0.1", 3000))
if not s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN): s.listen(5)
open(f"bound-{os.environ['EINHORN_CHILD_INDEX']}", "w").close()
while not os.path.exists("go"): time.sleep(0.005)
if os.environ["EINHORN_CHILD_INDEX"] == "2":
    while True: s.accept()[0].close()
e = select.epoll()
e.register(s, select.EPOLLIN)
while e.poll(): s.accept()[0].close()
"""
    pool = make_either(
        ["-n", "1", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(text)
    )
    pool.wait_ready(1)
    for number in (2, 3):
        pool.command("inc")
        wait_until((pool.dir / f"bound-{number - 1}").exists, 20, pool.log)
        states = [w["state"] for w in pool.workers()]
        assert (pool.dir / "go").exists() or states == ["ready", "starting"], states
        (pool.dir / "go").touch()
        pool.wait_ready(number)


def test_a_socket_that_a_program_shuts_down_listens_again(make_either):
    """As socat and WEBrick do when they are told to stop: the others go on."""
    text = """
import os, select, signal, socket
if os.environ["EINHORN_CHILD_INDEX"] == "0":
    signal.signal(signal.SIGUSR1, lambda *_: s.shutdown(socket.SHUT_RDWR))
s = socket.create_server(("127.0.0.1", 3000))
s.setblocking(False)
e = select.epoll()
e.register(s, select.EPOLLIN | select.EPOLLET)
while True:
    e.poll()
    try:
        while True:
            c = s.accept()[0]
            c.sendall(b"x")
            c.close()
    except OSError:
        pass
"""
    pool = make_either(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(text)
    )
    first = pool.wait_ready(2)[0]
    for _ in range(3):
        size = pool.log_size()
        os.kill(first["pid"], signal.SIGUSR1)
        pool.wait_log(r"A program has shut 127\.0\.0\.1:\d+ down for all; it listens again", since=size)
        with socket.create_connection(("127.0.0.1", port_of(pool)), timeout=10) as stream:
            assert stream.recv(1) == b"x"


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
def test_nonblock_that_was_set_later_stays(make_either, kind):
    """As asyncio does: the socket is made without O_NONBLOCK and gets it after bind. The next version
    is in between the two while the old one serves, and a new supervisor knows nothing of either."""
    text = """
import os, select, socket, sys, time
s = socket.socket(socket.AF_INET, getattr(socket, sys.argv[1]))
s.bind(("127.0.0.1", 3000))
if sys.argv[1] == "SOCK_STREAM": s.listen(5)
open("between", "w").close()
while not os.path.exists("go"): time.sleep(0.005)
s.setblocking(False)
open("set-%d" % os.getpid(), "w").close()
select.select([], [], [])
"""
    udp = "udp:" if kind == "SOCK_DGRAM" else ""
    pool = make_either(
        ["-n", "1", "-b", f"{udp}127.0.0.1:0,name=web", "--intercept", "3000=web"],
        python(text, kind),
    )
    (pool.dir / "go").touch()
    (old,) = pool.wait_ready(1)
    wait_until((pool.dir / f"set-{old['pid']}").exists, 10, pool.log)
    (held,) = [n for n, target in open_descriptors(old["pid"]).items() if n > 2 and "socket:" in target]
    assert nonblocking(old["pid"], held)
    (pool.dir / "go").unlink()
    (pool.dir / "between").unlink()
    before = supervisor_of(pool)
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: supervisor_of(pool) not in (0, before), 20, pool.log)
    pool.command("inc")
    wait_until((pool.dir / "between").exists, 20, pool.log)
    assert nonblocking(old["pid"], held), "the old one would wait in accept for ever"
    (pool.dir / "go").touch()
    pool.wait_ready(2)
    assert "O_NONBLOCK" not in pool.log()


def nonblocking(pid, fd):
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
        flags = next(line.split()[1] for line in file if line.startswith("flags:"))
    return bool(int(flags, 8) & os.O_NONBLOCK)
