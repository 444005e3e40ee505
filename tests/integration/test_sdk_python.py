"""What the worker library for Python does besides what all of them do (test_sdk_conformance.py): Python
handles signals between two instructions of its main thread, which must be awake for that."""

import os
import signal
import subprocess
import sys

from harness import http_get, wait_until
from harness.programs import ROOT

LIBRARY = str(ROOT / "sdk" / "python")
EPOLL_WAIT = ("232", "281", "22")  # epoll_wait, epoll_pwait; the latter on arm64

# Its signals go to another thread, so the wait of the main one never ends by EINTR: as it is when one comes
# just before that wait.
WORKER = """
import os, pathlib, signal, sys, threading
import einhorn_worker as einhorn

einhorn.on_stop()
signal.signal(signal.SIGUSR1, lambda *_: pathlib.Path(sys.argv[1]).touch())
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGUSR2})

def take_signals():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1, signal.SIGUSR2})
    taken.set()
    threading.Event().wait()

taken = threading.Event()
threading.Thread(target=take_signals, daemon=True).start()
taken.wait()
with einhorn.listener() as listener:
    listener.setblocking(True)
    einhorn.ack()
    for connection in einhorn.connections(listener):
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\n{}")
"""


def waits(pid):
    """Is its main thread in the wait for connections?"""
    return open(f"/proc/{pid}/syscall", encoding="ascii").read().split(" ")[0] in EPOLL_WAIT


def test_a_stop_that_does_not_end_the_wait_is_heard(make_pool, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    touched = tmp_path / "touched"
    pool = make_pool(
        ["-m", "manual", "-b", "127.0.0.1:0"],
        [sys.executable, "-W", "error", str(tmp_path / "worker.py"), str(touched)],
        env={"PYTHONPATH": LIBRARY},
    )
    (worker,) = pool.wait_ready(1)
    pid = worker["pid"]
    wait_until(lambda: waits(pid))
    os.kill(pid, signal.SIGUSR1)
    wait_until(touched.exists, what="the handler of another signal")
    wait_until(lambda: waits(pid), what="the wait goes on: there is no connection to accept")
    http_get(pool.address)
    wait_until(lambda: waits(pid))
    assert pool.stop(signal.SIGINT) == 0


ASYNCIO = """
import asyncio, signal
import einhorn_worker as einhorn

async def main():
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, stop.set)
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    einhorn.on_stop(stop.set)
    assert signal.set_wakeup_fd(before) == before, "the loop is still woken by its own"
    signal.raise_signal(signal.SIGUSR2)
    await asyncio.wait_for(stop.wait(), 10)
    assert einhorn.stopping()

asyncio.run(main())
"""


def run(code):
    command = [sys.executable, "-W", "error", "-c", code]
    env = {**os.environ, "PYTHONPATH": LIBRARY}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")


def test_asyncio_is_woken_by_its_own_descriptor():
    run(ASYNCIO)
