/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Arguments from outside against a row of the registry, for every edge of the shim. All faults are found in one pass.
 * Invariant: what leaves here is a finite number in range, an index of a part of the machine, or cleaned text for the log. */
#include "machine.h"
#include "plan.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define SLOTS (sizeof ((struct kp_call *)0)->slot / sizeof(struct kp_slot))
#define EXTRA_MAX 1e6 /* deg or mm: further than any extra axis goes, and printed exactly */

#define FAULT(f, ...) do { struct kp_error e_; kp_error_set(&e_, __VA_ARGS__); kp_faults_add(f, &e_); } while (0)

struct check {
    const struct kp_machine *m;
    struct kp_call *call;
    struct kp_faults *f;
    bool seen[SLOTS], axis_seen[KP_AXES_MAX], timeout_seen;
};

/* Bytes of the UTF-8 character at s, 0 when it is none or a control character. */
static size_t character(struct kp_str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > s.n || p[0] < 0x20 || p[0] == 0x7f)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if ((n == 2 && p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f)
        || (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0; /* C1 controls, overlong forms, surrogates, past the last character */
    return n;
}

/* Copies s for the log: whole characters only, '?' for what is not one, cut where out is full. */
static void clean_text(char *out, size_t size, struct kp_str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        size_t c = character((struct kp_str){ s.p + i, s.n - i });
        size_t take = c ? c : 1;
        if (n + take >= size)
            break;
        if (c)
            memcpy(out + n, s.p + i, c);
        else
            out[n] = '?';
        n += take;
        i += take;
    }
    out[n] = 0;
}

/* Visible ASCII short enough for a name: what may be looked up and told back. */
static bool name_visible(struct kp_str s)
{
    if (s.n == 0 || s.n >= KP_NAME_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e)
            return false;
    return true;
}

static bool read_number(struct check *k, const struct kp_param *p, const struct kp_arg *a, double *out)
{
    double v = NAN;
    if (a->value.kind == KP_NUM)
        v = a->value.num;
    else if (!(a->text && a->value.kind == KP_STR && kp_number_parse(a->value.str, &v))) {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a number", p->name);
        return false;
    }
    if (!isfinite(v)) {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a finite number", p->name);
        return false;
    }
    if (!(v >= p->min && v <= p->max)) {
        struct kp_error e;
        kp_error_range(&e, p->range == KP_OK ? KP_INVALID_PARAMETER : p->range, p->name, p->unit, v, p->min, p->max);
        kp_faults_add(k->f, &e);
        return false;
    }
    if (p->type == KP_P_INT && v != (double)(int64_t)v) { /* INT rows have finite limits, so the cast is defined */
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a whole number", p->name);
        return false;
    }
    *out = v;
    return true;
}

static bool read_bool(struct check *k, const struct kp_param *p, const struct kp_arg *a, bool *out)
{
    if (a->value.kind == KP_BOOL)
        *out = a->value.flag;
    else if (a->text && a->value.kind == KP_STR && (kp_str_eq(a->value.str, "true") || kp_str_eq(a->value.str, "false")))
        *out = kp_str_eq(a->value.str, "true");
    else {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be true or false", p->name);
        return false;
    }
    return true;
}

static void add_axis(struct check *k, const struct kp_param *p, struct kp_str s, struct kp_slot *out)
{
    int axis = s.n == 1 ? kp_machine_find_axis(k->m, s.p[0]) : -1;
    if (axis < 0) {
        char shown[KP_NAME_MAX];
        clean_text(shown, sizeof shown, s);
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "this machine has no axis \"%s\"", shown);
    } else if (out->axes & 1u << axis) {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s names an axis more than once", p->name);
    } else {
        out->axes |= 1u << axis;
        out->set = true;
    }
}

static void read_axes(struct check *k, const struct kp_param *p, const struct kp_arg *a, struct kp_slot *out)
{
    const struct kp_value *v = &a->value;
    if ((v->kind == KP_STRS || v->kind == KP_NUMS) && v->count == 0)
        return; /* [] is the same as left out */
    if (v->kind == KP_STRS) {
        for (size_t i = 0; i < v->count; i++)
            add_axis(k, p, v->strs[i], out);
    } else if (a->text && v->kind == KP_STR) {
        for (size_t i = 0, from = 0; i <= v->str.n; i++)
            if (i == v->str.n || v->str.p[i] == ',') {
                add_axis(k, p, (struct kp_str){ v->str.p + from, i - from }, out);
                from = i + 1;
            }
    } else {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be an array of axis letters", p->name);
    }
}

/* Which of the words "a|b|c" it is; -1: none. */
static int choice(const char *words, struct kp_str s)
{
    for (int i = 0; *words; i++) {
        size_t n = strcspn(words, "|");
        if (n == s.n && memcmp(words, s.p, n) == 0)
            return i;
        words += n + (words[n] == '|');
    }
    return -1;
}

static void read_choice(struct check *k, const struct kp_param *p, const struct kp_arg *a, struct kp_slot *out)
{
    out->index = a->value.kind == KP_STR ? choice(p->choices, a->value.str) : -1;
    if (out->index < 0) {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be one of %s", p->name, p->choices);
        return;
    }
    clean_text(out->text, sizeof out->text, a->value.str);
    out->set = true;
}

/* A UUID, or another name of ours. */
static void read_id(struct check *k, const struct kp_param *p, const struct kp_arg *a, struct kp_slot *out)
{
    struct kp_str s = a->value.kind == KP_STR ? a->value.str : (struct kp_str){ "", 0 };
    bool ok = s.n > 0 && s.n < KP_NAME_MAX;
    for (size_t i = 0; ok && i < s.n; i++)
        ok = s.p[i] == '-' || kp_name_ok((struct kp_str){ s.p + i, 1 });
    if (ok)
        clean_text(out->text, sizeof out->text, s);
    else
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a string of letters, digits, _ and -", p->name);
    out->set = ok;
}

static void read_command(struct check *k, const struct kp_param *p, const struct kp_arg *a, struct kp_slot *out)
{
    const struct kp_command *c = a->value.kind == KP_STR ? kp_command_by_name(a->value.str) : NULL;
    if (a->value.kind != KP_STR)
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a string", p->name);
    else if (!c)
        FAULT(k->f, KP_COMMAND_NOT_FOUND, p->name, "there is no such command");
    else if (!kp_command_nests(c))
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s is for itself only: neither queue nor batch takes it", c->name);
    else {
        clean_text(out->text, sizeof out->text, a->value.str);
        out->index = (int)c->id;
        out->set = true;
    }
}

/* What a name that cannot be one is answered with. */
static enum kp_err not_found(enum kp_ptype t)
{
    switch (t) {
    case KP_P_FAN: return KP_INVALID_PARAMETER;
    case KP_P_SENSOR: return KP_SENSOR_NOT_FOUND;
    case KP_P_NOZZLE: return KP_NOZZLE_NOT_FOUND;
    case KP_P_FEEDER: return KP_FEEDER_NOT_FOUND;
    default: return KP_PIN_NOT_FOUND;
    }
}

/* False with a fault when the parameter asks for a pin that can be written and this one is none. */
static bool writable(struct check *k, const struct kp_param *p, int index)
{
    if (p->type != KP_P_PIN_OUT && p->type != KP_P_PIN_PWM)
        return true;
    const struct kp_pin *pin = kp_machine_pin(k->m, (size_t)index);
    if (pin->kind == KP_PIN_PWM || pin->kind == KP_PIN_SERVO || (p->type == KP_P_PIN_OUT && pin->kind == KP_PIN_OUTPUT))
        return true;
    FAULT(k->f, KP_INVALID_PARAMETER, p->name, pin->kind == KP_PIN_OUTPUT ? "%s is on or off only, not PWM" : "%s is an input", pin->name);
    return false;
}

static void read_name(struct check *k, const struct kp_param *p, const struct kp_arg *a, struct kp_slot *out)
{
    struct kp_error e;
    enum kp_err rc;
    if (a->value.kind != KP_STR) {
        FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a string", p->name);
        return;
    }
    if (!name_visible(a->value.str)) {
        FAULT(k->f, not_found(p->type), p->name, "nothing has a name with such characters or of such a length");
        return;
    }
    switch (p->type) {
    case KP_P_SENSOR: rc = kp_machine_find_sensor(k->m, a->value.str, &out->index, &e); break;
    case KP_P_NOZZLE: rc = kp_machine_find_nozzle(k->m, a->value.str, &out->index, &e); break;
    case KP_P_FEEDER: rc = kp_machine_find_feeder(k->m, a->value.str, &out->index, &e); break;
    case KP_P_FAN: rc = kp_machine_find_fan(k->m, a->value.str, &out->index, &e); break;
    default: rc = kp_machine_find_pin(k->m, a->value.str, &out->index, &out->inverted, &e); break;
    }
    if (rc != KP_OK && p->type != KP_P_NOZZLE && p->type != KP_P_FEEDER && !kp_machine_watch(k->m, 0))
        kp_error_set(&e, k->m->moonraker ? KP_KLIPPY_DISCONNECTED : KP_MOONRAKER_DISCONNECTED, NULL, "Klipper has not told yet what it has");
    if (rc != KP_OK) {
        clean_text(e.field, sizeof e.field, kp_str_of(p->name));
        kp_faults_add(k->f, &e);
        return;
    }
    if (!writable(k, p, out->index))
        return;
    clean_text(out->text, sizeof out->text, a->value.str);
    out->set = true;
}

/* The part that is meant when the parameter is left out. One that the machine lacks is a fault: the request must name another. */
static void default_name(struct check *k, const struct kp_param *p, struct kp_slot *out)
{
    const struct kp_arg a = { kp_str_of(p->name), { .kind = KP_STR, .str = kp_str_of(p->name_def) }, false };
    read_name(k, p, &a, out);
    out->set = false;
}

static void read_param(struct check *k, const struct kp_param *p, const struct kp_arg *a, struct kp_slot *out)
{
    switch (p->type) {
    case KP_P_NUM:
    case KP_P_INT:
        out->set = read_number(k, p, a, &out->num);
        break;
    case KP_P_BOOL:
        out->set = read_bool(k, p, a, &out->flag);
        break;
    case KP_P_TEXT:
        if (a->value.kind == KP_STR) {
            clean_text(out->text, sizeof out->text, a->value.str);
            out->set = true;
        } else
            FAULT(k->f, KP_INVALID_PARAMETER, p->name, "%s must be a string", p->name);
        break;
    case KP_P_CHOICE: read_choice(k, p, a, out); break;
    case KP_P_NAME: read_id(k, p, a, out); break;
    case KP_P_COMMAND: read_command(k, p, a, out); break;
    case KP_P_OBJECT:
    case KP_P_OBJECTS:
        if (!(out->set = a->value.kind == KP_OTHER))
            FAULT(k->f, KP_INVALID_PARAMETER, p->name, p->type == KP_P_OBJECT ? "%s must be an object" : "%s must be an array of objects", p->name);
        break;
    case KP_P_AXES:
        read_axes(k, p, a, out);
        break;
    default:
        read_name(k, p, a, out);
    }
}

/* True the first time; a fault afterwards. */
static bool first_time(struct check *k, bool *seen, const char *name)
{
    if (*seen)
        FAULT(k->f, KP_INVALID_PARAMETER, name, "%s is given more than once", name);
    return !*seen && (*seen = true);
}

/* The extra axis that a parameter of one small letter names, -1: none. */
static int extra_axis(const struct check *k, struct kp_str name)
{
    if (!(k->call->command->flags & KP_EXTRA_AXES) || name.n != 1 || name.p[0] < 'a' || name.p[0] > 'z')
        return -1;
    int i = kp_machine_find_axis(k->m, name.p[0]);
    return i >= 0 && i < KP_AXES_MAX && kp_machine_axis(k->m, (size_t)i)->extra ? i : -1;
}

static void check_arg(struct check *k, const struct kp_arg *a)
{
    const struct kp_command *c = k->call->command;
    for (size_t i = 0; c->params[i].name; i++)
        if (kp_str_eq(a->name, c->params[i].name)) {
            if (first_time(k, &k->seen[i], c->params[i].name))
                read_param(k, &c->params[i], a, &k->call->slot[i]);
            return;
        }
    if (c->timeout_s > 0 && kp_str_eq(a->name, "timeout_s")) {
        static const struct kp_param p = { "timeout_s", KP_P_NUM, "s", 0, KP_TIMEOUT_MIN_S, KP_TIMEOUT_MAX_S, NAN, KP_OK, NULL, NULL, "" };
        if (first_time(k, &k->timeout_seen, p.name))
            read_number(k, &p, a, &k->call->timeout_s);
        return;
    }
    int axis = extra_axis(k, a->name);
    if (axis >= 0) {
        const char letter[2] = { a->name.p[0], 0 };
        const char *unit = kp_machine_axis(k->m, (size_t)axis)->rotary ? "deg" : "mm";
        const struct kp_param p = { letter, KP_P_NUM, unit, 0, -EXTRA_MAX, EXTRA_MAX, NAN, KP_POSITION_OUT_OF_BOUNDS, NULL, NULL, "" };
        if (first_time(k, &k->axis_seen[axis], letter))
            k->call->axis_set[axis] = read_number(k, &p, a, &k->call->axis[axis]);
        return;
    }
    char shown[KP_NAME_MAX];
    clean_text(shown, sizeof shown, a->name);
    FAULT(k->f, KP_INVALID_PARAMETER, shown, "%s has no parameter \"%s\"", c->name, shown);
}

static void set_defaults(const struct kp_machine *m, struct kp_call *call, const struct kp_command *c)
{
    *call = (struct kp_call){ .command = c, .timeout_s = c->timeout_s == KP_TIMEOUT_S ? m->timeout_s : c->timeout_s };
    for (size_t i = 0; i < SLOTS; i++)
        call->slot[i].num = NAN, call->slot[i].index = -1;
    for (size_t i = 0; c->params[i].name; i++) {
        assert(i < SLOTS);
        call->slot[i].num = c->params[i].def;
        call->slot[i].flag = c->params[i].def > 0;
    }
    for (size_t i = 0; i < KP_AXES_MAX; i++)
        call->axis[i] = NAN;
}

enum kp_err kp_check(const struct kp_machine *m, const struct kp_command *c, const struct kp_arg *args, size_t count, struct kp_call *out, struct kp_faults *f)
{
    struct kp_call call;
    struct check k = { .m = m, .call = &call, .f = f };
    size_t before = f->count + f->dropped;
    set_defaults(m, &call, c);
    if (count > KP_ARGS_MAX) {
        FAULT(f, KP_INVALID_REQUEST, NULL, "more than %d parameters", KP_ARGS_MAX);
        return KP_INVALID_REQUEST;
    }
    for (size_t i = 0; i < count; i++)
        check_arg(&k, &args[i]);
    for (size_t i = 0; c->params[i].name; i++) {
        if ((c->params[i].flags & KP_REQUIRED) && !k.seen[i])
            FAULT(f, KP_MISSING_PARAMETER, c->params[i].name, "%s is required", c->params[i].name);
        if (c->params[i].name_def && !k.seen[i])
            default_name(&k, &c->params[i], &call.slot[i]);
    }
    if (c->id == KP_WAIT && kp_call_slot(&call, "timeout")->set) {
        if (k.timeout_seen)
            FAULT(f, KP_INVALID_PARAMETER, "timeout", "timeout and timeout_s mean the same, give one");
        call.timeout_s = kp_call_slot(&call, "timeout")->num;
    }
    if (c->id == KP_PWM_RAMP && !k.timeout_seen && kp_call_slot(&call, "duration")->set)
        call.timeout_s += kp_call_slot(&call, "duration")->num; /* it answers at its end */
    if (f->count + f->dropped != before) {
        plan_refused(m, &call, f);
        return kp_faults_code(f);
    }
    *out = call;
    return KP_OK;
}

const struct kp_slot *kp_call_slot(const struct kp_call *call, const char *param)
{
    const struct kp_param *p = call->command->params;
    while (p->name && strcmp(p->name, param) != 0)
        p++;
    assert(p->name); /* a name that the row lacks is a bug of the caller */
    return &call->slot[p - call->command->params];
}
