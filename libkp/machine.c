/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The model of the machine, fed row by row from Klipper's own words, for every module that decides. Nothing here is guessed:
 * a value Klipper has not told since it was last ready is not `known`. */
#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_NEAR 1e-4  /* Klipper tells a PWM value as our 6-decimal text made it */
#define QUIET_MS 1000    /* a written pin must have acted when Klipper has had no motion planned for this long */

/* What of Klipper's configuration is kept: sections that start so, and of them these options. */
static const char *const kept_sections[] = {
    "printer", "stepper_", "manual_stepper ", "output_pin ", "pwm_tool ", "pwm_cycle_time ", "gcode_button ",
    "filament_switch_sensor ", "temperature_sensor ", "homing_override", "safe_z_home",
};
static const char *const kept_options[] = {
    "pin", "pwm", "scale", "endstop_pin", "switch_pin", "position_min", "position_max", "max_velocity", "max_accel",
    "kinematics", "velocity", "accel",
};

/* Makes room for one more element; false when out of memory. */
static bool grow(void **list, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return true;
    size_t more = *room ? 2 * *room : 64;
    void *bigger = realloc(*list, more * size);
    if (!bigger)
        return false;
    *list = bigger;
    *room = more;
    return true;
}

static bool value_number(const struct kp_value *v, double *out)
{
    double n = v->kind == KP_NUM ? v->num : v->kind == KP_BOOL ? (double)v->flag : NAN;
    if (!isfinite(n))
        return false;
    *out = n;
    return true;
}

/* ---- rows of what Klipper is made of ---- */

static bool setting_kept(struct kp_str section, struct kp_str option, bool *whole)
{
    size_t i = 0, n = sizeof kept_sections / sizeof *kept_sections;
    while (i < n && !kp_str_starts(section, kept_sections[i]))
        i++;
    *whole = false;
    for (size_t j = 0; j < sizeof kept_options / sizeof *kept_options; j++)
        *whole = *whole || kp_str_eq(option, kept_options[j]);
    return i < n;
}

void kp_machine_setting(struct kp_machine *m, struct kp_str section, struct kp_str option, const struct kp_value *v)
{
    bool whole;
    struct kp_setting row = { .kind = KP_OTHER };
    if (!setting_kept(section, option, &whole) || !kp_str_copy(row.section, section))
        return;
    if (!whole && m->setting_count > 0 && strcmp(m->settings[m->setting_count - 1].section, row.section) == 0)
        return;
    if (whole && !kp_str_copy(row.option, option))
        return;
    if (whole && value_number(v, &row.num))
        row.kind = v->kind;
    else if (whole && v->kind == KP_STR && kp_str_copy(row.text, v->str))
        row.kind = KP_STR;
    if (m->setting_count >= KP_SETTINGS_MAX || !grow((void **)&m->settings, m->setting_count, &m->setting_room, sizeof row))
        m->out_of_memory = true;
    else
        m->settings[m->setting_count++] = row;
}

static void name_add(struct kp_machine *m, char (**list)[KP_NAME_MAX], size_t *count, size_t *room, size_t max, struct kp_str name)
{
    char copy[KP_NAME_MAX];
    if (!kp_str_copy(copy, name) || !copy[0])
        return; /* longer than any name we can use */
    if (*count >= max || !grow((void **)list, *count, room, sizeof copy))
        m->out_of_memory = true;
    else
        memcpy((*list)[(*count)++], copy, sizeof copy);
}

void kp_machine_object(struct kp_machine *m, struct kp_str name)
{
    name_add(m, &m->objects, &m->object_count, &m->object_room, KP_OBJECTS_MAX, name);
}

void kp_machine_command(struct kp_machine *m, struct kp_str word)
{
    name_add(m, &m->commands, &m->command_count, &m->command_room, KP_COMMANDS_MAX, word);
}

bool kp_machine_has_command(const struct kp_machine *m, struct kp_str word)
{
    for (size_t i = 0; i < m->command_count; i++)
        if (kp_str_eq(word, m->commands[i]))
            return true;
    return false;
}

const struct kp_setting *kp_machine_find_setting(const struct kp_machine *m, const char *section, const char *option)
{
    struct kp_str name = kp_str_of(section);
    for (size_t i = 0; i < m->setting_count; i++)
        if ((!option || strcmp(m->settings[i].option, option) == 0) && kp_str_same(name, m->settings[i].section))
            return &m->settings[i];
    return NULL;
}

bool kp_machine_has_section(const struct kp_machine *m, const char *section)
{
    return kp_machine_find_setting(m, section, NULL) != NULL;
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
    m->pushed_ms = INT64_MIN;
    m->max_velocity = m->max_accel = m->print_time = m->estimated_time = m->feedrate_mm_min = NAN;
    if (!m->config || !m->pins || !m->writes || kp_machine_build(m, NULL) == KP_INTERNAL_ERROR) {
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
    free(m->pins);
    free(m->writes);
    free(m);
}

/* What Klipper has told may have changed unseen: values stay, as stale. */
static void forget_state(struct kp_machine *m)
{
    m->pushed_ms = INT64_MIN;
    for (size_t i = 0; i < m->pin_count; i++)
        m->pins[i].known = m->pins[i].dirty = false;
    for (size_t i = 0; i < m->sensor_count; i++)
        m->sensors[i].known = false;
    for (size_t i = 0; i < m->axis_count; i++)
        m->axes[i].homed = m->axes[i].tracked = false;
    m->homed = 0;
    m->motor_count = 0;
    m->printing = m->file_active = false;
    m->print_time = m->estimated_time = NAN;
}

void kp_machine_reset(struct kp_machine *m)
{
    m->setting_count = m->object_count = m->command_count = 0;
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
static void take_toolhead(struct kp_machine *m, const struct kp_value *v) { take_point(&m->toolhead, v); }
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

static void take_absolute(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind != KP_BOOL)
        return;
    m->absolute = v->flag;
    m->absolute_told = true;
}

static void take_print_state(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind == KP_STR)
        m->printing = kp_str_eq(v->str, "printing");
}

static void take_file_active(struct kp_machine *m, const struct kp_value *v)
{
    if (v->kind == KP_BOOL)
        m->file_active = v->flag;
}

static void state_enter(struct kp_machine *m, enum kp_klippy state)
{
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
    while (i < m->motor_count && !kp_str_eq(name, m->motors[i].name))
        i++;
    if (i == m->motor_count) {
        if (i >= KP_STEPPERS_MAX || !kp_str_copy(m->motors[i].name, name))
            return;
        m->motor_count++;
        m->motors[i].on = on;
        return;
    }
    bool went_off = m->motors[i].on && !on;
    m->motors[i].on = on;
    for (size_t a = 3; went_off && a < m->axis_count; a++)
        if (kp_str_starts(name, "manual_stepper ") && kp_str_eq((struct kp_str){ name.p + 15, name.n - 15 }, m->axes[a].stepper))
            m->axes[a].homed = false;
}

/* A pin's value in Klipper's words; false when the field is none of this kind of pin. */
static bool pin_value(enum kp_pin_kind kind, struct kp_str field, const struct kp_value *v, double *out)
{
    switch (kind) {
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
    }
    return false;
}

static void pin_told(struct kp_machine *m, struct kp_str object, struct kp_str field, bool endstop, const struct kp_value *v, int64_t now_ms)
{
    for (size_t i = 0; i < m->pin_count; i++) {
        struct kp_pin *p = &m->pins[i];
        if ((p->kind == KP_PIN_ENDSTOP) != endstop || !kp_str_eq(object, p->object) || !pin_value(p->kind, field, v, &p->value))
            continue;
        p->known = true;
        p->changed_ms = now_ms;
    }
}

static void sensor_told(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms)
{
    double raw;
    if (!kp_str_eq(field, kp_str_starts(object, "load_cell") ? "force_g" : "temperature") || !value_number(v, &raw))
        return;
    for (size_t i = 0; i < m->sensor_count; i++) {
        struct kp_sensor *s = &m->sensors[i];
        if (!kp_str_eq(object, s->object))
            continue;
        s->value = raw * s->scale + s->offset;
        s->known = true;
        s->changed_ms = now_ms;
    }
}

void kp_machine_status(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (kp_str_eq(object, fields[i].object) && kp_str_eq(field, fields[i].field)) {
            fields[i].take(m, v);
            kp_machine_refresh(m);
            return;
        }
    if (kp_str_eq(object, "stepper_enable") && kp_str_starts(field, "steppers.") && v->kind == KP_BOOL) {
        motor_told(m, (struct kp_str){ field.p + 9, field.n - 9 }, v->flag);
        kp_machine_refresh(m);
    } else if (kp_str_eq(object, "query_endstops") && kp_str_starts(field, "last_query.")) {
        pin_told(m, (struct kp_str){ field.p + 11, field.n - 11 }, field, true, v, now_ms);
    } else {
        pin_told(m, object, field, false, v, now_ms);
        sensor_told(m, object, field, v, now_ms);
    }
}

void kp_machine_pushed(struct kp_machine *m, int64_t now_ms)
{
    bool quiet = m->estimated_time >= m->print_time + QUIET_MS / 1000.0;
    if (m->klippy != KP_KLIPPY_READY)
        return;
    m->pushed_ms = now_ms;
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

void kp_machine_klippy(struct kp_machine *m, enum kp_klippy state, const char *message)
{
    message_set(m, kp_str_of(message));
    state_enter(m, state);
    kp_safety_observe(m);
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
    return point_get(&m->gcode, xyz) || point_get(&m->toolhead, xyz); /* gcode_move's: a mesh or skew lies behind it */
}

bool kp_machine_gcode_state(const struct kp_machine *m, bool *absolute, double *feedrate_mm_min)
{
    if (!m->absolute_told || isnan(m->feedrate_mm_min))
        return false;
    *absolute = m->absolute;
    *feedrate_mm_min = m->feedrate_mm_min;
    return true;
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
}

void kp_machine_axis_written(struct kp_machine *m, int axis, double position, bool homed)
{
    if (axis < 3 || (size_t)axis >= m->axis_count)
        return;
    m->axes[axis].tracked = true;
    m->axes[axis].position = position;
    m->axes[axis].homed = homed;
}
