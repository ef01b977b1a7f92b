/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Klipper text from checked numbers and names, for plans and for the shim's own scripts.
 * Invariant: a name passes kp_name_ok, a number is printed by kp_number_print, a line is whole or not there. */
#include "translate.h"

#include <math.h>
#include <string.h>

#define SAVE_CLIENT "SAVE_GCODE_STATE NAME=_kp_client"
#define RESTORE_CLIENT "RESTORE_GCODE_STATE NAME=_kp_client"
#define SAVE_ZERO "SAVE_GCODE_STATE NAME=_kp_zero"
#define RESTORE_ZERO "RESTORE_GCODE_STATE NAME=_kp_zero"
#define FLUSH "G4 P0"
#define FAN_FULL 255.0 /* M106's S at full speed */
#define FAN_DECIMALS 3 /* of S: finer than the 6 decimals of a speed would make 128 a 128.000055 */
#define WHERE "M400\nM114\n" RESTORE_CLIENT
#define DECIMALS 6 /* what Klipper keeps of a coordinate */

static void broken(struct tr_script *s, enum tr_fault fault)
{
    if (s->fault == TR_OK)
        s->fault = fault;
}

static void put(struct tr_script *s, const char *text)
{
    size_t n = strlen(text);
    if (s->len + n >= sizeof s->text) {
        broken(s, TR_TOO_LONG);
        return;
    }
    memcpy(s->text + s->len, text, n + 1);
    s->len += n;
}

static void put_line(struct tr_script *s, const char *text)
{
    if (s->len > 0)
        put(s, "\n");
    put(s, text);
}

static void put_name(struct tr_script *s, const char *key, const char *name)
{
    put(s, key);
    if (kp_name_ok(kp_str_of(name)))
        put(s, name);
    else
        broken(s, TR_NAME);
}

static void put_number(struct tr_script *s, const char *key, double v, int decimals)
{
    char digits[KP_NUMBER_MAX];
    if (kp_number_print(digits, v, decimals) == 0) {
        broken(s, TR_NUMBER);
        return;
    }
    put(s, key);
    put(s, digits);
}

static void put_exact(struct tr_script *s, const char *key, double v)
{
    char digits[KP_NUMBER_EXACT_MAX];
    if (kp_number_exact(digits, v) == 0) {
        broken(s, TR_NUMBER);
        return;
    }
    put(s, key);
    put(s, digits);
}

void tr_start(struct tr_script *s)
{
    s->text[0] = 0;
    s->len = 0;
    s->fault = TR_OK;
    s->framed = false;
}

void tr_open(struct tr_script *s)
{
    if (s->framed)
        return;
    put_line(s, SAVE_CLIENT);
    put_line(s, RESTORE_ZERO);
    s->framed = true;
}

void tr_close(struct tr_script *s)
{
    if (!s->framed)
        return;
    put_line(s, RESTORE_CLIENT);
    s->framed = false;
}

void tr_move(struct tr_script *s, const double xyz[3], const struct tr_extra *extra, size_t count, double feedrate_mm_min)
{
    static const char *const keys[3] = { " X", " Y", " Z" };
    if (isnan(xyz[0]) && isnan(xyz[1]) && isnan(xyz[2]) && count == 0)
        return;
    tr_open(s);
    put_line(s, "G1");
    for (int i = 0; i < 3; i++)
        if (!isnan(xyz[i]))
            put_number(s, keys[i], xyz[i], DECIMALS);
    for (size_t i = 0; i < count; i++)
        put_number(s, (const char[]){ ' ', extra[i].letter, 0 }, extra[i].to, DECIMALS);
    put_number(s, " F", feedrate_mm_min, DECIMALS);
}

void tr_home(struct tr_script *s, const char *letters)
{
    put_line(s, "G28");
    for (size_t i = 0; letters[i]; i++)
        put(s, (const char[]){ ' ', letters[i], 0 });
}

void tr_pin(struct tr_script *s, const char *pin, double value)
{
    put_line(s, "SET_PIN");
    put_name(s, " PIN=", pin);
    put_number(s, " VALUE=", value, DECIMALS);
}

void tr_servo(struct tr_script *s, const char *servo, double angle)
{
    put_line(s, "SET_SERVO");
    put_name(s, " SERVO=", servo);
    put_number(s, " ANGLE=", angle, DECIMALS);
}

void tr_fan(struct tr_script *s, const char *fan, double speed)
{
    if (fan) {
        put_line(s, "SET_FAN_SPEED");
        put_name(s, " FAN=", fan);
        put_number(s, " SPEED=", speed, DECIMALS);
    } else if (speed > 0) {
        put_line(s, "M106");
        put_number(s, " S", speed * FAN_FULL, FAN_DECIMALS);
    } else {
        put_line(s, "M107");
    }
}

static void put_stepper(struct tr_script *s, const char *stepper)
{
    put_line(s, "MANUAL_STEPPER");
    put_name(s, " STEPPER=", stepper);
}

void tr_stepper_zero(struct tr_script *s, const char *stepper, bool enable)
{
    put_stepper(s, stepper);
    put(s, enable ? " ENABLE=1 SET_POSITION=0" : " SET_POSITION=0");
}

void tr_stepper_move(struct tr_script *s, const char *stepper, double to, double speed, double accel, bool sync)
{
    put_stepper(s, stepper);
    put_number(s, " MOVE=", to, DECIMALS);
    if (speed > 0)
        put_number(s, " SPEED=", speed, DECIMALS);
    if (accel >= 0)
        put_number(s, " ACCEL=", accel, DECIMALS);
    put(s, sync ? " SYNC=1" : " SYNC=0");
}

void tr_stepper_sync(struct tr_script *s, const char *stepper)
{
    put_stepper(s, stepper);
    put(s, " SYNC=1");
}

void tr_stepper_enable(struct tr_script *s, const char *stepper, bool on)
{
    put_stepper(s, stepper);
    put(s, on ? " ENABLE=1" : " ENABLE=0");
}

void tr_stepper_home(struct tr_script *s, const struct kp_axis *a)
{
    for (int onto = 0; onto < 2; onto++) {
        put_stepper(s, a->stepper);
        put(s, " SET_POSITION=0");
        put_number(s, " MOVE=", onto ? a->home_travel : -a->home_travel, DECIMALS);
        put_number(s, " SPEED=", a->home_velocity, DECIMALS);
        if (a->acceleration >= 0)
            put_number(s, " ACCEL=", a->acceleration, DECIMALS);
        put(s, onto ? " STOP_ON_ENDSTOP=1" : " STOP_ON_ENDSTOP=-1");
    }
    tr_stepper_zero(s, a->stepper, false);
}

void tr_join(struct tr_script *s, const struct kp_axis *a)
{
    put_stepper(s, a->stepper);
    put(s, (const char[]){ ' ', 'G', 'C', 'O', 'D', 'E', '_', 'A', 'X', 'I', 'S', '=', a->letter, 0 });
    put_number(s, " LIMIT_VELOCITY=", a->velocity, DECIMALS);
    put_number(s, " LIMIT_ACCEL=", a->acceleration, DECIMALS);
}

void tr_unjoin(struct tr_script *s, const char *stepper)
{
    tr_wait(s);
    put_stepper(s, stepper);
    put(s, " GCODE_AXIS=");
}

void tr_follow(struct tr_script *s, const char *stepper, const char *extruder)
{
    put_line(s, "SYNC_EXTRUDER_MOTION");
    put_name(s, " EXTRUDER=", stepper);
    if (extruder[0])
        put_name(s, " MOTION_QUEUE=", extruder);
    else
        put(s, " MOTION_QUEUE=");
}

void tr_extrude(struct tr_script *s, double mm, double feedrate_mm_min)
{
    put_line(s, "M83");
    put_line(s, "M221 S100");
    put_line(s, "G1");
    put_number(s, " E", mm, DECIMALS);
    put_number(s, " F", feedrate_mm_min, DECIMALS);
}

void tr_dwell(struct tr_script *s, double seconds)
{
    if (!(seconds > 0))
        return;
    put_line(s, "G4");
    put_number(s, " P", seconds * 1000, 0);
}

void tr_wait(struct tr_script *s)
{
    put_line(s, "M400");
}

void tr_flush(struct tr_script *s)
{
    put_line(s, FLUSH);
}

/* A name, and in it or behind it the other character once: "G38.2", "SPEED=". */
static bool word_ok(const char *word, char other)
{
    size_t n = strlen(word), at = strcspn(word, (char[]){ other, 0 });
    struct kp_str rest = { word + at + 1, at < n ? n - at - 1 : 0 };
    return kp_name_ok((struct kp_str){ word, at }) && (rest.n == 0 || kp_name_ok(rest));
}

void tr_word(struct tr_script *s, const char *word)
{
    if (word_ok(word, '.'))
        put_line(s, word);
    else
        broken(s, TR_NAME);
}

static void put_key(struct tr_script *s, const char *key)
{
    if (!word_ok(key, '='))
        broken(s, TR_NAME);
    put(s, " ");
    put(s, key);
}

void tr_number(struct tr_script *s, const char *key, double v)
{
    put_key(s, key);
    put_number(s, "", v, DECIMALS);
}

void tr_name(struct tr_script *s, const char *key, const char *name)
{
    put_key(s, key);
    put_name(s, "", name);
}

bool tr_is_frame(struct kp_str line)
{
    return kp_str_eq(line, SAVE_CLIENT) || kp_str_eq(line, RESTORE_CLIENT) || kp_str_eq(line, RESTORE_ZERO);
}

size_t kp_script_neutral(const struct kp_machine *m, char out[KP_SCRIPT_MAX])
{
    double at[3];
    struct tr_script s;
    if (!kp_machine_commanded(m, at))
        return 0;
    tr_start(&s);
    put_line(&s, SAVE_CLIENT);
    put_line(&s, "G90");
    put_line(&s, "M220 S100");
    put_line(&s, "SET_GCODE_OFFSET X=0 Y=0 Z=0");
    put_line(&s, "G92"); /* the place it has already, to the last bit: what remains is an offset of 0, and Klipper takes a move to the very end of an axis */
    put_exact(&s, " X", at[0]);
    put_exact(&s, " Y", at[1]);
    put_exact(&s, " Z", at[2]);
    put_line(&s, SAVE_ZERO);
    put_line(&s, RESTORE_CLIENT);
    if (s.fault != TR_OK)
        return 0;
    memcpy(out, s.text, s.len + 1);
    return s.len;
}

size_t kp_script_join(const struct kp_machine *m, int axis, char out[KP_SCRIPT_MAX])
{
    const struct kp_axis *a = kp_machine_axis(m, (size_t)axis);
    struct tr_script s;
    tr_start(&s);
    tr_unjoin(&s, a->stepper);
    put(&s, " SPEED=0"); /* never read where GCODE_AXIS is, refused where it is not */
    tr_stepper_zero(&s, a->stepper, false);
    tr_join(&s, a);
    if (s.fault != TR_OK)
        return 0;
    memcpy(out, s.text, s.len + 1);
    return s.len;
}

size_t kp_script_unjoin(const struct kp_machine *m, int axis, char out[KP_SCRIPT_MAX])
{
    struct tr_script s;
    tr_start(&s);
    tr_unjoin(&s, kp_machine_axis(m, (size_t)axis)->stepper);
    if (s.fault != TR_OK)
        return 0;
    memcpy(out, s.text, s.len + 1);
    return s.len;
}

const char *kp_script_restore(void)
{
    return RESTORE_CLIENT;
}

const char *kp_script_flush(void)
{
    return FLUSH;
}

const char *kp_script_barrier(bool spaced)
{
    return spaced ? SAVE_CLIENT "\n" RESTORE_ZERO "\nG4 P100\n" WHERE : SAVE_CLIENT "\n" RESTORE_ZERO "\n" WHERE;
}

bool kp_script_where(struct kp_str line, double xyz[3])
{
    double found[3];
    for (size_t i = 0; i < 3; i++) {
        size_t n = 0;
        while (n < line.n && line.p[n] != ' ')
            n++;
        if (n < 3 || line.p[0] != "XYZ"[i] || line.p[1] != ':' || !kp_number_parse((struct kp_str){ line.p + 2, n - 2 }, &found[i]))
            return false;
        line.p += n < line.n ? n + 1 : n;
        line.n -= n < line.n ? n + 1 : n;
    }
    memcpy(xyz, found, sizeof found);
    return true;
}

bool kp_script_word(const char *script, size_t i, struct kp_str *word)
{
    for (; i > 0; i--) {
        script = strchr(script, '\n');
        if (!script)
            return false;
        script++;
    }
    size_t n = strcspn(script, " \n");
    if (n == 0)
        return false;
    *word = (struct kp_str){ script, n };
    return true;
}
