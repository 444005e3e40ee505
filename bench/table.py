"""Rows of figures, how they are judged, and how they are printed."""

import math
import statistics
from dataclasses import asdict, dataclass, field

HEADINGS = ("figure", "ours", "floor", "ratio", "target", "")


@dataclass
class Row:
    """One figure. `judged` is the value the target is about: "ratio", "ours", or "" for none."""

    name: str
    unit: str
    ours: list
    floor: list = field(default_factory=list)
    judged: str = ""
    bound: str = "<="
    target: float = 0.0

    @property
    def value(self):
        return statistics.median(self.ours)

    @property
    def floor_value(self):
        return statistics.median(self.floor) if self.floor else None

    @property
    def ratio(self):
        if not self.floor_value:
            return None
        return self.value / self.floor_value

    @property
    def met(self):
        """Whether the target is met; None if there is none, or nothing to hold against it."""
        measured = {"ratio": self.ratio, "ours": self.value}.get(self.judged)
        if measured is None:
            return None
        return measured <= self.target if self.bound == "<=" else measured >= self.target

    def cells(self):
        target = ""
        if self.judged:
            unit = "x" if self.judged == "ratio" else f" {self.unit}".rstrip()
            target = f"{self.bound} {self.target:g}{unit}"
        return (
            self.name,
            amount(self.value, self.unit),
            amount(self.floor_value, self.unit),
            "" if self.ratio is None else f"{short(self.ratio)}x",
            target,
            {True: "met", False: "MISSED", None: ""}[self.met],
        )

    def as_json(self):
        return {
            **asdict(self),
            "ours": self.value,
            "floor": self.floor_value,
            "ours_samples": self.ours,
            "floor_samples": self.floor,
            "ratio": self.ratio,
            "met": self.met,
        }


def short(number):
    """Three significant digits, never an exponent."""
    if number == 0 or abs(number) >= 100:
        return f"{number:.0f}"
    decimals = 2 - math.floor(math.log10(abs(number)))
    return f"{number:.{min(decimals, 4)}f}"


def amount(value, unit):
    if value is None:
        return ""
    return f"{short(value)}x" if unit == "x" else f"{short(value)} {unit}".rstrip()


def render(rows):
    """The aligned table; the first column to the left, the others to the right."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    text = []
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        text.append("  ".join(cells).rstrip())
        if number == 0:
            text.append("  ".join("-" * width for width in widths if width).rstrip())
    return "\n".join(text)
