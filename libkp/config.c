/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The values of klipperplace.cfg and of the environment, for shim and extension. A value is kept only when its row's type, range
 * and choices allow it, so whoever asks later never checks again. */
#include "config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODE_OTHERS 066u /* of a file's mode: group and all others may read or write it */

/* ---- sections ---- */

bool kp_config_value_set(struct kp_config_value *v, struct kp_str text)
{
    char *copy = malloc(text.n + 1);
    if (!copy)
        return false;
    if (text.n > 0)
        memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    free(v->text);
    v->text = copy;
    v->n = text.n;
    return true;
}

struct kp_config_section *kp_config_section_find(const struct kp_config *c, size_t first, struct kp_str name)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->sections[i].first == first && kp_str_eq(name, c->sections[i].name))
            return &c->sections[i];
    return NULL;
}

struct kp_config_section *kp_config_section_add(struct kp_config *c, size_t first, size_t count, struct kp_str name)
{
    if (c->count == c->room) {
        size_t room = c->room ? 2 * c->room : 16;
        struct kp_config_section *more = realloc(c->sections, room * sizeof *more);
        if (!more)
            return NULL;
        c->sections = more;
        c->room = room;
    }
    struct kp_config_section *s = &c->sections[c->count];
    memset(s, 0, sizeof *s);
    s->first = first;
    s->count = count;
    if (!kp_str_copy(s->name, name))
        return NULL;
    c->count++;
    return s;
}

/* The row and, where it is set, the value that "nozzle N1" and "safe_z" name. NULL: no such row, or no such named section. */
static const struct kp_option *option_find(const struct kp_config *c, const char *section, const char *name, const struct kp_config_value **value)
{
    struct kp_str kind = kp_option_kind(section), given = kp_str_of(section + kind.n + (section[kind.n] == ' '));
    size_t first, count;
    if (!kp_option_rows(kind, &first, &count) || kp_option_named(kp_option_table[first].section) != (given.n > 0))
        return NULL;
    const struct kp_config_section *s = kp_config_section_find(c, first, given);
    if (!s && given.n > 0)
        return NULL;
    for (size_t i = 0; i < count; i++)
        if (strcmp(kp_option_table[first + i].name, name) == 0) {
            *value = s && s->value[i].text ? &s->value[i] : NULL;
            return &kp_option_table[first + i];
        }
    return NULL;
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
            free(c->sections[i].value[j].text);
    free(c->sections);
    free(c);
}

struct kp_config *kp_config_clone(const struct kp_config *c)
{
    struct kp_config *copy = kp_config_new();
    for (size_t i = 0; copy && i < c->count; i++) {
        const struct kp_config_section *from = &c->sections[i];
        struct kp_config_section *to = kp_config_section_add(copy, from->first, from->count, kp_str_of(from->name));
        bool ok = to != NULL;
        for (size_t j = 0; ok && j < from->count; j++)
            ok = !from->value[j].text || kp_config_value_set(&to->value[j], (struct kp_str){ from->value[j].text, from->value[j].n });
        if (!ok) {
            kp_config_free(copy);
            return NULL;
        }
        to->line = from->line;
    }
    return copy;
}

enum kp_err kp_config_env(struct kp_config *c, const char *variable, const char *text, struct kp_error *e)
{
    struct kp_str value = kp_str_of(text);
    struct kp_error why;
    size_t row = 0, first, count;
    while (row < kp_option_count && !(kp_option_table[row].env && strcmp(kp_option_table[row].env, variable) == 0))
        row++;
    if (row == kp_option_count)
        return kp_error_set(e, KP_NOT_FOUND, variable, "no option is set by %s", variable);
    if (value.n == 0)
        return KP_OK; /* set to nothing is not set */
    enum kp_err rc = kp_option_check(&kp_option_table[row], &value, &why);
    if (rc != KP_OK)
        return kp_error_set(e, rc, variable, "%s: %s", variable, why.message);
    kp_option_rows(kp_option_kind(kp_option_table[row].section), &first, &count);
    struct kp_config_section *s = kp_config_section_find(c, first, kp_str_of(""));
    if (!s)
        s = kp_config_section_add(c, first, count, kp_str_of(""));
    if (!s || !kp_config_value_set(&s->value[row - first], value))
        return kp_error_set(e, KP_INTERNAL_ERROR, variable, "out of memory");
    s->value[row - first].env = true;
    return KP_OK;
}

const char *kp_config_str(const struct kp_config *c, const char *section, const char *name)
{
    const struct kp_config_value *value = NULL;
    const struct kp_option *o = option_find(c, section, name, &value);
    if (!o || o->type == KP_T_MAP || o->type == KP_T_LIST)
        return NULL;
    return value ? value->text : o->def;
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

const char *kp_config_item(const struct kp_config *c, const char *section, const char *name, size_t i, const char **text)
{
    const struct kp_config_value *value = NULL;
    const struct kp_option *o = option_find(c, section, name, &value);
    if (!o || !value || (o->type != KP_T_MAP && o->type != KP_T_LIST))
        return NULL;
    for (size_t at = 0; at < value->n; i--) {
        const char *word = value->text + at, *mapped = NULL;
        at += strlen(word) + 1;
        if (o->type == KP_T_MAP) {
            mapped = value->text + at;
            at += strlen(mapped) + 1;
        }
        if (i == 0) {
            if (text)
                *text = mapped;
            return word;
        }
    }
    return NULL;
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

/* ---- what only the whole can tell ---- */

const char *kp_config_secret_exposed(const struct kp_config *c, unsigned mode)
{
    for (size_t i = 0; (mode & MODE_OTHERS) && i < c->count; i++)
        for (size_t j = 0; j < c->sections[i].count; j++)
            if (c->sections[i].value[j].held && kp_option_table[c->sections[i].first + j].secret)
                return kp_option_table[c->sections[i].first + j].name;
    return NULL;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0;
}

static enum kp_err refuse(struct kp_faults *f, const char *field, const char *text)
{
    struct kp_error e;
    kp_error_set(&e, KP_INVALID_PARAMETER, field, "%s", text);
    return kp_faults_add(f, &e);
}

enum kp_err kp_config_verify(const struct kp_config *c, struct kp_faults *f)
{
    enum kp_err rc = KP_OK;
    const struct kp_config_value *enabled = NULL;
    bool asks = kp_config_bool(c, "api", "api_key_enabled"), port = kp_config_bool(c, "gcode_port", "enabled");
    option_find(c, "api", "api_key_enabled", &enabled);
    if (kp_config_str(c, "api", "api_key") && !enabled)
        rc = refuse(f, "api_key", "[api] api_key is set, but nothing asks for it: say api_key_enabled: true or false");
    if (!asks && !kp_config_bool(c, "api", "allow_insecure") && !is_loopback(kp_config_str(c, "api", "host")))
        rc = refuse(f, "host", "[api] host can be reached from other machines and nothing asks for a key: set api_key_enabled: true, "
                               "or allow_insecure: true if that is meant");
    if (port && !kp_config_bool(c, "api", "allow_insecure") && !is_loopback(kp_config_str(c, "gcode_port", "host")))
        rc = refuse(f, "host", "[gcode_port] host can be reached from other machines and G-code knows no key: set [api] allow_insecure: true if that is meant");
    if (port && kp_config_num(c, "gcode_port", "port") == kp_config_num(c, "api", "port"))
        rc = refuse(f, "port", "[gcode_port] port and [api] port are the same");
    bool urls = kp_config_bool(c, "gcode_port", "actuator_urls");
    if (urls && !kp_config_str(c, "gcode_port", "actuator_token"))
        rc = refuse(f, "actuator_token", "[gcode_port] actuator_urls: true needs an actuator_token");
    if (urls && !is_loopback(kp_config_str(c, "api", "host")))
        rc = refuse(f, "actuator_urls", "[gcode_port] actuator_urls are served on a loopback address only; [api] host is another");
    return rc;
}
