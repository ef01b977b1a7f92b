/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What subscribers of /ws/v1 are told: the state of each kind in full once, then what changed. A message is made once, when the first subscriber takes it,
 * and shared by all that stand where that one stood; a subscriber that was slow gets all that it missed as one message. So what waits for a subscriber costs
 * no memory, however slow it is. A change is a JSON Merge Patch (RFC 7396): members that changed, at every depth; null: gone, or not known. */
#ifndef EVENTS_H
#define EVENTS_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct answer_time;
struct events;
struct loop;

/* In the order in which a subscriber is told when several wait. */
enum events_kind { EVENTS_SAFETY, EVENTS_POSITION, EVENTS_SENSORS, EVENTS_GPIO, EVENTS_ACTUATORS, EVENTS_QUEUE, EVENTS_STATUS, EVENTS_KINDS };

#define EVENTS_ROOM 32   /* bytes before a message's text that its taker may write to */
#define EVENTS_KEPT 16   /* changes of a kind that are remembered; a subscriber further behind gets the full state again */
#define EVENTS_QUEUE_MS 20 /* changes of the queue within this time become one message */

/* Where the state comes from that the machine does not hold. */
struct events_source {
    struct answer_time (*time)(void *user);
    json_t *(*queue)(void *user); /* gives the queue as an object: queue_size, executing, paused, current_command */
    void *user;
};

/* One that wants to be told; the caller's storage, all zero at first but wake and user. */
struct events_subscriber {
    void (*wake)(void *user);      /* something waits: take it by events_next, later */
    void *user;
    bool wants[EVENTS_KINDS], full[EVENTS_KINDS]; /* this and what follows are events.c's own. full: the next message of the kind is */
    uint64_t seen[EVENTS_KINDS];   /* the last change told; safety: the last event's id */
    struct events_subscriber *next, **at;
};

/* A message, borrowed until the next call of events.c. EVENTS_ROOM bytes before it may be written to. */
struct events_message { char *text; size_t n; };
enum events_next { EVENTS_NOTHING, EVENTS_MESSAGE, EVENTS_LOST }; /* LOST: out of memory, or safety events went by untold */

/* Gives it; listens to the machine's safety events by events_safety only. Borrows all, copies source. NULL when out of memory. */
struct events *events_new(struct loop *l, struct kp_machine *m, const struct events_source *source);
void events_free(struct events *e);

const char *events_kind_name(enum events_kind kind); /* "position" */
bool events_kind_by_name(const char *name, enum events_kind *out);

/* The next message of the kind is the full state; also for one that was subscribed before. */
void events_subscribe(struct events *e, struct events_subscriber *s, enum events_kind kind);
void events_unsubscribe(struct events *e, struct events_subscriber *s, enum events_kind kind);
/* The next message for this subscriber, which counts as told then. */
enum events_next events_next(struct events *e, struct events_subscriber *s, struct events_message *out);
bool events_waiting(const struct events *e, const struct events_subscriber *s);

/* The mirror was fed, or Klipper or the connection changed: every kind is looked at. */
void events_mirror(struct events *e);
/* The queue or the lane is another; told within EVENTS_QUEUE_MS. entry (may be NULL): whose state changed, as kp_queue_options.changed has it; subscribers get
 * it as entries.{id}: its command, state and result. */
void events_queue(struct events *e, const struct kp_queue_entry *entry);
/* A safety event was added, from kp_safety_listen. */
void events_safety(struct events *e, const struct kp_safety_event *event);

#endif
