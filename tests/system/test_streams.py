# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams of commands that nobody thought of, on machines drawn at random: REST commands with any arguments and lines of G-code in any order, with stops,
lost connections, unhomed axes and foreign G-code between them. klipper_model.py executes every line that libkp emits and knows the limits for itself.

What must hold: no move ends outside the limits or crosses the table too low, none goes out while the stop is latched, Klipper away or an axis unhomed, and
no line holds anything but words of ours, numbers and names of the machine: never a client's text.
"""
import collections
import os
import random
import subprocess
import urllib.parse

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

import rig
from klipper_model import HARMLESS, Broken, Klipper, Plan

EXAMPLES = 100_000 if rig.long_run() else 2_000
EVIL = "EVIL"  # stands in every text of a client that is no name of the machine
SEEN = collections.Counter()


# ---- libkp ---------------------------------------------------------------------------------------------------------------

class Stream:
    """tests/random/stream.c: requests in, answers out."""

    def __init__(self):
        env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1", UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1")
        self.process = subprocess.Popen([rig.build_dir() / "tests" / "random" / "kp-stream"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def ask(self, requests):
        """Sends requests, each a tuple of words; gives the lines of all answers."""
        self.process.stdin.write("".join("\t".join(escape(word) for word in request) + "\n" for request in requests).encode())
        self.process.stdin.flush()
        out = []
        for request in requests:
            while (line := self.process.stdout.readline()) != b".\n":
                assert line, f"kp-stream ended at {request}: {self.process.wait()}"
                out.append(line[:-1].decode("latin-1"))
        return out

    def close(self):
        self.process.stdin.close()
        assert self.process.wait(300) == 0


def escape(text):
    return urllib.parse.quote(text, safe=" =+-.,;:/()[]{}'\"!#*_~")


@pytest.fixture(scope="module")
def stream():
    s = Stream()
    yield s
    s.close()


class Machine:
    """A machine, its model, and the two kinds of client."""

    def __init__(self, stream, plan, clamp, drag_homed):
        self.stream, self.plan, self.model, self.clamp = stream, plan, Klipper(plan), clamp
        self.latched, self.klippy, self.moonraker, self.printing = False, True, True, False
        self.model.drag_homed = drag_homed
        rows = plan.settings()
        sections = dict.fromkeys(section for section, _, _ in rows)
        stream.ask([("machine", plan.config())] + [("word", word) for word in plan.WORDS]
                   + [("setting", section, option, value_of(value)) for section, option, value in rows] + [("object", section) for section in sections]
                   + [("resolve",), ("moonraker", "1"), ("klippy", "1")])
        self.tell(("axis", "3", "0", "1"), ("axis", "4", "0", "1" if drag_homed else "0"))
        self.ready()

    def ready(self):
        """Klipper is ready: the shim saves its neutral state, and a client connects."""
        for line in self.stream.ask([("neutral",)]):
            self.model.run(line[1:])
        self.stream.ask([("client", "1" if self.clamp else "0")])

    def tell(self, *requests):
        """Klipper's push of where it stands, with what else is to be told."""
        at = ",".join(repr(v) for v in self.model.at.values())
        highest = ",".join(repr(v) for v in (self.plan.x_max, self.plan.y_max, self.plan.z_max))
        lowest = f"0,0,{-self.plan.z_max!r}"
        told = [("toolhead", "homed_axes", "s" + "".join(sorted(self.model.homed)).lower()), ("toolhead", "max_velocity", f"n{self.plan.velocity}"),
                ("toolhead", "max_accel", f"n{self.plan.accel}"), ("toolhead", "axis_minimum", "N" + lowest), ("toolhead", "axis_maximum", "N" + highest),
                ("toolhead", "position", "N" + at), ("gcode_move", "position", "N" + at), ("virtual_sdcard", "is_active", "bt" if self.printing else "bf")]
        self.stream.ask(list(requests) + [("status", *row) for row in told])

    @property
    def blocked(self):
        return self.latched or not self.klippy or not self.moonraker

    def take(self, what, answers, by_line=False):
        """Executes what came of a request; gives whether it was accepted."""
        before, shared, self.model.by_line = self.model.moves, self.model.shared(), by_line
        for line in answers:
            if not line.startswith(">"):
                continue
            text = line[1:]
            if self.blocked:
                raise Broken(f"{what}: {text!r} while stopped or away")
            if self.printing and not HARMLESS.fullmatch(text):
                raise Broken(f"{what}: {text!r} while a file prints")
            if EVIL.lower() in text.lower():
                raise Broken(f"{what}: a client's text in {text!r}")
            self.model.run(text)
        SEEN["moves"] += self.model.moves - before
        if self.model.shared() != shared:
            raise Broken(f"{what}: G-code state, that is everybody's, was {shared} and is {self.model.shared()}")
        sent = any(line.startswith(">") for line in answers)
        if sent:
            self.tell(*([] if self.model.drag_homed else [("axis", "4", "0", "0")]))
            self.stream.ask([("sync",)])
        SEEN["failed"] += answers.count("!OUTCOME_UNKNOWN")
        return sent or not any(line.startswith("!") for line in answers)

    # -- what a stream is made of

    def do(self, op):
        kind, *rest = op
        getattr(self, "do_" + kind)(*rest)

    def do_call(self, name, args):
        words = [word for pair in args for word in pair]
        if self.take(f"{name} {args}", self.stream.ask([("call", name, *words)])):
            SEEN[name] += 1

    def do_line(self, text):
        if self.take(text, self.stream.ask([("line", text)]), by_line=True):
            SEEN["line"] += 1

    def do_latch(self, on):
        self.latched = on
        self.stream.ask([("latch" if on else "release",)])

    def do_moonraker(self, on):
        self.moonraker = on
        self.stream.ask([("moonraker", "1" if on else "0")])

    def do_klippy(self, on):
        if on == self.klippy:
            return
        self.klippy = on
        self.stream.ask([("klippy", "1" if on else "0")])
        if on:
            self.model.restart()
            self.tell(("axis", "4", "0", "0"))
            self.ready()

    def do_printing(self, on):
        self.printing = on
        self.tell()

    def do_unhome(self, axes):
        self.model.homed -= set(axes)
        self.tell()
        self.stream.ask([("sync",)])

    def do_foreign(self, name, values):
        """Somebody else at the console, who may leave Klipper's G-code state as he likes, and the head anywhere."""
        m = self.model
        if name == "mode":
            m.absolute, m.factor, m.feed = False, values[0], 6000.0
        elif name == "offsets":
            m.set_place(X=values[0], Y=values[1], Z=None)
            m.set_offset(X=None, Y=None, Z=values[2])
        else:
            for axis, share in zip("XYZ", values):
                low, high = self.plan.limits(axis)
                m.at[axis] = low + (high - low) * share
            self.tell()
            self.stream.ask([("sync",)])

    def do_fail(self, lines):
        """The next script of a command ends after so many of its lines."""
        self.stream.ask([("fail", str(lines))])

    def do_level(self, level):
        self.stream.ask([("level", repr(level))])


def value_of(v):
    return f"s{v}" if isinstance(v, str) else f"n{v}"


# ---- what is drawn ---------------------------------------------------------------------------------------------------------
# Hypothesis draws the streams, as numbers, and shortens the one that fails; what a number stands for is drawn from it here, so that enough is accepted.

EDGES = [0, -0.0, 0.5, 1, -1, 5, -5, 5.000001, -5.000001, 90, 120, 120.000001, 200, 300, 300.0000001, 300.000001, 1e-7, 255, 255.5, 1500, 30000, 30000.1,
         1e6, 1e9, 9007199254740993.0, 1e16, 1e308, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")]
NAMES = ["N1", "N2", "valve1", "pump1", "light", "lamp", "laser", "start", "!PB3", "PB4", "vacuum1", "feeder1", "blower", "fan", "x", "output_pin valve2"]
EVILS = [EVIL, f"valve1\n{EVIL}", f"N1;{EVIL}", f"{EVIL} X999", f"x\rG1 X{EVIL}", f"..{EVIL}", f"light VALUE=1\nM112 {EVIL}", EVIL * 40,
         f"\u00e4{EVIL}\u202e", f"'{EVIL}", f"{{{EVIL}}}", f"%n{EVIL}", f"{EVIL}=1"]
OF_TYPE = {"axes": ["lx", "lz", "lx,y,z", "l", "la", "lc", "qz,a", f"l{EVIL}"], "nozzle": ["sN1", "sN2", "sN1", f"s{EVIL}"],
           "feeder": ["sfeeder1", "sfeeder1", f"s{EVIL}"],
           "sensor": ["svacuum1", "svacuum1", f"s{EVIL}"], "bool": ["bt", "bf"], "pwm": ["slaser", "spump1", f"s{EVIL}"],
           "fan": ["sfan", "sblower", "sblower", f"s{EVIL}"]}
FEEDS = [1, 60, 600, 1200, 3000, 6000, 6000.1, 9000, 30000, 30000.1]
ODD_WORDS = ["bt", "bf", "z", "o", "N1,2", f"l{EVIL}", "q1.5", "qnan", f"q{EVIL}", f"s{EVIL}", "n-1"]

# '#' is a number for X or Y or what takes any, '^' one for Z, '~' a client's text.
CLASSIC = [
    "G1 X# Y#", "G1 X# Y# F1200", "G0 X# Y# Z^", "G1 Z^", "G1 Z5", "G1 Z0 F600", "G1 X#F#", "G1 A^", "G1 X# A#", "G1 C^", "G1 C1 X#", "G5 X#",
    "G2 X# Y# I# J#", "G2 I3 J4", "G1 X40 Y40 G2 X50 Y50 I5 J5", "G3 X# Y# R#", "G17", "G18", "G3 X# Z^ I# K^",
    "G28", "G28 Z", "G28 X Y", "G28 A", "G90", "G91", "G91 G1 X^ G90", "G20", "G21", "G92 X#", "G92 Z^ A#", "G92",
    "M204 S#", "M204 S600", "M204 S800 G1 X# Y#", "M204 S500 G1 X# Y# G1 X# Y#", "G4 P#", "M400", "M114", "M105",
    "M42 P1 S#", "M42 P2 S#", "M800", "M801", "M802 S#", "M106 S#", "M107", "M104 S#", "M140 S#", "M84", "M18", "M17", "M900 X# F600", "M3", "T1",
]
NAMED = [
    "SET_PIN PIN=valve1 VALUE=1", "SET_PIN PIN=laser VALUE=0.5", "SET_PIN PIN=laser VALUE=#", "SET_PIN PIN=~ VALUE=1", "SET_FAN_SPEED FAN=blower SPEED=#",
    "SET_HEATER_TEMPERATURE HEATER=plate TARGET=#", "SET_HEATER_TEMPERATURE HEATER=~ TARGET=20", "STEPPER_DISABLE STEPPER=stepper_x", "STEPPER_ENABLE",
    "OPENPNP_VACUUM_ON", "OPENPNP_ACTUATE_ON PIN=~", "BLOW POWER=0.5", "BLOW POWER=~", "QUERY_ENDSTOPS", "~", "MANUAL_STEPPER STEPPER=drag MOVE=^", "G1 X~",
]


class Draw:
    """All that a stream is made of, from one source of chance."""

    def __init__(self, chance, rows):
        self.chance, self.rows = chance, rows
        self.calls = [row for row in rows if row.planned]
        self.reads = [row for row in rows if not row.planned]
        self.move = next(row for row in rows if row.name == "move")

    def often(self, share):
        return self.chance.random() < share

    def number(self, place):
        """Mostly one that every machine takes there."""
        if self.often(0.12):
            return self.chance.choice(EDGES) if self.often(0.7) else self.chance.uniform(-40, 330)
        v = self.chance.uniform(0, 89) if place == "#" else self.chance.uniform(-9, 9)
        return self.chance.choice([round(v), round(v, 4), v])

    def text(self):
        return self.chance.choice(EVILS if self.often(0.4) else NAMES)

    def value(self, p):
        if self.often(0.04):
            return self.chance.choice(ODD_WORDS)
        if p.name == "feedrate":
            return f"n{self.chance.choice(FEEDS)!r}"
        if p.high < 1e6 and self.often(0.85):
            v = self.chance.choice([p.low, p.high, self.chance.uniform(p.low, p.high)])
            return f"n{round(v) if p.type == 'int' else v!r}"
        if p.type == "num":
            return f"{'q' if self.often(0.1) else 'n'}{self.number('^' if p.name == 'z' or p.name.endswith('height') else '#')!r}"
        if p.type == "int":
            return f"n{self.number('#')!r}"
        return self.chance.choice(OF_TYPE[p.type]) if p.type in OF_TYPE else f"s{self.text()}"

    def call(self, row):
        """Arguments of one command: what it needs, some of what it takes, now and then something else."""
        args = [(p.name, self.value(p)) for p in row.params if p.required or self.often(0.3)]
        if row.name == "move":
            args += [(axis, f"n{self.number('^')!r}") for axis in "ac" if self.often(0.1)]
        if self.often(0.05):
            args.append((self.chance.choice([EVIL, "x", "timeout_s", "nozzle"]), self.chance.choice(ODD_WORDS)))
        return "call", row.name, args

    def piece(self, template):
        out = ""
        for c in template:
            if c in "#^":
                v = self.number(c)
                c = f"{v:.6f}" if self.often(0.5) else repr(v)
            out += self.text().replace("\n", " ") if c == "~" else c
        return out

    def line(self):
        if self.often(0.25):
            return "line", self.piece(self.chance.choice(NAMED))
        return "line", self.chance.choice(["", " "]).join(self.piece(self.chance.choice(CLASSIC)) for _ in range(self.chance.choice([1, 1, 1, 2])))

    def event(self):
        shares = [self.chance.random() for _ in range(3)]
        return self.chance.choice([
            (self.chance.choice(["latch", "klippy", "moonraker", "printing"]), self.often(0.4)),
            ("latch", False), ("klippy", True), ("moonraker", True), ("printing", False), ("unhome", self.chance.choice(["X", "Z", "YZ", "XYZ"])),
            ("foreign", "mode", [self.chance.choice([0.5, 1.0, 3.0])]), ("foreign", "offsets", shares), ("foreign", "place", shares),
            ("level", self.chance.choice([-60.0, -60.0, 0.0, float("nan")])), self.call(next(row for row in self.rows if row.name == "home")),
        ])

    def op(self):
        share = self.chance.random()
        if self.often(0.04):
            return "fail", self.chance.randrange(7)
        if share < 0.5:
            return self.call(self.move if share < 0.15 else self.chance.choice(self.calls))
        return self.line() if share < 0.83 else self.event() if share < 0.95 else self.call(self.chance.choice(self.reads))

    def plan(self):
        pick = self.chance.choice
        return Plan(x_max=pick([120.0, 300.0]), y_max=pick([90.0, 200.0]), z_max=pick([10.0, 32.0]), velocity=pick([100.0, 500.0]),
                    accel=pick([1000.0, 3000.0]), cfg_x_max=pick([None, 100.5]), cfg_feed_max=pick([None, 6000]), cfg_accel=pick([None, 700]),
                    cfg_pwm_max=pick([None, 0.5]), interlock=pick([True, False]), own_homing=pick([True, False]))


Param = collections.namedtuple("Param", "name type required low high")
Row = collections.namedtuple("Row", "name planned params")


def registry(stream):
    """The commands of the library under test, and whether Klipper gets lines for them."""
    rows = []
    for line in stream.ask([("rows",)]):
        name, planned, *params = line.split("\t")
        params = [params[i:i + 5] for i in range(0, len(params), 5)]
        rows.append(Row(name, planned == "1", [Param(p[0], p[1], p[2] == "1", float(p[3]), float(p[4])) for p in params]))
    return rows


@pytest.mark.smoke
def test_streams(stream):
    rows = registry(stream)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate, Phase.shrink])
    @given(st.integers(0, 2**48), st.lists(st.integers(0, 2**32), min_size=8, max_size=20))
    def run(machine_number, numbers):
        draw = Draw(random.Random(machine_number), rows)
        machine = Machine(stream, draw.plan(), clamp=draw.often(0.5), drag_homed=draw.often(0.5))
        SEEN["streams"] += 1
        for n in numbers:
            op = Draw(random.Random(f"{machine_number} {n}"), rows).op()
            note(repr(op))
            machine.do(op)

    run()
    print(dict(SEEN))
    assert SEEN["streams"] >= EXAMPLES
    assert SEEN["moves"] > 3 * EXAMPLES and SEEN["line"] > EXAMPLES, f"too little was accepted: {SEEN}"
    assert not [row.name for row in rows if row.planned and not SEEN[row.name]], f"never accepted: {SEEN}"
