/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Makes the machine's parts from klipperplace.cfg and Klipper's own configuration, once per Klipper that is ready. A part that
 * klipperplace.cfg names and Klipper lacks is at fault alone; everything else works. */
#include "build.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HOME_TURN_DEG 370.0 /* a whole turn passes the endstop, wherever it stands */
#define SERVO_MIN_S 0.001  /* Klipper's defaults of a servo */
#define SERVO_SPAN_S 0.001
#define SERVO_ANGLE 180.0

static const struct pin_rule { const char *section, *option; enum kp_pin_kind kind; } pin_rules[] = {
    { "output_pin ", "pin", KP_PIN_OUTPUT },
    { "pwm_tool ", "pin", KP_PIN_PWM },
    { "pwm_cycle_time ", "pin", KP_PIN_PWM },
    { "gcode_button ", "pin", KP_PIN_BUTTON },
    { "filament_switch_sensor ", "switch_pin", KP_PIN_SWITCH },
    { "filament_motion_sensor ", "switch_pin", KP_PIN_SWITCH },
    { "servo ", "pin", KP_PIN_SERVO },
    { "stepper_", "endstop_pin", KP_PIN_ENDSTOP },
    { "manual_stepper ", "endstop_pin", KP_PIN_ENDSTOP },
};

/* Objects without which nothing is known, watched where Klipper has them. */
static const char *const watched[] = {
    "toolhead", "motion_report", "gcode_move", "webhooks", "print_stats", "virtual_sdcard", "idle_timeout", "stepper_enable",
    "query_endstops",
};

/* Kinematics where two motors carry two axes: bits of the axes that both motors of the pair move. */
static const struct { const char *name; unsigned axes; } shared_motors[] = {
    { "corexy", 3 }, { "hybrid_corexy", 3 }, { "limited_corexy", 3 }, { "corexz", 5 }, { "hybrid_corexz", 5 }, { "limited_corexz", 5 },
};

/* ---- small helpers ---- */

void build_fault(struct build *b, enum kp_err code, const char *option, const char *text, char part_fault[KP_TEXT_MAX])
{
    struct kp_error e;
    kp_error_set(&e, code, b->section, "[%s] %s%s%s", b->section, option, *option ? ": " : "", text);
    if (part_fault && !part_fault[0])
        memcpy(part_fault, e.message, sizeof e.message);
    if (b->first == KP_OK)
        b->first = code;
    if (b->f)
        kp_faults_add(b->f, &e);
}

/* a, then b, cut to size. */
void build_join(char *out, size_t size, const char *a, const char *b)
{
    size_t n = 0;
    while (*a && n + 1 < size)
        out[n++] = *a++;
    while (*b && n + 1 < size)
        out[n++] = *b++;
    out[n] = 0;
}

void build_section(struct build *b, const char *kind, const char *name)
{
    build_join(b->section, sizeof b->section, kind, name);
}

double build_number(const struct build *b, const char *option)
{
    return kp_config_num(b->m->config, b->section, option);
}

const char *build_text(const struct build *b, const char *option)
{
    return kp_config_str(b->m->config, b->section, option);
}

/* The name as Klipper wrote it: settings have lower case, objects have what scripts need. NULL: no such object. */
const char *build_object(const struct kp_machine *m, const char *name)
{
    struct kp_str wanted = kp_str_of(name);
    const char *same = NULL;
    for (size_t i = 0; i < m->object_count; i++) {
        if (kp_str_eq(wanted, m->objects[i]))
            return m->objects[i];
        if (kp_str_same(wanted, m->objects[i]))
            same = m->objects[i];
    }
    return same;
}

const char *build_existing(const struct kp_machine *m, const char *name)
{
    const char *object = build_object(m, name);
    return object ? object : kp_machine_has_section(m, name) ? name : NULL;
}

void build_name(char out[KP_NAME_MAX], const char *text)
{
    struct kp_str s = kp_str_of(text);
    if (!kp_str_copy(out, s))
        kp_str_clean(out, s);
}

const char *build_short(const char *section)
{
    const char *blank = strchr(section, ' ');
    return blank ? blank + 1 : section;
}

double build_setting(const struct kp_machine *m, const char *section, const char *option)
{
    const struct kp_setting *s = kp_machine_find_setting(m, section, option);
    return s && (s->kind == KP_NUM || s->kind == KP_BOOL) ? s->num : NAN;
}

/* ---- pins ---- */

static void pin_output(const struct kp_machine *m, struct kp_pin *p, const char *section)
{
    double pwm = build_setting(m, section, "pwm"), scale = build_setting(m, section, "scale");
    if (p->kind == KP_PIN_OUTPUT && pwm > 0)
        p->kind = KP_PIN_PWM;
    if (p->kind == KP_PIN_PWM && scale > 0)
        p->scale = scale;
    if (p->kind == KP_PIN_PWM)
        p->cycle_time_s = build_setting(m, section, "cycle_time");
    p->cycle_settable = kp_str_starts(kp_str_of(section), "pwm_cycle_time ");
    if (p->kind != KP_PIN_SERVO)
        return;
    double low = build_setting(m, section, "minimum_pulse_width"), high = build_setting(m, section, "maximum_pulse_width");
    double angle = build_setting(m, section, "maximum_servo_angle");
    p->pulse_s[0] = low > 0 ? low : SERVO_MIN_S;
    p->pulse_s[1] = high > p->pulse_s[0] ? high : p->pulse_s[0] + SERVO_SPAN_S;
    p->scale = angle > 0 ? angle : SERVO_ANGLE;
}

static void pin_names(const struct kp_machine *m, struct kp_pin *p, const char *section)
{
    const char *object = build_object(m, section);
    if (p->kind != KP_PIN_ENDSTOP) {
        build_name(p->object, object ? object : section);
        build_name(p->name, build_short(p->object));
        return;
    }
    const char *rail = strncmp(section, "stepper_", 8) == 0 ? section + 8 : object ? object : section;
    build_name(p->object, rail);
    build_join(p->name, sizeof p->name, "endstop_", build_short(rail));
}

/* What Klipper told of the pin before stays, also when pins have come and gone. */
static void pin_carry(struct kp_pin *p, const struct kp_pin *old, size_t count, struct kp_write *w, const struct kp_write *old_writes)
{
    for (size_t i = 0; i < count; i++)
        if (old[i].kind == p->kind && strcmp(old[i].object, p->object) == 0) {
            p->known = old[i].known;
            p->value = old[i].value;
            p->changed_ms = old[i].changed_ms;
            p->dirty = old[i].dirty;
            p->expected = old[i].expected;
            *w = old_writes[i];
        }
}

static bool build_pins(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_pin *old = m->pins, *pins = calloc(KP_PINS_MAX, sizeof *pins);
    struct kp_write *old_writes = m->writes, *writes = calloc(KP_PINS_MAX, sizeof *writes);
    size_t count = 0;
    if (!pins || !writes) {
        free(pins);
        free(writes);
        return false;
    }
    for (size_t i = 0; i < m->setting_count; i++) {
        const struct kp_setting *s = &m->settings[i];
        for (size_t r = 0; r < sizeof pin_rules / sizeof *pin_rules; r++) {
            struct kp_pin p = { .kind = pin_rules[r].kind, .scale = 1, .cycle_time_s = NAN, .m42 = -1, .changed_ms = INT64_MIN };
            if (s->kind != KP_STR || strcmp(s->option, pin_rules[r].option) != 0 ||
                !kp_str_starts(kp_str_of(s->section), pin_rules[r].section) ||
                !kp_pin_parse(kp_str_of(s->text), p.chip, p.board, &p.inverted))
                continue;
            if (count == KP_PINS_MAX) {
                build_name(b->section, s->section);
                build_fault(b, KP_INVALID_REQUEST, "", "one pin more than can be kept; it is left out", NULL);
                continue;
            }
            kp_alias_resolve(m, p.chip, p.board);
            pin_names(m, &p, s->section);
            pin_output(m, &p, s->section);
            pin_carry(&p, old, m->pin_count, &writes[count], old_writes);
            pins[count++] = p;
        }
    }
    free(old);
    free(old_writes);
    m->pins = pins;
    m->writes = writes;
    m->pin_count = count;
    return true;
}

static void alias_set(struct build *b, struct kp_pin *p, const char *name)
{
    double m42 = build_number(b, "m42");
    build_name(p->alias, name);
    if (isnan(m42))
        return;
    if (p->kind == KP_PIN_OUTPUT || p->kind == KP_PIN_PWM)
        p->m42 = (int)m42;
    else
        build_fault(b, KP_INVALID_PARAMETER, "m42", "not an output pin", NULL);
}

static void build_aliases(struct build *b)
{
    const char *name;
    for (size_t i = 0; (name = kp_config_section(b->m->config, "pin", i)); i++) {
        struct kp_error e;
        int pin;
        bool inverted;
        build_section(b, "pin ", name);
        const char *text = build_text(b, "object") ? build_text(b, "object") : build_text(b, "pin");
        if (!text)
            build_fault(b, KP_INVALID_PARAMETER, "", "needs one of object and pin", NULL);
        else if (kp_machine_find_pin(b->m, kp_str_of(text), &pin, &inverted, &e) != KP_OK)
            build_fault(b, e.code, "", e.message, NULL);
        else if (inverted)
            build_fault(b, KP_INVALID_PARAMETER, "", "an alias cannot invert; write ! in Klipper's configuration", NULL);
        else if (b->m->pins[pin].alias[0])
            build_fault(b, KP_INVALID_PARAMETER, "", "its pin already has another alias", NULL);
        else
            alias_set(b, &b->m->pins[pin], name);
    }
}

int build_pin(struct build *b, const char *option, char part_fault[KP_TEXT_MAX])
{
    struct kp_error e;
    const char *text = build_text(b, option);
    bool inverted;
    int pin;
    if (!text)
        return -1;
    if (kp_machine_find_pin(b->m, kp_str_of(text), &pin, &inverted, &e) != KP_OK)
        build_fault(b, e.code, option, e.message, part_fault);
    else if (inverted)
        build_fault(b, KP_INVALID_PARAMETER, option, "cannot invert here; write ! in Klipper's configuration", part_fault);
    else if (b->m->pins[pin].kind != KP_PIN_OUTPUT && b->m->pins[pin].kind != KP_PIN_PWM)
        build_fault(b, KP_INVALID_PARAMETER, option, "not an output pin", part_fault);
    else
        return pin;
    return -1;
}

/* ---- axes ---- */

static void axis_carry(struct kp_axis *a, const struct kp_axis *old, size_t count)
{
    for (size_t i = 3; i < count; i++)
        if (old[i].letter == a->letter && strcmp(old[i].stepper, a->stepper) == 0) {
            a->homed = old[i].homed;
            a->lost = old[i].lost;
            a->tracked = old[i].tracked;
            a->position = old[i].position;
        }
}

/* By the endstop of its own section. */
static void axis_homing(const struct build *b, struct kp_axis *a, const char *object)
{
    double velocity = build_number(b, "home_velocity"), travel = build_number(b, "home_travel");
    a->endstop = kp_machine_find_setting(b->m, object, "endstop_pin") != NULL;
    a->home_velocity = isnan(velocity) ? a->velocity / 10 : velocity;
    a->home_travel = !a->endstop ? NAN : isnan(travel) && a->rotary ? HOME_TURN_DEG : travel;
}

static void build_axes(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_axis old[KP_AXES_MAX];
    size_t old_count = m->axis_count;
    const char *name;
    memcpy(old, m->axes, sizeof old);
    memset(m->axes, 0, sizeof m->axes);
    for (m->axis_count = 0; m->axis_count < 3; m->axis_count++)
        m->axes[m->axis_count] = (struct kp_axis){ .letter = "XYZ"[m->axis_count], .velocity = NAN, .acceleration = NAN };
    for (size_t i = 0; (name = kp_config_section(m->config, "axis", i)) && m->axis_count < KP_AXES_MAX; i++) {
        char object[KP_NAME_MAX];
        struct kp_axis a = { .letter = name[0], .extra = true, .min = -INFINITY, .max = INFINITY };
        build_section(b, "axis ", name);
        const char *stepper = build_stepper(b, build_text(b, "stepper"), object, NULL);
        if (!stepper)
            continue;
        build_name(a.stepper, stepper);
        a.rotary = kp_config_bool(m->config, b->section, "rotary");
        a.velocity = build_number(b, "velocity");
        a.acceleration = build_number(b, "acceleration");
        if (isnan(a.velocity))
            a.velocity = build_setting(m, object, "velocity");
        if (isnan(a.acceleration))
            a.acceleration = build_setting(m, object, "accel");
        double min = build_setting(m, object, "position_min"), max = build_setting(m, object, "position_max");
        if (!a.rotary && !isnan(min))
            a.min = min;
        if (!a.rotary && !isnan(max))
            a.max = max;
        axis_homing(b, &a, object);
        a.join = strcmp(build_text(b, "joined"), "no") != 0 && a.velocity > 0 && a.acceleration > 0 ? KP_JOIN_OWED : KP_BESIDE;
        axis_carry(&a, old, old_count);
        m->axes[m->axis_count++] = a;
    }
}

/* ---- limits and homing, from what is known now ---- */

/* What klipperplace.cfg says, which does not change. */
static void build_own(struct kp_machine *m)
{
    static const char *const lows[] = { "min_x_position", "min_y_position", "min_z_position" };
    static const char *const highs[] = { "max_x_position", "max_y_position", "max_z_position" };
    const struct kp_config *c = m->config;
    struct kp_limits *l = &m->limits;
    for (size_t i = 0; i < 3; i++) {
        m->own.min[i] = kp_config_num(c, "safety", lows[i]);
        m->own.max[i] = kp_config_num(c, "safety", highs[i]);
    }
    m->own.velocity = kp_config_num(c, "safety", "max_velocity");
    m->own.accel = kp_config_num(c, "safety", "max_acceleration");
    m->own.min_feedrate = kp_config_num(c, "safety", "min_feedrate");
    m->own.max_feedrate = kp_config_num(c, "safety", "max_feedrate");
    l->min_pwm = kp_config_num(c, "safety", "min_pwm_value");
    l->max_pwm = kp_config_num(c, "safety", "max_pwm_value");
    l->min_fan = kp_config_num(c, "safety", "min_fan_speed");
    l->max_fan = kp_config_num(c, "safety", "max_fan_speed");
    l->max_extruder_c = kp_config_num(c, "safety", "max_extruder_temp");
    l->max_bed_c = kp_config_num(c, "safety", "max_bed_temp");
    l->max_chamber_c = kp_config_num(c, "safety", "max_chamber_temp");
    l->min_delta_c = kp_config_num(c, "safety", "min_temp_delta");
    m->timeout_s = kp_config_num(c, "gcode_driver", "default_timeout");
    l->travel_interlock = kp_config_bool(c, "vacuum", "travel_interlock");
    l->vacuum_retries = (int)kp_config_num(c, "vacuum", "retries");
    l->retry_lower_mm = kp_config_num(c, "vacuum", "retry_lower");
    m->interval_ms[KP_MONITOR_TEMPERATURE] = (int64_t)(kp_config_num(c, "safety", "temperature_check_interval") * 1000 + 0.5);
    m->interval_ms[KP_MONITOR_POSITION] = (int64_t)(kp_config_num(c, "safety", "position_check_interval") * 1000 + 0.5);
    m->interval_ms[KP_MONITOR_STATE] = (int64_t)(kp_config_num(c, "safety", "state_check_interval") * 1000 + 0.5);
}

static void refresh_axis(struct kp_machine *m, size_t i)
{
    static const char *const rails[] = { "stepper_x", "stepper_y", "stepper_z" };
    double low = m->axis_min.told ? m->axis_min.v[i] : build_setting(m, rails[i], "position_min");
    double high = m->axis_max.told ? m->axis_max.v[i] : build_setting(m, rails[i], "position_max");
    m->axes[i].min = fmax(isnan(low) ? -INFINITY : low, m->own.min[i]);
    m->axes[i].max = fmin(isnan(high) ? INFINITY : high, m->own.max[i]);
}

/* Bits of the axes whose motors are seen switched off. */
static unsigned motors_off(const struct kp_machine *m)
{
    const struct kp_setting *kinematics = kp_machine_find_setting(m, "printer", "kinematics");
    unsigned off = 0;
    for (size_t i = 0; i < m->motor_count; i++) {
        const char *name = m->motors[i].name;
        if (m->motors[i].known && !m->motors[i].on && strncmp(name, "stepper_", 8) == 0 && name[8] >= 'x' && name[8] <= 'z')
            off |= 1u << (name[8] - 'x');
    }
    for (size_t i = 0; kinematics && i < sizeof shared_motors / sizeof *shared_motors; i++)
        if (strcmp(kinematics->text, shared_motors[i].name) == 0 && (off & shared_motors[i].axes))
            off |= shared_motors[i].axes;
    return off;
}

void kp_machine_refresh(struct kp_machine *m)
{
    struct kp_limits *l = &m->limits;
    unsigned off = motors_off(m);
    for (size_t i = 0; i < 3; i++) {
        refresh_axis(m, i);
        m->axes[i].homed = (m->homed & ~off) >> i & 1u;
    }
    double velocity = isnan(m->max_velocity) ? build_setting(m, "printer", "max_velocity") : m->max_velocity;
    double accel = isnan(m->max_accel) ? build_setting(m, "printer", "max_accel") : m->max_accel;
    l->max_velocity_mm_s = fmin(fmin(INFINITY, velocity), m->own.velocity);
    l->max_accel_mm_s2 = fmin(fmin(INFINITY, accel), m->own.accel);
    l->min_feedrate_mm_min = fmax(0, m->own.min_feedrate);
    l->max_feedrate_mm_min = fmin(l->max_velocity_mm_s * 60, m->own.max_feedrate);
}

static void watch_add(struct kp_machine *m, const char *object)
{
    if (!build_object(m, object))
        return;
    for (size_t j = 0; j < m->watch_count; j++)
        if (strcmp(m->watch[j], object) == 0)
            return;
    m->watch[m->watch_count++] = object;
}

static void build_watch(struct kp_machine *m)
{
    m->watch_count = 0;
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
        if (build_object(m, watched[i]))
            m->watch[m->watch_count++] = watched[i];
    for (size_t i = 0; i < m->pin_count; i++)
        if (m->pins[i].kind != KP_PIN_ENDSTOP)
            watch_add(m, m->pins[i].object);
    for (size_t i = 0; i < m->sensor_count; i++)
        watch_add(m, m->sensors[i].object);
    for (size_t i = 0; i < m->fan_count; i++)
        watch_add(m, m->fans[i].object);
    for (size_t i = 0; i < m->heater_count; i++)
        watch_add(m, m->heaters[i].object);
}

enum kp_err kp_machine_build(struct kp_machine *m, struct kp_faults *f)
{
    struct build b = { .m = m, .f = f, .section = "machine" };
    if (m->out_of_memory)
        build_fault(&b, KP_INTERNAL_ERROR, "", "Klipper's configuration does not fit in memory", NULL);
    if (!build_pins(&b)) {
        build_fault(&b, KP_INTERNAL_ERROR, "", "out of memory", NULL);
        return KP_INTERNAL_ERROR;
    }
    build_own(m);
    build_aliases(&b);
    build_axes(&b);
    build_sensors(&b);
    build_fans(&b);
    build_heaters(&b);
    build_motors(&b);
    build_nozzles(&b);
    build_feeders(&b);
    for (size_t i = 0; i < m->feeder_count; i++) /* motion does not wait for a feeder: its motor is none of an axis that is joined */
        for (size_t k = 3; k < m->axis_count; k++)
            if (strcmp(m->feeders[i].stepper, m->axes[k].stepper) == 0)
                m->axes[k].join = KP_BESIDE;
    build_mcodes(&b);
    build_vacuum(&b);
    kp_machine_refresh(m);
    for (size_t i = 0; i < 3; i++)
        if (m->axes[i].min > m->axes[i].max) {
            build_name(b.section, "safety");
            build_fault(&b, KP_INVALID_PARAMETER, "", "the position limits leave no room within Klipper's own", NULL);
        }
    build_watch(m);
    return b.first;
}
