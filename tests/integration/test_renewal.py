"""The program on disk is another one: an upgrade renews master and guard, the guard in its own pid.

Whatever the new program is like, there is one guard, one master, and the same sockets."""

import os
import random
import shutil
import signal

import pytest
from harness import Pool, http_get, is_alive, program, wait_until
from harness.processes import (
    descendants,
    environment_of,
    kill_exactly,
    open_descriptors,
    read_stat,
)
from harness.wire import decode


class OwnProgramPool(Pool):
    """A pool with a copy of einhorn of its own, which can be replaced."""

    @property
    def program(self):
        return self.dir / "einhorn"

    def command_line(self):
        if not self.program.exists():
            self.replace_program()
        return [str(self.program), *self.args, "--", *self.worker_command]

    def replace_program(self, content=None, mode=0o755):
        """Another file with another inode: a copy of the real one, or that content."""
        new = self.dir / "einhorn.new"
        if content is None:
            shutil.copy(program("einhorn"), new)
        else:
            new.write_bytes(content)
        new.chmod(mode)
        os.replace(new, self.program)
        return os.stat(self.program).st_ino


def executable(pid):
    """The inode of the file that a process runs; None for zombies and for the gone."""
    try:
        return os.stat(f"/proc/{pid}/exe").st_ino
    except OSError:
        return None


def children(pid):
    return [s for s in descendants(pid) if s.ppid == pid and s.state not in "ZX"]


def masters(pool):
    """The guard's children that run some einhorn: not the workers."""
    workers = set(pool.pids())
    return [
        s.pid
        for s in children(pool.process.pid)
        if s.pid not in workers and environment_of(s.pid).get("EINHORN_MASTER_PID") is None
    ]


def check_whole(pool, number):
    """One guard, one master, so many workers, all of them the guard's."""
    workers = pool.wait_ready(number)
    state = pool.state_json()
    assert state["guard"] == pool.process.pid
    wait_until(lambda: masters(pool) == [pool.master_pid], 10, lambda: f"{masters(pool)}")
    assert all(read_stat(w["pid"]).ppid == pool.process.pid for w in workers)
    wait_until(lambda: not [s for s in pool.processes() if s.state == "Z"], what="no zombies")
    return state


@pytest.fixture
def start(request, make_pool, make_load):
    """start(): a pool of three with a program of its own, under load."""

    def make(mode="manual"):
        words = ["-n", "3", "-m", mode, "-b", "127.0.0.1:0"]
        worker = "http_worker --ack=path" if mode == "manual" else "http_worker"
        pool = OwnProgramPool(words, worker)
        request.node.pools.append(pool)
        pool.wait_ready(3)
        pool.load = make_load(pool.address, connections=8, rate=500)
        pool.load.wait_ok(20)
        return pool

    return make


def upgrade(pool):
    with pool.client(timeout=60) as client:
        return client.conversation({"command": "upgrade", "id": 1})[-1]


def check_served(pool):
    pool.load.wait_more(50)
    result = pool.load.stop()
    assert result["failures"] == 0, result


def test_the_guard_becomes_the_new_program_in_its_pid(start):
    pool = start()
    before, bound = pool.state_json(), pool.address
    for version in range(1, 4):
        inode = pool.replace_program()
        assert upgrade(pool)["message"] == "Upgrade done"
        wait_until(lambda: executable(pool.process.pid) == inode, what="the guard's new program")
        state = check_whole(pool, 3)
        assert executable(state["master"]) == inode
        assert state["version"] == version and pool.address == bound
        if version == 1:
            held = len(open_descriptors(pool.process.pid))
        assert len(open_descriptors(pool.process.pid)) <= held
    assert pool.count_log("the guard is replaced in its place") == 3
    assert state["guard"] == before["guard"]
    check_served(pool)
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()
    assert not pool.socket_path.exists() and not pool.path("pid").exists()


def test_the_same_program_is_left_alone(start):
    pool = start()
    assert upgrade(pool)["message"] == "Upgrade done"
    assert "the guard is replaced" not in pool.log()
    check_whole(pool, 3)


def test_a_renewed_guard_is_a_guard(start):
    """It starts masters, reaps, passes signals on, and its next master is of the new program."""
    pool = start()
    inode = pool.replace_program()
    upgrade(pool)
    wait_until(lambda: executable(pool.process.pid) == inode)
    assert executable(pool.kill_master()) == inode
    check_whole(pool, 3)  # those of the old version have left: the next one to die is one that serves
    os.kill(pool.pids()[0], signal.SIGTERM)
    pool.wait_state(lambda s: s["deaths"] == 1)
    check_whole(pool, 3)
    pool.send(signal.SIGTTIN)
    pool.wait_ready(4)
    pool.send(signal.SIGHUP)
    pool.wait_log(r"Upgraded successfully to version 2")
    check_whole(pool, 4)


@pytest.mark.parametrize("seed", range(3))
def test_the_master_is_killed_while_all_is_renewed(start, seed):
    """At any moment of it."""
    chance = random.Random(seed)
    pool = start("0.05")
    for version in range(1, 5):
        pool.replace_program()
        mark = pool.log_size()
        pool.send(signal.SIGHUP)
        moment = chance.choice(
            ["Reloading einhorn master", "A new master goes on", "guard is replaced", "Launched"]
        )
        pool.wait_log(moment, since=mark)
        for stat in masters_unasked(pool):
            kill_exactly(stat)
        pool.wait_ready(3, deadline=30)
        state = check_whole(pool, 3)
        if state["version"] < version:  # it died before it had written down that it was asked to
            upgrade(pool)
        check_whole(pool, 3)
        assert executable(pool.master_pid) == executable(pool.process.pid)
    inode = pool.replace_program()
    assert upgrade(pool)["message"] == "Upgrade done"
    wait_until(lambda: executable(pool.process.pid) == executable(pool.master_pid) == inode)
    check_served(pool)


def masters_unasked(pool):
    """Like `masters`, while perhaps none answers."""
    return [
        s
        for s in children(pool.process.pid)
        if s.name.startswith("einhorn") and "EINHORN_MASTER_PID" not in environment_of(s.pid)
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_in_the_middle_of_it(start, number):
    pool = start()
    pool.load.stop()
    pool.replace_program()
    pool.send(signal.SIGHUP)
    pool.wait_log(r"guard is replaced")
    pool.send(number)
    assert pool.wait_exit() == 0
    pool.wait_gone()


BROKEN = {
    "not executable": (None, 0o644),
    "exits at once": (b"#!/bin/sh\nexit 7\n", 0o755),
    "is killed at once": (b"#!/bin/sh\nkill -9 $$\n", 0o755),
    "no program at all": (b"\x7fELF and nothing else", 0o755),
    "passes its check and dies": (
        b'#!/bin/sh\ncase "$*" in *--upgrade-check*) exit 0 ;; esac\nexit 9\n',
        0o755,
    ),
    "empty": (b"", 0o755),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_program_changes_nothing(start, kind):
    pool = start()
    before, own = pool.state_json(), executable(pool.process.pid)
    pool.replace_program(*BROKEN[kind])
    last = upgrade(pool)
    assert last["status"] == "could_not_start", last
    after = pool.wait_state(lambda s: not s["upgrading"])
    for key in ("guard", "master", "version"):
        assert after[key] == before[key]
    assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
    assert executable(pool.process.pid) == executable(after["master"]) == own
    check_whole(pool, 3)
    inode = pool.replace_program()
    assert upgrade(pool)["message"] == "Upgrade done"
    wait_until(lambda: executable(pool.process.pid) == inode)
    check_whole(pool, 3)
    check_served(pool)


HANGS = b"""#!/bin/sh
case "$*" in %s) echo $$ >"$(dirname "$0")/hanging"; exec sleep 1000 ;; esac
exit 0
"""


@pytest.mark.parametrize("when", [b"*--upgrade-check*", b"*--with-state-fd*"])
def test_a_program_that_hangs_holds_nothing_up(start, when):
    pool = start()
    before = pool.state_json()
    pool.replace_program(HANGS % when)
    with pool.client(timeout=60) as client:
        reply = client.request({"command": "upgrade", "id": 1})
        assert reply["wait"] is True
        hanging = pool.dir / "hanging"
        pid = int(wait_until(lambda: hanging.exists() and hanging.read_text().strip()))
        pool.command("set_workers", "4")
        pool.wait_ready(4)
        pool.load.wait_more(50)
        assert is_alive(pid)
        os.kill(pid, signal.SIGKILL)  # its deadline would do that
        while reply.get("wait"):
            reply = decode(client.read_line())
    assert reply["status"] == "could_not_start"
    after = pool.wait_state(lambda s: not s["upgrading"])
    assert after["master"] == before["master"] and after["version"] == 0
    check_whole(pool, 4)
    assert http_get(pool.address)["pid"] in pool.pids()
    check_served(pool)

