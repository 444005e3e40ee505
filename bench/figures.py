"""The figures: what is done to einhorn and to the bare loop, in turns, and what is read from them.

Each function takes a Bench and returns rows. In each, the bare loop and einhorn take turns for
every sample, so that whatever else the machine does at that time falls on both.
"""

import time
from dataclasses import dataclass

from pool import Pool, PoolError, ask
from table import Row

MILLISECOND = 1_000_000
MICROSECOND = 1_000
KILOBYTE = 1024
MEGABYTE = 1024 * 1024

# Longer than the default ACK (1 s) and than the default pause between two starts of a worker.
QUIET_SECONDS = 1.4


@dataclass
class Bench:
    """What the figures need to know of the command line."""

    programs: dict
    command: list
    worker: str  # For figures in which its start is part of the time.
    small_worker: str  # For figures in which there are many of it.
    rounds: int
    counts: list  # How many workers, for the figures that grow with it.
    idle_seconds: float
    state_seconds: float

    def floor(self, count, worker, *options):
        return Pool(
            self.programs,
            lambda pool: [self.programs["bare"], "-n", str(count), *options, worker],
            count,
        )

    def floor_with_state(self, count):
        return Pool(
            self.programs,
            lambda pool: [
                *(self.programs["bare"], "-n", str(count), "-d", pool.socket_path),
                self.small_worker,
            ],
            count,
        )

    def einhorn(self, count, worker, *options, manual=False, environment=None):
        """With manual ACKs the worker sends one as soon as it has started."""
        ack = ("-m", "manual") if manual else ()
        return Pool(
            self.programs,
            lambda pool: [
                *(*self.command, "-n", str(count), *ack, *options),
                *("-d", pool.socket_path),
                *("-e", f"{pool.directory}/pid", "-f", f"{pool.directory}/lock"),
                *("--", worker),
            ],
            count,
            {**(environment or {}), **({"BENCH_ACK": "1"} if manual else {})},
        )


def start_of_one(bench):
    """From the exec of einhorn to the first statement of its first worker's main."""
    ours, floor = [], []
    for _ in range(bench.rounds * 3):
        with bench.floor(1, bench.worker) as pool:
            floor.append(pool.wait_for_mains()[0] / MILLISECOND)
        with bench.einhorn(1, bench.worker) as pool:
            ours.append(pool.wait_for_mains()[0] / MILLISECOND)
    return [Row("start to first worker's main", "ms", ours, floor, "ratio", "<=", 3)]


def start_of_100(bench):
    """From the exec of einhorn until it has read the manual ACKs of 100 workers; the bare loop has
    no ACKs, there it is until the last of 100 mains began."""
    ours, floor = [], []
    for _ in range(bench.rounds):
        with bench.floor(100, bench.worker) as pool:
            floor.append(pool.wait_for_mains()[1] / MILLISECOND)
        with bench.einhorn(100, bench.worker, manual=True) as pool:
            ours.append(pool.wait_for_acks() / MILLISECOND)
            check_state(pool)
    return [Row("start to 100 workers ACKed", "ms", ours, floor, "ratio", "<=", 1.5)]


def death_when_idle(bench):
    """From a worker's SIGKILL to its replacement's main, when nothing happened just before."""
    ours, floor = [], []
    with bench.floor(4, bench.worker) as bare, bench.einhorn(4, bench.worker) as einhorn:
        bare.wait_for_mains()
        einhorn.wait_for_mains()
        for _ in range(bench.rounds * 2):
            time.sleep(QUIET_SECONDS)
            floor.append(bare.replace(bare.any_worker())[1] / MILLISECOND)
            ours.append(einhorn.replace(einhorn.any_worker())[1] / MILLISECOND)
    return [Row("death to replacement, idle before", "ms", ours, floor, "ratio", "<=", 1.5)]


def deaths_in_a_row(bench):
    """The same, each death at the moment the last replacement's main began: the mean of 10 that
    died in a row, once with no option but -n, once with manual ACKs."""
    rows = []
    for manual, name in ((False, "default flags"), (True, "-m manual")):
        ours, floor = [], []
        with bench.floor(12, bench.worker) as bare, bench.einhorn(
            12, bench.worker, manual=manual
        ) as einhorn:
            bare.wait_for_mains()
            einhorn.wait_for_mains()
            for _ in range(bench.rounds):
                time.sleep(QUIET_SECONDS)
                floor.append(row_of_deaths(bare, 10) / MILLISECOND)
                ours.append(row_of_deaths(einhorn, 10) / MILLISECOND)
        rows.append(
            Row(f"deaths in a row, {name}, each", "ms", ours, floor, "ratio", "<=", 1.5)
        )
    return rows


def row_of_deaths(pool, deaths):
    """Always the oldest worker, which was ACKed long ago: none dies before its ACK."""
    return sum(pool.replace(victim)[1] for victim in pool.oldest(deaths)) / deaths


def memory(bench):
    """Bytes of guard and master, once all workers are ACKed; then what one more worker costs."""
    rows = []
    sizes = {}
    for count in sorted({1, 100, *(count for count in bench.counts if count > 100)}):
        ours, floor = [], []
        for _ in range(1 if count > 1000 else min(bench.rounds, 3)):
            with bench.floor(count, bench.small_worker) as pool:
                pool.wait_for_mains()
                floor.append(pool.memory())
            with bench.einhorn(count, bench.small_worker, manual=True) as pool:
                pool.wait_for_acks()
                ours.append(pool.memory())
        for at, kind in enumerate(("resident", "PSS")):
            row = Row(
                f"guard + master, {count} worker{'s' * (count > 1)}, {kind}",
                "MB",
                [size[at] / MEGABYTE for size in ours],
                [size[at] / MEGABYTE for size in floor],
            )
            if count == 100:
                row.judged, row.target = "ours", 8
            rows.append(row)
            sizes[count, kind] = row
    largest = max(count for count, _ in sizes)
    if largest > 100:
        rows.append(cost_of_one_more(sizes, largest))
    return rows


def cost_of_one_more(sizes, largest):
    def growth(get):
        grown = get(sizes[largest, "PSS"]) - get(sizes[100, "PSS"])
        return [grown * MEGABYTE / KILOBYTE / (largest - 100)]

    return Row(
        f"each worker more, 100 to {largest}, PSS",
        "KB",
        growth(lambda row: row.value),
        growth(lambda row: row.floor_value),
        "ours",
        "<=",
        1,
    )


def cpu_of_a_death(bench):
    """User and system time of guard and master for a death and its replacement, and how that grows
    with the number of workers."""
    rows = []
    deaths = 50
    for count in bench.counts:
        ours, floor = [], []
        for _ in range(1 if count > 1000 else min(bench.rounds, 5)):
            with bench.floor(count, bench.small_worker) as pool:
                pool.wait_for_mains()
                floor.append(cpu_of_deaths(pool, deaths, manual=False) / MICROSECOND)
            with bench.einhorn(count, bench.small_worker, manual=True) as pool:
                pool.wait_for_acks()
                ours.append(cpu_of_deaths(pool, deaths, manual=True) / MICROSECOND)
        rows.append(Row(f"CPU of a death, {count} workers", "us", ours, floor))
    if len(rows) > 1:
        first, last = rows[0], rows[-1]
        rows.append(
            Row(
                f"growth of that, {bench.counts[0]} to {bench.counts[-1]} workers",
                "x",
                [last.value / first.value],
                [last.floor_value / first.floor_value],
                "ratio",
                "<=",
                1.3,
            )
        )
    return rows


def cpu_of_deaths(pool, deaths, manual):
    def once():
        replacement, _ = pool.replace(pool.any_worker())
        if manual:
            pool.wait_for_ack_of(replacement)

    for _ in range(5):
        once()
    before = pool.cpu_nanoseconds()
    for _ in range(deaths):
        once()
    time.sleep(0.02)  # What was left to do after the last replacement began.
    return (pool.cpu_nanoseconds() - before) / deaths


def idle(bench):
    """Context switches of guard and master while nothing happens: one for each wake-up."""
    with bench.floor(10, bench.worker) as bare, bench.einhorn(10, bench.worker) as einhorn:
        bare.wait_for_mains()
        einhorn.wait_for_mains()
        time.sleep(QUIET_SECONDS * 2)
        before = bare.context_switches(), einhorn.context_switches()
        time.sleep(bench.idle_seconds)
        floor = bare.context_switches() - before[0]
        ours = einhorn.context_switches() - before[1]
    name = f"wake-ups in {bench.idle_seconds:g} s when idle"
    return [Row(name, "", [ours], [floor], "ours", "<=", 0)]


def state(bench):
    """`state` requests that one client gets answered one after the other, in a second. The bare
    loop's answer is a line of numbers for each worker; ours is all that is known of it."""
    rows = []
    for count, target in ((100, 1500), (500, 300)):
        ours, floor = [], []
        with bench.floor_with_state(count) as bare, bench.einhorn(
            count, bench.small_worker, manual=True
        ) as einhorn:
            bare.wait_for_mains()
            einhorn.wait_for_acks()
            check_state(einhorn)
            for _ in range(bench.rounds):
                floor.append(states_a_second(bare, bench.state_seconds))
                ours.append(states_a_second(einhorn, bench.state_seconds))
        name = f"state requests a second, {count} workers"
        rows.append(Row(name, "", ours, floor, "ours", ">=", target))
    return rows


STATE_REQUEST = b"{command: state}\n"


def states_a_second(pool, seconds):
    with pool.connect() as client:
        ask(client, STATE_REQUEST)
        answers = 0
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            ask(client, STATE_REQUEST)
            answers += 1
    return answers / (now - began)


def check_state(pool):
    """The figure counts only if the answer is whole: every worker is in it, and is ACKed."""
    with pool.connect() as client:
        answer = ask(client, STATE_REQUEST).decode()
    missing = [pid for pid in pool.mains if str(pid) not in answer]
    acked = answer.count("acked: true")
    if missing or acked != pool.count:
        raise PoolError(
            f"state lacks {len(missing)} workers and calls {acked} ACKed: {answer[:400]}"
        )


FIGURES = {
    "start": start_of_one,
    "start100": start_of_100,
    "death": death_when_idle,
    "deaths": deaths_in_a_row,
    "memory": memory,
    "cpu": cpu_of_a_death,
    "idle": idle,
    "state": state,
}
