"""Masters and guards that are killed."""

import contextlib
import os
import signal
import threading

from day import scenario
from harness import is_alive, wait_until
from harness.waiting import ticks
from harness.wire import Closed


def masters(pool):
    """The guard's children that run einhorn itself, oldest first, asking nobody: the master, and
    while one hands over to the next that one too, or the check before it."""
    guard = pool.process.pid
    own = os.readlink(f"/proc/{guard}/exe")
    with open(f"/proc/{guard}/task/{guard}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    found = []
    for pid in children:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe") == own and is_alive(pid):
                found.append(pid)
    return found


def current_master(pool):
    return wait_until(lambda: masters(pool), 30, lambda: f"a master\n{pool.log()[-3000:]}")[0]


def kill_master(pool, choose=lambda found: found[0]):
    """Kills the master; with random.choice whichever of those that are handing over."""
    found = wait_until(lambda: masters(pool), 30, lambda: f"a master\n{pool.log()[-3000:]}")
    pid = choose(found)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return pid


@scenario(
    "master-killed",
    """The master killed with -9 every second: workers keep their pids and serve on, each new
    master goes on where the last one was. No request is lost.""",
    lasts=(6, 60),
)
def master_killed(day):
    pool = day.pool()
    before = set(pool.pids())
    killed = []
    with day.load(pool):
        for _ in ticks(1, day.lasts):
            killed.append(kill_master(pool))
        state = pool.wait_state(lambda s: s["master"] not in killed, 30)
    day.expect({w["pid"] for w in state["workers"]} == before, "the same workers")
    day.expect(set(day.workers()) == before, "nobody else runs")
    day.expect(pool.exit_code is None, "the guard is there")
    day.saw(f"{len(set(killed))} masters killed in {day.lasts} s; the same 4 workers throughout")


class Upgrader:
    """Asks for one upgrade after the other, whatever becomes of the one before."""

    def __init__(self, pool):
        self.pool, self.stop = pool, threading.Event()
        self.asked, self.done, self.broken, self.refused = 0, 0, 0, []
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(90)
        assert not self.thread.is_alive(), "an upgrade that never ended"

    def run(self):
        while not self.stop.is_set():
            self.asked += 1
            try:
                with self.pool.client(timeout=60) as client:
                    last = client.conversation({"command": "upgrade", "id": self.asked})[-1]
            except (Closed, ConnectionError, FileNotFoundError):
                self.broken += 1
                continue
            if last["message"] == "Upgrade done":
                self.done += 1
            else:
                self.refused.append(last["message"])


@scenario(
    "master-killed-upgrading",
    """The master killed with -9 every second while one upgrade follows the other, now the old one,
    now the new one that takes over: an upgrade that was under way is finished by the next master.
    No request is lost, no worker is forgotten.""",
    lasts=(6, 60),
)
def master_killed_upgrading(day):
    pool = day.pool(args=["--ack-timeout", "10"])
    killed = []
    with day.load(pool):
        with Upgrader(pool) as upgrader:
            for _ in ticks(1, day.lasts):
                killed.append(kill_master(pool, day.moments.choice))
        with pool.client(timeout=60) as client:
            last = client.conversation({"command": "upgrade", "id": 1})[-1]
        day.expect(last["message"] == "Upgrade done", f"the last upgrade: {last}")
        state = pool.wait_state(
            lambda s: not s["upgrading"]
            and [w["state"] for w in s["workers"]] == ["ready"] * 4
            and {w["version"] for w in s["workers"]} == {s["version"]},
            60,
            "4 ready workers of one version",
        )
        wait_until(
            lambda: sorted(day.workers()) == sorted(w["pid"] for w in state["workers"]),
            30,
            lambda: f"workers that nobody knows: {day.workers()}",
        )
    day.saw(
        f"{len(set(killed))} masters killed in {day.lasts} s; version {state['version']} reached;"
        f" of {upgrader.asked} upgrades asked for {upgrader.done} were answered as done,"
        f" {upgrader.broken} lost their connection with the master, {len(upgrader.refused)} were"
        " refused or failed"
    )
    if upgrader.refused:
        day.saw(f"the last refusal: {upgrader.refused[-1].splitlines()[0][:150]}")


def take_over(pool, deadline=30):
    """Starts the same command line again, after the guard's death."""
    pool.start()
    return pool.wait_state(lambda s: s["guard"] == pool.process.pid, deadline, "a new guard")


@scenario(
    "guard-killed",
    """The guard killed with -9: master and workers serve on; the same command line started again
    takes the pool over with its sockets. No request is lost.""",
    lasts=(2, 6),
)
def guard_killed(day):
    pool = day.pool()
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            master = pool.master_pid
            pool.send(signal.SIGKILL)
            pool.wait_exit()
            traffic.wait_more(100)
            day.expect(is_alive(master), "the master lives")
            take_over(pool)
            wait_until(lambda master=master: not is_alive(master), 20, "the old master leaves")
            pool.wait_ready(4, deadline=30)
            traffic.wait_more(50)
        kill_master(pool)
        pool.wait_ready(4, deadline=30)
    day.saw(f"{day.lasts} guards killed, each time the next took over; its master can be killed")


def keep_address(pool):
    """From now on the pool is started with the address that it has; that address."""
    address = pool.address
    pool.args[pool.args.index("-b") + 1] = f"{address},rn"
    return address


@scenario(
    "guard-and-master-killed",
    """Guard and master killed with -9 at once: the workers serve on, and the same command line
    started again is refused with one clear line for as long as they hold the address. Once they
    have been asked to leave, it starts a new pool.""",
    lasts=(1, 4),
)
def guard_and_master_killed(day):
    pool = day.pool()
    address = keep_address(pool)
    for _ in range(day.lasts):
        before = set(day.workers())
        with day.load(pool) as traffic:
            os.kill(pool.process.pid, signal.SIGSTOP)  # so that it does not see its master die
            kill_master(pool)
            pool.send(signal.SIGKILL)
            pool.wait_exit()
            traffic.wait_more(200)
            mark = pool.log_size()
            pool.start()
            day.expect(pool.wait_exit() == 1, "a second pool is refused")
            said = pool.log(mark).strip().splitlines()
            day.expect("in use" in said[-1] and address in said[-1], f"and why: {said}")
            traffic.wait_more(200)
            day.expect(set(day.workers()) == before, "the same workers serve on")
        for pid in before:
            os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: not day.workers(), 20, "the workers leave")
        pool.start().wait_ready(4, deadline=30)
    with day.load(pool):
        kill_master(pool)
    day.saw(f'{day.lasts} times; "{said[-1]}"; a new pool when the old workers had left')
