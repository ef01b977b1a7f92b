/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sequences step by step, by hand: results, writes, expected positions, retries, ramps, errors from outside. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc_fixture.h"

#include <cmocka.h>

#include "plan_request.h"

#define LINES_MAX 64

static struct kp_faults faults;

static void results_and_writes_of_a_placement(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80 rotation=90", false, &faults);
    struct kp_action a;
    double at[3];
    size_t n;
    assert_non_null(s);
    assert_false(kp_seq_expected(s, at));
    kp_seq_writes(s, &n);
    assert_int_equal(n, 0);
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    assert_string_equal(a.step, "pick");
    assert_true(kp_seq_expected(s, at));
    assert_true(at[0] == 40 && at[1] == 20 && at[2] == 0);
    const struct kp_pin_write *w = kp_seq_writes(s, &n);
    assert_int_equal(n, 2);
    assert_string_equal(kp_machine_pin(m, (size_t)w[0].pin)->name, "pump1");
    assert_string_equal(kp_machine_pin(m, (size_t)w[1].pin)->name, "valve1");
    assert_true(w[0].value == 1 && w[1].value == 1);
    assert_false(kp_seq_result(s)->moved);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_SAMPLE);
    assert_string_equal(kp_machine_sensor(m, (size_t)a.sensor)->name, "vacuum1");
    assert_true(kp_seq_result(s)->moved && kp_seq_result(s)->target[0] == 40);
    kp_seq_step(s, KP_EV_SAMPLE, -40, NULL, &a);
    assert_string_equal(a.step, "place");
    const struct kp_axis_write *aw = kp_seq_axis_writes(s, &n);
    assert_int_equal(n, 1);
    assert_true(aw[0].axis == kp_machine_find_axis(m, 'A') && aw[0].position == 90 && !aw[0].homed);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_string_equal(a.step, "verify_place");
    kp_seq_step(s, KP_EV_SAMPLE, -20, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_DONE);
    const struct kp_result *r = kp_seq_result(s);
    assert_true(r->moved && r->completed && r->has_level && !r->vacuum_enabled);
    assert_true(r->level == -20 && r->attempts == 1);
    assert_true(r->target[0] == 120 && r->target[1] == 80 && r->target[2] == 0);
    assert_true(r->pick[0] == 40 && r->pick[1] == 20 && r->pick[2] == -30);
    assert_true(r->place[0] == 120 && r->place[1] == 80 && r->place[2] == -29.4);
    kp_seq_free(s);
    kp_machine_free(m);
}

static void every_try_is_counted_and_the_way_out_taken(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80 retries=3", false, &faults);
    struct kp_action a;
    assert_non_null(s);
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    for (int i = 1; i <= 4; i++) {
        assert_string_equal(a.step, "pick");
        assert_int_equal(kp_seq_result(s)->attempts, i);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        assert_int_equal(a.kind, KP_ACT_SAMPLE);
        kp_seq_step(s, KP_EV_SAMPLE, i == 2 ? NAN : -39.9, NULL, &a); /* no level is a bad level */
    }
    assert_int_equal(a.kind, KP_ACT_SCRIPT);
    assert_string_equal(a.step, "release");
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_FAIL);
    assert_string_equal(a.step, "verify_pick");
    assert_int_equal(a.error.code, KP_VACUUM_FAILED);
    assert_string_equal(a.error.field, "vacuum");
    assert_true(a.error.got == -39.9 && a.error.max == -40 && isnan(a.error.min));
    const struct kp_result *r = kp_seq_result(s);
    assert_true(r->attempts == 4 && !r->completed && !r->vacuum_enabled && r->moved);
    assert_true(r->target[0] == 40 && r->target[1] == 20); /* where the pick left it, not the place */
    kp_seq_free(s);
    kp_machine_free(m);
}

/* Each further try has its own depth; a part that is held at the last leads on as one held at once. */
static void as_many_depths_as_tries(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("deepest");
    for (int held = 0; held <= 1; held++) {
        struct kp_seq *s = plan_text(m, "pick", false, &faults);
        struct kp_action a;
        assert_non_null(s);
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        for (int i = 0; i <= 20; i++) {
            char line[64], z[KP_NUMBER_MAX];
            kp_number_print(z, -30 - 0.1 * i, 6);
            snprintf(line, sizeof line, "G1 Z%s F1500", z);
            assert_true(a.kind == KP_ACT_SCRIPT && strstr(a.text, line));
            assert_int_equal(kp_seq_result(s)->attempts, i + 1);
            kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
            kp_seq_step(s, KP_EV_SAMPLE, held && i == 20 ? -40 : 0, NULL, &a);
        }
        assert_non_null(kp_seq_gcode(s, LINES_MAX - 1)); /* the answer shows the last ones */
        assert_null(kp_seq_gcode(s, LINES_MAX));
        assert_string_equal(kp_seq_gcode(s, LINES_MAX - (held ? 6 : 9)), "G1 Z-32 F1500");
        assert_string_equal(kp_seq_gcode(s, LINES_MAX - 1), "M400");
        if (!held)
            kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        assert_int_equal(a.kind, held ? KP_ACT_DONE : KP_ACT_FAIL);
        assert_int_equal(kp_seq_result(s)->vacuum_enabled, held);
        kp_seq_free(s);
    }
    kp_machine_free(m);
}

/* What is too much is told as it was asked for: in the unit and the sense of the parameter. */
static void a_limit_is_told_in_the_unit_asked_in(void **state)
{
    (void)state;
    static const struct { const char *machine, *request, *field; double got, min, max; const char *message; } rows[] = {
        { "halved", "vacuum_set power=200", "power", 200, 0, 127.5, "power is 200; allowed are 0 to 127.5" },
        { "halved", "pick vacuum_power=129", "vacuum_power", 129, 0, 127.5, "vacuum_power is 129; allowed are 0 to 127.5" },
        { "halved", "pwm_set pin=!PB6 value=0.2", "value", 0.2, 0.5, 1, "value is 0.2; allowed are 0.5 to 1" },
        { "halved", "pwm_set pin=laser value=0.7", "value", 0.7, 0, 0.5, "value is 0.7; allowed are 0 to 0.5" },
        { "halved", "pwm_ramp pin=!PB6 start_value=0.3 end_value=0.6 duration=2", "start_value", 0.3, 0.5, 1, "start_value is 0.3; allowed are 0.5 to 1" },
        { "halved", "pwm_ramp pin=!PB6 start_value=0.6 end_value=0.1 duration=2", "end_value", 0.1, 0.5, 1, "end_value is 0.1; allowed are 0.5 to 1" },
        { "half_fan", "vacuum_set power=200", "power", 200, 0, 127.5, "power is 200; allowed are 0 to 127.5" },
        { "half_fan", "fan_set speed=0.7", "speed", 0.7, 0, 0.5, "speed is 0.7; allowed are 0 to 0.5" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = fixture_machine(rows[i].machine);
        assert_null(plan_text(m, rows[i].request, false, &faults));
        assert_int_equal(faults.count, 1);
        const struct kp_error *e = &faults.item[0];
        assert_string_equal(e->field, rows[i].field);
        assert_string_equal(e->message, rows[i].message);
        assert_true(e->got == rows[i].got && e->min == rows[i].min && e->max == rows[i].max);
        kp_machine_free(m);
    }
}

/* A pick without vacuum is as vacuum_set to 0: nothing is on afterwards, and a pump that another nozzle holds by goes on. */
static void a_pick_without_vacuum(void **state)
{
    (void)state;
    static const struct { const char *request; bool on; } rows[] = {
        { "pick verify=false", true }, { "pick verify=false vacuum_power=1", true }, { "pick verify=false vacuum_power=0", false },
        { "pick verify=false vacuum_power=0 nozzle=N2", false } };
    struct kp_machine *m = fixture_machine("seesaw");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_seq *s = plan_text(m, rows[i].request, false, &faults);
        assert_non_null(s);
        assert_int_equal(kp_seq_result(s)->vacuum_enabled, rows[i].on);
        kp_seq_free(s);
    }
    kp_machine_free(m);
}

static size_t lines_like(const struct kp_seq *s, const char *begin)
{
    const char *line;
    size_t n = 0;
    for (size_t i = 0; (line = kp_seq_gcode(s, i)); i++)
        n += strncmp(line, begin, strlen(begin)) == 0;
    return n;
}

/* The answer tells where the part was picked, and all that was sent. */
static void a_later_try_is_what_the_answer_tells(void **state)
{
    (void)state;
    static const struct { const char *machine; bool inside; double z; } rows[] = { { "deeper", false, -30.2 }, { "inside_deeper", true, -30.2 },
                                                                                   { "careful", false, -30 } };
    struct kp_error e;
    kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "PNP_WAIT: vac1 is -12.5 kPa, not below -40.000, after 0.311 s");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = fixture_machine(rows[i].machine);
        struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80", false, &faults);
        struct kp_action a;
        assert_non_null(s);
        assert_int_equal(lines_like(s, "G1 Z-30 "), 1);
        assert_true(kp_seq_result(s)->pick[2] == -30);
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        for (int turn = 0; a.kind != KP_ACT_DONE; turn++) {
            assert_true(a.kind != KP_ACT_FAIL);
            if (a.kind == KP_ACT_SAMPLE)
                kp_seq_step(s, KP_EV_SAMPLE, turn == 1 ? 0 : strcmp(a.step, "verify_pick") == 0 ? -60 : 0, NULL, &a);
            else
                kp_seq_step(s, rows[i].inside && turn == 0 ? KP_EV_ERROR : KP_EV_OK, NAN, rows[i].inside && turn == 0 ? &e : NULL, &a);
        }
        const struct kp_result *r = kp_seq_result(s);
        assert_true(r->attempts == 2 && r->pick[2] == rows[i].z && r->place[2] == -29.4);
        assert_int_equal(lines_like(s, "G1 Z-30 "), rows[i].z == -30 ? 2 : 1);
        assert_int_equal(lines_like(s, "G1 Z-30.2 "), rows[i].z == -30 ? 0 : 1);
        assert_int_equal(lines_like(s, "G1 X40 Y20 "), 2);
        assert_int_equal(lines_like(s, "G1 X120 Y80 "), rows[i].inside ? 2 : 1);
        kp_seq_free(s);
        kp_machine_free(m);
    }
}

static void an_error_from_outside_ends_it(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_error e;
    struct kp_action a;
    kp_error_set(&e, KP_INTERLOCK, NULL, "somebody moved the head");
    for (int when = 0; when < 4; when++) {
        struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80", false, &faults);
        static const char *const steps[] = { "pick", "verify_pick", "place", "release" };
        assert_non_null(s);
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        if (when > 0)
            kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        if (when > 1)
            kp_seq_step(s, KP_EV_SAMPLE, when == 2 ? -60 : 0, NULL, &a);
        kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
        assert_int_equal(a.kind, KP_ACT_FAIL);
        assert_int_equal(a.error.code, KP_INTERLOCK);
        assert_string_equal(a.error.message, "somebody moved the head");
        assert_string_equal(a.step, steps[when]);
        assert_false(kp_seq_result(s)->completed);
        kp_seq_free(s);
    }
    kp_machine_free(m);
}

/* Klipper refused the motion of a feeder whose extruder had to be activated: that is put back before the failure is told. */
static void what_was_switched_is_put_back_when_refused(void **state)
{
    (void)state;
    static const struct { enum kp_err code; bool undone; } rows[] = {
        { KP_EXECUTION_FAILED, true }, { KP_OUTCOME_UNKNOWN, false }, { KP_KLIPPY_DISCONNECTED, false }, { KP_EMERGENCY_STOP_ACTIVE, false } };
    struct kp_machine *m = fixture_machine("tapes");
    struct kp_error e, other;
    struct kp_action a;
    tell(m, "toolhead", "extruder", text_value("extruder"));
    kp_error_set(&other, KP_EXECUTION_FAILED, NULL, "once more");
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        bool again = i >= sizeof rows / sizeof *rows; /* the undoing fails too */
        struct kp_seq *s = plan_text(m, "feeder_advance feeder=second distance=4", false, &faults);
        assert_non_null(s);
        kp_error_set(&e, rows[i % 4].code, NULL, "Extrude below minimum temp");
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
        if (rows[i % 4].undone) {
            assert_int_equal(a.kind, KP_ACT_SCRIPT);
            assert_string_equal(a.text, "ACTIVATE_EXTRUDER EXTRUDER=extruder");
            kp_seq_step(s, again ? KP_EV_ERROR : KP_EV_OK, NAN, again ? &other : NULL, &a);
        }
        assert_int_equal(a.kind, KP_ACT_FAIL);
        assert_int_equal(a.error.code, rows[i % 4].code);
        assert_string_equal(a.error.message, rows[i % 4].undone && again ? "once more" : "Extrude below minimum temp");
        assert_string_equal(a.step, rows[i % 4].undone && again ? "undo" : "advance");
        assert_false(kp_seq_result(s)->completed);
        kp_seq_free(s);
    }
    /* One that had nothing to switch fails at once. */
    struct kp_seq *s = plan_text(m, "feeder_advance distance=4", false, &faults);
    kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "no");
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
    assert_int_equal(a.kind, KP_ACT_FAIL);
    kp_seq_free(s);
    kp_machine_free(m);
}

/* A feeder on the motor of an axis: after each script the axis is where Klipper has the motor, and is not homed. */
static void a_feed_on_the_motor_of_an_axis(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("same_motor");
    int a = kp_machine_find_axis(m, 'A');
    kp_machine_axis_written(m, a, 90, true);
    struct kp_seq *s = plan_text(m, "feeder_retract distance=10", false, &faults);
    struct kp_action act;
    size_t n;
    static const double at[] = { 0, -10 };
    assert_non_null(s);
    kp_seq_step(s, KP_EV_START, NAN, NULL, &act);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(act.kind, KP_ACT_SCRIPT);
        const struct kp_axis_write *w = kp_seq_axis_writes(s, &n);
        assert_int_equal(n, 1);
        assert_true(w->axis == a && w->position == at[i] && !w->homed);
        kp_machine_axis_written(m, w->axis, w->position, w->homed);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &act);
    }
    assert_int_equal(act.kind, KP_ACT_DONE);
    kp_seq_free(s);
    assert_null(plan_text(m, "move a=90", false, &faults));
    assert_int_equal(faults.item[0].code, KP_HOMING_REQUIRED);
    s = plan_text(m, "move a=5 relative=true", false, &faults);
    assert_non_null(s);
    assert_string_equal(kp_seq_gcode(s, 0), "MANUAL_STEPPER STEPPER=rotation1 MOVE=-5 SPEED=360 ACCEL=3600 SYNC=0");
    kp_seq_free(s);
    kp_machine_free(m);
}

/* A script that looks at the level itself: what Klipper says of it is the level, and where it ended is what it did. */
static void a_check_inside_a_script(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("inside");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80 rotation=90 retries=1", false, &faults);
    struct kp_action a;
    struct kp_error e;
    double at[3];
    size_t n;
    assert_non_null(s);
    kp_seq_heard(s, "// PNP_WAIT: vac1 -70.000 kPa after 0.012 s"); /* nothing runs */
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    assert_string_equal(a.step, "pick_and_place");
    kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "Klipper refused: PNP_WAIT: vac1 is -12.5 kPa, not below -40.000, after 0.311 s");
    kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
    assert_int_equal(a.kind, KP_ACT_SETTLE);
    assert_string_equal(a.step, "verify_pick");
    kp_seq_writes(s, &n);
    assert_int_equal(n, 2); /* pump and valve, as of the pick alone */
    kp_seq_axis_writes(s, &n);
    assert_int_equal(n, 0);
    assert_true(kp_seq_expected(s, at) && at[0] == 40 && at[1] == 20 && at[2] == 0);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_string_equal(a.step, "pick_and_place");
    const struct kp_result *r = kp_seq_result(s);
    assert_true(r->attempts == 2 && r->has_level && r->level == -12.5 && r->moved && r->target[0] == 40);
    kp_seq_writes(s, &n);
    assert_int_equal(n, 4);
    kp_seq_axis_writes(s, &n);
    assert_int_equal(n, 1);
    kp_seq_heard(s, "// PNP_WAIT: vac1 -70.000 kPa after 0.012 s");
    kp_seq_heard(s, "// PNP_WAIT: vac12 -1.000 kPa after 0.012 s");
    kp_seq_heard(s, "// vac1 -2.000");
    kp_seq_heard(s, "// PNP_WAIT: vac1 -3.5 kPa after 0.012 s");
    kp_seq_heard(s, "!! PNP_WAIT: vac1 is -5.0 kPa, not above");
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_DONE);
    assert_true(r->completed && r->level == -3.5 && r->target[0] == 120 && !r->vacuum_enabled);
    kp_seq_free(s);
    kp_machine_free(m);
}

/* The unit of the sensor is not ours: limits and levels of the answer are. */
static void a_check_in_another_unit(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("inside");
    struct kp_seq *s = plan_text(m, "place nozzle=N2", false, &faults);
    struct kp_action a;
    struct kp_error e;
    assert_non_null(s);
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "PNP_WAIT: vac2 is -1850.000 x, not above -1700.000, after 1.151 s");
    kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
    assert_int_equal(a.kind, KP_ACT_SETTLE);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_FAIL);
    assert_int_equal(a.error.code, KP_VACUUM_FAILED);
    assert_string_equal(a.step, "verify_place");
    assert_true(a.error.got == 21.5 && a.error.max == 20 && isnan(a.error.min));
    kp_seq_free(s);
    kp_machine_free(m);
}

/* A level that nobody knows is told as that, with what is known of why. */
static void a_level_that_is_none(void **state)
{
    (void)state;
    static const char fault[] = "verify_pick: nozzle N1 shows no level, its sensor has a fault (5.00 V is out of range), wanted -40 or less";
    static const char silent[] = "verify_pick: nozzle N1 shows no level, its sensor gave no sample, wanted -40 or less";
    static const char low[] = "verify_pick: nozzle N1 holds no part, level -12.5 kPa, wanted -40 or less";
    static const struct { const char *machine, *says; double value; const char *message; } rows[] = {
        { "inside", "PNP_WAIT: vac1 has a fault (5.00 V is out of range), not below -40.000, after 0.311 s", NAN, fault },
        { "inside", "PNP_WAIT: vac1 gave no sample, not below -40.000, after 0.311 s", NAN, silent },
        { "inside", "PNP_WAIT: vac1 is -12.500 kPa, not below -40.000, after 0.311 s", NAN, low },
        { "outside", "has a fault (5.00 V is out of range)", NAN, fault }, { "outside", NULL, NAN, silent }, { "outside", NULL, -12.5, low },
    };
    struct kp_action a;
    struct kp_error e;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = fixture_machine(rows[i].machine);
        struct kp_seq *s = plan_text(m, "pick", false, &faults);
        assert_non_null(s);
        kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "%s", rows[i].says);
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        if (strcmp(rows[i].machine, "inside") == 0) {
            kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
            kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        } else {
            kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
            assert_int_equal(a.kind, KP_ACT_SAMPLE);
            kp_seq_step(s, KP_EV_SAMPLE, rows[i].value, rows[i].says ? &e : NULL, &a);
        }
        assert_string_equal(a.step, "release");
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        assert_int_equal(a.kind, KP_ACT_FAIL);
        assert_int_equal(a.error.code, KP_VACUUM_FAILED);
        assert_string_equal(a.error.message, rows[i].message);
        assert_true(isnan(a.error.got) == (rows[i].message != low) && kp_seq_result(s)->has_level == (rows[i].message == low));
        kp_seq_free(s);
        kp_machine_free(m);
    }
}

/* Only its own words on its own sensor make an error a bad level; what comes in while the end is looked at ends it. */
static void an_error_is_no_bad_level(void **state)
{
    (void)state;
    static const struct { enum kp_err code; const char *words; bool bad; } rows[] = {
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac1 is 0.000 kPa, not below -40.000, after 0.310 s", true },
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac1 gave no sample, not below -40.000, after 0.310 s", true },
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac1 has a fault (5.00 V is out of range), not below -40.000, after 0.310 s", true },
        { KP_OUTCOME_UNKNOWN, "PNP_WAIT: vac1 is 0.000 kPa, not below -40.000, after 0.310 s", false },
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac2 is 0.000 kPa, not below -40.000, after 0.310 s", false },
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac11 is 0.000 kPa, not below -40.000, after 0.310 s", false },
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac1 is 0.000 kPa, not above -40.000, after 0.310 s", false }, /* nobody waits for that in a pick */
        { KP_EXECUTION_FAILED, "PNP_WAIT: no sensor 'vac1'", false },
        { KP_EXECUTION_FAILED, "PNP_WAIT: vac1 -60.000 kPa after 0.012 s", false },
        { KP_EXECUTION_FAILED, "Klipper was shut down: Emergency stop", false },
        { KP_EXECUTION_FAILED, "Must home axis first", false },
    };
    struct kp_machine *m = fixture_machine("inside");
    struct kp_action a;
    struct kp_error e, foreign;
    kp_error_set(&foreign, KP_INTERLOCK, NULL, "somebody moved the head");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_seq *s = plan_text(m, "pick", false, &faults);
        assert_non_null(s);
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        kp_error_set(&e, rows[i].code, NULL, "%s", rows[i].words);
        kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
        assert_int_equal(a.kind, rows[i].bad ? KP_ACT_SETTLE : KP_ACT_FAIL);
        if (rows[i].bad)
            kp_seq_step(s, KP_EV_ERROR, NAN, &foreign, &a);
        assert_int_equal(a.kind, KP_ACT_FAIL);
        assert_int_equal(a.error.code, rows[i].bad ? KP_INTERLOCK : rows[i].code);
        assert_string_equal(a.step, rows[i].bad ? "verify_pick" : "pick");
        assert_false(kp_seq_result(s)->completed);
        kp_seq_free(s);
    }
    kp_machine_free(m);
}

static struct kp_seq *ramp_begun(const struct kp_machine *m, const char *text, struct kp_action *a)
{
    struct kp_seq *s = plan_text(m, text, false, &faults);
    size_t n;
    assert_non_null(s);
    kp_seq_step(s, KP_EV_START, NAN, NULL, a);
    assert_int_equal(a->kind, KP_ACT_SCRIPT);
    assert_int_equal(kp_seq_writes(s, &n)->pin, kp_seq_leads(s));
    assert_int_equal(n, 1);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, a);
    assert_int_equal(a->kind, KP_ACT_DELAY);
    return s;
}

static void a_ramp_tells_pin_writes_and_lateness(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_action a;
    size_t n;
    struct kp_seq *s = ramp_begun(m, "pwm_ramp pin=pump1 start_value=0.25 end_value=1 duration=1 steps=2", &a);
    assert_string_equal(kp_machine_pin(m, (size_t)kp_seq_leads(s))->name, "pump1");
    assert_int_equal(a.after_ms, 500);
    kp_seq_step(s, KP_EV_TIME, 730, NULL, &a);
    assert_string_equal(a.text, "SET_PIN PIN=pump1 VALUE=0.625");
    const struct kp_pin_write *w = kp_seq_writes(s, &n);
    assert_true(n == 1 && w->value == 0.625 && kp_seq_result(s)->late_ms == 0);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_true(a.kind == KP_ACT_DELAY && a.after_ms == 1000);
    kp_seq_step(s, KP_EV_TIME, 1200, NULL, &a);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_DONE);
    const struct kp_result *r = kp_seq_result(s);
    assert_true(r->late_ms == 200 && !r->replaced && !r->completed && r->value == 1);
    assert_string_equal(kp_seq_gcode(s, 2), "SET_PIN PIN=pump1 VALUE=1");
    assert_null(kp_seq_gcode(s, 3));
    kp_seq_free(s);
    s = plan_text(m, "pwm_set pin=pump1 value=1", false, &faults);
    assert_int_equal(kp_seq_leads(s), -1);
    kp_seq_free(s);
    kp_machine_free(m);
}

/* Another write of the pin ends it as done; an error from outside as failed; neither sends anything. */
static void a_ramp_is_replaced_or_ended(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_action a;
    struct kp_error e;
    kp_error_set(&e, KP_EMERGENCY_STOP_ACTIVE, NULL, "stopped");
    for (int steps = 0; steps < 3; steps++)
        for (int how = 0; how < 2; how++) {
            struct kp_seq *s = ramp_begun(m, "pwm_ramp pin=gate start_value=0 end_value=1 duration=1", &a);
            for (int i = 0; i < steps; i++) {
                kp_seq_step(s, KP_EV_TIME, (double)a.after_ms, NULL, &a);
                kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
            }
            kp_seq_step(s, how ? KP_EV_ERROR : KP_EV_REPLACED, NAN, how ? &e : NULL, &a);
            assert_int_equal(a.kind, how ? KP_ACT_FAIL : KP_ACT_DONE);
            assert_int_equal(kp_seq_result(s)->replaced, !how);
            assert_non_null(kp_seq_gcode(s, (size_t)steps));
            assert_null(kp_seq_gcode(s, (size_t)steps + 1));
            kp_seq_free(s);
        }
    kp_machine_free(m);
}

/* However many steps: the answer lists the first lines, and the time of the answer goes with the duration. */
static void a_long_ramp(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_action a;
    struct kp_seq *s = ramp_begun(m, "pwm_ramp pin=pump1 start_value=0 end_value=1 duration=600 steps=6000", &a);
    int steps = 0;
    for (; a.kind == KP_ACT_DELAY; steps++) {
        assert_int_equal(a.after_ms, 100 * (steps + 1));
        kp_seq_step(s, KP_EV_TIME, (double)a.after_ms, NULL, &a);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    }
    assert_int_equal(steps, 6000);
    assert_true(a.kind == KP_ACT_DONE && kp_seq_result(s)->late_ms == 0);
    assert_non_null(kp_seq_gcode(s, LINES_MAX - 1));
    assert_null(kp_seq_gcode(s, LINES_MAX));
    kp_seq_free(s);
    struct request r;
    struct kp_call call;
    static const struct { const char *text; double timeout_s; } rows[] = {
        { "pwm_ramp pin=pump1 start_value=0 end_value=1 duration=100", 130 },
        { "pwm_ramp pin=pump1 start_value=0 end_value=1 duration=100 timeout_s=5", 5 } };
    for (size_t i = 0; i < 2; i++) {
        assert_true(request_parse(&r, rows[i].text));
        assert_int_equal(kp_check(m, r.command, r.args, r.count, &call, &faults), KP_OK);
        assert_true(call.timeout_s == rows[i].timeout_s);
    }
    kp_machine_free(m);
}

/* The table of actions and what may answer them, said a second time. */
static void what_answers_an_action(void **state)
{
    (void)state;
    static const char *const want[] = { /* START OK SAMPLE TIME REPLACED ERROR */
        [KP_ACT_SCRIPT] = ".o...e", [KP_ACT_SAMPLE] = "..s..e", [KP_ACT_SETTLE] = ".o...e", [KP_ACT_DELAY] = "...tre",
        [KP_ACT_DONE] = "......", [KP_ACT_FAIL] = "......" };
    for (enum kp_act act = 0; act <= KP_ACT_FAIL; act++)
        for (enum kp_event ev = 0; ev <= KP_EV_ERROR; ev++)
            assert_int_equal(kp_seq_answers(act, ev), want[act][ev] != '.');
}

/* What no lane runs has no plan; memory may be gone for any that has one. */
static void what_has_no_plan(void **state)
{
    (void)state;
    size_t n;
    const struct kp_command *rows = kp_commands(&n);
    struct kp_machine *m = fixture_machine("seesaw");
    for (size_t i = 0; i < n; i++) {
        struct kp_call call = { .command = &rows[i] };
        struct kp_seq *s = NULL;
        memset(&faults, 0, sizeof faults);
        if (rows[i].strategy == KP_GCODE)
            continue;
        assert_int_equal(kp_seq_plan(&s, m, &call, false, &faults), KP_INVALID_REQUEST);
        assert_null(s);
        assert_int_equal(faults.count, 1);
    }
    kp_machine_free(m);
}

static void every_plan_without_memory(void **state)
{
    (void)state;
    static const char *const requests[] = {
        "move x=1", "home", "wait", "pick", "place", "pick_and_place x=1 y=1 place_x=2 place_y=2", "actuate pin=lamp", "actuator_on pin=lamp",
        "actuator_off pin=lamp",
        "vacuum_on", "vacuum_off", "vacuum_set power=1", "fan_on", "fan_off", "fan_set speed=1", "pwm_set pin=pump1 value=1",
        "pwm_ramp pin=pump1 start_value=0 end_value=1 duration=1", "gpio_write pin=lamp value=1", "feeder_advance feeder=feeder1 distance=1",
        "feeder_retract feeder=feeder1 distance=1" };
    static const char *const machines[] = { "seesaw", "deeper" };
    size_t planned = 0;
    for (size_t k = 0; k < 2 * sizeof requests / sizeof *requests; k++) {
        struct kp_machine *m = fixture_machine(machines[k % 2]);
        struct request r;
        struct kp_call call;
        struct kp_seq *s = NULL;
        assert_true(request_parse(&r, requests[k / 2]));
        assert_int_equal(kp_check(m, r.command, r.args, r.count, &call, &faults), KP_OK);
        for (size_t nth = 1; !s; nth++) {
            memset(&faults, 0, sizeof faults);
            alloc_fail_at(nth);
            enum kp_err rc = kp_seq_plan(&s, m, &call, true, &faults);
            size_t asked = alloc_count;
            alloc_fail_at(0);
            assert_int_equal(rc, s ? KP_OK : KP_INTERNAL_ERROR);
            assert_int_equal(faults.count, !s);
            assert_true(nth == (s ? 2 : 1) && asked == 1); /* one piece of memory a plan */
        }
        planned++;
        kp_seq_free(s);
        kp_machine_free(m);
    }
    assert_int_equal(planned, 40);
}

static void the_answer_lists_the_lines_without_the_frame(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80", false, &faults);
    const char *line;
    size_t n = 0, m400 = 0;
    for (; (line = kp_seq_gcode(s, n)); n++) {
        assert_null(strstr(line, "GCODE_STATE"));
        assert_null(strchr(line, '\n'));
        m400 += strcmp(line, "M400") == 0;
    }
    assert_string_equal(kp_seq_gcode(s, 0), "G1 Z0 F1500");
    assert_int_equal(n, 15);
    assert_int_equal(m400, 2); /* the release is no part of it */
    kp_seq_free(s);
    kp_machine_free(m);
}

static void homing_says_nothing_of_where_it_ends(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "home", false, &faults);
    struct kp_action a;
    double at[3] = { 7, 7, 7 };
    size_t n;
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    for (int i = 0; i < 3; i++) { /* home, travel, home */
        assert_int_equal(a.kind, KP_ACT_SCRIPT);
        assert_false(kp_seq_expected(s, at));
        assert_true(at[0] == 7);
        kp_seq_axis_writes(s, &n);
        assert_int_equal(n, i == 2 ? 2 : 0);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    }
    assert_int_equal(a.kind, KP_ACT_DONE);
    assert_true(kp_seq_result(s)->homed == 0x1f && !kp_seq_result(s)->moved && kp_seq_result(s)->completed);
    kp_seq_free(s);
    kp_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_and_writes_of_a_placement),
        cmocka_unit_test(every_try_is_counted_and_the_way_out_taken),
        cmocka_unit_test(as_many_depths_as_tries),
        cmocka_unit_test(a_limit_is_told_in_the_unit_asked_in),
        cmocka_unit_test(a_pick_without_vacuum),
        cmocka_unit_test(a_later_try_is_what_the_answer_tells),
        cmocka_unit_test(a_feed_on_the_motor_of_an_axis),
        cmocka_unit_test(a_check_inside_a_script),
        cmocka_unit_test(a_check_in_another_unit),
        cmocka_unit_test(a_level_that_is_none), cmocka_unit_test(an_error_is_no_bad_level),
        cmocka_unit_test(an_error_from_outside_ends_it),
        cmocka_unit_test(what_was_switched_is_put_back_when_refused),
        cmocka_unit_test(a_ramp_tells_pin_writes_and_lateness),
        cmocka_unit_test(a_ramp_is_replaced_or_ended),
        cmocka_unit_test(a_long_ramp),
        cmocka_unit_test(what_answers_an_action),
        cmocka_unit_test(what_has_no_plan),
        cmocka_unit_test(every_plan_without_memory),
        cmocka_unit_test(the_answer_lists_the_lines_without_the_frame),
        cmocka_unit_test(homing_says_nothing_of_where_it_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
