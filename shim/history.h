/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What outlives the process: the queue's journal, commands that ended, safety events, keys. Written and read by a thread of its own; the loop never waits for it.
 * Without a configured file it is kept in memory and ends with the process. */
#ifndef HISTORY_H
#define HISTORY_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct history;
struct history_writes;
struct loop;

#define HISTORY_WAITING_MAX 4096 /* transactions and questions that wait for the thread; one more is refused, but for the end of a queue entry */
#define HISTORY_EVENTS_MAX 10000 /* safety events kept, and the last stop or release */

/* An entry of the queue as the journal has it. */
struct history_entry {
    const char *id, *command, *params;
    int priority;
    uint64_t batch;
    bool stop_on_error, executing;
    double added_at, started_at; /* Unix s; NAN: not yet */
};

/* A command that ended. */
struct history_command {
    const char *id;             /* of the command; a queued one has its queue_id */
    bool queued;
    const char *command, *params; /* params: JSON text */
    int priority;
    const char *state;          /* kp_queue_state_name */
    const char *error_code, *error_message; /* NULL: none */
    double added_at, started_at, ended_at;  /* Unix s; NAN: never */
};

/* A key that was made. role: viewer, operator or admin; hash: of the key, in hexadecimal. */
struct history_key {
    const char *id, *name, *role, *hash;
    bool enabled;
    double created_at, expires_at, last_used_at; /* Unix s; NAN: never */
};

/* Where the last process left off. */
struct history_numbers { unsigned holds; uint64_t batch; };

typedef void history_done(void *user, bool ok);
typedef void history_page(void *user, json_t *rows); /* rows: borrowed; NULL: the database could not be read */

/* Opens the file and reads what jobs needs of it; the thread is not started yet. commands: most ended ones kept. NULL when out of memory. */
struct history *history_new(struct loop *l, const char *path, size_t commands);
/* Writes what waits, then closes. Callbacks that are left come now, without success. */
void history_free(struct history *h);
void history_numbers(const struct history *h, struct history_numbers *out);
/* Entries that had not ended, in the order they were added; *count of them. Borrowed until history_start. */
const struct history_entry *history_entries(const struct history *h, size_t *count);
/* The last safety events, the oldest first, and before them the last stop or release if that is older; as above. */
const struct kp_safety_event *history_events(const struct history *h, size_t *count);
/* All keys as the last process left them, in the order they were made. Borrowed for the life of the history. */
const struct history_key *history_keys(const struct history *h, size_t *count);
bool history_start(struct history *h);
/* The last write did not work: what the database would have kept may be lost with this process. */
bool history_failing(const struct history *h);

/* Collects one transaction. Texts are copied. NULL when out of memory; the functions below take NULL, and history_commit refuses it. */
struct history_writes *history_begin(struct history *h);
void history_add_entry(struct history_writes *w, const struct history_entry *e);
void history_start_entry(struct history_writes *w, const char *id, double at);
void history_end_entry(struct history_writes *w, const char *id);
void history_add_command(struct history_writes *w, const struct history_command *c);
void history_add_event(struct history_writes *w, const struct kp_safety_event *e, double at);
void history_put_key(struct history_writes *w, const struct history_key *k);
void history_delete_key(struct history_writes *w, const char *id);
void history_set_holds(struct history_writes *w, unsigned holds);
/* Takes w. With done, it tells in the loop, later, whether the transaction is committed; one that failed is forgotten. Without, a transaction that ends an
 * entry or sets holds is tried again until it works, in order; others are lost when they fail. False: refused, done will not come. */
bool history_commit(struct history_writes *w, history_done *done, void *user);

/* Ended commands, the last first: at most limit, only those older than the one with the id `before` (NULL: from the last). page comes later, once, after all
 * that was committed before. False: refused. */
bool history_commands(struct history *h, int limit, const char *before, history_page *page, void *user);

#endif
