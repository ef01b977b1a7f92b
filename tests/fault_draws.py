# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults drawn at random under load, mended, and the machine's books compared with what clients were told; for the tests and scripts/bench.

Invariant: steps and pins are the simulated machine's own count. A fault is mended as the machine's owner would: what was stopped is started, and where
Klipper is in shutdown its firmware is restarted. What the shim owes is counted from then on.
"""
import collections
import concurrent.futures
import contextlib
import itertools
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field

import rig
from fault_load import BASE, PIN, PIN_PATH, Load
from proxy import DOWN, UP, proxied_rig

sys.path.insert(0, str(rig.REPO / "tests" / "system"))
sys.path.insert(0, str(rig.REPO / "tests" / "bench"))
import helpers  # noqa: E402  pylint: disable=wrong-import-position
from measure import memory_mb  # noqa: E402  pylint: disable=wrong-import-position

MOTORS = ("x", "y", "feeder1")
SEEN_S = 30       # until Klipper itself sees that its microcontroller is not as it left it
GIVE_UP_S = 60    # a shim that is not back then never will be
DESCRIPTORS_S = 5
# AddressSanitizer keeps what was freed, up to 256 MB: then memory tells nothing. A little is enough to catch a use soon after.
SHIM_ENV = {"ASAN_OPTIONS": "detect_leaks=1:exitcode=99:quarantine_size_mb=1:thread_local_quarantine_size_kb=64"}


@dataclass(frozen=True)
class Kind:
    """A kind of fault. begin(run) makes it, mend(run) takes back what the test itself did."""
    name: str
    begin: object
    mend: object = lambda run: None
    hold_s: tuple = (0.0, 1.0)
    cuts: bool = False          # motion that Klipper has accepted may not come to its end
    klipper_goes: bool = False  # and it takes Klipper a moment to see it
    blind: bool = False         # Klipper says meanwhile that motion has ended which has not: it goes by an estimate of the microcontroller's clock


def hang(run, ms):
    run.machine.sim_cmd(f"fault hang {ms}")
    time.sleep(ms / 1000)


def resets(run):
    for _ in range(run.draw.randint(1, 4)):
        run.proxy.cut()
        time.sleep(run.draw.uniform(0, 0.3))


def refuse(run, yes):
    run.proxy.open = not yes
    if yes:
        run.proxy.cut()


def delay(run, seconds):
    run.proxy.delay_s = seconds


def lose(*directions):
    """Bytes are lost without a word; then the line works again, and the connections that lost some are reset, as by a router that has forgotten them."""
    def mend(run):
        run.proxy.swallow()
        run.proxy.cut()
    return {"begin": lambda run: run.proxy.swallow(*directions), "mend": mend, "hold_s": (0.1, 2.5)}


KINDS = (
    Kind("Moonraker killed", lambda r: r.machine.moonraker.kill(), lambda r: r.machine.moonraker.start()),
    Kind("Moonraker stopped and started", lambda r: r.machine.moonraker.stop(), lambda r: r.machine.moonraker.start()),
    Kind("Moonraker stands still", lambda r: r.machine.moonraker.pause(), lambda r: r.machine.moonraker.resume(), (0.1, 3.0)),
    Kind("Klipper killed", lambda r: r.machine.klipper.kill(), lambda r: r.machine.klipper.start(), cuts=True),
    Kind("Klipper stands still", lambda r: r.machine.klipper.pause(), lambda r: r.machine.klipper.resume(), (0.1, 2.5), cuts=True),
    Kind("RESTART", lambda r: r.restart("printer.restart"), cuts=True),
    Kind("FIRMWARE_RESTART", lambda r: r.restart("printer.firmware_restart"), cuts=True),
    Kind("microcontroller hangs", lambda r: hang(r, r.draw.randint(100, 3000))),
    Kind("microcontroller hangs beyond Klipper's patience", lambda r: hang(r, r.draw.randint(6000, 7000)), cuts=True, klipper_goes=True, blind=True),
    Kind("frames lost", lambda r: r.machine.sim_cmd(f"fault drop_frames {r.draw.randint(1, 6)}")),
    Kind("microcontroller reboots", lambda r: r.machine.sim_cmd("fault reboot"), cuts=True, klipper_goes=True),
    Kind("microcontroller shuts down", lambda r: r.machine.sim_cmd("fault shutdown Timer too close"), cuts=True, klipper_goes=True),
    Kind("line slow", lambda r: delay(r, r.draw.uniform(0.005, 0.15)), lambda r: delay(r, 0), (0.5, 2.0)),
    Kind("line reset", resets),
    Kind("line refused", lambda r: refuse(r, True), lambda r: refuse(r, False), (0.1, 2.0)),
    Kind("bytes to Moonraker lost", **lose(UP)),
    Kind("bytes from Moonraker lost", **lose(DOWN)),
    Kind("bytes lost both ways", **lose(UP, DOWN)),
    # The line is dead for good and says nothing: only what the shim does by itself can end that.
    *(Kind(f"line dead {what}, and nobody says so", lambda r, lost=lost: r.proxy.swallow(*lost), lambda r: r.proxy.swallow(), (0.1, 2.5))
      for what, lost in (("to Moonraker", (UP,)), ("from Moonraker", (DOWN,)), ("both ways", (UP, DOWN)))),
)


@dataclass
class Result:
    """What a run has shown."""
    seed: int
    faults: int = 0
    double: list = field(default_factory=list)  # sentences
    lost: list = field(default_factory=list)
    other: list = field(default_factory=list)   # answers that nothing explains, clients that were not served again
    unanswered: list = field(default_factory=list)
    recover_s: list = field(default_factory=list)  # (seconds, kind)
    requests: int = 0
    codes: collections.Counter = field(default_factory=collections.Counter)
    rss_kb: list = field(default_factory=list)  # after each fault
    descriptors: list = field(default_factory=list)


def descriptors(machine):
    return len(os.listdir(f"/proc/{machine.shim.pid}/fd"))


def rss_kb(machine):
    return round(memory_mb(machine.shim.pid) * 1024)


def sums(counts):
    """Every sum of some of them."""
    found = {0}
    for n in counts:
        found |= {f + n for f in found}
    return found


def judge(name, made, motion, kind, told_before):
    """What is wrong with the steps that a motor made, as (what, sentence), or None. told_before: what was promised of it when the fault began."""
    sure = told_before if kind.blind else motion.sure if kind.cuts else motion.sure + motion.accepted
    most = motion.sure + motion.accepted + sum(motion.maybe)
    told = f"{name}: {made} steps, answers say {motion.sure}, accepted {motion.accepted}, may have run {motion.maybe}"
    if made < sure:
        return "lost", told
    if made > most or (not kind.cuts and made - sure not in sums(motion.maybe)):
        return "double", told
    return None


class Run:
    """A machine under load, and faults on it."""

    def __init__(self, machine, proxy, load, seed):
        self.machine, self.proxy, self.load = machine, proxy, load
        self.draw = random.Random(seed)
        self.result = Result(seed)
        self.before, self.told_before = {}, {}  # steps made when the books were opened, and promised when the fault began

    def restart(self, method):
        helpers.Later(self.machine.moonraker_call, method)
        helpers.wait_for("Klipper goes", lambda: self.machine.klippy_state()[0] != "ready", SEEN_S)

    # -- one fault

    def fault(self, kind):
        """One fault, its mending, and the look at the books."""
        self.begin_books()
        self.load.go()
        time.sleep(self.draw.uniform(0.1, 0.8))
        self.told_before = {name: self.load.books.motion[name].sure for name in MOTORS}
        kind.begin(self)
        time.sleep(self.draw.uniform(*kind.hold_s))
        kind.mend(self)
        since = time.monotonic()
        if kind.klipper_goes:
            helpers.wait_for("Klipper sees it", lambda: self.machine.klippy_state()[0] != "ready", SEEN_S)
        self.recovered(kind, since)
        self.make_usable()
        if left := self.load.wait_for_all():
            self.result.other.append(f"{kind.name}: not served again: {sorted(left)}")
        self.load.hold()
        self.look(kind)
        self.result.faults += 1

    def klipper_ready(self, since):
        """When the last thing that had gone was back: `since`, or when Klipper was ready again, after a restart of its firmware where it needs one."""
        end, away = time.monotonic() + GIVE_UP_S, False
        while time.monotonic() < end:
            state = self.state()
            if state == "ready":
                return time.monotonic() if away else since
            away = True
            if state in ("shutdown", "error"):
                with contextlib.suppress(OSError, rig.RpcError):
                    self.machine.moonraker_call("printer.firmware_restart", timeout=GIVE_UP_S)
                helpers.wait_for("Klipper restarts", lambda s=state: self.state() != s, SEEN_S)  # an error may come back; that is for the next time around
            time.sleep(0.02)
        raise rig.RigError(f"Klipper does not get ready: {self.state()}")

    def state(self):
        """Klipper's, as Moonraker knows it."""
        try:
            return self.machine.klippy_state()[0]
        except (OSError, rig.RpcError):
            return "unknown"

    def recovered(self, kind, since):
        """Measures until the shim is ready and a live read works."""
        since = self.klipper_ready(since)
        helpers.wait_for("the shim is ready", lambda: self.machine.get("/ready", timeout=GIVE_UP_S)[0] == 200, GIVE_UP_S)
        helpers.wait_for("a live read", lambda: self.machine.get(BASE + "gpio/read?pin=valve1&live=true", timeout=GIVE_UP_S)[0] == 200, GIVE_UP_S)
        self.result.recover_s.append((round(time.monotonic() - since, 3), kind.name))

    def make_usable(self):
        """What somebody at the machine does after a fault: looks, resets a stop, tells where the head is, and lets the queue go on."""
        end = time.monotonic() + GIVE_UP_S
        while True:
            try:
                self.klipper_ready(0)
                status = helpers.ok(self.machine.get(BASE + "status"))
                if status["safety"]["emergency_stop_active"]:
                    helpers.ok(self.machine.post(BASE + "system/reset", timeout=GIVE_UP_S))
                if not {"x", "y", "z"} <= set(helpers.position(self.machine)["homed_axes"]):
                    helpers.tell_position(self.machine, x=150, y=150)
                if not status["queue"]["paused"]:
                    return
                helpers.ok(self.machine.post(BASE + "system/resume"))
            except (AssertionError, OSError, rig.RpcError):
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    # -- the books

    def counts(self):
        """Steps of the motors and changes of the pin so far."""
        status = helpers.still(self.machine)
        made = {name: status["steppers"][name]["total_steps"] for name in MOTORS}
        return {**made, PIN: self.machine.sim_cmd(f"pin {PIN_PATH}")["changes"]}

    def begin_books(self):
        self.load.books.open()
        self.before = self.counts()

    def look(self, kind):
        """With all clients held: lets what was accepted come to its end, and compares."""
        r, books = self.result, self.load.books
        r.other += [f"{kind.name}: {what}" for what in self.load.settle_queue()]
        helpers.ok(self.machine.post(BASE + "motion/wait"))
        after = self.counts()
        for name in MOTORS:
            if wrong := judge(name, after[name] - self.before[name], books.motion[name], kind, self.told_before.get(name)):
                getattr(r, wrong[0]).append(f"{kind.name}: {wrong[1]}")
        if not kind.cuts:
            self.look_at_pin(kind, after[PIN] - self.before[PIN])
        r.other += [f"{kind.name}: {what}" for what in books.wrong]
        r.unanswered += [f"{kind.name}: {what}" for what in books.unanswered]
        books.wrong, books.unanswered = [], []
        r.requests, r.codes = books.requests, books.codes
        r.rss_kb.append(rss_kb(self.machine))
        r.descriptors.append(self.settled_descriptors())

    def look_at_pin(self, kind, changes):
        """Each write changes the pin, but for one after a write of which nobody knows."""
        m = self.load.books.motion[PIN]
        sure, maybe = m.sure + m.accepted, len(m.maybe)
        told = f"{kind.name}: {PIN} changed {changes} times, answers say {sure}, may have {maybe}"
        if changes < sure - maybe:
            self.result.lost.append(told)
        elif changes > sure + maybe:
            self.result.double.append(told)

    def settled_descriptors(self):
        """The fewest over a moment, until they are as few as after the first fault: a connection that was closed just now takes its time."""
        end, least = time.monotonic() + DESCRIPTORS_S, descriptors(self.machine)
        while self.result.descriptors and least > self.result.descriptors[0] and time.monotonic() < end:
            time.sleep(0.05)
            least = min(least, descriptors(self.machine))
        return least


def kinds(draw, count, pool):
    """So many kinds, each as often as any other or once more."""
    endless = itertools.chain.from_iterable(draw.sample(pool, len(pool)) for _ in itertools.count())
    return list(itertools.islice(endless, count))


@contextlib.contextmanager
def faults_rig(websocket=False):
    """A machine behind a proxy that can be a bad line, told where its head is; both. After a failure its folder stays."""
    with tempfile.TemporaryDirectory(prefix="kp-faults-", dir="/tmp") as folder:
        history = f"[history]\ndatabase: {folder}/history.db\n[gcode_driver]\nmax_history_entries: 300\n"  # full soon, so that memory is flat
        with proxied_rig(websocket=websocket, klipperplace_extra=history, shim_env=SHIM_ENV) as (machine, proxy):
            try:
                helpers.tell_position(machine, x=150, y=150)
                yield machine, proxy
            except BaseException:
                machine.keep = True
                print(f"folder kept: {machine.dir}\n{machine.log_tails()}")
                raise


def make_faults(drawn, seed, websocket, say):
    """Faults of these kinds, one after the other, on a machine of their own: the Result."""
    with faults_rig(websocket) as (machine, proxy), Load(machine, seed) as load:
        run = Run(machine, proxy, load, seed)
        r = run.result
        for i, kind in enumerate(drawn):
            began = time.monotonic()
            run.fault(kind)
            say(f"{i + 1}: {kind.name}: {time.monotonic() - began:.1f} s, back after {r.recover_s[-1][0]:.2f} s, "
                f"rss {r.rss_kb[-1]} KiB, {r.descriptors[-1]} descriptors")
        if r.double or r.lost or r.unanswered or r.other:
            machine.keep = True
            say(f"folder kept: {machine.dir}")
    return r


def draw_both(count, seed, say=print, pool=KINDS):
    """Half of the faults on a machine that is reached by Moonraker's unix socket, half by its WebSocket, at the same time: both Results."""
    drawn = kinds(random.Random(seed), count, pool)
    ways = (("socket", drawn[::2], seed), ("WebSocket", drawn[1::2], seed + 1))
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(make_faults, kinds_of_way, s, way == "WebSocket", lambda text, way=way: say(f"{way} {text}")) for way, kinds_of_way, s in ways]
        return [run.result() for run in runs]
