/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The parser of klipperplace.cfg, for whoever reads one. All that is wrong with a file is told at once, each with its line; what is
 * good counts all the same. */
#include "config.h"

#include <math.h>
#include <string.h>

struct parser {
    struct kp_config *c;
    struct kp_faults *f;
    char file[KP_NAME_MAX];
    unsigned line;
    struct kp_config_section *section; /* NULL: none yet, or one at fault whose options are skipped */
    bool in_option, skipping;
    bool unknown;         /* the option is at fault: its further lines are part of that fault */
    const struct kp_option *option; /* its value is not yet whole: it begins at `value`; NULL: none */
    unsigned option_line;
    struct kp_str value;  /* of the file's text, comments and all, up to the end of its last line */
    enum kp_err first;
};

/* ---- the parser ---- */

static void fault_add(struct parser *p, const struct kp_error *e)
{
    if (p->first == KP_OK)
        p->first = e->code;
    kp_faults_add(p->f, e);
}

/* A fault in the present line. */
#define FAULT(p, field, fmt, ...) do { \
        struct kp_error fault_; \
        kp_error_set(&fault_, KP_INVALID_PARAMETER, field, "%s:%u: " fmt, (p)->file, (p)->line, __VA_ARGS__); \
        fault_add(p, &fault_); \
    } while (0)

static void fault_memory(struct parser *p)
{
    struct kp_error e;
    kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "%s:%u: out of memory", p->file, p->line);
    fault_add(p, &e);
}

/* The line without its comment: '#' anywhere, ';' at the start or after a blank, as Klipper reads it. */
static struct kp_str strip_comment(struct kp_str line)
{
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] == '#' || (line.p[i] == ';' && (i == 0 || kp_str_blank(line.p[i - 1]))))
            line.n = i;
    while (line.n > 0 && kp_str_blank(line.p[line.n - 1]))
        line.n--;
    return line;
}

/* "M800": a number of up to four digits that means nothing yet. */
static bool mcode_ok(struct kp_str name)
{
    static const double taken[] = { 0, 1, 3, 4, 5, 17, 18, 30, 42, 82, 83, 84, 104, 105, 106, 107, 109, 110, 112, 114, 115, 119, 140, 190, 204, 400, 999 };
    double number;
    bool shaped = name.n >= 2 && name.n <= 5 && name.p[0] == 'M' && (name.p[1] != '0' || name.n == 2);
    if (!shaped || !kp_number_parse((struct kp_str){ name.p + 1, name.n - 1 }, &number))
        return false;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        if (taken[i] == number)
            return false;
    return true;
}

static bool section_name_ok(struct parser *p, const char *shown, const char *pattern, struct kp_str name)
{
    struct kp_str letter, kind = kp_option_kind(pattern);
    char word[KP_NAME_MAX];
    kp_str_copy(word, kind);
    if (name.n == 0)
        FAULT(p, shown, "[%s] needs a name, as in [%s NAME]", shown, word);
    else if (!kp_name_ok(name))
        FAULT(p, shown, "[%s]: a name has 1 to %d characters of A-Z a-z 0-9 _", shown, KP_NAME_MAX - 1);
    else if (kp_str_eq(kind, "axis") && !(kp_option_choice(AXIS_LETTERS, name, &letter) && kp_str_equal(letter, name)))
        FAULT(p, shown, "[%s]: an axis is named by one letter of %s", shown, AXIS_LETTERS);
    else if (kp_str_eq(kind, "mcode") && !mcode_ok(name))
        FAULT(p, shown, "[%s]: an M-number is M and up to %d digits, and none that has a meaning already", shown, 4);
    else
        return true;
    return false;
}

/* Whether one more section of this kind may come. */
static bool section_room(struct parser *p, const char *shown, size_t first)
{
    size_t have = 0;
    for (size_t i = 0; i < p->c->count; i++)
        have += p->c->sections[i].first == first;
    size_t i = 0;
    while (strcmp(kp_section_kinds[i].pattern, kp_option_table[first].section) != 0)
        i++;
    if (have >= kp_section_kinds[i].max && kp_section_kinds[i].example)
        FAULT(p, shown, "[%s]: more than %zu sections of this kind", shown, kp_section_kinds[i].max);
    return have < kp_section_kinds[i].max || !kp_section_kinds[i].example;
}

static void parse_header(struct parser *p, struct kp_str line)
{
    char shown[KP_NAME_MAX], word[KP_NAME_MAX], near[KP_NAME_MAX] = "";
    size_t first, count;
    p->section = NULL;
    p->skipping = true;
    p->in_option = false;
    if (line.p[line.n - 1] != ']') {
        FAULT(p, NULL, "a section's line ends in \"]\": \"%s\"", kp_str_clean(shown, line));
        return;
    }
    struct kp_str header = kp_str_trim((struct kp_str){ line.p + 1, line.n - 2 }), kind = header;
    for (kind.n = 0; kind.n < header.n && !kp_str_blank(header.p[kind.n]);)
        kind.n++;
    struct kp_str name = kp_str_trim((struct kp_str){ header.p + kind.n, header.n - kind.n });
    kp_str_clean(shown, header);
    if (!kp_option_rows(kind, &first, &count) || (name.n > 0 && !kp_option_named(kp_option_table[first].section))) {
        kp_option_nearest(near, kp_str_clean(word, kind), 0, 0);
        kp_option_rows(kp_str_of(near), &first, &count);
        FAULT(p, shown, "unknown section [%s]; the nearest known is [%s%s]", shown, near, kp_option_named(kp_option_table[first].section) ? " NAME" : "");
        return;
    }
    if (kp_option_named(kp_option_table[first].section) && !section_name_ok(p, shown, kp_option_table[first].section, name))
        return;
    struct kp_config_section *s = kp_config_section_find(p->c, first, name);
    if (s && s->line > 0) {
        FAULT(p, shown, "[%s] is there twice, first in line %u", shown, s->line);
        return;
    }
    if (!s && !section_room(p, shown, first))
        return;
    if (!s)
        s = kp_config_section_add(p->c, first, count, name);
    if (!s) {
        fault_memory(p);
        return;
    }
    s->line = p->line;
    s->fresh = true;
    p->section = s;
    p->skipping = false;
}

static void fault_placed(struct parser *p, const struct kp_error *e)
{
    struct kp_error placed = *e;
    kp_error_set(&placed, e->code, e->field, "%s:%u: %s", p->file, p->line, e->message);
    placed.got = e->got;
    placed.min = e->min;
    placed.max = e->max;
    fault_add(p, &placed);
}

/* The lines of a value without their comments, joined; false when they are too many. */
static bool value_join(struct kp_str text, char out[VALUE_MAX], struct kp_str *joined)
{
    size_t n = 0;
    while (text.n > 0) {
        const char *end = memchr(text.p, '\n', text.n);
        struct kp_str raw = { text.p, end ? (size_t)(end - text.p) : text.n }, line = kp_str_trim(strip_comment(raw));
        text = (struct kp_str){ text.p + raw.n + (end != NULL), text.n - raw.n - (end != NULL) };
        if (line.n == 0)
            continue;
        if (line.n + 1 > VALUE_MAX - n)
            return false;
        memcpy(out + n, line.p, line.n);
        n += line.n;
        out[n++] = '\n';
    }
    *joined = (struct kp_str){ out, n > 0 ? n - 1 : 0 };
    return true;
}

/* The value of the option before is whole: checks and keeps it. */
static void value_end(struct parser *p)
{
    char joined[VALUE_MAX], kept[VALUE_MAX];
    const struct kp_option *o = p->option;
    struct kp_str text;
    struct kp_error e;
    enum kp_err rc = KP_OK;
    if (!o)
        return;
    unsigned line = p->line;
    struct kp_config_value *v = &p->section->value[(size_t)(o - kp_option_table) - p->section->first];
    p->option = NULL;
    p->line = p->option_line;
    if (!value_join(p->value, joined, &text)) {
        FAULT(p, o->name, "%s: longer than %d characters", o->name, (kp_option_many(o->type) ? VALUE_MAX : KP_TEXT_MAX) - 1);
    } else if (text.n > 0 || (o->type != KP_T_STR && !kp_option_many(o->type)) || o->required) {
        if (kp_option_many(o->type)) {
            size_t n = 0;
            rc = kp_option_check_many(o, text, kept, &n, &e);
            text = (struct kp_str){ kept, n > 0 ? n - 1 : 0 };
        } else {
            rc = kp_option_check(o, &text, &e);
        }
        if (rc != KP_OK)
            fault_placed(p, &e);
        else if (!v->env && !kp_config_value_set(v, text))
            fault_memory(p);
        else
            v->held = true;
    }
    p->line = line;
}

/* An indented line: the value goes on. */
static void value_more(struct parser *p, struct kp_str raw)
{
    char none[VALUE_MAX];
    struct kp_str before;
    if (!p->section || p->unknown)
        return;
    bool many = p->option && kp_option_many(p->option->type);
    if (many || (p->option && value_join(p->value, none, &before) && before.n == 0))
        p->value.n = (size_t)(raw.p + raw.n - p->value.p);
    else
        FAULT(p, NULL, "a value ends with its line; this one is %s", "indented");
}

static void parse_option(struct parser *p, struct kp_str line)
{
    char name[KP_NAME_MAX], near[KP_NAME_MAX] = "";
    size_t at = 0;
    while (at < line.n && line.p[at] != ':' && line.p[at] != '=')
        at++;
    kp_str_clean(name, kp_str_trim((struct kp_str){ line.p, at }));
    p->in_option = true;
    p->unknown = true;
    if (!p->section) {
        if (!p->skipping)
            FAULT(p, name, "\"%s\" stands before the first section", name);
        p->skipping = true;
        return;
    }
    if (at == line.n || !name[0]) {
        FAULT(p, NULL, "neither \"option: value\" nor a section: \"%s\"", kp_str_clean(name, line));
        return;
    }
    for (char *c = name; *c; c++)
        *c = kp_lower(*c);
    struct kp_config_section *s = p->section;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(kp_option_table[s->first + i].name, name) == 0) {
            if (s->value[i].written) {
                FAULT(p, name, "%s is there twice in this section", name);
                return;
            }
            s->value[i].written = true;
            p->option = &kp_option_table[s->first + i];
            p->option_line = p->line;
            p->value = (struct kp_str){ line.p + at + 1, line.n - at - 1 };
            p->unknown = false;
            return;
        }
    struct kp_str kind = kp_option_kind(kp_option_table[s->first].section);
    char word[KP_NAME_MAX];
    kp_str_copy(word, kind);
    kp_option_nearest(near, name, s->first, s->count);
    FAULT(p, name, "unknown option \"%s\" in [%s%s%s]; the nearest known is \"%s\"", name, word, s->name[0] ? " " : "", s->name, near);
}

static void parse_line(struct parser *p, struct kp_str raw)
{
    struct kp_str line = strip_comment(raw);
    if (kp_str_trim(line).n == 0)
        return;
    if (kp_str_blank(line.p[0]) && p->in_option) {
        value_more(p, raw);
        return;
    }
    value_end(p);
    line = kp_str_trim(line);
    if (line.p[0] == '[')
        parse_header(p, line);
    else
        parse_option(p, line);
}

/* ---- what only a whole section, or all of them, can tell ---- */

/* The value or the default of an option; NAN: neither, or no such option here. */
static double number_of(const struct kp_config_section *s, const char *name)
{
    double v = NAN;
    for (size_t i = 0; i < s->count; i++) {
        const struct kp_option *o = &kp_option_table[s->first + i];
        const char *text = s->value[i].text ? s->value[i].text : o->def;
        if (strcmp(o->name, name) == 0 && text)
            kp_number_parse(kp_str_of(text), &v);
    }
    return v;
}

/* How many of two options the file has a line for. */
static unsigned given_of(const struct kp_config_section *s, const char *a, const char *b)
{
    unsigned n = 0;
    for (size_t i = 0; i < s->count; i++) {
        const char *name = kp_option_table[s->first + i].name;
        n += s->value[i].written && (strcmp(name, a) == 0 || strcmp(name, b) == 0);
    }
    return n;
}

static void check_one_of(struct parser *p, const struct kp_config_section *s, const char *kind, const char *a, const char *b)
{
    if (given_of(s, a, b) != 1)
        FAULT(p, a, "[%s %s] needs one of %s and %s", kind, s->name, a, b);
}

static void check_section(struct parser *p, const struct kp_config_section *s)
{
    static const char *const pairs[][2] = {
        { "min_x_position", "max_x_position" }, { "min_y_position", "max_y_position" }, { "min_z_position", "max_z_position" },
        { "min_feedrate", "max_feedrate" }, { "min_pwm_value", "max_pwm_value" }, { "min_fan_speed", "max_fan_speed" },
    };
    struct kp_str kind = kp_option_kind(kp_option_table[s->first].section);
    char word[KP_NAME_MAX];
    kp_str_copy(word, kind);
    p->line = s->line;
    for (size_t i = 0; i < s->count; i++)
        if (kp_option_table[s->first + i].required && !s->value[i].written)
            FAULT(p, kp_option_table[s->first + i].name, "[%s %s] needs %s", word, s->name, kp_option_table[s->first + i].name);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (number_of(s, pairs[i][0]) > number_of(s, pairs[i][1]))
            FAULT(p, pairs[i][0], "%s is above %s", pairs[i][0], pairs[i][1]);
    double on = number_of(s, "part_on"), off = number_of(s, "part_off");
    if (isnan(on) != isnan(off))
        FAULT(p, "part_on", "[%s %s] needs both part_on and part_off, or none", word, s->name);
    else if (on == off)
        FAULT(p, "part_on", "[%s %s]: part_on and part_off are the same", word, s->name);
    if (kp_str_eq(kind, "pin"))
        check_one_of(p, s, word, "object", "pin");
    if (kp_str_eq(kind, "feeder"))
        check_one_of(p, s, word, "stepper", "macro");
}

/* A number or name that only one section may have. */
static void check_unique(struct parser *p, const char *kind, const char *option)
{
    size_t first, count;
    kp_option_rows(kp_str_of(kind), &first, &count);
    for (size_t i = 0; i < p->c->count; i++)
        for (size_t j = 0; j < i; j++) {
            const struct kp_config_section *a = &p->c->sections[j], *b = &p->c->sections[i];
            if (a->first != first || b->first != first)
                continue;
            for (size_t row = 0; row < count; row++) {
                const char *one = a->value[row].text, *two = b->value[row].text;
                p->line = b->line;
                if (strcmp(kp_option_table[first + row].name, option) == 0 && one && two && kp_str_same(kp_str_of(one), two))
                    FAULT(p, option, "[%s %s]: %s %s is that of [%s %s], too", kind, b->name, option, two, kind, a->name);
            }
        }
}

/* ---- public ---- */

enum kp_err kp_config_parse(struct kp_config *c, const char *file, struct kp_str text, struct kp_faults *f)
{
    struct kp_str shown = kp_str_of(file);
    struct parser p = { .c = c, .f = f };
    size_t keep = 48; /* the end of a path tells more than its start */
    if (shown.n > keep)
        shown = (struct kp_str){ shown.p + shown.n - keep, keep };
    kp_str_clean(p.file, shown);
    if (kp_str_starts(text, "\xef\xbb\xbf"))
        text = (struct kp_str){ text.p + 3, text.n - 3 };
    while (text.n > 0) {
        const char *end = memchr(text.p, '\n', text.n);
        size_t n = end ? (size_t)(end - text.p) : text.n;
        p.line++;
        parse_line(&p, (struct kp_str){ text.p, n });
        n += end != NULL;
        text = (struct kp_str){ text.p + n, text.n - n };
    }
    value_end(&p);
    for (size_t i = 0; i < c->count; i++) {
        if (c->sections[i].fresh)
            check_section(&p, &c->sections[i]);
        c->sections[i].fresh = false;
    }
    check_unique(&p, "pin", "m42");
    check_unique(&p, "sensor", "m105");
    return p.first;
}
