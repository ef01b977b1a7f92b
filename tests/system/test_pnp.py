# SPDX-License-Identifier: GPL-3.0-or-later
"""Pick and place on both nozzles, with a vacuum that works and one that does not.

Invariant: what is held and where a part lies is the simulated world's answer.
"""
import itertools
import math
import time

import pytest

import helpers
from helpers import PART_DEG, PART_MM, TIP, Later, axis, check_envelope, fields, go, nothing_reaches_klipper, ok, pin, post, refused, steps, still

BOARD_Z, THICK, PICK_Z = 1.6, 0.5, 1.0  # mm, of world.txt
NOZZLES = {"N1": ("n1", 1, "PD0", "PD2"), "N2": ("n2", -1, "PD1", "PD3")}  # at the simulator, z_direction, pump, valve
PLACES = itertools.count()


@pytest.fixture
def ready(machine):
    """Homed, empty nozzles, no parts and no faults left by a test before."""
    for fault in ("no_stick 0", "leak n1 0", "leak n2 0", "sensor_free n1", "sensor_free n2"):
        machine.sim_cmd(f"fault {fault}")
    helpers.make_homed(machine)
    machine.sim_cmd("remove_parts 0 0 400 400")
    machine.crashes = machine.sim_cmd("status")["crashes"]
    yield machine
    assert machine.sim_cmd("status")["crashes"] == machine.crashes, machine.events("crash")[-1]


def add_part(machine, x, y, rot=0):
    name = f"t{next(PLACES)}"
    machine.sim_cmd(f"add_part {name} x={x} y={y} z={PICK_Z} rot={rot} thick={THICK}")
    return name


def z_of(nozzle, height):
    """Machine Z at which the tip is at a height over the table."""
    return (height - TIP) * NOZZLES[nozzle][1]


def place_of(machine, part):
    return machine.sim_cmd(f"part {part}")


def lies(machine, part, x, y, rot):
    """The part lies there, at the right height, and did not fall."""
    p = place_of(machine, part)
    assert p["state"] == "lying", p
    assert math.hypot(p["x"] - x, p["y"] - y) <= PART_MM, p
    assert abs((p["rot"] - rot + 180) % 360 - 180) <= PART_DEG, p
    assert not p["fell"] and p["z"] == pytest.approx(BOARD_Z + THICK, abs=0.05), p


def off_and_up(machine, nozzle):
    """Valve and pump are off at the microcontroller, and every nozzle is at travel height."""
    _, _, pump, valve = NOZZLES[nozzle]
    assert (pin(machine, pump), pin(machine, valve)) == (0, 0)
    assert abs(axis(machine, "z")) <= 20.01


def job(nozzle, x=60, y=60, place_x=130, place_y=130, **more):
    return {"x": x, "y": y, "place_x": place_x, "place_y": place_y, "nozzle": nozzle, "feedrate": 24000, **more}


# ---- what works ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("nozzle, rotation", [pytest.param("N1", 90, marks=pytest.mark.smoke),
                                              pytest.param("N2", -37.5, marks=pytest.mark.smoke), ("N2", None)])
def test_pick_and_place(ready, nozzle, rotation):
    part = add_part(ready, 60, 60, rot=15)
    turn = {} if rotation is None else {"rotation": rotation}
    data = ok(post(ready, "pnp/pick_and_place", job(nozzle, **turn)))
    off_and_up(ready, nozzle)
    lies(ready, part, 130, 130, 15 + (rotation or 0))
    assert data["attempts"] == 1
    assert data["vacuum_enabled"] is False
    assert data["pick_position"]["x"] == 60 and data["place_position"]["y"] == 130
    assert data["execution_time"] > 0 and data["gcode"]
    assert not still(ready)["nozzles"][NOZZLES[nozzle][0]]["held"]


def test_heights_of_the_request_win(ready):
    """Put down on the table instead of the board."""
    part = add_part(ready, 60, 60)
    body = job("N2", place_x=200, place_y=60, pick_height=z_of("N2", PICK_Z), place_height=z_of("N2", THICK), safe_height=15, feedrate=12000)
    ok(post(ready, "pnp/pick_and_place", body))
    p = place_of(ready, part)
    assert p["state"] == "lying" and not p["fell"] and p["z"] == pytest.approx(THICK, abs=0.05)
    assert math.hypot(p["x"] - 200, p["y"] - 60) <= PART_MM


def test_part_beside_the_middle_turns_with_the_nozzle(ready):
    """What was 1 mm beside the tip at the pick is so at the place, turned."""
    part = add_part(ready, 61, 60)
    ok(post(ready, "pnp/pick_and_place", job("N1", rotation=90)))
    lies(ready, part, 130, 131, 90)


def test_many_in_turn(ready):
    """Rotations of one job do not add up in the next."""
    for i, (nozzle, rotation) in enumerate((("N1", 45), ("N1", 300))):
        part = add_part(ready, 60 + 10 * i, 60)
        ok(post(ready, "pnp/pick_and_place", job(nozzle, x=60 + 10 * i, place_x=110 + 10 * i, rotation=rotation)))
        lies(ready, part, 110 + 10 * i, 130, rotation)


@pytest.mark.smoke
@pytest.mark.parametrize("nozzle", ["N1", "N2"])
def test_pick_and_place_as_two_commands(ready, nozzle):
    sim = NOZZLES[nozzle][0]
    part = add_part(ready, 60, 60)
    go(ready, x=60, y=60, nozzle=nozzle)
    data = ok(post(ready, "pnp/pick", {"nozzle": nozzle, "feedrate": 6000}))
    status = still(ready)
    assert status["nozzles"][sim]["held"] == part
    assert data["vacuum_enabled"] is True
    assert data["vacuum_level"] == pytest.approx(-70, abs=2)
    assert abs(axis(ready, "z")) <= 20.01
    assert place_of(ready, part)["state"] == "held"
    go(ready, x=110, y=110, nozzle=nozzle)
    data = ok(post(ready, "pnp/place", {"nozzle": nozzle, "feedrate": 6000}))
    assert data["vacuum_enabled"] is False
    off_and_up(ready, nozzle)
    lies(ready, part, 110, 110, 0)


def test_z_goes_up_before_it_crosses(ready):
    """A nozzle that is down when the command comes is raised first; XY is crossed only at travel height."""
    def from_below():
        ready.sim_cmd("remove_parts 0 0 400 400")
        add_part(ready, 60, 60)
        go(ready, x=62, y=61)
        go(ready, z=-27)
        mark = time.monotonic()
        ok(post(ready, "pnp/pick_and_place", job("N1", place_x=61, place_y=60, place_height=z_of("N1", PICK_Z), feedrate=2400)))  # 7 mm up take 0.2 s
        return [e for e in ready.events("motion_start") if e["t"] >= mark and e["stepper"] in ("x", "y", "z")]

    moved = helpers.undisturbed(ready, from_below)
    assert moved[0]["stepper"] == "z" and moved[0]["dir"] == 1
    assert next(e["t"] for e in moved if e["stepper"] in "xy") - moved[0]["t"] == pytest.approx(0.195, abs=0.02)


def test_a_sequence_holds_the_lane(ready):
    """A move that comes in the middle runs after the place."""
    part = add_part(ready, 60, 60)
    whole = Later(post, ready, "pnp/pick_and_place", job("N1"))
    ready.sim_cmd("wait_pin n1.valve 1 20000", timeout=25)
    move = Later(post, ready, "motion/move", {"x": 10, "feedrate": 12000, "wait": True})
    write = Later(post, ready, "gpio/write", {"pin": "light", "value": 1, "wait": True})
    ok(whole.answer())
    ok(move.answer())
    ok(write.answer())
    lies(ready, part, 130, 130, 0)
    still(ready)
    assert axis(ready, "x") == pytest.approx(10, abs=0.02)
    dropped = ready.events("drop")[-1]["t"]
    lit = [e["t"] for e in ready.events("pin") if e["pin"] == "PD4" and e["value"] > 0][-1]
    assert lit > dropped
    ok(post(ready, "gpio/write", {"pin": "light", "value": 0}))


# ---- a vacuum that does not ----------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_part_that_does_not_stick(ready, nozzle="N1"):
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault no_stick 1")
    body = refused(post(ready, "pnp/pick_and_place", job(nozzle)), "VACUUM_FAILED")
    off_and_up(ready, nozzle)
    assert body["details"]["step"] == "verify_pick"
    assert body["details"]["errors"][0]["got"] == pytest.approx(-20, abs=2)
    p = place_of(ready, part)
    assert p["state"] == "lying" and (p["x"], p["y"]) == (60, 60)
    tip = still(ready)["nozzles"][NOZZLES[nozzle][0]]
    assert (tip["x"], tip["y"]) == (pytest.approx(60, abs=0.02), pytest.approx(60, abs=0.02))  # it did not go on


def test_pick_alone_that_fails(ready):
    go(ready, x=60, y=60)
    body = refused(post(ready, "pnp/pick", {"feedrate": 6000}), "VACUUM_FAILED")  # nothing lies there
    assert body["details"]["step"] == "verify_pick"
    assert body["details"]["errors"][0]["got"] == pytest.approx(-20, abs=2)
    off_and_up(ready, "N1")


def test_pick_without_verify_takes_what_comes(ready):
    go(ready, x=60, y=60)
    data = ok(post(ready, "pnp/pick", {"feedrate": 6000, "verify": False}))
    assert data["vacuum_enabled"] is True
    assert (pin(ready, "PD0"), pin(ready, "PD2")) == (1, 1)
    ok(post(ready, "vacuum/off", {"nozzle": "N1", "wait": True}))


@pytest.mark.smoke
def test_retries(ready):
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault no_stick 2")
    data = ok(post(ready, "pnp/pick_and_place", job("N1", retries=2)))
    assert data["attempts"] == 3
    lies(ready, part, 130, 130, 0)
    off_and_up(ready, "N1")


def test_retries_that_do_not_suffice(ready):
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault no_stick 5")
    before = len(ready.events("no_stick"))
    body = refused(post(ready, "pnp/pick_and_place", job("N2", retries=1)), "VACUUM_FAILED")
    assert len(ready.events("no_stick")) - before == 2
    assert body["details"]["attempts"] == 2
    assert place_of(ready, part)["state"] == "lying"
    off_and_up(ready, "N2")


def test_leak(ready):
    """A part that hangs on a leak is not held well enough; it is let go at travel height, not carried."""
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault leak n1 1")
    body = refused(post(ready, "pnp/pick_and_place", job("N1")), "VACUUM_FAILED")
    assert body["details"]["step"] == "verify_pick"
    assert body["details"]["errors"][0]["got"] == pytest.approx(-40, abs=2)
    off_and_up(ready, "N1")
    p = place_of(ready, part)
    assert p["state"] == "lying" and math.hypot(p["x"] - 60, p["y"] - 60) <= 0.05


def test_sensor_stuck_at_no_vacuum(ready):
    add_part(ready, 60, 60)
    ready.sim_cmd("fault sensor_stuck n1 0.1")
    body = refused(post(ready, "pnp/pick_and_place", job("N1", retries=1)), "VACUUM_FAILED")
    assert body["details"]["step"] == "verify_pick"
    assert body["details"]["errors"][0]["got"] == pytest.approx(0, abs=2)
    off_and_up(ready, "N1")


def test_sensor_stuck_at_part(ready):
    """The release is checked as well: a sensor that still shows the part is told, with vacuum off and the head up."""
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault sensor_stuck n2 0.722222")
    body = refused(post(ready, "pnp/pick_and_place", job("N2")), "VACUUM_FAILED")
    assert body["details"]["step"] == "verify_place"
    assert body["details"]["errors"][0]["got"] == pytest.approx(-70, abs=2)
    off_and_up(ready, "N2")
    lies(ready, part, 130, 130, 0)


# ---- somebody else at the machine ---------------------------------------------------------------------------------------------

def slow_pick(machine):
    """A pick and place that goes up for two seconds after the valve has opened: time for somebody to come in between."""
    add_part(machine, 60, 60)
    go(machine, x=60, y=60)
    return Later(post, machine, "pnp/pick_and_place", job("N1", feedrate=330))


@pytest.mark.smoke
def test_foreign_move_between_pick_and_place(ready):
    """Klipper runs another client's move as soon as our pick script has ended, while we look at the vacuum."""
    whole = slow_pick(ready)
    ready.sim_cmd("wait_pin n1.valve 1 20000", timeout=25)
    ready.gcode("G90\nG1 X75 F6000\nM400")
    body = refused(whole.answer(), "INTERLOCK")
    assert body["details"]["step"] == "verify_pick"
    time.sleep(0.5)
    still(ready)
    assert axis(ready, "x") == pytest.approx(75, abs=0.02)  # nothing of ours came after it
    assert abs(axis(ready, "z")) <= 20.01
    ok(post(ready, "vacuum/off", {"nozzle": "N1", "wait": True}))


def test_foreign_modes_between_pick_and_place(ready):
    """A G91 and an offset that come in the middle do not bend the rest."""
    part = add_part(ready, 60, 60)
    ready.gcode("SAVE_GCODE_STATE NAME=_test_clean")
    whole = Later(post, ready, "pnp/pick_and_place", job("N1"))
    ready.sim_cmd("wait_pin n1.valve 1 20000", timeout=25)
    ready.gcode("G91\nSET_GCODE_OFFSET X=5 Y=5 Z=-0.5\nM220 S50")
    try:
        ok(whole.answer())
        lies(ready, part, 130, 130, 0)
        assert helpers.modes(ready)["absolute"] is False
    finally:
        ready.gcode("RESTORE_GCODE_STATE NAME=_test_clean")


def test_motors_switched_off_between_pick_and_place(ready):
    """M84 in the middle: the rest does not run, and it is an error."""
    whole = slow_pick(ready)
    ready.sim_cmd("wait_pin n1.valve 1 20000", timeout=25)
    ready.gcode("M84")
    body = check_envelope(whole.answer())
    assert body["status"] == "error" and body["error_code"] in ("EXECUTION_FAILED", "HOMING_REQUIRED", "INTERLOCK"), body
    assert axis(ready, "x") == pytest.approx(60, abs=0.1)
    ok(post(ready, "vacuum/off", {"nozzle": "N1", "wait": True}))


# ---- refused before anything moves ---------------------------------------------------------------------------------------------

REFUSED = [
    (job("N1", place_x=301), "POSITION_OUT_OF_BOUNDS", {"place_x"}),
    (job("N2", x=5), "POSITION_OUT_OF_BOUNDS", {"x"}),
    (job("N1", pick_height=-40), "POSITION_OUT_OF_BOUNDS", {"pick_height"}),
    (job("N1", x=-1, place_y=400, place_height=-33), "POSITION_OUT_OF_BOUNDS", {"x", "place_y", "place_height"}),
    (job("N1", safe_height=25), "INTERLOCK", {"safe_height"}),  # the other nozzle would be down
    (job("N1", pick_height=31), "INTERLOCK", {"pick_height"}),  # a height of the other nozzle
    (job("N3"), "NOZZLE_NOT_FOUND", {"nozzle"}),
    (job("N1", rotation=4000), "INVALID_PARAMETER", {"rotation"}),
    (job("N1", retries=-1), "INVALID_PARAMETER", {"retries"}),
    (job("N1", retries=1.5), "INVALID_PARAMETER", {"retries"}),
    (job("N1", vacuum_power=256), "PWM_OUT_OF_BOUNDS", {"vacuum_power"}),
    ({"x": 60, "y": 60, "nozzle": "N1"}, "MISSING_PARAMETER", {"place_x", "place_y"}),
]


@pytest.mark.parametrize("body, code, wrong", REFUSED, ids=lambda v: v if isinstance(v, str) else None)
def test_checked_whole_before_anything_moves(ready, body, code, wrong):
    with nothing_reaches_klipper(ready):
        answer = refused(post(ready, "pnp/pick_and_place", body), code)
    assert wrong <= set(fields(answer))


def test_unhomed(machine):
    """Nothing moves; the vacuum needs no homing."""
    helpers.unhome(machine)
    with nothing_reaches_klipper(machine):
        for command, body in (("pnp/pick", {}), ("pnp/place", {}), ("pnp/pick_and_place", job("N1"))):
            refused(post(machine, command, body), "HOMING_REQUIRED")
    ok(post(machine, "vacuum/on", {"nozzle": "N1", "wait": True}))
    assert pin(machine, "PD2") == 1
    ok(post(machine, "vacuum/off", {"nozzle": "N1", "wait": True}))
    assert pin(machine, "PD2") == 0


def test_verify_without_a_sensor_and_heights_that_nobody_gives(make_rig):
    """A guessed height breaks nozzles: without one it is a missing parameter."""
    machine = make_rig(klipperplace_extra="[nozzle N3]\npump: pump1\nvalve: valve1\nsafe_z: -20")
    helpers.make_homed(machine)
    go(machine, x=60, y=60)
    with nothing_reaches_klipper(machine):
        body = refused(post(machine, "pnp/pick", {"nozzle": "N3", "verify": True}), "MISSING_PARAMETER", "INVALID_PARAMETER")
        assert {"z", "verify"} <= set(fields(body))
        body = refused(post(machine, "pnp/pick_and_place", job("N3", rotation=5)), "MISSING_PARAMETER", "INVALID_PARAMETER")
        assert {"pick_height", "place_height", "rotation"} <= set(fields(body))
    data = ok(post(machine, "pnp/pick", {"nozzle": "N3", "z": -30, "feedrate": 6000}))  # no sensor: nothing to verify
    assert data["vacuum_level"] is None
    ok(post(machine, "vacuum/off", {"nozzle": "N3", "wait": True}))


# ---- vacuum and feeders ------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("nozzle", ["N1", "N2"])
def test_vacuum_on_and_off(ready, nozzle):
    sim, _, pump, valve = NOZZLES[nozzle]
    mark = time.monotonic()
    data = ok(post(ready, "vacuum/on", {"nozzle": nozzle, "wait": True}))
    assert data["power"] == 255 and data["completed"] is True
    assert (pin(ready, pump), pin(ready, valve)) == (1, 1)
    assert still(ready)["nozzles"][sim]["vacuum"]
    data = ok(post(ready, "vacuum/off", {"nozzle": nozzle, "wait": True}))
    assert data["power"] == 0
    assert (pin(ready, pump), pin(ready, valve)) == (0, 0)
    order = [(e["name"].split(".")[1], e["value"]) for e in ready.events("pin") if e["t"] >= mark and e["name"].startswith(sim)]
    assert order == [("pump", 1), ("valve", 1), ("valve", 0), ("pump", 0)]


def test_vacuum_set(ready):
    assert ok(post(ready, "vacuum/set", {"power": 128, "nozzle": "N2", "wait": True}))["power"] == 128
    assert (pin(ready, "PD1"), pin(ready, "PD3")) == (1, 1)  # a pump that is only on or off
    ok(post(ready, "vacuum/set", {"power": 0, "nozzle": "N2", "wait": True}))
    assert (pin(ready, "PD1"), pin(ready, "PD3")) == (0, 0)
    ok(post(ready, "vacuum/on", {"wait": True}))  # the first nozzle
    assert (pin(ready, "PD0"), pin(ready, "PD2")) == (1, 1)
    with nothing_reaches_klipper(ready):
        refused(post(ready, "vacuum/set", {"nozzle": "N2"}), "MISSING_PARAMETER")
        refused(post(ready, "vacuum/set", {"power": 256}), "PWM_OUT_OF_BOUNDS")
        refused(post(ready, "vacuum/on", {"nozzle": "N9"}), "NOZZLE_NOT_FOUND")
    ok(post(ready, "vacuum/off", {"wait": True}))


@pytest.mark.smoke
def test_feeder_brings_parts_to_the_nozzle(ready):
    before = steps(ready, "feeder2")["total_position"]
    for distance, parts in ((4, 1), (2, 0), (6, 2)):
        fed = len(ready.events("feed"))
        data = ok(post(ready, "feeder/advance", {"feeder": "feeder2", "distance": distance}))
        assert data["completed"] is True and data["distance"] == distance and data["feeder"] == "feeder2"
        new = ready.events("feed")[fed:]
        assert [e["feeder"] for e in new] == ["feeder2"] * parts, "it is done when it answers"
    part = new[-1]["part"]
    ok(post(ready, "pnp/pick_and_place", job("N2", x=70, y=20, place_x=120, rotation=45)))
    lies(ready, part, 120, 130, 45)
    assert steps(ready, "feeder2")["total_position"] - before == 1200


def test_feeder_faults(ready):
    with nothing_reaches_klipper(ready):
        refused(post(ready, "feeder/advance", {"feeder": "feeder9", "distance": 4}), "FEEDER_NOT_FOUND")
        refused(post(ready, "feeder/advance", {"feeder": "feeder1"}), "MISSING_PARAMETER")
        refused(post(ready, "feeder/advance", {"feeder": "feeder1", "distance": 0}), "INVALID_PARAMETER")
        refused(post(ready, "feeder/advance", {"feeder": "feeder1", "distance": -4}), "INVALID_PARAMETER")
        refused(post(ready, "feeder/advance", {"distance": 4}), "FEEDER_NOT_FOUND")  # none is called "feeder"
