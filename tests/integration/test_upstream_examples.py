"""examples/ruby-einhorn: what Ruby's Einhorn has as examples behaves the same here, with -p and without."""

import re
import signal

import pytest
from harness import wait_until
from harness.load import connect
from harness.programs import ROOT
from harness.upgrades import messages, settled, upgrade
from preload.programs import zygotes

EXAMPLES = ROOT / "examples" / "ruby-einhorn"


@pytest.fixture(params=[True, False], ids=["preloaded", "executed"])
def start(request, make_pool):
    def make(program, args, words=(), number=2):
        path = str(EXAMPLES / program)
        args = ["-n", number, "-s", "0.02", *args, *(["-p", path] if request.param else [])]
        env = {"RUBYLIB": str(ROOT / "sdk" / "ruby" / "lib")}
        pool = make_pool(args, [path, *words], env=env)
        pool.wait_ready(number, 60)
        pool.preloads = request.param
        return pool

    return make


def ask(address, request=b""):
    with connect(address) as stream:
        stream.sendall(request)
        answer = b""
        while got := stream.recv(4096):
            answer += got
    return answer.decode()


def said(pool, pattern):
    return re.findall(pattern, pool.stdout_path.read_text())


def test_pool_worker(start):
    pool = start("pool_worker.rb", [])
    pids = {str(pid) for pid in pool.pids()}
    wait_until(lambda: {pid for pid, _ in said(pool, r"(\d+) works, round (\d+)")} >= pids, 20)
    loaded = set(said(pool, r"(\d+) loads pool_worker.rb"))
    assert loaded == ({str(zygotes(pool)[0])} if pool.preloads else pids)


def test_time_server(start):
    pool = start("time_server", ["-m", "manual", "-b", "127.0.0.1:0,r"])
    pids = pool.pids()
    line = ask(pool.address)
    assert re.fullmatch(r"\d+: it is \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\n", line), line
    assert int(line.split(":")[0]) in pids
    assert messages(upgrade(pool, deadline=60))[-1] == "Upgrade done"
    pool.wait_state(settled(1, 2), 30)
    wait_until(lambda: {int(p) for p in said(pool, r"(\d+) leaves")} == set(pids), 20)
    assert int(ask(pool.address).split(":")[0]) in pool.pids()
    assert set(said(pool, r"\d+ serves descriptor (\d+)")) == {"3"}
    assert not pool.preloads or len(zygotes(pool)) == 1
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()


def test_thin_server(start):
    sockets = [f"srv:{address}:0,r,n" for address in ("127.0.0.1", "127.0.0.2")]
    pool = start("thin_server", ["-m", "manual"], sockets)
    for number, address in enumerate(pool.addresses()):
        answer = ask(address, b"GET / HTTP/1.0\r\n\r\n")
        found = re.search(r"server (\d) of worker (\d+)\n$", answer)
        assert found and int(found[1]) == number and int(found[2]) in pool.pids(), answer
    assert pool.stop(signal.SIGINT) == 0
    pool.wait_gone()
