#!/usr/bin/python3
"""Makes a site of the documents: static, light and dark, searchable without a server; see scripts/site."""

import html
import json
import os
import re
import shutil
import sys
from pathlib import Path

import markdown

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "site"
INSIDE = ("architecture", "benchmarks", "fuzzing", "gameday", "simulation")
GROUPS = [
    ("Begin", ["README.md", "docs/tutorial.md", "docs/installing.md", "docs/how-to.md", "docs/how-it-works.md", "docs/index.md"]),
    ("Reference", []),  # the rest of docs/
    ("Moving from", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs/moving").glob("*.md"))),
    ("Examples", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "examples").rglob("README.md"))),
    ("Worker libraries", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "sdk").glob("*/README.md"))),
    ("Development", ["CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{name}.md" for name in INSIDE)]
     + sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs/contributing").glob("*.md"))),
    ("Decisions", sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs/adr").glob("*.md"))),
]
VERSION = re.search(r"project\(einhorn VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())[1]
LINK = re.compile(r'(href|src)="([^"]+)"')
HEADING = re.compile(r'<h([1-3]) id="([^"]+)">(.*?)</h\1>', re.DOTALL)


def title_of(name):
    title = re.search(r"^# (.+)$", (ROOT / name).read_text(), re.MULTILINE)
    return title[1] if title else name


def sources():
    """(group, path) of each page, in the order of the menu."""
    named = {name for _, names in GROUPS for name in names}
    rest = sorted((str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md")), key=lambda name: title_of(name).lower())
    found = []
    for group, names in GROUPS:
        for name in names if group != "Reference" else [name for name in rest if name not in named]:
            if (ROOT / name).exists():
                found.append((group, name))
    return found


def page_of(name):
    """Where a document's page is, below the site."""
    if name == "README.md":
        return "index.html"
    return re.sub(r"\.md$", ".html", "documents.md" if name == "docs/index.md" else name)


def plain(text):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))).strip()


class Site:
    def __init__(self, out):
        self.out = out
        self.pages = {}  # name: (title, body)
        self.files = set()  # others that pages show or link to
        self.problems = []

    def read(self):
        for _, name in sources():
            text = (ROOT / name).read_text()
            text = re.sub(r"^```(\w+) (skip|wait)$", r"```\1", text, flags=re.MULTILINE)
            converter = markdown.Markdown(extensions=["tables", "fenced_code", "toc", "sane_lists"], tab_length=2)
            body = converter.convert(text)
            self.pages[name] = (plain(converter.reset().convert(title_of(name))), body)

    def link(self, name, target):
        """What a link of a document is called in its page."""
        if re.match(r"^[a-z]+:", target) or target.startswith("#"):
            return target
        path, _, anchor = target.partition("#")
        goal = os.path.normpath(os.path.join(os.path.dirname(name), path))
        here = os.path.dirname(page_of(name))
        if os.path.isdir(ROOT / goal) and f"{goal}/README.md" in self.pages:
            goal += "/README.md"
        if goal in self.pages:
            there = page_of(goal)
            if anchor and f'id="{anchor}"' not in self.pages[goal][1]:
                self.problems.append(f"{name}: {target}: no such heading")
        elif (ROOT / goal).is_file():
            there = goal
            self.files.add(goal)
        elif (ROOT / goal).is_dir():
            there = f"{goal}/index.html"
            self.files.add(goal)
        else:
            self.problems.append(f"{name}: {target}: there is no such file")
            return target
        return os.path.relpath(there, here or ".") + (f"#{anchor}" if anchor else "")

    def menu(self, name):
        here = os.path.dirname(page_of(name))
        parts, last = [], None
        for group, other in sources():
            if group != last:
                parts.append(("</ul></details>" if last else "") + f"<details{' open' if self.group(name) == group or group == 'Begin' else ''}><summary>{group}</summary><ul>")
                last = group
            current = ' aria-current="page"' if other == name else ""
            address = os.path.relpath(page_of(other), here or ".")
            parts.append(f'<li><a href="{address}"{current}>{html.escape(self.pages[other][0].removeprefix(f"{group} "))}</a>{self.parts(name) if current else ""}</li>')
        return "".join(parts) + "</ul></details>"

    def parts(self, name):
        """The headings of a page, if it has several."""
        found = [(anchor, plain(heading)) for level, anchor, heading, _ in self.split(self.pages[name][1]) if level == "2"]
        items = "".join(f'<li><a href="#{anchor}">{html.escape(heading)}</a></li>' for anchor, heading in found)
        return f'<ul class="parts">{items}</ul>' if len(found) > 2 else ""

    @staticmethod
    def split(body):
        pieces = HEADING.split(body)
        return [pieces[i : i + 4] for i in range(1, len(pieces), 4)]

    @staticmethod
    def group(name):
        return next(group for group, other in sources() if other == name)

    def write(self):
        template = (ASSETS / "page.html").read_text()
        index = []
        for name, (title, body) in self.pages.items():
            body = LINK.sub(lambda m, n=name: f'{m[1]}="{html.escape(self.link(n, html.unescape(m[2])))}"', body)
            top = os.path.relpath(".", os.path.dirname(page_of(name)) or ".")
            page = template
            for key, value in (("version", VERSION), ("title", html.escape(title)), ("menu", self.menu(name)), ("top", top), ("body", body)):
                page = page.replace(f"{{{{{key}}}}}", value)
            target = self.out / page_of(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(page)
            index += self.entries(name, title, body)
        self.files.add("LICENSE")
        for name in sorted(self.files):
            self.copy(name)
        for asset in ("site.css", "site.js"):
            shutil.copy(ASSETS / asset, self.out / asset)
        (self.out / "search-index.js").write_text(f"window.searchIndex = {json.dumps(index, ensure_ascii=False)};\n")

    @staticmethod
    def entries(name, title, body):
        """One for each part of a page: where, what it is called, what it says."""
        found = [{"page": page_of(name), "title": title, "part": "", "text": plain(HEADING.split(body)[0])}]
        for _, anchor, heading, text in Site.split(body):
            found.append({"page": f"{page_of(name)}#{anchor}", "title": title, "part": plain(heading), "text": plain(text)})
        return found

    def copy(self, name):
        target = self.out / name
        if (ROOT / name).is_dir():
            target.mkdir(parents=True, exist_ok=True)
            names = sorted(p.name for p in (ROOT / name).iterdir() if p.is_file())
            (target / "index.html").write_text("".join(f'<p><a href="{n}">{n}</a></p>' for n in names))
            for each in names:
                shutil.copy(ROOT / name / each, target / each)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)

    def check(self):
        """Every link of every page leads somewhere."""
        for path in self.out.rglob("*.html"):
            for _, address in LINK.findall(path.read_text()):
                address = html.unescape(address)
                if re.match(r"^[a-z]+:", address):
                    continue
                file, _, anchor = address.partition("#")
                goal = (path.parent / file).resolve() if file else path
                if not goal.exists():
                    self.problems.append(f"{path.relative_to(self.out)}: {address} leads nowhere")
                elif anchor and goal.suffix == ".html" and f'id="{anchor}"' not in goal.read_text():
                    self.problems.append(f"{path.relative_to(self.out)}: {address}: no such place")


def main(out):
    out = Path(out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    site = Site(out)
    site.read()
    site.write()
    site.check()
    for problem in sorted(set(site.problems)):
        print(problem, file=sys.stderr)
    print(f"{out}/index.html: {len(site.pages)} pages, {len(site.problems)} problems")
    return 1 if site.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site"))
