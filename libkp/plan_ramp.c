/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The plan of pwm_ramp: the first value, then a delay and a step by turns. Steps are written when they are due, from numbers checked ahead.
 * Invariant: the last value is always written, and no value is outside the limits. */
#include "plan.h"

#include <math.h>
#include <string.h>

#define NEAR_MS 1e-6 /* three steps in 0.3 s are 100 ms each, whatever the floating point says */

void plan_pwm_ramp(struct plan *p)
{
    const struct kp_slot *pin = kp_call_slot(p->call, "pin");
    const struct kp_pin *at = pin->index < 0 ? NULL : kp_machine_pin(p->m, (size_t)pin->index);
    const struct kp_limits *l = kp_machine_limits(p->m);
    struct plan_ramp *r = &p->s->ramp;
    double ends[2] = { plan_num(p, "start_value"), plan_num(p, "end_value") }, duration_ms = plan_num(p, "duration") * 1000;
    plan_script(p, "ramp");
    r->steps = (int)plan_num(p, "steps");
    if (duration_ms + NEAR_MS < r->steps * (double)KP_PIN_GAP_MS)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "steps", "Klipper changes a pin every %d ms at most: %d steps take %g s or more", KP_PIN_GAP_MS, r->steps,
                   r->steps * (double)KP_PIN_GAP_MS / 1000);
    if (!at)
        return;
    for (int i = 0; i < 2; i++)
        ends[i] = pin->inverted ? 1 - ends[i] : ends[i];
    r->to = plan_pin(p, pin->index, ends[1], &(struct plan_field){ "end_value", pin->inverted, !pin->inverted }); /* checked like the first, and written over by it */
    tr_start(&p->now->text);
    p->now->write_count = 0;
    r->from = plan_pin(p, pin->index, ends[0], &(struct plan_field){ "start_value", pin->inverted, !pin->inverted });
    r->pin = pin->index;
    memcpy(r->name, at->name, sizeof r->name);
    r->servo = at->kind == KP_PIN_SERVO;
    r->full = at->scale > 0 ? at->scale : 1;
    r->min = at->kind == KP_PIN_PWM ? l->min_pwm : 0;
    r->interval_ms = duration_ms / r->steps;
    p->s->result.value = pin->inverted ? 1 - r->to : r->to;
    plan_delay(p);
    plan_script(p, "ramp");
    p->now->text = p->s->scripts[0].text; /* the same words, so that they are checked; written anew by each step */
}

void plan_ramp_write(struct kp_seq *s, double elapsed_ms)
{
    struct plan_ramp *r = &s->ramp;
    struct plan_script *script = &s->scripts[1];
    double due = floor(elapsed_ms / r->interval_ms);
    r->done = due >= r->steps ? r->steps : due > r->done ? (int)due : r->done + 1;
    double v = r->done == r->steps ? r->to : plan_round(r->from + (r->to - r->from) * r->done / r->steps);
    if (v != 0 && v < r->min)
        v = r->min; /* on its way from or to 0 */
    if (r->done == r->steps)
        s->result.late_ms = fmax(elapsed_ms - r->steps * r->interval_ms, 0);
    tr_start(&script->text);
    if (r->servo)
        tr_servo(&script->text, r->name, v * r->full);
    else
        tr_pin(&script->text, r->name, v * r->full);
    script->writes[0] = (struct kp_pin_write){ r->pin, v };
    script->write_count = 1;
}

int64_t plan_ramp_next(const struct kp_seq *s)
{
    return (int64_t)ceil((s->ramp.done + 1) * s->ramp.interval_ms - NEAR_MS);
}
