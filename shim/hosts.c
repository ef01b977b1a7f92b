/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The two lists of who may knock, for guard. Invariant: a list that cannot be read whole lets the server not start. */
#include "hosts.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "peer.h"

#define NAME_MAX_BYTES 256

struct network { unsigned char bytes[PEER_BYTES]; int bits; }; /* IPv4 as mapped into IPv6 */
struct hosts {
    struct network networks[HOSTS_NETWORKS_MAX];
    size_t count;
    const struct kp_config *config;
    char machine[NAME_MAX_BYTES];
};

#define V4_BITS 96 /* before a mapped IPv4 address */

static bool to_bytes(const char *text, unsigned char out[PEER_BYTES], int *bits)
{
    static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    *bits = 128;
    if (inet_pton(AF_INET6, text, out) == 1)
        return true;
    memcpy(out, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, out + sizeof mapped) == 1;
}

/* "192.168.1.0/24", "127.0.0.1", "fe80::/10" */
static bool read_network(const char *text, struct network *out)
{
    char address[INET6_ADDRSTRLEN];
    const char *slash = strchr(text, '/');
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    if (n >= sizeof address)
        return false;
    memcpy(address, text, n);
    address[n] = 0;
    if (!to_bytes(address, out->bytes, &out->bits))
        return false;
    if (!slash)
        return true;
    bool v4 = !strchr(address, ':');
    int bits = 0;
    const char *at = slash + 1;
    for (; *at >= '0' && *at <= '9' && bits < 1000; at++)
        bits = bits * 10 + (*at - '0');
    if (at == slash + 1 || *at || bits > (v4 ? 32 : 128))
        return false;
    out->bits = v4 ? V4_BITS + bits : bits;
    return true;
}

static bool inside(const struct network *n, const unsigned char bytes[PEER_BYTES])
{
    int whole = n->bits / 8, rest = n->bits % 8;
    if (memcmp(n->bytes, bytes, (size_t)whole))
        return false;
    return !rest || (n->bytes[whole] ^ bytes[whole]) >> (8 - rest) == 0;
}

struct hosts *hosts_new(const struct kp_config *c, char *err, size_t err_size)
{
    struct hosts *s = calloc(1, sizeof *s);
    const char *text;
    snprintf(err, err_size, "out of memory");
    if (!s)
        return NULL;
    s->config = c;
    if (gethostname(s->machine, sizeof s->machine - 1))
        s->machine[0] = 0;
    for (size_t i = 0; (text = kp_config_item(c, "security", "allowed_addresses", i, NULL)); i++) {
        if (s->count < HOSTS_NETWORKS_MAX && read_network(text, &s->networks[s->count])) {
            s->count++;
            continue;
        }
        if (s->count == HOSTS_NETWORKS_MAX)
            snprintf(err, err_size, "[security] allowed_addresses: more than %d", HOSTS_NETWORKS_MAX);
        else
            snprintf(err, err_size, "[security] allowed_addresses: \"%s\" is neither an address nor a network like 192.168.1.0/24", text);
        hosts_free(s);
        return NULL;
    }
    return s;
}

void hosts_free(struct hosts *s)
{
    free(s);
}

bool hosts_may_connect(const struct hosts *s, const struct sockaddr *peer)
{
    unsigned char bytes[PEER_BYTES];
    if (!s->count)
        return true;
    peer_address(peer, bytes);
    for (size_t i = 0; i < s->count; i++)
        if (inside(&s->networks[i], bytes))
            return true;
    return false;
}

/* "name:port" without the port; "[::1]:7180" without it and the brackets. False: it is nothing that a client sends. */
static bool bare_name(const char *host, char out[NAME_MAX_BYTES])
{
    const char *end = host[0] == '[' ? strchr(host, ']') : strrchr(host, ':');
    size_t skip = host[0] == '[', n = end ? (size_t)(end - host) - skip : strlen(host) - skip;
    if (!n || n >= NAME_MAX_BYTES || (skip && !end))
        return false;
    memcpy(out, host + skip, n);
    out[n] = 0;
    if (out[n - 1] == '.') /* a name may end so */
        out[n - 1] = 0;
    return out[0] != 0;
}

/* The machine's own name, also with .local behind it, as mDNS tells it. */
static bool is_machine(const struct hosts *s, const char *name)
{
    size_t n = strlen(s->machine);
    return n && !strncasecmp(name, s->machine, n) && (!name[n] || !strcasecmp(name + n, ".local"));
}

bool hosts_are_ours(const struct hosts *s, const char *host)
{
    unsigned char bytes[PEER_BYTES];
    char name[NAME_MAX_BYTES];
    const char *text;
    int bits;
    if (!host)
        return true; /* no browser */
    if (!bare_name(host, name))
        return false;
    if (to_bytes(name, bytes, &bits) || !strcasecmp(name, "localhost") || is_machine(s, name) || !strcasecmp(name, kp_config_str(s->config, "api", "host")))
        return true;
    for (size_t i = 0; (text = kp_config_item(s->config, "security", "allowed_hosts", i, NULL)); i++)
        if (!strcasecmp(text, name))
            return true;
    return false;
}
