# SPDX-License-Identifier: GPL-3.0-or-later
"""Emergency stops under load, for the tests and scripts/bench: 64 REST clients, 50 WebSockets and a full queue, a machine in motion, a stop.

Invariant: times are CLOCK_MONOTONIC, which the simulated machine's log has too; a trial's last step is what that log says, not what anybody answered.
"""
import http.client
import json
import random
import socket
import sys
import threading
import time
from dataclasses import dataclass

from rig_process import Process
from ws_client import Raw

REST_CLIENTS, WEBSOCKETS, QUEUE = 64, 50, 1000
BATCH = 100
IDLE_S = 0.05  # of a connection before the stop: accepting it must not be what wakes the other side
NEAR_MM, FAR_MM, FEEDRATE = 20, 250, 3000  # 4.6 s of motion


@dataclass
class Trial:
    """Seconds from the request."""
    written: float    # until our stop is on Moonraker's socket; None: nobody looked there
    last_step: float
    asked: float      # the time of the request
    by: str           # who confirmed it


class Load:
    """Clients that ask again as soon as they are answered, WebSockets subscribed to everything, and a queue as full as it goes."""

    def __init__(self, machine):
        self.machine, self.end = machine, threading.Event()
        self.script = machine.dir / "load.py"
        self.script.write_text(READER)
        self.process = Process(machine.dir, "load", [sys.executable, self.script, machine.port, REST_CLIENTS])
        self.process.start()
        self.sessions = [Raw(machine) for _ in range(WEBSOCKETS)]
        for s in self.sessions:
            s.send("subscribe", {"events": ["position", "sensors", "queue", "status", "gpio", "actuators", "safety"]})
        self.drain = threading.Thread(target=self._drain, daemon=True)
        self.drain.start()

    def _drain(self):
        for s in self.sessions:
            s.socket.settimeout(0.01)
        while not self.end.is_set():
            for s in self.sessions:
                try:
                    s.socket.recv(1 << 20)
                except TimeoutError:
                    pass
                except OSError:
                    return

    def close(self):
        self.end.set()
        self.drain.join(5)
        for s in self.sessions:
            s.socket.close()
        self.process.stop()


def ok(answer):
    assert answer[0] == 200, answer
    return answer[1]["data"]


def until(what, so):
    deadline = time.monotonic() + 30
    while not so():
        assert time.monotonic() < deadline, f"not within 30 s: {what}"
        time.sleep(0.01)


def ready(machine):
    """Reset, told where it stands, and in a motion that the full queue holds; every other entry waits."""
    ok(machine.post("/api/v1/system/reset", {}, timeout=40))
    machine.wait_klipper_ready(20)
    for name, mm in (("x", NEAR_MM), ("y", 50), ("z", -20)):
        machine.sim_cmd(f"place_axis {name} {mm}")
    enable = [f"SET_STEPPER_ENABLE STEPPER=stepper_{name} ENABLE=1" for name in "xyz"]
    machine.gcode("\n".join([*enable, f"SET_KINEMATIC_POSITION X={NEAR_MM} Y=50 Z=-20"]))
    ok(machine.request("DELETE", "/api/v1/queue/clear"))
    ok(machine.post("/api/v1/system/pause", {}))
    entry = {"command": "move", "parameters": {"x": FAR_MM, "feedrate": FEEDRATE, "wait": True}}
    for _ in range(QUEUE // BATCH):
        ok(machine.post("/api/v1/queue/batch", {"commands": [entry] * BATCH}))
    until("it is seen as homed", lambda: len(ok(machine.get("/api/v1/position"))["homed_axes"]) >= 3)
    before = machine.sim_cmd("steps x")["total_steps"]
    ok(machine.post("/api/v1/system/resume", {}))
    until("it moves", lambda: machine.sim_cmd("steps x")["total_steps"] != before)
    time.sleep(random.uniform(0.05, 0.5))


def last_step(machine):
    """When the last step was made, of a machine that has been told to stop."""
    until("the microcontroller has stopped", lambda: machine.sim_cmd("status")["mcu"]["shutdown"])
    return max(s["last_step_s"] for s in machine.sim_cmd("status")["steppers"].values())


def seen_stopped(machine):
    """Waits until the shim has heard of it by Moonraker: or a reset would find nothing to do."""
    until("the stop is seen", lambda: machine.get("/ready")[1]["klipper"] == "shutdown")


def stop(machine, relay=None, moonraker=True):
    """One trial by our REST interface. relay: before Moonraker's socket, knows the times of stops; None: nothing is there.
    moonraker False: it stands still (SIGSTOP) from before the request until the machine has stopped."""
    ready(machine)
    if not moonraker:
        until("Klipper's own socket is there", lambda: machine.get("/ready")[1]["emergency_stop_second_way"])
        machine.moonraker.pause()
    try:
        return ask_to_stop(machine, relay)
    finally:
        if not moonraker:
            machine.moonraker.resume()
            seen_stopped(machine)


STOP_BODY = b"{}"
STOP = b"POST /api/v1/system/emergency_stop HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(STOP_BODY), STOP_BODY)


def open_connection(machine, kept):
    """To our REST interface. kept: one that has been asked something before, as a program's would; else the stop is its first request."""
    c = socket.create_connection(("127.0.0.1", machine.port), 10)
    if kept:
        c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert read_answer(c)[0] == 200
    time.sleep(IDLE_S)
    return c


def read_answer(c):
    answer = http.client.HTTPResponse(c, method="POST")
    answer.begin()
    return answer.status, json.loads(answer.read())


def ask_to_stop(machine, relay):
    """The whole request goes in one piece: a time that its second half takes is none of ours."""
    def passed():
        return relay.times["printer.emergency_stop"] if relay else []
    with open_connection(machine, kept=random.random() < 0.5) as s:
        seen = len(passed())
        asked = time.monotonic()
        s.sendall(STOP)
        status, body = read_answer(s)
    assert status == 200 and body["data"]["emergency_stop_active"] is True, body
    last = last_step(machine)
    if relay:
        until("a stop went to Moonraker", lambda: len(passed()) > seen)
    return Trial(passed()[seen] - asked if relay else None, last - asked, asked, body["data"]["confirmed_by"])


def stop_directly(machine):
    """The same by Klipper's own socket, on a connection that is open already as well."""
    ready(machine)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(machine.klippy_socket))
        time.sleep(IDLE_S)
        asked = time.monotonic()
        s.sendall(json.dumps({"id": 1, "method": "emergency_stop"}).encode() + b"\x03")
        seen_stopped(machine)
    return Trial(None, last_step(machine) - asked, asked, "klipper")


# Its own process, so that the clients' work does not wait for ours.
READER = '''
import selectors, socket, sys
port, clients = int(sys.argv[1]), int(sys.argv[2])
paths = ["/api/v1/status", "/api/v1/gpio/read_all", "/api/v1/position", "/api/v1/sensor/read_all"]
selector = selectors.DefaultSelector()
def ask(c, i):
    c.sendall(f"GET {paths[i % 4]} HTTP/1.1\\\\r\\\\nHost: localhost\\\\r\\\\n\\\\r\\\\n".encode())
for i in range(clients):
    c = socket.create_connection(("127.0.0.1", port))
    selector.register(c, selectors.EVENT_READ, [i, b""])
    ask(c, i)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        data = key.fileobj.recv(1 << 16)
        if not data:
            sys.exit(0)
        key.data[1] += data
        head, _, body = key.data[1].partition(b"\\\\r\\\\n\\\\r\\\\n")
        length = [int(l.split(b":")[1]) for l in head.split(b"\\\\r\\\\n") if l.lower().startswith(b"content-length")]
        if length and len(body) >= length[0]:
            key.data[0] += 1
            key.data[1] = b""
            ask(key.fileobj, key.data[0])
'''.replace("\\\\", "\\")
