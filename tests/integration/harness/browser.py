"""A headless Chromium for tests of pages: Playwright in a node process, spoken to in lines of JSON
(tests/browser/driver.mjs)."""

import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import processes

ROOT = Path(__file__).resolve().parents[3]
MODULES = ROOT / "build" / "browser" / "node_modules"
DEADLINE = 60.0


class Browser:
    def __init__(self):
        chromium = shutil.which("chromium")
        assert chromium, "there is no chromium (Debian's package chromium; scripts/test installs it)"
        assert (MODULES / "playwright-core").is_dir(), f"no playwright-core in {MODULES}: run scripts/browser"
        self.profile = tempfile.mkdtemp(prefix="einhorn-browser-")
        self.process = subprocess.Popen(
            [shutil.which("node") or "node", str(ROOT / "tests" / "browser" / "driver.mjs"), str(MODULES), chromium,
             self.profile],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "HOME": self.profile},
        )
        processes.kept.add(self.process.pid)
        self.buffer = b""
        self.version = self._answer()["ready"]

    def _answer(self):
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE)
            assert ready, "the browser does not answer"
            got = os.read(self.process.stdout.fileno(), 1 << 20)
            assert got, f"the browser's driver has ended: {self.process.wait(DEADLINE)}"
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def ask(self, verb, **words):
        self.process.stdin.write(json.dumps({"do": verb, **words}).encode() + b"\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert "error" not in answer, f"{verb} {words}: {answer['error']}"
        return answer["value"]

    def open(self, url, **options):
        return Page(self, self.ask("open", url=url, **options))

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        processes.kept.discard(self.process.pid)
        self.process.stdout.close()
        shutil.rmtree(self.profile, ignore_errors=True)


class Page:
    def __init__(self, browser, name):
        self.browser, self.name = browser, name

    def ask(self, verb, **words):
        return self.browser.ask(verb, page=self.name, **words)

    def eval(self, code):
        return self.ask("eval", code=code)

    def wait(self, code, timeout=20.0):
        """Until the expression is true in the page; its value."""
        return self.ask("wait", code=code, timeout=int(timeout * 1000))

    def wait_text(self, selector, text, timeout=20.0):
        """Until the text of the first such element has `text` in it."""
        look = f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"
        try:
            self.wait(f"({look}).includes({json.dumps(text)})", timeout)
        except AssertionError:
            raise AssertionError(f"{selector} never said {text!r}; it says {self.eval(look)!r}") from None

    def text(self, selector):
        return self.eval(f"document.querySelector({json.dumps(selector)})?.textContent")

    def count(self, selector):
        return self.eval(f"document.querySelectorAll({json.dumps(selector)}).length")

    def visible(self, selector):
        return self.eval(f"Boolean(document.querySelector({json.dumps(selector)})?.checkVisibility())")

    def click(self, selector):
        self.ask("click", selector=selector)

    def fill(self, selector, text):
        self.ask("fill", selector=selector, text=text)

    def select(self, selector, value):
        self.ask("select", selector=selector, value=value)

    def press(self, key):
        self.ask("press", key=key)

    def shot(self, path, **options):
        self.ask("shot", path=str(path), **options)

    def errors(self):
        """What went wrong in the page, but for requests: agents do go, and tokens are wrong."""
        return [text for text in self.ask("errors") if not text.startswith("Failed to load resource")]

    def close(self):
        self.ask("close")
