# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins, buttons, sensors, position and status: what we write is at the microcontroller's pin, what we read is what Klipper has.

Invariant: no read shows a value as fresh that Klipper no longer has.
"""
import re
import time
import urllib.parse

import pytest

import helpers
from helpers import X_STEP, Later, get, go, ok, pin, post, query, refused, steps, wait_for
from ws_client import Client

# Pins of the test alone: one that Klipper inverts, one that can be dimmed by Klipper's own clock, a switch sensor (which needs print_stats, and so virtual_sdcard).
EXTRA = """
[output_pin low_active]
pin: !PI3
value: 0

[output_pin shout]
pin: PI4
value: 0

[virtual_sdcard]
path: /tmp

[filament_switch_sensor tape]
switch_pin: PI5
pause_on_runout: False

[temperature_sensor bed_temp]
sensor_type: kpa
sensor_pin: PI6
min_temp: -200
max_temp: 200
"""
WORLD = "button tape pin=PI5 state=0\nadc bed_temp pin=PI6 value=0.3"


@pytest.fixture(scope="module")
def machine():
    import rig
    with rig.Rig(printer_extra=EXTRA, world_extra=WORLD, klipperplace_extra="[pin lamp]\npin: PI4\n[sensor weight]\nobject: temperature_sensor bed_temp\n"
                 "type: load\nscale: -2\noffset: 10") as m:
        yield helpers.make_homed(m)


def write(machine, name, value, **more):
    return ok(post(machine, "gpio/write", {"pin": name, "value": value, **more}))


def read(machine, name, **more):
    return ok(get(machine, "gpio/read?" + urllib.parse.urlencode({"pin": name, **more})))


def sensor(machine, name, **more):
    return ok(get(machine, "sensor/read?" + urllib.parse.urlencode({"sensor": name, **more})))


# ---- outputs ---------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("name", ["valve1", "output_pin valve1", "PD2", "mcu:PD2"])
def test_write_is_at_the_pin(machine, name):
    data = write(machine, name, 1, wait=True)
    assert data["completed"] is True and data["value"] == 1
    assert pin(machine, "PD2") == 1
    assert read(machine, name)["state"] == 1
    write(machine, name, 0, wait=True)
    assert pin(machine, "PD2") == 0


def test_write_without_wait_is_there_soon(machine):
    write(machine, "valve1", 1)
    machine.sim_cmd("wait_pin PD2 1 20000", timeout=25)
    write(machine, "valve1", 0)
    machine.sim_cmd("wait_pin PD2 0 20000", timeout=25)


def test_alias(machine):
    write(machine, "lamp", 1, wait=True)
    assert pin(machine, "PI4") == 1
    assert read(machine, "shout")["state"] == 1  # the same pin by its own name
    write(machine, "shout", 0, wait=True)
    assert read(machine, "lamp")["state"] == 0


def test_inverted_by_klipper(machine):
    """A pin that Klipper's configuration inverts: 1 is on, and the microcontroller's level is low."""
    write(machine, "low_active", 1, wait=True)
    assert pin(machine, "PI3") == 0
    assert read(machine, "low_active")["state"] == 1
    write(machine, "low_active", 0, wait=True)
    assert pin(machine, "PI3") == 1


def test_inverted_by_name(machine):
    """`!` asks for the other sense of what the pin's name says."""
    write(machine, "!PD2", 0, wait=True)
    assert pin(machine, "PD2") == 1
    assert read(machine, "!PD2")["state"] == 0
    assert read(machine, "PD2")["state"] == 1
    write(machine, "!PD2", 1, wait=True)
    assert pin(machine, "PD2") == 0


def test_pwm_pin_full_and_off(machine):
    write(machine, "light", 1, wait=True)
    assert pin(machine, "PD4") == 1
    assert read(machine, "light")["state"] == 1
    write(machine, "light", 0, wait=True)
    assert pin(machine, "PD4") == 0


@pytest.mark.smoke
def test_read_after_write_never_shows_the_old_value(machine):
    for i in range(8):
        value = 1 - i % 2
        write(machine, "valve2", value)
        data = read(machine, "valve2")
        assert data["state"] == value and data["stale"] is False, data
    assert query(machine, **{"output_pin valve2": None})["output_pin valve2"]["value"] == 0


def test_a_text_that_is_kept_ends_with_a_write(machine):
    """What all pins are and the status are kept between two pushes: a write in between is not told as if it were not."""
    for i in range(8):
        value = 1 - i % 2
        ok(get(machine, "gpio/read_all")), ok(get(machine, "status"))
        write(machine, "valve2", value)
        told = {p["pin"]: p for p in ok(get(machine, "gpio/read_all"))["pins"]}["valve2"]
        assert told["state"] == value or told["stale"] is True, told
        status = ok(get(machine, "status"))
        assert status["actuators"]["valve2"] == value or status["stale"] is True, status
        read(machine, "valve2")  # waits for it


def test_read_of_a_pin_that_waits_for_motion(machine):
    """The write is accepted and Klipper acts on it after the move: the old value is never told as fresh."""
    go(machine, x=50, y=50)
    ok(post(machine, "motion/move", {"x": 75, "feedrate": 1500}))  # one second
    write(machine, "valve2", 1)
    status = ok(get(machine, "status"))
    assert status["actuators"]["valve2"] == 1 or status["stale"] is True, status
    data = read(machine, "valve2")
    assert data["state"] == 1 or data["stale"] is True, data
    all_pins = {p["pin"]: p for p in ok(get(machine, "gpio/read_all"))["pins"]}
    assert all_pins["valve2"]["state"] == 1 or all_pins["valve2"]["stale"] is True
    with Client(machine) as c:
        c.subscribe("gpio", "status")
        for told in (c.state["gpio"]["pins"]["valve2"]["state"], c.state["gpio"]), (c.state["status"]["actuators"]["valve2"], c.state["status"]):
            assert told[0] == 1 or told[1]["stale"] is True, told
        c.until(lambda: c.state["gpio"]["pins"]["valve2"]["state"] == 1 and not c.state["gpio"]["stale"] and not c.state["status"]["stale"])
    machine.sim_cmd("wait_pin PD3 1 20000", timeout=25)
    wait_for("the new value", lambda: read(machine, "valve2")["state"] == 1)
    write(machine, "valve2", 0, wait=True)


def test_two_writes_and_a_read(machine):
    """The last one counts, also when both are on their way."""
    for _ in range(3):
        write(machine, "valve2", 1)
        write(machine, "valve2", 0)
        assert read(machine, "valve2")["state"] == 0
        time.sleep(0.3)
        assert read(machine, "valve2")["state"] == 0
        assert pin(machine, "PD3") == 0


def test_foreign_write_is_seen(machine):
    for value in (1, 0):
        machine.gcode(f"SET_PIN PIN=valve1 VALUE={value}")
        wait_for("Klipper's push", lambda: read(machine, "valve1")["state"] == value)
        assert read(machine, "valve1")["stale"] is False


def test_read_all_is_what_klipper_has(machine):
    write(machine, "pump2", 1, wait=True)
    data = ok(get(machine, "gpio/read_all"))
    pins = {p["pin"]: p for p in data["pins"]}
    assert data["count"] == len(data["pins"]) == len(pins)
    outputs = ["pump1", "pump2", "valve1", "valve2", "light", "low_active", "shout"]
    klipper = query(machine, **{f"output_pin {name}": None for name in outputs})
    for name in outputs:
        assert pins[name]["direction"] == "output"
        assert pins[name]["state"] == klipper[f"output_pin {name}"]["value"], name
    assert pins["pump2"]["state"] == 1
    assert {"start_button", "tape"} <= {n for n, p in pins.items() if p["direction"] == "input"}
    for p in data["pins"]:
        assert set(p) == {"pin", "state", "direction", "stale", "timestamp"}
    write(machine, "pump2", 0, wait=True)


# ---- inputs ------------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_button(machine):
    assert read(machine, "start_button") | {"timestamp": 0} == {"pin": "start_button", "state": 0, "direction": "input", "stale": False, "timestamp": 0}
    machine.sim_cmd("press start_button")
    wait_for("pressed", lambda: read(machine, "start_button")["state"] == 1)
    assert query(machine, **{"gcode_button start_button": None})["gcode_button start_button"]["state"] == "PRESSED"
    machine.sim_cmd("release start_button")
    wait_for("released", lambda: read(machine, "start_button")["state"] == 0)


def test_switch_sensor(machine):
    machine.sim_cmd("press tape")
    wait_for("tape there", lambda: read(machine, "tape")["state"] == 1)
    machine.sim_cmd("release tape")
    wait_for("tape gone", lambda: read(machine, "PI5")["state"] == 0)


def test_an_input_cannot_be_written(machine):
    with helpers.nothing_reaches_klipper(machine):
        refused(post(machine, "gpio/write", {"pin": "start_button", "value": 1}), "INVALID_PARAMETER")


def test_live_read_of_a_pin(machine):
    for press, state in (("press", "PRESSED"), ("release", "RELEASED")):
        machine.sim_cmd(f"{press} start_button")
        wait_for("Klipper knows", lambda state=state: query(machine, **{"gcode_button start_button": None})["gcode_button start_button"]["state"] == state)
        asked = time.time()
        told = read(machine, "start_button", live="true")
        assert told["state"] == int(press == "press") and told["stale"] is False and told["timestamp"] > asked - 0.01, "it is of the question, not of the last push"
    write(machine, "valve1", 1)
    assert read(machine, "valve1", live="true")["state"] == 1
    write(machine, "valve1", 0)
    assert read(machine, "valve1", live="true")["state"] == 0


def test_endstop_asked_live(machine):
    """An endstop is known as last queried, with that time; live asks the microcontroller again."""
    go(machine, x=50, y=50)
    before = time.time()
    asked = read(machine, "endstop_x", live="true")
    assert asked["state"] == 0 and before - 0.01 <= asked["timestamp"] <= time.time() + 0.01
    helpers.pushes(machine)  # what changed by the question has been told
    told = read(machine, "endstop_x")["timestamp"]
    helpers.pushes(machine, 3)
    later = {p["pin"]: p["timestamp"] for p in ok(get(machine, "gpio/read_all"))["pins"]}
    assert later["endstop_x"] == pytest.approx(told, abs=0.01) and later["valve1"] > told + 0.4, "a push tells nothing of it"
    machine.sim_cmd("set_input x.limit 1")
    try:
        data = read(machine, "endstop_x", live="true")
        assert data["state"] == 1 and data["direction"] == "input"
    finally:
        machine.sim_cmd("set_input x.limit auto")
    assert read(machine, "endstop_x", live="true")["state"] == 0


def test_many_live_reads_at_once(machine):
    """They share questions to Klipper, each of a tick: of twenty the second takes all that came while the first was under way."""
    def asked():
        return int(re.search(r'upstream_calls_total{method="printer.objects.query"} (\d+)', machine.get("/metrics")[1]).group(1))
    read(machine, "valve1", live="true")
    before = asked()
    answers = helpers.at_once(machine, *[helpers.http_text("GET", "/api/v1/sensor/read?sensor=vacuum1&live=true")] * 20)
    assert {status for status, _ in answers} == {200}
    assert asked() - before < 10


# ---- sensors -----------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_vacuum_sensor(machine):
    for level, kpa in ((0.5, -45), (0.722222, -70), (0.1, 0)):
        machine.sim_cmd(f"adc n1.sensor {level}")
        wait_for(f"{kpa} kPa", lambda: abs(sensor(machine, "vacuum1")["value"] - kpa) < 0.5)
        data = sensor(machine, "vacuum1")
        assert (data["type"], data["unit"], data["stale"]) == ("vacuum", "kPa", False)
        klipper = query(machine, **{"temperature_sensor vacuum1": None})["temperature_sensor vacuum1"]["temperature"]
        assert data["value"] == pytest.approx(klipper, abs=0.3)
    machine.sim_cmd("adc n1.sensor auto")


def test_scaled_sensor(machine):
    """value = Klipper's value * scale + offset."""
    machine.sim_cmd("adc bed_temp 0.5")
    wait_for("the value", lambda: abs(sensor(machine, "weight")["value"] - 100) < 1)  # -45 * -2 + 10
    data = sensor(machine, "weight")
    assert (data["type"], data["unit"]) == ("load", "g")


def test_sensor_live(machine):
    machine.sim_cmd("adc n2.sensor 0.6")
    level = pytest.approx(-56.25, abs=0.5)
    wait_for("Klipper has it", lambda: query(machine, **{"temperature_sensor vacuum2": None})["temperature_sensor vacuum2"]["temperature"] == level)
    assert sensor(machine, "vacuum2", live="true")["value"] == level
    machine.sim_cmd("adc n2.sensor auto")


def test_sensors_all(machine):
    asked = time.time()
    data = ok(get(machine, "sensor/read_all"))
    names = {s["sensor"] for s in data["sensors"]}
    assert data["count"] == len(data["sensors"]) == len(names)
    assert {"vacuum1", "vacuum2", "weight"} <= names
    for s in data["sensors"]:
        assert set(s) == {"sensor", "type", "value", "unit", "last_updated", "stale"}
        assert s["stale"] is False and asked - 1.1 < s["last_updated"] <= time.time() + 0.1


def test_sensor_unknown(machine):
    refused(get(machine, "sensor/read?sensor=nothing"), "SENSOR_NOT_FOUND")


# ---- position and status -------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_position_is_klippers(machine):
    go(machine, x=83.5, y=21.25, z=-5)
    wait_for("the push", lambda: helpers.position(machine)["position"]["x"] == pytest.approx(83.5, abs=1e-3))
    asked = time.time()
    data = ok(get(machine, "position"))
    klipper = query(machine, motion_report=["live_position"], toolhead=None, gcode_move=None)
    for i, name in enumerate("xyz"):
        assert data["position"][name] == pytest.approx(klipper["motion_report"]["live_position"][i], abs=1e-3)
        assert data["commanded"][name] == pytest.approx(klipper["toolhead"]["position"][i], abs=1e-6)
        assert data["position"][name] == pytest.approx(helpers.axis(machine, name), abs=0.02)
        limits = data["limits"][name]
        assert (limits["min"], limits["max"]) == (klipper["toolhead"]["axis_minimum"][i], klipper["toolhead"]["axis_maximum"][i])
    assert {"x", "y", "z"} <= set(data["homed_axes"])
    assert data["units"] == "mm" and data["positioning_mode"] == "absolute" and data["stale"] is False
    assert asked - 1.1 < data["timestamp"] <= time.time() + 0.1


def test_position_follows_a_foreign_move(machine):
    go(machine, x=60, y=50)
    machine.gcode("G90\nG1 X72 F6000\nM400")
    wait_for("the push", lambda: ok(get(machine, "position"))["commanded"]["x"] == 72)
    wait_for("the push", lambda: abs(ok(get(machine, "position"))["position"]["x"] - 72) < 0.01)


def test_position_live_in_a_move(machine):
    """Where the head is, not where it goes."""
    go(machine, x=50, y=50)
    ok(post(machine, "motion/move", {"x": 110, "feedrate": 1200}))  # three seconds
    wait_for("the move", lambda: helpers.axis(machine, "x") > 60)
    before = helpers.axis(machine, "x")
    data = ok(get(machine, "position?live=true"))
    assert data["commanded"]["x"] == 110
    assert before - 5 < data["position"]["x"] <= helpers.axis(machine, "x") + 1
    ok(post(machine, "motion/wait"))
    helpers.still(machine)
    assert ok(get(machine, "position?live=true"))["position"]["x"] == pytest.approx(110, abs=X_STEP)


def test_positioning_mode_is_told(machine):
    machine.gcode("G91")
    wait_for("G91 seen", lambda: ok(get(machine, "position"))["positioning_mode"] == "relative")
    machine.gcode("G90")
    wait_for("G90 seen", lambda: ok(get(machine, "position"))["positioning_mode"] == "absolute")


@pytest.mark.smoke
def test_status_is_klippers(machine):
    ok(post(machine, "vacuum/on", {"nozzle": "N1", "wait": True}))
    data = ok(get(machine, "status"))
    assert data["printer_status"] == {"state": "ready", "klippy_connected": True, "moonraker_connected": True}
    assert {"x", "y", "z"} <= set(data["homed_axes"])
    assert data["vacuum_enabled"] is True and data["vacuum_power"] == 255
    assert data["actuators"]["valve1"] == 1 and data["actuators"]["pump1"] == 1 and data["actuators"]["valve2"] == 0
    assert data["pwm_outputs"]["light"] == 0
    assert data["sensors"]["vacuum1"]["unit"] == "kPa"
    assert data["safety"]["emergency_stop_active"] is False and data["safety"]["level"] == "normal"
    assert data["queue"]["size"] == 0 and data["queue"]["executing"] is False
    assert data["connection"]["moonraker_connected"] is True and data["connection"]["klippy_connected"] is True
    assert data["klipper"]["state"] == "ready"
    klipper = query(machine, motion_report=["live_position"])["motion_report"]["live_position"]
    assert [data["position"][n] for n in "xyz"] == pytest.approx(klipper[:3], abs=1e-3)
    ok(post(machine, "vacuum/off", {"nozzle": "N1", "wait": True}))
    assert ok(get(machine, "status"))["vacuum_enabled"] is False


def test_status_shows_what_runs(machine):
    go(machine, x=50, y=50)
    move = Later(post, machine, "motion/move", {"x": 80, "feedrate": 400, "wait": True})
    wait_for("the move", lambda: steps(machine)["moving"])
    behind = Later(post, machine, "gpio/write", {"pin": "valve1", "value": 0})
    both = wait_for("both", lambda: (q := ok(get(machine, "status"))["queue"])["size"] == 2 and q)
    assert both["executing"] is True
    ok(move.answer())
    ok(behind.answer())
    assert ok(get(machine, "status"))["queue"]["size"] == 0


def test_reads_change_nothing(machine):
    with helpers.nothing_reaches_klipper(machine):
        for path in ("status", "position", "gpio/read_all", "sensor/read_all", "version", "gpio/read?pin=valve1", "sensor/read?sensor=vacuum2"):
            ok(get(machine, path))
