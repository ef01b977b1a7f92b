/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The queue again, as plainly as it can be said: every entry ever added in one list, with its state. Random calls go to both, and every answer, the order
 * of what waits, the history and what is told have to be the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kp.h"

#define MODEL_MAX 40000
#define FILL_MAX 40 /* bytes of parameters */

struct model_entry {
    char id[KP_QUEUE_ID_MAX];
    enum kp_queue_state state;
    enum kp_err result;
    bool running, stop;
    int priority;
    uint64_t batch;
    size_t bytes;
    char fill;
    int64_t wait_ms, timeout_ms, added_ms, started_ms;
    uint64_t ended; /* place among all that ended, from 1 */
};

struct model {
    size_t entries, history, bytes_max;
    struct model_entry entry[MODEL_MAX];
    size_t count;
    uint64_t ends, told;
    unsigned holds;
};

static const int priorities[] = { INT32_MAX, 2, 1, 0, -1, -2, INT32_MIN }; /* all that are used */
static uint64_t random_state;

static unsigned random_below(unsigned n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(random_state >> 33) % n;
}

static bool remembered(const struct model *m, const struct model_entry *e)
{
    return e->ended == 0 || e->running || e->ended + m->history > m->ends;
}

static struct model_entry *model_find(struct model *m, const char *id)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->entry[i].id, id) == 0 && remembered(m, &m->entry[i]))
            return &m->entry[i];
    return NULL;
}

static struct model_entry *model_running(struct model *m)
{
    for (size_t i = 0; i < m->count; i++)
        if (m->entry[i].running)
            return &m->entry[i];
    return NULL;
}

/* The i-th that waits: the highest priority first, inside one as they came. */
static struct model_entry *model_pending(struct model *m, size_t i)
{
    for (size_t p = 0; p < sizeof priorities / sizeof *priorities; p++)
        for (size_t j = 0; j < m->count; j++)
            if (m->entry[j].state == KP_Q_PENDING && m->entry[j].priority == priorities[p] && i-- == 0)
                return &m->entry[j];
    return NULL;
}

static void model_sum(const struct model *m, size_t *used, size_t *bytes)
{
    *used = *bytes = 0;
    for (size_t i = 0; i < m->count; i++)
        if (m->entry[i].state == KP_Q_PENDING || m->entry[i].running) {
            *used += 1;
            *bytes += m->entry[i].bytes;
        }
}

static void model_end(struct model *m, struct model_entry *e, enum kp_queue_state state, enum kp_err result)
{
    e->state = state;
    e->result = result;
    e->ended = ++m->ends;
    m->told++;
    if (state != KP_Q_FAILED || e->batch == 0)
        return;
    for (size_t i = 0; model_pending(m, i);) {
        struct model_entry *other = model_pending(m, i);
        if (other->batch == e->batch && other->stop)
            model_end(m, other, KP_Q_CANCELLED, KP_CANCELLED);
        else
            i++;
    }
}

static size_t model_expire(struct model *m, int64_t now_ms)
{
    size_t count = 0;
    struct model_entry *e = model_running(m);
    if (e && e->state == KP_Q_EXECUTING && e->timeout_ms && now_ms - e->started_ms >= e->timeout_ms) {
        model_end(m, e, KP_Q_FAILED, KP_TIMEOUT);
        count++;
    }
    for (size_t i = 0; (e = model_pending(m, i)) != NULL;) {
        if (e->wait_ms && now_ms - e->added_ms >= e->wait_ms) {
            model_end(m, e, KP_Q_FAILED, KP_TIMEOUT);
            count++;
            i = 0;
        } else {
            i++;
        }
    }
    return count;
}

/* ---- both at once ---- */

static void told_count(void *context, const struct kp_queue_entry *entry)
{
    uint64_t *told = context;
    assert_true(entry->state < KP_Q_STATES);
    for (size_t i = 1; i < entry->params.n; i++)
        assert_int_equal(entry->params.p[i], entry->params.p[0]);
    *told += 1;
}

static void compare_entry(const struct kp_queue_entry *got, const struct model_entry *want, bool params)
{
    assert_true((got != NULL) == (want != NULL));
    if (!got)
        return;
    assert_string_equal(got->id, want->id);
    assert_true(got->state == want->state && got->result == want->result && got->running == want->running && got->added_ms == want->added_ms);
    assert_int_equal(got->params.n, params ? want->bytes : 0);
    if (params && want->bytes > 0)
        assert_int_equal(got->params.p[want->bytes - 1], want->fill);
}

/* New items; now and then an id that is there, and more than there is room for. */
static void compare_add(struct kp_queue *q, struct model *m, int64_t now_ms)
{
    static char params[8][FILL_MAX];
    struct kp_queue_item items[8];
    size_t count = random_below(3) ? 1 : 1 + random_below(8), used, bytes, before = m->count;
    bool restore = random_below(20) == 0, twice = false;
    uint64_t batch = random_below(2) ? 0 : 1 + m->count;
    enum kp_err want = KP_OK;
    count = restore ? 1 : count;
    model_sum(m, &used, &bytes);
    for (size_t i = 0; i < count; i++) {
        struct model_entry *e = &m->entry[before + i];
        *e = (struct model_entry){ .priority = priorities[random_below(7)],
            .batch = random_below(5) ? batch : m->count / 50, .stop = random_below(2), .bytes = random_below(FILL_MAX), .fill = (char)random_below(256),
            .wait_ms = random_below(3) ? 0 : 1 + random_below(2000), .timeout_ms = random_below(2) ? 0 : 1 + random_below(800), .added_ms = now_ms };
        snprintf(e->id, sizeof e->id, "id-%zu", random_below(40) || before == 0 ? before + i : random_below((unsigned)(before + i + 1)));
        twice = twice || model_find(m, e->id);
        for (size_t j = 0; j < i; j++)
            twice = twice || strcmp(m->entry[before + j].id, e->id) == 0;
        memset(params[i], e->fill, e->bytes);
        items[i] = (struct kp_queue_item){ .id = kp_str_of(e->id), .command = kp_str_of("move"), .params = { params[i], e->bytes }, .priority = e->priority,
            .batch = e->batch, .stop_on_error = e->stop, .wait_ms = e->wait_ms, .timeout_ms = e->timeout_ms };
        bytes += e->bytes;
    }
    want = used + count > m->entries || bytes > m->bytes_max ? KP_QUEUE_FULL : twice ? KP_INVALID_PARAMETER : KP_OK;
    if (restore)
        assert_int_equal(kp_queue_restore(q, items, KP_Q_PENDING, KP_OK, now_ms, NULL), want);
    else
        assert_int_equal(kp_queue_add(q, items, count, now_ms, NULL), want);
    m->count += want == KP_OK ? count : 0;
    m->told += want == KP_OK && !restore ? count : 0;
}

static void compare_take(struct kp_queue *q, struct model *m, int64_t now_ms)
{
    struct model_entry *e = m->holds || model_running(m) ? NULL : model_pending(m, 0);
    if (e) {
        e->state = KP_Q_EXECUTING;
        e->running = true;
        e->started_ms = now_ms;
        m->told++;
    }
    compare_entry(kp_queue_take(q, now_ms), e, true);
}

static void compare_finish(struct kp_queue *q, struct model *m, const char *id, int64_t now_ms)
{
    static const enum kp_err results[] = { KP_OK, KP_OK, KP_EXECUTION_FAILED, KP_OUTCOME_UNKNOWN, KP_EMERGENCY_STOP_ACTIVE };
    struct model_entry *e = model_find(m, id);
    enum kp_err result = results[random_below(5)], want = !e ? KP_NOT_FOUND : e->running ? KP_OK : KP_INVALID_REQUEST;
    assert_int_equal(kp_queue_finish(q, kp_str_of(id), result, now_ms, NULL), want);
    if (want != KP_OK)
        return;
    e->running = false;
    if (e->state != KP_Q_EXECUTING)
        m->told++;
    else
        model_end(m, e, result == KP_OK ? KP_Q_DONE : result == KP_OUTCOME_UNKNOWN ? KP_Q_INTERRUPTED : KP_Q_FAILED, result);
    m->holds |= e->state == KP_Q_INTERRUPTED ? KP_HOLD_INTERRUPTED : 0;
}

static void compare_cancel(struct kp_queue *q, struct model *m, const char *id, int64_t now_ms)
{
    struct model_entry *e = model_find(m, id);
    enum kp_err want = !e ? KP_NOT_FOUND : e->state == KP_Q_PENDING ? KP_OK : KP_INVALID_REQUEST;
    assert_int_equal(kp_queue_cancel(q, kp_str_of(id), now_ms, NULL), want);
    if (want == KP_OK)
        model_end(m, e, KP_Q_CANCELLED, KP_CANCELLED);
}

static void compare_call(struct kp_queue *q, struct model *m, int64_t now_ms)
{
    unsigned what = random_below(1000), holds = random_below(16);
    char id[KP_QUEUE_ID_MAX];
    struct model_entry *running = model_running(m);
    snprintf(id, sizeof id, "id-%zu", m->count - (m->count ? random_below(m->count < 60 ? (unsigned)m->count : 60) : 0));
    if (what < 300) {
        compare_add(q, m, now_ms);
    } else if (what < 550) {
        compare_take(q, m, now_ms);
    } else if (what < 800) {
        compare_finish(q, m, running && random_below(10) ? running->id : id, now_ms);
    } else if (what < 870) {
        compare_cancel(q, m, id, now_ms);
    } else if (what < 940) {
        assert_int_equal(kp_queue_expire(q, now_ms), model_expire(m, now_ms));
    } else if (what < 950) {
        kp_queue_pause(q, holds);
        m->holds |= holds;
    } else if (what < 995) {
        kp_queue_resume(q, holds);
        m->holds &= ~holds;
    } else {
        size_t count = 0;
        for (struct model_entry *e; (e = model_pending(m, 0)) != NULL; count++)
            model_end(m, e, KP_Q_CANCELLED, KP_CANCELLED);
        assert_int_equal(kp_queue_clear(q, now_ms), count);
    }
}

static void compare_all(const struct kp_queue *q, struct model *m, uint64_t told)
{
    size_t used, bytes, waiting = 0;
    int64_t first = INT64_MAX;
    struct model_entry *e = model_running(m);
    model_sum(m, &used, &bytes);
    compare_entry(kp_queue_running(q), e, true);
    if (e && e->state == KP_Q_EXECUTING && e->timeout_ms)
        first = e->started_ms + e->timeout_ms;
    for (; (e = model_pending(m, waiting)) != NULL; waiting++) {
        compare_entry(kp_queue_pending(q, waiting), e, true);
        assert_int_equal(kp_queue_position(q, kp_str_of(e->id)), waiting + 1);
        if (e->wait_ms && e->added_ms + e->wait_ms < first)
            first = e->added_ms + e->wait_ms;
    }
    assert_null(kp_queue_pending(q, waiting));
    assert_true(kp_queue_deadline(q) == first);
    for (size_t i = 0; i < m->count; i++)
        if (m->entry[i].ended && m->entry[i].ended + m->history > m->ends)
            compare_entry(kp_queue_history(q, m->ends - m->entry[i].ended), &m->entry[i], false);
    struct kp_queue_counts counts = kp_queue_counts(q);
    assert_int_equal(counts.pending, waiting);
    assert_int_equal(counts.executing, used - waiting);
    assert_int_equal(counts.bytes, bytes);
    assert_int_equal(counts.history, m->ends < m->history ? m->ends : m->history);
    assert_int_equal(kp_queue_holds(q), m->holds);
    assert_true(told == m->told);
}

static void test_model(void **state)
{
    static const struct { size_t entries, history, bytes; } rows[] = {
        { 1, 1, 60 }, { 2, 3, 60 }, { 5, 2, 100 }, { 20, 10, 300 }, { 20, 50, 10000 }, { 60, 20, 10000 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint64_t seed = 1; seed <= 4; seed++) {
            uint64_t told = 0;
            struct kp_queue_options o = { rows[i].entries, rows[i].history, rows[i].bytes, told_count, &told };
            struct model *m = calloc(1, sizeof *m);
            struct kp_queue *q = NULL;
            int64_t now_ms = (int64_t)seed * 86400000 * 365;
            m->entries = o.entries;
            m->history = o.history;
            m->bytes_max = o.bytes;
            random_state = seed * 1000 + i;
            assert_int_equal(kp_queue_new(&q, &o, NULL), KP_OK);
            for (unsigned n = 0; n < 3000; n++) {
                now_ms += random_below(4) ? random_below(60) : random_below(100) ? 0 : 5000;
                compare_call(q, m, now_ms);
                compare_all(q, m, told);
            }
            kp_queue_free(q);
            free(m);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_model) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
