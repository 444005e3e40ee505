"""Workers that are killed and stopped."""

import os
import signal

from day import scenario
from harness import is_alive, wait_until
from harness.processes import read_stat
from harness.waiting import ticks


@scenario(
    "worker-killed",
    """A worker killed with -9 every 200 ms costs the requests in its hands and nothing else; it is
    replaced at once, and nobody else notices.""",
    lasts=(5, 30),
)
def worker_killed(day):
    pool = day.pool(worker=["--request-delay-ms=10"])
    with day.load(pool):
        for _ in ticks(0.2, day.lasts):
            day.kill(day.any_worker())
        pool.wait_ready(4, deadline=60)
    day.expect(len(day.account.answered_by | set(pool.pids())) >= 4, "new workers serve")
    day.saw(f"{len(day.killed)} workers killed, 4 ready again at the end")


@scenario(
    "half-the-workers",
    """Half of the workers killed with -9 in the same moment: the other half goes on serving, the
    dead ones are replaced at once.""",
    lasts=(3, 10),
)
def half_the_workers(day):
    pool = day.pool(number=6, worker=["--request-delay-ms=10"])
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            for pid in day.moments.sample(pool.pids(), 3):
                day.kill(pid)
            pool.wait_state(
                lambda s: not set(day.killed) & {w["pid"] for w in s["workers"]}
                and [w["state"] for w in s["workers"]] == ["ready"] * 6,
                60,
                "six others",
            )
            traffic.wait_more(50)
    day.saw(f"{day.lasts} times 3 of 6 killed, each time 6 ready again")


@scenario(
    "worker-stopped",
    """A worker stopped with SIGSTOP for a second and a half keeps its requests waiting, the others
    serve all the rest; when it goes on, what it held is answered. Nothing is lost.""",
    lasts=(2, 6),
)
def worker_stopped(day):
    pool = day.pool()
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            pid = day.any_worker()
            before = traffic.loads[0].counts()[0]
            os.kill(pid, signal.SIGSTOP)
            try:
                wait_until(lambda pid=pid: read_stat(pid).state == "T", 5)
                for _ in ticks(0.5, 2):
                    pass
                served = traffic.loads[0].counts()[0] - before
                day.expect(served > 50, f"the others serve meanwhile (only {served} answers)")
                day.expect(is_alive(pid), "it is left alone")
            finally:
                os.kill(pid, signal.SIGCONT)
            traffic.wait_more(50)
        pool.wait_ready(4)
    day.saw(f"{day.lasts} times stopped and continued; no worker was replaced")


@scenario(
    "worker-stopped-for-good",
    """A worker that was stopped does not hear that it shall leave at an upgrade: the upgrade comes
    through without it, and --signal-timeout ends it. What it held is all that is lost.""",
    lasts=(1, 4),
)
def worker_stopped_for_good(day):
    pool = day.pool(args=["-t", "1.5"])
    with day.load(pool):
        for _ in range(day.lasts):
            pid = day.moments.choice(pool.pids())
            os.kill(pid, signal.SIGSTOP)
            day.blame(pid)
            with pool.client(timeout=60) as client:
                replies = client.conversation({"command": "upgrade", "id": 1})
            day.expect(replies[-1]["message"] == "Upgrade done", f"upgraded: {replies[-1]}")
            wait_until(lambda pid=pid: not is_alive(pid), 20, "the stopped worker's end")
            pool.wait_ready(4, deadline=30)
    day.saw(f"{day.lasts} times: upgraded, then the stopped worker was ended by -t 1.5")
