/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The breaker by its table, in time, and the pace of retries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <kp.h>

#define FAILED KP_BREAKER_FAILED
#define WORKED KP_BREAKER_WORKED
#define DUE KP_BREAKER_DUE
#define BACK KP_BREAKER_BACK

/* Any time, so that nothing hangs on a clock that begins at 0. */
#define T0 INT64_C(123456789)

static void steps(struct kp_breaker *b, enum kp_breaker_event event, int count, int64_t now_ms)
{
    while (count--)
        kp_breaker_step(b, event, now_ms);
}

/* A breaker in this state since T0. */
static struct kp_breaker breaker_in(enum kp_breaker_state state)
{
    struct kp_breaker b = { .state = KP_BREAKER_CLOSED };
    if (state != KP_BREAKER_CLOSED)
        steps(&b, FAILED, KP_BREAKER_FAILURES, state == KP_BREAKER_OPEN ? T0 : T0 - KP_BREAKER_OPEN_MS);
    if (state == KP_BREAKER_HALF_OPEN)
        kp_breaker_step(&b, DUE, T0);
    assert_int_equal(b.state, state);
    return b;
}

/* Every cell: how many of the event lead where. */
static void test_table(void **state)
{
    static const struct { enum kp_breaker_state from; enum kp_breaker_event event; int64_t after_ms; int count; enum kp_breaker_state to; } rows[] = {
        { KP_BREAKER_CLOSED, FAILED, 0, 4, KP_BREAKER_CLOSED },
        { KP_BREAKER_CLOSED, FAILED, 0, 5, KP_BREAKER_OPEN },
        { KP_BREAKER_CLOSED, WORKED, 0, 9, KP_BREAKER_CLOSED },
        { KP_BREAKER_CLOSED, DUE, 1000000, 9, KP_BREAKER_CLOSED },
        { KP_BREAKER_CLOSED, BACK, 0, 9, KP_BREAKER_CLOSED },
        { KP_BREAKER_HALF_OPEN, FAILED, 0, 1, KP_BREAKER_OPEN },
        { KP_BREAKER_HALF_OPEN, WORKED, 0, 2, KP_BREAKER_HALF_OPEN },
        { KP_BREAKER_HALF_OPEN, WORKED, 0, 3, KP_BREAKER_CLOSED },
        { KP_BREAKER_HALF_OPEN, DUE, 1000000, 9, KP_BREAKER_HALF_OPEN },
        { KP_BREAKER_HALF_OPEN, BACK, 0, 1, KP_BREAKER_CLOSED },
        { KP_BREAKER_OPEN, FAILED, 1000, 9, KP_BREAKER_OPEN },
        { KP_BREAKER_OPEN, WORKED, 1000, 9, KP_BREAKER_OPEN },
        { KP_BREAKER_OPEN, DUE, 59999, 9, KP_BREAKER_OPEN },
        { KP_BREAKER_OPEN, DUE, 60000, 1, KP_BREAKER_HALF_OPEN },
        { KP_BREAKER_OPEN, BACK, 0, 1, KP_BREAKER_CLOSED },
    };
    bool seen[KP_BREAKER_STATES][KP_BREAKER_EVENTS] = { { false } };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_breaker b = breaker_in(rows[i].from);
        steps(&b, rows[i].event, rows[i].count, T0 + rows[i].after_ms);
        assert_int_equal(b.state, rows[i].to);
        seen[rows[i].from][rows[i].event] = true;
    }
    for (int s = 0; s < KP_BREAKER_STATES; s++)
        for (int e = 0; e < KP_BREAKER_EVENTS; e++)
            assert_true(seen[s][e]);
}

/* In a row: one that worked between begins the count anew, and so does each state. */
static void test_in_a_row(void **state)
{
    struct kp_breaker b = { .state = KP_BREAKER_CLOSED };
    (void)state;
    for (int i = 0; i < 10; i++) {
        steps(&b, FAILED, 4, T0);
        kp_breaker_step(&b, i % 2 ? WORKED : BACK, T0);
        assert_int_equal(b.state, KP_BREAKER_CLOSED);
    }
    b = breaker_in(KP_BREAKER_HALF_OPEN);
    steps(&b, WORKED, 2, T0);
    kp_breaker_step(&b, FAILED, T0);
    assert_int_equal(b.state, KP_BREAKER_OPEN);
    kp_breaker_step(&b, DUE, T0 + KP_BREAKER_OPEN_MS);
    steps(&b, WORKED, 2, T0 + KP_BREAKER_OPEN_MS);
    assert_int_equal(b.state, KP_BREAKER_HALF_OPEN);
    assert_true(kp_breaker_allows(&b, T0 + KP_BREAKER_OPEN_MS)); /* asking counts for nothing */
    kp_breaker_step(&b, WORKED, T0 + KP_BREAKER_OPEN_MS);
    assert_int_equal(b.state, KP_BREAKER_CLOSED);
    steps(&b, FAILED, 4, T0);
    assert_true(kp_breaker_allows(&b, T0));
    steps(&b, FAILED, 1, T0);
    assert_false(kp_breaker_allows(&b, T0));
}

/* Sixty seconds from when it opened, whatever ends meanwhile; then again from the failure that opened it anew. */
static void test_time(void **state)
{
    struct kp_breaker b = breaker_in(KP_BREAKER_OPEN);
    (void)state;
    assert_false(kp_breaker_allows(&b, T0));
    kp_breaker_step(&b, FAILED, T0 + 30000);
    kp_breaker_step(&b, WORKED, T0 + 30000);
    assert_false(kp_breaker_allows(&b, T0 + 59999));
    assert_true(kp_breaker_allows(&b, T0 + 60000));
    assert_int_equal(b.state, KP_BREAKER_HALF_OPEN);
    kp_breaker_step(&b, FAILED, T0 + 61000);
    assert_false(kp_breaker_allows(&b, T0 + 120999));
    assert_true(kp_breaker_allows(&b, T0 + 121000));
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(kp_breaker_name(KP_BREAKER_CLOSED), "closed");
    assert_string_equal(kp_breaker_name(KP_BREAKER_HALF_OPEN), "half_open");
    assert_string_equal(kp_breaker_name(KP_BREAKER_OPEN), "open");
    assert_string_equal(kp_breaker_name(KP_BREAKER_STATES), "");
}

static void test_retry(void **state)
{
    static const int64_t apart_ms[] = { 1000, 2000, 4000, 8000, 16000 };
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(kp_breaker_retry_ms(i, 0.5, T0, INT64_MAX), apart_ms[i]);
        assert_int_equal(kp_breaker_retry_ms(i, 0, T0, INT64_MAX), apart_ms[i] * 9 / 10);
        assert_int_equal(kp_breaker_retry_ms(i, 1, T0, INT64_MAX), apart_ms[i] * 11 / 10);
        assert_int_equal(kp_breaker_retry_ms(i, 0.5, T0, T0 + apart_ms[i] + 1), apart_ms[i]);
        assert_int_equal(kp_breaker_retry_ms(i, 0.5, T0, T0 + apart_ms[i]), -1); /* no time would be left for an answer */
        assert_int_equal(kp_breaker_retry_ms(i, 0.5, T0, T0 - 1), -1);
    }
    assert_int_equal(kp_breaker_retry_ms(5, 0.5, T0, INT64_MAX), -1);
    assert_int_equal(kp_breaker_retry_ms(UINT32_MAX, 0.5, T0, INT64_MAX), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_in_a_row), cmocka_unit_test(test_time), cmocka_unit_test(test_names), cmocka_unit_test(test_retry),
    };
    return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
