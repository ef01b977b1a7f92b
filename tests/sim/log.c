/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The event log, read by tests and by people. One event is one line, complete when it is written. */
#include "log.h"

#include <inttypes.h>
#include <stdarg.h>

int log_open(struct log *l, const char *path)
{
    l->file = fopen(path, "we");
    return l->file ? 0 : -1;
}

void log_close(struct log *l)
{
    if (l->file) fclose(l->file);
    l->file = NULL;
    buf_fini(&l->line);
}

void log_flush(struct log *l)
{
    if (l->file) fflush(l->file);
}

void log_event(struct log *l, struct when at, const char *what, const char *fields, ...)
{
    char tail[512];
    va_list ap;

    va_start(ap, fields);
    vsnprintf(tail, sizeof tail, fields, ap);
    va_end(ap);
    l->line.n = 0;
    buf_printf(&l->line, "{\"t\":%" PRId64 ".%06" PRId64 ",\"clock\":%" PRIu64 ",\"what\":\"%s\"%s}\n", at.ns / 1000000000, at.ns % 1000000000 / 1000, at.clock,
        what, tail);
    if (l->file) fwrite(l->line.p, 1, l->line.n, l->file);
    if (l->tap) l->tap(l->tap_arg, what, l->line.p, l->line.n);
}
