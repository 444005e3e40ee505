"""Control groups of version 1, one of our own a scenario.

A group is named after the scenario's directory, so that whoever started the scenario can remove it
when that was interrupted."""

import contextlib
import os
from pathlib import Path

from day import NotPossible
from harness import wait_until

PREFIX = "einhorn-gameday-"


def mounted(controller):
    """Where the hierarchy of that controller is, None if it is not mounted."""
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, where, kind, options = line.split()[:4]
            if kind == "cgroup" and controller in options.split(","):
                return Path(where)
    return None


class Group:
    """A group; processes join it themselves (`join` is made for preexec)."""

    def __init__(self, controller, directory):
        root = mounted(controller)
        if root is None:
            raise NotPossible(f"no control group (version 1) for {controller} is mounted here")
        self.path = root / (PREFIX + Path(directory).parent.name)
        try:
            self.path.mkdir()
        except OSError as error:
            raise NotPossible(f"can't make the control group {self.path}: {error}") from None

    def join(self):
        with open(self.path / "cgroup.procs", "w", encoding="ascii") as file:
            file.write("0")

    def write(self, name, value):
        (self.path / name).write_text(str(value), encoding="ascii")

    def read(self, name):
        return (self.path / name).read_text(encoding="ascii")

    def field(self, name, key):
        """The number behind `key` in a file of lines "key number"."""
        for line in self.read(name).splitlines():
            if line.split()[0] == key:
                return int(line.split()[1])
        raise KeyError(key)


def remove_left(name):
    """Removes the groups that the scenario in the directory of that name has made."""
    for controller in ("memory", "pids"):
        root = mounted(controller)
        path = None if root is None else root / (PREFIX + name)
        if path is not None and path.is_dir():
            wait_until(lambda path=path: removed(path), 10, f"removing {path}")


def removed(path):
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return not path.exists()
