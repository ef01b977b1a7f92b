/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a line of the G-code port asks, for gcode_session.c: scripts, barriers, homing, places and sensors. Invariant: a report is given only when all before it
 * has happened, and Klipper has said so. */
#include "gcode_priv.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "log.h"

static void on_done(void *user, const struct lane_outcome *o);

/* ---- scripts ---- */

static void failed(struct gcode_session *s, enum wait wait, const struct kp_error *e)
{
    bool had_line = s->has_line;
    if (wait == PUT_BACK)
        return;
    const char *text = e->code == KP_EXECUTION_FAILED || e->code == KP_OUTCOME_UNKNOWN ? kp_modal_put_back(s->g) : NULL;
    if (text)
        snprintf(s->put_back, sizeof s->put_back, "%s", text);
    if (wait == BARRIER && s->settling) {
        gcode_take_held_back(s, e->message);
        s->has_line = had_line;
    }
    if (s->has_line)
        gcode_fail(s, e->message);
    else
        gcode_halt(s, e->message);
}

static uint64_t others(const struct gcode_session *s)
{
    return s->up->movers(s->up->to) - s->own_moves;
}

bool gcode_placed(const struct gcode_session *s)
{
    return s->placed && others(s) == s->others_then;
}

static void submit(struct gcode_session *s, enum wait wait)
{
    uint64_t theirs = others(s);
    struct kp_faults f = { .count = 0 };
    s->script.follows = s->waiting > 0;
    s->wait = wait;
    s->job = s->up->submit(s->up->to, &s->script, on_done, s, &f);
    s->own_moves += others(s) - theirs;
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

void gcode_barrier(struct gcode_session *s, enum why why)
{
    s->why = why;
    s->others_asked = others(s);
    submit_text(s, kp_script_barrier(s->spaced), BARRIER);
}

void gcode_put_back(struct gcode_session *s)
{
    char text[GCODE_TEXT_MAX];
    memcpy(text, s->put_back, sizeof text);
    s->put_back[0] = 0;
    submit_text(s, text, PUT_BACK);
}

/* It was made from where the line began, or from where its last move ended. */
static bool moves(const char *text)
{
    struct kp_str w;
    for (size_t i = 0; kp_script_word(text, i, &w); i++)
        if (kp_str_eq(w, "G1") || kp_str_eq(w, "G2") || kp_str_eq(w, "G3") || kp_str_eq(w, "MANUAL_STEPPER"))
            return true;
    return false;
}

/* Klipper's text for the action under way. */
static void submit_action(struct gcode_session *s)
{
    const struct kp_gcode_action *a = &s->action;
    struct lane_script *to = &s->script;
    if (a->kind == KP_DO_SCRIPT && (s->shifted || !gcode_placed(s)) && kp_modal_needs_place(s->g, &s->line) && moves(a->text)) {
        gcode_fail(s, "somebody else moved the machine during this line");
        return;
    }
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

static bool near(double ours, double klippers)
{
    return fabs(ours - klippers) <= NEAR_MM;
}

/* Where the head is is Klipper's to say, as it just has. */
static void place_check(struct gcode_session *s)
{
    for (int i = 0; i < 3; i++) {
        if (near(s->at[i], s->klipper_at[i]))
            continue;
        s->sync_owed = true;
        s->sync_after_ms = s->happened_ms;
        if (isnan(s->at[i]))
            continue;
        s->shifted = true;
        log_line(LOG_WARNING, "gcode", "position axis=%c ours=%.4f klipper=%.3f", "XYZ"[i], s->at[i], s->klipper_at[i]);
    }
}

static void report_position(struct gcode_session *s)
{
    char text[GCODE_REPLY_MAX], why[GCODE_TEXT_MAX];
    double position[KP_AXES_MAX];
    const struct kp_axis *a;
    memcpy(position, s->action.position, sizeof position);
    for (int i = 0; i < 3; i++) /* ours has the decimals where it is no further than Klipper's rounding */
        if (!near(s->action.target[i], s->klipper_at[i]))
            position[i] = (s->klipper_at[i] - s->action.offset[i]) / s->action.unit[i];
    for (size_t i = 3; (a = kp_machine_axis(s->m, i)); i++) /* the table is everybody's: REST may have turned it meanwhile */
        position[i] = a->lost ? NAN : a->tracked ? (a->position - s->action.offset[i]) / s->action.unit[i]
                                                 : 0; /* as Klipper tells X, Y and Z before they are homed; nothing absolute is done there */
    char lost = gcode_reply_position(text, s->m, position);
    if (lost) {
        snprintf(why, sizeof why, "it is not known where axis %c stands: home it with G28", lost);
        gcode_fail(s, why);
        return;
    }
    gcode_say(s, s->ok_said ? text + 3 : text);
    s->ok_said = true;
}

/* The barrier just before tells: nobody has moved the head since, as far as we know. */
static bool place_holds(const struct gcode_session *s)
{
    double is[3];
    if (s->work || !s->ready || !gcode_placed(s) || s->up->now_ms(s->up->to) - s->happened_ms > FRESH_MS || !kp_machine_commanded(s->m, is))
        return false;
    for (int i = 0; i < 3; i++)
        if (!near(is[i], s->klipper_at[i]))
            return false;
    return true;
}

static void ask_position(struct gcode_session *s)
{
    if (!place_holds(s))
        gcode_barrier(s, FOR_POSITION);
    else
        report_position(s);
}

/* From when on what Klipper tells is sampled after all that has happened; INT64_MIN: no sensor is told. */
static int64_t sampled_ms(const struct gcode_session *s)
{
    const struct kp_sensor *sensor;
    int64_t most_ms = -1;
    for (size_t i = 0; (sensor = kp_machine_sensor(s->m, i)); i++)
        if (sensor->m105[0] && sensor->report_ms > most_ms)
            most_ms = sensor->report_ms;
    return most_ms < 0 ? INT64_MIN : s->happened_ms + most_ms;
}

static bool sampled(const struct gcode_session *s)
{
    return kp_machine_pushed_ms(s->m) >= sampled_ms(s);
}

static void report_sensors(struct gcode_session *s)
{
    char text[GCODE_REPLY_MAX], why[GCODE_TEXT_MAX];
    const char *silent = gcode_reply_sensors(text, s->m);
    if (silent) {
        snprintf(why, sizeof why, "sensor %s tells nothing", silent);
        gcode_fail(s, why);
        return;
    }
    gcode_say(s, s->ok_said ? text + 2 + (text[2] == ' ') : text);
    s->ok_said = true;
}

void gcode_sampled(struct gcode_session *s)
{
    if (!sampled(s))
        return;
    s->wait = FREE;
    report_sensors(s);
}

static void ask_sensors(struct gcode_session *s)
{
    if (!s->ready)
        gcode_fail(s, "Klipper is not ready: the sensors tell nothing");
    else if (s->work)
        gcode_barrier(s, FOR_SENSORS);
    else if (sampled(s))
        report_sensors(s);
    else {
        int64_t in_ms = sampled_ms(s) - s->up->now_ms(s->up->to);
        s->wait = SAMPLE;
        s->up->look(s->up->to, in_ms > 0 ? in_ms + LOOK_MS : LOOK_MS);
    }
}

/* ---- actions and their ends ---- */

void gcode_act(struct gcode_session *s)
{
    char text[GCODE_REPLY_MAX];
    switch (s->action.kind) {
    case KP_DO_SCRIPT:
    case KP_DO_ENDSTOPS: submit_action(s); return;
    case KP_DO_HOME: home(s); return;
    case KP_DO_WAIT: gcode_barrier(s, FOR_WAIT); return;
    case KP_DO_POSITION: ask_position(s); return;
    case KP_DO_SENSORS: ask_sensors(s); return;
    case KP_DO_VERSION:
        gcode_reply_version(text, s->o->firmware_name, s->m);
        gcode_say(s, text);
        return;
    case KP_DO_PAUSE: gcode_fail(s, "M0 and M1 are for files: nobody here could let the stream go on"); return;
    case KP_DO_STOP: /* of a mapped command: one that stands in the stream was seen when it came */
        gcode_fail(s, GCODE_STOPPED);
        s->up->stop(s->up->to);
        return;
    }
}

static void script_done(struct gcode_session *s, const char *console)
{
    const struct kp_gcode_action *a = &s->action;
    char text[GCODE_TEXT_MAX];
    s->work = true;
    s->settling = s->settling || (a->settle && !s->cut);
    memcpy(s->at, a->target, sizeof s->at);
    for (size_t i = 0; i < s->script.write_count; i++) {
        s->spaced = s->spaced || s->written[s->script.writes[i].pin];
        s->written[s->script.writes[i].pin] = true;
    }
    if (s->cut)
        return;
    if (a->kind == KP_DO_ENDSTOPS) {
        gcode_reply_error(text, "", console);
        gcode_say(s, text + 3);
    }
    if (a->resync && a->kind == KP_DO_HOME)
        gcode_barrier(s, FOR_HOME); /* a shutdown ends its M400 early, and this one fails then */
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
    s->placed = true;
    s->others_then = s->others_asked;
    gcode_let_go(s);
    place_check(s);
    if (s->cut)
        return;
    switch (s->why) {
    case FOR_REPLIES:
    case FOR_PLACE:
    case FOR_WAIT: break;
    case FOR_POSITION: report_position(s); break;
    case FOR_SENSORS: ask_sensors(s); break;
    case FOR_HOME:
        s->sync_owed = true;
        s->sync_after_ms = s->happened_ms;
        break;
    }
}

/* ---- the end of a script ---- */

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
    gcode_run(s);
    s->up->wake(s->up->to, s->client);
}
