/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The judge of Origin headers, for rest. Invariant: an origin that is not on the list, and not this server's own, may neither read an answer nor write. */
#include "cors.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "log.h"

#define ORIGINS_MAX 64 /* of the configuration; further ones are logged and allow nothing */

struct cors { char *origins[ORIGINS_MAX]; size_t count; };

/* "http://host" or "https://host:port", without a path: what a browser sends. */
static bool is_origin(const char *text)
{
    const char *host = !strncasecmp(text, "http://", 7) ? text + 7 : !strncasecmp(text, "https://", 8) ? text + 8 : NULL;
    if (!host || !*host)
        return false;
    for (; *host; host++)
        if (*host <= ' ' || *host > '~' || strchr("/?#@*\"", *host))
            return false;
    return true;
}

static bool add(struct cors *s, const char *text)
{
    size_t n = strlen(text);
    char *own = strdup(text);
    if (!own)
        return false;
    if (n && own[n - 1] == '/')
        own[n - 1] = 0; /* as people write it */
    if (is_origin(own) && s->count < ORIGINS_MAX) {
        s->origins[s->count++] = own;
        return true;
    }
    log_line(LOG_WARNING, "cors", "cors_origins=\"%s\" message=\"%s\"", text,
             s->count < ORIGINS_MAX ? "not an origin like http://host:port; it allows nothing" : "too many");
    free(own);
    return true;
}

struct cors *cors_new(const struct kp_config *c)
{
    struct cors *s = calloc(1, sizeof *s);
    const char *text;
    bool good = s != NULL;
    for (size_t i = 0; good && kp_config_bool(c, "api", "enable_cors") && (text = kp_config_item(c, "security", "cors_origins", i, NULL)); i++)
        good = add(s, text);
    if (good)
        return s;
    cors_free(s);
    return NULL;
}

void cors_free(struct cors *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->count; i++)
        free(s->origins[i]);
    free(s);
}

enum cors_origin cors_judge(const struct cors *s, const char *origin, const char *host)
{
    if (!origin)
        return CORS_NO_PAGE;
    if (!is_origin(origin))
        return CORS_FOREIGN; /* "null" of a file or a sandbox, too */
    if (host && !strcasecmp(strstr(origin, "://") + 3, host))
        return CORS_OWN;
    for (size_t i = 0; i < s->count; i++)
        if (!strcasecmp(s->origins[i], origin))
            return CORS_LISTED;
    return CORS_FOREIGN;
}

bool cors_varies(const struct cors *s)
{
    return s->count > 0;
}
