/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sequences: the golden files (request, then what Klipper gets), and by hand what a text cannot show: results, writes,
 * expected positions, retries, errors from outside. KP_GOLDEN names the folder of the golden files. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "plan_fixture.h"

#include <cmocka.h>

#define LINES_MAX 64
#define FILE_MAX 65536

/* ---- requests as text ---- */

struct request {
    char text[512];
    const struct kp_command *command;
    struct kp_arg args[KP_ARGS_MAX];
    struct kp_str axes[8];
    size_t count;
};

static struct kp_value word_value(struct request *r, char *word)
{
    double v;
    struct kp_str s = kp_str_of(word);
    if (kp_number_parse(s, &v))
        return number_value(v);
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0)
        return (struct kp_value){ .kind = KP_BOOL, .flag = word[0] == 't' };
    if (word[0] != '[')
        return text_value(word);
    size_t n = 0; /* [x,y]: names of one letter */
    for (char *at = word + 1; *at && *at != ']'; at++)
        if (*at != ',')
            r->axes[n++] = (struct kp_str){ at, 1 };
    return (struct kp_value){ .kind = KP_STRS, .strs = r->axes, .count = n };
}

/* "move x=1 wait=true": false when the command is unknown. A blank in a value is written as ~. */
static bool request_parse(struct request *r, const char *text)
{
    memset(r, 0, sizeof *r);
    snprintf(r->text, sizeof r->text, "%s", text);
    char *save = NULL, *word = strtok_r(r->text, " ", &save);
    r->command = kp_command_by_name(kp_str_of(word));
    while ((word = strtok_r(NULL, " ", &save))) {
        char *is = strchr(word, '=');
        if (!is)
            return false;
        *is = 0;
        for (char *c = is + 1; *c; c++)
            if (*c == '~')
                *c = ' ';
        r->args[r->count].name = kp_str_of(word);
        r->args[r->count++].value = word_value(r, is + 1);
    }
    return r->command != NULL;
}

/* Checks and plans; NULL with faults in *f. */
static struct kp_seq *plan_text(const struct kp_machine *m, const char *text, bool flush, struct kp_faults *f)
{
    struct request r;
    struct kp_call call;
    struct kp_seq *s = NULL;
    memset(f, 0, sizeof *f);
    if (!request_parse(&r, text))
        fail_msg("not a request: %s", text);
    enum kp_err rc = kp_check(m, r.command, r.args, r.count, &call, f);
    if (rc == KP_OK)
        rc = kp_seq_plan(&s, m, &call, flush, f);
    assert_int_equal(rc, kp_faults_code(f));
    assert_int_equal(rc == KP_OK, s != NULL);
    return s;
}

/* ---- golden files ---- */

struct transcript { char text[8192]; size_t len; };

static void say(struct transcript *t, const char *prefix, const char *text, size_t n)
{
    t->len += (size_t)snprintf(t->text + t->len, sizeof t->text - t->len, "%s%.*s\n", prefix, (int)n, text);
    assert_true(t->len < sizeof t->text);
}

static void say_script(struct transcript *t, const struct kp_action *a)
{
    char head[KP_NAME_MAX + 2];
    snprintf(head, sizeof head, "%s:", a->step);
    say(t, "", head, strlen(head));
    const char *save = strstr(a->text, "SAVE_GCODE_STATE"), *restore = strstr(a->text, "RESTORE_GCODE_STATE NAME=_kp_client");
    if (save != a->text && (strstr(a->text, "G1") || save)) /* whoever sees it fail must know that a restore is owed */
        fail_msg("%s does not begin with its save", a->step);
    assert_int_equal(save != NULL, restore != NULL);
    for (const char *at = a->text; *at;) {
        size_t n = strcspn(at, "\n");
        say(t, "", at, n);
        at += n + (at[n] == '\n');
    }
}

/* The level of the next "sample NAME LEVEL" of the expected lines. */
static double next_sample(const char **expected)
{
    double v = NAN;
    const char *at = strstr(*expected, "sample ");
    if (!at)
        return NAN;
    size_t n = strcspn(at, "\n"), from = n;
    while (from > 0 && at[from - 1] != ' ')
        from--;
    *expected = at + n;
    kp_number_parse((struct kp_str){ at + from, n - from }, &v);
    return v;
}

static void say_faults(struct transcript *t, const struct kp_faults *f)
{
    for (size_t i = 0; i < f->count; i++) {
        char line[256];
        snprintf(line, sizeof line, "! %s %s", kp_err_name(f->item[i].code), f->item[i].field);
        size_t n = strlen(line);
        say(t, "", line, line[n - 1] == ' ' ? n - 1 : n);
    }
}

static void run(const struct kp_machine *m, const char *request, bool flush, const char *expected, struct transcript *t)
{
    static struct kp_faults f;
    struct kp_action a;
    struct kp_seq *s = plan_text(m, request, flush, &f);
    t->len = 0;
    t->text[0] = 0;
    if (!s) {
        say_faults(t, &f);
        return;
    }
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    while (a.kind != KP_ACT_DONE && a.kind != KP_ACT_FAIL) {
        if (a.kind == KP_ACT_SAMPLE) {
            char line[128], digits[KP_NUMBER_MAX];
            double v = next_sample(&expected);
            kp_number_print(digits, v, 3);
            snprintf(line, sizeof line, "%s: sample %s %s", a.step, kp_machine_sensor(m, (size_t)a.sensor)->name, digits);
            say(t, "", line, strlen(line));
            kp_seq_step(s, KP_EV_SAMPLE, v, NULL, &a);
            continue;
        }
        if (a.kind == KP_ACT_SCRIPT)
            say_script(t, &a);
        else
            say(t, "", "settle", 6);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    }
    if (a.kind == KP_ACT_FAIL) {
        f.count = 1;
        f.item[0] = a.error;
        say_faults(t, &f);
    } else if (kp_seq_result(s)->completed)
        say(t, "", "done", 4);
    else
        say(t, "", "accepted", 8);
    kp_seq_free(s);
}

/* "at X Y Z", "axis A 90", "pin valve2 1", "flush on": how the machine stands. False: another line. */
static bool stand(struct kp_machine *m, const char *line, bool *flush)
{
    char word[KP_NAME_MAX], object[KP_NAME_MAX + 16];
    double v[3];
    if (sscanf(line, "at %lf %lf %lf", &v[0], &v[1], &v[2]) == 3) {
        tell_point(m, "toolhead", "position", v[0], v[1], v[2]);
        tell_point(m, "gcode_move", "position", v[0], v[1], v[2]);
    } else if (sscanf(line, "axis %63s %lf", word, &v[0]) == 2)
        kp_machine_axis_written(m, kp_machine_find_axis(m, word[0]), v[0], true);
    else if (sscanf(line, "pin %63s %lf", word, &v[0]) == 2) {
        snprintf(object, sizeof object, "output_pin %s", word);
        tell(m, object, "value", number_value(v[0]));
    } else if (sscanf(line, "homed %63s", word) == 1)
        tell(m, "toolhead", "homed_axes", text_value(strcmp(word, "none") == 0 ? "" : word));
    else if (sscanf(line, "extruder %63s", word) == 1)
        tell(m, "toolhead", "extruder", text_value(word));
    else if (sscanf(line, "motor %63s", word) == 1) {
        snprintf(object, sizeof object, "steppers.%s", word);
        tell(m, "stepper_enable", object, (struct kp_value){ .kind = KP_BOOL, .flag = true });
    } else if (sscanf(line, "flush %63s", word) == 1)
        *flush = strcmp(word, "on") == 0;
    else
        return false;
    return true;
}

/* Takes the indented lines at *at, without indentation and comments. */
static void take_expected(char **at, char *out, size_t size)
{
    size_t n = 0;
    out[0] = 0;
    while (**at == ' ' || **at == '#') {
        char *line = *at + strspn(*at, " ");
        size_t len = strcspn(line, "\n");
        *at = line + len + (line[len] == '\n');
        if (line[0] != '#')
            n += (size_t)snprintf(out + n, size - n, "%.*s\n", (int)len, line);
        assert_true(n < size);
    }
}

static void run_file(const char *path, char *text, int *cases, int *wrong)
{
    static char expected[8192];
    static struct transcript t;
    struct kp_machine *m = NULL;
    bool flush = false;
    for (char *at = text; *at;) {
        char *line = at;
        size_t n = strcspn(line, "\n");
        at += n + (line[n] == '\n');
        line[n] = 0;
        if (n == 0 || line[0] == '#')
            continue;
        if (strncmp(line, "machine ", 8) == 0) {
            kp_machine_free(m);
            m = fixture_machine(line + 8);
            flush = false;
            if (!m)
                fail_msg("%s: no fixture %s", path, line + 8);
            continue;
        }
        if (!m)
            fail_msg("%s: no machine before %s", path, line);
        if (stand(m, line, &flush))
            continue;
        take_expected(&at, expected, sizeof expected);
        run(m, line, flush, expected, &t);
        ++*cases;
        if (strcmp(t.text, expected) != 0) {
            fprintf(stderr, "%s: %s\n--- expected\n%s--- got\n%s", path, line, expected, t.text);
            ++*wrong;
        }
    }
    kp_machine_free(m);
}

static void golden_files(void **state)
{
    (void)state;
    static char text[FILE_MAX];
    const char *folder = getenv("KP_GOLDEN");
    int cases = 0, wrong = 0;
    assert_non_null(folder);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        char path[1024];
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 4, ".txt") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        FILE *in = fopen(path, "r");
        assert_non_null(in);
        n = fread(text, 1, sizeof text - 1, in);
        fclose(in);
        assert_true(n < sizeof text - 1);
        text[n] = 0;
        run_file(path, text, &cases, &wrong);
    }
    closedir(d);
    print_message("%d golden cases\n", cases);
    assert_true(cases >= 40);
    assert_int_equal(wrong, 0);
}

/* ---- what a text cannot show ---- */

static struct kp_faults faults;

static void results_and_writes_of_a_placement(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80 rotation=90", false, &faults);
    struct kp_action a;
    double at[3];
    size_t n;
    assert_non_null(s);
    assert_false(kp_seq_expected(s, at));
    kp_seq_writes(s, &n);
    assert_int_equal(n, 0);
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    assert_string_equal(a.step, "pick");
    assert_true(kp_seq_expected(s, at));
    assert_true(at[0] == 40 && at[1] == 20 && at[2] == 0);
    const struct kp_pin_write *w = kp_seq_writes(s, &n);
    assert_int_equal(n, 2);
    assert_string_equal(kp_machine_pin(m, (size_t)w[0].pin)->name, "pump1");
    assert_string_equal(kp_machine_pin(m, (size_t)w[1].pin)->name, "valve1");
    assert_true(w[0].value == 1 && w[1].value == 1);
    assert_false(kp_seq_result(s)->moved);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_SAMPLE);
    assert_string_equal(kp_machine_sensor(m, (size_t)a.sensor)->name, "vacuum1");
    assert_true(kp_seq_result(s)->moved && kp_seq_result(s)->target[0] == 40);
    kp_seq_step(s, KP_EV_SAMPLE, -40, NULL, &a);
    assert_string_equal(a.step, "place");
    const struct kp_axis_write *aw = kp_seq_axis_writes(s, &n);
    assert_int_equal(n, 1);
    assert_true(aw[0].axis == kp_machine_find_axis(m, 'A') && aw[0].position == 90 && !aw[0].homed);
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_string_equal(a.step, "verify_place");
    kp_seq_step(s, KP_EV_SAMPLE, -20, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_DONE);
    const struct kp_result *r = kp_seq_result(s);
    assert_true(r->moved && r->completed && r->has_level && !r->vacuum_enabled);
    assert_true(r->level == -20 && r->attempts == 1);
    assert_true(r->target[0] == 120 && r->target[1] == 80 && r->target[2] == 0);
    assert_true(r->pick[0] == 40 && r->pick[1] == 20 && r->pick[2] == -30);
    assert_true(r->place[0] == 120 && r->place[1] == 80 && r->place[2] == -29.4);
    kp_seq_free(s);
    kp_machine_free(m);
}

static void every_try_is_counted_and_the_way_out_taken(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80 retries=3", false, &faults);
    struct kp_action a;
    assert_non_null(s);
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    for (int i = 1; i <= 4; i++) {
        assert_string_equal(a.step, "pick");
        assert_int_equal(kp_seq_result(s)->attempts, i);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        assert_int_equal(a.kind, KP_ACT_SAMPLE);
        kp_seq_step(s, KP_EV_SAMPLE, i == 2 ? NAN : -39.9, NULL, &a); /* no level is a bad level */
    }
    assert_int_equal(a.kind, KP_ACT_SCRIPT);
    assert_string_equal(a.step, "release");
    kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    assert_int_equal(a.kind, KP_ACT_FAIL);
    assert_string_equal(a.step, "verify_pick");
    assert_int_equal(a.error.code, KP_VACUUM_FAILED);
    assert_string_equal(a.error.field, "vacuum");
    assert_true(a.error.got == -39.9 && a.error.max == -40 && isnan(a.error.min));
    const struct kp_result *r = kp_seq_result(s);
    assert_true(r->attempts == 4 && !r->completed && !r->vacuum_enabled && r->moved);
    assert_true(r->target[0] == 40 && r->target[1] == 20); /* where the pick left it, not the place */
    kp_seq_free(s);
    kp_machine_free(m);
}

static void an_error_from_outside_ends_it(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_error e;
    struct kp_action a;
    kp_error_set(&e, KP_INTERLOCK, NULL, "somebody moved the head");
    for (int when = 0; when < 4; when++) {
        struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80", false, &faults);
        static const char *const steps[] = { "pick", "verify_pick", "place", "release" };
        assert_non_null(s);
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        if (when > 0)
            kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
        if (when > 1)
            kp_seq_step(s, KP_EV_SAMPLE, when == 2 ? -60 : 0, NULL, &a);
        kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
        assert_int_equal(a.kind, KP_ACT_FAIL);
        assert_int_equal(a.error.code, KP_INTERLOCK);
        assert_string_equal(a.error.message, "somebody moved the head");
        assert_string_equal(a.step, steps[when]);
        assert_false(kp_seq_result(s)->completed);
        kp_seq_free(s);
    }
    kp_machine_free(m);
}

/* Klipper refused the motion of a feeder whose extruder had to be activated: that is put back before the failure is told. */
static void what_was_switched_is_put_back_when_refused(void **state)
{
    (void)state;
    static const struct { enum kp_err code; bool undone; } rows[] = {
        { KP_EXECUTION_FAILED, true }, { KP_OUTCOME_UNKNOWN, false }, { KP_KLIPPY_DISCONNECTED, false }, { KP_EMERGENCY_STOP_ACTIVE, false } };
    struct kp_machine *m = fixture_machine("tapes");
    struct kp_error e, other;
    struct kp_action a;
    tell(m, "toolhead", "extruder", text_value("extruder"));
    kp_error_set(&other, KP_EXECUTION_FAILED, NULL, "once more");
    for (size_t i = 0; i < 2 * sizeof rows / sizeof *rows; i++) {
        bool again = i >= sizeof rows / sizeof *rows; /* the undoing fails too */
        struct kp_seq *s = plan_text(m, "feeder_advance feeder=second distance=4", false, &faults);
        assert_non_null(s);
        kp_error_set(&e, rows[i % 4].code, NULL, "Extrude below minimum temp");
        kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
        kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
        if (rows[i % 4].undone) {
            assert_int_equal(a.kind, KP_ACT_SCRIPT);
            assert_string_equal(a.text, "ACTIVATE_EXTRUDER EXTRUDER=extruder");
            kp_seq_step(s, again ? KP_EV_ERROR : KP_EV_OK, NAN, again ? &other : NULL, &a);
        }
        assert_int_equal(a.kind, KP_ACT_FAIL);
        assert_int_equal(a.error.code, rows[i % 4].code);
        assert_string_equal(a.error.message, rows[i % 4].undone && again ? "once more" : "Extrude below minimum temp");
        assert_string_equal(a.step, rows[i % 4].undone && again ? "undo" : "advance");
        assert_false(kp_seq_result(s)->completed);
        kp_seq_free(s);
    }
    /* One that had nothing to switch fails at once. */
    struct kp_seq *s = plan_text(m, "feeder_advance distance=4", false, &faults);
    kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "no");
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
    assert_int_equal(a.kind, KP_ACT_FAIL);
    kp_seq_free(s);
    kp_machine_free(m);
}

static void the_answer_lists_the_lines_without_the_frame(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "pick_and_place x=40 y=20 place_x=120 place_y=80", false, &faults);
    const char *line;
    size_t n = 0, m400 = 0;
    for (; (line = kp_seq_gcode(s, n)); n++) {
        assert_null(strstr(line, "GCODE_STATE"));
        assert_null(strchr(line, '\n'));
        m400 += strcmp(line, "M400") == 0;
    }
    assert_string_equal(kp_seq_gcode(s, 0), "G1 Z0 F1500");
    assert_int_equal(n, 15);
    assert_int_equal(m400, 2); /* the release is no part of it */
    kp_seq_free(s);
    kp_machine_free(m);
}

static void homing_says_nothing_of_where_it_ends(void **state)
{
    (void)state;
    struct kp_machine *m = fixture_machine("seesaw");
    struct kp_seq *s = plan_text(m, "home", false, &faults);
    struct kp_action a;
    double at[3] = { 7, 7, 7 };
    size_t n;
    kp_seq_step(s, KP_EV_START, NAN, NULL, &a);
    for (int i = 0; i < 3; i++) { /* home, travel, home */
        assert_int_equal(a.kind, KP_ACT_SCRIPT);
        assert_false(kp_seq_expected(s, at));
        assert_true(at[0] == 7);
        kp_seq_axis_writes(s, &n);
        assert_int_equal(n, i == 2 ? 2 : 0);
        kp_seq_step(s, KP_EV_OK, NAN, NULL, &a);
    }
    assert_int_equal(a.kind, KP_ACT_DONE);
    assert_true(kp_seq_result(s)->homed == 0x1f && !kp_seq_result(s)->moved && kp_seq_result(s)->completed);
    kp_seq_free(s);
    kp_machine_free(m);
}

static void position_is_needed_only_where_the_plan_reads_it(void **state)
{
    (void)state;
    static const struct { const char *machine, *request; bool needs; } rows[] = {
        { "seesaw", "move x=1", false }, { "seesaw", "move x=1 relative=true", true }, { "seesaw", "move a=1 relative=true", false },
        { "seesaw", "pick", true }, { "seesaw", "pick_and_place x=1 y=1 place_x=1 place_y=1", false }, { "seesaw", "home axes=[x]", false },
        { "careful", "move x=1", true }, { "careful", "move z=1", false }, { "careful", "home", false }, { "careful", "home axes=[x]", true },
        { "careful", "home axes=[z]", false }, { "careful", "vacuum_on", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_machine *m = fixture_machine(rows[i].machine);
        struct request r;
        struct kp_call call;
        memset(&faults, 0, sizeof faults);
        assert_true(request_parse(&r, rows[i].request));
        assert_int_equal(kp_check(m, r.command, r.args, r.count, &call, &faults), KP_OK);
        if (kp_call_needs_position(m, &call) != rows[i].needs)
            fail_msg("%s on %s", rows[i].request, rows[i].machine);
        kp_machine_free(m);
    }
}

/* A machine whose limits Klipper has not told moves nowhere. */
static void limits_not_told_allow_nothing(void **state)
{
    (void)state;
    struct kp_config *c = kp_config_new();
    struct kp_machine *m = kp_machine_new(c);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        kp_machine_command(m, kp_str_of(words[i]));
    kp_machine_resolve(m, &faults);
    assert_null(plan_text(m, "move x=1", false, &faults));
    assert_int_equal(faults.item[0].code, KP_POSITION_OUT_OF_BOUNDS);
    assert_null(plan_text(m, "move x=1 relative=true", false, &faults));
    kp_machine_free(m);
    kp_config_free(c);
}

/* For a sweep of targets: no line that a plan gives leaves the machine's limits. */
static void no_plan_leaves_the_limits(void **state)
{
    (void)state;
    static const char *const forms[] = {
        "move x=%g y=%g z=%g", "move x=%g y=%g z=%g relative=true", "move x=%g y=%g z=%g nozzle=N2",
        "pick_and_place x=%g y=%g place_x=10 place_y=10 pick_height=%g", "pick_and_place x=10 y=10 place_x=%g place_y=%g place_height=%g nozzle=N2",
        "pick travel_height=%g z=%g dwell=0.%g", "place travel_height=%g z=%g dwell=0.%g nozzle=N2",
    };
    static const double values[] = { -400, -33, -32, -1e-9, 0, 0.5, 5, 31.9999999, 32, 32.000001, 200, 300, 300.1, 1e9 };
    size_t n = sizeof values / sizeof *values, planned = 0;
    struct kp_machine *m = fixture_machine("seesaw");
    for (size_t i = 0; i < n * n * n * (sizeof forms / sizeof *forms); i++) {
        const char *form = forms[i / (n * n * n)], *line;
        char text[256];
        snprintf(text, sizeof text, form, values[i % n], values[i / n % n], values[i / n / n % n]);
        if (strstr(text, "e-") || strstr(text, "e+") || strstr(text, "0.-"))
            continue; /* %g, not ours */
        struct kp_seq *s = plan_text(m, text, false, &faults);
        planned += s != NULL;
        for (size_t j = 0; s && (line = kp_seq_gcode(s, j)); j++) {
            double v;
            const char *at;
            if (strncmp(line, "G1", 2) != 0)
                continue;
            assert_true(!(at = strstr(line, " X")) || (sscanf(at + 2, "%lf", &v) == 1 && v >= 0 && v <= 300));
            assert_true(!(at = strstr(line, " Y")) || (sscanf(at + 2, "%lf", &v) == 1 && v >= 0 && v <= 200));
            assert_true(!(at = strstr(line, " Z")) || (sscanf(at + 2, "%lf", &v) == 1 && v >= -32 && v <= 32));
            assert_true((at = strstr(line, " F")) && sscanf(at + 2, "%lf", &v) == 1 && v > 0 && v <= 30000);
        }
        kp_seq_free(s);
    }
    assert_true(planned > 100);
    kp_machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files),
        cmocka_unit_test(results_and_writes_of_a_placement),
        cmocka_unit_test(every_try_is_counted_and_the_way_out_taken),
        cmocka_unit_test(an_error_from_outside_ends_it),
        cmocka_unit_test(what_was_switched_is_put_back_when_refused),
        cmocka_unit_test(the_answer_lists_the_lines_without_the_frame),
        cmocka_unit_test(homing_says_nothing_of_where_it_ends),
        cmocka_unit_test(position_is_needed_only_where_the_plan_reads_it),
        cmocka_unit_test(limits_not_told_allow_nothing),
        cmocka_unit_test(no_plan_leaves_the_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
