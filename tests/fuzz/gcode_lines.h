/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A client's bytes through parser and meaning, for the fuzz targets gcode and template. Whatever comes, a line that parses parses again when written
 * back, no script leaves the limits or holds a byte that we do not write, and a bad line gives nothing. */
#ifndef GCODE_LINES_H
#define GCODE_LINES_H

#include "../unit/gcode_fixture.h"
#include "../unit/gcode_same.h"
#include "require.h"

/* The number behind a letter of a G1 line; NAN: the line has none. */
static inline double word_of(const char *l, char letter)
{
    for (; *l && *l != '\n'; l++)
        if (l[0] == ' ' && l[1] == letter)
            return strtod(l + 2, NULL);
    return NAN;
}

static inline void require_moves(const char *text)
{
    for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
        if (strncmp(l, "G1 ", 3) != 0)
            continue;
        double x = word_of(l, 'X'), y = word_of(l, 'Y'), z = word_of(l, 'Z'), f = word_of(l, 'F');
        require(!(x < 0 || x > 300 || y < 0 || y > 200 || z < -32 || z > 32) && f > 0 && f <= 30000);
    }
}

static inline void fuzz_actions(struct gcode_rig *r, bool good)
{
    struct kp_gcode_action a;
    bool resync = false;
    while (kp_modal_next(r->g, &a)) {
        require(good);
        if (a.text) {
            require_script(a.text, KP_SCRIPT_MAX);
            require_moves(a.text);
        }
        for (int i = 0; i < 3; i++)
            require(isnan(a.target[i]) || (a.target[i] >= -32 && a.target[i] <= 300));
        rig_done(r, &a);
        resync = resync || a.resync;
    }
    if (resync)
        kp_modal_sync(r->g);
}

static inline void fuzz_line(struct gcode_rig *r, const struct kp_gcode_line *line)
{
    char text[KP_LINE_MAX + 1];
    static struct kp_gcode_line again;
    struct kp_gcode_fault fault;
    size_t n = kp_gcode_print(line, text);
    require(n <= KP_LINE_MAX && kp_gcode_parse((struct kp_str){ text, n }, &again, NULL) == KP_OK && line_same(line, &again));
    enum kp_err rc = kp_modal_line(r->g, line, &fault);
    if (rc != KP_OK)
        require(fault.column >= 1 && fault.column <= KP_LINE_MAX + 1 && fault.error.code == rc && fault.error.message[0]);
    fuzz_actions(r, rc == KP_OK);
}

static inline void fuzz_stream(struct gcode_rig *r, const char *bytes, size_t size, size_t piece)
{
    static struct kp_gcode_line line;
    struct kp_gcode_reader reader = { .size = 0 };
    struct kp_gcode_fault fault;
    for (size_t at = 0; at < size; at += piece) {
        struct kp_str in = { bytes + at, piece < size - at ? piece : size - at };
        enum kp_gcode_event ev;
        while ((ev = kp_gcode_feed(&reader, &in, &line, &fault)) != KP_GCODE_MORE) {
            if (ev == KP_GCODE_LINE)
                fuzz_line(r, &line);
            if (ev == KP_GCODE_BAD)
                require(fault.column >= 1 && fault.column <= KP_LINE_MAX + 1 && fault.error.message[0]);
        }
    }
}

/* A machine by the low bits of a byte: 0-3 which, 4 with a Klipper that draws arcs. */
static inline void fuzz_open(struct gcode_rig *r, uint8_t which)
{
    static const char *const names[] = { "plain", "file", "openpnp", "passing" };
    static const char *const arcs[] = { "G2", "G3", "G17", "G18", "G19" };
    require(rig_open(r, names[which & 3]));
    for (size_t i = 0; (which & 4) && i < sizeof arcs / sizeof *arcs; i++)
        kp_machine_command(r->m, kp_str_of(arcs[i]));
    kp_modal_restart(r->g);
}

#endif
