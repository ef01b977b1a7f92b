/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What app.c (requests and news), app_read.c (reads) and app_stop.c (emergency stop) share. Nobody else includes it. */
#ifndef APP_PRIV_H
#define APP_PRIV_H

#include "answer.h"
#include "app.h"

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
    bool untouched;              /* it fails with nothing done */
};

/* The text of a read, kept until the mirror changes. */
struct kept { char *text; size_t n; uint64_t generation, ours; bool fresh; size_t queue; const char *running; };

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
    struct auth_api *keys;
    struct jobs *jobs;
    struct answer_pool ids;
    struct app_request *waiting;
    uint64_t generation;         /* of what reads are answered from */
    char bent[KP_TEXT_MAX];      /* app_bent as of the kept status */
    struct kept pins[KP_PINS_MAX], sensors[KP_SENSORS_MAX], all_pins, all_sensors, position, status, health;
    struct stop *stop;
    bool reset_went, reset_again; /* while a reset waits: Klipper went since it was told to restart; it was told twice */
    bool second_way;             /* as health last told */
    struct monitor *monitor;
    struct app_watch *watches;   /* that follow along */
};

/* How a request that did not wait ends. Each takes details or data. */
void app_tell_faults(struct app *a, app_done *done, void *user, const struct kp_faults *f, json_t *details);
void app_tell_error(struct app *a, app_done *done, void *user, enum kp_err code, const char *message, json_t *details);
void app_tell_text(struct app *a, app_done *done, void *user, const char *text, size_t n);
void app_tell_data(struct app *a, app_done *done, void *user, json_t *data);
struct answer_time app_read_time(const struct app *a);

/* Gives a request in the list; with a deadline, unless timeout_ms is 0. NULL when out of memory: then done has been told. */
struct app_request *app_request_new(struct app *a, const struct kp_call *call, app_done *done, void *user, enum waits waits, int64_t timeout_ms);
void app_request_free(struct app_request *r);
/* Its end will be in the history. */
void app_request_record(struct app_request *r, const struct app_how *how);
/* These end it. They take details or data. */
void app_request_fail(struct app_request *r, const struct kp_faults *f, json_t *details);
void app_request_fail_with(struct app_request *r, enum kp_err code, const char *message, json_t *details);
void app_request_done(struct app_request *r, json_t *data);
/* The first that waits for this; NULL: none. */
struct app_request *app_request_waiting(struct app *a, enum waits what);
double app_request_seconds(const struct app_request *r);

/* app_read.c */
struct app_request *app_read_begin(struct app *a, const struct kp_call *call, app_done *done, void *user);
void app_read_reply(struct app *a, const struct kp_call *call, app_done *done, void *user);
/* Reads of pins that were written: those whose write was seen, or all. */
void app_reads_that_waited(struct app *a, bool all);
void app_reads_free(struct app *a);

/* app_stop.c */
struct app_request *app_stop_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user);
struct app_request *app_reset_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user);
/* Klipper's state is another while a reset waits for it. */
void app_reset_changed(struct app *a, enum kp_klippy klippy);
void app_on_stopped(void *user, const char *by);
void app_on_reaction(void *user, unsigned reaction);

#endif
