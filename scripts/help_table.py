"""What a program's -h says about its options, as values: the one source of man pages and completions."""

import json
import re
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    letter: str  # "" if there is none
    name: str
    value: str  # what the value is called; "" if it takes none
    text: str

    @property
    def optional(self):
        return self.value.startswith("[")


def help_of(program):
    """Both programs end with 1 behind their usage: one says it on standard output, the other on standard error."""
    done = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


LINE = re.compile(r"^ {4}(?:-(?P<letter>\w), |    )?--(?P<name>[a-z0-9-]+)(?: (?P<value>\S+))?(?: +(?P<text>\S.*))?$")


def options_of(program):
    found = []
    for line in help_of(program).splitlines():
        match = LINE.match(line)
        if match:
            found.append([match["letter"] or "", match["name"], match["value"] or "", match["text"] or ""])
        elif found and re.match(r"^ {20,}\S", line):
            found[-1][3] = f"{found[-1][3]} {line.strip()}".strip()
    options = [Option(*fields) for fields in found]
    if not options:
        raise SystemExit(f"{program} -h: no options found")
    return options


def is_internal(option):
    return option.text.startswith("[Internal]")


def commands_of(root):
    """(name, what `help` says of it) of each command of a master, as the table in the source has them."""
    source = (root / "src/master/commands.cpp").read_text()
    rows = re.findall(r'\{"([\w:]+)",\s*((?:"(?:[^"\\]|\\.)*"\s*)+),\s*&Commands::', source)
    found = []
    for name, literals in rows:
        text = "".join(json.loads(f'"{piece}"') for piece in re.findall(r'"((?:[^"\\]|\\.)*)"', literals))
        if text:
            found.append((name, text))
    if not found:
        raise SystemExit(f"{root}/src/master/commands.cpp: no commands found")
    return found
