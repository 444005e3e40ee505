"""Other users of the machine: what they put where Einhorn will put its files, before it starts."""

import json
import os
import shutil
import signal
import socket
import subprocess
import threading

import pytest
from harness import program, stranger, wait_until
from harness.stranger import as_stranger

pytestmark = pytest.mark.root

PRECIOUS = "precious\n"


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "victim"
    path.write_text(PRECIOUS)
    path.chmod(0o600)
    return path


def put(trick, path, victim):
    """Puts something of the stranger's at that path. (A hard link is what they could make where
    fs.protected_hardlinks is off.)"""
    if trick == "hard link":
        os.link(victim, path)
        return
    with as_stranger():
        if trick == "file":
            path.write_text("mine")
        elif trick == "file for all":
            path.write_text("mine")
            path.chmod(0o666)
        elif trick == "link":
            path.symlink_to(victim)
        elif trick == "dangling link":
            path.symlink_to(victim.parent / "nothing")
        elif trick == "pipe":
            os.mkfifo(path, 0o666)
        elif trick == "directory":
            path.mkdir()
        elif trick == "dead socket":
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
        else:
            raise ValueError(trick)


def looks(path):
    status = os.lstat(path)
    content = path.read_text() if path.is_file() and not path.is_symlink() else None
    return status.st_mode, status.st_uid, status.st_ino, status.st_size, content


def run(shared_directory, *arguments, timeout=20):
    """Starts a pool that ought to be refused; returns its last line."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(shared_directory)}
    done = subprocess.run(
        [program("einhorn"), "-q", "-q", *arguments, "--", "/bin/sleep", "1000"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    (line,) = done.stderr.splitlines()
    return line


REASONS = {
    "file": "it belongs to user 54321; remove it or name another path with ",
    "file for all": "it belongs to user 54321; remove it or name another path with ",
    "link": "it is a symbolic link; remove it or name another path with ",
    "dangling link": "it is a symbolic link; remove it or name another path with ",
    "pipe": "it belongs to user 54321; remove it or name another path with ",
    "directory": "it belongs to user 54321; remove it or name another path with ",
    "dead socket": "it belongs to user 54321; remove it or name another path with ",
    "hard link": "it has other names (hard links); remove it or name another path with ",
}


@pytest.mark.parametrize("trick", REASONS)
@pytest.mark.parametrize("suffix, option", [("lock", "-f"), ("pid", "-e")])
def test_a_lock_or_pid_file_that_is_not_ours(shared_directory, victim, trick, suffix, option):
    path = shared_directory / f"einhorn.{suffix}"
    put(trick, path, victim)
    before = looks(path)
    assert run(shared_directory) == f"einhorn: open {path}: {REASONS[trick]}{option}"
    assert looks(path) == before
    assert victim.read_text() == PRECIOUS
    assert not (victim.parent / "nothing").exists()
    left = {p.name for p in shared_directory.iterdir()}
    assert left <= {path.name, "einhorn.lock"}, "what was made is gone again; a lock stays"


@pytest.mark.parametrize("trick", REASONS)
@pytest.mark.parametrize("suffix", ["sock", "sock.notify"])
def test_a_command_or_notify_socket_that_is_not_ours(shared_directory, victim, trick, suffix):
    path = shared_directory / f"einhorn.{suffix}"
    put(trick, path, victim)
    before = looks(path)
    line = run(shared_directory)
    assert line.startswith("einhorn: ") and str(path) in line and "-d" in line
    if trick == "dead socket":
        assert line == (
            f"einhorn: socket path {path}: the socket there belongs to user 54321; "
            "remove it or name another path with -d"
        )
    assert looks(path) == before
    assert victim.read_text() == PRECIOUS
    assert {p.name for p in shared_directory.iterdir()} == {path.name, "einhorn.lock"}


@pytest.mark.parametrize("trick", REASONS)
def test_a_log_file_that_is_not_ours(shared_directory, victim, trick):
    path = shared_directory / "pool.log"
    put(trick, path, victim)
    before = looks(path)
    line = run(shared_directory, "--log-file", str(path))
    assert line == f"einhorn: open {path}: {REASONS[trick]}--log-file"
    assert looks(path) == before
    assert victim.read_text() == PRECIOUS
    assert [p.name for p in shared_directory.iterdir()] == [path.name]


@pytest.mark.parametrize("trick", ["link", "dangling link", "file for all"])
def test_a_log_file_that_is_replaced_later(make_pool, shared_directory, victim, trick):
    """The log is opened anew on SIGUSR1 and by every master and for every line of the guard's: none
    of them is written to what lies there now."""
    path = shared_directory / "pool.log"
    pool = make_pool(["-n", "1", "-m", "0.05", "--log-file", str(path)])
    pool.wait_ready(1)
    path.rename(victim.parent / "kept.log")
    put(trick, path, victim)
    before = looks(path)
    pool.send(signal.SIGUSR1)
    kept = victim.parent / "kept.log"
    wait_until(lambda: "Can't reopen the log: " in kept.read_text(), 10, kept.read_text)
    pool.kill_master()
    assert pool.stop() == 0
    assert looks(path) == before
    assert victim.read_text() == PRECIOUS
    assert not (victim.parent / "nothing").exists()


def test_a_log_that_is_our_own_link_is_followed(make_pool, shared_directory, tmp_path):
    (shared_directory / "pool.log").symlink_to(tmp_path / "real.log")
    pool = make_pool(["-n", "1", "-m", "0.05", "--log-file", str(shared_directory / "pool.log")])
    pool.wait_ready(1)
    assert pool.stop() == 0
    assert "Launched" in (tmp_path / "real.log").read_text()


def test_a_log_that_another_user_was_given_is_written_to(make_pool, tmp_path):
    """Where only the administrator makes files, a log may belong to whoever reads it."""
    path = tmp_path / "pool.log"
    path.touch()
    os.chown(path, stranger.UID, stranger.UID)
    pool = make_pool(["-n", "1", "-m", "0.05", "--log-file", str(path)])
    pool.wait_ready(1)
    assert pool.stop() == 0
    assert "Launched" in path.read_text()


@pytest.mark.parametrize("trick", ["link", "dangling link", "file", "pipe", "directory"])
def test_a_unix_listener_whose_place_is_taken(shared_directory, victim, trick):
    path = shared_directory / "web.sock"
    put(trick, path, victim)
    before = looks(path)
    assert run(shared_directory, "-b", f"unix:{path}") == (
        f"einhorn: -b unix:{path}: bind unix:{path}: there is a file that is no socket: "
        "Address already in use"
    )
    assert looks(path) == before
    assert victim.read_text() == PRECIOUS


# --- somebody who answers -------------------------------------------------------------------------


class Impostor:
    """Listens as the stranger and notes what is said to it."""

    def __init__(self, path, backlog=8):
        with as_stranger():
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.bind(str(path))
            self.socket.listen(backlog)
        os.chmod(path, 0o777)
        self.heard = []
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def serve(self):
        while True:
            try:
                stream, _ = self.socket.accept()
            except OSError:
                return
            with stream:
                self.heard.append(stream.recv(65536))

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        if self.thread.ident:
            self.thread.join(10)


@pytest.mark.parametrize("serving", [True, False], ids=["answers", "accepts nobody"])
def test_an_impostor_is_not_spoken_to(shared_directory, serving):
    path = shared_directory / "einhorn.sock"
    impostor = Impostor(path, backlog=8 if serving else 0)
    filling = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    if serving:
        impostor.thread.start()
    else:
        for one in filling:
            one.setblocking(False)
            one.connect_ex(str(path))
    try:
        assert run(shared_directory) == (
            f"einhorn: socket path {path}: the socket there belongs to user 54321; "
            "remove it or name another path with -d"
        )
    finally:
        impostor.close()
        for one in filling:
            one.close()
    assert impostor.heard == []


def test_einhornsh_does_not_believe_an_impostor(shared_directory):
    """A third user's command, and the answer of whoever sits at the pool's place."""
    copy = shared_directory / "einhornsh-of-everybody"
    shutil.copy(program("einhornsh"), copy)
    impostor = Impostor(shared_directory / "einhorn.sock")
    impostor.thread.start()
    try:
        done = subprocess.run(
            [str(copy), "-e", "upgrade"],
            env={"TMPDIR": str(shared_directory), "HOME": "/nonexistent"},
            user=stranger.UID + 1,
            group=stranger.UID + 1,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=20,
        )
    finally:
        impostor.close()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Could not connect to Einhorn master process:\n\n"
        f"  The master there is user 54321's ({shared_directory}/einhorn.sock)\n\n"
        "HINT: Only the master's user, and root, may speak to it: try again as that user.\n"
    )
    assert b"".join(impostor.heard) == b""


def test_a_strangers_pool_is_not_gone_on_with(make_pool, shared_directory):
    """A pool without a guard gives itself to the next einhorn of its name, which then runs its
    programs. One that another user has put there must not get root to do so."""
    copy = shared_directory / "einhorn-of-the-stranger"
    shutil.copy(program("einhorn"), copy)
    command = [str(copy), "-n", "1", "-m", "0.05", "-f", str(shared_directory / "x.lock")]
    command += ["-e", str(shared_directory / "x.pid"), "--", "/bin/sleep", "1001"]
    user = ["setpriv", f"--reuid={stranger.UID}", f"--regid={stranger.UID}", "--clear-groups"]
    pool = make_pool(directory=shared_directory, cwd="/", start=False)
    pool.command_line = lambda: [*user, *command]
    pool.start()
    pool.wait_ready(1)
    os.kill(pool.guard_pid, signal.SIGKILL)
    pool.wait_log("The guard is gone")
    line = run(shared_directory)
    path = shared_directory / "einhorn.sock"
    assert line.startswith(f"einhorn: socket path {path}: the socket there belongs to user 54321")
    state = pool.state_json()
    assert os.stat(f"/proc/{state['master']}").st_uid == stranger.UID
    assert [os.stat(f"/proc/{w['pid']}").st_uid for w in state["workers"]] == [stranger.UID]


def test_an_einhorn_of_the_stranger_is_refused_what_is_ours(make_pool, shared_directory):
    """The other way round: their start with our names disturbs nothing and is told why."""
    copy = shared_directory / "einhorn-of-the-stranger"
    shutil.copy(program("einhorn"), copy)
    pool = make_pool(["-n", "1", "-m", "0.05"], directory=shared_directory)
    pool.wait_ready(1)
    done = subprocess.run(
        [str(copy), "-q", "-q", "--", "/bin/sleep", "1"],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(shared_directory)},
        user=stranger.UID,
        group=stranger.UID,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"einhorn: open {shared_directory}/einhorn.lock: it belongs to user 0; "
        "remove it or name another path with -f\n"
    )
    assert len(pool.pids()) == 1
    assert json.loads(pool.command("state", "json", id=1))["guard"] == pool.process.pid
