"""einhornsh against a master made of Python: every mode, every way to fail, and a real terminal."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path

import pytest

from harness import programs
from harness.terminal import Terminal
from harness.waiting import wait_until
from harness.wire import decode, encode

DEADLINE = 20.0

HELP = """You are speaking to the Einhorn command socket. You can run the following commands:

help: Print out available commands
set_workers: Set the number of workers
signal: Send signals to all workers (args: SIG1 [SIG2 ...])
state: Print the state
upgrade: Upgrade smoothly
upgrade_fleet: Upgrade a fleet at a time
"""


def encode_reply(reply, language):
    """JSON as it is, YAML escaped: other than in a request nothing in JSON is escaped."""
    if language == "json":
        return json.dumps(reply).encode() + b"\n"
    return encode(reply, "yaml")


class FakeMaster:
    """Answers on a command socket. `answers` maps a command to a list of replies (dicts without
    request_id), or to a function of (connection, request) that answers as it likes."""

    def __init__(self, path, answers=None, language="yaml"):
        self.path = str(path)
        self.language = language
        self.answers = {
            "ehlo": [{"message": "Welcome, somebody! This is a test.\n"}],
            "help": [{"message": HELP}],
        }
        self.answers.update(answers or {})
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        self.connections = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection):
        buffer = b""
        try:
            while True:
                got = connection.recv(65536)
                if not got:
                    return
                buffer += got
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    request = decode(line)
                    self.requests.append(request)
                    self._answer(connection, request)
        except OSError:
            return

    def _answer(self, connection, request):
        answer = self.answers.get(request["command"])
        if answer is None:
            answer = [
                {"message": f"Unrecognized command: \"{request['command']}\"", "status": "error"}
            ]
        if callable(answer):
            answer(connection, request)
            return
        for reply in answer:
            self.send(connection, request, reply)

    def send(self, connection, request, reply):
        reply = dict(reply)
        if "id" in request:
            reply["request_id"] = request["id"]
        else:
            reply = {"message": reply["message"]}
        connection.sendall(encode_reply(reply, self.language))

    def commands(self):
        return [request["command"] for request in self.requests]

    def hang_up(self):
        """Closes the connections, and goes on listening."""
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        for thread in self.threads:
            thread.join(DEADLINE)


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


# --- one-shot -----------------------------------------------------------------------------------


def test_execute_sends_commands_with_ids_and_prints_messages(make_master, shell):
    master = make_master(
        {
            "inc": [{"message": "more", "status": "ok"}],
            "signal": [{"message": "sent\n", "status": "ok"}],
        }
    )
    done = shell("-e", "inc;; signal USR1 'a b';")
    assert (done.returncode, done.stdout, done.stderr) == (0, "more\nsent\n", "")
    assert master.requests == [
        {"id": 1, "command": "inc", "args": []},
        {"id": 2, "command": "signal", "args": ["USR1", "a b"]},
    ]


@pytest.mark.parametrize("language", ["yaml", "json"])
def test_messages_survive_in_both_languages(make_master, shell, language):
    text = "50% of it\n+ a: b\n\n  c %0A %25 grün\n"
    make_master({"state": [{"message": text, "status": "ok"}]}, language=language)
    done = shell("-e", "state")
    assert (done.returncode, done.stdout) == (0, text)


def test_a_long_reply_arrives_whole(make_master, shell):
    text = "".join(f"line {number}\n" for number in range(200_000))
    make_master({"state": [{"message": text, "status": "ok"}]})
    done = shell("-e", "state")
    assert (done.returncode, len(done.stdout)) == (0, len(text))
    assert done.stdout == text


def test_a_reply_beyond_the_limit_is_an_error(make_master, shell):
    def flood(connection, _):
        connection.sendall(b"message: '" + b"x" * (9 << 20) + b"'\n")

    make_master({"state": flood})
    done = shell("-e", "state")
    assert (done.returncode, done.stdout) == (1, "")
    assert "longer than 8 MB" in done.stderr


@pytest.mark.parametrize(
    "select_master",
    [
        ["-c", "web"],
        ["--command-name=web"],
        ["web"],
        ["-d", "einhorn-web.sock"],
        ["--socket-path", "./einhorn-web.sock"],
        ["-d", "einhorn-web.sock", "-c", "other"],
    ],
)
def test_the_master_is_found_by_name_or_path(make_master, shell, select_master):
    make_master({"who": [{"message": "plain", "status": "ok"}]})
    make_master({"who": [{"message": "web", "status": "ok"}]}, name="web")
    assert shell(*select_master, "-e", "who").stdout == "web\n"
    assert shell("-e", "who").stdout == "plain\n"


def test_the_temporary_directory_is_the_first_usable_one(make_master, shell, directory):
    make_master({"who": [{"message": "here", "status": "ok"}]})
    done = shell("-e", "who", env={"TMPDIR": str(directory / "none"), "TMP": str(directory)})
    assert done.stdout == "here\n"


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, code", [(None, 0), ("ok", 0), ("error", 1), ("failed", 1), ("could_not_start", 2)]
)
def test_the_last_reply_decides(make_master, shell, status, code):
    last = {"message": "last"} if status is None else {"message": "last", "status": status}
    make_master(
        {"upgrade": [{"message": "first", "wait": True}, {"message": "second", "wait": True}, last]}
    )
    done = shell("-e", "upgrade")
    assert (done.returncode, done.stdout) == (code, "first\nsecond\nlast\n")


def test_one_failure_does_not_stop_the_others_but_decides(make_master, shell):
    make_master({"good": [{"message": "good", "status": "ok"}]})
    done = shell("-e", "bogus; good")
    assert (done.returncode, done.stdout) == (1, 'Unrecognized command: "bogus"\ngood\n')


def test_lines_of_an_upgrade_are_printed_as_they_come(make_master, directory):
    go_on = threading.Event()

    def upgrade(connection, request):
        master.send(connection, request, {"message": "started", "wait": True})
        assert go_on.wait(DEADLINE)
        master.send(connection, request, {"message": "done", "status": "ok"})

    master = make_master({"upgrade": upgrade})
    with subprocess.Popen(
        [programs.program("einhornsh"), "-e", "upgrade"],
        text=True,
        stdout=subprocess.PIPE,
        env=environment(directory),
    ) as process:
        assert process.stdout.readline() == "started\n"
        assert process.poll() is None
        go_on.set()
        assert process.stdout.read() == "done\n"
        assert process.wait(DEADLINE) == 0


def test_json_prints_every_reply_as_one_line(make_master, shell):
    make_master(
        {"upgrade": [{"message": "a\n100%", "wait": True}, {"message": "b", "status": "failed"}]}
    )
    done = shell("--json", "-e", "upgrade")
    assert done.returncode == 1
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"message": "a\n100%", "request_id": 1, "wait": True},
        {"message": "b", "request_id": 1, "status": "failed"},
    ]


def test_a_master_that_vanishes_in_the_middle_is_an_error(make_master, shell):
    def upgrade(connection, request):
        master.send(connection, request, {"message": "started", "wait": True})
        connection.shutdown(socket.SHUT_RDWR)

    master = make_master({"upgrade": upgrade})
    done = shell("-e", "upgrade; help")
    assert (done.returncode, done.stdout) == (1, "started\n")
    assert "upgrade: wait for a reply: the master closed the connection" in done.stderr
    assert master.commands() == ["upgrade"]


def test_a_master_that_was_replaced_in_between_is_called_again(make_master, directory):
    master = make_master({"state": [{"message": "here", "status": "ok"}]})
    with subprocess.Popen(
        [programs.program("einhornsh")],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(directory),
    ) as process:
        for _ in range(2):
            process.stdin.write("state\n")
            process.stdin.flush()
            assert process.stdout.readline() == "here\n"
            master.hang_up()
        process.stdin.close()
        assert process.wait(DEADLINE) == 0


def test_timeout_bounds_a_stalled_master(make_master, shell):
    make_master({"upgrade": [{"message": "started", "wait": True}]})
    done = shell("--timeout", "0.2", "-e", "upgrade")
    assert (done.returncode, done.stdout) == (1, "started\n")
    assert done.stderr == "einhornsh: upgrade: no answer from the master within 0.2 s\n"


@pytest.mark.parametrize(
    "command, code, said",
    [
        ("upgrade", 130, "Detached; the upgrade goes on.\n"),
        ("upgrade_fleet", 130, "Detached; the upgrade goes on.\n"),
        ("rollback", 130, "Detached; the rollback goes on.\n"),
        ("upgrade; state", 0, ""),
    ],
)
def test_interrupt_detaches_from_what_goes_on(make_master, directory, command, code, said):
    asked = threading.Event()
    going_on = [{"message": "started", "wait": True}]
    master = make_master({name: going_on for name in ("upgrade", "upgrade_fleet", "rollback")})
    if command == "upgrade; state":  # it is over, and the next command never answers
        master.answers["upgrade"] = [*going_on, {"message": "done", "status": "ok"}]
        master.answers["state"] = lambda *_: asked.set()
    with subprocess.Popen(
        [programs.program("einhornsh"), "-e", command],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(directory),
    ) as process:
        assert process.stdout.readline() == "started\n"
        if command == "upgrade; state":
            assert process.stdout.readline() == "done\n"
            assert asked.wait(DEADLINE)
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == code
        assert process.stderr.read() == said


def test_an_answer_that_is_none(make_master, shell):
    make_master({"state": lambda connection, _: connection.sendall(b"HTTP/1.1 400 Bad Request\n")})
    done = shell("-e", "state")
    assert done.returncode == 1
    assert "can't be understood" in done.stderr


def test_output_that_can_not_be_written_is_an_error(make_master, directory):
    make_master({"state": [{"message": "text", "status": "ok"}]})
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [programs.program("einhornsh"), "-e", "state"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            env=environment(directory),
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


# --- wrong uses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["-h"], ["--help"]])
def test_help_is_on_standard_error(shell, arguments):
    done = shell(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Usage: einhornsh [options] [cmd_name]\n")


def test_version(shell):
    done = shell("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"einhornsh \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("arguments", [["a", "b"], ["-c", "a", "b"]])
def test_two_names_are_wrong_usage(shell, arguments):
    done = shell(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert 'more than one name: "a" and "b"' in done.stderr
    assert "Usage: einhornsh" in done.stderr


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["-z"], "-z: unknown option"),
        (["--bogus"], "--bogus: unknown option"),
        (["-e"], "-e: a value is missing"),
        (["--socket-path"], "--socket-path: a value is missing"),
        (["--json=1"], "--json=1: this option takes no value"),
        (["--timeout", "soon"], "--timeout soon: it takes seconds, more than 0"),
        (["--timeout", "0"], "--timeout 0: it takes seconds, more than 0"),
    ],
)
def test_wrong_options_are_told_in_one_line(shell, arguments, complaint):
    done = shell(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"einhornsh: {complaint}\n")


@pytest.mark.parametrize("mode", ["execute", "pipe"])
def test_bad_quoting_runs_nothing_of_the_line(make_master, shell, mode):
    master = make_master()
    text = "help; signal 'USR1"
    done = shell("-e", text) if mode == "execute" else shell(stdin=text)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "einhornsh: unmatched quote:  signal 'USR1\n"
    assert master.commands() == []


# --- no master ----------------------------------------------------------------------------------

NO_MASTER = "Could not connect to Einhorn master process:\n\n  {reason} ({path})\n\nHINT: "


def test_without_a_master_the_living_ones_are_named(make_master, shell, directory):
    make_master(name="web")
    make_master(name="jobs")
    dead = FakeMaster(directory / "einhorn-dead.sock")
    dead.stop()
    done = shell("-e", "state")
    path = directory / "einhorn.sock"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(NO_MASTER.format(reason="No such file or directory", path=path))
    assert "\n    einhornsh -c jobs\n    einhornsh -c web\n" in done.stderr
    assert "dead" not in done.stderr


def test_a_socket_that_nobody_listens_on(shell, directory):
    FakeMaster(directory / "einhorn.sock").stop()
    done = shell("-e", "state")
    assert done.returncode == 1
    assert done.stderr.startswith(
        NO_MASTER.format(reason="Connection refused", path=directory / "einhorn.sock")
    )


def test_a_file_that_is_no_socket(shell, directory):
    (directory / "file").write_text("x")
    done = shell("-d", "file", "-e", "state")
    assert done.returncode == 1
    assert done.stderr.startswith(NO_MASTER.format(reason="Not a socket", path="file"))


def test_a_path_that_is_too_long(shell):
    done = shell("-d", "x" * 120, "-e", "state")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "Could not connect to Einhorn master process:\n\n  The path is too"
        " long for a socket: 120 bytes, at most 108 (xxx"
    )


@pytest.mark.root
def test_a_socket_of_somebody_else(make_master, directory):
    master = make_master()
    os.chmod(master.path, 0o600)
    os.chmod(directory, 0o755)
    done = subprocess.run(
        [programs.program("einhornsh"), "-d", master.path, "-e", "state"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        user=65534,
        group=65534,
        extra_groups=[],
        env=environment("/tmp"),
        cwd="/",
    )
    assert done.returncode == 1
    assert done.stderr.startswith(NO_MASTER.format(reason="Permission denied", path=master.path))


# --- piped --------------------------------------------------------------------------------------


def test_piped_commands_are_lines(make_master, shell):
    master = make_master(
        {"a": [{"message": "A", "status": "ok"}], "b": [{"message": "B", "status": "ok"}]}
    )
    done = shell(stdin="a\n\n  ; \nb x; a\nb")
    assert (done.returncode, done.stdout, done.stderr) == (0, "A\nB\nA\nB\n", "")
    assert [request["id"] for request in master.requests] == [1, 2, 3, 4]


@pytest.mark.parametrize("word", ["quit", "exit"])
def test_quit_ends_the_pipe(make_master, shell, word):
    master = make_master({"a": [{"message": "A", "status": "ok"}]})
    done = shell(stdin=f"a\n{word}\na\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "A\n", "")
    assert master.commands() == ["a"]


def test_piped_failures_decide_the_exit_status(make_master, shell):
    make_master({"a": [{"message": "A", "status": "ok"}]})
    assert shell(stdin="bogus\na\n").returncode == 1


def test_a_line_without_end_is_refused(make_master, shell):
    done = shell(stdin="x" * 100_000) if make_master() else None
    assert done.returncode == 1
    assert "longer than 65536 bytes" in done.stderr


def test_closed_standard_descriptors_do_no_harm(make_master, directory):
    master = make_master({"a": [{"message": "A", "status": "ok"}]})
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -e a <&-', programs.program("einhornsh")],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env=environment(directory),
    )
    assert (done.returncode, done.stdout) == (0, "A\n")
    assert master.commands() == ["a"]


# --- at a terminal ------------------------------------------------------------------------------


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


ANSWERS = {
    "state": [{"message": "the state", "status": "ok"}],
    "signal": [{"message": "signalled", "status": "ok"}],
    "upgrade": [{"message": "started", "wait": True}],
}


def test_banner_and_goodbye(make_master, terminal):
    master = make_master(ANSWERS)
    shell = terminal()
    assert shell.expect("Enter 'help'") == "Welcome, somebody! This is a test.\n"
    assert shell.expect('Type "quit"') == " if you're not sure what to do.\n\n"
    shell.prompt()
    shell.type("quit\r")
    shell.expect("Goodbye!")
    assert shell.wait() == 0
    assert termios.tcgetattr(shell.slave) == shell.before
    assert master.requests == [{"command": "ehlo", "user": "tester"}]


def test_commands_at_the_prompt_and_its_end(make_master, terminal):
    make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    shell.type("bogus; state\r")
    shell.expect('Unrecognized command: "bogus"')
    shell.expect("the state")
    shell.prompt()
    shell.type("signal 'USR1\r")
    shell.expect("unmatched quote")
    shell.prompt()
    shell.type("\x04")
    assert shell.wait() == 0


def test_tab_completes_commands_and_arguments(make_master, terminal):
    master = make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    shell.type("sta\t")
    shell.expect("state ")
    shell.type("\t")
    shell.expect("json ")
    shell.type("\r")
    shell.expect("the state")
    shell.prompt()
    shell.type("sig\tus\t")
    shell.expect("signal us")
    shell.expect("USR")
    shell.type("\t")
    shell.expect("USR1  USR2")
    shell.expect("> signal USR")
    shell.type("2\r")
    shell.expect("signalled")
    shell.prompt()
    shell.type("up\t\t")
    shell.expect("upgrade        upgrade_fleet")
    shell.type("_\t")
    shell.expect("_fleet ")
    shell.type("-\t")
    shell.expect("--no-rollback ")
    assert [
        (request["command"], request["args"]) for request in master.requests if "id" in request
    ] == [("state", ["json"]), ("signal", ["USR2"])]


def test_completion_without_a_master_offers_the_shells_own(make_master, terminal):
    master = make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    master.stop()
    os.unlink(master.path)
    shell.type("qu\t")
    shell.expect("quit ")
    shell.type("\r")
    shell.expect("Goodbye!")
    assert shell.wait() == 0
    FakeMaster.__init__(master, master.path)  # the fixture stops it again


def test_history_is_kept_for_the_next_session(make_master, terminal, directory):
    master = make_master(ANSWERS)
    first = terminal()
    first.prompt()
    first.type("state\r")
    first.expect("the state")
    first.prompt()
    first.type("\x1b[A\r")
    first.expect("the state")
    first.prompt()
    first.type("quit\r")
    assert first.wait() == 0
    kept = directory / ".einhornsh_history"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    second = terminal()
    second.prompt()
    second.type("\x1b[A\x1b[A\r")
    second.expect("the state")
    assert master.commands().count("state") == 3


def test_history_is_bounded(make_master, terminal, directory):
    make_master(ANSWERS)
    kept = directory / ".einhornsh_history"
    kept.write_text("_HiStOrY_V2_\n" + "".join(f"old\\040{number}\n" for number in range(3000)))
    shell = terminal()
    shell.prompt()
    shell.type("state\r")
    shell.expect("the state")
    lines = kept.read_text().splitlines()
    assert len(lines) <= 1001
    assert lines[-1] == "state"


def test_a_foreign_history_file_is_left_alone(make_master, terminal, directory):
    make_master(ANSWERS)
    kept = directory / ".einhornsh_history"
    kept.write_text("somebody else's\n")
    shell = terminal()
    shell.prompt()
    shell.type("state\r")
    shell.expect("the state")
    assert kept.read_text() == "somebody else's\n"


@pytest.mark.parametrize("where", ["prompt", "half a line", "command"])
def test_control_c_leaves_quietly(make_master, terminal, where):
    make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    if where == "half a line":
        shell.type("sta")
        shell.expect("sta")
    elif where == "command":
        shell.type("upgrade\r")
        shell.expect("started")
    shell.type("\x03")
    assert shell.wait() == (130 if where == "command" else 0)
    assert termios.tcgetattr(shell.slave) == shell.before


def test_control_z_stops_it_and_it_comes_back(make_master, terminal):
    make_master(ANSWERS)
    program = programs.program("einhornsh")
    jobs = terminal(
        command=[
            "/bin/bash",
            "--norc",
            "--noprofile",
            "-mc",
            f"{program}; stty -a; fg >/dev/null; echo left: $?",
        ]
    )
    jobs.prompt()
    jobs.type("sta")
    jobs.expect("sta")
    jobs.type("\x1a")
    shown = jobs.expect("extproc")
    assert " icanon " in shown and " echo " in shown
    jobs.expect("> sta")
    wait_until(lambda: not termios.tcgetattr(jobs.slave)[3] & termios.ICANON, DEADLINE)
    jobs.type("te; quit\r")
    jobs.expect("the state")
    jobs.expect("Goodbye!")
    jobs.expect("left: 0")
    assert jobs.wait() == 0


def test_a_signal_that_ends_it_gives_the_terminal_back(make_master, terminal):
    make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    shell.process.send_signal(signal.SIGTERM)
    assert shell.wait() == -signal.SIGTERM
    assert termios.tcgetattr(shell.slave) == shell.before


def test_a_new_window_size_disturbs_nothing(make_master, terminal):
    make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    shell.type("sta")
    shell.expect("sta")
    shell.resize(40)
    shell.process.send_signal(signal.SIGWINCH)
    shell.type("te\r")
    shell.expect("the state")


def test_a_replaced_master_is_called_again(make_master, terminal):
    master = make_master(ANSWERS)
    shell = terminal()
    shell.prompt()
    master.hang_up()
    shell.type("state\r")
    shell.expect("the state")
    shell.prompt()


def test_a_lost_command_does_not_end_the_prompt(make_master, terminal):
    make_master({**ANSWERS, "die": lambda connection, _: connection.shutdown(socket.SHUT_RDWR)})
    shell = terminal()
    shell.prompt()
    shell.type("die\r")
    shell.expect("the master closed the connection")
    shell.prompt()
    shell.type("state\r")
    shell.expect("the state")


def test_messages_can_not_drive_the_terminal(make_master, terminal):
    make_master({"state": [{"message": "a\x1b]0;title\x07b", "status": "ok"}]})
    shell = terminal("-e", "state")
    shell.expect("a\\x1b]0;title\\x07b\n")
    assert shell.wait() == 0


def test_execute_at_a_terminal_shows_no_banner(make_master, terminal):
    master = make_master(ANSWERS)
    shell = terminal("-e", "state; quit")
    assert shell.expect("the state") == ""
    shell.expect("Goodbye!")
    assert shell.wait() == 0
    assert master.commands() == ["state"]


# --- the bar of an upgrade ----------------------------------------------------------------------


def state_message(ready, number=4, **upgrade):
    """What `state json` says in the middle of an upgrade from version 1 to version 2."""
    document = {
        "number": number,
        "version": 2,
        "upgrade": {"from": 1, "to": 2, "going_back": False, "failures": 0, **upgrade},
        "workers": [{"version": 2, "state": "ready"}] * ready
        + [{"version": 2, "state": "starting"}, {"version": 1, "state": "ready"}],
    }
    return [{"message": json.dumps(document)}]


class Upgrade:
    """An upgrade that says what the test wants, when it wants it."""

    def __init__(self, make_master):
        self.master = make_master({"upgrade": self.begin})

    def begin(self, connection, request):
        self.connection, self.request = connection, request
        self.say("started")

    def say(self, message, ready=None, **state):
        if ready is not None:
            self.master.answers["state"] = state_message(ready, **state)
        self.master.send(self.connection, self.request, {"message": message, "wait": True})

    def end(self, message, status):
        self.master.send(self.connection, self.request, {"message": message, "status": status})


def bar(filled, cells, words):
    return "[" + "#" * filled + "-" * (cells - filled) + "] " + words


def test_an_upgrade_draws_a_bar_below_what_it_says(make_master, terminal):
    upgrade = Upgrade(make_master)
    upgrade.master.answers["state"] = state_message(0)
    shell = terminal("-e", "upgrade")
    shell.expect("started\n")
    shell.expect(bar(0, 40, "0/4 workers of version 2 ready"))
    upgrade.say("launched", ready=2)
    shell.expect("launched\n")
    shell.expect(bar(20, 40, "2/4 workers of version 2 ready"))
    assert shell.screen() == ["started", "launched", bar(20, 40, "2/4 workers of version 2 ready")]
    shell.resize(51)  # the next time it is drawn, it fits into the new window
    upgrade.say("died", ready=3, failures=1)
    shell.expect("died\n")
    shell.expect("[###--] 3/4 workers of version 2 ready, 1 failed")
    upgrade.end("Upgrade failed; rolled back to version 1", "failed")
    shell.expect("Upgrade failed; rolled back to version 1\n")
    assert shell.wait() == 1
    assert shell.screen() == [
        "started",
        "launched",
        "died",
        "Upgrade failed; rolled back to version 1",
        "",
    ]


def test_the_bar_moves_while_nothing_is_said(make_master, terminal):
    upgrade = Upgrade(make_master)
    upgrade.master.answers["state"] = state_message(1)
    shell = terminal("-e", "upgrade")
    shell.expect("1/4 workers of version 2 ready")
    upgrade.master.answers["state"] = state_message(3, going_back=True)
    shell.expect("3/4 workers of version 2 ready (rolling back)")
    assert "id" not in upgrade.master.requests[-1]
    upgrade.end("done", "ok")
    assert shell.wait() == 0


@pytest.mark.parametrize("arguments, env", [([], {"TERM": "dumb"}), (["--json"], {})])
def test_no_bar_where_lines_are_wanted(make_master, terminal, arguments, env):
    upgrade = Upgrade(make_master)
    upgrade.master.answers["state"] = state_message(1)
    shell = terminal(*arguments, "-e", "upgrade", env=env)
    shell.expect("started")
    upgrade.say("going on")
    shell.expect("going on")
    upgrade.end("all done", "ok")
    shell.expect("all done")
    assert shell.wait() == 0
    assert b"\x1b" not in shell.raw and b"\r" not in shell.raw.replace(b"\r\n", b"")
    assert upgrade.master.commands() == ["upgrade"]


@pytest.mark.parametrize(
    "state",
    [
        [{"message": "---\n:state:\n  :children: {}\n"}],
        [{"message": '{"number": "many"}'}],
        lambda connection, _: connection.shutdown(socket.SHUT_RDWR),
    ],
)
def test_a_master_that_does_not_tell_gets_no_bar(make_master, terminal, state):
    upgrade = Upgrade(make_master)
    upgrade.master.answers["state"] = state
    shell = terminal("-e", "upgrade")
    shell.expect("started")
    wait_until(lambda: "state" in upgrade.master.commands(), DEADLINE)
    upgrade.say("going on")
    shell.expect("going on")
    upgrade.end("all done", "ok")
    shell.expect("all done")
    assert shell.wait() == 0
    assert shell.screen() == ["started", "going on", "all done", ""]
    assert upgrade.master.commands().count("state") <= 3


def test_control_c_clears_the_bar_and_detaches(make_master, terminal):
    upgrade = Upgrade(make_master)
    upgrade.master.answers["state"] = state_message(1)
    # A shell around it: the end of what was started first would hang up the terminal.
    command = f"trap : INT; {programs.program('einhornsh')} -e upgrade; echo left: $?; read"
    shell = terminal(command=["/bin/bash", "--norc", "--noprofile", "-c", command])
    shell.expect("1/4 workers of version 2 ready")
    shell.type("\x03")
    shell.expect("Detached; the upgrade goes on.\n")
    shell.expect("left: 130\n")
    assert shell.screen()[:2] == ["started", "Detached; the upgrade goes on."]
