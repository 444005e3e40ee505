"""Programs that bind by themselves (--intercept), and whoever answers them is killed."""

import contextlib
import os
import signal

from day import scenario
from harness import is_alive, wait_until
from harness.waiting import ticks


def supervisor(pool):
    """Who answers what the programs bind, or None while there is nobody; asking no one."""
    guard = pool.process.pid
    with open(f"/proc/{guard}/task/{guard}/children", encoding="ascii") as file:
        children = file.read().split()
    for pid in map(int, children):
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/comm", encoding="ascii") as file:
                if file.read().strip() == "einhorn-watch" and is_alive(pid):
                    return pid
    return None


@scenario(
    "supervisor-killed",
    """Programs that bind a port of their own choice are upgraded one after the other under load, while whoever
    answers them is killed with -9 every 200 ms, and each third time the master with it: each program gets the
    shared socket in the end, and no request is lost.""",
    lasts=(5, 30),
    deadline=(240, 600),
)
def supervisor_killed(day):
    pool = day.pool(
        args=["--intercept", "--intercept", "3000=web", "--stop-signal", "USR2"],
        worker=["--adopt=bind:3000", "--ack="],
        ack="listen",
    )
    killed, masters, version = 0, 0, 0
    with day.load(pool) as traffic:
        for number in ticks(0.2, day.lasts):
            victim = supervisor(pool)
            if victim is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    killed += 1
            if number % 3 == 2:
                pool.kill_master()
                masters += 1
            state = pool.state_json()
            if not state["upgrading"] and all(w["state"] == "ready" for w in state["workers"]):
                version = state["version"]
                pool.command("upgrade")
        pool.wait_state(
            lambda s: not s["upgrading"] and [w["state"] for w in s["workers"]] == ["ready"] * 4, 90, "the end"
        )
        wait_until(lambda: supervisor(pool), 20, "somebody who answers")
        traffic.wait_more(50)
    day.expect(version >= 2, f"upgrades came through, and not only to version {version}")
    day.saw(f"{killed} supervisors and {masters} masters killed; version {version} reached meanwhile")
