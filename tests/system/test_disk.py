# SPDX-License-Identifier: GPL-3.0-or-later
"""The history's file on a disk that is really full, and on one that can only be read: a small file system of the test's own.

For the machine's owner, whose card is full one day. Invariant tested: control goes on, every answer says that it is not kept, nothing that cannot be kept is
queued, and with room again all is as before. tests/system/test_history.py does the same by a limit on the size of files, where nobody may mount.
"""
import contextlib
import os
import subprocess
import time

import pytest

import rig
from helpers import check_envelope, get, go, make_homed, ok, pin, post, refused, wait_for

SIZE_KB = 1024


class Disk:
    """A file system in memory, of one megabyte."""

    def __init__(self, folder):
        self.folder, self.filler = folder, folder / "filler"

    def mount(self, how):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", how, "kp-test", self.folder], capture_output=True, text=True)

    def fill(self):
        """Takes all of its room, to the last byte."""
        with open(self.filler, "ab", buffering=0) as f:
            for size in (4096, 1):
                with contextlib.suppress(OSError):
                    while f.write(b"x" * size):
                        pass
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self):
        self.filler.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    d = Disk(tmp_path_factory.mktemp("disk"))
    mounted = d.mount(f"size={SIZE_KB}k")
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here, so that only test_history.py shows a full disk: {mounted.stderr.strip()}")
    yield d
    subprocess.run(["umount", "-l", d.folder], check=True)


@pytest.fixture(scope="module")
def machine(disk):
    with rig.Rig(klipperplace_extra=f"[history]\ndatabase: {disk.folder}/history.db\n") as r:
        yield r


@pytest.fixture
def homed(machine):
    return make_homed(machine)


@pytest.fixture
def full(disk):
    yield disk
    disk.free()


def write(machine, value, **more):
    return post(machine, "gpio/write", {"pin": "valve1", "value": value, **more})


def add(machine, value):
    return post(machine, "queue/add", {"command": "gpio_write", "parameters": {"pin": "valve1", "value": value}})


def until_unwritable(machine):
    """The pages at the end of a file have room for some more rows; gives the first answer that warns."""
    return wait_for("it is said", lambda: (b := check_envelope(write(machine, 0, wait=True)))["warnings"] and b, 30)


def until_kept(machine):
    wait_for("it can be written", lambda: add(machine, 1)[0] == 200, 10)
    wait_for("it runs", lambda: pin(machine, "n1.valve") == 1)
    assert check_envelope(write(machine, 0, wait=True))["warnings"] == []


def control_goes_on(machine):
    """Moves, pins, reads, pause and a stop work, and say that they are not kept."""
    go(machine, x=40)
    go(machine, x=30)
    for value in (1, 0):
        body = check_envelope(write(machine, value, wait=True))
        assert body["status"] == "success" and any("history" in w for w in body["warnings"])
        assert pin(machine, "n1.valve") == value
    refused(add(machine, 1), "DATABASE_UNAVAILABLE")
    assert ok(get(machine, "queue/status"))["queue_size"] == 0
    assert ok(get(machine, "position"))["homed_axes"] and machine.get("/ready")[0] == 200 and machine.get("/health")[0] == 200
    ok(post(machine, "system/pause"))
    ok(post(machine, "system/resume"))


@pytest.mark.smoke
def test_a_full_disk_and_room_again(homed, full):
    before = len(ok(get(homed, "queue/history?limit=1000"))["entries"])
    full.fill()
    until_unwritable(homed)
    control_goes_on(homed)
    assert homed.shim.output().count("database=unwritable") == homed.shim.output().count("database=writable") + 1, "told when it begins, not with every command"
    assert len(ok(get(homed, "queue/history?limit=1000"))["entries"]) >= before, "what was kept can be read"
    full.free()
    until_kept(homed)
    assert homed.shim.output().count("database=unwritable") == homed.shim.output().count("database=writable")
    assert ok(get(homed, "queue/history?limit=1"))["entries"][0]["state"] == "done"


def test_an_emergency_stop_on_a_full_disk(homed, full):
    full.fill()
    until_unwritable(homed)
    assert ok(post(homed, "system/emergency_stop"))["emergency_stop_active"] is True
    wait_for("the microcontroller has stopped", lambda: homed.sim_cmd("status")["mcu"]["shutdown"])
    ok(post(homed, "system/reset", timeout=40))
    make_homed(homed)
    control_goes_on(homed)


def test_killed_and_started_on_a_full_disk(homed, full):
    """What was in the queue before the disk was full is there afterwards, and nothing of it ran twice."""
    ok(post(homed, "system/pause"))
    waiting = ok(add(homed, 1))["queue_id"]
    full.fill()
    until_unwritable(homed)
    homed.shim.kill()
    homed.shim.start()
    homed.wait_shim_ready(15)
    changes = homed.sim_cmd("pin n1.valve")["changes"]
    go(homed, x=20)
    body = check_envelope(write(homed, 0, wait=True))
    assert body["status"] == "success" and any("history" in w for w in body["warnings"])
    full.free()
    if "cannot be used until the next start" in homed.shim.output():
        assert homed.shim.stop() == []
        homed.shim.start()
        homed.wait_shim_ready(15)
    wait_for("the entry is there", lambda: [e["queue_id"] for e in ok(get(homed, "queue/status"))["queued_commands"]] == [waiting])
    time.sleep(0.3)
    assert homed.sim_cmd("pin n1.valve")["changes"] == changes, "it ran without being told to go on"
    ok(post(homed, "system/resume"))
    wait_for("it runs", lambda: homed.sim_cmd("pin n1.valve")["changes"] == changes + 1)
    until_kept(homed)


def test_a_disk_that_can_only_be_read(homed, disk):
    """Found so at the start: control goes on without a history, and the next start with a good disk has all that was kept."""
    kept = check_envelope(write(homed, 0, wait=True))["command_id"]
    wait_for("it is kept", lambda: ok(get(homed, "queue/history?limit=1"))["entries"][0]["command_id"] == kept)
    assert homed.shim.stop() == []
    subprocess.run(["mount", "-o", "remount,ro", disk.folder], check=True)
    said = len(homed.shim.output())
    try:
        homed.shim.start()
        homed.wait_shim_ready(15)
        make_homed(homed)
        assert "cannot be used until the next start" in homed.shim.output()[said:]
        control_goes_on(homed)
        refused(get(homed, "queue/history"), "DATABASE_UNAVAILABLE")
        assert homed.shim.stop() == []
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk.folder], check=True)
    homed.shim.start()
    homed.wait_shim_ready(15)
    assert ok(get(homed, "queue/history?limit=1"))["entries"][0]["command_id"] == kept
    until_kept(make_homed(homed))
