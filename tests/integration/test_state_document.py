"""docs/protocol.md says what `state json` says: every key of it, and no other."""

import re

from harness.programs import ROOT
from harness.upgrades import ask
from preload.programs import Code


def tables():
    """Of the section's two tables, what the first column names, and what the second names beside it."""
    text = (ROOT / "docs" / "protocol.md").read_text()
    section = text.split("## What `state json` says")[1].split("\n## ")[0]
    found = []
    for table in re.split(r"\n\| key[^\n]*\n", section)[1:]:
        rows = [row.split("|") for row in table.splitlines() if row.startswith("| `")]
        names = [(re.findall(r"`(\w+)`", row[1]), re.findall(r"`(\w+)`", row[2])) for row in rows]
        found.append({key: set(beneath) for keys, beneath in names for key in keys})
    pool, worker = found
    return pool, worker


def keys_of(value):
    """The keys of all maps in a value."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set()


def test_every_key_is_described(make_pool):
    args = ["-n", "2", "-m", "0.05", "-s", "0.02", "-b", "127.0.0.1:0"]
    preloaded = make_pool([*args, "-p", "app.py"], [], start=False)
    code = Code(preloaded)
    preloaded.worker_command = code.command
    preloaded.start().wait_ready(2, 60)
    code.write(text="import time; time.sleep(1000)")
    sick = ["--capture=out.log", "--flapping", "2/60", "-t", "1"]
    sick += ["--probe-command", "exit {index}", "--probe-interval", "1", "--probe-failures", "1"]
    captured = make_pool([*args, *sick], ["/bin/sh", "-c", "echo up; exec sleep 1000"])
    with preloaded.client(timeout=60) as client:
        ask(client)
        upgrading = preloaded.wait_state(lambda s: s["upgrade"] and len(s["zygotes"]) == 2, 30)
    hung = captured.wait_state(
        lambda s: s["hung"] and s["paused"] and any(d["lines"] for d in s["capture"]["dead_workers"]), 60
    )

    pool, worker = tables()
    assert set(pool) == set(upgrading) | set(hung)
    for state in (upgrading, hung):
        for key, value in state.items():
            if key == "workers":
                assert {k for one in value for k in one} <= set(worker)
            else:
                assert keys_of(value) <= pool[key], key
    assert set(worker) == {key for state in (upgrading, hung) for one in state["workers"] for key in one}
