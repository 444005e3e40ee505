"""--workers MIN:MAX: workers come when connections wait in the sockets' queues, and go when none do."""

import json
import re

import pytest
from harness import wait_until, worker
from harness.upgrades import Watch, messages, upgrade

SLOW = ["http_worker", "--ack=path", "--threads=1", "--request-delay-ms=40"]
QUICK = ["--scale-up-after", "0.3", "--scale-down-after", "1.5"]


@pytest.fixture
def scaled(make_pool):
    """A pool of MIN to MAX workers, each of which serves one request at a time, 25 a second."""

    def start(least, most, args=QUICK, bind="127.0.0.1:0"):
        words = ["--workers", f"{least}:{most}", "-m", "manual", "-t", "20", *args]
        pool = make_pool([*words, "-b", bind], SLOW)
        pool.wait_ready(least)
        return pool

    return start


def settled_at(number):
    def look(state):
        ready = [w for w in state["workers"] if w["state"] == "ready"]
        return state["number"] == number == len(ready) == len(state["workers"])

    return look


def steps(pool):
    """What the log says of each change: (from, to, why)."""
    found = re.findall(r"(Adding|Removing) workers, (\d+) -> (\d+): (.*)$", pool.log(), re.MULTILINE)
    for word, before, after, _ in found:
        assert (word == "Adding") == (int(after) > int(before))
    return [(int(before), int(after), why) for _, before, after, why in found]


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "unix:@DIR@/shop.sock"])
def test_workers_come_and_go_with_the_queue(scaled, make_load, bind):
    pool = scaled(1, 4, bind=bind)
    with Watch(pool) as watch:
        with make_load(pool.address, connections=12, rate=0) as load:
            pool.wait_state(settled_at(4), deadline=30)
            load.wait_more(100)
        pool.wait_state(settled_at(1), deadline=40)
    assert load.result["failures"] == 0, load.result
    numbers = [sample["number"] for sample in watch.states]
    assert min(numbers) == 1 and max(numbers) == 4
    queues = [socket["queue"] for sample in watch.states for socket in sample["sockets"]]
    assert max(queues) >= 4
    said = steps(pool)
    for before, after, why in said:
        if after > before:
            assert re.fullmatch(r"\d+ connections? ha(s|ve) to wait, for [\d.]+ s now", why), why
        else:
            assert before - after == 1
            assert re.fullmatch(r"nothing has had to wait for [\d.]+ s", why), why
    assert [after for _, after, _ in said][-1] == 1 and said[0][0] == 1
    assert [before for before, _, _ in said[1:]] == [after for _, after, _ in said[:-1]]


def test_status_and_state_show_it(scaled, make_load):
    pool = scaled(1, 3)
    assert "workers 1/1 ready, version 0, scaled from 1 to 3" in pool.command("status")
    with make_load(pool.address, connections=10, rate=0):
        pool.wait_state(settled_at(3), deadline=30)
        wait_until(lambda: re.search(r"  \d+ of 100 wait", pool.command("status")), 20, "a queue")


def test_a_queue_for_a_moment_adds_nobody(scaled, make_load):
    pool = scaled(1, 8, args=["--scale-up-after", "20"])
    with make_load(pool.address, connections=10, rate=0, requests=60) as load:
        load.wait_end()
    assert load.result["failures"] == 0
    assert pool.state_json()["number"] == 1 and steps(pool) == []


def test_a_load_that_is_no_trouble_adds_nobody(scaled, make_load):
    pool = scaled(2, 8)
    with make_load(pool.address, connections=1, rate=0, requests=80) as load:
        load.wait_end()
    assert load.result["failures"] == 0
    assert pool.state_json()["number"] == 2 and steps(pool) == []


def test_the_number_survives_the_master(scaled, make_load):
    pool = scaled(1, 4, args=["--scale-up-after", "0.3", "--scale-down-after", "60"])
    with make_load(pool.address, connections=12, rate=0) as load:
        pool.wait_state(settled_at(4), deadline=30)
        before = {w["pid"] for w in pool.workers()}
        pool.kill_master()
        load.wait_more(50)
        state = pool.wait_state(settled_at(4), deadline=30)
    assert {w["pid"] for w in state["workers"]} == before
    assert load.result["failures"] == 0


def test_an_upgrade_while_it_scales(scaled, make_load):
    pool = scaled(1, 4)
    with make_load(pool.address, connections=12, rate=0) as load:
        pool.wait_state(lambda s: s["number"] > 1, deadline=30)
        assert messages(upgrade(pool))[-1] == "Upgrade done"
        state = pool.wait_state(settled_at(4), deadline=30)
        assert {w["version"] for w in state["workers"]} == {1}
    pool.wait_state(settled_at(1), deadline=40)
    assert load.result["failures"] == 0


def test_a_reload_changes_the_range(make_pool, make_load, tmp_path):
    path = tmp_path / "einhorn.yaml"

    def write(workers):
        options = {
            "command": [worker("http_worker"), *SLOW[1:]],
            "ack-mode": "manual",
            "bind": "127.0.0.1:0",
            "workers": workers,
            "scale-up-after": 0.3,
            "scale-down-after": 60,
        }
        path.write_text(json.dumps(options))

    write("1:2")
    pool = make_pool(["--config", path], worker_command=())
    pool.wait_ready(1)
    with make_load(pool.address, connections=12, rate=0) as load:
        pool.wait_state(settled_at(2), deadline=30)
        write("1:3")
        since = pool.log_size()
        pool.command("reload", id=1)
        pool.wait_log(r"The configuration has changed: workers$", since=since)
        pool.wait_state(settled_at(3), deadline=30)
    assert load.result["failures"] == 0
