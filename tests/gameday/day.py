"""What a scenario is, and what it is given to work with.

    @scenario("worker-killed", "What we expect, in words.", lasts=(5, 30))
    def worker_killed(day):
        pool = day.pool()
        with day.load(pool):
            for _ in ticks(0.2, day.lasts):
                day.kill(day.any_worker())
        day.expect(condition, "what does not hold")
        day.saw("what happened, in words")

Besides what a scenario expects itself, these always have to hold: no request failed, none was lost
but with a worker that the scenario killed, and no other worker ended out of order."""

import contextlib
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path

import ledger
from account import Account
from harness import Load, Pool, processes, programs, wait_until
from harness.waiting import DeadlineExceeded

SCENARIOS = {}
THREADS = 8  # of a worker


class Scenario:
    def __init__(self, name, hypothesis, run, lasts, deadline):
        self.name, self.hypothesis, self.run = name, hypothesis, run
        self.lasts, self.deadline = lasts, deadline


class NotPossible(Exception):
    """This machine does not let the fault be induced; says why."""


def scenario(name, hypothesis, lasts=(0, 0), deadline=(150, 300)):
    """Registers a function. `lasts`: (short, full), in seconds or in rounds, as the function takes
    it; `deadline`: the same, in seconds, after which the scenario is ended."""

    def register(function):
        assert name not in SCENARIOS, name
        text = " ".join(hypothesis.split())
        SCENARIOS[name] = Scenario(name, text, function, lasts, deadline)
        return function

    return register


class Traffic:
    """Requests over new and over kept connections at once."""

    def __init__(self, day, address, rate):
        new = Load(address, day.directory, connections=8, mode="new", rate=rate)
        kept = Load(address, day.directory, connections=6, mode="keepalive", rate=rate)
        self.loads = [new, kept]

    def wait_more(self, number, deadline=30.0):
        """Waits until of each kind `number` more requests were answered."""
        wanted = [load.counts()[0] + number for load in self.loads]
        for load, count in zip(self.loads, wanted):
            load.wait_ok(count, deadline)

    def counts(self):
        """(answered, failed) up to now, as far as the progress files say."""
        pairs = [load.counts() for load in self.loads]
        return sum(ok for ok, _ in pairs), sum(failed for _, failed in pairs)

    def stop(self):
        for load in self.loads:
            if load.process.poll() is None:
                load.process.send_signal(signal.SIGTERM)
        for load in self.loads:
            load.stop()
            load.process.stdout.close()


class Day:
    def __init__(self, one, short):
        self.scenario, self.short = one, short
        self.lasts = one.lasts[0 if short else 1]
        self.directory = Path(tempfile.mkdtemp(prefix="day-"))
        self.ledger = self.directory / "ledger"
        self.ledger.mkdir(mode=0o777)
        self.ledger.chmod(0o777)
        self.killed = {}  # pid: when; None: some time
        self.account = Account()
        self.problems, self.notes = [], []
        self.pools, self.traffic = [], []
        self.moments = random.Random(one.name)
        self.begun = time.monotonic()

    # --- what there is to work with ---------------------------------------------------------------

    def pool(self, number=4, args=(), worker=(), ready=True, before_worker=(), ack="manual",
             bind=("-b", "127.0.0.1:0,rn,name=web"), **more):  # fmt: skip
        """A pool whose workers keep a ledger. `worker`: more options of http_worker;
        `before_worker`: words in front of it; `bind`: where its sockets come from."""
        words = ["-n", number, "-m", ack, *bind, *args]
        command = [programs.worker("http_worker"), f"--threads={THREADS}", "--linger-ms=1000"]
        command += [f"--ledger={self.ledger}", "--ack=path"]
        pool = Pool(words, [*before_worker, *command, *worker], **more)
        self.pools.append(pool)
        if ready:
            pool.wait_ready(number, deadline=30)
        return pool

    @contextlib.contextmanager
    def load(self, pool, rate=400):
        """Traffic while the body runs; it flows before that begins and after it ends."""
        traffic = Traffic(self, pool.address, rate)
        self.traffic.append(traffic)
        traffic.wait_more(50)
        yield traffic
        traffic.wait_more(50)
        traffic.stop()

    def workers(self):
        """Pids of the living workers, asking nobody."""
        return ledger.serving(self.ledger)

    def any_worker(self):
        return self.moments.choice(wait_until(self.workers, 20, "a living worker"))

    def kill(self, pid, number=signal.SIGKILL):
        """Ends a worker that is in our ledger: what it held may be lost."""
        self.killed[pid] = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def blame(self, *pids):
        """These workers are ended by somebody else, as the scenario wants it."""
        for pid in pids:
            self.killed.setdefault(pid, None)

    # --- what is said about it --------------------------------------------------------------------

    def expect(self, condition, text):
        if not condition:
            self.problems.append(text)
        return condition

    def saw(self, text):
        """Says what happened; our directory is nobody's concern."""
        self.notes.append(text.replace(str(self.directory), "DIR"))

    # --- from beginning to end --------------------------------------------------------------------

    def run(self):
        """Runs the scenario; the result as a dict."""
        possible = None
        try:
            self.scenario.run(self)
        except NotPossible as error:
            possible = str(error)
        except (Exception, DeadlineExceeded) as error:  # a scenario that breaks does not hold
            self.problems.append(f"{type(error).__name__}: {first_line(error)}")
            traceback.print_exc()
        finally:
            for traffic in self.traffic:
                traffic.stop()
        if possible is None:
            self.settle()
        result = self.result(possible)
        self.show_logs(result)
        for pool in reversed(self.pools):
            pool.destroy()
        processes.end_all(processes.descendants)
        return result

    def settle(self):
        for traffic in self.traffic:
            for load in traffic.loads:
                self.account.add(load.result, load.failures())
        gone = ledger.dead(self.ledger)
        self.account.settle(gone, self.killed)
        strangers = [worker.pid for worker in gone if worker.pid not in self.killed]
        self.expect(not strangers, f"workers ended out of order, by nobody we know: {strangers}")
        failed = self.account.failed
        self.expect(not failed, f"{len(failed)} requests failed, the first: {failed[:3]}")

    def result(self, possible):
        account = self.account
        held = "not possible" if possible else ("no" if self.problems else "yes")
        return {
            "name": self.scenario.name,
            "hypothesis": self.scenario.hypothesis,
            "happened": "; ".join([*self.notes, *([possible] if possible else [])]),
            "holds": held,
            "problems": self.problems,
            "requests": account.requests,
            "over_kept_connections": account.reused,
            "failed": len(account.failed),
            "lost_with_a_killed_worker": account.lost,
            "of_these_between_accept_and_note": account.unnamed,
            "workers_killed": len(self.killed),
            "longest_gap_ms": round(account.longest_gap_ms, 1),
            "worst_latency_ms": round(account.worst_latency_ms, 1),
            "seconds": round(time.monotonic() - self.begun, 1),
        }

    def show_logs(self, result):
        if result["holds"] == "no":
            for pool in self.pools:
                print(f"--- log of {' '.join(pool.command_line())}\n{pool.log()[-8000:]}")


def first_line(error):
    return (str(error).splitlines() or [""])[0]
