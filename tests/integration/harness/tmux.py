"""A program in a terminal of tmux: what its screen shows, what is typed, and the window's size."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from .waiting import wait_until


class Tmux:
    """A server of its own, with one window."""

    def __init__(self, command, columns=80, rows=24, env=None):
        self.directory = Path(tempfile.mkdtemp(prefix="tmux-"))
        self.socket = self.directory / "socket"
        self.env = {**os.environ, "LC_ALL": "C.UTF-8", "TMUX_TMPDIR": str(self.directory), **(env or {})}
        self.env.pop("TMUX", None)
        self._tmux("-f", "/dev/null", "new-session", "-d", "-s", "test", "-x", columns, "-y", rows,
                   shlex.join(map(str, command)) + "; echo ended with $?; exec sleep 1000")
        self._tmux("set-option", "-g", "status", "off")
        self._tmux("resize-window", "-t", "test", "-x", columns, "-y", rows)

    def _tmux(self, *words, check=True):
        done = subprocess.run(
            ["tmux", "-S", str(self.socket), *map(str, words)],
            env=self.env, capture_output=True, text=True, timeout=30, check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def screen(self, colours=False):
        """The lines of the window, as somebody who looks at it sees them."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []), "-t", "test").split("\n")[:-1]

    def wait(self, predicate, deadline=30.0, what="the screen"):
        """Waits until the screen is as it should be; returns its lines."""
        last = []

        def look():
            last[:] = self.screen()
            return predicate(last)

        wait_until(look, deadline, lambda: f"{what}; there is\n" + "\n".join(last))
        return last

    def wait_text(self, text, deadline=30.0):
        return self.wait(lambda lines: any(text in line for line in lines), deadline, repr(text))

    def type(self, *keys):
        self._tmux("send-keys", "-t", "test", *keys)

    def resize(self, columns, rows):
        self._tmux("resize-window", "-t", "test", "-x", columns, "-y", rows)

    def close(self):
        self._tmux("kill-server", check=False)
