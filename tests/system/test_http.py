# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP: the envelope, connections of all sorts, many clients, slow ones and ones that leave, and the shim's own start and end.

Invariant: whatever one client does, others are served.
"""
import contextlib
import http.client
import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import helpers
import rig
from helpers import AT_ONCE_S, FAST, X_STEP, Later, axis, check_envelope, get, go, http_text, ok, post, raw, read_answers, refused, show, steps, wait_for

READS = ("position", "status", "gpio/read_all", "gpio/read?pin=valve1", "sensor/read_all", "sensor/read?sensor=vacuum1", "version")


@pytest.fixture
def homed(machine):
    return helpers.make_homed(machine)


def connect(machine, timeout=10):
    return socket.create_connection(("127.0.0.1", machine.port), timeout=timeout)


def descriptors(machine):
    return len(os.listdir(f"/proc/{machine.shim.pid}/fd"))


# ---- the envelope ------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_envelope_on_everything(homed):
    """Every command of this version, well and badly asked."""
    ids, names = set(), set()
    for path in READS:
        body = check_envelope(get(homed, path))
        assert body["status"] == "success"
        ids.add(body["command_id"])
        names.add(body["command"])
    assert names == {"get_position", "get_status", "gpio_read_all", "gpio_read", "sensor_read_all", "sensor_read", "get_version"}
    good = {"motion/move": {"x": 50, "y": 50, "feedrate": FAST}, "motion/wait": {}, "motion/home": {"axes": ["a"]}, "vacuum/on": {}, "vacuum/off": {},
            "vacuum/set": {"power": 0}, "gpio/write": {"pin": "valve1", "value": 0}, "feeder/advance": {"feeder": "feeder6", "distance": 0.01}}
    for path, body in good.items():
        answer = check_envelope(post(homed, path, body))
        assert answer["status"] == "success", answer
        assert answer["data"]["execution_time"] >= 0
        ids.add(answer["command_id"])
    for path in [*good, "pnp/pick", "pnp/place", "pnp/pick_and_place"]:
        answer = check_envelope(post(homed, path, {"bogus": 1}))
        assert answer["status"] == "error" and answer["details"]["errors"]
        ids.add(answer["command_id"])
    assert len(ids) == len(READS) + 2 * len(good) + 3
    refused(get(homed, "no/such/path"), "NOT_FOUND")
    refused(get(homed, "motion/move"), "METHOD_NOT_ALLOWED")


def test_version(machine):
    data = ok(get(machine, "version"))
    assert data["api_version"] == "v1" and data["latest_version"] == "v1" and data["supported_versions"] == ["v1"]
    assert data["deprecation_notices"] == [] and data["server_version"]


def test_request_id(machine):
    assert get(machine, "version", headers={"X-Request-Id": "abc-123"})[2]["x-request-id"] == "abc-123"
    assert post(machine, "motion/move", {"bogus": 1}, headers={"X-Request-Id": "abc-124"})[2]["x-request-id"] == "abc-124"
    assert get(machine, "nothing", headers={"X-Request-Id": "abc-125"})[2]["x-request-id"] == "abc-125"
    made = {get(machine, "version")[2]["x-request-id"] for _ in range(3)}
    assert len(made) == 3


@pytest.mark.smoke
def test_health_and_ready(machine):
    status, body, headers = machine.get("/health")
    assert status == 200 and headers["content-type"].startswith("application/json")
    assert body["moonraker_connected"] is True and body["ready"] is True
    assert machine.get("/ready")[0] == 200


def test_plain_get_of_the_websocket_path_is_answered(machine):
    ((status, _, _),) = raw(machine, http_text("GET", "/ws/v1", headers=["Connection: close"]))
    assert status == 426


def test_nothing_is_cached_on_the_way(machine):
    """A read is of now; a proxy or a browser must not keep it."""
    headers = get(machine, "position")[2]
    assert "max-age" not in headers.get("cache-control", "") and "etag" not in headers


# ---- connections -------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_keep_alive(homed):
    conn = http.client.HTTPConnection("127.0.0.1", homed.port, timeout=10)
    conn.connect()
    mine = conn.sock
    for i in range(100):
        path = READS[i % len(READS)]
        conn.request("GET", helpers.BASE + path)
        answer = conn.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["status"] == "success"
        if i % 10 == 0:
            conn.request("POST", "/api/v1/gpio/write", '{"pin": "valve2", "value": 0}', {"Content-Type": "application/json"})
            answer = conn.getresponse()
            assert answer.status == 200 and json.loads(answer.read())
        if i % 25 == 0:
            conn.request("POST", "/api/v1/motion/move", '{"bogus"', {"Content-Type": "application/json"})
            answer = conn.getresponse()
            assert answer.status == 400 and json.loads(answer.read())
        assert conn.sock is mine  # the connection was never closed by the other side
    conn.close()


@pytest.mark.smoke
def test_pipelining(homed):
    """Answers come in the order of the requests, also when one in the middle waits for the machine."""
    go(homed, x=50, y=50)
    requests = [http_text("GET", "/api/v1/version", headers=["X-Request-Id: 0"]),
                http_text("POST", "/api/v1/motion/move", show({"x": 60, "feedrate": 1200, "wait": True}), ["X-Request-Id: 1"]),
                http_text("GET", "/api/v1/position", headers=["X-Request-Id: 2"]),
                http_text("POST", "/api/v1/motion/move", show({"x": 1000}), ["X-Request-Id: 3"]),
                http_text("GET", "/health", headers=["X-Request-Id: 4"]),
                http_text("GET", "/api/v1/nothing", headers=["X-Request-Id: 5"])]
    answers = raw(homed, b"".join(requests), until=6)
    assert [a[0] for a in answers] == [200, 200, 200, 400, 200, 404]
    assert [a[1].get("x-request-id") for a in answers if "x-request-id" in a[1]] == ["0", "1", "2", "3", "4", "5"]
    assert json.loads(answers[1][2])["data"]["completed"] is True
    assert axis(homed, "x") == pytest.approx(60, abs=X_STEP)


def test_http_1_0_and_close(machine):
    ((status, headers, body),) = raw(machine, b"GET /api/v1/version HTTP/1.0\r\n\r\n")
    assert status == 200 and json.loads(body)["status"] == "success"
    ((status, headers, body),) = raw(machine, http_text("GET", "/api/v1/version", headers=["Connection: close"]))
    assert status == 200 and headers.get("connection", "").lower() == "close"


def test_bytes_that_come_one_by_one(machine):
    with connect(machine) as s:
        for b in http_text("POST", "/api/v1/motion/move", b'{"bogus": 1}'):
            s.send(bytes([b]))
        ((status, _, body),) = read_answers(s, 1)
    assert status == 400 and json.loads(body)["error_code"] == "INVALID_PARAMETER"


def test_expect_100_continue(machine):
    with connect(machine) as s:
        s.sendall(b"POST /api/v1/motion/move HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n")
        assert s.recv(65536).startswith(b"HTTP/1.1 100")
        s.sendall(b'{"bogus": 1}')
        ((status, _, _),) = read_answers(s, 1)
    assert status == 400


def test_chunked_body(homed):
    request = (b"POST /api/v1/gpio/write HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
               b"8\r\n{\"pin\": \r\n10\r\n\"valve1\", \"value\r\n4\r\n\":0}\r\n0\r\n\r\n")
    ((status, _, body),) = raw(homed, request)
    assert status == 200, body


def test_body_limit(machine):
    """Whatever is allowed to come is read; what is too long is refused, and the connection stays usable or is closed, never stuck."""
    body = b'{"bogus": "' + b"x" * 500000 + b'"}'
    refused(machine.request("POST", "/api/v1/motion/move", body, {"Content-Type": "application/json"}), "INVALID_PARAMETER")
    with connect(machine) as s:
        s.sendall(http_text("POST", "/api/v1/motion/move", b" " * (2 << 20)))
        s.sendall(http_text("GET", "/api/v1/version"))
        answers = read_answers(s, 2)
    assert [a[0] for a in answers] == [413, 200]


@pytest.mark.parametrize("data, status", [
    (b"GET /api/v1/version HTTP/9.9\r\n\r\n", 505),
    (b"POST /api/v1/motion/move HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
    (http_text("GET", "/api/v1/version", headers=["X-A: " + "a" * 40000]), 431),
    (http_text("GET", "/api/v1/version?" + "a" * 40000), 414),
])
def test_what_libmicrohttpd_refuses_itself(machine, data, status):
    """These have no envelope, and the connection is closed; all else that parses as HTTP has one. (To a bad length 0.9.75 says its head twice.)"""
    with connect(machine, timeout=60) as s:
        with contextlib.suppress(OSError):
            s.sendall(data)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while more := s.recv(65536):
                got += more
    assert int(got.split()[1]) == status and b"Connection: close" in got and b"command_id" not in got


# ---- clients that leave --------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_client_that_leaves_while_its_move_runs(homed):
    """What has begun goes on to its end, and once."""
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    with connect(homed) as s:
        s.sendall(http_text("POST", "/api/v1/motion/move", show({"x": 80, "feedrate": 1800, "wait": True})))
        wait_for("the move", lambda: steps(homed)["moving"])
    ok(get(homed, "position"))
    ok(post(homed, "motion/wait"))
    helpers.still(homed)
    assert axis(homed, "x") == pytest.approx(80, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(30 / X_STEP)


def test_client_that_leaves_before_its_move_begins(homed):
    """Nobody waits for it: it never runs."""
    go(homed, x=50, y=50)
    first = Later(post, homed, "motion/move", {"x": 80, "feedrate": 300, "wait": True})
    wait_for("the move", lambda: steps(homed)["moving"])
    for _ in range(3):
        with connect(homed) as s:
            s.sendall(http_text("POST", "/api/v1/motion/move", show({"x": 200})))
            wait_for("it waits", lambda: ok(get(homed, "status"))["queue"]["size"] == 2)
        wait_for("it is gone", lambda: ok(get(homed, "status"))["queue"]["size"] == 1)
    ok(first.answer())
    ok(post(homed, "motion/wait"))
    helpers.still(homed)
    assert axis(homed, "x") == pytest.approx(80, abs=X_STEP)


def test_aborted_requests_of_all_sorts(homed):
    """Half a header, half a body, a reset in the middle: all given back."""
    wait_for("no other connections", lambda: descriptors(homed) < 40)
    before = descriptors(homed)
    whole = http_text("POST", "/api/v1/gpio/write", show({"pin": "valve1", "value": 0}))
    for cut in list(range(1, len(whole), 7)) * 3:
        s = connect(homed)
        s.sendall(whole[:cut])
        if cut % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # close with a reset
        s.close()
    for path in READS:
        s = connect(homed)
        s.sendall(http_text("GET", helpers.BASE + path) * 20)
        s.close()  # without reading
    ok(get(homed, "position"))
    wait_for("descriptors back", lambda: descriptors(homed) <= before + 1)


# ---- many -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.smoke
def test_200_clients_at_once(homed):
    """All at once, all kept until the last has been answered, all answered."""
    count, lost = 200, []
    begin, end = threading.Barrier(count), threading.Barrier(count)

    def client(i):
        conn = http.client.HTTPConnection("127.0.0.1", homed.port, timeout=60)
        begin.wait(60)
        try:
            for k in range(3):
                if (i + k) % 10:
                    conn.request("GET", helpers.BASE + READS[(i + k) % len(READS)])
                else:
                    conn.request("POST", "/api/v1/gpio/write", '{"pin": "valve2", "value": 0}', {"Content-Type": "application/json"})
                answer = conn.getresponse()
                assert json.loads(answer.read())["status"] == "success"
        except Exception as e:  # pylint: disable=broad-except
            lost.append(repr(e))
        end.wait(60)
        conn.close()

    for c in [Later(client, i) for i in range(count)]:
        c.answer(90)
    assert not lost, f"{len(lost)} of {count} clients: {lost[0]}"


def test_descriptors_stay_flat(homed):
    for _ in range(50):
        homed.get("/health")
    wait_for("given back", lambda: descriptors(homed) < 40)
    before = descriptors(homed)
    for i in range(400):
        homed.get("/health" if i % 2 else "/api/v1/position")
    time.sleep(0.2)
    wait_for("given back", lambda: descriptors(homed) <= before + 1)


@pytest.mark.smoke
def test_sockets_that_say_nothing_disturb_nobody(homed):
    """Silent, half a request line, half a header, half a body, a reader that does not read: the rest is served at once."""
    with contextlib.ExitStack() as stack:
        def hold(data):
            s = stack.enter_context(connect(homed))
            s.sendall(data)
        for _ in range(80):
            hold(b"")
        for data in (b"GET /ws", b"GET /ws/v1", b"G", b"GET /api/v1/position HTTP/1.1\r\nHos", b"POST /api/v1/motion/move HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
                     http_text("GET", "/api/v1/status") * 300):
            for _ in range(10):
                hold(data)
        for _ in range(5):
            began = time.monotonic()
            ok(get(homed, "position"))
            ok(post(homed, "gpio/write", {"pin": "valve1", "value": 0}))
            assert time.monotonic() - began < AT_ONCE_S
    ok(get(homed, "position"))


def test_sockets_that_say_nothing_are_closed(homed):
    """After 5 s."""
    with connect(homed, timeout=60) as s, contextlib.suppress(ConnectionResetError):
        assert s.recv(4096) == b""


def test_slow_sender_does_not_hold_others(homed):
    with connect(homed) as s:
        body = show({"pin": "valve1", "value": 0})
        whole = http_text("POST", "/api/v1/gpio/write", body)
        s.sendall(whole[:-len(body)])
        for b in body:
            s.send(bytes([b]))
            began = time.monotonic()
            ok(get(homed, "version"))
            assert time.monotonic() - began < AT_ONCE_S
        ((status, _, _),) = read_answers(s, 1)
        assert status == 200


# ---- start and end ----------------------------------------------------------------------------------------------------------------

def stop_shim(machine):
    """SIGTERM."""
    assert machine.shim.stop(30) == []
    assert machine.shim.returncode == 0, machine.shim.returncode


def start_shim(machine):
    """Less time than the kernel keeps a closed connection on its port: 60 s."""
    machine.shim.start()
    machine.wait_shim_ready(30)


@pytest.mark.smoke
def test_shim_restarts(homed):
    """Ends with 0, and the next one serves on the same port, with connections of the old one still about."""
    go(homed, x=50, y=50)
    with connect(homed) as idle:
        idle.sendall(http_text("GET", "/health"))
        read_answers(idle, 1)
        stop_shim(homed)
        start_shim(homed)
    assert {"x", "y", "z"} <= set(helpers.position(homed)["homed_axes"])  # Klipper knows, so we do
    go(homed, x=55)
    assert axis(homed, "x") == pytest.approx(55, abs=X_STEP)


def test_sigterm_with_requests_that_wait(homed):
    """It does not wait for the machine; nobody hangs; the move that was accepted is Klipper's and goes on, once."""
    go(homed, x=50, y=50)
    before = steps(homed)["total_steps"]
    running = Later(post, homed, "motion/move", {"x": 110, "feedrate": 400, "wait": True})
    wait_for("the move", lambda: steps(homed)["moving"])
    waiting = [Later(post, homed, "motion/move", {"x": 200, "feedrate": FAST}) for _ in range(5)]
    live = Later(get, homed, "position?live=true")
    wait_for("they wait", lambda: ok(get(homed, "status"))["queue"]["size"] == 6)
    stop_shim(homed)
    assert steps(homed)["moving"], "it waited for the machine"
    for later in [running, *waiting, live]:
        later.thread.join(30)
        assert later.done  # answered or closed
    start_shim(homed)
    ok(post(homed, "motion/wait"))
    helpers.still(homed)
    assert axis(homed, "x") == pytest.approx(110, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(60 / X_STEP)


def test_sigint_ends_it_too(homed):
    homed.shim._signal(2)
    homed.shim.popen.wait(30)
    assert homed.shim.returncode == 0
    start_shim(homed)


def test_killed_in_a_move_and_started_again(homed):
    """kill -9 and a new start: the modes of others, which our script had set aside, are as they were once the machine is used again."""
    go(homed, x=50, y=50)
    homed.gcode("SAVE_GCODE_STATE NAME=_test_clean\nG91\nM220 S40")
    theirs = helpers.modes(homed)
    move = Later(post, homed, "motion/move", {"x": 90, "feedrate": 2400, "wait": True})
    wait_for("the move", lambda: steps(homed)["moving"])
    homed.shim.kill()
    move.thread.join(30)
    start_shim(homed)
    go(homed, x=60)
    assert axis(homed, "x") == pytest.approx(60, abs=X_STEP)
    assert helpers.modes(homed) == theirs
    homed.gcode("RESTORE_GCODE_STATE NAME=_test_clean")


def run_shim(*arguments, env=None, timeout=60):
    return subprocess.run([str(rig.build_dir() / "shim" / "klipperplaced"), *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})}, check=False)


def test_check(machine, tmp_path):
    """--check reads the file and ends; what is wrong is told with file and line, all of it."""
    good = machine.data / "config" / "klipperplace.cfg"
    assert run_shim("--config", good, "--check").returncode == 0
    bad = Path(tmp_path) / "bad.cfg"
    bad.write_text("[api]\nport: seventy\n[safety]\nmax_x_positon: 10\n[nozzle N1]\nsafe_z: nan\n")
    found = run_shim("--config", bad, "--check")
    assert found.returncode != 0
    for line in ("bad.cfg:2", "bad.cfg:4", "bad.cfg:6", "max_x_position"):
        assert line in found.stderr, found.stderr
    assert run_shim("--config", tmp_path / "none.cfg", "--check").returncode != 0
    assert run_shim("--no-such-option").returncode != 0


def test_refuses_to_listen_for_all(machine, tmp_path):
    """Without keys the port is for this machine only."""
    text = (machine.data / "config" / "klipperplace.cfg").read_text()
    wide = Path(tmp_path) / "wide.cfg"
    wide.write_text(rig.cfg_merge(text, {"api": {"host": "0.0.0.0", "port": rig.free_port()}}))
    found = run_shim("--config", wide)
    assert found.returncode != 0 and "host" in found.stderr


def test_port_that_is_taken(machine):
    found = run_shim("--config", machine.data / "config" / "klipperplace.cfg")
    assert found.returncode != 0 and str(machine.port) in found.stderr
    ok(get(machine, "version"))
