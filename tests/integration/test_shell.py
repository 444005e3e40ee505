"""einhornsh without a terminal, against a master made of Python: every mode, every way to fail."""

import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest
from harness import programs
from harness.fake_master import DEADLINE, FakeMaster
from harness.shell import environment

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
