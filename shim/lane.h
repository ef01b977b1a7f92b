/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The motion lane: all that moves or switches goes through it, one command at a time, one script in flight. */
#ifndef LANE_H
#define LANE_H

#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lane;
struct lane_job;
struct loop;
struct mr;

#define LANE_WAITING_MAX 256  /* commands that wait; one more is QUEUE_FULL */
#define LANE_FLUSH_MS 100     /* accepted moves start at the latest with the first script this long after the first of them */

/* How a command ended. All borrowed until the callback returns. */
struct lane_outcome {
    const struct kp_faults *faults; /* count 0: it worked */
    const struct kp_seq *seq;       /* the plan; NULL when it never got one */
    const char *step;               /* where it failed; "" when nowhere */
    const char *klipper;            /* Klipper's own words; "" when it said none */
    const char *console;            /* of a script of the port: the last line of its output; "" when it had none */
    double seconds;                 /* from its start in the lane */
    bool sent;                      /* a script of its own was sent: Klipper may have done some of it */
};
typedef void lane_done(void *user, const struct lane_outcome *o);

/* Gives a lane. Borrows all three, which must outlive it. */
struct lane *lane_new(struct loop *l, struct mr *mr, struct kp_machine *m);
/* Told when the lane waits for Klipper's next word, which is of use in_ms from now: whoever can ask sooner than the next push may. Optional. */
typedef void lane_waits(void *user, int64_t in_ms);
void lane_on_wait(struct lane *n, lane_waits *waits, void *user);
/* Jobs that are left get no callback. */
void lane_free(struct lane *n);

/* Puts a checked call of strategy KP_GCODE at the end. Gives a job and calls done exactly once, never before this returns; or returns NULL with what is
 * wrong in *f: the lane is full, the command may not run now, or it is wrong whatever comes before it. */
struct lane_job *lane_submit(struct lane *n, const struct kp_call *call, lane_done *done, void *user, struct kp_faults *f);
/* The caller waits no longer: done will not come. A job that has not begun is dropped; one that has goes on to its end. True when it may still run or has run. */
bool lane_leave(struct lane *n, struct lane_job *job);

/* A script of the G-code port, made by libkp from lines that have passed its checks. */
struct lane_script {
    char text[KP_SCRIPT_MAX];
    struct kp_pin_write writes[KP_LINE_WRITES_MAX];
    size_t write_count;
    struct kp_axis_write axes[KP_AXES_MAX];
    size_t axis_count;
    double target[3];               /* machine coordinates where it leaves the toolhead; a NAN: it does not say */
    bool follows;                   /* more of its stream waits already, so that its moves are blended and need no push */
};
/* Puts one script at the end, under the rules of every command. As lane_submit. lane_port.c. */
struct lane_job *lane_submit_script(struct lane *n, const struct lane_script *s, lane_done *done, void *user, struct kp_faults *f);
/* Takes a script back: true, and done will not come, when it has not begun. False: its done comes. */
bool lane_take_back(struct lane *n, struct lane_job *job);

/* An emergency stop has been latched: every job ends now. */
void lane_stop(struct lane *n);
/* Commands that came into the lane so far and may move the head or an extra axis. */
uint64_t lane_movers(const struct lane *n);
/* Commands in the lane, the running one included. */
size_t lane_size(const struct lane *n);
/* Name of the running command; NULL: none. */
const char *lane_running(const struct lane *n);

/* From the mirror. */
void lane_pushed(struct lane *n);
void lane_changed(struct lane *n);
void lane_console(struct lane *n, const char *line);

#endif
