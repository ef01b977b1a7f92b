# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults drawn at random under load, and a soak without any: each request one answer, no motion twice and none lost, back by itself, and nothing grows.

Invariant tested: what clients were told agrees with what the simulated machine counted, after every single fault.
"""
import random

import pytest

import rig
from fault_draws import draw_both
from soak import soak

BACK_S = 5.0        # after what had gone is back
SANITIZED = "san" in rig.build_dir().name
GROWTH_KB = 1024    # of the shim's memory after the warm-up
# AddressSanitizer remembers where each thing was made, and keeps a little of what was freed: as much again and again would still show.
GROWTH_SANITIZED_KB = 4096


@pytest.mark.alone
def test_drawn_faults():
    """Half of them on a machine reached by Moonraker's unix socket, half by WebSocket. seed: printed."""
    count, seed = (200, random.randrange(1 << 30)) if rig.long_run() else (10, 25)
    print(f"seed {seed}")
    results = draw_both(count, seed)
    assert sum(r.faults for r in results) == count
    for r in results:
        print(f"{r.faults} faults, {r.requests} requests {dict(r.codes)}, back after {max(r.recover_s)[0]:.2f} s at most: {max(r.recover_s)[1]}")
        assert r.unanswered == [] and r.double == [] and r.lost == [] and r.other == []
        assert max(r.recover_s)[0] <= BACK_S, sorted(r.recover_s)[-5:]
        assert r.requests > 20 * r.faults and r.codes["OK"] > r.requests / 2
        assert max(r.descriptors) <= r.descriptors[0], r.descriptors
        quarter = len(r.rss_kb) // 4
        assert r.rss_kb[-1] - r.rss_kb[quarter] <= (GROWTH_SANITIZED_KB if SANITIZED else GROWTH_KB), r.rss_kb


@pytest.mark.smoke
def test_soak():
    """A minute on the release build, where memory tells most; some seconds under sanitizers, which see what nobody frees. --long: five minutes."""
    s = soak(300 if rig.long_run() else 12 if SANITIZED else 60)
    print(f"{s.requests} requests; memory {s.rss_kb[0]:.0f} KiB after the warm-up, {s.rss_growth_kb:+.0f} KiB then; descriptors {s.descriptors}")
    assert s.errors == [] and s.requests > 200
    assert s.fd_growth <= 0
    assert s.rss_growth_kb <= (GROWTH_SANITIZED_KB if SANITIZED else GROWTH_KB)
