/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The queue for app: libkp's queue is the truth, history its journal. Invariant: an entry is in the journal before its client is told, it is marked executing
 * there before anything of it is sent, and one that may have run is never sent again. */
#include "jobs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "app.h"
#include "history.h"
#include "lane.h"
#include "log.h"
#include "loop.h"
#include "nested.h"

#define LOOK_MS 20       /* between looks at a lane that is busy */
#define RETRY_MS 1000    /* between tries to mark an entry as executing in a database that cannot be written */

struct jobs {
    struct loop *loop;
    struct app *app;
    struct kp_machine *machine;
    struct lane *lane;
    struct history *history;
    struct kp_queue *queue;
    jobs_changed_fn *changed;
    void *user;
    struct loop_timer *turn;
    struct history_writes *writes; /* what the changes of one call of the queue are collected in */
    struct kp_error error;         /* of the entry that is just ending */
    const char *params;            /* of the entry that is just restored; NULL: it has its own */
    size_t entries, adding;        /* most entries; those on their way into the journal */
    size_t bytes, adding_bytes;
    uint64_t batch;                /* the last number given */
    int64_t ready_ms;              /* since when the lane is waited for; INT64_MIN: it is not */
    bool starting;                 /* the running entry is on its way into the journal as executing */
    bool was_ready;                /* Klipper, at the last look */
    struct app_request *request;   /* of the running entry; NULL while it does not wait */
    bool ask;                      /* [vacuum] on_fail: ask */
    struct kp_error asked;         /* why the running entry failed, while a person is asked what to do; code KP_OK: nobody is */
};

/* Entries on their way into the journal; items are the caller's. */
struct add { struct jobs *jobs; const struct kp_queue_item *items; size_t count, bytes; jobs_added *done; void *user; };

/* ---- the journal ---- */

/* Unix seconds of a time of the loop's clock; NAN: never. */
static double wall(int64_t ms)
{
    return ms == INT64_MIN ? NAN : answer_wall() - (double)(loop_now_ms() - ms) / 1000;
}

static void journal_end(struct jobs *j, const struct kp_queue_entry *e)
{
    bool worked = e->result == KP_OK;
    const char *words = j->error.code == e->result && j->error.message[0] ? j->error.message : e->result == KP_CANCELLED ? "cancelled before it began" : "";
    char *params = j->params ? strdup(j->params) : strndup(e->params.p ? e->params.p : "", e->params.n);
    struct history_command c = { .id = e->id, .queued = true, .command = e->command, .params = params && *params ? params : "{}", .priority = e->priority,
        .state = kp_queue_state_name(e->state), .error_code = worked ? NULL : kp_err_name(e->result), .error_message = worked ? NULL : words,
        .added_at = wall(e->added_ms), .started_at = wall(e->started_ms), .ended_at = wall(e->ended_ms) };
    history_end_entry(j->writes, e->id);
    history_add_command(j->writes, &c);
    free(params);
}

/* kp_queue_options.changed: collects the journal's part. New entries are in it already. */
static void on_changed(void *context, const struct kp_queue_entry *e)
{
    struct jobs *j = context;
    if (e->state == KP_Q_EXECUTING)
        history_start_entry(j->writes, e->id, wall(e->started_ms));
    else if (e->state != KP_Q_PENDING)
        journal_end(j, e);
    if (j->changed)
        j->changed(j->user, e);
}

static void collect(struct jobs *j)
{
    j->writes = history_begin(j->history);
}

/* What was collected goes into the journal; tried until it is there. */
static void journal(struct jobs *j, unsigned holds_before)
{
    if (kp_queue_holds(j->queue) != holds_before) {
        history_set_holds(j->writes, kp_queue_holds(j->queue));
        if (j->changed)
            j->changed(j->user, NULL);
    }
    if (!history_commit(j->writes, NULL, NULL))
        log_line(LOG_ERROR, "jobs", "out of memory: a change of the queue is not in the journal");
    j->writes = NULL;
}

/* ---- running ---- */

static void wake(struct jobs *j)
{
    loop_timer_set(j->turn, 0);
}

static enum kp_err interlock(const struct jobs *j)
{
    unsigned states = kp_safety_states(j->machine);
    for (int s = KP_STATE_COUNT - 1; s > KP_S_READY; s--)
        if (states >> s & 1u && kp_safety_interlock((enum kp_state)s, KP_ASK_QUEUED) != KP_OK)
            return kp_safety_interlock((enum kp_state)s, KP_ASK_QUEUED);
    return KP_OK;
}

/* rest: what is left of its batch ends with a failure. */
static void end(struct jobs *j, const struct kp_error *e, bool rest)
{
    const struct kp_queue_entry *entry = kp_queue_running(j->queue);
    unsigned holds = kp_queue_holds(j->queue);
    char id[KP_QUEUE_ID_MAX];
    memcpy(id, entry->id, sizeof id);
    j->error = *e;
    j->request = NULL;
    collect(j);
    (rest ? kp_queue_finish : kp_queue_skip)(j->queue, kp_str_of(id), e->code, loop_now_ms(), NULL);
    journal(j, holds);
    j->error = (struct kp_error){ .code = KP_OK };
    log_line(e->code == KP_OK ? LOG_DEBUG : LOG_WARNING, "jobs", "queue_id=%s ended=%s message=\"%s\"", id, kp_err_name(e->code), e->message);
    wake(j);
}

/* A failed pick that a person is asked about stays the running entry until the answer: nothing else of the queue can begin. */
static void finish(struct jobs *j, const struct kp_error *e)
{
    if (!j->ask || e->code != KP_VACUUM_FAILED || interlock(j) != KP_OK) {
        end(j, e, true);
        return;
    }
    j->asked = *e;
    j->request = NULL;
    jobs_pause(j);
    log_line(LOG_WARNING, "jobs", "queue_id=%s asks message=\"%s\"", kp_queue_running(j->queue)->id, e->message);
    app_asked(j->app, kp_queue_running(j->queue), e);
}

static void finish_with(struct jobs *j, enum kp_err code, const char *message)
{
    struct kp_error e;
    kp_error_set(&e, code, NULL, "%s", message);
    finish(j, &e);
}

static void on_ran(void *user, const struct app_answer *answer)
{
    static const struct kp_error none = { .code = KP_OK };
    struct jobs *j = user;
    finish(j, answer->faults->count ? &answer->faults->item[0] : &none);
}

/* It was checked when it was added; the machine may be another by now. */
static void run(struct jobs *j)
{
    const struct kp_queue_entry *e = kp_queue_running(j->queue);
    const struct kp_command *c = kp_command_by_name(kp_str_of(e->command));
    struct kp_faults f = { .count = 0 };
    struct kp_call call;
    json_t *params = json_loadb(e->params.p, e->params.n, 0, NULL);
    if (!c || !kp_command_nests(c) || !json_is_object(params))
        finish_with(j, KP_COMMAND_NOT_FOUND, "the journal holds a command that this version does not know");
    else if (!nested_call(j->machine, c, params, "parameters.", &call, &f))
        finish(j, &f.item[0]);
    else {
        struct app_request *waits = app_execute_how(j->app, &call, &(struct app_how){ .unrecorded = true }, on_ran, j);
        if (waits)
            j->request = waits;
    }
    json_decref(params);
}

static void start(struct jobs *j);

static void on_started(void *user, bool ok)
{
    struct jobs *j = user;
    j->starting = false;
    if (!ok)
        loop_timer_set(j->turn, RETRY_MS); /* nothing is sent that the journal does not know of */
    else
        run(j);
}

/* The running entry goes into the journal as executing, then it runs. */
static void start(struct jobs *j)
{
    const struct kp_queue_entry *e = kp_queue_running(j->queue);
    struct history_writes *w = history_begin(j->history);
    history_start_entry(w, e->id, wall(e->started_ms));
    j->starting = history_commit(w, on_started, j);
    if (!j->starting)
        loop_timer_set(j->turn, RETRY_MS);
}

/* An entry that was taken and could not be marked: it waits as long as the queue is held, and is given up when the machine was stopped meanwhile. */
static void start_again(struct jobs *j)
{
    unsigned holds = kp_queue_holds(j->queue);
    if (holds & ~(unsigned)KP_HOLD_PAUSED)
        finish_with(j, KP_CANCELLED, "the queue was held before it began");
    else if (holds)
        loop_timer_set(j->turn, RETRY_MS);
    else
        start(j);
}

/* True when it is time to take an entry: the lane is free, or has been busy with others for long. */
static bool lane_ready(struct jobs *j)
{
    int64_t now_ms = loop_now_ms();
    if (j->ready_ms == INT64_MIN)
        j->ready_ms = now_ms;
    if (lane_size(j->lane) && now_ms - j->ready_ms < JOBS_PATIENCE_MS) {
        loop_timer_set(j->turn, LOOK_MS);
        return false;
    }
    j->ready_ms = INT64_MIN;
    return true;
}

static void on_turn(void *user)
{
    struct jobs *j = user;
    if (kp_queue_running(j->queue)) {
        if (!j->starting && !j->request && !j->asked.code)
            start_again(j);
        return;
    }
    if (kp_queue_holds(j->queue) || !kp_queue_pending(j->queue, 0) || interlock(j) != KP_OK) {
        j->ready_ms = INT64_MIN;
        return;
    }
    if (!lane_ready(j))
        return;
    kp_queue_take(j->queue, loop_now_ms()); /* on_changed has nothing to collect into: start does it */
    start(j);
}

/* ---- adding ---- */

/* The journal has them: now they are in the queue. */
static void on_added(void *user, bool ok)
{
    struct add *d = user;
    struct jobs *j = d->jobs;
    struct kp_error e = { .code = KP_OK };
    j->adding -= d->count, j->adding_bytes -= d->bytes;
    if (!ok) {
        jobs_unwritable(&e);
    } else if (kp_queue_add(j->queue, d->items, d->count, loop_now_ms(), &e) != KP_OK) {
        collect(j);
        for (size_t i = 0; i < d->count; i++)
            history_end_entry(j->writes, d->items[i].id.p);
        journal(j, kp_queue_holds(j->queue));
    } else {
        wake(j);
    }
    d->done(d->user, &e);
    free(d);
}

static enum kp_err room(const struct jobs *j, size_t count, size_t bytes, struct kp_error *e)
{
    struct kp_queue_counts counts = kp_queue_counts(j->queue);
    size_t used = counts.pending + counts.executing + j->adding, left = j->entries > used ? j->entries - used : 0;
    if (count > left)
        return kp_error_set(e, KP_QUEUE_FULL, NULL, "the queue has room for %zu more of %zu entries", left, j->entries);
    if (counts.bytes + j->adding_bytes + bytes > j->bytes)
        return kp_error_set(e, KP_QUEUE_FULL, NULL, "the queue has no room for so many parameters");
    return KP_OK;
}

enum kp_err jobs_unwritable(struct kp_error *e)
{
    return kp_error_set(e, KP_DATABASE_UNAVAILABLE, NULL, "the history database cannot be written: nothing is queued");
}

uint64_t jobs_batch(struct jobs *j)
{
    return ++j->batch;
}

enum kp_err jobs_add(struct jobs *j, const struct kp_queue_item *items, size_t count, jobs_added *done, void *user, struct kp_error *e)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += items[i].params.n;
    enum kp_err rc = room(j, count, bytes, e);
    if (rc != KP_OK)
        return rc;
    struct add *d = malloc(sizeof *d);
    if (!d)
        return kp_error_set(e, KP_INTERNAL_ERROR, NULL, "out of memory");
    *d = (struct add){ j, items, count, bytes, done, user };
    struct history_writes *w = history_begin(j->history);
    for (size_t i = 0; i < count; i++)
        history_add_entry(w, &(struct history_entry){ .id = items[i].id.p, .command = items[i].command.p, .params = items[i].params.p,
            .priority = items[i].priority, .batch = items[i].batch, .stop_on_error = items[i].stop_on_error, .added_at = answer_wall() });
    if (!history_commit(w, on_added, d)) {
        free(d);
        return jobs_unwritable(e);
    }
    j->adding += count, j->adding_bytes += bytes;
    return KP_OK;
}

/* ---- cancelling and holding ---- */

size_t jobs_clear(struct jobs *j)
{
    collect(j);
    size_t count = kp_queue_clear(j->queue, loop_now_ms());
    journal(j, kp_queue_holds(j->queue));
    return count;
}

enum kp_err jobs_cancel(struct jobs *j, struct kp_str id, struct kp_error *e)
{
    collect(j);
    enum kp_err rc = kp_queue_cancel(j->queue, id, loop_now_ms(), e);
    journal(j, kp_queue_holds(j->queue));
    return rc;
}

static void hold(struct jobs *j, unsigned holds)
{
    unsigned before = kp_queue_holds(j->queue);
    if ((before & holds) == holds)
        return;
    collect(j);
    kp_queue_pause(j->queue, holds);
    journal(j, before);
}

void jobs_pause(struct jobs *j)
{
    hold(j, KP_HOLD_PAUSED);
}

bool jobs_answer(struct jobs *j, enum jobs_choice choice)
{
    struct kp_error e = j->asked;
    unsigned before = kp_queue_holds(j->queue);
    if (e.code == KP_OK)
        return false;
    j->asked.code = KP_OK;
    if (choice != JOBS_STOP) {
        collect(j);
        kp_queue_resume(j->queue, KP_HOLD_PAUSED);
        journal(j, before);
    }
    if (choice != JOBS_RETRY)
        end(j, &e, choice == JOBS_STOP);
    app_asked(j->app, NULL, NULL);
    wake(j);
    return true;
}

enum kp_err jobs_resume(struct jobs *j, struct kp_error *e)
{
    unsigned before = kp_queue_holds(j->queue);
    enum kp_err rc = interlock(j);
    if (rc != KP_OK)
        return kp_error_set(e, rc, NULL, "the queue cannot go on yet: %s", kp_machine_printing(j->machine) ? "a file print is running" : "see safety/status");
    jobs_answer(j, JOBS_SKIP);
    before = kp_queue_holds(j->queue);
    collect(j);
    kp_queue_resume(j->queue, KP_HOLD_ALL);
    journal(j, before);
    wake(j);
    return KP_OK;
}

void jobs_hold(struct jobs *j, enum kp_queue_hold why, const char *words)
{
    if (why == KP_HOLD_SAFETY && !kp_safety_latched(j->machine) && !kp_queue_pending(j->queue, 0) && !kp_queue_running(j->queue))
        return; /* what is added later is added by somebody who sees how things are */
    if (kp_queue_holds(j->queue) & (unsigned)why)
        return;
    hold(j, (unsigned)why);
    log_line(LOG_WARNING, "jobs", "queue=held why=\"%s\"", words);
}

void jobs_machine(struct jobs *j)
{
    bool ready = kp_machine_klippy_state(j->machine) == KP_KLIPPY_READY;
    if (j->asked.code && interlock(j) != KP_OK)
        jobs_answer(j, JOBS_STOP);
    if (kp_safety_latched(j->machine))
        jobs_hold(j, KP_HOLD_SAFETY, "emergency stop");
    else if (!ready && j->was_ready)
        jobs_hold(j, KP_HOLD_SAFETY, "Klipper is not ready");
    if (kp_machine_printing(j->machine))
        jobs_hold(j, KP_HOLD_PRINT, "a file print is running");
    j->was_ready = ready;
    if (kp_queue_pending(j->queue, 0) && !kp_queue_holds(j->queue) && !kp_queue_running(j->queue))
        wake(j); /* what hindered it may be over */
}

void jobs_lane(struct jobs *j)
{
    if (j->ready_ms != INT64_MIN)
        wake(j);
}

/* ---- what is there ---- */

static json_t *seconds(double at)
{
    return isnan(at) ? json_null() : json_real(round(at * 1000) / 1000);
}

static json_t *entry_json(const struct kp_queue_entry *e)
{
    json_t *params = e->params.n ? json_loadb(e->params.p, e->params.n, 0, NULL) : json_object();
    return json_pack("{s:s,s:s,s:o,s:i,s:s,s:o,s:o,s:o}", "queue_id", e->id, "command", e->command, "parameters", params ? params : json_object(), "priority",
                     e->priority, "state", kp_queue_state_name(e->state), "added_at", seconds(wall(e->added_ms)), "started_at",
                     seconds(wall(e->started_ms)), "ended_at", seconds(wall(e->ended_ms)));
}

static json_t *holds_json(unsigned holds)
{
    static const struct { unsigned bit; const char *name; } rows[] = {
        { KP_HOLD_PAUSED, "paused" }, { KP_HOLD_INTERRUPTED, "interrupted" }, { KP_HOLD_SAFETY, "safety" }, { KP_HOLD_PRINT, "print" },
    };
    json_t *names = json_array();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (holds & rows[i].bit)
            json_array_append_new(names, json_string(rows[i].name));
    return names;
}

json_t *jobs_json(const struct jobs *j, bool listed)
{
    struct kp_queue_counts counts = kp_queue_counts(j->queue);
    const struct kp_queue_entry *running = kp_queue_running(j->queue), *e;
    unsigned holds = kp_queue_holds(j->queue);
    json_t *out = json_pack("{s:I,s:b,s:b,s:o,s:o}", "queue_size", (json_int_t)(counts.pending + counts.executing), "executing", running != NULL, "paused",
                            holds != 0, "holds", holds_json(holds), "current_command", running ? entry_json(running) : json_null());
    json_t *waiting = listed ? json_array() : NULL;
    for (size_t i = 0; waiting && i < JOBS_LISTED_MAX && (e = kp_queue_pending(j->queue, i)); i++)
        json_array_append_new(waiting, entry_json(e));
    if (waiting)
        json_object_set_new(out, "queued_commands", waiting);
    return out;
}

size_t jobs_size(const struct jobs *j)
{
    struct kp_queue_counts counts = kp_queue_counts(j->queue);
    return counts.pending + counts.executing;
}

size_t jobs_position(const struct jobs *j, const char *id)
{
    return kp_queue_position(j->queue, kp_str_of(id));
}

size_t jobs_waiting(const struct jobs *j)
{
    return kp_queue_counts(j->queue).pending;
}

bool jobs_running(const struct jobs *j)
{
    return kp_queue_running(j->queue) != NULL;
}

bool jobs_held(const struct jobs *j)
{
    return kp_queue_holds(j->queue) != 0;
}

/* ---- start and end ---- */

/* One entry of the journal into the queue; what cannot be is taken out of the journal, and told. */
static void restore(struct jobs *j, const struct history_entry *h)
{
    struct kp_queue_item item = { .id = kp_str_of(h->id), .command = kp_str_of(h->command), .params = kp_str_of(h->params), .priority = h->priority,
        .batch = h->batch, .stop_on_error = h->stop_on_error };
    int64_t now_ms = loop_now_ms(), added_ms = now_ms - (int64_t)((answer_wall() - h->added_at) * 1000);
    struct kp_error e;
    j->params = h->params;
    kp_error_set(&j->error, KP_OUTCOME_UNKNOWN, NULL, "the server ended while it was executed: it may have run");
    int64_t at_ms = h->executing || added_ms > now_ms ? now_ms : added_ms;
    enum kp_err rc = kp_queue_restore(j->queue, &item, h->executing ? KP_Q_EXECUTING : KP_Q_PENDING, KP_OK, at_ms, &e);
    j->error = (struct kp_error){ .code = KP_OK }, j->params = NULL;
    if (rc == KP_OK)
        return;
    log_line(LOG_ERROR, "jobs", "queue_id=%s not restored: %s", h->id, e.message);
    history_end_entry(j->writes, h->id);
}

static void restore_all(struct jobs *j, const struct history_numbers *n)
{
    size_t count;
    const struct history_entry *h = history_entries(j->history, &count);
    j->batch = n->batch;
    kp_queue_pause(j->queue, n->holds & ~(unsigned)KP_HOLD_PRINT);
    collect(j);
    for (size_t i = 0; i < count; i++)
        restore(j, &h[i]);
    if (count) {
        kp_queue_pause(j->queue, KP_HOLD_INTERRUPTED); /* nothing moves by itself */
        log_line(LOG_WARNING, "jobs", "restored=%zu held until resume", count);
    }
}

struct jobs *jobs_new(struct loop *l, struct app *a, struct kp_machine *m, struct lane *n, struct history *h, const struct kp_config *c,
                      jobs_changed_fn *changed, void *user)
{
    struct kp_queue_options o;
    struct history_numbers numbers;
    size_t left;
    struct jobs *j = calloc(1, sizeof *j);
    if (!j)
        return NULL;
    *j = (struct jobs){ .loop = l, .app = a, .machine = m, .lane = n, .history = h, .ready_ms = INT64_MIN };
    history_entries(h, &left);
    history_numbers(h, &numbers);
    kp_queue_defaults(&o);
    j->ask = !strcmp(kp_config_str(c, "vacuum", "on_fail"), "ask");
    o.entries = (size_t)kp_config_num(c, "gcode_driver", "max_queue_size");
    j->entries = o.entries, j->bytes = o.bytes;
    o.entries = o.entries > left ? o.entries : left; /* a smaller limit than that of the last run loses nothing */
    o.changed = on_changed, o.context = j;
    if (!(j->turn = loop_timer_new(l, on_turn, j)) || kp_queue_new(&j->queue, &o, NULL) != KP_OK) {
        jobs_free(j);
        return NULL;
    }
    restore_all(j, &numbers);
    if (!history_start(h)) {
        jobs_free(j);
        return NULL;
    }
    journal(j, numbers.holds);
    j->changed = changed, j->user = user;
    return j;
}

void jobs_stop(struct jobs *j)
{
    if (j && j->request)
        app_leave(j->request);
    if (j)
        j->request = NULL;
}

void jobs_free(struct jobs *j)
{
    if (!j)
        return;
    loop_timer_free(j->turn);
    kp_queue_free(j->queue);
    free(j);
}
