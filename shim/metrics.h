/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the process counts and how long things took, for GET /metrics. Counting allocates nothing; only the text does. */
#ifndef METRICS_H
#define METRICS_H

#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics;

/* How a read was answered. */
enum metrics_read { METRICS_FRESH, METRICS_STALE, METRICS_ASKED, METRICS_READS }; /* from the mirror, fresh or not; by asking Klipper */

#define METRICS_PARTS 8

/* What the Klipper extra tells of itself. */
struct metrics_extra {
    bool there, fast;                     /* fast: starts are early now */
    double margin_ms;                     /* the smallest so far; NAN: none yet */
    double starts;                        /* early ones */
    struct { const char *name; bool on; } part[METRICS_PARTS]; /* names borrowed until the text is made */
    size_t parts;
};

/* What stands now; the rooms that know it fill it in. */
struct metrics_now {
    bool moonraker_connected, klipper_ready, latched;
    enum kp_level level;
    size_t lane;                          /* commands in the lane */
    size_t queue_pending, queue_executing;
    bool queue_held;
    unsigned http_connections, ws_sessions;
    size_t idempotency_keys;
    struct metrics_extra extra;
};

/* Gives zeros. NULL when out of memory. */
struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);
/* An answer was given, by any edge. c NULL: no such command, path or method. */
void metrics_answer(struct metrics *m, const struct kp_command *c, enum kp_err code);
/* How long it took, from the whole request to its answer; of REST. */
void metrics_took(struct metrics *m, const struct kp_command *c, int64_t us);
void metrics_read(struct metrics *m, enum metrics_read how);
/* A request to Moonraker. method is a constant of ours, kept. */
void metrics_upstream(struct metrics *m, const char *method);
/* One of them failed on a live connection; a read is asked again because it did; how its breaker stands. */
void metrics_upstream_failed(struct metrics *m, const char *method);
void metrics_upstream_retried(struct metrics *m, const char *method);
void metrics_circuit(struct metrics *m, const char *method, enum kp_breaker_state state);
/* One turn of the loop: all work between two waits. A loop_turn_fn with the metrics as user. */
void metrics_turn(void *user, int64_t us);
/* A room that knows something of what stands now, asked for each text. At most METRICS_ROOMS_MAX: one more is an assertion. user outlives the last text. */
#define METRICS_ROOMS_MAX 8
typedef void metrics_room_fn(const void *user, struct metrics_now *now);
void metrics_room(struct metrics *m, metrics_room_fn *fn, const void *user);
/* Prometheus' text format, from malloc. NULL when out of memory. */
char *metrics_text(const struct metrics *m, size_t *n);

#endif
