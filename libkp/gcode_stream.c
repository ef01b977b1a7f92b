/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A stream of bytes into lines of G-code, for the G-code port. Invariant: an M112 is told as soon as the byte behind it is there,
 * and once a line, whatever becomes of the line. */
#include "gcode.h"

#include <string.h>

enum { IN_CODE, IN_COMMENT, IN_PARENS, IN_DOUBLE, IN_SINGLE }; /* kp_gcode_reader.mode */
enum { NO_MATCH, LETTER, IN_NAME, SEEN_M, SEEN_1, SEEN_11, SEEN_112 }; /* kp_gcode_reader.match */

/* How far M112 has come with one more byte of code. A name or value ("SET_M112", PIN=M112) is none. */
static unsigned char match_next(unsigned char match, char c)
{
    if (match == IN_NAME)
        return is_name(c) ? IN_NAME : c == '=' ? IN_NAME : NO_MATCH;
    if (is_alpha(c) || c == '_' || c == '=') {
        bool begun = match == LETTER || match == SEEN_M || c == '_' || c == '=';
        return begun ? IN_NAME : c == 'M' ? SEEN_M : LETTER;
    }
    switch (match) {
    case SEEN_M: return c == '1' ? SEEN_1 : c == '0' || is_blank(c) ? SEEN_M : NO_MATCH;
    case SEEN_1: return c == '1' ? SEEN_11 : NO_MATCH;
    case SEEN_11: return c == '2' ? SEEN_112 : NO_MATCH;
    default: return NO_MATCH;
    }
}

/* Steps over bytes of a line while looking for M112; returns how many were passed. *stop: the one behind them ends an M112. */
static size_t stop_scan(struct kp_gcode_reader *r, const char *p, size_t n, bool *stop)
{
    *stop = false;
    for (size_t i = 0; i < n; i++) {
        char c = upper(p[i]);
        if (r->mode != IN_CODE) {
            if ((r->mode == IN_PARENS && c == ')') || (r->mode == IN_DOUBLE && c == '"') || (r->mode == IN_SINGLE && c == '\''))
                r->mode = IN_CODE;
            continue;
        }
        if (r->match == SEEN_112 && !is_digit(c)) {
            r->match = NO_MATCH;
            *stop = true;
            return i;
        }
        r->match = match_next(r->match, c);
        if (c == ';' || c == '(' || c == '"' || c == '\'')
            r->mode = c == ';' ? IN_COMMENT : c == '(' ? IN_PARENS : c == '"' ? IN_DOUBLE : IN_SINGLE;
    }
    return n;
}

/* An M112 in a line that is whole: read as it was taken apart, or by its bytes when it could not be. */
static bool line_stops(struct kp_str text, enum kp_err rc, const struct kp_gcode_line *line)
{
    bool stop = false;
    for (size_t i = 0; rc == KP_OK && i < line->command_count; i++)
        stop = stop || (line->commands[i].letter == 'M' && line->commands[i].code == 1120);
    if (rc != KP_OK) {
        struct kp_gcode_reader fresh = { .size = 0 };
        stop_scan(&fresh, text.p, text.n, &stop);
        stop = stop || fresh.match == SEEN_112;
    }
    return stop;
}

static bool all_blank(struct kp_str s)
{
    size_t i = 0;
    while (i < s.n && is_blank(s.p[i]))
        i++;
    return i == s.n;
}

/* The end of a line, at in->p[0], is taken. */
static void line_done(struct kp_gcode_reader *r, struct kp_str *in)
{
    r->lines++;
    r->size = 0;
    r->too_long = r->stopped = false;
    r->mode = IN_CODE;
    r->match = NO_MATCH;
    r->after_cr = in->p[0] == '\r';
    in->p++, in->n--;
}

/* Keeps bytes of a line that has not ended yet. */
static void bytes_keep(struct kp_gcode_reader *r, const char *p, size_t n)
{
    size_t room = KP_LINE_MAX - r->size;
    r->too_long = r->too_long || n > room;
    n = n < room ? n : room;
    memcpy(r->text + r->size, p, n);
    r->size += n;
}

static size_t line_end(const char *p, size_t n)
{
    const char *lf = memchr(p, '\n', n);
    n = lf ? (size_t)(lf - p) : n;
    const char *cr = memchr(p, '\r', n);
    return cr ? (size_t)(cr - p) : n;
}

/* A whole line, its end at in->p[0]: what is to tell of it. KP_GCODE_MORE: nothing. */
static enum kp_gcode_event line_take(struct kp_gcode_reader *r, struct kp_str text, struct kp_str *in, struct kp_gcode_line *line, struct kp_gcode_fault *fault)
{
    if (!r->too_long && all_blank(text)) {
        line_done(r, in);
        return KP_GCODE_MORE;
    }
    enum kp_err rc = KP_INVALID_REQUEST;
    if (r->too_long)
        kp_gcode_fault_long(text, fault);
    else
        rc = kp_gcode_parse(text, line, fault);
    if (!r->stopped && (r->too_long ? r->match == SEEN_112 : line_stops(text, rc, line))) {
        r->stopped = true;
        return KP_GCODE_STOP;
    }
    line_done(r, in);
    return rc == KP_OK ? KP_GCODE_LINE : KP_GCODE_BAD;
}

enum kp_gcode_event kp_gcode_feed(struct kp_gcode_reader *r, struct kp_str *in, struct kp_gcode_line *line, struct kp_gcode_fault *fault)
{
    while (in->n > 0) {
        if (r->after_cr && in->p[0] == '\n')
            in->p++, in->n--;
        r->after_cr = false;
        bool stop = false, begun = r->size > 0 || r->too_long;
        size_t room = KP_LINE_MAX + 1 - r->size, window = in->n < room ? in->n : room, n = line_end(in->p, window);
        bool whole = n < window;
        struct kp_str text = { in->p, n };
        if (begun || !whole) {
            size_t taken = r->stopped ? n : stop_scan(r, in->p, n, &stop);
            bytes_keep(r, in->p, taken);
            in->p += taken, in->n -= taken;
            r->stopped = r->stopped || stop;
            if (stop)
                return KP_GCODE_STOP;
            if (!whole)
                continue;
            text = (struct kp_str){ r->text, r->size };
        }
        struct kp_str rest = { text.p == r->text ? in->p : in->p + n, text.p == r->text ? in->n : in->n - n };
        enum kp_gcode_event ev = line_take(r, text, &rest, line, fault);
        if (ev != KP_GCODE_STOP)
            *in = rest;
        if (ev != KP_GCODE_MORE)
            return ev;
    }
    return KP_GCODE_MORE;
}
