/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What lane.c (the commands and their turns), lane_own.c (what the lane sends for itself), lane_port.c (the port's scripts), lane_ramp.c (what waits beside) and
 * lane_script.c (the script in flight) share. Nobody else includes it. */
#ifndef LANE_PRIV_H
#define LANE_PRIV_H

#include "lane.h"
#include "moonraker.h"

#define LANE_NEVER INT64_MIN
#define LANE_ASK_MS 1 /* what is asked this much later covers what was answered now */

struct lane_job {
    struct lane_job *next;
    struct kp_call call;
    lane_done *done;            /* NULL: nobody waits any more */
    void *user;
    struct kp_seq *seq;
    struct lane_port *port;     /* a script of the G-code port instead of a plan; NULL: none */
    unsigned sent;              /* scripts of its plan */
    int64_t began_ms;
    int64_t first_ms, accepted_ms, after_ms; /* a ramp: when its first and its last script were accepted, and how long after the first the next is due */
    char step[KP_NAME_MAX];
    char klipper[KP_TEXT_MAX];
};

/* What the lane waits for. Absent from the list means: nothing, it is idle. */
enum wait { IDLE, NEXT_TURN, SCRIPT, CONFIRM, RESTORE, JOIN, JOIN_PUSH, NEUTRAL, NEUTRAL_PUSH, PLAN_PUSH, SAMPLE, SETTLE };

struct lane {
    struct loop *loop;
    struct mr *mr;
    struct kp_machine *machine;
    struct loop_timer *turn;     /* callbacks never come from inside lane_submit */
    struct loop_timer *ramps;    /* the next step of those beside is due */
    struct lane_job *beside;     /* ramps between two steps, lane_ramp.c */
    struct lane_job *head, *tail; /* head is the running one while wait > NEXT_TURN */
    size_t size;
    uint64_t movers;             /* jobs so far that may move something */
    enum wait wait;
    bool running;                /* head has been begun */
    uint64_t call;               /* the question in flight, nearly always a script; 0: none */
    const char *script;          /* its text */
    char unknown[KP_NAME_MAX];   /* a word of it that Klipper did not know */
    int64_t answered_ms;         /* when the last script was answered: a push after it covers it */
    int64_t moved_ms;            /* the same of the last script that may have moved the toolhead */
    int64_t unflushed_ms;        /* when the first move was accepted that may not have started; NEVER: all have */
    bool restore_owed;           /* a script failed between its save and its restore */
    bool neutral_owed;           /* the neutral state has not been saved since Klipper was last ready */
    double neutral_at[3];
    int join_axis;               /* which the script in flight joins to moves */
    char join_text[KP_SCRIPT_MAX];
    char neutral_text[KP_SCRIPT_MAX];
    struct kp_action action;
    int64_t action_ms;
    lane_waits *waits;           /* NULL: nobody asks sooner */
    void *waits_user;
};

/* Goes on at the next turn of the loop when there is something to do. */
void lane_wake(struct lane *n);
/* Brings the head job as far as it can go before its first script. */
void lane_advance(struct lane *n);
/* The head job ends with this error. */
void lane_job_fail(struct lane *n, const struct kp_error *e);
/* What the lane did for itself failed: so does the command that waited for it, if one did. */
void lane_head_fail(struct lane *n, const struct kp_error *e);
/* lane_script_send; out of memory fails the head. */
void lane_send(struct lane *n, const char *text, enum wait wait, mr_done *done);
/* Waits for a push of Klipper, which is asked for one in so many ms. */
void lane_wait_for_push(struct lane *n, enum wait wait, int64_t in_ms);
/* Klipper has pushed since the last script was answered. */
bool lane_covered(const struct lane *n);

/* Restores the state that a failed script saved and did not restore. */
void lane_own_restore(struct lane *n);
/* Finds out whether Klipper joins the axis that waits for it to moves; also when no command follows, as nobody can say before how it is moved. */
void lane_own_join(struct lane *n);
void lane_own_join_pushed(struct lane *n);
/* Saves the neutral state, which is made from where the head is; after the push it holds when nobody moved meanwhile, else it is made again. */
void lane_own_neutral(struct lane *n);
void lane_own_neutral_pushed(struct lane *n);

/* Sends a script; done is told of its answer. False: out of memory, nothing was sent. */
bool lane_script_send(struct lane *n, const char *text, enum wait wait, mr_done *done);
/* The script in flight has been answered. False: it failed, *e says how, and a restore may be owed. */
bool lane_script_answered(struct lane *n, const struct mr_reply *r, struct kp_error *e);
/* True when it failed because a shutdown ended its wait, which is for the mirror to tell. */
bool lane_script_shut_down(const struct mr_reply *r);
/* It ended at a check of its own: nothing is owed, and what stands before the check has been done. */
void lane_script_unmet(struct lane *n);
/* Tells how a job ended, and frees it; it is in no list any more. */
void lane_job_tell(struct lane_job *j, const struct kp_faults *f);
/* The end of the running job. */
void lane_job_end(struct lane *n, const struct kp_faults *f);
/* Puts a job at the end. NULL with what is wrong in *f. */
struct lane_job *lane_job_add(struct lane *n, const struct kp_call *call, lane_done *done, void *user, struct kp_faults *f);
/* The running job is a script of the port: sends it. */
void lane_port_send(struct lane *n);
void lane_port_console(struct lane *n, const char *line);
const char *lane_port_answer(const struct lane_job *j);

/* Puts a ramp beside the lane until its next step is due; takes it back. */
void lane_ramp_aside(struct lane *n, struct lane_job *j, int64_t after_ms);
void lane_ramp_back(struct lane *n, struct lane_job *j);
/* One whose next step is due; NULL: none. */
struct lane_job *lane_ramp_due(const struct lane *n);
bool lane_ramp_has(const struct lane *n, const struct lane_job *job);
/* A script that is none of theirs wrote this pin: a ramp of it is replaced. */
void lane_ramp_wrote(struct lane *n, int pin);
/* Ends them all with this error. */
void lane_ramp_end(struct lane *n, const struct kp_error *e);

/* The script in flight, of this sequence, was accepted: tells the machine what it wrote and where it ends. */
void lane_script_noted(struct lane *n, const struct kp_seq *seq);
/* The same of its pins, its extra axes and where it ends (NULL: it does not say). */
void lane_script_wrote(struct lane *n, const struct kp_pin_write *pins, size_t pin_count, const struct kp_axis_write *axes, size_t axis_count, const double *at);
/* True unless every word of it is one that leaves the toolhead where it is. */
bool lane_script_may_move(const char *script);
/* True when the script in flight has this command word. */
bool lane_script_has(const struct lane *n, const char *word);
/* Klipper's console: words that it does not know are told there and nowhere else, and the level of a PNP_WAIT. */
void lane_script_console(struct lane *n, const char *line);

#endif
