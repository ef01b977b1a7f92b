/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Extra axes that Klipper joins to moves: which are asked about and when, and what becomes of their angles. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "plan_fixture.h"

#define A 3 /* axes of the machine "joined" */
#define B 4
#define C 5
#define H 6

static const struct kp_axis *axis(const struct kp_machine *m, int i)
{
    return kp_machine_axis(m, (size_t)i);
}

static void tell_points(struct kp_machine *m, const char *object, const char *field, const double *v, size_t count)
{
    tell(m, object, field, (struct kp_value){ .kind = KP_NUMS, .nums = v, .count = count });
}

static void limits_are_needed(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("joined");
    assert_true(axis(m, A)->join == KP_JOINED && axis(m, H)->join == KP_JOINED);
    assert_true(axis(m, B)->join == KP_BESIDE && axis(m, C)->join == KP_BESIDE); /* no acceleration */
    assert_true(!axis(m, A)->homed && !axis(m, A)->tracked && axis(m, A)->position == 0);
    assert_true(axis(m, H)->endstop && axis(m, H)->home_travel == 370 && axis(m, H)->home_velocity == 20 && isnan(axis(m, A)->home_travel));
    kp_machine_free(m);
}

/* Not before Klipper is known to bear it, nor while it prints or is stopped; again after both. */
static void asked_when_it_may_be(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("joined");
    kp_machine_axis_written(m, A, 90, true);
    tell(m, "print_stats", "state", text_value("printing"));
    assert_int_equal(kp_machine_joining(m), -1);
    tell(m, "print_stats", "state", text_value("complete"));
    assert_int_equal(kp_machine_joining(m), A); /* nobody knows what the file did */
    assert_false(axis(m, A)->homed || axis(m, A)->tracked);
    kp_safety_latch(m, true, "test");
    assert_int_equal(kp_machine_joining(m), -1);
    kp_safety_release(m);
    assert_int_equal(kp_machine_joining(m), A);
    kp_machine_axis_joined(m, A, true);
    assert_int_equal(kp_machine_joining(m), H);
    kp_machine_axis_joined(m, H, false);
    assert_int_equal(kp_machine_joining(m), -1);
    kp_machine_axis_written(m, A, 90, true);
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "");
    assert_true(axis(m, A)->join == KP_JOIN_OWED && !axis(m, A)->homed && !axis(m, A)->tracked);
    kp_machine_klippy(m, KP_KLIPPY_READY, "");
    assert_int_equal(kp_machine_joining(m), -1); /* this Klipper has shown nothing yet */
    tell(m, "klipperplace", "parts.axes", text_value("off in printer.cfg"));
    assert_int_equal(kp_machine_joining(m), -1);
    tell(m, "klipperplace", "parts.axes", text_value("on"));
    assert_int_equal(kp_machine_joining(m), A);
    assert_true(kp_machine_joins(m));
    kp_machine_free(m);
}

static void m114_must_bear_it(void **state)
{
    (void)state;
    const double four[5] = { 0 };
    struct kp_machine *m = fixture_machine("joined");
    assert_false(kp_machine_joins(m));
    tell_points(m, "gcode_move", "gcode_position", four, 4);
    assert_false(kp_machine_joins(m));
    tell_points(m, "gcode_move", "gcode_position", four, 5);
    assert_true(kp_machine_joins(m));
    kp_machine_free(m);
}

/* By toolhead.extra_axes, as mainline shows them. */
static void foreign_moves_on_mainline(void **state)
{
    (void)state;
    double at[6] = { 100, 50, 0, 0, 90, 0 };
    struct kp_machine *m = fixture_machine("joined");
    kp_machine_axis_written(m, A, 90, true);
    kp_machine_axis_written(m, H, 0, true);
    kp_machine_axes_check(m);
    assert_true(axis(m, A)->homed && !axis(m, A)->verified);
    tell(m, "toolhead", "extra_axes.manual_stepper rotation1", number_value(4));
    tell(m, "toolhead", "extra_axes.manual_stepper index", number_value(5));
    tell_points(m, "toolhead", "position", at, 6);
    kp_machine_axes_check(m);
    assert_true(axis(m, A)->homed && axis(m, A)->verified && axis(m, H)->verified && !axis(m, B)->verified);
    at[4] = 95;
    tell_points(m, "toolhead", "position", at, 6);
    kp_machine_axes_check(m);
    assert_true(!axis(m, A)->homed && !axis(m, A)->tracked && axis(m, A)->position == 95 && axis(m, A)->join == KP_JOINED && axis(m, H)->homed);
    tell_points(m, "toolhead", "position", at, 5); /* somebody has let go of H */
    kp_machine_axes_check(m);
    assert_true(axis(m, H)->join == KP_JOIN_OWED && !axis(m, H)->homed);
    kp_machine_free(m);
}

/* By our extra: those beside as well. */
static void foreign_moves_with_the_extra(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("joined");
    kp_machine_axis_written(m, A, 90, true);
    kp_machine_axis_written(m, B, 10, true);
    tell(m, "klipperplace", "joined.rotation1", text_value("A"));
    tell(m, "klipperplace", "stands.rotation1", number_value(90.0004));
    tell(m, "klipperplace", "joined.rotation2", text_value(""));
    tell(m, "klipperplace", "stands.rotation2", number_value(10));
    kp_machine_axes_check(m);
    assert_true(axis(m, A)->homed && axis(m, A)->verified && axis(m, B)->homed && axis(m, B)->verified);
    tell(m, "klipperplace", "stands.rotation2", number_value(11));
    kp_machine_axes_check(m);
    assert_true(axis(m, A)->homed && !axis(m, B)->homed && !axis(m, B)->tracked);
    tell(m, "klipperplace", "joined.rotation1", text_value("U")); /* joined as another */
    kp_machine_axes_check(m);
    assert_true(!axis(m, A)->homed && kp_machine_joining(m) == A);
    kp_machine_free(m);
}

static void a_failed_script_may_have_let_go(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("joined");
    kp_machine_axis_written(m, A, 90, true);
    kp_machine_axis_written(m, B, 10, true);
    kp_machine_rejoin(m);
    assert_true(kp_machine_joining(m) == A && !axis(m, A)->homed && axis(m, B)->homed);
    kp_machine_axis_joined(m, 0, true); /* none of them */
    kp_machine_axis_joined(m, 99, true);
    assert_true(axis(m, 0)->join == KP_BESIDE);
    kp_machine_free(m);
}

/* A place that Klipper holds and nobody knows as an angle is where a relative move counts from. */
static void relative_moves_count_from_klippers_place(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("joined");
    struct kp_gcode_line line;
    struct kp_gcode_action a;
    tell(m, "klipperplace", "stands.rotation1", number_value(30));
    kp_machine_axes_check(m);
    struct kp_modal *g = kp_modal_new(m, NULL);
    assert_int_equal(kp_gcode_parse(kp_str_of("G91 G1 A5"), &line, NULL), KP_OK);
    assert_int_equal(kp_modal_line(g, &line, NULL), KP_OK);
    assert_true(kp_modal_next(g, &a));
    assert_non_null(strstr(a.text, "G1 A35 F21600"));
    kp_modal_free(g);
    kp_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_needed), cmocka_unit_test(asked_when_it_may_be), cmocka_unit_test(m114_must_bear_it),
        cmocka_unit_test(foreign_moves_on_mainline), cmocka_unit_test(foreign_moves_with_the_extra), cmocka_unit_test(a_failed_script_may_have_let_go),
        cmocka_unit_test(relative_moves_count_from_klippers_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
