"""einhorn --agent: einhorn-agent is started beside the pool and kept up, whatever dies; the pool
does not notice."""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest
from harness import einhorn_command, is_alive, program, wait_until
from harness.agent import Agent
from harness.upgrades import upgrade


class Beside(Agent):
    """The agent of a pool: the test only talks to it."""

    def __init__(self, pool, address):
        self.pool_of = pool
        self.address = address

    def log(self):
        return self.pool_of.log()


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def agents(pool):
    found = []
    for process in pool.processes():
        try:
            with open(f"/proc/{process.pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
        except OSError:
            continue
        if name == "einhorn-agent" and is_alive(process.pid):
            found.append(process.pid)
    return found


def agent_of(pool, other_than=None):
    def look():
        found = [pid for pid in agents(pool) if pid != other_than]
        return found[0] if len(found) == 1 else None

    return wait_until(look, 30, "one agent")


def answers(agent, **wanted):
    """It is connected to its master; connecting to it may fail while it is started again."""

    def look():
        try:
            shown = agent.pool("shop")
        except OSError:
            return False
        return shown and shown["connected"] and all(shown[k] == v for k, v in wanted.items())

    wait_until(look, 30, lambda: f"the agent shows {wanted}\n{agent.log()}")


@pytest.fixture
def shop(make_pool):
    address = free_address()
    pool = make_pool(["-n", "2", "-m", "0.05", "--agent", address], name="shop")
    pool.wait_ready(2)
    return pool, Beside(pool, address)


def test_it_is_there_and_goes_with_the_pool(shop):
    pool, agent = shop
    answers(agent, ready=2)
    pid = agent_of(pool)
    assert agent.get("/healthcheck").status == 200
    assert pid not in pool.pids()
    assert pool.stop() == 0
    wait_until(lambda: not is_alive(pid), 20, "the agent is gone")
    with pytest.raises(ConnectionRefusedError):
        agent.get("/healthcheck")


def test_killed_it_comes_back_and_nobody_notices(shop):
    pool, agent = shop
    workers = sorted(pool.pids())
    answers(agent, ready=2)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV):
        pid = agent_of(pool)
        os.kill(pid, number)
        wait_until(lambda p=pid: not is_alive(p), 20)
        assert agent_of(pool, other_than=pid)
        answers(agent, ready=2)
    assert sorted(pool.pids()) == workers
    assert "einhorn-agent has died; starting it again" in pool.log()


def test_it_stays_while_the_master_is_killed(shop):
    pool, agent = shop
    answers(agent, ready=2)
    pid = agent_of(pool)
    for _ in range(3):
        pool.kill_master()
        answers(agent, ready=2, master=pool.master_pid)
    assert agents(pool) == [pid]
    # And the new master knows it: it is started again.
    os.kill(pid, signal.SIGKILL)
    agent_of(pool, other_than=pid)
    answers(agent, ready=2)


def test_killed_with_the_master(shop):
    pool, agent = shop
    answers(agent, ready=2)
    for _ in range(3):
        pid = agent_of(pool)
        os.kill(pid, signal.SIGKILL)
        pool.kill_master()
        agent_of(pool, other_than=pid)
        answers(agent, ready=2, master=pool.master_pid)


def test_an_upgrade_brings_its_own(shop):
    pool, agent = shop
    answers(agent, ready=2)
    pid = agent_of(pool)
    upgrade(pool)
    wait_until(lambda: not is_alive(pid), 20, "the old one leaves")
    assert agent_of(pool, other_than=pid)
    answers(agent, ready=2, version=1)
    assert "has died" not in pool.log()


def test_guard_killed(shop):
    pool, agent = shop
    answers(agent, ready=2)
    pid = agent_of(pool)
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.process.wait()
    pool.wait_log("The guard is gone", 20)
    assert is_alive(pid)
    pool.start()
    pool.wait_log("has been taken over", 30)
    answers(agent, ready=2)
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), 20)
    agent_of(pool, other_than=pid)
    answers(agent, ready=2)
    assert pool.stop() == 0


def test_its_address_is_taken(make_pool):
    """It tries again; the pool runs meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        pool = make_pool(["-n", "1", "-m", "0.05", "--agent", address], name="shop")
        pool.wait_ready(1)
        pool.wait_log(r"einhorn-agent: listen on [0-9.:]+: Address already in use", 20)
        pool.wait_log("einhorn-agent has died; starting it again", 20)
        workers = pool.pids()
    answers(Beside(pool, address), ready=1)
    assert pool.pids() == workers


def test_more_options_for_it(make_pool):
    address = free_address()
    pool = make_pool(
        ["-n", "1", "-m", "0.05", "--agent", address, "--agent-args", "--history 'my shop.db' --healthy-min=100%"],
        name="shop",
    )
    pool.wait_ready(1)
    answers(Beside(pool, address), ready=1)
    wait_until((pool.dir / "my shop.db").exists, 20, "the history")


def test_it_has_no_rights_to_lose(shop):
    pool, agent = shop
    with open(f"/proc/{agent_of(pool)}/status", encoding="utf-8") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert {status[name] for name in ("CapEff", "CapPrm", "CapAmb")} == {"0" * 16}


@pytest.mark.parametrize(
    "words, said",
    [
        (["--agent", "127.0.0.1:x"], r'--agent: "127.0.0.1:x" is no address'),
        (["--agent-args=--all"], "--agent-args: it needs --agent"),
        (["--agent", "[::1", "true"], r'--agent: "\[::1" is no address'),
    ],
)
def test_mistakes_are_said_in_one_line(words, said):
    done = subprocess.run(
        [*einhorn_command(), *words, "true"], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(said, done.stderr)


def test_it_is_not_installed(tmp_path):
    shutil.copy(program("einhorn"), tmp_path / "einhorn")
    command = [tmp_path / "einhorn", "-d", tmp_path / "s", "--agent", "127.0.0.1:0", "/bin/true"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False, env={"PATH": "/nowhere", "TMPDIR": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"einhorn: --agent: there is no einhorn-agent beside einhorn ({tmp_path}), and none in PATH\n",
    )
