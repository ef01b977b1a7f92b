# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/operate.md against what it tells of. Invariant: no cause of a safety event is left without a word on what to do, and nothing is named that is not there."""
import re

import pytest

import helpers
from nginx import EXAMPLES
from rig import REPO

TEXT = (REPO / "docs" / "operate.md").read_text()


def test_every_safety_event_has_its_row():
    table = re.search(r"#define KP_CAUSES\(X\)(.*?)\n\n", (REPO / "libkp" / "kp.h").read_text(), re.S).group(1)
    rows = re.findall(r"X\((\w+), \w+, (\w+), (\w+), (-?\d+),", table)
    assert len(rows) > 8
    for name, level, holds, stops in rows:
        row = re.search(rf"^\| `{name}` \((.*?)\) \|.*?\| (.*?) \|", TEXT, re.M)
        assert row and row.group(1).startswith(level.lower()), name
        assert ("held" in row.group(2) or "stopped at once" in row.group(2)) == (holds == "true"), name
        assert ("stopped at" in row.group(2)) == (int(stops) >= 0), name
    assert "| `EMERGENCY_STOP` (emergency) |" in TEXT and "| `RELEASE` (normal) |" in TEXT


def test_codes_are_the_contracts():
    named = set(re.findall(r"\b[A-Z]+_[A-Z_]+\b \(?(?:50\d|4\d\d)", TEXT))
    assert len(named) > 5
    for name, status in (n.replace("(", "").split() for n in named):
        assert helpers.CODES[name] == int(status)


@pytest.mark.parametrize("file", sorted(str(f.relative_to(EXAMPLES)) for f in EXAMPLES.rglob("*") if f.is_file()))
def test_every_example_is_told(file):
    assert file in TEXT or file.removeprefix("snippets/klipperplace") in TEXT
