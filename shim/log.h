/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Log lines on stderr: one a event, `level room key=value ...` or JSON. Never a key, never text from outside unescaped. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_CRITICAL };

/* Set once in main, before the loop. */
void log_setup(enum log_level lowest, bool json);
/* "DEBUG" ... "CRITICAL", any case; false when it is none. */
bool log_level_parse(const char *text, enum log_level *out);
/* room is the source file's noun. fmt as printf; bytes below 0x20 and above 0x7e are escaped. */
void log_line(enum log_level level, const char *room, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
