/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Moves, homing and coordinates of a client's lines: G0 G1 G28 G92 M204. Invariant: a coordinate reaches a script only after
 * modal_straight_allowed or, of an extra axis, extra_target has let it pass. */
#include "modal.h"

#include <math.h>
#include <string.h>

#define DEFAULT_FEEDRATE_MM_MIN 1500.0

static const char *const xyz_names[3] = { "x", "y", "z" };

/* "a" of an axis, as requests name it. */
static const char *axis_name(char name[2], char letter)
{
    name[0] = (char)(letter | 0x20);
    name[1] = 0;
    return name;
}

/* ---- speed ---- */

enum kp_err modal_feed_word(struct kp_modal *g)
{
    const struct kp_gcode_word *w = modal_letter(g, 'F');
    if (!w)
        return KP_OK;
    if (!(w->value > 0 && w->value <= MODAL_NUMBER_MAX))
        return w->value > 0 ? modal_range(g, w, KP_FEEDRATE_OUT_OF_BOUNDS, "feedrate", "mm/min", w->value, NAN, MODAL_NUMBER_MAX)
                            : MODAL_FAIL(g, w, KP_FEEDRATE_OUT_OF_BOUNDS, "feedrate", "feedrate must be above 0");
    g->next.feed = w->value;
    g->next.feed_scale = g->next.inches ? MM_PER_INCH : 1;
    return KP_OK;
}

/* The feedrate in force within the limits, mm/min; false: it is beyond them. */
static bool feed_within(const struct kp_modal *g, double *v, double *min, double *max, double *within)
{
    const struct kp_limits *l = kp_machine_limits(g->m);
    *min = isfinite(l->min_feedrate_mm_min) ? l->min_feedrate_mm_min : 0;
    *max = fmin(l->max_velocity_mm_s * 60, l->max_feedrate_mm_min);
    *v = isnan(g->next.feed) ? DEFAULT_FEEDRATE_MM_MIN : g->next.feed * g->next.feed_scale;
    *within = fmax(*v > *max ? *max : *v < *min ? *min : *v, 1e-6); /* the least that can be written */
    return *v >= *min && *v <= *max;
}

enum kp_err modal_feed(struct kp_modal *g, const struct kp_gcode_word *w, double *mm_min)
{
    double v, min, max;
    if (!feed_within(g, &v, &min, &max, mm_min) && !g->o.clamp && !isnan(g->next.feed))
        return modal_range(g, w, KP_FEEDRATE_OUT_OF_BOUNDS, "feedrate", "mm/min", v, min, max);
    return KP_OK;
}

enum kp_err modal_accel(struct kp_modal *g)
{
    const struct kp_gcode_word *w = modal_letter(g, 'S');
    double v;
    enum kp_err rc = modal_number(g, w, "acceleration", -INFINITY, INFINITY, KP_INVALID_PARAMETER, &v);
    if (rc != KP_OK || (rc = modal_has(g, W_M204)) != KP_OK)
        return rc;
    if (isnan(g->accel_base))
        return MODAL_FAIL(g, w, KP_EXECUTION_FAILED, "acceleration", "Klipper has not told its max_accel");
    if (!(v > 0))
        return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, "acceleration", "acceleration must be above 0");
    if (!g->o.clamp && v > g->accel_max)
        return modal_range(g, w, KP_INVALID_PARAMETER, "acceleration", "mm/s2", v, NAN, g->accel_max);
    g->next.accel_mm_s2 = plan_round(fmax(1e-6, fmin(v, g->accel_max)));
    if (g->o.alone) {
        struct tr_script *s = modal_script(g);
        tr_word(s, "M204");
        tr_number(s, "S", g->next.accel_mm_s2);
    }
    return KP_OK;
}

/* ---- coordinates ---- */

/* Millimetres (degrees) of one unit of the client's on an axis. */
static double unit_of(const struct kp_modal *g, int axis)
{
    return g->next.inches && !kp_machine_axis(g->m, (size_t)axis)->rotary ? MM_PER_INCH : 1;
}

enum kp_err modal_target(struct kp_modal *g, const struct kp_gcode_word *w, int axis, double *target)
{
    char name[2];
    double v = w->value * unit_of(g, axis), from = g->next.relative ? g->next.at[axis] : g->next.offset[axis];
    if (isnan(from))
        return MODAL_FAIL(g, w, KP_KLIPPY_DISCONNECTED, axis_name(name, w->letter), "Klipper has not told its position yet");
    *target = plan_round(from + v);
    return KP_OK;
}

/* A limit that Klipper has not told is no permission. */
enum kp_err modal_limits(struct kp_modal *g, const struct kp_gcode_word *w, int axis, double v)
{
    const struct kp_axis *a = kp_machine_axis(g->m, (size_t)axis);
    if (!isfinite(a->min) || !isfinite(a->max))
        return modal_range(g, w, KP_POSITION_OUT_OF_BOUNDS, xyz_names[axis], "mm", v, NAN, NAN);
    if (!(v >= a->min && v <= a->max))
        return modal_range(g, w, KP_POSITION_OUT_OF_BOUNDS, xyz_names[axis], "mm", v, a->min, a->max);
    return KP_OK;
}

static enum kp_err homed_check(struct kp_modal *g, unsigned axes)
{
    unsigned missing = axes & ~modal_homed(g);
    char names[8] = "";
    size_t n = 0;
    if (missing == 0)
        return KP_OK;
    for (unsigned i = 0; i < 3; i++)
        if (missing >> i & 1u) {
            if (n > 0)
                names[n++] = ' ';
            names[n++] = xyz_names[i][0];
        }
    names[n] = 0;
    return MODAL_FAIL(g, NULL, KP_HOMING_REQUIRED, names, "home these axes first: %s", names);
}

enum kp_err modal_band(struct kp_modal *g, double z)
{
    if (plan_in_band(&g->band, z))
        return KP_OK;
    g->faults.count = g->faults.dropped = 0;
    plan_interlock(&g->band, "z", z, "X and Y are crossed at travel height only");
    return modal_first(g, NULL);
}

enum kp_err modal_straight_allowed(struct kp_modal *g, unsigned axes, const double target[3], bool crosses)
{
    const double *at = g->next.at;
    for (unsigned i = 0; i < 2; i++)
        crosses = crosses || ((axes >> i & 1u) && target[i] != plan_round(at[i])); /* true as well while the position is unknown */
    crosses = crosses && kp_machine_limits(g->m)->travel_interlock;
    enum kp_err rc = homed_check(g, crosses ? axes | 4u : axes); /* whose height is not known is not crossed with */
    for (int i = 0; i < 3 && rc == KP_OK; i++)
        if (axes >> i & 1u)
            rc = modal_limits(g, modal_letter(g, "XYZ"[i]), i, target[i]);
    if (rc != KP_OK || !crosses)
        return rc;
    rc = modal_band(g, plan_round(at[2]));
    return rc == KP_OK && (axes & 4u) ? modal_band(g, target[2]) : rc;
}

bool modal_crossing_guard(struct kp_modal *g, unsigned axes, const double target[3], double feed)
{
    double z[3] = { NAN, NAN, plan_round(g->next.at[2]) };
    if (!(modal_homed(g) & 4u) || !plan_in_band(&g->band, z[2]) || ((axes & 4u) && !plan_in_band(&g->band, target[2])))
        return false;
    tr_move(modal_motion(g), z, NULL, 0, feed);
    return true;
}

/* ---- extra axes: in the line of the move, or manual steppers beside it ---- */

static enum kp_err extra_target(struct kp_modal *g, const struct kp_gcode_word *w, int axis, double *target)
{
    const struct kp_axis *a = kp_machine_axis(g->m, (size_t)axis);
    const char *unit = a->rotary ? "deg" : "mm";
    double v = w->value * unit_of(g, axis), at = g->next.at[axis];
    bool homed = modal_homed(g) >> axis & 1u;
    char name[2];
    axis_name(name, w->letter);
    if (!g->next.relative && !homed)
        return MODAL_FAIL(g, w, KP_HOMING_REQUIRED, name, "axis %s is not homed: home it, or move it relative", name);
    if (isnan(at))
        at = a->join == KP_JOINED ? a->position : 0;
    *target = plan_round(g->next.relative ? at + v : g->next.offset[axis] + v);
    if (homed && (*target < a->min || *target > a->max))
        return modal_range(g, w, KP_POSITION_OUT_OF_BOUNDS, name, unit, *target, a->min, a->max);
    if (!(fabs(*target) < MODAL_NUMBER_MAX))
        return modal_range(g, w, KP_POSITION_OUT_OF_BOUNDS, name, unit, *target, -MODAL_NUMBER_MAX, MODAL_NUMBER_MAX);
    return KP_OK;
}

/* Units per second: F where no kinematic axis moves, else the axis's own. */
static enum kp_err extra_speed(struct kp_modal *g, int axis, bool alone, double *speed)
{
    const struct kp_axis *a = kp_machine_axis(g->m, (size_t)axis);
    double v = g->next.feed * (a->rotary ? 1 : g->next.feed_scale) / 60;
    *speed = a->velocity;
    if (!alone || isnan(v))
        return KP_OK;
    if (v > a->velocity && !g->o.clamp)
        return modal_range(g, modal_letter(g, 'F'), KP_FEEDRATE_OUT_OF_BOUNDS, "feedrate", a->rotary ? "deg/min" : "mm/min", v * 60, NAN, a->velocity * 60);
    *speed = v > a->velocity ? a->velocity : fmax(v, 1e-6); /* the least that can be written */
    return KP_OK;
}

static unsigned joined_bits(const struct kp_modal *g)
{
    const struct kp_axis *a;
    unsigned bits = 0;
    for (size_t i = 0; (a = kp_machine_axis(g->m, i)); i++)
        bits |= (unsigned)(a->join == KP_JOINED) << i;
    return bits;
}

/* Those of a move that are joined: what its line has of them, and the feedrate of a line where X, Y and Z stay. */
static enum kp_err joined_turns(struct kp_modal *g, unsigned axes, bool moves, const double *target, struct tr_extra *turns, size_t *count, double *feed)
{
    *count = 0;
    *feed = 0;
    for (int i = 3; i < KP_AXES_MAX; i++) {
        const struct kp_axis *a = axes >> i & 1u ? kp_machine_axis(g->m, (size_t)i) : NULL;
        double speed;
        if (!a || a->join != KP_JOINED)
            continue;
        enum kp_err rc = extra_speed(g, i, !moves, &speed);
        if (rc != KP_OK)
            return rc;
        turns[(*count)++] = (struct tr_extra){ a->letter, target[i] };
        *feed = fmax(*feed, speed * 60);
    }
    return KP_OK;
}

void modal_release(struct kp_modal *g, const struct kp_axis *a)
{
    unsigned bit = 1u << g->axis_of[a->letter - 'A'];
    if (!g->o.alone || a->join == KP_BESIDE || (g->next.released & bit))
        return;
    tr_unjoin(modal_script(g), a->stepper);
    g->next.released |= bit;
}

/* Starts the extra axes of a move that are not joined: later lines of the script go on at once. */
static enum kp_err extra_start(struct kp_modal *g, unsigned axes, bool moves, const double *target)
{
    enum kp_err rc = modal_has(g, W_MANUAL_STEPPER);
    struct tr_script *s = modal_script(g);
    for (int i = 3; i < KP_AXES_MAX && rc == KP_OK; i++) {
        double speed;
        if (!(axes >> i & 1u) || (rc = extra_speed(g, i, !moves, &speed)) != KP_OK)
            continue;
        const struct kp_axis *a = kp_machine_axis(g->m, (size_t)i);
        modal_release(g, a);
        if (isnan(g->next.at[i]))
            tr_stepper_zero(s, a->stepper, false);
        tr_stepper_move(s, a->stepper, target[i], speed, a->acceleration, false);
    }
    return rc;
}

static void extra_sync(struct kp_modal *g, unsigned axes)
{
    for (int i = 3; i < KP_AXES_MAX; i++)
        if (axes >> i & 1u)
            tr_stepper_sync(modal_script(g), kp_machine_axis(g->m, (size_t)i)->stepper);
}

/* ---- G0, G1 ---- */

static enum kp_err move_targets(struct kp_modal *g, double *target, unsigned *axes)
{
    const struct kp_gcode_word *w = &g->line->words[g->command->first], *end = w + g->command->count;
    enum kp_err rc = KP_OK;
    *axes = 0;
    target[0] = target[1] = target[2] = NAN;
    for (; w < end && rc == KP_OK; w++) {
        int axis = g->axis_of[w->letter - 'A'];
        if (axis < 0)
            continue;
        *axes |= 1u << axis;
        rc = axis < 3 ? modal_target(g, w, axis, &target[axis]) : extra_target(g, w, axis, &target[axis]);
    }
    return rc;
}

/* X, Y or Z goes elsewhere; true as well while the position is unknown. */
static bool straight_moves(const struct kp_modal *g, unsigned axes, const double *target)
{
    bool moves = false;
    for (int i = 0; i < 3; i++)
        moves = moves || ((axes >> i & 1u) && target[i] != plan_round(g->next.at[i]));
    return moves;
}

/* The line of motion. Where X, Y and Z stay, Klipper would take their feedrate for that of the turn: then that goes first, in a line of its own. */
static void straight_line(struct kp_modal *g, unsigned axes, bool moves, const double *target, const struct tr_extra *turns, size_t count, double feed,
    double turn_feed)
{
    static const double nowhere[3] = { NAN, NAN, NAN };
    double to[3] = { target[0], target[1], target[2] };
    bool guarded = (axes & 3u) && !g->o.alone && kp_machine_limits(g->m)->travel_interlock;
    if (guarded && !modal_crossing_guard(g, axes, target, feed))
        to[0] = to[1] = NAN;
    for (int i = 0; i < 3; i++)
        if (axes >> i & 1u)
            g->next.at[i] = target[i];
    if (!moves)
        tr_move(modal_script(g), nowhere, turns, count, turn_feed);
    tr_move(modal_script(g), to, turns, moves ? count : 0, feed);
}

static void extra_moved(struct kp_modal *g, unsigned axes, const double *target)
{
    for (int i = 3; i < KP_AXES_MAX; i++)
        if (axes >> i & 1u) {
            modal_axis_note(g, i, target[i], modal_homed(g) >> i & 1u);
            g->next.at[i] = target[i];
        }
}

enum kp_err modal_move(struct kp_modal *g)
{
    double target[KP_AXES_MAX], feed = NAN, turn_feed, v, min, max;
    struct tr_extra turns[KP_AXES_MAX];
    size_t count;
    unsigned axes;
    enum kp_err rc = modal_feed_word(g);
    if (rc != KP_OK || (rc = move_targets(g, target, &axes)) != KP_OK)
        return rc;
    bool straight = axes & 7u, moves = straight_moves(g, axes, target);
    if (axes == 0)
        return modal_feed(g, modal_letter(g, 'F'), &feed);
    if (straight && !moves && (axes & ~7u))
        feed_within(g, &v, &min, &max, &feed); /* F is the turn's */
    else if (straight && (rc = modal_feed(g, modal_letter(g, 'F'), &feed)) != KP_OK)
        return rc;
    if (straight && (rc = modal_straight_allowed(g, axes & 7u, target, false)) != KP_OK)
        return rc;
    if ((rc = joined_turns(g, axes, moves, target, turns, &count, &turn_feed)) != KP_OK)
        return rc;
    bool line = straight || count > 0;
    if (line && (rc = modal_motion_words(g)) != KP_OK)
        return rc;
    if (line)
        modal_motion(g);
    unsigned beside = axes & ~7u & ~joined_bits(g);
    if (beside && (rc = extra_start(g, beside, moves, target)) != KP_OK)
        return rc;
    extra_moved(g, axes, target);
    if (line)
        straight_line(g, axes, moves, target, turns, count, feed, turn_feed);
    extra_sync(g, beside);
    return KP_OK;
}

/* ---- G92, G28 ---- */

enum kp_err modal_offset(struct kp_modal *g)
{
    const struct kp_axis *a;
    bool all = g->command->count == 0;
    for (size_t i = 0; (a = kp_machine_axis(g->m, i)); i++) {
        const struct kp_gcode_word *w = modal_letter(g, a->letter);
        char name[2];
        axis_name(name, a->letter);
        if (!w && !all)
            continue;
        if (isnan(g->next.at[i]) && all && a->extra)
            continue; /* an axis that stands nowhere has no 0 to set */
        if (isnan(g->next.at[i]))
            return MODAL_FAIL(g, w, KP_KLIPPY_DISCONNECTED, name, "it is not known where axis %s stands", name);
        double v = w ? w->value * unit_of(g, (int)i) : 0;
        if (!(fabs(v) <= MODAL_NUMBER_MAX))
            return modal_range(g, w, KP_INVALID_PARAMETER, name, a->rotary ? "deg" : "mm", v, -MODAL_NUMBER_MAX, MODAL_NUMBER_MAX);
        g->next.offset[i] = g->next.at[i] - v;
    }
    return KP_OK;
}

/* The homing script that every other client gets, for the axes that the line names. */
static enum kp_err home_plan(struct kp_modal *g)
{
    size_t i = 0;
    double axis_at[KP_AXES_MAX];
    struct plan p = { .m = g->m, .call = &g->home_call, .f = &g->faults, .s = &g->home, .axis_at = axis_at };
    while (strcmp(g->home_call.command->params[i].name, "axes") != 0)
        i++;
    struct kp_slot *slot = &g->home_call.slot[i];
    slot->axes = 0;
    for (size_t j = 0; j < g->command->count; j++)
        slot->axes |= 1u << g->axis_of[g->line->words[g->command->first + j].letter - 'A'];
    slot->set = slot->axes != 0;
    g->home.script_count = g->home.step_count = 0;
    g->home.result = (struct kp_result){ .moved = false };
    g->faults.count = g->faults.dropped = 0;
    memcpy(p.at, g->next.at, sizeof p.at);
    for (i = 0; i < KP_AXES_MAX; i++)
        axis_at[i] = modal_homed(g) >> i & 1u ? g->next.at[i] : NAN;
    plan_home(&p);
    return g->faults.count > 0 ? modal_first(g, NULL) : KP_OK;
}

/* Klipper has every word of the plan's scripts. */
static enum kp_err home_words(struct kp_modal *g)
{
    struct kp_str word;
    enum kp_err rc = KP_OK;
    for (size_t k = 0; k < g->home.script_count; k++)
        for (size_t i = 0; rc == KP_OK && kp_script_word(g->home.scripts[k].text.text, i, &word); i++) {
            char text[KP_NAME_MAX];
            rc = modal_has_text(g, kp_str_clean(text, word));
        }
    return rc;
}

enum kp_err modal_home(struct kp_modal *g)
{
    unsigned homed;
    enum kp_err rc = home_plan(g);
    if (rc != KP_OK || (rc = home_words(g)) != KP_OK)
        return rc;
    homed = g->home.result.homed;
    for (size_t i = 0; i < KP_AXES_MAX; i++)
        if (homed >> i & 1u) {
            if (i > 2)
                modal_release(g, kp_machine_axis(g->m, i));
            g->next.at[i] = i < 3 ? NAN : 0; /* where homing ends is Klipper's to say */
            g->next.offset[i] = 0;
        }
    for (size_t k = 0; k < g->home.script_count; k++) {
        const struct plan_script *script = &g->home.scripts[k];
        struct modal_item *item = modal_item(g, KP_DO_HOME);
        modal_text(g, item, &script->text);
        item->axis_count = script->axis_count;
        memcpy(item->axes, script->axes, sizeof item->axes);
        item->resync = k + 1 == g->home.script_count;
    }
    g->next.homes |= homed;
    g->next.unhomes &= ~homed;
    return KP_OK;
}
