/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Rows of the history for app. A row that cannot be written is lost: what the machine did does not wait for the disk. */
#include "record.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "answer.h"
#include "history.h"
#include "loop.h"

static json_t *axes_json(const struct kp_machine *m, unsigned axes)
{
    json_t *names = json_array();
    const struct kp_axis *a;
    for (size_t i = 0; (a = kp_machine_axis(m, i)); i++)
        if (axes >> i & 1u) {
            char name[2] = { (char)(a->letter | 0x20), 0 };
            json_array_append_new(names, json_string(name));
        }
    return names;
}

static json_t *slot_json(const struct kp_machine *m, enum kp_ptype type, const struct kp_slot *s)
{
    switch (type) {
    case KP_P_NUM: return json_real(s->num);
    case KP_P_INT: return json_integer((json_int_t)s->num);
    case KP_P_BOOL: return json_boolean(s->flag);
    case KP_P_AXES: return axes_json(m, s->axes);
    default: return json_string(s->text);
    }
}

/* The arguments as they were given, defaults left out. */
static json_t *arguments(const struct kp_machine *m, const struct kp_call *call)
{
    json_t *out = json_object();
    const struct kp_param *p = call->command->params;
    const struct kp_axis *a;
    for (size_t i = 0; p[i].name; i++)
        if (call->slot[i].set)
            json_object_set_new(out, p[i].name, slot_json(m, p[i].type, &call->slot[i]));
    for (size_t i = 0; call->command->flags & KP_EXTRA_AXES && (a = kp_machine_axis(m, i)); i++)
        if (call->axis_set[i]) {
            char name[2] = { (char)(a->letter | 0x20), 0 };
            json_object_set_new(out, name, json_real(call->axis[i]));
        }
    if (call->timeout_s > 0 && fabs(call->timeout_s - call->command->timeout_s) > 0)
        json_object_set_new(out, "timeout_s", json_real(call->timeout_s));
    return out;
}

static enum kp_queue_state state_of(enum kp_err code)
{
    switch (code) {
    case KP_OK: return KP_Q_DONE;
    case KP_CANCELLED: return KP_Q_CANCELLED;
    case KP_OUTCOME_UNKNOWN: return KP_Q_INTERRUPTED;
    default: return KP_Q_FAILED;
    }
}

void record_command(struct history *h, const struct kp_machine *m, const struct kp_call *call, const char *id, double seconds, const struct kp_faults *faults)
{
    enum kp_err code = kp_faults_code(faults);
    json_t *given = arguments(m, call);
    char *params = given ? json_dumps(given, JSON_COMPACT) : NULL;
    double now = answer_wall();
    struct history_command c = { .id = id, .command = call->command->name, .params = params ? params : "{}", .state = kp_queue_state_name(state_of(code)),
        .error_code = code == KP_OK ? NULL : kp_err_name(code), .error_message = code == KP_OK ? NULL : faults->item[0].message, .added_at = now - seconds,
        .started_at = now - seconds, .ended_at = now };
    struct history_writes *w = history_begin(h);
    history_add_command(w, &c);
    history_commit(w, NULL, NULL);
    free(params);
    json_decref(given);
}

void record_event(struct history *h, const struct kp_safety_event *e)
{
    struct history_writes *w = history_begin(h);
    history_add_event(w, e, answer_wall());
    history_commit(w, NULL, NULL);
}
