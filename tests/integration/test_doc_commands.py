"""Every command line of einhorn and einhornsh that the documents show: einhorn's are understood by einhorn itself, and
einhornsh's are run against a pool."""

import os
import re
import shlex
import signal
import subprocess

import pytest
from harness import program
from harness.agent import Agent
from harness.programs import ROOT

DOCUMENTS = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted((ROOT / "sdk").glob("*/README.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
FENCE = re.compile(r"^```[^\n`]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def words_of(line):
    """A line's words up to a comment, a pipe or the like; none if it is no whole command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    try:
        for word in lexer:
            if re.fullmatch(r"[|&;<>()]+|2>", word):
                break
            words.append(word)
    except ValueError:
        return []  # it goes on in the next line
    return words


def command_lines(name, begins="-"):
    """(the line, its words) of each line in a fenced block that begins with the program's name and an option."""
    found = []
    for document in DOCUMENTS:
        for block in FENCE.findall(document.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                line = re.sub(r"^(?:\$ |podman exec \S+ |sudo )", "", line.strip())
                if not re.match(rf"{name} +{begins}", line) or "..." in line or "[options]" in line:
                    continue
                words = words_of(line)
                if words:
                    found.append(pytest.param(words, id=f"{document.relative_to(ROOT)}: {line[:70]}"))
    return found


EINHORN = command_lines("einhorn")
EINHORNSH = command_lines("einhornsh")
AGENT = command_lines("einhorn-agent", "[-a-z]+( |$)(?!.*listens to)")
SCRIPTS = command_lines("(?:scripts|bench)/[a-z-]+", "(?=-)") + command_lines("(?:scripts|bench)/[a-z-]+", "#")


def made_harmless(words, directory):
    """The same options, with ports that the system chooses, below a directory of the test's, with a program that waits
    in place of the server. What the server is given stays, since {fd} and the like are replaced there."""
    at = words.index("--") if "--" in words else next(i for i, word in enumerate(words) if word.startswith("./"))
    rest = words[at + 1 :] if "--" in words else words[at:]
    options = []
    for word in words[:at]:
        if options and options[-1] in ("-b", "--bind"):
            word = re.sub(r"^fd:\w+", "127.0.0.1:0", word)
            word = re.sub(r"^((?:udp:)?(?:[^,/]*:)?)\d+(?=,|$)", r"\g<1>0", word)
        options.append(re.sub(r"(?<![\w.])/(run|srv|var)/", f"{directory}/\\1/", word))
    return options + ["--", "sh", "-c", "exec sleep 1000", "sh", *rest[1:]]


# What takes a file or a right of its own, which its own tests give it.
ELSEWHERE = ("--version", "--config", "--check-config", "--user", "--cgroup", "--cgroup-memory", "-p")
RUNNABLE = [param for param in EINHORN if not set(ELSEWHERE) & set(param.values[0])]


@pytest.mark.parametrize("words", RUNNABLE)
def test_einhorn_understands(make_pool, tmp_path, words):
    words = words[1:]
    for folder in ("var/log/app", "run/einhorn", "srv/shop/current", "srv/app/current", "var/log/einhorn", "current"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    command = made_harmless(words, tmp_path)
    at = command.index("--")
    pool = make_pool(command[:at], command[at + 1 :], cwd=tmp_path)
    if "--log-file" in command:
        pool.log_path = tmp_path / command[command.index("--log-file") + 1].removeprefix(f"{tmp_path}/")
    pool.wait_log(r"Launched")
    pool.send(signal.SIGTERM)
    assert pool.wait_exit(30) == 0


SKIPPED = re.compile(r"--to-ruby|-d |--reexec|subscribe")
ENDS = re.compile(r"\b(die|signal (KILL|TERM|QUIT))\b")


@pytest.fixture(scope="module")
def shell_lines():
    lines = sorted({shlex.join(param.values[0]) for param in EINHORNSH})
    lines = [line for line in lines if not SKIPPED.search(line)]
    return sorted(lines, key=lambda line: bool(ENDS.search(line)))


def test_einhornsh_runs(make_pool, shell_lines, history):
    """In one pool after the other; a name (-c NAME) is the pool's, whichever it is."""
    pool = None
    for line in shell_lines:
        words = shlex.split(line)
        for flag in ("-c", "--command-name"):
            if flag in words:
                at = words.index(flag)
                del words[at : at + 2]
        if not any(word in words for word in ("-e", "--execute", "--version", "-h")):
            continue  # the prompt; the tests of the terminal have it
        if pool is None or pool.process.poll() is not None:
            pool = make_pool(["-n", "2", "-m", "0"])
            pool.wait_ready(2)
        command = [program("einhornsh"), "-d", str(pool.socket_path), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120,
                              env={**os.environ, "HOME": str(pool.dir), "EINHORN_HISTORY": str(history)})
        allowed = (0, 1, 2) if "rollback" in line else (0,)
        assert done.returncode in allowed, f"{line}: {done.stdout}{done.stderr}"
        if ENDS.search(line):
            pool.wait_exit(30)
    assert len(shell_lines) >= 8


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A file that an agent has kept."""
    path = tmp_path_factory.mktemp("history") / "shop.db"
    agent = Agent(["--history", path])
    try:
        assert agent.stop() == 0
    finally:
        agent.destroy()
    return path


@pytest.mark.parametrize("words", AGENT)
def test_agent_understands(tmp_path, history, words):
    """Who looks at pools begins to listen and ends when asked to; who asks for history is answered."""
    words = [str(history) if word == "shop.db" else word for word in words[1:]]
    if "sql" in words or "history" in words:
        done = subprocess.run([program("einhorn-agent"), *words], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return
    (tmp_path / "run/einhorn").mkdir(parents=True)
    listen = "127.0.0.1:0"
    if "--listen" in words:
        at = words.index("--listen")
        listen = re.sub(r"\d+$", "0", words[at + 1])
        del words[at : at + 2]
    agent = Agent([re.sub("^/run/", f"{tmp_path}/run/", word) for word in words], listen=listen)
    try:
        assert agent.stop() == 0
    finally:
        agent.destroy()


@pytest.mark.parametrize("words", SCRIPTS)
def test_scripts_understand(words):
    """They take minutes to hours, so only what they say of themselves: every option that is shown is one."""
    done = subprocess.run([ROOT / words[0], "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout
    for word in words[1:]:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){word}(?![\w-])", done.stdout), f"{words[0]} --help does not know {word}"


def test_there_are_enough():
    assert len(RUNNABLE) >= 40 and len(EINHORNSH) >= 20 and len(AGENT) >= 6 and len(SCRIPTS) >= 25
