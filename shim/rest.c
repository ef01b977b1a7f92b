/* SPDX-License-Identifier: GPL-3.0-or-later */
/* REST for app: path and method to a registry row, query and body to arguments, answers to the envelope of API v1. Decides nothing about the machine. */
#include "rest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "answer.h"
#include "app.h"
#include "http.h"
#include "json.h"

#define BODY_MAX (1u << 20) /* bytes of a request's body; a longer one is PAYLOAD_TOO_LARGE */
#define CONNECTIONS_MAX 512u
#define IDLE_TIMEOUT_S 120u
#define BASE "/api/v1/"

struct rest { struct app *app; struct http *http; };

/* One request on its way through app. */
struct call { struct http_request *http; const struct kp_command *command; struct app_request *waits; };

/* ---- answers ---- */

static void send_json(struct http_request *h, const char *id, int status, char *body, size_t n, const char *allow)
{
    const char *given = http_header(h, "X-Request-Id");
    char echo[129] = "";
    for (size_t i = 0; given && given[i] && i < sizeof echo - 1; i++)
        echo[i] = given[i] < 0x21 || given[i] > 0x7e ? '_' : given[i];
    struct http_header headers[] = { { "X-Request-Id", echo[0] ? echo : id }, { allow ? "Allow" : NULL, allow }, { NULL, NULL } };
    http_reply(h, body ? status : 500, "application/json", body, n, headers);
}

static void send_faults(struct http_request *h, const char *command, const struct kp_faults *f, json_t *details, const char *allow)
{
    char id[ANSWER_ID];
    size_t n;
    answer_id(id);
    char *body = answer_error(command, id, f, details, &n);
    send_json(h, id, kp_err_status(kp_faults_code(f)), body, n, allow);
}

static void send_error(struct http_request *h, const char *command, enum kp_err code, const char *message, const char *allow)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    kp_error_set(&e, code, NULL, "%s", message);
    kp_faults_add(&f, &e);
    send_faults(h, command, &f, NULL, allow);
}

static void send_answer(struct http_request *h, const char *command, const struct app_answer *a)
{
    char id[ANSWER_ID];
    size_t n = 0;
    if (a->faults->count) {
        send_faults(h, command, a->faults, json_incref(a->details), NULL);
        return;
    }
    answer_id(id);
    char *body = answer_success(command, id, a->data, a->n, &n);
    send_json(h, id, 200, body, n, NULL);
}

static void on_done(void *user, const struct app_answer *answer)
{
    struct call *c = user;
    send_answer(c->http, c->command->name, answer);
    c->http = NULL;
    if (c->waits)
        free(c); /* else call_run still holds it */
}

/* ---- requests ---- */

struct args { struct kp_arg arg[KP_ARGS_MAX]; struct json_list list[KP_ARGS_MAX]; size_t n; bool many; };

static void on_arg(struct args *g, const char *name, struct kp_value v, bool text)
{
    if (g->n == KP_ARGS_MAX)
        g->many = true;
    else
        g->arg[g->n++] = (struct kp_arg){ kp_str_of(name), v, text };
}

static bool on_query(void *user, const char *name, const char *value)
{
    on_arg(user, name, (struct kp_value){ .kind = KP_STR, .str = kp_str_of(value ? value : "") }, true);
    return true;
}

/* The body's members as arguments. NULL with a message when it is no JSON object; "" body: no arguments. Gives what the arguments borrow from. */
static json_t *body_args(struct http_request *h, struct args *g, const char **wrong)
{
    size_t n;
    const char *body = http_body(h, &n), *key;
    json_t *v;
    *wrong = NULL;
    if (!n)
        return json_object();
    json_t *j = json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(j)) {
        *wrong = j ? "the body is not a JSON object" : "the body is not valid JSON (numbers must be finite, names must not repeat)";
        json_decref(j);
        return NULL;
    }
    json_object_foreach(j, key, v)
        on_arg(g, key, json_value(v, &g->list[g->n < KP_ARGS_MAX ? g->n : 0]), false);
    return j;
}

/* Runs a checked call; it is kept until its answer when that does not come at once. */
static void call_run(struct rest *s, struct http_request *h, const struct kp_call *checked)
{
    struct call *c = calloc(1, sizeof *c);
    if (!c) {
        send_error(h, checked->command->name, KP_INTERNAL_ERROR, "out of memory", NULL);
        return;
    }
    c->http = h, c->command = checked->command;
    *http_slot(h) = c;
    struct app_request *waits = app_execute(s->app, checked, on_done, c);
    if (waits)
        c->waits = waits;
    else
        free(c);
}

static void on_gone(void *user, struct http_request *h)
{
    struct call *c = *http_slot(h);
    (void)user;
    if (!c)
        return;
    app_leave(c->waits);
    free(c);
}

/* A page of another origin must not move the machine; a form cannot send JSON. */
static const char *refused_post(struct http_request *h, enum kp_err *code)
{
    const char *type = http_header(h, "Content-Type"), *origin = http_header(h, "Origin"), *host = http_header(h, "Host");
    size_t n;
    http_body(h, &n);
    *code = KP_PERMISSION_DENIED;
    if (origin && (!host || strncmp(origin, "http", 4) || !strstr(origin, "://") || strcmp(strstr(origin, "://") + 3, host)))
        return "requests from pages of another origin are refused";
    *code = KP_UNSUPPORTED_MEDIA_TYPE;
    if ((n || type) && (!type || strncasecmp(type, "application/json", 16) || (type[16] && type[16] != ';' && type[16] != ' ')))
        return "the body must be application/json";
    return NULL;
}

static enum kp_method method_of(const char *name)
{
    static const struct { const char *name; enum kp_method method; } rows[] = { { "GET", KP_GET }, { "POST", KP_POST }, { "DELETE", KP_DELETE }, { "PUT", KP_PUT } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].name, name))
            return rows[i].method;
    return (enum kp_method)0;
}

static void wrong_method(struct http_request *h, unsigned allowed)
{
    char allow[32] = "";
    snprintf(allow, sizeof allow, "%s%s%s%s", allowed & KP_GET ? ", GET" : "", allowed & KP_POST ? ", POST" : "", allowed & KP_DELETE ? ", DELETE" : "",
             allowed & KP_PUT ? ", PUT" : "");
    send_error(h, "unknown", KP_METHOD_NOT_ALLOWED, "this path does not know that method", allow + 2);
}

static void call_command(struct rest *s, struct http_request *h, const struct kp_command *c)
{
    struct args g;
    struct kp_call call;
    struct kp_faults f = { .count = 0 };
    const char *wrong = NULL;
    enum kp_err code;
    json_t *body = NULL;
    g.n = 0, g.many = false;
    if (c->method != KP_GET) {
        if (http_body_too_large(h)) {
            send_error(h, c->name, KP_PAYLOAD_TOO_LARGE, "the body may have at most 1048576 bytes", NULL);
            return;
        }
        if ((wrong = refused_post(h, &code))) {
            send_error(h, c->name, code, wrong, NULL);
            return;
        }
        body = body_args(h, &g, &wrong);
    }
    http_query(h, on_query, &g);
    if (!wrong && g.many)
        wrong = "too many parameters";
    if (wrong)
        send_error(h, c->name, KP_INVALID_REQUEST, wrong, NULL);
    else if (app_check(s->app, c, g.arg, g.n, &call, &f) != KP_OK) {
        send_faults(h, c->name, &f, NULL, NULL);
    } else {
        call_run(s, h, &call);
    }
    json_decref(body);
}

/* GET /health: the process serves. GET /ready: Klipper can be used. */
static void plain(struct rest *s, struct http_request *h, bool wants_ready)
{
    size_t n;
    bool ready;
    const char *text = app_health(s->app, &n, &ready);
    char *body = text ? malloc(n) : NULL;
    if (strcmp(http_method(h), "GET")) {
        free(body);
        wrong_method(h, KP_GET);
        return;
    }
    if (body)
        memcpy(body, text, n);
    http_reply(h, !body ? 500 : wants_ready && !ready ? 503 : 200, "application/json", body, body ? n : 0, NULL);
}

static void on_request(void *user, struct http_request *h)
{
    struct rest *s = user;
    const char *path = http_path(h);
    unsigned allowed = 0;
    if (!strcmp(path, "/health") || !strcmp(path, "/ready")) {
        plain(s, h, path[1] == 'r');
        return;
    }
    if (!strncmp(path, BASE, sizeof BASE - 1)) {
        const struct kp_command *c = kp_command_by_route(method_of(http_method(h)), kp_str_of(path + sizeof BASE - 1), &allowed);
        if (c) {
            call_command(s, h, c);
            return;
        }
        if (allowed) {
            wrong_method(h, allowed);
            return;
        }
    }
    send_error(h, "unknown", KP_NOT_FOUND, "no such path", NULL);
}

/* ---- for main ---- */

struct rest *rest_new(struct loop *l, struct app *a)
{
    static const struct http_limits limits = { BODY_MAX, CONNECTIONS_MAX, IDLE_TIMEOUT_S };
    struct rest *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->app = a;
    if (!(s->http = http_new(l, &limits, on_request, on_gone, s))) {
        free(s);
        return NULL;
    }
    return s;
}

void rest_free(struct rest *s)
{
    if (!s)
        return;
    http_free(s->http);
    free(s);
}

void rest_adopt(void *user, int fd, const struct sockaddr *peer, socklen_t len)
{
    struct rest *s = user;
    http_adopt(s->http, fd, peer, len);
}
