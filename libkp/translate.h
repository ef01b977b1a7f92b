/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A script for Klipper, built line by line: the only code that writes Klipper text. Used by the plans and by nobody else.
 * Every function appends one whole line or marks the script as broken; a broken script is never sent. */
#ifndef KP_TRANSLATE_H
#define KP_TRANSLATE_H

#include "kp.h"

enum tr_fault { TR_OK, TR_TOO_LONG, TR_NAME, TR_NUMBER };

struct tr_script {
    char text[KP_SCRIPT_MAX];
    size_t len;
    enum tr_fault fault; /* the first one */
    bool framed;         /* the client's G-code state is saved and ours is in force */
};

/* Sets *s to an empty script. */
void tr_start(struct tr_script *s);
/* Saves the client's G-code state and takes the neutral one; puts the client's back. Neither does anything twice. */
void tr_open(struct tr_script *s);
void tr_close(struct tr_script *s);
/* An extra axis in a line of motion. */
struct tr_extra { char letter; double to; };
/* G1 in machine coordinates to those of x, y, z that are not NAN, with extra axes that are joined; nothing when all are NAN and none is. */
void tr_move(struct tr_script *s, const double xyz[3], const struct tr_extra *extra, size_t count, double feedrate_mm_min);
/* G28 of the letters ("XY"); all when empty. */
void tr_home(struct tr_script *s, const char *letters);
/* value is what SET_PIN takes. */
void tr_pin(struct tr_script *s, const char *pin, double value);
/* angle is what SET_SERVO takes. */
void tr_servo(struct tr_script *s, const char *servo, double angle);
/* Klipper's part fan where fan is NULL; speed 0-1. */
void tr_fan(struct tr_script *s, const char *fan, double speed);
/* Tells Klipper that the manual stepper stands at 0; enable: and switches its motor on, so that it stays there. */
void tr_stepper_zero(struct tr_script *s, const char *stepper, bool enable);
/* Moves it; speed in mm/s or deg/s and acceleration may be NAN (Klipper's own). sync: later lines wait for it. */
void tr_stepper_move(struct tr_script *s, const char *stepper, double to, double speed, double accel, bool sync);
void tr_stepper_sync(struct tr_script *s, const char *stepper);
/* Joins it to moves as an axis, or lets go of it, so that it can be moved as a stepper. Letting go waits for the end of motion: Klipper drops what
 * it has not made steps of yet. */
void tr_join(struct tr_script *s, const struct kp_axis *a);
void tr_unjoin(struct tr_script *s, const char *stepper);
/* Moves it off its endstop, then onto it, where it is at 0. */
void tr_stepper_home(struct tr_script *s, const struct kp_axis *a);
void tr_stepper_enable(struct tr_script *s, const char *stepper, bool on);
/* What motion an extruder_stepper makes: that of the extruder, or none's where it is empty. */
void tr_follow(struct tr_script *s, const char *stepper, const char *extruder);
/* Moves the active extruder by mm, whatever the client's way to count. Within tr_open and tr_close only. */
void tr_extrude(struct tr_script *s, double mm, double feedrate_mm_min);
/* Dwells in order with motion, whole milliseconds; nothing for 0. */
void tr_dwell(struct tr_script *s, double seconds);
/* Waits until all motion has ended. */
void tr_wait(struct tr_script *s);
/* Ends look-ahead, so that accepted moves start. */
void tr_flush(struct tr_script *s);
/* A line of any other word ("M106", "SET_FAN_SPEED"), and its parameters behind it: the key is "S" or "SPEED=". */
void tr_word(struct tr_script *s, const char *word);
void tr_number(struct tr_script *s, const char *key, double v);
void tr_name(struct tr_script *s, const char *key, const char *name);
/* True for the lines that tr_open and tr_close write. */
bool tr_is_frame(struct kp_str line);

#endif
