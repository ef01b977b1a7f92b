/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a machine has beside pins and axes: sensors, fans, heaters, motors, nozzles, feeders, M-numbers and its vacuum, for resolve.c.
 * Klipper's own parts need no section; what klipperplace.cfg names and Klipper lacks is at fault alone. */
#include "build.h"

#include <math.h>
#include <string.h>

/* Kinds of Klipper's objects that measure or blow. A name that ends in a blank begins many, another stands alone or has a number. */
static const struct sensor_rule { const char *object, *field, *type, *unit; bool automatic; } sensor_rules[] = {
    { "temperature_sensor ", "temperature", "temperature", "C", true },
    { "extruder", "temperature", "temperature", "C", true },
    { "heater_bed", "temperature", "temperature", "C", true },
    { "heater_generic ", "temperature", "temperature", "C", true },
    { "temperature_fan ", "temperature", "temperature", "C", true },
    { "load_cell", "force_g", "load", "g", true },
    { "load_cell ", "force_g", "load", "g", true },
    { "load_cell_probe", "force_g", "load", "g", false },
};
#define SENSOR_RULES (sizeof sensor_rules / sizeof *sensor_rules)

static const struct { const char *object; enum kp_fan_kind kind; } fan_rules[] = {
    { "fan", KP_FAN_PART }, { "fan_generic ", KP_FAN_GENERIC }, { "heater_fan ", KP_FAN_AUTOMATIC },
    { "controller_fan ", KP_FAN_AUTOMATIC }, { "temperature_fan ", KP_FAN_AUTOMATIC },
};

static const char *const motor_sections[] = { "stepper_", "manual_stepper ", "extruder", "extruder_stepper " };

/* "extruder" and "extruder1", not "extruder_stepper x"; "heater_generic " and whatever follows. */
static bool object_is(const char *object, const char *kind)
{
    size_t n = strlen(kind);
    if (!kp_str_starts(kp_str_of(object), kind))
        return false;
    return kind[n - 1] == ' ' ? object[n] != 0 : object[n + strspn(object + n, "0123456789")] == 0;
}

static bool is_chamber(const char *object)
{
    const char *name = build_short(object);
    for (size_t i = 0; name[i]; i++)
        if (kp_str_same((struct kp_str){ name + i, strlen(name + i) < 7 ? 0 : 7 }, "chamber"))
            return true;
    return false;
}

/* Klipper's objects, then its sections: what is not among the objects yet is known by its section. */
static const char *object_at(const struct kp_machine *m, size_t i)
{
    if (i < m->object_count)
        return m->objects[i];
    return i - m->object_count < m->setting_count ? m->settings[i - m->object_count].section : NULL;
}

/* ---- sensors ---- */

static void sensor_add(struct kp_machine *m, const struct kp_sensor *old, size_t old_count, const struct kp_sensor *s)
{
    struct kp_sensor *to = &m->sensors[m->sensor_count++];
    *to = *s;
    to->changed_ms = INT64_MIN;
    for (size_t i = 0; i < old_count; i++)
        if (strcmp(old[i].object, to->object) == 0 && strcmp(old[i].name, to->name) == 0) {
            to->told = old[i].told, to->known = old[i].known;
            memcpy(to->fault, old[i].fault, sizeof to->fault);
            to->value = old[i].value;
            to->changed_ms = old[i].changed_ms;
        }
}

static const char *unit_of(const char *type)
{
    return strcmp(type, "temperature") == 0 ? "C" : strcmp(type, "load") == 0 ? "g" : "kPa";
}

static const struct sensor_rule *sensor_rule(const char *object)
{
    for (size_t i = 0; i < SENSOR_RULES; i++)
        if (object_is(object, sensor_rules[i].object))
            return &sensor_rules[i];
    return NULL;
}

static void named_sensors(struct build *b, const struct kp_sensor *old, size_t old_count)
{
    const char *name;
    for (size_t i = 0; (name = kp_config_section(b->m->config, "sensor", i)); i++) {
        struct kp_sensor s = { .configured = true };
        build_section(b, "sensor ", name);
        const char *object = build_text(b, "object"), *field = build_text(b, "field"), *label = build_text(b, "m105");
        if (object)
            build_name(s.object, object);
        else
            build_join(s.object, sizeof s.object, "temperature_sensor ", name);
        object = build_existing(b->m, s.object);
        if (!object) {
            build_fault(b, KP_SENSOR_NOT_FOUND, "object", "Klipper has no such object", NULL);
            continue;
        }
        build_name(s.object, object);
        const struct sensor_rule *rule = sensor_rule(s.object);
        build_name(s.name, name);
        build_name(s.field, field ? field : rule ? rule->field : "value");
        build_name(s.m105, label ? label : "");
        build_name(s.type, build_text(b, "type"));
        build_name(s.unit, build_text(b, "unit") ? build_text(b, "unit") : unit_of(s.type));
        s.scale = build_number(b, "scale");
        s.offset = build_number(b, "offset");
        s.report_ms = (int64_t)(build_number(b, "report_time") * 1000 + 0.5);
        sensor_add(b->m, old, old_count, &s);
    }
}

/* A sensor of Klipper's that no [sensor] names. */
static void plain_sensor(struct kp_machine *m, const struct kp_sensor *old, size_t old_count, const char *object)
{
    struct kp_sensor s = { .scale = 1, .report_ms = 300 };
    const struct sensor_rule *rule = sensor_rule(object);
    if (!rule || !rule->automatic || m->sensor_count == KP_SENSORS_MAX)
        return;
    for (size_t i = 0; i < m->sensor_count; i++)
        if (kp_str_same(kp_str_of(object), m->sensors[i].object))
            return;
    build_name(s.object, object);
    build_name(s.name, build_short(object));
    build_name(s.field, rule->field);
    build_name(s.type, rule->type);
    build_name(s.unit, rule->unit);
    sensor_add(m, old, old_count, &s);
}

void build_sensors(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_sensor old[KP_SENSORS_MAX];
    size_t old_count = m->sensor_count;
    const char *object;
    memcpy(old, m->sensors, sizeof old);
    m->sensor_count = 0;
    named_sensors(b, old, old_count);
    for (size_t i = 0; (object = object_at(m, i)); i++)
        plain_sensor(m, old, old_count, object);
}

/* ---- fans, heaters, motors ---- */

static void fan_add(struct kp_machine *m, const struct kp_fan *old, size_t old_count, const char *object)
{
    struct kp_fan fan = { .changed_ms = INT64_MIN };
    size_t rule = 0, rules = sizeof fan_rules / sizeof *fan_rules;
    while (rule < rules && !object_is(object, fan_rules[rule].object))
        rule++;
    if (rule == rules || m->fan_count == KP_FANS_MAX)
        return;
    for (size_t i = 0; i < m->fan_count; i++)
        if (kp_str_same(kp_str_of(object), m->fans[i].object))
            return;
    for (size_t i = 0; i < old_count; i++)
        if (strcmp(old[i].object, object) == 0)
            fan = old[i];
    fan.kind = fan_rules[rule].kind;
    build_name(fan.object, object);
    build_name(fan.name, build_short(object));
    m->fans[m->fan_count++] = fan;
}

void build_fans(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_fan old[KP_FANS_MAX];
    size_t old_count = m->fan_count;
    const char *object;
    memcpy(old, m->fans, sizeof old);
    m->fan_count = 0;
    for (size_t i = 0; (object = object_at(m, i)); i++)
        fan_add(m, old, old_count, object);
}

static bool heater_kind(const char *object, enum kp_heater_kind *kind, bool *settable)
{
    bool sensor = object_is(object, "temperature_sensor ") || object_is(object, "temperature_fan ");
    *settable = !sensor;
    if (object_is(object, "extruder"))
        *kind = KP_HEATER_EXTRUDER;
    else if (object_is(object, "heater_bed"))
        *kind = KP_HEATER_BED;
    else if ((sensor || object_is(object, "heater_generic ")) && is_chamber(object))
        *kind = KP_HEATER_CHAMBER;
    else if (object_is(object, "heater_generic "))
        *kind = KP_HEATER_OTHER;
    else
        return false;
    return true;
}

static void heater_add(struct kp_machine *m, const struct kp_heater *old, size_t old_count, const char *object)
{
    const double ours[] = { m->limits.max_extruder_c, m->limits.max_bed_c, m->limits.max_chamber_c, INFINITY };
    struct kp_heater h = { .target_c = NAN, .changed_ms = INT64_MIN };
    enum kp_heater_kind kind;
    bool settable;
    if (!heater_kind(object, &kind, &settable) || m->heater_count == KP_HEATERS_MAX)
        return;
    for (size_t i = 0; i < m->heater_count; i++)
        if (kp_str_same(kp_str_of(object), m->heaters[i].object))
            return;
    for (size_t i = 0; i < old_count; i++)
        if (strcmp(old[i].object, object) == 0)
            h = old[i];
    double low = build_setting(m, object, "min_temp"), high = build_setting(m, object, "max_temp");
    h.kind = kind;
    h.settable = settable;
    h.min_c = isnan(low) ? -INFINITY : low;
    h.max_c = fmin(isnan(high) ? INFINITY : high, ours[kind]);
    build_name(h.object, object);
    build_name(h.name, build_short(object));
    m->heaters[m->heater_count++] = h;
}

void build_heaters(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_heater old[KP_HEATERS_MAX];
    size_t old_count = m->heater_count;
    const char *object;
    memcpy(old, m->heaters, sizeof old);
    m->heater_count = 0;
    for (size_t i = 0; (object = object_at(m, i)); i++)
        heater_add(m, old, old_count, object);
}

/* The motors of Klipper's configuration, beside those it has told; a later configuration may have others. */
void build_motors(struct build *b)
{
    struct kp_machine *m = b->m;
    size_t kept = 0;
    for (size_t i = 0; i < m->motor_count; i++)
        if (m->motors[i].known)
            m->motors[kept++] = m->motors[i];
    m->motor_count = kept;
    for (size_t i = 0; i < m->setting_count; i++) {
        const char *section = m->settings[i].section;
        bool motor = false, have = m->motor_count == KP_MOTORS_MAX;
        for (size_t k = 0; k < sizeof motor_sections / sizeof *motor_sections; k++)
            motor = motor || (k ? object_is(section, motor_sections[k]) : kp_str_starts(kp_str_of(section), motor_sections[k]));
        for (size_t j = 0; motor && j < m->motor_count; j++)
            have = have || kp_str_same(kp_str_of(section), m->motors[j].name);
        if (!motor || have)
            continue;
        const char *object = build_object(m, section);
        build_name(m->motors[m->motor_count].name, object ? object : section);
        m->motors[m->motor_count++].known = false;
    }
}

/* ---- nozzles ---- */

static void nozzle_numbers(const struct build *b, struct kp_nozzle *n)
{
    n->z_direction = build_number(b, "z_direction") < 0 ? -1 : 1;
    n->safe_z = build_number(b, "safe_z");
    n->offset[0] = build_number(b, "offset_x");
    n->offset[1] = build_number(b, "offset_y");
    n->offset[2] = build_number(b, "offset_z");
    n->part_on = build_number(b, "part_on");
    n->part_off = build_number(b, "part_off");
    n->pick_height = build_number(b, "pick_height");
    n->place_height = build_number(b, "place_height");
    n->travel_height = build_number(b, "travel_height");
    n->dwell_s = build_number(b, "dwell");
    n->blow_off_s = build_number(b, "blow_off_time");
}

void build_nozzles(struct build *b)
{
    struct kp_machine *m = b->m;
    const char *name;
    m->nozzle_count = 0;
    for (size_t i = 0; (name = kp_config_section(m->config, "nozzle", i)) && m->nozzle_count < KP_NOZZLES_MAX; i++) {
        struct kp_nozzle *n = &m->nozzles[m->nozzle_count++];
        struct kp_error e;
        memset(n, 0, sizeof *n);
        build_section(b, "nozzle ", name);
        build_name(n->name, name);
        nozzle_numbers(b, n);
        n->z_axis = kp_machine_find_axis(m, build_text(b, "z_axis")[0]);
        n->rotation_axis = n->sensor = -1;
        const char *axis = build_text(b, "rotation_axis"), *sensor = build_text(b, "sensor");
        if (axis && (n->rotation_axis = kp_machine_find_axis(m, axis[0])) < 0)
            build_fault(b, KP_INVALID_PARAMETER, "rotation_axis", "there is no such [axis]", n->fault);
        n->pump = build_pin(b, "pump", n->fault);
        n->valve = build_pin(b, "valve", n->fault);
        n->blow_off = build_pin(b, "blow_off", n->fault);
        if (sensor && kp_machine_find_sensor(m, kp_str_of(sensor), &n->sensor, &e) != KP_OK)
            build_fault(b, e.code, "sensor", e.message, n->fault);
        if (sensor && isnan(n->part_on))
            build_fault(b, KP_INVALID_PARAMETER, "part_on", "a sensor needs part_on and part_off", n->fault);
    }
}

/* ---- feeders ---- */

/* The short name of a "manual_stepper x" (or "x") that Klipper has and a script can write; NULL: a fault. */
const char *build_stepper(struct build *b, const char *text, char object[KP_NAME_MAX], char part_fault[KP_TEXT_MAX])
{
    struct kp_str short_name = kp_str_of(text ? text : "");
    if (kp_str_starts(short_name, "manual_stepper "))
        short_name = (struct kp_str){ short_name.p + 15, short_name.n - 15 };
    if (!kp_name_ok(short_name)) {
        build_fault(b, KP_INVALID_PARAMETER, "stepper", "not a name that a script can write", part_fault);
        return NULL;
    }
    build_join(object, KP_NAME_MAX, "manual_stepper ", short_name.p);
    if (!build_existing(b->m, object)) {
        build_fault(b, KP_INVALID_PARAMETER, "stepper", "Klipper has no such manual_stepper", part_fault);
        return NULL;
    }
    const char *written = build_object(b->m, object);
    if (written)
        build_name(object, written);
    return build_short(object);
}


/* A feeder's motor, or the macro in its place. */
static void feeder_drive(struct build *b, struct kp_feeder *feeder)
{
    char object[KP_NAME_MAX];
    const char *text = build_text(b, "stepper"), *macro = build_text(b, "macro"), *found;
    if (macro) {
        feeder->kind = KP_FEEDER_MACRO;
        for (size_t i = 0; macro[i] && i + 1 < sizeof feeder->macro; i++)
            feeder->macro[i] = macro[i] >= 'a' && macro[i] <= 'z' ? (char)(macro[i] - 'a' + 'A') : macro[i]; /* as Klipper's command words are */
        if (!kp_machine_has_command(b->m, kp_str_of(feeder->macro)))
            build_fault(b, KP_INVALID_PARAMETER, "macro", "Klipper has no such macro", feeder->fault);
        return;
    }
    if (text && kp_str_starts(kp_str_of(text), "extruder")) {
        feeder->kind = KP_FEEDER_EXTRUDER;
        found = object_is(text, "extruder") || object_is(text, "extruder_stepper ") ? build_existing(b->m, text) : NULL;
        if (!found || !kp_name_ok(kp_str_of(build_short(found))))
            build_fault(b, KP_INVALID_PARAMETER, "stepper", "Klipper has no such extruder", feeder->fault);
        else
            build_name(feeder->stepper, build_short(found));
        feeder->follower = object_is(text, "extruder_stepper ");
        const struct kp_setting *follows = feeder->follower ? kp_machine_find_setting(b->m, text, "extruder") : NULL;
        build_name(feeder->follows, follows && follows->kind == KP_STR ? follows->text : "");
        return;
    }
    const char *stepper = build_stepper(b, text, object, feeder->fault);
    if (!stepper)
        return;
    build_name(feeder->stepper, stepper);
    if (isnan(feeder->accel_mm_s2))
        feeder->accel_mm_s2 = build_setting(b->m, object, "accel");
}

void build_feeders(struct build *b)
{
    struct kp_machine *m = b->m;
    const char *name;
    m->feeder_count = 0;
    for (size_t i = 0; (name = kp_config_section(m->config, "feeder", i)) && m->feeder_count < KP_FEEDERS_MAX; i++) {
        struct kp_feeder *feeder = &m->feeders[m->feeder_count++];
        memset(feeder, 0, sizeof *feeder);
        build_section(b, "feeder ", name);
        build_name(feeder->name, name);
        feeder->feedrate_mm_min = build_number(b, "feedrate");
        feeder->accel_mm_s2 = build_number(b, "accel");
        feeder->pitch_mm = build_number(b, "pitch");
        feeder->pick[0] = build_number(b, "pick_x");
        feeder->pick[1] = build_number(b, "pick_y");
        feeder->pick[2] = build_number(b, "pick_height");
        feeder->pick_rotation = build_number(b, "pick_rotation");
        build_name(feeder->part, build_text(b, "part") ? build_text(b, "part") : "");
        feeder_drive(b, feeder);
    }
}

/* ---- M-numbers, the vacuum ---- */

void build_mcodes(struct build *b)
{
    struct kp_machine *m = b->m;
    const char *name;
    m->mcode_count = 0;
    for (size_t i = 0; (name = kp_config_section(m->config, "mcode", i)) && m->mcode_count < KP_MCODES_MAX; i++) {
        struct kp_mcode *code = &m->mcodes[m->mcode_count++];
        double number = 0;
        memset(code, 0, sizeof *code);
        build_section(b, "mcode ", name);
        kp_number_parse((struct kp_str){ name + 1, strlen(name) - 1 }, &number);
        code->number = (int)number;
        const char *set = build_text(b, "set");
        code->set = strcmp(set, "on") == 0 ? KP_MCODE_ON : strcmp(set, "off") == 0 ? KP_MCODE_OFF : KP_MCODE_VALUE;
        code->acted = strcmp(build_text(b, "done"), "acted") == 0;
        code->pin = build_pin(b, "pin", code->fault);
        if (code->pin < 0 && !code->fault[0])
            build_fault(b, KP_INVALID_PARAMETER, "pin", "must be given", code->fault);
    }
}

void build_vacuum(struct build *b)
{
    struct kp_machine *m = b->m;
    struct kp_error e;
    int index = -1;
    m->vacuum = (struct kp_vacuum){ KP_VACUUM_NONE, -1 };
    build_join(b->section, sizeof b->section, "vacuum", "");
    const char *text = build_text(b, "output");
    if (!text && m->nozzle_count > 0)
        return; /* each nozzle has its own */
    if (kp_machine_find_fan(m, kp_str_of(text ? text : "fan"), &index, &e) == KP_OK) {
        if (m->fans[index].kind != KP_FAN_AUTOMATIC)
            m->vacuum = (struct kp_vacuum){ KP_VACUUM_FAN, index };
        else
            build_fault(b, KP_INVALID_PARAMETER, "output", "this fan is Klipper's own to switch", NULL);
    } else if (text && (index = build_pin(b, "output", NULL)) >= 0) {
        m->vacuum = (struct kp_vacuum){ KP_VACUUM_PIN, index };
    }
}
