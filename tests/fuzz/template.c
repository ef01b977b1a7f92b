/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fuzz target of command_mappings: a template of any bytes, and lines that call it or another one. What fills a template is the client's text, so
 * gcode_lines.h holds every script to the bytes and limits that are ours. The first byte chooses the machine; the first line is the template of FUZZ, the
 * second line that of M950 where it begins with '|', the rest is the client's. */
#include "gcode_lines.h"

static struct kp_str take_line(struct kp_str *s)
{
    const char *end = s->n ? memchr(s->p, '\n', s->n) : NULL;
    struct kp_str line = { s->p, end ? (size_t)(end - s->p) : s->n };
    size_t gone = line.n + (end != NULL);
    *s = (struct kp_str){ s->p + gone, s->n - gone };
    return line;
}

static void add(struct gcode_rig *r, const char *name, struct kp_str template)
{
    struct kp_error e;
    if (kp_mappings_add(r->maps, kp_str_of(name), template, &e) != KP_OK)
        require(e.message[0] && memchr(e.message, 0, KP_TEXT_MAX));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gcode_rig r;
    if (size == 0)
        return 0;
    fuzz_open(&r, data[0]);
    struct kp_str left = { (const char *)data + 1, size - 1 };
    add(&r, "FUZZ", take_line(&left));
    if (left.n > 0 && left.p[0] == '|') {
        struct kp_str second = take_line(&left);
        add(&r, "M950", (struct kp_str){ second.p + 1, second.n - 1 });
    }
    fuzz_stream(&r, left.p, left.n, left.n ? left.n : 1);
    rig_close(&r);
    return 0;
}
