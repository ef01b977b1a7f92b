/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Numbers that are none, have no size or too many digits, at every limit there is: each number of every command, of the configuration, of a line of G-code and
 * of what Klipper tells. What is outside is refused by name, and whatever is accepted prints as a plain decimal number. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "gcode_fixture.h"

#include <cmocka.h>

#define COUNT(a) (sizeof (a) / sizeof *(a))
#define NINES "9999999999999999999999999999999999999999" /* 40 digits */
#define ZEROS "0000000000000000000000000000000000000000"

static const double extremes[] = { NAN, INFINITY, -INFINITY, 1e308, -1e308, -0.0, DBL_MIN, -DBL_MIN, 4.9e-324, 1e15, -1e15, 1e39 };
static const char *const texts[] = { "nan", "NaN", "inf", "-inf", "Infinity", "1e308", "-1e308", "0x1p4", "", "-", NINES NINES, "--1", "1,5" };

/* Every number of a script is one that libkp itself reads back, and none is -0. */
static void numbers_plain(const char *script)
{
    for (const char *at = script; *at;) {
        size_t n = strcspn(at, " \n");
        const char *is = memchr(at, '=', n);
        struct kp_str s = is ? (struct kp_str){ is + 1, n - (size_t)(is - at) - 1 } : (struct kp_str){ at + 1, n - 1 };
        double v;
        if (n > 1 && s.n > 0 && strchr("-.0123456789", s.p[0])) {
            assert_true(kp_number_parse(s, &v) && fabs(v) < 1e15);
            assert_false(s.p[0] == '-' && v == 0);
        }
        at += n + (at[n] != 0);
    }
}

static bool fault_of(const struct kp_faults *f, const char *field)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->item[i].field, field) == 0)
            return true;
    return false;
}

/* ---- every number of every command ---- */

static struct kp_value some_value(const struct kp_param *p)
{
    switch (p->type) {
    case KP_P_NUM:
    case KP_P_INT: return number_value(isinf(p->min) || isinf(p->max) ? 10 : floor((p->min + p->max) / 2));
    case KP_P_BOOL: return (struct kp_value){ .kind = KP_BOOL };
    case KP_P_PIN_IN:
    case KP_P_PIN_OUT: return text_value("light");
    case KP_P_SENSOR: return text_value("vacuum1");
    case KP_P_NOZZLE: return text_value("N1");
    case KP_P_FEEDER: return text_value("feeder1");
    default: return text_value("x");
    }
}

/* The command with its required parameters and this one. True: the check has no fault that names it. */
static bool passes(const struct kp_machine *m, const struct kp_command *c, const struct kp_param *tried, struct kp_value v, bool text)
{
    static struct kp_faults f;
    struct kp_arg args[KP_ARGS_MAX];
    struct kp_call call;
    struct kp_seq *s = NULL;
    size_t n = 0;
    f.count = f.dropped = 0;
    for (const struct kp_param *p = c->params; p->name; p++)
        if (p == tried || (p->flags & KP_REQUIRED))
            args[n++] = (struct kp_arg){ .name = kp_str_of(p->name), .value = p == tried ? v : some_value(p), .text = p == tried && text };
    enum kp_err rc = kp_check(m, c, args, n, &call, &f);
    bool passed = !fault_of(&f, tried->name) || f.item[0].code == KP_POSITION_OUT_OF_BOUNDS;
    if (rc != KP_OK)
        return passed;
    for (size_t i = 0; c->params[i].name; i++)
        if (&c->params[i] == tried)
            assert_true(isfinite(call.slot[i].num));
    if (c->strategy == KP_GCODE && kp_seq_plan(&s, m, &call, false, &f) == KP_OK) {
        for (size_t i = 0; kp_seq_gcode(s, i); i++)
            numbers_plain(kp_seq_gcode(s, i));
        if (isinf(tried->min) && v.kind == KP_NUM)
            assert_true(fabs(v.num) < 1e6); /* nothing on this machine goes further */
    }
    kp_seq_free(s);
    return true;
}

static void try_param(const struct kp_machine *m, const struct kp_command *c, const struct kp_param *p)
{
    for (size_t i = 0; i < COUNT(extremes); i++) {
        double v = extremes[i];
        bool whole = p->type == KP_P_NUM || v == floor(v);
        if (passes(m, c, p, number_value(v), false) != (isfinite(v) && v >= p->min && v <= p->max && whole))
            fail_msg("%s %s: extreme %zu", c->name, p->name, i);
    }
    for (size_t i = 0; i < COUNT(texts); i++)
        if (passes(m, c, p, text_value(texts[i]), true) && !(isinf(p->max) && texts[i][0] == '9'))
            fail_msg("%s %s: \"%s\"", c->name, p->name, texts[i]);
    if (isinf(p->min))
        return;
    assert_true(passes(m, c, p, number_value(p->min), false) && passes(m, c, p, number_value(p->max), false));
    assert_false(passes(m, c, p, number_value(nextafter(p->min, -INFINITY)), false) || passes(m, c, p, number_value(nextafter(p->max, INFINITY)), false));
}

static void test_commands(void **state)
{
    size_t count, tried = 0;
    const struct kp_command *rows = kp_commands(&count);
    struct kp_machine *m = fixture_machine("seesaw");
    (void)state;
    for (size_t i = 0; i < count; i++)
        for (const struct kp_param *p = rows[i].params; p->name; p++)
            if (p->type == KP_P_NUM || p->type == KP_P_INT) {
                try_param(m, &rows[i], p);
                tried++;
            }
    assert_true(tried >= 30);
    kp_machine_free(m);
}

/* ---- the machine's own limits ---- */

static enum kp_err move(const struct kp_machine *m, const char *axis, double v, double feedrate, char line[128])
{
    static struct kp_faults f;
    struct kp_call call;
    struct kp_seq *s = NULL;
    struct kp_arg args[] = { { .name = kp_str_of(axis), .value = number_value(v) }, { .name = kp_str_of("feedrate"), .value = number_value(feedrate) } };
    f.count = f.dropped = 0;
    enum kp_err rc = kp_check(m, kp_command_by_name(kp_str_of("move")), args, isnan(feedrate) ? 1 : 2, &call, &f);
    if (rc == KP_OK)
        rc = kp_seq_plan(&s, m, &call, false, &f);
    line[0] = 0;
    if (rc == KP_OK) {
        numbers_plain(kp_seq_gcode(s, 0));
        snprintf(line, 128, "%s", kp_seq_gcode(s, 0));
    }
    kp_seq_free(s);
    return rc;
}

static void test_moves(void **state)
{
    static const struct { const char *axis; double v, feedrate; const char *line; enum kp_err want; } rows[] = {
        { "x", 0, NAN, "G1 X0 F1500", KP_OK }, { "x", -0.0, NAN, "G1 X0 F1500", KP_OK }, { "x", 300, NAN, "G1 X300 F1500", KP_OK },
        { "x", 300.0000004, NAN, "G1 X300 F1500", KP_OK }, { "x", -0.0000004, NAN, "G1 X0 F1500", KP_OK },
        { "x", 300.000001, NAN, "", KP_POSITION_OUT_OF_BOUNDS }, { "x", -0.000001, NAN, "", KP_POSITION_OUT_OF_BOUNDS },
        { "z", -32, NAN, "G1 Z-32 F1500", KP_OK }, { "z", -32.000001, NAN, "", KP_POSITION_OUT_OF_BOUNDS },
        { "z", 32.000001, NAN, "", KP_POSITION_OUT_OF_BOUNDS },
        { "x", 1e308, NAN, "", KP_POSITION_OUT_OF_BOUNDS }, { "x", NAN, NAN, "", KP_INVALID_PARAMETER }, { "x", INFINITY, NAN, "", KP_INVALID_PARAMETER },
        { "x", 5e-324, NAN, "G1 X0 F1500", KP_OK },
        { "x", 1, 1, "G1 X1 F1", KP_OK }, { "x", 1, 30000, "G1 X1 F30000", KP_OK }, { "x", 1, 0.9999999999, "", KP_FEEDRATE_OUT_OF_BOUNDS },
        { "x", 1, 30000.000001, "", KP_FEEDRATE_OUT_OF_BOUNDS }, { "x", 1, -0.0, "", KP_FEEDRATE_OUT_OF_BOUNDS },
        { "x", 1, INFINITY, "", KP_INVALID_PARAMETER },
        { "c", 5, NAN, "MANUAL_STEPPER STEPPER=drag MOVE=5 SPEED=10 SYNC=0", KP_OK }, { "c", 5.000001, NAN, "", KP_POSITION_OUT_OF_BOUNDS },
        { "a", -0.0, NAN, "MANUAL_STEPPER STEPPER=rotation1 MOVE=0 SPEED=360 ACCEL=3600 SYNC=0", KP_OK }, { "a", 1e308, NAN, "", KP_POSITION_OUT_OF_BOUNDS },
        { "a", NAN, NAN, "", KP_INVALID_PARAMETER },
    };
    struct kp_machine *m = fixture_machine("seesaw");
    char line[128];
    (void)state;
    kp_machine_axis_written(m, 3, 0, true);
    kp_machine_axis_written(m, 5, 0, true);
    for (size_t i = 0; i < COUNT(rows); i++) {
        enum kp_err rc = move(m, rows[i].axis, rows[i].v, rows[i].feedrate, line);
        if (rc != rows[i].want || strcmp(line, rows[i].line) != 0)
            fail_msg("row %zu: %s \"%s\"", i, kp_err_name(rc), line);
    }
    kp_machine_free(m);
}

/* What Klipper tells may be anything: a limit that is no number is no permission, a position that is none is not known, and nothing breaks. */
static void test_told(void **state)
{
    char line[128], script[KP_SCRIPT_MAX];
    (void)state;
    for (size_t i = 0; i < COUNT(extremes); i++) {
        double v = extremes[i], xyz[3];
        struct kp_value value = number_value(v);
        struct kp_machine *m = fixture_machine("seesaw");
        kp_machine_setting(m, kp_str_of("stepper_x"), kp_str_of("position_max"), &value);
        kp_machine_setting(m, kp_str_of("printer"), kp_str_of("max_velocity"), &value);
        kp_machine_resolve(m, NULL);
        tell_point(m, "toolhead", "axis_maximum", v, v, v);
        tell(m, "toolhead", "max_velocity", value);
        tell(m, "output_pin valve1", "value", value);
        tell(m, "temperature_sensor vacuum1", "temperature", value);
        kp_machine_axis_written(m, 3, v, true);
        enum kp_err rc = move(m, "x", 1e9, NAN, line);
        assert_true(rc != KP_OK || v > 1e9);
        move(m, "x", 1, NAN, line);
        move(m, "a", 90, NAN, line);
        kp_safety_check(m, 5000);
        tell_point(m, "gcode_move", "position", v, v, v);
        tell_point(m, "toolhead", "position", v, v, v);
        if (kp_machine_commanded(m, xyz))
            assert_true(isfinite(xyz[0]) && isfinite(xyz[1]) && isfinite(xyz[2]));
        if (kp_script_neutral(m, script) > 0)
            numbers_plain(script);
        kp_safety_check(m, 10000);
        kp_machine_free(m);
    }
}

/* ---- the configuration ---- */

static bool option_takes(const struct kp_option *o, const char *text, double *got)
{
    static struct kp_faults f;
    char file[512];
    struct kp_config *c = kp_config_new();
    f.count = f.dropped = 0;
    snprintf(file, sizeof file, "[%s]\n%s: %s\n", o->section, o->name, text);
    bool ok = kp_config_parse(c, "k.cfg", kp_str_of(file), &f) == KP_OK;
    *got = kp_config_num(c, o->section, o->name);
    kp_config_free(c);
    return ok;
}

static void test_options(void **state)
{
    size_t count, tried = 0;
    const struct kp_option *rows = kp_options(&count);
    double v;
    (void)state;
    for (size_t i = 0; i < count; i++) {
        const struct kp_option *o = &rows[i];
        char text[KP_NUMBER_MAX];
        if ((o->type != KP_T_NUM && o->type != KP_T_INT) || strchr(o->section, '*') || o->refused)
            continue;
        tried++;
        for (size_t k = 0; k < COUNT(texts); k++)
            if (option_takes(o, texts[k], &v) && !(isinf(o->max) && texts[k][0] == '9'))
                fail_msg("%s %s takes %s", o->section, o->name, texts[k]);
        assert_int_equal(option_takes(o, NINES, &v), isinf(o->max));
        assert_int_equal(option_takes(o, "-0", &v), o->min <= 0 && o->max >= 0);
        assert_int_equal(option_takes(o, "0." ZEROS "1", &v), o->type == KP_T_NUM && o->min <= 1e-41 && o->max >= 0);
        for (int end = 0; end < 2; end++)
            if (strncmp(o->name, end ? "min_" : "max_", 4) != 0 && /* these are also held against each other */
                kp_number_print(text, end ? o->max : o->min, 6) > 0 && !option_takes(o, text, &v))
                fail_msg("%s %s does not take %s", o->section, o->name, text);
    }
    assert_true(tried >= 15);
}

/* ---- lines of G-code ---- */

static void test_lines(void **state)
{
    static const struct { const char *line; enum kp_err want; const char *script; } rows[] = {
        { "G1 X-0", KP_OK, "G1 X0 F1500" }, { "G1 X" ZEROS "1", KP_OK, "G1 X1 F1500" }, { "G1 X0." ZEROS "1", KP_OK, "G1 X0 F1500" },
        { "G1 X1." NINES, KP_OK, "G1 X2 F1500" }, { "G1 X300 Y200 Z32 F30000", KP_OK, "G1 X300 Y200 Z32 F30000" },
        { "G1 X300.000001", KP_POSITION_OUT_OF_BOUNDS, "" }, { "G1 X-.000001", KP_POSITION_OUT_OF_BOUNDS, "" },
        { "G1 X" NINES, KP_POSITION_OUT_OF_BOUNDS, "" }, { "G1 X-" NINES, KP_POSITION_OUT_OF_BOUNDS, "" },
        { "G1 XNAN", KP_INVALID_REQUEST, "" }, { "G1 XINF", KP_INVALID_REQUEST, "" }, { "G1 X1E308", KP_INVALID_PARAMETER, "" },
        { "G1 X1 F" NINES, KP_FEEDRATE_OUT_OF_BOUNDS, "" }, { "G1 X1 F0", KP_FEEDRATE_OUT_OF_BOUNDS, "" }, { "G1 X1 F-0", KP_FEEDRATE_OUT_OF_BOUNDS, "" },
        { "G1 X1 F0." ZEROS "1", KP_FEEDRATE_OUT_OF_BOUNDS, "" },
        { "G4 P" NINES, KP_INVALID_PARAMETER, "" }, { "G4 P-0", KP_OK, "" }, { "M204 S" NINES, KP_INVALID_PARAMETER, "" },
        { "M204 S-0", KP_INVALID_PARAMETER, "" },
        { "G2 X10 Y10 I" NINES " J" NINES, KP_INVALID_PARAMETER, "" }, { "G2 X10 Y10 R" NINES, KP_INVALID_PARAMETER, "" },
        { "M106 S" NINES, KP_FAN_SPEED_OUT_OF_BOUNDS, "" }, { "M104 S" NINES, KP_TEMPERATURE_OUT_OF_BOUNDS, "" }, { "M104 S-0", KP_OK, "M104 S0" },
        { "G" NINES, KP_INVALID_REQUEST, "" }, { "N" NINES " G1 X1", KP_INVALID_REQUEST, "" }, { "M" NINES, KP_INVALID_REQUEST, "" },
        { "T" NINES, KP_INVALID_REQUEST, "" },
        { "G92 X" NINES, KP_INVALID_PARAMETER, "" }, { "SET_PIN PIN=pump1 VALUE=" NINES, KP_PWM_OUT_OF_BOUNDS, "" },
        { "SET_PIN PIN=pump1 VALUE=nan", KP_INVALID_PARAMETER, "" }, { "SET_PIN PIN=pump1 VALUE=1e0", KP_INVALID_PARAMETER, "" },
        { "SET_PIN PIN=pump1 VALUE=-0", KP_OK, "SET_PIN PIN=pump1 VALUE=0" },
    };
    (void)state;
    size_t bad = 0;
    for (size_t i = 0; i < COUNT(rows); i++) {
        static struct kp_gcode_line line;
        struct gcode_rig r;
        struct kp_gcode_fault fault;
        struct kp_gcode_action a;
        bool found = !rows[i].script[0];
        assert_true(rig_open(&r, "plain"));
        enum kp_err rc = kp_gcode_parse(kp_str_of(rows[i].line), &line, &fault);
        if (rc == KP_OK)
            rc = kp_modal_line(r.g, &line, &fault);
        while (kp_modal_next(r.g, &a))
            if (a.text) {
                numbers_plain(a.text);
                found = found || strstr(a.text, rows[i].script);
            }
        if (rc != rows[i].want || !found)
            fprintf(stderr, "%s: %s %s\n", rows[i].line, kp_err_name(rc), rc ? fault.error.message : ""), bad++;
        rig_close(&r);
    }
    assert_int_equal(bad, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands), cmocka_unit_test(test_moves), cmocka_unit_test(test_told), cmocka_unit_test(test_options),
        cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
