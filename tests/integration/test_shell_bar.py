"""The bar that einhornsh draws below what an upgrade says."""

import json
import socket

import pytest
from harness import programs
from harness.fake_master import DEADLINE
from harness.waiting import wait_until

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
