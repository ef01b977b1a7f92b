/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A breaker for each operation of Moonraker, for moonraker.c: what libkp decides, what is logged of it and what /metrics tells. */
#ifndef CIRCUIT_H
#define CIRCUIT_H

#include <stdbool.h>

struct circuits;
struct metrics;

#define CIRCUITS_MAX 24 /* operations; a further one is let through and not counted */

/* Gives one in which all are closed. metrics is borrowed for its life; NULL: none. */
struct circuits *circuits_new(struct metrics *metrics);
void circuits_free(struct circuits *c);
/* True when this operation may be asked for. method is a constant, kept. */
bool circuit_allows(struct circuits *c, const char *method);
/* How a call on a live connection ended: it worked (an error that was the client's or Klipper's did too), or it failed, and why. */
void circuit_told(struct circuits *c, const char *method, bool worked, const char *why);
/* A new connection: what failed in a row on the old one is forgotten; what is open stays open. */
void circuits_connected(struct circuits *c);
/* Connected, and Klipper has become ready: all close. */
void circuits_back(struct circuits *c);

#endif
