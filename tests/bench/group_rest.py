# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of the REST side: the shim beside a bare libmicrohttpd daemon, and a move beside the same script on Moonraker's socket.

For bench.py. Invariant: what is compared alternates in one run, and the order within a pair changes with every pair.
"""
import itertools
import random
import statistics
import time
from dataclasses import dataclass

import rig
from measure import Http, NotMeasured, Rpc, body_of, call, cpu_pct, cpu_s, get, memory_mb, post, start_beside, wrk
from proxy import proxied_rig
from report import Figure
from ws_client import Raw

FIGURES = [
    Figure("rest.health_vs_mhd", "ratio", ">= 0.7", "GET /health, answers a second over those of the bare daemon, 64 connections"),
    Figure("rest.gpio_read_vs_mhd", "ratio", ">= 0.6", "the same for GET gpio/read of one pin, from the mirror"),
    Figure("rest.status_vs_mhd", "ratio", ">= 0.5", "the same for GET status"),
    Figure("rest.cpu_us_per_read", "us", "<= 40", "processor time of the shim for one gpio/read, 64 connections"),
    Figure("rest.idle_cpu_pct", "pct", "<= 1", "processor time of the shim without clients, of one core, while Klipper pushes"),
    Figure("rest.moves_sustained_s", "1/s", ">= 50", "short moves back and forth accepted a second, one client"),
    Figure("rest.gpio_read_p50_us", "us", "<= 150", "time of a gpio/read, one client that keeps its connection, half are faster"),
    Figure("rest.gpio_read_p99_us", "us", "<= 1000", "the same, 99 of 100 are faster"),
    Figure("rest.move_vs_moonraker", "ratio", "<= 1.15", "time until a move is accepted over that of the same script on Moonraker's unix socket"),
    Figure("rest.moonraker_calls_per_1000_reads", "calls", "<= 1", "requests of the shim to Moonraker while 1000 reads of all kinds come in 10 s"),
    Figure("rest.rss_base_mb", "MB", "<= 15", "resident memory of the shim after the rounds above"),
    Figure("rest.rss_per_ws_kb", "KiB", "<= 16", "resident memory of the shim for each of 100 WebSockets that are subscribed to everything"),
]
CONNECTIONS = (1, 8, 64)
SETTLE_S = 3          # after the start, until nothing of it is under way
PUSHES_MIN_S = 3.5    # of four a second; else the mirror was not being changed
MOVE_STEPS = 4        # length of a short move in steps of the motor
GAP_S = 0.12          # between single moves: each starts with the machine at rest, so that no motion is waited for,
GAP_MORE_S = 0.05     # and at most so much later, or Klipper's ticks would meet the same side always
MOVE_MM = 1.0


@dataclass
class Times:
    """How long things are measured; s, or counts."""
    rounds: int
    round_s: dict  # by connections
    idle_s: int
    moves_s: int
    pairs: int
    reads: int


FULL = Times(7, {1: 2, 8: 2, 64: 3}, 20, 60, 150, 1000)
QUICK = Times(3, {1: 1, 8: 1, 64: 1}, 5, 10, 30, 300)


def median(values):
    return statistics.median(values)


class Bench:
    """One machine with a shim, at home, and what is measured on it."""

    def __init__(self, report):
        self.report, self.times = report, QUICK if report.quick else FULL
        self.rig = rig.Rig()
        self.scripts = {}  # what the shim sends for a single move, by place and added lines

    def __enter__(self):
        self.rig.start()
        try:
            command(self.rig, "motion/home", {})
            limits = read(self.rig, "position")["limits"]
            self.middle_x, self.middle_y = (round((limits[axis]["min"] + limits[axis]["max"]) / 2) for axis in "xy")
            time.sleep(SETTLE_S)
        except BaseException:
            self.rig.stop(check=False)
            raise
        return self

    def __exit__(self, kind, *_):
        self.rig.stop(check=kind is None)

    def parts(self):
        """What bench.py runs, in order, with the figures that each gives."""
        return [
            (self.idle, ["rest.idle_cpu_pct"]),
            (self.health, ["rest.health_vs_mhd"]),
            (self.sensor_read, []),
            (self.gpio_read, ["rest.gpio_read_vs_mhd", "rest.cpu_us_per_read", "rest.gpio_read_p50_us", "rest.gpio_read_p99_us"]),
            (self.status, ["rest.status_vs_mhd"]),
            (self.moves, ["rest.moves_sustained_s"]),
            (self.calls, ["rest.moonraker_calls_per_1000_reads"]),
            (self.single_moves, ["rest.move_vs_moonraker"]),
            (self.memory, ["rest.rss_base_mb"]),
            (self.sessions, ["rest.rss_per_ws_kb"]),
        ]

    def _pin_path(self):
        """gpio/read of the first output of the machine."""
        outputs = [p["pin"] for p in read(self.rig, "gpio/read_all")["pins"] if p["direction"] == "output"]
        if not outputs:
            raise NotMeasured("the machine has no output pin")
        return f"/api/v1/gpio/read?pin={outputs[0]}"

    # -- the shim without clients

    def idle(self):
        self._check_pushes()
        self.report.figure("rest.idle_cpu_pct", cpu_pct(self.rig.shim.pid, self.times.idle_s))

    def _check_pushes(self):
        """The mirror must change four times a second, or a read costs less here than it does at work."""
        with Http(self.rig.port) as client:
            request, seen = get(self._pin_path()), set()
            end = time.monotonic() + 2
            while time.monotonic() < end:
                seen.add(body_of(client.ask(request)[1])["data"]["timestamp"])
                time.sleep(0.02)
        if len(seen) / 2 < PUSHES_MIN_S:
            raise NotMeasured(f"the mirror changed only {len(seen)} times in 2 s")
        self.report.line(f"the mirror changes {len(seen) / 2:.1f} times a second")

    # -- reads beside the bare daemon

    def health(self):
        self._beside_bare("rest.health_vs_mhd", "/health")

    def status(self):
        self._beside_bare("rest.status_vs_mhd", "/api/v1/status")

    def sensor_read(self):
        """Lines only: it is made as a read of a pin is."""
        sensors = read(self.rig, "sensor/read_all")["sensors"]
        if not sensors:
            raise NotMeasured("the machine has no sensor")
        self._beside_bare("sensor/read", f"/api/v1/sensor/read?sensor={sensors[0]['sensor']}", figure=False)

    def gpio_read(self):
        name, path = "rest.gpio_read_vs_mhd", self._pin_path()
        ours, cpu_us = self._beside_bare(name, path)
        self.report.figure("rest.cpu_us_per_read", cpu_us)
        self.report.figure("rest.gpio_read_p50_us", median(load.p50_us for load in ours[1]))
        self.report.figure("rest.gpio_read_p99_us", median(load.p99_us for load in ours[1]))

    def _beside_bare(self, name, path, figure=True):
        """Prints the ratio for every number of connections, and the figure, where it is one, for the last. Gives our rounds by connections and our
        processor time of one answer at the last."""
        with Http(self.rig.port) as client:
            status, answer = client.ask(get(path))
        if status != 200:
            raise NotMeasured(f"{path}: HTTP {status}")
        port, bare = self._start_bare(answer)
        try:
            with Http(port) as client:
                same_shape(answer, client.ask(get(path))[1])
            ours = {}
            for n in CONNECTIONS:
                ours[n], theirs, cpu_us = self._rounds(path, n, port, bare.pid)
                ratio = median(load.rate for load in ours[n]) / median(load.rate for load in theirs)
                self.report.line(f"{name} at {n} connections: {ratio:.3f}; medians {median(load.rate for load in ours[n]):.0f}/s and bare "
                                 f"{median(load.rate for load in theirs):.0f}/s; CPU of an answer {cpu_us[0]:.1f} us and bare {cpu_us[1]:.1f} us")
            if figure:
                self.report.figure(name, ratio)
            return ours, cpu_us[0]
        finally:
            bare.stop()

    def _start_bare(self, answer):
        port = rig.free_port({self.rig.port, self.rig.moonraker_port})
        file = self.rig.dir / "answer.http"
        file.write_bytes(answer)
        return port, start_beside(self.rig, f"bare-{port}", "kp-bare-mhd", port, file)

    def _rounds(self, path, connections, bare_port, bare_pid):
        """Rounds of both in turn: our loads, the bare daemon's, and the processor time of an answer of each, us."""
        sides = [(self.rig.port, self.rig.shim.pid, []), (bare_port, bare_pid, [])]
        spent = {pid: 0.0 for _, pid, _ in sides}
        for i in range(self.times.rounds):
            for port, pid, loads in sides if i % 2 == 0 else reversed(sides):
                before = cpu_s(pid)
                loads.append(wrk(f"http://127.0.0.1:{port}{path}", connections, self.times.round_s[connections]))
                spent[pid] += cpu_s(pid) - before
        return sides[0][2], sides[1][2], [spent[pid] / sum(load.requests for load in loads) * 1e6 for _, pid, loads in sides]

    # -- moves

    def moves(self):
        step_mm = mm_per_step(self.rig, "x")
        near = self.middle_x
        far = round(near + MOVE_STEPS * step_mm, 6)
        command(self.rig, "motion/move", {"x": near, "y": self.middle_y, "feedrate": 6000, "wait": True})
        time.sleep(1)
        began_steps = self.rig.sim_cmd("steps x")["total_steps"]
        requests = [post("/api/v1/motion/move", {"x": x, "feedrate": 6000}) for x in (far, near)]
        count, began = 0, time.monotonic()
        with Http(self.rig.port) as client:
            while time.monotonic() < began + self.times.moves_s:
                status, answer = client.ask(requests[count % 2])
                if status != 200:
                    raise NotMeasured(f"move {count}: {answer.decode()}")
                count += 1
        seconds = time.monotonic() - began
        during = self.rig.sim_cmd("steps x")["total_steps"] - began_steps
        command(self.rig, "motion/wait", {})
        time.sleep(1)
        stepped, asked = self.rig.sim_cmd("steps x")["total_steps"] - began_steps, count * MOVE_STEPS
        self.report.line(f"{count} moves of {far - near:g} mm in {seconds:.1f} s; steps at the motor {stepped} of {asked}, of them before the last answer {during}")
        if stepped != asked:
            raise NotMeasured(f"the simulated machine made {stepped} steps of {asked}")
        self.report.figure("rest.moves_sustained_s", count / seconds)

    # -- requests to Moonraker

    def calls(self):
        """On a machine of its own, with a proxy between the shim and Moonraker; the proxy also shows what a move is there."""
        with proxied_rig() as (machine, proxy):
            self._count_calls(machine, proxy)
            command(machine, "motion/home", {})
            self._learn_scripts(machine, proxy)

    def _count_calls(self, machine, proxy):
        time.sleep(SETTLE_S)
        if not proxy.methods:
            raise NotMeasured("the shim did not use the proxy")
        sensors = read(machine, "sensor/read_all")["sensors"]
        paths = [self._pin_path(), f"/api/v1/sensor/read?sensor={sensors[0]['sensor']}", "/api/v1/gpio/read_all", "/api/v1/sensor/read_all",
                 "/api/v1/position", "/api/v1/status", "/health"]
        requests = [get(path) for path in paths]
        for what, count, gap_s in (("as fast as they go", 10 * self.times.reads, 0), ("100 a second", self.times.reads, 0.01)):
            before, began = proxy.methods.copy(), time.monotonic()
            with Http(machine.port) as client:
                for i in range(count):
                    status, answer = client.ask(requests[i % len(requests)])
                    if status != 200:
                        raise NotMeasured(f"{paths[i % len(paths)]}: {answer.decode()}")
                    time.sleep(max(0.0, began + (i + 1) * gap_s - time.monotonic()))
            asked = proxy.methods - before
            self.report.line(f"{count} reads of {len(paths)} kinds, {what}, in {time.monotonic() - began:.1f} s: {asked.total()} requests to Moonraker{f' {dict(asked)}' if asked else ''}")
        self.report.figure("rest.moonraker_calls_per_1000_reads", asked.total() / count * 1000)

    # -- single moves

    def _single_move(self, place):
        return {"x": self.middle_x + place * MOVE_MM, "feedrate": 6000}

    def _learn_scripts(self, machine, proxy):
        """What the shim sends for a move to either place; it adds lines to some, which its answer shows after the first."""
        for i in range(8):
            place = i // 2 % 2
            gcode = command(machine, "motion/move", self._single_move(place))["gcode"]
            self.scripts[place, added_to(gcode)] = proxy.scripts[-1]
            time.sleep(GAP_S)

    def single_moves(self):
        """Four sides in turn, each move to the other of two places, each from rest: ours, what we send as one script of somebody else, that by a relay that
        only passes bytes on, and its G1 alone. Requests are made before and answers are looked into after the time is taken."""
        if not self.scripts:
            raise NotMeasured("the shim's scripts are not known")
        path = self.rig.dir / "relay.sock"
        relay = start_beside(self.rig, "relay", "kp-relay", path, self.rig.moonraker_socket)
        try:
            with Http(self.rig.port) as client, Rpc(self.rig.moonraker_socket) as moonraker, Rpc(path) as relayed:
                times = self._time_moves(client, {"same": moonraker, "relay": relayed, "alone": moonraker})
        finally:
            relay.stop()
        us, them, between, g1 = (median(times[side]) * 1000 for side in ("ours", "same", "relay", "alone"))
        self.report.line(f"a move accepted, medians of {self.times.pairs}: {us:.3f} ms through the shim; on Moonraker's unix socket {them:.3f} ms for the "
                         f"shim's script, {g1:.3f} ms for its G1 alone")
        self.report.line(f"the shim's script through a relay that only passes bytes on: {between:.3f} ms, {between / them:.2f} of that on the socket itself; the "
                         f"shim over the relay: {us / between:.2f}")
        for script in self.scripts.values():
            self.report.line(f"script: {script!r}")
        self.report.figure("rest.move_vs_moonraker", us / them)

    def _time_moves(self, client, sockets):
        """Seconds of each move by side."""
        bodies = [self._single_move(place) for place in (0, 1)]
        times, place, numbers, added = {side: [] for side in ("ours", *sockets)}, 0, itertools.count(1000), ()
        for _ in range(self.times.pairs):
            for side in random.sample(list(times), len(times)):  # what a move finds depends on the one before it
                place, number = 1 - place, next(numbers)
                if side == "ours":
                    taken = timed(client.ask, post("/api/v1/motion/move", bodies[place]))
                    added = added_to(data_of("motion/move", taken.result[0], body_of(taken.result[1]))["gcode"])
                else:
                    script = f"G1 X{bodies[place]['x']:g} F6000" if side == "alone" else self.scripts.get((place, added))
                    if not script:
                        raise NotMeasured(f"the shim's script with {added} is not known")
                    taken = timed(sockets[side].ask, call("printer.gcode.script", {"script": script}, number), number)
                times[side].append(taken.seconds)
                time.sleep(GAP_S + random.uniform(0, GAP_MORE_S))
        return times

    # -- memory

    def memory(self):
        pid = self.rig.shim.pid
        self.report.line(f"memory of the shim: highest {memory_mb(pid, 'VmHWM'):.1f} MB, its own pages {memory_mb(pid, 'RssAnon'):.1f} MB")
        self.report.figure("rest.rss_base_mb", memory_mb(pid))

    def sessions(self):
        """The larger of two: over all 100 sessions, and over the last 50, when what was free in the heap is used up."""
        pid = self.rig.shim.pid
        mb, sessions = [memory_mb(pid)], []
        for _ in range(2):
            for _ in range(50):
                sessions.append(Raw(self.rig, 65536))
                sessions[-1].subscribe_all()
            time.sleep(2)  # pushes for all of them
            mb.append(memory_mb(pid))
        for s in sessions:
            s.socket.close()
        time.sleep(1)
        self.report.line(f"memory of the shim: {mb[0]:.2f} MB, with 50 WebSockets {mb[1]:.2f} MB, with 100 {mb[2]:.2f} MB, after them {memory_mb(pid):.2f} MB")
        self.report.figure("rest.rss_per_ws_kb", max((mb[2] - mb[0]) / 100, (mb[2] - mb[1]) / 50) * 1024)


@dataclass
class Timed:
    result: object
    seconds: float


def timed(function, *args):
    began = time.perf_counter()
    result = function(*args)
    return Timed(result, time.perf_counter() - began)


def added_to(gcode):
    """What the shim adds to a move of its own accord, by the lines that its answer names."""
    return tuple(line for line in gcode if not line.startswith("G1"))


def command(machine, path, body):
    """A command by POST; its data."""
    return data_of(path, *machine.post(f"/api/v1/{path}", body)[:2])


def read(machine, path):
    """A read by GET; its data."""
    return data_of(path, *machine.get(f"/api/v1/{path}")[:2])


def data_of(path, status, answer):
    if status != 200:
        raise NotMeasured(f"{path}: HTTP {status}: {answer}")
    return answer["data"]


def mm_per_step(machine, axis):
    """From the world file, which the simulated machine counts by."""
    for line in (machine.dir / "world.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words[:2] == ["axis", axis]:
            return float(dict(w.split("=") for w in words[2:])["mm_per_step"])
    raise NotMeasured(f"no axis {axis} in the world")


def same_shape(ours, bare):
    """The bare daemon must send the same status, the same headers (Date apart) and the same body."""
    def parts(answer):
        head, body = answer.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        return lines[0], sorted(line for line in lines[1:] if not line.lower().startswith(b"date:")), body
    if parts(ours) != parts(bare):
        raise NotMeasured(f"the bare daemon answers with other bytes: {bare!r} instead of {ours!r}")
