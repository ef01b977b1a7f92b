/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The client of Moonraker: JSON-RPC over its unix socket or its WebSocket, ids, deadlines, reconnecting for ever. Klipper's own socket speaks the same and
 * is served by a second one. */
#ifndef MOONRAKER_H
#define MOONRAKER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct loop;
struct metrics;
struct mr;

struct mr_config {
    const char *socket;   /* path of Moonraker's unix socket; NULL or "": WebSocket */
    const char *host;     /* else ws://host:port/websocket */
    int port;
    const char *name;     /* in the log, a constant; NULL: "moonraker" */
    const char *api_key;  /* header X-Api-Key; NULL or "": none */
    bool answers;         /* the other side is Moonraker: it answers server.info at any time, and one that does not hangs and is connected anew */
    struct metrics *metrics; /* that counts its calls, borrowed for the life of the client; NULL: none */
};

enum mr_outcome {
    MR_OK,        /* result holds the answer */
    MR_ERROR,     /* Moonraker answered with an error: code and message */
    MR_TIMEOUT,   /* the deadline passed after at least a byte of it was written: it may still be done */
    MR_LOST,      /* the connection broke after it was written, even in part: it may have been done */
    MR_NOT_SENT,  /* not connected, or the connection broke or the deadline passed before a byte of it was written */
    MR_OPEN,      /* not sent: the breaker of its operation is open (circuit.h) */
};

/* Borrowed. failed: on a live connection there was no answer in time, or an error of Moonraker's own; a read may be asked again. */
struct mr_reply { enum mr_outcome outcome; json_t *result; int code; const char *message; bool failed; };
typedef void mr_done(void *user, const struct mr_reply *reply);

struct mr_events {
    void (*up)(void *user);                                          /* connected; nothing has been sent yet */
    void (*down)(void *user, const char *why);                       /* only after an up, and after every waiting call has had its mr_done */
    void (*notify)(void *user, const char *method, json_t *params);  /* params borrowed, may be NULL */
};

#define MR_RETRY_MIN_MS 100      /* reconnect after this, doubling */
#define MR_RETRY_MAX_MS 1000
#define MR_SILENT_MS 1000        /* with nothing heard, or a call that waits without any answer, for so long: is it there? */
#define MR_HANGS_MS 2500         /* no answer to that: the connection is given up. Longer than a slow SD card holds it up, short enough to be back in 5 s */
#define MR_CALLS_MAX 512         /* waiting calls; one more is MR_NOT_SENT */
#define MR_FRAME_MAX (16u << 20) /* bytes of one message from Moonraker; a longer one breaks the connection */

/* Gives a client that connects by itself from the next turn of the loop on. Copies cfg and ev. */
struct mr *mr_new(struct loop *l, const struct mr_config *cfg, const struct mr_events *ev, void *user);
/* Waiting calls get MR_LOST or MR_NOT_SENT. No other callback comes. */
void mr_free(struct mr *m);
bool mr_connected(const struct mr *m);
/* Sends one request, unless its operation's breaker is open. method is a constant of ours, kept. Takes params (may be NULL). timeout_ms 0: no deadline, which
 * only a script of the lane may ask for. done (NULL: nobody asks) comes exactly once, never before mr_call returns, unless mr_forget. Returns an id, or 0 when out of memory: then done never comes. */
uint64_t mr_call(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user);
/* The same, past its breaker, though counted by it: for what has to find out whether the other side is there again. */
uint64_t mr_probe(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user);
/* The same past every breaker, and written before everything that still waits to be written (never inside a message half written). */
uint64_t mr_urgent(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user);
/* Its done will not be called; a late answer is dropped, and a call of which nothing was written is never sent. Unknown ids are ignored. */
void mr_forget(struct mr *m, uint64_t id);
/* A read is asked again because this operation failed: for /metrics. */
void mr_retried(struct mr *m, const char *method);
/* 0 to 1, for kp_breaker_retry_ms. */
double mr_jitter(void);
/* Klipper has become ready on this connection: every breaker closes. */
void mr_back(struct mr *m);
/* Calls written since the start. */
uint64_t mr_calls(const struct mr *m);

#endif
