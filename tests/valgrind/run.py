"""A pool's life under valgrind: no invalid access in guard, master and einhornsh, no memory lost, and no
descriptor more open at the end of a long life than at the end of a short one.

Valgrind 3.19 knows no pidfds, so they are borrowed from us (lender.py)."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from harness import processes, program, wait_until  # noqa: E402
from harness.wire import Client  # noqa: E402
from lender import Lender  # noqa: E402

CHECKER = [
    "valgrind",
    "--quiet",
    "--trace-children=yes",
    "--trace-children-skip=*/sleep",  # the workers
    "--track-fds=yes",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite",
    "--run-libc-freeres=no",  # it clears the environment, and then its copy seems lost
]
PATIENCE = 60.0


class Life:
    """One pool; `rounds` times everything that can be asked of it."""

    def __init__(self, directory, rounds):
        self.dir = Path(directory)
        self.socket = self.dir / "sock"
        self.log = open(self.dir / "log", "wb")
        self.lender = Lender(self.dir / "pidfds")
        self.guard = subprocess.Popen(
            self.checked(
                "einhorn", "-d", self.socket, "-e", self.dir / "pid", "-n", "2", "-m", "0.2", "-s", "0.1",
                "-b", "127.0.0.1:0", "-b", f"unix:{self.dir}/web", "--", "/bin/sleep", "1000",
            ),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            env={
                "PATH": os.environ["PATH"],
                "TMPDIR": str(self.dir),
                "LD_PRELOAD": os.environ["EINHORN_BORROWED_PIDFDS"],
                "BORROWED_PIDFDS": self.lender.path,
            },
        )  # fmt: skip
        for _ in range(rounds):
            self.round()
        self.guard.send_signal(signal.SIGTERM)
        self.status = self.guard.wait(PATIENCE)
        self.log.close()
        self.lender.close()

    def checked(self, name, *words):
        report = f"--log-file={self.dir}/{name}.%p"
        return [*CHECKER, report, program(name), *[str(word) for word in words]]

    def ask(self, command, language="json", **fields):
        def answered():
            try:
                with Client(self.socket, PATIENCE) as client:
                    return client.request({"command": command, **fields}, language)["message"]
            except (OSError, EOFError):
                assert self.guard.poll() is None, (self.dir / "log").read_text()
                return None  # between two masters

        return wait_until(answered, PATIENCE, command)

    def round(self):
        for language in ("json", "yaml"):
            for command, args in (
                ("ehlo", []), ("state", []), ("state", ["json"]), ("status", []), ("help", []),
                ("config", []), ("inc", []), ("dec", []), ("signal", ["WINCH"]), ("nothing", []),
                ("upgrade", []), ("upgrade_fleet", []), ("rollback", []), ("reload", []),
            ):  # fmt: skip
                self.ask(command, language, args=args, id=7)
        with Client(self.socket, PATIENCE) as client:
            client.send_line(b"\x00\xff garbage\n")
            client.send_line(b'{"command":"sta')  # and leaves
        shell = subprocess.run(
            self.checked("einhornsh", "-d", self.socket, "-e", "state", "-e", "help"),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            timeout=PATIENCE,
            check=False,
        )
        assert shell.returncode == 0, (self.dir / "log").read_text()
        for number in (signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU):
            self.guard.send_signal(number)
        self.wait_settled()
        self.kill_master()
        self.wait_settled()

    def wait_settled(self):
        """Two workers of one version, ready, and nothing else on its way."""

        def look():
            state = json.loads(self.ask("state", args=["json"]))
            workers = [(one["state"], one["version"]) for one in state["workers"]]
            return not state["upgrading"] and workers == [("ready", state["version"])] * 2

        wait_until(look, 4 * PATIENCE, lambda: (self.dir / "log").read_text()[-4000:])

    def master(self):
        match = re.search(r'"master":\s*(\d+)', self.ask("state", args=["json"]))
        return int(match[1])

    def kill_master(self):
        before = self.master()
        os.kill(before, signal.SIGABRT)
        wait_until(lambda: self.master() != before, PATIENCE, "the next master")


def own(report):
    """The descriptors of a report, by what they are and where they were made."""
    parts = re.split(r"\n(?=Open (?:file descriptor|AF_))", report)
    found = []
    for part in parts[1:]:
        if "<inherited from parent>" in part or "valgrind" in part.splitlines()[0]:
            continue
        where = re.findall(r"(?:by|at) 0x[0-9A-F]+: (.+?) \(", part)
        found.append(" < ".join(where[:4]))
    return sorted(found)


def read_reports(directory):
    """Of each process that said anything: its program, its errors, its descriptors."""
    found = []
    for path in sorted(Path(directory).glob("einhorn*.*")):
        text = re.sub(r"^[=-]+\d+[=-]+ ?", "", path.read_text(errors="replace"), flags=re.MULTILINE)
        errors = [
            line
            for line in text.splitlines()
            if re.match(r"(Invalid|Conditional|Use of uninit|Syscall param|Mismatched)", line)
            or "definitely lost in" in line
        ]
        found.append((path.name, errors, own(text), text))
    return found


def main():
    processes.become_subreaper()
    most, broken = {}, []
    for rounds in (1, 4):
        directory = tempfile.mkdtemp(prefix="einhorn-valgrind-")
        try:
            life = Life(directory, rounds)
            if life.status != 0:
                broken.append(f"the guard ended with {life.status}")
            if life.lender.given == 0:
                broken.append("nobody has borrowed a pidfd")
            said = (life.dir / "log").read_text()
            for words in ("Upgraded successfully", "A new master goes on", "Exited worker"):
                if words not in said:
                    broken.append(f"the log does not say {words!r}")
            reports = read_reports(directory)
            guard = f"einhorn.{life.guard.pid}"
            for name, errors, _, text in reports:
                if errors:
                    broken.append(f"{name}: {errors}\n{text}")
            descriptors = next(open_ones for name, _, open_ones, _ in reports if name == guard)
            shells = [open_ones for name, _, open_ones, _ in reports if "einhornsh" in name]
            if any(shells):
                broken.append(f"einhornsh leaves open: {shells}")
            masters = [
                len(open_ones)
                for name, _, open_ones, _ in reports
                if name != guard and "einhornsh" not in name
            ]
            if not masters or not shells:
                broken.append("not every kind of process was seen")
            most[rounds] = (descriptors, max(masters, default=0))
            print(
                f"{rounds} rounds: {len(reports)} processes; descriptors of their own at the end:"
                f" guard {len(descriptors)}, {len(masters)} masters at most {max(masters)}"
            )
        finally:
            processes.end_all(processes.descendants)
            shutil.rmtree(directory, ignore_errors=True)
    if most[1][0] != most[4][0] or most[1][1] < most[4][1]:
        broken.append(f"a longer life leaves more descriptors open: {most[1]} / {most[4]}")
    for line in broken:
        print(line)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
