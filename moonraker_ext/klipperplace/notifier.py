# SPDX-License-Identifier: GPL-3.0-or-later
"""Subscriptions of Moonraker's clients: who asked for what, and notify_klipperplace_* to those alone. Invariant: the first message holds the whole state, each
later one what changed since."""
import time

from . import errors


class Notifier:
    def __init__(self, server, sources):
        """sources: event name -> function that gives its state, {key: value}."""
        self.server, self.sources = server, sources
        self.clients = {}  # connection -> {event: what was last told}
        server.register_event_handler("websockets:client_removed", self.forget)

    def forget(self, connection):
        """Gives nothing: what a handler gives back Moonraker takes for a coroutine."""
        self.clients.pop(connection, None)

    def events(self, request, default):
        events = request.get("events", default)
        if isinstance(events, str):
            events = [e.strip() for e in events.split(",")]
        unknown = [e for e in events if not isinstance(e, str) or e not in self.sources] if isinstance(events, list) else [events]
        if unknown:
            raise errors.make(self.server, "INVALID_PARAMETER", 400, f"no event {str(unknown[0])[:40]}; there are {', '.join(self.sources)}", field="events")
        return events

    def subscribe(self, request):
        connection = request.get_client_connection()
        events = self.events(request, list(self.sources))
        told = self.clients.setdefault(connection, {})
        for event in events:
            told[event] = self.sources[event]()
            self.send(connection, event, told[event])
        return {"events": sorted(told)}

    def unsubscribe(self, request):
        connection = request.get_client_connection()
        told = self.clients.get(connection, {})
        for event in self.events(request, list(self.sources)):
            told.pop(event, None)
        if not told:
            self.clients.pop(connection, None)
        return {"events": sorted(told)}

    def subscriptions(self, request):
        return {"events": sorted(self.clients.get(request.get_client_connection(), {})), "available": list(self.sources), "clients": len(self.clients)}

    def send(self, connection, event, state):
        connection.call_method(f"notify_klipperplace_{event}", [{**state, "timestamp": time.time()}])

    def update(self, *events):
        """Tells what changed, of these events or of all; a state is made once for all who want it."""
        wanted = {e for told in self.clients.values() for e in told if not events or e in events}
        for event in wanted:
            state = self.sources[event]()
            for connection, told in self.clients.items():
                if event not in told or told[event] == state:
                    continue
                before = told[event]
                told[event] = state
                changed = {k: v for k, v in state.items() if k not in before or before[k] != v}
                changed.update({k: None for k in before if k not in state})
                self.send(connection, event, changed)
