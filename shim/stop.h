/* SPDX-License-Identifier: GPL-3.0-or-later */
/* An emergency stop on its way to Klipper, for app: by Moonraker and, at the same time, by Klipper's own socket, whose word counts when Moonraker does not
 * confirm in time. */
#ifndef STOP_H
#define STOP_H

#include <kp.h>
#include <stdbool.h>

struct loop;
struct mr;
struct stop;

#define STOP_SECOND_MS 250 /* Moonraker's time to confirm; at once when it is not connected */

/* Confirmed: Klipper has stopped. by is "moonraker" or "klipper". */
typedef void stop_done(void *user, const char *by);

/* Gives the two ways. Klipper's socket is [api] klipper_socket; without it the path that a Moonraker of this machine tells. Borrows all three, which must
 * outlive it. NULL when out of memory. */
struct stop *stop_new(struct loop *l, struct mr *moonraker, const struct kp_config *c, stop_done *done, void *user);
void stop_free(struct stop *s);
/* Sends the stop, or sends it again: repeated when Klipper comes into reach until it is confirmed or forgotten. */
void stop_send(struct stop *s);
/* Nobody has confirmed the last stop yet. */
bool stop_owed(const struct stop *s);
/* The latch is released, or about to be by a restart of the firmware. */
void stop_forget(struct stop *s);
/* The connection to Moonraker, or Klipper's state, is another. A Klipper in shutdown has stopped, and one whose process is gone drives nothing: gone
 * means that Moonraker saw it go. That Moonraker is away, or knows no Klipper yet, says nothing. */
void stop_changed(struct stop *s, enum kp_klippy klippy, bool gone);
/* Klipper's own socket is connected. */
bool stop_second_way(const struct stop *s);
/* How long the client of a stop waits for the confirmation. */
int64_t stop_timeout_ms(const struct stop *s);

#endif
