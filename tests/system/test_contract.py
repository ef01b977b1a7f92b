# SPDX-License-Identifier: GPL-3.0-or-later
"""Every row of the registry and every error code: what each does at the simulated machine, and every answer judged by the OpenAPI document.

Invariant: a row without a test here, and a code that no test brought about, is a failure.
"""
import contextlib
import math
import socket
import time
import uuid

import pytest

import helpers
import rig
from contract import Contract
from helpers import FAST, X_STEP, Later, axis, http_text, pin, read_answers, show, steps, still, wait_for

PRINTER = """
[fan]
pin: PI0
[fan_generic blower]
pin: PI1
[output_pin lamp]
pin: PI2
pwm: true
cycle_time: 0.01
[pwm_cycle_time dimmer]
pin: PI3
cycle_time: 0.01
[output_pin bad]
pin: PI4
[gcode_macro SET_PIN]
rename_existing: _SET_PIN
gcode:
    {% if params.PIN == "bad" %}
        {action_raise_error("this pin is bad")}
    {% endif %}
    _SET_PIN {rawparams}
"""
# Codes that no request to this machine can bring about: nobody is asked for a key or counted here (test_auth.py and test_limit.py show these), no command
# sets a temperature, and INTERNAL_ERROR is a fault of ours.
NOT_HERE = {"AUTHENTICATION_FAILED", "AUTHORIZATION_REQUIRED", "INVALID_API_KEY", "IP_BLOCKED", "RATE_LIMIT_EXCEEDED", "TEMPERATURE_OUT_OF_BOUNDS",
            "INTERNAL_ERROR", "DATABASE_UNAVAILABLE"}  # test_history.py shows it
SHOWN = {}  # operation -> its test


class Client:
    """Asks by the names of the commands and has every answer judged."""

    def __init__(self, machine):
        self.rig = machine
        self.contract = Contract(machine.get("/api/v1/openapi.json")[1])
        self.routes = {op["operationId"]: (method, path) for method, path, op in self.contract.operations()}

    def ask(self, command, body=None, **options):
        method, path = self.routes[command]
        query = ""
        for name in [n for n in (body or {}) if "{" + n + "}" in path]:
            path = path.replace("{" + name + "}", body.pop(name))
        if method in ("GET", "DELETE") and body:
            query, body = "?" + "&".join(f"{k}={v}" for k, v in body.items()), None
        return self.contract.judge(method, path, self.rig.request(method, path + query, body if method in ("POST", "PUT") else None, **options))

    def do(self, command, body=None, **options):
        """The data of a success."""
        status, answer, _ = self.ask(command, body, **options)
        assert status == 200 and answer["status"] == "success", answer
        return answer["data"]

    def fails(self, command, code, body=None, **options):
        answer = self.ask(command, body, **options)[1]
        assert answer["error_code"] == code, answer
        return answer


@pytest.fixture(scope="module")
def client():
    with rig.Rig(printer_extra=PRINTER) as r:
        yield Client(r)


@pytest.fixture
def homed(client):
    helpers.make_homed(client.rig)
    client.rig.sim_cmd("remove_parts 0 0 400 400")
    return client


def shows(*operations):
    """Marks the test that shows what these operations do."""
    def mark(test):
        SHOWN.update({name: test.__name__ for name in operations})
        return test
    return mark


def reaches(client, name, value, within=0.005):
    wait_for(f"{name} at {value}", lambda: abs(pin(client.rig, name) - value) <= within)


# ---- what each row does -----------------------------------------------------------------------------------------------------------

@shows("home")
def test_home(client):
    helpers.make_ready(client.rig)
    assert client.do("home", {"axes": ["a"]})["homed_axes"] == ["a"]  # the whole homing is shown by test_motion.py
    assert client.do("get_position")["homed_axes"].count("a") == 1


@shows("move", "wait", "get_position")
def test_moves(homed):
    data = homed.do("move", {"x": 60, "y": 40, "feedrate": FAST})
    assert data["completed"] is False and data["gcode"] and data["position"]["x"] == 60
    assert homed.do("wait")["completed"] is True
    assert (axis(homed.rig, "x"), axis(homed.rig, "y")) == pytest.approx((60, 40), abs=X_STEP)
    at = wait_for("told", lambda: (p := homed.do("get_position"))["position"]["x"] == 60 and p)
    assert at["commanded"]["y"] == 40 and at["limits"]["x"] == {"min": 0, "max": 300} and at["stale"] is False
    assert homed.do("get_position", {"live": "true"})["position"]["x"] == pytest.approx(60)
    homed.do("move", {"x": 5, "relative": True, "a": 10, "wait": True})
    assert axis(homed.rig, "x") == pytest.approx(65, abs=X_STEP)


@shows("pick", "place", "pick_and_place", "vacuum_on", "vacuum_set", "vacuum_off")
def test_parts_and_vacuum(homed):
    homed.rig.sim_cmd("add_part p1 x=60 y=60 z=1.0 thick=0.5")
    homed.do("move", {"x": 60, "y": 60, "feedrate": FAST})
    data = homed.do("pick", {"feedrate": 24000})
    assert data["vacuum_enabled"] is True and data["vacuum_level"] < -55
    assert still(homed.rig)["nozzles"]["n1"]["held"] == "p1"
    homed.do("move", {"x": 130, "y": 130, "feedrate": FAST})
    assert homed.do("place", {"feedrate": 24000})["vacuum_enabled"] is False
    assert homed.rig.sim_cmd("part p1")["state"] == "lying"
    homed.rig.sim_cmd("add_part p2 x=60 y=60 z=1.0 thick=0.5")
    data = homed.do("pick_and_place", {"x": 60, "y": 60, "place_x": 150, "place_y": 130, "feedrate": 24000})
    assert data["attempts"] == 1 and homed.rig.sim_cmd("part p2")["x"] == pytest.approx(150, abs=0.02)
    for command, body, level in (("vacuum_on", {}, 1), ("vacuum_set", {"power": 0}, 0), ("vacuum_set", {"power": 255}, 1), ("vacuum_off", {}, 0)):
        assert homed.do(command, {**body, "wait": True})["power"] == 255 * level
        reaches(homed, "PD0", level)


@shows("actuate", "actuator_on", "actuator_off", "gpio_write", "gpio_read", "gpio_read_all")
def test_pins(homed):
    for command, body, level in (("actuator_on", {}, 1), ("actuator_off", {}, 0), ("actuate", {}, 1), ("actuate", {"value": 0}, 0),
                                 ("gpio_write", {"value": 1}, 1), ("gpio_write", {"value": 0}, 0)):
        data = homed.do(command, {"pin": "valve2", **body, "wait": True})
        assert data["pin"] == "valve2" and data["value"] == level and data["completed"] is True
        reaches(homed, "PD3", level)
        assert homed.do("gpio_read", {"pin": "valve2"})["state"] == level
    pins = homed.do("gpio_read_all")
    assert pins["count"] == len(pins["pins"]) and {"valve1", "lamp", "start_button"} <= {p["pin"] for p in pins["pins"]}


@shows("fan_on", "fan_set", "fan_off")
@pytest.mark.parametrize("fan, name", [({}, "PI0"), ({"fan": "blower"}, "PI1")])
def test_fans(homed, fan, name):
    for command, body, speed in (("fan_on", {}, 1), ("fan_set", {"speed": 0.4}, 0.4), ("fan_on", {"speed": 0.8}, 0.8), ("fan_off", {}, 0)):
        data = homed.do(command, {**fan, **body, "wait": True})
        assert data["speed"] == pytest.approx(speed) and data["fan"] == (fan.get("fan") or "fan")
        reaches(homed, name, speed, 0.01)
        wait_for("the status", lambda want=speed, data=data: homed.do("get_status")["fan_states"][data["fan"]] == pytest.approx(want))


@shows("pwm_set")
def test_pwm(homed):
    for body, name in (({"pin": "lamp", "value": 0.25}, "PI2"), ({"pin": "dimmer", "value": 0.5, "cycle_time": 0.02}, "PI3")):
        data = homed.do("pwm_set", {**body, "wait": True})
        assert data["value"] == body["value"] and data["cycle_time"] == pytest.approx(body.get("cycle_time", 0.01))
        reaches(homed, name, body["value"], 0.01)
        homed.do("pwm_set", {"pin": body["pin"], "value": 0, "wait": True})


@shows("pwm_ramp")
def test_ramp(homed):
    since = time.monotonic()
    data = homed.do("pwm_ramp", {"pin": "lamp", "start_value": 0, "end_value": 1, "duration": 2, "steps": 5})
    assert data["steps"] == 5
    reaches(homed, "PI2", 1, 0.01)
    seen = [e["value"] for e in homed.rig.events("pin") if e["pin"] == "PI2" and e["t"] > since]
    assert len(seen) >= 3 and seen == sorted(seen)
    homed.do("pwm_set", {"pin": "lamp", "value": 0, "wait": True})


@shows("sensor_read", "sensor_read_all", "sensor_read_by_type")
def test_sensors(homed):
    homed.rig.sim_cmd("fault sensor_stuck n1 0.722222")
    try:
        near = pytest.approx(-70, abs=2)
        wait_for("the level", lambda: homed.do("sensor_read", {"sensor": "vacuum1"})["value"] == near)
        assert homed.do("sensor_read", {"sensor": "vacuum1", "live": "true"})["value"] == near
        for command, body in (("sensor_read_all", None), ("sensor_read_by_type", {"type": "vacuum"})):
            data = homed.do(command, body)
            assert {s["sensor"]: s["value"] for s in data["sensors"]}["vacuum1"] == near and data["count"] == len(data["sensors"])
        assert homed.do("sensor_read_by_type", {"type": "load"}) == {"sensors": [], "count": 0}
    finally:
        homed.rig.sim_cmd("fault sensor_free n1")


@shows("feeder_advance", "feeder_retract")
def test_feeders(homed):
    before = steps(homed.rig, "feeder6")["total_position"]
    assert homed.do("feeder_advance", {"feeder": "feeder6", "distance": 2})["distance"] == 2
    assert steps(homed.rig, "feeder6")["total_position"] - before == 200
    homed.do("feeder_retract", {"feeder": "feeder6", "distance": 1.5})
    assert steps(homed.rig, "feeder6")["total_position"] - before == 50


@shows("get_status", "get_printer_state", "get_version", "health", "ready", "metrics", "openapi")
def test_looks(homed):
    status = homed.do("get_status")
    assert status["printer_status"]["state"] == "ready" and set(status["homed_axes"]) >= {"x", "y", "z"}
    assert set(status["actuators"]) >= {"valve1", "pump1"} and set(status["pwm_outputs"]) == {"light", "lamp", "dimmer"}
    assert status["safety"]["emergency_stop_active"] is False and status["queue"]["executing"] is False
    assert homed.do("get_printer_state")["state"] == "ready"
    assert homed.do("get_version")["api_version"] == "v1"
    for plain in ("health", "ready", "openapi"):
        assert homed.ask(plain)[0] == 200
    assert "klipperplace_requests_total{" in homed.ask("metrics")[1]


@shows("emergency_stop", "reset", "safety_status", "safety_events")
def test_stop_and_reset(homed):
    rig_ = homed.rig
    since = (homed.do("safety_events")["events"] or [{"id": 0}])[0]["id"]
    Later(rig_.post, "/api/v1/motion/move", {"x": 200, "feedrate": 600, "wait": True})
    wait_for("it moves", lambda: steps(rig_)["moving"])
    queued = Later(homed.ask, "move", {"y": 50, "feedrate": FAST})
    wait_for("the other waits", lambda: homed.do("get_status")["queue"]["size"] == 2)
    data = homed.do("emergency_stop", {"reason": "shown"})
    assert data["emergency_stop_active"] is True and data["confirmed_by"] in ("moonraker", "klipper")
    assert queued.answer()[1]["error_code"] == "CANCELLED"
    wait_for("the microcontroller", lambda: rig_.sim_cmd("status")["mcu"]["shutdown"])
    assert axis(rig_, "x") < 199  # how soon is shown by test_emergency.py
    homed.fails("move", "EMERGENCY_STOP_ACTIVE", {"x": 10})
    safety = homed.do("safety_status")
    assert safety["level"] == "emergency" and safety["reason"] == "shown" and safety["limits"]["x"]["max"] == 300 and "stopped" in safety["states"]
    events = homed.do("safety_events", {"since": since, "level": "emergency"})["events"]
    assert events and events[-1]["cause"] == "EMERGENCY_STOP" and "shown" in events[-1]["message"] and abs(events[-1]["timestamp"] - time.time()) < 30
    assert homed.do("reset", timeout=40)["reset_complete"] is True
    rig_.wait_ready(20)
    later = homed.do("safety_events", {"since": events[-1]["id"]})["events"]
    assert any(e["cause"] == "RELEASE" for e in later) and all(e["id"] > events[-1]["id"] for e in later)
    assert [e["id"] for e in homed.do("safety_events", {"limit": 1})["events"]] == [max(e["id"] for e in later)]


# ---- the queue, batches and keys ------------------------------------------------------------------------------------------------------

@shows("pause", "resume", "queue_add", "queue_batch", "queue_status", "queue_cancel", "queue_clear", "queue_history")
def test_queue(homed):
    homed.do("move", {"x": 50, "wait": True, "feedrate": FAST})
    assert homed.do("pause")["paused"] is True
    added = homed.do("queue_add", {"command": "move", "parameters": {"x": 55, "feedrate": FAST}})
    assert uuid.UUID(added["queue_id"]) and added["queue_size"] == 1
    batch = homed.do("queue_batch", {"commands": [{"command": "move", "parameters": {"y": 20 + i, "feedrate": FAST}} for i in range(3)]})
    assert len(batch["queue_ids"]) == 3
    status = homed.do("queue_status")
    assert status["paused"] is True and [e["queue_id"] for e in status["queued_commands"]] == [added["queue_id"], *batch["queue_ids"]]
    assert homed.do("queue_cancel", {"queue_id": batch["queue_ids"][0]})["cancelled_id"] == batch["queue_ids"][0]
    assert homed.do("resume")["resumed"] is True
    wait_for("the queue is empty", lambda: homed.do("queue_status")["queue_size"] == 0)
    homed.do("wait")
    assert (axis(homed.rig, "x"), axis(homed.rig, "y")) == pytest.approx((55, 22), abs=X_STEP)
    ended = {e["queue_id"]: e["state"] for e in homed.do("queue_history")["entries"]}
    assert ended[added["queue_id"]] == "done" and ended[batch["queue_ids"][0]] == "cancelled"
    homed.do("pause")
    homed.do("queue_add", {"command": "move", "parameters": {"x": 100, "feedrate": FAST}})
    assert homed.do("queue_clear")["cleared_count"] == 1
    homed.do("resume")
    homed.fails("queue_add", "COMMAND_NOT_FOUND", {"command": "no_such"})


@shows("batch_execute")
def test_batch(homed):
    commands = [{"command": "gpio_write", "parameters": {"pin": "valve2", "value": v, "wait": True}} for v in (1, 0)]
    data = homed.do("batch_execute", {"commands": commands})
    assert data["success_count"] == 2 and data["error_count"] == 0
    levels = [e["value"] for e in homed.rig.events("pin") if e["pin"] == "PD3"]
    assert levels[-2:] == [1, 0]


@shows("key_create", "key_list", "key_get", "key_update", "key_delete", "key_rotate", "auth_status", "ws_token")
def test_keys(client):
    made = client.do("key_create", {"name": "bench", "role": "operator"})
    assert made["key"]
    known = client.do("key_get", {"id": made["id"]})
    assert known["role"] == "operator" and "key" not in known
    assert made["id"] in [k["id"] for k in client.do("key_list")["keys"]] and client.do("auth_status")["keys"] >= 1
    assert client.do("key_update", {"id": made["id"], "role": "viewer"})["role"] == "viewer"
    assert client.do("key_rotate", {"id": made["id"]})["key"] != made["key"]
    assert client.do("key_delete", {"id": made["id"]})["deleted_id"] == made["id"]
    assert client.do("ws_token")["token"]


# ---- each error code --------------------------------------------------------------------------------------------------------------

REFUSED = [
    ("move", {"x": "no"}, "INVALID_PARAMETER"), ("gpio_write", {"value": 1}, "MISSING_PARAMETER"), ("move", {"x": 1000}, "POSITION_OUT_OF_BOUNDS"),
    ("move", {"x": 10, "feedrate": 1e6}, "FEEDRATE_OUT_OF_BOUNDS"), ("vacuum_on", {"power": 256}, "PWM_OUT_OF_BOUNDS"),
    ("fan_set", {"speed": 1.5}, "FAN_SPEED_OUT_OF_BOUNDS"), ("gpio_read", {"pin": "none"}, "PIN_NOT_FOUND"),
    ("sensor_read", {"sensor": "none"}, "SENSOR_NOT_FOUND"), ("feeder_advance", {"feeder": "none", "distance": 1}, "FEEDER_NOT_FOUND"), ("pick", {"nozzle": "none"}, "NOZZLE_NOT_FOUND"),
    ("move", {"z": -25, "x": 90}, "INTERLOCK"), ("gpio_write", {"pin": "bad", "value": 1}, "EXECUTION_FAILED"), ("pick", {"feedrate": 24000}, "VACUUM_FAILED"),
]


@pytest.mark.parametrize("command, body, code", REFUSED, ids=[row[2] for row in REFUSED])
def test_refusals(homed, command, body, code):
    answer = homed.fails(command, code, dict(body))
    assert answer["details"]["errors"][0]["code"] == code
    if code in ("EXECUTION_FAILED", "VACUUM_FAILED"):
        helpers.make_homed(homed.rig)


@pytest.mark.parametrize("number", [1.7976931348623157e308, -1.7976931348623157e308, 5e-324, 0.1 + 0.2])
def test_numbers_that_are_told_can_be_read(client, number):
    """The largest double must not come back as one that is larger still."""
    body = {"pin": "lamp", "start_value": number, "end_value": -number, "duration": number, "timeout_s": number}
    for fault in client.ask("pwm_ramp", body)[1]["details"]["errors"]:
        assert all(math.isfinite(fault[k]) for k in ("got", "min", "max") if k in fault)


def test_refusals_of_http(client):
    ask = client.rig.request
    for code, answer in {
            "INVALID_REQUEST": ask("POST", "/api/v1/motion/move", "[1]", {"Content-Type": "application/json"}),
            "UNSUPPORTED_MEDIA_TYPE": ask("POST", "/api/v1/motion/move", "{}", {"Content-Type": "text/plain"}),
            "PAYLOAD_TOO_LARGE": ask("POST", "/api/v1/motion/move", "x" * (1 << 20 | 1), {"Content-Type": "application/json"}),
            "PERMISSION_DENIED": ask("POST", "/api/v1/motion/move", "{}", {"Content-Type": "application/json", "Origin": "http://evil.example"})}.items():
        assert client.contract.judge("POST", "/api/v1/motion/move", answer)[1]["error_code"] == code
    helpers.refused(helpers.get(client.rig, "motion/move"), "METHOD_NOT_ALLOWED")  # these two are no operation's
    helpers.refused(helpers.get(client.rig, "nothing"), "NOT_FOUND")
    client.contract.seen |= {("", "METHOD_NOT_ALLOWED"), ("", "NOT_FOUND")}


def test_unhomed(client):
    helpers.make_ready(client.rig)
    helpers.unhome(client.rig)
    client.fails("move", "HOMING_REQUIRED", {"x": 10})


def test_timeout_and_full_lane(homed):
    """A move of eight seconds: its client waits one; behind it 256 commands have room, and not one more."""
    homed.do("move", {"x": 10, "wait": True, "feedrate": FAST})
    slow = Later(homed.ask, "move", {"x": 90, "feedrate": 600, "wait": True, "timeout_s": 1})
    wait_for("it moves", lambda: steps(homed.rig)["moving"])
    request = http_text("POST", "/api/v1/motion/wait", show({}))
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", homed.rig.port), timeout=60)) for _ in range(270)]
        for s in waiting:
            s.sendall(request)
        wait_for("the lane is full", lambda: "klipperplace_lane_commands 256\n" in homed.rig.get("/metrics")[1])
        assert homed.fails("wait", "QUEUE_FULL")["status"] == "error"
        answer = slow.answer()[1]
        assert answer["error_code"] == "TIMEOUT" and answer["details"]["may_still_run"] is True and answer["status"] == "timeout"
        codes = [read_answers(s, 1)[0][0] for s in waiting]
    assert codes.count(200) + codes.count(429) == 270 and 250 <= codes.count(200) <= 256
    assert axis(homed.rig, "x") == pytest.approx(90, abs=X_STEP)


def test_parts_away(homed):
    """Moonraker gone in the middle of a move; then Klipper shut down by the microcontroller, and left so: this is the last test at the machine."""
    r = homed.rig
    helpers.go(r, x=50)
    move = Later(homed.ask, "move", {"x": 120, "feedrate": 600, "wait": True})
    wait_for("it moves", lambda: steps(r)["moving"])
    r.moonraker.kill()
    assert move.answer()[1]["error_code"] == "OUTCOME_UNKNOWN"
    homed.fails("move", "MOONRAKER_DISCONNECTED", {"x": 10})
    assert homed.do("get_status")["stale"] is True
    still(r)
    r.moonraker.start()
    r.wait_ready(30)
    r.sim_cmd("fault shutdown Timer too close")
    wait_for("it is seen", lambda: r.get("/ready")[0] == 503)
    assert homed.ask("ready")[0] == 503 and homed.do("get_printer_state")["state"] == "shutdown"
    answer = homed.fails("move", "KLIPPY_DISCONNECTED", {"x": 10})
    assert answer["details"]["klipper"]["state"] == "shutdown"


# ---- nothing is left out: these two come last --------------------------------------------------------------------------------------------

def test_every_row_is_shown(client):
    assert set(client.routes) == set(SHOWN)


def test_every_code_came(client, request):
    if len([i for i in request.session.items if i.module is request.module]) < 20:
        pytest.skip("only with the whole file")
    schemas = [r["content"]["application/json"]["schema"] for r in client.contract.doc["components"]["responses"].values()]
    codes = {code for schema in schemas for code in schema["properties"]["error_code"]["enum"]}
    missing = codes - NOT_HERE - {code for _, code in client.contract.seen}
    assert missing == set()
