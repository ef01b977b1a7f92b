# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads KiCad's footprint position files, ASCII (.pos) and CSV, and turns them into places on a board in the machine.

For job.py. Invariant: a line that is not understood is an error with its number; no part is dropped.

What KiCad writes (read in pcbnew/exporters/place_file_exporter.cpp and in FOOTPRINT::Flip):
  * Position: the footprint's, minus the drill/place origin where the export was told to use it. X grows to the right and Y
    upwards, for BOTH sides as seen through the board from the top. So a part on the bottom has the same X as a part on
    the top that lies above it. The export option "Use negative X coordinates for footprints on bottom layer" only changes
    the sign of X of bottom parts.
  * Rotation: degrees, counterclockwise, as seen from the TOP for both sides. A bottom footprint at 0 is the library's
    footprint flipped top to bottom (Y mirrored), and is then turned by Rot as seen from the top.
From that, for a board turned over about its vertical axis (what was left is right):
    x = width - x,   y = y,   rotation = 180 - Rot      (counterclockwise, as seen from above, so from the bottom side)
because mirror_x * turn(Rot) * mirror_y is turn(-Rot) * turn(180).
"""
import csv
import math
import re
from dataclasses import dataclass

MM_PER_INCH = 25.4
COLUMNS = ["Ref", "Val", "Package", "PosX", "PosY", "Rot", "Side"]


class FileError(Exception):
    """The position file cannot be used."""


@dataclass(frozen=True)
class Part:
    """A line of the file: mm and degrees as KiCad writes them; side is top or bottom."""
    ref: str
    value: str
    package: str
    x: float
    y: float
    rot: float
    side: str


@dataclass(frozen=True)
class Board:
    """The board's outline in the file's coordinates, mm."""
    left: float
    bottom: float
    width: float
    height: float


def read_positions(path):
    """The parts of a position file, in its order."""
    text = path.read_text(encoding="utf-8")
    parts = _read_csv(text, path) if path.suffix.lower() == ".csv" else _read_ascii(text, path)
    if not parts:
        raise FileError(f"{path}: no parts in it")
    seen = set()
    for part in parts:
        if part.ref in seen:
            raise FileError(f"{path}: {part.ref} is there twice")
        seen.add(part.ref)
    return parts


def _read_ascii(text, path):
    parts, scale = [], 1.0
    for number, line in enumerate(text.splitlines(), 1):
        if unit := re.match(r"## Unit = (\w+)", line):
            scale = MM_PER_INCH if unit.group(1).startswith("inch") else 1.0
        if line.strip() and not line.startswith("#"):
            parts.append(_part(line.split(), scale, path, number))
    return parts


def _read_csv(text, path):
    rows = list(csv.reader(text.splitlines()))
    if not rows or rows[0] != COLUMNS:
        raise FileError(f"{path}:1: the first line must be {','.join(COLUMNS)}")
    return [_part(row, 1.0, path, number) for number, row in enumerate(rows[1:], 2) if row]


def _part(fields, scale, path, number):
    if len(fields) != len(COLUMNS):
        raise FileError(f"{path}:{number}: {len(COLUMNS)} columns expected, {len(fields)} found")
    ref, value, package, x, y, rot, side = fields
    try:
        x, y, rot = float(x) * scale, float(y) * scale, float(rot)
        if not all(math.isfinite(v) for v in (x, y, rot)):
            raise ValueError
    except ValueError:
        raise FileError(f"{path}:{number}: {ref}: a position is not a number") from None
    if side not in ("top", "bottom"):
        raise FileError(f"{path}:{number}: {ref}: side {side!r} is neither top nor bottom")
    return Part(ref, value, package, x, y, rot, side)


def around(parts, margin):
    """A board that holds all parts with a margin: for a file whose outline nobody told."""
    xs, ys = [p.x for p in parts], [p.y for p in parts]
    return Board(min(xs) - margin, min(ys) - margin, max(xs) - min(xs) + 2 * margin, max(ys) - min(ys) + 2 * margin)


def on_board(part, board):
    """Where the part goes as seen from its own side, with that side up: mm from the board's lower left corner, degrees."""
    x, y = part.x - board.left, part.y - board.bottom
    if not (0 <= x <= board.width and 0 <= y <= board.height):
        raise FileError(f"{part.ref} at {part.x:g}, {part.y:g} is not on the board")
    if part.side == "top":
        return x, y, part.rot
    return board.width - x, y, 180.0 - part.rot
