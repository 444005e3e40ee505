"""The short form of the table in docs/intercept.md: a few unmodified programs of other people's, each
upgraded under load, asked and not asked. The whole table is made by scripts/intercept-table."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "intercept_table"))

import run as table  # noqa: E402
from programs import PROGRAMS  # noqa: E402

SHORT = [program for program in PROGRAMS if program.short]


@pytest.mark.parametrize("program", SHORT, ids=[p.name.replace(" ", "-") for p in SHORT])
def test_program(program):
    result = table.measure(program, 1)
    assert "error" not in result, result["error"]
    assert result["reached"] == result["copies"] == table.WORKERS
    assert result["drained"]["failed"] == 0, result["drained"]
    assert result["drained"]["complaints"] == []
    if program.graceful:
        assert result["asked"]["failed"] == 0, result["asked"]
