# SPDX-License-Identifier: GPL-3.0-or-later
"""Load for the drawn faults and the soak: REST clients that move, switch and read, WebSockets that execute and listen, a queue; and the books of what
each was told.

Invariant: a client sends its next request only when the one before has been answered or has been booked as unanswered; what the machine did is read
from the simulated machine, and the books are only what we were told.
"""
import collections
import contextlib
import http.client
import json
import random
import select
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field

from ws_client import KINDS, Client, RpcFailed

BASE = "/api/v1/"
STEP_MM = {"x": 0.0125, "y": 0.0125, "feeder1": 0.01}  # of world.txt
PIN, PIN_PATH = "valve2", "n2.valve"
MOTION_S, READ_S = 10, 10.5  # when the shim itself ends a command (timeout_s) and a live read
SLACK_S = 10.0               # and so much later at most its answer is here: a machine under load
QUEUED = 2                   # entries of the queue that wait at most
PAUSE_S = 0.03               # between two requests of a client, so that many clients leave the processor to the machine
REFUSED_S = 0.15             # after one that was refused
PAGE = 50                    # entries of the history asked for at once
NEVER = {"MOONRAKER_DISCONNECTED", "HOMING_REQUIRED", "CANCELLED"}        # told before anything was sent: nothing moved
EARLY_OR_LATE = {"KLIPPY_DISCONNECTED", "EMERGENCY_STOP_ACTIVE"}          # the same, unless details.step says what was under way
EXPLAINED = NEVER | EARLY_OR_LATE | {"OUTCOME_UNKNOWN", "TIMEOUT", "EXECUTION_FAILED"}  # by a fault; any other answer is a fault of ours
NO_ANSWER = {"status": "error", "error_code": "NO_ANSWER", "details": {}}


def code_of(body):
    return None if body["status"] == "success" else body["error_code"]


def may_have_run(body):
    """Whether a failure leaves it open that the machine has moved. An entry of the queue's history has no details."""
    code, details = code_of(body), body.get("details", {"step": "?", "may_still_run": True})
    if code in EARLY_OR_LATE:
        return "step" in details
    return details["may_still_run"] if code == "TIMEOUT" else code not in NEVER


@dataclass
class Motion:
    """What answers promise of one motor since the books were opened, in steps, or of the pin, in changes."""
    sure: int = 0
    accepted: int = 0                          # by Klipper; not seen to have ended
    maybe: list = field(default_factory=list)  # of each command that may have run


class Books:
    """What clients were told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests, self.unanswered, self.codes = 0, [], collections.Counter()
        self.wrong = []                        # answers that no fault explains
        self.motion = collections.defaultdict(Motion)
        self.queued = {}                       # steps of entries whose end is not known, by id
        self.done = collections.Counter()      # successes by client

    def open(self):
        """Begins to count motion anew."""
        with self.lock:
            self.motion.clear()

    def answered(self, client, body):
        """One answer; its error code or None."""
        code = code_of(body)
        if body is NO_ANSWER:  # booked as missing
            return code
        with self.lock:
            self.requests += 1
            self.codes[code or "OK"] += 1
            if code is None:
                self.done[client] += 1
            elif code not in EXPLAINED:
                self.wrong.append(f"{client}: {body}")
        return code

    def missing(self, client, why):
        with self.lock:
            self.requests += 1
            self.unanswered.append(f"{client}: {why!r}")

    def moved(self, name, count, body, ended=True):
        """count steps were asked of a motor, and this was the answer. ended: a success says that it has moved."""
        with self.lock:
            m = self.motion[name]
            if code_of(body) is None and ended:
                m.sure += count
            elif code_of(body) is None:
                m.accepted += count
            elif may_have_run(body):
                m.maybe.append(count)


class Worker(threading.Thread):
    """One client. Subclasses do one request in once() and say in `name` who they are."""

    name = "client"

    def __init__(self, load, number):
        super().__init__(daemon=True, name=f"{self.name} {number}")
        self.load, self.machine, self.books = load, load.machine, load.books
        self.random = random.Random(f"{load.seed} {self.name}")
        self.busy = threading.Lock()

    def run(self):
        while not self.load.end.is_set():
            with self.busy:
                going = self.load.going.is_set()
                code = self.once() if going else None
            self.load.end.wait(REFUSED_S if code else PAUSE_S)
        self.close()

    def once(self):
        """One request and its answer; gives the error code or None."""
        raise NotImplementedError

    def close(self):
        pass

    def missing(self, why):
        self.books.missing(self.name, why)
        self.close()
        return NO_ANSWER


class Rest(Worker):
    """A client that keeps its connection. Every request has an id of its own, which its answer must bring back."""

    connection = None

    def ask(self, method, path, body=None, within=MOTION_S + SLACK_S):
        """The envelope; NO_ANSWER when there was none, or more than one."""
        request = str(uuid.uuid4())
        headers = {"X-Request-Id": request, **({"Content-Type": "application/json"} if body is not None else {})}
        began = time.monotonic()
        try:
            if not self.connection:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.machine.port, timeout=within)
            self.connection.timeout = within
            self.connection.request(method, BASE + path, json.dumps(body) if body is not None else None, headers)
            answer = self.connection.getresponse()
            text = answer.read()
            more = select.select([self.connection.sock], [], [], 0)[0] and self.connection.sock.recv(1, socket.MSG_PEEK)
        except (OSError, http.client.HTTPException) as e:
            return self.missing(f"{method} {path} after {time.monotonic() - began:.1f} s: {e!r}")
        if answer.headers["X-Request-Id"] != request or more or time.monotonic() > began + within:
            return self.missing(f"{method} {path}: id {answer.headers['X-Request-Id']} for {request}, more {more}, {time.monotonic() - began:.1f} s")
        return json.loads(text)

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None


def distance(draw, name):
    """Steps of one move, and the same in mm."""
    count = draw.randrange(8, 80)
    return count, round(count * STEP_MM[name], 4)


class Mover(Rest):
    """Relative moves of X there and back; half of them wait until the machine has arrived."""

    name = "move"
    way = 1

    def once(self):
        count, mm = distance(self.random, "x")
        wait = self.random.random() < 0.5
        body = self.ask("POST", "motion/move", {"x": self.way * mm, "relative": True, "feedrate": 6000, "wait": wait, "timeout_s": MOTION_S})
        self.books.moved("x", count, body, ended=wait)
        self.way = -self.way
        return self.books.answered(self.name, body)


class Executor(Worker):
    """The same with Y by WebSocket; always waits."""

    name = "execute"
    client = None
    way = 1

    def once(self):
        count, mm = distance(self.random, "y")
        try:
            self.client = self.client or Client(self.machine)
            body = self.client.ask("execute", {"command": "move", "parameters": {"y": self.way * mm, "relative": True, "feedrate": 6000, "wait": True,
                                                                                 "timeout_s": MOTION_S}}, timeout=MOTION_S + SLACK_S)
        except RpcFailed as e:
            body = e.data or {"status": "error", "error_code": f"JSON-RPC {e.code}", "details": {}}
        except Exception as e:  # pylint: disable=broad-except  # whatever the library raises: there was no answer
            body = self.missing(e)
        if self.client and self.client.responses:
            body = self.missing(f"answered twice: {self.client.responses}")
        self.books.moved("y", count, body)
        self.way = -self.way
        return self.books.answered(self.name, body)

    def close(self):
        if self.client:
            with contextlib.suppress(Exception):
                self.client.close()
        self.client = None


class Switcher(Rest):
    """A pin on and off again."""

    name = "switch"
    value = 0  # as far as it was told

    def once(self):
        body = self.ask("POST", "gpio/write", {"pin": PIN, "value": 1 - self.value, "wait": self.random.random() < 0.5, "timeout_s": MOTION_S})
        if not code_of(body) or may_have_run(body):
            self.value = 1 - self.value
        self.books.moved(PIN, 1, body)
        return self.books.answered(self.name, body)


class Queuer(Rest):
    """Feeds a tape by the queue, a few entries at a time."""

    name = "queue"

    def once(self):
        body = self.ask("GET", "queue/status")
        code = self.books.answered("queue status", body)
        if code or body["data"]["queue_size"] >= QUEUED:
            return code
        count, mm = distance(self.random, "feeder1")
        body = self.ask("POST", "queue/add", {"command": "feeder_advance", "parameters": {"feeder": "feeder1", "distance": mm, "feedrate": 4800}})
        code = self.books.answered(self.name, body)
        if code:
            self.books.moved("feeder1", count, body)
        else:
            self.books.queued[body["data"]["queue_id"]] = count
        self.load.end.wait(0.2)
        return code


class Reader(Rest):
    """Reads of all kinds from the mirror."""

    name = "read"
    paths = ("status", "position", "gpio/read_all", "sensor/read_all", "gpio/read?pin=valve1", "sensor/read?sensor=vacuum1", "safety/status", "queue/status")

    def once(self):
        body = self.ask("GET", self.random.choice(self.paths), within=READ_S + SLACK_S)
        return self.books.answered(self.name, body)


class LiveReader(Reader):
    """Reads that ask Klipper."""

    name = "live read"
    paths = ("position?live=true", "gpio/read?pin=valve1&live=true", "sensor/read?sensor=vacuum1&live=true")


class Listener(Worker):
    """A WebSocket that is told everything."""

    name = "listen"
    client = None

    def once(self):
        try:
            if not self.client:
                self.client = Client(self.machine)
                self.client.send("subscribe", {"events": list(KINDS)})
            self.client.told.clear()
            self.client.responses.clear()
            self.client.drain(0.2)
            if self.client.told:
                with self.books.lock:
                    self.books.done[self.name] += 1
        except Exception as e:  # pylint: disable=broad-except  # the shim never goes away, so nor does the session
            return code_of(self.missing(e))
        return None

    close = Executor.close


WORKERS = (Mover, Executor, Switcher, Queuer, Reader, Reader, LiveReader, Listener, Listener)


class Load:
    """All clients. with Load(machine, seed) as load: they begin with go()."""

    def __init__(self, machine, seed, workers=WORKERS):
        self.machine, self.seed, self.books = machine, seed, Books()
        self.end, self.going = threading.Event(), threading.Event()
        self.workers = [kind(self, i) for i, kind in enumerate(workers)]

    def __enter__(self):
        for w in self.workers:
            w.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        for w in self.workers:
            w.join(MOTION_S + SLACK_S + 5)

    def go(self):
        level = self.machine.sim_cmd(f"pin {PIN_PATH}")["value"]
        for w in self.workers:
            if isinstance(w, Switcher):
                w.value = level
        self.going.set()

    def hold(self):
        """Returns when every client has its answer; none asks anything more."""
        self.going.clear()
        for w in self.workers:
            with w.busy:
                pass

    def wait_for_all(self, timeout=60.0):
        """Every kind of client has one more success; gives the names of those that have not in that time."""
        before, end = self.books.done.copy(), time.monotonic() + timeout
        wanted = {w.name for w in self.workers}
        while (left := {n for n in wanted if self.books.done[n] == before[n]}) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def settle_queue(self, timeout=60.0):
        """With all clients held: waits until the queue is empty and books how each of its entries ended; gives what is wrong."""
        end = time.monotonic() + timeout
        while (size := self.machine.get(BASE + "queue/status")[1]["data"]["queue_size"]) and time.monotonic() < end:
            time.sleep(0.02)
        entries = self.ended()
        found = collections.Counter(e["queue_id"] for e in entries)
        by_id, problems = {e["queue_id"]: e for e in entries}, [f"{size} entries still wait"] if size else []
        for queue_id, count in self.books.queued.items():
            if found[queue_id] != 1:
                problems.append(f"queue entry {queue_id} ended {found[queue_id]} times")
                continue
            entry = by_id[queue_id]
            entry["status"] = "success" if entry["state"] == "done" else "error"
            code = code_of(entry)
            if code and code not in EXPLAINED:
                self.books.wrong.append(f"queue: {entry}")
            self.books.moved("feeder1", count, entry)
            self.books.codes[f"queued {code or 'OK'}"] += 1
        self.books.queued.clear()
        return problems

    def ended(self):
        """What the history tells of entries of the queue, back to the oldest whose end is not in the books; by small pages."""
        entries, before, left = [], "", set(self.books.queued)
        while left:
            page = self.machine.get(BASE + f"queue/history?limit={PAGE}{before}")[1]["data"]["entries"]
            entries += [e for e in page if e["queue_id"]]
            left -= {e["queue_id"] for e in page}
            if len(page) < PAGE:
                break
            before = f"&before={page[-1]['command_id']}"
        return entries
