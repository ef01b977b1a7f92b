# SPDX-License-Identifier: GPL-3.0-or-later
"""What the extra expects of Klipper, for timing.py and live.py: the functions it relies on, by fingerprint, and their constants.

Invariant: a function that is not word for word one that was tried, or that somebody else has replaced, makes the part stay off.
"""
import hashlib
import inspect
import io
import sys
import textwrap
import tokenize
import types


class Unknown(Exception):
    """Klipper is not as we know it; the text says where."""


def fingerprint(function):
    """Of a function's words and structure; comments and layout do not count."""
    text = textwrap.dedent(inspect.getsource(function))
    words = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
            continue
        words.append(tokenize.tok_name[token.type] if token.type in (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE) else token.string)
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:16]


def module_of(obj):
    """The module that the object's class comes from: Klipper's modules have other names in Kalico."""
    return sys.modules[type(obj).__module__]


def check(obj, functions, constants=None):
    """Raises Unknown unless obj has exactly these functions {name: (fingerprint, ...)} and its module these constants {name: value}."""
    kind = type(obj)
    for name, prints in functions.items():
        function = kind.__dict__.get(name)
        where = "%s.%s.%s" % (kind.__module__, kind.__name__, name)
        if not isinstance(function, types.FunctionType):
            raise Unknown("%s is not there" % (where,))
        if name in getattr(obj, "__dict__", {}):
            raise Unknown("%s is replaced by another extra" % (where,))
        try:
            got = fingerprint(function)
        except (OSError, TypeError, SyntaxError, tokenize.TokenError):
            raise Unknown("%s cannot be read" % (where,))
        if got not in prints:
            raise Unknown("%s is not known (%s)" % (where, got))
    for name, value in (constants or {}).items():
        got = getattr(module_of(obj), name, None)
        if got != value:
            raise Unknown("%s.%s is %s, not %s" % (kind.__module__, name, got, value))


def with_constants(obj, name, constants):
    """Gives obj, and it alone, a copy of its method that sees these module constants. Returns the copy's own globals: setting a
    constant there changes it for the copy. Klipper's module stays as it is."""
    function = type(obj).__dict__[name]
    own = dict(function.__globals__)
    own.update(constants)
    copy = types.FunctionType(function.__code__, own, function.__name__, function.__defaults__, function.__closure__)
    copy.__kwdefaults__ = function.__kwdefaults__
    setattr(obj, name, types.MethodType(copy, obj))
    return own


# Mainline Klipper of August 2026 (84104bbbd).
KLIPPER_TOOLHEAD = {
    "_calc_print_time": ("6c041c409170d194",),
    "_process_lookahead": ("24164476b9f03df7",),
    "_flush_lookahead": ("c6a8414e5c4b36f1",),
    "get_last_move_time": ("8818673c72df9630",),
    "_check_pause": ("b9518eb326ce5283",),
    "_check_priming_state": ("ede0bc989fdcd310",),
    "_priming_handler": ("224bbd02d92b856f",),
    "_handle_step_flush": ("748bd993895e0d61",),
    "flush_step_generation": ("f3a659594b2be3c4",),
    "wait_moves": ("9b5cf8e5b7bee2eb",),
}
KLIPPER_QUEUING = {
    "calc_step_gen_restart": ("8774dd7a8c598fad",),
    "_flush_handler": ("d474226b536fb6ee",),
    "_advance_flush_time": ("1a0690deef0d192a",),
    "flush_all_steps": ("af34bf5ffdbae392",),
    "note_mcu_movequeue_activity": ("74a1561a2771877f",),
    "get_kin_flush_delay": ("3e04147e4309a3ec",),
}
KLIPPER_MANUAL = {
    "sync_print_time": ("b3f1c1a9a3ab1321",),
    "do_move": ("7db4c691a4746998",),
}
# gcode_move: mainline since January 2026 prints the first four numbers; before that, and in Kalico, it fails on more.
M114_WHOLE = ("3013279e324e0005",)
GCODE_MOVE = {
    "cmd_M114": M114_WHOLE + ("2e87e703eef6c444",),
    "_get_gcode_position": ("3777e5295ec2cde7", "879a9facf90592c0"),
}
# Kalico 2026.10.0.dev0.
KALICO_TOOLHEAD = {
    "_calc_print_time": ("7fed88219fc21043",),
    "_process_lookahead": ("243a012f4d992e6c",),
    "_flush_lookahead": ("fb36994d5da94ea4",),
    "get_last_move_time": ("8818673c72df9630",),
    "_check_pause": ("35cb5d556bad9816",),
    "_priming_handler": ("d633d81015fa432e",),
    "_flush_handler": ("396d58fa7ae59d5c",),
    "_advance_flush_time": ("16e9d9a267fda4e8",),
    "_advance_move_time": ("04e23d45bf244b80",),
    "flush_step_generation": ("16af57424394f5e5",),
    "note_mcu_movequeue_activity": ("6553d8a1a9c5654b",),
    "wait_moves": ("9b5cf8e5b7bee2eb",),
}
KALICO_MANUAL = {
    "sync_print_time": ("c29e8bf1a73b918d",),
    "do_move": ("9194e66cb2250c7e",),
}
