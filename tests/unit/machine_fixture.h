/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A seesaw machine as Klipper tells it, for the tests of the model and of safety: settings in lower case, objects as written. */
#ifndef MACHINE_FIXTURE_H
#define MACHINE_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kp.h"

static const char machine_cfg[] =
    "[safety]\nmax_x_position: 250\nmin_z_position: -50\nmax_velocity: 200\nmax_feedrate: 30000\n"
    "[vacuum]\ntravel_interlock: true\nretries: 2\n"
    "[axis A]\nstepper: manual_stepper rotation1\nrotary: true\nvelocity: 720\n"
    "[sensor vac1]\nobject: temperature_sensor Vacuum1\ntype: vacuum\nscale: -0.5\noffset: 10\n"
    "[nozzle N1]\nsafe_z: 2\npump: pump1\nvalve: output_pin Valve1\nsensor: vac1\npart_on: -40\npart_off: -10\nrotation_axis: A\n"
    "[nozzle N2]\nz_direction: -1\nsafe_z: 5\nvalve: valve2\n"
    "[feeder feeder1]\nstepper: manual_stepper feeder1\nfeedrate: 600\n"
    "[pin light]\npin: mcu2:PB7\n";

struct fixture_row { const char *section, *option; enum kp_kind kind; double num; const char *text; };

static const struct fixture_row fixture_rows[] = {
    { "printer", "kinematics", KP_STR, 0, "cartesian" },
    { "printer", "max_velocity", KP_NUM, 300, NULL }, { "printer", "max_accel", KP_NUM, 3000, NULL },
    { "stepper_x", "endstop_pin", KP_STR, 0, "^PC0" }, { "stepper_x", "position_min", KP_NUM, 0, NULL }, { "stepper_x", "position_max", KP_NUM, 300, NULL },
    { "stepper_y", "endstop_pin", KP_STR, 0, "^PC1" }, { "stepper_y", "position_min", KP_NUM, 0, NULL }, { "stepper_y", "position_max", KP_NUM, 200, NULL },
    { "stepper_z", "endstop_pin", KP_STR, 0, "^PC2" }, { "stepper_z", "position_min", KP_NUM, -60, NULL }, { "stepper_z", "position_max", KP_NUM, 60, NULL },
    { "manual_stepper rotation1", "velocity", KP_NUM, 100, NULL }, { "manual_stepper rotation1", "accel", KP_NUM, 5000, NULL },
    { "manual_stepper feeder1", "accel", KP_NUM, 500, NULL },
    { "output_pin valve1", "pin", KP_STR, 0, "PB3" }, { "output_pin valve1", "pwm", KP_BOOL, 0, NULL },
    { "output_pin valve2", "pin", KP_STR, 0, "!mcu2:PB3" }, { "output_pin valve2", "pwm", KP_BOOL, 0, NULL },
    { "output_pin pump1", "pin", KP_STR, 0, "PB4" }, { "output_pin pump1", "pwm", KP_BOOL, 1, NULL }, { "output_pin pump1", "scale", KP_NUM, 255, NULL },
    { "pwm_tool laser", "pin", KP_STR, 0, "mcu2: PB7" }, { "pwm_tool laser", "scale", KP_NUM, 1, NULL },
    { "output_pin both", "pin", KP_STR, 0, "PB8" },
    { "gcode_button both", "pin", KP_STR, 0, "^!PC5" },
    { "gcode_button door", "pin", KP_STR, 0, "^PC0" },
    { "filament_switch_sensor tape", "switch_pin", KP_STR, 0, "PC6" }, { "filament_switch_sensor tape", "pause_delay", KP_NUM, 0.5, NULL },
    { "temperature_sensor vacuum1", "sensor_type", KP_STR, 0, "my_adc" },
    { "temperature_sensor board", "sensor_type", KP_STR, 0, "temperature_mcu" },
    { "safe_z_home", "home_xy_position", KP_OTHER, 0, NULL },
    { "gcode_macro PARK", "gcode", KP_STR, 0, "G1 X0" },
};

static const char *const fixture_objects[] = {
    "gcode", "webhooks", "configfile", "mcu", "toolhead", "motion_report", "gcode_move", "print_stats", "idle_timeout", "stepper_enable",
    "query_endstops", "output_pin Valve1", "output_pin valve2", "output_pin pump1", "pwm_tool laser", "output_pin both", "gcode_button both",
    "gcode_button door", "filament_switch_sensor tape", "temperature_sensor Vacuum1", "temperature_sensor board", "manual_stepper rotation1",
    "manual_stepper feeder1",
};

static inline void told(struct kp_machine *m, const char *object, const char *field, struct kp_value v, int64_t now_ms)
{
    kp_machine_status(m, kp_str_of(object), kp_str_of(field), &v, now_ms);
}

static inline struct kp_value number(double v) { return (struct kp_value){ .kind = KP_NUM, .num = v }; }
static inline struct kp_value truth(bool v) { return (struct kp_value){ .kind = KP_BOOL, .flag = v }; }
static inline struct kp_value text(const char *v) { return (struct kp_value){ .kind = KP_STR, .str = kp_str_of(v) }; }
static inline struct kp_value numbers(const double *v, size_t n) { return (struct kp_value){ .kind = KP_NUMS, .nums = v, .count = n }; }

static inline void feed_klipper(struct kp_machine *m)
{
    for (size_t i = 0; i < sizeof fixture_rows / sizeof *fixture_rows; i++) {
        const struct fixture_row *r = &fixture_rows[i];
        struct kp_value v = { .kind = r->kind, .num = r->num, .flag = r->num != 0, .str = kp_str_of(r->text) };
        kp_machine_setting(m, kp_str_of(r->section), kp_str_of(r->option), &v);
    }
    for (size_t i = 0; i < sizeof fixture_objects / sizeof *fixture_objects; i++)
        kp_machine_object(m, kp_str_of(fixture_objects[i]));
    kp_machine_command(m, kp_str_of("SET_PIN"));
    kp_machine_command(m, kp_str_of("G28"));
}

/* A machine of this configuration; with cfg NULL the one above. Not yet resolved. */
static inline struct kp_machine *machine_make(const char *cfg)
{
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of(cfg ? cfg : machine_cfg), &f), KP_OK);
    struct kp_machine *m = kp_machine_new(c);
    assert_non_null(m);
    kp_config_free(c);
    feed_klipper(m);
    return m;
}

/* The same, resolved and ready, homed and at 10, 20, 3. */
static inline struct kp_machine *machine_ready(int64_t now_ms)
{
    static const double at[4] = { 10, 20, 3, 0 }, low[4] = { 0, 0, -60, 0 }, high[4] = { 300, 200, 60, 0 };
    static const char *const motors[] = { "steppers.stepper_x", "steppers.stepper_y", "steppers.stepper_z" };
    struct kp_machine *m = machine_make(NULL);
    struct kp_faults f = { .count = 0 };
    assert_int_equal(kp_machine_resolve(m, &f), KP_OK);
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_READY, "Printer is ready");
    told(m, "toolhead", "position", numbers(at, 4), now_ms);
    told(m, "toolhead", "axis_minimum", numbers(low, 4), now_ms);
    told(m, "toolhead", "axis_maximum", numbers(high, 4), now_ms);
    told(m, "toolhead", "homed_axes", text("xyz"), now_ms);
    told(m, "motion_report", "live_position", numbers(at, 4), now_ms);
    for (size_t i = 0; i < 3; i++)
        told(m, "stepper_enable", motors[i], truth(true), now_ms);
    told(m, "stepper_enable", "steppers.manual_stepper rotation1", truth(false), now_ms);
    told(m, "output_pin Valve1", "value", number(0), now_ms);
    kp_machine_pushed(m, now_ms);
    return m;
}

#endif
