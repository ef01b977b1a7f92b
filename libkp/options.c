/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The table of every section and option of klipperplace.cfg, for parser, sample file and documentation. A row's default passes
 * its own check. */
#include "config.h"

#define FAR 100000.0     /* mm; beyond any machine, so that a slipped digit is seen */

#define KEPT "values are kept fresh by a subscription, which cannot be switched off"
/* Options of the first implementation that its files hold: taken at its own default, since nothing else would have an effect. */
#define PUSHED(d) .only = d, .refused = "Klipper's pushes keep the values, and each is fresh while the last push is younger than 1 s"
#define ONE_EACH(d) .only = d, .refused = "one value is kept for each part of the machine, as long as Klipper has the part"

#define ROW(s, n, t, ...) { .section = s, .name = n, .type = t, .unit = "", __VA_ARGS__ }
#define NUM(s, n, u, d, lo, hi, text, ...) { .section = s, .name = n, .type = KP_T_NUM, .unit = u, .def = d, .min = lo, .max = hi, .doc = text, __VA_ARGS__ }
#define INT(s, n, d, lo, hi, text, ...) { .section = s, .name = n, .type = KP_T_INT, .unit = "", .def = d, .min = lo, .max = hi, .doc = text, __VA_ARGS__ }
#define STR(s, n, d, text, ...) { .section = s, .name = n, .type = KP_T_STR, .unit = "", .def = d, .doc = text, __VA_ARGS__ }
#define FLAG(s, n, d, text, ...) { .section = s, .name = n, .type = KP_T_BOOL, .unit = "", .def = d, .doc = text, __VA_ARGS__ }
#define NONE .env = NULL
#define EX(v) .example = v

const struct kp_section_kind kp_section_kinds[] = {
    { "api", 1, NULL, "Where KlipperPlace listens, where Moonraker is, and what is logged." },
    { "security", 1, NULL, "Who may ask, how often, and from which web pages." },
    { "cache", 1, NULL, "What the first implementation's files say of its cache. Here Klipper's pushes keep every value, so nothing of it can be set." },
    { "safety", 1, NULL, "Limits and monitors. A limit is the narrower of this file's and Klipper's own; one without a default is Klipper's." },
    { "gcode_driver", 1, NULL, "The queue, and commands of your own made of others." },
    { "gcode_port", 1, NULL, "The port for OpenPnP's GcodeDriver, and the URLs for its HttpActuator." },
    { "history", 1, NULL, "What is remembered over a restart." },
    { "vacuum", 1, NULL, "Vacuum and travel of all nozzles." },
    { "nozzle *", KP_NOZZLES_MAX, "N1", "A nozzle. Heights are positions of the Z axis, machine coordinates; those of a request are the tip's, which differs by offset_z." },
    { "axis *", KP_AXES_MAX - 3, "A",
      "An axis beside X, Y and Z, named by its letter: any but E, F and N, and G, M, T, I, J, K, R, which G-code needs itself." },
    { "sensor *", KP_SENSORS_MAX, "vacuum1",
      "A sensor with type, unit and calibration. Klipper's temperatures and load cells are sensors without a section, too." },
    { "feeder *", KP_FEEDERS_MAX, "feeder1", "A feeder, moved by a manual_stepper, by an extruder or by a macro." },
    { "pin *", KP_PINS_MAX, "light", "Another name for a pin of Klipper's configuration." },
    { "mcode *", KP_MCODES_MAX, "M800", "An M-number of the G-code port that switches a pin." },
};
const size_t kp_section_kind_count = sizeof kp_section_kinds / sizeof *kp_section_kinds;

const struct kp_option kp_option_table[] = {
    STR("api", "host", "127.0.0.1", "Address to listen on.", .env = "KLIPPERPLACE_HOST"),
    INT("api", "port", "7180", 1, 65535, "Port to listen on, for REST and WebSocket. 7125 is Moonraker's own.", .env = "KLIPPERPLACE_PORT"),
    STR("api", "moonraker_host", "127.0.0.1", "Moonraker's address.", .env = "MOONRAKER_HOST"),
    INT("api", "moonraker_port", "7125", 1, 65535, "Moonraker's port.", .env = "MOONRAKER_PORT"),
    STR("api", "moonraker_socket", NULL, "Path of Moonraker's unix socket; used instead of moonraker_host when given.",
        EX("/home/pi/printer_data/comms/moonraker.sock")),
    STR("api", "moonraker_api_key", NULL, "Key for Moonraker; not needed by socket or from a trusted address.", .env = "MOONRAKER_API_KEY",
        .secret = true, EX("0123456789abcdef")),
    STR("api", "klipper_socket", NULL, "Path of Klipper's own socket: the second way of an emergency stop when Moonraker does not answer.",
        EX("/home/pi/printer_data/comms/klippy.sock")),
    FLAG("api", "api_key_enabled", "false", "Ask every client for a key.", .env = "API_KEY_ENABLED"),
    STR("api", "api_key", NULL, "A key that may do everything. More keys, with roles: klipperplaced key.", .env = "API_KEY", .secret = true,
        EX("your-secure-api-key-here")),
    FLAG("api", "enable_cors", "true", "Answer web pages of the origins in [security] cors_origins.", NONE),
    FLAG("api", "allow_insecure", "false", "Serve an address that other machines can reach although nothing asks for a key.", NONE),
    STR("api", "log_level", "info", "How much is logged.", .env = "LOG_LEVEL", .choices = "critical|error|warning|info|debug"),
    STR("api", "log_format", "text", "Form of the log lines.", .env = "LOG_FORMAT", .choices = "text|json"),

    FLAG("security", "rate_limit", "true", "Limit requests: 100 motions, 200 reads, 10 batches a second for each client, 100 WebSockets.", NONE),
    ROW("security", "allowed_addresses", KP_T_LIST, .doc = "Addresses and networks that may connect. None: all that can reach the port.",
        EX("127.0.0.1, 192.168.1.0/24")),
    ROW("security", "allowed_hosts", KP_T_LIST, .doc = "Further names under which this machine may be asked (Host header), for a proxy.", EX("pnp.local")),
    ROW("security", "cors_origins", KP_T_LIST, .doc = "Origins whose web pages may use the API. None: only its own.", EX("http://mainsail.local")),

    NUM("cache", "default_ttl", "s", "1.0", 0, 3600, "Time a value of no other category is fresh.", PUSHED("1.0")),
    INT("cache", "max_cache_size", "10000", 1, 65000, "Most values kept; the least recently used makes room.", ONE_EACH("10000")),
    NUM("cache", "cleanup_interval", "s", "10.0", 0.1, 3600, "Time between two rounds that remove old values.", ONE_EACH("10.0")),
    FLAG("cache", "enable_auto_refresh", "true", "Keep values fresh without being asked.", .only = "true", .refused = KEPT),
    NUM("cache", "gpio_ttl", "s", "1.0", 0, 3600, "Time a pin's value is fresh.", PUSHED("1.0")),
    NUM("cache", "sensor_ttl", "s", "0.5", 0, 3600, "Time a sensor's value is fresh.", PUSHED("0.5")),
    NUM("cache", "position_ttl", "s", "0.1", 0, 3600, "Time a position is fresh.", PUSHED("0.1")),
    NUM("cache", "fan_ttl", "s", "1.0", 0, 3600, "Time a fan's speed is fresh.", PUSHED("1.0")),
    NUM("cache", "pwm_ttl", "s", "1.0", 0, 3600, "Time a PWM pin's value is fresh.", PUSHED("1.0")),
    NUM("cache", "printer_state_ttl", "s", "2.0", 0, 3600, "Time Klipper's state is fresh.", PUSHED("2.0")),
    NUM("cache", "actuator_ttl", "s", "1.0", 0, 3600, "Time an actuator's value is fresh.", PUSHED("1.0")),

    NUM("safety", "max_extruder_temp", "C", "250.0", 0, 2000, "Highest temperature of an extruder.", NONE),
    NUM("safety", "max_bed_temp", "C", "120.0", 0, 2000, "Highest temperature of the bed.", NONE),
    NUM("safety", "max_chamber_temp", "C", "60.0", 0, 2000, "Highest temperature of what is called chamber.", NONE),
    NUM("safety", "min_temp_delta", "C", "5.0", 0, 100, "A temperature so near its limit is told; one that was over it counts as gone so far below.", NONE),
    NUM("safety", "min_x_position", "mm", NULL, -FAR, FAR, "Smallest X, machine coordinates.", EX("0.0")),
    NUM("safety", "max_x_position", "mm", NULL, -FAR, FAR, "Largest X, machine coordinates.", EX("300.0")),
    NUM("safety", "min_y_position", "mm", NULL, -FAR, FAR, "Smallest Y, machine coordinates.", EX("0.0")),
    NUM("safety", "max_y_position", "mm", NULL, -FAR, FAR, "Largest Y, machine coordinates.", EX("300.0")),
    NUM("safety", "min_z_position", "mm", NULL, -FAR, FAR, "Smallest Z, machine coordinates.", EX("0.0")),
    NUM("safety", "max_z_position", "mm", NULL, -FAR, FAR, "Largest Z, machine coordinates.", EX("400.0")),
    NUM("safety", "max_velocity", "mm/s", NULL, 0.001, FAR, "Highest velocity.", EX("500.0")),
    NUM("safety", "max_acceleration", "mm/s2", NULL, 0.001, 1e6, "Highest acceleration.", EX("3000.0")),
    NUM("safety", "max_pwm_value", "", "1.0", 0, 1, "Largest value of a PWM pin.", NONE),
    NUM("safety", "min_pwm_value", "", "0.0", 0, 1, "Smallest value of a PWM pin that is on.", NONE),
    NUM("safety", "max_fan_speed", "", "1.0", 0, 1, "Highest speed of a fan.", NONE),
    NUM("safety", "min_fan_speed", "", "0.0", 0, 1, "Lowest speed of a fan that is on.", NONE),
    NUM("safety", "max_feedrate", "mm/min", "30000.0", 0.001, 60 * FAR, "Highest feedrate a request may ask for.", NONE),
    NUM("safety", "min_feedrate", "mm/min", "1.0", 0, 60 * FAR, "Lowest feedrate a request may ask for.", NONE),
    NUM("safety", "emergency_stop_timeout", "s", "5.0", 0.1, 60, "Longest wait for the confirmation of an emergency stop.", NONE),
    NUM("safety", "temperature_check_interval", "s", "1.0", 0.1, 60, "Time between two looks at the temperatures.", NONE),
    NUM("safety", "position_check_interval", "s", "0.5", 0.1, 60, "Time between two looks at the position.", NONE),
    NUM("safety", "state_check_interval", "s", "2.0", 0.1, 60, "Time between two looks at Klipper's state.", NONE),

    ROW("gcode_driver", "command_mappings", KP_T_MAP,
        .doc = "Commands of your own: a list of G-code each, one a line. {pin} stands for the parameter PIN of the command.",
        EX("\n  OPENPNP_VACUUM_ON: ['M106 S255']\n  OPENPNP_ACTUATE_ON: ['SET_PIN PIN={pin} VALUE=1']")),
    INT("gcode_driver", "max_queue_size", "1000", 1, 100000, "Most commands that wait in the queue.", NONE),
    INT("gcode_driver", "max_history_entries", "1000", 1, 100000, "Ended commands that are remembered.", NONE),
    NUM("gcode_driver", "default_timeout", "s", "30.0", 1, 600, "Longest wait for a command that neither says nor has its own time.", NONE),

    FLAG("gcode_port", "enabled", "true", "Listen for G-code.", NONE),
    STR("gcode_port", "host", "127.0.0.1", "Address to listen on.", NONE),
    INT("gcode_port", "port", "7181", 1, 65535, "Port to listen on.", NONE),
    INT("gcode_port", "clients", "1", 1, 8, "Clients at one time; one more is told so and closed.", NONE),
    STR("gcode_port", "firmware_name", "KlipperPlace GcodeServer", "Name that M115 tells. OpenPnP asks for nothing more where it holds GcodeServer.", NONE),
    ROW("gcode_port", "home_script", KP_T_TEXT,
        .doc = "G-code of a homing. None: G28 where Klipper has homing_override or safe_z_home, else G28 Z, then G28 X Y.", EX("\n  G28 Z\n  G28 X Y")),
    STR("gcode_port", "error_reply", "halt",
        "halt: an error is answered by !! alone and holds all further lines until G28, M999 or a new connection. ack: by !! and ok.",
        .choices = "halt|ack"),
    FLAG("gcode_port", "allow_klipper_commands", "false", "Pass on commands of Klipper that have no meaning here, as they stand.", NONE),
    FLAG("gcode_port", "actuator_urls", "false", "Serve /openpnp/TOKEN/... for OpenPnP's HttpActuator, on a loopback address only.", NONE),
    STR("gcode_port", "actuator_token", NULL, "The TOKEN in these URLs.", .secret = true, EX("a-word-that-nobody-guesses")),

    STR("history", "database", NULL, "Path of the SQLite file with queue, history, events and keys. None: they end with the process.",
        EX("/var/lib/klipperplace/history.db")),

    FLAG("vacuum", "travel_interlock", "false", "Refuse a move that crosses XY while a nozzle is below its safe height.", NONE),
    INT("vacuum", "retries", "0", 0, 20, "How often a failed pick is tried again where the request does not say.", NONE),
    NUM("vacuum", "retry_lower", "mm", "0", 0, 5, "How much deeper each further try of a pick goes.", NONE),
    STR("vacuum", "on_fail", "error", "What a failed pick of the queue does. ask: the queue waits and Moonraker's component asks whether to try again, skip or stop.",
        .choices = "error|ask"),
    STR("vacuum", "output", NULL, "Output pin or fan that makes the vacuum of a machine without [nozzle]. None: Klipper's [fan], by M106 and M107.", EX("fan")),

    ROW("nozzle *", "z_axis", KP_T_NAME, .def = "z", .choices = "z", .doc = "Axis that lifts and lowers the nozzle."),
    INT("nozzle *", "z_direction", "1", -1, 1, "1: a larger Z lifts the nozzle; -1: it lowers it.", .choices = "1|-1"),
    NUM("nozzle *", "safe_z", "mm", NULL, -FAR, FAR, "Machine Z at which the tip is at travel height.", EX("20")),
    NUM("nozzle *", "offset_x", "mm", "0", -FAR, FAR, "Tip minus head in X.", NONE),
    NUM("nozzle *", "offset_y", "mm", "0", -FAR, FAR, "Tip minus head in Y.", NONE),
    NUM("nozzle *", "offset_z", "mm", "0", -FAR, FAR, "Tip minus head in Z.", NONE),
    ROW("nozzle *", "rotation_axis", KP_T_NAME, .choices = AXIS_LETTERS, .doc = "Letter of the [axis] that turns the nozzle.", EX("A")),
    STR("nozzle *", "pump", NULL, "Output pin of the vacuum pump.", EX("pump1")),
    STR("nozzle *", "valve", NULL, "Output pin of the vacuum valve.", EX("valve1")),
    STR("nozzle *", "blow_off", NULL, "Output pin that blows the part off.", EX("blow1")),
    NUM("nozzle *", "blow_off_time", "s", "0.1", 0, 60, "How long the part is blown off.", NONE),
    STR("nozzle *", "sensor", NULL, "Sensor that tells whether a part is held.", EX("vacuum1")),
    NUM("nozzle *", "part_on", "", NULL, -1e9, 1e9, "Level at or beyond which a part is held, in the sensor's unit.", EX("-40")),
    NUM("nozzle *", "part_off", "", NULL, -1e9, 1e9, "Level at or short of which no part is held, in the sensor's unit.", EX("-20")),
    NUM("nozzle *", "pick_height", "mm", NULL, -FAR, FAR, "Machine Z of a pick where the request gives none.", EX("0.5")),
    NUM("nozzle *", "place_height", "mm", NULL, -FAR, FAR, "Machine Z of a placement where the request gives none.", EX("1.6")),
    NUM("nozzle *", "travel_height", "mm", NULL, -FAR, FAR, "Machine Z of travel where the request gives none.", EX("20")),
    NUM("nozzle *", "dwell", "s", "0.1", 0, 60, "Wait after the valve has switched.", NONE),

    STR("axis *", "stepper", NULL, "Klipper's section of the motor: manual_stepper NAME.", .required = true, EX("manual_stepper rotation1")),
    NUM("axis *", "velocity", "deg/s or mm/s", NULL, 0.001, 1e6, "Velocity. None: the section's own.", EX("720")),
    NUM("axis *", "acceleration", "deg/s2 or mm/s2", NULL, 0, 1e7, "Acceleration. None: the section's own.", EX("7200")),
    FLAG("axis *", "rotary", "false", "Turns without end, in degrees.", NONE),
    STR("axis *", "joined", "auto", "Moves in one line with X, Y and Z where Klipper has GCODE_AXIS and both limits are known. no: as a manual stepper beside.",
        .choices = "auto|no"),
    NUM("axis *", "home_travel", "deg or mm", NULL, -1e6, 1e6,
        "Where the section has an endstop_pin: how far it may be from there, below 0 backwards. None: 370 for a rotary axis; another is not homed.", EX("370")),
    NUM("axis *", "home_velocity", "deg/s or mm/s", NULL, 0.001, 1e6, "Velocity towards the endstop. None: a tenth of velocity.", EX("36")),

    STR("sensor *", "object", NULL, "Klipper's object. None: temperature_sensor of the same name.", EX("temperature_sensor vacuum1")),
    STR("sensor *", "field", NULL, "The number of its status that counts. None: temperature; force_g of a load cell; value of anything else.",
        EX("temperature")),
    ROW("sensor *", "type", KP_T_NAME, .def = "temperature", .choices = "vacuum|pressure|temperature|load", .doc = "What it measures."),
    STR("sensor *", "unit", NULL, "Unit of the value. None: kPa, kPa, C or g by type.", EX("kPa")),
    NUM("sensor *", "scale", "", "1", -1e9, 1e9, "value = Klipper's value * scale + offset.", NONE),
    NUM("sensor *", "offset", "", "0", -1e9, 1e9, "value = Klipper's value * scale + offset.", NONE),
    NUM("sensor *", "report_time", "s", "0.3", 0.001, 60, "Time between Klipper's own samples.", NONE),
    ROW("sensor *", "m105", KP_T_NAME, .doc = "Name under which M105 of the G-code port tells it. None: it does not.", EX("V1")),

    STR("feeder *", "stepper", NULL, "Klipper's section of the motor: manual_stepper NAME, extruder or extruder_stepper NAME.", EX("manual_stepper feeder1")),
    ROW("feeder *", "macro", KP_T_NAME,
        .doc = "G-code macro that advances it, instead of a stepper; called with DISTANCE= (mm, below 0 to retract) and FEEDRATE= (mm/min).",
        EX("FEED_LEFT")),
    NUM("feeder *", "pitch", "mm", NULL, 0.001, 1000, "One advance.", EX("4")),
    NUM("feeder *", "feedrate", "mm/min", NULL, 0.001, 60 * FAR, "Feedrate of an advance where the request gives none. None: 100.", EX("600")),
    NUM("feeder *", "accel", "mm/s2", NULL, 0, 1e6, "Acceleration. None: the section's own.", EX("500")),
    NUM("feeder *", "pick_x", "mm", NULL, -FAR, FAR, "X of the part to pick.", EX("40")),
    NUM("feeder *", "pick_y", "mm", NULL, -FAR, FAR, "Y of the part to pick.", EX("20")),
    NUM("feeder *", "pick_rotation", "deg", NULL, -360, 360, "Rotation of the part to pick, counterclockwise.", EX("90")),
    NUM("feeder *", "pick_height", "mm", NULL, -FAR, FAR, "Machine Z of a pick from this feeder.", EX("1.2")),
    STR("feeder *", "part", NULL, "Package or value of the parts it holds.", EX("100n")),

    STR("pin *", "object", NULL, "Klipper's section this name stands for: output_pin NAME.", EX("output_pin light")),
    STR("pin *", "pin", NULL, "Board pin this name stands for, instead of object: PB5, mcu2:PA0.", EX("PB5")),
    INT("pin *", "m42", NULL, 0, 9999, "Number by which M42 P of the G-code port writes it. None: it does not.", EX("1")),

    STR("mcode *", "pin", NULL, "Output pin that it switches: name, section or board pin.", .required = true, EX("valve1")),
    STR("mcode *", "set", "on", "on, off, or value: what its S says, 0 to 255.", .choices = "on|off|value"),
    STR("mcode *", "done", "acted", "When ok is answered: acted: the pin has changed; planned: Klipper has accepted it.", .choices = "planned|acted"),
};
const size_t kp_option_count = sizeof kp_option_table / sizeof *kp_option_table;

const struct kp_option *kp_options(size_t *count)
{
    *count = kp_option_count;
    return kp_option_table;
}
