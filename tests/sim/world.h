/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What hangs on the pins: axes, nozzles, parts, feeders, sensors. Lengths mm, angles degrees, heights over the table. It knows
 * pins and steps, never a command; it survives every reset of the MCU. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "log.h"
#include "pins.h"

enum { AXES_MAX = 16, NOZZLES_MAX = 8, BOARDS_MAX = 16, FEEDERS_MAX = 64, BUTTONS_WORLD_MAX = 32, PARTS_MAX = 20000, ID_SIZE = 32 };

struct point {
    double x, y, z;
};

struct axis {
    char name[ID_SIZE];
    struct pinref step, dir, limit;
    double mm_per_step, base_mm; /* place = base + n * mm_per_step */
    double start, min, max; /* mm; min, max: mechanical stops */
    double limit_at;
    bool limit_ge;
    int64_t n;
    bool at_stop;
};

enum level { LEVEL_OFF, LEVEL_OPEN, LEVEL_PART, LEVEL_LEAK, LEVEL_COUNT };

struct nozzle {
    char name[ID_SIZE], axis_name[ID_SIZE];
    int axis; /* index of its Z */
    double x, y, tip, sign; /* offset from the head; tip height at axis 0; +1 or -1 */
    struct pinref step, dir, pump, valve, adc;
    double deg_per_step;
    int64_t rot_n;
    double levels[LEVEL_COUNT], tau_s;
    double level_from, target; /* 0..1: the sensor goes from one to the other since level_ns */
    int64_t level_ns;
    int held; /* index of a part, -1 none */
    double hold_x, hold_y, hold_rot; /* part from tip, in the nozzle's frame */
    bool vacuum, leak, stuck, refused, crashed;
    double stuck_value, refused_z;
};

struct board {
    char name[ID_SIZE];
    double x0, y0, x1, y1, z;
};

struct feeder {
    char name[ID_SIZE], prefix[ID_SIZE];
    struct pinref step, dir;
    double mm_per_step, pitch, rot, thick, count;
    struct point at; /* pick place, z is the part's top */
    int64_t n;
    uint64_t pitches; /* furthest whole pitch reached */
    int left;
    unsigned fed, lost, made; /* made numbers the parts */
};

enum part_state { PART_LYING, PART_POCKET, PART_HELD, PART_LOST, PART_REMOVED };

struct part {
    char id[ID_SIZE];
    enum part_state state;
    struct point at; /* z: its top */
    double rot, thick;
    int nozzle, feeder; /* index: holds it; came from it; -1 none */
    double drop_z, drop_mm;
    bool fell;
    unsigned picks, drops;
    int64_t changed_ns;
};

struct button {
    char name[ID_SIZE];
    struct pinref pin;
    double state;
};

enum drive_kind { DRIVE_NONE, DRIVE_AXIS, DRIVE_ROTATION, DRIVE_FEEDER };

/* What a step pin drives. */
struct drive {
    enum drive_kind kind;
    int index;
    bool inverted;
};

struct world_config {
    double stick_dz, stick_radius, press, tip_radius, noise, seed, thick;
};

struct world {
    struct log *log; /* borrowed */
    struct pins *pins; /* borrowed */
    struct world_config config;
    struct axis axes[AXES_MAX];
    struct nozzle nozzles[NOZZLES_MAX];
    struct board boards[BOARDS_MAX];
    struct feeder feeders[FEEDERS_MAX];
    struct button buttons[BUTTONS_WORLD_MAX], adcs[BUTTONS_WORLD_MAX];
    int axis_n, nozzle_n, board_n, feeder_n, button_n, adc_n;
    struct part *parts; /* owned */
    int part_n, part_cap;
    struct drive drives[PIN_COUNT];
    int x_axis, y_axis; /* index, -1 none */
    double clear_z; /* a tip above this can touch nothing */
    uint64_t noise_state;
    unsigned no_stick; /* contacts still to refuse */
    unsigned crashes, sticks, drops;
};

void world_init(struct world *w, struct log *log, struct pins *pins);
void world_fini(struct world *w);
/* Reads the file; false with a message for people. */
bool world_load(struct world *w, const char *path, char *err, size_t err_size);
/* One line of it; empty and comment lines are fine. */
bool world_line(struct world *w, const char *line, char *err, size_t err_size);
/* After all lines: puts everything in place. */
void world_start(struct world *w, struct when at);

void world_step(struct world *w, int step_pin, bool dir, struct when at);
void world_pin_changed(struct world *w, int pin, struct when at);
/* 0..1 */
double world_adc(struct world *w, int pin, int64_t ns, bool noise);
/* buf takes the stepper's name, or its step pin's; returns buf. */
const char *world_stepper_name(const struct world *w, int step_pin, char buf[NAME_SIZE]);
/* PIN_NONE if nothing has that name. */
int world_stepper_pin(const struct world *w, const char *name);

double axis_mm(const struct axis *a);
struct point nozzle_tip(const struct world *w, const struct nozzle *n);
double nozzle_rot(const struct nozzle *n);
double nozzle_level(const struct nozzle *n, int64_t ns);
/* Where a part is now, held or not. */
void part_pose(const struct world *w, const struct part *p, struct point *at, double *rot);

int world_axis(const struct world *w, const char *name);
int world_nozzle(const struct world *w, const char *name);
int world_feeder(const struct world *w, const char *name);
int world_part(const struct world *w, const char *id);
void world_place_axis(struct world *w, int axis, double mm, struct when at);
void world_set_leak(struct world *w, int nozzle, bool leak, struct when at);
int world_remove_parts(struct world *w, double x0, double y0, double x1, double y1, struct when at);
/* Index of a new part, -1 when there are too many or memory is out. */
int world_part_new(struct world *w, const struct part *p);
void world_parts_changed(struct world *w);

#endif
