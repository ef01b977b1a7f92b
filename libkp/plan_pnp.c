/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Plans of pick, place and pick_and_place. A script ends only where a sensor is read, or where Klipper itself reads one in it, with the head at travel height.
 * Invariant: Z goes to travel before anything else, XY is crossed only there, and a nozzle only ever goes down from it. */
#include "plan.h"

#include <math.h>
#include <string.h>

/* What pick and place of one nozzle have in common. Heights are the head's, machine Z. */
struct job {
    const struct kp_nozzle *n;
    double travel, pick, place;
    const char *travel_name, *pick_name, *place_name; /* parameters that faults name */
    bool verify;
    bool inside;  /* Klipper looks at the levels, in the script */
    bool both;    /* pick_and_place */
    double dwell; /* of the request; NAN: none */
};

static double offset(const struct kp_nozzle *n, int i)
{
    return isfinite(n->offset[i]) ? n->offset[i] : 0;
}

/* The head's Z for a height of the request, which is the tip's, else the configured one, which is the head's already; NAN with a fault when neither is. */
static double height(struct plan *p, const struct kp_nozzle *n, const char *param, double configured, const char *option)
{
    const struct kp_slot *slot = kp_call_slot(p->call, param);
    double v = slot->set ? slot->num - offset(n, 2) : configured;
    if (isnan(v))
        PLAN_FAULT(p, KP_MISSING_PARAMETER, param, "%s is required: nozzle %s has no %s in klipperplace.cfg", param, n->name, option);
    return plan_round(v);
}

/* Travel height, inside the band where every nozzle of the head is up. */
static void travel_height(struct plan *p, struct job *j)
{
    const struct kp_nozzle *n = j->n;
    j->travel = height(p, n, j->travel_name, isnan(n->travel_height) ? n->safe_z : n->travel_height, "travel_height or safe_z");
    plan_band(p);
    if (isnan(j->travel) || p->low > p->high || plan_in_band(p, j->travel))
        return;
    struct kp_error why;
    kp_error_set(&why, KP_INTERLOCK, NULL, "nozzle %s would be below its travel height", j->travel < p->low ? p->low_nozzle : p->high_nozzle);
    plan_interlock(p, j->travel_name, j->travel, why.message);
}

/* From travel the nozzle must go down, or the other one of the seesaw would. */
static void check_down(struct plan *p, const struct job *j, double z, const char *name)
{
    if ((j->travel - z) * j->n->z_direction < 0)
        PLAN_FAULT(p, KP_INTERLOCK, name, "at Z %g mm nozzle %s is higher than at travel, Z %g mm: check the sign", z, j->n->name, j->travel);
}

/* Whether to read the vacuum sensor. auto_on: nobody asked, a sensor decides. */
static void verify(struct plan *p, struct job *j, const struct kp_slot *slot)
{
    const struct kp_nozzle *n = j->n;
    const struct kp_sensor *sensor = n->sensor < 0 ? NULL : kp_machine_sensor(p->m, (size_t)n->sensor);
    j->verify = slot && slot->set ? slot->flag : sensor != NULL;
    if (!j->verify)
        return;
    if (!sensor)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "verify", "nozzle %s has no vacuum sensor", n->name);
    else if (!isfinite(n->part_on) || !isfinite(n->part_off))
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "verify", "nozzle %s needs part_on and part_off in klipperplace.cfg, or verify false", n->name);
    else {
        memcpy(p->s->unit, sensor->unit, sizeof p->s->unit);
        j->inside = plan_inside(p, n);
    }
}

/* False with faults when there is no nozzle to plan for. */
static bool start(struct plan *p, struct job *j, const char *travel_name)
{
    *j = (struct job){ .travel = NAN, .pick = NAN, .place = NAN, .travel_name = travel_name, .dwell = NAN };
    plan_feedrate(p, kp_call_slot(p->call, "feedrate"));
    j->n = plan_nozzle(p);
    if (!j->n)
        return false;
    memcpy(p->s->nozzle, j->n->name, sizeof p->s->nozzle);
    travel_height(p, j);
    if (j->n != &p->plain && j->n->pump < 0 && j->n->valve < 0)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "nozzle", "nozzle %s has neither pump nor valve", j->n->name);
    return true;
}

static void go_z(struct plan *p, double z, const char *name)
{
    const char *const field[3] = { "x", "y", name };
    plan_go(p, NAN, NAN, z, field);
}

/* XY of the tip at travel. */
static void go_xy(struct plan *p, const struct job *j, const char *x, const char *y)
{
    const char *const field[3] = { x, y, "z" };
    plan_go(p, plan_num(p, x) - offset(j->n, 0), plan_num(p, y) - offset(j->n, 1), NAN, field);
}

static double seconds(double wanted, double configured)
{
    double v = isnan(wanted) ? configured : wanted;
    return v > 0 ? v : 0;
}

static void down_and_suck(struct plan *p, const struct job *j, double dwell)
{
    go_z(p, j->pick, j->pick_name);
    plan_suck(p, j->n, "vacuum_power");
    tr_dwell(&p->now->text, seconds(dwell, j->n->dwell_s));
    go_z(p, j->travel, j->travel_name);
}

static void down_and_let_go(struct plan *p, const struct job *j, double dwell, double blow_off)
{
    double blow_s = seconds(blow_off, j->n->blow_off_s);
    if (blow_off > 0 && j->n->blow_off < 0)
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "blow_off", "nozzle %s has no blow_off pin", j->n->name);
    go_z(p, j->place, j->place_name);
    plan_let_go(p, j->n);
    if (blow_s > 0 && j->n->blow_off >= 0) {
        plan_pin(p, j->n->blow_off, 1, NULL);
        tr_dwell(&p->now->text, blow_s);
        plan_pin(p, j->n->blow_off, 0, NULL);
    }
    tr_dwell(&p->now->text, seconds(dwell, j->n->dwell_s));
    go_z(p, j->travel, j->travel_name);
}

static void end(struct plan *p)
{
    tr_close(&p->now->text);
    tr_wait(&p->now->text);
}

/* Part held: at part_on or beyond. Part released: at part_off or short of it. Under-pressure makes part_on the smaller one. */
static struct plan_step sample(const struct job *j, const char *name, bool held)
{
    bool under = j->n->part_on < j->n->part_off;
    return (struct plan_step){ .kind = KP_ACT_SAMPLE, .name = name, .script = PLAN_NONE, .sensor = j->n->sensor, .held = held,
                               .level = held ? j->n->part_on : j->n->part_off, .at_most = under == held,
                               .good = PLAN_NONE, .again = PLAN_NONE, .way_out = PLAN_NONE };
}

/* Looks at the level where all is up, behind a script or inside it. Gives the step that says where to go when it is bad; NULL: nobody looks. */
static struct plan_step *look(struct plan *p, const struct job *j, const char *name, bool held)
{
    struct plan_step level = sample(j, name, held);
    end(p);
    if (!j->verify)
        return NULL;
    return j->inside ? plan_check(p, &level) : plan_sample(p, &level);
}

/* A pick from travel to travel, deeper by so much; of pick_and_place over x and y first. */
static void pick_once(struct plan *p, const struct job *j, double deeper)
{
    struct job at = *j;
    at.pick = plan_round(j->pick - deeper * j->n->z_direction);
    p->now->pick_z = plan_round(at.pick + offset(j->n, 2));
    go_z(p, j->travel, j->travel_name);
    if (j->both)
        go_xy(p, j, "x", "y");
    down_and_suck(p, &at, j->dwell);
}

/* Turns the part during the travel. Returns the axis that later lines wait for, NULL when nothing turns. */
static const struct kp_axis *turn(struct plan *p, const struct job *j)
{
    double by = plan_num(p, "rotation");
    const struct kp_axis *a = j->n->rotation_axis < 0 ? NULL : kp_machine_axis(p->m, (size_t)j->n->rotation_axis);
    if (isnan(by) || by == 0)
        return NULL;
    if (!a || !a->extra) {
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "rotation", "nozzle %s has no rotation_axis", j->n->name);
        return NULL;
    }
    plan_axis_move(p, j->n->rotation_axis, by, true, a->velocity, "rotation");
    return a;
}

static void place_part(struct plan *p, const struct job *j)
{
    const struct kp_axis *turning = turn(p, j);
    go_xy(p, j, "place_x", "place_y");
    if (turning && turning->join != KP_JOINED)
        tr_stepper_sync(&p->now->text, turning->stepper);
    down_and_let_go(p, j, NAN, NAN);
}

/* A pick and a look, and what stands in the same script behind it. Returns as look. */
static struct plan_step *try_once(struct plan *p, const struct job *j, double deeper)
{
    pick_once(p, j, deeper);
    if (!j->both || (j->verify && !j->inside))
        return look(p, j, "verify_pick", true);
    struct plan_step *first = NULL;
    if (j->inside) {
        struct plan_step level = sample(j, "verify_pick", true);
        tr_close(&p->now->text); /* the script may end here */
        first = plan_check(p, &level);
        tr_open(&p->now->text);
    }
    place_part(p, j);
    look(p, j, "verify_place", false);
    return first;
}

/* What follows a pick whose level is bad, behind the main path: the same pick while tries are left, or one that goes deeper each time; then the declared
 * way out, vacuum off, with the head at travel height already. */
static void mend(struct plan *p, const struct job *j, struct plan_step *first)
{
    struct kp_seq *s = p->s;
    double lower = kp_machine_limits(p->m)->retry_lower_mm;
    bool right = p->f->count + p->f->dropped == p->faults_before; /* else each try would tell what is wrong again */
    int further = lower > 0 && right ? s->tries_left : 0;
    plan_end(p);
    first->way_out = (int)s->step_count + (j->inside ? 1 : 2) * further;
    first->again = further > 0 ? (int)s->step_count : 0;
    for (int i = 1; i <= further; i++) {
        struct plan_step *script = &s->steps[s->step_count], *level;
        plan_script(p, s->steps[0].name);
        level = try_once(p, j, i * lower);
        if (j->inside)
            script->good = (int)s->end;
        else
            level->good = 2;
        level->again = (int)s->step_count;
        level->way_out = first->way_out;
    }
    plan_script(p, "release");
    plan_let_go(p, j->n);
    tr_wait(&p->now->text);
}

static void done(struct plan *p, bool vacuum)
{
    p->s->result.completed = true;
    p->s->result.vacuum_enabled = vacuum;
}

void plan_pick(struct plan *p)
{
    struct job j;
    plan_script(p, "pick");
    if (!start(p, &j, "travel_height"))
        return;
    j.pick_name = "z";
    j.pick = height(p, j.n, "z", j.n->pick_height, "pick_height");
    check_down(p, &j, j.pick, "z");
    verify(p, &j, kp_call_slot(p->call, "verify"));
    j.dwell = plan_num(p, "dwell");
    p->s->result.attempts = 1;
    p->s->tries_left = kp_machine_limits(p->m)->vacuum_retries;
    struct plan_step *first = try_once(p, &j, 0);
    if (first)
        mend(p, &j, first);
    done(p, plan_num(p, "vacuum_power") > 0);
}

void plan_place(struct plan *p)
{
    struct job j;
    plan_script(p, "place");
    if (!start(p, &j, "travel_height"))
        return;
    j.place_name = "z";
    j.place = height(p, j.n, "z", j.n->place_height, "place_height");
    check_down(p, &j, j.place, "z");
    verify(p, &j, kp_call_slot(p->call, "verify"));
    go_z(p, j.travel, j.travel_name);
    down_and_let_go(p, &j, plan_num(p, "dwell"), plan_num(p, "blow_off"));
    look(p, &j, "verify_place", false);
    done(p, false);
}

static void pick_and_place_heights(struct plan *p, struct job *j)
{
    j->pick_name = "pick_height";
    j->place_name = "place_height";
    j->pick = height(p, j->n, "pick_height", j->n->pick_height, "pick_height");
    j->place = height(p, j->n, "place_height", j->n->place_height, "place_height");
    check_down(p, j, j->pick, "pick_height");
    check_down(p, j, j->place, "place_height");
}

/* Tip coordinates for the answer; each pick says how deep it goes. */
static void tips(struct plan *p, const struct job *j)
{
    struct kp_result *r = &p->s->result;
    r->pick[0] = plan_num(p, "x"), r->pick[1] = plan_num(p, "y"), r->pick[2] = p->s->scripts[0].pick_z;
    r->place[0] = plan_num(p, "place_x"), r->place[1] = plan_num(p, "place_y"), r->place[2] = plan_round(j->place + offset(j->n, 2));
}

void plan_pick_and_place(struct plan *p)
{
    struct job j;
    const struct kp_slot *retries = kp_call_slot(p->call, "retries");
    plan_script(p, "pick");
    if (!start(p, &j, "safe_height"))
        return;
    pick_and_place_heights(p, &j);
    verify(p, &j, NULL);
    j.both = true;
    p->s->result.attempts = 1;
    p->s->tries_left = retries->set ? (int)retries->num : kp_machine_limits(p->m)->vacuum_retries;
    bool whole = !j.verify || j.inside;
    if (whole)
        p->s->steps[0].name = "pick_and_place";
    struct plan_step *first = try_once(p, &j, 0);
    if (!whole) { /* steps: pick, verify_pick, place, verify_place | further tries, release */
        plan_script(p, "place");
        tr_open(&p->now->text);
        place_part(p, &j);
        look(p, &j, "verify_place", false);
    }
    if (first)
        mend(p, &j, first);
    tips(p, &j);
    done(p, false);
}
