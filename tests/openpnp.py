# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenPnP as the G-code port sees it: a client for lines, streams like those of its drivers, and the configuration that fits them.

For the system tests and the benchmarks. Written from what OpenPnP's drivers are known to send; OpenPnP itself is not here.
"""
import re
import socket
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
CONFIG = (REPO / "klipper_cfg" / "openpnp" / "klipperplace.cfg").read_text()


class Lines:
    """A connection to the port."""

    def __init__(self, machine, timeout=30.0):
        self.sock = socket.create_connection(("127.0.0.1", machine.gcode_port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buf = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, text):
        self.sock.sendall(text.encode() if isinstance(text, str) else text)

    def line(self, timeout=30.0):
        """The next reply without its end; None when the other side has closed."""
        self.sock.settimeout(timeout)
        while b"\n" not in self.buf:
            data = self.sock.recv(65536)
            if not data:
                return None
            self.buf += data
        line, self.buf = self.buf.split(b"\n", 1)
        return line.decode()

    def ask(self, text, timeout=60.0):
        """One line, and its replies up to the last: an ok of any kind, or an error."""
        self.send(text + "\n")
        return self.replies(1, timeout)

    def replies(self, count, timeout=60.0):
        """Replies until so many lines have been answered."""
        out, deadline = [], time.monotonic() + timeout
        while count:
            line = self.line(max(0.1, deadline - time.monotonic()))
            assert line is not None, f"closed after {out}"
            out.append(line)
            count -= line.startswith(("ok", "!!"))
        return out


def compress(line):
    """As OpenPnP's option "compress G-code" does: comments and blanks go."""
    return re.sub(r"\s+|;.*|\([^)]*\)", "", line)


def stream(client, lines, ahead):
    """All replies. ahead: as the asynchronous driver, which waits for nothing but reports."""
    out, owed = [], 0
    for line in lines:
        client.send(line + "\n")
        owed += 1
        if not ahead or line.startswith(("M114", "M105")):
            out += client.replies(owed)
            owed = 0
    return out + client.replies(owed)


MOVE = "M204 S8082.0000 G1 {} F48493.0000 ; move to target"


def barrier():
    return ["M400 ; wait for moves to complete before returning", "M114 ; get position"]


def placement(pick, place, angle, above=-20, down=-31, board=-29.9):
    """One part by nozzle 1 with a look at it from below: 10 moves, each with its barrier, 3 reads, 5 actuations. x, y in mm, angle in degrees."""
    def move(**axes):
        return [MOVE.format(" ".join(f"{k.upper()}{v:.4f}" for k, v in axes.items())), *barrier()]
    return [
        *move(x=pick[0], y=pick[1]), "M802 ; pump on", *move(z=down), "M800 ; valve open", "G4 P400 ; dwell", "M105 ; read vacuum", *move(z=above),
        *move(x=200, y=100, a=angle / 2), "M820 S255 ; light", *move(a=angle), "M820 S0", "M105",
        *move(x=place[0], y=place[1]), *move(z=board), "M801 ; valve shut", "G4 P400", "M105",
        *move(z=above), *move(a=0), *move(x=150, y=120),
    ]


START = ["G21 ; Set millimeters mode", "G90 ; Set absolute positioning mode", "M82 ; Set absolute mode for extruder"]


def read_golden(path):
    """A golden file: `> LINE` is sent, `< LINE` comes back, `# ...` is a comment. [(line, [replies])]"""
    out = []
    for text in path.read_text().splitlines():
        if text.startswith("> "):
            out.append((text[2:], []))
        elif text.startswith("< "):
            out[-1][1].append(text[2:])
        else:
            assert not text or text.startswith("#"), f"{path}: {text}"
    return out
