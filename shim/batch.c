/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Batches for app. What moves or switches goes one by one, in order; with `parallel` the reads are all asked at the start.
 * Invariant: nothing begins before every command was checked, and nothing after one that failed where stop_on_error says so. */
#include "batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "loop.h"
#include "nested.h"

/* One command; text is its answer with envelope. */
struct item {
    struct batch *batch;
    struct kp_call call;
    struct app_request *waits;
    bool begun, ended;
    char id[ANSWER_ID];
    char *text;
    size_t n;
};

struct batch {
    struct app *app;
    app_done *done;
    void *user;
    struct loop_timer *turn;   /* the next command, so that many short ones are no deep recursion */
    bool stop_on_error, parallel, stopped;
    size_t count, ended, worked;
    struct kp_error first;     /* what failed first */
    int64_t began_ms;
    struct answer_pool ids;
    struct item items[];
};

static bool reads(const struct item *i)
{
    return !(i->call.command->flags & KP_MOVES);
}

static void batch_free(struct batch *b)
{
    if (!b)
        return;
    loop_timer_free(b->turn);
    for (size_t i = 0; i < b->count; i++)
        free(b->items[i].text);
    free(b);
}

/* ---- answers ---- */

static void item_answer(struct item *i, const struct app_answer *a)
{
    struct batch *b = i->batch;
    const char *name = i->call.command->name;
    if (a->faults->count)
        i->text = answer_error(name, i->id, a->faults, json_incref(a->details), &i->n);
    else
        i->text = a->warning ? answer_warned(false, name, i->id, a->data, a->n, a->warning, &i->n) : answer_success(name, i->id, a->data, a->n, &i->n);
    if (i->text && i->text[i->n - 1] == '\n')
        i->n--; /* an answer is a line; in here it is a part of one */
    i->ended = true;
    b->ended++;
    if (!a->faults->count)
        b->worked++;
    else if (b->first.code == KP_OK)
        b->first = a->faults->item[0];
    b->stopped |= b->stop_on_error && a->faults->count;
}

/* Gives the data's text; NULL when out of memory. */
static char *batch_text(const struct batch *b, size_t *out_n)
{
    size_t size = 256;
    for (size_t i = 0; i < b->count; i++)
        size += b->items[i].n + 1;
    char *text = malloc(size);
    size_t n = text ? (size_t)snprintf(text, size, "{\"results\":[") : 0;
    for (size_t i = 0; text && i < b->count; i++) {
        if (!b->items[i].text) {
            free(text);
            return NULL;
        }
        memcpy(text + n, b->items[i].text, b->items[i].n);
        n += b->items[i].n;
        text[n++] = ',';
    }
    if (text)
        n = n - 1 + (size_t)snprintf(text + n - 1, size - n + 1, "],\"total_execution_time\":%.3f,\"success_count\":%zu,\"error_count\":%zu}",
                                     (double)(loop_now_ms() - b->began_ms) / 1000, b->worked, b->count - b->worked);
    *out_n = n;
    return text;
}

/* All have ended: success, partial, or the first failure where nothing worked. */
static void batch_end(struct batch *b)
{
    struct kp_faults f = { .count = 0 };
    size_t n = 0;
    char *text = batch_text(b, &n);
    json_t *details = NULL;
    if (!text)
        kp_error_set(&b->first, KP_INTERNAL_ERROR, NULL, "out of memory");
    if (!text || !b->worked) {
        kp_faults_add(&f, &b->first);
        details = text ? json_loadb(text, n, 0, NULL) : NULL;
    }
    b->done(b->user, &(struct app_answer){ .faults = &f, .details = details, .data = text, .n = n, .partial = b->worked < b->count });
    json_decref(details);
    free(text);
    batch_free(b);
}

/* ---- running ---- */

static void on_item(void *user, const struct app_answer *answer)
{
    struct item *i = user;
    item_answer(i, answer);
    i->waits = NULL;
    loop_timer_set(i->batch->turn, 0);
}

static void item_begin(struct item *i)
{
    i->begun = true;
    struct app_request *waits = app_execute_how(i->batch->app, &i->call, &(struct app_how){ .id = i->id }, on_item, i);
    if (waits)
        i->waits = waits;
}

static void item_skip(struct item *i)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    kp_error_set(&e, KP_CANCELLED, NULL, "not begun: a command before it failed");
    kp_faults_add(&f, &e);
    i->begun = true;
    item_answer(i, &(struct app_answer){ .faults = &f });
}

static void on_turn(void *user)
{
    struct batch *b = user;
    for (size_t i = 0; i < b->count; i++) {
        struct item *it = &b->items[i];
        if (it->begun && (it->ended || (b->parallel && reads(it))))
            continue;
        if (it->begun)
            return; /* its answer sets the timer again */
        if (!b->stopped) {
            item_begin(it);
            return;
        }
        item_skip(it);
    }
    if (b->ended == b->count)
        batch_end(b);
}

/* ---- for app ---- */

struct batch *batch_begin(struct loop *l, struct app *a, const struct kp_machine *m, const struct kp_call *call, const json_t *body, app_done *done, void *user)
{
    struct kp_faults f = { .count = 0 };
    size_t count = nested_count(body, BATCH_MAX, &f);
    struct batch *b = f.count ? NULL : calloc(1, sizeof *b + count * sizeof b->items[0]);
    for (size_t i = 0; b && i < count; i++) {
        b->items[i].batch = b;
        answer_id(&b->ids, b->items[i].id);
        nested_check_at(m, body, i, false, &b->items[i].call, &f);
    }
    if (b && !f.count)
        b->turn = loop_timer_new(l, on_turn, b);
    if (!f.count && (!b || !b->turn)) {
        struct kp_error e;
        kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
        kp_faults_add(&f, &e);
    }
    if (f.count) {
        free(b);
        done(user, &(struct app_answer){ .faults = &f });
        return NULL;
    }
    b->app = a, b->done = done, b->user = user, b->count = count, b->began_ms = loop_now_ms();
    b->stop_on_error = kp_call_slot(call, "stop_on_error")->flag, b->parallel = kp_call_slot(call, "parallel")->flag;
    for (size_t i = 0; b->parallel && i < count; i++)
        if (reads(&b->items[i]))
            item_begin(&b->items[i]);
    loop_timer_set(b->turn, 0);
    return b;
}

void batch_leave(struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        if (b->items[i].waits)
            app_leave(b->items[i].waits);
    batch_free(b);
}
