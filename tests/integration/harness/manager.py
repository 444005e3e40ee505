"""A service manager as systemd is one to its services: a datagram socket that says what it heard."""

import array
import os
import socket

from .waiting import wait_until


class ServiceManager:
    """`heard`: each datagram as a dict. `stored`: descriptors by FDNAME; ours to close.

    `environment` is what a service finds. With `serve_as` a command line gets `stored` as systemd
    hands it in at the next start."""

    def __init__(self, directory, watchdog_ms=None):
        self.path = os.path.join(directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": self.path}
        if watchdog_ms is not None:
            self.environment["WATCHDOG_USEC"] = str(watchdog_ms * 1000)
        self.heard = []
        self.stored = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        for fd in self.stored.values():
            os.close(fd)

    def read(self):
        """Takes in what has come; everything heard."""
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
            except BlockingIOError:
                return self.heard
            words = dict(line.split("=", 1) for line in data.decode().splitlines())
            fds = array.array("i")
            for level, kind, payload in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                fds.frombytes(payload)
            assert len(fds) == (1 if words.get("FDSTORE") == "1" else 0), words
            if "FDSTORE" in words:
                self._store(words["FDNAME"], fds[0])
            if "FDSTOREREMOVE" in words:
                os.close(self.stored.pop(words["FDNAME"]))
            self.heard.append(words)

    def _store(self, name, fd):
        if any(os.path.sameopenfile(fd, other) for other in self.stored.values()):
            os.close(fd)  # as systemd does with what it has already
        else:
            assert name not in self.stored
            self.stored[name] = fd

    def mark(self):
        return len(self.read())

    def wait(self, key, value=None, since=0, deadline=20.0):
        """Waits for a datagram with that key (and that beginning of its value); returns it."""

        def look():
            for words in self.read()[since:]:
                if key in words and (value is None or words[key].startswith(value)):
                    return words
            return None

        return wait_until(look, deadline, lambda: f"{key}={value} in {self.heard[since:]}")

    def serve_as(self):
        """Words before a command line, and descriptors for pass_fds."""
        script = "".join(
            f"exec {number}<&{fd} {fd}<&-\n" for number, fd in enumerate(self.stored.values(), 3)
        )
        script += f"export LISTEN_PID=$$ LISTEN_FDS={len(self.stored)}\n"
        script += f"export LISTEN_FDNAMES={':'.join(self.stored)}\n"
        return ["bash", "-c", script + 'exec "$@"', "bash"], list(self.stored.values())
