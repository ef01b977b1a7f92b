# SPDX-License-Identifier: GPL-3.0-or-later
"""Operations of Moonraker that fail on a live connection: retries, breakers, what clients are told meanwhile, and what is logged and counted of it.

The real Moonraker stands behind a proxy that answers chosen methods in its place, which the real one cannot be made to do.
Invariant: how often Moonraker was asked is what the proxy counted.
"""
import contextlib
import json
import time

import pytest

import helpers
import rig
from helpers import Later, get, ok, post, refused, wait_for
from proxy import CountingProxy, proxied_rig
from test_metrics import metrics, value

QUERY, SCRIPT, SUBSCRIBE = "printer.objects.query", "printer.gcode.script", "printer.objects.subscribe"
FAULT = {"code": 500, "message": "Moonraker's own fault"}
LIVE = "sensor/read?sensor=vacuum1&live=true"
OPEN_S = 60


class FaultyProxy(CountingProxy):
    """answers[method]: errors that are given in Moonraker's place, the last one for ever; None swallows the request."""

    def __init__(self, *args):
        super().__init__(*args)
        self.answers = {}

    def take(self, client, frame):
        request = json.loads(frame)
        left = self.answers.get(request.get("method"))
        if left is None or "id" not in request:
            return False
        error = left[0] if len(left) == 1 else left.pop(0)
        if error == "pass":
            return False
        if error:
            client.sendall(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode() + b"\x03")
        return True


@pytest.fixture(scope="module")
def machine():
    with proxied_rig(FaultyProxy) as (r, proxy):
        r.proxy = proxy
        yield r


@pytest.fixture
def well(machine):
    """Nothing fails, and every breaker is closed: the connection is new."""
    machine.proxy.answers = {}
    machine.proxy.cut()
    wait_for("the shim is back", lambda: machine.get("/health")[1]["klipper"] in ("ready", "shutdown"), 20)
    helpers.make_homed(machine)
    machine.logged = len(machine.shim.output())
    return machine


def lines(machine, *words):
    """Log lines since the test began that have all these words."""
    return [line for line in machine.shim.output()[machine.logged:].splitlines() if all(w in line for w in words)]


def asked(machine, method=QUERY):
    return machine.proxy.methods[method]


def circuit(machine, method=QUERY):
    return value(metrics(machine), "upstream_circuit", method=method)


def open_it(machine):
    """Five live reads that fail open the breaker of their operation."""
    machine.proxy.answers[QUERY] = [FAULT]
    while circuit(machine) != 2:
        refused(get(machine, LIVE), "TIMEOUT", "MOONRAKER_DISCONNECTED")


# ---- retries -------------------------------------------------------------------------------------------------------------------------

def test_a_read_is_asked_again(well):
    before, count = metrics(well), asked(well)
    well.proxy.answers = {QUERY: [FAULT, FAULT, "pass"]}
    began = time.monotonic()
    assert ok(get(well, LIVE))["stale"] is False
    times = [t for t in well.proxy.times[QUERY] if t >= began]
    assert asked(well) - count == 3 and times[1] - times[0] >= 0.9 and times[2] - times[1] >= 1.8
    after = metrics(well)
    for name, more in (("calls", 3), ("failures", 2), ("retries", 2)):
        assert value(after, f"upstream_{name}_total", method=QUERY) - value(before, f"upstream_{name}_total", method=QUERY) == more, name
    for _ in range(3):
        ok(get(well, LIVE))
    assert len(lines(well, "circuit", QUERY, "fails")) == len(lines(well, "circuit", QUERY, "works again")) == 1


def test_a_read_never_passes_its_timeout(well):
    """5 s: after 1 and 2 more seconds the next retry would come too late."""
    count, began = asked(well), time.monotonic()
    well.proxy.answers = {QUERY: [FAULT]}
    refused(get(well, LIVE), "TIMEOUT")
    assert asked(well) - count == 3 and 2.7 <= time.monotonic() - began


def test_readers_that_share_a_question_share_its_retries(well):
    count = asked(well)
    well.proxy.answers = {QUERY: [FAULT, FAULT, "pass"]}
    reads = [Later(get, well, LIVE) for _ in range(20)]
    for r in reads:
        assert ok(r.answer())["stale"] is False
    assert asked(well) - count <= 4


@pytest.mark.parametrize("code", [400, -32602, 503])
def test_what_is_no_failure(well, code):
    """Klipper's refusal, a wrong question, no Klipper there: told at once, not asked again, and no breaker counts it."""
    count = asked(well)
    well.proxy.answers = {QUERY: [{"code": code, "message": "no"}]}
    for _ in range(7):
        refused(get(well, LIVE), "TIMEOUT")
    assert asked(well) - count == 7 and circuit(well) == 0 and not lines(well, "circuit")


def test_a_connection_that_breaks_between_retries(well):
    well.proxy.answers = {QUERY: [FAULT]}
    read = Later(get, well, LIVE)
    wait_for("it failed", lambda: value(metrics(well), "upstream_retries_total", method=QUERY) and lines(well, "circuit", "fails"))
    with well.proxy.away():
        refused(read.answer(), "MOONRAKER_DISCONNECTED")


def test_the_reading_is_asked_again(well):
    """Everything is read anew at the pace of retries; until then the reads are old and say so."""
    well.proxy.answers = {SUBSCRIBE: [FAULT, FAULT, "pass"]}
    began = time.monotonic()
    well.proxy.cut()
    wait_for("it was asked", lambda: [t for t in well.proxy.times[SUBSCRIBE] if t >= began], 10)
    assert ok(get(well, "position"))["stale"] is True and well.get("/ready")[0] == 503
    wait_for("ready", lambda: well.get("/ready")[0] == 200, 20)
    times = [t for t in well.proxy.times[SUBSCRIBE] if t >= began]
    assert len(times) == 3 and times[1] - times[0] >= 0.9 and times[2] - times[1] >= 1.8


# ---- breakers ------------------------------------------------------------------------------------------------------------------------

def test_a_breaker_opens_and_a_reconnect_closes_it(well):
    open_it(well)
    count = asked(well)
    well.proxy.answers = {}
    for _ in range(50):
        body = refused(get(well, LIVE), "MOONRAKER_DISCONNECTED")
        assert "again within a minute" in body["error_message"]
    assert asked(well) == count, "an open breaker lets nothing through"
    assert ok(get(well, "sensor/read?sensor=vacuum1"))["stale"] is False  # Klipper's pushes come
    helpers.go(well, x=20)  # another operation
    assert len(lines(well, "circuit", "fails")) == len(lines(well, "circuit", "open")) == 1
    well.proxy.cut()
    wait_for("closed", lambda: circuit(well) == 0, 20)
    assert ok(get(well, LIVE))["stale"] is False
    assert len(lines(well, "circuit", "works again")) == 1


def test_everything_old_where_the_reading_cannot_be_done(well):
    well.proxy.answers = {SUBSCRIBE: [FAULT]}
    well.proxy.cut()
    wait_for("stale", lambda: ok(get(well, "status"))["stale"])
    refused(get(well, LIVE), "MOONRAKER_DISCONNECTED", "KLIPPY_DISCONNECTED")
    refused(post(well, "motion/move", {"x": 20}), "MOONRAKER_DISCONNECTED", "KLIPPY_DISCONNECTED")
    assert ok(get(well, "position"))["position"] is not None


def test_scripts(well):
    """Klipper's refusals are its answers. What Moonraker drops may have run; after five of those nothing more is sent."""
    well.proxy.answers = {SCRIPT: [{"code": 400, "message": "refused"}]}
    for _ in range(7):
        refused(post(well, "gpio/write", {"pin": "valve1", "value": 0}), "EXECUTION_FAILED")
    assert circuit(well, SCRIPT) == 0
    well.proxy.answers = {SCRIPT: [FAULT]}
    while circuit(well, SCRIPT) != 2:
        refused(post(well, "gpio/write", {"pin": "valve1", "value": 0}), "OUTCOME_UNKNOWN")
    count = asked(well, SCRIPT)
    refused(post(well, "gpio/write", {"pin": "valve1", "value": 0}), "MOONRAKER_DISCONNECTED")
    refused(post(well, "motion/move", {"x": 20}), "MOONRAKER_DISCONNECTED")
    assert asked(well, SCRIPT) == count
    ok(get(well, LIVE))


def test_never_before_an_emergency_stop(well):
    """Ten that Moonraker fails at: each is sent, and none is counted."""
    stop = "printer.emergency_stop"
    well.proxy.answers = {stop: [FAULT], SCRIPT: [FAULT], QUERY: [FAULT]}
    count = asked(well, stop)
    open_it(well)
    for i in range(10):
        assert ok(post(well, "system/emergency_stop"))["confirmed_by"] == "klipper"
        assert asked(well, stop) - count == i + 1
    now = metrics(well)
    assert value(now, "upstream_failures_total", method=stop) == value(now, "upstream_circuit", method=stop) == 0


# ---- time ------------------------------------------------------------------------------------------------------------------------------

def wait_half_open(machine, since):
    """The first live read that is asked for again comes after the minute."""
    count = asked(machine)
    while asked(machine) == count:
        assert time.monotonic() - since < OPEN_S + 20
        refused(get(machine, LIVE), "MOONRAKER_DISCONNECTED", "TIMEOUT") if machine.proxy.answers else get(machine, LIVE)
        time.sleep(0.2)
    assert time.monotonic() - since > OPEN_S - 1


def test_half_open(well):
    """60 s, then one that fails opens it for 60 s more, and three that work close it."""
    if not rig.long_run():
        pytest.skip("two minutes: scripts/test --long")
    open_it(well)
    wait_half_open(well, time.monotonic())
    assert circuit(well) == 2
    again = time.monotonic()
    well.proxy.answers = {}
    wait_half_open(well, again)
    assert circuit(well) == 1
    ok(get(well, LIVE))
    assert circuit(well) == 1
    ok(get(well, LIVE))
    assert circuit(well) == 0
