# SPDX-License-Identifier: GPL-3.0-or-later
"""Motion from rest starts after `lead` instead of Klipper's 250 ms, and M400 answers when the last step is done, for __init__.py.

Invariant: a start is early only while nothing speaks against it (allowed); the first margin below half the lead brings Klipper's
own timing back until the next restart. docs/fast-motion.md says why each number may be changed.
"""
import logging

from . import known, sensor

SETTLE_S = 10.0  # after ready: drivers are still being set up and clocks learned
PRIMING_S = 0.020  # a lone move waits this long for more of the same path
EXTRA_S = 0.005  # steps are made this far past the last move; Klipper's reason for more is rounding
BAD_SHARE = 0.5  # of the lead: a smaller margin ends the early starts


class Klipper:
    """Mainline: the toolhead plans, motion_queuing makes the steps."""

    def __init__(self, printer):
        self.toolhead = printer.lookup_object("toolhead")
        self.queuing = printer.lookup_object("motion_queuing")

    def check_start(self, manual_steppers):
        known.check(self.toolhead, known.KLIPPER_TOOLHEAD, {"BUFFER_TIME_START": 0.250, "BUFFER_TIME_HIGH": 1.0, "PRIMING_CMD_TIME": 0.100})
        known.check(self.queuing, known.KLIPPER_QUEUING, {"MIN_KIN_TIME": 0.100, "BGFLUSH_LOW_TIME": 0.200, "BGFLUSH_HIGH_TIME": 0.400,
                                                          "BGFLUSH_EXTRA_TIME": 0.250, "SDS_CHECK_TIME": 0.001})
        for stepper in manual_steppers:
            known.check(stepper, known.KLIPPER_MANUAL)
        timer = self.queuing.flush_timer
        if timer.callback != self.queuing._flush_handler:
            raise known.Unknown("the flush timer is replaced by another extra")

    def check_wait(self):
        known.check(self.toolhead, {n: known.KLIPPER_TOOLHEAD[n] for n in ("wait_moves", "_flush_lookahead")})
        known.check(self.queuing, {n: known.KLIPPER_QUEUING[n] for n in ("get_kin_flush_delay",)})

    def hook(self):
        """Own copies of what reads the constants."""
        self.start = known.with_constants(self.toolhead, "_calc_print_time", {})
        self.restart = known.with_constants(self.queuing, "calc_step_gen_restart", {})
        self.priming = known.with_constants(self.toolhead, "_check_priming_state", {})
        self.flush = known.with_constants(self.queuing, "_flush_handler", {})
        self.queuing.flush_timer.callback = self.queuing._flush_handler
        self.flusher = self.queuing

    def set_times(self, lead):
        """lead None: Klipper's own."""
        self.start["BUFFER_TIME_START"] = 0.250 if lead is None else lead
        self.restart["MIN_KIN_TIME"] = 0.100 if lead is None else lead
        self.priming["PRIMING_CMD_TIME"] = 0.100 if lead is None else PRIMING_S
        self.flush["BGFLUSH_EXTRA_TIME"] = 0.250 if lead is None else EXTRA_S

    def check_pause(self, original, _fast):
        original()

    def kin_flush_delay(self):
        return self.queuing.get_kin_flush_delay()


class Kalico:
    """Kalico: the toolhead does both, and two of the times are literals."""

    def __init__(self, printer):
        self.toolhead = self.flusher = printer.lookup_object("toolhead")
        self.reactor = printer.get_reactor()
        self.options = printer.lookup_object("danger_options")  # this printer's; the next one gets its own

    def check_start(self, manual_steppers):
        known.check(self.toolhead, known.KALICO_TOOLHEAD, {
            "BUFFER_TIME_START": 0.250, "BUFFER_TIME_LOW": 1.0, "BUFFER_TIME_HIGH": 2.0, "MIN_KIN_TIME": 0.100, "BGFLUSH_LOW_TIME": 0.200,
            "BGFLUSH_BATCH_TIME": 0.200, "STEPCOMPRESS_FLUSH_TIME": 0.050, "SDS_CHECK_TIME": 0.001})
        for stepper in manual_steppers:
            known.check(stepper, known.KALICO_MANUAL)
        self.own_extra = self.options.bgflush_extra_time
        if type(self.own_extra) is not float or known.module_of(self.options).get_danger_options() is not self.options:
            raise known.Unknown("danger_options is not known")

    def check_wait(self):
        known.check(self.toolhead, {n: known.KALICO_TOOLHEAD[n] for n in ("wait_moves", "_flush_lookahead")})
        if type(self.toolhead.kin_flush_delay) is not float:
            raise known.Unknown("toolhead.kin_flush_delay is not known")

    def hook(self):
        self.start = known.with_constants(self.toolhead, "_calc_print_time", {})

    def set_times(self, lead):
        self.start["BUFFER_TIME_START"] = 0.250 if lead is None else lead
        self.start["MIN_KIN_TIME"] = 0.100 if lead is None else lead
        self.options.bgflush_extra_time = self.own_extra if lead is None else min(EXTRA_S, self.own_extra)

    def check_pause(self, original, fast):
        original()
        toolhead = self.toolhead
        if fast and toolhead.special_queuing_state == "Priming" and toolhead.priming_timer is not None:
            now = self.reactor.monotonic()
            buffered = toolhead.print_time - toolhead.mcu.estimated_print_time(now) - 1.0
            self.reactor.update_timer(toolhead.priming_timer, now + max(PRIMING_S, buffered))

    def kin_flush_delay(self):
        return self.toolhead.kin_flush_delay


class Timing:
    def __init__(self, printer, lead, experimental, tell):
        self.printer, self.reactor = printer, printer.get_reactor()
        self.lead, self.experimental, self.tell = lead, experimental, tell
        self.klipper = None
        self.hooked = self.fast = self.cold = False
        self.homing = 0
        self.why = "not started"
        self.stopped = None  # why there is no early start until a restart
        self.leaving = False  # Klipper waits for the end of motion before a restart
        self.pending = None  # print time of an early start whose steps are not sent yet
        self.starts = 0
        self.margin = self.last_margin = None

    # -- switching on, at klippy:ready

    def _family(self):
        if self.klipper is None:
            if self.printer.lookup_object("motion_queuing", None) is not None:
                self.klipper = Klipper(self.printer)
            elif self.printer.lookup_object("danger_options", None) is not None:
                self.klipper = Kalico(self.printer)
            else:
                raise known.Unknown("this is neither mainline Klipper nor Kalico as they were tried")
            self.toolhead = self.klipper.toolhead
            self.vsd = self.printer.lookup_object("virtual_sdcard", None)
        return self.klipper

    def _check_mcus(self):
        mcus = self.printer.lookup_objects(module="mcu")
        if mcus[0][1].is_fileoutput():
            raise known.Unknown("no microcontroller")
        settings = self.printer.lookup_object("configfile").get_status(0.0)["settings"]
        if any("canbus_uuid" in settings.get(name, {}) for name, _ in mcus):
            raise known.Unknown("a microcontroller on CAN: not measured")
        if len(mcus) > 1 and not self.experimental:
            raise known.Unknown("more than one microcontroller: not measured")

    def start_wait(self):
        self._family().check_wait()
        self.own_wait = self.toolhead.wait_moves
        self.toolhead.wait_moves = self._wait_moves
        self.printer.register_event_handler("gcode:request_restart", self._leaves)

    def _leaves(self, _print_time):
        self.leaving = True

    def start_fast(self):
        klipper = self._family()
        toolhead = klipper.toolhead
        self._check_mcus()
        manual = [obj for _, obj in self.printer.lookup_objects(module="manual_stepper")]
        klipper.check_start(manual)
        self.enable = self.printer.lookup_object("stepper_enable")
        self.ready = self.reactor.monotonic()
        try:  # all that a start will ask, once, before anything is hooked: an error in the middle of a move would be a shutdown
            self._against()
            self._enabled(toolhead.get_kinematics().get_steppers())
            self._moves_cold(toolhead.lookahead.queue)
            for stepper in manual:
                self._enabled(stepper.steppers)
            self.get_status(self.ready)
        except Exception as e:
            raise known.Unknown("what a start asks of Klipper is not known: %s" % (e,))
        self.own_process = toolhead._process_lookahead
        self.own_pause = toolhead._check_pause
        klipper.hook()
        self.own_calc = toolhead._calc_print_time
        self.own_flush = klipper.flusher._advance_flush_time
        toolhead._calc_print_time = self._calc_print_time
        toolhead._process_lookahead = self._process_lookahead
        toolhead._check_pause = self._check_pause
        klipper.flusher._advance_flush_time = self._advance_flush_time
        for stepper in manual:
            self._hook_manual(stepper)
        self.hooked = True
        klipper.set_times(None)
        on = self.printer.register_event_handler
        on("homing:homing_move_begin", self._homing_begins)
        on("homing:homing_move_end", self._homing_ends)
        on("toolhead:sync_print_time", self._started)

    def _hook_manual(self, stepper):
        own = stepper.sync_print_time

        def sync_print_time():
            before, self.cold = self.cold, self.cold or not self._enabled(stepper.steppers)
            try:
                own()
            finally:
                self.cold = before
        stepper.sync_print_time = sync_print_time

    # -- may it be early?

    def _enabled(self, steppers):
        return all(self.enable.lookup_enable(s.get_name()).is_motor_enabled() for s in steppers)

    def _moves_cold(self, moves):
        """A motor that is about to move is off: its driver may have to be set up first, over a slow line."""
        axes = {i for move in moves for i, d in enumerate(move.axes_d) if d}
        if any(i < 3 for i in axes) and not self._enabled(self.toolhead.get_kinematics().get_steppers()):
            return True
        others = self.toolhead.get_extra_axes()
        for i in axes:
            if i >= 3:
                steppers = getattr(others[i], "steppers", None)
                if steppers is None or not self._enabled(steppers):
                    return True
        return False

    def _against(self):
        """What speaks against an early start now, or None."""
        if self.stopped:
            return self.stopped
        if self.homing:
            return "homing"
        if self.cold:
            return "a motor is off"
        if self.vsd is not None and self.vsd.is_active():
            return "printing a file"
        if self.reactor.monotonic() < self.ready + SETTLE_S:
            return "just started"
        return None

    def _choose(self):
        self.why = self._against()
        fast = self.why is None
        if fast != self.fast:
            self.fast = fast
            self.klipper.set_times(self.lead if fast else None)
        return fast

    def _homing_begins(self, _move):
        self.homing += 1
        self._choose()

    def _homing_ends(self, _move):
        self.homing = max(0, self.homing - 1)

    # -- in place of Klipper's own, on its objects

    def _calc_print_time(self):
        self._choose()
        self.own_calc()

    def _process_lookahead(self, lazy=False):
        if not self.toolhead.special_queuing_state:
            return self.own_process(lazy=lazy)
        before, self.cold = self.cold, self.cold or self._moves_cold(self.toolhead.lookahead.queue)
        try:
            return self.own_process(lazy=lazy)
        finally:
            self.cold = before

    def _check_pause(self):
        fast = bool(self.toolhead.special_queuing_state) and self._choose()
        self.klipper.check_pause(self.own_pause, fast)

    def _advance_flush_time(self, *args, **kw):
        result = self.own_flush(*args, **kw)
        if self.pending is not None and self.klipper.flusher.need_flush_time >= self.pending <= self.klipper.flusher.last_flush_time:
            self._sent()
        return result

    def _wait_moves(self):
        """Until the last step is done, or an error: what a shutdown has cut off must not be told as done."""
        if self.vsd is not None and self.vsd.is_active():
            self.own_wait()
        else:
            self._wait_exactly()
        if not self.leaving:
            sensor.raise_if_shut_down(self.printer)

    def _wait_exactly(self):
        """With an input shaper steps go on for kin_flush_delay after the print time of the move."""
        toolhead = self.toolhead
        toolhead._flush_lookahead()
        now = self.reactor.monotonic()
        while toolhead.can_pause:
            left = toolhead.print_time + self.klipper.kin_flush_delay() - toolhead.mcu.estimated_print_time(now)
            if toolhead.special_queuing_state and left < 0.0:
                break
            now = self.reactor.pause(now + min(0.100, max(0.001, left + 0.0002)))

    # -- how near it was

    def _started(self, _curtime, _est_print_time, print_time):
        if self.pending is not None and self.klipper.flusher.need_flush_time >= self.pending:
            return  # an earlier one is still to be sent, and is nearer
        self.pending = print_time if self.fast else None

    def _sent(self):
        """The steps of an early start are in the serial queue: what was left until the first may be due?"""
        now = self.toolhead.mcu.estimated_print_time(self.reactor.monotonic())
        margin = self.pending - self.klipper.kin_flush_delay() - now
        self.pending = None
        self.starts += 1
        self.last_margin = margin
        if self.margin is None or margin < self.margin:
            self.margin = margin
        if margin < BAD_SHARE * self.lead and not self.stopped:
            self.stopped = "a start had %.1f ms left of %.0f" % (margin * 1000, self.lead * 1000)
            logging.warning("klipperplace: Klipper's own timing until restart: %s", self.stopped)
            self._choose()
            self.reactor.register_callback(lambda e: self.tell({"klipperplace": self.get_status(e)}))

    def get_status(self, _eventtime):
        def ms(s):
            return None if s is None else round(s * 1000, 1)
        against = self._against() if self.hooked else "off"
        links = {}
        for name, mcu in self.printer.lookup_objects(module="mcu"):
            last = mcu.get_status().get("last_stats", {})
            links[name] = {key: last.get(key) for key in ("srtt", "rto", "bytes_retransmit")}
        return {"timing": "klipper" if against else "fast", "why": against or "", "lead_ms": ms(self.lead), "starts": self.starts,
                "margin_ms": ms(self.margin), "margin_last_ms": ms(self.last_margin), "stopped": self.stopped or "", "links": links}
