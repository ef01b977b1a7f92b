# SPDX-License-Identifier: GPL-3.0-or-later
"""[pnp_sensor NAME], an analog sensor in its own unit, and PNP_WAIT, which fails a script unless a sensor gets there in time.

Invariant: a sensor never shuts the machine down; what is wrong with it is its `fault`. PNP_WAIT counts only samples taken after all that stands before it
was done, and none outside valid_voltage: such a value says nothing of the machine.
"""
import inspect

from . import known, live

UNKNOWN_ADC = "this Klipper's ADC interface is not known"
SAMPLE_S = 0.001
LATE_S = 0.100  # without a sample, past three reports: fault
WAIT_MAX_S = 60.0


def raise_if_shut_down(printer):
    """For what has waited: the shim knows these words."""
    if printer.is_shutdown():
        raise printer.command_error("Klipper was shut down: %s" % (printer.get_state_message()[0].split("\n")[0],))


class PnpSensor:
    def __init__(self, config, extra):
        self.printer = config.get_printer()
        self.reactor = self.printer.get_reactor()
        self.section = config.get_name()
        self.extra = extra
        self.unit = config.get("unit", "")
        self.report_s = config.getfloat("report_time", 0.020, minval=0.010, maxval=1.0)
        count = config.getint("sample_count", 4, minval=1, maxval=8)
        self.volts = config.getfloat("adc_voltage", 5.0, above=0.0)
        self.points = sorted(config.getlists("calibration", seps=(",", "\n"), parser=float, count=2))
        if len(self.points) < 2 or len({v for v, _ in self.points}) < len(self.points):
            raise config.error("calibration of '%s' needs two or more lines 'volts, value', each with another voltage" % (self.section,))
        self.valid = config.getfloatlist("valid_voltage", None, count=2)
        self.thresholds = config.getfloatlist("threshold", ())
        self.sample = (0.0, 0.0)  # print time and 0..1; set by Klipper's reading thread
        self.side = None
        self.fault = None
        self.adc = self.printer.lookup_object("pins").setup_pin("adc", config.get("sensor_pin"))
        self._setup(count)
        self.printer.load_object(config, "query_adc").register_adc(self.section, self.adc)
        self.printer.add_object(self.section, self)

    def _setup(self, count):
        """Three forms of the same; no limits are given, so that the microcontroller never shuts down for one."""
        setup = getattr(self.adc, "setup_adc_sample", None)
        if setup is not None and next(iter(inspect.signature(setup).parameters)) == "report_time":
            setup(self.report_s, SAMPLE_S, count)
            self.adc.setup_adc_callback(lambda samples: self._sampled(*samples[-1]))
        elif setup is None and hasattr(self.adc, "setup_minmax"):
            self.adc.setup_minmax(SAMPLE_S, count)
            self.adc.setup_adc_callback(self.report_s, self._sampled)
        else:
            self.fault = UNKNOWN_ADC

    def _sampled(self, print_time, raw):
        self.sample = (print_time, raw)
        if self.thresholds:
            value = self.value_of(raw)
            side = sum(value > t for t in self.thresholds)
            if side != self.side:
                self.side = side
                self.reactor.register_async_callback(lambda e: self.extra.push.send({self.section: self.get_status(e)}))

    def value_of(self, raw):
        """Between the calibration's points, and on along its first and last piece."""
        volts, points = raw * self.volts, self.points
        i = 1
        while i < len(points) - 1 and volts > points[i][0]:
            i += 1
        (v0, a), (v1, b) = points[i - 1], points[i]
        return a + (b - a) * (volts - v0) / (v1 - v0)

    def _fault(self, raw, age):
        if self.fault:
            return self.fault
        if age > 3 * self.report_s + LATE_S:
            return "no sample"
        return self._out_of_range(raw)

    def _out_of_range(self, raw):
        if self.valid and not self.valid[0] <= raw * self.volts <= self.valid[1]:
            return "%.2f V is out of range" % (raw * self.volts,)
        return None

    def latest(self):
        """(print time, value, what is wrong with it or None) of the last sample."""
        print_time, raw = self.sample
        return print_time, self.value_of(raw), self._out_of_range(raw)

    def get_status(self, eventtime):
        print_time, raw = self.sample
        age = self.adc.get_mcu().estimated_print_time(eventtime) - print_time
        if not print_time:  # the first sample comes a second or two after Klipper's start
            return {"value": None, "raw": None, "unit": self.unit, "time": None, "fault": self.fault or "no sample"}
        return {"value": round(self.value_of(raw), 3), "raw": round(raw, 5), "unit": self.unit, "time": eventtime - age,
                "fault": self._fault(raw, age)}


class OfTemperature:
    """A temperature_sensor in the same words: its unit is what adc_temperature's table makes of it."""

    unit = ""

    def __init__(self, obj, adc):
        self.obj, self.adc, self.report_s = obj, adc, 0.3

    def latest(self):
        return live.sample_of(self.adc)[0], self.obj.get_status(0.0)["temperature"], None


class WaitCommand:
    HELP = "Wait until a sensor is BELOW or ABOVE a value; fail after TIMEOUT seconds"

    def __init__(self, printer):
        self.printer, self.reactor = printer, printer.get_reactor()

    def start(self):
        self.printer.lookup_object("gcode").register_command("PNP_WAIT", self._run, desc=self.HELP)

    def _find(self, gcmd, name):
        obj = self.printer.lookup_object("pnp_sensor " + name, None) or self.printer.lookup_object(name, None)
        if isinstance(obj, PnpSensor):
            return obj
        section = "temperature_sensor " + name
        obj = self.printer.lookup_object(section, None)
        query = self.printer.lookup_object("query_adc", None)
        adc = getattr(query, "adc", {}).get(section)
        if obj is None or adc is None:
            raise gcmd.error("PNP_WAIT: no sensor '%s'" % (name,))
        return OfTemperature(obj, adc)

    def _run(self, gcmd):
        name = gcmd.get("SENSOR")
        below, above = gcmd.get_float("BELOW", None), gcmd.get_float("ABOVE", None)
        timeout = gcmd.get_float("TIMEOUT", 1.0, above=0.0, maxval=WAIT_MAX_S)
        if (below is None) == (above is None):
            raise gcmd.error("PNP_WAIT needs BELOW or ABOVE")
        sensor = self._find(gcmd, name)
        toolhead = self.printer.lookup_object("toolhead")
        toolhead.wait_moves()
        began = self.reactor.monotonic()
        after = max(toolhead.print_time, sensor.adc.get_mcu().estimated_print_time(began))
        step = min(0.005, sensor.report_s / 2)
        turns = (3 * sensor.report_s + LATE_S) / step  # for a first sample, counted so that a time in which this computer stood still is no time
        now = began
        while True:
            raise_if_shut_down(self.printer)
            at, value, fault = sensor.latest()
            seen = round(value, 3)  # as the status tells it
            if at >= after and not fault:
                if seen <= below if below is not None else seen >= above:
                    gcmd.respond_info("PNP_WAIT: %s %.3f %s after %.3f s" % (name, seen, sensor.unit, now - began), log=False)
                    return
            turns -= 1
            if now - began >= timeout and (at >= after or turns <= 0):
                break
            now = self.reactor.pause(min(now + step, began + timeout + 0.001) if now - began < timeout else now + step)
        wanted = "below %.3f" % (below,) if below is not None else "above %.3f" % (above,)
        shown = "gave no sample" if at < after else "has a fault (%s)" % (fault,) if fault else "is %.3f %s" % (seen, sensor.unit)
        raise gcmd.error("PNP_WAIT: %s %s, not %s, after %.3f s" % (name, shown, wanted, now - began))
