"""One einhorn with its own directory, its log, its command socket and its processes."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

from . import processes
from .programs import einhorn_command, worker
from .waiting import wait_until
from .wire import Client

MARK = "POOL_OF_THE_TEST"
PASSED_ON = ("PATH", "HOME", "USER", "ASAN_OPTIONS", "UBSAN_OPTIONS")


class Pool:
    """Starts `einhorn ARGS -- WORKER...` in a directory of its own, which is also its TMPDIR, and
    which `@DIR@` in ARGS stands for.

    `worker`: a list of words or one text; the first word may be the name of a sample worker.
    `wrapper`: words put before the command, such as `unshare ...`.
    `stderr`: where the log goes; by default a file that the wait_log family reads."""

    def __init__(
        self,
        args=(),
        worker_command="http_worker",
        name=None,
        env=None,
        wrapper=(),
        stderr=None,
        stdout=None,
        pass_fds=(),
        directory=None,
        cwd=None,
        preexec=None,
        start=True,
    ):
        self.own_directory = directory is None
        self.dir = Path(directory or tempfile.mkdtemp(prefix="einhorn-test-"))
        self.name = name
        self.args = [str(word).replace("@DIR@", str(self.dir)) for word in args]
        self.worker_command = self._resolve(worker_command)
        self.log_path = self.dir / "log"
        self.stdout_path = self.dir / "stdout"
        self.mark = uuid.uuid4().hex
        self.env = self._environment(env or {})
        self.wrapper = list(wrapper)
        self.stderr, self.stdout = stderr, stdout
        self.pass_fds, self.cwd, self.preexec = pass_fds, cwd or self.dir, preexec
        self.popens = []
        self.seen = set()
        if start:
            self.start()

    @staticmethod
    def _resolve(command):
        words = shlex.split(command) if isinstance(command, str) else [str(w) for w in command]
        if words and words[0] in ("http_worker", "env_dump"):
            words[0] = worker(words[0])
        return words

    def _environment(self, extra):
        base = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        base.update({"TMPDIR": str(self.dir), MARK: self.mark, "LC_ALL": "C.UTF-8"})
        base.update(extra)
        return {key: str(value) for key, value in base.items() if value is not None}

    # --- starting and ending ---------------------------------------------------------------------

    def command_line(self):
        words = self.wrapper + einhorn_command()
        if self.name is not None:
            words += ["-c", self.name]
        return words + self.args + (["--", *self.worker_command] if self.worker_command else [])

    def start(self):
        """Starts the command line (again); `process` is then the new one."""
        log = self.stderr if self.stderr is not None else open(self.log_path, "ab")
        out = self.stdout if self.stdout is not None else open(self.stdout_path, "ab")
        try:
            self.process = subprocess.Popen(
                self.command_line(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=self.env,
                cwd=self.cwd,
                pass_fds=self.pass_fds,
                preexec_fn=self.preexec,
            )
        finally:
            if self.stderr is None:
                log.close()
            if self.stdout is None:
                out.close()
        self.popens.append(self.process)
        return self

    def processes(self):
        """Stats of the processes of this pool, whoever is their parent by now: what we started,
        what is below that, and what carries the pool's mark or works in its directory."""
        found, pids = [], {p.pid for p in self.popens if p.returncode is None}
        for stat in processes.descendants():
            if (
                stat.pid in pids
                or stat.ppid in pids
                or (stat.pid, stat.start_time) in self.seen
                or processes.environment_of(stat.pid).get(MARK) == self.mark
                or processes.directory_of(stat.pid) == str(self.cwd)
            ):
                found.append(stat)
                pids.add(stat.pid)
                self.seen.add((stat.pid, stat.start_time))
        return found

    def wait_exit(self, deadline=20.0):
        """Waits for the started process (the guard) to end; returns its exit code."""
        wait_until(
            lambda: self.process.poll() is not None,
            deadline,
            lambda: f"the end of {self.process.pid}\n{self.log()}",
        )
        return self.process.returncode

    @property
    def exit_code(self):
        return self.process.poll()

    def send(self, number):
        """A signal to the guard."""
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, deadline=20.0):
        """Signals the guard, waits for its end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait_exit(deadline)

    def wait_gone(self, deadline=10.0):
        """Asserts that of this pool no process is left."""

        def gone():
            processes.reap_adopted({p.pid for p in self.popens if p.poll() is None})
            return not self.processes()

        wait_until(gone, deadline, lambda: f"left behind: {self._titles()}\n{self.log()}")

    def _titles(self):
        return [(s.pid, s.ppid, s.state, s.name) for s in self.processes()]

    def destroy(self):
        """Ends whatever is left and removes the directory."""
        processes.end_all(self.processes, self.popens)
        if self.own_directory:
            shutil.rmtree(self.dir, ignore_errors=True)

    # --- files -----------------------------------------------------------------------------------

    def path(self, kind):
        """The default path of `sock`, `lock` or `pid`."""
        stem = "einhorn" if self.name is None else f"einhorn-{self.name}"
        return self.dir / f"{stem}.{kind}"

    @property
    def socket_path(self):
        for flag in ("-d", "--socket-path"):
            if flag in self.args:
                return Path(self.cwd) / self.args[self.args.index(flag) + 1]
        return self.path("sock")

    def stdout_text(self):
        return self.stdout_path.read_text(errors="replace")

    # --- the log ---------------------------------------------------------------------------------

    def log(self, since=0):
        try:
            return self.log_path.read_text(errors="replace")[since:]
        except FileNotFoundError:
            return ""

    def log_size(self):
        """A mark for `since`."""
        return len(self.log())

    def wait_log(self, pattern, deadline=10.0, since=0):
        """Waits for the regular expression in the log; returns the match."""
        found = []

        def look():
            match = re.search(pattern, self.log(since), re.MULTILINE)
            if match:
                found.append(match)
            return match or self._dead_and_silent(pattern, since)

        wait_until(look, deadline, lambda: f"in the log: {pattern!r}\n{self.log(since)}")
        assert found, f"ended ({self.exit_code}) without {pattern!r} in the log:\n{self.log(since)}"
        return found[0]

    def _dead_and_silent(self, pattern, since):
        if self.process.poll() is None:
            return False
        return not re.search(pattern, self.log(since), re.MULTILINE) and not self.processes()

    def count_log(self, pattern, since=0):
        return len(re.findall(pattern, self.log(since), re.MULTILINE))

    # --- commands --------------------------------------------------------------------------------

    def client(self, timeout=10.0):
        return Client(self.socket_path, timeout)

    def wait_socket(self, deadline=10.0):
        """Waits until the command socket can be connected to."""

        def connected():
            try:
                self.client().close()
                return True
            except (FileNotFoundError, ConnectionRefusedError):
                assert (
                    self.process.poll() is None or self.processes()
                ), f"ended with {self.exit_code} before its socket was there\n{self.log()}"
                return False

        wait_until(connected, deadline, lambda: f"{self.socket_path}\n{self.log()}")
        return self

    def command(self, command, *args, language="json", **fields):
        """One command over a new connection; the first reply's message."""
        return self.request(command, *args, language=language, **fields)["message"]

    def request(self, command, *args, language="json", timeout=10.0, **fields):
        """One command over a new connection; the first reply as a dict."""
        document = {"command": command, **fields}
        if args:
            document["args"] = list(args)
        self.wait_socket()
        with self.client(timeout) as client:
            return client.request(document, language)

    def state_json(self):
        """The answer to `state json`. Waits for the socket, and asks again if the master dies
        while it answers."""

        def ask():
            try:
                return json.loads(self.command("state", "json", id=1))
            except (EOFError, ConnectionError):
                assert self.process.poll() is None or self.processes(), "the pool has ended"
                return None

        return wait_until(ask, 15, lambda: f"an answer to `state json`\n{self.log()}")

    def wait_state(self, predicate, deadline=10.0, what="the state"):
        """Waits until `predicate(state_json())` is true; returns that state."""
        last = []

        def look():
            last[:] = [self.state_json()]
            return predicate(last[0])

        wait_until(look, deadline, lambda: f"{what}; last seen {last}\n{self.log()[-8000:]}")
        return last[0]

    def workers(self):
        return self.state_json()["workers"]

    def pids(self):
        return sorted(w["pid"] for w in self.workers())

    def wait_ready(self, number=None, deadline=15.0):
        """Waits until exactly `number` workers (default: the pool's own number) are there, all
        ready; returns their dicts by index."""

        def ready(state):
            wanted = state["number"] if number is None else number
            states = [w["state"] for w in state["workers"]]
            return states == ["ready"] * wanted

        state = self.wait_state(ready, deadline, f"{number} ready workers")
        return sorted(state["workers"], key=lambda w: w["index"])

    @property
    def guard_pid(self):
        return self.state_json()["guard"]

    @property
    def master_pid(self):
        return self.state_json()["master"]

    def addresses(self):
        """What the sockets are bound to, in `-b` order, connectable: a socket for all addresses is
        given as 127.0.0.1."""
        found = [entry["address"] for entry in self.state_json()["sockets"]]
        return [re.sub(r"^(\[::\]|0\.0\.0\.0|\*)(?=:\d+$)", "127.0.0.1", text) for text in found]

    @property
    def address(self):
        return self.addresses()[0]

    def kill_worker(self, pid):
        """SIGKILL to a worker, and waits until the master knows that it is gone."""
        os.kill(pid, signal.SIGKILL)
        self.wait_state(lambda s: pid not in {w["pid"] for w in s["workers"]}, 20, f"the end of {pid}")

    def kill_master(self):
        """SIGKILL to the master, and waits until another one answers; returns the new pid."""
        old = None
        while old is None:
            pid = self.master_pid
            with contextlib.suppress(ProcessLookupError):  # it has just handed over and left
                os.kill(pid, signal.SIGKILL)
                old = pid
        return self.wait_state(lambda s: s["master"] != old, 15, "a new master")["master"]
