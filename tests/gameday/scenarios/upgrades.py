"""New versions that do not work, and very many that do."""

import json
import os
import re
import signal

from day import Traffic, scenario
from harness import wait_until
from harness.processes import descendants, open_descriptors

from .masters import current_master


def broken_version(day, options, args=(), reason=""):
    """Upgrades to a version that is started with these options, and back to one that works."""
    file = day.directory / "options"
    file.write_text("")
    pool = day.pool(args=args, worker=[f"--options-file={file}"])
    old = pool.pids()
    with day.load(pool) as traffic:
        for _ in range(day.lasts):
            file.write_text("\n".join(options) + "\n")
            with pool.client(timeout=90) as client:
                replies = client.conversation({"command": "upgrade", "id": 1})
            told = "\n".join(reply["message"] for reply in replies)
            last = replies[-1]["message"]
            day.expect("rolled back" in last, f"rolled back: {last}")
            day.expect(re.search(reason, told), f"the reason is told ({reason}): {told}")
            day.expect(set(old) <= set(day.workers()), "the old workers were never touched")
            traffic.wait_more(50)
            file.write_text("")
            with pool.client(timeout=90) as client:
                done = client.conversation({"command": "upgrade", "id": 1})[-1]["message"]
            day.expect(done == "Upgrade done", f"the next version works: {done}")
            old = [w["pid"] for w in pool.wait_ready(4, deadline=30)]
    day.saw(f'{day.lasts} times "{last}", then "{done}"')


@scenario(
    "new-version-crashes",
    """A new version whose workers crash at once is taken back with the reason; no old worker is
    touched. The next version that works is taken.""",
    lasts=(1, 5),
)
def new_version_crashes(day):
    broken_version(day, ["--exit-at-start=7"], reason="exited with status 7")


@scenario(
    "new-version-hangs",
    """A new version whose workers never say that they are up is taken back when --ack-timeout has
    passed.""",
    lasts=(1, 3),
)
def new_version_hangs(day):
    hanging = ["--ack-delay-ms=600000", "--on=USR2:exit", "--adopt=none", "--ledger="]
    args = ["--ack-timeout", "2", "--upgrade-failures", "1", "-t", "3"]
    broken_version(day, hanging, args, reason="(?i)ack")


@scenario(
    "new-version-exits-0",
    """A new version whose workers end at once and without an error is no better than one that
    crashes.""",
    lasts=(1, 5),
)
def new_version_exits_0(day):
    broken_version(day, ["--exit-at-start=0"], reason="exited with status 0")


class Holdings:
    """What all processes of a pool have: descriptors by kind, memory, zombies, files. Nobody is
    asked: a connection to the master would be one of its descriptors."""

    def __init__(self, pool, workers):
        guard, master = pool.process.pid, current_master(pool)
        self.descriptors = {"guard": kinds(guard), "master": kinds(master)}
        self.descriptors["workers"] = sorted(tuple(kinds(pid)) for pid in workers)
        self.memory_kb = {"guard": private_kb(guard), "master": private_kb(master)}
        self.snapshot_kb = sum(memory_files_kb(guard))
        self.zombies = [s.pid for s in descendants() if s.state == "Z"]
        self.processes = len(descendants())
        self.files = sorted(os.listdir(pool.dir))


def kinds(pid):
    """A process's descriptors without what differs from one to the next, such as inodes."""
    return sorted(re.sub(r"\[\d+\]| \(deleted\)", "", t) for t in open_descriptors(pid).values())


def idle(pool, pids):
    """No worker has a client, the master is alone with its guard."""
    sockets = [kinds(pid).count("socket:") for pid in pids]
    master = kinds(current_master(pool)).count("socket:")
    return sockets == [1] * len(pids) and master == 4


def private_kb(pid):
    """Memory that this process has written to. Clean pages of the program are its alone, too, from
    the moment nobody else runs that program."""
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.startswith(("Private_Dirty", "Private_Hugetlb")):
                total += int(line.split()[1])
    return total


def memory_files_kb(pid):
    for number, target in open_descriptors(pid).items():
        if target.startswith("/memfd:"):
            yield os.stat(f"/proc/{pid}/fd/{number}").st_blocks // 2


@scenario(
    "a-thousand-upgrades",
    """A thousand upgrades in a row (short: thirty) leave guard and master with the descriptors,
    the memory and the files they had before, without a zombie or a process more.""",
    lasts=(30, 1000),
    deadline=(200, 1200),
)
def a_thousand_upgrades(day):
    pool = day.pool()

    def upgrade():
        with pool.client(timeout=60) as client:
            last = client.conversation({"command": "upgrade", "id": 1})[-1]["message"]
        return day.expect(last == "Upgrade done", f"an upgrade: {last}")

    def at_rest():
        pool.wait_ready(4, deadline=30)
        wait_until(lambda: len(day.workers()) == 4, 30, "old workers leave")
        wait_until(lambda: not [s for s in descendants() if s.state == "Z"], 10, "zombies")
        wait_until(lambda: idle(pool, day.workers()), 30, "connections that are closed")
        seen = [Holdings(pool, day.workers())]

        def the_same_again():  # a connection may just be closing
            seen.append(Holdings(pool, day.workers()))
            return len(seen) >= 4 and all(
                each.descriptors == seen[-1].descriptors for each in seen[-4:]
            )

        wait_until(the_same_again, 30, "descriptors that stay")
        return seen[-1]

    with day.load(pool):
        for _ in range(5):
            upgrade()
    before = at_rest()
    with day.load(pool):
        for _ in range(day.lasts):
            if not upgrade():
                break
    after = at_rest()
    version = pool.state_json()["version"]
    day.expect(version == day.lasts + 5, f"version {version}")
    same = ("descriptors", "zombies", "processes", "files")
    for what in same:
        was, now = getattr(before, what), getattr(after, what)
        day.expect(was == now, f"{what}: {was} before, {now} after")
    for who, grown in (("guard", 64), ("master", 256)):
        was, now = before.memory_kb[who], after.memory_kb[who]
        day.expect(now <= was + grown, f"memory of the {who}: {was} kB before, {now} kB after")
    day.expect(after.snapshot_kb <= before.snapshot_kb + 512, "the snapshot's size")
    count = {who: len(before.descriptors[who]) for who in ("guard", "master")}
    day.saw(
        f"{day.lasts} upgrades; descriptors of guard {count['guard']}, master {count['master']},"
        " workers: before as after; private memory"
        f" of the guard {before.memory_kb['guard']} -> {after.memory_kb['guard']} kB, of the master"
        f" {before.memory_kb['master']} -> {after.memory_kb['master']} kB; snapshot"
        f" {before.snapshot_kb} -> {after.snapshot_kb} kB; no zombie; {after.processes} processes"
        " before and after"
    )


@scenario(
    "sockets-come-and-go",
    """The config file gets a second socket, and loses it again, with a reload each time, and the master
    is killed with -9 after every other one: what comes over the first socket notices nothing, nothing
    that comes over the second one while it is there is lost, and it is closed in the end.""",
    lasts=(2, 20),
)
def sockets_come_and_go(day):
    file = day.directory / "einhorn.yaml"
    path = day.directory / "second.sock"
    first = "127.0.0.1:0,rn,name=web"

    def write(*binds):
        file.write_text(json.dumps({"bind": list(binds)}))

    def reload(sockets, kill):
        version = pool.state_json()["version"]
        answer = pool.command("reload", id=1)
        day.expect("Reloading" in answer, f"a reload: {answer}")
        if kill:
            os.kill(current_master(pool), signal.SIGKILL)
        pool.wait_state(
            lambda s: s["version"] > version and not s["upgrading"] and len(s["sockets"]) == sockets,
            60,
            f"{sockets} sockets",
        )
        pool.wait_ready(4, deadline=30)

    write(first)
    pool = day.pool(bind=("--config", file))
    address = pool.address
    with day.load(pool) as traffic:
        for turn in range(day.lasts):
            write(first, f"unix:{path}")
            reload(2, kill=turn % 2 == 1)
            beside = Traffic(day, f"unix:{path}", 200)
            day.traffic.append(beside)
            beside.wait_more(50)
            beside.stop()
            write(first)
            reload(1, kill=turn % 2 == 0)
            day.expect(not path.exists(), "the second socket's file is gone")
            day.expect(pool.address == address, "the first socket is the same")
            traffic.wait_more(50)
    day.saw(f"{day.lasts} times a socket more and one fewer, {day.lasts} masters killed meanwhile")
