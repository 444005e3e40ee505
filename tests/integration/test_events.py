"""The event stream: what is told, numbers without gaps, slow clients, restarts and hand-offs."""

import json
import os
import signal
import socket

import pytest
from harness import wait_until
from harness.events import Events
from harness.waiting import stays_true
from harness.wire import Closed


@pytest.fixture
def pool(make_pool):
    made = make_pool(["-n", "2", "-m", "notify", "-b", "127.0.0.1:0"],
                     ["http_worker", "--ack=notify", "--ping=r1", "--status=fine"], name="watched")
    made.wait_ready(2)
    return made


def test_a_start_and_what_follows(pool):
    with Events(pool) as events:
        assert events.reply["request_id"] == 7 and events.reply["wait"] is True
        start = events.start
        assert start["event"] == "snapshot" and start["missed"] == 0
        assert [w["state"] for w in start["state"]["workers"]] == ["ready", "ready"]
        victim = start["state"]["workers"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        end = events.wait("exited")
        assert end["epoch"] == victim["epoch"] and end["pid"] == victim["pid"]
        assert (end["signal"], end["stage"], end["stopping"]) == ("KILL", "ready", False)
        spawned = events.wait("spawned")
        assert spawned["slot"] == victim["index"] and spawned["epoch"] > victim["epoch"]
        ready = events.wait("ready", epoch=spawned["epoch"])
        assert ready["by"] == "notify" and ready["after"] > 0
        while not {"pinged", "status"} <= {e["event"] for e in events.seen}:
            events.next()
        status = [e for e in events.seen if e["event"] == "status"][-1]
        assert (status["text"], status["epoch"]) == ("fine", spawned["epoch"])
        ping = [e for e in events.seen if e["event"] == "pinged"][-1]
        assert (ping["request_id"], ping["epoch"]) == ("r1", spawned["epoch"])
        assert not events.gaps


def test_commands_with_who_sent_them(pool):
    with Events(pool) as events:
        pool.request("set_workers", "3", id=1)
        said = events.wait("command")
        assert (said["command"], said["args"], said["uid"]) == ("set_workers", ["3"], os.getuid())
        assert said["pid"] == os.getpid()
        assert events.wait("number_changed")["to"] == 3
        events.wait("ready")
        pool.request("state", id=1)
        pool.send(signal.SIGUSR1)
        assert events.wait("signal_received")["signal"] == "USR1"
        assert "state" not in [e.get("command") for e in events.seen]
        assert not events.gaps


def test_an_upgrade_keeps_the_stream_and_its_numbers(pool):
    with Events(pool) as events:
        old_master = events.start["state"]["master"]
        pool.request("upgrade", id=1)
        events.wait("reload_started")
        begun = events.wait("master_started")
        assert begun["how"] == "handed_over" and begun["pid"] != old_master
        started = events.wait("upgrade_started")
        assert (started["from"], started["to"], started["kind"]) == (0, 1, "smooth")
        events.wait("upgraded", version=1)
        assert not events.gaps, "every event came, over the hand-off"
        assert not [e for e in events.seen[1:] if e["event"] == "snapshot"]


def test_a_killed_master_is_told_and_gives_a_new_start(pool):
    with Events(pool, sample=0.1) as events:
        stream = events.start["stream"]
        events.wait("sample")
        os.kill(events.start["state"]["master"], signal.SIGKILL)
        start = events.wait("snapshot")
        assert start["stream"] == stream
        begun = events.wait("master_started")
        assert begun["how"] == "restarted"
        assert begun["n"] == start["after"] + 1
        assert [w["state"] for w in start["state"]["workers"]] == ["ready", "ready"]
        events.wait("sample")  # still at its interval
        assert not events.gaps
    assert pool.state_json()["ready"] == 2


def test_since_gives_what_was_missed(pool):
    with Events(pool) as events:
        last, stream = events.number, events.start["stream"]
    pool.request("set_workers", "1", id=1)
    pool.wait_ready(1)
    with Events(pool, since=last, stream=stream) as again:
        assert (again.start["event"], again.start["after"]) == ("resumed", last)
        goal = again.start["number"]
        while again.number < goal:
            again.next()
        names = [e["event"] for e in again.seen]
        assert "number_changed" in names and "exited" in names
        assert not again.gaps
    # As words, which is how the shell says it.
    with Events(pool, args=[f"since={goal}", f"stream={stream}"]) as again:
        assert again.start["event"] == "resumed"


def test_since_of_what_is_gone_says_how_much(pool):
    with Events(pool) as events:
        last, stream = events.number, events.start["stream"]
    pool.kill_master()
    with Events(pool, since=last, stream=stream) as again:
        assert again.start["event"] == "snapshot"
        assert again.start["missed"] == again.start["after"] - last >= 1
    with Events(pool, since=last, stream="another") as again:
        assert again.start["event"] == "snapshot" and again.start["missed"] is None
    with Events(pool, since=10**9, stream=stream) as again:
        assert again.start["event"] == "snapshot" and again.start["missed"] is None


def test_samples_at_the_clients_interval(pool):
    with Events(pool, sample=0.1) as often, Events(pool) as never:
        first, second = often.wait("sample"), often.wait("sample")
        assert 0.05 < second["at"] - first["at"] < 5
        for sample in (first, second):
            assert len(sample["workers"]) == 2
            assert all(w["rss"] > 100_000 and w["cpu"] >= 0 for w in sample["workers"])
            assert sample["sockets"][0]["limit"] > 0
            assert sample["master"]["rss"] > 0 and sample["guard"]["rss"] > 0
        os.kill(pool.pids()[0], signal.SIGKILL)
        never.wait("exited")
        assert "sample" not in {e["event"] for e in never.seen}


def test_nobody_listening_costs_nothing(pool):
    """After the last subscriber has gone no sample wakes the master."""
    with Events(pool, sample=0.1) as events:
        events.wait("sample")
    master = pool.master_pid
    status = f"/proc/{master}/status"

    def switches():
        text = open(status).read()
        return int(text.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    pool.state_json()
    before = switches()
    stays_true(lambda: switches() - before <= 2, 1.0, "the master woke up")


def fill(pool, count):
    """Makes events without waiting for answers."""
    with pool.client() as client:
        for number in range(count):
            client.send_line(json.dumps({"command": "signal", "args": ["USR9" * 300]}).encode() + b"\n")
            client.read_line()


def test_a_slow_client_is_told_and_let_go(pool):
    slow = Events(pool)
    with Events(pool) as quick:
        dropped = False
        for _ in range(40):
            fill(pool, 50)
            while quick.number < quick.start["after"] + 1:
                quick.next()
            dropped = "does not read its events" in pool.log()
            if dropped:
                break
            for _ in range(40):
                quick.wait("command")
        assert dropped, "a megabyte and more was not read"
        lines = []
        slow.client.socket.settimeout(20)
        with pytest.raises(Closed):
            while True:
                lines.append(json.loads(slow.client.read_line()))
        assert lines[-1]["event"] == "dropped"
        assert lines[-1]["reason"].startswith("too slow")
        assert all(b["n"] == a["n"] + 1 for a, b in zip(lines[:-2], lines[1:-1]))
        assert not quick.gaps
        # It comes back and gets the rest, or a new start that says what is lost.
        with Events(pool, since=lines[-2]["n"], stream=slow.start["stream"]) as again:
            assert again.start["event"] in ("resumed", "snapshot")


def test_a_client_that_never_reads_its_last_line_is_closed(pool):
    slow = Events(pool)
    for _ in range(40):
        fill(pool, 50)
        if "does not read its events" in pool.log():
            break
    before = len(os.listdir(f"/proc/{pool.master_pid}/fd"))
    wait_until(lambda: len(os.listdir(f"/proc/{pool.master_pid}/fd")) < before, 30,
               "its connection is closed")
    slow.close()


def test_too_many_and_bad_wishes_get_one_line(pool):
    for wishes, words in (
        ({"since": -1}, "since is -1; it must be the number of an event"),
        ({"since": "x"}, 'since is "x"'),
        ({"sample": 0.01}, "sample is 0.01; it must be the seconds between samples"),
        ({"sample": True}, "sample is true"),
        ({"stream": 5}, "stream is 5"),
        ({"args": ["sample"]}, 'subscribe takes since=NUMBER, stream=NAME and sample=SECONDS, and not "sample"'),
        ({"args": ["sample=x"]}, 'sample is "x"'),
    ):
        reply = Events(pool, **wishes).reply
        assert words in reply["message"] and reply["status"] == "error" and "wait" not in reply
    all_of_them = [Events(pool) for _ in range(64)]
    reply = Events(pool).reply
    assert reply["message"] == "Too many subscribers: 64 are the most"
    for each in all_of_them:
        each.close()
    wait_until(lambda: Events(pool).reply.get("wait"), 10, "there is room again")


def test_half_a_line_of_a_killed_master_stands_alone(pool):
    """A client that reads slowly gets whole lines again after the master was killed."""
    with Events(pool) as events:
        events.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        fill(pool, 30)
        os.kill(events.start["state"]["master"], signal.SIGKILL)
        pool.wait_ready(2)
        broken = 0
        while True:
            line = events.client.read_line()
            if not line:
                continue
            try:
                event = json.loads(line)
            except ValueError:
                broken += 1
                continue
            if event["event"] == "master_started":
                break
        assert broken <= 1
