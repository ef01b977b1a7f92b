/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The parts of a machine as dicts, for machine.c. */
#ifndef KPY_PARTS_H
#define KPY_PARTS_H

#include "py.h"

enum part { PART_AXIS, PART_PIN, PART_SENSOR, PART_NOZZLE, PART_FEEDER, PART_FAN, PART_HEATER };
typedef const void *part_at_fn(const struct kp_machine *m, size_t i);

PyObject *part_dict(const struct kp_machine *m, enum part part, size_t i);
PyObject *part_list(const struct kp_machine *m, enum part part);
PyObject *part_limits(const struct kp_machine *m);

#endif
