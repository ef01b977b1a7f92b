# SPDX-License-Identifier: GPL-3.0-or-later
"""What klipperplaced tells systemd, read from a socket of our own in systemd's place.

Invariant: the watchdog's messages come from the loop alone, so a process that stands still sends none.
"""
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

import rig
from helpers import wait_for
from rig_process import Process, write_run_file

SHIM = rig.build_dir() / "shim" / "klipperplaced"
WATCHDOG_S = 1.0


class Service:
    """klipperplaced as systemd starts it, without a Moonraker, and the messages that it sends, each with its time."""

    def __init__(self, folder, name, more_env=None, more=""):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.seen = []
        self.port = rig.free_port()
        config = folder / "klipperplace.cfg"
        config.write_text(f"[api]\nport: {self.port}\nmoonraker_socket: {folder}/none.sock\n[gcode_port]\nenabled: false\n{more}")
        config.chmod(0o600)
        env = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6)), **(more_env or {})}
        write_run_file(folder, [])
        self.process = Process(folder, "shim", [SHIM, "--config", config], sanitized=True,
                               env={"ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "halt_on_error=1:exitcode=99", **env})

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        problems = self.process.stop()
        self.socket.close()
        assert problems == []

    def next(self, timeout=20.0):
        """The next message's lines; None when none comes."""
        self.socket.settimeout(timeout)
        try:
            lines = self.socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return None
        self.seen += lines
        return lines

    def until(self, line, timeout=20.0):
        """Takes messages until this line comes."""
        end = time.monotonic() + timeout
        while line not in (self.next(max(0.01, end - time.monotonic())) or []):
            assert time.monotonic() < end, f"no {line}: {self.seen}"

    def drain(self):
        """What has come up to now."""
        out = []
        while (lines := self.next(0.01)) is not None:
            out += lines
        return out


@pytest.fixture(params=["path", "abstract"])
def service(request, tmp_path):
    name = str(tmp_path / "notify") if request.param == "path" else f"@kp-test-notify-{os.getpid()}-{time.monotonic_ns()}"
    with Service(tmp_path, name) as s:
        yield s


def test_ready_watchdog_and_stopping(service):
    service.until("READY=1")
    socket.create_connection(("127.0.0.1", service.port), timeout=5).close()  # the port is open by then
    service.until("STATUS=Moonraker away, Klipper disconnected")
    began = time.monotonic()
    for _ in range(6):
        service.until("WATCHDOG=1")
    assert time.monotonic() - began > 4 * WATCHDOG_S / 2  # half of the time, no flood
    assert service.process.stop() == []
    assert "STOPPING=1" in service.drain()
    assert service.seen.count("READY=1") == service.seen.count("STOPPING=1") == 1


def test_none_while_it_stands_still(service):
    service.until("WATCHDOG=1")
    service.process.pause()
    stat = Path(f"/proc/{service.process.pid}/stat")
    wait_for("it stands still", lambda: stat.read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T")
    service.drain()
    assert service.next(3 * WATCHDOG_S) is None
    service.process.resume()
    service.until("WATCHDOG=1")


@pytest.mark.parametrize("env", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "never"}, {"WATCHDOG_USEC": ""}])
def test_no_watchdog_is_asked_for(tmp_path, env):
    """Another process's, or none."""
    with Service(tmp_path, str(tmp_path / "notify"), env) as s:
        s.until("READY=1")
        assert "WATCHDOG=1" not in (s.next(2 * WATCHDOG_S) or []) + s.drain()


def test_a_short_watchdog(tmp_path):
    """So short that half of it is no millisecond: it is fed, and the server serves."""
    with Service(tmp_path, str(tmp_path / "notify"), {"WATCHDOG_USEC": "1"}) as s:
        s.until("WATCHDOG=1")
        with socket.create_connection(("127.0.0.1", s.port), timeout=5) as c:
            c.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert c.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", ["", "relative", "@", "/" + "a" * 200, "/nobody/listens"])
def test_a_socket_that_is_none(tmp_path, name):
    """It serves all the same, and says once what is wrong."""
    with Service(tmp_path, str(tmp_path / "unused"), {"NOTIFY_SOCKET": name}) as s:
        deadline = time.monotonic() + 20
        while "serving" not in s.process.output():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if name == "/nobody/listens":
            time.sleep(2 * WATCHDOG_S)  # several that could not be sent
        socket.create_connection(("127.0.0.1", s.port), timeout=5).close()
        assert s.process.output().count("notify") == (0 if name == "" else 1), s.process.output()
        assert s.drain() == []


def test_no_ready_without_a_port(tmp_path):
    """A port that is taken: it ends, and never said that it serves."""
    s = Service(tmp_path, str(tmp_path / "notify"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", s.port))
        taken.listen(1)
        env = {**os.environ, **s.process.env}
        done = subprocess.run(s.process.argv, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "cannot start" in done.stderr
    assert s.drain() == []
    s.socket.close()


def test_klipper_is_in_the_status(tmp_path):
    """Told at each change, and the machine's emergency stop too."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(name)
        s.settimeout(30)

        def until(line):
            while line not in s.recv(4096).decode().split("\n"):
                pass

        with rig.Rig(shim_env={"NOTIFY_SOCKET": name}) as machine:
            until("STATUS=Moonraker connected, Klipper ready")
            machine.klipper.kill()
            until("STATUS=Moonraker connected, Klipper disconnected")
            machine.klipper.start()
            until("STATUS=Moonraker connected, Klipper ready")
            machine.post("/api/v1/system/emergency_stop")
            until("STATUS=Moonraker connected, Klipper shutdown, emergency stop")
