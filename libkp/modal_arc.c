/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Arcs: G2 and G3 by centre or radius, in any plane, passed on where Klipper draws arcs, else cut into lines. Clockwise is as seen
 * from the positive end of the third axis, in every plane. Invariant: no point of an arc that passed the check is outside the limits,
 * and no line of a cut one is more than 0.01 mm away from it. */
#include "modal.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846
#define CHORD_MM 0.005      /* between a line and the arc it stands for; with ENDS_MM at most 0.01 */
#define ENDS_MM 0.005       /* between the radius at the start and at the end, and of a radius that is too small */
#define RADIUS_MAX_MM 1e6
#define ARC_BYTES 1536 /* of a script of it, so that the next one is ready before this one has been moved */
#define LINE_ROOM 256       /* one more line, and the end of the script, fit into this */

static const int planes[][3] = { [PLANE_XY] = { 0, 1, 2 }, [PLANE_ZX] = { 2, 0, 1 }, [PLANE_YZ] = { 1, 2, 0 } };

/* The centre by I J K, which count from the start. */
static enum kp_err centre_given(struct kp_modal *g, struct modal_arc *a, const double start[2])
{
    double unit = g->next.inches ? MM_PER_INCH : 1;
    const struct kp_gcode_word *other = modal_letter(g, "IJK"[a->axis[2]]);
    const struct kp_gcode_word *w[2] = { modal_letter(g, "IJK"[a->axis[0]]), modal_letter(g, "IJK"[a->axis[1]]) };
    if (other)
        return MODAL_FAIL(g, other, KP_INVALID_PARAMETER, NULL, "the plane of this arc has no %s", (char[]){ other->letter, 0 });
    if (!w[0] && !w[1])
        return MODAL_FAIL(g, NULL, KP_MISSING_PARAMETER, NULL, "an arc needs %s, %s or R", (char[]){ "IJK"[a->axis[0]], 0 }, (char[]){ "IJK"[a->axis[1]], 0 });
    for (int i = 0; i < 2; i++)
        a->centre[i] = start[i] + (w[i] ? w[i]->value * unit : 0);
    return KP_OK;
}

/* The centre by R: of the two arcs the shorter one, with R below 0 the longer. */
static enum kp_err centre_found(struct kp_modal *g, struct modal_arc *a, const double start[2], const double end[2], bool clockwise)
{
    const struct kp_gcode_word *r = modal_letter(g, 'R');
    static const char *const others[] = { "I", "J", "K" };
    double radius = r->value * (g->next.inches ? MM_PER_INCH : 1);
    double p = end[0] - start[0], q = end[1] - start[1], chord = hypot(p, q);
    for (int i = 0; i < 3; i++)
        if (modal_letter(g, others[i][0]))
            return MODAL_FAIL(g, modal_letter(g, others[i][0]), KP_INVALID_PARAMETER, NULL, "an arc takes %s or R", others[i]);
    if (chord == 0)
        return MODAL_FAIL(g, r, KP_INVALID_PARAMETER, NULL, "an arc by R ends elsewhere than it starts");
    if (chord / 2 > fabs(radius) + ENDS_MM)
        return MODAL_FAIL(g, r, KP_INVALID_PARAMETER, NULL, "R is %g mm; the ends are %g mm apart", radius, chord);
    double height = sqrt(fmax(0, radius * radius - chord * chord / 4));
    if ((radius > 0) == clockwise)
        height = -height; /* the centre lies right of the way from start to end */
    a->centre[0] = start[0] + p / 2 - height * q / chord;
    a->centre[1] = start[1] + q / 2 + height * p / chord;
    return KP_OK;
}

/* Radii, angles and number of lines, from the centre. */
static enum kp_err shape(struct kp_modal *g, struct modal_arc *a, const double start[2], const double end[2], bool clockwise)
{
    double from[2] = { start[0] - a->centre[0], start[1] - a->centre[1] }, to[2] = { end[0] - a->centre[0], end[1] - a->centre[1] };
    a->radius[0] = hypot(from[0], from[1]);
    a->radius[1] = hypot(to[0], to[1]);
    if (!(a->radius[0] > 0 && a->radius[0] <= RADIUS_MAX_MM))
        return MODAL_FAIL(g, NULL, KP_INVALID_PARAMETER, NULL, "the radius of an arc is above 0 and at most %g mm", RADIUS_MAX_MM);
    if (fabs(a->radius[0] - a->radius[1]) > ENDS_MM)
        return MODAL_FAIL(g, NULL, KP_INVALID_PARAMETER, NULL, "the start is %g mm from the centre, the end %g mm", a->radius[0], a->radius[1]);
    a->angle = atan2(from[1], from[0]);
    a->sweep = atan2(to[1], to[0]) - a->angle;
    if (start[0] == end[0] && start[1] == end[1])
        a->sweep = 0;
    if (clockwise && a->sweep >= 0)
        a->sweep -= 2 * PI;
    if (!clockwise && a->sweep <= 0)
        a->sweep += 2 * PI;
    double r = fmax(a->radius[0], a->radius[1]), step = r > CHORD_MM ? fmin(2 * acos(1 - CHORD_MM / r), PI / 2) : PI / 2;
    a->count = (unsigned)fmax(1, ceil(fabs(a->sweep) / step));
    a->done = 0;
    return KP_OK;
}

/* The farthest the arc reaches in plane axis i: its ends, and where it crosses the axis through the centre. */
static void extent(const struct modal_arc *a, int i, double start, double end, double *low, double *high)
{
    double r = fmax(a->radius[0], a->radius[1]);
    *low = fmin(start, end);
    *high = fmax(start, end);
    for (int k = 0; k < 4; k++) {
        double turn = k * PI / 2 - a->angle; /* to the k-th quarter, the way the arc goes */
        turn = a->sweep > 0 ? fmod(turn + 4 * PI, 2 * PI) : fmod(turn - 4 * PI, 2 * PI);
        if (fabs(turn) > fabs(a->sweep) || k % 2 != i)
            continue;
        if (k < 2)
            *high = fmax(*high, a->centre[i] + r);
        else
            *low = fmin(*low, a->centre[i] - r);
    }
}

static enum kp_err extent_check(struct kp_modal *g, struct modal_arc *a, const double start[2], const double end[2])
{
    enum kp_err rc = KP_OK;
    bool interlock = kp_machine_limits(g->m)->travel_interlock;
    for (int i = 0; i < 2 && rc == KP_OK; i++) {
        double low, high;
        int axis = a->axis[i];
        a->low[i] = kp_machine_axis(g->m, (size_t)axis)->min;
        a->high[i] = kp_machine_axis(g->m, (size_t)axis)->max;
        extent(a, i, start[i], end[i], &low, &high);
        low = plan_round(low), high = plan_round(high);
        if ((rc = modal_limits(g, NULL, axis, low)) == KP_OK)
            rc = modal_limits(g, NULL, axis, high);
        if (rc == KP_OK && axis == 2 && interlock && (rc = modal_band(g, low)) == KP_OK)
            rc = modal_band(g, high);
    }
    return rc;
}

/* One G2 or G3 of Klipper's; a full circle is two, because Klipper may take one for no way at all. Klipper's G18 looks from the other side. */
static void native_line(struct tr_script *s, const struct modal_arc *a, double from, double to)
{
    static const char *const targets[] = { "X", "Y", "Z" }, *const offsets[] = { "I", "J", "K" };
    double part[2] = { from / a->sweep, to / a->sweep }, point[2][3];
    for (int k = 0; k < 2; k++) {
        double angle = a->angle + a->sweep * part[k], r = a->radius[0] + (a->radius[1] - a->radius[0]) * part[k];
        point[k][0] = part[k] == 1 ? a->to[a->axis[0]] : a->centre[0] + r * cos(angle);
        point[k][1] = part[k] == 1 ? a->to[a->axis[1]] : a->centre[1] + r * sin(angle);
        point[k][2] = isnan(a->to[a->axis[2]]) ? NAN : a->from_h + (a->to[a->axis[2]] - a->from_h) * part[k];
    }
    tr_word(s, (a->sweep < 0) == (a->axis[0] != 2) ? "G2" : "G3");
    for (int axis = 0; axis < 3; axis++)
        for (int i = 0; i < 3; i++)
            if (a->axis[i] == axis && !isnan(point[1][i]))
                tr_number(s, targets[axis], point[1][i]);
    for (int axis = 0; axis < 3; axis++)
        for (int i = 0; i < 2; i++)
            if (a->axis[i] == axis)
                tr_number(s, offsets[axis], a->centre[i] - point[0][i]);
    tr_number(s, "F", a->feed_mm_min);
}

static void native_arc(struct kp_modal *g, const struct modal_arc *a)
{
    static const char *const names[] = { [PLANE_XY] = "G17", [PLANE_ZX] = "G18", [PLANE_YZ] = "G19" };
    struct tr_script *s = modal_motion(g);
    tr_word(s, names[g->next.plane]);
    if (fabs(a->sweep) > 1.99 * PI) {
        native_line(s, a, 0, a->sweep / 2);
        native_line(s, a, a->sweep / 2, a->sweep);
    } else {
        native_line(s, a, 0, a->sweep);
    }
    if (g->next.plane != PLANE_XY)
        tr_word(s, names[PLANE_XY]);
}

/* Klipper draws arcs itself. */
static bool native(const struct kp_modal *g)
{
    return g->has[W_G2] && g->has[W_G3] && g->has[W_G17] && g->has[W_G18] && g->has[W_G19];
}

static void cut_arc(struct kp_modal *g, const struct modal_arc *a)
{
    struct modal_item *item = modal_item(g, KP_DO_SCRIPT);
    item->cut = true;
    item->arc = *a;
}

/* Targets of the three axes, and which are named; the axes of the plane have one always. */
static enum kp_err arc_targets(struct kp_modal *g, struct modal_arc *a, unsigned *axes)
{
    const struct kp_gcode_word *words = &g->line->words[g->command->first];
    for (size_t i = 0; i < g->command->count; i++)
        if (g->axis_of[words[i].letter - 'A'] >= 3)
            return MODAL_FAIL(g, &words[i], KP_INVALID_PARAMETER, NULL, "an arc moves X, Y and Z only");
    *axes = 0;
    for (int i = 0; i < 3; i++) {
        int axis = a->axis[i];
        char name[2] = { "xyz"[axis], 0 };
        const struct kp_gcode_word *w = modal_letter(g, "XYZ"[axis]);
        enum kp_err rc = KP_OK;
        a->to[axis] = i < 2 ? plan_round(g->next.at[axis]) : NAN;
        if (w)
            rc = modal_target(g, w, axis, &a->to[axis]);
        if (rc != KP_OK)
            return rc;
        if ((i < 2 || w) && isnan(g->next.at[axis]))
            return MODAL_FAIL(g, w, KP_KLIPPY_DISCONNECTED, name, "Klipper has not told its position yet");
        *axes |= i < 2 || w ? 1u << axis : 0;
    }
    return KP_OK;
}

enum kp_err modal_arc(struct kp_modal *g)
{
    struct modal_arc a = { .accel_mm_s2 = g->next.accel_mm_s2, .say_absolute = !g->next.absolute_said };
    bool clockwise = g->command->code == 20;
    unsigned axes = 0;
    memcpy(a.axis, planes[g->next.plane], sizeof a.axis);
    enum kp_err rc = modal_feed_word(g);
    if (rc != KP_OK || (rc = modal_feed(g, modal_letter(g, 'F'), &a.feed_mm_min)) != KP_OK || (rc = arc_targets(g, &a, &axes)) != KP_OK)
        return rc;
    double start[2] = { g->next.at[a.axis[0]], g->next.at[a.axis[1]] }, end[2] = { a.to[a.axis[0]], a.to[a.axis[1]] };
    start[0] = plan_round(start[0]), start[1] = plan_round(start[1]);
    a.from_h = g->next.at[a.axis[2]];
    rc = modal_letter(g, 'R') ? centre_found(g, &a, start, end, clockwise) : centre_given(g, &a, start);
    if (rc != KP_OK || (rc = shape(g, &a, start, end, clockwise)) != KP_OK)
        return rc;
    if ((rc = modal_straight_allowed(g, axes, a.to, true)) != KP_OK || (rc = extent_check(g, &a, start, end)) != KP_OK)
        return rc;
    if ((rc = modal_motion_words(g)) != KP_OK)
        return rc;
    if (!g->o.alone && kp_machine_limits(g->m)->travel_interlock)
        modal_crossing_guard(g, axes, a.to, a.feed_mm_min);
    if (native(g))
        native_arc(g, &a);
    else
        cut_arc(g, &a);
    g->next.absolute_said = true; /* by the first line that is cut */
    for (int i = 0; i < 3; i++)
        if (!isnan(a.to[i]))
            g->next.at[i] = a.to[i];
    if (!g->open)
        memcpy(g->items[g->item_count - 1].target, g->next.at, sizeof g->items[0].target);
    return KP_OK;
}

/* The end of the k-th line. */
static void arc_point(const struct modal_arc *a, unsigned k, double xyz[3])
{
    double part = (double)k / a->count, angle = a->angle + a->sweep * part, r = a->radius[0] + (a->radius[1] - a->radius[0]) * part;
    if (k == a->count) {
        memcpy(xyz, a->to, sizeof a->to);
        return;
    }
    xyz[a->axis[0]] = plan_round(fmin(fmax(a->centre[0] + r * cos(angle), a->low[0]), a->high[0])); /* an end beside the circle leans out a little */
    xyz[a->axis[1]] = plan_round(fmin(fmax(a->centre[1] + r * sin(angle), a->low[1]), a->high[1]));
    xyz[a->axis[2]] = isnan(a->to[a->axis[2]]) ? NAN : plan_round(a->from_h + (a->to[a->axis[2]] - a->from_h) * part);
}

void modal_arc_script(struct kp_modal *g, struct modal_arc *a, struct tr_script *s, double target[3])
{
    double said = NAN, xyz[3];
    tr_start(s);
    modal_begin(g, s, a->say_absolute, a->accel_mm_s2, &said);
    a->say_absolute = false;
    do {
        arc_point(a, ++a->done, xyz);
        tr_move(s, xyz, NULL, 0, a->feed_mm_min);
    } while (a->done < a->count && s->len < ARC_BYTES - LINE_ROOM);
    modal_end(g, s, said);
    for (int i = 0; i < 3; i++)
        if (!isnan(xyz[i]))
            target[i] = xyz[i];
}
