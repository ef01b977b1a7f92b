# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that go away and come back: Klipper, Moonraker, the microcontroller; by Moonraker's unix socket and by its WebSocket.

Invariant: every request is answered, nothing is carried out twice (the simulator counts steps), and the shim is back by itself within 5 s.
"""
import json
import threading
import time

import pytest

import helpers
import rig
from helpers import AT_ONCE_S, FAST, X_STEP, Later, axis, check_envelope, get, go, nothing_reaches_klipper, ok, post, refused, steps, still, wait_for
from proxy import CountingProxy, proxied_rig

BACK_S = 5.0  # the bound
READS = ("position", "status", "gpio/read?pin=valve1", "gpio/read_all", "sensor/read?sensor=vacuum1", "sensor/read_all")
MOTION = (("motion/move", {"x": 30}), ("motion/home", {}), ("motion/wait", {}), ("gpio/write", {"pin": "valve1", "value": 1}), ("vacuum/on", {}), ("pnp/pick", {}),
          ("feeder/advance", {"feeder": "feeder1", "distance": 4}))
LIVE = ("position?live=true", "gpio/read?pin=valve1&live=true", "sensor/read?sensor=vacuum1&live=true")


BOTH = pytest.mark.parametrize("machine", ["socket", "websocket"], indirect=True)  # how the shim reaches Moonraker


@pytest.fixture(scope="module")
def machine(request):
    with rig.Rig(websocket=getattr(request, "param", "socket") == "websocket") as r:
        yield r


@pytest.fixture
def homed(machine):
    return helpers.make_homed(machine)


def value_of(path, data):
    """What a read tells, without its age."""
    if path.startswith("gpio/read?"):
        return data["state"]
    if path == "gpio/read_all":
        return [(p["pin"], p["state"]) for p in data["pins"]]
    if path == "sensor/read_all":
        return [s["sensor"] for s in data["sensors"]]
    return data["position"] if path in ("position", "status") else data["sensor"]


def stale_of(path, data):
    return [p["stale"] for p in data["pins"]] if "pins" in data else [s["stale"] for s in data["sensors"]] if "sensors" in data and path != "status" else [data["stale"]]


def check_away(machine, code, last):
    """Between: motion gets 503 with the right code at once, reads give the last value as stale, nothing hangs."""
    for command, body in MOTION:
        began = time.monotonic()
        refused(post(machine, command, body, timeout=10), code)
        assert time.monotonic() - began < AT_ONCE_S
    for path, value in last.items():
        began = time.monotonic()
        data = ok(get(machine, path, timeout=10))
        assert time.monotonic() - began < AT_ONCE_S
        assert value_of(path, data) == value, path
        assert set(stale_of(path, data)) == {True}, path
    for path in LIVE:
        refused(get(machine, path, timeout=10), code)
    assert machine.get("/health")[0] == 200
    assert machine.get("/ready")[0] == 503


def last_values(machine):
    helpers.pushes(machine)  # so that nothing is on its way
    return {path: value_of(path, ok(get(machine, path))) for path in READS}


def fresh(machine):
    return all(set(stale_of(path, ok(get(machine, path)))) == {False} for path in READS)


def back(machine, since):
    """The shim is ready again within the bound after what had gone was back, stays so, and reads are fresh."""
    wait_for("the shim is back", lambda: machine.get("/ready", timeout=2)[0] == 200, BACK_S - (time.monotonic() - since))
    for _ in range(30):
        assert machine.get("/ready", timeout=2)[0] == 200, "ready, and then not ready again"
        time.sleep(0.02)
    wait_for("reads are fresh", lambda: fresh(machine), BACK_S - (time.monotonic() - since))


def klipper_ready(machine):
    """Waits until Moonraker says that Klipper is ready; returns when."""
    machine.wait_klipper_ready(20)
    return time.monotonic()


def long_move(machine, mm=40):
    """A move that is under way, three seconds for 20 mm."""
    go(machine, x=50, y=50)
    before = steps(machine)["total_steps"]
    move = Later(post, machine, "motion/move", {"x": 50 + mm, "feedrate": 400, "wait": True})
    wait_for("the move", lambda: steps(machine)["total_steps"] > before + 100)
    return move, before


# ---- Klipper ---------------------------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.smoke
def test_klipper_killed_and_restarted(homed):
    go(homed, x=60, y=60)
    last = last_values(homed)
    homed.klipper.kill()
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    check_away(homed, "KLIPPY_DISCONNECTED", last)
    homed.klipper.start()
    back(homed, klipper_ready(homed))
    refused(post(homed, "motion/move", {"x": 30}), "HOMING_REQUIRED")
    helpers.make_homed(homed)
    go(homed, x=42)
    assert axis(homed, "x") == pytest.approx(42, abs=X_STEP)


def test_klipper_killed_in_a_move(homed):
    """The one in flight may have run; the one behind it has not; neither runs afterwards."""
    move, _ = long_move(homed)
    behind = Later(post, homed, "motion/move", {"x": 200, "feedrate": FAST})
    wait_for("it waits", lambda: ok(get(homed, "status"))["queue"]["size"] == 2)
    homed.klipper.kill()
    refused(move.answer(), "OUTCOME_UNKNOWN", "KLIPPY_DISCONNECTED", "EMERGENCY_STOP_ACTIVE")
    refused(behind.answer(), "KLIPPY_DISCONNECTED", "CANCELLED")
    still(homed)
    before = steps(homed)["total_steps"]
    since = time.time()
    homed.klipper.start()
    back(homed, klipper_ready(homed))
    boots = homed.sim_cmd("status")["mcu"]["boots"]
    refused(post(homed, "motion/move", {"x": 50}), "EMERGENCY_STOP_ACTIVE")  # Klipper was lost in motion: somebody has to look
    ok(post(homed, "system/reset"))
    assert homed.sim_cmd("status")["mcu"]["boots"] == boots, "the new Klipper has nothing to stop"
    time.sleep(1)
    assert steps(homed)["total_steps"] == before
    assert not [s for s in homed.scripts(since) if "G1" in s]


def test_requests_while_klipper_starts(homed):
    """Each gets an answer at once, all the way from the kill to ready."""
    end, answers = threading.Event(), []

    def ask():
        while not end.is_set():
            began = time.monotonic()
            command = check_envelope(post(homed, "motion/move", {"x": 50}, timeout=20))
            read = check_envelope(get(homed, "position", timeout=10))
            answers.append((command.get("error_code"), read.get("error_code"), time.monotonic() - began))
            time.sleep(0.02)

    asking = Later(ask)
    homed.klipper.kill()
    time.sleep(0.5)
    homed.klipper.start()
    since = klipper_ready(homed)
    back(homed, since)
    end.set()
    asking.answer()
    assert {a[0] for a in answers} <= {None, "KLIPPY_DISCONNECTED", "HOMING_REQUIRED", "OUTCOME_UNKNOWN", "EMERGENCY_STOP_ACTIVE"}
    assert {a[1] for a in answers} == {None}
    assert max(a[2] for a in answers) < 2 * AT_ONCE_S


# ---- Moonraker ---------------------------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.smoke
def test_moonraker_killed_and_restarted(homed):
    go(homed, x=60, y=60)
    last = last_values(homed)
    homed.moonraker.kill()
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    check_away(homed, "MOONRAKER_DISCONNECTED", last)
    homed.moonraker.start()
    back(homed, klipper_ready(homed))
    assert {"x", "y", "z"} <= set(helpers.position(homed)["homed_axes"])  # Klipper never went
    go(homed, x=42)
    assert axis(homed, "x") == pytest.approx(42, abs=X_STEP)


@BOTH
@pytest.mark.smoke
def test_moonraker_killed_in_a_move(homed):
    """Nobody knows what became of it: that is told, Klipper carries it out, and it is not repeated."""
    move, before = long_move(homed)
    behind = Later(post, homed, "motion/move", {"x": 200, "feedrate": FAST})
    wait_for("it waits", lambda: ok(get(homed, "status"))["queue"]["size"] == 2)
    homed.moonraker.kill()
    refused(move.answer(), "OUTCOME_UNKNOWN")
    refused(behind.answer(), "MOONRAKER_DISCONNECTED")
    homed.moonraker.start()
    back(homed, klipper_ready(homed))
    ok(post(homed, "motion/wait"))
    still(homed)
    assert axis(homed, "x") == pytest.approx(90, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(40 / X_STEP)
    go(homed, x=30)
    assert axis(homed, "x") == pytest.approx(30, abs=X_STEP)


def test_moonraker_killed_with_modes_of_others(homed):
    """Klipper had our script, so its restore ran; the modes are as they were, before and after the next command."""
    homed.gcode("SAVE_GCODE_STATE NAME=_test_clean\nG91\nM220 S40\nSET_GCODE_OFFSET X=3")
    theirs = helpers.modes(homed)
    move, _ = long_move(homed, 20)
    homed.moonraker.kill()
    refused(move.answer(), "OUTCOME_UNKNOWN")
    homed.moonraker.start()
    back(homed, klipper_ready(homed))
    assert helpers.modes(homed) == theirs
    go(homed, x=30)
    assert axis(homed, "x") == pytest.approx(30, abs=X_STEP)
    assert helpers.modes(homed) == theirs
    homed.gcode("RESTORE_GCODE_STATE NAME=_test_clean")


class KeepsRestores(CountingProxy):
    """Loses the scripts that only restore the client's state, while it is told to."""
    keeps, kept = False, 0

    def take(self, client, frame):
        mine = self.keeps and json.loads(frame).get("params", {}).get("script", "").startswith("RESTORE_GCODE_STATE")
        self.kept += mine
        return mine


def test_restore_that_was_lost_with_the_connection():
    """A script failed in its middle, and the connection breaks before the modes of others are put back: that is done when it is there again."""
    with proxied_rig(KeepsRestores, printer_extra=helpers.REFUSING_PIN) as (machine, proxy):
        helpers.tell_position(machine, x=60, y=60)
        machine.gcode("G91\nSET_GCODE_OFFSET X=3\nM220 S40\nSET_GCODE_VARIABLE MACRO=SET_PIN VARIABLE=refused VALUE=\"'valve1'\"")
        theirs = helpers.modes(machine)
        proxy.keeps = True
        refused(post(machine, "pnp/pick"), "EXECUTION_FAILED")
        wait_for("the restore is on its way", lambda: proxy.kept)
        assert helpers.modes(machine) != theirs
        proxy.keeps = False
        proxy.cut()
        wait_for("modes are back without a further command", lambda: helpers.modes(machine) == theirs, 10)


def test_new_klipper_that_is_ready_before_we_look(homed):
    """We never see it start. What the old one owed us (modes to put back) died with it, and the machine can be used."""
    move, _ = long_move(homed)
    homed.klipper.kill()
    refused(move.answer(), "OUTCOME_UNKNOWN", "KLIPPY_DISCONNECTED", "EMERGENCY_STOP_ACTIVE")
    still(homed)
    homed.shim.pause()
    homed.klipper.start()
    since = klipper_ready(homed)
    homed.shim.resume()
    back(homed, since)
    ok(post(homed, "system/reset"))
    helpers.tell_position(homed)
    for x in (30, 35):
        go(homed, x=x)
        assert axis(homed, "x") == pytest.approx(x, abs=X_STEP)


def test_moonraker_that_stands_still(homed):
    """Alive but silent: reads turn stale, a command ends at its deadline and is not sent again."""
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    homed.moonraker.pause()
    try:
        wait_for("stale", lambda: ok(get(homed, "position"))["stale"])
        body = refused(post(homed, "motion/move", {"x": 60, "timeout_s": 1}, timeout=10), "TIMEOUT", "MOONRAKER_DISCONNECTED", "KLIPPY_DISCONNECTED")
    finally:
        homed.moonraker.resume()
    back(homed, time.monotonic())
    ok(post(homed, "motion/wait"))
    still(homed)
    moved = steps(homed)["total_steps"] - before
    assert moved in (0, round(10 / X_STEP)), moved
    if body["error_code"] == "TIMEOUT" and not body["details"]["may_still_run"]:
        assert moved == 0


def test_moonraker_restarts_klipper(homed):
    """RESTART by another client: new configuration, same process."""
    Later(homed.moonraker_call, "printer.restart")
    wait_for("it goes", lambda: homed.get("/ready")[0] == 503)
    back(homed, klipper_ready(homed))
    refused(post(homed, "motion/move", {"x": 30}), "HOMING_REQUIRED")


# ---- the microcontroller ---------------------------------------------------------------------------------------------------------------

@BOTH
@pytest.mark.smoke
def test_mcu_rebooted(homed):
    go(homed, x=60, y=60)
    last = last_values(homed)
    homed.sim_cmd("fault reboot")
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503, 20)
    check_away(homed, "KLIPPY_DISCONNECTED", last)
    body = refused(post(homed, "motion/move", {"x": 30}), "KLIPPY_DISCONNECTED")
    assert body["details"]["klipper"]["state"] == "shutdown" and body["details"]["klipper"]["message"]
    homed.moonraker_call("printer.firmware_restart")
    back(homed, klipper_ready(homed))
    refused(post(homed, "motion/move", {"x": 30}), "HOMING_REQUIRED")
    helpers.make_homed(homed)
    go(homed, x=33)
    assert axis(homed, "x") == pytest.approx(33, abs=X_STEP)


def test_mcu_rebooted_in_a_move(homed):
    """Never a success, and nothing of it comes again."""
    move, _ = long_move(homed)
    homed.sim_cmd("fault reboot")
    body = check_envelope(move.answer(30))
    assert body["status"] == "error" and body["error_code"] in ("KLIPPY_DISCONNECTED", "OUTCOME_UNKNOWN", "EXECUTION_FAILED"), body
    before = steps(homed)["total_steps"]
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    homed.moonraker_call("printer.firmware_restart")
    back(homed, klipper_ready(homed))
    time.sleep(0.5)
    assert steps(homed)["total_steps"] == before


def test_mcu_shut_down_in_a_move(homed):
    """A shutdown that nobody asked for: no latch, and a reset mends it."""
    move, _ = long_move(homed)
    homed.sim_cmd("fault shutdown Timer too close")
    body = check_envelope(move.answer())
    assert body["status"] == "error" and body["error_code"] in ("KLIPPY_DISCONNECTED", "OUTCOME_UNKNOWN", "EXECUTION_FAILED"), body
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    body = refused(post(homed, "motion/move", {"x": 30}), "KLIPPY_DISCONNECTED")
    assert body["details"]["klipper"]["state"] == "shutdown"
    assert "Timer too close" in body["details"]["klipper"]["message"]
    assert ok(get(homed, "status"))["safety"]["emergency_stop_active"] is False
    ok(post(homed, "system/reset"))
    assert homed.get("/ready")[0] == 200


# Klipper's whole message on it is short enough to be kept as it is.
DOOR = """
[gcode_macro DOOR]
gcode:
    {action_emergency_stop("door")}
"""


def test_klipper_shut_down_by_a_macro(make_rig):
    """With few words. A pick that waits for its sensor, behind whose script the macro runs, ends at once, and the lane is free after a restart by others."""
    machine = helpers.make_homed(make_rig(printer_extra=DOOR))
    go(machine, x=50, y=50)
    pick = Later(post, machine, "pnp/pick", {"nozzle": "N1", "timeout_s": 100})
    machine.sim_cmd("wait_pin n1.valve 1 20000", timeout=25)
    Later(machine.gcode, "DOOR")
    refused(pick.answer(10), "KLIPPY_DISCONNECTED", "OUTCOME_UNKNOWN", "EXECUTION_FAILED")
    body = refused(post(machine, "motion/move", {"x": 30}), "KLIPPY_DISCONNECTED")
    words = body["details"]["klipper"]["message"]
    assert words.startswith("Shutdown due to door") and words.endswith("Printer is shutdown\n")  # whole: longer ones are cut
    ok(post(machine, "system/reset"))
    helpers.make_homed(machine)
    go(machine, x=30)


def test_mcu_hangs_for_a_moment(homed):
    """Shorter than Klipper's patience: late, but nothing is lost and nothing comes twice."""
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    homed.sim_cmd("fault hang 1000")
    ok(post(homed, "motion/move", {"x": 70, "feedrate": 3000, "wait": True}, timeout=30))  # M400 counts on a clock that Klipper only estimates now
    wait_for("it arrives", lambda: axis(homed, "x") == pytest.approx(70, abs=X_STEP))
    still(homed)
    assert steps(homed)["total_steps"] - before == round(20 / X_STEP)


def test_frames_lost_on_the_wire(homed):
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    homed.sim_cmd("fault drop_frames 5")
    ok(post(homed, "motion/move", {"x": 60, "feedrate": 3000, "wait": True}, timeout=30))
    still(homed)
    assert steps(homed)["total_steps"] - before == round(10 / X_STEP)


def test_mcu_hangs_for_long(make_rig):
    """Longer than Klipper's patience (5 s): it shuts down, everybody is answered, and a restart mends it."""
    machine = helpers.make_homed(make_rig())
    go(machine, x=50, y=50)
    at_start = steps(machine)["total_steps"]
    hung = time.monotonic()
    machine.sim_cmd("fault hang 8000")
    move = Later(post, machine, "motion/move", {"x": 250, "feedrate": 1200, "wait": True})
    reads = [check_envelope(get(machine, "position", timeout=10)) for _ in range(10) if not time.sleep(0.1)]
    assert all(r["status"] == "success" for r in reads)
    body = check_envelope(move.answer(60))
    assert body["status"] == "error" and body["error_code"] in ("KLIPPY_DISCONNECTED", "OUTCOME_UNKNOWN", "EXECUTION_FAILED"), body
    wait_for("it is seen", lambda: machine.get("/ready")[0] == 503)
    wait_for("the microcontroller is back", lambda: machine.sim_cmd("status", timeout=20), 30)
    time.sleep(max(0, hung + 8.5 - time.monotonic()))
    still(machine)  # what it had been sent before it hung runs late, but once
    before = steps(machine)["total_steps"]
    assert before - at_start <= round(200 / X_STEP)
    for _ in range(5):  # one restart may meet the microcontroller still catching up, and Klipper says so
        wait_for("Klipper restarts", lambda: machine.moonraker_call("printer.firmware_restart"))
        try:
            since = klipper_ready(machine)
            break
        except rig.RigError:
            pass
    back(machine, since)
    assert steps(machine)["total_steps"] == before


# ---- commands that Klipper lacks ----------------------------------------------------------------------------------------------------------

# What Klipper prints for a word it does not know, from inside a word that we use: the script itself answers ok.
LACKS_M400 = """
[gcode_macro M400]
rename_existing: M400.1
gcode:
    {action_respond_info('Unknown command:"M400"')}
"""
# A homing that names a word which this machine does not have: M106 without [fan].
HOMING_WITH_FAN = """
[homing_override]
axes: xyz
gcode:
    M106 S255
    G28 X
"""


def test_unknown_command_is_an_error(make_rig):
    """Klipper answers ok to a script with a word it does not know; we do not."""
    machine = make_rig(printer_extra=LACKS_M400)
    helpers.tell_position(machine, x=50, y=50)
    body = refused(post(machine, "motion/wait"), "EXECUTION_FAILED")
    assert "M400" in body["error_message"]
    refused(post(machine, "motion/move", {"x": 60, "wait": True}), "EXECUTION_FAILED")
    assert ok(post(machine, "motion/move", {"x": 61}))["completed"] is False  # it needs no M400


def test_unknown_command_of_others_is_not_ours(make_rig):
    """A typo at somebody's console, and a word inside the machine's own homing, fail no script of ours."""
    machine = make_rig(printer_extra=HOMING_WITH_FAN)
    helpers.tell_position(machine)
    since = time.time()
    home = Later(post, machine, "motion/home", {"axes": ["x"]})
    while not home.done:
        machine.gcode("M106 S100\nG1234")
        time.sleep(0.2)
    ok(home.answer())
    said = [e["message"] for e in machine.moonraker_call("server.gcode_store")["gcode_store"] if e["type"] == "response" and e["time"] >= since]
    assert any('Unknown command:"M106"' in line for line in said) and any('Unknown command:"G1234"' in line for line in said)


def test_machine_without_the_sections_that_we_name():
    """No rotation axes, no feeders, no pins of nozzle 2: what needs them is refused before anything moves, the rest works."""
    machine = rig.Rig()
    config = machine.data / "config" / "printer.cfg"
    kept, keep = [], True
    for line in config.read_text().splitlines():
        if line.startswith("["):
            keep = not line.startswith(("[manual_stepper", "[output_pin pump2]", "[output_pin light]"))
        if keep:
            kept.append(line)
    config.write_text("\n".join(kept) + "\n")
    with machine:
        helpers.tell_position(machine, x=50, y=50)
        go(machine, x=60)
        with nothing_reaches_klipper(machine):
            refused(post(machine, "feeder/advance", {"feeder": "feeder1", "distance": 4}), "FEEDER_NOT_FOUND")
            refused(post(machine, "gpio/write", {"pin": "light", "value": 1}), "PIN_NOT_FOUND")
            refused(post(machine, "vacuum/on", {"nozzle": "N2"}), "NOZZLE_NOT_FOUND")
            refused(post(machine, "motion/move", {"a": 10}), "INVALID_PARAMETER")
            refused(post(machine, "pnp/pick_and_place", {"x": 60, "y": 60, "place_x": 90, "place_y": 90, "rotation": 90, "nozzle": "N2"}), "NOZZLE_NOT_FOUND")
        ok(post(machine, "gpio/write", {"pin": "valve1", "value": 1, "wait": True}))
        assert helpers.pin(machine, "PD2") == 1
