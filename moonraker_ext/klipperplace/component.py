# SPDX-License-Identifier: GPL-3.0-or-later
"""The component: reads its options, starts the rooms, and is the way from an endpoint to them. It decides nothing; _kp does."""
import logging
import os
import pathlib

from ...common import RequestType, TransportType
from . import _kp, errors
from .mirror import OUTPUTS, Mirror
from .notifier import Notifier
from .shim import Shim
from .visible import Visible
from .writer import Writer

CONFIG_MAX = 1 << 20  # bytes of klipperplace.cfg
GET, POST = RequestType.GET, RequestType.POST


def read_config(config):
    """The klipperplace.cfg that the shim reads too: beside moonraker.conf where nothing else is said."""
    default = pathlib.Path(config.get_server().get_app_arg("config_file")).parent / "klipperplace.cfg"
    path = pathlib.Path(os.path.expanduser(config.get("config_file", str(default))))
    try:
        text = path.read_text(encoding="utf-8") if path.exists() or "config_file" in config.get_options() else ""
        if len(text) > CONFIG_MAX:
            raise config.error(f"[klipperplace] config_file: {path} is too long")
        return _kp.Config(text, str(path))
    except (OSError, UnicodeDecodeError) as e:
        raise config.error(f"[klipperplace] config_file: {path}: {e}") from None
    except _kp.Error as e:
        raise config.error("[klipperplace]: " + "; ".join(f["message"] for f in e.errors)) from None


class KlipperPlace:
    def __init__(self, config):
        self.server = config.get_server()
        self.config = read_config(config)
        self.mirror = Mirror(self.server, self.config)
        self.shim = Shim(self.server, self.on_shim, self.on_event)
        self.writer = Writer(self.server, self.mirror, self.shim)
        self.notifier = Notifier(self.server, {
            "gpio": lambda: {p["pin"]: p for p in self.unstamped(self.mirror.inputs() + self.mirror.outputs())},
            "sensors": lambda: {s["sensor"]: s for s in self.unstamped(self.mirror.sensors())},
            "fans": lambda: {f["fan"]: f for f in self.unstamped(self.mirror.fans())},
            "pwm": lambda: {p["pin"]: p for p in self.unstamped(self.mirror.pwms())},
            "position": lambda: self.unstamped([self.mirror.position()])[0],
            "status": self.status,
        })
        self.mirror.heard.append(self.notifier.update)
        self.visible = Visible(config, self)
        self.register()
        for option in ("config_file",):
            config.get(option, None)

    @staticmethod
    def unstamped(rows):
        """Without the push's own time, which changes with every push: a notification is for what changed."""
        return [{k: v for k, v in row.items() if k not in ("timestamp", "last_updated")} for row in rows]

    def register(self):
        sockets = TransportType.WEBSOCKET
        for path, kind, handler, transports in (
                ("gpio_monitor/inputs", GET, self.on_inputs, None), ("gpio_monitor/input", GET, self.on_input, None),
                ("gpio_monitor/outputs", GET, self.on_outputs, None),
                ("sensor_query/all", GET, self.on_sensors, None), ("sensor_query/type", GET, self.on_type, None),
                ("sensor_query/sensor", GET, self.on_sensor, None),
                ("fan_control/set", POST, self.on_fan_set, None), ("fan_control/off", POST, self.on_fan_off, None),
                ("fan_control/status", GET, self.on_fan_status, None),
                ("pwm_control/set", POST, self.on_pwm_set, None), ("pwm_control/ramp", POST, self.on_pwm_ramp, None),
                ("pwm_control/status", GET, self.on_pwm_status, None),
                ("websocket_notifier/subscribe", POST, self.on_subscribe, sockets), ("websocket_notifier/unsubscribe", POST, self.on_unsubscribe, sockets),
                ("websocket_notifier/subscriptions", GET, self.on_subscriptions, sockets)):
            self.server.register_endpoint(f"/api/{path}", kind, self.guarded(handler), transports=transports or TransportType.all())

    def guarded(self, handler):
        """libkp's refusals become Moonraker's errors."""
        async def endpoint(request):
            try:
                return await handler(request)
            except _kp.Error as e:
                raise errors.of(self.server, e) from None
        return endpoint

    # ---- reads

    def args(self, request, *names):
        """The arguments of a read; a name it does not have is a fault, one it lacks is None."""
        given = request.get_args()
        for name in given:
            if name not in names:
                raise errors.make(self.server, "INVALID_PARAMETER", 400, f"there is no parameter {name[:40]}", field=name[:40])
        values = []
        for name in names:
            value = given.get(name)
            if value is not None and not isinstance(value, str):
                raise errors.make(self.server, "INVALID_PARAMETER", 400, f"{name} must be a string", field=name)
            values.append(value)
        return values

    def required(self, request, name):
        value = self.args(request, name)[0]
        if value is None:
            raise errors.make(self.server, "MISSING_PARAMETER", 400, f"{name} is required", field=name)
        return value

    def known(self):
        """A Klipper never seen has nothing to be asked of."""
        if not self.mirror.ready and self.mirror.pushed_ms is None:
            state = self.mirror.machine.state()
            raise errors.make(self.server, "KLIPPY_DISCONNECTED", 503, f"Klipper is not ready: {state['klippy']}",
                              klipper={"state": state["klippy"], "message": state["message"]})

    async def on_inputs(self, request):
        self.args(request)
        self.known()
        pins = self.mirror.inputs()
        return {"inputs": pins, "count": len(pins)}

    async def on_outputs(self, request):
        self.args(request)
        self.known()
        pins = self.mirror.outputs()
        return {"outputs": pins, "count": len(pins)}

    async def on_input(self, request):
        name = self.required(request, "pin")
        self.known()
        p = self.mirror.machine.pin(name)
        return self.mirror.pin(p, p["asked_inverted"])

    async def on_sensors(self, request):
        self.args(request)
        self.known()
        sensors = self.mirror.sensors()
        return {"sensors": sensors, "count": len(sensors)}

    async def on_type(self, request):
        kind = self.required(request, "type")
        self.known()
        sensors = self.mirror.sensors(kind)
        return {"type": kind, "sensors": sensors, "count": len(sensors)}

    async def on_sensor(self, request):
        name = self.required(request, "name")
        self.known()
        return self.mirror.sensor(self.mirror.machine.sensor(name))

    async def on_fan_status(self, request):
        name = self.args(request, "fan")[0]
        self.known()
        if name is not None:
            return self.mirror.fan(self.mirror.machine.fan(name))
        fans = self.mirror.fans()
        return {"fans": fans, "count": len(fans)}

    async def on_pwm_status(self, request):
        name = self.args(request, "pin")[0]
        self.known()
        if name is None:
            pins = self.mirror.pwms()
            return {"pins": pins, "count": len(pins)}
        p = self.mirror.machine.pin(name)
        if p["kind"] not in ("pwm", "servo"):
            raise errors.make(self.server, "INVALID_PARAMETER", 400, f"{p['name']} has no PWM", field="pin")
        return self.mirror.pwm(p)

    # ---- writes

    async def write(self, command, request):
        self.known()
        return await self.writer.run(command, request.get_args(), request.get_client_connection() is None)

    async def on_fan_set(self, request):
        return await self.write("fan_set", request)

    async def on_fan_off(self, request):
        return await self.write("fan_off", request)

    async def on_pwm_set(self, request):
        return await self.write("pwm_set", request)

    async def on_pwm_ramp(self, request):
        return await self.write("pwm_ramp", request)

    # ---- notifications

    async def on_subscribe(self, request):
        return self.notifier.subscribe(request)

    async def on_unsubscribe(self, request):
        return self.notifier.unsubscribe(request)

    async def on_subscriptions(self, request):
        return self.notifier.subscriptions(request)

    def on_shim(self):
        logging.debug(f"klipperplace: shim {'here' if self.shim.here else 'gone'}")
        self.notifier.update("status")

    def on_event(self, event):
        self.visible.happened(event)
        self.notifier.update("status")

    def status(self):
        """What is neither pin nor sensor: Klipper, safety, the shim with its queue, nozzles with their vacuum, feeders."""
        machine = self.mirror.machine
        s = machine.state()
        sensors = machine.sensors()
        told = self.shim.told if self.shim.here else {}
        safety = told.get("safety") or {"level": s["level"], "emergency_stop_active": s["latched"]}
        return {
            "klipper": {"state": s["klippy"], "message": s["message"]},
            "safety": {**safety, "reason": s["reason"]},
            "shim": {"connected": self.shim.here, "version": told.get("version"), "queue": told.get("queue")},
            "events": self.shim.events[:10],
            "nozzles": [{"name": n["name"], "sensor": sensors[n["sensor"]]["name"] if n["sensor"] >= 0 else None, "part_on": n["part_on"], "fault": n["fault"]}
                        for n in machine.nozzles()],
            "feeders": [{"name": f["name"], "part": f["part"], "fault": f["fault"]} for f in machine.feeders()],
            "outputs": [p["name"] for p in machine.pins() if p["kind"] in OUTPUTS],
        }

    async def component_init(self):
        await self.visible.start()

    async def close(self):
        self.visible.close()
