"""Where the programs are. EINHORN_BIN_DIR holds the programs under test; the sample workers are in
EINHORN_TEST_WORKER_DIR, by default where the build puts them, and are compiled there if they are
missing or older than their source. EINHORN_COMMAND puts another command line in place of `einhorn`
(a wrapper such as a debugger or a checker)."""

import os
import shlex
import subprocess
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "tests" / "workers"
INTERPOSED = ROOT / "tests" / "interpose"


def bin_dir():
    return Path(os.environ.get("EINHORN_BIN_DIR", ROOT / "build" / "release" / "bin")).resolve()


def program(name):
    """A program under test, as an absolute path."""
    return str(bin_dir() / name)


def einhorn_command():
    """The command line that starts einhorn, without arguments."""
    words = shlex.split(os.environ.get("EINHORN_COMMAND", ""))
    return words or [program("einhorn")]


def worker(name):
    """A sample worker of tests/workers, as an absolute path."""
    return _built(SOURCES / f"{name}.cpp", name, ["-pthread", "-static-libstdc++", "-static-libgcc"])


def preloaded(name):
    """A sample worker as a library for einhorn -p, as an absolute path."""
    header = ["-include", str(ROOT / "preload" / "einhorn" / "preload.h")]
    flags = ["-shared", "-fPIC", "-pthread", "-Dmain=einhorn_main", *header]
    return _built(SOURCES / f"{name}.cpp", f"lib{name}.so", flags)


def interposed(name):
    """A library of tests/interpose for LD_PRELOAD, as an absolute path."""
    return _built(INTERPOSED / f"{name}.cpp", f"{name}.so", ["-shared", "-fPIC"])


def _built(source, name, flags):
    default = bin_dir().parent / "tests" / "workers"
    built = Path(os.environ.get("EINHORN_TEST_WORKER_DIR", default)).resolve() / name
    changed = max(path.stat().st_mtime for path in (source, *source.parent.glob("*.h")))
    if not built.exists() or built.stat().st_mtime < changed:
        built.parent.mkdir(parents=True, exist_ok=True)
        # Not the pid: two that build at once may each be 1 in a namespace of its own.
        unfinished = f"{built}.{uuid.uuid4().hex}"
        command = ["g++", "-std=c++20", "-O1", *flags, str(source), "-o", unfinished]
        subprocess.run(command, check=True)
        os.rename(unfinished, built)
    return str(built)
