"""Clients that are broken, slow, silent or hostile harm nobody else, and the master stays small.

After each attack another client is answered at once, the same master runs, and its memory is
bounded."""

import json
import os
import socket
import threading
import time

import pytest
from harness import http_get, is_alive, wait_until
from harness.wire import Client

AT_ONCE = 2.0  # seconds, on a busy machine
# Under sanitizers everything has a shadow, and what was freed is kept for a while.
SHADOWS = int(os.environ.get("EINHORN_TEST_SHADOWS", "1"))
MEMORY_LIMIT = SHADOWS * 64 * 1024 * 1024


def memory(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def pool(make_pool):
    made = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"])
    made.wait_ready(2)
    made.before = made.state_json()
    yield made
    after = made.state_json()
    assert after["master"] == made.before["master"], "the master was not brought down"
    assert {w["pid"] for w in after["workers"]} == {w["pid"] for w in made.before["workers"]}
    assert after["number"] == 2
    assert is_alive(after["guard"])
    assert memory(after["master"]) < MEMORY_LIMIT and memory(after["guard"]) < MEMORY_LIMIT


def assert_others_are_answered(pool):
    begin = time.monotonic()
    with pool.client(timeout=AT_ONCE) as client:
        reply = client.request({"command": "ehlo", "user": "other", "id": 1})
    assert "other" in reply["message"]
    assert time.monotonic() - begin < AT_ONCE
    assert http_get(pool.address, timeout=AT_ONCE)


GARBAGE = [
    bytes(range(256)),
    b"\x00" * 1000,
    b"\xff\xfe\xfd",
    b"\xc3\x28",
    b"GET / HTTP/1.1",
    b"%",
    b"%0",
    b"%zz%",
    b"%00",
    b"%0A" * 1000,
    b"--- !ruby/object:OpenStruct {a: 1}",
    b"--- !ruby/object:Gem::Requirement [x]",
    b"--- !!python/object/apply:os.system ['true']",
    b"{command: !!binary AAAA}",
    b'{"command":"\\ud800"}',
    b'{"command":"\\u0000"}',
    b'{"command":1e999}',
    b'{"command":{"a":[]}}',
    b'{"command":["inc"]}',
    b'{"command":"inc","command":"dec"',
    b'{"command":null}',
    b'{"command":""}',
    b'{"command":"' + b"x" * 5000 + b'"}',
    b'{"command":"set_workers","args":["1e3"]}',
    b'{"command":"set_workers","args":{"a":1}}',
    b'{"command":"signal","args":["-9"]}',
    b'{"command":"signal","args":["KILL\\u0000"]}',
    b'{"command":"ehlo","user":{"deep":["x"]},"id":null}',
    b'{"id":{}}',
    b"? : ? :",
    b"- - - - -",
    b"'",
    b'"',
    b"\t{",
    b"%YAML 9.9",
    b"%TAG ! x",
    b"--- a%0A--- b",
    b"<<: {command: inc}",
    b"{? [command] : inc}",
]


def test_garbage(pool):
    for line in GARBAGE:
        with pool.client() as client:
            client.send_line(line + b"\n")
            client.socket.settimeout(5)
            try:
                client.read_line()  # an answer, or the end: either is fine, silence is not
            except (EOFError, ConnectionError):
                pass
    assert_others_are_answered(pool)


def test_garbage_in_one_stream(pool):
    with pool.client() as client:
        for line in GARBAGE:
            try:
                client.send_line(line + b"\n")
            except ConnectionError:
                break
    assert_others_are_answered(pool)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 30000,
        b'{"a":' * 5000,
        b"[" * 20000 + b"]" * 20000,
        b'{"command":"ehlo","x":' + b"[" * 10000 + b"]" * 10000 + b"}",
        b"- " * 20000,
        b"{a: " * 10000,
        b"%0A".join(b" " * i + b"a:" for i in range(200)),
    ],
    ids=["open", "objects", "balanced", "inside", "dashes", "flow", "block"],
)
def test_deep_nesting(pool, line):
    with pool.client() as client:
        client.send_line(line + b"\n")
        try:
            answer = client.read_line().decode()
            assert "message" in answer
        except (EOFError, ConnectionError):
            pass
    assert_others_are_answered(pool)


def test_aliases(pool):
    bomb = "a0: &a0 x%0A" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]%0A" for i in range(1, 12)
    )
    for line in (
        f"---%0A{bomb}command: ehlo%0Aid: 1",
        "--- &a {command: *a}",
        "--- &a [*a]",
        "{command: ehlo, id: &x 1, user: *x}",
    ):
        with pool.client(timeout=AT_ONCE) as client:
            client.send_line(line.encode() + b"\n")
            try:
                assert b"Could not parse command" in client.read_line()
            except (EOFError, ConnectionError):
                pass
        assert_others_are_answered(pool)


def test_endless_line(pool):
    with pool.client() as client:
        sent = 0
        try:
            while sent < 32 * 1024 * 1024:
                client.send_line(b"x" * 65536)
                sent += 65536
        except (ConnectionError, TimeoutError):
            pass
        assert sent < 32 * 1024 * 1024, "cut off long before"
        assert_others_are_answered(pool)


def test_long_line_that_is_right(pool):
    """Not every long line is hostile: up to the limit it is understood."""
    with pool.client() as client:
        reply = client.request({"command": "ehlo", "user": "u" * 30000, "id": 1})
        assert "u" * 30000 in reply["message"]


def test_client_that_never_reads(pool):
    with pool.client() as client:
        client.socket.setblocking(False)
        line = b'{"command":"state","id":1}\n' * 100
        sent, silent = 0, 0
        end = time.monotonic() + 10
        while sent < 5_000_000 and silent < 200 and time.monotonic() < end:
            try:
                sent += client.socket.send(line)
                silent = 0
            except BlockingIOError:
                silent += 1
                assert_others_are_answered(pool)
            except ConnectionError:
                break
        assert_others_are_answered(pool)


def test_clients_that_never_read_an_upgrade(pool):
    clients = [pool.client() for _ in range(20)]
    for client in clients:
        client.send_line(b'{"command":"help","id":1}\n' * 50)
    assert_others_are_answered(pool)
    for client in clients:
        client.close()
    assert_others_are_answered(pool)


def open_until_refused(pool, number, timeout=5):
    clients = []
    for _ in range(number):
        try:
            clients.append(Client(pool.socket_path, timeout))
        except (ConnectionError, BlockingIOError, TimeoutError):
            break
    return clients


def test_six_hundred_half_open(pool):
    clients = open_until_refused(pool, 600)
    assert len(clients) > 100
    for client in clients:
        try:
            client.socket.send(b'{"command":"eh')
        except ConnectionError:
            pass  # it may have been shown the door already
    assert_others_are_answered(pool)
    begin = time.monotonic()
    assert len(pool.workers()) == 2
    assert time.monotonic() - begin < AT_ONCE
    for client in clients:
        client.close()
    assert_others_are_answered(pool)


def test_vanishing_at_once(pool):
    for i in range(300):
        with pool.client() as client:
            if i % 3 == 0:
                client.send_line(b'{"command":"state","id":1}\n')
            elif i % 3 == 1:
                client.send_line(b'{"command":"sta')
            if i % 2:
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert_others_are_answered(pool)

    def descriptors():
        return len(os.listdir(f"/proc/{pool.before['master']}/fd"))

    low = descriptors()
    wait_until(
        lambda: descriptors() <= low and descriptors() < 60, 5, "their descriptors are closed"
    )


def test_a_flood_of_requests_from_one_starves_nobody(pool):
    with pool.client() as flood:
        flood.socket.setblocking(False)
        line = b'{"command":"ehlo","user":"flood","id":1}\n' * 200
        end = time.monotonic() + 1.5
        answered = 0
        while time.monotonic() < end:
            try:
                flood.socket.send(line)
                flood.socket.recv(1 << 20)
            except BlockingIOError:
                pass
            assert_others_are_answered(pool)
            answered += 1
        assert answered > 3


@pytest.mark.unsanitized
@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"x\n"], ids=["empty", "refused", "garbage"])
def test_an_endless_flood_is_not_collected(pool, line):
    """More small lines than the master cares to handle, with a client that reads every answer."""
    flood = pool.client()
    small = memory(pool.before["master"])
    block = line * (65536 // len(line))
    end = time.monotonic() + 2.5

    def read_all():
        try:
            while flood.socket.recv(1 << 20):
                pass
        except OSError:
            pass

    reader = threading.Thread(target=read_all)
    reader.start()
    flood.socket.settimeout(0.2)
    worst = 0
    while time.monotonic() < end:
        try:
            flood.socket.send(block)
        except TimeoutError:
            pass
        except ConnectionError:
            break
        worst = max(worst, memory(pool.before["master"]))
    assert_others_are_answered(pool)
    try:
        flood.socket.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    reader.join()
    flood.close()
    assert worst - small < 8 * 1024 * 1024, (small, worst)


def test_huge_numbers_of_ids(pool):
    with pool.client() as client:
        for number in (10**400, -(10**400), 1e308):
            client.send_line(
                b'{"command":"ehlo","user":"me","id":%s}\n' % json.dumps(number).encode()
            )
            try:
                client.read_line()
            except (EOFError, ConnectionError):
                return
    assert_others_are_answered(pool)


def test_datagrams_of_strangers_are_ignored(make_pool):
    """NOTIFY_SOCKET takes messages of workers only, and survives nonsense."""
    pool = make_pool(["-n", "1", "-m", "notify"], "env_dump", env={"ENV_DUMP_FILE": "dump"})
    dump = wait_until(lambda: [p for p in pool.dir.glob("dump.*") if p.suffix != ".unfinished"])[0]
    words = json.loads(dump.read_text())["environ"]
    (path,) = [w.split("=", 1)[1] for w in words if w.startswith("NOTIFY_SOCKET=")]
    where = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for text in (
            b"READY=1",
            b"",
            b"\0" * 500,
            b"=" * 100,
            b"READY=1\n" * 3000,
            b"STATUS=" + b"x" * 50000,
            b"\xff\xfe",
            b"FDSTORE=1\nFDNAME=x",
            b"MAINPID=1",
        ):
            try:
                stranger.sendto(text, where)
            except OSError:
                pass
    assert "Welcome" in pool.command("ehlo", user="me")
    assert [w["acked"] for w in pool.workers()] == [False]
