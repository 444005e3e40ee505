"""What the integration tests stand on: real processes, real sockets, deadlines instead of sleeps.

    waiting     the one place that polls
    processes   which processes are ours, and ending exactly those
    wire        the command socket in JSON and YAML
    pool        one einhorn with its own directory
    load        requests, each of them accounted for
    manager     a service manager, as systemd is one
    terminal    a program at a terminal of its own
    upgrades    releases to go from and to, what is said and seen meanwhile
    stranger    what another user of the machine can do
    shell       fixtures for einhornsh, with fake_master: a master made of Python
    programs    where the programs under test and the sample workers are
"""

from .load import Load, http_get
from .pool import Pool
from .processes import descendants, is_alive
from .programs import einhorn_command, program, worker
from .terminal import Terminal
from .waiting import DeadlineExceeded, wait_until
from .wire import Client, load_yaml

__all__ = [
    "Client",
    "DeadlineExceeded",
    "Load",
    "Pool",
    "Terminal",
    "descendants",
    "einhorn_command",
    "http_get",
    "is_alive",
    "load_yaml",
    "program",
    "wait_until",
    "worker",
]
