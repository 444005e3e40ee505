"""Fixtures for einhornsh: a directory, masters made of Python in it, and the shell with and without
a terminal. conftest.py makes them known."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from . import programs
from .fake_master import DEADLINE, FakeMaster
from .terminal import Terminal


@pytest.fixture
def directory():
    """Short, as the path of a socket must be."""
    with tempfile.TemporaryDirectory(prefix="sh") as name:
        yield Path(os.path.realpath(name))


@pytest.fixture
def make_master(directory):
    masters = []

    def make(answers=None, name=None, language="yaml"):
        path = directory / (f"einhorn-{name}.sock" if name else "einhorn.sock")
        masters.append(FakeMaster(path, answers, language))
        return masters[-1]

    yield make
    for master in masters:
        master.stop()


def environment(directory):
    """Nothing of the caller's but what programs need."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "TMPDIR": str(directory),
        "HOME": str(directory),
        "USER": "tester",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture
def shell(directory):
    def run(*arguments, stdin="", env=None, **kwargs):
        return subprocess.run(
            [programs.program("einhornsh"), *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env={**environment(directory), **(env or {})},
            cwd=directory,
            **kwargs,
        )

    return run


@pytest.fixture
def terminal(directory):
    terminals = []

    def make(*arguments, command=None, env=None, **kwargs):
        words = command or [programs.program("einhornsh"), *arguments]
        terminals.append(Terminal(words, {**environment(directory), **(env or {})}, **kwargs))
        return terminals[-1]

    yield make
    for one in terminals:
        one.close()
