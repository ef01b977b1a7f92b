# SPDX-License-Identifier: GPL-3.0-or-later
"""The Klipper extra [klipperplace]: answers now, tells changes at once, starts sooner, waits exactly. For pick-and-place machines.

Each part is on only where Klipper is as it is known here (known.py); else it stays off, klippy.log has one line and the status says
why. Invariant: Klipper's modules and classes are never changed, only objects of the running printer, so a RESTART leaves nothing.
"""
import logging

from . import axes, known, live, sensor, timing

VERSION = 1  # of what the endpoints and the status hold; the shim asks for it

LEAD_S = 0.100
LEAD_MIN_S = 0.030


class KlipperPlace:
    def __init__(self, config):
        self.printer = config.get_printer()
        self.parts = {}  # name: "on", or why it is off
        experimental = config.getboolean("experimental", False)
        lead = config.getfloat("lead", LEAD_S, minval=LEAD_MIN_S if experimental else LEAD_S, maxval=0.250)
        self.wanted = {name: config.getboolean(name, True) for name in ("fast_start", "exact_wait", "push")}
        self.sensors = [sensor.PnpSensor(section, self) for section in config.get_prefix_sections("pnp_sensor ")]
        self.reader = live.Reader(self.printer)
        self.axes = axes.Axes(self.printer)
        self.push = live.Push(self.printer)
        self.timing = timing.Timing(self.printer, lead, experimental, self.push.send)
        self._part("read", self.reader.start)
        self._part("pnp_wait", lambda: sensor.WaitCommand(self.printer).start())
        self.parts["pnp_sensor"] = "on" if all(s.fault != sensor.UNKNOWN_ADC for s in self.sensors) else sensor.UNKNOWN_ADC
        self.printer.register_event_handler("klippy:ready", self._ready)

    def _part(self, name, start):
        """Switches a part on. Whatever is wrong with it ends here: a part that fails must not stop the machine."""
        if not self.wanted.get(name, True):
            self.parts[name] = "off in printer.cfg"
            return
        try:
            start()
        except known.Unknown as e:
            self.parts[name] = str(e)
        except Exception as e:
            logging.exception("klipperplace: %s", name)
            self.parts[name] = "failed: %s" % (e,)
        else:
            self.parts[name] = "on"
            return
        logging.info("klipperplace: %s is off: %s", name, self.parts[name])

    def _ready(self):
        self._part("axes", self.axes.start)
        self._part("push", self.push.start)
        self._part("fast_start", self.timing.start_fast)  # first: it looks whether wait_moves is Klipper's
        self._part("exact_wait", self.timing.start_wait)
        logging.info("klipperplace: %s", ", ".join("%s %s" % item for item in sorted(self.parts.items())))

    def get_status(self, eventtime):
        status = {"version": VERSION, "parts": dict(self.parts), "unheard": self.push.unheard}
        status.update(self.timing.get_status(eventtime))
        status.update(self.axes.get_status())
        return status


def load_config(config):
    return KlipperPlace(config)
