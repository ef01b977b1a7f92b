/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The inside of struct kp_machine and the small helpers its files share. Never installed; machine.c, resolve.c and safety.c
 * may look in, everybody else asks by kp.h. */
#ifndef KP_MACHINE_H
#define KP_MACHINE_H

#include "kp.h"

#define KP_SETTINGS_MAX 8192 /* rows of Klipper's configuration kept */
#define KP_OBJECTS_MAX 2048  /* status objects kept */
#define KP_ALIASES_MAX 1024  /* of [board_pins] */
#define KP_WATCH_MAX (KP_PINS_MAX + KP_SENSORS_MAX + KP_FANS_MAX + KP_HEATERS_MAX + 16)

/* One row of Klipper's configuration that matters here. */
struct kp_setting {
    char section[KP_NAME_MAX]; /* lower case, as Klipper tells its settings */
    char option[KP_NAME_MAX];  /* empty: the section exists, nothing more is of interest */
    enum kp_kind kind;         /* KP_BOOL, KP_NUM, KP_STR or KP_OTHER */
    double num;                /* KP_NUM; KP_BOOL: 0 or 1 */
    char text[KP_NAME_MAX];    /* KP_STR */
};

/* Our last write of a pin. chained: another value was still on its way, so that the old one tells nothing. */
struct kp_write { int64_t at_ms; bool chained; };

/* A name that a section of Klipper's board_pins gives a pin. */
struct kp_board_alias { char section[KP_NAME_MAX], name[KP_NAME_MAX], pin[KP_NAME_MAX]; };

/* A vector Klipper tells; told: at least once, it may be stale. */
struct kp_point { bool told; double v[3]; };

/* What Klipper shows of an extra axis: by its toolhead (mainline) or by our extra. */
struct kp_shown {
    int place;                             /* in toolhead.position; 0: not told */
    bool told, named;                      /* by the extra: position; whether it is joined */
    double position;
    char letter;                           /* 0: it is not joined */
};

/* Limits that klipperplace.cfg writes; NAN: it does not. */
struct kp_own { double min[3], max[3], velocity, accel, min_feedrate, max_feedrate; };

struct kp_machine {
    struct kp_config *config; /* ours: a copy */

    /* what Klipper is made of, until the next reset */
    struct kp_setting *settings;
    size_t setting_count, setting_room;
    char (*objects)[KP_NAME_MAX];
    size_t object_count, object_room;
    char (*commands)[KP_NAME_MAX];
    size_t command_count, command_room;
    struct kp_board_alias *aliases;
    size_t alias_count, alias_room;
    bool out_of_memory; /* a row was lost; the next resolve says so */

    /* the parts, made by resolve */
    struct kp_axis axes[KP_AXES_MAX];
    size_t axis_count;
    struct kp_shown shown[KP_AXES_MAX]; /* by axis */
    double places[KP_AXES_MAX + 16];    /* toolhead.position, all of it */
    size_t place_count, gcode_places;   /* and how many numbers gcode_move.gcode_position has */
    bool shows_axes, extra_joins;       /* toolhead has extra_axes; our extra says that M114 is whole */
    struct kp_pin *pins; /* room for KP_PINS_MAX */
    struct kp_write *writes; /* by pin */
    size_t pin_count;
    struct kp_sensor sensors[KP_SENSORS_MAX];
    size_t sensor_count;
    struct kp_nozzle nozzles[KP_NOZZLES_MAX];
    size_t nozzle_count;
    struct kp_feeder feeders[KP_FEEDERS_MAX];
    size_t feeder_count;
    struct kp_fan fans[KP_FANS_MAX];
    size_t fan_count;
    struct kp_heater heaters[KP_HEATERS_MAX];
    size_t heater_count;
    struct kp_mcode mcodes[KP_MCODES_MAX];
    size_t mcode_count;
    struct kp_vacuum vacuum;
    struct kp_own own; /* klipperplace.cfg's limits: read once */
    struct kp_limits limits;
    double timeout_s; /* [gcode_driver] default_timeout */
    const char *watch[KP_WATCH_MAX];
    size_t watch_count;

    /* how it stands */
    bool moonraker;
    enum kp_klippy klippy;
    char message[KP_TEXT_MAX];
    int64_t pushed_ms;
    bool reading;                          /* ready when last seen, and read again since */
    int64_t read_pushed_ms;                /* then: pushed_ms, and print_time - estimated_time, of before */
    double read_ahead_s;
    struct kp_point live, toolhead, gcode; /* motion_report, toolhead, gcode_move */
    struct kp_point left;                  /* where our last script ends; until a push after left_ms */
    int64_t left_ms;
    uint64_t ours;                         /* what scripts of ours changed */
    struct kp_point axis_min, axis_max;    /* toolhead's */
    double max_velocity, max_accel;        /* toolhead's, NAN: not told */
    double print_time, estimated_time;     /* toolhead's, s of the MCU; NAN: not told */
    unsigned homed;                        /* bit i: Klipper says axis i is homed */
    struct kp_motor motors[KP_MOTORS_MAX];
    size_t motor_count;
    bool absolute, absolute_told;
    double feedrate_mm_min;                /* NAN: not told */
    bool printing, file_active;
    char extruder[KP_NAME_MAX];            /* the active one; empty: not told */

    /* safety */
    enum kp_latch latch;
    char reason[KP_TEXT_MAX];
    int64_t now_ms;                        /* the latest time told */
    int64_t interval_ms[KP_MONITOR_COUNT], due_ms[KP_MONITOR_COUNT];
    int looks[KP_CAUSE_COUNT];             /* at which the cause was there, one after the other; 0: it is not */
    bool lost_moving, cut_moving;          /* Klipper, or the connection, went while it moved; until it is ready again */
    struct kp_safety_event *events;        /* a ring of KP_EVENTS_MAX */
    uint64_t event_count;                  /* ever */
    void (*listener)(void *context, const struct kp_safety_event *event);
    void *listener_context;
};

/* number.c */
char kp_lower(char c);
bool kp_str_same(struct kp_str s, const char *zero_ended); /* equal in any case (ASCII) */
bool kp_str_starts(struct kp_str s, const char *prefix);
bool kp_str_copy(char out[KP_NAME_MAX], struct kp_str s);  /* false, and out untouched, when it does not fit or holds a 0 */
const char *kp_str_clean(char out[KP_NAME_MAX], struct kp_str s); /* for messages: cut, unprintable bytes shown as '?' */

/* config.c: gives a copy; NULL when out of memory. */
struct kp_config *kp_config_clone(const struct kp_config *c);

/* lookup.c: takes "^!mcu2: PB3" apart as Klipper does; false: not a pin. */
bool kp_pin_parse(struct kp_str s, char chip[KP_NAME_MAX], char board[KP_NAME_MAX], bool *inverted);
/* feed.c: puts the pin in place of an alias of [board_pins] on this chip. */
void kp_alias_resolve(const struct kp_machine *m, const char *chip, char board[KP_NAME_MAX]);
/* feed.c: a setting's row; NULL: none. section in any case. */
const struct kp_setting *kp_machine_find_setting(const struct kp_machine *m, const char *section, const char *option);
/* resolve.c: makes the parts from configuration and settings; f may be NULL. */
enum kp_err kp_machine_build(struct kp_machine *m, struct kp_faults *f);
/* resolve.c: limits and homed flags from what is known now. */
void kp_machine_refresh(struct kp_machine *m);

/* axes.c: nothing is known of extra axes; all of toolhead.position; true for a field that shows an extra axis. */
void kp_axes_forget(struct kp_machine *m);
/* An extra axis is homed no more. */
void kp_axis_unhome(struct kp_axis *a);
void kp_axes_places(struct kp_machine *m, const struct kp_value *v);
bool kp_axes_told(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v);

/* safety.c: latches or releases by what Klipper says about itself now. */
void kp_safety_observe(struct kp_machine *m);
/* safety.c: how an event of the last run leaves the latch. */
void kp_latch_restore(struct kp_machine *m, const struct kp_safety_event *event);
/* monitor.c: Klipper left the ready state, or came into it; called while what was known still is. */
void kp_monitor_klippy(struct kp_machine *m, enum kp_klippy to);
/* monitor.c: adds an event to the ring and tells it. */
void kp_monitor_event(struct kp_machine *m, enum kp_level level, enum kp_cause cause, const char *text, double got, double limit);
/* monitor.c: forgets all findings, and looks again at once. */
void kp_monitor_forget(struct kp_machine *m);
/* monitor.c: a cause that stops the machine and is there now; KP_CAUSE_COUNT: none. */
enum kp_cause kp_monitor_cause(struct kp_machine *m, int64_t now_ms);

#endif
