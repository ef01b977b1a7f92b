/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Plans of feeder_advance and feeder_retract, by the kind of the feeder's motor. Invariant: Klipper's G-code state, its active extruder and what an
 * extruder_stepper follows are afterwards as they were, also when Klipper refuses the motion. */
#include "plan.h"

#include <math.h>
#include <string.h>

#define FEEDRATE_MM_MIN 100.0

/* Puts something on for the motion (to) or back. */
typedef void (*switcher)(struct plan *p, const struct kp_feeder *f, const char *to);

static void activate(struct plan *p, const struct kp_feeder *f, const char *to)
{
    (void)f;
    tr_word(&p->now->text, "ACTIVATE_EXTRUDER");
    tr_name(&p->now->text, "EXTRUDER=", to);
}

static void follow(struct plan *p, const struct kp_feeder *f, const char *to)
{
    tr_follow(&p->now->text, f->stepper, to);
}

/* The motion of the active extruder, in a frame. A switch is put back in it, and by a script of its own when Klipper refuses the motion. */
static void extrude(struct plan *p, const struct kp_feeder *f, double mm, double mm_min, switcher put, const char *to, const char *back)
{
    struct plan_step *step = &p->s->steps[p->s->step_count - 1];
    tr_open(&p->now->text);
    if (put)
        put(p, f, to);
    tr_extrude(&p->now->text, mm, mm_min);
    if (put)
        put(p, f, back);
    plan_end_move(p, true);
    if (!put)
        return;
    plan_end(p);
    step->way_out = (int)p->s->step_count;
    plan_script(p, "undo");
    put(p, f, back);
}

static void by_extruder(struct plan *p, const struct kp_feeder *f, double mm, double mm_min)
{
    const char *active = kp_machine_extruder(p->m);
    struct kp_error e;
    int motor;
    if (!active[0])
        PLAN_FAULT(p, KP_KLIPPY_DISCONNECTED, "feeder", "Klipper has not told which extruder is active");
    else if (!f->follower)
        extrude(p, f, mm, mm_min, strcmp(active, f->stepper) == 0 ? NULL : activate, f->stepper, active);
    else if (kp_machine_find_motor(p->m, kp_str_of(active), &motor, &e) == KP_OK && kp_machine_motor(p->m, (size_t)motor)->known)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "feeder", "%s follows %s, whose own motor would turn too: give [%s] no motor, or make the feeder a manual_stepper",
                   f->stepper, active, active);
    else
        extrude(p, f, mm, mm_min, strcmp(active, f->follows) == 0 ? NULL : follow, active, f->follows);
}

/* A macro may do anything: it is called with the neutral state, and nobody knows where it leaves the head. */
static void by_macro(struct plan *p, const struct kp_feeder *f, double mm, double mm_min)
{
    tr_open(&p->now->text);
    tr_word(&p->now->text, f->macro);
    tr_number(&p->now->text, "DISTANCE=", mm);
    tr_number(&p->now->text, "FEEDRATE=", mm_min);
    plan_end_move(p, true);
}

/* An axis on the same motor is told of both lines: Klipper may take the first and refuse the second, which is a script of its own for that. */
static void by_stepper(struct plan *p, const struct kp_feeder *f, double mm, double mm_min)
{
    const char *step = p->s->steps[p->s->step_count - 1].name;
    tr_stepper_zero(&p->now->text, f->stepper, false);
    plan_axis_lost(p, f->stepper, 0);
    if (p->now->axis_count > 0)
        plan_script(p, step);
    plan_axis_lost(p, f->stepper, mm);
    tr_stepper_move(&p->now->text, f->stepper, mm, mm_min / 60, f->accel_mm_s2, true);
    plan_end_move(p, true);
}

/* sign: -1 to retract. */
static void feed(struct plan *p, const char *name, double sign)
{
    const struct kp_slot *slot = kp_call_slot(p->call, "feeder"), *feedrate = kp_call_slot(p->call, "feedrate");
    plan_script(p, name);
    const struct kp_feeder *f = slot->index < 0 ? NULL : kp_machine_feeder(p->m, (size_t)slot->index);
    if (!f || f->fault[0]) {
        PLAN_FAULT(p, KP_FEEDER_NOT_FOUND, "feeder", "feeder %s cannot be used: %s", f ? f->name : slot->text, f ? f->fault : "it is no longer there");
        return;
    }
    if (feedrate->set)
        plan_feedrate(p, feedrate);
    double mm = sign * plan_num(p, "distance");
    double mm_min = feedrate->set ? feedrate->num : f->feedrate_mm_min > 0 ? f->feedrate_mm_min : FEEDRATE_MM_MIN;
    switch (f->kind) {
    case KP_FEEDER_STEPPER: by_stepper(p, f, mm, mm_min); break;
    case KP_FEEDER_EXTRUDER: by_extruder(p, f, mm, mm_min); break;
    case KP_FEEDER_MACRO: by_macro(p, f, mm, mm_min); break;
    }
}

void plan_feeder_advance(struct plan *p)
{
    feed(p, "advance", 1);
}

void plan_feeder_retract(struct plan *p)
{
    feed(p, "retract", -1);
}
