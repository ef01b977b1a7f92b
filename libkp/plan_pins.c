/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Plans of what only switches: vacuum_on, vacuum_off, vacuum_set, gpio_write; and the vacuum inside pick and place.
 * Invariant: a pump goes off only when no other open valve hangs on it. */
#include "plan.h"

#define POWER_FULL 255.0

void plan_suck(struct plan *p, const struct kp_nozzle *n, double power)
{
    plan_pin(p, n->pump, power / POWER_FULL);
    plan_pin(p, n->valve, 1);
}

/* A valve of another nozzle on the same pump is open, as last told or as we wrote it. */
static bool pump_shared(const struct plan *p, const struct kp_nozzle *n)
{
    const struct kp_nozzle *other;
    for (size_t i = 0; (other = kp_machine_nozzle(p->m, i)); i++) {
        const struct kp_pin *valve = other->valve < 0 ? NULL : kp_machine_pin(p->m, (size_t)other->valve);
        if (!valve || other == n || other->pump != n->pump || other->valve == n->valve)
            continue;
        if (valve->dirty ? valve->expected > 0 : valve->known && valve->value > 0)
            return true;
    }
    return false;
}

void plan_let_go(struct plan *p, const struct kp_nozzle *n)
{
    plan_pin(p, n->valve, 0);
    if (!pump_shared(p, n))
        plan_pin(p, n->pump, 0);
}

/* Ends a script of pins alone. */
static void end_pins(struct plan *p)
{
    bool wait = kp_call_slot(p->call, "wait")->flag;
    if (wait) {
        tr_wait(&p->now->text);
        plan_settle(p);
    } else if (p->flush) {
        tr_flush(&p->now->text);
    }
    p->s->result.completed = wait;
}

static void vacuum(struct plan *p, const char *step, double power)
{
    int index;
    plan_script(p, step);
    const struct kp_nozzle *n = plan_nozzle(p, &index);
    if (!n)
        return;
    if (n->pump < 0 && n->valve < 0)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "nozzle", "nozzle %s has neither pump nor valve", n->name);
    if (power > 0)
        plan_suck(p, n, power);
    else
        plan_let_go(p, n);
    p->s->result.vacuum_enabled = power > 0;
    end_pins(p);
}

void plan_vacuum_on(struct plan *p)
{
    vacuum(p, "vacuum_on", plan_num(p, "power"));
}

void plan_vacuum_off(struct plan *p)
{
    vacuum(p, "vacuum_off", 0);
}

void plan_vacuum_set(struct plan *p)
{
    vacuum(p, "vacuum_set", plan_num(p, "power"));
}

void plan_gpio_write(struct plan *p)
{
    const struct kp_slot *pin = kp_call_slot(p->call, "pin");
    bool on = plan_num(p, "value") > 0;
    plan_script(p, "write");
    plan_pin(p, pin->index, on != pin->inverted);
    end_pins(p);
}
