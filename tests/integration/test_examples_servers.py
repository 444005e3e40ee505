"""The programs of examples/, started by their own `run`. Servers: an upgrade and a fleet upgrade under
load, and no request lost. The queue worker: every job is done, and once."""

import re
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Pool, wait_until
from harness.load import connect
from harness.programs import ROOT, einhorn_command
from sdk.scenario import GO_ENV, request

SERVERS = ("node-http", "node-express", "go-http", "python-asyncio", "gunicorn", "uwsgi", "puma", "thin")
SERVERS += ("unicorn", "starlet", "java", "nginx", "haproxy", "php-builtin", "socat")
SERVERS += ("preload-wsgi", "preload-gunicorn", "preload-rack", "preload-cpp")


# A process for each connection takes its time.
RATES = {"socat": 100, "php-builtin": 200}


class Example(Pool):
    """A pool that an example's `run` starts, on a socket that was opened before: so its address is
    known, and nobody else has it."""

    def __init__(self, name, listener=None):
        self.run = str(ROOT / "examples" / name / "run")
        env = {"EINHORN": " ".join(einhorn_command()), **GO_ENV}
        if listener is not None:
            host, port = listener.getsockname()
            self.at = f"{host}:{port}"
            env.update({"BIND": f"fd:{listener.fileno()}", "ADDRESS": self.at})
        pass_fds = [] if listener is None else [listener.fileno()]
        super().__init__(worker_command=[], env=env, pass_fds=pass_fds, start=False)
        self.env.update({"STATE": str(self.dir), "SERVER": str(self.dir / "server")})
        self.start()

    def command_line(self):
        return [self.run]


@pytest.fixture(params=SERVERS)
def example(request, make_pool):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pool = Example(request.param, listener)
        request.node.pools.append(pool)
        yield pool
        pool.destroy()


def upgrade_twice(pool, load):
    """A smooth upgrade and a fleet upgrade while requests come; the account of them."""
    old = set(pool.pids())
    load.wait_ok(100)
    for version, command in ((1, "upgrade"), (2, "upgrade_fleet")):
        with pool.client(timeout=120) as client:
            replies = client.conversation({"command": command, "id": version})
        assert replies[-1]["message"] == "Upgrade done"
        state = pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [version] * 2, 60)
        assert not old & {w["pid"] for w in state["workers"]}
        load.wait_more(100)
    return load.stop()


def test_upgrade_under_load(example, make_load):
    pool = example
    pool.wait_socket(deadline=60)  # Go compiles first
    pool.wait_ready(2, deadline=120)
    wait_until(lambda: '"hello"' in request(pool.at), 10)
    rate = RATES.get(Path(pool.run).parent.name, 800)
    result = upgrade_twice(pool, make_load(pool.at, connections=16, rate=rate))
    assert result["failures"] == 0, result
    assert len(result["by_pid"]) >= 5, "old and new ones took part"
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


def test_memcached(request, make_pool, listeners):
    """The port is never closed, and the old one leaves when its clients have gone, or after some seconds."""
    pool = Example("memcached", listeners[0])
    request.node.pools.append(pool)

    def ask(stream, command, end=b"\r\n"):
        stream.sendall(command.encode() + b"\r\n")
        answer = b""
        while not answer.endswith(end):
            got = stream.recv(4096)
            assert got, f"closed after {answer}"
            answer += got
        return answer.decode()

    def pid(stream):
        return int(re.search(r"STAT pid (\d+)", ask(stream, "stats", b"END\r\n"))[1])

    pool.wait_ready(1, deadline=60)
    seen = set()
    stop = threading.Event()
    wrong = []

    def clients():
        while not stop.is_set():
            try:
                with connect(pool.at) as stream:
                    seen.add(pid(stream))
            except (OSError, AssertionError) as error:
                wrong.append(error)

    with connect(pool.at) as old, ThreadPoolExecutor(4) as threads:
        seen.add(pid(old))
        for _ in range(4):
            threads.submit(clients)
        try:
            for number, command in enumerate(("upgrade", "upgrade_fleet"), 1):
                before = set(seen)
                with pool.client(timeout=120) as client:
                    client.conversation({"command": command, "id": number})
                wait_until(lambda: seen - before, 20)
            assert old.recv(1) == b""
        finally:
            stop.set()
    assert not wrong, wrong
    assert len(seen) >= 3
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


@pytest.fixture
def listeners():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        yield one, two


def test_php_fpm_behind_nginx(request, make_pool, listeners, make_load):
    """FastCGI: nginx, which is not Einhorn's, speaks to whichever php-fpm there is."""
    behind, before = listeners
    pool = Example("php-fpm", behind)
    request.node.pools.append(pool)
    host, port = before.getsockname()
    front = subprocess.Popen(
        [pool.run.replace("/run", "/front")],
        env={**pool.env, "FRONT": f"{host}:{port}", "NGINX": f"{before.fileno()};"},
        pass_fds=[before.fileno()],
        stdin=subprocess.DEVNULL,
    )
    try:
        pool.wait_ready(2, deadline=120)
        load = make_load(f"{host}:{port}", connections=16, rate=400)
        result = upgrade_twice(pool, load)
        assert result["failures"] == 0, result
        assert len(result["by_pid"]) >= 5, "old and new ones took part"
        assert pool.stop(signal.SIGINT) == 0
        pool.wait_gone()
    finally:
        front.terminate()
        front.wait(20)
        pool.destroy()


def test_queue_worker(request, make_pool):
    """Jobs are taken by one worker each, and finished by it also when it is told to leave."""
    pool = Example("queue-worker")
    request.node.pools.append(pool)
    try:
        pool.wait_ready(2, deadline=120)
        jobs = pool.dir / "jobs"

        def add(numbers):
            for number in numbers:
                unfinished = pool.dir / f"job.{number}"
                unfinished.write_text(f"job {number}")
                unfinished.rename(jobs / "new" / f"{number}.job")

        def done():
            return {int(path.stem): path.read_text() for path in (jobs / "done").iterdir()}

        add(range(100))
        wait_until(lambda: len(done()) > 10, 20)
        assert any(str(w["pinged_request_id"]).endswith(".job") for w in pool.workers())
        with pool.client(timeout=30) as client:
            client.conversation({"command": "upgrade", "id": 1})
        add(range(100, 150))
        wait_until(lambda: len(done()) == 150, 30)
        words = {number: text.split() for number, text in done().items()}
        assert all(text[:3] == ["job", str(n), "by"] and len(text) == 4 for n, text in words.items())
        assert len({text[3] for text in words.values()}) >= 3, "old and new ones took part"
        assert not list((jobs / "taken").iterdir()) and not list((jobs / "new").iterdir())
        assert pool.stop(signal.SIGINT) == 0
        pool.wait_gone()
    finally:
        pool.destroy()
