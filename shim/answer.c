/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The envelope and the data of each command as JSON, for app. Every number in it came from Klipper through the machine, or from the plan that ran. */
#include "answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "json.h"
#include "lane.h"

#define GOT_MAX 1e300    /* what is larger could be beyond all doubles once its 15 digits are read again */
#define ENVELOPE_MAX 192 /* bytes of an envelope without command and data */

void answer_id(struct answer_pool *pool, char out[ANSWER_ID])
{
    static const char hex[] = "0123456789abcdef";
    unsigned char b[16];
    if (!pool->left) {
        if (getrandom(pool->bytes, sizeof pool->bytes, 0) != (ssize_t)sizeof pool->bytes)
            abort(); /* cannot happen for 256 bytes once the kernel's pool is ready */
        pool->left = sizeof pool->bytes;
    }
    memcpy(b, pool->bytes + (pool->left -= sizeof b), sizeof b);
    b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
    b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
    for (size_t i = 0; i < sizeof b; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[b[i] >> 4];
        *out++ = hex[b[i] & 15];
    }
    *out = 0;
}

double answer_wall(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- the envelope ---- */

char *answer_warned(bool partial, const char *command, const char *id, const char *data, size_t n, const char *warning, size_t *out_n)
{
    json_t *words = warning ? json_pack("[s]", warning) : json_array();
    char *warnings = words ? json_dumps(words, JSON_TEXT) : NULL;
    size_t cap = n + strlen(command) + (warnings ? strlen(warnings) : 0) + 192;
    char *out = warnings ? malloc(cap) : NULL;
    json_decref(words);
    if (out) {
        int head = snprintf(out, cap, "{\"status\":\"%s\",\"command\":\"%s\",\"command_id\":\"%s\",\"data\":", partial ? "partial" : "success", command, id);
        memcpy(out + head, data, n);
        int tail = snprintf(out + (size_t)head + n, cap - (size_t)head - n, ",\"warnings\":%s,\"timestamp\":%.3f}\n", warnings, answer_wall());
        *out_n = (size_t)head + n + (size_t)tail;
    }
    free(warnings);
    return out;
}

/* Writes v with at least `least` digits; gives the end. */
static char *digits(char *out, unsigned long long v, int least)
{
    char text[20];
    int n = 0;
    do
        text[n++] = (char)('0' + v % 10);
    while ((v /= 10) || n < least);
    while (n)
        *out++ = text[--n];
    return out;
}

char *answer_success(const char *command, const char *id, const char *data, size_t n, size_t *out_n)
{
    struct timespec ts;
    char *out = malloc(n + strlen(command) + ENVELOPE_MAX), *at = out;
    if (!out)
        return NULL;
    clock_gettime(CLOCK_REALTIME, &ts);
    at = stpcpy(at, "{\"status\":\"success\",\"command\":\"");
    at = stpcpy(at, command);
    at = stpcpy(at, "\",\"command_id\":\"");
    at = stpcpy(at, id);
    at = stpcpy(at, "\",\"data\":");
    at = mempcpy(at, data, n);
    at = stpcpy(at, ",\"warnings\":[],\"timestamp\":");
    at = digits(at, (unsigned long long)ts.tv_sec, 1);
    *at++ = '.';
    at = digits(at, (unsigned long long)ts.tv_nsec / 1000000, 3);
    at = stpcpy(at, "}\n");
    *out_n = (size_t)(at - out);
    return out;
}

static json_t *fault_json(const struct kp_error *e)
{
    json_t *j = json_pack("{s:s,s:s}", "code", kp_err_name(e->code), "message", e->message);
    if (e->field[0])
        json_object_set_new(j, "field", json_string(e->field));
    if (fabs(e->got) < GOT_MAX) /* also false for NaN */
        json_object_set_new(j, "got", json_real(e->got));
    if (isfinite(e->min))
        json_object_set_new(j, "min", json_real(e->min));
    if (isfinite(e->max))
        json_object_set_new(j, "max", json_real(e->max));
    return j;
}

char *answer_error(const char *command, const char *id, const struct kp_faults *f, json_t *details, size_t *out_n)
{
    const struct kp_error *first = &f->item[0];
    const char *status = first->code == KP_TIMEOUT ? "timeout" : first->code == KP_CANCELLED ? "cancelled" : "error";
    json_t *errors = json_array();
    for (size_t i = 0; i < f->count; i++)
        json_array_append_new(errors, fault_json(&f->item[i]));
    if (!details)
        details = json_object();
    json_object_set_new(details, "errors", errors);
    if (f->dropped)
        json_object_set_new(details, "more_errors", json_integer((json_int_t)f->dropped));
    json_t *j = json_pack("{s:s,s:s,s:s,s:s,s:s,s:o,s:[],s:f}", "status", status, "command", command, "command_id", id, "error_code", kp_err_name(first->code),
                          "error_message", first->message, "details", details, "warnings", "timestamp", round(answer_wall() * 1000) / 1000);
    char *out = j ? json_dumps(j, JSON_TEXT) : NULL;
    *out_n = out ? strlen(out) : 0;
    json_decref(j);
    return out;
}

/* ---- reads ---- */

static json_t *stamp(const struct answer_time *t)
{
    return t->wall > 0 ? json_real(round(t->wall * 1000) / 1000) : json_null();
}

static json_t *pin_value(const struct kp_pin *p, bool inverted)
{
    if (p->changed_ms == INT64_MIN) /* never told */
        return json_null();
    double v = inverted ? 1 - p->value : p->value;
    return p->kind == KP_PIN_PWM || p->kind == KP_PIN_SERVO ? json_real(v) : json_integer(v >= 0.5);
}

/* A push says of all that is subscribed that it still holds; of an endstop Klipper knows only what it was when it was last asked. */
static json_t *pin_stamp(const struct kp_pin *p, const struct answer_time *t)
{
    if (p->kind != KP_PIN_ENDSTOP)
        return stamp(t);
    return p->changed_ms == INT64_MIN ? json_null() : json_real(round((answer_wall() - (double)(t->now_ms - p->changed_ms) / 1000) * 1000) / 1000);
}

static bool is_output(const struct kp_pin *p)
{
    return p->kind == KP_PIN_OUTPUT || p->kind == KP_PIN_PWM || p->kind == KP_PIN_SERVO;
}

bool answer_stale(const struct kp_machine *m, const struct answer_time *t)
{
    const struct kp_pin *p;
    for (size_t i = 0; t->fresh && (p = kp_machine_pin(m, i)); i++)
        if (p->dirty)
            return true;
    return !t->fresh;
}

json_t *answer_pin(const struct kp_pin *p, bool inverted, const struct answer_time *t)
{
    return json_pack("{s:s,s:o,s:s,s:b,s:o}", "pin", p->name, "state", pin_value(p, inverted), "direction", is_output(p) ? "output" : "input", "stale",
                     !t->fresh || p->dirty, "timestamp", pin_stamp(p, t));
}

json_t *answer_pins(const struct kp_machine *m, const struct answer_time *t)
{
    json_t *pins = json_array();
    const struct kp_pin *p;
    for (size_t i = 0; (p = kp_machine_pin(m, i)); i++)
        json_array_append_new(pins, answer_pin(p, false, t));
    return json_pack("{s:o,s:I}", "pins", pins, "count", (json_int_t)json_array_size(pins));
}

json_t *answer_sensor(const struct kp_sensor *s, const struct answer_time *t)
{
    return json_pack("{s:s,s:s,s:o,s:s,s:o,s:b}", "sensor", s->name, "type", s->type, "value", s->changed_ms != INT64_MIN ? json_finite(s->value) : json_null(), "unit", s->unit,
                     "last_updated", stamp(t), "stale", !t->fresh);
}

json_t *answer_sensors(const struct kp_machine *m, const char *type, const struct answer_time *t)
{
    json_t *sensors = json_array();
    const struct kp_sensor *s;
    for (size_t i = 0; (s = kp_machine_sensor(m, i)); i++)
        if (!type || !strcmp(type, s->type))
            json_array_append_new(sensors, answer_sensor(s, t));
    return json_pack("{s:o,s:I}", "sensors", sensors, "count", (json_int_t)json_array_size(sensors));
}

/* ["x", "y"]: axes that are homed, or those of a mask. */
static json_t *axis_names(const struct kp_machine *m, bool all, unsigned mask)
{
    json_t *names = json_array();
    const struct kp_axis *a;
    for (size_t i = 0; (a = kp_machine_axis(m, i)); i++)
        if (all ? a->homed : (mask >> i & 1) != 0) {
            char name[2] = { (char)(a->letter | 0x20), 0 };
            json_array_append_new(names, json_string(name));
        }
    return names;
}

static json_t *place_json(bool known, const double xyz[3])
{
    return known ? json_xyz(xyz) : json_null();
}

json_t *answer_position(const struct kp_machine *m, const struct answer_time *t)
{
    double live[3], commanded[3], feedrate = NAN;
    bool absolute = true;
    bool has_live = kp_machine_position(m, live), has_commanded = kp_machine_commanded(m, commanded);
    bool has_state = kp_machine_gcode_state(m, &absolute, &feedrate);
    json_t *limits = json_object(), *at = place_json(has_live, live), *joined = json_array(), *unverified = json_array();
    const struct kp_axis *a;
    for (size_t i = 0; (a = kp_machine_axis(m, i)); i++) {
        char name[2] = { (char)(a->letter | 0x20), 0 };
        json_object_set_new(limits, name, json_pack("{s:o,s:o}", "min", json_finite(a->min), "max", json_finite(a->max)));
        if (a->join == KP_JOINED)
            json_array_append_new(joined, json_string(name));
        if (a->extra && a->homed && !a->verified)
            json_array_append_new(unverified, json_string(name));
        if (a->extra && json_is_object(at))
            json_object_set_new(at, name, a->tracked && a->homed ? json_finite(a->position) : json_null());
    }
    return json_pack("{s:o,s:o,s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:b,s:o}", "position", at, "commanded", place_json(has_commanded, commanded), "positioning_mode",
                     has_state ? json_string(absolute ? "absolute" : "relative") : json_null(), "units", "mm", "feedrate", json_finite(feedrate), "homed_axes",
                     axis_names(m, true, 0), "joined_axes", joined, "unverified", unverified, "limits", limits, "stale", !t->fresh, "timestamp", stamp(t));
}

json_t *answer_homed(const struct kp_machine *m)
{
    return axis_names(m, true, 0);
}

json_t *answer_klipper(const struct kp_machine *m, const char *words)
{
    return json_pack("{s:s,s:s}", "state", kp_klippy_name(kp_machine_klippy_state(m)), "message", words ? words : kp_machine_klippy_message(m));
}

static void vacuum(const struct kp_machine *m, bool *enabled, json_t **power)
{
    const struct kp_nozzle *z;
    *enabled = false;
    *power = json_null();
    for (size_t i = 0; (z = kp_machine_nozzle(m, i)); i++) {
        const struct kp_pin *pump = z->pump < 0 ? NULL : kp_machine_pin(m, (size_t)z->pump), *valve = z->valve < 0 ? NULL : kp_machine_pin(m, (size_t)z->valve);
        bool pumps = pump && pump->known && pump->value > 0, open = valve && valve->known && valve->value > 0;
        if (pump && pump->known && (json_is_null(*power) || pumps)) {
            json_decref(*power);
            *power = json_integer((json_int_t)lround(pump->value * 255));
        }
        *enabled |= (pump || valve) && (pumps || !pump) && (open || !valve);
    }
    struct kp_vacuum v = kp_machine_nozzle(m, 0) ? (struct kp_vacuum){ KP_VACUUM_NONE, -1 } : kp_machine_vacuum(m);
    const struct kp_pin *p = v.kind == KP_VACUUM_PIN ? kp_machine_pin(m, (size_t)v.index) : NULL;
    const struct kp_fan *f = v.kind == KP_VACUUM_FAN ? kp_machine_fan(m, (size_t)v.index) : NULL;
    if (!(p && p->known) && !(f && f->known))
        return;
    *power = json_integer((json_int_t)lround((p ? p->value : f->speed) * 255));
    *enabled = (p ? p->value : f->speed) > 0;
}

/* By name, and the part fan's own. */
static json_t *fans(const struct kp_machine *m, json_t **part)
{
    json_t *all = json_object();
    const struct kp_fan *f;
    *part = json_null();
    for (size_t i = 0; (f = kp_machine_fan(m, i)); i++) {
        json_object_set_new(all, f->name, f->known ? json_finite(f->speed) : json_null());
        if (f->kind == KP_FAN_PART && f->known)
            *part = json_finite(f->speed);
    }
    return all;
}

static json_t *connection(const struct kp_machine *m, const struct answer_time *t)
{
    bool moonraker = kp_machine_moonraker_connected(m), klippy = kp_machine_klippy_state(m) != KP_KLIPPY_GONE;
    return json_pack("{s:b,s:b,s:b,s:o}", "moonraker_connected", moonraker, "klippy_connected", klippy, "websocket_connected", moonraker, "last_heartbeat", stamp(t));
}

json_t *answer_status(const struct kp_machine *m, const struct answer_time *t)
{
    double live[3];
    bool has_live = kp_machine_position(m, live), enabled;
    json_t *power, *part, *blow = fans(m, &part), *pwm = json_object(), *actuators = json_object(), *sensors = json_object();
    const struct kp_pin *p;
    const struct kp_sensor *s;
    vacuum(m, &enabled, &power);
    for (size_t i = 0; (p = kp_machine_pin(m, i)); i++)
        if (is_output(p))
            json_object_set_new(p->kind == KP_PIN_OUTPUT ? actuators : pwm, p->name, pin_value(p, false));
    for (size_t i = 0; (s = kp_machine_sensor(m, i)); i++)
        json_object_set_new(sensors, s->name, answer_sensor(s, t));
    json_t *printer = json_pack("{s:s,s:b,s:b}", "state", kp_klippy_name(kp_machine_klippy_state(m)), "klippy_connected", kp_machine_klippy_state(m) != KP_KLIPPY_GONE,
                                "moonraker_connected", kp_machine_moonraker_connected(m));
    json_t *queue = json_pack("{s:I,s:b,s:b}", "size", (json_int_t)t->queue, "executing", t->running != NULL, "paused", t->held);
    json_t *safety = json_pack("{s:s,s:b}", "level", kp_level_name(kp_safety_level(m)), "emergency_stop_active", kp_safety_latched(m));
    json_t *klipper = json_pack("{s:s,s:O?}", "state", kp_klippy_name(kp_machine_klippy_state(m)), "extra", t->extra);
    return json_pack("{s:o,s:o,s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:b,s:o}", "printer_status", printer, "position", place_json(has_live, live), "homed_axes",
                     axis_names(m, true, 0), "vacuum_enabled", enabled, "vacuum_power", power, "fan_speed", part, "fan_states", blow, "pwm_outputs", pwm,
                     "actuators", actuators, "sensors", sensors, "queue", queue, "safety", safety, "connection", connection(m, t), "klipper", klipper, "stale", answer_stale(m, t), "timestamp", stamp(t));
}

json_t *answer_printer_state(const struct kp_machine *m, const struct answer_time *t)
{
    enum kp_klippy state = kp_machine_klippy_state(m);
    return json_pack("{s:s,s:s,s:b,s:b,s:b,s:o}", "state", kp_klippy_name(state), "message", kp_machine_klippy_message(m), "klippy_connected", state != KP_KLIPPY_GONE,
                     "moonraker_connected", kp_machine_moonraker_connected(m), "stale", !t->fresh, "timestamp", stamp(t));
}

json_t *answer_version(void)
{
    return json_pack("{s:s,s:s,s:[s],s:s,s:[]}", "api_version", "v1", "server_version", kp_version(), "supported_versions", "v1", "latest_version", "v1",
                     "deprecation_notices");
}

json_t *answer_health(const struct kp_machine *m, bool second_way, bool fresh)
{
    bool ready = kp_machine_klippy_state(m) == KP_KLIPPY_READY;
    return json_pack("{s:s,s:b,s:s,s:b,s:b,s:b}", "status", "ok", "moonraker_connected", kp_machine_moonraker_connected(m), "klipper",
                     kp_klippy_name(kp_machine_klippy_state(m)), "ready", ready, "stale", !fresh, "emergency_stop_second_way", second_way);
}

/* ---- commands that went through the lane ---- */

static json_t *gcode_lines(const struct kp_seq *s)
{
    json_t *lines = json_array();
    const char *line;
    for (size_t i = 0; (line = kp_seq_gcode(s, i)); i++)
        json_array_append_new(lines, json_string(line));
    return lines;
}

/* Where the command left the head: what it moved from the plan, the rest as Klipper tells it. */
static json_t *left_at(const struct kp_machine *m, const struct kp_result *r)
{
    double xyz[3] = { NAN, NAN, NAN };
    bool known = kp_machine_commanded(m, xyz);
    for (int i = 0; r->moved && i < 3; i++)
        if (!isnan(r->target[i]))
            xyz[i] = r->target[i], known = true;
    return place_json(known, xyz);
}

static const char *pin_name(const struct kp_machine *m, const struct kp_call *call)
{
    return kp_machine_pin(m, (size_t)kp_call_slot(call, "pin")->index)->name;
}

static void pwm_set(json_t *d, const struct kp_machine *m, const struct kp_call *call, const struct kp_result *r)
{
    const struct kp_slot *cycle = kp_call_slot(call, "cycle_time");
    const struct kp_pin *p = kp_machine_pin(m, (size_t)kp_call_slot(call, "pin")->index);
    json_object_set_new(d, "pin", json_string(p->name));
    json_object_set_new(d, "value", json_finite(r->value));
    json_object_set_new(d, "cycle_time", json_finite(cycle->set ? cycle->num : p->cycle_time_s));
}

json_t *answer_done(const struct kp_machine *m, const struct kp_call *call, const struct lane_outcome *o)
{
    const struct kp_result *r = kp_seq_result(o->seq);
    json_t *d = json_object();
    switch (call->command->id) {
    case KP_PICK:
    case KP_PLACE:
        json_object_set_new(d, "vacuum_enabled", json_boolean(r->vacuum_enabled));
        json_object_set_new(d, "vacuum_level", r->has_level ? json_finite(r->level) : json_null());
        json_object_set_new(d, "position", left_at(m, r));
        break;
    case KP_PICK_AND_PLACE:
        json_object_set_new(d, "pick_position", json_xyz(r->pick));
        json_object_set_new(d, "place_position", json_xyz(r->place));
        json_object_set_new(d, "vacuum_enabled", json_boolean(r->vacuum_enabled));
        json_object_set_new(d, "vacuum_level", r->has_level ? json_finite(r->level) : json_null());
        json_object_set_new(d, "attempts", json_integer(r->attempts));
        break;
    case KP_HOME: json_object_set_new(d, "homed_axes", axis_names(m, false, r->homed)); break;
    case KP_VACUUM_ON:
    case KP_VACUUM_SET:
    case KP_VACUUM_OFF: json_object_set_new(d, "power", json_integer(lround(r->value * 255))); break;
    case KP_GPIO_WRITE:
    case KP_ACTUATE:
    case KP_ACTUATOR_ON:
    case KP_ACTUATOR_OFF:
        json_object_set_new(d, "pin", json_string(pin_name(m, call)));
        json_object_set_new(d, "value", json_integer(r->value > 0));
        break;
    case KP_PWM_SET: pwm_set(d, m, call, r); break;
    case KP_PWM_RAMP:
        json_object_set_new(d, "pin", json_string(pin_name(m, call)));
        json_object_set_new(d, "steps", json_integer((json_int_t)kp_call_slot(call, "steps")->num));
        json_object_set_new(d, "duration", json_finite(kp_call_slot(call, "duration")->num));
        json_object_set_new(d, "late", json_finite(r->late_ms / 1000));
        json_object_set_new(d, "replaced", json_boolean(r->replaced));
        break;
    case KP_FAN_ON:
    case KP_FAN_OFF:
    case KP_FAN_SET:
        json_object_set_new(d, "fan", json_string(kp_machine_fan(m, (size_t)kp_call_slot(call, "fan")->index)->name));
        json_object_set_new(d, "speed", json_finite(r->value));
        break;
    case KP_FEEDER_RETRACT:
    case KP_FEEDER_ADVANCE:
        json_object_set_new(d, "feeder", json_string(kp_machine_feeder(m, (size_t)kp_call_slot(call, "feeder")->index)->name));
        json_object_set_new(d, "distance", json_real(kp_call_slot(call, "distance")->num));
        break;
    default: json_object_set_new(d, "position", left_at(m, r)); break;
    }
    json_object_set_new(d, "completed", json_boolean(r->completed));
    json_object_set_new(d, "gcode", gcode_lines(o->seq));
    json_object_set_new(d, "execution_time", json_real(o->seconds));
    return d;
}
