/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libkp's monitors of temperature, position and state, looked at in the loop, for app. */
#ifndef MONITOR_H
#define MONITOR_H

#include <kp.h>

struct loop;
struct monitor;

/* What begins now: bits of kp_reaction. */
typedef void monitor_react(void *user, unsigned reaction);

/* Gives monitors that look by themselves when it is time. Borrows both, which must outlive it. NULL when out of memory. */
struct monitor *monitor_new(struct loop *l, struct kp_machine *m, monitor_react *react, void *user);
void monitor_free(struct monitor *w);
/* Klipper or Moonraker came or went: looks at what is due now. */
void monitor_look(struct monitor *w);

#endif
