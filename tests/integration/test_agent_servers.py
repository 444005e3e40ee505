"""The agent and real servers: Prometheus scrapes it, collectd takes its StatsD, HAProxy asks it,
PostgreSQL keeps its history and is stopped in between."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time

import pytest
from harness import wait_until
from harness.agent import Agent
from harness.programs import ROOT, program
from harness.servers import Collectd, HAProxy, PostgreSQL, Prometheus


@pytest.fixture
def keep():
    """Agents and servers of a test, ended with it."""
    things = []

    def add(thing):
        things.append(thing)
        return thing

    yield add
    for thing in reversed(things):
        thing.destroy()


@pytest.fixture
def pool(make_pool):
    made = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], name="shop")
    made.wait_ready(2)
    return made


def crash(pool, agent, number=signal.SIGSEGV):
    """A worker dies; waits until the agent has seen another one ready."""
    before = agent.pool("shop")["crashes"]
    os.kill(pool.pids()[0], number)
    agent.wait_pool("shop", lambda p: p["crashes"] == before + 1 and p["ready"] == p["number"])


# --- Prometheus -----------------------------------------------------------------------------------


def test_a_real_prometheus_scrapes_it(pool, keep):
    agent = keep(Agent([pool.socket_path, "--sample", "0.2"]))
    agent.wait_pool("shop", lambda p: p["series"])
    done = subprocess.run(["promtool", "check", "metrics"], input=agent.get("/metrics").body,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    prometheus = keep(Prometheus([agent.address]))

    def value(expression):
        found = prometheus.query(expression)
        return found[0][1] if found else None

    wait_until(lambda: value('einhorn_workers{pool="shop",state="ready"}') == 2, 60, prometheus.log)
    targets = prometheus.get("/api/v1/targets")["activeTargets"]
    assert [t["health"] for t in targets] == ["up"], targets
    crash(pool, agent)
    pool.request("upgrade", id=1)
    agent.wait_pool("shop", lambda p: p["upgrades"] == 1)
    wait_until(lambda: value('einhorn_worker_exits_total{reason="crashed"}') == 1, 60)
    wait_until(lambda: value('einhorn_upgrades_total{outcome="upgraded"}') == 1, 60)
    wait_until(lambda: value("einhorn_version") == 1, 60)
    assert value("sum(einhorn_worker_resident_memory_bytes)") > 100_000
    assert value("einhorn_agent_events_missed_total") == 0
    # Cardinality: series of workers are those of slots, whatever lived in them.
    slots = {labels["slot"] for labels, _ in prometheus.query("einhorn_worker_cpu_seconds_total")}
    assert slots <= {"0", "1", "2", "3"}
    # Every query of the dashboard for Grafana is one that Prometheus answers, about series there are.
    dashboard = json.loads((ROOT / "examples" / "grafana" / "einhorn.json").read_text())
    names = set(re.findall(r"^# TYPE (\S+)", agent.get("/metrics").text, re.MULTILINE))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace('"$pool"', '".*"')
            prometheus.query(expression)
            for name in re.findall(r"einhorn_\w+", expression):
                assert re.sub("_(sum|count)$", "", name) in names, f"{panel['title']}: {name}"
    metadata = prometheus.get("/api/v1/metadata")
    assert metadata["einhorn_workers"][0]["type"] == "gauge"


# --- StatsD ---------------------------------------------------------------------------------------


def test_a_real_statsd_server_takes_it(pool, keep):
    collectd = keep(Collectd())
    agent = keep(Agent([pool.socket_path, "--sample", "0.2", "--statsd", f"127.0.0.1:{collectd.port}",
                        "--statsd-interval", "0.5"]))
    agent.wait_pool("shop", lambda p: p["connected"])
    crash(pool, agent)
    crash(pool, agent)
    pool.request("upgrade", id=1)
    agent.wait_pool("shop", lambda p: p["upgrades"] == 1 and len(p["workers"]) == 2)

    def whole():
        found = collectd.values()
        return (
            found.get("count-einhorn.shop.worker.exited.crashed") == 2
            and found.get("count-einhorn.shop.worker.exited.stopped") == 2
            and found.get("count-einhorn.shop.worker.spawned") == 4
            and found.get("gauge-einhorn.shop.workers.ready") == 2
            and found.get("count-einhorn.shop.upgrade.upgraded") == 1
            and any(name.startswith("latency-einhorn.shop.worker.ack_time") for name in found)
            and any(name.startswith("latency-einhorn.shop.worker.life.crashed") for name in found)
            and any(name.startswith("latency-einhorn.shop.upgrade.time") for name in found)
        )

    wait_until(whole, 60, lambda: str(collectd.values()))


def test_dogstatsd_with_tags_over_a_unix_socket(pool, keep, tmp_path):
    path = tmp_path / "dogstatsd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(30)
        agent = keep(Agent([pool.socket_path, "--statsd", f"unix:{path}", "--dogstatsd",
                            "--statsd-tag", "env:test", "--statsd-prefix", "e",
                            "--statsd-interval", "0.5"]))
        agent.wait_pool("shop", lambda p: p["connected"])
        crash(pool, agent, signal.SIGKILL)
        lines = []
        while not any(line.startswith("e.worker.life:") for line in lines):
            datagram = server.recv(65536)
            assert len(datagram) <= 1432
            lines += datagram.decode().split("\n")
        assert "e.worker.exited:1|c|#pool:shop,reason:crashed,env:test" in lines
        while "e.workers.wanted:2|g|#pool:shop,env:test" not in lines:
            lines += server.recv(65536).decode().split("\n")
    # The server is gone, and comes again at the same path: nothing stops, and it is found again.
    path.unlink()
    crash(pool, agent, signal.SIGKILL)
    agent.wait_log("statsd: ")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(30)
        while b"e.workers.wanted:2|g" not in server.recv(65536):
            pass


# --- HAProxy --------------------------------------------------------------------------------------


def test_haproxy_weights_follow_and_nothing_is_lost(make_pool, make_load, keep):
    """Two hosts: the weight of one follows its workers; it is drained before it is stopped."""
    pools, agents = {}, {}
    for name in ("one", "two"):
        pool = make_pool(["-n", "4", "-m", "manual", "-b", "127.0.0.1:0"],
                         ["http_worker", "--options-file=options"], name=name, start=False)
        (pool.dir / "options").write_text("--ack=path\n")
        pool.start()
        pool.wait_ready(4)
        pools[name] = pool
        agents[name] = keep(Agent([pool.socket_path, "--agent-check", "127.0.0.1:0", "--drain", "600"]))
        agents[name].wait_pool(name, lambda p: p["ready"] == 4)
        agents[name].check = int(agents[name].wait_log(r"agent-check on 127.0.0.1:(\d+)").group(1))
    haproxy = keep(HAProxy({name: (pools[name].address, agents[name].check) for name in pools}))
    wait_until(lambda: all(s["weight"] == "100" for s in haproxy.servers().values()), 60, haproxy.log)
    load = make_load(haproxy.address, connections=8, rate=300)
    load.wait_ok(300)
    # A worker of one is gone and the next one never says that it is up: three quarters.
    (pools["one"].dir / "options").write_text("\n")
    os.kill(pools["one"].pids()[0], signal.SIGUSR2)
    wait_until(lambda: haproxy.servers()["one"]["weight"] == "75", 60, lambda: str(haproxy.servers()))
    # The host is shut down: first its agent.
    agents["one"].process.send_signal(signal.SIGTERM)
    wait_until(lambda: haproxy.servers()["one"]["status"].startswith("DRAIN"), 60,
               lambda: str(haproxy.servers()))
    assert agents["one"].get("/healthcheck").status == 503
    wait_until(lambda: haproxy.servers()["one"]["scur"] == "0", 60)
    pools["one"].stop()
    load.wait_more(300)
    assert haproxy.servers()["two"]["status"].startswith("UP")
    result = load.stop()
    assert result["failures"] == 0, result


# --- PostgreSQL -----------------------------------------------------------------------------------


def test_postgresql_is_stopped_and_started_and_nothing_is_lost_or_doubled(pool, keep):
    database = keep(PostgreSQL())
    agent = keep(Agent([pool.socket_path, "--history", database.url, "--sample", "0.2"]))
    agent.wait_pool("shop", lambda p: p["connected"])

    def numbers():
        text = database.sql("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM events", check=False)
        return [int(word) for word in text.split("|")] if text.count("|") == 3 and "||" not in text else None

    crash(pool, agent)
    wait_until(numbers, 60, agent.log)
    for _ in range(2):
        database.stop_now()
        crash(pool, agent)
        agent.wait_log("trying again, what comes waits")
        crash(pool, agent)
        database.start()
        agent.wait_log("history is written again", 60)
        agent.mark = len(agent.log())
    pool.request("upgrade", id=1)
    agent.wait_pool("shop", lambda p: p["upgrades"] == 1 and len(p["workers"]) == 2)
    last = agent.pool("shop")["n"]
    wait_until(lambda: (numbers() or [0, 0, 0, 0])[3] >= last, 60, agent.log)
    count, distinct, first, most = numbers()
    assert count == distinct == most - first + 1, "every event once, none missing"
    assert database.sql("SELECT count(*) FROM lives WHERE crashed = 1") == "5"
    assert database.sql("SELECT outcome FROM upgrades") == "upgraded"
    assert int(database.sql("SELECT count(*) FROM samples")) > 0
    assert agent.pool("shop")["missed"] == 0
    # Read back by the agent's own commands, read only.
    done = subprocess.run([program("einhorn-agent"), "--history", database.url, "sql",
                           "SELECT count(*) AS crashes FROM lives WHERE crashed = 1"],
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "crashes\n5\n"), done.stderr
    for text in ("DELETE FROM events", "SELECT 1; DROP TABLE events",
                 "WITH gone AS (DELETE FROM events RETURNING n) SELECT n FROM gone"):
        done = subprocess.run([program("einhorn-agent"), "--history", database.url, "sql", text],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert numbers()[0] == count
    shown = agent.get("/api/history?kind=crashes&pool=shop").json()
    assert len(shown) == 5 and all(row["signal"] == "SEGV" for row in shown)
    every = agent.get("/api/history?kind=samples&pool=shop").json()
    thin = agent.get("/api/history?kind=samples&pool=shop&step=3600").json()
    assert 1 <= len(thin) <= 2 < len(every) and thin[0]["rss"] == max(row["rss"] for row in every)


# --- SQLite ---------------------------------------------------------------------------------------


def run_agent(*args, env=None):
    return subprocess.run([program("einhorn-agent"), *map(str, args)], capture_output=True, text=True,
                          timeout=60, env={**os.environ, **(env or {})})


def test_sqlite_survives_kill_9_and_gets_what_was_missed(pool, keep, tmp_path):
    file = tmp_path / "history.db"
    agent = keep(Agent([pool.socket_path, "--history", file, "--sample", "0.2"]))
    agent.wait_pool("shop", lambda p: p["connected"])
    for _ in range(3):
        crash(pool, agent)
        agent.stop(signal.SIGKILL)
        os.kill(pool.pids()[0], signal.SIGSEGV)  # while nobody looks
        pool.wait_state(lambda s: s["ready"] == 2 and s["deaths"] % 2 == 0)
        agent.start()
        agent.wait_pool("shop", lambda p: p["connected"] and p["ready"] == 2)
    last = agent.pool("shop")["n"]

    def rows(sql):
        done = run_agent("--history", file, "sql", sql)
        assert done.returncode == 0, done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()[1:]]

    wait_until(lambda: int(rows("SELECT coalesce(max(n), 0) FROM events")[0][0]) >= last, 30, agent.log)
    count, first, most = (int(x) for x in rows("SELECT count(*), min(n), max(n) FROM events")[0])
    assert count == most - first + 1, "none lost, none twice"
    assert rows("SELECT count(*) FROM lives WHERE crashed = 1 AND signal = 'SEGV'") == [["6"]]
    assert (file.stat().st_mode & 0o777) == 0o600
    done = run_agent("--history", file, "history", "crashes", "--since", "2d")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 7
    done = run_agent("history", "crashes", env={"EINHORN_HISTORY": str(file)})
    assert len(done.stdout.splitlines()) == 7
    # Where the running agent keeps it is found by the pool's socket.
    done = run_agent(pool.socket_path, "history", "crashes", "--limit", "2", "shop")
    assert len(done.stdout.splitlines()) == 3, done.stderr


def test_history_of_crashes_has_the_last_lines(make_pool, keep, tmp_path):
    """With --capture they come behind the worker's end, in an event of their own."""
    program = "echo one; echo two >&2; exec sleep 1000"
    made = make_pool(["-m", "0.05", "--capture"], ["sh", "-c", program], name="shop")
    made.wait_ready(1)
    file = tmp_path / "history.db"
    agent = keep(Agent([made.socket_path, "--history", file]))
    agent.wait_pool("shop", lambda p: p["connected"])
    crash(made, agent)

    def shown():
        done = run_agent("--history", file, "history", "crashes")
        assert done.returncode == 0, done.stderr
        head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
        return [dict(zip(head, row)) for row in rows]

    wait_until(lambda: shown() and "stdout: one\\n" in shown()[0]["lines"], 20, lambda: str(shown()))
    (row,) = shown()
    assert "stderr: two\\n" in row["lines"] and "output" not in row


def test_history_of_one_worker_and_in_steps(pool, keep, tmp_path):
    agent = keep(Agent([pool.socket_path, "--history", tmp_path / "history.db", "--sample", "0.2"]))
    agent.wait_pool("shop", lambda p: len(p["series"]) > 5)
    crash(pool, agent)
    life = agent.pool("shop")["lives"][-1]

    def ask(**words):
        return agent.get("/api/history?" + "&".join(f"{key}={value}" for key, value in words.items())).json()

    wait_until(lambda: ask(kind="crashes", pool="shop"), 30, agent.log)
    events = ask(kind="events", pool="shop", epoch=life["epoch"])
    assert {event["epoch"] for event in events} == {life["epoch"]} and events[0]["event"] == "exited"
    host = agent.get("/api/pools").json()["agent"]["host"]
    assert host and len(ask(kind="crashes", pool="shop", host=host)) == 1
    assert ask(kind="crashes", pool="shop", host="another") == []
    every = ask(kind="samples", pool="shop", limit=100000)
    thin = ask(kind="samples", pool="shop", step=3600)
    assert 1 <= len(thin) <= 2 < len(every) and min(row["ready"] for row in thin) <= 2


def test_what_waits_is_written_before_the_agent_ends(pool, keep, tmp_path):
    file = tmp_path / "history.db"
    agent = keep(Agent([pool.socket_path, "--history", file]))
    agent.wait_pool("shop", lambda p: p["connected"])
    crash(pool, agent)
    assert agent.stop() == 0
    done = run_agent("--history", file, "sql", "SELECT signal FROM lives WHERE crashed = 1")
    assert done.stdout == "signal\nSEGV\n", done.stderr


def test_a_file_of_an_older_agent_gets_what_it_has_not(pool, keep, tmp_path):
    file = tmp_path / "history.db"
    old = sqlite3.connect(file)
    old.execute("CREATE TABLE samples (host TEXT, pool TEXT, stream TEXT, at DOUBLE PRECISION, number BIGINT, "
                "ready BIGINT, rss BIGINT, cpu_percent DOUBLE PRECISION, waiting BIGINT, "
                "PRIMARY KEY (host, pool, stream, at))")
    old.execute("INSERT INTO samples VALUES ('h', 'shop', 's', ?, 2, 2, 3, 4, 5)", (time.time(),))
    old.commit()
    old.close()
    agent = keep(Agent([pool.socket_path, "--history", file, "--sample", "0.2"]))

    def count(where):
        done = run_agent("--history", file, "sql", f"SELECT count(*) FROM samples WHERE {where}")
        assert done.returncode == 0, done.stderr
        return int(done.stdout.splitlines()[1])

    wait_until(lambda: count("host <> 'h'") >= 2, 30, agent.log)
    assert count("host = 'h' AND requests IS NULL") == 1
    assert agent.stop() == 0


def test_sql_only_reads(pool, keep, tmp_path):
    file = tmp_path / "history.db"
    agent = keep(Agent([pool.socket_path, "--history", file]))
    agent.wait_pool("shop", lambda p: p["connected"])
    crash(pool, agent)
    agent.stop()
    before = run_agent("--history", file, "sql", "SELECT count(*) FROM events").stdout
    for text, words in (
        ("DELETE FROM events", "only SELECT is allowed"),
        ("UPDATE events SET n = 1", "only SELECT is allowed"),
        (f"ATTACH '{tmp_path}/other.db' AS other", "only SELECT is allowed"),
        ("SELECT load_extension('x')", ""),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELEKT", "syntax error"),
        ("", "there is no statement"),
    ):
        done = run_agent("--history", file, "sql", text)
        assert done.returncode == 1 and words in done.stderr and done.stderr.count("\n") == 1, text
    assert run_agent("--history", file, "sql", "SELECT count(*) FROM events").stdout == before
    assert not (tmp_path / "other.db").exists()
    for words, message in (
        (["sql"], "it takes one text"),
        (["history"], "say which: upgrades, crashes or events"),
        (["history", "plagues"], "it must be upgrades, crashes or events"),
        (["history", "crashes", "--since", "soon"], "it must be a time"),
        (["history", "crashes", "--limit", "0"], "it must be a number from 1 on"),
    ):
        done = run_agent("--history", file, *words)
        assert done.returncode == 1 and message in done.stderr, done.stderr
    done = run_agent("--history", tmp_path / "none.db", "sql", "SELECT 1")
    assert done.returncode == 1 and "unable to open database file" in done.stderr
    done = run_agent("--listen", "127.0.0.1:0", "--history", tmp_path, pool.socket_path)
    assert done.returncode == 1 and "open history" in done.stderr


def test_what_is_too_old_or_too_much_goes(pool, keep, tmp_path):
    file = tmp_path / "history.db"
    agent = keep(Agent([pool.socket_path, "--history", file, "--history-age", "1h"]))
    agent.wait_pool("shop", lambda p: p["connected"])
    crash(pool, agent)
    agent.stop()
    subprocess.run(["sqlite3", str(file), "UPDATE events SET at = at - 7200; "
                    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000) "
                    "INSERT INTO events (host, pool, stream, n, at, event, data) "
                    "SELECT 'h', 'big', 's', x, strftime('%s','now'), 'pinged', hex(randomblob(200)) FROM c"],
                   check=True, timeout=60)
    assert file.stat().st_size > 4 << 20
    agent = keep(Agent([pool.socket_path, "--history", file, "--history-age", "1h", "--history-size", "2M"]))
    agent.wait_pool("shop", lambda p: p["connected"])

    def small():
        text = run_agent("--history", file, "sql", "SELECT min(at) > strftime('%s','now') - 3600, count(*) FROM events").stdout
        words = text.splitlines()[1].split("\t")
        return words[0] == "1" and 0 < int(words[1]) < 12000

    wait_until(small, 60)
    wait_until(lambda: file.stat().st_size < 3 << 20, 60, lambda: str(file.stat().st_size))
