"""Every way to misuse the programs that somebody thought of, and what is said then: one line that names the thing, the
reason, and where it is not plain the way out; nothing is started and nothing is left behind."""

import json
import os
import shlex
import subprocess

import pytest
from harness import program, wait_until

NUMBER = "is not a whole number (allowed: "
RANGE = "is out of range (allowed: "
SECONDS = "is not a number (allowed: "

# A command line behind `einhorn`, and pieces of what it says. @ is a directory with: plain (a file), dir, noexec.
FLAGS = [
    ("--nope -- true", 'unknown option "--nope"', "did you mean --nice?"),
    ("--n 3 -- true", 'ambiguous option "--n"', "--number", "--nice"),
    ("-z -- true", 'unknown option "-z"'),
    ("-n", "-n/--number: its value is missing: N"),
    ("-n -- true", "-n/--number", '"--"', NUMBER, "1 to 100000"),
    ("-n zero -- true", "-n/--number", '"zero"', NUMBER, "1 to 100000"),
    ("-n 0 -- true", "-n/--number", '"0"', RANGE, "1 to 100000"),
    ("-n -1 -- true", "-n/--number", '"-1"', RANGE),
    ("-n 1.5 -- true", "-n/--number", '"1.5"', NUMBER),
    ("-n 999999999 -- true", "-n/--number", RANGE),
    ("-n '' -- true", "-n/--number: its value is empty"),
    ("--number= -- true", "-n/--number: its value is empty"),
    ("--verbose=yes -- true", "-v/--verbose: it takes no value"),
    ("-m -- true", "-m/--ack-mode", "allowed: 0 or more seconds, manual, notify, listen"),
    ("-m manuel -- true", "-m/--ack-mode", '"manuel" is no way to ACK', "manual, notify, listen"),
    ("-m -1 -- true", "-m/--ack-mode", '"-1" is no way to ACK'),
    ("-m listen -- true", "-m/--ack-mode", '"listen" needs --intercept'),
    ("-m '' -- true", "-m/--ack-mode: its value is empty"),
    ("-s 0 -- true", "-s/--seconds", RANGE, "more than 0"),
    ("-s fast -- true", "-s/--seconds", '"fast"', SECONDS),
    ("-s -1 -- true", "-s/--seconds", RANGE),
    ("-t 0 -- true", "-t/--signal-timeout", '"0"', "from 1 on"),
    ("-t never -- true", "-t/--signal-timeout", '"never"', "from 1 on"),
    ("-t 0.5 -- true", "-t/--signal-timeout", '"0.5"', "from 1 on"),
    ("--ack-timeout -1 -- true", "--ack-timeout", RANGE, "0 to"),
    ("--ack-timeout soon -- true", "--ack-timeout", '"soon"', SECONDS),
    ("--give-up x -- true", "--give-up", NUMBER),
    ("--give-up -1 -- true", "--give-up", RANGE),
    ("--max-unacked 0 -- true", "--max-unacked", RANGE, "1 to"),
    ("--max-unacked x -- true", "--max-unacked", NUMBER),
    ("--max-upgrade-additional -1 -- true", "--max-upgrade-additional", RANGE),
    ("--drain-timeout x -- true", "--drain-timeout", SECONDS),
    ("--canary -1 -- true", "--canary", RANGE),
    ("--canary x -- true", "--canary", NUMBER),
    ("--canary-seconds x -- true", "--canary-seconds", SECONDS),
    ("--upgrade-failures x -- true", "--upgrade-failures", NUMBER),
    ("--upgrade-timeout x -- true", "--upgrade-timeout", SECONDS),
    ("--stop-signal FOO -- true", '--stop-signal: "FOO" is no signal', "USR2, TERM, QUIT or INT"),
    ("--stop-signal 99 -- true", '--stop-signal: "99" is no signal'),
    ("--stop-signal STOP -- true", '--stop-signal: "STOP" does not end a process'),
    ("--socket-mode 999 -- true", '--socket-mode: "999" is no file mode', "octal, 0 to 0777"),
    ("--socket-mode rw -- true", '--socket-mode: "rw" is no file mode'),
    ("--socket-group nogroup_ -- true", "--socket-group nogroup_: no such group"),
    ("--log-format xml -- true", '--log-format: "xml" is no format', "text, json"),
    ("--log-file @/none/log -- true", "--log-file: open @/none/log: No such file or directory"),
    ("--log-file @/dir -- true", "--log-file: open @/dir: Is a directory"),
    ("--nice abc -- true", "--nice", NUMBER, "-20 to 19"),
    ("--nice 99 -- true", "--nice", RANGE, "-20 to 19"),
    ("--nice 0:99 -- true", "--nice", RANGE),
    ("--chdir @/none -- true", "--chdir: directory @/none: No such file or directory"),
    ("--chdir @/plain -- true", "--chdir: directory @/plain: Not a directory"),
    ("-l 0 -- true", "-l/--backlog", RANGE, "1 to 65535"),
    ("-l x -- true", "-l/--backlog", NUMBER),
    ("-l 99999999 -- true", "-l/--backlog", RANGE),
    ("--drop-env-var A=b -- true", "--drop-env-var", '"A=b" is no name of a variable', 'without "="'),
    ("--drop-env-var '' -- true", "--drop-env-var: its value is empty"),
    ("--reexec-as '' -- true", "--reexec-as: its value is empty"),
    ("--reexec-as '\"open' -- true", "--reexec-as", "unbalanced"),
    ("--with-state-fd 99 -- true", "--with-state-fd 99: this option is for Einhorn's own use", "Bad file descriptor"),
    ("--with-state-fd x -- true", "--with-state-fd", NUMBER),
]
ADDRESSES = [
    ("-b '' -- true", "-b/--bind: its value is empty"),
    ("-b 127.0.0.1 -- true", "-b 127.0.0.1: the port is missing", "HOST:PORT"),
    ("-b 127.0.0.1: -- true", "the port is missing", "0 lets the system choose one"),
    ("-b 127.0.0.1:http -- true", '-b 127.0.0.1:http: the port "http" is not a decimal number'),
    ("-b 127.0.0.1:70000 -- true", 'the port "70000" is not in 0..65535'),
    ("-b 127.0.0.1:-1 -- true", 'the port "-1" is not a decimal number'),
    ("-b 127.1:80 -- true", '"127.1" is not an IPv4 address'),
    ("-b 1.2.3.4.5:80 -- true", '"1.2.3.4.5" is not an IPv4 address'),
    ("-b 300.0.0.1:80 -- true", '"300.0.0.1" is not an IPv4 address'),
    ("-b nosuchhost.invalid:80 -- true", "-b nosuchhost.invalid:80: look up nosuchhost.invalid: "),
    ("-b ::1:80 -- true", "-b ::1:80: too many colons", "[::1]:80"),
    ("-b [::1:80 -- true", "the bracket is not closed", "[::1]:80"),
    ("-b [::1] -- true", "-b [::1]: the port is missing"),
    ("-b [zz]:80 -- true", '"zz" is not an IPv6 address', "brackets are for those only"),
    ("-b 'local host:80' -- true", "white space and control characters are not allowed"),
    ("-b http://127.0.0.1:80 -- true", "this is a URL", "HOST:PORT or unix:/PATH"),
    ("-b 192.0.2.1:8099 -- true", "-b 192.0.2.1:8099: bind 192.0.2.1:8099: Cannot assign requested address"),
    ("-b unix: -- true", "behind unix: comes an absolute path or @NAME"),
    ("-b unix:relative.sock -- true", "behind unix: comes an absolute path or @NAME"),
    ("-b unix:@ -- true", "names no socket"),
    ("-b unix:/" + "x" * 200 + " -- true", "the path has 201 bytes", "at most 107"),
    ("-b udp: -- true", "-b udp:: the address is empty"),
    ("-b udp:127.0.0.1:53x -- true", 'the port "53x" is not a decimal number'),
    ("-b fd: -- true", "behind fd: comes a descriptor's number or a name of LISTEN_FDNAMES"),
    ("-b fd:77 -- true", "-b fd:77: descriptor 77: Bad file descriptor"),
    ("-b fd:web -- true", "no sockets were handed in (LISTEN_FDS, with our pid in LISTEN_PID)"),
    ("-b fd:0 -- true", "-b fd:0: descriptor 0: Socket operation on non-socket"),
    ("-b 127.0.0.1:0,zap -- true", 'unknown option "zap"; allowed are r, so_reuseaddr', "stdin"),
    ("-b 127.0.0.1:0, -- true", "an option is empty; there is a comma too many"),
    ("-b 127.0.0.1:0,backlog -- true", 'option "backlog" needs a value: backlog=N'),
    ("-b 127.0.0.1:0,backlog=0 -- true", "must be a number in 1..65535"),
    ("-b 127.0.0.1:0,fastopen=x -- true", "fastopen=x: must be a number in 1..65535"),
    ("-b 127.0.0.1:0,mode=0660 -- true", 'option "mode" makes no sense for a TCP address', "unix: socket"),
    ("-b unix:/s,mode=999 -- true", "mode=999: must be an octal number up to 0777"),
    ("-b unix:/s,r -- true", 'option "r" makes no sense for a unix socket'),
    ("-b udp:127.0.0.1:0,backlog=5 -- true", 'option "backlog" makes no sense for a UDP address', "no connections to queue"),
    ("-b udp:127.0.0.1:0,defer -- true", 'option "defer" makes no sense for a UDP address', "it is for TCP"),
    ("-b 127.0.0.1:0,v6only -- true", 'option "v6only" makes no sense without an IPv6 address', "[::]:80"),
    ("-b 127.0.0.1:0,name= -- true", 'option "name" needs a value: name=NAME'),
    ("-b 127.0.0.1:0,name=a:b -- true", 'the name "a:b" has other characters'),
    ("-b 127.0.0.1:0,name=7 -- true", 'the name "7" is a number; a name needs another character'),
    ("-b 127.0.0.1:0,r=1 -- true", 'option "r" takes no value'),
    ("-b 127.0.0.1:0,stdin=1 -- true", 'option "stdin" takes no value'),
    ("-b 127.0.0.1:0,backlog=1,backlog=2 -- true", 'option "backlog" is given twice'),
    ("-b 127.0.0.1:0,stdin -b 127.0.0.1:0,stdin -- true", "a worker has one descriptor 0"),
]
FILES = [
    ("-b unix:@/none/x -- true", "bind unix:@/none/x: No such file or directory"),
    ("-b unix:@/plain -- true", "bind unix:@/plain: there is a file that is no socket"),
    ("-b unix:@/dir -- true", "bind unix:@/dir: there is a file that is no socket"),
    ("-b unix:@/s,user=nouser_ -- true", "user=nouser_: no such user"),
    ("-b unix:@/s,group=nogroup_ -- true", "group=nogroup_: no such group"),
    ("-d @/none/s -- true", "-d/--socket-path: bind unix:@/none/s: No such file or directory"),
    ("-d @/plain -- true", "Non-socket file present at Einhorn command socket path @/plain", "either remove that file"),
    ("-d @/dir -- true", "Non-socket file present at", "pass a `-d PATH_TO_SOCKET`"),
    ("-d '' -- true", "-d/--socket-path: its value is empty"),
    ("-d /" + "x" * 200 + " -- true", "it must have 1 to 107 bytes, not 201"),
    ("-c a/b -- true", '-c/--command-name: "a/b" can\'t be part of a file name', "no slashes"),
    ("-c '' -- true", "-c/--command-name: its value is empty"),
    ("-e @/none/p -- true", "-e/--pidfile: open @/none/p: No such file or directory"),
    ("-e @/dir -- true", "open @/dir: it is no regular file", "name another path with -e"),
    ("-f @/none/p -- true", "-f/--lockfile: open @/none/p: No such file or directory"),
    ("-f @/dir -- true", "open @/dir: it is no regular file", "name another path with -f"),
]
PROGRAMS = [
    ("-- nosuchprogram", "Could not find nosuchprogram in PATH"),
    ("-- ./nosuchprogram", "Could not find ./nosuchprogram: there is no @/nosuchprogram"),
    ("-- @/none/program", "Could not find @/none/program: there is no @/none/program"),
    ("-- @/dir", "Could not find @/dir: @/dir is no file"),
    ("-- ''", "Could not find the program: its name is empty"),
    ("-- true {fd}", "{fd} needs a socket, and there is no -b"),
    ("-b 127.0.0.1:0 -- true {fd:web}", "no -b has name=web, so {fd:web} means nothing"),
    ("-- true srv:127.0.0.1:70000", "argument srv:127.0.0.1:70000", 'the port "70000" is not in 0..65535'),
    ("-- true srv:127.0.0.1:0,zap", 'unknown option "zap"'),
    ("--intercept 3000=8080 -b 127.0.0.1:0 -- true", "--intercept 3000=8080: there is no -b with that port"),
    ("--intercept -b 127.0.0.1:0,stdin -- true", '"stdin" makes no sense with --intercept'),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("misuse")
    (place / "plain").write_text("x")
    (place / "dir").mkdir()
    return place


def run(name, line, place, **kwargs):
    words = [word.replace("@/", f"{place}/") for word in shlex.split(line)]
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(place), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        [program(name), *words],
        env=environment,
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        **kwargs,
    )


@pytest.mark.parametrize("case", FLAGS + ADDRESSES + FILES + PROGRAMS, ids=lambda case: case[0][:60])
def test_command_lines(place, case):
    line, *pieces = case
    before = sorted(os.listdir(place))
    done = run("einhorn", line, place)
    lines = [text for text in done.stderr.splitlines() if not text.startswith("[MASTER ")]
    assert done.returncode == 1 and done.stdout == "" and len(lines) == 1, done
    assert lines[0].startswith("einhorn: "), "who says it"
    for piece in pieces:
        assert piece.replace("@/", f"{place}/") in lines[0], lines[0]
    left = set(os.listdir(place)) - set(before)
    assert left <= {"einhorn.lock"}, "a lock file is never removed: somebody may wait for it"


SHELL = [
    ("-e", 1, "einhornsh: -e: a value is missing"),
    ("-c", 1, "einhornsh: -c: a value is missing"),
    ("-z", 1, "einhornsh: -z: unknown option"),
    ("--exec", 1, "a value is missing"),
    ("--json=yes", 1, "einhornsh: --json=yes: this option takes no value"),
    ("--timeout x", 1, "einhornsh: --timeout x: it takes seconds, more than 0"),
    ("--timeout -1", 1, "it takes seconds, more than 0"),
    ("a b", 1, 'more than one name: "a" and "b"', "commands are given with -e"),
    ("-e '\"open'", 1, 'unmatched quote: "open'),
    ("-d @/none -e state", 1, "No such file or directory (@/none)", "HINT: Is the Einhorn master running?"),
    ("-d @/plain -e state", 1, "Not a socket (@/plain)", "HINT: Something else is at this path."),
    ("-c nopool -e state", 1, "einhorn-nopool.sock", "the cmd_name that it was started with"),
    ("-d '' -e state", 1, "The path is empty"),
]


@pytest.mark.parametrize("case", SHELL, ids=lambda case: case[0])
def test_the_shell(place, case):
    line, code, *pieces = case
    done = run("einhornsh", line, place)
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    for piece in pieces:
        assert piece.replace("@/", f"{place}/") in said


HELP = "set_workers: Set the number of Einhorn child processes"
# A request, and pieces of the answer. "" is the silence that a worker's message gets.
MESSAGES = [
    ("nonsense", "Could not parse command"),
    ("{", "Could not parse command"),
    ("[]", "Could not parse command"),
    ("42", "Could not parse command"),
    ("[" * 100, "Could not parse command"),
    ("{}", 'No "command" parameter provided'),
    ({"command": 5}, "Unrecognized command: 5", HELP),
    ({"command": ""}, 'Unrecognized command: ""', HELP),
    ({"command": "nope"}, 'Unrecognized command: "nope"', HELP),
    ({"command": "set_workers"}, "No args provided"),
    ({"command": "set_workers", "args": ["x"]}, "Invalid count: 'x'", "integer in [1,100000)"),
    ({"command": "set_workers", "args": ["0"]}, "Invalid count: '0'"),
    ({"command": "set_workers", "args": ["1000000"]}, "Invalid count: '1000000'"),
    ({"command": "signal"}, "No args provided"),
    ({"command": "signal", "args": ["FOO"]}, 'Invalid signal: "FOO"'),
    ({"command": "die", "args": ["FOO"]}, 'Invalid signal: "FOO"'),
    ({"command": "state", "args": ["xml"]}, 'state takes no argument or "json"'),
    ({"command": "upgrade", "args": ["fast"]}, 'Unknown argument "fast"', "--no-rollback"),
    ({"command": "upgrade_fleet", "args": ["fast"]}, 'Unknown argument "fast"'),
    ({"command": "rollback"}, "Can't roll back: there is no version before this one"),
    ({"command": "config"}, "No args provided"),
    ({"command": "config", "args": ["x"]}, "Parsed argument is a String, not a hash"),
    ({"command": "config", "args": ["{"]}, "Could not parse argument", "YAML-encoded hash"),
    ({"command": "config", "args": ["number: x"]}, "Invalid value for config key 'number'", "an integer from 1 to 99999"),
    ({"command": "config", "args": ["nope: 1"]}, "Unknown config key 'nope'", "known are: number"),
    ({"command": "worker:ack"}, ""),
    ({"command": "worker:ack", "pid": "x"}, ""),
    ({"command": "worker:ack", "pid": 1}, ""),
    ({"command": "worker:ping"}, ""),
]


@pytest.fixture
def pool(make_pool):
    pool = make_pool(["-n", "1", "-m", "0"])
    pool.wait_ready(1)
    return pool


def test_messages(pool):
    """One connection each; after all of them the pool is what it was."""
    before = pool.pids()
    for request, *pieces in MESSAGES:
        line = request if isinstance(request, str) else json.dumps({**request, "id": 1})
        with pool.client() as client:
            client.socket.sendall(line.encode() + b"\n")
            answer = client.socket.recv(65536).decode()
        if pieces == [""]:
            assert answer == "", request
        text = answer.replace('\\"', '"').replace("%0A", "\n").replace("''", "'")
        for piece in pieces:
            assert piece in text, f"{request}: {answer}"
        assert "status" not in answer or '"status":"ok"' not in answer, request
    assert pool.pids() == before


COMMANDS = [
    ("nope", 1, 'Unrecognized command: "nope"'),
    ("set_workers", 1, "Invalid count: ''"),
    ("set_workers x", 1, "Invalid count: 'x'"),
    ("signal FOO", 1, 'Invalid signal: "FOO"'),
    ("state xml", 1, 'state takes no argument or "json"'),
    ("upgrade fast", 2, 'Unknown argument "fast"'),
    ("rollback", 2, "there is no version before this one"),
]


def test_commands_of_the_shell(pool):
    for line, code, piece in COMMANDS:
        command = [program("einhornsh"), "-d", str(pool.socket_path), "-e", line]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode != 0) and piece in done.stdout + done.stderr, (line, code, done)


def test_workers_that_can_not_run(make_pool):
    """What can only be known when a worker is started is said each time, with the step and the reason."""
    for text, mode, reason in (
        ("x", 0o644, "Permission denied"),
        ("#!/none/interpreter\n", 0o755, "No such file or directory"),
        ("\0", 0o755, "Exec format error"),
    ):
        pool = make_pool(["-m", "0"], ["./server"], start=False)
        (pool.dir / "server").write_text(text)
        (pool.dir / "server").chmod(mode)
        pool.start()
        pool.wait_log(rf"ERROR: Could not launch a worker \(index: 0\): exec \S+/server: {reason}")
        assert pool.state_json()["workers"] == [] or wait_until(lambda p=pool: p.exit_code is None)


@pytest.mark.unsanitized
@pytest.mark.skipif(os.geteuid() != 0, reason="takes /proc away, in a namespace of its own")
def test_without_proc(place):
    """In a root that nobody has mounted it in."""
    script = 'umount --lazy /proc && exec "$0" -d sock -e pid -f lock -- true'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, program("einhorn")], cwd=place, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("einhorn: open /proc/self/exe: ") and "is /proc mounted?" in done.stderr
    assert done.stderr.count("\n") == 1 and not any((place / name).exists() for name in ("sock", "pid", "lock"))


def test_there_are_enough():
    cases = FLAGS + ADDRESSES + FILES + PROGRAMS + SHELL + MESSAGES + COMMANDS
    assert len(cases) >= 170
    assert len({str(case[0]) for case in cases}) == len(cases), "each once"
