/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The sample file and the documentation of klipperplace.cfg, printed from the option table for whoever takes the pieces. With every
 * "#" before a name or a bracket removed, the sample is a file that the parser reads. */
#include "config.h"

#include <math.h>
#include <string.h>

#define WIDTH 118 /* characters of a comment's line */

struct out { kp_write_fn *write; void *to; };

static void put(const struct out *o, const char *text)
{
    o->write(o->to, text, strlen(text));
}

static void put_str(const struct out *o, struct kp_str s)
{
    o->write(o->to, s.p, s.n);
}

static void put_number(const struct out *o, double v)
{
    char digits[KP_NUMBER_MAX];
    kp_number_print(digits, v, 6);
    put(o, digits);
}

/* The text as comment lines of at most WIDTH characters; *column is where the last line ends. */
static void put_wrapped(const struct out *o, const char *text, size_t *column)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        if (*column == 0 || *column + 1 + n > WIDTH) {
            put(o, *column ? "\n# " : "# ");
            *column = 2 + n;
        } else {
            put(o, " ");
            *column += 1 + n;
        }
        put_str(o, (struct kp_str){ text, n });
        text += n + (text[n] == ' ');
    }
}

static bool is_number(const struct kp_option *o)
{
    return o->type == KP_T_NUM || o->type == KP_T_INT;
}

/* "mm, 0 to 5", "text or json", ... as far as the row says. */
static void put_range(const struct out *o, const struct kp_option *row, const char *divider)
{
    if (row->choices) {
        for (const char *at = row->choices; *at; at += *at == '|') {
            size_t n = strcspn(at, "|");
            put_str(o, (struct kp_str){ at, n });
            at += n;
            put(o, *at ? divider : "");
        }
    } else if (is_number(row)) {
        put_number(o, row->min);
        put(o, " to ");
        put_number(o, row->max);
    }
}

static void put_default(const struct out *o, const struct kp_option *row)
{
    const char *text = row->def ? row->def : row->example;
    put(o, "#");
    put(o, row->name);
    put(o, text[0] == '\n' ? ":" : ": ");
    for (; *text; text++) {
        o->write(o->to, text, 1);
        if (*text == '\n')
            put(o, "#");
    }
    put(o, "\n");
}

static void sample_option(const struct out *o, const struct kp_option *row)
{
    size_t column = 0;
    put_wrapped(o, row->doc, &column);
    put(o, "\n");
    if (row->choices || is_number(row) || row->env) {
        put(o, "#   ");
        put_range(o, row, " | ");
        put(o, is_number(row) && row->unit[0] ? " " : "");
        put(o, is_number(row) ? row->unit : "");
        put(o, row->env && (row->choices || is_number(row)) ? "; " : "");
        put(o, row->env ? "environment: " : "");
        put(o, row->env ? row->env : "");
        put(o, "\n");
    }
    put_default(o, row);
}

void kp_config_sample(kp_write_fn *write, void *to)
{
    struct out o = { write, to };
    put(&o, "# KlipperPlace: klipperplace.cfg. Made from the table in libkp/options.c.\n"
            "# A line that begins with \"#\" and a name shows an option at its default, or an example where it has none:\n"
            "# remove the \"#\" to set it. All options are in docs/configuration.md.\n");
    for (size_t k = 0; k < kp_section_kind_count; k++) {
        const struct kp_section_kind *kind = &kp_section_kinds[k];
        size_t first = 0, count = 0, column = 0;
        kp_option_rows(kp_option_kind(kind->pattern), &first, &count);
        put(&o, "\n\n");
        put_wrapped(&o, kind->doc, &column);
        put(&o, kind->example ? "\n#[" : "\n[");
        put_str(&o, kp_option_kind(kind->pattern));
        put(&o, kind->example ? " " : "");
        put(&o, kind->example ? kind->example : "");
        put(&o, "]\n");
        for (size_t i = 0; i < count; i++)
            sample_option(&o, &kp_option_table[first + i]);
    }
}

/* ---- the documentation ---- */

static const char docs_head[] =
    "<!-- Made from the table in libkp/options.c. -->\n"
    "# klipperplace.cfg: every option\n\n"
    "The file has Klipper's syntax: `[section]`, `option: value` (or `=`), `#` and, after a blank, `;` begin a comment. A value of several\n"
    "lines goes on in indented ones. Names are `A-Z a-z 0-9 _`. `klipperplaced --check` reads the file, says all that is wrong\n"
    "with it at once, each with its line, and ends.\n\n"
    "An option's value is its default, unless the file sets it, unless its environment variable sets it. An unknown section or option is an\n"
    "error, as is a value out of its range: nothing is ignored. \"Klipper's\" as default means Klipper's own limit, and a limit\n"
    "is always the narrower of both.\n\n"
    "**Keys.** A file that holds a key must be readable by its owner alone (`chmod 600`), or KlipperPlace does not start. The environment is the\n"
    "other place for keys.\n\n"
    "**Zero configuration.** Without a file the machine is what Klipper says: X Y Z with their limits, every output, PWM and servo pin, fan,\n"
    "heater, button, switch, endstop and temperature by its name in printer.cfg. A machine without any `[nozzle]` has its vacuum on Klipper's\n"
    "`[fan]`: `vacuum/on` is `M106`, `vacuum/off` is `M107`, unless `[vacuum] output` names another pin or fan.\n";

static const char *type_name(enum kp_type type)
{
    static const char *const names[] = { "number", "whole number", "true or false", "text", "name", "list of words", "lines", "`NAME: text` lines" };
    return names[type];
}

/* A default in the table: its text, or in words where there is none. */
static void docs_default(const struct out *o, const struct kp_option *row)
{
    bool limit = strcmp(row->section, "safety") == 0;
    if (row->def)
        put(o, "`");
    put(o, row->def ? row->def : row->required ? "must be given" : limit ? "Klipper's" : "none");
    if (row->def)
        put(o, "`");
}

static void docs_option(const struct out *o, const struct kp_option *row)
{
    put(o, "| `");
    put(o, row->name);
    put(o, "` | ");
    put(o, row->choices ? "" : type_name(row->type));
    put(o, row->choices ? "" : row->unit[0] ? ", " : "");
    put(o, row->unit);
    put(o, row->choices || !is_number(row) ? "" : ", ");
    put_range(o, row, " \\| ");
    put(o, " | ");
    docs_default(o, row);
    put(o, row->env ? " | `" : " | ");
    put(o, row->env ? row->env : "");
    put(o, row->env ? "` | " : " | ");
    put(o, row->doc);
    put(o, row->secret ? " A key." : "");
    if (row->refused) {
        put(o, " Only `");
        put(o, row->only);
        put(o, "`: ");
        put(o, row->refused);
        put(o, ".");
    }
    put(o, " |\n");
}

void kp_config_docs(kp_write_fn *write, void *to)
{
    struct out o = { write, to };
    put(&o, docs_head);
    for (size_t k = 0; k < kp_section_kind_count; k++) {
        const struct kp_section_kind *kind = &kp_section_kinds[k];
        size_t first = 0, count = 0;
        kp_option_rows(kp_option_kind(kind->pattern), &first, &count);
        put(&o, "\n## [");
        put_str(&o, kp_option_kind(kind->pattern));
        put(&o, kind->example ? " NAME]\n\n" : "]\n\n");
        put(&o, kind->doc);
        if (kind->example) {
            put(&o, " At most ");
            put_number(&o, (double)kind->max);
            put(&o, ".");
        }
        put(&o, "\n\n| option | value | default | environment | meaning |\n|---|---|---|---|---|\n");
        for (size_t i = 0; i < count; i++)
            docs_option(&o, &kp_option_table[first + i]);
    }
}
