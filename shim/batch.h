/* SPDX-License-Identifier: GPL-3.0-or-later */
/* batch_execute: commands one after the other as if their client had sent them so, one answer with all of theirs. */
#ifndef BATCH_H
#define BATCH_H

#include <jansson.h>
#include <kp.h>

#include "app.h"

struct batch;
struct loop;

#define BATCH_MAX 256 /* commands of one batch; more are INVALID_PARAMETER */

/* All commands are checked first. done comes exactly once; NULL: it has come, else the batch that is under way. body: the request's JSON, may be NULL. */
struct batch *batch_begin(struct loop *l, struct app *a, const struct kp_machine *m, const struct kp_call *call, const json_t *body, app_done *done,
                          void *user);
/* The client went away, or app ends: done will not come, nothing more is begun. */
void batch_leave(struct batch *b);

#endif
