# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: the right code, all faults in one answer, and nothing of it reaches Klipper.

Invariant: around every request here Moonraker's store of G-code stays empty and the microcontroller's pins and motors stay as they are.
"""
import json
import socket
import urllib.parse

import pytest

import helpers
from helpers import check_envelope, fields, get, go, http_text, nothing_reaches_klipper, ok, post, raw, refused

MOVE = "/api/v1/motion/move"
WRITE = "/api/v1/gpio/write"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def homed(machine):
    helpers.make_homed(machine)
    go(machine, x=50, y=50)
    return machine


@pytest.fixture
def quiet(homed):
    """The machine, which a test must leave untouched."""
    with nothing_reaches_klipper(homed):
        yield homed
    assert homed.klippy_state()[0] == "ready"


@pytest.mark.smoke
def test_a_refused_first_request_sends_nothing(make_rig):
    """Also before anything else was asked of a machine that has just become ready."""
    machine = make_rig()
    with nothing_reaches_klipper(machine):
        refused(post(machine, "motion/move", {"x": 10}), "HOMING_REQUIRED")
        refused(post(machine, "gpio/write", {"pin": "valve1", "value": 7}), "INVALID_PARAMETER")
    helpers.tell_position(machine)
    with nothing_reaches_klipper(machine):
        refused(post(machine, "motion/move", {"x": 1000}), "POSITION_OUT_OF_BOUNDS")


# ---- parameters ------------------------------------------------------------------------------------------------------------

WRONG = [  # path below /api/v1, body, code, fields at fault
    ("motion/move", {}, "MISSING_PARAMETER", {"x"}),
    ("motion/move", {"feedrate": 1000}, "MISSING_PARAMETER", {"x"}),
    ("motion/move", {"x": "10"}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": True}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": None}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": [10]}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": {"mm": 10}}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": "NaN"}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": "10\nM112"}, "INVALID_PARAMETER", {"x"}),
    ("motion/move", {"x": 1e300}, "POSITION_OUT_OF_BOUNDS", {"x"}),
    ("motion/move", {"x": -1e300, "relative": True}, "POSITION_OUT_OF_BOUNDS", {"x"}),
    ("motion/move", {"x": 300.0000011}, "POSITION_OUT_OF_BOUNDS", {"x"}),
    ("motion/move", {"x": 10, "feedrate": 1e300}, "FEEDRATE_OUT_OF_BOUNDS", {"feedrate"}),
    ("motion/move", {"x": 10, "feedrate": 0.5}, "FEEDRATE_OUT_OF_BOUNDS", {"feedrate"}),
    ("motion/move", {"x": 10, "relative": 1}, "INVALID_PARAMETER", {"relative"}),
    ("motion/move", {"x": 10, "wait": "true"}, "INVALID_PARAMETER", {"wait"}),
    ("motion/move", {"x": 10, "e": 5}, "INVALID_PARAMETER", {"e"}),
    ("motion/move", {"x": 10, "X": 11}, "INVALID_PARAMETER", {"X"}),
    ("motion/move", {"x": 10, "parallel": True}, "INVALID_PARAMETER", {"parallel"}),
    ("motion/move", {"a": 1e7}, "POSITION_OUT_OF_BOUNDS", {"a"}),
    ("motion/move", {"x": 10, "timeout_s": 0}, "INVALID_PARAMETER", {"timeout_s"}),
    ("motion/move", {"x": 10, "timeout_s": 601}, "INVALID_PARAMETER", {"timeout_s"}),
    ("motion/move", {"x": 10, "nozzle": 1}, "INVALID_PARAMETER", {"nozzle"}),
    ("motion/move", {"x": 10, "nozzle": "N7"}, "NOZZLE_NOT_FOUND", {"nozzle"}),
    ("motion/move", {"x": 10, "nozzle": "N1\nG28"}, "NOZZLE_NOT_FOUND", {"nozzle"}),
    ("motion/home", {"axes": ["q"]}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": ["x", "x"]}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": "x"}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": [1]}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": [[]]}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": [["x"], ["y"]]}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": ["x\nM112"]}, "INVALID_PARAMETER", {"axes"}),
    ("motion/home", {"axes": {"x": 1}}, "INVALID_PARAMETER", {"axes"}),
    ("motion/wait", {"timeout": 0}, "INVALID_PARAMETER", {"timeout"}),
    ("motion/wait", {"timeout": 1e9}, "INVALID_PARAMETER", {"timeout"}),
    ("gpio/write", {}, "MISSING_PARAMETER", {"pin", "value"}),
    ("gpio/write", {"pin": "valve1"}, "MISSING_PARAMETER", {"value"}),
    ("gpio/write", {"value": 1}, "MISSING_PARAMETER", {"pin"}),
    ("gpio/write", {"pin": "valve1", "value": 2}, "INVALID_PARAMETER", {"value"}),
    ("gpio/write", {"pin": "valve1", "value": 0.5}, "INVALID_PARAMETER", {"value"}),
    ("gpio/write", {"pin": "valve1", "value": "1"}, "INVALID_PARAMETER", {"value"}),
    ("gpio/write", {"pin": 4, "value": 1}, "INVALID_PARAMETER", {"pin"}),
    ("gpio/write", {"pin": ["valve1"], "value": 1}, "INVALID_PARAMETER", {"pin"}),
    ("gpio/write", {"pin": "", "value": 1}, "PIN_NOT_FOUND", {"pin"}),
    ("vacuum/set", {}, "MISSING_PARAMETER", {"power"}),
    ("vacuum/set", {"power": -1}, "PWM_OUT_OF_BOUNDS", {"power"}),
    ("vacuum/on", {"power": 100.5}, "INVALID_PARAMETER", {"power"}),
    ("pnp/pick", {"dwell": -1}, "INVALID_PARAMETER", {"dwell"}),
    ("pnp/pick", {"z": -1000}, "POSITION_OUT_OF_BOUNDS", {"z"}),
    ("pnp/place", {"blow_off": 1}, "INVALID_PARAMETER", {"blow_off"}),  # no such pin on these nozzles
    ("feeder/advance", {"feeder": "feeder1", "distance": "4"}, "INVALID_PARAMETER", {"distance"}),
]


@pytest.mark.smoke
@pytest.mark.parametrize("path, body, code, wrong", WRONG, ids=[f"{w[0]}-{json.dumps(w[1])[:40]}" for w in WRONG])
def test_wrong_parameters(quiet, path, body, code, wrong):
    answer = refused(post(quiet, path, body), code)
    assert wrong <= set(fields(answer))
    assert answer["command"] != "unknown"


ALL_AT_ONCE = [
    ("motion/move", {"x": "a", "y": None, "feedrate": -1, "wait": 3, "bogus": 1, "timeout_s": 9999}, {"x", "y", "feedrate", "wait", "bogus", "timeout_s"}),
    ("motion/move", {"x": 1000, "y": -5, "z": 77, "feedrate": 30000.5}, {"x", "y", "z", "feedrate"}),
    ("motion/move", {"x": 1000, "y": "a", "bogus": 1}, {"x", "y", "bogus"}),
    ("gpio/write", {"pin": "nothing", "value": 5, "state": 1}, {"pin", "value", "state"}),
    ("pnp/pick_and_place", {"x": 1000, "y": "b", "nozzle": "N9", "retries": 99}, {"y", "place_x", "place_y", "nozzle", "retries"}),
]


@pytest.mark.smoke
@pytest.mark.parametrize("path, body, wrong", ALL_AT_ONCE, ids=range(len(ALL_AT_ONCE)))
def test_all_faults_in_one_answer(quiet, path, body, wrong):
    answer = check_envelope(post(quiet, path, body))
    assert answer["status"] == "error"
    found = [e["field"] for e in answer["details"]["errors"]]
    assert set(found) >= wrong, found
    assert answer["error_code"] == answer["details"]["errors"][0]["code"]
    for e in answer["details"]["errors"]:
        assert e["code"] in helpers.CODES and e["message"]


# ---- JSON ------------------------------------------------------------------------------------------------------------------

MALFORMED = [b"{", b'{"x":1,}', b'{"x":1', b'{x:1}', b"{'x':1}", b"[1]", b"[]", b'"x"', b"1", b"null", b"x", b'{"x":NaN}', b'{"x":Infinity}', b'{"x":-Infinity}',
             b'{"x":1e999}', b'{"x":-1e999}', b'{"x":01}', b'{"x":+1}', b'{"x":.5}', b'{"x":0x10}', b'{"x":1}{"y":2}', b'{"x":1} y', b'{"x":10,"x":11}',
             b'\xff\xfe{"x":1}', b'{"\xff":1}', b'{"x":"\xc3"}', b"\x00", b'{"x":1}\x00', b" ", b"[" * 100000, b'{"a":' * 50000, b'{"x":1' + b"0" * 400 + b"}",
             b'{"x":1//c\n}']


@pytest.mark.parametrize("body", MALFORMED, ids=[repr(m[:20]) for m in MALFORMED])
def test_malformed_json(quiet, body):
    refused(quiet.request("POST", MOVE, body, JSON), "INVALID_REQUEST")


@pytest.mark.smoke
def test_numbers_that_are_none(quiet):
    for text in ("NaN", "Infinity", "-Infinity", "1e999", "nan", "inf"):
        refused(quiet.request("POST", MOVE, f'{{"x": {text}}}', JSON), "INVALID_REQUEST")
        refused(quiet.request("POST", MOVE, f'{{"x": 10, "feedrate": {text}}}', JSON), "INVALID_REQUEST")
        refused(quiet.request("POST", MOVE, f'{{"x": "{text}"}}', JSON), "INVALID_PARAMETER")


def test_empty_body(quiet):
    """No body is no parameters: the parameters are what is missing."""
    for path, wrong in ((MOVE, {"x"}), (WRITE, {"pin", "value"})):
        for headers in ({}, JSON):
            assert wrong <= set(fields(refused(quiet.request("POST", path, None, headers), "MISSING_PARAMETER")))
            assert wrong <= set(fields(refused(quiet.request("POST", path, "", headers), "MISSING_PARAMETER")))
        refused(quiet.request("POST", path, "{}", JSON), "MISSING_PARAMETER")


def test_repeated_names(quiet):
    refused(quiet.request("POST", MOVE, '{"x": 1, "y": 2, "x": 3}', JSON), "INVALID_REQUEST")
    refused(get(quiet, "gpio/read?pin=valve1&pin=valve2"), "INVALID_PARAMETER")
    refused(quiet.request("POST", WRITE + "?pin=valve1", '{"pin": "valve2", "value": 1}', JSON), "INVALID_PARAMETER")


def test_too_many_parameters(quiet):
    refused(post(quiet, "motion/move", {f"p{i}": i for i in range(1000)}), "INVALID_REQUEST", "INVALID_PARAMETER")
    refused(get(quiet, "gpio/read?" + "&".join(f"p{i}=1" for i in range(200))), "INVALID_REQUEST", "INVALID_PARAMETER")


# ---- names -----------------------------------------------------------------------------------------------------------------

NAMES = ["light\nG1 X0", "light;G28", "light\rM112", "valve1 VALUE=1", "valve1\tVALUE=1", "valve1\n", "\nvalve1", ";", "\n", "valve1\u0000", "valve1\u2028G28", "väl", "💡",
         "../../printer/emergency_stop", "%0AM112", "nothing", "PZ99", "mcu9:PD2", "!!PD2", "!", "PD2 ", "n" * 64, "n" * 10000, "{printer}", "$(reboot)", "'valve1'",
         'valve1"', "output_pin  valve1", "output_pin", "toolhead", "manual_stepper feeder1"]


@pytest.mark.smoke
@pytest.mark.parametrize("name", NAMES, ids=[repr(n[:16]) for n in NAMES])
def test_names_that_no_pin_has(quiet, name):
    codes = ["PIN_NOT_FOUND"] if "\0" not in name else ["PIN_NOT_FOUND", "INVALID_REQUEST"]
    body = refused(post(quiet, "gpio/write", {"pin": name, "value": 1}), *codes)
    assert all(c >= " " for c in body["error_message"])
    if "\0" not in name:
        assert fields(body) == {"pin": "PIN_NOT_FOUND"}
        refused(get(quiet, "gpio/read?" + urllib.parse.urlencode({"pin": name})), "PIN_NOT_FOUND")
        refused(get(quiet, "sensor/read?" + urllib.parse.urlencode({"sensor": name})), "SENSOR_NOT_FOUND")
        refused(post(quiet, "feeder/advance", {"feeder": name, "distance": 4}), "FEEDER_NOT_FOUND")


@pytest.mark.parametrize("query", ["pin=light%0AM112", "pin=light%3BG28", "pin=light%00", "pin=light%00%0AM112", "pin=..%2F..%2Fprinter", "pin=%", "pin=%zz", "pin=", "pin",
                                   "pin=%FF%FE"])
def test_names_in_a_query(quiet, query):
    refused(get(quiet, "gpio/read?" + query), "PIN_NOT_FOUND")


def test_query_values_are_checked_too(quiet):
    refused(get(quiet, "gpio/read"), "MISSING_PARAMETER")
    refused(get(quiet, "gpio/read?pin=valve1&live=yes"), "INVALID_PARAMETER")
    refused(get(quiet, "gpio/read?pin=valve1&bogus=1"), "INVALID_PARAMETER")
    refused(get(quiet, "position?bogus=1"), "INVALID_PARAMETER")
    refused(get(quiet, "status?x=1"), "INVALID_PARAMETER")
    refused(get(quiet, "sensor/read"), "MISSING_PARAMETER")


# ---- HTTP ------------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_two_megabytes(quiet):
    """Refused whatever it holds, with or without its length told beforehand, and also when it asks first."""
    good = b'{"x": 60, "y": 60' + b" " * (2 << 20) + b"}"
    refused(quiet.request("POST", MOVE, good, JSON), "PAYLOAD_TOO_LARGE")
    refused(quiet.request("POST", MOVE, b"x" * (2 << 20), JSON), "PAYLOAD_TOO_LARGE")
    chunk = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
    head = f"POST {MOVE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    ((status, headers, body),) = raw(quiet, head + chunk * 32 + b"0\r\n\r\n", until=1)
    refused((status, json.loads(body), headers), "PAYLOAD_TOO_LARGE")


def test_unknown_paths(quiet):
    for path in ("nothing", "motion", "motion/", "motion/move/", "motion/move/x", "motion//move", "Motion/Move", "motion/move.json", "", "../health", "..%2fhealth",
                 "motion%2Fmove", "motion/move%00", "motion/move%0A", "gpio/read_everything", "x" * 2000):
        for method in ("GET", "POST"):
            body = refused(quiet.request(method, "/api/v1/" + path), "NOT_FOUND")
            assert body["command"]
    for path in ("/", "/api", "/api/v1", "/api/v2/position", "/api/v10/position", "/index.html", "//api/v1/position", "/printer/emergency_stop", "/server/info"):
        assert quiet.get(path)[0] == 404, path


@pytest.mark.smoke
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"])
def test_wrong_method_on_a_command(quiet, method):
    for path in ("motion/move", "gpio/write", "system/emergency_stop", "vacuum/off"):
        answer = quiet.request(method, "/api/v1/" + path)
        refused(answer, "METHOD_NOT_ALLOWED")
        assert answer[2]["allow"] == "POST"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_wrong_method_on_a_read(quiet, method):
    for path in ("position", "status", "gpio/read", "gpio/read_all", "version"):
        answer = quiet.request(method, "/api/v1/" + path, "{}", JSON)
        refused(answer, "METHOD_NOT_ALLOWED")
        assert "GET" in answer[2]["allow"].replace(" ", "").split(",")
    for path in ("/health", "/ready"):
        answer = quiet.request(method, path)
        assert answer[0] == 405 and "GET" in answer[2]["allow"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "text/json", "application/xml", ""])
def test_wrong_content_type(quiet, kind):
    refused(quiet.request("POST", MOVE, '{"x": 60}', {"Content-Type": kind}), "UNSUPPORTED_MEDIA_TYPE")


def test_no_content_type(quiet):
    body = b'{"x": 60}'
    request = f"POST {MOVE} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    ((status, headers, text),) = raw(quiet, request)
    refused((status, json.loads(text), headers), "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.smoke
def test_other_origin(quiet):
    """A web page of somebody else in the operator's browser moves nothing."""
    for origin in ("http://evil.example", "https://evil.example", "null", f"http://127.0.0.1:{quiet.port + 1}", f"http://127.0.0.1:{quiet.port}.evil.example",
                   f"http://evil.example#127.0.0.1:{quiet.port}", f"x://127.0.0.1:{quiet.port}@evil.example"):
        refused(quiet.request("POST", MOVE, '{"x": 60}', {**JSON, "Origin": origin}), "PERMISSION_DENIED")
        refused(quiet.request("POST", "/api/v1/motion/home", None, {"Origin": origin}), "PERMISSION_DENIED")
    body = refused(quiet.request("POST", MOVE, '{"x": 1000}', {**JSON, "Origin": f"http://127.0.0.1:{quiet.port}"}), "POSITION_OUT_OF_BOUNDS")
    assert fields(body) == {"x": "POSITION_OUT_OF_BOUNDS"}  # its own origin is no reason


def test_good_content_types(homed):
    """What is right in other spellings is taken."""
    for kind in ("application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"):
        ok(homed.request("POST", MOVE, '{"x": 50, "y": 50}', {"Content-Type": kind}))
    ok(homed.request("POST", MOVE, '\n {"x": 5e1, "y": 50.0}\r\n ', JSON))
    ok(homed.request("POST", MOVE, '{"\\u0078": 50}', JSON))


GARBAGE = [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 60, b"GET / HTTP/9.9\r\n\r\n", b"POST /api/v1/motion/move HTTP/1.1\r\n\r\n",
           b"GET /api/v1/position HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"POST /api/v1/motion/move HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
           b"G1 X10\n" * 10, b"M112\n", b"GET " + b"a" * 60000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
           b"POST /api/v1/motion/move HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           b"POST /api/v1/motion/move HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"]


@pytest.mark.parametrize("data", GARBAGE, ids=[repr(g[:24]) for g in GARBAGE])
def test_garbage_on_the_port(quiet, data):
    """Answered or closed, never taken for a command, and everybody else is served."""
    with socket.create_connection(("127.0.0.1", quiet.port), timeout=10) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while s.recv(65536):
                pass
        except OSError:
            pass
    ok(get(quiet, "position"))


def test_header_values_do_not_split_the_answer(quiet):
    request = http_text("GET", "/api/v1/version", headers=["X-Request-Id: a\tb <script> \xe9", "Connection: close"])
    ((status, headers, body),) = raw(quiet, request)
    assert status == 200 and json.loads(body)["status"] == "success"
    assert all(" " < c <= "~" for c in headers["x-request-id"])
    answer = quiet.get("/api/v1/version", headers={"X-Request-Id": "i" * 5000})
    assert answer[0] == 200 and len(answer[2]["x-request-id"]) < 1000
