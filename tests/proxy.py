# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before Moonraker's unix socket that counts what the shim asks, for tests and benchmarks. Invariant: all bytes go through unchanged and in order."""
import collections
import contextlib
import json
import socket
import tempfile
import threading
import time
from pathlib import Path

import rig


class CountingProxy:
    """Stands on a unix socket before another one, passes all bytes on, counts the requests of the client's side by method with the
    time of each (CLOCK_MONOTONIC), and keeps the scripts among them in order."""

    def __init__(self, path, upstream):
        self.path, self.upstream = path, upstream
        self.methods = collections.Counter()
        self.times = collections.defaultdict(list)
        self.scripts = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(16)

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()
        Path(self.path).unlink(missing_ok=True)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self.upstream()))
            except OSError:  # Moonraker does not serve yet: the client tries again
                client.close()
                continue
            for pair in ((client, server, self._count), (server, client, None)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source, sink, count):
        rest = b""
        try:
            while data := source.recv(65536):
                if count:
                    *frames, rest = (rest + data).split(b"\x03")
                    count(frames)
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _count(self, frames):
        at = time.monotonic()
        for frame in frames:
            request = json.loads(frame)
            self.times[request.get("method", "?")].append(at)
            self.methods[request.get("method", "?")] += 1
            if request.get("method") == "printer.gcode.script":
                self.scripts.append(request["params"]["script"])


@contextlib.contextmanager
def proxied_rig():
    """A running machine whose shim reaches Moonraker through a CountingProxy: both."""
    with tempfile.TemporaryDirectory(prefix="kp-proxy-", dir="/tmp") as folder:
        path = Path(folder) / "moonraker.sock"
        with CountingProxy(path, lambda: machine.moonraker_socket) as proxy:
            machine = rig.Rig(klipperplace_extra=f"[api]\nmoonraker_socket: {path}")
            with machine:
                yield machine, proxy
