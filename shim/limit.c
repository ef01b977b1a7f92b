/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Token buckets for guard. Invariant: a look-up touches one set of WAYS clients, however many there are. */
#include "limit.h"

#include <stdlib.h>
#include <string.h>

#define WAYS 8
#define SETS (LIMIT_CLIENTS_MAX / WAYS) /* a power of two */
#define CLASSES 4                       /* of enum kp_rate */

struct bucket { int64_t milli, at_ms; }; /* thousandths of a request that were left, and when */
struct client { struct limit_client who; int64_t seen_ms; bool used; struct bucket bucket[CLASSES]; };
struct limit { struct client set[SETS][WAYS]; };

static const int per_second[CLASSES] = { [KP_RATE_MOTION] = LIMIT_MOTION, [KP_RATE_READ] = LIMIT_READ, [KP_RATE_BATCH] = LIMIT_BATCH };

struct limit *limit_new(void)
{
    return calloc(1, sizeof(struct limit));
}

void limit_free(struct limit *l)
{
    free(l);
}

static size_t set_of(const struct limit_client *who)
{
    uint32_t sum = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < sizeof who->bytes; i++)
        sum = (sum ^ who->bytes[i]) * 16777619u;
    return (sum ^ sum >> 16) & (SETS - 1);
}

static void begin(struct client *c, const struct limit_client *who, int64_t now_ms)
{
    *c = (struct client){ .who = *who, .used = true };
    for (int i = 0; i < CLASSES; i++)
        c->bucket[i] = (struct bucket){ (int64_t)per_second[i] * 1000, now_ms };
}

static struct client *find(struct limit *l, const struct limit_client *who, int64_t now_ms)
{
    struct client *set = l->set[set_of(who)], *oldest = set;
    for (size_t i = 0; i < WAYS; i++) {
        if (set[i].used && !memcmp(&set[i].who, who, sizeof *who))
            return &set[i];
        if (!set[i].used || (oldest->used && set[i].seen_ms < oldest->seen_ms))
            oldest = &set[i];
    }
    begin(oldest, who, now_ms);
    return oldest;
}

bool limit_take(struct limit *l, const struct limit_client *client, enum kp_rate rate, int64_t now_ms, struct limit_state *out)
{
    int64_t full = (int64_t)per_second[rate] * 1000;
    *out = (struct limit_state){ .limit = per_second[rate] };
    if (!full)
        return true;
    struct client *c = find(l, client, now_ms);
    struct bucket *b = &c->bucket[rate];
    int64_t gone_ms = now_ms - b->at_ms;
    c->seen_ms = now_ms;
    b->milli = gone_ms >= 1000 || b->milli + gone_ms * per_second[rate] > full ? full : b->milli + gone_ms * per_second[rate]; /* a ms gives so many thousandths */
    b->at_ms = now_ms;
    bool passes = b->milli >= 1000;
    if (passes)
        b->milli -= 1000;
    else
        out->wait_ms = (1000 - b->milli + per_second[rate] - 1) / per_second[rate];
    out->remaining = (int)(b->milli / 1000);
    out->reset_s = (int)((full - b->milli + full - 1) / full);
    return passes;
}
