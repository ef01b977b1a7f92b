/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The WebSocket edge /ws/v1: sessions, their messages in and out, and what happens to those who do not read. libwebsockets' types stay in ws.c. */
#ifndef WS_H
#define WS_H

#include <stddef.h>

struct app;
struct guard;
struct loop;
struct ws;

#define WS_SESSIONS_MAX 100          /* one more is refused with HTTP 503 before the upgrade */
#define WS_HANDSHAKES_MAX 64         /* sockets that have not ended their handshake; one more is closed */
#define WS_HANDSHAKE_S 5             /* and so long */
#define WS_MESSAGE_MAX 65536u        /* bytes of a client's message; a longer one ends the session with 1009 */
#define WS_WAITING_MAX 262144u       /* bytes of responses that wait for the client to read; more end the session with 1013 */
#define WS_STALLED_MS 10000          /* something waits and the client has read nothing for so long: 1013, */
#define WS_GRACE_MS 5000             /* and after so long more without a hearing the socket is closed */

/* Gives the edge. Borrows all. NULL when out of memory. */
struct ws *ws_new(struct loop *l, struct app *a, struct guard *g);
/* Tells every session that the server goes (1001) and closes it. */
void ws_free(struct ws *w);
/* Takes an accepted socket; a gate_adopt_fn's work with the ws as user. */
void ws_adopt(struct ws *w, int fd);
/* Sessions open now. */
size_t ws_sessions(const struct ws *w);

#endif
