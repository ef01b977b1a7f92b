# SPDX-License-Identifier: GPL-3.0-or-later
"""What outlives the process, and what happens when it cannot be written or read.

For the machine's owner, who looks at it after the fact. Invariant tested: the file says what was done with what result; a disk that is full or a file that is
no good stops no direct command, and nothing that cannot be kept is queued.
"""
import concurrent.futures
import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import stat
import time

import pytest

import rig
from helpers import (BASE, FAST, check_envelope, full_disk, get, go, http_text, make_homed, ok, pin, post, read_answers, refused, restart_klipper,
                     wait_for)

KEPT = 60  # most ended commands kept
EVENTS_KEPT, PRUNED_AFTER = 10000, 256  # history.h, history.c


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where the database is; its folder may be changed while the shim does not run."""
    return tmp_path_factory.mktemp("history") / "history.db"


@pytest.fixture(scope="module")
def machine(place):
    with rig.Rig(klipperplace_extra=f"[history]\ndatabase: {place}\n[gcode_driver]\nmax_history_entries: {KEPT}\n") as r:
        yield make_homed(r)


def write(machine, value, **more):
    return post(machine, "gpio/write", {"pin": "valve1", "value": value, **more})


def add(machine, value):
    return post(machine, "queue/add", {"command": "gpio_write", "parameters": {"pin": "valve1", "value": value}})


def history(machine, query=""):
    return ok(get(machine, "queue/history" + query))["entries"]


def restart(machine, kill=False):
    machine.shim.kill() if kill else stop(machine)
    machine.shim.start()
    machine.wait_shim_ready(30)


def stop(machine):
    assert machine.shim.stop() == []


def rows(place, question):
    """The file, read by another program while the shim does not run."""
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as db:
        return db.execute(question).fetchall()


# ---- what is kept ------------------------------------------------------------------------------------------------------------

def test_commands_with_parameters_result_and_time(machine):
    began = time.time()
    body = check_envelope(post(machine, "motion/move", {"x": 20, "y": 30.5, "feedrate": FAST, "timeout_s": 20}))
    refused(post(machine, "motion/move", {"x": 20, "z": -31.4, "feedrate": FAST, "nozzle": "N2"}), "POSITION_OUT_OF_BOUNDS", "INTERLOCK")
    queued = ok(add(machine, 1))["queue_id"]
    wait_for("it ran", lambda: pin(machine, "n1.valve") == 1)
    ok(write(machine, 0, wait=True))
    found = {e["command_id"]: e for e in history(machine)}
    move, entry = found[body["command_id"]], found[queued]
    assert (move["command"], move["parameters"]) == ("move", {"x": 20, "y": 30.5, "feedrate": FAST, "timeout_s": 20})
    assert (move["state"], move["error_code"], move["queue_id"]) == ("done", None, None)
    assert (entry["command"], entry["parameters"], entry["state"], entry["queue_id"]) == ("gpio_write", {"pin": "valve1", "value": 1}, "done", queued)
    for e in (move, entry):
        assert began - 1 < e["added_at"] <= e["started_at"] <= e["ended_at"] < time.time() + 1
    ok(write(machine, 1, wait=True))
    ok(write(machine, 0, wait=True))


def test_failures_keep_their_words(machine):
    go(machine, z=-25)
    body = refused(post(machine, "motion/move", {"x": 50, "feedrate": FAST}), "INTERLOCK")
    entry = {e["command_id"]: e for e in history(machine)}[body["command_id"]]
    assert (entry["state"], entry["error_code"], entry["error_message"]) == ("failed", "INTERLOCK", body["error_message"])
    go(machine, z=-20)


def test_pages_by_limit_and_before(machine):
    ids = [check_envelope(write(machine, i % 2))["command_id"] for i in range(25)]
    ok(write(machine, 0))
    newest = [e["command_id"] for e in history(machine, "?limit=26")][1:]
    assert newest == ids[::-1]
    pages, before = [], ids[-1]
    for _ in range(3):
        page = history(machine, f"?limit=8&before={before}")
        assert len(page) == 8
        before = page[-1]["command_id"]
        pages += [e["command_id"] for e in page]
    assert pages == ids[-2::-1]
    assert history(machine, "?before=9f0c0000-0000-4000-8000-000000000000") == []
    refused(get(machine, "queue/history?limit=0"), "INVALID_PARAMETER")
    refused(get(machine, "queue/history?limit=1001"), "INVALID_PARAMETER")
    refused(get(machine, "queue/history?before=" + "x" * 100), "INVALID_PARAMETER")


def test_old_commands_make_room(machine):
    for i in range(300):
        ok(write(machine, i % 2))
    ok(write(machine, 0, wait=True))
    assert KEPT <= len(history(machine, "?limit=1000")) < 300


def test_many_write_and_read_at_once(machine):
    """The loop and the history's thread have work for each other all the time."""
    def work(_):
        return [(check_envelope(write(machine, i % 2))["command_id"], len(history(machine, "?limit=2"))) for i in range(60)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        told = [one for many in pool.map(work, range(8)) for one in many]
    assert {n for _, n in told} == {2}
    kept = [e["command_id"] for e in history(machine, "?limit=1000")]
    assert len(kept) == len(set(kept)) and set(kept[:KEPT]) <= {i for i, _ in told}


def test_it_outlives_the_process_and_is_its_owners_alone(machine, place):
    before = history(machine, "?limit=30")
    restart(machine)
    assert history(machine, "?limit=30") == before
    last = check_envelope(write(machine, 0))["command_id"]
    assert history(machine, "?limit=1")[0]["command_id"] == last  # read after it was written
    restart(machine, kill=True)
    assert history(machine, "?limit=1")[0]["command_id"] == last
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    ok(post(machine, "system/emergency_stop", {"reason": "a test's"}))
    stop(machine)
    assert rows(place, "PRAGMA integrity_check") == [("ok",)]
    assert rows(place, "SELECT count(*) FROM queue") == [(0,)]
    events = rows(place, "SELECT id, level, cause, message FROM events ORDER BY id")
    assert [e[0] for e in events] == list(range(1, len(events) + 1))
    assert ("emergency", "EMERGENCY_STOP", "a test's") in [e[1:] for e in events]
    machine.shim.start()
    told = wait_for("the events", lambda: ok(get(machine, "safety/events?limit=256"))["events"])[::-1]
    assert [(e["id"], e["level"], e["cause"], e["message"]) for e in told][:len(events)] == events[-256:]
    wait_for("the shim sees the stop", lambda: ok(get(machine, "status"))["safety"]["emergency_stop_active"])
    ok(post(machine, "system/reset", timeout=40))
    stop(machine)
    again = rows(place, "SELECT id, cause FROM events ORDER BY id")
    assert [e[0] for e in again] == list(range(1, len(again) + 1)) and "RELEASE" in [e[1] for e in again[len(events):]]
    machine.shim.start()
    machine.wait_shim_ready(30)
    ok(post(machine, "system/resume"))
    make_homed(machine)


def test_a_stop_outlives_the_process(machine):
    """Klipper has been restarted by somebody else and is ready: only our reset takes our stop away, in this process or the next."""
    def stopped():
        return ok(get(machine, "status"))["safety"]["emergency_stop_active"]
    ok(post(machine, "system/emergency_stop", {"reason": "before the end"}))
    restart_klipper(machine)
    for kill in (True, False):
        restart(machine, kill)
        assert stopped() and ok(get(machine, "safety/status"))["reason"] == "before the end"
        refused(write(machine, 1), "EMERGENCY_STOP_ACTIVE")
    data = ok(post(machine, "system/reset", timeout=40))
    assert data["reset_complete"] is True and data["homed_axes"] == [] and data["paused"] is True
    restart(machine, kill=True)
    assert not stopped()
    ok(post(machine, "system/resume"))
    make_homed(machine)


def test_a_stop_outlives_many_later_events(machine, place):
    """More than are read at a start, and more than are kept."""
    def stopped():
        return ok(get(machine, "status"))["safety"]["emergency_stop_active"]
    ok(post(machine, "system/emergency_stop", {"reason": "long ago"}))
    stop(machine)
    last = rows(place, "SELECT max(id) FROM events")[0][0]
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as db:
        db.execute("WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO events(id, rank, level, cause, message, timestamp)"
                   " SELECT i, 1, 'caution', 'TEMPERATURE_NEAR', 'near', ? FROM n", (last + 1, last + EVENTS_KEPT + 50, time.time()))
    machine.shim.start()
    wait_for("the shim sees Klipper", lambda: machine.get("/health")[1]["klipper"] == "shutdown")
    assert stopped() and ok(get(machine, "safety/status"))["reason"] == "long ago"
    for _ in range(PRUNED_AFTER + 20):
        ok(post(machine, "system/emergency_stop"))  # a row among the commands, and no event: the latch is set
    stop(machine)
    assert rows(place, f"SELECT message FROM events WHERE id <= {last}") == [("long ago",)], "all others were cut"
    machine.shim.start()
    wait_for("the shim sees Klipper", lambda: machine.get("/health")[1]["klipper"] == "shutdown")
    assert stopped()
    ok(post(machine, "system/reset", timeout=40))
    restart(machine)
    assert not stopped()
    ok(post(machine, "system/resume"))
    make_homed(machine)


def test_a_stop_of_others_goes_with_their_restart(machine):
    """It was only seen, by this process and the next: a Klipper that is ready again is no longer stopped."""
    machine.moonraker_call("printer.emergency_stop")
    wait_for("it is seen", lambda: ok(get(machine, "status"))["safety"]["emergency_stop_active"])
    assert machine.shim.stop() == []
    machine.shim.start()
    wait_for("it is seen again", lambda: machine.get("/health")[1]["klipper"] == "shutdown")
    assert ok(get(machine, "status"))["safety"]["emergency_stop_active"]
    restart_klipper(machine)
    wait_for("released", lambda: not ok(get(machine, "status"))["safety"]["emergency_stop_active"])
    machine.wait_shim_ready(30)
    ok(post(machine, "system/resume"))
    make_homed(machine)


def test_keys_that_change_at_the_end(machine):
    """The process ends before the journal has told that a change is kept: nobody is left to be answered, and nothing is touched that is gone."""
    key = ok(post(machine, "auth/keys", {"name": "late", "role": "viewer"}))["id"]
    change = http_text("PUT", BASE + f"auth/keys/{key}", b'{"enabled": false}')
    for after_ms in (0, 0, 1, 2, 3, 5):
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(("127.0.0.1", machine.port), timeout=20)) for _ in range(8)]
            for c in clients:
                c.sendall(http_text("GET", BASE + "version"))
                assert read_answers(c, 1)[0][0] == 200
            machine.shim.pause()
            for c in clients:
                c.sendall(change * 8)
            machine.shim.resume()
            time.sleep(after_ms / 1000)
            stop(machine)
        machine.shim.start()
        machine.wait_shim_ready(30)
    ok(machine.request("DELETE", BASE + f"auth/keys/{key}"))


def test_pause_outlives_the_process(machine):
    ok(post(machine, "system/pause"))
    restart(machine, kill=True)
    assert ok(get(machine, "queue/status"))["holds"] == ["paused"]
    ok(post(machine, "system/resume"))
    restart(machine)
    assert ok(get(machine, "queue/status"))["holds"] == []


# ---- a file that cannot be written ---------------------------------------------------------------------------------------------

def test_a_full_disk_stops_the_queue_but_no_direct_command(machine):
    with full_disk(machine):
        ok(post(machine, "system/pause"))
        refused(add(machine, 1), "DATABASE_UNAVAILABLE")
        entry = {"command": "gpio_write", "parameters": {"pin": "valve1", "value": 1}}
        refused(post(machine, "queue/batch", {"commands": [entry] * 3}), "DATABASE_UNAVAILABLE")
        assert ok(get(machine, "queue/status"))["queue_size"] == 0
        body = check_envelope(write(machine, 1, wait=True))
        assert body["status"] == "success" and any("history" in w for w in body["warnings"])
        assert pin(machine, "n1.valve") == 1
        assert check_envelope(write(machine, 0, wait=True))["status"] == "success"
        assert ok(post(machine, "system/resume")) == {"resumed": True}
    wait_for("it can be written", lambda: add(machine, 1)[0] == 200)
    wait_for("it runs", lambda: pin(machine, "n1.valve") == 1)
    assert check_envelope(write(machine, 0, wait=True))["warnings"] == []


def test_what_was_queued_before_the_disk_was_full_is_neither_lost_nor_run_twice(machine, place):
    ok(post(machine, "system/pause"))
    ids = [ok(add(machine, i % 2))["queue_id"] for i in range(6)]
    with full_disk(machine):
        assert ok(machine.request("DELETE", BASE + f"queue/cancel?queue_id={ids[0]}")) == {"cancelled_id": ids[0]}
        changes, since = machine.sim_cmd("pin n1.valve")["changes"], time.time()
        ok(post(machine, "system/resume"))
        wait_for("an entry is taken", lambda: ok(get(machine, "queue/status"))["executing"])
        time.sleep(1.2)  # longer than one retry
        assert machine.sim_cmd("pin n1.valve")["changes"] == changes, "it ran without being in the journal"
    wait_for("all have run", lambda: ok(get(machine, "queue/status"))["queue_size"] == 0)
    found = {e["command_id"]: e["state"] for e in history(machine, "?limit=30")}
    assert [found[i] for i in ids] == ["cancelled"] + ["done"] * 5
    assert sum("PIN=valve1" in text for text in machine.scripts(since)) == 5
    wait_for("the last one acts", lambda: pin(machine, "n1.valve") == 1)
    stop(machine)
    assert rows(place, "SELECT count(*) FROM queue") == [(0,)]
    machine.shim.start()
    machine.wait_shim_ready(30)
    ok(write(machine, 0, wait=True))


# ---- backup --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kill", [False, True])
def test_backup_and_restore(machine, place, tmp_path, kill):
    """As docs/operate.md says: stop, copy, start. Nobody else reads the file meanwhile; after a kill the log beside it is part of it."""
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        rows(place, "SELECT count(*) FROM commands")
    ok(post(machine, "system/pause"))
    waiting = ok(add(machine, 1))["queue_id"]
    kept = check_envelope(write(machine, 0, wait=True))["command_id"]
    wait_for("it is written", lambda: history(machine, "?limit=1")[0]["command_id"] == kept)
    machine.shim.kill() if kill else stop(machine)
    parts = [f for f in (place, place.with_name(place.name + "-wal")) if f.exists()]
    assert len(parts) == (2 if kill else 1)
    for f in parts:
        shutil.copy2(f, tmp_path)
    machine.shim.start()
    machine.wait_shim_ready(15)
    assert ok(machine.request("DELETE", BASE + "queue/clear"))["cleared_count"] == 1
    lost = check_envelope(write(machine, 0, wait=True))["command_id"]
    wait_for("it is written", lambda: lost in [e["command_id"] for e in history(machine, "?limit=2")])
    stop(machine)
    place.unlink()
    for f in tmp_path.iterdir():
        shutil.copy2(f, place.parent)
    changes = machine.sim_cmd("pin n1.valve")["changes"]
    machine.shim.start()
    machine.wait_shim_ready(15)
    assert history(machine, "?limit=1")[0]["command_id"] == kept
    assert ok(get(machine, "queue/status"))["queue_size"] == 1 and "paused" in ok(get(machine, "queue/status"))["holds"]
    assert machine.sim_cmd("pin n1.valve")["changes"] == changes
    ok(machine.request("DELETE", BASE + "queue/cancel", {"queue_id": waiting}))
    ok(post(machine, "system/resume"))
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


# ---- a file that is no good ------------------------------------------------------------------------------------------------------

@pytest.fixture
def stopped(machine, place):
    """The shim does not run; afterwards it does, with a new file."""
    stop(machine)
    for f in place.parent.iterdir():
        f.rmdir() if f.is_dir() else f.unlink()
    before = len(machine.shim.output())
    yield lambda: machine.shim.output()[before:]
    if machine.shim.alive:
        stop(machine)
    for f in place.parent.iterdir():
        f.rmdir() if f.is_dir() else f.unlink()
    machine.shim.start()
    machine.wait_shim_ready(30)


def bad_header(place):
    place.write_bytes(b"this is no database" * 1000)


def bad_pages(place):
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as db:
        db.execute("PRAGMA user_version=1")
        db.execute("CREATE TABLE t(a)")
        db.executemany("INSERT INTO t VALUES(?)", [("x" * 500,)] * 200)
    data = bytearray(place.read_bytes())
    data[4096 * 3:4096 * 5] = os.urandom(8192)
    place.write_bytes(data)


def other_version(place):
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as db:
        db.execute("CREATE TABLE queue(old)")
        db.execute("PRAGMA user_version=77")


def somebody_elses(place):
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as db:
        db.execute("CREATE TABLE addresses(name)")


@pytest.mark.parametrize("spoil", [bad_header, bad_pages, other_version, somebody_elses])
def test_a_file_that_is_no_good_is_moved_aside(machine, place, stopped, spoil):
    spoil(place)
    data = place.read_bytes()
    machine.shim.start()
    machine.wait_shim_ready(30)
    aside = [p for p in place.parent.iterdir() if p.name.endswith(".aside")]
    assert len(aside) == 1
    assert aside[0].read_bytes() == data
    assert f"moved_aside={aside[0]}" in stopped()
    ok(add(machine, 1))
    wait_for("it runs", lambda: pin(machine, "n1.valve") == 1)
    assert check_envelope(write(machine, 0, wait=True))["warnings"] == []
    restart(machine, kill=True)
    assert len([p for p in place.parent.iterdir() if p.name.endswith(".aside")]) == 1, "the new file is good"


def a_folder(place):
    place.mkdir()


def locked(place):
    """Another server uses it."""
    db = sqlite3.connect(place, isolation_level=None)
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    db.execute("CREATE TABLE t(a)")
    db.execute("BEGIN IMMEDIATE")
    return db


@pytest.mark.parametrize("spoil", [a_folder, locked])
def test_a_file_that_cannot_be_used_stops_no_direct_command(machine, place, stopped, spoil):
    other = spoil(place)
    machine.shim.start()
    machine.wait_shim_ready(30)
    assert "cannot be used" in stopped()
    refused(add(machine, 1), "DATABASE_UNAVAILABLE")
    refused(get(machine, "queue/history"), "DATABASE_UNAVAILABLE")
    for value in (1, 0):
        body = check_envelope(write(machine, value, wait=True))
        assert body["status"] == "success" and body["warnings"]
        assert pin(machine, "n1.valve") == value
    assert ok(post(machine, "system/pause")) == {"paused": True}
    assert ok(get(machine, "queue/status"))["holds"] == ["paused"]
    assert ok(post(machine, "system/resume")) == {"resumed": True}
    assert place.exists() and not [p for p in place.parent.iterdir() if p.name.endswith(".aside")]
    if other:
        other.close()


def test_without_a_file_it_ends_with_the_process(make_rig):
    machine = make_homed(make_rig())
    queued = ok(add(machine, 1))["queue_id"]
    wait_for("it runs", lambda: pin(machine, "n1.valve") == 1)
    assert history(machine, "?limit=1")[0]["queue_id"] == queued
    restart(machine)
    assert history(machine) == []
