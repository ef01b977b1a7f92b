# SPDX-License-Identifier: GPL-3.0-or-later
"""A soak: mixed load on one machine for a while, and whether the shim grows; for the tests and scripts/bench.

Invariant: nothing fails here but requests that are wrong by themselves; so every answer is a success, or the very refusal that was asked for.
"""
import socket
import statistics
import time
from dataclasses import dataclass, field

from fault_draws import Kind, Run, faults_rig, helpers, rss_kb
from fault_load import WORKERS, Load, Rest
from ws_client import Client

STRETCH_S = 10       # between two looks at the books: the history keeps more than comes in that time
WARM_UP = (0.3, 60)  # of the time, s at most: caches and pools have their size then
SAMPLE_S = 0.25


class Passers(Rest):
    """Clients that come, ask one thing and go; some ask for what there is not, and some leave in the middle."""

    name = "pass by"
    turn = 0

    def once(self):
        self.turn += 1
        try:
            getattr(self, ("whole", "wrong", "session", "aborted")[self.turn % 4])()
        except Exception as e:  # pylint: disable=broad-except
            return self.missing(repr(e))["error_code"]
        with self.books.lock:
            self.books.requests += 1
            self.books.done[self.name] += 1
        return None

    def whole(self):
        helpers.ok(self.machine.get("/api/v1/status", timeout=20))
        assert self.machine.get("/metrics", timeout=20)[0] == 200

    def wrong(self):
        helpers.refused(self.machine.get("/api/v1/nothing", timeout=20), "NOT_FOUND")
        helpers.refused(self.machine.post("/api/v1/motion/move", {"x": 9999, "why": 1}, timeout=20), "INVALID_PARAMETER", "POSITION_OUT_OF_BOUNDS")

    def session(self):
        with Client(self.machine) as c:
            c.subscribe("position", "gpio")
            assert c.ask("get_status")["status"] == "success"

    def aborted(self):
        for text in (helpers.http_text("GET", "/api/v1/status"), b"POST /api/v1/motion/move HTTP/1.1\r\nHost: a\r\nContent-Le"):
            with socket.create_connection(("127.0.0.1", self.machine.port), timeout=20) as s:
                s.sendall(text)


@dataclass
class Soak:
    """What a soak has shown."""
    errors: list         # sentences
    requests: int
    rss_kb: tuple        # medians after the warm-up and at the end
    descriptors: tuple   # the same times, while no request is under way

    @property
    def rss_growth_kb(self):
        return self.rss_kb[1] - self.rss_kb[0]

    @property
    def fd_growth(self):
        return self.descriptors[1] - self.descriptors[0]


def stretch(run, seconds):
    """So long under load, and a look at the books. Gives the memory of the shim, looked at again and again, and its descriptors when nothing is under way."""
    run.begin_books()
    run.load.go()
    end, rss = time.monotonic() + seconds, []
    while time.monotonic() < end:
        rss.append(rss_kb(run.machine))
        time.sleep(SAMPLE_S)
    run.load.hold()
    run.look(Kind("soak", None))
    return rss, run.result.descriptors[-1]


def soak(seconds, seed=1):
    """So long under load, on a machine of its own: the Soak."""
    count = max(3, round(seconds / STRETCH_S))
    with faults_rig() as (machine, proxy), Load(machine, seed, (*WORKERS, Passers)) as load:
        run = Run(machine, proxy, load, seed)
        stretches = [stretch(run, seconds / count) for _ in range(count)][round(min(WARM_UP[0] * count, WARM_UP[1] / STRETCH_S)):]
    r = run.result
    errors = r.lost + r.double + r.other + r.unanswered + [f"{n} times {code}" for code, n in r.codes.items() if not code.endswith("OK")]
    first, last = stretches[0], stretches[-1]
    return Soak(errors, r.requests, tuple(statistics.median(s[0]) for s in (first, last)), (first[1], last[1]))
