/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The control socket: one line in, one JSON line out. Serves tests; nothing here reaches the MCU but as a person's hand would. */
#ifndef SIM_CONTROL_H
#define SIM_CONTROL_H
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "buf.h"
#include "mcu.h"
#include "world.h"

enum { CLIENTS_MAX = 16, CLIENT_LINE_MAX = 1000, CLIENT_OUT_MAX = 4 << 20, WATCH_KINDS_MAX = 12 };

struct client {
    int fd; /* owned, -1 free */
    char in[CLIENT_LINE_MAX + 1];
    size_t in_n;
    struct buf out; /* owned */
    bool watching;
    char kinds[WATCH_KINDS_MAX][24]; /* all when the first is empty */
    int wait_pin; /* PIN_NONE: not waiting */
    double wait_value;
    int64_t wait_since_ns, wait_until_ns;
};

struct control {
    int fd; /* listener, owned */
    struct client clients[CLIENTS_MAX];
    struct mcu *mcu; /* borrowed, as are the next three */
    struct world *world;
    struct pins *pins;
    struct log *log;
    int64_t now_ns;
    bool quit;
};

/* Returns 0, or -1 with errno. */
int control_open(struct control *c, const char *path, struct mcu *m, struct world *w, struct pins *p, struct log *l);
void control_close(struct control *c);
/* Fills pollfds for listener and clients; returns how many. */
nfds_t control_polls(const struct control *c, struct pollfd *out);
/* fds as filled, after poll. */
void control_serve(struct control *c, const struct pollfd *fds, nfds_t n, int64_t now_ns);
/* Answers waits that ran out; returns ns until the next one does, -1 if none waits. */
int64_t control_timeouts(struct control *c, int64_t now_ns);
void control_pin_changed(struct control *c, int pin, struct when at);
void control_event(void *control, const char *what, const char *line, size_t n);
void control_flush(struct control *c);

/* Ends a client's wait_pin with its answer. */
void control_wait_done(struct client *cl, int pin, double value, int64_t now_ns, bool reached);

/* commands.c: carries out one line and answers it. */
void control_run_line(struct control *c, struct client *cl, const char *line, int64_t now_ns);

/* status.c: each puts one JSON value. */
void status_pin(struct buf *b, struct world *w, int pin, int64_t now_ns);
void status_stepper(struct buf *b, struct mcu *m, int step_pin);
void status_axis(struct buf *b, struct mcu *m, int axis);
void status_part(struct buf *b, const struct world *w, int part);
void status_parts(struct buf *b, const struct world *w);
void status_counts(struct buf *b, const struct mcu *m);
void status_all(struct buf *b, struct mcu *m, int64_t now_ns);

#endif
