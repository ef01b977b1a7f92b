# SPDX-License-Identifier: GPL-3.0-or-later
"""What the component writes. Invariant: one gate. While the shim is announced every write goes through it, because latch, lane and sequences live there; else
it is planned here, by libkp, and told as done only when Klipper shows it."""
import asyncio
import logging
import time

from . import _kp, errors
from .mirror import now_ms

SETTLE_S = 5.0       # how long a push that shows a write is waited for
SHOWN = 0.005        # how far a fan's speed as shown may be from the one asked for: it is one of 256 steps somewhere
SHIM_S = 30          # for an answer of the shim's, where the command has no time of its own
LOOK_S = 0.1         # how often a ramp looks whether the shim has come
UNKNOWN = "// Unknown command:\""


class Writer:
    def __init__(self, server, mirror, shim):
        self.server, self.mirror, self.shim = server, mirror, shim
        self.lock = asyncio.Lock()  # one script of ours in flight: whose console lines they are is known only so
        self.ramps = {}             # pin name -> the task that leads it
        self.lines = None           # console lines while a script runs
        self.rows = _kp.commands()
        server.register_event_handler("server:gcode_response", self.on_line)
        mirror.heard.append(self.on_state)

    def on_line(self, line):
        if self.lines is not None:
            self.lines.append(line)

    async def run(self, command, args, text):
        """Runs a command of API v1 to its end; its data."""
        if any(p["name"] == "wait" for p in self.rows[command]["params"]):
            args = {**args, "wait": True}
        if not self.shim.here:
            done = await (self.ramp(self.checked(command, args, text)) if command == "pwm_ramp" else self.run_here(command, args, text))
            if done is not None:
                return done
        return await self.run_there(command, self.checked(command, args, text))

    def checked(self, command, args, text):
        """The same words for what is wrong, and no text where a number is expected."""
        self.mirror.machine.check(command, args, text)
        return self.typed(command, args) if text else args

    async def run_there(self, command, args):
        if "pin" in args:  # a ramp of ours that is about to be handed over must not come behind it
            self.end_ramp(self.mirror.machine.pin(args["pin"])["name"])
        return await self.shim.run(command, args, self.rows[command]["timeout_s"] or SHIM_S)

    def on_state(self):
        """A ramp does not outlive the Klipper it was asked of: one that is back before the next step is a machine that nobody has commanded."""
        if not self.mirror.ready:
            for name in list(self.ramps):
                logging.warning(f"klipperplace: the ramp of {name} ended early: Klipper is not ready any more")
                self.end_ramp(name)

    def end_ramp(self, name):
        task = self.ramps.pop(name, None)
        if task:
            task.cancel()

    async def ramp(self, args):
        """Leads a PWM pin from one value to another, as planned by libkp; answers when Klipper shows the first value. Steps go between other writes.
        None: the shim came before the first."""
        began = time.monotonic()
        name = self.mirror.machine.pin(args["pin"])["name"]
        plan = self.mirror.machine.plan("pwm_ramp", args)
        self.end_ramp(name)
        async with self.lock:
            if self.shim.here:
                return None
            self.end_ramp(name)  # one that began meanwhile
            plan_at = await self.ramp_step(plan, plan.step("start"))
            accepted = time.monotonic()
            await self.settle(now_ms())
            task = self.ramps[name] = asyncio.get_running_loop().create_task(self.lead(name, args, plan, plan_at, accepted))
        task.add_done_callback(lambda t: self.ramps.pop(name, None) if self.ramps.get(name) is t else None)
        return {"pin": name, "steps": int(args.get("steps", 10)), "duration": args["duration"], "completed": False, "gcode": plan.gcode,
                "execution_time": time.monotonic() - began}

    async def ramp_step(self, plan, action):
        """Runs the script of a ramp's step; the action that follows."""
        problem = await self.script(action[1])
        if problem:
            plan.step("error", problem)  # raises
        self.mirror.machine.accepted(plan, now_ms())
        return plan.step("ok")

    async def lead(self, name, args, plan, action, accepted):
        """The steps after the first, each when it is due. A shim that comes leads the rest."""
        steps, done = int(args.get("steps", 10)), 0
        try:
            while action[0] == "delay":
                if await self.shim_before(accepted + action[3] / 1000):
                    if await self.hand_over(args, steps, done):
                        return
                    continue
                async with self.lock:
                    if self.shim.here:
                        continue
                    elapsed = time.monotonic() - accepted
                    action = await self.ramp_step(plan, plan.step("time", elapsed * 1000))
                    done = min(int(elapsed / args["duration"] * steps + 0.01), steps - 1)
        except (_kp.Error, self.server.error) as e:
            logging.warning(f"klipperplace: the ramp of {name} ended early: {e}")

    async def shim_before(self, due):
        """Waits for that time; true when the shim is there before it."""
        while not self.shim.here and (left := due - time.monotonic()) > 0:
            await asyncio.sleep(min(left, LOOK_S))
        return self.shim.here

    async def hand_over(self, args, steps, done):
        """One gate: what is left of a ramp becomes the shim's, unless the pin was written meanwhile. A shim that has just come reads Klipper first.
        False: the shim has gone, and nothing was sent."""
        await self.pushed_after(now_ms())
        share, span = done / steps, args["end_value"] - args["start_value"]
        now = args["start_value"] + span * share
        rest = {**args, "start_value": now, "duration": args["duration"] * (1 - share), "steps": steps - done}
        deadline = time.monotonic() + SETTLE_S
        while self.shim.here:
            p = self.mirror.machine.pin(args["pin"])
            if abs((1 - p["value"] if p["asked_inverted"] else p["value"]) - now) > SHOWN:
                return True
            try:
                await self.shim.run("pwm_ramp", rest, SHIM_S)
                return True
            except self.server.error as e:
                if not str(e).startswith(("KLIPPY_DISCONNECTED", "MOONRAKER_DISCONNECTED", "PIN_NOT_FOUND")) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(LOOK_S)
        return False

    def typed(self, command, args):
        """Checked arguments of a query string as JSON would have them."""
        kinds = {p["name"]: p["type"] for p in self.rows[command]["params"]}

        def one(name, value):
            if not isinstance(value, str):
                return value
            if kinds.get(name) == "boolean":
                return value.lower() in ("true", "1")
            return float(value) if kinds.get(name) in ("number", "integer") or name == "timeout_s" else value
        return {name: one(name, value) for name, value in args.items()}

    async def run_here(self, command, args, text):
        """None: the shim came before it could begin."""
        async with self.lock:
            return None if self.shim.here else await self.locked(command, args, text)

    async def locked(self, command, args, text):
        began = time.monotonic()
        machine = self.mirror.machine
        plan = machine.plan(command, args, text)
        kind, script, _, sensor = plan.step("start")
        while kind != "done":
            if kind == "script":
                problem = await self.script(script)
                if problem:
                    plan.step("error", problem)  # raises: what was planned to follow does not
                machine.accepted(plan, now_ms())
                for index, _ in plan.writes:
                    self.end_ramp(machine.pins()[index]["name"])
                kind, script, _, sensor = plan.step("ok")
            elif kind == "settle":
                await self.settle(now_ms())
                kind, script, _, sensor = plan.step("ok")
            else:
                await self.pushed_after(now_ms())
                told = machine.sensors()[sensor]
                kind, script, _, sensor = plan.step("sample", told["value"] if told["known"] else None)
        result = plan.result
        return {**self.names(command, args, result["value"]), "completed": result["completed"], "gcode": plan.gcode, "execution_time": time.monotonic() - began}

    def names(self, command, args, value):
        """What was written, as API v1 tells it; a fan must show it too."""
        if command.startswith("fan_"):
            fan = self.mirror.machine.fan(args.get("fan", "fan"))
            if abs(fan["speed"] - value) > SHOWN:
                raise errors.make(self.server, "EXECUTION_FAILED", 500, f"Klipper took the command and shows {fan['speed']:g} for {fan['name']}",
                                  got=fan["speed"])
            return {"fan": fan["name"], "speed": value}
        pin = self.mirror.machine.pin(args["pin"])
        return {"pin": pin["name"], "value": value, "cycle_time": pin["cycle_time_s"]}

    async def script(self, text):
        """Runs one script. What was wrong with it, in words; None: nothing."""
        words = {line.split()[0] for line in text.splitlines() if line.split()}
        self.lines = []
        try:
            await self.server.lookup_component("klippy_apis").run_gcode(text)
            await asyncio.sleep(0)  # the last lines' callbacks stand in the loop's queue before us, two turns deep
            await asyncio.sleep(0)
        except self.server.error as e:
            if e.status_code == 503 and not self.mirror.ready:
                raise errors.make(self.server, "OUTCOME_UNKNOWN", 502, "Klipper went away after the command was sent: it may have run") from None
            return f"Klipper refused: {e}"
        finally:
            lines, self.lines = self.lines, None
        for line in lines:
            if line.startswith(UNKNOWN) and line[len(UNKNOWN):].split('"')[0] in words:
                return "Klipper has no command " + line[len(UNKNOWN):].split('"')[0]
        return None

    async def pushed_after(self, since):
        deadline = time.monotonic() + SETTLE_S
        while True:
            if not self.mirror.ready:  # also when it went right behind that push: what it forgot then was not shown
                state = self.mirror.machine.state()
                raise errors.make(self.server, "KLIPPY_DISCONNECTED", 503, f"Klipper took the command and is not ready any more: {state['klippy']}",
                                  klipper={"state": state["klippy"], "message": state["message"]})
            if (self.mirror.pushed_ms or 0) > since:
                return
            left = deadline - time.monotonic()
            if left <= 0 or not await self.mirror.next_push(left):
                raise errors.make(self.server, "TIMEOUT", 504, "Klipper took the command and tells nothing", may_still_run=True)

    async def settle(self, since):
        """Waits for a push after `since` that shows every pin as it was written."""
        deadline = time.monotonic() + SETTLE_S
        while True:
            await self.pushed_after(since)
            if not any(p["dirty"] for p in self.mirror.machine.pins()):
                return
            if time.monotonic() > deadline:
                raise errors.make(self.server, "EXECUTION_FAILED", 500, "Klipper took the command and shows another value")
            since = self.mirror.pushed_ms
