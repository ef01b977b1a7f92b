/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Answers of REST: headers and envelope, sent, counted and logged. Invariant: each request is answered here, and only here. */
#include "rest_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "log.h"
#include "loop.h"
#include "metrics.h"

#define HEADERS_MAX 18     /* of an answer, with the end */
#define NUMBER_TEXT 16     /* bytes of a number in a header */

int64_t rest_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

const char *rest_name(const struct call *c)
{
    return c->command ? c->command->name : "unknown";
}

static void set(struct http_header **h, const char *name, const char *value)
{
    *(*h)++ = (struct http_header){ name, value };
}

static void set_cors(const struct call *c, const struct reply *r, struct http_header **h)
{
    if (cors_varies(guard_cors(c->rest->guard)))
        set(h, "Vary", "Origin");
    if (c->from == CORS_LISTED) {
        set(h, "Access-Control-Allow-Origin", http_header(c->http, "Origin"));
        set(h, "Access-Control-Expose-Headers", CORS_EXPOSED);
    }
    if (c->from == CORS_LISTED && r->preflight) {
        set(h, "Access-Control-Allow-Methods", r->preflight);
        set(h, "Access-Control-Allow-Headers", CORS_HEADERS);
        set(h, "Access-Control-Max-Age", CORS_MAX_AGE);
    }
}

/* Who asks for /ready again and again is told there: nothing of it is news for the log. */
static void note(const struct call *c, enum kp_err code, int status)
{
    int64_t us = rest_now_us() - c->began_us;
    bool plain = c->command && c->command->flags & KP_PLAIN;
    enum log_level level = plain ? LOG_DEBUG : status >= 500 ? LOG_WARNING : status >= 400 && c->command && c->command->method != KP_GET ? LOG_INFO : LOG_DEBUG;
    app_count(c->rest->app, c->command, code);
    metrics_took(c->rest->metrics, c->command, us);
    if (log_wants(level))
        log_request(level, "rest", c->request_id, "command=%s command_id=%s key=%s code=%s status=%d us=%lld", rest_name(c), c->id,
                    auth_name(guard_auth(c->rest->guard), &c->who), kp_err_name(code), status, (long long)us);
}

/* How often one may ask, where that is limited. The texts live as long as the headers. */
struct limit_texts { char limit[NUMBER_TEXT], remaining[NUMBER_TEXT], reset[NUMBER_TEXT], retry[NUMBER_TEXT]; };

static void set_limits(const struct call *c, int status, struct limit_texts *t, struct http_header **h)
{
    if (c->limit.limit) {
        snprintf(t->limit, NUMBER_TEXT, "%d", c->limit.limit);
        snprintf(t->remaining, NUMBER_TEXT, "%d", c->limit.remaining);
        snprintf(t->reset, NUMBER_TEXT, "%d", c->limit.reset_s);
        set(h, "X-RateLimit-Limit", t->limit);
        set(h, "X-RateLimit-Remaining", t->remaining);
        set(h, "X-RateLimit-Reset", t->reset);
    }
    if (status != 429)
        return;
    snprintf(t->retry, NUMBER_TEXT, "%d", c->retry_s > 1 ? c->retry_s : 1); /* whole seconds, and not none */
    set(h, "Retry-After", t->retry);
    set(h, "X-RateLimit-Retry-After", t->retry);
}

/* Sends the answer to the client, when there is one. Takes r->body. */
void rest_reply(struct call *c, const struct reply *r)
{
    struct http_header headers[HEADERS_MAX], *h = headers;
    struct limit_texts limits;
    int status = r->body || r->empty ? r->status : 500;
    if (c->idem)
        rest_settle(c, r);
    note(c, r->body || r->empty ? r->code : KP_INTERNAL_ERROR, status);
    if (!c->http) {
        free(r->body);
        return;
    }
    set(&h, "X-Request-Id", c->request_id);
    if (r->allow)
        set(&h, "Allow", r->allow);
    set_limits(c, status, &limits, &h);
    if (r->upgrade) {
        set(&h, "Upgrade", "websocket");
        set(&h, "Connection", "close");
    }
    if (r->replayed)
        set(&h, "Idempotency-Replayed", "true");
    set_cors(c, r, &h);
    set(&h, NULL, NULL);
    http_reply(c->http, status, r->empty ? NULL : r->type ? r->type : "application/json", r->body, r->n, headers);
    c->http = NULL;
}

void rest_faults(struct call *c, const struct kp_faults *f, const char *allow)
{
    struct reply r = { .status = kp_err_status(kp_faults_code(f)), .code = kp_faults_code(f), .allow = allow };
    r.body = answer_error(rest_name(c), c->id, f, NULL, &r.n);
    rest_reply(c, &r);
}

void rest_error(struct call *c, enum kp_err code, const char *field, const char *message, const char *allow)
{
    struct kp_faults f;
    struct kp_error e;
    kp_faults_init(&f);
    kp_error_set(&e, code, field, "%s", message);
    kp_faults_add(&f, &e);
    rest_faults(c, &f, allow);
}

void rest_call_free(struct call *c)
{
    if (c->at) {
        *c->at = c->next;
        if (c->next)
            c->next->at = c->at;
    }
    loop_timer_free(c->late);
    free(c);
}

void rest_link(struct call **list, struct call *c)
{
    c->next = *list, c->at = list;
    if (c->next)
        c->next->at = &c->next;
    *list = c;
}
