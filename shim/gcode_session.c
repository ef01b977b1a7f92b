/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One client of the G-code port, for gcode_port.c: lines are taken one by one, their actions go to the lane, replies come out in order. Motion runs ahead: a
 * line of moves is answered when Klipper has accepted it. A barrier (M400, M114) is one script, and nothing of the client is under way when it ends.
 * Invariant: each line that is no blank one gets exactly one ok, report or `!!`, in its turn; while halted, nothing of the client reaches Klipper. */
#include "gcode_session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gcode_reply.h"
#include "log.h"

#define PIECE 4096           /* bytes taken at once */
#define IN_MAX ((KP_LINE_MAX + 1) * GCODE_LINES_MAX + PIECE)
#define OUT_MAX 65536        /* bytes of replies; while there is no room for one more line, none is begun */
#define ROOM_MIN (GCODE_REPLY_MAX + 2 * GCODE_TEXT_MAX)
#define NEAR_MM 0.0010001    /* Klipper tells 3 decimals: a place this near is ours */
#define FRESH_MS 50          /* an M114 so soon after the M400 before it needs no barrier of its own: OpenPnP sends the two as a pair */
#define LONG_AGO (INT64_MIN / 2)

/* What is waited for. PUSH: what Klipper tells after `sync_after_ms`. SAMPLE: a sensor's value of after `happened_ms`. */
enum wait { FREE, SCRIPT, BARRIER, PUT_BACK, PUSH, SAMPLE };
/* Whose the barrier is. */
enum why { FOR_REPLIES, FOR_WAIT, FOR_POSITION, FOR_SENSORS, FOR_HOME };

struct gcode_session {
    const struct kp_machine *m;
    const struct gcode_options *o;
    const struct gcode_up *up;
    void *client;
    struct kp_modal *g;

    struct kp_gcode_reader seen, taken; /* of bytes as they come, for M112 and the count; of those in `in` */
    size_t waiting;              /* lines seen and not taken */
    size_t in_from, in_to;
    size_t out_from, out_ready, out_to; /* replies behind out_ready are held until the pins before them have acted */
    size_t held;                 /* lines answered there */

    struct kp_gcode_line line;   /* under way */
    bool has_line, begun, ok_said, home_sent;
    struct kp_gcode_action action;
    enum wait wait;
    enum why why;
    struct lane_job *job;
    struct lane_script script;

    bool ready;                  /* Klipper is */
    bool inches;
    bool work;                   /* accepted since the last barrier and perhaps not yet done */
    bool settling;               /* a reply waits for pins: the next barrier lets it go */
    bool spaced;                 /* a pin was written twice since the last barrier */
    bool written[KP_PINS_MAX];   /* since the last barrier */
    int64_t happened_ms;         /* the last barrier ended */
    double klipper_at[3], at[3]; /* where Klipper said the head is then; where our last line leaves it */
    unsigned known;              /* axes that this client has seen homed, as bits */
    bool sync_owed, restart_owed;
    int64_t sync_after_ms;
    char put_back[GCODE_TEXT_MAX]; /* script that a failed one left undone; "": none */
    bool halted, ended;
    size_t drop;                 /* ack: lines that waited when an error came */
    char halt[GCODE_TEXT_MAX];   /* by what */
    char in[IN_MAX], out[OUT_MAX];
};

/* ---- replies ---- */

static void say(struct gcode_session *s, const char *text)
{
    size_t n = strlen(text);
    if (s->out_to + n + 1 > OUT_MAX) {
        memmove(s->out, s->out + s->out_from, s->out_to - s->out_from);
        s->out_ready -= s->out_from, s->out_to -= s->out_from, s->out_from = 0;
    }
    if (s->out_to + n + 1 > OUT_MAX)
        return; /* never: ROOM_MIN was there */
    memcpy(s->out + s->out_to, text, n);
    s->out[s->out_to + n] = '\n';
    s->out_to += n + 1;
    if (!s->settling)
        s->out_ready = s->out_to;
}

/* The last word about a line. */
static void reply(struct gcode_session *s, const char *text)
{
    s->held += s->settling;
    say(s, text);
    s->has_line = false;
}

static void reply_error(struct gcode_session *s, const char *before, const char *text)
{
    char line[GCODE_TEXT_MAX];
    gcode_reply_error(line, before, text);
    if (s->o->ack)
        say(s, line);
    reply(s, s->o->ack ? "ok" : line);
}

/* Pins before these replies have acted. */
static void let_go(struct gcode_session *s)
{
    s->settling = false;
    s->held = 0;
    s->out_ready = s->out_to;
}

/* Nobody knows whether they have. */
static void take_held_back(struct gcode_session *s, const char *text)
{
    size_t held = s->held;
    s->out_to = s->out_ready;
    s->settling = false;
    s->held = 0;
    for (; held > 0; held--)
        reply_error(s, "", text);
}

static void halt(struct gcode_session *s, const char *text)
{
    if (s->halted)
        return;
    snprintf(s->halt, sizeof s->halt, "%s", text);
    if (s->o->ack)
        s->drop = s->waiting;
    else
        s->halted = true;
    log_line(LOG_WARNING, "gcode", "halted by=\"%s\" waiting=%zu", text, s->waiting);
}

/* The line that is under way has failed. */
static void fail(struct gcode_session *s, const char *text)
{
    kp_modal_sync(s->g); /* drops what is left of it */
    s->sync_owed = true;
    s->sync_after_ms = s->up->now_ms(s->up->to);
    halt(s, text);
    reply_error(s, "", text);
}

/* ---- scripts ---- */

static void on_done(void *user, const struct lane_outcome *o);

static void failed(struct gcode_session *s, enum wait wait, const struct kp_error *e)
{
    bool had_line = s->has_line;
    if (wait == PUT_BACK)
        return;
    const char *text = e->code == KP_EXECUTION_FAILED || e->code == KP_OUTCOME_UNKNOWN ? kp_modal_put_back(s->g) : NULL;
    if (text)
        snprintf(s->put_back, sizeof s->put_back, "%s", text);
    if (wait == BARRIER && s->settling) {
        take_held_back(s, e->message);
        s->has_line = had_line;
    }
    if (s->has_line)
        fail(s, e->message);
    else
        halt(s, e->message);
}

static void submit(struct gcode_session *s, enum wait wait)
{
    struct kp_faults f = { .count = 0 };
    s->script.follows = s->waiting > 0;
    s->wait = wait;
    s->job = s->up->submit(s->up->to, &s->script, on_done, s, &f);
    if (s->job)
        return;
    s->wait = FREE;
    failed(s, wait, &f.item[0]);
}

static void submit_text(struct gcode_session *s, const char *text, enum wait wait)
{
    snprintf(s->script.text, sizeof s->script.text, "%s", text);
    s->script.write_count = s->script.axis_count = 0;
    for (int i = 0; i < 3; i++)
        s->script.target[i] = NAN;
    submit(s, wait);
}

static void barrier(struct gcode_session *s, enum why why)
{
    s->why = why;
    submit_text(s, kp_script_barrier(s->spaced), BARRIER);
}

/* Klipper's text for the action under way. */
static void submit_action(struct gcode_session *s)
{
    const struct kp_gcode_action *a = &s->action;
    struct lane_script *to = &s->script;
    snprintf(to->text, sizeof to->text, "%s", a->text);
    memcpy(to->writes, a->writes, a->write_count * sizeof *a->writes);
    memcpy(to->axes, a->axes, a->axis_count * sizeof *a->axes);
    memcpy(to->target, a->target, sizeof to->target);
    to->write_count = a->write_count, to->axis_count = a->axis_count;
    submit(s, SCRIPT);
}

/* ---- homing ---- */

/* True for a line that homes all axes: its home_script counts. */
static bool homes_all(const struct kp_gcode_line *line)
{
    for (size_t i = 0; i < line->command_count; i++)
        if (line->commands[i].letter == 'G' && line->commands[i].code == 280 && line->commands[i].count == 0)
            return true;
    return false;
}

/* home_script in place of libkp's G28 lines; all else (travel height, rotary axes, M400) stays. False: nothing is left of this action. */
static bool own_home(struct gcode_session *s)
{
    char *out = s->script.text;
    size_t n = 0, room = sizeof s->script.text;
    out[0] = 0;
    if (!s->home_sent)
        n = (size_t)snprintf(out, room, "%s", s->o->home_script);
    s->home_sent = true;
    for (const char *l = s->action.text; *l && n < room;) {
        size_t size = strcspn(l, "\n");
        if (strncmp(l, "G28", 3) != 0)
            n += (size_t)snprintf(out + n, room - n, "%s%.*s", n ? "\n" : "", (int)size, l);
        l += size + (l[size] != 0);
    }
    return n > 0;
}

static void home(struct gcode_session *s)
{
    char text[KP_SCRIPT_MAX];
    if (s->o->home_script && homes_all(&s->line)) {
        if (!own_home(s))
            return;
        snprintf(text, sizeof text, "%s", s->script.text);
        s->action.text = text;
    }
    submit_action(s);
}

/* ---- what a client asks ---- */

/* Where the head is is Klipper's to say; where ours is no further than its rounding, ours has the decimals. True when it is elsewhere. */
static bool place_check(struct gcode_session *s, double position[KP_AXES_MAX])
{
    double unit = s->inches ? 25.4 : 1;
    bool off = false;
    for (int i = 0; i < 3; i++) {
        double target = s->action.target[i], is = s->klipper_at[i];
        if (fabs(target - is) <= NEAR_MM)
            continue;
        off = true;
        log_line(LOG_WARNING, "gcode", "position axis=%c ours=%.4f klipper=%.3f", "XYZ"[i], target, is);
        if (position)
            position[i] = isnan(target) ? is / unit : position[i] + (is - target) / unit;
    }
    if (off) {
        s->sync_owed = true;
        s->sync_after_ms = s->happened_ms;
    }
    return off;
}

static void report_position(struct gcode_session *s)
{
    char text[GCODE_REPLY_MAX], why[GCODE_TEXT_MAX];
    double position[KP_AXES_MAX];
    const struct kp_axis *a;
    memcpy(position, s->action.position, sizeof position);
    place_check(s, position);
    for (size_t i = 3; (a = kp_machine_axis(s->m, i)); i++)
        if (isnan(position[i]) && !a->homed && !(s->known >> i & 1u))
            position[i] = 0; /* as Klipper tells X, Y and Z before they are homed; nothing absolute is done there */
    char lost = gcode_reply_position(text, s->m, position);
    if (lost) {
        snprintf(why, sizeof why, "it is not known where axis %c stands: home it with G28", lost);
        fail(s, why);
        return;
    }
    say(s, s->ok_said ? text + 3 : text);
    s->ok_said = true;
}

static void ask_position(struct gcode_session *s)
{
    if (s->work || !s->ready || s->up->now_ms(s->up->to) - s->happened_ms > FRESH_MS)
        barrier(s, FOR_POSITION);
    else
        report_position(s);
}

/* A push holds a value sampled after all that has happened. */
static bool sampled(const struct gcode_session *s)
{
    const struct kp_sensor *sensor;
    int64_t most_ms = -1;
    for (size_t i = 0; (sensor = kp_machine_sensor(s->m, i)); i++)
        if (sensor->m105[0] && sensor->report_ms > most_ms)
            most_ms = sensor->report_ms;
    return most_ms < 0 || kp_machine_pushed_ms(s->m) >= s->happened_ms + most_ms;
}

static void report_sensors(struct gcode_session *s)
{
    char text[GCODE_REPLY_MAX], why[GCODE_TEXT_MAX];
    const char *silent = gcode_reply_sensors(text, s->m);
    if (silent) {
        snprintf(why, sizeof why, "sensor %s tells nothing", silent);
        fail(s, why);
        return;
    }
    say(s, s->ok_said ? text + 2 + (text[2] == ' ') : text);
    s->ok_said = true;
}

static void ask_sensors(struct gcode_session *s)
{
    if (!s->ready)
        fail(s, "Klipper is not ready: the sensors tell nothing");
    else if (s->work)
        barrier(s, FOR_SENSORS);
    else if (sampled(s))
        report_sensors(s);
    else
        s->wait = SAMPLE;
}

/* ---- actions and their ends ---- */

static void act(struct gcode_session *s)
{
    char text[GCODE_REPLY_MAX];
    switch (s->action.kind) {
    case KP_DO_SCRIPT:
    case KP_DO_ENDSTOPS: submit_action(s); return;
    case KP_DO_HOME: home(s); return;
    case KP_DO_WAIT: barrier(s, FOR_WAIT); return;
    case KP_DO_POSITION: ask_position(s); return;
    case KP_DO_SENSORS: ask_sensors(s); return;
    case KP_DO_VERSION:
        gcode_reply_version(text, s->o->firmware_name, s->m);
        say(s, text);
        return;
    case KP_DO_PAUSE: fail(s, "M0 and M1 are for files: nobody here could let the stream go on"); return;
    case KP_DO_STOP: fail(s, "emergency stop by M112"); return;
    }
}

static void script_done(struct gcode_session *s, const char *console)
{
    const struct kp_gcode_action *a = &s->action;
    char text[GCODE_TEXT_MAX];
    s->work = true;
    s->settling = s->settling || a->settle;
    memcpy(s->at, a->target, sizeof s->at);
    for (size_t i = 0; i < s->script.write_count; i++) {
        s->spaced = s->spaced || s->written[s->script.writes[i].pin];
        s->written[s->script.writes[i].pin] = true;
    }
    if (a->kind == KP_DO_ENDSTOPS) {
        gcode_reply_error(text, "", console);
        say(s, text + 3);
    }
    if (a->resync && a->kind == KP_DO_HOME)
        barrier(s, FOR_HOME); /* a shutdown ends its M400 early, and this one fails then */
    else if (a->resync) {
        s->sync_owed = true;
        s->sync_after_ms = s->up->now_ms(s->up->to);
    }
}

static void barrier_done(struct gcode_session *s, const char *console)
{
    struct kp_error e;
    if (!kp_script_where(kp_str_of(console), s->klipper_at)) {
        kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "Klipper did not say where the head is");
        failed(s, BARRIER, &e);
        return;
    }
    s->happened_ms = s->up->now_ms(s->up->to);
    s->work = s->spaced = false;
    memset(s->written, 0, sizeof s->written);
    let_go(s);
    switch (s->why) {
    case FOR_REPLIES: break;
    case FOR_WAIT: place_check(s, NULL); break;
    case FOR_POSITION: report_position(s); break;
    case FOR_SENSORS: ask_sensors(s); break;
    case FOR_HOME:
        s->sync_owed = true;
        s->sync_after_ms = s->happened_ms;
        break;
    }
}

/* ---- lines ---- */

static bool is_code(const struct kp_gcode_line *line, char letter, unsigned code)
{
    return line->command_count > 0 && line->commands[0].letter == letter && line->commands[0].code == code;
}

static void note_units(struct gcode_session *s)
{
    for (size_t i = 0; i < s->line.command_count; i++)
        if (s->line.commands[i].letter == 'G' && (s->line.commands[i].code == 200 || s->line.commands[i].code == 210))
            s->inches = s->line.commands[i].code == 200;
}

/* Takes the halt off, where the machine can be used. */
static void carry_on(struct gcode_session *s)
{
    char why[GCODE_TEXT_MAX];
    s->halted = false;
    if (s->ready && !kp_safety_latched(s->m)) {
        reply(s, "ok");
        return;
    }
    snprintf(why, sizeof why, "the machine is not ready (%s): reset it, then home it", kp_klippy_name(kp_machine_klippy_state(s->m)));
    fail(s, why);
}

/* Decides about a line that has just come; one that is to be done is has_line. */
static void line_take(struct gcode_session *s, enum kp_gcode_event ev, const struct kp_gcode_fault *fault)
{
    s->has_line = true;
    s->begun = s->ok_said = s->home_sent = false;
    if (s->drop > 0) {
        s->drop--;
        reply_error(s, "not done, halted by: ", s->halt);
    } else if (s->halted && (ev == KP_GCODE_BAD || !(is_code(&s->line, 'G', 280) || is_code(&s->line, 'M', 9990)))) {
        reply_error(s, "halted by: ", s->halt);
    } else if (ev == KP_GCODE_BAD) {
        fail(s, fault->error.message);
    } else if (is_code(&s->line, 'M', 9990)) {
        carry_on(s);
    } else {
        s->halted = false;
    }
}

/* The next line of `in`, as far as it has come. False: none is whole. */
static bool line_next(struct gcode_session *s)
{
    struct kp_gcode_fault fault;
    struct kp_str in = { s->in + s->in_from, s->in_to - s->in_from };
    enum kp_gcode_event ev;
    do {
        ev = kp_gcode_feed(&s->taken, &in, &s->line, &fault);
    } while (ev == KP_GCODE_STOP);
    s->in_from = s->in_to - in.n;
    if (s->in_from == s->in_to)
        s->in_from = s->in_to = 0;
    if (ev == KP_GCODE_MORE)
        return false;
    s->waiting -= s->waiting > 0;
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

/* Brings the modal state up to what the machine is. False: Klipper has yet to tell. */
static bool synced(struct gcode_session *s)
{
    if (s->restart_owed && s->ready) {
        s->restart_owed = false;
        kp_modal_restart(s->g);
    }
    if (!s->sync_owed)
        return true;
    if (s->ready && kp_machine_pushed_ms(s->m) <= s->sync_after_ms)
        return false;
    s->sync_owed = false;
    kp_modal_sync(s->g);
    if (!kp_machine_commanded(s->m, s->at))
        s->at[0] = s->at[1] = s->at[2] = NAN;
    return true;
}

static void line_begin(struct gcode_session *s)
{
    struct kp_gcode_fault fault;
    const struct kp_axis *a;
    s->begun = true;
    for (size_t i = 0; (a = kp_machine_axis(s->m, i)); i++)
        s->known |= (unsigned)a->homed << i;
    foreign_check(s);
    if (kp_modal_line(s->g, &s->line, &fault) != KP_OK)
        fail(s, fault.error.message);
    else
        note_units(s);
}

/* One step of the line under way. False: something is waited for. */
static bool line_step(struct gcode_session *s)
{
    if (s->begun && kp_modal_next(s->g, &s->action)) {
        act(s);
    } else if (!synced(s)) {
        s->wait = PUSH;
        return false;
    } else if (!s->begun) {
        line_begin(s);
    } else if (s->ok_said) {
        s->held += s->settling;
        s->has_line = false;
    } else {
        reply(s, "ok");
    }
    return true;
}

static void run(struct gcode_session *s)
{
    char text[GCODE_TEXT_MAX];
    while (s->wait == FREE) {
        if (s->put_back[0] && s->ready) {
            memcpy(text, s->put_back, sizeof text);
            s->put_back[0] = 0;
            submit_text(s, text, PUT_BACK);
        } else if (s->ended) {
            return;
        } else if (OUT_MAX - (s->out_to - s->out_from) < ROOM_MIN) {
            if (!s->settling)
                return;
            barrier(s, FOR_REPLIES);
        } else if (s->has_line) {
            if (!line_step(s))
                return;
        } else if (!line_next(s)) {
            if (!s->settling)
                return;
            barrier(s, FOR_REPLIES); /* nothing follows that it could hold up */
        }
    }
}

static void on_done(void *user, const struct lane_outcome *o)
{
    struct gcode_session *s = user;
    enum wait wait = s->wait;
    s->job = NULL;
    s->wait = FREE;
    if (o->faults->count)
        failed(s, wait, &o->faults->item[0]);
    else if (s->ended)
        s->work = true; /* nobody asks any more */
    else if (wait == SCRIPT)
        script_done(s, o->console);
    else if (wait == BARRIER)
        barrier_done(s, o->console);
    run(s);
    s->up->wake(s->up->to, s->client);
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
    if (!kp_machine_commanded(m, s->at))
        s->at[0] = s->at[1] = s->at[2] = NAN;
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

void gcode_session_take(struct gcode_session *s, const char *bytes, size_t n)
{
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_str in = { bytes, n };
    enum kp_gcode_event ev;
    bool stop = false;
    if (s->in_to + n > IN_MAX) {
        memmove(s->in, s->in + s->in_from, s->in_to - s->in_from);
        s->in_to -= s->in_from, s->in_from = 0;
    }
    memcpy(s->in + s->in_to, bytes, n);
    s->in_to += n;
    while ((ev = kp_gcode_feed(&s->seen, &in, &line, &fault)) != KP_GCODE_MORE) {
        stop = stop || ev == KP_GCODE_STOP;
        s->waiting += ev != KP_GCODE_STOP;
    }
    if (stop) {
        halt(s, "emergency stop by M112");
        s->up->stop(s->up->to);
    }
    run(s);
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
        s->out_from = s->out_ready = s->out_to = 0;
    run(s);
}

bool gcode_session_open(const struct gcode_session *s)
{
    return s->waiting > 0 || s->has_line || s->wait != FREE || s->settling || s->out_to > s->out_from;
}

void gcode_session_end(struct gcode_session *s)
{
    s->ended = true;
    s->has_line = false;
    s->in_from = s->in_to = s->waiting = s->out_from = s->out_ready = s->out_to = 0;
    if (s->job && s->wait != PUT_BACK && s->up->take_back(s->up->to, s->job))
        s->job = NULL;
    if (!s->job)
        s->wait = FREE;
    run(s);
}

bool gcode_session_busy(const struct gcode_session *s)
{
    return s->job != NULL;
}

void gcode_session_pushed(struct gcode_session *s)
{
    if (s->wait == PUSH && kp_machine_pushed_ms(s->m) > s->sync_after_ms)
        s->wait = FREE;
    if (s->wait == SAMPLE && sampled(s)) {
        s->wait = FREE;
        report_sensors(s);
    }
    run(s);
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
        halt(s, why);
        if (s->wait == PUSH || s->wait == SAMPLE) {
            s->wait = FREE;
            fail(s, why);
        }
    }
    run(s);
}
