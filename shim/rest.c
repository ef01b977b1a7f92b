/* SPDX-License-Identifier: GPL-3.0-or-later */
/* REST for app: path and method to a registry row, query and body to arguments, answers to the envelope of API v1. Decides nothing about the machine.
 * Invariant: each request gets one answer, is counted once and logged once. */
#include "rest_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "answer.h"
#include "app.h"
#include "args.h"
#include "guard.h"
#include "idem.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "openapi.h"
#include "openpnp.h"

#define BODY_MAX (1u << 20) /* bytes of a request's body; a longer one is PAYLOAD_TOO_LARGE */
#define CONNECTIONS_MAX 512u
#define WAITING_MAX (CONNECTIONS_MAX - 64u) /* a connection that waits is not closed for a new one: some must always be left, for an emergency stop */
#define IDLE_TIMEOUT_S 120u
#define BASE "/api/v1/"

/* ---- idempotency ---- */

static void replay(struct call *c, const struct idem_entry *e)
{
    struct reply r = { .replayed = true };
    size_t n;
    const char *text = idem_body(e, &n, &r.code);
    if (!text) {
        rest_error(c, KP_OUTCOME_UNKNOWN, NULL, "this request was carried out, but its answer could not be kept", NULL);
        return;
    }
    if ((r.body = malloc(n)))
        memcpy(r.body, text, n), r.n = n;
    r.status = kp_err_status(r.code);
    rest_reply(c, &r);
}

/* Keeps the answer under the call's key, and gives it to all who asked the same meanwhile. A refusal with nothing done is not kept. */
void rest_settle(struct call *c, const struct reply *r)
{
    struct idem_entry *e = c->idem;
    struct call *next;
    c->idem = NULL;
    if (!c->waits && r->code != KP_OK) { /* nobody follows it: it was answered where it came in */
        idem_forget(c->rest->idem, e);
        return;
    }
    idem_answer(c->rest->idem, e, r->code, r->body, r->n, loop_now_ms());
    for (struct call *f = c->rest->followers; f; f = next) {
        next = f->next;
        if (f->follows != e)
            continue;
        replay(f, e);
        rest_call_free(f);
    }
    if (r->code != KP_OK && r->untouched)
        idem_forget(c->rest->idem, e);
}

static bool add_query(void *user, const char *name, const char *value)
{
    idem_print_add(user, name, strlen(name) + 1);
    if (value)
        idem_print_add(user, value, strlen(value) + 1);
    return true;
}

static void print_request(struct call *c, struct idem_print *p)
{
    size_t n;
    const char *body = http_body(c->http, &n);
    idem_print_init(p);
    idem_print_add(p, &c->who.serial, sizeof c->who.serial); /* nobody gets another's answer */
    idem_print_add(p, http_method(c->http), strlen(http_method(c->http)) + 1);
    idem_print_add(p, http_path(c->http), strlen(http_path(c->http)) + 1);
    http_query(c->http, add_query, p);
    idem_print_add(p, body, n);
}

/* True: the call goes on. False: it was answered, or it follows the one that came before it. */
static bool first_under_key(struct call *c)
{
    const char *key = idem_serves(c->command) ? http_header(c->http, "Idempotency-Key") : NULL;
    struct idem_print p;
    struct idem_entry *e = NULL;
    if (!key)
        return true;
    if (!idem_key_ok(key)) {
        rest_error(c, KP_INVALID_REQUEST, "Idempotency-Key", "an Idempotency-Key has 1 to 255 visible ASCII characters", NULL);
        return false;
    }
    print_request(c, &p);
    switch (idem_begin(c->rest->idem, key, &p, loop_now_ms(), &e)) {
    case IDEM_NEW: c->idem = e; return true;
    case IDEM_RUNNING:
        c->follows = e;
        rest_link(&c->rest->followers, c);
        return false;
    case IDEM_ANSWERED: replay(c, e); return false;
    case IDEM_OTHER: rest_error(c, KP_INVALID_REQUEST, "Idempotency-Key", "this Idempotency-Key was used for another request", NULL); return false;
    case IDEM_FULL: rest_error(c, KP_QUEUE_FULL, "Idempotency-Key", "no further Idempotency-Key can be remembered now", NULL); return false;
    }
    return false;
}

/* ---- answers of app ---- */

static void on_done(void *user, const struct app_answer *a)
{
    struct call *c = user;
    struct reply r = { .code = kp_faults_code(a->faults), .untouched = a->untouched };
    r.status = kp_err_status(r.code);
    if (r.code)
        r.body = answer_error(rest_name(c), c->id, a->faults, json_incref(a->details), &r.n);
    else if (a->partial || a->warning)
        r.body = answer_warned(a->partial, rest_name(c), c->id, a->data, a->n, a->warning, &r.n);
    else
        r.body = answer_success(rest_name(c), c->id, a->data, a->n, &r.n);
    rest_reply(c, &r);
    c->ended = true;
    if (!c->inside)
        rest_call_free(c); /* else call_run still holds it */
}

static void on_gone(void *user, struct http_request *h)
{
    struct call *c = *http_slot(h);
    struct rest *s = user;
    if (!c || (s->openpnp && openpnp_gone(s->openpnp, h)))
        return;
    c->http = NULL;
    if (c->idem) { /* the client will ask again, under its key */
        rest_link(&s->detached, c);
        return;
    }
    if (c->waits)
        app_leave(c->waits);
    rest_call_free(c);
}

/* ---- requests ---- */

/* Runs a checked call; it is kept until its answer when that does not come at once. True: it waits. */
static bool call_run(struct call *c, const struct kp_call *checked, const json_t *body)
{
    c->inside = true;
    c->waits = app_execute_how(c->rest->app, checked, &(struct app_how){ .body = body, .id = c->id, .who = &c->who }, on_done, c);
    c->inside = false;
    return !c->ended;
}

/* A page of another origin must not move the machine; a form cannot send JSON. */
static bool may_write(struct call *c)
{
    const char *type = http_header(c->http, "Content-Type");
    size_t n;
    http_body(c->http, &n);
    if (http_body_too_large(c->http))
        rest_error(c, KP_PAYLOAD_TOO_LARGE, NULL, "the body may have at most 1048576 bytes", NULL);
    else if (c->from == CORS_FOREIGN)
        rest_error(c, KP_PERMISSION_DENIED, NULL, "requests from pages of another origin are refused", NULL);
    else if ((n || type) && (!type || strncasecmp(type, "application/json", 16) || (type[16] && type[16] != ';' && type[16] != ' ')))
        rest_error(c, KP_UNSUPPORTED_MEDIA_TYPE, NULL, "the body must be application/json", NULL);
    else
        return true;
    return false;
}

static enum kp_method method_of(const char *name)
{
    static const struct { const char *name; enum kp_method method; } rows[] = {
        { "GET", KP_GET }, { "POST", KP_POST }, { "DELETE", KP_DELETE }, { "PUT", KP_PUT },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name))
            return rows[i].method;
    return (enum kp_method)0;
}

static void print_methods(char out[CORS_METHODS_MAX], unsigned allowed)
{
    snprintf(out, CORS_METHODS_MAX, "%s%s%s%s", allowed & KP_GET ? ", GET" : "", allowed & KP_POST ? ", POST" : "", allowed & KP_DELETE ? ", DELETE" : "",
             allowed & KP_PUT ? ", PUT" : "");
    memmove(out, out + 2, strlen(out + 2) + 1);
}

/* Reads and checks the arguments, then runs the command. True: it waits. */
static bool run_command(struct call *c, const char *path)
{
    struct args g;
    struct kp_call call;
    struct kp_faults f;
    const char *wrong = NULL, *text;
    size_t n;
    json_t *body = NULL;
    bool waits = false;
    args_init(&g);
    kp_faults_init(&f);
    text = http_body(c->http, &n);
    if (c->command->method != KP_GET)
        body = args_body(&g, text, n, &wrong);
    http_query(c->http, args_query, &g);
    args_path(&g, c->command, path);
    if (!wrong && g.many)
        wrong = "too many parameters";
    if (wrong) {
        struct kp_error e;
        kp_error_set(&e, KP_INVALID_REQUEST, NULL, "%s", wrong);
        kp_faults_add(&f, &e);
    }
    if (!wrong && app_check(c->rest->app, c->command, g.arg, g.n, &call, &f) == KP_OK)
        waits = call_run(c, &call, body);
    else
        rest_faults(c, &f, NULL);
    json_decref(body);
    return waits;
}

/* ---- answers without an envelope ---- */

static char *copy(const char *text, size_t n)
{
    char *out = text ? malloc(n) : NULL;
    return out ? memcpy(out, text, n) : NULL;
}

static void send_metrics(struct call *c)
{
    struct reply r = { .status = 200, .type = "text/plain; version=0.0.4; charset=utf-8" };
    r.body = metrics_text(c->rest->metrics, &r.n);
    rest_reply(c, &r);
}

static void send_openapi(struct call *c)
{
    struct rest *s = c->rest;
    struct reply r = { .status = 200 };
    r.body = copy(s->openapi, s->openapi_n), r.n = s->openapi_n;
    rest_reply(c, &r);
}

static void send_health(struct call *c)
{
    struct reply r = { .status = 200 };
    bool ready;
    const char *text = app_health(c->rest->app, &r.n, &ready);
    r.body = copy(text, r.n);
    if (c->command->id == KP_READY && !ready)
        r.status = 503, r.code = KP_KLIPPY_DISCONNECTED;
    rest_reply(c, &r);
}

static void run_plain(struct call *c)
{
    switch (c->command->id) {
    case KP_METRICS: send_metrics(c); break;
    case KP_OPENAPI: send_openapi(c); break;
    default: send_health(c); break;
    }
}

/* ---- from http ---- */

/* The row of a path, and what of it counts as the row's path. */
static const struct kp_command *route(struct http_request *h, const char **path, unsigned *allowed)
{
    const char *whole = http_path(h);
    bool inside = !strncmp(whole, BASE, sizeof BASE - 1);
    *path = inside ? whole + sizeof BASE - 1 : whole + (*whole == '/');
    return (inside ? kp_command_by_route : kp_command_outside)(method_of(http_method(h)), kp_str_of(*path), allowed);
}

static struct call *call_new(struct rest *s, struct http_request *h, const struct kp_command *command)
{
    const char *given = http_header(h, "X-Request-Id");
    struct call *c = malloc(sizeof *c);
    size_t n = 0;
    if (!c)
        return NULL;
    c->rest = s, c->http = h, c->command = command, c->waits = NULL, c->idem = NULL, c->follows = NULL, c->next = NULL, c->at = NULL;
    c->inside = c->ended = false;
    c->who = (struct auth_who){ KP_PUBLIC, 0 }, c->limit.limit = 0, c->retry_s = 0, c->late = NULL;
    c->from = cors_judge(guard_cors(s->guard), http_header(h, "Origin"), http_header(h, "Host"));
    c->began_us = rest_now_us();
    answer_id(&s->ids, c->id);
    for (; given && given[n] && n < sizeof c->request_id - 1; n++)
        c->request_id[n] = given[n] < 0x21 || given[n] > 0x7e ? '_' : given[n];
    c->request_id[n] = 0;
    if (!n)
        memcpy(c->request_id, c->id, sizeof c->id);
    return c;
}

/* A browser asks whether a page may ask. */
static bool is_preflight(struct http_request *h)
{
    return !strcmp(http_method(h), "OPTIONS") && http_header(h, "Origin") && http_header(h, "Access-Control-Request-Method");
}

/* No row: a preflight, a wrong method or a wrong path. */
static void without_row(struct call *c, unsigned allowed)
{
    char methods[CORS_METHODS_MAX];
    print_methods(methods, allowed);
    if (!allowed)
        rest_error(c, KP_NOT_FOUND, NULL, "no such path", NULL);
    else if (!is_preflight(c->http))
        rest_error(c, KP_METHOD_NOT_ALLOWED, NULL, "this path does not know that method", methods);
    else if (c->from == CORS_FOREIGN)
        rest_error(c, KP_PERMISSION_DENIED, NULL, "requests from pages of another origin are refused", NULL);
    else
        rest_reply(c, &(struct reply){ .status = 204, .empty = true, .preflight = methods });
}

static void upgrade_required(struct call *c)
{
    struct reply r = { .status = 426, .code = KP_INVALID_REQUEST, .upgrade = true };
    struct kp_faults f;
    struct kp_error e;
    kp_faults_init(&f);
    kp_error_set(&e, KP_INVALID_REQUEST, NULL, "a WebSocket needs a connection of its own");
    kp_faults_add(&f, &e);
    r.body = answer_error(rest_name(c), c->id, &f, NULL, &r.n);
    rest_reply(c, &r);
}

/* ---- who asks ---- */

static void on_late(void *user)
{
    struct call *c = user;
    struct kp_faults f = { .count = 0 };
    kp_faults_add(&f, &c->why);
    rest_faults(c, &f, NULL);
    rest_call_free(c);
}

/* Whether one with this key may run the row now. False: it was answered, or will be when c->late is over. */
static bool may_enter(struct call *c)
{
    struct guard *g = c->rest->guard;
    struct auth_refusal no = { .late_ms = 0 };
    struct kp_faults f = { .count = 0 };
    const struct sockaddr *peer = http_peer(c->http);
    bool public = c->command->role == KP_PUBLIC;
    if ((public || auth_enter(guard_auth(g), http_header(c->http, "X-API-Key"), peer, &c->who, &no) == KP_OK) &&
        guard_admit(g, &c->who, peer, c->command, &c->limit, &no.error) == KP_OK)
        return true;
    c->retry_s = no.retry_s ? no.retry_s : (int)((c->limit.wait_ms + 999) / 1000);
    if (no.late_ms && (c->late = loop_timer_new(c->rest->loop, on_late, c))) {
        c->why = no.error;
        rest_link(&c->rest->refused, c);
        loop_timer_set(c->late, no.late_ms);
        return false;
    }
    kp_faults_add(&f, &no.error);
    rest_faults(c, &f, NULL);
    return false;
}

/* A page that reached this machine under a name of its own. */
static bool host_is_ours(struct call *c)
{
    struct kp_error e;
    struct kp_faults f = { .count = 0 };
    if (guard_host(c->rest->guard, http_header(c->http, "Host"), &e) == KP_OK)
        return true;
    kp_faults_add(&f, &e);
    rest_faults(c, &f, NULL);
    return false;
}

static void on_request(void *user, struct http_request *h)
{
    struct rest *s = user;
    struct kp_error e;
    bool full = http_waiting(s->http) >= WAITING_MAX;
    if (s->openpnp && !strncmp(http_path(h), OPENPNP_BASE, sizeof OPENPNP_BASE - 1) && guard_host(s->guard, http_header(h, "Host"), &e) == KP_OK) {
        if (full)
            http_reply(h, kp_err_status(KP_QUEUE_FULL), NULL, NULL, 0, NULL);
        else
            openpnp_request(s->openpnp, h);
        return;
    }
    unsigned allowed = 0;
    const char *path;
    const struct kp_command *row = route(h, &path, &allowed);
    struct call *c = call_new(s, h, row);
    bool waits = false;
    if (!c) {
        http_reply(h, 500, NULL, NULL, 0, NULL);
        return;
    }
    if (!host_is_ours(c))
        ;
    else if (!strcmp(http_path(h), "/ws/v1")) /* as a later request of a connection: the gate looks at the first only */
        upgrade_required(c);
    else if (!row)
        without_row(c, allowed);
    else if (full && !(row->flags & (KP_URGENT | KP_PLAIN)))
        rest_error(c, KP_QUEUE_FULL, NULL, "too many requests wait for their answer", NULL);
    else if (!may_enter(c))
        waits = c->late != NULL;
    else if (row->flags & KP_PLAIN)
        run_plain(c);
    else if ((row->method == KP_GET || may_write(c)) && first_under_key(c))
        waits = run_command(c, path);
    if (waits || c->follows)
        *http_slot(h) = c;
    else
        rest_call_free(c);
}

/* ---- for main ---- */

static void fill_metrics(const void *user, struct metrics_now *now)
{
    const struct rest *s = user;
    now->http_connections = http_connections(s->http);
    now->idempotency_keys = idem_count(s->idem);
}

struct rest *rest_new(struct loop *l, struct app *a, struct guard *g, struct metrics *m)
{
    struct rest *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    const struct http_limits limits = { BODY_MAX, CONNECTIONS_MAX, s->urgent, IDLE_TIMEOUT_S };
    snprintf(s->urgent, sizeof s->urgent, "POST " BASE "%s", kp_command_by_name(kp_str_of("emergency_stop"))->path);
    s->loop = l, s->app = a, s->guard = g, s->metrics = m;
    if ((s->idem = idem_new()) && (s->openapi = openapi_text(&s->openapi_n)) && (s->http = http_new(l, &limits, on_request, on_gone, s))) {
        metrics_room(m, fill_metrics, s);
        return s;
    }
    rest_free(s);
    return NULL;
}

void rest_free(struct rest *s)
{
    if (!s)
        return;
    http_free(s->http);
    while (s->detached) {
        app_leave(s->detached->waits);
        rest_call_free(s->detached);
    }
    idem_free(s->idem);
    free(s->openapi);
    free(s);
}

void rest_openpnp(struct rest *s, struct openpnp *o)
{
    s->openpnp = o;
}

void rest_adopt(void *user, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct rest *s = user;
    http_adopt(s->http, fd, peer, len);
}
