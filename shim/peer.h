/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The address of a peer as bytes to compare, whatever family its socket is of. */
#ifndef PEER_H
#define PEER_H

#include <sys/socket.h>

#define PEER_BYTES 16

/* IPv4 as mapped into IPv6, so that it is the same by an IPv4 and by a dual socket. Zeros where it is neither. */
void peer_address(const struct sockaddr *peer, unsigned char out[PEER_BYTES]);
/* The same for counting: of IPv6 the /64, whose rest is its owner's to choose. */
void peer_client(const struct sockaddr *peer, unsigned char out[PEER_BYTES]);

#endif
