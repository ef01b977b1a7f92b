/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Ramps beside the lane: sequences that gave it back until their next step is due (kp.h, at KP_ACT_DELAY). Invariant: a ramp is in the lane while it has a
 * script in flight, else it is here or at its end, and of one pin there is one here at most. */
#include "lane_priv.h"

#include "loop.h"

/* When the next step may go out. */
static int64_t due_ms(const struct lane_job *j)
{
    int64_t planned = j->first_ms + j->after_ms, gap = j->accepted_ms + KP_PIN_GAP_MS;
    return planned > gap ? planned : gap;
}

static struct lane_job *earliest(const struct lane *n)
{
    struct lane_job *found = n->beside;
    for (struct lane_job *j = n->beside; j; j = j->next)
        if (due_ms(j) < due_ms(found))
            found = j;
    return found;
}

static void arm(struct lane *n)
{
    const struct lane_job *j = earliest(n);
    int64_t wait_ms = j ? due_ms(j) - loop_now_ms() : 0;
    if (j)
        loop_timer_set(n->ramps, wait_ms > 0 ? wait_ms : 0);
    else
        loop_timer_cancel(n->ramps);
}

static void take_out(struct lane *n, struct lane_job *job)
{
    struct lane_job **at = &n->beside;
    while (*at != job)
        at = &(*at)->next;
    *at = job->next;
    job->next = NULL;
}

void lane_ramp_aside(struct lane *n, struct lane_job *j, int64_t after_ms)
{
    if (j->first_ms == LANE_NEVER)
        j->first_ms = n->answered_ms;
    j->accepted_ms = n->answered_ms;
    j->after_ms = after_ms;
    j->next = n->beside;
    n->beside = j;
    arm(n);
}

struct lane_job *lane_ramp_due(const struct lane *n)
{
    struct lane_job *j = earliest(n);
    return j && due_ms(j) <= loop_now_ms() ? j : NULL;
}

void lane_ramp_back(struct lane *n, struct lane_job *j)
{
    take_out(n, j);
    arm(n);
}

bool lane_ramp_has(const struct lane *n, const struct lane_job *job)
{
    const struct lane_job *j = n->beside;
    while (j && j != job)
        j = j->next;
    return j != NULL;
}

/* Ends a ramp that lies here, by what its sequence says to the event. */
static void finish(struct lane *n, struct lane_job *j, enum kp_event ev, const struct kp_error *e)
{
    struct kp_faults f = { .count = 0 };
    struct kp_action a;
    kp_seq_step(j->seq, ev, 0, e, &a);
    if (a.kind == KP_ACT_FAIL)
        kp_faults_add(&f, &a.error);
    take_out(n, j);
    lane_job_tell(j, &f);
}

void lane_ramp_wrote(struct lane *n, int pin)
{
    for (struct lane_job *j = n->beside, *next; j; j = next) {
        next = j->next;
        if (kp_seq_leads(j->seq) == pin)
            finish(n, j, KP_EV_REPLACED, NULL);
    }
    arm(n);
}

void lane_ramp_end(struct lane *n, const struct kp_error *e)
{
    while (n->beside)
        finish(n, n->beside, KP_EV_ERROR, e);
    arm(n);
}
