"""einhornsh -e 'history ...': what an agent has kept of the pool, found without saying where."""

import os
import signal
import subprocess

import pytest
from harness import program, wait_until
from harness.agent import Agent
from harness.upgrades import upgrade


def shell(pool, *words, env=None):
    environment = {**os.environ, "TMPDIR": str(pool.dir), **(env or {})}
    return subprocess.run(
        [program("einhornsh"), "-d", pool.socket_path, *map(str, words)],
        capture_output=True, text=True, timeout=30, check=False, env=environment, stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def kept(make_pool):
    """A pool of which an agent has kept an upgrade and a crash; pool and agent."""
    pool = make_pool(["-n", "2", "-m", "0.05"], name="shop")
    pool.wait_ready(2)
    agent = Agent([pool.socket_path, "--history", pool.dir / "shop.db"])
    try:
        agent.wait_pool("shop", lambda p: p["ready"] == 2)
        upgrade(pool)
        new = pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [1, 1], 20)["workers"]
        os.kill(new[0]["pid"], signal.SIGSEGV)
        agent.wait_pool("shop", lambda p: p["crashes"] == 1 and p["upgrades"] == 1)
        wait_until(lambda: "SEGV" in rows(agent, "crashes") and "upgraded" in rows(agent, "upgrades"), 20, "rows")
        yield pool, agent
    finally:
        agent.destroy()


def rows(agent, kind):
    return agent.get(f"/api/history?kind={kind}&pool=shop").text


def table(done):
    assert done.returncode == 0, done.stderr
    names, *lines = [line.split("\t") for line in done.stdout.splitlines()]
    return [dict(zip(names, line)) for line in lines]


def test_it_finds_the_running_agents_history(kept):
    pool, _ = kept
    upgrades = table(shell(pool, "-e", "history upgrades"))
    assert [(u["pool"], u["from_version"], u["to_version"], u["outcome"]) for u in upgrades] == [
        ("shop", "0", "1", "upgraded")
    ]
    crashes = table(shell(pool, "-e", "history crashes --since 2d"))
    assert [(c["pool"], c["stage"], c["version"]) for c in crashes] == [("shop", "ready", "1")]
    assert "SEGV" in crashes[0]["how"]
    assert table(shell(pool, "-e", "history crashes --since 0")) == []
    assert len(table(shell(pool, "-e", "history events --limit 3"))) == 3
    both = shell(pool, "-e", "history upgrades; ehlo")
    assert both.returncode == 0 and "upgraded" in both.stdout and "Welcome" in both.stdout


def test_only_of_this_pool(kept):
    pool, _ = kept
    assert table(shell(pool, "-e", "history upgrades other")) == []
    assert len(table(shell(pool, "-e", "history upgrades shop"))) == 1


def test_it_needs_no_master(kept):
    pool, agent = kept
    pool.stop()
    assert len(table(shell(pool, "-e", "history upgrades"))) == 1
    agent.stop()
    gone = shell(pool, "-e", "history upgrades")
    assert gone.returncode == 1 and len(gone.stderr.splitlines()) == 1
    assert "say which: --history FILE or EINHORN_HISTORY" in gone.stderr
    file = pool.dir / "shop.db"
    assert len(table(shell(pool, "-e", "history upgrades", env={"EINHORN_HISTORY": str(file)}))) == 1
    assert len(table(shell(pool, "-e", f"history --history {file} upgrades"))) == 1


@pytest.mark.parametrize(
    "words, said",
    [
        (["-e", "history"], "history: say which: upgrades, crashes or events"),
        (["-e", "history wars"], "history wars: it must be upgrades, crashes or events"),
        (["-e", "history crashes --since soon"], "history --since soon: it must be a time"),
        (["--json", "-e", "history crashes"], "history prints lines, and has no --json"),
    ],
)
def test_mistakes(kept, words, said):
    pool, _ = kept
    done = shell(pool, *words)
    assert done.returncode == 1
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
