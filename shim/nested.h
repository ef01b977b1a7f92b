/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Commands inside a command, for queue and batch: an object of command, parameters and priority becomes a checked call. */
#ifndef NESTED_H
#define NESTED_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>

/* Checks one such object whole: its members, the command, each parameter, and what can be told of the machine's limits before it runs. Faults are added with
 * the name of their place behind prefix ("commands[2]." gives commands[2].parameters.x). priority false: it may have none. */
bool nested_check(const struct kp_machine *m, const json_t *item, const char *prefix, bool priority, struct kp_call *out, struct kp_faults *f);
/* The same for a command and parameters (an object, or NULL for none) of their own. */
bool nested_call(const struct kp_machine *m, const struct kp_command *c, const json_t *params, const char *prefix, struct kp_call *out, struct kp_faults *f);
/* How many objects body's "commands" has. A fault when there are more than most. */
size_t nested_count(const json_t *body, size_t most, struct kp_faults *f);
/* nested_check of the i-th of them. */
bool nested_check_at(const struct kp_machine *m, const json_t *body, size_t i, bool priority, struct kp_call *out, struct kp_faults *f);
/* Parameters as the queue keeps them; gives the text, NULL when out of memory. */
char *nested_text(const json_t *item);

#endif
