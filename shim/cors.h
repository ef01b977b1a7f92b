/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Which web pages may use the API: those of its own origin, and of the origins that [security] cors_origins names. */
#ifndef CORS_H
#define CORS_H

#include <kp.h>
#include <stdbool.h>

struct cors;

/* Where a request comes from, by its Origin header. */
enum cors_origin { CORS_NO_PAGE, CORS_OWN, CORS_LISTED, CORS_FOREIGN };

#define CORS_METHODS_MAX 64 /* bytes of a list of methods with its 0 */
#define CORS_HEADERS "Content-Type, Idempotency-Key, X-API-Key, X-Request-Id"
#define CORS_EXPOSED "X-Request-Id, Idempotency-Replayed, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-RateLimit-Retry-After"
#define CORS_MAX_AGE "600" /* s that a browser may keep the answer to a preflight */

/* Gives the origins of the configuration. What is no origin there is logged and allows nothing. NULL when out of memory. */
struct cors *cors_new(const struct kp_config *c);
void cors_free(struct cors *s);
/* origin and host are the request's headers; NULL: not sent. */
enum cors_origin cors_judge(const struct cors *s, const char *origin, const char *host);
/* Answers differ by origin: they say so to caches on the way. */
bool cors_varies(const struct cors *s);

#endif
