"""What programs made for Ruby's Einhorn see: its own YAML, its own client's way of talking, workers
in several languages, names, files and options."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys

import pytest
from harness import einhorn_command, program, wait_until, worker
from harness.wire import decode, unescape

RUBY = shutil.which("ruby")
needs_ruby = pytest.mark.skipif(RUBY is None, reason="needs Ruby")

# A client as Ruby's is: YAML in which only % and newline are escaped, and a reader that accepts
# nothing but sets, symbols and times.
CLIENT = r"""
require 'yaml'; require 'set'; require 'time'; require 'json'; require 'socket'
SAFE = {permitted_classes: [Set, Symbol, Time], aliases: true}
def send_message(socket, message)
  socket.write(YAML.dump(message).gsub('%', '%25').gsub("\n", '%0A') + "\n")
end
def receive_message(socket)
  YAML.safe_load(socket.readline.chomp.gsub('%0A', "\n").gsub('%25', '%'), **SAFE)
end
master = UNIXSocket.new(ARGV[0])
"""


def ruby(pool, script, *words):
    done = subprocess.run(
        [RUBY, "-e", CLIENT + script, str(pool.socket_path), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def pool(make_pool):
    made = make_pool(
        ["-n", "2", "-m", "0.05", "-b", "127.0.0.1:0,r", "-d", "@DIR@/shop.sock"],
        "http_worker --ack=path --ping=ünï --on=USR1:note --events=events",
        name="shop",
    )
    made.wait_ready(2)
    made.wait_state(lambda s: all(w["pinged_at"] for w in s["workers"]))
    return made


def title(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode().strip()


# --- state, read by Ruby --------------------------------------------------------------------------

STATE_SCRIPT = r"""
send_message(master, {'command' => 'state', 'id' => 1})
reply = receive_message(master)
document = YAML.safe_load(reply['message'], **SAFE)
state = document[:state]
classes = ->(map) { map.map { |key, value| [key.inspect, value.class.name] } }
pid, child = state[:children].first
puts JSON.generate(
  reply: reply.keys, document: classes.(document), state: classes.(state), child: classes.(child),
  config: classes.(state[:config]), nice: classes.(state[:nice]), ack: classes.(state[:ack_mode]),
  pid: pid.class.name, pids: state[:children].keys, version: state[:version],
  signaled: state[:children].values.map { |one| one[:signaled].to_a },
  ping: child[:pinged_request_id], type: child[:type].inspect, bind: state[:bind],
  spinup: child[:spinup_time].to_f, number: state[:config][:number],
  mode: state[:ack_mode][:type].inspect, cmd: state[:cmd], orig: state[:orig_cmd])
"""


@needs_ruby
def test_state_for_rubys_yaml(pool):
    seen = ruby(pool, STATE_SCRIPT)
    assert seen["reply"][0] == "message" and "request_id" in seen["reply"]
    assert seen["document"][0] == [":state", "Hash"]
    assert seen["pid"] == "Integer" and sorted(seen["pids"]) == pool.pids()
    assert seen["child"] == [
        [":type", "Symbol"],
        [":version", "Integer"],
        [":acked", "TrueClass"],
        [":signaled", "Set"],
        [":last_signaled_at", "NilClass"],
        [":index", "Integer"],
        [":spinup_time", "Time"],
        [":pinged_at", "Time"],
        [":pinged_request_id", "String"],
    ]
    assert seen["type"] == ":worker" and seen["ping"] == "ünï"
    classes = dict(seen["state"])
    wanted = {
        ":children": "Hash",
        ":config": "Hash",
        ":version": "Integer",
        ":orig_cmd": "Array",
        ":bind": "Array",
        ":bind_fds": "Array",
        ":bound_ports": "Array",
        ":cmd": "Array",
        ":respawn": "TrueClass",
        ":upgrading": "FalseClass",
        ":smooth_upgrade": "FalseClass",
        ":reloading_for_upgrade": "FalseClass",
        ":cmd_name": "String",
        ":verbosity": "Integer",
        ":generation": "Integer",
        ":last_spinup": "Time",
        ":ack_mode": "Hash",
        ":kill_children_on_exit": "FalseClass",
        ":command_socket_as_fd": "FalseClass",
        ":socket_path": "String",
        ":consecutive_deaths_before_ack": "Integer",
        ":last_upgraded": "NilClass",
        ":nice": "Hash",
        ":reexec_commandline": "NilClass",
        ":drop_environment_variables": "Array",
        ":signal_timeout": "NilClass",
        ":preloaded": "FalseClass",
    }
    assert {key: classes.get(key) for key in wanted} == wanted
    assert dict(seen["config"])[":number"] == "Integer" and seen["number"] == 2
    assert [":timeout", "Float"] in seen["ack"] and seen["mode"] == ":timer"
    assert [key for key, _ in seen["nice"]] == [":master", ":worker", ":renice_cmd"]
    assert seen["bind"] == [["127.0.0.1", 0, ["r"]]] or seen["bind"] == [["127.0.0.1", "0", ["r"]]]
    assert seen["orig"] == pool.worker_command


@needs_ruby
def test_state_of_workers_that_were_signalled_and_of_an_upgrade(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05"], "http_worker --on=USR2:note")
    pool.wait_ready(2)
    pool.command("upgrade", id=1)
    pool.wait_state(lambda s: s["version"] == 1 and not s["upgrading"])
    seen = ruby(pool, STATE_SCRIPT)
    assert sorted(seen["signaled"]) == [[], [], ["USR2"], ["USR2"]]
    assert dict(seen["state"])[":last_upgraded"] == "Time" and seen["version"] == 1


# --- an upgrade, asked for by Ruby ----------------------------------------------------------------

UPGRADE_SCRIPT = r"""
send_message(master, {'id' => ARGV[1].to_i, 'command' => ARGV[2], 'args' => []})
replies = [receive_message(master)]
replies << receive_message(master) while replies.last['wait']
send_message(master, {'command' => 'ehlo', 'user' => 'after', 'id' => 99})
replies << receive_message(master)
puts JSON.generate(replies)
"""


@needs_ruby
@pytest.mark.parametrize(
    "command, first, second",
    [
        (
            "upgrade",
            "Upgrading smoothly, as commanded",
            "Starting smooth upgrade from version 0...",
        ),
        (
            "upgrade_fleet",
            "Upgrading fleet, as commanded",
            "Starting fleet upgrade from version 0...",
        ),
    ],
)
def test_upgrade_as_rubys_shell_asks_for_it(pool, command, first, second):
    *replies, after = ruby(pool, UPGRADE_SCRIPT, "7", command)
    assert after["request_id"] == 99 and after["message"].startswith("Welcome, after!")
    assert all(r["request_id"] == 7 for r in replies)
    assert all(r["wait"] is True for r in replies[:-1]) and "wait" not in replies[-1]
    said = [r["message"] for r in replies]
    assert said[:2] == [first, second] and said[-1] == "Upgrade done"
    story = "\n".join(said)
    assert len(re.findall(r"^===> Launched \d+ \(index: \d+\)$", story, re.MULTILINE)) == 2
    assert re.search(r"^(Smooth upgrade: k|K)illing off \d old workers\.$", story, re.MULTILINE)
    assert re.search(r"^Sending USR2 to \[\d+(, \d+)*\]$", story, re.MULTILINE)
    assert re.fullmatch(r"Upgraded successfully to version 1 \(Einhorn [\d.]+\)\.", said[-2])


# --- requests as libraries write them -------------------------------------------------------------

INC = [
    pytest.param(b'{"command":"inc","id":"x"}\n', id="json"),
    pytest.param(b'{"id":"x", "command":"inc", "args":[]} \n', id="json-trailing-space"),
    pytest.param(b"{command: inc, id: x}\r\n", id="flow-crlf"),
    pytest.param(b"--- {command: inc, id: x} \n", id="flow-document"),
    pytest.param(b"---%0Acommand: inc%0Aid: x%0A\n", id="block"),
    pytest.param(b"---%0A:command: inc%0A:id: x%0A\n", id="symbols"),
    pytest.param(b"---%20%0Acommand:%20inc%0Aid:%20x%0A\n", id="everything-escaped"),
    pytest.param(b"%7B%22command%22%3A%22inc%22%2C%22id%22%3A%22x%22%7D\n", id="json-escaped"),
]


def test_every_spelling_does_the_same(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"])
    pool.wait_ready(1)
    for number, case in enumerate(INC, start=1):
        with pool.client() as client:
            client.send_line(case.values[0])
            reply = decode(client.read_line())
        text = f"Incrementing number of workers from {number} -> {number + 1}"
        assert reply["message"] == text and reply["request_id"] == "x", case.id
    pool.wait_ready(1 + len(INC))


def test_no_escapes_but_two_in_any_reply(pool):
    with pool.client() as client:
        for command in ("state", "status", "help", "ehlo"):
            client.send_line(f"{{command: {command}, user: 'ä+b %%%%41', id: é}}\n".encode())
            line = client.read_line().decode()
            assert re.findall(r"%(?!25|0A)", line) == []
            assert decode(line.encode())["request_id"] == "é"


def test_replies_are_documents_as_ruby_writes_them(pool):
    with pool.client() as client:
        client.send_line(b"{command: ehlo, user: me, id: 0}\n")
        text = unescape(client.read_line().decode())
    lines = text.splitlines()
    assert lines[:2] == ["---", "message: |"]
    assert lines[2].startswith("  Welcome, me! You are speaking to Einhorn Master Process ")
    assert lines[-1] == "request_id: 0"


@pytest.mark.parametrize("body", ["{}", '{"pid":"1"}', '{"pid":1,"id":5}', '{"pid":-1}'])
def test_a_workers_message_closes_without_an_answer(pool, body):
    for command in ("worker:ack", "worker:ping"):
        with pool.client() as client:
            fields = {"command": command, **json.loads(body)}
            client.send_line(json.dumps(fields).encode() + b"\n" + b'{"command":"ehlo"}\n')
            assert client.at_end()
    assert pool.exit_code is None


# --- workers in several languages -----------------------------------------------------------------

RUBY_WORKER = r"""
require 'socket'; require 'json'
exit 9 unless Process.ppid.to_s == ENV['EINHORN_MASTER_PID']
trap('USR2') { exit 0 }
message = JSON.generate({'command' => 'worker:ack', 'pid' => $$})
if ENV['EINHORN_SOCK_FD']
  master = UNIXSocket.for_fd(ENV['EINHORN_SOCK_FD'].to_i)
else
  master = UNIXSocket.open(ENV['EINHORN_SOCK_PATH'])
end
master.write(message + "\n")
sleep
"""
RUBY_YAML_WORKER = RUBY_WORKER.replace(
    "JSON.generate({'command' => 'worker:ack', 'pid' => $$})",
    "YAML.dump({'command' => 'worker:ack', 'pid' => $$}).gsub('%', '%25').gsub(\"\\n\", '%0A')",
).replace("require 'json'", "require 'yaml'")
PYTHON_WORKER = r"""
import json, os, signal, socket, sys
if os.getppid() != int(os.environ["EINHORN_MASTER_PID"]):
    sys.exit(9)
signal.signal(signal.SIGUSR2, lambda *_: sys.exit(0))
fd = os.environ.get("EINHORN_SOCK_FD")
if fd:
    master = socket.socket(fileno=int(fd))
else:
    master = socket.socket(socket.AF_UNIX)
    master.connect(os.environ["EINHORN_SOCK_PATH"])
master.sendall(json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\n")
while True:
    signal.pause()
"""
# A shell has no sockets; by path it lets a child speak for it.
SHELL_WORKER = r"""
[ "$PPID" = "$EINHORN_MASTER_PID" ] || exit 9
trap 'exit 0' USR2
message="{\"command\":\"worker:ack\",\"pid\":$$}"
if [ -n "$EINHORN_SOCK_FD" ]; then
  eval "printf '%s\n' \"\$message\" >&$EINHORN_SOCK_FD"
else
  MESSAGE=$message @PYTHON@ -c 'import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["EINHORN_SOCK_PATH"])
s.sendall(os.environ["MESSAGE"].encode() + b"\n")
s.recv(1)'
fi
while :; do sleep 1 & wait $!; done
"""
LANGUAGES = [
    pytest.param("ruby", RUBY_WORKER, id="ruby", marks=needs_ruby),
    pytest.param("ruby", RUBY_YAML_WORKER, id="ruby-yaml", marks=needs_ruby),
    pytest.param(sys.executable, PYTHON_WORKER, id="python"),
    pytest.param("/bin/sh", SHELL_WORKER, id="shell"),
]


@pytest.mark.parametrize("flags", [[], ["-g"]], ids=["by-path", "by-descriptor"])
@pytest.mark.parametrize("interpreter, text", LANGUAGES)
def test_workers_ack_by_hand(make_pool, tmp_path, interpreter, text, flags):
    script = tmp_path / "worker"
    script.write_text(text.replace("@PYTHON@", sys.executable))
    args = ["-n", "2", "-m", "manual", "-b", "127.0.0.1:0", *flags]
    pool = make_pool(args, [interpreter, str(script)])
    workers = pool.wait_ready(2, deadline=30)
    for entry in workers:
        pool.wait_log(f"Received a manual ACK from {entry['pid']}")
    assert pool.count_log("before it was ACKed") == 0
    with pool.client(timeout=30) as client:
        last = client.conversation({"command": "upgrade", "id": 1})[-1]
    assert last["message"] == "Upgrade done"
    pool.wait_state(lambda s: [w["version"] for w in s["workers"]] == [1, 1])
    assert pool.stop(signal.SIGINT) == 0


# --- names, files, options ------------------------------------------------------------------------


def test_names_in_ps_without_a_name(make_pool):
    pool = make_pool(["-m", "0.05"], ["http_worker", "--label=a b"])
    pool.wait_ready(1)
    state = pool.state_json()
    command = " ".join(pool.worker_command)
    assert title(state["guard"]) == f"einhorn: {command}"
    assert title(state["master"]).startswith("einhorn-master: ")
    pool.command("reload", id=1)
    after = pool.wait_state(lambda s: s["master"] != state["master"])
    assert title(after["master"]).startswith("einhorn-master: ")
    assert title(after["guard"]) == f"einhorn: {command}"


def test_a_name_beyond_ascii(make_pool):
    pool = make_pool(["-n", "1", "-m", "0.05"], "http_worker --ack=path", name="größe-日本")
    pool.wait_ready(1)
    for language in ("json", "yaml"):
        assert "(größe-日本)" in pool.command("ehlo", user="Zoë", language=language)
    assert title(pool.guard_pid).startswith("einhorn: ruby größe-日本")
    assert pool.state_json()["name"] == "größe-日本"
    done = subprocess.run(
        [program("einhornsh"), "-c", "größe-日本", "-e", "ehlo"],
        env={**pool.env},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0 and "größe-日本" in done.stdout


@pytest.mark.parametrize("name", [None, "web"])
def test_files_of_a_pool(make_pool, name):
    pool = make_pool(["-m", "0.05"], name=name)
    pool.wait_ready(1)
    stem = "einhorn" if name is None else f"einhorn-{name}"
    files = {suffix: pool.dir / f"{stem}.{suffix}" for suffix in ("sock", "lock", "pid")}
    assert files["pid"].read_bytes() == str(pool.process.pid).encode(), "no newline"
    assert stat.S_IMODE(files["pid"].stat().st_mode) == 0o644
    for command in ("upgrade", "reload"):
        before = pool.master_pid
        pool.command(command, id=1)
        pool.wait_state(lambda s: s["master"] != before and not s["upgrading"])
        assert files["pid"].read_bytes() == str(pool.process.pid).encode()
    assert pool.stop(signal.SIGINT) == 0
    assert [suffix for suffix, path in files.items() if path.exists()] == ["lock"]


def test_the_lock_that_was_left_behind_keeps_nobody_out(make_pool):
    pool = make_pool(["-m", "0.05"])
    pool.wait_ready(1)
    pool.stop(signal.SIGINT)
    assert pool.path("lock").exists()
    pool.start().wait_ready(1)


def test_children_are_told_when_einhorn_is_killed(make_pool):
    """-k: the stop signal, when nobody is left who could say anything else."""
    pool = make_pool(["-n", "2", "-m", "0.05", "-k"], "http_worker --events=events")
    workers = pool.wait_ready(2)
    os.kill(pool.process.pid, signal.SIGKILL)
    for entry in workers:
        wait_until(lambda: f"signal USR2 {entry['pid']}" in (pool.dir / "events").read_text())
    pool.wait_gone()


@pytest.mark.parametrize(
    "words, field, value",
    [
        (["-n3"], "number", 3),
        (["--numb", "3"], "number", 3),
        (["--number=3"], "number", 3),
        (["-qn3"], "number", 3),
        (["-mmanual"], "ack_mode", "manual"),
        (["--ack-mode=manual"], "ack_mode", "manual"),
        (["--command-n", "x"], "name", "x"),
        (["-cx"], "name", "x"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else str(v),
)
def test_options_in_rubys_forms(make_pool, words, field, value):
    pool = make_pool([*words, "-d", "@DIR@/s.sock"], "http_worker --ack=path")
    assert pool.state_json()[field] == value


@pytest.mark.parametrize(
    "words, status, out",
    [
        ([], 1, "## Usage"),
        (["-h"], 1, "## Usage"),
        (["--version"], 0, "0."),
        (["--upgrade-check", "--", "/bin/true"], 0, ""),
        (["--no-such-option"], 1, ""),
        (["-n", "0", "--", "/bin/true"], 1, ""),
        (["-n", "x", "--", "/bin/true"], 1, ""),
        (["--", "/no/such/program"], 1, ""),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_exit_codes(tmp_path, words, status, out):
    done = subprocess.run(
        [*einhorn_command(), *words],
        env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == status
    assert out in done.stdout
    assert worker("http_worker") and not list(tmp_path.glob("*.pid"))
