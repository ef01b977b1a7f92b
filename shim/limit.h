/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Token buckets: how many requests of a class one client may make. Time is injected; nothing is decided about who the client is. */
#ifndef LIMIT_H
#define LIMIT_H

#include <kp.h>
#include <stdbool.h>
#include <stdint.h>

#define LIMIT_MOTION 100 /* requests a second, and as many at once after a pause; by the row's rate class */
#define LIMIT_READ 200
#define LIMIT_BATCH 10
#define LIMIT_CLIENTS_MAX 1024 /* remembered; one that was not seen for longest makes room, and begins anew when it comes back */

struct limit;

/* A client: a key, or an address where none is asked for. All bytes count. */
struct limit_client { unsigned char bytes[24]; };

/* How a bucket stands after a request. */
struct limit_state {
    int limit;       /* requests a second; 0: the class has none */
    int remaining;   /* that would pass now */
    int reset_s;     /* until the bucket is full again, rounded up */
    int64_t wait_ms; /* until the next one passes; 0: it passed */
};

/* NULL when out of memory. */
struct limit *limit_new(void);
void limit_free(struct limit *l);
/* Takes one request of this class from the client's bucket. True: it may go on. */
bool limit_take(struct limit *l, const struct limit_client *client, enum kp_rate rate, int64_t now_ms, struct limit_state *out);

#endif
