/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Queue and pause commands for app: requests become calls of jobs. Decides nothing but whether a request is right. */
#include "queue_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "history.h"
#include "jobs.h"
#include "json.h"
#include "nested.h"
#include "record.h"

struct queue_api { const struct kp_machine *machine; struct jobs *jobs; struct history *history; struct answer_pool ids; };

/* Entries on their way into the queue. */
struct add {
    struct queue_api *api;
    app_done *done;
    void *user;
    bool batch;
    size_t count;
    struct kp_queue_item *items;
    char (*ids)[ANSWER_ID];
};

/* A request that waits until what it did is in the journal. */
struct barrier { struct app_answer answer; app_done *done; void *user; char *text; };

/* ---- answers ---- */

static const struct kp_faults no_faults = { .count = 0 };

/* Takes data. */
static bool tell(app_done *done, void *user, json_t *data)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    char *text = data ? json_dumps(data, JSON_TEXT) : NULL;
    json_decref(data);
    if (text) {
        done(user, &(struct app_answer){ .faults = &no_faults, .data = text, .n = strlen(text) });
        free(text);
    } else {
        kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
        kp_faults_add(&f, &e);
        done(user, &(struct app_answer){ .faults = &f });
    }
    return false;
}

static bool tell_fault(app_done *done, void *user, const struct kp_error *e)
{
    struct kp_faults f = { .count = 0 };
    kp_faults_add(&f, e);
    done(user, &(struct app_answer){ .faults = &f });
    return false;
}

static bool tell_unreadable(app_done *done, void *user)
{
    struct kp_error e;
    kp_error_set(&e, KP_DATABASE_UNAVAILABLE, NULL, "the history database cannot be read");
    return tell_fault(done, user, &e);
}

static void on_barrier(void *user, bool ok)
{
    struct barrier *b = user;
    (void)ok; /* it is done in memory; answers warn while the database cannot be written */
    b->done(b->user, &b->answer);
    free(b->text);
    free(b);
}

/* Answers when all that was committed before is on disk. Takes data. */
static bool tell_after(struct queue_api *q, app_done *done, void *user, json_t *data)
{
    struct barrier *b = calloc(1, sizeof *b);
    char *text = data ? json_dumps(data, JSON_TEXT) : NULL;
    if (b && text) {
        *b = (struct barrier){ { .faults = &no_faults, .data = text, .n = strlen(text) }, done, user, text };
        if (history_commit(history_begin(q->history), on_barrier, b)) {
            json_decref(data);
            return true;
        }
    }
    free(b);
    free(text);
    return tell(done, user, data);
}

/* ---- queue_add, queue_batch ---- */

static void add_free(struct add *d)
{
    if (!d)
        return;
    for (size_t i = 0; d->items && i < d->count; i++)
        free((void *)(uintptr_t)d->items[i].params.p);
    free(d->items);
    free(d->ids);
    free(d);
}

static json_t *added(const struct add *d)
{
    struct jobs *j = d->api->jobs;
    json_int_t size = (json_int_t)jobs_size(j);
    json_t *ids = json_array();
    if (!d->batch) {
        json_decref(ids);
        return json_pack("{s:s,s:I,s:I}", "queue_id", d->ids[0], "queue_position", (json_int_t)jobs_position(j, d->ids[0]), "queue_size", size);
    }
    for (size_t i = 0; i < d->count; i++)
        json_array_append_new(ids, json_string(d->ids[i]));
    return json_pack("{s:o,s:I}", "queue_ids", ids, "queue_size", size);
}

static void on_added(void *user, const struct kp_error *e)
{
    struct add *d = user;
    if (e->code != KP_OK)
        tell_fault(d->done, d->user, e);
    else
        tell(d->done, d->user, added(d));
    add_free(d);
}

/* Storage for count entries, with ids. NULL when out of memory. */
static struct add *add_new(struct queue_api *q, size_t count, bool batch, app_done *done, void *user)
{
    struct add *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    *d = (struct add){ .api = q, .done = done, .user = user, .batch = batch, .count = count };
    d->items = calloc(count, sizeof *d->items);
    d->ids = calloc(count, sizeof *d->ids);
    if (!d->items || !d->ids) {
        add_free(d);
        return NULL;
    }
    for (size_t i = 0; i < count; i++)
        answer_id(&q->ids, d->ids[i]);
    return d;
}

/* Fills the i-th entry. False: out of memory. */
static bool add_fill(struct add *d, size_t i, const json_t *item, double priority, uint64_t batch, bool stop_on_error)
{
    char *params = nested_text(item);
    size_t n = params ? strlen(params) : 0;
    struct kp_str command = kp_str_of(json_string_value(json_object_get(item, "command")));
    d->items[i] = (struct kp_queue_item){ .id = kp_str_of(d->ids[i]), .params = { params, n },
        .priority = (int)priority, .batch = batch, .stop_on_error = stop_on_error };
    d->items[i].command = kp_str_of(kp_command_by_name(command)->name); /* outlives the request's JSON */
    return params != NULL;
}

/* Takes d. */
static bool add_now(struct queue_api *q, struct add *d)
{
    struct kp_error e;
    app_done *done = d->done;
    void *user = d->user;
    if (jobs_add(q->jobs, d->items, d->count, on_added, d, &e) == KP_OK)
        return true;
    add_free(d);
    return tell_fault(done, user, &e);
}

static bool out_of_memory(app_done *done, void *user)
{
    return tell(done, user, NULL);
}

static bool add_one(struct queue_api *q, const struct kp_call *call, const json_t *body, app_done *done, void *user)
{
    struct kp_faults f = { .count = 0 };
    struct kp_call checked;
    struct add *d;
    if (!nested_check(q->machine, body, "", true, &checked, &f)) {
        done(user, &(struct app_answer){ .faults = &f });
        return false;
    }
    if (!(d = add_new(q, 1, false, done, user)))
        return out_of_memory(done, user);
    if (add_fill(d, 0, body, kp_call_slot(call, "priority")->num, 0, false)) /* of the body or of the query */
        return add_now(q, d);
    add_free(d);
    return out_of_memory(done, user);
}

static bool add_batch(struct queue_api *q, const struct kp_call *call, const json_t *body, app_done *done, void *user)
{
    struct kp_faults f = { .count = 0 };
    struct kp_call checked;
    size_t count = nested_count(body, KP_QUEUE_ENTRIES_MAX, &f);
    struct add *d = NULL;
    for (size_t i = 0; i < count; i++)
        nested_check_at(q->machine, body, i, true, &checked, &f);
    if (f.count) {
        done(user, &(struct app_answer){ .faults = &f });
        return false;
    }
    if (!(d = add_new(q, count, true, done, user)))
        return out_of_memory(done, user);
    uint64_t batch = jobs_batch(q->jobs);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(json_object_get(body, "commands"), i);
        if (!add_fill(d, i, item, json_number_value(json_object_get(item, "priority")), batch, kp_call_slot(call, "stop_on_error")->flag)) {
            add_free(d);
            return out_of_memory(done, user);
        }
    }
    return add_now(q, d);
}

/* ---- the other commands ---- */

static bool cancel(struct queue_api *q, const char *id, app_done *done, void *user)
{
    struct kp_error e;
    if (jobs_cancel(q->jobs, kp_str_of(id), &e) == KP_OK)
        return tell_after(q, done, user, json_pack("{s:s}", "cancelled_id", id));
    snprintf(e.field, sizeof e.field, "queue_id");
    return tell_fault(done, user, &e);
}

static bool resume(struct queue_api *q, app_done *done, void *user)
{
    struct kp_error e;
    if (jobs_resume(q->jobs, &e) == KP_OK)
        return tell_after(q, done, user, json_pack("{s:b}", "resumed", 1));
    return tell_fault(done, user, &e);
}

struct page { app_done *done; void *user; };

static void on_page(void *user, json_t *rows)
{
    struct page *p = user;
    if (rows)
        tell(p->done, p->user, json_pack("{s:O}", "entries", rows));
    else
        tell_unreadable(p->done, p->user);
    free(p);
}

static bool page(struct queue_api *q, const struct kp_call *call, app_done *done, void *user)
{
    const struct kp_slot *before = kp_call_slot(call, "before");
    struct page *p = calloc(1, sizeof *p);
    if (!p)
        return out_of_memory(done, user);
    *p = (struct page){ done, user };
    if (history_commands(q->history, (int)kp_call_slot(call, "limit")->num, before->set ? before->text : NULL, on_page, p))
        return true;
    free(p);
    return tell_unreadable(done, user);
}

/* ---- for app ---- */

bool queue_api_serves(enum kp_id id)
{
    switch (id) {
    case KP_QUEUE_ADD:
    case KP_QUEUE_BATCH:
    case KP_QUEUE_STATUS:
    case KP_QUEUE_CLEAR:
    case KP_QUEUE_CANCEL:
    case KP_QUEUE_HISTORY:
    case KP_PAUSE:
    case KP_RESUME: return true;
    default: return false;
    }
}

bool queue_api_begin(struct queue_api *q, const struct kp_call *call, const json_t *body, app_done *done, void *user)
{
    struct kp_error e;
    switch (call->command->id) {
    case KP_QUEUE_ADD: return add_one(q, call, body, done, user);
    case KP_QUEUE_BATCH: return add_batch(q, call, body, done, user);
    case KP_QUEUE_STATUS: return tell(done, user, jobs_json(q->jobs, true));
    case KP_QUEUE_CLEAR: return tell_after(q, done, user, json_pack("{s:I}", "cleared_count", (json_int_t)jobs_clear(q->jobs)));
    case KP_QUEUE_CANCEL: return cancel(q, kp_call_slot(call, "queue_id")->text, done, user);
    case KP_QUEUE_HISTORY: return page(q, call, done, user);
    case KP_RESUME: return resume(q, done, user);
    case KP_PAUSE:
        jobs_pause(q->jobs);
        return tell_after(q, done, user, json_pack("{s:b}", "paused", 1));
    default:
        kp_error_set(&e, KP_COMMAND_NOT_FOUND, NULL, "%s is not served this way", call->command->name);
        return tell_fault(done, user, &e);
    }
}

void queue_api_event(struct queue_api *q, const struct kp_safety_event *event)
{
    record_event(q->history, event);
}

struct queue_api *queue_api_new(struct loop *l, struct app *a, struct kp_machine *m, struct lane *n, const struct kp_config *c,
                                void (*changed)(void *user, const struct kp_queue_entry *entry), void *user)
{
    const struct kp_safety_event *events;
    size_t count = 0;
    struct queue_api *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->machine = m;
    q->history = history_new(l, kp_config_str(c, "history", "database"), (size_t)kp_config_num(c, "gcode_driver", "max_history_entries"));
    events = q->history ? history_events(q->history, &count) : NULL;
    for (size_t i = 0; i < count; i++)
        kp_safety_restore(m, &events[i]);
    if (q->history && (q->jobs = jobs_new(l, a, m, n, q->history, c, changed, user)))
        return q;
    queue_api_free(q);
    return NULL;
}

void queue_api_free(struct queue_api *q)
{
    if (!q)
        return;
    jobs_stop(q->jobs);
    history_free(q->history); /* its callbacks still find jobs */
    jobs_free(q->jobs);
    free(q);
}

struct jobs *queue_api_jobs(struct queue_api *q)
{
    return q->jobs;
}

struct history *queue_api_history(struct queue_api *q)
{
    return q->history;
}
