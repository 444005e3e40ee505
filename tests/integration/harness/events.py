"""The event stream as a client sees it (docs/events.md)."""

import json
import re
import socket
import time
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "events.md"

TYPES = {
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "list": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "null": lambda v: v is None,
    "any": lambda v: True,
}


def read_schema():
    """Fields by event, and types by field, from the tables of docs/events.md."""
    events, types, section = {}, {}, ""
    for line in DOCUMENT.read_text().splitlines():
        if line.startswith("## "):
            section = line
        elif line.startswith("| `") and section != "## Asking":
            row = line.split("|")
            name = re.findall(r"`([^`]+)`", row[1])[0]
            if section == "## Fields":
                types[name] = [word.strip() for word in row[2].split(" or ")]
            else:
                events[name] = re.findall(r"`([^`]+)`", row[2])
    return events, types


class Events:
    """A subscription. Every line is held against the schema; numbers must follow each other."""

    def __init__(self, pool, timeout=30.0, **wishes):
        self.schema, self.types = read_schema()
        self.client = pool.client(timeout)
        self.client.send_line(json.dumps({"command": "subscribe", "id": 7, **wishes}).encode() + b"\n")
        self.reply = json.loads(self.client.read_line())
        self.seen = []
        self.number = None
        self.gaps = []
        self.start = None
        if self.reply.get("wait"):
            self.start = self.next()

    def next(self):
        line = b""
        while not line:
            line = self.client.read_line()
        event = json.loads(line)
        self.check(event)
        self.seen.append(event)
        return event

    def check(self, event):
        name = event["event"]
        assert name in self.schema, f"{name} is not in docs/events.md"
        fields = set(event) - {"n", "at", "event"}
        described = self.schema[name]
        known = {field.rstrip("?") for field in described}
        assert fields <= known, f"{name}: {fields - known} not in docs/events.md"
        needed = {field for field in described if not field.endswith("?")}
        assert needed <= fields, f"{name} without {needed - fields}: {event}"
        for field, value in event.items():
            assert any(TYPES[kind](value) for kind in self.types[field]), f"{field} in {event}"
        if "n" in event:
            if self.number is not None and event["n"] != self.number + 1:
                self.gaps.append((self.number, event["n"]))
            self.number = event["n"]
        elif name in ("snapshot", "resumed"):
            if self.number is not None and event["after"] != self.number:
                self.gaps.append((self.number, event["after"]))
            self.number = event["after"]

    def wait(self, name, deadline=30.0, **fields):
        """The next event of that name and with these fields."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            self.client.socket.settimeout(max(0.1, end - time.monotonic()))
            try:
                event = self.next()
            except (TimeoutError, socket.timeout):
                break
            if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
                return event
        names = [e["event"] for e in self.seen[-30:]]
        raise AssertionError(f"no {name} {fields} within {deadline} s; seen {names}")

    def close(self):
        self.client.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
