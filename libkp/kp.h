/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libkp: every decision KlipperPlace makes, without I/O, clock, globals or threads. The caller hands in bytes, values and
 * the time; libkp answers with values, G-code text and errors.
 *
 * Words used for ownership: an argument is borrowed until the call returns unless its comment says "takes" (libkp frees it,
 * also on failure) or "gives" (the caller frees it). Every *_free accepts NULL. Out-parameters are written only on success.
 * Units: lengths mm, angles degrees, speeds as their names say, times int64_t milliseconds of the caller's monotonic clock.
 * None of the functions may be used on one object from two threads at once. */
#ifndef KP_H
#define KP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KP_API __attribute__((visibility("default")))

#define KP_NAME_MAX 64       /* bytes of a name with its 0; a longer one is refused */
#define KP_TEXT_MAX 192      /* bytes of a message with its 0; a longer one is cut */
#define KP_SCRIPT_MAX 3072   /* bytes of one script for Klipper with its 0 */
#define KP_FAULTS_MAX 32     /* faults kept of one request; more are counted in `dropped` */
#define KP_ARGS_MAX 32       /* parameters of one request */
#define KP_AXES_MAX 9        /* X Y Z and six lettered ones */
#define KP_PINS_MAX 256
#define KP_SENSORS_MAX 64
#define KP_NOZZLES_MAX 8
#define KP_FEEDERS_MAX 128
#define KP_FANS_MAX 32
#define KP_HEATERS_MAX 32
#define KP_MOTORS_MAX 64
#define KP_MCODES_MAX 64     /* M-numbers that switch pins */
#define KP_EVENTS_MAX 256    /* safety events kept */
#define KP_COMMANDS_MAX 512  /* command words Klipper offers */
#define KP_TIMEOUT_MIN_S 1.0 /* what timeout_s may be */
#define KP_TIMEOUT_MAX_S 600.0
#define KP_TIMEOUT_S 30.0    /* of a row that has no time of its own: [gcode_driver] default_timeout counts in its place */
#define KP_STEPS_MAX 48      /* steps of one sequence */

/* ---- errors (error.c) ---------------------------------------------------------------------------------------------- */

/* code, HTTP status, a read that failed so may be asked again. The name is the code's text in every answer. */
#define KP_ERRORS(X) \
    X(OK, 200, false) \
    X(AUTHENTICATION_FAILED, 401, false) X(AUTHORIZATION_REQUIRED, 401, false) X(INVALID_API_KEY, 401, false) \
    X(IP_BLOCKED, 429, true) X(RATE_LIMIT_EXCEEDED, 429, true) \
    X(INVALID_REQUEST, 400, false) X(MISSING_PARAMETER, 400, false) X(INVALID_PARAMETER, 400, false) \
    X(POSITION_OUT_OF_BOUNDS, 400, false) X(FEEDRATE_OUT_OF_BOUNDS, 400, false) X(PWM_OUT_OF_BOUNDS, 400, false) \
    X(FAN_SPEED_OUT_OF_BOUNDS, 400, false) X(TEMPERATURE_OUT_OF_BOUNDS, 400, false) X(HOMING_REQUIRED, 400, false) \
    X(QUEUE_FULL, 429, true) X(COMMAND_NOT_FOUND, 404, false) X(EXECUTION_FAILED, 500, false) \
    X(MOONRAKER_DISCONNECTED, 503, true) X(KLIPPY_DISCONNECTED, 503, true) X(EMERGENCY_STOP_ACTIVE, 503, false) \
    X(INTERNAL_ERROR, 500, false) X(TIMEOUT, 504, true) X(CANCELLED, 409, false) \
    X(NOT_FOUND, 404, false) X(METHOD_NOT_ALLOWED, 405, false) X(PAYLOAD_TOO_LARGE, 413, false) \
    X(UNSUPPORTED_MEDIA_TYPE, 415, false) X(PERMISSION_DENIED, 403, false) X(PIN_NOT_FOUND, 404, false) \
    X(SENSOR_NOT_FOUND, 404, false) X(FEEDER_NOT_FOUND, 404, false) X(NOZZLE_NOT_FOUND, 404, false) \
    X(VACUUM_FAILED, 500, false) X(INTERLOCK, 409, false) X(OUTCOME_UNKNOWN, 502, false) \
    X(DATABASE_UNAVAILABLE, 503, true)

enum kp_err {
#define KP_X(name, status, retry) KP_##name,
    KP_ERRORS(KP_X)
#undef KP_X
    KP_ERR_COUNT
};

/* One thing that is wrong. got, min and max are NAN where they say nothing. */
struct kp_error {
    enum kp_err code;
    char field[KP_NAME_MAX]; /* the parameter, option or axis at fault; empty when none is */
    char message[KP_TEXT_MAX];
    double got, min, max;
};

/* All that is wrong with one request; item[0] is what the answer is named after. */
struct kp_faults {
    struct kp_error item[KP_FAULTS_MAX];
    size_t count, dropped;
};
/* Empties the list; the items stay as they are. */
static inline void kp_faults_init(struct kp_faults *f) { f->count = f->dropped = 0; }

/* The code's name ("INVALID_PARAMETER"), its HTTP status, whether a read may be asked again. */
KP_API const char *kp_err_name(enum kp_err code);
KP_API int kp_err_status(enum kp_err code);
KP_API bool kp_err_retryable(enum kp_err code);

/* Fills *e (may be NULL) and returns code. fmt knows %s %d %u %zu %% and %g only; numbers print locale-free. field may be NULL. */
KP_API enum kp_err kp_error_set(struct kp_error *e, enum kp_err code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The same with the value that was wrong and the limits it broke (NAN where one does not exist). */
KP_API enum kp_err kp_error_range(struct kp_error *e, enum kp_err code, const char *field, const char *unit, double got, double min, double max);
/* Copies *e to the end of the list; returns e->code. */
KP_API enum kp_err kp_faults_add(struct kp_faults *f, const struct kp_error *e);
/* The first fault's code, KP_OK when there is none. */
KP_API enum kp_err kp_faults_code(const struct kp_faults *f);

/* ---- numbers and text (number.c) ----------------------------------------------------------------------------------- */

struct kp_str { const char *p; size_t n; }; /* borrowed bytes, not 0-ended */

#define KP_NUMBER_MAX 32 /* bytes that kp_number_print writes at most, with the 0 */

/* Reads all of s as a decimal number ("-12", ".5", "3."). No exponent, no blank, no NaN, no infinity. False on anything else. */
KP_API bool kp_number_parse(struct kp_str s, double *out);
/* Prints v with at most `decimals` (0-6) decimals, trailing zeros and "-0" removed, never an exponent. out has KP_NUMBER_MAX bytes.
 * v must be finite and below 1e15 in size; returns the length, 0 when it is not. */
KP_API size_t kp_number_print(char *out, double v, int decimals);
#define KP_NUMBER_EXACT_MAX 352 /* bytes that kp_number_exact writes at most, with the 0 */
/* Prints v so that whoever reads it correctly (Klipper's Python does, kp_number_parse nearly) has the same double, never with an exponent. Else as above. */
KP_API size_t kp_number_exact(char *out, double v);
/* True for 1 to KP_NAME_MAX-1 characters of [A-Za-z0-9_]: what may stand in a script as a name. */
KP_API bool kp_name_ok(struct kp_str s);
KP_API struct kp_str kp_str_of(const char *zero_ended);
KP_API bool kp_str_eq(struct kp_str s, const char *zero_ended);

/* A value from outside: JSON, a configuration or Klipper's status. */
enum kp_kind { KP_NULL, KP_BOOL, KP_NUM, KP_STR, KP_NUMS, KP_STRS, KP_OTHER };
struct kp_value {
    enum kp_kind kind;
    bool flag;                  /* KP_BOOL */
    double num;                 /* KP_NUM */
    struct kp_str str;          /* KP_STR */
    const double *nums;         /* KP_NUMS, count of them */
    const struct kp_str *strs;  /* KP_STRS, count of them */
    size_t count;
};

/* ---- configuration (config.c) -------------------------------------------------------------------------------------- */

/* LIST: words, divided by blanks, commas or lines. TEXT: lines. MAP: "NAME: text" lines. These three go on in indented lines. */
enum kp_type { KP_T_NUM, KP_T_INT, KP_T_BOOL, KP_T_STR, KP_T_NAME, KP_T_LIST, KP_T_TEXT, KP_T_MAP };

/* One row of the table that parser, --help, the sample file and docs are made of. */
struct kp_option {
    const char *section; /* "api", or "nozzle *" for sections that carry a name */
    const char *name;
    enum kp_type type;
    const char *unit;    /* "mm", "" */
    const char *def;     /* text of the default; NULL: none */
    double min, max;     /* NUM and INT */
    const char *env;     /* environment variable that wins over the file; NULL: none */
    const char *choices; /* "text|json": the only values, in any case; NULL: any */
    bool required;       /* a section of this kind is at fault without it */
    const char *doc;
    const char *example; /* shown in the sample file where there is no default */
    bool secret;         /* a key: never logged, and a file that holds it must be its owner's alone */
    const char *refused; /* why any value but `only` is refused: it would have no effect here; NULL: nothing is */
    const char *only;
};
struct kp_config;

KP_API const struct kp_option *kp_options(size_t *count);
/* Gives an empty configuration: every option at its default. NULL when out of memory. */
KP_API struct kp_config *kp_config_new(void);
KP_API void kp_config_free(struct kp_config *c);
/* Reads a whole klipperplace.cfg (Klipper's syntax). Every fault's message names `file`, line and nearest known name. */
KP_API enum kp_err kp_config_parse(struct kp_config *c, const char *file, struct kp_str text, struct kp_faults *f);
/* Sets one option by its environment variable; an unknown variable is KP_NOT_FOUND. */
KP_API enum kp_err kp_config_env(struct kp_config *c, const char *variable, const char *text, struct kp_error *e);
/* The value of an option: section is "api" or "nozzle N1". NULL, NAN or false when it is not set and has no default. Borrowed from c. */
KP_API const char *kp_config_str(const struct kp_config *c, const char *section, const char *name);
KP_API double kp_config_num(const struct kp_config *c, const char *section, const char *name);
KP_API bool kp_config_bool(const struct kp_config *c, const char *section, const char *name);
/* The i-th named section of a kind, in file order: kp_config_section(c, "nozzle", 0) is "N1". NULL past the last. */
KP_API const char *kp_config_section(const struct kp_config *c, const char *kind, size_t i);
/* The i-th word of a LIST, or the i-th name of a MAP with its text in *text (may be NULL; NULL for a list). NULL past the last. Borrowed from c.
 * The text of a nested list is as it was written, its lines joined: "['M106 S255', 'G4 P100']". */
KP_API const char *kp_config_item(const struct kp_config *c, const char *section, const char *name, size_t i, const char **text);

/* After file and environment: what only all options together can tell (an address that others reach with nothing asking for a key, ...). */
KP_API enum kp_err kp_config_verify(const struct kp_config *c, struct kp_faults *f);
/* The name of an option whose key stands in the file read, where mode (st_mode of that file) lets others than its owner read or write it: the caller refuses
 * to start. NULL: none. A key that the environment gave is no matter of the file. */
KP_API const char *kp_config_secret_exposed(const struct kp_config *c, unsigned mode);

/* Takes a piece of text, not 0-ended. */
typedef void kp_write_fn(void *to, const char *text, size_t n);
/* Writes a commented klipperplace.cfg with every option at its default, or docs/configuration.md, piece by piece. */
KP_API void kp_config_sample(kp_write_fn *write, void *to);
KP_API void kp_config_docs(kp_write_fn *write, void *to);

/* ---- the machine (machine.c): what Klipper is made of and how it stands ---------------------------------------------- */

enum kp_klippy { KP_KLIPPY_GONE, KP_KLIPPY_STARTUP, KP_KLIPPY_READY, KP_KLIPPY_ERROR, KP_KLIPPY_SHUTDOWN };

/* How an extra axis moves: beside, as a manual stepper of its own; in one line with X, Y and Z, by Klipper's GCODE_AXIS; or that is still to be asked of this
 * Klipper, since it last became ready. */
enum kp_join { KP_BESIDE, KP_JOIN_OWED, KP_JOINED };
struct kp_axis {
    char letter;                    /* 'X' */
    bool rotary, homed, extra;      /* extra: a manual_stepper of ours, not a kinematic axis */
    char stepper[KP_NAME_MAX];      /* extra axes: the manual_stepper's name */
    double min, max;                /* mm or deg, machine coordinates; -INFINITY and INFINITY for a rotary axis */
    double velocity, acceleration;  /* extra axes: deg/s or mm/s; NAN otherwise */
    bool tracked;                   /* extra axes: position is the one Klipper holds, as our last accepted script left it */
    bool lost;                      /* extra axes: it was homed, and nobody knows the angle since; until it is homed again */
    double position;                /* extra axes, Klipper's coordinate of that stepper; joined: that which Klipper holds, also while nobody knows the angle */
    enum kp_join join;
    bool verified;                  /* Klipper has shown its position since it was last ready */
    bool endstop;                   /* its section has an endstop_pin */
    double home_travel, home_velocity; /* to its endstop: how far at most, below 0 backwards, and how fast; NAN: it has nothing to home to */
};

/* SERVO is written by SET_SERVO: value 0-1 is the share of its range, ANGLE = value * scale. */
enum kp_pin_kind { KP_PIN_OUTPUT, KP_PIN_PWM, KP_PIN_BUTTON, KP_PIN_SWITCH, KP_PIN_ENDSTOP, KP_PIN_SERVO };
struct kp_pin {
    char name[KP_NAME_MAX];         /* short name: "valve1" */
    char object[KP_NAME_MAX];       /* Klipper's section: "output_pin valve1"; endstops: "x" of query_endstops */
    char alias[KP_NAME_MAX];        /* by [pin NAME]; empty: none */
    char board[KP_NAME_MAX];        /* "PB5" without modifiers, [board_pins] aliases resolved */
    char chip[KP_NAME_MAX];         /* "mcu" */
    bool inverted;                  /* "!" in Klipper's configuration */
    enum kp_pin_kind kind;
    double scale;                   /* outputs: SET_PIN's VALUE for full on (Klipper's `scale`); servos: the largest angle; else 1. value stays 0-1 */
    double cycle_time_s;            /* PWM: as Klipper's configuration has it; NAN: not told */
    bool cycle_settable;            /* a pwm_cycle_time section: SET_PIN takes CYCLE_TIME */
    double pulse_s[2];              /* servos: pulse at angle 0 and at the largest; else 0 */
    int m42;                        /* [pin] m42: P of the G-code port's M42; -1: none */
    bool known;                     /* Klipper has told its value since it was last ready */
    double value;                   /* as Klipper tells it: 0-1, logical (after inversion) */
    int64_t changed_ms;             /* when it was last told; INT64_MIN: never. A value that is told but not known is stale */
    bool dirty;                     /* written by us and the write not yet seen in a push */
    double expected;                /* while dirty */
};

/* By [sensor NAME], or one of Klipper's temperatures (sensors, heaters, temperature fans) and load cells as it is. */
struct kp_sensor {
    char name[KP_NAME_MAX], object[KP_NAME_MAX], type[KP_NAME_MAX], unit[KP_NAME_MAX];
    char field[KP_NAME_MAX];        /* of the object's status */
    char m105[KP_NAME_MAX];         /* name in the G-code port's M105; empty: not told there */
    bool configured;                /* by [sensor NAME] */
    double scale, offset;           /* value = raw * scale + offset */
    int64_t report_ms;              /* Klipper's own time between samples */
    bool told;                      /* Klipper has told its value since it was last ready */
    char fault[KP_NAME_MAX];        /* a pnp_sensor's own word that its value says nothing; empty: none */
    bool known;                     /* told, and no fault */
    double value;                   /* as last told, with a fault too */
    int64_t changed_ms;
};

struct kp_nozzle {
    char name[KP_NAME_MAX];
    int z_axis;                     /* index into axes */
    int z_direction;                /* +1: larger Z lifts it; -1: lowers it */
    double safe_z;                  /* mm machine Z; NAN: not configured */
    double offset[3];               /* tip minus head */
    int rotation_axis, pump, valve, blow_off, sensor; /* indices; -1: none */
    double part_on, part_off;       /* levels; NAN: none */
    double pick_height, place_height, travel_height;  /* mm machine Z; NAN: none */
    double dwell_s, blow_off_s;
    char fault[KP_TEXT_MAX];        /* why it cannot be used with this Klipper; empty: it can */
};

/* STEPPER: MANUAL_STEPPER. EXTRUDER: an extruder or extruder_stepper. MACRO: called with DISTANCE= (mm, below 0 to retract) and FEEDRATE= (mm/min). */
enum kp_feeder_kind { KP_FEEDER_STEPPER, KP_FEEDER_EXTRUDER, KP_FEEDER_MACRO };
struct kp_feeder {
    char name[KP_NAME_MAX];
    enum kp_feeder_kind kind;
    char stepper[KP_NAME_MAX];      /* short name of the motor ("feeder1", "extruder"); empty for a macro */
    bool follower;                  /* EXTRUDER: an extruder_stepper, */
    char follows[KP_NAME_MAX];      /* and the extruder whose motion it makes by Klipper's configuration; empty: none's */
    char macro[KP_NAME_MAX];        /* the command word; empty but for a macro */
    double feedrate_mm_min, accel_mm_s2, pitch_mm; /* NAN: none */
    double pick[3], pick_rotation;  /* X, Y, machine Z of the part; deg; NAN: none */
    char part[KP_NAME_MAX];
    char fault[KP_TEXT_MAX];
};

/* PART: [fan], by M106 and M107. GENERIC: by SET_FAN_SPEED. AUTOMATIC: Klipper's own (heater_fan, controller_fan, temperature_fan); read only. */
enum kp_fan_kind { KP_FAN_PART, KP_FAN_GENERIC, KP_FAN_AUTOMATIC };
struct kp_fan {
    char name[KP_NAME_MAX];         /* "fan", "blower" */
    char object[KP_NAME_MAX];       /* "fan", "fan_generic blower" */
    enum kp_fan_kind kind;
    bool known;
    double speed;                   /* 0-1, as Klipper tells it */
    int64_t changed_ms;
};

enum kp_heater_kind { KP_HEATER_EXTRUDER, KP_HEATER_BED, KP_HEATER_CHAMBER, KP_HEATER_OTHER };
struct kp_heater {
    char name[KP_NAME_MAX];         /* "extruder", "heater_bed", "chamber" */
    char object[KP_NAME_MAX];
    enum kp_heater_kind kind;
    bool settable;                  /* false: a sensor of the chamber only */
    double min_c, max_c;            /* Klipper's, and the maximum the narrower of it and ours; infinite: none */
    bool known;
    double temperature_c, target_c; /* target NAN: not told */
    int64_t changed_ms;
    bool beyond;                    /* over max_c at the monitor's last look, and not yet min_temp_delta below */
};

struct kp_motor {
    char name[KP_NAME_MAX];         /* as SET_STEPPER_ENABLE wants it: "stepper_x", "manual_stepper rotation1", "extruder" */
    bool known, on;
};

/* What makes the vacuum of a machine without nozzles. */
enum kp_vacuum_kind { KP_VACUUM_NONE, KP_VACUUM_PIN, KP_VACUUM_FAN };
struct kp_vacuum { enum kp_vacuum_kind kind; int index; };

/* An M-number of the G-code port. */
enum kp_mcode_set { KP_MCODE_ON, KP_MCODE_OFF, KP_MCODE_VALUE };
struct kp_mcode {
    int number, pin;                /* pin: index; -1 with a fault */
    enum kp_mcode_set set;
    bool acted;                     /* ok when the pin has changed; false: when Klipper has accepted it */
    char fault[KP_TEXT_MAX];
};

struct kp_limits {
    double max_velocity_mm_s, max_accel_mm_s2, min_feedrate_mm_min, max_feedrate_mm_min; /* INFINITY: not known */
    double min_pwm, max_pwm;        /* of a PWM pin that is on; 0 is always allowed */
    double min_fan, max_fan;        /* of a fan that is on; 0 is always allowed */
    double max_extruder_c, max_bed_c, max_chamber_c, min_delta_c;
    bool travel_interlock;          /* [vacuum]: XY is never crossed below travel height */
    int vacuum_retries;             /* [vacuum]: picks tried again where the request says nothing */
    double retry_lower_mm;          /* [vacuum]: how much deeper each further try goes */
};

struct kp_machine;

/* Gives a machine with what the configuration says and nothing of Klipper. NULL when out of memory. Keeps no pointer to c. */
KP_API struct kp_machine *kp_machine_new(const struct kp_config *c);
KP_API void kp_machine_free(struct kp_machine *m);

/* Klipper went away or came back: forgets what it is made of (objects, settings, commands). Last values stay readable, as stale. */
KP_API void kp_machine_reset(struct kp_machine *m);
/* Rows of what Klipper says it is made of; any order; unknown ones are ignored. The pairs of board_pins' aliases may come flat, as STRS
 * (name, pin, name, pin, ...), or as one STR ("EXP1_1=PE8, EXP1_2=PE7"). */
KP_API void kp_machine_command(struct kp_machine *m, struct kp_str word);
KP_API void kp_machine_setting(struct kp_machine *m, struct kp_str section, struct kp_str option, const struct kp_value *v);
/* The name of an object that tells a status ("output_pin valve1"), as printer.objects.list writes it. Settings have it in lower case only. */
KP_API void kp_machine_object(struct kp_machine *m, struct kp_str name);
/* After the last row: resolves names, limits, nozzles, feeders and sensors. What klipperplace.cfg names and Klipper lacks is a fault in
 * *f and disables just that nozzle, feeder, sensor or pin. */
KP_API enum kp_err kp_machine_resolve(struct kp_machine *m, struct kp_faults *f);
/* True when Klipper offers this command word ("SET_PIN"). */
KP_API bool kp_machine_has_command(const struct kp_machine *m, struct kp_str word);
/* True when Klipper's configuration has this section ("homing_override", "safe_z_home", "stepper_x"), in any case. Only sections libkp cares for are kept. */
KP_API bool kp_machine_has_section(const struct kp_machine *m, const char *section);
/* The object names to subscribe to: the i-th, NULL past the last. */
KP_API const char *kp_machine_watch(const struct kp_machine *m, size_t i);

/* One field of Klipper's status: ("toolhead", "position", [..]), ("query_endstops", "last_query.x", 1). */
KP_API void kp_machine_status(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v, int64_t now_ms);
/* A push (or the answer to the subscription) has been fed whole: every subscribed field is as last told at now_ms. */
KP_API void kp_machine_pushed(struct kp_machine *m, int64_t now_ms);
/* When the last push came; INT64_MIN when none has since Klipper was ready. */
KP_API int64_t kp_machine_pushed_ms(const struct kp_machine *m);
/* What is told next happened at now_ms: before kp_machine_klippy and kp_machine_moonraker, for whether it was in motion. */
KP_API void kp_machine_time(struct kp_machine *m, int64_t now_ms);
KP_API void kp_machine_klippy(struct kp_machine *m, enum kp_klippy state, const char *message);
/* A Klipper that is ready is read again: in startup until kp_machine_klippy tells more, but nobody has seen it leave ready, and the monitors go on with what it
 * told last. In other states nothing happens. */
KP_API void kp_machine_reading(struct kp_machine *m, const char *message);
KP_API enum kp_klippy kp_machine_klippy_state(const struct kp_machine *m);
KP_API const char *kp_machine_klippy_message(const struct kp_machine *m); /* Klipper's words, "" when none */
KP_API const char *kp_klippy_name(enum kp_klippy state);                  /* "ready", "shutdown", ... "disconnected" */
/* The connection to Moonraker, as the shim sees it. */
KP_API void kp_machine_moonraker(struct kp_machine *m, bool connected);
KP_API bool kp_machine_moonraker_connected(const struct kp_machine *m);

/* The parts, by index from 0; NULL past the last. Borrowed from m until the next resolve. */
KP_API const struct kp_axis *kp_machine_axis(const struct kp_machine *m, size_t i);
KP_API const struct kp_pin *kp_machine_pin(const struct kp_machine *m, size_t i);
KP_API const struct kp_sensor *kp_machine_sensor(const struct kp_machine *m, size_t i);
KP_API const struct kp_nozzle *kp_machine_nozzle(const struct kp_machine *m, size_t i);
KP_API const struct kp_feeder *kp_machine_feeder(const struct kp_machine *m, size_t i);
KP_API const struct kp_fan *kp_machine_fan(const struct kp_machine *m, size_t i);
KP_API const struct kp_heater *kp_machine_heater(const struct kp_machine *m, size_t i);
KP_API const struct kp_motor *kp_machine_motor(const struct kp_machine *m, size_t i);
KP_API const struct kp_mcode *kp_machine_mcode(const struct kp_machine *m, size_t i);
KP_API const struct kp_limits *kp_machine_limits(const struct kp_machine *m);
/* The vacuum where no nozzle is named: [vacuum] output; else, on a machine without nozzles, Klipper's [fan]. */
KP_API struct kp_vacuum kp_machine_vacuum(const struct kp_machine *m);

/* Name look-up. A pin is found by alias, section ("output_pin valve1"), short name where only one has it, or board pin ("PA0", "mcu:PA0", "!PA0";
 * "!" asks for the inverted sense and is told in *inverted). Errors: PIN_NOT_FOUND, SENSOR_NOT_FOUND, NOZZLE_NOT_FOUND, FEEDER_NOT_FOUND; a short name
 * that two have is INVALID_PARAMETER with both. inverted may be NULL. */
KP_API enum kp_err kp_machine_find_pin(const struct kp_machine *m, struct kp_str name, int *index, bool *inverted, struct kp_error *e);
KP_API enum kp_err kp_machine_find_sensor(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API enum kp_err kp_machine_find_nozzle(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API enum kp_err kp_machine_find_feeder(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
/* A fan, heater or motor by short name where only one has it, or by object. INVALID_PARAMETER. */
KP_API enum kp_err kp_machine_find_fan(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API enum kp_err kp_machine_find_heater(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API enum kp_err kp_machine_find_motor(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API int kp_machine_find_mcode(const struct kp_machine *m, int number); /* -1: none */
KP_API int kp_machine_find_m42(const struct kp_machine *m, int number);   /* the pin's index; -1: none */
KP_API int kp_machine_find_axis(const struct kp_machine *m, char letter); /* any case; -1: none */

/* Where the machine is. Each returns false while Klipper has not told it. */
KP_API bool kp_machine_position(const struct kp_machine *m, double xyz[3]);  /* live: where the head is, machine coordinates */
KP_API bool kp_machine_commanded(const struct kp_machine *m, double xyz[3]); /* where the last accepted move ends, machine coordinates */
KP_API bool kp_machine_gcode_state(const struct kp_machine *m, bool *absolute, double *feedrate_mm_min); /* of Klipper's G-code state, which is everybody's */
KP_API bool kp_machine_printing(const struct kp_machine *m);                 /* a file print is running */
KP_API const char *kp_machine_extruder(const struct kp_machine *m);          /* the active one, "extruder"; empty: none, or not told */
/* A script that wrote the pin was accepted: it is dirty until a push at or after now_ms shows the value. */
KP_API void kp_machine_pin_written(struct kp_machine *m, int pin, double value, int64_t now_ms);

/* A script of ours that may have moved the toolhead was answered, and ends at xyz; NULL: where only Klipper knows. Until the first push after now_ms
 * kp_machine_commanded gives that place: pushes hold what changed since the last one, so it is kept beside what they told and never mixed with it. */
KP_API void kp_machine_moved(struct kp_machine *m, const double *xyz, int64_t now_ms);
/* Klipper's answer to a question of asked_ms has been fed, and it tells where the toolhead goes: a script of ours that was answered before is older. */
KP_API void kp_machine_asked(struct kp_machine *m, int64_t asked_ms);
/* Another number after each of these three, and after kp_machine_axis_written: for what is made from the machine and kept. */
KP_API uint64_t kp_machine_ours(const struct kp_machine *m);
/* True while kp_machine_commanded gives the end of our own last script. */
KP_API bool kp_machine_left(const struct kp_machine *m);

/* A script that moved or set an extra axis was accepted. */
KP_API void kp_machine_axis_written(struct kp_machine *m, int axis, double position, bool homed);
/* The next axis that is to be joined to moves, while the machine may be asked to; -1: none. kp_script_join makes the script for it. Not where anybody's M114
 * would shut Klipper down then: kp_machine_joins says, once one is joined, whether this one is whole, and kp_script_unjoin takes it back. */
KP_API int kp_machine_joining(const struct kp_machine *m);
KP_API bool kp_machine_joins(const struct kp_machine *m);
/* That script worked: the axis stands at 0 for Klipper, and nobody knows its angle. Or it did not: it is moved beside. */
KP_API void kp_machine_axis_joined(struct kp_machine *m, int axis, bool joined);
/* A script that let go of axes for a moment failed: all are joined anew. */
KP_API void kp_machine_rejoin(struct kp_machine *m);
/* Where Klipper shows its extra axes, holds what it last told against what we know, while no script of ours is under way: one that somebody else moved
 * is unhomed, one that somebody else let go of is joined anew. */
KP_API void kp_machine_axes_check(struct kp_machine *m);

/* ---- safety (safety.c, monitor.c) ------------------------------------------------------------------------------------ */

enum kp_level { KP_NORMAL, KP_CAUTION, KP_WARNING, KP_CRITICAL, KP_EMERGENCY };
KP_API const char *kp_level_name(enum kp_level level);
KP_API bool kp_level_by_name(struct kp_str name, enum kp_level *out);
/* The highest level of all that is so now. */
KP_API enum kp_level kp_safety_level(const struct kp_machine *m);

/* The latch of an emergency stop. `ours` is true for a stop asked of us, false for one seen in Klipper (released when Klipper is ready again). */
KP_API void kp_safety_latch(struct kp_machine *m, bool ours, const char *reason);
/* Releases whatever the cause: for a caller that has made sure. kp_safety_reset is the one for requests. */
KP_API void kp_safety_release(struct kp_machine *m);
/* Releases by request when the cause is gone: Klipper is ready and no limit that stops the machine is exceeded. Else KP_MOONRAKER_DISCONNECTED,
 * KP_KLIPPY_DISCONNECTED or KP_INTERLOCK, and the latch stays. Not latched: KP_OK, nothing changes. */
KP_API enum kp_err kp_safety_reset(struct kp_machine *m, int64_t now_ms, struct kp_error *e);
KP_API bool kp_safety_latched(const struct kp_machine *m);
KP_API const char *kp_safety_reason(const struct kp_machine *m);

/* The latch's table: [state][event] -> next. */
enum kp_latch { KP_LATCH_FREE, KP_LATCH_SEEN, KP_LATCH_OURS, KP_LATCH_COUNT };
enum kp_latch_event { KP_LE_ASKED, KP_LE_SEEN, KP_LE_READY, KP_LE_RELEASE, KP_LE_COUNT }; /* READY: Klipper is ready again */
KP_API enum kp_latch kp_safety_latch_next(enum kp_latch latch, enum kp_latch_event event);

/* What may hinder a request, the most severe last; several may be so at once. LOW: Z outside the band where every nozzle is at travel height, while a
 * travel_interlock is configured. HELD: a monitor holds the queue. */
enum kp_state { KP_S_READY, KP_S_UNHOMED, KP_S_LOW, KP_S_HELD, KP_S_PRINTING, KP_S_NOT_READY, KP_S_NO_MOONRAKER, KP_S_STOPPED, KP_STATE_COUNT };
/* What a request asks of the machine. USE: nothing but that it answers. CROSS: a move in X or Y. QUEUED: the queue's next command. */
enum kp_ask { KP_ASK_READ, KP_ASK_STOP, KP_ASK_RESET, KP_ASK_USE, KP_ASK_SWITCH, KP_ASK_HOME, KP_ASK_MOVE, KP_ASK_CROSS, KP_ASK_QUEUED, KP_ASK_COUNT };
KP_API const char *kp_state_name(enum kp_state state);
KP_API const char *kp_ask_name(enum kp_ask ask);
/* The interlocks' table: [state][ask] -> KP_OK or what the request is refused with. */
KP_API enum kp_err kp_safety_interlock(enum kp_state state, enum kp_ask ask);
/* What is so now: bit 1 << state; KP_S_READY alone when nothing hinders. */
KP_API unsigned kp_safety_states(const struct kp_machine *m);

/* ---- monitors */

enum kp_monitor { KP_MONITOR_TEMPERATURE, KP_MONITOR_POSITION, KP_MONITOR_STATE, KP_MONITOR_COUNT };

/* cause, monitor, level, holds the queue, checks it may still be there after the first before it is an emergency stop (-1: never), what it is */
#define KP_CAUSES(X) \
    X(TEMPERATURE_TARGET, TEMPERATURE, WARNING, false, -1, "a temperature is asked for beyond its limit") \
    X(TEMPERATURE_HIGH, TEMPERATURE, CRITICAL, true, 2, "a temperature is beyond its limit") \
    X(TEMPERATURE_NEAR, TEMPERATURE, CAUTION, false, -1, "a temperature is near its limit") \
    X(POSITION_OUT, POSITION, CRITICAL, true, 2, "the head is sent beyond the position limits") \
    X(PRINTING, STATE, CAUTION, true, -1, "a file print is running") \
    X(NOT_READY, STATE, WARNING, true, -1, "Klipper or Moonraker is away or not ready") \
    X(KLIPPER_DOWN, STATE, CRITICAL, true, -1, "Klipper has shut down or found an error") \
    X(SILENT, STATE, WARNING, true, -1, "Klipper tells nothing") \
    X(SILENT_MOVING, STATE, CRITICAL, true, 2, "Klipper tells nothing while the machine moves") \
    X(CUT_MOVING, STATE, CRITICAL, true, -1, "the connection to Moonraker broke while the machine moved") \
    X(LOST_MOVING, STATE, EMERGENCY, true, 0, "Klipper was lost while the machine moved")

enum kp_cause {
#define KP_X(name, monitor, level, holds, stops, text) KP_CAUSE_##name,
    KP_CAUSES(KP_X)
#undef KP_X
    KP_CAUSE_COUNT,
    KP_CAUSE_STOP = KP_CAUSE_COUNT, /* an emergency stop: asked for, seen in Klipper or made by a monitor */
    KP_CAUSE_RELEASE,               /* its end */
    KP_CAUSE_ALL
};

/* A row of the monitors' table. */
struct kp_cause_row {
    const char *name; /* "TEMPERATURE_HIGH" */
    enum kp_monitor monitor;
    enum kp_level level;
    bool holds;
    int stops;
    const char *doc;
};
KP_API const struct kp_cause_row *kp_cause_row(enum kp_cause cause); /* NULL: no monitor's */
KP_API const char *kp_cause_name(enum kp_cause cause);
KP_API bool kp_cause_by_name(struct kp_str name, enum kp_cause *out);

enum kp_reaction { KP_REACT_HOLD = 1, KP_REACT_STOP = 2 };
/* Does what is due: looks at the temperatures, the position and the state, each at its interval, and at the state at once when Klipper or Moonraker came or
 * went. Answers what begins now as bits of kp_reaction. HOLD: hold the queue until somebody resumes it; STOP: the latch is set (ours), send the stop. */
KP_API unsigned kp_safety_check(struct kp_machine *m, int64_t now_ms);
/* When kp_safety_check has work next; INT64_MIN: at once. */
KP_API int64_t kp_safety_due(const struct kp_machine *m);
/* True while a monitor's finding holds the queue, and while the latch is set. */
KP_API bool kp_safety_held(const struct kp_machine *m);
/* Whether a cause was there at the last look. */
KP_API bool kp_safety_present(const struct kp_machine *m, enum kp_cause cause);

/* ---- events */

struct kp_safety_event {
    uint64_t id;            /* from 1, without gaps */
    int64_t at_ms;          /* the latest time that libkp was told */
    enum kp_level level;    /* NORMAL: the cause is gone */
    enum kp_cause cause;
    char text[KP_TEXT_MAX];
    double got, limit;      /* NAN: none */
};
/* The i-th event, the last one first; NULL past the last of KP_EVENTS_MAX. Borrowed until the next event. */
KP_API const struct kp_safety_event *kp_safety_event(const struct kp_machine *m, size_t i);
/* An event of the last run, the oldest first and before any new one: ids go on behind it, and a stop that no RELEASE follows is latched as it was. Nobody is
 * told of it. */
KP_API void kp_safety_restore(struct kp_machine *m, const struct kp_safety_event *event);
/* Calls told for every new event, from inside the call that makes it; told must not call back into m but to read. NULL: nobody. */
KP_API void kp_safety_listen(struct kp_machine *m, void (*told)(void *context, const struct kp_safety_event *event), void *context);

/* ---- the registry (command.c) ---------------------------------------------------------------------------------------- */

enum kp_method { KP_GET = 1, KP_POST = 2, KP_DELETE = 4, KP_PUT = 8 };
enum kp_role { KP_PUBLIC, KP_VIEWER, KP_OPERATOR, KP_ADMIN };
enum kp_rate { KP_RATE_NONE, KP_RATE_MOTION, KP_RATE_READ, KP_RATE_BATCH };
enum kp_strategy { KP_LOCAL, KP_DIRECT, KP_GCODE, KP_HYBRID };

enum kp_id {
    KP_MOVE, KP_HOME, KP_WAIT, KP_PICK, KP_PLACE, KP_PICK_AND_PLACE, KP_ACTUATE, KP_ACTUATOR_ON, KP_ACTUATOR_OFF, KP_VACUUM_ON, KP_VACUUM_OFF, KP_VACUUM_SET,
    KP_FAN_ON, KP_FAN_OFF, KP_FAN_SET, KP_PWM_SET, KP_PWM_RAMP, KP_GPIO_READ, KP_GPIO_WRITE, KP_GPIO_READ_ALL, KP_SENSOR_READ, KP_SENSOR_READ_ALL,
    KP_SENSOR_READ_BY_TYPE, KP_FEEDER_ADVANCE, KP_FEEDER_RETRACT, KP_GET_STATUS, KP_GET_POSITION, KP_GET_PRINTER_STATE, KP_QUEUE_ADD, KP_QUEUE_BATCH,
    KP_QUEUE_STATUS, KP_QUEUE_CLEAR, KP_QUEUE_CANCEL, KP_QUEUE_HISTORY, KP_BATCH_EXECUTE, KP_EMERGENCY_STOP, KP_PAUSE, KP_RESUME, KP_RESET, KP_SAFETY_STATUS,
    KP_SAFETY_EVENTS, KP_GET_VERSION, KP_OPENAPI, KP_KEY_CREATE, KP_KEY_LIST, KP_KEY_GET, KP_KEY_UPDATE, KP_KEY_DELETE, KP_KEY_ROTATE, KP_AUTH_STATUS,
    KP_WS_TOKEN, KP_HEALTH, KP_READY, KP_METRICS,
    KP_ID_COUNT
};

/* TEXT: free text for people. NAME: 1 to KP_NAME_MAX-1 characters of [0-9A-Za-z_-], a UUID for one. CHOICE: one of `choices`. COMMAND: the name of a row
 * that kp_command_nests. OBJECT, OBJECTS: a JSON object, an array of them; kp_check takes any KP_OTHER and keeps nothing of it: the caller reads its own JSON.
 * PIN_IN: any pin that can be read; PIN_OUT: one that can be written; PIN_PWM: one that takes values between 0 and 1. FAN: any fan of Klipper's. */
enum kp_ptype {
    KP_P_NUM, KP_P_INT, KP_P_BOOL, KP_P_TEXT, KP_P_NAME, KP_P_CHOICE, KP_P_COMMAND, KP_P_OBJECT, KP_P_OBJECTS,
    KP_P_AXES, KP_P_PIN_IN, KP_P_PIN_OUT, KP_P_PIN_PWM, KP_P_SENSOR, KP_P_NOZZLE, KP_P_FEEDER, KP_P_FAN,
};

/* IN_PATH: stands in the path, as {name}; see kp_command_path_arg. */
enum kp_param_flag { KP_REQUIRED = 1, KP_IN_PATH = 2 };

struct kp_param {
    const char *name;
    enum kp_ptype type;
    const char *unit;
    unsigned flags;
    double min, max;   /* NUM, INT; -INFINITY and INFINITY: the machine's limits or none */
    double def;        /* NUM, INT, BOOL; NAN: none */
    enum kp_err range; /* code of a value outside min..max; KP_OK means KP_INVALID_PARAMETER */
    const char *choices; /* CHOICE: "viewer|operator|admin"; NULL: not one */
    const char *name_def; /* FEEDER, FAN: the one that is meant when left out; NULL: none */
    const char *doc;
};

/* What the `data` of an answer is made of. ANY: what fits no other word. */
enum kp_field_type { KP_A_NUM, KP_A_INT, KP_A_BOOL, KP_A_TEXT, KP_A_OBJECT, KP_A_ANY };
/* NULLABLE: null where nothing is known. OPTIONAL: may be absent. LIST: an array of these. MAP: an object of these, by names that the machine gives. */
enum kp_field_flag { KP_NULLABLE = 1, KP_OPTIONAL = 2, KP_LIST = 4, KP_MAP = 8 };

struct kp_field {
    const char *name;
    enum kp_field_type type;
    const char *unit;             /* "mm"; "" */
    unsigned flags;
    const struct kp_field *fields; /* OBJECT: its fields, ended by a row without name */
    const char *doc;
};

enum kp_command_flag {
    KP_NEEDS_HOMED = 1,       /* every kinematic axis it moves must be homed */
    KP_WHILE_STOPPED = 2,     /* allowed while the emergency stop is latched and while Klipper is not ready */
    KP_EXTRA_AXES = 4,        /* also takes the letters of the configured extra axes as parameters */
    KP_MOVES = 8,             /* moves or switches something: never sent twice, goes through the lane */
    KP_NEEDS_POSITION = 16,   /* planned from the commanded position: it must be fresh */
    KP_URGENT = 32,           /* goes by the urgent slot */
    KP_OUTSIDE = 64,          /* its path is below "/", not below "/api/v1/"; found by kp_command_outside alone */
    KP_PLAIN = 128,           /* answered with a document of its own, not with the envelope; no command of WebSocket, queue or batch */
};

struct kp_command {
    enum kp_id id;
    const char *name;        /* "move" */
    enum kp_method method;
    const char *path;        /* below /api/v1/: "motion/move", "auth/keys/{id}" */
    enum kp_strategy strategy;
    enum kp_role role;       /* the least that may ask; PUBLIC: anybody */
    enum kp_rate rate;
    unsigned flags;
    double timeout_s;        /* default; 0: it takes no timeout_s */
    const struct kp_param *params; /* ended by a row without name */
    const struct kp_field *answer; /* what `data` holds, ended by a row without name; PLAIN: what the document holds, empty where it is no object of ours */
    const char *doc;
};

KP_API const struct kp_command *kp_commands(size_t *count);
KP_API const struct kp_command *kp_command_by_name(struct kp_str name);
/* The row of a path below /api/v1/; a {name} of a row is any one piece that is not empty. NULL: no such path.
 * *allowed (may be NULL) gets the methods the path knows; NULL with *allowed != 0: wrong method. */
KP_API const struct kp_command *kp_command_by_route(enum kp_method method, struct kp_str path, unsigned *allowed);
/* The same for rows with KP_OUTSIDE; path below "/": "health". */
KP_API const struct kp_command *kp_command_outside(enum kp_method method, struct kp_str path, unsigned *allowed);
/* What stands for the {name} of the row's path: an argument for kp_check, beside those of body and query. False: the row has none. */
struct kp_arg;
KP_API bool kp_command_path_arg(const struct kp_command *c, struct kp_str path, struct kp_arg *out);
/* Whether the row may stand in a queue entry or a batch: what moves, switches or reads. */
KP_API bool kp_command_nests(const struct kp_command *c);

/* ---- arguments against the registry (check.c) -------------------------------------------------------------------------- */

struct kp_arg { struct kp_str name; struct kp_value value; bool text; /* from a query string: "1.5" may stand for a number */ };

/* A checked call: every number finite and in range, every name looked up. */
/* num: NUM, INT. flag: BOOL. index: a part of the machine, the row of a COMMAND, which word of a CHOICE. text: the name or TEXT as given. */
struct kp_slot { bool set; double num; bool flag; int index; bool inverted; unsigned axes; /* bit i: axis i */ char text[KP_TEXT_MAX]; };
struct kp_call {
    const struct kp_command *command;
    struct kp_slot slot[16];              /* by the parameter's place in the row; unset ones hold the default (num NAN when there is none) */
    bool axis_set[KP_AXES_MAX];           /* KP_EXTRA_AXES: targets of extra axes */
    double axis[KP_AXES_MAX];
    double timeout_s;
};

/* Checks all arguments; every fault is added to *f with the parameter's name. An unknown parameter, a repeated one, a wrong type, a missing one and a value
 * out of the row's range are faults here; limits of the machine, homing and interlocks are kp_seq_plan's. Text from outside never leaves this function but as
 * a checked name, a number or (KP_P_TEXT) a free text of at most KP_TEXT_MAX-1 bytes for the log, control characters replaced. */
KP_API enum kp_err kp_check(const struct kp_machine *m, const struct kp_command *c, const struct kp_arg *args, size_t count, struct kp_call *out, struct kp_faults *f);
/* The slot of a parameter by name; asserts that the row has it. */
KP_API const struct kp_slot *kp_call_slot(const struct kp_call *call, const char *param);

/* What a call asks of the machine, by its row and arguments. */
KP_API enum kp_ask kp_safety_ask(const struct kp_call *call);
/* Whether the command may run now, by the interlocks' table: latch, Moonraker, Klipper's state, print running, homed axes. One fault each, the most severe
 * first. The travel height is kp_seq_plan's, which knows every leg. */
KP_API enum kp_err kp_safety_gate(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f);

/* ---- sequences (sequence.c, translate.c) ------------------------------------------------------------------------------- */

/* What a command does to Klipper, planned whole and checked whole before its first script goes out. */
enum kp_act { KP_ACT_SCRIPT, KP_ACT_SAMPLE, KP_ACT_SETTLE, KP_ACT_DELAY, KP_ACT_DONE, KP_ACT_FAIL };
enum kp_event { KP_EV_START, KP_EV_OK, KP_EV_SAMPLE, KP_EV_TIME, KP_EV_REPLACED, KP_EV_ERROR };

#define KP_PIN_GAP_MS 100 /* Klipper changes a pin no more often */

struct kp_action {
    enum kp_act kind;
    const char *text;     /* SCRIPT: one script for Klipper, 0-ended, borrowed from the sequence */
    const char *step;     /* name of the step: "travel", "pick", "verify_pick", ... */
    int sensor;           /* SAMPLE: the caller answers with the first value sampled after now, i.e. from the first push at least report_ms from now */
                          /* SETTLE: the caller answers KP_EV_OK at the first push that covers the script before it and shows the written pins */
    int64_t after_ms;     /* DELAY: not before this long after the sequence's first script was accepted; see below */
    struct kp_error error;/* FAIL */
};

/* DELAY: a ramp gives the lane back between its steps. The caller then
 * - takes the sequence off the lane and keeps it beside; other commands run, and any number of ramps may lie there, one of a pin;
 * - when after_ms are over, and KP_PIN_GAP_MS since the sequence's last script was accepted, and the lane is free (no script in flight, no sequence between
 *   two of its steps): asks kp_safety_gate with its call, ends it by KP_EV_ERROR when that refuses, else steps it by KP_EV_TIME with value the milliseconds
 *   since its first script was accepted. It then has one script, whose KP_EV_OK leads to the next DELAY or to DONE. A step that is due goes before the lane's
 *   next command. Steps whose time passed while the lane was taken are left out, never the last one;
 * - after each accepted script of another sequence, or of the G-code port, that wrote the pin which kp_seq_leads names: steps it by KP_EV_REPLACED; it is DONE,
 *   and its result says so. A later ramp of the same pin replaces it so by its own first script;
 * - at an emergency stop, and when Klipper is not ready any more: KP_EV_ERROR, as for the sequence that has the lane.
 * The client's time goes on meanwhile; a ramp that nobody waits for goes on to its end. */
struct kp_pin_write { int pin; double value; };
struct kp_axis_write { int axis; double position; bool homed; };

struct kp_result {
    bool moved;                    /* target below is where the last accepted script left the toolhead */
    double target[3];              /* machine coordinates; NAN: an axis that no script moved */
    double pick[3], place[3];      /* tip coordinates, pick_and_place */
    int attempts;
    bool has_level; double level;  /* last vacuum level measured */
    bool vacuum_enabled;
    unsigned homed;                /* home: axes asked for */
    double value;                  /* what switches one thing: the value, speed or power sent, 0-1, in the sense asked for */
    bool completed;                /* the machine has done it, not only accepted it */
    double late_ms;                /* ramp: how much later than asked for its last step went out */
    bool replaced;                 /* ramp: another command wrote the pin before the end */
};

struct kp_seq;

/* True when kp_seq_plan reads the commanded position for this call, so that it must be fresh: a relative move, a move past an interlock, pick, place.
 * Never true for a row without KP_NEEDS_POSITION. */
KP_API bool kp_call_needs_position(const struct kp_machine *m, const struct kp_call *call);

/* Plans a checked call of strategy KP_GCODE from the machine's present state, all its scripts ahead, and checks every step: limits of Klipper and
 * klipperplace.cfg against machine coordinates, heights, interlocks, command words that Klipper lacks. Every fault is added to *f; nothing has been sent then.
 * `flush` asks for an end that makes accepted moves start even when more follow at once (see docs/architecture.md, short moves).
 * Gives *out. KP_INTERNAL_ERROR: out of memory. */
KP_API enum kp_err kp_seq_plan(struct kp_seq **out, const struct kp_machine *m, const struct kp_call *call, bool flush, struct kp_faults *f);
KP_API void kp_seq_free(struct kp_seq *s);
/* Tells the sequence what happened and gets what to do next. KP_EV_START first; KP_EV_OK after a script or settle that worked; KP_EV_SAMPLE with value, or with
 * NAN and, where it is known, what the sensor does instead as the message of *error ("has a fault (5.00 V is out of range)"), else NULL; KP_EV_ERROR with
 * *error (borrowed) for a script that failed, a foreign move, a lost connection: the answer is then KP_ACT_FAIL, or, where Klipper refused a script
 * (KP_EXECUTION_FAILED) that left something to undo, first the script that does. Where Klipper's words in *error are those of a PNP_WAIT in the script the
 * answer is KP_ACT_SETTLE: the script has put the client's state back, what it wrote and where it ended is told from then on as of one that was accepted, and
 * KP_EV_OK leads to the next try or to the failure. After DONE or FAIL it must not be called again. */
KP_API bool kp_seq_answers(enum kp_act act, enum kp_event ev); /* the table of what an action may be answered with; START comes before any */
KP_API void kp_seq_step(struct kp_seq *s, enum kp_event ev, double value, const struct kp_error *error, struct kp_action *out);
/* A line of Klipper's console while a script of the sequence runs: a PNP_WAIT that was met tells its level there. Others say nothing to it. */
KP_API void kp_seq_heard(struct kp_seq *s, const char *line);
/* The pin that a ramp leads until it is done, -1: none. */
KP_API int kp_seq_leads(const struct kp_seq *s);
KP_API const struct kp_result *kp_seq_result(const struct kp_seq *s);
/* Pins that the last script wrote, in order; *count of them. */
KP_API const struct kp_pin_write *kp_seq_writes(const struct kp_seq *s, size_t *count);
/* Where the last script left extra axes, in order; *count of them. */
KP_API const struct kp_axis_write *kp_seq_axis_writes(const struct kp_seq *s, size_t *count);
/* Where the toolhead must stand after the last script; false when that script did not say (homing). Axes that were not moved are NAN. */
KP_API bool kp_seq_expected(const struct kp_seq *s, double xyz[3]);
/* The lines of all scripts given out so far, in order, before KP_EV_START of those of a plan that goes well: the i-th line, NULL past the last. For the answer's
 * `gcode`. Of very many tries the last ones, of a ramp the first. */
KP_API const char *kp_seq_gcode(const struct kp_seq *s, size_t i);

/* Scripts of ours outside any sequence.
 * Every sequence saves Klipper's G-code state (everybody's: G90/G91, offsets, speed factor, feedrate), restores a neutral one that was saved once per ready,
 * and puts the client's back at its end. kp_script_neutral builds the script that makes and saves the neutral state, from a fresh commanded position; returns
 * its length, 0 while the position is unknown. A script that failed in its middle never reached its restore: kp_script_restore does it. */
KP_API size_t kp_script_neutral(const struct kp_machine *m, char out[KP_SCRIPT_MAX]);
/* The script that joins an extra axis to moves, at 0, whether it is joined already or not. A Klipper without GCODE_AXIS refuses it, and has done nothing: its
 * first line would be one with a bad SPEED there. Returns its length; 0: it cannot be written. */
KP_API size_t kp_script_join(const struct kp_machine *m, int axis, char out[KP_SCRIPT_MAX]);
KP_API size_t kp_script_unjoin(const struct kp_machine *m, int axis, char out[KP_SCRIPT_MAX]);
KP_API const char *kp_script_restore(void);
/* Moves accepted so far start although none follows. */
KP_API const char *kp_script_flush(void);
/* Waits until all motion has ended and makes Klipper say where the head is (kp_script_where reads its line), in machine coordinates whoever set an offset. A
 * Klipper that shut down meanwhile fails it. spaced: a pin was written again so soon that Klipper, which leaves 100 ms between two changes, may be late with it. */
KP_API const char *kp_script_barrier(bool spaced);
/* Klipper's answer to M114, "X:1.000 Y:2.000 Z:3.000 E:0.000": false when the line is none. */
KP_API bool kp_script_where(struct kp_str line, double xyz[3]);
/* The first word of the i-th line of a script: true and *word while there is one. */
KP_API bool kp_script_word(const char *script, size_t i, struct kp_str *word);

/* ---- the cache (cache.c) ------------------------------------------------------------------------------------------------ */

#define KP_CACHE_KEY_MAX 63            /* bytes of a key, at least 1 */
#define KP_CACHE_VALUE_MAX 65536       /* bytes of a value */
#define KP_CACHE_TTL_MAX_MS 2000000000 /* 23 days */
#define KP_CACHE_ENTRIES_MAX 65000     /* most that kp_cache_options.entries may ask for */

/* category, how long its values are fresh in ms when nobody says otherwise */
#define KP_CATEGORIES(X) \
    X(GPIO, "gpio", 1000) X(SENSOR, "sensor", 500) X(POSITION, "position", 100) X(FAN, "fan", 1000) \
    X(PWM, "pwm", 1000) X(PRINTER, "printer", 2000) X(ACTUATOR, "actuator", 1000)

enum kp_category {
#define KP_X(name, text, ttl) KP_CACHE_##name,
    KP_CATEGORIES(KP_X)
#undef KP_X
    KP_CATEGORY_COUNT
};
KP_API const char *kp_category_name(enum kp_category category); /* "gpio" */
KP_API bool kp_category_by_name(struct kp_str name, enum kp_category *out);

struct kp_cache_options {
    size_t entries;                    /* most entries, 10,000; the least recently used makes room */
    size_t bytes;                      /* most bytes of values too long for their entry (key and value over 173), 8 MiB; at least KP_CACHE_VALUE_MAX */
    int64_t ttl_ms[KP_CATEGORY_COUNT]; /* by category; 0: only a push makes it fresh */
    int64_t keep_ms;                   /* a stale value stays readable for so long, 24 h; INT64_MAX: for ever */
    int64_t push_ms;                   /* a pushed value is fresh while the last push is younger, 1000; 0: pushes only restart its TTL */
    uint64_t seed;                     /* of the hash: a random one where clients choose keys */
};

/* A value to keep. Key and value are copied; neither may be borrowed from the same cache. */
struct kp_cache_row {
    enum kp_category category;
    struct kp_str key;   /* any bytes, by habit "gpio:PB5" */
    struct kp_str value; /* any bytes: the answer as it is sent, so that a hit costs no printing; may be empty */
    int64_t ttl_ms;      /* 0: the category's */
    bool pushed;         /* subscribed: every push says again that it holds (kp_cache_pushed) */
};

enum kp_cache_found { KP_CACHE_NONE, KP_CACHE_FRESH, KP_CACHE_STALE };
/* What was found. Borrowed until the next call that may change an entry: set, invalidate, clean. */
struct kp_cached {
    struct kp_str value;
    enum kp_category category;
    int64_t told_ms; /* when it was set or, pushed, last said to hold */
    int64_t age_ms;  /* since then, never below 0 */
};

/* What to do with entries that no longer hold: forget them, or keep them as stale until they are set again. */
enum kp_cache_how { KP_CACHE_DROP, KP_CACHE_EXPIRE };

/* An entry worth asking for again. Key borrowed as in kp_cached. */
struct kp_cache_hint { enum kp_category category; struct kp_str key; };

struct kp_cache_stats {
    uint64_t hits;      /* fresh answers */
    uint64_t stale;     /* stale answers, on request */
    uint64_t misses;    /* gets without an answer */
    uint64_t sets;
    uint64_t evictions; /* entries that made room for others */
    uint64_t cleaned;   /* entries removed by kp_cache_clean */
    size_t entries, bytes; /* now; bytes as kp_cache_options counts them */
};

struct kp_cache;

KP_API void kp_cache_defaults(struct kp_cache_options *o);
/* Gives an empty cache with all its entries' memory; o NULL: the defaults. KP_INVALID_PARAMETER, KP_INTERNAL_ERROR: out of memory. */
KP_API enum kp_err kp_cache_new(struct kp_cache **out, const struct kp_cache_options *o, struct kp_error *e);
KP_API void kp_cache_free(struct kp_cache *c);
/* Keeps a value as told at now_ms, in place of the key's old one. On a fault (key or value too long, no memory) the old one is forgotten: it no
 * longer holds. Allocates only for a value longer than its entry has room for. */
KP_API enum kp_err kp_cache_set(struct kp_cache *c, const struct kp_cache_row *row, int64_t now_ms, struct kp_error *e);
/* The key's value while it is fresh, that is younger than its TTL, or stale where stale_ok. Every get of an entry counts as its use. */
KP_API enum kp_cache_found kp_cache_get(struct kp_cache *c, struct kp_str key, bool stale_ok, int64_t now_ms, struct kp_cached *out);
/* A push came: every entry set with `pushed` is as it was last set. Constant time. Pushed entries are to be expired when the subscription ends. */
KP_API void kp_cache_pushed(struct kp_cache *c, int64_t now_ms);
/* Entries that no longer hold: by key (true: it was there), by pattern ('*' any bytes, '?' one byte, all else itself), by category; how many. */
KP_API bool kp_cache_invalidate(struct kp_cache *c, struct kp_str key, enum kp_cache_how how);
KP_API size_t kp_cache_invalidate_pattern(struct kp_cache *c, struct kp_str pattern, enum kp_cache_how how);
KP_API size_t kp_cache_invalidate_category(struct kp_cache *c, enum kp_category category, enum kp_cache_how how);
/* Looks at the next `steps` entries and removes those stale for keep_ms; returns how many. Calls go round all entries. */
KP_API size_t kp_cache_clean(struct kp_cache *c, int64_t now_ms, size_t steps);
/* Looks at the next `steps` entries for those that somebody got since they were set and that are fresh for at most lead_ms more; fills out, at most
 * `room`, and returns how many. An entry is told once until it is set again. */
KP_API size_t kp_cache_refresh(struct kp_cache *c, int64_t now_ms, int64_t lead_ms, size_t steps, struct kp_cache_hint *out, size_t room);
KP_API struct kp_cache_stats kp_cache_stats(const struct kp_cache *c);

/* ---- the queue (queue.c) ------------------------------------------------------------------------------------------------ */

#define KP_QUEUE_ID_MAX 40          /* bytes of an id with its 0: a UUID has 36 characters */
#define KP_QUEUE_PARAMS_MAX 65536   /* bytes of one entry's parameters */
#define KP_QUEUE_ENTRIES_MAX 100000 /* most that kp_queue_options.entries and history may ask for */

enum kp_queue_state { KP_Q_PENDING, KP_Q_EXECUTING, KP_Q_DONE, KP_Q_FAILED, KP_Q_CANCELLED, KP_Q_INTERRUPTED, KP_Q_STATES };
/* LOSE: nobody can tell any more whether it ran. RESTORE: read from the journal at start. */
enum kp_queue_event { KP_QE_TAKE, KP_QE_SUCCEED, KP_QE_FAIL, KP_QE_CANCEL, KP_QE_EXPIRE, KP_QE_LOSE, KP_QE_RESTORE, KP_QE_EVENTS };

KP_API const char *kp_queue_state_name(enum kp_queue_state state); /* "pending" */
KP_API bool kp_queue_state_by_name(struct kp_str name, enum kp_queue_state *out);
/* The table of legal moves: true and *next where the event is legal. */
KP_API bool kp_queue_next(enum kp_queue_state state, enum kp_queue_event event, enum kp_queue_state *next);

/* Why nothing is taken, as bits. The queue goes on when none is left. */
enum kp_queue_hold {
    KP_HOLD_PAUSED = 1,      /* a client asked */
    KP_HOLD_INTERRUPTED = 2, /* an entry was interrupted: a person looks first */
    KP_HOLD_SAFETY = 4,      /* a limit, an emergency stop */
    KP_HOLD_PRINT = 8,       /* a file print runs */
    KP_HOLD_ALL = 15
};

/* One command to queue; all of it is copied. */
struct kp_queue_item {
    struct kp_str id;      /* the caller's UUID: 1 to KP_QUEUE_ID_MAX-1 characters of [0-9A-Za-z_-], new to the queue and its history */
    struct kp_str command; /* "move": a name for kp_name_ok */
    struct kp_str params;  /* opaque bytes, at most KP_QUEUE_PARAMS_MAX */
    int priority;          /* higher goes first; order is kept inside one */
    uint64_t batch;        /* entries that came together share the caller's number; 0: alone */
    bool stop_on_error;    /* when an entry of the batch fails, this one is cancelled if it is still pending */
    int64_t wait_ms;       /* fails with KP_TIMEOUT when it is still pending so long after it was added; 0: waits for ever */
    int64_t timeout_ms;    /* fails with KP_TIMEOUT when it executes for so long; 0: no limit */
};

/* An entry as it stands. Borrowed until the next call that changes the queue. */
struct kp_queue_entry {
    char id[KP_QUEUE_ID_MAX], command[KP_NAME_MAX];
    struct kp_str params;        /* not kept in the history: empty there */
    int priority;
    uint64_t batch;
    bool stop_on_error;
    bool running;                /* executing, or timed out and not yet finished: it holds the lane */
    enum kp_queue_state state;
    enum kp_err result;          /* KP_OK until it ended otherwise */
    int64_t wait_ms, timeout_ms;
    int64_t added_ms, started_ms, ended_ms; /* INT64_MIN: not yet */
};

struct kp_queue_options {
    size_t entries; /* most entries pending or executing, 1000 */
    size_t history; /* most ended entries remembered, 1000 */
    size_t bytes;   /* most bytes of parameters in all, 8 MiB */
    /* Told of every entry that is new or changed its state, also by a late finish: for journal and subscribers. The entry, with its parameters, is borrowed
     * until it returns. It must not call the queue. NULL: nobody. */
    void (*changed)(void *context, const struct kp_queue_entry *entry);
    void *context;
};

struct kp_queue_counts {
    size_t pending, executing, history;
    size_t bytes;                   /* of parameters */
    uint64_t total[KP_Q_STATES];    /* entries that ever came into this state */
};

struct kp_queue;

KP_API void kp_queue_defaults(struct kp_queue_options *o);
/* Gives an empty queue; o NULL: the defaults. KP_INVALID_PARAMETER, KP_INTERNAL_ERROR: out of memory. */
KP_API enum kp_err kp_queue_new(struct kp_queue **out, const struct kp_queue_options *o, struct kp_error *e);
KP_API void kp_queue_free(struct kp_queue *q);

/* Adds all items in their order, or none. KP_QUEUE_FULL: no room for all of them; KP_INVALID_PARAMETER: the field that is wrong, or an id that is there
 * already; KP_PAYLOAD_TOO_LARGE: parameters; KP_INTERNAL_ERROR: out of memory. */
KP_API enum kp_err kp_queue_add(struct kp_queue *q, const struct kp_queue_item *items, size_t count, int64_t now_ms, struct kp_error *e);
/* An entry of the journal, in the order they were added. Pending ones wait again (from now_ms), ended ones go to the history, one that was executing
 * is interrupted and holds the queue: it may have run, so it is never sent again. Only that one is told of by `changed`. Faults as for kp_queue_add. */
KP_API enum kp_err kp_queue_restore(struct kp_queue *q, const struct kp_queue_item *item, enum kp_queue_state state, enum kp_err result, int64_t now_ms,
    struct kp_error *e);

/* Makes the next entry executing. NULL: nothing waits, the queue is held, or an entry still runs. Time limits are kept by kp_queue_expire alone: call
 * it before. */
KP_API const struct kp_queue_entry *kp_queue_take(struct kp_queue *q, int64_t now_ms);
/* The running entry ended: KP_OK done, KP_OUTCOME_UNKNOWN interrupted (holds the queue, its batch stays), anything else failed. After a timeout it only
 * frees the lane. KP_NOT_FOUND: no such entry; KP_INVALID_REQUEST: it does not run. */
KP_API enum kp_err kp_queue_finish(struct kp_queue *q, struct kp_str id, enum kp_err result, int64_t now_ms, struct kp_error *e);
/* The same for a failure that somebody was asked about and wants passed over: the rest of its batch goes on, whatever its stop_on_error. */
KP_API enum kp_err kp_queue_skip(struct kp_queue *q, struct kp_str id, enum kp_err result, int64_t now_ms, struct kp_error *e);
/* Cancels a pending entry. KP_NOT_FOUND; KP_INVALID_REQUEST: it executes or has ended. */
KP_API enum kp_err kp_queue_cancel(struct kp_queue *q, struct kp_str id, int64_t now_ms, struct kp_error *e);
/* Cancels all that is pending; returns how many. What runs goes on. */
KP_API size_t kp_queue_clear(struct kp_queue *q, int64_t now_ms);
/* Fails what is past its time with KP_TIMEOUT; returns how many. Time counts while the queue is held too. An entry that timed out while it ran keeps
 * the lane until kp_queue_finish: what it sent may still run. */
KP_API size_t kp_queue_expire(struct kp_queue *q, int64_t now_ms);
/* When kp_queue_expire has work next; INT64_MAX: never. */
KP_API int64_t kp_queue_deadline(const struct kp_queue *q);

/* Adds reasons to hold, or takes them away (a client's resume: KP_HOLD_PAUSED | KP_HOLD_INTERRUPTED). What runs goes on. */
KP_API void kp_queue_pause(struct kp_queue *q, unsigned holds);
KP_API void kp_queue_resume(struct kp_queue *q, unsigned holds);
KP_API unsigned kp_queue_holds(const struct kp_queue *q);

/* The entry that runs, NULL when none does. */
KP_API const struct kp_queue_entry *kp_queue_running(const struct kp_queue *q);
/* The i-th pending entry in the order they go, the i-th ended one with the last first; NULL past the last. */
KP_API const struct kp_queue_entry *kp_queue_pending(const struct kp_queue *q, size_t i);
KP_API const struct kp_queue_entry *kp_queue_history(const struct kp_queue *q, size_t i);
/* Any entry by id; NULL: not there, or no longer remembered. */
KP_API const struct kp_queue_entry *kp_queue_find(const struct kp_queue *q, struct kp_str id);
/* 1 for the entry that goes next; 0: it is not pending. */
KP_API size_t kp_queue_position(const struct kp_queue *q, struct kp_str id);
KP_API struct kp_queue_counts kp_queue_counts(const struct kp_queue *q);

/* ---- lines of G-code (gcode.c) -------------------------------------------------------------------------------------- */

#define KP_LINE_MAX 256         /* bytes of a line without its end; a longer one is refused */
#define KP_LINE_WORDS_MAX 64    /* words (or parameters) of one line */
#define KP_LINE_COMMANDS_MAX 16 /* commands on one line */

/* A word behind its command: "X20.5", or "PIN=valve1" behind a named one. Places are into the line's text. */
struct kp_gcode_word {
    double value;         /* NAN: not a number ("G28 X", PIN=valve1) */
    char letter;          /* 'X'; 0: a named parameter */
    char quote;           /* the value stood in these; 0: in none */
    uint16_t column;      /* of its first byte in the line, from 1 */
    uint16_t key, key_size, text, text_size; /* the key in upper case (the letter, as written); the digits or the value */
};

struct kp_gcode_command {
    char letter;          /* 'G', 'M' or 'T'; 0: a named command, which has its line for itself */
    uint16_t column;      /* from 1 */
    uint32_t code;        /* ten times its number: G38.2 is 382 */
    uint16_t name, name_size; /* place in the text, in upper case; a classic one: letter and number as written */
    uint16_t first, count;    /* its words */
};

/* A line taken apart; nothing in it points anywhere, so it may be copied. A comment alone is a line without commands. */
struct kp_gcode_line {
    int32_t number;       /* N; -1: none */
    uint16_t size, command_count, word_count;
    struct kp_gcode_command commands[KP_LINE_COMMANDS_MAX];
    struct kp_gcode_word words[KP_LINE_WORDS_MAX];
    char text[KP_LINE_MAX];
};

/* What is wrong with a line, and where. */
struct kp_gcode_fault {
    size_t column;          /* from 1 */
    char text[KP_NAME_MAX]; /* what stands there, control characters shown as '?' */
    struct kp_error error;
};

/* Takes one line apart, given without its end: an N number, commands G M T with their words in any case, with or without blanks,
 * or one named command with KEY=value and quoted values; `;` and ( ) comments; a `*` checksum, verified. Numbers have no
 * exponent. On a fault *out is not defined. fault may be NULL. */
KP_API enum kp_err kp_gcode_parse(struct kp_str text, struct kp_gcode_line *out, struct kp_gcode_fault *fault);
/* Writes the line back, without comment and checksum; out has KP_LINE_MAX + 1 bytes. It parses to the same line, places apart. Returns the length. */
KP_API size_t kp_gcode_print(const struct kp_gcode_line *line, char *out);
/* The key ("PIN", "X") and the text ("valve1", "20.5") of a word; the name of a command ("SET_PIN", "G1"). Borrowed from the line. */
KP_API struct kp_str kp_gcode_key(const struct kp_gcode_line *line, const struct kp_gcode_word *w);
KP_API struct kp_str kp_gcode_text(const struct kp_gcode_line *line, const struct kp_gcode_word *w);
KP_API struct kp_str kp_gcode_name(const struct kp_gcode_line *line, const struct kp_gcode_command *c);

/* Lines out of a stream of bytes, in the caller's storage; all zero is a new one. */
struct kp_gcode_reader {
    uint64_t lines; /* ended so far, blank ones too: the number of the line just told */
    size_t size;    /* this and what follows are the reader's own */
    bool after_cr, too_long, stopped;
    unsigned char mode, match;
    char text[KP_LINE_MAX];
};

enum kp_gcode_event {
    KP_GCODE_MORE, /* all bytes are taken */
    KP_GCODE_LINE, /* *line is one */
    KP_GCODE_BAD,  /* a line with a fault; the next one begins afresh */
    KP_GCODE_STOP, /* an M112 has gone by, outside comments and quotes, be its line whole or good or not; the line itself follows */
};
/* Takes bytes from *in, which moves on, until something is there to tell. Lines end in LF, CR or CRLF; blank ones are passed
 * over. At the end of a stream feed "\n". */
KP_API enum kp_gcode_event kp_gcode_feed(struct kp_gcode_reader *r, struct kp_str *in, struct kp_gcode_line *line, struct kp_gcode_fault *fault);

/* ---- what lines mean (modal*.c) -------------------------------------------------------------------------------------- */

#define KP_MAPPINGS_MAX 64      /* rows of command_mappings */
#define KP_MAPPING_TEXT_MAX 512 /* bytes of one row's templates with a 0 */
#define KP_LINE_WRITES_MAX 16   /* pins that one line writes */

/* command_mappings of the configuration: a command of ours is a list of others. Shared by any number of kp_modal, which borrow it. */
struct kp_mappings;
/* Gives an empty list. NULL when out of memory. */
KP_API struct kp_mappings *kp_mappings_new(void);
KP_API void kp_mappings_free(struct kp_mappings *maps);
/* Adds ("OPENPNP_ACTUATE_ON", "['SET_PIN PIN={pin} VALUE=1']"): one template, or a list in brackets. {pin} is filled with the
 * parameter PIN of the command, a number or a name that kp_name_ok takes. Each template is checked now as far as it can be. The
 * name is one of letters, digits and _, or a code ("M800"), that has no meaning here. A template's command that has none is sent
 * as it stands where Klipper has the word. */
KP_API enum kp_err kp_mappings_add(struct kp_mappings *maps, struct kp_str name, struct kp_str templates, struct kp_error *e);

/* Adds the rows of [gcode_driver] command_mappings; each fault is added to *f with the name of its command. */
KP_API enum kp_err kp_mappings_config(struct kp_mappings *maps, const struct kp_config *c, struct kp_faults *f);

struct kp_modal_options {
    const struct kp_mappings *mappings; /* borrowed for the life of the kp_modal; NULL: none */
    bool clamp;                         /* F and M204 S beyond the limits are put to the limit; false: refused */
    bool klipper_commands;              /* commands of Klipper's that have no meaning here are passed on, their values numbers or names */
    bool alone;                         /* Klipper is nobody else's (a file is converted): its G-code state is neither saved nor restored, M204 holds on */
};

/* The modal state of one client: G90 or G91, units, plane, feedrate (1500 mm/min until F), M204, a G92 offset of each axis, and where the last line ends.
 * Nothing of it is ever Klipper's: what is sent is absolute and in mm. */
struct kp_modal;

enum kp_gcode_kind {
    KP_DO_SCRIPT,   /* text: for Klipper */
    KP_DO_HOME,     /* text; see resync */
    KP_DO_WAIT,     /* text: M400. Done when motion has ended and pins written before have acted */
    KP_DO_ENDSTOPS, /* text: QUERY_ENDSTOPS; then the client wants to be told */
    KP_DO_PAUSE,    /* M0, M1: the stream stands until somebody lets it go on */
    KP_DO_SENSORS,  /* M105: tell the sensors */
    KP_DO_POSITION, /* M114: tell position[] */
    KP_DO_VERSION,  /* M115: tell name and version */
    KP_DO_STOP,     /* M112: emergency stop */
};

/* One thing to do for a line. */
struct kp_gcode_action {
    enum kp_gcode_kind kind;
    const char *text;   /* one script for Klipper, 0-ended, borrowed until the next call with this kp_modal; NULL: none */
    bool resync;        /* when it is done and Klipper's status is fresh: kp_modal_sync, before any further line */
    bool settle;        /* done when the pins it writes have changed, not when Klipper has accepted it (M42, an M-number with done: acted) */
    double target[3];   /* machine coordinates where the toolhead is after it; NAN: not known */
    double position[KP_AXES_MAX]; /* KP_DO_POSITION: by axis, in the client's coordinates and units; NAN: not known, or no such axis */
    double offset[KP_AXES_MAX], unit[KP_AXES_MAX]; /* KP_DO_POSITION: what makes these of machine coordinates: (machine - offset) / unit */
    const struct kp_pin_write *writes;   /* pins it writes, in order; borrowed like text */
    size_t write_count;
    const struct kp_axis_write *axes;    /* where it leaves extra axes; borrowed like text */
    size_t axis_count;
};

/* Gives the state of a new connection; reads the machine as kp_modal_restart does. Borrows m. NULL when out of memory. options may be NULL. */
KP_API struct kp_modal *kp_modal_new(const struct kp_machine *m, const struct kp_modal_options *options);
KP_API void kp_modal_free(struct kp_modal *g);
/* After each kp_machine_resolve: reads axes and command words again; offsets are 0 again, mode, units, plane and feedrate stay. Then as kp_modal_sync. */
KP_API void kp_modal_restart(struct kp_modal *g);
/* Drops actions not yet taken and reads from the machine where it stands and what is homed. For a moment when nothing of this client is under way: after an
 * action with resync, a script that failed, somebody else's move. */
KP_API void kp_modal_sync(struct kp_modal *g);
/* The same of extra axes alone, which others move as well. Before each line, when all of the lines before it has been answered. */
KP_API void kp_modal_sync_extra(struct kp_modal *g);
/* A script that failed never reached its end: besides kp_script_restore, this puts Klipper's acceleration back. NULL: it is as it was. Borrowed like text. */
KP_API const char *kp_modal_put_back(struct kp_modal *g);
/* True for a line whose check or meaning hangs on where the machine stands: moves, arcs, homing, offsets, mapped commands. */
KP_API bool kp_modal_needs_place(const struct kp_modal *g, const struct kp_gcode_line *line);
/* Checks a whole line by the machine's limits and state; then its commands are its actions and the modal state is what they make
 * of it. A fault changes nothing. All actions of the line before must have been taken. fault may be NULL. */
KP_API enum kp_err kp_modal_line(struct kp_modal *g, const struct kp_gcode_line *line, struct kp_gcode_fault *fault);
/* The next action; false: there is none. Several commands are one script where they can be; a long arc is many. */
KP_API bool kp_modal_next(struct kp_modal *g, struct kp_gcode_action *out);

/* ---- retries and the breaker (breaker.c) ---------------------------------------------------------------------------------- */

#define KP_BREAKER_RETRIES 5      /* of a read that failed on a live connection */
#define KP_BREAKER_JITTER 0.1     /* the share by which a retry may come sooner or later than planned */
#define KP_BREAKER_FAILURES 5     /* in a row open a closed one */
#define KP_BREAKER_OPEN_MS 60000  /* so long it lets nothing through */
#define KP_BREAKER_SUCCESSES 3    /* in a row close a half-open one; one failure opens it */

enum kp_breaker_state { KP_BREAKER_CLOSED, KP_BREAKER_HALF_OPEN, KP_BREAKER_OPEN, KP_BREAKER_STATES };
/* FAILED: no answer in time, or an error of the other side's own; a refusal, a wrong question and a lost connection are no event. DUE: the time may be over.
 * BACK: the other side is there again. */
enum kp_breaker_event { KP_BREAKER_FAILED, KP_BREAKER_WORKED, KP_BREAKER_DUE, KP_BREAKER_BACK, KP_BREAKER_EVENTS };

/* The caller's storage, one an operation; all zero is closed and new. */
struct kp_breaker {
    enum kp_breaker_state state;
    enum kp_breaker_event last; /* and how many of it came in a row in this state */
    unsigned count;
    int64_t opened_ms;
};

KP_API const char *kp_breaker_name(enum kp_breaker_state state); /* "closed", "half_open", "open" */
/* Takes it through its table [state][event]. What ends while it is open, a call from before, changes nothing. */
KP_API void kp_breaker_step(struct kp_breaker *b, enum kp_breaker_event event, int64_t now_ms);
/* True when a call may go out; an open one whose time is over is half open then. */
KP_API bool kp_breaker_allows(struct kp_breaker *b, int64_t now_ms);
/* How long to wait before a read that failed is asked again, after so many retries: 1, 2, 4, 8, 16 s, sooner or later by jitter (0 to 1, drawn by the caller).
 * -1: never, it was asked often enough or deadline_ms (INT64_MAX: none) would have passed. */
KP_API int64_t kp_breaker_retry_ms(unsigned retries, double jitter, int64_t now_ms, int64_t deadline_ms);

KP_API const char *kp_version(void);

#ifdef __cplusplus
}
#endif
#endif
