/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bytes into lines of G-code and lines into commands and words, for the G-code port and for whoever converts files. It knows
 * how a line is written, not what it means. Invariant: every place in a kp_gcode_line lies inside its text. */
#include "gcode.h"

#include <math.h>
#include <string.h>

#define CODE_DIGITS_MAX 4         /* digits of a G, M or T number */
#define NUMBER_DIGITS_MAX 9       /* digits of an N number */
#define EXACT_DIGITS 15           /* so many decimal digits fit a double exactly */
#define CHECKSUM_DIGITS_MAX 3

static const double powers[EXACT_DIGITS + 1] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15 };

struct scan {
    const char *p, *at, *end;
    struct kp_gcode_line *out;
    struct kp_gcode_fault *fault; /* may be NULL */
};

static uint16_t place(const struct scan *s, const char *at)
{
    return (uint16_t)(at - s->p);
}

/* Where a fault is: from there to the next blank. */
static void fault_place(struct scan *s, const char *from)
{
    const char *to = from;
    while (to < s->end && !is_blank(*to))
        to++;
    if (!s->fault)
        return;
    s->fault->column = (size_t)(from - s->p) + 1;
    kp_str_clean(s->fault->text, (struct kp_str){ from, (size_t)(to - from) });
}

#define BAD(s, from, ...) (fault_place(s, from), kp_error_set((s)->fault ? &(s)->fault->error : NULL, KP_INVALID_REQUEST, NULL, __VA_ARGS__))

static void blanks_skip(struct scan *s)
{
    while (s->at < s->end && is_blank(*s->at))
        s->at++;
}

/* A number at s->at; false: what stands there is none, and s->at is where it was. */
static bool number_scan(struct scan *s, double *out)
{
    const char *from = s->at, *at = from;
    bool minus = at < s->end && *at == '-';
    uint64_t m = 0;
    if (at < s->end && (*at == '-' || *at == '+'))
        at++;
    const char *digits = at;
    for (; at < s->end && is_digit(*at); at++)
        m = m * 10 + (uint64_t)(*at - '0');
    size_t count = (size_t)(at - digits), decimals = 0;
    if (at < s->end && *at == '.') {
        const char *part = ++at;
        for (; at < s->end && is_digit(*at); at++)
            m = m * 10 + (uint64_t)(*at - '0');
        decimals = (size_t)(at - part);
        count += decimals;
    }
    if (count == 0)
        return false;
    s->at = at;
    if (count > EXACT_DIGITS)
        return kp_number_parse((struct kp_str){ from, (size_t)(at - from) }, out);
    double v = (double)m / powers[decimals];
    *out = minus ? -v : v;
    return true;
}

/* ---- the parts of a line ---- */

/* "( ... )" at s->at. */
static enum kp_err comment_skip(struct scan *s)
{
    const char *close = memchr(s->at, ')', (size_t)(s->end - s->at));
    if (!close)
        return BAD(s, s->at, "the comment is not closed");
    s->at = close + 1;
    return KP_OK;
}

/* "*57" at s->at: the last of a line but for a comment. */
static enum kp_err checksum_check(struct scan *s)
{
    const char *star = s->at++;
    unsigned sum = 0, given = 0, digits = 0;
    enum kp_err rc;
    for (; s->at < s->end && is_digit(*s->at) && digits <= CHECKSUM_DIGITS_MAX; s->at++, digits++)
        given = given * 10 + (unsigned)(*s->at - '0');
    for (const char *c = s->p; c < star; c++)
        sum ^= (unsigned char)*c;
    if (digits == 0 || digits > CHECKSUM_DIGITS_MAX)
        return BAD(s, star, "a checksum is a number of 1 to %d digits", CHECKSUM_DIGITS_MAX);
    for (blanks_skip(s); s->at < s->end && *s->at == '('; blanks_skip(s))
        if ((rc = comment_skip(s)) != KP_OK)
            return rc;
    if (s->at < s->end && *s->at != ';')
        return BAD(s, s->at, "nothing follows a checksum");
    if (given != sum)
        return BAD(s, star, "the checksum says %u, the line's is %u", given, sum);
    s->at = s->end;
    return KP_OK;
}

/* Passes blanks and comments; *more: something follows that is none. Reads the checksum, too. */
static enum kp_err gap_skip(struct scan *s, bool *more)
{
    enum kp_err rc = KP_OK;
    for (;;) {
        blanks_skip(s);
        *more = s->at < s->end && *s->at != ';';
        if (!*more || (*s->at != '(' && *s->at != '*'))
            return KP_OK;
        rc = *s->at == '(' ? comment_skip(s) : checksum_check(s);
        if (rc != KP_OK)
            return rc;
    }
}

/* "N12" at the start of a line. */
static enum kp_err line_number(struct scan *s)
{
    const char *from = s->at++;
    int32_t v = 0;
    int digits = 0;
    blanks_skip(s);
    for (; s->at < s->end && is_digit(*s->at) && digits <= NUMBER_DIGITS_MAX; s->at++, digits++)
        v = digits < NUMBER_DIGITS_MAX ? v * 10 + (*s->at - '0') : v;
    if (digits == 0 || digits > NUMBER_DIGITS_MAX || (s->at < s->end && *s->at == '.'))
        return BAD(s, from, "a line number is a whole number of 1 to %d digits", NUMBER_DIGITS_MAX);
    s->out->number = v;
    return KP_OK;
}

static enum kp_err word_room(struct scan *s)
{
    return s->out->word_count < KP_LINE_WORDS_MAX ? KP_OK : BAD(s, s->at, "more than %d words on a line", KP_LINE_WORDS_MAX);
}

/* "G38.2" at s->at. */
static enum kp_err command_scan(struct scan *s, uint32_t *letters)
{
    const char *from = s->at++, *digits;
    uint32_t code = 0;
    blanks_skip(s);
    for (digits = s->at; s->at < s->end && is_digit(*s->at) && s->at - digits <= CODE_DIGITS_MAX; s->at++)
        code = code * 10 + (uint32_t)(*s->at - '0');
    size_t count = (size_t)(s->at - digits);
    if (count == 0 || count > CODE_DIGITS_MAX)
        return BAD(s, from, "%s needs a number of 1 to %d digits", (char[]){ upper(*from), 0 }, CODE_DIGITS_MAX);
    code *= 10;
    if (s->at < s->end && *s->at == '.') {
        if (++s->at < s->end && is_digit(*s->at))
            code += (uint32_t)(*s->at++ - '0');
        while (s->at < s->end && *s->at == '0')
            s->at++;
    }
    if (s->at < s->end && (is_digit(*s->at) || *s->at == '.'))
        return BAD(s, from, "the number of a command has one decimal at most");
    if (s->out->command_count == KP_LINE_COMMANDS_MAX)
        return BAD(s, from, "more than %d commands on a line", KP_LINE_COMMANDS_MAX);
    *letters = 0;
    s->out->commands[s->out->command_count++] = (struct kp_gcode_command){ .letter = upper(*from), .column = (uint16_t)(place(s, from) + 1),
        .code = code, .name = place(s, from), .name_size = (uint16_t)(s->at - from), .first = s->out->word_count };
    return KP_OK;
}

/* "X20.5" or "X" at s->at. */
static enum kp_err word_scan(struct scan *s, uint32_t *letters)
{
    const char *from = s->at;
    char letter = upper(*from);
    uint32_t bit = 1u << (letter - 'A');
    double v = NAN;
    enum kp_err rc;
    if (letter == 'N')
        return BAD(s, from, "a line number stands first");
    if (s->out->command_count == 0)
        return BAD(s, from, "%s without a command", (char[]){ letter, 0 });
    if (*letters & bit)
        return BAD(s, from, "%s is there twice", (char[]){ letter, 0 });
    if ((rc = word_room(s)) != KP_OK)
        return rc;
    s->at++;
    blanks_skip(s);
    const char *digits = s->at;
    bool number = number_scan(s, &v);
    if (s->at < s->end && (*s->at == '.' || *s->at == '+' || *s->at == '-'))
        return BAD(s, from, "%s takes one plain number", (char[]){ letter, 0 });
    *letters |= bit;
    s->out->commands[s->out->command_count - 1].count++;
    s->out->words[s->out->word_count++] = (struct kp_gcode_word){ .value = number ? v : NAN, .letter = letter, .column = (uint16_t)(place(s, from) + 1),
        .key = place(s, from), .key_size = 1, .text = place(s, digits), .text_size = (uint16_t)(s->at - digits) };
    return KP_OK;
}

static enum kp_err classic_scan(struct scan *s)
{
    uint32_t letters = 0;
    bool more;
    enum kp_err rc;
    while ((rc = gap_skip(s, &more)) == KP_OK && more) {
        char c = upper(*s->at);
        if (c == 'G' || c == 'M' || c == 'T')
            rc = command_scan(s, &letters);
        else if (is_alpha(c))
            rc = word_scan(s, &letters);
        else
            rc = BAD(s, s->at, c == '_' ? "a named command has its line for itself" : "neither command, word nor comment");
        if (rc != KP_OK)
            return rc;
    }
    return rc;
}

/* ---- named commands ---- */

/* A name at s->at, which is put in upper case in the line's text. */
static enum kp_err name_scan(struct scan *s, uint16_t *at, uint16_t *size)
{
    const char *from = s->at;
    while (s->at < s->end && is_name(*s->at)) {
        s->out->text[s->at - s->p] = upper(*s->at);
        s->at++;
    }
    *at = place(s, from);
    *size = (uint16_t)(s->at - from);
    if (*size == 0 || *size >= KP_NAME_MAX || is_digit(*from))
        return BAD(s, from, "a name has 1 to %d characters of A-Z 0-9 _ and begins with a letter", KP_NAME_MAX - 1);
    return KP_OK;
}

static bool control(char c)
{
    return (unsigned char)c < ' ' || c == 0x7f;
}

/* The value behind "=", in quotes or up to a blank. */
static enum kp_err value_scan(struct scan *s, struct kp_gcode_word *w)
{
    const char *from = s->at;
    if (from < s->end && (*from == '"' || *from == '\'')) {
        w->quote = *from;
        const char *close = memchr(from + 1, *from, (size_t)(s->end - from - 1));
        if (!close)
            return BAD(s, from, "the quotes are not closed");
        w->text = place(s, from + 1);
        s->at = close + 1;
        w->text_size = (uint16_t)(close - from - 1);
        if (s->at < s->end && !is_end(*s->at))
            return BAD(s, s->at, "a blank follows a value in quotes");
    } else {
        while (s->at < s->end && !is_blank(*s->at) && *s->at != ';' && *s->at != '*') {
            if (*s->at == '"' || *s->at == '\'' || *s->at == '(')
                return BAD(s, s->at, "such a value needs quotes");
            s->at++;
        }
        w->text = place(s, from);
        w->text_size = (uint16_t)(s->at - from);
    }
    for (size_t i = 0; i < w->text_size; i++)
        if (control(s->p[w->text + i]))
            return BAD(s, s->p + w->text + i, "a control character in a value");
    if (!kp_number_parse((struct kp_str){ s->p + w->text, w->text_size }, &w->value))
        w->value = NAN;
    return KP_OK;
}

static bool key_repeated(const struct kp_gcode_line *l, const struct kp_gcode_word *w)
{
    for (size_t i = 0; i < l->word_count; i++)
        if (l->words[i].key_size == w->key_size && memcmp(l->text + l->words[i].key, l->text + w->key, w->key_size) == 0)
            return true;
    return false;
}

static enum kp_err named_scan(struct scan *s)
{
    struct kp_gcode_command *c = &s->out->commands[0];
    const char *from = s->at;
    bool more;
    enum kp_err rc;
    *c = (struct kp_gcode_command){ .column = (uint16_t)(place(s, from) + 1) };
    if ((rc = name_scan(s, &c->name, &c->name_size)) != KP_OK)
        return rc;
    if (s->at < s->end && !is_end(*s->at))
        return BAD(s, s->at, "a blank follows the name of a command");
    s->out->command_count = 1;
    while ((rc = gap_skip(s, &more)) == KP_OK && more) {
        struct kp_gcode_word w = { .column = (uint16_t)(place(s, s->at) + 1) };
        from = s->at;
        if ((rc = word_room(s)) != KP_OK || (rc = name_scan(s, &w.key, &w.key_size)) != KP_OK)
            return rc;
        if (s->at == s->end || *s->at++ != '=')
            return BAD(s, from, "a parameter is written KEY=value");
        if ((rc = value_scan(s, &w)) != KP_OK)
            return rc;
        if (key_repeated(s->out, &w))
            return BAD(s, from, "this parameter is there twice");
        s->out->words[s->out->word_count++] = w;
        c->count++;
    }
    return rc;
}

/* ---- a line ---- */

void kp_gcode_fault_long(struct kp_str text, struct kp_gcode_fault *fault)
{
    if (!fault)
        return;
    fault->column = KP_LINE_MAX + 1;
    kp_str_clean(fault->text, text);
    kp_error_set(&fault->error, KP_INVALID_REQUEST, NULL, "the line is longer than %d bytes", KP_LINE_MAX);
}

enum kp_err kp_gcode_parse(struct kp_str text, struct kp_gcode_line *out, struct kp_gcode_fault *fault)
{
    struct scan s = { text.p, text.p, text.p + text.n, out, fault };
    bool more;
    enum kp_err rc;
    if (text.n > KP_LINE_MAX) {
        kp_gcode_fault_long(text, fault);
        return KP_INVALID_REQUEST;
    }
    out->number = -1;
    out->size = (uint16_t)text.n;
    out->command_count = out->word_count = 0;
    if (text.n > 0)
        memcpy(out->text, text.p, text.n);
    if ((rc = gap_skip(&s, &more)) != KP_OK || !more)
        return rc;
    if (upper(*s.at) == 'N' && s.at + 1 < s.end && (is_digit(s.at[1]) || is_blank(s.at[1]))) {
        if ((rc = line_number(&s)) != KP_OK || (rc = gap_skip(&s, &more)) != KP_OK || !more)
            return rc;
    }
    if (*s.at == '_' || (is_alpha(*s.at) && s.at + 1 < s.end && (is_alpha(s.at[1]) || s.at[1] == '_')))
        return named_scan(&s);
    return classic_scan(&s);
}

struct kp_str kp_gcode_key(const struct kp_gcode_line *line, const struct kp_gcode_word *w)
{
    return (struct kp_str){ line->text + w->key, w->key_size };
}

struct kp_str kp_gcode_text(const struct kp_gcode_line *line, const struct kp_gcode_word *w)
{
    return (struct kp_str){ line->text + w->text, w->text_size };
}

struct kp_str kp_gcode_name(const struct kp_gcode_line *line, const struct kp_gcode_command *c)
{
    return (struct kp_str){ line->text + c->name, c->name_size };
}

/* ---- a line written back ---- */

struct print { char *out; size_t n; bool fits; };

static void put(struct print *p, const char *text, size_t n)
{
    p->fits = p->fits && n <= KP_LINE_MAX - p->n;
    if (!p->fits)
        return;
    memcpy(p->out + p->n, text, n);
    p->n += n;
}

static void put_unsigned(struct print *p, uint32_t v)
{
    char digits[KP_NUMBER_MAX];
    put(p, digits, kp_number_print(digits, v, 0));
}

static void put_word(struct print *p, const struct kp_gcode_line *l, const struct kp_gcode_word *w)
{
    if (w->letter) {
        put(p, &w->letter, 1);
    } else {
        put(p, l->text + w->key, w->key_size);
        put(p, "=", 1);
    }
    put(p, &w->quote, w->quote != 0);
    put(p, l->text + w->text, w->text_size);
    put(p, &w->quote, w->quote != 0);
}

/* gaps: blanks where a reader wants them, not only where the line needs them. */
static void print_line(struct print *p, const struct kp_gcode_line *l, bool gaps)
{
    if (l->number >= 0) {
        put(p, "N", 1);
        put_unsigned(p, (uint32_t)l->number);
    }
    for (size_t i = 0; i < l->command_count; i++) {
        const struct kp_gcode_command *c = &l->commands[i];
        put(p, " ", gaps && p->n > 0);
        if (c->letter) {
            put(p, &c->letter, 1);
            put_unsigned(p, c->code / 10);
            if (c->code % 10)
                put(p, (char[]){ '.', (char)('0' + c->code % 10) }, 2);
        } else {
            put(p, l->text + c->name, c->name_size);
        }
        for (size_t j = 0; j < c->count; j++) {
            put(p, " ", gaps || !c->letter);
            put_word(p, l, &l->words[c->first + j]);
        }
    }
}

size_t kp_gcode_print(const struct kp_gcode_line *line, char *out)
{
    struct print p = { out, 0, true };
    print_line(&p, line, true);
    if (!p.fits) {
        p = (struct print){ out, 0, true };
        print_line(&p, line, false); /* no longer than the line was */
    }
    out[p.n] = 0;
    return p.n;
}
