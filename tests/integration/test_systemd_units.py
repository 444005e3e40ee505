"""The units of examples/systemd: systemd finds nothing wrong with them, they are hardened, and their command lines run."""

import os
import re
import shlex
import subprocess

import pytest
from harness import http_get
from harness.manager import ServiceManager
from harness.programs import ROOT, program, worker

UNITS = ROOT / "examples" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))


@pytest.fixture
def units(tmp_path):
    """Copies of all units that name the programs under test."""
    for path in UNITS.glob("*.*"):
        text = path.read_text()
        for name in ("einhornsh", "einhorn"):
            text = re.sub(rf"/usr/bin/{name}\b", program(name), text)
        (tmp_path / path.name).write_text(text)
    return tmp_path


def analyze(*words, **kwargs):
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, **kwargs)


def test_verify(units):
    paths = [str(path) for path in units.iterdir() if path.suffix in (".service", ".socket")]
    done = analyze("verify", "--man=no", *paths)
    own = [line for line in done.stderr.splitlines() if str(units) in line or "shop" in line]
    assert done.returncode == 0 and not own, done.stderr


@pytest.mark.parametrize("service", SERVICES)
def test_hardened(units, service):
    """The exposure that systemd reckons; 10 is that of a unit that says nothing."""
    done = analyze("security", "--offline=true", "--threshold=45", str(units / service))
    assert done.returncode == 0, done.stdout[-400:]
    assert "NoNewPrivileges=" in done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_the_command_line_runs(make_pool, units, tmp_path, service):
    """As systemd would start it, with the socket of the .socket unit where there is one."""
    import socket

    text = (units / service).read_text()
    start = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1]
    reload = re.search(r"^ExecReload=(.*)$", text, re.MULTILINE)[1]
    app = tmp_path / "current"
    app.mkdir()
    (app / "server").symlink_to(worker("http_worker"))
    start = start.replace("/srv/shop/current", str(app)).replace("-b 8080,r", "-b 127.0.0.1:0,r")
    words = shlex.split(start.replace("/run/shop", str(tmp_path)))
    with ServiceManager(tmp_path) as manager, socket.create_server(("127.0.0.1", 0)) as listener:
        wrapper, fds = [], []
        if "-b fd:web" in start:
            manager.stored["web"] = os.dup(listener.fileno())
            wrapper, fds = manager.serve_as()
        pool = make_pool(words[1:-2], [*words[-1:], "--ack=path"], env=manager.environment, wrapper=wrapper, pass_fds=fds)
        assert manager.wait("READY")["STATUS"] == "4 of 4 workers up, version 0"
        assert http_get(pool.address)["pid"] in pool.pids()
        since = manager.mark()
        done = subprocess.run(shlex.split(reload.replace("/run/shop", str(tmp_path))), capture_output=True, timeout=60)
        assert done.returncode == 0
        manager.wait("READY", "1", since)
        assert pool.stop(2) == 0
