# SPDX-License-Identifier: GPL-3.0-or-later
"""/ws/v1 by a client library that is not ours: handshake, JSON-RPC, execute, the seven events, frames, and the end of sessions.

Invariant: what moved is read from the simulator, and what a subscriber was told is compared with it or with Klipper.
"""
import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
import uuid
from random import Random

import pytest
import rig
from helpers import (X_STEP, axis, check_envelope, get, go, http_text, last_step, make_homed, make_ready, nothing_reaches_klipper, ok, pin, post, pushes, raw,
                     steps, still, unhome, wait_for)
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode
from ws_client import GOOD, KINDS, Client, Raw, RpcFailed, frame, merge_patch, without_times

MESSAGE_MAX = 65536


@pytest.fixture(name="machine", scope="module")
def _machine():
    with rig.Rig(klipperplace_extra="[security]\ncors_origins: http://panel.example") as r:
        yield r


@pytest.fixture(name="client")
def _client(machine):
    with Client(machine) as c:
        yield c


def failed(call, *args, **options):
    """The JSON-RPC error of a request that must fail."""
    with pytest.raises(RpcFailed) as e:
        call(*args, **options)
    return e.value


def told(client, kind):
    return [params for k, params in client.told if k == kind]


# ---- the handshake -------------------------------------------------------------------------------------------------------

KEY = GOOD[-1]


def handshake(machine, headers, path="/ws/v1"):
    """(status, headers, body) of a request that is answered and closed."""
    answers = raw(machine, http_text("GET", path, headers=headers))
    assert len(answers) == 1
    return answers[0]


def test_hello(client):
    assert client.hello["method"] == "notify_connected" and client.hello["jsonrpc"] == "2.0" and "id" not in client.hello
    assert uuid.UUID(client.hello["params"]["session_id"]).version == 4
    assert set(client.hello["params"]["events"]) == set(KINDS)


@pytest.mark.parametrize("headers, status", [
    ([], 426),
    (["Upgrade: websocket"], 426),
    (["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 8", KEY], 426),
    (["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"], 426),
    (["Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY], 400),
    (["Upgrade: websocket", "Connection: close", "Sec-WebSocket-Version: 13", KEY], 400),
    (["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"], 400),
    (["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"], 400),
    ([*GOOD, "Sec-WebSocket-Protocol: chat"], 400),
    ([*GOOD, "Origin: http://evil.example"], 403),
    ([*GOOD, "Origin: null"], 403),
])
def test_handshake_refused(machine, headers, status):
    got, names, body = handshake(machine, headers)
    assert got == status
    assert names["content-type"] == "application/json"
    envelope = json.loads(body)
    assert envelope["status"] == "error" and envelope["error_code"] in ("INVALID_REQUEST", "PERMISSION_DENIED")
    if status == 426:
        assert names["upgrade"] == "websocket" and names["sec-websocket-version"] == "13"


def test_handshake_odd(machine):
    """What libwebsockets answers by itself, or not at all, does not hurt."""
    assert handshake(machine, ["Upgrade: carrier-pigeon", "Connection: Upgrade"])[0] == 403
    raw(machine, http_text("GET", "/ws/v1", headers=["X: " + "a" * 8000]))
    raw(machine, b"GET /ws/v1 \0\xff\xfe\r\n\r\n")
    raw(machine, b"GET /ws/v1?" + b"a" * 20000)
    assert handshake(machine, [], "/ws/v1?token=abc")[0] == 426
    assert machine.get("/ws/v12")[0] == 404  # HTTP's
    answers = raw(machine, http_text("GET", "/health") + http_text("GET", "/ws/v1"), until=2)  # on HTTP's connection it is too late
    assert [a[0] for a in answers] == [200, 426]
    assert machine.get("/health")[0] == 200


def test_allowed_origins(machine):
    for origin in (f"http://127.0.0.1:{machine.port}", "http://panel.example"):
        with Client(machine, origin=origin) as c:
            assert c.ask("get_status")["status"] == "success"


def gone(s):
    """Waits until the other side has closed the socket."""
    try:
        return s.recv(100) == b""
    except ConnectionResetError:
        return True


def test_handshakes_are_bounded(machine):
    """Sockets that begin a handshake and do not end it: 64 are kept, for 5 s."""
    begun = [socket.create_connection(("127.0.0.1", machine.port)) for _ in range(70)]
    for s in begun:
        s.sendall(b"GET /ws/v1 HTTP/1.1\r\nHost: localhost\r\n")
        s.settimeout(60)
    wait_for("those too many are closed", lambda: len(select.select(begun, [], [], 0)[0]) >= 6)
    assert len(select.select(begun, [], [], 0)[0]) < 40  # others of the tests before may still count
    assert all(gone(s) for s in begun)
    for s in begun:
        s.close()
    with Client(machine) as c:
        assert c.ask("get_status")["status"] == "success"


# ---- JSON-RPC ------------------------------------------------------------------------------------------------------------

BAD = [
    ('{"jsonrpc": "2.0", "method"', None, -32700),
    ("", None, -32700),
    ('{"jsonrpc": "2.0", "id": 1, "id": 2, "method": "get_status"}', None, -32700),
    ("NaN", None, -32700),
    ("[" * 3000, None, -32700),
    ("5", None, -32600),
    ('"get_status"', None, -32600),
    ("[]", None, -32600),
    ("null", None, -32600),
    ('{"id": 1, "method": "get_status"}', 1, -32600),
    ('{"jsonrpc": "1.0", "id": 1, "method": "get_status"}', 1, -32600),
    ('{"jsonrpc": "2.0", "id": 1}', 1, -32600),
    ('{"jsonrpc": "2.0", "id": 1, "method": 7}', 1, -32600),
    ('{"jsonrpc": "2.0", "id": {}, "method": "get_status"}', None, -32600),
    ('{"jsonrpc": "2.0", "id": true, "method": "get_status"}', None, -32600),
    ('{"jsonrpc": "2.0", "id": "%s", "method": "get_status"}' % ("x" * 129), None, -32600),
    ('{"jsonrpc": "2.0", "id": 1, "method": "get_status", "params": 5}', 1, -32600),
    ('{"jsonrpc": "2.0", "id": 1, "method": "no_such"}', 1, -32601),
    ('{"jsonrpc": "2.0", "id": "a", "method": "GET_STATUS"}', "a", -32601),
    ('{"jsonrpc": "2.0", "id": 1.5, "method": "get_status", "params": [1]}', 1.5, -32602),
    ('{"jsonrpc": "2.0", "id": null, "method": "get_status", "params": {"x": 1}}', None, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "execute"}', 1, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"command": 5}}', 1, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"command": "move", "params": {"x": 1}}}', 1, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "subscribe"}', 1, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"events": "position"}}', 1, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"events": ["position", "no_such"]}}', 1, -32602),
    ('{"jsonrpc": "2.0", "id": 1, "method": "subscribe", "params": {"events": [5]}}', 1, -32602),
]


def test_bad_requests(machine, client):
    with nothing_reaches_klipper(machine):
        for text, number, code in BAD:
            client.ws.send(text)
            answer = client.read()
            assert answer == {"jsonrpc": "2.0", "id": number, "error": answer["error"]}, (text, answer)
            assert answer["error"]["code"] == code, (text, answer)
            assert isinstance(answer["error"]["message"], str) and answer["error"]["message"]
    assert client.ask("unsubscribe", {"events": []}) == {"subscribed": []}  # nothing of it was half done


def test_ids_and_notifications(machine, client):
    for number in ("", "äß", 0, -1, 2**53, 1.5, None):
        client.send("get_status", number="null" if number is None else number)
        assert client.read()["id"] == ("null" if number is None else number)
    client.ws.send(json.dumps({"jsonrpc": "2.0", "method": "get_status"}))
    client.ws.send(json.dumps({"jsonrpc": "2.0", "method": "no_such"}))
    client.ws.send(json.dumps({"jsonrpc": "2.0", "method": "execute", "params": {"command": "gpio_write", "parameters": {"pin": "pump2", "value": 1}}}))
    wait_for("a notification runs its command", lambda: pin(machine, "n2.pump") == 1)
    assert client.execute("gpio_write", pin="pump2", value=0, wait=True)["data"]["completed"]
    assert not client.responses, "a notification got a response"


def test_batches(client):
    def row(number, method, **more):
        return {"jsonrpc": "2.0", **({} if number is None else {"id": number}), "method": method, **more}

    client.ws.send(json.dumps([row(1, "get_status"), row(None, "get_status"), row(2, "no_such"), 5, row("3", "execute", params={"command": "get_version"}),
                               row(4, "execute", params={"command": "gpio_read", "parameters": {"pin": "light", "live": True}})]))
    answers = client.read()
    assert isinstance(answers, list) and len(answers) == 5
    by_id = {a["id"]: a for a in answers}
    assert by_id[1]["result"]["command"] == "get_status" and by_id["3"]["result"]["data"]["api_version"] == "v1"
    assert by_id[4]["result"]["data"]["pin"] == "light"
    assert by_id[2]["error"]["code"] == -32601 and by_id[None]["error"]["code"] == -32600
    client.ws.send(json.dumps([row(None, "get_status")] * 3))  # only notifications: no response at all
    client.ws.send(json.dumps([row(i, "get_status") for i in range(65)]))
    assert client.read()["error"]["code"] == -32600
    client.ws.send(json.dumps([row(i, "execute", params={"command": "get_version"}) for i in range(64)]))
    assert sorted(a["id"] for a in client.read()) == list(range(64))


# ---- execute -------------------------------------------------------------------------------------------------------------

def test_execute_moves_once(machine, client):
    make_homed(machine)
    go(machine, x=20, y=20)
    before = steps(machine)["total_steps"]
    envelope = client.execute("move", x=35, feedrate=6000, wait=True)
    check_envelope((200, envelope, {"content-type": "application/json", "x-request-id": "-"}))
    assert envelope["status"] == "success" and envelope["command"] == "move" and envelope["data"]["completed"] is True
    assert envelope["data"]["position"]["x"] == 35
    still(machine)
    assert steps(machine)["total_steps"] - before == round(15 / X_STEP)
    assert abs(axis(machine, "x") - 35) <= X_STEP


def test_execute_refuses_as_rest(machine, client):
    """The same rows, the same checks: a refusal is the same by both edges, and reaches nothing."""
    make_homed(machine)
    bad = [("motion/move", "move", {"x": 5000}), ("motion/move", "move", {"x": "1"}), ("motion/move", "move", {"x": 1, "nope": 2}),
           ("motion/move", "move", {}), ("motion/home", "home", {"axes": ["q"]}), ("gpio/write", "gpio_write", {"pin": "no_such", "value": 1}),
           ("gpio/write", "gpio_write", {"pin": "pump1\nM112", "value": 1}), ("gpio/write", "gpio_write", {"value": 7}),
           ("vacuum/set", "vacuum_set", {"power": 300}), ("pnp/pick", "pick", {"nozzle": "N9"}), ("motion/move", "move", {"x": 1, "feedrate": -5})]
    with nothing_reaches_klipper(machine):
        for path, command, body in bad:
            rest, ours = post(machine, path, body)[1], failed(client.execute, command, **body)
            assert ours.code == -32000 and str(ours) == rest["error_message"]
            for envelope in (rest, ours.data):
                for member in ("command_id", "timestamp"):
                    assert envelope.pop(member)
            assert ours.data == rest
        error = failed(client.execute, "no_such_command")
        assert error.data["error_code"] == "COMMAND_NOT_FOUND"
        error = failed(client.ask, "execute", {"command": "move", "parameters": [1]})
        assert error.data["error_code"] == "INVALID_REQUEST"


def test_reads_as_rest(machine, client):
    for path, command, body in (("status", "get_status", {}), ("gpio/read?pin=light", "gpio_read", {"pin": "light"}), ("sensor/read_all", "sensor_read_all", {})):
        rest, ours = machine.get("/api/v1/" + path)[1]["data"], client.execute(command, **body)["data"]
        assert without_times(rest).keys() == without_times(ours).keys()
    assert without_times(client.ask("get_status")["data"]).keys() == without_times(machine.get("/api/v1/status")[1]["data"]).keys()


def test_waiting_commands_are_bounded(machine, client):
    """64 of one session wait; more are refused at once, an emergency stop would not be; the others go on."""
    make_homed(machine)
    go(machine, x=10, y=10)
    before = steps(machine)["total_steps"]
    numbers = [client.send("execute", {"command": "move", "parameters": {"x": 110, "feedrate": 2000, "wait": True}})]
    numbers += [client.send("execute", {"command": "move", "parameters": {"x": 110 + i % 2, "feedrate": 12000}}) for i in range(1, 70)]
    refusals = [failed(client.answer, n).data["error_code"] for n in numbers[64:]]
    assert refusals == ["QUEUE_FULL"] * 6
    assert all(client.answer(n)["status"] == "success" for n in numbers[:64])
    client.execute("wait")
    still(machine)
    assert steps(machine)["total_steps"] - before == round((100 + 63) / X_STEP)


def test_closed_session_leaves_its_commands(machine):
    """As for a REST client that leaves: what has begun goes on, what has not is dropped."""
    make_homed(machine)
    go(machine, x=10, y=10)
    c = Client(machine)
    c.send("execute", {"command": "move", "parameters": {"x": 40, "feedrate": 600, "wait": True}})
    c.send("execute", {"command": "move", "parameters": {"y": 40, "wait": True}})
    wait_for("the move", lambda: steps(machine)["moving"])
    c.ws.socket.shutdown(socket.SHUT_RDWR)
    c.ws.socket.close()
    wait_for("the lane", lambda: machine.get("/api/v1/status")[1]["data"]["queue"]["size"] == 0)
    still(machine)
    assert abs(axis(machine, "x") - 40) <= X_STEP and abs(axis(machine, "y") - 10) <= X_STEP


def test_reset_of_what_is_not_stopped(machine, client):
    """Its answer comes once the journal has it, on this edge too; and nobody misses it who has left by then."""
    make_ready(machine)
    with Client(machine) as leaves:
        for _ in range(20):
            leaves.send("execute", {"command": "reset"})
    data = client.execute("reset")["data"]
    assert data["reset_complete"] is True
    assert client.execute("get_version")["status"] == "success"


def test_counted(machine, client):
    """Sessions and commands stand in the metrics as those of REST do."""
    def metric(name):
        rows = [line.rsplit(" ", 1) for line in machine.get("/metrics")[1].splitlines() if line.startswith(name)]
        return sum(float(value) for _, value in rows)

    wait_for("no other session", lambda: metric('klipperplace_connections{kind="websocket"}') == 1)
    before = metric('klipperplace_requests_total{command="get_version"')
    client.execute("get_version")
    assert metric('klipperplace_requests_total{command="get_version"') == before + 1
    error = failed(client.execute, "metrics")
    assert error.data["error_code"] == "COMMAND_NOT_FOUND"


# ---- events --------------------------------------------------------------------------------------------------------------

def test_first_full_then_changes(machine, client):
    make_homed(machine)
    go(machine, x=10, y=10)
    assert client.subscribe("position") == {"subscribed": ["position"]}
    first = told(client, "position")[0]
    rest = machine.get("/api/v1/position")[1]["data"]
    assert without_times(first) == without_times(rest) and isinstance(first["timestamp"], float)
    client.execute("move", x=60, feedrate=1000, wait=True)
    still(machine)
    client.until(lambda: client.state["position"]["position"]["x"] == 60)
    later = told(client, "position")[1:]
    assert all("limits" not in p and "units" not in p and "y" not in p.get("position", {}) for p in later), later
    xs = [p["position"]["x"] for p in later if "x" in p.get("position", {})]
    assert len(xs) >= 5 and xs == sorted(xs), xs  # three seconds of a move, told four times a second, never backwards
    assert abs(axis(machine, "x") - client.state["position"]["position"]["x"]) <= X_STEP
    pushes(machine)
    client.drain(0.2)
    count = len(client.told)
    pushes(machine, 4)
    client.drain(0.2)
    assert not [p for _, p in client.told[count:] if set(p) - {"stale", "timestamp"}], "told something although nothing changed"
    assert client.ask("unsubscribe", {"events": ["position"]}) == {"subscribed": []}
    count = len(client.told)
    go(machine, x=55)
    pushes(machine)
    client.drain(0.2)
    assert len(client.told) == count


def test_every_kind(machine, client):
    """Each kind tells what was done, and all changes put together are what a fresh full state says."""
    make_homed(machine)
    assert set(client.subscribe(*KINDS)["subscribed"]) == set(KINDS)
    assert {kind for kind, _ in client.told} >= set(KINDS)
    machine.sim_cmd("press start_button")
    client.until(lambda: client.state["gpio"]["pins"]["start_button"]["state"] == 1)
    machine.sim_cmd("release start_button")
    client.until(lambda: client.state["gpio"]["pins"]["start_button"]["state"] == 0)
    client.execute("vacuum_on", nozzle="N1", wait=True)
    client.until(lambda: client.state["actuators"]["actuators"]["valve1"] == 1 and client.state["gpio"]["pins"]["valve1"]["state"] == 1)
    assert pin(machine, "n1.valve") == 1
    client.until(lambda: client.state["sensors"]["sensors"]["vacuum1"]["value"] < -10)
    client.until(lambda: client.state["status"]["vacuum_enabled"] is True)
    client.execute("queue_add", command="move", parameters={"x": 60, "y": 60, "feedrate": 3000, "wait": True})
    client.until(lambda: client.state["queue"]["executing"] and client.state["queue"]["queue_size"] == 1 and client.state["status"]["queue"]["executing"])
    client.until(lambda: client.state["queue"]["executing"] is False and client.state["queue"]["queue_size"] == 0)
    client.state["queue"].pop("entries")  # not of the full state
    client.execute("vacuum_off", nozzle="N1", wait=True)
    client.until(lambda: client.state["sensors"]["sensors"]["vacuum1"]["value"] > -1)
    client.drain(0.8)
    with Client(machine) as fresh:
        for _ in range(5):  # a sensor may change between the two
            client.drain(0.3)
            fresh.subscribe(*KINDS)
            same = {kind: without_times(client.state[kind]) == without_times(fresh.state[kind]) for kind in KINDS if kind != "safety"}
            if all(same.values()):
                break
        assert all(same.values()), (same, client.state, fresh.state)


def test_queue(machine, client):
    """Every change of every entry is told, in order, and each entry moves once."""
    make_homed(machine)
    go(machine, x=10, y=10)
    client.execute("resume")
    before = steps(machine)["total_steps"]
    client.subscribe("queue")
    assert client.state["queue"]["queue_size"] == 0 and client.state["queue"]["paused"] is False and "entries" not in client.state["queue"]
    moves = [{"command": "move", "parameters": {"x": 11 + i, "feedrate": 6000, "wait": True}} for i in range(5)]
    data = client.execute("queue_batch", commands=moves)["data"]
    entries = client.state["queue"].setdefault("entries", {})
    client.until(lambda: {client.state["queue"]["entries"].get(i, {}).get("state") for i in data["queue_ids"]} == {"done"} and not client.state["queue"]["queue_size"])
    for entry in data["queue_ids"]:
        states = changes([p["entries"][entry]["state"] for p in told(client, "queue") if entry in p.get("entries", {})])
        assert states in (["pending", "executing", "done"], ["pending", "done"], ["executing", "done"], ["done"]), states  # several within 20 ms are one message
    assert all(client.state["queue"]["entries"][i] == {"command": "move", "state": "done", "result": "OK"} for i in data["queue_ids"]), entries
    sizes = changes([p["queue_size"] for p in told(client, "queue") if "queue_size" in p])
    assert sizes[0] == 0 and sizes[-1] == 0 and max(sizes) >= 3
    still(machine)
    assert steps(machine)["total_steps"] - before == round(5 / X_STEP)
    client.execute("pause")
    client.until(lambda: client.state["queue"]["paused"] is True)
    client.execute("resume")
    client.until(lambda: client.state["queue"]["paused"] is False)


def test_batch_execute_is_partial(machine, client):
    """What REST answers with 200 is a result, also when only some of it worked; the history has it under the id of the answer."""
    make_homed(machine)
    commands = [{"command": "gpio_write", "parameters": {"pin": "light", "value": 1, "wait": True}}, {"command": "move", "parameters": {"x": 11, "timeout_s": 1}},
                {"command": "gpio_write", "parameters": {"pin": "light", "value": 0, "wait": True}}]
    machine.gcode("M84")
    wait_for("unhomed", lambda: not machine.get("/api/v1/position")[1]["data"]["homed_axes"])
    envelope = client.execute("batch_execute", commands=commands, stop_on_error=False)
    assert envelope["status"] == "partial" and envelope["data"]["success_count"] == 2 and envelope["data"]["error_count"] == 1
    written = client.execute("gpio_write", pin="light", value=1, wait=True)
    client.execute("gpio_write", pin="light", value=0, wait=True)
    wait_for("the history", lambda: written["command_id"] in json.dumps(client.execute("queue_history")["data"]))


def test_first_message_of_safety_is_of_now(machine, client):
    """The level changes without an event: whoever subscribes is told the one of now, whatever others were told."""
    make_ready(machine)
    for prepare, level in ((unhome, "caution"), (make_homed, "normal")):
        prepare(machine)
        wait_for(level, lambda level=level: ok(get(machine, "safety/status"))["level"] == level)
        with Client(machine) as other:
            for c in (client, other):
                c.subscribe("safety")
                assert c.state["safety"]["level"] == level


def test_stale_and_back(machine, client):
    """Klipper goes and comes back: values are told to be stale, then told anew."""
    make_ready(machine)
    client.subscribe("gpio", "status", "position")
    assert client.state["gpio"]["stale"] is False
    machine.klipper.kill()
    client.until(lambda: client.state["gpio"]["stale"] and client.state["position"]["stale"] and client.state["status"]["klipper"]["state"] != "ready")
    assert "valve1" in client.state["gpio"]["pins"]
    machine.klipper.start()
    client.until(lambda: client.state["status"]["klipper"]["state"] == "ready" and not client.state["gpio"]["stale"] and not client.state["position"]["stale"], 20)
    machine.wait_ready()


def test_emergency_stop(machine, client):
    """Asked on one session, told on another; the machine stops, what waited is answered, and a reset is told too. One that did not read meanwhile
    misses no safety event."""
    make_homed(machine)
    go(machine, x=10, y=10)
    with Client(machine) as other, Raw(machine) as slow:
        slow.clog()
        other.subscribe("safety", "status")
        assert other.state["safety"]["emergency_stop_active"] is False
        moving = client.send("execute", {"command": "move", "parameters": {"x": 200, "feedrate": 1500, "wait": True}})
        wait_for("the move", lambda: steps(machine)["moving"])
        asked = time.monotonic()
        data = client.execute("emergency_stop", reason="test of the socket")["data"]
        assert data["emergency_stop_active"] is True
        assert failed(client.answer, moving).data["error_code"] in ("EMERGENCY_STOP_ACTIVE", "CANCELLED")
        assert last_step(machine) < asked + 3  # of seven; how soon is shown by test_emergency.py
        other.until(lambda: other.state["safety"]["emergency_stop_active"] and other.state["status"]["safety"]["emergency_stop_active"])
        causes = [e["cause"] for p in told(other, "safety")[1:] for e in p["events"]]
        assert "EMERGENCY_STOP" in causes, told(other, "safety")
        client.execute("reset")
        other.until(lambda: not other.state["safety"]["emergency_stop_active"])
        ids = [e["id"] for p in told(other, "safety") for e in p["events"]]
        assert ids == list(range(ids[0], ids[0] + len(ids))), "safety events left out or told twice"
        messages = slow.messages(lambda m: ids[-1] in [e["id"] for e in m.get("params", {}).get("events", []) if isinstance(e, dict)])
        late = [e["id"] for m in messages if m.get("method") == KINDS["safety"] for e in m["params"]["events"]]
        assert slow.code is None and late[-len(ids):] == ids
    make_ready(machine)


def test_example_of_the_docs(machine):
    """The program in docs/websocket.md runs as it stands there, but for the port."""
    make_homed(machine)
    go(machine, x=10, y=10)
    text = (rig.REPO / "docs" / "websocket.md").read_text()
    program = text.split("```python\n")[1].split("```")[0].replace("127.0.0.1:7180", f"127.0.0.1:{machine.port}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and lines[0].startswith("at {") and lines[-1] == "moved", (done.stdout, done.stderr)
    still(machine)
    assert abs(axis(machine, "x") - 50) <= X_STEP


# ---- frames --------------------------------------------------------------------------------------------------------------

def closed(client, timeout=30.0):
    """The close code; what comes before it is passed over."""
    with pytest.raises(ConnectionClosed) as e:
        while True:
            client.ws.recv(timeout=timeout)
    return e.value.rcvd.code if e.value.rcvd else None


def test_fragments_and_pings(client):
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "execute", "params": {"command": "get_version"}})
    client.ws.send(text[i:i + 7] for i in range(0, len(text), 7))
    assert client.read()["result"]["data"]["api_version"] == "v1"
    client.ws.send(character for character in text)
    assert client.read()["id"] == 1
    assert client.ws.ping(b"x" * 125).wait(5)
    padded = json.dumps({"jsonrpc": "2.0", "id": 2, "method": "get_status"})
    client.ws.send(padded + " " * (MESSAGE_MAX - len(padded)))  # the longest there may be
    assert client.read()["id"] == 2


@pytest.mark.parametrize("send, codes", [
    (lambda ws: ws.send(b"{}"), {1003}),
    (lambda ws: ws.send(" " * (MESSAGE_MAX + 1)), {1009}),
    (lambda ws: ws.send(" " * 4000 for _ in range(20)), {1009, None}),
    (lambda ws: ws.send(" " * 3000000), {1009, None}),  # None: reset while it was still sending, before it could read why
], ids=["binary", "long", "long-fragments", "endless"])
def test_refused_messages(machine, send, codes):
    with Client(machine) as c:
        try:
            send(c.ws)
        except ConnectionClosed:
            pass  # closed while it was still sending
        assert closed(c) in codes


@pytest.mark.parametrize("data", [
    frame(Opcode.TEXT, b"\xff\xfe\xfd"),
    b"\xc1\x82abcd{}",          # a reserved bit: compression that nobody agreed on
    frame(Opcode.CONT, b"{}"),
    b"\x83\x80abcd",            # a reserved opcode
    b"\x09\x80abcd",            # a ping in fragments
    b"\x89\xfe\x01\x00abcd" + b"x" * 256,  # a ping that is too long
    b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xffabcd" + b"x" * 1000,  # a length without end
    b"\xff" * 5000,
    bytes(range(256)) * 16,
], ids=["text", "compressed", "continuation", "opcode", "ping-fragment", "ping-long", "endless", "ones", "counting"])
def test_garbage_frames(machine, data):
    """The session ends; nothing else does."""
    with Client(machine) as c, Client(machine) as other:
        c.ws.socket.sendall(data)
        closed(c)
        assert other.ask("get_status")["status"] == "success"


PIECES = ["{", "}", "[", "]", ",", ":", "null", "true", "-0", "1e999", "1e-5", '""', '"\\u0000"', '"\\ud800"', "\\", '"', "\x00", "ä", "9" * 40,
          '"jsonrpc"', '"2.0"', '"id"', '"method"', '"params"', '"events"', '"command"', '"parameters"', '"position"', '"pin"']
SEEDS = ['{"jsonrpc": "2.0", "id": 1, "method": "get_status"}',
         '{"jsonrpc": "2.0", "id": "a", "method": "subscribe", "params": {"events": ["position", "safety", "queue"]}}',
         '{"jsonrpc": "2.0", "id": null, "method": "unsubscribe", "params": {"events": ["position"]}}',
         '{"jsonrpc": "2.0", "id": 2, "method": "execute", "params": {"command": "gpio_read", "parameters": {"pin": "light", "live": true}}}',
         '[{"jsonrpc": "2.0", "id": 3, "method": "get_status"}, {"jsonrpc": "2.0", "method": "nix"}, 5]']


def drawn(random):
    """A message that is nearly right."""
    text = random.choice(SEEDS)
    for _ in range(random.choice([1, 1, 2, 5])):
        at = random.randrange(len(text) + 1)
        text = text[:at] + random.choice([*PIECES, random.choice(SEEDS)]) + text[at + random.choice([0, 0, 1, 5, 20]):]
    return text


def test_drawn_messages(machine):
    """Messages nearly right, in pieces, on a session that is also subscribed: each gets a well-formed response or none, and nothing breaks."""
    seed = Random().randrange(2**32)
    random = Random(seed)
    with nothing_reaches_klipper(machine), Client(machine) as c:
        for i in range(20000 if rig.long_run() else 400):
            text = drawn(random)
            c.ws.send(text if random.random() < 0.7 else iter([text[:3], text[3:]]))
            c.ws.send(json.dumps({"jsonrpc": "2.0", "id": f"end {i}", "method": "get_status"}))
            while True:
                answer = c.read()
                if isinstance(answer, dict) and answer.get("id") == f"end {i}":
                    break
                for row in answer if isinstance(answer, list) else [answer]:
                    assert row["jsonrpc"] == "2.0" and "id" in row and ("error" in row) != ("result" in row), (seed, i, text, row)


# ---- many, and slow ------------------------------------------------------------------------------------------------------

def moonraker_pushes(machine, until):
    """X of every push of Klipper's live position, as Moonraker tells it to a subscriber of its own, in a thread; until() ends it."""
    got = []

    def run():
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(machine.moonraker_socket))
            s.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "printer.objects.subscribe",
                                  "params": {"objects": {"motion_report": ["live_position"]}}}).encode() + b"\x03")
            s.settimeout(0.5)
            rest = b""
            while not until():
                try:
                    *frames, rest = (rest + s.recv(65536)).split(b"\x03")
                except TimeoutError:
                    continue
                for text in frames:
                    j = json.loads(text)
                    status = j["params"][0] if j.get("method") == "notify_status_update" else j.get("result", {}).get("status", {}) if j.get("id") == 1 else {}
                    if "live_position" in status.get("motion_report", {}):
                        got.append(round(status["motion_report"]["live_position"][0], 6))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return got, thread


def changes(values):
    """The values without repeats of the one before."""
    return [v for i, v in enumerate(values) if not i or v != values[i - 1]]


@pytest.fixture(name="opened")
def _opened():
    """What a test opens by opened.enter_context is closed with it."""
    with contextlib.ExitStack() as stack:
        yield stack


def test_many_and_stalled(machine, opened):
    """98 that read, two that do not. Every one that reads is told every push of Klipper; one that was stalled and reads again is told the same state in fewer
    messages; one that never reads is dropped. The 101st is refused."""
    make_homed(machine)
    go(machine, x=10, y=10)
    over = threading.Event()
    pushed, thread = moonraker_pushes(machine, over.is_set)
    dead, slow = (opened.enter_context(Raw(machine)) for _ in range(2))
    clients = [opened.enter_context(Client(machine, max_queue=None, ping_interval=None)) for _ in range(98)]
    with pytest.raises(InvalidStatus) as e:
        Client(machine)
    assert e.value.response.status_code == 429 and int(e.value.response.headers["Retry-After"]) > 0
    assert json.loads(e.value.response.body)["error_code"] == "RATE_LIMIT_EXCEEDED"
    for c in clients:
        c.subscribe("position")
    dead.clog()
    slow.clog()
    ok(post(machine, "motion/move", {"x": 60, "feedrate": 1000, "wait": True}))
    still(machine)
    messages = slow.messages(lambda m: m.get("method") == KINDS["position"] and m["params"].get("position", {}).get("x") == 60)
    assert slow.code is None
    for c in clients:
        c.until(lambda c=c: c.state["position"]["position"]["x"] == 60 and c.state["position"]["commanded"]["x"] == 60)
    wait_for("Klipper's last push", lambda: pushed and pushed[-1] == 60)
    over.set()
    thread.join()
    sequences = [[p for p in told(c, "position")] for c in clients]
    xs = changes([p["position"]["x"] for p in sequences[0] if "x" in p.get("position", {})])
    pushed = changes(pushed)
    count = min(len(xs), len(pushed))  # the two did not subscribe at the same moment
    assert count >= 5 and xs[-count:] == pushed[-count:], (xs, pushed)
    first = sequences[0][1:]
    for sequence in sequences:  # from the first change on: they did not subscribe at the same moment
        assert sequence[-len(first):] == first or sequence[1:] == first[-len(sequence) + 1:]
    state, updates = {}, [m["params"] for m in messages if m.get("method") == KINDS["position"]]
    for params in updates:
        state = merge_patch(state, params)
    assert state["position"] == clients[0].state["position"]["position"] and state["limits"] == clients[0].state["position"]["limits"]
    assert len(updates) < len(first)
    assert len([m for m in messages if "result" in m]) == slow.count  # responses are never left out
    for c in clients[:20]:
        c.close()
    Client(machine).close()  # there is room again
    wait_for("the stalled one is dropped", lambda: "closed=1013" in machine.shim.output(), 60)
    dead.messages()
    assert dead.code == 1013


def test_flood_is_dropped(machine, opened):
    """Responses that nobody reads are kept up to a limit: then 1013, and what was kept is gone."""
    flood = opened.enter_context(Raw(machine))
    before = machine.shim.output().count("closed=1013")
    with contextlib.suppress(OSError):
        for _ in range(3000):
            flood.send("get_status")
    wait_for("the flood is dropped", lambda: machine.shim.output().count("closed=1013") > before)
    answers = flood.messages()
    assert flood.code == 1013 and len(answers) < flood.count
    assert flood.bytes < 700000  # what the kernel held, at most; what waited in the server is not sent any more
    with Client(machine) as c:
        assert c.ask("get_status")["status"] == "success"


@pytest.mark.skipif(not rig.long_run(), reason="45 s of silence")
def test_dead_peers_are_closed(machine, opened):
    """A peer that answers no ping is gone; one that does, and says nothing else, stays."""
    dead = opened.enter_context(Raw(machine))
    alive = opened.enter_context(Client(machine, ping_interval=None, max_queue=None))
    dead.socket.settimeout(60)
    began = time.monotonic()
    with contextlib.suppress(IndexError, ValueError, OSError):  # the end of the stream, with or without a close frame
        dead.messages()
    assert 30 < time.monotonic() - began < 60
    assert alive.ask("get_status")["status"] == "success"


def test_server_end(machine, opened):
    """SIGTERM: every session is told 1001. Runs last: the shim is another one then."""
    clients = [opened.enter_context(Client(machine)) for _ in range(5)]
    begun = socket.create_connection(("127.0.0.1", machine.port))
    begun.sendall(b"GET /ws/v1 HTTP/1.1\r\n")
    clients[0].subscribe(*KINDS)
    clients[1].send("execute", {"command": "gpio_read", "parameters": {"pin": "light", "live": True}})
    assert machine.shim.stop() == []
    assert [closed(c) for c in clients] == [1001] * 5
    begun.close()
    machine.shim.start()
    machine.wait_ready()
    ok(machine.get("/api/v1/status"))
