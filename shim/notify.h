/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What systemd is told of the service: that it serves, how it stands, that its loop still turns, and that it stops. Without systemd: nothing. */
#ifndef NOTIFY_H
#define NOTIFY_H

struct app;
struct loop;
struct notify;

/* Gives one that knows from NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID whom to tell and how often. NULL when out of memory. */
struct notify *notify_new(struct loop *l, struct app *a);
/* Clients can connect: from now on the watchdog is fed, and each change of the state told. */
void notify_ready(struct notify *n);
/* The loop has ended. */
void notify_stopping(struct notify *n);
void notify_free(struct notify *n);

#endif
