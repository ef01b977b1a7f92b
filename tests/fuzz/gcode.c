/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fuzz target of G-code: any bytes as a client's stream, in pieces, through parser and meaning; and as a template of command_mappings with what fills it.
 * Whatever comes, a line that parses parses again when written back, no script leaves the limits or holds a byte that we do not write, and a bad line
 * gives nothing. The first byte chooses the machine and the size of the pieces. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "../unit/gcode_fixture.h"
#include "../unit/gcode_same.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* The number behind a letter of a G1 line; NAN: the line has none. */
static double word_of(const char *l, char letter)
{
    for (; *l && *l != '\n'; l++)
        if (l[0] == ' ' && l[1] == letter)
            return strtod(l + 2, NULL);
    return NAN;
}

static void check_script(const char *text)
{
    size_t size = strlen(text);
    require(size > 0 && size < KP_SCRIPT_MAX);
    for (size_t i = 0; i < size; i++)
        require((text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9') || strchr(" \n._=-", text[i]));
    for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
        require(*l >= 'A' && *l <= 'Z');
        if (strncmp(l, "G1 ", 3) != 0)
            continue;
        double x = word_of(l, 'X'), y = word_of(l, 'Y'), z = word_of(l, 'Z'), f = word_of(l, 'F');
        require(!(x < 0 || x > 300 || y < 0 || y > 200 || z < -32 || z > 32) && f > 0 && f <= 30000);
    }
}

static void actions(struct gcode_rig *r, bool good)
{
    struct kp_gcode_action a;
    bool resync = false;
    while (kp_modal_next(r->g, &a)) {
        require(good);
        if (a.text)
            check_script(a.text);
        for (int i = 0; i < 3; i++)
            require(isnan(a.target[i]) || (a.target[i] >= -32 && a.target[i] <= 300));
        rig_done(r, &a);
        resync = resync || a.resync;
    }
    if (resync)
        kp_modal_sync(r->g);
}

static void take_line(struct gcode_rig *r, const struct kp_gcode_line *line)
{
    char text[KP_LINE_MAX + 1];
    static struct kp_gcode_line again;
    struct kp_gcode_fault fault;
    size_t n = kp_gcode_print(line, text);
    require(n <= KP_LINE_MAX && kp_gcode_parse((struct kp_str){ text, n }, &again, NULL) == KP_OK && line_same(line, &again));
    enum kp_err rc = kp_modal_line(r->g, line, &fault);
    if (rc != KP_OK)
        require(fault.column >= 1 && fault.column <= KP_LINE_MAX + 1 && fault.error.code == rc && fault.error.message[0]);
    actions(r, rc == KP_OK);
}

static void stream(struct gcode_rig *r, const char *bytes, size_t size, size_t piece)
{
    static struct kp_gcode_line line;
    struct kp_gcode_reader reader = { .size = 0 };
    struct kp_gcode_fault fault;
    for (size_t at = 0; at < size; at += piece) {
        struct kp_str in = { bytes + at, piece < size - at ? piece : size - at };
        enum kp_gcode_event ev;
        while ((ev = kp_gcode_feed(&reader, &in, &line, &fault)) != KP_GCODE_MORE) {
            if (ev == KP_GCODE_LINE)
                take_line(r, &line);
            if (ev == KP_GCODE_BAD)
                require(fault.column >= 1 && fault.column <= KP_LINE_MAX + 1 && fault.error.message[0]);
        }
    }
}

/* The first line as a template, the others as calls of it. */
static void template(struct gcode_rig *r, const char *bytes, size_t size)
{
    const char *end = size ? memchr(bytes, '\n', size) : NULL;
    size_t n = end ? (size_t)(end - bytes) : size;
    struct kp_error e;
    if (kp_mappings_add(r->maps, kp_str_of("FUZZ"), (struct kp_str){ bytes, n }, &e) != KP_OK)
        require(e.message[0]);
    if (end)
        stream(r, end + 1, size - n - 1, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gcode_rig r;
    if (size == 0)
        return 0;
    static const char *const names[] = { "plain", "file", "openpnp", "passing" };
    const char *bytes = (const char *)data + 1;
    require(rig_open(&r, names[data[0] & 3]));
    if (data[0] & 4) /* Klipper that draws arcs */
        for (size_t i = 0; i < 5; i++)
            kp_machine_command(r.m, kp_str_of(((const char *const[]){ "G2", "G3", "G17", "G18", "G19" })[i]));
    kp_modal_restart(r.g);
    if (data[0] & 8)
        template(&r, bytes, size - 1);
    else
        stream(&r, bytes, size - 1, data[0] & 16 ? 1 + (data[0] >> 5) : size);
    rig_close(&r);
    return 0;
}
