/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Between moonraker.c and its two transports, mr_unix.c and mr_ws.c: a link carries whole messages and knows nothing of what they say. */
#ifndef MR_LINK_H
#define MR_LINK_H

#include <stdbool.h>
#include <stddef.h>

struct loop;
struct mr_config;
struct mr_link;

#define MR_UNIX_END 0x03 /* ends each message on the unix socket */

/* What a link tells and asks. None is called from inside mr_link_wake's caller but peek and wrote. */
struct mr_link_events {
    void (*up)(void *user);
    /* The link broke, or could not be made. It is idle now. */
    void (*down)(void *user, const char *why);
    /* text[n] is writable and 0. */
    void (*message)(void *user, char *text, size_t n);
    /* What stands next to be written, borrowed until wrote; text[*n] is MR_UNIX_END and not counted. NULL: nothing. */
    const char *(*peek)(void *user, size_t *n);
    /* The connection has taken n bytes (more than 0) of it, or may have. */
    void (*wrote)(void *user, size_t n);
};

/* One row a transport. */
struct mr_link_kind {
    const char *name;
    bool counts_end; /* wrote counts the MR_UNIX_END as well */
    struct mr_link *(*new)(struct loop *l, const struct mr_config *cfg, const struct mr_link_events *ev, void *user); /* idle; cfg is borrowed for its life */
    void (*connect)(struct mr_link *k); /* up or down follows, not before the return */
    void (*wake)(struct mr_link *k);    /* peek has something */
    void (*drop)(struct mr_link *k);    /* the other side hangs: down follows, not before the return. Only while it is up. */
    void (*free)(struct mr_link *k);    /* closes; tells nothing */
};

extern const struct mr_link_kind mr_unix, mr_ws;

#endif
