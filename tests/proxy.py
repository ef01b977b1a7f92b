# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy before Moonraker's unix socket that counts what the shim asks, for tests and benchmarks. Invariant: all bytes go through unchanged and in order, but
for the requests that `take` took."""
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
        self.pairs, self.open = [], True
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
            if not self.open:
                client.close()
                continue
            try:
                server.connect(str(self.upstream()))
            except OSError:  # Moonraker does not serve yet: the client tries again
                client.close()
                continue
            self.pairs.append((client, server))
            for pair in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def take(self, client, frame):  # pylint: disable=unused-argument
        """True keeps a request from Moonraker; whoever overrides this may answer it to client."""
        return False

    def cut(self):
        """Breaks the connections that there are."""
        for client, server in self.pairs:
            for s in (client, server):
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
        self.pairs = []

    @contextlib.contextmanager
    def away(self):
        """No connection goes through."""
        self.open = False
        self.cut()
        try:
            yield
        finally:
            self.open = True

    def _pump(self, source, sink, asks):
        rest = b""
        try:
            while data := source.recv(65536):
                if asks:
                    *frames, rest = (rest + data).split(b"\x03")
                    self._count(frames)
                    data = b"".join(frame + b"\x03" for frame in frames if not self.take(source, frame))
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
def proxied_rig(kind=CountingProxy, **options):
    """A running machine of these options whose shim reaches Moonraker through a proxy: both."""
    with tempfile.TemporaryDirectory(prefix="kp-proxy-", dir="/tmp") as folder:
        path = Path(folder) / "moonraker.sock"
        with kind(path, lambda: machine.moonraker_socket) as proxy:
            machine = rig.Rig(klipperplace_extra=f"[api]\nmoonraker_socket: {path}", **options)
            with machine:
                yield machine, proxy
