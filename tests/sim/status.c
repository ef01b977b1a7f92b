/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Everything as JSON, for the control socket. Reads only. */
#include <inttypes.h>
#include <stdlib.h>

#include "control.h"

static const char *json_bool(bool v)
{
    return v ? "true" : "false";
}

static void put_ns(struct buf *b, int64_t ns)
{
    buf_printf(b, "%" PRId64 ".%06" PRId64, ns / 1000000000, ns % 1000000000 / 1000);
}

void status_pin(struct buf *b, struct world *w, int pin, int64_t now_ns)
{
    const struct pin *p = &w->pins->at[pin];
    bool analog = p->role == PIN_ADC;
    char text[8];

    for (int i = 0; i < w->nozzle_n; i++) analog = analog || w->nozzles[i].adc.pin == pin;
    buf_printf(b, "{\"name\":\"%s\",\"pin\":\"%s\",\"value\":%.6g,\"role\":\"%s\",\"forced\":%s,\"changed_s\":", p->name, pin_text(pin, text),
        analog ? world_adc(w, pin, now_ns, false) : p->value, pin_role_text(p->role), json_bool(p->forced));
    put_ns(b, p->changed_ns);
    buf_printf(b, ",\"changes\":%u}", p->changes);
}

void status_stepper(struct buf *b, struct mcu *m, int step_pin)
{
    const struct step_stat *st = &m->steps[step_pin];
    const struct stepper *s = mcu_stepper(m, step_pin);
    char name[NAME_SIZE], text[8];

    buf_printf(b, "{\"name\":\"%s\",\"pin\":\"%s\",\"position\":%d,\"total_steps\":%" PRIu64 ",\"total_position\":%" PRId64 ",\"last_step_s\":",
        world_stepper_name(m->world, step_pin, name), pin_text(step_pin, text), s ? s->position : 0, st->total, st->position);
    put_ns(b, st->last_ns);
    buf_printf(b, ",\"last_step_clock\":%" PRIu64 ",\"queued\":%u,\"moving\":%s}", st->last_clock, s ? s->queue.n : 0, json_bool(s && s->count));
}

void status_axis(struct buf *b, struct mcu *m, int axis)
{
    const struct axis *a = &m->world->axes[axis];
    char name[NAME_SIZE];

    buf_printf(b, "{\"name\":\"%s\",\"mm\":%.6f,\"limit\":", a->name, axis_mm(a));
    if (a->limit.pin == PIN_NONE)
        buf_printf(b, "null");
    else
        buf_printf(b, "%s", json_bool(pin_is_on(m->pins, a->limit)));
    buf_printf(b, ",\"stepper\":\"%s\"}", world_stepper_name(m->world, a->step.pin, name));
}

void status_part(struct buf *b, const struct world *w, int part)
{
    static const char *const states[] = {"lying", "pocket", "held", "lost", "removed"};
    const struct part *p = &w->parts[part];
    struct point at;
    double rot;

    part_pose(w, p, &at, &rot);
    buf_printf(b, "{\"id\":\"%s\",\"state\":\"%s\",\"x\":%.6f,\"y\":%.6f,\"z\":%.6f,\"rot\":%.6f,\"thick\":%.6f,", p->id, states[p->state], at.x, at.y, at.z,
        rot, p->thick);
    buf_printf(b,
        "\"nozzle\":\"%s\",\"feeder\":\"%s\",\"drop_z\":%.6f,\"drop_mm\":%.6f,\"fell\":%s,\"picks\":%u,\"drops\":%u,"
        "\"t\":",
        p->state == PART_HELD ? w->nozzles[p->nozzle].name : "", p->feeder >= 0 ? w->feeders[p->feeder].name : "", p->drop_z, p->drop_mm, json_bool(p->fell),
        p->picks, p->drops);
    put_ns(b, p->changed_ns);
    buf_printf(b, "}");
}

void status_parts(struct buf *b, const struct world *w)
{
    bool first = true;

    buf_printf(b, "[");
    for (int i = 0; i < w->part_n; i++) {
        if (w->parts[i].state == PART_REMOVED) continue;
        buf_printf(b, first ? "" : ",");
        first = false;
        status_part(b, w, i);
    }
    buf_printf(b, "]");
}

/* "queue_step oid=..." counts as queue_step. */
static int word_len(const char *format)
{
    int n = 0;

    while (format[n] && format[n] != ' ') n++;
    return n;
}

void status_counts(struct buf *b, const struct mcu *m)
{
    const struct proto *p = &m->proto;

    buf_printf(b,
        "{\"frames_in\":%" PRIu64 ",\"frames_bad\":%" PRIu64 ",\"frames_dropped\":%" PRIu64 ",\"frames_out\":%" PRIu64 ",\"naks\":%" PRIu64 ",\"late\":%" PRIu64
        ",\"late_max_us\":%" PRId64 ",\"wake_late_max_us\":%" PRId64 ",\"commands\":{",
        p->frames_in, p->frames_bad, p->frames_dropped, p->frames_out, p->naks, m->late, m->late_max_us, m->wake_late_max_us);
    for (unsigned i = 0; i < mcu_command_count; i++)
        buf_printf(b, "%s\"%.*s\":%" PRIu64, i ? "," : "", word_len(mcu_commands[i].format), mcu_commands[i].format, m->command_counts[i]);
    buf_printf(b, "}}");
}

static void put_nozzle(struct buf *b, const struct world *w, const struct nozzle *n, int64_t now_ns)
{
    struct point tip = nozzle_tip(w, n);

    buf_printf(b, "\"%s\":{\"x\":%.6f,\"y\":%.6f,\"z\":%.6f,\"rot\":%.6f,\"vacuum\":%s,\"pump\":%s,\"valve\":%s,", n->name, tip.x, tip.y, tip.z, nozzle_rot(n),
        json_bool(n->vacuum), json_bool(pin_is_on(w->pins, n->pump)), json_bool(pin_is_on(w->pins, n->valve)));
    buf_printf(b, "\"level\":%.6f,\"target\":%.6f,\"held\":\"%s\",\"leak\":%s,\"stuck\":%s,\"crashed\":%s}", nozzle_level(n, now_ns), n->target,
        n->held >= 0 ? w->parts[n->held].id : "", json_bool(n->leak), json_bool(n->stuck), json_bool(n->crashed));
}

static void put_pins(struct buf *b, struct mcu *m, int64_t now_ns)
{
    bool first = true;
    char text[8];

    buf_printf(b, ",\"pins\":{");
    for (int i = 0; i < PIN_COUNT; i++) {
        const struct pin *p = &m->pins->at[i];
        if (p->role == PIN_FREE && !p->name[0] && p->value == 0) continue;
        buf_printf(b, "%s\"%s\":", first ? "" : ",", pin_text(i, text));
        first = false;
        status_pin(b, m->world, i, now_ns);
    }
    buf_printf(b, "}");
}

static void put_steppers(struct buf *b, struct mcu *m)
{
    char name[NAME_SIZE];
    bool first = true;

    buf_printf(b, ",\"steppers\":{");
    for (int i = 0; i < PIN_COUNT; i++) {
        if (m->world->drives[i].kind == DRIVE_NONE && !mcu_stepper(m, i)) continue;
        buf_printf(b, "%s\"%s\":", first ? "" : ",", world_stepper_name(m->world, i, name));
        first = false;
        status_stepper(b, m, i);
    }
    buf_printf(b, "}");
}

static void put_world(struct buf *b, struct mcu *m, int64_t now_ns)
{
    const struct world *w = m->world;

    buf_printf(b, ",\"axes\":{");
    for (int i = 0; i < w->axis_n; i++) {
        buf_printf(b, "%s\"%s\":", i ? "," : "", w->axes[i].name);
        status_axis(b, m, i);
    }
    buf_printf(b, "},\"nozzles\":{");
    for (int i = 0; i < w->nozzle_n; i++) {
        buf_printf(b, i ? "," : "");
        put_nozzle(b, w, &w->nozzles[i], now_ns);
    }
    buf_printf(b, "},\"parts\":");
    status_parts(b, w);
    buf_printf(b, ",\"feeders\":{");
    for (int i = 0; i < w->feeder_n; i++)
        buf_printf(b, "%s\"%s\":{\"left\":%d,\"fed\":%u,\"lost\":%u,\"mm\":%.6f}", i ? "," : "", w->feeders[i].name, w->feeders[i].left, w->feeders[i].fed,
            w->feeders[i].lost, (double)w->feeders[i].n * w->feeders[i].mm_per_step);
    buf_printf(b, "},\"buttons\":{");
    for (int i = 0; i < w->button_n; i++) buf_printf(b, "%s\"%s\":%d", i ? "," : "", w->buttons[i].name, pin_is_on(m->pins, w->buttons[i].pin));
    buf_printf(b, "},\"crashes\":%u,\"sticks\":%u,\"drops\":%u", w->crashes, w->sticks, w->drops);
}

void status_all(struct buf *b, struct mcu *m, int64_t now_ns)
{
    buf_printf(b, "{\"ok\":true,\"t\":");
    put_ns(b, now_ns);
    buf_printf(b,
        ",\"clock\":%" PRIu64 ",\"mcu\":{\"configured\":%s,\"shutdown\":%s,\"reason\":\"%s\",\"boots\":%u,"
        "\"shutdowns\":%u,\"strict\":%s},\"counts\":",
        m->at, json_bool(m->configured), json_bool(m->shutdown_id != 0), mcu_shutdown_text(m), m->boots, m->shutdowns, json_bool(m->strict));
    status_counts(b, m);
    put_pins(b, m, now_ns);
    put_steppers(b, m);
    put_world(b, m, now_ns);
    buf_printf(b, "}");
}
