/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Commands that move nothing: fans, heaters, motors, dwell and waiting. Invariant: a name in a script is one that kp_name_ok takes
 * or that the machine has, a number one that passed its range. */
#include "modal.h"

#include <math.h>
#include <string.h>

#define DWELL_MAX_S 600
#define BYTE_MAX 255.0
#define SPINDLE_MAX 1e6

/* A script of one word that is an action of its own. */
static enum kp_err word_item(struct kp_modal *g, enum kp_gcode_kind kind, const char *word)
{
    struct modal_item *item = modal_item(g, kind);
    tr_start(&g->script);
    tr_word(&g->script, word);
    modal_text(g, item, &g->script);
    return KP_OK;
}

enum kp_err modal_wait(struct kp_modal *g)
{
    enum kp_err rc = modal_has(g, W_M400);
    return rc == KP_OK ? word_item(g, KP_DO_WAIT, "M400") : rc;
}

enum kp_err modal_endstops(struct kp_modal *g)
{
    enum kp_err rc = modal_has_text(g, "QUERY_ENDSTOPS");
    return rc == KP_OK ? word_item(g, KP_DO_ENDSTOPS, "QUERY_ENDSTOPS") : rc;
}

enum kp_err modal_dwell(struct kp_modal *g)
{
    const struct kp_gcode_word *ms = modal_letter(g, 'P'), *s = modal_letter(g, 'S');
    double v;
    if (ms && s)
        return MODAL_FAIL(g, s, KP_INVALID_PARAMETER, NULL, "G4 takes P (ms) or S (s)");
    enum kp_err rc = modal_number(g, s ? s : ms, s ? "S" : "P", 0, s ? DWELL_MAX_S : 1000.0 * DWELL_MAX_S, KP_INVALID_PARAMETER, &v);
    if (rc != KP_OK || (rc = modal_has(g, W_G4)) != KP_OK)
        return rc;
    if (v > 0)
        tr_dwell(modal_script(g), s ? v : v / 1000);
    else
        tr_flush(modal_script(g));
    return KP_OK;
}

/* ---- fans, heaters, spindles ---- */

/* speed is 0 to 1: off, or within the limits of a fan that is on. */
static enum kp_err fan_speed(struct kp_modal *g, const struct kp_gcode_word *w, double full, double *speed)
{
    const struct kp_limits *l = kp_machine_limits(g->m);
    enum kp_err rc = modal_number(g, w, "speed", 0, full, KP_FAN_SPEED_OUT_OF_BOUNDS, speed);
    if (rc == KP_OK && *speed > 0 && !(*speed / full >= l->min_fan && *speed / full <= l->max_fan))
        return modal_range(g, w, KP_FAN_SPEED_OUT_OF_BOUNDS, "speed", "", *speed / full, l->min_fan, l->max_fan);
    return rc;
}

enum kp_err modal_fan(struct kp_modal *g)
{
    const struct kp_gcode_word *w = modal_letter(g, 'S');
    const struct kp_limits *l = kp_machine_limits(g->m);
    bool on = g->command->code == 1060;
    double v = fmin(BYTE_MAX, BYTE_MAX * l->max_fan);
    enum kp_err rc = w ? fan_speed(g, w, BYTE_MAX, &v) : KP_OK;
    if (rc != KP_OK || (rc = modal_has_text(g, on ? "M106" : "M107")) != KP_OK)
        return rc;
    tr_word(modal_script(g), on ? "M106" : "M107");
    if (on)
        tr_number(modal_script(g), "S", v);
    return KP_OK;
}

enum kp_err modal_fan_named(struct kp_modal *g)
{
    char name[KP_NAME_MAX];
    struct kp_error e;
    double v;
    int index;
    enum kp_err rc = modal_name(g, "FAN", name);
    if (rc != KP_OK)
        return rc;
    if ((rc = kp_machine_find_fan(g->m, kp_str_of(name), &index, &e)) != KP_OK)
        return MODAL_FAIL(g, modal_key(g, "FAN"), rc, "fan", "%s", e.message);
    const struct kp_fan *fan = kp_machine_fan(g->m, (size_t)index);
    if (fan->kind != KP_FAN_GENERIC)
        return MODAL_FAIL(g, modal_key(g, "FAN"), KP_INVALID_PARAMETER, "fan", fan->kind == KP_FAN_PART ? "%s is set by M106" : "Klipper sets %s itself", fan->name);
    if ((rc = fan_speed(g, modal_key(g, "SPEED"), 1, &v)) != KP_OK || (rc = modal_has_text(g, "SET_FAN_SPEED")) != KP_OK)
        return rc;
    tr_word(modal_script(g), "SET_FAN_SPEED");
    tr_name(modal_script(g), "FAN=", fan->name);
    tr_number(modal_script(g), "SPEED=", v);
    return KP_OK;
}

/* A target: 0 is off, and else the heater's limits count; NULL: what the limits say of all of this kind. */
static enum kp_err temperature(struct kp_modal *g, const struct kp_gcode_word *w, const struct kp_heater *heater, double kind_max_c, double *out)
{
    double max_c = heater ? fmin(heater->max_c, kind_max_c) : kind_max_c, min_c = heater ? heater->min_c : 0;
    enum kp_err rc = modal_number(g, w, "temperature", -INFINITY, INFINITY, KP_TEMPERATURE_OUT_OF_BOUNDS, out);
    if (rc == KP_OK && *out != 0 && !(*out > 0 && *out >= min_c && *out <= max_c))
        return modal_range(g, w, KP_TEMPERATURE_OUT_OF_BOUNDS, "temperature", "C", *out, fmax(min_c, 0), max_c);
    return rc;
}

static double kind_max_c(const struct kp_modal *g, enum kp_heater_kind kind)
{
    const struct kp_limits *l = kp_machine_limits(g->m);
    return kind == KP_HEATER_EXTRUDER ? l->max_extruder_c : kind == KP_HEATER_BED ? l->max_bed_c : kind == KP_HEATER_CHAMBER ? l->max_chamber_c : INFINITY;
}

enum kp_err modal_heat(struct kp_modal *g)
{
    static const struct { uint32_t code; const char *word, *heater; enum kp_heater_kind kind; } rows[] = {
        { 1040, "M104", "extruder", KP_HEATER_EXTRUDER }, { 1090, "M109", "extruder", KP_HEATER_EXTRUDER },
        { 1400, "M140", "heater_bed", KP_HEATER_BED }, { 1900, "M190", "heater_bed", KP_HEATER_BED },
    };
    size_t i = 0;
    double v;
    int index;
    while (rows[i].code != g->command->code)
        i++;
    bool known = kp_machine_find_heater(g->m, kp_str_of(rows[i].heater), &index, NULL) == KP_OK;
    const struct kp_heater *heater = known ? kp_machine_heater(g->m, (size_t)index) : NULL;
    enum kp_err rc = temperature(g, modal_letter(g, 'S'), heater, kind_max_c(g, rows[i].kind), &v);
    if (rc != KP_OK || (rc = modal_has_text(g, rows[i].word)) != KP_OK)
        return rc;
    tr_word(modal_script(g), rows[i].word);
    tr_number(modal_script(g), "S", v);
    return KP_OK;
}

enum kp_err modal_heat_named(struct kp_modal *g)
{
    const struct kp_gcode_word *w = modal_key(g, "HEATER");
    char name[KP_NAME_MAX];
    struct kp_error e;
    double v;
    int index;
    enum kp_err rc = modal_name(g, "HEATER", name);
    if (rc != KP_OK)
        return rc;
    if ((rc = kp_machine_find_heater(g->m, kp_str_of(name), &index, &e)) != KP_OK)
        return MODAL_FAIL(g, w, rc, "heater", "%s", e.message);
    const struct kp_heater *heater = kp_machine_heater(g->m, (size_t)index);
    if (!heater->settable)
        return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, "heater", "%s is a sensor only", heater->name);
    if ((rc = temperature(g, modal_key(g, "TARGET"), heater, kind_max_c(g, heater->kind), &v)) != KP_OK)
        return rc;
    if ((rc = modal_has_text(g, "SET_HEATER_TEMPERATURE")) != KP_OK)
        return rc;
    tr_word(modal_script(g), "SET_HEATER_TEMPERATURE");
    tr_name(modal_script(g), "HEATER=", heater->name);
    tr_number(modal_script(g), "TARGET=", v);
    return KP_OK;
}

enum kp_err modal_spindle(struct kp_modal *g)
{
    const char word[] = { 'M', (char)('0' + g->command->code / 10), 0 };
    const struct kp_gcode_word *w = modal_letter(g, 'S');
    double v = NAN;
    enum kp_err rc = w ? modal_number(g, w, "S", 0, SPINDLE_MAX, KP_INVALID_PARAMETER, &v) : KP_OK;
    if (rc != KP_OK || (rc = modal_has_text(g, word)) != KP_OK)
        return rc;
    tr_word(modal_script(g), word);
    if (w)
        tr_number(modal_script(g), "S", v);
    return KP_OK;
}

/* ---- motors ---- */

static const struct kp_axis *axis_of_stepper(const struct kp_modal *g, struct kp_str name)
{
    const struct kp_axis *a;
    size_t i = 3;
    while ((a = kp_machine_axis(g->m, i)) && !kp_str_same(name, a->stepper))
        i++;
    return a;
}

/* One motor by its name as Klipper wants it; another kind of line for a manual_stepper. */
static enum kp_err motor_switch(struct kp_modal *g, const struct kp_gcode_word *w, const char *motor, bool on)
{
    bool manual = kp_str_starts(kp_str_of(motor), "manual_stepper ");
    const char *name = strrchr(motor, ' ') ? strrchr(motor, ' ') + 1 : motor;
    if ((!manual && name != motor) || !kp_name_ok(kp_str_of(name)))
        return MODAL_FAIL(g, w, KP_EXECUTION_FAILED, "stepper", "Klipper's name %s cannot be written in a script: use A-Z a-z 0-9 _ there", motor);
    enum kp_err rc = manual ? modal_has(g, W_MANUAL_STEPPER) : modal_has_text(g, "SET_STEPPER_ENABLE");
    if (rc != KP_OK)
        return rc;
    struct tr_script *s = modal_script(g);
    if (manual) {
        const struct kp_axis *axis = axis_of_stepper(g, kp_str_of(name));
        bool joined = axis && axis->join == KP_JOINED;
        if (joined)
            tr_unjoin(s, name);
        else if (axis)
            modal_release(g, axis);
        tr_stepper_enable(s, name, on);
        if (joined)
            tr_join(s, axis);
        return KP_OK;
    }
    tr_word(s, "SET_STEPPER_ENABLE");
    tr_name(s, "STEPPER=", name);
    tr_number(s, "ENABLE=", on);
    return KP_OK;
}

/* The motors of X, Y and Z, for a Klipper that has no M17. */
static enum kp_err motors_on(struct kp_modal *g)
{
    const struct kp_motor *motor;
    bool any = false;
    enum kp_err rc = KP_OK;
    for (size_t i = 0; (motor = kp_machine_motor(g->m, i)) && rc == KP_OK; i++)
        if (kp_str_starts(kp_str_of(motor->name), "stepper_")) {
            rc = motor_switch(g, NULL, motor->name, true);
            any = true;
        }
    return rc == KP_OK && !any ? modal_has_text(g, "M17") : rc;
}

enum kp_err modal_motors(struct kp_modal *g)
{
    const char *word = g->command->code == 170 ? "M17" : g->command->code == 180 ? "M18" : "M84";
    enum kp_err rc;
    if (g->command->code == 170 && !kp_machine_has_command(g->m, kp_str_of(word)))
        return motors_on(g);
    if ((rc = modal_has_text(g, word)) != KP_OK)
        return rc;
    tr_word(modal_script(g), word);
    if (g->command->code != 170)
        g->next.homes = 0, g->next.unhomes = ~0u; /* an axis without its motor is unhomed */
    return KP_OK;
}

/* STEPPER_ENABLE and STEPPER_DISABLE of one motor. */
enum kp_err modal_motor_named(struct kp_modal *g)
{
    bool on = kp_str_eq(kp_gcode_name(g->line, g->command), "STEPPER_ENABLE");
    const struct kp_gcode_word *w = modal_key(g, "STEPPER");
    struct kp_error e;
    int index;
    const struct kp_axis *a;
    if (!w)
        return MODAL_FAIL(g, NULL, KP_MISSING_PARAMETER, "stepper", "STEPPER is missing");
    enum kp_err rc = kp_machine_find_motor(g->m, kp_gcode_text(g->line, w), &index, &e);
    if (rc != KP_OK)
        return MODAL_FAIL(g, w, rc, "stepper", "%s", e.message);
    const char *motor = kp_machine_motor(g->m, (size_t)index)->name;
    if ((rc = motor_switch(g, w, motor, on)) != KP_OK || on)
        return rc;
    if (kp_str_starts(kp_str_of(motor), "stepper_")) /* two motors may carry X and Y between them */
        g->next.unhomes |= motor[8] == 'z' ? 4u : 3u;
    for (size_t i = 3; (a = kp_machine_axis(g->m, i)); i++)
        if (kp_str_starts(kp_str_of(motor), "manual_stepper ") && strcmp(motor + 15, a->stepper) == 0)
            g->next.unhomes |= 1u << i;
    return KP_OK;
}

/* ---- words of Klipper's own ---- */

static enum kp_err verbatim_words(struct kp_modal *g)
{
    for (size_t i = 0; i < g->command->count; i++) {
        const struct kp_gcode_word *w = &g->line->words[g->command->first + i];
        struct kp_str text = kp_gcode_text(g->line, w);
        char key[KP_NAME_MAX + 1], name[KP_NAME_MAX];
        kp_str_clean(key, kp_gcode_key(g->line, w));
        key[0] = w->letter ? w->letter : key[0];
        if (!w->letter)
            memcpy(key + w->key_size, "=", 2);
        if (!isnan(w->value) && fabs(w->value) <= MODAL_NUMBER_MAX)
            tr_number(&g->script, key, w->value);
        else if (!w->letter && kp_name_ok(text))
            tr_name(&g->script, key, kp_str_clean(name, text));
        else
            return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, NULL, "%s is neither a number nor a name of A-Z a-z 0-9 _", key);
    }
    return KP_OK;
}

enum kp_err modal_verbatim(struct kp_modal *g)
{
    char word[KP_NAME_MAX] = "";
    struct kp_str name = kp_gcode_name(g->line, g->command);
    enum kp_err rc = modal_gate(g);
    for (size_t i = 0, n = 0; i < name.n; i++) /* "g 38.2" is written so, too */
        if (!is_blank(name.p[i]) && n < sizeof word - 1)
            word[n++] = upper(name.p[i]), word[n] = 0;
    if (rc != KP_OK || (rc = modal_has_text(g, word)) != KP_OK)
        return rc;
    const struct kp_gcode_word *w = strcmp(word, "MANUAL_STEPPER") == 0 ? modal_key(g, "STEPPER") : NULL;
    const struct kp_axis *axis = w ? axis_of_stepper(g, kp_gcode_text(g->line, w)) : NULL;
    if (axis && axis->join == KP_JOINED)
        return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, "stepper", "%s is axis %s: G1 moves it, G28 homes it", axis->stepper, (char[]){ axis->letter, 0 });
    struct modal_item *item = modal_item(g, KP_DO_SCRIPT);
    if (axis) { /* who knows where it stands then */
        size_t i = (size_t)g->axis_of[axis->letter - 'A'];
        item->axes[item->axis_count++] = (struct kp_axis_write){ (int)i, NAN, false };
        g->next.at[i] = NAN;
        g->next.unhomes |= 1u << i;
    }
    tr_start(&g->script);
    tr_word(&g->script, word);
    if ((rc = verbatim_words(g)) != KP_OK)
        return rc;
    modal_text(g, item, &g->script);
    item->resync = true; /* who knows what it moves */
    g->next.at[0] = g->next.at[1] = g->next.at[2] = NAN;
    memcpy(item->target, g->next.at, sizeof item->target);
    return KP_OK;
}
