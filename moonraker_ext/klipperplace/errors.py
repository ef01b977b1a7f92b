# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors as Moonraker tells them: libkp's code at the head of the text, the rest as data where the transport has room for it."""
from . import _kp

# Over HTTP a text is the status line's reason: Tornado shows "Unknown" for what has no place there.
PLAIN = {ord("<"): "(", ord(">"): ")", **{c: " " for c in range(32)}, 127: " "}


def plain(text):
    return text.translate(PLAIN).encode("latin-1", "replace").decode("latin-1")


def make(server, code, status, message, **data):
    """A server error with this code. Moonraker 0.10 and later hand `data` on over JSON-RPC; older ones tell the text alone."""
    text = plain(f"{code}: {message}")
    try:
        from ...utils.exceptions import AgentError
        e = AgentError(text, {"error_code": code, **data})
        e.status_code = status
        return e
    except (ImportError, TypeError):
        return server.error(text, status)


def of(server, e):
    """The server error for one of libkp's."""
    assert isinstance(e, _kp.Error)
    details = {k: getattr(e, k) for k in ("field", "got", "min", "max") if getattr(e, k) is not None}
    return make(server, e.code, e.status, e.message, **details, errors=e.errors)
