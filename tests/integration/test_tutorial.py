"""docs/tutorial.md, block by block in one shell, as a reader would type it."""

import os
import re
import signal
import subprocess

from harness import wait_until
from harness.programs import ROOT, bin_dir
from harness.processes import descendants

BLOCK = re.compile(r"^```sh( \w+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Reader:
    """A shell that is typed into: `type` gives what a block printed and its exit code."""

    def __init__(self, directory, port):
        self.port = port
        environment = {
            "PATH": f"{bin_dir()}:/usr/bin:/bin",
            "TMPDIR": str(directory),
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
        }
        self.process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, block):
        block = block.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")
        self.process.stdin.write(f"{block}\necho END-OF-BLOCK $?\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            end = re.match(r"END-OF-BLOCK (\d+)$", line)
            if end:
                return "".join(lines), int(end[1])
            lines.append(line)
        raise AssertionError(f"the shell has ended: {lines}")


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_tutorial(make_pool, tmp_path):
    del make_pool  # it ends whatever is left
    text = (ROOT / "docs" / "tutorial.md").read_text()
    blocks = [(kind.strip(), code) for kind, code in BLOCK.findall(text) if kind.strip() != "skip"]
    assert len(blocks) >= 12
    reader = Reader(tmp_path, free_port())
    said = []
    try:
        for kind, code in blocks:
            output = []

            def try_it(code=code, output=output):
                output[:] = [reader.type(code)]
                return output[0][1] == 0

            if kind == "wait":
                wait_until(try_it, 300, lambda output=output, code=code: f"{code}: {output}, {reader.type('cat failures; wc -l answers')}")
            else:
                assert try_it(), f"{code}: {output}"
            said.append(output[0][0])
            if code.startswith("einhorn -c shop"):
                wait_until(lambda: reader.type("einhornsh -c shop -e 'state json' | grep -o '\"state\":\"ready\"' | wc -l")[0] == "2\n", 60)
        whole = "".join(said)
        assert re.search(r"release 1, worker \d+\n", whole) and re.search(r"release 2, worker \d+\n", whole)
        assert "Upgrade done" in whole and "rolled back" in whole
        assert "\n300\n" in whole and "release 3" not in whole
        guards = lambda: [s for s in descendants() if s.name == "einhorn"]  # noqa: E731
        wait_until(lambda: not guards(), 60)
    finally:
        reader.process.stdin.close()
        reader.process.wait(20)
        for stat in descendants():
            os.kill(stat.pid, signal.SIGKILL)
