#!/usr/bin/env python3
"""Game day: induces the failures we can think of in a pool under load, and compares what happens
with what we expected (docs/gameday.md).

Each scenario runs in a process of its own, if possible with its own pids and mounts (`unshare`), so
that it ends with everything it started whatever happens to it."""

import argparse
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

import cgroup  # noqa: E402
import day as gameday  # noqa: E402
import report  # noqa: E402
import scenarios  # noqa: E402, F401
from harness import processes, programs  # noqa: E402

PR_SET_PDEATHSIG = 1
ISOLATED = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
AS_SOMEBODY = ["unshare", "--user", "--map-root-user", *ISOLATED[1:]]


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/gameday",
        description="Induces failures in a pool under load. Exit code 1 if any hypothesis does not "
        "hold.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these scenarios")
    parser.add_argument("--short", action="store_true", help="shorter and fewer of everything")
    parser.add_argument("--list", action="store_true", help="the scenarios and what they expect")
    parser.add_argument("--jobs", type=int, default=None, help="scenarios at a time (1; short: 2)")
    parser.add_argument("--json", metavar="PATH", help="the table as JSON, besides build/results")
    parser.add_argument("--markdown", metavar="PATH", help="the table as Markdown, likewise")
    parser.add_argument("--one", metavar="RESULT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in gameday.SCENARIOS]
    if unknown:
        parser.error(f"no such scenario: {', '.join(unknown)} (--list shows them)")
    if options.jobs is None:
        options.jobs = 2 if options.short else 1
    if options.jobs < 1:
        parser.error("--jobs: at least 1")
    return options


def run_one(options):
    """In the process of one scenario."""
    processes.become_subreaper()
    one = gameday.SCENARIOS[options.names[0]]
    result = gameday.Day(one, options.short).run()
    unfinished = f"{options.one}.unfinished"
    Path(unfinished).write_text(json.dumps(result), encoding="utf-8")
    os.rename(unfinished, options.one)


class Running:
    """A scenario under way."""

    def __init__(self, one, options, directory, isolation):
        self.one = one
        self.directory = Path(tempfile.mkdtemp(prefix=f"{one.name}-", dir=directory))
        self.directory.chmod(0o755)
        self.result_path, self.log_path = self.directory / "result", self.directory / "output"
        self.begun = time.monotonic()
        self.deadline = self.begun + one.deadline[0 if options.short else 1]
        command = [*isolation, sys.executable, str(HERE / "run.py"), one.name]
        command += ["--one", str(self.result_path), *(["--short"] if options.short else [])]
        runner = os.getpid()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self.directory), "PYTHONDONTWRITEBYTECODE": "1"},
                preexec_fn=lambda: die_with(runner),
                start_new_session=True,
            )

    def finished(self):
        if self.process.poll() is not None:
            return True
        if time.monotonic() > self.deadline:
            self.end()
            return True
        return False

    def end(self):
        """Ends the scenario's process; with it goes all it has started."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        # Without a pid namespace the scenario's processes outlive it; ours to find and end.
        processes.end_all(self.left)

    def left(self):
        """What runs in the scenario's directory."""
        inside = str(self.directory)
        found = [(stat, processes.directory_of(stat.pid) or "") for stat in processes.descendants()]
        return [stat for stat, where in found if where.startswith(inside)]

    def result(self):
        try:
            return json.loads(self.result_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            seconds = time.monotonic() - self.begun
            return report.unfinished(self.one, seconds, self.process.returncode)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def clean(self):
        cgroup.remove_left(self.directory.name)
        shutil.rmtree(self.directory, ignore_errors=True)


def die_with(parent):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def isolation():
    """The words that put a command into namespaces of its own; none if that is not allowed."""
    for words in (ISOLATED, AS_SOMEBODY):
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    print("no namespaces of our own can be made here: some scenarios are not possible", flush=True)
    return []


def run_all(options, directory):
    """Runs the scenarios, `jobs` at a time; their results in the order of the list."""
    names = options.names or list(gameday.SCENARIOS)
    waiting = sorted(names, key=lambda n: -gameday.SCENARIOS[n].deadline[0 if options.short else 1])
    words, running, results = isolation(), [], {}
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                one = gameday.SCENARIOS[waiting.pop(0)]
                running.append(Running(one, options, directory, words))
            for each in [r for r in running if r.finished()]:
                running.remove(each)
                results[each.one.name] = each.result()
                report.tell(results[each.one.name], each.log())
                each.clean()
            time.sleep(0.05)
    finally:
        for each in running:
            each.end()
            each.clean()
    return [results[name] for name in names]


def main():
    options = parse_arguments()
    if options.one:
        return run_one(options)
    if options.list:
        for one in gameday.SCENARIOS.values():
            print(f"{one.name}\n    {one.hypothesis}")
        return 0
    for name in ("http_worker", "loadgen"):
        programs.worker(name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    processes.become_subreaper()
    directory = tempfile.mkdtemp(prefix="einhorn-gameday-")
    os.chmod(directory, 0o755)
    begun = time.monotonic()
    try:
        results = run_all(options, directory)
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report.write(results, options, time.monotonic() - begun)
    return 1 if any(result["holds"] == "no" for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
