# SPDX-License-Identifier: GPL-3.0-or-later
"""A command that was sent and whose answer is lost: by every way in, it is told that it may have run, and it is never sent again.

The connection is cut at a proxy while Klipper has the script. Invariant: what was sent is what the proxy saw, what ran is what the simulator did.
"""
import time

import pytest

import helpers
from helpers import FAST, Later, X_STEP, axis, check_envelope, get, go, ok, pin, post, refused, steps, still, wait_for
from openpnp import Lines
from proxy import proxied_rig
from test_metrics import metrics, value
from test_queue import add, ended, move, queue
from test_switch import ramp
from ws_client import Client, RpcFailed

DIMMER = """
[output_pin dimmer]
pin: PI5
pwm: True
cycle_time: 0.01
"""
FAR, SLOW = 90, 1200  # two seconds of motion from 50


@pytest.fixture(scope="module")
def machine():
    with proxied_rig(printer_extra=DIMMER) as (r, proxy):
        r.proxy = proxy
        yield r


@pytest.fixture
def homed(machine):
    helpers.make_homed(machine)
    ok(post(machine, "system/resume"))
    go(machine, x=50, y=50)
    machine.since = steps(machine)["total_steps"]
    machine.sent = len(machine.proxy.scripts)
    return machine


def cut(machine):
    """The connection breaks while Klipper moves."""
    wait_for("it moves", lambda: steps(machine)["total_steps"] > machine.since + 100)
    machine.proxy.cut()


def moved_once(machine, x=FAR):
    """The move ran to its end, once; of this target one script was sent."""
    machine.wait_shim_ready(20)
    ok(post(machine, "motion/wait"))
    still(machine)
    assert axis(machine, "x") == pytest.approx(x, abs=X_STEP)
    assert len([s for s in machine.proxy.scripts[machine.sent:] if f"G1 X{x}" in s]) == 1


def unknown(answer):
    body = refused(answer, "OUTCOME_UNKNOWN")
    assert "may have run" in body["error_message"]
    return body


def test_a_command_and_its_repeat(homed):
    """With a key the repeat gets the same answer, and nothing is sent."""
    key = {"Idempotency-Key": f"lost-{time.monotonic_ns()}"}
    request = {"x": FAR, "feedrate": SLOW, "wait": True}
    first = Later(post, homed, "motion/move", request, headers=key)
    cut(homed)
    body = unknown(first.answer(10))
    again = unknown(post(homed, "motion/move", request, headers=key))
    assert again["command_id"] == body["command_id"]
    moved_once(homed)
    entry = next(e for e in ok(get(homed, "queue/history?limit=20"))["entries"] if e["command_id"] == body["command_id"])
    assert (entry["state"], entry["error_code"]) == ("interrupted", "OUTCOME_UNKNOWN")


def test_a_refusal_leaves_its_key_free(homed):
    """Nothing was done, so the same request may be made again once it can be."""
    key = {"Idempotency-Key": f"refused-{time.monotonic_ns()}"}
    request = {"x": 30, "feedrate": FAST, "wait": True}
    helpers.unhome(homed)
    refused(post(homed, "motion/move", request, headers=key), "HOMING_REQUIRED")
    helpers.make_homed(homed)
    answer = post(homed, "motion/move", request, headers=key)
    assert ok(answer)["completed"] is True and "idempotency-replayed" not in answer[2]
    assert axis(homed, "x") == pytest.approx(30, abs=X_STEP)


def test_by_websocket(homed):
    with Client(homed) as c:
        later = Later(c.execute, "move", x=FAR, feedrate=SLOW, wait=True)
        cut(homed)
        with pytest.raises(RpcFailed) as e:
            later.answer(10)
        assert e.value.data["error_code"] == "OUTCOME_UNKNOWN"
    moved_once(homed)


def test_by_the_gcode_port(homed):
    with Lines(homed) as c:
        assert c.ask(f"G1 X{FAR} F{SLOW}") == ["ok"]
        c.send("M400\nG1 X200\n")
        cut(homed)
        first, second = c.replies(2)
        assert first.startswith("!! ") and "may have run" in first, first
        assert second.startswith("!! ")
    moved_once(homed)
    assert not [s for s in homed.proxy.scripts[homed.sent:] if "G1 X200" in s]


def test_in_the_queue(homed):
    """The entry is interrupted and the queue held until somebody has looked; then what waits goes on and the entry does not come again."""
    ok(post(homed, "system/pause"))
    lost, waits = add(homed, "move", x=FAR, feedrate=SLOW, wait=True), add(homed, "move", x=30, feedrate=FAST, wait=True)
    ok(post(homed, "system/resume"))
    cut(homed)
    entry = wait_for("it has ended", lambda: ended(homed).get(lost), 10)
    assert (entry["state"], entry["error_code"]) == ("interrupted", "OUTCOME_UNKNOWN")
    moved_once(homed)
    status = queue(homed)
    assert "interrupted" in status["holds"] and [e["queue_id"] for e in status["queued_commands"]] == [waits]
    ok(post(homed, "system/resume"))
    wait_for("the rest ran", lambda: ended(homed).get(waits, {}).get("state") == "done", 20)
    still(homed)
    assert axis(homed, "x") == pytest.approx(30, abs=X_STEP)
    assert len([s for s in homed.proxy.scripts[homed.sent:] if f"G1 X{FAR}" in s]) == 1


def test_in_a_batch(homed):
    """It says which one, and what came behind it has not begun."""
    batch = Later(post, homed, "batch/execute", {"commands": [move(55), move(FAR, feedrate=SLOW, wait=True), move(200)]})
    wait_for("the slow one has begun", lambda: [s for s in homed.proxy.scripts[homed.sent:] if f"G1 X{FAR}" in s])
    wait_for("it moves", lambda: axis(homed, "x") > 60)
    cut(homed)
    body = check_envelope(batch.answer(10))
    results = body["data"]["results"]
    assert body["status"] == "partial" and [r["status"] for r in results] == ["success", "error", "cancelled"]
    assert results[1]["error_code"] == "OUTCOME_UNKNOWN" and results[2]["error_code"] == "CANCELLED"
    moved_once(homed)


def test_in_a_ramp(homed):
    """A step that waits in Klipper behind somebody else's dwell."""
    ok(post(homed, "pwm/set", {"pin": "dimmer", "value": 0, "wait": True}))
    later = Later(post, homed, "pwm/ramp", ramp("dimmer", 0, 1, 20, steps=100))
    wait_for("the ramp has begun", lambda: pin(homed, "PI5") > 0)
    dwell = Later(homed.gcode, "G4 P3000\nM400")

    def a_step_waits():
        count = len(homed.proxy.scripts)
        time.sleep(0.7)  # three steps' time
        return len(homed.proxy.scripts) == count

    wait_for("a step waits", a_step_waits, 5)
    homed.proxy.cut()
    unknown(later.answer(10))
    dwell.answer(20)
    homed.wait_shim_ready(20)
    count = len([s for s in homed.proxy.scripts if "PIN=dimmer" in s])
    ok(post(homed, "pwm/set", {"pin": "dimmer", "value": 0.5, "wait": True}))
    assert len([s for s in homed.proxy.scripts if "PIN=dimmer" in s]) == count + 1, "no further step of it"
    assert value(metrics(homed), "upstream_circuit", method="printer.gcode.script") == 0, "a lost connection is no failure of the operation"


def test_before_it_was_sent(homed):
    """What has not been written has not run, and is not told so."""
    first = Later(post, homed, "motion/move", {"x": FAR, "feedrate": SLOW, "wait": True})
    wait_for("it moves", lambda: steps(homed)["total_steps"] > homed.since + 100)
    behind = Later(post, homed, "motion/move", {"x": 200, "feedrate": FAST})
    wait_for("it waits", lambda: ok(get(homed, "status"))["queue"]["size"] == 2)
    homed.proxy.cut()
    unknown(first.answer(10))
    refused(behind.answer(10), "MOONRAKER_DISCONNECTED", "KLIPPY_DISCONNECTED")
    moved_once(homed)
    assert not [s for s in homed.proxy.scripts[homed.sent:] if "G1 X200" in s]
