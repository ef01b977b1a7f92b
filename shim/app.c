/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Checked calls of every edge: answered from the mirror, or handed to the lane. Invariant: each request gets exactly one answer. */
#include "app.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "batch.h"
#include "events.h"
#include "history.h"
#include "jobs.h"
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

#define READ_MS 5000   /* how long a read waits for Klipper */
#define RESET_MS 30000 /* how long a reset waits for Klipper to be ready */

/* What a request waits for. */
enum waits { FOR_LANE, FOR_PIN, FOR_KLIPPER, FOR_STOP, FOR_RESET, FOR_JOURNAL, FOR_BATCH };

struct app_request {
    struct app_request *next, **at; /* in app's list */
    struct app *app;
    struct kp_call call;
    char id[ANSWER_ID];          /* of the answer and in the history; empty: not recorded */
    app_done *done;              /* NULL: the client went away while somebody was asked */
    void *user;
    enum waits waits;
    struct lane_job *job;
    struct batch *batch;
    struct loop_timer *deadline;
    int64_t began_ms;
};

/* The text of a read, kept until the mirror changes. */
struct kept { char *text; size_t n; uint64_t generation; bool fresh; size_t queue; const char *running; };

struct app {
    struct loop *loop;
    const struct kp_config *config;
    struct metrics *metrics;
    struct kp_machine *machine;
    struct state *state;
    struct lane *lane;
    struct events *events;
    struct queue_api *queue;
    struct history *history;     /* both of queue */
    struct jobs *jobs;
    struct answer_pool ids;
    struct app_request *waiting;
    uint64_t generation;         /* of what reads are answered from */
    struct kept pins[KP_PINS_MAX], sensors[KP_SENSORS_MAX], all_pins, all_sensors, position, status, health;
    struct app_listener listener; /* functions NULL: nobody */
    struct stop *stop;
    bool second_way;             /* as health last told */
    struct monitor *monitor;
    struct app_watch watch;      /* members NULL: nobody */
    void *watch_user;
};

/* ---- answers ---- */

static void tell_faults(struct app *a, app_done *done, void *user, const struct kp_faults *f, json_t *details)
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
static void tell_error(struct app *a, app_done *done, void *user, enum kp_err code, const char *message, json_t *details)
{
    struct kp_faults f;
    struct kp_error e;
    kp_faults_init(&f);
    kp_error_set(&e, code, NULL, "%s", message);
    kp_faults_add(&f, &e);
    tell_faults(a, done, user, &f, details);
}

static void tell_text(struct app *a, app_done *done, void *user, const char *text, size_t n)
{
    static const struct kp_faults none = { .count = 0 };
    if (text)
        done(user, &(struct app_answer){ .faults = &none, .data = text, .n = n });
    else
        tell_error(a, done, user, KP_INTERNAL_ERROR, "out of memory", NULL);
}

/* Takes data. */
static void tell_data(struct app *a, app_done *done, void *user, json_t *data)
{
    char *text = data ? json_dumps(data, JSON_COMPACT) : NULL;
    tell_text(a, done, user, text, text ? strlen(text) : 0);
    free(text);
    json_decref(data);
}

static struct answer_time read_time(const struct app *a)
{
    return (struct answer_time){ state_fresh(a->state), state_pushed_wall(a->state), jobs_waiting(a->jobs) + lane_size(a->lane), lane_running(a->lane),
                                 jobs_held(a->jobs), state_extra(a->state) };
}

/* ---- requests that wait ---- */

static void on_deadline(void *user);

/* Gives a request in the list; with a deadline, unless timeout_ms is 0. NULL when out of memory: then done has been told. */
static struct app_request *request_new(struct app *a, const struct kp_call *call, app_done *done, void *user, enum waits waits, int64_t timeout_ms)
{
    struct app_request *r = calloc(1, sizeof *r);
    if (!r || !(r->deadline = loop_timer_new(a->loop, on_deadline, r))) {
        free(r);
        tell_error(a, done, user, KP_INTERNAL_ERROR, "out of memory", NULL);
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

static void request_free(struct app_request *r)
{
    *r->at = r->next;
    if (r->next)
        r->next->at = r->at;
    loop_timer_free(r->deadline);
    free(r);
}

static double seconds_since(const struct app_request *r)
{
    return (double)(loop_now_ms() - r->began_ms) / 1000;
}

/* Its end will be in the history. */
static void request_record(struct app_request *r, const struct app_how *how)
{
    if (r && !how->unrecorded && how->id)
        snprintf(r->id, sizeof r->id, "%s", how->id);
    else if (r && !how->unrecorded)
        answer_id(&r->app->ids, r->id);
}

/* The answer of a request that waited: into the history, and to its client. */
static void request_told(void *user, const struct app_answer *answer)
{
    struct app_request *r = user;
    struct app_answer out = *answer;
    if (history_failing(r->app->history))
        out.warning = "the history database cannot be written: this is not kept";
    if (r->id[0])
        record_command(r->app->history, r->app->machine, &r->call, r->id, seconds_since(r), answer->faults);
    if (r->done)
        r->done(r->user, &out);
}

/* Takes details. */
static void request_fail(struct app_request *r, const struct kp_faults *f, json_t *details)
{
    tell_faults(r->app, request_told, r, f, details);
    request_free(r);
}

/* Takes details. */
static void request_fail_with(struct app_request *r, enum kp_err code, const char *message, json_t *details)
{
    tell_error(r->app, request_told, r, code, message, details);
    request_free(r);
}

/* Takes data. */
static void request_done(struct app_request *r, json_t *data)
{
    tell_data(r->app, request_told, r, data);
    request_free(r);
}

/* ---- reads ---- */

/* Away, or never told: a read without a value has nothing to answer with. */
static enum kp_err unreadable(const struct app *a)
{
    if (!kp_machine_moonraker_connected(a->machine))
        return KP_MOONRAKER_DISCONNECTED;
    return kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY ? KP_OK : KP_KLIPPY_DISCONNECTED;
}

static struct answer_filter event_filter(const struct kp_call *call)
{
    const struct kp_slot *level = kp_call_slot(call, "level");
    return (struct answer_filter){ .limit = (size_t)kp_call_slot(call, "limit")->num, .level = level->set ? (enum kp_level)level->index : KP_NORMAL,
                                   .since = (uint64_t)kp_call_slot(call, "since")->num };
}

static json_t *read_data(struct app *a, const struct kp_call *call)
{
    struct answer_time t = read_time(a);
    struct answer_clock clock = { answer_wall(), loop_now_ms() };
    struct answer_filter filter;
    const struct kp_slot *s = call->slot;
    switch (call->command->id) {
    case KP_GPIO_READ: return answer_pin(kp_machine_pin(a->machine, (size_t)s->index), s->inverted, &t);
    case KP_GPIO_READ_ALL: return answer_pins(a->machine, &t);
    case KP_SENSOR_READ: return answer_sensor(kp_machine_sensor(a->machine, (size_t)s->index), &t);
    case KP_SENSOR_READ_ALL: return answer_sensors(a->machine, NULL, &t);
    case KP_SENSOR_READ_BY_TYPE: return answer_sensors(a->machine, s->text, &t);
    case KP_GET_POSITION: return answer_position(a->machine, &t);
    case KP_GET_STATUS: return answer_status(a->machine, &t);
    case KP_GET_PRINTER_STATE: return answer_printer_state(a->machine, &t);
    case KP_SAFETY_STATUS: return answer_safety_status(a->machine, &clock);
    case KP_SAFETY_EVENTS: filter = event_filter(call); return answer_safety_events(a->machine, &clock, &filter);
    default: return answer_version();
    }
}

/* Where the text of a read is kept; NULL: it is made each time. */
static struct kept *kept_for(struct app *a, const struct kp_call *call)
{
    const struct kp_slot *s = call->slot;
    switch (call->command->id) {
    case KP_GPIO_READ: return s->inverted ? NULL : &a->pins[s->index];
    case KP_GPIO_READ_ALL: return &a->all_pins;
    case KP_SENSOR_READ: return &a->sensors[s->index];
    case KP_SENSOR_READ_ALL: return &a->all_sensors;
    case KP_GET_POSITION: return &a->position;
    case KP_GET_STATUS: return &a->status;
    default: return NULL;
    }
}

/* Takes data. */
static void keep(struct app *a, struct kept *k, json_t *data)
{
    free(k->text);
    k->text = data ? json_dumps(data, JSON_COMPACT) : NULL;
    k->n = k->text ? strlen(k->text) : 0;
    k->generation = a->generation, k->fresh = state_fresh(a->state);
    k->queue = lane_size(a->lane), k->running = lane_running(a->lane);
    json_decref(data);
}

static void reply_read(struct app *a, const struct kp_call *call, app_done *done, void *user)
{
    struct kept *k = kept_for(a, call);
    bool fresh = state_fresh(a->state);
    if (call->command->strategy != KP_LOCAL)
        metrics_read(a->metrics, fresh ? METRICS_FRESH : METRICS_STALE);
    if (!k) {
        tell_data(a, done, user, read_data(a, call));
        return;
    }
    if (!k->text || k->generation != a->generation || k->fresh != fresh || (k == &a->status && (k->queue != lane_size(a->lane) || k->running != lane_running(a->lane))))
        keep(a, k, read_data(a, call));
    tell_text(a, done, user, k->text, k->n);
}

static bool pin_dirty(const struct app *a, const struct kp_call *call)
{
    return call->command->id == KP_GPIO_READ && kp_machine_pin(a->machine, (size_t)call->slot[0].index)->dirty;
}

static bool never_told(const struct app *a, const struct kp_call *call)
{
    double xyz[3];
    switch (call->command->id) {
    case KP_GPIO_READ: return kp_machine_pin(a->machine, (size_t)call->slot[0].index)->changed_ms == INT64_MIN;
    case KP_SENSOR_READ: return kp_machine_sensor(a->machine, (size_t)call->slot[0].index)->changed_ms == INT64_MIN;
    case KP_GPIO_READ_ALL: return !kp_machine_pin(a->machine, 0);
    case KP_SENSOR_READ_ALL:
    case KP_SENSOR_READ_BY_TYPE: return !kp_machine_sensor(a->machine, 0);
    case KP_GET_POSITION: return !kp_machine_position(a->machine, xyz) && !kp_machine_commanded(a->machine, xyz);
    default: return false;
    }
}

static void on_refreshed(void *user, bool ok)
{
    struct app_request *r = user;
    if (!r->done) { /* left meanwhile */
        request_free(r);
        return;
    }
    if (ok) {
        r->app->generation++;
        reply_read(r->app, &r->call, r->done, r->user);
        request_free(r);
        return;
    }
    enum kp_err away = unreadable(r->app);
    request_fail_with(r, away ? away : KP_TIMEOUT, "Klipper did not answer", NULL);
}

static const char *live_object(const struct app *a, const struct kp_call *call)
{
    const struct kp_pin *p;
    switch (call->command->id) {
    case KP_GPIO_READ:
        p = kp_machine_pin(a->machine, (size_t)call->slot[0].index);
        return p->kind == KP_PIN_ENDSTOP ? "query_endstops" : p->object;
    case KP_SENSOR_READ: return kp_machine_sensor(a->machine, (size_t)call->slot[0].index)->object;
    default: return "motion_report";
    }
}

static bool asks_live(const struct kp_call *call)
{
    return (call->command->id == KP_GPIO_READ || call->command->id == KP_SENSOR_READ || call->command->id == KP_GET_POSITION) && kp_call_slot(call, "live")->flag;
}

static struct app_request *read_begin(struct app *a, const struct kp_call *call, app_done *done, void *user)
{
    enum kp_err away = unreadable(a);
    bool live = asks_live(call);
    if (away && (live || never_told(a, call))) {
        tell_error(a, done, user, away, away == KP_MOONRAKER_DISCONNECTED ? "Moonraker is not connected" : "Klipper is not ready", NULL);
        return NULL;
    }
    if (!live && (away || !pin_dirty(a, call))) {
        reply_read(a, call, done, user);
        return NULL;
    }
    struct app_request *r = request_new(a, call, done, user, live ? FOR_KLIPPER : FOR_PIN, live ? 2 * READ_MS : READ_MS);
    if (r && live)
        metrics_read(a->metrics, METRICS_ASKED), state_refresh(a->state, live_object(a, call), READ_MS, on_refreshed, r);
    return r;
}

/* ---- commands of the lane ---- */

static void on_lane(void *user, const struct lane_outcome *o)
{
    struct app_request *r = user;
    struct app *a = r->app;
    json_t *data = o->faults->count ? NULL : answer_done(a->machine, &r->call, o);
    jobs_lane(a->jobs);
    events_queue(a->events, NULL);
    if (a->watch.ended)
        a->watch.ended(a->watch_user, &r->call, o->faults, data);
    if (!o->faults->count) {
        request_done(r, data);
        return;
    }
    json_t *details = json_object();
    if (o->step[0])
        json_object_set_new(details, "step", json_string(o->step));
    if (o->klipper[0])
        json_object_set_new(details, "klipper", answer_klipper(r->app->machine, o->klipper));
    if (o->seq && kp_seq_result(o->seq)->attempts)
        json_object_set_new(details, "attempts", json_integer(kp_seq_result(o->seq)->attempts));
    request_fail(r, o->faults, details);
}

static struct app_request *lane_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    struct kp_faults f;
    kp_faults_init(&f);
    if (kp_safety_gate(a->machine, call, &f) != KP_OK && kp_faults_code(&f) != KP_HOMING_REQUIRED) {
        tell_faults(a, done, user, &f, NULL);
        return NULL;
    }
    struct app_request *r = request_new(a, call, done, user, FOR_LANE, (int64_t)(call->timeout_s * 1000));
    f.count = 0;
    request_record(r, how);
    if (r && !(r->job = lane_submit(a->lane, call, on_lane, r, &f))) {
        request_fail(r, &f, NULL);
        return NULL;
    }
    events_queue(a->events, NULL);
    return r;
}

/* ---- emergency stop and reset ---- */

static struct app_request *waiting_for(struct app *a, enum waits what)
{
    struct app_request *r = a->waiting;
    while (r && r->waits != what)
        r = r->next;
    return r;
}

static json_t *stop_data(struct app_request *r, const char *confirmed_by)
{
    return json_pack("{s:b,s:s,s:f,s:f,s:s}", "emergency_stop_active", 1, "reason", kp_safety_reason(r->app->machine), "latency", seconds_since(r), "execution_time",
                     seconds_since(r), "confirmed_by", confirmed_by);
}

/* Somebody confirmed that Klipper has stopped. */
static void on_stopped(void *user, const char *by)
{
    struct app *a = user;
    struct app_request *r;
    log_line(LOG_CRITICAL, "app", "emergency_stop=confirmed by=%s reason=\"%s\"", by, kp_safety_reason(a->machine));
    state_again(a->state); /* else a reset right after this would still see Klipper ready */
    while ((r = waiting_for(a, FOR_STOP)))
        request_done(r, stop_data(r, by));
}

/* The latch is set: everything of ours ends, and Klipper is told. */
static void stop_now(struct app *a)
{
    a->generation++;
    stop_send(a->stop);
    log_line(LOG_CRITICAL, "app", "emergency_stop=latched reason=\"%s\"", kp_safety_reason(a->machine));
    jobs_machine(a->jobs); /* held before its entry ends with the lane */
    lane_stop(a->lane);
}

/* A monitor found what must not be. */
static void on_reaction(void *user, unsigned reaction)
{
    struct app *a = user;
    a->generation++;
    if (reaction & KP_REACT_HOLD)
        jobs_hold(a->jobs, KP_HOLD_SAFETY, "a monitor found what must not be");
    if (reaction & KP_REACT_STOP)
        stop_now(a);
}

static struct app_request *stop_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    const struct kp_slot *reason = kp_call_slot(call, "reason");
    kp_safety_latch(a->machine, true, reason->set ? reason->text : "asked by a client");
    struct app_request *r = request_new(a, call, done, user, FOR_STOP, stop_timeout_ms(a->stop));
    request_record(r, how);
    stop_now(a);
    return r;
}

/* Klipper is ready and the latch may go, unless its cause is still there. */
static void release(struct app *a)
{
    struct app_request *r;
    struct kp_error e;
    enum kp_err held = kp_safety_reset(a->machine, loop_now_ms(), &e);
    if (!held) {
        stop_forget(a->stop);
        a->generation++;
        log_line(LOG_WARNING, "app", "emergency_stop=released");
    }
    while ((r = waiting_for(a, FOR_RESET)))
        if (held)
            request_fail_with(r, e.code, e.message, NULL);
        else
            request_done(r, json_pack("{s:b,s:[],s:f}", "reset_complete", 1, "homed_axes", "execution_time", seconds_since(r)));
}

static void on_restart(void *user, const struct mr_reply *reply)
{
    struct app *a = user;
    struct app_request *r;
    if (reply->outcome != MR_ERROR && reply->outcome != MR_NOT_SENT)
        return; /* the mirror tells when Klipper is ready; the deadline tells when it is not */
    while ((r = waiting_for(a, FOR_RESET)))
        request_fail_with(r, KP_EXECUTION_FAILED, "Klipper's firmware could not be restarted",
                          json_pack("{s:o}", "klipper", answer_klipper(a->machine, reply->message ? reply->message : "")));
}

static struct app_request *reset_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    if (!kp_machine_moonraker_connected(a->machine)) {
        tell_error(a, done, user, KP_MOONRAKER_DISCONNECTED, "Moonraker is not connected", NULL);
        return NULL;
    }
    struct app_request *r = request_new(a, call, done, user, FOR_RESET, RESET_MS);
    if (!r)
        return NULL;
    request_record(r, how);
    if (kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY && !stop_owed(a->stop)) {
        release(a);
        return NULL;
    }
    mr_call(state_moonraker(a->state), "printer.firmware_restart", NULL, RESET_MS, on_restart, a);
    return r;
}

/* ---- queue and batch ---- */

static void on_local(void *user, const struct app_answer *answer)
{
    struct app_request *r = user;
    if (answer->faults->count) {
        request_fail(r, answer->faults, json_incref(answer->details));
        return;
    }
    request_told(r, answer);
    request_free(r);
}

static struct app_request *local_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    struct kp_faults f;
    bool batch = call->command->id == KP_BATCH_EXECUTE;
    kp_faults_init(&f);
    if (kp_safety_gate(a->machine, call, &f) != KP_OK) {
        tell_faults(a, done, user, &f, NULL);
        return NULL;
    }
    struct app_request *r = request_new(a, call, done, user, batch ? FOR_BATCH : FOR_JOURNAL, 0);
    if (r && !batch)
        return queue_api_begin(a->queue, call, how->body, on_local, r) ? r : NULL;
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
    switch (r->waits) {
    case FOR_PIN: /* the write has not been seen: the old value, said to be old */
        reply_read(a, &r->call, r->done, r->user);
        request_free(r);
        return;
    case FOR_LANE:
        request_fail_with(r, KP_TIMEOUT, "the command's time is over", json_pack("{s:b}", "may_still_run", lane_leave(a->lane, r->job)));
        return;
    case FOR_STOP:
        request_fail_with(r, KP_TIMEOUT, "nobody confirmed the emergency stop; use the machine's own switch",
                          json_pack("{s:b,s:s}", "emergency_stop_active", 1, "confirmed_by", "none"));
        return;
    case FOR_JOURNAL: /* these two have none */
    case FOR_BATCH:
    case FOR_KLIPPER:
    case FOR_RESET: request_fail_with(r, KP_TIMEOUT, "Klipper did not get ready in time", json_pack("{s:o}", "klipper", answer_klipper(a->machine, NULL))); return;
    }
}

static void reads_that_waited(struct app *a, bool all)
{
    struct app_request *next;
    for (struct app_request *r = a->waiting; r; r = next) {
        next = r->next;
        if (r->waits != FOR_PIN || (!all && pin_dirty(a, &r->call)))
            continue;
        reply_read(a, &r->call, r->done, r->user);
        request_free(r);
    }
}

static void on_pushed(void *user)
{
    struct app *a = user;
    a->generation++;
    jobs_machine(a->jobs);
    lane_pushed(a->lane);
    reads_that_waited(a, false);
    events_mirror(a->events);
    if (a->listener.pushed)
        a->listener.pushed(a->listener.user);
}

static void on_changed(void *user)
{
    struct app *a = user;
    enum kp_klippy klippy = kp_machine_klippy_state(a->machine);
    a->generation++;
    jobs_machine(a->jobs);
    lane_changed(a->lane);
    if (klippy != KP_KLIPPY_READY)
        reads_that_waited(a, true);
    if (waiting_for(a, FOR_RESET))
        stop_forget(a->stop);
    stop_changed(a->stop, klippy);
    if (klippy == KP_KLIPPY_READY && waiting_for(a, FOR_RESET))
        release(a);
    monitor_look(a->monitor);
    events_mirror(a->events);
    if (a->listener.changed)
        a->listener.changed(a->listener.user);
    if (a->watch.changed)
        a->watch.changed(a->watch_user);
}

static void on_notice(void *user, const char *method, json_t *params)
{
    struct app *a = user;
    if (a->watch.notice)
        a->watch.notice(a->watch_user, method, params);
}

static void on_console(void *user, const char *line)
{
    struct app *a = user;
    lane_console(a->lane, line);
}

/* ---- for subscribers ---- */

static struct answer_time time_now(void *user)
{
    return read_time(user);
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
    case KP_EMERGENCY_STOP: return stop_begin(a, call, how, done, user);
    case KP_RESET: return reset_begin(a, call, how, done, user);
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
    case KP_GET_VERSION: return read_begin(a, call, done, user);
    default: break;
    }
    if (call->command->strategy == KP_GCODE)
        return lane_begin(a, call, how, done, user);
    if (queue_api_serves(call->command->id) || call->command->id == KP_BATCH_EXECUTE)
        return local_begin(a, call, how, done, user);
    tell_error(a, done, user, KP_INVALID_REQUEST, "this command is not offered by this build", NULL);
    return NULL;
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
    if (r->waits == FOR_BATCH)
        batch_leave(r->batch);
    if (r->waits == FOR_LANE && lane_leave(r->app->lane, r->job)) {
        r->done = NULL;
        request_fail_with(r, KP_OUTCOME_UNKNOWN, "its client went away before the end: it may have run", NULL); /* for the history alone */
        return;
    }
    request_free(r);
}

void app_watch(struct app *a, const struct app_watch *w, void *user)
{
    a->watch = w ? *w : (struct app_watch){ .changed = NULL };
    a->watch_user = user;
}

struct mr *app_moonraker(struct app *a)
{
    return state_moonraker(a->state);
}

const char *app_health(struct app *a, size_t *n, bool *ready)
{
    struct kept *k = &a->health;
    *ready = kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY;
    bool second = stop_second_way(a->stop);
    if (!k->text || k->generation != a->generation || a->second_way != second) {
        a->second_way = second;
        keep(a, k, answer_health(a->machine, second));
    }
    *n = k->n;
    return k->text;
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

const struct kp_machine *app_machine(const struct app *a)
{
    return a->machine;
}

struct lane *app_lane(const struct app *a)
{
    return a->lane;
}

void app_listen(struct app *a, const struct app_listener *l)
{
    a->listener = l ? *l : (struct app_listener){ .user = NULL };
}

struct app *app_new(struct loop *l, const struct kp_config *c, struct metrics *metrics)
{
    static const struct state_events ev = { on_changed, on_pushed, on_console, on_notice };
    struct mr_config mr = { .socket = kp_config_str(c, "api", "moonraker_socket"), .host = kp_config_str(c, "api", "moonraker_host"),
                            .port = (int)kp_config_num(c, "api", "moonraker_port"), .api_key = kp_config_str(c, "api", "moonraker_api_key"), .metrics = metrics };
    struct app *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->loop = l, a->config = c, a->metrics = metrics;
    struct events_source source = { time_now, queue_now, a };
    if ((a->machine = kp_machine_new(c)) && (a->events = events_new(l, a->machine, &source)) && (a->state = state_new(l, a->machine, &mr, &ev, a)) &&
        (a->lane = lane_new(l, state_moonraker(a->state), a->machine)) && (a->stop = stop_new(l, state_moonraker(a->state), c, on_stopped, a)) &&
        (a->queue = queue_api_new(l, a, a->machine, a->lane, c, on_jobs, a)) && (a->monitor = monitor_new(l, a->machine, on_reaction, a))) {
        a->jobs = queue_api_jobs(a->queue), a->history = queue_api_history(a->queue);
        kp_safety_listen(a->machine, on_safety, a);
        metrics_room(metrics, fill_metrics, a);
        return a;
    }
    app_free(a);
    return NULL;
}

static void kept_free(struct kept *k, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(k[i].text);
}

void app_free(struct app *a)
{
    if (!a)
        return;
    if (a->machine)
        kp_safety_listen(a->machine, NULL, NULL);
    for (struct app_request *r = a->waiting; r; r = r->next)
        r->done = NULL;
    monitor_free(a->monitor);
    queue_api_free(a->queue);
    stop_free(a->stop);
    lane_free(a->lane);
    state_free(a->state);
    events_free(a->events);
    while (a->waiting)
        request_free(a->waiting);
    kept_free(a->pins, KP_PINS_MAX);
    kept_free(a->sensors, KP_SENSORS_MAX);
    kept_free(&a->all_pins, 1);
    kept_free(&a->all_sensors, 1);
    kept_free(&a->position, 1);
    kept_free(&a->status, 1);
    kept_free(&a->health, 1);
    kp_machine_free(a->machine);
    free(a);
}
