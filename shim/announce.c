/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The way between the shim and Moonraker's component klipperplace, for main. Invariant: a request of the component is answered exactly once, on the connection
 * that it came by or never. */
#include "announce.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <kp.h>

#include "answer.h"
#include "app.h"
#include "json.h"
#include "log.h"
#include "loop.h"
#include "moonraker.h"

#define CALL_MS 5000            /* deadline of what is told to the component */
#define NO_METHOD (-32601)      /* JSON-RPC: Moonraker has no component klipperplace */
#define RPC(name) "api.klipperplace." name

struct request {
    struct request *next, **at; /* in announce's list */
    struct announce *announce;
    const struct kp_command *command;
    struct app_request *waits;  /* NULL while app_execute has not returned */
    json_int_t id;              /* the component's number */
    bool told;
};

struct announce {
    struct loop *loop;
    struct app *app;
    struct app_watch watch;
    struct mr *mr;
    struct loop_timer *beat;
    uint64_t call;              /* the heartbeat in flight; 0: none */
    bool absent;                /* this Moonraker has no such component */
    bool here;                  /* the last heartbeat was taken */
    char level[KP_NAME_MAX];    /* of safety as last told; empty: not yet */
    struct request *waiting;
    size_t count;
    struct answer_pool ids;
};

/* ---- what is told ---- */

/* Takes params. */
static void tell(struct announce *n, const char *method, json_t *params)
{
    if (params)
        mr_call(n->mr, method, params, CALL_MS, NULL, NULL);
}

/* Takes event. */
static void tell_event(struct announce *n, json_t *event)
{
    if (n->here)
        tell(n, RPC("event"), event);
    else
        json_decref(event);
}

static void tell_level(struct announce *n, const json_t *safety)
{
    const char *level = json_string_value(json_object_get(safety, "level"));
    bool stopped = json_is_true(json_object_get(safety, "emergency_stop_active"));
    if (!level || !strcmp(level, n->level) || strlen(level) >= sizeof n->level)
        return;
    if (n->level[0])
        tell_event(n, json_pack("{s:s,s:s,s:s}", "what", "safety", "level", level, "message", stopped ? "emergency stop" : "the level changed"));
    strcpy(n->level, level);
}

static void on_beat_answer(void *user, const struct mr_reply *r)
{
    struct announce *n = user;
    bool was = n->here;
    n->call = 0;
    n->here = r->outcome == MR_OK;
    n->absent = r->outcome == MR_ERROR && r->code == NO_METHOD;
    if (n->here != was)
        log_line(LOG_INFO, "announce", "component=%s", n->here ? "here" : "gone");
    if (!n->absent)
        loop_timer_set(n->beat, ANNOUNCE_MS);
}

/* The state goes with the heartbeat: what the component cannot know by itself. */
static void on_status(void *user, const struct app_answer *a)
{
    struct announce *n = user;
    json_t *status = a->faults->count ? NULL : json_loadb(a->data, a->n, 0, NULL), *params;
    json_t *queue = json_object_get(status, "queue"), *safety = json_object_get(status, "safety");
    params = json_pack("{s:s,s:O?,s:O?}", "version", kp_version(), "queue", queue, "safety", safety);
    if (params)
        n->call = mr_call(n->mr, RPC("announce"), params, CALL_MS, on_beat_answer, n);
    if (!n->call)
        loop_timer_set(n->beat, ANNOUNCE_MS);
    tell_level(n, safety);
    json_decref(status);
}

static void on_beat(void *user)
{
    struct announce *n = user;
    struct kp_call call;
    struct kp_faults f = { .count = 0 };
    const struct kp_command *c = kp_command_by_name(kp_str_of("get_status"));
    if (n->call || !mr_connected(n->mr) || app_check(n->app, c, NULL, 0, &call, &f) != KP_OK)
        return;
    app_execute(n->app, &call, on_status, n); /* answered before it returns: it reads the mirror */
}

/* ---- requests of the component ---- */

static struct request *request_new(struct announce *n, const struct kp_command *c, json_int_t id)
{
    struct request *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    *r = (struct request){ .announce = n, .command = c, .id = id, .next = n->waiting, .at = &n->waiting };
    if (r->next)
        r->next->at = &r->next;
    n->waiting = r;
    n->count++;
    return r;
}

static void request_free(struct request *r)
{
    *r->at = r->next;
    if (r->next)
        r->next->at = r->at;
    r->announce->count--;
    free(r);
}

/* Takes body, from malloc. */
static void tell_answer(struct announce *n, json_int_t id, char *body, size_t size, enum kp_err code)
{
    json_t *envelope = body ? json_loadb(body, size, 0, NULL) : NULL;
    if (envelope)
        json_object_set_new(envelope, "http_status", json_integer(kp_err_status(code)));
    tell(n, RPC("answer"), envelope ? json_pack("{s:I,s:o}", "id", id, "answer", envelope) : NULL);
    free(body);
}

static void tell_faults(struct announce *n, json_int_t id, const char *command, const struct kp_faults *f, json_t *details)
{
    char uuid[ANSWER_ID];
    size_t size;
    answer_id(&n->ids, uuid);
    char *body = answer_error(command, uuid, f, details, &size);
    tell_answer(n, id, body, size, kp_faults_code(f));
}

static void tell_error(struct announce *n, json_int_t id, const char *command, enum kp_err code, const char *message)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    kp_error_set(&e, code, NULL, "%s", message);
    kp_faults_add(&f, &e);
    tell_faults(n, id, command, &f, NULL);
}

static void on_done(void *user, const struct app_answer *a)
{
    struct request *r = user;
    char uuid[ANSWER_ID];
    size_t size;
    r->told = true;
    if (a->faults->count) {
        tell_faults(r->announce, r->id, r->command->name, a->faults, json_incref(a->details));
    } else {
        answer_id(&r->announce->ids, uuid);
        char *body = answer_success(r->command->name, uuid, a->data, a->n, &size);
        tell_answer(r->announce, r->id, body, size, KP_OK);
    }
    if (r->waits)
        request_free(r); /* else run still holds it */
}

static void run(struct announce *n, json_int_t id, const struct kp_command *c, json_t *params)
{
    struct kp_arg args[KP_ARGS_MAX];
    struct json_list lists[KP_ARGS_MAX];
    struct kp_faults f = { .count = 0 };
    struct kp_call call;
    size_t count = 0;
    const char *name;
    json_t *v;
    if (json_object_size(params) > KP_ARGS_MAX || n->count >= ANNOUNCE_CALLS_MAX) {
        tell_error(n, id, c->name, n->count >= ANNOUNCE_CALLS_MAX ? KP_QUEUE_FULL : KP_INVALID_REQUEST, "too many parameters, or too many requests wait");
        return;
    }
    json_object_foreach(params, name, v) {
        args[count] = (struct kp_arg){ kp_str_of(name), json_value(v, &lists[count]), false };
        count++;
    }
    if (app_check(n->app, c, args, count, &call, &f) != KP_OK) {
        tell_faults(n, id, c->name, &f, NULL);
        return;
    }
    struct request *r = request_new(n, c, id);
    if (!r) {
        tell_error(n, id, c->name, KP_INTERNAL_ERROR, "out of memory");
        return;
    }
    struct app_request *waits = app_execute(n->app, &call, on_done, r);
    if (r->told)
        request_free(r);
    else
        r->waits = waits;
}

/* ---- from app ---- */

static void on_notice(void *user, const char *method, json_t *params)
{
    struct announce *n = user;
    json_t *asked = json_array_get(params, 0);
    const char *name = json_string_value(json_object_get(asked, "command"));
    json_int_t id = json_integer_value(json_object_get(asked, "id"));
    const char *choice = json_string_value(json_object_get(asked, "choice"));
    if (!strcmp(method, "klipperplace_answer") && choice)
        app_answer(n->app, choice);
    if (strcmp(method, "klipperplace_request") != 0 || id <= 0)
        return;
    const struct kp_command *c = name ? kp_command_by_name(kp_str_of(name)) : NULL;
    if (c && !(c->flags & KP_PLAIN) && (c->strategy == KP_GCODE || c->role <= KP_VIEWER)) /* plain ones have no envelope to send */
        run(n, id, c, json_object_get(asked, "parameters"));
    else
        tell_error(n, id, "unknown", KP_COMMAND_NOT_FOUND, "there is no such command for Moonraker's clients");
}

static void on_asked(void *user, const struct kp_queue_entry *e, const struct kp_error *why)
{
    struct announce *n = user;
    if (e)
        tell_event(n, json_pack("{s:s,s:s,s:s,s:s}", "what", "asked", "queue_id", e->id, "command", e->command, "message", why->message));
    else
        tell_event(n, json_pack("{s:s}", "what", "answered"));
}

static void on_changed(void *user)
{
    struct announce *n = user;
    if (!mr_connected(n->mr)) {
        struct request *next;
        n->call = 0, n->absent = n->here = false;
        loop_timer_cancel(n->beat);
        for (struct request *r = n->waiting; r; r = next) { /* who asked has been told that nobody knows */
            next = r->next;
            app_leave(r->waits);
            request_free(r);
        }
    } else if (!n->absent && !n->call) {
        loop_timer_set(n->beat, 0);
    }
}

static void on_ended(void *user, const struct kp_call *call, const struct kp_faults *f, json_t *data)
{
    struct announce *n = user;
    bool places = call->command->id == KP_PLACE || call->command->id == KP_PICK_AND_PLACE;
    if (!places && call->command->id != KP_PICK)
        return;
    const struct kp_slot *nozzle = kp_call_slot(call, "nozzle");
    if (f->count)
        tell_event(n, json_pack("{s:s,s:s,s:s,s:s}", "what", "failed", "command", call->command->name, "code", kp_err_name(kp_faults_code(f)), "message",
                                f->item[0].message));
    else if (places)
        tell_event(n, json_pack("{s:s,s:s?,s:O?}", "what", "placed", "nozzle", nozzle->set ? nozzle->text : NULL, "position",
                                json_object_get(data, call->command->id == KP_PLACE ? "position" : "place_position")));
}

struct announce *announce_new(struct loop *l, struct app *a)
{
    struct announce *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->loop = l, n->app = a, n->mr = app_moonraker(a);
    n->beat = loop_timer_new(l, on_beat, n);
    if (!n->beat) {
        free(n);
        return NULL;
    }
    n->watch = (struct app_watch){ .changed = on_changed, .notice = on_notice, .ended = on_ended, .asked = on_asked, .user = n };
    app_watch(a, &n->watch);
    return n;
}

void announce_free(struct announce *n)
{
    if (!n)
        return;
    app_unwatch(n->app, &n->watch);
    mr_forget(n->mr, n->call);
    while (n->waiting) {
        app_leave(n->waiting->waits);
        request_free(n->waiting);
    }
    loop_timer_free(n->beat);
    free(n);
}
