# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig itself: it is ready, each part can be killed and started alone, and nothing is ever left running."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rig
import rig_process
from helpers import Stalls

TESTS = Path(rig.__file__).resolve().parent


@pytest.fixture(scope="module")
def machine():
    """This file looks below the shim: simulated machine, Klipper and Moonraker."""
    began = time.monotonic()
    with Stalls() as stalls, rig.Rig(shim=False) as r:
        r.gcode("G28\nM400")
        r.stalled_s = stalls.allowed(began, time.monotonic() - began)
        yield r


def gone(pid, timeout=30.0):
    """True when the process ends in time."""
    deadline = time.monotonic() + timeout
    while rig_process.start_time(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children_of(pid):
    """Process ids whose parent is pid."""
    out = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if int(text[text.rindex(")") + 2:].split()[1]) == pid:
            out.append(int(stat.parent.name))
    return out


def settled(machine, stepper):
    """The stepper's counters once it stands: M400 answers a little before the last step's time has come."""
    deadline = time.monotonic() + 30
    while (counters := machine.sim_cmd(f"steps {stepper}"))["moving"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return counters


def mm_per_step(machine, axis):
    """From the world file, which the simulated machine counts by."""
    for line in (machine.dir / "world.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if words[:2] == ["axis", axis]:
            return float(dict(w.split("=") for w in words[2:])["mm_per_step"])
    raise AssertionError(f"no axis {axis} in the world")


@pytest.mark.smoke
def test_ready(machine):
    assert machine.klippy_state()[0] == "ready"
    status = machine.sim_cmd("status")
    assert status["mcu"]["configured"] and not status["mcu"]["shutdown"]
    assert status["counts"]["late_max_us"] / 1e6 <= machine.stalled_s, "late, and nobody kept Klipper waiting"


@pytest.mark.smoke
def test_exact_steps(machine):
    """G1 by Moonraker becomes exactly that many steps at the pins, and the carriage is where they say."""
    machine.gcode("G90\nG1 X50 Y40 F6000\nM400")
    before = {axis: settled(machine, axis) for axis in "xy"}
    machine.gcode("G1 X100.5 Y22.5\nM400")
    for axis, mm in (("x", 50.5), ("y", -17.5)):
        after = settled(machine, axis)
        steps = round(mm / mm_per_step(machine, axis))
        assert after["total_position"] - before[axis]["total_position"] == steps
        assert after["total_steps"] - before[axis]["total_steps"] == abs(steps)
    assert machine.sim_cmd("axis x")["mm"] == pytest.approx(100.5, abs=mm_per_step(machine, "x"))
    assert machine.sim_cmd("axis y")["mm"] == pytest.approx(22.5, abs=mm_per_step(machine, "y"))


def test_errors_of_clients(machine):
    with pytest.raises(rig.RpcError, match="Must home|range|Move out of range"):
        machine.gcode("G90\nG1 X100000 F6000")
    with pytest.raises(rig.RigError, match="kp-sim"):
        machine.sim_cmd("no_such_command")


def test_kill_and_restart_moonraker(machine):
    old = machine.moonraker.pid
    machine.moonraker.kill()
    assert gone(old) and machine.klipper.alive
    with pytest.raises(OSError):
        machine.moonraker_call("server.info")
    machine.moonraker.start()
    machine.wait_ready(20)
    assert machine.moonraker.pid != old


def test_kill_and_restart_klipper(machine):
    boots = machine.sim_cmd("status")["mcu"]["boots"]
    machine.klipper.kill()
    deadline = time.monotonic() + 30
    while machine.klippy_state()[0] == "ready" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert machine.klippy_state()[0] != "ready"
    machine.klipper.start()
    machine.wait_ready(20)
    assert machine.sim_cmd("status")["mcu"]["boots"] >= boots
    machine.gcode("G28\nG90\nG1 X20 F6000\nM400")
    assert machine.sim_cmd("axis x")["mm"] == pytest.approx(20, abs=0.05)


def test_pause_and_resume(machine):
    machine.moonraker.pause()
    with pytest.raises(OSError):
        machine.moonraker_call("server.info", timeout=0.5)
    machine.moonraker.resume()
    assert machine.moonraker_call("server.info")["klippy_connected"]


def test_kill_and_restart_sim(make_rig):
    """A microcontroller that is gone is a lost connection for Klipper; a new one serves after a restart of Klipper."""
    machine = make_rig(shim=False)
    machine.sim.kill()
    machine.klipper.kill()
    machine.sim.start()
    machine._wait(lambda: machine.sim_cmd("status")["ok"], 30, "the simulated machine")
    machine.klipper.start()
    machine.wait_ready(20)
    assert machine.sim_cmd("status")["mcu"]["configured"]


def test_kill_and_restart_shim_by_websocket(make_rig):
    """The shim alone is killed and started, here with its way to Moonraker by WebSocket."""
    machine = make_rig(websocket=True)
    assert "moonraker_socket" not in (machine.data / "config" / "klipperplace.cfg").read_text()
    status, answer, headers = machine.get("/api/v1/position")
    assert status == 200 and answer["status"] == "success" and headers["content-type"].startswith("application/json")
    others = [p.pid for p in machine.parts if p is not machine.shim]
    machine.shim.kill()
    with pytest.raises(ConnectionError):
        machine.get("/health")
    machine.shim.start()
    machine.wait_shim_ready(30)
    assert [p.pid for p in machine.parts if p is not machine.shim] == others
    status, answer, _ = machine.post("/api/v1/motion/move", "{not json", headers={"Content-Type": "application/json"})
    assert status == 400 and answer["status"] == "error"


def test_options_reach_the_files(make_rig):
    machine = make_rig(shim=False, strict=True, printer_extra="[printer]\nmax_velocity: 123\n[output_pin rig_extra]\npin: PI9\nvalue: 1\nshutdown_value: 0",
                       world_extra="button rig_button pin=PI8")
    assert machine.sim_cmd("status")["mcu"]["strict"] is True
    settings = machine.moonraker_call("printer.objects.query", {"objects": {"configfile": ["settings"]}})["status"]["configfile"]["settings"]
    assert settings["printer"]["max_velocity"] == 123
    assert machine.sim_cmd("pin PI9")["value"] == 1
    assert machine.sim_cmd("press rig_button")["ok"]


@pytest.mark.smoke
def test_stop_leaves_nothing():
    machine = rig.Rig(shim=False).start()
    pids = [p.pid for p in machine.parts]
    grandchildren = [child for pid in pids for child in children_of(pid)]
    machine.stop()
    assert all(gone(pid, 0) for pid in pids + grandchildren)
    assert not machine.dir.exists()


def test_part_that_cannot_start_is_told():
    machine = rig.Rig(shim=False, printer_extra="[printer]\nkinematics: no_such_kinematics")
    with pytest.raises(rig.RigError, match="no_such_kinematics"):
        machine.start()
    assert not any(p.alive for p in machine.parts)
    shutil.rmtree(machine.dir)  # kept for its logs


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_owner_takes_all_with_it(number):
    owner = subprocess.Popen([sys.executable, str(TESTS / "rig.py")], stdout=subprocess.PIPE, text=True)
    folder = Path(owner.stdout.readline().split()[1])
    pids = [pid for pid, _ in json.loads((folder / "run.json").read_text())["children"]]
    assert len(pids) >= 3 and all(rig_process.start_time(pid) for pid in pids)
    owner.send_signal(number)
    owner.wait(30)
    owner.stdout.close()
    assert all(gone(pid) for pid in pids)
    assert folder.exists() == (number == signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_stale_run_is_cleaned_by_id_and_start_time(tmp_path):
    """What a dead owner wrote down is ended; a process that has only inherited such an id is not."""
    stale, innocent = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    try:
        folder = tmp_path / "kp-rig-test"
        folder.mkdir()
        children = [[stale.pid, rig_process.start_time(stale.pid)], [innocent.pid, rig_process.start_time(innocent.pid) - 1]]
        rig_process.write_run_file(folder, children)
        assert rig_process.clean_stale(tmp_path) == []  # its owner, this test, lives
        run = json.loads((folder / "run.json").read_text())
        run["owner"][1] -= 1
        (folder / "run.json").write_text(json.dumps(run))
        assert rig_process.clean_stale(tmp_path) == [stale.pid]
        assert stale.wait(5) == -signal.SIGKILL
        assert innocent.poll() is None
        assert not (folder / "run.json").exists()
        os.utime(folder, (0, 0))
        rig_process.clean_stale(tmp_path)
        assert not folder.exists()
    finally:
        for process in (stale, innocent):
            process.kill()
            process.wait()


def test_config_merge():
    text = "# head\n[a]\nx: 1\ny:\n  2\n  3\nz = 4\n\n[b one]\nx: 5\n"
    merged = rig.cfg_merge(text, {"a": {"y": "9", "z": None, "new": "n"}, "c": {"q": "1"}})
    assert rig.cfg_parse(merged) == {"a": {"x": "1", "y": "9", "new": "n"}, "b one": {"x": "5"}, "c": {"q": "1"}}
    assert rig.cfg_merge(text, {}) == text
