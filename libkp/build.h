/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The making of the machine's parts, and the helpers that its files share. Never installed; resolve.c has the frame, pins, axes and
 * limits, parts.c what else a machine has. */
#ifndef KP_BUILD_H
#define KP_BUILD_H

#include "machine.h"

#define SECTION_MAX (KP_NAME_MAX + 16)

struct build {
    struct kp_machine *m;
    struct kp_faults *f; /* may be NULL */
    enum kp_err first;
    char section[SECTION_MAX]; /* of klipperplace.cfg, the one being read */
};

/* resolve.c */
/* Adds a fault about an option of the present section; the part's own text of it is set when it is the part's first. */
void build_fault(struct build *b, enum kp_err code, const char *option, const char *text, char part_fault[KP_TEXT_MAX]);
void build_section(struct build *b, const char *kind, const char *name);
double build_number(const struct build *b, const char *option);
const char *build_text(const struct build *b, const char *option);
/* a, then b, cut to size. */
void build_join(char *out, size_t size, const char *a, const char *b);
void build_name(char out[KP_NAME_MAX], const char *text);
/* The name as Klipper wrote it: settings have lower case, objects have what scripts need. NULL: no such object. */
const char *build_object(const struct kp_machine *m, const char *name);
/* The same; else the name itself where Klipper's settings have the section; NULL: neither. */
const char *build_existing(const struct kp_machine *m, const char *name);
const char *build_short(const char *section); /* what follows the first blank; all where there is none */
double build_setting(const struct kp_machine *m, const char *section, const char *option); /* NAN: not a number, or not told */
/* The pin of an option of the present section that must be an output; -1: not given, or at fault. */
int build_pin(struct build *b, const char *option, char part_fault[KP_TEXT_MAX]);

/* parts.c */
/* The short name of a "manual_stepper x" (or "x") that Klipper has and a script can write; NULL: a fault. */
const char *build_stepper(struct build *b, const char *text, char object[KP_NAME_MAX], char part_fault[KP_TEXT_MAX]);
void build_sensors(struct build *b);
void build_nozzles(struct build *b);
void build_feeders(struct build *b);
void build_fans(struct build *b);
void build_heaters(struct build *b);
void build_motors(struct build *b);
void build_mcodes(struct build *b);
void build_vacuum(struct build *b);

#endif
