/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libkp as a filter, for tests/system/test_streams.py: one request a line in, what comes of it out, then a line with a point. It does what the shim does with
 * libkp and nothing more: every script counts as accepted, and where that leaves the machine is told from outside (`status`).
 * A request is words divided by tabs, %XX for a byte. A value is its kind and text: n1.5 ("nnan"), bt, sTEXT, qTEXT (a query's), lA,B, N1,2, z, o.
 *   rows                                 one line a command: name, plans, then parameters: name, type, required, min, max
 *   machine CFG | setting S O V | object O | word W | resolve | neutral | client CLAMP | sync
 *   status O F V | axis I POSITION HOMED | klippy READY | moonraker CONNECTED | latch | release | level L
 *   fail LINES                           the next script fails behind so many of its lines
 *   call NAME ARG V ... | line TEXT      answers: "!CODE" a fault, ">TEXT" a line for Klipper, "[KIND" an action without text, "resync" */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kp.h"

#define LINE_BYTES 65536
#define WORDS_MAX 80
#define PARTS_MAX 16

struct stream {
    struct kp_machine *m;
    struct kp_mappings *maps;
    struct kp_modal *g;
    double level;   /* what every sensor answers */
    int fail;       /* lines that the next script has before it fails; -1: it does not */
    int64_t now_ms;
    char *word[WORDS_MAX];
    size_t words;
    struct kp_str parts[WORDS_MAX][PARTS_MAX];
    double nums[WORDS_MAX][PARTS_MAX];
};

static void stop(const char *why)
{
    fprintf(stderr, "kp-stream: %s\n", why);
    exit(1);
}

/* ---- requests ---- */

static void unescape(char *s)
{
    char *to = s;
    for (; *s; s++) {
        char hex[3] = "";
        if (*s == '%' && s[1] && s[2]) {
            memcpy(hex, s + 1, 2);
            *to++ = (char)strtol(hex, NULL, 16);
            s += 2;
        } else {
            *to++ = *s;
        }
    }
    *to = 0;
}

static void split(struct stream *s, char *line)
{
    line[strcspn(line, "\n")] = 0;
    for (s->words = 0; line && s->words < WORDS_MAX; s->words++) {
        char *tab = strchr(line, '\t');
        if (tab)
            *tab = 0;
        unescape(s->word[s->words] = line);
        line = tab ? tab + 1 : NULL;
    }
}

static const char *word(const struct stream *s, size_t i)
{
    return i < s->words ? s->word[i] : "";
}

static struct kp_str str(const struct stream *s, size_t i)
{
    return kp_str_of(word(s, i));
}

/* The value in word i. */
static struct kp_value value(struct stream *s, size_t i)
{
    static const char kinds[] = "zbnsNlo"; /* in the order of enum kp_kind */
    const char *text = word(s, i), *at = *text ? strchr(kinds, *text) : NULL;
    struct kp_value v = { .kind = at ? (enum kp_kind)(at - kinds) : KP_STR };
    text += *text != 0;
    v.flag = *text == 't';
    v.str = kp_str_of(text);
    v.num = strtod(text, NULL);
    while (*text && (v.kind == KP_NUMS || v.kind == KP_STRS) && v.count < PARTS_MAX) {
        size_t n = strcspn(text, ",");
        s->parts[i][v.count] = (struct kp_str){ text, n };
        s->nums[i][v.count++] = strtod(text, NULL);
        text += n + (text[n] != 0);
    }
    v.nums = s->nums[i];
    v.strs = s->parts[i];
    return v;
}

/* ---- answers ---- */

static void put_faults(const struct kp_faults *f)
{
    for (size_t i = 0; i < f->count; i++)
        printf("!%s\n", kp_err_name(f->item[i].code));
}

/* At most so many lines; gives how many there were. */
static int put_lines(const char *text, int most)
{
    int lines = 0;
    for (; *text && lines < most; lines++) {
        int n = (int)strcspn(text, "\n");
        printf(">%.*s\n", n, text);
        text += n + (text[n] != 0);
    }
    return lines;
}

static void put_script(const char *text)
{
    put_lines(text, INT_MAX);
}

/* Sends a script. False: it failed, and what the shim then sends has been sent. */
static bool put_sent(struct stream *s, const char *text, bool line)
{
    int fail = s->fail;
    s->fail = -1;
    if (fail < 0) {
        put_script(text);
        return true;
    }
    if (put_lines(text, fail) > 0 && strncmp(text, "SAVE_GCODE_STATE ", 17) == 0) /* its own restore was never reached */
        put_script(kp_script_restore());
    const char *back = line ? kp_modal_put_back(s->g) : NULL;
    if (back)
        put_script(back);
    printf("!%s\n", kp_err_name(KP_OUTCOME_UNKNOWN));
    return false;
}

static void written(struct stream *s, const struct kp_pin_write *pins, size_t pin_count, const struct kp_axis_write *axes, size_t axis_count)
{
    for (size_t i = 0; i < pin_count; i++)
        kp_machine_pin_written(s->m, pins[i].pin, pins[i].value, s->now_ms);
    for (size_t i = 0; i < axis_count; i++)
        kp_machine_axis_written(s->m, axes[i].axis, axes[i].position, axes[i].homed);
}

/* ---- commands ---- */

static const char *type_name(enum kp_ptype type)
{
    switch ((int)type) {
    case KP_P_NUM: return "num";
    case KP_P_INT: return "int";
    case KP_P_BOOL: return "bool";
    case KP_P_AXES: return "axes";
    case KP_P_PIN_IN:
    case KP_P_PIN_OUT: return "pin";
    case KP_P_PIN_PWM: return "pwm";
    case KP_P_FAN: return "fan";
    case KP_P_SENSOR: return "sensor";
    case KP_P_NOZZLE: return "nozzle";
    case KP_P_FEEDER: return "feeder";
    default: return "text";
    }
}

static void do_rows(void)
{
    size_t count;
    const struct kp_command *rows = kp_commands(&count);
    for (size_t i = 0; i < count; i++) {
        printf("%s\t%d", rows[i].name, rows[i].strategy == KP_GCODE);
        for (const struct kp_param *p = rows[i].params; p->name; p++)
            printf("\t%s\t%s\t%d\t%g\t%g", p->name, type_name(p->type), (p->flags & KP_REQUIRED) != 0, p->min, p->max);
        printf("\n");
    }
}

static void run(struct stream *s, struct kp_seq *seq)
{
    struct kp_error broken = { .code = KP_EXECUTION_FAILED };
    struct kp_action a;
    size_t pins, axes;
    kp_seq_step(seq, KP_EV_START, 0, NULL, &a);
    while (a.kind != KP_ACT_DONE && a.kind != KP_ACT_FAIL) {
        if (a.kind == KP_ACT_SCRIPT && !put_sent(s, a.text, false)) {
            kp_seq_step(seq, KP_EV_ERROR, 0, &broken, &a);
            break;
        }
        if (a.kind == KP_ACT_SCRIPT) {
            const struct kp_pin_write *pin = kp_seq_writes(seq, &pins);
            written(s, pin, pins, kp_seq_axis_writes(seq, &axes), axes);
        }
        enum kp_event ev = a.kind == KP_ACT_SAMPLE ? KP_EV_SAMPLE : a.kind == KP_ACT_DELAY ? KP_EV_TIME : KP_EV_OK;
        kp_seq_step(seq, ev, a.kind == KP_ACT_DELAY ? (double)a.after_ms : s->level, NULL, &a);
    }
    if (a.kind == KP_ACT_FAIL)
        printf("!%s\n", kp_err_name(a.error.code));
}

static void do_call(struct stream *s)
{
    static struct kp_faults f;
    struct kp_arg args[WORDS_MAX];
    struct kp_call call;
    struct kp_seq *seq = NULL;
    size_t n = 0;
    const struct kp_command *row = kp_command_by_name(str(s, 1));
    if (!row)
        stop("no such command");
    for (size_t i = 2; i + 1 < s->words; i += 2)
        args[n++] = (struct kp_arg){ .name = str(s, i), .value = value(s, i + 1), .text = word(s, i + 1)[0] == 'q' };
    f.count = f.dropped = 0;
    if (kp_check(s->m, row, args, n, &call, &f) == KP_OK && kp_safety_gate(s->m, &call, &f) == KP_OK && row->strategy == KP_GCODE
        && kp_seq_plan(&seq, s->m, &call, s->now_ms & 1, &f) == KP_OK)
        run(s, seq);
    put_faults(&f);
    kp_seq_free(seq);
}

static void do_line(struct stream *s)
{
    static const char *const kinds[] = { "script", "home", "wait", "endstops", "pause", "sensors", "position", "version", "stop" };
    static struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_gcode_action a;
    enum kp_err rc = kp_gcode_parse(str(s, 1), &line, &fault);
    if (rc == KP_OK)
        rc = kp_modal_line(s->g, &line, &fault);
    if (rc != KP_OK)
        printf("!%s\n", kp_err_name(rc));
    while (kp_modal_next(s->g, &a)) {
        if (!a.text)
            printf("[%s\n", kinds[a.kind]);
        else if (!put_sent(s, a.text, true)) {
            kp_modal_sync(s->g); /* drops what of the line is left */
            return;
        }
        written(s, a.writes, a.write_count, a.axes, a.axis_count);
        if (a.resync)
            printf("resync\n");
    }
}

/* ---- the machine ---- */

static void do_machine(struct stream *s)
{
    static struct kp_faults f;
    struct kp_config *c = kp_config_new();
    kp_modal_free(s->g);
    kp_mappings_free(s->maps);
    kp_machine_free(s->m);
    s->fail = -1;
    f.count = f.dropped = 0;
    s->g = NULL;
    s->maps = kp_mappings_new();
    if (!c || !s->maps || kp_config_parse(c, "stream.cfg", str(s, 1), &f) != KP_OK || kp_mappings_config(s->maps, c, &f) != KP_OK)
        stop(f.count ? f.item[0].message : "out of memory");
    s->m = kp_machine_new(c);
    kp_config_free(c);
    if (!s->m)
        stop("out of memory");
}

static void do_client(struct stream *s)
{
    kp_modal_free(s->g);
    s->g = kp_modal_new(s->m, &(struct kp_modal_options){ .mappings = s->maps, .clamp = word(s, 1)[0] == '1' });
    if (!s->g)
        stop("out of memory");
}

static void do_neutral(struct stream *s)
{
    char script[KP_SCRIPT_MAX];
    if (kp_script_neutral(s->m, script) > 0)
        put_script(script);
}

static bool do_state(struct stream *s)
{
    const char *what = word(s, 0);
    struct kp_value v;
    if (strcmp(what, "setting") == 0)
        v = value(s, 3), kp_machine_setting(s->m, str(s, 1), str(s, 2), &v);
    else if (strcmp(what, "status") == 0)
        v = value(s, 3), kp_machine_status(s->m, str(s, 1), str(s, 2), &v, s->now_ms), kp_machine_pushed(s->m, s->now_ms);
    else if (strcmp(what, "object") == 0)
        kp_machine_object(s->m, str(s, 1));
    else if (strcmp(what, "word") == 0)
        kp_machine_command(s->m, str(s, 1));
    else if (strcmp(what, "axis") == 0)
        kp_machine_axis_written(s->m, atoi(word(s, 1)), strtod(word(s, 2), NULL), word(s, 3)[0] == '1');
    else if (strcmp(what, "klippy") == 0)
        kp_machine_klippy(s->m, word(s, 1)[0] == '1' ? KP_KLIPPY_READY : KP_KLIPPY_SHUTDOWN, "told");
    else if (strcmp(what, "moonraker") == 0)
        kp_machine_moonraker(s->m, word(s, 1)[0] == '1');
    else if (strcmp(what, "latch") == 0)
        kp_safety_latch(s->m, true, "asked");
    else if (strcmp(what, "release") == 0)
        kp_safety_release(s->m);
    else
        return false;
    return true;
}

static void obey(struct stream *s)
{
    const char *what = word(s, 0);
    s->now_ms++;
    if (strcmp(what, "rows") == 0)
        do_rows();
    else if (strcmp(what, "machine") == 0)
        do_machine(s);
    else if (!s->m)
        stop("no machine");
    else if (strcmp(what, "resolve") == 0) {
        if (kp_machine_resolve(s->m, NULL) != KP_OK)
            printf("!\n");
    } else if (strcmp(what, "call") == 0)
        do_call(s);
    else if (strcmp(what, "line") == 0)
        do_line(s);
    else if (strcmp(what, "client") == 0)
        do_client(s);
    else if (strcmp(what, "sync") == 0)
        kp_modal_sync(s->g);
    else if (strcmp(what, "fail") == 0)
        s->fail = atoi(word(s, 1));
    else if (strcmp(what, "neutral") == 0)
        do_neutral(s);
    else if (strcmp(what, "level") == 0)
        s->level = strtod(word(s, 1), NULL);
    else if (!do_state(s))
        stop("no such request");
}

int main(void)
{
    static struct stream s = { .fail = -1 };
    static char line[LINE_BYTES];
    while (fgets(line, sizeof line, stdin)) {
        split(&s, line);
        obey(&s);
        printf(".\n");
        fflush(stdout);
    }
    kp_modal_free(s.g);
    kp_mappings_free(s.maps);
    kp_machine_free(s.m);
    return 0;
}
