/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Arguments from outside: every kind of nonsense for every kind of parameter, all faults at once, and no byte of a client's text
 * where it must not be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "plan_fixture.h"

#include <cmocka.h>

static struct kp_faults faults;
static struct kp_call call;

#define NUMBER(v) { .kind = KP_NUM, .num = v }
#define TEXT(s) { .kind = KP_STR, .str = { s, sizeof s - 1 } }
#define TRUE_VALUE { .kind = KP_BOOL, .flag = true }

static struct kp_machine *machine;

static int setup(void **state)
{
    (void)state;
    machine = fixture_machine("seesaw");
    return machine == NULL;
}

static int teardown(void **state)
{
    (void)state;
    kp_machine_free(machine);
    return 0;
}

static enum kp_err check(const char *command, const struct kp_arg *args, size_t count)
{
    memset(&faults, 0, sizeof faults);
    memset(&call, 0x5a, sizeof call);
    const struct kp_command *c = kp_command_by_name(kp_str_of(command));
    assert_non_null(c);
    return kp_check(machine, c, args, count, &call, &faults);
}

static enum kp_err check_one(const char *command, const char *name, struct kp_value v, bool text)
{
    const struct kp_arg a = { kp_str_of(name), v, text };
    return check(command, &a, 1);
}

/* What must never be in a message or field: control characters, bytes that are not UTF-8's. */
static void clean(void)
{
    for (size_t i = 0; i < faults.count; i++) {
        const char *texts[2] = { faults.item[i].field, faults.item[i].message };
        for (int j = 0; j < 2; j++)
            for (const char *at = texts[j]; *at; at++)
                assert_true((unsigned char)*at >= 0x20 && (unsigned char)*at < 0x7f);
    }
}

/* What is said of one parameter, whatever else the command misses. */
static enum kp_err verdict(const char *command, const char *name, struct kp_value v, bool text)
{
    check_one(command, name, v, text);
    for (size_t i = 0; i < faults.count; i++)
        if (faults.item[i].code != KP_MISSING_PARAMETER && strcmp(faults.item[i].field, "feeder") != 0)
            return faults.item[i].code;
    return KP_OK;
}

static void values(void **state)
{
    (void)state;
    static const double xs[] = { 1, 2 };
    static const struct { const char *command, *name; struct kp_value v; bool text; enum kp_err want; } rows[] = {
        { "move", "x", NUMBER(1), false, KP_OK },
        { "move", "x", NUMBER(NAN), false, KP_INVALID_PARAMETER },
        { "move", "x", NUMBER(INFINITY), false, KP_INVALID_PARAMETER },
        { "move", "x", NUMBER(-INFINITY), false, KP_INVALID_PARAMETER },
        { "move", "x", TEXT("1"), false, KP_INVALID_PARAMETER },
        { "move", "x", TEXT("1"), true, KP_OK },
        { "move", "x", TEXT("-.5"), true, KP_OK },
        { "move", "x", TEXT("1e3"), true, KP_INVALID_PARAMETER },
        { "move", "x", TEXT("nan"), true, KP_INVALID_PARAMETER },
        { "move", "x", TEXT("inf"), true, KP_INVALID_PARAMETER },
        { "move", "x", TEXT(""), true, KP_INVALID_PARAMETER },
        { "move", "x", TEXT("1 "), true, KP_INVALID_PARAMETER },
        { "move", "x", TEXT("1\nM112"), true, KP_INVALID_PARAMETER },
        { "move", "x", { .kind = KP_NULL }, false, KP_INVALID_PARAMETER },
        { "move", "x", { .kind = KP_NULL }, true, KP_INVALID_PARAMETER },
        { "move", "x", TRUE_VALUE, false, KP_INVALID_PARAMETER },
        { "move", "x", { .kind = KP_OTHER }, false, KP_INVALID_PARAMETER },
        { "move", "x", { .kind = KP_NUMS, .nums = xs, .count = 2 }, false, KP_INVALID_PARAMETER },
        { "move", "X", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "move", "", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "move", "a", NUMBER(1), false, KP_OK },
        { "move", "a", NUMBER(NAN), false, KP_INVALID_PARAMETER },
        { "move", "a", NUMBER(-1e6 - 1), false, KP_POSITION_OUT_OF_BOUNDS },
        { "move", "a", TEXT("1"), false, KP_INVALID_PARAMETER },
        { "move", "A", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "move", "u", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "pick", "a", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "move", "feedrate", NUMBER(0.999), false, KP_FEEDRATE_OUT_OF_BOUNDS },
        { "move", "feedrate", NUMBER(30000.5), false, KP_FEEDRATE_OUT_OF_BOUNDS },
        { "move", "feedrate", NUMBER(NAN), false, KP_INVALID_PARAMETER },
        { "move", "wait", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "move", "wait", TEXT("true"), false, KP_INVALID_PARAMETER },
        { "move", "wait", TEXT("true"), true, KP_OK },
        { "move", "wait", TEXT("yes"), true, KP_INVALID_PARAMETER },
        { "move", "timeout_s", NUMBER(1), false, KP_OK },
        { "move", "timeout_s", NUMBER(600), false, KP_OK },
        { "move", "timeout_s", NUMBER(0), false, KP_INVALID_PARAMETER },
        { "move", "timeout_s", NUMBER(601), false, KP_INVALID_PARAMETER },
        { "move", "timeout_s", NUMBER(NAN), false, KP_INVALID_PARAMETER },
        { "move", "timeout_s", TEXT("5"), false, KP_INVALID_PARAMETER },
        { "get_version", "timeout_s", NUMBER(5), false, KP_INVALID_PARAMETER },
        { "vacuum_set", "power", NUMBER(255), false, KP_OK },
        { "vacuum_set", "power", NUMBER(255.5), false, KP_PWM_OUT_OF_BOUNDS },
        { "vacuum_set", "power", NUMBER(1.5), false, KP_INVALID_PARAMETER },
        { "vacuum_set", "power", NUMBER(-1), false, KP_PWM_OUT_OF_BOUNDS },
        { "vacuum_set", "power", NUMBER(1e300), false, KP_PWM_OUT_OF_BOUNDS },
        { "vacuum_on", "nozzle", TEXT("N2"), false, KP_OK },
        { "vacuum_on", "nozzle", TEXT("N3"), false, KP_NOZZLE_NOT_FOUND },
        { "vacuum_on", "nozzle", TEXT(""), false, KP_NOZZLE_NOT_FOUND },
        { "vacuum_on", "nozzle", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "home", "axes", TEXT("x,y"), true, KP_OK },
        { "home", "axes", TEXT("x,,y"), true, KP_INVALID_PARAMETER },
        { "home", "axes", TEXT(""), true, KP_INVALID_PARAMETER },
        { "home", "axes", TEXT("x"), false, KP_INVALID_PARAMETER },
        { "home", "axes", { .kind = KP_STRS }, false, KP_OK },
        { "home", "axes", { .kind = KP_NUMS }, false, KP_OK },
        { "home", "axes", { .kind = KP_NUMS, .nums = xs, .count = 2 }, false, KP_INVALID_PARAMETER },
        { "gpio_read", "pin", TEXT("light"), false, KP_OK },
        { "gpio_read", "pin", TEXT("output_pin light"), true, KP_OK },
        { "gpio_read", "pin", TEXT("start"), false, KP_OK },
        { "gpio_read", "pin", TEXT("!PB1"), false, KP_OK },
        { "gpio_read", "pin", TEXT("light\n"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("light\nM112"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("light;M112"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("light VALUE=1"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("light\0"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("\0"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("../../.."), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("\xff\xfe\x80"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("l\xc3\xa4mp"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TEXT("!"), false, KP_PIN_NOT_FOUND },
        { "gpio_read", "pin", TRUE_VALUE, false, KP_INVALID_PARAMETER },
        { "sensor_read", "sensor", TEXT("vacuum1"), false, KP_OK },
        { "sensor_read", "sensor", TEXT("vacuum9"), false, KP_SENSOR_NOT_FOUND },
        { "sensor_read", "sensor", TEXT("a\tb"), false, KP_SENSOR_NOT_FOUND },
        { "emergency_stop", "reason", TEXT("smoke"), false, KP_OK },
        { "emergency_stop", "reason", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "fan_on", "fan", TEXT("blower"), false, KP_OK },
        { "fan_on", "fan", TEXT("fan_generic blower"), true, KP_OK },
        { "fan_on", "fan", TEXT("hotend"), false, KP_OK }, /* a fan; that it is Klipper's own is the plan's */
        { "fan_on", "fan", TEXT("blower\nM112"), false, KP_INVALID_PARAMETER },
        { "fan_on", "fan", TEXT("light"), false, KP_INVALID_PARAMETER },
        { "fan_on", "fan", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "fan_on", "speed", NUMBER(1.0001), false, KP_FAN_SPEED_OUT_OF_BOUNDS },
        { "fan_on", "speed", NUMBER(NAN), false, KP_INVALID_PARAMETER },
        { "fan_on", "speed", TEXT("0.5"), true, KP_OK },
        { "actuator_on", "pin", TEXT("gate"), false, KP_OK },
        { "actuator_on", "pin", TEXT("start"), false, KP_INVALID_PARAMETER },
        { "actuator_on", "pin", TEXT("endstop_x"), false, KP_INVALID_PARAMETER },
        { "actuator_on", "value", NUMBER(1), false, KP_INVALID_PARAMETER },
        { "sensor_read_by_type", "type", TEXT("vacuum"), true, KP_OK },
        { "sensor_read_by_type", "type", TEXT("load"), false, KP_OK },
        { "sensor_read_by_type", "type", TEXT("vac"), false, KP_INVALID_PARAMETER },
        { "sensor_read_by_type", "type", TEXT("vacuum|pressure"), false, KP_INVALID_PARAMETER },
        { "sensor_read_by_type", "type", TEXT(""), false, KP_INVALID_PARAMETER },
        { "sensor_read_by_type", "type", NUMBER(0), false, KP_INVALID_PARAMETER },
        { "queue_add", "command", TEXT("move"), false, KP_OK },
        { "queue_add", "command", TEXT("get_status"), false, KP_OK },
        { "queue_add", "command", TEXT("queue_add"), false, KP_INVALID_PARAMETER },
        { "queue_add", "command", TEXT("emergency_stop"), false, KP_INVALID_PARAMETER },
        { "queue_add", "command", TEXT("moves"), false, KP_COMMAND_NOT_FOUND },
        { "queue_add", "command", TEXT("move\0"), false, KP_COMMAND_NOT_FOUND },
        { "queue_add", "command", { .kind = KP_OTHER }, false, KP_INVALID_PARAMETER },
        { "queue_batch", "commands", { .kind = KP_OTHER }, false, KP_OK },
        { "queue_batch", "commands", TEXT("[]"), true, KP_INVALID_PARAMETER },
        { "queue_batch", "commands", { .kind = KP_STRS }, false, KP_INVALID_PARAMETER },
        { "queue_batch", "commands", { .kind = KP_NUMS, .nums = xs, .count = 2 }, false, KP_INVALID_PARAMETER },
        { "queue_cancel", "queue_id", TEXT("0b5c1e1a-7d0f-4a4c-9a3e-1f2d3c4b5a69"), true, KP_OK },
        { "queue_cancel", "queue_id", TEXT("a b"), true, KP_INVALID_PARAMETER },
        { "queue_cancel", "queue_id", TEXT("../x"), true, KP_INVALID_PARAMETER },
        { "queue_cancel", "queue_id", TEXT(""), true, KP_INVALID_PARAMETER },
        { "queue_cancel", "queue_id", TEXT("a\0b"), true, KP_INVALID_PARAMETER },
        { "queue_cancel", "queue_id", TEXT("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), true, KP_INVALID_PARAMETER },
        { "queue_cancel", "queue_id", NUMBER(7), false, KP_INVALID_PARAMETER },
        { "queue_history", "limit", NUMBER(1001), false, KP_INVALID_PARAMETER },
        { "safety_events", "since", NUMBER(9007199254740991.0), false, KP_OK },
        { "safety_events", "since", NUMBER(9007199254740994.0), false, KP_INVALID_PARAMETER },
        { "safety_events", "level", TEXT("critical"), true, KP_OK },
        { "key_get", "id", TEXT("7"), true, KP_OK },
        { "key_get", "id", TEXT("{id}"), true, KP_INVALID_PARAMETER },
        { "pwm_ramp", "steps", NUMBER(6001), false, KP_INVALID_PARAMETER },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum kp_err rc = verdict(rows[i].command, rows[i].name, rows[i].v, rows[i].text);
        if (rc != rows[i].want)
            fail_msg("row %zu: %s %s gives %s", i, rows[i].command, rows[i].name, kp_err_name(rc));
        if (faults.count)
            assert_int_equal(((unsigned char *)&call)[0], 0x5a); /* written only on success */
        clean();
    }
}

static const struct kp_error *fault_of(const char *field)
{
    for (size_t i = 0; i < faults.count; i++)
        if (strcmp(faults.item[i].field, field) == 0)
            return &faults.item[i];
    fail_msg("no fault of %s", field);
    return NULL;
}

static void all_faults_at_once(void **state)
{
    (void)state;
    const struct kp_arg args[] = {
        { kp_str_of("x"), NUMBER(NAN), false }, { kp_str_of("y"), NUMBER(9999), false }, { kp_str_of("place_x"), TEXT("far"), false },
        { kp_str_of("feedrate"), NUMBER(0), false }, { kp_str_of("bogus"), NUMBER(1), false }, { kp_str_of("retries"), NUMBER(1), false },
        { kp_str_of("retries"), NUMBER(2), false }, { kp_str_of("vacuum_power"), NUMBER(999), false }, { kp_str_of("timeout_s"), TRUE_VALUE, false },
        { kp_str_of("pick_height"), NUMBER(-99), false },
    };
    assert_int_equal(check("pick_and_place", args, sizeof args / sizeof *args), KP_INVALID_PARAMETER);
    static const struct { const char *field; enum kp_err code; } want[] = {
        { "x", KP_INVALID_PARAMETER }, { "place_x", KP_INVALID_PARAMETER }, { "feedrate", KP_FEEDRATE_OUT_OF_BOUNDS },
        { "bogus", KP_INVALID_PARAMETER }, { "retries", KP_INVALID_PARAMETER }, { "vacuum_power", KP_PWM_OUT_OF_BOUNDS },
        { "timeout_s", KP_INVALID_PARAMETER }, { "place_y", KP_MISSING_PARAMETER },
        { "y", KP_POSITION_OUT_OF_BOUNDS }, { "pick_height", KP_POSITION_OUT_OF_BOUNDS }, /* the machine's limits too */
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        assert_int_equal(fault_of(want[i].field)->code, want[i].code);
    assert_int_equal(faults.count, sizeof want / sizeof *want);
    assert_true(fault_of("y")->got == 9999 && fault_of("y")->min == 0 && fault_of("y")->max == 200);
    assert_true(fault_of("feedrate")->got == 0 && fault_of("feedrate")->min == 1 && fault_of("feedrate")->max == 30000);
}

/* Which nozzle is meant is not known, so nothing is said about heights and offsets. */
static void no_guesses_behind_a_wrong_name(void **state)
{
    (void)state;
    const struct kp_arg args[] = { { kp_str_of("nozzle"), TEXT("N9"), false }, { kp_str_of("z"), NUMBER(-99), false } };
    assert_int_equal(check("pick", args, 2), KP_NOZZLE_NOT_FOUND);
    assert_int_equal(faults.count, 1);
    const struct kp_arg pin[] = { { kp_str_of("pin"), TEXT("light"), false } };
    assert_int_equal(check("gpio_write", pin, 1), KP_MISSING_PARAMETER);
    assert_int_equal(faults.count, 1);
    assert_string_equal(faults.item[0].field, "value");
    assert_int_equal(check("gpio_write", NULL, 0), KP_MISSING_PARAMETER);
    assert_int_equal(faults.count, 2);
}

static void client_bytes_stay_out_of_messages(void **state)
{
    (void)state;
    static const char *const names[] = { "pin\nM112", "\x1b[2J", "a;b", "\xff", "", "x\r\ny",
                                         "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct kp_value v = NUMBER(1);
        assert_int_equal(check_one("move", names[i], v, false), KP_INVALID_PARAMETER);
        assert_int_equal(faults.count, 1);
        clean();
        const struct kp_str axis = kp_str_of(names[i]);
        struct kp_value axes = { .kind = KP_STRS, .strs = &axis, .count = 1 };
        assert_int_equal(check_one("home", "axes", axes, false), KP_INVALID_PARAMETER);
        clean();
    }
    const struct kp_arg zero = { { "x\0y", 3 }, NUMBER(1), false };
    assert_int_equal(check("move", &zero, 1), KP_INVALID_PARAMETER);
    assert_string_equal(faults.item[0].field, "x?y");
}

static void free_text_is_cleaned(void **state)
{
    (void)state;
    static const struct { const char *in, *out; } rows[] = {
        { "smoke", "smoke" }, { "", "" }, { "two\nlines\t\x7f", "two?lines??" }, { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\xa5", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\xa5" },
        { "\xc3", "?" }, { "\xff\xc0\x80", "???" }, { "\xc2\x85 C1", "?? C1" }, { "\xed\xa0\x80", "???" }, { "\xf4\x90\x80\x80", "????" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_value v = text_value(rows[i].in);
        assert_int_equal(check_one("emergency_stop", "reason", v, false), KP_OK);
        assert_string_equal(kp_call_slot(&call, "reason")->text, rows[i].out);
    }
    char text[1000]; /* cut at a whole character */
    for (size_t i = 0; i < sizeof text; i += 2)
        memcpy(text + i, "\xc3\xa4", 2);
    struct kp_value v = { .kind = KP_STR, .str = { text, sizeof text } };
    assert_int_equal(check_one("emergency_stop", "reason", v, false), KP_OK);
    assert_int_equal(strlen(kp_call_slot(&call, "reason")->text), (KP_TEXT_MAX - 1) / 2 * 2);
}

/* What a slot holds of the parameters that are names of ours, and of those that are somebody else's business. */
static void words_commands_and_objects(void **state)
{
    (void)state;
    const struct kp_arg add[] = { { kp_str_of("command"), TEXT("pick"), false }, { kp_str_of("parameters"), { .kind = KP_OTHER }, false } };
    assert_int_equal(check("queue_add", add, 2), KP_OK);
    assert_int_equal(kp_call_slot(&call, "command")->index, KP_PICK);
    assert_string_equal(kp_call_slot(&call, "command")->text, "pick");
    assert_true(kp_call_slot(&call, "parameters")->set && kp_call_slot(&call, "priority")->num == 0);
    struct kp_value level = TEXT("warning"), id = TEXT("k_1-a");
    assert_int_equal(check_one("safety_events", "level", level, true), KP_OK);
    assert_int_equal(kp_call_slot(&call, "level")->index, KP_WARNING);
    assert_true(kp_call_slot(&call, "since")->num == 0 && kp_call_slot(&call, "limit")->num == 100);
    assert_int_equal(check_one("key_rotate", "id", id, true), KP_OK);
    assert_string_equal(kp_call_slot(&call, "id")->text, "k_1-a");
    const struct kp_arg twice[] = { { kp_str_of("id"), id, true }, { kp_str_of("id"), id, false } }; /* in the path and in the body */
    assert_int_equal(check("key_get", twice, 2), KP_INVALID_PARAMETER);
}

/* One that is meant when left out is looked up; where the machine lacks it, which one must be said. */
static void defaults_that_are_names(void **state)
{
    (void)state;
    struct kp_value d = NUMBER(4);
    assert_int_equal(check("fan_on", NULL, 0), KP_OK);
    assert_string_equal(kp_machine_fan(machine, (size_t)kp_call_slot(&call, "fan")->index)->name, "fan");
    assert_false(kp_call_slot(&call, "fan")->set);
    assert_int_equal(check_one("feeder_advance", "distance", d, false), KP_FEEDER_NOT_FOUND);
    assert_int_equal(faults.count, 1);
    assert_string_equal(faults.item[0].field, "feeder");
    struct kp_machine *seesaw = machine;
    machine = fixture_machine("single");
    assert_int_equal(check_one("feeder_retract", "distance", d, false), KP_OK);
    assert_string_equal(kp_machine_feeder(machine, (size_t)kp_call_slot(&call, "feeder")->index)->name, "feeder");
    kp_machine_free(machine);
    machine = seesaw;
}

/* The limits of klipperplace.cfg beside whatever else is wrong. */
static void limits_beside_other_faults(void **state)
{
    (void)state;
    struct kp_machine *seesaw = machine;
    machine = fixture_machine("limited");
    const struct kp_arg pwm[] = { { kp_str_of("pin"), TEXT("pump1"), false }, { kp_str_of("value"), NUMBER(0.9), false },
                                  { kp_str_of("cycle_time"), NUMBER(-1), false } };
    assert_int_equal(check("pwm_set", pwm, 3), KP_INVALID_PARAMETER);
    assert_int_equal(faults.count, 2);
    assert_int_equal(fault_of("value")->code, KP_PWM_OUT_OF_BOUNDS);
    assert_true(fault_of("value")->got == 0.9 && fault_of("value")->min == 0.2 && fault_of("value")->max == 0.8);
    const struct kp_arg fan[] = { { kp_str_of("speed"), NUMBER(0.7), false }, { kp_str_of("bogus"), NUMBER(1), false } };
    assert_int_equal(check("fan_set", fan, 2), KP_INVALID_PARAMETER);
    assert_int_equal(fault_of("speed")->code, KP_FAN_SPEED_OUT_OF_BOUNDS);
    kp_machine_free(machine);
    machine = seesaw;
}

/* [gcode_driver] default_timeout is that of commands which neither say nor have their own. */
static void time_of_the_configuration(void **state)
{
    static const struct { const char *command; double want_s; } rows[] = {
        { "move", 45 }, { "gpio_write", 45 }, { "wait", 45 }, { "home", 120 }, { "pick_and_place", 60 }, { "get_status", 0 },
    };
    const struct kp_value own = NUMBER(7);
    struct kp_machine *seesaw = machine;
    (void)state;
    machine = fixture_machine("limited");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct kp_arg args[] = { { kp_str_of("pin"), TEXT("valve1"), false }, { kp_str_of("value"), NUMBER(1), false },
                                       { kp_str_of("x"), NUMBER(1), false }, { kp_str_of("y"), NUMBER(1), false },
                                       { kp_str_of("place_x"), NUMBER(1), false }, { kp_str_of("place_y"), NUMBER(1), false } };
        size_t from = strcmp(rows[i].command, "gpio_write") == 0 ? 0 : 2;
        size_t count = from == 0 ? 2 : strcmp(rows[i].command, "pick_and_place") == 0 ? 4 : 0;
        assert_int_equal(check(rows[i].command, args + from, count), KP_OK);
        assert_true(call.timeout_s == rows[i].want_s);
    }
    assert_int_equal(check_one("move", "timeout_s", own, false), KP_OK);
    assert_true(call.timeout_s == 7);
    kp_machine_free(machine);
    machine = seesaw;
}

static void defaults_and_slots(void **state)
{
    (void)state;
    assert_int_equal(check("pick", NULL, 0), KP_OK);
    assert_true(kp_call_slot(&call, "vacuum_power")->num == 255 && !kp_call_slot(&call, "vacuum_power")->set);
    assert_true(isnan(kp_call_slot(&call, "z")->num) && !kp_call_slot(&call, "verify")->set);
    assert_int_equal(kp_call_slot(&call, "nozzle")->index, -1);
    assert_true(call.timeout_s == 30);
    assert_int_equal(check("home", NULL, 0), KP_OK);
    assert_true(call.timeout_s == 120 && kp_call_slot(&call, "axes")->axes == 0);
    assert_int_equal(check("pick_and_place", NULL, 0), KP_MISSING_PARAMETER);
    struct kp_value v = NUMBER(7);
    assert_int_equal(check_one("wait", "timeout", v, false), KP_OK);
    assert_true(call.timeout_s == 7);
    const struct kp_str axes[] = { kp_str_of("Z"), kp_str_of("x") };
    struct kp_value a = { .kind = KP_STRS, .strs = axes, .count = 2 };
    assert_int_equal(check_one("home", "axes", a, false), KP_OK);
    assert_int_equal(kp_call_slot(&call, "axes")->axes, 5);
    struct kp_value pin = TEXT("!mcu2:PA0");
    assert_int_equal(check_one("gpio_read", "pin", pin, true), KP_OK);
    assert_true(kp_call_slot(&call, "pin")->inverted);
    assert_string_equal(kp_machine_pin(machine, (size_t)kp_call_slot(&call, "pin")->index)->name, "light");
}

static void too_many(void **state)
{
    (void)state;
    struct kp_arg args[KP_ARGS_MAX + 1];
    for (size_t i = 0; i <= KP_ARGS_MAX; i++)
        args[i] = (struct kp_arg){ .name = kp_str_of("q"), .value = NUMBER(1) };
    assert_int_equal(check("move", args, KP_ARGS_MAX + 1), KP_INVALID_REQUEST);
    assert_int_equal(faults.count, 1);
    assert_int_equal(check("move", args, KP_ARGS_MAX), KP_INVALID_PARAMETER);
    assert_int_equal(faults.count + faults.dropped, KP_ARGS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values),
        cmocka_unit_test(all_faults_at_once),
        cmocka_unit_test(no_guesses_behind_a_wrong_name),
        cmocka_unit_test(client_bytes_stay_out_of_messages),
        cmocka_unit_test(free_text_is_cleaned),
        cmocka_unit_test(words_commands_and_objects),
        cmocka_unit_test(defaults_that_are_names),
        cmocka_unit_test(limits_beside_other_faults),
        cmocka_unit_test(time_of_the_configuration),
        cmocka_unit_test(defaults_and_slots),
        cmocka_unit_test(too_many),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
