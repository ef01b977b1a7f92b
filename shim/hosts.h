/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who may knock: addresses that may connect, and names under which this machine may be asked. */
#ifndef HOSTS_H
#define HOSTS_H

#include <kp.h>
#include <stdbool.h>
#include <sys/socket.h>

struct hosts;

#define HOSTS_NETWORKS_MAX 64 /* of [security] allowed_addresses */

/* Gives the lists of the configuration. NULL with a message in err (err_size bytes) when one of them is wrong, or when out of memory. */
struct hosts *hosts_new(const struct kp_config *c, char *err, size_t err_size);
void hosts_free(struct hosts *s);
/* Whether this peer may connect. */
bool hosts_may_connect(const struct hosts *s, const struct sockaddr *peer);
/* Whether a request for this Host header (NULL: none) is meant for this machine. An address always is; a name only where it is known to be ours: a page whose
 * own name was pointed at this machine (DNS rebinding) asks under that name. */
bool hosts_are_ours(const struct hosts *s, const char *host);

#endif
