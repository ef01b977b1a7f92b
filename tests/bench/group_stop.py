# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of the emergency stop under load: 64 REST clients, 50 WebSockets and a full queue, beside a stop on Klipper's own socket.

For bench.py. Invariant: both kinds of trial alternate in one run, under the same load.
"""
import statistics

from proxy import proxied_rig
from report import Figure
from stop_load import Load, stop, stop_directly

FIGURES = [
    Figure("stop.p99_ms", "ms", "<= 10", "from a request to our stop on Moonraker's socket, 99 of 100 are faster"),
    Figure("stop.last_step_vs_direct", "ratio", "<= 1.5", "from a request to the last step at the microcontroller, over that of a stop on Klipper's own socket"),
    Figure("stop.missed", "trials", "<= 0", "trials with a step later than 100 ms after the request"),
]
TRIALS, QUICK_TRIALS = 200, 5
DIRECT_EVERY = 4      # a direct trial after so many of ours
LATEST_S = 0.1


class Bench:
    """A machine behind a proxy, and the load on it."""

    def __init__(self, report):
        self.report, self.trials = report, QUICK_TRIALS if report.quick else TRIALS

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def parts(self):
        return [(self.stops, [f.name for f in FIGURES])]

    def stops(self):
        with proxied_rig() as (machine, proxy):
            self._measure(machine, proxy)

    def _measure(self, machine, proxy):
        load = Load(machine)
        try:
            ours, direct = [], []
            for i in range(self.trials):
                ours.append(stop(machine, proxy))
                if i % DIRECT_EVERY == 0:
                    direct.append(stop_directly(machine))
        finally:
            load.close()
        written = sorted(t.written * 1000 for t in ours)
        last, last_direct = (statistics.median(t.last_step for t in trials) for trials in (ours, direct))
        late = [t.last_step for t in ours if t.last_step > LATEST_S]
        self.report.line(f"{len(ours)} stops: on Moonraker's socket after {statistics.median(written):.2f} ms in the median, {written[-1]:.2f} ms at most; last step after "
                         f"{last * 1000:.1f} ms in the median, {max(t.last_step for t in ours) * 1000:.1f} ms at most; {len(direct)} direct ones {last_direct * 1000:.1f} ms")
        self.report.figure("stop.p99_ms", written[min(len(written) - 1, int(len(written) * 0.99))])
        self.report.figure("stop.last_step_vs_direct", last / last_direct)
        self.report.figure("stop.missed", len(late))
