"""Opens pidfds for processes under valgrind, which can't (tests/interpose/borrowed_pidfds.cpp)."""

import os
import socket
import struct
import threading


class Lender:
    def __init__(self, path):
        self.path = str(path)
        self.given = 0
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                asker, _ = self._listener.accept()
            except OSError:
                return  # closed
            with asker:
                self._answer(asker)

    def _answer(self, asker):
        request = asker.recv(4)
        if len(request) < 4:
            return
        try:
            pidfd = os.pidfd_open(*struct.unpack("i", request))
        except OSError as error:
            asker.send(struct.pack("i", error.errno))
            return
        try:
            self.given += 1
            socket.send_fds(asker, [struct.pack("i", 0)], [pidfd])
        finally:
            os.close(pidfd)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
