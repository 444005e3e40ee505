"""Pools of Ruby's Einhorn: how they are started, what is asked of them, and what has to be true of a
pool that has changed hands. conftest.py makes the fixture known.

ruby/master.rb stands for Ruby's Einhorn. EINHORN_RUBY_COMMAND, for instance `ruby
-I/usr/src/einhorn/lib /usr/src/einhorn/bin/einhorn`, puts a real one in its place."""

import os
import shlex
from pathlib import Path

import pytest

from .pool import Pool
from .processes import environment_of, open_descriptors, read_stat
from .programs import einhorn_command
from .waiting import wait_until
from .wire import load_yaml

STAND_IN = Path(__file__).resolve().parent.parent / "ruby" / "master.rb"


def ruby_command():
    words = shlex.split(os.environ.get("EINHORN_RUBY_COMMAND", ""))
    return words or ["ruby", str(STAND_IN)]


OURS = shlex.join(einhorn_command())
RUBYS = shlex.join(ruby_command())


class RubyPool(Pool):
    """A pool that Ruby's Einhorn starts."""

    def command_line(self):
        name = [] if self.name is None else ["-c", self.name]
        return [*self.wrapper, *ruby_command(), *name, *self.args, "--", *self.worker_command]


@pytest.fixture
def make_ruby(make_pool, request):
    """Like make_pool, of RubyPool."""

    def make(*args, **kwargs):
        pool = RubyPool(*args, **kwargs)
        request.node.pools.append(pool)
        return pool

    return make


def ruby_state(pool):
    """`state` as both tell it."""
    return load_yaml(pool.command("state", language="yaml"))[":state"]


def ruby_children(pool):
    return {
        pid: child
        for pid, child in ruby_state(pool)[":children"].items()
        if child[":type"] == ":worker"
    }


def wait_children(pool, number, version=None, deadline=20):
    """Waits until there are just so many workers, all ACKed, none signaled."""

    def there():
        children = ruby_children(pool)
        return len(children) == number and all(
            c[":acked"] and not c[":signaled"] and version in (None, c[":version"])
            for c in children.values()
        )

    wait_until(there, deadline, lambda: f"{number} workers: {ruby_children(pool)}\n{pool.log()}")
    return ruby_children(pool)


def ports(pool):
    return ruby_state(pool)[":bound_ports"]


def address(pool):
    return f"127.0.0.1:{ports(pool)[0]}"


def is_ours(pool):
    """Whose program runs in the pid that everybody knows."""
    mine = os.path.realpath(einhorn_command()[0])
    return os.path.realpath(f"/proc/{pool.process.pid}/exe") == mine


def upgrade(pool, command="upgrade", *args):
    """Asks, waits for the end; the messages."""
    with pool.client(timeout=40) as client:
        document = {"command": command, "id": 7, **({"args": list(args)} if args else {})}
        replies = client.conversation(document, "yaml")
    assert {reply["request_id"] for reply in replies} == {7}
    return [reply["message"] for reply in replies]


def zombies(pool):
    return [s.pid for s in pool.processes() if s.state == "Z" and s.pid != pool.process.pid]


def sockets_of(pid):
    return sorted(n for n, target in open_descriptors(pid).items() if target.startswith("socket:"))


def check_whole(pool, number, version):
    """Everything that has to be true of a pool that has just changed hands."""
    workers = wait_children(pool, number, version)
    assert sorted(c[":index"] for c in workers.values())[0] >= 0
    assert len({c[":index"] for c in workers.values()}) == number
    for pid in workers:
        assert read_stat(pid).ppid == pool.process.pid
    found = environment_of(next(iter(workers)))
    assert found["EINHORN_MASTER_PID"] == str(pool.process.pid)
    wait_until(lambda: not zombies(pool), what=lambda: f"zombies: {zombies(pool)}")
    assert ruby_state(pool)[":version"] == version
    return workers


# name: (arguments, the worker)
SHAPES = {
    "manual ACK": (["-n", "3", "-m", "manual"], "http_worker --ack=path"),
    "timer ACK": (["-n", "3", "-m", "0.2"], "http_worker"),
    "several sockets": (
        ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0,r"],
        "http_worker --ack=path",
    ),
    "eight workers": (["-n", "8", "-m", "manual"], "http_worker --ack=path"),
    "named": (["-c", "shop", "-n", "2", "-m", "manual"], "http_worker --ack=path"),
    "own paths": (
        "-n 2 -m manual -d @DIR@/a.sock -e @DIR@/a.pid -f @DIR@/a.lock".split(),
        "http_worker --ack=path",
    ),
    "killed on exit": (["-k", "-n", "2", "-m", "manual"], "http_worker --ack=path"),
    "max unacked": (["--max-unacked", "1", "-n", "3", "-m", "manual"], "http_worker --ack=path"),
}


def start_ruby(make_ruby, shape="manual ACK", to=OURS, **kwargs):
    arguments, worker = SHAPES[shape]
    words = [*arguments, "-b", "127.0.0.1:0", "--reexec-as", to]
    name = None
    if words[0] == "-c":
        name, words = words[1], words[2:]
    pool = make_ruby(words, worker, name=name, **kwargs)
    pool.number = int(words[words.index("-n") + 1])
    wait_children(pool, pool.number, 0)
    return pool


SWITCH = "#!/bin/sh\nexec $(cat {target}) \"$@\"\n"


def switch(pool_directory):
    """A command whose meaning changes: (command, set)."""
    target, command = pool_directory / "target", pool_directory / "switch"
    command.write_text(SWITCH.format(target=target))
    command.chmod(0o755)
    return str(command), lambda words: target.write_text(words)
