# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see in Mainsail and Fluidd: a panel, rows among the sensors, lines in the console, a link in Mainsail's sidebar. Each by an option of
[klipperplace]. Invariant: what rests on Moonraker's internals is tried once, and where they differ it steps back with one line in the log."""
import json
import logging
import os
import pathlib
from collections import deque

from ...common import RequestType, TransportType

PANEL = "/server/klipperplace/panel"
STORE = 1200  # measurements kept of a sensor, one a second, as Moonraker keeps them
LINK = {"title": "KlipperPlace", "href": PANEL, "target": "_blank", "position": 90,
        "icon": "M4,2H20V4H13V10H15V13L12,18L9,13V10H11V4H4V2M10,20H14V22H10V20Z"}


class Row:
    """A sensor of klipperplace.cfg as Moonraker's sensor component wants its own."""

    def __init__(self, mirror, name, kind, unit):
        self.mirror, self.id, self.name, self.type = mirror, name, name, kind or "sensor"
        self.unit = unit
        self.last_measurements, self.last_value = {}, {}
        self.values = {"value": deque(maxlen=STORE)}
        self.param_info = [{"name": "value", "units": unit, "description": f"{name} as Klipper tells it"}]
        self.error_state = None

    def look(self):
        """Nothing is shown where nothing is known: an old value would look like a new one."""
        s = next((s for s in self.mirror.machine.sensors() if s["name"] == self.id), None)
        shown = s and self.mirror.fresh and s["known"] and s["value"] is not None
        self.last_measurements = {"value": round(s["value"], 3)} if shown else {}

    def _update_sensor_value(self, eventtime):
        self.look()
        for value in self.last_measurements.values():
            self.values["value"].append(value)
        self.last_value = dict(self.last_measurements)

    async def initialize(self):
        return True

    def get_sensor_info(self, extended=False):
        info = {"id": self.id, "friendly_name": f"{self.name} [{self.unit}]" if self.unit else self.name, "type": self.type, "values": self.last_measurements}
        if extended:
            info.update(parameter_info=self.param_info, history_fields=[])
        return info

    def get_sensor_measurements(self):
        return {"value": list(self.values["value"])}

    def get_name(self):
        return self.name

    def close(self):
        pass


class Visible:
    def __init__(self, config, component):
        self.server, self.component = config.get_server(), component
        self.console = config.getboolean("console", True)
        self.navi = config.getboolean("navi", True)
        self.dialog = config.getboolean("dialog", True)
        self.attempt("dialog", lambda: self.server.register_remote_method("klipperplace_answer", self.on_answer))
        if config.getboolean("panel", True):
            self.page = (pathlib.Path(__file__).parent / "panel.html").read_text(encoding="utf-8")
            self.attempt("panel", self.add_panel)
        if config.getboolean("sensors", True):
            self.attempt("sensors", lambda: self.add_sensors(config))

    def attempt(self, feature, f):
        try:
            f()
        except Exception as e:  # whatever an other Moonraker makes of it
            logging.warning(f"klipperplace: {feature} is left out, this Moonraker does not take it: {e!r}")

    def add_panel(self):
        self.server.register_endpoint(PANEL, RequestType.GET, self.on_panel, transports=TransportType.HTTP, wrap_result=False,
                                      content_type="text/html; charset=utf-8", auth_required=False)

    async def on_panel(self, request):
        return self.page

    def add_sensors(self, config):
        sensors = self.server.load_component(config, "sensor").sensors
        if not isinstance(sensors, dict):
            raise TypeError("the sensor component keeps its sensors otherwise")
        read = self.component.config
        for name in read.sections("sensor"):
            if name not in sensors:
                sensors[name] = Row(self.component.mirror, name, read.get(f"sensor {name}", "type"), read.get(f"sensor {name}", "unit") or "")

    def say(self, text):
        if self.console:
            self.server.send_event("server:gcode_response", text)

    def happened(self, event):
        """One line for what the shim tells of."""
        what = event.get("what")
        if what == "placed":
            at = event.get("position") or {}
            where = " ".join(f"{axis.upper()}{value:g}" for axis, value in at.items() if isinstance(value, (int, float)))
            self.say(f"// KlipperPlace: placed {event.get('part') or 'a part'} by {event.get('nozzle') or 'its nozzle'} at {where}")
        elif what == "failed":
            self.say(f"!! KlipperPlace: {event.get('command')}: {event.get('message')}")
        elif what == "asked" and self.dialog:
            self.ask(event)
        elif what == "answered" and self.dialog:
            self.server.send_event("server:gcode_response", "// action:prompt_end")
        elif what == "safety":
            bad = str(event.get("level")).lower() in ("critical", "emergency")
            self.say(f"{'!!' if bad else '//'} KlipperPlace: safety {event.get('level')}: {event.get('message')}")

    def ask(self, event):
        """A dialog in Mainsail and Fluidd; its buttons run the macro of klipper_cfg/macros.cfg, which calls on_answer."""
        for line in ("prompt_begin KlipperPlace", f"prompt_text {event.get('command')} failed: {event.get('message')}", "prompt_text The queue waits for you.",
                     "prompt_footer_button Try again|_KP_ANSWER CHOICE=retry|primary", "prompt_footer_button Skip it|_KP_ANSWER CHOICE=skip|warning",
                     "prompt_footer_button Stop the queue|_KP_ANSWER CHOICE=stop|error", "prompt_show"):
            self.server.send_event("server:gcode_response", "// action:" + line)

    def on_answer(self, choice=""):
        """From Klipper: somebody pressed a button of the dialog."""
        self.component.shim.notify("klipperplace_answer", {"choice": str(choice)})

    async def start(self):
        self.attempt("navi", self.merge_link)

    def merge_link(self):
        """Mainsail's sidebar: our entry beside whatever else is in the file, or none when switched off. A file that cannot be read is left alone."""
        folder = pathlib.Path(self.server.lookup_component("file_manager").get_directory("config")) / ".theme"
        path = folder / "navi.json"
        links = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if not isinstance(links, list):
            raise ValueError(f"{path} holds no list")
        others = [link for link in links if not (isinstance(link, dict) and link.get("href") == PANEL)]
        ours = next((link for link in links if link not in others), LINK)  # as somebody may have changed it
        wanted = others + [ours] if self.navi else others
        if wanted == links or sorted(map(json.dumps, wanted)) == sorted(map(json.dumps, links)):
            return
        folder.mkdir(exist_ok=True)
        new = folder / "navi.json.new"
        new.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        os.replace(new, path)

    def close(self):
        pass
