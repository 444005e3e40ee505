"""The programs of the benchmarks: the C sources beside this file, built into build/bench."""

import os
import shlex
import subprocess
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parent
OUTPUT = ROOT / "build" / "bench"

FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]

# Program, its source, flags of its own.
PROGRAMS = [
    ("launch", "launch.c", []),
    ("bare", "bare.c", []),
    ("worker", "worker.c", []),
    ("worker-static", "worker.c", ["-static"]),
    ("load", "load.c", []),
]


class BuildError(Exception):
    """A program could not be built; the text says which and why."""


def build():
    """Builds what is older than its sources. Returns {program: path}."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    compiler = shlex.split(os.environ.get("CC", "cc"))
    header_time = (SOURCES / "mark.h").stat().st_mtime
    paths = {}
    for program, source, own_flags in PROGRAMS:
        source_path = SOURCES / source
        path = OUTPUT / program
        newest = max(source_path.stat().st_mtime, header_time)
        if not path.exists() or path.stat().st_mtime < newest:
            command = [*compiler, *FLAGS, *own_flags, str(source_path), "-o", str(path)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise BuildError(f"{command[0]}: {error.strerror}") from error
            if done.returncode != 0:
                raise BuildError(f"{shlex.join(command)}\n{done.stderr}")
        paths[program] = str(path)
    return paths


def einhorn_command(given=None):
    """The command line of the program under test: as given, or einhorn from EINHORN_BIN_DIR."""
    if given:
        return shlex.split(given)
    directory = os.environ.get("EINHORN_BIN_DIR", str(ROOT / "build" / "release" / "bin"))
    program = Path(directory) / "einhorn"
    if not os.access(program, os.X_OK):
        raise BuildError(
            f"{program}: not there; build it first (cmake --preset release && "
            "cmake --build --preset release), or say where it is with EINHORN_BIN_DIR"
        )
    return [str(program)]
