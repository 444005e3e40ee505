"""The site of the documents: made whole, every link leads somewhere, and its search finds things without a server."""

import json
import subprocess

import pytest
from harness.programs import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(["/usr/bin/python3", "-B", ROOT / "scripts/site.py", out], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return out


def test_every_document_is_a_page(site):
    pages = list(site.rglob("*.html"))
    documents = [p for p in (ROOT / "docs").rglob("*.md")]
    assert len(pages) >= len(documents)
    for page in pages:
        text = page.read_text()
        assert "{{" not in text.split("<main")[0], f"{page}: something was not filled in"
    front = (site / "index.html").read_text()
    assert "prefers-color-scheme: dark" in (site / "site.css").read_text()
    assert front.count('aria-current="page"') == 1


QUERIES = {
    "canary": "upgrades.html",
    "stdin inetd": "bind.html",
    "watchdog systemd": "neighbours.html",
    "kill -9 guard": "how-it-works.html",
    "pm2 reload": "moving/pm2.html",
}


def test_search(site):
    """site.js itself, by Node, on the index that the pages load."""
    program = f"""
const window = globalThis.window = {{}};
require({json.dumps(str(site / "search-index.js"))});
const {{ search, excerpt }} = require({json.dumps(str(site / "site.js"))});
const found = {{}};
for (const query of {json.dumps(list(QUERIES))})
  found[query] = search(window.searchIndex, query).map((e) => [e.page, excerpt(e, query)]);
found.nothing = search(window.searchIndex, "xyzzyplugh");
found.empty = search(window.searchIndex, "  ");
console.log(JSON.stringify(found));
"""
    done = subprocess.run(["node", "-e", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("nothing") == [] and found.pop("empty") == []
    for query, page in QUERIES.items():
        pages = [address for address, _ in found[query]]
        assert any(page in address for address in pages), f"{query}: {pages}"
        for address in pages:
            file, _, anchor = address.partition("#")
            assert not anchor or f'id="{anchor}"' in (site / file).read_text()
