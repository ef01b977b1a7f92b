/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The line between host and microcontroller, for main.c: bytes come out later than they went in, by a delay and some jitter, never out of order. */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct wire_mark {
    int64_t due_ns; /* CLOCK_MONOTONIC */
    size_t n; /* bytes that come out then */
};

struct wire {
    int64_t delay_ns, jitter_ns; /* both 0: no delay at all */
    uint64_t seed; /* of the jitter */
    struct buf bytes; /* owned */
    struct buf marks; /* owned; of struct wire_mark, in order */
};

void wire_init(struct wire *w, int64_t delay_ns, int64_t jitter_ns, uint64_t seed);
void wire_fini(struct wire *w);
/* Bytes that go in now. False when memory is out. */
bool wire_put(struct wire *w, const uint8_t *p, size_t n, int64_t now_ns);
/* How many bytes at the front of w->bytes have come out. */
size_t wire_ready(const struct wire *w, int64_t now_ns);
/* The first n of those are taken. */
void wire_take(struct wire *w, size_t n);
/* The ns until more come out, 0: now, -1: nothing is on the wire. */
int64_t wire_wait(const struct wire *w, int64_t now_ns);

#endif
