# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts that stand still with their sockets open: nothing waits for them for ever, everybody is told, and the shim is back by itself.

Invariant: Moonraker and Klipper are stopped by SIGSTOP, so no connection breaks but by the shim.
"""
import contextlib
import time

import pytest

import helpers
import rig
from helpers import Later, axis, get, go, ok, post, refused, steps, still, wait_for, X_STEP
from test_faults import BOTH, back, long_move, machine  # noqa: F401  pylint: disable=unused-import

AT_ONCE_S = 2.5  # of the second after which a read is old, on a machine with other things to do
LOOK_S = 2.0     # between two looks at the state
DROPPED_S = 20   # a second without a push, 2.5 s without an answer


@pytest.fixture
def homed(machine):  # noqa: F811
    helpers.make_homed(machine)
    machine.logged = len(machine.shim.output())
    return machine


def logged(machine, *words):  # noqa: F811
    return [line for line in machine.shim.output()[machine.logged:].splitlines() if all(w in line for w in words)]


@contextlib.contextmanager
def standing_still(process):
    process.pause()
    try:
        yield time.monotonic()
    finally:
        process.resume()


def dropped(machine):  # noqa: F811
    wait_for("the connection is dropped", lambda: not machine.get("/health")[1]["moonraker_connected"], DROPPED_S)


@BOTH
def test_moonraker_hangs(homed):
    """Reads are old at once, then nothing is ready, then the connection is given up, for as long as it lasts; then all is back in 5 s."""
    go(homed, x=60, y=60)
    with standing_still(homed.moonraker) as since:
        wait_for("stale", lambda: ok(get(homed, "position"))["stale"] and homed.get("/health")[1]["stale"], 10)
        assert time.monotonic() - since < AT_ONCE_S
        wait_for("not ready", lambda: homed.get("/ready")[0] == 503, 10)
        dropped(homed)
        refused(post(homed, "motion/move", {"x": 70}), "MOONRAKER_DISCONNECTED")
        refused(get(homed, "position?live=true"), "MOONRAKER_DISCONNECTED")
        until = time.monotonic() + (60 if rig.long_run() else 10)
        while time.monotonic() < until:
            body = homed.get("/health")[1]
            assert body["moonraker_connected"] is False and body["ready"] is False and body["stale"] is True, "a connection that nobody answers is none"
            assert ok(get(homed, "position"))["stale"] is True
            time.sleep(0.1)
    back(homed, time.monotonic())
    assert len(logged(homed, "hangs")) == len(logged(homed, "answers again")) == 1
    assert len(logged(homed, "reads=stale")) == len(logged(homed, "reads=fresh")) == 1
    assert len(logged(homed, "moonraker=disconnected")) == len(logged(homed, "moonraker=connected")) == 1
    assert len(logged(homed, "")) < 20, "no line for each try"
    go(homed, x=42)
    assert axis(homed, "x") == pytest.approx(42, abs=X_STEP)


@BOTH
def test_moonraker_hangs_in_a_move(homed):
    """The move is told to be of unknown outcome, long before its own time is over; Klipper carries it out, and it is not repeated."""
    move, before = long_move(homed)
    behind = Later(post, homed, "motion/move", {"x": 200, "timeout_s": 60})
    with standing_still(homed.moonraker):
        refused(move.answer(DROPPED_S), "OUTCOME_UNKNOWN")
        refused(behind.answer(5), "MOONRAKER_DISCONNECTED", "KLIPPY_DISCONNECTED")
        refused(post(homed, "motion/wait", {"timeout_s": 60}), "MOONRAKER_DISCONNECTED")
    back(homed, time.monotonic())
    ok(post(homed, "motion/wait"))
    still(homed)
    assert axis(homed, "x") == pytest.approx(90, abs=X_STEP)
    assert steps(homed)["total_steps"] - before == round(40 / X_STEP)


def test_a_short_hang_is_no_end(homed):
    """Shorter than our patience: the move ends as it would have, and the connection is the same."""
    move, _ = long_move(homed)
    with standing_still(homed.moonraker):
        wait_for("not ready", lambda: homed.get("/ready")[0] == 503, 10)
    back(homed, time.monotonic())
    assert move.answer(30)[1].get("error_code") in (None, "KLIPPY_DISCONNECTED", "OUTCOME_UNKNOWN")
    if not logged(homed, "hangs"):
        assert not logged(homed, "moonraker=disconnected")
    still(homed)
    assert axis(homed, "x") == pytest.approx(90, abs=X_STEP)


def test_an_emergency_stop_while_moonraker_hangs(homed):
    """Before and after the connection was given up: by Klipper's own socket, at once."""
    wait_for("the second way", lambda: homed.get("/ready")[1]["emergency_stop_second_way"], 5)
    with standing_still(homed.moonraker):
        assert ok(post(homed, "system/emergency_stop"))["confirmed_by"] == "klipper"
        dropped(homed)
        assert ok(post(homed, "system/emergency_stop"))["confirmed_by"] == "klipper"
    wait_for("it is seen", lambda: homed.get("/health")[1]["klipper"] == "shutdown", 10)
    helpers.make_ready(homed)


def safety(machine):  # noqa: F811
    return ok(get(machine, "safety/status"))


def causes(machine):  # noqa: F811
    return {e["cause"] for e in ok(get(machine, "safety/events?limit=256"))["events"] if e["timestamp"] >= machine.began}


@pytest.fixture
def moving(homed):
    """A move of half a minute is under way."""
    go(homed, x=50, y=50)
    homed.began = time.time()
    move = Later(post, homed, "motion/move", {"x": 250, "feedrate": 400, "wait": True})
    wait_for("the move", lambda: axis(homed, "x") > 52)
    yield homed
    move.answer()
    helpers.make_ready(homed)


def test_klipper_hangs_in_a_move(moving):
    """It is read again in vain, and stopped all the same at the third look; when it lives again it finds the stop."""
    with standing_still(moving.klipper):
        wait_for("the queue is held", lambda: "SILENT_MOVING" in causes(moving), 15)
        assert safety(moving)["emergency_stop_active"] is False
        since = time.monotonic()
        wait_for("the stop", lambda: safety(moving)["emergency_stop_active"], 15)
        assert time.monotonic() - since > LOOK_S, "two looks more"
    wait_for("Klipper takes it", lambda: moving.klippy_state()[0] == "shutdown", 10)
    assert "LOST_MOVING" not in causes(moving)


def test_klipper_hangs_in_a_move_and_dies(moving):
    """While it is read again: it was lost in motion."""
    moving.klipper.pause()
    wait_for("it is read again", lambda: logged(moving, "read again"), 15)
    assert safety(moving)["emergency_stop_active"] is False
    moving.klipper.kill()
    wait_for("the stop", lambda: safety(moving)["emergency_stop_active"], 5)
    assert "LOST_MOVING" in causes(moving)
    moving.klipper.start()
    wait_for("a new Klipper", lambda: moving.klippy_state()[0] in ("ready", "shutdown", "error"), 20)  # it may meet a microcontroller that still moves


def test_moonraker_hangs_in_a_move_and_is_dropped(moving):
    """Nobody knows whether Klipper moves on: that is told, and the queue held."""
    with standing_still(moving.moonraker):
        dropped(moving)
        wait_for("it is told", lambda: "CUT_MOVING" in causes(moving), 5)
    back(moving, time.monotonic())
    ok(post(moving, "system/emergency_stop"))


def test_klipper_hangs(homed):
    """Moonraker answers: its connection stays, everything is old and refused, and each question has its end."""
    with standing_still(homed.klipper):
        wait_for("not ready", lambda: homed.get("/ready")[0] == 503, 10)
        assert ok(get(homed, "position"))["stale"] is True
        refused(get(homed, "position?live=true"), "KLIPPY_DISCONNECTED")
        refused(post(homed, "motion/move", {"x": 70}), "KLIPPY_DISCONNECTED")
        wait_for("its question was given up", lambda: logged(homed, "printer.info", "fails"), 30)
        assert homed.get("/health")[1]["moonraker_connected"] is True
    wait_for("the shim sees Klipper", lambda: homed.get("/health")[1]["klipper"] == homed.klippy_state()[0] in ("ready", "shutdown"), 5)
    assert not logged(homed, "moonraker=disconnected") and len(logged(homed, "printer.info", "fails")) == 1
    helpers.make_ready(homed)
