/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Addresses of peers, for auth, guard and hosts. Invariant: one peer has one address, by whichever of our sockets it came. */
#include "peer.h"

#include <netinet/in.h>
#include <string.h>

static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

void peer_address(const struct sockaddr *peer, unsigned char out[PEER_BYTES])
{
    memset(out, 0, PEER_BYTES);
    if (peer->sa_family == AF_INET) {
        memcpy(out, mapped, sizeof mapped);
        memcpy(out + sizeof mapped, &((const struct sockaddr_in *)(const void *)peer)->sin_addr, 4);
    } else if (peer->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr, PEER_BYTES);
    }
}

void peer_client(const struct sockaddr *peer, unsigned char out[PEER_BYTES])
{
    peer_address(peer, out);
    if (memcmp(out, mapped, sizeof mapped))
        memset(out + 8, 0, PEER_BYTES - 8);
}
