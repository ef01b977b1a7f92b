/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The table of every option of klipperplace.cfg and what its rows allow, for the parser and the documentation. A row's default
 * passes its own check. */
#include "config.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define FAR 100000.0     /* mm; beyond any machine, so that a slipped digit is seen */

#define NUM(s, n, u, d, lo, hi, text) { .section = s, .name = n, .type = KP_T_NUM, .unit = u, .def = d, .min = lo, .max = hi, .doc = text }
#define STR(s, n, d, text) { .section = s, .name = n, .type = KP_T_STR, .unit = "", .def = d, .doc = text }

const struct kp_option kp_option_table[] = {
    { "api", "host", KP_T_STR, "", "127.0.0.1", 0, 0, "KLIPPERPLACE_HOST", NULL, false, "Address to listen on." },
    { "api", "port", KP_T_INT, "", "7180", 1, 65535, "KLIPPERPLACE_PORT", NULL, false, "Port to listen on, for REST and WebSocket." },
    { "api", "moonraker_host", KP_T_STR, "", "127.0.0.1", 0, 0, "MOONRAKER_HOST", NULL, false, "Moonraker's address." },
    { "api", "moonraker_port", KP_T_INT, "", "7125", 1, 65535, "MOONRAKER_PORT", NULL, false, "Moonraker's port." },
    STR("api", "moonraker_socket", NULL, "Path of Moonraker's unix socket; used instead of moonraker_host when given."),
    { "api", "moonraker_api_key", KP_T_STR, "", NULL, 0, 0, "MOONRAKER_API_KEY", NULL, false, "Key for Moonraker; not needed by socket or from a trusted address." },
    { "api", "allow_insecure", KP_T_BOOL, "", "false", 0, 0, NULL, NULL, false, "Serve an address that other machines can reach although nothing asks for a key." },
    { "api", "log_level", KP_T_STR, "", "info", 0, 0, "LOG_LEVEL", "error|warning|info|debug", false, "How much is logged." },
    { "api", "log_format", KP_T_STR, "", "text", 0, 0, "LOG_FORMAT", "text|json", false, "Form of the log lines." },

    NUM("safety", "min_x_position", "mm", NULL, -FAR, FAR, "Smallest X, machine coordinates. None: Klipper's own."),
    NUM("safety", "max_x_position", "mm", NULL, -FAR, FAR, "Largest X, machine coordinates. None: Klipper's own."),
    NUM("safety", "min_y_position", "mm", NULL, -FAR, FAR, "Smallest Y, machine coordinates. None: Klipper's own."),
    NUM("safety", "max_y_position", "mm", NULL, -FAR, FAR, "Largest Y, machine coordinates. None: Klipper's own."),
    NUM("safety", "min_z_position", "mm", NULL, -FAR, FAR, "Smallest Z, machine coordinates. None: Klipper's own."),
    NUM("safety", "max_z_position", "mm", NULL, -FAR, FAR, "Largest Z, machine coordinates. None: Klipper's own."),
    NUM("safety", "max_velocity", "mm/s", NULL, 0.001, FAR, "Highest velocity. None: Klipper's own."),
    NUM("safety", "max_acceleration", "mm/s2", NULL, 0.001, 1e6, "Highest acceleration. None: Klipper's own."),
    NUM("safety", "min_feedrate", "mm/min", NULL, 0, 60 * FAR, "Lowest feedrate a request may ask for. None: any above 0."),
    NUM("safety", "max_feedrate", "mm/min", NULL, 0.001, 60 * FAR, "Highest feedrate a request may ask for. None: the highest velocity."),
    NUM("safety", "emergency_stop_timeout", "s", "5", 0.1, 60, "Longest wait for the confirmation of an emergency stop."),

    { "vacuum", "travel_interlock", KP_T_BOOL, "", "false", 0, 0, NULL, NULL, false, "Refuse a move that crosses XY while a nozzle is below its safe height." },
    { "vacuum", "retries", KP_T_INT, "", "0", 0, 20, NULL, NULL, false, "How often a failed pick is tried again where the request does not say." },

    { "nozzle *", "z_axis", KP_T_NAME, "", "z", 0, 0, NULL, "z", false, "Axis that lifts and lowers the nozzle." },
    { "nozzle *", "z_direction", KP_T_INT, "", "1", -1, 1, NULL, "1|-1", false, "1: a larger Z lifts the nozzle; -1: it lowers it." },
    NUM("nozzle *", "safe_z", "mm", NULL, -FAR, FAR, "Machine Z at which the tip is at travel height."),
    NUM("nozzle *", "offset_x", "mm", "0", -FAR, FAR, "Tip minus head in X."),
    NUM("nozzle *", "offset_y", "mm", "0", -FAR, FAR, "Tip minus head in Y."),
    NUM("nozzle *", "offset_z", "mm", "0", -FAR, FAR, "Tip minus head in Z."),
    { "nozzle *", "rotation_axis", KP_T_NAME, "", NULL, 0, 0, NULL, AXIS_LETTERS, false, "Letter of the [axis] that turns the nozzle." },
    STR("nozzle *", "pump", NULL, "Output pin of the vacuum pump."),
    STR("nozzle *", "valve", NULL, "Output pin of the vacuum valve."),
    STR("nozzle *", "blow_off", NULL, "Output pin that blows the part off."),
    NUM("nozzle *", "blow_off_time", "s", "0.1", 0, 60, "How long the part is blown off."),
    STR("nozzle *", "sensor", NULL, "Sensor that tells whether a part is held."),
    NUM("nozzle *", "part_on", "", NULL, -1e9, 1e9, "Level at or beyond which a part is held, in the sensor's unit."),
    NUM("nozzle *", "part_off", "", NULL, -1e9, 1e9, "Level at or short of which no part is held, in the sensor's unit."),
    NUM("nozzle *", "pick_height", "mm", NULL, -FAR, FAR, "Machine Z of a pick where the request gives none."),
    NUM("nozzle *", "place_height", "mm", NULL, -FAR, FAR, "Machine Z of a placement where the request gives none."),
    NUM("nozzle *", "travel_height", "mm", NULL, -FAR, FAR, "Machine Z of travel where the request gives none."),
    NUM("nozzle *", "dwell", "s", "0.1", 0, 60, "Wait after the valve has switched."),

    { "axis *", "stepper", KP_T_STR, "", NULL, 0, 0, NULL, NULL, true, "Klipper's section of the motor: manual_stepper NAME." },
    NUM("axis *", "velocity", "deg/s or mm/s", NULL, 0.001, 1e6, "Velocity. None: the section's own."),
    NUM("axis *", "acceleration", "deg/s2 or mm/s2", NULL, 0, 1e7, "Acceleration. None: the section's own."),
    { "axis *", "rotary", KP_T_BOOL, "", "false", 0, 0, NULL, NULL, false, "Turns without end, in degrees." },

    STR("sensor *", "object", NULL, "Klipper's object. None: temperature_sensor of the same name."),
    { "sensor *", "type", KP_T_NAME, "", "temperature", 0, 0, NULL, "vacuum|pressure|temperature|load", false, "What it measures." },
    STR("sensor *", "unit", NULL, "Unit of the value. None: kPa, kPa, C or g by type."),
    NUM("sensor *", "scale", "", "1", -1e9, 1e9, "value = Klipper's value * scale + offset."),
    NUM("sensor *", "offset", "", "0", -1e9, 1e9, "value = Klipper's value * scale + offset."),
    NUM("sensor *", "report_time", "s", "0.3", 0.001, 60, "Time between Klipper's own samples."),

    { "feeder *", "stepper", KP_T_STR, "", NULL, 0, 0, NULL, NULL, true, "Klipper's section of the motor: manual_stepper NAME." },
    NUM("feeder *", "pitch", "mm", NULL, 0.001, 1000, "One advance."),
    NUM("feeder *", "feedrate", "mm/min", NULL, 0.001, 60 * FAR, "Feedrate of an advance where the request gives none."),
    NUM("feeder *", "accel", "mm/s2", NULL, 0, 1e6, "Acceleration. None: the section's own."),
    NUM("feeder *", "pick_x", "mm", NULL, -FAR, FAR, "X of the part to pick."),
    NUM("feeder *", "pick_y", "mm", NULL, -FAR, FAR, "Y of the part to pick."),
    NUM("feeder *", "pick_rotation", "deg", NULL, -360, 360, "Rotation of the part to pick, counterclockwise."),
    NUM("feeder *", "pick_height", "mm", NULL, -FAR, FAR, "Machine Z of a pick from this feeder."),
    STR("feeder *", "part", NULL, "Package or value of the parts it holds."),

    STR("pin *", "object", NULL, "Klipper's section this name stands for: output_pin NAME."),
    STR("pin *", "pin", NULL, "Board pin this name stands for: PB5, mcu2:PA0."),
};
#define OPTION_COUNT (sizeof kp_option_table / sizeof *kp_option_table)

/* ---- the table ---- */

bool kp_option_named(const char *pattern)
{
    return strchr(pattern, '*') != NULL;
}

struct kp_str kp_option_kind(const char *pattern)
{
    const char *blank = strchr(pattern, ' ');
    return (struct kp_str){ pattern, blank ? (size_t)(blank - pattern) : strlen(pattern) };
}

bool kp_str_equal(struct kp_str a, struct kp_str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* First row of a kind of section and how many follow it; false when there is no such kind. */
bool kp_option_rows(struct kp_str kind, size_t *first, size_t *count)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (!kp_str_equal(kp_option_kind(kp_option_table[i].section), kind))
            continue;
        *first = i;
        for (*count = 0; i < OPTION_COUNT && kp_str_equal(kp_option_kind(kp_option_table[i].section), kind); i++)
            ++*count;
        assert(*count <= ROWS_MAX);
        return true;
    }
    return false;
}

/* How many edits make a of b; both shorter than KP_NAME_MAX. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[KP_NAME_MAX], n = strlen(b);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t corner = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t above = row[j + 1], best = corner + (a[i] != b[j]);
            if (above + 1 < best)
                best = above + 1;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            corner = above;
            row[j + 1] = best;
        }
    }
    return row[n];
}

/* The known name nearest to `name`: an option of rows first.., or with count 0 a kind of section. */
void kp_option_nearest(char out[KP_NAME_MAX], const char *name, size_t first, size_t count)
{
    size_t best = SIZE_MAX;
    for (size_t i = count ? first : 0; i < (count ? first + count : OPTION_COUNT); i++) {
        char known[KP_NAME_MAX];
        bool fits = kp_str_copy(known, count ? kp_str_of(kp_option_table[i].name) : kp_option_kind(kp_option_table[i].section));
        size_t far = fits ? edit_distance(name, known) : SIZE_MAX;
        if (far < best) {
            best = far;
            memcpy(out, known, sizeof known);
        }
    }
}

/* ---- values ---- */

static bool utf8_ok(struct kp_str s)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i++];
        unsigned more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;
        if (c < ' ' || c == 0x7f || more > s.n - i)
            return false;
        unsigned char next = more ? (unsigned char)s.p[i] : 0x80;
        if ((c == 0xe0 && next < 0xa0) || (c == 0xed && next > 0x9f) || (c == 0xf0 && next < 0x90) || (c == 0xf4 && next > 0x8f))
            return false;
        for (; more > 0; more--, i++)
            if (((unsigned char)s.p[i] & 0xc0u) != 0x80u)
                return false;
    }
    return true;
}

/* The word of "a|b|c" that equals s in any case. */
bool kp_option_choice(const char *choices, struct kp_str s, struct kp_str *out)
{
    for (const char *at = choices;; at++) {
        size_t n = strcspn(at, "|");
        char word[KP_NAME_MAX];
        *out = (struct kp_str){ at, n };
        if (kp_str_copy(word, *out) && kp_str_same(s, word))
            return true;
        at += n;
        if (!*at)
            return false;
    }
}

static bool bool_parse(struct kp_str s, bool *out)
{
    static const char *const words[2][4] = { { "false", "no", "off", "0" }, { "true", "yes", "on", "1" } };
    for (size_t i = 0; i < 8; i++)
        if (kp_str_same(s, words[i / 4][i % 4])) {
            *out = i >= 4;
            return true;
        }
    return false;
}

static enum kp_err number_check(const struct kp_option *o, const char *shown, struct kp_str text, struct kp_error *e)
{
    double v;
    if (!kp_number_parse(text, &v))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not a number", o->name, shown);
    if (o->type == KP_T_INT && fabs(v) < 1e15 && v != (double)(int64_t)v)
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not a whole number", o->name, shown);
    if (v < o->min || v > o->max)
        return kp_error_range(e, KP_INVALID_PARAMETER, o->name, o->unit, v, o->min, o->max);
    return KP_OK;
}

/* Checks a value against its row; *text becomes the spelling to keep. */
enum kp_err kp_option_check(const struct kp_option *o, struct kp_str *text, struct kp_error *e)
{
    char shown[KP_NAME_MAX];
    bool flag;
    kp_str_clean(shown, *text);
    if (text->n >= KP_TEXT_MAX)
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: longer than %d characters", o->name, KP_TEXT_MAX - 1);
    if (!utf8_ok(*text))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" holds a control character or is not UTF-8", o->name, shown);
    if (o->type == KP_T_NUM || o->type == KP_T_INT) {
        enum kp_err rc = number_check(o, shown, *text, e);
        if (rc != KP_OK)
            return rc;
        if (text->p[0] == '+')
            *text = (struct kp_str){ text->p + 1, text->n - 1 };
    }
    if (o->type == KP_T_BOOL) {
        if (!bool_parse(*text, &flag))
            return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is neither true nor false", o->name, shown);
        *text = kp_str_of(flag ? "true" : "false");
    }
    if (o->choices && !kp_option_choice(o->choices, *text, text))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is none of %s", o->name, shown, o->choices);
    if (o->type == KP_T_NAME && !kp_name_ok(*text))
        return kp_error_set(e, KP_INVALID_PARAMETER, o->name, "%s: \"%s\" is not a name of A-Z a-z 0-9 _", o->name, shown);
    return KP_OK;
}

const struct kp_option *kp_options(size_t *count)
{
    *count = OPTION_COUNT;
    return kp_option_table;
}
