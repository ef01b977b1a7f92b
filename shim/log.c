/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Writes log lines for every room: one write a line, cut at LINE_MAX_BYTES, nothing from outside unescaped. The only state is set before the loop. */
#include "log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#define TEXT_MAX_BYTES 1024 /* of one event before escaping; the rest is cut and told by "..." */
#define ID_MAX_BYTES 160    /* of a request id; the rest is cut */
#define LINE_MAX_BYTES 8192 /* the longest escape is six bytes for one */

static const char *const level_names[] = { "debug", "info", "warning", "error", "critical" };

/* Constant once main has set it up. */
static struct { enum log_level lowest; bool json; const char *secrets[LOG_SECRETS_MAX]; size_t secret_count; } setup = { .lowest = LOG_INFO };

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

bool log_secret(const char *text)
{
    if (!text || strlen(text) < LOG_SECRET_MIN || setup.secret_count == LOG_SECRETS_MAX)
        return false;
    setup.secrets[setup.secret_count++] = text;
    return true;
}

bool log_wants(enum log_level level)
{
    return level >= setup.lowest;
}

static void hide_secrets(char *text)
{
    for (size_t i = 0; i < setup.secret_count; i++) {
        size_t n = strlen(setup.secrets[i]);
        for (char *at = text; (at = strstr(at, setup.secrets[i])); at += 3) {
            memcpy(at, "***", 3);
            memmove(at + 3, at + n, strlen(at + n) + 1);
        }
    }
}

static void put_head(struct line *l, enum log_level level, const char *component, const char *request_id)
{
    struct timespec now;
    char time[48];
    if (!setup.json) {
        put(l, level_names[level]);
        put(l, " ");
        put(l, component);
        if (request_id) put(l, " request_id=");
        if (request_id) put_escaped(l, request_id, false);
        put(l, " ");
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(time, sizeof time, "{\"time\":%lld.%03ld,\"level\":\"", (long long)now.tv_sec, now.tv_nsec / 1000000);
    put(l, time);
    put(l, level_names[level]);
    put(l, "\",\"component\":\"");
    put_escaped(l, component, true);
    if (request_id) put(l, "\",\"request_id\":\"");
    if (request_id) put_escaped(l, request_id, true);
    put(l, "\",\"text\":\"");
}

static void write_line(enum log_level level, const char *component, const char *request_id, const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));
static void write_line(enum log_level level, const char *component, const char *request_id, const char *fmt, va_list ap)
{
    char text[TEXT_MAX_BYTES], id[ID_MAX_BYTES];
    struct line l;
    int n = vsnprintf(text, sizeof text, fmt, ap);

    if (n < 0) return;
    l.n = 0;
    hide_secrets(text);
    if (request_id) snprintf(id, sizeof id, "%s", request_id);
    if (request_id) hide_secrets(id);
    put_head(&l, level, component, request_id ? id : NULL);
    put_escaped(&l, text, setup.json);
    if ((size_t)n >= sizeof text) put(&l, "...");
    put(&l, setup.json ? "\"}\n" : "\n");
    /* A log that cannot be written must not stop the machine. */
    if (write(STDERR_FILENO, l.text, l.n) < 0) return;
}

void log_line(enum log_level level, const char *component, const char *fmt, ...)
{
    va_list ap;
    if (!log_wants(level)) return;
    va_start(ap, fmt);
    write_line(level, component, NULL, fmt, ap);
    va_end(ap);
}

void log_request(enum log_level level, const char *component, const char *request_id, const char *fmt, ...)
{
    va_list ap;
    if (!log_wants(level)) return;
    va_start(ap, fmt);
    write_line(level, component, request_id, fmt, ap);
    va_end(ap);
}
