/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Machines for the tests of check, translate and sequence, made as the shim makes one: a klipperplace.cfg and Klipper's own
 * words. tests/golden/README.md describes them. */
#ifndef PLAN_FIXTURE_H
#define PLAN_FIXTURE_H

#include "kp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AXIS_A "[axis A]\nstepper: manual_stepper rotation1\nvelocity: 360\nacceleration: 3600\nrotary: true\n"
#define AXIS_B "[axis B]\nstepper: manual_stepper rotation2\nrotary: true\n"
#define AXIS_C "[axis C]\nstepper: manual_stepper drag\nvelocity: 10\n"
#define AXIS_H "[axis H]\nstepper: manual_stepper index\nvelocity: 100\nacceleration: 1000\nrotary: true\nhome_velocity: 20\n"
#define SENSORS "[sensor vacuum1]\nobject: temperature_sensor vacuum1\ntype: vacuum\n" \
                "[sensor vacuum2]\nobject: temperature_sensor vacuum2\ntype: vacuum\n"
#define N1_PINS "z_direction: 1\nrotation_axis: A\npump: pump1\nvalve: valve1\nsensor: vacuum1\npart_on: -40\npart_off: -20\ndwell: 0.15\n"
#define N2_PINS "z_direction: -1\nrotation_axis: B\noffset_x: 20\noffset_y: -1.5\npump: pump2\nvalve: valve2\nsensor: vacuum2\npart_on: 40\npart_off: 20\ndwell: 0.15\n"
#define N1 "[nozzle N1]\n" N1_PINS "safe_z: -5\ntravel_height: 0\npick_height: -30\nplace_height: -29.4\n"
#define N2 "[nozzle N2]\n" N2_PINS "safe_z: 5\npick_height: 30\nplace_height: 29.4\n"
#define SEESAW AXIS_A AXIS_B AXIS_C SENSORS N1 N2 \
               "[feeder feeder1]\nstepper: manual_stepper feeder1\nfeedrate: 1200\naccel: 500\n[pin lamp]\nobject: output_pin light\n"

/* Sensors that Klipper's extra looks at in a script; the second tells the opposite of our level, in hundredths. */
#define INSIDE AXIS_A AXIS_B "[sensor vacuum1]\nobject: pnp_sensor vac1\ntype: vacuum\nreport_time: 0.02\n" \
               "[sensor vacuum2]\nobject: pnp_sensor vac2\ntype: vacuum\nscale: -0.01\noffset: 3\n" N1 N2

static const struct fixture { const char *name, *cfg, *without; } fixtures[] = {
    { "seesaw", SEESAW, "homing_override" },
    { "careful", SEESAW "[vacuum]\ntravel_interlock: true\nretries: 2\n[safety]\nmax_x_position: 250\nmin_feedrate: 60\nmax_feedrate: 6000\n", "homing_override" },
    { "single", "[nozzle N1]\npump: pump2\nvalve: valve2\nblow_off: blow\nblow_off_time: 0.05\ndwell: 0\nsafe_z: 10\noffset_z: 2\n"
                "[feeder feeder]\nstepper: manual_stepper feeder1\n[feeder broken]\nstepper: manual_stepper nothing\n", "" },
    { "shared", AXIS_A SENSORS "[nozzle N1]\n" N1_PINS "[nozzle N2]\nz_direction: 1\npump: pump1\nvalve: valve2\n", "homing_override" },
    { "crossed", "[nozzle N1]\npump: pump1\nvalve: valve1\nsafe_z: 5\n[nozzle N2]\nz_direction: -1\npump: pump2\nvalve: valve2\nsafe_z: -5\n", "homing_override" },
    { "odd", "[nozzle N1]\npump: no_such_pin\nvalve: valve1\n[nozzle N2]\nsafe_z: 5\n"
             "[sensor vacuum1]\ntype: vacuum\n[nozzle N3]\nvalve: valve1\nsafe_z: 5\nsensor: vacuum1\npick_height: 1\nplace_height: 1\n", "homing_override" },
    { "bare", "", "SET_PIN" },
    { "blind", SENSORS "[nozzle N2]\nvalve: valve2\nsafe_z: 5\nsensor: vacuum2\n", "homing_override" },
    { "deeper", SEESAW "[vacuum]\nretries: 2\nretry_lower: 0.2\n", "homing_override" },
    { "deepest", SEESAW "[vacuum]\nretries: 20\nretry_lower: 0.1\n", "homing_override" },
    { "inside", INSIDE, "homing_override" },
    { "outside", INSIDE, "PNP_WAIT" },
    { "inside_deeper", INSIDE "[vacuum]\nretries: 2\nretry_lower: 0.2\n", "homing_override" },
    { "half_inside", AXIS_A AXIS_B "[sensor vacuum1]\nobject: pnp_sensor vac1\ntype: vacuum\nfield: raw\n"
                     "[sensor vacuum2]\nobject: pnp_sensor vac2\ntype: vacuum\nscale: 0\n" N1 N2, "homing_override" },
    { "limited", SEESAW "[gcode_driver]\ndefault_timeout: 45\n[safety]\nmin_pwm_value: 0.2\nmax_pwm_value: 0.8\nmin_fan_speed: 0.1\nmax_fan_speed: 0.6\n",
      "homing_override" },
    { "joined", SEESAW AXIS_H, "homing_override" },
    { "plain", "", "homing_override" },
    { "fanless", "", "fan" },
    { "still", "", "G1" },
    { "halved", SEESAW "[safety]\nmax_pwm_value: 0.5\n", "homing_override" },
    { "half_fan", "[vacuum]\noutput: blower\n[safety]\nmax_fan_speed: 0.5\n", "homing_override" },
    { "raised", "[nozzle N1]\nvalve: valve2\ndwell: 0\nsafe_z: 20\ntravel_height: 20\noffset_z: 2\npick_height: 0.5\nplace_height: 1.6\n", "homing_override" },
    { "same_motor", AXIS_A "[feeder feeder]\nstepper: manual_stepper rotation1\n", "homing_override" },
    { "output", "[vacuum]\noutput: pump1\n", "homing_override" },
    { "tapes", "[feeder feeder]\nstepper: extruder\n[feeder second]\nstepper: extruder1\nfeedrate: 300\n[feeder side]\nstepper: extruder_stepper side\n"
               "[feeder loose]\nstepper: extruder_stepper loose\n[feeder macro]\nmacro: feed_left\nfeedrate: 50\n", "homing_override" },
    { "blower", "[vacuum]\noutput: blower\n", "homing_override" },
};

static const struct { const char *section, *option, *text; double num; } settings[] = {
    { "printer", "kinematics", "cartesian", 0 }, { "printer", "max_velocity", NULL, 500 }, { "printer", "max_accel", NULL, 3000 },
    { "stepper_x", "endstop_pin", "^PC0", 0 }, { "stepper_x", "position_min", NULL, 0 }, { "stepper_x", "position_max", NULL, 300 },
    { "stepper_y", "endstop_pin", "^PC1", 0 }, { "stepper_y", "position_min", NULL, 0 }, { "stepper_y", "position_max", NULL, 200 },
    { "stepper_z", "endstop_pin", "^PC2", 0 }, { "stepper_z", "position_min", NULL, -32 }, { "stepper_z", "position_max", NULL, 32 },
    { "homing_override", "gcode", "G28", 0 },
    { "output_pin pump1", "pin", "PB0", 0 }, { "output_pin pump1", "pwm", NULL, 1 },
    { "output_pin valve1", "pin", "!PB1", 0 },
    { "output_pin pump2", "pin", "PB2", 0 }, { "output_pin valve2", "pin", "PB3", 0 },
    { "output_pin light", "pin", "mcu2:PA0", 0 }, { "output_pin blow", "pin", "PB4", 0 },
    { "pwm_tool laser", "pin", "PB6", 0 }, { "pwm_tool laser", "scale", NULL, 255 },
    { "output_pin odd-name", "pin", "PB5", 0 },
    { "gcode_button start", "pin", "PG0", 0 },
    { "servo gate", "pin", "PB7", 0 }, { "servo gate", "maximum_servo_angle", NULL, 90 },
    { "pwm_cycle_time beeper", "pin", "PB8", 0 }, { "pwm_cycle_time beeper", "cycle_time", NULL, 0.01 },
    { "extruder", "nozzle_diameter", NULL, 0.4 }, { "extruder1", "nozzle_diameter", NULL, 0.4 },
    { "extruder_stepper side", "extruder", "extruder", 0 }, { "extruder_stepper loose", "extruder", "", 0 },
    { "fan", "pin", "PB9", 0 }, { "fan_generic blower", "pin", "PB10", 0 }, { "fan_generic odd-fan", "pin", "PB11", 0 }, { "heater_fan hotend", "pin", "PB12", 0 },
    { "manual_stepper rotation1", "velocity", NULL, 100 }, { "manual_stepper rotation2", "microsteps", NULL, 16 },
    { "manual_stepper drag", "position_min", NULL, -5 }, { "manual_stepper drag", "position_max", NULL, 5 },
    { "manual_stepper feeder1", "velocity", NULL, 5 }, { "manual_stepper index", "endstop_pin", "PC7", 0 },
    { "pnp_sensor vac1", "sensor_pin", "PC5", 0 }, { "pnp_sensor vac2", "sensor_pin", "PC6", 0 },
    { "temperature_sensor vacuum1", "sensor_type", "x", 0 }, { "temperature_sensor vacuum2", "sensor_type", "x", 0 },
};

static const char *const words[] = { "G1", "G4", "G28", "G90", "G92", "M220", "M400", "SET_PIN", "MANUAL_STEPPER", "SAVE_GCODE_STATE",
                                     "RESTORE_GCODE_STATE", "SET_GCODE_OFFSET", "SET_SERVO", "SET_FAN_SPEED", "M106", "M107",
                                     "M83", "M221", "ACTIVATE_EXTRUDER", "SYNC_EXTRUDER_MOTION", "FEED_LEFT", "PNP_WAIT" };

static inline struct kp_value number_value(double v) { return (struct kp_value){ .kind = KP_NUM, .num = v }; }
static inline struct kp_value text_value(const char *s) { return (struct kp_value){ .kind = KP_STR, .str = kp_str_of(s) }; }

static inline void tell(struct kp_machine *m, const char *object, const char *field, struct kp_value v)
{
    kp_machine_status(m, kp_str_of(object), kp_str_of(field), &v, 1000);
}

static inline void tell_point(struct kp_machine *m, const char *object, const char *field, double x, double y, double z)
{
    const double v[3] = { x, y, z };
    tell(m, object, field, (struct kp_value){ .kind = KP_NUMS, .nums = v, .count = 3 });
}

static inline void fixture_status(struct kp_machine *m)
{
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_READY, "");
    tell(m, "toolhead", "homed_axes", text_value("xyz"));
    tell(m, "toolhead", "max_velocity", number_value(500));
    tell(m, "toolhead", "max_accel", number_value(3000));
    tell_point(m, "toolhead", "axis_minimum", 0, 0, -32);
    tell_point(m, "toolhead", "axis_maximum", 300, 200, 32);
    tell_point(m, "toolhead", "position", 100, 50, 0);
    tell_point(m, "gcode_move", "position", 100, 50, 0);
    kp_machine_pushed(m, 1000);
}

/* What the shim finds out of Klipper: whether it joins axes to moves. */
static inline void fixture_join(struct kp_machine *m, bool joins)
{
    tell(m, "toolhead", "extra_axes", (struct kp_value){ .kind = KP_OTHER });
    for (int axis; (axis = kp_machine_joining(m)) >= 0;)
        kp_machine_axis_joined(m, axis, joins);
}

/* Gives a ready machine, homed, at 100 50 0. */
static inline struct kp_machine *fixture_machine(const char *name)
{
    const struct fixture *x = NULL;
    static struct kp_faults f;
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++)
        if (strcmp(fixtures[i].name, name) == 0)
            x = &fixtures[i];
    if (!x)
        return NULL;
    struct kp_config *c = kp_config_new();
    memset(&f, 0, sizeof f);
    if (kp_config_parse(c, name, kp_str_of(x->cfg), &f) != KP_OK)
        fprintf(stderr, "%s\n", f.item[0].message), abort();
    struct kp_machine *m = kp_machine_new(c);
    kp_config_free(c);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(words[i], x->without) != 0)
            kp_machine_command(m, kp_str_of(words[i]));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        struct kp_value v = settings[i].text ? text_value(settings[i].text) : number_value(settings[i].num);
        if (strcmp(settings[i].section, x->without) == 0)
            continue;
        kp_machine_setting(m, kp_str_of(settings[i].section), kp_str_of(settings[i].option), &v);
        if (i == 0 || strcmp(settings[i].section, settings[i - 1].section) != 0)
            kp_machine_object(m, kp_str_of(settings[i].section));
    }
    kp_machine_resolve(m, &f);
    fixture_status(m);
    fixture_join(m, strcmp(name, "joined") == 0);
    return m;
}

#endif
