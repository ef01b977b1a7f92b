/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The words of the G-code port's answers, for gcode_session.c. Pure: numbers and names in, one line without its end out. */
#ifndef GCODE_REPLY_H
#define GCODE_REPLY_H

#include <kp.h>
#include <stddef.h>

#define GCODE_REPLY_MAX 6144 /* bytes of the longest answer with its 0: M105 of KP_SENSORS_MAX sensors */
#define GCODE_TEXT_MAX 256   /* bytes of an error's line with its 0; a longer text is cut */

/* M115. */
void gcode_reply_version(char out[GCODE_REPLY_MAX], const char *name, const struct kp_machine *m);
/* M114: "ok C: X:1.0000 ..." of the machine's axes, by axis. Returns the letter of an axis whose place is not known, 0 when all are; then out is written. */
char gcode_reply_position(char out[GCODE_REPLY_MAX], const struct kp_machine *m, const double position[KP_AXES_MAX]);
/* M105: "ok V1:-45.20 ...". Returns the name of a sensor that tells nothing, NULL when all do; then out is written. */
const char *gcode_reply_sensors(char out[GCODE_REPLY_MAX], const struct kp_machine *m);
/* "!! TEXT", or "!! halted by: TEXT": one line whatever the text holds. */
void gcode_reply_error(char out[GCODE_TEXT_MAX], const char *before, const char *text);

#endif
