# SPDX-License-Identifier: GPL-3.0-or-later
"""Manual steppers that are joined to moves (GCODE_AXIS), for __init__.py: where they stand, which some Klippers show nowhere, and an M114 that bears them.

Invariant: moves and joins nothing; what is not as we know it is left out or makes the part stay off.
"""
from . import known


class Axes:
    def __init__(self, printer):
        self.printer = printer

    def start(self):
        """M114 of Kalico, and of Klipper until January 2026, fails when there are such axes, and the machine is shut down: it gets what it can print."""
        gcode_move = self.printer.lookup_object("gcode_move")
        known.check(gcode_move, known.GCODE_MOVE)
        if known.fingerprint(type(gcode_move).cmd_M114) in known.M114_WHOLE:
            return
        whole = gcode_move._get_gcode_position
        gcode_move._get_gcode_position = lambda: whole()[:4]

    def get_status(self):
        """stands: {name: mm or degrees, where it was last sent}; joined: {name: its letter, or nothing}."""
        stands, joined = {}, {}
        toolhead = self.printer.lookup_object("toolhead", None)
        for section, stepper in self.printer.lookup_objects(module="manual_stepper"):
            name = section.split()[-1]
            try:
                letter = getattr(stepper, "axis_gcode_id", None) or ""
                if letter:
                    stands[name] = toolhead.get_position()[toolhead.get_extra_axes().index(stepper)]
                else:
                    stands[name] = stepper.get_position()[0]
                joined[name] = letter
            except Exception:
                stands.pop(name, None)  # another Klipper: nothing is said of it
        return {"stands": stands, "joined": joined}
