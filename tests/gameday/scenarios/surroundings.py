"""Files that go, clocks that jump, clients that misbehave."""

import json
import signal
import socket
import struct
import subprocess
from pathlib import Path

from day import scenario
from harness import wait_until

from .masters import kill_master
from .resources import command_connection, exercise

HERE = Path(__file__).resolve().parents[1]


@scenario(
    "socket-file-deleted",
    """The files of command socket and notification socket are deleted: the pool serves and replaces
    workers that die; the next master, whether it comes by SIGHUP or after kill -9, makes the files
    again, and workers' ACKs and commands find their way.""",
    lasts=(1, 4),
)
def socket_file_deleted(day):
    pool = day.pool()
    sockets = [pool.socket_path, Path(f"{pool.socket_path}.notify")]
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            for path in sockets:
                path.unlink()
            victim = day.any_worker()
            day.kill(victim)
            wait_until(lambda v=victim: v not in day.workers() and len(day.workers()) == 4, 20)
            traffic.wait_more(50)
            mark = pool.log_size()
            pool.send(signal.SIGHUP)
            pool.wait_log("Upgraded successfully", deadline=30, since=mark)
            pool.wait_ready(4, deadline=30)
            for path in sockets:
                path.unlink()
            kill_master(pool)
            exercise(day, pool, traffic)
            day.expect(all(path.is_socket() for path in sockets), "both files are there again")
    day.saw(f"{day.lasts} times deleted, and made again at SIGHUP and after kill -9 of the master")


class Clock:
    """The wall clock of everything that runs with `environment`."""

    def __init__(self, directory):
        self.path, library = directory / "clock", directory / "shifted_clock.so"
        self.path.write_bytes(bytes(8))
        command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*command, str(HERE / "shifted_clock.cpp")], check=True)
        self.environment = {"LD_PRELOAD": library, "SHIFTED_CLOCK": self.path}

    def shift(self, seconds):
        with open(self.path, "r+b") as file:
            file.write(struct.pack("<q", seconds))


def log_times(pool, mark):
    return [json.loads(line)["time"] for line in pool.log(mark).splitlines() if line[:1] == "{"]


@scenario(
    "clock-stepped",
    """The wall clock jumps an hour ahead, an hour back, and a year: nothing that waits gets early
    or late by it, nobody is killed or started, and upgrades work. Only times that are shown
    jump.""",
    lasts=(1, 3),
)
def clock_stepped(day):
    clock = Clock(day.directory)
    pool = day.pool(args=["-t", "30", "--log-format", "json"], env=clock.environment)
    before = pool.pids()
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            for shift in (3600, -3600, 365 * 86400, 0):
                clock.shift(shift)
                traffic.wait_more(100)
                day.expect(pool.pids() == before, f"the same workers at {shift} s")
                mark = pool.log_size()
                victim = day.any_worker()
                day.kill(victim)
                pool.wait_state(
                    lambda s, v=victim: v not in [w["pid"] for w in s["workers"]], 20
                )
                pool.wait_ready(4)
                shown = log_times(pool, mark)
                now = subprocess.run(
                    ["date", "-u", "-d", f"{shift} seconds", "+%Y-%m-%dT%H"],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.strip()
                day.expect(shown and shown[-1][:10] == now[:10], f"{shift} s: {shown[-1:]}, {now}")
                kill_master(pool)
                with pool.client(timeout=60) as client:
                    last = client.conversation({"command": "upgrade", "id": 1})[-1]
                day.expect(last["message"] == "Upgrade done", f"an upgrade at {shift} s: {last}")
                before = sorted(w["pid"] for w in pool.wait_ready(4))
    day.saw(
        f"{day.lasts} times an hour ahead, an hour back, a year ahead and back to the truth, each"
        " with a worker and a master killed and an upgrade; by a preloaded clock, as the machine's"
        " own is nobody's to set"
    )


GARBAGE = [
    b"\x00\xff\xfe" * 300 + b"\n",
    b"{" * 5000 + b"\n",
    b"--- &a [*a, *a]\n",
    b'{"command":"upgrade","id":{"a":[1,2,{"b":null}]}\n',
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"%" * 1000 + b"\n",
    b'{"command":"worker:ack","pid":1}\n',
    b'{"command":"no such thing","id":7}\n' * 50,
    b"\n" * 1000,
    b"x" * 70_000 + b"\n",
]


def throw_garbage(pool, moments):
    """One client that sends garbage and perhaps reads, perhaps not, and leaves."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(0.2)
        try:
            stream.connect(str(pool.socket_path))
            stream.sendall(moments.choice(GARBAGE))
            if moments.random() < 0.3:
                stream.recv(4096)
        except (TimeoutError, OSError):
            pass


@scenario(
    "command-socket-flooded",
    """500 clients hang half-open on the command socket and others throw garbage at it while one
    upgrade follows the other: the upgrades come through, requests notice nothing.""",
    lasts=(3, 20),
)
def command_socket_flooded(day):
    pool = day.pool()
    crowd = [command_connection(pool) for _ in range(500)]
    with day.load(pool):
        thrown = 0
        for round_ in range(day.lasts):
            with pool.client(timeout=60) as client:
                message = {"command": "upgrade", "id": round_}
                client.send_line(json.dumps(message).encode() + b"\n")
                for _ in range(100):
                    throw_garbage(pool, day.moments)
                    thrown += 1
                replies = [json.loads(client.read_line())]
                while replies[-1].get("wait"):
                    replies.append(json.loads(client.read_line()))
            day.expect(replies[-1]["message"] == "Upgrade done", f"upgraded: {replies[-1]}")
        pool.wait_ready(4, deadline=30)
    state = pool.state_json()
    day.expect(state["version"] == day.lasts, f"version {state['version']}")
    for each in crowd:
        each.close()
    day.saw(f"{day.lasts} upgrades beside 500 half-open clients and {thrown} of garbage")
