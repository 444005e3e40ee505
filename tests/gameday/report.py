"""The table of a game day: as Markdown, as JSON, and as JUnit for the sum of all tests."""

import json
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "results"


def unfinished(one, seconds, code):
    """The result of a scenario that did not come to its end."""
    return {
        "name": one.name,
        "hypothesis": one.hypothesis,
        "happened": "",
        "holds": "no",
        "problems": [f"did not come to its end: exit code {code} after {seconds:.0f} s"],
        "requests": 0,
        "over_kept_connections": 0,
        "failed": 0,
        "lost_with_a_killed_worker": 0,
        "of_these_between_accept_and_note": 0,
        "workers_killed": 0,
        "longest_gap_ms": 0,
        "worst_latency_ms": 0,
        "seconds": round(seconds, 1),
    }


def tell(result, log):
    """One line on what became of a scenario; all there is to know if it does not hold."""
    print(
        f"{result['holds']:>3}  {result['name']:<26} {result['requests']:>7} requests,"
        f" {result['failed']} failed, {result['lost_with_a_killed_worker']} lost with a worker,"
        f" longest gap {result['longest_gap_ms']:.0f} ms, {result['seconds']:.0f} s",
        flush=True,
    )
    if result["holds"] == "no":
        for problem in result["problems"]:
            print(f"       {problem}")
        print(log, flush=True)
    elif result["holds"] != "yes":
        print(f"       {result['happened']}", flush=True)


COLUMNS = [
    ("scenario", "name"),
    ("hypothesis", "hypothesis"),
    ("what happened", "happened"),
    ("requests", "requests"),
    ("failed", "failed"),
    ("lost with a killed worker", "lost_with_a_killed_worker"),
    ("longest gap, ms", "longest_gap_ms"),
    ("holds", "holds"),
]


def markdown(results):
    lines = ["| " + " | ".join(title for title, _ in COLUMNS) + " |"]
    lines.append("|" + " --- |" * len(COLUMNS))
    for result in results:
        cells = dict(result, longest_gap_ms=f"{result['longest_gap_ms']:.0f}")
        cells["happened"] = "; ".join([t for t in [result["happened"], *result["problems"]] if t])
        words = [" ".join(str(cells[key]).split()).replace("|", "\\|") for _, key in COLUMNS]
        lines.append("| " + " | ".join(words) + " |")
    total = {key: sum(r[key] for r in results) for key in SUMS}
    lines.append(
        f"| all | | | {total['requests']} | {total['failed']} |"
        f" {total['lost_with_a_killed_worker']} | | |"
    )
    return "\n".join(lines) + "\n"


SUMS = ("requests", "failed", "lost_with_a_killed_worker", "workers_killed")


def machine():
    revision = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg(),
        "revision": revision,
        "when": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
    }


def junit(results):
    """`not possible` counts as skipped."""
    suite = ElementTree.Element("testsuite", name="gameday", tests=str(len(results)))
    for result in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="gameday",
            name=result["name"],
            time=str(result["seconds"]),
        )
        if result["holds"] == "no":
            ElementTree.SubElement(case, "failure", message="; ".join(result["problems"]))
        elif result["holds"] != "yes":
            ElementTree.SubElement(case, "skipped", message=result["happened"])
    return ElementTree.tostring(suite, encoding="unicode")


def write(results, options, seconds):
    """All forms, under build/results and where else they are wanted; prints the sum."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    table = markdown(results)
    document = {
        "command": "scripts/gameday " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "seconds": round(seconds, 1),
        "scenarios": results,
    }
    text = json.dumps(document, indent=2) + "\n"
    (RESULTS / "gameday.md").write_text(table, encoding="utf-8")
    (RESULTS / "gameday.json").write_text(text, encoding="utf-8")
    (RESULTS / "gameday.xml").write_text(junit(results), encoding="utf-8")
    if options.json:
        Path(options.json).write_text(text, encoding="utf-8")
    if options.markdown:
        Path(options.markdown).write_text(table, encoding="utf-8")
    holds = [result["holds"] for result in results]
    print(
        f"{holds.count('yes')} of {len(holds)} hypotheses hold, {holds.count('no')} do not,"
        f" {len(holds) - holds.count('yes') - holds.count('no')} could not be tried;"
        f" {sum(r['requests'] for r in results)} requests, {sum(r['failed'] for r in results)}"
        f" failed, {sum(r['lost_with_a_killed_worker'] for r in results)} lost with killed workers;"
        f" {seconds:.0f} s"
    )
