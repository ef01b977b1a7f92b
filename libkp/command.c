/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registry: every command, its parameters, flags, role and documentation, for router, check, gate and docs alike.
 * Invariant: a command exists here or nowhere; there is no second list. */
#include "kp.h"

#include <math.h>

#define END { .name = NULL }
#define ANY -INFINITY, INFINITY
#define MM(n, text) { n, KP_P_NUM, "mm", 0, ANY, NAN, KP_OK, text }
#define MM_REQUIRED(n, text) { n, KP_P_NUM, "mm", KP_REQUIRED, ANY, NAN, KP_OK, text }
#define FLAG(n, d, text) { n, KP_P_BOOL, "", 0, ANY, d, KP_OK, text }
#define NAMED(n, type, flags, text) { n, type, "", flags, ANY, NAN, KP_OK, text }
#define FEEDRATE { "feedrate", KP_P_NUM, "mm/min", 0, 1, 30000, NAN, KP_FEEDRATE_OUT_OF_BOUNDS, \
                   "Speed along the path; 1500 when left out. Extra axes alone: deg/min." }
#define POWER(n, flags, d) { n, KP_P_INT, "", flags, 0, 255, d, KP_PWM_OUT_OF_BOUNDS, "Pump power, 255 is full; a pump that is only on or off takes any as on, 0 as off." }
#define NOZZLE NAMED("nozzle", KP_P_NOZZLE, 0, "Nozzle; the first of klipperplace.cfg when left out.")
#define TIP NAMED("nozzle", KP_P_NOZZLE, 0, "x, y and z mean this nozzle's tip; the head when left out.")
#define WAIT(text) FLAG("wait", 0, text)
#define WAIT_PIN WAIT("Answer when motion before it has ended and Klipper shows the value.")
#define SECONDS(n, text) { n, KP_P_NUM, "s", 0, 0, 60, NAN, KP_OK, text }
#define TRAVEL(n) MM(n, "Z for crossing; the nozzle's travel_height, else its safe_z, when left out.")
#define VERIFY FLAG("verify", NAN, "Check by the vacuum sensor; true when left out and the nozzle has one.")

static const struct kp_param no_params[] = { END };

static const struct kp_param move_params[] = {
    MM("x", "Target X."), MM("y", "Target Y."), MM("z", "Target Z."),
    FEEDRATE,
    FLAG("relative", 0, "Targets are distances from where the last accepted move ends."),
    WAIT("Answer when the machine has arrived, not when Klipper has accepted."),
    TIP,
    END };

static const struct kp_param home_params[] = {
    NAMED("axes", KP_P_AXES, 0, "Axes to home; all when left out or empty."),
    END };

static const struct kp_param wait_params[] = {
    { "timeout", KP_P_NUM, "s", 0, 1, 600, NAN, KP_OK, "The same as timeout_s." },
    END };

static const struct kp_param pick_params[] = {
    MM("z", "Z at the part; the nozzle's pick_height when left out."),
    FEEDRATE,
    POWER("vacuum_power", 0, 255),
    TRAVEL("travel_height"),
    NOZZLE,
    SECONDS("dwell", "Time for the vacuum to build; the nozzle's dwell when left out."),
    VERIFY,
    END };

static const struct kp_param place_params[] = {
    MM("z", "Z of the tip when the part touches; the nozzle's place_height when left out."),
    FEEDRATE,
    TRAVEL("travel_height"),
    NOZZLE,
    SECONDS("dwell", "Time for the part to let go; the nozzle's dwell when left out."),
    SECONDS("blow_off", "Time of the blow-off; the nozzle's when left out, 0 for none."),
    VERIFY,
    END };

static const struct kp_param pick_and_place_params[] = {
    MM_REQUIRED("x", "Where the tip picks."), MM_REQUIRED("y", "Where the tip picks."),
    MM_REQUIRED("place_x", "Where the tip places."), MM_REQUIRED("place_y", "Where the tip places."),
    MM("pick_height", "Z at the part; the nozzle's pick_height when left out."),
    MM("place_height", "Z when the part touches; the nozzle's place_height when left out."),
    TRAVEL("safe_height"),
    FEEDRATE,
    POWER("vacuum_power", 0, 255),
    NOZZLE,
    { "rotation", KP_P_NUM, "deg", 0, -3600, 3600, NAN, KP_OK, "Turn of the part between pick and place, counterclockwise." },
    { "retries", KP_P_INT, "", 0, 0, 10, NAN, KP_OK, "Further picks when no part is held; [vacuum] retries when left out." },
    END };

static const struct kp_param vacuum_on_params[] = { POWER("power", 0, 255), NOZZLE, WAIT_PIN, END };
static const struct kp_param vacuum_off_params[] = { NOZZLE, WAIT_PIN, END };
static const struct kp_param vacuum_set_params[] = { POWER("power", KP_REQUIRED, NAN), NOZZLE, WAIT_PIN, END };

static const struct kp_param gpio_read_params[] = {
    NAMED("pin", KP_P_PIN_IN, KP_REQUIRED, "Alias, Klipper section, short name or board pin."),
    FLAG("live", 0, "Ask Klipper now."),
    END };

static const struct kp_param gpio_write_params[] = {
    NAMED("pin", KP_P_PIN_OUT, KP_REQUIRED, "Alias, Klipper section, short name or board pin."),
    { "value", KP_P_INT, "", KP_REQUIRED, 0, 1, NAN, KP_OK, "1 on, 0 off." },
    WAIT_PIN,
    END };

static const struct kp_param sensor_read_params[] = {
    NAMED("sensor", KP_P_SENSOR, KP_REQUIRED, "Sensor of klipperplace.cfg, or a temperature sensor of Klipper."),
    FLAG("live", 0, "Ask Klipper now."),
    END };

static const struct kp_param feeder_params[] = {
    NAMED("feeder", KP_P_FEEDER, 0, "Feeder; the one named feeder when left out."),
    { "distance", KP_P_NUM, "mm", KP_REQUIRED, 0.001, 1000, NAN, KP_OK, "How far the tape goes." },
    { "feedrate", KP_P_NUM, "mm/min", 0, 1, 30000, NAN, KP_FEEDRATE_OUT_OF_BOUNDS, "The feeder's, else 100, when left out." },
    END };

static const struct kp_param position_params[] = { FLAG("live", 0, "Ask Klipper now."), END };
static const struct kp_param stop_params[] = { NAMED("reason", KP_P_TEXT, 0, "For log and history."), END };

#define MOTION KP_GCODE, KP_OPERATOR, KP_RATE_MOTION
#define LOOK KP_DIRECT, KP_VIEWER, KP_RATE_READ, KP_WHILE_STOPPED, 0
#define HOMED (KP_MOVES | KP_NEEDS_HOMED)

static const struct kp_command rows[] = {
    { KP_MOVE, "move", KP_POST, "motion/move", MOTION, HOMED | KP_EXTRA_AXES | KP_NEEDS_POSITION, 30, move_params,
      "Straight move to machine coordinates." },
    { KP_HOME, "home", KP_POST, "motion/home", MOTION, KP_MOVES | KP_NEEDS_POSITION, 120, home_params,
      "Finds the end switches, Z first, and leaves Z at travel height." },
    { KP_WAIT, "wait", KP_POST, "motion/wait", MOTION, KP_MOVES, 30, wait_params,
      "Answers when all accepted motion has ended." },
    { KP_PICK, "pick", KP_POST, "pnp/pick", MOTION, HOMED | KP_NEEDS_POSITION, 30, pick_params,
      "Picks the part under the nozzle." },
    { KP_PLACE, "place", KP_POST, "pnp/place", MOTION, HOMED | KP_NEEDS_POSITION, 30, place_params,
      "Places the part that the nozzle holds, where the nozzle is." },
    { KP_PICK_AND_PLACE, "pick_and_place", KP_POST, "pnp/pick_and_place", MOTION, HOMED, 60, pick_and_place_params,
      "Takes a part from one place and puts it down at another." },
    { KP_VACUUM_ON, "vacuum_on", KP_POST, "vacuum/on", MOTION, KP_MOVES, 30, vacuum_on_params,
      "Switches a nozzle's pump and valve on." },
    { KP_VACUUM_OFF, "vacuum_off", KP_POST, "vacuum/off", MOTION, KP_MOVES, 30, vacuum_off_params,
      "Switches a nozzle's valve off, and its pump when no other open valve needs it." },
    { KP_VACUUM_SET, "vacuum_set", KP_POST, "vacuum/set", MOTION, KP_MOVES, 30, vacuum_set_params,
      "Vacuum with this power; 0 is off." },
    { KP_GPIO_READ, "gpio_read", KP_GET, "gpio/read", LOOK, gpio_read_params, "State of a pin." },
    { KP_GPIO_WRITE, "gpio_write", KP_POST, "gpio/write", MOTION, KP_MOVES, 30, gpio_write_params,
      "Switches an output, in order with motion." },
    { KP_GPIO_READ_ALL, "gpio_read_all", KP_GET, "gpio/read_all", LOOK, no_params, "State of all pins." },
    { KP_SENSOR_READ, "sensor_read", KP_GET, "sensor/read", LOOK, sensor_read_params, "Value of a sensor." },
    { KP_SENSOR_READ_ALL, "sensor_read_all", KP_GET, "sensor/read_all", LOOK, no_params, "Values of all sensors." },
    { KP_FEEDER_ADVANCE, "feeder_advance", KP_POST, "feeder/advance", MOTION, KP_MOVES, 30, feeder_params,
      "Moves a feeder's tape forward." },
    { KP_GET_STATUS, "get_status", KP_GET, "status", KP_HYBRID, KP_VIEWER, KP_RATE_READ, KP_WHILE_STOPPED, 0, no_params,
      "The whole machine at a glance." },
    { KP_GET_POSITION, "get_position", KP_GET, "position", KP_HYBRID, KP_VIEWER, KP_RATE_READ, KP_WHILE_STOPPED, 0, position_params,
      "Where the machine is and where it is going." },
    { KP_GET_VERSION, "get_version", KP_GET, "version", KP_LOCAL, KP_PUBLIC, KP_RATE_NONE, KP_WHILE_STOPPED, 0, no_params,
      "Versions of interface and server." },
    { KP_EMERGENCY_STOP, "emergency_stop", KP_POST, "system/emergency_stop", KP_LOCAL, KP_OPERATOR, KP_RATE_NONE,
      KP_WHILE_STOPPED | KP_URGENT, 0, stop_params, "Stops everything now. Not a safety device." },
    { KP_RESET, "reset", KP_POST, "system/reset", KP_LOCAL, KP_OPERATOR, KP_RATE_NONE, KP_WHILE_STOPPED, 0, no_params,
      "Clears an emergency stop and restarts the firmware where it must be." },
};

const struct kp_command *kp_commands(size_t *count)
{
    if (count)
        *count = sizeof rows / sizeof rows[0];
    return rows;
}

const struct kp_command *kp_command_by_name(struct kp_str name)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (kp_str_eq(name, rows[i].name))
            return &rows[i];
    return NULL;
}

const struct kp_command *kp_command_by_route(enum kp_method method, struct kp_str path, unsigned *allowed)
{
    const struct kp_command *found = NULL;
    unsigned methods = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!kp_str_eq(path, rows[i].path))
            continue;
        methods |= (unsigned)rows[i].method;
        if (rows[i].method == method)
            found = &rows[i];
    }
    if (allowed)
        *allowed = methods;
    return found;
}
