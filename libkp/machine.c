/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The model of the machine, fed row by row from Klipper's own words, for every module that decides. Nothing here is guessed:
 * a value Klipper has not told since it was last ready is not `known`. */
#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_NEAR 1e-4  /* Klipper tells a PWM value as our 6-decimal text made it */
#define SERVO_PERIOD_S 0.020 /* Klipper's */
#define QUIET_MS 1000    /* a written pin must have acted when Klipper has had no motion planned for this long */

static bool value_number(const struct kp_value *v, double *out)
{
    double n = v->kind == KP_NUM ? v->num : v->kind == KP_BOOL ? (double)v->flag : NAN;
    if (!isfinite(n))
        return false;
    *out = n;
    return true;
}

/* ---- life ---- */

struct kp_machine *kp_machine_new(const struct kp_config *c)
{
    struct kp_machine *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->config = kp_config_clone(c);
    m->pins = calloc(KP_PINS_MAX, sizeof *m->pins);
    m->writes = calloc(KP_PINS_MAX, sizeof *m->writes);
    m->events = calloc(KP_EVENTS_MAX, sizeof *m->events);
    kp_monitor_forget(m);
    m->pushed_ms = INT64_MIN;
    m->max_velocity = m->max_accel = m->print_time = m->estimated_time = m->feedrate_mm_min = NAN;
    if (!m->config || !m->pins || !m->writes || !m->events || kp_machine_build(m, NULL) == KP_INTERNAL_ERROR) {
        kp_machine_free(m);
        return NULL;
    }
    return m;
}

void kp_machine_free(struct kp_machine *m)
{
    if (!m)
        return;
    kp_config_free(m->config);
    free(m->settings);
    free(m->objects);
    free(m->commands);
    free(m->aliases);
    free(m->pins);
    free(m->writes);
    free(m->events);
    free(m);
}

/* What Klipper has told may have changed unseen: values stay, as stale. */
static void forget_state(struct kp_machine *m)
{
    m->pushed_ms = INT64_MIN;
    m->left.told = false;
    for (size_t i = 0; i < m->pin_count; i++)
        m->pins[i].known = m->pins[i].dirty = false;
    for (size_t i = 0; i < m->sensor_count; i++)
        m->sensors[i].told = m->sensors[i].known = false, m->sensors[i].fault[0] = 0;
    kp_axes_forget(m);
    for (size_t i = 0; i < m->motor_count; i++)
        m->motors[i].known = false;
    for (size_t i = 0; i < m->fan_count; i++)
        m->fans[i].known = false;
    for (size_t i = 0; i < m->heater_count; i++)
        m->heaters[i].known = false;
    m->homed = 0;
    m->extruder[0] = 0;
    m->printing = m->file_active = false;
    m->print_time = m->estimated_time = NAN;
}

void kp_machine_reset(struct kp_machine *m)
{
    m->setting_count = m->object_count = m->command_count = m->alias_count = 0;
    m->watch_count = 0;
    m->out_of_memory = false;
    forget_state(m);
}

enum kp_err kp_machine_resolve(struct kp_machine *m, struct kp_faults *f)
{
    return kp_machine_build(m, f);
}

const char *kp_machine_watch(const struct kp_machine *m, size_t i)
{
    return i < m->watch_count ? m->watch[i] : NULL;
}

/* ---- Klipper's status, a field at a time ---- */

static void take_point(struct kp_point *p, const struct kp_value *v)
{
    if (v->kind != KP_NUMS || v->count < 3 || !isfinite(v->nums[0]) || !isfinite(v->nums[1]) || !isfinite(v->nums[2]))
        return;
    memcpy(p->v, v->nums, sizeof p->v);
    p->told = true;
}

static void take_live(struct kp_machine *m, const struct kp_value *v) { take_point(&m->live, v); }
static void take_toolhead(struct kp_machine *m, const struct kp_value *v)
{
    take_point(&m->toolhead, v);
    kp_axes_places(m, v);
}

static void take_gcode(struct kp_machine *m, const struct kp_value *v) { take_point(&m->gcode, v); }
static void take_axis_min(struct kp_machine *m, const struct kp_value *v) { take_point(&m->axis_min, v); }
static void take_axis_max(struct kp_machine *m, const struct kp_value *v) { take_point(&m->axis_max, v); }
static void take_max_velocity(struct kp_machine *m, const struct kp_value *v) { value_number(v, &m->max_velocity); }
static void take_max_accel(struct kp_machine *m, const struct kp_value *v) { value_number(v, &m->max_accel); }
static void take_print_time(struct kp_machine *m, const struct kp_value *v) { value_number(v, &m->print_time); }
static void take_estimated(struct kp_machine *m, const struct kp_value *v) { value_number(v, &m->estimated_time); }
static void take_speed(struct kp_machine *m, const struct kp_value *v) { value_number(v, &m->feedrate_mm_min); }

static void take_homed(struct kp_machine *m, const struct kp_value *v)
{
    static const char letters[] = "xyz";
    if (v->kind != KP_STR)
        return;
    m->homed = 0;
    for (unsigned i = 0; i < 3; i++)
        for (size_t j = 0; j < v->str.n; j++)
            if (kp_lower(v->str.p[j]) == letters[i])
                m->homed |= 1u << i;
}

static void take_extruder(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind == KP_STR && !kp_str_copy(m->extruder, v->str))
        m->extruder[0] = 0;
}

static void take_absolute(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind != KP_BOOL)
        return;
    m->absolute = v->flag;
    m->absolute_told = true;
}

/* What a file did with axes that are joined nobody has seen. */
static void file_told(struct kp_machine *m, bool printing, bool file_active)
{
    bool was = kp_machine_printing(m);
    m->printing = printing;
    m->file_active = file_active;
    if (was && !kp_machine_printing(m))
        kp_machine_rejoin(m);
}

static void take_print_state(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind == KP_STR)
        file_told(m, kp_str_eq(v->str, "printing"), m->file_active);
}

static void take_file_active(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind == KP_BOOL)
        file_told(m, m->printing, v->flag);
}

static void state_enter(struct kp_machine *m, enum kp_klippy state)
{
    if (state != m->klippy)
        kp_monitor_klippy(m, state);
    m->reading = false;
    if (m->klippy == KP_KLIPPY_READY && state != KP_KLIPPY_READY)
        forget_state(m);
    m->klippy = state;
}

static void message_set(struct kp_machine *m, struct kp_str text)
{
    size_t n = text.n < sizeof m->message ? text.n : sizeof m->message - 1;
    while (n > 0 && n < text.n && ((unsigned char)text.p[n] & 0xc0u) == 0x80u)
        n--; /* never inside a character */
    if (n > 0)
        memcpy(m->message, text.p, n);
    m->message[n] = 0;
}

static void take_state(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind != KP_STR)
        return;
    for (enum kp_klippy s = KP_KLIPPY_STARTUP; s <= KP_KLIPPY_SHUTDOWN; s++)
        if (kp_str_eq(v->str, kp_klippy_name(s)))
            state_enter(m, s);
    kp_safety_observe(m);
}

static void take_message(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind != KP_STR)
        return;
    message_set(m, v->str);
    kp_safety_observe(m);
}

static const struct {
    const char *object, *field;
    void (*take)(struct kp_machine *m, const struct kp_value *v);
} fields[] = {
    { "motion_report", "live_position", take_live },
    { "toolhead", "position", take_toolhead },
    { "toolhead", "homed_axes", take_homed },
    { "toolhead", "axis_minimum", take_axis_min },
    { "toolhead", "axis_maximum", take_axis_max },
    { "toolhead", "max_velocity", take_max_velocity },
    { "toolhead", "extruder", take_extruder },
    { "toolhead", "max_accel", take_max_accel },
    { "toolhead", "print_time", take_print_time },
    { "toolhead", "estimated_print_time", take_estimated },
    { "gcode_move", "position", take_gcode },
    { "gcode_move", "absolute_coordinates", take_absolute },
    { "gcode_move", "speed", take_speed },
    { "print_stats", "state", take_print_state },
    { "virtual_sdcard", "is_active", take_file_active },
    { "webhooks", "state", take_state },
    { "webhooks", "state_message", take_message },
};

/* A motor was switched on or off. An extra axis whose motor goes off is unhomed; that it has been off is no news. */
static void motor_told(struct kp_machine *m, struct kp_str name, bool on)
{
    size_t i = 0;
    while (i < m->motor_count && !kp_str_same(name, m->motors[i].name))
        i++;
    if (i >= KP_MOTORS_MAX || !kp_str_copy(m->motors[i].name, name)) /* its spelling, too: settings have lower case only */
        return;
    if (i == m->motor_count)
        m->motors[m->motor_count++].known = false;
    bool went_off = m->motors[i].known && m->motors[i].on && !on;
    m->motors[i].known = true;
    m->motors[i].on = on;
    for (size_t a = 3; went_off && a < m->axis_count; a++)
        if (kp_str_starts(name, "manual_stepper ") && kp_str_eq((struct kp_str){ name.p + 15, name.n - 15 }, m->axes[a].stepper))
            kp_axis_unhome(&m->axes[a]);
}

/* A pin's value in Klipper's words; false when the field is none of this kind of pin. */
static bool pin_value(const struct kp_pin *p, struct kp_str field, const struct kp_value *v, double *out)
{
    switch (p->kind) {
    case KP_PIN_OUTPUT:
    case KP_PIN_PWM:
        return kp_str_eq(field, "value") && value_number(v, out);
    case KP_PIN_BUTTON:
        if (!kp_str_eq(field, "state") || v->kind != KP_STR)
            return false;
        *out = kp_str_eq(v->str, "PRESSED");
        return true;
    case KP_PIN_SWITCH:
        return kp_str_eq(field, "filament_detected") && value_number(v, out);
    case KP_PIN_ENDSTOP:
        return value_number(v, out);
    case KP_PIN_SERVO: /* the pulse as a share of 20 ms; no pulse at all: off */
        if (!kp_str_eq(field, "value") || !value_number(v, out))
            return false;
        *out = fmin(fmax((*out * SERVO_PERIOD_S - p->pulse_s[0]) / (p->pulse_s[1] - p->pulse_s[0]), 0), 1);
        return true;
    }
    return false;
}

static void pin_told(struct kp_machine *m, struct kp_str object, struct kp_str field, bool endstop, const struct kp_value *v, int64_t now_ms)
{
    for (size_t i = 0; i < m->pin_count; i++) {
        struct kp_pin *p = &m->pins[i];
        if ((p->kind == KP_PIN_ENDSTOP) != endstop || !kp_str_eq(object, p->object) || !pin_value(p, field, v, &p->value))
            continue;
        p->known = true;
        p->changed_ms = now_ms;
    }
}

static void sensor_told(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms)
{
    double raw;
    bool number = value_number(v, &raw), fault = kp_str_eq(field, "fault") && kp_str_starts(object, "pnp_sensor ");
    if (!number && !fault)
        return;
    for (size_t i = 0; i < m->sensor_count; i++) {
        struct kp_sensor *s = &m->sensors[i];
        if (!kp_str_eq(object, s->object))
            continue;
        if (fault) {
            kp_str_clean(s->fault, v->kind == KP_STR ? v->str : kp_str_of(""));
        } else if (kp_str_eq(field, s->field)) {
            s->value = raw * s->scale + s->offset;
            s->told = true;
            s->changed_ms = now_ms;
        }
        s->known = s->told && !s->fault[0]; /* Klipper tells only what changes: a fault that goes leaves the value as it was told */
    }
}

static void fan_told(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms)
{
    double speed;
    if (!kp_str_eq(field, "speed") || !value_number(v, &speed))
        return;
    for (size_t i = 0; i < m->fan_count; i++)
        if (kp_str_eq(object, m->fans[i].object)) {
            m->fans[i].speed = speed;
            m->fans[i].known = true;
            m->fans[i].changed_ms = now_ms;
        }
}

static void heater_told(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms)
{
    bool target = kp_str_eq(field, "target");
    double value;
    if ((!target && !kp_str_eq(field, "temperature")) || !value_number(v, &value))
        return;
    for (size_t i = 0; i < m->heater_count; i++) {
        struct kp_heater *h = &m->heaters[i];
        if (!kp_str_eq(object, h->object))
            continue;
        if (target) {
            h->target_c = value;
            continue;
        }
        h->temperature_c = value;
        h->known = true;
        h->changed_ms = now_ms;
    }
}

/* Mainline tells an end switch by its section ("stepper_x"), older ones and Kalico by its rail ("x"). */
static struct kp_str endstop_name(struct kp_str name)
{
    return kp_str_starts(name, "stepper_") ? (struct kp_str){ name.p + 8, name.n - 8 } : name;
}

void kp_machine_status(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms)
{
    m->now_ms = now_ms > m->now_ms ? now_ms : m->now_ms;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (kp_str_eq(object, fields[i].object) && kp_str_eq(field, fields[i].field)) {
            fields[i].take(m, v);
            kp_machine_refresh(m);
            return;
        }
    if (kp_axes_told(m, object, field, v))
        return;
    if (kp_str_eq(object, "stepper_enable") && kp_str_starts(field, "steppers.") && v->kind == KP_BOOL) {
        motor_told(m, (struct kp_str){ field.p + 9, field.n - 9 }, v->flag);
        kp_machine_refresh(m);
    } else if (kp_str_eq(object, "query_endstops") && kp_str_starts(field, "last_query.")) {
        pin_told(m, endstop_name((struct kp_str){ field.p + 11, field.n - 11 }), field, true, v, now_ms);
    } else {
        pin_told(m, object, field, false, v, now_ms);
        sensor_told(m, object, field, v, now_ms);
        fan_told(m, object, field, v, now_ms);
        heater_told(m, object, field, v, now_ms);
    }
}

void kp_machine_pushed(struct kp_machine *m, int64_t now_ms)
{
    kp_machine_time(m, now_ms);
    bool quiet = m->estimated_time >= m->print_time + QUIET_MS / 1000.0;
    if (m->klippy != KP_KLIPPY_READY)
        return;
    m->pushed_ms = now_ms;
    if (now_ms > m->left_ms)
        m->left.told = false;
    for (size_t i = 0; i < m->pin_count; i++) {
        struct kp_pin *p = &m->pins[i];
        const struct kp_write *w = &m->writes[i];
        if (!p->dirty || !p->known || now_ms < w->at_ms)
            continue;
        bool shown = fabs(p->value - p->expected) < VALUE_NEAR && (!w->chained || p->changed_ms >= w->at_ms);
        /* Without motion for so long the write has acted: another value is somebody else's, later one. */
        if (shown || (quiet && now_ms - w->at_ms > QUIET_MS))
            p->dirty = false;
    }
}

int64_t kp_machine_pushed_ms(const struct kp_machine *m)
{
    return m->pushed_ms;
}

void kp_machine_time(struct kp_machine *m, int64_t now_ms)
{
    m->now_ms = now_ms > m->now_ms ? now_ms : m->now_ms;
}

void kp_machine_klippy(struct kp_machine *m, enum kp_klippy state, const char *message)
{
    message_set(m, kp_str_of(message));
    state_enter(m, state);
    kp_safety_observe(m);
}

void kp_machine_reading(struct kp_machine *m, const char *message)
{
    if (m->klippy != KP_KLIPPY_READY)
        return;
    m->reading = true;
    m->read_pushed_ms = m->pushed_ms;
    m->read_ahead_s = m->print_time - m->estimated_time;
    forget_state(m);
    message_set(m, kp_str_of(message));
    m->klippy = KP_KLIPPY_STARTUP;
}

enum kp_klippy kp_machine_klippy_state(const struct kp_machine *m)
{
    return m->klippy;
}

const char *kp_machine_klippy_message(const struct kp_machine *m)
{
    return m->message;
}

const char *kp_klippy_name(enum kp_klippy state)
{
    static const char *const names[] = { "disconnected", "startup", "ready", "error", "shutdown" };
    return names[state];
}

void kp_machine_moonraker(struct kp_machine *m, bool connected)
{
    m->moonraker = connected;
    if (!connected)
        kp_machine_klippy(m, KP_KLIPPY_GONE, NULL);
}

bool kp_machine_moonraker_connected(const struct kp_machine *m)
{
    return m->moonraker;
}

/* ---- where it stands ---- */

static bool point_get(const struct kp_point *p, double xyz[3])
{
    if (p->told)
        memcpy(xyz, p->v, sizeof p->v);
    return p->told;
}

bool kp_machine_position(const struct kp_machine *m, double xyz[3])
{
    return point_get(&m->live, xyz);
}

bool kp_machine_commanded(const struct kp_machine *m, double xyz[3])
{
    return point_get(&m->left, xyz) || point_get(&m->gcode, xyz) || point_get(&m->toolhead, xyz); /* gcode_move's: a mesh or skew lies behind it */
}

bool kp_machine_gcode_state(const struct kp_machine *m, bool *absolute, double *feedrate_mm_min)
{
    if (!m->absolute_told || isnan(m->feedrate_mm_min))
        return false;
    *absolute = m->absolute;
    *feedrate_mm_min = m->feedrate_mm_min;
    return true;
}

const char *kp_machine_extruder(const struct kp_machine *m)
{
    return m->extruder;
}

bool kp_machine_printing(const struct kp_machine *m)
{
    return m->printing || m->file_active;
}

void kp_machine_pin_written(struct kp_machine *m, int pin, double value, int64_t now_ms)
{
    if (pin < 0 || (size_t)pin >= m->pin_count)
        return;
    struct kp_pin *p = &m->pins[pin];
    bool chained = p->dirty && fabs(p->expected - value) >= VALUE_NEAR;
    m->writes[pin] = (struct kp_write){ now_ms, chained };
    p->dirty = true;
    p->expected = value;
    m->ours++;
}

void kp_machine_moved(struct kp_machine *m, const double *xyz, int64_t now_ms)
{
    m->left.told = xyz != NULL;
    if (xyz)
        memcpy(m->left.v, xyz, sizeof m->left.v);
    m->left_ms = now_ms;
    m->ours++;
}

uint64_t kp_machine_ours(const struct kp_machine *m)
{
    return m->ours;
}

void kp_machine_asked(struct kp_machine *m, int64_t asked_ms)
{
    if (asked_ms > m->left_ms)
        m->left.told = false;
}

bool kp_machine_left(const struct kp_machine *m)
{
    return m->left.told;
}
