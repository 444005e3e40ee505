"""A server with one thread that says it is alive, counts its requests, and goes wrong as it is asked.

GET /hang      it hangs in this request, for ever
GET /sleep/S   it takes S seconds
GET /leak/M    it keeps M megabytes
GET /burn/S    it computes for S seconds and answers at once
GET /fork      it leaves a process behind
GET /open/N    N descriptors more
GET /thread/N  N threads more
anything else: who it is

Arguments: how often it pings in milliseconds (0: never), and what it does on USR2: drain or ignore.
With PROBE=1 it also answers on a socket of its own, on the port in EINHORN_PROBE_ADDRESS.
"""

import faulthandler
import json
import os
import select
import signal
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "..", "..", "sdk", "python"))
import einhorn_worker as worker  # noqa: E402

faulthandler.register(signal.SIGUSR1)
interval = int(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0
if "ignore" in sys.argv:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
else:
    worker.on_stop()
kept, count = [], 0


def hang_for_ever():
    while True:
        time.sleep(1000)


def burn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def act(path):
    _, verb, *rest = path.split("/")
    if verb == "hang":
        hang_for_ever()
    elif verb == "sleep":
        time.sleep(float(rest[0]))
    elif verb == "leak":
        kept.append(bytearray(b"x") * (1024 * 1024 * int(rest[0])))
    elif verb == "burn":
        threading.Thread(target=burn, args=(float(rest[0]),), daemon=True).start()
    elif verb == "thread":
        for _ in range(int(rest[0])):
            threading.Thread(target=hang_for_ever, daemon=True).start()
    elif verb == "open":
        kept.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(int(rest[0])))
    elif verb == "fork":
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            hang_for_ever()


def serve(listener):
    global count
    try:
        stream, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return
    with stream:
        stream.settimeout(5)
        try:
            words = stream.recv(65536).split()
            if len(words) < 2:
                return
            count += 1
            name = f"r{count}-{os.getpid()}"
            worker.ping(name, busy=True)
            act(words[1].decode())
            worker.ping(name, busy=False)
            body = json.dumps({"pid": os.getpid(), "index": worker.index(), "count": count})
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            stream.sendall((head + body).encode())
        except OSError:
            return


listeners = [worker.listener()]
listeners[0].setblocking(False)
probed = os.environ.get("EINHORN_PROBE_ADDRESS", "")
if probed:
    host, port = probed.rsplit(":", 1)
    listeners.append(socket.create_server((host, int(port))))
    listeners[1].setblocking(False)
worker.ack()
due = 0.0
while not worker.stopping():
    if interval and time.monotonic() >= due:
        worker.ping()
        due = time.monotonic() + interval
    for listener in select.select(listeners, [], [], interval or 1)[0]:
        serve(listener)
