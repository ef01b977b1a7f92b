# SPDX-License-Identifier: GPL-3.0-or-later
"""The real nginx before klipperplaced, with the examples of klipper_cfg/nginx: TLS, client certificates, a single sign-on, two machines, and an emergency stop
that waits for nobody.

Invariant: what nginx reads is the shipped text (tests/nginx.py), and what a machine did is read from its simulator.
"""
import contextlib
import http.client
import http.server
import socket
import ssl
import threading
import time

import pytest
from websockets.exceptions import InvalidStatus

import helpers
import rig
from browser import Chromium
from helpers import Later, axis, get, go, nothing_reaches_klipper, ok, post, read_answers, refused, wait_for
from nginx import Nginx, certificate
from ws_client import RpcFailed

SERVER = "127.0.0.1:7180"  # of the examples
HOSTS = "[security]\nallowed_hosts: machine.example, machines.example\n"


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(klipperplace_extra=HOSTS) as r:
        yield r


@pytest.fixture
def homed(machine):
    return helpers.make_homed(machine)


@pytest.fixture(scope="module")
def front(machine):
    with Nginx("klipperplace", {SERVER: f"127.0.0.1:{machine.port}"}) as n:
        yield n


def handshake(client, **options):
    """The HTTP status that a WebSocket's handshake is answered with."""
    try:
        client.websocket(**options).close()
    except InvalidStatus as e:
        return e.response.status_code
    return 101


# ---- one machine ---------------------------------------------------------------------------------------------------------------

def test_rest_by_tls(homed, front):
    go(homed, x=50)
    data = ok(post(front, "motion/move", {"x": 60, "feedrate": 6000, "wait": True}))
    assert data["completed"] is True and axis(homed, "x") == pytest.approx(60, abs=helpers.X_STEP)
    wait_for("it is told", lambda: ok(get(front, "position"))["position"]["x"] == 60)
    assert get(front, "version", headers={"X-Request-Id": "by-tls"})[2]["x-request-id"] == "by-tls"
    for path, text in (("/health", "status"), ("/ready", "status")):
        status, body, _ = front.get(path)
        assert status == 200 and text in body
    assert "klipperplace_klipper_ready 1" in front.get("/metrics")[1]
    assert front.get("/api/v1/openapi.json")[1]["openapi"].startswith("3.1")
    refused(get(front, "nothing"), "NOT_FOUND")  # the server's own words
    refused(post(front, "gpio/write", b"x" * 1100000, headers={"Content-Type": "application/json"}), "PAYLOAD_TOO_LARGE")
    named = get(front, "version", headers={"Host": "machine.example"})
    assert ok(named) == ok(get(homed, "version"))
    refused(get(front, "version", headers={"Host": "evil.example"}), "PERMISSION_DENIED")  # not in allowed_hosts


def test_certificate_is_the_servers(front):
    """A client that does not know it refuses; one that looks for another name, too."""
    with pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(socket.create_connection(("127.0.0.1", front.port), 10), server_hostname="machine.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="evil.example"):
        front.socket("evil.example")
    with front.socket("machine.example") as s:
        assert s.version() == "TLSv1.3"


def test_only_the_api(front):
    """What is meant for this computer alone is not reached through nginx, however its path is written."""
    for path in ("/", "/openpnp/token/on", "/api/v1/../../openpnp/token/on", "/api/v1/..%2f..%2fopenpnp/token/on", "/api/v1/%2e%2e/%2e%2e/openpnp/token/on",
                 "/metrics/x", "//openpnp/token/on", "/ws/v1/x"):
        status, body, headers = front.get(path)
        assert status in (400, 404) and "nginx" in body and "x-request-id" not in headers, path


def test_plain_http_is_sent_to_tls(homed, front):
    with nothing_reaches_klipper(homed):
        for method, body in (("GET", None), ("POST", {"x": 70})):
            conn = http.client.HTTPConnection("127.0.0.1", front.plain_port, timeout=10)
            status, _, headers = rig.http_ask(conn, method, "/api/v1/motion/move?a=b%20c", body)
            assert status == 308 and headers["location"] == f"https://127.0.0.1:{front.port}/api/v1/motion/move?a=b%20c"


def test_websocket_by_tls(homed, front):
    go(homed, x=20)
    with front.websocket() as c:
        c.subscribe("position")
        assert c.execute("move", x=30, feedrate=6000, wait=True)["data"]["completed"] is True
        c.until(lambda: c.state["position"]["position"]["x"] == 30)
    assert axis(homed, "x") == pytest.approx(30, abs=helpers.X_STEP)
    status, body, _ = front.get("/ws/v1")
    assert status == 426 and body["status"] == "error"


def test_websocket_and_rest_do_not_mix(front):
    """The server knows a connection by its first request, so nginx must use none for both."""
    for _ in range(20):
        ok(get(front, "version"))
        with front.websocket() as c:
            assert c.ask("get_status")["status"] == "success"


def test_own_pages_and_others(homed, front):
    """The Host header comes through with its port, so the server's own pages are those of nginx's address, and no other."""
    own = f"https://127.0.0.1:{front.port}"
    ok(post(front, "gpio/write", {"pin": "valve1", "value": 0, "wait": True}, headers={"Origin": own}))
    assert handshake(front, origin=own) == 101
    with nothing_reaches_klipper(homed):
        for origin in ("https://evil.example", "https://127.0.0.1", f"https://machine.example:{front.port}", homed.url, "null"):
            refused(post(front, "gpio/write", {"pin": "valve1", "value": 1}, headers={"Origin": origin}), "PERMISSION_DENIED")
            assert handshake(front, origin=origin) == 403


def test_client_that_leaves(homed, front):
    """nginx tells the server that a client left, so a command that has not begun does not begin."""
    go(homed, x=20)
    first = Later(post, homed, "motion/move", {"x": 60, "feedrate": 600, "wait": True})
    wait_for("the move", lambda: axis(homed, "x") > 21)
    conn = front.connection()
    conn.request("POST", "/api/v1/motion/move", '{"x": 200, "feedrate": 12000, "wait": true}', {"Content-Type": "application/json"})
    wait_for("it waits", lambda: "klipperplace_lane_commands 2\n" in homed.get("/metrics")[1])
    conn.close()
    wait_for("it is given up", lambda: "klipperplace_lane_commands 1\n" in homed.get("/metrics")[1])
    ok(first.answer())
    helpers.still(homed)
    assert axis(homed, "x") == pytest.approx(60, abs=helpers.X_STEP)


def test_long_requests(homed, front):
    """nginx's own limit is 60 s; ours must let 600 s and an answer after them through. Only a long run waits as long as that."""
    if not rig.long_run():
        pytest.skip("75 s: scripts/test --long")
    go(homed, x=20)
    began = time.monotonic()
    assert ok(post(front, "motion/move", {"x": 32.5, "feedrate": 10, "wait": True, "timeout_s": 300}))["completed"] is True
    assert time.monotonic() - began > 70


# ---- the emergency stop --------------------------------------------------------------------------------------------------------

def half_sent(front):
    """A request whose body does not come."""
    s = front.socket()
    s.sendall(b"POST /api/v1/system/emergency_stop HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{")
    return s


def test_stop_waits_for_nobody(homed, front):
    """64 requests wait for the machine and 8 bodies for their clients, all through the one process of nginx."""
    go(homed, x=20, y=50)
    move = Later(post, front, "motion/move", {"x": 220, "feedrate": 600, "wait": True, "timeout_s": 120})
    wait_for("the move", lambda: axis(homed, "x") > 21)
    waiting = [Later(post, front, "motion/move", {"x": 220, "feedrate": 600, "wait": True, "timeout_s": 120}) for _ in range(63)]
    wait_for("all wait", lambda: "klipperplace_lane_commands 64\n" in homed.get("/metrics")[1], 30)
    with contextlib.ExitStack() as slow:
        for _ in range(8):
            slow.enter_context(half_sent(front))
        asked = time.monotonic()
        data = ok(post(front, "system/emergency_stop", {"reason": "by nginx"}, timeout=30))
        answered = time.monotonic()
        assert data["emergency_stop_active"] is True and data["confirmed_by"] == "moonraker"
        refused(move.answer(10), "EMERGENCY_STOP_ACTIVE")
        for w in waiting:
            refused(w.answer(10), "CANCELLED")
    wait_for("the microcontroller is shut down", lambda: homed.sim_cmd("status")["mcu"]["shutdown"], 5)
    last = helpers.last_step(homed)
    print(f"answered {(answered - asked) * 1000:.1f} ms, last step {(last - asked) * 1000:.1f} ms after the stop was asked for through nginx")
    assert last - asked < 1 and axis(homed, "x") < 100  # the move would have gone on for 20 s


def test_stop_by_websocket(homed, front):
    """One session may have long commands under way and stop all the same."""
    go(homed, x=20, y=50)
    with front.websocket() as c:
        move = c.send("execute", {"command": "move", "parameters": {"x": 220, "feedrate": 600, "wait": True}})
        wait_for("the move", lambda: axis(homed, "x") > 21)
        assert c.execute("emergency_stop")["data"]["emergency_stop_active"] is True
        with pytest.raises(Exception, match="stop"):
            c.answer(move, 10)
    assert axis(homed, "x") < 100


@pytest.fixture(scope="module")
def chromium():
    c = Chromium(options=["--ignore-certificate-errors"])
    yield c
    c.close()


def test_stop_of_a_page(homed, front, chromium):
    """A page's stop does not wait for a connection: by HTTP/1.1 a browser has six, and more requests than that are waiting."""
    go(homed, x=20, y=50)
    chromium.open(f"https://127.0.0.1:{front.port}/page.html", "<!DOCTYPE html><title>own</title><body>")
    chromium.eval("""
        post = (path, body) => fetch("/api/v1/" + path, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)})
            .then(r => r.json(), e => ({error_code: "failed"}));
        moves = [...Array(12)].map(() => post("motion/move", {x: 220, feedrate: 600, wait: true, timeout_s: 120}));
        socket = new Promise(done => { const s = new WebSocket(location.origin.replace("https", "wss") + "/ws/v1");
            s.onmessage = m => (done(JSON.parse(m.data).method), s.close()); s.onerror = () => done("refused"); });
        0""")
    wait_for("all wait", lambda: "klipperplace_lane_commands 12\n" in homed.get("/metrics")[1], 20)
    wait_for("the move", lambda: axis(homed, "x") > 21)
    assert chromium.eval("socket", awaitPromise=True) == "notify_connected"
    assert chromium.eval('post("system/emergency_stop", {reason: "page"})', awaitPromise=True)["data"]["emergency_stop_active"] is True
    codes = chromium.eval("Promise.all(moves).then(all => all.map(a => a.error_code).sort())", awaitPromise=True)
    assert codes == ["CANCELLED"] * 11 + ["EMERGENCY_STOP_ACTIVE"]
    assert set(chromium.eval("performance.getEntriesByType('resource').map(e => e.nextHopProtocol)")) == {"h2"}
    assert axis(homed, "x") < 100


# ---- client certificates -------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def guarded(machine):
    """nginx that asks clients for a certificate, and certificates: of its authority, and of another."""
    with Nginx("klipperplace", {SERVER: f"127.0.0.1:{machine.port}"}, client_certificates=True) as n:
        yield n


@pytest.fixture(scope="module")
def identities(guarded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    other = certificate(folder, "other-ca", "another authority")
    authority = (guarded.keys / "clients-ca.pem", guarded.keys / "clients-ca.key")
    made = {}
    for name, ca in (("bench", authority), ("stranger", other)):
        made[name] = certificate(folder, name, name, "-CA", ca[0], "-CAkey", ca[1], "-addext", "basicConstraints=CA:FALSE")
    return made


@pytest.mark.parametrize("who, status", [("bench", 200), ("stranger", 400), (None, 400)])
def test_client_certificates(homed, guarded, identities, who, status):
    client = guarded.client(identity=identities.get(who))
    before = helpers.pin(homed, "PD2")
    answer = post(client, "gpio/write", {"pin": "valve1", "value": 1 - before, "wait": True})
    assert answer[0] == status and helpers.pin(homed, "PD2") == (1 - before if status == 200 else before)
    if status != 200:
        assert "certificate" in answer[1].lower()
        with nothing_reaches_klipper(homed):
            for path in ("/health", "/api/v1/position", "/metrics"):
                assert client.get(path)[0] == 400
            assert post(client, "system/emergency_stop")[0] == 400
    assert handshake(client) == (101 if status == 200 else 400)


# ---- single sign-on ------------------------------------------------------------------------------------------------------------

KEYS = {"ADMIN-KEY": "key-of-the-admin-0123456789", "OPERATOR-KEY": "key-of-the-operator-0123456789", "VIEWER-KEY": "key-of-the-viewer-0123456789"}
ROLES = {"ann": "staff, admin", "otto": "operator,viewer", "vera": "viewer", "noel": "visitors", "adam": "administrators-not"}


class Authority(http.server.BaseHTTPRequestHandler):
    """Says who somebody is by his cookie, as Authelia and oauth2-proxy do: 401 without one, 403 for whom it knows and keeps out, else his groups."""
    protocol_version = "HTTP/1.1"
    asked = []

    def do_GET(self):  # pylint: disable=invalid-name
        self.asked.append((self.path, dict(self.headers)))
        name = self.headers.get("Cookie", "").removeprefix("session=")
        self.send_response(200 if name in ROLES else 403 if name else 401)
        if name in ROLES:
            self.send_header("Remote-User", name)
            self.send_header("Remote-Groups", ROLES[name])
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Wire:
    """Stands between nginx and the server, passes all bytes on, and keeps the head of each request. nginx uses a connection for one request."""

    def __init__(self, port):
        self.to, self.heads, self.lock = port, [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", rig.free_port()))
        self.port = self.listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.to))
                threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source, sink, keep):
        head = b""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if keep and b"\r\n\r\n" not in head:
                    head += data
                    if b"\r\n\r\n" in head:
                        with self.lock:
                            self.heads.append(head.split(b"\r\n\r\n")[0].decode("latin-1"))
                sink.sendall(data)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def keys(self):
        """The X-API-Key headers of the last request."""
        lines = [line.split(":", 1) for line in self.heads[-1].split("\r\n")[1:]]
        return [value.strip() for name, value in lines if name.lower() == "x-api-key"]


@pytest.fixture(scope="module")
def authority():
    with http.server.ThreadingHTTPServer(("127.0.0.1", rig.free_port()), Authority) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def wire(machine):
    with Wire(machine.port) as w:
        yield w


def sso(port, authority_port, keys):
    places = {SERVER: f"127.0.0.1:{port}", "127.0.0.1:9091": f"127.0.0.1:{authority_port}"}
    return Nginx("klipperplace-sso", {**places, **{f'"{name}"': f'"{key}"' for name, key in keys.items()}})


@pytest.fixture(scope="module")
def signed(wire, authority):
    with sso(wire.port, authority.server_port, KEYS) as n:
        yield n


def session(front, name):
    return front.client(headers={"Cookie": f"session={name}"})


@pytest.mark.parametrize("headers, status", [({}, 401), ({"Cookie": "session=mallory"}, 403)])
def test_sign_on_refused(homed, signed, wire, headers, status):
    """Whoever the authority does not let in reaches nothing, with a right key in his hand, too."""
    seen, client = len(wire.heads), signed.client(headers={**headers, "X-API-Key": KEYS["ADMIN-KEY"]})
    with nothing_reaches_klipper(homed):
        for method, path in (("GET", "/api/v1/version"), ("GET", "/health"), ("GET", "/metrics"), ("POST", "/api/v1/motion/move"),
                             ("POST", "/api/v1/system/emergency_stop"), ("DELETE", "/api/v1/queue/clear"), ("OPTIONS", "/api/v1/motion/move")):
            assert client.request(method, path, {} if method == "POST" else None)[0] == status, path
        assert client.get("/authority")[0] == 404 and handshake(client) == status
    assert len(wire.heads) == seen


@pytest.mark.parametrize("name, key", [("ann", "ADMIN-KEY"), ("otto", "OPERATOR-KEY"), ("vera", "VIEWER-KEY"), ("noel", None), ("adam", None)])
def test_sign_on_gives_the_key_of_the_role(signed, wire, name, key):
    """In place of every key that the client sent; and none where there is no role."""
    Authority.asked.clear()
    want = [KEYS[key]] if key else []
    for sent in ({}, {"X-API-Key": "stolen"}, {"x-api-key": KEYS["ADMIN-KEY"]}, {"X_API_Key": "stolen"}, {"Authorization": "Bearer stolen"}):
        session(signed, name).get("/api/v1/version", headers=sent)
        assert wire.keys() == want and "stolen" not in wire.heads[-1], wire.heads[-1]
    handshake(session(signed, name), headers={"X-API-Key": "stolen"})
    assert wire.keys() == want and wire.heads[-1].startswith("GET /ws/v1 ")
    post(session(signed, name), "system/resume", headers={"X-API-Key": "stolen"})
    assert wire.keys() == want
    assert len(Authority.asked) == 7 and all(path == "/verify" and "stolen" not in str(h.get("X-API-Key")) for path, h in Authority.asked)
    assert Authority.asked[-1][1]["X-Original-Method"] == "POST" and Authority.asked[-1][1]["X-Original-URL"].endswith("/api/v1/system/resume")


def test_roles_of_the_sign_on(authority):
    """The whole way: who he is, his role, its key, and what the server lets it do."""
    with rig.Rig(klipperplace_extra="[api]\napi_key_enabled: true\napi_key: key-of-the-file-0123456789\n" + HOSTS) as r:
        r.key = "key-of-the-file-0123456789"
        keys = {f"{role.upper()}-KEY": ok(post(r, "auth/keys", {"name": f"proxy {role}", "role": role}))["key"] for role in ("viewer", "operator", "admin")}
        with sso(r.port, authority.server_port, keys) as n:
            for name, level in (("noel", 0), ("vera", 1), ("otto", 2), ("ann", 3)):
                client, value = session(n, name), 1 - helpers.pin(r, "PD2")
                denied = 403 if level else 401  # noel has no key
                assert get(client, "position")[0] == (200 if level >= 1 else denied)
                assert post(client, "gpio/write", {"pin": "valve1", "value": value, "wait": True})[0] == (200 if level >= 2 else denied)
                assert helpers.pin(r, "PD2") == (value if level >= 2 else 1 - value)
                assert get(client, "auth/keys", headers={"X-API-Key": r.key})[0] == (200 if level >= 3 else denied)  # another's key is no help
                assert handshake(client, headers={"X-API-Key": r.key}) == (101 if level >= 1 else 401)
                if level:
                    with client.websocket() as c, contextlib.nullcontext() if level >= 2 else pytest.raises(RpcFailed):
                        c.execute("gpio_write", pin="valve1", value=1 - value, wait=True)


def test_two_keys_of_a_client(signed, wire):
    """A header sent twice is not half stripped."""
    with signed.socket() as s:
        s.sendall(f"GET /api/v1/version HTTP/1.1\r\nHost: 127.0.0.1:{signed.port}\r\nCookie: session=vera\r\nX-API-Key: stolen\r\nX-API-Key: stolen\r\n"
                  "Connection: close\r\n\r\n".encode())
        assert read_answers(s, 1)[0][0] in (200, 401)
    assert wire.keys() == [KEYS["VIEWER-KEY"]]


def test_page_of_another_origin_with_a_cookie(homed, signed):
    """The browser sends the cookie with it, so the sign-on is no guard against it: the server's own is."""
    client = session(signed, "ann")
    with nothing_reaches_klipper(homed):
        refused(post(client, "gpio/write", {"pin": "valve1", "value": 1}, headers={"Origin": "https://evil.example"}), "PERMISSION_DENIED")
        assert handshake(client, origin="https://evil.example") == 403


def test_authority_away(homed, wire):
    """Nobody gets in."""
    seen = len(wire.heads)
    with sso(wire.port, rig.free_port(), KEYS) as n, nothing_reaches_klipper(homed):
        assert get(session(n, "ann"), "version")[0] == 500 and handshake(session(n, "ann")) == 500
    assert len(wire.heads) == seen


# ---- two machines --------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def second():
    with rig.Rig(klipperplace_extra=HOSTS) as r:
        yield r


@pytest.fixture(scope="module")
def both(machine, second):
    with Nginx("klipperplace-machines", {SERVER: f"127.0.0.1:{machine.port}", "127.0.0.1:7190": f"127.0.0.1:{second.port}"}) as n:
        yield n.client(prefix="/machine1"), n.client(prefix="/machine2")


def test_two_machines(homed, second, both):
    """What is sent to one moves that one only; each tells its own place."""
    helpers.make_homed(second)
    go(homed, x=20, y=40)
    go(second, x=20, y=40)
    machines = (homed, second)
    with both[0].websocket() as one, both[1].websocket() as two:
        for i, x, c, other in ((0, 35, one, two), (1, 45, two, one)):
            for m, s in zip(machines, (one, two)):
                s.subscribe("position")
                s.until(lambda m=m, s=s: abs(s.state["position"]["position"]["x"] - axis(m, "x")) < 0.001)
            stands = helpers.footprint(machines[1 - i]), other.state["position"]["position"]["x"]
            ok(post(both[i], "motion/move", {"x": x, "feedrate": 6000, "wait": True}))
            assert axis(machines[i], "x") == pytest.approx(x, abs=helpers.X_STEP)
            c.until(lambda c=c, x=x: c.state["position"]["position"]["x"] == x)
            other.drain(0.6)  # two pushes of Klipper
            assert (helpers.footprint(machines[1 - i]), other.state["position"]["position"]["x"]) == stands
        assert two.execute("move", x=50, feedrate=6000, wait=True)["data"]["position"]["x"] == 50
    wait_for("both are told", lambda: [ok(get(b, "position"))["position"]["x"] for b in both] == [35, 50])
    assert [axis(m, "x") for m in machines] == pytest.approx([35, 50], abs=helpers.X_STEP)


def test_stop_of_one_machine(homed, second, both):
    """The other works on; and each has its own health and metrics."""
    helpers.make_homed(second)
    go(second, x=20)
    ok(post(both[0], "system/emergency_stop", {"reason": "one"}))
    wait_for("it is told", lambda: both[0].get("/ready")[0] == 503)
    assert both[1].get("/ready")[0] == 200 and [b.get("/health")[0] for b in both] == [200, 200]
    assert ["klipperplace_emergency_stop_active 1\n" in b.get("/metrics")[1] for b in both] == [True, False]
    refused(post(both[0], "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    ok(post(both[1], "motion/move", {"x": 30, "feedrate": 6000, "wait": True}))
    assert axis(second, "x") == pytest.approx(30, abs=helpers.X_STEP)


def test_one_machine_switched_off(second, both):
    """Its path answers 502 at once, the other's goes on."""
    second.shim.kill()
    try:
        assert get(both[1], "version")[0] == 502 and handshake(both[1]) == 502
        ok(get(both[0], "version"))
    finally:
        second.shim.start()
        second.wait_shim_ready(30)
    ok(get(both[1], "version"))


@pytest.mark.parametrize("path", ["/", "/api/v1/version", "/ws/v1", "/machine3/api/v1/version", "/machine1/openpnp/token/on",
                                  "/machine1/api/v1/../../openpnp/token/on", "/machine1/..%2fmachine2/openpnp/x"])
def test_no_machine(both, path):
    status, body, headers = both[0].client(prefix="").get(path)
    assert status in (400, 404) and "nginx" in body and "x-request-id" not in headers
