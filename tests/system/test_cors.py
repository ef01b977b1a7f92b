# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in headers: pages of other origins, idempotency keys, request ids; and what the log says of them.

Invariant: a request that may not act is refused before anything reaches Klipper, and what acts twice is counted at the simulated machine.
"""
import http.client
import json
import socket
import time

import pytest

import helpers
import rig
from helpers import Later, get, http_text, nothing_reaches_klipper, ok, pin, post, raw, refused, show, wait_for

KEY, OWN_KEY = "sesame-0123456789-moonraker", "sesame-9876543210-ours"
LISTED, LISTED_TOO, FOREIGN = "http://bench.local", "https://panel.local:8443", "http://evil.example"
WRITE = ("gpio/write", {"pin": "valve1", "value": 1, "wait": True})  # so that nothing of it is still under way when a test looks


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(klipperplace_extra=f"[security]\ncors_origins: {LISTED}, {LISTED_TOO}/, not-an-origin, *\n",
                 shim_env={"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "MOONRAKER_API_KEY": KEY, "API_KEY": OWN_KEY, "API_KEY_ENABLED": "false"}) as r:
        yield r


def preflight(machine, path, origin, method="POST", headers="content-type"):
    return machine.request("OPTIONS", path, headers={"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers})


def cors_headers(answer):
    return {k: v for k, v in answer[2].items() if k.startswith("access-control-")}


# ---- pages of other origins --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("origin", [LISTED, LISTED_TOO])
def test_listed_page(machine, origin):
    status, _, headers = preflight(machine, "/api/v1/gpio/write", origin)
    assert status == 204 and headers["access-control-allow-origin"] == origin and headers["vary"] == "Origin"
    assert headers["access-control-allow-methods"] == "POST" and int(headers["access-control-max-age"]) > 0
    allowed = {h.strip().lower() for h in headers["access-control-allow-headers"].split(",")}
    assert {"content-type", "idempotency-key", "x-request-id", "x-api-key"} <= allowed and "*" not in allowed
    assert preflight(machine, "/api/v1/auth/keys/7", origin)[2]["access-control-allow-methods"] == "GET, DELETE, PUT"
    answer = get(machine, "version", headers={"Origin": origin})
    assert ok(answer) and answer[2]["access-control-allow-origin"] == origin and "x-request-id" in answer[2]["access-control-expose-headers"].lower()
    answer = post(machine, *WRITE, headers={"Origin": origin})
    assert ok(answer)["value"] == 1 and answer[2]["access-control-allow-origin"] == origin
    assert post(machine, "gpio/write", {"bogus": 1}, headers={"Origin": origin})[2]["access-control-allow-origin"] == origin  # errors can be read as well
    assert get(machine, "nothing", headers={"Origin": origin})[2]["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer[2]


@pytest.mark.parametrize("origin", [FOREIGN, "null", LISTED + ".evil.example", LISTED + ":81", "https://bench.local", "not-an-origin", "*",
                                    "http://bench.local/"])
def test_foreign_page(machine, origin):
    """It can neither write nor read an answer; the preflight tells the browser so."""
    with nothing_reaches_klipper(machine):
        for answer in (preflight(machine, "/api/v1/gpio/write", origin), post(machine, *WRITE, headers={"Origin": origin}),
                       machine.request("DELETE", "/api/v1/queue/clear", headers={"Origin": origin})):
            refused(answer, "PERMISSION_DENIED")
            assert not cors_headers(answer)
        answer = get(machine, "version", headers={"Origin": origin})
        assert ok(answer) and not cors_headers(answer)  # the browser keeps it from the page


def test_own_page(machine):
    own = f"http://127.0.0.1:{machine.port}"
    assert preflight(machine, "/api/v1/gpio/write", own)[0] == 204
    assert ok(post(machine, *WRITE, headers={"Origin": own}))
    refused(post(machine, *WRITE, headers={"Origin": f"http://127.0.0.1:{machine.port + 1}"}), "PERMISSION_DENIED")


@pytest.mark.parametrize("origin, status", [(LISTED, 101), (LISTED_TOO, 101), (FOREIGN, 403), ("null", 403), (None, 101)])
def test_websockets_of_pages(machine, origin, status):
    """The same judge stands before /ws/v1; and an open one is told by the metrics."""
    headers = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    with socket.create_connection(("127.0.0.1", machine.port), timeout=10) as s:
        s.sendall(http_text("GET", "/ws/v1", headers=[*headers, *([f"Origin: {origin}"] if origin else [])]))
        assert int(s.recv(4096).split()[1]) == status
        assert f'klipperplace_connections{{kind="websocket"}} {int(status == 101)}\n' in machine.get("/metrics")[1]
    wait_for("closed", lambda: 'kind="websocket"} 0\n' in machine.get("/metrics")[1])


def test_preflight_of_what_is_not_there(machine):
    refused(preflight(machine, "/api/v1/nothing", LISTED), "NOT_FOUND")
    answer = machine.request("OPTIONS", "/api/v1/gpio/write")
    refused(answer, "METHOD_NOT_ALLOWED")
    assert answer[2]["allow"] == "POST"
    refused(machine.request("OPTIONS", "/api/v1/gpio/write", headers={"Origin": LISTED}), "METHOD_NOT_ALLOWED")


def test_forms_cannot_write(machine):
    """What a page can send without a preflight has another type."""
    with nothing_reaches_klipper(machine):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"):
            refused(post(machine, "gpio/write", show(WRITE[1]), headers={"Content-Type": kind}), "UNSUPPORTED_MEDIA_TYPE")


def test_none_listed_and_log_as_text(make_rig):
    """No page but its own where CORS is switched off, whatever the list says; and the other form of the log, with only what its level asks for."""
    r = make_rig(klipperplace_extra=f"[api]\nenable_cors: false\n[security]\ncors_origins: {LISTED}\n", shim_env={"LOG_LEVEL": "info"})
    refused(preflight(r, "/api/v1/gpio/write", LISTED), "PERMISSION_DENIED")
    answer = get(r, "version", headers={"Origin": LISTED, "X-Request-Id": "quiet"})
    assert ok(answer) and not cors_headers(answer) and "vary" not in answer[2]
    refused(post(r, "gpio/write", {"pin": "nothing", "value": 1}, headers={"X-Request-Id": "loud"}), "PIN_NOT_FOUND")
    line = wait_for("the line", lambda: [l for l in r.shim.output().splitlines() if "request_id=loud" in l])[0]
    assert line.startswith("info rest request_id=loud command=gpio_write ") and "quiet" not in r.shim.output()


# ---- idempotency keys ----------------------------------------------------------------------------------------------------------

def keyed(key, **more):
    return {"headers": {"Idempotency-Key": key, **more}}


def changes(machine, name="PD2"):
    return machine.sim_cmd("status")["pins"][name]["changes"]


def test_repeat_moves_once(machine):
    """The second answer is the first one, and the motor has made its steps once."""
    helpers.make_homed(machine)
    helpers.go(machine, x=50)
    for i in range(2):
        answer = post(machine, "motion/move", {"x": 5, "relative": True, "wait": True}, **keyed("move-1"))
        body = helpers.check_envelope(answer)
        assert body["status"] == "success" and (answer[2].get("idempotency-replayed") == "true") == (i == 1)
        first = first if i else body
        assert body == first
    assert helpers.axis(machine, "x") == pytest.approx(55, abs=helpers.X_STEP)
    ok(post(machine, "motion/move", {"x": 5, "relative": True, "wait": True}, **keyed("move-2")))
    assert helpers.axis(machine, "x") == pytest.approx(60, abs=helpers.X_STEP)


def test_key_stands_for_one_request(machine):
    before = changes(machine)
    ok(post(machine, "gpio/write", {"pin": "valve1", "value": 0, "wait": True}, **keyed("k-1")))
    for path, body in (("gpio/write", {"pin": "valve1", "value": 1}), ("actuators/off", {"pin": "valve1"}), ("gpio/write?pin=valve1", {"value": 0}),
                       ("vacuum/off", None)):
        with nothing_reaches_klipper(machine):
            answer = refused(post(machine, path, body, **keyed("k-1")), "INVALID_REQUEST")
            assert helpers.fields(answer) == {"Idempotency-Key": "INVALID_REQUEST"}
    assert changes(machine) - before in (0, 1)


def test_bad_keys(machine):
    for key in ("", "a b", "x" * 256, "\xe4"):
        with nothing_reaches_klipper(machine):
            refused(post(machine, *WRITE, **keyed(key)), "INVALID_REQUEST")
    ok(post(machine, *WRITE, **keyed("x" * 255)))


def test_refusal_leaves_the_key_free(machine):
    refused(post(machine, "gpio/write", {"pin": "valve1", "value": 7}, **keyed("again")), "INVALID_PARAMETER")
    answer = post(machine, *WRITE, **keyed("again"))
    assert ok(answer)["value"] == 1 and "idempotency-replayed" not in answer[2]


def test_repeats_at_the_same_time(machine):
    """All wait for the one that came first."""
    helpers.make_homed(machine)
    helpers.go(machine, x=50)
    waiting = [Later(post, machine, "motion/move", {"x": 10, "relative": True, "feedrate": 1200, "wait": True}, **keyed("at-once")) for _ in range(8)]
    bodies = [helpers.check_envelope(w.answer()) for w in waiting]
    assert len({b["command_id"] for b in bodies}) == 1 and bodies[0]["data"]["completed"] is True
    assert helpers.axis(machine, "x") == pytest.approx(60, abs=helpers.X_STEP)
    assert sum(w.result[2].get("idempotency-replayed") == "true" for w in waiting) == 7


def test_client_that_left_comes_back_for_its_answer(machine):
    """Its move has not begun when it leaves, and is done all the same: the key says that it will ask again."""
    helpers.make_homed(machine)
    helpers.go(machine, x=50)
    first = Later(post, machine, "motion/move", {"x": 60, "feedrate": 120, "wait": True})
    wait_for("the first move", lambda: machine.sim_cmd("steps x")["moving"])

    def taken():
        return ok(get(machine, "status"))["queue"]["size"]
    before = taken()
    body = show({"x": 5, "relative": True, "wait": True})
    head = http_text("POST", "/api/v1/motion/move", body, ["Idempotency-Key: left"])
    for _ in range(3):  # the last two follow the first, and leave as well
        with socket.create_connection(("127.0.0.1", machine.port), timeout=10) as s:
            s.sendall(head)
            wait_for("it waits behind the first move", lambda: taken() > before or first.done)
    answer = post(machine, "motion/move", body, headers={"Idempotency-Key": "left", "Content-Type": "application/json"})
    assert ok(answer)["completed"] is True and answer[2]["idempotency-replayed"] == "true"
    ok(first.answer())
    assert helpers.axis(machine, "x") == pytest.approx(65, abs=helpers.X_STEP)


def test_emergency_stop_needs_no_key(machine):
    """It is carried out each time, whatever its headers say."""
    for i in range(2):
        answer = post(machine, "system/emergency_stop", {"reason": f"try {i}"}, **keyed("stop"))
        assert ok(answer)["emergency_stop_active"] is True and "idempotency-replayed" not in answer[2]
    answer = post(machine, *WRITE, **keyed("while-stopped"))
    refused(answer, "EMERGENCY_STOP_ACTIVE")
    ok(post(machine, "system/reset", timeout=40))
    machine.wait_ready(20)
    ok(post(machine, *WRITE, **keyed("while-stopped")))
    wait_for("the valve", lambda: pin(machine, "PD2") == 1)


def test_keys_are_bounded(machine):
    """More than are kept is refused; nothing that may be asked again is forgotten. The count is the contract's, so that this takes a long run."""
    if not rig.long_run():
        pytest.skip("32768 requests: scripts/test --long")
    conn, statuses = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=30), []
    for i in range(33000):
        conn.request("DELETE", "/api/v1/queue/clear", headers={"Idempotency-Key": f"many-{i}"})
        answer = conn.getresponse()
        answer.read()
        statuses.append(answer.status)
        if answer.status == 429:
            break
    assert statuses[-1] == 429 and len(statuses) > 15000 and int(answer.headers["retry-after"]) > 0
    assert "idempotency-replayed" in machine.request("DELETE", "/api/v1/queue/clear", headers={"Idempotency-Key": "many-0"})[2]


# ---- request ids and the log ------------------------------------------------------------------------------------------------------

def log_lines(machine):
    return [json.loads(line) for line in machine.shim.output().splitlines() if line.startswith("{")]


def test_request_ids(machine):
    for given, echoed in (("abc-1", "abc-1"), ("a b\tc", "a_b_c"), ("\xe4\xff", "__"), ("x" * 300, "x" * 128)):
        assert get(machine, "version", headers={"X-Request-Id": given})[2]["x-request-id"] == echoed
    body, headers = get(machine, "version")[1:]
    assert headers["x-request-id"] == body["command_id"]


def test_log_lines_are_json(machine):
    """Every line of the shim is one object, and a request's has its id."""
    refused(post(machine, "gpio/write", {"pin": "nothing", "value": 1}, headers={"X-Request-Id": 'log-"1"'}), "PIN_NOT_FOUND")
    lines = wait_for("the line", lambda: [l for l in log_lines(machine) if l.get("request_id") == 'log-"1"'])
    assert lines[0]["component"] == "rest" and lines[0]["level"] == "info" and abs(lines[0]["time"] - time.time()) < 60
    words = dict(w.split("=", 1) for w in lines[0]["text"].split())
    assert words["command"] == "gpio_write" and words["code"] == "PIN_NOT_FOUND" and words["status"] == "404" and int(words["us"]) > 0
    for line in machine.shim.output().splitlines():
        fields = json.loads(line)
        assert {"time", "level", "component", "text"} <= set(fields) <= {"time", "level", "component", "text", "request_id"}
        assert fields["level"] in ("debug", "info", "warning", "error", "critical")


def test_no_key_in_the_log(machine):
    """Not where the configuration has it, not where a client sends it, in no header, query or body."""
    for secret in (KEY, OWN_KEY):
        get(machine, f"version?token={secret}", headers={"X-API-Key": secret, "Authorization": f"Bearer {secret}", "X-Request-Id": secret})
        post(machine, "system/pause", {secret: secret}, headers={"X-API-Key": secret})
        post(machine, "gpio/write", {"pin": secret, "value": 1}, **keyed(secret))
        get(machine, f"gpio/read?pin={secret}")
        raw(machine, http_text("GET", f"/api/v1/{secret}", headers=["Connection: close", f"X-API-Key: {secret}"]))
        raw(machine, f"GET /{secret} HTTP/9.9\r\nX-API-Key: {secret}\r\n\r\n".encode())
    text = machine.shim.output()
    assert "sesame" not in text and '"***"' in text  # the request id that was one


def test_scripts_are_counted_by_moonraker_too(machine):
    """The last word on repeats: what Moonraker was given."""
    helpers.make_homed(machine)
    since = time.time()
    for _ in range(5):
        ok(post(machine, "gpio/write", {"pin": "valve2", "value": 1, "wait": True}, **keyed("five")))
    assert len([s for s in machine.scripts(since) if "valve2" in s]) == 1
