/* SPDX-License-Identifier: GPL-3.0-or-later */
/* JSON-RPC 2.0 of /ws/v1: one session's requests become checked calls of app, answers become messages. Knows nothing of sockets. */
#ifndef WS_RPC_H
#define WS_RPC_H

#include <stdbool.h>
#include <stddef.h>

struct answer_pool;
struct app;
struct auth_who;
struct events_subscriber;
struct guard;
struct sockaddr;
struct ws_call;

#define WS_CALLS_MAX 64  /* commands of one session that wait for their answer; one more is QUEUE_FULL, an emergency stop excepted */
#define WS_BATCH_MAX 64  /* requests in one batch */
#define WS_ID_MAX 128    /* bytes of a request's id where it is a string */

/* Sends one message, 0-ended. Never ends the session before it returns. */
typedef void ws_send_fn(void *user, const char *text, size_t n);

/* One session's part. The caller's storage. */
struct ws_rpc {
    struct app *app;
    struct answer_pool *ids;
    struct events_subscriber *subscriber;
    struct guard *guard;
    const struct auth_who *who;  /* whose session it is; his role may change */
    const struct sockaddr *peer;
    ws_send_fn *send;
    void *user;
    struct ws_call *calls; /* that wait */
    size_t count;
};

/* Begins with all of `with` but what waits. Borrows what it points at for the session's life. */
void ws_rpc_init(struct ws_rpc *r, const struct ws_rpc *with);
/* The session is over: what waits is left as a REST client leaves it (app_leave), and nothing is sent any more. Again is harmless. */
void ws_rpc_fini(struct ws_rpc *r);
/* notify_connected, the first message of every session. */
void ws_rpc_hello(struct ws_rpc *r, const char *session_id);
/* One whole message of the client's. */
void ws_rpc_message(struct ws_rpc *r, const char *text, size_t n);

#endif
