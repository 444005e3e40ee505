"""einhornsh against a real master: upgrades seen to their end, reloads, the prompt."""

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import termios

import pytest

from harness import Terminal, programs
from harness.waiting import wait_until

DEADLINE = 30.0
# Where there is a gate, a worker that starts waits for its turn.
WORKER = """
if [ -e gate ]; then until read turn < gate; do :; done; fi
exec "$0" --ack=path --options-file=options
"""


@pytest.fixture
def pool(make_pool):
    """Three workers; what the next ones do, the test writes into a file."""
    made = make_pool(
        ["-n", "3", "-m", "manual", "-b", "127.0.0.1:0", "--upgrade-failures", "1"],
        ["/bin/sh", "-c", WORKER, programs.worker("http_worker")],
        start=False,
    )
    next_workers(made, "")
    made.start().wait_ready(3)
    return made


def next_workers(pool, options):
    (pool.dir / "options").write_text(options)


def close_gate(pool):
    os.mkfifo(pool.dir / "gate")


def let_one_through(pool):
    """Lets one of the workers that come to the gate go on."""
    gate = os.open(pool.dir / "gate", os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(gate, b"\n")

        def taken():
            left = fcntl.ioctl(gate, termios.FIONREAD, struct.pack("i", 0))
            return struct.unpack("i", left) == (0,)

        wait_until(taken, DEADLINE, "a worker at the gate")
    finally:
        os.close(gate)


def environment(pool):
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "TMPDIR": str(pool.dir),
        "HOME": str(pool.dir),
        "USER": "tester",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
    }


def shell(pool, *arguments):
    return subprocess.run(
        [programs.program("einhornsh"), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=environment(pool),
    )


@pytest.fixture
def terminal(pool):
    terminals = []

    def make(*arguments, command=None):
        words = command or [programs.program("einhornsh"), *arguments]
        terminals.append(Terminal(words, environment(pool)))
        return terminals[-1]

    yield make
    for one in terminals:
        one.close()


def versions(state):
    """Of the workers that serve."""
    return [worker["version"] for worker in state["workers"] if worker["state"] == "ready"]


# --- how an upgrade ends ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["upgrade", "upgrade_fleet", "upgrade --no-rollback"])
def test_success_is_0_and_it_is_over_then(pool, command):
    done = shell(pool, "-e", command)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(", as commanded") and lines[-1] == "Upgrade done"
    assert len([line for line in lines if line.startswith("===> Launched")]) == 3
    assert "\x1b" not in done.stdout and "\r" not in done.stdout
    state = pool.state_json()
    assert not state["upgrading"]
    assert versions(state) == [1, 1, 1]


def test_failure_is_1_and_the_old_version_serves(pool):
    next_workers(pool, "--exit-at-start=3\n")
    done = shell(pool, "-e", "upgrade")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "Upgrade failed; rolled back to version 0"
    assert any("exited with status 3 before it was ACKed" in line for line in lines)
    assert versions(pool.state_json()) == [0, 0, 0]
    next_workers(pool, "")
    assert shell(pool, "-e", "upgrade").returncode == 0


def test_what_can_not_be_started_is_2(pool):
    done = shell(pool, "-e", "upgrade --bogus")
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith('Unknown argument "--bogus"')
    assert versions(pool.state_json()) == [0, 0, 0]


def test_a_new_master_that_can_not_start_is_2(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05", "--reexec-as", "/bin/false"])
    pool.wait_ready(1)
    done = shell(pool, "-e", "upgrade")
    assert done.returncode == 2
    assert "Could not start the upgrade: " in done.stdout.splitlines()[-1]
    assert versions(pool.state_json()) == [0]


def test_rollback_by_hand(pool):
    assert shell(pool, "-e", "rollback").returncode == 1  # there is nothing before the first one
    assert shell(pool, "-e", "upgrade").returncode == 0
    done = shell(pool, "-e", "rollback")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Rollback done")
    assert versions(pool.state_json()) == [0, 0, 0]


def test_json_streams_the_events(pool):
    done = shell(pool, "--json", "-e", "upgrade; state json")
    assert done.returncode == 0
    *upgrade, state = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(event["wait"] and event["request_id"] == 1 for event in upgrade[:-1])
    assert upgrade[-1] == {"message": "Upgrade done", "status": "ok", "request_id": 1}
    assert json.loads(state["message"])["version"] == 1


def test_whoever_is_interrupted_detaches(pool):
    close_gate(pool)
    process = subprocess.Popen(
        [programs.program("einhornsh"), "-e", "upgrade"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(pool),
    )
    with process:
        while "===> Launched" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert process.stderr.read() == "Detached; the upgrade goes on.\n"
    state = pool.state_json()
    assert state["upgrading"] and versions(state) == [0, 0, 0]
    for _ in range(3):
        let_one_through(pool)
    pool.wait_state(lambda s: not s["upgrading"] and versions(s) == [1, 1, 1], DEADLINE)


# --- at a terminal ------------------------------------------------------------------------------


def test_a_bar_follows_the_upgrade(pool, terminal):
    close_gate(pool)
    command = f"{programs.program('einhornsh')} -e upgrade; echo left: $?; read"
    screen = terminal(command=["/bin/bash", "--norc", "--noprofile", "-c", command])
    screen.expect("0/3 workers of version 1 ready")
    let_one_through(pool)
    screen.expect("1/3 workers of version 1 ready")
    let_one_through(pool)
    screen.expect("2/3 workers of version 1 ready")
    let_one_through(pool)
    screen.expect("left: 0\n")
    lines = screen.screen()
    assert lines[0] == "Upgrading smoothly, as commanded"
    assert lines[-3:] == ["Upgrade done", "left: 0", ""]
    assert not [line for line in lines if "[" in line and "Sending" not in line]


def test_a_failure_is_told_plainly(pool, terminal):
    next_workers(pool, "--exit-at-start=3\n")
    command = f"{programs.program('einhornsh')} -e upgrade; echo left: $?; read"
    screen = terminal(command=["/bin/bash", "--norc", "--noprofile", "-c", command])
    screen.expect("left: 1\n")
    lines = screen.screen()
    assert lines[-3:] == ["Upgrade failed; rolled back to version 0", "left: 1", ""]
    assert any(re.match(r"ERROR: +worker \d+ of version 1 exited with status 3", x) for x in lines)


def test_the_prompt_of_a_real_master(pool, terminal):
    prompt = terminal()
    prompt.expect("Welcome, tester! You are speaking to Einhorn Master Process")
    prompt.prompt()
    prompt.type("sta\t\t")
    prompt.expect("state   status")
    prompt.type("us\r")
    prompt.expect("workers 3/3 ready, version 0")
    prompt.prompt()
    prompt.type("state j\t\r")
    prompt.expect('"number":3')
    prompt.prompt()
    prompt.type("set_w\t4\r")
    prompt.expect("Altering worker count, 3 -> 4.")
    prompt.prompt()
    pool.wait_ready(4)
    prompt.type("upgrade --\t\r")
    prompt.expect("--no-rollback")
    prompt.expect("Upgrade done\n")
    prompt.prompt()
    prompt.type("rollb\t\r")
    prompt.expect("Rollback done\n")
    prompt.prompt()
    prompt.type("bogus\r")
    prompt.expect('Unrecognized command: "bogus"')
    prompt.prompt()
    prompt.type("signal co\t\r")
    prompt.expect("Successfully sent CONTs to ")
    prompt.prompt()
    prompt.type("quit\r")
    prompt.expect("Goodbye!")
    assert prompt.wait() == 0
    assert versions(pool.state_json()) == [0, 0, 0, 0]


# --- reloads ------------------------------------------------------------------------------------


def test_commands_go_on_over_reloads(pool):
    """A connection survives: whatever comes behind a reload is answered, by the old or by the new
    master."""
    workers = pool.pids()
    for _ in range(20):
        done = shell(pool, "-e", "reload; state; reload; state json")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("Reloading, as commanded\n") == 2
        assert json.loads(done.stdout.splitlines()[-1])["ready"] == 3
    assert pool.pids() == workers
