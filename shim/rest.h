/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The REST edge: HTTP requests become checked calls of app, answers become envelopes. */
#ifndef REST_H
#define REST_H

#include <sys/socket.h>

struct app;
struct guard;
struct loop;
struct metrics;
struct openpnp;
struct rest;

/* Gives the edge. Borrows all. NULL when out of memory. */
struct rest *rest_new(struct loop *l, struct app *a, struct guard *g, struct metrics *m);
void rest_free(struct rest *s);
/* Paths under /openpnp/ are this room's from now on. Borrows it. */
void rest_openpnp(struct rest *s, struct openpnp *o);
/* Takes an accepted socket; a gate_adopt_fn with the rest as user. */
void rest_adopt(void *user, int fd, const struct sockaddr *peer, socklen_t len);

#endif
