# SPDX-License-Identifier: GPL-3.0-or-later
"""Picks and placements whose levels Klipper looks at inside the script: the second nozzle's sensor is of the Klipper extra, the first one's is not.

Invariant: what is held and where a part lies is the simulated world's answer; test_pnp.py shows the same of a machine without the extra.
"""
import re
import time

import pytest

import helpers
import rig
from helpers import Later, check_envelope, go, ok, pin, post, refused, still, wait_for
from test_pnp import add_part, job, lies, off_and_up, place_of, ready  # noqa: F401

PRINTER = helpers.EXTRA_VACUUM.format(report_s=0.02) + """
[pnp_sensor slow]
sensor_pin: PE6
report_time: 1.0
unit: kPa
calibration:
    0.5, 0
    4.5, -90
"""
SENSOR = helpers.EXTRA_VACUUM_OURS
WORLD = helpers.EXTRA_VACUUM_WORLD + "\nadc other pin=PE6 value=0.1"
LONG_S = 10  # of [sensor] report_time: a check then waits for half a minute


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(extras=True, printer_extra=PRINTER, klipperplace_extra=SENSOR.format(report_s=0.02), world_extra=WORLD) as r:
        wait_for("the first sample", lambda: level_of(r, "vac") is not None, 30)
        yield r


def level_of(machine, sensor):
    name = f"pnp_sensor {sensor}"
    return machine.moonraker_call("printer.klipperplace.read", {"objects": {name: None}})["status"][name]["value"]


def sent(machine):
    """How many scripts the shim has sent."""
    found = re.search(r'upstream_calls_total{method="printer.gcode.script"} (\d+)', machine.get("/metrics")[1])
    return int(found.group(1)) if found else 0


def counted(machine, command, body):
    before = sent(machine)
    answer = post(machine, command, body)
    return answer, sent(machine) - before


def test_one_script(ready):
    """Held and let go, both checked: one script, where the nozzle whose sensor is another takes two."""
    ok(post(ready, "motion/move", {"x": 100, "feedrate": 12000, "wait": True}))  # whatever the lane does once is done
    for nozzle, scripts in (("N1", 2), ("N2", 1)):
        part = add_part(ready, 60, 60)
        answer, count = counted(ready, "pnp/pick_and_place", job(nozzle, rotation=30))
        data = ok(answer)
        lies(ready, part, 130, 130, 30)
        off_and_up(ready, nozzle)
        ready.sim_cmd("remove_parts 0 0 400 400")
        assert count == scripts
        assert data["attempts"] == 1 and data["completed"] is True and data["vacuum_level"] == pytest.approx(0, abs=5)
    waits = [line for line in data["gcode"] if line.startswith("PNP_WAIT")]
    assert waits == ["PNP_WAIT SENSOR=vac BELOW=-55 TIMEOUT=0.31", "PNP_WAIT SENSOR=vac ABOVE=-30 TIMEOUT=0.31"]


def test_two_commands(ready):
    """The level is what Klipper saw; a check is part of its script, so nothing is read between."""
    part = add_part(ready, 60, 60)
    go(ready, x=60, y=60, nozzle="N2")
    answer, count = counted(ready, "pnp/pick", {"nozzle": "N2", "feedrate": 6000})
    data = ok(answer)
    assert count == 1 and data["vacuum_level"] == pytest.approx(-70, abs=2) and data["vacuum_enabled"] is True
    assert place_of(ready, part)["state"] == "held"
    go(ready, x=110, y=110, nozzle="N2")
    answer, count = counted(ready, "pnp/place", {"nozzle": "N2", "feedrate": 6000})
    assert count == 1 and ok(answer)["vacuum_level"] == pytest.approx(0, abs=5)
    off_and_up(ready, "N2")
    lies(ready, part, 110, 110, 0)


def test_part_that_does_not_stick(ready):
    """The pick fails as it does at a cut: the level, the head up over the part, vacuum off, and the client's modes are the client's."""
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault no_stick 1")
    ready.gcode("SAVE_GCODE_STATE NAME=_test_clean\nG91\nSET_GCODE_OFFSET X=5 Z=-0.5\nM220 S50")
    try:
        modes = helpers.modes(ready)
        body = refused(post(ready, "pnp/pick_and_place", job("N2")), "VACUUM_FAILED")
        assert helpers.modes(ready) == modes and modes["absolute"] is False
    finally:
        ready.gcode("RESTORE_GCODE_STATE NAME=_test_clean")
    off_and_up(ready, "N2")
    assert body["details"]["step"] == "verify_pick"
    assert body["details"]["errors"][0]["got"] == pytest.approx(-20, abs=2)
    p = place_of(ready, part)
    assert p["state"] == "lying" and (p["x"], p["y"]) == (60, 60)
    tip = still(ready)["nozzles"]["n2"]
    assert (tip["x"], tip["y"]) == (pytest.approx(60, abs=0.02), pytest.approx(60, abs=0.02))  # it did not go on


def test_retries(ready):
    """Picked at the third try; each try is a script, and none of them is sent again as a restore."""
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault no_stick 2")
    ready.gcode("G91")
    try:
        answer, count = counted(ready, "pnp/pick_and_place", job("N2", retries=2))
        assert helpers.modes(ready)["absolute"] is False
    finally:
        ready.gcode("G90")
    data = ok(answer)
    assert data["attempts"] == 3 and count == 3
    lies(ready, part, 130, 130, 0)
    off_and_up(ready, "N2")


def test_retries_that_do_not_suffice(ready):
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault no_stick 5")
    before = len(ready.events("no_stick"))
    body = refused(post(ready, "pnp/pick_and_place", job("N2", retries=1)), "VACUUM_FAILED")
    assert len(ready.events("no_stick")) - before == 2
    assert body["details"]["attempts"] == 2 and body["details"]["errors"][0]["got"] == pytest.approx(-20, abs=2)
    assert place_of(ready, part)["state"] == "lying"
    off_and_up(ready, "N2")
    ok(post(ready, "motion/move", {"x": 50, "feedrate": 12000, "wait": True}))  # the lane owes nothing


def test_sensor_stuck_at_no_vacuum(ready):
    add_part(ready, 60, 60)
    ready.sim_cmd("fault sensor_stuck n2 0.1")
    body = refused(post(ready, "pnp/pick_and_place", job("N2")), "VACUUM_FAILED")
    assert body["details"]["step"] == "verify_pick"
    assert body["details"]["errors"][0]["got"] == pytest.approx(0, abs=2)
    off_and_up(ready, "N2")


def torn_off(machine, inside):
    """No level of a sensor that reports a fault is one for a check: neither that of full scale for a part that is held nor that of 0 V for one let go."""
    add_part(machine, 60, 60)
    whole = ok(post(machine, "pnp/pick_and_place", job("N2")))
    assert any(line.startswith("PNP_WAIT") for line in whole["gcode"]) == inside
    machine.sim_cmd("remove_parts 0 0 400 400")
    place = {"nozzle": "N2", "feedrate": 6000}
    for volts, level, command, body, step in (("5.00", -101.25, "pnp/pick_and_place", job("N2"), "verify_pick"), ("0.00", 11.25, "pnp/place", place, "verify_place")):
        go(machine, x=60, y=60, nozzle="N2")
        machine.sim_cmd(f"adc PE1 {float(volts) / 5:g}")
        wait_for("the read goes on", lambda want=level: read_level(machine) == pytest.approx(want, abs=0.1), 20)
        failed = refused(post(machine, command, body), "VACUUM_FAILED")
        assert failed["details"]["step"] == step
        assert f"its sensor has a fault ({volts} V is out of range), wanted" in failed["error_message"], failed
        assert failed["details"]["errors"][0].get("got") is None
        off_and_up(machine, "N2")
        machine.sim_cmd("adc PE1 auto")
        wait_for("no fault", lambda: fault_of(machine) is None, 20)


def read_level(machine):
    return ok(machine.get("/api/v1/sensor/read?sensor=vacuum2&live=true"))["value"]


def fault_of(machine):
    """Of the nozzle's sensor, whichever it is called in this machine."""
    found = machine.moonraker_call("printer.objects.list")["objects"]
    name = next(n for n in found if n.startswith("pnp_sensor vac"))
    return machine.moonraker_call("printer.klipperplace.read", {"objects": {name: None}})["status"][name]["fault"]


def test_torn_off(ready):
    torn_off(ready, inside=True)


def test_torn_off_and_asked_between_scripts(make_rig):
    """The same of a sensor whose name no script can write, so that its level is sampled."""
    machine = make_rig(extras=True, printer_extra=PRINTER.replace("pnp_sensor vac", "pnp_sensor vac-2"),
                       klipperplace_extra=SENSOR.format(report_s=0.02).replace("pnp_sensor vac", "pnp_sensor vac-2"), world_extra=WORLD)
    helpers.make_homed(machine)
    wait_for("the first sample", lambda: fault_of(machine) is None, 30)
    torn_off(machine, inside=False)


def test_part_that_is_not_let_go(ready):
    """The release is checked in the same script: told with vacuum off and the head up, and not tried again."""
    part = add_part(ready, 60, 60)
    ready.sim_cmd("fault sensor_stuck n2 0.722222")
    answer, count = counted(ready, "pnp/pick_and_place", job("N2", retries=2))
    body = refused(answer, "VACUUM_FAILED")
    assert count == 1
    assert body["details"]["step"] == "verify_place"
    assert body["details"]["errors"][0]["got"] == pytest.approx(-70, abs=2)
    off_and_up(ready, "N2")
    lies(ready, part, 130, 130, 0)


def test_another_error_is_one(ready):
    """Klipper refuses the script of a pick for a reason of its own: no failed pick, no retry, and the state is put back."""
    go(ready, x=60, y=60, nozzle="N2")
    slow = Later(ready.gcode, "G4 P1500\nM84")  # unhomed before our script begins
    time.sleep(0.3)
    body = check_envelope(post(ready, "pnp/pick", {"nozzle": "N2", "feedrate": 6000}))
    slow.answer()
    assert body["status"] == "error" and body["error_code"] in ("EXECUTION_FAILED", "HOMING_REQUIRED"), body
    assert pin(ready, "PD3") == 0
    helpers.make_homed(ready)
    assert helpers.modes(ready)["absolute"] is True


def test_foreign_move_before_a_retry(ready):
    """Somebody else's move came behind the pick that failed: a pick alone does not go down there."""
    go(ready, x=60, y=60, nozzle="N2")
    pick = Later(post, ready, "pnp/pick", {"nozzle": "N2", "feedrate": 330})
    ready.sim_cmd("wait_pin n2.valve 1 20000", timeout=25)
    ready.gcode("G90\nG1 X75 F6000\nM400")
    body = refused(pick.answer(), "INTERLOCK")
    assert body["details"]["step"] == "verify_pick"
    assert still(ready)["nozzles"]["n2"]["x"] == pytest.approx(95, abs=0.02)
    ok(post(ready, "vacuum/off", {"nozzle": "N2", "wait": True}))


def test_old_samples_do_not_count(machine):
    """A sensor that is looked at once a second still shows the level of before: the wait takes the next sample. And what is told is what counts."""
    for _ in range(3):
        machine.sim_cmd("adc PE6 0.9")
        wait_for("the good level", lambda: level_of(machine, "slow") == pytest.approx(-90, abs=0.1), 20)
        machine.sim_cmd("adc PE6 0.1")
        with pytest.raises(rig.RpcError, match=r"slow is -?0\.\d+ kPa, not below -50.000"):
            machine.gcode("PNP_WAIT SENSOR=slow BELOW=-50 TIMEOUT=0.1")  # shorter than the time between two samples: one is waited for
    machine.sim_cmd("adc PE6 0.5")
    machine.gcode(f"PNP_WAIT SENSOR=slow BELOW={level_of(machine, 'slow') + 100} TIMEOUT=2")
    level = level_of(machine, "slow")
    machine.gcode(f"PNP_WAIT SENSOR=slow BELOW={level} TIMEOUT=2\nPNP_WAIT SENSOR=slow ABOVE={level} TIMEOUT=2")


def waits_for_long(machine):
    """A pick whose check is under way when this returns, and would be for half a minute: there is no part."""
    go(machine, x=60, y=60, nozzle="N2")
    pick = Later(post, machine, "pnp/pick", {"nozzle": "N2", "feedrate": 6000})
    machine.sim_cmd("wait_pin n2.valve 1 20000", timeout=25)
    wait_for("it is up", lambda: abs(helpers.axis(machine, "z") - 20) < 0.02 and not helpers.steps(machine, "z")["queued"], 20)
    time.sleep(0.2)
    assert not pick.done
    return pick


def test_what_stops_the_machine_ends_it(make_rig):
    """A shutdown and an emergency stop in the middle of a check: the answer comes at once, as of any command, and nothing is a failed pick."""
    machine = make_rig(extras=True, printer_extra=PRINTER, klipperplace_extra=SENSOR.format(report_s=LONG_S), world_extra=WORLD)
    for stop in (lambda: machine.sim_cmd("fault shutdown"), lambda: ok(post(machine, "system/emergency_stop"))):
        helpers.make_homed(machine)
        pick = waits_for_long(machine)
        began = time.monotonic()
        stop()
        body = check_envelope(pick.answer())
        assert body["error_code"] in ("EMERGENCY_STOP_ACTIVE", "KLIPPY_DISCONNECTED"), body
        assert time.monotonic() - began < LONG_S
        ok(post(machine, "system/reset"))
        wait_for("the machine", lambda: machine.get("/ready")[0] == 200, 60)
