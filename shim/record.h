/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What app writes into the history: commands that ended, and safety events. */
#ifndef RECORD_H
#define RECORD_H

#include <kp.h>

struct history;

/* A command that did not come by the queue has ended, `seconds` after it began to wait; faults->count 0: it worked. */
void record_command(struct history *h, const struct kp_machine *m, const struct kp_call *call, const char *id, double seconds, const struct kp_faults *faults);
void record_event(struct history *h, const struct kp_safety_event *e);

#endif
