"""The output of workers, read by a process that is killed; and their own limit of memory."""

import os
import re
import signal

import ledger
from day import scenario
from harness import is_alive, wait_until
from harness.waiting import ticks

# Becomes the worker; a child of it counts aloud for as long as that lives.
CHATTER = """
import os, sys, time
worker = os.getpid()
if os.fork() == 0:
    os.setsid()
    number = 0
    while os.getppid() == worker:
        for _ in range(20):
            number += 1
            os.write(1, b"%d %d\\n" % (worker, number))
        time.sleep(0.005)
    os._exit(0)
os.execv(sys.argv[1], sys.argv[1:])
"""
LINE = re.compile(r"\S+ \[WORKER (\d+) index=\d+ version=\d+ stdout\] (\d+) (\d+)")


def readers(pool):
    found = []
    for process in pool.processes():
        try:
            with open(f"/proc/{process.pid}/comm", encoding="utf-8") as file:
                if file.read().strip() == "einhorn-capture":
                    found.append(process.pid)
        except OSError:
            pass
    return found


@scenario(
    "reader-killed",
    """The reader of chatty workers' output killed with -9 again and again: no request fails, no
    worker ends or waits, and no line is lost.""",
    lasts=(4, 20),
)
def reader_killed(day):
    pool = day.pool(args=["--capture=out.log"], before_worker=["python3", "-c", CHATTER])
    workers = sorted(pool.pids())
    path = pool.dir / "out.log"
    killed = 0
    with day.load(pool):
        for _ in ticks(0.5, day.lasts):
            reader = wait_until(lambda: (readers(pool) or [None])[0], 30, "a reader")
            os.kill(reader, signal.SIGKILL)
            killed += 1
            wait_until(lambda pid=reader: not is_alive(pid) or pid not in readers(pool), 30)
        size = path.stat().st_size
        wait_until(lambda: path.stat().st_size > size, 30, "lines again")
        day.expect(sorted(pool.pids()) == workers, "the workers stay")
    day.blame(*workers)  # by the stop, which TERM makes an end in the middle of nothing
    pool.stop()
    seen = {}
    for line in path.read_text(errors="replace").splitlines():
        if match := LINE.fullmatch(line):
            seen.setdefault(match[2], set()).add(int(match[3]))
    lost = sum(max(numbers) - len(numbers) for numbers in seen.values())
    day.expect(len(seen) == 4 and lost == 0, f"no line is lost, of {len(seen)} workers ({lost} are)")
    total = sum(len(numbers) for numbers in seen.values())
    day.saw(f"{killed} readers killed; all {total} lines are there")


@scenario(
    "worker-over-its-memory",
    """Workers leak until each reaches the limit of its own control group (--cgroup-memory): the log
    names each kill, what the worker held is lost, everybody else serves on.""",
    lasts=(4, 15),
)
def worker_over_its_memory(day):
    worker = ["--leak-kb=96", "--request-delay-ms=5"]
    pool = day.pool(args=["--cgroup-memory", "30M"], worker=worker)
    named = r"Worker \d+ was killed for want of memory"
    with day.load(pool, rate=200):
        for _ in ticks(0.5, day.lasts):
            pass
        pool.wait_log(named, 60)
        day.blame(*(worker.pid for worker in ledger.dead(day.ledger)))
    day.blame(*(worker.pid for worker in ledger.dead(day.ledger)))
    dead = len(list(ledger.dead(day.ledger)))
    wait_until(lambda: pool.count_log(named) >= dead, 30, "every kill is named")
    day.blame(*pool.pids())  # by the stop, so that its groups go
    pool.stop()
    day.saw(f"{pool.count_log(named)} workers killed for want of memory, each named so")
