/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Log lines on stderr: one an event, `level component key=value ...` or JSON. Never a key, never text from outside unescaped. */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR, LOG_CRITICAL };

/* Set once in main, before the loop. */
void log_setup(enum log_level lowest, bool json);
/* "DEBUG" ... "CRITICAL", any case; false when it is none. */
bool log_level_parse(const char *text, enum log_level *out);
/* From now on this text is written as "***" wherever it would stand in a line. Borrowed for the life of the process. Texts of less than LOG_SECRET_MIN bytes
 * and more than LOG_SECRETS_MAX of them are not kept: false. */
#define LOG_SECRET_MIN 4
#define LOG_SECRETS_MAX 8
bool log_secret(const char *text);
/* Whether a line of this level is written. */
bool log_wants(enum log_level level);
/* component is the source file's noun. fmt as printf; bytes below 0x20 and above 0x7e are escaped. */
void log_line(enum log_level level, const char *component, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same about one request; its id stands in a field of its own. */
void log_request(enum log_level level, const char *component, const char *request_id, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

#endif
