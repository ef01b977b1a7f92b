# SPDX-License-Identifier: GPL-3.0-or-later
"""A web page of somebody else, in Chromium beside the machine, tries all that a page can send: it moves nothing, switches nothing, reads nothing.

Invariant: an attack counts as tried when the server has seen it (its log), and as failed when the simulated machine and Klipper have not. The same words from a
page that may do so do move the machine, so they are no empty threat.
"""
import json
import re

import pytest

import helpers
import rig
from browser import Chromium, Site
from helpers import axis, get, go, nothing_reaches_klipper, ok, pin, wait_for

NAME = "evil.example"  # Chromium takes it for this machine, as a name does whose owner has bound it anew
OPTIONS = [f"--host-resolver-rules=MAP {NAME} 127.0.0.1", "--disable-popup-blocking"]

# What a page has at hand. `api` ends with a slash; each promise ends when the browser has the answer, or a refusal.
TOOLS = """
    const api = SERVER + "/api/v1/", ws = SERVER.replace("http", "ws") + "/ws/v1", move = JSON.stringify({x: 70, feedrate: 6000, wait: true});
    const told = async r => r.type + " " + r.status + " " + (await r.text()).slice(0, 200);
    const send = (path, options = {}) => fetch(api + path, options).then(told, e => "failed");
    const post = (path, body, headers = {}, more = {}) => send(path, {method: "POST", body, headers, mode: "no-cors", ...more});
    const loads = element => new Promise(done => { element.onload = element.onerror = () => done("loaded"); document.body.append(element); });
    const embed = (kind, path) => loads(Object.assign(document.createElement(kind), {src: api + path}));
    const form = (action, fields, enctype = "application/x-www-form-urlencoded", method = "POST") => {
        const frame = Object.assign(document.createElement("iframe"), {name: "f" + Math.random()});
        document.body.append(frame);
        const f = Object.assign(document.createElement("form"), {action, method, enctype, target: frame.name});
        for (const [name, value] of Object.entries(fields))
            f.append(Object.assign(document.createElement("input"), {name, value}));
        document.body.append(f);
        return new Promise(done => { frame.onload = () => done("loaded"); f.submit(); });
    };
    const socket = () => new Promise(done => {
        const s = new WebSocket(ws);
        s.onopen = () => s.send(JSON.stringify({jsonrpc: "2.0", id: 1, method: "execute", params: {command: "move", parameters: JSON.parse(move)}}));
        s.onmessage = m => JSON.parse(m.data).id == 1 && (done("answered"), s.close());
        s.onerror = () => done("refused");
    });
    const xhr = (type, body) => new Promise(done => {
        const r = new XMLHttpRequest();
        r.open("POST", api + "motion/move");
        if (type) r.setRequestHeader("Content-Type", type);
        r.onload = () => done("answered " + r.status), r.onerror = () => done("failed");
        r.send(body);
    });
"""
# A frame that has no origin ("null"), with the same at hand.
SANDBOX = """
    const sandboxed = script => new Promise(done => {
        onmessage = m => done(m.data);
        const code = "(async () => { const SERVER = " + JSON.stringify(SERVER) + ";" + TOOLS + "parent.postMessage(await (" + script + "), '*'); })()";
        const what = {sandbox: "allow-scripts allow-forms", srcdoc: "<body><script>" + code + "</script>"};
        document.body.append(Object.assign(document.createElement("iframe"), what));
    });
"""

# What it tries, by what it is. SITE is the page's own server, which redirects where it is told to.
ATTACKS = {
    "image": 'embed("img", "motion/move?x=70&feedrate=6000")',
    "script": 'embed("script", "motion/move?x=70")',
    "frame": 'embed("iframe", "gpio/write?pin=valve1&value=1")',
    "GET": 'send("motion/move?x=70", {mode: "no-cors"})',
    "GET with a method in it": 'send("motion/move?_method=POST&x=70", {mode: "no-cors"})',
    "form by GET": 'form(api + "motion/move", {x: 70}, undefined, "GET")',
    "form": 'form(api + "motion/move", {x: 70, feedrate: 6000})',
    "form of parts": 'form(api + "motion/move", {x: 70}, "multipart/form-data")',
    "form that looks like JSON": """form(api + "motion/move", {'{"x": 70, "feedrate": 6000, "a': '": 1}'}, "text/plain")""",
    "form without fields": 'form(api + "motion/home", {})',
    "form over a redirect": 'form(SITE + "/redirect?" + api + "motion/move", {x: 70})',
    "no-cors text": 'post("motion/move", move)',
    "no-cors with a JSON header": 'post("motion/move", move, {"Content-Type": "application/json"})',
    "no-cors form": 'post("motion/move", new URLSearchParams({x: 70}))',
    "no-cors parts": 'post("motion/move", (() => { const d = new FormData(); d.append("x", 70); return d; })())',
    "no-cors without a type": 'post("motion/move", new Blob([move]))',
    "no-cors without a body": 'post("motion/home")',
    "no-cors without a referrer": 'post("motion/home", undefined, {}, {referrerPolicy: "no-referrer"})',
    "no-cors with credentials": 'post("motion/move", move, {}, {credentials: "include"})',
    "no-cors that outlives the page": 'post("motion/move", move, {}, {keepalive: true})',
    "no-cors over a redirect": 'fetch(SITE + "/redirect?" + api + "motion/home", {method: "POST", mode: "no-cors"}).then(() => "sent", e => "failed")',
    "pause": 'post("system/pause")',
    "emergency stop": 'post("system/emergency_stop")',
    "queue": 'post("queue/add", JSON.stringify({command: "move", parameters: {x: 70}}))',
    "JSON": 'send("motion/move", {method: "POST", body: move, headers: {"Content-Type": "application/json"}})',
    "text": 'send("motion/move", {method: "POST", body: move, headers: {"Content-Type": "text/plain"}})',
    "form by fetch": 'send("motion/move", {method: "POST", body: new URLSearchParams({x: 70})})',
    "no type": 'send("motion/move", {method: "POST", body: new Blob([move])})',
    "no body": 'send("motion/home", {method: "POST"})',
    "DELETE": 'send("queue/clear", {method: "DELETE"})',
    "PUT": 'send("motion/move", {method: "PUT", body: move})',
    "key in a header": 'send("motion/move", {method: "POST", body: move, headers: {"Content-Type": "text/plain", "Idempotency-Key": "a", "X-API-Key": "b"}})',
    "XMLHttpRequest": 'xhr("application/json", move)',
    "XMLHttpRequest text": 'xhr("text/plain", move)',
    "beacon": 'navigator.sendBeacon(api + "motion/move", move) ? "sent" : "failed"',
    "beacon form": 'navigator.sendBeacon(api + "motion/move", new URLSearchParams({x: 70})) ? "sent" : "failed"',
    "beacon JSON": 'navigator.sendBeacon(api + "motion/move", new Blob([move], {type: "application/json"})) ? "sent" : "failed"',
    "frame without an origin": 'sandboxed(`post("motion/home")`)',
    "frame without an origin, JSON": 'sandboxed(`send("motion/move", {method: "POST", body: move, headers: {"Content-Type": "application/json"}})`)',
    "frame without an origin, form": 'sandboxed(`form(api + "motion/move", {x: 70})`)',
}
READS = ("position", "status", "queue/status", "version")


@pytest.fixture(scope="module")
def listed():
    """A site whose pages may use the API."""
    s = Site("<!DOCTYPE html><title>bench</title><body>")
    yield s
    s.close()


@pytest.fixture(scope="module")
def site():
    """A site of somebody else."""
    s = Site("<!DOCTYPE html><title>free pictures</title><body>")
    yield s
    s.close()


@pytest.fixture(scope="module")
def machine(listed):
    extra = f"[security]\ncors_origins: http://127.0.0.1:{listed.server_port}\n"
    with rig.Rig(klipperplace_extra=extra, shim_env={"LOG_FORMAT": "json", "LOG_LEVEL": "debug"}) as r:
        yield r


@pytest.fixture
def homed(machine):
    helpers.make_homed(machine)
    if abs(axis(machine, "x") - 20) > helpers.X_STEP:
        go(machine, x=20)
    return machine


@pytest.fixture(scope="module")
def chromium():
    c = Chromium(options=OPTIONS)
    yield c
    c.close()


@pytest.fixture
def page(chromium, site):
    """A page of somebody else: of another port, or of another name."""
    def open_page(host):
        chromium.open(f"http://{host}:{site.server_port}/")
        return chromium
    return open_page


def attack(browser, script, server, site=""):
    """What the page says of it."""
    names = f"const SERVER = {json.dumps(server)}, SITE = {json.dumps(site)}, TOOLS = {json.dumps(TOOLS)};"
    return browser.eval(f"(async () => {{ {names} {TOOLS} {SANDBOX} return await ({script}); }})()", awaitPromise=True)


def seen(machine):
    """How many requests the server has logged."""
    return sum(json.loads(line)["component"] == "rest" for line in machine.shim.output().splitlines() if line.startswith("{"))


def state(machine):
    """What a command changes in the server."""
    queue = ok(get(machine, "queue/status"))
    return queue["paused"], queue["queue_size"], ok(get(machine, "status"))["safety"]["emergency_stop_active"]


def moves(machine, browser, server):
    """The same words from a page that may: they move the machine, by REST and by WebSocket."""
    for script, told in ((ATTACKS["JSON"], "200"), ("socket()", "answered")):
        go(machine, x=20)
        assert told in attack(browser, script, server)
        assert axis(machine, "x") == pytest.approx(70, abs=helpers.X_STEP)
    go(machine, x=20)
    assert '"position"' in attack(browser, 'send("position")', server)


# ---- tests ---------------------------------------------------------------------------------------------------------------------

def test_pages_that_may(homed, chromium, listed):
    """One of the list, and the server's own."""
    chromium.open(f"http://127.0.0.1:{listed.server_port}/")
    moves(homed, chromium, homed.url)
    chromium.open(homed.url + "/page.html", "<!DOCTYPE html><title>own</title><body>")
    moves(homed, chromium, homed.url)


@pytest.mark.parametrize("name", ATTACKS)
def test_page_of_another_origin(homed, page, site, name):
    browser, before = page(NAME), state(homed)
    with nothing_reaches_klipper(homed):
        count = seen(homed)
        attack(browser, ATTACKS[name], homed.url, f"http://{NAME}:{site.server_port}")
        wait_for("the server has seen it", lambda: seen(homed) > count, 10)
        assert state(homed) == before
    assert axis(homed, "x") == pytest.approx(20, abs=helpers.X_STEP)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", NAME])
def test_websocket_of_another_origin(homed, page, host):
    """Another port of this very machine is another origin, too."""
    browser = page(host)
    with nothing_reaches_klipper(homed):
        assert attack(browser, "socket()", homed.url) == "refused"
        assert attack(browser, "sandboxed(`socket()`)", homed.url) == "refused"
        assert attack(browser, ATTACKS["JSON"], homed.url) == "failed"
    assert 'kind="websocket"} 0\n' in homed.get("/metrics")[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", NAME])
def test_nothing_to_read(homed, page, host):
    browser = page(host)
    for path in READS:
        for options in ("{}", '{mode: "no-cors"}', '{credentials: "include"}'):
            assert attack(browser, f'send("{path}", {options})', homed.url) in ("failed", "opaque 0 "), path
    assert attack(browser, f'fetch("{homed.url}/metrics").then(r => r.text(), e => "failed")', homed.url) == "failed"


def test_name_bound_anew(homed, chromium):
    """A page of evil.example on the server's own port, whose name now stands for this machine: to the browser the server is the page's own.
    The server knows its names, and this is none of them."""
    own = f"http://{NAME}:{homed.port}"
    chromium.open(own + "/page.html", "<!DOCTYPE html><title>free pictures</title><body>")
    before = state(homed)
    with nothing_reaches_klipper(homed):
        for name, script in ATTACKS.items():
            if "SITE" not in script:
                assert not re.match("(basic|answered) 200", str(attack(chromium, script, own))), name
        assert attack(chromium, "socket()", own) == "refused"
        for path in READS:
            assert "success" not in attack(chromium, f'send("{path}")', own), path
        assert state(homed) == before
    assert axis(homed, "x") == pytest.approx(20, abs=helpers.X_STEP)
    assert pin(homed, "n1.valve") == 0
