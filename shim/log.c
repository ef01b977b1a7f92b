/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Writes log lines for every room: one write a line, cut at LINE_MAX_BYTES, nothing from outside unescaped. The only state is set before the loop. */
#include "log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX_BYTES 1024 /* of one event before escaping; the rest is cut and told by "..." */
#define LINE_MAX_BYTES 8192 /* the longest escape is six bytes for one */

static const char *const level_names[] = { "debug", "info", "warning", "error", "critical" };

/* Constant after log_setup. */
static struct { enum log_level lowest; bool json; } setup = { LOG_INFO, false };

struct line { char text[LINE_MAX_BYTES]; size_t n; };

static void put(struct line *l, const char *s)
{
    while (*s && l->n < sizeof l->text - 1) l->text[l->n++] = *s++;
}

/* Adds s with everything escaped that could end the line, leave the JSON string or move a terminal's cursor. */
static void put_escaped(struct line *l, const char *s, bool json)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char e[8];
        if (c < 0x20 || c > 0x7e) snprintf(e, sizeof e, json ? "\\u%04x" : "\\x%02x", c);
        else if (c == '\\' || (json && c == '"')) snprintf(e, sizeof e, "\\%c", c);
        else snprintf(e, sizeof e, "%c", c);
        put(l, e);
    }
}

void log_setup(enum log_level lowest, bool json)
{
    setup.lowest = lowest;
    setup.json = json;
}

bool log_level_parse(const char *text, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++)
        if (!strcasecmp(text, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    return false;
}

void log_line(enum log_level level, const char *room, const char *fmt, ...)
{
    char text[TEXT_MAX_BYTES];
    struct line l = { .n = 0 };
    va_list ap;
    int n;

    if (level < setup.lowest) return;
    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n < 0) return;
    if (setup.json) {
        struct timespec now;
        char head[64];
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(head, sizeof head, "{\"time\":%lld.%03ld,\"level\":\"", (long long)now.tv_sec, now.tv_nsec / 1000000);
        put(&l, head);
        put(&l, level_names[level]);
        put(&l, "\",\"room\":\"");
        put_escaped(&l, room, true);
        put(&l, "\",\"text\":\"");
    } else {
        put(&l, level_names[level]);
        put(&l, " ");
        put(&l, room);
        put(&l, " ");
    }
    put_escaped(&l, text, setup.json);
    if ((size_t)n >= sizeof text) put(&l, "...");
    put(&l, setup.json ? "\"}\n" : "\n");
    /* A log that cannot be written must not stop the machine. */
    if (write(STDERR_FILENO, l.text, l.n) < 0) return;
}
