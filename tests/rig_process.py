# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of a rig, and what keeps processes from being left behind.

For rig.py. Invariant: a process is signalled only while its id and its start time are those that were written down.
"""
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
KEPT_S = 24 * 3600  # folders of dead runs are removed when they are this old
LIBC = ctypes.CDLL(None, use_errno=True)
# What AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer print.
REPORT = re.compile(r"(ERROR|WARNING): (Address|Leak|Thread)Sanitizer|runtime error:|Sanitizer:DEADLYSIGNAL")


class RigError(Exception):
    """The rig itself failed: a part did not start, ended, or answered what it must not."""


def stat_fields(pid):
    """The fields of /proc/<pid>/stat from the state on; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat[stat.rindex(")") + 2:].split()  # the name before it may hold anything


def start_time(pid):
    """When the process started, in clock ticks since boot; None when there is none (a zombie counts as none)."""
    fields = stat_fields(pid)
    return None if not fields or fields[0] == "Z" else int(fields[19])


def write_run_file(folder, children):
    """Notes who owns the folder and what runs for it: pairs of process id and start time."""
    me = os.getpid()
    text = json.dumps({"owner": [me, start_time(me)], "children": children})
    new = folder / "run.new"
    new.write_text(text)
    new.rename(folder / "run.json")


def clean_stale(root="/tmp"):
    """Ends what runs of a killed owner left behind, by id and start time, and removes old folders. Returns the ids it ended."""
    ended = []
    for folder in Path(root).glob("kp-rig-*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            age = time.time() - folder.stat().st_mtime
            run = json.loads((folder / "run.json").read_text())
        except FileNotFoundError:
            run = None
        except (OSError, ValueError):
            continue
        if run:
            pid, started = run["owner"]
            if start_time(pid) == started:
                continue
            for pid, started in run["children"]:
                if start_time(pid) == started:
                    os.kill(pid, signal.SIGKILL)
                    ended.append(pid)
            (folder / "run.json").unlink(missing_ok=True)
        if age > KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)
    return ended


class Process:
    """A part of the rig. start, kill (SIGKILL), pause and resume (SIGSTOP, SIGCONT) and stop (SIGTERM) work alone; a part
    that was killed or stopped can be started again."""

    def __init__(self, folder, name, argv, env=None, sanitized=False):
        self.folder, self.name = folder, name
        self.argv = [str(a) for a in argv]
        self.env, self.sanitized = env or {}, sanitized
        self.log_path = folder / f"{name}.log"
        self.popen = None
        self.killed = False  # ended by us: not a crash

    @property
    def started(self):
        return self.popen is not None

    @property
    def alive(self):
        return self.started and self.popen.poll() is None

    @property
    def pid(self):
        return self.popen.pid if self.alive else None

    @property
    def returncode(self):
        return self.popen.poll() if self.started else None

    def start(self):
        """Starts the process; does not wait until it serves."""
        if self.alive:
            raise RigError(f"{self.name} runs already")
        owner = os.getpid()

        def die_with_owner():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != owner:  # it died before the call above
                os._exit(1)

        self.killed = False
        try:
            with open(self.log_path, "ab") as log:
                self.popen = subprocess.Popen(
                    self.argv, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=self.folder, env={**os.environ, **self.env},
                    start_new_session=True, preexec_fn=die_with_owner)
        except OSError as e:
            raise RigError(f"{self.name} cannot be started: {e}") from e
        self._note()

    def _note(self):
        run = json.loads((self.folder / "run.json").read_text())
        run["children"] = [[pid, t] for pid, t in run["children"] if start_time(pid) == t]
        run["children"].append([self.popen.pid, start_time(self.popen.pid)])
        write_run_file(self.folder, run["children"])

    def kill(self):
        """SIGKILL, and waits until it is gone."""
        self.killed = True
        if self.alive:
            self.popen.kill()
        self._reap(5)

    def pause(self):
        """Stops it (SIGSTOP); returns when it stands. On a busy machine that takes a moment, and a resume() in it would undo the stop."""
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while stat_fields(self.pid)[0] != "T":
            if time.monotonic() > deadline:
                raise RigError(f"{self.name} does not stop")
            time.sleep(0.001)

    def resume(self):
        self._signal(signal.SIGCONT)

    def _signal(self, number):
        if not self.alive:
            raise RigError(f"{self.name} does not run")
        self.popen.send_signal(number)

    def _reap(self, timeout):
        """True when the process has ended in time."""
        if not self.started:
            return True
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self.popen.stdin.close()
        return True

    def stop(self, timeout=10.0):
        """Ends it by SIGTERM, then by SIGKILL. Returns what was wrong with its end, as a list of sentences."""
        problems = []
        if self.alive:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.terminate()
            if not self._reap(timeout):
                problems.append(f"{self.name} did not end within {timeout:g} s of SIGTERM")
                self.kill()
            elif self.sanitized and self.returncode != 0:
                problems.append(f"{self.name} ended with code {self.returncode}")
        elif self.started and not self.killed:
            problems.append(f"{self.name} ended by itself with code {self.returncode}")
        self.killed = True
        if self.sanitized and (found := REPORT.search(self.output())):
            problems.append(f"{self.name} has a sanitizer report: {self.output()[found.start():][:4000]}")
        return problems

    def output(self):
        """What it has written to stdout and stderr so far, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
