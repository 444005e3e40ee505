"""--capture: every line of a worker's output, tagged, once, whatever dies and however slow the
reader of it is."""

import json
import os
import re
import signal
import subprocess

import pytest
from harness import descendants, einhorn_command, is_alive, wait_until
from harness.upgrades import messages, upgrade

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    r" \[WORKER (\d+) index=(\d+) version=(\d+) (stdout|stderr|capture)( more| unfinished)?\] (.*)"
)
PYTHON = "/usr/bin/python3"

# Counts for as long as it lives, a line each time, on both streams.
COUNTING = """
import os, sys, time
number = 0
while True:
    for _ in range(50):
        number += 1
        os.write(1 + number % 2, f"{os.getpid()} {number}\\n".encode())
    time.sleep(0.002)
"""


def script(text):
    return [PYTHON, "-c", text]


def readers(pool):
    found = [p.pid for p in pool.processes() if comm(p.pid) == "einhorn-capture"]
    return [pid for pid in found if is_alive(pid)]


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def reader_of(pool):
    return wait_until(lambda: (readers(pool) or [None])[0], 20, "a reader")


def lines_of(*paths, broken=0):
    """All lines, taken apart; of those that a reader was killed in at most `broken`."""
    found = []
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            match = LINE.fullmatch(line)
            if match is None and broken > 0:
                broken -= 1
                continue
            assert match, line
            found.append(match.groups())
    return found


def whole(lines):
    """Without those of workers that count in which a reader was killed: they are there once more."""
    return [line for line in lines if re.fullmatch(rf"{line[0]} \d+", line[5])]


def numbers_by_worker(lines):
    """Of workers that count, every number that was seen."""
    seen = {}
    for pid, _, _, stream, _, text in lines:
        if stream != "capture":
            said, number = text.split()
            assert said == pid
            seen.setdefault(int(pid), []).append(int(number))
    return seen


def assert_all_there(lines, repeats=0):
    seen = numbers_by_worker(lines)
    assert seen
    for pid, numbers in seen.items():
        missing = set(range(1, max(numbers) + 1)) - set(numbers)
        assert not missing, f"{pid}: {sorted(missing)[:10]} of {max(numbers)}"
        assert len(numbers) - len(set(numbers)) <= repeats
    return seen


def test_lines_are_tagged(make_pool):
    text = "import sys, signal; print('to out'); print('to err', file=sys.stderr); signal.pause()"
    pool = make_pool(["-n", "2", "-m", "0.05", "--capture=out.log"], [PYTHON, "-u", "-c", text])
    pool.wait_ready(2)
    path = pool.dir / "out.log"
    wait_until(lambda: len(lines_of(path)) == 4, 20)
    workers = {str(w["pid"]): str(w["index"]) for w in pool.workers()}
    said = {(pid, index, stream, text) for pid, index, _, stream, _, text in lines_of(path)}
    assert said == {
        (pid, index, stream, text)
        for pid, index in workers.items()
        for stream, text in (("stdout", "to out"), ("stderr", "to err"))
    }
    assert "to out" not in pool.log() + pool.stdout_text()
    pool.command("upgrade", id=1)
    wait_until(lambda: {v for _, _, v, _, _, _ in lines_of(path)} == {"0", "1"}, 20)


def test_json_and_standard_error(make_pool):
    text = r"import os, signal; os.write(1, b'a \"quoted\" \xff \x1b[1m\ttext\n'); signal.pause()"
    pool = make_pool(["-m", "0.05", "--capture", "--log-format", "json"], script(text))
    pool.wait_ready(1)
    pool.wait_log('"stream":"stdout"', 20)
    entry = [e for e in map(json.loads, pool.log().splitlines()) if e.get("stream")][0]
    assert entry["line"] == 'a "quoted" � \x1b[1m\ttext'
    assert entry["worker"] == pool.pids()[0]
    assert (entry["index"], entry["version"]) == (0, 0)


def test_lines_that_do_not_end_and_long_ones(make_pool):
    text = """
import os, signal, time
os.write(1, b'x' * 100_000 + b'\\n')
os.write(2, b'no end')
if os.environ['EINHORN_CHILD_INDEX'] == '0':
    time.sleep(0.2)
    os._exit(3)
signal.pause()
"""
    pool = make_pool(["-n", "2", "-m", "0.05", "--capture-file", "out.log"], script(text))
    path = pool.dir / "out.log"

    def enough():
        if not path.exists():
            return None
        lines = lines_of(path)
        return [line for line in lines if line[4] == " unfinished"] and lines

    lines = wait_until(enough, 30)
    pid = next(line[0] for line in lines if line[4] == " unfinished")
    out = [line for line in lines if line[0] == pid and line[3] == "stdout"]
    assert "".join(line[5] for line in out) == "x" * 100_000
    assert [line[4] for line in out] == [" more"] * (len(out) - 1) + [None]
    assert max(len(line[5]) for line in out) <= 16384
    assert [line[5] for line in lines if line[0] == pid and line[3] == "stderr"] == ["no end"]


def test_reader_and_master_killed(make_pool):
    """No line is lost, no worker notices."""
    pool = make_pool(["-n", "3", "-m", "0.05", "--capture=out.log"], script(COUNTING))
    pool.wait_ready(3)
    workers = sorted(pool.pids())
    path = pool.dir / "out.log"
    kills = 8
    for number in range(kills):
        size = path.stat().st_size
        reader = reader_of(pool)
        os.kill(reader, signal.SIGKILL)
        if number % 2:
            pool.kill_master()
        wait_until(lambda r=reader: not is_alive(r) and r not in readers(pool), 20)
        wait_until(lambda s=size: path.stat().st_size > s + 20_000, 30, "lines of the next reader")
    assert sorted(pool.pids()) == workers
    assert all(w["state"] == "ready" for w in pool.workers())
    pool.stop()
    # Of each stream at most what a pipe holds is written again for each killed reader.
    seen = assert_all_there(whole(lines_of(path, broken=kills)), repeats=kills * 2 * 65536 // 8)
    assert sorted(seen) == workers


def test_a_line_in_which_a_reader_was_killed(make_pool, tmp_path):
    """What comes next begins a line of its own."""
    path = tmp_path / "out.log"
    path.write_text("a whole line\nthe beginning of an")
    pool = make_pool(["-m", "0.05", f"--capture={path}"], script("import signal; print('here', flush=True); signal.pause()"))
    pool.wait_ready(1)
    wait_until(lambda: path.read_text().endswith("here\n"), 20, path.read_text)
    first, cut, line = path.read_text().splitlines()[:3]
    assert (first, cut) == ("a whole line", "the beginning of an")
    assert LINE.fullmatch(line)


def test_guard_killed(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "--capture=out.log"], script(COUNTING))
    pool.wait_ready(2)
    workers = sorted(pool.pids())
    path = pool.dir / "out.log"
    os.kill(pool.process.pid, signal.SIGKILL)
    pool.process.wait()
    pool.wait_log("The guard is gone", 20)
    pool.start()
    pool.wait_log("has been taken over", 30)
    os.kill(reader_of(pool), signal.SIGKILL)
    size = path.stat().st_size
    wait_until(lambda: path.stat().st_size > size + 20_000, 30)
    assert sorted(pool.pids()) == workers
    pool.stop()
    assert_all_there(whole(lines_of(path, broken=1)), repeats=2 * 65536 // 8)


def test_rotation(make_pool):
    pool = make_pool(["-n", "2", "-m", "0.05", "--capture=out.log"], script(COUNTING))
    pool.wait_ready(2)
    path = pool.dir / "out.log"
    moved = []
    for number in range(5):
        wait_until(lambda: path.exists() and path.stat().st_size > 20_000, 30)
        moved.append(pool.dir / f"out.log.{number}")
        path.rename(moved[-1])
        pool.process.send_signal(signal.SIGUSR1)
        wait_until(path.exists, 20, "the file is made again")
    pool.stop()
    assert_all_there(lines_of(*moved, path))


def test_last_lines_of_the_dead(make_pool):
    text = """
import os, sys, time
for number in range(80):
    print("line", number)
sys.stdout.flush()
time.sleep(0.05)
print("the reason", file=sys.stderr)
os._exit(7)
"""
    pool = make_pool(["-m", "0.3", "--capture=out.log", "-s", "3"], script(text))
    pool.wait_log("The last output of worker", 20)
    pool.wait_log("  stderr: the reason", 20)
    assert "  stdout: line 79\n" in pool.log()
    assert "stdout: line 20\n" not in pool.log()
    dead = pool.state_json()["capture"]["dead_workers"][0]
    assert [line["line"] for line in dead["lines"] if line["stream"] == "stderr"] == ["the reason"]
    assert len(dead["lines"]) == 50
    assert dead["index"] == 0
    assert "the reason" in str(pool.command("state"))


def test_report_of_a_failed_upgrade(make_pool):
    pool = make_pool(
        ["-n", "2", "-m", "0.3", "--capture=out.log", "--chdir", "@DIR@/current", "-s", "0.05"],
        ["sh", "-c", "exec ./run"],
        start=False,
    )
    for name, body in (("good", "exec sleep 1000"), ("bad", "echo can not find the key >&2; exit 1")):
        (pool.dir / name).mkdir()
        (pool.dir / name / "run").write_text(f"#!/bin/sh\n{body}\n")
        (pool.dir / name / "run").chmod(0o755)
    (pool.dir / "current").symlink_to("good")
    pool.start()
    pool.wait_ready(2)
    (pool.dir / "current").unlink()
    (pool.dir / "current").symlink_to("bad")
    said = messages(upgrade(pool, deadline=60))
    told = "\n".join(said)
    assert "  stderr: can not find the key" in told
    assert told.index("can not find the key") < told.index("rolled back to version 0")


def test_nobody_reads_the_output(make_pool):
    """A worker does not wait; what is dropped is counted, and said where it is missing."""
    lines = 80_000
    text = f"""
import os, signal
for number in range(1, {lines} + 1):
    os.write(1, b"%d %d " % (os.getpid(), number) + b"x" * 800 + b"\\n")
open("done", "w").close()
signal.pause()
"""
    reading, writing = os.pipe()
    pool = make_pool(
        ["-m", "0.05", "--capture", "--log-file", "mine.log"], script(text), stderr=writing
    )
    os.close(writing)
    wait_until((pool.dir / "done").exists, 120, "the worker has written everything")
    log = pool.dir / "mine.log"
    wait_until(lambda: "lines of workers were dropped" in log.read_text(), 20)
    assert pool.state_json()["capture"]["dropped"] > 0
    with os.fdopen(reading, errors="replace") as file:
        got = missing = 0
        while got + missing < lines:
            pid, _, _, stream, mark, said = LINE.fullmatch(file.readline().rstrip("\n")).groups()
            assert mark is None
            if stream == "capture":
                missing += int(said.split()[0])
            else:
                got += 1
        assert (got + missing, missing > 0) == (lines, True)
        pool.stop()


def test_the_last_word(make_pool):
    """What a worker says while it stops is there when einhorn has ended, and no reader is left."""
    text = """
import os, signal, sys
def leave(*_):
    print("bye")
    sys.stdout.flush()
    os._exit(0)
signal.signal(signal.SIGUSR2, leave)
open("up" + str(os.getpid()), "w").close()
while True:
    signal.pause()
"""
    pool = make_pool(["-n", "3", "-m", "0.05", "--capture=out.log"], script(text))
    pool.wait_ready(3)
    wait_until(lambda: len(list(pool.dir.glob("up*"))) == 3, 20)
    assert pool.stop(signal.SIGUSR2) == 0
    assert [line[5] for line in lines_of(pool.dir / "out.log")] == ["bye"] * 3
    left = [p.pid for p in descendants() if comm(p.pid) == "einhorn-capture"]
    wait_until(lambda: not any(is_alive(pid) for pid in left), 20, "the reader is gone")


def test_workers_see_a_pipe_and_children_keep_it(make_pool):
    """A child that outlives its worker can write on, and nobody is left when it has gone."""
    text = """
import os, subprocess, sys
if os.fork() == 0:
    os.setsid()
    while not os.path.exists("go"):
        import time; time.sleep(0.01)
    print("from the child", flush=True)
    os._exit(0)
print("a pipe" if os.path.exists("/proc/self/fd/1") and "pipe:" in os.readlink("/proc/self/fd/1")
      else "no pipe", flush=True)
os._exit(0)
"""
    pool = make_pool(["-m", "0.3", "-s", "60", "--capture=out.log"], script(text))
    path = pool.dir / "out.log"
    wait_until(lambda: path.exists() and "a pipe" in path.read_text(), 20)
    pool.wait_log("Exited worker", 20)
    pool.kill_master()
    os.kill(reader_of(pool), signal.SIGKILL)
    (pool.dir / "go").write_text("")
    wait_until(lambda: "from the child" in path.read_text(), 20)


@pytest.mark.parametrize("words", [["--capture=/no/such/place/out"], ["--capture-file", "/"]])
def test_a_file_that_can_not_be_opened(words, tmp_path):
    result = subprocess.run(
        [*einhorn_command(), "-d", tmp_path / "s", *words, "sleep", "1"],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1
    assert f"open {words[-1].split('=')[-1]}: " in result.stderr
