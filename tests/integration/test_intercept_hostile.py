"""Programs that mean harm: they get nothing that they did not ask for by name, and nobody waits for
them."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import pytest
from harness import http_get, wait_until

from test_intercept import PYTHON, SERVER, make_either, port_of, python, supervisor_of  # noqa: F401

# The worker with index 0 does harm until it is told to stop; all others serve.
HEAD = """
import ctypes, mmap, os, signal, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def address(port): return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), bytes([127, 0, 0, 1]))
if os.environ["EINHORN_CHILD_INDEX"] != "0":
    sys.argv = ["server", "127.0.0.1", "3000"]
    exec(os.environ["SERVER"])
    sys.exit(0)
def working(): open("working", "w").close()
"""

HARM = {
    # Binds and listens as fast as it can, from many threads.
    "flood": """
def flood():
    while True:
        s = socket.socket()
        libc.bind(s.fileno(), address(3000), 16)
        libc.listen(s.fileno(), 1)
        s.close()
for _ in range(16): threading.Thread(target=flood, daemon=True).start()
working()
while True: time.sleep(1)
""",
    # Its children are killed while their bind waits for the answer.
    "killed children": """
number = 0
while True:
    child = os.fork()
    if child == 0:
        while True:
            s = socket.socket()
            libc.bind(s.fileno(), address(3000), 16)
    time.sleep(0.0005 * (number % 7))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    number += 1
    if number == 50: working()
""",
    # Another thread executes another program meanwhile, which ends the one that waits.
    "exec in between": """
number = int(os.environ.get("NUMBER", 0))
if number == 10: working()
def bind():
    while True:
        s = socket.socket()
        libc.bind(s.fileno(), address(3000), 16)
for _ in range(4): threading.Thread(target=bind, daemon=True).start()
time.sleep(0.002 * (number % 5))
os.environ["NUMBER"] = str(number + 1)
os.execv(sys.executable, [sys.executable, "-c", os.environ["HARM"]])
""",
    # Children that are stopped, some of them while they ask.
    "stopped children": """
children = []
for number in range(20):
    child = os.fork()
    if child == 0:
        while True:
            s = socket.socket()
            libc.bind(s.fileno(), address(3000), 16)
    time.sleep(0.002)
    os.kill(child, signal.SIGSTOP)
    children.append(child)
working()
while True: time.sleep(1)
""",
    # Its descriptor is another one by the time that it is looked at, and its address unmapped.
    "swaps": """
page = mmap.mmap(-1, 4096)
where = ctypes.addressof(ctypes.c_char.from_buffer(page))
ctypes.memmove(where, address(3000), 16)
fds = [socket.socket().detach() for _ in range(4)]
def bind():
    while True: libc.bind(fds[0], ctypes.c_void_p(where), 16)
def swap():
    while True:
        libc.dup2(fds[1], fds[0])
        libc.mprotect(ctypes.c_void_p(where), 4096, 0)
        libc.dup2(fds[2], fds[0])
        libc.mprotect(ctypes.c_void_p(where), 4096, 3)
for target in (bind, bind, swap): threading.Thread(target=target, daemon=True).start()
working()
while True: time.sleep(1)
""",
    # As many children at once as one can have without ruining the machine for the other tests.
    "many children": """
for _ in range(60):
    if os.fork() == 0:
        for _ in range(100):
            s = socket.socket()
            libc.bind(s.fileno(), address(3000), 16)
            libc.listen(s.fileno(), 1)
        os._exit(0)
working()
while True: time.sleep(1)
""",
}


@pytest.mark.parametrize("way", ["seccomp", "preload"])
@pytest.mark.parametrize("harm", HARM)
def test_nobody_waits_for_a_program_that_does_harm(make_pool, harm, way):
    text = HEAD + HARM[harm]
    pool = make_pool(
        ["-n", "1", "-b", "127.0.0.1:0,name=web", "-b", "127.0.0.1:0,name=secret"]
        + [f"--intercept={way}", "--intercept", "3000=web", "-t", "2", "--stop-signal", "KILL"]
        + ["--ack-timeout", "0", "--max-unacked", "8"],
        [PYTHON, "-c", text],
        env={"SERVER": SERVER, "HARM": text},
    )
    wait_until((pool.dir / "working").exists, 60, pool.log)
    supervisor = wait_until(lambda: supervisor_of(pool), 60, "a supervisor")
    pool.command("set_workers", "3")
    good = wait_until(
        lambda: [w["pid"] for w in pool.workers() if w["index"] != 0 and w["state"] == "ready"][1:]
        and [w["pid"] for w in pool.workers() if w["index"] != 0],
        60,
        pool.log,
    )
    # Whoever else has the socket accepts too, and does not answer: so it goes first.
    (bad,) = [w["pid"] for w in pool.workers() if w["index"] == 0]
    assert supervisor_of(pool) == supervisor, "it has not died of it"
    assert not holds_socket_of(bad, port_of(pool, 1)), "a socket that it never asked for"
    pool.command("set_workers", "2")
    with contextlib.suppress(ProcessLookupError):  # the pool may have stopped it already
        os.killpg(bad, signal.SIGKILL)
    answered = set()

    def all_answer():
        try:
            answered.add(http_get(pool.address, 5)["pid"])
        except (OSError, AssertionError):
            pass
        return answered & set(good)

    wait_until(all_answer, 60, pool.log)
    assert supervisor_of(pool) == supervisor


def holds_socket_of(pid, port):
    inodes = set()
    with open("/proc/net/tcp", encoding="ascii") as file:
        for line in list(file)[1:]:
            words = line.split()
            if int(words[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{words[9]}]")
    try:
        held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except FileNotFoundError:
        return False
    return bool(inodes & held)


def door_of(pool):
    """Its abstract name, and a worker's token."""
    with open(f"/proc/{pool.pids()[0]}/environ", "rb") as file:
        (value,) = [v[18:] for v in file.read().split(b"\0") if v.startswith(b"EINHORN_INTERCEPT=")]
    name, epoch, slot, token = value.split(b":")
    return name, int(epoch), int(slot), token


def question(token, epoch, slot, call=1, fd=3, length=16):
    address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(3000), bytes([127, 0, 0, 1]))
    return (
        b"EHBIND1\0" + token + struct.pack("=QIiiiII", epoch, slot, call, fd, 1, length, 0) + address
    )


def ask(name, data, with_socket=True):
    """The verdict and the descriptors that came with it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line, socket.socket() as own:
        line.settimeout(20)
        line.connect(b"\0" + name)
        if with_socket:
            socket.send_fds(line, [data], [own.fileno()])
        else:
            line.send(data)
        got, fds, _, _ = socket.recv_fds(line, 100, 4)
        for fd in fds:
            os.close(fd)
        return (struct.unpack("=i", got[8:12])[0] if got else None), len(fds)


def test_the_door_gives_nothing_without_a_workers_token(make_pool):
    pool = make_pool(
        ["-n", "2", "-b", "127.0.0.1:0,name=web", "--intercept=preload", "--intercept", "3000=web"],
        [PYTHON, "-c", SERVER, "127.0.0.1", "3000"],
    )
    pool.wait_ready(2)
    name, epoch, slot, token = door_of(pool)
    assert ask(name, question(token, epoch, slot)) == (4, 1), "with its token a worker is served"
    for data in (
        question(b"0" * 32, epoch, slot),
        question(token, epoch + 1, slot),  # another worker's
        question(token, epoch, slot + 1),
        question(token, epoch, slot, length=15),
        question(token, epoch, slot, length=2**32 - 1),
        question(token, epoch, slot, call=7),
        question(token, epoch, slot, fd=-1),
        b"",
        b"EHBIND1\0",
        os.urandom(64),
        os.urandom(300),
    ):
        verdict, descriptors = ask(name, data) if data else (1, 0)
        assert verdict in (1, None) and descriptors == 0, data
    assert ask(name, question(token, epoch, slot), with_socket=False) == (1, 0)
    # Connections that say nothing keep nobody out.
    silent = []
    for _ in range(600):
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.setblocking(False)
        try:
            line.connect(b"\0" + name)
        except BlockingIOError:
            time.sleep(0)
        silent.append(line)
    pool.command("inc")
    pool.wait_ready(3, 30)
    for line in silent:
        line.close()


STALL = """
import ctypes, mmap, os, socket, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
if os.environ["EINHORN_CHILD_INDEX"] != "0":
    s = socket.create_server(("127.0.0.1", 3000))
    while True: s.accept()[0].close()
UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xC018AA3F, 0xC020AA00, 0xC028AA03
uffd = libc.syscall(323, os.O_CLOEXEC)
assert uffd >= 0
def control(request, *values):
    data = ctypes.create_string_buffer(struct.pack(f"{len(values)}Q", *values))
    assert libc.ioctl(uffd, ctypes.c_ulong(request), data) == 0, os.strerror(ctypes.get_errno())
control(UFFDIO_API, 0xAA, 0, 0)
memory = mmap.mmap(-1, 4096)
page = ctypes.addressof(ctypes.c_char.from_buffer(memory))
control(UFFDIO_REGISTER, page, 4096, 1, 0)
sockets = [socket.socket() for _ in range(3)]
def bind(s):
    result = libc.bind(s.fileno(), ctypes.c_void_p(page), 16)
    print("bound", result, s.getsockname()[1], flush=True)
    if result == 0:
        s.listen(5)
        while True: s.accept()[0].close()
for s in sockets:
    threading.Thread(target=bind, args=(s,), daemon=True).start()
os.read(uffd, 32)
print("stalled", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(3000), bytes([127, 0, 0, 1]))
source = ctypes.create_string_buffer(address.ljust(4096, b"\\0"))
control(UFFDIO_COPY, page, ctypes.addressof(source), 4096, 0, 0)
while True: time.sleep(1)
"""


@pytest.mark.root
def test_a_program_that_stalls_its_memory_stalls_nobody_else(make_pool):
    """Its address lies in memory that does not come (userfaultfd). The supervisor dies while it
    looks at it: the program asks the next one."""
    pool = make_pool(
        ["-n", "1", "-b", "127.0.0.1:0,name=web", "--intercept", "3000=web", "-m", "0.01"],
        python(STALL),
    )
    wait_until(lambda: "stalled" in pool.stdout_text(), 15, pool.log)
    pool.command("set_workers", "3")
    pool.wait_ready(3)
    port = port_of(pool)
    wait_until(lambda: connects(port), 15, "the others serve while one stalls")
    os.kill(supervisor_of(pool), signal.SIGKILL)
    pool.wait_log("The supervisor of programs has died")
    wait_until(lambda: supervisor_of(pool) != 0, 10)
    pool.command("inc")
    pool.wait_ready(4)
    (pool.dir / "go").touch()
    wait_until(lambda: pool.stdout_text().count("bound 0 ") == 3, 20, pool.stdout_text)
    assert f"bound 0 {port}" in pool.stdout_text()


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    except ConnectionRefusedError:
        return False


def test_hostile_arguments(make_either):  # noqa: F811
    """Lengths, pointers and descriptors that make no sense get what the kernel says to them."""
    text = """
import ctypes, errno, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket()
good = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(3000), bytes([127, 0, 0, 1]))
buffer = ctypes.create_string_buffer(good.ljust(4096, b"x"))
def bind(fd, address, length):
    ctypes.set_errno(0)
    libc.syscall(49, fd, address, ctypes.c_long(length))
    return errno.errorcode.get(ctypes.get_errno(), "0")
r, w = os.pipe()
said = [bind(s.fileno(), buffer, n) for n in (0, 1, 2, 8, 15, 129, 4096, -1, 2**31 - 1)]
said += [bind(s.fileno(), ctypes.c_void_p(p), 16) for p in (0, 8, 2**47, 2**64 - 16)]
said += [bind(fd, buffer, 16) for fd in (-1, 1000, r, 2**31 - 1)]
u = socket.socket(socket.AF_UNIX)
six = socket.socket(socket.AF_INET6)
said += [bind(u.fileno(), buffer, 16), bind(six.fileno(), buffer, 16)]
said += [errno.errorcode[ctypes.get_errno()] for fd in (-1, 1000, r) if libc.listen(fd, 5)]
print(" ".join(said), flush=True)
s.bind(("127.0.0.1", 3000))
s.listen(5)
while True: s.accept()[0].close()
"""
    alone = subprocess.run(
        [PYTHON, "-c", text.split("s.bind((")[0]], capture_output=True, text=True, check=True
    )
    pool = make_either(["-b", "127.0.0.1:0,name=web", "--intercept", "3000=web"], python(text))
    pool.wait_ready(1)
    assert pool.stdout_text().split() == alone.stdout.split()
    assert supervisor_of(pool) != 0


def test_racing_thread_gets_nothing_it_was_not_given(make_either):  # noqa: F811
    """One thread binds while another changes the address and swaps the descriptor: what it ends up
    with is its own socket, or the shared one under the address it was asked for."""
    text = """
import ctypes, os, socket, struct, threading
libc = ctypes.CDLL(None, use_errno=True)
def address(port): return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), bytes([127, 0, 0, 1]))
buffer = ctypes.create_string_buffer(16)
stop = False
def change():
    while not stop:
        ctypes.memmove(buffer, address(3000), 16)
        ctypes.memmove(buffer, address(0), 16)
threading.Thread(target=change, daemon=True).start()
seen = set()
shared = None
for _ in range(300):
    s = socket.socket()
    if libc.bind(s.fileno(), buffer, 16) == 0:
        accepting = s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        seen.add(s.getsockname()[1])
    s.close()
stop = True
print(len(seen), *sorted(seen), flush=True)
s = socket.create_server(("127.0.0.1", 3000))
while True: s.accept()[0].close()
"""
    pool = make_either(
        ["-b", "127.0.0.1:0,name=web", "-b", "127.0.0.1:0,name=secret", "--intercept", "3000=web"],
        python(text),
    )
    pool.wait_ready(1, 30)
    seen = [int(word) for word in pool.stdout_text().split()[1:]]
    assert port_of(pool, 1) not in seen, "a socket that it never asked for"
