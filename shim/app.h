/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The room where a request meets libkp. Owns machine, mirror and lane; knows nothing of the edge that a request came by. */
#ifndef APP_H
#define APP_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stddef.h>

struct app;
struct app_request;
struct auth;
struct auth_who;
struct events;
struct lane;
struct loop;
struct metrics;
struct mr;

/* How a request ended. All borrowed until the callback returns. */
struct app_answer {
    const struct kp_faults *faults; /* count 0: it worked */
    json_t *details;                /* of a failure; NULL: none */
    const char *data;               /* of a success: a JSON object's text */
    size_t n;
    bool partial;                   /* some of a batch worked, some did not */
    bool untouched;                 /* of a failure that came later than the request: nothing at all was done */
    const char *warning;            /* for the answer's warnings; NULL: none */
};
typedef void app_done(void *user, const struct app_answer *answer);

/* Gives an app that connects to Moonraker. Borrows all. NULL when out of memory. */
struct app *app_new(struct loop *l, const struct kp_config *c, struct metrics *metrics, struct auth *auth);
/* Requests that wait get no answer any more. */
void app_free(struct app *a);

/* Checks arguments against a row and the machine (see kp_check). */
enum kp_err app_check(struct app *a, const struct kp_command *c, const struct kp_arg *args, size_t count, struct kp_call *out, struct kp_faults *f);
/* What a request brings beside its call; all of it may be left out. Borrowed until app_execute_how returns. */
struct app_how {
    const json_t *body; /* the JSON object that the arguments came from: commands that hold others are read from it */
    const char *id;     /* the command_id that the answer has: the history has it too */
    bool unrecorded;    /* the caller writes the history itself */
    const struct auth_who *who; /* who asks, where he has entered by a door that knows keys; NULL: he may not manage them */
};
/* Runs a checked call. done comes exactly once; when it comes before this returns, the answer is NULL, else the request that waits. */
struct app_request *app_execute_how(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user);
/* The same with nothing beside the call. */
struct app_request *app_execute(struct app *a, const struct kp_call *call, app_done *done, void *user);
/* The client went away: done will not come. What has begun to move goes on; what has not is dropped. */
void app_leave(struct app_request *r);

/* What subscribers are told. */
struct events *app_events(struct app *a);
/* One that follows along: no request of its own. Functions may be NULL. The caller's storage until app_unwatch. */
struct app_watch {
    void (*pushed)(void *user);  /* the mirror was fed */
    void (*changed)(void *user); /* the connection, or Klipper's state, is another */
    void (*notice)(void *user, const char *method, json_t *params); /* a notification of Moonraker's that the mirror has no use for; params may be NULL */
    /* A command of the lane ended: data of a success, NULL with faults. All borrowed. */
    void (*ended)(void *user, const struct kp_call *call, const struct kp_faults *faults, json_t *data);
    /* A person is asked about a failed entry of the queue; NULL: no longer. Borrowed. */
    void (*asked)(void *user, const struct kp_queue_entry *entry, const struct kp_error *why);
    void *user;
    struct app_watch *next;      /* app's own */
};
/* Klipper's next word is of use in_ms from now: where the extra can be asked, it is then. */
void app_look(struct app *a, int64_t in_ms);
/* Told after app itself. */
void app_watch(struct app *a, struct app_watch *w);
void app_unwatch(struct app *a, struct app_watch *w);
/* For jobs.c, as above; and the answer: "retry", "skip" or "stop". False: that is none, or nobody was asked. */
void app_asked(struct app *a, const struct kp_queue_entry *entry, const struct kp_error *why);
bool app_answer(struct app *a, const char *choice);
struct mr *app_moonraker(struct app *a);

/* What makes coordinates of ours other than the machine's: Klipper has a mesh, skew or twist. False: nothing, out is empty. */
bool app_bent(const struct app *a, char out[KP_TEXT_MAX]);

/* The text of GET /health, borrowed until the next call; *ready: Klipper can be used. */
const char *app_health(struct app *a, size_t *n, bool *ready);

/* An edge has answered; c NULL: no such command. */
void app_count(struct app *a, const struct kp_command *c, enum kp_err code);

/* For the G-code port, which makes scripts of its own from lines: the machine it checks them by, and the lane they go through. */
const struct kp_machine *app_machine(const struct app *a);
struct lane *app_lane(const struct app *a);

#endif
