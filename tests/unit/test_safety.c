/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The latch's rules, the level, and the gate before a command. */
#include "machine_fixture.h"

#define STOPPED "Shutdown due to webhooks request\nOnce the underlying issue is corrected, use the\n\"FIRMWARE_RESTART\" command"

static void test_latch_seen(void **state)
{
    static const struct { const char *message; bool latched; const char *reason; } rows[] = {
        { STOPPED, true, "Shutdown due to webhooks request" },
        { "Shutdown due to M112 command\nOnce", true, "Shutdown due to M112 command" },
        { "MCU 'mcu' shutdown: Timer too close\nOnce", false, "" },
        { "Lost communication with MCU 'mcu'", false, "" },
        { "", false, "" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int words_first = 0; words_first < 2; words_first++) {
            struct kp_machine *m = machine_ready(0);
            told(m, "webhooks", words_first ? "state_message" : "state", text(words_first ? rows[i].message : "shutdown"), 1);
            assert_false(kp_safety_latched(m));
            told(m, "webhooks", words_first ? "state" : "state_message", text(words_first ? "shutdown" : rows[i].message), 1);
            assert_int_equal(kp_safety_latched(m), rows[i].latched);
            assert_string_equal(kp_safety_reason(m), rows[i].reason);
            assert_int_equal(kp_safety_level(m), rows[i].latched ? KP_EMERGENCY : KP_CRITICAL);
            kp_machine_klippy(m, KP_KLIPPY_GONE, NULL); /* a restart under way does not release */
            kp_machine_reset(m);
            kp_machine_klippy(m, KP_KLIPPY_STARTUP, "Printer is not ready");
            assert_int_equal(kp_safety_latched(m), rows[i].latched);
            kp_machine_klippy(m, KP_KLIPPY_READY, "Printer is ready");
            assert_false(kp_safety_latched(m));
            kp_machine_free(m);
        }
}

static void test_latch_ours(void **state)
{
    struct kp_machine *m = machine_ready(0);
    (void)state;
    kp_safety_latch(m, true, "operator");
    assert_true(kp_safety_latched(m));
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, STOPPED);
    assert_string_equal(kp_safety_reason(m), "operator");
    kp_machine_klippy(m, KP_KLIPPY_READY, "Printer is ready"); /* somebody restarted the firmware: still ours */
    assert_true(kp_safety_latched(m));
    kp_safety_latch(m, false, "seen");
    assert_string_equal(kp_safety_reason(m), "operator");
    kp_safety_release(m);
    assert_false(kp_safety_latched(m));
    assert_string_equal(kp_safety_reason(m), "");

    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, STOPPED); /* seen first, then asked of us as well: ours from then on */
    kp_safety_latch(m, true, NULL);
    kp_machine_klippy(m, KP_KLIPPY_READY, "Printer is ready");
    assert_true(kp_safety_latched(m));
    kp_safety_release(m);
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, STOPPED);
    kp_safety_release(m);
    told(m, "webhooks", "state", text("shutdown"), 5); /* Klipper is still stopped: seen again */
    assert_true(kp_safety_latched(m));
    kp_machine_free(m);
}

static void test_level(void **state)
{
    struct kp_machine *m = machine_ready(0);
    (void)state;
    assert_int_equal(kp_safety_level(m), KP_NORMAL);
    told(m, "toolhead", "homed_axes", text("xy"), 1);
    assert_int_equal(kp_safety_level(m), KP_CAUTION);
    kp_machine_klippy(m, KP_KLIPPY_STARTUP, NULL);
    assert_int_equal(kp_safety_level(m), KP_WARNING);
    kp_machine_klippy(m, KP_KLIPPY_ERROR, NULL);
    assert_int_equal(kp_safety_level(m), KP_CRITICAL);
    kp_machine_moonraker(m, false);
    assert_int_equal(kp_safety_level(m), KP_WARNING);
    kp_safety_latch(m, true, "r");
    assert_int_equal(kp_safety_level(m), KP_EMERGENCY);
    assert_string_equal(kp_level_name(KP_EMERGENCY), "emergency");
    assert_string_equal(kp_level_name(KP_NORMAL), "normal");
    kp_machine_free(m);
}

static const struct kp_param xyz_params[] = { { .name = "feedrate" }, { .name = "x" }, { .name = "y" }, { .name = "z" }, { .name = NULL } };
static const struct kp_command move = { .id = KP_MOVE, .name = "move", .flags = KP_NEEDS_HOMED | KP_MOVES, .params = xyz_params };
static const struct kp_command pick = { .id = KP_PICK, .name = "pick", .flags = KP_NEEDS_HOMED | KP_MOVES, .params = xyz_params };
static const struct kp_command pnp = { .id = KP_PICK_AND_PLACE, .name = "pnp", .flags = KP_NEEDS_HOMED | KP_MOVES, .params = xyz_params };
static const struct kp_command home = { .id = KP_HOME, .name = "home", .flags = KP_MOVES, .params = xyz_params };
static const struct kp_command stop = { .id = KP_EMERGENCY_STOP, .name = "stop", .flags = KP_WHILE_STOPPED, .params = xyz_params };

/* The codes the gate gives, in order, as one text. */
static const char *gate(const struct kp_machine *m, const struct kp_command *c, unsigned set, char out[256], struct kp_faults *f)
{
    struct kp_call call = { .command = c };
    *f = (struct kp_faults){ .count = 0 };
    for (unsigned i = 0; i < 4; i++)
        call.slot[i].set = set >> i & 1u;
    enum kp_err rc = kp_safety_gate(m, &call, f);
    assert_int_equal(rc, kp_faults_code(f));
    out[0] = 0;
    for (size_t i = 0; i < f->count; i++) {
        strcat(out, i ? " " : "");
        strcat(out, kp_err_name(f->item[i].code));
    }
    return out;
}

static void test_gate(void **state)
{
    struct kp_machine *m = machine_ready(0);
    struct kp_faults f;
    char codes[256];
    (void)state;
    assert_string_equal(gate(m, &move, 14, codes, &f), "");
    assert_string_equal(gate(m, &pnp, 0, codes, &f), "");
    told(m, "toolhead", "homed_axes", text("x"), 1);
    assert_string_equal(gate(m, &move, 2, codes, &f), "");
    assert_string_equal(gate(m, &move, 6, codes, &f), "HOMING_REQUIRED");
    assert_string_equal(f.item[0].message, "home these axes first: y");
    assert_string_equal(gate(m, &pick, 0, codes, &f), "HOMING_REQUIRED");
    assert_string_equal(f.item[0].field, "z");
    assert_string_equal(gate(m, &pnp, 0, codes, &f), "HOMING_REQUIRED");
    assert_string_equal(f.item[0].field, "y z");
    assert_string_equal(gate(m, &home, 0, codes, &f), "");
    told(m, "print_stats", "state", text("printing"), 1);
    assert_string_equal(gate(m, &home, 0, codes, &f), "INTERLOCK");
    assert_string_equal(gate(m, &pnp, 0, codes, &f), "INTERLOCK HOMING_REQUIRED");
    assert_string_equal(gate(m, &stop, 0, codes, &f), "");
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "MCU 'mcu' shutdown: Timer too close\nOnce more");
    assert_string_equal(gate(m, &pnp, 0, codes, &f), "KLIPPY_DISCONNECTED");
    assert_string_equal(f.item[0].message, "Klipper is not ready: shutdown, MCU 'mcu' shutdown: Timer too close");
    kp_machine_klippy(m, KP_KLIPPY_STARTUP, NULL);
    assert_string_equal(gate(m, &home, 0, codes, &f), "KLIPPY_DISCONNECTED");
    assert_string_equal(f.item[0].message, "Klipper is not ready: startup");
    kp_safety_latch(m, true, "operator");
    assert_string_equal(gate(m, &home, 0, codes, &f), "EMERGENCY_STOP_ACTIVE KLIPPY_DISCONNECTED");
    assert_string_equal(f.item[0].message, "the machine is stopped: operator");
    kp_machine_moonraker(m, false);
    assert_string_equal(gate(m, &home, 0, codes, &f), "EMERGENCY_STOP_ACTIVE MOONRAKER_DISCONNECTED");
    assert_string_equal(gate(m, &stop, 0, codes, &f), "");
    kp_safety_release(m);
    assert_string_equal(gate(m, &home, 0, codes, &f), "MOONRAKER_DISCONNECTED");
    kp_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latch_seen), cmocka_unit_test(test_latch_ours), cmocka_unit_test(test_level), cmocka_unit_test(test_gate),
    };
    return cmocka_run_group_tests_name("safety", tests, NULL, NULL);
}
