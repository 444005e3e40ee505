#!/usr/bin/env python3
"""Makes the table of programs; see scripts/intercept-table."""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "tests" / "integration")]

from harness import Pool, wait_until  # noqa: E402
from harness import processes  # noqa: E402
from asking import KINDS, Asking, Wrong  # noqa: E402
from programs import PROGRAMS  # noqa: E402

PORT = 3000  # never really bound: rewritten to the pool's own
WORKERS = 2
UPGRADES = 10
DRAIN = 10  # seconds at most
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def say(text):
    print(text, file=sys.stderr, flush=True)


def version_of(program):
    if program.version:
        done = subprocess.run(program.version, capture_output=True, text=True, check=False)
        found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        return found[0] if found else "?"
    done = subprocess.run(
        ["dpkg-query", "-W", "-f=${Version}", program.packages[0]],
        capture_output=True,
        text=True,
        check=False,
    )
    return re.sub(r"^\d+:|[-+~].*", "", done.stdout) or "?"


def prepare(program, directory):
    """Files and programs that it needs; the words of its command."""

    def fill(text):
        return text.replace("{port}", str(PORT)).replace("{dir}", str(directory))

    (directory / "www").mkdir(exist_ok=True)
    (directory / "www" / "index.html").write_text("hello\n")
    os.chmod(directory, 0o755)
    for name, text in program.files.items():
        (directory / name).write_text(fill(text))
    if program.build:
        environment = {**os.environ, "GOCACHE": str(directory / "cache"), "HOME": str(directory)}
        subprocess.run([fill(word) for word in program.build], check=True, env=environment)
    return [fill(word) for word in program.command]


def flags_of(program):
    """One name for all of its sockets: a rule then looks for the one of the right kind."""
    flags = [f"--intercept={PORT}=web"]
    for bind in program.binds:
        flags += ["-b", f"{'udp:' if bind.startswith('udp:') else ''}127.0.0.1:0,name=web"]
    return flags


class Run:
    """One program, run as a pool with one stop signal, drained before it or not."""

    def __init__(self, program, directory, command, stop_signal, drain):
        self.program = program
        flags = ["-n", str(WORKERS), *flags_of(program)]
        flags += ["--stop-signal", stop_signal, "--ack-timeout", "90", "-t", "60"]
        flags += ["--drain", str(DRAIN)] if drain else []
        self.pool = Pool(flags, command, directory=directory)

    def port(self):
        address = self.pool.state_json()["sockets"][0]["address"]
        return int(address.rsplit(":", 1)[1])

    def copies_reached(self):
        """How many different copies have answered."""
        if self.program.ask == "dns":
            seen = set()

            def ask():
                answer = KINDS[self.program.ask](self.port())
                if answer is not None:
                    seen.add(answer)
                return len(seen) >= WORKERS

        else:
            seen = set()

            def ask():
                seen.update(self._who_accepts())
                return len(seen) >= WORKERS

        try:
            wait_until(ask, 40)
        except AssertionError:
            pass
        return len(seen)

    def _who_accepts(self):
        port = self.port()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            own = stream.getsockname()[1]
            if self.program.ask == "http":
                stream.sendall(b"GET / HTTP/1.1\r\nHost: who.test\r\n")
            pids = wait_until(lambda: owners(own, port), 10, "somebody who accepts")
        workers = set(self.pool.pids())
        return {w for w in (ancestor_in(pid, workers) for pid in pids) if w}

    def upgrades(self, number):
        pool, times = self.pool, []
        asking = Asking(self.program.ask, self.port())
        try:
            for _ in range(number):
                before = asking.answered
                wait_until(lambda: asking.answered >= before + 20, 60, "answers")
                version = pool.state_json()["version"] + 1
                started = time.monotonic()
                pool.command("upgrade")
                pool.wait_state(
                    lambda s, v=version: s["version"] == v
                    and s["upgrade"] is None
                    and [w["state"] for w in s["workers"]] == ["ready"] * WORKERS
                    and all(w["version"] == v for w in s["workers"]),
                    120,
                    "the end of the upgrade",
                )
                times.append(time.monotonic() - started)
        finally:
            asking.stop()
        return asking, times


def owners(client_port, server_port):
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if os.path.exists(table):
            with open(table, encoding="ascii") as file:
                for line in list(file)[1:]:
                    words = line.split()
                    ports = tuple(int(words[i].rsplit(":", 1)[1], 16) for i in (1, 2))
                    if ports == (server_port, client_port) and words[9] != "0":
                        inodes.add(f"socket:[{words[9]}]")
    found = set()
    for stat in processes.descendants() if inodes else ():
        try:
            if inodes & set(processes.open_descriptors(stat.pid).values()):
                found.add(stat.pid)
        except OSError:
            pass
    return found


def ancestor_in(pid, workers):
    while pid > 1:
        if pid in workers:
            return pid
        stat = processes.read_stat(pid)
        if stat is None:
            return None
        pid = stat.ppid
    return None


def measure(program, upgrades):
    directory = Path(tempfile.mkdtemp(prefix="einhorn-table-"))
    result = {"program": program.name, "version": version_of(program), "signal": program.signal}
    result.update(graceful=program.graceful, note=program.note)
    # What it does itself; the same, but drained before; and what it loses at worst.
    runs = [(program.signal, False, "asked"), (program.signal, True, "drained")]
    if upgrades > 3 and not os.environ.get("TABLE_WITHOUT_KILL"):
        runs.append(("KILL", False, "killed"))
    try:
        command = prepare(program, directory)
        for stop_signal, drain, key in runs:
            run = Run(program, directory, command, stop_signal, drain)
            try:
                workers = run.pool.wait_ready(WORKERS, 120)
                if key == "asked":
                    result["copies"] = len(workers)
                    result["reached"] = run.copies_reached()
                asking, times = run.upgrades(upgrades)
                result[key] = {
                    "upgrades": len(times),
                    "answered": asking.answered,
                    "failed": len(asking.failures),
                    "examples": sorted(set(asking.failures))[:3],
                    "seconds": round(sum(times) / len(times), 2),
                    "complaints": re.findall(r"can't be drained[^\n]*", run.pool.log())[:3],
                }
            except (AssertionError, OSError, Wrong) as failure:
                result.setdefault("error", f"{failure}"[:2000] + run.pool.log()[-3000:])
            finally:
                run.pool.destroy()
    except (OSError, subprocess.SubprocessError) as failure:
        result["error"] = str(failure)
    finally:
        processes.end_all(processes.descendants)
        shutil.rmtree(directory, ignore_errors=True)
    return result


def passed(result):
    if "error" in result or result.get("reached", 0) < WORKERS:
        return False
    if result["drained"]["failed"] > 0 or result["drained"]["complaints"]:
        return False
    return not result["graceful"] or result["asked"]["failed"] == 0


def line(result):
    if "error" in result:
        return f"| {result['program']} | {result['version']} | | | does not work | | | |"

    def of(key):
        run = result.get(key)
        return f"{run['failed']} of {run['answered'] + run['failed']}" if run else ""

    needs = f"`--stop-signal {result['signal']}`" if result["signal"] != "TERM" else "nothing"
    return (
        f"| {result['program']} | {result['version']} | {result['reached']} of {result['copies']} | "
        f"{needs} | {of('asked')} | {of('drained')} | {of('killed')} | {result['note']} |"
    )


def known(path):
    """What earlier runs have found, by program."""
    if not path.exists():
        return {}
    return {result["program"]: result for result in json.loads(path.read_text(encoding="utf-8"))}


def document(results):
    path = ROOT / "docs" / "intercept.md"
    text = path.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    rows = "\n".join(line(result) for result in results)
    table = (
        "\n| program | version | copies reached | needs | failed when asked to stop | "
        "failed with `--drain 10` | failed when killed | |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    path.write_text(head + BEGIN + table + rows + "\n" + END + tail, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--document", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    processes.become_subreaper()
    chosen = [p for p in PROGRAMS if not options.short or p.short]
    if options.names:
        chosen = [p for p in chosen if any(name in p.name for name in options.names)]
    path = ROOT / "build" / "results" / "intercept.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Some programs named: the others keep what was found before.
    found = known(path) if options.names else {}
    results = []
    for program in chosen:
        started = time.monotonic()
        results.append(measure(program, 2 if options.short else UPGRADES))
        say(line(results[-1]) + f" {time.monotonic() - started:.0f} s")
        if "error" in results[-1]:
            say(results[-1]["error"])
        found[program.name] = results[-1]
        everything = [found[p.name] for p in PROGRAMS if p.name in found]
        path.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    if options.document:
        document(everything)
    bad = [result["program"] for result in results if not passed(result)]
    say(f"{len(results) - len(bad)} passed, {len(bad)} failed{': ' if bad else ''}{', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
