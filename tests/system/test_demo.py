# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo: what it reads, that it refuses what it cannot place, that its comparison can fail, and the job itself."""
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import demo
import job
import kicad
import rig

CFG = rig.DEMO_CFG
SMALL = """## Unit = inches, Angle = deg.
## Side : All
# Ref     Val       Package             PosX       PosY       Rot  Side
R1        10k       R_0603_1608Metric   4.0000    -3.0000   90.0000  top
C1        100n      C_0603_1608Metric   4.5000    -2.5000   30.0000  bottom
## End
"""


def run_demo(*args, timeout=900):
    """Runs the demo as scripts/demo does, after its setup."""
    return subprocess.run([sys.executable, str(Path(demo.__file__)), *map(str, args)], capture_output=True, text=True, timeout=timeout)


def plan_of(path, board=None):
    return job.load(path, CFG / "klipperplace.cfg", CFG / "job.cfg", board)


def test_both_files_say_the_same():
    ascii_parts = kicad.read_positions(CFG / "blinker-all.pos")
    assert ascii_parts == kicad.read_positions(CFG / "blinker-all-pos.csv")
    assert len(ascii_parts) >= 24
    assert {p.side for p in ascii_parts} == {"top", "bottom"}
    assert len({p.package for p in ascii_parts}) >= 5


@pytest.mark.parametrize("side, rot, want", [
    ("top", 30, (10, 5, 30)),
    ("bottom", 0, (40, 5, 180)),   # the library's footprint flipped top to bottom, seen from below
    ("bottom", 90, (40, 5, 90)),
    ("bottom", -45, (40, 5, 225)),
])
def test_kicads_convention(side, rot, want):
    """X and Y as seen from the top on both sides; a turned-over board mirrors X and makes 180 - Rot of the rotation."""
    part = kicad.Part("R1", "10k", "R", 110.0, -45.0, rot, side)
    assert kicad.on_board(part, kicad.Board(100, -50, 50, 40)) == want


def test_inches_and_unknown_outline(tmp_path):
    path = tmp_path / "other.pos"
    path.write_text(SMALL)
    plan, board = plan_of(path)
    assert (board.left, board.bottom, board.width, board.height) == pytest.approx((96.6, -81.2, 22.7, 22.7))
    assert [(p.part.ref, p.x, p.y, p.rotation) for p in plan] == [
        ("R1", pytest.approx(105), pytest.approx(105), 90), ("C1", pytest.approx(105), pytest.approx(117.7), 150)]


@pytest.mark.parametrize("name, text, message", [
    ("a.pos", "R1 10k R_0603 1 2 top\n", ":1: 7 columns expected, 6 found"),
    ("a.pos", "# x\nR1 10k R_0603 1 two 0 top\n", ":2: R1: a position is not a number"),
    ("a.pos", "R1 10k R_0603 1 nan 0 top\n", ":1: R1: a position is not a number"),
    ("a.pos", "R1 10k R_0603 1 2 0 left\n", "neither top nor bottom"),
    ("a.pos", "R1 10k R 1 2 0 top\nR1 10k R 1 2 0 top\n", "R1 is there twice"),
    ("a.pos", "## End\n", "no parts"),
    ("a.csv", "Ref,Val\n", ":1: the first line must be Ref,Val,Package"),
])
def test_bad_files(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(kicad.FileError, match=message):
        kicad.read_positions(tmp_path / name)


def test_part_without_feeder_is_told_before_anything_moves(tmp_path):
    path = tmp_path / "other.pos"
    path.write_text("R1 10k R_0603_1608Metric 1 1 0 top\nL1 4u7 L_1210 2 2 0 top\nX1 8MHz Crystal 3 3 0 top\n")
    answer = run_demo(path)
    assert answer.returncode == 1 and "machine ready" not in answer.stdout
    assert "L1: no feeder holds 4u7 (L_1210)" in answer.stderr and "X1: no feeder" in answer.stderr


def test_comparison_can_fail():
    """A part that is off, turned, dropped, missing or too much is seen."""
    plan, _ = plan_of(CFG / "blinker-all.pos")
    placed = [{"x": p.x, "y": p.y, "rot": p.rotation, "feeder": p.feeder.name, "fell": False, "id": p.part.ref} for p in plan[:18]]
    found, extra = demo.compare(plan[:18], placed)
    assert all(f.agrees for f in found) and not extra
    for i, (key, value) in enumerate([("x", 0.021), ("y", -0.03), ("rot", 1.1)]):
        placed[i][key] += value
    placed[3]["fell"] = True
    placed[4]["rot"] += 360.5
    placed[4]["x"] += 0.019
    found, extra = demo.compare(plan[:18], placed[:-1] + [dict(placed[0], x=179.0, id="stray")])
    assert [f.placement.part.ref for f in found if not f.agrees] == ["C1", "C2", "C3", "D1", "U2"]
    assert [t["id"] for t in extra] == ["stray"]


def test_job_with_failing_picks():
    """The whole job from the CSV file with parts that do not stick at first: all retried, all in place."""
    answer = run_demo("--faults", CFG / "blinker-all-pos.csv")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "28 of 28 parts lie where the file wants them" in answer.stdout
    assert answer.stdout.count("2 attempts") == 5
    assert "5 picks failed and were tried again, 0 crashes" in answer.stdout


@pytest.mark.smoke
def test_small_job_stays_until_sigterm(tmp_path):
    """Another board, in inches, with its outline unknown; --stay serves until it is told to end."""
    path = tmp_path / "other.pos"
    path.write_text(SMALL)
    process = subprocess.Popen([sys.executable, str(Path(demo.__file__)), "--stay", str(path)], stdout=subprocess.PIPE, text=True)
    lines = []
    try:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C ends it"):
                break
        output = "".join(lines)
        assert "2 of 2 parts lie where the file wants them" in output
        url = next(line.split()[-1] for line in lines if line.strip().startswith("curl") and line.strip().endswith("/position"))
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert json.load(answer)["status"] == "success"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
