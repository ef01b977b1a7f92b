/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The commands about keys, for app, and their place in the database. */
#ifndef AUTH_API_H
#define AUTH_API_H

#include <kp.h>
#include <stdbool.h>

#include "app.h"

struct auth;
struct auth_api;
struct auth_who;
struct history;

#define AUTH_COOKIE ".cookie" /* behind the database's path: the file with the command line's key */

/* Gives auth the keys of the database, and writes the cookie where the database is this server's. Borrows all. NULL when out of memory. */
struct auth_api *auth_api_new(struct loop *l, struct auth *a, struct history *h, const struct kp_config *c);
/* Writes what is new, before history_free. */
void auth_api_stop(struct auth_api *p);
/* After it: changes that were on their way end with the history. */
void auth_api_free(struct auth_api *p);
bool auth_api_serves(enum kp_id id);
/* Runs a checked call of one who entered; who NULL: one who never can. done comes once, now (false) or when the database has it (true). */
bool auth_api_begin(struct auth_api *p, const struct kp_call *call, const struct auth_who *who, app_done *done, void *user);

#endif
