# SPDX-License-Identifier: GPL-3.0-or-later
"""Emergency stops with 64 REST clients, 50 WebSockets and a full queue: no step later than 100 ms, or than 400 ms while Moonraker stands still, by the
simulated machine's own record."""
import statistics

import pytest

import rig
from helpers import Stalls
from stop_load import Load, stop

LATEST_S, SECOND_S = 0.1, 0.4  # with Moonraker, and by Klipper's own socket
SECOND_EVERY = 5               # trials; in one of so many Moonraker stands still


@pytest.mark.alone
def test_stops_under_load():
    count = 200 if rig.long_run() else 20
    late = []
    with rig.Rig() as machine, Stalls(machine) as stalls:
        load = Load(machine)
        try:
            trials = {True: [], False: []}
            for i in range(count):
                with_moonraker = i % SECOND_EVERY != SECOND_EVERY - 1
                trial, bound = stop(machine, moonraker=with_moonraker), LATEST_S if with_moonraker else SECOND_S
                trials[with_moonraker].append(trial)
                allowed = bound + stalls.allowed(trial.asked, bound)
                if trial.last_step > allowed:
                    print(f"late: {trial}, allowed {allowed:.3f} s")
                    late.append((trial, allowed))
        finally:
            load.close()
    assert {t.by for t in trials[False]} == {"klipper"}
    for with_moonraker, some in trials.items():
        assert min(t.last_step for t in some) > -0.05, "it was in motion when it was asked to stop"
        ms = [t.last_step * 1000 for t in some]
        print(f"{len(ms)} stops {'with' if with_moonraker else 'without'} Moonraker: last step after {statistics.median(ms):.1f} ms in the median, {max(ms):.1f} at most")
    assert late == []
