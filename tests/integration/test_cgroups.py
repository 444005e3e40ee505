"""Control groups: limits that the kernel keeps, kills that are named, nothing left behind."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest
from harness import processes, wait_until

PYTHON = "/usr/bin/python3"
LEAK = """
import os, signal, time
open("up" + os.environ["EINHORN_CHILD_INDEX"], "a").close()
while not os.path.exists("leak" + os.environ["EINHORN_CHILD_INDEX"]):
    time.sleep(0.01)
os.unlink("leak" + os.environ["EINHORN_CHILD_INDEX"])
kept = []
while True:
    kept.append(bytearray(os.urandom(1 << 20)))
"""


@pytest.fixture(autouse=True)
def no_groups_left(make_pool, request):
    """Those of pools that this test ended by force."""
    yield
    places = set()
    for pool in request.node.pools:
        if not pool.log_path.exists():
            continue
        for place in re.findall(r"\(version \d, ([^)]+)\)", pool.log()):
            places.add(Path(place))
        for process in pool.processes():
            processes.kill_exactly(process)
    for place in places:
        for group in [*place.glob("*/"), place]:
            wait_until(lambda group=group: removed(group), 30, f"{group} can be removed")


def removed(group):
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()


def line_with(pool, text):
    pool.wait_log(re.escape(text), 20)
    return [line for line in pool.log().splitlines() if text in line][0]


def groups_of(pool):
    said = line_with(pool, "Control groups, one for")
    return {
        name: Path(directory)
        for name, directory in re.findall(r"(\w+) \(version \d, ([^)]+)\)", said)
    }


def members(directory):
    return [int(pid) for pid in (directory / "cgroup.procs").read_text().split()]


def groups_of_workers(directory):
    return sorted(path for path in directory.iterdir() if path.is_dir())


def test_a_worker_out_of_memory_is_named(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "--cgroup-memory", "60M"], [PYTHON, "-c", LEAK])
    pool.wait_ready(2)
    wait_until(lambda: (pool.dir / "up0").exists() and (pool.dir / "up1").exists(), 20)
    memory = groups_of(pool)["memory"]
    first, second = sorted(pool.workers(), key=lambda w: w["index"])
    assert sorted(p for g in groups_of_workers(memory) for p in members(g)) == sorted(pool.pids())
    (pool.dir / "leak0").write_text("")
    pool.wait_log(f"Worker {first['pid']} was killed for want of memory", 60)
    pool.wait_ready(2)
    assert second["pid"] in pool.pids()
    wait_until(lambda: len(groups_of_workers(memory)) == 2, 20, "the dead one's group is gone")
    # The next master knows which groups are whose, and still names what happens.
    pool.kill_master()
    pool.wait_ready(2)
    assert len(groups_of_workers(memory)) == 2
    (pool.dir / "leak1").write_text("")
    pool.wait_log(f"Worker {second['pid']} was killed for want of memory", 60)
    pool.stop()
    assert not memory.exists()


def test_one_group_for_the_pool(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "--cgroup", "pool", "--cgroup-memory", "90M", "--cgroup-pids", "50"],
        [PYTHON, "-c", LEAK],
    )
    pool.wait_ready(2)
    groups = groups_of(pool)
    for directory in groups.values():
        assert sorted(members(directory)) == sorted(pool.pids())
    wait_until(lambda: (pool.dir / "up0").exists() and (pool.dir / "up1").exists(), 20)
    victim = next(w["pid"] for w in pool.workers() if w["index"] == 1)
    (pool.dir / "leak1").write_text("")
    pool.wait_log(f"Worker {victim} was killed for want of memory", 60)
    os.kill(next(w["pid"] for w in pool.workers() if w["index"] == 0), signal.SIGKILL)
    pool.wait_log("was killed by signal 9", 20)
    assert pool.count_log("for want of memory") == 1
    pool.stop()
    assert not any(directory.exists() for directory in groups.values())


def test_processes_and_cpu(make_pool):
    text = """
import os, signal, time
children = 0
parent = os.getpid()
try:
    while children < 100:
        if os.fork() == 0:
            while os.getppid() == parent:
                time.sleep(0.05)
            os._exit(0)
        children += 1
except OSError as error:
    open("refused", "w").write(f"{children} {error.errno}")
while True:
    pass
"""
    pool = make_pool(
        ["-m", "0.05", "-t", "2", "--cgroup-pids", "8", "--cgroup-cpu", "2%"], [PYTHON, "-c", text]
    )
    pool.wait_ready(1)
    groups = groups_of(pool)
    wait_until((pool.dir / "refused").exists, 60)
    wait_until(lambda: (pool.dir / "refused").read_text() == "7 11", 20)

    def throttled():
        (group,) = groups_of_workers(groups["cpu"])
        lines = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
        return int(lines["nr_throttled"]) > 2

    wait_until(throttled, 60, "the worker is slowed down")
    pid = pool.pids()[0]
    (old,) = groups_of_workers(groups["pids"])
    # Its children are in the group still, which goes when they have gone.
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not old.exists(), 60, "the group is gone")
    wait_until(lambda: pool.pids() and pool.pids() != [pid], 20)


def test_what_is_not_there_is_said(make_pool):
    wrapper = [
        "unshare", "-m", "sh", "-c",
        'umount -l /sys/fs/cgroup/pids /sys/fs/cgroup/unified; exec "$@"', "sh",
    ]  # fmt: skip
    pool = make_pool(
        ["-m", "0.05", "--cgroup-pids", "20", "--cgroup-memory", "500M"],
        [PYTHON, "-c", LEAK],
        wrapper=wrapper,
    )
    pool.wait_ready(1)
    said = line_with(pool, "Control groups, one for each worker: memory (version 1")
    assert said.endswith(
        "Not limited, as it can't be done here: pids: this kernel offers no such controller"
    )
    pool.stop()


def test_nothing_is_left_of_a_start_that_failed(make_pool, tmp_path):
    pool = make_pool(
        ["--cgroup-memory", "100M", "-e", "/no/such/place/pid"], [PYTHON, "-c", LEAK]
    )
    assert pool.wait_exit() == 1
    (memory,) = groups_of(pool).values()
    assert not memory.exists()


def test_it_can_be_checked_from_the_kernels_side(make_pool):
    pool = make_pool(["-m", "0.05", "--cgroup-memory", "64M"], [PYTHON, "-c", LEAK])
    pool.wait_ready(1)
    (group,) = groups_of_workers(groups_of(pool)["memory"])
    files = [group / name for name in ("memory.limit_in_bytes", "memory.max")]
    (limit,) = [int(file.read_text()) for file in files if file.exists()]
    assert limit == 64 << 20
