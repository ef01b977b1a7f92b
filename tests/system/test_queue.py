# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue: order, cancel, pause, resume, batches, what holds it, and what is left of it after kill -9.

For clients that leave work behind. Invariant tested: what a client was told is in the queue runs at most once and in order, and nothing of it runs while
something holds the queue; counted at the simulator and in Moonraker's record of scripts.
"""
import random
import re
import socket
import time

import pytest

import rig
from ws_client import Client, RpcFailed
from helpers import (FAST, Later, X_STEP, axis, get, go, make_homed, make_ready, nothing_reaches_klipper, ok, pin, post, refused, fields, http_text, show,
                     steps, still, wait_for, BASE)

FEED_STEP = 0.01  # mm, of world.txt
ENTRIES = 200
SIZE = 250  # most entries of this machine's queue

# A file print needs virtual_sdcard; its file is written below.
PRINTER = "[virtual_sdcard]\npath: {gcodes}\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("queue")
    (folder / "dwell.gcode").write_text("G4 P2000\nM400\nG4 P2000\nM400\n")
    with rig.Rig(printer_extra=PRINTER.format(gcodes=folder),
                 klipperplace_extra=f"[history]\ndatabase: {folder}/history.db\n[gcode_driver]\nmax_queue_size: {SIZE}\n") as r:
        yield r


@pytest.fixture
def homed(machine):
    """Homed, at rest, with an empty queue that goes."""
    make_ready(machine)
    ok(delete(machine, "queue/clear"))
    wait_for("nothing runs", lambda: not queue(machine)["executing"], 30)
    make_homed(machine)
    ok(post(machine, "system/resume"))
    return machine


def delete(machine, path, body=None):
    return machine.request("DELETE", BASE + path, body)


def queue(machine):
    return ok(get(machine, "queue/status"))


def add(machine, command, priority=0, **parameters):
    """The id of a new entry."""
    return ok(post(machine, "queue/add", {"command": command, "parameters": parameters, "priority": priority}))["queue_id"]


def move(x, **more):
    return {"command": "move", "parameters": {"x": x, "feedrate": FAST, **more}}


def ended(machine, since=None):
    """Every entry of the queue that has ended, by id, newest first; over all pages."""
    out, before = {}, None
    while True:
        page = ok(get(machine, "queue/history?limit=100" + (f"&before={before}" if before else "")))["entries"]
        for e in page:
            if e["queue_id"]:
                assert e["queue_id"] not in out, f"told twice: {e}"
                out[e["queue_id"]] = e
        if len(page) < 100 or (since and page[-1]["ended_at"] < since):
            return out
        before = page[-1]["command_id"]


def drain(machine, timeout=60):
    wait_for("the queue is empty", lambda: queue(machine)["queue_size"] == 0, timeout)


def targets(machine, since):
    """X of every move that Klipper was sent, in order."""
    return [float(x) for text in machine.scripts(since) for x in re.findall(r"G1 X([0-9.]+)", text)]


# ---- order -----------------------------------------------------------------------------------------------------------------

def test_higher_priority_goes_first_and_order_is_kept_inside_one(homed):
    ok(post(homed, "system/pause"))
    plan = [(10, 0), (11, 5), (12, 0), (13, -5), (14, 5), (15, 1000)]
    with nothing_reaches_klipper(homed):
        ids = {x: add(homed, "move", priority, x=x, feedrate=FAST) for x, priority in plan}
        status = queue(homed)
        assert status["paused"] and status["holds"] == ["paused"] and not status["executing"] and status["current_command"] is None
        assert [e["parameters"]["x"] for e in status["queued_commands"]] == [15, 11, 14, 10, 12, 13]
        assert status["queue_size"] == 6
        assert ok(get(homed, "status"))["queue"] == {"size": 6, "executing": False, "paused": True}
    since = time.time()
    assert ok(post(homed, "system/resume")) == {"resumed": True}
    drain(homed)
    still(homed)
    assert targets(homed, since) == [15, 11, 14, 10, 12, 13]
    assert axis(homed, "x") == pytest.approx(13, abs=X_STEP)
    entries = ended(homed, since)
    assert all(entries[i]["state"] == "done" and entries[i]["parameters"]["x"] == x for x, i in ids.items())


def test_position_tells_the_place(homed):
    ok(post(homed, "system/pause"))
    first = ok(post(homed, "queue/add", move(20)))
    assert (first["queue_position"], first["queue_size"]) == (1, 1)
    second = ok(post(homed, "queue/add", {**move(21), "priority": 1}))
    assert (second["queue_position"], second["queue_size"]) == (1, 2)
    third = ok(post(homed, "queue/batch", {"commands": [move(22), move(23)]}))
    assert third["queue_size"] == 4 and len(set(third["queue_ids"])) == 2


def test_priority_of_the_query(homed):
    """Where the body is read as a whole, what the query says counts all the same."""
    ok(post(homed, "system/pause"))
    ok(post(homed, "queue/add", move(20)))
    assert ok(post(homed, "queue/add?priority=5", move(21)))["queue_position"] == 1
    assert ok(post(homed, "queue/add?priority=-5", move(22)))["queue_position"] == 3
    assert [(e["parameters"]["x"], e["priority"]) for e in queue(homed)["queued_commands"]] == [(21, 5), (20, 0), (22, -5)]
    refused(post(homed, "queue/add?priority=5", {**move(23), "priority": 4}), "INVALID_PARAMETER", "INVALID_REQUEST")
    refused(post(homed, "queue/add?priority=x", move(23)), "INVALID_PARAMETER")
    refused(post(homed, "queue/add?command=move", {"parameters": {"x": 23, "feedrate": FAST}}), "MISSING_PARAMETER")
    assert queue(homed)["queue_size"] == 3


def test_cancel_and_clear(homed):
    ok(post(homed, "system/pause"))
    keep, drop, lost = (add(homed, "move", x=x, feedrate=FAST) for x in (30, 31, 32))
    assert ok(delete(homed, f"queue/cancel?queue_id={drop}")) == {"cancelled_id": drop}
    assert fields(refused(delete(homed, "queue/cancel", {"queue_id": drop}), "INVALID_REQUEST")) == {"queue_id": "INVALID_REQUEST"}
    refused(delete(homed, "queue/cancel", {"queue_id": "9f0c0000-0000-4000-8000-000000000000"}), "NOT_FOUND")
    refused(delete(homed, "queue/cancel"), "MISSING_PARAMETER")
    assert ok(delete(homed, "queue/cancel", {"queue_id": lost})) == {"cancelled_id": lost}
    since = time.time()
    ok(post(homed, "system/resume"))
    drain(homed)
    assert targets(homed, since) == [30]
    refused(delete(homed, f"queue/cancel?queue_id={keep}"), "INVALID_REQUEST")
    ok(post(homed, "system/pause"))
    ids = [add(homed, "move", x=x, feedrate=FAST) for x in (40, 41, 42)]
    ok(post(homed, "motion/wait"))
    still(homed)
    with nothing_reaches_klipper(homed):
        assert ok(delete(homed, "queue/clear")) == {"cleared_count": 3}
        ok(post(homed, "system/resume"))
        time.sleep(0.2)
    entries = ended(homed, since)
    assert {entries[i]["state"] for i in ids} == {"cancelled"}
    assert {entries[i]["error_code"] for i in ids} == {"CANCELLED"}


def test_pause_lets_the_command_under_way_end(homed):
    go(homed, x=10)
    long = add(homed, "move", x=90, feedrate=1200, wait=True)
    add(homed, "move", x=20, feedrate=FAST)
    wait_for("it moves", lambda: steps(homed)["moving"])
    assert queue(homed)["current_command"]["queue_id"] == long
    refused(delete(homed, f"queue/cancel?queue_id={long}"), "INVALID_REQUEST")
    ok(post(homed, "system/pause"))
    wait_for("it ends", lambda: not queue(homed)["executing"])
    still(homed)
    assert axis(homed, "x") == pytest.approx(90, abs=X_STEP)
    with nothing_reaches_klipper(homed):
        assert ended(homed)[long]["state"] == "done"
        go_on = time.time()
        assert queue(homed)["queue_size"] == 1
    ok(post(homed, "system/resume"))
    drain(homed)
    assert targets(homed, go_on) == [20]


def test_others_use_the_lane_between_entries(homed):
    """A direct command does not wait for the whole queue."""
    go(homed, x=10)
    since = time.time()
    ok(post(homed, "queue/batch", {"commands": [move(20 + i, wait=True) for i in range(10)]}))
    wait_for("the queue runs", lambda: queue(homed)["executing"])
    ok(post(homed, "gpio/write", {"pin": "valve1", "value": 1}))
    drain(homed)
    sent = ["pin" if "PIN=valve1" in s else "move" for s in homed.scripts(since) if "PIN=valve1" in s or "G1 X" in s]
    assert sent.count("move") == 10 and sent.index("pin") < 10
    ok(post(homed, "gpio/write", {"pin": "valve1", "value": 0, "wait": True}))


# ---- what may be in it -------------------------------------------------------------------------------------------------------

def test_a_batch_is_checked_whole_and_taken_whole(homed):
    commands = [move(2000, q=1), {"command": "emergency_stop"}, {"command": "nix"}, 5, {"command": "move", "parameters": ["x"]},
                {"command": "home", "priority": 5000}, {"parameters": {}}, {"command": "gpio_write", "parameters": {"pin": "no_such", "value": 2}},
                {"command": "wait", "colour": 1}, move(10)]
    with nothing_reaches_klipper(homed):
        body = refused(post(homed, "queue/batch", {"commands": commands}), "INVALID_PARAMETER")
        assert fields(body) == {
            "commands[0].parameters.q": "INVALID_PARAMETER", "commands[0].parameters.x": "POSITION_OUT_OF_BOUNDS", "commands[1].command": "INVALID_PARAMETER",
            "commands[2].command": "COMMAND_NOT_FOUND", "commands[3]": "INVALID_PARAMETER", "commands[4].parameters": "INVALID_PARAMETER",
            "commands[5].priority": "INVALID_PARAMETER", "commands[6].command": "MISSING_PARAMETER", "commands[7].parameters.pin": "PIN_NOT_FOUND",
            "commands[7].parameters.value": "INVALID_PARAMETER", "commands[8].colour": "INVALID_PARAMETER"}
        assert queue(homed)["queue_size"] == 0


@pytest.mark.parametrize("command", ["emergency_stop", "reset", "pause", "resume", "queue_add", "queue_batch", "queue_clear", "batch_execute", "safety_status",
                                     "get_version", "openapi"])
def test_what_is_for_itself_is_not_queued(homed, command):
    for path, body in (("queue/add", {"command": command}), ("queue/batch", {"commands": [{"command": command}]}),
                       ("batch/execute", {"commands": [{"command": command}]})):
        assert list(fields(refused(post(homed, path, body), "INVALID_PARAMETER")).values()) == ["INVALID_PARAMETER"]
    assert queue(homed)["queue_size"] == 0


@pytest.mark.parametrize("body, code, field", [
    ({}, "MISSING_PARAMETER", "command"),
    ({"command": 5}, "INVALID_PARAMETER", "command"),
    ({"command": "move", "parameters": [1]}, "INVALID_PARAMETER", "parameters"),
    ({"command": "move", "parameters": {"x": "1"}}, "INVALID_PARAMETER", "parameters.x"),
    ({"command": "move", "parameters": {"x": 301}}, "POSITION_OUT_OF_BOUNDS", "parameters.x"),
    ({"command": "move", "parameters": {"x": 1}, "priority": 1.5}, "INVALID_PARAMETER", "priority"),
    ({"command": "move", "parameters": {"x": 1}, "extra": 1}, "INVALID_PARAMETER", "extra"),
    ({"command": "feeder_advance", "parameters": {"feeder": "x", "distance": 1}}, "FEEDER_NOT_FOUND", "parameters.feeder"),
])
def test_one_command_that_is_wrong_is_refused(homed, body, code, field):
    with nothing_reaches_klipper(homed):
        assert fields(refused(post(homed, "queue/add", body), code)) == {field: code}
        assert queue(homed)["queue_size"] == 0


def test_a_full_queue_refuses(homed):
    ok(post(homed, "system/pause"))
    refused(post(homed, "queue/batch", {"commands": [move(10)] * (SIZE + 1)}), "QUEUE_FULL")
    assert queue(homed)["queue_size"] == 0
    ok(post(homed, "queue/batch", {"commands": [move(10)] * (SIZE - 1)}))
    refused(post(homed, "queue/batch", {"commands": [move(10)] * 2}), "QUEUE_FULL")
    add(homed, "move", x=10)
    refused(post(homed, "queue/add", move(10)), "QUEUE_FULL")
    assert ok(delete(homed, "queue/clear"))["cleared_count"] == SIZE
    refused(post(homed, "queue/batch", {"commands": []}), "INVALID_PARAMETER")


# ---- failures ------------------------------------------------------------------------------------------------------------------

LOW = [{"command": "move", "parameters": {"z": -25, "feedrate": 3000}}, move(50), move(60), {"command": "move", "parameters": {"z": -20, "feedrate": 3000}}]


@pytest.mark.parametrize("stop", [True, False])
def test_a_failure_stops_its_batch_or_not(homed, stop):
    """A move under the travel height fails when its turn comes, not before."""
    go(homed, x=10)
    ok(post(homed, "system/pause"))
    ids = ok(post(homed, "queue/batch", {"commands": LOW, "stop_on_error": stop}))["queue_ids"]
    alone = add(homed, "move", z=-20, feedrate=3000)
    since = time.time()
    ok(post(homed, "system/resume"))
    drain(homed)
    still(homed)
    entries = ended(homed, since)
    assert [entries[i]["state"] for i in ids] == (["done", "failed", "cancelled", "cancelled"] if stop else ["done", "failed", "failed", "done"])
    assert entries[ids[1]]["error_code"] == "INTERLOCK" and entries[ids[1]]["error_message"]
    assert entries[alone]["state"] == "done"
    assert targets(homed, since) == [] and axis(homed, "x") == pytest.approx(10, abs=X_STEP)
    assert abs(axis(homed, "z")) == pytest.approx(20, abs=0.02)


def test_an_emergency_stop_holds_the_queue_and_reset_leaves_it_held(homed):
    go(homed, x=10)
    running = add(homed, "move", x=250, feedrate=3000, wait=True)
    waiting = [add(homed, "move", x=x, feedrate=FAST) for x in (30, 40)]
    wait_for("it moves", lambda: steps(homed)["moving"])
    ok(post(homed, "system/emergency_stop", {"reason": "test"}))
    status = queue(homed)
    assert status["holds"] == ["safety"] and not status["executing"] and [e["queue_id"] for e in status["queued_commands"]] == waiting
    refused(post(homed, "queue/add", move(10)), "EMERGENCY_STOP_ACTIVE")
    refused(post(homed, "system/resume"), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/pause"))
    assert ended(homed)[running]["state"] == "failed" and ended(homed)[running]["error_code"] == "EMERGENCY_STOP_ACTIVE"
    ok(post(homed, "system/reset", timeout=40))
    since = time.time()
    total = steps(homed)["total_steps"]
    wait_for("the machine is ready", lambda: ok(get(homed, "position"))["stale"] is False)
    assert queue(homed)["holds"] == ["paused", "safety"]
    assert homed.scripts(since) == [] and steps(homed)["total_steps"] == total
    ok(post(homed, "system/resume"))
    drain(homed)
    assert {ended(homed)[i]["error_code"] for i in waiting} == {"HOMING_REQUIRED"}
    assert steps(homed)["total_steps"] == total
    stop = ok(get(homed, "queue/history?limit=20"))["entries"]
    assert {"emergency_stop", "reset"} <= {e["command"] for e in stop if e["queue_id"] is None}


def test_klipper_that_goes_away_holds_what_waits(homed):
    ok(post(homed, "system/pause"))
    add(homed, "gpio_write", pin="valve1", value=1)
    homed.moonraker_call("printer.firmware_restart")
    wait_for("it is away", lambda: queue(homed)["holds"] == ["paused", "safety"])
    refused(post(homed, "system/resume"), "KLIPPY_DISCONNECTED")
    homed.wait_ready(20)
    assert pin(homed, "n1.valve") == 0 and queue(homed)["queue_size"] == 1
    ok(post(homed, "system/resume"))
    drain(homed)
    wait_for("it runs", lambda: pin(homed, "n1.valve") == 1)
    ok(post(homed, "gpio/write", {"pin": "valve1", "value": 0, "wait": True}))


def test_a_file_print_holds_the_queue(homed):
    ok(post(homed, "system/pause"))
    add(homed, "gpio_write", pin="valve1", value=1)
    homed.gcode("SDCARD_PRINT_FILE FILENAME=dwell.gcode")
    wait_for("held", lambda: "print" in queue(homed)["holds"])
    assert "file print" in refused(post(homed, "system/resume"), "INTERLOCK")["error_message"]
    wait_for("the print ends", lambda: not homed.moonraker_call("printer.objects.query", {"objects": {"virtual_sdcard": ["is_active"]}})
             ["status"]["virtual_sdcard"]["is_active"])
    wait_for("the mirror knows", lambda: post(homed, "gpio/write", {"pin": "valve2", "value": 0})[0] == 200)
    assert pin(homed, "n1.valve") == 0 and "print" in queue(homed)["holds"]
    wait_for("the monitors know", lambda: post(homed, "system/resume")[0] == 200)
    drain(homed)
    wait_for("it runs", lambda: pin(homed, "n1.valve") == 1)
    ok(post(homed, "gpio/write", {"pin": "valve1", "value": 0, "wait": True}))


# ---- batch/execute ---------------------------------------------------------------------------------------------------------------

def test_batch_runs_in_order_and_answers_with_all(homed):
    go(homed, x=10)
    since = time.time()
    data = ok(post(homed, "batch/execute", {"commands": [move(20), move(30, wait=True), {"command": "get_position", "parameters": {"live": True}},
                                                         {"command": "gpio_read", "parameters": {"pin": "valve1"}}]}))
    assert targets(homed, since) == [20, 30]
    assert [r["command"] for r in data["results"]] == ["move", "move", "get_position", "gpio_read"]
    assert all(r["status"] == "success" for r in data["results"]) and len({r["command_id"] for r in data["results"]}) == 4
    assert data["results"][2]["data"]["position"]["x"] == pytest.approx(30, abs=0.01)
    assert (data["success_count"], data["error_count"]) == (4, 0) and data["total_execution_time"] > 0
    kept = {e["command_id"]: e for e in ok(get(homed, "queue/history?limit=10"))["entries"]}
    assert [kept[r["command_id"]]["parameters"]["x"] for r in data["results"][:2]] == [20, 30]


def test_parallel_reads_do_not_wait_for_motion(homed):
    go(homed, x=10)
    commands = [move(110, feedrate=3000, wait=True), {"command": "get_position", "parameters": {"live": True}}, move(10)]
    results = ok(post(homed, "batch/execute", {"commands": commands, "parallel": True}))["results"]
    assert results[0]["data"]["completed"] is True
    assert results[1]["data"]["position"]["x"] < 109, "the read waited for the move"
    still(homed)
    results = ok(post(homed, "batch/execute", {"commands": [{**commands[0], "parameters": {**commands[0]["parameters"], "x": 60}}, commands[1]]}))["results"]
    assert results[1]["data"]["position"]["x"] == pytest.approx(60, abs=0.01)


def test_parallel_live_reads_share_one_question(homed):
    """64 live reads of one pin at once: one tick of Klipper's for all, not one each."""
    commands = [{"command": "gpio_read", "parameters": {"pin": "valve1", "live": True}}] * 64
    data = ok(post(homed, "batch/execute", {"commands": commands, "parallel": True}))
    assert data["success_count"] == 64
    assert max(r["timestamp"] for r in data["results"]) - min(r["timestamp"] for r in data["results"]) < 64 * 0.25 / 4


@pytest.mark.parametrize("stop", [True, False])
def test_a_batch_that_fails_in_the_middle(homed, stop):
    go(homed, x=10)
    since = time.time()
    status, body, _ = post(homed, "batch/execute", {"commands": LOW, "stop_on_error": stop})
    assert status == 200 and body["status"] == "partial"
    data = body["data"]
    assert [r["status"] for r in data["results"]] == ["success", "error", "cancelled" if stop else "error", "cancelled" if stop else "success"]
    assert data["results"][1]["error_code"] == "INTERLOCK"
    assert (data["success_count"], data["error_count"]) == ((1, 3) if stop else (2, 2))
    assert targets(homed, since) == []
    go(homed, z=-20)


def test_a_batch_of_which_nothing_works_is_an_error(homed):
    go(homed, z=-25)
    body = refused(post(homed, "batch/execute", {"commands": [move(50), move(60)]}), "INTERLOCK")
    assert [r["status"] for r in body["details"]["results"]] == ["error", "cancelled"]
    go(homed, z=-20)


def test_a_batch_is_checked_before_it_begins(homed):
    with nothing_reaches_klipper(homed):
        body = refused(post(homed, "batch/execute", {"commands": [move(20), move(999), {"command": "home", "priority": 1}]}), "POSITION_OUT_OF_BOUNDS")
        assert fields(body) == {"commands[1].parameters.x": "POSITION_OUT_OF_BOUNDS", "commands[2].priority": "INVALID_PARAMETER"}
        refused(post(homed, "batch/execute", {"commands": [move(20)] * 257}), "INVALID_PARAMETER")


def test_a_client_that_leaves_ends_its_batch(homed):
    go(homed, x=10)
    since = time.time()
    with socket.create_connection(("127.0.0.1", homed.port)) as s:
        s.sendall(http_text("POST", BASE + "batch/execute", show({"commands": [move(60, feedrate=1200, wait=True), move(20), move(30)]})))
        wait_for("it moves", lambda: steps(homed)["moving"])
    wait_for("the batch is over", lambda: not ok(get(homed, "status"))["queue"]["size"])
    still(homed)
    assert axis(homed, "x") == pytest.approx(60, abs=X_STEP)
    assert targets(homed, since) == [60]


# ---- the end of the server ---------------------------------------------------------------------------------------------------------

def test_a_server_that_is_stopped_leaves_everything_in_order(homed):
    """SIGTERM with an entry and a batch under way; the sanitizers see that nothing is left over."""
    go(homed, x=10)
    running = add(homed, "move", x=110, feedrate=1200, wait=True)
    wait_for("it moves", lambda: steps(homed)["moving"])
    ok(post(homed, "queue/batch", {"commands": [move(20)] * 20}))
    Later(post, homed, "batch/execute", {"commands": [{"command": "get_position", "parameters": {"live": True}}, move(30)]})
    Later(post, homed, "motion/move", {"x": 40, "feedrate": FAST})
    wait_for("all wait", lambda: ok(get(homed, "status"))["queue"]["size"] == 20 + 3)
    assert homed.shim.stop() == []
    homed.shim.start()
    homed.wait_shim_ready(30)
    assert queue(homed)["queue_size"] == 20 and "interrupted" in queue(homed)["holds"]
    entry = ended(homed)[running]
    assert (entry["state"], entry["error_code"], entry["parameters"]["x"]) == ("interrupted", "OUTCOME_UNKNOWN", 110)
    still(homed)
    assert axis(homed, "x") == pytest.approx(110, abs=X_STEP), "what Klipper had accepted goes on"


# ---- by WebSocket ----------------------------------------------------------------------------------------------------------------

def test_queue_and_batch_by_websocket(homed):
    go(homed, x=10)
    with Client(homed) as c:
        c.subscribe("queue")
        c.execute("pause")
        c.until(lambda: c.state["queue"]["paused"] is True)
        added = c.ask("execute", {"command": "queue_add", "parameters": move(20)})["data"]["queue_id"]
        c.until(lambda: added in c.state["queue"].get("entries", {}))
        with pytest.raises(RpcFailed) as e:
            c.execute("queue_batch", commands=[move(20), move(999)])
        assert fields(e.value.data) == {"commands[1].parameters.x": "POSITION_OUT_OF_BOUNDS"}
        since = time.time()
        c.execute("resume")
        c.until(lambda: c.state["queue"]["entries"][added]["state"] == "done" and not c.state["queue"]["paused"])
        assert targets(homed, since) == [20]
        answer = c.execute("batch_execute", commands=[move(30), {"command": "get_position"}])
        assert [r["status"] for r in answer["data"]["results"]] == ["success", "success"] and targets(homed, since) == [20, 30]
        moved = c.execute("move", x=40, feedrate=FAST)
        assert ok(get(homed, "queue/history?limit=1"))["entries"][0]["command_id"] == moved["command_id"]


# ---- kill -9 ---------------------------------------------------------------------------------------------------------------------

def feed_mm(i):
    return FEED_STEP * (i % 37 + 1)


class Run:
    """One queue of moves that is killed again and again. Every tenth entry feeds a tape, each by another number of steps: a second time would show."""

    def __init__(self, machine, way):
        self.machine, self.way = machine, way
        self.start_x = 20 if way > 0 else 20 + ENTRIES * 0.1
        go(machine, x=self.start_x)
        self.since = time.time()
        self.x_steps, self.feed_steps = steps(machine)["total_steps"], steps(machine, "feeder1")["total_steps"]
        self.accounted = 0  # steps of the feeder that ended entries explain
        commands = []
        for i in range(ENTRIES):
            if self.feeds(i):
                commands.append({"command": "feeder_advance", "parameters": {"feeder": "feeder1", "distance": feed_mm(i), "feedrate": 4800}})
            else:
                commands.append(move(self.target(i)))
        ok(post(machine, "system/pause"))
        self.ids = ok(post(machine, "queue/batch", {"commands": commands, "stop_on_error": False}))["queue_ids"]
        self.place = {k: i for i, k in enumerate(self.ids)}
        self.told = []  # entries that were added while it ran, as far as the client was told
        self.known = set()

    @staticmethod
    def feeds(i):
        return i % 10 == 9

    def target(self, i):
        return round(self.start_x + self.way * 0.1 * (i + 1), 4)

    def add_until_it_breaks(self):
        try:
            while True:
                status, body, _ = post(self.machine, "queue/add", {"command": "gpio_write", "priority": -1,
                                                                   "parameters": {"pin": "valve2", "value": len(self.told) % 2}})
                if status == 200:
                    self.told.append(body["data"]["queue_id"])
                time.sleep(0.02)
        except (OSError, ValueError):
            return

    def look(self):
        """After a kill, while nothing moves: each entry is in one place, and the steps made are those of the entries that ended."""
        entries, waiting = ended(self.machine, self.since), [e["queue_id"] for e in queue(self.machine)["queued_commands"]]
        for i in self.ids + self.told:
            assert (i in entries) + waiting.count(i) == 1, f"{i} is {'lost' if i not in entries else 'there twice'}"
        assert [i for i in waiting if i in self.place] == sorted((i for i in waiting if i in self.place), key=self.place.get), "out of order"
        assert all(entries[i]["state"] in ("done", "interrupted") for i in entries if i in self.place), [e for e in entries.values() if e["state"] == "failed"]
        fresh = {i: e for i, e in entries.items() if i not in self.known and i in self.place and self.feeds(self.place[i])}
        made = steps(self.machine, "feeder1")["total_steps"] - self.feed_steps - self.accounted
        sure = sum(round(feed_mm(self.place[i]) / FEED_STEP) for i, e in fresh.items() if e["state"] == "done")
        maybe = [round(feed_mm(self.place[i]) / FEED_STEP) for i, e in fresh.items() if e["state"] == "interrupted"]
        assert len(maybe) <= 1 and made - sure in [0, *maybe], f"{made} steps of the feeder, {sure} for what was done, {maybe} for what may have been"
        self.accounted += made
        self.known |= set(entries)
        return entries, waiting

    def finish(self):
        entries, waiting = self.look()
        assert waiting == []
        sent = targets(self.machine, self.since)
        for k, i in self.place.items():
            if not self.feeds(i):
                count = sum(abs(x - self.target(i)) < 1e-6 for x in sent)
                assert count == 1 if entries[k]["state"] == "done" else count <= 1, f"{entries[k]} was sent {count} times"
        assert len(sent) == len(set(sent))
        end = axis(self.machine, "x")
        made = steps(self.machine)["total_steps"] - self.x_steps
        assert made == round(abs(end - self.start_x) / X_STEP), "it went back"
        return sum(e["state"] == "interrupted" for e in entries.values())


def test_kill_9_loses_nothing_and_repeats_nothing(homed):
    wanted, seed = (100, random.randrange(1 << 30)) if rig.long_run() else (10, 5)
    draw = random.Random(seed)
    kills = interrupted = held = 0
    way = 1
    while kills < wanted:
        run = Run(homed, way)
        way = -way
        mine = kills
        while True:
            ok(post(homed, "system/resume"))
            adding = Later(run.add_until_it_breaks)
            if kills == wanted or kills - mine == 10:
                drain(homed)
                homed.shim.kill()
                adding.answer()
                homed.shim.start()
                homed.wait_shim_ready(30)
                if queue(homed)["queue_size"]:
                    ok(post(homed, "system/resume"))
                    drain(homed)
                break
            time.sleep(draw.uniform(0, 0.5))
            homed.shim.kill()
            kills += 1
            adding.answer()
            homed.shim.start()
            homed.wait_shim_ready(30)
            still(homed)
            with nothing_reaches_klipper(homed):
                status = queue(homed)
                assert status["paused"] or not status["queue_size"], "it would go on by itself"
                held += status["paused"]
                run.look()
        still(homed)
        interrupted += run.finish()
    print(f"seed {seed}: {kills} kills, {interrupted} entries interrupted, held after {held}")
    assert held, "no kill hit a queue that was not empty"
