/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The model of machines without and with klipperplace.cfg: a plain printer that nobody configured, [board_pins], servos, fans, heaters, motors, feeders,
 * sensors, M-numbers, and every allocation's failure. */
#include "alloc_fixture.h"
#include "machine_fixture.h"

/* What a plain cartesian printer tells: steppers, one extruder, a bed, a part fan. */
static const struct fixture_row plain_rows[] = {
    { "mcu", "serial", KP_STR, 0, "/dev/serial/by-id/usb" },
    { "printer", "kinematics", KP_STR, 0, "cartesian" }, { "printer", "max_velocity", KP_NUM, 300, NULL }, { "printer", "max_accel", KP_NUM, 3000, NULL },
    { "stepper_x", "step_pin", KP_STR, 0, "PF0" }, { "stepper_x", "endstop_pin", KP_STR, 0, "^PE5" }, { "stepper_x", "position_endstop", KP_NUM, 0, NULL },
    { "stepper_x", "position_min", KP_NUM, 0, NULL }, { "stepper_x", "position_max", KP_NUM, 200, NULL },
    { "stepper_y", "endstop_pin", KP_STR, 0, "^PJ1" }, { "stepper_y", "position_min", KP_NUM, 0, NULL }, { "stepper_y", "position_max", KP_NUM, 200, NULL },
    { "stepper_z", "endstop_pin", KP_STR, 0, "^PD3" }, { "stepper_z", "position_min", KP_NUM, 0, NULL }, { "stepper_z", "position_max", KP_NUM, 180, NULL },
    { "extruder", "heater_pin", KP_STR, 0, "PB4" }, { "extruder", "min_temp", KP_NUM, 0, NULL }, { "extruder", "max_temp", KP_NUM, 275, NULL },
    { "heater_bed", "heater_pin", KP_STR, 0, "PH5" }, { "heater_bed", "min_temp", KP_NUM, 0, NULL }, { "heater_bed", "max_temp", KP_NUM, 110, NULL },
    { "fan", "pin", KP_STR, 0, "PH6" },
};
static const char *const plain_objects[] = { "gcode", "webhooks", "configfile", "mcu", "toolhead", "motion_report", "gcode_move", "stepper_enable",
                                             "query_endstops", "extruder", "heater_bed", "fan", "heaters", "idle_timeout" };

/* More than a printer: everything else libkp knows. */
static const struct fixture_row rich_rows[] = {
    { "board_pins", "mcu", KP_STR, 0, "mcu" }, { "board_pins", "aliases", KP_STR, 0, "EXP1_1=PE8, EXP1_2 = PE7,\n EXP1_9=<GND>, NEXT=EXP1_1" },
    { "board_pins hat", "aliases_two", KP_STR, 0, "D1=PC3" }, { "board_pins hat", "mcu", KP_STR, 0, "mcu2, mcu3" },
    { "output_pin led", "pin", KP_STR, 0, "!EXP1_1" }, { "output_pin relay", "pin", KP_STR, 0, "mcu2:D1" }, { "output_pin raw", "pin", KP_STR, 0, "D1" },
    { "output_pin chained", "pin", KP_STR, 0, "EXP1_2" },
    { "output_pin soft", "pin", KP_STR, 0, "PA1" }, { "output_pin soft", "pwm", KP_BOOL, 1, NULL }, { "output_pin soft", "cycle_time", KP_NUM, 0.01, NULL },
    { "pwm_cycle_time beep", "pin", KP_STR, 0, "PA2" }, { "pwm_cycle_time beep", "cycle_time", KP_NUM, 0.1, NULL },
    { "servo gripper", "pin", KP_STR, 0, "PA3" }, { "servo gripper", "maximum_servo_angle", KP_NUM, 90, NULL },
    { "servo gripper", "minimum_pulse_width", KP_NUM, 0.0005, NULL }, { "servo gripper", "maximum_pulse_width", KP_NUM, 0.0025, NULL },
    { "servo plain", "pin", KP_STR, 0, "PA4" },
    { "filament_motion_sensor tape", "switch_pin", KP_STR, 0, "PA5" },
    { "fan_generic blower", "pin", KP_STR, 0, "PA6" }, { "fan_generic fan", "pin", KP_STR, 0, "PA7" },
    { "heater_fan hotend", "pin", KP_STR, 0, "PA8" }, { "controller_fan board", "pin", KP_STR, 0, "PA9" },
    { "temperature_fan Chamber", "pin", KP_STR, 0, "PA10" }, { "temperature_fan Chamber", "max_temp", KP_NUM, 70, NULL },
    { "extruder1", "max_temp", KP_NUM, 200, NULL }, { "extruder_stepper side", "extruder", KP_STR, 0, "extruder" },
    { "heater_generic chamber", "max_temp", KP_NUM, 80, NULL }, { "heater_generic plate", "max_temp", KP_NUM, 90, NULL },
    { "heater_generic plate", "min_temp", KP_NUM, 5, NULL },
    { "temperature_sensor blower", "sensor_type", KP_STR, 0, "x" }, { "load_cell", "sensor_type", KP_STR, 0, "hx711" },
    { "load_cell scale", "sensor_type", KP_STR, 0, "hx711" }, { "pnp_sensor vac", "pin", KP_STR, 0, "PC1" },
    { "manual_stepper feed1", "accel", KP_NUM, 400, NULL }, { "stepper_z1", "step_pin", KP_STR, 0, "PF9" },
    { "temperature_sensor twin", "sensor_type", KP_STR, 0, "x" }, { "heater_generic twin", "max_temp", KP_NUM, 50, NULL },
};
static const char *const rich_objects[] = { "output_pin led", "output_pin relay", "pwm_cycle_time beep", "servo Gripper", "fan_generic blower",
                                            "heater_fan hotend",
                                            "temperature_fan Chamber", "heater_generic chamber", "load_cell", "load_cell scale", "pnp_sensor vac",
                                            "temperature_sensor blower", "extruder1" };

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void feed(struct kp_machine *m, const struct fixture_row *rows, size_t count, const char *const *objects, size_t object_count)
{
    for (size_t i = 0; i < count; i++) {
        struct kp_value v = { .kind = rows[i].kind, .num = rows[i].num, .flag = rows[i].num != 0, .str = kp_str_of(rows[i].text) };
        kp_machine_setting(m, kp_str_of(rows[i].section), kp_str_of(rows[i].option), &v);
    }
    for (size_t i = 0; i < object_count; i++)
        kp_machine_object(m, kp_str_of(objects[i]));
}

/* A machine of cfg; plain, or rich on top. Not yet resolved. */
static struct kp_machine *make(const char *cfg, bool rich)
{
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    kp_config_parse(c, "k.cfg", kp_str_of(cfg), &f);
    assert_int_equal(f.count, 0);
    struct kp_machine *m = kp_machine_new(c);
    assert_non_null(m);
    kp_config_free(c);
    feed(m, plain_rows, COUNT(plain_rows), plain_objects, COUNT(plain_objects));
    if (rich)
        feed(m, rich_rows, COUNT(rich_rows), rich_objects, COUNT(rich_objects));
    static const char *const words[] = { "G28", "M106", "FEED_LEFT" };
    for (size_t i = 0; i < COUNT(words); i++)
        kp_machine_command(m, kp_str_of(words[i]));
    return m;
}

static int pin_at(const struct kp_machine *m, const char *name)
{
    int i = -1;
    kp_machine_find_pin(m, kp_str_of(name), &i, NULL, NULL);
    return i;
}

static const struct kp_pin *pin(const struct kp_machine *m, const char *name)
{
    int i = pin_at(m, name);
    assert_true(i >= 0);
    return kp_machine_pin(m, (size_t)i);
}

/* Zero configuration. */
static void test_plain(void **state)
{
    struct kp_machine *m = make("", false);
    struct kp_faults f = { .count = 0 };
    int i = -1;
    (void)state;
    assert_int_equal(kp_machine_resolve(m, &f), KP_OK);
    assert_int_equal(f.count, 0);
    for (size_t axis = 0; axis < 3; axis++)
        assert_true(kp_machine_axis(m, axis)->min == 0 && kp_machine_axis(m, axis)->max == (axis == 2 ? 180 : 200));
    assert_null(kp_machine_axis(m, 3));
    const struct kp_limits *l = kp_machine_limits(m);
    assert_true(l->max_velocity_mm_s == 300 && l->max_accel_mm_s2 == 3000 && l->min_feedrate_mm_min == 1 && l->max_feedrate_mm_min == 18000);
    assert_true(l->min_pwm == 0 && l->max_pwm == 1 && l->min_fan == 0 && l->max_fan == 1);
    assert_true(l->max_extruder_c == 250 && l->max_bed_c == 120 && l->max_chamber_c == 60 && l->min_delta_c == 5 && l->retry_lower_mm == 0);
    assert_int_equal(kp_machine_find_heater(m, kp_str_of("extruder"), &i, NULL), KP_OK);
    assert_true(kp_machine_heater(m, (size_t)i)->max_c == 250 && kp_machine_heater(m, (size_t)i)->min_c == 0 && kp_machine_heater(m, (size_t)i)->settable);
    assert_int_equal(kp_machine_find_heater(m, kp_str_of("heater_bed"), &i, NULL), KP_OK);
    assert_true(kp_machine_heater(m, (size_t)i)->max_c == 110 && kp_machine_heater(m, (size_t)i)->kind == KP_HEATER_BED);
    assert_null(kp_machine_heater(m, 2));
    assert_int_equal(kp_machine_fan(m, 0)->kind, KP_FAN_PART);
    assert_null(kp_machine_fan(m, 1));
    struct kp_vacuum v = kp_machine_vacuum(m); /* the fan is the pump, as M106 is */
    assert_true(v.kind == KP_VACUUM_FAN && v.index == 0);
    assert_string_equal(kp_machine_sensor(m, 0)->object, "extruder");
    assert_string_equal(kp_machine_sensor(m, 1)->name, "heater_bed");
    static const char *const motors[] = { "stepper_x", "stepper_y", "stepper_z", "extruder" };
    for (size_t k = 0; k < 4; k++)
        assert_string_equal(kp_machine_motor(m, k)->name, motors[k]);
    assert_null(kp_machine_motor(m, 4));
    told(m, "query_endstops", "last_query.stepper_x", number(1), 5); /* as mainline tells them */
    told(m, "query_endstops", "last_query.y", number(1), 5);         /* as Kalico does */
    assert_true(pin(m, "endstop_x")->known && pin(m, "endstop_y")->known && !pin(m, "endstop_z")->known);
    kp_machine_free(m);
}

static void test_outputs(void **state)
{
    struct kp_machine *m = make("[pin hand]\nobject: servo Gripper\n[pin lamp]\nobject: output_pin led\nm42: 3\n", true);
    struct kp_faults f = { .count = 0 };
    bool inverted;
    int i;
    (void)state;
    assert_int_equal(kp_machine_resolve(m, &f), KP_OK);
    assert_string_equal(pin(m, "led")->board, "PE8");
    assert_true(pin(m, "led")->inverted);
    assert_string_equal(pin(m, "relay")->board, "PC3");
    assert_string_equal(pin(m, "relay")->chip, "mcu2");
    assert_string_equal(pin(m, "raw")->board, "D1"); /* that alias is another chip's */
    assert_ptr_equal(pin(m, "PE8"), pin(m, "led"));
    assert_ptr_equal(pin(m, "EXP1_1"), pin(m, "led"));
    assert_ptr_equal(pin(m, "NEXT"), pin(m, "led"));
    assert_ptr_equal(pin(m, "mcu2:D1"), pin(m, "relay"));
    assert_int_equal(pin_at(m, "mcu3:D1"), -1);
    assert_int_equal(pin_at(m, "EXP1_9"), -1);
    assert_int_equal(kp_machine_find_pin(m, kp_str_of("!EXP1_2"), &i, &inverted, NULL), KP_OK);
    assert_true(inverted && kp_machine_pin(m, (size_t)i) == pin(m, "chained"));
    assert_int_equal(kp_machine_find_m42(m, 3), pin_at(m, "lamp"));
    assert_int_equal(kp_machine_find_m42(m, 4), -1);
    assert_int_equal(kp_machine_find_m42(m, -1), -1);

    assert_true(pin(m, "soft")->kind == KP_PIN_PWM && pin(m, "soft")->cycle_time_s == 0.01 && !pin(m, "soft")->cycle_settable);
    assert_true(pin(m, "beep")->kind == KP_PIN_PWM && pin(m, "beep")->cycle_time_s == 0.1 && pin(m, "beep")->cycle_settable);
    assert_true(isnan(pin(m, "led")->cycle_time_s) && !pin(m, "led")->cycle_settable);
    assert_int_equal(pin(m, "tape")->kind, KP_PIN_SWITCH);

    const struct kp_pin *servo = pin(m, "hand");
    assert_string_equal(servo->object, "servo Gripper");
    assert_true(servo->kind == KP_PIN_SERVO && servo->scale == 90 && servo->pulse_s[0] == 0.0005 && servo->pulse_s[1] == 0.0025);
    assert_true(pin(m, "plain")->scale == 180 && pin(m, "plain")->pulse_s[1] == 0.002);
    told(m, "servo Gripper", "value", number(0.0015 / 0.020), 7);
    assert_true(servo->known && fabs(servo->value - 0.5) < 1e-9 && servo->changed_ms == 7);
    told(m, "servo Gripper", "value", number(0), 8); /* no pulse */
    assert_true(servo->value == 0);
    told(m, "servo Gripper", "value", text("x"), 9);
    assert_true(servo->changed_ms == 8);
    kp_machine_free(m);
}

/* Aliases as a flat list of pairs, and as a list of texts; more of them than fit. */
static void test_aliases(void **state)
{
    struct kp_str flat[] = { kp_str_of("A1"), kp_str_of("PB1"), kp_str_of("A2"), kp_str_of("<NC>"), kp_str_of("odd") };
    struct kp_str texts[] = { kp_str_of("B1=PB2"), kp_str_of("B2=PB3,B3=PB4"), kp_str_of(""), kp_str_of("=PB5") };
    struct kp_str chips[] = { kp_str_of("mcu"), kp_str_of("two") };
    struct kp_str loop[] = { kp_str_of("L1"), kp_str_of("L2"), kp_str_of("L2"), kp_str_of("L1") };
    static const struct { const char *pin, *board; } want[] = { { "A1", "PB1" }, { "two:A1", "PB1" }, { "three:A1", "A1" }, { "B3", "PB4" }, { "A2", "A2" } };
    struct kp_machine *m = make("", false);
    struct kp_value v = { .kind = KP_STRS, .strs = flat, .count = 5 }, w = { .kind = KP_STRS, .strs = texts, .count = 4 };
    struct kp_value c = { .kind = KP_STRS, .strs = chips, .count = 2 }, o = { .kind = KP_STRS, .strs = loop, .count = 4 }, none = { .kind = KP_NUM, .num = 1 };
    char name[64];
    (void)state;
    kp_machine_setting(m, kp_str_of("board_pins"), kp_str_of("aliases"), &v);
    kp_machine_setting(m, kp_str_of("board_pins"), kp_str_of("aliases_b"), &w);
    kp_machine_setting(m, kp_str_of("board_pins"), kp_str_of("mcu"), &c);
    kp_machine_setting(m, kp_str_of("board_pins x"), kp_str_of("aliases"), &o);
    kp_machine_setting(m, kp_str_of("board_pins x"), kp_str_of("aliases"), &none);
    for (size_t i = 0; i < COUNT(want); i++) {
        struct kp_value p = text(want[i].pin);
        snprintf(name, sizeof name, "output_pin p%zu", i);
        kp_machine_setting(m, kp_str_of(name), kp_str_of("pin"), &p);
    }
    struct kp_value p = text("L1"); /* round and round: no hang */
    kp_machine_setting(m, kp_str_of("output_pin l"), kp_str_of("pin"), &p);
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    for (size_t i = 0; i < COUNT(want); i++) {
        snprintf(name, sizeof name, "output_pin p%zu", i);
        assert_string_equal(pin(m, name)->board, want[i].board);
    }
    for (int i = 0; i < 1100; i++) {
        snprintf(name, sizeof name, "Z%d=PZ1", i);
        struct kp_value many = text(name);
        kp_machine_setting(m, kp_str_of("board_pins"), kp_str_of("aliases"), &many);
    }
    assert_int_equal(kp_machine_resolve(m, NULL), KP_INTERNAL_ERROR);
    kp_machine_free(m);
}

static void test_fans_heaters(void **state)
{
    static const struct { const char *name, *object; enum kp_fan_kind kind; } fans[] = {
        { "fan", "fan", KP_FAN_PART }, { "blower", "fan_generic blower", KP_FAN_GENERIC }, { "fan_generic fan", "fan_generic fan", KP_FAN_GENERIC },
        { "hotend", "heater_fan hotend", KP_FAN_AUTOMATIC }, { "board", "controller_fan board", KP_FAN_AUTOMATIC },
        { "Chamber", "temperature_fan Chamber", KP_FAN_AUTOMATIC },
    };
    static const struct { const char *name, *object; enum kp_heater_kind kind; bool settable; double max; } heaters[] = {
        { "extruder", "extruder", KP_HEATER_EXTRUDER, true, 240 }, { "extruder1", "extruder1", KP_HEATER_EXTRUDER, true, 200 },
        { "heater_bed", "heater_bed", KP_HEATER_BED, true, 100 }, { "heater_generic chamber", "heater_generic chamber", KP_HEATER_CHAMBER, true, 60 },
        { "Chamber", "temperature_fan Chamber", KP_HEATER_CHAMBER, false, 60 }, { "plate", "heater_generic plate", KP_HEATER_OTHER, true, 90 },
    };
    struct kp_machine *m = make("[safety]\nmax_extruder_temp: 240\nmax_bed_temp: 100\n", true);
    struct kp_error e;
    int i = -1;
    (void)state;
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    for (size_t k = 0; k < COUNT(fans); k++) {
        assert_int_equal(kp_machine_find_fan(m, kp_str_of(fans[k].name), &i, &e), KP_OK);
        assert_string_equal(kp_machine_fan(m, (size_t)i)->object, fans[k].object);
        assert_int_equal(kp_machine_fan(m, (size_t)i)->kind, fans[k].kind);
    }
    assert_null(kp_machine_fan(m, COUNT(fans)));
    for (size_t k = 0; k < COUNT(heaters); k++) {
        assert_int_equal(kp_machine_find_heater(m, kp_str_of(heaters[k].name), &i, &e), KP_OK);
        const struct kp_heater *h = kp_machine_heater(m, (size_t)i);
        assert_string_equal(h->object, heaters[k].object);
        assert_true(h->kind == heaters[k].kind && h->settable == heaters[k].settable && h->max_c == heaters[k].max);
        assert_true(!h->known && isnan(h->target_c) && h->changed_ms == INT64_MIN);
    }
    assert_int_equal(kp_machine_find_fan(m, kp_str_of("nofan\n"), &i, &e), KP_INVALID_PARAMETER);
    assert_string_equal(e.message, "there is no fan \"nofan?\"");
    assert_int_equal(kp_machine_find_heater(m, kp_str_of("x"), &i, NULL), KP_INVALID_PARAMETER);

    told(m, "fan", "speed", number(0.25), 10);
    told(m, "fan", "rpm", number(9), 11);
    told(m, "fan", "speed", number(NAN), 12);
    assert_true(kp_machine_fan(m, 0)->known && kp_machine_fan(m, 0)->speed == 0.25 && kp_machine_fan(m, 0)->changed_ms == 10);
    told(m, "extruder", "temperature", number(200), 10);
    told(m, "extruder", "target", number(210), 11);
    told(m, "extruder", "power", number(1), 12);
    assert_true(kp_machine_heater(m, 0)->known && kp_machine_heater(m, 0)->temperature_c == 200 && kp_machine_heater(m, 0)->target_c == 210);
    assert_true(kp_machine_sensor(m, 0)->value == 200); /* a sensor, too */
    kp_machine_klippy(m, KP_KLIPPY_READY, "");
    kp_machine_reset(m);
    assert_true(!kp_machine_fan(m, 0)->known && !kp_machine_heater(m, 0)->known);
    feed(m, plain_rows, COUNT(plain_rows), plain_objects, COUNT(plain_objects));
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    assert_true(kp_machine_fan(m, 0)->speed == 0.25 && kp_machine_heater(m, 0)->temperature_c == 200 && !kp_machine_heater(m, 0)->known);
    kp_machine_free(m);
}

static void test_watched(void **state)
{
    static const char *const want[] = { "fan", "fan_generic blower", "heater_fan hotend", "temperature_fan Chamber", "extruder", "heater_bed",
                                        "load_cell scale",
                                        "servo Gripper", "pwm_cycle_time beep", "pnp_sensor vac" };
    struct kp_machine *m = make("[sensor v]\nobject: pnp_sensor vac\n", true);
    const char *name;
    (void)state;
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    for (size_t i = 0; i < COUNT(want); i++) {
        size_t seen = 0;
        for (size_t j = 0; (name = kp_machine_watch(m, j)); j++)
            seen += strcmp(name, want[i]) == 0;
        assert_int_equal(seen, 1);
    }
    kp_machine_free(m);
}

static void test_sensors(void **state)
{
    static const char cfg[] = "[sensor vac]\nobject: pnp_sensor vac\ntype: vacuum\nscale: 2\noffset: 1\nm105: V1\n"
                              "[sensor flow]\nobject: controller_fan board\nfield: rpm\ntype: pressure\nunit: bar\n"
                              "[sensor weight]\nobject: load_cell scale\ntype: load\n";
    static const struct { const char *name, *object, *field, *type, *unit, *m105; } rows[] = {
        { "vac", "pnp_sensor vac", "value", "vacuum", "kPa", "V1" }, { "flow", "controller_fan board", "rpm", "pressure", "bar", "" },
        { "weight", "load_cell scale", "force_g", "load", "g", "" }, { "load_cell", "load_cell", "force_g", "load", "g", "" },
        { "blower", "temperature_sensor blower", "temperature", "temperature", "C", "" }, { "extruder1", "extruder1", "temperature", "temperature", "C", "" },
        { "Chamber", "temperature_fan Chamber", "temperature", "temperature", "C", "" },
    };
    struct kp_machine *m = make(cfg, true);
    struct kp_error e;
    int i = -1;
    (void)state;
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    for (size_t k = 0; k < COUNT(rows); k++) {
        assert_int_equal(kp_machine_find_sensor(m, kp_str_of(rows[k].name), &i, &e), KP_OK);
        const struct kp_sensor *s = kp_machine_sensor(m, (size_t)i);
        assert_string_equal(s->object, rows[k].object);
        assert_string_equal(s->field, rows[k].field);
        assert_string_equal(s->type, rows[k].type);
        assert_string_equal(s->unit, rows[k].unit);
        assert_string_equal(s->m105, rows[k].m105);
        told(m, rows[k].object, rows[k].field, number(10), 3);
        assert_true(s->known && s->value == (k == 0 ? 21 : 10));
        assert_int_equal(s->configured, k < 3);
    }
    assert_int_equal(kp_machine_find_sensor(m, kp_str_of("twin"), &i, &e), KP_INVALID_PARAMETER);
    assert_string_equal(e.message, "\"twin\" may be temperature_sensor twin or heater_generic twin; say which");
    assert_int_equal(kp_machine_find_sensor(m, kp_str_of("heater_generic twin"), &i, &e), KP_OK);
    assert_int_equal(kp_machine_find_sensor(m, kp_str_of("scale"), &i, &e), KP_SENSOR_NOT_FOUND); /* it has a name of its own now */
    kp_machine_free(m);
}

/* What a pnp_sensor says of itself: with a fault its value is none for a check, and still what was told last. Klipper tells only what changes. */
static void test_sensor_faults(void **state)
{
    static const char cfg[] = "[sensor vac]\nobject: pnp_sensor vac\n[sensor raw]\nobject: pnp_sensor vac\nfield: raw\n"
                              "[sensor flow]\nobject: controller_fan board\nfield: rpm\n";
    static const struct kp_value none = { .kind = KP_NULL };
    struct kp_machine *m = make(cfg, true);
    (void)state;
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    const struct kp_sensor *vac = kp_machine_sensor(m, 0), *raw = kp_machine_sensor(m, 1), *flow = kp_machine_sensor(m, 2);
    told(m, "pnp_sensor vac", "value", none, 1);
    told(m, "pnp_sensor vac", "fault", text("no sample"), 1);
    assert_true(!vac->known && vac->changed_ms == INT64_MIN);
    told(m, "pnp_sensor vac", "fault", none, 2);
    assert_false(vac->known); /* still nothing told */
    told(m, "pnp_sensor vac", "value", number(-70), 3);
    told(m, "pnp_sensor vac", "raw", number(0.7), 3);
    told(m, "controller_fan board", "rpm", number(10), 3);
    assert_true(vac->known && raw->known && flow->known);
    told(m, "pnp_sensor vac", "fault", text("5.00 V is out of range"), 4);
    told(m, "controller_fan board", "fault", text("not a word of ours"), 4);
    assert_true(!vac->known && !raw->known && flow->known);
    assert_string_equal(vac->fault, "5.00 V is out of range");
    told(m, "pnp_sensor vac", "value", number(-101.25), 5);
    assert_true(!vac->known && vac->value == -101.25 && vac->changed_ms == 5);
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    assert_true(!vac->known && vac->told);
    told(m, "pnp_sensor vac", "fault", none, 6);
    assert_true(vac->known && raw->known && vac->value == -101.25);
    told(m, "pnp_sensor vac", "fault", text("no sample"), 7);
    kp_machine_reset(m);
    feed(m, rich_rows, COUNT(rich_rows), rich_objects, COUNT(rich_objects));
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    vac = kp_machine_sensor(m, 0);
    assert_true(!vac->known && !vac->fault[0]);
    told(m, "pnp_sensor vac", "value", number(-1), 8);
    assert_true(vac->known);
    kp_machine_free(m);
}

static void test_motors(void **state)
{
    struct kp_machine *m = make("", true);
    int i = -1;
    (void)state;
    kp_machine_resolve(m, NULL);
    assert_int_equal(kp_machine_find_motor(m, kp_str_of("feed1"), &i, NULL), KP_OK);
    assert_string_equal(kp_machine_motor(m, (size_t)i)->name, "manual_stepper feed1");
    told(m, "stepper_enable", "steppers.manual_stepper Feed1", truth(true), 1); /* the spelling that scripts need */
    assert_string_equal(kp_machine_motor(m, (size_t)i)->name, "manual_stepper Feed1");
    assert_true(kp_machine_motor(m, (size_t)i)->known && kp_machine_motor(m, (size_t)i)->on);
    assert_int_equal(kp_machine_find_motor(m, kp_str_of("stepper_z1"), &i, NULL), KP_OK);
    assert_int_equal(kp_machine_find_motor(m, kp_str_of("side"), &i, NULL), KP_OK);
    assert_int_equal(kp_machine_find_motor(m, kp_str_of("stepper_q"), &i, NULL), KP_INVALID_PARAMETER);
    told(m, "stepper_enable", "steppers.stepper_new", truth(false), 1);
    assert_int_equal(kp_machine_find_motor(m, kp_str_of("stepper_new"), &i, NULL), KP_OK);
    for (int k = 0; k < KP_MOTORS_MAX; k++) {
        char name[64];
        snprintf(name, sizeof name, "steppers.m%d", k);
        told(m, "stepper_enable", name, truth(true), 1);
    }
    assert_null(kp_machine_motor(m, KP_MOTORS_MAX));
    kp_machine_resolve(m, NULL);
    assert_non_null(kp_machine_motor(m, KP_MOTORS_MAX - 1));
    kp_machine_free(m);
}

static void test_feeders(void **state)
{
    static const char cfg[] = "[feeder a]\nstepper: manual_stepper feed1\npitch: 4\npick_x: 1\npick_y: 2\npick_height: 3\npick_rotation: 90\npart: 10k\n"
                              "[feeder b]\nstepper: extruder1\n[feeder c]\nmacro: feed_left\nfeedrate: 50\n[feeder d]\nstepper: extruder_stepper side\n"
                              "[feeder e]\nstepper: extruder7\n[feeder f]\nmacro: FEED_RIGHT\n[feeder g]\nstepper: extruders\n";
    static const struct { enum kp_feeder_kind kind; const char *stepper, *macro, *fault; } rows[] = {
        { KP_FEEDER_STEPPER, "feed1", "", "" }, { KP_FEEDER_EXTRUDER, "extruder1", "", "" }, { KP_FEEDER_MACRO, "", "FEED_LEFT", "" },
        { KP_FEEDER_EXTRUDER, "side", "", "" }, { KP_FEEDER_EXTRUDER, "", "", "[feeder e] stepper: Klipper has no such extruder" },
        { KP_FEEDER_MACRO, "", "FEED_RIGHT", "[feeder f] macro: Klipper has no such macro" },
        { KP_FEEDER_EXTRUDER, "", "", "[feeder g] stepper: Klipper has no such extruder" },
    };
    struct kp_machine *m = make(cfg, true);
    struct kp_faults f = { .count = 0 };
    (void)state;
    assert_int_equal(kp_machine_resolve(m, &f), KP_INVALID_PARAMETER);
    assert_int_equal(f.count, 3);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct kp_feeder *feeder = kp_machine_feeder(m, i);
        assert_int_equal(feeder->kind, rows[i].kind);
        assert_string_equal(feeder->stepper, rows[i].stepper);
        assert_string_equal(feeder->macro, rows[i].macro);
        assert_string_equal(feeder->fault, rows[i].fault);
    }
    const struct kp_feeder *a = kp_machine_feeder(m, 0);
    assert_true(a->accel_mm_s2 == 400 && a->pitch_mm == 4 && a->pick[0] == 1 && a->pick[1] == 2 && a->pick[2] == 3 && a->pick_rotation == 90);
    assert_string_equal(a->part, "10k");
    assert_true(isnan(kp_machine_feeder(m, 1)->pitch_mm) && isnan(kp_machine_feeder(m, 1)->pick[0]));
    kp_machine_free(m);
}

static void test_mcodes(void **state)
{
    static const char cfg[] = "[mcode M800]\npin: led\n[mcode M801]\npin: led\nset: off\ndone: planned\n[mcode M802]\npin: soft\nset: value\n"
                              "[mcode M803]\npin: tape\n[mcode M804]\npin: !PE8\n[mcode M805]\npin:\n[pin in]\nobject: filament_motion_sensor tape\nm42: 1\n";
    struct kp_machine *m = make(cfg, true);
    struct kp_faults f = { .count = 0 };
    (void)state;
    assert_int_equal(kp_machine_resolve(m, &f), KP_INVALID_PARAMETER);
    assert_string_equal(f.item[0].message, "[pin in] m42: not an output pin");
    assert_string_equal(kp_machine_mcode(m, 3)->fault, "[mcode M803] pin: not an output pin");
    assert_string_equal(kp_machine_mcode(m, 4)->fault, "[mcode M804] pin: cannot invert here; write ! in Klipper's configuration");
    assert_string_equal(kp_machine_mcode(m, 5)->fault, "[mcode M805] pin: Klipper has no pin \"\"");
    assert_int_equal(f.count, 4);
    static const enum kp_mcode_set sets[] = { KP_MCODE_ON, KP_MCODE_OFF, KP_MCODE_VALUE };
    for (size_t i = 0; i < 3; i++) {
        const struct kp_mcode *code = kp_machine_mcode(m, i);
        assert_true(code->number == 800 + (int)i && code->set == sets[i] && code->acted == (i != 1) && !code->fault[0]);
        assert_int_equal(code->pin, pin_at(m, i == 2 ? "soft" : "led"));
        assert_int_equal(kp_machine_find_mcode(m, 800 + (int)i), i);
    }
    assert_int_equal(kp_machine_find_mcode(m, 5), -1);
    assert_int_equal(kp_machine_find_m42(m, 1), -1);
    assert_null(kp_machine_mcode(m, 6));
    kp_machine_free(m);
}

static void test_vacuum(void **state)
{
    static const struct { const char *cfg; enum kp_vacuum_kind kind; const char *name, *fault; } rows[] = {
        { "", KP_VACUUM_FAN, "fan", NULL },
        { "[vacuum]\noutput: blower\n", KP_VACUUM_FAN, "fan_generic blower", NULL },
        { "[vacuum]\noutput: led\n", KP_VACUUM_PIN, "led", NULL },
        { "[vacuum]\noutput: soft\n[nozzle N1]\npump: led\n", KP_VACUUM_PIN, "soft", NULL },
        { "[nozzle N1]\npump: led\n", KP_VACUUM_NONE, NULL, NULL },
        { "[vacuum]\noutput: hotend\n", KP_VACUUM_NONE, NULL, "[vacuum] output: this fan is Klipper's own to switch" },
        { "[vacuum]\noutput: tape\n", KP_VACUUM_NONE, NULL, "[vacuum] output: not an output pin" },
        { "[vacuum]\noutput: nothing\n", KP_VACUUM_NONE, NULL, "[vacuum] output: Klipper has no pin \"nothing\"" },
    };
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct kp_machine *m = make(rows[i].cfg, true);
        struct kp_faults f = { .count = 0 };
        int index = -1;
        kp_machine_resolve(m, &f);
        struct kp_vacuum v = kp_machine_vacuum(m);
        assert_int_equal(v.kind, rows[i].kind);
        assert_int_equal(f.count, rows[i].fault ? 1 : 0);
        if (rows[i].fault)
            assert_string_equal(f.item[0].message, rows[i].fault);
        if (v.kind == KP_VACUUM_FAN)
            kp_machine_find_fan(m, kp_str_of(rows[i].name), &index, NULL);
        if (v.kind == KP_VACUUM_PIN)
            index = pin_at(m, rows[i].name);
        assert_int_equal(v.index, index);
        kp_machine_free(m);
    }
    struct kp_machine *m = make("", false); /* nothing of Klipper yet: no vacuum */
    assert_int_equal(kp_machine_vacuum(m).kind, KP_VACUUM_NONE);
    kp_machine_free(m);
}

/* More fans and heaters than are kept. */
static void test_many(void **state)
{
    struct kp_machine *m = make("", false);
    char name[64];
    (void)state;
    for (int i = 0; i < 70; i++) {
        snprintf(name, sizeof name, "%s x%d", i % 2 ? "heater_generic" : "fan_generic", i / 2);
        kp_machine_object(m, kp_str_of(name));
    }
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    assert_true(kp_machine_fan(m, KP_FANS_MAX - 1) && !kp_machine_fan(m, KP_FANS_MAX));
    assert_true(kp_machine_heater(m, KP_HEATERS_MAX - 1) && !kp_machine_heater(m, KP_HEATERS_MAX));
    kp_machine_free(m);
}

/* Each allocation of feeding and resolving fails once: the machine says so, and works again when it is read again. */
static void test_no_memory(void **state)
{
    (void)state;
    for (size_t nth = 1; nth < 100; nth++) {
        struct kp_machine *m = make("[pin p]\nobject: output_pin led\n", false);
        struct kp_faults f = { .count = 0 };
        kp_machine_reset(m);
        alloc_fail_at(nth);
        feed(m, plain_rows, COUNT(plain_rows), plain_objects, COUNT(plain_objects));
        feed(m, rich_rows, COUNT(rich_rows), rich_objects, COUNT(rich_objects));
        for (int i = 0; i < 70; i++)
            kp_machine_command(m, kp_str_of("M1"));
        enum kp_err rc = kp_machine_resolve(m, &f);
        bool reached = alloc_count >= nth;
        alloc_fail_at(0);
        assert_int_equal(rc, reached ? KP_INTERNAL_ERROR : KP_OK);
        kp_machine_reset(m);
        feed(m, plain_rows, COUNT(plain_rows), plain_objects, COUNT(plain_objects));
        feed(m, rich_rows, COUNT(rich_rows), rich_objects, COUNT(rich_objects));
        assert_int_equal(kp_machine_resolve(m, &f), KP_OK);
        assert_string_equal(pin(m, "p")->board, "PE8");
        kp_machine_free(m);
        if (!reached) {
            assert_in_range(nth, 4, 99);
            return;
        }
    }
    fail_msg("too many allocations");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain), cmocka_unit_test(test_outputs), cmocka_unit_test(test_aliases), cmocka_unit_test(test_fans_heaters),
        cmocka_unit_test(test_watched), cmocka_unit_test(test_sensors), cmocka_unit_test(test_sensor_faults), cmocka_unit_test(test_motors), cmocka_unit_test(test_feeders),
        cmocka_unit_test(test_mcodes), cmocka_unit_test(test_vacuum), cmocka_unit_test(test_many), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("parts", tests, NULL, NULL);
}
