# SPDX-License-Identifier: GPL-3.0-or-later
"""The Klipper extra on two strict microcontrollers behind lines with delay and jitter: early starts, exact waits, and when Klipper's
own timing holds.

Invariant: when something moved or switched is read from the simulated machine's record.
"""
import time

import pytest

import rig
from helpers import Later, wait_for

LEAD_S = 0.100
SECOND = "config - seed=1\n"  # a world without things: pins and steps are counted all the same
SLOW_S = 0.240  # a start later than this is Klipper's own, which is 0.250 by a clock that the line makes uncertain by some ms
EXTRA = """
[klipperplace]
lead: 0.100
experimental: True
[output_pin far]
pin: second:PA0
value: 0
[manual_stepper far]
step_pin: second:PB0
dir_pin: second:PB1
enable_pin: !second:PH0
microsteps: 16
rotation_distance: 40
velocity: 100
accel: 2000
[virtual_sdcard]
path: data/gcodes
[input_shaper]
[temperature_sensor vacuum2]
sensor_pin: PE7
[pnp_sensor vac]
sensor_pin: PE1
report_time: 0.010
unit: kPa
calibration:
    0.5, 0
    4.5, -90
valid_voltage: 0.2, 4.8
threshold: -30
[gcode_macro BUSY]
gcode:
    {% for i in range(400) %}{% for j in range(400) %}{% endfor %}{% endfor %}
"""


@pytest.fixture(scope="module")
def machine():
    with rig.Rig(shim=False, strict=True, extras=True, second_mcu=SECOND, sim_args=("--wire-delay", "1000", "--wire-jitter", "3000"),
                 printer_extra=EXTRA, world_extra="adc spare pin=PE7 value=0.1") as r:
        yield r


def extra(machine):
    """What the extra says of itself, asked now."""
    return machine.moonraker_call("printer.klipperplace.read", {"objects": {"klipperplace": None}})["status"]["klipperplace"]


def ready(machine):
    """Homed, every motor of the gantry on, and past the seconds after Klipper's start."""
    homed = machine.moonraker_call("printer.objects.query", {"objects": {"toolhead": ["homed_axes"]}})
    if set(homed["status"]["toolhead"]["homed_axes"]) != set("xyz"):
        machine.gcode("G28\nM400")
    machine.gcode("G90\nG1 X100 Y100 Z0 F12000\nM400\nSET_PIN PIN=valve1 VALUE=0\nSET_PIN PIN=light VALUE=0\nM400")
    wait_for("early starts", lambda: extra(machine)["timing"] == "fast", 15)


@pytest.fixture
def fast(machine):
    ready(machine)
    return machine


def first(machine, what, since, **fields):
    """The first event of that kind since then; it may still be on its way."""
    found = []

    def look():
        found[:] = [e for e in machine.events(what) if e["t"] >= since and all(e[k] == v for k, v in fields.items())]
        return found
    wait_for(f"{what} {fields}", look, 10)
    return found[0]


def pin_after(machine, value):
    """Seconds from the request to the pin's change."""
    began = time.monotonic()
    machine.gcode(f"SET_PIN PIN=valve1 VALUE={value}\nM400")
    return first(machine, "pin", began, pin="PD2")["t"] - began


def start_after(machine, script, stepper="x"):
    """Seconds from the request to the first step."""
    began = time.monotonic()
    machine.gcode(script)
    return first(machine, "motion_start", began, stepper=stepper)["t"] - began


def unhurt(machine):
    both = [machine.sim_cmd("status", second=second) for second in (False, True)]
    return all(status["counts"]["late"] == 0 and not status["mcu"]["shutdown"] for status in both)


def test_just_started(machine):
    """Klipper's own timing for 10 s after its start; everything is on."""
    status = extra(machine)
    assert set(status["parts"].values()) == {"on"} and status["lead_ms"] == 100.0
    assert status["links"]["mcu"]["srtt"] >= 0.002  # the line's delay, there and back
    assert pin_after(machine, 1) >= SLOW_S
    assert status["timing"] == "klipper" and status["why"] == "just started"
    log = [line for line in machine.klippy_log().splitlines() if line.startswith("klipperplace: ")]
    assert len(log) == 1 and "fast_start on" in log[0]


def test_pin_from_rest(fast):
    took = [pin_after(fast, i % 2) for i in (1, 2, 3, 4, 5)]
    assert min(took) <= 0.110 and all(t >= LEAD_S - 0.005 for t in took), took
    assert unhurt(fast)


def test_move_and_wait(fast):
    """1 mm and M400 within 150 ms, and no step after the answer."""
    took = []
    for i in range(6):
        began = time.monotonic()
        fast.gcode(f"G1 X{101 - i % 2} F30000\nM400")
        answered = time.monotonic()
        steps = fast.sim_cmd("steps x")
        assert steps["last_step_s"] <= answered and not steps["queued"]
        took.append(answered - began)
    assert min(took) <= 0.150, took
    assert extra(fast)["margin_ms"] > 50


def test_lone_move(fast):
    """Without a wait behind it, a move does not wait for Klipper's 100 ms of more moves."""
    took = []
    for i in range(4):
        took.append(start_after(fast, f"G1 X{101 - i % 2} F30000"))
        fast.gcode("M400\nG4 P50\nM400")  # a pause by which the simulator tells two motions apart
    assert min(took) <= LEAD_S + 0.060, took


def test_no_step_after_a_wait_with_an_input_shaper(fast):
    fast.gcode("SET_INPUT_SHAPER SHAPER_TYPE=mzv SHAPER_FREQ_X=20 SHAPER_FREQ_Y=20")
    try:
        for i in range(10):
            fast.gcode(f"G1 X{105 - 5 * (i % 2)} Y{105 - 5 * (i % 2)} F30000\nM400")
            answered = time.monotonic()
            late = [a for a in ("x", "y") if (s := fast.sim_cmd(f"steps {a}"))["queued"] or s["last_step_s"] > answered]
            assert not late
    finally:
        fast.gcode("SET_INPUT_SHAPER SHAPER_FREQ_X=0 SHAPER_FREQ_Y=0")
    assert unhurt(fast)


def test_homing_is_klippers(fast):
    """From rest to the first step of the homing move: Klipper's own time."""
    fast.gcode("G1 X50 F30000\nM400")
    assert start_after(fast, "G28 X\nM400") >= SLOW_S
    assert start_after(fast, "G1 X60 F30000\nM400") < SLOW_S
    assert unhurt(fast)


def test_motors_that_are_off(fast):
    """The first move of a motor gives its driver Klipper's own time, the next one does not; others are not slowed."""
    fast.gcode("MANUAL_STEPPER STEPPER=feeder1 ENABLE=0\nSET_STEPPER_ENABLE STEPPER=stepper_y ENABLE=0\nM400")
    assert pin_after(fast, 1) < SLOW_S
    assert start_after(fast, "MANUAL_STEPPER STEPPER=feeder1 MOVE=4\nM400", "feeder1") >= SLOW_S
    time.sleep(0.3)
    assert start_after(fast, "MANUAL_STEPPER STEPPER=feeder1 MOVE=8\nM400", "feeder1") < SLOW_S
    assert start_after(fast, "G1 X61 Y61 F6000\nM400") >= SLOW_S
    time.sleep(0.3)  # what Klipper flushes beyond the end of a move of its own timing
    assert start_after(fast, "G1 X62 Y62 F6000\nM400") < SLOW_S
    fast.gcode("MANUAL_STEPPER STEPPER=feeder1 SET_POSITION=0")


def test_printing_a_file_is_klippers(fast):
    """Two pins with a wait between them, from a file and then from a script."""
    lines = "SET_PIN PIN=valve1 VALUE={0}\nM400\nSET_PIN PIN=light VALUE={0}\nM400\n"
    (fast.data / "gcodes" / "two.gcode").write_text(lines.format(1) + "G4 P100\n")
    began = time.monotonic()
    fast.gcode("SDCARD_PRINT_FILE FILENAME=two.gcode")
    one = first(fast, "pin", began, pin="PD2")["t"]
    assert extra(fast)["why"] == "printing a file"
    assert first(fast, "pin", began, pin="PD4")["t"] - one >= SLOW_S
    wait_for("the end of the file", lambda: extra(fast)["timing"] == "fast", 10)
    began = time.monotonic()
    fast.gcode(lines.format(0))
    gap = first(fast, "pin", began, pin="PD4")["t"] - first(fast, "pin", began, pin="PD2")["t"]
    assert gap < SLOW_S


def test_many_stops(fast):
    """Stops of every kind in a row, on both microcontrollers: nothing late, no shutdown."""
    for i in range(1000 if rig.long_run() else 14):
        fast.gcode(f"G1 X{100 + i % 2} F30000\nM400\nSET_PIN PIN=valve1 VALUE={i % 2}\nM400\nG1 Z-{i % 3} F6000\nM400\n"
                   f"MANUAL_STEPPER STEPPER=far MOVE={1 - i % 2}\nM400\nSET_PIN PIN=far VALUE={i % 2}\nM400\n"
                   f"MANUAL_STEPPER STEPPER=rotation1 MOVE={i % 2 * 10}\nM400\nG4 P1\nG1 Y{100 + i % 2}\nM400")
    assert fast.sim_cmd("steps PB0", second=True)["total_steps"] >= 14 * 80 and fast.sim_cmd("pin PA0", second=True)["changes"] >= 13
    status = extra(fast)
    assert unhurt(fast) and not status["stopped"]
    print("smallest margin", status["margin_ms"])


# ---- reading and telling -------------------------------------------------------------------------------------------------

def test_read_now(machine):
    """Twenty reads within the time of eight ticks, and what has changed is in the next one."""
    began = time.monotonic()
    for i in range(20):
        value = (i % 2) * 0.2 + 0.3
        machine.sim_cmd(f"adc PE1 {value}")
        asked = {"objects": {"pnp_sensor vac": None, "toolhead": ["position"], "no_such": None, "motion_report": None}}
        answer = machine.moonraker_call("printer.klipperplace.read", asked)
        assert answer["status"]["no_such"] == {} and list(answer["status"]["toolhead"]) == ["position"]
    assert time.monotonic() - began < 8 * 0.25
    machine.sim_cmd("adc PE1 0.5")
    changed = time.monotonic()
    wait_for("a new sample", lambda: (s := sensor(machine))["time"] > changed and abs(s["raw"] - 0.5) < 0.001, 1)
    assert sensor(machine)["value"] == pytest.approx(-45, abs=0.1)
    machine.sim_cmd("adc PE1 auto")


def sensor(machine):
    return machine.moonraker_call("printer.klipperplace.read", {"objects": {"pnp_sensor vac": None}})["status"]["pnp_sensor vac"]


@pytest.mark.parametrize("params", [{}, {"objects": []}, {"objects": {"toolhead": "position"}}, {"objects": {"toolhead": [1]}},
                                    {"objects": {f"x{i}": None for i in range(513)}}])
def test_bad_questions(machine, params):
    with pytest.raises(rig.RpcError):
        machine.moonraker_call("printer.klipperplace.read", params)
    assert machine.klippy_state()[0] == "ready"


def test_push(machine):
    """A button and a sensor's threshold come without anybody asking."""
    with rig.Pushes(machine.klippy_socket, "klipperplace_push") as pushes:
        for line, name, field, value in (("press start_button", "gcode_button start_button", "state", "PRESSED"),
                                         ("release start_button", "gcode_button start_button", "state", "RELEASED"),
                                         ("adc PE1 0.5", "pnp_sensor vac", "value", -45)):
            machine.sim_cmd(line)
            status = pushes.next(5)["status"]
            assert status[name][field] == pytest.approx(value, abs=0.1)
    machine.sim_cmd("adc PE1 auto")
    machine.sim_cmd("press start_button")  # nobody listens any more
    machine.sim_cmd("release start_button")
    wait_for("they are counted", lambda: extra(machine)["unheard"] >= 2, 5)


# ---- PNP_WAIT ------------------------------------------------------------------------------------------------------------

def test_wait_in_time(fast):
    """The script goes on when the vacuum is there: the next pin changes after the level did."""
    fast.sim_cmd("adc PE1 0.1")
    began = time.monotonic()
    script = Later(fast.gcode, "PNP_WAIT SENSOR=vac BELOW=-50 TIMEOUT=5\nSET_PIN PIN=valve1 VALUE=1\nM400")
    time.sleep(0.3)
    assert not script.done
    fast.sim_cmd("adc PE1 0.8")
    script.answer(5)
    assert first(fast, "pin", began, pin="PD2")["t"] > first(fast, "adc", began, pin="PE1", value=0.8)["t"]


def test_wait_for_other_sensors(fast):
    fast.gcode("PNP_WAIT SENSOR=vacuum1 ABOVE=-5 TIMEOUT=2")  # a temperature_sensor
    with pytest.raises(rig.RpcError, match="no sensor 'nothing'"):
        fast.gcode("PNP_WAIT SENSOR=nothing ABOVE=0")
    with pytest.raises(rig.RpcError, match="BELOW or ABOVE"):
        fast.gcode("PNP_WAIT SENSOR=vac")


def test_wait_too_late(fast):
    """Never there: the script ends there, and what follows is not done."""
    fast.sim_cmd("adc PE1 0.1")
    with pytest.raises(rig.RpcError, match=r"vac is -?0\.\d+ kPa, not below -50.*after 0\.3"):
        fast.gcode("PNP_WAIT SENSOR=vac BELOW=-50 TIMEOUT=0.3\nSET_PIN PIN=valve1 VALUE=1")
    fast.gcode("M400")
    assert fast.sim_cmd("pin PD2")["value"] == 0


def test_wait_sensor_stuck(fast):
    """A sensor that shows the same whatever happens fails the script; one that is torn off has a fault, and Klipper goes on."""
    fast.sim_cmd("adc PE1 auto")
    fast.sim_cmd("fault sensor_stuck n2 0.3")
    fast.gcode("SET_PIN PIN=pump2 VALUE=1\nSET_PIN PIN=valve2 VALUE=1\nM400")
    with pytest.raises(rig.RpcError, match="vac is -22.5"):
        fast.gcode("PNP_WAIT SENSOR=vac BELOW=-50 TIMEOUT=0.3")
    fast.sim_cmd("fault sensor_free n2")
    fast.gcode("SET_PIN PIN=pump2 VALUE=0\nSET_PIN PIN=valve2 VALUE=0\nM400")
    fast.sim_cmd("adc PE1 1")
    wait_for("fault", lambda: sensor(fast)["fault"] == "5.00 V is out of range", 2)
    assert fast.klippy_state()[0] == "ready"
    fast.sim_cmd("adc PE1 auto")
    wait_for("no fault", lambda: sensor(fast)["fault"] is None, 2)


# ---- what ends it ----------------------------------------------------------------------------------------------------------

def stall(machine, seconds, script):
    """Klipper stands still for so long after the script's first line, whose start is not sent yet: BUSY keeps it from that for some ms.
    Gives how long it was. Where this machine made it much longer, a shutdown says nothing."""
    with rig.Pushes(machine.klippy_socket) as console:
        later = Later(rig.rpc, machine.klippy_socket, "gcode/script", {"script": script.replace("\n", "\nRESPOND MSG=now\nBUSY\n", 1)})
        while "now" not in console.next(5)["response"]:
            pass
        began = time.monotonic()
        machine.klipper.pause()
        time.sleep(seconds)
        machine.klipper.resume()
    was = time.monotonic() - began
    try:
        later.answer(20)
    except rig.RpcError:
        if was > seconds + 0.2 * LEAD_S:
            pytest.skip(f"this machine is too busy: a stall of {seconds:.3f} s became one of {was:.3f}")
        raise
    return was


def test_stalls(fast):
    """Stalls of up to 0.6 of the lead: no shutdown. The first margin below half brings Klipper's own timing, which is told."""
    with rig.Pushes(fast.klippy_socket, "klipperplace_push") as pushes:
        longest = max(stall(fast, LEAD_S * 0.25, f"SET_PIN PIN=valve1 VALUE={i % 2}\nG1 X{100 + i % 2} F30000\nM400") for i in range(4))
        status = extra(fast)
        if longest < 0.4 * LEAD_S:
            assert 50 < status["margin_ms"] < 80 and status["timing"] == "fast"
        for i in range(400 if rig.long_run() else 15):
            stall(fast, LEAD_S * 0.6 * (i % 5 + 1) / 5, f"SET_PIN PIN=valve1 VALUE={i % 2}\nG1 X{100 + i % 2} F30000\nM400")
        status = extra(fast)
        assert unhurt(fast)
        assert status["margin_ms"] < 50 and status["stopped"]
        assert status["timing"] == "klipper" and status["why"] == status["stopped"]
        assert pushes.next(1)["status"]["klipperplace"]["stopped"] == status["stopped"]
        assert "Klipper's own timing until restart" in fast.klippy_log()
        assert pin_after(fast, 1 - fast.sim_cmd("pin PD2")["value"]) >= SLOW_S


def test_shutdown_while_waiting(machine):
    """The script ends at once, not at its time."""
    machine.sim_cmd("adc PE1 0.1")
    script = Later(machine.gcode, "PNP_WAIT SENSOR=vac BELOW=-50 TIMEOUT=50")
    time.sleep(0.5)
    machine.sim_cmd("fault shutdown")
    with pytest.raises(rig.RpcError):
        script.answer(10)
    machine.sim_cmd("adc PE1 auto")


def test_nothing_is_left(machine):
    """After FIRMWARE_RESTART without the section, in the same process: Klipper's own timing, no command, no endpoint."""
    pid = machine.klipper.pid
    config = machine.data / "config" / "printer.cfg"
    text = config.read_text()
    start, end = text.index("[klipperplace]"), text.index("[output_pin far]")
    sensor_at, macro = text.index("[pnp_sensor vac]"), text.index("[gcode_macro BUSY]")
    config.write_text(text[:start] + text[end:sensor_at] + text[macro:])
    Later(machine.moonraker_call, "printer.firmware_restart")
    wait_for("the new Klipper", lambda: "klipperplace" not in machine.moonraker_call("printer.objects.list")["objects"], 20)
    machine.wait_klipper_ready(20)
    began = time.monotonic()
    machine.gcode("G28\nM400")
    time.sleep(began + 10.5 - time.monotonic())  # when the extra would begin
    assert machine.klipper.pid == pid
    machine.gcode("G1 X100 F30000\nM400")
    assert pin_after(machine, 1) >= SLOW_S
    assert start_after(machine, "G1 X101 F30000\nM400") >= SLOW_S
    with pytest.raises(rig.RpcError):
        machine.moonraker_call("printer.klipperplace.read", {"objects": {"toolhead": None}})
    assert "PNP_WAIT" not in machine.moonraker_call("printer.gcode.help")


# ---- a Klipper that is not known ------------------------------------------------------------------------------------------------

def changed_klipper(file, old, new, **options):
    """A machine whose Klipper has one file changed; the rig's tree of links makes room for it."""
    r = rig.Rig(shim=False, extras=True, **options)
    path = r.dir / "host" / "klippy" / file
    text = path.read_text()
    assert old in text
    path.unlink()
    path.write_text(text.replace(old, new, 1))
    return r


def test_unknown_klipper():
    """One word of a function that it relies on is another: early starts stay off, the rest works, one line says why."""
    old = "self.print_time = min_print_time\n"
    with changed_klipper("toolhead.py", old, "self.print_time = min_print_time + 0.\n") as machine:
        parts = extra(machine)["parts"]
        assert "ToolHead._calc_print_time is not known" in parts.pop("fast_start") and set(parts.values()) == {"on"}
        assert sum("fast_start is off: " in line for line in machine.klippy_log().splitlines()) == 1
        assert extra(machine)["timing"] == "klipper"
        assert pin_after(machine, 1) >= SLOW_S
        machine.gcode("G28 X\nG1 X50 F30000\nM400")
        assert machine.sim_cmd("steps x")["queued"] == 0


def test_switched_off_in_parts():
    """Options, a second microcontroller, and constants that are not the known ones: each says why."""
    with changed_klipper("toolhead.py", "BUFFER_TIME_START = 0.250", "BUFFER_TIME_START = 0.200",
                         printer_extra="[klipperplace]\nexact_wait: False\npush: False\n") as machine:
        parts = extra(machine)["parts"]
        assert parts["exact_wait"] == parts["push"] == "off in printer.cfg" and parts["read"] == "on"
        assert parts["fast_start"].endswith("toolhead.BUFFER_TIME_START is 0.2, not 0.25")
    with rig.Rig(shim=False, extras=True, second_mcu=SECOND) as machine:
        assert extra(machine)["parts"]["fast_start"] == "more than one microcontroller: not measured"
