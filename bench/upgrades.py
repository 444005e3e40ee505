"""The figures of upgrades. As in figures.py, einhorn and the bare loop take turns."""

import contextlib
import json
import math
import re
import subprocess
import time

from figures import MILLISECOND, STATE_REQUEST
from pool import PoolError, ask
from table import Row

# Load on the pool that is upgraded: less than it can bear, so that what is seen is the upgrade.
LANES = 8
REQUESTS_A_SECOND = 1000


def under_load(bench):
    """20 upgrades in a row of 8 workers under load on new connections. The bare loop replaces its 8
    copies in turns with them, under the same load."""
    serving = {"BENCH_SERVE": "1"}
    ours, floor = [], []
    with bench.floor(8, bench.worker) as bare, bench.einhorn(
        8, bench.worker, "-b", "127.0.0.1:0,r", manual=True, environment=serving
    ) as einhorn:
        bare.wait_for_mains()
        einhorn.wait_for_acks()
        with load_on(bench, port_of(einhorn)) as load:
            time.sleep(0.3)
            for _ in range(5 if bench.rounds == 1 else 20):
                floor.append(bare.replace_all() / MILLISECOND)
                ours.append(einhorn.upgrade() / MILLISECOND)
            time.sleep(0.3)
            seen = load.result()
    name = f"{len(ours)} upgrades of 8 under load"
    return [
        Row(f"{name}, each", "ms", ours, floor, "ratio", "<=", 5),
        Row(f"{name}, requests", "", [seen["requests"]]),
        Row(f"{name}, failed", "", [seen["failed"]], [], "ours", "<=", 0),
        Row(f"{name}, longest gap", "ms", [seen["longest_gap_ms"]]),
        Row(f"{name}, slowest request", "ms", [seen["slowest_ms"]]),
    ]


class Load:
    """load.c, asking a port until `result` is called."""

    def __init__(self, process):
        self._process = process

    def result(self):
        output, _ = self._process.communicate(timeout=30)
        if self._process.returncode != 0:
            raise PoolError("the load generator failed")
        return json.loads(output)


@contextlib.contextmanager
def load_on(bench, port):
    command = [bench.programs["load"], "-c", str(LANES), "-r", str(REQUESTS_A_SECOND), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield Load(process)
        finally:
            process.kill()


def port_of(pool):
    """The port that the kernel chose for the pool's first socket."""
    with pool.connect() as client:
        answer = ask(client, STATE_REQUEST).decode().replace("%0A", "\n")
    found = re.search(r"bound_ports:\s*-\s*(\d+)", answer)
    if found is None:
        raise PoolError(f"state names no bound port: {answer[:400]}")
    return int(found.group(1))


def of_8(bench):
    return upgrade_of(bench, 8, 5)


def of_50(bench):
    return upgrade_of(bench, 50, 2.5)


def upgrade_of(bench, count, target):
    """From the command to its last reply; workers that start at once, and no options but -n and
    manual ACKs."""
    ours, floor = [], []
    with bench.floor(count, bench.worker) as bare, bench.einhorn(
        count, bench.worker, manual=True
    ) as einhorn:
        bare.wait_for_mains()
        einhorn.wait_for_acks()
        for _ in range(bench.rounds):
            floor.append(bare.replace_all() / MILLISECOND)
            ours.append(einhorn.upgrade() / MILLISECOND)
    return [Row(f"smooth upgrade of {count}", "ms", ours, floor, "ratio", "<=", target)]


def of_slow_workers(bench):
    """A smooth upgrade of 50 workers that take 100 ms to start, 5 at a time. The floor is a perfect
    scheduler: at every moment 5 of them are starting."""
    count, start_ms, at_once = 50, 100, 5
    ours = []
    with bench.einhorn(
        *(count, bench.worker, "--max-unacked", str(at_once)),
        manual=True,
        environment={"BENCH_START_MS": str(start_ms)},
    ) as einhorn:
        einhorn.wait_for_acks()
        for _ in range(min(bench.rounds, 3)):
            ours.append(einhorn.upgrade() / MILLISECOND)
    perfect = math.ceil(count / at_once) * start_ms
    name = f"smooth upgrade of {count} that take {start_ms} ms, {at_once} at a time"
    return [Row(name, "ms", ours, [perfect], "ratio", "<=", 1.2)]


FIGURES = {
    "load": under_load,
    "8": of_8,
    "50": of_50,
    "slow": of_slow_workers,
}
