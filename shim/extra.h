/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The Klipper extra (klipper_cfg/extras/klipperplace), as far as the shim uses it: is it there, what does it say of itself. Without it all works, slower. */
#ifndef EXTRA_H
#define EXTRA_H

#include <jansson.h>
#include <stdbool.h>

struct extra;
struct metrics_extra;
struct mr;

#define EXTRA_OBJECT "klipperplace"            /* its status object */
#define EXTRA_READ "printer.klipperplace.read" /* objects.query's question, answered at once */
#define EXTRA_PUSH "klipperplace_push"         /* what it calls when an input changed: {eventtime, status} */

struct extra *extra_new(void);
void extra_free(struct extra *x);
/* Moonraker is connected anew: nothing is registered. */
void extra_connected(struct extra *x);
/* Klipper's objects are read again: nothing is known until its status has been told. */
void extra_objects(struct extra *x, struct mr *mr, const json_t *names);
bool extra_there(const struct extra *x);
/* Fields of its status that are new or changed. */
void extra_status(struct extra *x, json_t *fields);
/* Whether EXTRA_READ may be asked; after extra_read_failed not before Klipper's objects are read again. */
bool extra_reads(const struct extra *x);
void extra_read_failed(struct extra *x, const char *message);
/* All that it has told, borrowed; NULL when it is not there. */
json_t *extra_told(const struct extra *x);
/* The same for metrics; names are borrowed until something is told again. */
void extra_metrics(const struct extra *x, struct metrics_extra *out);

#endif
