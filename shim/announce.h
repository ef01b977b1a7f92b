/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The shim as Moonraker's component klipperplace knows it: announced once a second over the connection to Moonraker while the component is there, its requests run
 * like those of any edge, and told what was placed, what failed and how safe the machine is. */
#ifndef ANNOUNCE_H
#define ANNOUNCE_H

struct announce;
struct app;
struct loop;

#define ANNOUNCE_MS 1000      /* between two heartbeats; the component takes three silent seconds for an end */
#define ANNOUNCE_CALLS_MAX 64 /* requests of the component that wait; one more is QUEUE_FULL */

/* Gives it; borrows both, which must outlive it. NULL when out of memory. */
struct announce *announce_new(struct loop *l, struct app *a);
/* Requests that wait are left; what has begun goes on. */
void announce_free(struct announce *n);

#endif
