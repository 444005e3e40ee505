"""Workers that hang or leak, with what keeps them honest turned on."""

import os
import signal

from day import scenario


@scenario(
    "worker-hangs",
    """A worker that stops pinging (SIGSTOP) is found, replaced at once and killed after -t; the
    others serve all the rest. What it held is all that is lost.""",
    lasts=(2, 8),
)
def worker_hangs(day):
    pool = day.pool(args=["--ping-timeout", "1.5", "-t", "1"], worker=["--watchdog-ms=100"])
    with day.load(pool) as traffic:
        pool.wait_state(lambda s: all(w["pinged_at"] for w in s["workers"]), 30)
        for round_number in range(day.lasts):
            pid = day.any_worker()
            day.blame(pid)
            os.kill(pid, signal.SIGSTOP)
            pool.wait_state(
                lambda s, n=round_number: len(s["hung"]) > min(n, 9)
                and pid not in {w["pid"] for w in s["workers"]}
                and [w["state"] for w in s["workers"]] == ["ready"] * 4,
                60,
                "another worker in place of the one that hung",
            )
            traffic.wait_more(50)
    day.saw(f"{day.lasts} workers stopped with SIGSTOP, found, replaced and killed")


@scenario(
    "worker-leaks",
    """Workers leak, and each is replaced when it is above --max-memory: one at a time, its replacement
    ready before it is told to stop. Nothing is lost, and never are fewer ready than there should be.""",
    lasts=(4, 20),
    deadline=(150, 400),
)
def worker_leaks(day):
    limits = ["--max-memory", "40M,times=2/3", "--sample-interval", "0.2", "-t", "20"]
    pool = day.pool(args=limits, worker=["--leak-kb=96"])
    recycled = r"Recycling worker (\d+)"
    with day.load(pool, rate=200):

        def replaced(state):
            day.expect(state["ready"] >= 4, f"only {state['ready']} of 4 were ready")
            return pool.count_log(recycled) >= day.lasts

        pool.wait_state(replaced, 120, f"{day.lasts} replacements")
    day.saw(f"{pool.count_log(recycled)} workers replaced while they served, never fewer than 4 ready")
