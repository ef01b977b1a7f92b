/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registry: every command, its parameters, flags, role and documentation, for router, check, gate and docs alike.
 * Invariant: a command exists here or nowhere; there is no second list. */
#include "answers.h"

#include <math.h>
#include <string.h>

#define END { .name = NULL }
#define ANY -INFINITY, INFINITY
#define NO_WORDS NULL, NULL
#define NUMBER(n, unit, flags, min, max, d, code, text) { n, KP_P_NUM, unit, flags, min, max, d, code, NO_WORDS, text }
#define WHOLE(n, flags, min, max, d, code, text) { n, KP_P_INT, "", flags, min, max, d, code, NO_WORDS, text }
#define MM(n, text) { n, KP_P_NUM, "mm", 0, ANY, NAN, KP_OK, NO_WORDS, text }
#define MM_REQUIRED(n, text) { n, KP_P_NUM, "mm", KP_REQUIRED, ANY, NAN, KP_OK, NO_WORDS, text }
#define FLAG(n, d, text) { n, KP_P_BOOL, "", 0, ANY, d, KP_OK, NO_WORDS, text }
#define NAMED(n, type, flags, text) { n, type, "", flags, ANY, NAN, KP_OK, NO_WORDS, text }
#define CHOICE(n, flags, words, text) { n, KP_P_CHOICE, "", flags, ANY, NAN, KP_OK, words, NULL, text }
#define DEFAULTED(n, type, name, text) { n, type, "", 0, ANY, NAN, KP_OK, NULL, name, text }
#define FEEDRATE NUMBER("feedrate", "mm/min", 0, 1, 30000, NAN, KP_FEEDRATE_OUT_OF_BOUNDS, \
                 "Speed along the path; 1500 when left out. Extra axes alone: deg/min.")
#define POWER(n, flags, d) WHOLE(n, flags, 0, 255, d, KP_PWM_OUT_OF_BOUNDS, "Pump power, 255 is full; a pump that is only on or off takes any as on, 0 as off.")
#define NOZZLE NAMED("nozzle", KP_P_NOZZLE, 0, "Nozzle; the first of klipperplace.cfg when left out.")
#define TIP NAMED("nozzle", KP_P_NOZZLE, 0, "x, y and z mean this nozzle's tip; the head when left out.")
#define WAIT(text) FLAG("wait", 0, text)
#define WAIT_PIN WAIT("Answer when motion before it has ended and Klipper shows the value.")
#define SECONDS(n, text) NUMBER(n, "s", 0, 0, 60, NAN, KP_OK, text)
#define TRAVEL(n) MM(n, "Z for crossing; the nozzle's travel_height, else its safe_z, when left out.")
#define VERIFY FLAG("verify", NAN, "Check by the vacuum sensor; true when left out and the nozzle has one.")
#define PIN(type) NAMED("pin", type, KP_REQUIRED, "Alias, Klipper section, short name or board pin.")
#define FAN DEFAULTED("fan", KP_P_FAN, "fan", "Short name or Klipper section.")
#define SPEED(flags, d) NUMBER("speed", "", flags, 0, 1, d, KP_FAN_SPEED_OUT_OF_BOUNDS, "1 is full, 0 off.")
#define SHARE(n, text) NUMBER(n, "", KP_REQUIRED, 0, 1, NAN, KP_PWM_OUT_OF_BOUNDS, text)
#define STOP_ON_ERROR FLAG("stop_on_error", 1, "Commands behind one that failed are cancelled.")
#define KEY_ID NAMED("id", KP_P_NAME, KP_REQUIRED | KP_IN_PATH, "UUID of the key.")
#define EXPIRES NUMBER("expires_at", "s", 0, 0, 1e11, NAN, KP_OK, "Unix time at which the key ends; 0 for never.")

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
    NUMBER("timeout", "s", 0, 1, 600, NAN, KP_OK, "The same as timeout_s."),
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
    NUMBER("rotation", "deg", 0, -3600, 3600, NAN, KP_OK, "Turn of the part between pick and place, counterclockwise."),
    WHOLE("retries", 0, 0, 10, NAN, KP_OK, "Further picks when no part is held; [vacuum] retries when left out."),
    END };

static const struct kp_param actuate_params[] = { PIN(KP_P_PIN_OUT), WHOLE("value", 0, 0, 1, 1, KP_OK, "1 on, 0 off."), WAIT_PIN, END };
static const struct kp_param actuator_params[] = { PIN(KP_P_PIN_OUT), WAIT_PIN, END };

static const struct kp_param vacuum_on_params[] = { POWER("power", 0, 255), NOZZLE, WAIT_PIN, END };
static const struct kp_param vacuum_off_params[] = { NOZZLE, WAIT_PIN, END };
static const struct kp_param vacuum_set_params[] = { POWER("power", KP_REQUIRED, NAN), NOZZLE, WAIT_PIN, END };

static const struct kp_param fan_on_params[] = { FAN, SPEED(0, 1), WAIT_PIN, END };
static const struct kp_param fan_off_params[] = { FAN, WAIT_PIN, END };
static const struct kp_param fan_set_params[] = { FAN, SPEED(KP_REQUIRED, NAN), WAIT_PIN, END };

static const struct kp_param pwm_set_params[] = {
    PIN(KP_P_PIN_PWM), SHARE("value", "Share of full power; of a servo its range."),
    NUMBER("cycle_time", "s", 0, 0.000001, 5, NAN, KP_OK, "Only of a pin that is a pwm_cycle_time section."),
    WAIT_PIN, END };
static const struct kp_param pwm_ramp_params[] = {
    PIN(KP_P_PIN_PWM), SHARE("start_value", "Where it begins, at once."), SHARE("end_value", "Where it ends, after duration."),
    NUMBER("duration", "s", KP_REQUIRED, 0.1, 600, NAN, KP_OK, "From the first value to the last."),
    WHOLE("steps", 0, 1, 6000, 10, KP_OK, "Steps after the first value; each at least 0.1 s long."),
    END };

static const struct kp_param gpio_read_params[] = { PIN(KP_P_PIN_IN), FLAG("live", 0, "Ask Klipper now."), END };
static const struct kp_param gpio_write_params[] = { PIN(KP_P_PIN_OUT), WHOLE("value", KP_REQUIRED, 0, 1, NAN, KP_OK, "1 on, 0 off."), WAIT_PIN, END };

static const struct kp_param sensor_read_params[] = {
    NAMED("sensor", KP_P_SENSOR, KP_REQUIRED, "Sensor of klipperplace.cfg, or a temperature sensor of Klipper."),
    FLAG("live", 0, "Ask Klipper now."),
    END };
static const struct kp_param sensor_type_params[] = { CHOICE("type", KP_REQUIRED, "vacuum|pressure|temperature|load", "What the sensors measure."), END };

static const struct kp_param feeder_params[] = {
    DEFAULTED("feeder", KP_P_FEEDER, "feeder", "Feeder of klipperplace.cfg."),
    NUMBER("distance", "mm", KP_REQUIRED, 0.001, 1000, NAN, KP_OK, "How far the tape goes."),
    NUMBER("feedrate", "mm/min", 0, 1, 30000, NAN, KP_FEEDRATE_OUT_OF_BOUNDS, "The feeder's, else 100, when left out."),
    END };

static const struct kp_param position_params[] = { FLAG("live", 0, "Ask Klipper now."), END };

static const struct kp_param queue_add_params[] = {
    NAMED("command", KP_P_COMMAND, KP_REQUIRED, "Name of a command that moves, switches or reads."),
    NAMED("parameters", KP_P_OBJECT, 0, "Its parameters; none when left out."),
    WHOLE("priority", 0, -1000, 1000, 0, KP_OK, "Higher goes first; order is kept inside one."),
    END };
static const struct kp_param queue_batch_params[] = {
    NAMED("commands", KP_P_OBJECTS, KP_REQUIRED, "Objects of command, parameters and priority, each as for queue/add."), STOP_ON_ERROR, END };
static const struct kp_param queue_cancel_params[] = { NAMED("queue_id", KP_P_NAME, KP_REQUIRED, "As queue/add gave it."), END };
static const struct kp_param queue_history_params[] = {
    WHOLE("limit", 0, 1, 1000, 100, KP_OK, "Entries at most."), NAMED("before", KP_P_NAME, 0, "Only entries older than the one with this command_id."), END };
static const struct kp_param batch_params[] = {
    NAMED("commands", KP_P_OBJECTS, KP_REQUIRED, "Objects of command and parameters."), STOP_ON_ERROR,
    FLAG("parallel", 0, "Reads among them are answered without waiting for those before. What moves or switches goes one by one, in order, either way."),
    END };

static const struct kp_param stop_params[] = { NAMED("reason", KP_P_TEXT, 0, "For log and history."), END };
static const struct kp_param events_params[] = {
    WHOLE("limit", 0, 1, 256, 100, KP_OK, "Events at most."),
    CHOICE("level", 0, "normal|caution|warning|critical|emergency", "Only events of at least this level."),
    WHOLE("since", 0, 0, 9007199254740991.0, 0, KP_OK, "Only events with a larger id."),
    END };

static const struct kp_param key_create_params[] = {
    NAMED("name", KP_P_TEXT, KP_REQUIRED, "For people."), CHOICE("role", KP_REQUIRED, "viewer|operator|admin", "What the key may do."), EXPIRES,
    FLAG("enabled", 1, "It may be used."), END };
static const struct kp_param key_update_params[] = {
    KEY_ID, NAMED("name", KP_P_TEXT, 0, "For people."), CHOICE("role", 0, "viewer|operator|admin", "What the key may do."), EXPIRES,
    FLAG("enabled", NAN, "It may be used."), END };
static const struct kp_param key_params[] = { KEY_ID, END };

#define MOTION KP_GCODE, KP_OPERATOR, KP_RATE_MOTION
#define HOMED (KP_MOVES | KP_NEEDS_HOMED)
#define ORDINARY KP_TIMEOUT_S
#define SWITCH MOTION, KP_MOVES, ORDINARY
#define LOOK KP_DIRECT, KP_VIEWER, KP_RATE_READ, KP_WHILE_STOPPED, 0
#define GLANCE KP_HYBRID, KP_VIEWER, KP_RATE_READ, KP_WHILE_STOPPED, 0
#define OWN_LOOK KP_LOCAL, KP_VIEWER, KP_RATE_READ, KP_WHILE_STOPPED, 0
#define BATCH(flags) KP_LOCAL, KP_OPERATOR, KP_RATE_BATCH, flags, 0
#define SYSTEM(flags) KP_LOCAL, KP_OPERATOR, KP_RATE_NONE, flags, 0
#define SERVER(role, flags) KP_LOCAL, role, KP_RATE_NONE, KP_WHILE_STOPPED | (flags), 0
#define KEYS SERVER(KP_ADMIN, 0)

static const struct kp_command rows[] = {
    { KP_MOVE, "move", KP_POST, "motion/move", MOTION, HOMED | KP_EXTRA_AXES | KP_NEEDS_POSITION, ORDINARY, move_params, answer_move,
      "Straight move to machine coordinates." },
    { KP_HOME, "home", KP_POST, "motion/home", MOTION, KP_MOVES | KP_NEEDS_POSITION, 120, home_params, answer_home,
      "Finds the end switches, Z first, and leaves Z at travel height. A rotary axis turns to 0 where its angle is known, else it is 0 where it stands." },
    { KP_WAIT, "wait", KP_POST, "motion/wait", SWITCH, wait_params, answer_move, "Answers when all accepted motion has ended." },
    { KP_PICK, "pick", KP_POST, "pnp/pick", MOTION, HOMED | KP_NEEDS_POSITION, ORDINARY, pick_params, answer_pick, "Picks the part under the nozzle." },
    { KP_PLACE, "place", KP_POST, "pnp/place", MOTION, HOMED | KP_NEEDS_POSITION, ORDINARY, place_params, answer_pick,
      "Places the part that the nozzle holds, where the nozzle is." },
    { KP_PICK_AND_PLACE, "pick_and_place", KP_POST, "pnp/pick_and_place", MOTION, HOMED, 60, pick_and_place_params, answer_pick_and_place,
      "Takes a part from one place and puts it down at another." },
    { KP_ACTUATE, "actuate", KP_POST, "actuators/actuate", SWITCH, actuate_params, answer_write, "Switches an output, in order with motion." },
    { KP_ACTUATOR_ON, "actuator_on", KP_POST, "actuators/on", SWITCH, actuator_params, answer_write, "Switches an output on." },
    { KP_ACTUATOR_OFF, "actuator_off", KP_POST, "actuators/off", SWITCH, actuator_params, answer_write, "Switches an output off." },
    { KP_VACUUM_ON, "vacuum_on", KP_POST, "vacuum/on", SWITCH, vacuum_on_params, answer_vacuum, "Switches a nozzle's pump and valve on." },
    { KP_VACUUM_OFF, "vacuum_off", KP_POST, "vacuum/off", SWITCH, vacuum_off_params, answer_vacuum,
      "Switches a nozzle's valve off, and its pump when no other open valve needs it." },
    { KP_VACUUM_SET, "vacuum_set", KP_POST, "vacuum/set", SWITCH, vacuum_set_params, answer_vacuum, "Vacuum with this power; 0 is off." },
    { KP_FAN_ON, "fan_on", KP_POST, "fan/on", SWITCH, fan_on_params, answer_fan, "Switches a fan on." },
    { KP_FAN_OFF, "fan_off", KP_POST, "fan/off", SWITCH, fan_off_params, answer_fan, "Switches a fan off." },
    { KP_FAN_SET, "fan_set", KP_POST, "fan/set", SWITCH, fan_set_params, answer_fan, "A fan's speed; 0 is off." },
    { KP_PWM_SET, "pwm_set", KP_POST, "pwm/set", SWITCH, pwm_set_params, answer_pwm_set, "Value of a PWM pin or servo, in order with motion." },
    { KP_PWM_RAMP, "pwm_ramp", KP_POST, "pwm/ramp", SWITCH, pwm_ramp_params, answer_pwm_ramp,
      "Leads a PWM pin or servo from one value to another in steps, between other commands; a later one for the pin replaces it." },
    { KP_GPIO_READ, "gpio_read", KP_GET, "gpio/read", LOOK, gpio_read_params, answer_pin, "State of a pin." },
    { KP_GPIO_WRITE, "gpio_write", KP_POST, "gpio/write", SWITCH, gpio_write_params, answer_write, "Switches an output, in order with motion." },
    { KP_GPIO_READ_ALL, "gpio_read_all", KP_GET, "gpio/read_all", LOOK, no_params, answer_pins, "State of all pins." },
    { KP_SENSOR_READ, "sensor_read", KP_GET, "sensor/read", LOOK, sensor_read_params, answer_sensor, "Value of a sensor." },
    { KP_SENSOR_READ_ALL, "sensor_read_all", KP_GET, "sensor/read_all", LOOK, no_params, answer_sensors, "Values of all sensors." },
    { KP_SENSOR_READ_BY_TYPE, "sensor_read_by_type", KP_GET, "sensor/read_by_type", LOOK, sensor_type_params, answer_sensors,
      "Values of all sensors of one type." },
    { KP_FEEDER_ADVANCE, "feeder_advance", KP_POST, "feeder/advance", SWITCH, feeder_params, answer_feeder, "Moves a feeder's tape forward." },
    { KP_FEEDER_RETRACT, "feeder_retract", KP_POST, "feeder/retract", SWITCH, feeder_params, answer_feeder, "Moves a feeder's tape back." },
    { KP_GET_STATUS, "get_status", KP_GET, "status", GLANCE, no_params, answer_status, "The whole machine at a glance." },
    { KP_GET_POSITION, "get_position", KP_GET, "position", GLANCE, position_params, answer_position, "Where the machine is and where it is going." },
    { KP_GET_PRINTER_STATE, "get_printer_state", KP_GET, "printer/state", GLANCE, no_params, answer_printer_state, "How Klipper stands." },
    { KP_QUEUE_ADD, "queue_add", KP_POST, "queue/add", BATCH(0), queue_add_params, answer_queue_add, "Puts a command at the end of the queue." },
    { KP_QUEUE_BATCH, "queue_batch", KP_POST, "queue/batch", BATCH(0), queue_batch_params, answer_queue_batch,
      "Puts commands at the end of the queue, all or none." },
    { KP_QUEUE_STATUS, "queue_status", KP_GET, "queue/status", OWN_LOOK, no_params, answer_queue_status, "What runs and what waits." },
    { KP_QUEUE_CLEAR, "queue_clear", KP_DELETE, "queue/clear", BATCH(KP_WHILE_STOPPED), no_params, answer_queue_clear,
      "Cancels all that waits; what runs goes on." },
    { KP_QUEUE_CANCEL, "queue_cancel", KP_DELETE, "queue/cancel", BATCH(KP_WHILE_STOPPED), queue_cancel_params, answer_queue_cancel,
      "Cancels an entry that waits." },
    { KP_QUEUE_HISTORY, "queue_history", KP_GET, "queue/history", OWN_LOOK, queue_history_params, answer_queue_history, "Commands that ended, those of the queue and others, the last first." },
    { KP_BATCH_EXECUTE, "batch_execute", KP_POST, "batch/execute", BATCH(0), batch_params, answer_batch,
      "Runs commands one after the other and answers with all." },
    { KP_EMERGENCY_STOP, "emergency_stop", KP_POST, "system/emergency_stop", SYSTEM(KP_WHILE_STOPPED | KP_URGENT), stop_params, answer_stop,
      "Stops everything now. Not a safety device." },
    { KP_PAUSE, "pause", KP_POST, "system/pause", SYSTEM(KP_WHILE_STOPPED), no_params, answer_pause, "Holds the queue after the command under way." },
    { KP_RESUME, "resume", KP_POST, "system/resume", SYSTEM(0), no_params, answer_resume, "Lets the queue go on." },
    { KP_RESET, "reset", KP_POST, "system/reset", SYSTEM(KP_WHILE_STOPPED), no_params, answer_reset,
      "Clears an emergency stop and restarts the firmware where it must be." },
    { KP_SAFETY_STATUS, "safety_status", KP_GET, "safety/status", OWN_LOOK, no_params, answer_safety_status, "Safety level, limits and the last events." },
    { KP_SAFETY_EVENTS, "safety_events", KP_GET, "safety/events", OWN_LOOK, events_params, answer_safety_events, "Safety events, the last first." },
    { KP_GET_VERSION, "get_version", KP_GET, "version", SERVER(KP_PUBLIC, 0), no_params, answer_version, "Versions of interface and server." },
    { KP_OPENAPI, "openapi", KP_GET, "openapi.json", SERVER(KP_PUBLIC, KP_PLAIN), no_params, answer_none, "This interface as an OpenAPI 3.1 document." },
    { KP_KEY_CREATE, "key_create", KP_POST, "auth/keys", KEYS, key_create_params, answer_key_secret, "Makes a key; it is shown once." },
    { KP_KEY_LIST, "key_list", KP_GET, "auth/keys", KEYS, no_params, answer_keys, "All keys, without the keys themselves." },
    { KP_KEY_GET, "key_get", KP_GET, "auth/keys/{id}", KEYS, key_params, answer_key, "One key, without the key itself." },
    { KP_KEY_UPDATE, "key_update", KP_PUT, "auth/keys/{id}", KEYS, key_update_params, answer_key, "Changes what is given of a key." },
    { KP_KEY_DELETE, "key_delete", KP_DELETE, "auth/keys/{id}", KEYS, key_params, answer_key_deleted, "Deletes a key." },
    { KP_KEY_ROTATE, "key_rotate", KP_POST, "auth/keys/{id}/rotate", KEYS, key_params, answer_key_secret,
      "A new key in place of the old one; it is shown once." },
    { KP_AUTH_STATUS, "auth_status", KP_GET, "auth/status", KEYS, no_params, answer_auth_status, "Whether keys are asked for, and how many there are." },
    { KP_WS_TOKEN, "ws_token", KP_POST, "auth/ws_token", SERVER(KP_VIEWER, 0), no_params, answer_ws_token,
      "A token for one WebSocket within 5 s, with the role of the one who asks." },
    { KP_HEALTH, "health", KP_GET, "health", SERVER(KP_PUBLIC, KP_PLAIN | KP_OUTSIDE), no_params, answer_health, "200 while the process serves." },
    { KP_READY, "ready", KP_GET, "ready", SERVER(KP_PUBLIC, KP_PLAIN | KP_OUTSIDE), no_params, answer_health, "200 only when Klipper is ready, else 503." },
    { KP_METRICS, "metrics", KP_GET, "metrics", SERVER(KP_PUBLIC, KP_PLAIN | KP_OUTSIDE), no_params, answer_none, "Counters, in Prometheus' text." },
};

#define ROWS (sizeof rows / sizeof rows[0])
_Static_assert(ROWS == KP_ID_COUNT, "each id has its row");

const struct kp_command *kp_commands(size_t *count)
{
    if (count)
        *count = ROWS;
    return rows;
}

const struct kp_command *kp_command_by_name(struct kp_str name)
{
    for (size_t i = 0; i < ROWS; i++)
        if (kp_str_eq(name, rows[i].name))
            return &rows[i];
    return NULL;
}

/* Whether path is the row's; *part gets what stands for its {name}, empty when it has none. */
static bool path_is(const char *row, struct kp_str path, struct kp_str *part)
{
    size_t head = 0;
    while (row[head] && row[head] != '{' && head < path.n && path.p[head] == row[head])
        head++;
    *part = (struct kp_str){ path.p, 0 };
    if (row[head] != '{')
        return !row[head] && head == path.n;
    const char *rest = strchr(row + head, '}') + 1;
    size_t tail = strlen(rest);
    if (path.n <= head + tail || memcmp(path.p + path.n - tail, rest, tail) != 0)
        return false;
    *part = (struct kp_str){ path.p + head, path.n - head - tail };
    return !memchr(part->p, '/', part->n);
}

static const struct kp_command *find(enum kp_method method, struct kp_str path, unsigned outside, unsigned *allowed)
{
    const struct kp_command *found = NULL;
    struct kp_str part;
    unsigned methods = 0;
    for (size_t i = 0; i < ROWS; i++) {
        if ((rows[i].flags & KP_OUTSIDE) != outside || !path_is(rows[i].path, path, &part))
            continue;
        methods |= (unsigned)rows[i].method;
        if (rows[i].method == method)
            found = &rows[i];
    }
    if (allowed)
        *allowed = methods;
    return found;
}

const struct kp_command *kp_command_by_route(enum kp_method method, struct kp_str path, unsigned *allowed)
{
    return find(method, path, 0, allowed);
}

const struct kp_command *kp_command_outside(enum kp_method method, struct kp_str path, unsigned *allowed)
{
    return find(method, path, KP_OUTSIDE, allowed);
}

bool kp_command_path_arg(const struct kp_command *c, struct kp_str path, struct kp_arg *out)
{
    struct kp_str part;
    const char *open = strchr(c->path, '{');
    if (!open || !path_is(c->path, path, &part))
        return false;
    *out = (struct kp_arg){ .name = { open + 1, (size_t)(strchr(open, '}') - open - 1) }, .value = { .kind = KP_STR, .str = part }, .text = true };
    return true;
}

bool kp_command_nests(const struct kp_command *c)
{
    return c->strategy != KP_LOCAL;
}
