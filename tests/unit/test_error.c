/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Errors: the code table, messages and their cutting, the list of faults. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kp.h"

static void test_codes(void **state)
{
    static const struct { enum kp_err code; const char *name; int status; bool retry; } rows[] = {
        { KP_OK, "OK", 200, false },
        { KP_INVALID_PARAMETER, "INVALID_PARAMETER", 400, false },
        { KP_HOMING_REQUIRED, "HOMING_REQUIRED", 400, false },
        { KP_PIN_NOT_FOUND, "PIN_NOT_FOUND", 404, false },
        { KP_INTERLOCK, "INTERLOCK", 409, false },
        { KP_QUEUE_FULL, "QUEUE_FULL", 429, true },
        { KP_EMERGENCY_STOP_ACTIVE, "EMERGENCY_STOP_ACTIVE", 503, false },
        { KP_KLIPPY_DISCONNECTED, "KLIPPY_DISCONNECTED", 503, true },
        { KP_OUTCOME_UNKNOWN, "OUTCOME_UNKNOWN", 502, false },
        { KP_DATABASE_UNAVAILABLE, "DATABASE_UNAVAILABLE", 503, true },
        { KP_ERR_COUNT, "INTERNAL_ERROR", 500, false },
        { (enum kp_err)-1, "INTERNAL_ERROR", 500, false },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_string_equal(kp_err_name(rows[i].code), rows[i].name);
        assert_int_equal(kp_err_status(rows[i].code), rows[i].status);
        assert_int_equal(kp_err_retryable(rows[i].code), rows[i].retry);
    }
    for (int code = 0; code < KP_ERR_COUNT; code++) {
        assert_non_null(kp_err_name((enum kp_err)code));
        assert_in_range(kp_err_status((enum kp_err)code), 200, 599);
    }
}

static void test_set(void **state)
{
    struct kp_error e;
    (void)state;
    assert_int_equal(kp_error_set(&e, KP_NOT_FOUND, "pin", "%s|%d|%u|%zu|%g|%%|%d", "a", -5, 7u, (size_t)12345678901u, 1.25, 0), KP_NOT_FOUND);
    assert_int_equal(e.code, KP_NOT_FOUND);
    assert_string_equal(e.field, "pin");
    assert_string_equal(e.message, "a|-5|7|12345678901|1.25|%|0");
    assert_true(isnan(e.got) && isnan(e.min) && isnan(e.max));
    kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "%g %g %g", (double)NAN, (double)INFINITY, -(double)INFINITY);
    assert_string_equal(e.field, "");
    assert_string_equal(e.message, "no number a huge number a huge negative number");
    kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "again: %s", e.message);
    assert_memory_equal(e.message, "again: no number", 16);
    kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "%d %d", -2147483647 - 1, 2147483647);
    assert_string_equal(e.message, "-2147483648 2147483647");
    assert_int_equal(kp_error_set(NULL, KP_TIMEOUT, "x", "%s", "nobody listens"), KP_TIMEOUT);
}

/* A long text is cut, and never in the middle of a character. */
static void test_cut(void **state)
{
    struct kp_error e;
    char text[3 * KP_TEXT_MAX + 1];
    (void)state;
    for (size_t lead = 0; lead < 4; lead++) {
        memset(text, 'x', sizeof text);
        for (size_t i = lead; i + 3 < sizeof text; i += 3)
            memcpy(text + i, "\xe2\x82\xac", 3);
        text[sizeof text - 1] = 0;
        kp_error_set(&e, KP_INTERNAL_ERROR, text, "%s%s", text, "tail");
        size_t n = strlen(e.message), m = strlen(e.field);
        assert_in_range(n, KP_TEXT_MAX - 4, KP_TEXT_MAX - 1);
        assert_int_equal((n - lead) % 3, 0);
        assert_in_range(m, KP_NAME_MAX - 4, KP_NAME_MAX - 1);
        assert_int_equal((m - lead) % 3, 0);
    }
}

static void test_range(void **state)
{
    static const struct { double got, min, max; const char *unit, *message; } rows[] = {
        { 450, 0, 300, "mm", "x is 450 mm; allowed are 0 to 300 mm" },
        { -1, 0, NAN, "mm", "x is -1 mm; it must be at least 0 mm" },
        { 9, -INFINITY, 8.5, "", "x is 9; it must be at most 8.5" },
        { 9, NAN, INFINITY, "", "x is 9, which is not allowed" },
        { NAN, 0, 1, "mm", "x must be a finite number" },
        { INFINITY, 0, 1, "mm", "x must be a finite number" },
    };
    struct kp_error e;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(kp_error_range(&e, KP_POSITION_OUT_OF_BOUNDS, "x", rows[i].unit, rows[i].got, rows[i].min, rows[i].max), KP_POSITION_OUT_OF_BOUNDS);
        assert_string_equal(e.message, rows[i].message);
        assert_string_equal(e.field, "x");
        assert_true(isfinite(rows[i].min) ? e.min == rows[i].min : isnan(e.min));
        assert_true(isfinite(rows[i].max) ? e.max == rows[i].max : isnan(e.max));
        assert_true(isnan(rows[i].got) ? isnan(e.got) : e.got == rows[i].got);
    }
    assert_int_equal(kp_error_range(NULL, KP_INVALID_PARAMETER, "x", NULL, 1, 2, 3), KP_INVALID_PARAMETER);
}

static void test_faults(void **state)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    (void)state;
    assert_int_equal(kp_faults_code(&f), KP_OK);
    for (size_t i = 0; i < KP_FAULTS_MAX + 5; i++) {
        kp_error_set(&e, i == 0 ? KP_MISSING_PARAMETER : KP_INVALID_PARAMETER, "f", "%zu", i);
        assert_int_equal(kp_faults_add(&f, &e), e.code);
    }
    assert_int_equal(kp_faults_code(&f), KP_MISSING_PARAMETER);
    assert_int_equal(f.count, KP_FAULTS_MAX);
    assert_int_equal(f.dropped, 5);
    assert_string_equal(f.item[KP_FAULTS_MAX - 1].message, "31");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes), cmocka_unit_test(test_set), cmocka_unit_test(test_cut),
        cmocka_unit_test(test_range), cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
