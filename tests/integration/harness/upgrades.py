"""What tests of upgrades share: releases, and what is said and seen while they change."""

import os
import subprocess
import threading

from .programs import program
from .waiting import wait_until
from .wire import decode, encode


class Releases:
    """Directories beside each other, and `current`, a link to the one that is to run.

    Every worker reads `options` in its working directory, so its label tells which release it is
    of."""

    def __init__(self, directory):
        self.dir = directory

    def path(self, label):
        return self.dir / label

    def add(self, label, *options, ack="--ack=path"):
        """Makes a release and lets `current` point to it. Without ack it does not serve either."""
        self.path(label).mkdir()
        self.write(label, *options, ack=ack)
        self.switch(label)
        return label

    def write(self, label, *options, ack="--ack=path"):
        words = [f"--label={label}", ack or "--threads=0", *options]
        (self.path(label) / "options").write_text("\n".join(words) + "\n")

    def switch(self, label):
        new = self.dir / "current.new"
        new.symlink_to(label)
        os.replace(new, self.dir / "current")


class Watch:
    """Looks at `state json` again and again until stopped. A sample that the master's death cut off
    is left out."""

    def __init__(self, pool):
        self.pool = pool
        self.states = []
        self.failure = None
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        wait_until(lambda: self.states or self.failure)
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        if self.failure:
            raise self.failure

    def _run(self):
        try:
            while not self.ended.wait(0.003):
                self.states.append(self.pool.state_json())
        except (AssertionError, OSError) as failure:
            self.failure = failure

    def counts(self, *states, version=None):
        """In each sample, how many workers are in one of these states (and of that version)."""
        return [
            sum(
                (not states or w["state"] in states) and version in (None, w["version"])
                for w in sample["workers"]
            )
            for sample in self.states
        ]

    def fewest_ready(self):
        return min(self.counts("ready"))


def upgrade(pool, command="upgrade", *args, deadline=30):
    """Asks, waits for the end; all replies."""
    with pool.client(timeout=deadline) as client:
        document = {"command": command, "id": 1, **({"args": list(args)} if args else {})}
        return client.conversation(document)


def messages(replies):
    return [reply["message"] for reply in replies]


def read_last(client):
    """Reads replies up to the one without `wait`; returns them all."""
    replies = [decode(client.read_line())]
    while replies[-1].get("wait"):
        replies.append(decode(client.read_line()))
    return replies


def ask(client, command="upgrade", number=1):
    client.send_line(encode({"command": command, "id": number}, "json"))


def labels(pool):
    """By pid, the release in whose directory it works."""
    return {
        w["pid"]: os.path.basename(os.readlink(f"/proc/{w['pid']}/cwd")) for w in pool.workers()
    }


def settled(version, number):
    """A predicate for wait_state: nothing but `number` ready workers of that version."""
    return lambda s: (
        not s["upgrading"]
        and [(w["version"], w["state"]) for w in s["workers"]] == [(version, "ready")] * number
    )


def shell(pool, *words, **kwargs):
    command = [program("einhornsh"), "-d", str(pool.socket_path), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **kwargs)
