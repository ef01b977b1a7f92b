/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The option table as the parser sees it. Never installed; config.c and options.c share it. */
#ifndef KP_CONFIG_H
#define KP_CONFIG_H

#include "machine.h"

#define AXIS_LETTERS "A|B|C|U|V|W"
#define ROWS_MAX 24 /* options of one kind of section */

extern const struct kp_option kp_option_table[]; /* rows of one section stand together */

/* "nozzle *": sections of this kind carry a name; its kind: "nozzle". */
bool kp_option_named(const char *pattern);
struct kp_str kp_option_kind(const char *pattern);
/* First row of a kind of section and how many follow it; false when there is no such kind. */
bool kp_option_rows(struct kp_str kind, size_t *first, size_t *count);
/* The known name nearest to `name` (shorter than KP_NAME_MAX): an option of rows first.., or with count 0 a kind of section. */
void kp_option_nearest(char out[KP_NAME_MAX], const char *name, size_t first, size_t count);
/* The word of "a|b|c" that equals s in any case. */
bool kp_option_choice(const char *choices, struct kp_str s, struct kp_str *out);
/* Checks a value against its row; *text becomes the spelling to keep: borrowed from the old one or from the table. */
enum kp_err kp_option_check(const struct kp_option *o, struct kp_str *text, struct kp_error *e);
bool kp_str_equal(struct kp_str a, struct kp_str b);

#endif
