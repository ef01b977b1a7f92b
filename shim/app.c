/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Checked calls of every edge: answered from the mirror, or handed to the lane. Invariant: each request gets exactly one answer. */
#include "app_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "auth_api.h"
#include "batch.h"
#include "events.h"
#include "history.h"
#include "jobs.h"
#include "json.h"
#include "lane.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "monitor.h"
#include "moonraker.h"
#include "queue_api.h"
#include "record.h"
#include "state.h"
#include "stop.h"

/* ---- answers ---- */

void app_tell_faults(struct app *a, app_done *done, void *user, const struct kp_faults *f, json_t *details)
{
    enum kp_err code = kp_faults_code(f);
    if (code == KP_KLIPPY_DISCONNECTED || code == KP_EMERGENCY_STOP_ACTIVE) {
        if (!details)
            details = json_object();
        if (!json_object_get(details, "klipper"))
            json_object_set_new(details, "klipper", answer_klipper(a->machine, NULL));
    }
    done(user, &(struct app_answer){ .faults = f, .details = details });
    json_decref(details);
}

/* Takes details. */
void app_tell_error(struct app *a, app_done *done, void *user, enum kp_err code, const char *message, json_t *details)
{
    struct kp_faults f;
    struct kp_error e;
    kp_faults_init(&f);
    kp_error_set(&e, code, NULL, "%s", message);
    kp_faults_add(&f, &e);
    app_tell_faults(a, done, user, &f, details);
}

void app_tell_text(struct app *a, app_done *done, void *user, const char *text, size_t n)
{
    static const struct kp_faults none = { .count = 0 };
    if (text)
        done(user, &(struct app_answer){ .faults = &none, .data = text, .n = n });
    else
        app_tell_error(a, done, user, KP_INTERNAL_ERROR, "out of memory", NULL);
}

/* Takes data. */
void app_tell_data(struct app *a, app_done *done, void *user, json_t *data)
{
    char *text = data ? json_dumps(data, JSON_TEXT) : NULL;
    app_tell_text(a, done, user, text, text ? strlen(text) : 0);
    free(text);
    json_decref(data);
}

struct answer_time app_read_time(const struct app *a)
{
    return (struct answer_time){ state_fresh(a->state), state_pushed_wall(a->state), loop_now_ms(), jobs_waiting(a->jobs) + lane_size(a->lane),
                                 lane_running(a->lane), jobs_held(a->jobs), state_extra(a->state) };
}

/* ---- requests that wait ---- */

static void on_deadline(void *user);

/* Gives a request in the list; with a deadline, unless timeout_ms is 0. NULL when out of memory: then done has been told. */
struct app_request *app_request_new(struct app *a, const struct kp_call *call, app_done *done, void *user, enum waits waits, int64_t timeout_ms)
{
    struct app_request *r = calloc(1, sizeof *r);
    if (!r || !(r->deadline = loop_timer_new(a->loop, on_deadline, r))) {
        free(r);
        app_tell_error(a, done, user, KP_INTERNAL_ERROR, "out of memory", NULL);
        return NULL;
    }
    r->app = a, r->call = *call, r->done = done, r->user = user, r->waits = waits, r->began_ms = loop_now_ms();
    r->next = a->waiting, r->at = &a->waiting;
    if (r->next)
        r->next->at = &r->next;
    a->waiting = r;
    if (timeout_ms)
        loop_timer_set(r->deadline, timeout_ms);
    return r;
}

void app_request_free(struct app_request *r)
{
    *r->at = r->next;
    if (r->next)
        r->next->at = r->at;
    loop_timer_free(r->deadline);
    free(r);
}

struct app_request *app_request_waiting(struct app *a, enum waits what)
{
    struct app_request *r = a->waiting;
    while (r && r->waits != what)
        r = r->next;
    return r;
}

double app_request_seconds(const struct app_request *r)
{
    return (double)(loop_now_ms() - r->began_ms) / 1000;
}

/* Its end will be in the history. */
void app_request_record(struct app_request *r, const struct app_how *how)
{
    if (r && !how->unrecorded && how->id)
        snprintf(r->id, sizeof r->id, "%s", how->id);
    else if (r && !how->unrecorded)
        answer_id(&r->app->ids, r->id);
}

/* The answer of a request that waited: to its client, who is waiting for it, and then into the history. */
static void request_told(void *user, const struct app_answer *answer)
{
    struct app_request *r = user;
    struct app_answer out = *answer;
    if (history_failing(r->app->history))
        out.warning = "the history database cannot be written: this is not kept";
    out.untouched = r->untouched;
    if (r->done)
        r->done(r->user, &out);
    if (r->id[0])
        record_command(r->app->history, r->app->machine, &r->call, r->id, app_request_seconds(r), answer->faults);
}

/* Takes details. */
void app_request_fail(struct app_request *r, const struct kp_faults *f, json_t *details)
{
    app_tell_faults(r->app, request_told, r, f, details);
    app_request_free(r);
}

/* Takes details. */
void app_request_fail_with(struct app_request *r, enum kp_err code, const char *message, json_t *details)
{
    app_tell_error(r->app, request_told, r, code, message, details);
    app_request_free(r);
}

/* Takes data. */
void app_request_done(struct app_request *r, json_t *data)
{
    app_tell_data(r->app, request_told, r, data);
    app_request_free(r);
}

/* ---- commands of the lane ---- */

/* What the client is told when it failed. */
static json_t *failure_details(const struct app *a, const struct lane_outcome *o)
{
    json_t *details = json_object();
    if (o->step[0])
        json_object_set_new(details, "step", json_string(o->step));
    if (o->klipper[0])
        json_object_set_new(details, "klipper", answer_klipper(a->machine, o->klipper));
    if (o->seq && kp_seq_result(o->seq)->attempts)
        json_object_set_new(details, "attempts", json_integer(kp_seq_result(o->seq)->attempts));
    return details;
}

static void on_lane(void *user, const struct lane_outcome *o)
{
    struct app_request *r = user;
    struct app *a = r->app;
    json_t *data = o->faults->count ? NULL : answer_done(a->machine, &r->call, o);
    for (struct app_watch *w = a->watches; w; w = w->next)
        if (w->ended)
            w->ended(w->user, &r->call, o->faults, data);
    r->untouched = !o->sent;
    if (o->faults->count)
        app_request_fail(r, o->faults, failure_details(a, o));
    else
        app_request_done(r, data);
    jobs_lane(a->jobs);
    events_queue(a->events, NULL);
}

static struct app_request *lane_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    struct kp_faults f;
    kp_faults_init(&f);
    if (kp_safety_gate(a->machine, call, &f) != KP_OK && kp_faults_code(&f) != KP_HOMING_REQUIRED) {
        app_tell_faults(a, done, user, &f, NULL);
        return NULL;
    }
    struct app_request *r = app_request_new(a, call, done, user, FOR_LANE, (int64_t)(call->timeout_s * 1000));
    f.count = 0;
    app_request_record(r, how);
    if (r && !(r->job = lane_submit(a->lane, call, on_lane, r, &f))) {
        app_request_fail(r, &f, NULL);
        return NULL;
    }
    events_queue(a->events, NULL);
    return r;
}

/* ---- queue and batch ---- */

static void on_local(void *user, const struct app_answer *answer)
{
    struct app_request *r = user;
    if (answer->faults->count) {
        r->untouched = kp_faults_code(answer->faults) == KP_DATABASE_UNAVAILABLE && !auth_api_serves(r->call.command->id); /* what could not be kept is forgotten */
        app_request_fail(r, answer->faults, json_incref(answer->details));
        return;
    }
    request_told(r, answer);
    app_request_free(r);
}

static struct app_request *local_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    struct kp_faults f;
    bool batch = call->command->id == KP_BATCH_EXECUTE;
    kp_faults_init(&f);
    if (kp_safety_gate(a->machine, call, &f) != KP_OK) {
        app_tell_faults(a, done, user, &f, NULL);
        return NULL;
    }
    struct app_request *r = app_request_new(a, call, done, user, batch ? FOR_BATCH : FOR_JOURNAL, 0);
    if (r && !batch)
        return (auth_api_serves(call->command->id) ? auth_api_begin(a->keys, call, how->who, on_local, r)
                                                   : queue_api_begin(a->queue, call, how->body, on_local, r)) ? r : NULL;
    struct batch *b = r ? batch_begin(a->loop, a, a->machine, call, how->body, on_local, r) : NULL;
    if (!b)
        return NULL;
    r->batch = b;
    return r;
}

static void on_jobs(void *user, const struct kp_queue_entry *entry)
{
    struct app *a = user;
    a->generation++;
    events_queue(a->events, entry);
}

/* ---- deadlines, clients that leave, news from the mirror ---- */

static void on_deadline(void *user)
{
    struct app_request *r = user;
    struct app *a = r->app;
    bool may_run;
    switch (r->waits) {
    case FOR_PIN: /* the write has not been seen: the old value, said to be old */
        app_read_reply(a, &r->call, r->done, r->user);
        app_request_free(r);
        return;
    case FOR_LANE:
        may_run = lane_leave(a->lane, r->job);
        r->untouched = !may_run;
        app_request_fail_with(r, KP_TIMEOUT, "the command's time is over", json_pack("{s:b}", "may_still_run", may_run));
        return;
    case FOR_STOP:
        app_request_fail_with(r, KP_TIMEOUT, "nobody confirmed the emergency stop; use the machine's own switch",
                          json_pack("{s:b,s:s}", "emergency_stop_active", 1, "confirmed_by", "none"));
        return;
    case FOR_JOURNAL: return; /* these two have none */
    case FOR_BATCH: return;
    case FOR_KLIPPER: /* its question is still under way and ends it */
        app_tell_error(a, r->done, r->user, KP_TIMEOUT, "Klipper did not answer", NULL);
        r->done = NULL;
        return;
    case FOR_RESET: app_request_fail_with(r, KP_TIMEOUT, "Klipper did not get ready in time", json_pack("{s:o}", "klipper", answer_klipper(a->machine, NULL))); return;
    }
}

static void on_pushed(void *user)
{
    struct app *a = user;
    a->generation++;
    jobs_machine(a->jobs);
    lane_pushed(a->lane);
    app_reads_that_waited(a, false);
    events_mirror(a->events);
    for (struct app_watch *w = a->watches; w; w = w->next)
        if (w->pushed)
            w->pushed(w->user);
}

static void on_changed(void *user)
{
    struct app *a = user;
    enum kp_klippy klippy = kp_machine_klippy_state(a->machine);
    a->generation++;
    jobs_machine(a->jobs);
    lane_changed(a->lane);
    if (klippy != KP_KLIPPY_READY)
        app_reads_that_waited(a, true);
    app_reset_changed(a, klippy);
    stop_changed(a->stop, klippy, state_saw_it_go(a->state));
    monitor_look(a->monitor);
    events_mirror(a->events);
    for (struct app_watch *w = a->watches; w; w = w->next)
        if (w->changed)
            w->changed(w->user);
}

static void on_notice(void *user, const char *method, json_t *params)
{
    struct app *a = user;
    for (struct app_watch *w = a->watches; w; w = w->next)
        if (w->notice)
            w->notice(w->user, method, params);
}

static void on_lane_waits(void *user, int64_t in_ms)
{
    struct app *a = user;
    state_look(a->state, in_ms);
}

static void on_console(void *user, const char *line)
{
    struct app *a = user;
    lane_console(a->lane, line);
}

/* ---- for subscribers ---- */

static struct answer_time time_now(void *user)
{
    return app_read_time(user);
}

static json_t *queue_now(void *user)
{
    const struct app *a = user;
    const char *running = lane_running(a->lane);
    return json_pack("{s:I,s:b,s:b,s:s?}", "queue_size", (json_int_t)(jobs_waiting(a->jobs) + lane_size(a->lane)), "executing", running != NULL, "paused",
                     jobs_held(a->jobs), "current_command", running);
}

static void on_safety(void *user, const struct kp_safety_event *event)
{
    struct app *a = user;
    queue_api_event(a->queue, event);
    events_safety(a->events, event);
}

/* ---- for the edges ---- */

struct events *app_events(struct app *a)
{
    return a->events;
}

enum kp_err app_check(struct app *a, const struct kp_command *c, const struct kp_arg *args, size_t count, struct kp_call *out, struct kp_faults *f)
{
    return kp_check(a->machine, c, args, count, out, f);
}

struct app_request *app_execute_how(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    switch (call->command->id) {
    case KP_EMERGENCY_STOP: return app_stop_begin(a, call, how, done, user);
    case KP_RESET: return app_reset_begin(a, call, how, done, user);
    case KP_GPIO_READ:
    case KP_GPIO_READ_ALL:
    case KP_SENSOR_READ:
    case KP_SENSOR_READ_ALL:
    case KP_SENSOR_READ_BY_TYPE:
    case KP_GET_POSITION:
    case KP_GET_PRINTER_STATE:
    case KP_GET_STATUS:
    case KP_SAFETY_STATUS:
    case KP_SAFETY_EVENTS:
    case KP_GET_VERSION: return app_read_begin(a, call, done, user);
    default: break;
    }
    if (call->command->strategy == KP_GCODE)
        return lane_begin(a, call, how, done, user);
    return local_begin(a, call, how, done, user);
}

struct app_request *app_execute(struct app *a, const struct kp_call *call, app_done *done, void *user)
{
    static const struct app_how plain = { .id = NULL };
    return app_execute_how(a, call, &plain, done, user);
}

void app_leave(struct app_request *r)
{
    if (r->waits == FOR_KLIPPER || r->waits == FOR_JOURNAL) { /* its question is under way and ends it */
        r->done = NULL;
        loop_timer_cancel(r->deadline);
        return;
    }
    if (r->waits == FOR_STOP || r->waits == FOR_RESET) { /* it has begun: it goes on to its end, which the history has */
        r->done = NULL;
        return;
    }
    if (r->waits == FOR_BATCH)
        batch_leave(r->batch);
    if (r->waits == FOR_LANE && lane_leave(r->app->lane, r->job)) {
        r->done = NULL;
        app_request_fail_with(r, KP_OUTCOME_UNKNOWN, "its client went away before the end: it may have run", NULL); /* for the history alone */
        return;
    }
    app_request_free(r);
}

void app_watch(struct app *a, struct app_watch *w)
{
    w->next = a->watches;
    a->watches = w;
}

void app_unwatch(struct app *a, struct app_watch *w)
{
    struct app_watch **at = &a->watches;
    while (*at && *at != w)
        at = &(*at)->next;
    if (*at)
        *at = w->next;
}

void app_asked(struct app *a, const struct kp_queue_entry *entry, const struct kp_error *why)
{
    for (struct app_watch *w = a->watches; w; w = w->next)
        if (w->asked)
            w->asked(w->user, entry, why);
}

bool app_answer(struct app *a, const char *choice)
{
    static const char *const names[] = { [JOBS_RETRY] = "retry", [JOBS_SKIP] = "skip", [JOBS_STOP] = "stop" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(choice, names[i]))
            return jobs_answer(queue_api_jobs(a->queue), (enum jobs_choice)i);
    return false;
}

struct mr *app_moonraker(struct app *a)
{
    return state_moonraker(a->state);
}

void app_count(struct app *a, const struct kp_command *c, enum kp_err code)
{
    metrics_answer(a->metrics, c, code);
}

static void fill_metrics(const void *user, struct metrics_now *now)
{
    const struct app *a = user;
    now->moonraker_connected = kp_machine_moonraker_connected(a->machine);
    now->klipper_ready = kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY;
    now->latched = kp_safety_latched(a->machine);
    now->level = kp_safety_level(a->machine);
    now->lane = lane_size(a->lane);
    now->queue_pending = jobs_waiting(a->jobs), now->queue_executing = jobs_running(a->jobs), now->queue_held = jobs_held(a->jobs);
    state_extra_metrics(a->state, &now->extra);
}

void app_look(struct app *a, int64_t in_ms)
{
    state_look(a->state, in_ms);
}

const struct kp_machine *app_machine(const struct app *a)
{
    return a->machine;
}

struct lane *app_lane(const struct app *a)
{
    return a->lane;
}

struct app *app_new(struct loop *l, const struct kp_config *c, struct metrics *metrics, struct auth *auth)
{
    static const struct state_events ev = { on_changed, on_pushed, on_console, on_notice };
    struct mr_config mr = { .socket = kp_config_str(c, "api", "moonraker_socket"), .host = kp_config_str(c, "api", "moonraker_host"),
                            .port = (int)kp_config_num(c, "api", "moonraker_port"), .api_key = kp_config_str(c, "api", "moonraker_api_key"), .answers = true, .metrics = metrics };
    struct app *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->loop = l, a->config = c, a->metrics = metrics;
    struct events_source source = { time_now, queue_now, a };
    if ((a->machine = kp_machine_new(c)) && (a->state = state_new(l, a->machine, &mr, &ev, a)) &&
        (a->lane = lane_new(l, state_moonraker(a->state), a->machine)) && (a->stop = stop_new(l, state_moonraker(a->state), c, app_on_stopped, a)) &&
        (a->queue = queue_api_new(l, a, a->machine, a->lane, c, on_jobs, a)) && (a->events = events_new(l, a->machine, &source)) &&
        (a->monitor = monitor_new(l, a->machine, app_on_reaction, a)) && (a->keys = auth_api_new(l, auth, queue_api_history(a->queue), c))) {
        a->jobs = queue_api_jobs(a->queue), a->history = queue_api_history(a->queue);
        kp_safety_listen(a->machine, on_safety, a);
        lane_on_wait(a->lane, on_lane_waits, a);
        metrics_room(metrics, fill_metrics, a);
        return a;
    }
    app_free(a);
    return NULL;
}

void app_free(struct app *a)
{
    struct app_request *r;
    if (!a)
        return;
    if (a->machine)
        kp_safety_listen(a->machine, NULL, NULL);
    for (r = a->waiting; r; r = r->next)
        r->done = NULL;
    while ((r = app_request_waiting(a, FOR_BATCH))) {
        batch_leave(r->batch);
        app_request_free(r);
    }
    monitor_free(a->monitor);
    auth_api_stop(a->keys);
    queue_api_free(a->queue); /* the history's callbacks still find keys */
    auth_api_free(a->keys);
    stop_free(a->stop);
    lane_free(a->lane);
    state_free(a->state);
    events_free(a->events);
    while (a->waiting)
        app_request_free(a->waiting);
    app_reads_free(a);
    kp_machine_free(a->machine);
    free(a);
}
