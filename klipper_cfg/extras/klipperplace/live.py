# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers now and tells at once, for __init__.py: status objects past Klipper's 250 ms timer, and inputs when they change.

Invariant: nothing here moves, switches or waits; whatever goes wrong is an answer, never a shutdown of the machine.
"""
import json
import logging

from . import known

READ = "klipperplace/read"
METHODS = ("klipperplace_push", "klipperplace_push_component")  # the shim registers the first at Moonraker, our component there the other
MANY = 512  # objects in one question


class Reader:
    """The endpoint: {"objects": {name: null or [fields]}} as objects/query takes it, answered at once, with the time of each sample."""

    def __init__(self, printer):
        self.printer = printer

    def start(self):
        self.printer.lookup_object("webhooks").register_endpoint(READ, self._handle)

    def _handle(self, request):
        objects = request.get_dict("objects")
        if len(objects) > MANY:
            raise request.error("more than %d objects" % (MANY,))
        for fields in objects.values():
            if fields is not None and not (isinstance(fields, list) and all(isinstance(f, str) for f in fields)):
                raise request.error("Invalid argument")
        try:
            answer = self._read(objects)
            json.dumps(answer)  # Klipper shuts down on what it cannot encode
        except Exception as e:  # and on any other error in an endpoint
            logging.exception("klipperplace: read")
            raise request.error("cannot be read: %s" % (e,))
        request.send(answer)

    def _read(self, objects):
        now = self.printer.get_reactor().monotonic()
        status, times = {}, {}
        for name, fields in objects.items():
            obj = self.printer.lookup_object(name, None)
            if obj is None or not hasattr(obj, "get_status"):
                status[name] = {}
                continue
            if name == "motion_report" and hasattr(obj, "next_status_time"):
                obj.next_status_time = 0.0  # it keeps its answer for 250 ms
            got = obj.get_status(now)
            status[name] = {f: got.get(f) for f in (got if fields is None else fields)}
            times[name] = self._sampled(name, now)
        return {"eventtime": now, "status": status, "times": times}

    def _sampled(self, name, now):
        """The event time of an analog input's last sample; now for what Klipper knows itself."""
        query = self.printer.lookup_object("query_adc", None)
        adc = getattr(query, "adc", {}).get(name)
        if adc is None:
            return now
        print_time = sample_of(adc)[0]
        mcu = adc.get_mcu()
        return now - (mcu.estimated_print_time(now) - print_time)


def sample_of(adc):
    """(print time, value) of the last sample, whichever comes first: a value is 0..1, a print time passes 1 while Klipper connects."""
    first, second = adc.get_last_value()
    return max(first, second), min(first, second)


class Push:
    """Buttons and switch sensors: their status is sent when their pin changes, by a listener beside Klipper's own."""

    KINDS = {"gcode_button": "pin", "filament_switch_sensor": "switch_pin"}  # and the option that names the pin

    def __init__(self, printer):
        self.printer, self.reactor = printer, printer.get_reactor()
        self.unheard = 0  # pushes that nobody has asked for
        self.told = {}

    def start(self):
        buttons = self.printer.lookup_object("buttons", None)
        if buttons is None:
            return
        if not isinstance(getattr(buttons, "mcu_buttons", None), dict):
            raise known.Unknown("buttons.mcu_buttons is not known")
        for mcu_buttons in buttons.mcu_buttons.values():
            if not all(isinstance(getattr(mcu_buttons, name, None), list) for name in ("pin_list", "callbacks")):
                raise known.Unknown("buttons.MCU_buttons is not known")
        settings = self.printer.lookup_object("configfile").get_status(0.0)["settings"]
        pins = self.printer.lookup_object("pins")
        for kind, option in self.KINDS.items():
            for name, obj in self.printer.lookup_objects(module=kind):
                options = settings.get(name.lower(), settings.get(name, {}))
                if options.get(option) and hasattr(obj, "get_status"):
                    self._listen(buttons, pins.parse_pin(options[option], True, True), name, obj, options.get("debounce_delay") or 0.0)

    def _listen(self, buttons, pin, name, obj, debounce_s):
        mcu_buttons = buttons.mcu_buttons.get(pin["chip_name"])
        names = [p for p, _ in mcu_buttons.pin_list] if mcu_buttons else []
        if pin["pin"] not in names:
            return  # an analog button
        shift = names.index(pin["pin"])

        def changed(_eventtime, _state):
            # after Klipper's own listener, which lets a timer of its own change the status
            self.reactor.register_callback(lambda e: self._look(name, obj))
            if debounce_s:
                self.reactor.register_callback(lambda e: self._look(name, obj), self.reactor.monotonic() + debounce_s + 0.002)
        self.told[name] = dict(obj.get_status(self.reactor.monotonic()))
        mcu_buttons.callbacks.append((1 << shift, shift, changed))

    def _look(self, name, obj):
        status = obj.get_status(self.reactor.monotonic())
        if status != self.told.get(name):
            self.told[name] = dict(status)
            self.send({name: status})

    def send(self, status):
        """To whoever has registered for it; nobody is no error."""
        heard = False
        for method in METHODS:
            try:
                self.printer.lookup_object("webhooks").call_remote_method(method, eventtime=self.reactor.monotonic(), status=status)
                heard = True
            except self.printer.command_error:
                pass
        self.unheard += not heard
