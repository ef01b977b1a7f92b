# SPDX-License-Identifier: GPL-3.0-or-later
"""What every group of benchmarks measures with: wrk, clients that keep their connection, and /proc.

For the group_*.py files. Invariant: a function returns what it measured or raises NotMeasured; it never fills a gap.
"""
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import rig
from rig_process import Process

HERE = Path(__file__).resolve().parent
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class NotMeasured(Exception):
    """A figure cannot be had; the text says why."""


def start_beside(machine, name, program, *args):
    """A program of ours to measure beside, in the machine's folder; it says when it is ready."""
    process = Process(machine.dir, name, [rig.build_dir() / "tests" / "bench" / program, *args])
    process.start()
    deadline = time.monotonic() + 10
    while "ready" not in process.output():
        if not process.alive or time.monotonic() > deadline:
            text = process.output()
            process.stop()
            raise NotMeasured(f"{program} does not serve: {text}")
        time.sleep(0.02)
    return process


# ---- HTTP ------------------------------------------------------------------------------------------------------------

@dataclass
class Load:
    """One run of wrk."""
    requests: int
    rate: float    # a second
    p50_us: float
    p99_us: float


def wrk(url, connections, seconds):
    """One round of wrk with one thread; an answer that is not 2xx or 3xx, or a broken connection, is an error."""
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "wrk_result.lua", url],
                          capture_output=True, text=True, timeout=seconds + 30)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise NotMeasured(f"wrk {url}: {done.stderr.strip() or done.stdout.strip()}")
    got = json.loads(lines[-1])
    if got["failed"] or not got["requests"]:
        raise NotMeasured(f"wrk {url}: {got['failed']} of {got['requests']} requests failed")
    return Load(got["requests"], got["requests"] / got["duration_us"] * 1e6, got["p50_us"], got["p99_us"])


class Http:
    """One keep-alive connection to a port of this machine. ask() gives the status and the whole answer as it came."""

    def __init__(self, port, timeout=30.0):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, request):
        """request: the bytes of a whole request, from get() or post()."""
        self.socket.sendall(request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._receive()
        head = answer[:end].decode("latin-1")
        length = [line.split(":", 1)[1] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
        if not length:
            raise NotMeasured(f"an answer without a length: {head}")
        while len(answer) < end + 4 + int(length[0]):
            answer += self._receive()
        return int(head.split(" ", 2)[1]), answer

    def _receive(self):
        data = self.socket.recv(65536)
        if not data:
            raise NotMeasured("the connection was closed in the middle of an answer")
        return data


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path, body):
    text = json.dumps(body)
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(text)}\r\n\r\n{text}").encode()


def body_of(answer):
    """The JSON body of an answer that Http.ask() gave."""
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


# ---- JSON-RPC on a unix socket -----------------------------------------------------------------------------------------

class Rpc:
    """One connection to Moonraker's unix socket, kept open; what is no answer to us is passed over."""

    def __init__(self, path, timeout=30.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(str(path))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, request, number):
        """request: from call(), with the same number. Gives the result."""
        self.socket.sendall(request)
        while True:
            while b"\x03" not in self.buffer:
                data = self.socket.recv(65536)
                if not data:
                    raise NotMeasured("Moonraker closed the connection")
                self.buffer += data
            frame, self.buffer = self.buffer.split(b"\x03", 1)
            answer = json.loads(frame)
            if answer.get("id") != number:
                continue
            if "error" in answer:
                raise NotMeasured(f"{request}: {answer['error']}")
            return answer["result"]


def call(method, params, number):
    """The bytes of a JSON-RPC request on a unix socket."""
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\x03"


# ---- /proc -------------------------------------------------------------------------------------------------------------

def cpu_s(pid):
    """Processor time of a process so far, user and system, all threads."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    fields = stat[stat.rindex(")") + 2:].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def memory_mb(pid, field="VmRSS"):
    """Memory of a process: VmRSS now, VmHWM at its highest."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise NotMeasured(f"/proc/{pid}/status has no {field}")


def cpu_pct(pid, seconds):
    """Processor time of a process over the next seconds, in percent of one core."""
    began, before = time.monotonic(), cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - before) / (time.monotonic() - began) * 100
