"""Workers that are forked by a zygote, which is killed, stopped and replaced."""

import os
import signal

from day import scenario
from harness import programs, wait_until
from harness.upgrades import ask
from harness.waiting import ticks


def preloaded(day, number=4, worker=()):
    return day.pool(number=number, args=["-p", programs.preloaded("http_worker")], worker=worker)


def zygote(pool, other_than=None):
    """The zygote of the version that is up, once it is loaded."""

    def look():
        state = pool.state_json()
        found = [z["pid"] for z in state["zygotes"] if z["version"] == state["version"] and z["loaded"]]
        return found and found[0] != other_than and found[0]

    return wait_until(look, 60, "a zygote")


@scenario(
    "zygote-killed",
    """The zygote killed with -9 again and again under load costs nothing: its workers serve on, another one
    is started, and a worker that dies then is a fork of that one.""",
    lasts=(4, 20),
    deadline=(240, 600),
)
def zygote_killed(day):
    pool = preloaded(day, worker=["--request-delay-ms=10"])
    with day.load(pool) as traffic:
        last = None
        for _ in ticks(0.5, day.lasts):
            last = zygote(pool, other_than=last)
            os.kill(last, signal.SIGKILL)
            day.kill(day.any_worker())
        zygote(pool, other_than=last)
        pool.wait_ready(4, deadline=60)
        traffic.wait_more(50)
    day.saw(f"{len(day.killed)} workers killed with their zygotes, 4 ready again at the end")


@scenario(
    "preloaded-upgrades",
    """Upgrades of preloaded workers under load, with masters killed in the middle: each version has a zygote
    of its own, which goes with its last worker, and no request is lost.""",
    lasts=(3, 15),
    deadline=(240, 900),
)
def preloaded_upgrades(day):
    pool = preloaded(day)
    with day.load(pool) as traffic:
        for version in range(1, day.lasts + 1):
            with pool.client(timeout=60) as client:
                ask(client, number=version)
                if version % 2:
                    pool.kill_master()
                pool.wait_state(
                    lambda s, v=version: not s["upgrading"]
                    and [(w["version"], w["state"]) for w in s["workers"]] == [(v, "ready")] * 4
                    and [z["version"] for z in s["zygotes"]] == [v],
                    90,
                    f"version {version}",
                )
            traffic.wait_more(50)
    day.saw(f"{day.lasts} upgrades, every second one with its master killed")
