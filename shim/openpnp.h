/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The URLs for OpenPnP's HttpActuator, which can only GET: /openpnp/TOKEN/output/NAME/on, .../off, ...?value=V and /openpnp/TOKEN/sensor/NAME. */
#ifndef OPENPNP_H
#define OPENPNP_H

#include <kp.h>
#include <stdbool.h>

struct app;
struct http_request;
struct openpnp;

#define OPENPNP_BASE "/openpnp/"

/* Gives the room. Borrows both. NULL when out of memory. */
struct openpnp *openpnp_new(struct app *a, const struct kp_config *c);
void openpnp_free(struct openpnp *o);
/* Answers a request whose path begins with OPENPNP_BASE, now or later. */
void openpnp_request(struct openpnp *o, struct http_request *h);
/* True when a request that is gone was one of these. */
bool openpnp_gone(struct openpnp *o, struct http_request *h);

#endif
