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
#define KP_SCRIPT_MAX 1536   /* bytes of one script for Klipper with its 0 */
#define KP_FAULTS_MAX 32     /* faults kept of one request; more are counted in `dropped` */
#define KP_ARGS_MAX 32       /* parameters of one request */
#define KP_AXES_MAX 9        /* X Y Z and six lettered ones */
#define KP_PINS_MAX 256
#define KP_SENSORS_MAX 64
#define KP_NOZZLES_MAX 8
#define KP_FEEDERS_MAX 128
#define KP_COMMANDS_MAX 512  /* command words Klipper offers */
#define KP_STEPS_MAX 10      /* steps of one sequence */

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
    X(VACUUM_FAILED, 500, false) X(INTERLOCK, 409, false) X(OUTCOME_UNKNOWN, 502, false)

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

enum kp_type { KP_T_NUM, KP_T_INT, KP_T_BOOL, KP_T_STR, KP_T_NAME };

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

/* ---- the machine (machine.c): what Klipper is made of and how it stands ---------------------------------------------- */

enum kp_klippy { KP_KLIPPY_GONE, KP_KLIPPY_STARTUP, KP_KLIPPY_READY, KP_KLIPPY_ERROR, KP_KLIPPY_SHUTDOWN };

struct kp_axis {
    char letter;                    /* 'X' */
    bool rotary, homed, extra;      /* extra: a manual_stepper of ours, not a kinematic axis */
    char stepper[KP_NAME_MAX];      /* extra axes: the manual_stepper's name */
    double min, max;                /* mm or deg, machine coordinates; -INFINITY and INFINITY for a rotary axis */
    double velocity, acceleration;  /* extra axes: deg/s or mm/s; NAN otherwise */
    bool tracked;                   /* extra axes: position is the one Klipper holds, as our last accepted script left it */
    double position;                /* extra axes, Klipper's coordinate of that stepper */
};

enum kp_pin_kind { KP_PIN_OUTPUT, KP_PIN_PWM, KP_PIN_BUTTON, KP_PIN_SWITCH, KP_PIN_ENDSTOP };
struct kp_pin {
    char name[KP_NAME_MAX];         /* short name: "valve1" */
    char object[KP_NAME_MAX];       /* Klipper's section: "output_pin valve1"; endstops: "x" of query_endstops */
    char alias[KP_NAME_MAX];        /* by [pin NAME]; empty: none */
    char board[KP_NAME_MAX];        /* "PB5" without modifiers */
    char chip[KP_NAME_MAX];         /* "mcu" */
    bool inverted;                  /* "!" in Klipper's configuration */
    enum kp_pin_kind kind;
    double scale;                   /* outputs: SET_PIN's VALUE for full on (Klipper's `scale`), 1 otherwise; value below stays 0-1 */
    bool known;                     /* Klipper has told its value since it was last ready */
    double value;                   /* as Klipper tells it: 0-1, logical (after inversion) */
    int64_t changed_ms;             /* when it was last told; INT64_MIN: never. A value that is told but not known is stale */
    bool dirty;                     /* written by us and the write not yet seen in a push */
    double expected;                /* while dirty */
};

struct kp_sensor {
    char name[KP_NAME_MAX], object[KP_NAME_MAX], type[KP_NAME_MAX], unit[KP_NAME_MAX];
    double scale, offset;           /* value = raw * scale + offset */
    int64_t report_ms;              /* Klipper's own time between samples */
    bool known;
    double value;
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

struct kp_feeder {
    char name[KP_NAME_MAX], stepper[KP_NAME_MAX];
    double feedrate_mm_min, accel_mm_s2;
    char fault[KP_TEXT_MAX];
};

struct kp_limits {
    double max_velocity_mm_s, max_accel_mm_s2, min_feedrate_mm_min, max_feedrate_mm_min; /* INFINITY: not known */
    bool travel_interlock;          /* [vacuum]: XY is never crossed below travel height */
    int vacuum_retries;             /* [vacuum]: picks tried again where the request says nothing */
};

struct kp_machine;

/* Gives a machine with what the configuration says and nothing of Klipper. NULL when out of memory. Keeps no pointer to c. */
KP_API struct kp_machine *kp_machine_new(const struct kp_config *c);
KP_API void kp_machine_free(struct kp_machine *m);

/* Klipper went away or came back: forgets what it is made of (objects, settings, commands). Last values stay readable, as stale. */
KP_API void kp_machine_reset(struct kp_machine *m);
/* Rows of what Klipper says it is made of; any order; unknown ones are ignored. */
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
KP_API void kp_machine_klippy(struct kp_machine *m, enum kp_klippy state, const char *message);
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
KP_API const struct kp_limits *kp_machine_limits(const struct kp_machine *m);

/* Name look-up. A pin is found by alias, section ("output_pin valve1"), short name where only one has it, or board pin ("PA0", "mcu:PA0", "!PA0";
 * "!" asks for the inverted sense and is told in *inverted). Errors: PIN_NOT_FOUND, SENSOR_NOT_FOUND, NOZZLE_NOT_FOUND, FEEDER_NOT_FOUND; a short name
 * that two have is INVALID_PARAMETER with both. inverted may be NULL. */
KP_API enum kp_err kp_machine_find_pin(const struct kp_machine *m, struct kp_str name, int *index, bool *inverted, struct kp_error *e);
KP_API enum kp_err kp_machine_find_sensor(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API enum kp_err kp_machine_find_nozzle(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API enum kp_err kp_machine_find_feeder(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e);
KP_API int kp_machine_find_axis(const struct kp_machine *m, char letter); /* any case; -1: none */

/* Where the machine is. Each returns false while Klipper has not told it. */
KP_API bool kp_machine_position(const struct kp_machine *m, double xyz[3]);  /* live: where the head is, machine coordinates */
KP_API bool kp_machine_commanded(const struct kp_machine *m, double xyz[3]); /* where the last accepted move ends, machine coordinates */
KP_API bool kp_machine_gcode_state(const struct kp_machine *m, bool *absolute, double *feedrate_mm_min); /* of Klipper's G-code state, which is everybody's */
KP_API bool kp_machine_printing(const struct kp_machine *m);                 /* a file print is running */
/* A script that wrote the pin was accepted: it is dirty until a push at or after now_ms shows the value. */
KP_API void kp_machine_pin_written(struct kp_machine *m, int pin, double value, int64_t now_ms);

/* A script that moved or set an extra axis was accepted. */
KP_API void kp_machine_axis_written(struct kp_machine *m, int axis, double position, bool homed);

/* ---- safety (safety.c) ---------------------------------------------------------------------------------------------- */

enum kp_level { KP_NORMAL, KP_CAUTION, KP_WARNING, KP_CRITICAL, KP_EMERGENCY };
KP_API const char *kp_level_name(enum kp_level level);
KP_API enum kp_level kp_safety_level(const struct kp_machine *m);
/* The latch of an emergency stop. `ours` is true for a stop asked of us, false for one seen in Klipper (released when Klipper is ready again). */
KP_API void kp_safety_latch(struct kp_machine *m, bool ours, const char *reason);
KP_API void kp_safety_release(struct kp_machine *m);
KP_API bool kp_safety_latched(const struct kp_machine *m);
KP_API const char *kp_safety_reason(const struct kp_machine *m);

/* ---- the registry (command.c) ---------------------------------------------------------------------------------------- */

enum kp_method { KP_GET = 1, KP_POST = 2, KP_DELETE = 4, KP_PUT = 8 };
enum kp_role { KP_PUBLIC, KP_VIEWER, KP_OPERATOR, KP_ADMIN };
enum kp_rate { KP_RATE_NONE, KP_RATE_MOTION, KP_RATE_READ, KP_RATE_BATCH };
enum kp_strategy { KP_LOCAL, KP_DIRECT, KP_GCODE, KP_HYBRID };

enum kp_id {
    KP_MOVE, KP_HOME, KP_WAIT, KP_PICK, KP_PLACE, KP_PICK_AND_PLACE, KP_VACUUM_ON, KP_VACUUM_OFF, KP_VACUUM_SET,
    KP_GPIO_READ, KP_GPIO_WRITE, KP_GPIO_READ_ALL, KP_SENSOR_READ, KP_SENSOR_READ_ALL, KP_FEEDER_ADVANCE,
    KP_GET_STATUS, KP_GET_POSITION, KP_GET_VERSION, KP_EMERGENCY_STOP, KP_RESET,
};

enum kp_ptype { KP_P_NUM, KP_P_INT, KP_P_BOOL, KP_P_TEXT, KP_P_AXES, KP_P_PIN_IN, KP_P_PIN_OUT, KP_P_SENSOR, KP_P_NOZZLE, KP_P_FEEDER };

/* KP_P_PIN_IN takes any pin that can be read, KP_P_PIN_OUT one that can be written. */
enum kp_param_flag { KP_REQUIRED = 1 };

struct kp_param {
    const char *name;
    enum kp_ptype type;
    const char *unit;
    unsigned flags;
    double min, max;   /* NUM, INT; -INFINITY and INFINITY: the machine's limits or none */
    double def;        /* NUM, INT, BOOL; NAN: none */
    enum kp_err range; /* code of a value outside min..max; KP_OK means KP_INVALID_PARAMETER */
    const char *doc;
};

enum kp_command_flag {
    KP_NEEDS_HOMED = 1,       /* every kinematic axis it moves must be homed */
    KP_WHILE_STOPPED = 2,     /* allowed while the emergency stop is latched and while Klipper is not ready */
    KP_EXTRA_AXES = 4,        /* also takes the letters of the configured extra axes as parameters */
    KP_MOVES = 8,             /* moves or switches something: never sent twice, goes through the lane */
    KP_NEEDS_POSITION = 16,   /* planned from the commanded position: it must be fresh */
    KP_URGENT = 32,           /* goes by the urgent slot */
};

struct kp_command {
    enum kp_id id;
    const char *name;        /* "move" */
    enum kp_method method;
    const char *path;        /* below /api/v1/: "motion/move" */
    enum kp_strategy strategy;
    enum kp_role role;
    enum kp_rate rate;
    unsigned flags;
    double timeout_s;        /* default; 0: it takes no timeout_s */
    const struct kp_param *params; /* ended by a row without name */
    const char *doc;
};

KP_API const struct kp_command *kp_commands(size_t *count);
KP_API const struct kp_command *kp_command_by_name(struct kp_str name);
/* The row of a path below /api/v1/. NULL: no such path. *allowed (may be NULL) gets the methods the path knows; NULL with *allowed != 0: wrong method. */
KP_API const struct kp_command *kp_command_by_route(enum kp_method method, struct kp_str path, unsigned *allowed);

/* ---- arguments against the registry (check.c) -------------------------------------------------------------------------- */

struct kp_arg { struct kp_str name; struct kp_value value; bool text; /* from a query string: "1.5" may stand for a number */ };

/* A checked call: every number finite and in range, every name looked up. */
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

/* Whether the command may run now: latch, Moonraker, Klipper's state, print running, homed axes. One fault each, the most severe first. */
KP_API enum kp_err kp_safety_gate(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f);

/* ---- sequences (sequence.c, translate.c) ------------------------------------------------------------------------------- */

/* What a command does to Klipper, planned whole and checked whole before its first script goes out. */
enum kp_act { KP_ACT_SCRIPT, KP_ACT_SAMPLE, KP_ACT_SETTLE, KP_ACT_DONE, KP_ACT_FAIL };
enum kp_event { KP_EV_START, KP_EV_OK, KP_EV_SAMPLE, KP_EV_ERROR };

struct kp_action {
    enum kp_act kind;
    const char *text;     /* SCRIPT: one script for Klipper, 0-ended, borrowed from the sequence */
    const char *step;     /* name of the step: "travel", "pick", "verify_pick", ... */
    int sensor;           /* SAMPLE: the caller answers with the first value sampled after now, i.e. from the first push at least report_ms from now */
                          /* SETTLE: the caller answers KP_EV_OK at the first push that covers the script before it and shows the written pins */
    struct kp_error error;/* FAIL */
};

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
    bool completed;                /* the machine has done it, not only accepted it */
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
/* Tells the sequence what happened and gets what to do next. KP_EV_START first; KP_EV_OK after a script or settle that worked; KP_EV_SAMPLE with value; KP_EV_ERROR with
 * *error (borrowed) for a script that failed, a foreign move, a lost connection: the answer is then KP_ACT_FAIL. After DONE or FAIL it must not be called again. */
KP_API void kp_seq_step(struct kp_seq *s, enum kp_event ev, double value, const struct kp_error *error, struct kp_action *out);
KP_API const struct kp_result *kp_seq_result(const struct kp_seq *s);
/* Pins that the last script wrote, in order; *count of them. */
KP_API const struct kp_pin_write *kp_seq_writes(const struct kp_seq *s, size_t *count);
/* Where the last script left extra axes, in order; *count of them. */
KP_API const struct kp_axis_write *kp_seq_axis_writes(const struct kp_seq *s, size_t *count);
/* Where the toolhead must stand after the last script; false when that script did not say (homing). Axes that were not moved are NAN. */
KP_API bool kp_seq_expected(const struct kp_seq *s, double xyz[3]);
/* All scripts of the plan in order, one line each: the i-th line, NULL past the last. For the answer's `gcode`. */
KP_API const char *kp_seq_gcode(const struct kp_seq *s, size_t i);

/* Scripts of ours outside any sequence.
 * Every sequence saves Klipper's G-code state (everybody's: G90/G91, offsets, speed factor, feedrate), restores a neutral one that was saved once per ready,
 * and puts the client's back at its end. kp_script_neutral builds the script that makes and saves the neutral state, from a fresh commanded position; returns
 * its length, 0 while the position is unknown. A script that failed in its middle never reached its restore: kp_script_restore does it. */
KP_API size_t kp_script_neutral(const struct kp_machine *m, char out[KP_SCRIPT_MAX]);
KP_API const char *kp_script_restore(void);
/* Moves accepted so far start although none follows. */
KP_API const char *kp_script_flush(void);
/* The first word of the i-th line of a script: true and *word while there is one. */
KP_API bool kp_script_word(const char *script, size_t i, struct kp_str *word);

KP_API const char *kp_version(void);

#ifdef __cplusplus
}
#endif
#endif
