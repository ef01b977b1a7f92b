/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The cache: edges by table, order of use exactly, and memory that runs out. Random calls are test_cache_model.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "alloc_fixture.h"
#include "kp.h"

#define S(text) kp_str_of(text)

static struct kp_cache *cache_of(size_t entries)
{
    struct kp_cache_options o;
    struct kp_cache *c = NULL;
    kp_cache_defaults(&o);
    o.entries = entries;
    assert_int_equal(kp_cache_new(&c, &o, NULL), KP_OK);
    return c;
}

static void put(struct kp_cache *c, enum kp_category category, const char *key, const char *value, int64_t now_ms)
{
    assert_int_equal(kp_cache_set(c, &(struct kp_cache_row){ .category = category, .key = S(key), .value = S(value) }, now_ms, NULL), KP_OK);
}

static bool has(struct kp_cache *c, const char *key, int64_t now_ms)
{
    struct kp_cached out;
    return kp_cache_get(c, S(key), true, now_ms, &out) != KP_CACHE_NONE;
}

/* ---- edges ---- */

static void test_categories(void **state)
{
    static const struct { enum kp_category category; const char *name; int64_t ttl_ms; } rows[KP_CATEGORY_COUNT] = {
        { KP_CACHE_GPIO, "gpio", 1000 }, { KP_CACHE_SENSOR, "sensor", 500 }, { KP_CACHE_POSITION, "position", 100 }, { KP_CACHE_FAN, "fan", 1000 },
        { KP_CACHE_PWM, "pwm", 1000 }, { KP_CACHE_PRINTER, "printer", 2000 }, { KP_CACHE_ACTUATOR, "actuator", 1000 },
    };
    struct kp_cache_options o;
    enum kp_category found = KP_CATEGORY_COUNT;
    struct kp_cache *c = cache_of(10);
    (void)state;
    kp_cache_defaults(&o);
    for (size_t i = 0; i < KP_CATEGORY_COUNT; i++) {
        struct kp_cached out;
        assert_string_equal(kp_category_name(rows[i].category), rows[i].name);
        assert_true(kp_category_by_name(S(rows[i].name), &found));
        assert_int_equal(found, rows[i].category);
        assert_int_equal(o.ttl_ms[rows[i].category], rows[i].ttl_ms);
        put(c, rows[i].category, "k", "v", 5000); /* the same key in another category is the same entry */
        assert_int_equal(kp_cache_get(c, S("k"), false, 5000 + rows[i].ttl_ms - 1, &out), KP_CACHE_FRESH);
        assert_int_equal(out.category, rows[i].category);
        assert_int_equal(kp_cache_get(c, S("k"), false, 5000 + rows[i].ttl_ms, &out), KP_CACHE_NONE);
        assert_int_equal(kp_cache_get(c, S("k"), true, 5000 + rows[i].ttl_ms, &out), KP_CACHE_STALE);
    }
    assert_int_equal(kp_cache_stats(c).entries, 1);
    assert_null(kp_category_name(KP_CATEGORY_COUNT));
    assert_false(kp_category_by_name(S("Gpio"), &found));
    kp_cache_free(c);
}

static void test_time(void **state)
{
    static const struct { int64_t set_ms, ttl_ms, now_ms; enum kp_cache_found want; int64_t age_ms; } rows[] = {
        { 0, 0, 999, KP_CACHE_FRESH, 999 },
        { 0, 0, 1000, KP_CACHE_STALE, 1000 },
        { 0, 1, 0, KP_CACHE_FRESH, 0 },
        { 0, 1, 1, KP_CACHE_STALE, 1 },
        { 1000, 5, 900, KP_CACHE_FRESH, 0 }, /* told later than asked: no age */
        { -5000, 10, -4991, KP_CACHE_FRESH, 9 },
        { 0, KP_CACHE_TTL_MAX_MS, KP_CACHE_TTL_MAX_MS - 1, KP_CACHE_FRESH, KP_CACHE_TTL_MAX_MS - 1 },
        { 0, KP_CACHE_TTL_MAX_MS, KP_CACHE_TTL_MAX_MS, KP_CACHE_STALE, KP_CACHE_TTL_MAX_MS },
        { INT64_MAX - 5, 10, INT64_MAX, KP_CACHE_FRESH, 5 },
        { INT64_MIN, 10, INT64_MAX, KP_CACHE_STALE, INT64_MAX },
        { -2, 10, INT64_MAX, KP_CACHE_STALE, INT64_MAX },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_cache *c = cache_of(1);
        struct kp_cache_row row = { .category = KP_CACHE_GPIO, .key = S("k"), .value = S("v"), .ttl_ms = rows[i].ttl_ms };
        struct kp_cached out;
        assert_int_equal(kp_cache_set(c, &row, rows[i].set_ms, NULL), KP_OK);
        assert_int_equal(kp_cache_get(c, S("k"), true, rows[i].now_ms, &out), rows[i].want);
        assert_int_equal(out.age_ms, rows[i].age_ms);
        assert_int_equal(out.told_ms, rows[i].set_ms);
        kp_cache_free(c);
    }
}

static void test_pushes(void **state)
{
    struct kp_cache *c = cache_of(4);
    struct kp_cache_row row = { .category = KP_CACHE_POSITION, .key = S("position:live"), .value = S("1"), .pushed = true };
    struct kp_cached out;
    (void)state;
    kp_cache_set(c, &row, 100, NULL);
    put(c, KP_CACHE_POSITION, "position:asked", "2", 100);
    assert_int_equal(kp_cache_get(c, S("position:live"), true, 200, &out), KP_CACHE_STALE); /* no push yet: its TTL alone */
    kp_cache_pushed(c, 90);
    assert_int_equal(kp_cache_get(c, S("position:live"), false, 1089, &out), KP_CACHE_FRESH);
    assert_int_equal(out.told_ms, 100);
    assert_int_equal(kp_cache_get(c, S("position:live"), true, 1090, &out), KP_CACHE_STALE);
    kp_cache_pushed(c, 5000);
    assert_int_equal(kp_cache_get(c, S("position:live"), false, 5999, &out), KP_CACHE_FRESH);
    assert_int_equal(out.told_ms, 5000);
    assert_int_equal(out.age_ms, 999);
    assert_int_equal(kp_cache_get(c, S("position:live"), true, 6000, &out), KP_CACHE_STALE);
    assert_int_equal(kp_cache_get(c, S("position:asked"), true, 5000, &out), KP_CACHE_STALE);
    assert_int_equal(out.told_ms, 100);
    kp_cache_invalidate(c, S("position:live"), KP_CACHE_EXPIRE);
    kp_cache_pushed(c, 7000); /* no push brings back what was expired */
    assert_int_equal(kp_cache_get(c, S("position:live"), true, 7000, &out), KP_CACHE_STALE);
    kp_cache_set(c, &row, 7001, NULL);
    assert_int_equal(kp_cache_get(c, S("position:live"), false, 7002, &out), KP_CACHE_FRESH);
    kp_cache_free(c);
}

static void test_push_off(void **state)
{
    struct kp_cache_options o;
    struct kp_cache *c = NULL;
    struct kp_cached out;
    (void)state;
    kp_cache_defaults(&o);
    o.push_ms = 0;
    o.ttl_ms[KP_CACHE_FAN] = 0;
    assert_int_equal(kp_cache_new(&c, &o, NULL), KP_OK);
    kp_cache_set(c, &(struct kp_cache_row){ .category = KP_CACHE_GPIO, .key = S("a"), .pushed = true }, 0, NULL);
    put(c, KP_CACHE_FAN, "never", "", 0);
    assert_int_equal(kp_cache_get(c, S("never"), true, 0, &out), KP_CACHE_STALE); /* a TTL of 0 */
    assert_int_equal(out.value.n, 0);
    kp_cache_pushed(c, 3000);
    assert_int_equal(kp_cache_get(c, S("a"), false, 3999, &out), KP_CACHE_FRESH);
    assert_int_equal(kp_cache_get(c, S("a"), false, 4000, &out), KP_CACHE_NONE);
    kp_cache_free(c);
}

static void test_values(void **state)
{
    static const size_t sizes[] = { 0, 1, 7, 8, 50, 100, 109, 110, 111, 171, 172, 173, 174, 200, 256, 257, 512, 513, 4096, 65535, 65536, 300, 20, 0 };
    static const size_t keys[] = { 1, 2, 7, 8, 9, 15, 16, 17, 62, 63 };
    char *value = malloc(KP_CACHE_VALUE_MAX), key[KP_CACHE_KEY_MAX];
    (void)state;
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        struct kp_cache *c = cache_of(2);
        memset(key, 0, sizeof key); /* any bytes make a key */
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            struct kp_cache_row row = { .category = KP_CACHE_PWM, .key = { key, keys[k] }, .value = { value, sizes[i] } };
            struct kp_cached out;
            memset(value, (int)(i + 1), sizes[i]);
            assert_int_equal(kp_cache_set(c, &row, 0, NULL), KP_OK);
            memset(value, 0, sizes[i]); /* it was copied */
            assert_int_equal(kp_cache_get(c, row.key, false, 0, &out), KP_CACHE_FRESH);
            assert_int_equal(out.value.n, sizes[i]);
            for (size_t j = 0; j < sizes[i]; j++)
                assert_true(out.value.p[j] == (char)(i + 1));
        }
        assert_int_equal(kp_cache_stats(c).bytes, 0); /* short again: no block is left */
        assert_int_equal(kp_cache_stats(c).entries, 1);
        kp_cache_free(c);
    }
    free(value);
}

static void test_refusals(void **state)
{
    static const char longest[KP_CACHE_KEY_MAX + 1] = "k";
    static char huge[KP_CACHE_VALUE_MAX + 1];
    const struct { struct kp_cache_row row; enum kp_err want; const char *field; } rows[] = {
        { { .key = { longest, 0 } }, KP_INVALID_PARAMETER, "key" },
        { { .key = { longest, sizeof longest } }, KP_INVALID_PARAMETER, "key" },
        { { .key = S("a"), .category = KP_CATEGORY_COUNT }, KP_INVALID_PARAMETER, "category" },
        { { .key = S("a"), .ttl_ms = -1 }, KP_INVALID_PARAMETER, "ttl_ms" },
        { { .key = S("a"), .ttl_ms = KP_CACHE_TTL_MAX_MS + 1LL }, KP_INVALID_PARAMETER, "ttl_ms" },
        { { .key = S("a"), .value = { huge, sizeof huge } }, KP_PAYLOAD_TOO_LARGE, "value" },
    };
    struct kp_cache *c = cache_of(4);
    struct kp_cached out;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_error e;
        put(c, KP_CACHE_GPIO, "a", "old", 0);
        assert_int_equal(kp_cache_set(c, &rows[i].row, 0, &e), rows[i].want);
        assert_string_equal(e.field, rows[i].field);
        assert_int_equal(has(c, "a", 0), i < 2); /* what was to be replaced no longer holds */
    }
    assert_int_equal(kp_cache_get(c, (struct kp_str){ longest, sizeof longest }, true, 0, &out), KP_CACHE_NONE);
    assert_int_equal(kp_cache_get(c, (struct kp_str){ NULL, 0 }, true, 0, &out), KP_CACHE_NONE);
    assert_false(kp_cache_invalidate(c, (struct kp_str){ NULL, 0 }, KP_CACHE_DROP));
    kp_cache_free(c);
    kp_cache_free(NULL);
}

static void test_options(void **state)
{
    struct kp_cache_options good, o;
    struct kp_cache *c = NULL;
    struct kp_error e;
    (void)state;
    kp_cache_defaults(&good);
    assert_int_equal(good.entries, 10000);
#define REFUSED(member, value, name) do { \
        o = good; \
        o.member = value; \
        assert_int_equal(kp_cache_new(&c, &o, &e), KP_INVALID_PARAMETER); \
        assert_string_equal(e.field, name); \
        assert_null(c); \
    } while (0)
    REFUSED(entries, 0, "entries");
    REFUSED(entries, KP_CACHE_ENTRIES_MAX + 1, "entries");
    REFUSED(bytes, KP_CACHE_VALUE_MAX - 1, "bytes");
    REFUSED(ttl_ms[KP_CACHE_SENSOR], -1, "sensor");
    REFUSED(ttl_ms[KP_CACHE_SENSOR], KP_CACHE_TTL_MAX_MS + 1LL, "sensor");
    REFUSED(keep_ms, -1, "keep_ms");
    REFUSED(push_ms, -1, "push_ms");
#undef REFUSED
    assert_int_equal(kp_cache_new(&c, NULL, NULL), KP_OK);
    kp_cache_free(c);
}

/* ---- invalidation ---- */

static void test_patterns(void **state)
{
    static const struct { const char *pattern, *key; bool match; } rows[] = {
        { "gpio:*", "gpio:PB5", true }, { "gpio:*", "gpio:", true }, { "gpio:*", "gpio", false }, { "gpio:*", "xgpio:PB5", false },
        { "*", "a", true }, { "**", "a", true }, { "", "a", false }, { "?", "a", true }, { "?", "ab", false }, { "??", "a", false },
        { "*?", "a", true }, { "?*", "a", true }, { "*??*", "a", false }, { "a", "a", true }, { "a", "A", false }, { "ab", "a", false },
        { "*:PB5", "gpio:PB5", true }, { "*:PB5", "gpio:PB55", false }, { "*:PB5*", "gpio:PB55", true }, { "g*o:*5", "gpio:PB5", true },
        { "*ab", "aab", true }, { "*aab", "aaaab", true }, { "a*b*c", "abcbc", true }, { "a*b*c", "acb", false }, { "*a*a*a*", "aa", false },
        { "[a]", "a", false }, { "[a]", "[a]", true }, { "\\*", "\\x", true }, { "*", "*", true }, { "?", "*", true }, { "a*", "*", false },
        { "ab*b", "ab", false }, { "ab*bx", "abx", false }, { "ab*b", "abb", true }, { "a?*?b*", "aab", false },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_cache *c = cache_of(3);
        put(c, KP_CACHE_GPIO, rows[i].key, "v", 0);
        assert_int_equal(kp_cache_invalidate_pattern(c, S(rows[i].pattern), KP_CACHE_EXPIRE), rows[i].match);
        assert_int_equal(kp_cache_invalidate_pattern(c, S(rows[i].pattern), KP_CACHE_DROP), rows[i].match);
        if (has(c, rows[i].key, 0) == rows[i].match)
            fail_msg("pattern %s, key %s", rows[i].pattern, rows[i].key);
        kp_cache_free(c);
    }
    struct kp_cache *c = cache_of(1); /* the worst pattern for the longest key ends soon */
    char key[KP_CACHE_KEY_MAX + 1] = "";
    memset(key, 'a', KP_CACHE_KEY_MAX);
    put(c, KP_CACHE_GPIO, key, "", 0);
    assert_int_equal(kp_cache_invalidate_pattern(c, S("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"), KP_CACHE_DROP), 0);
    assert_int_equal(kp_cache_invalidate_pattern(c, S("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a"), KP_CACHE_DROP), 1);
    kp_cache_free(c);
}

static void test_invalidate(void **state)
{
    struct kp_cache *c = cache_of(10);
    struct kp_cached out;
    (void)state;
    put(c, KP_CACHE_GPIO, "gpio:a", "1", 0);
    put(c, KP_CACHE_GPIO, "gpio:b", "2", 0);
    put(c, KP_CACHE_SENSOR, "sensor:a", "3", 0);
    assert_true(kp_cache_invalidate(c, S("gpio:a"), KP_CACHE_EXPIRE));
    assert_int_equal(kp_cache_get(c, S("gpio:a"), false, 0, &out), KP_CACHE_NONE);
    assert_int_equal(kp_cache_get(c, S("gpio:a"), true, 0, &out), KP_CACHE_STALE);
    assert_true(kp_str_eq(out.value, "1"));
    put(c, KP_CACHE_GPIO, "gpio:a", "4", 1);
    assert_int_equal(kp_cache_get(c, S("gpio:a"), false, 1, &out), KP_CACHE_FRESH);
    assert_true(kp_cache_invalidate(c, S("gpio:a"), KP_CACHE_DROP));
    assert_false(kp_cache_invalidate(c, S("gpio:a"), KP_CACHE_DROP));
    assert_int_equal(kp_cache_invalidate_category(c, KP_CACHE_SENSOR, KP_CACHE_EXPIRE), 1);
    assert_int_equal(kp_cache_invalidate_category(c, KP_CACHE_GPIO, KP_CACHE_DROP), 1);
    assert_int_equal(kp_cache_invalidate_category(c, KP_CACHE_GPIO, KP_CACHE_DROP), 0);
    assert_int_equal(kp_cache_invalidate_category(c, KP_CATEGORY_COUNT, KP_CACHE_DROP), 0);
    assert_int_equal(kp_cache_stats(c).entries, 1);
    assert_int_equal(kp_cache_invalidate_pattern(c, S("*"), KP_CACHE_DROP), 1);
    assert_int_equal(kp_cache_stats(c).entries, 0);
    kp_cache_free(c);
}

/* ---- order of use, cleaning, hints ---- */

static void test_lru(void **state)
{
    enum { N = 1000 };
    struct kp_cache *c = cache_of(N);
    struct kp_cached out;
    char key[24];
    (void)state;
    for (unsigned i = 0; i < N; i++) {
        snprintf(key, sizeof key, "gpio:%u", i);
        put(c, KP_CACHE_GPIO, key, key, 0);
    }
    for (unsigned i = 0; i < N; i += 2) { /* the even ones are used, by all that counts as use */
        snprintf(key, sizeof key, "gpio:%u", i);
        if (i % 3 == 0)
            put(c, KP_CACHE_GPIO, key, "again", 0);
        else
            kp_cache_get(c, S(key), i % 3 == 1, 100000, &out); /* stale, asked for or not */
    }
    kp_cache_invalidate_pattern(c, S("gpio:1"), KP_CACHE_EXPIRE); /* not a use */
    for (unsigned i = 0; i < N; i++) {
        unsigned victim = i < N / 2 ? 2 * i + 1 : 2 * (i - N / 2);
        snprintf(key, sizeof key, "new:%u", i);
        put(c, KP_CACHE_GPIO, key, "", 0);
        assert_int_equal(kp_cache_stats(c).evictions, i + 1);
        snprintf(key, sizeof key, "gpio:%u", victim);
        assert_false(kp_cache_invalidate(c, S(key), KP_CACHE_EXPIRE));
        snprintf(key, sizeof key, "gpio:%u", i + 1 < N / 2 ? 2 * i + 3 : 2 * (i + 1 - N / 2));
        assert_int_equal(kp_cache_invalidate(c, S(key), KP_CACHE_EXPIRE), i + 1 < N);
    }
    assert_int_equal(kp_cache_stats(c).entries, N);
    kp_cache_free(c);
}

static void test_clean(void **state)
{
    struct kp_cache_options o;
    struct kp_cache *c = NULL;
    char key[24];
    (void)state;
    kp_cache_defaults(&o);
    o.keep_ms = 5000;
    assert_int_equal(kp_cache_new(&c, &o, NULL), KP_OK);
    assert_int_equal(kp_cache_clean(c, 0, 10), 0);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "k%u", i);
        put(c, i % 2 ? KP_CACHE_GPIO : KP_CACHE_SENSOR, key, "", 0);
    }
    assert_int_equal(kp_cache_clean(c, 5499, 1000), 0);
    assert_int_equal(kp_cache_clean(c, 5500, 10), 5); /* bounded steps, all round in the end */
    assert_int_equal(kp_cache_clean(c, 5500, 80), 40);
    assert_int_equal(kp_cache_clean(c, 5500, 0), 0);
    assert_int_equal(kp_cache_clean(c, 5500, SIZE_MAX), 5);
    assert_int_equal(kp_cache_clean(c, 6000, SIZE_MAX), 50);
    assert_int_equal(kp_cache_stats(c).cleaned, 100);
    assert_int_equal(kp_cache_stats(c).entries, 0);
    kp_cache_free(c);
    o.keep_ms = INT64_MAX;
    assert_int_equal(kp_cache_new(&c, &o, NULL), KP_OK);
    put(c, KP_CACHE_GPIO, "k", "", INT64_MIN);
    assert_int_equal(kp_cache_clean(c, INT64_MAX, 10), 0);
    kp_cache_free(c);
}

static void test_refresh(void **state)
{
    struct kp_cache *c = cache_of(10);
    struct kp_cache_hint hints[10];
    (void)state;
    assert_int_equal(kp_cache_refresh(c, 0, 100, 10, hints, 10), 0);
    put(c, KP_CACHE_GPIO, "a", "", 0);
    put(c, KP_CACHE_SENSOR, "b", "", 0);
    put(c, KP_CACHE_GPIO, "unasked", "", 0);
    assert_true(has(c, "a", 0) && has(c, "b", 0));
    assert_int_equal(kp_cache_refresh(c, 399, 100, 10, hints, 10), 0);
    assert_int_equal(kp_cache_refresh(c, 400, 100, 10, hints, 10), 1);
    assert_true(kp_str_eq(hints[0].key, "b"));
    assert_int_equal(hints[0].category, KP_CACHE_SENSOR);
    assert_int_equal(kp_cache_refresh(c, 400, 100, 10, hints, 10), 0); /* told once */
    put(c, KP_CACHE_SENSOR, "b", "", 400);
    assert_int_equal(kp_cache_refresh(c, 5000, 0, 1, hints, 10), 1); /* b waits to be asked for again, a is past its time */
    assert_true(kp_str_eq(hints[0].key, "a"));
    assert_true(has(c, "unasked", 5000));
    assert_true(has(c, "b", 5000));
    assert_int_equal(kp_cache_refresh(c, 5000, 0, 10, hints, 1), 1);
    assert_int_equal(kp_cache_refresh(c, 5000, 0, 10, hints, 0), 0);
    assert_int_equal(kp_cache_refresh(c, 5000, 0, 10, hints, 10), 1);
    put(c, KP_CACHE_PRINTER, "c", "", 5000);
    assert_true(has(c, "c", 5000));
    kp_cache_invalidate(c, S("c"), KP_CACHE_EXPIRE);
    assert_int_equal(kp_cache_refresh(c, 5000, 0, 10, hints, 10), 1); /* expired is due */
    kp_cache_free(c);
}

static void test_counters(void **state)
{
    struct kp_cache *c = cache_of(2);
    struct kp_cached out;
    (void)state;
    put(c, KP_CACHE_GPIO, "a", "", 0);
    put(c, KP_CACHE_GPIO, "b", "", 0);
    put(c, KP_CACHE_GPIO, "c", "", 0);
    kp_cache_get(c, S("a"), true, 0, &out);
    kp_cache_get(c, S("b"), true, 0, &out);
    kp_cache_get(c, S("b"), false, 2000, &out);
    kp_cache_get(c, S("c"), true, 2000, &out);
    struct kp_cache_stats s = kp_cache_stats(c);
    assert_int_equal(s.hits, 1);
    assert_int_equal(s.stale, 1);
    assert_int_equal(s.misses, 2);
    assert_int_equal(s.sets, 3);
    assert_int_equal(s.evictions, 1);
    kp_cache_free(c);
}

/* ---- memory ---- */

static void test_out_of_memory(void **state)
{
    struct kp_cache *c = NULL;
    struct kp_error e;
    char value[300] = "";
    struct kp_cache_row row = { .category = KP_CACHE_GPIO, .key = S("a"), .value = { value, sizeof value } };
    size_t n = 0;
    enum kp_err rc;
    (void)state;
    do {
        alloc_fail_at(++n);
        rc = kp_cache_new(&c, NULL, &e);
        alloc_fail_at(0);
        assert_true(rc == KP_OK ? c != NULL : rc == KP_INTERNAL_ERROR && !c);
    } while (rc != KP_OK);
    assert_int_equal(n, 5); /* four allocations, each failed once */
    alloc_fail_at(1);
    assert_int_equal(kp_cache_set(c, &row, 0, &e), KP_INTERNAL_ERROR);
    alloc_fail_at(0);
    assert_int_equal(kp_cache_stats(c).entries, 0);
    put(c, KP_CACHE_GPIO, "a", "short", 0);
    alloc_fail_at(1);
    assert_int_equal(kp_cache_set(c, &row, 0, &e), KP_INTERNAL_ERROR);
    assert_false(has(c, "a", 0)); /* the old value no longer holds */
    alloc_fail_at(0);
    assert_int_equal(kp_cache_set(c, &row, 0, &e), KP_OK);
    row.value.n = 257; /* the same block does */
    alloc_fail_at(1);
    assert_int_equal(kp_cache_set(c, &row, 0, &e), KP_OK);
    for (int i = 0; i < 1000; i++) { /* neither a short value nor a get allocates */
        put(c, KP_CACHE_GPIO, "b", "short", 0);
        assert_true(has(c, "a", 0));
    }
    assert_int_equal(alloc_count, 0);
    alloc_fail_at(0);
    assert_int_equal(kp_cache_stats(c).bytes, 512);
    kp_cache_free(c);
}

/* As many as can be: buckets that overflow, tags that are the same for two keys, and back to nothing. */
static void test_many(void **state)
{
    enum { N = KP_CACHE_ENTRIES_MAX };
    struct kp_cache *c = cache_of(N);
    struct kp_cached out;
    char key[24];
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < N + 1000; i++) {
            snprintf(key, sizeof key, "sensor:%u", i);
            put(c, KP_CACHE_SENSOR, key, key, 0);
        }
        for (unsigned i = 0; i < N + 1000; i++) {
            snprintf(key, sizeof key, "sensor:%u", i);
            bool there = kp_cache_get(c, S(key), false, 0, &out) == KP_CACHE_FRESH;
            assert_int_equal(there, i >= 1000);
            assert_true(!there || kp_str_eq(out.value, key));
        }
        assert_int_equal(kp_cache_invalidate_category(c, KP_CACHE_SENSOR, KP_CACHE_DROP), N);
    }
    assert_int_equal(kp_cache_stats(c).evictions, 2000);
    kp_cache_free(c);
}

/* Keys that come and go for long leave nothing behind that a search for a missing one would have to go past. */
static void test_churn(void **state)
{
    struct kp_cache *c = cache_of(56); /* the fullest its buckets can be */
    char key[24];
    (void)state;
    for (unsigned i = 0; i < 300000; i++) {
        snprintf(key, sizeof key, "%u", i);
        put(c, KP_CACHE_GPIO, key, "", 0);
    }
    assert_false(has(c, "none", 0));
    assert_int_equal(kp_cache_stats(c).evictions, 300000 - 56);
    kp_cache_free(c);
}

static void test_days(void **state)
{
    struct kp_cache *c = cache_of(8);
    struct kp_cached out;
    struct kp_cache_row live = { .category = KP_CACHE_POSITION, .key = S("position"), .value = S("{}"), .pushed = true };
    const int64_t day_ms = 24 * 3600 * 1000;
    size_t gone = 0;
    (void)state;
    kp_cache_set(c, &live, 0, NULL);
    for (int64_t now_ms = 0; now_ms < 40 * day_ms; now_ms += 5000) { /* past 2^31 ms */
        kp_cache_pushed(c, now_ms);
        assert_int_equal(kp_cache_get(c, S("position"), false, now_ms + 999, &out), KP_CACHE_FRESH);
        assert_int_equal(out.age_ms, 999);
        if (now_ms % day_ms == 0) {
            put(c, KP_CACHE_GPIO, "daily", "x", now_ms);
        } else {
            assert_int_equal(kp_cache_get(c, S("daily"), true, now_ms, &out), KP_CACHE_STALE);
            assert_int_equal(out.age_ms, now_ms % day_ms);
        }
        gone += kp_cache_clean(c, now_ms, 1);
    }
    assert_int_equal(gone, 0);
    assert_int_equal(kp_cache_clean(c, 42 * day_ms, 8), 2);
    kp_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_categories), cmocka_unit_test(test_time), cmocka_unit_test(test_pushes), cmocka_unit_test(test_push_off),
        cmocka_unit_test(test_values), cmocka_unit_test(test_refusals), cmocka_unit_test(test_options), cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_invalidate), cmocka_unit_test(test_lru), cmocka_unit_test(test_clean), cmocka_unit_test(test_refresh),
        cmocka_unit_test(test_counters), cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_many), cmocka_unit_test(test_churn),
        cmocka_unit_test(test_days),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
