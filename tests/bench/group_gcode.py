# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of the G-code port: barriers beside Moonraker's socket and Klipper's own pty, reads, and what a placement's lines cost.

For bench.py. Invariant: what is compared takes turns in one run, each from rest, and both sides give Klipper the same work.
"""
import itertools
import os
import random
import statistics
import termios
import time
import tty

import openpnp
import rig
from measure import NotMeasured, Rpc, call
from report import Figure

FIGURES = [
    Figure("gcode.barrier_vs_moonraker", "ratio", "<= 1.25",
           "M400 and M114 at rest, through the port, over the same two in one script on Moonraker's unix socket"),
    Figure("gcode.barrier_vs_pty", "ratio", "<= 2.2", "the same over the two lines on Klipper's own pty"),
    Figure("gcode.read_ms", "ms", "<= 0.5", "M105 with nothing pending, median"),
    Figure("gcode.overhead_vs_moonraker", "ratio", "<= 1.3",
           "10 acknowledgements, 10 barriers, 5 M42 and 3 M105 through the port over the same scripts on Moonraker's unix socket"),
]
SETTLE_S = 3      # after the start, until nothing of it is under way
GAP_S = 0.02
SAMPLED_S = 0.7   # after this a sensor's value is of after all that came before
ROUNDS, QUICK_ROUNDS = 7, 2
PAIRS, QUICK_PAIRS = 300, 60


def median_ms(seconds):
    return statistics.median(seconds) * 1000


class Pty:
    """Klipper's own console."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self.fd, termios.TCSANOW)
        os.set_blocking(self.fd, True)

    def close(self):
        os.close(self.fd)

    def drain(self):
        """Lines that others' scripts have made."""
        os.set_blocking(self.fd, False)
        try:
            while os.read(self.fd, 65536):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(self.fd, True)

    def ask(self, text, oks):
        os.write(self.fd, text)
        got = b""
        while got.count(b"ok\n") < oks:
            data = os.read(self.fd, 65536)
            if not data:
                raise NotMeasured("Klipper's pty has closed")
            got += data
        return got


class Bench:
    """One machine, at home and at rest, with a client on its port."""

    def __init__(self, report):
        self.report = report
        self.pairs, self.rounds = (QUICK_PAIRS, QUICK_ROUNDS) if report.quick else (PAIRS, ROUNDS)
        self.rig = rig.Rig(klipperplace_extra=openpnp.CONFIG)
        self.numbers = itertools.count(1000)

    def __enter__(self):
        self.rig.start()
        try:
            self.lines = openpnp.Lines(self.rig)
            self.moonraker = Rpc(self.rig.moonraker_socket)
            self.pty = Pty(self.rig.dir / "console")
            if self.lines.ask("G28", timeout=60) != ["ok"]:
                raise NotMeasured("the machine does not home")
            time.sleep(SETTLE_S)
        except BaseException:
            self.rig.stop(check=False)
            raise
        return self

    def __exit__(self, kind, *_):
        self.pty.close()
        self.moonraker.socket.close()
        self.lines.sock.close()
        self.rig.stop(check=kind is None)

    def parts(self):
        """What bench.py runs, in order, with the figures that each gives."""
        return [
            (self.barriers, ["gcode.barrier_vs_moonraker", "gcode.barrier_vs_pty"]),
            (self.reads, ["gcode.read_ms"]),
            (self.placements, ["gcode.overhead_vs_moonraker"]),
        ]

    def _script(self, text):
        number = next(self.numbers)
        request = call("printer.gcode.script", {"script": text}, number)
        began = time.perf_counter()
        self.moonraker.ask(request, number)
        return time.perf_counter() - began

    def _timed(self, text, lines):
        began = time.perf_counter()
        self.lines.send(text)
        replies = self.lines.replies(lines)
        taken = time.perf_counter() - began
        if any(r.startswith("!!") for r in replies):
            raise NotMeasured(f"{text!r}: {replies}")
        return taken

    # -- barriers

    def _barrier_pty(self):
        self.pty.drain()
        began = time.perf_counter()
        self.pty.ask(b"M400\nM114\n", 2)
        return time.perf_counter() - began

    def _barrier_script(self):
        """What the port sends for a barrier."""
        sent = self._sent(lambda: self._timed("M400\nM114\n", 2))
        if len(sent) != 1 or "M400\nM114" not in sent[0]:
            raise NotMeasured(f"a barrier is no single script: {sent}")
        return sent[0]

    def barriers(self):
        framed = self._barrier_script()
        sides = {"port": lambda: self._timed("M400\nM114\n", 2), "moonraker": lambda: self._script("M400\nM114"), "pty": self._barrier_pty,
                 "framed": lambda: self._script(framed)}
        times = {side: [] for side in sides}
        for _ in range(self.pairs):
            for side in random.sample(list(sides), len(sides)):
                times[side].append(sides[side]())
                time.sleep(GAP_S + random.uniform(0, GAP_S))
        port, moonraker, pty, framed = (median_ms(times[side]) for side in ("port", "moonraker", "pty", "framed"))
        self.report.line(f"M400 and M114 at rest, medians of {self.pairs}: port {port:.3f} ms, "
                         f"Moonraker's unix socket {moonraker:.3f} ms, Klipper's pty {pty:.3f} ms; the port's own script on Moonraker's unix socket {framed:.3f} ms, "
                         f"the port over that {port / framed:.2f}")
        self.report.figure("gcode.barrier_vs_moonraker", port / moonraker)
        self.report.figure("gcode.barrier_vs_pty", port / pty)

    # -- reads

    def reads(self):
        self._timed("M400\n", 1)
        time.sleep(SAMPLED_S)
        times = []
        for _ in range(self.pairs):
            times.append(self._timed("M105\n", 1))
            time.sleep(GAP_S)
        self.report.line(f"M105, median of {self.pairs}: {median_ms(times):.3f} ms, the slowest {max(times) * 1000:.3f} ms")
        self.report.figure("gcode.read_ms", median_ms(times))

    # -- a placement's lines

    def _placement(self):
        """The seconds of each line or pair of lines, motion apart: the moves go where the head is. Pauses are not counted."""
        x = self.place
        ops = [("ack", f"G1 X{x:.4f} F6000\n", 1), ("barrier", "M400\nM114\n", 2)] * 10
        out = [(kind, self._timed(text, lines)) for kind, text, lines in ops]
        time.sleep(SAMPLED_S)
        out += [("M105", self._timed("M105\n", 1)) for _ in range(3)]
        return out + [("M42", self._timed(f"M42 P1 S{255 * (i % 2 == 0):g}\n", 1)) for i in range(5)]

    def _sent(self, act):
        """The scripts that the port sends for what act does."""
        since = time.time()
        act()
        time.sleep(0.2)
        return self.rig.scripts(since)

    def placements(self):
        self.place = self.rig.get("/api/v1/position")[1]["data"]["position"]["x"]
        self._timed("M42 P1 S0\n", 1)
        sent = self._sent(self._placement)
        if len(sent) != 30:  # 10 + 10, and two for each M42: the pin, and that it has acted
            raise NotMeasured(f"the port sent {len(sent)} scripts: {sent}")
        ours, theirs, kinds = [], [], {}
        for i in range(self.rounds):
            for side in ("port", "moonraker") if i % 2 == 0 else ("moonraker", "port"):
                self._timed("M42 P1 S0\n", 1)
                time.sleep(SAMPLED_S)
                if side == "moonraker":
                    theirs.append(sum(self._script(text) for text in sent))
                    continue
                found = self._placement()
                ours.append(sum(s for _, s in found))
                for kind, s in found:
                    kinds.setdefault(kind, []).append(s)
        self.report.line(f"10 acknowledgements, 10 barriers, 5 M42, 3 M105, medians of {self.rounds}: {median_ms(ours):.1f} ms through the port, "
                         f"{median_ms(theirs):.1f} ms for its {len(sent)} scripts on Moonraker's unix socket")
        self.report.line("of these, medians: " + ", ".join(f"{kind} {median_ms(s):.3f} ms" for kind, s in kinds.items()))
        self.report.figure("gcode.overhead_vs_moonraker", statistics.median(ours) / statistics.median(theirs))
