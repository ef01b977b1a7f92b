/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Makes the machine's parts from klipperplace.cfg and Klipper's own configuration, once per Klipper that is ready. A part that
 * klipperplace.cfg names and Klipper lacks is at fault alone; everything else works. */
#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SECTION_MAX (KP_NAME_MAX + 16)

static const struct pin_rule { const char *section, *option; enum kp_pin_kind kind; } pin_rules[] = {
    { "output_pin ", "pin", KP_PIN_OUTPUT },
    { "pwm_tool ", "pin", KP_PIN_PWM },
    { "pwm_cycle_time ", "pin", KP_PIN_PWM },
    { "gcode_button ", "pin", KP_PIN_BUTTON },
    { "filament_switch_sensor ", "switch_pin", KP_PIN_SWITCH },
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

struct build {
    struct kp_machine *m;
    struct kp_faults *f; /* may be NULL */
    enum kp_err first;
    char section[SECTION_MAX];
};

/* ---- small helpers ---- */

static void fault(struct build *b, enum kp_err code, const char *option, const char *text, char part_fault[KP_TEXT_MAX])
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
static void join(char *out, size_t size, const char *a, const char *b)
{
    size_t n = 0;
    while (*a && n + 1 < size)
        out[n++] = *a++;
    while (*b && n + 1 < size)
        out[n++] = *b++;
    out[n] = 0;
}

static void section_enter(struct build *b, const char *kind, const char *name)
{
    join(b->section, sizeof b->section, kind, name);
}

static double number_of(const struct build *b, const char *option)
{
    return kp_config_num(b->m->config, b->section, option);
}

static const char *text_of(const struct build *b, const char *option)
{
    return kp_config_str(b->m->config, b->section, option);
}

/* The name as Klipper wrote it: settings have lower case, objects have what scripts need. NULL: no such object. */
static const char *object_find(const struct kp_machine *m, const char *name)
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

static bool object_exists(const struct kp_machine *m, const char *name)
{
    return object_find(m, name) || kp_machine_has_section(m, name);
}

static void name_copy(char out[KP_NAME_MAX], const char *text)
{
    struct kp_str s = kp_str_of(text);
    if (!kp_str_copy(out, s))
        kp_str_clean(out, s);
}

static const char *after_blank(const char *section)
{
    const char *blank = strchr(section, ' ');
    return blank ? blank + 1 : section;
}

static double setting_number(const struct kp_machine *m, const char *section, const char *option)
{
    const struct kp_setting *s = kp_machine_find_setting(m, section, option);
    return s && (s->kind == KP_NUM || s->kind == KP_BOOL) ? s->num : NAN;
}

/* ---- pins ---- */

static void pin_output(const struct kp_machine *m, struct kp_pin *p, const char *section)
{
    double pwm = setting_number(m, section, "pwm"), scale = setting_number(m, section, "scale");
    if (p->kind == KP_PIN_OUTPUT && pwm > 0)
        p->kind = KP_PIN_PWM;
    if (p->kind == KP_PIN_PWM && scale > 0)
        p->scale = scale;
}

static void pin_names(const struct kp_machine *m, struct kp_pin *p, const char *section)
{
    const char *object = object_find(m, section);
    if (p->kind != KP_PIN_ENDSTOP) {
        name_copy(p->object, object ? object : section);
        name_copy(p->name, after_blank(p->object));
        return;
    }
    const char *rail = strncmp(section, "stepper_", 8) == 0 ? section + 8 : object ? object : section;
    name_copy(p->object, rail);
    join(p->name, sizeof p->name, "endstop_", after_blank(rail));
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
            struct kp_pin p = { .kind = pin_rules[r].kind, .scale = 1, .changed_ms = INT64_MIN };
            if (s->kind != KP_STR || strcmp(s->option, pin_rules[r].option) != 0 ||
                !kp_str_starts(kp_str_of(s->section), pin_rules[r].section) ||
                !kp_pin_parse(kp_str_of(s->text), p.chip, p.board, &p.inverted))
                continue;
            if (count == KP_PINS_MAX) {
                name_copy(b->section, s->section);
                fault(b, KP_INVALID_REQUEST, "", "one pin more than can be kept; it is left out", NULL);
                continue;
            }
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

static void build_aliases(struct build *b)
{
    const char *name;
    for (size_t i = 0; (name = kp_config_section(b->m->config, "pin", i)); i++) {
        struct kp_error e;
        int pin;
        bool inverted;
        section_enter(b, "pin ", name);
        const char *text = text_of(b, "object") ? text_of(b, "object") : text_of(b, "pin");
        if (!text)
            fault(b, KP_INVALID_PARAMETER, "", "needs one of object and pin", NULL);
        else if (kp_machine_find_pin(b->m, kp_str_of(text), &pin, &inverted, &e) != KP_OK)
            fault(b, e.code, "", e.message, NULL);
        else if (inverted)
            fault(b, KP_INVALID_PARAMETER, "", "an alias cannot invert; write ! in Klipper's configuration", NULL);
        else if (b->m->pins[pin].alias[0])
            fault(b, KP_INVALID_PARAMETER, "", "its pin already has another alias", NULL);
        else
            name_copy(b->m->pins[pin].alias, name);
    }
}

/* ---- axes ---- */

/* The short name of a "manual_stepper x" (or "x") that Klipper has and a script can write; NULL: a fault. */
static const char *stepper_find(struct build *b, const char *text, char object[KP_NAME_MAX], char part_fault[KP_TEXT_MAX])
{
    struct kp_str short_name = kp_str_of(text ? text : "");
    if (kp_str_starts(short_name, "manual_stepper "))
        short_name = (struct kp_str){ short_name.p + 15, short_name.n - 15 };
    if (!kp_name_ok(short_name)) {
        fault(b, KP_INVALID_PARAMETER, "stepper", "not a name that a script can write", part_fault);
        return NULL;
    }
    join(object, KP_NAME_MAX, "manual_stepper ", short_name.p);
    if (!object_exists(b->m, object)) {
        fault(b, KP_INVALID_PARAMETER, "stepper", "Klipper has no such manual_stepper", part_fault);
        return NULL;
    }
    const char *written = object_find(b->m, object);
    if (written)
        name_copy(object, written);
    return after_blank(object);
}

static void axis_carry(struct kp_axis *a, const struct kp_axis *old, size_t count)
{
    for (size_t i = 3; i < count; i++)
        if (old[i].letter == a->letter && strcmp(old[i].stepper, a->stepper) == 0) {
            a->homed = old[i].homed;
            a->tracked = old[i].tracked;
            a->position = old[i].position;
        }
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
        section_enter(b, "axis ", name);
        const char *stepper = stepper_find(b, text_of(b, "stepper"), object, NULL);
        if (!stepper)
            continue;
        name_copy(a.stepper, stepper);
        a.rotary = kp_config_bool(m->config, b->section, "rotary");
        a.velocity = number_of(b, "velocity");
        a.acceleration = number_of(b, "acceleration");
        if (isnan(a.velocity))
            a.velocity = setting_number(m, object, "velocity");
        if (isnan(a.acceleration))
            a.acceleration = setting_number(m, object, "accel");
        double min = setting_number(m, object, "position_min"), max = setting_number(m, object, "position_max");
        if (!a.rotary && !isnan(min))
            a.min = min;
        if (!a.rotary && !isnan(max))
            a.max = max;
        axis_carry(&a, old, old_count);
        m->axes[m->axis_count++] = a;
    }
}

/* ---- sensors ---- */

static void sensor_add(struct kp_machine *m, const struct kp_sensor *old, size_t old_count, const struct kp_sensor *s)
{
    struct kp_sensor *to = &m->sensors[m->sensor_count++];
    *to = *s;
    to->changed_ms = INT64_MIN;
    for (size_t i = 0; i < old_count; i++)
        if (strcmp(old[i].object, to->object) == 0 && strcmp(old[i].name, to->name) == 0) {
            to->known = old[i].known;
            to->value = old[i].value;
            to->changed_ms = old[i].changed_ms;
        }
}

static const char *unit_of(const char *type)
{
    return strcmp(type, "temperature") == 0 ? "C" : strcmp(type, "load") == 0 ? "g" : "kPa";
}

static void build_named_sensors(struct build *b, const struct kp_sensor *old, size_t old_count)
{
    const char *name;
    for (size_t i = 0; (name = kp_config_section(b->m->config, "sensor", i)); i++) {
        struct kp_sensor s = { 0 };
        section_enter(b, "sensor ", name);
        const char *object = text_of(b, "object");
        if (object)
            name_copy(s.object, object);
        else
            join(s.object, sizeof s.object, "temperature_sensor ", name);
        if (!object_exists(b->m, s.object)) {
            fault(b, KP_SENSOR_NOT_FOUND, "object", "Klipper has no such object", NULL);
            continue;
        }
        if (object_find(b->m, s.object))
            name_copy(s.object, object_find(b->m, s.object));
        name_copy(s.name, name);
        name_copy(s.type, text_of(b, "type"));
        name_copy(s.unit, text_of(b, "unit") ? text_of(b, "unit") : unit_of(s.type));
        s.scale = number_of(b, "scale");
        s.offset = number_of(b, "offset");
        s.report_ms = (int64_t)(number_of(b, "report_time") * 1000 + 0.5);
        sensor_add(b->m, old, old_count, &s);
    }
}

/* A temperature_sensor that no [sensor] names. */
static void plain_sensor(struct kp_machine *m, const struct kp_sensor *old, size_t old_count, const char *object)
{
    struct kp_sensor s = { .scale = 1, .report_ms = 300 };
    if (!kp_str_starts(kp_str_of(object), "temperature_sensor ") || m->sensor_count == KP_SENSORS_MAX)
        return;
    for (size_t i = 0; i < m->sensor_count; i++)
        if (kp_str_same(kp_str_of(object), m->sensors[i].object))
            return;
    name_copy(s.object, object);
    name_copy(s.name, after_blank(object));
    name_copy(s.type, "temperature");
    name_copy(s.unit, "C");
    sensor_add(m, old, old_count, &s);
}

static void build_sensors(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_sensor old[KP_SENSORS_MAX];
    size_t old_count = m->sensor_count;
    memcpy(old, m->sensors, sizeof old);
    m->sensor_count = 0;
    build_named_sensors(b, old, old_count);
    for (size_t i = 0; i < m->object_count; i++)
        plain_sensor(m, old, old_count, m->objects[i]);
    for (size_t i = 0; i < m->setting_count; i++)
        plain_sensor(m, old, old_count, m->settings[i].section);
}

/* ---- nozzles and feeders ---- */

static int nozzle_pin(struct build *b, struct kp_nozzle *n, const char *option)
{
    struct kp_error e;
    const char *text = text_of(b, option);
    bool inverted;
    int pin;
    if (!text)
        return -1;
    if (kp_machine_find_pin(b->m, kp_str_of(text), &pin, &inverted, &e) != KP_OK)
        fault(b, e.code, option, e.message, n->fault);
    else if (inverted)
        fault(b, KP_INVALID_PARAMETER, option, "cannot invert here; write ! in Klipper's configuration", n->fault);
    else if (b->m->pins[pin].kind != KP_PIN_OUTPUT && b->m->pins[pin].kind != KP_PIN_PWM)
        fault(b, KP_INVALID_PARAMETER, option, "not an output pin", n->fault);
    else
        return pin;
    return -1;
}

static void nozzle_numbers(const struct build *b, struct kp_nozzle *n)
{
    n->z_direction = number_of(b, "z_direction") < 0 ? -1 : 1;
    n->safe_z = number_of(b, "safe_z");
    n->offset[0] = number_of(b, "offset_x");
    n->offset[1] = number_of(b, "offset_y");
    n->offset[2] = number_of(b, "offset_z");
    n->part_on = number_of(b, "part_on");
    n->part_off = number_of(b, "part_off");
    n->pick_height = number_of(b, "pick_height");
    n->place_height = number_of(b, "place_height");
    n->travel_height = number_of(b, "travel_height");
    n->dwell_s = number_of(b, "dwell");
    n->blow_off_s = number_of(b, "blow_off_time");
}

static void build_nozzles(struct build *b)
{
    struct kp_machine *m = b->m;
    const char *name;
    m->nozzle_count = 0;
    for (size_t i = 0; (name = kp_config_section(m->config, "nozzle", i)) && m->nozzle_count < KP_NOZZLES_MAX; i++) {
        struct kp_nozzle *n = &m->nozzles[m->nozzle_count++];
        struct kp_error e;
        memset(n, 0, sizeof *n);
        section_enter(b, "nozzle ", name);
        name_copy(n->name, name);
        nozzle_numbers(b, n);
        n->z_axis = kp_machine_find_axis(m, text_of(b, "z_axis")[0]);
        n->rotation_axis = n->sensor = -1;
        const char *axis = text_of(b, "rotation_axis"), *sensor = text_of(b, "sensor");
        if (axis && (n->rotation_axis = kp_machine_find_axis(m, axis[0])) < 0)
            fault(b, KP_INVALID_PARAMETER, "rotation_axis", "there is no such [axis]", n->fault);
        n->pump = nozzle_pin(b, n, "pump");
        n->valve = nozzle_pin(b, n, "valve");
        n->blow_off = nozzle_pin(b, n, "blow_off");
        if (sensor && kp_machine_find_sensor(m, kp_str_of(sensor), &n->sensor, &e) != KP_OK)
            fault(b, e.code, "sensor", e.message, n->fault);
        if (sensor && isnan(n->part_on))
            fault(b, KP_INVALID_PARAMETER, "part_on", "a sensor needs part_on and part_off", n->fault);
    }
}

static void build_feeders(struct build *b)
{
    struct kp_machine *m = b->m;
    const char *name;
    m->feeder_count = 0;
    for (size_t i = 0; (name = kp_config_section(m->config, "feeder", i)) && m->feeder_count < KP_FEEDERS_MAX; i++) {
        struct kp_feeder *feeder = &m->feeders[m->feeder_count++];
        char object[KP_NAME_MAX];
        memset(feeder, 0, sizeof *feeder);
        section_enter(b, "feeder ", name);
        name_copy(feeder->name, name);
        feeder->feedrate_mm_min = number_of(b, "feedrate");
        feeder->accel_mm_s2 = number_of(b, "accel");
        const char *stepper = stepper_find(b, text_of(b, "stepper"), object, feeder->fault);
        if (!stepper)
            continue;
        name_copy(feeder->stepper, stepper);
        if (isnan(feeder->accel_mm_s2))
            feeder->accel_mm_s2 = setting_number(m, object, "accel");
    }
}

/* ---- limits and homing, from what is known now ---- */

static void refresh_axis(struct kp_machine *m, size_t i)
{
    static const char *const sections[] = { "stepper_x", "stepper_y", "stepper_z" };
    static const char *const lows[] = { "min_x_position", "min_y_position", "min_z_position" };
    static const char *const highs[] = { "max_x_position", "max_y_position", "max_z_position" };
    double low = m->axis_min.told ? m->axis_min.v[i] : setting_number(m, sections[i], "position_min");
    double high = m->axis_max.told ? m->axis_max.v[i] : setting_number(m, sections[i], "position_max");
    m->axes[i].min = fmax(isnan(low) ? -INFINITY : low, kp_config_num(m->config, "safety", lows[i]));
    m->axes[i].max = fmin(isnan(high) ? INFINITY : high, kp_config_num(m->config, "safety", highs[i]));
}

/* Bits of the axes whose motors are seen switched off. */
static unsigned motors_off(const struct kp_machine *m)
{
    const struct kp_setting *kinematics = kp_machine_find_setting(m, "printer", "kinematics");
    unsigned off = 0;
    for (size_t i = 0; i < m->motor_count; i++) {
        const char *name = m->motors[i].name;
        if (!m->motors[i].on && strncmp(name, "stepper_", 8) == 0 && name[8] >= 'x' && name[8] <= 'z')
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
    const struct kp_config *c = m->config;
    unsigned off = motors_off(m);
    for (size_t i = 0; i < 3; i++) {
        refresh_axis(m, i);
        m->axes[i].homed = (m->homed & ~off) >> i & 1u;
    }
    double velocity = isnan(m->max_velocity) ? setting_number(m, "printer", "max_velocity") : m->max_velocity;
    double accel = isnan(m->max_accel) ? setting_number(m, "printer", "max_accel") : m->max_accel;
    l->max_velocity_mm_s = fmin(fmin(INFINITY, velocity), kp_config_num(c, "safety", "max_velocity"));
    l->max_accel_mm_s2 = fmin(fmin(INFINITY, accel), kp_config_num(c, "safety", "max_acceleration"));
    l->min_feedrate_mm_min = fmax(0, kp_config_num(c, "safety", "min_feedrate"));
    l->max_feedrate_mm_min = fmin(l->max_velocity_mm_s * 60, kp_config_num(c, "safety", "max_feedrate"));
    l->travel_interlock = kp_config_bool(c, "vacuum", "travel_interlock");
    l->vacuum_retries = (int)kp_config_num(c, "vacuum", "retries");
}

static void build_watch(struct kp_machine *m)
{
    m->watch_count = 0;
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
        if (object_find(m, watched[i]))
            m->watch[m->watch_count++] = watched[i];
    for (size_t i = 0; i < m->pin_count + m->sensor_count; i++) {
        bool pin = i < m->pin_count, again = false;
        const char *object = pin ? m->pins[i].object : m->sensors[i - m->pin_count].object;
        if ((pin && m->pins[i].kind == KP_PIN_ENDSTOP) || !object_find(m, object))
            continue;
        for (size_t j = 0; j < m->watch_count; j++)
            again = again || strcmp(m->watch[j], object) == 0;
        if (!again)
            m->watch[m->watch_count++] = object;
    }
}

enum kp_err kp_machine_build(struct kp_machine *m, struct kp_faults *f)
{
    struct build b = { .m = m, .f = f, .section = "machine" };
    if (m->out_of_memory)
        fault(&b, KP_INTERNAL_ERROR, "", "Klipper's configuration does not fit in memory", NULL);
    if (!build_pins(&b)) {
        fault(&b, KP_INTERNAL_ERROR, "", "out of memory", NULL);
        return KP_INTERNAL_ERROR;
    }
    build_aliases(&b);
    build_axes(&b);
    build_sensors(&b);
    build_nozzles(&b);
    build_feeders(&b);
    kp_machine_refresh(m);
    for (size_t i = 0; i < 3; i++)
        if (m->axes[i].min > m->axes[i].max) {
            name_copy(b.section, "safety");
            fault(&b, KP_INVALID_PARAMETER, "", "the position limits leave no room within Klipper's own", NULL);
        }
    build_watch(m);
    return b.first;
}
