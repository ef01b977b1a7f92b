/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The machine's parts by index and by name, for whoever got a name from outside. A name means one part or is refused; it is
 * never guessed. */
#include "machine.h"

#include <string.h>

static struct kp_str blanks_skip(struct kp_str s)
{
    while (s.n > 0 && s.p[0] == ' ')
        s.p++, s.n--;
    return s;
}

bool kp_pin_parse(struct kp_str s, char chip[KP_NAME_MAX], char board[KP_NAME_MAX], bool *inverted)
{
    *inverted = false;
    for (s = blanks_skip(s); s.n > 0 && strchr("^~!", s.p[0]) && s.p[0]; s = blanks_skip((struct kp_str){ s.p + 1, s.n - 1 }))
        *inverted = *inverted || s.p[0] == '!';
    const char *colon = s.n > 0 ? memchr(s.p, ':', s.n) : NULL;
    struct kp_str left = kp_str_of("mcu");
    if (colon) {
        left = (struct kp_str){ s.p, (size_t)(colon - s.p) };
        s = blanks_skip((struct kp_str){ colon + 1, s.n - left.n - 1 });
    }
    while (left.n > 0 && left.p[left.n - 1] == ' ')
        left.n--;
    while (s.n > 0 && s.p[s.n - 1] == ' ')
        s.n--;
    return s.n > 0 && left.n > 0 && kp_str_copy(chip, left) && kp_str_copy(board, s);
}

/* ---- by index ---- */

const struct kp_axis *kp_machine_axis(const struct kp_machine *m, size_t i)
{
    return i < m->axis_count ? &m->axes[i] : NULL;
}

const struct kp_pin *kp_machine_pin(const struct kp_machine *m, size_t i)
{
    return i < m->pin_count ? &m->pins[i] : NULL;
}

const struct kp_sensor *kp_machine_sensor(const struct kp_machine *m, size_t i)
{
    return i < m->sensor_count ? &m->sensors[i] : NULL;
}

const struct kp_nozzle *kp_machine_nozzle(const struct kp_machine *m, size_t i)
{
    return i < m->nozzle_count ? &m->nozzles[i] : NULL;
}

const struct kp_feeder *kp_machine_feeder(const struct kp_machine *m, size_t i)
{
    return i < m->feeder_count ? &m->feeders[i] : NULL;
}

const struct kp_fan *kp_machine_fan(const struct kp_machine *m, size_t i)
{
    return i < m->fan_count ? &m->fans[i] : NULL;
}

const struct kp_heater *kp_machine_heater(const struct kp_machine *m, size_t i)
{
    return i < m->heater_count ? &m->heaters[i] : NULL;
}

const struct kp_motor *kp_machine_motor(const struct kp_machine *m, size_t i)
{
    return i < m->motor_count ? &m->motors[i] : NULL;
}

const struct kp_mcode *kp_machine_mcode(const struct kp_machine *m, size_t i)
{
    return i < m->mcode_count ? &m->mcodes[i] : NULL;
}

struct kp_vacuum kp_machine_vacuum(const struct kp_machine *m)
{
    return m->vacuum;
}

const struct kp_limits *kp_machine_limits(const struct kp_machine *m)
{
    return &m->limits;
}

/* ---- by name ---- */

/* What a pin may be called, in the order that decides: an alias hides a short name. */
enum tier { BY_ALIAS, BY_SECTION, BY_SHORT_NAME, BY_BOARD, TIER_COUNT };

struct wanted { struct kp_str name; bool is_pin, inverted; char chip[KP_NAME_MAX], board[KP_NAME_MAX]; };

static bool pin_section_is(const struct kp_pin *p, struct kp_str name)
{
    if (p->kind != KP_PIN_ENDSTOP || strchr(p->object, ' '))
        return kp_str_eq(name, p->object);
    return kp_str_starts(name, "stepper_") && kp_str_eq((struct kp_str){ name.p + 8, name.n - 8 }, p->object);
}

static bool pin_is(const struct kp_pin *p, enum tier tier, const struct wanted *w)
{
    switch (tier) {
    case BY_ALIAS: return p->alias[0] && kp_str_eq(w->name, p->alias);
    case BY_SECTION: return pin_section_is(p, w->name);
    case BY_SHORT_NAME: return kp_str_eq(w->name, p->name);
    case BY_BOARD: return w->is_pin && strcmp(p->board, w->board) == 0 && strcmp(p->chip, w->chip) == 0;
    case TIER_COUNT: break;
    }
    return false;
}

/* How a message calls a pin so that it can be asked for. */
static const char *pin_title(const struct kp_pin *p)
{
    return p->kind == KP_PIN_ENDSTOP ? p->name : p->object;
}

/* A board pin as a client may write it: at most one '!' before it, none of the blanks and pull-ups that Klipper's own files may have. */
static bool asked_pin_ok(struct kp_str name)
{
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == ':' || c == '-' || c == '/';
        if (!plain && !(c == '!' && i == 0))
            return false;
    }
    return name.n > 0;
}

enum kp_err kp_machine_find_pin(const struct kp_machine *m, struct kp_str name, int *index, bool *inverted, struct kp_error *e)
{
    struct wanted w = { .name = name };
    char shown[KP_NAME_MAX];
    w.is_pin = asked_pin_ok(name) && kp_pin_parse(name, w.chip, w.board, &w.inverted);
    if (w.is_pin)
        kp_alias_resolve(m, w.chip, w.board);
    for (enum tier tier = BY_ALIAS; tier < TIER_COUNT; tier++) {
        size_t found = m->pin_count;
        for (size_t i = 0; i < m->pin_count; i++) {
            if (!pin_is(&m->pins[i], tier, &w))
                continue;
            if (found < m->pin_count)
                return kp_error_set(e, KP_INVALID_PARAMETER, "pin", "\"%s\" may be %s or %s; say which", kp_str_clean(shown, name),
                                    pin_title(&m->pins[found]), pin_title(&m->pins[i]));
            found = i;
        }
        if (found == m->pin_count)
            continue;
        *index = (int)found;
        if (inverted)
            *inverted = tier == BY_BOARD && w.inverted;
        return KP_OK;
    }
    return kp_error_set(e, KP_PIN_NOT_FOUND, "pin", "Klipper has no pin \"%s\"", kp_str_clean(shown, name));
}

/* ---- parts with a short name and an object, which may share the short one ---- */

struct titled { const char *name, *object; bool first; /* its short name goes before the others' */ };

/* Finds the part that is meant: by short name, those that go first before the others, else by object. */
static enum kp_err find_titled(const struct titled *parts, size_t count, struct kp_str name, const char *what, enum kp_err none, int *index, struct kp_error *e)
{
    char shown[KP_NAME_MAX];
    for (int tier = 0; tier < 3; tier++) {
        size_t found = count;
        for (size_t i = 0; i < count; i++) {
            if (!(tier == 1 ? kp_str_eq(name, parts[i].object) : kp_str_eq(name, parts[i].name)) || (tier == 0 && !parts[i].first))
                continue;
            if (found < count && tier == 2)
                return kp_error_set(e, KP_INVALID_PARAMETER, what, "\"%s\" may be %s or %s; say which", kp_str_clean(shown, name),
                                    parts[found].object, parts[i].object);
            found = found < count ? found : i;
        }
        if (found < count) {
            *index = (int)found;
            return KP_OK;
        }
    }
    return kp_error_set(e, none, what, "there is no %s \"%s\"", what, kp_str_clean(shown, name));
}

enum kp_err kp_machine_find_sensor(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e)
{
    struct titled parts[KP_SENSORS_MAX];
    for (size_t i = 0; i < m->sensor_count; i++)
        parts[i] = (struct titled){ m->sensors[i].name, m->sensors[i].object, m->sensors[i].configured };
    return find_titled(parts, m->sensor_count, name, "sensor", KP_SENSOR_NOT_FOUND, index, e);
}

enum kp_err kp_machine_find_fan(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e)
{
    struct titled parts[KP_FANS_MAX];
    for (size_t i = 0; i < m->fan_count; i++)
        parts[i] = (struct titled){ m->fans[i].name, m->fans[i].object, false };
    return find_titled(parts, m->fan_count, name, "fan", KP_INVALID_PARAMETER, index, e);
}

enum kp_err kp_machine_find_heater(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e)
{
    struct titled parts[KP_HEATERS_MAX];
    for (size_t i = 0; i < m->heater_count; i++)
        parts[i] = (struct titled){ m->heaters[i].name, m->heaters[i].object, m->heaters[i].settable };
    return find_titled(parts, m->heater_count, name, "heater", KP_INVALID_PARAMETER, index, e);
}

/* The name without its section's kind: "rotation1" of "manual_stepper rotation1". */
static const char *short_name(const char *name)
{
    const char *blank = strchr(name, ' ');
    return blank ? blank + 1 : name;
}

enum kp_err kp_machine_find_motor(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e)
{
    struct titled parts[KP_MOTORS_MAX];
    for (size_t i = 0; i < m->motor_count; i++)
        parts[i] = (struct titled){ short_name(m->motors[i].name), m->motors[i].name, false };
    return find_titled(parts, m->motor_count, name, "stepper", KP_INVALID_PARAMETER, index, e);
}

int kp_machine_find_mcode(const struct kp_machine *m, int number)
{
    for (size_t i = 0; i < m->mcode_count; i++)
        if (m->mcodes[i].number == number)
            return (int)i;
    return -1;
}

int kp_machine_find_m42(const struct kp_machine *m, int number)
{
    for (size_t i = 0; number >= 0 && i < m->pin_count; i++)
        if (m->pins[i].m42 == number)
            return (int)i;
    return -1;
}

/* ---- parts of klipperplace.cfg ---- */

enum kp_err kp_machine_find_nozzle(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e)
{
    char shown[KP_NAME_MAX];
    for (size_t i = 0; i < m->nozzle_count; i++)
        if (kp_str_eq(name, m->nozzles[i].name)) {
            *index = (int)i;
            return KP_OK;
        }
    return kp_error_set(e, KP_NOZZLE_NOT_FOUND, "nozzle", "klipperplace.cfg has no [nozzle %s]", kp_str_clean(shown, name));
}

enum kp_err kp_machine_find_feeder(const struct kp_machine *m, struct kp_str name, int *index, struct kp_error *e)
{
    char shown[KP_NAME_MAX];
    for (size_t i = 0; i < m->feeder_count; i++)
        if (kp_str_eq(name, m->feeders[i].name)) {
            *index = (int)i;
            return KP_OK;
        }
    return kp_error_set(e, KP_FEEDER_NOT_FOUND, "feeder", "klipperplace.cfg has no [feeder %s]", kp_str_clean(shown, name));
}

int kp_machine_find_axis(const struct kp_machine *m, char letter)
{
    for (size_t i = 0; i < m->axis_count; i++)
        if (kp_lower(m->axes[i].letter) == kp_lower(letter))
            return (int)i;
    return -1;
}
