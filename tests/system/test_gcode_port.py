# SPDX-License-Identifier: GPL-3.0-or-later
"""The G-code port: streams as OpenPnP sends them, every reply, every error, and clients that misbehave.

Invariant: steps, pins and parts are the simulator's; a reply is compared whole.
"""
import math
import re
import socket
import struct
import time

import pytest

import helpers
import openpnp
import rig
from helpers import PART_DEG, PART_MM, REFUSING_PIN, X_STEP, Later, axis, footprint, get, nothing_reaches_klipper, ok, pin, post, steps, still, wait_for
from openpnp import Lines, compress, read_golden, stream

GOLDEN = rig.REPO / "tests" / "golden" / "port"
URLS = "[gcode_port]\nactuator_urls: true\nactuator_token: a-word\n"


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(klipperplace_extra=openpnp.CONFIG + URLS, printer_extra=REFUSING_PIN) as r:
        yield r


@pytest.fixture
def homed(machine):
    """Homed, nozzles up and empty, head at X150 Y120 Z-20."""
    helpers.make_homed(machine)
    machine.sim_cmd("remove_parts 0 0 400 400")
    helpers.go(machine, x=150, y=120, z=-20)
    return machine


@pytest.fixture
def client(homed):
    with Lines(homed) as c:
        yield c


def no_client(machine):
    """The port takes a new one."""
    def free():
        with Lines(machine) as c:
            return c.ask("G21") == ["ok"]
    wait_for("the port is free", free)


# ---- replays -------------------------------------------------------------------------------------------------------------

def test_page_names_every_command():
    """docs/openpnp.md has each command that a line may hold, by the table in libkp/modal.c."""
    table = (rig.REPO / "libkp" / "modal.c").read_text().split("static const struct row rows[]")[1].split("};")[0]
    classic = [f"{letter}{int(code) // 10}" for letter, code in re.findall(r"KEY\('([GM])', (\d+)\)", table)]
    named = re.findall(r'{ 0, "(\w+)"', table)
    page = (rig.REPO / "docs" / "openpnp.md").read_text()
    assert len(classic) > 35 and len(named) > 5
    assert [name for name in classic + named if not re.search(rf"`{name}[ `]", page)] == []


@pytest.mark.parametrize("name", ["dialect", "errors"])
def test_golden(client, name):
    for line, wanted in read_golden(GOLDEN / f"{name}.txt"):
        assert (client.ask(line) if line.strip() else client.send(line + "\n") or []) == wanted, line


def replay(client, golden, squeeze, ahead):
    """All replies."""
    return stream(client, [compress(line) if squeeze else line for line, _ in golden], ahead)


LONG = pytest.mark.skipif(not rig.long_run(), reason="two of the four ways are enough for the short run")


@pytest.mark.parametrize("squeeze, ahead", [(False, False), (True, True), pytest.param(True, False, marks=LONG), pytest.param(False, True, marks=LONG)])
def test_placement(homed, client, squeeze, ahead):
    """Sync and async, as it stands and compressed: the same replies, steps, pins, and the part is where the stream says."""
    golden = read_golden(GOLDEN / "placement.txt")
    homed.sim_cmd("add_part p1 x=40 y=20 z=1.0 rot=0 thick=0.5")
    mark, before = time.monotonic(), homed.sim_cmd("status")
    assert replay(client, golden, squeeze, ahead) == [reply for _, replies in golden for reply in replies]
    after = still(homed)
    p = homed.sim_cmd("part p1")
    assert p["state"] == "lying" and not p["fell"], p
    assert math.hypot(p["x"] - 140.1234, p["y"] - 130.5678) <= PART_MM and abs(p["rot"] - 90.1234) <= PART_DEG, p
    assert [axis(homed, a) for a in "xyz"] == pytest.approx([150, 120, -20], abs=X_STEP)
    assert after["crashes"] == before["crashes"]
    seen = [(e["pin"], e["value"] > 0) for e in homed.events("pin") if e["t"] >= mark and e["pin"] in ("PD0", "PD2", "PD4")]
    assert [s for i, s in enumerate(seen) if i == 0 or s != seen[i - 1]] == [("PD0", True), ("PD2", True), ("PD4", True), ("PD4", False), ("PD2", False)]
    turned = homed.sim_cmd("steps n1.rotation")
    assert turned["total_position"] == before["steppers"]["n1.rotation"]["total_position"]


def test_reads_follow_the_valve(homed, client):
    """A read straight after valve and dwell shows the new level: the sensor's time constant is 30 ms, Klipper samples every 300 ms."""
    client.ask("M802")
    for _ in range(2):
        client.send("M800\nG4 P120\nM105\n")
        reply = client.replies(3)[-1]
        assert -20.5 <= float(reply.split("V1:")[1].split()[0]) <= -19.4, reply
        client.send("M801\nG4 P120\nM105\n")
        reply = client.replies(3)[-1]
        assert -0.6 <= float(reply.split("V1:")[1].split()[0]) <= 0.1, reply
    first = client.ask("M105")
    assert helpers.quickest(lambda: [client.ask("M105") == first or pytest.fail("another value") for _ in range(2)]) < 0.2  # nothing pending: at once
    client.ask("M803")


def test_ok_of_a_valve_is_its_pin(homed, client):
    """M800 says ok when the microcontroller has switched; M802 (planned) earlier. Changed again at once, M400 waits for the late second change."""
    assert client.ask("M800") == ["ok"]
    assert pin(homed, "PD2") == 1
    client.send("M801\nM800\nM801\nM400\n")
    assert client.replies(4) == ["ok"] * 4
    assert pin(homed, "PD2") == 0

    def answered_before_its_pin():
        mark = time.monotonic()
        assert client.ask("M802") == ["ok"]
        answered = time.monotonic()
        changed = wait_for("the pump", lambda: [e["t"] for e in homed.events("pin") if e["t"] >= mark and e["pin"] == "PD0"])
        client.send("M803\nM400\n")
        assert client.replies(2) == ["ok"] * 2
        return answered < changed[0]
    assert any(answered_before_its_pin() for _ in range(10)), "it was waited for each time"


# ---- motion that runs ahead ------------------------------------------------------------------------------------------------

def x_motion(machine, since):
    """Seconds of X's motion since then, on the microcontroller's clock."""
    def moved():
        found = [e for e in machine.events("motion_start", "motion_end") if e["t"] >= since and e["stepper"] == "x"]
        return found if found and found[-1]["what"] == "motion_end" else None
    still(machine)
    ended = wait_for("the end of the motion", moved)
    return ended[-1]["t"] - ended[0]["t"]


def test_lines_are_blended(homed, client):
    """20 lines of 10 mm at 100 mm/s and 1000 mm/s2: 2.1 s; with a stop at each line 4 s. Where lines reach Klipper slowly some of
    them stop: then once more."""
    client.ask("M204 S1000")
    seconds = []
    for _ in range(3):
        client.send("G1 X20 Y20 F12000\nM400\n")
        assert client.replies(2) == ["ok"] * 2
        still(homed)
        mark = time.monotonic()
        client.send("".join(f"G1 X{20 + 10 * i} F6000\n" for i in range(1, 21)) + "M400\n")
        assert client.replies(21) == ["ok"] * 21
        seconds.append(x_motion(homed, mark))
        assert axis(homed, "x") == pytest.approx(220, abs=X_STEP)
        if seconds[-1] < 3:
            break
    assert seconds[-1] < 3, seconds


def test_a_trickle_does_not_stall(homed, client):
    """Short lines more often than every 100 ms put off each other's start in Klipper: they must move while they still come, however many."""
    client.ask("M400")
    before, sent, moved = steps(homed)["total_steps"], 0, False
    while sent < 30 or (not moved and sent < 400):
        sent += 1
        client.send(f"G1 X{150 + sent * 0.05:.4f} F6000\n")
        time.sleep(0.05)
        moved = moved or steps(homed)["total_steps"] > before
    assert client.replies(sent) == ["ok"] * sent
    assert moved, "nothing moved while the lines came"
    still(homed)
    assert axis(homed, "x") == pytest.approx(150 + sent * 0.05, abs=X_STEP)


def test_a_thousand_lines_ahead(homed, client):
    """Replies in order, every line done once; the port takes no more than it can keep."""
    client.ask("M400")
    before = steps(homed)["total_steps"]
    lines = []
    for i in range(1, 1001):
        lines.append("M114" if i % 250 == 0 else f"G1 X{150 + (i % 2) * 0.0125:.4f} F6000")
    client.send("".join(line + "\n" for line in lines))
    replies = client.replies(1000, timeout=180)
    assert [r == "ok" for r in replies] == [line != "M114" for line in lines]
    assert all(r.startswith("ok C: X:150.0125 Y:120.0000 Z:-20.0000 ") for r in replies[249::250]), replies[249::250]
    still(homed)
    turns = sum(1 for a, b in zip([150.0] + places(lines), places(lines)) if a != b)
    assert steps(homed)["total_steps"] - before == turns * round(0.0125 / X_STEP)


def places(lines):
    return [float(line.split("X")[1].split()[0]) for line in lines if line != "M114"]


def test_a_foreign_move_is_seen(homed, client):
    """Somebody else moves: the report is Klipper's place, and is taken over."""
    client.ask("G1 X100 F12000")
    client.ask("M400")
    homed.gcode("G90\nG1 X77.125 F6000\nM400")
    assert client.ask("M114")[0].startswith("ok C: X:77.1250 Y:120.0000 ")
    client.ask("G91 G1 X1 F6000 G90")
    assert client.ask("M114")[0].startswith("ok C: X:78.1250 ")
    still(homed)
    assert axis(homed, "x") == pytest.approx(78.125, abs=X_STEP)


def test_the_place_is_klippers(homed):
    """A client that has just come, and one whose lines run while REST moves: the interlock and relative moves know where the head is."""
    with Lines(homed) as c:
        c.ask("G21")
        ok(post(homed, "motion/move", {"z": -31}))
        assert c.ask("G1 X100 F6000")[0].startswith("!! X and Y are crossed at travel height only")
        assert axis(homed, "x") == pytest.approx(150, abs=X_STEP)
        assert c.ask("M999 G1 Z-20") == ["ok"]
        ok(post(homed, "motion/move", {"x": 160}))
        assert c.ask("G91 G1 X1 F6000") == ["ok"]
        c.send("G1 X-20 F600\n")  # 2 s
        assert c.replies(1) == ["ok"]
        slow = Later(post, homed, "motion/move", {"x": 100, "feedrate": 6000, "wait": True})
        wait_for("it runs", lambda: ok(get(homed, "status"))["queue"]["executing"])
        assert c.ask("G1 X1 F6000 G90") == ["ok"]
        assert c.ask("M114")[0].startswith("ok C: X:101.0000 ")
        ok(slow.answer())
    slow = Later(homed.gcode, "SAVE_GCODE_STATE NAME=_test\nG90\nG1 X110 F300\nM400\nG1 X140 F6000")
    wait_for("it is in Klipper", lambda: helpers.query(homed, gcode_move=["position"])["gcode_move"]["position"][0] == 110)
    with Lines(homed) as c:
        assert c.ask("G91 G1 X1 F6000 G90") == ["ok"]
        assert c.ask("M114")[0].startswith("ok C: X:141.0000 ")
    slow.answer()
    homed.gcode("RESTORE_GCODE_STATE NAME=_test")


def test_an_axis_turned_by_rest(homed, client):
    """The angle that is told and turned from is the machine's, whoever turned it."""
    assert client.ask("G28 A") == ["ok"]
    client.ask("G1 A90")
    client.ask("M400")
    ok(post(homed, "motion/move", {"a": 45, "wait": True}))
    assert client.ask("M114")[0].endswith(" A:45.0000 B:0.0000")
    client.ask("G91 G1 A10 G90")
    assert client.ask("M114")[0].endswith(" A:55.0000 B:0.0000")
    assert helpers.position(homed)["position"]["a"] == 55
    assert client.ask("G1 A0") == ["ok"]


def test_modes_of_others_do_not_matter(homed, client):
    """A G91, an offset and a speed factor left by somebody at the console, and ours are not left to them."""
    homed.gcode("SAVE_GCODE_STATE NAME=_test\nG91\nM220 S50\nSET_GCODE_OFFSET X=5")
    theirs = helpers.modes(homed)
    client.ask("G1 X60 F12000")
    assert client.ask("M114")[0].startswith("ok C: X:60.0000 ")
    still(homed)
    assert axis(homed, "x") == pytest.approx(60, abs=X_STEP)
    assert helpers.modes(homed) == theirs
    client.ask("M204 S700 G1 X61")
    client.ask("M400")
    assert helpers.query(homed, toolhead=["max_accel"])["toolhead"]["max_accel"] == 3000
    homed.gcode("RESTORE_GCODE_STATE NAME=_test")


# ---- errors --------------------------------------------------------------------------------------------------------------

def latched(client, reply):
    """An error, and everything after it refused, without a report."""
    assert reply[-1].startswith("!! "), reply
    for line in ("M114", "G1 X10", "M400", "M105", "M800"):
        assert client.ask(line) == ["!! halted by: " + reply[-1][3:]]


@pytest.mark.parametrize("bad", ["FOO", "G1 X301", "G1 Z-31 G1 X5"])
def test_refused_lines_reach_nobody(homed, client, bad):
    client.ask("M400")
    with nothing_reaches_klipper(homed):
        latched(client, client.ask(bad))
        with Lines(homed) as second:
            assert second.line() == "!! another client is connected" and second.line() is None
    client.sock.close()
    with Lines(homed) as again:
        assert again.ask("M114")[0].startswith("ok C: X:150.0000 ")


def test_same_words_as_rest(homed, client):
    """What the port refuses, REST refuses in the same words."""
    for line, command, body in (("G1 X301", "motion/move", {"x": 301}), ("G1 Y-0.001", "motion/move", {"y": -0.001}),
                                ("G1 Z-31 X100", "motion/move", {"z": -31, "x": 100})):
        reply = client.ask(line)
        assert reply == ["!! " + post(homed, command, body)[1]["error_message"]]
        assert client.ask("M999") == ["ok"]


def test_ahead_of_an_error(homed, client):
    """What was sent behind a bad line is not done, what was before it is."""
    client.send("G1 X140 F12000\nG1 X999\nG1 X10\nM800\nM114\n")
    replies = client.replies(5)
    assert replies[0] == "ok" and all(r.startswith("!! ") for r in replies[1:]), replies
    wait_for("the move before it", lambda: abs(axis(homed, "x") - 140) <= X_STEP)
    still(homed)
    assert axis(homed, "x") == pytest.approx(140, abs=X_STEP)
    assert pin(homed, "PD2") == 0


def test_unhomed(homed):
    helpers.unhome(homed)
    with Lines(homed) as c:
        c.ask("M400")
        with nothing_reaches_klipper(homed):
            reply = c.ask("G1 X10")
            assert reply[0].startswith("!! home these axes first: x")
            latched(c, reply)
        for name, mm in (("x", 8), ("y", 8), ("z", -3)):
            homed.sim_cmd(f"place_axis {name} {mm}")
        assert c.ask("G28") == ["ok"]  # lifts the latch
        assert c.ask("M114") == ["ok C: X:5.0000 Y:5.0000 Z:-20.0000 A:0.0000 B:0.0000"]
        still(homed)
        assert abs(axis(homed, "z")) <= 20.01


def test_klipper_refuses(homed, client):
    """An error that only Klipper knows: its words, the client's modes and the acceleration put back, nothing done behind it."""
    homed.gcode('SET_GCODE_VARIABLE MACRO=SET_PIN VARIABLE=refused VALUE="\'valve1\'"')
    theirs = helpers.modes(homed)
    client.send("M204 S500 G1 X120 F12000 M800\nG1 X10\n")
    replies = client.replies(2)
    assert replies[0].startswith("!! Klipper refused: ") and "SET_PIN of valve1 refused" in replies[0], replies
    assert replies[1].startswith("!! halted by: "), replies
    homed.gcode('SET_GCODE_VARIABLE MACRO=SET_PIN VARIABLE=refused VALUE="\'\'"')
    wait_for("put back", lambda: helpers.modes(homed) == theirs and helpers.query(homed, toolhead=["max_accel"])["toolhead"]["max_accel"] == 3000)
    assert client.ask("M999") == ["ok"]
    still(homed)
    assert client.ask("M114")[0].startswith("ok C: X:120.0000 ")
    assert client.ask("M800") == ["ok"] and client.ask("M801") == ["ok"]


def test_m112_in_the_stream(homed, client):
    """Seen before the lines ahead of it are done: the first of them takes 28 s, and ends nowhere near its end."""
    client.send("G1 X10 F300\nG1 X290\nG1 X10\n")
    client.replies(1)
    wait_for("it moves", lambda: steps(homed)["moving"])
    client.send("M400\nG1 X100\nM1")
    sent = time.monotonic()
    client.send("12\n")
    replies = client.replies(5)
    assert all(r.startswith(("ok", "!! ")) for r in replies) and replies[-1].startswith("!! "), replies
    wait_for("shutdown", lambda: homed.sim_cmd("status")["mcu"]["shutdown"])
    stopped = [e["t"] for e in homed.events("shutdown") if e["t"] >= sent]
    assert len(stopped) == 1 and helpers.last_step(homed) <= stopped[0] and axis(homed, "x") > 75
    assert client.ask("M114")[0].startswith("!! halted by: ")
    assert client.ask("M999")[0].startswith("!! ")
    assert client.ask("G28")[0].startswith("!! ")
    ok(post(homed, "system/reset", timeout=40))
    assert client.ask("M999") == ["ok"]
    assert client.ask("G1 X10")[0].startswith("!! home these axes first")


@pytest.mark.parametrize("ahead", [0, 1500])
def test_m112_of_a_client_that_breaks_off(homed, ahead):
    """Its bytes come together with the reset, or behind more lines than are read ahead: the machine stops."""
    c = Lines(homed)
    c.ask("M400")
    c.send("G1 X10 F300\nM400\n" + "G1 X140 F6000\n" * ahead)  # 28 s
    c.replies(1)
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    homed.shim.pause()
    c.send("M112\n")
    c.sock.close()
    homed.shim.resume()
    wait_for("shutdown", lambda: homed.sim_cmd("status")["mcu"]["shutdown"])
    ok(post(homed, "system/reset", timeout=40))


def test_mcu_shutdown_while_waiting(homed, client):
    """A shutdown ends Klipper's M400 early: no ok for it, no report."""
    client.send("G1 X20 F300\nM400\nM114\nM800\n")  # 26 s
    assert client.replies(1) == ["ok"]
    wait_for("it moves", lambda: steps(homed)["moving"])
    homed.sim_cmd("fault shutdown")
    replies = client.replies(3)
    assert all(r.startswith("!! ") for r in replies), replies
    assert pin(homed, "PD2") == 0
    client.sock.close()
    helpers.make_ready(homed)


def test_moonraker_gone(homed, client):
    client.ask("G1 X100 F12000")
    client.ask("M400")
    homed.moonraker.kill()
    wait_for("the shim sees it", lambda: homed.get("/ready")[0] == 503)
    before = footprint(homed)
    for line in ("G1 X110", "M400", "M114", "M105", "M800"):
        assert client.ask(line) == ["!! halted by: Klipper is not ready: disconnected"]
    homed.moonraker.start()
    homed.wait_ready(30)
    assert client.ask("M114")[0].startswith("!! halted by: ")
    assert footprint(homed) == before
    client.sock.close()
    with Lines(homed) as again:
        assert again.ask("M114")[0].startswith("!! it is not known where axis A stands")  # whoever asks
        assert again.ask("G28 A B") == ["ok"]
        assert again.ask("M114")[0].startswith("ok C: X:100.0000 ")
        assert again.ask("G1 X105 M400") == ["ok"]
    still(homed)
    assert axis(homed, "x") == pytest.approx(105, abs=X_STEP)


# ---- clients that misbehave ----------------------------------------------------------------------------------------------

def rss_kb(machine):
    text = (rig.Path("/proc") / str(machine.shim.pid) / "status").read_text()
    return int(text.split("VmRSS:")[1].split()[0])


def test_endless_line(homed, client):
    """10 MB without a line's end, then garbage: one error each, bounded memory, and REST goes on."""
    client.ask("G21")
    before = rss_kb(homed)
    piece = b"G1X10" * 20000
    for _ in range(100):
        client.send(piece)
    assert homed.get("/health")[0] == 200
    client.send("\nM115\n")
    replies = client.replies(2)
    assert replies[0] == "!! the line is longer than 256 bytes" and replies[1].startswith("!! halted by"), replies
    assert rss_kb(homed) - before < 4096
    done = footprint(homed)
    client.send(bytes(range(256)) * 64 + b"\nM999\n")
    replies = [client.line()]
    while replies[-1] != "ok":  # of M999, behind the garbage
        replies.append(client.line())
    assert len(replies) > 64 and all(r.startswith("!! halted by") for r in replies[:-1]), replies
    assert footprint(homed) == done


def test_half_line_of_a_client_that_goes(homed):
    """Half a line is no line: G1 X1 may have been G1 X100."""
    with nothing_reaches_klipper(homed):
        with Lines(homed) as c:
            c.send("G1 X1")
        no_client(homed)


def test_nc_gets_its_replies(homed):
    """A client that ends its side (printf ... | nc -N) is answered to the end."""
    with Lines(homed) as c:
        c.send("G1 X145 F6000\nM400\nM114\n")
        c.sock.shutdown(1)
        assert c.replies(3)[2].startswith("ok C: X:145.0000 ")
        assert c.line() is None


def test_client_that_never_reads(homed):
    """It is held up, not we: memory stays, reading stops, REST answers, and M112 of another way still works."""
    with Lines(homed) as c:
        c.sock.settimeout(2)  # nothing goes for so long: it is held up, and not only slow
        before = rss_kb(homed)
        with pytest.raises(TimeoutError):
            for _ in range(20000):
                c.sock.sendall(b"M115\n" * 1000)
        assert rss_kb(homed) - before < 4096
        assert homed.get("/health")[0] == 200
        ok(post(homed, "motion/move", {"x": 140, "feedrate": 6000, "wait": True}))
    no_client(homed)


def test_many_connects(homed):
    """100 a second: no descriptor is lost, and the client that is there goes on."""
    fds = rig.Path("/proc") / str(homed.shim.pid) / "fd"
    with Lines(homed) as c:
        c.ask("G21")
        before = len(list(fds.iterdir()))
        for _ in range(200):
            with Lines(homed) as other:
                other.send("G1 X1\n")
        assert c.ask("M114")[0].startswith("ok C:")
        wait_for("descriptors", lambda: len(list(fds.iterdir())) <= before)
        assert axis(homed, "x") == pytest.approx(150, abs=X_STEP)


# ---- HttpActuator ----------------------------------------------------------------------------------------------------------

def test_actuator_urls(homed):
    def ask(path, **options):
        status, text, headers = homed.get("/openpnp/" + path, **options)
        return status, text, headers["content-type"]
    assert ask("a-word/output/valve1/on") == (200, "ok\n", "text/plain")
    assert pin(homed, "PD2") == 1
    assert ask("a-word/output/valve1?value=0") == (200, "ok\n", "text/plain")
    assert pin(homed, "PD2") == 0
    assert ask("a-word/output/light?value=1.0")[0] == 200
    assert ask("a-word/output/light/off")[0] == 200
    for value in (0.5, 0.25, 0.75):  # a PWM pin has changed, too
        mark = time.monotonic()
        assert ask(f"a-word/output/light?value={value}")[:2] == (200, "ok\n")
        answered = time.monotonic()
        changed = wait_for("the light", lambda: [e["t"] for e in homed.events("pin") if e["t"] >= mark and e["pin"] == "PD4"])
        assert changed[0] <= answered, value
    assert ask("a-word/output/light/off")[0] == 200
    status, text, _ = ask("a-word/sensor/vacuum1")
    assert status == 200 and text == "read:-0.01\n"
    with nothing_reaches_klipper(homed):
        for path, status in (("output/valve1/on", 404), ("b-word/output/valve1/on", 404), ("a-word/output/nowhere/on", 404), ("a-word/output/valve1", 404),
                             ("a-word/output/valve1/up", 404), ("a-word/output/valve1?value=x", 400), ("a-word/sensor/nowhere", 404), ("a-word", 404)):
            assert ask(path)[0] == status, path
        for headers in ({"Origin": "http://127.0.0.1"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "pnp.example"}):
            assert ask("a-word/output/valve1/on", headers=headers)[0] == 403, headers
        assert homed.post("/openpnp/a-word/output/valve1/on")[0] == 405


def test_ack_drops_all_that_was_sent(make_rig):
    """With error_reply: ack nothing that was sent before an error came is done, however much it was; what is sent after it is."""
    machine = make_rig(klipperplace_extra=openpnp.CONFIG + "[gcode_port]\nerror_reply: ack\n")
    helpers.tell_position(machine, x=150, y=120, z=-20)
    with Lines(machine) as c:
        assert c.ask("M400") == ["ok"]
        before = steps(machine)["total_steps"]
        c.send("G1 X999 F6000\n" + "G1 X10 F6000 ; as long as lines of OpenPnP\n" * 900)
        replies = c.replies(2 * 901)
        assert [r[:2] for r in replies] == ["!!", "ok"] * 901 and all(r.startswith("!! not done") for r in replies[2::2])
        assert c.ask("G1 X151 F6000") == ["ok"] and c.ask("M114")[0].startswith("ok C: X:151.0000 ")
        still(machine)
        assert steps(machine)["total_steps"] - before == round(1 / X_STEP)


# ---- what Klipper makes of coordinates -----------------------------------------------------------------------------------

def test_a_transform_is_told(make_rig):
    """A skew in printer.cfg: a warning in the log at start and in status, and the port works."""
    machine = make_rig(klipperplace_extra=openpnp.CONFIG, printer_extra="[skew_correction]\n")
    told = "Klipper has [skew_correction]: when it is active"
    wait_for("the log", lambda: told in machine.shim.output())
    body = helpers.check_envelope(helpers.get(machine, "status"))
    assert body["status"] == "success" and len(body["warnings"]) == 1 and body["warnings"][0].startswith(told)
    assert helpers.check_envelope(helpers.get(machine, "position"))["warnings"] == []
    with Lines(machine) as c:
        assert c.ask("M115")[-1] == "ok"


# ---- with the Klipper extra ----------------------------------------------------------------------------------------------

@LONG
def test_same_replies_with_the_extra(make_rig):
    """Klipper that starts at once and waits exactly: the stream and its replies are the same."""
    machine = make_rig(extras=True, klipperplace_extra=openpnp.CONFIG, printer_extra="[klipperplace]\n")
    helpers.tell_position(machine, x=150, y=120, z=-20)
    machine.sim_cmd("add_part p1 x=40 y=20 z=1.0 rot=0 thick=0.5")
    golden = read_golden(GOLDEN / "placement.txt")
    with Lines(machine) as c:
        assert replay(c, golden, False, False) == [reply for _, replies in golden for reply in replies]
    p = machine.sim_cmd("part p1")
    assert p["state"] == "lying" and math.hypot(p["x"] - 140.1234, p["y"] - 130.5678) <= PART_MM, p
