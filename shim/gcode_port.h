/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The port that OpenPnP's GcodeDriver connects to: lines of G-code over TCP. */
#ifndef GCODE_PORT_H
#define GCODE_PORT_H

#include <kp.h>
#include <stdbool.h>

struct app;
struct gcode_port;
struct loop;
struct sockaddr;

#define GCODE_STUCK_MS 30000 /* a client that takes none of its replies for so long is closed */

/* Listens as [gcode_port] says. Borrows all three. NULL with a message in err (err_size bytes) on failure. */
struct gcode_port *gcode_port_open(struct loop *l, struct app *a, const struct kp_config *c, char *err, unsigned err_size);
/* Who may connect, asked about every peer from now on. */
void gcode_port_allow(struct gcode_port *p, bool (*allow)(void *user, const struct sockaddr *peer), void *user);
/* Scripts that are under way get no reply any more. Must come before app_free. */
void gcode_port_close(struct gcode_port *p);

#endif
