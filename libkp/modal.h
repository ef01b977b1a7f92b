/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The inside of struct kp_modal, for the modal rooms: modal.c the table of commands and the way of a line, modal_motion.c moves and
 * coordinates, modal_arc.c arcs, modal_pins.c pins, modal_words.c all else, modal_map.c command_mappings. Never installed.
 * Invariant: while a line is checked only `next` and the line's own actions change; `now` is replaced when all of it is good. */
#ifndef KP_MODAL_H
#define KP_MODAL_H

#include "gcode.h"
#include "plan.h"

#define MODAL_ITEMS_MAX 32
#define MODAL_POOL 4096         /* bytes of text of one line's scripts, arcs apart */
#define MODAL_NUMBER_MAX 1e9    /* beyond it a number loses the decimals that Klipper keeps */
#define MM_PER_INCH 25.4

/* Klipper's words that are asked for often; the others are looked up when needed. */
#define MODAL_WORDS(X) \
    X(G1) X(G2) X(G3) X(G4) X(G17) X(G18) X(G19) X(G90) X(M204) X(M400) X(SET_PIN) X(MANUAL_STEPPER) X(SAVE_GCODE_STATE) X(RESTORE_GCODE_STATE)
enum modal_word {
#define MODAL_X(name) W_##name,
    MODAL_WORDS(MODAL_X)
#undef MODAL_X
    W_COUNT
};

enum modal_plane { PLANE_XY, PLANE_ZX, PLANE_YZ }; /* G17, G18, G19 */

/* What a line may change. Coordinates are the machine's. */
struct modal_state {
    bool relative, inches;
    enum modal_plane plane;
    double feed, feed_scale;        /* the last F, as written, and mm of its unit; NAN: none yet */
    double accel_mm_s2;             /* the last M204, within the limit; NAN: none yet */
    double at[KP_AXES_MAX];         /* where the last line ends; NAN: not known */
    double offset[KP_AXES_MAX];     /* machine minus client, by G92 */
    unsigned homes, unhomes;        /* axes that lines since the last sync home, and those they let go of */
    bool absolute_said;             /* alone: Klipper has been told G90 */
    unsigned released;              /* alone: axes that Klipper has been told to let go of, where it has them joined */
};

/* An arc to be cut: plane axes p, q and the third one h. */
struct modal_arc {
    int axis[3];                    /* p, q, h */
    double centre[2], radius[2];    /* mm; at start and end */
    double angle, sweep;            /* rad; counterclockwise is positive */
    double low[2], high[2];         /* limits of p and q */
    double from_h, to[3];           /* to: by axis X Y Z, NAN for an h that does not move */
    double feed_mm_min, accel_mm_s2;
    unsigned count, done;           /* lines of it */
    bool say_absolute;
};

struct modal_item {
    enum kp_gcode_kind kind;
    bool resync, settle, cut;       /* cut: `arc` is to be cut */
    int text;                       /* place in the pool; -1: none */
    size_t first_write, write_count;
    struct kp_axis_write axes[KP_AXES_MAX];
    size_t axis_count;
    double target[3], position[KP_AXES_MAX], offset[KP_AXES_MAX], unit[KP_AXES_MAX];
    struct modal_arc arc;
};

struct kp_modal {
    const struct kp_machine *m;
    struct kp_modal_options o;
    int axis_of[26];                /* by letter; -1: none */
    bool has[W_COUNT];
    double accel_base;              /* Klipper's configured max_accel, put back after ours; NAN: not told */
    double accel_max;
    struct plan band;               /* of travel heights, and the place of a fault about it */
    struct kp_faults faults;
    struct kp_call home_call;       /* of G28, and its script */
    struct kp_seq home;
    struct modal_state now, next;

    const struct kp_gcode_line *line; /* under check */
    const struct kp_gcode_command *command;
    struct kp_gcode_fault *fault;
    const struct kp_gcode_line *outer; /* of a template: the client's line and command */
    const struct kp_gcode_command *outer_command;
    struct kp_gcode_line expanded;
    bool gated;                     /* the line has passed the gate */
    enum kp_err failed;             /* the line makes more than there is room for */

    struct modal_item items[MODAL_ITEMS_MAX + 1]; /* the last one spills */
    size_t item_count, taken;
    struct modal_item *open;        /* its script is still being written; NULL: none */
    struct tr_script script;
    double accel_said;              /* M204 in the open script; NAN: none */
    char pool[MODAL_POOL];
    size_t pool_used;
    struct kp_pin_write writes[KP_LINE_WRITES_MAX];
    size_t write_count;
};

/* Places a fault at a word, or at the command with w NULL, and makes its error. */
void modal_place(struct kp_modal *g, const struct kp_gcode_word *w);
#define MODAL_FAIL(g, w, ...) (modal_place(g, w), kp_error_set(&(g)->fault->error, __VA_ARGS__))
enum kp_err modal_range(struct kp_modal *g, const struct kp_gcode_word *w, enum kp_err code, const char *field, const char *unit, double got, double min,
    double max);
/* The first of the faults that a helper left in g->faults, at the word. */
enum kp_err modal_first(struct kp_modal *g, const struct kp_gcode_word *w);

/* Words of the command under check: by letter, by key; NULL: not there. */
const struct kp_gcode_word *modal_letter(const struct kp_modal *g, char letter);
const struct kp_gcode_word *modal_key(const struct kp_modal *g, const char *key);
/* The number of a word that must be there, min to max. */
enum kp_err modal_number(struct kp_modal *g, const struct kp_gcode_word *w, const char *name, double min, double max, enum kp_err code, double *out);
/* The value of a parameter that must be there, as a name a script can hold. */
enum kp_err modal_name(struct kp_modal *g, const char *key, char out[KP_NAME_MAX]);

/* KP_OK when Klipper has the word. */
enum kp_err modal_has(struct kp_modal *g, enum modal_word word);
enum kp_err modal_has_text(struct kp_modal *g, const char *word);
/* The script that what follows goes to. Where it ends, an item without room is a fault of the line. */
struct tr_script *modal_script(struct kp_modal *g);
/* The same with motion begun in it. A script with a frame begins with it: so does one tell, when it fails, that a restore is owed. */
struct tr_script *modal_motion(struct kp_modal *g);
/* A new action of its own, behind what was open. */
struct modal_item *modal_item(struct kp_modal *g, enum kp_gcode_kind kind);
/* Ends the script that is open, and begins or ends motion in one: frame or G90, and M204 (NAN: as it is; *said: what was written). */
void modal_script_end(struct kp_modal *g);
void modal_begin(const struct kp_modal *g, struct tr_script *s, bool say_absolute, double accel_mm_s2, double *said);
void modal_end(const struct kp_modal *g, struct tr_script *s, double said);
/* The words that modal_begin and modal_end write are Klipper's. */
enum kp_err modal_motion_words(struct kp_modal *g);
/* Keeps the text for an item. */
void modal_text(struct kp_modal *g, struct modal_item *item, const struct tr_script *s);
void modal_write(struct kp_modal *g, int pin, double value);
/* Axes homed now, as bits, as far as lines have come. */
unsigned modal_homed(const struct kp_modal *g);
void modal_axis_note(struct kp_modal *g, int axis, double position, bool homed);

/* One function per command; what it reads is the command under check. */
enum kp_err modal_move(struct kp_modal *g);
enum kp_err modal_arc(struct kp_modal *g);
enum kp_err modal_home(struct kp_modal *g);
enum kp_err modal_offset(struct kp_modal *g);
enum kp_err modal_dwell(struct kp_modal *g);
enum kp_err modal_accel(struct kp_modal *g);
enum kp_err modal_pin_number(struct kp_modal *g); /* M42 */
enum kp_err modal_pin(struct kp_modal *g);        /* SET_PIN */
enum kp_err modal_mcode(struct kp_modal *g, int index);
enum kp_err modal_fan(struct kp_modal *g);        /* M106, M107 */
enum kp_err modal_fan_named(struct kp_modal *g);
enum kp_err modal_heat(struct kp_modal *g);       /* M104, M109, M140, M190 */
enum kp_err modal_heat_named(struct kp_modal *g);
enum kp_err modal_spindle(struct kp_modal *g);    /* M3, M4, M5 */
enum kp_err modal_motors(struct kp_modal *g);     /* M17, M18, M84 */
enum kp_err modal_motor_named(struct kp_modal *g);
enum kp_err modal_wait(struct kp_modal *g);
enum kp_err modal_endstops(struct kp_modal *g);
enum kp_err modal_verbatim(struct kp_modal *g);   /* a word of Klipper's that has no meaning here */

/* modal.c: the command under check; the gate, once a line; true when name (upper case) or code has a meaning here. */
enum kp_err modal_command(struct kp_modal *g);
enum kp_err modal_gate(struct kp_modal *g);
bool modal_known(const struct kp_gcode_line *line, const struct kp_gcode_command *c);
/* modal_map.c: the command is mapped. */
bool modal_is_mapped(const struct kp_modal *g, const struct kp_gcode_line *line, const struct kp_gcode_command *c);
/* modal_map.c: runs the templates of the command; false: it is not mapped. */
bool modal_mapped(struct kp_modal *g, enum kp_err *rc);

/* modal_motion.c: a file moves an axis beside, whatever Klipper has it joined to by now. */
void modal_release(struct kp_modal *g, const struct kp_axis *a);
/* modal_motion.c, for arcs: the feedrate in force, mm/min, checked or clamped; targets; what a target must keep to. */
enum kp_err modal_feed_word(struct kp_modal *g);
enum kp_err modal_feed(struct kp_modal *g, const struct kp_gcode_word *w, double *mm_min);
enum kp_err modal_target(struct kp_modal *g, const struct kp_gcode_word *w, int axis, double *target);
enum kp_err modal_limits(struct kp_modal *g, const struct kp_gcode_word *w, int axis, double v);
/* axes: bits of X Y Z that have a target; homed, limits and travel height. crosses: X or Y moves although start and end are the same. */
enum kp_err modal_straight_allowed(struct kp_modal *g, unsigned axes, const double target[3], bool crosses);
/* KP_OK when Z there is travel height. */
enum kp_err modal_band(struct kp_modal *g, double z);
/* X or Y is named under travel_interlock, and let pass. True: at travel height, and the script has been told to stand at the Z that we know: no motion when
 * it does, a lift when somebody lowered the head unseen. False: X and Y stay where they are named, and must not be written. */
bool modal_crossing_guard(struct kp_modal *g, unsigned axes, const double target[3], double feed);
/* modal_arc.c: the next script of an arc, and where it ends. */
void modal_arc_script(struct kp_modal *g, struct modal_arc *arc, struct tr_script *s, double target[3]);

#endif
