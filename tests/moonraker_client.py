# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of Moonraker for the tests of the component: JSON-RPC on a connection that stays, by unix socket or WebSocket, with the notifications that came.

Invariant: a notification is kept in the order of its arrival, whatever was asked meanwhile.
"""
import base64
import http.client
import json
import os
import socket
import struct
import time
import urllib.parse

import rig


class Unix:
    """Messages ended by 0x03."""

    def __init__(self, machine):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(str(machine.moonraker_socket))
        self.buf = b""

    def send(self, text):
        self.s.sendall(text.encode() + b"\x03")

    def receive(self, timeout):
        self.s.settimeout(max(timeout, 0.001))
        while b"\x03" not in self.buf:
            data = self.s.recv(65536)
            if not data:
                raise ConnectionError("Moonraker closed the connection")
            self.buf += data
        line, self.buf = self.buf.split(b"\x03", 1)
        return line.decode()

    def close(self):
        self.s.close()


class WebSocket:
    """Text frames of RFC 6455, pings answered."""

    def __init__(self, machine, port=None, path="/websocket"):
        port = port or machine.moonraker_port
        self.s = socket.create_connection(("127.0.0.1", port), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        self.s.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                       "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        self.buf = b""
        while b"\r\n\r\n" not in self.buf:
            self.buf += self.s.recv(4096)
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        assert b" 101 " in head.splitlines()[0], head

    def frame(self, opcode, data):
        mask = os.urandom(4)
        n = len(data)
        size = bytes([0x80 | n]) if n < 126 else bytes([0x80 | 126]) + struct.pack(">H", n) if n < 65536 else bytes([0x80 | 127]) + struct.pack(">Q", n)
        self.s.sendall(bytes([0x80 | opcode]) + size + mask + bytes(b ^ mask[i & 3] for i, b in enumerate(data)))

    def send(self, text):
        self.frame(1, text.encode())

    def take(self, n):
        while len(self.buf) < n:
            data = self.s.recv(65536)
            if not data:
                raise ConnectionError("Moonraker closed the connection")
            self.buf += data
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def receive(self, timeout):
        self.s.settimeout(max(timeout, 0.001))
        while True:
            head = self.take(2)
            n = head[1] & 127
            if n > 125:
                n = struct.unpack(">H" if n == 126 else ">Q", self.take(2 if n == 126 else 8))[0]
            data = self.take(n)
            if head[0] & 15 == 9:
                self.frame(10, data)
            elif head[0] & 15 == 1:
                return data.decode()

    def close(self):
        self.s.close()


class Client:
    """call() raises rig.RpcError for an error; notifications are in `heard`, [method, params]."""

    def __init__(self, machine, kind=Unix):
        self.link, self.last, self.heard = kind(machine), 0, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.link.close()

    def _take(self, timeout):
        message = json.loads(self.link.receive(timeout))
        if "method" in message:
            self.heard.append((message["method"], message.get("params")))
            return None
        return message

    def call(self, method, params=None, timeout=30.0):
        self.last += 1
        self.link.send(json.dumps({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params or {}}))
        deadline = time.monotonic() + timeout
        while True:
            message = self._take(deadline - time.monotonic())
            if message and message.get("id") == self.last:
                if "error" in message:
                    raise rig.RpcError(message["error"])
                return message["result"]

    def listen(self, seconds):
        """Takes what comes for so long."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                self._take(left)
            except (socket.timeout, BlockingIOError):
                return

    def wait_for(self, method, accept=lambda params: True, timeout=30.0):
        """The params object of the first such notification, None where it has none, old ones first; it is forgotten, and those of its name before it."""
        deadline = time.monotonic() + timeout
        while True:
            for i, (name, params) in enumerate(self.heard):
                told = params[0] if params else None
                if name == method and accept(told):
                    self.heard = [h for h in self.heard[:i] if h[0] != method] + self.heard[i + 1:]
                    return told
            left = deadline - time.monotonic()
            assert left > 0, f"no {method} within {timeout:g} s: {self.heard}"
            try:
                self._take(left)
            except socket.timeout:
                pass

    def wait_for_line(self, line, timeout=30.0):
        """Waits for a console line that begins so."""
        deadline = time.monotonic() + timeout
        while not any(m == "notify_gcode_response" and p[0].startswith(line) for m, p in self.heard):
            assert time.monotonic() < deadline, [p for m, p in self.heard if m == "notify_gcode_response"]
            self.listen(0.05)


def http_call(machine, method, path, params=None, body=None, timeout=30.0):
    """A request to Moonraker's HTTP: (status, result or error)."""
    conn = http.client.HTTPConnection("127.0.0.1", machine.moonraker_port, timeout=timeout)
    try:
        query = "?" + urllib.parse.urlencode(params) if params else ""
        if body is None:
            conn.request(method, path + query)
        else:
            conn.request(method, path + query, body if isinstance(body, (str, bytes)) else json.dumps(body), {"Content-Type": "application/json"})
        answer = conn.getresponse()
        text = answer.read().decode()
    finally:
        conn.close()
    try:
        data = json.loads(text)
    except ValueError:
        return answer.status, text
    return answer.status, data.get("result", data.get("error")) if isinstance(data, dict) else data
