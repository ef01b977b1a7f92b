/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The queue in the loop: takes the next entry when the lane is free, runs it as any other request, journals each step before it counts. */
#ifndef JOBS_H
#define JOBS_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stddef.h>

struct app;
struct history;
struct jobs;
struct lane;
struct loop;

#define JOBS_PATIENCE_MS 250 /* a lane that is never free for so long takes the next entry among its other commands */
#define JOBS_LISTED_MAX 1000 /* waiting entries that queue_status lists */

/* Told of each entry that is new or another (NULL: only what holds the queue is another). */
typedef void jobs_changed_fn(void *user, const struct kp_queue_entry *entry);

/* Gives the queue as the journal has it: what was executing is interrupted, and what waits is held until somebody resumes. Borrows all. NULL when out of
 * memory. */
struct jobs *jobs_new(struct loop *l, struct app *a, struct kp_machine *m, struct lane *n, struct history *h, const struct kp_config *c,
                      jobs_changed_fn *changed, void *user);
/* Before the history is closed: what runs goes on without the queue, which finds it as interrupted at its next start. */
void jobs_stop(struct jobs *j);
void jobs_free(struct jobs *j);

/* Adds all items or none; they are the caller's until done. KP_OK: done comes once, later, when they are in the journal and in the queue, or with what is
 * wrong. Else done does not come: QUEUE_FULL, DATABASE_UNAVAILABLE. */
typedef void jobs_added(void *user, const struct kp_error *e);
enum kp_err jobs_add(struct jobs *j, const struct kp_queue_item *items, size_t count, jobs_added *done, void *user, struct kp_error *e);
/* A number for entries that come together. */
uint64_t jobs_batch(struct jobs *j);
/* What these do is on its way to the journal when they return, before anything that is committed later. */
size_t jobs_clear(struct jobs *j);
enum kp_err jobs_cancel(struct jobs *j, struct kp_str id, struct kp_error *e);
void jobs_pause(struct jobs *j);
/* What to do about a failed pick, where [vacuum] on_fail is ask: the entry once more; the rest without it; or nothing more, the queue held and its batch
 * cancelled. False: nobody was asked. jobs_resume means skip. */
enum jobs_choice { JOBS_RETRY, JOBS_SKIP, JOBS_STOP };
bool jobs_answer(struct jobs *j, enum jobs_choice choice);
/* Takes all holds away. KP_INTERLOCK, KP_EMERGENCY_STOP_ACTIVE, ...: what hinders the machine is still so. */
enum kp_err jobs_resume(struct jobs *j, struct kp_error *e);
/* Sets *e and returns its code. */
enum kp_err jobs_unwritable(struct kp_error *e);

/* Holds the queue until somebody resumes it; what runs goes on. KP_HOLD_SAFETY of an empty queue holds nothing, but for an emergency stop. */
void jobs_hold(struct jobs *j, enum kp_queue_hold why, const char *words);
/* The machine is another: connection, Klipper's state, latch, print. Before the lane is told. */
void jobs_machine(struct jobs *j);
/* The lane may be free. */
void jobs_lane(struct jobs *j);

/* Entries that wait or run; place of one that waits, from 1. */
size_t jobs_size(const struct jobs *j);
size_t jobs_position(const struct jobs *j, const char *id);
/* Entries that wait; whether one runs; whether the queue is held. */
size_t jobs_waiting(const struct jobs *j);
bool jobs_running(const struct jobs *j);
bool jobs_held(const struct jobs *j);
/* queue_size, executing, paused, holds, current_command; with `listed` queued_commands too. Gives it. */
json_t *jobs_json(const struct jobs *j, bool listed);

#endif
