# SPDX-License-Identifier: GPL-3.0-or-later
"""What the system tests share: the contract's envelope and codes, requests that run beside the test, and looks at the simulated machine.

For the tests in this folder. Invariant: whether the machine did something is read from the simulator or from Klipper, never from our own answer.
"""
import contextlib
import http.client
import itertools
import json
import resource
import socket
import subprocess
import sys
import threading
import time
import uuid

import rig
from moonraker_client import Client

BASE = "/api/v1/"
FAST = 12000  # mm/min, for moves whose speed does not matter
X_STEP = 0.0125  # mm, of world.txt
TIP = 32.0  # mm, of world.txt: height of both tips at Z 0
PART_MM, PART_DEG = 0.02, 1.0  # how exactly a part must lie
AT_ONCE_S = 4.0  # an answer that waits for nobody, on a very slow machine; less than any deadline of ours, the shortest is 5 s

# The error codes of the contract and their HTTP status.
CODES = {
    "INVALID_REQUEST": 400, "MISSING_PARAMETER": 400, "INVALID_PARAMETER": 400, "POSITION_OUT_OF_BOUNDS": 400, "FEEDRATE_OUT_OF_BOUNDS": 400,
    "PWM_OUT_OF_BOUNDS": 400, "FAN_SPEED_OUT_OF_BOUNDS": 400,
    "HOMING_REQUIRED": 400, "EXECUTION_FAILED": 500, "MOONRAKER_DISCONNECTED": 503, "KLIPPY_DISCONNECTED": 503,
    "EMERGENCY_STOP_ACTIVE": 503, "TIMEOUT": 504, "CANCELLED": 409, "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "PAYLOAD_TOO_LARGE": 413,
    "UNSUPPORTED_MEDIA_TYPE": 415, "PERMISSION_DENIED": 403, "PIN_NOT_FOUND": 404, "SENSOR_NOT_FOUND": 404, "FEEDER_NOT_FOUND": 404,
    "NOZZLE_NOT_FOUND": 404, "VACUUM_FAILED": 500, "INTERLOCK": 409, "OUTCOME_UNKNOWN": 502, "QUEUE_FULL": 429, "COMMAND_NOT_FOUND": 404,
    "INTERNAL_ERROR": 500, "DATABASE_UNAVAILABLE": 503, "AUTHORIZATION_REQUIRED": 401, "INVALID_API_KEY": 401, "AUTHENTICATION_FAILED": 401,
    "IP_BLOCKED": 429, "RATE_LIMIT_EXCEEDED": 429,
}

# A pin that Klipper refuses, as an interlock of the machine's owner would: KlipperPlace cannot know it beforehand.
REFUSING_PIN = """
[gcode_macro SET_PIN]
rename_existing: SET_PIN_BASE
variable_refused: ''
gcode:
    {% if params.PIN == refused %}
        {action_raise_error("SET_PIN of " ~ params.PIN ~ " refused")}
    {% endif %}
    SET_PIN_BASE {rawparams}
"""

# The second nozzle's vacuum as a sensor of the Klipper extra, for printer.cfg and klipperplace.cfg; what read it before gets a pin that nothing drives.
EXTRA_VACUUM = """
[klipperplace]
[temperature_sensor vacuum2]
sensor_pin: PE7
[pnp_sensor vac]
sensor_pin: PE1
report_time: {report_s}
unit: kPa
calibration:
    0.5, 0
    4.5, -90
valid_voltage: 0.2, 4.8
"""
EXTRA_VACUUM_OURS = """
[sensor vacuum2]
object: pnp_sensor vac
report_time: {report_s}
"""
EXTRA_VACUUM_WORLD = "adc spare pin=PE7 value=0.1"


# ---- requests ----------------------------------------------------------------------------------------------------------

def post(machine, command, body=None, **options):
    """POST /api/v1/COMMAND: (status, answer, headers)."""
    return machine.post(BASE + command, body, **options)


def get(machine, command, **options):
    return machine.get(BASE + command, **options)


def check_envelope(answer):
    """The parts that every answer under /api/v1 has. Returns its body."""
    status, body, headers = answer
    assert isinstance(body, dict), f"no JSON object: {status} {body!r}"
    assert headers["content-type"].split(";")[0] == "application/json"
    assert headers.get("x-request-id")
    assert body["status"] in ("success", "error", "partial", "timeout", "cancelled")
    assert isinstance(body["command"], str) and body["command"]
    assert uuid.UUID(body["command_id"]).version == 4
    assert isinstance(body["warnings"], list)
    assert abs(body["timestamp"] - time.time()) < 150
    if body["status"] in ("success", "partial"):
        assert status == 200 and isinstance(body["data"], dict)
        assert "error_code" not in body
    else:
        assert status >= 400
        assert isinstance(body["error_message"], str) and body["error_message"]
        assert isinstance(body["details"], dict)
        assert body["error_code"] in CODES
    return body


def ok(answer):
    """The data of a success."""
    body = check_envelope(answer)
    assert answer[0] == 200 and body["status"] == "success", body
    return body["data"]


def refused(answer, *codes):
    """The body of an error with one of the codes, and that code's HTTP status."""
    body = check_envelope(answer)
    assert body["status"] != "success", f"{' or '.join(codes)} wanted, got success: {body}"
    assert body["error_code"] in codes, body
    assert answer[0] == CODES[body["error_code"]], body
    wanted = {"TIMEOUT": "timeout", "CANCELLED": "cancelled"}.get(body["error_code"], "error")
    assert body["status"] == wanted, body
    return body


def fields(body):
    """The fields that details.errors names, with their codes."""
    return {e.get("field"): e["code"] for e in body["details"]["errors"]}


class Later:
    """A request that runs beside the test."""

    def __init__(self, call, *args, **options):
        self.result, self.error, self.t = None, None, None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._run, args=(call, args, options), daemon=True)
        self.thread.start()

    def _run(self, call, args, options):
        try:
            self.result = call(*args, **options)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e
        self.t = time.monotonic()

    @property
    def done(self):
        return self.t is not None

    def answer(self, timeout=60.0):
        """The answer; a request that hangs is a failure."""
        self.thread.join(timeout)
        assert self.done, f"no answer within {timeout:g} s"
        if self.error:
            raise self.error
        return self.result


def raw(machine, data, timeout=10.0, until=None):
    """Sends bytes on a connection of its own; what comes back until the other side closes, or `until` answers have come."""
    with socket.create_connection(("127.0.0.1", machine.port), timeout=timeout) as s:
        s.sendall(data)
        return read_answers(s, until)


def at_once(machine, *requests):
    """The answers (status, body) of requests that were all sent before the first was read, each on a connection of its own."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", machine.port), timeout=60)) for _ in requests]
        for s, request in zip(sockets, requests):
            s.sendall(request)
        return [(status, json.loads(body)) for s in sockets for status, _, body in read_answers(s, 1)]


def read_answers(s, count=None):
    """HTTP answers from a socket: [(status, headers, body bytes)], `count` of them or all until it closes."""
    f, out = s.makefile("rb"), []
    with contextlib.suppress(ConnectionResetError):
        while count is None or len(out) < count:
            line = f.readline()
            if not line:
                break
            status, headers = int(line.split()[1]), {}
            while (line := f.readline()) not in (b"\r\n", b"\n", b""):
                name, value = line.decode().split(":", 1)
                headers[name.strip().lower()] = value.strip()
            out.append((status, headers, f.read(int(headers.get("content-length", 0)))))
    return out


def http_text(method, path, body=b"", headers=()):
    """The bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def wait_for(what, ready, timeout=30.0, every=0.02):
    """Polls until ready() is true; returns what it returned. The time is that of a very slow machine, unless a bound is what a test shows."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException, rig.RpcError, KeyError, TypeError):
            found = ready()
            if found:
                return found
        assert time.monotonic() < deadline, f"{what}: not within {timeout:g} s"
        time.sleep(every)


def quickest(action, tries=10):
    """Seconds of the quickest of several. Other load makes some of them slow; what waits for something is slow each time."""
    seconds = []
    for _ in range(tries):
        began = time.monotonic()
        action()
        seconds.append(time.monotonic() - began)
    return min(seconds)


def pushes(machine, count=2):
    """Waits for so many further pushes of Klipper: what was on its way has been told."""
    seen = set()
    wait_for(f"{count} pushes", lambda: seen.add(ok(get(machine, "position"))["timestamp"]) or len(seen) > count)


STALLS = """
import glob, os, sys, time
folder, parent, pids, listed = sys.argv[1], os.getppid(), [], 0.0

def parts():
    for cmdline in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(cmdline, "rb") as f:
                if folder.encode() in f.read() and (pid := cmdline.split("/")[2]) != str(os.getpid()):
                    yield pid
        except OSError:
            pass

def waited():
    total = 0
    for pid in pids:
        for stat in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            try:
                with open(stat) as f:
                    total += int(f.read().split()[1])
            except OSError:
                pass
    return total / 1e9

print("ready", flush=True)
while os.getppid() == parent:
    t = time.monotonic()
    if t - listed > 1:
        pids, listed = list(parts()), t
    print(t, waited(), flush=True)
    time.sleep(0.004)
"""


class Stalls:
    """How long this machine lets the processes of a rig wait for a processor. That is the machine's time, not ours: on one that is not busy it is nothing."""
    HOPS = 2  # of the test's own process on the way: what a process here is held, each of these may be held
    USUAL_S = 0.02  # between two looks, on a machine that is not busy

    def __init__(self, machine=None):
        self.folder = str(machine.dir) if machine else "no rig"

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", STALLS, self.folder], stdout=subprocess.PIPE, text=True)
        self.seen = []  # (when, what the rig's had waited until then), every few ms
        self.process.stdout.readline()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def _read(self):
        for line in self.process.stdout:
            self.seen.append(tuple(map(float, line.split())))

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def _waited(self, since, until):
        deadline = time.monotonic() + 10
        while not self.seen or self.seen[-1][0] < until:
            assert time.monotonic() < deadline, "the one that looks does not run"
            time.sleep(0.005)
        pairs = [(row, later) for row, later in itertools.pairwise(list(self.seen)) if later[0] >= since and row[0] <= until]
        held = max(later[0] - row[0] for row, later in pairs)
        return self.HOPS * max(0, held - self.USUAL_S) + sum(max(0, later[1] - row[1]) for row, later in pairs)  # who ended takes its sum with it

    def allowed(self, since, seconds):
        """To add to a bound of so many seconds since then; call it when they have passed. What is waited in the time that this adds counts too."""
        added = 0.0
        for _ in range(4):
            added = self._waited(since, since + seconds + added)
        return added


# ---- the simulated machine -----------------------------------------------------------------------------------------------

def undisturbed(machine, act, tries=8):
    """What act returned, done anew when a command reached the microcontroller too late meanwhile: then steps keep no time, as on a busy machine only."""
    for _ in range(tries):
        before = machine.sim_cmd("status")["counts"]["late"]
        result = act()
        if machine.sim_cmd("status")["counts"]["late"] == before:
            return result
    raise AssertionError("each time commands were late")


def steps(machine, stepper="x"):
    return machine.sim_cmd(f"steps {stepper}")


def still(machine, timeout=30.0, ended=False):
    """Waits until no stepper has steps queued, looked at twice; returns the status. `ended`: the motion was waited for, so that one look will do."""
    deadline = time.monotonic() + timeout
    last = None
    while True:
        status = machine.sim_cmd("status")
        now = None if any(s["moving"] for s in status["steppers"].values()) else {k: s["total_steps"] for k, s in status["steppers"].items()}
        if now is not None and (ended or now == last):
            return status
        last = now
        assert time.monotonic() < deadline, "the machine still moves"
        time.sleep(0.02 if ended else 0.1)


def axis(machine, name):
    return machine.sim_cmd(f"axis {name}")["mm"]


def pin(machine, name):
    """The level of a pin at the microcontroller."""
    return machine.sim_cmd(f"pin {name}")["value"]


def last_step(machine):
    """When the last step of any motor was made."""
    return max(s["last_step_s"] for s in machine.sim_cmd("status")["steppers"].values())


def footprint(machine):
    """What changes at the microcontroller when any G-code that moves or switches is carried out."""
    status = machine.sim_cmd("status")
    return ({name: s["total_steps"] for name, s in status["steppers"].items()},
            {name: p["changes"] for name, p in status["pins"].items() if p["role"] in ("out", "pwm")})


@contextlib.contextmanager
def nothing_reaches_klipper(machine):
    """Fails when any G-code went to Klipper, or anything changed at the microcontroller."""
    before, since = footprint(machine), time.time()
    yield
    assert machine.scripts(since) == []
    assert footprint(machine) == before


@contextlib.contextmanager
def full_disk(machine):
    """No file of the shim may grow any more, as on a disk that is full."""
    _, hard = resource.prlimit(machine.shim.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(machine.shim.pid, resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.prlimit(machine.shim.pid, resource.RLIMIT_FSIZE, (hard, hard))


def query(machine, **objects):
    """Klipper's own status: query(machine, toolhead=["position"]); a name with a blank goes by a dict."""
    return machine.moonraker_call("printer.objects.query", {"objects": objects})["status"]


def modes(machine):
    """Klipper's G-code state that all clients share."""
    g = query(machine, gcode_move=None)["gcode_move"]
    base = [round(a - b, 5) for a, b in zip(g["position"], g["gcode_position"])][:3]
    return {"absolute": g["absolute_coordinates"], "factor": round(g["speed_factor"], 6), "speed": round(g["speed"], 6),
            "origin": [round(v, 5) for v in g["homing_origin"]][:3], "base": base}


# ---- known states --------------------------------------------------------------------------------------------------------

def restart_klipper(machine, method="printer.firmware_restart"):
    """FIRMWARE_RESTART or RESTART, until the Klipper after it is ready. Moonraker may call the one before ready until it tells that it has gone."""
    with Client(machine) as c:
        c.call(method)
        c.wait_for("notify_klippy_disconnected")
    machine.wait_klipper_ready(60)


def make_ready(machine):
    """A machine that a test before this one may have stopped or left without a part: whole, released and ready."""
    for part in machine.parts:
        if not part.alive:
            part.start()
    mcu = wait_for("the simulated machine", lambda: machine.sim_cmd("status"))["mcu"]
    if mcu["shutdown"] or not mcu["configured"]:
        wait_for("Klipper sees its microcontroller", lambda: machine.klippy_state()[0] != "ready")
    state = wait_for("Klipper", lambda: machine.klippy_state()[0] in ("ready", "shutdown", "error") and machine.klippy_state()[0], 20)
    wait_for("the shim", lambda: machine.get("/health")[1]["klipper"] == state)
    if state != "ready" or ok(get(machine, "status", timeout=10))["safety"]["emergency_stop_active"]:
        ok(post(machine, "system/reset", timeout=40))
    machine.wait_ready(20)


def position(machine):
    return ok(get(machine, "position", timeout=10))


def motors(machine, on, names="xyz"):
    """Waits until motors are on or off at the microcontroller: Klipper says so before it is so."""
    enable = {"x": "PH0", "y": "PH1", "z": "PH2"}  # active low
    wait_for(f"motors {'on' if on else 'off'}", lambda: {pin(machine, enable[name]) for name in names} == {int(not on)})


def unhome(machine):
    """Motors off at the microcontroller, which is later than Klipper says so, and the shim knows."""
    machine.gcode("M84")
    motors(machine, False)
    wait_for("unhomed", lambda: not {"x", "y", "z"} & set(position(machine)["homed_axes"]))


def tell_position(machine, x=5, y=5, z=-20):
    """Puts the carriage there by hand and tells Klipper so: as homed as by homing, which takes eight seconds."""
    for name, mm in (("x", x), ("y", y), ("z", z)):
        machine.sim_cmd(f"place_axis {name} {mm}")
    enable = [f"SET_STEPPER_ENABLE STEPPER=stepper_{name} ENABLE=1" for name in "xyz"]
    machine.gcode("\n".join([*enable, f"SET_KINEMATIC_POSITION X={x} Y={y} Z={z}"]))
    motors(machine, True)
    wait_for("homed", lambda: {"x", "y", "z"} <= set(position(machine)["homed_axes"]))


def make_homed(machine):
    """Ready, homed, at rest, nozzles up and empty."""
    make_ready(machine)
    if not {"x", "y", "z"} <= set(position(machine)["homed_axes"]):
        tell_position(machine)
    ok(post(machine, "motion/wait"))  # what was accepted may not have begun
    status = still(machine, ended=True)
    if abs(status["axes"]["z"]["mm"]) > 20.01:
        ok(post(machine, "motion/move", {"z": -20, "feedrate": 3000, "wait": True}))
    for nozzle in ("n1", "n2"):
        if status["nozzles"][nozzle]["pump"] or status["nozzles"][nozzle]["valve"]:
            ok(post(machine, "vacuum/off", {"nozzle": nozzle.upper(), "wait": True}))
    return machine


def go(machine, **target):
    """A move that has ended at the simulator when this returns."""
    data = ok(post(machine, "motion/move", {"feedrate": FAST, **target, "wait": True}))
    still(machine, ended=True)
    return data


def show(value):
    """JSON for a request body."""
    return json.dumps(value).encode()
