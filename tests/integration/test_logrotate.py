"""logrotate itself, with the file of examples/logrotate: no line is lost."""

import gzip
import os
import re
import subprocess

from harness import wait_until
from harness.programs import ROOT

RULES = (ROOT / "examples" / "logrotate" / "einhorn").read_text()


class Rotated:
    """A pool whose log is rotated by logrotate, with the paths of the test's directory."""

    def __init__(self, make_pool, rules=RULES, **kwargs):
        self.pool = make_pool(
            ["-n", "2", "-m", "0", "--log-file", "@DIR@/shop.log", "--pidfile", "@DIR@/shop.pid"],
            **kwargs,
        )
        self.dir = self.pool.dir
        self.rules = self.dir / "rules"
        rules = rules.replace("/var/log/einhorn", str(self.dir)).replace("/run/einhorn", str(self.dir))
        self.rules.write_text(rules.replace("root adm", f"{os.geteuid()} {os.getegid()}"))
        self.rules.chmod(0o644)
        self.dir.chmod(0o755)
        self.log = self.dir / "shop.log"

    def rotate(self):
        command = ["logrotate", "--force", "--state", str(self.dir / "state"), str(self.rules)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "error" not in done.stderr, done.stderr

    def text(self):
        """All logs together, the oldest first."""
        files = sorted(self.dir.glob("shop.log.*"), key=lambda p: -int(re.search(r"\.(\d+)", p.name)[1]))
        parts = [gzip.open(p, "rt").read() if p.suffix == ".gz" else p.read_text() for p in files]
        return "".join(parts) + self.log.read_text()


def test_no_line_is_lost(make_pool):
    rotated = Rotated(make_pool)
    pool = rotated.pool
    pool.wait_ready(2)
    launched = set()
    for _ in range(4):
        rotated.rotate()
        # The master opens it anew when it hears of the signal; what it writes until then goes to the old file.
        since = pool.pids()
        for victim in since:
            os.kill(victim, 9)
        pool.wait_state(lambda s, old=since: len(s["workers"]) == 2 and not {w["pid"] for w in s["workers"]} & set(old), 20)
        launched |= set(pool.pids())
        pool.command("inc")
        pool.command("dec")
        wait_until(lambda: rotated.log.stat().st_size > 0, 20)
    assert len(list(rotated.dir.glob("shop.log.*.gz"))) == 3, "all but the last one are compressed"
    assert rotated.log.stat().st_mode & 0o777 == 0o640
    text = rotated.text()
    for pid in launched:
        assert text.count(f"===> Launched {pid} (") == 1
    assert all(re.match(r"\[\w+ \d+\] ", line) for line in text.splitlines()), "no line is torn"


def test_the_next_master_writes_to_the_new_file(make_pool):
    rotated = Rotated(make_pool)
    rotated.pool.wait_ready(2)
    rotated.rotate()
    rotated.pool.kill_master()
    wait_until(lambda: "A new master goes on" in rotated.log.read_text(), 20, rotated.text)


def test_copytruncate(make_pool):
    rules = re.sub(r"    postrotate.*?endscript\n", "    copytruncate\n", RULES, flags=re.DOTALL)
    rotated = Rotated(make_pool, rules=rules.replace("    create 0640 root adm\n", ""))
    rotated.pool.wait_ready(2)
    rotated.rotate()
    os.kill(rotated.pool.pids()[0], 9)
    wait_until(lambda: "===> Launched" in rotated.log.read_text(), 20, rotated.text)
    assert "\0" not in rotated.log.read_text(), "it is appended to, not written at an offset"
