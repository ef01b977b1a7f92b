/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Numbers and names: what is read, what is refused, what is printed, and that the one reads the other. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kp.h"

static void test_parse(void **state)
{
    static const struct { const char *text; bool ok; double value; } rows[] = {
        { "0", true, 0 }, { "-12", true, -12 }, { ".5", true, 0.5 }, { "3.", true, 3 }, { "-.5", true, -0.5 }, { "+2", true, 2 },
        { "007", true, 7 }, { "100.5", true, 100.5 }, { "0.1", true, 0.1 }, { "123456.789012", true, 123456.789012 },
        { "9007199254740993", true, 9007199254740992.0 }, { "0.000000000000000000001", true, 1e-21 },
        { "1000000000000000000000000", true, 1e24 },
        { "", false, 0 }, { "-", false, 0 }, { "+", false, 0 }, { ".", false, 0 }, { "-.", false, 0 }, { "1e3", false, 0 },
        { " 1", false, 0 }, { "1 ", false, 0 }, { "1.2.3", false, 0 }, { "--1", false, 0 }, { "nan", false, 0 },
        { "inf", false, 0 }, { "-inf", false, 0 }, { "Infinity", false, 0 }, { "0x10", false, 0 }, { "1,5", false, 0 },
        { "1_000", false, 0 }, { "1\n", false, 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double v = 77;
        assert_int_equal(kp_number_parse(kp_str_of(rows[i].text), &v), rows[i].ok);
        double want = rows[i].ok ? rows[i].value : 77;
        assert_true(fabs(v - want) <= fabs(want) * DBL_EPSILON);
    }
    double v = 77;
    assert_false(kp_number_parse((struct kp_str){ "1\0" "2", 3 }, &v));
    assert_true(kp_number_parse((struct kp_str){ "123", 2 }, &v));
    assert_true(v == 12);
}

/* Digits without end must neither overflow nor take long. */
static void test_parse_long(void **state)
{
    static char text[5000];
    double v = 77;
    (void)state;
    memset(text, '9', sizeof text);
    assert_false(kp_number_parse((struct kp_str){ text, 400 }, &v));
    assert_false(kp_number_parse((struct kp_str){ text, sizeof text }, &v));
    assert_true(v == 77);
    memset(text, '0', sizeof text);
    text[0] = '.';
    assert_true(kp_number_parse((struct kp_str){ text, 900 }, &v));
    assert_true(v == 0);
    text[899] = '1';
    assert_true(kp_number_parse((struct kp_str){ text, 900 }, &v));
    assert_true(v == 0);
}

static void test_print(void **state)
{
    static const struct { double value; int decimals; const char *text; } rows[] = {
        { 0, 6, "0" }, { -0.0, 6, "0" }, { -0.0000001, 6, "0" }, { 100.5, 6, "100.5" }, { 100, 3, "100" }, { -0.25, 1, "-0.3" },
        { 0.1, 6, "0.1" }, { 0.1 + 0.2, 6, "0.3" }, { 1e-7, 6, "0" }, { 0.0000005, 6, "0.000001" }, { 0.999999999, 6, "1" },
        { 9.9999996, 6, "10" }, { 1.999, 0, "2" }, { -1.5, 0, "-2" }, { 1234567.125, 2, "1234567.13" },
        { 999999999999999.0, 6, "999999999999999" }, { 0.05, 6, "0.05" }, { 10.010, 6, "10.01" }, { 1.5, -3, "2" },
        { 1.1234567, 99, "1.123457" },
        { 1e15, 0, "" }, { -1e15, 0, "" }, { NAN, 6, "" }, { INFINITY, 6, "" }, { -INFINITY, 6, "" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[KP_NUMBER_MAX];
        size_t n = kp_number_print(text, rows[i].value, rows[i].decimals);
        assert_string_equal(text, rows[i].text);
        assert_int_equal(n, strlen(text));
    }
}

static void test_round_trip(void **state)
{
    uint64_t seed = 12345;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        char text[KP_NUMBER_MAX];
        double back;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        double v = (double)(int64_t)(seed >> 20) / 1e6 * (i % 2 ? 1 : -1) / (i % 7 + 1);
        assert_true(kp_number_print(text, v, 6) > 0);
        assert_true(kp_number_parse(kp_str_of(text), &back));
        assert_true(fabs(back - v) <= 0.5000001e-6 + fabs(v) * 2 * DBL_EPSILON);
        assert_true(fabs(back - strtod(text, NULL)) <= fabs(v) * DBL_EPSILON);
    }
}

/* All that is printed is digits, and strtod, which reads correctly, gives the same double. */
static void test_exact(void **state)
{
    static const struct { double value; const char *text; } rows[] = {
        { 0, "0" }, { -0.0, "0" }, { 100.25, "100.25" }, { -0.5, "-0.5" }, { -3, "-3" }, { 0.1, "0.100000000000000005" }, { 1 / 240.0, "0.0041666666666666666" },
        { -1e-7, "-0.0000000999999999999999954" }, { 999999999999999.875, "999999999999999.875" },
        { 1e15, "" }, { NAN, "" }, { -INFINITY, "" },
    };
    char text[KP_NUMBER_EXACT_MAX];
    uint64_t seed = 12345;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = kp_number_exact(text, rows[i].value);
        assert_string_equal(text, rows[i].text);
        assert_int_equal(n, strlen(text));
    }
    assert_true(kp_number_exact(text, 4.9406564584124654e-324) == 343 && strtod(text, NULL) > 0);
    for (int i = 0; i < 100000; i++) {
        double v;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint64_t bits = seed >> 11 | seed << 53;
        memcpy(&v, &bits, sizeof v);
        if (i % 2)
            v = (double)(int64_t)(seed >> 40) / 240 - 30000; /* steps of a motor */
        size_t n = kp_number_exact(text, v);
        assert_int_equal(n > 0, fabs(v) < 1e15);
        assert_true(n < sizeof text && n == strlen(text) && strspn(text, "-.0123456789") == n);
        assert_true(n == 0 || strtod(text, NULL) == v);
    }
}

static void test_names(void **state)
{
    char name[KP_NAME_MAX + 1];
    (void)state;
    assert_true(kp_name_ok(kp_str_of("valve_1")));
    assert_true(kp_name_ok(kp_str_of("Z")));
    static const char *const bad[] = { "", "a b", "a\nb", "a;b", "a-b", "\xc3\xa4", "a=b", "../x", "\"" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(kp_name_ok(kp_str_of(bad[i])));
    assert_false(kp_name_ok((struct kp_str){ "a\0b", 3 }));
    memset(name, 'a', sizeof name);
    assert_true(kp_name_ok((struct kp_str){ name, KP_NAME_MAX - 1 }));
    assert_false(kp_name_ok((struct kp_str){ name, KP_NAME_MAX }));
    assert_true(kp_str_eq(kp_str_of("abc"), "abc"));
    assert_false(kp_str_eq((struct kp_str){ "abc", 2 }, "abc"));
    assert_true(kp_str_eq((struct kp_str){ NULL, 0 }, ""));
    assert_int_equal(kp_str_of(NULL).n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse), cmocka_unit_test(test_parse_long), cmocka_unit_test(test_print),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_exact), cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("number", tests, NULL, NULL);
}
