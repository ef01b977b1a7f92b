# SPDX-License-Identifier: GPL-3.0-or-later
"""scripts/bench: runs groups of benchmarks and prints one FIGURE line a figure.

Each group is a file group_<name>.py with FIGURES (rows of report.Figure) and a class Bench(report): a context whose parts() are
pairs of a function and the names of the figures that it gives. Invariant: a figure is printed once or not at all; why not
goes to stderr, and the exit code is then 1.
"""
import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import report  # noqa: E402
import rig  # noqa: E402
from measure import NotMeasured  # noqa: E402

FAILURES = (NotMeasured, rig.RigError, rig.RpcError, OSError, AssertionError)  # the last: of what the tests share with us


def groups():
    return sorted(p.stem.removeprefix("group_") for p in HERE.glob("group_*.py"))


def options():
    names = groups()
    p = argparse.ArgumentParser(prog="scripts/bench", description="Measures the release build on this machine; one FIGURE line a figure.")
    p.add_argument("group", nargs="*", metavar="GROUP", help=f"what to measure: {', '.join(names)} (default: all)")
    p.add_argument("--quick", action="store_true", help="short rounds: to see that it works, not to compare")
    p.add_argument("--write", action="store_true", help="put the run into docs/performance.md")
    o = p.parse_args()
    unknown = [g for g in o.group if g not in names]
    if unknown:
        p.error(f"no such group: {', '.join(unknown)}")
    if o.quick and o.write:
        p.error("--write needs whole rounds, without --quick")
    return o


def run_group(name, quick):
    """Runs every part of a group; one that fails does not keep the others from being measured."""
    group = importlib.import_module(f"group_{name}")
    r = report.Report(name, group.FIGURES, quick)
    try:
        with group.Bench(r) as bench:
            for part, figures in bench.parts():
                try:
                    part()
                except FAILURES as e:
                    r.not_measured([f for f in figures if f not in r.values], e)
    except FAILURES as e:
        r.failed(e)
    return r


def main():
    o = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = " ".join([*["KLIPPY=<klippy.py>"] * ("KLIPPY" in os.environ), "scripts/bench", *o.group, *["--write"] * o.write])
    complete = True
    for name in o.group or groups():
        print(f"group {name}", flush=True)
        r = run_group(name, o.quick)
        complete = complete and r.complete
        if o.write:
            report.write_doc(r, command)
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
