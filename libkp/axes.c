/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Extra axes of the model: where they stand, whether Klipper has them joined to moves, and what it shows of them. Invariant: an angle that somebody else may
 * have changed, as far as that can be seen, is not `homed`. */
#include "machine.h"

#include <math.h>
#include <string.h>

#define AXIS_NEAR 1e-3 /* deg or mm: an axis further than this from where we left it was moved by somebody else */
#define PLACES_MAX (sizeof ((struct kp_machine *)NULL)->places / sizeof (double))

void kp_axis_unhome(struct kp_axis *a)
{
    a->lost = a->lost || a->homed;
    a->homed = false;
}

/* Nobody knows the angle of an extra axis any more, nor whether Klipper still has it joined. */
static void axis_lost(struct kp_axis *a)
{
    kp_axis_unhome(a);
    a->tracked = false;
    a->join = a->join == KP_JOINED ? KP_JOIN_OWED : a->join;
}

void kp_machine_axis_written(struct kp_machine *m, int axis, double position, bool homed)
{
    if (axis < 3 || (size_t)axis >= m->axis_count)
        return;
    struct kp_axis *a = &m->axes[axis];
    a->tracked = !isnan(position);
    a->position = isnan(position) ? a->position : position;
    if (!homed)
        kp_axis_unhome(a);
    else
        a->homed = true, a->lost = false;
    m->ours++;
}

int kp_machine_joining(const struct kp_machine *m)
{
    if (!m->shows_axes && !m->extra_joins)
        return -1;
    if (m->klippy != KP_KLIPPY_READY || kp_safety_latched(m) || kp_machine_printing(m))
        return -1;
    for (size_t i = 3; i < m->axis_count; i++)
        if (m->axes[i].join == KP_JOIN_OWED)
            return (int)i;
    return -1;
}

/* M114 of Kalico, and of Klipper until January 2026, fails on more than four numbers, and the machine with it. The change that mended it shows all of them. */
bool kp_machine_joins(const struct kp_machine *m)
{
    return m->extra_joins || m->gcode_places > 4;
}

void kp_machine_axis_joined(struct kp_machine *m, int axis, bool joined)
{
    if (axis < 3 || (size_t)axis >= m->axis_count)
        return;
    m->axes[axis].join = joined ? KP_JOINED : KP_BESIDE;
    kp_axis_unhome(&m->axes[axis]);
    m->axes[axis].tracked = false;
    m->axes[axis].position = 0;
}

void kp_machine_rejoin(struct kp_machine *m)
{
    for (size_t i = 3; i < m->axis_count; i++)
        if (m->axes[i].join == KP_JOINED)
            axis_lost(&m->axes[i]);
}

void kp_axes_forget(struct kp_machine *m)
{
    for (size_t i = 0; i < m->axis_count; i++) {
        axis_lost(&m->axes[i]);
        m->axes[i].verified = false;
        m->shown[i] = (struct kp_shown){ .place = 0 };
    }
    m->place_count = m->gcode_places = 0;
    m->shows_axes = m->extra_joins = false;
}

/* ---- what Klipper shows ---- */

void kp_axes_places(struct kp_machine *m, const struct kp_value *v)
{
    m->place_count = v->kind != KP_NUMS ? 0 : v->count < PLACES_MAX ? v->count : PLACES_MAX;
    if (m->place_count > 0)
        memcpy(m->places, v->nums, m->place_count * sizeof *m->places);
}

/* Where Klipper shows extra axes: toolhead.extra_axes (mainline), and what our extra says of each manual stepper. False: the field is none of these. */
bool kp_axes_told(struct kp_machine *m, struct kp_str object, struct kp_str field, const struct kp_value *v)
{
    if (kp_str_eq(object, "gcode_move") && kp_str_eq(field, "gcode_position")) {
        m->gcode_places = v->kind == KP_NUMS ? v->count : 0;
        return true;
    }
    if (kp_str_eq(object, "klipperplace") && kp_str_eq(field, "parts.axes")) {
        m->extra_joins = v->kind == KP_STR && kp_str_eq(v->str, "on");
        return true;
    }
    m->shows_axes = m->shows_axes || (kp_str_eq(object, "toolhead") && kp_str_starts(field, "extra_axes")); /* empty while there is none */
    static const char *const rows[] = { "extra_axes.manual_stepper ", "stands.", "joined." };
    static const char *const objects[] = { "toolhead", "klipperplace", "klipperplace" };
    size_t k = 0;
    while (k < 3 && !(kp_str_eq(object, objects[k]) && kp_str_starts(field, rows[k])))
        k++;
    if (k == 3)
        return false;
    struct kp_str name = { field.p + strlen(rows[k]), field.n - strlen(rows[k]) };
    for (size_t i = 3; i < m->axis_count; i++) {
        struct kp_shown *s = &m->shown[i];
        double n = v->kind == KP_NUM ? v->num : NAN;
        if (!kp_str_eq(name, m->axes[i].stepper))
            continue;
        if (k == 2 && v->kind == KP_STR)
            s->named = true, s->letter = (char)(v->str.n > 0 ? v->str.p[0] : 0);
        else if (k == 1 && isfinite(n))
            s->told = true, s->position = n;
        else if (k == 0 && n > 0 && n < PLACES_MAX)
            s->place = (int)n;
    }
    return true;
}

/* Klipper's position of it, NAN: not shown. *joined: as shown, else as we know it. */
static double shown_position(const struct kp_machine *m, size_t i, bool *joined)
{
    const struct kp_shown *s = &m->shown[i];
    *joined = m->axes[i].join == KP_JOINED;
    if (s->named)
        *joined = s->letter == m->axes[i].letter;
    else if (s->place > 0)
        *joined = (size_t)s->place < m->place_count;
    return s->told ? s->position : s->place > 0 && (size_t)s->place < m->place_count ? m->places[s->place] : NAN;
}

void kp_machine_axes_check(struct kp_machine *m)
{
    for (size_t i = 3; i < m->axis_count; i++) {
        struct kp_axis *a = &m->axes[i];
        bool joined;
        double at = shown_position(m, i, &joined);
        a->verified = !isnan(at);
        if (a->join == KP_JOINED && !joined) {
            axis_lost(a);
        } else if (a->verified && (a->tracked || a->join == KP_JOINED) && fabs(at - a->position) > AXIS_NEAR) {
            kp_axis_unhome(a);
            a->tracked = false;
            a->position = at;
        }
    }
}
