# SPDX-License-Identifier: GPL-3.0-or-later
"""The shim, klipperplaced, as it announces itself over its own connection to Moonraker.

It calls api.klipperplace.announce at least once a second with its state; while it does, requests go to it as notifications "klipperplace_request" {id, command,
parameters} on that connection, and it answers by api.klipperplace.answer {id, answer: the envelope of API v1}. What happens there comes by
api.klipperplace.event. Only sockets may call these; nothing is guessed: a shim silent for SILENT_S is not here."""
import asyncio
import itertools
import time

from . import errors

SILENT_S = 3.0
GRACE_S = 5.0       # beyond the command's own time, for the way there and back
EVENTS_KEPT = 20


class Shim:
    def __init__(self, server, changed, happened):
        self.server, self.changed, self.happened = server, changed, happened
        self.connection = None
        self.told = {}
        self.heard_at = 0.0
        self.ids = itertools.count(1)
        self.pending = {}
        self.events = []
        from ...common import RequestType, TransportType
        for name, handler in (("announce", self.on_announce), ("answer", self.on_answer), ("event", self.on_event)):
            server.register_endpoint(f"/api/klipperplace/{name}", RequestType.POST, handler, transports=TransportType.WEBSOCKET)
        server.register_event_handler("websockets:client_removed", self.on_removed)

    @property
    def here(self):
        return self.connection is not None and time.monotonic() - self.heard_at < SILENT_S

    async def on_announce(self, request):
        connection = request.get_client_connection()
        was = self.here
        if was and connection is not self.connection:
            raise self.server.error("INTERLOCK: another klipperplaced is announced already", 409)
        self.connection, self.heard_at = connection, time.monotonic()
        told = {k: v for k, v in request.get_args().items()}
        if told != self.told or not was:
            self.told = told
            self.changed()
        return {"silent_s": SILENT_S}

    def from_it(self, request):
        if request.get_client_connection() is not self.connection:
            raise self.server.error("PERMISSION_DENIED: only the announced klipperplaced may call this", 403)

    async def on_answer(self, request):
        self.from_it(request)
        future = self.pending.pop(request.get_int("id"), None)
        if future and not future.done():
            future.set_result(request.get("answer"))
        return "ok"

    async def on_event(self, request):
        self.from_it(request)
        event = {k: v for k, v in request.get_args().items()}
        event.setdefault("timestamp", time.time())
        self.events = ([event] + self.events)[:EVENTS_KEPT]
        self.happened(event)
        return "ok"

    def on_removed(self, connection):
        if connection is not self.connection:
            return
        self.connection, self.told = None, {}
        pending, self.pending = self.pending, {}
        for f in pending.values():
            if not f.done():
                f.set_exception(errors.make(self.server, "OUTCOME_UNKNOWN", 502, "klipperplaced went away after the command was sent: it may have run"))
        self.changed()

    def notify(self, method, params):
        if self.here:
            self.connection.call_method(method, [params])

    async def run(self, command, parameters, timeout_s):
        if self.connection is None:
            raise errors.make(self.server, "MOONRAKER_DISCONNECTED", 503, "klipperplaced has just gone: nothing was sent")
        number = next(self.ids)
        future = self.pending[number] = asyncio.get_running_loop().create_future()
        self.connection.call_method("klipperplace_request", [{"id": number, "command": command, "parameters": parameters}])
        try:
            answer = await asyncio.wait_for(future, timeout_s + GRACE_S)
        except asyncio.TimeoutError:
            raise errors.make(self.server, "OUTCOME_UNKNOWN", 502, "klipperplaced did not answer in time: it may have run") from None
        finally:
            self.pending.pop(number, None)
        if answer.get("status") in ("success", "partial"):
            return answer["data"]
        status = {"error": 400, "timeout": 504, "cancelled": 409}[answer.get("status", "error")]
        raise errors.make(self.server, answer.get("error_code", "INTERNAL_ERROR"), answer.get("http_status", status), answer.get("error_message", ""),
                          **(answer.get("details") or {}))
