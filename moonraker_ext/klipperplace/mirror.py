# SPDX-License-Identifier: GPL-3.0-or-later
"""The component's mirror of Klipper, in a _kp.Machine. Invariant: the machine says "ready" only after all that Klipper is made of has been read since it was
last away, and a value is fresh only while pushes come."""
import asyncio
import logging
import time

from . import _kp

FRESH_MS = 1000  # while the last push is younger, every subscribed field is as last told
PUSH = "klipperplace_push_component"  # what the Klipper extra calls when an input changed; the shim has a name of its own
OUTPUTS = ("output", "pwm", "servo")


def now_ms():
    return int(time.monotonic() * 1000)


class Mirror:
    def __init__(self, server, config):
        self.server = server
        self.machine = _kp.Machine(config)
        self.machine.moonraker(True)  # we live in it
        self.ready = False
        self.wall = None   # when the last push came, seconds since the epoch
        self.pushed_ms = None
        self.heard = []    # called after each push and each change of Klipper's state
        self.waiting = []  # futures of those who wait for the next push
        self.faults = []
        self.reading = 0   # counts the readings begun: a later one outdates those before
        server.register_event_handler("server:klippy_ready", self.read)
        server.register_event_handler("server:klippy_shutdown", self.on_shutdown)
        server.register_event_handler("server:klippy_disconnect", self.on_gone)
        server.register_remote_method(PUSH, self.on_extra)

    async def read(self):
        """Reads all that Klipper is made of, and subscribes."""
        self.reading += 1
        this = self.reading
        apis = self.server.lookup_component("klippy_apis")
        try:
            objects = await apis.get_object_list()
            made = await apis.query_objects({"configfile": ["settings"], "gcode": ["commands"]})
            if this != self.reading:
                return
            self.feed_make(objects, made)
            status = await apis.subscribe_objects({name: None for name in self.machine.watch()}, self.on_status)
        except self.server.error as e:
            logging.info(f"klipperplace: Klipper cannot be read: {e}")
            return
        if this != self.reading:
            return
        self.ready = True
        self.machine.klippy("ready")
        self.push(status)

    def feed_make(self, objects, made):
        m = self.machine
        m.reset()
        for name in objects:
            m.object(name)
        for word in made.get("gcode", {}).get("commands") or {}:
            m.command(word)
        for section, options in made["configfile"]["settings"].items():
            for option, value in options.items():
                m.setting(section, option, value)
        self.faults = m.resolve()
        for f in self.faults:
            logging.warning(f"klipperplace: {f['field']}: {f['message']}")

    def on_status(self, status, eventtime):
        if self.ready:
            self.push(status)

    def on_extra(self, status=None, eventtime=None):
        """From the Klipper extra: inputs that changed, before Klipper's tick. It makes nothing else fresh."""
        if self.ready and isinstance(status, dict):
            self.machine.feed(status, now_ms())
            self.tell()

    def push(self, status):
        now = now_ms()
        self.machine.feed(status, now)
        self.machine.pushed(now)
        self.pushed_ms, self.wall = now, time.time()
        hooks = status.get("webhooks", {})
        if hooks.get("state", "ready") != "ready":
            self.ready = False
            self.machine.klippy(hooks["state"], hooks.get("state_message", ""))
        self.tell()

    def tell(self):
        waiting, self.waiting = self.waiting, []
        for f in waiting:
            if not f.done():
                f.set_result(None)
        for heard in self.heard:
            heard()

    def on_shutdown(self):
        self.leave("shutdown", self.server.lookup_component("klippy_connection").state_message)

    def on_gone(self):
        self.leave("disconnected", "")

    def leave(self, state, message):
        self.reading += 1
        self.ready = False
        self.machine.klippy(state, message or "")
        self.tell()

    @property
    def fresh(self):
        return self.ready and self.pushed_ms is not None and now_ms() - self.pushed_ms < FRESH_MS

    async def next_push(self, timeout):
        """Waits for the next push or change of state. False: none came in time."""
        f = asyncio.get_running_loop().create_future()
        self.waiting.append(f)
        try:
            await asyncio.wait_for(f, timeout)
            return True
        except asyncio.TimeoutError:
            return False

    # ---- what is told of it, in the words of API v1

    def pin(self, p, inverted=False):
        value = None
        if p["changed_ms"] is not None:
            value = 1 - p["value"] if inverted else p["value"]
            if p["kind"] not in ("pwm", "servo"):
                value = int(value >= 0.5)
        return {"pin": p["name"], "state": value, "direction": "output" if p["kind"] in OUTPUTS else "input",
                "stale": not self.fresh or p["dirty"], "timestamp": self.wall}

    def sensor(self, s):
        return {"sensor": s["name"], "type": s["type"], "value": s["value"] if s["changed_ms"] is not None else None, "unit": s["unit"],
                "last_updated": self.wall, "stale": not self.fresh}

    def fan(self, f):
        return {"fan": f["name"], "speed": f["speed"] if f["changed_ms"] is not None else None, "settable": f["kind"] != "automatic",
                "stale": not self.fresh, "timestamp": self.wall}

    def pwm(self, p):
        return {"pin": p["name"], "value": p["value"] if p["changed_ms"] is not None else None, "cycle_time": p["cycle_time_s"],
                "stale": not self.fresh or p["dirty"], "timestamp": self.wall}

    def inputs(self):
        return [self.pin(p) for p in self.machine.pins() if p["kind"] not in OUTPUTS]

    def outputs(self):
        return [self.pin(p) for p in self.machine.pins() if p["kind"] in OUTPUTS]

    def sensors(self, kind=None):
        return [self.sensor(s) for s in self.machine.sensors() if kind is None or s["type"] == kind]

    def fans(self):
        return [self.fan(f) for f in self.machine.fans()]

    def pwms(self):
        return [self.pwm(p) for p in self.machine.pins() if p["kind"] in ("pwm", "servo")]

    def position(self):
        s = self.machine.state()
        axes = self.machine.axes()
        return {"position": s["position"], "commanded": s["commanded"], "homed_axes": [a["letter"].lower() for a in axes if a["homed"]],
                "extra": {a["letter"].lower(): a["position"] if a["tracked"] and a["homed"] else None for a in axes if a["extra"]},
                "stale": not self.fresh, "timestamp": self.wall}
