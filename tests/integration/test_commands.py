"""Every command of the command socket, in JSON and in YAML, with the texts tools match on."""

import json
import os
import re
import signal

import pytest
from harness import load_yaml, wait_until
from harness.waiting import stays_true
from harness.wire import Closed, decode, encode, unescape

LANGUAGES = pytest.mark.parametrize("language", ["json", "yaml"])


@pytest.fixture
def pool(make_pool):
    made = make_pool(
        ["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"],
        ["http_worker", "--events=events", "--on=USR1:note", "--on=HUP:note"],
        name="shop",
    )
    made.wait_ready(2)
    # Up by the timer, but perhaps without handlers yet.
    wait_until(lambda: (made.dir / "events").exists() and events(made).count("start ") == 2)
    return made


def events(pool):
    return (pool.dir / "events").read_text()


# --- the protocol ---------------------------------------------------------------------------------


def test_reply_is_in_the_language_of_the_request(pool):
    with pool.client() as client:
        client.send_line(encode({"command": "ehlo", "user": "me", "id": 1}, "json"))
        line = client.read_line()
        assert json.loads(line)["request_id"] == 1
        client.send_line(encode({"command": "ehlo", "user": "me", "id": 2}, "yaml"))
        line = client.read_line().decode()
        assert not line.startswith("{")
        document = load_yaml(unescape(line))
        assert document["request_id"] == 2 and document["message"].startswith("Welcome, me!")


@pytest.mark.parametrize(
    "line",
    [
        b'{"command":"ehlo","user":"me","id":7}',
        b'{"command": "ehlo", "user": "me", "id": 7}\r',
        b'{"command":"ehlo","user":"me","id":7} ',
        b"{command: ehlo, user: me, id: 7}",
        b"--- {command: ehlo, user: me, id: 7} ",
        b"---%0Acommand: ehlo%0Auser: me%0Aid: 7%0A",
        b"---%0Acommand: ehlo%0Auser: me%0Aid: 7%0A\r",
        b"command: ehlo%0Auser: me%0Aid: 7",
        b"--- %0Acommand: ehlo%0Auser: me%0Aid: 7%0A...%0A",
        b"{%22command%22:%20%22ehlo%22,%20%22user%22:%20%22me%22,%20%22id%22:%207}",
        b"%7B%22command%22%3A%22ehlo%22%2C%22user%22%3A%22me%22%2C%22id%22%3A7%7D",
    ],
)
def test_forms_of_a_request(pool, line):
    with pool.client() as client:
        client.send_line(line + b"\n")
        reply = decode(client.read_line())
    assert reply["request_id"] == 7
    assert reply["message"].startswith("Welcome, me!")
    assert "wait" not in reply


@LANGUAGES
@pytest.mark.parametrize("number", [0, 1, -5, 10**15, "text", "0", 1.5, True, [1, "a"], {"a": 1}])
def test_id_of_any_kind_comes_back(pool, language, number):
    reply = pool.request("ehlo", user="me", id=number, language=language)
    assert reply["request_id"] == number
    assert isinstance(reply["request_id"], type(number))


@LANGUAGES
def test_without_id_there_is_only_the_message(pool, language):
    reply = pool.request("ehlo", user="me", language=language)
    assert set(reply) - {"status"} == {"message"}


def test_go_einhorn_sends_request_id_instead(pool):
    reply = pool.request("ehlo", user="me", request_id=3)
    assert "request_id" not in reply and "wait" not in reply


def test_pipelined_lines_are_answered_in_order(pool):
    with pool.client() as client:
        client.send_line(
            b"".join(
                encode({"command": "ehlo", "user": f"u{i}", "id": i}, ["json", "yaml"][i % 2])
                for i in range(40)
            )
        )
        for i in range(40):
            reply = decode(client.read_line())
            assert reply["request_id"] == i and f"u{i}" in reply["message"]


def test_empty_lines_do_nothing(pool):
    with pool.client() as client:
        client.send_line(b"\n\r\n\n" + encode({"command": "ehlo", "user": "me", "id": 1}, "json"))
        assert decode(client.read_line())["request_id"] == 1


def test_a_line_without_its_newline_is_not_executed(pool):
    with pool.client() as client:
        client.send_line(b'{"command":"inc"}')
    with pool.client() as client:
        client.send_line(b'{"command":"inc"')
    assert pool.command("ehlo", user="me")
    stays_true(lambda: pool.state_json()["number"] == 2, 0.2)


def test_a_line_in_many_pieces(pool):
    with pool.client() as client:
        for byte in encode({"command": "ehlo", "user": "piece", "id": 1}, "yaml"):
            client.send_line(bytes([byte]))
        assert "piece" in decode(client.read_line())["message"]


@LANGUAGES
def test_texts_of_every_kind(pool, language):
    for user in ("Jürgen 日本 😀", "100% sure", "%0A", "a\nb", 'quo"te', "it's", ": - #", "%", "+"):
        reply = pool.request("ehlo", user=user, id=1, language=language)
        assert f"Welcome, {user}!" in reply["message"]
    assert pool.exit_code is None


def test_replies_escape_percent_and_newline_only(pool):
    with pool.client() as client:
        client.send_line(encode({"command": "ehlo", "user": "100%+ü/"}, "yaml"))
        line = client.read_line().decode()
    assert "100%25+ü/" in line
    assert re.findall(r"%(?!25|0A)", line) == []


# --- what is wrong with a request -----------------------------------------------------------------


@LANGUAGES
def test_no_command(pool, language):
    with pool.client() as client:
        reply = client.request({"id": 1}, language)
    assert reply["message"] == 'No "command" parameter provided; not sure what you want me to do.'


@LANGUAGES
def test_unknown_command(pool, language):
    message = pool.command("nonsense", language=language)
    assert message.startswith('Unrecognized command: "nonsense"\n\n')
    assert re.search(r"^inc: ", message, re.MULTILINE)


@pytest.mark.parametrize(
    "line", [b"hello", b"[1,2]", b"42", b"{", b'{"command":', b"--- [", b"null"]
)
def test_what_is_no_map(pool, line):
    with pool.client() as client:
        client.send_line(line + b"\n")
        assert decode(client.read_line())["message"] == "Could not parse command"


@pytest.mark.parametrize("command", ["set_workers", "signal", "die", "config", "stop_worker"])
@pytest.mark.parametrize(
    "fields, text",
    [
        ({}, "No args provided"),
        ({"args": "USR1"}, "Args must be an array"),
        ({"args": [3]}, "Argument is a Integer, not a string: 3"),
    ],
)
def test_wrong_args(pool, command, fields, text):
    with pool.client() as client:
        assert client.request({"command": command, "id": 1, **fields})["message"] == text
    assert pool.exit_code is None and pool.state_json()["number"] == 2


# --- each command ---------------------------------------------------------------------------------


@LANGUAGES
def test_ehlo(pool, language):
    first, second = pool.command("ehlo", user="gdb", language=language).splitlines()
    assert (
        first
        == f"Welcome, gdb! You are speaking to Einhorn Master Process {pool.process.pid} (shop)."
    )
    assert re.fullmatch(r"This is Einhorn [\d.]+\.", second)


def test_ehlo_without_a_name(make_pool):
    nameless = make_pool(["-m", "0.05"])
    message = nameless.command("ehlo", user="gdb")
    assert message.startswith(
        f"Welcome, gdb! You are speaking to Einhorn Master Process {nameless.process.pid}."
    )


@LANGUAGES
def test_help(pool, language):
    message = pool.command("help", language=language)
    assert message.startswith(
        "You are speaking to the Einhorn command socket. You can run the following commands:"
    )
    for name in (
        "config",
        "dec",
        "die",
        "help",
        "inc",
        "louder",
        "quieter",
        "reload",
        "set_workers",
        "signal",
        "state",
        "status",
        "stop_worker",
        "upgrade",
        "upgrade_fleet",
    ):
        assert re.search(rf"^{name}: \S", message, re.MULTILINE), name
    assert "worker:ack" not in message


# --- stop_worker ----------------------------------------------------------------------------------


@LANGUAGES
@pytest.mark.parametrize("by", ["pid", "index", "pid=", "index="])
def test_stop_worker(pool, by, language):
    pool.wait_ready(2)
    first, second = sorted(pool.workers(), key=lambda w: w["index"])
    given = str(second[by.rstrip("=")])
    assert pool.command("stop_worker", (by if by.endswith("=") else "") + given, language=language) == (
        f"Worker {second['pid']} (index 1) is being replaced: another one starts, and when that is up this one is "
        "told to stop"
    )
    pool.wait_state(
        lambda s: len(s["workers"]) == 2
        and all(w["pid"] != second["pid"] and w["state"] == "ready" for w in s["workers"])
    )
    assert first["pid"] in pool.pids()
    log = pool.log()
    started = log.index("Recycling worker")
    assert started < log.index("Replacements are ready; stopping", started)


def test_stop_worker_waits_for_its_turn(make_pool):
    pool = make_pool(["-n", "2", "-m", "manual"], ["http_worker", "--options-file=options"], start=False)
    (pool.dir / "options").write_text("--ack=path\n")
    pool.start()
    pool.wait_ready(2)
    (pool.dir / "options").write_text("\n")  # who comes now never says that it is up
    first, second = pool.pids()
    pool.command("stop_worker", str(first))
    assert "when its turn comes" in pool.command("stop_worker", str(second))
    assert pool.command("stop_worker", str(second)).endswith(
        "is to be replaced already: somebody asked for it"
    )
    starting = pool.wait_state(lambda s: len(s["workers"]) == 3)["workers"]
    fresh = next(w for w in starting if w["pid"] not in (first, second))
    assert "was not up yet" in pool.command("stop_worker", str(fresh["pid"]))
    pool.wait_state(lambda s: fresh["pid"] not in [w["pid"] for w in s["workers"]])
    assert {first, second} <= set(pool.pids())
    pool.kill_master()
    assert "to be replaced already" in pool.command("stop_worker", str(first))


@pytest.mark.parametrize(
    "args, text",
    [
        (["999999"], "No worker has the pid or index 999999: status lists them"),
        (["pid=0"], "No worker has the pid 0: status lists them"),
        (["index=7"], "No worker has the index 7: status lists them"),
        (["-1"], "Invalid worker: '-1': give its pid or its index, a number"),
        (["me"], "Invalid worker: 'me': give its pid or its index, a number"),
        ([""], "Invalid worker: '': give its pid or its index, a number"),
        (["slot=1"], "Invalid worker: 'slot=1': give its pid or its index, a number"),
        ([], "No args provided"),
        (["0", "1", "2"], "stop_worker takes one argument: the pid or the index of a worker"),
        (["0", "1"], "stop_worker takes one argument: the pid or the index of a worker"),
    ],
)
def test_stop_worker_refuses(pool, args, text):
    reply = pool.request("stop_worker", *args, id=1)
    assert (reply["message"], reply["status"]) == (text, "error")


@LANGUAGES
def test_inc_and_dec(pool, language):
    assert pool.command("inc", language=language) == "Incrementing number of workers from 2 -> 3"
    pool.wait_ready(3)
    assert pool.command("dec", language=language) == "Decrementing number of workers from 3 -> 2"
    pool.wait_ready(2)
    assert pool.command("dec", language=language) == "Decrementing number of workers from 2 -> 1"
    message = pool.command("dec", language=language)
    assert message.startswith("Can't decrease number of workers (already at 1).  Run kill ")
    assert message.endswith(" if you really want to kill einhorn.")
    assert str(pool.process.pid) in message
    pool.wait_ready(1)


@LANGUAGES
def test_set_workers(pool, language):
    assert pool.command("set_workers", "4", language=language) == (
        "Altering worker count, 2 -> 4. Will spin up additional workers."
    )
    pool.wait_ready(4)
    assert pool.command("set_workers", "1", language=language) == (
        "Altering worker count, 4 -> 1. Will gracefully terminate workers."
    )
    pool.wait_ready(1)


@pytest.mark.parametrize("count", ["0", "-1", "abc", "1.5", "", "99999999999999", "3 "])
def test_set_workers_refuses(pool, count):
    reply = pool.request("set_workers", count, id=1)
    assert reply["message"].startswith(f"Invalid count: '{count}'.")
    assert pool.state_json()["number"] == 2


def test_set_workers_above_a_thousand(make_pool):
    """Only the number is looked at: --max-unacked keeps it from really starting them."""
    pool = make_pool(["-n", "1", "-m", "manual", "--max-unacked", "1"])
    pool.wait_state(lambda s: s["workers"])
    assert pool.command("set_workers", "1500").startswith("Altering worker count, 1 -> 1500.")
    assert pool.state_json()["number"] == 1500
    assert len(pool.workers()) <= 2


def test_quieter_and_louder(pool):
    assert pool.command("quieter") == "Verbosity set to 2"
    assert pool.command("quieter") == "Verbosity set to 2"
    mark = pool.log_size()
    pool.command("inc")
    pool.wait_ready(3)
    assert "Launched" not in pool.log(mark)
    assert pool.command("louder") == "Verbosity set to 1"
    assert pool.command("louder") == "Verbosity set to 0"
    mark = pool.log_size()
    assert pool.command("ehlo", user="x")
    pool.wait_log(r"\] DEBUG: ", since=mark)


def test_signal(pool):
    pids = pool.pids()
    message = pool.command("signal", "USR1")
    assert message.startswith("Successfully sent USR1s to 2 processes: [")
    assert sorted(int(n) for n in re.search(r"\[(.*)\]", message)[1].split(",")) == pids
    for pid in pids:
        wait_until(lambda p=pid: f"signal USR1 {p}" in events(pool))
    assert all(w["signaled"] == [] for w in pool.workers()), "on somebody's behalf: not recorded"


def test_signal_in_every_spelling(pool):
    message = pool.command("signal", "sigusr1", "HUP")
    assert "Successfully sent USR1s to 2" in message and "Successfully sent HUPs to 2" in message
    wait_until(lambda: events(pool).count("signal USR1") == events(pool).count("signal HUP") == 2)


def test_signal_refuses_all_if_one_is_wrong(pool):
    assert pool.command("signal", "USR1", "USR9") == 'Invalid signal: "USR9"'
    assert pool.command("signal", "") == 'Invalid signal: ""'
    assert "signal USR1" not in events(pool)


@pytest.mark.parametrize("args, seen", [([], "USR2"), (["TERM"], "TERM"), (["SIGHUP"], "HUP")])
def test_die(make_pool, args, seen):
    pool = make_pool(
        ["-n", "2", "-m", "0.05"], "http_worker --events=events --on=TERM:drain --on=HUP:drain"
    )
    pool.wait_ready(2)
    events_file = pool.dir / "events"  # up by the timer, but perhaps without handlers yet
    wait_until(lambda: events_file.exists() and events(pool).count("start ") == 2)
    with pool.client() as client:
        reply = client.request({"command": "die", "args": args, "id": 1})
    assert reply["message"].startswith("Einhorn is going down! ")
    assert pool.wait_exit() == 0
    assert events(pool).count(f"signal {seen} ") == 2
    pool.wait_gone()


def test_die_with_a_wrong_signal(pool):
    with pool.client() as client:
        assert (
            client.request({"command": "die", "args": ["NOPE"]})["message"]
            == 'Invalid signal: "NOPE"'
        )
    assert pool.exit_code is None


def test_config(pool):
    with pool.client() as client:
        message = client.request({"command": "config", "args": ["{seconds: 2}"], "id": 1})[
            "message"
        ]
    assert message.startswith("Successfully merged in config")


@pytest.mark.parametrize(
    "text", ["{nonsense: 1}", "{seconds: abc}", "{seconds: -1}", "[1]", "{", "", "{number: 0}"]
)
def test_config_refuses(pool, text):
    before = pool.state_json()
    message = pool.command("config", text)
    assert not message.startswith("Successfully")
    after = pool.state_json()
    assert after["number"] == before["number"] and after["version"] == before["version"]


def test_reload_keeps_workers(pool):
    before = pool.pids()
    assert pool.command("reload", id=1) == "Reloading, as commanded"
    assert pool.wait_state(lambda s: sorted(w["pid"] for w in s["workers"]) == before)
    assert pool.process.pid == pool.guard_pid


# --- workers' own messages ------------------------------------------------------------------------


@LANGUAGES
def test_ping(make_pool, language):
    pool = make_pool(["-m", "manual"], "http_worker --ack=path --ping=req-1")
    (entry,) = pool.wait_ready(1)
    state = pool.wait_state(lambda s: s["workers"][0]["pinged_request_id"] == "req-1")
    assert state["workers"][0]["pinged_at"]
    with pool.client() as client:
        client.send_line(encode({"command": "worker:ping", "pid": 1}, language))
        assert client.at_end(), "invalid, and still no reply"


@pytest.mark.parametrize(
    "line",
    [
        b'{"command":"worker:ping"}',
        b'{"command":"worker:ack"}',
        b'{"command":"worker:ack","id":4,"pid":1}',
    ],
)
def test_workers_messages_are_never_answered(pool, line):
    with pool.client() as client:
        client.send_line(line + b"\n")
        assert client.at_end()


# --- upgrades -------------------------------------------------------------------------------------


@LANGUAGES
def test_upgrade_tells_its_story(pool, language):
    old = pool.pids()
    with pool.client(timeout=20) as client:
        replies = client.conversation({"command": "upgrade", "id": 5}, language)
    assert all(r["request_id"] == 5 for r in replies)
    assert all(r["wait"] is True for r in replies[:-1]) and "wait" not in replies[-1]
    messages = [r["message"] for r in replies]
    assert messages[0] == "Upgrading smoothly, as commanded"
    assert messages[-1] == "Upgrade done"
    text = "\n".join(messages)
    assert "Starting smooth upgrade from version 0..." in text
    assert re.search(r"===> Launched \d+ \(index: \d+\)", text)
    assert re.search(r"Upgraded successfully to version 1 \(Einhorn [\d.]+\)\.", text)
    assert re.search(r"Sending USR2 to \[", text)
    assert not set(pool.pids()) & set(old) or pool.wait_ready(2)
    pool.wait_ready(2)
    assert all(w["version"] == 1 for w in pool.workers())


def test_upgrade_fleet(pool):
    with pool.client(timeout=20) as client:
        replies = client.conversation({"command": "upgrade_fleet", "id": 1})
    assert replies[0]["message"] == "Upgrading fleet, as commanded"
    assert replies[-1]["message"] == "Upgrade done"
    pool.wait_ready(2)
    assert pool.state_json()["version"] == 1


@LANGUAGES
def test_upgrade_without_id_gets_the_first_message_only(pool, language):
    with pool.client(timeout=3) as client:
        assert client.request({"command": "upgrade"}, language)["message"] == (
            "Upgrading smoothly, as commanded"
        )
        pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
        reply = client.request({"command": "ehlo", "user": "next", "id": 9}, language)
        assert reply["request_id"] == 9


def test_upgrade_twice_starts_over(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.5"])
    pool.wait_ready(2)
    with pool.client(timeout=20) as one, pool.client(timeout=20) as two:
        one.send_line(encode({"command": "upgrade", "id": 1}, "json"))
        while "===> Launched" not in decode(one.read_line())["message"]:
            pass  # the first upgrade is really under way
        replies = two.conversation({"command": "upgrade", "id": 2})
        assert replies[-1]["message"] == "Upgrade done"
        while True:
            reply = decode(one.read_line())
            if not reply.get("wait"):
                break
        assert reply["request_id"] == 1
    state = pool.wait_state(lambda s: not s["upgrading"])
    assert state["version"] == 2


def test_upgrade_runs_the_new_program(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0"],
        "http_worker --options-file=options",
        start=False,
    )
    (pool.dir / "options").write_text("--label=old\n")
    pool.start().wait_ready(2)
    from harness import http_get

    assert http_get(pool.address)["label"] == "old"
    (pool.dir / "options").write_text("--label=new\n")
    with pool.client(timeout=20) as client:
        client.conversation({"command": "upgrade", "id": 1})
    pool.wait_ready(2)
    assert http_get(pool.address)["label"] == "new"


# --- state ----------------------------------------------------------------------------------------

STATE_KEYS = [
    ":children",
    ":config",
    ":versions",
    ":version",
    ":sockets",
    ":orig_cmd",
    ":bind",
    ":bind_fds",
    ":bound_ports",
    ":cmd",
    ":script_name",
    ":respawn",
    ":upgrading",
    ":smooth_upgrade",
    ":reloading_for_upgrade",
    ":path",
    ":cmd_name",
    ":verbosity",
    ":generation",
    ":last_spinup",
    ":ack_mode",
    ":kill_children_on_exit",
    ":command_socket_as_fd",
    ":socket_path",
    ":pidfile",
    ":lockfile",
    ":consecutive_deaths_before_ack",
    ":last_upgraded",
    ":nice",
    ":reexec_commandline",
    ":drop_environment_variables",
    ":signal_timeout",
    ":preloaded",
]


@LANGUAGES
def test_state_in_upstreams_shape(pool, language):
    state = load_yaml(pool.command("state", id=1, language=language))[":state"]
    assert sorted(state[":children"]) == pool.pids()
    for child in state[":children"].values():
        assert child[":acked"] is True and child[":version"] == 0
        assert child[":signaled"] == set()
    assert state[":config"][":number"] == 2
    assert state[":version"] == 0 and state[":upgrading"] is False
    assert state[":cmd_name"] == "shop"
    assert state[":bound_ports"] == [int(pool.address.rsplit(":", 1)[1])]
    assert [key for key in STATE_KEYS if key not in state] == []
    assert [key for key in state if key in STATE_KEYS] == STATE_KEYS, "in upstream's order"


def test_state_shows_who_was_signalled(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05"], "http_worker --on=USR2:note")
    pool.wait_ready(2)
    pool.command("dec")
    pool.wait_state(lambda s: any(w["signaled"] == ["USR2"] for w in s["workers"]))
    message = pool.command("state", language="yaml")
    assert "!ruby/object:Set" in message
    children = load_yaml(message)[":state"][":children"].values()
    assert sorted(c[":signaled"] == {"USR2"} for c in children) == [False, True]


def test_status_is_one_screen_for_people(pool):
    text = pool.command("status")
    state = pool.state_json()
    assert len(text.splitlines()) <= 40
    for number in (state["guard"], state["master"], *(w["pid"] for w in state["workers"])):
        assert re.search(rf"\b{number}\b", text), number
    assert state["sockets"][0]["address"] in text
    assert "ready" in text


# --- peers ----------------------------------------------------------------------------------------


@pytest.mark.root
def test_other_users_may_not_command(make_pool):
    """Even with a socket that everybody may open: only root, the master's user, and workers."""
    pool = make_pool(["-n", "2", "-m", "0.05", "--socket-mode", "0666"])
    pool.wait_ready(2)
    os.chmod(pool.dir, 0o755)
    script = (
        "import socket,sys;s=socket.socket(socket.AF_UNIX);s.settimeout(5);s.connect(sys.argv[1]);"
        's.sendall(b\'{"command":"dec","id":1}\\n\');print(s.recv(9999).decode())'
    )
    import subprocess

    done = subprocess.run(
        ["/usr/bin/python3", "-c", script, str(pool.path("sock"))],
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert "Decrementing" not in done.stdout
    stays_true(lambda: pool.state_json()["number"] == 2, 0.2)


def test_closing_tells_nothing_wrong(pool):
    with pool.client() as client:
        client.send_line(encode({"command": "ehlo", "user": "me"}, "json"))
        client.read_line()
        client.socket.shutdown(1)
        with pytest.raises(Closed):
            client.read_line()
    os.kill(pool.pids()[0], signal.SIGKILL)
    pool.wait_ready(2)
