"""einhorn-agent: what it finds, what it answers, who may control."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from harness import wait_until
from harness.agent import Agent
from harness.programs import program


@pytest.fixture
def make_agent():
    agents = []

    def make(*args, **kwargs):
        agents.append(Agent(args, **kwargs))
        return agents[-1]

    yield make
    for agent in agents:
        agent.destroy()


@pytest.fixture
def pool(make_pool):
    made = make_pool(["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"], name="shop")
    made.wait_ready(2)
    return made


def test_it_shows_a_pool_and_follows_it(pool, make_agent):
    agent = make_agent(pool.socket_path, "--sample", "0.2")
    shown = agent.wait_pool("shop", lambda p: p["connected"] and p["ready"] == 2)
    state = pool.state_json()
    assert {w["pid"] for w in shown["workers"]} == {w["pid"] for w in state["workers"]}
    assert (shown["master"], shown["guard"]) == (state["master"], state["guard"])
    shown = agent.wait_pool("shop", lambda p: len(p["series"]) >= 2)
    assert all(w["rss"] > 100_000 for w in shown["workers"])
    assert shown["series"][-1]["ready"] == 2
    os.kill(state["workers"][0]["pid"], signal.SIGSEGV)
    shown = agent.wait_pool("shop", lambda p: p["crashes"] == 1 and p["ready"] == 2)
    life = shown["lives"][-1]
    assert (life["crashed"], life["signal"], life["stage"]) == (True, "SEGV", "ready")
    pool.request("upgrade", id=1)
    shown = agent.wait_pool("shop", lambda p: p["upgrades"] == 1 and len(p["workers"]) == 2)
    assert (shown["upgrade"]["outcome"], shown["upgrade"]["to"], shown["version"]) == ("upgraded", 1, 1)
    ends = [life for life in shown["lives"] if not life["crashed"]]
    assert len(ends) == 2 and all(life["version"] == 0 for life in ends)
    assert shown["missed"] == 0
    assert agent.stop() == 0


def test_it_comes_back_to_a_killed_master_and_a_new_pool(make_pool, make_agent):
    pool = make_pool(["-n", "1", "-m", "0.05"], name="shop")
    pool.wait_ready(1)
    agent = make_agent(pool.socket_path)
    agent.wait_pool("shop", lambda p: p["ready"] == 1)
    pool.kill_master()
    shown = agent.wait_pool("shop", lambda p: p["connected"] and p["master"] == pool.master_pid)
    assert shown["ready"] == 1 and agent.get("/healthcheck").status == 200
    pool.stop()
    shown = agent.wait_pool("shop", lambda p: not p["connected"])
    pool.start()
    again = agent.wait_pool("shop", lambda p: p["connected"] and p["ready"] == 1)
    assert again["stream"] != shown["stream"] and again["lives"] == []


def test_pools_are_found_in_directories_and_forgotten(make_pool, make_agent):
    first = make_pool(["-n", "1", "-m", "0.05"], name="first")
    first.wait_ready(1)
    second = make_pool(["-n", "1", "-m", "0.05"], name="second", directory=first.dir)
    agent = make_agent("--all", env={"TMPDIR": str(first.dir)})
    for name in ("first", "second"):
        agent.wait_pool(name, lambda p: p["connected"] and p["ready"] == 1)
    assert sorted(p["name"] for p in agent.get("/api/pools").json()["pools"]) == ["first", "second"]
    only = agent.get("/api/pools?pool=second").json()["pools"]
    assert [p["name"] for p in only] == ["second"]
    assert agent.get("/api/pools?pool=third").status == 404
    assert agent.get("/healthcheck/first").status == 200
    assert agent.get("/healthcheck/third").status == 503
    second.stop()
    agent.wait_pool("second", lambda p: not p["connected"])


def test_server_sent_events(pool, make_agent):
    agent = make_agent(pool.socket_path)
    agent.wait_pool("shop", lambda p: p["connected"])
    stream, other = agent.stream(), agent.stream("/api/events?pool=another")
    assert stream.next() == ("hello", {})
    os.kill(pool.pids()[0], signal.SIGKILL)
    assert stream.wait("exited")["signal"] == "KILL"
    assert stream.wait("ready")["by"] == "timer"
    os.kill(pool.master_pid, signal.SIGKILL)
    while stream.next()[0] != "reload":
        pass
    assert stream.wait("master_started")["how"] == "restarted"
    pool.stop()
    while stream.next() != ("connection", {"pool": "shop", "connected": False, "error": "the master closed the connection"}):
        pass
    assert other.next() == ("hello", {})
    stream.close()
    other.close()


def test_metrics_in_both_formats(pool, make_agent):
    agent = make_agent(pool.socket_path, "--sample", "0.2")
    agent.wait_pool("shop", lambda p: p["series"])
    plain = agent.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'einhorn_workers{pool="shop",state="ready"} 2\n' in plain.text
    open_metrics = agent.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert open_metrics.text.endswith("# EOF\n")
    names = set()
    for line in plain.text.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
            assert name not in names, "each family stands once"
            names.add(name)
    document = (Path(__file__).resolve().parents[2] / "docs" / "agent.md").read_text()
    assert all(name in document for name in names)


def test_health_by_rule(make_pool, make_agent):
    pool = make_pool(["-n", "4", "-m", "manual", "-b", "127.0.0.1:0"],
                     ["http_worker", "--options-file=options"], name="shop", start=False)
    (pool.dir / "options").write_text("--ack=path\n--only-index=9\n")
    pool.start()
    pool.wait_ready(4)
    agent = make_agent(pool.socket_path, "--healthy-min", "75%")
    agent.wait_pool("shop", lambda p: p["ready"] == 4)
    assert agent.get("/healthcheck").status == 200
    (pool.dir / "options").write_text("\n")  # who comes now never says that it is up
    victims = pool.pids()
    os.kill(victims[0], signal.SIGKILL)
    agent.wait_pool("shop", lambda p: p["ready"] == 3)
    assert agent.get("/healthcheck").status == 200
    os.kill(victims[1], signal.SIGKILL)
    agent.wait_pool("shop", lambda p: p["ready"] == 2)
    answer = agent.get("/healthcheck")
    assert answer.status == 503
    assert "shop: down, 2 of 4 workers are ready (50%, at least 75% are needed)" in answer.text


def test_nothing_is_controlled_without_permission(pool, make_agent, tmp_path):
    agent = make_agent(pool.socket_path)
    agent.wait_pool("shop", lambda p: p["connected"])
    answer = agent.request("POST", "/api/control", body="{}")
    assert answer.status == 403 and "--allow-control" in answer.text
    assert agent.get("/api/pools").json()["agent"]["control"] is False


def control(agent, command, *args, token="a-token-of-16-chars", pool="shop", **headers):
    wanted = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    wanted.update({key.replace("_", "-"): value for key, value in headers.items()})
    wanted = {key: value for key, value in wanted.items() if value is not None}
    body = json.dumps({"pool": pool, "command": command, "args": list(args)})
    return agent.request("POST", "/api/control", body=body, headers=wanted)


@pytest.fixture
def controlled(pool, make_agent, tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-of-16-chars\n")
    token.chmod(0o600)
    agent = make_agent(pool.socket_path, "--allow-control", "--token-file", token)
    agent.wait_pool("shop", lambda p: p["ready"] == 2)
    return agent


def test_control_with_the_token(pool, controlled):
    answer = control(controlled, "set_workers", "3")
    assert answer.status == 200 and answer.json()["ok"] is True
    pool.wait_ready(3)
    victim = pool.pids()[0]
    answer = control(controlled, "stop_worker", str(victim))
    assert answer.status == 200 and "is being replaced" in answer.json()["message"]
    controlled.wait_pool("shop", lambda p: p["ready"] == 3 and victim not in [w["pid"] for w in p["workers"]])
    assert control(controlled, "upgrade").status == 200
    controlled.wait_pool("shop", lambda p: p["upgrades"] == 1)
    refused = control(controlled, "set_workers", "0")
    assert refused.status == 400 and "Invalid count" in refused.json()["message"]
    assert control(controlled, "die").status == 400
    assert control(controlled, "inc", pool="another").status == 404


def test_control_is_refused_to_others(pool, controlled):
    origin = f"http://{controlled.address}"
    assert control(controlled, "inc", Origin=origin).status == 200
    assert control(controlled, "inc", token="another-token-of-16").status == 401
    assert control(controlled, "inc", Authorization=None).status == 401
    assert control(controlled, "inc", Origin="http://evil.example").status == 403
    assert control(controlled, "inc", Origin="null").status == 403
    assert control(controlled, "inc", Sec_Fetch_Site="cross-site").status == 403
    assert control(controlled, "inc", Content_Type="text/plain").status == 415
    assert control(controlled, "inc", Host="evil.example:80").status == 421
    assert controlled.get("/api/control").status == 405
    assert controlled.get("/api/pools", headers={"Host": "evil.example"}).status == 421
    assert controlled.get("/api/events", headers={"Host": "evil.example"}).status == 421
    assert controlled.get("/healthcheck", headers={"Host": "evil.example"}).status == 200
    assert pool.state_json()["number"] == 3


def unread(connection):
    """How many bytes the other end of a connection to 127.0.0.1 has not read yet."""
    port = connection.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        remote, queues = (line.split()[at] for at in (2, 4))
        if int(remote.split(":")[1], 16) == port:
            return int(queues.split(":")[1], 16)
    raise AssertionError("the other end is gone")


def test_hostile_requests(pool, make_agent):
    agent = make_agent(pool.socket_path)
    agent.wait_pool("shop", lambda p: p["connected"])
    host, port = agent.address.split(":")
    for text, status in (
        (b"garbage\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20000 + b"\r\n\r\n", b"431"),
        (b"POST /api/control HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", b"404"),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthcheck HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
    ):
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(text)
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 " + status), (text[:60], answer[:200])
    # An empty body in chunks, byte by byte: one answer a request, and nothing ends.
    empty = b"POST /api/control HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with socket.create_connection((host, int(port)), 20) as slow:
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in empty:
            slow.sendall(bytes([byte]))
            wait_until(lambda: unread(slow) == 0, 20, "the agent has read it")
        assert slow.recv(65536).startswith(b"HTTP/1.1 403 ")
    # A client that reads nothing of its stream costs the others nothing.
    with socket.create_connection((host, int(port)), 20) as deaf:
        deaf.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pool.client() as client:
            for _ in range(200):
                client.request({"command": "signal", "args": ["USR9" * 300], "id": 1})
        assert agent.get("/healthcheck").status == 200


@pytest.mark.unsanitized
def test_a_client_that_asks_and_does_not_read_costs_no_memory(pool, make_agent):
    agent = make_agent(pool.socket_path)
    agent.wait_pool("shop", lambda p: p["connected"])
    page = len(agent.get("/").body)
    count = 12000
    assert count * page > 100_000_000  # what all answers together are
    host, port = agent.address.split(":")

    def most_memory():
        status = Path(f"/proc/{agent.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status).group(1))

    before = most_memory()
    with socket.create_connection((host, int(port)), 60) as deaf:
        deaf.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
        # Each answer to somebody else is a turn in which more could be read from the one that does not listen.
        for _ in range(50):
            assert agent.get("/healthcheck").status == 200
        assert most_memory() - before < 20_000_000
        # Nothing that it asked for is lost.
        with deaf.makefile("rb") as answers:
            for _ in range(count):
                assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
                while answers.readline() != b"\r\n":
                    pass
                assert len(answers.read(page)) == page
        assert most_memory() - before < 20_000_000


def test_page(pool, make_agent):
    agent = make_agent(pool.socket_path)
    page = agent.get("/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    head = agent.request("HEAD", "/")
    assert head.status == 200 and head.body == b""
    assert int(head.headers["content-length"]) == len(page.body)
    assert agent.get("/nothing").status == 404


def test_a_unix_socket_and_a_dead_ones_file(pool, make_agent, tmp_path):
    path = tmp_path / "agent.sock"
    for _ in range(2):
        agent = make_agent(pool.socket_path, listen=f"unix:{path}", wait=False)
        agent.wait_log(r"listening on unix:")
        done = subprocess.run(
            ["curl", "-sS", "--unix-socket", str(path), "http://x/healthcheck"],
            capture_output=True, text=True, timeout=20, check=True,
        )
        assert done.stdout.startswith("shop: ") or "no state yet" in done.stdout
        agent.stop(signal.SIGKILL)


@pytest.mark.parametrize(
    "args, words",
    [
        (["--nonsense"], "--nonsense: unknown option; einhorn-agent --help lists them"),
        (["--listen"], "--listen: a value is missing: ADDR"),
        (["--listen", "nowhere"], "address nowhere: it must be HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "the port must be a number from 0 to 65535"),
        (["--listen", "::1:80"], "an IPv6 address stands in brackets"),
        (["--listen", "no.such.host.invalid:80"], "address no.such.host.invalid:80"),
        (["--sample", "x"], "--sample x: it must be 0 or from 0.1 to 3600 seconds"),
        (["--healthy-min", "150%"], "--healthy-min 150%: it must be a percentage, 0% to 100%"),
        (["--allow-control"], "--allow-control: it needs --token-file FILE"),
        (["--allow-control", "--token-file", "/no/such"], "--token-file /no/such"),
        (["--token-file", "/no/such"], "--token-file: it is for --allow-control"),
        (["--dogstatsd"], "--dogstatsd: it is for --statsd ADDR"),
        (["--statsd", "127.0.0.1:1", "--statsd-tag", "a:b"], "plain StatsD has no tags"),
        (["--statsd-prefix", "a b"], "it must be a name without"),
        (["--history-age", "soon"], "--history-age soon: it must be from 1m to ten years"),
        (["--history-size", "5"], "--history-size 5: it must be a size of at least 1M"),
        (["--drain", "-1"], "--drain -1: it must be from 0 seconds to a day"),
        (["--all=yes"], "--all: this option takes no value"),
    ],
)
def test_misuse_gets_one_line(args, words):
    done = subprocess.run([program("einhorn-agent"), *args], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("einhorn-agent: ")


def test_a_token_that_others_may_read_is_refused(tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token-of-16-chars\n")
    token.chmod(0o644)
    for text, mode, words in (("a-token-of-16-chars", 0o644, "nobody else may read"), ("short", 0o600, "at least 16")):
        token.write_text(text)
        token.chmod(mode)
        done = subprocess.run(
            [program("einhorn-agent"), "--allow-control", "--token-file", str(token)],
            capture_output=True, text=True, timeout=30,
        )
        assert done.returncode == 1 and words in done.stderr


def test_a_port_in_use(pool, make_agent):
    agent = make_agent(pool.socket_path)
    done = subprocess.run(
        [program("einhorn-agent"), "--listen", agent.address], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert done.stderr == f"einhorn-agent: listen on {agent.address}: Address already in use\n"


def test_an_older_master_is_named_as_such(make_agent, tmp_path):
    """Ruby's Einhorn, or one without the event stream."""
    import socket
    import threading

    path = tmp_path / "einhorn-old.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve():
        try:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b'{"message":"Unrecognized command: \\"subscribe\\"","request_id":1}\n')
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    agent = make_agent(path)
    agent.wait_log(r"old: not connected: the master there knows no event stream")
    listener.close()
    thread.join(10)


def test_help_names_every_option():
    done = subprocess.run([program("einhorn-agent"), "--help"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stdout.startswith("Usage: einhorn-agent")
    done = subprocess.run([program("einhorn-agent"), "--version"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and done.stdout.startswith("einhorn-agent ")
