/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One client of the G-code port, for gcode_port.c: lines are taken one by one, their actions go to the lane, replies come out in order. Motion runs ahead: a
 * line of moves is answered when Klipper has accepted it. A barrier (M400, M114) is one script, and nothing of the client is under way when it ends.
 * Invariant: each line that is no blank one gets exactly one ok, report or `!!`, in its turn; while halted, nothing of the client reaches Klipper. */
#include "gcode_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

/* ---- replies ---- */

/* Brings what is to be sent to the front. */
static void out_pack(struct gcode_session *s)
{
    memmove(s->out, s->out + s->out_from, s->out_to - s->out_from);
    s->out_ready -= s->out_from, s->line_at -= s->out_from, s->out_to -= s->out_from, s->out_from = 0;
}

void gcode_say(struct gcode_session *s, const char *text)
{
    size_t n = strlen(text);
    if (s->out_to + n + 1 > OUT_MAX)
        out_pack(s);
    if (s->out_to + n + 1 > OUT_MAX)
        return; /* never: LINE_OUT_MAX was there */
    memcpy(s->out + s->out_to, text, n);
    s->out[s->out_to + n] = '\n';
    s->out_to += n + 1;
}

/* The line has all its replies. */
static void line_end(struct gcode_session *s, bool failed)
{
    size_t size = s->out_to - s->line_at;
    s->has_line = s->cut = false;
    s->line_at = s->out_to;
    if (s->settling)
        s->held_lines[s->held++] = (struct gcode_held){ (unsigned)size, failed };
    else
        s->out_ready = s->out_to;
}

/* The last word about a line. */
static void reply(struct gcode_session *s, const char *text)
{
    gcode_say(s, text);
    line_end(s, false);
}

static void reply_error(struct gcode_session *s, const char *before, const char *text)
{
    char line[GCODE_TEXT_MAX];
    gcode_reply_error(line, before, text);
    gcode_say(s, line);
    if (s->o->ack)
        gcode_say(s, "ok");
    line_end(s, true);
}

/* Pins before these replies have acted. */
void gcode_let_go(struct gcode_session *s)
{
    s->settling = false;
    s->held = 0;
    s->out_ready = s->line_at;
}

/* Nobody knows whether they have. The old replies are read from the end of `out` while the new ones are written: HELD_ROOM keeps them apart. */
void gcode_take_held_back(struct gcode_session *s, const char *text)
{
    size_t held = s->held, size = s->line_at - s->out_ready, from = OUT_MAX - size;
    out_pack(s);
    memmove(s->out + from, s->out + s->out_ready, size);
    s->out_to = s->line_at = s->out_ready;
    s->settling = false;
    s->held = 0;
    for (size_t i = 0; i < held; from += s->held_lines[i].size, i++) {
        if (!s->held_lines[i].failed) {
            reply_error(s, "", text);
            continue;
        }
        memmove(s->out + s->out_to, s->out + from, s->held_lines[i].size);
        s->out_to += s->held_lines[i].size;
        line_end(s, true);
    }
}

void gcode_halt(struct gcode_session *s, const char *text)
{
    if (s->halted)
        return;
    snprintf(s->halt, sizeof s->halt, "%s", text);
    if (s->o->ack)
        s->drop_to = s->received + s->up->unread(s->up->to, s->client);
    else
        s->halted = true;
    s->cut = s->has_line;
    if (s->wait == PUSH || s->wait == SAMPLE)
        s->wait = FREE;
    else if (s->has_line && s->job && s->wait != PUT_BACK && s->up->take_back(s->up->to, s->job))
        s->job = NULL, s->wait = FREE;
    log_line(LOG_WARNING, "gcode", "halted by=\"%s\" waiting=%zu", text, s->waiting);
}

/* The line that is under way has failed. */
void gcode_fail(struct gcode_session *s, const char *text)
{
    kp_modal_sync(s->g); /* drops what is left of it */
    s->sync_owed = true;
    s->sync_after_ms = s->up->now_ms(s->up->to);
    gcode_halt(s, text);
    s->out_to = s->line_at; /* no report of a line that failed */
    reply_error(s, "", text);
}

/* ---- lines ---- */

static bool is_code(const struct kp_gcode_line *line, char letter, unsigned code)
{
    return line->command_count > 0 && line->commands[0].letter == letter && line->commands[0].code == code;
}

/* M999 takes the halt off, where the machine can be used. What stands behind it in its line is done then. */
static void carry_on(struct gcode_session *s)
{
    char why[GCODE_TEXT_MAX];
    s->halted = false;
    if (!s->ready || kp_safety_latched(s->m)) {
        snprintf(why, sizeof why, "the machine is not ready (%s): reset it, then home it",
                 s->ready ? "stopped" : kp_klippy_name(kp_machine_klippy_state(s->m)));
        gcode_fail(s, why);
    } else if (s->line.commands[0].count > 0) {
        gcode_fail(s, "M999 takes no words");
    } else {
        s->line.command_count--;
        memmove(s->line.commands, s->line.commands + 1, s->line.command_count * sizeof *s->line.commands);
        if (s->line.command_count == 0)
            reply(s, "ok");
    }
}

/* Decides about a line that has just come; one that is to be done is has_line. */
static void line_take(struct gcode_session *s, enum kp_gcode_event ev, const struct kp_gcode_fault *fault)
{
    s->has_line = true;
    s->line_at = s->out_to;
    s->begun = s->ok_said = s->home_sent = false;
    if (s->begins < s->drop_to) {
        reply_error(s, "not done, halted by: ", s->halt);
    } else if (s->halted && (ev == KP_GCODE_BAD || !(is_code(&s->line, 'G', 280) || is_code(&s->line, 'M', 9990)))) {
        reply_error(s, "halted by: ", s->halt);
    } else if (ev == KP_GCODE_BAD) {
        gcode_fail(s, fault->error.message);
    } else if (is_code(&s->line, 'M', 9990)) {
        carry_on(s);
    } else {
        s->halted = false;
    }
}

/* Notes where the line that is read next begins: at its first byte that is neither blank nor an end of the line before. */
static void note_begin(struct gcode_session *s)
{
    for (size_t i = s->in_from; i < s->in_to && !s->reads_line; i++)
        if (!memchr(" \t\r\n", s->in[i], 4)) {
            s->begins = s->received - (s->in_to - i);
            s->reads_line = true;
        }
}

/* The next line of `in`, as far as it has come. False: none is whole. */
static bool line_next(struct gcode_session *s)
{
    struct kp_gcode_fault fault;
    struct kp_str in = { s->in + s->in_from, s->in_to - s->in_from };
    enum kp_gcode_event ev;
    note_begin(s);
    do {
        ev = kp_gcode_feed(&s->taken, &in, &s->line, &fault);
    } while (ev == KP_GCODE_STOP);
    s->in_from = s->in_to - in.n;
    if (s->in_from == s->in_to)
        s->in_from = s->in_to = 0;
    if (ev == KP_GCODE_MORE)
        return false;
    s->waiting -= s->waiting > 0;
    s->reads_line = false;
    line_take(s, ev, &fault);
    return true;
}

/* Somebody else moved the head while nothing of this client was under way. */
static void foreign_check(struct gcode_session *s)
{
    double is[3];
    bool moved = false;
    if (s->work || !s->ready || kp_machine_pushed_ms(s->m) <= s->happened_ms || !kp_machine_commanded(s->m, is))
        return;
    for (int i = 0; i < 3; i++)
        moved = moved || fabs(is[i] - s->at[i]) > NEAR_MM || isnan(s->at[i]);
    if (!moved)
        return;
    kp_modal_sync(s->g);
    memcpy(s->at, is, sizeof is);
}

static void note_place(struct gcode_session *s)
{
    if (!kp_machine_commanded(s->m, s->at))
        s->at[0] = s->at[1] = s->at[2] = NAN;
}

/* Brings the modal state up to what the machine is. False: Klipper has yet to tell. */
static bool synced(struct gcode_session *s)
{
    if (s->ready && kp_machine_joining(s->m) >= 0)
        return false; /* how an axis is moved is not known yet */
    if (s->restart_owed && s->ready) {
        s->restart_owed = false;
        kp_modal_restart(s->g);
        note_place(s);
    }
    if (!s->sync_owed)
        return true;
    if (s->ready && kp_machine_pushed_ms(s->m) <= s->sync_after_ms)
        return false;
    s->sync_owed = false;
    kp_modal_sync(s->g);
    note_place(s);
    return true;
}

static void line_begin(struct gcode_session *s)
{
    struct kp_gcode_fault fault;
    s->begun = true;
    s->shifted = false;
    foreign_check(s);
    kp_modal_sync_extra(s->g);
    if (kp_modal_line(s->g, &s->line, &fault) != KP_OK)
        gcode_fail(s, fault.error.message);
}

/* One step of the line under way. False: something is waited for. */
static bool line_step(struct gcode_session *s)
{
    if (s->cut) {
        gcode_fail(s, s->halt);
    } else if (s->begun && kp_modal_next(s->g, &s->action)) {
        gcode_act(s);
    } else if (!synced(s)) {
        s->wait = PUSH;
        s->up->look(s->up->to, LOOK_MS);
        return false;
    } else if (!s->begun && s->ready && !kp_safety_latched(s->m) && !gcode_placed(s) && kp_modal_needs_place(s->g, &s->line)) {
        gcode_barrier(s, FOR_PLACE); /* once, until somebody else moves the machine again */
    } else if (!s->begun) {
        line_begin(s);
    } else if (s->ok_said) {
        line_end(s, false);
    } else {
        reply(s, "ok");
    }
    return true;
}

/* There is room for all that one more line may answer. */
static bool out_has_room(const struct gcode_session *s)
{
    return s->held < HELD_MAX && OUT_MAX - HELD_ROOM - (s->out_to - s->out_from) >= LINE_OUT_MAX;
}

void gcode_run(struct gcode_session *s)
{
    while (s->wait == FREE) {
        if (s->put_back[0] && s->ready) {
            gcode_put_back(s);
        } else if (s->ended) {
            return;
        } else if (!s->has_line && !out_has_room(s)) {
            if (!s->settling)
                return;
            gcode_barrier(s, FOR_REPLIES);
        } else if (s->has_line) {
            if (!line_step(s))
                return;
        } else if (!line_next(s)) {
            if (!s->settling)
                return;
            gcode_barrier(s, FOR_REPLIES); /* nothing follows that it could hold up */
        }
    }
}

/* ---- for gcode_port.c ---- */

struct gcode_session *gcode_session_new(const struct kp_machine *m, const struct gcode_options *o, const struct gcode_up *up, void *client)
{
    struct kp_modal_options modal = { .mappings = o->mappings, .clamp = true, .klipper_commands = o->klipper_commands };
    struct gcode_session *s = calloc(1, sizeof *s);
    if (!s || !(s->g = kp_modal_new(m, &modal))) {
        free(s);
        return NULL;
    }
    s->m = m, s->o = o, s->up = up, s->client = client;
    s->ready = kp_machine_klippy_state(m) == KP_KLIPPY_READY;
    s->happened_ms = LONG_AGO;
    s->work = true; /* of others, for all we know */
    note_place(s);
    return s;
}

void gcode_session_free(struct gcode_session *s)
{
    if (!s)
        return;
    kp_modal_free(s->g);
    free(s);
}

size_t gcode_session_room(const struct gcode_session *s)
{
    size_t room = IN_MAX - (s->in_to - s->in_from);
    return s->waiting >= GCODE_LINES_MAX ? 0 : room < PIECE ? room : PIECE;
}

/* Counts the lines that end in these bytes; true when an M112 does. */
static bool look_ahead(struct gcode_session *s, const char *bytes, size_t n)
{
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_str in = { bytes, n };
    enum kp_gcode_event ev;
    bool stop = false;
    while ((ev = kp_gcode_feed(&s->seen, &in, &line, &fault)) != KP_GCODE_MORE) {
        stop = stop || ev == KP_GCODE_STOP;
        s->waiting += ev != KP_GCODE_STOP;
    }
    return stop;
}

static void stop_now(struct gcode_session *s)
{
    gcode_halt(s, GCODE_STOPPED);
    s->up->stop(s->up->to);
}

void gcode_session_take(struct gcode_session *s, const char *bytes, size_t n)
{
    if (s->in_to + n > IN_MAX) {
        memmove(s->in, s->in + s->in_from, s->in_to - s->in_from);
        s->in_to -= s->in_from, s->in_from = 0;
    }
    memcpy(s->in + s->in_to, bytes, n);
    s->in_to += n;
    s->received += n;
    if (look_ahead(s, bytes, n))
        stop_now(s);
    gcode_run(s);
}

void gcode_session_last(struct gcode_session *s, const char *bytes, size_t n)
{
    if (look_ahead(s, bytes, n))
        stop_now(s);
}

const char *gcode_session_out(const struct gcode_session *s, size_t *n)
{
    *n = s->out_ready - s->out_from;
    return s->out + s->out_from;
}

void gcode_session_sent(struct gcode_session *s, size_t n)
{
    s->out_from += n;
    if (s->out_from == s->out_to)
        s->out_from = s->out_ready = s->line_at = s->out_to = 0;
    gcode_run(s);
}

bool gcode_session_open(const struct gcode_session *s)
{
    return s->waiting > 0 || s->has_line || s->wait != FREE || s->settling || s->out_to > s->out_from;
}

void gcode_session_end(struct gcode_session *s)
{
    s->ended = true;
    s->has_line = s->settling = false;
    s->held = 0;
    s->in_from = s->in_to = s->waiting = s->out_from = s->out_ready = s->line_at = s->out_to = 0;
    if (s->job && s->wait != PUT_BACK && s->up->take_back(s->up->to, s->job))
        s->job = NULL;
    if (!s->job)
        s->wait = FREE;
    gcode_run(s);
}

bool gcode_session_busy(const struct gcode_session *s)
{
    return s->job != NULL;
}

void gcode_session_pushed(struct gcode_session *s)
{
    if (s->wait == PUSH && kp_machine_pushed_ms(s->m) > s->sync_after_ms)
        s->wait = FREE;
    if (s->wait == SAMPLE)
        gcode_sampled(s);
    gcode_run(s);
}

void gcode_session_changed(struct gcode_session *s)
{
    char why[GCODE_TEXT_MAX];
    bool ready = kp_machine_klippy_state(s->m) == KP_KLIPPY_READY;
    if (ready == s->ready)
        return;
    s->ready = ready;
    s->restart_owed = s->restart_owed || ready;
    if (!ready) {
        if (kp_safety_latched(s->m))
            snprintf(why, sizeof why, "the machine was stopped: %s", kp_safety_reason(s->m));
        else
            snprintf(why, sizeof why, "Klipper is not ready: %s", kp_klippy_name(kp_machine_klippy_state(s->m)));
        s->work = true; /* no reading of before holds */
        s->placed = false;
        gcode_halt(s, why);
    }
    gcode_run(s);
}
