/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The cache again, as plainly as it can be said: a list of entries that is searched from end to end. Random calls go to both, and every answer,
 * every counter and every victim has to be the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kp.h"

#define S(text) kp_str_of(text)
#define MODEL_MAX 512
#define MODEL_INLINE 173 /* bytes of key and value that need no block: kp_cache_options.bytes says so */

struct model_entry {
    bool there, pushed, expired, asked, hinted;
    char key[KP_CACHE_KEY_MAX + 1];
    enum kp_category category;
    size_t value_n;
    char fill;             /* every byte of the value */
    int64_t set_ms, ttl_ms;
    uint64_t used;
};

struct model {
    struct kp_cache_options o;
    struct model_entry entry[MODEL_MAX];
    uint64_t tick;
    int64_t pushed_ms;
    struct kp_cache_stats stats;
};

static struct model_entry *model_find(struct model *m, const char *key)
{
    for (size_t i = 0; i < MODEL_MAX; i++)
        if (m->entry[i].there && strcmp(m->entry[i].key, key) == 0)
            return &m->entry[i];
    return NULL;
}

static size_t model_bytes(const struct model_entry *e)
{
    size_t room = 256;
    if (strlen(e->key) + e->value_n <= MODEL_INLINE)
        return 0;
    while (room < e->value_n)
        room *= 2;
    return room;
}

static void model_remove(struct model *m, struct model_entry *e)
{
    m->stats.bytes -= model_bytes(e);
    m->stats.entries--;
    e->there = false;
}

static void model_evict(struct model *m)
{
    struct model_entry *oldest = NULL;
    for (size_t i = 0; i < MODEL_MAX; i++)
        if (m->entry[i].there && (!oldest || m->entry[i].used < oldest->used))
            oldest = &m->entry[i];
    assert_non_null(oldest);
    model_remove(m, oldest);
    m->stats.evictions++;
}

static void model_set(struct model *m, const char *key, enum kp_category category, char fill, size_t n, int64_t ttl_ms, bool pushed, int64_t now_ms)
{
    struct model_entry *e = model_find(m, key);
    size_t i = 0;
    if (e)
        model_remove(m, e);
    else if (m->stats.entries == m->o.entries)
        model_evict(m);
    while (m->entry[i].there)
        i++;
    e = &m->entry[i];
    *e = (struct model_entry){ .pushed = pushed, .category = category, .fill = fill, .value_n = n, .set_ms = now_ms, .used = ++m->tick };
    strcpy(e->key, key);
    e->ttl_ms = ttl_ms > 0 ? ttl_ms : m->o.ttl_ms[category];
    while (m->stats.bytes + model_bytes(e) > m->o.bytes)
        model_evict(m);
    e->there = true;
    m->stats.bytes += model_bytes(e);
    m->stats.entries++;
    m->stats.sets++;
}

static int64_t model_told(const struct model *m, const struct model_entry *e)
{
    return e->pushed && m->pushed_ms > e->set_ms ? m->pushed_ms : e->set_ms;
}

/* How long it is fresh by time alone. */
static int64_t model_left(const struct model *m, const struct model_entry *e, int64_t now_ms)
{
    int64_t ends = model_told(m, e) + e->ttl_ms;
    if (e->pushed && m->pushed_ms >= 0 && m->pushed_ms + m->o.push_ms > ends)
        ends = m->pushed_ms + m->o.push_ms;
    return ends - now_ms;
}

static enum kp_cache_found model_get(struct model *m, const char *key, bool stale_ok, int64_t now_ms)
{
    struct model_entry *e = model_find(m, key);
    if (e) {
        e->used = ++m->tick;
        e->asked = true;
    }
    if (e && !e->expired && model_left(m, e, now_ms) > 0) {
        m->stats.hits++;
        return KP_CACHE_FRESH;
    }
    if (e && stale_ok) {
        m->stats.stale++;
        return KP_CACHE_STALE;
    }
    m->stats.misses++;
    return KP_CACHE_NONE;
}

static bool model_match(const char *pattern, const char *key)
{
    if (*pattern == '*')
        return model_match(pattern + 1, key) || (*key && model_match(pattern, key + 1));
    if (!*pattern || !*key)
        return !*pattern && !*key;
    return (*pattern == '?' || *pattern == *key) && model_match(pattern + 1, key + 1);
}

/* By pattern, and by category unless that is KP_CATEGORY_COUNT. */
static size_t model_invalidate(struct model *m, const char *pattern, enum kp_category category, enum kp_cache_how how)
{
    size_t count = 0;
    for (size_t i = 0; i < MODEL_MAX; i++) {
        struct model_entry *e = &m->entry[i];
        if (!e->there || !model_match(pattern, e->key) || (category != KP_CATEGORY_COUNT && e->category != category))
            continue;
        count++;
        if (how == KP_CACHE_DROP)
            model_remove(m, e);
        else
            e->expired = true;
    }
    return count;
}

static size_t model_clean(struct model *m, int64_t now_ms)
{
    size_t count = 0;
    for (size_t i = 0; i < MODEL_MAX; i++)
        if (m->entry[i].there && -model_left(m, &m->entry[i], now_ms) >= m->o.keep_ms) {
            model_remove(m, &m->entry[i]);
            count++;
        }
    m->stats.cleaned += count;
    return count;
}

static bool model_due(const struct model *m, const struct model_entry *e, int64_t now_ms, int64_t lead_ms)
{
    return e->there && e->asked && !e->hinted && (e->expired || model_left(m, e, now_ms) <= lead_ms);
}

/* ---- random calls against the model ---- */

static uint64_t random_state;

static unsigned random_below(unsigned n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % n;
}

static const char *random_pattern(const char *key)
{
    static char pattern[KP_CACHE_KEY_MAX + 2];
    static const char *const fixed[] = { "gpio:*", "*1*", "sensor:?", "?*:1?", "*", "none*" };
    if (random_below(3) == 0)
        return random_below(20) == 0 ? "*" : fixed[random_below(4)];
    strcpy(pattern, key);
    pattern[random_below((unsigned)strlen(key))] = random_below(2) ? '*' : '?';
    return pattern;
}

static void compare_get(struct kp_cache *c, struct model *m, const char *key, int64_t now_ms)
{
    bool stale_ok = random_below(2);
    struct kp_cached out;
    enum kp_cache_found found = kp_cache_get(c, S(key), stale_ok, now_ms, &out);
    assert_int_equal(found, model_get(m, key, stale_ok, now_ms));
    if (found == KP_CACHE_NONE)
        return;
    const struct model_entry *e = model_find(m, key);
    assert_int_equal(out.value.n, e->value_n);
    assert_true(e->value_n == 0 || (out.value.p[0] == e->fill && memcmp(out.value.p, out.value.p + 1, e->value_n - 1) == 0));
    assert_int_equal(out.category, e->category);
    assert_int_equal(out.told_ms, model_told(m, e));
    assert_int_equal(out.age_ms, now_ms - model_told(m, e));
}

static void compare_refresh(struct kp_cache *c, struct model *m, int64_t now_ms)
{
    struct kp_cache_hint hints[MODEL_MAX];
    int64_t lead_ms = random_below(300);
    size_t due = 0, count = kp_cache_refresh(c, now_ms, lead_ms, SIZE_MAX, hints, MODEL_MAX);
    for (size_t i = 0; i < MODEL_MAX; i++)
        due += model_due(m, &m->entry[i], now_ms, lead_ms);
    assert_int_equal(count, due);
    for (size_t i = 0; i < count; i++) {
        char key[KP_CACHE_KEY_MAX + 1] = "";
        memcpy(key, hints[i].key.p, hints[i].key.n);
        struct model_entry *e = model_find(m, key);
        assert_non_null(e);
        assert_true(model_due(m, e, now_ms, lead_ms));
        assert_int_equal(hints[i].category, e->category);
        e->hinted = true;
    }
}

static void compare_set(struct kp_cache *c, struct model *m, const char *key, int64_t now_ms)
{
    static char bytes[20000];
    size_t n = random_below(4) ? random_below(180) : random_below(random_below(8) ? 1000 : sizeof bytes);
    char fill = (char)random_below(256);
    struct kp_cache_row row = { .category = (enum kp_category)random_below(KP_CATEGORY_COUNT), .key = S(key), .value = { bytes, n },
        .ttl_ms = random_below(3) ? 0 : 1 + random_below(3000), .pushed = random_below(3) == 0 };
    memset(bytes, fill, n);
    assert_int_equal(kp_cache_set(c, &row, now_ms, NULL), KP_OK);
    model_set(m, key, row.category, fill, n, row.ttl_ms, row.pushed, now_ms);
}

static void compare_call(struct kp_cache *c, struct model *m, unsigned keys, int64_t now_ms)
{
    static const char *const prefixes[] = { "gpio:", "sensor:", "a_long_prefix_of_a_key_for_the_pattern:", "" };
    char key[KP_CACHE_KEY_MAX + 1];
    unsigned k = random_below(keys), what = random_below(1000);
    enum kp_cache_how how = random_below(2) ? KP_CACHE_DROP : KP_CACHE_EXPIRE;
    snprintf(key, sizeof key, "%s%u", prefixes[k % 4], k);
    if (what < 400) {
        compare_set(c, m, key, now_ms);
    } else if (what < 900) {
        compare_get(c, m, key, now_ms);
    } else if (what < 920) {
        kp_cache_pushed(c, now_ms);
        m->pushed_ms = now_ms;
    } else if (what < 950) {
        assert_int_equal(kp_cache_invalidate(c, S(key), how), model_invalidate(m, key, KP_CATEGORY_COUNT, how));
    } else if (what < 960) {
        const char *pattern = random_pattern(key);
        assert_int_equal(kp_cache_invalidate_pattern(c, S(pattern), how), model_invalidate(m, pattern, KP_CATEGORY_COUNT, how));
    } else if (what < 965) {
        enum kp_category category = (enum kp_category)random_below(KP_CATEGORY_COUNT);
        assert_int_equal(kp_cache_invalidate_category(c, category, how), model_invalidate(m, "*", category, how));
    } else if (what < 980) {
        assert_int_equal(kp_cache_clean(c, now_ms, SIZE_MAX), model_clean(m, now_ms));
    } else {
        compare_refresh(c, m, now_ms);
    }
}

static void test_model(void **state)
{
    static const struct { size_t entries; unsigned keys, calls; } rows[] = {
        { 1, 3, 20000 }, { 2, 5, 20000 }, { 3, 4, 20000 }, { 8, 20, 30000 }, { 50, 120, 60000 }, { 200, 210, 60000 }, { 400, 2000, 40000 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            struct model *m = calloc(1, sizeof *m);
            struct kp_cache *c = NULL;
            int64_t now_ms = 0;
            kp_cache_defaults(&m->o);
            m->o.entries = rows[i].entries;
            m->o.bytes = KP_CACHE_VALUE_MAX * seed;
            m->o.keep_ms = 20000;
            m->o.seed = seed;
            m->pushed_ms = -1;
            random_state = seed * 1000 + i;
            assert_int_equal(kp_cache_new(&c, &m->o, NULL), KP_OK);
            for (unsigned n = 0; n < rows[i].calls; n++) {
                now_ms += random_below(4) ? 0 : random_below(200) ? random_below(50) : random_below(30000);
                compare_call(c, m, rows[i].keys, now_ms);
                struct kp_cache_stats s = kp_cache_stats(c);
                if (memcmp(&s, &m->stats, sizeof s) != 0)
                    fail_msg("counters differ: row %zu, seed %u, call %u", i, (unsigned)seed, n);
            }
            kp_cache_free(c);
            free(m);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_model) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
