/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Digital and PWM outputs, for mcu.c. Software PWM is kept as its duty, not as edges. A shutdown sets the default value. */
#include "mcu.h"

struct out {
    struct obj obj; /* OBJ_OUT or OBJ_PWM */
    struct timer timer;
    int pin;
    uint32_t cycle_ticks; /* of software PWM, 0: plain digital */
    uint32_t max_duration; /* ticks away from the default value, 0: no limit */
    double value, default_value;
    uint64_t end_clock; /* when something must happen, if check_end */
    bool check_end;
    struct move_queue queue;
};

static double out_level(const struct out *o, uint32_t v)
{
    if (o->obj.kind == OBJ_PWM) return v >= PWM_MAX ? 1 : (double)v / PWM_MAX;
    if (!o->cycle_ticks) return v != 0;
    return v >= o->cycle_ticks ? 1 : (double)v / o->cycle_ticks;
}

static void out_set(struct mcu *m, struct out *o, double value)
{
    o->value = value;
    pin_set(m->pins, o->pin, value, mcu_when(m));
}

static const char *text_missed(const struct out *o)
{
    return o->obj.kind == OBJ_PWM ? "Missed scheduling of next hard pwm event" : "Missed scheduling of next digital out event";
}

static const char *text_exceed(const struct out *o)
{
    return o->obj.kind == OBJ_PWM ? "Scheduled pwm event will exceed max_duration" : "Scheduled digital out event will exceed max_duration";
}

/* Arms the end of the longest time that the pin may stay away from its default. */
static void arm_end(struct mcu *m, struct out *o, uint64_t from)
{
    o->check_end = o->max_duration && o->value != o->default_value;
    if (!o->check_end) return;
    o->end_clock = from + o->max_duration;
    timer_add(m, &o->timer, o->end_clock);
}

static void out_event(struct mcu *m, struct timer *t)
{
    struct out *o = (struct out *)((char *)t - offsetof(struct out, timer));
    uint64_t now = t->clock;

    if (!o->queue.head) {
        mcu_shutdown(m, text_missed(o));
        return;
    }
    out_set(m, o, out_level(o, o->queue.head->value));
    move_pop(m, &o->queue);
    arm_end(m, o, now);
    if (!o->queue.head) return;
    if (o->check_end && o->end_clock < o->queue.head->clock) {
        mcu_shutdown(m, text_exceed(o));
        return;
    }
    timer_add(m, t, o->queue.head->clock);
}

static void out_queue(struct mcu *m, struct out *o, uint32_t clock, uint32_t value)
{
    struct move *mv = move_new(m, &o->queue);

    if (!mv) return;
    mv->clock = mcu_wide_clock(m, clock);
    mv->value = value;
    if (o->queue.head != mv) return;
    if (o->check_end && o->end_clock < mv->clock) {
        mcu_shutdown(m, text_exceed(o));
        return;
    }
    timer_add(m, &o->timer, mv->clock);
}

void cmd_config_digital_out(struct mcu *m, const uint32_t *a)
{
    struct out *o;

    if (!mcu_pin(m, a[1], PIN_OUT)) return;
    o = obj_new(m, a[0], OBJ_OUT, sizeof *o);
    if (!o) return;
    o->pin = (int)a[1];
    o->default_value = a[3] != 0;
    o->max_duration = a[4];
    o->timer = (struct timer){.fn = out_event, .kind = LATE_PIN};
    out_set(m, o, a[2] != 0);
}

void cmd_set_digital_out_pwm_cycle(struct mcu *m, const uint32_t *a)
{
    struct out *o = obj_get(m, a[0], OBJ_OUT);

    if (!o) return;
    if (o->queue.head) {
        mcu_shutdown(m, "Can not set soft pwm cycle ticks while updates pending");
        return;
    }
    o->cycle_ticks = a[1];
    m->pins->at[o->pin].role = PIN_PWM;
}

void cmd_queue_digital_out(struct mcu *m, const uint32_t *a)
{
    struct out *o = obj_get(m, a[0], OBJ_OUT);

    if (o) out_queue(m, o, a[1], a[2]);
}

void cmd_update_digital_out(struct mcu *m, const uint32_t *a)
{
    struct out *o = obj_get(m, a[0], OBJ_OUT);

    if (!o) return;
    if (o->queue.head) {
        mcu_shutdown(m, "update_digital_out not valid with active queue");
        return;
    }
    timer_del(&o->timer);
    out_set(m, o, a[1] != 0);
    arm_end(m, o, m->at);
}

void cmd_set_digital_out(struct mcu *m, const uint32_t *a)
{
    if (mcu_pin(m, a[0], PIN_OUT)) pin_set(m->pins, (int)a[0], a[1] != 0, mcu_when(m));
}

void cmd_config_pwm_out(struct mcu *m, const uint32_t *a)
{
    struct out *o;

    if (!mcu_pin(m, a[1], PIN_PWM)) return;
    o = obj_new(m, a[0], OBJ_PWM, sizeof *o);
    if (!o) return;
    o->pin = (int)a[1];
    o->default_value = out_level(o, a[4]);
    o->max_duration = a[5];
    o->timer = (struct timer){.fn = out_event, .kind = LATE_PIN};
    out_set(m, o, out_level(o, a[3]));
}

void cmd_queue_pwm_out(struct mcu *m, const uint32_t *a)
{
    struct out *o = obj_get(m, a[0], OBJ_PWM);

    if (o) out_queue(m, o, a[1], a[2]);
}

void cmd_set_pwm_out(struct mcu *m, const uint32_t *a)
{
    if (mcu_pin(m, a[0], PIN_PWM)) pin_set(m->pins, (int)a[0], a[2] >= PWM_MAX ? 1 : (double)a[2] / PWM_MAX, mcu_when(m));
}

void outputs_shutdown(struct mcu *m, struct obj *obj)
{
    struct out *o = (struct out *)obj;

    if (obj->kind != OBJ_OUT && obj->kind != OBJ_PWM) return;
    timer_del(&o->timer);
    move_clear(m, &o->queue);
    o->check_end = false;
    out_set(m, o, o->default_value);
}
