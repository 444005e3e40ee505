#!/usr/bin/env python3
"""Sums up test results.

  sum_results.py DIRECTORY          prints what failed and "N passed, N failed"; exit code 1 if any
  sum_results.py --any-failed FILE  exit code 0 if the JUnit file reports a failed test

DIRECTORY holds JUnit files (*.xml), written by ctest and pytest, and perhaps a file `broken` with
one line for every step that did not come to an end.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def read_suite(path):
    """(passed, failed names, skipped names) of one JUnit file."""
    passed, failed, skipped = 0, [], []
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{path.stem}: {case.get('classname') or ''} {case.get('name')}"
        status = case.get("status")
        if case.find("failure") is not None or case.find("error") is not None or status == "fail":
            failed.append(name)
        elif case.find("skipped") is not None or status in ("notrun", "disabled"):
            skipped.append(name)
        else:
            passed += 1
    return passed, failed, skipped


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "--any-failed":
        return 0 if read_suite(pathlib.Path(arguments[1]))[1] else 1
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    directory = pathlib.Path(arguments[0])
    passed, failed, skipped = 0, [], []
    for path in sorted(directory.glob("*.xml")):
        try:
            suite = read_suite(path)
        except (ElementTree.ParseError, OSError) as error:
            failed.append(f"{path.name} can't be read: {error}")
            continue
        passed += suite[0]
        failed += suite[1]
        skipped += suite[2]
    broken = directory / "broken"
    if broken.exists():
        failed += broken.read_text().splitlines()
    if passed == 0 and not failed:
        failed.append("no test was run")
    for name in failed:
        print(f"FAILED  {name}")
    if skipped:
        print(f"{len(skipped)} skipped: " + "; ".join(skipped))
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
