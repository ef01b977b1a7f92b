# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Klipper would do with lines of G-code, and what it must never be sent: a machine drawn at random with its limits, and its state.

For test_streams.py. Written from Klipper's documents and from what klipperplace.cfg promises, and from nothing of libkp. Invariant: every line that libkp
emits is one that is known here, with names of this machine only; anything else, or a value past a limit, is a Broken.
"""
import math
import re
from dataclasses import dataclass, field

NUMBER = r"-?\d+(?:\.\d+)?"
AXES = "XYZ"
EPSILON = 1e-9
ROUNDED = 1e-6  # mm, what a line keeps of a place


class Broken(AssertionError):
    """A line that no machine should get."""


@dataclass
class Plan:
    """A machine: what Klipper has, and what klipperplace.cfg narrows."""
    x_max: float
    y_max: float
    z_max: float
    velocity: float
    accel: float
    cfg_x_max: float | None
    cfg_feed_max: float | None
    cfg_accel: float | None
    cfg_pwm_max: float | None
    interlock: bool
    own_homing: bool

    def limits(self, axis):
        """Machine coordinates that a move may end at, mm."""
        low, high = {"X": (0, self.x_max), "Y": (0, self.y_max), "Z": (-self.z_max, self.z_max)}[axis]
        return low, min(high, self.cfg_x_max) if axis == "X" and self.cfg_x_max is not None else high

    @property
    def feed_max(self):
        """mm/min"""
        return min(self.velocity * 60, 30000, self.cfg_feed_max or math.inf)

    @property
    def accel_max(self):
        return min(self.accel, self.cfg_accel or math.inf)

    BAND = (-5.0, 5.0)  # Z where both nozzles are at travel height
    STEPPERS = {"rotation1": (-1e9, 1e9, 360), "drag": (-5, 5, 10), "feeder1": (-1000, 1000, 500)}  # lowest, highest, fastest a second
    PINS = {"pump1": 1, "valve1": 1, "pump2": 1, "valve2": 1, "light": 1, "blow": 1, "laser": 255}  # name: scale
    PWM = ("pump1", "laser")
    HEATERS = {"extruder": 250, "heater_bed": 110, "chamber": 60, "plate": 200}  # hottest, C: the lower of Klipper's and ours
    MOTORS = ("stepper_x", "stepper_y", "stepper_z")
    WORDS = ("G1 G4 G28 G90 G92 M220 M400 SET_PIN MANUAL_STEPPER SAVE_GCODE_STATE RESTORE_GCODE_STATE SET_GCODE_OFFSET M104 M106 M107 M109 M140 M190 M204 M18 "
             "M84 SET_FAN_SPEED SET_HEATER_TEMPERATURE SET_STEPPER_ENABLE QUERY_ENDSTOPS").split()

    def config(self):
        """klipperplace.cfg"""
        def line(name, value):
            return "" if value is None else f"{name}: {value}\n"
        return ("[safety]\n" + line("max_x_position", self.cfg_x_max) + line("max_feedrate", self.cfg_feed_max) + line("max_acceleration", self.cfg_accel)
                + line("max_pwm_value", self.cfg_pwm_max) + f"[vacuum]\ntravel_interlock: {'true' if self.interlock else 'false'}\nretries: 1\n"
                "[axis A]\nstepper: manual_stepper rotation1\nvelocity: 360\nacceleration: 3600\nrotary: true\n"
                "[axis C]\nstepper: manual_stepper drag\nvelocity: 10\n"
                "[sensor vacuum1]\nobject: temperature_sensor vacuum1\ntype: vacuum\n"
                "[nozzle N1]\nz_direction: 1\nrotation_axis: A\npump: pump1\nvalve: valve1\nsensor: vacuum1\npart_on: -40\npart_off: -20\ndwell: 0.15\n"
                "safe_z: -5\ntravel_height: 0\npick_height: -9\nplace_height: -8.4\n"
                "[nozzle N2]\nz_direction: -1\noffset_x: 20\noffset_y: -1.5\npump: pump2\nvalve: valve2\nblow_off: blow\nblow_off_time: 0.05\nsafe_z: 5\n"
                "pick_height: 9\nplace_height: 8.4\n"
                "[feeder feeder1]\nstepper: manual_stepper feeder1\nfeedrate: 1200\naccel: 500\n"
                "[pin lamp]\nobject: output_pin light\nm42: 1\n[pin pump]\nobject: output_pin pump1\nm42: 2\n"
                "[mcode M800]\npin: valve1\n[mcode M801]\npin: valve1\nset: off\n[mcode M802]\npin: pump1\nset: value\n"
                "[gcode_driver]\ncommand_mappings:\n  OPENPNP_VACUUM_ON: ['M106 S255']\n  OPENPNP_ACTUATE_ON: ['SET_PIN PIN={pin} VALUE=1']\n"
                "  M900: ['G1 X{x} F{F}', 'G4 P100', 'M114']\n  BLOW: ['SET_FAN_SPEED FAN=blower SPEED={power}']\n")

    def settings(self):
        """Klipper's own: (section, option, value), a value being a number or text."""
        rows = [("printer", "kinematics", "cartesian"), ("printer", "max_velocity", self.velocity), ("printer", "max_accel", self.accel)]
        for axis, endstop in zip(AXES, ("^PC0", "^PC1", "^PC2")):
            low, high = {"X": (0, self.x_max), "Y": (0, self.y_max), "Z": (-self.z_max, self.z_max)}[axis]
            section = f"stepper_{axis.lower()}"
            rows += [(section, "endstop_pin", endstop), (section, "position_min", low), (section, "position_max", high)]
        rows += [(f"output_pin {name}", "pin", f"PB{i}") for i, name in enumerate(self.PINS) if name != "laser"]
        rows += [("output_pin pump1", "pwm", 1), ("pwm_tool laser", "pin", "PB9"), ("pwm_tool laser", "scale", 255), ("gcode_button start", "pin", "PG0"),
                 ("manual_stepper rotation1", "velocity", 100), ("manual_stepper drag", "position_min", -5), ("manual_stepper drag", "position_max", 5),
                 ("manual_stepper feeder1", "velocity", 5), ("temperature_sensor vacuum1", "sensor_type", "x"), ("fan", "max_power", 1),
                 ("fan_generic blower", "max_power", 1), ("extruder", "max_temp", 280), ("extruder", "min_temp", 5), ("heater_bed", "max_temp", 110),
                 ("heater_generic chamber", "max_temp", 90), ("heater_generic plate", "max_temp", 200)]
        return rows + ([("homing_override", "gcode", "G28")] if self.own_homing else [])


@dataclass
class Klipper:
    """Its state, as far as it matters to where things go."""
    plan: Plan
    at: dict = field(default_factory=lambda: {"X": 50.0, "Y": 40.0, "Z": 0.0})
    base: dict = field(default_factory=lambda: dict.fromkeys(AXES, 0.0))
    offset: dict = field(default_factory=lambda: dict.fromkeys(AXES, 0.0))
    homed: set = field(default_factory=lambda: set(AXES))
    absolute: bool = True
    factor: float = 1.0
    feed: float = 1500.0
    accel: float | None = None  # None: as printer.cfg has it
    saved: dict = field(default_factory=dict)
    drag_homed: bool = False
    moves: int = 0
    by_line: bool = False  # what runs came from a line of G-code

    def restart(self):
        self.base, self.offset = dict.fromkeys(AXES, 0.0), dict.fromkeys(AXES, 0.0)
        self.homed, self.absolute, self.factor, self.saved, self.drag_homed = set(), True, 1.0, {}, False

    def run(self, line):
        for pattern, act in LINES:
            if found := re.fullmatch(pattern, line):
                return act(self, **found.groupdict())
        raise Broken(f"no line of ours: {line!r}")

    def shared(self):
        """What belongs to everybody and must be as it was when a command has ended, done or failed."""
        return self.absolute, self.factor, tuple(self.offset.values()), self.accel

    def need(self, good, what):
        if not good:
            raise Broken(what)

    # -- motion

    def move(self, **words):
        target = dict(self.at)
        if words["F"]:
            self.feed = float(words["F"])
        for axis in AXES:
            if words[axis] is not None:
                v = float(words[axis])
                target[axis] = v + (self.base[axis] if self.absolute else self.at[axis])
                self.need(axis in self.homed, f"a move of {axis}, which is not homed")
        for axis in AXES:
            low, high = self.plan.limits(axis)
            if words[axis] is not None:
                self.need(low - EPSILON <= target[axis] <= high + EPSILON, f"{axis} to {target[axis]}, limits {low} {high}")
        self.need(0 < self.feed * self.factor <= self.plan.feed_max + EPSILON, f"feedrate {self.feed} times {self.factor}, at most {self.plan.feed_max}")
        if self.plan.interlock and any(abs(target[axis] - self.at[axis]) > ROUNDED for axis in "XY"):
            low, high = self.plan.BAND
            self.need(all(low - EPSILON <= z <= high + EPSILON for z in (self.at["Z"], target["Z"])),
                      f"X or Y from Z {self.at['Z']} to {target['Z']}, band {low} {high}")
        self.at = target
        self.moves += 1

    def home(self, axes):
        for axis in axes.split() or AXES:
            self.homed.add(axis)
            self.at[axis], self.base[axis] = 0.0, self.offset[axis]
        self.moves += 1

    def save(self, name):
        self.saved[name] = (self.absolute, dict(self.base), dict(self.offset), self.factor, self.feed)

    def restore(self, name):
        self.need(name in self.saved, f"a restore of {name}, which nobody saved")
        self.absolute, base, offset, self.factor, self.feed = self.saved[name]
        self.base, self.offset = dict(base), dict(offset)

    def set_place(self, **words):
        for axis in AXES:
            if words[axis] is not None:
                self.base[axis] = self.at[axis] - float(words[axis])

    def set_offset(self, **words):
        for axis in AXES:
            if words[axis] is not None:
                self.base[axis] += float(words[axis]) - self.offset[axis]
                self.offset[axis] = float(words[axis])

    def acceleration(self, S):
        """A client's, or Klipper's own put back behind it."""
        self.need(0 < float(S) <= self.plan.accel_max + EPSILON or float(S) == self.plan.accel, f"acceleration {S}, at most {self.plan.accel_max}")
        self.accel = None if float(S) == self.plan.accel else float(S)

    def stepper(self, name, move, speed):
        self.need(name in self.plan.STEPPERS, f"no stepper {name}")
        low, high, fastest = self.plan.STEPPERS[name]
        if move is not None and (name != "drag" or self.drag_homed):
            self.need(low - EPSILON <= float(move) <= high + EPSILON, f"{name} to {move}")
        if speed is not None:
            self.need(0 < float(speed) <= fastest + EPSILON, f"{name} at {speed}")

    def motors_off(self):
        self.homed, self.drag_homed = set(), False

    def motor(self, name, on):
        self.need(name in self.plan.MOTORS, f"no motor {name}")
        if on == "0":
            self.motors_off()

    # -- what switches

    def pin(self, name, value):
        self.need(name in self.plan.PINS, f"no output {name}")
        scale = self.plan.PINS[name]
        self.need(0 <= float(value) <= scale and (name in self.plan.PWM or value in ("0", "1")), f"{name} to {value}")
        if self.by_line and name in self.plan.PWM and self.plan.cfg_pwm_max is not None:
            self.need(float(value) / scale <= self.plan.cfg_pwm_max + EPSILON, f"{name} to {value} of {scale}, at most {self.plan.cfg_pwm_max}")

    def fan(self, speed, full):
        self.need(0 <= float(speed) <= full, f"fan at {speed} of {full}")

    def heat(self, heater, value):
        self.need(heater in self.plan.HEATERS, f"no heater {heater}")
        self.need(0 <= float(value) <= self.plan.HEATERS[heater] + EPSILON, f"{heater} to {value}")

    def dwell(self, ms):
        self.need(0 <= float(ms) <= 3600e3, f"a dwell of {ms} ms")


def words_of(letters):
    return "".join(rf"(?: {c}(?P<{c}>{NUMBER}))?" for c in letters)


LINES = [
    (r"G1" + words_of("XYZF"), Klipper.move),
    (r"G28(?P<axes>(?: [XYZ])*)", Klipper.home),
    (rf"G4 P(?P<ms>{NUMBER})", Klipper.dwell),
    (r"M400|QUERY_ENDSTOPS|M107|M17", lambda k: None),
    (r"G90", lambda k: setattr(k, "absolute", True)),
    (r"SAVE_GCODE_STATE NAME=(?P<name>_kp_\w+)", Klipper.save),
    (r"RESTORE_GCODE_STATE NAME=(?P<name>_kp_\w+)", Klipper.restore),
    (r"M220 S100", lambda k: setattr(k, "factor", 1.0)),
    (r"SET_GCODE_OFFSET" + "".join(rf"(?: {c}=(?P<{c}>0))?" for c in AXES), Klipper.set_offset),
    (r"G92" + words_of(AXES), Klipper.set_place),
    (rf"M204 S(?P<S>{NUMBER})", Klipper.acceleration),
    (rf"MANUAL_STEPPER STEPPER=(?P<name>\w+)(?: ENABLE=[01])?(?: SET_POSITION=0)?"
     rf"(?: MOVE=(?P<move>{NUMBER}))?(?: SPEED=(?P<speed>{NUMBER}))?(?: ACCEL={NUMBER})?(?: SYNC=[01])?",
     Klipper.stepper),
    (r"M18|M84", Klipper.motors_off),
    (r"SET_STEPPER_ENABLE STEPPER=(?P<name>\w+) ENABLE=(?P<on>[01])", Klipper.motor),
    (rf"SET_PIN PIN=(?P<name>\w+) VALUE=(?P<value>{NUMBER})", Klipper.pin),
    (rf"M106 S(?P<speed>{NUMBER})", lambda k, speed: k.fan(speed, 255)),
    (rf"SET_FAN_SPEED FAN=blower SPEED=(?P<speed>{NUMBER})", lambda k, speed: k.fan(speed, 1)),
    (rf"M10[49] S(?P<value>{NUMBER})", lambda k, value: k.heat("extruder", value)),
    (rf"M1[49]0 S(?P<value>{NUMBER})", lambda k, value: k.heat("heater_bed", value)),
    (rf"SET_HEATER_TEMPERATURE HEATER=(?P<heater>\w+) TARGET=(?P<value>{NUMBER})", Klipper.heat),
]
LINES = [(re.compile(pattern), act) for pattern, act in LINES]
HARMLESS = re.compile(r"M400|QUERY_ENDSTOPS|G4 P0")  # what may go out in any state but a stop
