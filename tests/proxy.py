# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before Moonraker that counts what the shim asks, and that can be a bad line, for tests and benchmarks.

Invariant: unless it is told to be a bad line, all bytes go through unchanged and in order, but for the requests that `take` took.
"""
import collections
import contextlib
import json
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

import rig

UP, DOWN = "up", "down"  # from the shim to Moonraker, and back
LINGER_0 = struct.pack("ii", 1, 0)  # TCP: closing is a reset


class Line:
    """One connection: two sockets, and the directions whose bytes are lost. What lost bytes is lost for good, its end too, as behind a broken router."""

    def __init__(self, client, server):
        self.ends = {UP: (client, server), DOWN: (server, client)}
        self.lost = set()

    def close(self, reset=False):
        for s in self.ends[UP]:
            with contextlib.suppress(OSError):
                if reset and s.family == socket.AF_INET:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
                    s.shutdown(socket.SHUT_RD)  # or the other thread's recv keeps it open
                else:
                    s.shutdown(socket.SHUT_RDWR)
            s.close()


class CountingProxy:
    """Stands on a unix socket, or a loopback port, before another one and passes all bytes on. On a unix socket it counts the requests of the client's side
    by method with the time of each (CLOCK_MONOTONIC), and keeps the scripts among them in order. As a bad line: `delay_s` holds each piece that long, `open`
    False closes new connections at once; swallow() and cut()."""

    def __init__(self, listen, upstream):
        """listen: a path or a port. upstream: a function that gives one."""
        self.listen, self.upstream = listen, upstream
        self.methods = collections.Counter()
        self.times = collections.defaultdict(list)
        self.scripts = []
        self.delay_s, self.open = 0.0, True
        self.swallows, self.lines = frozenset(), set()
        family, address = self._address(listen)
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(address)
        self.listener.listen(16)

    @staticmethod
    def _address(where):
        return (socket.AF_INET, ("127.0.0.1", where)) if isinstance(where, int) else (socket.AF_UNIX, str(where))

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
        if not isinstance(self.listen, int):
            Path(self.listen).unlink(missing_ok=True)

    # -- a bad line

    def swallow(self, *directions):
        """From now on the bytes of these directions are lost, on the connections that are there and on new ones, until swallow() without any. Connections that
        were there stay dead even then: only cut() or their client ends them."""
        self.swallows = frozenset(directions)
        for line in list(self.lines):
            line.lost |= self.swallows

    def cut(self):
        """Breaks the connections that there are; by a reset where it is TCP."""
        for line in list(self.lines):
            line.close(reset=True)

    @contextlib.contextmanager
    def away(self):
        """No connection goes through."""
        self.open = False
        self.cut()
        try:
            yield
        finally:
            self.open = True

    def take(self, client, frame):  # pylint: disable=unused-argument
        """True keeps a request on a unix socket from Moonraker; whoever overrides this may answer it to client."""
        return False

    # -- bytes

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                client.close()
                continue
            family, address = self._address(self.upstream())
            server = socket.socket(family)
            try:
                server.connect(address)
            except OSError:  # Moonraker does not serve yet: the client tries again
                client.close()
                continue
            line = Line(client, server)
            line.lost |= self.swallows
            self.lines.add(line)
            for direction in (UP, DOWN):
                threading.Thread(target=self._pump, args=(line, direction), daemon=True).start()

    def _pump(self, line, direction):
        source, sink = line.ends[direction]
        asks = direction == UP and source.family == socket.AF_UNIX
        rest = b""
        try:
            while data := source.recv(65536):
                if self.delay_s:
                    time.sleep(self.delay_s)
                if direction in line.lost:
                    continue
                if asks:
                    *frames, rest = (rest + data).split(b"\x03")
                    self._count(frames)
                    data = b"".join(frame + b"\x03" for frame in frames if not self.take(source, frame))
                sink.sendall(data)
        except OSError:
            pass
        if direction == UP or DOWN not in line.lost:
            line.close()
            self.lines.discard(line)

    def _count(self, frames):
        at = time.monotonic()
        for frame in frames:
            request = json.loads(frame)
            self.times[request.get("method", "?")].append(at)
            self.methods[request.get("method", "?")] += 1
            if request.get("method") == "printer.gcode.script":
                self.scripts.append(request["params"]["script"])


@contextlib.contextmanager
def proxied_rig(kind=CountingProxy, *, websocket=False, klipperplace_extra="", **options):
    """A running machine whose shim reaches Moonraker through a proxy of this kind, by unix socket or by WebSocket: both. options: as of rig.Rig."""
    with tempfile.TemporaryDirectory(prefix="kp-proxy-", dir="/tmp") as folder:
        listen = rig.free_port() if websocket else Path(folder) / "moonraker.sock"
        with kind(listen, lambda: machine.moonraker_port if websocket else machine.moonraker_socket) as proxy:
            way = f"[api]\nmoonraker_port: {listen}\n" if websocket else f"[api]\nmoonraker_socket: {listen}\n"
            machine = rig.Rig(websocket=websocket, klipperplace_extra=way + klipperplace_extra, **options)
            with machine:
                yield machine, proxy
