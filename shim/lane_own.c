/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the lane sends for itself before a command: a restore that it owes, the joining of extra axes to moves, the neutral state. Invariant: no command
 * goes out while one of these is owed. */
#include "lane_priv.h"

#include <math.h>
#include <string.h>

#include "log.h"

#define NO_STATE "Unknown g-code state" /* Klipper's answer to a restore of what this Klipper never saved */

static void on_restored(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct kp_error e;
    bool ok = lane_script_answered(n, r, &e);
    if (ok || (r->outcome == MR_ERROR && r->message && strstr(r->message, NO_STATE))) {
        n->restore_owed = false;
        lane_advance(n);
    } else {
        lane_head_fail(n, &e); /* still owed: nothing moves on a state that is not the client's */
    }
}

/* How an axis is moved on this Klipper is known. */
static void joined(struct lane *n, bool yes, const char *why)
{
    const struct kp_axis *a = kp_machine_axis(n->machine, (size_t)n->join_axis);
    log_line(LOG_INFO, "lane", "axis=%c joined=%s why=\"%s\"", a ? a->letter : '?', yes ? "yes" : "no", why);
    kp_machine_axis_joined(n->machine, n->join_axis, yes);
    n->wait = IDLE;
    if (n->running)
        lane_advance(n);
    else
        lane_wake(n);
}

static void on_unjoined(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct kp_error e;
    joined(n, false, lane_script_answered(n, r, &e) ? "its M114 could not bear it" : e.message);
}

static void on_joined(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct kp_error e;
    if (!lane_script_answered(n, r, &e))
        joined(n, false, e.message);
    else if (kp_machine_joins(n->machine))
        joined(n, true, "");
    else
        lane_wait_for_push(n, JOIN_PUSH, LANE_ASK_MS);
}

static void on_neutral(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct kp_error e;
    if (lane_script_answered(n, r, &e))
        lane_wait_for_push(n, NEUTRAL_PUSH, LANE_ASK_MS);
    else
        lane_job_fail(n, &e);
}

void lane_own_restore(struct lane *n)
{
    lane_send(n, kp_script_restore(), RESTORE, on_restored);
}

void lane_own_join(struct lane *n)
{
    n->join_axis = kp_machine_joining(n->machine);
    if (kp_script_join(n->machine, n->join_axis, n->join_text) == 0)
        joined(n, false, "its script cannot be written");
    else
        lane_send(n, n->join_text, JOIN, on_joined);
}

void lane_own_join_pushed(struct lane *n)
{
    if (!lane_covered(n))
        return;
    if (kp_machine_joins(n->machine) || kp_script_unjoin(n->machine, n->join_axis, n->join_text) == 0)
        joined(n, true, "");
    else
        lane_send(n, n->join_text, JOIN, on_unjoined);
}

void lane_own_neutral(struct lane *n)
{
    if (!lane_covered(n) || !kp_machine_commanded(n->machine, n->neutral_at) || !kp_script_neutral(n->machine, n->neutral_text)) {
        lane_wait_for_push(n, PLAN_PUSH, LANE_ASK_MS);
        return;
    }
    lane_send(n, n->neutral_text, NEUTRAL, on_neutral);
}

void lane_own_neutral_pushed(struct lane *n)
{
    double is[3];
    if (!lane_covered(n))
        return;
    bool same = kp_machine_commanded(n->machine, is);
    for (int i = 0; same && i < 3; i++)
        same = fabs(is[i] - n->neutral_at[i]) < 1e-6;
    n->neutral_owed = !same;
    lane_advance(n);
}
