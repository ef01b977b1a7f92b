/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The event log: JSON lines to a file, and to whoever taps it (the control socket's watchers). */
#ifndef SIM_LOG_H
#define SIM_LOG_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "buf.h"

/* One moment, on both clocks. */
struct when {
    int64_t ns; /* CLOCK_MONOTONIC */
    uint64_t clock; /* MCU ticks since power-up */
};

struct log {
    FILE *file; /* owned */
    struct buf line; /* owned, scratch */
    void (*tap)(void *arg, const char *what, const char *line, size_t n); /* or NULL */
    void *tap_arg; /* borrowed */
};

/* Returns 0, or -1 with errno. */
int log_open(struct log *l, const char *path);
void log_close(struct log *l);
void log_flush(struct log *l);
/* fields: the text after "what", either "" or like `,"pin":"%s"`. Names never need escaping here. */
void log_event(struct log *l, struct when at, const char *what, const char *fields, ...) __attribute__((format(printf, 4, 5)));

#endif
