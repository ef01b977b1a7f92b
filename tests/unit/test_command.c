/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registry: its rows against each other and against the rules that every row keeps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kp.h"

static void rows_are_found_by_name_and_route(void **state)
{
    (void)state;
    size_t n;
    const struct kp_command *rows = kp_commands(&n);
    assert_int_equal(n, KP_RESET + 1);
    assert_ptr_equal(kp_commands(NULL), rows);
    for (size_t i = 0; i < n; i++) {
        unsigned allowed = 0;
        assert_int_equal(rows[i].id, i);
        assert_ptr_equal(kp_command_by_name(kp_str_of(rows[i].name)), &rows[i]);
        assert_ptr_equal(kp_command_by_route(rows[i].method, kp_str_of(rows[i].path), &allowed), &rows[i]);
        assert_true(allowed & rows[i].method);
        assert_null(kp_command_by_route(KP_DELETE, kp_str_of(rows[i].path), &allowed));
        assert_true(allowed & rows[i].method);
    }
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

static void rows_keep_the_rules(void **state)
{
    (void)state;
    size_t n;
    const struct kp_command *rows = kp_commands(&n);
    for (size_t i = 0; i < n; i++) {
        const struct kp_command *c = &rows[i];
        size_t params = 0;
        assert_true(c->doc && c->doc[0]);
        assert_int_equal(c->strategy == KP_GCODE, c->timeout_s > 0);
        assert_int_equal(c->strategy == KP_GCODE, (c->flags & KP_MOVES) != 0);
        assert_int_equal(c->strategy == KP_GCODE, !(c->flags & KP_WHILE_STOPPED)); /* nothing that acts passes a latch */
        if (c->method == KP_GET)
            assert_true(c->role <= KP_VIEWER);
        else
            assert_int_equal(c->role, KP_OPERATOR);
        for (const struct kp_param *p = c->params; p->name; p++, params++) {
            assert_true(kp_name_ok(kp_str_of(p->name)) && p->doc && p->doc[0]);
            assert_true(p->min <= p->max);
            assert_true(isnan(p->def) || (p->def >= p->min && p->def <= p->max));
            assert_false((p->flags & KP_REQUIRED) && !isnan(p->def));
            if (p->type == KP_P_INT)
                assert_true(isfinite(p->min) && isfinite(p->max));
            assert_string_not_equal(p->name, "timeout_s");
            for (const struct kp_param *q = c->params; q != p; q++)
                assert_string_not_equal(p->name, q->name);
        }
        assert_true(params <= sizeof ((struct kp_call *)0)->slot / sizeof(struct kp_slot));
        assert_true(params + 1 + KP_AXES_MAX <= KP_ARGS_MAX);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_found_by_name_and_route),
        cmocka_unit_test(unknown_names_and_routes),
        cmocka_unit_test(rows_keep_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
