"""What a worker of Einhorn needs: its sockets, saying that it is ready, leaving when asked to.

    import einhorn_worker as einhorn

    einhorn.on_stop()                        # SIGUSR2 means: finish and leave
    listener = einhorn.listener("web")       # or listener(0)
    einhorn.ack()
    for connection in einhorn.connections(listener):
        serve(connection)

Outside Einhorn `is_worker()` is false, and `ack`, `ping`, `status` and `notify` return False and
tell nobody, so that a program can be started by hand. What fails raises `EinhornError`, which says
why.
"""

import asyncio
import json
import os
import selectors
import signal
import socket
import threading
from typing import Callable, Iterator, List, Optional, Union

__version__ = "0.1.0"
__all__ = [
    "EinhornError",
    "NotAWorker",
    "ack",
    "connections",
    "drain",
    "fd",
    "index",
    "is_worker",
    "listener",
    "names",
    "notify",
    "on_stop",
    "ping",
    "require_worker",
    "socket_count",
    "status",
    "stopping",
]


class EinhornError(Exception):
    """What was asked of Einhorn is not there, or it could not be told; the message says what."""


class NotAWorker(EinhornError):
    """Einhorn does not run this process."""


# --- who am I -------------------------------------------------------------------------------------


def _number(variable: str) -> Optional[int]:
    text = os.environ.get(variable, "")
    return int(text) if text.isascii() and text.isdigit() else None


def is_worker() -> bool:
    """Does Einhorn run this process? True if EINHORN_MASTER_PID names its parent."""
    return _number("EINHORN_MASTER_PID") == os.getppid()


def require_worker() -> None:
    """Raises NotAWorker, with the reason, unless Einhorn runs this process."""
    if is_worker():
        return
    master = os.environ.get("EINHORN_MASTER_PID")
    if master is None:
        raise NotAWorker("not a worker of Einhorn: EINHORN_MASTER_PID is not set")
    raise NotAWorker(
        f"not a worker of Einhorn: EINHORN_MASTER_PID is {master}, "
        f"but the parent is {os.getppid()}"
    )


def index() -> Optional[int]:
    """This worker's index, unique among living workers of the pool; None outside Einhorn."""
    return _number("EINHORN_CHILD_INDEX")


# --- sockets --------------------------------------------------------------------------------------


def _listen_fds() -> int:
    """systemd's variables count only for the process they were made for."""
    return (_number("LISTEN_FDS") or 0) if _number("LISTEN_PID") == os.getpid() else 0


def socket_count() -> int:
    """How many sockets were handed in, by Einhorn's -b or by systemd."""
    count = _number("EINHORN_FD_COUNT")
    return _listen_fds() if count is None else count


def names() -> List[str]:
    """The sockets' names (-b ADDR,name=NAME), in the order of -b; "unknown" where none was given."""
    given = os.environ.get("LISTEN_FDNAMES")
    count = socket_count()
    return given.split(":")[:count] if given and count else []


def fd(which: Union[int, str] = 0) -> int:
    """The descriptor of a socket, by number (from 0, in the order of -b) or by name."""
    if isinstance(which, str):
        if which not in names():
            known = ":".join(names()) or "none"
            raise EinhornError(f'there is no socket named "{which}"; there are: {known}')
        which = names().index(which)
    count = socket_count()
    if not 0 <= which < count:
        raise EinhornError(f"there is no socket {which}: {count} were handed in (einhorn -b)")
    if "EINHORN_FD_COUNT" not in os.environ:
        return 3 + which
    number = _number(f"EINHORN_FD_{which}")
    if number is None:
        raise EinhornError(f"EINHORN_FD_{which} is not set, or is no number")
    return number


def listener(which: Union[int, str] = 0) -> socket.socket:
    """A socket that was handed in, by number or by name, as a `socket.socket`.

    It is non-blocking, because several workers wake up for one connection and only one gets it:
    `accept()` raises BlockingIOError in the others. `connections()` takes care of that, and so do
    asyncio and socketserver. Programs that this one starts do not inherit it.
    """
    number = fd(which)
    try:
        adopted = socket.socket(fileno=number)
    except OSError as error:
        raise EinhornError(
            f"socket {which}: descriptor {number} is no open socket: {error.strerror}"
        ) from error
    adopted.set_inheritable(False)
    adopted.setblocking(False)
    return adopted


# --- telling Einhorn ------------------------------------------------------------------------------


def _address(path: str) -> str:
    """A unix socket's address; an `@` in front means an abstract one."""
    return "\0" + path[1:] if path.startswith("@") else path


def _send_by_path(line: bytes) -> None:
    path = os.environ.get("EINHORN_SOCK_PATH")
    if path is None:
        raise EinhornError("EINHORN_SOCK_PATH is not set")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(_address(path))
            connection.sendall(line)
    except OSError as error:
        raise EinhornError(f"could not send to {path}: {error}") from error


def _send_by_descriptor(line: bytes) -> None:
    number = _number("EINHORN_SOCK_FD")
    if number is None:
        raise EinhornError("EINHORN_SOCK_FD is not set (einhorn -g sets it)")
    try:
        with socket.socket(fileno=os.dup(number)) as connection:
            connection.sendall(line)
    except OSError as error:
        raise EinhornError(f"could not send to EINHORN_SOCK_FD ({number}): {error}") from error


def _send(via: str, message: dict) -> bool:
    # A `%` would be taken for an escape of the line, so it becomes one of JSON.
    line = json.dumps(message).replace("%", "\\u0025").encode() + b"\n"
    if via == "fd":
        _send_by_descriptor(line)
        return True
    try:
        _send_by_path(line)
    except EinhornError:
        if via != "auto" or "EINHORN_SOCK_FD" not in os.environ:
            raise
        _send_by_descriptor(line)
    return True


def ack(via: str = "auto") -> bool:
    """Says "I am ready". False, and nothing is said, if this is no worker.

    via:
        "auto"    the command socket: by its path or, if that can't be reached, by descriptor
        "path"    the command socket by EINHORN_SOCK_PATH
        "fd"      by EINHORN_SOCK_FD (einhorn -g); good for one message
        "notify"  READY=1 to NOTIFY_SOCKET, for `einhorn -m notify`; the others are for `-m manual`
    """
    if via not in ("auto", "path", "fd", "notify"):
        raise ValueError(f'via is "auto", "path", "fd" or "notify", not {via!r}')
    if not is_worker():
        return False
    if via == "notify":
        return notify("READY=1")
    return _send(via, {"command": "worker:ack", "pid": os.getpid()})


def ping(
    request_id: object = None, busy: Optional[bool] = None, status: Optional[str] = None
) -> bool:
    """Says "I am alive", and what this worker is at. False if this is no worker."""
    if not is_worker():
        return False
    told = {"request_id": request_id, "busy": busy, "status": status}
    message = {"command": "worker:ping", "pid": os.getpid()}
    message.update({key: value for key, value in told.items() if value is not None})
    return _send("auto", message)


def notify(assignments: str) -> bool:
    """Sends assignments as sd_notify(3) does ("READY=1", "WATCHDOG=1") to NOTIFY_SOCKET. False if
    there is none."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(assignments.encode(), _address(path))
    except OSError as error:
        raise EinhornError(f"could not send to {path}: {error}") from error
    return True


def status(text: str) -> bool:
    """A line about this worker, shown by `einhornsh -e status`. False without NOTIFY_SOCKET."""
    return notify("STATUS=" + text.replace("\n", " "))


# --- leaving --------------------------------------------------------------------------------------

# A signal may come between a look at a flag and a wait, or to another thread; a byte in a pipe can't be
# missed. The first pipe has one when a stop was asked for, for every thread. But Python runs handlers
# between two instructions of the main thread, so that has to be awake: what comes while it is about to
# wait writes to the second one at once, whatever signal it is.
_stop_reader, _stop_writer = -1, -1
_wakeup_reader, _wakeup_writer = -1, -1
_stopping = False


def _open_pipes():
    global _stop_reader, _stop_writer, _wakeup_reader, _wakeup_writer
    old = _wakeup_writer
    _stop_reader, _stop_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _wakeup_reader, _wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(_wakeup_writer, warn_on_full_buffer=False)
    if before not in (-1, old):
        signal.set_wakeup_fd(before)  # asyncio's: its loop waits and wakes by that


def _after_fork():
    """What the child is told must not wake its parent, nor the other way round."""
    if _stop_reader >= 0:
        old = (_stop_reader, _stop_writer, _wakeup_reader, _wakeup_writer)
        _open_pipes()
        for number in old:
            os.close(number)


os.register_at_fork(after_in_child=_after_fork)


def on_stop(callback: Optional[Callable[[], None]] = None, *signals: int) -> None:
    """From now on these signals (SIGUSR2 if none is named) ask for a graceful stop.

    `callback` is called without arguments when one comes, as Python's signal handlers are: in the
    main thread, between two instructions. Call this in the main thread. `stopping()` is true from
    then on, and `connections()` ends.
    """
    if _stop_reader < 0:
        _open_pipes()

    def handle(number, frame):
        global _stopping
        _stopping = True
        try:
            os.write(_stop_writer, b"x")
        except BlockingIOError:
            pass  # it is readable, and that is all it is for
        if callback is not None:
            callback()

    for number in signals or (signal.SIGUSR2,):
        signal.signal(number, handle)


def stopping() -> bool:
    """Was a stop asked for?"""
    return _stopping


def connections(listener: socket.socket) -> Iterator[socket.socket]:
    """The connections of a listener, one after the other, until a stop is asked for."""
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        if _stop_reader >= 0:
            selector.register(_stop_reader, selectors.EVENT_READ)
            if threading.current_thread() is threading.main_thread():
                selector.register(_wakeup_reader, selectors.EVENT_READ)
        while not _stopping:
            ready = {key.fileobj for key, _ in selector.select()}
            if _stopping:
                return
            if _wakeup_reader in ready:
                os.read(_wakeup_reader, 4096)  # the handler runs before the next wait
            if listener not in ready:
                continue
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # another worker got it, or it is gone already
            yield connection


async def drain(server: asyncio.AbstractServer) -> None:
    """For asyncio, in the main task: takes no more connections, waits until every other task has
    ended, and closes the server.

    `server.close()` at once would drop a connection that was accepted just before: asyncio makes a
    task of it that fails if the server is closed when it begins."""
    loop = asyncio.get_running_loop()
    for listener in server.sockets:
        loop.remove_reader(listener.fileno())
    while True:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            break
        await asyncio.wait(others)
    server.close()
