# SPDX-License-Identifier: GPL-3.0-or-later
"""Actuators, servos, fans, PWM pins and feeders of every kind: what is asked for is at the microcontroller, and Klipper's G-code state is as it was.

Invariant: what a command leaves is read from the simulator or from Klipper, never from our own answer.
"""
import time

import pytest

import helpers
from helpers import Later, get, modes, ok, pin, post, query, refused, wait_for

PRINTER = """
[servo gate]
pin: PI0
initial_angle: 0
maximum_servo_angle: 90

[fan]
pin: PI1

[fan_generic blower]
pin: PI2

[heater_fan hotend]
pin: PI7
heater: extruder

[pwm_cycle_time beeper]
pin: PI3
cycle_time: 0.01

[output_pin flap]
pin: !PI4
value: 0

[pwm_tool dimmer]
pin: PI5
value: 0
cycle_time: 0.01

[extruder]
nozzle_diameter: 0.4
filament_diameter: 1.75
heater_pin: PE8
sensor_type: kpa
sensor_pin: PE2
control: watermark
min_temp: -200
max_temp: 200
min_extrude_temp: -200

[extruder1]
step_pin: PG4
dir_pin: PG5
enable_pin: !PG6
microsteps: 16
rotation_distance: 32
nozzle_diameter: 0.4
filament_diameter: 1.75
heater_pin: PE9
sensor_type: kpa
sensor_pin: PE3
control: watermark
min_temp: -200
max_temp: 200
min_extrude_temp: -200
max_extrude_only_distance: 20

[extruder_stepper side]
extruder:
step_pin: PG7
dir_pin: PG8
enable_pin: !PG9
microsteps: 16
rotation_distance: 32

[gcode_macro FEED_LEFT]
gcode:
    G91
    G1 X{params.DISTANCE} F{params.FEEDRATE|float * 60}
"""
FEEDER = " pitch=4 x=5 y=5 z=1.0 rot=0 count=40 thick=0.5 mm_per_step=0.01 "
WORLD = "\n".join(["adc e0 pin=PE2 value=0.3", "adc e1 pin=PE3 value=0.3", "feeder second step=PG4 dir=PG5 part=second" + FEEDER,
                   "feeder side step=PG7 dir=PG8 part=side" + FEEDER])
PLACE = ("[feeder second]\nstepper: extruder1\nfeedrate: 1200\n[feeder side]\nstepper: extruder_stepper side\nfeedrate: 1200\n"
         "[feeder macro]\nmacro: feed_left\nfeedrate: 100\n[safety]\nmax_fan_speed: 0.8\n")


@pytest.fixture(scope="module")
def machine():
    import rig
    with rig.Rig(printer_extra=PRINTER, world_extra=WORLD, klipperplace_extra=PLACE) as m:
        yield helpers.make_homed(m)


def tape(machine, name):
    return machine.sim_cmd("status")["feeders"][name]["mm"]


def duty(machine, name, value):
    """Waits until the pin has that share."""
    wait_for(f"{name} at {value}", lambda: abs(pin(machine, name) - value) < 0.002)


# ---- pins ----------------------------------------------------------------------------------------------------------------

def test_actuators(machine):
    data = ok(post(machine, "actuators/on", {"pin": "flap", "wait": True}))
    assert (data["pin"], data["value"], data["completed"]) == ("flap", 1, True)
    assert pin(machine, "PI4") == 0  # Klipper inverts it
    assert ok(post(machine, "actuators/off", {"pin": "flap"}))["completed"] is False
    wait_for("off", lambda: pin(machine, "PI4") == 1)
    ok(post(machine, "actuators/actuate", {"pin": "!PI4", "value": 0, "wait": True}))
    assert pin(machine, "PI4") == 0
    ok(post(machine, "actuators/actuate", {"pin": "flap", "value": 0, "wait": True}))
    assert pin(machine, "PI4") == 1
    refused(post(machine, "actuators/on", {"pin": "start_button"}), "INVALID_PARAMETER")


def test_a_servo(machine):
    """SET_SERVO's pulse: 1 ms at 0, 2 ms at the largest angle, of 20 ms."""
    data = ok(post(machine, "pwm/set", {"pin": "gate", "value": 0.5, "wait": True}))
    assert data["gcode"] == ["SET_SERVO SERVO=gate ANGLE=45", "M400"]
    duty(machine, "PI0", 0.075)
    ok(post(machine, "actuators/on", {"pin": "gate", "wait": True}))
    duty(machine, "PI0", 0.1)
    read = ok(get(machine, "gpio/read?pin=gate"))
    assert (read["state"], read["direction"], read["stale"]) == (1, "output", False)
    ok(post(machine, "pwm/set", {"pin": "gate", "value": 0, "wait": True}))
    duty(machine, "PI0", 0.05)
    assert ok(get(machine, "status"))["pwm_outputs"]["gate"] == 0


def test_pwm_and_its_cycle_time(machine):
    data = ok(post(machine, "pwm/set", {"pin": "dimmer", "value": 0.25, "wait": True}))
    assert (data["value"], data["cycle_time"], data["completed"]) == (0.25, 0.01, True)
    assert query(machine, **{"pwm_tool dimmer": None})["pwm_tool dimmer"]["value"] == 0.25
    data = ok(post(machine, "pwm/set", {"pin": "beeper", "value": 0.5, "cycle_time": 0.002, "wait": True}))
    assert data["cycle_time"] == 0.002
    assert query(machine, **{"pwm_cycle_time beeper": None})["pwm_cycle_time beeper"]["value"] == 0.5
    refused(post(machine, "pwm/set", {"pin": "dimmer", "value": 0.5, "cycle_time": 0.002}), "INVALID_PARAMETER")
    refused(post(machine, "pwm/set", {"pin": "flap", "value": 0.5}), "INVALID_PARAMETER")
    refused(post(machine, "pwm/set", {"pin": "dimmer", "value": 1.5}), "PWM_OUT_OF_BOUNDS")
    ok(post(machine, "pwm/set", {"pin": "beeper", "value": 0, "wait": True}))


def test_fans(machine):
    fan = lambda name: query(machine, **{name: None})[name]["speed"]  # noqa: E731
    assert ok(post(machine, "fan/on", {"speed": 0.5, "wait": True}))["speed"] == 0.5
    assert fan("fan") == 0.5
    assert ok(post(machine, "fan/on", {"wait": True}))["speed"] == 0.8  # what the limit leaves of full speed
    assert fan("fan") == 0.8
    ok(post(machine, "fan/set", {"fan": "blower", "speed": 0.25, "wait": True}))
    assert fan("fan_generic blower") == 0.25
    status = ok(get(machine, "status"))
    assert status["fan_speed"] == 0.8 and status["fan_states"]["blower"] == 0.25
    refused(post(machine, "fan/set", {"speed": 0.9}), "FAN_SPEED_OUT_OF_BOUNDS")
    refused(post(machine, "fan/on", {"fan": "hotend"}), "INVALID_PARAMETER")
    ok(post(machine, "fan/off", {"wait": True}))
    ok(post(machine, "fan/off", {"fan": "blower", "wait": True}))
    assert fan("fan") == 0 and fan("fan_generic blower") == 0


# ---- feeders -------------------------------------------------------------------------------------------------------------

def test_a_feeder_on_another_extruder(machine):
    """It is activated for the motion; what the console left of modes and extruder is there afterwards."""
    machine.gcode("M82\nG91\nM221 S50")
    before = modes(machine), query(machine, gcode_move=None)["gcode_move"]["gcode_position"]
    at = tape(machine, "second")
    data = ok(post(machine, "feeder/advance", {"feeder": "second", "distance": 8}))
    assert data["completed"] and abs(tape(machine, "second") - at - 8) < 0.02
    ok(post(machine, "feeder/retract", {"feeder": "second", "distance": 3.5, "feedrate": 600}))
    assert abs(tape(machine, "second") - at - 4.5) < 0.02
    assert query(machine, toolhead=None)["toolhead"]["extruder"] == "extruder"
    state = query(machine, gcode_move=None)["gcode_move"]
    assert state["absolute_extrude"] and state["extrude_factor"] == 0.5
    assert (modes(machine), state["gcode_position"]) == before
    machine.gcode("G90\nM221 S100")


def test_what_klipper_refuses_is_put_back(machine):
    """Further than max_extrude_only_distance: Klipper's own words, nothing has moved, and the old extruder is active again."""
    at = tape(machine, "second")
    body = refused(post(machine, "feeder/advance", {"feeder": "second", "distance": 21}), "EXECUTION_FAILED")
    assert "too long" in body["details"]["klipper"]["message"] and body["details"]["step"] == "advance"
    assert query(machine, toolhead=None)["toolhead"]["extruder"] == "extruder"
    ok(post(machine, "feeder/advance", {"feeder": "second", "distance": 4}))
    assert abs(tape(machine, "second") - at - 4) < 0.02
    assert modes(machine)["absolute"]


def test_a_feeder_on_an_extruder_stepper(machine):
    at = tape(machine, "side"), tape(machine, "second")
    ok(post(machine, "feeder/advance", {"feeder": "side", "distance": 4}))
    assert abs(tape(machine, "side") - at[0] - 4) < 0.02 and tape(machine, "second") == at[1]
    assert not query(machine, **{"extruder_stepper side": None})["extruder_stepper side"]["motion_queue"]
    ok(post(machine, "feeder/retract", {"feeder": "side", "distance": 4}))
    assert abs(tape(machine, "side") - at[0]) < 0.02


def test_a_feeder_by_macro(machine):
    """The macro moves the head and leaves G91 behind: neither the next move nor anybody else's state suffers from it."""
    helpers.go(machine, x=50, y=50)
    before = modes(machine)
    ok(post(machine, "feeder/advance", {"feeder": "macro", "distance": 4}))
    assert abs(helpers.axis(machine, "x") - 54) < 0.02
    assert modes(machine) == before
    ok(post(machine, "feeder/retract", {"feeder": "macro", "distance": 1.5}))
    ok(post(machine, "motion/move", {"x": 1, "relative": True, "feedrate": 6000, "wait": True}))
    assert abs(helpers.axis(machine, "x") - 53.5) < 0.02


def lowered_and_moved(machine):
    """Somebody lowers the head at the console, and our move in X follows before Klipper's push tells. (status, events of x and z since)"""
    helpers.go(machine, x=50, y=50, z=-20)
    before = len(machine.events())
    machine.gcode("G90\nG1 Z-28 F6000")
    status = post(machine, "motion/move", {"x": 60, "feedrate": 6000, "wait": True})[0]
    helpers.still(machine, ended=True)
    return status, [e for e in machine.events()[before:] if e.get("stepper") in ("x", "z")]


def test_the_head_is_lifted_before_it_crosses(machine):
    """A move that was planned before the push lifts the head to where it counted on, then crosses; one planned after it is refused."""
    crossed = tries = 0
    while not crossed or tries < 4:
        tries += 1
        assert tries <= 40, "no move ever comes before the push"
        status, events = lowered_and_moved(machine)
        starts = [e["t"] for e in events if e["what"] == "motion_start" and e["stepper"] == "x"]
        ends = [e["t"] for e in events if e["what"] == "motion_end" and e["stepper"] == "z"]
        assert len(starts) == (status == 200) and status in (200, 409)
        assert helpers.axis(machine, "z") == pytest.approx(-20 if starts else -28, abs=0.01)
        if starts:
            crossed += 1
            assert starts[0] > ends[-1] - 0.01
        ok(post(machine, "motion/move", {"z": -20, "wait": True}))
    assert crossed


def test_reads_that_need_no_name(machine):
    state = ok(get(machine, "printer/state"))
    assert state["state"] == "ready" and state["klippy_connected"] and not state["stale"]
    assert {s["sensor"] for s in ok(get(machine, "sensor/read_by_type?type=vacuum"))["sensors"]} == {"vacuum1", "vacuum2"}
    assert ok(get(machine, "sensor/read_by_type?type=load"))["count"] == 0
    refused(get(machine, "sensor/read_by_type?type=smell"), "INVALID_PARAMETER")


# ---- ramps -----------------------------------------------------------------------------------------------------------------

def changes(machine, name, since):
    """(seconds since the first, value) of each change of a pin at the microcontroller."""
    events = [e for e in machine.events("pin") if e["pin"] == name][since:]
    return [(e["t"] - events[0]["t"], e["value"]) for e in events]


def seen(machine, name):
    return len([e for e in machine.events("pin") if e["pin"] == name])


def ramp(name, start, end, duration, **more):
    return {"pin": name, "start_value": start, "end_value": end, "duration": duration, **more}


def test_a_ramp(machine):
    """Each value comes in its order, at least 100 ms after the one before, and the answer at the end."""
    ok(post(machine, "pwm/set", {"pin": "dimmer", "value": 1, "wait": True}))
    before = seen(machine, "PI5")
    data = ok(post(machine, "pwm/ramp", ramp("dimmer", 0, 1, 3, steps=5)))  # none is left out while it is less than 0.6 s late
    assert (data["pin"], data["steps"], data["duration"], data["replaced"], data["completed"]) == ("dimmer", 5, 3, False, False)
    assert data["execution_time"] >= 3 and data["late"] < 3
    assert len(data["gcode"]) == 6 and data["gcode"][-1] == "SET_PIN PIN=dimmer VALUE=1"
    duty(machine, "PI5", 1)
    found = changes(machine, "PI5", before)
    assert [round(v, 2) for _, v in found] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert all(b[0] - a[0] > 0.095 for a, b in zip(found, found[1:]))


def test_the_lane_is_free_between_steps(machine):
    """Other commands run while a ramp does, and one of the same pin replaces it."""
    later = Later(post, machine, "pwm/ramp", ramp("dimmer", 0, 1, 20, steps=100))
    wait_for("the ramp has begun", lambda: 0 < pin(machine, "PI5") < 0.5)
    ok(post(machine, "actuators/on", {"pin": "flap", "wait": True}))
    helpers.go(machine, x=70)
    ok(post(machine, "actuators/off", {"pin": "flap", "wait": True}))
    assert not later.done
    ok(post(machine, "pwm/set", {"pin": "dimmer", "value": 0, "wait": True}))
    data = ok(later.answer())
    assert data["replaced"] and len(data["gcode"]) < 101
    before = seen(machine, "PI5")
    time.sleep(0.5)  # longer than two steps
    assert seen(machine, "PI5") == before and pin(machine, "PI5") == 0


def test_two_ramps_and_a_later_one(machine):
    """Ramps of two pins go side by side; a second one of the same pin takes over from the first."""
    first = Later(post, machine, "pwm/ramp", ramp("dimmer", 0, 1, 20, steps=100))
    other = Later(post, machine, "pwm/ramp", ramp("gate", 0, 1, 0.6, steps=3))
    wait_for("both have begun", lambda: pin(machine, "PI5") > 0 and pin(machine, "PI0") > 0.051)
    second = Later(post, machine, "pwm/ramp", ramp("dimmer", 0.5, 0, 0.5, steps=5))
    assert ok(first.answer())["replaced"]
    assert not ok(other.answer())["replaced"] and not ok(second.answer())["replaced"]
    duty(machine, "PI0", 0.1)
    duty(machine, "PI5", 0)


def test_a_ramp_that_is_late_catches_up(machine):
    """While a long command has the lane no step goes out; then those whose time has passed are left out, the last never."""
    helpers.go(machine, x=10, y=10)
    later = Later(post, machine, "pwm/ramp", ramp("dimmer", 0, 1, 3, steps=20))
    wait_for("the ramp has begun", lambda: later.done or pin(machine, "PI5") > 0)
    ok(post(machine, "motion/move", {"x": 110, "y": 110, "feedrate": 1700, "wait": True}))  # five seconds
    data = ok(later.answer())
    assert data["late"] > 0.5 and len(data["gcode"]) < 21
    duty(machine, "PI5", 1)


def test_a_ramp_that_nobody_waits_for(machine):
    """The client's time passes, the ramp goes on to its end."""
    ok(post(machine, "pwm/set", {"pin": "dimmer", "value": 0, "wait": True}))
    body = refused(post(machine, "pwm/ramp", ramp("dimmer", 0, 1, 5, steps=10, timeout_s=1)), "TIMEOUT")
    assert body["details"]["may_still_run"] is True
    assert pin(machine, "PI5") < 1
    duty(machine, "PI5", 1)


def test_klipper_goes_in_a_ramp(machine):
    later = Later(post, machine, "pwm/ramp", ramp("dimmer", 0, 1, 20, steps=100))
    wait_for("the ramp has begun", lambda: 0 < pin(machine, "PI5") < 1)
    machine.gcode("FIRMWARE_RESTART")
    refused(later.answer(), "KLIPPY_DISCONNECTED")  # so it has been seen to go
    machine.wait_ready(30)
    helpers.make_homed(machine)
    before = seen(machine, "PI5")
    ok(post(machine, "actuators/on", {"pin": "flap", "wait": True}))
    assert seen(machine, "PI5") == before


def test_a_stop_ends_ramps(machine):
    """The last test: what lies beside the lane is answered, and nothing more goes out."""
    later = Later(post, machine, "pwm/ramp", ramp("dimmer", 0, 1, 20, steps=100))
    wait_for("the ramp has begun", lambda: 0 < pin(machine, "PI5") < 1)
    ok(post(machine, "system/emergency_stop", {"reason": "test"}))
    refused(later.answer(), "EMERGENCY_STOP_ACTIVE")
    helpers.make_homed(machine)
    assert pin(machine, "PI5") == 0
    ok(post(machine, "pwm/ramp", ramp("dimmer", 0, 0.5, 0.2, steps=2)))
    duty(machine, "PI5", 0.5)
