"""Memory, descriptors, processes and disk space that run out."""

import contextlib
import os
import resource
import socket
import subprocess

import ledger
from cgroup import Group
from day import NotPossible, scenario
from harness import wait_until
from harness.waiting import ticks

from .masters import keep_address, kill_master, take_over


@scenario(
    "worker-out-of-memory",
    """Workers leak until the kernel kills one for want of memory (a memory control group of the
    workers): that costs what it held, and it is replaced at once.""",
    lasts=(4, 20),
)
def worker_out_of_memory(day):
    group = Group("memory", day.directory)
    group.write("memory.limit_in_bytes", 80 << 20)
    join = f'echo 0 >{group.path}/cgroup.procs && exec "$0" "$@"'
    worker = ["--leak-kb=96", "--request-delay-ms=5"]
    pool = day.pool(worker=worker, before_worker=["sh", "-c", join])
    guard, master = pool.guard_pid, pool.master_pid
    kills, dead = leak_until_killed(day, pool, group)
    day.expect(dead <= kills, f"{kills} killed by the kernel, but {dead} ended")
    day.expect((pool.guard_pid, pool.master_pid) == (guard, master), "guard and master stay")
    day.saw(f"the kernel killed {kills} workers; guard and master untouched; 4 ready again")


@scenario(
    "pool-out-of-memory",
    """The same with guard and master in the same group: the kernel may take one of these for want
    of anything bigger. A master is replaced by the guard, a guard by whoever starts it again; only
    the workers that are killed cost what they held.""",
    lasts=(4, 20),
)
def pool_out_of_memory(day):
    group = Group("memory", day.directory)
    group.write("memory.limit_in_bytes", 80 << 20)
    worker = ["--leak-kb=96", "--request-delay-ms=5"]
    pool = day.pool(args=["--ack-timeout", "20"], worker=worker, preexec=group.join)
    guard = pool.guard_pid
    kills, dead = leak_until_killed(day, pool, group)
    masters = pool.count_log("the master .* was killed by signal 9")
    lost_guard = pool.guard_pid != guard
    day.saw(
        f"the kernel killed {kills} processes, among them {dead} workers, {masters} masters and"
        f" {'the guard' if lost_guard else 'no guard'}; 4 ready again"
    )


def leak_until_killed(day, pool, group):
    """How many the kernel killed, and how many workers ended."""
    with day.load(pool, rate=200):
        for _ in ticks(0.5, day.lasts):
            pass
        wait_until(lambda: group.field("memory.oom_control", "oom_kill") >= 2, 60)
    kills = group.field("memory.oom_control", "oom_kill")
    group.write("memory.limit_in_bytes", 1 << 30)
    dead = [worker.pid for worker in ledger.dead(day.ledger)]
    day.blame(*dead)
    if pool.exit_code is not None:
        take_over(pool)
    pool.wait_ready(4, deadline=60)
    return kills, len(dead)


@scenario(
    "worker-without-memory",
    """Workers leak until their own limit (RLIMIT_DATA) refuses them more, and abort: as if they had
    been killed.""",
    lasts=(3, 15),
)
def worker_without_memory(day):
    limit = 160 << 20
    pool = day.pool(
        worker=["--leak-kb=192", "--request-delay-ms=5"],
        preexec=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    guard, master = pool.guard_pid, pool.master_pid
    with day.load(pool, rate=200):
        wait_until(lambda: len(ledger.dead(day.ledger)) >= day.lasts, 60, "workers that abort")
    day.blame(*[worker.pid for worker in ledger.dead(day.ledger)])
    pool.wait_ready(4, deadline=60)
    day.expect((pool.guard_pid, pool.master_pid) == (guard, master), "guard and master stay")
    day.saw(f"{len(day.killed)} workers aborted; guard and master untouched; 4 ready again")


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@scenario(
    "no-descriptors",
    """Clients of the command socket use up the master's last descriptor: the pool serves, the
    master waits without spinning, replaces dead workers and upgrades as soon as there are
    descriptors again. Nothing is lost but what killed workers held.""",
    lasts=(2, 6),
)
def no_descriptors(day):
    pool = day.pool(
        preexec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)),
        args=["--ack-timeout", "20"],
    )
    guard, master = pool.guard_pid, pool.master_pid
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            crowd = [command_connection(pool) for _ in range(320)]
            wait_until(lambda: len(os.listdir(f"/proc/{master}/fd")) >= 300, 10, "no descriptors")
            before = processor_seconds(master)
            traffic.wait_more(400)
            spent = processor_seconds(master) - before
            day.expect(spent < 0.3, f"the master spins: {spent:.2f} s of processor time")
            victim = day.any_worker()
            day.kill(victim)
            traffic.wait_more(200)
            for each in crowd:
                each.close()
            pool.wait_state(
                lambda s, victim=victim: victim not in [w["pid"] for w in s["workers"]], 20
            )
            pool.wait_ready(4, deadline=40)
        with pool.client(timeout=60) as client:
            last = client.conversation({"command": "upgrade", "id": 1})[-1]
        day.expect(last["message"] == "Upgrade done", f"the upgrade behind it: {last}")
    day.expect(pool.guard_pid == guard, "the guard is the same")
    said = pool.count_log("(?i)too many open files|descriptors")
    day.expect(said, "the log says so")
    day.saw(f"{day.lasts} times all 300 taken and a worker killed; then 4 ready and upgraded")


def command_connection(pool):
    """A connection to the command socket that says nothing."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(10)
    stream.connect(str(pool.socket_path))
    stream.send(b"{")
    return stream


@scenario(
    "no-processes",
    """The limit of processes is reached (a control group for pids): what is there serves on, also
    over the master's death; an upgrade fails and is taken back; with room again all goes as
    ever.""",
    lasts=(1, 3),
)
def no_processes(day):
    group = Group("pids", day.directory)
    pool = day.pool(preexec=group.join)
    with day.load(pool) as traffic:
        for round_ in range(day.lasts):
            old = set(pool.pids())
            group.write("pids.max", int(group.read("pids.current")) + 3)
            with pool.client(timeout=60) as client:
                replies = client.conversation({"command": "upgrade", "id": round_ + 1})
            failed = replies[-1]["message"]
            day.expect("done" not in failed, f"the upgrade fails: {failed}")
            killed = kill_master(pool)
            state = pool.wait_state(lambda s, killed=killed: s["master"] != killed, 30)
            traffic.wait_more(200)
            day.expect(old <= {w["pid"] for w in state["workers"]}, "the old workers are there")
            group.write("pids.max", "max")
            # New workers that got no threads ended before they served.
            day.blame(*[w.pid for w in ledger.dead(day.ledger) if w.pid not in old])
            pool.wait_state(lambda s: not s["upgrading"], 60)
            with pool.client(timeout=60) as client:
                last = client.conversation({"command": "upgrade", "id": 1})[-1]
            day.expect(last["message"] == "Upgrade done", f"the upgrade with room: {last}")
            pool.wait_ready(4, deadline=30)
    day.saw(f'{day.lasts} times: "{failed.splitlines()[0]}", later "{last["message"]}"')


def small_disk(day):
    """A tmpfs of 128 kB in our own mount namespace."""
    place = day.directory / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "none", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotPossible(f"can't mount a tmpfs: {done.stderr.strip()}")
    return place


def fill(place):
    """Writes until not one byte more fits; returns the file."""
    path = place / "filler"
    with open(path, "ab", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    return path


def exercise(day, pool, traffic):
    """What a pool has to be able to do whatever the disk is like."""
    day.kill(day.any_worker())
    pool.wait_state(lambda s: not set(day.killed) & {w["pid"] for w in s["workers"]}, 20)
    pool.wait_ready(4, deadline=30)
    killed = kill_master(pool)
    pool.wait_state(lambda s: s["master"] != killed, 30)
    with pool.client(timeout=60) as client:
        last = client.conversation({"command": "upgrade", "id": 1})[-1]
    day.expect(last["message"] == "Upgrade done", f"an upgrade: {last}")
    traffic.wait_more(50)


@scenario(
    "disk-full",
    """Not one byte more fits on the disk of state directory and log: workers are replaced, masters
    too, upgrades work, a killed guard is followed by the next one. Log lines are lost, requests are
    not.""",
    lasts=(1, 4),
)
def disk_full(day):
    place = small_disk(day)
    pool = day.pool(directory=place)
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            filler = fill(place)
            exercise(day, pool, traffic)
            os.kill(pool.process.pid, 9)
            pool.wait_exit()
            traffic.wait_more(50)
            take_over(pool)
            exercise(day, pool, traffic)
            filler.unlink()
            pool.wait_ready(4)
    day.saw(f"{day.lasts} times filled: worker, master and guard killed, upgraded")


@scenario(
    "read-only-state-directory",
    """The state directory becomes read-only: workers are replaced, masters too, upgrades work. When
    the guard is killed, the next one says that it can't write there and disturbs nobody; as soon as
    it can, it takes the pool over.""",
    lasts=(1, 4),
)
def read_only(day):
    place = small_disk(day)
    files = ["-d", place / "sock", "-e", place / "pid", "-f", place / "lock"]
    pool = day.pool(args=files, directory=place, start=False, ready=False)
    pool.log_path = day.directory / "log"
    pool.stdout_path = day.directory / "stdout"
    pool.start().wait_ready(4)
    keep_address(pool)
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            remount(place, "ro")
            exercise(day, pool, traffic)
            pool.send(9)
            pool.wait_exit()
            mark = pool.log_size()
            pool.start()
            day.expect(pool.wait_exit() == 1, "no new guard while nothing can be written")
            said = pool.log(mark).strip().splitlines()[-1]
            day.expect("Read-only" in said, f"and why: {said}")
            traffic.wait_more(100)
            remount(place, "rw")
            take_over(pool)
            exercise(day, pool, traffic)
    day.saw(f'{day.lasts} times read-only, all but a new guard went on: "{said}"; taken over later')


def remount(place, how):
    words = ["mount", "-o", f"remount,{how}", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
