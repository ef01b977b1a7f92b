# SPDX-License-Identifier: GPL-3.0-or-later
"""The shim with the Klipper extra: it asks now, hears inputs at once, says what the extra says, and goes on without it.

Invariant: everything here also works on a machine without the extra; test_io.py and test_state.py show that.
"""
import time

import pytest

import rig
from contract import Contract
from helpers import EXTRA_VACUUM, EXTRA_VACUUM_OURS, EXTRA_VACUUM_WORLD, Later, get, ok, post, restart_klipper, wait_for
from ws_client import Client

TICK_S = 0.25  # of Klipper's status

EXTRA = EXTRA_VACUUM.format(report_s=0.01) + """
[gcode_macro BUSY]
gcode:
    {% for i in range(400) %}{% for j in range(400) %}{% endfor %}{% endfor %}
"""
SENSOR = EXTRA_VACUUM_OURS.format(report_s=0.01)


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(extras=True, printer_extra=EXTRA, klipperplace_extra=SENSOR, world_extra=EXTRA_VACUUM_WORLD) as r:
        yield r


def extra(machine):
    return ok(get(machine, "status"))["klipper"]["extra"]


def fast(machine):
    """Early starts, also after a time when a busy machine left too small a margin."""
    wait_for("its status", lambda: extra(machine)["timing"], 30)
    if extra(machine)["stopped"]:
        restart(machine)
    machine.gcode("G28\nM400")
    wait_for("early starts", lambda: extra(machine)["timing"] == "fast", 60)


def restart(machine, method="printer.firmware_restart"):
    restart_klipper(machine, method)
    machine.wait_ready(60)


def button(machine):
    return ok(get(machine, "gpio/read?pin=start_button"))["state"]


def test_status_tells(machine):
    wait_for("its status", lambda: extra(machine)["parts"]["read"] == "on", 30)
    for _ in range(5):
        told = extra(machine)
        if told["why"] == "just started":
            break
        restart(machine)  # a slow machine: the ten seconds were over
        wait_for("its status", lambda: extra(machine)["parts"]["read"] == "on", 30)
    assert told["parts"] == {"read": "on", "axes": "on", "push": "on", "pnp_wait": "on", "pnp_sensor": "on", "fast_start": "on", "exact_wait": "on"}
    assert told["lead_ms"] == 100 and told["timing"] == "klipper" and told["why"] == "just started"
    with Client(machine) as c:  # a subscriber is told the change, and the contract knows what it is told
        c.subscribe("status")
        c.until(lambda: c.state["status"]["klipper"]["extra"]["timing"] == "fast", 60)
    Contract(get(machine, "openapi.json")[1]).judge("GET", "/api/v1/status", get(machine, "status"))


def test_live_reads(machine):
    """Eight of twenty live reads of three kinds in a row take less than half of the tick that each would wait for."""
    took = []
    for i in range(20):
        began = time.monotonic()
        path = ("gpio/read?pin=start_button&live=true", "sensor/read?sensor=vacuum1&live=true", "position?live=true")[i % 3]
        ok(get(machine, path))
        took.append(time.monotonic() - began)
    assert sorted(took)[7] < TICK_S / 2, took


def test_a_pnp_sensor_is_a_sensor(machine):
    """What it shows is a moment old: the level was changed 50 ms before. Klipper's first sample comes some time after its start."""
    def first():
        return machine.moonraker_call("printer.klipperplace.read", {"objects": {"pnp_sensor vac": None}})["status"]["pnp_sensor vac"]
    told = first()
    assert (told["value"] is None) == (told["fault"] == "no sample")
    wait_for("the first sample", lambda: first()["fault"] is None, 30)

    def shows(kpa):
        sensor = ok(get(machine, "sensor/read?sensor=vacuum2&live=true"))
        return sensor["unit"] == "kPa" and sensor["value"] == pytest.approx(kpa, abs=0.1)

    def at_once(_):
        """Of six changes, how many are read 50 ms later; a sensor of Klipper's own would show one or none."""
        seen = 0
        for level, kpa in ((0.5, -45), (0.3, -22.5)) * 3:
            machine.sim_cmd(f"adc PE1 {level}")
            time.sleep(0.05)
            seen += shows(kpa)
            wait_for("the level", lambda k=kpa: shows(k), 20)
        return seen
    assert any(at_once(i) >= 4 for i in range(8))
    machine.sim_cmd("adc PE1 auto")


def test_inputs_at_once(machine):
    """Of ten presses and releases seven are seen within a sixth of a tick, which without a push happens once in thousands of times."""
    def round_of_ten(_):
        took = []
        for i in range(10):
            wanted = 1 - i % 2
            machine.sim_cmd("press start_button" if wanted else "release start_button")
            began = time.monotonic()
            wait_for("it is seen", lambda w=wanted: button(machine) == w, 20, every=0.001)
            took.append(time.monotonic() - began)
            time.sleep(0.1 + 0.02 * i)  # another place in the tick
        return sum(t < TICK_S / 6 for t in took)
    assert any(round_of_ten(i) >= 7 for i in range(8))


def test_commands_do_not_wait_for_a_tick(machine):
    """A move with wait and a written pin end with what is asked, not with the next push: three moves of ten in less than the tick alone would take."""
    fast(machine)
    ok(post(machine, "motion/move", {"x": 100, "y": 100, "feedrate": 12000, "wait": True}))
    took = []
    for i in range(10):
        began = time.monotonic()
        data = ok(post(machine, "motion/move", {"x": 100.5 - 0.5 * (i % 2), "feedrate": 12000, "wait": True}))
        took.append(time.monotonic() - began)
        assert data["completed"] and data["position"]["x"] == 100.5 - 0.5 * (i % 2)
        steps = machine.sim_cmd("steps x")
        assert not steps["queued"] and steps["last_step_s"] > began
        ok(post(machine, "gpio/write", {"pin": "valve1", "value": 1 - i % 2, "wait": True}))
        assert machine.sim_cmd("pin PD2")["value"] == 1 - i % 2
    assert sorted(took)[2] < 0.2, took  # the lead, the move, and no tick: one that waits for ticks takes whole ones


def test_a_live_position_is_of_now(machine):
    """Where others send the head is told before Klipper's push, also right behind a move of ours."""
    fast(machine)
    for i in range(6):
        ok(post(machine, "motion/move", {"x": 100, "feedrate": 12000, **({"wait": True} if i % 2 else {})}))
        machine.gcode(f"G90\nG1 X{110 + i} F12000")
        assert ok(get(machine, "position?live=true"))["commanded"]["x"] == 110 + i
        machine.gcode("M400")


def test_margin_is_told(machine):
    """A stall of Klipper that eats most of the lead while it works on a script: told by the status and by the log."""
    fast(machine)
    for i in range(20):  # one is enough; a busy machine may come too late to stop it in time
        with rig.Pushes(machine.klippy_socket) as console:
            text = f"SET_PIN PIN=valve1 VALUE={1 - i % 2}\nRESPOND MSG=now\nBUSY\nM400"
            script = Later(rig.rpc, machine.klippy_socket, "gcode/script", {"script": text})
            while "now" not in console.next(20)["response"]:
                pass
            machine.klipper.pause()
            time.sleep(0.070)
            machine.klipper.resume()
        script.answer(30)
        time.sleep(2 * TICK_S)
        if extra(machine)["stopped"]:
            break
    wait_for("the whole of it", lambda: extra(machine)["timing"] == "klipper", 20)
    told = extra(machine)
    assert told["margin_ms"] < 50 and "ms left of 100" in told["stopped"] and told["timing"] == "klipper"
    assert "timing=klipper" in machine.shim.output()
    lines = dict(line.rsplit(" ", 1) for line in machine.get("/metrics")[1].splitlines() if line.startswith("klipperplace_extra"))
    assert lines["klipperplace_extra"] == "1" and lines["klipperplace_extra_fast"] == "0" and lines['klipperplace_extra_part{part="read"}'] == "1"
    assert float(lines["klipperplace_extra_margin_seconds"]) == pytest.approx(told["margin_ms"] / 1000) and int(lines["klipperplace_extra_starts_total"]) > 0


def test_without_it_again(machine):
    """Klipper restarted without the section: the shim says so and reads as before."""
    config = machine.data / "config" / "printer.cfg"
    text = config.read_text()
    config.write_text(text[:text.index("[klipperplace]")] + text[text.index("[gcode_macro BUSY]"):])
    restart(machine, "printer.restart")
    assert extra(machine) is None
    ok(get(machine, "sensor/read?sensor=vacuum1&live=true"))
    machine.sim_cmd("press start_button")
    wait_for("a tick", lambda: button(machine) == 1, 20)
