/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The inside of a session of the G-code port, for its two rooms: gcode_session.c takes lines and keeps replies in order, gcode_action.c does what a line
 * asks. Nobody else includes it. */
#ifndef GCODE_PRIV_H
#define GCODE_PRIV_H

#include "gcode_reply.h"
#include "gcode_session.h"

#define PIECE 4096           /* bytes taken at once */
#define IN_MAX ((KP_LINE_MAX + 1) * GCODE_LINES_MAX + PIECE)
#define LINE_OUT_MAX (KP_LINE_COMMANDS_MAX * GCODE_REPLY_MAX + 2 * GCODE_TEXT_MAX) /* bytes of one line's replies */
#define HELD_MAX GCODE_LINES_MAX /* replies that are held at once: each of them may become an error yet */
#define HELD_ROOM (HELD_MAX * (GCODE_TEXT_MAX + sizeof "ok"))
#define OUT_MAX (2 * LINE_OUT_MAX + HELD_ROOM) /* of all; while there is no room for one more line, none is begun */
#define NEAR_MM 0.0010001    /* Klipper tells 3 decimals: a place this near is ours */
#define FRESH_MS 50          /* an M114 so soon after the M400 before it needs no barrier of its own: OpenPnP sends the two as a pair */
#define LOOK_MS 1            /* what is asked this much later covers what has just been answered */
#define GCODE_STOPPED "emergency stop by M112"
#define LONG_AGO (INT64_MIN / 2)

/* What is waited for. PUSH: what Klipper tells after `sync_after_ms`. SAMPLE: a sensor's value of after `happened_ms`. */
enum wait { FREE, SCRIPT, BARRIER, PUT_BACK, PUSH, SAMPLE };
/* Whose the barrier is. */
enum why { FOR_REPLIES, FOR_PLACE, FOR_WAIT, FOR_POSITION, FOR_SENSORS, FOR_HOME };

struct gcode_session {
    const struct kp_machine *m;
    const struct gcode_options *o;
    const struct gcode_up *up;
    void *client;
    struct kp_modal *g;

    struct kp_gcode_reader seen, taken; /* of bytes as they come, for M112 and the count; of those in `in` */
    size_t waiting;              /* lines seen and not taken */
    size_t in_from, in_to;
    size_t out_from, out_ready, out_to; /* replies behind out_ready are held: their line is under way, or pins before them have yet to act */
    size_t line_at;              /* where those of the line under way begin */
    size_t held;                 /* lines answered there */
    struct gcode_held { unsigned size; bool failed; } held_lines[HELD_MAX]; /* bytes of each; errors stay what they are */

    struct kp_gcode_line line;   /* under way */
    bool has_line, begun, ok_said, home_sent;
    struct kp_gcode_action action;
    enum wait wait;
    enum why why;
    struct lane_job *job;
    struct lane_script script;

    bool ready;                  /* Klipper is */
    uint64_t own_moves;          /* of up->movers, this client's */
    uint64_t others_asked, others_then; /* those of others when the barrier under way was asked for, and the last that ended */
    bool placed;                 /* a barrier has told where the head is since the client came and since Klipper was last ready */
    bool shifted;                /* the head was not where the line under way counted on */
    bool work;                   /* accepted since the last barrier and perhaps not yet done */
    bool settling;               /* a reply waits for pins: the next barrier lets it go */
    bool spaced;                 /* a pin was written twice since the last barrier */
    bool written[KP_PINS_MAX];   /* since the last barrier */
    int64_t happened_ms;         /* the last barrier ended */
    double klipper_at[3], at[3]; /* where Klipper said the head is then; where our last line leaves it */
    bool sync_owed, restart_owed;
    int64_t sync_after_ms;
    char put_back[GCODE_TEXT_MAX]; /* script that a failed one left undone; "": none */
    bool halted, ended;
    bool cut;                    /* halted while a line was under way: what is left of it is dropped */
    uint64_t received, drop_to;  /* bytes of the stream handed in; ack: lines that begin before this one had been sent when an error came */
    uint64_t begins;             /* the byte where the line that is being read begins */
    bool reads_line;             /* that one has been seen */
    char halt[GCODE_TEXT_MAX];   /* by what */
    char in[IN_MAX], out[OUT_MAX];
};

/* ---- gcode_session.c */

/* A line of the replies of the line under way. */
void gcode_say(struct gcode_session *s, const char *text);
/* The line that is under way has failed: what is left of it is dropped, and the client is halted. */
void gcode_fail(struct gcode_session *s, const char *text);
/* No line of the client is done from now on, and nothing more of the one under way. The caller goes on with gcode_run, or ends the line. */
void gcode_halt(struct gcode_session *s, const char *text);
/* Pins before the replies that are held have acted; or nobody knows whether they have. */
void gcode_let_go(struct gcode_session *s);
void gcode_take_held_back(struct gcode_session *s, const char *text);
/* Goes on as far as it can. */
void gcode_run(struct gcode_session *s);

/* ---- gcode_action.c */

/* Begins s->action. */
void gcode_act(struct gcode_session *s);
/* Nobody else's command of the lane can have moved anything since Klipper told where the head is. */
bool gcode_placed(const struct gcode_session *s);
/* Waits until all that was accepted has happened. */
void gcode_barrier(struct gcode_session *s, enum why why);
/* Puts back what a failed script left undone. */
void gcode_put_back(struct gcode_session *s);
/* A push has come while a sensor's value is waited for. */
void gcode_sampled(struct gcode_session *s);

#endif
