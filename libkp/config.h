/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The option table as the parser sees it, and the inside of struct kp_config. Never installed; config.c, config_parse.c, options.c,
 * option.c and sample.c share it. */
#ifndef KP_CONFIG_H
#define KP_CONFIG_H

#include "machine.h"

/* Of axes beside X Y Z. E F N mean something else everywhere, G M T begin commands, I J K R are an arc's. */
#define AXIS_LETTERS "A|B|C|D|H|L|O|P|Q|S|U|V|W"
#define ROWS_MAX 40       /* options of one kind of section */
#define VALUE_MAX 8192    /* bytes of a value of several lines */

extern const struct kp_option kp_option_table[]; /* rows of one section stand together */
extern const size_t kp_option_count;

/* A kind of section; the order of the sample file and the docs. */
struct kp_section_kind {
    const char *pattern; /* "api", "nozzle *" */
    size_t max;          /* sections of this kind; 1 for those without a name */
    const char *example; /* name that the sample file shows; NULL: the section has none */
    const char *doc;
};
extern const struct kp_section_kind kp_section_kinds[];
extern const size_t kp_section_kind_count;

/* One option's value. A nested one and a list are texts one after the other, each with its 0: name, value, name, value... or word, word... */
struct kp_config_value {
    char *text;   /* ours; NULL: not set */
    size_t n;     /* without the last 0 */
    bool written; /* the file has a line for it */
    bool held;    /* the file has a value for it, also where the environment wins */
    bool env;     /* the environment set it: it stays */
};

struct kp_config_section {
    size_t first, count;    /* its rows in the table */
    char name[KP_NAME_MAX]; /* "N1"; empty for "api" */
    unsigned line;          /* of its header; 0: made by the environment */
    bool fresh;             /* opened by the present file and not yet checked as a whole */
    struct kp_config_value value[ROWS_MAX];
};

struct kp_config {
    struct kp_config_section *sections;
    size_t count, room;
};

/* config.c */
struct kp_config_section *kp_config_section_find(const struct kp_config *c, size_t first, struct kp_str name);
struct kp_config_section *kp_config_section_add(struct kp_config *c, size_t first, size_t count, struct kp_str name); /* NULL: out of memory */
/* Takes over a checked value; false when out of memory. */
bool kp_config_value_set(struct kp_config_value *v, struct kp_str text);

/* "nozzle *": sections of this kind carry a name; its kind: "nozzle". */
bool kp_option_named(const char *pattern);
struct kp_str kp_option_kind(const char *pattern);
/* First row of a kind of section and how many follow it; false when there is no such kind. */
bool kp_option_rows(struct kp_str kind, size_t *first, size_t *count);
/* The known name nearest to `name` (shorter than KP_NAME_MAX): an option of rows first.., or with count 0 a kind of section. */
void kp_option_nearest(char out[KP_NAME_MAX], const char *name, size_t first, size_t count);
/* The word of "a|b|c" that equals s in any case. */
bool kp_option_choice(const char *choices, struct kp_str s, struct kp_str *out);
/* Values of this type may go on in indented lines. */
bool kp_option_many(enum kp_type type);
/* Checks a value of one line against its row; *text becomes the spelling to keep: borrowed from the old one or from the table. */
enum kp_err kp_option_check(const struct kp_option *o, struct kp_str *text, struct kp_error *e);
/* The same for a value of several lines (joined by '\n', without comments); out gets what is kept, at most VALUE_MAX bytes, *n of them. */
enum kp_err kp_option_check_many(const struct kp_option *o, struct kp_str text, char out[VALUE_MAX], size_t *n, struct kp_error *e);
bool kp_str_equal(struct kp_str a, struct kp_str b);
bool kp_str_blank(char c);
struct kp_str kp_str_trim(struct kp_str s); /* without blanks and line ends at both sides */

#endif
