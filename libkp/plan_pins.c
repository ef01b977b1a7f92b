/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Plans of what only switches: actuators, vacuum, fans, PWM and plain pins; and the vacuum inside pick and place.
 * Invariant: a pump goes off only when no other open valve hangs on it. */
#include "plan.h"

#define POWER_FULL 255.0

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
    struct kp_vacuum v = kp_machine_vacuum(p->m);
    plan_pin(p, n->valve, 0, NULL);
    if (n == &p->plain && v.kind == KP_VACUUM_FAN)
        plan_fan(p, v.index, 0, NULL);
    else if (!pump_shared(p, n))
        plan_pin(p, n->pump, 0, NULL);
}

double plan_suck(struct plan *p, const struct kp_nozzle *n, const char *power)
{
    const struct kp_slot *slot = kp_call_slot(p->call, power);
    if (!(slot->num > 0)) {
        plan_let_go(p, n);
        return 0;
    }
    const struct plan_field asks = { power, 0, POWER_FULL }, *field = slot->set ? &asks : NULL; /* full power is what the limits leave of it */
    struct kp_vacuum v = kp_machine_vacuum(p->m);
    bool by_fan = n == &p->plain && v.kind == KP_VACUUM_FAN;
    double asked = slot->num / POWER_FULL, is = by_fan ? plan_fan(p, v.index, asked, field) : plan_pin(p, n->pump, asked, field);
    plan_pin(p, n->valve, 1, NULL);
    return is < asked ? is : asked; /* of a pump that is only on or off, as asked for */
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

/* power: the name of the parameter; NULL: off. */
static void vacuum(struct plan *p, const char *step, const char *power)
{
    plan_script(p, step);
    const struct kp_nozzle *n = plan_nozzle(p);
    if (!n)
        return;
    bool on = power && plan_num(p, power) > 0;
    if (n != &p->plain && n->pump < 0 && n->valve < 0)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "nozzle", "nozzle %s has neither pump nor valve", n->name);
    if (power)
        p->s->result.value = plan_suck(p, n, power);
    else
        plan_let_go(p, n);
    p->s->result.vacuum_enabled = on;
    end_pins(p);
}

void plan_vacuum_on(struct plan *p)
{
    vacuum(p, "vacuum_on", "power");
}

void plan_vacuum_off(struct plan *p)
{
    vacuum(p, "vacuum_off", NULL);
}

void plan_vacuum_set(struct plan *p)
{
    vacuum(p, "vacuum_set", "power");
}

/* The pin of the call; an inverted name turns the value round. */
static void write_pin(struct plan *p, double value)
{
    const struct kp_slot *pin = kp_call_slot(p->call, "pin");
    plan_script(p, "write");
    double v = plan_pin(p, pin->index, pin->inverted ? 1 - value : value, &(struct plan_field){ "value", pin->inverted, !pin->inverted });
    p->s->result.value = pin->inverted ? 1 - v : v;
}

static void actuate(struct plan *p, double value)
{
    write_pin(p, value);
    end_pins(p);
}

void plan_gpio_write(struct plan *p)
{
    actuate(p, plan_num(p, "value"));
}

void plan_actuate(struct plan *p)
{
    actuate(p, plan_num(p, "value"));
}

void plan_actuator_on(struct plan *p)
{
    actuate(p, 1);
}

void plan_actuator_off(struct plan *p)
{
    actuate(p, 0);
}

void plan_pwm_set(struct plan *p)
{
    const struct kp_slot *pin = kp_call_slot(p->call, "pin"), *cycle = kp_call_slot(p->call, "cycle_time");
    const struct kp_pin *at = pin->index < 0 ? NULL : kp_machine_pin(p->m, (size_t)pin->index);
    write_pin(p, plan_num(p, "value"));
    if (cycle->set && at && !at->cycle_settable)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "cycle_time", "the cycle time of %s is fixed: it is no pwm_cycle_time section", at->name);
    else if (cycle->set)
        tr_number(&p->now->text, "CYCLE_TIME=", cycle->num);
    end_pins(p);
}

/* speed: the name of the parameter; NULL: off. */
static void fan(struct plan *p, const char *step, const char *speed)
{
    const struct kp_slot *slot = kp_call_slot(p->call, "fan");
    const struct plan_field asks = { speed, 0, 1 };
    bool given = speed && kp_call_slot(p->call, speed)->set;
    plan_script(p, step);
    if (slot->index >= 0)
        p->s->result.value = plan_fan(p, slot->index, speed ? plan_num(p, speed) : 0, given ? &asks : NULL);
    end_pins(p);
}

void plan_fan_on(struct plan *p)
{
    fan(p, "fan_on", "speed");
}

void plan_fan_off(struct plan *p)
{
    fan(p, "fan_off", NULL);
}

void plan_fan_set(struct plan *p)
{
    fan(p, "fan_set", "speed");
}
