/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The order of questions before a request is looked at, for rest and ws. Invariant: both edges ask here, so that neither lets in whom the other would not. */
#include "guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosts.h"
#include "log.h"
#include "loop.h"
#include "peer.h"

struct guard {
    struct auth *auth;
    struct cors *cors;
    struct hosts *hosts;
    struct limit *limit;            /* NULL: as often as they like */
    unsigned char refused[PEER_BYTES]; /* the peer that was logged last */
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

bool guard_may_connect(void *user, const struct sockaddr *peer)
{
    struct guard *g = user;
    unsigned char address[PEER_BYTES];
    char text[INET6_ADDRSTRLEN] = "?";
    if (hosts_may_connect(g->hosts, peer))
        return true;
    peer_address(peer, address);
    if (!memcmp(address, g->refused, sizeof address))
        return false; /* told already */
    memcpy(g->refused, address, sizeof address);
    inet_ntop(AF_INET6, address, text, sizeof text);
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
    if (who->serial)
        memcpy(c.bytes + PEER_BYTES, &who->serial, sizeof who->serial);
    else
        peer_client(peer, c.bytes);
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
