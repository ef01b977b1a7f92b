# SPDX-License-Identifier: GPL-3.0-or-later
"""Emergency stops with 64 REST clients, 50 WebSockets and a full queue: no step later than 100 ms, by the simulated machine's own record."""
import statistics

import rig
from proxy import proxied_rig
from stop_load import Load, stop

LATEST_S = 0.1


def test_stops_under_load():
    with proxied_rig() as (machine, proxy):
        load = Load(machine)
        try:
            trials = [stop(machine, proxy) for _ in range(200 if rig.long_run() else 20)]
        finally:
            load.close()
    assert min(t.last_step for t in trials) > -0.05, "it was in motion when it was asked to stop"
    late = [t for t in trials if t.last_step > LATEST_S]
    print(f"{len(trials)} stops: last step after {statistics.median(t.last_step for t in trials) * 1000:.1f} ms in the median, "
          f"{max(t.last_step for t in trials) * 1000:.1f} ms at most")
    assert late == []
