/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Numbers and names as text, the same in every locale, for the configuration, requests and scripts. What is printed is always
 * plain decimal that Klipper reads back. */
#include "machine.h"

#include <math.h>
#include <string.h>

#define DIGITS_KEPT 18 /* significant digits that fit a uint64_t; a double holds 17 */

static const double small_powers[] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6 };

/* v * 10^exponent; within 1e22 one exact step, so that short decimals come out correctly rounded. */
static double scaled(double v, long exponent)
{
    for (; exponent >= 22; exponent -= 22)
        v *= 1e22;
    for (; exponent <= -22; exponent += 22)
        v /= 1e22;
    double power = 1;
    for (long i = exponent < 0 ? -exponent : exponent; i > 0; i--)
        power *= 10;
    return exponent < 0 ? v / power : v * power;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

bool kp_number_parse(struct kp_str s, double *out)
{
    uint64_t mantissa = 0;
    long exponent = 0, kept = 0;
    size_t i = s.n > 0 && (s.p[0] == '-' || s.p[0] == '+') ? 1 : 0, digits = 0;
    bool point = false;
    if (s.n > 1000)
        return false;
    for (; i < s.n; i++) {
        if (s.p[i] == '.' && !point) {
            point = true;
            continue;
        }
        if (!is_digit(s.p[i]))
            return false;
        digits++;
        if (kept < DIGITS_KEPT) {
            mantissa = mantissa * 10 + (uint64_t)(s.p[i] - '0');
            kept += mantissa > 0;
            exponent -= point;
        } else {
            exponent += !point;
        }
    }
    double v = mantissa > 0 ? scaled((double)mantissa, exponent) : 0;
    if (digits == 0 || !isfinite(v))
        return false;
    *out = s.p[0] == '-' ? -v : v;
    return true;
}

size_t kp_number_print(char *out, double v, int decimals)
{
    char digits[24];
    size_t n = 0, at = 0;
    int places = decimals < 0 ? 0 : decimals > 6 ? 6 : decimals;
    out[0] = 0;
    if (!isfinite(v) || fabs(v) >= 1e15)
        return 0;
    double size = fabs(v), power = small_powers[places];
    uint64_t whole = (uint64_t)size;
    uint64_t part = (uint64_t)((size - (double)whole) * power + 0.5);
    if (part >= (uint64_t)power) {
        part -= (uint64_t)power;
        whole++;
    }
    for (; places > 0 && part % 10 == 0; places--)
        part /= 10;
    if (v < 0 && (whole > 0 || part > 0))
        out[n++] = '-';
    for (int i = 0; i < places; i++, part /= 10)
        digits[at++] = (char)('0' + part % 10);
    if (places > 0)
        digits[at++] = '.';
    do
        digits[at++] = (char)('0' + whole % 10);
    while (whole /= 10);
    while (at > 0)
        out[n++] = digits[--at];
    out[n] = 0;
    return n;
}

/* One decimal of a fraction in binary, its highest word first. */
static char next_digit(uint32_t *words, size_t count)
{
    uint64_t carry = 0;
    for (size_t i = count; i-- > 0; carry >>= 32) {
        carry += (uint64_t)words[i] * 10;
        words[i] = (uint32_t)carry;
    }
    return (char)('0' + carry);
}

/* Cut behind DIGITS_KEPT digits: what is cut is less than 1e-17 of v, and half the way to the next double at least 5.5e-17. */
size_t kp_number_exact(char *out, double v)
{
    enum { WORDS = 34 }; /* a double's last bit is 2^-1074 */
    size_t n = kp_number_print(out, trunc(v), 0), seen = 0;
    double rest = fabs(v - trunc(v));
    if (n == 0 || rest == 0)
        return n;
    if (v < 0 && v > -1) {
        memcpy(out, "-0", 3);
        n = 2;
    }
    uint32_t words[WORDS];
    for (size_t i = 0; i < WORDS; i++) {
        rest *= 4294967296.0;
        words[i] = (uint32_t)rest;
        rest -= words[i];
    }
    for (size_t i = 0; i < n; i++)
        seen += seen > 0 || (out[i] >= '1' && out[i] <= '9');
    out[n++] = '.';
    for (; seen < DIGITS_KEPT; n++) {
        out[n] = next_digit(words, WORDS);
        seen += seen > 0 || out[n] > '0';
    }
    while (out[n - 1] == '0')
        n--;
    out[n] = 0;
    return n;
}

bool kp_name_ok(struct kp_str s)
{
    if (s.n == 0 || s.n >= KP_NAME_MAX)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!is_digit(c) && !(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '_')
            return false;
    }
    return true;
}

struct kp_str kp_str_of(const char *zero_ended)
{
    return (struct kp_str){ zero_ended, zero_ended ? strlen(zero_ended) : 0 };
}

bool kp_str_eq(struct kp_str s, const char *zero_ended)
{
    for (size_t i = 0; i < s.n; i++) /* most differ at once, and tables are searched by this for each request */
        if (!zero_ended[i] || zero_ended[i] != s.p[i])
            return false;
    return !zero_ended[s.n];
}

char kp_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool kp_str_same(struct kp_str s, const char *zero_ended)
{
    size_t n = strlen(zero_ended);
    if (s.n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (kp_lower(s.p[i]) != kp_lower(zero_ended[i]))
            return false;
    return true;
}

bool kp_str_starts(struct kp_str s, const char *prefix)
{
    size_t n = strlen(prefix);
    return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

bool kp_str_copy(char out[KP_NAME_MAX], struct kp_str s)
{
    if (s.n >= KP_NAME_MAX || (s.n > 0 && memchr(s.p, 0, s.n)))
        return false;
    if (s.n > 0)
        memcpy(out, s.p, s.n);
    out[s.n] = 0;
    return true;
}

const char *kp_str_clean(char out[KP_NAME_MAX], struct kp_str s)
{
    size_t n = s.n < KP_NAME_MAX ? s.n : KP_NAME_MAX - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = s.p[i] >= ' ' && s.p[i] <= '~' ? s.p[i] : '?';
    out[n] = 0;
    return out;
}
