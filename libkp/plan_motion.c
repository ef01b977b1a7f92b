/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Plans of move, home and wait.
 * Invariant: under travel_interlock no line of these crosses XY while a nozzle is below its travel height. */
#include "plan.h"

#include <math.h>

static const char *const xyz_names[3] = { "x", "y", "z" };

static double tip_offset(const struct kp_nozzle *n, int i)
{
    return n && isfinite(n->offset[i]) ? n->offset[i] : 0;
}

/* Machine targets of the request, NAN where it names none. */
static void move_targets(struct plan *p, bool relative, double target[3])
{
    bool lost = false;
    const struct kp_nozzle *n = kp_call_slot(p->call, "nozzle")->set ? plan_nozzle(p) : NULL;
    for (int i = 0; i < 3; i++) {
        double v = plan_num(p, xyz_names[i]);
        target[i] = plan_round(relative ? p->at[i] + v : v - tip_offset(n, i));
        lost |= relative && !isnan(v) && isnan(p->at[i]);
    }
    if (lost)
        PLAN_FAULT(p, KP_KLIPPY_DISCONNECTED, "relative", "Klipper has not told its position yet");
}

/* Refuses a move that crosses XY below travel height. One that names X or Y is told to stand at the Z that we know first: no motion when it does, and a lift
 * when somebody lowered the head since Klipper last told it. Below travel height X and Y stand where they are named, else it crosses; they are not written
 * then, so that it does not cross when somebody moved them. */
static void move_interlock(struct plan *p, double target[3])
{
    bool crosses = false;
    for (int i = 0; i < 2; i++)
        crosses |= !isnan(target[i]) && target[i] != plan_round(p->at[i]); /* true as well while the position is unknown */
    if ((isnan(target[0]) && isnan(target[1])) || !kp_machine_limits(p->m)->travel_interlock)
        return;
    plan_band(p);
    double ends[2] = { plan_round(p->at[2]), isnan(target[2]) ? plan_round(p->at[2]) : target[2] };
    int low = plan_in_band(p, ends[0]) ? plan_in_band(p, ends[1]) ? -1 : 1 : 0;
    if (low < 0)
        plan_go(p, NAN, NAN, p->at[2], xyz_names);
    else if (crosses)
        plan_interlock(p, "z", ends[low], "X and Y are crossed at travel height only");
    else
        target[0] = target[1] = NAN;
}

/* Speed of an extra axis in its own unit per second: the request's where no kinematic axis takes it, else the axis's own. */
static double extra_speed(struct plan *p, const struct kp_axis *a, bool alone)
{
    const struct kp_slot *feedrate = kp_call_slot(p->call, "feedrate");
    if (!alone || !feedrate->set)
        return a->velocity;
    if (feedrate->num / 60 > a->velocity)
        plan_range(p, KP_FEEDRATE_OUT_OF_BOUNDS, "feedrate", a->rotary ? "deg/min" : "mm/min", feedrate->num, NAN, a->velocity * 60);
    return feedrate->num / 60;
}

/* One pass over the extra axes of the call: starts them (those that are joined go with the next line of motion), or lets later lines wait for them. Returns how
 * many. */
static int move_extra(struct plan *p, bool relative, bool alone, bool sync)
{
    int moved = 0;
    for (int i = 0; i < KP_AXES_MAX; i++) {
        const struct kp_axis *a = p->call->axis_set[i] ? kp_machine_axis(p->m, (size_t)i) : NULL;
        if (!a)
            continue;
        const char name[2] = { (char)(a->letter | 0x20), 0 };
        moved++;
        if (sync && a->join == KP_JOINED)
            continue;
        if (sync)
            tr_stepper_sync(&p->now->text, a->stepper);
        else
            plan_axis_move(p, i, p->call->axis[i], relative, extra_speed(p, a, alone), name);
    }
    return moved;
}

void plan_end_move(struct plan *p, bool wait)
{
    tr_close(&p->now->text);
    if (wait)
        tr_wait(&p->now->text);
    else if (p->flush)
        tr_flush(&p->now->text);
    p->s->result.completed = wait;
}

void plan_move(struct plan *p)
{
    double target[3];
    bool relative = kp_call_slot(p->call, "relative")->flag;
    plan_script(p, "move");
    move_targets(p, relative, target);
    bool straight = false;
    for (int i = 0; i < 3; i++)
        straight |= kp_call_slot(p->call, xyz_names[i])->set;
    if (straight) {
        plan_feedrate(p, kp_call_slot(p->call, "feedrate"));
        tr_open(&p->now->text);
        move_interlock(p, target);
    }
    int extra = move_extra(p, relative, !straight, false);
    if (!straight && extra == 0)
        PLAN_FAULT(p, KP_MISSING_PARAMETER, "x", "a move names at least one axis");
    if (straight)
        plan_go(p, target[0], target[1], target[2], xyz_names);
    plan_turn(p);
    move_extra(p, relative, !straight, true);
    plan_end_move(p, kp_call_slot(p->call, "wait")->flag);
}

/* Where Z rests after homing: a nozzle's own travel height, else the middle or the end of the band. NAN: nothing asks for it. */
static double rest_z(const struct plan *p)
{
    int z = kp_machine_find_axis(p->m, 'Z');
    const struct kp_axis *a = z < 0 ? NULL : kp_machine_axis(p->m, (size_t)z);
    if (!a || (isinf(p->low) && isinf(p->high)))
        return NAN;
    const struct kp_nozzle *n;
    for (size_t i = 0; (n = kp_machine_nozzle(p->m, i)); i++) {
        if (n->z_axis == z && plan_in_band(p, n->travel_height) && n->travel_height >= a->min && n->travel_height <= a->max)
            return n->travel_height;
    }
    double low = p->low > a->min ? p->low : a->min, high = p->high < a->max ? p->high : a->max;
    return isinf(p->low) ? high : isinf(p->high) ? low : (low + high) / 2;
}

/* Z to travel height, so that nothing hangs over the table while X and Y home or afterwards. A script of its own: only one that begins with its save
 * tells, when it fails, that a restore is owed. */
static void rest(struct plan *p)
{
    static const char *const field[3] = { "x", "y", "safe_z" };
    double z = rest_z(p);
    if (isnan(z))
        return;
    plan_script(p, "travel");
    plan_go(p, NAN, NAN, z, field);
    tr_close(&p->now->text);
    for (int i = 0; i < 3; i++)
        p->now->expected[i] = NAN; /* X and Y are still to be homed */
    plan_script(p, "home");
}

/* X and Y homed without Z cross the table at the height at hand. */
static void home_interlock(struct plan *p)
{
    int z = kp_machine_find_axis(p->m, 'Z');
    if (!kp_machine_limits(p->m)->travel_interlock || z < 0)
        return;
    if (!kp_machine_axis(p->m, (size_t)z)->homed)
        PLAN_FAULT(p, KP_INTERLOCK, "axes", "X and Y home only with Z at travel height: home Z first");
    else if (!plan_in_band(p, plan_round(p->at[2])))
        plan_interlock(p, "axes", p->at[2], "X and Y home only with Z at travel height");
}

static void home_kinematic(struct plan *p, bool x, bool y, bool z)
{
    char letters[4] = "";
    bool own = kp_machine_has_section(p->m, "homing_override") || kp_machine_has_section(p->m, "safe_z_home");
    if (z && own) {
        char *at = letters;
        if (!(x && y)) { /* a plain G28 for all, so that Klipper's own order counts */
            if (x)
                *at++ = 'X';
            if (y)
                *at++ = 'Y';
            *at++ = 'Z';
        }
        *at = 0;
        tr_home(&p->now->text, letters);
        rest(p);
        return;
    }
    if (z) {
        tr_home(&p->now->text, "Z");
        rest(p);
    } else {
        home_interlock(p);
    }
    if (x || y)
        tr_home(&p->now->text, x && y ? "XY" : x ? "X" : "Y");
}

void plan_home(struct plan *p)
{
    const struct kp_slot *slot = kp_call_slot(p->call, "axes");
    bool asked[3] = { false, false, false };
    const struct kp_axis *a;
    plan_script(p, "home");
    plan_feedrate(p, NULL);
    plan_band(p);
    for (size_t i = 0; (a = kp_machine_axis(p->m, i)); i++) {
        bool homes = !a->extra || a->rotary || !isnan(a->home_travel);
        bool want = slot->axes ? slot->axes >> i & 1u : homes;
        if (!want)
            continue;
        if (!a->extra && a->letter >= 'X' && a->letter <= 'Z')
            asked[a->letter - 'X'] = true;
        else if (!homes)
            PLAN_FAULT(p, KP_INVALID_PARAMETER, "axes", "axis %s has nothing to home to", (const char[]){ a->letter, 0 });
        p->s->result.homed |= 1u << i;
    }
    if (asked[0] || asked[1] || asked[2])
        home_kinematic(p, asked[0], asked[1], asked[2]);
    for (size_t i = 0; (a = kp_machine_axis(p->m, i)); i++)
        if (a->extra && (p->s->result.homed >> i & 1u))
            plan_axis_home(p, (int)i);
    plan_end_move(p, true);
}

void plan_wait(struct plan *p)
{
    plan_script(p, "wait");
    plan_end_move(p, true);
}
