/* SPDX-License-Identifier: GPL-3.0-or-later */
/* When two lines of G-code say the same, for test_gcode and the fuzz target: all but the places in their texts. */
#ifndef GCODE_SAME_H
#define GCODE_SAME_H

#include "kp.h"

#include <string.h>

static inline bool str_same(struct kp_str a, struct kp_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool word_same(const struct kp_gcode_line *a, const struct kp_gcode_word *v, const struct kp_gcode_line *b, const struct kp_gcode_word *w)
{
    bool number = v->value == v->value;
    if (v->letter != w->letter || v->quote != w->quote || number != (w->value == w->value) || (number && v->value != w->value))
        return false;
    return v->letter || (str_same(kp_gcode_key(a, v), kp_gcode_key(b, w)) && str_same(kp_gcode_text(a, v), kp_gcode_text(b, w)));
}

static inline bool line_same(const struct kp_gcode_line *a, const struct kp_gcode_line *b)
{
    if (a->number != b->number || a->command_count != b->command_count || a->word_count != b->word_count)
        return false;
    for (size_t i = 0; i < a->command_count; i++) {
        const struct kp_gcode_command *c = &a->commands[i], *d = &b->commands[i];
        if (c->letter != d->letter || c->code != d->code || c->first != d->first || c->count != d->count)
            return false;
        if (!c->letter && !str_same(kp_gcode_name(a, c), kp_gcode_name(b, d)))
            return false;
    }
    for (size_t i = 0; i < a->word_count; i++)
        if (!word_same(a, &a->words[i], b, &b->words[i]))
            return false;
    return true;
}

#endif
