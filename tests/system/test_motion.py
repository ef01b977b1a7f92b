# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion: exact steps, who waits for what, other clients' modes, short moves, order with pins, nozzle offsets, limits.

Invariant: a target is where the simulated carriage stands, counted from steps.
"""
import time

import pytest

import helpers
from helpers import FAST, REFUSING_PIN, X_STEP, Later, axis, get, go, modes, nothing_reaches_klipper, ok, pin, position, post, refused, steps, still, wait_for
from ws_client import Client, RpcFailed


@pytest.fixture
def homed(machine):
    return helpers.make_homed(machine)


@pytest.fixture
def foreign(homed):
    """Another client of Moonraker; its modes are taken back at the end."""
    homed.gcode("SAVE_GCODE_STATE NAME=_test_clean")
    yield homed.gcode
    homed.gcode("RESTORE_GCODE_STATE NAME=_test_clean")


# ---- where it goes -----------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_home(machine):
    """Homed is what Klipper says, the place is the simulator's, and nothing moves any more when the answer comes."""
    helpers.make_ready(machine)
    helpers.unhome(machine)
    refused(post(machine, "motion/move", {"x": 10}), "HOMING_REQUIRED")
    for name, mm in (("x", 15), ("y", 12), ("z", -3)):
        machine.sim_cmd(f"place_axis {name} {mm}")
    data = ok(post(machine, "motion/home"))
    answered = time.monotonic()
    assert {"x", "y", "z"} <= set(data["homed_axes"])
    still(machine)
    assert helpers.last_step(machine) < answered + 0.1
    klipper = helpers.query(machine, toolhead=["position", "homed_axes"])["toolhead"]
    assert klipper["homed_axes"] == "xyz"
    for i, name in enumerate("xyz"):
        assert axis(machine, name) == pytest.approx(klipper["position"][i], abs=0.05)
    assert -20.01 <= axis(machine, "z") <= 20.01  # both nozzles at travel height


@pytest.mark.smoke
def test_exact_steps(homed):
    go(homed, x=10, y=10)
    before = {a: steps(homed, a) for a in "xyz"}
    data = go(homed, x=100.5)
    after = {a: steps(homed, a) for a in "xyz"}
    count = round(90.5 / X_STEP)
    assert after["x"]["total_position"] - before["x"]["total_position"] == count
    assert after["x"]["total_steps"] - before["x"]["total_steps"] == count
    assert after["y"]["total_steps"] == before["y"]["total_steps"]
    assert after["z"]["total_steps"] == before["z"]["total_steps"]
    assert axis(homed, "x") == pytest.approx(100.5, abs=X_STEP)
    assert data["completed"] is True
    assert data["position"] == {"x": 100.5, "y": 10, "z": pytest.approx(axis(homed, "z"), abs=0.01)}


def test_straight_line(homed):
    """Both axes of one move start and end together."""
    def diagonal():
        go(homed, x=20, y=20)
        mark = time.monotonic()
        go(homed, x=60, y=40, feedrate=3000)
        return [e for e in homed.events("motion_start", "motion_end") if e["t"] >= mark and e["stepper"] in "xy"]

    moved = helpers.undisturbed(homed, diagonal)
    for what in ("motion_start", "motion_end"):
        t = [e["t"] for e in moved if e["what"] == what]
        assert len(t) == 2 and abs(t[0] - t[1]) < 0.05, moved


@pytest.mark.smoke
def test_wait_is_there_when_it_answers(homed):
    go(homed, x=50, y=50)
    data = ok(post(homed, "motion/move", {"x": 80, "feedrate": 2400, "wait": True}))
    answered = time.monotonic()
    assert data["completed"] is True
    still(homed)
    assert steps(homed)["last_step_s"] < answered + 0.05
    assert axis(homed, "x") == pytest.approx(80, abs=X_STEP)


@pytest.mark.smoke
def test_without_wait_answers_first(homed):
    go(homed, x=50, y=50)
    data = ok(post(homed, "motion/move", {"x": 90, "feedrate": 600}))  # four seconds
    assert data["completed"] is False
    assert axis(homed, "x") < 89
    wait_for("the end", lambda: abs(axis(homed, "x") - 90) <= X_STEP)


def test_wait_command_waits_for_all(homed):
    go(homed, x=50, y=50)
    ok(post(homed, "motion/move", {"x": 75, "feedrate": 1500}))
    ok(post(homed, "motion/wait", {"timeout": 20}))
    answered = time.monotonic()
    still(homed)
    assert steps(homed)["last_step_s"] < answered + 0.05
    assert axis(homed, "x") == pytest.approx(75, abs=X_STEP)


def test_relative(homed):
    """Relative is from where the last accepted move ends, also before the machine is there."""
    go(homed, x=50, y=50)
    for _ in range(3):
        ok(post(homed, "motion/move", {"x": 2.5, "y": -1, "relative": True, "feedrate": 1200}))
    ok(post(homed, "motion/wait"))
    still(homed)
    assert axis(homed, "x") == pytest.approx(57.5, abs=X_STEP)
    assert axis(homed, "y") == pytest.approx(47, abs=X_STEP)


def test_relative_from_many_clients(homed):
    """Each of them counts exactly once."""
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    moves = [Later(post, homed, "motion/move", {"x": 1, "relative": True, "feedrate": FAST}) for _ in range(8)]
    for m in moves:
        ok(m.answer())
    ok(post(homed, "motion/wait"))
    still(homed)
    assert axis(homed, "x") == pytest.approx(58, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(8 / X_STEP)


def test_relative_after_a_foreign_move(homed, foreign):
    """The commanded position is Klipper's, not our bookkeeping."""
    go(homed, x=50, y=50)
    foreign("G90\nG1 X70 F6000")
    ok(post(homed, "motion/move", {"x": 5, "relative": True, "wait": True}))
    still(homed)
    assert axis(homed, "x") == pytest.approx(75, abs=X_STEP)


def test_feedrate_is_mm_per_minute(homed):
    def one_second():
        go(homed, x=50, y=50)
        mark = time.monotonic()
        go(homed, x=70, feedrate=1200)
        return [e for e in homed.events("motion_start", "motion_end") if e["t"] >= mark and e["stepper"] == "x"]

    moved = helpers.undisturbed(homed, one_second)
    assert moved[-1]["t"] - moved[0]["t"] == pytest.approx(1.0, abs=0.1)


def test_extra_axis(homed):
    """A rotation axis is a parameter of move, absolute after homing, and turns the right way."""
    assert ok(post(homed, "motion/home", {"axes": ["a", "b"]}))["homed_axes"] == ["a", "b"]
    before = homed.sim_cmd("status")["nozzles"]["n1"]["rot"]
    go(homed, a=90, feedrate=20000)
    go(homed, a=30, x=60)
    go(homed, a=-45, relative=True, feedrate=20000)
    after = homed.sim_cmd("status")["nozzles"]["n1"]["rot"]
    assert (after - before - (-15) + 180) % 360 - 180 == pytest.approx(0, abs=0.06)
    go(homed, a=400, feedrate=20000)
    ok(post(homed, "motion/home", {"axes": ["a"]}))  # back to where 0 was, by the shorter way
    assert (homed.sim_cmd("status")["nozzles"]["n1"]["rot"] - before + 180) % 360 - 180 == pytest.approx(0, abs=0.06)
    go(homed, a=20, feedrate=20000)
    assert (homed.sim_cmd("status")["nozzles"]["n1"]["rot"] - before - 20 + 180) % 360 - 180 == pytest.approx(0, abs=0.06)
    go(homed, a=0, feedrate=20000)


# ---- other clients' modes -----------------------------------------------------------------------------------------------

FOREIGN = {
    "relative": "G91",
    "offset": "SET_GCODE_OFFSET X=3 Y=-2 Z=1.5",
    "origin": "G92 X500 Y400 Z7",
    "speed": "M220 S20",
    "feedrate": "G1 F333",
}
FOREIGN["all"] = "\n".join(FOREIGN.values())


@pytest.mark.parametrize("name", [pytest.param("all", marks=pytest.mark.smoke), "origin"])
def test_foreign_modes_change_nothing_and_stay(homed, foreign, name):
    go(homed, x=50, y=50, z=-10)
    foreign(FOREIGN[name])
    theirs = modes(homed)
    def one_second():
        go(homed, x=50, y=50, z=-10)
        mark = time.monotonic()
        go(homed, x=90, y=45, z=-12, feedrate=2400)
        return [e["t"] for e in homed.events("motion_start", "motion_end") if e["t"] >= mark and e["stepper"] == "x"]

    moved = helpers.undisturbed(homed, one_second)
    for a, want in (("x", 90), ("y", 45), ("z", -12)):
        assert axis(homed, a) == pytest.approx(want, abs=X_STEP), a
    assert moved[-1] - moved[0] == pytest.approx(1.0, abs=0.15)  # M220 of others does not slow us
    assert modes(homed) == theirs
    go(homed, x=5, relative=True)
    assert axis(homed, "x") == pytest.approx(95, abs=X_STEP)
    assert modes(homed) == theirs
    go(homed, x=60, nozzle="N2")
    assert homed.sim_cmd("status")["nozzles"]["n2"]["x"] == pytest.approx(60, abs=X_STEP)
    assert modes(homed) == theirs


@pytest.mark.smoke
def test_a_foreign_move_back_is_seen(homed, foreign):
    """To where Klipper last told us the head is: its pushes hold changes only, and this is none."""
    go(homed, x=60, y=50)
    wait_for("it is told", lambda: position(homed)["commanded"]["x"] == 60)
    helpers.pushes(homed)
    ok(post(homed, "motion/move", {"x": 61, "feedrate": FAST}))
    foreign("G90\nG1 X60 F6000")
    wait_for("it is seen", lambda: position(homed)["commanded"]["x"] == 60)
    go(homed, x=2, relative=True)
    assert axis(homed, "x") == pytest.approx(62, abs=X_STEP)


def test_foreign_modes_stay_over_homing(homed, foreign):
    """Homing sets Klipper's own origin anew; G91 and the speed factor of others are none of its business."""
    foreign("G91\nM220 S50\nSET_GCODE_OFFSET X=1 Z=0.5")
    theirs = modes(homed)
    ok(post(homed, "motion/home", {"axes": ["x"]}))
    ours = modes(homed)
    assert (ours["absolute"], ours["factor"], ours["origin"]) == (theirs["absolute"], theirs["factor"], theirs["origin"])
    go(homed, x=50, z=-15)
    assert axis(homed, "x") == pytest.approx(50, abs=X_STEP)
    assert axis(homed, "z") == pytest.approx(-15, abs=X_STEP)


def test_foreign_moves_in_their_modes_work_after_ours(homed, foreign):
    """What another client goes on with at its console means what it meant before."""
    go(homed, x=50, y=50)
    foreign("SET_GCODE_OFFSET X=3\nG91")
    go(homed, x=80)
    foreign("G1 X5 F6000\nM400")
    still(homed)
    assert axis(homed, "x") == pytest.approx(85, abs=X_STEP)
    foreign("G90\nG1 X80 F6000\nM400")
    still(homed)
    assert axis(homed, "x") == pytest.approx(83, abs=X_STEP)


@pytest.fixture(scope="module")
def refusing():
    import rig
    with rig.Rig(printer_extra=REFUSING_PIN) as machine:
        yield machine


def refuse_valve(machine, name):
    machine.gcode(f"SET_GCODE_VARIABLE MACRO=SET_PIN VARIABLE=refused VALUE=\"'{name}'\"")


@pytest.fixture
def broken(refusing):
    """A machine with modes of somebody set, whose next pick fails between two lines of its script. The head is at X 60 Y 60."""
    refuse_valve(refusing, "")
    helpers.make_homed(refusing)
    go(refusing, x=60, y=60)
    refusing.gcode("SAVE_GCODE_STATE NAME=_test_clean\nG91\nSET_GCODE_OFFSET X=3 Y=-2 Z=1\nM220 S40")
    refuse_valve(refusing, "valve1")
    yield refusing
    refuse_valve(refusing, "")
    refusing.gcode("RESTORE_GCODE_STATE NAME=_test_clean")


@pytest.mark.smoke
def test_script_that_fails_in_its_middle_leaves_the_modes(broken):
    theirs = modes(broken)
    body = refused(post(broken, "pnp/pick"), "EXECUTION_FAILED")
    assert "SET_PIN of valve1 refused" in body["details"]["klipper"]["message"]
    helpers.wait_for("modes are back without a further command", lambda: modes(broken) == theirs)
    refuse_valve(broken, "")
    go(broken, z=-20)
    go(broken, x=90, y=70)
    assert (axis(broken, "x"), axis(broken, "y")) == (pytest.approx(90, abs=X_STEP), pytest.approx(70, abs=X_STEP))
    assert modes(broken) == theirs


def test_failed_script_does_not_undo_what_others_set_later(broken):
    """The modes are put back once, at the failure: not over what somebody set afterwards."""
    theirs = modes(broken)
    refused(post(broken, "pnp/pick"), "EXECUTION_FAILED")
    wait_for("they are back", lambda: modes(broken) == theirs)
    broken.gcode("G90\nM220 S70")
    theirs = modes(broken)
    refuse_valve(broken, "")
    go(broken, z=-20)
    after = modes(broken)
    assert (after["absolute"], after["factor"]) == (theirs["absolute"], theirs["factor"])


def test_commands_that_waited_behind_a_failure_go_right(broken):
    with Client(broken) as c:  # on one connection, so that they come in this order
        pick = c.send("execute", {"command": "pick"})
        up = c.send("execute", {"command": "move", "parameters": {"z": -18, "feedrate": 3000, "wait": True}})
        with pytest.raises(RpcFailed) as e:
            c.answer(pick)
        assert e.value.data["error_code"] == "EXECUTION_FAILED"
        assert c.answer(up)["status"] == "success"
    still(broken)
    assert axis(broken, "z") == pytest.approx(-18, abs=X_STEP)


# ---- short moves --------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_short_moves_that_trickle_start(homed):
    """A stream of short moves, 60 ms apart: they move while it still goes on, and all of them arrive."""
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    started_after, accepted = None, []
    for i in range(1, 31):
        t = time.monotonic()
        assert ok(post(homed, "motion/move", {"x": 50 + 0.5 * i, "feedrate": 3000}))["completed"] is False
        accepted.append(time.monotonic() - t)
        if started_after is None and steps(homed)["total_steps"] > before:
            started_after = i
        time.sleep(max(0, t + 0.06 - time.monotonic()))
    assert started_after is not None and started_after <= 25, f"first steps at move {started_after}"
    assert sorted(accepted)[len(accepted) // 2] < 0.125, "each waits for Klipper's tick, a quarter of a second: the stream cannot be 60 ms apart"
    moved = steps(homed)["total_steps"] - before
    assert moved > 15 * 0.5 / X_STEP  # and they keep up with the stream
    ok(post(homed, "motion/wait"))
    still(homed)
    assert axis(homed, "x") == pytest.approx(65, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(15 / X_STEP)


def test_one_short_move_starts_by_itself(homed):
    go(homed, x=50, y=50)
    ok(post(homed, "motion/move", {"x": 50.5, "feedrate": 3000}))
    helpers.wait_for("the move", lambda: abs(axis(homed, "x") - 50.5) < X_STEP)


# ---- pins in order with motion ---------------------------------------------------------------------------------------------

def pin_event(machine, name, value, since):
    return next(e for e in machine.events("pin") if e["name"] == name and e["value"] == value and e["t"] >= since)


@pytest.mark.smoke
def test_pins_act_after_the_motion_before_them(homed):
    go(homed, x=50, y=50)
    mark = time.monotonic()
    ok(post(homed, "motion/move", {"x": 80, "feedrate": 600}))  # three seconds
    data = ok(post(homed, "gpio/write", {"pin": "valve1", "value": 1}))
    answered = time.monotonic()
    assert data["completed"] is False
    ok(post(homed, "motion/move", {"x": 85, "feedrate": 600}))
    homed.sim_cmd("wait_pin PD2 1 20000", timeout=25)
    ok(post(homed, "motion/wait"))
    at = pin_event(homed, "n1.valve", 1, mark)["t"]
    still(homed)
    ends = [e for e in homed.events("motion_start", "motion_end") if e["t"] >= mark and e["stepper"] == "x"]
    assert ends[0]["t"] + 2.9 < at < ends[-1]["t"] and answered < at
    ok(post(homed, "gpio/write", {"pin": "valve1", "value": 0, "wait": True}))
    assert pin(homed, "PD2") == 0


def test_pin_with_wait_answers_when_it_is_so(homed):
    go(homed, x=50, y=50)
    ok(post(homed, "motion/move", {"x": 75, "feedrate": 1500}))  # one second
    data = ok(post(homed, "gpio/write", {"pin": "valve2", "value": 1, "wait": True}))
    assert data["completed"] is True
    assert pin(homed, "PD3") == 1
    assert axis(homed, "x") == pytest.approx(75, abs=X_STEP)
    ok(post(homed, "gpio/write", {"pin": "valve2", "value": 0, "wait": True}))
    assert pin(homed, "PD3") == 0


# ---- nozzles and limits ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("nozzle", ["n1", "n2"])
def test_nozzle_offsets(homed, nozzle):
    go(homed, x=120.5, y=33.25, nozzle=nozzle.upper())
    tip = homed.sim_cmd("status")["nozzles"][nozzle]
    assert (tip["x"], tip["y"]) == (pytest.approx(120.5, abs=X_STEP), pytest.approx(33.25, abs=X_STEP))


LIMITS = [
    ({"x": 300.001}, "x", 300), ({"x": -0.001}, "x", 0), ({"y": 301}, "y", 300), ({"z": 31.51}, "z", 31.5), ({"z": -31.51}, "z", -31.5),
    ({"x": 19.9, "nozzle": "N2"}, "x", 0), ({"x": 320.1, "nozzle": "N2"}, "x", 300),
    ({"x": 251, "relative": True}, "x", 300), ({"y": -50.5, "relative": True}, "y", 0),
]


@pytest.mark.parametrize("target, field, limit", LIMITS)
def test_limits_of_klipper(homed, target, field, limit):
    if "relative" in target:
        go(homed, x=50, y=50)
    with nothing_reaches_klipper(homed):
        body = refused(post(homed, "motion/move", target), "POSITION_OUT_OF_BOUNDS")
    (error,) = body["details"]["errors"]
    assert error["field"] == field
    assert limit in (error["min"], error["max"])


def test_the_limits_themselves_are_reached(homed):
    """Exactly at the limit is allowed, and nothing is struck there."""
    crashes = homed.sim_cmd("status")["crashes"]
    go(homed, x=300, y=0)
    go(homed, x=20, nozzle="N2")
    assert axis(homed, "x") == pytest.approx(0, abs=X_STEP)
    assert homed.sim_cmd("status")["crashes"] == crashes


def test_all_faults_of_a_move_at_once(homed):
    with nothing_reaches_klipper(homed):
        body = refused(post(homed, "motion/move", {"x": 1000, "y": -5, "z": 99, "feedrate": 29999.5}), "POSITION_OUT_OF_BOUNDS", "INTERLOCK")
    assert {"x", "y", "z"} <= set(helpers.fields(body))


def test_travel_interlock(homed):
    """Below travel height nothing crosses XY; up and down is free."""
    go(homed, x=50, y=50)
    go(homed, z=-25)
    before = steps(homed)["total_steps"]
    for target in ({"x": 60}, {"y": 60}, {"x": 60, "z": -20}, {"x": 1, "relative": True}):
        refused(post(homed, "motion/move", target), "INTERLOCK")
    go(homed, z=25)
    refused(post(homed, "motion/move", {"x": 60}), "INTERLOCK")
    go(homed, z=0)
    refused(post(homed, "motion/move", {"x": 60, "z": -25}), "INTERLOCK")
    still(homed)
    assert steps(homed)["total_steps"] == before
    go(homed, x=60, z=-20)


def test_interlock_sees_foreign_moves(homed, foreign):
    go(homed, x=50, y=50, z=-20)
    foreign("G90\nG1 Z-28 F1200")
    helpers.wait_for("the mirror has it", lambda: ok(get(homed, "position"))["commanded"]["z"] == -28)  # a tick
    refused(post(homed, "motion/move", {"x": 60}), "INTERLOCK")
    go(homed, z=-20)


@pytest.fixture(scope="module")
def narrow():
    import rig
    with rig.Rig(klipperplace_extra="[safety]\nmin_x_position: 5\nmax_x_position: 60\nmax_y_position: 1000\nmin_feedrate: 60\nmax_feedrate: 6000\n"
                 "[vacuum]\ntravel_interlock: false") as machine:
        yield helpers.make_homed(machine)


@pytest.mark.parametrize("target, code", [
    ({"x": 60.001}, "POSITION_OUT_OF_BOUNDS"), ({"x": 4.9}, "POSITION_OUT_OF_BOUNDS"), ({"y": 300.1}, "POSITION_OUT_OF_BOUNDS"),
    ({"x": 30, "feedrate": 6001}, "FEEDRATE_OUT_OF_BOUNDS"), ({"x": 30, "feedrate": 59}, "FEEDRATE_OUT_OF_BOUNDS"),
])
def test_limits_of_safety(narrow, target, code):
    """[safety] narrows Klipper's limits and cannot widen them."""
    with nothing_reaches_klipper(narrow):
        refused(post(narrow, "motion/move", target), code)


def test_safety_allows_what_is_inside(narrow):
    go(narrow, x=60, y=60, feedrate=6000)
    assert axis(narrow, "x") == pytest.approx(60, abs=X_STEP)
    go(narrow, x=5, z=-25, feedrate=6000)  # no interlock configured
    go(narrow, x=10, feedrate=6000)
    go(narrow, z=-20, feedrate=3000)


@pytest.mark.parametrize("feedrate", [30000.1, 0, -1])
def test_feedrate_limits(homed, feedrate):
    with nothing_reaches_klipper(homed):
        refused(post(homed, "motion/move", {"x": 50, "feedrate": feedrate}), "FEEDRATE_OUT_OF_BOUNDS")


# ---- deadlines and order -------------------------------------------------------------------------------------------------------

def test_timeout_ends_the_wait_only(homed):
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    body = refused(post(homed, "motion/move", {"x": 110, "feedrate": 600, "wait": True, "timeout_s": 1}), "TIMEOUT")  # six seconds
    assert body["details"]["may_still_run"] is True
    assert steps(homed)["moving"]
    ok(post(homed, "motion/move", {"x": 111, "feedrate": FAST, "wait": True}))  # behind it, not before it
    still(homed)
    assert axis(homed, "x") == pytest.approx(111, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(61 / X_STEP)


def test_timeout_of_what_has_not_begun(homed):
    """Its time passed while it waited for the lane: it is dropped and never runs."""
    go(homed, x=50, y=50)
    long = Later(post, homed, "motion/move", {"x": 110, "feedrate": 600, "wait": True})
    helpers.wait_for("the long move", lambda: steps(homed)["moving"])
    body = refused(post(homed, "motion/move", {"x": 200, "timeout_s": 1}), "TIMEOUT")
    assert body["details"]["may_still_run"] is False
    ok(long.answer())
    time.sleep(0.5)
    still(homed)
    assert axis(homed, "x") == pytest.approx(110, abs=X_STEP)


def test_commands_run_in_the_order_they_came(homed):
    go(homed, x=50, y=50)
    mark = time.monotonic()
    first = Later(post, homed, "motion/move", {"x": 70, "feedrate": 300, "wait": True})
    helpers.wait_for("the first move", lambda: steps(homed)["moving"])
    later = []
    for i in range(5):
        later.append(Later(post, homed, "motion/move", {"y": 60 + i if i % 2 else 50 - i, "feedrate": FAST, "wait": True}))
        wait_for("it waits", lambda i=i: ok(get(homed, "status"))["queue"]["size"] == i + 2)
    ok(first.answer())
    told = [helpers.check_envelope(l.answer()) for l in later]
    assert {a["status"] for a in told} == {"success"}
    assert sorted(a["timestamp"] for a in told) == [a["timestamp"] for a in told]
    x_end = [e["t"] for e in homed.events("motion_end") if e["stepper"] == "x" and e["t"] >= mark][-1]
    y_start = [e["t"] for e in homed.events("motion_start") if e["stepper"] == "y" and e["t"] >= mark][0]
    assert y_start > x_end
    assert axis(homed, "y") == pytest.approx(46, abs=X_STEP)


def test_read_while_moving(homed):
    """Reads are not held by the lane: many are answered before one slow move has ended. (Where the head is within it Klipper tells only from time to time.)"""
    go(homed, x=50, y=50)
    helpers.wait_for("it is told", lambda: ok(get(homed, "position"))["position"]["x"] == 50)
    move = Later(post, homed, "motion/move", {"x": 100, "feedrate": 300, "wait": True})
    helpers.wait_for("the move", lambda: steps(homed)["moving"])
    seen, while_moving = [], 0
    while not move.done:
        for path in ("status", "gpio/read_all", "sensor/read_all"):
            ok(get(homed, path))
        seen.append(ok(get(homed, "position")))
        while_moving += steps(homed)["moving"]
        time.sleep(0.05)
    ok(move.answer())
    live = [p["position"]["x"] for p in seen]
    assert while_moving > 4, "reads were answered only when it stood"
    assert live == sorted(live) and 50 <= live[0] and live[-1] <= 100, live
    assert sum(p["commanded"]["x"] == 100 for p in seen) > len(seen) // 2
    helpers.wait_for("the end is told", lambda: ok(get(homed, "position"))["position"]["x"] == 100)


def test_home_of_one_axis(homed):
    go(homed, x=30, y=30)
    before = {a: steps(homed, a)["total_steps"] for a in "xyz"}
    data = ok(post(homed, "motion/home", {"axes": ["y"]}))
    still(homed)
    assert data["homed_axes"] == ["y"]
    assert steps(homed, "x")["total_steps"] == before["x"]
    assert steps(homed, "y")["total_steps"] > before["y"]
    assert axis(homed, "y") == pytest.approx(helpers.query(homed, toolhead=["position"])["toolhead"]["position"][1], abs=0.05)
