/* SPDX-License-Identifier: GPL-3.0-or-later */
/* When to ask Moonraker again, and when to stop asking, for the shim's client of it: the pace of retries, and a breaker per operation by its table.
 * A breaker that is open lets nothing through before its time is over or its owner says that the other side is there again. */
#include "kp.h"

/* One cell: where so many of the event in a row lead; before that the state stays. */
struct cell { enum kp_breaker_state next; unsigned after; };

#define SHUT KP_BREAKER_CLOSED
#define HALF KP_BREAKER_HALF_OPEN
#define OPEN KP_BREAKER_OPEN
static const struct cell cells[KP_BREAKER_STATES][KP_BREAKER_EVENTS] = {
    /*           FAILED                        WORKED                         DUE          BACK */
    [SHUT] = { { OPEN, KP_BREAKER_FAILURES }, { SHUT, 1 },                   { SHUT, 1 }, { SHUT, 1 } },
    [HALF] = { { OPEN, 1 },                   { SHUT, KP_BREAKER_SUCCESSES }, { HALF, 1 }, { SHUT, 1 } },
    [OPEN] = { { OPEN, 1 },                   { OPEN, 1 },                   { HALF, 1 }, { SHUT, 1 } },
};

const char *kp_breaker_name(enum kp_breaker_state state)
{
    static const char *const names[KP_BREAKER_STATES] = { [SHUT] = "closed", [HALF] = "half_open", [OPEN] = "open" };
    return (unsigned)state < KP_BREAKER_STATES ? names[state] : "";
}

void kp_breaker_step(struct kp_breaker *b, enum kp_breaker_event event, int64_t now_ms)
{
    const struct cell *c = &cells[b->state][event];
    if (event == KP_BREAKER_DUE && (b->state != OPEN || now_ms - b->opened_ms < KP_BREAKER_OPEN_MS))
        return;
    b->count = event == b->last ? b->count + 1 : 1;
    b->last = event;
    if (b->count < c->after)
        return;
    if (c->next == OPEN && b->state != OPEN)
        b->opened_ms = now_ms;
    if (c->next != b->state)
        b->count = 0;
    b->state = c->next;
}

bool kp_breaker_allows(struct kp_breaker *b, int64_t now_ms)
{
    kp_breaker_step(b, KP_BREAKER_DUE, now_ms);
    return b->state != OPEN;
}

int64_t kp_breaker_retry_ms(unsigned retries, double jitter, int64_t now_ms, int64_t deadline_ms)
{
    static const int64_t apart_ms[KP_BREAKER_RETRIES] = { 1000, 2000, 4000, 8000, 16000 };
    int64_t wait_ms;
    if (retries >= KP_BREAKER_RETRIES)
        return -1;
    wait_ms = (int64_t)((double)apart_ms[retries] * (1 - KP_BREAKER_JITTER + 2 * KP_BREAKER_JITTER * jitter));
    return wait_ms < deadline_ms - now_ms ? wait_ms : -1;
}
