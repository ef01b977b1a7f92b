# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/demo: runs the job of klipper_cfg/demo on the simulated machine and compares what lies on the board with the file.

For people who want to see it work, and for test_demo.py. Invariant: the comparison reads the simulated machine alone, never
an answer of the shim, and "agrees" means within 0.02 mm and 1 degree.
"""
import argparse
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import rig

sys.path.insert(0, str(rig.DEMO_CFG))
import job  # noqa: E402
import kicad  # noqa: E402

TOLERANCE_MM = 0.02
TOLERANCE_DEG = 1.0
FAULT_EVERY = 5  # with --faults: every fifth part does not stick at first


@dataclass
class Found:
    """One part of the plan and the part that the simulated machine has in its place; None: nothing of its kind is left."""
    placement: job.Placement
    thing: dict

    @property
    def error(self):
        """How far off it lies: dx, dy in mm, rotation in degrees."""
        p, t = self.placement, self.thing
        return t["x"] - p.x, t["y"] - p.y, (t["rot"] - p.rotation + 180.0) % 360.0 - 180.0

    @property
    def agrees(self):
        if not self.thing or self.thing["fell"]:
            return False
        dx, dy, turn = self.error
        return (dx * dx + dy * dy) ** 0.5 <= TOLERANCE_MM and abs(turn) <= TOLERANCE_DEG


def compare(placements, lying):
    """Pairs each placement with the nearest part of its kind; also returns the parts that nothing asked for."""
    left, found = list(lying), []
    for p in placements:
        same_kind = [t for t in left if t["feeder"] == p.feeder.name]
        nearest = min(same_kind, key=lambda t: (t["x"] - p.x) ** 2 + (t["y"] - p.y) ** 2, default=None)
        if nearest:
            left.remove(nearest)
        found.append(Found(p, nearest))
    return found, left


def parts_on_board(machine, setup):
    """The parts that lie in the board holder, as the simulated machine sees them."""
    x1, y1 = setup.x + setup.width, setup.y + setup.height
    return [t for t in machine.sim_cmd("parts")["parts"]
            if t["state"] == "lying" and setup.x <= t["x"] <= x1 and setup.y <= t["y"] <= y1]


def turn_board_over(machine, setup):
    """What a person does with the real board; here the placed parts, which are recorded by now, leave the holder."""
    machine.sim_cmd(f"remove_parts {setup.x} {setup.y} {setup.x + setup.width} {setup.y + setup.height}")


def print_table(found, extra):
    print(f"\n{'part':<6}{'value':<13}{'side':<8}{'wanted x, y, rotation':>28}{'found':>28}{'dx':>9}{'dy':>8}{'drot':>8}")
    for f in found:
        p = f.placement
        line = f"{p.part.ref:<6}{p.part.value:<13}{p.part.side:<8}{p.x:11.3f}{p.y:9.3f}{p.rotation % 360:8.2f}"
        if f.thing:
            dx, dy, turn = f.error
            line += f"{f.thing['x']:11.3f}{f.thing['y']:9.3f}{f.thing['rot'] % 360:8.2f}{dx:9.4f}{dy:8.4f}{turn:8.3f}"
        print(line + ("" if f.agrees else "   WRONG" if f.thing else "   MISSING"))
    for t in extra:
        print(f"{t['id']} lies at {t['x']:.3f} {t['y']:.3f} and nobody asked for it   WRONG")


def run_job(machine, plan, setup, retries, faults):
    """Homes, places both sides, and returns (found, extra, seconds of each placement)."""
    client = job.Client(machine.url)
    t0 = time.monotonic()
    client.post("motion/home", {})
    print(f"homed in {time.monotonic() - t0:.1f} s")

    def before(index, placement):
        if faults and index % FAULT_EVERY == FAULT_EVERY - 1:
            machine.sim_cmd("fault no_stick 1")

    found, extra, seconds = [], [], []
    for side in ("top", "bottom"):
        placements = [p for p in plan if p.part.side == side]
        if not placements:
            continue
        print(f"{side} side, {len(placements)} parts")
        seconds += job.run_side(client, plan, side, retries, before)
        side_found, side_extra = compare(placements, parts_on_board(machine, setup))
        found += side_found
        extra += side_extra
        if side == "top":
            print("board turned over")
            turn_board_over(machine, setup)
    return found, extra, seconds


def report(machine, found, extra, seconds, faults):
    """Prints the comparison; True when everything is as the file wants it."""
    print_table(found, extra)
    agreed = sum(f.agrees for f in found)
    retries = len(machine.events("no_stick"))
    crashes = machine.sim_cmd("status")["crashes"]
    print(f"\n{agreed} of {len(found)} parts lie where the file wants them (within {TOLERANCE_MM} mm and {TOLERANCE_DEG:g} degree)")
    print(f"{sum(seconds) / len(seconds):.2f} s a placement on average, {min(seconds):.2f} to {max(seconds):.2f} s; "
          f"{retries} picks failed and were tried again, {crashes} crashes")
    return agreed == len(found) and not extra and crashes == 0 and (retries > 0) == faults


def stay(machine):
    print(f"\nThe machine stays. Klipper's files are in {machine.dir}, Moonraker is http://127.0.0.1:{machine.moonraker_port}. Try:\n"
          f"  curl -s {machine.url}/api/v1/position\n"
          f"  curl -s {machine.url}/api/v1/motion/move -d '{{\"x\": 100, \"y\": 80, \"feedrate\": 6000}}'\n"
          "Ctrl-C ends it.", flush=True)
    while all(part.alive for part in machine.parts):
        time.sleep(0.2)
    raise rig.RigError("a part of the machine has ended\n" + machine.log_tails())


def arguments():
    args = argparse.ArgumentParser(prog="scripts/demo", description="Places the parts of a KiCad position file on the simulated machine.")
    args.add_argument("file", nargs="?", type=Path, default=rig.DEMO_CFG / "blinker-all.pos", help="a KiCad .pos or .csv file")
    args.add_argument("--faults", action="store_true", help="some parts do not stick at first")
    args.add_argument("--stay", action="store_true", help="leave the machine running at the end")
    args.add_argument("--board", metavar="LEFT,BOTTOM,WIDTH,HEIGHT", help="the board's outline in the file's coordinates, mm")
    args = args.parse_args()
    if args.board:
        try:
            args.board = kicad.Board(*(float(v) for v in args.board.split(",")))
        except (ValueError, TypeError):
            sys.exit("demo: --board wants four numbers: LEFT,BOTTOM,WIDTH,HEIGHT")
    return args


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0 if args.stay else 143))
    try:
        setup = job.read_setup(rig.DEMO_CFG / "job.cfg")
        plan, board = job.load(args.file, rig.DEMO_CFG / "klipperplace.cfg", rig.DEMO_CFG / "job.cfg", args.board)
        print(f"{args.file.name}: {len(plan)} parts, board {board.width:g} x {board.height:g} mm")
        t0 = time.monotonic()
        with rig.Rig() as machine:
            print(f"machine ready after {time.monotonic() - t0:.1f} s: {machine.url}")
            result = run_job(machine, plan, setup, 2, args.faults)
            good = report(machine, *result, args.faults)
            if args.stay:
                stay(machine)
    except (job.JobError, kicad.FileError, rig.RigError, OSError) as e:
        sys.exit(f"demo: {e}")
    except KeyboardInterrupt:
        sys.exit(0 if args.stay else 130)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    main()
