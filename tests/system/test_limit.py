# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a client may ask, which addresses may connect, and under which names this machine may be asked.

For a machine in a workshop's network. Invariant tested: what passes is never more than the class allows in the time that it took, and what is refused did
nothing. The exact arithmetic is shown in tests/unit/test_limit.c, where time is injected.
"""
import socket
import subprocess
import time

import pytest

import helpers
import rig
from contract import Contract
from helpers import get, http_text, ok, post, read_answers, refused
from ws_client import Client, RpcFailed

CLASSES = {"motion": ("POST", "/api/v1/motion/wait", b"{}", 100), "read": ("GET", "/api/v1/position", b"", 200),
           "batch": ("POST", "/api/v1/queue/batch", b'{"commands":[]}', 10)}
KEY = "a-key-for-the-limits"


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(klipperplace_extra="[security]\nrate_limit: true\nallowed_hosts: pnp.example, other.example\n") as r:
        yield r


@pytest.fixture(scope="module")
def contract(machine):
    return Contract(machine.get("/api/v1/openapi.json")[1])


def burst(machine, kind, count, source):
    """`count` requests of a class on one connection, all sent before the first answer is read: the answers, and no less than the time it took."""
    method, path, body, _ = CLASSES[kind]
    request = http_text(method, path, body)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", machine.port), timeout=60, source_address=(source, 0)) as s:
        s.sendall(request * count)
        answers = read_answers(s, count)
    return answers, time.monotonic() - began


@pytest.mark.parametrize("kind", CLASSES)
def test_a_class_is_limited(machine, contract, kind):
    method, path, _, most = CLASSES[kind]
    source = {"motion": "127.0.7.1", "read": "127.0.7.2", "batch": "127.0.7.3"}[kind]
    answers, took = burst(machine, kind, 3 * most, source)
    passed = [a for a in answers if a[0] != 429]
    assert most <= len(passed) <= most * (1 + took) + 1
    if took < 1:
        assert len(passed) < 3 * most
    for status, headers, _ in answers:
        names = {k.lower(): v for k, v in headers.items()}
        assert int(names["x-ratelimit-limit"]) == most
        assert 0 <= int(names["x-ratelimit-remaining"]) < most and 0 <= int(names["x-ratelimit-reset"]) <= 1
        assert (status == 429) == ("retry-after" in names) == ("x-ratelimit-retry-after" in names)
    while (answer := machine.request(method, path, {} if method == "POST" else None, source=source))[0] != 429:
        pass
    assert contract.judge(method, path, answer)[1]["error_code"] == "RATE_LIMIT_EXCEEDED"
    assert int(answer[2]["retry-after"]) == 1
    assert get(machine, "position", source="127.0.7.9")[0] == 200, "another address has a bucket of its own"
    other = "batch" if kind != "batch" else "read"
    assert burst(machine, other, 1, source)[0][0][0] != 429, "and so has another class"
    helpers.wait_for("it is let in again", lambda: machine.request(method, path, {} if method == "POST" else None, source=source)[0] != 429, 10)


def test_what_is_never_limited(machine):
    """Public rows and an emergency stop."""
    for path in ("/health", "/ready", "/metrics", "/api/v1/version"):
        for _ in range(15):
            status, _, headers = machine.get(path, source="127.0.7.4")
            assert status == 200 and "x-ratelimit-limit" not in headers
    helpers.make_ready(machine)
    for _ in range(30):
        answer = post(machine, "system/emergency_stop", {}, source="127.0.7.4")
        assert ok(answer)["emergency_stop_active"] is True and "x-ratelimit-limit" not in answer[2]
    ok(post(machine, "system/reset", {}))


def test_a_websocket_takes_from_the_same_bucket(machine):
    """What REST has used up is used up, and the error says when the next passes."""
    source, refusals = "127.0.7.5", 0
    with Client(machine, source_address=(source, 0)) as c:
        assert c.execute("get_position")["status"] == "success"
        began = time.monotonic()
        burst(machine, "batch", 30, source)
        numbers = [c.send("execute", {"command": "queue_batch", "parameters": {"commands": []}}) for _ in range(40)]
        for number in numbers:
            try:
                c.answer(number)
            except RpcFailed as e:
                refusals += e.data["error_code"] == "RATE_LIMIT_EXCEEDED"
                if e.data["error_code"] == "RATE_LIMIT_EXCEEDED":
                    assert 0 < e.data["details"]["retry_after"] <= 0.1
        assert refusals >= 40 - 10 * (1 + time.monotonic() - began)
        assert c.execute("emergency_stop")["data"]["emergency_stop_active"] is True
    ok(post(machine, "system/reset", {}))


def test_a_key_is_one_client_from_everywhere():
    with rig.Rig(klipperplace_extra=f"[api]\napi_key_enabled: true\napi_key: {KEY}\n[security]\nrate_limit: true\n") as r:
        r.key = KEY
        began, passed = time.monotonic(), 0
        for i in range(60):
            passed += post(r, "queue/batch", {"commands": []}, source=f"127.0.8.{i + 1}")[0] != 429
        assert 10 <= passed <= 10 * (1 + time.monotonic() - began) + 1
        other = ok(r.post("/api/v1/auth/keys", {"name": "other", "role": "operator"}))["key"]
        assert post(r, "queue/batch", {"commands": []}, headers={"X-API-Key": other})[0] != 429


# ---- names and addresses ---------------------------------------------------------------------------------------------------------

OURS = ["localhost", "LOCALHOST:7180", "127.0.0.1", "127.0.0.1:80", "[::1]:7180", "192.168.1.9", "pnp.example", "PNP.example:443", "other.example", "pnp.example.",
        socket.gethostname(), socket.gethostname() + ".local"]
NOT_OURS = ["evil.example", "pnp.example.evil.example", "xpnp.example", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "[evil.example]", ":80", "1.2.3", "."]


@pytest.mark.parametrize("host", OURS)
def test_names_of_this_machine(machine, host):
    assert machine.get("/api/v1/version", headers={"Host": host})[0] == 200
    assert handshake(machine, host) == 101


@pytest.mark.parametrize("host", NOT_OURS)
def test_other_names(machine, host):
    """A page whose name was pointed at this machine asks under that name: whatever it asks is refused, and nothing is done."""
    with helpers.nothing_reaches_klipper(machine):
        for method, path in (("GET", "/api/v1/position"), ("POST", "/api/v1/motion/home"), ("POST", "/api/v1/system/emergency_stop"), ("GET", "/health"),
                             ("GET", "/metrics"), ("GET", "/openpnp/token/output/light/on")):
            answer = refused(machine.request(method, path, {} if method == "POST" else None, headers={"Host": host}), "PERMISSION_DENIED")
            assert "allowed_hosts" in answer["error_message"]
    assert handshake(machine, host) == 403


def handshake(machine, host):
    """The status of a WebSocket's handshake for this Host."""
    with socket.create_connection(("127.0.0.1", machine.port), timeout=10) as s:
        s.sendall((f"GET /ws/v1 HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        return int(s.recv(64).split()[1])


def connects(machine, port, source):
    """Whether something listens there for one who comes from that address."""
    with socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0)) as s:
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" if port == machine.port else b"M115\n")
        try:
            return bool(s.recv(64))
        except ConnectionResetError:
            return False


def test_allowed_addresses():
    """Others are closed at once, on both ports, and told in the log once."""
    with rig.Rig(klipperplace_extra="[security]\nallowed_addresses: 127.0.0.1, 127.9.0.0/16, fe80::/10\n") as r:
        for source, may in {"127.0.0.1": True, "127.9.3.4": True, "127.9.255.255": True, "127.0.0.2": False, "127.8.255.255": False, "127.10.0.0": False}.items():
            assert connects(r, r.port, source) is may, source
            assert connects(r, r.gcode_port, source) is may, source
        log = r.shim.log_path.read_text()
        assert log.count("refused=::ffff:127.0.0.2 ") == 1 and "refused=::ffff:127.10.0.0 " in log


def test_a_dual_socket_knows_ipv4_clients_apart(tmp_path):
    """On :: an IPv4 client comes as an IPv6 one: its network, its bucket and its wrong keys are its own all the same."""
    with rig.Rig(klipperplace_extra=f"[api]\nhost: ::\napi_key_enabled: true\napi_key: {KEY}\n[security]\nallowed_addresses: 127.0.0.0/8, ::1\n") as r:
        r.key = KEY
        for i in range(10):
            assert get(r, "status", headers={"X-API-Key": f"wrong {i}"}, source=f"127.0.9.{i + 1}")[1]["error_code"] == "INVALID_API_KEY"
        began = time.monotonic()
        assert get(r, "status", headers={"X-API-Key": "wrong"}, source="127.0.9.99")[1]["error_code"] == "INVALID_API_KEY", "the first of its address"
        assert get(r, "status", source="127.0.9.99")[0] == 200 and time.monotonic() - began < 30
        with socket.create_connection(("::1", r.port), timeout=10) as s:
            s.sendall(b"GET /health HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
            assert s.recv(64).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("text", ["nowhere", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::1/129", "10.0.0.1/8x", "1" * 200])
def test_an_address_that_is_none_starts_nothing(tmp_path, text):
    config = tmp_path / "klipperplace.cfg"
    config.write_text(f"[security]\nallowed_addresses: 127.0.0.1, {text}\n")
    for more in (["--check"], []):
        done = subprocess.run([rig.build_dir() / "shim" / "klipperplaced", "--config", config, *more], capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 1 and "allowed_addresses" in done.stderr and not done.stdout
