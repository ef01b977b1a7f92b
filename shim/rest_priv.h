/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What rest.c (requests) and rest_answer.c (their answers) share. Nobody else includes it. */
#ifndef REST_PRIV_H
#define REST_PRIV_H

#include <stdbool.h>
#include <stdint.h>

#include "answer.h"
#include "app.h"
#include "guard.h"
#include "http.h"
#include "idem.h"
#include "rest.h"

#define REQUEST_ID_MAX 129 /* bytes with the 0 */

struct rest {
    struct loop *loop;
    struct app *app;
    struct http *http;
    struct openpnp *openpnp; /* NULL: no paths of its */
    struct guard *guard;
    struct idem *idem;
    struct metrics *metrics;
    char urgent[HTTP_URGENT_MAX]; /* how an emergency stop begins */
    char *openapi;          /* the document */
    size_t openapi_n;
    struct answer_pool ids;
    struct call *detached;  /* without a client, kept by their idempotency key */
    struct call *followers; /* wait for another call's answer under the same key */
    struct call *refused;   /* one who may not enter, and is told so late */
};

/* One request on its way. */
struct call {
    struct rest *rest;
    struct http_request *http;           /* NULL: the client left */
    const struct kp_command *command;    /* NULL: no such path or method */
    struct app_request *waits;           /* NULL: nothing of app's */
    struct idem_entry *idem;             /* NULL: no key, or another call's */
    struct idem_entry *follows;          /* another call runs under the same key */
    struct call *next, **at;             /* in detached, followers or refused; at NULL: in none */
    bool inside, ended;                  /* inside app_execute; its answer has come */
    enum cors_origin from;
    struct auth_who who;
    struct limit_state limit;            /* of its rate class; limit 0: none */
    int retry_s;                         /* of a 429 */
    struct loop_timer *late;             /* in refused */
    struct kp_error why;                 /* of a refusal that comes late */
    int64_t began_us;
    char id[ANSWER_ID];                  /* command_id */
    char request_id[REQUEST_ID_MAX];
};

struct reply {
    int status;
    const char *type;        /* NULL: JSON */
    char *body;              /* from malloc, taken; NULL: out of memory, or empty where `empty` says so */
    size_t n;
    enum kp_err code;
    const char *allow;       /* NULL: none */
    const char *preflight;   /* methods that the path knows; NULL: no preflight */
    bool empty, replayed, upgrade;
    bool untouched;          /* a failure with nothing done */
};

/* Microseconds of CLOCK_MONOTONIC. */
int64_t rest_now_us(void);
/* The command's name, "unknown" without one. */
const char *rest_name(const struct call *c);
/* Sends the answer to the client, when there is one. Takes r->body. */
void rest_reply(struct call *c, const struct reply *r);
/* allow: methods for 405; NULL: none. */
void rest_faults(struct call *c, const struct kp_faults *f, const char *allow);
void rest_error(struct call *c, enum kp_err code, const char *field, const char *message, const char *allow);
void rest_call_free(struct call *c);
void rest_link(struct call **list, struct call *c);
/* Keeps the answer under the call's key, and gives it to all who asked the same meanwhile; in rest.c. */
void rest_settle(struct call *c, const struct reply *r);

#endif
