#!/usr/bin/env python3
"""Deliberate faults: does the simulation find them? (docs/simulation.md)

  run.py [NAME...] [--seconds S] [--jobs N] [--from SEED]
      Each mutation of this directory (or those named) is applied to a copy of the sources, the
      simulation is built from it and lives new seeds, for at most S (60) seconds of processor time.
      Ends with 1 if one was not found, does not apply or does not compile, or if the simulation
      finds something without any mutation. Results: build/results/mutations.md and .json
  run.py --list     the mutations and what they break
  run.py --check    only whether each still applies to the sources

A mutation is a file NAME.mutation:

  breaks: what is wrong then, in a sentence
  file: src/pool/upgrade.cpp
  - lines that are in that file exactly once; how they are broken and indented does not count
  + lines in their place

Several parts (file:, -, +) may follow each other.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
PRESET = "release"
LIVES = 1_000_000_000  # more than there is time for
LEAST_LIVES = 10


class Wrong(Exception):
    """A mutation that can't be used; the text says why."""


@dataclasses.dataclass
class Part:
    path: str
    old: list = dataclasses.field(default_factory=list)
    new: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Mutation:
    name: str
    breaks: str = ""
    parts: list = dataclasses.field(default_factory=list)


def read_mutation(path):
    mutation = Mutation(path.stem)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        part = mutation.parts[-1] if mutation.parts else None
        if line.startswith("breaks: ") and not mutation.breaks:
            mutation.breaks = line.removeprefix("breaks: ").strip()
        elif line.startswith("file: "):
            mutation.parts.append(Part(line.removeprefix("file: ").strip()))
        elif line[:1] == "-" and part and not part.new:
            part.old.append(line[1:])
        elif line[:1] == "+" and part and part.old:
            part.new.append(line[1:])
        elif line.strip():
            raise Wrong(f"{path}:{number}: neither breaks:, file:, - nor +, or not in that order")
    if not mutation.breaks or not mutation.parts or not all(part.old for part in mutation.parts):
        raise Wrong(f"{path}: breaks:, file: and lines with - are needed")
    return mutation


def read_all(directory, names):
    found = {path.stem: path for path in sorted(directory.glob("*.mutation"))}
    unknown = [name for name in names if name not in found]
    if unknown:
        raise Wrong(f"no mutation is called {unknown[0]}; there are: {', '.join(found)}")
    return [read_mutation(found[name]) for name in (names or found)]


def mutate(mutation, root):
    """The changed texts by path. Raises Wrong if the sources are not what the mutation expects."""
    texts = {}
    for part in mutation.parts:
        path = root / part.path
        if not path.is_file():
            raise Wrong(f"{mutation.name}: there is no file {part.path} any more")
        text = texts.get(part.path) or path.read_text()
        words = " ".join(part.old).split()
        # White space may be other white space, and none between signs.
        matches = list(re.finditer(r"\s*".join(loosely(word) for word in words), text))
        if len(matches) != 1:
            raise Wrong(f"{mutation.name}: in {part.path} this is found {len(matches)} times "
                        f"instead of once: {' '.join(words)}")
        begin, end = matches[0].span()
        changed = text[:begin] + "\n".join(part.new) + text[end:]
        if changed.split() == text.split():
            raise Wrong(f"{mutation.name}: changes nothing in {part.path}")
        texts[part.path] = changed
    return texts


def loosely(word):
    """A pattern for one word; around brackets a formatter may put white space."""
    return r"\s*".join(re.escape(piece) for piece in re.split(r"(?<=[(\[{,])|(?=[)\]}])", word) if piece)


# --- the copy --------------------------------------------------------------------------------------
def copy_sources(root, tree):
    """What changed is copied, what is gone is removed: the next build is a small one."""
    wanted = set()
    for top in sorted(root.iterdir()):
        if top.name.startswith(".") or top.name in ("build", "node_modules"):
            continue
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and not {"__pycache__", "node_modules"} & set(path.parts):
                wanted.add(path.relative_to(root))
    for path in wanted:
        content = (root / path).read_bytes()
        target = tree / path
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            shutil.copymode(root / path, target)
    for path in list(tree.rglob("*")):
        relative = path.relative_to(tree)
        if path.is_file() and relative.parts[0] != "build" and relative not in wanted:
            path.unlink()


class Workshop:
    """The copy of the sources, and the simulations built from it."""

    def __init__(self, root):
        self.tree = root / "build" / "mutations" / "tree"
        self.programs = root / "build" / "mutations" / "programs"
        self.root = root
        self.environment = dict(os.environ, CCACHE_BASEDIR=str(self.tree), CCACHE_NOHASHDIR="1")

    def run(self, command):
        done = subprocess.run(command, cwd=self.tree, env=self.environment, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode == 0, done.stdout

    def prepare(self):
        copy_sources(self.root, self.tree)
        self.programs.mkdir(parents=True, exist_ok=True)
        fine, said = self.run(["cmake", "--preset", PRESET, "-DEINHORN_TESTS=ON"])
        if not fine:
            raise Wrong(f"cmake fails in the copy:\n{said}")
        program, said = self.build("unchanged")
        if program is None:
            raise Wrong(f"the copy does not compile:\n{said}")
        return program

    def build(self, name):
        fine, said = self.run(["cmake", "--build", "--preset", PRESET, "--target", "einhorn_sim"])
        if not fine:
            return None, said
        program = self.programs / name
        shutil.copy2(self.tree / "build" / PRESET / "bin" / "einhorn_sim", program)
        return program, said

    def build_mutated(self, mutation):
        texts = mutate(mutation, self.tree)
        before = {path: (self.tree / path).read_text() for path in texts}
        try:
            for path, text in texts.items():
                (self.tree / path).write_text(text)
            return self.build(mutation.name)
        finally:
            for path, text in before.items():
                (self.tree / path).write_text(text)


# --- searching -------------------------------------------------------------------------------------
@dataclasses.dataclass
class Search:
    kind: str = "nothing"  # nothing, invariant, check, crash
    by: str = ""
    what: str = ""
    seed: int = 0
    lives: int = 0
    seconds: float = 0.0  # of processor time


def judge(status, text, first):
    """What a search ended with: its wait status and what it said."""
    search = Search()
    seed = re.search(r"replay: scripts/sim --seed (\d+)", text)
    held = re.findall(r"^seed (\d+) holds$", text, re.MULTILINE)
    search.lives = len(held)
    if seed:
        search.seed = int(seed[1])
        search.lives = search.seed - first + 1
    broken = re.search(r"^(\S+) does not hold: (.*)$", text, re.MULTILINE)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 1 and broken:
        search.kind, search.by, search.what = "invariant", broken[1], broken[2]
    elif os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGABRT:
        check = re.search(r"^.*\bCHECK\b.*$", text, re.MULTILINE)
        search.kind = "check" if check else "crash"
        search.by = "CHECK" if check else "abort"
        search.what = check[0] if check else ""
    elif status == 0 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        search.by = "-"
    else:
        search.kind = "crash"
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        search.by = signal.Signals(number).name if number else f"status {os.WEXITSTATUS(status)}"
        search.seed = search.seed or first + len(held)
        search.lives = search.seed - first + 1
    return search


def search_seeds(program, first, lives, seconds):
    """Lives seeds until something is found, or lives or processor time are used up."""
    said = program.with_suffix(".said")

    def limit():
        if seconds:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    with said.open("wb") as out:
        process = subprocess.Popen([program, "--quick", str(lives), "--from", str(first)],
                                   stdout=out, stderr=subprocess.STDOUT, preexec_fn=limit)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    search = judge(status, said.read_text(errors="replace"), first)
    search.seconds = round(usage.ru_utime + usage.ru_stime, 1)
    return search


def examine(mutation, program, first, seconds):
    search = search_seeds(program, first, LIVES, seconds)
    result = result_of(mutation, search)
    print(f"{mutation.name}: {found_by(result)}, {search.seconds} s, {search.lives} lives, "
          f"seed {search.seed}: {search.what[:100]}", flush=True)
    return result


def result_of(mutation, search):
    return {"name": mutation.name, "breaks": mutation.breaks, **dataclasses.asdict(search)}


# --- results ---------------------------------------------------------------------------------------
def found_by(result):
    return {"invariant": result["by"], "check": "CHECK", "crash": "crash: " + result["by"],
            "nothing": "**not found**", "broken": "**does not compile**"}[result["kind"]]


def markdown(results, unchanged):
    lines = ["| mutation | what it breaks | found by | seconds | lives |", "| --- | --- | --- | ---: | ---: |"]
    for result in results:
        lines.append(f"| {result['name']} | {result['breaks']} | {found_by(result)} "
                     f"| {result['seconds']:.1f} | {result['lives']} |")
    lines.append("")
    lines.append(f"Without any mutation, the same seeds: {unchanged['lives']} lives in "
                 f"{unchanged['seconds']:.0f} s, " + ("nothing found." if unchanged["kind"] == "nothing" else
                    f"**{unchanged['by']} does not hold** at seed {unchanged['seed']}."))
    return "\n".join(lines) + "\n"


def run(root, mutations, seconds, jobs, first):
    workshop = Workshop(root)
    print(f"==> building without any mutation; seeds from {first}", flush=True)
    clean = workshop.prepare()
    results, waiting = [], []
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        # What is found has to come from the mutation alone.
        fine = pool.submit(search_seeds, clean, first, LEAST_LIVES, None)
        # By file: what one leaves behind is compiled again for the next one anyway.
        for mutation in sorted(mutations, key=lambda one: one.parts[0].path):
            program, said = workshop.build_mutated(mutation)
            if program is None:
                print(f"{mutation.name}: does not compile\n{said}", flush=True)
                results.append(result_of(mutation, Search("broken")))
                continue
            waiting.append(pool.submit(examine, mutation, program, first, seconds))
        results += [done.result() for done in waiting]
        plain = fine.result()
        row = max([r["lives"] for r in results if r["kind"] != "nothing"], default=0)
        if plain.kind == "nothing" and row > LEAST_LIVES:
            plain = search_seeds(clean, first, row, None)
        plain = dataclasses.asdict(plain)
    results.sort(key=lambda result: result["name"])
    return results, plain


def report(root, results, plain, seconds, began):
    table = markdown(results, plain)
    directory = root / "build" / "results"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "mutations.md").write_text(table)
    (directory / "mutations.json").write_text(json.dumps(
        {"unchanged": plain, "limit_seconds": seconds, "mutations": results}, indent=1) + "\n")
    print("\n" + table)
    wrong = []
    if plain["kind"] != "nothing":
        wrong.append(f"without any mutation: {plain['by']} does not hold at seed {plain['seed']}: "
                     f"{plain['what']}")
    for result in results:
        if result["kind"] in ("nothing", "broken"):
            wrong.append(f"{result['name']}: {found_by(result).strip('*')}")
    for line in wrong:
        print(line, file=sys.stderr)
    found = sum(result["kind"] not in ("nothing", "broken") for result in results)
    print(f"{found} of {len(results)} found within {seconds} s each; "
          f"{time.monotonic() - began:.0f} s altogether")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--from", dest="first", type=int, default=int(time.time()))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--root", type=pathlib.Path, default=HERE.parent.parent)
    parser.add_argument("--mutations", type=pathlib.Path, default=HERE)
    options = parser.parse_args()
    began = time.monotonic()
    root = options.root.resolve()
    problems = []
    try:
        mutations = read_all(options.mutations, options.names)
    except Wrong as wrong:
        print(wrong, file=sys.stderr)
        return 1
    for mutation in mutations:
        try:
            mutate(mutation, root)
        except Wrong as wrong:
            problems.append(wrong)
    for problem in problems:
        print(problem, file=sys.stderr)
    if options.list:
        for mutation in mutations:
            print(f"{mutation.name}: {mutation.breaks}")
    elif options.check:
        print(f"{len(mutations)} mutations, {len(problems)} do not apply")
    if problems or options.list or options.check:
        return 1 if problems else 0
    try:
        results, plain = run(root, mutations, options.seconds, options.jobs, options.first)
    except Wrong as wrong:
        print(wrong, file=sys.stderr)
        return 1
    return report(root, results, plain, options.seconds, began)


if __name__ == "__main__":
    sys.exit(main())
