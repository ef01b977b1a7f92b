/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The queue: every cell of its table, every refusal, what restarts and time do to it, and memory that runs out. Random calls are test_queue_model.c's. */
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

/* What `changed` told: "id:state" of each, in order, with "!" while it runs. */
struct told { char text[512]; };

static void note(void *context, const struct kp_queue_entry *entry)
{
    struct told *told = context;
    size_t n = strlen(told->text);
    snprintf(told->text + n, sizeof told->text - n, "%s%s:%s%s", n ? " " : "", entry->id, kp_queue_state_name(entry->state), entry->running ? "!" : "");
}

static struct kp_queue *queue_of(size_t entries, size_t history, struct told *told)
{
    struct kp_queue_options o;
    struct kp_queue *q = NULL;
    kp_queue_defaults(&o);
    o.entries = entries;
    o.history = history;
    o.changed = told ? note : NULL;
    o.context = told;
    assert_int_equal(kp_queue_new(&q, &o, NULL), KP_OK);
    return q;
}

static struct kp_queue_item item(const char *id, int priority)
{
    return (struct kp_queue_item){ .id = S(id), .command = S("move"), .params = S("{\"x\":1}"), .priority = priority };
}

static void add(struct kp_queue *q, const char *id, int priority, int64_t now_ms)
{
    struct kp_queue_item one = item(id, priority);
    assert_int_equal(kp_queue_add(q, &one, 1, now_ms, NULL), KP_OK);
}

static void expect_told(struct told *told, const char *text)
{
    assert_string_equal(told->text, text);
    told->text[0] = 0;
}

/* The ids that wait, in order. */
static void expect_order(const struct kp_queue *q, const char *ids)
{
    char text[256] = "";
    for (size_t i = 0; kp_queue_pending(q, i); i++) {
        const struct kp_queue_entry *entry = kp_queue_pending(q, i);
        assert_int_equal(kp_queue_position(q, S(entry->id)), i + 1);
        assert_ptr_equal(kp_queue_find(q, S(entry->id)), entry);
        strcat(strcat(text, i ? " " : ""), entry->id);
    }
    assert_string_equal(text, ids);
}

/* ---- the table ---- */

static void test_table(void **state)
{
    enum { P = KP_Q_PENDING, E = KP_Q_EXECUTING, D = KP_Q_DONE, F = KP_Q_FAILED, C = KP_Q_CANCELLED, I = KP_Q_INTERRUPTED, NO = KP_Q_STATES };
    static const int want[KP_Q_STATES][KP_QE_EVENTS] = {
        /*        TAKE SUCCEED FAIL CANCEL EXPIRE LOSE RESTORE */
        [P] = {   E,   NO,     NO,  C,     F,     NO,  P },
        [E] = {   NO,  D,      F,   NO,    F,     I,   I },
        [D] = {   NO,  NO,     NO,  NO,    NO,    NO,  D },
        [F] = {   NO,  NO,     NO,  NO,    NO,    NO,  F },
        [C] = {   NO,  NO,     NO,  NO,    NO,    NO,  C },
        [I] = {   NO,  NO,     NO,  NO,    NO,    NO,  I },
    };
    static const char *const names[KP_Q_STATES] = { "pending", "executing", "done", "failed", "cancelled", "interrupted" };
    enum kp_queue_state found;
    (void)state;
    for (int s = 0; s < KP_Q_STATES; s++) {
        for (int ev = 0; ev < KP_QE_EVENTS; ev++) {
            enum kp_queue_state next = KP_Q_STATES;
            assert_int_equal(kp_queue_next((enum kp_queue_state)s, (enum kp_queue_event)ev, &next), want[s][ev] != NO);
            assert_int_equal(next, want[s][ev]); /* untouched where it is refused */
        }
        assert_string_equal(kp_queue_state_name((enum kp_queue_state)s), names[s]);
        assert_true(kp_queue_state_by_name(S(names[s]), &found));
        assert_int_equal(found, s);
    }
    assert_false(kp_queue_next(KP_Q_STATES, KP_QE_TAKE, &found));
    assert_false(kp_queue_next(KP_Q_PENDING, KP_QE_EVENTS, &found));
    assert_null(kp_queue_state_name(KP_Q_STATES));
    assert_false(kp_queue_state_by_name(S("waiting"), &found));
}

/* Every call on an entry in every state: legal or refused, and a refusal changes nothing. */
static void test_calls_in_states(void **state)
{
    static const struct { enum kp_queue_state from; enum kp_err cancel, finish; } rows[] = {
        { KP_Q_PENDING, KP_OK, KP_INVALID_REQUEST },          { KP_Q_EXECUTING, KP_INVALID_REQUEST, KP_OK },
        { KP_Q_DONE, KP_INVALID_REQUEST, KP_INVALID_REQUEST }, { KP_Q_FAILED, KP_INVALID_REQUEST, KP_INVALID_REQUEST },
        { KP_Q_CANCELLED, KP_INVALID_REQUEST, KP_INVALID_REQUEST }, { KP_Q_INTERRUPTED, KP_INVALID_REQUEST, KP_INVALID_REQUEST },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int finish = 0; finish < 2; finish++) {
            struct kp_queue *q = queue_of(4, 4, NULL);
            struct kp_queue_item one = item("a", 0);
            struct kp_error e;
            enum kp_queue_state from = rows[i].from;
            assert_int_equal(kp_queue_restore(q, &one, from == KP_Q_EXECUTING ? KP_Q_PENDING : from, KP_OK, 0, NULL), KP_OK);
            if (from == KP_Q_EXECUTING)
                assert_non_null(kp_queue_take(q, 0));
            enum kp_err want = finish ? rows[i].finish : rows[i].cancel;
            assert_int_equal(finish ? kp_queue_finish(q, S("a"), KP_OK, 1, &e) : kp_queue_cancel(q, S("a"), 1, &e), want);
            assert_int_equal(kp_queue_find(q, S("a"))->state, want != KP_OK ? from : finish ? KP_Q_DONE : KP_Q_CANCELLED);
            if (want != KP_OK)
                assert_string_equal(e.field, "id");
            kp_queue_free(q);
        }
    struct kp_queue *q = queue_of(4, 4, NULL);
    assert_int_equal(kp_queue_cancel(q, S("none"), 0, NULL), KP_NOT_FOUND);
    assert_int_equal(kp_queue_finish(q, S("none"), KP_OK, 0, NULL), KP_NOT_FOUND);
    assert_int_equal(kp_queue_finish(q, (struct kp_str){ NULL, 0 }, KP_OK, 0, NULL), KP_NOT_FOUND);
    kp_queue_free(q);
    kp_queue_free(NULL);
}

/* ---- one entry's way ---- */

static void test_way(void **state)
{
    struct told told = { "" };
    struct kp_queue *q = queue_of(10, 10, &told);
    struct kp_queue_item one = { .id = S("0b6f3f0e-5a3e-4c55-9d3b-6a9a3d1c7f10"), .command = S("pick"), .params = { "\0{}", 3 }, .priority = -2, .batch = 7,
        .stop_on_error = true, .wait_ms = 100, .timeout_ms = 200 };
    (void)state;
    assert_null(kp_queue_take(q, 0));
    assert_null(kp_queue_running(q));
    assert_int_equal(kp_queue_add(q, &one, 1, 50, NULL), KP_OK);
    const struct kp_queue_entry *entry = kp_queue_take(q, 60);
    assert_ptr_equal(entry, kp_queue_running(q));
    assert_ptr_equal(entry, kp_queue_find(q, one.id));
    assert_string_equal(entry->id, one.id.p);
    assert_string_equal(entry->command, "pick");
    assert_int_equal(entry->params.n, 3);
    assert_memory_equal(entry->params.p, "\0{}", 3);
    assert_true(entry->params.p != one.params.p);
    assert_true(entry->running && entry->stop_on_error && entry->priority == -2 && entry->batch == 7 && entry->wait_ms == 100 && entry->timeout_ms == 200);
    assert_true(entry->state == KP_Q_EXECUTING && entry->result == KP_OK);
    assert_true(entry->added_ms == 50 && entry->started_ms == 60 && entry->ended_ms == INT64_MIN);
    assert_int_equal(kp_queue_position(q, one.id), 0);
    assert_int_equal(kp_queue_counts(q).bytes, 3);
    add(q, "next", 0, 61);
    assert_null(kp_queue_take(q, 62)); /* one at a time */
    assert_int_equal(kp_queue_finish(q, S(entry->id), KP_OK, 70, NULL), KP_OK); /* by its own id, borrowed */
    assert_null(kp_queue_running(q));
    entry = kp_queue_history(q, 0);
    assert_true(entry->state == KP_Q_DONE && entry->result == KP_OK && !entry->running && entry->params.n == 0 && entry->ended_ms == 70);
    assert_ptr_equal(kp_queue_find(q, one.id), entry);
    assert_null(kp_queue_history(q, 1));
    assert_string_equal(kp_queue_take(q, 71)->id, "next");
    assert_int_equal(kp_queue_finish(q, S("next"), KP_EXECUTION_FAILED, 72, NULL), KP_OK);
    assert_int_equal(kp_queue_history(q, 0)->result, KP_EXECUTION_FAILED);
    struct kp_queue_counts n = kp_queue_counts(q);
    assert_true(n.pending == 0 && n.executing == 0 && n.history == 2 && n.bytes == 0);
    assert_true(n.total[KP_Q_PENDING] == 2 && n.total[KP_Q_EXECUTING] == 2 && n.total[KP_Q_DONE] == 1 && n.total[KP_Q_FAILED] == 1);
    kp_queue_free(q);
}

static void test_order(void **state)
{
    struct kp_queue *q = queue_of(10, 3, NULL);
    (void)state;
    add(q, "a", 0, 0);
    add(q, "b", 5, 0);
    add(q, "c", 0, 0);
    add(q, "d", -1, 0);
    add(q, "e", 5, 0);
    add(q, "f", INT32_MAX, 0);
    add(q, "g", INT32_MIN, 0);
    expect_order(q, "f b e a c d g");
    assert_int_equal(kp_queue_cancel(q, S("e"), 1, NULL), KP_OK);
    assert_int_equal(kp_queue_cancel(q, S(kp_queue_pending(q, 0)->id), 1, NULL), KP_OK);
    add(q, "h", 0, 2);
    expect_order(q, "b a c h d g");
    assert_string_equal(kp_queue_take(q, 3)->id, "b");
    assert_int_equal(kp_queue_clear(q, 4), 5);
    expect_order(q, "");
    assert_string_equal(kp_queue_running(q)->id, "b"); /* what runs goes on */
    assert_string_equal(kp_queue_history(q, 0)->id, "g"); /* a ring of three, the last first */
    assert_string_equal(kp_queue_history(q, 2)->id, "h");
    assert_int_equal(kp_queue_history(q, 2)->result, KP_CANCELLED);
    assert_null(kp_queue_history(q, 3));
    assert_null(kp_queue_find(q, S("a")));
    assert_int_equal(kp_queue_clear(q, 4), 0);
    kp_queue_free(q);
}

static void test_pause(void **state)
{
    struct kp_queue *q = queue_of(10, 10, NULL);
    (void)state;
    add(q, "a", 0, 0);
    add(q, "b", 0, 0);
    assert_non_null(kp_queue_take(q, 0));
    kp_queue_pause(q, KP_HOLD_PAUSED | KP_HOLD_PRINT | 0x100);
    assert_int_equal(kp_queue_holds(q), KP_HOLD_PAUSED | KP_HOLD_PRINT);
    assert_int_equal(kp_queue_finish(q, S("a"), KP_OK, 1, NULL), KP_OK); /* the one under way ends as ever */
    assert_null(kp_queue_take(q, 1));
    kp_queue_resume(q, KP_HOLD_PAUSED | KP_HOLD_INTERRUPTED);
    assert_null(kp_queue_take(q, 1)); /* the print still runs */
    kp_queue_resume(q, KP_HOLD_PRINT);
    assert_string_equal(kp_queue_take(q, 1)->id, "b");
    kp_queue_free(q);
}

static void test_lost(void **state)
{
    struct told told = { "" };
    struct kp_queue *q = queue_of(10, 10, &told);
    struct kp_queue_item two[] = { item("a", 0), item("b", 0) };
    (void)state;
    two[0].batch = two[1].batch = 3;
    two[0].stop_on_error = two[1].stop_on_error = true;
    assert_int_equal(kp_queue_add(q, two, 2, 0, NULL), KP_OK);
    kp_queue_take(q, 0);
    assert_int_equal(kp_queue_finish(q, S("a"), KP_OUTCOME_UNKNOWN, 1, NULL), KP_OK);
    assert_int_equal(kp_queue_find(q, S("a"))->state, KP_Q_INTERRUPTED);
    assert_int_equal(kp_queue_holds(q), KP_HOLD_INTERRUPTED);
    assert_null(kp_queue_take(q, 2));
    kp_queue_resume(q, KP_HOLD_INTERRUPTED);
    assert_string_equal(kp_queue_take(q, 2)->id, "b");
    expect_told(&told, "a:pending b:pending a:executing! a:interrupted b:executing!");
    kp_queue_free(q);
}

static void test_batches(void **state)
{
    struct told told = { "" };
    struct kp_queue *q = queue_of(20, 20, &told);
    struct kp_queue_item items[] = { item("a1", 0), item("a2", 0), item("b1", 0), item("a3", 0), item("c", 0) };
    (void)state;
    for (int i = 0; i < 4; i++)
        items[i].batch = i == 2 ? 2 : 1, items[i].stop_on_error = i != 3;
    assert_int_equal(kp_queue_add(q, items, 5, 0, NULL), KP_OK);
    kp_queue_take(q, 0);
    told.text[0] = 0;
    assert_int_equal(kp_queue_finish(q, S("a1"), KP_VACUUM_FAILED, 1, NULL), KP_OK);
    expect_told(&told, "a1:failed a2:cancelled"); /* not the one that is to go on, nor other batches, nor single ones */
    expect_order(q, "b1 a3 c");
    kp_queue_take(q, 2);
    kp_queue_finish(q, S("b1"), KP_OK, 2, NULL);
    kp_queue_take(q, 2);
    kp_queue_finish(q, S("a3"), KP_TIMEOUT, 2, NULL);
    expect_order(q, "c");
    struct kp_queue_item single[] = { item("d", 0) };
    single[0].stop_on_error = true; /* without a batch it means nothing */
    assert_int_equal(kp_queue_add(q, single, 1, 3, NULL), KP_OK);
    kp_queue_take(q, 3);
    kp_queue_finish(q, S("c"), KP_EXECUTION_FAILED, 3, NULL);
    expect_order(q, "d");
    struct kp_queue_item pair[] = { item("e1", 9), item("e2", 9) };
    pair[0].batch = pair[1].batch = 5, pair[0].stop_on_error = pair[1].stop_on_error = true;
    assert_int_equal(kp_queue_add(q, pair, 2, 4, NULL), KP_OK);
    kp_queue_take(q, 4);
    told.text[0] = 0;
    assert_int_equal(kp_queue_skip(q, S("e1"), KP_VACUUM_FAILED, 4, NULL), KP_OK);
    expect_told(&told, "e1:failed"); /* passed over: the rest goes on */
    expect_order(q, "e2 d");
    assert_int_equal(kp_queue_skip(q, S("e2"), KP_VACUUM_FAILED, 4, NULL), KP_INVALID_REQUEST);
    kp_queue_free(q);
}

/* ---- time ---- */

static void test_timeouts(void **state)
{
    struct told told = { "" };
    struct kp_queue *q = queue_of(10, 10, &told);
    struct kp_queue_item items[] = { item("a", 0), item("b", 0), item("c", 0), item("d", 0) };
    (void)state;
    items[0].timeout_ms = 1000;
    items[1].wait_ms = 500;
    items[2].wait_ms = 700;
    items[3].wait_ms = 500;
    assert_int_equal(kp_queue_deadline(q), INT64_MAX);
    assert_int_equal(kp_queue_add(q, items, 4, 100, NULL), KP_OK);
    assert_int_equal(kp_queue_deadline(q), 600);
    kp_queue_take(q, 200);
    told.text[0] = 0;
    assert_int_equal(kp_queue_expire(q, 599), 0);
    assert_int_equal(kp_queue_expire(q, 600), 2);
    expect_told(&told, "b:failed d:failed");
    assert_int_equal(kp_queue_find(q, S("b"))->result, KP_TIMEOUT);
    assert_int_equal(kp_queue_deadline(q), 800);
    kp_queue_cancel(q, S("c"), 700, NULL);
    assert_int_equal(kp_queue_deadline(q), 1200);
    assert_int_equal(kp_queue_expire(q, 1199), 0);
    told.text[0] = 0;
    assert_int_equal(kp_queue_expire(q, 1200), 1);
    assert_int_equal(kp_queue_expire(q, 9999), 0);
    assert_int_equal(kp_queue_deadline(q), INT64_MAX);
    add(q, "e", 0, 1200);
    assert_null(kp_queue_take(q, 1300)); /* what it sent may still run: the lane is taken */
    assert_true(kp_queue_running(q)->running && kp_queue_running(q)->state == KP_Q_FAILED);
    assert_true(kp_queue_history(q, 0)->running);
    assert_int_equal(kp_queue_cancel(q, S("a"), 1300, NULL), KP_INVALID_REQUEST);
    assert_int_equal(kp_queue_finish(q, S("a"), KP_OK, 5000, NULL), KP_OK);
    expect_told(&told, "a:failed! e:pending a:failed");
    assert_true(!kp_queue_history(q, 0)->running && kp_queue_history(q, 0)->result == KP_TIMEOUT && kp_queue_history(q, 0)->ended_ms == 1200);
    assert_int_equal(kp_queue_counts(q).total[KP_Q_DONE], 0);
    assert_string_equal(kp_queue_take(q, 5000)->id, "e");
    assert_int_equal(kp_queue_deadline(q), INT64_MAX); /* no limit */
    assert_int_equal(kp_queue_expire(q, INT64_MAX), 0);
    kp_queue_free(q);
}

/* A timed-out entry that history has forgotten when it ends; limits at the ends of time. */
static void test_time_edges(void **state)
{
    struct kp_queue *q = queue_of(3, 1, NULL);
    struct kp_queue_item one = item("a", 0);
    (void)state;
    one.timeout_ms = 10;
    assert_int_equal(kp_queue_add(q, &one, 1, INT64_MAX - 5, NULL), KP_OK);
    kp_queue_take(q, INT64_MAX - 5);
    assert_int_equal(kp_queue_deadline(q), INT64_MAX);
    assert_int_equal(kp_queue_expire(q, INT64_MAX), 0);
    assert_int_equal(kp_queue_expire(q, INT64_MIN), 0); /* before it began */
    kp_queue_finish(q, S("a"), KP_OK, INT64_MAX, NULL);
    one = item("b", 0);
    one.timeout_ms = INT64_MAX;
    assert_int_equal(kp_queue_add(q, &one, 1, INT64_MIN, NULL), KP_OK);
    kp_queue_take(q, INT64_MIN);
    assert_int_equal(kp_queue_deadline(q), -1);
    assert_int_equal(kp_queue_expire(q, -2), 0);
    assert_int_equal(kp_queue_expire(q, -1), 1);
    add(q, "c", 0, 0);
    kp_queue_cancel(q, S("c"), 0, NULL);
    assert_string_equal(kp_queue_find(q, S("b"))->id, "b"); /* still found: it runs */
    assert_int_equal(kp_queue_finish(q, S("b"), KP_OK, 0, NULL), KP_OK);
    assert_null(kp_queue_find(q, S("b")));
    kp_queue_free(q);
}

/* Waiting entries of batches that go over time together, in front of and behind each other. */
static void test_batch_timeouts(void **state)
{
    struct told told = { "" };
    struct kp_queue *q = queue_of(10, 10, &told);
    struct kp_queue_item items[] = { item("a1", 0), item("b1", 0), item("b2", 0), item("a2", 0), item("c", 0) };
    (void)state;
    for (int i = 0; i < 4; i++)
        items[i].batch = i == 1 || i == 2 ? 2 : 1, items[i].stop_on_error = true;
    items[2].wait_ms = items[3].wait_ms = 10;
    items[4].wait_ms = 11;
    assert_int_equal(kp_queue_add(q, items, 5, 0, NULL), KP_OK);
    told.text[0] = 0;
    assert_int_equal(kp_queue_expire(q, 10), 2);
    expect_told(&told, "b2:failed b1:cancelled a2:failed a1:cancelled");
    assert_int_equal(kp_queue_expire(q, 11), 1);
    struct kp_queue_item pair[] = { item("d1", 0), item("d2", 0) };
    pair[0].batch = pair[1].batch = 3;
    pair[0].timeout_ms = 5;
    pair[1].stop_on_error = true;
    assert_int_equal(kp_queue_add(q, pair, 2, 20, NULL), KP_OK);
    kp_queue_take(q, 20);
    assert_int_equal(kp_queue_expire(q, 25), 1);
    assert_int_equal(kp_queue_find(q, S("d2"))->state, KP_Q_CANCELLED);
    kp_queue_free(q);
}

/* ---- adding ---- */

static void test_refusals(void **state)
{
    static char huge[KP_QUEUE_PARAMS_MAX + 1];
    const char *longest = "0123456789012345678901234567890123456789";
    const struct { struct kp_queue_item item; enum kp_err want; const char *field; } rows[] = {
        { { .id = S(""), .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = { longest, KP_QUEUE_ID_MAX }, .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = S("a b"), .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = { "a\0b", 3 }, .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = S("a"), .command = S("") }, KP_INVALID_PARAMETER, "command" },
        { { .id = S("a"), .command = S("move\nG28") }, KP_INVALID_PARAMETER, "command" },
        { { .id = S("a"), .command = S("move"), .params = { huge, sizeof huge } }, KP_PAYLOAD_TOO_LARGE, "parameters" },
        { { .id = S("a"), .command = S("move"), .wait_ms = -1 }, KP_INVALID_PARAMETER, "wait_ms" },
        { { .id = S("a"), .command = S("move"), .timeout_ms = -1 }, KP_INVALID_PARAMETER, "timeout_ms" },
        { { .id = S("waits"), .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = S("runs"), .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = S("ended"), .command = S("move") }, KP_INVALID_PARAMETER, "id" },
        { { .id = S("good"), .command = S("move") }, KP_INVALID_PARAMETER, "id" }, /* twice in one batch */
    };
    struct told told = { "" };
    struct kp_queue *q = queue_of(10, 10, &told);
    (void)state;
    add(q, "ended", 0, 0);
    kp_queue_cancel(q, S("ended"), 0, NULL);
    add(q, "runs", 0, 0);
    kp_queue_take(q, 0);
    add(q, "waits", 0, 0);
    told.text[0] = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_queue_item batch[] = { item("good", 0), rows[i].item };
        struct kp_error e;
        assert_int_equal(kp_queue_add(q, batch, 2, 0, &e), rows[i].want);
        assert_string_equal(e.field, rows[i].field);
        assert_null(kp_queue_find(q, S("good"))); /* all or none */
        assert_int_equal(kp_queue_restore(q, &rows[i].item, KP_Q_PENDING, KP_OK, 0, &e), i + 1 < sizeof rows / sizeof *rows ? rows[i].want : KP_OK);
    }
    expect_told(&told, "");
    expect_order(q, "waits good");
    assert_int_equal(kp_queue_counts(q).bytes, 14);
    assert_int_equal(kp_queue_add(q, NULL, 0, 0, NULL), KP_OK);
    kp_queue_free(q);
}

static void test_full(void **state)
{
    struct kp_queue *q = queue_of(3, 1, NULL);
    struct kp_queue_item two[] = { item("c", 0), item("d", 0) };
    struct kp_queue_options o;
    struct kp_error e;
    (void)state;
    add(q, "a", 0, 0);
    add(q, "b", 0, 0);
    kp_queue_take(q, 0); /* what runs counts */
    assert_int_equal(kp_queue_add(q, two, 2, 0, &e), KP_QUEUE_FULL);
    assert_string_equal(e.message, "the queue has room for 1 more of 3 entries");
    assert_int_equal(kp_queue_add(q, two, 1, 0, NULL), KP_OK);
    assert_int_equal(kp_queue_add(q, two + 1, 1, 0, NULL), KP_QUEUE_FULL);
    assert_int_equal(kp_queue_restore(q, two + 1, KP_Q_PENDING, KP_OK, 0, NULL), KP_QUEUE_FULL);
    kp_queue_finish(q, S("a"), KP_OK, 0, NULL);
    assert_int_equal(kp_queue_add(q, two + 1, 1, 0, NULL), KP_OK);
    expect_order(q, "b c d");
    kp_queue_free(q);
    kp_queue_defaults(&o);
    assert_true(o.entries == 1000 && o.history == 1000);
    o.bytes = 10;
    assert_int_equal(kp_queue_new(&q, &o, NULL), KP_OK);
    assert_int_equal(kp_queue_add(q, two, 2, 0, &e), KP_QUEUE_FULL);
    assert_string_equal(e.message, "the queue has room for 10 more bytes of parameters");
    assert_int_equal(kp_queue_add(q, two, 1, 0, NULL), KP_OK);
    assert_int_equal(kp_queue_restore(q, two + 1, KP_Q_PENDING, KP_OK, 0, NULL), KP_QUEUE_FULL);
    kp_queue_free(q);
}

static void test_options(void **state)
{
    static const struct { size_t entries, history; const char *field; } rows[] = {
        { 0, 1, "entries" }, { KP_QUEUE_ENTRIES_MAX + 1, 1, "entries" }, { 1, 0, "history" }, { 1, KP_QUEUE_ENTRIES_MAX + 1, "history" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_queue_options o;
        struct kp_queue *q = NULL;
        struct kp_error e;
        kp_queue_defaults(&o);
        o.entries = rows[i].entries;
        o.history = rows[i].history;
        assert_int_equal(kp_queue_new(&q, &o, &e), KP_INVALID_PARAMETER);
        assert_string_equal(e.field, rows[i].field);
        assert_null(q);
    }
}

/* ---- restart ---- */

static void test_restore(void **state)
{
    struct told told = { "" };
    struct kp_queue *q = queue_of(10, 10, &told);
    struct kp_queue_item items[] = {
        item("done", 0), item("failed", 0), item("cancelled", 0), item("lost", 0), item("ran", 0), item("w1", 0), item("w2", 9), item("w3", 0),
    };
    static const enum kp_queue_state states[] = {
        KP_Q_DONE, KP_Q_FAILED, KP_Q_CANCELLED, KP_Q_INTERRUPTED, KP_Q_EXECUTING, KP_Q_PENDING, KP_Q_PENDING, KP_Q_PENDING,
    };
    static const enum kp_err results[] = { KP_OK, KP_VACUUM_FAILED, KP_CANCELLED, KP_OUTCOME_UNKNOWN, KP_OK, KP_OK, KP_OK, KP_OK };
    (void)state;
    items[5].wait_ms = 100;
    items[4].batch = items[5].batch = 1;
    items[4].stop_on_error = items[5].stop_on_error = true;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(kp_queue_holds(q), i > 4 ? KP_HOLD_INTERRUPTED : 0); /* an old interruption holds nothing */
        assert_int_equal(kp_queue_restore(q, &items[i], states[i], results[i], 1000, NULL), KP_OK);
    }
    expect_told(&told, "ran:interrupted"); /* the rest is as the journal knows it */
    for (size_t i = 0; i < 5; i++) {
        const struct kp_queue_entry *entry = kp_queue_history(q, 4 - i);
        assert_true(kp_str_eq(items[i].id, entry->id));
        assert_int_equal(entry->state, i == 4 ? KP_Q_INTERRUPTED : states[i]);
        assert_int_equal(entry->result, i == 4 ? KP_OUTCOME_UNKNOWN : results[i]);
        assert_true(!entry->running && entry->params.n == 0 && entry->started_ms == INT64_MIN && entry->ended_ms == 1000);
    }
    expect_order(q, "w2 w1 w3");
    assert_int_equal(kp_queue_deadline(q), 1100);
    assert_null(kp_queue_take(q, 1000));
    kp_queue_resume(q, KP_HOLD_PAUSED | KP_HOLD_INTERRUPTED);
    assert_string_equal(kp_queue_take(q, 1000)->id, "w2");
    assert_int_equal(kp_queue_restore(q, &items[0], KP_Q_DONE, KP_OK, 0, NULL), KP_INVALID_PARAMETER);
    struct kp_queue_item odd = item("odd", 0);
    assert_int_equal(kp_queue_restore(q, &odd, KP_Q_STATES, KP_OK, 0, NULL), KP_INVALID_PARAMETER);
    kp_queue_free(q);
}

/* ---- memory and long runs ---- */

static void test_out_of_memory(void **state)
{
    struct kp_queue *q = NULL;
    struct kp_queue_item items[] = { item("a", 0), item("b", 0), item("c", 0) };
    struct kp_error e;
    size_t n = 0;
    enum kp_err rc;
    (void)state;
    do {
        alloc_fail_at(++n);
        rc = kp_queue_new(&q, NULL, &e);
        alloc_fail_at(0);
        assert_true(rc == KP_OK ? q != NULL : rc == KP_INTERNAL_ERROR && !q);
    } while (rc != KP_OK);
    assert_int_equal(n, 8); /* seven allocations */
    for (n = 1; n <= 3; n++) {
        alloc_fail_at(n);
        rc = kp_queue_add(q, items, 3, 0, &e);
        alloc_fail_at(0);
        assert_int_equal(rc, KP_INTERNAL_ERROR);
        struct kp_queue_counts counts = kp_queue_counts(q);
        assert_true(counts.pending == 0 && counts.bytes == 0 && counts.total[KP_Q_PENDING] == 0);
    }
    alloc_fail_at(1);
    assert_int_equal(kp_queue_restore(q, items, KP_Q_PENDING, KP_OK, 0, &e), KP_INTERNAL_ERROR);
    assert_int_equal(kp_queue_restore(q, items, KP_Q_EXECUTING, KP_OK, 0, &e), KP_OK); /* history allocates nothing */
    items[0].id = S("d");
    kp_queue_resume(q, KP_HOLD_ALL);
    alloc_fail_at(4);
    assert_int_equal(kp_queue_add(q, items, 3, 0, &e), KP_OK);
    alloc_fail_at(1);
    while (kp_queue_take(q, 0))
        assert_int_equal(kp_queue_finish(q, S(kp_queue_running(q)->id), KP_OK, 0, NULL), KP_OK);
    assert_int_equal(alloc_count, 0);
    alloc_fail_at(0);
    assert_int_equal(kp_queue_counts(q).history, 4);
    kp_queue_free(q);
}

/* Thirty days (past 2^31 ms), a command every five seconds, each of them too late. */
static void test_days(void **state)
{
    const int64_t day_ms = 24 * 3600 * 1000;
    struct kp_queue *q = queue_of(4, 100, NULL);
    uint64_t ended = 0;
    (void)state;
    for (int64_t now_ms = 0; now_ms < 30 * day_ms; now_ms += 5000, ended++) {
        char id[24];
        snprintf(id, sizeof id, "%llu", (unsigned long long)ended);
        struct kp_queue_item one = item(id, (int)(ended % 7));
        one.timeout_ms = one.wait_ms = 3000;
        assert_int_equal(kp_queue_add(q, &one, 1, now_ms, NULL), KP_OK);
        if (ended % 2)
            kp_queue_take(q, now_ms + 1);
        assert_int_equal(kp_queue_deadline(q), now_ms + 3000 + (int64_t)(ended % 2));
        assert_int_equal(kp_queue_expire(q, now_ms + 2999), 0);
        assert_int_equal(kp_queue_expire(q, now_ms + 3001), 1);
        if (ended % 2)
            assert_int_equal(kp_queue_finish(q, S(id), KP_OK, now_ms + 4000, NULL), KP_OK);
    }
    struct kp_queue_counts counts = kp_queue_counts(q);
    assert_true(counts.pending == 0 && counts.executing == 0 && counts.history == 100 && counts.bytes == 0 && counts.total[KP_Q_FAILED] == ended);
    kp_queue_free(q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_calls_in_states), cmocka_unit_test(test_way), cmocka_unit_test(test_order),
        cmocka_unit_test(test_pause), cmocka_unit_test(test_lost), cmocka_unit_test(test_batches), cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_time_edges), cmocka_unit_test(test_batch_timeouts), cmocka_unit_test(test_refusals), cmocka_unit_test(test_full),
        cmocka_unit_test(test_options), cmocka_unit_test(test_restore), cmocka_unit_test(test_out_of_memory), cmocka_unit_test(test_days),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
