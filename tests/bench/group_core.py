# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of libkp alone: lines of G-code beside a strtod pass over the same lines, and the cache, small and full.

For bench.py. Invariant: tests/bench/core.c does the work and takes the time; sides that are compared take turns in one process.
"""
import statistics
import subprocess

import rig
from measure import NotMeasured
from report import Figure

FIGURES = [
    Figure("core.parse_lines_s", "1/s", ">= 3000000", "lines of G-code parsed a second, one thread"),
    Figure("core.parse_vs_strtod", "ratio", ">= 0.8", "that, over the lines a second of a glibc strtod pass that reads their numbers only"),
    Figure("core.translate_lines_s", "1/s", ">= 1000000", "lines parsed, checked and translated to Klipper's text a second"),
    Figure("core.allocs_per_line", "allocations", "<= 0", "heap allocations of libkp for a line, counted in the same passes"),
    Figure("core.cache_get_s", "1/s", ">= 5000000", "gets a second from a cache of 10,000 entries, keys at random, each a hit"),
    Figure("core.cache_set_s", "1/s", ">= 2000000", "sets a second of keys that are there, the same cache"),
    Figure("core.cache_growth", "ratio", "<= 2", "cost of a call with 10,000 entries over that with 100: of get or set, whichever grows more"),
]
VALUE_BYTES = 90            # the data of an answer to gpio/read
OTHER_BYTES = (16, 160)     # shown beside it
ROUNDS, QUICK_ROUNDS = 25, 5


def median(values):
    return statistics.median(values)


class Bench:
    """Runs the helper program; there is no machine."""

    def __init__(self, report):
        self.report, self.rounds = report, QUICK_ROUNDS if report.quick else ROUNDS
        self.program = rig.build_dir() / "tests" / "bench" / "kp-bench-core"

    def __enter__(self):
        if not self.program.exists():
            raise NotMeasured(f"{self.program} is not built")
        return self

    def __exit__(self, *_):
        pass

    def parts(self):
        """What bench.py runs, in order, with the figures that each gives."""
        return [
            (self.lines, ["core.parse_lines_s", "core.parse_vs_strtod", "core.translate_lines_s", "core.allocs_per_line"]),
            (self.cache, ["core.cache_get_s", "core.cache_set_s", "core.cache_growth"]),
        ]

    def _run(self, *args):
        """Rows of numbers, one a round."""
        done = subprocess.run([self.program, *map(str, args)], capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise NotMeasured(done.stderr.strip())
        rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
        if len(rows) != self.rounds:
            raise NotMeasured(f"{len(rows)} rounds of {self.rounds}")
        return rows

    def lines(self):
        rows = self._run("lines", self.rounds)
        count = rows[0][0]
        parse, strtod, translate = (median(row[side] for row in rows) for side in (1, 2, 3))
        allocations = sum(row[4] for row in rows)
        self.report.line(f"{count:.0f} lines, medians of {self.rounds} rounds: parsed in {parse * 1e3:.1f} ms, strtod pass {strtod * 1e3:.1f} ms, "
                         f"parsed, checked and translated in {translate * 1e3:.1f} ms")
        self.report.line(f"{allocations:.0f} heap allocations in {2 * self.rounds * count:.0f} lines")
        self.report.figure("core.parse_lines_s", count / parse)
        self.report.figure("core.parse_vs_strtod", median(row[2] / row[1] for row in rows))
        self.report.figure("core.translate_lines_s", count / translate)
        self.report.figure("core.allocs_per_line", allocations / (2 * self.rounds * count))

    def cache(self):
        for size in (*OTHER_BYTES, VALUE_BYTES):
            rows = self._run("cache", self.rounds, size)
            count = rows[0][0]
            few_get, few_set, get, put = (median(row[side] for row in rows) / count for side in (1, 2, 3, 4))
            growth = [median(row[3] / row[1] for row in rows), median(row[4] / row[2] for row in rows)]
            self.report.line(f"values of {size} bytes: get {few_get * 1e9:.1f} ns with 100 entries, {get * 1e9:.1f} ns with 10,000, growth {growth[0]:.2f}; "
                             f"set {few_set * 1e9:.1f} ns, {put * 1e9:.1f} ns, growth {growth[1]:.2f}")
        self.report.figure("core.cache_get_s", 1 / get)
        self.report.figure("core.cache_set_s", 1 / put)
        self.report.figure("core.cache_growth", max(growth))
