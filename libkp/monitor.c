/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The monitors of temperature, position and state, and the ring of safety events, for whoever runs the loop. What a finding is worth stands in
 * the table of kp.h; a finding is told when it begins, when it stops the machine and when it is over, and at no other time. */
#include "machine.h"

#include <math.h>
#include <string.h>

#define NEAR_MM 0.001   /* Klipper's positions are rounded */
#define SILENT_MS 2000  /* Klipper tells something four times a second */

/* What a look found out, for the event. */
struct finding { char name[KP_NAME_MAX]; double got, limit; };

static const struct kp_cause_row rows[KP_CAUSE_COUNT] = {
#define KP_X(name, monitor, level, holds, stops, text) [KP_CAUSE_##name] = { #name, KP_MONITOR_##monitor, KP_##level, holds, stops, text },
    KP_CAUSES(KP_X)
#undef KP_X
};

const struct kp_cause_row *kp_cause_row(enum kp_cause cause)
{
    return (unsigned)cause < KP_CAUSE_COUNT ? &rows[cause] : NULL;
}

const char *kp_cause_name(enum kp_cause cause)
{
    return (unsigned)cause < KP_CAUSE_COUNT ? rows[cause].name : cause == KP_CAUSE_STOP ? "EMERGENCY_STOP" : "RELEASE";
}

bool kp_cause_by_name(struct kp_str name, enum kp_cause *out)
{
    for (int i = 0; i < KP_CAUSE_ALL; i++)
        if (kp_str_eq(name, kp_cause_name((enum kp_cause)i))) {
            *out = (enum kp_cause)i;
            return true;
        }
    return false;
}

/* ---- events ---- */

void kp_monitor_event(struct kp_machine *m, enum kp_level level, enum kp_cause cause, const char *text, double got, double limit)
{
    struct kp_safety_event *e = &m->events[m->event_count % KP_EVENTS_MAX];
    struct kp_error cut; /* cuts a text at a character's end */
    kp_error_set(&cut, KP_OK, NULL, "%s", text);
    *e = (struct kp_safety_event){ .id = ++m->event_count, .at_ms = m->now_ms, .level = level, .cause = cause, .got = got, .limit = limit };
    memcpy(e->text, cut.message, sizeof e->text);
    if (m->listener)
        m->listener(m->listener_context, e);
}

const struct kp_safety_event *kp_safety_event(const struct kp_machine *m, size_t i)
{
    if (i >= m->event_count || i >= KP_EVENTS_MAX)
        return NULL;
    const struct kp_safety_event *e = &m->events[(m->event_count - 1 - i) % KP_EVENTS_MAX];
    return e->id == m->event_count - i ? e : NULL; /* not every event of the last run may have been restored */
}

void kp_safety_restore(struct kp_machine *m, const struct kp_safety_event *event)
{
    if (event->id <= m->event_count)
        return;
    m->event_count = event->id;
    m->events[(event->id - 1) % KP_EVENTS_MAX] = *event;
    kp_latch_restore(m, event);
}

void kp_safety_listen(struct kp_machine *m, void (*told)(void *context, const struct kp_safety_event *event), void *context)
{
    m->listener = told;
    m->listener_context = context;
}

/* ---- temperatures ---- */

static void found(struct finding *f, const char *name, double got, double limit)
{
    kp_str_copy(f->name, kp_str_of(name));
    f->got = got;
    f->limit = limit;
}

/* Beyond the limit; one that was is so until it is far enough below. Unknown for now: as it was. */
static bool temperature_high(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    bool there = false;
    (void)now_ms;
    for (size_t i = 0; i < m->heater_count; i++) {
        struct kp_heater *h = &m->heaters[i];
        if (!h->known)
            continue;
        h->beyond = h->temperature_c > h->max_c || (h->beyond && h->temperature_c > h->max_c - m->limits.min_delta_c);
        if (h->beyond && !there)
            found(f, h->name, h->temperature_c, h->max_c);
        there = there || h->beyond;
    }
    return there;
}

static bool temperature_near(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)now_ms;
    for (size_t i = 0; i < m->heater_count; i++) {
        const struct kp_heater *h = &m->heaters[i]; /* beyond: by temperature_high, which looks first */
        if (!h->known || h->beyond || !(h->temperature_c > h->max_c - m->limits.min_delta_c))
            continue;
        found(f, h->name, h->temperature_c, h->max_c);
        return true;
    }
    return false;
}

static bool temperature_target(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)now_ms;
    for (size_t i = 0; i < m->heater_count; i++) {
        const struct kp_heater *h = &m->heaters[i];
        if (!h->known || !(h->target_c > h->max_c))
            continue;
        found(f, h->name, h->target_c, h->max_c);
        return true;
    }
    return false;
}

/* ---- position ---- */

/* Whether a homed axis is sent beyond our limits. Klipper lets nobody leave its own, so a place beyond those is a homing under way, which begins
 * with a forced one; and an end switch may lie outside ours. */
static bool axis_out(const struct kp_machine *m, size_t i, double at, double *limit)
{
    static const char *const rails[] = { "stepper_x", "stepper_y", "stepper_z" };
    const struct kp_axis *a = &m->axes[i];
    const struct kp_setting *s = kp_machine_find_setting(m, rails[i], "position_endstop");
    double end = s && s->kind == KP_NUM ? s->num : NAN, low = fmin(a->min, end), high = fmax(a->max, end);
    bool forced = (m->axis_min.told && at < m->axis_min.v[i] - NEAR_MM) || (m->axis_max.told && at > m->axis_max.v[i] + NEAR_MM);
    if (!a->homed || forced || (at >= low - NEAR_MM && at <= high + NEAR_MM))
        return false;
    *limit = at < low ? low : high;
    return true;
}

static bool position_out(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    double at[3], limit = NAN;
    (void)now_ms;
    if (m->klippy != KP_KLIPPY_READY || !kp_machine_commanded(m, at))
        return false;
    for (size_t i = 0; i < 3; i++)
        if (axis_out(m, i, at[i], &limit)) {
            found(f, (const char[]){ "xyz"[i], 0 }, at[i], limit);
            return true;
        }
    return false;
}

/* ---- state ---- */

/* The last push, and how far ahead of its clock Klipper had motion then (NAN: not told): a reading that gets no answer takes neither away. */
static int64_t told_ms(const struct kp_machine *m)
{
    return m->reading ? m->read_pushed_ms : m->pushed_ms;
}

static double ahead_s(const struct kp_machine *m)
{
    return m->reading ? m->read_ahead_s : m->print_time - m->estimated_time;
}

static bool seen_ready(const struct kp_machine *m)
{
    return m->klippy == KP_KLIPPY_READY || m->reading;
}

/* When it was last told of. */
static bool was_moving(const struct kp_machine *m)
{
    return ahead_s(m) > 0;
}

static bool tells_nothing(const struct kp_machine *m, int64_t now_ms)
{
    return told_ms(m) != INT64_MIN && now_ms - told_ms(m) > SILENT_MS;
}

/* Klipper's clock went on since; but what it did in a long silence nobody knows. */
static bool may_move(const struct kp_machine *m)
{
    double since_s = told_ms(m) == INT64_MIN || m->now_ms < told_ms(m) ? 0 : (double)(m->now_ms - told_ms(m)) / 1000;
    return ahead_s(m) > since_s || (was_moving(m) && tells_nothing(m, m->now_ms));
}

static bool is_silent(const struct kp_machine *m, int64_t now_ms)
{
    return m->moonraker && seen_ready(m) && tells_nothing(m, now_ms);
}

static bool printing(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)now_ms, (void)f;
    return kp_machine_printing(m);
}

static bool klipper_down(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)now_ms, (void)f;
    return m->moonraker && (m->klippy == KP_KLIPPY_SHUTDOWN || m->klippy == KP_KLIPPY_ERROR);
}

static bool not_ready(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    return (!m->moonraker || m->klippy != KP_KLIPPY_READY) && !klipper_down(m, now_ms, f);
}

static bool silent(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)f;
    return is_silent(m, now_ms) && !was_moving(m);
}

static bool silent_moving(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)f;
    return is_silent(m, now_ms) && was_moving(m);
}

static bool cut_moving(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)now_ms, (void)f;
    return m->cut_moving;
}

static bool lost_moving(struct kp_machine *m, int64_t now_ms, struct finding *f)
{
    (void)now_ms, (void)f;
    return m->lost_moving;
}

static bool (*const looks[KP_CAUSE_COUNT])(struct kp_machine *m, int64_t now_ms, struct finding *f) = {
    [KP_CAUSE_TEMPERATURE_HIGH] = temperature_high, [KP_CAUSE_TEMPERATURE_NEAR] = temperature_near,
    [KP_CAUSE_TEMPERATURE_TARGET] = temperature_target, [KP_CAUSE_POSITION_OUT] = position_out, [KP_CAUSE_PRINTING] = printing,
    [KP_CAUSE_NOT_READY] = not_ready, [KP_CAUSE_KLIPPER_DOWN] = klipper_down, [KP_CAUSE_SILENT] = silent,
    [KP_CAUSE_SILENT_MOVING] = silent_moving, [KP_CAUSE_CUT_MOVING] = cut_moving, [KP_CAUSE_LOST_MOVING] = lost_moving,
};

void kp_monitor_klippy(struct kp_machine *m, enum kp_klippy to)
{
    if (seen_ready(m) && to == KP_KLIPPY_GONE && may_move(m)) {
        m->lost_moving = m->moonraker;
        m->cut_moving = !m->moonraker;
    }
    if (to == KP_KLIPPY_READY)
        m->lost_moving = m->cut_moving = false;
    m->due_ms[KP_MONITOR_STATE] = INT64_MIN;
}

void kp_monitor_forget(struct kp_machine *m)
{
    memset(m->looks, 0, sizeof m->looks);
    m->lost_moving = m->cut_moving = false;
    for (int i = 0; i < KP_MONITOR_COUNT; i++)
        m->due_ms[i] = INT64_MIN;
}

enum kp_cause kp_monitor_cause(struct kp_machine *m, int64_t now_ms)
{
    struct finding f;
    for (int i = 0; i < KP_CAUSE_COUNT; i++)
        if (rows[i].stops >= 0 && looks[i](m, now_ms, &f))
            return (enum kp_cause)i;
    return KP_CAUSE_COUNT;
}

/* ---- the round ---- */

/* "the row's words: x is 301, the limit 300" */
static void tell(struct kp_machine *m, enum kp_level level, enum kp_cause cause, const struct finding *f, const char *before)
{
    struct kp_error e;
    if (f->name[0])
        kp_error_set(&e, KP_OK, NULL, "%s%s: %s is %g, the limit %g", before, rows[cause].doc, f->name, f->got, f->limit);
    else
        kp_error_set(&e, KP_OK, NULL, "%s%s", before, rows[cause].doc);
    kp_monitor_event(m, level, cause, e.message, f->got, f->limit);
}

/* One cause at one look. */
static unsigned look(struct kp_machine *m, enum kp_cause cause, int64_t now_ms)
{
    const struct kp_cause_row *row = &rows[cause];
    struct finding f = { .name = "", .got = NAN, .limit = NAN };
    unsigned reaction = 0;
    if (!looks[cause](m, now_ms, &f)) {
        if (m->looks[cause] > 0)
            tell(m, KP_NORMAL, cause, &f, "over: ");
        m->looks[cause] = 0;
        return 0;
    }
    if (m->looks[cause] <= row->stops)
        m->looks[cause]++;
    else if (m->looks[cause] == 0)
        m->looks[cause] = 1;
    else
        return 0; /* told, and stopped where it stops */
    if (m->looks[cause] == 1) {
        tell(m, row->level, cause, &f, "");
        reaction |= row->holds ? KP_REACT_HOLD : 0;
    }
    if (row->stops >= 0 && m->looks[cause] == row->stops + 1) {
        bool ours = m->latch == KP_LATCH_OURS, down = ours && m->klippy == KP_KLIPPY_SHUTDOWN;
        kp_safety_latch(m, true, row->doc);
        if (ours && !down) /* that stop is over for Klipper, or has not reached it: the latch alone stops nobody else */
            kp_monitor_event(m, KP_EMERGENCY, KP_CAUSE_STOP, row->doc, NAN, NAN);
        reaction |= down ? 0 : KP_REACT_STOP;
    }
    return reaction;
}

unsigned kp_safety_check(struct kp_machine *m, int64_t now_ms)
{
    unsigned reaction = 0;
    kp_machine_time(m, now_ms);
    for (int monitor = 0; monitor < KP_MONITOR_COUNT; monitor++) {
        if (now_ms < m->due_ms[monitor])
            continue;
        m->due_ms[monitor] = now_ms + m->interval_ms[monitor];
        for (int i = 0; i < KP_CAUSE_COUNT; i++)
            if (rows[i].monitor == (enum kp_monitor)monitor)
                reaction |= look(m, (enum kp_cause)i, now_ms);
    }
    return reaction;
}

int64_t kp_safety_due(const struct kp_machine *m)
{
    int64_t due = INT64_MAX;
    for (int i = 0; i < KP_MONITOR_COUNT; i++)
        due = m->due_ms[i] < due ? m->due_ms[i] : due;
    return due;
}

bool kp_safety_held(const struct kp_machine *m)
{
    bool held = kp_safety_latched(m);
    for (int i = 0; i < KP_CAUSE_COUNT; i++)
        held = held || (rows[i].holds && m->looks[i] > 0);
    return held;
}

bool kp_safety_present(const struct kp_machine *m, enum kp_cause cause)
{
    return (unsigned)cause < KP_CAUSE_COUNT && m->looks[cause] > 0;
}
