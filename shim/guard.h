/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Whether a request may go on before anybody looks at what it asks: for which host, from which page, with which key and role, and how often. For rest and ws. */
#ifndef GUARD_H
#define GUARD_H

#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "auth.h"
#include "cors.h"
#include "limit.h"

struct guard;

/* Gives the guard as [api] and [security] say. Borrows c. NULL with a message in err (err_size bytes). */
struct guard *guard_new(const struct kp_config *c, char *err, size_t err_size);
void guard_free(struct guard *g);
/* Its keeper of keys, and its judge of origins. */
struct auth *guard_auth(struct guard *g);
const struct cors *guard_cors(const struct guard *g);
/* Whether this peer may connect at all; one that may not is logged. A gate_allow_fn with the guard as user. */
bool guard_may_connect(void *user, const struct sockaddr *peer);
/* Whether the Host header is one of ours. */
enum kp_err guard_host(const struct guard *g, const char *host, struct kp_error *e);
/* Whether one who entered may run the command now: his role, then how often he asked. *state holds how his bucket stands where the row has a rate class. */
enum kp_err guard_admit(struct guard *g, const struct auth_who *who, const struct sockaddr *peer, const struct kp_command *c, struct limit_state *state,
                        struct kp_error *e);

#endif
