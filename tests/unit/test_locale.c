/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The same bytes under a locale that writes 1,5 for one and a half: configuration, arguments, G-code, scripts and messages read and print numbers alike.
 * The locale is made here by localedef, so that none need be installed; without one this test fails, and says why. */
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "gcode_fixture.h"

#include <cmocka.h>

static char folder[] = P_tmpdir "/kp-locale-XXXXXX";

/* Makes de_DE.UTF-8 in a folder of its own. */
static int comma_locale(void **state)
{
    char command[256];
    double v = 0;
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 '%s/de_DE.UTF-8'", folder);
    int made = system(command);
    setenv("LOCPATH", folder, 1);
    if (setlocale(LC_ALL, "de_DE.UTF-8"))
        v = strtod("1,5", NULL);
    setlocale(LC_ALL, "C");
    if (v > 1.4)
        return 0;
    fprintf(stderr, "no comma locale: `%s` ended with %d; Debian's package locales has what it reads\n", command, made);
    return -1;
}

static int remove_locale(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    return system(command);
}

static void of_config(struct shown *s)
{
    static struct kp_faults f;
    struct kp_config *c = kp_config_new();
    f.count = 0;
    kp_config_parse(c, "k.cfg", kp_str_of("[safety]\nmax_x_position: 250.5\nmax_velocity: 1,5\nmax_pwm_value: .25\n"
        "[nozzle N1]\ndwell: 1.5.\nsafe_z: -0.125\n"), &f);
    for (size_t i = 0; i < f.count; i++)
        show(s, "%s %s\n", f.item[i].field, f.item[i].message);
    static const char *const options[] = { "max_x_position", "max_velocity", "max_pwm_value" };
    for (size_t i = 0; i < 3; i++) {
        char digits[KP_NUMBER_MAX] = "?";
        kp_number_print(digits, kp_config_num(c, "safety", options[i]), 6);
        show(s, "%s %s %d\n", options[i], digits, kp_config_num(c, "safety", options[i]) > 0.2);
    }
    kp_config_free(c);
}

static void of_plan(struct shown *s, const struct kp_machine *m, const char *x, double y)
{
    static struct kp_faults f;
    struct kp_call call;
    struct kp_seq *seq = NULL;
    struct kp_arg args[] = {
        { .name = kp_str_of("x"), .value = text_value(x), .text = true }, { .name = kp_str_of("y"), .value = number_value(y) },
        { .name = kp_str_of("a"), .value = number_value(-0.375) },
    };
    f.count = 0;
    if (kp_check(m, kp_command_by_name(kp_str_of("move")), args, 3, &call, &f) == KP_OK)
        kp_seq_plan(&seq, m, &call, false, &f);
    for (size_t i = 0; i < f.count; i++)
        show(s, "%s %s\n", f.item[i].field, f.item[i].message);
    for (size_t i = 0; seq && kp_seq_gcode(seq, i); i++)
        show(s, "%s\n", kp_seq_gcode(seq, i));
    kp_seq_free(seq);
}

static void of_gcode(struct shown *s)
{
    static const char *const lines[] = {
        "G1 X10.25 Y.5 F1200.5", "G1 X1,5", "G20 G1 X1.5", "G21 M204 S1500.5", "G4 P1.5", "M42 P2 S127", "SET_PIN PIN=pump1 VALUE=0.5",
        "SET_PIN PIN=pump1 VALUE=0,5",
        "G1 X400.125", "M105", "G92 X0.125", "M114", "G2 X20.5 Y10.5 I2.5 J.5", "M106 S12.5",
    };
    struct gcode_rig r;
    assert_true(rig_open(&r, "openpnp"));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        rig_line(&r, lines[i], strlen(lines[i]), s);
    rig_close(&r);
}

static void of_script(struct shown *s, const struct kp_machine *m)
{
    char script[KP_SCRIPT_MAX];
    assert_true(kp_script_neutral(m, script) > 0);
    show(s, "%s\n", script);
}

/* All that reads or prints a number, as text. */
static void produce(struct shown *s)
{
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_error e;
    kp_machine_axis_written(m, 3, 0, true);
    of_config(s);
    of_plan(s, m, "1.5", 2.25);
    of_plan(s, m, "1,5", 2.25);
    of_plan(s, m, "300.5", -0.5);
    tell_point(m, "toolhead", "position", 0.125, 1.5, -2.5);
    tell_point(m, "gcode_move", "position", 0.125, 1.5, -2.5);
    of_script(s, m);
    kp_error_set(&e, KP_TIMEOUT, "f", "%g and %d", 1234.5, 7);
    show(s, "%s\n", e.message);
    kp_error_range(&e, KP_TIMEOUT, "f", "mm", 0.5, 1.25, 2.75);
    show(s, "%s\n", e.message);
    of_gcode(s);
    kp_machine_free(m);
}

static void test_alike(void **state)
{
    static char plain[65536], comma[65536];
    struct shown a = { plain, 0, sizeof plain }, b = { comma, 0, sizeof comma };
    (void)state;
    produce(&a);
    assert_non_null(setlocale(LC_ALL, "de_DE.UTF-8"));
    assert_true(strtod("2,5", NULL) > 2.4); /* it is one */
    produce(&b);
    setlocale(LC_ALL, "C");
    assert_string_equal(comma, plain);
    assert_non_null(strstr(plain, "G1 X1.5 Y2.25 F1500\n"));
    assert_non_null(strstr(plain, "G1 X38.1 ")); /* 1.5 inches */
    assert_non_null(strstr(plain, "1234.5 and 7\n"));
}

/* Digits, a point and a sign are all that a number has, under any locale. */
static void test_numbers(void **state)
{
    static const char *const bad[] = { "1,5", "1.000,5", "1.5,", "\xc2\xa0" "1", "1e5", "nan", "inf" };
    char digits[KP_NUMBER_MAX];
    double v = 0;
    (void)state;
    assert_non_null(setlocale(LC_ALL, "de_DE.UTF-8"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kp_number_parse(kp_str_of(bad[i]), &v));
    assert_true(kp_number_parse(kp_str_of("1.5"), &v) && v > 1.4 && v < 1.6);
    kp_number_print(digits, -1234567.25, 6);
    assert_string_equal(digits, "-1234567.25");
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_alike), cmocka_unit_test(test_numbers) };
    return cmocka_run_group_tests_name("locale", tests, comma_locale, remove_locale);
}
