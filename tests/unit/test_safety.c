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
    told(m, "toolhead", "homed_axes", text("xz"), 1);
    assert_string_equal(gate(m, &move, 2, codes, &f), "");
    assert_string_equal(gate(m, &move, 6, codes, &f), "HOMING_REQUIRED");
    assert_string_equal(f.item[0].message, "home these axes first: y");
    told(m, "toolhead", "homed_axes", text("x"), 1);
    assert_string_equal(gate(m, &move, 2, codes, &f), "HOMING_REQUIRED"); /* the travel height cannot be told: this machine has travel_interlock */
    assert_string_equal(f.item[0].message, "home these axes first: z");
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

/* ---- the tables, cell by cell ---- */

static void test_latch_table(void **state)
{
    static const char want[KP_LATCH_COUNT][KP_LE_COUNT + 1] = { "OSFF", "OSFF", "OOOF" }; /* columns: asked seen ready release */
    (void)state;
    for (enum kp_latch from = 0; from < KP_LATCH_COUNT; from++)
        for (enum kp_latch_event ev = 0; ev < KP_LE_COUNT; ev++)
            assert_int_equal("FSO"[kp_safety_latch_next(from, ev)], want[from][ev]);
}

/* Each cell by what a machine does: the latch, and the events it leaves. */
static void test_latch_machine(void **state)
{
    (void)state;
    for (enum kp_latch from = 0; from < KP_LATCH_COUNT; from++)
        for (enum kp_latch_event ev = 0; ev < KP_LE_COUNT; ev++) {
            struct kp_machine *m = machine_ready(0);
            kp_machine_klippy(m, KP_KLIPPY_STARTUP, NULL);
            if (from != KP_LATCH_FREE)
                kp_safety_latch(m, from == KP_LATCH_OURS, "first");
            size_t before = 0, after = 0;
            while (kp_safety_event(m, before))
                before++;
            switch (ev) {
            case KP_LE_ASKED: kp_safety_latch(m, true, "again"); break;
            case KP_LE_SEEN: kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, STOPPED); break;
            case KP_LE_READY: kp_machine_klippy(m, KP_KLIPPY_READY, NULL); break;
            default: kp_safety_release(m); break;
            }
            enum kp_latch to = kp_safety_latch_next(from, ev);
            while (kp_safety_event(m, after))
                after++;
            assert_int_equal(kp_safety_latched(m), to != KP_LATCH_FREE);
            assert_int_equal(after - before, to != from);
            const struct kp_safety_event *e = kp_safety_event(m, 0);
            if (to != from && to == KP_LATCH_FREE)
                assert_true(e->cause == KP_CAUSE_RELEASE && e->level == KP_NORMAL);
            else if (to != from)
                assert_true(e->cause == KP_CAUSE_STOP && e->level == KP_EMERGENCY && strcmp(e->text, kp_safety_reason(m)) == 0);
            if (to == from && from != KP_LATCH_FREE)
                assert_string_equal(kp_safety_reason(m), "first");
            kp_machine_free(m);
        }
}

/* Released only by request, and only when the cause is gone. */
static void test_reset(void **state)
{
    struct kp_machine *m = machine_ready(0);
    struct kp_error e;
    (void)state;
    assert_int_equal(kp_safety_reset(m, 0, &e), KP_OK);
    kp_safety_latch(m, true, "operator");
    kp_machine_moonraker(m, false);
    assert_int_equal(kp_safety_reset(m, 0, &e), KP_MOONRAKER_DISCONNECTED);
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, STOPPED);
    assert_int_equal(kp_safety_reset(m, 0, &e), KP_KLIPPY_DISCONNECTED);
    assert_string_equal(e.message, "the stop stays: Klipper is in shutdown");
    assert_int_equal(kp_safety_reset(m, 0, NULL), KP_KLIPPY_DISCONNECTED);
    assert_true(kp_safety_latched(m));
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    told(m, "toolhead", "homed_axes", text("xyz"), 10);
    told(m, "gcode_move", "position", numbers((const double[]){ 260, 0, 0 }, 3), 10); /* ours end at 250 */
    assert_int_equal(kp_safety_reset(m, 10, &e), KP_INTERLOCK);
    assert_string_equal(e.message, "the stop stays: the head is sent beyond the position limits");
    assert_true(kp_safety_latched(m));
    told(m, "gcode_move", "position", numbers((const double[]){ 250, 0, 0 }, 3), 10);
    assert_int_equal(kp_safety_reset(m, 10, &e), KP_OK);
    assert_false(kp_safety_latched(m));
    kp_machine_free(m);
}

static const char *const state_names[] = { "ready", "unhomed", "low", "held", "printing", "not_ready", "no_moonraker", "stopped" };
static const char *const ask_names[] = { "read", "stop", "reset", "use", "switch", "home", "move", "cross", "queued" };

/* . passes, H home first, I interlock, K Klipper, M Moonraker, E emergency stop. Columns as in ask_names. */
static const char interlocks[KP_STATE_COUNT][KP_ASK_COUNT + 1] = {
    ".........", "......HH.", ".......I.", "........I", "....IIIII", "...KKKKKK", "...MMMMMM", "...EEEEEE",
};

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

static void test_interlocks(void **state)
{
    (void)state;
    for (enum kp_state s = 0; s < KP_STATE_COUNT; s++)
        for (enum kp_ask ask = 0; ask < KP_ASK_COUNT; ask++) {
            assert_int_equal(letter_of(kp_safety_interlock(s, ask)), interlocks[s][ask]);
            assert_string_equal(kp_state_name(s), state_names[s]);
            assert_string_equal(kp_ask_name(ask), ask_names[ask]);
        }
}

/* A machine in this one state. */
static struct kp_machine *machine_in(enum kp_state s)
{
    struct kp_machine *m = machine_ready(0);
    switch (s) {
    case KP_S_UNHOMED: told(m, "toolhead", "homed_axes", text(""), 1); break;
    case KP_S_LOW: told(m, "gcode_move", "position", numbers((const double[]){ 10, 20, 1.9 }, 3), 1); break; /* the band is 2 to 5 */
    case KP_S_HELD:
        told(m, "gcode_move", "position", numbers((const double[]){ 260, 20, 3 }, 3), 1);
        assert_int_equal(kp_safety_check(m, 1), KP_REACT_HOLD);
        break;
    case KP_S_PRINTING: told(m, "virtual_sdcard", "is_active", truth(true), 1); break;
    case KP_S_NOT_READY: kp_machine_klippy(m, KP_KLIPPY_STARTUP, NULL); break;
    case KP_S_NO_MOONRAKER: kp_machine_moonraker(m, false); break;
    case KP_S_STOPPED: kp_safety_latch(m, true, "r"); break;
    default: break;
    }
    return m;
}

/* What a row asks by its flags, said here a second time. */
static enum kp_ask ask_of(const struct kp_command *c, bool xy)
{
    if (c->id == KP_EMERGENCY_STOP)
        return KP_ASK_STOP;
    if (c->id == KP_RESET)
        return KP_ASK_RESET;
    if (c->flags & KP_WHILE_STOPPED)
        return KP_ASK_READ;
    if (c->id == KP_HOME)
        return KP_ASK_HOME;
    if (c->id == KP_PICK || c->id == KP_PLACE)
        return KP_ASK_MOVE;
    if (c->id == KP_MOVE)
        return xy ? KP_ASK_CROSS : KP_ASK_MOVE;
    if (c->flags & KP_NEEDS_HOMED)
        return KP_ASK_CROSS;
    return c->flags & KP_MOVES ? KP_ASK_SWITCH : KP_ASK_USE;
}

/* Every command of the registry in every state, a move with X and one with Z alone: the gate says what the table says. The travel height and the
 * queue's hold are not the gate's. */
static void test_commands(void **state)
{
    size_t count;
    const struct kp_command *rows = kp_commands(&count);
    (void)state;
    for (enum kp_state s = 0; s < KP_STATE_COUNT; s++) {
        struct kp_machine *m = machine_in(s);
        bool gone = s == KP_S_NOT_READY || s == KP_S_NO_MOONRAKER;
        unsigned follows = gone ? 1u << KP_S_UNHOMED : s == KP_S_STOPPED ? 1u << KP_S_HELD : 0;
        assert_int_equal(kp_safety_states(m), 1u << s | follows);
        for (size_t i = 0; i < count; i++)
            for (int xy = 0; xy < 2; xy++) {
                struct kp_call call = { .command = &rows[i] };
                struct kp_faults f = { .count = 0 };
                for (size_t p = 0; rows[i].params[p].name; p++)
                    call.slot[p].set = strcmp(rows[i].params[p].name, xy ? "x" : "z") == 0;
                enum kp_ask ask = ask_of(&rows[i], xy);
                char want = s == KP_S_LOW || s == KP_S_HELD ? '.' : interlocks[s][ask];
                assert_int_equal(kp_safety_ask(&call), ask);
                char got = letter_of(kp_safety_gate(m, &call, &f));
                if (got != want)
                    fail_msg("%s in %s: %c, not %c", rows[i].name, state_names[s], got, want);
                assert_int_equal(f.count, want != '.');
            }
        kp_machine_free(m);
    }
}

/* Several at once: all are there, and the most severe comes first. */
static void test_states(void **state)
{
    struct kp_machine *m = machine_ready(0);
    (void)state;
    assert_int_equal(kp_safety_states(m), 1u << KP_S_READY);
    told(m, "toolhead", "homed_axes", text("xy"), 1);
    told(m, "gcode_move", "position", numbers((const double[]){ 1, 1, 5.1 }, 3), 1);
    told(m, "print_stats", "state", text("printing"), 1);
    assert_int_equal(kp_safety_states(m), 1u << KP_S_UNHOMED | 1u << KP_S_LOW | 1u << KP_S_PRINTING);
    kp_safety_latch(m, false, "seen");
    assert_int_equal(kp_safety_states(m), 1u << KP_S_UNHOMED | 1u << KP_S_LOW | 1u << KP_S_PRINTING | 1u << KP_S_HELD | 1u << KP_S_STOPPED);
    kp_machine_free(m);
    m = machine_make("[nozzle N1]\nsafe_z: 2\n"); /* no interlock asked for */
    kp_machine_resolve(m, NULL);
    told(m, "gcode_move", "position", numbers((const double[]){ 1, 1, 1 }, 3), 1);
    assert_false(kp_safety_states(m) & 1u << KP_S_LOW);
    kp_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latch_seen), cmocka_unit_test(test_latch_ours), cmocka_unit_test(test_level), cmocka_unit_test(test_gate),
        cmocka_unit_test(test_latch_table), cmocka_unit_test(test_latch_machine), cmocka_unit_test(test_reset), cmocka_unit_test(test_interlocks),
        cmocka_unit_test(test_commands), cmocka_unit_test(test_states),
    };
    return cmocka_run_group_tests_name("safety", tests, NULL, NULL);
}
