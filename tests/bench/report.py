# SPDX-License-Identifier: GPL-3.0-or-later
"""How figures are printed and how docs/performance.md gets them.

For bench.py. Invariant: every number in the table of docs/performance.md comes from the run that is written there.
"""
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

DOC = Path(__file__).resolve().parents[2] / "docs" / "performance.md"


@dataclass
class Figure:
    """One row of a group: its name, unit and bar, and what it means."""
    name: str
    unit: str
    bar: str    # ">= 0.7", "<= 40"
    what: str

    def met(self, value):
        sign, bound = self.bar.split()
        return value >= float(bound) if sign == ">=" else value <= float(bound)


def number(value):
    """Three digits that count, never an exponent, and whole numbers from 100 on."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


class Report:
    """What one group has found. Prints at once; keeps everything for the document."""

    def __init__(self, group, figures, quick):
        self.group, self.quick = group, quick
        self.figures = {f.name: f for f in figures}
        self.values, self.lines = {}, []
        self.broken = False  # the machine could not be started, or did not end as it should
        self.line(f"load average of the last minute before the run: {os.getloadavg()[0]:.2f}")

    def figure(self, name, value):
        self.values[name] = value
        print(f"FIGURE {name} {number(value)} {self.figures[name].unit}", flush=True)

    def line(self, text):
        self.lines.append(text)
        print(f"  {text}", flush=True)

    @property
    def complete(self):
        return not self.broken and len(self.values) == len(self.figures)

    def not_measured(self, names, why):
        print(f"bench: not measured: {', '.join(names)}: {why}", file=sys.stderr, flush=True)

    def failed(self, why):
        self.broken = True
        print(f"bench: group {self.group}: {why}", file=sys.stderr, flush=True)


# ---- docs/performance.md -------------------------------------------------------------------------------------------------

def machine():
    """Cores, processor and kernel of this machine, in one line."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "model\t")):
            model = " ".join(line.split(":", 1)[1].split())
            if line.lower().startswith("model name"):
                break
    kernel = ".".join(platform.release().split("-")[0].split(".")[:3])
    return f"{len(os.sched_getaffinity(0))} cores, {model}, {platform.machine()}, Linux {kernel}"


def table(report, command):
    """The Markdown of one group's run."""
    out = [f"Command `{command}`, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, on {machine()}.", "",
           "| figure | value | unit | bar | met | meaning |", "|---|---|---|---|---|---|"]
    for f in report.figures.values():
        value = report.values.get(f.name)
        shown, met = ("not measured", "-") if value is None else (number(value), "yes" if f.met(value) else "**no**")
        out.append(f"| {f.name} | {shown} | {f.unit} | {f.bar} | {met} | {f.what} |")
    return "\n".join(out + ["", "In the same run:", "", "```"] + report.lines + ["```"])


def write_doc(report, command):
    """Puts the group's run between its two markers; one with another Klipper has two of its own."""
    name = f"{report.group} KLIPPY" if "KLIPPY" in os.environ else report.group
    begin, end = (f"<!-- bench {name} {word} -->" for word in ("begin", "end"))
    text = DOC.read_text()
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"bench: {DOC} needs one '{begin}' and after it one '{end}'")
    head, tail = text[:text.index(begin)], text[text.index(end):]
    DOC.write_text(f"{head}{begin}\n{table(report, command)}\n{tail}")
