"""HAProxy and nginx in front of a pool, from examples/front, over upgrades under load: nobody behind them notices."""

import json
import os
import signal
import socket
import subprocess

import pytest
from harness import http_get, wait_until
from harness.programs import ROOT

RUN = ROOT / "examples" / "front" / "run"


@pytest.fixture(params=["haproxy", "nginx"])
def front(request, make_pool, tmp_path):
    """A pool with a proxy in front: (pool, the proxy's address)."""
    command = ["http_worker", "--ack=path", "--threads=32", "--linger-ms=1000", "--request-delay-ms=5"]
    pool = make_pool(["-n", "3", "-m", "manual", "-t", "20", "-b", "127.0.0.1:0"], command)
    pool.wait_ready(3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        fd = listener.fileno()
        at = f"{host}:{port}"
        bind = {"haproxy": f"fd@{fd}", "nginx": at}[request.param]
        environment = {**os.environ, "BIND": bind, "POOL": pool.address, "STATE": str(tmp_path / "state")}
        if request.param == "nginx":
            environment["NGINX"] = f"{fd};"
        process = subprocess.Popen([RUN, request.param], env=environment, pass_fds=[fd], stdin=subprocess.DEVNULL)
        try:
            yield pool, at
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.mark.parametrize("mode", ["new", "keepalive"])
def test_upgrades_behind_a_proxy(front, make_load, mode):
    pool, at = front
    wait_until(lambda: answers(at), 30)
    load = make_load(at, connections=16, rate=400, mode=mode)
    load.wait_ok(50)
    for version, how in enumerate(("upgrade", "upgrade_fleet", "upgrade"), 1):
        with pool.client(timeout=120) as client:
            assert client.conversation({"command": how, "id": 1})[-1]["message"] == "Upgrade done"
        pool.wait_state(lambda s, v=version: [w["version"] for w in s["workers"]] == [v] * 3, 60)
        load.wait_more(100)
    pool.kill_master()
    load.wait_more(100)
    result = load.stop()
    assert result["failures"] == 0, json.dumps(result)
    assert len(result["by_pid"]) >= 4, "workers of each version took part"


def answers(at):
    try:
        return http_get(at)["pid"] > 0
    except (AssertionError, OSError, ValueError):
        return False  # the proxy is not up yet
