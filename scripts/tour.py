#!/usr/bin/python3
"""Starts a sample pool under Einhorn and shows what happens to it, with every request counted.

  tour.py --bin-dir DIR [--once]

On a terminal the pool stays until Ctrl-C afterwards; otherwise, or with --once, it is stopped.
Exit code: 0, or 1 if anything was not as it should be.
"""

import argparse
import collections
import ctypes
import errno
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HELLO = ROOT / "examples" / "hello" / "hello.py"
WORKERS = 3
CLIENTS = 6
SLOW_CLIENTS = 2  # of these: each request takes 50 ms, so that something is always under way
PR_SET_CHILD_SUBREAPER = 36


class Wrong(Exception):
    """Something was not as it should be, and the tour can't go on."""


class Failure(collections.namedtuple("Failure", "what port at")):
    """One failed request: what went wrong, the client's port, the time."""


class Load:
    """Clients that send one request after the other and write down every single outcome.

    A request counts as answered only when the whole answer has arrived: its length is compared with
    what the worker announced. Nothing is tried again.
    """

    def __init__(self, port):
        self._port = port
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = []
        self.answers = collections.Counter()  # (pid, version) -> answers
        self.failures = []

    def start(self):
        for number in range(CLIENTS):
            path = "/slow?ms=50" if number < SLOW_CLIENTS else "/"
            thread = threading.Thread(target=self._client, args=(path,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self):
        """Lets every client finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def counts(self):
        with self._lock:
            return collections.Counter(self.answers)

    def answered(self):
        return sum(self.counts().values())

    def failed(self):
        with self._lock:
            return list(self.failures)

    def _client(self, path):
        while not self._stop.is_set():
            connection = socket.socket()
            port = None
            try:
                connection.settimeout(30)
                connection.connect(("127.0.0.1", self._port))
                port = connection.getsockname()[1]
                answer = self._request(connection, path)
                with self._lock:
                    self.answers[answer] += 1
            except (OSError, ValueError) as error:
                name = errno.errorcode.get(getattr(error, "errno", None) or 0) or str(error)
                with self._lock:
                    self.failures.append(Failure(name, port, time.monotonic()))
            finally:
                connection.close()
            # A breath, so that the tour's own clients leave the processor to the workers.
            self._stop.wait(0.002)

    @staticmethod
    def _request(connection, path):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        data = b""
        while more := connection.recv(65536):
            data += more
        head, gap, body = data.partition(b"\r\n\r\n")
        if not data:
            raise ValueError("closed without an answer")
        if not gap or not head.startswith(b"HTTP/1.1 200 "):
            raise ValueError(f"not a good answer: {data[:40]!r}")
        if f"content-length: {len(body)}" not in head.decode().lower():
            raise ValueError("the answer is cut short")
        words = body.decode().split()
        if len(words) != 5 or words[:2] != ["hello", "from"]:
            raise ValueError(f"not our answer: {body[:40]!r}")
        return int(words[2]), words[4]


class Pool:
    """The sample pool: one `einhorn` with a name, sockets and files of its own."""

    def __init__(self, bin_dir):
        self.einhornsh = bin_dir / "einhornsh"
        self._einhorn = bin_dir / "einhorn"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="einhorn-tour-"))
        self.socket = self.directory / "einhorn.sock"
        self.log = self.directory / "einhorn.log"
        self.version_file = self.directory / "version"
        self.version_file.write_text("1\n")
        self.process = None

    def start(self):
        command = [
            self._einhorn, "-n", str(WORKERS), "-m", "manual", "-b", "127.0.0.1:0,r",
            "-c", f"tour-{os.getpid()}", "-d", self.socket, "-e", self.directory / "einhorn.pid",
            "-f", self.directory / "einhorn.lock", "--", HELLO, "--ack",
        ]
        environment = {**os.environ, "HELLO_VERSION_FILE": str(self.version_file)}
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C on the terminal is for the tour alone.
            self.process = subprocess.Popen(
                [str(word) for word in command], env=environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def shell(self, command, limit=60):
        """What `einhornsh -e COMMAND` prints; Wrong if it fails."""
        line = [str(self.einhornsh), "-d", str(self.socket), "-e", command]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=limit,
                                  stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise Wrong(f"`einhornsh -e {command}` did not return within {limit} s") from None
        if done.returncode != 0:
            said = (done.stderr + done.stdout).strip()
            raise Wrong(f"`einhornsh -e {command}` ended with {done.returncode}: {said[:500]}")
        return done.stdout

    def state(self):
        try:
            return json.loads(self.shell("state json", limit=20))
        except ValueError as error:
            raise Wrong(f"`einhornsh -e 'state json'` printed no JSON: {error}") from None

    def try_state(self):
        """None while there is nobody to answer."""
        try:
            return self.state()
        except Wrong:
            return None

    def stop(self):
        """Asks the pool to end, as Ctrl-C would; says what was wrong with the end."""
        wrong = []
        if self.is_running():
            self.process.send_signal(signal.SIGINT)
            try:
                code = self.process.wait(20)
                if code != 0:
                    wrong.append(f"einhorn ended with {code}")
            except subprocess.TimeoutExpired:
                wrong.append("einhorn was still there 20 s after it was asked to stop")
                self.process.kill()
                self.process.wait()
        left = end_adopted_children()
        if left:
            wrong.append(f"processes were left behind: {left}")
        return wrong

    def remove_files(self):
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self, lines=15):
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join("    " + line for line in text.splitlines()[-lines:])


# --- processes ---------------------------------------------------------------------------------


def adopt_orphans():
    """Makes descendants whose parent dies children of this process, so that none can get lost."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_adopted_children():
    """Ends what is left of the pool, which is nothing if it ended as it should. The pids."""
    ended = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            for child in map(int, children):
                ended.append(child)
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def is_alive(pid):
    try:
        # The third word, behind the name in parentheses, is the state.
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def is_stopped(pid):
    states = set()
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        states.add((task / "stat").read_text().rpartition(")")[2].split()[0])
    return states <= {"T"}


def client_ports_in_hand(pid):
    """The client's ports of the connections that a process holds at this moment."""
    inodes = set()
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(entry)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    ports = set()
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        words = line.split()
        if words[9] in inodes:
            ports.add(int(words[2].rpartition(":")[2], 16))
    return ports - {0}


def wait_until(what, condition, limit):
    """Waits until `condition()` gives something true, and returns that."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.005)
    raise Wrong(f"waited {limit} s in vain for {what}")


# --- the tour ----------------------------------------------------------------------------------


class Tour:
    def __init__(self, pool):
        self.pool = pool
        self.load = None
        self.port = None
        self.workers = set()  # the pids that should be serving
        self.wrong = []
        self.lost_with_worker = []
        self._started = time.monotonic()

    def title(self, text):
        print(f"\n[{time.monotonic() - self._started:4.1f} s] {text}", flush=True)

    def say(self, text):
        print(f"         {text}", flush=True)

    def check(self, good, text):
        """Says what is seen, and remembers it if it is not as it should be."""
        self.say(("" if good else "WRONG: ") + text)
        if not good:
            self.wrong.append(text)

    def run(self):
        self.start_pool()
        self.show_balance()
        self.kill_worker()
        self.kill_master()
        self.upgrade()
        self.finish_load()

    def start_pool(self):
        self.title(f"einhorn -n {WORKERS} -m manual -b 127.0.0.1:0,r -- examples/hello/hello.py --ack")
        began = time.monotonic()
        self.pool.start()

        def state():
            if not self.pool.is_running():
                raise Wrong(f"einhorn ended at once with {self.pool.process.returncode}")
            return self.pool.socket.exists() and self.pool.try_state()

        answer = wait_until("the pool to answer on its command socket", state, 20)
        self.port = int(answer["sockets"][0]["address"].rpartition(":")[2])
        self.load = Load(self.port)
        self.load.start()
        wait_until(f"{WORKERS} workers to answer", lambda: len(self.by_pid()) >= WORKERS, 20)
        self.workers = set(self.by_pid())
        took = time.monotonic() - began
        self.say(f"{WORKERS} workers serve http://127.0.0.1:{self.port} after {took:.1f} s;")
        self.say(f"{CLIENTS} clients now ask without a pause until the end of the tour.")

    def by_pid(self):
        """Answers so far by pid."""
        result = collections.Counter()
        for (pid, _), number in self.load.counts().items():
            result[pid] += number
        return result

    def answering(self, seconds):
        """Who answers in the next seconds, and how often."""
        before = self.by_pid()
        time.sleep(seconds)
        return self.by_pid() - before

    def show_balance(self):
        self.title("Who answers? Four seconds of requests:")
        answers = self.answering(4)
        for pid, number in sorted(answers.items()):
            self.say(f"PID {pid:<8} {number:5} answers")
        self.check(set(answers) == self.workers, f"{len(answers)} workers share one port.")

    def kill_worker(self):
        before = self.by_pid()
        victim = max(before, key=before.get)
        self.title(f"kill -9 {victim}   (a worker)")
        # Stopped for a moment first, to see exactly which requests die with it: nobody can save those.
        os.kill(victim, signal.SIGSTOP)
        try:
            wait_until(f"worker {victim} to stop", lambda: is_stopped(victim), 5)
            in_hand = client_ports_in_hand(victim)
        finally:
            # In any case: a stopped worker would never leave when it is asked to.
            killed_at = time.monotonic()
            os.kill(victim, signal.SIGKILL)

        def replacement():
            new = set(self.by_pid()) - set(before)
            return new and (min(new), time.monotonic() - killed_at)

        new, took = wait_until("the worker's replacement to answer", replacement, 30)
        self.workers = self.workers - {victim} | {new}
        self.say(f"PID {new} is there and answers after {took * 1000:.0f} ms"
                 " (most of it is Python starting).")
        self.lost_with_worker = [
            failure for failure in self.load.failed()
            if failure.port in in_hand and failure.at >= killed_at
            and failure.what in ("ECONNRESET", "closed without an answer", "EPIPE")
        ]
        self.say(f"{len(in_hand)} requests were in the dead worker's hands, "
                 f"{len(self.lost_with_worker)} of them got no answer.")
        others = len(self.load.failed()) - len(self.lost_with_worker)
        self.check(others == 0, f"{others} other requests failed.")
        answers = self.answering(2)
        self.check(set(answers) == self.workers, f"The load is shared by {sorted(answers)} now.")

    def kill_master(self):
        state = self.pool.state()
        guard, master = state["guard"], state["master"]
        failures = len(self.load.failed())
        self.title(f"kill -9 {master}   (the master; its guard is {guard})")
        killed_at = time.monotonic()
        os.kill(master, signal.SIGKILL)

        def successor():
            new = self.pool.try_state()
            return new and new["master"] not in (None, master) and new

        new_state = wait_until("a new master", successor, 20)
        took = time.monotonic() - killed_at
        self.say(f"PID {new_state['master']} is the master now, and answers commands after "
                 f"{took * 1000:.0f} ms.")
        self.check(new_state["guard"] == guard and is_alive(guard),
                   f"The pid the world knows is the same: {guard}.")
        after = set(self.answering(3))
        same = after <= self.workers and all(map(is_alive, self.workers))
        self.check(same, f"The same workers serve: {sorted(after)}"
                   + ("." if same else f", before: {sorted(self.workers)}"))
        failed = len(self.load.failed()) - failures
        self.check(failed == 0, f"{failed} requests failed.")

    def upgrade(self):
        failures = len(self.load.failed())
        answered = self.load.answered()
        old = set(self.workers)
        self.title("einhornsh -e upgrade   (version 2 of the workers' program)")
        self.pool.version_file.write_text("2\n")
        began = time.monotonic()
        said = self.pool.shell("upgrade")
        for line in said.strip().splitlines():
            self.say(f"| {line}")
        wait_until("the old workers to leave", lambda: not any(map(is_alive, old)), 30)
        took = time.monotonic() - began
        before = self.load.counts()
        now = wait_until(
            f"{WORKERS} new workers to answer",
            lambda: len(self.load.counts() - before) >= WORKERS and self.load.counts() - before, 20)
        versions = sorted({version for _, version in now})
        time.sleep(2)
        self.check(versions == ["2"], f"{took:.1f} s later only version {', '.join(versions)} answers, "
                   f"from {sorted({pid for pid, _ in now})}.")
        failed = len(self.load.failed()) - failures
        self.check(failed == 0, f"{self.load.answered() - answered} requests were answered meanwhile, "
                   f"{failed} failed.")

    def finish_load(self):
        self.load.stop()
        lost = len(self.lost_with_worker)
        failed = self.load.failed()
        others = [failure for failure in failed if failure not in self.lost_with_worker]
        self.title("The sum of it:")
        self.say(f"{self.load.answered()} requests answered, by {len(self.by_pid())} processes.")
        self.say(f"{lost} died with the worker that was killed while it held them.")
        kinds = collections.Counter(failure.what for failure in others)
        self.check(not others, f"{len(others)} failed" + (f": {dict(kinds)}" if others else "."))


def stay(tour):
    """Leaves the pool to the user until Ctrl-C; True if it was still well by then."""
    pool = tour.pool
    shell = f"{shlex.quote(os.path.relpath(pool.einhornsh))} -d {pool.socket}"
    print(f"""
The pool is yours until Ctrl-C. In another terminal:

    curl 127.0.0.1:{tour.port}        # again and again
    {shell}        # a shell; try help, status, inc, dec
    {shell} -e status
    {shell} -e upgrade
    kill -9 PID        # of any of its processes: status tells them
    tail -f {pool.log}
""", flush=True)
    try:
        code = pool.process.wait()
        print(f"\nThe pool has ended by itself, with {code}.")
        return code == 0
    except KeyboardInterrupt:
        print("\nStopping the pool.")
        return True


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin-dir", type=pathlib.Path, required=True)
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args(arguments)

    def ask_to_end(number, frame):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, ask_to_end)
    signal.signal(signal.SIGHUP, ask_to_end)
    adopt_orphans()
    pool = Pool(options.bin_dir.resolve())
    tour = Tour(pool)
    wrong = []
    interrupted = False
    try:
        tour.run()
        wrong += tour.wrong
        if not wrong and not options.once and sys.stdin.isatty() and sys.stdout.isatty():
            if not stay(tour):
                wrong.append("the pool did not stay")
    except Wrong as error:
        wrong += [*tour.wrong, str(error)]
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if tour.load:
            tour.load.stop()
        wrong += pool.stop()
    if wrong:
        print("\nNot as it should be:")
        for line in wrong:
            print(f"  - {line}")
        print(f"The end of Einhorn's log ({pool.log}):\n{pool.log_tail()}", flush=True)
        return 1
    pool.remove_files()
    if interrupted:
        return 130
    print("\nThe pool was stopped. Everything was as it should be.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
