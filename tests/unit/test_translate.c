/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Klipper text: the shim's own scripts, words of a script, and what happens to a name or length that cannot be written. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "plan_fixture.h"

#include <cmocka.h>

#include "translate.c" /* no machine reaches its limits from outside */

/* To the last bit: an offset of any size keeps Klipper from the very end of an axis. */
static void neutral_state_is_made_where_the_head_stands(void **state)
{
    (void)state;
    char text[KP_SCRIPT_MAX];
    struct kp_machine *m = fixture_machine("bare");
    tell_point(m, "toolhead", "position", 100.25, 1 / 240.0, -0.1);
    tell_point(m, "gcode_move", "position", 100.25, 1 / 240.0, -0.1);
    size_t n = kp_script_neutral(m, text);
    assert_string_equal(text, "SAVE_GCODE_STATE NAME=_kp_client\nG90\nM220 S100\nSET_GCODE_OFFSET X=0 Y=0 Z=0\nG92 X100.25 Y0.0041666666666666666 Z-0.100000000000000005\n"
                              "SAVE_GCODE_STATE NAME=_kp_zero\nRESTORE_GCODE_STATE NAME=_kp_client");
    assert_int_equal(n, strlen(text));
    kp_machine_free(m);
}

static void no_neutral_state_without_a_position(void **state)
{
    (void)state;
    char text[KP_SCRIPT_MAX] = "untouched";
    struct kp_config *c = kp_config_new();
    struct kp_machine *m = kp_machine_new(c);
    assert_int_equal(kp_script_neutral(m, text), 0);
    assert_string_equal(text, "untouched");
    kp_machine_free(m);
    kp_config_free(c);
}

/* One line more would have to be taken back where GCODE_AXIS is not known: the first is refused there. */
static void axes_are_joined_at_0(void **state)
{
    (void)state;
    char text[KP_SCRIPT_MAX];
    struct kp_machine *m = fixture_machine("joined");
    size_t n = kp_script_join(m, 3, text);
    assert_string_equal(text, "M400\nMANUAL_STEPPER STEPPER=rotation1 GCODE_AXIS= SPEED=0\nMANUAL_STEPPER STEPPER=rotation1 SET_POSITION=0\n"
                              "MANUAL_STEPPER STEPPER=rotation1 GCODE_AXIS=A LIMIT_VELOCITY=360 LIMIT_ACCEL=3600");
    assert_int_equal(n, strlen(text));
    n = kp_script_unjoin(m, 3, text);
    assert_string_equal(text, "M400\nMANUAL_STEPPER STEPPER=rotation1 GCODE_AXIS=");
    assert_int_equal(n, strlen(text));
    kp_machine_free(m);
}

static void small_scripts(void **state)
{
    (void)state;
    assert_string_equal(kp_script_restore(), "RESTORE_GCODE_STATE NAME=_kp_client");
    assert_string_equal(kp_script_flush(), "G4 P0");
}

static void first_words(void **state)
{
    (void)state;
    static const struct { const char *script; size_t i; const char *word; } rows[] = {
        { "G28\nSET_PIN PIN=a VALUE=1\nM400", 0, "G28" }, { "G28\nSET_PIN PIN=a VALUE=1\nM400", 1, "SET_PIN" },
        { "G28\nSET_PIN PIN=a VALUE=1\nM400", 2, "M400" }, { "G28\nSET_PIN PIN=a VALUE=1\nM400", 3, NULL },
        { "", 0, NULL }, { "G28\n", 1, NULL }, { "G28", 99, NULL },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_str w = { "old", 3 };
        assert_int_equal(kp_script_word(rows[i].script, rows[i].i, &w), rows[i].word != NULL);
        assert_true(kp_str_eq(w, rows[i].word ? rows[i].word : "old"));
    }
}

/* What a machine of ours with the longest names gives: it fits. */
static void the_longest_names_fit(void **state)
{
    (void)state;
    char name[4][KP_NAME_MAX], cfg[2048], section[320];
    struct kp_faults f = { .count = 0 };
    struct kp_config *c = kp_config_new();
    for (int i = 0; i < 4; i++) { /* an object's name has KP_NAME_MAX - 1 bytes with "output_pin " or "manual_stepper " */
        memset(name[i], 'a' + i, sizeof name[i]);
        name[i][KP_NAME_MAX - 1 - (i == 3 ? 15 : 11)] = 0;
    }
    snprintf(cfg, sizeof cfg, "[axis A]\nstepper: manual_stepper %s\nvelocity: 123.456789\nacceleration: 12345.678901\nrotary: true\n"
             "[nozzle N1]\nrotation_axis: A\npump: %s\nvalve: %s\nblow_off: %s\nsafe_z: -5\npick_height: -29.123456\nplace_height: -28.123456\n",
             name[3], name[0], name[1], name[2]);
    assert_int_equal(kp_config_parse(c, "long", kp_str_of(cfg), &f), KP_OK);
    struct kp_machine *m = kp_machine_new(c);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        kp_machine_command(m, kp_str_of(words[i]));
    for (int i = 0; i < 4; i++) {
        struct kp_value v = text_value("PA1");
        snprintf(section, sizeof section, "%s %s", i == 3 ? "manual_stepper" : "output_pin", name[i]);
        kp_machine_setting(m, kp_str_of(section), kp_str_of(i == 3 ? "step_pin" : "pin"), &v);
        kp_machine_object(m, kp_str_of(section));
    }
    assert_int_equal(kp_machine_resolve(m, &f), KP_OK);
    fixture_status(m);
    static const char *const names[] = { "x", "y", "place_x", "place_y", "rotation", "feedrate", "safe_height" };
    static const double numbers[] = { 123.456789, 123.456789, 223.456789, 123.456788, 123.456789, 12345.678901, -4.123456 };
    struct kp_arg args[7];
    struct kp_call call;
    struct kp_seq *s = NULL;
    for (size_t i = 0; i < 7; i++)
        args[i] = (struct kp_arg){ .name = kp_str_of(names[i]), .value = number_value(numbers[i]) };
    assert_int_equal(kp_check(m, kp_command_by_name(kp_str_of("pick_and_place")), args, 7, &call, &f), KP_OK);
    assert_int_equal(kp_seq_plan(&s, m, &call, true, &f), KP_OK);
    struct kp_action a;
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    assert_true(strlen(a.text) > 1000 && strlen(a.text) < KP_SCRIPT_MAX);
    assert_string_equal(a.text + strlen(a.text) - 5, "\nM400");
    kp_seq_free(s);
    kp_machine_free(m);
    kp_config_free(c);
}

static void what_does_not_fit_is_broken_and_never_cut(void **state)
{
    (void)state;
    struct tr_script s;
    for (size_t n = 1; n < KP_NAME_MAX; n++) { /* lengths that end before, at and behind the last byte */
        char name[KP_NAME_MAX] = "";
        memset(name, 'a', n);
        tr_start(&s);
        while (s.fault == TR_OK) {
            assert_true(s.len < sizeof s.text && strlen(s.text) == s.len);
            tr_pin(&s, name, 0.5);
        }
        assert_int_equal(s.fault, TR_TOO_LONG);
        assert_true(s.len < sizeof s.text && strlen(s.text) == s.len);
    }
    tr_start(&s);
    tr_wait(&s);
    assert_string_equal(s.text, "M400");
}

static void bad_names_and_numbers_break_the_script(void **state)
{
    (void)state;
    static const char *const names[] = { "", "a b", "a\nM112", "a;b", "a-b", "\xc3\xa4" };
    static const double numbers[] = { NAN, INFINITY, -INFINITY, 1e15 };
    struct tr_script s;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tr_start(&s);
        tr_pin(&s, names[i], 1);
        assert_int_equal(s.fault, TR_NAME);
        tr_start(&s);
        tr_stepper_zero(&s, names[i], true);
        assert_int_equal(s.fault, TR_NAME);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        tr_start(&s);
        tr_pin(&s, "a", numbers[i]);
        assert_int_equal(s.fault, TR_NUMBER);
        tr_start(&s);
        tr_move(&s, (const double[]){ 1, NAN, NAN }, NULL, 0, numbers[i]);
        assert_int_equal(s.fault, TR_NUMBER);
    }
}

static void a_barrier_ends_with_where_the_head_is(void **state)
{
    (void)state;
    static const struct { const char *line; bool good; } rows[] = {
        { "X:1.500 Y:-2.000 Z:0.025 E:0.000", true }, { "X:1.5 Y:-2 Z:0.025", true }, { "X:1.5 Y:-2", false }, { "", false }, { "x:open y:open", false },
        { "X:1e3 Y:0 Z:0", false }, { "X: Y: Z:", false }, { "ok X:1 Y:2 Z:3", false },
    };
    double at[3];
    struct kp_str word;
    assert_string_equal(kp_script_barrier(false), "SAVE_GCODE_STATE NAME=_kp_client\nRESTORE_GCODE_STATE NAME=_kp_zero\nM400\nM114\nRESTORE_GCODE_STATE NAME=_kp_client");
    assert_true(kp_script_word(kp_script_barrier(true), 2, &word) && kp_str_eq(word, "G4"));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        at[0] = 7;
        assert_true(kp_script_where(kp_str_of(rows[i].line), at) == rows[i].good);
        assert_true(at[0] == (rows[i].good ? 1.5 : 7));
    }
    assert_true(kp_script_where(kp_str_of(rows[0].line), at) && at[1] == -2 && at[2] == 0.025);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neutral_state_is_made_where_the_head_stands),
        cmocka_unit_test(no_neutral_state_without_a_position),
        cmocka_unit_test(axes_are_joined_at_0), cmocka_unit_test(small_scripts),
        cmocka_unit_test(first_words),
        cmocka_unit_test(the_longest_names_fit),
        cmocka_unit_test(what_does_not_fit_is_broken_and_never_cut),
        cmocka_unit_test(bad_names_and_numbers_break_the_script),
        cmocka_unit_test(a_barrier_ends_with_where_the_head_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
