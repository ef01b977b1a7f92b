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
/* An answer was given. c NULL: no such path or method. us: from the whole request to its answer. */
void metrics_request(struct metrics *m, const struct kp_command *c, enum kp_err code, int64_t us);
void metrics_read(struct metrics *m, enum metrics_read how);
/* A request to Moonraker. method is a constant of ours, kept. */
void metrics_upstream(struct metrics *m, const char *method);
/* One turn of the loop: all work between two waits. A loop_turn_fn with the metrics as user. */
void metrics_turn(void *user, int64_t us);
/* Prometheus' text format, from malloc. NULL when out of memory. */
char *metrics_text(const struct metrics *m, const struct metrics_now *now, size_t *n);

#endif
