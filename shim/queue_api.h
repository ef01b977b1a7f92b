/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Queue and pause commands: queue_add, queue_batch, queue_status, queue_clear, queue_cancel, queue_history, pause, resume. */
#ifndef QUEUE_API_H
#define QUEUE_API_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>

#include "app.h"

struct history;
struct jobs;
struct lane;
struct loop;
struct queue_api;

/* Opens the history, brings the queue back, and gives m the last safety events; changed as for jobs_new. Borrows all. NULL when out of memory. */
struct queue_api *queue_api_new(struct loop *l, struct app *a, struct kp_machine *m, struct lane *n, const struct kp_config *c,
                                void (*changed)(void *user, const struct kp_queue_entry *entry), void *user);
/* Before app and lane. */
void queue_api_free(struct queue_api *q);
struct jobs *queue_api_jobs(struct queue_api *q);
struct history *queue_api_history(struct queue_api *q);
/* Whether it is one of the commands above. */
bool queue_api_serves(enum kp_id id);
/* One of them; body: the request's JSON, may be NULL. done comes exactly once; true: later, when what it did is in the journal. */
bool queue_api_begin(struct queue_api *q, const struct kp_call *call, const json_t *body, app_done *done, void *user);
/* A safety event, for the history. */
void queue_api_event(struct queue_api *q, const struct kp_safety_event *event);

#endif
