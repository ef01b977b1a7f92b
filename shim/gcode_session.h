/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One client of the G-code port: its bytes in, its replies out, in order. Knows neither socket nor loop: gcode_port.c carries the bytes, and the rest of the
 * daemon is reached by struct gcode_up, so that the fuzz target can stand in for it. */
#ifndef GCODE_SESSION_H
#define GCODE_SESSION_H

#include <kp.h>
#include <stdbool.h>
#include <stddef.h>

#include "lane.h"

#define GCODE_LINES_MAX 1000 /* lines that wait; while there are so many nothing more is taken in */

struct gcode_session;

struct gcode_options {
    const char *firmware_name;
    const char *home_script;           /* of a G28 without axes; NULL: libkp's */
    const struct kp_mappings *mappings;
    bool ack;                          /* error_reply: ack */
    bool klipper_commands;
};

/* What a session asks of the daemon. */
struct gcode_up {
    struct lane_job *(*submit)(void *to, const struct lane_script *s, lane_done *done, void *user, struct kp_faults *f);
    bool (*take_back)(void *to, struct lane_job *job);
    uint64_t (*movers)(void *to);      /* commands so far, of anybody, that may move something; submit may count one */
    void (*stop)(void *to);            /* M112: emergency stop */
    size_t (*unread)(void *to, void *client); /* bytes that the client has sent and the session has not been handed */
    int64_t (*now_ms)(void *to);
    void (*look)(void *to, int64_t in_ms); /* Klipper's next word is of use then: it may be asked sooner than its push comes */
    void (*wake)(void *to, void *client); /* the session has gone on by itself: replies may be there, and room */
    void *to;
};

/* Gives a session. Borrows all. client is handed to wake. NULL when out of memory. */
struct gcode_session *gcode_session_new(const struct kp_machine *m, const struct gcode_options *o, const struct gcode_up *up, void *client);
/* Not while gcode_session_busy. */
void gcode_session_free(struct gcode_session *s);

/* Bytes it takes now; 0: it has enough. */
size_t gcode_session_room(const struct gcode_session *s);
void gcode_session_take(struct gcode_session *s, const char *bytes, size_t n);
/* Bytes of a client that is about to be closed: nothing of them is done, but an M112 among them stops the machine. */
void gcode_session_last(struct gcode_session *s, const char *bytes, size_t n);
/* Replies to be sent, borrowed until the next call; and that so many of them have been. */
const char *gcode_session_out(const struct gcode_session *s, size_t *n);
void gcode_session_sent(struct gcode_session *s, size_t n);
/* True while a line of it waits, is under way or has no reply yet. */
bool gcode_session_open(const struct gcode_session *s);
/* The client is gone: what has not begun is dropped. It may be freed as soon as it is not busy. */
void gcode_session_end(struct gcode_session *s);
bool gcode_session_busy(const struct gcode_session *s);

/* From the mirror. */
void gcode_session_pushed(struct gcode_session *s);
void gcode_session_changed(struct gcode_session *s);

#endif
