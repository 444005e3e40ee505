"""einhornsh at a terminal, against a master made of Python."""

import os
import signal
import socket
import stat
import termios

import pytest
from harness import programs
from harness.fake_master import DEADLINE, FakeMaster
from harness.waiting import wait_until

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
