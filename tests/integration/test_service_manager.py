"""What the service manager that started Einhorn hears of it: on a socket of the test's, word by word."""

import os
import signal
import socket

import pytest
from harness import http_get, wait_until
from harness.load import connect
from harness.manager import ServiceManager
from harness.waiting import stays_true


@pytest.fixture
def manager(tmp_path):
    with ServiceManager(tmp_path) as manager:
        yield manager


GATED = ["sh", "-c", 'read _ <"gate$EINHORN_CHILD_INDEX"; exec "$0" --ack=path', "http_worker"]


def gated_pool(make_pool, manager, number=2):
    """Workers that come up when the test writes into their gate."""
    from harness.programs import worker

    pool = make_pool(
        ["-n", number, "-m", "manual", "-b", "127.0.0.1:0"],
        [*GATED[:-1], worker("http_worker")],
        env=manager.environment,
        start=False,
    )
    for index in range(number):
        os.mkfifo(pool.dir / f"gate{index}")
    return pool.start()


def open_gate(pool, index):
    with open(pool.dir / f"gate{index}", "w", encoding="utf-8") as gate:
        gate.write("\n")


def test_ready_comes_with_the_last_worker(make_pool, manager):
    pool = gated_pool(make_pool, manager)
    manager.wait("STATUS", "0 of 2 workers up")
    open_gate(pool, 0)
    manager.wait("STATUS", "1 of 2 workers up")
    assert not any("READY" in words for words in manager.read()), manager.heard
    open_gate(pool, 1)
    ready = manager.wait("READY")
    assert ready == {
        "READY": "1",
        "MAINPID": str(pool.process.pid),
        "STATUS": "2 of 2 workers up, version 0",
    }


def test_a_worker_that_never_comes_does_not_hold_ready_back_for_ever(make_pool, manager):
    pool = gated_pool(make_pool, manager)
    open_gate(pool, 1)
    ready = manager.wait("READY", deadline=30)
    assert ready["MAINPID"] == str(pool.process.pid)
    assert [w["state"] for w in pool.workers()].count("ready") == 1


def test_one_that_fails_does_not_either(make_pool, manager):
    make_pool(
        ["-n", "3", "-m", "manual"],
        "http_worker --ack=path --only-index=1 --exit-at-start=1",
        env=manager.environment,
    )
    manager.wait("READY")


def test_an_upgrade_is_a_reload(make_pool, manager):
    pool = make_pool(["-n", "2", "-m", "manual"], "http_worker --ack=path", env=manager.environment)
    manager.wait("READY")
    for version, how in enumerate(("upgrade", "upgrade_fleet"), 1):
        since = manager.mark()
        before = monotonic_usec()
        with pool.client(timeout=60) as client:
            client.conversation({"command": how, "id": 1})
        reloading = manager.wait("RELOADING", "1", since)
        assert before <= int(reloading["MONOTONIC_USEC"]) <= monotonic_usec()
        ready = manager.wait("READY", "1", since)
        assert ready["MAINPID"] == str(pool.process.pid)
        assert ready["STATUS"] == f"2 of 2 workers up, version {version}"
        heard = manager.read()[since:]
        assert heard.index(reloading) < heard.index(ready)


def monotonic_usec():
    import time

    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_a_failed_upgrade_ends_the_reload(make_pool, manager):
    pool = make_pool(
        ["-n", "2", "-m", "manual"], "http_worker --options-file=options", env=manager.environment, start=False
    )
    (pool.dir / "options").write_text("--ack=path\n")
    pool.start()
    manager.wait("READY")
    since = manager.mark()
    (pool.dir / "options").write_text("--exit-at-start=3\n")
    with pool.client(timeout=60) as client:
        client.conversation({"command": "upgrade", "id": 1})
    manager.wait("RELOADING", "1", since)
    assert "the last upgrade failed" in manager.wait("READY", "1", since)["STATUS"]


def test_a_new_master_says_how_things_are(make_pool, manager):
    pool = make_pool(["-n", "2", "-m", "manual"], "http_worker --ack=path", env=manager.environment)
    manager.wait("READY")
    since = manager.mark()
    pool.kill_master()
    assert manager.wait("READY", "1", since)["MAINPID"] == str(pool.process.pid)
    assert not any("STOPPING" in words for words in manager.read())


def test_a_new_guard_is_the_main_process(make_pool, manager):
    pool = make_pool(["-n", "2", "-m", "manual"], "http_worker --ack=path", env=manager.environment)
    manager.wait("READY")
    since = manager.mark()
    pool.process.kill()
    pool.process.wait()
    pool.start()
    assert manager.wait("READY", "1", since)["MAINPID"] == str(pool.process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping(make_pool, manager, number):
    worker = "http_worker --ack=path --on=USR2:drain --on=TERM:drain --drain-delay-ms=1500"
    pool = make_pool(["-n", "2", "-m", "manual"], worker, env=manager.environment)
    pool.wait_ready(2)
    manager.wait("READY")
    assert pool.stop(number) == 0
    stopping = manager.wait("STOPPING", "1")
    assert stopping["STATUS"].startswith("Stopping: 2 workers left")
    assert manager.read()[-1]["STATUS"] == "Gone"


def test_the_watchdog_is_fed_by_the_master(make_pool, tmp_path):
    with ServiceManager(tmp_path, watchdog_ms=400) as manager:
        pool = make_pool(["-n", "2", "-m", "0.05"], env=manager.environment)
        manager.wait("READY")
        for _ in range(4):
            manager.wait("WATCHDOG", "1", manager.mark(), deadline=5)
        master = pool.master_pid
        os.kill(master, signal.SIGSTOP)
        silent = manager.mark()
        stays_true(lambda: manager.mark() <= silent + 1, 1, lambda: manager.heard[silent:])
        os.kill(master, signal.SIGKILL)
        manager.wait("WATCHDOG", "1", manager.mark())


def test_somebody_elses_watchdog_is_not_fed(make_pool, tmp_path):
    with ServiceManager(tmp_path, watchdog_ms=20) as manager:
        make_pool(["-m", "0"], env={**manager.environment, "WATCHDOG_PID": "1"})
        manager.wait("READY")
        manager.wait("STATUS")
        stays_true(lambda: not any("WATCHDOG" in w for w in manager.read()), 0.3)


def test_a_manager_that_is_gone_or_does_not_read_stops_nothing(make_pool, tmp_path):
    with ServiceManager(tmp_path, watchdog_ms=10) as manager:
        pool = make_pool(["-n", "2", "-m", "0.05"], env=manager.environment)
        for _ in range(20):
            pool.command("inc")
            pool.command("dec")
        pool.wait_ready(2)
        os.unlink(manager.path)
        pool.command("inc")
        pool.wait_ready(3)
        assert pool.stop() == 0


def test_a_worker_hears_of_its_own_manager_only(make_pool, manager):
    pool = make_pool(["-m", "notify"], "http_worker --ack=notify --status=fine", env=manager.environment)
    pool.wait_ready(1)
    manager.wait("READY")
    assert not any(words.get("STATUS") == "fine" for words in manager.read())


def stored_pool(make_pool, manager, binds, directory, **kwargs):
    wrapper, fds = manager.serve_as() if manager.stored else ([], [])
    words = [word for bind in binds for word in ("-b", bind)]
    return make_pool(
        ["-n", "2", "-m", "manual", *words],
        "http_worker --ack=path",
        env=manager.environment,
        wrapper=wrapper,
        pass_fds=fds,
        directory=directory,
        **kwargs,
    )


def end_everybody(pool):
    """As systemd ends what is left of a service whose main process was killed."""
    state = pool.state_json()
    for pid in (state["guard"], state["master"], *(w["pid"] for w in state["workers"])):
        os.kill(pid, signal.SIGKILL)
    pool.wait_gone()


def test_sockets_survive_everybody_in_the_store(make_pool, manager, tmp_path):
    """Guard, master and workers die at once; who connects meanwhile is served by the next pool."""
    path = f"unix:{tmp_path}/socket"
    first = stored_pool(make_pool, manager, ["127.0.0.1:0", "[::]:0", path], tmp_path)
    manager.wait("READY")
    assert list(manager.stored) == ["einhorn-listen-0", "einhorn-listen-1", "einhorn-listen-2"]
    addresses = first.addresses()
    end_everybody(first)
    waiting = [connect(address, timeout=60) for address in addresses]
    for stream in waiting:
        stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
    ports = [f"{host}:{address.rsplit(':', 1)[1]}" for host, address in zip(("127.0.0.1", "[::]"), addresses)]
    since = manager.mark()
    second = stored_pool(make_pool, manager, [*ports, path], tmp_path)
    manager.wait("READY", "1", since)
    for stream in waiting:
        with stream:
            assert stream.recv(65536).startswith(b"HTTP/1.1 200")
    assert second.addresses() == addresses
    assert len(manager.stored) == 3, "they are the same ones"
    assert second.stop() == 0
    assert not (tmp_path / "socket").exists()


def test_what_no_b_names_any_more_is_not_kept(make_pool, manager, tmp_path):
    first = stored_pool(make_pool, manager, ["127.0.0.1:0"], tmp_path)
    manager.wait("READY")
    host, port = first.address.rsplit(":", 1)
    end_everybody(first)
    second = stored_pool(make_pool, manager, ["127.0.0.1:0"], tmp_path)
    wait_until(lambda: any("FDSTOREREMOVE" in w for w in manager.read()), 20)
    second.wait_ready(2)
    wait_until(lambda: manager.read() and list(manager.stored) == ["einhorn-listen-0"], 20)
    with pytest.raises(ConnectionRefusedError):
        connect(f"{host}:{port}")


def test_a_socket_that_systemd_opened(make_pool, manager, tmp_path):
    """Socket activation: the same socket is served by the next pool too."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        manager.stored["web"] = os.dup(listener.fileno())
        pool = stored_pool(make_pool, manager, ["fd:web"], tmp_path)
        manager.wait("READY")
        host, port = listener.getsockname()
        assert http_get(f"{host}:{port}")["pid"] in pool.pids()
