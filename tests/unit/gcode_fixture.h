/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Machines for the tests of G-code's meaning, and what a line makes of them as text. tests/golden/gcode/README.md describes both. */
#ifndef GCODE_FIXTURE_H
#define GCODE_FIXTURE_H

#include <math.h>

#include "plan_fixture.h"

#define NUMBERED "[pin lamp]\nobject: output_pin light\nm42: 1\n[pin pump]\nobject: output_pin pump1\nm42: 2\n" \
                 "[mcode M800]\npin: valve1\n[mcode M801]\npin: valve1\nset: off\n[mcode M802]\npin: pump1\nset: value\ndone: planned\n[mcode M803]\npin: nowhere\n"
#define MAPPED "[gcode_driver]\ncommand_mappings:\n  OPENPNP_VACUUM_ON: ['M106 S255']\n  OPENPNP_VACUUM_OFF: ['M107']\n" \
               "  OPENPNP_ACTUATE_ON: ['SET_PIN PIN={pin} VALUE=1']\n  OPENPNP_ACTUATE_OFF: ['SET_PIN PIN={pin} VALUE=0']\n" \
               "  M900: ['G1 X{x} F{F}', 'G4 P100', 'M114']\n  BLOW: ['SET_FAN_SPEED FAN=blower SPEED={power}']\n  PARK: ['PARK_HEAD HEIGHT={z} SIDE={side}']\n" \
               "  NOWHERE: ['GO_NOWHERE']\n  M901: ['M300 S{s} P10']\n"

static const struct gcode_machine { const char *name, *cfg; bool clamp, alone, pass; } gcode_machines[] = {
    { "plain", "", false, false, false },
    { "file", "", false, true, false },
    { "openpnp", AXIS_A AXIS_C NUMBERED MAPPED, true, false, false },
    { "careful", SEESAW "[vacuum]\ntravel_interlock: true\n[safety]\nmax_x_position: 250\nmin_feedrate: 60\nmax_feedrate: 6000\nmax_acceleration: 2000\n"
                 "max_pwm_value: 0.5\nmin_fan_speed: 0.2\nmax_fan_speed: 0.8\n", false, false, false },
    { "joined", AXIS_A AXIS_C AXIS_H, true, false, true },
    { "cut", AXIS_A, false, true, false },
    { "passing", AXIS_A, false, false, true },
    { "letters", "[axis D]\nstepper: manual_stepper rotation1\nrotary: true\n[axis S]\nstepper: manual_stepper rotation2\nvelocity: 90\nrotary: true\n",
      false, false, false },
    { "port", AXIS_A AXIS_C NUMBERED MAPPED "[sensor vacuum1]\nm105: V1\n[sensor vacuum2]\nm105: V2\n", true, false, false },
};

static const struct { const char *section, *option; double num; } gcode_settings[] = {
    { "fan", "max_power", 1 }, { "fan_generic blower", "max_power", 1 }, { "heater_fan hotend", "max_power", 1 },
    { "extruder", "max_temp", 280 }, { "extruder", "min_temp", 5 }, { "heater_bed", "max_temp", 110 }, { "heater_generic chamber", "max_temp", 90 },
    { "heater_generic plate", "max_temp", 300 }, { "temperature_sensor chamber", "max_temp", 90 },
    { "stepper_x", "microsteps", 16 }, { "stepper_z1", "microsteps", 16 }, { "servo flap", "maximum_servo_angle", 180 },
    { "pwm_cycle_time buzzer", "scale", 1 },
};

static const char *const gcode_words[] = { "M104", "M106", "M107", "M109", "M140", "M190", "M204", "M18", "M84", "SET_FAN_SPEED", "SET_HEATER_TEMPERATURE",
                                           "SET_STEPPER_ENABLE", "QUERY_ENDSTOPS", "PARK_HEAD", "M300" };

/* A machine under test: model, modal state and where the head stands. */
struct gcode_rig {
    struct kp_machine *m;
    struct kp_mappings *maps;
    struct kp_modal *g;
    struct kp_gcode_reader reader;
    double at[3];
    bool frames; /* shown */
};

static inline void rig_settings(struct kp_machine *m, const char *without)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        struct kp_value v = settings[i].text ? text_value(settings[i].text) : number_value(settings[i].num);
        if (strcmp(settings[i].section, without) == 0)
            continue;
        kp_machine_setting(m, kp_str_of(settings[i].section), kp_str_of(settings[i].option), &v);
        if (i == 0 || strcmp(settings[i].section, settings[i - 1].section) != 0)
            kp_machine_object(m, kp_str_of(settings[i].section));
    }
    for (size_t i = 0; i < sizeof gcode_settings / sizeof *gcode_settings; i++) {
        struct kp_value v = number_value(gcode_settings[i].num);
        kp_machine_setting(m, kp_str_of(gcode_settings[i].section), kp_str_of(gcode_settings[i].option), &v);
        kp_machine_object(m, kp_str_of(gcode_settings[i].section));
    }
    struct kp_value pin = text_value("PC1");
    kp_machine_setting(m, kp_str_of("servo flap"), kp_str_of("pin"), &pin);
    kp_machine_setting(m, kp_str_of("pwm_cycle_time buzzer"), kp_str_of("pin"), &pin);
}

/* Ready, homed, at 100 50 0. False: no such machine. */
static inline bool rig_open(struct gcode_rig *r, const char *name)
{
    const struct gcode_machine *x = NULL;
    static struct kp_faults f;
    for (size_t i = 0; i < sizeof gcode_machines / sizeof *gcode_machines; i++)
        if (strcmp(gcode_machines[i].name, name) == 0)
            x = &gcode_machines[i];
    if (!x)
        return false;
    struct kp_config *c = kp_config_new();
    memset(&f, 0, sizeof f);
    memset(r, 0, sizeof *r);
    r->maps = kp_mappings_new();
    if (kp_config_parse(c, name, kp_str_of(x->cfg), &f) != KP_OK || kp_mappings_config(r->maps, c, &f) != KP_OK)
        fprintf(stderr, "%s\n", f.item[0].message), abort();
    r->m = kp_machine_new(c);
    kp_config_free(c);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        kp_machine_command(r->m, kp_str_of(words[i]));
    for (size_t i = 0; i < sizeof gcode_words / sizeof *gcode_words; i++)
        kp_machine_command(r->m, kp_str_of(gcode_words[i]));
    rig_settings(r->m, "homing_override");
    kp_machine_resolve(r->m, &f);
    fixture_status(r->m);
    bool joins = strcmp(name, "joined") == 0;
    if (strcmp(name, "cut") != 0) /* whoever converts a file cannot ask */
        fixture_join(r->m, joins);
    kp_machine_axis_written(r->m, 3, 0, true);
    r->at[0] = 100, r->at[1] = 50, r->at[2] = 0;
    struct kp_modal_options o = { .mappings = r->maps, .clamp = x->clamp, .alone = x->alone, .klipper_commands = x->pass };
    r->g = kp_modal_new(r->m, &o);
    return true;
}

static inline void rig_close(struct gcode_rig *r)
{
    kp_modal_free(r->g);
    kp_mappings_free(r->maps);
    kp_machine_free(r->m);
    memset(r, 0, sizeof *r);
}

/* What the shim does when an action is done: the machine stands where it was sent, homing ends at 0 0 0. */
static inline void rig_done(struct gcode_rig *r, const struct kp_gcode_action *a)
{
    for (int i = 0; i < 3; i++)
        r->at[i] = a->target[i] == a->target[i] ? a->target[i] : a->kind == KP_DO_HOME ? 0 : r->at[i];
    for (size_t i = 0; i < a->axis_count; i++)
        kp_machine_axis_written(r->m, a->axes[i].axis, a->axes[i].position, a->axes[i].homed);
    for (size_t i = 0; i < a->write_count; i++)
        kp_machine_pin_written(r->m, a->writes[i].pin, a->writes[i].value, 1000);
    if (a->kind == KP_DO_HOME)
        tell(r->m, "toolhead", "homed_axes", text_value("xyz"));
    tell_point(r->m, "gcode_move", "position", r->at[0], r->at[1], r->at[2]);
}

/* ---- as text ---- */

struct shown { char *text; size_t n, room; };

static inline void show(struct shown *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void show(struct shown *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    s->n += (size_t)vsnprintf(s->text + s->n, s->room - s->n, fmt, args);
    va_end(args);
    if (s->n >= s->room)
        abort();
}

static inline void show_line(struct shown *s, const char *line, size_t n)
{
    if (n + 1 >= s->room - s->n)
        abort();
    memcpy(s->text + s->n, line, n);
    memcpy(s->text + s->n + n, "\n", 2);
    s->n += n + 1;
}

static inline void show_script(struct shown *s, const struct gcode_rig *r, const char *tag, const char *text)
{
    while (*text) {
        int n = (int)strcspn(text, "\n");
        if (r->frames || !(strncmp(text, "SAVE_GCODE_STATE", 16) == 0 || strncmp(text, "RESTORE_GCODE_STATE", 19) == 0))
            show(s, "  %s%.*s\n", tag, n, text);
        text += n + (text[n] != 0);
    }
}

static inline void show_action(struct shown *s, struct gcode_rig *r, const struct kp_gcode_action *a)
{
    static const char *const kinds[] = { "script", "home", "wait", "endstops", "pause", "sensors", "position", "version", "stop" };
    const struct kp_axis *axis;
    char tag[32] = "";
    if (a->kind != KP_DO_SCRIPT || a->resync || a->settle)
        snprintf(tag, sizeof tag, "[%s] ", a->kind != KP_DO_SCRIPT ? kinds[a->kind] : a->resync ? "resync" : "settle");
    if (a->text) {
        show_script(s, r, tag, a->text);
        return;
    }
    show(s, "  [%s]", kinds[a->kind]);
    for (size_t i = 0; a->kind == KP_DO_POSITION && (axis = kp_machine_axis(r->m, i)); i++) {
        char number[KP_NUMBER_MAX] = "?";
        if (a->position[i] == a->position[i])
            kp_number_print(number, a->position[i], 4);
        show(s, " %c:%s", axis->letter, number);
    }
    show(s, "\n");
}

/* Feeds one line and shows all that comes of it. */
static inline void rig_line(struct gcode_rig *r, const char *text, size_t size, struct shown *s)
{
    static struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_gcode_action a;
    bool resync = false;
    enum kp_err rc = kp_gcode_parse((struct kp_str){ text, size }, &line, &fault);
    if (rc == KP_OK)
        rc = kp_modal_line(r->g, &line, &fault);
    if (rc != KP_OK) {
        show(s, "  ! %s, column %zu \"%s\": %s\n", kp_err_name(rc), fault.column, fault.text, fault.error.message);
        return;
    }
    while (kp_modal_next(r->g, &a)) {
        show_action(s, r, &a);
        rig_done(r, &a);
        resync = resync || a.resync;
    }
    if (resync)
        kp_modal_sync(r->g);
}

#endif
