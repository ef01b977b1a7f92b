/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What answers look like: the envelope of API v1 and the data of each command. Decides nothing, sends nothing. */
#ifndef ANSWER_H
#define ANSWER_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stddef.h>

struct lane_outcome;

#define ANSWER_ID 37 /* bytes of a UUID with its 0 */

/* Random bytes fetched ahead; all zero is an empty one. */
struct answer_pool { unsigned char bytes[256]; size_t left; };
/* Writes a random UUID (version 4). */
void answer_id(struct answer_pool *pool, char out[ANSWER_ID]);
/* Seconds since the epoch. */
double answer_wall(void);

/* Both give a JSON text from malloc and its length; NULL when out of memory. data is a JSON object's text, borrowed. */
char *answer_success(const char *command, const char *id, const char *data, size_t n, size_t *out_n);
/* The same, "partial" or "success", with a warning (NULL: none). */
char *answer_warned(bool partial, const char *command, const char *id, const char *data, size_t n, const char *warning, size_t *out_n);
/* status "error", "timeout" or "cancelled" follows from the first fault's code. Takes details (may be NULL); the faults are listed in details.errors. */
char *answer_error(const char *command, const char *id, const struct kp_faults *f, json_t *details, size_t *out_n);

/* What the reads need beside the machine. */
struct answer_time {
    bool fresh;    /* the mirror is */
    double wall;   /* s since the epoch of the last push; 0: none */
    int64_t now_ms;
    size_t queue;  /* commands that wait or run, in queue and lane */
    const char *running;
    bool held;     /* the queue is */
    json_t *extra; /* what the Klipper extra says of itself, or NULL */
};

/* What is told may be old: nothing came from Klipper lately, or a pin that was written has not been seen since. */
bool answer_stale(const struct kp_machine *m, const struct answer_time *t);
/* Data of each command, new references. */
json_t *answer_pin(const struct kp_pin *p, bool inverted, const struct answer_time *t);
json_t *answer_pins(const struct kp_machine *m, const struct answer_time *t);
json_t *answer_sensor(const struct kp_sensor *s, const struct answer_time *t);
/* Those of one type; NULL: all. */
json_t *answer_sensors(const struct kp_machine *m, const char *type, const struct answer_time *t);
json_t *answer_position(const struct kp_machine *m, const struct answer_time *t);
json_t *answer_status(const struct kp_machine *m, const struct answer_time *t);
json_t *answer_printer_state(const struct kp_machine *m, const struct answer_time *t);
/* Now, by both clocks: events carry the monotonic one. */
struct answer_clock { double wall; int64_t now_ms; };
struct answer_filter { size_t limit; enum kp_level level; uint64_t since; }; /* events of at least this level, with a larger id */
json_t *answer_safety_status(const struct kp_machine *m, const struct answer_clock *c);
json_t *answer_safety_events(const struct kp_machine *m, const struct answer_clock *c, const struct answer_filter *want);
json_t *answer_version(void);
/* second_way: Klipper's own socket is there for an emergency stop. fresh: Klipper's last push is young. */
json_t *answer_health(const struct kp_machine *m, bool second_way, bool fresh);
/* Of a command that went through the lane and worked. */
json_t *answer_done(const struct kp_machine *m, const struct kp_call *call, const struct lane_outcome *o);
/* ["x", "y"]: the axes that are homed. */
json_t *answer_homed(const struct kp_machine *m);
/* {"state", "message"} of Klipper; words NULL: its own state message. */
json_t *answer_klipper(const struct kp_machine *m, const char *words);

#endif
