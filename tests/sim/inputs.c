/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Analog inputs and buttons, for mcu.c. A button group wakes only while a pin differs or a report is unanswered. */
#include <string.h>

#include "mcu.h"
#include "world.h"

enum { BUTTONS_MAX = 8, REPORTS_MAX = 8 };

struct adc {
    struct obj obj;
    struct timer timer; /* the last sample of a row */
    int pin;
    uint32_t sample_ticks, rest_ticks, sample_count;
    uint32_t min, max, range_checks, out_of_range;
    uint64_t begin; /* of the row */
};

struct buttons {
    struct obj obj;
    struct timer timer;
    unsigned n;
    int pins[BUTTONS_MAX];
    uint32_t rest_ticks;
    uint64_t grid; /* clock of some sample: all others are whole rests away */
    uint8_t pressed, last, ack, reports[REPORTS_MAX];
    unsigned report_n;
    uint32_t retransmit_count, retransmit_left;
    bool waiting; /* for an ack */
};

/* ---- analog ---- */

static void adc_event(struct mcu *m, struct timer *t)
{
    struct adc *a = (struct adc *)((char *)t - offsetof(struct adc, timer));
    struct when at = mcu_when(m);
    uint32_t sum = 0;

    for (uint32_t i = 0; i < a->sample_count; i++) sum += (uint32_t)(world_adc(m->world, a->pin, at.ns, true) * ADC_MAX + 0.5);
    sum &= 0xffff; /* the firmware adds up in 16 bits */
    a->begin += a->rest_ticks;
    if (sum >= a->min && sum <= a->max) {
        a->out_of_range = 0;
    } else if (++a->out_of_range >= a->range_checks) {
        mcu_shutdown(m, "ADC out of range");
        return;
    }
    mcu_reply(m, RSP_ADC, (uint32_t[]){a->obj.oid, (uint32_t)a->begin, sum}, 3);
    if (a->rest_ticks) timer_add(m, t, a->begin + (uint64_t)a->sample_ticks * (a->sample_count - 1));
}

void cmd_config_analog_in(struct mcu *m, const uint32_t *v)
{
    struct adc *a;

    if (!mcu_pin(m, v[1], PIN_ADC)) return;
    a = obj_new(m, v[0], OBJ_ADC, sizeof *a);
    if (!a) return;
    a->pin = (int)v[1];
    a->timer = (struct timer){.fn = adc_event, .kind = LATE_ADC};
}

void cmd_query_analog_in(struct mcu *m, const uint32_t *v)
{
    struct adc *a = obj_get(m, v[0], OBJ_ADC);

    if (!a) return;
    timer_del(&a->timer);
    a->begin = mcu_wide_clock(m, v[1]);
    a->sample_ticks = v[2];
    a->sample_count = v[3];
    a->rest_ticks = v[4];
    a->min = v[5];
    a->max = v[6];
    a->range_checks = v[7];
    a->out_of_range = 0;
    if (a->sample_count) timer_add(m, &a->timer, a->begin + (uint64_t)a->sample_ticks * (a->sample_count - 1));
}

/* ---- buttons ---- */

static void buttons_send(struct mcu *m, struct buttons *b)
{
    struct msg msg = {.n = 0};

    msg_int(&msg, mcu_response_id(RSP_BUTTONS));
    msg_int(&msg, b->obj.oid);
    msg_int(&msg, b->ack);
    msg_int(&msg, b->report_n);
    msg_bytes(&msg, b->reports, b->report_n);
    proto_send(&m->proto, &msg);
    b->retransmit_left = b->retransmit_count;
    b->waiting = true;
}

static uint8_t buttons_read(const struct mcu *m, const struct buttons *b)
{
    unsigned v = 0;

    for (unsigned i = 0; i < b->n; i++)
        if (b->pins[i] != PIN_NONE && m->pins->at[b->pins[i]].value > 0.5) v |= 1u << i;
    return (uint8_t)v;
}

static void buttons_event(struct mcu *m, struct timer *t)
{
    struct buttons *b = (struct buttons *)((char *)t - offsetof(struct buttons, timer));
    uint8_t now = buttons_read(m, b);
    unsigned stable = ~(unsigned)(now ^ b->last) & 0xff; /* same in two samples */
    unsigned fresh = (unsigned)(now ^ b->pressed) & stable;

    b->grid = t->clock;
    b->last = now;
    if (fresh) {
        b->pressed = (uint8_t)(b->pressed ^ fresh);
        if (b->report_n < REPORTS_MAX) b->reports[b->report_n++] = b->pressed;
        buttons_send(m, b);
    } else if (b->waiting && b->retransmit_left-- == 0) {
        buttons_send(m, b);
    }
    if (b->waiting || now != b->pressed) timer_add(m, t, t->clock + b->rest_ticks);
}

static void buttons_wake(struct mcu *m, struct buttons *b)
{
    uint64_t next = b->grid;

    if (!b->rest_ticks || timer_armed(&b->timer) || m->shutdown_id) return;
    if (m->at >= next) next += ((m->at - next) / b->rest_ticks + 1) * b->rest_ticks;
    timer_add(m, &b->timer, next);
}

void inputs_pin_changed(struct mcu *m, int pin)
{
    for (unsigned i = 0; i < m->oid_count; i++) {
        struct buttons *b = (struct buttons *)m->oids[i];
        if (!b || b->obj.kind != OBJ_BUTTONS) continue;
        for (unsigned k = 0; k < b->n; k++)
            if (b->pins[k] == pin) buttons_wake(m, b);
    }
}

void cmd_config_buttons(struct mcu *m, const uint32_t *v)
{
    struct buttons *b;

    if (v[1] > BUTTONS_MAX) {
        mcu_shutdown(m, "Max of 8 buttons");
        return;
    }
    b = obj_new(m, v[0], OBJ_BUTTONS, sizeof *b);
    if (!b) return;
    b->n = v[1];
    for (unsigned i = 0; i < BUTTONS_MAX; i++) b->pins[i] = PIN_NONE;
    b->timer = (struct timer){.fn = buttons_event, .kind = LATE_BUTTON};
}

void cmd_buttons_add(struct mcu *m, const uint32_t *v)
{
    struct buttons *b = obj_get(m, v[0], OBJ_BUTTONS);

    if (!b) return;
    if (v[1] >= b->n)
        mcu_shutdown(m, "Set button past maximum button count");
    else if (mcu_pin(m, v[2], PIN_IN))
        b->pins[v[1]] = (int)v[2];
}

void cmd_buttons_query(struct mcu *m, const uint32_t *v)
{
    struct buttons *b = obj_get(m, v[0], OBJ_BUTTONS);

    if (!b) return;
    timer_del(&b->timer);
    b->grid = mcu_wide_clock(m, v[1]);
    b->rest_ticks = v[2];
    b->retransmit_count = v[3];
    b->pressed = b->last = (uint8_t)v[4];
    b->ack = 0;
    b->report_n = 0;
    b->waiting = false;
    if (b->rest_ticks) timer_add(m, &b->timer, b->grid);
}

void cmd_buttons_ack(struct mcu *m, const uint32_t *v)
{
    struct buttons *b = obj_get(m, v[0], OBJ_BUTTONS);
    unsigned n;

    if (!b) return;
    n = v[1] < b->report_n ? v[1] : b->report_n;
    b->ack = (uint8_t)(b->ack + v[1]);
    memmove(b->reports, b->reports + n, b->report_n - n);
    b->report_n -= n;
    if (!b->report_n) b->waiting = false;
}

void inputs_shutdown(struct mcu *m, struct obj *o)
{
    (void)m;
    if (o->kind == OBJ_ADC)
        timer_del(&((struct adc *)o)->timer);
    else if (o->kind == OBJ_BUTTONS)
        timer_del(&((struct buttons *)o)->timer);
}
