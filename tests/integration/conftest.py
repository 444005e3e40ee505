"""Fixtures of the integration tests."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Load, Pool, descendants, programs  # noqa: E402
from harness import processes  # noqa: E402
from harness.migration import make_ruby  # noqa: E402, F401
from harness.shell import directory, make_master, shell, terminal  # noqa: E402, F401
from harness.stranger import shared_directory  # noqa: E402, F401

processes.become_subreaper()


@pytest.fixture(scope="session", autouse=True)
def sample_workers():
    """Compiles the sample workers before the first deadline runs."""
    for name in ("http_worker", "env_dump", "loadgen"):
        programs.worker(name)


@pytest.fixture
def after_pools():
    """A stack of what is done when all pools of the test have ended, in whatever order it named its
    fixtures: a pool makes its socket file anew as long as it runs."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def make_pool(request, after_pools):
    """Makes pools; at the end of the test all their processes are ended, and nothing that this
    test started is left."""
    pools = []
    request.node.pools = pools

    def make(*args, **kwargs):
        pool = Pool(*args, **kwargs)
        pools.append(pool)
        return pool

    yield make
    for pool in reversed(pools):
        pool.destroy()
    processes.end_all(descendants)


@pytest.fixture
def make_load(tmp_path):
    """Makes load; what still runs at the end is stopped."""
    loads = []

    def make(address, **kwargs):
        load = Load(address, tmp_path, **kwargs)
        loads.append(load)
        return load

    yield make
    for load in loads:
        if load.process.poll() is None:
            load.process.kill()
        load.process.wait()
        load.process.stdout.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows the logs of its pools."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for pool in getattr(item, "pools", []):
            text = pool.log()[-6000:] or "(empty)"
            command = " ".join(pool.command_line())
            report.sections.append((f"log of: {command}", text))


def pytest_collection_modifyitems(items):
    """Root is needed for some tests; they say so with a marker."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root")
    for item in items:
        if "root" in item.keywords:
            item.add_marker(skip)


def pytest_configure(config):
    # Whoever starts us in the background has them ignored, and so would have every program that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    config.addinivalue_line("markers", "root: the test needs to be root")
    config.addinivalue_line("markers", "unsanitized: it has no meaning under sanitizers")
