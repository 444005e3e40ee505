"""The servers of examples/: each one's own `run`, an upgrade and a fleet upgrade under load, and no
request lost."""

import signal
import socket

import pytest
from harness import Pool, wait_until
from harness.programs import ROOT, einhorn_command
from sdk.scenario import GO_ENV, request

SERVERS = ("node-http", "go-http", "python-asyncio", "gunicorn", "nginx", "haproxy")


class Example(Pool):
    """A pool that an example's `run` starts, on a socket that was opened before: so its address is
    known, and nobody else has it."""

    def __init__(self, name, listener):
        self.run = str(ROOT / "examples" / name / "run")
        host, port = listener.getsockname()
        self.at = f"{host}:{port}"
        super().__init__(worker_command=[], pass_fds=[listener.fileno()], start=False)
        self.env.update(
            {
                "EINHORN": " ".join(einhorn_command()),
                "BIND": f"fd:{listener.fileno()}",
                "ADDRESS": self.at,
                "STATE": str(self.dir),
                "SERVER": str(self.dir / "server"),
                **GO_ENV,
            }
        )
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


def test_upgrade_under_load(example, make_load):
    pool = example
    pool.wait_socket(deadline=60)  # Go compiles first
    pool.wait_ready(2)
    wait_until(lambda: '"hello"' in request(pool.at), 10)
    old = set(pool.pids())
    load = make_load(pool.at, connections=16, rate=800)
    load.wait_ok(100)
    for version, command in ((1, "upgrade"), (2, "upgrade_fleet")):
        with pool.client(timeout=30) as client:
            replies = client.conversation({"command": command, "id": version})
        assert replies[-1]["message"] == "Upgrade done"
        state = pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [version] * 2, 20)
        assert not old & {w["pid"] for w in state["workers"]}
        load.wait_more(100)
    result = load.stop()
    assert result["failures"] == 0, result
    assert len(result["by_pid"]) >= 5, "old and new ones took part"
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()
