"""The conformance program in Python; what it does is written down in
tests/integration/sdk/scenario.py."""

import json
import os
import signal
import socket
import sys
import threading
import time

import einhorn_worker as einhorn


def which():
    text = os.environ.get("SDK_SOCKET", "0")
    return int(text) if text.isdigit() else text


def failure(call):
    """(what it returned, why it failed)"""
    try:
        return call(), None
    except einhorn.EinhornError as error:
        return None, str(error)


def tell():
    adopted, error = failure(lambda: einhorn.listener(which()))
    number = -1 if adopted is None else adopted.detach()
    told = {
        "worker": einhorn.is_worker(),
        "why": failure(einhorn.require_worker)[1],
        "index": -1 if einhorn.index() is None else einhorn.index(),
        "count": einhorn.socket_count(),
        "fd": number,
        "error": error,
        "ack": einhorn.ack(),
        "ping": einhorn.ping("x", busy=False),
        "status": einhorn.status("x"),
    }
    print(json.dumps(told))


def wait_for_file(file):
    open(file + ".begun", "w").close()
    while not os.path.exists(file):
        time.sleep(0.005)


def child_is_told():
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGUSR2)
        os._exit(0 if einhorn.stopping() else 1)
    return os.waitpid(child, 0)[1] == 0


def act(path):
    if path == "/ack":
        return einhorn.ack(os.environ.get("SDK_ACK", "auto"))
    if path == "/ping":
        return einhorn.ping('100%25 "sure"\nü', busy=True, status="serving")
    if path == "/status":
        return einhorn.status("warming up")
    if path == "/fork":
        return child_is_told()
    if path.startswith("/slow?"):
        wait_for_file(path[6:])
    return False


def serve(connection):
    with connection:
        request = b""
        while b"\r\n\r\n" not in request:
            got = connection.recv(4096)
            if not got:
                return
            request += got
        try:
            sent = act(request.split(b" ")[1].decode())
        except einhorn.EinhornError as error:
            print(error, file=sys.stderr, flush=True)
            sent = "error"
        body = json.dumps(
            {
                "pid": os.getpid(),
                "index": einhorn.index(),
                "worker": einhorn.is_worker(),
                "sent": sent,
            },
            separators=(",", ":"),
        )
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((head + body).encode())


def main():
    if sys.argv[1:] == ["tell"]:
        return tell()
    einhorn.on_stop()
    if einhorn.socket_count():
        listener = einhorn.listener(which())
    else:
        listener = socket.create_server(("127.0.0.1", 0))
        print(f"listening on {listener.getsockname()[1]}", flush=True)
    if os.environ.get("SDK_ACK_AT", "start") == "start":
        einhorn.ack(os.environ.get("SDK_ACK", "auto"))
    with listener:
        for connection in einhorn.connections(listener):
            threading.Thread(target=serve, args=(connection,)).start()


try:
    main()
except einhorn.EinhornError as error:
    sys.exit(str(error))
