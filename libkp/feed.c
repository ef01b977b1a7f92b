/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What Klipper says it is made of, row by row: settings, [board_pins] aliases, objects and command words, for resolve and translate.
 * Only what libkp cares for is kept, and never more than its maximum. */
#include "machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What of Klipper's configuration is kept: sections that start so, and of them these options. */
static const char *const kept_sections[] = {
    "printer", "stepper_", "manual_stepper ", "output_pin ", "pwm_tool ", "pwm_cycle_time ", "gcode_button ",
    "filament_switch_sensor ", "filament_motion_sensor ", "temperature_sensor ", "temperature_fan ", "fan", "heater_fan ", "controller_fan ",
    "servo ", "extruder", "heater_bed", "heater_generic ", "load_cell", "pnp_sensor ", "board_pins", "gcode_arcs", "force_move", "bed_mesh",
    "skew_correction", "axis_twist_compensation", "klipperplace", "homing_override", "safe_z_home",
};
static const char *const kept_options[] = {
    "pin", "pwm", "scale", "endstop_pin", "switch_pin", "position_min", "position_max", "max_velocity", "max_accel",
    "kinematics", "velocity", "accel", "cycle_time", "minimum_pulse_width", "maximum_pulse_width", "maximum_servo_angle", "min_temp", "max_temp",
    "position_endstop", "mcu", "extruder",
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

/* ---- [board_pins] ---- */

static struct kp_str trimmed(struct kp_str s)
{
    while (s.n > 0 && strchr(" \t\r\n", s.p[s.n - 1]))
        s.n--;
    while (s.n > 0 && strchr(" \t\r\n", s.p[0]))
        s.p++, s.n--;
    return s;
}

static void alias_add(struct kp_machine *m, struct kp_str section, struct kp_str name, struct kp_str pin)
{
    struct kp_board_alias a;
    name = trimmed(name);
    pin = trimmed(pin);
    if (name.n == 0 || pin.n == 0 || pin.p[0] == '<' || !kp_str_copy(a.section, section) || !kp_str_copy(a.name, name) || !kp_str_copy(a.pin, pin))
        return; /* "<GND>": nobody's pin */
    if (m->alias_count >= KP_ALIASES_MAX || !grow((void **)&m->aliases, m->alias_count, &m->alias_room, sizeof a))
        m->out_of_memory = true;
    else
        m->aliases[m->alias_count++] = a;
}

/* "EXP1_1=PE8, EXP1_2=PE7" */
static void aliases_text(struct kp_machine *m, struct kp_str section, struct kp_str text)
{
    for (size_t i = 0, from = 0; i <= text.n; i++) {
        if (i < text.n && text.p[i] != ',' && text.p[i] != '\n')
            continue;
        struct kp_str pair = { text.p + from, i - from };
        const char *equals = pair.n > 0 ? memchr(pair.p, '=', pair.n) : NULL;
        from = i + 1;
        if (equals)
            alias_add(m, section, (struct kp_str){ pair.p, (size_t)(equals - pair.p) }, (struct kp_str){ equals + 1, pair.n - (size_t)(equals - pair.p) - 1 });
    }
}

static void aliases_told(struct kp_machine *m, struct kp_str section, const struct kp_value *v)
{
    if (v->kind == KP_STR)
        aliases_text(m, section, v->str);
    if (v->kind != KP_STRS)
        return;
    bool pairs = v->count > 0 && !(v->strs[0].n > 0 && memchr(v->strs[0].p, '=', v->strs[0].n));
    for (size_t i = 0; i < v->count; i++)
        if (!pairs)
            aliases_text(m, section, v->strs[i]);
        else if (i % 2)
            alias_add(m, section, v->strs[i - 1], v->strs[i]);
}

/* Whether the aliases of a section of board_pins are this chip's: "mcu, mcu2", or mcu alone where it says nothing. */
static bool alias_on(const struct kp_machine *m, const char *section, const char *chip)
{
    const struct kp_setting *s = kp_machine_find_setting(m, section, "mcu");
    struct kp_str list = kp_str_of(s && s->kind == KP_STR ? s->text : "mcu");
    for (size_t i = 0, from = 0; i <= list.n; i++)
        if (i == list.n || list.p[i] == ',') {
            if (kp_str_eq(trimmed((struct kp_str){ list.p + from, i - from }), chip))
                return true;
            from = i + 1;
        }
    return false;
}

void kp_alias_resolve(const struct kp_machine *m, const char *chip, char board[KP_NAME_MAX])
{
    for (size_t turns = 0, i = 0; i < m->alias_count && turns < 8; i++) {
        const struct kp_board_alias *a = &m->aliases[i];
        if (strcmp(a->name, board) != 0 || !alias_on(m, a->section, chip))
            continue;
        memcpy(board, a->pin, sizeof a->pin);
        turns++;
        i = SIZE_MAX; /* an alias may stand for another: from the first again */
    }
}

/* ---- settings, objects, command words ---- */

/* A list of names as Klipper's files write it: "mcu, mcu2". */
static bool names_join(const struct kp_value *v, char out[KP_NAME_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < v->count; i++) {
        if (n + v->strs[i].n + 3 > KP_NAME_MAX)
            return false;
        if (i > 0)
            out[n++] = ',';
        if (v->strs[i].n > 0)
            memcpy(out + n, v->strs[i].p, v->strs[i].n);
        n += v->strs[i].n;
    }
    out[n] = 0;
    return true;
}

void kp_machine_setting(struct kp_machine *m, struct kp_str section, struct kp_str option, const struct kp_value *v)
{
    bool whole;
    struct kp_setting row = { .kind = KP_OTHER };
    if (!setting_kept(section, option, &whole) || !kp_str_copy(row.section, section))
        return;
    if (kp_str_starts(section, "board_pins") && kp_str_starts(option, "aliases"))
        aliases_told(m, section, v);
    if (!whole && m->setting_count > 0 && strcmp(m->settings[m->setting_count - 1].section, row.section) == 0)
        return;
    if (whole && !kp_str_copy(row.option, option))
        return;
    if (whole && value_number(v, &row.num))
        row.kind = v->kind;
    else if (whole && v->kind == KP_STR && kp_str_copy(row.text, v->str))
        row.kind = KP_STR;
    else if (whole && v->kind == KP_STRS && names_join(v, row.text))
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
