/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What lines of G-code mean: the golden files, and what they cannot show: arcs against geometry, limits against drawn lines, long arcs
 * in pieces, mappings as they are read, memory that runs out. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "alloc_fixture.h"
#include "gcode_fixture.h"

#define FILE_MAX 65536

static struct gcode_rig rig;

/* ---- golden files ---- */

static void directive(const char *text, size_t size)
{
    char line[256];
    snprintf(line, sizeof line, "%.*s", (int)size, text);
    char *arg = strchr(line, ' ');
    if (arg)
        *arg++ = 0;
    if (strcmp(line, "@machine") == 0) {
        rig_close(&rig);
        assert_true(rig_open(&rig, arg));
    } else if (strcmp(line, "@words") == 0) {
        for (char *word = strtok(arg, " "); word; word = strtok(NULL, " "))
            kp_machine_command(rig.m, kp_str_of(word));
        kp_modal_restart(rig.g);
    } else if (strcmp(line, "@homed") == 0) {
        tell(rig.m, "toolhead", "homed_axes", text_value(strcmp(arg, "none") == 0 ? "" : arg));
    } else if (strcmp(line, "@stop") == 0) {
        kp_safety_latch(rig.m, true, "asked for");
    } else if (strcmp(line, "@printing") == 0) {
        tell(rig.m, "print_stats", "state", text_value("printing"));
    } else if (strcmp(line, "@frames") == 0) {
        rig.frames = true;
    } else {
        fail_msg("%s", line);
    }
}

/* A client before Klipper has told a position: homed by what it sends itself. */
static void nowhere(void)
{
    struct kp_config *c = kp_config_new();
    static struct kp_faults f;
    rig_close(&rig);
    rig.m = kp_machine_new(c);
    kp_config_free(c);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        kp_machine_command(rig.m, kp_str_of(words[i]));
    rig_settings(rig.m, "homing_override");
    kp_machine_resolve(rig.m, &f);
    kp_machine_moonraker(rig.m, true);
    kp_machine_klippy(rig.m, KP_KLIPPY_READY, "");
    tell(rig.m, "toolhead", "homed_axes", text_value("xyz"));
    rig.g = kp_modal_new(rig.m, NULL);
}

static void golden_file(const char *path, const char *name)
{
    static char want[FILE_MAX], got[FILE_MAX];
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    size_t size = fread(want, 1, sizeof want - 1, in);
    fclose(in);
    want[size] = 0;
    struct shown s = { got, 0, sizeof got };
    memset(&rig, 0, sizeof rig);
    for (const char *at = want; *at;) {
        size_t n = strcspn(at, "\n");
        if (at[0] != ' ')
            show_line(&s, at, n);
        if (strncmp(at, "@nowhere", 8) == 0)
            nowhere();
        else if (at[0] == '@')
            directive(at, n);
        else if (at[0] != ' ' && at[0] != '#' && n > 0)
            rig_line(&rig, at, n, &s);
        at += n + (at[n] != 0);
    }
    rig_close(&rig);
    const char *out = getenv("KP_GOLDEN_OUT"); /* a folder where what came out is written, to look at; nothing is compared then */
    if (out) {
        char file[512];
        snprintf(file, sizeof file, "%s/%s", out, name);
        FILE *to = fopen(file, "wb");
        assert_non_null(to);
        fwrite(got, 1, s.n, to);
        fclose(to);
        return;
    }
    for (size_t i = 0, line = 1, start = 0; want[i] || got[i]; i++) {
        if (want[i] != got[i])
            fail_msg("%s:%zu:\n  want %.*s\n  got  %.*s", name, line, (int)strcspn(want + start, "\n"), want + start, (int)strcspn(got + start, "\n"), got + start);
        if (want[i] == '\n')
            line++, start = i + 1;
    }
}

static void golden_files(void **state)
{
    (void)state;
    static const char *const folders[] = { "gcode", "gcode/bad" };
    const char *golden = getenv("KP_GOLDEN");
    size_t files = 0;
    assert_non_null(golden);
    for (size_t i = 0; i < 2; i++) {
        char folder[512], path[1024];
        snprintf(folder, sizeof folder, "%s/%s", golden, folders[i]);
        DIR *d = opendir(folder);
        assert_non_null(d);
        for (const struct dirent *e; (e = readdir(d));) {
            size_t n = strlen(e->d_name);
            if (n < 5 || strcmp(e->d_name + n - 4, ".txt") != 0)
                continue;
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            golden_file(path, e->d_name);
            files++;
        }
        closedir(d);
    }
    assert_true(files >= 7);
}

/* ---- lines, by hand ---- */

static struct kp_gcode_line line;
static struct kp_gcode_fault fault;

static enum kp_err send(const char *text)
{
    enum kp_err rc = kp_gcode_parse(kp_str_of(text), &line, &fault);
    return rc == KP_OK ? kp_modal_line(rig.g, &line, &fault) : rc;
}

static void drop(void)
{
    struct kp_gcode_action a;
    while (kp_modal_next(rig.g, &a))
        rig_done(&rig, &a);
}

static double word_of(const char *text, char letter)
{
    const char *at = strchr(text, letter);
    return at ? strtod(at + 1, NULL) : NAN;
}

/* Distance of the segment's points from the circle. */
static double segment_error(const double a[2], const double b[2], const double centre[2], double r)
{
    double worst = 0;
    for (int k = 0; k <= 16; k++) {
        double p = a[0] + (b[0] - a[0]) * k / 16, q = a[1] + (b[1] - a[1]) * k / 16;
        worst = fmax(worst, fabs(hypot(p - centre[0], q - centre[1]) - r));
    }
    return worst;
}

/* Arcs drawn at random, in every plane, by centre and by radius: every line is within 0.01 mm, the way round and the end are right, no script
 * is too long, and one line fewer would not do. */
static void cut_arcs_keep_to_the_circle(void **state)
{
    (void)state;
    static const char planes[3][3] = { "XY", "ZX", "YZ" };
    unsigned seed = 1;
    assert_true(rig_open(&rig, "plain"));
    for (int i = 0; i < 3000; i++) {
        char text[128];
        double u[6];
        for (int k = 0; k < 6; k++)
            seed = seed * 1103515245u + 12345u, u[k] = (seed >> 8) % 10000 / 10000.0;
        const char *plane = planes[i % 3];
        double r = i % 7 == 0 ? 0.001 + u[0] * 0.05 : 0.05 + u[0] * 14, a = u[1] * 6.283, sweep = 0.02 + u[2] * 6.2, zero[3] = { 150, 100, 0 };
        bool clockwise = u[3] < 0.5, by_radius = u[4] < 0.5;
        if (clockwise)
            sweep = -sweep;
        double c[2] = { zero[plane[0] - 'X'], zero[plane[1] - 'X'] };
        double from[2] = { round((c[0] + r * cos(a)) * 1e6) / 1e6, round((c[1] + r * sin(a)) * 1e6) / 1e6 };
        double to[2] = { round((c[0] + r * cos(a + sweep)) * 1e6) / 1e6, round((c[1] + r * sin(a + sweep)) * 1e6) / 1e6 };
        if (by_radius && (fabs(sweep) > 6 || fabs(fabs(sweep) - 3.14159) < 0.1 || hypot(from[0] - to[0], from[1] - to[1]) < 0.01 * r))
            by_radius = false; /* where a radius says little about the centre */
        snprintf(text, sizeof text, "G1 X%.6f Y%.6f Z%.6f F3000 G%d", zero[0], zero[1], zero[2], 17 + i % 3);
        assert_int_equal(send(text), KP_OK);
        drop();
        snprintf(text, sizeof text, "G1 %c%.6f %c%.6f", plane[0], from[0], plane[1], from[1]);
        assert_int_equal(send(text), KP_OK);
        drop();
        if (by_radius)
            snprintf(text, sizeof text, "G%d %c%.6f %c%.6f R%.6f", clockwise ? 2 : 3, plane[0], to[0], plane[1], to[1], fabs(sweep) > 3.14159265 ? -r : r);
        else
            snprintf(text, sizeof text, "G%d %c%.6f %c%.6f %c%.6f %c%.6f", clockwise ? 2 : 3, plane[0], to[0], plane[1], to[1], plane[0] - 'X' + 'I',
                     c[0] - from[0], plane[1] - 'X' + 'I', c[1] - from[1]);
        if (send(text) != KP_OK)
            fail_msg("%s: %s", text, fault.error.message);
        struct kp_gcode_action act;
        double at[2] = { from[0], from[1] }, turned = 0;
        size_t lines = 0;
        while (kp_modal_next(rig.g, &act)) {
            assert_true(strlen(act.text) < KP_SCRIPT_MAX);
            for (const char *l = act.text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
                char one[128];
                snprintf(one, sizeof one, "%.*s", (int)strcspn(l, "\n"), l);
                if (strncmp(one, "G1", 2) != 0)
                    continue;
                double next[2] = { word_of(one, plane[0]), word_of(one, plane[1]) };
                if (segment_error(at, next, c, r) > 0.01)
                    fail_msg("%s: %s is %g mm away", text, one, segment_error(at, next, c, r));
                double cross = (at[0] - c[0]) * (next[1] - c[1]) - (at[1] - c[1]) * (next[0] - c[0]);
                double dot = (at[0] - c[0]) * (next[0] - c[0]) + (at[1] - c[1]) * (next[1] - c[1]);
                turned += atan2(cross, dot);
                at[0] = next[0], at[1] = next[1];
                lines++;
            }
            rig_done(&rig, &act);
        }
        assert_true(fabs(at[0] - to[0]) < 1e-9 && fabs(at[1] - to[1]) < 1e-9);
        if (r > 0.05 && fabs(turned - sweep) > 0.02)
            fail_msg("%s: turned %g, not %g", text, turned, sweep);
        assert_true(r < 0.05 || lines < 2 + fabs(sweep) / (1.3 * acos(1 - 0.005 / r)));
    }
    rig_close(&rig);
}

/* A circle of many scripts: each has its frame, and each tells where it ends. */
static void a_long_arc_is_many_scripts(void **state)
{
    (void)state;
    static const char begin[] = "SAVE_GCODE_STATE NAME=_kp_client\nRESTORE_GCODE_STATE NAME=_kp_zero\nM204 S500\nG1 ";
    static const char end[] = "\nM204 S3000\nRESTORE_GCODE_STATE NAME=_kp_client";
    struct kp_gcode_action a;
    size_t scripts = 0;
    assert_true(rig_open(&rig, "plain"));
    assert_null(kp_modal_put_back(rig.g));
    assert_int_equal(send("G1 X150 Y10 M204 S500"), KP_OK);
    drop();
    assert_int_equal(send("G3 X150 Y10 Z5 J90 F6000 M114"), KP_OK);
    double last[3] = { 150, 10, 0 };
    while (kp_modal_next(rig.g, &a)) {
        if (a.kind == KP_DO_POSITION) {
            assert_true(a.position[0] == 150 && a.position[1] == 10 && a.position[2] == 5);
            continue;
        }
        scripts++;
        assert_true(strstr(a.text, begin) == a.text);
        assert_string_equal(a.text + strlen(a.text) - strlen(end), end);
        assert_true(hypot(a.target[0] - last[0], a.target[1] - last[1]) > 0 && a.target[2] > last[2]);
        memcpy(last, a.target, sizeof last);
    }
    assert_true(scripts > 5 && last[0] == 150 && last[1] == 10 && last[2] == 5);
    assert_string_equal(kp_modal_put_back(rig.g), "M204 S3000");
    assert_int_equal(send("G3 J90"), KP_OK); /* dropped in its middle */
    assert_true(kp_modal_next(rig.g, &a));
    kp_modal_sync(rig.g);
    assert_false(kp_modal_next(rig.g, &a));
    rig_close(&rig);
}

static void a_bad_line_changes_nothing(void **state)
{
    (void)state;
    static const char *const lines[] = {
        "G91 G20 G18 G92 X5 G1 X1 F77 M204 S5 G1 X999", "G91 G1 X1 M3", "G28 G1 X1 M82 M3", "G91 M114 FOO", "M84 G20 G5", "G1 X1 M400 G1 Y1 G1 Z99",
    };
    struct kp_gcode_action a;
    assert_true(rig_open(&rig, "plain"));
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        assert_int_not_equal(send(lines[i]), KP_OK);
        assert_int_not_equal(kp_gcode_parse(kp_str_of(lines[i]), &line, NULL) == KP_OK ? kp_modal_line(rig.g, &line, NULL) : 1, KP_OK);
        assert_false(kp_modal_next(rig.g, &a));
        assert_int_equal(send("M114 G1 X101 G1 X100"), KP_OK);
        assert_true(kp_modal_next(rig.g, &a) && a.kind == KP_DO_POSITION && a.position[0] == 100 && a.position[1] == 50 && a.position[2] == 0);
        assert_true(isnan(a.position[3]) && isnan(a.position[8]));
        assert_true(kp_modal_next(rig.g, &a) && strstr(a.text, "\nG1 X101 F1500\nG1 X100 F1500\n") && !strstr(a.text, "M204"));
        assert_false(kp_modal_next(rig.g, &a));
    }
    rig_close(&rig);
}

static void actions_tell_what_they_do(void **state)
{
    (void)state;
    struct kp_gcode_action a;
    assert_true(rig_open(&rig, "openpnp"));
    assert_int_equal(send("M42 P1 S1 G1 X10 A5 M42 P2 S51 G1 A7 M400 M42 P1 S0"), KP_OK);
    assert_true(kp_modal_next(rig.g, &a) && a.kind == KP_DO_SCRIPT && a.settle && !a.resync && a.write_count == 1 && a.axis_count == 0);
    assert_true(a.writes[0].value == 1 && a.target[0] == 100);
    assert_true(kp_modal_next(rig.g, &a) && a.kind == KP_DO_SCRIPT && a.settle && !a.resync && a.write_count == 1 && a.axis_count == 1);
    assert_true(a.writes[0].value == 0.2 && a.axes[0].axis == 3 && a.axes[0].position == 7 && a.axes[0].homed);
    assert_true(a.target[0] == 10 && a.target[1] == 50);
    assert_true(kp_modal_next(rig.g, &a) && a.kind == KP_DO_WAIT && a.write_count == 0 && !a.settle && strcmp(a.text, "M400") == 0);
    assert_true(kp_modal_next(rig.g, &a) && a.write_count == 1 && a.writes[0].value == 0 && a.axis_count == 0);
    assert_false(kp_modal_next(rig.g, &a));
    assert_int_equal(send("G28"), KP_OK);
    assert_true(kp_modal_next(rig.g, &a) && a.kind == KP_DO_HOME && a.resync && isnan(a.target[0]) && a.axis_count == 1 && a.axes[0].position == 0);
    kp_modal_restart(rig.g);
    rig_close(&rig);
}

/* Lines ahead of the machine: what an earlier one homes, a later one may move. */
static void lines_run_ahead_of_the_machine(void **state)
{
    (void)state;
    assert_true(rig_open(&rig, "plain"));
    tell(rig.m, "toolhead", "homed_axes", text_value(""));
    assert_int_equal(send("G1 X1"), KP_HOMING_REQUIRED);
    assert_int_equal(send("G28 X G1 X1 Y1"), KP_HOMING_REQUIRED);
    assert_int_equal(send("G28 G1 X1 G91 G1 X1 G90"), KP_OK);
    drop();
    assert_int_equal(send("G91 G1 X1 G90"), KP_OK);
    drop();
    assert_int_equal(send("G91 G1 Y1"), KP_KLIPPY_DISCONNECTED);
    assert_int_equal(send("M84 G1 X1"), KP_HOMING_REQUIRED);
    tell(rig.m, "toolhead", "homed_axes", text_value(""));
    kp_modal_sync(rig.g); /* what the machine says counts again */
    assert_int_equal(send("G1 X1"), KP_HOMING_REQUIRED);
    rig_close(&rig);
}

static void a_line_has_its_bounds(void **state)
{
    (void)state;
    static const struct { const char *text, *message; } rows[] = {
        { "M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1M42P1S1", NULL },
        { "G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1G1A1C1", "the line makes too long a script: write the line as several" },
        { "G28M0G28M0G28M0G28M0G28M0G28M0G28M0G28M0", NULL },
        { "LOTS", "the line writes too many pins: write the line as several" },
        { "MANY", "the line makes too many actions: write the line as several" },
    };
    char lots[512] = "", many[512] = "";
    assert_true(rig_open(&rig, "openpnp"));
    for (int i = 0; i < 17; i++)
        snprintf(lots + strlen(lots), sizeof lots - strlen(lots), "%s'M800'", i ? "," : "[");
    for (int i = 0; i < 17; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s'M114M105'", i ? "," : "[");
    assert_int_equal(kp_mappings_add(rig.maps, kp_str_of("LOTS"), kp_str_of(strcat(lots, "]")), &fault.error), KP_OK);
    assert_int_equal(kp_mappings_add(rig.maps, kp_str_of("MANY"), kp_str_of(strcat(many, "]")), &fault.error), KP_OK);
    assert_int_equal(send("G28"), KP_OK);
    drop();
    assert_int_equal(send("G91 G1 C1"), KP_OK);
    drop();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        enum kp_err rc = send(rows[i].text);
        assert_int_equal(rc, rows[i].message ? KP_INVALID_REQUEST : KP_OK);
        if (rows[i].message)
            assert_string_equal(fault.error.message, rows[i].message);
        drop();
    }
    rig_close(&rig);
}

/* Klipper that lacks the words of motion, or has told no acceleration. */
static void words_that_klipper_lacks(void **state)
{
    (void)state;
    static const struct { const char *without, *text; bool alone; } rows[] = {
        { "G1", "G1 X1", false }, { "G1", "G1 X1", true }, { "G90", "G1 X1", true }, { "SAVE_GCODE_STATE", "G1 X1", false },
        { "RESTORE_GCODE_STATE", "G1 X1", false }, { "RESTORE_GCODE_STATE", "G2 I1", false }, { "G4", "G4 P1", false }, { "M400", "M400", false },
        { "SET_PIN", "SET_PIN PIN=valve1 VALUE=1", false }, { "MANUAL_STEPPER", "G1 A1", false }, { "M204", "M204 S5", false }, { "G28", "G28", false },
        { "MANUAL_STEPPER", "STEPPER_ENABLE STEPPER=rotation1", false }, { "SET_STEPPER_ENABLE", "STEPPER_ENABLE STEPPER=stepper_x", false },
        { "SET_STEPPER_ENABLE", "M17", false }, { "QUERY_ENDSTOPS", "QUERY_ENDSTOPS", false }, { "SET_FAN_SPEED", "SET_FAN_SPEED FAN=blower SPEED=1", false },
        { "SET_HEATER_TEMPERATURE", "SET_HEATER_TEMPERATURE HEATER=plate TARGET=1", false }, { "M106", "M106", false }, { "M104", "M104 S20", false },
        { "M84", "M84", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char message[64];
        assert_true(rig_open(&rig, "openpnp"));
        kp_machine_reset(rig.m);
        for (size_t k = 0; k < sizeof words / sizeof *words; k++)
            if (strcmp(words[k], rows[i].without) != 0)
                kp_machine_command(rig.m, kp_str_of(words[k]));
        for (size_t k = 0; k < sizeof gcode_words / sizeof *gcode_words; k++)
            if (strcmp(gcode_words[k], rows[i].without) != 0)
                kp_machine_command(rig.m, kp_str_of(gcode_words[k]));
        static struct kp_faults f;
        rig_settings(rig.m, "homing_override");
        kp_machine_resolve(rig.m, &f);
        fixture_status(rig.m);
        kp_machine_axis_written(rig.m, 3, 0, true);
        kp_modal_free(rig.g);
        rig.g = kp_modal_new(rig.m, &(struct kp_modal_options){ .alone = rows[i].alone });
        if (send(rows[i].text) != KP_EXECUTION_FAILED)
            fail_msg("%s without %s: %s", rows[i].text, rows[i].without, fault.error.message);
        snprintf(message, sizeof message, "Klipper has no command %s", rows[i].without);
        assert_string_equal(fault.error.message, message);
        rig_close(&rig);
    }
    struct kp_config *c = kp_config_new();
    rig.m = kp_machine_new(c);
    kp_config_free(c);
    kp_machine_command(rig.m, kp_str_of("M204"));
    kp_machine_moonraker(rig.m, true);
    kp_machine_klippy(rig.m, KP_KLIPPY_READY, "");
    rig.g = kp_modal_new(rig.m, NULL);
    assert_int_equal(send("M204 S5"), KP_EXECUTION_FAILED);
    assert_int_equal(send("M17"), KP_EXECUTION_FAILED);
    assert_int_equal(send("G1 X1"), KP_HOMING_REQUIRED);
    tell(rig.m, "toolhead", "homed_axes", text_value("xyz"));
    assert_int_equal(send("G1 X1"), KP_POSITION_OUT_OF_BOUNDS); /* a limit not told is no permission */
    rig_close(&rig);
}

/* ---- mappings as they are read ---- */

static void mappings_are_checked_when_read(void **state)
{
    (void)state;
    static const struct { const char *name, *templates, *message; } rows[] = {
        { "OPENPNP_VACUUM_ON", "['M106 S255']", NULL }, { "b_1", "[\"M106 S255\", 'M107' ]", NULL }, { "PLAIN", "M106 S{power}", NULL },
        { "M801.5", " [ 'G1 X{x}' ] ", NULL }, { "QUOTED", "['RUN NAME=\"{a}\"']", NULL }, { "G900", "M106", NULL }, { "TRAIL", "['M106',]", NULL },
        { "G1", "M106", "G1 has a meaning of its own" }, { "set_pin", "M106", "set_pin has a meaning of its own" },
        { "PLAIN", "M106", "PLAIN is mapped twice" }, { "plain", "M106", "plain is mapped twice" }, { "m801.5", "M106", "m801.5 is mapped twice" },
        { "", "M106", "\"\" is no name of a command" }, { "A B", "M106", "\"A B\" is no name of a command" }, { "X=1", "M106", "\"X=1\" is no name of a command" },
        { "M800 S1", "M106", "\"M800 S1\" is no name of a command" }, { "N1 M800", "M106", "\"N1 M800\" is no name of a command" },
        { "AA;", "M106", "\"AA;\" is no name of a command" },
        { "E1", "[]", "E1 is mapped to nothing" }, { "EE", "[]", "EE is mapped to nothing" }, { "FF", "", "\"\" holds no command" }, { "FF", "['']", "\"\" holds no command" },
        { "FF", "; x", "\"; x\" holds no command" }, { "FF", "['M106' 'M107']", "a comma stands between templates" },
        { "FF", "[M106]", "a list is written ['COMMAND', 'COMMAND']" }, { "FF", "['M106]", "a list is written ['COMMAND', 'COMMAND']" },
        { "FF", "M106 S{", "\"M106 S{\": a value is filled in by {name}" }, { "FF", "M106 S}", "\"M106 S}\": a value is filled in by {name}" },
        { "FF", "M106 S{}", "\"M106 S{}\": a value is filled in by {name}" }, { "FF", "M106 S{a b}", "\"M106 S{a b}\": a value is filled in by {name}" },
        { "FF", "M{a}", "\"M{a}\": only values are filled in" }, { "FF", "A_{a}", "\"A_{a}\": only values are filled in" },
        { "FF", "AB C{a}=1", "\"AB C{a}=1\": only values are filled in" }, { "FF", "N{a} M106", "\"N{a} M106\": only values are filled in" },
        { "FF", "M106 S", NULL }, { "GG", "{a}", "\"{a}\": neither command, word nor comment" }, { "GG", "M106 Sx", NULL }, { "HH", "M106 S\xc3\xa4", "a template holds plain ASCII, without \\" },
        { "HH", "M106\nM107", "a template holds plain ASCII, without \\" }, { "HH", "M106 \\", "a template holds plain ASCII, without \\" },
        { "HH", "M106 S1 S2", "\"M106 S1 S2\": S is there twice" },
    };
    struct kp_mappings *maps = kp_mappings_new();
    struct kp_error e;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (strcmp(rows[i].name, "E1") == 0)
            continue; /* no name: one letter is a word */
        enum kp_err rc = kp_mappings_add(maps, kp_str_of(rows[i].name), kp_str_of(rows[i].templates), &e);
        if ((rc != KP_OK) != (rows[i].message != NULL) || (rc != KP_OK && strcmp(e.message, rows[i].message) != 0))
            fail_msg("%s %s: %s", rows[i].name, rows[i].templates, rc == KP_OK ? "ok" : e.message);
    }
    assert_int_equal(kp_mappings_add(maps, kp_str_of("ZERO"), (struct kp_str){ "M106\0M107", 9 }, &e), KP_INVALID_PARAMETER);
    char text[KP_MAPPING_TEXT_MAX + 2];
    memset(text, ' ', sizeof text);
    memcpy(text, "M106", 4);
    text[sizeof text - 1] = 'x';
    assert_int_equal(kp_mappings_add(maps, kp_str_of("LONG"), (struct kp_str){ text, sizeof text }, &e), KP_INVALID_PARAMETER);
    text[300] = ';';
    assert_int_equal(kp_mappings_add(maps, kp_str_of("LONG"), (struct kp_str){ text, 301 }, &e), KP_INVALID_PARAMETER);
    enum kp_err rc = KP_OK;
    int more = 0;
    for (; rc == KP_OK && more < KP_MAPPINGS_MAX; more++) {
        char name[16];
        snprintf(name, sizeof name, "MORE_%d", more);
        rc = kp_mappings_add(maps, kp_str_of(name), kp_str_of("M106"), &e);
    }
    assert_int_equal(rc, KP_INVALID_PARAMETER);
    assert_string_equal(e.message, "more than 64 mapped commands");
    kp_mappings_free(maps);
    kp_mappings_free(NULL);
}

static void mappings_of_a_configuration(void **state)
{
    (void)state;
    static struct kp_faults f;
    struct kp_config *c = kp_config_new();
    struct kp_mappings *maps = kp_mappings_new();
    const char *text = "[gcode_driver]\ncommand_mappings:\n  GOOD: ['M106']\n  BAD: ['M106 S{']\n  WORSE: []\n";
    memset(&f, 0, sizeof f);
    kp_config_parse(c, "k.cfg", kp_str_of(text), &f);
    size_t before = f.count;
    if (kp_mappings_config(maps, c, &f) == KP_OK)
        assert_true(before > 0); /* the parser has found them at fault already */
    kp_mappings_free(maps);
    kp_config_free(c);
}

/* No value of a client makes more of a template than it says. */
static void values_stay_values(void **state)
{
    (void)state;
    static const char *const values[] = { "1G28", "1 M112", "\"1 M112\"", "\"1;\"", "1\"", "X", "1X5", "{x}", "\"a=b\"", "'1\n2'", "1e5", "_1", "G1", "\"\"" };
    assert_true(rig_open(&rig, "openpnp"));
    assert_int_equal(kp_mappings_add(rig.maps, kp_str_of("FILLED"), kp_str_of("['G1 X{v}']"), NULL), KP_OK);
    assert_int_equal(kp_mappings_add(rig.maps, kp_str_of("FILLED_2"), kp_str_of("['M42 P{v}']"), NULL), KP_OK);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char text[64];
        snprintf(text, sizeof text, "FILLED%s V=%s", i % 2 ? "_2" : "", values[i]);
        if (send(text) == KP_OK)
            fail_msg("%s", text);
    }
    assert_int_equal(send("FILLED V=5.5"), KP_OK);
    drop();
    char wide[KP_LINE_MAX];
    memset(wide, ' ', sizeof wide);
    memcpy(wide, "M42 P{v} S{v}", 13);
    wide[sizeof wide - 1] = ';';
    assert_int_equal(kp_mappings_add(rig.maps, kp_str_of("WIDE"), (struct kp_str){ wide, sizeof wide }, NULL), KP_OK);
    assert_int_equal(send("WIDE V=1"), KP_OK);
    drop();
    assert_int_equal(send("WIDE V=123456.125"), KP_INVALID_REQUEST);
    assert_string_equal(fault.error.message, "the filled template is longer than 256 bytes");
    rig_close(&rig);
}

/* ---- drawn lines ---- */

/* Whatever a client sends: no move leaves the limits, no script holds what it must not, and one bad command undoes its line. */
static void no_line_leaves_the_limits(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "G1 X%d Y%d", "G1 Z%d F%d", "G91", "G90", "G20", "G21", "G92 X%d", "G92 Y%d Z%d", "G2 X%d Y%d I%d J%d", "G3 I%d", "G3 X%d Y%d R%d", "G18", "G17", "G19",
        "G2 X%d Z%d K%d", "G3 Y%d Z%d R%d", "M204 S%d", "G1 A%d", "G1 X%d A%d C%d", "G28", "G4 P%d", "G2 X%d Y%d Z%d I%d", "G1 X%d.25 Y-%d F%d", "M84", "G1 C%d",
    };
    unsigned seed = 3;
    size_t moves = 0;
    assert_true(rig_open(&rig, "openpnp"));
    for (int i = 0; i < 30000; i++) {
        char text[128] = "";
        for (int k = 0, n = 1 + (int)(seed >> 9) % 2; k < n; k++) {
            int v[4];
            for (int j = 0; j < 4; j++)
                seed = seed * 1103515245u + 12345u, v[j] = (int)((seed >> 8) % 400) - 60;
            if ((seed >> 20) % 3)
                v[0] /= 10, v[1] /= 10, v[2] /= 20, v[3] /= 10;
            snprintf(text + strlen(text), sizeof text - strlen(text), parts[(seed >> 16) % (sizeof parts / sizeof *parts)], v[0], v[1], v[2], v[3]);
        }
        struct kp_gcode_action a;
        bool resync = false;
        if (send(text) != KP_OK) {
            assert_false(kp_modal_next(rig.g, &a));
            continue;
        }
        while (kp_modal_next(rig.g, &a)) {
            for (const char *l = a.text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
                char one[160];
                snprintf(one, sizeof one, "%.*s", (int)strcspn(l, "\n"), l);
                if (strncmp(one, "G1 ", 3) != 0)
                    continue;
                double x = word_of(one, 'X'), y = word_of(one, 'Y'), z = word_of(one, 'Z'), f = word_of(one, 'F');
                if (x < 0 || x > 300 || y < 0 || y > 200 || z < -32 || z > 32 || !(f > 0 && f <= 30000))
                    fail_msg("%s: %s", text, one);
                moves++;
            }
            rig_done(&rig, &a);
            resync = resync || a.resync;
        }
        if (resync || i % 50 == 0)
            kp_modal_sync(rig.g);
    }
    assert_true(moves > 5000);
    rig_close(&rig);
}

static void memory_that_runs_out(void **state)
{
    (void)state;
    assert_true(rig_open(&rig, "openpnp"));
    alloc_fail_at(1);
    assert_null(kp_modal_new(rig.m, NULL));
    alloc_fail_at(1);
    assert_null(kp_mappings_new());
    alloc_fail_at(0);
    alloc_fail_at(1); /* a line asks for none */
    assert_int_equal(send("G28 G1 X10 A5 G2 X20 I5 OPENPNP"), KP_INVALID_REQUEST);
    assert_int_equal(send("G28 G1 X10 Y10 A5 G2 X20 Y10 I5 M42 P1 S1"), KP_OK);
    drop();
    assert_int_equal(send("OPENPNP_ACTUATE_ON PIN=valve1"), KP_OK);
    drop();
    assert_int_equal(alloc_count, 0);
    alloc_fail_at(0);
    kp_modal_free(NULL);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files),
        cmocka_unit_test(cut_arcs_keep_to_the_circle),
        cmocka_unit_test(a_long_arc_is_many_scripts),
        cmocka_unit_test(a_bad_line_changes_nothing),
        cmocka_unit_test(actions_tell_what_they_do),
        cmocka_unit_test(lines_run_ahead_of_the_machine),
        cmocka_unit_test(a_line_has_its_bounds),
        cmocka_unit_test(words_that_klipper_lacks),
        cmocka_unit_test(mappings_are_checked_when_read),
        cmocka_unit_test(mappings_of_a_configuration),
        cmocka_unit_test(values_stay_values),
        cmocka_unit_test(no_line_leaves_the_limits),
        cmocka_unit_test(memory_that_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
