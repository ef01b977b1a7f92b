/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the rows of the option table allow: look-up by name, the nearest known name, the check of a value. A text that passes is
 * kept in one spelling, so that nobody reads it a second way. */
#include "config.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define PAIRS_MAX 64 /* entries of a nested option, words of a list */

/* ---- the table ---- */

bool kp_option_named(const char *pattern)
{
    return strchr(pattern, '*') != NULL;
}

struct kp_str kp_option_kind(const char *pattern)
{
    const char *blank = strchr(pattern, ' ');
    return (struct kp_str){ pattern, blank ? (size_t)(blank - pattern) : strlen(pattern) };
}

bool kp_str_equal(struct kp_str a, struct kp_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* First row of a kind of section and how many follow it; false when there is no such kind. */
bool kp_option_rows(struct kp_str kind, size_t *first, size_t *count)
{
    for (size_t i = 0; i < kp_option_count; i++) {
        if (!kp_str_equal(kp_option_kind(kp_option_table[i].section), kind))
            continue;
        *first = i;
        for (*count = 0; i < kp_option_count && kp_str_equal(kp_option_kind(kp_option_table[i].section), kind); i++)
            ++*count;
        assert(*count <= ROWS_MAX);
        return true;
    }
    return false;
}

/* How many edits make a of b; both shorter than KP_NAME_MAX. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[KP_NAME_MAX], n = strlen(b);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t above = row[j + 1], best = corner + (a[i] != b[j]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            corner = above;
            row[j + 1] = best;
        }
    }
    return row[n];
}

/* The known name nearest to `name`: an option of rows first.., or with count 0 a kind of section. */
void kp_option_nearest(char out[KP_NAME_MAX], const char *name, size_t first, size_t count)
{
    size_t best = SIZE_MAX;
    for (size_t i = count ? first : 0; i < (count ? first + count : kp_option_count); i++) {
        char known[KP_NAME_MAX];
        bool fits = kp_str_copy(known, count ? kp_str_of(kp_option_table[i].name) : kp_option_kind(kp_option_table[i].section));
        size_t far = fits ? edit_distance(name, known) : SIZE_MAX;
        if (far < best) {
            best = far;
            memcpy(out, known, sizeof known);
        }
    }
}

/* ---- values ---- */

bool kp_str_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

struct kp_str kp_str_trim(struct kp_str s)
{
    while (s.n > 0 && (kp_str_blank(s.p[s.n - 1]) || s.p[s.n - 1] == '\n'))
        s.n--;
    while (s.n > 0 && (kp_str_blank(s.p[0]) || s.p[0] == '\n'))
        s.p++, s.n--;
    return s;
}

static bool utf8_ok(struct kp_str s, bool lines)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i++];
        unsigned more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;
        if ((c < ' ' && !(lines && (c == '\n' || c == '\t'))) || c == 0x7f || more > s.n - i)
            return false;
        unsigned char next = more ? (unsigned char)s.p[i] : 0x80;
        if ((c == 0xe0 && next < 0xa0) || (c == 0xed && next > 0x9f) || (c == 0xf0 && next < 0x90) || (c == 0xf4 && next > 0x8f))
            return false;
        for (; more > 0; more--, i++)
            if (((unsigned char)s.p[i] & 0xc0u) != 0x80u)
                return false;
    }
    return true;
}

/* The word of "a|b|c" that equals s in any case. */
bool kp_option_choice(const char *choices, struct kp_str s, struct kp_str *out)
{
    for (const char *at = choices;; at++) {
        size_t n = strcspn(at, "|");
        char word[KP_NAME_MAX];
        *out = (struct kp_str){ at, n };
        if (kp_str_copy(word, *out) && kp_str_same(s, word))
            return true;
        at += n;
        if (!*at)
            return false;
    }
}

static bool bool_parse(struct kp_str s, bool *out)
{
    static const char *const words[2][4] = { { "false", "no", "off", "0" }, { "true", "yes", "on", "1" } };
    for (size_t i = 0; i < 8; i++)
        if (kp_str_same(s, words[i / 4][i % 4])) {
            *out = i >= 4;
            return true;
        }
    return false;
}

static enum kp_err only_check(const struct kp_option *o, struct kp_str text, struct kp_error *e)
{
    double v, only;
    bool number = o->type == KP_T_NUM || o->type == KP_T_INT;
    if (!o->refused || kp_str_eq(text, o->only) || (number && kp_number_parse(text, &v) && kp_number_parse(kp_str_of(o->only), &only) && v == only))
        return KP_OK;
    return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: only \"%s\" is possible: %s", o->name, o->only, o->refused);
}

static enum kp_err number_check(const struct kp_option *o, const char *shown, struct kp_str text, struct kp_error *e)
{
    double v;
    if (!kp_number_parse(text, &v))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not a number", o->name, shown);
    if (o->type == KP_T_INT && fabs(v) < 1e15 && v != (double)(int64_t)v)
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not a whole number", o->name, shown);
    if (v < o->min || v > o->max)
        return kp_error_range(e, KP_INVALID_PARAMETER, o->name, o->unit, v, o->min, o->max);
    return KP_OK;
}

/* Checks a value against its row; *text becomes the spelling to keep. */
enum kp_err kp_option_check(const struct kp_option *o, struct kp_str *text, struct kp_error *e)
{
    char shown[KP_NAME_MAX];
    bool flag;
    kp_str_clean(shown, o->secret ? kp_str_of("***") : *text);
    if (text->n >= KP_TEXT_MAX)
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: longer than %d characters", o->name, KP_TEXT_MAX - 1);
    if (!utf8_ok(*text, false))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" holds a control character or is not UTF-8", o->name, shown);
    if (o->type == KP_T_NUM || o->type == KP_T_INT) {
        enum kp_err rc = number_check(o, shown, *text, e);
        if (rc != KP_OK)
            return rc;
        if (text->p[0] == '+')
            *text = (struct kp_str){ text->p + 1, text->n - 1 };
    }
    if (o->type == KP_T_BOOL) {
        if (!bool_parse(*text, &flag))
            return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is neither true nor false", o->name, shown);
        *text = kp_str_of(flag ? "true" : "false");
    }
    if (o->choices && !kp_option_choice(o->choices, *text, text))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is none of %s", o->name, shown, o->choices);
    if (o->type == KP_T_NAME && !kp_name_ok(*text))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not a name of A-Z a-z 0-9 _", o->name, shown);
    return only_check(o, *text, e);
}

/* ---- values of several lines ---- */

/* What is kept, under construction. */
struct kept { char *at; size_t n; bool full; };

static void kept_put(struct kept *k, struct kp_str s)
{
    if (k->full || s.n + 1 > VALUE_MAX - k->n) {
        k->full = true;
        return;
    }
    memcpy(k->at + k->n, s.p, s.n);
    k->n += s.n;
    k->at[k->n++] = 0;
}

/* The text up to the next '\n'; *rest is what follows it. */
static struct kp_str line_take(struct kp_str *rest)
{
    const char *end = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;
    struct kp_str line = { rest->p, end ? (size_t)(end - rest->p) : rest->n };
    size_t n = line.n + (end != NULL);
    *rest = (struct kp_str){ rest->p + n, rest->n - n };
    return line;
}

static enum kp_err list_check(const struct kp_option *o, struct kp_str text, struct kept *k, struct kp_error *e)
{
    size_t words = 0;
    for (size_t i = 0, from = 0; i <= text.n; i++) {
        if (i < text.n && text.p[i] != ',' && text.p[i] != '\n' && !kp_str_blank(text.p[i]))
            continue;
        struct kp_str word = { text.p + from, i - from };
        from = i + 1;
        if (word.n == 0)
            continue;
        if (word.n >= KP_TEXT_MAX || ++words > PAIRS_MAX)
            return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: more than %d words, or one longer than %d characters", o->name, PAIRS_MAX,
                                KP_TEXT_MAX - 1);
        kept_put(k, word);
    }
    return KP_OK;
}

static enum kp_err text_check(struct kp_str text, struct kept *k)
{
    bool first = true;
    for (text = kp_str_trim(text); text.n > 0; first = false) {
        struct kp_str line = kp_str_trim(line_take(&text));
        if (!first && k->n > 0 && !k->full)
            k->at[k->n - 1] = '\n';
        kept_put(k, line);
    }
    return KP_OK;
}

/* The value's end within text, which begins behind "NAME:": a bracket goes on over lines until it closes, outside quotes. */
static bool pair_value_end(struct kp_str text, size_t *end)
{
    char quote = 0;
    size_t i = 0, depth = 0;
    for (; i < text.n; i++) {
        char c = text.p[i];
        if (quote)
            quote = c == quote || c == '\n' ? 0 : quote;
        else if (c == '\'' || c == '"')
            quote = c;
        else if (c == '[')
            depth++;
        else if (c == ']' && depth > 0)
            depth--;
        else if (c == '\n' && depth == 0)
            break;
    }
    *end = i;
    return depth == 0;
}

static bool pair_seen(const struct kept *k, struct kp_str name)
{
    for (size_t i = 0; i < k->n;) {
        if (kp_str_same(name, k->at + i))
            return true;
        i += strlen(k->at + i) + 1;
        i += strlen(k->at + i) + 1;
    }
    return false;
}

static enum kp_err map_check(const struct kp_option *o, struct kp_str text, struct kept *k, struct kp_error *e)
{
    char shown[KP_NAME_MAX];
    for (size_t pairs = 0; (text = kp_str_trim(text)).n > 0; pairs++) {
        size_t n = 0, end;
        while (n < text.n && text.p[n] != ':' && text.p[n] != '=' && text.p[n] != '\n')
            n++;
        struct kp_str name = kp_str_trim((struct kp_str){ text.p, n });
        kp_str_clean(shown, name);
        if (n == text.n || text.p[n] == '\n' || !kp_name_ok(name))
            return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not \"NAME: value\"", o->name, shown);
        text = (struct kp_str){ text.p + n + 1, text.n - n - 1 };
        bool closed = pair_value_end(text, &end);
        struct kp_str value = kp_str_trim((struct kp_str){ text.p, end });
        if (!closed || value.n == 0)
            return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: %s %s", o->name, shown, closed ? "has no value" : "opens a bracket that nothing closes");
        if (pair_seen(k, name) || pairs == PAIRS_MAX)
            return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: %s %s", o->name, shown, pairs == PAIRS_MAX ? "is one too many" : "is there twice");
        kept_put(k, name);
        kept_put(k, value);
        text = (struct kp_str){ text.p + end, text.n - end };
    }
    return KP_OK;
}

bool kp_option_many(enum kp_type type)
{
    return type == KP_T_LIST || type == KP_T_TEXT || type == KP_T_MAP;
}

enum kp_err kp_option_check_many(const struct kp_option *o, struct kp_str text, char out[VALUE_MAX], size_t *n, struct kp_error *e)
{
    struct kept k = { out, 0, false };
    enum kp_err rc;
    if (!utf8_ok(text, true))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s holds a control character or is not UTF-8", o->name);
    rc = o->type == KP_T_LIST ? list_check(o, text, &k, e) : o->type == KP_T_MAP ? map_check(o, text, &k, e) : text_check(text, &k);
    if (rc == KP_OK && k.full)
        rc = kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: longer than %d characters", o->name, VALUE_MAX - 1);
    *n = k.n;
    return rc;
}
