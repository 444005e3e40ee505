"""A master made of Python, for einhornsh: it answers what the test wants."""

import json
import socket
import threading

from .wire import decode, encode

DEADLINE = 20.0

HELP = """You are speaking to the Einhorn command socket. You can run the following commands:

help: Print out available commands
set_workers: Set the number of workers
signal: Send signals to all workers (args: SIG1 [SIG2 ...])
state: Print the state
upgrade: Upgrade smoothly
upgrade_fleet: Upgrade a fleet at a time
"""


def encode_reply(reply, language):
    """JSON as it is, YAML escaped: other than in a request nothing in JSON is escaped."""
    if language == "json":
        return json.dumps(reply).encode() + b"\n"
    return encode(reply, "yaml")


class FakeMaster:
    """Answers on a command socket. `answers` maps a command to a list of replies (dicts without
    request_id), or to a function of (connection, request) that answers as it likes."""

    def __init__(self, path, answers=None, language="yaml"):
        self.path = str(path)
        self.language = language
        self.answers = {
            "ehlo": [{"message": "Welcome, somebody! This is a test.\n"}],
            "help": [{"message": HELP}],
        }
        self.answers.update(answers or {})
        self.requests = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(16)
        self.connections = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self, connection):
        buffer = b""
        try:
            while True:
                got = connection.recv(65536)
                if not got:
                    return
                buffer += got
                while b"\n" in buffer:
                    line, buffer = buffer.split(b"\n", 1)
                    request = decode(line)
                    self.requests.append(request)
                    self._answer(connection, request)
        except OSError:
            return

    def _answer(self, connection, request):
        answer = self.answers.get(request["command"])
        if answer is None:
            answer = [
                {"message": f"Unrecognized command: \"{request['command']}\"", "status": "error"}
            ]
        if callable(answer):
            answer(connection, request)
            return
        for reply in answer:
            self.send(connection, request, reply)

    def send(self, connection, request, reply):
        reply = dict(reply)
        if "id" in request:
            reply["request_id"] = request["id"]
        else:
            reply = {"message": reply["message"]}
        connection.sendall(encode_reply(reply, self.language))

    def commands(self):
        return [request["command"] for request in self.requests]

    def hang_up(self):
        """Closes the connections, and goes on listening."""
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        for thread in self.threads:
            thread.join(DEADLINE)
