"""einhorn-agent as a process of the test: its address, its log, what it answers."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .programs import program
from .waiting import wait_until


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = {k.lower(): v for k, v in response.getheaders()}
        self.body = response.read()

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)


class Agent:
    """`einhorn-agent --listen 127.0.0.1:0 ARGS`, its log in a file of its own."""

    def __init__(self, args, env=None, listen="127.0.0.1:0", wait=True):
        self.directory = Path(tempfile.mkdtemp(prefix="einhorn-agent-"))
        self.log_path = self.directory / "log"
        self.command = [program("einhorn-agent"), "--listen", listen, *map(str, args)]
        self.env = {**os.environ, "TMPDIR": str(self.directory), "LC_ALL": "C.UTF-8", **(env or {})}
        self.process = None
        try:
            self.start(wait)
        except BaseException:
            self.destroy()
            raise

    def start(self, wait=True):
        self.mark = len(self.log())
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env
            )
        if wait:
            self.address = self.wait_log(r"listening on http://([^/]+)/").group(1)
        return self

    def log(self):
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern, deadline=20.0):
        def look():
            found = re.search(pattern, self.log()[self.mark :])
            assert found or self.process.poll() is None, f"ended: {self.log()}"
            return found

        return wait_until(look, deadline, lambda: f"{pattern!r} in the agent's log: {self.log()}")

    def request(self, method, path, body=None, headers=None, timeout=20):
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **kwargs):
        return self.request("GET", path, **kwargs)

    def pool(self, name):
        pools = self.get("/api/pools").json()["pools"]
        return next((p for p in pools if p["name"] == name), None)

    def wait_pool(self, name, predicate, deadline=30.0):
        last = []

        def look():
            last[:] = [self.pool(name)]
            return last[0] is not None and predicate(last[0])

        wait_until(look, deadline, lambda: f"pool {name}; last {str(last)[:3000]}\n{self.log()}")
        return last[0]

    def stream(self, path="/api/events", timeout=30):
        return Stream(self.address, path, timeout)

    def stop(self, number=signal.SIGTERM, deadline=20.0):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(deadline)

    def destroy(self):
        """Ends it, whatever it is at, and takes its directory away."""
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Stream:
    """Server-sent events: (name, data) pairs."""

    def __init__(self, address, path, timeout):
        self.connection = http.client.HTTPConnection(address, timeout=timeout)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        assert self.response.getheader("content-type") == "text/event-stream"
        self.seen = []

    def next(self):
        name, data = None, None
        while True:
            line = self.response.readline().decode()
            assert line, "the stream has ended"
            line = line.rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = json.loads(line[6:])
            elif not line and name:
                self.seen.append((name, data))
                return name, data

    def wait(self, event, pool=None):
        """The next line whose event has that name."""
        while True:
            name, data = self.next()
            if name == "line" and data["line"]["event"] == event and pool in (None, data["pool"]):
                return data["line"]

    def close(self):
        self.connection.close()
