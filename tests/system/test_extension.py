# SPDX-License-Identifier: GPL-3.0-or-later
"""The extension _kp, alone: what it answers, what it refuses, and that it keeps nothing. Each case runs in a Python of its own, because a build with
AddressSanitizer needs its runtime loaded first; `python test_extension.py CASE` is that Python."""
import ast
import ctypes
import gc
import importlib.util
import itertools
import math
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import rig  # noqa: E402

FILE = rig.build_dir() / "moonraker_ext" / "_kp.abi3.so"
CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


def load():
    """A new module object of the extension."""
    spec = importlib.util.spec_from_file_location("_kp", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def typed(text):
    """A value of printer.cfg as Klipper's status of its settings has it."""
    try:
        return float(text)
    except ValueError:
        return {"true": True, "false": False}.get(text.lower(), text)


def demo(kp):
    """The demo machine as its files describe it: ready, homed, at (100, 100, 0)."""
    m = kp.Machine(kp.Config((rig.DEMO_CFG / "klipperplace.cfg").read_text()))
    m.moonraker(True)
    m.reset()
    sections = rig.cfg_parse((rig.DEMO_CFG / "printer.cfg").read_text())
    for section, options in sections.items():
        m.object(section)
        for option, value in options.items():
            m.setting(section.lower(), option, typed(value))
    for name in ("toolhead", "gcode_move", "motion_report", "query_endstops", "webhooks", "stepper_enable", "configfile", "idle_timeout"):
        m.object(name)
    for word in ("G1", "G28", "G90", "G91", "G92", "G4", "M400", "M204", "M220", "SET_PIN", "MANUAL_STEPPER", "SAVE_GCODE_STATE", "RESTORE_GCODE_STATE", "SET_GCODE_OFFSET",
                 "SET_VELOCITY_LIMIT", "QUERY_ENDSTOPS", "G0", "G21", "M82", "M221", "SET_FAN_SPEED"):
        m.command(word)
    assert m.resolve() == []
    m.klippy("ready")
    feed(m, 1000, toolhead={"homed_axes": "xyz", "position": [100, 100, 0, 0], "axis_minimum": [0, 0, -31.5, 0], "axis_maximum": [300, 300, 31.5, 0],
                            "max_velocity": 500, "max_accel": 3000},
         gcode_move={"position": [100, 100, 0, 0], "gcode_position": [100, 100, 0, 0], "homing_origin": [0, 0, 0, 0], "absolute_coordinates": True,
                     "speed": 1500, "speed_factor": 1, "extrude_factor": 1},
         motion_report={"live_position": [100, 100, 0, 0]},
         stepper_enable={"steppers": {s: True for s in sections if "stepper" in s}})
    return m


def feed(m, now_ms, **objects):
    m.feed({name.replace("__", " "): fields for name, fields in objects.items()}, now_ms)
    m.pushed(now_ms)


def refused(kp, code, f, *args):
    """Calls f and gives the error it must raise."""
    try:
        f(*args)
    except kp.Error as e:
        assert e.code == code, (e.code, e.message)
        return e
    raise AssertionError(f"{code} was not raised")


# ---- what it answers

@case
def parses_lines(kp):
    assert kp.parse("G1 X10.5 y-.5F3000 ; a comment") == [("G1", {"X": 10.5, "Y": -0.5, "F": 3000.0})]
    assert kp.parse("SET_PIN PIN=valve1 VALUE=1") == [("SET_PIN", {"PIN": "valve1", "VALUE": 1.0})]
    assert kp.parse("g1x1m400") == [("G1", {"X": 1.0}), ("M400", {})]
    assert kp.parse("G28 X") == [("G28", {"X": None})]
    assert kp.parse("(nothing)") == []
    e = refused(kp, "INVALID_REQUEST", kp.parse, "G1 X-")
    assert e.column and e.status == 400 and e.line is None and e.errors[0]["code"] == e.code


def accepted(kp, line):
    try:
        kp.parse(line)
    except kp.Error:
        return False
    return True


@case
def checks_whole_texts(kp):
    good = "G1 X10 Y20 F3000\n; note\n\nM400\r\nSET_PIN PIN=a VALUE=1\n"
    assert kp.check_lines(good) == (3, [])
    count, faults = kp.check_lines("G1 X10\nG1 X-\nG1 X1.2.3")
    assert count == 1 and [f[0] for f in faults] == [2, 3]
    assert all(isinstance(f[1], int) and f[2].isupper() and f[3] for f in faults)
    assert len(kp.check_lines("G1 X-\n" * 5000)[1]) == 1000
    assert kp.check_lines("") == (0, [])
    assert kp.check_lines("G1 X1\r\rG1 X-\r\nG1 X2\n\rG1 X-\r") == (2, [(3, 4, "INVALID_REQUEST", "X takes one plain number"), (6, 4, "INVALID_REQUEST", "X takes one plain number")])
    assert kp.check_lines("G1 X1" + " " * 300 + "\nG1 X1")[1][0][0] == 1 and kp.check_lines("G1 X1\0")[1]
    for line in ("G1 X1", "G1 X-", "T1", "G1 X1 X2", "FOO=", "a b", "G", "M112"):  # the same verdict as of one line
        count, faults = kp.check_lines(line)
        assert bool(faults) == (not accepted(kp, line)), line


@case
def reads_configurations(kp):
    c = kp.Config((rig.DEMO_CFG / "klipperplace.cfg").read_text(), "demo.cfg")
    assert c.sections("nozzle") == ["N1", "N2"] and c.sections("feeder")[5] == "feeder6" and c.sections("none") == []
    assert c.get("nozzle N1", "safe_z") == -20 and c.get("vacuum", "travel_interlock") is True
    assert c.get("api", "port") == 7180 and type(c.get("api", "port")) is int and kp.Config().get("api", "host") == "127.0.0.1"
    assert kp.Config().get("api", "moonraker_socket") is None
    try:
        c.get("api", "nothing")
    except KeyError:
        pass
    else:
        raise AssertionError("an unknown option has a value")
    e = refused(kp, "INVALID_PARAMETER", kp.Config, "[api]\nport: none\nhots: x\n", "bad.cfg")
    assert len(e.errors) >= 2 and "bad.cfg" in e.message and "2" in e.message


@case
def knows_the_machine(kp):
    m = demo(kp)
    assert [n["name"] for n in m.nozzles()] == ["N1", "N2"] and not any(n["fault"] for n in m.nozzles())
    assert len(m.feeders()) == 6 and m.sensor("vacuum1")["unit"] == "kPa"
    assert m.pin("valve1")["object"] == "output_pin valve1" and m.pin("!PD2")["asked_inverted"] is True and m.pin("PD2")["name"] == "valve1"
    assert m.state()["klippy"] == "ready" and m.state()["position"] == {"x": 100, "y": 100, "z": 0} and m.state()["pushed_ms"] == 1000
    assert "temperature_sensor vacuum1" in m.watch()
    feed(m, 2000, output_pin__valve1={"value": 1.0}, temperature_sensor__vacuum1={"temperature": -68.25})
    assert m.pin("valve1")["value"] == 1 and m.pin("valve1")["changed_ms"] == 2000 and m.sensor("vacuum1")["value"] == -68.25
    for name in ("nothing", "", "a\nb", "x" * 300, "\u00e9", "\x00"):
        refused(kp, "PIN_NOT_FOUND", m.pin, name)
        refused(kp, "SENSOR_NOT_FOUND", m.sensor, name)
    assert m.limits()["max_velocity_mm_s"] == 500 and m.limits()["travel_interlock"] is True
    m.klippy("shutdown", "somebody pressed the button")
    assert m.state()["klippy"] == "shutdown" and m.state()["message"] == "somebody pressed the button" and m.state()["states"] != ["ready"]


@case
def plans_commands(kp):
    m = demo(kp)
    plan = m.plan("gpio_write", {"pin": "valve1", "value": 1, "wait": True})
    kind, text, step, _ = plan.step("start")
    assert kind == "script" and "SET_PIN PIN=valve1 VALUE=1" in text and step == "write" and [(m.pins()[i]["name"], v) for i, v in plan.writes] == [("valve1", 1.0)]
    m.accepted(plan, 3000)
    assert m.pin("valve1")["dirty"] is True
    assert plan.step("ok")[0] == "settle"
    feed(m, 4000, output_pin__valve1={"value": 1.0})
    assert m.pin("valve1")["dirty"] is False and plan.step("ok")[0] == "done" and plan.result["completed"] is True
    try:
        plan.step("ok")
    except ValueError:
        pass
    else:
        raise AssertionError("a plan that has ended was stepped")
    move = m.plan("move", {"x": 50.5, "a": 90, "relative": True})
    assert any("X150.5" in line for line in move.gcode) and any("MANUAL_STEPPER" in line for line in move.gcode)
    move.step("start")
    assert refused(kp, "EXECUTION_FAILED", move.step, "error", "no such thing").message == "no such thing"
    assert any("X20" in s for s in m.translate("G90\nG1 X20 F3000\nM400\n"))


@case
def refuses_with_numbers(kp):
    m = demo(kp)
    e = refused(kp, "POSITION_OUT_OF_BOUNDS", m.plan, "move", {"x": 301})
    assert (e.field, e.got, e.max, e.status) == ("x", 301, 300, 400)
    e = refused(kp, "INVALID_PARAMETER", m.plan, "move", {"x": "1", "y": True, "feedrate": 1e9})
    assert {f["field"] for f in e.errors} == {"x", "y", "feedrate"}
    for value in (math.nan, math.inf, -math.inf, 10**400, "1\nM112", "\ud800", [1], [10**400], ["\ud800"], {}, None):
        refused(kp, "INVALID_PARAMETER", m.check, "move", {"x": value})
    refused(kp, "INVALID_PARAMETER", m.check, "move", {"\ud800": 1, "x": 1})
    for code, look, command, name in (("PIN_NOT_FOUND", m.pin, "gpio_read", "pin"), ("SENSOR_NOT_FOUND", m.sensor, "sensor_read", "sensor"),
                                      ("INVALID_PARAMETER", m.fan, "fan_off", "fan")):
        refused(kp, code, look, "\ud800")
        refused(kp, code, m.check, command, {name: "half a pair: \ud800"})
    assert m.check("gpio_read", {"pin": "valve1", "live": "true"}, True) is None
    refused(kp, "COMMAND_NOT_FOUND", m.check, "nothing", {})
    refused(kp, "MISSING_PARAMETER", m.check, "gpio_write", {"pin": "valve1"})
    e = refused(kp, "POSITION_OUT_OF_BOUNDS", m.translate, "G1 X10 F3000\nG1 X999\n")
    assert e.line == 2 and e.column > 0 and e.max == 300
    m.latch("a test")
    assert m.state()["latched"] is True
    refused(kp, "EMERGENCY_STOP_ACTIVE", m.plan, "gpio_write", {"pin": "valve1", "value": 1})
    m.release()
    m.plan("gpio_write", {"pin": "valve1", "value": 1})


@case
def caches(kp):
    c = kp.Cache(entries=100)
    c.set("gpio", "gpio:PB5", b"1", 1000, ttl_ms=50)
    assert c.get("gpio:PB5", 1049) == (b"1", True, 49) and c.get("gpio:PB5", 1050) is None and c.get("gpio:PB5", 1050, True) == (b"1", False, 50)
    c.set("sensor", "s", bytes(1000), 1000, pushed=True)
    c.pushed(5000)
    assert c.get("s", 5010)[1:] == (True, 10) and c.invalidate("s*") == 1 and c.get("s", 5010, True) is None
    assert c.stats()["sets"] == 2 and c.stats()["entries"] == 1
    refused(kp, "INVALID_PARAMETER", kp.Cache, 10**9)


@case
def tells_its_commands(kp):
    rows = kp.commands()
    assert rows["move"]["method"] == "POST" and rows["move"]["path"] == "motion/move" and rows["gpio_read"]["params"][0]["required"] is True
    assert kp.version().count(".") == 2


@case
def stands_junk(kp):
    """Every method with arguments that fit nothing: an exception of a kind that is promised, and no crash."""
    junk = [None, 0, -1, 10**30, 1.5, math.nan, "", "x", "\ud800", "a\0b", b"", b"\xff", [], [1] * 100, ["a", 1], {}, {1: 2}, {"a": {"b": {"c": [None]}}}, object(), kp, kp.Error]
    m = demo(kp)
    things = [kp.Config(), m, m.plan("gpio_write", {"pin": "valve1", "value": 1}), kp.Cache()]
    calls = [getattr(t, n) for t in things for n in dir(t) if not n.startswith("_") and callable(getattr(t, n))]
    calls += [kp.parse, kp.check_lines, kp.Config, kp.Machine, kp.Cache]
    for f in calls:
        if f is kp.Cache:
            continue  # a large cache is memory asked for, not junk
        for args in itertools.chain([()], ((a,) for a in junk), itertools.product(junk, junk)):
            try:
                f(*args)
            except (kp.Error, TypeError, ValueError, KeyError, OverflowError):
                pass
    try:
        kp.Machine.plan.__self__
    except AttributeError:
        pass
    try:
        type(things[2])()
    except TypeError:
        pass
    else:
        raise AssertionError("a Plan was made of nothing")


# ---- what it keeps

class Mallinfo2(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def heap():
    """Bytes that malloc has given out."""
    libc = ctypes.CDLL(None)
    name = "__sanitizer_get_current_allocated_bytes" if sanitized() else "mallinfo2"
    getattr(libc, name).restype = ctypes.c_size_t if sanitized() else Mallinfo2
    info = getattr(libc, name)()
    return info if sanitized() else info.uordblks + info.hblkhd


def sanitized():
    return b"__asan_init" in FILE.read_bytes()


def growth(f, rounds):
    """Bytes by which the heap grows over `rounds` calls: the least of four times, because Python's own caches grow now and then and a leak always does."""
    def once():
        for _ in range(rounds):
            f()
        gc.collect()
        return heap()
    sizes = [once() for _ in range(5)]
    return min(b - a for a, b in zip(sizes, sizes[1:]))


def use(kp):
    """A bit of everything, with its failures."""
    m = demo(kp)
    kp.parse("G1 X1 Y2 F300")
    kp.check_lines("G1 X1\nG1 X-\n")
    for bad in (lambda: kp.parse("G1 X-"), lambda: m.plan("move", {"x": 1e6}), lambda: m.pin("no"), lambda: kp.Config("[api]\nx: 1"), lambda: m.translate("G1 X999")):
        try:
            bad()
        except kp.Error:
            pass
    plan = m.plan("move", {"x": 10})
    plan.step("start")
    m.accepted(plan, 1)
    c = kp.Cache(entries=16)
    c.set("gpio", "a", bytes(500), 1)
    c.get("a", 1)
    return m.pins(), m.sensors(), m.state(), m.limits(), m.translate("G1 X10 F600"), plan.gcode, plan.result, m.axes(), m.fans(), m.heaters(), m.feeders()


@case
def keeps_nothing_of_its_use(kp):
    grown = growth(lambda: use(kp), 12)
    assert grown < 4096, grown


@case
def keeps_nothing_of_its_imports(kp):
    def again():
        use(load())
    grown = growth(again, 12)
    assert grown < 12 * 200, grown  # an import leaves Python's own traces (its list of extensions); a module's types alone are 10 kB


@case
def lives_in_subinterpreters(kp):
    try:
        import _xxsubinterpreters as sub
    except ImportError:
        import _interpreters as sub
    code = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("_kp", {str(FILE)!r})
kp = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kp)
assert kp.parse("G1 X5") == [("G1", {{"X": 5.0}})]
try:
    kp.parse("G1 X-")
except kp.Error as e:
    assert e.code
else:
    raise AssertionError
kp.Machine(kp.Config("[nozzle N1]\\nsafe_z: 1\\nz_axis: z\\n")).pins()
"""
    for _ in range(20):
        one, two = sub.create(), sub.create()
        sub.run_string(one, code)
        sub.run_string(two, code)
        sub.destroy(one)
        sub.run_string(two, code)
        sub.destroy(two)
    use(kp)
    assert load().Error is not kp.Error


@case
def stands_threads(kp):
    """100,000 calls from eight threads on objects of their own and one text for all; what everybody shares is counted as before."""
    text = "G1 X10 Y20 F3000\nG1 X-\n" * 50
    machines = [demo(kp) for _ in range(8)]
    failures = []

    def work(m):
        try:
            for i in range(12500 // 5):
                kp.parse("G1 X1 Y2")
                if i % 10 == 0:
                    assert kp.check_lines(text)[0] == 50
                m.feed({"output_pin valve1": {"value": float(i & 1)}}, i)
                assert m.pin("valve1")["value"] == i & 1
                try:
                    m.pin("nothing")
                except kp.Error as e:
                    assert e.code == "PIN_NOT_FOUND"
                m.check("gpio_read", {"pin": "valve1"})
        except BaseException as e:
            failures.append(e)

    def counts():
        gc.collect()
        return [sys.getrefcount(o) for o in (kp.Error, kp.Machine, kp.Config, text, kp)]
    before, none = counts(), sys.getrefcount(None)
    threads = [threading.Thread(target=work, args=(m,)) for m in machines]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures
    assert counts() == before and abs(sys.getrefcount(None) - none) < 200
    del threads


# ---- for pytest

def run(name, python=None):
    env = rig.extension_env(FILE)
    if "LD_PRELOAD" in env:
        env["ASAN_OPTIONS"] += ":detect_leaks=1"
        env["PYTHONMALLOC"] = "malloc"
    done = subprocess.run([python or sys.executable, __file__, name], env={**os.environ, **env}, capture_output=True, text=True, timeout=900)
    # Python leaves objects of its own behind at its end; a leak of ours has a frame of ours.
    leaks = [b for b in done.stderr.split("\n\n") if "leak of" in b and "_kp.abi3.so" in b]
    assert "case passed" in done.stdout, f"{done.stdout}\n{done.stderr[-4000:]}"
    assert not leaks, "\n\n".join(leaks)
    assert not re.search(r"ERROR: AddressSanitizer|runtime error:", done.stderr), done.stderr[-4000:]


def pytest_generate_tests(metafunc):
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", list(CASES))


def test_extension(name):
    run(name)


def test_imports_the_stable_abi_only():
    """Every symbol of Python that it needs is declared by Python.h under the limited API of 3.10; it gives out its one entry."""
    declared = subprocess.run(["gcc", "-E", "-DPy_LIMITED_API=0x030a0000", *python_includes(), "-"], input="#define PY_SSIZE_T_CLEAN\n#include <Python.h>", capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"\b_?Py\w+", declared))
    symbols = [line.split() for line in subprocess.run(["nm", "-D", FILE], capture_output=True, text=True, check=True).stdout.splitlines()]
    needed = {s[-1].split("@")[0] for s in symbols if s[-2] in "Uw" and re.match(r"_?Py", s[-1])}
    assert needed and needed <= known, needed - known
    given = {s[-1] for s in symbols if s[-2] in "TDBR"}
    assert {g for g in given if not re.search(r"asan|ubsan|sanitizer", g)} == {"PyInit__kp"}


def test_stubs_name_all():
    """The .pyi has every name that the module has, and no other."""
    stub = ast.parse((rig.REPO / "moonraker_ext" / "klipperplace" / "_kp.pyi").read_text())
    written = {"": {n.name for n in stub.body if isinstance(n, (ast.ClassDef, ast.FunctionDef))}}
    for c in (n for n in stub.body if isinstance(n, ast.ClassDef) and n.name != "Error"):
        written[c.name] = {m.name if isinstance(m, ast.FunctionDef) else m.target.id for m in c.body if isinstance(m, (ast.FunctionDef, ast.AnnAssign))} - {"__new__"}
    code = ("import sys; sys.argv = ['']; import test_extension as t; kp = t.load(); n = lambda o: {x for x in dir(o) if x[0] != '_'};"
            "print({'': n(kp), **{c: n(getattr(kp, c)) for c in ('Config', 'Machine', 'Plan', 'Cache')}})")
    env = {**os.environ, **rig.extension_env(FILE), "PYTHONPATH": str(Path(__file__).parent)}
    env["ASAN_OPTIONS"] = "detect_leaks=0"
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(out) == written


def python_includes():
    import sysconfig
    return ["-I" + sysconfig.get_path("include", scheme="posix_prefix"), "-I/usr/include/python3." + str(sys.version_info.minor)]


def test_other_pythons():
    """The same file in every Python from 3.10 on that this machine has."""
    found = {}
    for folder in [*os.environ["PATH"].split(":"), *Path.home().glob(".pyenv/versions/*/bin")]:
        for python in Path(folder).glob("python3.[0-9]*"):
            version = re.fullmatch(r"python3\.(\d+)", python.name)
            if version and int(version[1]) >= 10 and subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:  # a shim of pyenv may lead nowhere
                found[int(version[1])] = python
    for python in found.values():
        run("plans_commands", python)
    run("lives_in_subinterpreters", found[max(found)])  # the newest has the strictest interpreters
    print("tried with", *(f"3.{minor}" for minor in sorted(found)))
    assert 11 in found


if __name__ == "__main__":
    CASES[sys.argv[1]](load())
    print("case passed")
