"""runit, s6, daemontools and supervisor, as Debian packages them: start, upgrade and stop under load, and the guard's
death, after which they start the same command line again."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from harness import Pool, wait_until
from harness.programs import ROOT, einhorn_command, program, worker
from harness.upgrades import settled

EXAMPLES = ROOT / "examples" / "supervision"


class Supervised(Pool):
    """A pool that a supervisor starts, from a copy of the example's directory."""

    def __init__(self, kind):
        self.kind = kind
        super().__init__(name="shop", worker_command=[], start=False)
        self.service = self.dir / "service"
        app = self.dir / "app"
        app.mkdir()
        (app / "server").symlink_to(worker("http_worker"))
        (app / "options").write_text("--ack=path\n--ack-delay-ms=100\n")
        self.env.update(
            EINHORN=" ".join(einhorn_command()),
            EINHORNSH=program("einhornsh"),
            BIND="127.0.0.1:0,r",
            APP=str(app),
            SERVER="./server --options-file=options",
            STATE=str(self.dir),
        )
        if kind != "supervisor":
            shutil.copytree(EXAMPLES / kind, self.service)

    def command_line(self):
        return {
            "runit": ["runsv", str(self.service)],
            "s6": ["s6-supervise", str(self.service)],
            "daemontools": ["supervise", str(self.service)],
            "supervisor": ["supervisord", "-c", str(EXAMPLES / "supervisor.conf")],
        }[self.kind]

    def control(self, *words):
        return subprocess.run(words, check=True, capture_output=True, text=True, env=self.env, timeout=60)

    def supervisorctl(self, *words):
        return self.control("supervisorctl", "-c", str(EXAMPLES / "supervisor.conf"), *words).stdout

    def upgrade(self):
        if self.kind == "runit":
            self.control("sv", "hup", str(self.service))
        elif self.kind == "s6":
            self.control("s6-svc", "-h", str(self.service))
        elif self.kind == "daemontools":
            self.control("svc", "-h", str(self.service))
        else:
            self.supervisorctl("signal", "HUP", "shop")

    def down(self):
        """Stops the pool for good; returns when it is gone."""
        guard = self.state_json()["guard"]
        if self.kind == "runit":
            self.control("sv", "-w", "50", "down", str(self.service))
        elif self.kind == "s6":
            self.control("s6-svc", "-wd", "-T", "50000", "-d", str(self.service))
        elif self.kind == "daemontools":
            self.control("svc", "-o", str(self.service))
            self.control("svc", "-i", str(self.service))
        else:
            self.supervisorctl("stop", "shop")
        wait_until(lambda: not Path(f"/proc/{guard}").exists(), 50, "the end of the pool")

    def end_supervisor(self):
        if self.kind == "daemontools":
            self.control("svc", "-dx", str(self.service))
        else:
            self.process.send_signal(signal.SIGTERM)
        self.wait_exit(30)


@pytest.fixture(params=["runit", "s6", "daemontools", "supervisor"])
def supervised(request, make_pool):
    del make_pool  # it ends whatever is left
    pool = Supervised(request.param)
    request.node.pools.append(pool)
    pool.start()
    yield pool
    pool.destroy()


def test_a_life_under_supervision(supervised, make_load):
    pool = supervised
    pool.wait_socket(deadline=60)
    pool.wait_ready(2, deadline=60)
    if pool.kind == "s6":
        pool.control("s6-svwait", "-U", "-t", "50000", str(pool.service))
    load = make_load(pool.address, connections=8, rate=300)
    load.wait_ok(50)
    guard = pool.state_json()["guard"]

    pool.upgrade()
    pool.wait_state(settled(1, 2), 60)
    assert pool.state_json()["guard"] == guard
    load.wait_more(50)

    workers = pool.pids()
    os.kill(guard, signal.SIGKILL)
    state = pool.wait_state(lambda s: s["guard"] not in (None, guard, s["master"]), 60, "a new guard")
    assert pool.pids() == workers, "nothing has happened to them"
    load.wait_more(50)

    pool.upgrade()
    pool.wait_state(settled(2, 2), 60)
    assert pool.state_json()["guard"] == state["guard"]
    load.wait_more(50)
    result = load.stop()
    assert result["failures"] == 0, json.dumps(result)
    pool.down()
    assert not any(w in {s.pid for s in pool.processes()} for w in workers)
    pool.end_supervisor()
    pool.wait_gone()
