/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Safety level, limits and events as JSON, for app. Every value is libkp's own. */
#include "answer.h"

#include <math.h>

#include "json.h"

#define STATUS_EVENTS 10 /* of safety/status; safety/events gives all */

static json_t *event_json(const struct kp_safety_event *e, const struct answer_clock *c)
{
    double wall = c->wall - (double)(c->now_ms - e->at_ms) / 1000;
    return json_pack("{s:I,s:s,s:s,s:s,s:o,s:o,s:o}", "id", (json_int_t)e->id, "level", kp_level_name(e->level), "cause", kp_cause_name(e->cause),
                     "message", e->text, "got", json_finite(e->got), "limit", json_finite(e->limit), "timestamp",
                     e->at_ms == INT64_MIN ? json_null() : json_real(round(wall * 100) / 100));
}

static json_t *events(const struct kp_machine *m, const struct answer_clock *c, const struct answer_filter *want)
{
    json_t *list = json_array();
    const struct kp_safety_event *e;
    for (size_t i = 0; json_array_size(list) < want->limit && (e = kp_safety_event(m, i)) && e->id > want->since; i++)
        if (e->level >= want->level)
            json_array_append_new(list, event_json(e, c));
    return list;
}

json_t *answer_safety_events(const struct kp_machine *m, const struct answer_clock *c, const struct answer_filter *want)
{
    json_t *list = events(m, c, want);
    return json_pack("{s:o,s:I}", "events", list, "count", (json_int_t)json_array_size(list));
}

static json_t *limits(const struct kp_machine *m)
{
    const struct kp_limits *l = kp_machine_limits(m);
    const struct { const char *name; double value; } rows[] = {
        { "max_velocity_mm_s", l->max_velocity_mm_s }, { "max_accel_mm_s2", l->max_accel_mm_s2 }, { "min_feedrate_mm_min", l->min_feedrate_mm_min },
        { "max_feedrate_mm_min", l->max_feedrate_mm_min }, { "min_pwm", l->min_pwm }, { "max_pwm", l->max_pwm }, { "min_fan", l->min_fan },
        { "max_fan", l->max_fan },
        { "max_extruder_c", l->max_extruder_c }, { "max_bed_c", l->max_bed_c }, { "max_chamber_c", l->max_chamber_c },
    };
    json_t *out = json_object();
    const struct kp_axis *a;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        json_object_set_new(out, rows[i].name, json_finite(rows[i].value));
    for (size_t i = 0; (a = kp_machine_axis(m, i)); i++) {
        const char name[2] = { (char)(a->letter | 0x20), 0 };
        json_object_set_new(out, name, json_pack("{s:o,s:o}", "min", json_finite(a->min), "max", json_finite(a->max)));
    }
    return out;
}

json_t *answer_safety_status(const struct kp_machine *m, const struct answer_clock *c)
{
    static const struct answer_filter last = { .limit = STATUS_EVENTS };
    bool latched = kp_safety_latched(m);
    unsigned states = kp_safety_states(m);
    json_t *names = json_array();
    for (int s = 0; s < KP_STATE_COUNT; s++)
        if (states >> s & 1)
            json_array_append_new(names, json_string(kp_state_name((enum kp_state)s)));
    return json_pack("{s:s,s:b,s:o,s:o,s:o,s:o}", "level", kp_level_name(kp_safety_level(m)), "emergency_stop_active", latched, "reason",
                     latched ? json_string(kp_safety_reason(m)) : json_null(), "states", names, "limits", limits(m), "events", events(m, c, &last));
}
