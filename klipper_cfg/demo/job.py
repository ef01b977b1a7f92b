# SPDX-License-Identifier: GPL-3.0-or-later
"""The job: places the parts of a KiCad position file by KlipperPlace's REST interface.

For the demo and as a start for a machine of one's own; it knows nothing of a simulation. Invariant: whatever can be seen to
be wrong (a part no feeder holds, a part beside the board) is told before anything moves.

    python3 job.py --url http://127.0.0.1:7180 FILE.pos
"""
import argparse
import configparser
import json
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import kicad

HERE = Path(__file__).resolve().parent
MARGIN = 5.0  # mm around the parts of a file whose board is not described


class JobError(Exception):
    """The job cannot be done, or the machine refused a command."""


@dataclass(frozen=True)
class Feeder:
    """[feeder] of klipperplace.cfg: what it holds, and where and how turned the next part lies."""
    name: str
    part: str
    pitch: float
    x: float
    y: float
    rotation: float


@dataclass(frozen=True)
class Nozzle:
    """[nozzle] of klipperplace.cfg and of job.cfg, as far as heights need it."""
    name: str
    direction: float
    tip: float

    def machine_z(self, tip_z):
        """The Z axis' position at which the tip is tip_z over the table. A nozzle on the other end of a seesaw sinks as Z grows."""
        return (tip_z - self.tip) * self.direction


@dataclass(frozen=True)
class Setup:
    """What job.cfg says: where a board lies, how large it may be, speed, outlines by project name, packages as pairs of
    thickness and height in the feeder, heights of the tips by nozzle."""
    x: float
    y: float
    z: float
    width: float
    height: float
    feedrate: float
    boards: dict
    packages: dict
    tips: dict


@dataclass(frozen=True)
class Placement:
    """One part, with all that is needed to place it: machine coordinates of the tip, mm and degrees; heights over the table."""
    part: kicad.Part
    feeder: Feeder
    nozzle: Nozzle
    x: float
    y: float
    rotation: float
    pick_z: float
    place_z: float
    feedrate: float

    def request(self, retries):
        turn = (self.rotation - self.feeder.rotation + 180.0) % 360.0 - 180.0
        return {
            "x": self.feeder.x, "y": self.feeder.y, "pick_height": round(self.nozzle.machine_z(self.pick_z), 6),
            "place_x": round(self.x, 6), "place_y": round(self.y, 6), "place_height": round(self.nozzle.machine_z(self.place_z), 6),
            "nozzle": self.nozzle.name, "rotation": round(turn, 6), "feedrate": self.feedrate, "retries": retries,
        }


# ---- configuration ---------------------------------------------------------------------------------------------------

def read_cfg(path):
    cfg = configparser.ConfigParser(delimiters=(":", "="), comment_prefixes=("#", ";"), inline_comment_prefixes=("#",),
                                    interpolation=None)
    with open(path, encoding="utf-8") as f:
        cfg.read_file(f)
    return cfg


def named(cfg, kind):
    """The sections `[kind NAME]` as (NAME, section), in the file's order."""
    return [(s.split(None, 1)[1], cfg[s]) for s in cfg.sections() if s.split(None, 1)[0] == kind and len(s.split(None, 1)) == 2]


def read_machine(path, setup):
    """Feeders and nozzles of a klipperplace.cfg; nozzles only as far as job.cfg knows their tips."""
    cfg = read_cfg(path)
    feeders = [Feeder(name, s["part"], s.getfloat("pitch"), s.getfloat("pick_x"), s.getfloat("pick_y"),
                      s.getfloat("pick_rotation", 0.0))
               for name, s in named(cfg, "feeder") if "part" in s]
    nozzles = [Nozzle(name, s.getfloat("z_direction", 1.0), setup.tips[name]) for name, s in named(cfg, "nozzle") if name in setup.tips]
    return feeders, nozzles


def read_setup(path):
    cfg = read_cfg(path)
    holder = cfg["holder"]
    boards = {name: kicad.Board(*(s.getfloat(k) for k in ("left", "bottom", "width", "height"))) for name, s in named(cfg, "board")}
    packages = {name: (s.getfloat("thickness"), s.getfloat("feeder_height")) for name, s in named(cfg, "package")}
    tips = {name: s.getfloat("tip") for name, s in named(cfg, "nozzle")}
    return Setup(*(holder.getfloat(k) for k in ("x", "y", "z", "width", "height")), cfg["speed"].getfloat("feedrate"), boards,
                 packages, tips)


# ---- the plan --------------------------------------------------------------------------------------------------------

def find_board(path, parts, setup):
    """The outline of the file's board: described in job.cfg under the project's name, else what holds all parts."""
    for name, board in setup.boards.items():
        if path.stem in (name, f"{name}-all", f"{name}-top", f"{name}-bottom", f"{name}-all-pos", f"{name}-top-pos", f"{name}-bottom-pos"):
            return board
    return kicad.around(parts, MARGIN)


def find_feeder(part, feeders):
    """The feeder that holds the part: its `part:` option is the part's value, else its package."""
    for wanted in (part.value, part.package):
        for feeder in feeders:
            if feeder.part.replace(" ", "_") == wanted.replace(" ", "_"):
                return feeder
    return None


def make_plan(parts, board, feeders, nozzles, setup):
    """The placements, top side first; nozzles take turns. All that is wrong is in one JobError."""
    faults, plan = [], []
    if not nozzles:
        raise JobError("klipperplace.cfg and job.cfg have no nozzle in common")
    if board.width > setup.width or board.height > setup.height:
        faults.append(f"the board is {board.width:g} x {board.height:g} mm, the holder takes {setup.width:g} x {setup.height:g} mm")
    for part in sorted(parts, key=lambda p: p.side != "top"):
        feeder = find_feeder(part, feeders)
        if not feeder:
            faults.append(f"{part.ref}: no feeder holds {part.value} ({part.package})")
        elif part.package not in setup.packages:
            faults.append(f"{part.ref}: job.cfg has no [package {part.package}]")
        else:
            try:
                x, y, rotation = kicad.on_board(part, board)
            except kicad.FileError as e:
                faults.append(str(e))
                continue
            thickness, feeder_height = setup.packages[part.package]
            plan.append(Placement(part, feeder, nozzles[len(plan) % len(nozzles)], setup.x + x, setup.y + y, rotation,
                                  feeder_height, setup.z + thickness, setup.feedrate))
    if faults:
        raise JobError("\n".join(faults))
    return plan


# ---- the machine -----------------------------------------------------------------------------------------------------

class Client:
    """KlipperPlace's REST interface."""

    def __init__(self, url):
        self.url = url.rstrip("/")

    def post(self, command, parameters):
        """Sends one command and returns its data; anything but success is a JobError."""
        request = urllib.request.Request(f"{self.url}/api/v1/{command}", json.dumps(parameters).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as e:
            try:
                body = json.load(e)
                raise JobError(f"{command}: {body['error_code']}: {body['error_message']}") from None
            except (ValueError, KeyError, TypeError):
                raise JobError(f"{command}: HTTP status {e.code}") from None
        except OSError as e:
            raise JobError(f"{command}: {e}") from None
        return body["data"]


def place(client, placement, retries):
    """Brings the next part and places it. Returns the machine's answer and the seconds it took."""
    started = time.monotonic()
    client.post("feeder/advance", {"feeder": placement.feeder.name, "distance": placement.feeder.pitch})
    data = client.post("pnp/pick_and_place", placement.request(retries))
    return data, time.monotonic() - started


def run_side(client, plan, side, retries, before=lambda index, placement: None):
    """Places the parts of one side, with a line for each. Returns the seconds of each placement."""
    seconds = []
    for index, p in enumerate(plan):
        if p.part.side != side:
            continue
        before(index, p)
        data, took = place(client, p, retries)
        seconds.append(took)
        attempts = data.get("attempts", 1)
        print(f"[{index + 1:3d}/{len(plan)}] {p.part.ref:<5} {p.part.value:<12} {p.part.package:<24} {p.feeder.name} {p.nozzle.name} -> "
              f"{p.x:8.3f} {p.y:8.3f} {p.rotation % 360:6.1f}  {took:5.2f} s" + (f"  {attempts} attempts" if attempts > 1 else ""), flush=True)
    return seconds


def load(path, klipperplace_cfg, job_cfg, board=None):
    """Everything that a job needs, checked: the plan and the outline it was made for."""
    setup = read_setup(job_cfg)
    feeders, nozzles = read_machine(klipperplace_cfg, setup)
    parts = kicad.read_positions(path)
    board = board or find_board(path, parts, setup)
    return make_plan(parts, board, feeders, nozzles, setup), board


def main():
    args = argparse.ArgumentParser(description="Places the parts of a KiCad position file.")
    args.add_argument("file", type=Path)
    args.add_argument("--url", default="http://127.0.0.1:7180")
    args.add_argument("--config", type=Path, default=HERE / "klipperplace.cfg")
    args.add_argument("--job", type=Path, default=HERE / "job.cfg")
    args.add_argument("--retries", type=int, default=2)
    args = args.parse_args()
    try:
        plan, _ = load(args.file, args.config, args.job)
        client = Client(args.url)
        client.post("motion/home", {})
        for side in ("top", "bottom"):
            if any(p.part.side == side for p in plan):
                input(f"Board in the holder, {side} side up? Press Enter. ")
                run_side(client, plan, side, args.retries)
    except (JobError, kicad.FileError, OSError) as e:
        sys.exit(f"job: {e}")


if __name__ == "__main__":
    main()
