"""One question to a server of each kind, over a new connection; anything but the right answer is an
exception."""

import socket
import struct
import threading
import time

TIMEOUT = 20.0


class Wrong(Exception):
    """An answer, but not the right one."""


def _connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def _read_to_end(stream):
    data = b""
    while got := stream.recv(65536):
        data += got
    return data


def http(port):
    with _connect(port) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: who.test\r\nConnection: close\r\n\r\n")
        head, _, body = _read_to_end(stream).partition(b"\r\n\r\n")
        if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) or b"hello" not in body:
            raise Wrong(head[:100])


def redis(port):
    with _connect(port) as stream:
        stream.sendall(b"PING\r\n")
        if (got := stream.recv(100)) != b"+PONG\r\n":
            raise Wrong(got)


def memcached(port):
    with _connect(port) as stream:
        stream.sendall(b"version\r\n")
        if not (got := stream.recv(100)).startswith(b"VERSION"):
            raise Wrong(got)


def greeting(port):
    with _connect(port) as stream:
        stream.sendall(b"\n")
        if (got := _read_to_end(stream)) != b"hello\n":
            raise Wrong(got)


def _record(kind, content):
    return struct.pack(">BBHHBB", 1, kind, 1, len(content), 0, 0) + content


def fastcgi(port):
    pairs = {b"REQUEST_METHOD": b"GET", b"SCRIPT_FILENAME": b"/nowhere.php", b"SCRIPT_NAME": b"/"}
    parameters = b"".join(bytes([len(k), len(v)]) + k + v for k, v in pairs.items())
    with _connect(port) as stream:
        stream.sendall(
            _record(1, struct.pack(">HB5x", 1, 0))
            + _record(4, parameters)
            + _record(4, b"")
            + _record(5, b"")
        )
        if b"File not found" not in (got := _read_to_end(stream)):
            raise Wrong(got[:100])


def _datagram(port, message):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(TIMEOUT / 4)
        peer.sendto(message, ("127.0.0.1", port))
        return peer.recv(2048)


def dns(port):
    """Which copy it was is in the answer."""
    question = b"\x03who\x04test\x00\x00\x01\x00\x01"
    got = _datagram(port, struct.pack(">HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question)
    if got[:2] != b"\0\x07" or got[-4:-1] != b"\x0a\0\0":
        raise Wrong(got)
    return got[-1:]


KINDS = {f.__name__: f for f in (http, redis, memcached, greeting, fastcgi, dns)}


class Asking:
    """Keeps asking from some threads, at a rate, until stopped; counts what became of it."""

    def __init__(self, kind, port, threads=4, rate=120):
        self.answered, self.failures, self.stopping = 0, [], threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(KINDS[kind], port, threads / rate))
            for _ in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, ask, port, pause):
        next_at = time.monotonic()
        while not self.stopping.is_set():
            try:
                ask(port)
                with self._lock:
                    self.answered += 1
            except (OSError, Wrong) as failure:
                with self._lock:
                    self.failures.append(f"{type(failure).__name__}: {failure}")
            next_at = max(next_at + pause, time.monotonic())
            self.stopping.wait(max(0.0, next_at - time.monotonic()))

    def stop(self):
        self.stopping.set()
        for thread in self._threads:
            thread.join()
        return self
