"""A small WSGI server: some threads that take connections from one shared socket. Each finishes what it has
before the worker leaves."""

import os
import signal
import threading
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import einhorn_worker as einhorn
from shop import app

ServerHandler.http_version = "1.1"
THREADS = int(os.environ.get("THREADS", "4"))


class Handler(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class Server(WSGIServer):
    """Serves the connections that it is given."""

    def __init__(self, listener):
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)

    def serve_some(self, stopping):
        while not stopping.is_set():
            try:
                connection, address = self.socket.accept()
            except OSError:  # nobody came for a while, or another worker was faster
                continue
            connection.settimeout(30)
            try:
                self.finish_request(connection, address)
            except OSError:
                pass  # the client is gone
            finally:
                self.shutdown_request(connection)


def einhorn_main():
    listener = einhorn.listener()
    listener.settimeout(0.5)
    stopping = threading.Event()
    server = Server(listener)
    threads = [threading.Thread(target=server.serve_some, args=(stopping,)) for _ in range(THREADS)]
    signal.signal(signal.SIGUSR2, lambda *_: stopping.set())
    for thread in threads:
        thread.start()
    einhorn.ack()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.5)  # not for ever: Python's handlers run between two instructions of this thread

