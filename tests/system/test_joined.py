# SPDX-License-Identifier: GPL-3.0-or-later
"""Extra axes in one line with X, Y and Z (GCODE_AXIS): that they start and end together, keep their own limits, outlive restarts, and are moved beside where
Klipper cannot do it.

Invariant: when something moved is read from the simulated machine's record, on the microcontroller's clock.
"""
import pytest

import helpers
import openpnp
import rig
from helpers import X_STEP, Later, axis, get, go, ok, post, refused, still, wait_for
from openpnp import Lines

CLOCK_HZ = 50e6
TURN_STEP = 0.05625
# 10 mm of X and 45 degrees of A are 800 steps each: they fall on the same moments.
TURN = """
[manual_stepper index]
step_pin: PC4
dir_pin: PC5
enable_pin: !PH11
microsteps: 32
rotation_distance: 360
endstop_pin: PB7
velocity: 360
accel: 3600
"""
TURN_WORLD = "axis index step=PC4 dir=PC5 mm_per_step=0.05625 start=100 limit=PB7 limit_at=0 limit_side=le"
AXIS_H = "[axis H]\nstepper: manual_stepper index\nrotary: true\nhome_travel: -370\n"
# A Klipper from before GCODE_AXIS takes no notice of what it does not know.
OLD = """
[gcode_macro MANUAL_STEPPER]
rename_existing: MANUAL_STEPPER_BASE
gcode:
    MANUAL_STEPPER_BASE {% for p in params if p not in ('GCODE_AXIS', 'LIMIT_VELOCITY', 'LIMIT_ACCEL') %}{p}={params[p]} {% endfor %}
"""


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(extras=True, klipperplace_extra=openpnp.CONFIG + AXIS_H, printer_extra=TURN, world_extra=TURN_WORLD) as r:
        yield r


def joined(machine):
    return ok(get(machine, "position"))["joined_axes"]


@pytest.fixture
def homed(machine):
    helpers.make_homed(machine)
    wait_for("joined", lambda: joined(machine) == ["a", "b", "h"])
    ok(post(machine, "motion/home", {"axes": ["a", "b"]}))
    helpers.go(machine, x=150, y=120, z=-20)
    return machine


def motions(machine, since):
    """{stepper: (first, last)}: MCU clocks of what moved since then."""
    def ended():
        out = {}
        for e in machine.events("motion_start", "motion_end"):
            if e["clock"] > since:
                first, last = out.get(e["stepper"], (e["clock"], None))
                out[e["stepper"]] = (first, e["clock"] if e["what"] == "motion_end" else None)
        return out if out and all(last for _, last in out.values()) else None
    still(machine)
    return wait_for("the end of the motion", ended)


def now(machine):
    still(machine)
    return machine.sim_cmd("status")["clock"]


def rotation(machine):
    return machine.sim_cmd("steps n1.rotation")["total_position"] * TURN_STEP


def test_one_motion(homed):
    """Both motors start and end together, by REST and by the port."""
    for act in (lambda: go(homed, x=160, a=45, feedrate=6000), lambda: lines(homed, "G1 X150 A0 F6000", "M400")):
        mark, before = now(homed), rotation(homed)
        act()
        moved = motions(homed, mark)
        assert set(moved) == {"x", "n1.rotation"}
        for x, a in zip(moved["x"], moved["n1.rotation"]):
            assert abs(x - a) < 0.0005 * CLOCK_HZ, moved
        assert abs(rotation(homed) - before) == pytest.approx(45, abs=TURN_STEP)


def lines(machine, *texts):
    with Lines(machine) as c:
        replies = [c.ask(text) for text in texts]
        assert all(r == ["ok"] for r in replies[:-1]) and replies[-1][0].startswith("ok"), replies
    return replies[-1]


@pytest.mark.parametrize("x", [150.1, 150])
def test_the_turn_has_its_own_limit(homed, x):
    """180 degrees with 0.1 mm or with none at all, at any F: 720 deg/s and 7200 deg/s2 take 0.35 s."""
    mark = now(homed)
    lines(homed, f"G1 X{x} A180 F30000", "M400")
    first, last = motions(homed, mark)["n1.rotation"]
    assert 0.33 < (last - first) / CLOCK_HZ < 0.45


def test_a_slow_turn(homed):
    """F of a line that only turns is in degrees a minute."""
    mark = now(homed)
    lines(homed, "G1 A90 F5400", "M400")
    first, last = motions(homed, mark)["n1.rotation"]
    assert (last - first) / CLOCK_HZ == pytest.approx(1.0, abs=0.05)


def test_turns_are_blended(homed):
    """A rotation that goes on over several lines does not stop between them."""
    lines(homed, "M204 S3000")
    mark = now(homed)
    with Lines(homed) as c:
        c.send("".join(f"G1 X{150 + 5 * i} A{10 * i} F6000\n" for i in range(1, 11)) + "M400\nM114\n")
        assert c.replies(12)[-1].startswith("ok C: X:200.0000 Y:120.0000 Z:-20.0000 A:100.0000 B:0.0000 ")
    assert set(motions(homed, mark)) == {"x", "n1.rotation"}
    assert axis(homed, "x") == pytest.approx(200, abs=X_STEP)


def test_home_by_its_endstop(homed):
    """H goes to its switch, whatever it counted before; 0 is there."""
    assert "h" in ok(post(homed, "motion/home", {"axes": ["h"]}))["homed_axes"]
    assert axis(homed, "index") == pytest.approx(0, abs=0.3)
    go(homed, h=90)
    assert axis(homed, "index") == pytest.approx(90, abs=0.3)
    homed.sim_cmd("place_axis index -20")  # beyond the switch, which is triggered
    assert lines(homed, "G28 H", "M114")[0].endswith(" H:0.0000")
    assert axis(homed, "index") == pytest.approx(0, abs=0.3)
    lines(homed, "G1 X155 H45 F6000", "M400")
    assert axis(homed, "index") == pytest.approx(45, abs=0.3)


def test_motor_off_and_on(homed):
    """The motor of an axis that is joined can be switched; then nobody knows its angle."""
    assert lines(homed, "STEPPER_DISABLE STEPPER=rotation1", "M400") == ["ok"]
    wait_for("unhomed", lambda: "a" not in helpers.position(homed)["homed_axes"])
    refused(post(homed, "motion/move", {"a": 10}), "HOMING_REQUIRED")
    before = rotation(homed)
    go(homed, a=10, relative=True, feedrate=6000)
    assert abs(rotation(homed) - before) == pytest.approx(10, abs=TURN_STEP)


@pytest.mark.parametrize("how", ["firmware_restart", "restart"])
def test_after_a_restart(homed, how):
    go(homed, x=150, a=30)
    assert lines(homed, "G28 H") == ["ok"]
    with Lines(homed) as c:
        assert c.ask("M114")[0].startswith("ok C: X:150.0000 Y:120.0000 Z:-20.0000 A:30.0000 ")
        Later(homed.moonraker_call, f"printer.{how}")
        wait_for("Klipper goes", lambda: homed.get("/ready")[0] != 200)
        homed.wait_ready(60)
        wait_for("joined", lambda: joined(homed) == ["a", "b", "h"])
        assert c.ask("M999") == ["ok"]
        assert c.ask("M114")[0].startswith("!! it is not known where axis A stands")
    assert "a" not in helpers.position(homed)["homed_axes"]
    refused(post(homed, "motion/move", {"a": 10}), "HOMING_REQUIRED")
    before = rotation(homed)
    go(homed, a=9, relative=True, feedrate=6000)
    assert abs(rotation(homed) - before) == pytest.approx(9, abs=TURN_STEP)
    helpers.make_homed(homed)
    ok(post(homed, "motion/home", {"axes": ["a"]}))
    mark = now(homed)
    go(homed, x=homed_x(homed) + 10, a=45, feedrate=6000)
    assert {"x", "n1.rotation"} <= set(motions(homed, mark))


def homed_x(machine):
    return ok(get(machine, "position"))["commanded"]["x"]


def test_a_shim_that_starts_anew(homed):
    """Klipper has the axes joined already: they are joined again, and unhomed."""
    homed.shim.stop()
    homed.shim.start()
    homed.wait_ready(30)
    wait_for("joined", lambda: joined(homed) == ["a", "b", "h"])
    assert not {"a", "b"} & set(helpers.position(homed)["homed_axes"])
    before = rotation(homed)
    go(homed, a=9, relative=True, feedrate=6000)
    assert abs(rotation(homed) - before) == pytest.approx(9, abs=TURN_STEP)


@pytest.mark.parametrize("kind", ["told not to", "an older Klipper", "without the extra"])
def test_beside(make_rig, kind):
    """Not joined: the same commands, the rotation beside the move, and its place is our own count. Without the extra Kalico's M114 would shut it down."""
    no = "[axis A]\njoined: no\n[axis B]\njoined: no\n"
    machine = make_rig(extras=kind == "an older Klipper", klipperplace_extra=openpnp.CONFIG + (no if kind == "told not to" else ""),
                       printer_extra=OLD if kind == "an older Klipper" else "")
    helpers.make_homed(machine)
    helpers.go(machine, x=150, y=120, z=-20)
    ok(post(machine, "motion/home", {"axes": ["a", "b"]}))
    before = rotation(machine)
    go(machine, x=160, a=45, feedrate=6000)
    assert lines(machine, "G1 X150 A90 F6000", "M114")[0].startswith("ok C: X:150.0000 Y:120.0000 Z:-20.0000 A:90.0000 B:0.0000")
    assert abs(rotation(machine) - before) == pytest.approx(90, abs=TURN_STEP)
    assert axis(machine, "x") == pytest.approx(150, abs=X_STEP)
    assert joined(machine) == []
    machine.gcode("M114")
    if kind == "an older Klipper":
        wait_for("verified", lambda: ok(get(machine, "position"))["unverified"] == [])
    else:
        assert ok(get(machine, "position"))["unverified"] == ["a", "b"]


def test_what_others_do_is_seen_with_the_extra(make_rig):
    """With the Klipper extra a foreign move of an axis, and one that lets go of it, take its angle away; nothing is moved on a wrong one."""
    machine = make_rig(extras=True, klipperplace_extra=openpnp.CONFIG)
    helpers.make_homed(machine)
    wait_for("joined", lambda: joined(machine) == ["a", "b"])

    def home():
        ok(post(machine, "motion/home", {"axes": ["a", "b"]}))
        wait_for("verified", lambda: ok(get(machine, "position"))["unverified"] == [])
        assert {"a", "b"} <= set(helpers.position(machine)["homed_axes"])
    home()
    go(machine, a=30)
    assert ok(get(machine, "position"))["position"]["a"] == 30
    for text in ("G1 A10 F6000\nM400", "MANUAL_STEPPER STEPPER=rotation1 GCODE_AXIS=", "MANUAL_STEPPER STEPPER=rotation1 GCODE_AXIS=\n"
                 "MANUAL_STEPPER STEPPER=rotation1 SET_POSITION=5\nMANUAL_STEPPER STEPPER=rotation1 GCODE_AXIS=A"):
        machine.gcode(text)
        wait_for("it is seen", lambda: "a" not in helpers.position(machine)["homed_axes"])
        for _ in range(2):  # another connection knows no more
            with Lines(machine) as c:
                assert c.ask("M114") == ["!! it is not known where axis A stands: home it with G28"]
        assert "b" in helpers.position(machine)["homed_axes"]
        wait_for("joined", lambda: joined(machine) == ["a", "b"])
        refused(post(machine, "motion/move", {"a": 10}), "HOMING_REQUIRED")
        before = rotation(machine)
        go(machine, a=9, relative=True, feedrate=6000)
        assert abs(rotation(machine) - before) == pytest.approx(9, abs=TURN_STEP)
        home()
