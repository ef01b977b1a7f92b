# SPDX-License-Identifier: GPL-3.0-or-later
"""The component klipperplace inside the real Moonraker: every endpoint by HTTP, WebSocket and unix socket, against what the simulated machine did.

Invariant: a value told is one that Klipper showed; what Klipper has not shown is an error, and what is old is called stale.
"""
import contextlib
import json
import time

import pytest

import rig
from helpers import Later, pin, wait_for
from moonraker_client import Client, Unix, WebSocket, http_call

MORE = """
[fan]
pin: PD6
[fan_generic blower]
pin: PD7
[output_pin lamp]
pin: PD8
pwm: True
cycle_time: 0.02
scale: 10
value: 0
[gcode_macro SET_FAN_SPEED]
rename_existing: _SET_FAN_SPEED
variable_mode: ''
gcode:
    {% if mode == 'unknown' %}
        { action_respond_info('Unknown command:"SET_FAN_SPEED"') }
    {% elif mode == 'refused' %}
        { action_raise_error('not today') }
    {% elif mode == '' %}
        _SET_FAN_SPEED {rawparams}
    {% endif %}
"""
HTTP = "http"
TRANSPORTS = (HTTP, WebSocket, Unix)


@pytest.fixture(scope="module")
def machine():
    """Klipper and Moonraker with the component, and no shim."""
    with rig.Rig(shim=False, component=True, printer_extra=MORE) as r:
        wait_for("the component has read Klipper", lambda: not stale(r), 30)
        yield r


def stale(machine):
    try:
        return machine.moonraker_call("api.gpio_monitor.input", {"pin": "start_button"})["stale"]
    except rig.RpcError:
        return True


class Refused(Exception):
    def __init__(self, status, text, data=None):
        super().__init__(text)
        self.status, self.code, self.data = status, text.split(":")[0], data


def ask(machine, transport, path, params=None, post=False):
    """The result of an endpoint by any transport; Refused with code and status."""
    if transport == HTTP:
        status, result = http_call(machine, "POST" if post else "GET", "/api/" + path, None if post else params, (params or {}) if post else None)
        if status != 200:
            raise Refused(status, result["message"])
        return result
    with Client(machine, transport) as c:
        try:
            return c.call("api." + path.replace("/", "."), params)
        except rig.RpcError as e:
            raise Refused(e.error["code"], e.error["message"], e.error.get("data")) from None


def refused(code, status, machine, transport, path, params=None, post=False):
    with pytest.raises(Refused) as e:
        ask(machine, transport, path, params, post)
    assert e.value.code == code, e.value
    assert e.value.status == (-32601 if status == 404 and transport != HTTP else status), e.value.status  # Moonraker's JSON-RPC says so for 404
    if transport != HTTP:
        assert e.value.data["error_code"] == code
    return e.value


# ---- reads

@pytest.mark.parametrize("transport", TRANSPORTS)
def test_reads(machine, transport):
    inputs = ask(machine, transport, "gpio_monitor/inputs")
    assert {p["pin"] for p in inputs["inputs"]} == {"start_button", "endstop_x", "endstop_y", "endstop_z"} and inputs["count"] == 4
    assert all(p["direction"] == "input" for p in inputs["inputs"])
    outputs = wait_for("fresh outputs", lambda: (o := ask(machine, transport, "gpio_monitor/outputs")) and not any(p["stale"] for p in o["outputs"]) and o, 20)
    assert {p["pin"] for p in outputs["outputs"]} == {"pump1", "pump2", "valve1", "valve2", "light", "lamp"}
    assert all(p["direction"] == "output" for p in outputs["outputs"])
    before = time.time()
    one = wait_for("a fresh input", lambda: not (i := ask(machine, transport, "gpio_monitor/input", {"pin": "start_button"}))["stale"] and i, 20)
    assert (one["pin"], one["state"]) == ("start_button", 0) and before - 2 < one["timestamp"] <= time.time()
    assert ask(machine, transport, "gpio_monitor/input", {"pin": "!PG0"})["state"] == 1
    sensors = ask(machine, transport, "sensor_query/all")
    assert {s["sensor"] for s in sensors["sensors"]} >= {"vacuum1", "vacuum2"}
    assert ask(machine, transport, "sensor_query/type", {"type": "vacuum"})["count"] == 2
    assert ask(machine, transport, "sensor_query/type", {"type": "none"})["sensors"] == []
    assert ask(machine, transport, "sensor_query/sensor", {"name": "vacuum1"})["unit"] == "kPa"
    assert {f["fan"] for f in ask(machine, transport, "fan_control/status")["fans"]} == {"fan", "blower"}
    assert ask(machine, transport, "fan_control/status", {"fan": "blower"})["settable"] is True
    assert {p["pin"] for p in ask(machine, transport, "pwm_control/status")["pins"]} == {"light", "lamp"}
    assert ask(machine, transport, "pwm_control/status", {"pin": "lamp"})["cycle_time"] == 0.02


def test_reads_follow_the_machine(machine):
    machine.sim_cmd("press start_button")
    wait_for("the press is told", lambda: ask(machine, HTTP, "gpio_monitor/input", {"pin": "start_button"})["state"] == 1, 20)
    machine.sim_cmd("release start_button")
    wait_for("the release is told", lambda: ask(machine, Unix, "gpio_monitor/input", {"pin": "start_button"})["state"] == 0, 20)
    machine.sim_cmd("adc n1.sensor 0.455556")
    wait_for("the level is told", lambda: -41 < ask(machine, HTTP, "sensor_query/sensor", {"name": "vacuum1"})["value"] < -39, 20)
    machine.sim_cmd("adc n1.sensor auto")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_wrong_input(machine, transport):
    for code, status, path, params, post in (
            ("MISSING_PARAMETER", 400, "gpio_monitor/input", {}, False), ("PIN_NOT_FOUND", 404, "gpio_monitor/input", {"pin": "nothing"}, False),
            ("PIN_NOT_FOUND", 404, "gpio_monitor/input", {"pin": "PG0\nM112"}, False), ("PIN_NOT_FOUND", 404, "gpio_monitor/input", {"pin": "<\u20ac>"}, False),
            ("PIN_NOT_FOUND", 404, "gpio_monitor/input", {"pin": "x" * 500}, False), ("INVALID_PARAMETER", 400, "gpio_monitor/input", {"pn": "x"}, False),
            ("INVALID_PARAMETER", 400, "gpio_monitor/inputs", {"pin": "x"}, False), ("SENSOR_NOT_FOUND", 404, "sensor_query/sensor", {"name": "nothing"}, False),
            ("MISSING_PARAMETER", 400, "sensor_query/type", {}, False), ("INVALID_PARAMETER", 400, "fan_control/status", {"fan": "nothing"}, False),
            ("INVALID_PARAMETER", 400, "pwm_control/status", {"pin": "valve1"}, False), ("MISSING_PARAMETER", 400, "fan_control/set", {}, True),
            ("FAN_SPEED_OUT_OF_BOUNDS", 400, "fan_control/set", {"speed": 1.01}, True), ("INVALID_PARAMETER", 400, "fan_control/set", {"speed": "NaN"}, True),
            ("INVALID_PARAMETER", 400, "fan_control/set", {"fan": "blower\nM112", "speed": 1}, True), ("PWM_OUT_OF_BOUNDS", 400, "pwm_control/set", {"pin": "lamp", "value": -1}, True),
            ("MISSING_PARAMETER", 400, "pwm_control/set", {"pin": "lamp"}, True), ("INVALID_PARAMETER", 400, "pwm_control/set", {"pin": "valve1", "value": 1}, True),
            ("PIN_NOT_FOUND", 404, "pwm_control/set", {"pin": "nothing", "value": 1}, True), ("INVALID_PARAMETER", 400, "pwm_control/set", {"pin": "lamp", "value": 1, "x": 1}, True),
            ("MISSING_PARAMETER", 400, "pwm_control/ramp", {"pin": "lamp"}, True),
            ("INVALID_PARAMETER", 400, "fan_control/set", {"speed": [10**400]}, True), ("INVALID_PARAMETER", 400, "fan_control/set", {"speed": ["\ud800"]}, True),
            ("INVALID_PARAMETER", 400, "fan_control/set", {"speed": 1, "\ud800": 1}, True), ("INVALID_PARAMETER", 400, "fan_control/set", {"fan": "\ud800", "speed": 1}, True),
            ("PIN_NOT_FOUND", 404, "pwm_control/set", {"pin": "\ud800", "value": 1}, True)):
        refused(code, status, machine, transport, path, params, post)
    if transport != HTTP:
        for code, path, name in (("PIN_NOT_FOUND", "gpio_monitor/input", "pin"), ("SENSOR_NOT_FOUND", "sensor_query/sensor", "name"), ("PIN_NOT_FOUND", "pwm_control/status", "pin"),
                                 ("INVALID_PARAMETER", "fan_control/status", "fan"), ("INVALID_PARAMETER", "gpio_monitor/inputs", "\ud800")):
            refused(code, 404 if "NOT_FOUND" in code else 400, machine, transport, path, {name: "\ud800"})  # an URL has no way to say it
        for bad in (5, None, True, ["x"], {"a": 1}):
            refused("INVALID_PARAMETER" if bad is not None else "MISSING_PARAMETER", 400, machine, transport, "gpio_monitor/input", {"pin": bad})
    else:
        for body in ("{", "[1]", "nothing", ""):  # Moonraker passes over a body that it cannot read
            status, _ = http_call(machine, "POST", "/api/fan_control/set", body=body)
            assert status in (400, 500), body
        assert http_call(machine, "POST", "/api/gpio_monitor/inputs")[0] == 405
    assert machine.klippy_state()[0] == "ready"


# ---- writes

def shown(machine, name, value):
    """The pin at the simulated microcontroller, exactly enough for 256 steps."""
    return abs(pin(machine, name) - value) < 0.01


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_writes(machine, transport):
    """Done means that Klipper shows it; the simulator saw it."""
    done = ask(machine, transport, "fan_control/set", {"fan": "blower", "speed": 0.5}, True)
    assert (done["fan"], done["speed"], done["completed"]) == ("blower", 0.5, True) and any("SET_FAN_SPEED" in line for line in done["gcode"])
    assert ask(machine, transport, "fan_control/status", {"fan": "blower"})["speed"] == 0.5
    wait_for("the fan turns", lambda: shown(machine, "PD7", 0.5), 20)
    ask(machine, transport, "fan_control/set", {"speed": 1}, True)
    wait_for("the part fan turns", lambda: shown(machine, "PD6", 1), 20)
    done = ask(machine, transport, "pwm_control/set", {"pin": "lamp", "value": 0.25}, True)
    assert (done["pin"], done["value"], done["cycle_time"]) == ("lamp", 0.25, 0.02)
    assert ask(machine, transport, "pwm_control/status", {"pin": "lamp"})["value"] == 0.25 and shown(machine, "PD8", 0.25)
    for fan, name in (("blower", "PD7"), ("fan", "PD6")):
        assert ask(machine, transport, "fan_control/off", {"fan": fan}, True)["speed"] == 0
        wait_for("the fan stops", lambda n=name: pin(machine, n) == 0, 20)
    ask(machine, transport, "pwm_control/set", {"pin": "lamp", "value": 0}, True)
    assert pin(machine, "PD8") == 0


def test_ramp(machine):
    began = time.monotonic()
    assert ask(machine, Unix, "pwm_control/ramp", {"pin": "lamp", "start_value": 0.1, "end_value": 0.9, "duration": 0.8, "steps": 4}, True)["completed"] is False
    wait_for("its end", lambda: shown(machine, "PD8", 0.9), 30)
    seen = [e["value"] for e in machine.events("pin") if e.get("pin") == "PD8" and e["t"] >= began]
    assert len(seen) == 5 and all(abs(v - want) < 0.01 for v, want in zip(seen, (0.1, 0.3, 0.5, 0.7, 0.9))), seen
    for transport in (WebSocket, HTTP):  # each replaces the one before
        ask(machine, transport, "pwm_control/ramp", {"pin": "lamp", "start_value": 0, "end_value": 1, "duration": 60, "steps": 60}, True)
    ask(machine, HTTP, "pwm_control/set", {"pin": "lamp", "value": 0}, True)
    time.sleep(1.2)
    assert pin(machine, "PD8") == 0
    refused("INVALID_PARAMETER", 400, machine, HTTP, "pwm_control/ramp", {"pin": "lamp", "start_value": 0, "end_value": 1, "duration": 0.5, "steps": 6}, True)


def test_writes_that_klipper_does_not_do(machine):
    """A command that Klipper does not know, one that it refuses and one that changes nothing are errors, whatever it answers."""
    args = {"fan": "blower", "speed": 0.3}
    for mode, code in (("unknown", "EXECUTION_FAILED"), ("refused", "EXECUTION_FAILED"), ("nothing", "EXECUTION_FAILED")):
        machine.gcode(f"SET_GCODE_VARIABLE MACRO=SET_FAN_SPEED VARIABLE=mode VALUE=\"'{mode}'\"")
        e = refused(code, 500, machine, Unix, "fan_control/set", args, True)
        assert {"unknown": "no command SET_FAN_SPEED", "refused": "not today", "nothing": "shows"}[mode] in str(e)
    machine.gcode("SET_GCODE_VARIABLE MACRO=SET_FAN_SPEED VARIABLE=mode VALUE=\"''\"")
    assert pin(machine, "PD7") == 0
    # somebody else's typo at the same time is not ours
    typo = Later(machine.gcode, "G4 P300\nNOSUCHWORD")
    assert ask(machine, Unix, "fan_control/set", args, True)["speed"] == 0.3
    typo.answer()
    ask(machine, Unix, "fan_control/off", {"fan": "blower"}, True)


# ---- subscriptions

@pytest.mark.parametrize("transport", (WebSocket, Unix))
def test_subscriptions(machine, transport):
    """The whole state first, then what changed, and nothing to those who did not ask."""
    wait_for("released", lambda: ask(machine, HTTP, "gpio_monitor/input", {"pin": "start_button"})["state"] == 0, 20)
    with Client(machine, transport) as c, Client(machine, transport) as other, Client(machine, WebSocket) as third:
        assert c.call("api.websocket_notifier.subscriptions")["events"] == []
        assert c.call("api.websocket_notifier.subscribe", {"events": ["gpio", "sensors"]}) == {"events": ["gpio", "sensors"]}
        assert third.call("api.websocket_notifier.subscribe", {"events": "status"}) == {"events": ["status"]}
        full = c.wait_for("notify_klipperplace_gpio")
        assert full["valve1"]["direction"] == "output" and full["timestamp"]
        assert set(c.wait_for("notify_klipperplace_sensors")) >= {"vacuum1", "vacuum2"}
        machine.sim_cmd("press start_button")
        changed = c.wait_for("notify_klipperplace_gpio")
        assert set(changed) == {"start_button", "timestamp"} and changed["start_button"]["state"] == 1
        machine.sim_cmd("release start_button")
        c.wait_for("notify_klipperplace_gpio", lambda p: p.get("start_button", {}).get("state") == 0)
        other.listen(0.3)
        third.listen(0.3)
        assert not [m for m, _ in other.heard if m.startswith("notify_klipperplace")]
        assert {m for m, _ in third.heard if m.startswith("notify_klipperplace")} == {"notify_klipperplace_status"}
        assert c.call("api.websocket_notifier.unsubscribe", {"events": ["gpio"]}) == {"events": ["sensors"]}
        c.heard.clear()
        machine.sim_cmd("press start_button")
        c.listen(0.7)
        machine.sim_cmd("release start_button")
        assert "notify_klipperplace_gpio" not in [m for m, _ in c.heard]
        assert c.call("api.websocket_notifier.unsubscribe") == {"events": []}
        for events in ("nothing", ["gpio", "nothing"], 5, [5], [[1]], [{}], ["\ud800"], "\ud800", {"gpio": 1}, None):
            with pytest.raises(rig.RpcError) as e:
                c.call("api.websocket_notifier.subscribe", {"events": events})
            assert e.value.error["data"]["error_code"] == "INVALID_PARAMETER"
        assert c.call("api.websocket_notifier.subscribe")["events"] == ["fans", "gpio", "position", "pwm", "sensors", "status"]
    with Client(machine) as c:
        wait_for("closed connections are forgotten", lambda: c.call("api.websocket_notifier.subscriptions")["clients"] == 0, 20)
    assert http_call(machine, "POST", "/api/websocket_notifier/subscribe", body={})[0] == 404


def test_changes_before_the_tick(make_rig):
    """With the Klipper extra a button is told when it is pressed: some time before Moonraker's own update of it, which comes with Klipper's tick."""
    machine = make_rig(shim=False, component=True, extras=True)
    button, ahead, presses = "gcode_button start_button", 0, 0
    with Client(machine) as c:
        wait_for("the component has read Klipper", lambda: not stale(machine), 30)
        c.call("api.websocket_notifier.subscribe", {"events": ["gpio"]})
        c.call("printer.objects.subscribe", {"objects": {button: ["state"]}})
        c.wait_for("notify_klipperplace_gpio")
        while ahead < 3 and presses < 30:
            presses += 1
            machine.sim_cmd("press start_button" if presses % 2 else "release start_button")
            c.wait_for("notify_klipperplace_gpio", lambda p: p.get("start_button", {}).get("state") == presses % 2)
            told = time.monotonic()
            c.wait_for("notify_status_update", lambda p: button in p)
            ahead += time.monotonic() - told > 0.05  # both come in one piece where a tick tells both
        assert machine.moonraker_call("printer.klipperplace.read", {"objects": {"klipperplace": None}})["status"]["klipperplace"]["unheard"] == 0
    assert ahead == 3, f"{ahead} of {presses}"


# ---- Klipper and Moonraker go and come

def test_klipper_dies_and_returns(machine):
    wait_for("released", lambda: ask(machine, HTTP, "gpio_monitor/input", {"pin": "start_button"})["state"] == 0, 20)
    with Client(machine) as c:
        c.call("api.websocket_notifier.subscribe", {"events": ["gpio", "status"]})
        c.wait_for("notify_klipperplace_gpio")
        machine.klipper.kill()
        gone = c.wait_for("notify_klipperplace_gpio")
        assert all(p["stale"] for name, p in gone.items() if name != "timestamp") and "valve1" in gone
        c.wait_for("notify_klipperplace_status", lambda p: p.get("klipper", {}).get("state") == "disconnected")
        one = ask(machine, HTTP, "gpio_monitor/input", {"pin": "start_button"})
        assert one["stale"] is True and one["state"] == 0
        assert all(s["stale"] for s in ask(machine, HTTP, "sensor_query/all")["sensors"])
        refused("KLIPPY_DISCONNECTED", 503, machine, HTTP, "fan_control/set", {"fan": "blower", "speed": 0.5}, True)
        machine.klipper.start()
        machine.wait_klipper_ready()
        back = c.wait_for("notify_klipperplace_gpio", lambda p: p.get("start_button", {}).get("stale") is False)
        assert back["start_button"]["state"] == 0
        machine.sim_cmd("press start_button")
        c.wait_for("notify_klipperplace_gpio", lambda p: p.get("start_button", {}).get("state") == 1)
        machine.sim_cmd("release start_button")
        c.wait_for("notify_klipperplace_status", lambda p: p.get("klipper", {}).get("state") == "ready")


def test_klipper_shuts_down(machine):
    machine.moonraker_call("printer.emergency_stop")
    wait_for("stale", lambda: stale(machine), 20)
    e = refused("EMERGENCY_STOP_ACTIVE", 503, machine, Unix, "fan_control/set", {"fan": "blower", "speed": 0.5}, True)
    assert "webhooks" in str(e) and e.data["errors"]
    Later(machine.moonraker_call, "printer.firmware_restart")
    wait_for("fresh again", lambda: not stale(machine), 60)


@pytest.mark.parametrize("late", (False, True))
def test_ramp_ends_with_its_klipper(machine, late):
    """A stop and a restart between two steps: the next one does not switch anything on a machine that nobody has commanded since. Late: Moonraker stands
    still meanwhile and hears of both at once."""
    wait_for("fresh", lambda: up(machine) and not stale(machine), 60)
    for step_s in (8, 40):  # the longer one for a machine that is too busy to restart Klipper in the shorter
        args = {"pin": "lamp", "start_value": 0.2, "end_value": 1, "duration": 2 * step_s, "steps": 2}
        ask(machine, Unix, "pwm_control/ramp", args, True)
        due = time.monotonic() + step_s
        if late:
            machine.moonraker.pause()
        try:
            rig.rpc(machine.klippy_socket, "emergency_stop", {})
            wait_for("the stop", lambda: klippy(machine) == "shutdown", 20)
            restarted = time.monotonic()
            with contextlib.suppress(ConnectionError):  # it may be gone before it has answered
                rig.rpc(machine.klippy_socket, "gcode/firmware_restart", {})
            wait_for("Klipper again", lambda: klippy(machine) == "ready", 60)
        finally:
            if late:
                machine.moonraker.resume()
        wait_for("fresh again", lambda: up(machine) and not stale(machine), 60)
        if time.monotonic() < due:
            break
    assert time.monotonic() < due
    time.sleep(due + 1 - time.monotonic())
    assert [e for e in machine.events("pin") if e.get("pin") == "PD8" and e["t"] > restarted and e["value"] > 0] == [] and pin(machine, "PD8") == 0


def klippy(machine):
    """Klipper's state by itself; None: it is not there."""
    try:
        return rig.rpc(machine.klippy_socket, "info", {}, 5)["state"]
    except (OSError, rig.RpcError):
        return None


def test_moonraker_restarts(machine):
    """In its own process, as its UI does it, and as a new one."""
    def loaded():
        return (machine.data / "logs" / "moonraker.log").read_text().count("Component (klipperplace) loaded")
    before = loaded()
    machine.moonraker_call("server.restart")
    wait_for("the new one", lambda: loaded() > before, 60)  # until then the old one answers as ever
    wait_for("fresh again", lambda: up(machine) and not stale(machine), 60)
    assert ask(machine, WebSocket, "gpio_monitor/inputs")["count"] == 4
    machine.moonraker.kill()
    machine.moonraker.start()
    wait_for("fresh again", lambda: up(machine) and not stale(machine), 60)
    with Client(machine) as c:
        assert c.call("api.websocket_notifier.subscriptions")["events"] == []


def up(machine):
    try:
        return machine.moonraker_call("server.info")["klippy_state"] == "ready"
    except (OSError, rig.RpcError):
        return False


def test_moonraker_says_nothing_of_it(machine):
    """No option unread, no component failed: what a user would see as a warning."""
    info = machine.moonraker_call("server.info")
    assert "klipperplace" in info["components"] and info["failed_components"] == []
    assert not [w for w in info["warnings"] if "klipperplace" in w.lower() and "Supplied path" not in w], info["warnings"]
    log = (machine.data / "logs" / "moonraker.log").read_text()
    ours = [t for t in log.split("Traceback")[1:] if "klipperplace" in t[:4000].split("\n20")[0]]
    assert not ours, ours[0][:3000]
    assert "Error Running Callback" not in log, log[log.index("Error Running Callback"):][:3000]
