"""Workers that know nothing of Einhorn finish what they have before their stop signal (--drain)."""

import json
import os
import signal
import subprocess
import time

import pytest
from harness import is_alive, wait_until
from harness.load import ask_udp, connect
from harness.processes import open_descriptors

from test_intercept import PYTHON, supervisor_of

# Each of these answers one request a connection, and ends at once on SIGTERM. A request for /slow is
# answered when there is a file named "go".
ANSWER = """
import json, os, selectors, socket, sys, threading, time
def answer(c):
    data = c.recv(4096)
    if b"/slow" in data:
        open("slow", "w").close()
        while not os.path.exists("go"): time.sleep(0.005)
    if data:
        body = json.dumps({"pid": os.getpid()}).encode()
        c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
    c.close()
def threaded(c): threading.Thread(target=answer, args=(c,)).start()
def listening():
    if sys.argv[1].startswith("/"):
        if os.path.exists(sys.argv[1]): os.unlink(sys.argv[1])
        s = socket.socket(socket.AF_UNIX)
        s.bind(sys.argv[1])
        s.listen(5)
        return s
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", int(sys.argv[1])))
"""
WAYS_TO_WAIT = {
    "accept": "s = listening()\nwhile True: threaded(s.accept()[0])",
    "poll": """
s = listening()
s.setblocking(False)
waiting = selectors.PollSelector()
waiting.register(s, selectors.EVENT_READ)
while True:
    if waiting.select():
        try: threaded(s.accept()[0])
        except BlockingIOError: pass
""",
    "select": """
s = listening()
s.setblocking(False)
waiting = selectors.SelectSelector()
waiting.register(s, selectors.EVENT_READ)
while True:
    if waiting.select(0.5):
        try:
            c = s.accept()[0]
            c.setblocking(True)
            threaded(c)
        except BlockingIOError: pass
""",
    "epoll": """
s = listening()
s.setblocking(False)
waiting = selectors.EpollSelector()
waiting.register(s, selectors.EVENT_READ)
while True:
    if waiting.select():
        try: threaded(s.accept()[0])
        except BlockingIOError: pass
""",
    "children": """
s = listening()
for _ in range(2):
    if os.fork() == 0:
        while True: answer(s.accept()[0])
while True: time.sleep(1)
""",
    "threads": """
s = listening()
def serve():
    while True: answer(s.accept()[0])
for _ in range(3): threading.Thread(target=serve).start()
serve()
""",
}


def python(text, *arguments):
    return [PYTHON, "-c", ANSWER + text, *map(str, arguments)]


@pytest.fixture(params=["seccomp", "preload"])
def draining_pool(request, make_pool):
    def make(program, *arguments, drain=60, bind="0,name=web", flags=(), **kwargs):
        pool = make_pool(
            ["-n", "1", "-b", bind, f"--intercept={request.param}", "--intercept", "3000=web"]
            + ["--drain", str(drain), *flags],
            python(program, *arguments),
            **kwargs,
        )
        pool.wait_ready(1)
        return pool

    return make


def address_of(pool):
    address = pool.state_json()["sockets"][0]["address"]
    return address if address.startswith("unix:") else "127.0.0.1:" + address.rsplit(":", 1)[1]


def slow_request(pool):
    """A connection whose answer is under way."""
    stream = connect(address_of(pool), 60)
    stream.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
    wait_until((pool.dir / "slow").exists, 20, "the program has the request")
    return stream


def answer_of(stream):
    data = b""
    while got := stream.recv(4096):
        data += got
    assert data.startswith(b"HTTP/1.1 200"), data
    return json.loads(data.partition(b"\r\n\r\n")[2])


def answer_to(address):
    with connect(address, 20) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return answer_of(stream)["pid"]


def upgrade(pool):
    pool.command("upgrade")
    pool.wait_state(lambda s: s["version"] == 1 and s["upgrade"] is None, 30)
    pool.wait_log("drain|SIGTERM|Sending")


def new_pid(pool, old):
    (new,) = [w["pid"] for w in pool.workers() if w["pid"] != old]
    return new


def owner(pid, pool):
    """The worker that this process is, or is a child of."""
    if pid in pool.pids():
        return pid
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


@pytest.mark.parametrize("way", WAYS_TO_WAIT)
def test_a_draining_worker_answers_what_it_has_and_gets_no_more(draining_pool, way):
    pool = draining_pool(WAYS_TO_WAIT[way], 3000)
    (old,) = pool.pids()
    stream = slow_request(pool)
    upgrade(pool)
    new = new_pid(pool, old)
    wait_until(
        lambda: all(owner(answer_to(address_of(pool)), pool) == new for _ in range(20)),
        20,
        "new connections all go to the new worker",
    )
    assert is_alive(old), "it has not been told to stop"
    (pool.dir / "go").touch()
    assert owner(answer_of(stream)["pid"], pool) == old
    wait_until(lambda: pool.pids() == [new], 20, pool.log)
    assert "can't be drained" not in pool.log()


def test_unix_sockets(draining_pool, tmp_path):
    path = str(tmp_path / "s")
    pool = draining_pool(WAYS_TO_WAIT["epoll"], path, bind=f"unix:{path},name=web")
    (old,) = pool.pids()
    stream = slow_request(pool)
    upgrade(pool)
    new = new_pid(pool, old)
    wait_until(lambda: answer_to(f"unix:{path}") == new, 20, "the new worker answers")
    assert is_alive(old)
    (pool.dir / "go").touch()
    assert answer_of(stream)["pid"] == old
    wait_until(lambda: pool.pids() == [new], 20, pool.log)


def test_a_stop_signal_that_nobody_can_catch(draining_pool, make_load):
    """KILL as the stop signal: the program does nothing at all for its clients."""
    pool = draining_pool(WAYS_TO_WAIT["threads"], 3000, flags=["--stop-signal", "KILL"])
    load = make_load(address_of(pool), connections=4, rate=200)
    for version in range(1, 4):
        load.wait_more(30)
        pool.command("upgrade")
        pool.wait_state(lambda s, v=version: s["version"] == v and s["upgrade"] is None, 40)
    load.wait_more(30)
    result = load.stop()
    assert result["failures"] == 0, result


def test_another_stop_signal_is_sent_at_once(draining_pool):
    """A worker that has drained and got its signal does not drain again."""
    pool = draining_pool(
        "import signal\nsignal.signal(signal.SIGUSR2, lambda *_: open('usr2', 'w').close())\n"
        + WAYS_TO_WAIT["poll"],
        3000,
        flags=["--stop-signal", "USR2"],
    )
    pool.send(signal.SIGINT)
    wait_until((pool.dir / "usr2").exists, 20, pool.log)
    began = time.monotonic()
    assert pool.stop() == 0
    assert time.monotonic() - began < 30


def test_patience_has_an_end(draining_pool):
    pool = draining_pool(WAYS_TO_WAIT["accept"], 3000, drain=1)
    (old,) = pool.pids()
    stream = slow_request(pool)
    upgrade(pool)
    pool.wait_log("Worker 0 still has 1 connection when it gets its stop signal")
    wait_until(lambda: not is_alive(old), 20, "it is gone")
    assert stream.recv(100) == b""


def test_many_upgrades_under_load(draining_pool, make_load):
    pool = draining_pool(WAYS_TO_WAIT["accept"], 3000)
    load = make_load(address_of(pool), connections=4, rate=200)
    for version in range(1, 4):
        load.wait_more(30)
        pool.command("upgrade")
        pool.wait_state(lambda s, v=version: s["version"] == v and s["upgrade"] is None, 40)
    load.wait_more(30)
    result = load.stop()
    assert result["failures"] == 0, result


@pytest.mark.parametrize("victim", ["master", "supervisor"])
def test_a_signal_that_waits_survives(draining_pool, victim):
    """The one that kept it in mind is killed: the next one goes on."""
    pool = draining_pool(WAYS_TO_WAIT["poll"], 3000)
    (old,) = pool.pids()
    stream = slow_request(pool)
    upgrade(pool)
    new = new_pid(pool, old)
    wait_until(
        lambda: all(answer_to(address_of(pool)) == new for _ in range(10)), 20, "it is drained"
    )
    # What it has instead of the shared socket is another one, and whoever has put it there has left.
    wait_until(lambda: listener_of(new) not in listeners_of(old) and not tracer_of(old), 20)
    if victim == "master":
        pool.kill_master()
    else:
        before = supervisor_of(pool)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: supervisor_of(pool) not in (0, before), 10, pool.log)
    pool.wait_state(lambda s: len(s["workers"]) == 2)
    assert is_alive(old)
    (pool.dir / "go").touch()
    assert answer_of(stream)["pid"] == old
    wait_until(lambda: pool.pids() == [new], 20, pool.log)


def test_a_signal_of_the_same_moment_takes_nothings_place(draining_pool):
    """A `signal` command that comes together with what stops a worker: it gets both."""
    pool = draining_pool(
        "import signal\nsignal.signal(signal.SIGUSR1, lambda *_: open('usr1', 'w').close())\n"
        + WAYS_TO_WAIT["poll"],
        3000,
    )
    pool.command("inc")
    pool.wait_ready(2)
    with pool.client() as client:
        client.send_line(b'{"command":"dec"}\n{"command":"signal","args":["USR1"]}\n')
        wait_until(lambda: len(pool.pids()) == 1, 20, pool.log)
    assert (pool.dir / "usr1").exists()


def listeners_of(pid):
    return {target for target in open_descriptors(pid).values() if target.startswith("socket:")}


def listener_of(pid):
    """The shared socket, in a worker that has no connection."""
    (own,) = [target for number, target in open_descriptors(pid).items()
              if number > 2 and target.startswith("socket:")]  # fmt: skip
    return own


def tracer_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return int(next(line for line in status if line.startswith("TracerPid:")).split()[1])


def test_a_handler_that_leads_back_into_accept(draining_pool):
    """The signal sets a flag that is looked at when the next connection has come: with the shared
    socket taken away none would come any more."""
    pool = draining_pool(
        """
import signal
leaving = False
def leave(*_):
    global leaving
    leaving = True
signal.signal(signal.SIGTERM, leave)
s = listening()
while not leaving: answer(s.accept()[0])
""",
        3000,
    )
    assert answer_to(address_of(pool)) in pool.pids()
    assert pool.stop() == 0
    pool.wait_gone()


def test_udp(draining_pool):
    pool = draining_pool(
        """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 3000))
while True:
    data, peer = s.recvfrom(2048)
    s.sendto(json.dumps({"pid": os.getpid()}).encode(), peer)
""",
        bind="udp:0,name=web",
    )
    port = int(pool.state_json()["sockets"][0]["address"].rsplit(":", 1)[1])
    for version in range(1, 4):
        assert ask_udp("127.0.0.1", port)["pid"] in pool.pids()
        old = pool.pids()
        pool.command("upgrade")
        pool.wait_state(lambda s, v=version: s["version"] == v and s["upgrade"] is None, 30)
        wait_until(lambda gone=old: not set(gone) & set(pool.pids()), 20, pool.log)
    assert "can't be drained" not in pool.log()


COUNTING = r"""
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
static volatile sig_atomic_t count, leaving;
static void one(int signal) { ++count; }
static void leave(int signal) { leaving = 1; }
int main(void) {
  struct sigaction action = {.sa_handler = one, .sa_flags = SA_RESTART};
  sigaction(SIGRTMIN, &action, 0);
  action.sa_handler = leave;
  sigaction(SIGTERM, &action, 0);
  int s = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(3000)};
  if (bind(s, (struct sockaddr*)&a, sizeof a) || listen(s, 5)) return 1;
  while (!leaving) {
    int c = accept(s, 0, 0);
    if (c >= 0) close(c);
  }
  FILE* file = fopen("count", "w");
  fprintf(file, "%d\n", (int)count);
  fclose(file);
  rename("count", "counted");
  return 0;
}
"""


def test_no_signal_is_lost_while_a_descriptor_is_replaced(make_pool, tmp_path):
    (tmp_path / "count.c").write_text(COUNTING)
    subprocess.run(["gcc", "-O1", "-o", tmp_path / "count", tmp_path / "count.c"], check=True)
    pool = make_pool(
        ["-b", "127.0.0.1:0,name=web", "--intercept=seccomp", "--intercept", "3000=web"]
        + ["--drain", "60"],
        [tmp_path / "count"],
    )
    (worker,) = pool.wait_ready(1)
    sent = 0
    number = signal.SIGRTMIN
    pool.command("upgrade")
    while not (pool.dir / "counted").exists() and sent < 200_000:
        try:
            os.kill(worker["pid"], number)
        except ProcessLookupError:
            break
        sent += 1
        if sent % 50 == 0:  # a queue has an end
            wait_until(lambda: not pending(worker["pid"], number), 20, "signals are taken in")
        if sent > 2000 and "Upgraded" in pool.log() and not is_alive(worker["pid"]):
            break
    wait_until((pool.dir / "counted").exists, 20, pool.log)
    counted = int((pool.dir / "counted").read_text())
    # Those that came after it had written down its count are the last few.
    assert sent - 60 <= counted <= sent


def pending(pid, number):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            masks = [line.split()[1] for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--drain", "5"], "--drain: it needs --intercept"),
        (["--intercept", "--drain", "5", "-t", "5"], "killed while it still drains"),
        (["--intercept", "--drain", "5", "--drain-timeout", "4"], "killed while it still drains"),
        (["--intercept", "--drain", "soon"], "soon"),
    ],
)
def test_bad_flags(make_pool, flags, said):
    pool = make_pool(flags, python(WAYS_TO_WAIT["accept"], 3000))
    assert pool.wait_exit() == 1
    assert said in pool.log()
    assert pool.log().count("\n") <= 2
