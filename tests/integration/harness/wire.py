"""The command socket as a client sees it: one message a line, JSON or escaped YAML."""

import json
import socket
import struct

import yaml


class RubyLoader(yaml.SafeLoader):
    """Safe YAML with what Ruby writes: its Set, and symbols, which stay texts like ":state"."""


def _construct_set(loader, node):
    fields = loader.construct_mapping(node, deep=True)
    return set(fields.get("hash") or {})


RubyLoader.add_constructor("!ruby/object:Set", _construct_set)


def load_yaml(text):
    return yaml.load(text, RubyLoader)


def escape(text):
    """`%` and newline, nothing else."""
    return text.replace("%", "%25").replace("\n", "%0A")


def unescape(line):
    return line.replace("%0A", "\n").replace("%25", "%")


def encode(document, language):
    """One request line with its newline."""
    if language == "json":
        return escape(json.dumps(document)).encode() + b"\n"
    return escape(yaml.safe_dump(document)).encode() + b"\n"


def decode(line):
    """A reply line (without newline) in either language."""
    text = line.decode()
    if text.startswith("{"):
        return json.loads(text)
    return load_yaml(unescape(text))


class Closed(EOFError):
    """The master closed the connection before a whole line came."""


class Client:
    """One connection to a command socket; every wait has a deadline."""

    def __init__(self, path, timeout=10.0):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def peer_pid(self):
        """The process that listens (SO_PEERCRED)."""
        size = struct.calcsize("3i")
        found = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return struct.unpack("3i", found)[0]

    def send_line(self, line):
        self.socket.sendall(line)

    def read_line(self):
        """The next line without its newline; Closed at the end, TimeoutError when none comes."""
        while b"\n" not in self.buffer:
            got = self.socket.recv(65536)
            if not got:
                raise Closed(f"closed after {self.buffer!r}")
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line

    def at_end(self):
        """Waits for the other side to close; false if a byte comes instead."""
        if self.buffer:
            return False
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def request(self, document, language="json"):
        """Sends one request and returns the first reply as a dict."""
        self.send_line(encode(document, language))
        return decode(self.read_line())

    def conversation(self, document, language="json"):
        """Sends one request with an id and returns all replies up to the one without `wait`."""
        replies = [self.request(document, language)]
        while replies[-1].get("wait"):
            replies.append(decode(self.read_line()))
        return replies
