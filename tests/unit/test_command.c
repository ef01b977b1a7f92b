/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registry: its rows against each other and against the rules that every row keeps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_fixture.h"

/* The path with a name in place of its {id}. */
static struct kp_str route(const struct kp_command *c, char *out, size_t size)
{
    const char *open = strchr(c->path, '{');
    if (!open)
        return kp_str_of(c->path);
    snprintf(out, size, "%.*sk-7%s", (int)(open - c->path), c->path, strchr(open, '}') + 1);
    return kp_str_of(out);
}

static void rows_are_found_by_name_and_route(void **state)
{
    (void)state;
    size_t n;
    const struct kp_command *rows = kp_commands(&n);
    assert_int_equal(n, KP_ID_COUNT);
    assert_ptr_equal(kp_commands(NULL), rows);
    for (size_t i = 0; i < n; i++) {
        char text[128];
        unsigned allowed = 0, other = 0;
        struct kp_str path = route(&rows[i], text, sizeof text);
        bool outside = rows[i].flags & KP_OUTSIDE;
        assert_int_equal(rows[i].id, i);
        assert_ptr_equal(kp_command_by_name(kp_str_of(rows[i].name)), &rows[i]);
        assert_ptr_equal((outside ? kp_command_outside : kp_command_by_route)(rows[i].method, path, &allowed), &rows[i]);
        assert_null((outside ? kp_command_by_route : kp_command_outside)(rows[i].method, path, &other));
        assert_true((allowed & rows[i].method) && !other);
        for (size_t j = 0; j < i; j++) { /* no two rows take the same request */
            char more[128];
            struct kp_str p = route(&rows[j], more, sizeof more);
            assert_false(rows[i].method == rows[j].method && p.n == path.n && memcmp(p.p, path.p, p.n) == 0);
            assert_string_not_equal(rows[i].name, rows[j].name);
        }
    }
}

static void pieces_of_a_path_are_arguments(void **state)
{
    (void)state;
    static const struct { enum kp_method method; const char *path, *command, *piece; unsigned allowed; } rows[] = {
        { KP_GET, "auth/keys", "key_list", NULL, KP_GET | KP_POST }, { KP_POST, "auth/keys", "key_create", NULL, KP_GET | KP_POST },
        { KP_GET, "auth/keys/12-ab", "key_get", "12-ab", KP_GET | KP_PUT | KP_DELETE },
        { KP_PUT, "auth/keys/1", "key_update", "1", KP_GET | KP_PUT | KP_DELETE },
        { KP_DELETE, "auth/keys/1", "key_delete", "1", KP_GET | KP_PUT | KP_DELETE }, { KP_POST, "auth/keys/1", NULL, NULL, KP_GET | KP_PUT | KP_DELETE },
        { KP_POST, "auth/keys/rotate/rotate", "key_rotate", "rotate", KP_POST }, { KP_GET, "auth/keys/1/rotate", NULL, NULL, KP_POST },
        { KP_GET, "auth/keys/", NULL, NULL, 0 }, { KP_GET, "auth/keys//", NULL, NULL, 0 }, { KP_POST, "auth/keys//rotate", NULL, NULL, 0 },
        { KP_GET, "auth/keys/1/2", NULL, NULL, 0 }, { KP_POST, "auth/keys/rotate", NULL, NULL, KP_GET | KP_PUT | KP_DELETE },
        { KP_GET, "auth/keys/{id}", "key_get", "{id}", KP_GET | KP_PUT | KP_DELETE }, /* refused by kp_check: not a name */
        { KP_DELETE, "queue/cancel", "queue_cancel", NULL, KP_DELETE }, { KP_GET, "health", NULL, NULL, 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned allowed = 0;
        struct kp_arg a;
        const struct kp_command *c = kp_command_by_route(rows[i].method, kp_str_of(rows[i].path), &allowed);
        assert_int_equal(allowed, rows[i].allowed);
        assert_int_equal(c != NULL, rows[i].command != NULL);
        if (!c)
            continue;
        assert_string_equal(c->name, rows[i].command);
        assert_int_equal(kp_command_path_arg(c, kp_str_of(rows[i].path), &a), rows[i].piece != NULL);
        if (rows[i].piece)
            assert_true(kp_str_eq(a.name, "id") && a.text && a.value.kind == KP_STR && kp_str_eq(a.value.str, rows[i].piece));
    }
    struct kp_arg a;
    assert_false(kp_command_path_arg(kp_command_by_name(kp_str_of("key_get")), kp_str_of("auth/keys"), &a));
    unsigned allowed = 0;
    assert_null(kp_command_outside(KP_POST, kp_str_of("ready"), &allowed));
    assert_int_equal(allowed, KP_GET);
}

static void unknown_names_and_routes(void **state)
{
    (void)state;
    unsigned allowed = 99;
    assert_null(kp_command_by_name(kp_str_of("moves")));
    assert_null(kp_command_by_name(kp_str_of("")));
    assert_null(kp_command_by_route(KP_POST, kp_str_of("motion/mov"), &allowed));
    assert_int_equal(allowed, 0);
    assert_null(kp_command_by_route(KP_POST, kp_str_of("motion/move/"), NULL));
    assert_null(kp_command_by_route(KP_GET, kp_str_of("motion/move"), &allowed));
    assert_int_equal(allowed, KP_POST);
}

/* A parameter of a row is told by type, range and default what check.c makes of it. */
static void param_keeps_the_rules(const struct kp_command *c, const struct kp_param *p)
{
    char piece[KP_NAME_MAX + 2];
    assert_true(kp_name_ok(kp_str_of(p->name)) && p->doc && p->doc[0]);
    assert_true(p->min <= p->max);
    assert_true(isnan(p->def) || (p->def >= p->min && p->def <= p->max));
    assert_false((p->flags & KP_REQUIRED) && (!isnan(p->def) || p->name_def));
    if (p->type == KP_P_INT)
        assert_true(isfinite(p->min) && isfinite(p->max));
    assert_int_equal(p->type == KP_P_CHOICE, p->choices != NULL);
    assert_true(!p->name_def || p->type == KP_P_FEEDER || p->type == KP_P_FAN);
    snprintf(piece, sizeof piece, "{%s}", p->name);
    assert_int_equal((p->flags & KP_IN_PATH) != 0, strstr(c->path, piece) != NULL);
    assert_string_not_equal(p->name, "timeout_s");
    for (const struct kp_param *q = c->params; q != p; q++)
        assert_string_not_equal(p->name, q->name);
}

static void role_keeps_the_rules(const struct kp_command *c)
{
    bool keys = strncmp(c->path, "auth/", 5) == 0;
    if (keys)
        assert_int_equal(c->role, c->id == KP_WS_TOKEN ? KP_VIEWER : KP_ADMIN);
    else if (c->method == KP_GET)
        assert_true(c->role <= KP_VIEWER);
    else
        assert_int_equal(c->role, KP_OPERATOR);
    if (c->strategy == KP_GCODE)
        assert_int_equal(c->rate, KP_RATE_MOTION);
    else if (c->rate == KP_RATE_READ)
        assert_true(c->method == KP_GET && c->role == KP_VIEWER);
    else
        assert_true(c->rate == KP_RATE_BATCH ? c->role == KP_OPERATOR : c->strategy == KP_LOCAL);
}

static void rows_keep_the_rules(void **state)
{
    (void)state;
    size_t n;
    const struct kp_command *rows = kp_commands(&n);
    for (size_t i = 0; i < n; i++) {
        const struct kp_command *c = &rows[i];
        size_t params = 0;
        assert_true(c->doc && c->doc[0] && kp_name_ok(kp_str_of(c->name)) && c->path[0] != '/');
        assert_int_equal(c->strategy == KP_GCODE, c->timeout_s > 0);
        assert_int_equal(c->strategy == KP_GCODE, (c->flags & KP_MOVES) != 0);
        assert_false(c->strategy == KP_GCODE && (c->flags & KP_WHILE_STOPPED)); /* nothing that acts passes a latch */
        assert_true(c->method != KP_GET || (c->flags & KP_WHILE_STOPPED));     /* and every read does */
        assert_false((c->flags & KP_OUTSIDE) && !(c->flags & KP_PLAIN));
        assert_int_equal(kp_command_nests(c), c->strategy != KP_LOCAL);
        role_keeps_the_rules(c);
        for (const struct kp_param *p = c->params; p->name; p++, params++)
            param_keeps_the_rules(c, p);
        assert_true(params <= sizeof ((struct kp_call *)0)->slot / sizeof(struct kp_slot));
        assert_true(params + 1 + KP_AXES_MAX <= KP_ARGS_MAX);
    }
}

/* What only adds or refuses while stopped: said here a second time, so that a row is not let through by a slip. */
static void what_passes_a_stop(void **state)
{
    (void)state;
    static const char *const refused[] = { "queue_add", "queue_batch", "batch_execute", "resume" };
    size_t n, found = 0;
    const struct kp_command *rows = kp_commands(&n);
    for (size_t i = 0; i < n; i++) {
        bool listed = false;
        for (size_t j = 0; j < sizeof refused / sizeof *refused; j++)
            listed |= strcmp(rows[i].name, refused[j]) == 0;
        if (rows[i].strategy == KP_LOCAL)
            assert_int_equal(listed, !(rows[i].flags & KP_WHILE_STOPPED));
        found += listed;
    }
    assert_int_equal(found, sizeof refused / sizeof *refused);
}

static void fields_keep_the_rules(const struct kp_field *fields, int depth)
{
    assert_true(depth < 4);
    for (const struct kp_field *f = fields; f->name; f++) {
        assert_true(kp_name_ok(kp_str_of(f->name)) && f->doc && f->doc[0] && f->unit);
        assert_int_equal(f->type == KP_A_OBJECT, f->fields != NULL);
        assert_false((f->flags & KP_LIST) && (f->flags & KP_MAP));
        for (const struct kp_field *g = fields; g != f; g++)
            assert_string_not_equal(f->name, g->name);
        if (f->fields)
            fields_keep_the_rules(f->fields, depth + 1);
    }
}

static const struct kp_field *field_of(const struct kp_command *c, const char *name)
{
    const struct kp_field *f = c->answer;
    while (f->name && strcmp(f->name, name) != 0)
        f++;
    return f->name ? f : NULL;
}

static void answers_keep_the_rules(void **state)
{
    (void)state;
    size_t n;
    const struct kp_command *rows = kp_commands(&n);
    for (size_t i = 0; i < n; i++) {
        assert_non_null(rows[i].answer);
        assert_true(rows[i].answer[0].name || (rows[i].flags & KP_PLAIN));
        fields_keep_the_rules(rows[i].answer, 0);
        if (rows[i].strategy == KP_GCODE)
            assert_true(field_of(&rows[i], "completed") && field_of(&rows[i], "gcode") && field_of(&rows[i], "execution_time"));
        if (rows[i].strategy == KP_DIRECT && !field_of(&rows[i], "count"))
            assert_non_null(field_of(&rows[i], "stale"));
    }
}

/* What each command is answered with in each state, said here row by row: ready unhomed low held printing not-ready no-moonraker stopped. H homing required,
 * I interlock, K Klipper, M Moonraker, E emergency stop. Travel height is the plan's and the hold the queue's, so their columns are free. */
#define READ "........"
#define SWITCH "....IKME"
#define MOVE ".H..IKME"
#define USE ".....KME"
static const struct { const char *command, *cells; } gate[KP_ID_COUNT] = {
    { "move", MOVE }, { "home", SWITCH }, { "wait", SWITCH }, { "pick", MOVE }, { "place", MOVE }, { "pick_and_place", MOVE }, { "actuate", SWITCH },
    { "actuator_on", SWITCH }, { "actuator_off", SWITCH }, { "vacuum_on", SWITCH }, { "vacuum_off", SWITCH }, { "vacuum_set", SWITCH }, { "fan_on", SWITCH },
    { "fan_off", SWITCH }, { "fan_set", SWITCH }, { "pwm_set", SWITCH }, { "pwm_ramp", SWITCH }, { "gpio_read", READ }, { "gpio_write", SWITCH },
    { "gpio_read_all", READ }, { "sensor_read", READ }, { "sensor_read_all", READ }, { "sensor_read_by_type", READ }, { "feeder_advance", SWITCH },
    { "feeder_retract", SWITCH }, { "get_status", READ }, { "get_position", READ }, { "get_printer_state", READ }, { "queue_add", USE }, { "queue_batch", USE },
    { "queue_status", READ }, { "queue_clear", READ }, { "queue_cancel", READ }, { "queue_history", READ }, { "batch_execute", USE },
    { "emergency_stop", READ },
    { "pause", READ }, { "resume", USE }, { "reset", READ }, { "safety_status", READ }, { "safety_events", READ }, { "get_version", READ }, { "openapi", READ },
    { "key_create", READ }, { "key_list", READ }, { "key_get", READ }, { "key_update", READ }, { "key_delete", READ }, { "key_rotate", READ },
    { "auth_status", READ }, { "ws_token", READ }, { "health", READ }, { "ready", READ }, { "metrics", READ },
};

static struct kp_machine *machine_in(enum kp_state state)
{
    struct kp_machine *m = fixture_machine("careful");
    switch (state) {
    case KP_S_UNHOMED: tell(m, "toolhead", "homed_axes", text_value("")); break;
    case KP_S_LOW: tell_point(m, "gcode_move", "position", 100, 50, -30); break;
    case KP_S_HELD:
        tell_point(m, "gcode_move", "position", 260, 50, 0);
        kp_safety_check(m, 1000);
        break;
    case KP_S_PRINTING: tell(m, "print_stats", "state", text_value("printing")); break;
    case KP_S_NOT_READY: kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "MCU"); break;
    case KP_S_NO_MOONRAKER: kp_machine_moonraker(m, false); break;
    case KP_S_STOPPED: kp_safety_latch(m, true, "test"); break;
    default: break;
    }
    assert_true(kp_safety_states(m) >> state & 1u);
    return m;
}

static char letter_of(enum kp_err code)
{
    switch (code) {
    case KP_OK: return '.';
    case KP_HOMING_REQUIRED: return 'H';
    case KP_INTERLOCK: return 'I';
    case KP_KLIPPY_DISCONNECTED: return 'K';
    case KP_MOONRAKER_DISCONNECTED: return 'M';
    case KP_EMERGENCY_STOP_ACTIVE: return 'E';
    default: return '?';
    }
}

static void every_command_in_every_state(void **state)
{
    (void)state;
    const struct kp_command *rows = kp_commands(NULL);
    for (enum kp_state s = 0; s < KP_STATE_COUNT; s++) {
        struct kp_machine *m = machine_in(s);
        for (size_t i = 0; i < KP_ID_COUNT; i++) {
            struct kp_call call = { .command = &rows[i] };
            struct kp_faults f = { .count = 0 };
            assert_string_equal(gate[i].command, rows[i].name);
            assert_int_equal(strlen(gate[i].cells), KP_STATE_COUNT);
            call.slot[0].set = call.slot[1].set = rows[i].id == KP_MOVE; /* x and y */
            char got = letter_of(kp_safety_gate(m, &call, &f));
            if (got != gate[i].cells[s])
                fail_msg("%s in state %s: %c, not %c", rows[i].name, kp_state_name(s), got, gate[i].cells[s]);
        }
        kp_machine_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_found_by_name_and_route),
        cmocka_unit_test(unknown_names_and_routes),
        cmocka_unit_test(pieces_of_a_path_are_arguments),
        cmocka_unit_test(rows_keep_the_rules),
        cmocka_unit_test(what_passes_a_stop),
        cmocka_unit_test(answers_keep_the_rules),
        cmocka_unit_test(every_command_in_every_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
