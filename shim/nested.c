/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Checks commands inside a command for jobs and batch. The rows of the registry say what is right, that of queue_add for the object itself. */
#include "nested.h"

#include <stdio.h>
#include <string.h>

#include "json.h"

static bool fault(struct kp_faults *f, enum kp_err code, const char *field, const char *message)
{
    struct kp_error e;
    kp_error_set(&e, code, field, "%s", message);
    kp_faults_add(f, &e);
    return false;
}

/* Adds faults with the name of their place. */
static void add_all(struct kp_faults *f, const struct kp_faults *found, const char *prefix)
{
    for (size_t i = 0; i < found->count; i++) {
        struct kp_error e = found->item[i];
        char place[2 * KP_NAME_MAX];
        int n = snprintf(place, sizeof place, "%s%s", prefix, e.field);
        if (n > 0 && place[n - 1] == '.')
            place[n - 1] = 0; /* the whole object is at fault */
        snprintf(e.field, sizeof e.field, "%.*s", KP_NAME_MAX - 1, place);
        kp_faults_add(f, &e);
    }
    f->dropped += found->dropped;
}

static bool fault_at(struct kp_faults *f, const char *prefix, const char *message)
{
    struct kp_faults found = { .count = 0 };
    fault(&found, KP_INVALID_PARAMETER, NULL, message);
    add_all(f, &found, prefix);
    return false;
}

/* Checks an object's members as the arguments of a row. */
static bool check_members(const struct kp_machine *m, const struct kp_command *c, const json_t *object, struct kp_call *out, struct kp_faults *f)
{
    struct kp_arg args[KP_ARGS_MAX];
    struct json_list lists[KP_ARGS_MAX];
    size_t n = 0;
    const char *key;
    json_t *v;
    if (json_object_size(object) > KP_ARGS_MAX)
        return fault(f, KP_INVALID_REQUEST, NULL, "too many parameters");
    json_object_foreach((json_t *)(uintptr_t)object, key, v) {
        args[n] = (struct kp_arg){ kp_str_of(key), json_value(v, &lists[n]), false };
        n++;
    }
    return kp_check(m, c, args, n, out, f) == KP_OK;
}

/* What can be told before it runs: limits of the machine that nothing before it in the lane can mend. */
static enum kp_err check_ahead(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f)
{
    struct kp_faults now = { .count = 0 };
    struct kp_seq *s = NULL;
    enum kp_err first = KP_OK;
    if (call->command->strategy != KP_GCODE || (call->command->id == KP_MOVE && kp_call_slot(call, "relative")->flag))
        return KP_OK;
    kp_seq_plan(&s, m, call, false, &now);
    kp_seq_free(s);
    for (size_t i = 0; i < now.count; i++) {
        int status = kp_err_status(now.item[i].code);
        if (now.item[i].code == KP_HOMING_REQUIRED || (status != 400 && status != 404))
            continue;
        first = first ? first : now.item[i].code;
        kp_faults_add(f, &now.item[i]);
    }
    return first;
}

bool nested_call(const struct kp_machine *m, const struct kp_command *c, const json_t *params, const char *prefix, struct kp_call *out, struct kp_faults *f)
{
    struct kp_faults found = { .count = 0 };
    /* a call that fails by its row has been planned already, for its faults */
    bool ok = check_members(m, c, params, out, &found) && check_ahead(m, out, &found) == KP_OK;
    add_all(f, &found, prefix);
    return ok;
}

bool nested_check(const struct kp_machine *m, const json_t *item, const char *prefix, bool priority, struct kp_call *out, struct kp_faults *f)
{
    struct kp_faults found = { .count = 0 };
    char inner[KP_NAME_MAX];
    const json_t *params = json_object_get(item, "parameters");
    if (!json_is_object(item))
        return fault_at(f, prefix, "each of the commands must be an object");
    bool ok = check_members(m, kp_command_by_name(kp_str_of("queue_add")), item, out, &found);
    if (ok && params && !json_is_object(params)) /* the row tells the rest */
        ok = fault(&found, KP_INVALID_PARAMETER, "parameters", "parameters must be an object");
    if (!priority && json_object_get(item, "priority"))
        ok = fault(&found, KP_INVALID_PARAMETER, "priority", "only commands of the queue have a priority");
    add_all(f, &found, prefix);
    const char *name = json_string_value(json_object_get(item, "command"));
    const struct kp_command *c = name ? kp_command_by_name(kp_str_of(name)) : NULL;
    if (!c || !kp_command_nests(c) || (params && !json_is_object(params)))
        return false;
    snprintf(inner, sizeof inner, "%sparameters.", prefix);
    return nested_call(m, c, params, inner, out, f) && ok;
}

size_t nested_count(const json_t *body, size_t most, struct kp_faults *f)
{
    size_t count = json_array_size(json_object_get(body, "commands"));
    struct kp_error e;
    if (!json_is_array(json_object_get(body, "commands")))
        fault(f, KP_INVALID_PARAMETER, "commands", "commands must be an array of objects");
    else if (count > most) {
        kp_error_range(&e, KP_INVALID_PARAMETER, "commands", "", (double)count, 1, (double)most);
        kp_faults_add(f, &e);
    }
    return count;
}

bool nested_check_at(const struct kp_machine *m, const json_t *body, size_t i, bool priority, struct kp_call *out, struct kp_faults *f)
{
    char prefix[KP_NAME_MAX];
    snprintf(prefix, sizeof prefix, "commands[%zu].", i);
    return nested_check(m, json_array_get(json_object_get(body, "commands"), i), prefix, priority, out, f);
}

char *nested_text(const json_t *item)
{
    const json_t *params = json_object_get(item, "parameters");
    return params ? json_dumps(params, JSON_COMPACT) : strdup("{}");
}
