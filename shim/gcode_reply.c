/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The words of the G-code port's answers. OpenPnP matches every line whole against every pattern it has, so what stands here is fixed to the byte.
 * Invariant: no answer holds a line feed, and no error begins as another answer does. */
#include "gcode_reply.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define POSITION_DECIMALS 4 /* OpenPnP takes the report as its own position */
#define SENSOR_DECIMALS 2

static void append(char out[GCODE_REPLY_MAX], const char *text)
{
    size_t n = strlen(out);
    snprintf(out + n, GCODE_REPLY_MAX - n, "%s", text);
}

/* With exactly so many decimals: OpenPnP's patterns ask for the point. False: no such number. */
static bool append_fixed(char out[GCODE_REPLY_MAX], double v, int decimals)
{
    char digits[KP_NUMBER_MAX];
    if (!isfinite(v) || !kp_number_print(digits, v, decimals))
        return false;
    const char *point = strchr(digits, '.');
    int have = point ? (int)strlen(point + 1) : 0;
    append(out, digits);
    append(out, point ? "" : ".");
    for (; have < decimals; have++)
        append(out, "0");
    return true;
}

void gcode_reply_version(char out[GCODE_REPLY_MAX], const char *name, const struct kp_machine *m)
{
    size_t axes = 0;
    while (kp_machine_axis(m, axes))
        axes++;
    snprintf(out, GCODE_REPLY_MAX, "FIRMWARE_NAME:%s, FIRMWARE_VERSION:%s, X-AXES:%zu, X-PAXES:3, X-SERIAL_FLOW:RTS/CTS", name, kp_version(), axes);
}

char gcode_reply_position(char out[GCODE_REPLY_MAX], const struct kp_machine *m, const double position[KP_AXES_MAX])
{
    const struct kp_axis *a;
    snprintf(out, GCODE_REPLY_MAX, "ok C:");
    for (size_t i = 0; (a = kp_machine_axis(m, i)); i++) {
        append(out, (const char[]){ ' ', a->letter, ':', 0 });
        if (!append_fixed(out, position[i], POSITION_DECIMALS))
            return a->letter;
    }
    return 0;
}

const char *gcode_reply_sensors(char out[GCODE_REPLY_MAX], const struct kp_machine *m)
{
    const struct kp_sensor *s;
    snprintf(out, GCODE_REPLY_MAX, "ok");
    for (size_t i = 0; (s = kp_machine_sensor(m, i)); i++) {
        if (!s->m105[0])
            continue;
        append(out, " ");
        append(out, s->m105);
        append(out, ":");
        if (!s->known || !append_fixed(out, s->value, SENSOR_DECIMALS))
            return s->name;
    }
    return NULL;
}

void gcode_reply_error(char out[GCODE_TEXT_MAX], const char *before, const char *text)
{
    snprintf(out, GCODE_TEXT_MAX, "!! %s%s", before, text);
    for (char *c = out; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = *c == '\n' || *c == '\t' ? ' ' : '?';
    for (size_t n = strlen(out); n > 0 && out[n - 1] == ' '; n--)
        out[n - 1] = 0;
}
