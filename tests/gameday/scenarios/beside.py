"""What runs beside the pool: the agent of --agent."""

import os
import signal

from day import scenario
from harness import is_alive, wait_until
from harness.agent import Agent
from harness.upgrades import upgrade
from harness.waiting import ticks


class Beside(Agent):
    """The pool's own agent: a day only talks to it."""

    def __init__(self, pool, address):
        self.pool_of, self.address = pool, address

    def log(self):
        return self.pool_of.log()


def agents(pool):
    found = []
    for process in pool.processes():
        try:
            with open(f"/proc/{process.pid}/comm", encoding="utf-8") as file:
                if file.read().strip() == "einhorn-agent" and is_alive(process.pid):
                    found.append(process.pid)
        except OSError:
            pass
    return found


@scenario(
    "agent-killed",
    """The agent of --agent killed with -9 every half second while upgrades follow each other: no
    request fails, no worker ends out of order, every upgrade comes through, and the agent is there
    again each time.""",
    lasts=(5, 30),
)
def agent_killed(day):
    args = ["--agent", "127.0.0.1:0", "--agent-args", "--history h.db --sample 0.5"]
    pool = day.pool(args=args, name="beside")
    killed, upgraded = 0, 0
    with day.load(pool):
        for _ in ticks(0.5, day.lasts):
            pid = wait_until(lambda: (agents(pool) or [None])[0], 30, "an agent")
            os.kill(pid, signal.SIGKILL)
            killed += 1
            if killed % 3 == 0:
                upgrade(pool)
                upgraded += 1
            wait_until(lambda dead=pid: dead not in agents(pool), 30)
        wait_until(lambda: agents(pool), 30, "an agent again")
    address = wait_until(lambda: last_address(pool), 30, "the last agent's address")
    agent = Beside(pool, address)
    agent.wait_pool(
        "beside", lambda p: p["connected"] and p["ready"] == 4 and p["version"] == upgraded
    )
    day.expect(pool.state_json()["version"] == upgraded, "every upgrade came through")
    day.saw(f"{killed} agents killed, {upgraded} upgrades meanwhile; the last agent shows 4 ready of version {upgraded}")


def last_address(pool):
    """Of an agent that answers: each one listens somewhere else."""
    said = [line for line in pool.log().splitlines() if "listening on http://" in line]
    if not said:
        return None
    address = said[-1].split("http://")[1].rstrip("/")
    try:
        Beside(pool, address).get("/healthcheck", timeout=2)
    except OSError:
        return None
    return address
