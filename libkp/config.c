/* SPDX-License-Identifier: GPL-3.0-or-later */
/* klipperplace.cfg: its parser and the values it holds, for shim and extension. A value is
 * kept only when its row's type, range and choices allow it, so whoever asks later never checks again. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *pattern; size_t max; } named[] = {
    { "nozzle *", KP_NOZZLES_MAX }, { "axis *", KP_AXES_MAX - 3 }, { "sensor *", KP_SENSORS_MAX },
    { "feeder *", KP_FEEDERS_MAX }, { "pin *", KP_PINS_MAX },
};

struct section {
    size_t first, count;    /* its rows in options */
    char name[KP_NAME_MAX]; /* "N1"; empty for "api" */
    unsigned line;          /* of its header; 0: made by the environment */
    bool fresh;             /* opened by the present file and not yet checked as a whole */
    char *value[ROWS_MAX];  /* ours; NULL: not set */
    bool written[ROWS_MAX], env[ROWS_MAX];
};

struct kp_config {
    struct section *sections;
    size_t count, room;
};

struct parser {
    struct kp_config *c;
    struct kp_faults *f;
    char file[KP_NAME_MAX];
    unsigned line;
    struct section *section; /* NULL: none yet, or one at fault whose options are skipped */
    bool in_option, skipping;
    enum kp_err first;
};

/* ---- sections ---- */

/* Takes over a checked value; false when out of memory. */
static bool value_store(char **slot, struct kp_str text)
{
    char *copy = malloc(text.n + 1);
    if (!copy)
        return false;
    if (text.n > 0)
        memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    free(*slot);
    *slot = copy;
    return true;
}

static struct section *section_find(const struct kp_config *c, size_t first, struct kp_str name)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->sections[i].first == first && kp_str_eq(name, c->sections[i].name))
            return &c->sections[i];
    return NULL;
}

static struct section *section_add(struct kp_config *c, size_t first, size_t count, struct kp_str name)
{
    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : 16;
        struct section *more = realloc(c->sections, room * sizeof *more);
        if (!more)
            return NULL;
        c->sections = more;
        c->room = room;
    }
    struct section *s = &c->sections[c->count];
    memset(s, 0, sizeof *s);
    s->first = first;
    s->count = count;
    if (!kp_str_copy(s->name, name))
        return NULL;
    c->count++;
    return s;
}

/* The row and, where it is there, the section that "nozzle N1" and "safe_z" name. NULL: no such row, or no such named section. */
static const struct kp_option *option_find(const struct kp_config *c, const char *section, const char *name, const char **value)
{
    struct kp_str kind = kp_option_kind(section), given = kp_str_of(section + kind.n + (section[kind.n] == ' '));
    size_t first, count;
    if (!kp_option_rows(kind, &first, &count) || kp_option_named(kp_option_table[first].section) != (given.n > 0))
        return NULL;
    const struct section *s = section_find(c, first, given);
    if (!s && given.n > 0)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (strcmp(kp_option_table[first + i].name, name) == 0) {
            *value = s && s->value[i] ? s->value[i] : kp_option_table[first + i].def;
            return &kp_option_table[first + i];
        }
    return NULL;
}

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

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static struct kp_str trim(struct kp_str s)
{
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    while (s.n > 0 && is_blank(s.p[0]))
        s.p++, s.n--;
    return s;
}

/* The line without its comment: '#' anywhere, ';' at the start or after a blank, as Klipper reads it. */
static struct kp_str strip_comment(struct kp_str line)
{
    for (size_t i = 0; i < line.n; i++)
        if (line.p[i] == '#' || (line.p[i] == ';' && (i == 0 || is_blank(line.p[i - 1]))))
            line.n = i;
    while (line.n > 0 && is_blank(line.p[line.n - 1]))
        line.n--;
    return line;
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
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (strcmp(named[i].pattern, kp_option_table[first].section) == 0 && have >= named[i].max) {
            FAULT(p, shown, "[%s]: more than %zu sections of this kind", shown, named[i].max);
            return false;
        }
    return true;
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
    struct kp_str header = trim((struct kp_str){ line.p + 1, line.n - 2 }), kind = header;
    for (kind.n = 0; kind.n < header.n && !is_blank(header.p[kind.n]);)
        kind.n++;
    struct kp_str name = trim((struct kp_str){ header.p + kind.n, header.n - kind.n });
    kp_str_clean(shown, header);
    if (!kp_option_rows(kind, &first, &count) || (name.n > 0 && !kp_option_named(kp_option_table[first].section))) {
        kp_option_nearest(near, kp_str_clean(word, kind), 0, 0);
        kp_option_rows(kp_str_of(near), &first, &count);
        FAULT(p, shown, "unknown section [%s]; the nearest known is [%s%s]", shown, near, kp_option_named(kp_option_table[first].section) ? " NAME" : "");
        return;
    }
    if (kp_option_named(kp_option_table[first].section) && !section_name_ok(p, shown, kp_option_table[first].section, name))
        return;
    struct section *s = section_find(p->c, first, name);
    if (s && s->line > 0) {
        FAULT(p, shown, "[%s] is there twice, first in line %u", shown, s->line);
        return;
    }
    if (!s && !section_room(p, shown, first))
        return;
    if (!s)
        s = section_add(p->c, first, count, name);
    if (!s) {
        fault_memory(p);
        return;
    }
    s->line = p->line;
    s->fresh = true;
    p->section = s;
    p->skipping = false;
}

static void parse_value(struct parser *p, size_t row, struct kp_str text)
{
    struct section *s = p->section;
    const struct kp_option *o = &kp_option_table[s->first + row];
    struct kp_error e;
    if (s->written[row]) {
        FAULT(p, o->name, "%s is there twice in this section", o->name);
        return;
    }
    s->written[row] = true;
    if (text.n == 0 && o->type == KP_T_STR && !o->required)
        return;
    if (kp_option_check(o, &text, &e) != KP_OK) {
        struct kp_error placed = e;
        kp_error_set(&placed, e.code, e.field, "%s:%u: %s", p->file, p->line, e.message);
        placed.got = e.got;
        placed.min = e.min;
        placed.max = e.max;
        fault_add(p, &placed);
    } else if (!s->env[row] && !value_store(&s->value[row], text)) {
        fault_memory(p);
    }
}

static void parse_option(struct parser *p, struct kp_str line)
{
    char name[KP_NAME_MAX], near[KP_NAME_MAX] = "";
    size_t at = 0;
    while (at < line.n && line.p[at] != ':' && line.p[at] != '=')
        at++;
    kp_str_clean(name, trim((struct kp_str){ line.p, at }));
    p->in_option = true;
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
    struct section *s = p->section;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(kp_option_table[s->first + i].name, name) == 0) {
            parse_value(p, i, trim((struct kp_str){ line.p + at + 1, line.n - at - 1 }));
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
    if (trim(line).n == 0)
        return;
    if (is_blank(line.p[0]) && p->in_option) {
        if (p->section)
            FAULT(p, NULL, "a value ends with its line; this one is %s", "indented");
        return;
    }
    line = trim(line);
    if (line.p[0] == '[')
        parse_header(p, line);
    else
        parse_option(p, line);
}

/* ---- what only a whole section can tell ---- */

static double pair_value(const struct section *s, const char *name)
{
    double v = NAN;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(kp_option_table[s->first + i].name, name) == 0 && s->value[i])
            kp_number_parse(kp_str_of(s->value[i]), &v);
    return v;
}

static void check_section(struct parser *p, const struct section *s)
{
    static const char *const pairs[][2] = {
        { "min_x_position", "max_x_position" }, { "min_y_position", "max_y_position" }, { "min_z_position", "max_z_position" },
        { "min_feedrate", "max_feedrate" },
    };
    struct kp_str kind = kp_option_kind(kp_option_table[s->first].section);
    char word[KP_NAME_MAX];
    kp_str_copy(word, kind);
    p->line = s->line;
    for (size_t i = 0; i < s->count; i++)
        if (kp_option_table[s->first + i].required && !s->value[i] && !s->written[i])
            FAULT(p, kp_option_table[s->first + i].name, "[%s %s] needs %s", word, s->name, kp_option_table[s->first + i].name);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pair_value(s, pairs[i][0]) > pair_value(s, pairs[i][1]))
            FAULT(p, pairs[i][0], "%s is above %s", pairs[i][0], pairs[i][1]);
    double on = pair_value(s, "part_on"), off = pair_value(s, "part_off");
    if (isnan(on) != isnan(off))
        FAULT(p, "part_on", "[%s %s] needs both part_on and part_off, or none", word, s->name);
    else if (on == off)
        FAULT(p, "part_on", "[%s %s]: part_on and part_off are the same", word, s->name);
    if (kp_str_eq(kind, "pin") && (s->value[0] != NULL) == (s->value[1] != NULL) && s->written[0] == s->written[1])
        FAULT(p, "object", "[%s %s] needs one of object and pin", word, s->name);
}

/* ---- public ---- */

struct kp_config *kp_config_new(void)
{
    return calloc(1, sizeof(struct kp_config));
}

void kp_config_free(struct kp_config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->count; i++)
        for (size_t j = 0; j < ROWS_MAX; j++)
            free(c->sections[i].value[j]);
    free(c->sections);
    free(c);
}

struct kp_config *kp_config_clone(const struct kp_config *c)
{
    struct kp_config *copy = kp_config_new();
    for (size_t i = 0; copy && i < c->count; i++) {
        const struct section *from = &c->sections[i];
        struct section *to = section_add(copy, from->first, from->count, kp_str_of(from->name));
        bool ok = to != NULL;
        for (size_t j = 0; ok && j < from->count; j++)
            ok = !from->value[j] || value_store(&to->value[j], kp_str_of(from->value[j]));
        if (!ok) {
            kp_config_free(copy);
            return NULL;
        }
        to->line = from->line;
    }
    return copy;
}

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
    for (size_t i = 0; i < c->count; i++) {
        if (c->sections[i].fresh)
            check_section(&p, &c->sections[i]);
        c->sections[i].fresh = false;
    }
    return p.first;
}

enum kp_err kp_config_env(struct kp_config *c, const char *variable, const char *text, struct kp_error *e)
{
    struct kp_str value = kp_str_of(text);
    size_t row = 0, rows, first, count;
    kp_options(&rows);
    while (row < rows && !(kp_option_table[row].env && strcmp(kp_option_table[row].env, variable) == 0))
        row++;
    if (row == rows)
        return kp_error_set(e, KP_NOT_FOUND, variable, "no option is set by %s", variable);
    if (value.n == 0)
        return KP_OK; /* set to nothing is not set */
    enum kp_err rc = kp_option_check(&kp_option_table[row], &value, e);
    if (rc != KP_OK) {
        if (e)
            kp_error_set(e, rc, variable, "%s: %s", variable, e->message);
        return rc;
    }
    kp_option_rows(kp_option_kind(kp_option_table[row].section), &first, &count);
    struct section *s = section_find(c, first, kp_str_of(""));
    if (!s)
        s = section_add(c, first, count, kp_str_of(""));
    if (!s || !value_store(&s->value[row - first], value))
        return kp_error_set(e, KP_INTERNAL_ERROR, variable, "out of memory");
    s->env[row - first] = true;
    return KP_OK;
}

const char *kp_config_str(const struct kp_config *c, const char *section, const char *name)
{
    const char *value = NULL;
    return option_find(c, section, name, &value) ? value : NULL;
}

double kp_config_num(const struct kp_config *c, const char *section, const char *name)
{
    const char *text = kp_config_str(c, section, name);
    double v = NAN;
    if (text)
        kp_number_parse(kp_str_of(text), &v);
    return v;
}

bool kp_config_bool(const struct kp_config *c, const char *section, const char *name)
{
    const char *text = kp_config_str(c, section, name);
    return text && strcmp(text, "true") == 0;
}

const char *kp_config_section(const struct kp_config *c, const char *kind, size_t i)
{
    size_t first, count;
    if (!kp_option_rows(kp_str_of(kind), &first, &count))
        return NULL;
    for (size_t j = 0; j < c->count; j++)
        if (c->sections[j].first == first && c->sections[j].name[0] && i-- == 0)
            return c->sections[j].name;
    return NULL;
}
