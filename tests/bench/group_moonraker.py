# SPDX-License-Identifier: GPL-3.0-or-later
"""Group moonraker: the component beside Moonraker's own endpoint on the same connection, and the extension beside plain Python doing the same.

Invariant: both sides of a ratio do the same work on the same input, by turns in one run; that they agree is checked before they are timed.
"""
import importlib.util
import re
import statistics
import time
from dataclasses import dataclass

import rig
from measure import NotMeasured, Rpc, call
from report import Figure

FIGURES = [
    Figure("component.gpio_vs_server_info", "ratio", "<= 1.3", "time of gpio_monitor/input over that of server.info, both on Moonraker's unix socket"),
    Figure("component.check_vs_python", "ratio", ">= 30", "G-code lines checked a second by _kp.check_lines over those of plain Python with re"),
    Figure("component.parse_vs_python", "ratio", ">= 5", "the same for single lines taken apart, by _kp.parse"),
]


@dataclass
class Times:
    pairs: int   # of requests
    rounds: int
    lines: int


FULL = Times(1500, 9, 20000)
QUICK = Times(300, 3, 4000)
SETTLE_S = 2
CHECK_TEXTS = 5  # the lines so many times over are a text: else the extension is done before the clock has moved enough

# Lines as a placement program has them.
SAMPLE = ("G1 X{a:.3f} Y{b:.3f} F24000", "G1 Z-30.5 F6000", "SET_PIN PIN=valve1 VALUE=1", "G4 P150", "G1 Z-20 ; up again", "MANUAL_STEPPER STEPPER=rotation1 MOVE={c}",
          "M400", "g1x{a:.2f}y{b:.2f}", "G1 X{b:.3f} (over the board) Y{a:.3f} F24000", "M106 S255")

# ---- the same in plain Python: as somebody would write it who knows re

COMMENT = re.compile(r"\([^)]*\)|;.*")
CLASSIC = re.compile(r"\s*([GMT]\d+(?:\.\d+)?)((?:\s*[A-Z][+-]?(?:\d+\.?\d*|\.\d+))*)\s*$")
WORD = re.compile(r"([A-Z])([+-]?(?:\d+\.?\d*|\.\d+))")
NAMED = re.compile(r"\s*([A-Z_][A-Z0-9_]*)((?:\s+[A-Z_]+=\S+)*)\s*$", re.I)
PAIR = re.compile(r"(\w+)=(\S+)")


def plain_parse(line):
    line = COMMENT.sub("", line)
    if not line.strip():
        return []
    m = CLASSIC.match(line.upper())
    if m:
        return [(m[1], {k: float(v) for k, v in WORD.findall(m[2])})]
    m = NAMED.match(line)
    if not m:
        raise ValueError(line)
    words = {}
    for key, value in PAIR.findall(m[2]):
        try:
            words[key.upper()] = float(value)
        except ValueError:
            words[key.upper()] = value
    return [(m[1].upper(), words)]


def plain_check(text):
    count, faults = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            count += bool(plain_parse(line))
        except ValueError as e:
            faults.append((number, str(e)))
    return count, faults


def each(f, lines):
    for line in lines:  # results are dropped: keeping 20,000 of them measures Python's collector
        f(line)


def timed(f, *args):
    began = time.perf_counter()
    f(*args)
    return time.perf_counter() - began


class Bench:
    def __init__(self, report):
        self.report, self.times = report, QUICK if report.quick else FULL
        self.rig = rig.Rig(shim=False, component=True)

    def __enter__(self):
        self.rig.start()
        time.sleep(SETTLE_S)
        return self

    def __exit__(self, kind, *_):
        self.rig.stop(check=kind is None)

    def parts(self):
        return [(self.gpio, ["component.gpio_vs_server_info"]), (self.lines, ["component.check_vs_python", "component.parse_vs_python"])]

    def gpio(self):
        """By turns on one connection, so that whatever slows Moonraker slows both."""
        took = {"server.info": [], "api.gpio_monitor.input": []}
        with Rpc(self.rig.moonraker_socket) as c:
            number = 0
            for _ in range(self.times.pairs):
                for method, params in (("server.info", {}), ("api.gpio_monitor.input", {"pin": "valve1"})):
                    number += 1
                    request = call(method, params, number)
                    began = time.perf_counter()
                    answer = c.ask(request, number)
                    took[method].append(time.perf_counter() - began)
                if answer["stale"] or answer["pin"] != "valve1":
                    raise NotMeasured(f"no fresh answer: {answer}")
        ours, theirs = (statistics.median(took[m]) * 1e6 for m in ("api.gpio_monitor.input", "server.info"))
        self.report.line(f"medians of {self.times.pairs} by turns: gpio_monitor/input {ours:.0f} us, server.info {theirs:.0f} us")
        self.report.figure("component.gpio_vs_server_info", ours / theirs)

    def lines(self):
        spec = importlib.util.spec_from_file_location("_kp", rig.build_dir() / "moonraker_ext" / "_kp.abi3.so")
        kp = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kp)
        lines = [SAMPLE[i % len(SAMPLE)].format(a=100 + i % 97 * 0.37, b=50 + i % 89 * 0.41, c=i % 360) for i in range(self.times.lines)]
        for line in lines[:200]:
            if kp.parse(line) != plain_parse(line):
                raise NotMeasured(f"the two disagree: {line!r}: {kp.parse(line)} and {plain_parse(line)}")
        text = "\n".join(lines)
        if kp.check_lines(text) != plain_check(text) or kp.check_lines(text)[0] != len(lines):
            raise NotMeasured("the two disagree on the text")
        whole = "\n".join([text] * CHECK_TEXTS)
        self.compare("component.check_vs_python", CHECK_TEXTS, lambda: kp.check_lines(whole), lambda: plain_check(whole))
        self.compare("component.parse_vs_python", 1, lambda: each(kp.parse, lines), lambda: each(plain_parse, lines))

    def compare(self, name, times, ours, plain):
        took = [(timed(ours), timed(plain)) for _ in range(self.times.rounds)]
        a, b = (statistics.median(t[i] for t in took) for i in (0, 1))
        self.report.line(f"{name}: medians of {self.times.rounds} rounds: {times * self.times.lines / a:.0f} lines/s, plain Python {times * self.times.lines / b:.0f} lines/s")
        self.report.figure(name, b / a)
