"""Einhorn's zygote for Python: loads code once and forks workers from it; see docs/preload.md.

preload.py CODE SCRIPT [ARGUMENT...]     CODE is a file or MODULE:FUNCTION
"""

import gc
import os
import socket
import sys
import time


class Refused(Exception):
    """The code can't be preloaded; the text says why."""


def say(master, **lines):
    text = "\n".join(f"{key}={' '.join(str(value).split())}" for key, value in lines.items())
    try:
        master.send(text.encode(errors="replace"))
    except OSError as error:
        print(f"einhorn: the line to Einhorn is lost: {error}", file=sys.stderr, flush=True)
        os._exit(76)


def load(code):
    """The function that workers run."""
    import importlib
    import importlib.util

    module_name, colon, function_name = code.partition(":")
    if colon and os.sep not in code:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(module_name)
    else:
        function_name = "einhorn_main"
        sys.path.insert(0, os.path.dirname(os.path.abspath(code)))
        name = os.path.splitext(os.path.basename(code))[0]
        if name in sys.modules or not name.isidentifier():
            name = "einhorn_preloaded"
        from importlib.machinery import SourceFileLoader

        class ScriptLoader(SourceFileLoader):
            """Compiles the file each time, as Python does with a script that is run: a release that
            was written in the same second with the same length is not mistaken for its cache."""

            def get_code(self, fullname):
                return self.source_to_code(self.get_data(self.path), self.path)

        spec = importlib.util.spec_from_file_location(name, code, loader=ScriptLoader(name, code))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise Refused(f"{code} has no function {function_name}()")
    return function


def listeners():
    """What the descriptors of the sockets are."""
    found = {}
    for number in range(int(os.environ.get("EINHORN_FD_COUNT", "0"))):
        fd = os.environ[f"EINHORN_FD_{number}"]
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            found[fd] = None
    return found


def epolls():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]":
                found.add(int(fd))
        except OSError:
            pass
    return found


def check(before):
    """Whether a fork of this process is one that works."""
    if listeners() != before:
        raise Refused("the code closed a socket of -b while it was loaded")
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        names = ", ".join(t.name for t in threading.enumerate() if t is not threading.main_thread())
        raise Refused(
            f"the code started threads while it was loaded ({names}): they would not exist in "
            "workers, and a lock that one of them holds would never be free again; start them in "
            "einhorn_main()"
        )
    asyncio = sys.modules.get("asyncio.events")
    running = asyncio is not None and asyncio._get_running_loop() is not None
    if running or epolls():
        raise Refused(
            "the code made an event loop (or another epoll descriptor) while it was loaded: all "
            "workers would share it; make it in einhorn_main()"
        )


def be_worker(master, parent, order):
    """In a new worker: from here on it is one."""
    while os.getppid() == parent:
        time.sleep(0.0001)
    os.setpgid(0, 0)
    os.environ["EINHORN_MASTER_PID"] = str(os.getppid())
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())
    number = order.pop("FORK")
    death_signal = order.pop("DEATH_SIGNAL", None)
    connect = order.pop("CONNECT", None)
    os.environ.update(order)
    if death_signal:
        import ctypes

        guard = os.getppid()
        ctypes.CDLL(None).prctl(1, int(death_signal), 0, 0, 0)
        if os.getppid() != guard:
            os._exit(1)
    try:
        master.send(f"FORKED={number}".encode())
    except OSError:
        os._exit(1)  # nobody knows of this process
    master.close()
    if connect:
        command = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        command.connect(connect)
        os.set_inheritable(command.fileno(), True)
        os.environ["EINHORN_SOCK_FD"] = str(command.detach())


def fork_twice(master, order):
    """True in the new worker. It is a child of neither this process nor the one in between, so
    Einhorn becomes its parent."""
    sys.stdout.flush()
    sys.stderr.flush()
    between = os.fork()
    if between == 0:
        parent = os.getpid()
        try:
            worker = os.fork()
        except OSError as error:
            os._exit(min(error.errno or 255, 255))
        if worker != 0:
            os._exit(0)
        be_worker(master, parent, order)
        return True
    try:
        _, status = os.waitpid(between, 0)
    except ChildProcessError:
        status = 0  # the code ignores SIGCHLD
    if status != 0:
        code = os.waitstatus_to_exitcode(status) if hasattr(os, "waitstatus_to_exitcode") else 255
        raise OSError(code, os.strerror(code) if code > 0 else f"killed by signal {-code}")
    return False


def serve(master):
    """Forks what it is asked for; returns in workers only."""
    last = 0
    while True:
        message = master.recv(65536)
        if not message:
            os._exit(0)
        order = dict(line.split("=", 1) for line in message.decode().split("\n") if "=" in line)
        number = int(order.get("FORK", 0))
        if number <= last:
            continue  # said again by a new master
        last = number
        try:
            if fork_twice(master, order):
                return
        except OSError as error:
            say(master, FAILED=number, ERRNO=error.errno, STATUS=f"fork: {error.strerror}")


def refuse(master, text):
    say(master, ERRNO=22, STATUS=text)
    sys.stderr.flush()
    os._exit(1)


def main():
    master = socket.socket(fileno=int(os.environ.pop("EINHORN_ZYGOTE_FD")))
    master.setblocking(True)
    os.set_inheritable(master.fileno(), False)
    compact = os.environ.pop("EINHORN_GC_BEFORE_FORK", None)
    code, *arguments = sys.argv[1:]
    sys.argv = arguments or [code]
    me, before = os.getpid(), listeners()
    try:
        function = load(code)
        if os.getpid() != me:
            print(f"einhorn: {code} has forked while it was loaded; this child of it ends",
                  file=sys.stderr, flush=True)
            os._exit(1)
        check(before)
    except Refused as refused:
        refuse(master, refused)
    except SystemExit as left:
        refuse(master, f"the code called exit ({left.code}) while it was loaded")
    except BaseException as error:
        if os.getpid() != me:
            os._exit(1)
        import traceback

        traceback.print_exc()
        places = traceback.extract_tb(error.__traceback__)
        where = f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""
        if isinstance(error, SyntaxError):
            where = f" ({error.filename}, line {error.lineno})"
            error = error.msg
            refuse(master, f"SyntaxError: {error}{where}")
        refuse(master, f"{type(error).__name__}: {error}{where}")
    for _ in range(2 if compact else 1):
        gc.collect()
    gc.freeze()
    say(master, READY=1)
    serve(master)
    del master
    return function


if __name__ == "__main__":
    result = main()()
    sys.exit(result if isinstance(result, int) and not isinstance(result, bool) else 0)
