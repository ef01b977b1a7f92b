# SPDX-License-Identifier: GPL-3.0-or-later
"""What the shim knows comes from Klipper: at its start in any order, after new configurations, and while others use the machine.

Invariant: homed axes, limits, pins and sensors are Klipper's own; nothing is kept from before a restart.
"""
import time

import pytest

import helpers
import rig
from helpers import FAST, X_STEP, Later, axis, get, go, nothing_reaches_klipper, ok, pin, post, refused, still, wait_for

BACK_S = 5.0


@pytest.fixture
def homed(machine):
    return helpers.make_homed(machine)


def configure(machine, text):
    """Another printer.cfg and Klipper's RESTART, by another client."""
    (machine.data / "config" / "printer.cfg").write_text(text)
    try:
        helpers.restart_klipper(machine, "printer.restart")
    except rig.RigError:
        return
    wait_for("the shim is back", lambda: machine.get("/ready")[0] == 200, BACK_S)


@pytest.mark.smoke
def test_shim_before_everything_else():
    """Started first, it serves, says what is missing, and is ready by itself within 5 s of Klipper."""
    machine = rig.Rig()
    rig.LIVE.append(machine)
    try:
        machine.shim.start()
        wait_for("it serves", lambda: machine.get("/health")[0] == 200)
        assert machine.get("/ready")[0] == 503
        ok(get(machine, "version"))
        for path in ("position", "gpio/read_all", "sensor/read_all"):
            refused(get(machine, path), "MOONRAKER_DISCONNECTED")
        unread = [(get, ("gpio/read?pin=valve1",)), (get, ("gpio/read?pin=valve1&live=true",)), (get, ("sensor/read?sensor=vacuum1",)),
                  (post, ("gpio/write", {"pin": "valve1", "value": 1})), (post, ("fan/on",))]
        for ask, args in unread:  # whether there is one, nobody can say yet
            refused(ask(machine, *args), "MOONRAKER_DISCONNECTED")
        status = ok(get(machine, "status"))
        assert status["printer_status"]["moonraker_connected"] is False and status["position"] is None
        refused(post(machine, "motion/move", {"x": 10}), "MOONRAKER_DISCONNECTED")
        machine.moonraker.start()
        wait_for("Moonraker is seen", lambda: machine.get("/health")[1]["moonraker_connected"], 20)
        refused(post(machine, "motion/move", {"x": 10}), "KLIPPY_DISCONNECTED")
        refused(get(machine, "position"), "KLIPPY_DISCONNECTED")
        for ask, args in unread:
            refused(ask(machine, *args), "KLIPPY_DISCONNECTED")
        machine.sim.start()
        wait_for("the simulated machine", lambda: machine.sim_cmd("status")["ok"])
        machine.klipper.start()
        machine.wait_klipper_ready(30)
        wait_for("ready", lambda: machine.get("/ready")[0] == 200, BACK_S)
        refused(post(machine, "motion/move", {"x": 10}), "HOMING_REQUIRED")
        ok(post(machine, "gpio/write", {"pin": "valve1", "value": 1, "wait": True}))
        assert pin(machine, "PD2") == 1
    finally:
        machine.stop()


@pytest.mark.smoke
def test_homed_axes_are_klippers(homed):
    helpers.unhome(homed)
    with nothing_reaches_klipper(homed):
        body = refused(post(homed, "motion/move", {"x": 10, "y": 10}), "HOMING_REQUIRED")
    assert {"x", "y"} <= set(body["error_message"].lower().split())
    homed.sim_cmd("place_axis x 3")
    homed.gcode("SET_STEPPER_ENABLE STEPPER=stepper_x ENABLE=1\nSET_KINEMATIC_POSITION X=3 SET_HOMED=X CLEAR_HOMED=YZ")
    wait_for("x seen", lambda: {"x", "y", "z"} & set(helpers.position(homed)["homed_axes"]) == {"x"})
    refused(post(homed, "motion/move", {"y": 10}), "HOMING_REQUIRED")


def test_one_motor_off_is_unhomed(homed):
    """Klipper itself goes on to call the axis homed; its place is not known any more."""
    homed.gcode("SET_STEPPER_ENABLE STEPPER=stepper_y ENABLE=0")
    helpers.motors(homed, False, "y")
    wait_for("seen", lambda: "y" not in helpers.position(homed)["homed_axes"])
    assert "y" in helpers.query(homed, toolhead=["homed_axes"])["toolhead"]["homed_axes"]
    with nothing_reaches_klipper(homed):
        refused(post(homed, "motion/move", {"y": 10}), "HOMING_REQUIRED")
    helpers.unhome(homed)


def test_rotation_is_unhomed_with_its_motor(homed):
    ok(post(homed, "motion/home", {"axes": ["a", "b"]}))
    assert {"a", "b"} <= set(helpers.position(homed)["homed_axes"])
    homed.gcode("MANUAL_STEPPER STEPPER=rotation1 ENABLE=0")
    wait_for("seen", lambda: "a" not in helpers.position(homed)["homed_axes"])
    refused(post(homed, "motion/move", {"a": 10}), "HOMING_REQUIRED")
    assert "b" in helpers.position(homed)["homed_axes"]


def test_limits_follow_klipper(homed):
    """A velocity limit that somebody sets, and a new configuration with a smaller table and another pin."""
    homed.gcode("SET_VELOCITY_LIMIT VELOCITY=50")
    wait_for("it is seen", lambda: post(homed, "motion/move", {"x": 10, "feedrate": 3001})[1].get("error_code") == "FEEDRATE_OUT_OF_BOUNDS")
    homed.gcode("SET_VELOCITY_LIMIT VELOCITY=500")
    config = homed.data / "config" / "printer.cfg"
    new = rig.cfg_merge(config.read_text(), {"stepper_x": {"position_max": "200"}, "output_pin extra": {"pin": "PI9", "value": "0"}, "output_pin valve2": {"pin": "PI10"}})
    refused(get(homed, "gpio/read?pin=extra"), "PIN_NOT_FOUND")
    configure(homed, new)
    helpers.make_homed(homed)
    go(homed, x=200)
    with nothing_reaches_klipper(homed):
        body = refused(post(homed, "motion/move", {"x": 200.1}), "POSITION_OUT_OF_BOUNDS")
        assert body["details"]["errors"][0]["max"] == 200
    ok(post(homed, "gpio/write", {"pin": "extra", "value": 1, "wait": True}))
    assert pin(homed, "PI9") == 1
    ok(post(homed, "vacuum/on", {"nozzle": "N2", "wait": True}))
    assert pin(homed, "PI10") == 1 and pin(homed, "PD3") == 0
    ok(post(homed, "vacuum/off", {"nozzle": "N2", "wait": True}))
    assert helpers.position(homed)["limits"]["x"]["max"] == 200


def test_error_in_klippers_configuration(homed):
    """Klipper's own words reach the client; the shim is back by itself once it is mended."""
    config = homed.data / "config" / "printer.cfg"
    old = config.read_text()
    configure(homed, old + "\n[no_such_section]\n")
    wait_for("the error is seen", lambda: homed.get("/health")[1]["klipper"] == "error")
    body = refused(post(homed, "motion/move", {"x": 10}), "KLIPPY_DISCONNECTED")
    assert body["details"]["klipper"]["state"] == "error"
    assert "no_such_section" in body["details"]["klipper"]["message"]
    assert homed.get("/ready")[0] == 503
    configure(homed, old)
    assert homed.get("/ready")[0] == 200


def test_nothing_is_kept_over_a_restart_of_klipper(homed):
    """Pins and sensors after a restart are the new ones, never an old value as fresh."""
    ok(post(homed, "gpio/write", {"pin": "valve1", "value": 1, "wait": True}))
    homed.klipper.kill()
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    homed.klipper.start()
    homed.wait_klipper_ready(20)
    wait_for("ready", lambda: homed.get("/ready")[0] == 200, BACK_S)
    data = ok(get(homed, "gpio/read?pin=valve1"))
    assert (data["state"], data["stale"]) == (0, False)
    assert pin(homed, "PD2") == 0


PRINT = """
[virtual_sdcard]
path: {gcodes}
"""


def test_file_print_holds_the_lane():
    """While Klipper runs a file, nothing of ours moves or switches; reads and the stop go on."""
    machine = rig.Rig()
    gcodes = machine.data / "gcodes"
    config = machine.data / "config" / "printer.cfg"
    config.write_text(config.read_text() + PRINT.format(gcodes=gcodes))
    (gcodes / "job.gcode").write_text("".join(f"G4 P200\nG1 X{50 + i % 2} F6000\n" for i in range(60)))
    with machine:
        helpers.tell_position(machine, x=50, y=50)
        go(machine, x=50)
        machine.gcode("SDCARD_PRINT_FILE FILENAME=job.gcode")
        wait_for("the print", lambda: post(machine, "motion/move", {"y": 50})[1].get("error_code") == "INTERLOCK")
        since = time.time()
        for command, body in (("motion/move", {"y": 60}), ("gpio/write", {"pin": "valve1", "value": 1}), ("motion/home", {}), ("pnp/pick", {})):
            refused(post(machine, command, body), "INTERLOCK")
        assert machine.scripts(since) == []
        ok(get(machine, "position"))
        assert axis(machine, "y") == pytest.approx(50, abs=X_STEP)
        machine.gcode("CANCEL_PRINT", timeout=20)
        wait_for("it is over", lambda: post(machine, "gpio/write", {"pin": "valve1", "value": 0})[0] == 200)


def test_two_shims_on_one_machine(homed):
    """Commands of a second shim are a foreign client's: both go where they are told."""
    second = rig.Process(homed.dir, "second", [rig.build_dir() / "shim" / "klipperplaced", "--config", homed.dir / "second.cfg"])
    port = rig.free_port({homed.port, homed.moonraker_port})
    text = (homed.data / "config" / "klipperplace.cfg").read_text()
    (homed.dir / "second.cfg").write_text(rig.cfg_merge(text, {"api": {"port": port}, "gcode_port": {"enabled": "false"}}))
    homed.gcode("G90\nG1 Y0.0041666666666666666 F6000\nM400")  # as steps of 1/240 mm leave it, short of six decimals
    second.start()
    try:
        other = type("Other", (), {"port": port, "key": None, "request": rig.Rig.request, "get": rig.Rig.get, "post": rig.Rig.post})()
        wait_for("the second", lambda: other.get("/ready")[0] == 200)
        ok(post(other, "motion/move", {"y": 90, "feedrate": FAST, "wait": True}))  # it saves the neutral state at its first move: not while the other moves
        ok(post(other, "motion/move", {"y": 0, "feedrate": FAST, "wait": True}))  # the very end of the axis, to the last bit
        moves = []
        for i in range(5):
            moves += [Later(post, homed, "motion/move", {"x": 100 + i, "feedrate": FAST}), Later(post, other, "motion/move", {"y": 100 + i, "feedrate": FAST})]
            time.sleep(0.02)
        for m in moves:
            ok(m.answer())
        ok(post(other, "motion/wait"))
        still(homed)
        assert (axis(homed, "x"), axis(homed, "y")) == (pytest.approx(104, abs=X_STEP), pytest.approx(104, abs=X_STEP))
        assert helpers.modes(homed)["absolute"] is True
    finally:
        assert second.stop(30) == []
