/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the answers of the registry's rows are made of, for OpenAPI and docs. Invariant: a field that the shim writes stands here with its type and unit,
 * and the other way round. */
#include "answers.h"

#define END { .name = NULL }
#define NUM(n, unit, flags, text) { n, KP_A_NUM, unit, flags, NULL, text }
#define INT(n, flags, text) { n, KP_A_INT, "", flags, NULL, text }
#define FLAG(n, text) { n, KP_A_BOOL, "", 0, NULL, text }
#define TEXT(n, flags, text) { n, KP_A_TEXT, "", flags, NULL, text }
#define PART(n, flags, fields, text) { n, KP_A_OBJECT, "", flags, fields, text }
#define ANY(n, flags, text) { n, KP_A_ANY, "", flags, NULL, text }

#define TOOK NUM("execution_time", "s", 0, "From its start on the machine to its end.")
#define COMPLETED FLAG("completed", "The machine has done it; false: Klipper has accepted it.")
#define GCODE TEXT("gcode", KP_LIST, "The lines that Klipper was sent.")
#define DONE COMPLETED, GCODE, TOOK
#define STALE FLAG("stale", "Klipper has not said lately that this still holds.")
#define AT NUM("timestamp", "s", KP_NULLABLE, "Unix time at which Klipper last told it; null: never.")
#define XYZ(n, flags, text) NUM(n, "mm", KP_MAP | (flags), text)
#define LEVEL NUM("vacuum_level", "", KP_NULLABLE, "Last level of the nozzle's sensor, in its unit; null: none was read.")
#define VACUUM FLAG("vacuum_enabled", "Whether the vacuum is on at the end.")
#define WHEN(n, text) NUM(n, "s", KP_NULLABLE, text)

const struct kp_field answer_none[] = { END };

const struct kp_field answer_move[] = {
    XYZ("position", KP_NULLABLE, "Where the head is when it is done, by axis; null: not known."), DONE, END };
const struct kp_field answer_home[] = { TEXT("homed_axes", KP_LIST, "Axes homed now."), DONE, END };
const struct kp_field answer_pick[] = {
    VACUUM, LEVEL, XYZ("position", KP_NULLABLE, "Where the head is when it is done, by axis; null: not known."), DONE, END };
const struct kp_field answer_pick_and_place[] = {
    XYZ("pick_position", 0, "Where the tip picked, by axis."), XYZ("place_position", 0, "Where the tip placed, by axis."), VACUUM, LEVEL,
    INT("attempts", 0, "Picks it took."), DONE, END };
const struct kp_field answer_write[] = { TEXT("pin", 0, "Short name of the pin."), INT("value", 0, "1 on, 0 off, as asked for."), DONE, END };
const struct kp_field answer_vacuum[] = { NUM("power", "", 0, "0 to 255."), DONE, END };
const struct kp_field answer_fan[] = { TEXT("fan", 0, "Short name of the fan."), NUM("speed", "", 0, "0 to 1."), DONE, END };
const struct kp_field answer_pwm_set[] = {
    TEXT("pin", 0, "Short name of the pin."), NUM("value", "", 0, "0 to 1, as asked for."),
    NUM("cycle_time", "s", KP_NULLABLE, "As asked for, else as configured."),
    DONE, END };
const struct kp_field answer_pwm_ramp[] = {
    TEXT("pin", 0, "Short name of the pin."), INT("steps", 0, "Steps after the first value."), NUM("duration", "s", 0, "As asked for."),
    NUM("late", "s", 0, "How much later than asked for the last step went out."), FLAG("replaced", "Another command set the pin before the end."), DONE, END };

const struct kp_field answer_pin[] = {
    TEXT("pin", 0, "Short name of the pin."), NUM("state", "", KP_NULLABLE, "0 or 1; 0 to 1 of a PWM pin; null: never told."),
    TEXT("direction", 0, "input or output."), STALE, AT, END };
const struct kp_field answer_pins[] = { PART("pins", KP_LIST, answer_pin, "Each pin of the machine."), INT("count", 0, "How many."), END };
const struct kp_field answer_sensor[] = {
    TEXT("sensor", 0, "Name of the sensor."), TEXT("type", 0, "vacuum, pressure, temperature or load."),
    NUM("value", "", KP_NULLABLE, "In unit; null: never told."),
    TEXT("unit", 0, "Unit of value."), NUM("last_updated", "s", KP_NULLABLE, "Unix time at which Klipper last told it; null: never."), STALE, END };
const struct kp_field answer_sensors[] = { PART("sensors", KP_LIST, answer_sensor, "Each sensor."), INT("count", 0, "How many."), END };
const struct kp_field answer_feeder[] = { TEXT("feeder", 0, "Name of the feeder."), NUM("distance", "mm", 0, "As asked for."), DONE, END };

/* ---- the whole machine ---- */

static const struct kp_field limit_fields[] = {
    NUM("min", "mm", KP_NULLABLE, "Least coordinate; deg of a rotary axis; null: none."), NUM("max", "mm", KP_NULLABLE, "Largest coordinate."), END };

const struct kp_field answer_position[] = {
    XYZ("position", KP_NULLABLE, "Where the machine is, by axis; null: not known."),
    XYZ("commanded", KP_NULLABLE, "Where the last accepted move ends, by axis."),
    TEXT("positioning_mode", KP_NULLABLE, "absolute or relative: of Klipper's G-code state, which is everybody's."), TEXT("units", 0, "mm."),
    NUM("feedrate", "mm/min", KP_NULLABLE, "Of Klipper's G-code state."), TEXT("homed_axes", KP_LIST, "Axes that are homed."),
    TEXT("joined_axes", KP_LIST, "Extra axes that Klipper moves in one line with X, Y and Z."),
    TEXT("unverified", KP_LIST, "Homed axes whose place is our own count: Klipper shows it nowhere."),
    PART("limits", KP_MAP, limit_fields, "By axis."), STALE, AT, END };

static const struct kp_field printer_fields[] = {
    TEXT("state", 0, "ready, startup, shutdown, error or disconnected."), FLAG("klippy_connected", "Klipper talks to Moonraker."),
    FLAG("moonraker_connected", "Moonraker talks to KlipperPlace."), END };
static const struct kp_field queue_fields[] = {
    INT("size", 0, "Commands that wait or run."), FLAG("executing", "One runs."), FLAG("paused", "The queue is held."), END };
static const struct kp_field safety_fields[] = {
    TEXT("level", 0, "normal, caution, warning, critical or emergency."), FLAG("emergency_stop_active", "An emergency stop is latched."), END };
static const struct kp_field connection_fields[] = {
    FLAG("moonraker_connected", "Moonraker talks to KlipperPlace."), FLAG("klippy_connected", "Klipper talks to Moonraker."),
    FLAG("websocket_connected", "The connection to Moonraker carries pushes."), NUM("last_heartbeat", "s", KP_NULLABLE, "Unix time of the last push."), END };
static const struct kp_field klipper_fields[] = {
    TEXT("state", 0, "As in printer_status."), ANY("extra", KP_NULLABLE, "What the Klipper extra tells of itself, an object; null: Klipper does without."), END };

const struct kp_field answer_status[] = {
    PART("printer_status", 0, printer_fields, "Klipper and the way to it."), XYZ("position", KP_NULLABLE, "Where the machine is, by axis."),
    TEXT("homed_axes", KP_LIST, "Axes that are homed."), FLAG("vacuum_enabled", "A nozzle sucks."),
    NUM("vacuum_power", "", KP_NULLABLE, "0 to 255; null: not known."),
    NUM("fan_speed", "", KP_NULLABLE, "0 to 1, of the part fan; null: none."), NUM("fan_states", "", KP_NULLABLE | KP_MAP, "0 to 1, by fan."),
    NUM("pwm_outputs", "", KP_NULLABLE | KP_MAP, "0 to 1, by pin."), INT("actuators", KP_NULLABLE | KP_MAP, "0 or 1, by pin."),
    PART("sensors", KP_MAP, answer_sensor, "By sensor."), PART("queue", 0, queue_fields, "The queue."), PART("safety", 0, safety_fields, "Safety."),
    PART("connection", 0, connection_fields, "Connections."), PART("klipper", 0, klipper_fields, "Klipper."), STALE, AT, END };

const struct kp_field answer_printer_state[] = {
    TEXT("state", 0, "ready, startup, shutdown, error or disconnected."), TEXT("message", 0, "Klipper's own words."),
    FLAG("klippy_connected", "Klipper talks to Moonraker."), FLAG("moonraker_connected", "Moonraker talks to KlipperPlace."), STALE, AT, END };

/* ---- queue and batch ---- */

static const struct kp_field entry_fields[] = {
    TEXT("queue_id", 0, "UUID."), TEXT("command", 0, "Name of the command."), ANY("parameters", 0, "Its parameters."),
    INT("priority", 0, "Higher goes first."),
    TEXT("state", 0, "pending, executing, done, failed, cancelled or interrupted."), TEXT("error_code", KP_NULLABLE | KP_OPTIONAL, "Why it did not work."),
    WHEN("added_at", "Unix time."), WHEN("started_at", "Unix time; null: not yet."), WHEN("ended_at", "Unix time; null: not yet."), END };

static const struct kp_field ended_fields[] = {
    TEXT("command_id", 0, "UUID; of a queued one its queue_id."), TEXT("queue_id", KP_NULLABLE, "Null: it did not come by the queue."),
    TEXT("command", 0, "Name of the command."), ANY("parameters", 0, "Its parameters."), INT("priority", 0, "Higher went first."),
    TEXT("state", 0, "done, failed, cancelled or interrupted."), TEXT("error_code", KP_NULLABLE, "Why it did not work."),
    TEXT("error_message", KP_NULLABLE, "In words."), WHEN("added_at", "Unix time."), WHEN("started_at", "Unix time; null: never."),
    WHEN("ended_at", "Unix time."), END };

const struct kp_field answer_queue_add[] = {
    TEXT("queue_id", 0, "UUID of the entry."), INT("queue_position", 0, "1 goes next."), INT("queue_size", 0, "Entries that wait or run."), END };
const struct kp_field answer_queue_batch[] = {
    TEXT("queue_ids", KP_LIST, "UUIDs, in the order given."), INT("queue_size", 0, "Entries that wait or run."), END };
const struct kp_field answer_queue_status[] = {
    INT("queue_size", 0, "Entries that wait or run."), FLAG("executing", "One runs."), FLAG("paused", "The queue is held."),
    TEXT("holds", KP_LIST, "Why it is held: paused, interrupted, safety, print."),
    PART("current_command", KP_NULLABLE, entry_fields, "The one that runs; null: none."),
    PART("queued_commands", KP_LIST, entry_fields, "In the order they go."), END };
const struct kp_field answer_queue_clear[] = { INT("cleared_count", 0, "Entries cancelled."), END };
const struct kp_field answer_queue_cancel[] = { TEXT("cancelled_id", 0, "UUID of the entry."), END };
const struct kp_field answer_queue_history[] = { PART("entries", KP_LIST, ended_fields, "Commands that ended, the last first."), END };
const struct kp_field answer_batch[] = {
    ANY("results", KP_LIST, "The answer of each command, with its envelope, in the order given."), NUM("total_execution_time", "s", 0, "Of all."),
    INT("success_count", 0, "Commands that worked."), INT("error_count", 0, "Commands that did not."), END };

/* ---- system and safety ---- */

const struct kp_field answer_stop[] = {
    FLAG("emergency_stop_active", "The stop is latched."), TEXT("reason", 0, "Of the stop that holds, as first given."), NUM("latency", "s", 0, "From the request to the confirmation."),
    NUM("execution_time", "s", 0, "The same."), TEXT("confirmed_by", 0, "moonraker, klipper or none."), END };
const struct kp_field answer_pause[] = { FLAG("paused", "The queue is held."), END };
const struct kp_field answer_resume[] = { FLAG("resumed", "The queue goes on."), END };
const struct kp_field answer_reset[] = {
    FLAG("reset_complete", "Klipper is ready and the stop is cleared."), TEXT("homed_axes", KP_LIST, "None after a restart: home again."),
    FLAG("paused", "The queue is held until system/resume."), NUM("execution_time", "s", 0, "Until Klipper was ready."),
    END };

static const struct kp_field event_fields[] = {
    INT("id", 0, "From 1, without gaps."), TEXT("level", 0, "normal, caution, warning, critical or emergency; normal: the cause is gone."),
    TEXT("cause", 0, "What it is about."), TEXT("message", 0, "For people."), NUM("got", "", KP_NULLABLE, "The value; null: none."),
    NUM("limit", "", KP_NULLABLE, "What it passed; null: none."), WHEN("timestamp", "Unix time."), END };

const struct kp_field answer_safety_status[] = {
    TEXT("level", 0, "normal, caution, warning, critical or emergency."), FLAG("emergency_stop_active", "An emergency stop is latched."),
    TEXT("reason", KP_NULLABLE, "Of the stop; null: none."), TEXT("states", KP_LIST, "What may hinder a command now, ready: nothing."),
    ANY("limits", KP_MAP, "The limits in force: numbers by name, null: none; axes by letter."),
    PART("events", KP_LIST, event_fields, "The last ones, the last first."), END };
const struct kp_field answer_safety_events[] = { PART("events", KP_LIST, event_fields, "The last first."), INT("count", 0, "How many."), END };

/* ---- about the server ---- */

const struct kp_field answer_version[] = {
    TEXT("api_version", 0, "Of this interface."), TEXT("server_version", 0, "Of klipperplaced."), TEXT("supported_versions", KP_LIST, "All that are served."),
    TEXT("latest_version", 0, "The newest of them."), TEXT("deprecation_notices", KP_LIST, "What will go."), END };

#define KEY TEXT("id", 0, "UUID of the key."), TEXT("name", 0, "For people."), \
    TEXT("role", 0, "viewer, operator or admin."), FLAG("enabled", "It may be used."), \
    WHEN("created_at", "Unix time."), WHEN("expires_at", "Unix time; null: never."), WHEN("last_used_at", "Unix time; null: never.")

const struct kp_field answer_key[] = { KEY, END };
const struct kp_field answer_key_secret[] = { KEY, TEXT("key", 0, "The key itself; never shown again."), END };
const struct kp_field answer_keys[] = { PART("keys", KP_LIST, answer_key, "All keys."), INT("count", 0, "How many."), END };
const struct kp_field answer_key_deleted[] = { TEXT("deleted_id", 0, "UUID of the key."), END };
const struct kp_field answer_auth_status[] = {
    FLAG("enabled", "Clients must show a key."), INT("keys", 0, "How many there are."),
    TEXT("role", KP_NULLABLE, "Of the one who asks; null: no key was asked for."), END };
const struct kp_field answer_ws_token[] = { TEXT("token", 0, "For ?token= of /ws/v1, once."), NUM("expires_in", "s", 0, "How long it may be used."), END };

const struct kp_field answer_health[] = {
    TEXT("status", 0, "ok."), FLAG("moonraker_connected", "Moonraker talks to KlipperPlace."), TEXT("klipper", 0, "Klipper's state."),
    FLAG("ready", "Klipper can be used."), FLAG("stale", "Klipper has told nothing for a second: reads are old."),
    FLAG("emergency_stop_second_way", "Klipper's own socket is there for an emergency stop."), END };
