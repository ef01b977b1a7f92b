/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Memory that runs out anywhere between an empty process and a planned command: every allocation fails once, is told as such, and nothing is lost or broken
 * (the sanitizers look). What allocates in libkp, and where each of its allocations fails:
 *   kp_config_new, kp_config_parse, kp_config_env   here and test_config
 *   kp_machine_new, _command, _setting, _object, _resolve   here, test_config, test_parts
 *   kp_mappings_new, kp_modal_new   here and test_modal
 *   kp_check (of a refused call), kp_seq_plan   here
 *   kp_cache_new, kp_cache_set   test_cache;   kp_queue_new, kp_queue_add, kp_queue_restore   test_queue
 * All others ask for none: `nothing_else` holds those of the hot paths to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "alloc_fixture.h"
#include "gcode_fixture.h"

#include <cmocka.h>

#define CFG SEESAW "[gcode_driver]\ncommand_mappings:\n  BLOW: ['SET_PIN PIN={pin} VALUE=1']\n"

/* All that a program makes, NULL where it could not be made. */
struct chain {
    struct kp_config *config;
    struct kp_machine *machine;
    struct kp_mappings *maps;
    struct kp_modal *modal;
    struct kp_seq *seq;
};

static struct kp_arg number_arg(const char *name, double v)
{
    return (struct kp_arg){ .name = kp_str_of(name), .value = number_value(v) };
}

static enum kp_err plan(struct kp_seq **out, const struct kp_machine *m, const char *command, const struct kp_arg *args, size_t count, struct kp_faults *f)
{
    struct kp_call call;
    enum kp_err rc = kp_check(m, kp_command_by_name(kp_str_of(command)), args, count, &call, f);
    return rc == KP_OK ? kp_seq_plan(out, m, &call, true, f) : rc;
}

static enum kp_err chain_make(struct chain *c, struct kp_faults *f)
{
    struct kp_arg args[] = { number_arg("x", 10), number_arg("y", 10), number_arg("place_x", 100), number_arg("place_y", 100) };
    enum kp_err rc;
    c->config = kp_config_new();
    if (!c->config)
        return KP_INTERNAL_ERROR;
    if ((rc = kp_config_parse(c->config, "k.cfg", kp_str_of(CFG), f)) != KP_OK || (rc = kp_config_env(c->config, "LOG_LEVEL", "debug", NULL)) != KP_OK)
        return rc;
    c->machine = kp_machine_new(c->config);
    c->maps = kp_mappings_new();
    if (!c->machine || !c->maps)
        return KP_INTERNAL_ERROR;
    if ((rc = kp_mappings_config(c->maps, c->config, f)) != KP_OK)
        return rc;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        kp_machine_command(c->machine, kp_str_of(words[i]));
    rig_settings(c->machine, "homing_override");
    if ((rc = kp_machine_resolve(c->machine, f)) != KP_OK)
        return rc;
    fixture_status(c->machine);
    c->modal = kp_modal_new(c->machine, &(struct kp_modal_options){ .mappings = c->maps });
    if (!c->modal)
        return KP_INTERNAL_ERROR;
    return plan(&c->seq, c->machine, "pick_and_place", args, 4, f);
}

static void chain_free(struct chain *c)
{
    kp_seq_free(c->seq);
    kp_modal_free(c->modal);
    kp_mappings_free(c->maps);
    kp_machine_free(c->machine);
    kp_config_free(c->config);
}

static void whole_chain(void **state)
{
    (void)state;
    for (size_t nth = 1;; nth++) {
        struct chain c = { .config = NULL };
        struct kp_faults f = { .count = 0 };
        alloc_fail_at(nth);
        enum kp_err rc = chain_make(&c, &f);
        bool reached = alloc_count >= nth;
        alloc_fail_at(0);
        assert_int_equal(rc, reached ? KP_INTERNAL_ERROR : KP_OK);
        assert_int_equal(c.seq != NULL, !reached);
        chain_free(&c);
        if (!reached) {
            assert_in_range(nth, 60, 1000);
            return;
        }
    }
}

/* A plan without memory is that one fault; out is as it was. */
static void plans(void **state)
{
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_arg args[] = { number_arg("x", 10), number_arg("y", 20) };
    struct kp_seq *s = NULL;
    (void)state;
    struct kp_faults f = { .count = 0 };
    alloc_fail_at(1);
    assert_int_equal(plan(&s, m, "move", args, 2, &f), KP_INTERNAL_ERROR);
    assert_true(f.count == 1 && !s);
    assert_string_equal(f.item[0].message, "out of memory");
    alloc_fail_at(2);
    assert_int_equal(plan(&s, m, "move", args, 2, &f), KP_OK); /* a plan is one allocation */
    assert_int_equal(alloc_count, 1);
    alloc_fail_at(0);
    kp_seq_free(s);
    kp_machine_free(m);
}

/* A refused call is looked at further for its other faults; without memory those of the check stay, and only they. */
static void refused(void **state)
{
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_arg args[] = { number_arg("x", 9999), number_arg("feedrate", 0.5) };
    struct kp_seq *s = NULL;
    (void)state;
    struct kp_faults f = { .count = 0 };
    assert_int_equal(plan(&s, m, "move", args, 2, &f), KP_FEEDRATE_OUT_OF_BOUNDS);
    assert_int_equal(f.count, 2);
    f.count = 0;
    alloc_fail_at(1);
    assert_int_equal(plan(&s, m, "move", args, 2, &f), KP_FEEDRATE_OUT_OF_BOUNDS);
    assert_int_equal(f.count, 1);
    alloc_fail_at(0);
    kp_machine_free(m);
}

static void nothing_else(void **state)
{
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_arg args[] = { number_arg("x", 10), number_arg("y", 20) };
    struct kp_seq *s = NULL;
    struct kp_action a;
    struct kp_call call;
    struct kp_faults f = { .count = 0 };
    char script[KP_SCRIPT_MAX];
    int index;
    (void)state;
    assert_int_equal(plan(&s, m, "move", args, 2, &f), KP_OK);
    alloc_fail_at(1);
    assert_int_equal(kp_check(m, kp_command_by_name(kp_str_of("move")), args, 2, &call, &f), KP_OK);
    assert_int_equal(kp_safety_gate(m, &call, &f), KP_OK);
    for (kp_seq_step(s, KP_EV_START, 0, NULL, &a); a.kind == KP_ACT_SCRIPT;)
        kp_seq_step(s, KP_EV_OK, 0, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_DONE);
    fixture_status(m);
    tell(m, "output_pin valve1", "value", number_value(1));
    kp_safety_check(m, 5000);
    kp_safety_latch(m, true, "test");
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "Shutdown due to webhooks request");
    assert_true(kp_script_neutral(m, script) > 0);
    assert_int_equal(kp_machine_find_pin(m, kp_str_of("valve1"), &index, NULL, NULL), KP_OK);
    assert_int_equal(kp_machine_find_nozzle(m, kp_str_of("N7"), &index, &f.item[0]), KP_NOZZLE_NOT_FOUND);
    kp_machine_reset(m);
    assert_int_equal(alloc_count, 0);
    alloc_fail_at(0);
    kp_seq_free(s);
    kp_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_chain), cmocka_unit_test(plans), cmocka_unit_test(refused), cmocka_unit_test(nothing_else),
    };
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
