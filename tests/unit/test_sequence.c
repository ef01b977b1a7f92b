/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sequences by the golden files: a request, then what Klipper gets; and what holds for every plan. KP_GOLDEN names the folder of
 * the golden files. test_steps has what a text cannot show. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_request.h"

#define FILE_MAX 65536

static struct kp_faults faults;

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
    bool framed = false;
    if (save != a->text && (strstr(a->text, "G1") || save)) /* whoever sees it fail must know that a restore is owed */
        fail_msg("%s does not begin with its save", a->step);
    assert_int_equal(save != NULL, restore != NULL);
    for (const char *at = a->text; *at;) {
        size_t n = strcspn(at, "\n");
        say(t, "", at, n);
        framed = strncmp(at, "SAVE_GCODE_STATE", 16) == 0 || (framed && strncmp(at, "RESTORE_GCODE_STATE NAME=_kp_client", n) != 0);
        if (strncmp(at, "PNP_WAIT ", 9) == 0) /* where the script may end the state must be the client's */
            assert_false(framed);
        at += n + (at[n] == '\n');
    }
    assert_false(framed);
}

/* Klipper's words on the script just said, when the expected lines go on with those of a check that was not met. */
static bool next_words(const struct transcript *t, const char *expected, char said[KP_TEXT_MAX])
{
    static const char mark[] = "PNP_WAIT: ";
    const char *at = t->len < strlen(expected) ? expected + t->len : "";
    if (strncmp(at, mark, sizeof mark - 1) != 0)
        return false;
    snprintf(said, KP_TEXT_MAX, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
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

static double late; /* ms that the lane is taken at each delay */

static void run(const struct kp_machine *m, const char *request, bool flush, const char *expected, struct transcript *t)
{
    static struct kp_faults f;
    struct kp_action a;
    struct kp_error e;
    char said[KP_TEXT_MAX];
    const char *whole = expected;
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
        if (a.kind == KP_ACT_DELAY) { /* on time, or as late as "late" says */
            char line[64];
            double at = (double)a.after_ms + late;
            snprintf(line, sizeof line, "delay %d", (int)at);
            say(t, "", line, strlen(line));
            kp_seq_step(s, KP_EV_TIME, at, NULL, &a);
            continue;
        }
        if (a.kind == KP_ACT_SCRIPT)
            say_script(t, &a);
        else
            say(t, "", "settle", 6);
        if (a.kind == KP_ACT_SCRIPT && next_words(t, whole, said)) {
            say(t, "", said, strlen(said));
            kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "Klipper refused: %s", said);
            kp_seq_step(s, KP_EV_ERROR, NAN, &e, &a);
            continue;
        }
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
    } else if (sscanf(line, "late %lf", &v[0]) == 1)
        late = v[0];
    else if (sscanf(line, "flush %63s", word) == 1)
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
            late = 0;
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
        cmocka_unit_test(position_is_needed_only_where_the_plan_reads_it),
        cmocka_unit_test(limits_not_told_allow_nothing),
        cmocka_unit_test(no_plan_leaves_the_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
