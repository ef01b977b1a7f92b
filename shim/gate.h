/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The listener: peeks the first bytes of each socket and hands it, untouched, to HTTP or to the WebSocket room. */
#ifndef GATE_H
#define GATE_H

#include <stdbool.h>
#include <sys/socket.h>

struct gate;
struct loop;

/* Takes the socket. */
typedef void gate_adopt_fn(void *user, int fd, const struct sockaddr *peer, socklen_t len);

#define GATE_UNDECIDED_MAX 64    /* sockets that have not sent enough to tell; one more and the oldest is closed, once it has had GATE_GRACE_MS */
#define GATE_GRACE_MS 250         /* a burst of honest connects waits in the kernel that long rather than lose its oldest */
#define GATE_UNDECIDED_MS 5000   /* and so long */

/* Whether a peer may connect; one that may not is closed. */
typedef bool gate_allow_fn(void *user, const struct sockaddr *peer);

/* Listens on host (an address or a name) and port. ws may be NULL: then everything is HTTP. NULL with a message in err (err_size bytes) on failure. */
struct gate *gate_open(struct loop *l, const char *host, int port, gate_adopt_fn *http, gate_adopt_fn *ws, void *user, char *err, unsigned err_size);
/* From now on these are asked about every peer. */
void gate_allow(struct gate *g, gate_allow_fn *allow, void *user);
void gate_close(struct gate *g);

#endif
