"""--intercept=preload finds its library where it was installed, and says where it looked."""

import shutil
import subprocess
import sys

import pytest
from harness import Pool, http_get
from harness.programs import ROOT, bin_dir, program

from test_intercept import PYTHON, SERVER

sys.path.insert(0, str(ROOT / "scripts"))
import package  # noqa: E402

LIBRARY = "lib/einhorn/libeinhorn-intercept.so"
FLAGS = ["-b", "127.0.0.1:0,name=web", "--intercept=preload", "--intercept", "3000=web"]


class Installed(Pool):
    """A pool of an einhorn that is somewhere else."""

    def __init__(self, einhorn, *arguments, **kwargs):
        self.einhorn = str(einhorn)
        super().__init__(*arguments, **kwargs)

    def command_line(self):
        return [self.einhorn, *super().command_line()[1:]]


@pytest.fixture
def make_installed(request):
    pools = []
    request.node.pools = pools

    def make(einhorn):
        pools.append(Installed(einhorn, FLAGS, [PYTHON, "-c", SERVER, "127.0.0.1", "3000"]))
        return pools[-1]

    yield make
    for pool in pools:
        pool.destroy()


def test_what_cmake_installs(make_installed, tmp_path):
    build = bin_dir().parent
    if not (build / "CMakeCache.txt").exists():
        build = ROOT / "build" / "release"
    usr = tmp_path / "usr"
    subprocess.run(
        ["cmake", "--install", build, "--prefix", usr], check=True, capture_output=True, timeout=120
    )
    assert (usr / LIBRARY).exists()
    assert package.owner_of(usr / LIBRARY) == "einhorn", "it comes with the package of the program"
    pool = make_installed(usr / "bin" / "einhorn")
    (entry,) = pool.wait_ready(1)
    assert http_get(pool.address)["pid"] == entry["pid"]
    with open(f"/proc/{entry['pid']}/maps", encoding="ascii") as maps:
        assert str(usr / LIBRARY) in maps.read()
    assert pool.stop() == 0


def test_a_program_without_its_library(make_installed, tmp_path):
    (tmp_path / "bin").mkdir()
    shutil.copy(program("einhorn"), tmp_path / "bin" / "einhorn")
    pool = make_installed(tmp_path / "bin" / "einhorn")
    assert pool.wait_exit() == 1
    assert "libeinhorn-intercept.so is not installed with" in pool.log()
    assert "looked for in ../lib/einhorn, ../lib and beside it" in pool.log()
    assert pool.log().count("\n") == 1
