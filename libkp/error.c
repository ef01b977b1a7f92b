/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The error codes and the one way to make an error, for every module and for the edges. A message is always 0-ended, at most
 * KP_TEXT_MAX bytes, and never cut inside a UTF-8 character. */
#include "kp.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

static const struct { const char *name; int status; bool retryable; } codes[KP_ERR_COUNT] = {
#define KP_X(name, status, retry) [KP_##name] = { #name, status, retry },
    KP_ERRORS(KP_X)
#undef KP_X
};

/* Text under construction: what does not fit any more is dropped, and nothing shorter slips in behind it. */
struct text { char *at; size_t room; bool full; };

static void text_put(struct text *t, const char *s, size_t n)
{
    if (t->full)
        return;
    if (n > t->room) {
        n = t->room;
        t->full = true;
        while (n > 0 && ((unsigned char)s[n] & 0xC0u) == 0x80u)
            n--;
    }
    memcpy(t->at, s, n);
    t->at += n;
    t->room -= n;
}

static void text_string(struct text *t, const char *s)
{
    if (s)
        text_put(t, s, strlen(s));
}

static void text_number(struct text *t, double v)
{
    char digits[KP_NUMBER_MAX];
    size_t n = kp_number_print(digits, v, 6);
    if (n > 0)
        text_put(t, digits, n);
    else
        text_string(t, isnan(v) ? "no number" : v > 0 ? "a huge number" : "a huge negative number");
}

static void text_unsigned(struct text *t, uintmax_t v)
{
    char digits[24];
    size_t at = sizeof digits;
    do
        digits[--at] = (char)('0' + v % 10);
    while (v /= 10);
    text_put(t, digits + at, sizeof digits - at);
}

/* One conversion of a format; returns how many characters after the '%' it took. */
static size_t text_convert(struct text *t, const char *spec, va_list *args)
{
    switch (spec[0]) {
    case 's': text_string(t, va_arg(*args, const char *)); return 1;
    case 'g': text_number(t, va_arg(*args, double)); return 1;
    case 'u': text_unsigned(t, va_arg(*args, unsigned)); return 1;
    case '%': text_put(t, "%", 1); return 1;
    case 'd': {
        intmax_t v = va_arg(*args, int);
        if (v < 0)
            text_put(t, "-", 1);
        text_unsigned(t, (uintmax_t)(v < 0 ? -v : v));
        return 1;
    }
    default:
        assert(spec[0] == 'z' && spec[1] == 'u');
        text_unsigned(t, va_arg(*args, size_t));
        return 2;
    }
}

static void text_format(struct text *t, const char *fmt, va_list *args)
{
    while (*fmt) {
        const char *spec = strchr(fmt, '%');
        if (!spec) {
            text_string(t, fmt);
            return;
        }
        text_put(t, fmt, (size_t)(spec - fmt));
        fmt = spec + 1 + text_convert(t, spec + 1, args);
    }
}

static void error_start(struct kp_error *e, enum kp_err code, const char *field)
{
    struct text t = { e->field, sizeof e->field - 1, false };
    e->code = code;
    text_string(&t, field);
    *t.at = 0;
    e->got = e->min = e->max = NAN;
}

const char *kp_err_name(enum kp_err code)
{
    return (unsigned)code < KP_ERR_COUNT ? codes[code].name : "INTERNAL_ERROR";
}

int kp_err_status(enum kp_err code)
{
    return (unsigned)code < KP_ERR_COUNT ? codes[code].status : 500;
}

bool kp_err_retryable(enum kp_err code)
{
    return (unsigned)code < KP_ERR_COUNT && codes[code].retryable;
}

enum kp_err kp_error_set(struct kp_error *e, enum kp_err code, const char *field, const char *fmt, ...)
{
    struct kp_error made; /* an argument may be the old e->message */
    struct text t = { made.message, sizeof made.message - 1, false };
    va_list args;
    if (!e)
        return code;
    error_start(&made, code, field);
    va_start(args, fmt);
    text_format(&t, fmt, &args);
    va_end(args);
    *t.at = 0;
    *e = made;
    return code;
}

enum kp_err kp_error_range(struct kp_error *e, enum kp_err code, const char *field, const char *unit, double got, double min, double max)
{
    const char *name = field && *field ? field : "value", *gap = unit && *unit ? " " : "";
    bool low = isfinite(min), high = isfinite(max);
    if (!e)
        return code;
    if (!isfinite(got))
        kp_error_set(e, code, field, "%s must be a finite number", name);
    else if (low && high)
        kp_error_set(e, code, field, "%s is %g%s%s; allowed are %g to %g%s%s", name, got, gap, unit, min, max, gap, unit);
    else if (low)
        kp_error_set(e, code, field, "%s is %g%s%s; it must be at least %g%s%s", name, got, gap, unit, min, gap, unit);
    else if (high)
        kp_error_set(e, code, field, "%s is %g%s%s; it must be at most %g%s%s", name, got, gap, unit, max, gap, unit);
    else
        kp_error_set(e, code, field, "%s is %g%s%s, which is not allowed", name, got, gap, unit);
    e->got = got;
    e->min = low ? min : NAN;
    e->max = high ? max : NAN;
    return code;
}

enum kp_err kp_faults_add(struct kp_faults *f, const struct kp_error *e)
{
    if (f->count < KP_FAULTS_MAX)
        f->item[f->count++] = *e;
    else
        f->dropped++;
    return e->code;
}

enum kp_err kp_faults_code(const struct kp_faults *f)
{
    return f->count > 0 ? f->item[0].code : KP_OK;
}

const char *kp_version(void)
{
    return KP_VERSION; /* by the build */
}
