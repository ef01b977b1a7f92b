/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A client of the G-code port against a stand-in for all behind it: the order of replies, what waits for what, the latch, and what Klipper is sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "port_fixture.h"

static struct port_rig p;
static char got[1 << 20];

static int open_plain(void **state) { (void)state; port_open(&p, false, NULL); return 0; }
static int open_ack(void **state) { (void)state; port_open(&p, true, NULL); return 0; }
static int open_home(void **state) { (void)state; port_open(&p, false, "HOME_ALL\nG28 Z"); return 0; }
static int close_it(void **state) { (void)state; port_close(&p); return 0; }

static void send_text(const char *text)
{
    port_feed(&p, text, strlen(text));
}

/* Answers that may be sent now. */
static const char *replies(void)
{
    size_t n, at = 0;
    const char *out;
    while ((out = gcode_session_out(p.s, &n)) && n > 0) {
        memcpy(got + at, out, n);
        at += n;
        gcode_session_sent(p.s, n);
    }
    got[at] = 0;
    return got;
}

/* Klipper does all there is to do. */
static void work(void)
{
    for (int i = 0; i < 5000; i++)
        if (!port_answer(&p)) {
            port_push(&p);
            if (!p.done)
                return;
        }
}

#define BARRIER "SAVE_GCODE_STATE NAME=_kp_client; RESTORE_GCODE_STATE NAME=_kp_zero; M400; M114; RESTORE_GCODE_STATE NAME=_kp_client\n"
#define AT(x) "ok C: X:" x " Y:50.0000 Z:0.0000 A:0.0000 C:0.0000\n"

static void moves_run_ahead_and_a_barrier_waits(void **state)
{
    (void)state;
    send_text("G1X110F6000\nG1X120\nM400\nM114\n");
    assert_string_equal(replies(), "");
    port_answer(&p);
    assert_string_equal(replies(), "ok\n");
    assert_int_equal(p.scripts, 2);
    port_answer(&p);
    assert_string_equal(replies(), "ok\n");
    assert_int_equal(p.scripts, 3); /* the barrier, once for both lines */
    port_answer(&p);
    assert_string_equal(replies(), "ok\n" AT("120.0000"));
    assert_int_equal(p.scripts, 3);
    assert_true(strstr(p.log, BARRIER) != NULL);
}

static void an_m114_long_after_asks_again(void **state)
{
    (void)state;
    send_text("M400\n");
    work();
    p.now_ms += 1000;
    send_text("M114\n");
    assert_int_equal(p.scripts, 2);
    work();
    assert_string_equal(replies(), "ok\n" AT("100.0000"));
    send_text("M400\n");
    port_answer(&p);
    p.r.at[0] = 90;
    kp_machine_moved(p.r.m, p.r.at, p.now_ms); /* by REST, meanwhile */
    send_text("M114\n");
    work();
    assert_string_equal(replies(), "ok\n" AT("90.0000"));
}

static void klippers_place_counts(void **state)
{
    (void)state;
    send_text("G1 X110.0004\nM114\n");
    port_answer(&p);
    port_answer(&p);
    assert_string_equal(replies(), "ok\n" AT("110.0004")); /* ours, with 4 decimals */
    send_text("G92 X0\nM400\n");
    p.r.at[0] = 77.125; /* somebody else */
    work();
    replies();
    p.now_ms += 1000;
    send_text("M114\n");
    work();
    assert_string_equal(replies(), AT("-32.8754"));
    send_text("G91 G1 X1 G90\n");
    work();
    assert_true(strstr(p.log, "G1 X78.125 ") != NULL);
}

/* Where only Klipper knows, its place is still told in the client's coordinates and units, those in force at the M114. */
static void a_report_behind_a_word_of_klippers(void **state)
{
    (void)state;
    p.options.klipper_commands = true;
    port_connect(&p);
    send_text("G92 X0 Y10\nM300 M114\n");
    work();
    assert_string_equal(replies(), "ok\nok C: X:0.0000 Y:10.0000 Z:0.0000 A:0.0000 C:0.0000\n");
    send_text("M114 G20\n");
    p.r.at[0] = 125.4;
    work();
    assert_string_equal(replies(), "ok C: X:25.4000 Y:10.0000 Z:0.0000 A:0.0000 C:0.0000\n");
    kp_mappings_add(p.r.maps, kp_str_of("PARK_IN"), kp_str_of("['G20', 'M114']"), &(struct kp_error){ .code = KP_OK });
    p.r.at[0] = 150.8;
    send_text("G21\nPARK_IN\n");
    work();
    assert_string_equal(replies(), "ok\nok C: X:2.0000 Y:0.3937 Z:0.0000 A:0.0000 C:0.0000\n");
}

/* A client that comes while somebody moves the machine: where it stands is asked before a line that hangs on it, and only then. */
static void a_new_client_learns_the_place_first(void **state)
{
    (void)state;
    port_connect(&p);
    send_text("G21\nG91\nM204 S500\n");
    assert_string_equal(replies(), "ok\nok\nok\n");
    assert_int_equal(p.scripts, 0);
    send_text("G1 X1\nG1 X1\n");
    p.r.at[0] = 120;
    port_answer(&p);
    assert_string_equal(p.log, BARRIER);
    port_push(&p);
    assert_non_null(strstr(p.log, "G1 X121 "));
    work();
    assert_non_null(strstr(p.log, "G1 X122 "));
    assert_int_equal(p.scripts, 3);
    assert_string_equal(replies(), "ok\nok\n");
}

/* A move of REST, a queue or another port client is in the lane before ours: the place it leaves is asked once. */
static void a_move_of_others_is_asked_about(void **state)
{
    (void)state;
    send_text("G91 G1 X1 G90\n");
    work();
    p.movers++;
    p.log[0] = 0;
    send_text("M800\nG91 G1 X1\nG1 X1\n");
    port_answer(&p);
    assert_null(strstr(p.log, "G1 ")); /* it waits for Klipper's word about the place */
    p.r.at[0] = 77;
    work();
    work();
    assert_non_null(strstr(p.log, "G1 X78 "));
    assert_non_null(strstr(p.log, "G1 X79 "));
    replies();
    p.scripts = 0;
    send_text("G1 X1\nG1 X1\n");
    work();
    assert_int_equal(p.scripts, 2);
    assert_string_equal(replies(), "ok\nok\n");
}

/* The rest of a line counts on where its beginning ends. */
static void a_move_of_others_within_a_line(void **state)
{
    (void)state;
    send_text("G1 X110 M400 G1 Y60\n");
    port_answer(&p);
    p.r.at[2] = -30;
    work();
    assert_string_equal(replies(), "!! somebody else moved the machine during this line\n");
    send_text("M999\nG1 X110 M114 G1 Y60\n");
    port_push(&p);
    port_answer(&p);
    p.movers++; /* its script is not answered yet */
    work();
    assert_string_equal(replies(), "ok\n!! somebody else moved the machine during this line\n");
    assert_null(strstr(p.log, "Y60"));
    kp_mappings_add(p.r.maps, kp_str_of("PUFF"), kp_str_of("['M800', 'M114', 'M801']"), &(struct kp_error){ .code = KP_OK });
    send_text("M999\nPUFF\n");
    work();
    port_answer(&p);
    p.movers++; /* no matter to pins */
    work();
    work();
    assert_string_equal(replies(), "ok\nok C: X:110.0000 Y:50.0000 Z:-30.0000 A:0.0000 C:0.0000\n");
}

static void a_pin_holds_its_ok_and_nothing_else(void **state)
{
    (void)state;
    send_text("M800\nG1 X110\nM115\n");
    port_answer(&p);
    port_answer(&p);
    assert_string_equal(replies(), ""); /* in order, so all wait */
    assert_true(strstr(p.log, "M400") != NULL); /* nothing follows: a barrier */
    port_answer(&p);
    assert_string_equal(replies(), "ok\nok\nFIRMWARE_NAME:KlipperPlace GcodeServer, FIRMWARE_VERSION:0.1.0, X-AXES:5, X-PAXES:3, X-SERIAL_FLOW:RTS/CTS\nok\n");
    send_text("M802 S10\n"); /* planned */
    port_answer(&p);
    assert_string_equal(replies(), "ok\n");
}

static void a_pin_that_is_never_seen_is_no_ok(void **state)
{
    (void)state;
    send_text("M800\nG1 X110\n");
    port_answer(&p);
    port_answer(&p);
    port_klippy(&p, KP_KLIPPY_SHUTDOWN);
    assert_string_equal(replies(), "!! Klipper is not ready: shutdown\n!! Klipper is not ready: shutdown\n");
    send_text("M114\nM999\n");
    assert_string_equal(replies(), "!! halted by: Klipper is not ready: shutdown\n!! the machine is not ready (shutdown): reset it, then home it\n");
    port_klippy(&p, KP_KLIPPY_READY);
    send_text("M400\nM999\nM400\n");
    work();
    assert_string_equal(replies(), "!! halted by: the machine is not ready (shutdown): reset it, then home it\nok\nok\n");
}

static size_t count_of(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        n++;
    return n;
}

/* However many lines are answered behind a pin, each has one reply, also when all become long errors. */
static void held_replies_are_one_a_line(void **state)
{
    (void)state;
    char text[220];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    send_text("M800\n");
    for (int i = 0; i < 999; i++)
        send_text("G21\n");
    port_answer(&p);
    for (int i = 0; i < 900; i++)
        send_text("G21\n");
    assert_string_equal(replies(), "");
    assert_int_equal(p.scripts, 2); /* no more are held */
    port_fail(&p, KP_EXECUTION_FAILED, text);
    assert_int_equal(count_of(replies(), "\n"), 1900);
    assert_int_equal(count_of(got, "!! xxx"), 1000);
    assert_int_equal(count_of(got, "!! halted by: xxx"), 900);
    send_text("M999\nG21\n");
    work();
    assert_string_equal(replies(), "ok\nok\n");
}

static void an_error_that_is_held_stays_what_it_is(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        send_text("M800\nM115\nG1 X999\nM114\n");
        work();
        port_answer(&p);
        send_text("M999\n");
        work();
        replies();
    }
    send_text("M800\nM115\nG1 X999\nM114\n");
    port_push(&p); /* an error is owed the place */
    port_answer(&p);
    assert_string_equal(replies(), "");
    port_fail(&p, KP_EXECUTION_FAILED, "Klipper refused: no");
    assert_string_equal(replies(), "!! Klipper refused: no\n!! Klipper refused: no\n!! x is 999 mm; allowed are 0 to 300 mm\n"
                                   "!! halted by: x is 999 mm; allowed are 0 to 300 mm\n");
}

static void nothing_is_held_for_a_client_that_goes(void **state)
{
    (void)state;
    send_text("M800\nG1 X999\nM114\n");
    port_push(&p);
    port_answer(&p);
    assert_int_equal(p.scripts, 2);
    gcode_session_end(p.s);
    port_fail(&p, KP_EXECUTION_FAILED, "Klipper refused: no");
    assert_false(gcode_session_busy(p.s));
    assert_string_equal(replies(), "");
}

static void pins_written_twice_are_waited_for(void **state)
{
    (void)state;
    send_text("M800\nM801\nM400\n");
    work();
    assert_true(strstr(p.log, "G4 P100; M400") != NULL);
    p.log[0] = 0;
    send_text("M800\n");
    work();
    assert_null(strstr(p.log, "G4 P100"));
}

static void reads_are_sampled_after_what_came_before(void **state)
{
    (void)state;
    port_connect(&p);
    send_text("M105\n");
    port_answer(&p); /* barrier */
    port_push(&p);
    assert_string_equal(replies(), ""); /* 250 ms later: sensors report every 300 ms */
    port_push(&p);
    assert_string_equal(replies(), "ok V1:-45.20 V2:-3.10\n");
    send_text("M105\n");
    assert_string_equal(replies(), "ok V1:-45.20 V2:-3.10\n"); /* at once */
    send_text("M800\nG4 P10\nM105\n");
    for (int i = 0; i < 3; i++)
        port_answer(&p);
    assert_string_equal(replies(), "ok\nok\n");
    tell(p.r.m, "temperature_sensor vacuum1", "temperature", number_value(-70));
    port_push(&p);
    port_push(&p);
    assert_string_equal(replies(), "ok V1:-70.00 V2:-3.10\n");
}

static void errors_latch(void **state)
{
    (void)state;
    send_text("G1 X999\nM114\nG1 X10\nM105\n");
    assert_string_equal(replies(), "!! x is 999 mm; allowed are 0 to 300 mm\n!! halted by: x is 999 mm; allowed are 0 to 300 mm\n"
                                   "!! halted by: x is 999 mm; allowed are 0 to 300 mm\n!! halted by: x is 999 mm; allowed are 0 to 300 mm\n");
    assert_int_equal(p.scripts, 0);
    send_text("G28\nM114\n");
    work();
    assert_string_equal(replies(), "ok\nok C: X:0.0000 Y:0.0000 Z:0.0000 A:0.0000 C:0.0000\n");
}

static void what_stands_behind_m999_is_done(void **state)
{
    (void)state;
    send_text("G1 X999\nM999 G1 X110 M115\nG1 X120\n");
    work();
    assert_string_equal(replies(), "!! x is 999 mm; allowed are 0 to 300 mm\n"
                                   "FIRMWARE_NAME:KlipperPlace GcodeServer, FIRMWARE_VERSION:0.1.0, X-AXES:5, X-PAXES:3, X-SERIAL_FLOW:RTS/CTS\nok\nok\n");
    assert_non_null(strstr(p.log, "G1 X110 "));
    assert_int_equal(p.scripts, 2);
    send_text("M999 G28 X\nM999 M300\nM999 X5\nM999\nM999 M999\n");
    for (int i = 0; i < 4; i++)
        work();
    assert_string_equal(replies(), "ok\n!! there is no command M300 here\n!! M999 takes no words\nok\n!! there is no command M999 here\n");
}

static void a_line_that_fails_gives_no_report(void **state)
{
    (void)state;
    send_text("M115 M114 M0\nG21\n");
    work();
    assert_string_equal(replies(), "!! M0 and M1 are for files: nobody here could let the stream go on\n"
                                   "!! halted by: M0 and M1 are for files: nobody here could let the stream go on\n");
    send_text("M999\nM114 M105\n");
    for (int i = 0; i < 4; i++)
        work();
    assert_string_equal(replies(), "ok\nok C: X:100.0000 Y:50.0000 Z:0.0000 A:0.0000 C:0.0000\nV1:-45.20 V2:-3.10\n"); /* one ok */
}

static void ack_answers_ok_as_well_and_drops_what_waited(void **state)
{
    (void)state;
    send_text("G1 X110\nG1 X999\nG1 X10\nM114\n");
    port_answer(&p);
    assert_string_equal(replies(), "ok\n!! x is 999 mm; allowed are 0 to 300 mm\nok\n!! not done, halted by: x is 999 mm; allowed are 0 to 300 mm\nok\n"
                                   "!! not done, halted by: x is 999 mm; allowed are 0 to 300 mm\nok\n");
    assert_int_equal(p.scripts, 1);
    send_text("M114\n");
    work();
    assert_string_equal(replies(), AT("110.0000"));
}

/* Also what the client has sent and nobody has read yet, a line that is cut there included; not the end of a line before. */
static void ack_drops_what_was_on_its_way(void **state)
{
    (void)state;
    p.unread = strlen("10\r\n \nG1 X2");
    send_text("G1 X999\nG1 X");
    assert_string_equal(replies(), "!! x is 999 mm; allowed are 0 to 300 mm\nok\n");
    p.unread = 0;
    send_text("10\r\n \nG1 X20\r\nM300\r");
    port_push(&p);
    assert_string_equal(replies(), "!! not done, halted by: x is 999 mm; allowed are 0 to 300 mm\nok\n"
                                   "!! not done, halted by: x is 999 mm; allowed are 0 to 300 mm\nok\n!! there is no command M300 here\nok\n");
    send_text("\nM114\n");
    work();
    assert_string_equal(replies(), AT("100.0000"));
    p.unread = 1;
    send_text("M300\r");
    p.unread = 0;
    send_text("\nM114\n");
    work();
    assert_string_equal(replies(), "!! there is no command M300 here\nok\n" AT("100.0000"));
}

static void a_refused_script_puts_the_acceleration_back(void **state)
{
    (void)state;
    send_text("M204 S500 G1 X110\nG1 X120\n");
    port_fail(&p, KP_EXECUTION_FAILED, "Klipper refused: Move out of range\nreally");
    port_answer(&p);
    assert_string_equal(replies(), "!! Klipper refused: Move out of range really\n!! halted by: Klipper refused: Move out of range really\n");
    assert_true(strstr(p.log, "\nM204 S3000\n") != NULL);
    work();
    assert_int_equal(p.scripts, 2);
    send_text("M999\nG1 X110\n");
    work();
    assert_string_equal(replies(), "ok\nok\n");
}

static void m112_is_seen_while_lines_wait(void **state)
{
    (void)state;
    send_text("G1 X110\nG1 X120\nG1 X130\nM1");
    assert_int_equal(p.stops, 0);
    send_text("12\n");
    assert_int_equal(p.stops, 1);
    assert_int_equal(p.scripts, 1);
    assert_string_equal(replies(), "!! the machine was stopped: M112\n!! halted by: emergency stop by M112\n!! halted by: emergency stop by M112\n"
                                   "!! halted by: emergency stop by M112\n");
}

static void m112_of_a_client_that_breaks_off(void **state)
{
    (void)state;
    send_text("G1 X110\nG1 X120\nM1");
    gcode_session_last(p.s, "12\nG1 X130\n", 11);
    assert_int_equal(p.stops, 1);
    gcode_session_end(p.s);
    assert_false(gcode_session_busy(p.s));
    assert_int_equal(p.scripts, 1);
}

static void m112_of_a_mapped_command_stops(void **state)
{
    (void)state;
    kp_mappings_add(p.r.maps, kp_str_of("PANIC"), kp_str_of("['M112']"), &(struct kp_error){ .code = KP_OK });
    send_text("G1 X110\nPANIC\nG1 X120\nM999\n");
    assert_int_equal(p.stops, 0); /* in its turn */
    work();
    assert_int_equal(p.stops, 1);
    assert_int_equal(p.scripts, 1);
    assert_string_equal(replies(), "ok\n!! emergency stop by M112\n!! halted by: emergency stop by M112\n"
                                   "!! the machine is not ready (stopped): reset it, then home it\n");
}

/* Klipper went and came back while a script was with Moonraker: what is left of its line is dropped. */
static void a_halt_drops_the_rest_of_its_line(void **state)
{
    (void)state;
    static const char *const rows[] = { "G1 X110 M400 G1 X120\n", "G28 X\n", "G1 X110 M114\n", "G2 X100 Y50 I50 J40 G1 X120\n" };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned before = p.scripts;
        send_text(rows[i]);
        kp_machine_klippy(p.r.m, KP_KLIPPY_SHUTDOWN, "");
        gcode_session_changed(p.s);
        assert_string_equal(replies(), "");
        kp_machine_klippy(p.r.m, KP_KLIPPY_READY, "");
        fixture_status(p.r.m);
        gcode_session_changed(p.s);
        work();
        assert_string_equal(replies(), "!! Klipper is not ready: shutdown\n");
        assert_int_equal(p.scripts - before, 1);
        p.r.at[0] = 100, p.r.at[1] = 50;
        send_text("M999\nM400\n");
        work();
        assert_string_equal(replies(), "ok\nok\n");
    }
}

/* One that waits for another command is taken back. */
static void a_halt_takes_back_what_has_not_begun(void **state)
{
    (void)state;
    p.behind = true;
    send_text("G1 X110\nG1 X120\n");
    kp_machine_klippy(p.r.m, KP_KLIPPY_SHUTDOWN, "");
    gcode_session_changed(p.s);
    assert_null(p.done);
    assert_string_equal(replies(), "!! Klipper is not ready: shutdown\n!! halted by: Klipper is not ready: shutdown\n");
    assert_false(gcode_session_busy(p.s));
}

static void no_more_than_a_thousand_lines_wait(void **state)
{
    (void)state;
    size_t taken = 0;
    while (gcode_session_room(p.s) > 0 && taken < 100000) {
        gcode_session_take(p.s, "G1 X110\n", 8);
        taken++;
    }
    assert_in_range(taken, GCODE_LINES_MAX, GCODE_LINES_MAX + 1); /* one is in flight */
    for (size_t i = 0; i < taken; i++) {
        port_answer(&p);
        assert_string_equal(replies(), "ok\n");
    }
    assert_false(gcode_session_open(p.s));
}

static void a_client_that_never_reads_is_held_up(void **state)
{
    (void)state;
    size_t taken = 0;
    while (gcode_session_room(p.s) > 0 && taken < 100000) {
        gcode_session_take(p.s, "M115\n", 5);
        taken++;
    }
    assert_in_range(taken, GCODE_LINES_MAX, 3 * GCODE_LINES_MAX);
    size_t lines = 0, n = strlen(replies());
    for (size_t i = 0; i < n; i++)
        lines += got[i] == '\n';
    assert_int_equal(lines, 2 * taken);
}

/* Nobody knows how an axis is moved before Klipper has been asked; then by the answer. */
static void waits_until_axes_are_joined(void **state)
{
    (void)state;
    tell(p.r.m, "print_stats", "state", text_value("printing"));
    kp_machine_axis_joined(p.r.m, 3, true);
    tell(p.r.m, "print_stats", "state", text_value("complete"));
    assert_int_equal(kp_machine_joining(p.r.m), 3);
    send_text("G91 G1 A5\n");
    port_push(&p);
    assert_null(p.done);
    kp_machine_axis_joined(p.r.m, 3, true);
    port_push(&p);
    assert_non_null(strstr(p.script.text, "\nG1 A5 F"));
    work();
    assert_string_equal(replies(), "ok\n");
}

/* Somebody let go of an axis, which is joined anew: that axis is unhomed, and nothing else changes. */
static void an_axis_joined_anew_changes_no_other(void **state)
{
    (void)state;
    send_text("G1 A30\nG92 X0 Y5\nG91 G1 X10\nM204 S500\n");
    work();
    replies();
    tell(p.r.m, "print_stats", "state", text_value("printing"));
    kp_machine_axis_joined(p.r.m, 3, true);
    tell(p.r.m, "print_stats", "state", text_value("complete"));
    assert_int_equal(kp_machine_joining(p.r.m), 3);
    send_text("G1 X1 G90\n");
    kp_machine_axis_joined(p.r.m, 3, true);
    p.log[0] = 0;
    port_push(&p);
    assert_non_null(strstr(p.log, "M204 S500; G1 X111 F1500; M204 S3000;"));
    work();
    send_text("G1 X2 Y2\nG1 A0\n");
    work();
    assert_non_null(strstr(p.log, "M204 S500; G1 X102 Y47 F1500; M204 S3000;"));
    assert_string_equal(replies(), "ok\nok\n!! axis a is not homed: home it, or move it relative\n");
}

static void own_home_script(void **state)
{
    (void)state;
    send_text("G28\n");
    work();
    assert_string_equal(replies(), "ok\n");
    assert_true(strncmp(p.log, "HOME_ALL; G28 Z; MANUAL_STEPPER STEPPER=rotation1 MOVE=0 SPEED=360 ACCEL=3600 SYNC=1; M400\n", 91) == 0);
    p.log[0] = 0;
    send_text("G28 X\n");
    work();
    assert_true(strncmp(p.log, "G28 X; M400\n", 12) == 0);
}

static void a_full_lane_is_an_error(void **state)
{
    (void)state;
    p.full = true;
    send_text("G1 X110\nM400\n");
    assert_string_equal(replies(), "!! the lane is full\n!! halted by: the lane is full\n");
    p.full = false;
    send_text("M999\n");
    assert_string_equal(replies(), "ok\n");
}

static void a_client_that_goes_leaves_nothing_behind(void **state)
{
    (void)state;
    send_text("M204 S500 G1 X110\nG1 X120\n");
    gcode_session_end(p.s);
    assert_true(gcode_session_busy(p.s));
    port_fail(&p, KP_EXECUTION_FAILED, "Klipper refused");
    assert_true(gcode_session_busy(p.s)); /* the acceleration is put back first */
    port_answer(&p);
    assert_false(gcode_session_busy(p.s));
    assert_int_equal(p.scripts, 2);
}

static void an_unknown_rotary_axis_is_no_report(void **state)
{
    (void)state;
    send_text("G1 A90\nM114\n");
    work();
    assert_string_equal(replies(), "ok\nok C: X:100.0000 Y:50.0000 Z:0.0000 A:90.0000 C:0.0000\n");
    port_klippy(&p, KP_KLIPPY_SHUTDOWN);
    replies();
    port_klippy(&p, KP_KLIPPY_READY);
    send_text("M999\nM114\n");
    work();
    assert_string_equal(replies(), "ok\n!! it is not known where axis A stands: home it with G28\n");
}

static void somebody_else_turns_an_axis(void **state)
{
    (void)state;
    send_text("G1 A90\nG92 A100\nM400\n");
    work();
    replies();
    kp_machine_axis_written(p.r.m, 3, 45, true); /* REST, meanwhile */
    p.now_ms += 1000;
    send_text("M114\n");
    work();
    assert_string_equal(replies(), "ok C: X:100.0000 Y:50.0000 Z:0.0000 A:55.0000 C:0.0000\n");
    send_text("G91 G1 A10 G90\n");
    assert_non_null(strstr(p.script.text, " MOVE=55 "));
    work();
    kp_machine_axis_written(p.r.m, 3, 20, true); /* while this client's work is under way */
    send_text("M114\n");
    work();
    assert_string_equal(replies(), "ok\nok C: X:100.0000 Y:50.0000 Z:0.0000 A:30.0000 C:0.0000\n");
}

/* Another connection knows no more about an axis than the one that lost it. */
static void an_unknown_axis_stays_unknown(void **state)
{
    (void)state;
    port_klippy(&p, KP_KLIPPY_SHUTDOWN);
    port_klippy(&p, KP_KLIPPY_READY);
    port_connect(&p);
    send_text("M114\n");
    work();
    assert_string_equal(replies(), "!! it is not known where axis A stands: home it with G28\n");
    send_text("G28 A\nM114\n");
    work();
    assert_string_equal(replies(), "ok\n" AT("100.0000"));
}

#define PLAIN(test) cmocka_unit_test_setup_teardown(test, open_plain, close_it)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAIN(moves_run_ahead_and_a_barrier_waits), PLAIN(an_m114_long_after_asks_again), PLAIN(klippers_place_counts),
        PLAIN(a_pin_holds_its_ok_and_nothing_else), PLAIN(a_pin_that_is_never_seen_is_no_ok), PLAIN(pins_written_twice_are_waited_for),
        PLAIN(reads_are_sampled_after_what_came_before), PLAIN(errors_latch), PLAIN(a_line_that_fails_gives_no_report),
        PLAIN(a_refused_script_puts_the_acceleration_back),
        PLAIN(m112_is_seen_while_lines_wait), PLAIN(no_more_than_a_thousand_lines_wait), PLAIN(a_client_that_never_reads_is_held_up),
        PLAIN(a_full_lane_is_an_error), PLAIN(a_client_that_goes_leaves_nothing_behind), PLAIN(an_unknown_rotary_axis_is_no_report),
        PLAIN(a_halt_drops_the_rest_of_its_line), PLAIN(a_halt_takes_back_what_has_not_begun),
        PLAIN(a_new_client_learns_the_place_first), PLAIN(a_move_of_others_is_asked_about), PLAIN(a_move_of_others_within_a_line),
        PLAIN(nothing_is_held_for_a_client_that_goes), PLAIN(held_replies_are_one_a_line), PLAIN(an_error_that_is_held_stays_what_it_is),
        PLAIN(m112_of_a_client_that_breaks_off), PLAIN(m112_of_a_mapped_command_stops), PLAIN(what_stands_behind_m999_is_done),
        PLAIN(a_report_behind_a_word_of_klippers), PLAIN(an_axis_joined_anew_changes_no_other),
        PLAIN(waits_until_axes_are_joined), PLAIN(somebody_else_turns_an_axis), PLAIN(an_unknown_axis_stays_unknown),
        cmocka_unit_test_setup_teardown(ack_drops_what_was_on_its_way, open_ack, close_it),
        cmocka_unit_test_setup_teardown(ack_answers_ok_as_well_and_drops_what_waited, open_ack, close_it),
        cmocka_unit_test_setup_teardown(own_home_script, open_home, close_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
