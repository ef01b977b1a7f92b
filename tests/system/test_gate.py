# SPDX-License-Identifier: GPL-3.0-or-later
"""Component and shim together: one gate. While klipperplaced is announced, what Moonraker's clients write goes through its lane; without it the component
writes itself. And what people see of it: console lines, the state of queue and safety.

Invariant: a write is done once, by one of the two.
"""
import contextlib
import json
import time

import pytest

import helpers
import rig
from helpers import Later, ok, pin, post, wait_for
from moonraker_client import Client, http_call
from proxy import CountingProxy, proxied_rig

MORE = helpers.EXTRA_VACUUM.format(report_s=0.02) + """
[fan_generic blower]
pin: PD7
[output_pin lamp]
pin: PI9
"""
OPTIONS = helpers.EXTRA_VACUUM_OURS.format(report_s=0.02) + """
[vacuum]
on_fail: ask
"""
ANSWER = (rig.REPO / "klipper_cfg" / "macros.cfg").read_text().split("[gcode_macro _KP_ANSWER]")[1]
SET = "api.fan_control.set"


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(component=True, extras=True, printer_extra=MORE + "[gcode_macro _KP_ANSWER]" + ANSWER, klipperplace_extra=OPTIONS,
                 world_extra=helpers.EXTRA_VACUUM_WORLD) as r:
        wait_for("the shim is announced", lambda: announced(r))
        yield r


def status(machine):
    with Client(machine) as c:
        c.call("api.websocket_notifier.subscribe", {"events": "status"})
        return c.wait_for("notify_klipperplace_status")


def announced(machine):
    """The shim is, and the component has read Klipper too."""
    s = status(machine)
    return s["shim"]["connected"] and s["klipper"]["state"] == "ready"


def blower(machine, speed, **options):
    return machine.moonraker_call(SET, {"fan": "blower", "speed": speed}, **options)


def test_announced(machine):
    s = status(machine)
    assert s["shim"]["version"] and s["shim"]["queue"]["size"] == 0 and s["safety"]["emergency_stop_active"] is False
    assert [n["name"] for n in s["nozzles"]] == ["N1", "N2"] and s["nozzles"][0]["sensor"] == "vacuum1" and len(s["feeders"]) == 6
    with pytest.raises(rig.RpcError) as e:  # there is one, and it is on its own connection
        machine.moonraker_call("api.klipperplace.announce", {"version": "0"})
    assert "INTERLOCK" in str(e.value)
    for method in ("answer", "event"):
        with pytest.raises(rig.RpcError) as e:
            machine.moonraker_call(f"api.klipperplace.{method}", {"id": 1, "answer": {}})
        assert "PERMISSION_DENIED" in str(e.value)


def test_writes_go_through_the_shim(machine):
    done = blower(machine, 0.5)
    assert done["fan"] == "blower" and done["speed"] == 0.5 and done["completed"] is True
    wait_for("the fan turns", lambda: abs(pin(machine, "PD7") - 0.5) < 0.01)
    machine.shim.pause()  # nobody writes past it
    try:
        later = Later(blower, machine, 0)
        time.sleep(0.8)  # well within the 3 s that the component waits for the shim
        assert not later.done and pin(machine, "PD7") > 0.4
    finally:
        machine.shim.resume()
    assert later.answer()["speed"] == 0
    wait_for("the fan stops", lambda: pin(machine, "PD7") == 0)


def test_by_http_too(machine):
    """A query string's numbers are numbers for the shim."""
    status_, done = http_call(machine, "POST", "/api/fan_control/set", {"fan": "blower", "speed": "0.5"})
    assert status_ == 200 and done["speed"] == 0.5
    status_, done = http_call(machine, "POST", "/api/pwm_control/ramp", {"pin": "light", "start_value": "0", "end_value": "1", "duration": "0.5", "steps": "5"})
    assert status_ == 200 and done["pin"] == "light" and done["steps"] == 5, done
    wait_for("the end of the ramp", lambda: pin(machine, "PD4") > 0.99)
    assert http_call(machine, "POST", "/api/pwm_control/set", body={"pin": "light", "value": 0})[0] == 200
    assert pin(machine, "PD4") == 0 and blower(machine, 0)["speed"] == 0


def test_errors_come_back_whole(machine):
    for params, code in (({"fan": "blower", "speed": 2}, "FAN_SPEED_OUT_OF_BOUNDS"), ({"fan": "none", "speed": 1}, "INVALID_PARAMETER"), ({"fan": "blower"}, "MISSING_PARAMETER")):
        with pytest.raises(rig.RpcError) as e:
            machine.moonraker_call(SET, params)
        assert e.value.error["data"]["error_code"] == code and e.value.error["data"]["errors"]
    ok(post(machine, "system/emergency_stop", {"reason": "a test"}))
    try:
        with pytest.raises(rig.RpcError) as e:
            blower(machine, 0.5)
        assert e.value.error["data"]["error_code"] == "EMERGENCY_STOP_ACTIVE" and e.value.error["code"] == 503
        wait_for("the component tells it", lambda: status(machine)["safety"]["emergency_stop_active"])
        assert pin(machine, "PD7") == 0
    finally:
        ok(post(machine, "system/reset"))
    wait_for("all is well again", lambda: not status(machine)["safety"]["emergency_stop_active"])


def queued(machine):
    return ok(machine.get("/api/v1/queue/status"))


@pytest.mark.parametrize("nozzle, z", [("N1", "-29.9"), ("N2", "29.9")])
def test_question_about_a_failed_pick(machine, nozzle, z):
    """The queue waits, both dashboards show a dialog, and each of its buttons does what it says; placements and failures are lines in the console.
    The second nozzle's level is looked at inside Klipper's script."""
    empty = {"x": 40, "y": 20, "place_x": 130, "place_y": 130, "nozzle": nozzle, "feedrate": 24000}
    light = [{"command": "gpio_write", "parameters": {"pin": "lamp", "value": v}} for v in (1, 0)]

    def ask(rest):
        """A batch whose first command fails; its question."""
        ok(post(machine, "queue/batch", {"commands": [{"command": "pick_and_place", "parameters": empty}, rest]}))
        wait_for("the question", lambda: queued(machine)["holds"] == ["paused"] and queued(machine)["executing"], 20)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not any(m == "notify_gcode_response" and p == ["// action:prompt_show"] for m, p in c.heard):
            c.listen(0.1)
        lines = [p[0] for m, p in c.heard if m == "notify_gcode_response"]
        assert any(line.startswith("!! KlipperPlace: pick_and_place: ") for line in lines), lines
        assert "// action:prompt_begin KlipperPlace" in lines and any("pick_and_place failed" in line for line in lines)
        c.heard.clear()
        return [line.split("|")[1] for line in lines if "prompt_footer_button" in line]

    def ended():
        c.wait_for_line("// action:prompt_end")

    helpers.make_homed(machine)
    ok(post(machine, "system/resume"))  # an emergency stop before held the queue
    with Client(machine) as c:
        retry, skip, stop = ask(light[0])
        assert pin(machine, "PI9") == 0
        ok(post(machine, "feeder/advance", {"feeder": "feeder1", "distance": 4}))  # other commands go on meanwhile
        drops = machine.sim_cmd("status")["drops"]
        machine.gcode(retry)
        wait_for("the part is placed and the rest done", lambda: machine.sim_cmd("status")["drops"] == drops + 1 and pin(machine, "PI9") == 1, 20)
        wait_for("the queue is empty", lambda: queued(machine)["queue_size"] == 0 and not queued(machine)["paused"])
        ended()
        c.wait_for_line(f"// KlipperPlace: placed a part by {nozzle} at X130 Y130 Z{z}")
        events = [e for e in status(machine)["events"] if e["what"] in ("placed", "failed")]
        assert [e["what"] for e in events[:2]] == ["placed", "failed"] and events[0]["nozzle"] == nozzle
        ask(light[1])
        machine.gcode(skip)
        wait_for("the rest is done", lambda: pin(machine, "PI9") == 0)
        ended()
        ask(light[0])
        machine.gcode(stop)
        wait_for("the batch is gone", lambda: queued(machine)["queue_size"] == 0)
        ended()
        assert queued(machine)["holds"] == ["paused"] and pin(machine, "PI9") == 0
        ok(post(machine, "system/resume"))
        ask(light[0])
        ok(post(machine, "system/resume"))  # the way without a dialog: skip
        wait_for("the rest is done", lambda: pin(machine, "PI9") == 1)
        ended()
        history = [(e["command"], e["error_code"]) for e in ok(machine.get("/api/v1/queue/history?limit=20"))["entries"] if e["command"] == "pick_and_place"]
        assert [h for h in history if h[1]][:3] == [("pick_and_place", "VACUUM_FAILED")] * 3, history
    helpers.ok(post(machine, "gpio/write", {"pin": "lamp", "value": 0}))


def test_shim_goes_and_comes(machine):
    machine.shim.pause()
    with Client(machine) as c:
        c.link.send(json.dumps({"jsonrpc": "2.0", "id": "set", "method": SET, "params": {"fan": "blower", "speed": 0.5}}))
        c.call("server.info")  # answered behind it: the shim has been asked
        machine.shim.kill()
        answer = json.loads(c.link.receive(30))
        while answer.get("id") != "set":
            answer = json.loads(c.link.receive(30))
    assert answer["error"]["data"]["error_code"] == "OUTCOME_UNKNOWN", answer
    wait_for("it is missed", lambda: not status(machine)["shim"]["connected"])
    assert blower(machine, 0.25)["speed"] == 0.25  # now by the component itself
    wait_for("the fan turns", lambda: abs(pin(machine, "PD7") - 0.25) < 0.01)
    machine.shim.start()
    machine.wait_shim_ready()
    wait_for("it is announced again", lambda: announced(machine))
    assert blower(machine, 0)["speed"] == 0
    known = machine.shim.output().count("moonraker=connected")
    machine.moonraker_call("server.restart")
    wait_for("the shim has found the new Moonraker", lambda: machine.shim.output().count("moonraker=connected") > known, 60)
    wait_for("it is announced to it", lambda: up(machine) and announced(machine), 60)


def test_write_that_waited_goes_through_the_shim_that_came(machine):
    """The component's own script is in Klipper's way for a while; what waits behind it is the shim's when that is there by then."""
    def by_the_shim():
        return [e["command"] for e in ok(machine.get("/api/v1/queue/history?limit=100"))["entries"]].count("pwm_set")
    before = by_the_shim()
    machine.shim.kill()
    wait_for("it is missed", lambda: not status(machine)["shim"]["connected"], 20)
    busy = Later(machine.gcode, "G4 P8000")
    wait_for("Klipper is busy", lambda: machine.klippy_state()[0] == "ready" and time.monotonic() > busy.began + 0.5)
    first = Later(blower, machine, 0.5)
    time.sleep(0.3)
    second = Later(machine.moonraker_call, "api.pwm_control.set", {"pin": "light", "value": 0.5}, timeout=60)
    machine.shim.start()
    machine.wait_shim_ready()
    wait_for("it is announced again", lambda: announced(machine), 30)
    if busy.done:
        pytest.skip("this machine took longer than eight seconds to start the shim")
    assert first.answer()["speed"] == 0.5 and second.answer()["value"] == 0.5
    assert by_the_shim() == before + 1
    assert blower(machine, 0)["speed"] == 0
    ok(post(machine, "pwm/set", {"pin": "light", "value": 0, "wait": True}))


def test_ramp_is_handed_over(machine):
    """A ramp that the component leads by itself is the shim's when that comes: it goes on, and a write in the shim's lane ends it."""
    machine.shim.kill()
    wait_for("it is missed", lambda: not status(machine)["shim"]["connected"], 20)
    machine.moonraker_call("api.pwm_control.ramp", {"pin": "light", "start_value": 0.1, "end_value": 0.9, "duration": 80, "steps": 80})
    machine.shim.start()
    machine.wait_shim_ready()
    wait_for("it is announced again", lambda: announced(machine), 30)
    before = pin(machine, "PD4")
    wait_for("it goes on", lambda: pin(machine, "PD4") > before + 0.015, 30)
    ok(post(machine, "pwm/set", {"pin": "light", "value": 0, "wait": True}))
    time.sleep(2.5)  # two steps
    assert pin(machine, "PD4") == 0


class Component(CountingProxy):
    """Stands in for the component, which itself asks for writes alone."""

    def take(self, client, frame):
        request = json.loads(frame)
        if request["method"] == "api.klipperplace.announce":
            self.shim = client
        if request["method"] != "api.klipperplace.answer":
            return False
        self.answers[request["params"]["id"]] = request["params"]["answer"]
        return True

    def ask(self, command):
        number = len(self.answers) + 1
        self.shim.sendall(json.dumps({"jsonrpc": "2.0", "method": "klipperplace_request", "params": [{"id": number, "command": command, "parameters": {}}]}).encode() + b"\x03")
        return wait_for("an answer", lambda: self.answers.get(number))

    answers, shim = {}, None


def test_what_the_channel_serves():
    """What moves and what may be looked at. Nothing else, and nothing in its place."""
    with proxied_rig(Component) as (machine, component):
        wait_for("the shim announces itself", lambda: component.shim)
        for command in ("health", "ready", "metrics", "openapi", "pause", "queue_add", "emergency_stop", "nothing"):
            answer = component.ask(command)
            assert (answer["status"], answer["error_code"], answer["http_status"]) == ("error", "COMMAND_NOT_FOUND", 404), command
            assert ok(helpers.get(machine, "queue/status"))["holds"] == [], command
        assert component.ask("get_version")["status"] == component.ask("queue_status")["status"] == component.ask("wait")["status"] == "success"
        assert component.ask("ws_token")["error_code"] == "PERMISSION_DENIED"


def up(machine):
    try:
        return machine.moonraker_call("server.info")["klippy_state"] == "ready"
    except (OSError, rig.RpcError):
        return False


def test_configuration_to_start_from(tmp_path):
    """printer.cfg, macros.cfg, moonraker.conf and klipperplace-example.cfg of klipper_cfg/ are one machine, and it works: home, pick, place, lights, buttons."""
    folder = rig.REPO / "klipper_cfg"
    files = {name: folder / name for name in ("printer.cfg", "macros.cfg", "moonraker.conf")} | {"klipperplace.cfg": folder / "klipperplace-example.cfg"}
    local = "[machine]\nprovider: none\nvalidate_service: False\nvalidate_config: False\n[file_manager]\ncheck_klipper_config_path: False\n[announcements]\nenable_moonlight: False\n"
    with rig.Rig(component=True, configs=files, moonraker_extra=local, klipperplace_extra=f"[history]\ndatabase: {tmp_path}/klipperplace.db\n",
                 world_extra="button stop pin=PG1 state=0") as machine:
        wait_for("the shim is announced", lambda: announced(machine))
        s = status(machine)
        assert not [n for n in s["nozzles"] + s["feeders"] if n["fault"]], s
        assert "config field=" not in machine.shim.output()
        info = machine.moonraker_call("server.info")
        assert info["failed_components"] == [] and not [w for w in info["warnings"] if "Supplied path" not in w], info["warnings"]
        assert [w["name"] for w in machine.moonraker_call("server.webcams.list")["webcams"]] == ["KlipperPlace"]
        helpers.make_homed(machine)
        machine.gcode("PNP_LIGHTS S=0.5")
        wait_for("both lights", lambda: all(abs(pin(machine, p) - 0.5) < 0.01 for p in ("PD4", "PD5")))
        ok(post(machine, "feeder/advance", {"feeder": "feeder1", "distance": 4}))
        ok(post(machine, "pnp/pick_and_place", {"x": 40, "y": 20, "place_x": 120, "place_y": 120, "nozzle": "N1", "feedrate": 24000}))
        assert machine.sim_cmd("status")["drops"] == 1
        machine.gcode("PNP_PARK\nM400")
        assert abs(helpers.axis(machine, "x")) < 0.02 and abs(helpers.axis(machine, "z")) < 0.02
        machine.gcode("PNP_OFF\nM400")
        wait_for("lights off", lambda: pin(machine, "PD4") == 0)
        machine.gcode("G90\nG1 X50 Z-20 F6000\nM400")
        mark = time.monotonic()
        machine.gcode("G28 X\nM400")  # with a tip down
        moved = [e["stepper"] for e in machine.events("motion_start") if e["t"] >= mark and e["stepper"] in ("x", "z")]
        assert moved[0] == "z" and "x" in moved and not machine.sim_cmd("status")["crashes"]
        script = Later(machine.gcode, "G1 X300 F300\nM400")
        wait_for("it moves", lambda: helpers.steps(machine)["moving"])
        machine.sim_cmd("press stop")
        wait_for("the button stops it", lambda: machine.klippy_state()[0] == "shutdown", 10)  # of a minute
        assert "stop button" in machine.klippy_state()[1]
        with contextlib.suppress(rig.RpcError):  # Klipper may answer ok to an M400 that a shutdown ended
            script.answer(10)
