"""Another user: what a process of theirs can do. Root is needed to be one."""

import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

UID = 54321  # nobody has it


@pytest.fixture
def shared_directory(after_pools):
    """A directory like /tmp: everybody writes, nobody removes what is another one's."""
    path = Path(after_pools.enter_context(tempfile.TemporaryDirectory(prefix="einhorn-shared-")))
    path.chmod(0o1777)
    return path


def run(script, *arguments, timeout=20):
    """Runs Python text as the stranger; `sys.argv[1:]` are the arguments. Returns what it printed,
    read as JSON."""
    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, *(str(word) for word in arguments)],
        user=UID,
        group=UID,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


TRY = """
import json, os, socket, sys

def attempt(what):
    try:
        what()
        return "done"
    except OSError as error:
        return type(error).__name__
"""


def attempts(*expressions, **values):
    """Evaluates each expression as the stranger: {expression: "done" or the exception's name}."""
    lines = [TRY, "values = json.loads(sys.argv[1]); globals().update(values); found = {}"]
    for text in expressions:
        lines.append(f"found[{text!r}] = attempt(lambda: {text})")
    lines.append("print(json.dumps(found))")
    plain = {name: str(value) for name, value in values.items()}
    return run("\n".join(lines), json.dumps(plain))


@contextmanager
def as_stranger():
    """What is made in here is the stranger's: files, descriptors, sockets."""
    os.setegid(UID)
    os.seteuid(UID)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
