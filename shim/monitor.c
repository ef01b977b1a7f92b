/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libkp's monitors in the loop, for app. Invariant: a look is never later than libkp says it is due, as far as the loop can help. */
#include "monitor.h"

#include <stdlib.h>

#include "loop.h"

struct monitor {
    struct kp_machine *machine;
    monitor_react *react;
    void *user;
    struct loop_timer *timer;
};

void monitor_look(struct monitor *w)
{
    int64_t now = loop_now_ms();
    unsigned reaction = kp_safety_check(w->machine, now);
    int64_t due = kp_safety_due(w->machine);
    loop_timer_set(w->timer, due > now ? due - now : 1);
    if (reaction)
        w->react(w->user, reaction);
}

static void on_timer(void *user)
{
    monitor_look(user);
}

struct monitor *monitor_new(struct loop *l, struct kp_machine *m, monitor_react *react, void *user)
{
    struct monitor *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->machine = m, w->react = react, w->user = user;
    w->timer = loop_timer_new(l, on_timer, w);
    if (!w->timer) {
        free(w);
        return NULL;
    }
    loop_timer_set(w->timer, 0);
    return w;
}

void monitor_free(struct monitor *w)
{
    if (!w)
        return;
    loop_timer_free(w->timer);
    free(w);
}
