#!/usr/bin/python3
"""A small HTTP server to run under Einhorn: "hello from PID version V".

It serves on the socket that Einhorn hands it (EINHORN_FD_0); started by hand it opens a port of
its own (the first argument, 8080 by default). It shows what a worker owes its pool:

  * it takes a connection only when it will answer it: SIGUSR2 (and TERM and INT) make it stop
    taking new ones, answer those it has, and leave with exit code 0; new connections stay in the
    shared socket's queue for the other workers;
  * with --ack it says itself when it is ready (`einhorn -m manual`).

Paths: /         answers at once
       /slow     answers after half a second; /slow?ms=N after N milliseconds

The version is what the file named by HELLO_VERSION_FILE holds when the worker starts, or 1.
"""

import json
import os
import selectors
import signal
import socket
import sys
import threading
import urllib.parse

MOST_AT_A_TIME = 128  # connections of one worker; the others wait in the shared queue
MOST_REQUEST_BYTES = 64 * 1024
PATIENCE = 10.0  # seconds for a client to send its request, and again to take the answer


class Stop:
    """Turns the signals that ask for an end into something a selector can wait for."""

    def __init__(self):
        self.reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self.requested = False
        # Python's handlers run between two instructions of the main thread. This writes at once, so a
        # signal that comes just before a wait ends it.
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number, frame):
        self.requested = True


def read_version():
    path = os.environ.get("HELLO_VERSION_FILE")
    if not path:
        return "1"
    with open(path, encoding="utf-8") as file:
        return file.read().strip()


def open_listener(arguments):
    """The socket from Einhorn, or one of our own."""
    if "EINHORN_FD_0" in os.environ:
        listener = socket.socket(fileno=int(os.environ["EINHORN_FD_0"]))
    else:
        listener = socket.create_server(("127.0.0.1", int(arguments[0]) if arguments else 8080))
    # Several workers wake up for one connection and only one gets it; the others must not hang in
    # accept(). The flag belongs to the shared socket, so it is the same for all of them.
    listener.setblocking(False)
    return listener


def acknowledge():
    """Tells Einhorn that this worker is ready."""
    if os.environ.get("EINHORN_MASTER_PID") != str(os.getppid()):
        return  # not run by Einhorn, or not directly
    message = json.dumps({"command": "worker:ack", "pid": os.getpid()}).encode() + b"\n"
    if "EINHORN_SOCK_FD" in os.environ:
        os.write(int(os.environ["EINHORN_SOCK_FD"]), message)
        return
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["EINHORN_SOCK_PATH"])
        connection.sendall(message)


def read_request(connection):
    """The path that is asked for; None if the client left or sent no request."""
    data = b""
    while b"\r\n\r\n" not in data:
        if len(data) > MOST_REQUEST_BYTES:
            return None
        more = connection.recv(8192)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        return None
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and value.strip().isdigit():
            length = min(int(value), MOST_REQUEST_BYTES)
    # What is left unread when a connection is closed makes the kernel reset it.
    while len(body) < length:
        more = connection.recv(8192)
        if not more:
            break
        body += more
    return words[1]


def answer(connection, version):
    path = read_request(connection)
    if path is None:
        return
    url = urllib.parse.urlsplit(path)
    status = "200 OK"
    text = f"hello from {os.getpid()} version {version}\n"
    if url.path == "/slow":
        wish = urllib.parse.parse_qs(url.query).get("ms", ["500"])[0]
        threading.Event().wait(min(int(wish), 60_000) / 1000 if wish.isdigit() else 0.5)
    elif url.path != "/":
        status, text = "404 Not Found", "only / and /slow are here\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall((head + text).encode())
    # Say that this was all, then wait for the client to have seen it.
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(1.0)
    while connection.recv(8192):
        pass


def serve(listener, stop, version):
    """Takes connections until asked to stop; returns when the last one was answered."""
    places = threading.BoundedSemaphore(MOST_AT_A_TIME)
    serving = set()  # threads; touched by this thread only

    def run(connection):
        try:
            with connection:
                connection.settimeout(PATIENCE)
                answer(connection, version)
        except OSError:
            pass  # the client went away; there is nobody to tell
        finally:
            places.release()

    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop.reader, selectors.EVENT_READ)
        while not stop.requested:
            selector.select()
            while not stop.requested and places.acquire(timeout=0.1):
                try:
                    connection, _ = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    places.release()
                    break
                except OSError as error:
                    # Out of descriptors or memory: leave the connection to another worker for now.
                    print(f"accept: {error}", file=sys.stderr, flush=True)
                    places.release()
                    threading.Event().wait(0.05)
                    break
                serving = {thread for thread in serving if thread.is_alive()}
                thread = threading.Thread(target=run, args=(connection,), daemon=True)
                serving.add(thread)
                thread.start()
    # From here on, new connections are for the other workers.
    listener.close()
    for thread in serving:
        thread.join()


def main():
    stop = Stop()  # first, so that a signal at any later moment finds it
    arguments = [argument for argument in sys.argv[1:] if argument != "--ack"]
    listener = open_listener(arguments)
    version = read_version()
    if "--ack" in sys.argv[1:]:
        acknowledge()
    serve(listener, stop, version)
    return 0


if __name__ == "__main__":
    sys.exit(main())
