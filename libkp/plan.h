/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A plan under construction and the helpers that its builders share: plan.c for all, plan_motion.c, plan_pnp.c and plan_pins.c
 * one function per command, plan_check.c levels looked at inside a script, sequence.c the way through. Invariant: each coordinate passes plan_go, which
 * checks it; a script that saves the client's state begins with that, so that whoever sees it fail knows that a restore is owed. */
#ifndef KP_PLAN_H
#define KP_PLAN_H

#include "kp.h"
#include "translate.h"

#define PLAN_SCRIPTS_MAX 3 /* pick, place, release */
#define PLAN_TRIES_MAX 20  /* further picks that each have a script of their own; [vacuum] retries goes no further */
#define PLAN_WRITES_MAX 8  /* pins that one script writes */
#define PLAN_CHECKS_MAX 2  /* levels that one script looks at: held, let go */
#define PLAN_LINES_MAX 64  /* lines of all scripts */
#define PLAN_NONE (-1)

#define PLAN_FAULT(p, ...) do { struct kp_error e_; kp_error_set(&e_, __VA_ARGS__); kp_faults_add((p)->f, &e_); } while (0)

struct plan_step {
    enum kp_act kind;  /* SCRIPT, SAMPLE, SETTLE, DELAY, or DONE at the end of the main path */
    const char *name;
    int script;        /* SCRIPT: index */
    int sensor;        /* SAMPLE: index, and what the level must be */
    double level;
    bool at_most;      /* level is the largest good one, not the smallest */
    bool held;         /* a part must be held; false: it must have been let go */
    int good;          /* SAMPLE that is good, SCRIPT that was accepted: step to go to; PLAN_NONE: the next one */
    int again;         /* SAMPLE that fails: step to go to while tries are left */
    int way_out;       /* SAMPLE that fails for good, SCRIPT that Klipper refuses: step to go to; PLAN_NONE: fail at once */
};

/* A level that PNP_WAIT looks at inside a script: a SAMPLE's step that is not among the steps, and how much of the script stands before it. */
struct plan_check {
    struct plan_step level;
    size_t write_count, axis_count;
    double expected[3];
};

struct plan_script {
    struct tr_script text;
    struct kp_pin_write writes[PLAN_WRITES_MAX];
    size_t write_count;
    struct kp_axis_write axes[KP_AXES_MAX];
    size_t axis_count;
    double expected[3]; /* NAN: the script does not say */
    double pick_z;      /* of the tip where it picks; NAN: it does not */
    struct plan_check checks[PLAN_CHECKS_MAX];
    size_t check_count;
};

/* A pin on its way, in the sense of its section (not of an inverted name). */
struct plan_ramp {
    int pin;                   /* index; PLAN_NONE: the sequence is no ramp */
    char name[KP_NAME_MAX];
    bool servo;
    double full;               /* what SET_PIN or SET_SERVO takes for 1 */
    double from, to, min;      /* 0-1; between the two ends nothing is above the limit */
    double interval_ms;
    int steps, done;           /* steps after the first value, and how many of them are behind */
};

struct kp_seq {
    struct plan_script scripts[PLAN_SCRIPTS_MAX];
    struct plan_script *more; /* those behind them, in the same piece of memory; room for more_room */
    size_t script_count, more_room;
    struct plan_step steps[KP_STEPS_MAX];
    size_t step_count;
    size_t end;        /* steps from here on are further tries and ways out of a failure */
    int tries_left;
    struct kp_result result;
    char nozzle[KP_NAME_MAX], unit[KP_NAME_MAX]; /* of the vacuum sensor, for messages */
    char inside[KP_NAME_MAX]; /* the pnp_sensor that scripts look at themselves; empty: none do. Its level is what it tells * scale + offset */
    double scale, offset, timeout_s;
    size_t at;         /* the step under way */
    int last_script;   /* PLAN_NONE before the first */
    int unmet;         /* the check at which the last script ended; PLAN_NONE: none */
    double heard;      /* the level that it told last; NAN: none yet */
    char silent[KP_TEXT_MAX]; /* why the sensor told none; empty: nothing is known of that */
    struct plan_ramp ramp;
    bool failing;      /* on the way out; failure holds why */
    struct kp_error failure;
    const char *failed_step;
    const char *lines[PLAN_LINES_MAX];
    size_t line_count; /* lines of a plan fit; those of many tries and of a ramp may not */
    size_t line_used;
    char line_text[PLAN_SCRIPTS_MAX * KP_SCRIPT_MAX];
};

struct plan {
    const struct kp_machine *m;
    const struct kp_call *call;
    struct kp_faults *f;
    struct kp_seq *s;
    struct plan_script *now; /* the script being written */
    bool flush;              /* asked for, and nothing waits at the end */
    size_t faults_before;
    double feedrate_mm_min;
    double at[3];            /* where the head is at this point of the plan, machine coordinates; NAN: not known */
    double told[3];          /* where it was when Klipper last told it, which may be over: a hint only; NAN: not known */
    double low, high;        /* machine Z where every nozzle is at travel height; infinite where nothing bounds it */
    const char *low_nozzle, *high_nozzle; /* which nozzle is too low below low, above high */
    const double *axis_at;   /* where extra axes stand at this point, NAN: not known, not homed; NULL: as the machine tells */
    struct kp_nozzle plain;  /* of a machine without nozzles */
    struct tr_extra turns[KP_AXES_MAX]; /* of joined axes, for the next line of motion */
    size_t turn_count;
    double turn_speed;       /* of the fastest of them alone, in its unit per second */
};

/* plan.c */
double plan_round(double v); /* to the 6 decimals that Klipper keeps */
/* Begins the script of a new step; further lines go there. */
void plan_script(struct plan *p, const char *name);
/* Returns the step, for where to go when the level is bad. */
struct plan_step *plan_sample(struct plan *p, const struct plan_step *step);
void plan_settle(struct plan *p);
void plan_delay(struct plan *p);
/* The main path ends here; what follows is gone to by name alone. */
void plan_end(struct plan *p);
/* What joined axes have still to turn, in a line of its own. */
void plan_turn(struct plan *p);
/* Appends a G1 of the axes that are not NAN, with what joined axes have still to turn, checked against the limits; field[i] is the parameter that a fault of
 * axis i names. */
void plan_go(struct plan *p, double x, double y, double z, const char *const field[3]);
/* Takes the request's feedrate, checked, or the default within the machine's limits when slot is NULL or not set. */
void plan_feedrate(struct plan *p, const struct kp_slot *slot);
/* The band of machine Z for travel; a fault when the nozzles leave none. */
void plan_band(struct plan *p);
bool plan_in_band(const struct plan *p, double z);
/* Adds an INTERLOCK fault about a Z outside the band. */
void plan_interlock(struct plan *p, const char *field, double z, const char *why);
/* Adds a range fault once per code and field. */
void plan_range(struct plan *p, enum kp_err code, const char *field, const char *unit, double got, double min, double max);
/* A parameter that asks for a value, and what it says for our 0 and 1. */
struct plan_field { const char *name; double off, full; };
/* Writes a pin and returns what is written; value 0-1 as Klipper tells it. A PWM pin that is on keeps within the limits: a value outside is a fault of field,
 * or, where no parameter asked for it (NULL), taken to the limit. */
double plan_pin(struct plan *p, int pin, double value, const struct plan_field *field);
/* The same for a fan's speed. */
double plan_fan(struct plan *p, int fan, double speed, const struct plan_field *field);
/* An extra axis by its endstop, where it has one. Else, where its angle is known, it turns to the nearest whole turn, which is 0 from then on; else it is 0
 * where it stands. */
void plan_axis_home(struct plan *p, int axis);
/* The script leaves this motor at `at` for Klipper: an extra axis that it turns is there too, and nobody knows its angle any more. */
void plan_axis_lost(struct plan *p, const char *stepper, double at);
/* An extra axis: `to` is a target, or a distance when relative. One that is joined waits for plan_go or plan_turn. */
void plan_axis_move(struct plan *p, int axis, double to, bool relative, double speed, const char *field);
/* Ends a script of moves: the client's state again, and, as asked, the end of motion waited for. */
void plan_end_move(struct plan *p, bool wait);
/* The nozzle the call means, NULL with a fault. A machine without any has a plain one: what [vacuum] output or [fan] sucks by, larger Z lifts it. */
const struct kp_nozzle *plan_nozzle(struct plan *p);
/* Numbers of the call; NAN when the request has none and the row no default. */
double plan_num(const struct plan *p, const char *param);

/* plan_check.c: true when Klipper can look at this nozzle's levels inside a script: it has PNP_WAIT of the extra, and the sensor is a pnp_sensor whose own
 * unit both levels can be told in. Says so to the checks that follow. */
bool plan_inside(struct plan *p, const struct kp_nozzle *n);
/* Looks at a level at this point of the script; what stands before it must have put the client's state back. Returns as plan_sample. */
struct plan_step *plan_check(struct plan *p, const struct plan_step *level);
/* What PNP_WAIT says on the console, or in its error (end): the level to s->heard; at an end the check that was not met to s->unmet. False: it says nothing. */
bool plan_check_heard(struct kp_seq *s, const struct plan_script *script, const char *words, bool end);

/* sequence.c: for check.c, of a call that has faults already: adds what is wrong with its other parameters too. */
void plan_refused(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f);

/* The builders, one per command. */
void plan_move(struct plan *p);
void plan_home(struct plan *p);
void plan_wait(struct plan *p);
void plan_feeder_advance(struct plan *p);
void plan_feeder_retract(struct plan *p);
void plan_pick(struct plan *p);
void plan_place(struct plan *p);
void plan_pick_and_place(struct plan *p);
void plan_vacuum_on(struct plan *p);
void plan_vacuum_off(struct plan *p);
void plan_vacuum_set(struct plan *p);
void plan_gpio_write(struct plan *p);
void plan_actuate(struct plan *p);
void plan_actuator_on(struct plan *p);
void plan_actuator_off(struct plan *p);
void plan_fan_on(struct plan *p);
void plan_fan_off(struct plan *p);
void plan_fan_set(struct plan *p);
void plan_pwm_set(struct plan *p);
void plan_pwm_ramp(struct plan *p);

/* plan_ramp.c, for sequence.c: writes the step of a ramp that is due at elapsed_ms; when the next one is. */
void plan_ramp_write(struct kp_seq *s, double elapsed_ms);
int64_t plan_ramp_next(const struct kp_seq *s);

/* plan_pins.c: the vacuum of a nozzle, inside the script being written; power is the name of its parameter, 0-255; 0 lets go. Returns the power, 0-1. */
double plan_suck(struct plan *p, const struct kp_nozzle *n, const char *power);
void plan_let_go(struct plan *p, const struct kp_nozzle *n);

#endif
