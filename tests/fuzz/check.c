/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fuzz target of arguments: any values, as JSON or a query string would bring them, to any command of the registry; what passes goes through gate and plan
 * and is stepped to its end. The input is text: the first byte chooses the machine, the second how it stands, the third what the sensors answer; then the
 * command's name, and a line for each argument: name=kind and value ("x=n1.5", "axes=lx,y"; `kinds` below). */
#include <math.h>

#include "../unit/plan_fixture.h"
#include "require.h"

#define PARTS_MAX 16 /* of one list */
#define STEPS_MAX 20000 /* a ramp has at most 6000, each with its time */

/* Bits of the second byte; '@' is none. */
enum { LATCHED = 1, UNHOMED_X = 2, UNHOMED_Z = 4, DOWN = 8, CUT = 16, LOW = 32 };

struct request {
    const struct kp_command *command;
    struct kp_arg args[KP_ARGS_MAX + 4];
    size_t count;
    struct kp_str parts[KP_ARGS_MAX + 4][PARTS_MAX];
    double nums[KP_ARGS_MAX + 4][PARTS_MAX];
    void *owned[KP_ARGS_MAX + 4]; /* each text in a block of its size: reading past it is seen */
};

/* ---- the machine ---- */

/* Made once for each file, and put back before each input: nothing here is told what a plan did. */
static struct kp_machine *machine_of(unsigned which, unsigned state)
{
    static struct kp_machine *made[sizeof fixtures / sizeof *fixtures];
    size_t i = which % (sizeof fixtures / sizeof *fixtures);
    if (!made[i])
        made[i] = fixture_machine(fixtures[i].name);
    struct kp_machine *m = made[i];
    require(m);
    fixture_status(m);
    kp_safety_release(m);
    tell(m, "toolhead", "homed_axes", text_value(state & UNHOMED_X ? state & UNHOMED_Z ? "y" : "yz" : state & UNHOMED_Z ? "xy" : "xyz"));
    if (state & LOW)
        tell_point(m, "toolhead", "position", 100, 50, -20), tell_point(m, "gcode_move", "position", 100, 50, -20);
    if (state & DOWN)
        kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "down");
    if (state & CUT)
        kp_machine_moonraker(m, false);
    if (state & LATCHED)
        kp_safety_latch(m, true, "fuzz");
    return m;
}

/* ---- the request ---- */

/* The piece up to the divider, taken off *s. */
static struct kp_str take(struct kp_str *s, char divider)
{
    const char *end = s->n ? memchr(s->p, divider, s->n) : NULL;
    struct kp_str piece = { s->p, end ? (size_t)(end - s->p) : s->n };
    size_t gone = piece.n + (end != NULL);
    *s = (struct kp_str){ s->p + gone, s->n - gone };
    return piece;
}

/* Any double: strtod knows nan, inf and 1e308. */
static double any_number(struct kp_str s)
{
    char text[64] = "";
    memcpy(text, s.p, s.n < sizeof text ? s.n : sizeof text - 1);
    return strtod(text, NULL);
}

static struct kp_value value_of(struct request *r, char kind, struct kp_str text)
{
    static const char kinds[] = "zbnsNlo"; /* in the order of enum kp_kind */
    struct kp_value v = { .kind = KP_STR, .str = text };
    size_t i = r->count;
    if (strchr(kinds, kind) && kind)
        v.kind = (enum kp_kind)(strchr(kinds, kind) - kinds);
    v.flag = text.n > 0 && text.p[0] == 't';
    v.num = any_number(text);
    for (struct kp_str left = text; left.n > 0 && v.count < PARTS_MAX && (v.kind == KP_NUMS || v.kind == KP_STRS); v.count++) {
        r->parts[i][v.count] = take(&left, ',');
        r->nums[i][v.count] = any_number(r->parts[i][v.count]);
    }
    v.nums = r->nums[i];
    v.strs = r->parts[i];
    return v;
}

/* False: no such command. */
static bool request_read(struct request *r, struct kp_str s)
{
    struct kp_str name = take(&s, '\n');
    unsigned methods;
    kp_command_by_route(KP_GET, name, &methods);
    r->command = kp_command_by_name(name);
    while (s.n > 0 && r->count < KP_ARGS_MAX + 4) {
        struct kp_str line = take(&s, '\n');
        char *own = malloc(line.n ? line.n : 1);
        require(own);
        memcpy(own, line.p, line.n);
        r->owned[r->count] = own;
        struct kp_str value = { own, line.n };
        struct kp_arg *a = &r->args[r->count];
        a->name = take(&value, '=');
        a->text = value.n > 0 && value.p[0] == 'q';
        a->value = value_of(r, value.n > 0 ? value.p[0] : 'z', value.n > 0 ? (struct kp_str){ value.p + 1, value.n - 1 } : value);
        r->count++;
    }
    return r->command != NULL;
}

/* ---- what must be so ---- */

static void require_faults(const struct kp_faults *f, enum kp_err rc)
{
    require(f->count > 0 && f->count <= KP_FAULTS_MAX && rc != KP_OK && kp_faults_code(f) == f->item[0].code);
    for (size_t i = 0; i < f->count; i++)
        require(f->item[i].code != KP_OK && f->item[i].message[0] && memchr(f->item[i].message, 0, KP_TEXT_MAX) && memchr(f->item[i].field, 0, KP_NAME_MAX));
}

static void require_call(const struct kp_call *call)
{
    for (size_t i = 0; call->command->params[i].name; i++) {
        const struct kp_param *p = &call->command->params[i];
        const struct kp_slot *s = &call->slot[i];
        if (s->set && (p->type == KP_P_NUM || p->type == KP_P_INT))
            require(isfinite(s->num) && s->num >= p->min && s->num <= p->max && (p->type == KP_P_NUM || s->num == floor(s->num)));
        require(memchr(s->text, 0, sizeof s->text));
        for (const char *t = s->text; *t; t++)
            require((unsigned char)*t >= 0x20 && *t != 0x7f);
    }
    for (int i = 0; i < KP_AXES_MAX; i++)
        require(!call->axis_set[i] || isfinite(call->axis[i]));
    require(isfinite(call->timeout_s));
}

/* The number behind a letter of a line; NAN: the line has none. */
static double word_of(const char *l, char letter)
{
    for (; *l && *l != '\n'; l++)
        if (l[0] == ' ' && l[1] == letter)
            return strtod(l + 2, NULL);
    return NAN;
}

static void require_moves(const char *text)
{
    for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
        if (strncmp(l, "G1 ", 3) == 0) {
            double x = word_of(l, 'X'), y = word_of(l, 'Y'), z = word_of(l, 'Z'), f = word_of(l, 'F');
            require(!(x < 0 || x > 300 || y < 0 || y > 200 || z < -32 || z > 32) && f > 0 && f <= 30000);
        }
}

/* What the caller answers: a level, the time of a step of a ramp and sometimes more, or that another wrote its pin. */
static void answer(struct kp_seq *s, struct kp_action *a, unsigned answers)
{
    double late = answers & 0x40 ? 5000 : 0;
    if (a->kind == KP_ACT_SAMPLE)
        kp_seq_step(s, KP_EV_SAMPLE, (double)(answers & 0x7e) - 64, NULL, a);
    else if (a->kind == KP_ACT_DELAY && (answers & 0x70) == 0x30)
        kp_seq_step(s, KP_EV_REPLACED, 0, NULL, a);
    else if (a->kind == KP_ACT_DELAY)
        kp_seq_step(s, KP_EV_TIME, (double)a->after_ms + late, NULL, a);
    else
        kp_seq_step(s, KP_EV_OK, 0, NULL, a);
}

/* The plan to its end, each script looked at. */
static void run(struct kp_seq *s, unsigned answers)
{
    struct kp_error broken;
    struct kp_action a;
    int error_at = answers & 0x80 ? (int)(answers >> 1 & 7) : -1;
    kp_error_set(&broken, KP_OUTCOME_UNKNOWN, NULL, "cut");
    kp_seq_step(s, KP_EV_START, 0, NULL, &a);
    for (int i = 0; a.kind != KP_ACT_DONE && a.kind != KP_ACT_FAIL; i++) {
        require(i < STEPS_MAX);
        if (a.kind == KP_ACT_SCRIPT) {
            require_script(a.text, KP_SCRIPT_MAX);
            require_moves(a.text);
        }
        if (i == error_at)
            kp_seq_step(s, KP_EV_ERROR, 0, &broken, &a);
        else
            answer(s, &a, answers);
    }
    for (size_t i = 0; kp_seq_gcode(s, i); i++)
        require_script(kp_seq_gcode(s, i), KP_SCRIPT_MAX);
}

static void try_request(const struct request *r, const struct kp_machine *m, unsigned state, unsigned answers)
{
    struct kp_call call;
    struct kp_faults f = { .count = 0 };
    enum kp_err rc = kp_check(m, r->command, r->args, r->count, &call, &f);
    if (rc != KP_OK) {
        require_faults(&f, rc);
        return;
    }
    require(f.count == 0);
    require_call(&call);
    rc = kp_safety_gate(m, &call, &f);
    require((rc == KP_OK) == (f.count == 0));
    if (state & (LATCHED | DOWN | CUT))
        require(rc != KP_OK || (r->command->flags & KP_WHILE_STOPPED));
    if (rc != KP_OK) {
        require_faults(&f, rc);
        return;
    }
    struct kp_seq *s = NULL;
    if (r->command->strategy != KP_GCODE)
        return;
    rc = kp_seq_plan(&s, m, &call, answers & 1, &f);
    require((rc == KP_OK) == (f.count == 0) && (rc == KP_OK) == (s != NULL));
    if (rc != KP_OK)
        require_faults(&f, rc);
    else
        run(s, answers);
    kp_seq_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct request r;
    if (size < 3)
        return 0;
    memset(&r, 0, sizeof r);
    struct kp_machine *m = machine_of(data[0] & 7, data[1]);
    if (request_read(&r, (struct kp_str){ (const char *)data + 3, size - 3 }))
        try_request(&r, m, data[1], data[2]);
    for (size_t i = 0; i < r.count; i++)
        free(r.owned[i]);
    return 0;
}
