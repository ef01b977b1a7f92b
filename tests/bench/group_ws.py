# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmark of /ws/v1: from Klipper's push at our socket to the last of 99 subscribers while one more does not read.

For bench.py. Invariant: a push is found again by Klipper's X in it, which no two pushes of a round share; a round in which a push did not reach
all subscribers is not measured.
"""
import json
import selectors
import statistics
import sys
import time

import rig
from measure import NotMeasured
from report import Figure
from rig_process import Process
from websockets.frames import Opcode
from ws_client import KINDS, Raw, frame

FIGURES = [
    Figure("ws.fanout_p99_ms", "ms", "<= 10", "Klipper's push at our socket to the last of 99 subscribers that has it, one more stalled; 99 of 100 are faster"),
]
READERS = 99
ROUND_S = 9           # shorter than a stalled session lives
SETTLE_S = 1          # of it, before the first push that counts
ROUNDS, QUICK_ROUNDS = 10, 2
FROM_X, TO_X, Y = 10, 290, 150
FEEDRATE = 1500       # mm/min: 9 s are 225 mm, without an end of the way
PUSHES_MIN = 20       # in a round; Klipper makes four a second


class Readers:
    """Sessions subscribed to the position. What comes is kept with its time and looked into later."""

    def __init__(self, machine, count):
        self.sessions = [Raw(machine, 65536) for _ in range(count)]
        self.selector = selectors.DefaultSelector()
        self.came = {}
        for s in self.sessions:
            s.send("subscribe", {"events": ["position"]})
            s.messages(lambda m: m.get("method") == KINDS["position"])
            s.socket.setblocking(False)
            self.came[s] = []
            self.selector.register(s.socket, selectors.EVENT_READ, s)

    def pong(self):
        """Shows the server that they live."""
        for s in self.sessions:
            s.socket.sendall(frame(Opcode.PONG, b""))

    def listen(self, seconds):
        """Receives for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for key, _ in self.selector.select(left):
                data = key.fileobj.recv(65536)
                self.came[key.data].append((time.monotonic(), data))

    def last(self):
        """{X: when the last session had it}, of what every session was told."""
        last, seen = {}, {}
        for got in self.came.values():
            for at, data in got:
                for x in positions(data):
                    last[x] = max(at, last.get(x, 0.0))
                    seen[x] = seen.get(x, 0) + 1
            got.clear()
        return {x: at for x, at in last.items() if seen[x] == len(self.sessions)}, set(last)

    def close(self):
        self.selector.close()
        for s in self.sessions:
            s.socket.close()


def positions(data):
    """X in each message of whole frames; the server's pings are among them."""
    while data:
        opcode, size, start = data[0] & 15, data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4]), 4
        if len(data) < start + size:
            raise NotMeasured("a message came in two pieces")
        place = json.loads(data[start:start + size])["params"].get("position", {}) if opcode == Opcode.TEXT else {}
        if "x" in place:
            yield round(place["x"], 6)
        data = data[start + size:]


class Bench:
    """One machine with a shim, its connection to Moonraker through a proxy that keeps the time."""

    def __init__(self, report):
        self.report, self.rounds = report, QUICK_ROUNDS if report.quick else ROUNDS
        self.rig = rig.Rig()
        self.logged = 0  # bytes of the shim's output that have been looked at
        folder = self.rig.dir
        config = self.rig.data / "config" / "klipperplace.cfg"
        config.write_text(rig.cfg_merge(config.read_text(), {"api": {"moonraker_socket": folder / "proxy.sock"}}))
        self.pushes = folder / "pushes"
        self.proxy = Process(folder, "proxy", [sys.executable, rig.REPO / "tests" / "bench" / "push_proxy.py", folder / "proxy.sock",
                                               self.rig.moonraker_socket, self.pushes])

    def __enter__(self):
        self.proxy.start()
        try:
            self.rig.start()
        except BaseException:
            self.proxy.stop()
            raise
        return self

    def __exit__(self, kind, *_):
        self.proxy.stop()
        self.rig.stop(check=kind is None)

    def parts(self):
        """What bench.py runs, in order, with the figures that each gives."""
        return [(self.fanout, ["ws.fanout_p99_ms"])]

    def _command(self, path, body):
        status, answer, _ = self.rig.post(f"/api/v1/{path}", body)
        if status != 200:
            raise NotMeasured(f"{path}: HTTP {status}: {answer}")

    def fanout(self):
        self._command("motion/home", {})
        readers = Readers(self.rig, READERS)
        times = []
        try:
            for i in range(self.rounds):
                times += self._round(readers, i)
        finally:
            readers.close()
        times.sort()
        p99 = times[min(len(times) - 1, round(len(times) * 0.99))]
        self.report.line(f"{len(times)} pushes to {READERS} subscribers, one more stalled: median {statistics.median(times) * 1000:.2f} ms, "
                         f"99 of 100 {p99 * 1000:.2f} ms, longest {times[-1] * 1000:.2f} ms")
        self.report.figure("ws.fanout_p99_ms", p99 * 1000)

    def _round(self, readers, i):
        """Times from push to last subscriber, s."""
        start, end = (FROM_X, TO_X) if i % 2 == 0 else (TO_X, FROM_X)
        self._command("motion/move", {"x": start, "y": Y, "feedrate": 12000, "wait": True})
        readers.pong()
        stalled = Raw(self.rig)
        stalled.clog()
        readers.listen(SETTLE_S)
        readers.last()
        before = len(self.pushes.read_text().splitlines())
        self._command("motion/move", {"x": end, "feedrate": FEEDRATE})
        readers.listen(ROUND_S - SETTLE_S)
        if "closed=1013" in self.rig.shim.output()[self.logged:]:
            raise NotMeasured("the stalled session was dropped within the round")
        stalled.socket.close()
        self.logged = len(self.rig.shim.output())
        last, some = readers.last()
        if some - set(last):
            raise NotMeasured(f"not every subscriber was told X {sorted(some - set(last))}")
        pushed = [tuple(map(float, line.split())) for line in self.pushes.read_text().splitlines()[before:]]
        times = [last[x] - at for x, at in pushed if x in last]
        if len(times) < PUSHES_MIN:
            raise NotMeasured(f"only {len(times)} pushes were seen again, of {len(pushed)} to the shim and {len(last)} to the subscribers")
        return times
