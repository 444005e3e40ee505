"""Every form of -b is really served; nothing is left behind, nothing of others is removed."""

import os
import signal
import socket
import stat

import pytest
from harness import http_get, wait_until
from harness.load import ask_udp
from harness.processes import borrow_socket, read_stat

HAS_IPV6 = os.path.exists("/proc/net/if_inet6")
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here")


def port_of(pool, position=0):
    return int(pool.addresses()[position].rsplit(":", 1)[1])


def listener(pool, position=0):
    """A duplicate of a worker's listening socket."""
    state = pool.state_json()
    return borrow_socket(state["workers"][0]["pid"], state["sockets"][position]["fd"])


def refused(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
        return False
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize(
    "bind, reachable",
    [
        ("127.0.0.1:0", ["127.0.0.1"]),
        ("0", ["127.0.0.1", "127.0.0.2", "::1"]),
        (":0", ["127.0.0.1", "::1"]),
        ("*:0", ["127.0.0.1", "::1"]),
        ("0.0.0.0:0", ["127.0.0.1", "127.0.0.2"]),
        ("[::1]:0", ["::1"]),
        ("[::]:0", ["::1", "127.0.0.1"]),
        ("[::]:0,v6only", ["::1"]),
    ],
)
def test_tcp_forms(make_pool, bind, reachable):
    if "::" in bind and not HAS_IPV6:
        pytest.skip("no IPv6 here")
    pool = make_pool(["-b", bind, "-m", "0.05"])
    pool.wait_ready(1)
    port = port_of(pool)
    assert port > 0
    for host in reachable:
        if ":" in host and not HAS_IPV6:
            continue
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert http_get(where)["pid"] in pool.pids()
    assert str(port) in pool.log(), "the chosen port is said"
    if "v6only" in bind:
        assert refused("127.0.0.1", port)
    if bind == "127.0.0.1:0" and HAS_IPV6:
        assert refused("::1", port)


def test_host_by_name_gets_every_address(make_pool):
    pool = make_pool(["-b", "localhost:0", "-m", "0.05"])
    pool.wait_ready(1)
    found = {entry[4][0] for entry in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    addresses = pool.addresses()
    assert {a.rsplit(":", 1)[0].strip("[]") for a in addresses} == found
    for address in addresses:
        assert http_get(address)["pid"] in pool.pids()


def test_unix_path(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock,mode=0620", "-m", "0.05"])
    pool.wait_ready(1)
    path = pool.dir / "web.sock"
    assert http_get(f"unix:{path}")["pid"] in pool.pids()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620
    assert pool.stop() == 0
    assert not path.exists()


@pytest.mark.root
def test_unix_owner(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock,user=nobody,group=nogroup", "-m", "0.05"])
    pool.wait_ready(1)
    found = os.stat(pool.dir / "web.sock")
    assert (found.st_uid, found.st_gid) == (65534, 65534)


def test_abstract(make_pool):
    name = f"@einhorn-test-{os.getpid()}"
    pool = make_pool(["-b", f"unix:{name}", "-m", "0.05"])
    pool.wait_ready(1)
    assert http_get(f"unix:{name}")["pid"] in pool.pids()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp(make_pool, host):
    if ":" in host and not HAS_IPV6:
        pytest.skip("no IPv6 here")
    where = f"[{host}]" if ":" in host else host
    pool = make_pool(["-b", f"udp:{where}:0", "-m", "0.05"])
    pool.wait_ready(1)
    assert ask_udp(host, port_of(pool))["pid"] in pool.pids()


def test_several_sockets_in_order(make_pool):
    binds = ["127.0.0.1:0", "unix:@DIR@/a.sock", "127.0.0.1:0", "udp:127.0.0.1:0"]
    pool = make_pool([w for b in binds for w in ("-b", b)] + ["-m", "0.05", "-n", "2"])
    pool.wait_ready(2)
    state = pool.state_json()
    addresses = [entry["address"] for entry in state["sockets"]]
    assert addresses[1].startswith("unix:") and addresses[3].startswith("udp:")
    fds = [entry["fd"] for entry in state["sockets"]]
    assert fds == [3, 4, 5, 6]
    assert http_get(addresses[0])["fd"] == 3
    assert http_get(f"unix:{pool.dir / 'a.sock'}")["fd"] == 4
    assert http_get(addresses[2])["fd"] == 5
    assert ask_udp("127.0.0.1", port_of(pool, 3))["fd"] == 6


def option(sock, level, name):
    return sock.getsockopt(level, name)


@pytest.mark.parametrize(
    "flags, reuseaddr, nonblock",
    [
        ("", 0, False),
        (",r", 1, False),
        (",so_reuseaddr", 1, False),
        (",R", 1, False),
        (",n", 0, True),
        (",o_nonblock", 0, True),
        (",rn", 1, True),
        (",r,n", 1, True),
    ],
)
def test_flags_as_upstream(make_pool, flags, reuseaddr, nonblock):
    pool = make_pool(["-b", f"127.0.0.1:0{flags}", "-m", "0.05"])
    pool.wait_ready(1)
    with listener(pool) as sock:
        assert bool(option(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR)) == bool(reuseaddr)
        assert (not os.get_blocking(sock.fileno())) == nonblock
    assert http_get(pool.address)["pid"] in pool.pids()


def test_tcp_options(make_pool):
    pool = make_pool(["-b", "127.0.0.1:0,reuseport,defer,fastopen=7,nodelay", "-m", "0.05"])
    pool.wait_ready(1)
    with listener(pool) as sock:
        assert option(sock, socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) > 0
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_FASTOPEN) == 7
        assert option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert http_get(pool.address)["pid"] in pool.pids()


def backlog_of(sock):
    """tcpi_sacked of TCP_INFO is the backlog of a listening socket."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(info[28:32], "little")


@pytest.mark.parametrize(
    "args, wanted",
    [
        (["-b", "127.0.0.1:0"], 100),
        (["-l", "33", "-b", "127.0.0.1:0"], 33),
        (["-b", "127.0.0.1:0,backlog=7", "-l", "33"], 7),
    ],
)
def test_backlog(make_pool, args, wanted):
    pool = make_pool([*args, "-m", "0.05"])
    pool.wait_ready(1)
    with listener(pool) as sock:
        assert backlog_of(sock) == wanted


def hand_in(pool_args, sockets, names, worker="http_worker"):
    """Arguments for a pool that gets these sockets as a service manager would give them."""
    numbers = [s.fileno() for s in sockets]
    # First out of the way of 3, 4, ..., then into place.
    moves = " ".join(f"{20 + i}<&{n}" for i, n in enumerate(numbers))
    places = " ".join(f"{3 + i}<&{20 + i} {20 + i}<&-" for i in range(len(numbers)))
    script = f'export LISTEN_PID=$$; exec {moves}; exec {places}; exec "$@"'
    env = {"LISTEN_FDS": str(len(numbers))}
    if names is not None:
        env["LISTEN_FDNAMES"] = ":".join(names)
    return dict(
        args=pool_args,
        worker_command=worker,
        env=env,
        pass_fds=numbers,
        wrapper=["bash", "-c", script, "bash"],
    )


def listening_socket():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(50)
    return sock


@pytest.mark.parametrize("bind", [["fd:3", "fd:4"], ["fd:web", "fd:admin"]])
def test_sockets_handed_in(make_pool, bind):
    with listening_socket() as web, listening_socket() as admin:
        args = ["-b", bind[0], "-b", bind[1], "-m", "0.05"]
        pool = make_pool(**hand_in(args, [web, admin], ["web", "admin"]))
        web_at = "127.0.0.1:%d" % web.getsockname()[1]
        admin_at = "127.0.0.1:%d" % admin.getsockname()[1]
    pool.wait_ready(1)
    assert http_get(web_at)["fd"] == pool.state_json()["sockets"][0]["fd"]
    assert http_get(admin_at)["fd"] == pool.state_json()["sockets"][1]["fd"]
    pool.kill_master()
    assert http_get(web_at)["pid"] in pool.pids()


def test_bind_failure_starts_nothing(make_pool):
    with listening_socket() as taken:
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        args = ["-b", "unix:@DIR@/first.sock", "-b", address, "-e", "p"]
        pool = make_pool(args, ["touch", "started"])
        assert pool.wait_exit() == 1
    pool.wait_gone()
    assert address in pool.log() and "Address already in use" in pool.log()
    left = {p.name for p in pool.dir.iterdir()} - {"log", "stdout", "einhorn.lock"}
    assert left == set(), "no socket file, no pid file, no worker's trace"


def test_unix_file_stays_while_masters_come_and_go(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock", "-m", "0.05"])
    pool.wait_ready(1)
    inode = os.stat(pool.dir / "web.sock").st_ino
    pool.kill_master()
    assert os.stat(pool.dir / "web.sock").st_ino == inode
    assert http_get(f"unix:{pool.dir / 'web.sock'}")["pid"] in pool.pids()
    assert pool.stop() == 0
    assert not (pool.dir / "web.sock").exists()


def test_unix_file_of_somebody_else_stays(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock", "-m", "0.05"])
    pool.wait_ready(1)
    os.rename(pool.dir / "web.sock", pool.dir / "old.sock")
    (pool.dir / "web.sock").write_text("somebody else's")
    assert pool.stop() == 0
    assert (pool.dir / "web.sock").read_text() == "somebody else's"


def test_dead_unix_file_is_replaced(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock", "-m", "0.05"], start=False)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(pool.dir / "web.sock"))
    pool.start().wait_ready(1)
    assert http_get(f"unix:{pool.dir / 'web.sock'}")["pid"] in pool.pids()


def test_living_unix_socket_is_refused_and_kept(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock"], ["touch", "started"], start=False)
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(pool.dir / "web.sock"))
        living.listen()
        assert pool.start().wait_exit() == 1
        assert "web.sock" in pool.log()
        assert (pool.dir / "web.sock").exists()
    assert not (pool.dir / "started").exists()


def test_other_file_at_unix_path_is_refused_and_kept(make_pool):
    pool = make_pool(["-b", "unix:@DIR@/web.sock"], ["touch", "started"], start=False)
    (pool.dir / "web.sock").write_text("precious")
    assert pool.start().wait_exit() == 1
    assert (pool.dir / "web.sock").read_text() == "precious"


def test_descriptor_number_stays_the_same(make_pool):
    pool = make_pool(["-b", "127.0.0.1:0", "-b", "127.0.0.1:0", "-m", "0.05"])
    pool.wait_ready(1)
    address = pool.addresses()[1]
    before = http_get(address)
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    pool.wait_ready(1)
    pool.kill_master()
    (victim,) = pool.pids()
    os.kill(victim, signal.SIGKILL)
    # Until its last thread is gone a blocked accept() may still take a connection with it.
    wait_until(lambda: read_stat(victim) is None, 5)
    answer = http_get(address)
    assert answer["fd"] == before["fd"] and answer["pid"] != before["pid"]


def test_port_is_free_after_the_end(make_pool, make_load):
    pool = make_pool(["-b", "127.0.0.1:0", "-m", "0.05"])
    pool.wait_ready(1)
    port = port_of(pool)
    assert make_load(pool.address, requests=50).wait_end()["failures"] == 0
    assert pool.stop() == 0
    assert refused("127.0.0.1", port)


def test_stdin_is_the_socket(make_pool):
    """-b ...,stdin: descriptor 0 as well, for each worker, over the master's death and an upgrade."""
    pool = make_pool(
        ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0", "-b", "127.0.0.1:0,stdin"],
        ["http_worker", "--ack=path", "--adopt=0"],
    )

    def check():
        for worker in pool.wait_ready(2):
            sockets = [os.readlink(f"/proc/{worker['pid']}/fd/{fd}") for fd in (0, 3, 4)]
            assert sockets[0] == sockets[2] != sockets[1]
        assert http_get(pool.addresses()[1])["pid"] in pool.pids()

    check()
    pool.kill_master()
    victim = pool.pids()[0]
    os.kill(victim, signal.SIGKILL)
    pool.wait_state(lambda s: victim not in [w["pid"] for w in s["workers"]])
    check()
    with pool.client(timeout=60) as client:
        assert client.conversation({"command": "upgrade", "id": 1})[-1]["message"] == "Upgrade done"
    check()


@pytest.mark.parametrize(
    "args, says",
    [
        (["-b", "127.0.0.1:0,stdin", "-b", "127.0.0.1:0,stdin"], "as a worker has one descriptor 0"),
        (["--intercept", "-b", "127.0.0.1:0,stdin"], "makes no sense with --intercept"),
        (["-b", "127.0.0.1:0,stdin=1"], "takes no value"),
    ],
)
def test_wrong_uses_of_stdin(make_pool, args, says):
    pool = make_pool(args)
    assert pool.wait_exit() == 1
    assert says in pool.log() and "stdin" in pool.log()
