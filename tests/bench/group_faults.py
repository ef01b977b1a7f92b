# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults drawn at random under load, and a soak without any. KP_FAULTS and KP_SOAK_S are other numbers of faults and of seconds than 200 and 1200.

For bench.py. Invariant: what is counted is what the tests count (tests/fault_draws.py, tests/soak.py); a run that could not be finished gives no figure.
"""
import collections
import os
import random
import statistics

from fault_draws import draw_both
from measure import NotMeasured
from report import Figure
from soak import soak

FIGURES = [
    Figure("faults.double_motion", "motions", "<= 0", "motors that moved more than all answers together allow, or by steps that no set of commands explains"),
    Figure("faults.lost", "motions", "<= 0", "motors that moved less than answers promised"),
    Figure("faults.unanswered", "requests", "<= 0", "requests without an answer in their time, with more than one, or with one that no fault explains"),
    Figure("faults.recover_p99_s", "s", "<= 5", "from the time that what had gone is back until the shim is ready and a live read works, 99 of 100 are faster"),
    Figure("soak.rss_growth_kb", "KiB", "<= 1024", "resident memory of the shim at the end of the soak over that after its warm-up"),
    Figure("soak.fd_growth", "descriptors", "<= 0", "the same for its descriptors"),
]
FAULTS, QUICK_FAULTS = 200, 10
SOAK_S, QUICK_SOAK_S = 1200, 40


class Bench:
    """Machines of their own for each part."""

    def __init__(self, report):
        self.report = report
        self.faults = int(os.environ.get("KP_FAULTS", QUICK_FAULTS if report.quick else FAULTS))
        self.soak_s = float(os.environ.get("KP_SOAK_S", QUICK_SOAK_S if report.quick else SOAK_S))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def parts(self):
        """What bench.py runs, in order, with the figures that each gives."""
        names = [f.name for f in FIGURES]
        return [(self.draw, names[:4]), (self.soak, names[4:])]

    def draw(self):
        seed = random.randrange(1 << 30)
        try:
            results = draw_both(self.faults, seed, lambda text: None)
        except AssertionError as e:
            raise NotMeasured(f"seed {seed}: {e}") from e
        recovered, codes = sorted(r for result in results for r in result.recover_s), collections.Counter()
        for r in results:
            codes += r.codes
            for told in r.double + r.lost + r.unanswered + r.other:
                self.report.line(told)
        seconds = [s for s, _ in recovered]
        self.report.line(f"{len(recovered)} faults, seed {seed}, {sum(r.requests for r in results)} requests; back after {statistics.median(seconds):.2f} s in "
                         f"the median, {seconds[-1]:.2f} s at most ({recovered[-1][1]})")
        self.report.line("answers: " + ", ".join(f"{code} {n}" for code, n in codes.most_common()))
        self.report.line("memory of the shim after the first and the last fault: " + "; ".join(f"{r.rss_kb[0]} and {r.rss_kb[-1]} KiB" for r in results))
        self.report.figure("faults.double_motion", sum(len(r.double) for r in results))
        self.report.figure("faults.lost", sum(len(r.lost) for r in results))
        self.report.figure("faults.unanswered", sum(len(r.unanswered) + len(r.other) for r in results))
        self.report.figure("faults.recover_p99_s", seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))])

    def soak(self):
        s = soak(self.soak_s)
        for told in s.errors:
            self.report.line(told)
        self.report.line(f"{self.soak_s:.0f} s, {s.requests} requests, {len(s.errors)} errors; memory of the shim {s.rss_kb[0]:.0f} KiB after the warm-up, "
                         f"{s.rss_kb[1]:.0f} KiB at the end; {s.descriptors[1]} descriptors")
        if s.errors:
            raise NotMeasured(f"the soak had errors: {s.errors[:3]}")
        self.report.figure("soak.rss_growth_kb", s.rss_growth_kb)
        self.report.figure("soak.fd_growth", s.fd_growth)
