# SPDX-License-Identifier: GPL-3.0-or-later
"""The rig: the simulated machine, Klipper, Moonraker and the shim, started together in a temporary folder.

For the system tests, the demo and the benchmarks. Invariant: whatever a rig starts ends with it, also when its owner is
killed; nothing that it did not start is ever signalled.

    with Rig() as rig:
        rig.post("/api/v1/motion/home", {})
        print(rig.sim_cmd("status"))

Environment: KP_BUILD names the build directory (default build), KLIPPY another Klipper's klippy.py, KLIPPY_PYTHON the
Python that runs it, KP_LONG=1 asks for the big counts.
"""
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rig_process import Process, RigError, clean_stale, write_run_file

REPO = Path(__file__).resolve().parent.parent
DEMO_CFG = REPO / "klipper_cfg" / "demo"
LIVE = []  # every rig that runs in this process, for the test report
PORTS = range(17000, 30000)  # below the ephemeral range, so that no client connection sits on one


def build_dir():
    """The meson build directory that KP_BUILD names."""
    return REPO / os.environ.get("KP_BUILD", "build")


def long_run():
    """True when the big counts are asked for (scripts/test --long)."""
    return os.environ.get("KP_LONG") == "1"


def free_port(taken=()):
    """A loopback port that nobody listens on now."""
    for port in random.sample(PORTS, 200):
        if port in taken:
            continue
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RigError("no free port found")


def link_tree(source, target, copied=()):
    """Links to everything in source, in the folder target. A script that Python is started with is copied: it looks for its modules
    where the file itself lies."""
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.name in copied:
            shutil.copy(entry, target / entry.name)
        else:
            (target / entry.name).symlink_to(entry)


def extension_env(file):
    """What a Python needs in its environment to load the extension; a sanitized one wants its runtime first."""
    if b"__asan_init" not in file.read_bytes():
        return {}
    runtimes = [subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip() for name in ("libasan.so", "libubsan.so")]
    return {"LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99"}


# ---- configuration files -------------------------------------------------------------------------------------------

def cfg_parse(text):
    """Klipper's configuration syntax as {section: {option: value}}; a value may span indented lines."""
    out, section, option = {}, None, None
    for line in text.splitlines():
        head = re.match(r"\[\s*(.+?)\s*\]", line)
        opt = re.match(r"([^\s:=#;\[][^:=]*?)\s*[:=]\s*(.*)$", line)
        if head:
            section, option = out.setdefault(head.group(1), {}), None
        elif opt and section is not None:
            option = opt.group(1)
            section[option] = opt.group(2)
        elif line[:1].isspace() and line.strip() and option:
            section[option] += "\n" + line
    return out


def cfg_merge(text, changes):
    """`text` with options set, or removed where the value is None; sections it lacks are added at the end."""
    changes = {section: dict(options) for section, options in changes.items()}
    out, current, skipping = [], None, False

    def flush():
        for option, value in (changes.get(current) or {}).items():
            if value is not None:
                out.append(f"{option}: {value}")
        changes.pop(current, None)

    for line in text.splitlines():
        head = re.match(r"\[\s*(.+?)\s*\]", line)
        opt = re.match(r"([^\s:=#;\[][^:=]*?)\s*[:=]", line)
        if head:
            flush()
            current, skipping = head.group(1), False
        elif opt and opt.group(1) in changes.get(current, {}):
            value = changes[current].pop(opt.group(1))
            skipping = True
            if value is not None:
                out.append(f"{opt.group(1)}: {value}")
            continue
        elif skipping and line[:1].isspace() and line.strip():
            continue
        else:
            skipping = False
        out.append(line)
    flush()
    for section in list(changes):
        out += ["", f"[{section}]"]
        current = section
        flush()
    return "\n".join(out) + "\n"


# ---- JSON-RPC over a unix socket: Moonraker's and Klipper's own ------------------------------------------------------

class RpcError(Exception):
    """The other side answered with an error."""

    def __init__(self, error):
        super().__init__(error.get("message", str(error)))
        self.error = error


def rpc(path, method, params=None, timeout=30.0):
    """One request on a fresh connection; notifications that arrive in between are passed over."""
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        s.connect(str(path))
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        s.sendall(json.dumps(request).encode() + b"\x03")
        buf = b""
        while True:
            while b"\x03" not in buf:
                s.settimeout(max(0.01, deadline - time.monotonic()))
                data = s.recv(65536)
                if not data:
                    raise ConnectionError(f"{path} closed the connection during {method}")
                buf += data
            line, buf = buf.split(b"\x03", 1)
            answer = json.loads(line)
            if answer.get("id") != 1:
                continue
            if "error" in answer:
                raise RpcError(answer["error"])
            return answer.get("result")


class Pushes:
    """What Klipper sends by itself on its own socket, with Pushes(socket, ...) as p: p.next(timeout): calls of a remote method that is
    registered here, or, without a method's name, lines of its console."""

    def __init__(self, path, method=None):
        self.buf = b""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        params = {"response_template": {"method": "push"}}
        if method:
            params["remote_method"] = method
        request = {"id": 1, "method": "register_remote_method" if method else "gcode/subscribe_output", "params": params}
        self.sock.sendall(json.dumps(request).encode() + b"\x03")
        self._message(5.0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _message(self, timeout):
        deadline = time.monotonic() + timeout
        while b"\x03" not in self.buf:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("Klipper closed the connection")
            self.buf += data
        line, self.buf = self.buf.split(b"\x03", 1)
        return json.loads(line)

    def next(self, timeout):
        """The params of the next push, from the oldest on; TimeoutError when none comes."""
        return self._message(timeout)["params"]


# ---- HTTP --------------------------------------------------------------------------------------------------------------

def http_ask(conn, method, path, body=None, headers=None):
    """One request on a connection of http.client, which is closed after it: (status, answer, headers). The answer is a dict, or text where it is
    not JSON; header names are lower case. body: a dict or list goes as JSON, str and bytes go as they are. A header that is None is not sent."""
    headers = {name: value for name, value in (headers or {}).items() if value is not None}
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    try:
        conn.request(method, path, body=body, headers=headers)
        answer = conn.getresponse()
        text = answer.read().decode()
    finally:
        conn.close()
    names = {k.lower(): v for k, v in answer.getheaders()}
    try:
        return answer.status, json.loads(text), names
    except ValueError:
        return answer.status, text, names


# ---- the rig -----------------------------------------------------------------------------------------------------------

class Rig:
    """One whole machine. Options:

    shim           False leaves the shim out
    strict         a late command shuts the simulated MCU down
    extras         Klipper gets our extra: it runs from a tree of links in the rig's folder, with klipper_cfg/extras linked in, and
                   printer.cfg gets [klipperplace] where printer_extra does not name it
    second_mcu     the text of a world: one more simulated MCU, [mcu second], with that world; sim_cmd(line, second=True) asks it
    websocket      the shim reaches Moonraker by WebSocket instead of its unix socket
    printer_extra, moonraker_extra, klipperplace_extra
                   configuration text: its options override those of the demo's file, its new sections are added
    world_extra    lines appended to the simulated world
    component      Moonraker loads the component klipperplace: True, or the text of its options
    configs        {name: path} of the configuration files in place of the demo's
    moonraker_code with component: a line of Python that Moonraker's process runs before it starts, to be another Moonraker
    sim_args       more options for kp-sim
    shim_env       more environment for the shim
    """

    def __init__(self, *, shim=True, strict=False, extras=False, second_mcu=None, websocket=False, printer_extra="",
                 moonraker_extra="", klipperplace_extra="", world_extra="", sim_args=(), shim_env=None, component=False, configs=None, moonraker_code=""):
        clean_stale()
        self.component, self.moonraker_code = component, moonraker_code
        if component:
            moonraker_extra += "\n[klipperplace]\n" + (component if isinstance(component, str) else "panel: True\n")
        self.dir = Path(tempfile.mkdtemp(prefix="kp-rig-", dir="/tmp"))
        self.keep = False  # True: the folder outlives the rig
        self.key = None  # API key that requests of this rig send
        self.data = self.dir / "data"
        for folder in ("config", "comms", "logs", "gcodes", "database"):
            (self.data / folder).mkdir(parents=True)
        self.moonraker_port = free_port()
        self.port = free_port({self.moonraker_port})
        self.gcode_port = free_port({self.moonraker_port, self.port})
        self.url = f"http://127.0.0.1:{self.port}"
        self.pty = self.dir / "mcu"
        self.sim_socket = self.dir / "sim.sock"
        self.klippy_socket = self.dir / "klippy.sock"
        self.moonraker_socket = self.data / "comms" / "moonraker.sock"
        self.event_log = self.dir / "events.jsonl"
        self.extras = extras
        if extras and "[klipperplace]" not in printer_extra:
            printer_extra += "\n[klipperplace]\n"
        self.second_socket = self.dir / "sim2.sock"
        if second_mcu is not None:
            (self.dir / "world2.txt").write_text(second_mcu)
            printer_extra += f"\n[mcu second]\nserial: {self.dir / 'mcu2'}\nrestart_method: command\n"
        configs = configs or {p.name: p for p in DEMO_CFG.iterdir() if p.suffix in (".cfg", ".conf")}
        self._write_configs(configs, websocket, printer_extra, moonraker_extra, klipperplace_extra, world_extra)
        self._make_parts(shim, ["--strict"] * strict + list(sim_args), shim_env or {})
        write_run_file(self.dir, [])

    def _write_configs(self, configs, websocket, printer_extra, moonraker_extra, klipperplace_extra, world_extra):
        config = self.data / "config"
        own = {
            "printer.cfg": ({"mcu": {"serial": self.pty}}, printer_extra),
            "moonraker.conf": ({"server": {"host": "127.0.0.1", "port": self.moonraker_port,
                                           "klippy_uds_address": self.klippy_socket}}, moonraker_extra),
            "klipperplace.cfg": ({"api": {"host": "127.0.0.1", "port": self.port,
                                          "moonraker_host": "127.0.0.1", "moonraker_port": self.moonraker_port,
                                          "moonraker_socket": None if websocket else self.moonraker_socket},
                                  "gcode_port": {"port": self.gcode_port},
                                  "security": {"rate_limit": "false"}},  # tests ask as fast as they can
                                 klipperplace_extra),
        }
        for name, source in configs.items():
            changes, extra = own.get(name, ({}, ""))
            text = cfg_merge(cfg_merge(source.read_text(), changes), cfg_parse(extra))
            (config / name).write_text(text)
            (config / name).chmod(0o600)  # the shim refuses a file with a key that others may read
        (self.dir / "world.txt").write_text((DEMO_CFG / "world.txt").read_text() + world_extra + "\n")

    def _make_parts(self, shim, sim_args, shim_env):
        python = REPO / ".venv" / "bin" / "python"
        config, logs = self.data / "config", self.data / "logs"
        klippy, klippy_env = self._klippy(python)
        env = {"ASAN_OPTIONS": "detect_leaks=1:exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99"}
        self.sim = Process(self.dir, "sim", [
            build_dir() / "tests" / "sim" / "kp-sim", "--pty", self.pty, "--control", self.sim_socket,
            "--world", self.dir / "world.txt", "--log", self.event_log, "--die-with-stdin", *sim_args], env=env, sanitized=True)
        self.second = Process(self.dir, "sim2", [
            build_dir() / "tests" / "sim" / "kp-sim", "--pty", self.dir / "mcu2", "--control", self.second_socket,
            "--world", self.dir / "world2.txt", "--log", self.dir / "events2.jsonl", "--die-with-stdin", *sim_args], env=env,
            sanitized=True) if (self.dir / "world2.txt").exists() else None
        self.klipper = Process(self.dir, "klipper", [
            *klippy, "-a", self.klippy_socket, "-l", logs / "klippy.log", "-I", self.dir / "console", config / "printer.cfg"],
            env=klippy_env)
        start, moonraker_env = self._link_component() if self.component else (["-m", "moonraker"], {})
        self.moonraker = Process(self.dir, "moonraker", [
            python, *start, "-d", self.data, "-c", config / "moonraker.conf", "-l", logs / "moonraker.log"], env=moonraker_env)
        self.shim = Process(self.dir, "shim", [
            build_dir() / "shim" / "klipperplaced", "--config", config / "klipperplace.cfg"],
            env={**env, **shim_env}, sanitized=True) if shim else None

    def _klippy(self, python):
        """Command and environment of Klipper: KLIPPY's, or the one of .venv."""
        klippy = os.environ.get("KLIPPY")
        if self.extras:
            source = Path(klippy).resolve().parent if klippy else next((REPO / ".venv" / "lib").glob("python3*/site-packages/klippy"))
            tree = self.dir / "host" / "klippy"
            link_tree(source, tree, copied=("klippy.py",))
            (tree / "extras").unlink()
            link_tree(source / "extras", tree / "extras")
            link_tree(REPO / "klipper_cfg" / "extras", tree / "extras")
        if klippy:
            return [os.environ.get("KLIPPY_PYTHON", python), tree / "klippy.py" if self.extras else klippy], {}
        return [python, "-m", "klippy"], {"PYTHONPATH": str(tree.parent)} if self.extras else {}

    def _link_component(self):
        """The component's package with the extension of this build, found by Moonraker beside its own components: how Python is to start it, and its
        environment."""
        package, built = self.dir / "components" / "klipperplace", build_dir() / "moonraker_ext" / "_kp.abi3.so"
        package.mkdir(parents=True)
        for file in (REPO / "moonraker_ext" / "klipperplace").iterdir():
            if file.suffix != ".so" and file.is_file():
                (package / file.name).symlink_to(file)
        (package / built.name).symlink_to(built)
        code = ("import runpy, sys, moonraker.components as c; c.__path__.append(sys.argv.pop(1)); sys.argv[0] = 'moonraker';"
                f"{self.moonraker_code or 'pass'};"
                "runpy.run_module('moonraker', run_name='__main__', alter_sys=True)")
        env = extension_env(built)
        return ["-c", code, package.parent], {**env, "PYTHONDONTWRITEBYTECODE": "1", **({"ASAN_OPTIONS": "detect_leaks=0"} if env else {})}

    @property
    def parts(self):
        """The processes in the order of their start."""
        return [p for p in (self.sim, self.second, self.klipper, self.moonraker, self.shim) if p]

    # -- start and stop

    def start(self, timeout=60.0):
        """Starts every part and waits until the machine is ready; on failure nothing is left and the logs are in the error."""
        LIVE.append(self)
        try:
            for part in self.parts:
                part.start()
                if part in (self.sim, self.second):
                    self._wait(lambda: "ready" in part.output(), 10, "the simulated machine")
            self.wait_ready(timeout)
        except BaseException as e:
            self.keep = True
            logs = self.log_tails()
            self.stop(check=False)
            if isinstance(e, RigError):
                raise RigError(f"{e}\n{logs}\nfolder kept: {self.dir}") from e
            raise
        return self

    def stop(self, check=True):
        """Ends the parts in reverse order and removes the folder. With check, a crash or a sanitizer report is an error."""
        problems = []
        for part in reversed(self.parts):
            problems += part.stop()
        if self in LIVE:
            LIVE.remove(self)
        (self.dir / "run.json").unlink(missing_ok=True)
        if problems and check:
            self.keep = True
            raise RigError("\n".join(problems) + f"\nfolder kept: {self.dir}")
        if not self.keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        self.stop(check=kind is None)

    def _wait(self, ready, timeout, what):
        """Polls ready() until it is true; a part that has ended meanwhile is an error, and a RigError of ready() too."""
        deadline = time.monotonic() + timeout
        while True:
            for part in self.parts:
                if part.started and not part.alive and not part.killed:
                    raise RigError(f"{part.name} ended with code {part.returncode} while waiting for {what}")
            try:
                if ready():
                    return
            except (OSError, RpcError, http.client.HTTPException, ValueError) as e:
                last = e
            else:
                last = None
            if time.monotonic() > deadline:
                raise RigError(f"{what} is not ready after {timeout:g} s" + (f": {last}" if last else ""))
            time.sleep(0.02)

    def klippy_state(self):
        """Klipper's state and its message as Moonraker knows them; the message is of an error or a shutdown."""
        info = self.moonraker_call("server.info", timeout=5)
        state = info["klippy_state"] if info["klippy_connected"] else "disconnected"
        text = self.moonraker_call("printer.info", timeout=5)["state_message"] if state in ("error", "shutdown") else ""
        return state, text

    def wait_klipper_ready(self, timeout=30.0):
        """Waits until Moonraker says that Klipper is ready; an error in Klipper's configuration is told at once."""
        def ready():
            state, text = self.klippy_state()
            if state == "error":
                raise RigError(f"Klipper is in state {state}: {text}")
            return state == "ready"
        self._wait(ready, timeout, "Klipper")

    def wait_shim_ready(self, timeout=30.0):
        """Waits until the shim's /ready answers 200."""
        self._wait(lambda: self.get("/ready", timeout=2)[0] == 200, timeout, "the shim")

    def wait_ready(self, timeout=30.0):
        """Waits for every part that the rig has."""
        self.wait_klipper_ready(timeout)
        if self.shim:
            self.wait_shim_ready(timeout)

    # -- clients

    def sim_cmd(self, line, timeout=10.0, second=False):
        """One command to the simulated machine; its answer as a dict. An error is raised."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(timeout)
            s.connect(str(self.second_socket if second else self.sim_socket))
            s.sendall(line.encode() + b"\n")
            buf = b""
            while not buf.endswith(b"\n"):
                data = s.recv(65536)
                if not data:
                    raise ConnectionError(f"kp-sim closed the connection during {line!r}")
                buf += data
        answer = json.loads(buf)
        if "error" in answer:
            raise RigError(f"kp-sim: {line!r}: {answer['error']}")
        return answer

    def events(self, *kinds):
        """The events of the simulated machine so far, all or those kinds."""
        lines = self.event_log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [e for e in found if not kinds or e["what"] in kinds]

    def request(self, method, path, body=None, headers=None, timeout=150.0, source=None):
        """One HTTP request to the shim, as http_ask(). source: the loopback address to come from."""
        conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout, source_address=(source, 0) if source else None)
        return http_ask(conn, method, path, body, {"X-API-Key": self.key, **(headers or {})})

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body if body is not None else {}, **options)

    def moonraker_call(self, method, params=None, timeout=30.0):
        """A JSON-RPC request to Moonraker by its unix socket."""
        return rpc(self.moonraker_socket, method, params, timeout)

    def gcode(self, script, timeout=120.0):
        """Runs a script in Klipper, past the shim."""
        return self.moonraker_call("printer.gcode.script", {"script": script}, timeout)

    def scripts(self, since):
        """The G-code that Moonraker was given since then (time.time()), by anyone."""
        store = self.moonraker_call("server.gcode_store")["gcode_store"]
        return [e["message"] for e in store if e["type"] == "command" and e["time"] >= since]

    # -- logs

    def klippy_log(self):
        path = self.data / "logs" / "klippy.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def log_files(self):
        """Every log of the rig that exists and is not empty."""
        found = [p.log_path for p in self.parts] + sorted((self.data / "logs").glob("*.log")) + [self.event_log]
        return [p for p in found if p.exists() and p.stat().st_size]

    def log_tails(self, lines=40):
        """The last lines of every log."""
        out = []
        for path in self.log_files():
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            out.append(f"---- {path}\n" + "\n".join(tail))
        return "\n".join(out)


if __name__ == "__main__":
    # `python tests/rig.py`: a machine to play with, until Ctrl-C or SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Rig(shim=(build_dir() / "shim" / "klipperplaced").exists()) as _rig:
        print(f"folder {_rig.dir}\nMoonraker http://127.0.0.1:{_rig.moonraker_port}\nshim {_rig.url}", flush=True)
        try:
            while all(part.alive for part in _rig.parts):
                time.sleep(0.5)
        except KeyboardInterrupt:
            sys.exit(0)
