# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of the emergency stop under load: 64 REST clients, 50 WebSockets and a full queue, beside a stop on Klipper's own socket.

For bench.py. Invariant: both kinds of trial alternate in one run, under the same load.
"""
import os
import statistics

import rig
from measure import start_beside
from report import Figure
from stop_load import Load, stop, stop_directly

FIGURES = [
    Figure("stop.p99_ms", "ms", "<= 10", "from a request to our stop on Moonraker's socket, 99 of 100 are faster"),
    Figure("stop.last_step_vs_direct", "ratio", "<= 1.5", "from a request to the last step at the microcontroller, over that of a stop on Klipper's own socket"),
    Figure("stop.missed", "trials", "<= 0", "trials with a step later than 100 ms after the request"),
]
TRIALS, QUICK_TRIALS = 200, 5
DIRECT_EVERY = 2      # a direct trial after so many of ours
LATEST_S = 0.1


WORD = "printer.emergency_stop"


class Relay:
    """Before Moonraker's socket, a process of its own: when each stop passed. It is let run at once, so that what is measured is not its own wait for a
    processor; the load has taken them all."""

    def __init__(self, machine, path):
        self.process = start_beside(machine, "relay", "kp-relay", path, machine.moonraker_socket, WORD)
        try:
            os.sched_setscheduler(self.process.pid, os.SCHED_FIFO, os.sched_param(10))
            self.at_once = True
        except PermissionError:
            self.at_once = False

    @property
    def times(self):
        return {WORD: [float(line.split()[1]) for line in self.process.output().splitlines() if line.startswith(WORD)]}


class Bench:
    """A machine whose shim reaches Moonraker by the relay, and the load on it."""

    def __init__(self, report):
        self.report, self.trials = report, QUICK_TRIALS if report.quick else TRIALS
        self.rig = rig.Rig()
        config, path = self.rig.data / "config" / "klipperplace.cfg", self.rig.dir / "relay.sock"
        config.write_text(rig.cfg_merge(config.read_text(), {"api": {"moonraker_socket": path}}))
        self.relay = Relay(self.rig, path)

    def __enter__(self):
        try:
            self.rig.start()
        except BaseException:
            self.relay.process.stop()
            raise
        return self

    def __exit__(self, kind, *_):
        self.rig.stop(check=kind is None)
        self.relay.process.stop()

    def parts(self):
        return [(self.stops, [f.name for f in FIGURES])]

    def stops(self):
        if not self.relay.at_once:
            self.report.line("the relay before Moonraker's socket waits for a processor like all others: the right to real-time priority is missing")
        load = Load(self.rig)
        try:
            ours, direct = [], []
            for i in range(self.trials):
                ours.append(stop(self.rig, self.relay))
                if i % DIRECT_EVERY == 0:
                    direct.append(stop_directly(self.rig))
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
