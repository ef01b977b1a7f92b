# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see: the panel in Chromium inside an iframe of another page, as a dashboard shows it, and the rows among Moonraker's sensors.

Invariant: what stands on the panel is what the simulated machine does. KP_SCREENSHOTS=1 writes docs/moonraker-panel.png anew.
"""
import base64
import json
import os
import time

import pytest

import helpers
import rig
from browser import Chromium, Site
from helpers import Later, ok, post, wait_for
from moonraker_client import Client, WebSocket, http_call


class Browser(Chromium):
    """One page that holds the panel in an iframe."""

    def __init__(self, machine):
        panel = f"http://127.0.0.1:{machine.moonraker_port}/server/klipperplace/panel"
        self.site = Site('<!DOCTYPE html><title>dashboard</title><body style="margin:0;background:#111">'
                         f'<iframe src="{panel}" style="display:block;border:0;width:900px;height:600px"></iframe>')
        super().__init__(f"http://127.0.0.1:{self.site.server_port}/")
        self.origin = panel.rsplit("/server", 1)[0]
        self.call("Emulation.setDeviceMetricsOverride", width=900, height=600, deviceScaleFactor=1, mobile=False)
        wait_for("the iframe", lambda: self.call("Page.getFrameTree") and self.origin in self.contexts, 60)

    def eval(self, expression, **how):
        """A value out of the iframe."""
        return super().eval(expression, contextId=self.contexts[self.origin], **how)

    def rows(self, table):
        return dict(self.eval(f"[...document.querySelectorAll('#{table} tr')].map(r => [...r.children].map(c => c.textContent))"))

    def text(self, name):
        return self.eval(f"document.getElementById('{name}').textContent")

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", clip={"x": 0, "y": 0, "width": 900, "height": 600, "scale": 1})["data"])

    def close(self):
        super().close()
        self.site.close()


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(component=True) as r:
        yield r


@pytest.fixture(scope="module")
def browser(machine):
    b = Browser(machine)
    yield b
    b.close()


def places_of_x(machine, browser, x):
    """What the panel shows of X during a slow move."""
    move, seen = Later(post, machine, "motion/move", {"x": x, "feedrate": 1500, "wait": True}), set()
    while not move.done:
        seen.add(browser.rows("position").get("X"))
    ok(move.answer())
    return seen


def test_live_in_an_iframe(machine, browser):
    wait_for("Klipper is told", lambda: browser.text("klipper") == "Klipper ready", 30)
    helpers.make_homed(machine)
    assert any(len(places_of_x(machine, browser, x)) >= 3 for x in (20, 120, 20, 120, 20, 120))  # it moves on the panel too
    ok(post(machine, "feeder/advance", {"feeder": "feeder1", "distance": 4}))
    ok(post(machine, "pnp/pick_and_place", {"x": 40, "y": 20, "place_x": 120, "place_y": 120, "nozzle": "N1", "feedrate": 24000}))
    wait_for("the position", lambda: browser.rows("position").get("X") == "120" and browser.rows("position").get("Y") == "120", 20)
    assert "none" not in browser.rows("nozzles") and set(browser.rows("feeders")) == {f"feeder{i}" for i in range(1, 7)}
    wait_for("the placement", lambda: "placed N1" in browser.rows("queue").values() and browser.rows("queue")["klipperplaced"] == "connected", 20)
    machine.sim_cmd("press start_button")
    wait_for("the button", lambda: browser.rows("inputs")["start_button"] == "1", 20)
    machine.sim_cmd("release start_button")
    wait_for("its release", lambda: browser.rows("inputs")["start_button"] == "0", 20)
    ok(post(machine, "vacuum/on", {"nozzle": "N1"}))
    wait_for("pump and level", lambda: browser.rows("outputs")["pump1"] == "1" and browser.rows("nozzles")["N1"].startswith("-2"), 20)
    machine.sim_cmd("adc n1.sensor 0.722222")
    wait_for("a part is held", lambda: "N1 · part" in browser.rows("nozzles"), 20)
    picture = browser.screenshot()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) > 10000
    if os.environ.get("KP_SCREENSHOTS") == "1":
        (rig.REPO / "docs" / "moonraker-panel.png").write_bytes(picture)
    machine.sim_cmd("adc n1.sensor auto")
    ok(post(machine, "vacuum/off", {"nozzle": "N1"}))


def test_sensor_rows(machine):
    """Moonraker's own list of sensors has ours, with units and a history, and shows nothing while nothing is known."""
    sensors = machine.moonraker_call("server.sensors.list", {"extended": True})["sensors"]
    assert set(sensors) == {"vacuum1", "vacuum2"} and sensors["vacuum1"]["parameter_info"][0]["units"] == "kPa"
    with Client(machine, WebSocket) as c:
        machine.sim_cmd("adc n2.sensor 0.6")
        c.wait_for("notify_sensor_update", lambda p: -57 < p.get("vacuum2", {}).get("value", 0) < -55, timeout=30)
        machine.sim_cmd("adc n2.sensor auto")
    wait_for("a history", lambda: len(machine.moonraker_call("server.sensors.measurements")["vacuum1"]["value"]) > 2, 30)


def test_names_are_text(machine, browser):
    """What Klipper or a client says is never markup on the panel."""
    browser.eval("state.status.events = [{what: 'failed', message: '<img src=x onerror=document.title=1>', timestamp: 0}]; draw()")
    assert "<img" in "".join(browser.rows("queue").values()) and browser.eval("document.querySelectorAll('#queue img').length") == 0


def test_stop_asks_once(machine, browser):
    press = "b.click(), b.textContent"
    assert browser.eval(f"(b => ({press}))(document.getElementById('stop'))") == "Press again to stop"
    wait_for("it forgets the first press", lambda: browser.text("stop") == "Emergency stop", 30)  # after 4 s of the browser's own clock
    assert browser.eval(f"(b => ({press}))(document.getElementById('stop'))") == "Press again to stop"
    time.sleep(0.5)
    assert machine.klippy_state()[0] == "ready"
    wait_for("it forgets that one too", lambda: browser.text("stop") == "Emergency stop", 30)
    assert browser.eval(f"(b => ({press}, {press}))(document.getElementById('stop'))") == "Emergency stop"  # twice within the 4 s, whatever the machine does
    wait_for("the machine stops", lambda: machine.klippy_state()[0] == "shutdown", 30)
    wait_for("the panel tells it", lambda: "shutdown" in browser.text("klipper"), 30)
    wait_for("nothing old looks new", lambda: browser.eval("document.querySelectorAll('#inputs tr.stale').length") == len(browser.rows("inputs")) > 0, 20)
    wait_for("the sensors show nothing", lambda: machine.moonraker_call("server.sensors.info", {"sensor": "vacuum1"})["values"] == {}, 20)
    assert http_call(machine, "GET", "/server/klipperplace/panel")[0] == 200
    Later(post, machine, "system/reset")
    wait_for("the panel lives again", lambda: browser.text("klipper") == "Klipper ready", 60)
    wait_for("fresh", lambda: browser.eval("document.querySelectorAll('#inputs tr.stale').length") == 0, 20)


def test_link_in_the_sidebar(machine):
    navi = json.loads((machine.data / "config" / ".theme" / "navi.json").read_text())
    assert [link["href"] for link in navi] == ["/server/klipperplace/panel"]


def test_switched_off():
    """Each feature by its option. One that cannot be had costs one line in the log and nothing else; what others wrote into navi.json stays."""
    other = "import moonraker.components.sensor as s; s.load_component = lambda config: object()"  # keeps its sensors elsewhere
    machine = rig.Rig(shim=False, component="panel: False\nconsole: False\ndialog: False\n", moonraker_code=other)
    navi = machine.data / "config" / ".theme" / "navi.json"
    navi.parent.mkdir()
    navi.write_text('{"no": "list"}')
    with machine:
        assert http_call(machine, "GET", "/server/klipperplace/panel")[0] == 404
        info = machine.moonraker_call("server.info")
        assert info["failed_components"] == [] and "klipperplace" in info["components"]
        log = (machine.data / "logs" / "moonraker.log").read_text()
        assert log.count("navi is left out") == 1 and log.count("sensors is left out") == 1 and log.count("left out, this Moonraker") == 2 and navi.read_text() == '{"no": "list"}'
        wait_for("it reads all the same", lambda: not machine.moonraker_call("api.gpio_monitor.input", {"pin": "start_button"})["stale"], 30)
        with Client(machine) as shim, Client(machine) as c:  # a shim's part, played: neither console lines nor a dialog
            shim.call("api.klipperplace.announce", {"version": "0"})
            for what in ("placed", "failed", "safety", "asked", "answered"):
                shim.call("api.klipperplace.event", {"what": what, "command": "pick", "message": "no part", "level": "critical"})
            machine.gcode("RESPOND MSG=after")
            c.wait_for_line("echo: after")
            lines = [p[0] for m, p in c.heard if m == "notify_gcode_response"]
            assert not any("KlipperPlace" in line or "action:" in line for line in lines), lines
        mine = {"title": "Mine", "href": "/mine"}
        navi.write_text(json.dumps([mine, {"title": "KlipperPlace", "href": "/server/klipperplace/panel"}]))
        conf = machine.data / "config" / "moonraker.conf"
        conf.write_text(conf.read_text().replace("panel: False", "panel: False\nnavi: False\nsensors: False"))
        machine.moonraker_call("server.restart")
        wait_for("our link is gone", lambda: json.loads(navi.read_text()) == [mine], 60)
        assert (machine.data / "logs" / "moonraker.log").read_text().count("left out") == 2
