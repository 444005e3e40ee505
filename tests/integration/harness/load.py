"""Requests to a pool: one at a time, or many, each of them accounted for."""

import json
import os
import signal
import socket
import subprocess

from .programs import worker
from .waiting import wait_until


def connect(address, timeout=10.0):
    """A stream connection to 127.0.0.1:80, [::1]:80, unix:/path or unix:@name."""
    if address.startswith("unix:"):
        path = address[5:]
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        stream.connect("\0" + path[1:] if path.startswith("@") else path)
        return stream
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host.strip("[]"), int(port)), timeout=timeout)


def http_get(address, timeout=10.0):
    """One request over a new connection; the worker's answer as a dict."""
    with connect(address, timeout) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        data = b""
        while True:
            got = stream.recv(65536)
            if not got:
                break
            data += got
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    return json.loads(body)


def ask_udp(host, port, timeout=10.0):
    """One datagram and its answer as a dict."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.settimeout(timeout)
        peer.sendto(b"?", (host, port))
        return json.loads(peer.recv(65536))


class Load:
    """Keeps requests coming until stopped; `result` then says what became of each of them.

    with Load(address) as load:
        ...
        load.wait_ok(1000)
    assert load.result["failures"] == 0
    """

    def __init__(self, address, directory, connections=16, mode="new", requests=None, rate=2000):
        self.progress = os.path.join(directory, f"load-{id(self):x}")
        self.failures_path = f"{self.progress}.failures"
        command = [worker("loadgen"), address, f"--connections={connections}", f"--mode={mode}"]
        command += [f"--rate={rate}", f"--progress={self.progress}"]
        command.append(f"--failures={self.failures_path}")
        if requests is not None:
            command.append(f"--requests={requests}")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.result = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def counts(self):
        """(answered, failed) up to now."""
        try:
            with open(self.progress, encoding="utf-8") as file:
                ok, failed = file.read().split()
        except FileNotFoundError:
            return 0, 0
        return int(ok), int(failed)

    def failures(self):
        """Every request that failed, as loadgen tells of it; whole once the load has ended."""
        with open(self.failures_path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def wait_ok(self, number, deadline=60.0):
        """Waits until `number` requests altogether have been answered."""
        wait_until(
            lambda: self.counts()[0] >= number or self.process.poll() is not None,
            deadline,
            lambda: f"{number} answers, at {self.counts()}",
        )

    def wait_more(self, number, deadline=60.0):
        """Waits until `number` more requests have been answered."""
        self.wait_ok(self.counts()[0] + number, deadline)

    def wait_end(self, deadline=120.0):
        """Waits until the requested number is through."""
        if self.result is None:
            out, _ = self.process.communicate(timeout=deadline)
            self.result = json.loads(out)
        return self.result

    def stop(self):
        """Begins nothing new, finishes what is under way, and returns the account."""
        if self.result is None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait_end(30)
