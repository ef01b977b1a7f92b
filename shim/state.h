/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mirror: Klipper's make and state as Moonraker tells them, fed into libkp's machine. Nothing is guessed: after each reconnect all is read again. */
#ifndef STATE_H
#define STATE_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stdint.h>

#include "refresh.h"

struct loop;
struct mr;
struct metrics_extra;
struct mr_config;
struct state;

struct state_events {
    void (*changed)(void *user);                   /* the connection or Klipper's state is another, or the extra told of an input */
    void (*pushed)(void *user);                    /* a push was fed: subscribed fields are fresh */
    void (*console)(void *user, const char *line); /* one line of Klipper's console */
    void (*notice)(void *user, const char *method, json_t *params); /* any other notification; params borrowed, may be NULL */
};

#define STATE_FRESH_MS 1000 /* while the last push is younger, every subscribed field is fresh */

/* Gives a mirror with a Moonraker client of its own. Borrows m, which must outlive it. */
struct state *state_new(struct loop *l, struct kp_machine *m, const struct mr_config *cfg, const struct state_events *ev, void *user);
void state_free(struct state *s);
struct mr *state_moonraker(struct state *s);
/* What was read may hold no longer (a stop was confirmed): everything is read again, and Klipper is not ready until it has been. */
void state_again(struct state *s);
/* Connected, Klipper ready, and the last push is young. */
bool state_fresh(const struct state *s);
/* Moonraker had a Klipper on this connection, and has it no longer. One that has just started itself knows none either, for a moment. */
bool state_saw_it_go(const struct state *s);
/* Seconds since the epoch of the last push; 0: none yet. */
double state_pushed_wall(const struct state *s);
/* What the Klipper extra says of itself, borrowed; NULL: it is not there. */
json_t *state_extra(const struct state *s);
void state_extra_metrics(const struct state *s, struct metrics_extra *out);
/* Where the extra answers at once: everything that is subscribed is asked for in_ms from now, and fed as a push is. Else nothing: the next push comes by itself. */
void state_look(struct state *s, int64_t in_ms);
/* Asks Klipper for one object, or for several with a newline between them, now (a ms with the extra, else up to a tick of 250 ms); who asks for the same while
 * that is under way shares the next question. When it failed on a live connection it is asked again, within timeout_ms. done comes exactly once. */
void state_refresh(struct state *s, const char *objects, int64_t timeout_ms, refresh_done *done, void *user);

#endif
