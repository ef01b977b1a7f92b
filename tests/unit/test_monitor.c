/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The monitors: what each finds, when it looks, what it does and tells, and the ring of events. All time is injected. */
#include "machine_fixture.h"

/* The seesaw of the fixture with heaters: an extruder to 250, a bed to 110, a chamber sensor to 60. */
static struct kp_machine *machine_hot(void)
{
    static const struct fixture_row rows[] = {
        { "extruder", "max_temp", KP_NUM, 300, NULL }, { "heater_bed", "max_temp", KP_NUM, 110, NULL },
        { "temperature_sensor chamber", "sensor_type", KP_STR, 0, "x" },
        { "stepper_x", "position_endstop", KP_NUM, 300, NULL },
    };
    struct kp_machine *m = machine_ready(0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_value v = { .kind = rows[i].kind, .num = rows[i].num, .str = kp_str_of(rows[i].text) };
        kp_machine_setting(m, kp_str_of(rows[i].section), kp_str_of(rows[i].option), &v);
    }
    kp_machine_resolve(m, NULL);
    return m;
}

static void at(struct kp_machine *m, double x, double y, double z)
{
    told(m, "gcode_move", "position", numbers((const double[]){ x, y, z }, 3), 1);
}

static size_t events(const struct kp_machine *m)
{
    size_t n = 0;
    while (kp_safety_event(m, n))
        n++;
    return n;
}

static void test_table(void **state)
{
    static const struct { const char *name; enum kp_monitor monitor; enum kp_level level; bool holds; int stops; } want[] = {
        { "TEMPERATURE_HIGH", KP_MONITOR_TEMPERATURE, KP_CRITICAL, true, 2 }, { "TEMPERATURE_NEAR", KP_MONITOR_TEMPERATURE, KP_CAUTION, false, -1 },
        { "TEMPERATURE_TARGET", KP_MONITOR_TEMPERATURE, KP_WARNING, false, -1 }, { "POSITION_OUT", KP_MONITOR_POSITION, KP_CRITICAL, true, 2 },
        { "PRINTING", KP_MONITOR_STATE, KP_CAUTION, true, -1 }, { "NOT_READY", KP_MONITOR_STATE, KP_WARNING, true, -1 },
        { "KLIPPER_DOWN", KP_MONITOR_STATE, KP_CRITICAL, true, -1 }, { "SILENT", KP_MONITOR_STATE, KP_WARNING, true, -1 },
        { "SILENT_MOVING", KP_MONITOR_STATE, KP_CRITICAL, true, 2 }, { "CUT_MOVING", KP_MONITOR_STATE, KP_CRITICAL, true, -1 },
        { "LOST_MOVING", KP_MONITOR_STATE, KP_EMERGENCY, true, 0 },
    };
    (void)state;
    assert_int_equal(KP_CAUSE_COUNT, sizeof want / sizeof *want);
    for (enum kp_cause c = 0; c < KP_CAUSE_COUNT; c++) {
        bool seen = false;
        const struct kp_cause_row *row = kp_cause_row(c);
        for (size_t i = 0; i < sizeof want / sizeof *want; i++)
            if (strcmp(want[i].name, row->name) == 0) {
                seen = row->monitor == want[i].monitor && row->level == want[i].level && row->holds == want[i].holds && row->stops == want[i].stops;
                assert_string_equal(kp_cause_name(c), want[i].name);
            }
        assert_true(seen && strlen(row->doc) > 10);
    }
    assert_null(kp_cause_row(KP_CAUSE_STOP));
    assert_string_equal(kp_cause_name(KP_CAUSE_STOP), "EMERGENCY_STOP");
    assert_string_equal(kp_cause_name(KP_CAUSE_RELEASE), "RELEASE");
}

/* Each cause by a machine that has it: level and what is to be done at the first look and the two after it. */
enum how { HOT, NEAR, TARGET, OUT, PRINT, AWAY, DOWN, FAULTY, NO_MOONRAKER, QUIET, QUIET_MOVING, CUT, LOST };

static struct kp_machine *machine_with(enum how how)
{
    struct kp_machine *m = machine_hot();
    kp_safety_check(m, 0);
    if (how == QUIET_MOVING || how == CUT || how == LOST) {
        told(m, "toolhead", "print_time", number(12), 1);
        told(m, "toolhead", "estimated_print_time", number(10), 1);
    }
    switch (how) {
    case HOT: told(m, "extruder", "temperature", number(250.1), 1); break;
    case NEAR: told(m, "temperature_sensor chamber", "temperature", number(55.5), 1); break;
    case TARGET:
        told(m, "heater_bed", "temperature", number(20), 1);
        told(m, "heater_bed", "target", number(111), 1);
        break;
    case OUT: at(m, 10, 20, -50.1); break; /* ours end at -50, Klipper's at -60 */
    case PRINT: told(m, "print_stats", "state", text("printing"), 1); break;
    case AWAY: kp_machine_klippy(m, KP_KLIPPY_STARTUP, NULL); break;
    case DOWN: kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "MCU 'mcu' shutdown: Timer too close"); break;
    case FAULTY: kp_machine_klippy(m, KP_KLIPPY_ERROR, "x"); break;
    case CUT:
    case NO_MOONRAKER: kp_machine_moonraker(m, false); break;
    case LOST: kp_machine_klippy(m, KP_KLIPPY_GONE, NULL); break;
    case QUIET:
    case QUIET_MOVING: break;
    }
    return m;
}

static void test_causes(void **state)
{
    static const struct { enum how how; enum kp_cause cause; enum kp_level level; unsigned first, third; bool held; const char *text; } rows[] = {
        { HOT, KP_CAUSE_TEMPERATURE_HIGH, KP_CRITICAL, KP_REACT_HOLD, KP_REACT_STOP, true,
          "a temperature is beyond its limit: extruder is 250.1, the limit 250" },
        { NEAR, KP_CAUSE_TEMPERATURE_NEAR, KP_CAUTION, 0, 0, false, "a temperature is near its limit: chamber is 55.5, the limit 60" },
        { TARGET, KP_CAUSE_TEMPERATURE_TARGET, KP_WARNING, 0, 0, false, "a temperature is asked for beyond its limit: heater_bed is 111, the limit 110" },
        { OUT, KP_CAUSE_POSITION_OUT, KP_CRITICAL, KP_REACT_HOLD, KP_REACT_STOP, true,
          "the head is sent beyond the position limits: z is -50.1, the limit -50" },
        { PRINT, KP_CAUSE_PRINTING, KP_CAUTION, KP_REACT_HOLD, 0, true, "a file print is running" },
        { AWAY, KP_CAUSE_NOT_READY, KP_WARNING, KP_REACT_HOLD, 0, true, "Klipper or Moonraker is away or not ready" },
        { DOWN, KP_CAUSE_KLIPPER_DOWN, KP_CRITICAL, KP_REACT_HOLD, 0, true, "Klipper has shut down or found an error" },
        { FAULTY, KP_CAUSE_KLIPPER_DOWN, KP_CRITICAL, KP_REACT_HOLD, 0, true, "Klipper has shut down or found an error" },
        { NO_MOONRAKER, KP_CAUSE_NOT_READY, KP_WARNING, KP_REACT_HOLD, 0, true, "Klipper or Moonraker is away or not ready" },
        { QUIET, KP_CAUSE_SILENT, KP_WARNING, KP_REACT_HOLD, 0, true, "Klipper tells nothing" },
        { QUIET_MOVING, KP_CAUSE_SILENT_MOVING, KP_CRITICAL, KP_REACT_HOLD, KP_REACT_STOP, true, "Klipper tells nothing while the machine moves" },
        { CUT, KP_CAUSE_CUT_MOVING, KP_CRITICAL, KP_REACT_HOLD, 0, true, "the connection to Moonraker broke while the machine moved" },
        { LOST, KP_CAUSE_LOST_MOVING, KP_EMERGENCY, KP_REACT_HOLD | KP_REACT_STOP, 0, true, "Klipper was lost while the machine moved" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = machine_with(rows[i].how);
        bool stops = rows[i].third == KP_REACT_STOP, at_once = rows[i].first & KP_REACT_STOP, told_it = false;
        for (int look = 1; look <= 5; look++) {
            unsigned want = look == 1 ? rows[i].first : look == 3 ? rows[i].third : 0;
            if (rows[i].how != QUIET && rows[i].how != QUIET_MOVING)
                kp_machine_pushed(m, 4000 * look);
            assert_int_equal(kp_safety_check(m, 4000 * look), want);
            assert_true(kp_safety_present(m, rows[i].cause));
            assert_int_equal(kp_safety_latched(m), at_once || (stops && look >= 3));
            assert_true(kp_safety_level(m) >= rows[i].level);
        }
        for (size_t e = 0; kp_safety_event(m, e); e++)
            told_it = told_it || (kp_safety_event(m, e)->cause == rows[i].cause && kp_safety_event(m, e)->level == rows[i].level &&
                                  strcmp(kp_safety_event(m, e)->text, rows[i].text) == 0);
        assert_true(told_it);
        assert_int_equal(kp_safety_held(m), rows[i].held);
        kp_machine_free(m);
    }
}

/* Two looks are not three: what is over in time stops nothing, and is told to be over. */
static void test_over(void **state)
{
    struct kp_machine *m = machine_hot();
    (void)state;
    at(m, 10, 20, -51);
    assert_int_equal(kp_safety_check(m, 1000), KP_REACT_HOLD);
    assert_int_equal(kp_safety_check(m, 1500), 0);
    at(m, 10, 20, -50);
    assert_int_equal(kp_safety_check(m, 2000), 0);
    assert_false(kp_safety_present(m, KP_CAUSE_POSITION_OUT) || kp_safety_held(m));
    const struct kp_safety_event *e = kp_safety_event(m, 0);
    assert_true(e->level == KP_NORMAL && e->cause == KP_CAUSE_POSITION_OUT && e->at_ms == 2000);
    assert_string_equal(e->text, "over: the head is sent beyond the position limits");
    at(m, 10, 20, -51); /* and it counts from the start again */
    kp_machine_pushed(m, 2500);
    assert_int_equal(kp_safety_check(m, 2500), KP_REACT_HOLD);
    assert_int_equal(kp_safety_check(m, 3000), 0);
    kp_machine_pushed(m, 3500);
    assert_int_equal(kp_safety_check(m, 3500), KP_REACT_STOP);
    assert_string_equal(kp_safety_reason(m), "the head is sent beyond the position limits");
    kp_machine_pushed(m, 4000);
    assert_int_equal(kp_safety_check(m, 4000), 0); /* once is enough */
    kp_machine_free(m);
}

/* A stop of ours that holds Klipper down is not asked for twice. One that was only seen is, and so is an old one of ours on a Klipper that runs again: others
 * drive it. */
static void test_latched_already(void **state)
{
    static const struct { bool ours, down, stops; } rows[] = { { false, false, true }, { true, true, false }, { true, false, true } };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = machine_hot();
        kp_safety_latch(m, rows[i].ours, "first");
        kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "Shutdown due to webhooks request");
        if (!rows[i].down)
            kp_machine_klippy(m, KP_KLIPPY_READY, "");
        kp_safety_check(m, 100); /* Klipper is down, or over it */
        told(m, "extruder", "temperature", number(300), 200);
        for (int look = 1; look <= 5; look++) {
            kp_machine_pushed(m, 2000 * look);
            assert_int_equal(kp_safety_check(m, 2000 * look), look == 1 ? KP_REACT_HOLD : look == 3 && rows[i].stops ? KP_REACT_STOP : 0);
        }
        assert_int_equal(kp_safety_event(m, 0)->cause, rows[i].stops ? KP_CAUSE_STOP : KP_CAUSE_TEMPERATURE_HIGH);
        assert_string_equal(kp_safety_reason(m), rows[i].ours ? "first" : "a temperature is beyond its limit");
        kp_machine_free(m);
    }
}

/* Where a homed head is sent. Klipper lets nobody leave its own limits, so a place outside them is a homing; an end switch may lie outside ours. */
static void test_positions(void **state)
{
    static const struct { double x, y, z; const char *homed; bool out; } rows[] = {
        { 250, 200, 60, "xyz", false }, { 0, 0, -50, "xyz", false }, { 250.0005, 0, 0, "xyz", false },
        { 299, 0, 0, "xyz", false },     /* between ours (250) and the end switch (300) */
        { 450, 0, 0, "xyz", false },     /* forced: a homing begins */
        { -0.002, 0, 0, "xyz", false },  /* outside Klipper's own */
        { 10, 10, -55, "xyz", true }, { 10, 10, -55, "xy", false }, { 10, 10, -75, "xyz", false },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = machine_hot();
        told(m, "toolhead", "homed_axes", text(rows[i].homed), 1);
        at(m, rows[i].x, rows[i].y, rows[i].z);
        assert_int_equal(kp_safety_check(m, 1000), rows[i].out ? KP_REACT_HOLD : 0);
        assert_int_equal(kp_safety_present(m, KP_CAUSE_POSITION_OUT), rows[i].out);
        kp_machine_free(m);
    }
    struct kp_machine *m = machine_make("[safety]\nmin_x_position: 0\n"); /* nothing told yet */
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    assert_int_equal(kp_safety_check(m, 1000), 0);
    kp_machine_free(m);
}

/* Hot until 5 C below the limit; what is not known now stays as it was. */
static void test_temperatures(void **state)
{
    static const struct { double c; bool high, near; } rows[] = {
        { 20, false, false }, { 245, false, false }, { 245.1, false, true }, { 250, false, true }, { 250.01, true, false }, { 246, true, false },
        { 245, false, false }, { 246, false, true },
    };
    struct kp_machine *m = machine_hot();
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t now_ms = (int64_t)(1000 * (i + 1));
        told(m, "extruder", "temperature", number(rows[i].c), now_ms);
        kp_machine_pushed(m, now_ms);
        kp_safety_check(m, now_ms);
        assert_int_equal(kp_safety_present(m, KP_CAUSE_TEMPERATURE_HIGH), rows[i].high);
        assert_int_equal(kp_safety_present(m, KP_CAUSE_TEMPERATURE_NEAR), rows[i].near);
        assert_int_equal(kp_machine_heater(m, 0)->beyond, rows[i].high);
    }
    /* A stop for heat is not released before it is 5 C below, also over a restart of the firmware. */
    told(m, "extruder", "temperature", number(260), 9000);
    for (int i = 9; i <= 11; i++) {
        kp_machine_pushed(m, 1000 * i);
        kp_safety_check(m, 1000 * i);
    }
    assert_true(kp_safety_latched(m));
    kp_machine_klippy(m, KP_KLIPPY_SHUTDOWN, "x");
    kp_machine_klippy(m, KP_KLIPPY_READY, "");
    kp_safety_check(m, 12000);
    told(m, "extruder", "temperature", number(248), 12500);
    assert_int_equal(kp_safety_reset(m, 12500, NULL), KP_INTERLOCK);
    told(m, "extruder", "temperature", number(244.9), 13000);
    assert_int_equal(kp_safety_reset(m, 13000, NULL), KP_OK);
    kp_machine_free(m);
}

/* Each monitor at its own interval; the state at once when Klipper comes or goes. */
static void test_due(void **state)
{
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    kp_config_parse(c, "k.cfg", kp_str_of("[safety]\ntemperature_check_interval: 0.7\n"), &f);
    struct kp_machine *m = kp_machine_new(c);
    kp_config_free(c);
    (void)state;
    assert_true(kp_safety_due(m) == INT64_MIN);
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    kp_safety_check(m, 100);
    assert_int_equal(kp_safety_due(m), 600);   /* the position */
    kp_safety_check(m, 600);
    assert_int_equal(kp_safety_due(m), 800);   /* the temperatures */
    kp_safety_check(m, 799);
    assert_int_equal(kp_safety_due(m), 800);
    kp_safety_check(m, 1999);
    assert_int_equal(kp_safety_due(m), 2100);  /* the state: the other two begin again at 2499 and 2699 */
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    assert_int_equal(kp_safety_due(m), 2100);
    kp_machine_klippy(m, KP_KLIPPY_STARTUP, NULL);
    assert_true(kp_safety_due(m) == INT64_MIN);
    assert_int_equal(kp_safety_check(m, 2000), KP_REACT_HOLD);
    kp_machine_free(m);
}

struct heard { size_t count; uint64_t last; int64_t at_ms; char text[KP_TEXT_MAX]; };

static void hear(void *context, const struct kp_safety_event *e)
{
    struct heard *h = context;
    assert_int_equal(e->id, h->last + 1); /* every one, in order */
    h->last = e->id;
    h->count++;
    h->at_ms = e->at_ms;
    memcpy(h->text, e->text, sizeof h->text);
}

static void test_events(void **state)
{
    struct kp_machine *m = machine_ready(5);
    struct heard h = { .count = 0 };
    char endless[400];
    (void)state;
    assert_null(kp_safety_event(m, 0));
    kp_safety_listen(m, hear, &h);
    for (int i = 0; i < 300; i++) {
        kp_safety_latch(m, true, i % 2 ? "odd" : "even");
        kp_safety_release(m);
    }
    assert_int_equal(h.count, 600);
    assert_int_equal(h.at_ms, 5);
    assert_int_equal(events(m), KP_EVENTS_MAX);
    assert_int_equal(kp_safety_event(m, 0)->id, 600);
    assert_string_equal(kp_safety_event(m, 1)->text, "odd");
    assert_string_equal(kp_safety_event(m, 3)->text, "even");
    assert_int_equal(kp_safety_event(m, KP_EVENTS_MAX - 1)->id, 600 - KP_EVENTS_MAX + 1);
    assert_null(kp_safety_event(m, KP_EVENTS_MAX));
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    kp_safety_latch(m, true, endless);
    assert_int_equal(strlen(h.text), KP_TEXT_MAX - 1);
    kp_safety_listen(m, NULL, NULL);
    kp_safety_release(m);
    assert_int_equal(h.count, 601);
    assert_int_equal(kp_safety_event(m, 0)->id, 602);
    assert_false(kp_safety_present(m, KP_CAUSE_STOP));
    kp_machine_free(m);
}

/* Standing still, a Klipper that goes is no emergency; ready again, what was lost is forgotten. */
static void test_lost(void **state)
{
    struct kp_machine *m = machine_hot();
    (void)state;
    told(m, "toolhead", "print_time", number(10), 1);
    told(m, "toolhead", "estimated_print_time", number(12), 1);
    kp_machine_klippy(m, KP_KLIPPY_GONE, NULL);
    assert_int_equal(kp_safety_check(m, 1000), KP_REACT_HOLD);
    assert_false(kp_safety_latched(m));
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    kp_safety_check(m, 1500);
    told(m, "toolhead", "print_time", number(13), 2000);
    told(m, "toolhead", "estimated_print_time", number(12), 2000);
    kp_machine_pushed(m, 2000);
    kp_machine_time(m, 2999); /* of the second of motion that was left */
    kp_machine_moonraker(m, false);
    assert_true(kp_safety_check(m, 3100) == KP_REACT_HOLD && kp_safety_present(m, KP_CAUSE_CUT_MOVING));
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    kp_safety_check(m, 3200);
    assert_false(kp_safety_present(m, KP_CAUSE_CUT_MOVING) || kp_safety_held(m));
    told(m, "toolhead", "print_time", number(20), 4000);
    told(m, "toolhead", "estimated_print_time", number(19), 4000);
    kp_machine_pushed(m, 4000);
    kp_machine_time(m, 5001); /* it has ended */
    kp_machine_klippy(m, KP_KLIPPY_GONE, NULL);
    assert_int_equal(kp_safety_check(m, 5100), KP_REACT_HOLD);
    assert_false(kp_safety_latched(m));
    kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    kp_safety_check(m, 5200);
    assert_int_equal(kp_safety_level(m), KP_CAUTION); /* it does not know what is homed */
    kp_machine_free(m);
}

/* A machine that moved when it was last told of, at 10000, and is read again since 12300: nothing has come for so long. */
static struct kp_machine *machine_reading(void)
{
    struct kp_machine *m = machine_hot();
    told(m, "toolhead", "print_time", number(12), 10000);
    told(m, "toolhead", "estimated_print_time", number(11.5), 10000);
    kp_machine_pushed(m, 10000);
    kp_safety_check(m, 10100);
    kp_machine_time(m, 12300);
    kp_machine_reading(m, "read again");
    assert_int_equal(kp_machine_klippy_state(m), KP_KLIPPY_STARTUP);
    assert_string_equal(kp_machine_klippy_message(m), "read again");
    assert_true(kp_machine_pushed_ms(m) == INT64_MIN);
    assert_int_equal(kp_safety_check(m, 12300), KP_REACT_HOLD);
    assert_true(kp_safety_present(m, KP_CAUSE_SILENT_MOVING) && kp_safety_present(m, KP_CAUSE_NOT_READY));
    return m;
}

/* A reading is not the end of a silence: a Klipper that hangs is stopped at the third look all the same, and one that goes meanwhile was lost in motion. */
static void test_reading(void **state)
{
    (void)state;
    struct kp_machine *m = machine_reading();
    kp_machine_reset(m); /* objects came, and then nothing more */
    assert_int_equal(kp_safety_check(m, 14300), 0);
    assert_false(kp_safety_latched(m));
    assert_int_equal(kp_safety_check(m, 16300), KP_REACT_STOP);
    assert_true(kp_safety_latched(m));
    kp_machine_free(m);

    m = machine_reading();
    kp_machine_time(m, 13000);
    kp_machine_klippy(m, KP_KLIPPY_GONE, NULL);
    assert_true(kp_safety_check(m, 13000) == (KP_REACT_HOLD | KP_REACT_STOP) && kp_safety_present(m, KP_CAUSE_LOST_MOVING));
    kp_machine_free(m);

    m = machine_reading();
    kp_machine_time(m, 13500);
    kp_machine_moonraker(m, false);
    assert_true(kp_safety_check(m, 13500) == KP_REACT_HOLD && kp_safety_present(m, KP_CAUSE_CUT_MOVING));
    assert_false(kp_safety_present(m, KP_CAUSE_SILENT_MOVING));
    kp_machine_free(m);

    m = machine_reading(); /* it was only slow */
    kp_machine_klippy(m, KP_KLIPPY_READY, "");
    kp_machine_pushed(m, 14000);
    assert_int_equal(kp_safety_check(m, 14300), 0);
    assert_false(kp_safety_held(m));
    kp_machine_free(m);

    m = machine_reading(); /* a Klipper that says that it starts is not the one that was silent */
    kp_machine_klippy(m, KP_KLIPPY_STARTUP, "Printer is not ready");
    kp_safety_check(m, 14300);
    assert_false(kp_safety_present(m, KP_CAUSE_SILENT_MOVING));
    kp_machine_reading(m, "again"); /* nothing that was ready is read */
    assert_string_equal(kp_machine_klippy_message(m), "Printer is not ready");
    kp_machine_free(m);
}

/* Events of the last run come back before the first new one, whose id goes on behind theirs; one that was lost hides those before it. */
static void test_restore(void **state)
{
    (void)state;
    struct kp_config *c = kp_config_new();
    struct kp_machine *m = kp_machine_new(c);
    struct kp_safety_event old = { .level = KP_CRITICAL, .cause = KP_CAUSE_CUT_MOVING, .text = "of the last run", .got = NAN, .limit = NAN };
    enum kp_cause cause;
    enum kp_level level;
    assert_null(kp_safety_event(m, 0));
    for (old.id = 300; old.id < 900; old.id++)
        if (old.id != 750)
            kp_safety_restore(m, &old);
    old.id = 5;
    kp_safety_restore(m, &old); /* not behind the others */
    kp_safety_latch(m, true, "new");
    assert_int_equal(kp_safety_event(m, 0)->id, 900);
    assert_string_equal(kp_safety_event(m, 0)->text, "new");
    assert_int_equal(kp_safety_event(m, 1)->id, 899);
    assert_string_equal(kp_safety_event(m, 1)->text, "of the last run");
    assert_int_equal(kp_safety_event(m, 149)->id, 751);
    assert_null(kp_safety_event(m, 150));
    for (int i = 0; i < KP_CAUSE_ALL; i++)
        assert_true(kp_cause_by_name(kp_str_of(kp_cause_name((enum kp_cause)i)), &cause) && (int)cause == i);
    assert_true(kp_level_by_name(kp_str_of("critical"), &level) && level == KP_CRITICAL);
    assert_false(kp_cause_by_name(kp_str_of("RELEASED"), &cause) || kp_level_by_name(kp_str_of(""), &level));
    kp_machine_free(m);
    kp_config_free(c);
}

/* The latch is as the last run left it: a stop that was asked of us holds whatever Klipper does, one that was only seen goes with a Klipper that is ready. */
static void test_restore_latch(void **state)
{
    static const struct { enum kp_cause cause; const char *text; bool latched, latched_when_ready; } rows[] = {
        { KP_CAUSE_STOP, "operator", true, true },
        { KP_CAUSE_STOP, "Shutdown due to webhooks request", true, false },
        { KP_CAUSE_RELEASE, "the emergency stop is released", false, false },
        { KP_CAUSE_CUT_MOVING, "of something else", false, false },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_config *c = kp_config_new();
        struct kp_machine *m = kp_machine_new(c);
        struct kp_safety_event old = { .id = 1, .level = KP_EMERGENCY, .cause = KP_CAUSE_STOP, .text = "before", .got = NAN, .limit = NAN };
        if (rows[i].cause == KP_CAUSE_RELEASE)
            kp_safety_restore(m, &old);
        old.id = 2, old.cause = rows[i].cause;
        strcpy(old.text, rows[i].text);
        kp_safety_restore(m, &old);
        assert_int_equal(kp_safety_latched(m), rows[i].latched);
        assert_string_equal(kp_safety_reason(m), rows[i].latched ? rows[i].text : "");
        kp_machine_moonraker(m, true);
        kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
        assert_int_equal(kp_safety_latched(m), rows[i].latched_when_ready);
        assert_int_equal(kp_safety_reset(m, 1, NULL), KP_OK);
        assert_false(kp_safety_latched(m));
        assert_int_equal(kp_safety_event(m, 0)->cause, rows[i].latched ? KP_CAUSE_RELEASE : rows[i].cause);
        kp_machine_free(m);
        kp_config_free(c);
    }
}

/* A client's reason that begins like Klipper's words is still a client's after a restart. */
static void test_restore_a_reason(void **state)
{
    static const struct { bool ours; const char *reason, *text; } rows[] = {
        { true, "Shutdown due to M112 command", "asked: Shutdown due to M112 command" }, { true, "asked: x", "asked: x" },
        { true, "Shutdown due to webhooks request of the line's lead", "asked: Shutdown due to webhooks request of the line's lead" },
        { false, "Shutdown due to M112 command", "Shutdown due to M112 command" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = machine_ready(0), *next = machine_make(NULL);
        kp_safety_latch(m, rows[i].ours, rows[i].reason);
        assert_string_equal(kp_safety_reason(m), rows[i].text);
        kp_safety_restore(next, kp_safety_event(m, 0));
        assert_string_equal(kp_safety_reason(next), rows[i].text);
        kp_machine_klippy(next, KP_KLIPPY_READY, NULL);
        assert_int_equal(kp_safety_latched(next), rows[i].ours);
        kp_machine_free(m);
        kp_machine_free(next);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_causes), cmocka_unit_test(test_over), cmocka_unit_test(test_latched_already),
        cmocka_unit_test(test_positions), cmocka_unit_test(test_temperatures), cmocka_unit_test(test_due), cmocka_unit_test(test_events),
        cmocka_unit_test(test_lost), cmocka_unit_test(test_reading), cmocka_unit_test(test_restore), cmocka_unit_test(test_restore_latch),
        cmocka_unit_test(test_restore_a_reason),
    };
    return cmocka_run_group_tests_name("monitor", tests, NULL, NULL);
}
