/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Token buckets with the time injected: shim/limit.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "limit.h"

static const struct { enum kp_rate rate; int a_second; } classes[] = {
    { KP_RATE_MOTION, LIMIT_MOTION }, { KP_RATE_READ, LIMIT_READ }, { KP_RATE_BATCH, LIMIT_BATCH },
};
#define CLASSES (sizeof classes / sizeof *classes)

static struct limit_client client(uint32_t number)
{
    struct limit_client c = { { 7 } };
    memcpy(c.bytes + 4, &number, sizeof number);
    return c;
}

/* How many of `count` requests pass at this time; *last is how the bucket stands then. */
static int take(struct limit *l, uint32_t who, enum kp_rate rate, int64_t now_ms, int count, struct limit_state *last)
{
    struct limit_client c = client(who);
    int passed = 0;
    for (int i = 0; i < count; i++)
        passed += limit_take(l, &c, rate, now_ms, last);
    return passed;
}

static void test_full_at_first(void **state)
{
    (void)state;
    for (size_t i = 0; i < CLASSES; i++) {
        struct limit *l = limit_new();
        struct limit_state s;
        assert_non_null(l);
        assert_int_equal(take(l, 1, classes[i].rate, 5000, 1, &s), 1);
        assert_int_equal(s.limit, classes[i].a_second);
        assert_int_equal(s.remaining, classes[i].a_second - 1);
        assert_int_equal(s.reset_s, 1);
        assert_int_equal(s.wait_ms, 0);
        assert_int_equal(take(l, 1, classes[i].rate, 5000, 1000, &s), classes[i].a_second - 1);
        assert_int_equal(s.remaining, 0);
        assert_int_equal(s.wait_ms, 1000 / classes[i].a_second);
        limit_free(l);
    }
}

/* Nothing is given early and nothing is lost: over a long time as many pass as the class says, however the asking is spread. */
static void test_refill(void **state)
{
    static const int64_t steps_ms[] = { 1, 3, 7, 10, 50, 99, 100, 101 };
    (void)state;
    for (size_t i = 0; i < CLASSES; i++)
        for (size_t k = 0; k < sizeof steps_ms / sizeof *steps_ms; k++) {
            struct limit *l = limit_new();
            struct limit_state s;
            int passed = take(l, 1, classes[i].rate, 0, 1000, &s);
            assert_int_equal(passed, classes[i].a_second);
            for (int64_t t = steps_ms[k]; t <= 10000; t += steps_ms[k])
                passed += take(l, 1, classes[i].rate, t, 1000, &s);
            int64_t ended_ms = 10000 / steps_ms[k] * steps_ms[k];
            assert_int_equal(passed, classes[i].a_second + ended_ms * classes[i].a_second / 1000);
            limit_free(l);
        }
}

static void test_passes_when_it_said(void **state)
{
    (void)state;
    for (size_t i = 0; i < CLASSES; i++) {
        struct limit *l = limit_new();
        struct limit_state s;
        take(l, 1, classes[i].rate, 0, 1000, &s);
        int64_t then_ms = s.wait_ms;
        assert_true(then_ms > 0);
        assert_int_equal(take(l, 1, classes[i].rate, then_ms - 1, 1, &s), 0);
        assert_int_equal(s.wait_ms, 1);
        assert_int_equal(take(l, 1, classes[i].rate, then_ms, 1, &s), 1);
        limit_free(l);
    }
}

static void test_never_more_than_full(void **state)
{
    struct limit *l = limit_new();
    struct limit_state s;
    (void)state;
    take(l, 1, KP_RATE_READ, 0, 50, &s);
    assert_int_equal(take(l, 1, KP_RATE_READ, INT64_C(1) << 40, 1000, &s), LIMIT_READ);
    limit_free(l);
}

static void test_classes_and_clients_are_apart(void **state)
{
    struct limit *l = limit_new();
    struct limit_state s;
    (void)state;
    take(l, 1, KP_RATE_READ, 0, 1000, &s);
    assert_int_equal(take(l, 1, KP_RATE_MOTION, 0, 1, &s), 1);
    assert_int_equal(take(l, 2, KP_RATE_READ, 0, 1, &s), 1);
    assert_int_equal(take(l, 1, KP_RATE_READ, 0, 1, &s), 0);
    limit_free(l);
}

static void test_no_class_no_limit(void **state)
{
    struct limit *l = limit_new();
    struct limit_state s;
    (void)state;
    assert_int_equal(take(l, 1, KP_RATE_NONE, 0, 100000, &s), 100000);
    assert_int_equal(s.limit, 0);
    limit_free(l);
}

/* However many clients come, the memory stays, and the one that asks all the while keeps its bucket. */
static void test_many_clients(void **state)
{
    struct limit *l = limit_new();
    struct limit_state s;
    int passed = take(l, 0, KP_RATE_BATCH, 0, 1000, &s);
    (void)state;
    for (uint32_t i = 1; i <= 100000; i++) {
        assert_int_equal(take(l, i, KP_RATE_BATCH, i / 1000, 1, &s), 1);
        passed += take(l, 0, KP_RATE_BATCH, i / 1000, 1, &s);
    }
    assert_int_equal(passed, LIMIT_BATCH + 1); /* a tenth of a second gives one */
    limit_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_at_first), cmocka_unit_test(test_refill), cmocka_unit_test(test_passes_when_it_said),
        cmocka_unit_test(test_never_more_than_full), cmocka_unit_test(test_classes_and_clients_are_apart), cmocka_unit_test(test_no_class_no_limit),
        cmocka_unit_test(test_many_clients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
