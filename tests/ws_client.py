# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of /ws/v1 for the tests and benchmarks, on the PyPI library `websockets`, which is not ours.

Invariant: `state[kind]` is the first message of a kind with every later one applied by RFC 7396, and nothing else.
"""
import contextlib
import itertools
import json
import socket
import time

from websockets.frames import Frame, Opcode
from websockets.sync.client import connect

KINDS = {"position": "notify_position_update", "sensors": "notify_sensor_update", "queue": "notify_queue_update",
         "status": "notify_status_update", "gpio": "notify_gpio_update", "actuators": "notify_actuators_update",
         "safety": "notify_safety_event"}
KIND_OF = {method: kind for kind, method in KINDS.items()}


def merge_patch(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


def without_times(value):
    """What is left of a state when the times in it, which change with every push, are taken out, and what is null, which a patch cannot tell."""
    if not isinstance(value, dict):
        return value
    return {k: without_times(v) for k, v in value.items() if v is not None and k not in ("timestamp", "last_updated", "last_heartbeat")}


class RpcFailed(Exception):
    """The response was an error."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code, self.data = error["code"], error.get("data")


class Client:
    """One session. Whatever comes while it waits for something else is kept in `told` and folded into `state`."""

    def __init__(self, machine, query="", url=None, **options):
        """url: another way to the machine's /ws/v1 than its own port."""
        options.setdefault("additional_headers", {"X-API-Key": machine.key} if machine.key else {})
        self.context = contextlib.ExitStack()
        self.ws = self.context.enter_context(connect(url or f"ws://127.0.0.1:{machine.port}/ws/v1{query}", compression=None, **options))
        self.ids = itertools.count(1)
        self.told, self.state, self.responses = [], {}, {}
        self.hello = json.loads(self.ws.recv(timeout=30))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.context.close()

    def _take(self, timeout):
        message = json.loads(self.ws.recv(timeout=timeout))
        if isinstance(message, dict) and "method" in message:
            kind, params = KIND_OF[message["method"]], message["params"]
            self.told.append((kind, params))
            self.state[kind] = merge_patch(self.state.get(kind), params)
            return None
        return message

    def read(self, timeout=30.0):
        """The next message that is no notification."""
        deadline = time.monotonic() + timeout
        while True:
            message = self._take(max(0.0, deadline - time.monotonic()))
            if message is not None:
                return message

    def send(self, method, params=None, number=None):
        number = next(self.ids) if number is None else number
        request = {"jsonrpc": "2.0", "id": number, "method": method}
        if params is not None:
            request["params"] = params
        self.ws.send(json.dumps(request))
        return number

    def answer(self, number, timeout=60.0):
        """The result of a request that was sent; an error is raised."""
        while number not in self.responses:
            message = self.read(timeout)
            self.responses[message["id"]] = message
        message = self.responses.pop(number)
        assert message["jsonrpc"] == "2.0" and ("error" in message) != ("result" in message), message
        if "error" in message:
            raise RpcFailed(message["error"])
        return message["result"]

    def ask(self, method, params=None, timeout=60.0):
        return self.answer(self.send(method, params), timeout)

    def execute(self, name, /, **parameters):
        """The envelope of a success."""
        return self.ask("execute", {"command": name, "parameters": parameters})

    def subscribe(self, *kinds):
        """Subscribes and waits for the full state of each."""
        for kind in kinds:
            self.state.pop(kind, None)
        result = self.ask("subscribe", {"events": list(kinds)})
        self.until(lambda: all(kind in self.state for kind in kinds))
        return result

    def until(self, ready, timeout=30.0):
        """Takes messages until ready()."""
        deadline = time.monotonic() + timeout
        while not ready():
            assert time.monotonic() < deadline, f"not within {timeout:g} s; state {self.state}"
            try:
                message = self._take(0.3)
                if message is not None:
                    self.responses[message["id"]] = message
            except TimeoutError:
                pass

    def drain(self, seconds):
        """Takes what comes in that time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                message = self._take(left)
                if message is not None:
                    self.responses[message["id"]] = message
            except TimeoutError:
                pass


# ---- bytes ---------------------------------------------------------------------------------------------------------------

GOOD = ["Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]


def frame(opcode, data):
    """A client's frame."""
    return Frame(opcode, data).serialize(mask=True)


class Raw:
    """A session whose socket is read only when it is told to, with a small buffer of its own."""

    def __init__(self, machine, receive_buffer=4096):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(20)
        self.socket.connect(("127.0.0.1", machine.port))
        self.socket.sendall("\r\n".join(["GET /ws/v1 HTTP/1.1", "Host: 127.0.0.1", *GOOD, "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.socket.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        self.code, self.bytes, self.count = None, 0, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, method, params=None):
        self.count += 1
        self.socket.sendall(frame(Opcode.TEXT, json.dumps({"jsonrpc": "2.0", "id": self.count, "method": method, "params": params or {}}).encode()))

    def subscribe_all(self):
        """Subscribes to everything and takes the full state of each kind."""
        self.send("subscribe", {"events": list(KINDS)})
        left = set(KINDS.values())
        self.messages(lambda m: left.discard(m.get("method")) or not left)

    def clog(self):
        """Subscribes to everything, and asks for more than the sockets hold but less than the server lets wait."""
        self.send("subscribe", {"events": list(KINDS)})
        for _ in range(70):
            self.send("get_status")

    def messages(self, enough=lambda m: False):
        """Reads until a message is enough, or the session ends: its close code is then in `code`."""
        f, out = self.socket.makefile("rb"), []
        while self.code is None:
            opcode, size = f.read(2)
            size = int.from_bytes(f.read(2 if size == 126 else 8)) if size > 125 else size
            opcode, data = opcode & 15, f.read(size)
            self.bytes += size
            if opcode == Opcode.CLOSE:
                self.code = int.from_bytes(data[:2])
            elif opcode == Opcode.TEXT:
                out.append(json.loads(data))
                if enough(out[-1]):
                    break
        return out
