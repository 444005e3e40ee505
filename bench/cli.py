"""What the commands beside this file have in common: options, measuring, printing."""

import argparse
import json
import os
import platform
import resource
import sys

import programs
from figures import Bench
from pool import PoolError, adopt_orphans
from table import render


def parse_arguments(description, figures):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "figures", nargs="*", metavar="FIGURE", help="only these: " + ", ".join(figures)
    )
    parser.add_argument("--rounds", type=int, default=5, help="samples of each figure (5)")
    parser.add_argument(
        "--quick", action="store_true", help="one round, fewer workers, a short idle time"
    )
    parser.add_argument(
        "--large", action="store_true", help="memory and CPU with 10000 workers too"
    )
    parser.add_argument(
        "--static", action="store_true", help="a statically linked worker for every figure"
    )
    parser.add_argument(
        "--command",
        help="measure this command line, which takes einhorn's options, "
        "in place of the einhorn in EINHORN_BIN_DIR (build/release/bin)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures with all samples to FILE")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.figures if name not in figures]
    if unknown:
        parser.error(f"no such figure: {', '.join(unknown)} (there are {', '.join(figures)})")
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    return arguments


def make_bench(arguments):
    paths = programs.build()
    counts = [10, 100] if arguments.quick else [10, 100, 1000]
    if arguments.large:
        counts.append(10000)
    return Bench(
        programs=paths,
        command=programs.einhorn_command(arguments.command),
        worker=paths["worker-static" if arguments.static else "worker"],
        small_worker=paths["worker-static"],
        rounds=1 if arguments.quick else arguments.rounds,
        counts=counts,
        idle_seconds=3 if arguments.quick else 20,
        state_seconds=0.3 if arguments.quick else 1,
    )


def measure(bench, figures, names):
    """All rows, and the names of the figures that could not be measured."""
    rows, failed = [], []
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        try:
            rows += figures[name](bench)
        except (PoolError, OSError) as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            failed.append(name)
    return rows, failed


def write_json(path, bench, rows, failed):
    report = {
        "machine": {
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "processors": os.cpu_count(),
        },
        "command": bench.command,
        "not_measured": failed,
        "figures": [row.as_json() for row in rows],
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=2)
        file.write("\n")


def main(description, figures):
    """Measures what the command line asks for. The exit code says whether everything could be
    measured, never whether a target was met: a machine's bad minute is not a failure."""
    arguments = parse_arguments(description, figures)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    adopt_orphans()
    try:
        bench = make_bench(arguments)
    except programs.BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    try:
        rows, failed = measure(bench, figures, arguments.figures or list(figures))
    except KeyboardInterrupt:
        return 130
    if rows:
        print(render(rows))
    if arguments.json:
        write_json(arguments.json, bench, rows, failed)
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
