"""Deploys in Capistrano's layout, by examples/capistrano/deploy: ten in a row under load, and one that does not come up."""

import json
import os
import subprocess

import pytest
from harness import http_get
from harness.programs import ROOT, program, worker

DEPLOY = ROOT / "examples" / "capistrano" / "deploy"


class Shop:
    def __init__(self, make_pool, tmp_path):
        self.root = tmp_path / "shop"
        self.build = tmp_path / "build"
        self.build.mkdir()
        (self.build / "server").symlink_to(worker("http_worker"))
        self.pool = make_pool(
            ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0", "--chdir", self.root / "current"],
            ["./server", "--options-file=options"],
            start=False,
        )

    def deploy(self, release, options="--ack=path", first=False, check=True):
        (self.build / "options").write_text(f"--label={release}\n{options}\n")
        environment = {**self.pool.env, "ROOT": str(self.root), "KEEP": "3"}
        environment["EINHORNSH"] = "true" if first else program("einhornsh")
        environment["EINHORNSH_ARGS"] = "" if first else f"-d {self.pool.socket_path}"
        return subprocess.run(
            [DEPLOY, self.build, release], env=environment, check=check, capture_output=True, text=True, timeout=120
        )

    def current(self):
        return os.readlink(self.root / "current")


@pytest.fixture
def shop(make_pool, tmp_path):
    shop = Shop(make_pool, tmp_path)
    shop.deploy("20240101000000", first=True)
    shop.pool.start()
    shop.pool.wait_ready(2)
    return shop


def releases(shop):
    return sorted(path.name for path in (shop.root / "releases").iterdir())


def test_ten_deploys_in_a_row_under_load(shop, make_load):
    load = make_load(shop.pool.address, connections=16, rate=500)
    load.wait_ok(100)
    for number in range(1, 11):
        release = f"202401010000{number:02}"
        shop.deploy(release)
        assert http_get(shop.pool.address)["label"] == release
        assert shop.current() == f"releases/{release}"
        load.wait_more(20)
    result = load.stop()
    assert result["failures"] == 0, json.dumps(result)
    assert len(result["by_pid"]) >= 20, "workers of each release took part"
    assert releases(shop) == ["20240101000008", "20240101000009", "20240101000010"]


def test_a_release_that_does_not_come_up(shop, make_load):
    load = make_load(shop.pool.address, connections=8, rate=300)
    load.wait_ok(50)
    before = shop.pool.pids()
    failed = shop.deploy("20240101000001", options="--exit-at-start=1", check=False)
    assert failed.returncode == 1
    assert "releases/20240101000000 serves on" in failed.stderr
    assert shop.current() == "releases/20240101000000"
    load.wait_more(50)
    assert load.stop()["failures"] == 0
    assert shop.pool.pids() == before, "the old ones never noticed"
    shop.deploy("20240101000002")
    assert http_get(shop.pool.address)["label"] == "20240101000002"
