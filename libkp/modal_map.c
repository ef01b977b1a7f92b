/* SPDX-License-Identifier: GPL-3.0-or-later */
/* command_mappings: commands of ours that are lists of others. Read from the configuration once, filled per call. Invariant: what fills
 * a {name} is a number that we printed or a name that kp_name_ok takes, and the filled line goes the way of every line. */
#include "modal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mapping {
    char letter;                    /* of a classic command; 0: a named one */
    uint32_t code;
    char name[KP_NAME_MAX];
    char text[KP_MAPPING_TEXT_MAX]; /* templates, each behind the other with its 0 */
    size_t size;
};

struct kp_mappings {
    struct mapping rows[KP_MAPPINGS_MAX];
    size_t count;
};

/* What fills a template: the words of a command, or with `all` that for each. */
struct fill {
    const char *all;
    struct kp_modal *g;
    const struct kp_gcode_line *line;
    const struct kp_gcode_command *command;
    uint64_t used; /* words of the command, by place */
};

/* ---- filling ---- */

static const struct kp_gcode_word *word_named(struct fill *f, struct kp_str name)
{
    for (size_t i = 0; i < f->command->count; i++) {
        const struct kp_gcode_word *w = &f->line->words[f->command->first + i];
        char key[KP_NAME_MAX];
        if (!kp_str_same(name, kp_str_clean(key, kp_gcode_key(f->line, w))))
            continue;
        f->used |= (uint64_t)1 << i;
        return w;
    }
    return NULL;
}

/* The text for {name}. */
static enum kp_err fill_name(struct fill *f, struct kp_str name, char out[KP_NAME_MAX])
{
    char shown[KP_NAME_MAX];
    if (f->all) {
        memcpy(out, f->all, strlen(f->all) + 1);
        return KP_OK;
    }
    const struct kp_gcode_word *w = word_named(f, name);
    kp_str_clean(shown, name);
    if (!w)
        return MODAL_FAIL(f->g, NULL, KP_MISSING_PARAMETER, shown, "%s is missing", shown);
    struct kp_str text = kp_gcode_text(f->line, w);
    if (!isnan(w->value) && fabs(w->value) <= MODAL_NUMBER_MAX)
        kp_number_print(out, w->value, 6);
    else if (kp_name_ok(text))
        kp_str_copy(out, text);
    else
        return MODAL_FAIL(f->g, w, KP_INVALID_PARAMETER, shown, "%s must be a number or a name of A-Z a-z 0-9 _", shown);
    return KP_OK;
}

/* The template with its {names} filled. Braces are in order: template_check has seen to that. */
static enum kp_err fill(struct fill *f, const char *template, char out[KP_LINE_MAX], size_t *n)
{
    *n = 0;
    for (const char *at = template; *at;) {
        char value[KP_NAME_MAX] = { *at, 0 };
        if (*at == '{') {
            const char *close = strchr(at, '}');
            enum kp_err rc = fill_name(f, (struct kp_str){ at + 1, (size_t)(close - at - 1) }, value);
            if (rc != KP_OK)
                return rc;
            at = close;
        }
        size_t size = strlen(value);
        if (size > KP_LINE_MAX - *n)
            return MODAL_FAIL(f->g, NULL, KP_INVALID_REQUEST, NULL, "the filled template is longer than %d bytes", KP_LINE_MAX);
        memcpy(out + *n, value, size);
        *n += size;
        at++;
    }
    return KP_OK;
}

/* The same commands with the same words, whatever their values. */
static bool same_shape(const struct kp_gcode_line *a, const struct kp_gcode_line *b)
{
    bool same = a->command_count == b->command_count && a->word_count == b->word_count && a->number == b->number;
    for (size_t i = 0; same && i < a->command_count; i++) {
        const struct kp_gcode_command *c = &a->commands[i], *d = &b->commands[i];
        same = c->letter == d->letter && c->code == d->code && c->count == d->count;
        if (same && !c->letter)
            same = c->name_size == d->name_size && memcmp(a->text + c->name, b->text + d->name, c->name_size) == 0;
    }
    for (size_t i = 0; same && i < a->word_count; i++) {
        const struct kp_gcode_word *v = &a->words[i], *w = &b->words[i];
        same = v->letter == w->letter && v->key_size == w->key_size && (v->letter || memcmp(a->text + v->key, b->text + w->key, v->key_size) == 0);
    }
    return same;
}

/* Parses the template with `all` in place of each {name}. */
static enum kp_err shape_parse(const char *template, const char *all, struct kp_gcode_line *line, struct kp_gcode_fault *fault)
{
    char text[KP_LINE_MAX];
    size_t n;
    struct fill f = { .all = all };
    fill(&f, template, text, &n); /* shorter than the template, which fits */
    return kp_gcode_parse((struct kp_str){ text, n }, line, fault);
}

/* ---- reading ---- */

static enum kp_err template_check(const char *template, struct kp_error *e)
{
    struct kp_gcode_line line, other;
    struct kp_gcode_fault fault;
    for (const char *at = template; *at; at++) {
        const char *close = *at == '{' ? strchr(at, '}') : at;
        if (*at == '}' || !close || (*at == '{' && !kp_name_ok((struct kp_str){ at + 1, (size_t)(close - at - 1) })))
            return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "\"%s\": a value is filled in by {name}", template);
        if (*at < ' ' || *at > '~' || *at == '\\')
            return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "a template holds plain ASCII, without \\");
        at = close;
    }
    if (strlen(template) > KP_LINE_MAX)
        return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "a template has at most %d characters", KP_LINE_MAX);
    if (shape_parse(template, "1", &line, &fault) != KP_OK || shape_parse(template, "2", &other, &fault) != KP_OK)
        return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "\"%s\": %s", template, fault.error.message);
    if (line.command_count == 0)
        return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "\"%s\" holds no command", template);
    if (!same_shape(&line, &other))
        return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "\"%s\": only values are filled in", template);
    return KP_OK;
}

static enum kp_err template_add(struct mapping *row, struct kp_str text, struct kp_error *e)
{
    char *at = row->text + row->size;
    if (text.n >= sizeof row->text - row->size)
        return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "the templates of one command have at most %d characters", KP_MAPPING_TEXT_MAX - 1);
    memcpy(at, text.p, text.n);
    at[text.n] = 0;
    if (strlen(at) != text.n)
        return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "a template holds plain ASCII, without \\");
    row->size += text.n + 1;
    return template_check(at, e);
}

static struct kp_str trim(struct kp_str s)
{
    while (s.n > 0 && is_blank(s.p[0]))
        s.p++, s.n--;
    while (s.n > 0 && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* "'M106 S255', 'G4 P100'": what stands between the brackets. */
static enum kp_err list_add(struct mapping *row, struct kp_str list, struct kp_error *e)
{
    for (list = trim(list); list.n > 0; list = trim(list)) {
        char quote = list.p[0];
        const char *close = quote == '\'' || quote == '"' ? memchr(list.p + 1, quote, list.n - 1) : NULL;
        if (!close)
            return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "a list is written ['COMMAND', 'COMMAND']");
        enum kp_err rc = template_add(row, (struct kp_str){ list.p + 1, (size_t)(close - list.p - 1) }, e);
        if (rc != KP_OK)
            return rc;
        list.n -= (size_t)(close + 1 - list.p);
        list.p = close + 1;
        list = trim(list);
        if (list.n > 0 && list.p[0] != ',')
            return kp_error_set(e, KP_INVALID_PARAMETER, "command_mappings", "a comma stands between templates");
        if (list.n > 0)
            list.p++, list.n--;
    }
    return KP_OK;
}

static const struct mapping *mapping_find(const struct kp_mappings *maps, const struct kp_gcode_line *line, const struct kp_gcode_command *c)
{
    for (size_t i = 0; maps && i < maps->count; i++) {
        const struct mapping *row = &maps->rows[i];
        if (row->letter == c->letter && (c->letter ? row->code == c->code : kp_str_eq(kp_gcode_name(line, c), row->name)))
            return row;
    }
    return NULL;
}

struct kp_mappings *kp_mappings_new(void)
{
    return calloc(1, sizeof(struct kp_mappings));
}

void kp_mappings_free(struct kp_mappings *maps)
{
    free(maps);
}

enum kp_err kp_mappings_add(struct kp_mappings *maps, struct kp_str name, struct kp_str templates, struct kp_error *e)
{
    struct kp_gcode_line line;
    char shown[KP_NAME_MAX];
    struct mapping *row = &maps->rows[maps->count];
    kp_str_clean(shown, name);
    if (kp_gcode_parse(name, &line, NULL) != KP_OK || line.command_count != 1 || line.word_count != 0 || line.commands[0].name_size != name.n)
        return kp_error_set(e, KP_INVALID_PARAMETER, shown, "\"%s\" is no name of a command", shown);
    if (modal_known(&line, &line.commands[0]))
        return kp_error_set(e, KP_INVALID_PARAMETER, shown, "%s has a meaning of its own", shown);
    if (mapping_find(maps, &line, &line.commands[0]))
        return kp_error_set(e, KP_INVALID_PARAMETER, shown, "%s is mapped twice", shown);
    if (maps->count == KP_MAPPINGS_MAX)
        return kp_error_set(e, KP_INVALID_PARAMETER, shown, "more than %d mapped commands", KP_MAPPINGS_MAX);
    *row = (struct mapping){ .letter = line.commands[0].letter, .code = line.commands[0].code };
    kp_str_clean(row->name, kp_gcode_name(&line, &line.commands[0]));
    templates = trim(templates);
    bool list = templates.n > 1 && templates.p[0] == '[' && templates.p[templates.n - 1] == ']';
    enum kp_err rc = list ? list_add(row, (struct kp_str){ templates.p + 1, templates.n - 2 }, e) : template_add(row, templates, e);
    if (rc == KP_OK && row->size == 0)
        rc = kp_error_set(e, KP_INVALID_PARAMETER, shown, "%s is mapped to nothing", shown);
    maps->count += rc == KP_OK;
    return rc;
}

enum kp_err kp_mappings_config(struct kp_mappings *maps, const struct kp_config *c, struct kp_faults *f)
{
    const char *name, *text = NULL;
    enum kp_err first = KP_OK;
    for (size_t i = 0; (name = kp_config_item(c, "gcode_driver", "command_mappings", i, &text)); i++) {
        struct kp_error e, named;
        enum kp_err rc = kp_mappings_add(maps, kp_str_of(name), kp_str_of(text), &e);
        if (rc == KP_OK)
            continue;
        kp_error_set(&named, rc, name, "[gcode_driver] command_mappings, %s: %s", name, e.message);
        kp_faults_add(f, &named);
        first = first == KP_OK ? rc : first;
    }
    return first;
}

/* ---- running ---- */

/* One template, filled: its commands are checked as the client's own would be. */
static enum kp_err template_run(struct kp_modal *g, struct fill *f, const char *template)
{
    char text[KP_LINE_MAX];
    struct kp_gcode_fault fault;
    struct kp_gcode_line shape;
    size_t n;
    enum kp_err rc = fill(f, template, text, &n);
    if (rc != KP_OK)
        return rc;
    if (kp_gcode_parse((struct kp_str){ text, n }, &g->expanded, &fault) != KP_OK)
        return MODAL_FAIL(g, NULL, fault.error.code, NULL, "its template: %s", fault.error.message);
    shape_parse(template, "1", &shape, NULL);
    if (!same_shape(&g->expanded, &shape)) /* a name where a number belongs: S{s} filled with "1G28" */
        return MODAL_FAIL(g, NULL, KP_INVALID_PARAMETER, NULL, "a value does not fit its template");
    g->outer = g->line;
    g->outer_command = g->command;
    g->line = &g->expanded;
    for (size_t i = 0; i < g->expanded.command_count && rc == KP_OK && g->failed == KP_OK; i++) {
        g->command = &g->expanded.commands[i];
        rc = modal_command(g);
    }
    g->line = g->outer;
    g->command = g->outer_command;
    g->outer = NULL;
    return rc;
}

bool modal_is_mapped(const struct kp_modal *g, const struct kp_gcode_line *line, const struct kp_gcode_command *c)
{
    return mapping_find(g->o.mappings, line, c) != NULL;
}

bool modal_mapped(struct kp_modal *g, enum kp_err *rc)
{
    const struct mapping *row = mapping_find(g->o.mappings, g->line, g->command);
    struct fill f = { .g = g, .line = g->line, .command = g->command };
    if (!row)
        return false;
    *rc = KP_OK;
    for (const char *at = row->text; at < row->text + row->size && *rc == KP_OK; at += strlen(at) + 1)
        *rc = template_run(g, &f, at);
    for (size_t i = 0; i < f.command->count && *rc == KP_OK; i++)
        if (!(f.used >> i & 1u)) {
            const struct kp_gcode_word *w = &g->line->words[f.command->first + i];
            char key[KP_NAME_MAX];
            kp_str_clean(key, kp_gcode_key(g->line, w));
            key[0] = upper(key[0]);
            *rc = MODAL_FAIL(g, w, KP_INVALID_PARAMETER, NULL, "%s takes no %s", row->name, key);
        }
    return true;
}
