/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The model: parts made from Klipper's configuration, names, status, homing, limits, pins under way, what a reset keeps. */
#include "machine_fixture.h"

static const struct kp_pin *pin_named(const struct kp_machine *m, const char *name)
{
    int i = -1;
    bool inverted;
    struct kp_error e;
    assert_int_equal(kp_machine_find_pin(m, kp_str_of(name), &i, &inverted, &e), KP_OK);
    return kp_machine_pin(m, (size_t)i);
}

static void test_pins(void **state)
{
    static const struct { const char *name, *object, *shortname, *board, *chip; bool inverted; enum kp_pin_kind kind; double scale; } rows[] = {
        { "valve1", NULL, NULL, NULL, NULL, false, 0, 0 },
        { "output_pin Valve1", "output_pin Valve1", "Valve1", "PB3", "mcu", false, KP_PIN_OUTPUT, 1 },
        { "output_pin valve2", "output_pin valve2", "valve2", "PB3", "mcu2", true, KP_PIN_OUTPUT, 1 },
        { "pump1", "output_pin pump1", "pump1", "PB4", "mcu", false, KP_PIN_PWM, 255 },
        { "light", "pwm_tool laser", "laser", "PB7", "mcu2", false, KP_PIN_PWM, 1 },
        { "gcode_button both", "gcode_button both", "both", "PC5", "mcu", true, KP_PIN_BUTTON, 1 },
        { "tape", "filament_switch_sensor tape", "tape", "PC6", "mcu", false, KP_PIN_SWITCH, 1 },
        { "endstop_x", "x", "endstop_x", "PC0", "mcu", false, KP_PIN_ENDSTOP, 1 },
        { "stepper_y", "y", "endstop_y", "PC1", "mcu", false, KP_PIN_ENDSTOP, 1 },
    };
    struct kp_machine *m = machine_ready(0);
    (void)state;
    for (size_t i = 1; i < sizeof rows / sizeof *rows; i++) {
        const struct kp_pin *p = pin_named(m, rows[i].name);
        assert_string_equal(p->object, rows[i].object);
        assert_string_equal(p->name, rows[i].shortname);
        assert_string_equal(p->board, rows[i].board);
        assert_string_equal(p->chip, rows[i].chip);
        assert_int_equal(p->inverted, rows[i].inverted);
        assert_int_equal(p->kind, rows[i].kind);
        assert_true(p->scale == rows[i].scale);
    }
    assert_string_equal(pin_named(m, "light")->alias, "light");
    assert_ptr_equal(pin_named(m, "PB4"), pin_named(m, "pump1"));
    assert_ptr_equal(pin_named(m, "mcu2:PB3"), pin_named(m, "valve2"));
    kp_machine_free(m);
    kp_machine_free(NULL);
}

static void test_find_pin(void **state)
{
    static const struct { const char *name; enum kp_err code; bool inverted; const char *message; } rows[] = {
        { "!PB3", KP_OK, true, NULL }, { "mcu:PB3", KP_OK, false, NULL }, { "!mcu2:PB3", KP_OK, true, NULL },
        { "both", KP_INVALID_PARAMETER, false, "\"both\" may be output_pin both or gcode_button both; say which" },
        { "PC0", KP_INVALID_PARAMETER, false, "\"PC0\" may be endstop_x or gcode_button door; say which" },
        { "valve1", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"valve1\"" },
        { "!pump1", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"!pump1\"" },
        { "PB7", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"PB7\"" },
        { "mcu3:PB3", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"mcu3:PB3\"" },
        { "", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"\"" },
        { "!", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"!\"" },
        { "x", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"x\"" },
        { "pump1\nM112", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"pump1?M112\"" },
        { "../../x", KP_PIN_NOT_FOUND, false, "Klipper has no pin \"../../x\"" },
    };
    struct kp_machine *m = machine_ready(0);
    struct kp_error e;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int index = -7;
        bool inverted = false;
        assert_int_equal(kp_machine_find_pin(m, kp_str_of(rows[i].name), &index, &inverted, &e), rows[i].code);
        assert_int_equal(inverted, rows[i].inverted);
        if (rows[i].code == KP_OK)
            continue;
        assert_int_equal(index, -7);
        assert_string_equal(e.message, rows[i].message);
        assert_string_equal(e.field, "pin");
    }
    char endless[5000];
    int index;
    memset(endless, 'P', sizeof endless);
    assert_int_equal(kp_machine_find_pin(m, (struct kp_str){ endless, sizeof endless }, &index, NULL, NULL), KP_PIN_NOT_FOUND);
    kp_machine_free(m);
}

static void test_parts(void **state)
{
    struct kp_machine *m = machine_ready(0);
    int i;
    struct kp_error e;
    (void)state;
    const struct kp_nozzle *n = kp_machine_nozzle(m, 0);
    assert_string_equal(n->name, "N1");
    assert_string_equal(n->fault, "");
    assert_string_equal(kp_machine_pin(m, (size_t)n->pump)->name, "pump1");
    assert_string_equal(kp_machine_pin(m, (size_t)n->valve)->name, "Valve1");
    assert_string_equal(kp_machine_sensor(m, (size_t)n->sensor)->name, "vac1");
    assert_int_equal(n->blow_off, -1);
    assert_int_equal(n->z_axis, 2);
    assert_int_equal(n->rotation_axis, 3);
    assert_true(n->z_direction == 1 && n->safe_z == 2 && n->part_on == -40 && isnan(n->pick_height) && n->dwell_s == 0.1);
    assert_true(kp_machine_nozzle(m, 1)->z_direction == -1 && kp_machine_nozzle(m, 1)->pump == -1);
    assert_null(kp_machine_nozzle(m, 2));
    const struct kp_axis *a = kp_machine_axis(m, 3);
    assert_true(a->letter == 'A' && a->extra && a->rotary && a->velocity == 720 && a->acceleration == 5000);
    assert_true(isinf(a->min) && isinf(a->max));
    assert_string_equal(a->stepper, "rotation1");
    assert_int_equal(kp_machine_find_axis(m, 'a'), 3);
    assert_int_equal(kp_machine_find_axis(m, 'y'), 1);
    assert_int_equal(kp_machine_find_axis(m, 'B'), -1);
    const struct kp_feeder *feeder = kp_machine_feeder(m, 0);
    assert_string_equal(feeder->stepper, "feeder1");
    assert_true(feeder->feedrate_mm_min == 600 && feeder->accel_mm_s2 == 500);
    assert_int_equal(kp_machine_find_nozzle(m, kp_str_of("N2"), &i, &e), KP_OK);
    assert_int_equal(i, 1);
    assert_int_equal(kp_machine_find_nozzle(m, kp_str_of("N3"), &i, &e), KP_NOZZLE_NOT_FOUND);
    assert_int_equal(kp_machine_find_feeder(m, kp_str_of("f"), &i, &e), KP_FEEDER_NOT_FOUND);
    assert_int_equal(kp_machine_find_sensor(m, kp_str_of("board"), &i, &e), KP_OK);
    assert_string_equal(kp_machine_sensor(m, (size_t)i)->unit, "C");
    assert_int_equal(kp_machine_find_sensor(m, kp_str_of("temperature_sensor Vacuum1"), &i, &e), KP_OK);
    assert_string_equal(kp_machine_sensor(m, (size_t)i)->unit, "kPa");
    assert_int_equal(kp_machine_find_sensor(m, kp_str_of("Vacuum1"), &i, &e), KP_SENSOR_NOT_FOUND);
    assert_null(kp_machine_sensor(m, 2));
    assert_true(kp_machine_has_section(m, "safe_z_home") && !kp_machine_has_section(m, "homing_override"));
    assert_true(kp_machine_has_command(m, kp_str_of("G28")) && !kp_machine_has_command(m, kp_str_of("M106")));
    kp_machine_free(m);
}

static void test_watch(void **state)
{
    struct kp_machine *m = machine_ready(0);
    static const char *const want[] = { "toolhead", "webhooks", "query_endstops", "output_pin Valve1", "temperature_sensor Vacuum1", "gcode_button door" };
    static const char *const wrong[] = { "virtual_sdcard", "x", "mcu", "manual_stepper rotation1" };
    const char *name;
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want + sizeof wrong / sizeof *wrong; i++) {
        bool wanted = i < sizeof want / sizeof *want;
        size_t seen = 0;
        for (size_t j = 0; (name = kp_machine_watch(m, j)); j++)
            seen += strcmp(name, wanted ? want[i] : wrong[i - sizeof want / sizeof *want]) == 0;
        assert_int_equal(seen, wanted);
    }
    kp_machine_free(m);
}

/* What the file names and Klipper lacks is at fault alone, with words for it. */
static void test_faulty_parts(void **state)
{
    static const char cfg[] =
        "[nozzle N1]\npump: pump9\nvalve: gcode_button door\nsensor: none\nrotation_axis: C\n[nozzle N2]\nvalve: valve2\n"
        "[axis B]\nstepper: nothing\n[axis U]\nstepper: bad name\n[feeder f]\nstepper: manual_stepper f\n[sensor s]\n[pin p]\nobject: output_pin q\n"
        "[pin r]\npin: !PB4\n[safety]\nmax_y_position: -5\n[nozzle N3]\nblow_off: both\n[nozzle N4]\nsensor: board\n";
    static const struct { enum kp_err code; const char *field, *message; } want[] = {
        { KP_PIN_NOT_FOUND, "pin p", "[pin p] Klipper has no pin \"output_pin q\"" },
        { KP_INVALID_PARAMETER, "pin r", "[pin r] an alias cannot invert; write ! in Klipper's configuration" },
        { KP_INVALID_PARAMETER, "axis B", "[axis B] stepper: Klipper has no such manual_stepper" },
        { KP_INVALID_PARAMETER, "axis U", "[axis U] stepper: not a name that a script can write" },
        { KP_SENSOR_NOT_FOUND, "sensor s", "[sensor s] object: Klipper has no such object" },
        { KP_INVALID_PARAMETER, "nozzle N1", "[nozzle N1] rotation_axis: there is no such [axis]" },
        { KP_PIN_NOT_FOUND, "nozzle N1", "[nozzle N1] pump: Klipper has no pin \"pump9\"" },
        { KP_INVALID_PARAMETER, "nozzle N1", "[nozzle N1] valve: not an output pin" },
        { KP_SENSOR_NOT_FOUND, "nozzle N1", "[nozzle N1] sensor: there is no sensor \"none\"" },
        { KP_INVALID_PARAMETER, "nozzle N1", "[nozzle N1] part_on: a sensor needs part_on and part_off" },
        { KP_INVALID_PARAMETER, "nozzle N3", "[nozzle N3] blow_off: \"both\" may be output_pin both or gcode_button both; say which" },
        { KP_INVALID_PARAMETER, "nozzle N4", "[nozzle N4] part_on: a sensor needs part_on and part_off" },
        { KP_INVALID_PARAMETER, "feeder f", "[feeder f] stepper: Klipper has no such manual_stepper" },
        { KP_INVALID_PARAMETER, "safety", "[safety] the position limits leave no room within Klipper's own" },
    };
    struct kp_machine *m = machine_make(cfg);
    struct kp_faults f = { .count = 0 };
    (void)state;
    assert_int_equal(kp_machine_resolve(m, &f), KP_PIN_NOT_FOUND);
    for (size_t i = 0; i < f.count && i < sizeof want / sizeof *want; i++) {
        assert_string_equal(f.item[i].message, want[i].message);
        assert_string_equal(f.item[i].field, want[i].field);
        assert_int_equal(f.item[i].code, want[i].code);
    }
    assert_int_equal(f.count, sizeof want / sizeof *want);
    assert_string_equal(kp_machine_nozzle(m, 0)->fault, want[5].message);
    assert_string_equal(kp_machine_nozzle(m, 1)->fault, "");
    assert_true(kp_machine_nozzle(m, 0)->pump == -1 && kp_machine_nozzle(m, 0)->rotation_axis == -1);
    assert_null(kp_machine_axis(m, 3));
    kp_machine_free(m);
}

static void test_homed(void **state)
{
    struct kp_machine *m = machine_ready(0);
    (void)state;
    assert_true(kp_machine_axis(m, 0)->homed && kp_machine_axis(m, 1)->homed && kp_machine_axis(m, 2)->homed);
    told(m, "stepper_enable", "steppers.stepper_y", truth(false), 1);
    assert_true(kp_machine_axis(m, 0)->homed && !kp_machine_axis(m, 1)->homed && kp_machine_axis(m, 2)->homed);
    told(m, "stepper_enable", "steppers.stepper_y", truth(true), 2);
    assert_true(kp_machine_axis(m, 1)->homed);
    told(m, "stepper_enable", "steppers.stepper_z1", truth(false), 3);
    assert_false(kp_machine_axis(m, 2)->homed);
    told(m, "toolhead", "homed_axes", text("y"), 4);
    assert_true(!kp_machine_axis(m, 0)->homed && kp_machine_axis(m, 1)->homed);

    /* An extra axis is homed by us while its motor is still off; only a motor that goes off unhomes it. */
    kp_machine_axis_written(m, 3, 0, true);
    told(m, "stepper_enable", "steppers.manual_stepper rotation1", truth(false), 5);
    assert_true(kp_machine_axis(m, 3)->homed && kp_machine_axis(m, 3)->tracked);
    told(m, "stepper_enable", "steppers.manual_stepper rotation1", truth(true), 6);
    kp_machine_axis_written(m, 3, 90, true);
    told(m, "stepper_enable", "steppers.manual_stepper rotation1", truth(false), 7);
    assert_true(!kp_machine_axis(m, 3)->homed && kp_machine_axis(m, 3)->tracked && kp_machine_axis(m, 3)->position == 90);
    kp_machine_axis_written(m, 0, 5, true);
    kp_machine_axis_written(m, 99, 5, true);
    kp_machine_axis_written(m, -1, 5, true);
    assert_false(kp_machine_axis(m, 0)->homed);
    kp_machine_free(m);
}

static void test_corexy(void **state)
{
    struct kp_machine *m = machine_make("");
    struct kp_value kinematics = text("corexy");
    (void)state;
    kp_machine_reset(m);
    kp_machine_setting(m, kp_str_of("printer"), kp_str_of("kinematics"), &kinematics);
    kp_machine_resolve(m, NULL);
    told(m, "toolhead", "homed_axes", text("xyz"), 0);
    assert_true(kp_machine_axis(m, 0)->homed);
    told(m, "stepper_enable", "steppers.stepper_y", truth(false), 0);
    assert_true(!kp_machine_axis(m, 0)->homed && !kp_machine_axis(m, 1)->homed && kp_machine_axis(m, 2)->homed);
    kp_machine_free(m);
}

static void test_limits(void **state)
{
    static const double low[3] = { -5, 0, -60 }, high[3] = { 280, 190, 60 };
    struct kp_machine *m = machine_make(NULL);
    const struct kp_limits *l = kp_machine_limits(m);
    (void)state;
    assert_true(isinf(kp_machine_axis(m, 1)->max) && kp_machine_axis(m, 0)->max == 250);
    kp_machine_resolve(m, NULL);
    assert_true(kp_machine_axis(m, 0)->min == 0 && kp_machine_axis(m, 0)->max == 250);
    assert_true(kp_machine_axis(m, 1)->max == 200 && kp_machine_axis(m, 2)->min == -50);
    assert_true(l->max_velocity_mm_s == 200 && l->max_accel_mm_s2 == 3000 && l->max_feedrate_mm_min == 12000 && l->min_feedrate_mm_min == 1);
    assert_true(l->travel_interlock && l->vacuum_retries == 2);
    told(m, "toolhead", "axis_minimum", numbers(low, 3), 0);
    told(m, "toolhead", "axis_maximum", numbers(high, 3), 0);
    told(m, "toolhead", "max_velocity", number(50), 0);
    assert_true(kp_machine_axis(m, 0)->min == -5 && kp_machine_axis(m, 0)->max == 250 && kp_machine_axis(m, 1)->max == 190);
    assert_true(l->max_velocity_mm_s == 50 && l->max_feedrate_mm_min == 3000);
    kp_machine_free(m);
}

static void test_positions(void **state)
{
    static const double gcode[4] = { 1, 2, 3, 4 }, broken[3] = { 1, NAN, 3 };
    struct kp_machine *m = machine_make(NULL);
    double xyz[3] = { 7, 7, 7 }, feedrate = 0;
    bool absolute = false;
    (void)state;
    kp_machine_resolve(m, NULL);
    assert_false(kp_machine_position(m, xyz) || kp_machine_commanded(m, xyz) || kp_machine_gcode_state(m, &absolute, &feedrate));
    told(m, "motion_report", "live_position", numbers(broken, 3), 0);
    told(m, "motion_report", "live_position", numbers(gcode, 2), 0);
    told(m, "motion_report", "live_position", text("1,2,3"), 0);
    assert_false(kp_machine_position(m, xyz));
    told(m, "toolhead", "position", numbers((double[]){ 5, 6, 7, 8 }, 4), 0);
    assert_true(kp_machine_commanded(m, xyz) && xyz[0] == 5);
    told(m, "gcode_move", "position", numbers(gcode, 4), 0);
    assert_true(kp_machine_commanded(m, xyz) && xyz[0] == 1 && xyz[2] == 3);
    told(m, "gcode_move", "absolute_coordinates", truth(true), 0);
    told(m, "gcode_move", "speed", number(1500), 0);
    assert_true(kp_machine_gcode_state(m, &absolute, &feedrate) && absolute && feedrate == 1500);
    assert_false(kp_machine_printing(m));
    told(m, "print_stats", "state", text("printing"), 0);
    assert_true(kp_machine_printing(m));
    told(m, "print_stats", "state", text("paused"), 0);
    assert_false(kp_machine_printing(m));
    told(m, "virtual_sdcard", "is_active", truth(true), 0);
    assert_true(kp_machine_printing(m));
    kp_machine_free(m);
}

/* Where our script ends holds until the next push, also one that has nothing to tell of it. */
static void test_left(void **state)
{
    struct kp_machine *m = machine_ready(100);
    double xyz[3];
    (void)state;
    told(m, "gcode_move", "position", numbers((double[]){ 60, 50, 0, 0 }, 4), 100);
    kp_machine_pushed(m, 100);
    kp_machine_moved(m, (double[]){ 61, 50, 0 }, 200);
    assert_true(kp_machine_left(m) && kp_machine_commanded(m, xyz) && xyz[0] == 61);
    kp_machine_pushed(m, 200); /* it may have been on its way before */
    assert_true(kp_machine_left(m));
    kp_machine_pushed(m, 250); /* the head is back where it was: nothing has changed */
    assert_true(!kp_machine_left(m) && kp_machine_commanded(m, xyz) && xyz[0] == 60);
    kp_machine_moved(m, (double[]){ 70, 50, 0 }, 300);
    kp_machine_moved(m, NULL, 300);
    assert_true(!kp_machine_left(m) && kp_machine_commanded(m, xyz) && xyz[0] == 60);
    kp_machine_moved(m, (double[]){ 70, 50, 0 }, 320);
    kp_machine_asked(m, 320);
    assert_true(kp_machine_left(m)); /* asked before the script was answered */
    kp_machine_asked(m, 321);
    assert_true(!kp_machine_left(m) && kp_machine_commanded(m, xyz) && xyz[0] == 60);
    kp_machine_moved(m, (double[]){ 70, 50, 0 }, 400);
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "");
    assert_false(kp_machine_left(m));
    kp_machine_free(m);
}

static void test_values(void **state)
{
    struct kp_machine *m = machine_ready(100);
    (void)state;
    assert_true(pin_named(m, "Valve1")->known && pin_named(m, "Valve1")->changed_ms == 100);
    assert_true(!pin_named(m, "valve2")->known && pin_named(m, "valve2")->changed_ms == INT64_MIN);
    told(m, "gcode_button door", "state", text("PRESSED"), 200);
    told(m, "filament_switch_sensor tape", "filament_detected", truth(true), 200);
    told(m, "filament_switch_sensor tape", "enabled", truth(false), 200);
    told(m, "query_endstops", "last_query.x", number(1), 200);
    told(m, "output_pin pump1", "value", number(0.5), 200);
    told(m, "output_pin pump1", "value", number(NAN), 300);
    told(m, "temperature_sensor Vacuum1", "temperature", number(100), 200);
    told(m, "temperature_sensor Vacuum1", "measured_max_temp", number(999), 300);
    told(m, "unknown thing", "value", number(1), 200);
    told(m, "x", "value", number(0), 200);
    assert_true(pin_named(m, "door")->value == 1 && pin_named(m, "tape")->value == 1 && pin_named(m, "endstop_x")->value == 1);
    assert_true(pin_named(m, "pump1")->value == 0.5 && pin_named(m, "pump1")->changed_ms == 200);
    assert_true(kp_machine_sensor(m, 0)->value == -40 && kp_machine_sensor(m, 0)->known && kp_machine_sensor(m, 0)->changed_ms == 200);
    told(m, "gcode_button door", "state", text("RELEASED"), 300);
    assert_true(pin_named(m, "door")->value == 0);
    kp_machine_free(m);
}

static int pin_index(const struct kp_machine *m, const char *name)
{
    int i = -1;
    kp_machine_find_pin(m, kp_str_of(name), &i, NULL, NULL);
    return i;
}

static void test_dirty(void **state)
{
    struct kp_machine *m = machine_ready(0);
    const struct kp_pin *p = pin_named(m, "Valve1");
    int i = pin_index(m, "Valve1");
    (void)state;
    kp_machine_pin_written(m, i, 1, 1000);
    assert_true(p->dirty && p->expected == 1);
    kp_machine_pushed(m, 1100); /* behind motion: nothing has changed yet */
    assert_true(p->dirty && p->value == 0);
    told(m, "output_pin Valve1", "value", number(1), 1350);
    assert_true(p->dirty);
    kp_machine_pushed(m, 1350);
    assert_false(p->dirty);

    kp_machine_pin_written(m, i, 1, 2000); /* no change: any later push covers it, an earlier one does not */
    kp_machine_pushed(m, 1999);
    assert_true(p->dirty);
    kp_machine_pushed(m, 2000);
    assert_false(p->dirty);

    kp_machine_pin_written(m, i, 0, 3000); /* off and on again while the off is under way: the old 1 tells nothing */
    kp_machine_pin_written(m, i, 1, 3010);
    kp_machine_pushed(m, 3100);
    assert_true(p->dirty);
    told(m, "output_pin Valve1", "value", number(0), 3350);
    kp_machine_pushed(m, 3350);
    assert_true(p->dirty);
    told(m, "output_pin Valve1", "value", number(1), 3600);
    kp_machine_pushed(m, 3600);
    assert_false(p->dirty);

    kp_machine_pin_written(m, i, 0, 4000); /* somebody else wins: known once no motion is planned for a second */
    told(m, "toolhead", "print_time", number(10), 4250);
    told(m, "toolhead", "estimated_print_time", number(9.8), 4250);
    kp_machine_pushed(m, 5500);
    assert_true(p->dirty);
    told(m, "toolhead", "estimated_print_time", number(11.1), 5750);
    kp_machine_pushed(m, 5750);
    assert_true(!p->dirty && p->value == 1);

    int pump = pin_index(m, "pump1"); /* six decimals of 200/255 */
    kp_machine_pin_written(m, pump, 200.0 / 255, 6000);
    told(m, "output_pin pump1", "value", number(0.784314), 6250);
    kp_machine_pushed(m, 6250);
    assert_false(kp_machine_pin(m, (size_t)pump)->dirty);
    kp_machine_pin_written(m, -1, 1, 0);
    kp_machine_pin_written(m, 9999, 1, 0);
    kp_machine_free(m);
}

/* Klipper goes and comes back: values stay readable as stale, nothing is known, homed or fresh until told again. */
static void test_reset(void **state)
{
    struct kp_machine *m = machine_ready(100);
    double xyz[3];
    (void)state;
    assert_int_equal(kp_machine_pushed_ms(m), 100);
    told(m, "output_pin Valve1", "value", number(1), 200);
    kp_machine_pin_written(m, pin_index(m, "Valve1"), 0, 200);
    kp_machine_axis_written(m, 3, 45, true);
    kp_machine_klippy(m, KP_KLIPPY_GONE, NULL);
    const struct kp_pin *p = pin_named(m, "Valve1");
    assert_true(!p->known && !p->dirty && p->value == 1 && p->changed_ms == 200);
    assert_true(kp_machine_pushed_ms(m) == INT64_MIN);
    assert_false(kp_machine_axis(m, 0)->homed || kp_machine_axis(m, 3)->homed || kp_machine_axis(m, 3)->tracked);
    assert_true(kp_machine_position(m, xyz) && xyz[1] == 20);
    kp_machine_pushed(m, 300);
    assert_true(kp_machine_pushed_ms(m) == INT64_MIN);
    kp_machine_reset(m);
    assert_false(kp_machine_has_command(m, kp_str_of("G28")));
    assert_null(kp_machine_watch(m, 0));
    assert_true(pin_named(m, "Valve1")->value == 1);
    feed_klipper(m);
    assert_int_equal(kp_machine_resolve(m, NULL), KP_OK);
    p = pin_named(m, "Valve1");
    assert_true(!p->known && p->value == 1 && p->changed_ms == 200);
    told(m, "webhooks", "state", text("ready"), 400);
    told(m, "output_pin Valve1", "value", number(0), 400);
    kp_machine_pushed(m, 400);
    assert_true(p->known && p->value == 0 && kp_machine_pushed_ms(m) == 400);
    kp_machine_free(m);
}

static void test_klippy(void **state)
{
    struct kp_machine *m = machine_make(NULL);
    (void)state;
    assert_int_equal(kp_machine_klippy_state(m), KP_KLIPPY_GONE);
    assert_string_equal(kp_klippy_name(KP_KLIPPY_GONE), "disconnected");
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_ERROR, "mcu 'mcu': Unable to connect");
    assert_string_equal(kp_machine_klippy_message(m), "mcu 'mcu': Unable to connect");
    told(m, "webhooks", "state", text("startup"), 0);
    told(m, "webhooks", "state_message", text("Printer is not ready"), 0);
    assert_int_equal(kp_machine_klippy_state(m), KP_KLIPPY_STARTUP);
    told(m, "webhooks", "state", text("dancing"), 0);
    assert_int_equal(kp_machine_klippy_state(m), KP_KLIPPY_STARTUP);
    assert_string_equal(kp_klippy_name(kp_machine_klippy_state(m)), "startup");
    char endless[1000];
    memset(endless, 'x', sizeof endless);
    told(m, "webhooks", "state_message", (struct kp_value){ .kind = KP_STR, .str = { endless, sizeof endless } }, 0);
    assert_int_equal(strlen(kp_machine_klippy_message(m)), KP_TEXT_MAX - 1);
    kp_machine_moonraker(m, false);
    assert_true(!kp_machine_moonraker_connected(m) && kp_machine_klippy_state(m) == KP_KLIPPY_GONE);
    assert_string_equal(kp_machine_klippy_message(m), "");
    kp_machine_free(m);
}

/* More of everything than fits, and names longer than any. */
static void test_too_much(void **state)
{
    struct kp_machine *m = machine_make("");
    struct kp_faults f = { .count = 0 };
    char name[200];
    (void)state;
    kp_machine_reset(m);
    for (int i = 0; i < KP_PINS_MAX + 3; i++) {
        struct kp_value pin = text("PA1");
        snprintf(name, sizeof name, "output_pin p%d", i);
        kp_machine_setting(m, kp_str_of(name), kp_str_of("pin"), &pin);
    }
    memset(name, 'o', sizeof name);
    kp_machine_object(m, (struct kp_str){ name, sizeof name });
    kp_machine_command(m, (struct kp_str){ name, sizeof name });
    assert_int_equal(kp_machine_resolve(m, &f), KP_INVALID_REQUEST);
    assert_int_equal(f.count, 3);
    assert_non_null(kp_machine_pin(m, KP_PINS_MAX - 1));
    assert_null(kp_machine_pin(m, KP_PINS_MAX));
    for (int i = 0; i < KP_COMMANDS_MAX + 1; i++)
        kp_machine_command(m, kp_str_of("M1"));
    f.count = 0;
    assert_int_equal(kp_machine_resolve(m, &f), KP_INTERNAL_ERROR);
    kp_machine_free(m);
}

/* An axis has any letter that means nothing else in a line. */
static void test_axis_letters(void **state)
{
    (void)state;
    for (char letter = 'A'; letter <= 'Z'; letter++) {
        char text[64];
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        snprintf(text, sizeof text, "[axis %c]\nstepper: manual_stepper s\n", letter);
        assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of(text), &f) == KP_OK, !strchr("XYZEFNGMTIJKR", letter));
        kp_config_free(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axis_letters),
        cmocka_unit_test(test_pins), cmocka_unit_test(test_find_pin), cmocka_unit_test(test_parts), cmocka_unit_test(test_watch),
        cmocka_unit_test(test_faulty_parts), cmocka_unit_test(test_homed), cmocka_unit_test(test_corexy), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_positions), cmocka_unit_test(test_left), cmocka_unit_test(test_values), cmocka_unit_test(test_dirty), cmocka_unit_test(test_reset),
        cmocka_unit_test(test_klippy), cmocka_unit_test(test_too_much),
    };
    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
