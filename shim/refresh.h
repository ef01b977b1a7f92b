/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Objects of Klipper's status, asked for now, for state.c: who asks for the same shares a question, and one that failed is asked again. */
#ifndef REFRESH_H
#define REFRESH_H

#include <jansson.h>
#include <kp.h>
#include <stdint.h>

struct extra;
struct loop;
struct mr;
struct refreshes;

/* What was asked for at asked_ms: Klipper's time of it (NULL: it does not say) and {object: {field: value}}, both borrowed. */
typedef void refresh_fed(void *user, int64_t asked_ms, json_t *eventtime, json_t *status);
/* KP_OK; KP_MOONRAKER_DISCONNECTED: not asked, its operation's breaker is open; KP_TIMEOUT: no good answer. */
typedef void refresh_done(void *user, enum kp_err how);

/* Gives one that borrows mr and extra for its life. NULL when out of memory. */
struct refreshes *refreshes_new(struct loop *l, struct mr *mr, struct extra *extra, refresh_fed *fed, void *user);
/* After mr's end; whoever still waits is told. */
void refreshes_free(struct refreshes *r);
/* The connection is gone: who waits for a retry is told soon. */
void refreshes_down(struct refreshes *r);
/* objects: one name, or several with a newline between them. done comes exactly once, within timeout_ms, or twice that for who shares the next question. */
void refresh_objects(struct refreshes *r, const char *objects, int64_t timeout_ms, refresh_done *done, void *user);

#endif
