"""clang-tidy over the sources of a build, several of them in one translation unit.

A file of ours is a few hundred lines and brings a hundred thousand of the system's headers, on which
clang-tidy spends half a minute. Sources that are compiled with the same flags are therefore read
together; one that does not go with the others (two of them have a constant of the same name) goes into
the next unit. What was clean is not looked at again until the unit, one of its headers or .clang-tidy
has changed.

Together they hide one thing that each alone would show: a using-declaration that only another file
of the unit uses. --each reads every file alone.

usage: tidy.py BUILD_DIR [--each] [--jobs N] [REGEX]    ends with 1 if there is a finding
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES_IN_A_UNIT = 12
# clang's analyzer follows the paths of included sources only in a unit of such a name.
UNIT_NAME = "UnifiedSource"


def flags_of(entry):
    """What of a compilation's command matters to clang: where headers are, definitions, the standard."""
    words = shlex.split(entry["command"])
    kept = []
    for word, following in zip(words, words[1:] + [""]):
        if word in ("-I", "-isystem", "-D"):
            kept += [word, following]
        elif word.startswith(("-I", "-D", "-std=")) or word == "-fno-exceptions":
            kept.append(word)
    return tuple(kept)


def compilations(build_dir, pattern):
    """The sources of ours that match, by directory and flags: {(directory, flags): [paths]}."""
    groups = {}
    seen = set()
    for entry in json.loads((build_dir / "compile_commands.json").read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        if path in seen or not path.is_relative_to(ROOT) or path.is_relative_to(build_dir):
            continue
        if not pattern.search("/" + str(path.relative_to(ROOT))):
            continue
        seen.add(path)
        groups.setdefault((path.parent, path.suffix, flags_of(entry)), []).append(path)
    return groups


def digest_of(paths):
    """Of what is in the files; "" if one of them is gone."""
    digest = hashlib.sha256()
    for path in sorted({str(path) for path in paths}):
        if not os.path.exists(path):
            return ""
        digest.update(pathlib.Path(path).read_bytes())
    return digest.hexdigest()


class Unit:
    """Some sources, the file that includes them, and what that depends on."""

    def __init__(self, directory, sources, suffix, flags):
        name = hashlib.sha256(repr((sources, flags)).encode()).hexdigest()[:12]
        self.sources = sources
        self.flags = [*flags, "-Wno-everything"]
        self.file = directory / f"{UNIT_NAME}-{name}{suffix}"
        self.file.write_text("".join(f'#include "{source}"\n' for source in sources))
        self.depends = directory / f"{name}.d"
        self.clean = directory / f"{name}.clean"
        self.apart = directory / f"{name}.apart"

    def in_the_way(self):
        """The sources in which the compiler finds an error; empty if all of them go together."""
        if self.was_clean():
            return []
        sources = digest_of(self.sources)
        if self.apart.exists():
            known = json.loads(self.apart.read_text())
            if known["sources"] == sources:
                return [source for source in self.sources if str(source) in known["named"]]
        compiler = "clang" if self.file.suffix == ".c" else "clang++"
        run = subprocess.run(
            [compiler, "-fsyntax-only", "-MMD", "-MF", self.depends, "-ferror-limit=0", *self.flags, self.file],
            capture_output=True, text=True, check=False)
        named = set(re.findall(r"^([^:\n]+):\d+:\d+: (?:fatal )?error: ", run.stderr, re.MULTILINE))
        found = [source for source in self.sources if str(source) in named]
        if run.returncode != 0 and not found:
            raise SystemExit(f"tidy.py: {self.file} does not compile:\n{run.stderr}")
        if found and found[0] != self.sources[0]:
            self.apart.write_text(json.dumps({"sources": sources, "named": sorted(named)}))
        return found

    def state(self):
        """A digest of all that the outcome depends on; "" if that is not known, or not there any more."""
        if not self.depends.exists():
            return ""
        words = self.depends.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        return digest_of([*words, ROOT / ".clang-tidy"])

    def was_clean(self):
        return self.clean.exists() and self.clean.read_text() == self.state() != ""

    def findings(self):
        """The findings, a line each; none if the unit is as it was when it was clean."""
        if self.was_clean():
            return []
        run = subprocess.run(
            ["clang-tidy", "-quiet", f"--config-file={ROOT / '.clang-tidy'}",
             "--checks=-bugprone-suspicious-include", self.file, "--", *self.flags],
            capture_output=True, text=True, check=False, cwd=ROOT)
        lines = re.findall(r"^.*: (?:error|warning): .*$", run.stdout, re.MULTILINE)
        if run.returncode == 0 and not lines:
            self.clean.write_text(self.state())
        elif not lines:
            lines = [f"{self.file}: clang-tidy ended with {run.returncode}: {run.stderr.strip()[-500:]}"]
        return [line.replace(f"{ROOT}/", "") for line in lines]


def units(directory, group, sources, size):
    """Units in which the sources go together."""
    _, suffix, flags = group
    waiting = sorted(sources)
    while waiting:
        taken, waiting = waiting[:size], waiting[size:]
        unit = Unit(directory, taken, suffix, flags)
        while others := unit.in_the_way():
            # The first file can only be in the way of itself.
            if others[0] == taken[0]:
                others = others[1:]
            if not others:
                raise SystemExit(f"tidy.py: {taken[0]} does not compile with clang")
            taken = [source for source in taken if source not in others]
            waiting = others + waiting
            unit = Unit(directory, taken, suffix, flags)
        yield unit


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].splitlines()[0])
    parser.add_argument("build_dir", type=pathlib.Path)
    parser.add_argument("pattern", nargs="?", default="/(src|tests|preload)/", type=re.compile)
    parser.add_argument("--each", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()

    build_dir = options.build_dir.resolve()
    directory = build_dir / "tidy"
    directory.mkdir(exist_ok=True)
    groups = compilations(build_dir, options.pattern)
    if not groups:
        raise SystemExit(f"tidy.py: no source matches {options.pattern.pattern}")

    seen = set()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        made = pool.map(lambda item: list(units(directory, item[0], item[1], 1 if options.each else FILES_IN_A_UNIT)),
                        groups.items())
        all_units = [unit for some in made for unit in some]
        # A finding in a header comes once for every unit that includes it.
        for found in pool.map(Unit.findings, all_units):
            for line in found:
                if line not in seen:
                    seen.add(line)
                    print(line, flush=True)
    print(f"{sum(map(len, groups.values()))} files in {len(all_units)} units, {len(seen)} findings", flush=True)
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
