/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The order of questions before a request is looked at, for rest and ws. Invariant: both edges ask here, so that neither lets in whom the other would not. */
#include "guard.h"

#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosts.h"
#include "log.h"
#include "loop.h"

struct guard {
    struct auth *auth;
    struct cors *cors;
    struct hosts *hosts;
    struct limit *limit;            /* NULL: as often as they like */
    struct sockaddr_storage refused; /* the peer that was logged last */
};

struct guard *guard_new(const struct kp_config *c, char *err, size_t err_size)
{
    struct guard *g = calloc(1, sizeof *g);
    bool limits = kp_config_bool(c, "security", "rate_limit");
    snprintf(err, err_size, "out of memory");
    if (g && (g->hosts = hosts_new(c, err, err_size)) && (g->auth = auth_new(c)) && (g->cors = cors_new(c)) && (!limits || (g->limit = limit_new())))
        return g;
    guard_free(g);
    return NULL;
}

void guard_free(struct guard *g)
{
    if (!g)
        return;
    limit_free(g->limit);
    hosts_free(g->hosts);
    cors_free(g->cors);
    auth_free(g->auth);
    free(g);
}

struct auth *guard_auth(struct guard *g)
{
    return g->auth;
}

const struct cors *guard_cors(const struct guard *g)
{
    return g->cors;
}

static socklen_t peer_size(const struct sockaddr *peer)
{
    return peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* Where a peer's address lies, without its port. */
static const unsigned char *address_of(const struct sockaddr *peer, size_t *n)
{
    if (peer->sa_family == AF_INET6) {
        *n = 8; /* a /64 is one client */
        return ((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr.s6_addr;
    }
    *n = 4;
    return (const unsigned char *)&((const struct sockaddr_in *)(const void *)peer)->sin_addr;
}

bool guard_may_connect(void *user, const struct sockaddr *peer)
{
    struct guard *g = user;
    const struct sockaddr *last = (const struct sockaddr *)&g->refused;
    char text[NI_MAXHOST] = "?";
    size_t n, m;
    if (hosts_may_connect(g->hosts, peer))
        return true;
    const unsigned char *a = address_of(peer, &n), *b = address_of(last, &m);
    if (last->sa_family == peer->sa_family && !memcmp(a, b, n))
        return false; /* told already */
    memcpy(&g->refused, peer, peer_size(peer));
    getnameinfo(peer, peer_size(peer), text, sizeof text, NULL, 0, NI_NUMERICHOST);
    log_line(LOG_WARNING, "guard", "refused=%s by=allowed_addresses", text);
    return false;
}

enum kp_err guard_host(const struct guard *g, const char *host, struct kp_error *e)
{
    if (hosts_are_ours(g->hosts, host))
        return KP_OK;
    return kp_error_set(e, KP_PERMISSION_DENIED, "Host", "this machine does not know itself by that name: ask for its address, or add the name to [security] allowed_hosts");
}

/* A key is a client wherever it is used; without keys an address is. */
static struct limit_client client_of(const struct auth_who *who, const struct sockaddr *peer)
{
    struct limit_client c = { { 0 } };
    size_t n;
    const unsigned char *address = address_of(peer, &n);
    if (who->serial) {
        c.bytes[0] = 1;
        memcpy(c.bytes + 1, &who->serial, sizeof who->serial);
    } else {
        memcpy(c.bytes + 1, &peer->sa_family, sizeof peer->sa_family);
        memcpy(c.bytes + 1 + sizeof peer->sa_family, address, n);
    }
    return c;
}

enum kp_err guard_admit(struct guard *g, const struct auth_who *who, const struct sockaddr *peer, const struct kp_command *c, struct limit_state *state,
                        struct kp_error *e)
{
    static const char *const roles[] = { "nobody", "viewer", "operator", "admin" };
    *state = (struct limit_state){ .limit = 0 };
    if (who->role < c->role)
        return kp_error_set(e, KP_PERMISSION_DENIED, NULL, "%s needs the role %s; this key has the role %s", c->name, roles[c->role], roles[who->role]);
    if (!g->limit || c->rate == KP_RATE_NONE)
        return KP_OK;
    struct limit_client client = client_of(who, peer);
    if (limit_take(g->limit, &client, c->rate, loop_now_ms(), state))
        return KP_OK;
    return kp_error_set(e, KP_RATE_LIMIT_EXCEEDED, NULL, "more than %d requests of this class a second; the next one passes in %d ms", state->limit, (int)state->wait_ms);
}
