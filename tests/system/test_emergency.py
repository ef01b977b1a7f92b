# SPDX-License-Identifier: GPL-3.0-or-later
"""The emergency stop: no step later than 100 ms after the request, everybody is answered, and only a reset brings the machine back.

Invariant: times of steps are the simulated microcontroller's, on the clock of the machine that asked.
"""
import contextlib
import json
import socket
import time

import pytest

import helpers
import rig
from helpers import (FAST, Later, Stalls, axis, check_envelope, get, go, http_text, nothing_reaches_klipper, ok, pin, post, read_answers, refused, steps, still,
                     wait_for)

LATEST_S = 0.1   # the bound
SECOND_S = 0.4   # that of the second way
CONFIRM_S = 3.0  # how long the shim waits for a confirmation here
SECOND_WAY_S = 0.25  # Moonraker has so long to confirm


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(klipperplace_extra=f"[safety]\nemergency_stop_timeout: {CONFIRM_S}") as r, Stalls(r) as r.stalls:
        yield r


@pytest.fixture
def homed(machine):
    return helpers.make_homed(machine)


def safety(machine):
    return ok(get(machine, "status"))["safety"]


def stop(machine, reason="test"):
    """Stops the machine; returns when it was asked, and checks the answer."""
    asked = time.monotonic()
    data = ok(post(machine, "system/emergency_stop", {"reason": reason}))
    assert data["emergency_stop_active"] is True and data["reason"] == reason
    assert data["confirmed_by"] == "moonraker" or data["latency"] >= SECOND_WAY_S
    assert 0 <= data["latency"] <= CONFIRM_S + 0.1
    return asked


def klipper_goes(machine):
    wait_for("Klipper goes", lambda: ok(get(machine, "status"))["klipper"]["state"] == "disconnected")


def in_time(machine, asked, bound=LATEST_S):
    """The microcontroller was shut down, and nothing stepped, later than the bound and what this machine had its processes wait. Returns the latest time."""
    wait_for("the microcontroller", lambda: machine.sim_cmd("status")["mcu"]["shutdown"])
    latest = asked + bound + machine.stalls.allowed(asked, bound)
    at = [e["t"] for e in machine.events("shutdown")][-1]
    assert at <= latest, f"{at - asked:.3f} s after the request, at most {latest - asked:.3f}"
    assert helpers.last_step(machine) <= latest, f"a step {helpers.last_step(machine) - asked:.3f} s after the request, at most {latest - asked:.3f}"
    return latest


def stopped(machine, asked):
    """It stopped in time, and it stays so. Returns the latest time it had."""
    latest = in_time(machine, asked)
    before = helpers.footprint(machine)
    time.sleep(0.3)
    assert helpers.footprint(machine) == before
    assert safety(machine) == {"level": "emergency", "emergency_stop_active": True}
    return latest


def long_move(machine):
    """A move of thirteen seconds that is under way."""
    go(machine, x=20, y=50)
    move = Later(post, machine, "motion/move", {"x": 220, "feedrate": 900, "wait": True})
    wait_for("the move", lambda: axis(machine, "x") > 25)
    return move


@pytest.mark.smoke
def test_stop_in_a_move(homed):
    move = long_move(homed)
    asked = stop(homed)
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")  # the very next one
    stopped(homed, asked)
    refused(move.answer(), "EMERGENCY_STOP_ACTIVE")
    assert axis(homed, "x") < 60
    for command, body in (("motion/move", {"x": 30}), ("motion/home", {}), ("gpio/write", {"pin": "valve1", "value": 1}), ("vacuum/on", {}), ("pnp/pick", {}),
                          ("feeder/advance", {"feeder": "feeder1", "distance": 4}), ("motion/wait", {})):
        with nothing_reaches_klipper(homed):
            refused(post(homed, command, body), "EMERGENCY_STOP_ACTIVE")
    for path in ("status", "position", "gpio/read_all", "sensor/read_all", "version"):
        ok(get(homed, path))  # reads go on
    assert homed.get("/health")[0] == 200
    assert homed.get("/ready")[0] == 503
    stop_again = ok(post(homed, "system/emergency_stop"))  # repeatable, in every state
    assert stop_again["emergency_stop_active"] is True


@pytest.mark.smoke
def test_reset_brings_it_back(homed):
    go(homed, x=20)
    stop(homed)
    boots = homed.sim_cmd("status")["mcu"]["boots"]
    data = ok(post(homed, "system/reset"))
    assert data["reset_complete"] is True and data["paused"] is True and not {"x", "y", "z"} & set(data["homed_axes"])
    homed.wait_klipper_ready(20)  # Moonraker may learn it a little later
    assert homed.sim_cmd("status")["mcu"]["boots"] > boots
    assert safety(homed)["emergency_stop_active"] is False
    assert homed.get("/ready")[0] == 200
    assert not {"x", "y", "z"} & set(helpers.position(homed)["homed_axes"])
    with nothing_reaches_klipper(homed):
        refused(post(homed, "motion/move", {"x": 30}), "HOMING_REQUIRED")
    helpers.make_homed(homed)
    go(homed, x=30)
    assert axis(homed, "x") == pytest.approx(30, abs=helpers.X_STEP)


def test_reset_into_an_error(homed):
    """Klipper does not come back: that is told with its own words, before the reset's time is over."""
    config = homed.data / "config" / "printer.cfg"
    good = config.read_text()
    config.write_text(good + "\n[no_such_section]\n")
    try:
        stop(homed)
        body = refused(post(homed, "system/reset", timeout=40), "EXECUTION_FAILED")
        assert body["details"]["klipper"]["state"] == "error" and "no_such_section" in body["details"]["klipper"]["message"]
        assert safety(homed)["emergency_stop_active"] is True
    finally:
        config.write_text(good)
    ok(post(homed, "system/reset", timeout=40))
    assert safety(homed)["emergency_stop_active"] is False


def test_who_waited_is_answered(homed):
    """In flight: EMERGENCY_STOP_ACTIVE. Not sent: CANCELLED. Nothing of it ever runs."""
    move = long_move(homed)
    waiting = [Later(post, homed, "motion/move", {"x": 30, "feedrate": FAST}), Later(post, homed, "gpio/write", {"pin": "valve1", "value": 1}),
               Later(post, homed, "pnp/pick"), Later(post, homed, "motion/wait")]
    wait_for("they wait", lambda: ok(get(homed, "status"))["queue"]["size"] == 5)
    since = time.time()
    asked = stop(homed)
    refused(move.answer(), "EMERGENCY_STOP_ACTIVE")
    for later in waiting:
        refused(later.answer(), "CANCELLED")
        assert later.t - asked < 10  # not after their own deadlines
    stopped(homed, asked)
    assert ok(get(homed, "status"))["queue"]["size"] == 0
    ok(post(homed, "system/reset"))
    time.sleep(0.5)
    assert [s for s in homed.scripts(since) if "G1" in s or "SET_PIN" in s] == []
    assert pin(homed, "PD2") == 0


def test_accepted_moves_do_not_go_on_after_the_reset(homed):
    """A queue of moves that Klipper had accepted is gone with the stop."""
    go(homed, x=20, y=50)
    for x in (80, 140, 200):
        ok(post(homed, "motion/move", {"x": x, "feedrate": 1500}))
    wait_for("the moves", lambda: axis(homed, "x") > 25)
    asked = stop(homed)
    stopped(homed, asked)
    before = steps(homed)["total_steps"]
    ok(post(homed, "system/reset"))
    time.sleep(1)
    assert steps(homed)["total_steps"] == before


def test_stop_in_a_pick(homed):
    """Vacuum off at the microcontroller within the bound, whatever the sequence was about to do."""
    homed.sim_cmd("add_part e1 x=60 y=60 z=1 thick=0.5")
    whole = Later(post, homed, "pnp/pick_and_place", {"x": 60, "y": 60, "place_x": 130, "place_y": 130, "nozzle": "N1", "feedrate": 2000})
    homed.sim_cmd("wait_pin n1.valve 1 20000", timeout=25)
    asked = stop(homed)
    latest = stopped(homed, asked)
    assert (pin(homed, "PD0"), pin(homed, "PD2")) == (0, 0)
    off = [e["t"] for e in homed.events("pin") if e["name"] in ("n1.pump", "n1.valve") and e["value"] == 0][-2:]
    assert all(t <= latest for t in off)
    refused(whole.answer(), "EMERGENCY_STOP_ACTIVE")
    homed.sim_cmd("remove_parts 0 0 400 400")


def test_stop_while_homing(machine):
    helpers.make_ready(machine)
    helpers.unhome(machine)
    machine.sim_cmd("place_axis x 200")
    home = Later(post, machine, "motion/home", {"axes": ["z", "x"]})
    wait_for("homing", lambda: steps(machine, "z")["moving"])
    asked = stop(machine)
    stopped(machine, asked)
    refused(home.answer(), "EMERGENCY_STOP_ACTIVE")


def test_stop_goes_past_a_busy_lane_and_many_clients(homed):
    move = long_move(homed)
    noise = [Later(get, homed, "sensor/read?sensor=vacuum1&live=true") for _ in range(30)]
    noise += [Later(post, homed, "gpio/write", {"pin": "valve2", "value": 1}) for _ in range(30)]
    asked = stop(homed)
    stopped(homed, asked)
    refused(move.answer(), "EMERGENCY_STOP_ACTIVE")
    for n in noise:
        assert n.answer()[0] in (200, 409, 503)
    assert pin(homed, "PD3") == 0


@pytest.mark.smoke
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
def test_stop_goes_before_reads_that_came_first(homed, kept):
    """All are in the sockets before klipperplaced runs again, the stop last. Of 64 clients a few may be served before it, not all."""
    read, halt = http_text("GET", "/api/v1/status"), http_text("POST", "/api/v1/system/emergency_stop", b"{}")

    def connection(used):
        c = stack.enter_context(socket.create_connection(("127.0.0.1", homed.port), timeout=20))
        if used:
            c.sendall(read)
            assert read_answers(c, 1)[0][0] == 200
        return c

    with contextlib.ExitStack() as stack:
        clients = [connection(used=True) for _ in range(64)]
        urgent = connection(used=kept)
        homed.shim.pause()
        try:
            for c in clients:
                c.sendall(read)
            urgent.sendall(halt)
        finally:
            homed.shim.resume()
        told = [json.loads(read_answers(c, 1)[0][2])["data"]["safety"]["emergency_stop_active"] for c in clients]
        assert read_answers(urgent, 1)[0][0] == 200
    assert told.count(True) >= 32, told


@pytest.mark.smoke
def test_stop_by_others_latches_too(homed):
    """Somebody presses the stop in Mainsail."""
    move = long_move(homed)
    behind = Later(post, homed, "motion/move", {"y": 60})
    wait_for("it waits", lambda: ok(get(homed, "status"))["queue"]["size"] == 2)
    homed.moonraker_call("printer.emergency_stop")
    refused(move.answer(), "EMERGENCY_STOP_ACTIVE")
    refused(behind.answer(), "EMERGENCY_STOP_ACTIVE", "CANCELLED")
    wait_for("latched", lambda: safety(homed)["emergency_stop_active"])
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/reset"))
    assert safety(homed)["emergency_stop_active"] is False


def test_m112_by_others_latches_and_their_restart_releases(homed):
    Later(homed.gcode, "M112")
    wait_for("latched", lambda: safety(homed)["emergency_stop_active"])
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    helpers.restart_klipper(homed)
    wait_for("released", lambda: not safety(homed)["emergency_stop_active"])
    refused(post(homed, "motion/move", {"x": 30}), "HOMING_REQUIRED")


def test_our_stop_outlives_a_restart_by_others(homed):
    """Only a reset clears it; as Klipper is ready by then, the firmware is not restarted a second time."""
    stop(homed)
    helpers.restart_klipper(homed)
    wait_for("the shim sees Klipper", lambda: homed.get("/ready")[1]["klipper"] == "ready")
    assert safety(homed)["emergency_stop_active"] is True
    with nothing_reaches_klipper(homed):
        refused(post(homed, "motion/home"), "EMERGENCY_STOP_ACTIVE")
    boots = homed.sim_cmd("status")["mcu"]["boots"]
    ok(post(homed, "system/reset"))
    assert homed.sim_cmd("status")["mcu"]["boots"] == boots
    assert safety(homed)["emergency_stop_active"] is False


def test_resets_join(homed):
    """Somebody impatient asks again while Klipper restarts: it is restarted once, and both are told that it is done."""
    stop(homed)
    boots = homed.sim_cmd("status")["mcu"]["boots"]
    first = Later(post, homed, "system/reset", timeout=40)
    klipper_goes(homed)
    second = Later(post, homed, "system/reset", timeout=40)
    assert ok(first.answer())["reset_complete"] is True and ok(second.answer())["reset_complete"] is True
    assert homed.sim_cmd("status")["mcu"]["boots"] == boots + 1
    assert safety(homed)["emergency_stop_active"] is False


def test_reset_goes_on_without_its_client(homed):
    def recorded():
        return [e["command"] for e in ok(get(homed, "queue/history?limit=100"))["entries"]].count("reset")
    before = recorded()
    stop(homed)
    with socket.create_connection(("127.0.0.1", homed.port)) as s:
        s.sendall(http_text("POST", "/api/v1/system/reset", b"{}"))
        klipper_goes(homed)
    wait_for("it is released", lambda: not safety(homed)["emergency_stop_active"], 40)
    wait_for("it is kept", lambda: recorded() == before + 1)


def test_stop_in_a_reset(homed):
    """The reset was asked for before the stop: it must not take it away."""
    stop(homed)
    reset = Later(post, homed, "system/reset", timeout=40)
    klipper_goes(homed)
    again = Later(post, homed, "system/emergency_stop", {"reason": "again"})
    refused(reset.answer(), "EMERGENCY_STOP_ACTIVE")
    answer = check_envelope(again.answer())
    assert answer["status"] == "success" or answer["error_code"] == "TIMEOUT", answer  # Klipper was away, and may have come back too late for it
    wait_for("Klipper is back", lambda: homed.klippy_state()[0] in ("ready", "shutdown"), 40)
    assert safety(homed)["emergency_stop_active"] is True
    refused(post(homed, "motion/home"), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/reset", timeout=40))
    assert safety(homed)["emergency_stop_active"] is False


def test_stop_while_as_many_wait_as_may(homed):
    """448 requests wait for a move's end; one more is refused at once, and the stop comes through, on a connection that is new."""
    move = long_move(homed)
    wait = http_text("POST", "/api/v1/motion/wait", b"{}", ["Idempotency-Key: all-the-same"])
    with contextlib.ExitStack() as stack:
        for _ in range(447):
            stack.enter_context(socket.create_connection(("127.0.0.1", homed.port))).sendall(wait)
        wait_for("they wait", lambda: get(homed, "version")[1].get("error_code") == "QUEUE_FULL")
        refused(get(homed, "version"), "QUEUE_FULL")
        asked = stop(homed)
        stopped(homed, asked)
        refused(move.answer(), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/reset", timeout=40))


def test_an_old_stop_of_ours_does_not_cover_what_others_do_later(make_rig):
    """They restarted Klipper, and now drive beyond [safety]: stopped, and told, though the latch is set already."""
    machine = helpers.make_homed(make_rig(klipperplace_extra="[safety]\nmax_x_position: 200"))
    ok(post(machine, "system/emergency_stop", {"reason": "first"}))
    helpers.restart_klipper(machine)
    wait_for("the shim sees Klipper", lambda: machine.get("/ready")[1]["klipper"] == "ready")
    helpers.tell_position(machine)
    Later(machine.gcode, "G90\nG1 X230 F6000\nG4 P5000")
    wait_for("the stop", lambda: machine.sim_cmd("status")["mcu"]["shutdown"], 10)
    data = ok(get(machine, "safety/status"))
    assert data["emergency_stop_active"] is True and data["reason"] == "first"
    told = [e for e in ok(get(machine, "safety/events?limit=256"))["events"] if e["cause"] == "EMERGENCY_STOP"]
    assert [e["message"] for e in told] == ["the head is sent beyond the position limits", "first"]
    wait_for("Klipper knows", lambda: machine.get("/ready")[1]["klipper"] == "shutdown")
    ok(post(machine, "system/reset", timeout=40))


def test_reset_of_what_is_not_stopped(homed):
    """Nothing to clear: it says so, restarts nothing and unhomes nothing."""
    boots = homed.sim_cmd("status")["mcu"]["boots"]
    data = ok(post(homed, "system/reset"))
    assert data["reset_complete"] is True and {"x", "y", "z"} <= set(data["homed_axes"])
    assert homed.sim_cmd("status")["mcu"]["boots"] == boots
    assert {"x", "y", "z"} <= set(helpers.position(homed)["homed_axes"])


@pytest.mark.parametrize("how", [pytest.param("pause", marks=pytest.mark.smoke), "kill"])
def test_stop_by_klippers_own_socket(homed, how):
    """Moonraker stands still, or is gone: the microcontroller stops all the same."""
    wait_for("the second way", lambda: homed.get("/ready")[1]["emergency_stop_second_way"])
    go(homed, x=20, y=50)
    ok(post(homed, "motion/move", {"x": 220, "feedrate": 900}))
    wait_for("the move", lambda: axis(homed, "x") > 25)
    getattr(homed.moonraker, how)()
    if how == "kill":
        wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    asked = time.monotonic()
    data = ok(post(homed, "system/emergency_stop"))
    assert data["confirmed_by"] == "klipper"
    in_time(homed, asked, SECOND_S)
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    homed.moonraker.resume() if how == "pause" else homed.moonraker.start()
    wait_for("Moonraker is back", lambda: homed.klippy_state()[0] == "shutdown", 20)
    wait_for("the shim sees it", lambda: homed.get("/ready")[1]["moonraker_connected"])
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/reset"))
    helpers.make_homed(homed)
    go(homed, x=30)
    assert axis(homed, "x") == pytest.approx(30, abs=helpers.X_STEP)


def test_stop_that_nobody_confirms(homed):
    """504 that says so. The latch holds, and the stop is carried out as soon as somebody can."""
    go(homed, x=20, y=50)
    homed.klipper.pause()
    homed.moonraker.kill()
    wait_for("it is seen", lambda: homed.get("/ready")[0] == 503)
    began = time.monotonic()
    body = refused(post(homed, "system/emergency_stop"), "TIMEOUT")
    assert CONFIRM_S <= time.monotonic() - began
    assert body["details"]["emergency_stop_active"] is True and body["details"]["confirmed_by"] == "none"
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    homed.klipper.resume()
    wait_for("the stop arrives", lambda: homed.sim_cmd("status")["mcu"]["shutdown"], 20)
    homed.moonraker.start()
    wait_for("Moonraker is back", lambda: homed.klippy_state()[0] == "shutdown")
    wait_for("the shim sees it", lambda: homed.get("/ready")[1]["moonraker_connected"])
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/reset"))


def test_stop_that_could_not_be_sent(make_rig):
    """Klipper's own socket is named and nobody is there, and Moonraker is away: it goes out when Moonraker is back, who knows a Klipper that is ready."""
    machine = helpers.make_homed(make_rig(klipperplace_extra="[api]\nklipper_socket: /nowhere/klippy.sock\n[safety]\nemergency_stop_timeout: 1"))
    go(machine, x=20, y=50)
    machine.moonraker.kill()
    wait_for("it is seen", lambda: machine.get("/ready")[0] == 503)
    refused(post(machine, "system/emergency_stop"), "TIMEOUT")
    assert machine.sim_cmd("status")["mcu"]["shutdown"] is False
    machine.moonraker.start()
    wait_for("the stop arrives", lambda: machine.sim_cmd("status")["mcu"]["shutdown"], 20)
    wait_for("the shim sees it", lambda: machine.get("/ready")[1]["klipper"] == "shutdown")
    ok(post(machine, "system/reset"))


def test_stop_of_a_machine_that_cannot_move(homed):
    """The microcontroller is shut down already: the stop is still accepted and answered."""
    homed.sim_cmd("fault shutdown")
    wait_for("Klipper knows", lambda: homed.klippy_state()[0] == "shutdown")
    data = ok(post(homed, "system/emergency_stop"))
    assert data["emergency_stop_active"] is True
    refused(post(homed, "motion/move", {"x": 30}), "EMERGENCY_STOP_ACTIVE")
    ok(post(homed, "system/reset"))
    still(homed)
