/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Steppers, endstops and their trigger groups, for mcu.c. A stepper that was stopped takes no step before its clock is set anew. */
#include <stdio.h>

#include "mcu.h"
#include "world.h"

/* No step for this long: the motion has ended. */
static const uint64_t quiet_ticks = TICKS_PER_S / 40;

struct trsync {
    struct obj obj;
    struct timer report, expire;
    uint32_t report_ticks;
    uint8_t reason, expire_reason;
    bool can_trigger;
};

struct endstop {
    struct obj obj;
    struct timer timer;
    int pin;
    uint32_t sample_ticks, rest_ticks;
    uint32_t sample_count, left;
    uint64_t next_clock; /* of the sample after the one that matched first */
    bool homing, want, matching;
    struct trsync *sync;
    uint8_t reason;
};

/* ---- steppers ---- */

static void motion_end(struct mcu *m, struct stepper *s, bool cut)
{
    struct step_stat *st = &m->steps[s->step_pin];
    char name[NAME_SIZE];

    timer_del(&s->quiet);
    if (!s->running) return;
    s->running = false;
    log_event(m->log, (struct when){.ns = st->last_ns, .clock = st->last_clock}, "motion_end",
        ",\"stepper\":\"%s\",\"steps\":%llu,\"total_position\":%lld,\"cut\":%s", world_stepper_name(m->world, s->step_pin, name),
        (unsigned long long)s->run_steps, (long long)st->position, cut ? "true" : "false");
}

static void quiet_event(struct mcu *m, struct timer *t)
{
    struct stepper *s = (struct stepper *)((char *)t - offsetof(struct stepper, quiet));

    motion_end(m, s, false);
}

/* Takes the next entry of the queue. From standstill the clock is added in 32 bits: after homing the host sets it to 0 and sends
 * an interval that is the first step's clock. */
static void stepper_load(struct mcu *m, struct stepper *s, bool standing)
{
    const struct move *mv = s->queue.head;
    uint64_t first;

    if (!mv) {
        s->count = 0;
        timer_add(m, &s->quiet, s->step_clock + quiet_ticks);
        return;
    }
    s->interval = mv->interval;
    s->count = mv->count;
    s->add = mv->add;
    if (s->dir != mv->dir) {
        s->dir = mv->dir;
        m->pins->at[s->dir_pin].value = s->dir;
    }
    move_pop(m, &s->queue);
    timer_del(&s->quiet);
    first = s->step_clock + s->interval;
    if (standing) {
        first = mcu_wide_clock(m, (uint32_t)first);
        if (first > s->step_clock + quiet_ticks) motion_end(m, s, false); /* told early of a motion that begins later */
    }
    timer_add(m, &s->timer, first);
}

static void note_step(struct mcu *m, struct stepper *s, struct when at)
{
    struct step_stat *st = &m->steps[s->step_pin];
    char name[NAME_SIZE];

    if (!s->running) {
        s->running = true;
        s->run_steps = 0;
        log_event(m->log, at, "motion_start", ",\"stepper\":\"%s\",\"dir\":%d,\"total_position\":%lld", world_stepper_name(m->world, s->step_pin, name),
            s->dir ? 1 : -1, (long long)st->position);
    }
    s->run_steps++;
    s->position += s->dir ? 1 : -1;
    st->total++;
    st->position += s->dir ? 1 : -1;
    st->last_ns = at.ns;
    st->last_clock = at.clock;
    if (m->log_steps) log_event(m->log, at, "step", ",\"stepper\":\"%s\",\"dir\":%d", world_stepper_name(m->world, s->step_pin, name), s->dir ? 1 : -1);
}

static void step_event(struct mcu *m, struct timer *t)
{
    struct stepper *s = (struct stepper *)((char *)t - offsetof(struct stepper, timer));
    struct when at = mcu_when(m);

    s->step_clock = t->clock;
    note_step(m, s, at);
    world_step(m->world, s->step_pin, s->dir, at);
    if (--s->count) {
        s->interval += (uint32_t)s->add;
        timer_add(m, t, t->clock + s->interval);
    } else {
        stepper_load(m, s, false);
    }
}

static void stepper_halt(struct mcu *m, struct stepper *s)
{
    bool cut = s->count != 0;

    timer_del(&s->timer);
    move_clear(m, &s->queue);
    s->count = 0;
    s->need_reset = true;
    s->next_dir = false;
    s->stop = NULL;
    motion_end(m, s, cut);
}

void cmd_config_stepper(struct mcu *m, const uint32_t *a)
{
    struct stepper *s;

    if (!mcu_pin(m, a[1], PIN_STEP) || !mcu_pin(m, a[2], PIN_DIR)) return;
    s = obj_new(m, a[0], OBJ_STEPPER, sizeof *s);
    if (!s) return;
    s->step_pin = (int)a[1];
    s->dir_pin = (int)a[2];
    s->timer = (struct timer){.fn = step_event, .kind = LATE_STEP};
    s->quiet = (struct timer){.fn = quiet_event};
}

void cmd_queue_step(struct mcu *m, const uint32_t *a)
{
    struct stepper *s = obj_get(m, a[0], OBJ_STEPPER);
    struct move *mv;

    if (!s || (s->need_reset && !s->count)) return;
    if (!a[2]) {
        mcu_shutdown(m, "Invalid count parameter");
        return;
    }
    mv = move_new(m, &s->queue);
    if (!mv) return;
    mv->interval = a[1];
    mv->count = a[2] & 0xffff;
    mv->add = (int16_t)a[3];
    mv->dir = s->next_dir;
    if (!s->count) stepper_load(m, s, true);
}

void cmd_set_next_step_dir(struct mcu *m, const uint32_t *a)
{
    struct stepper *s = obj_get(m, a[0], OBJ_STEPPER);

    if (s) s->next_dir = a[1] != 0;
}

void cmd_reset_step_clock(struct mcu *m, const uint32_t *a)
{
    struct stepper *s = obj_get(m, a[0], OBJ_STEPPER);

    if (!s) return;
    if (s->count) {
        mcu_shutdown(m, "Can't reset time when stepper active");
        return;
    }
    s->step_clock = mcu_wide_clock(m, a[1]);
    s->need_reset = false;
}

void cmd_stepper_get_position(struct mcu *m, const uint32_t *a)
{
    struct stepper *s = obj_get(m, a[0], OBJ_STEPPER);

    if (s) mcu_reply(m, RSP_STEPPER, (uint32_t[]){a[0], (uint32_t)s->position}, 2);
}

void cmd_stepper_stop_on_trigger(struct mcu *m, const uint32_t *a)
{
    struct stepper *s = obj_get(m, a[0], OBJ_STEPPER);
    struct trsync *ts = s ? obj_get(m, a[1], OBJ_TRSYNC) : NULL;

    if (!ts) return;
    if (s->stop) {
        mcu_shutdown(m, "Can't add signal that is already active");
        return;
    }
    s->stop = ts;
}

/* ---- trigger groups ---- */

static void trsync_send(struct mcu *m, const struct trsync *ts, bool can, uint32_t clock)
{
    mcu_reply(m, RSP_TRSYNC, (uint32_t[]){ts->obj.oid, can, ts->reason, clock}, 4);
}

static void trsync_each_stepper(struct mcu *m, const struct trsync *ts, void (*fn)(struct mcu *, struct stepper *))
{
    for (unsigned i = 0; i < m->oid_count; i++) {
        struct stepper *s = (struct stepper *)m->oids[i];
        if (s && s->obj.kind == OBJ_STEPPER && s->stop == ts) fn(m, s);
    }
}

static void stepper_forget_stop(struct mcu *m, struct stepper *s)
{
    (void)m;
    s->stop = NULL;
}

static void trsync_fire(struct mcu *m, struct trsync *ts, uint8_t reason)
{
    if (!ts->can_trigger) return;
    ts->can_trigger = false;
    ts->reason = reason;
    log_event(m->log, mcu_when(m), "trigger", ",\"reason\":%d", reason);
    trsync_each_stepper(m, ts, stepper_halt);
}

static void report_event(struct mcu *m, struct timer *t)
{
    struct trsync *ts = (struct trsync *)((char *)t - offsetof(struct trsync, report));

    trsync_send(m, ts, ts->can_trigger, (uint32_t)m->at);
    timer_add(m, t, t->clock + ts->report_ticks);
}

static void expire_event(struct mcu *m, struct timer *t)
{
    struct trsync *ts = (struct trsync *)((char *)t - offsetof(struct trsync, expire));

    if (!ts->can_trigger) return;
    trsync_fire(m, ts, ts->expire_reason);
    trsync_send(m, ts, false, (uint32_t)m->at);
}

static void trsync_clear(struct mcu *m, struct trsync *ts)
{
    timer_del(&ts->report);
    timer_del(&ts->expire);
    trsync_each_stepper(m, ts, stepper_forget_stop);
    ts->can_trigger = false;
    ts->reason = ts->expire_reason = 0;
}

void cmd_config_trsync(struct mcu *m, const uint32_t *a)
{
    struct trsync *ts = obj_new(m, a[0], OBJ_TRSYNC, sizeof *ts);

    if (!ts) return;
    ts->report = (struct timer){.fn = report_event, .kind = LATE_TRSYNC};
    ts->expire = (struct timer){.fn = expire_event, .kind = LATE_TRSYNC};
}

void cmd_trsync_start(struct mcu *m, const uint32_t *a)
{
    struct trsync *ts = obj_get(m, a[0], OBJ_TRSYNC);

    if (!ts) return;
    trsync_clear(m, ts);
    ts->can_trigger = true;
    ts->expire_reason = (uint8_t)a[3];
    ts->report_ticks = a[2];
    if (ts->report_ticks) timer_add(m, &ts->report, mcu_wide_clock(m, a[1]));
}

void cmd_trsync_set_timeout(struct mcu *m, const uint32_t *a)
{
    struct trsync *ts = obj_get(m, a[0], OBJ_TRSYNC);

    if (ts && ts->can_trigger) timer_add(m, &ts->expire, mcu_wide_clock(m, a[1]));
}

void cmd_trsync_trigger(struct mcu *m, const uint32_t *a)
{
    struct trsync *ts = obj_get(m, a[0], OBJ_TRSYNC);

    if (!ts) return;
    trsync_fire(m, ts, (uint8_t)a[1]);
    timer_del(&ts->report);
    timer_del(&ts->expire);
    trsync_send(m, ts, false, 0);
}

/* ---- endstops ---- */

static void endstop_event(struct mcu *m, struct timer *t)
{
    struct endstop *e = (struct endstop *)((char *)t - offsetof(struct endstop, timer));
    bool match = (m->pins->at[e->pin].value > 0.5) == e->want;

    if (!match) {
        uint64_t next = e->matching ? e->next_clock : t->clock + e->rest_ticks;
        e->matching = false;
        e->left = e->sample_count;
        timer_add(m, t, next);
        return;
    }
    if (!e->matching) {
        e->matching = true;
        e->next_clock = t->clock + e->rest_ticks;
    }
    if (--e->left) {
        timer_add(m, t, t->clock + e->sample_ticks);
        return;
    }
    if (e->sync->can_trigger) {
        trsync_fire(m, e->sync, e->reason);
        trsync_send(m, e->sync, false, (uint32_t)m->at);
    }
}

void cmd_config_endstop(struct mcu *m, const uint32_t *a)
{
    struct endstop *e;

    if (!mcu_pin(m, a[1], PIN_IN)) return;
    e = obj_new(m, a[0], OBJ_ENDSTOP, sizeof *e);
    if (!e) return;
    e->pin = (int)a[1];
    e->timer = (struct timer){.fn = endstop_event, .kind = LATE_ENDSTOP};
}

void cmd_endstop_home(struct mcu *m, const uint32_t *a)
{
    struct endstop *e = obj_get(m, a[0], OBJ_ENDSTOP);
    struct trsync *ts;

    if (!e) return;
    timer_del(&e->timer);
    e->homing = false;
    if (!a[3]) return;
    ts = obj_get(m, a[6], OBJ_TRSYNC);
    if (!ts) return;
    e->sync = ts;
    e->reason = (uint8_t)a[7];
    e->sample_ticks = a[2];
    e->sample_count = e->left = a[3];
    e->rest_ticks = a[4] ? a[4] : 1; /* 0 would never get on */
    e->want = a[5] != 0;
    e->matching = false;
    e->homing = true;
    timer_add(m, &e->timer, mcu_wide_clock(m, a[1]));
}

void cmd_endstop_query_state(struct mcu *m, const uint32_t *a)
{
    struct endstop *e = obj_get(m, a[0], OBJ_ENDSTOP);

    if (e) mcu_reply(m, RSP_ENDSTOP, (uint32_t[]){a[0], e->homing, (uint32_t)e->next_clock, m->pins->at[e->pin].value > 0.5}, 4);
}

void motion_shutdown(struct mcu *m, struct obj *o)
{
    if (o->kind == OBJ_STEPPER)
        stepper_halt(m, (struct stepper *)o);
    else if (o->kind == OBJ_TRSYNC)
        trsync_clear(m, (struct trsync *)o);
    else if (o->kind == OBJ_ENDSTOP)
        timer_del(&((struct endstop *)o)->timer);
}
