/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What gcode.c, gcode_stream.c and the modal rooms share: the bytes of a line by kind. Never installed. */
#ifndef KP_GCODE_H
#define KP_GCODE_H

#include "machine.h"

static inline bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

static inline bool is_alpha(char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26;
}

static inline bool is_name(char c)
{
    return is_alpha(c) || is_digit(c) || c == '_';
}

static inline bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* What may follow a name or value without a blank. */
static inline bool is_end(char c)
{
    return is_blank(c) || c == ';' || c == '(' || c == '*';
}

static inline char upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* gcode.c: the fault of a line that begins with text and is too long. fault may be NULL. */
void kp_gcode_fault_long(struct kp_str text, struct kp_gcode_fault *fault);

#endif
