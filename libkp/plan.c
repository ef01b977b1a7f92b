/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What all builders of plans share: steps, checked moves, pins, axes, the travel band. Faults are added and building goes on,
 * so that one answer lists them all; a plan with a fault is never run. */
#include "plan.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define DEFAULT_FEEDRATE_MM_MIN 1500.0
#define TURN_DEG 360.0
#define AXIS_FAR 1e9 /* past this a coordinate loses the decimals that Klipper keeps */

double plan_round(double v)
{
    if (!(v > -AXIS_FAR && v < AXIS_FAR))
        return v;
    double scaled = v * 1e6;
    return (double)(int64_t)(scaled + (scaled < 0 ? -0.5 : 0.5)) / 1e6;
}

double plan_num(const struct plan *p, const char *param)
{
    return kp_call_slot(p->call, param)->num;
}

static struct plan_step *add_step(struct plan *p, enum kp_act kind, const char *name)
{
    assert(p->s->step_count < KP_STEPS_MAX);
    struct plan_step *step = &p->s->steps[p->s->step_count++];
    *step = (struct plan_step){ .kind = kind, .name = name, .sensor = PLAN_NONE, .good = PLAN_NONE, .again = PLAN_NONE, .way_out = PLAN_NONE };
    return step;
}

void plan_script(struct plan *p, const char *name)
{
    assert(p->s->script_count < PLAN_SCRIPTS_MAX + p->s->more_room);
    add_step(p, KP_ACT_SCRIPT, name)->script = (int)p->s->script_count;
    size_t i = p->s->script_count++;
    p->now = i < PLAN_SCRIPTS_MAX ? &p->s->scripts[i] : &p->s->more[i - PLAN_SCRIPTS_MAX];
    p->now->write_count = p->now->axis_count = p->now->check_count = 0;
    for (int k = 0; k < 3; k++)
        p->now->expected[k] = NAN;
    p->now->pick_z = NAN;
    tr_start(&p->now->text);
}

struct plan_step *plan_sample(struct plan *p, const struct plan_step *step)
{
    struct plan_step *to = add_step(p, KP_ACT_SAMPLE, step->name);
    *to = *step;
    return to;
}

void plan_settle(struct plan *p)
{
    add_step(p, KP_ACT_SETTLE, "settle");
}

void plan_delay(struct plan *p)
{
    add_step(p, KP_ACT_DELAY, "delay");
}

void plan_end(struct plan *p)
{
    p->s->end = p->s->step_count;
    add_step(p, KP_ACT_DONE, "done");
}

static bool said_already(const struct plan *p, enum kp_err code, const char *field)
{
    for (size_t i = p->faults_before; i < p->f->count; i++)
        if (p->f->item[i].code == code && strcmp(p->f->item[i].field, field) == 0)
            return true;
    return false;
}

void plan_range(struct plan *p, enum kp_err code, const char *field, const char *unit, double got, double min, double max)
{
    struct kp_error e;
    if (said_already(p, code, field))
        return;
    kp_error_range(&e, code, field, unit, got, isinf(min) ? NAN : min, isinf(max) ? NAN : max);
    kp_faults_add(p->f, &e);
}

/* A limit that Klipper has not told is no permission. */
static void check_axis(struct plan *p, int i, double v, const char *field)
{
    int index = kp_machine_find_axis(p->m, "XYZ"[i]);
    const struct kp_axis *a = index < 0 ? NULL : kp_machine_axis(p->m, (size_t)index);
    if (!a || !isfinite(a->min) || !isfinite(a->max))
        plan_range(p, KP_POSITION_OUT_OF_BOUNDS, field, "mm", v, NAN, NAN);
    else if (!(v >= a->min && v <= a->max))
        plan_range(p, KP_POSITION_OUT_OF_BOUNDS, field, "mm", v, a->min, a->max);
}

static void expect(struct plan *p)
{
    p->turn_count = 0;
    p->turn_speed = 0;
    for (int i = 0; i < 3; i++)
        p->now->expected[i] = p->at[i];
}

void plan_turn(struct plan *p)
{
    if (p->turn_count == 0)
        return;
    tr_move(&p->now->text, (const double[3]){ NAN, NAN, NAN }, p->turns, p->turn_count, p->turn_speed * 60);
    expect(p);
}

void plan_go(struct plan *p, double x, double y, double z, const char *const field[3])
{
    double xyz[3] = { plan_round(x), plan_round(y), plan_round(z) };
    bool moves = false;
    for (int i = 0; i < 3; i++)
        if (!isnan(xyz[i])) {
            check_axis(p, i, xyz[i], field[i]);
            moves = moves || xyz[i] != plan_round(isnan(p->at[i]) ? p->told[i] : p->at[i]);
            p->at[i] = xyz[i];
        }
    if (!moves) /* Klipper would take the feedrate for that of the turn */
        plan_turn(p);
    tr_move(&p->now->text, xyz, p->turns, p->turn_count, p->feedrate_mm_min);
    expect(p);
}

void plan_feedrate(struct plan *p, const struct kp_slot *slot)
{
    const struct kp_limits *l = kp_machine_limits(p->m);
    double min = isfinite(l->min_feedrate_mm_min) ? l->min_feedrate_mm_min : 0;
    double max = l->max_velocity_mm_s * 60;
    if (!(max < l->max_feedrate_mm_min))
        max = l->max_feedrate_mm_min;
    if (!slot || !slot->set) {
        double v = DEFAULT_FEEDRATE_MM_MIN;
        p->feedrate_mm_min = v > max ? max : v < min ? min : v;
        return;
    }
    p->feedrate_mm_min = slot->num;
    if (!(slot->num >= min) || slot->num > max)
        plan_range(p, KP_FEEDRATE_OUT_OF_BOUNDS, "feedrate", "mm/min", slot->num, min, max);
}

void plan_band(struct plan *p)
{
    int z = kp_machine_find_axis(p->m, 'Z');
    p->low = -INFINITY, p->high = INFINITY;
    const struct kp_nozzle *n;
    for (size_t i = 0; z >= 0 && (n = kp_machine_nozzle(p->m, i)); i++) {
        if (n->z_axis != z || isnan(n->safe_z))
            continue;
        if (n->z_direction > 0 && n->safe_z > p->low)
            p->low = n->safe_z, p->low_nozzle = n->name;
        if (n->z_direction < 0 && n->safe_z < p->high)
            p->high = n->safe_z, p->high_nozzle = n->name;
    }
    if (p->low > p->high)
        PLAN_FAULT(p, KP_INTERLOCK, "safe_z", "no Z is travel height for both %s (from %g mm up) and %s (from %g mm down): correct safe_z in klipperplace.cfg",
                   p->low_nozzle, p->low, p->high_nozzle, p->high);
}

bool plan_in_band(const struct plan *p, double z)
{
    return z >= p->low && z <= p->high;
}

void plan_interlock(struct plan *p, const char *field, double z, const char *why)
{
    struct kp_error range, e;
    kp_error_range(&range, KP_INTERLOCK, "Z", "mm", z, isinf(p->low) ? NAN : p->low, isinf(p->high) ? NAN : p->high);
    kp_error_set(&e, KP_INTERLOCK, field, "%s: %s", why, range.message);
    e.got = range.got, e.min = range.min, e.max = range.max;
    kp_faults_add(p->f, &e);
}

/* A value of ours as the request would say it. */
static double as_asked(const struct plan_field *field, double v)
{
    return plan_round(field->off + (field->full - field->off) * v);
}

/* value, rounded, where it is 0 or within the limits; else a fault of field, or the limit that is nearer. */
static double within(struct plan *p, double value, double min, double max, enum kp_err code, const struct plan_field *field)
{
    double v = plan_round(value);
    if (v == 0 || (v >= min && v <= max))
        return v;
    if (field) {
        double a = as_asked(field, min), b = as_asked(field, max);
        plan_range(p, code, field->name, "", as_asked(field, value), fmin(a, b), fmax(a, b));
    }
    return v > max ? max : min;
}

/* A name that Klipper has and no script can write. */
static void check_name(struct plan *p, const char *field, const char *name)
{
    if (!kp_name_ok(kp_str_of(name)))
        PLAN_FAULT(p, KP_EXECUTION_FAILED, field, "Klipper's name %s cannot be written in a script: use A-Z a-z 0-9 _ there", name);
}

double plan_pin(struct plan *p, int pin, double value, const struct plan_field *field)
{
    const struct kp_pin *at = pin < 0 ? NULL : kp_machine_pin(p->m, (size_t)pin);
    const struct kp_limits *l = kp_machine_limits(p->m);
    if (!at)
        return value;
    double v = at->kind == KP_PIN_OUTPUT ? value > 0 : plan_round(value);
    if (at->kind == KP_PIN_PWM)
        v = within(p, value, l->min_pwm, l->max_pwm, KP_PWM_OUT_OF_BOUNDS, field);
    check_name(p, "pin", at->name);
    assert(p->now->write_count < PLAN_WRITES_MAX);
    p->now->writes[p->now->write_count++] = (struct kp_pin_write){ pin, v };
    double full = at->scale > 0 ? at->scale : 1;
    if (at->kind == KP_PIN_SERVO)
        tr_servo(&p->now->text, at->name, v * full);
    else
        tr_pin(&p->now->text, at->name, v * full);
    return v;
}

double plan_fan(struct plan *p, int fan, double speed, const struct plan_field *field)
{
    const struct kp_fan *at = kp_machine_fan(p->m, (size_t)fan);
    const struct kp_limits *l = kp_machine_limits(p->m);
    double v = within(p, speed, l->min_fan, l->max_fan, KP_FAN_SPEED_OUT_OF_BOUNDS, field);
    if (at->kind == KP_FAN_AUTOMATIC) {
        PLAN_FAULT(p, KP_INVALID_PARAMETER, "fan", "%s is Klipper's own to switch", at->name);
        return v;
    }
    if (at->kind == KP_FAN_GENERIC)
        check_name(p, "fan", at->name);
    tr_fan(&p->now->text, at->kind == KP_FAN_PART ? NULL : at->name, v);
    return v;
}

static void note_axis(struct plan *p, int axis, double position, bool homed)
{
    assert(p->now->axis_count < KP_AXES_MAX);
    p->now->axes[p->now->axis_count++] = (struct kp_axis_write){ axis, position, homed };
}

void plan_axis_lost(struct plan *p, const char *stepper, double at)
{
    const struct kp_axis *a;
    for (size_t i = 0; (a = kp_machine_axis(p->m, i)); i++)
        if (a->extra && strcmp(a->stepper, stepper) == 0)
            note_axis(p, (int)i, at, false);
}

void plan_axis_home(struct plan *p, int axis)
{
    const struct kp_axis *a = kp_machine_axis(p->m, (size_t)axis);
    struct tr_script *s = &p->now->text;
    double at = p->axis_at ? p->axis_at[axis] : a->homed && a->tracked ? a->position : NAN;
    double to = TURN_DEG * round(at / TURN_DEG);
    bool known = to > -AXIS_FAR && to < AXIS_FAR;
    if (a->join == KP_JOINED)
        tr_unjoin(s, a->stepper);
    if (!isnan(a->home_travel)) {
        tr_stepper_home(s, a);
    } else {
        if (known)
            tr_stepper_move(s, a->stepper, to, a->velocity, a->acceleration, true);
        if (!known || to != 0)
            tr_stepper_zero(s, a->stepper, !known);
    }
    if (a->join == KP_JOINED)
        tr_join(s, a);
    note_axis(p, axis, 0, true);
}

void plan_axis_move(struct plan *p, int axis, double to, bool relative, double speed, const char *field)
{
    const struct kp_axis *a = kp_machine_axis(p->m, (size_t)axis);
    const char *unit = a->rotary ? "deg" : "mm";
    bool joined = a->join == KP_JOINED;
    double from = relative && (a->tracked || joined) ? a->position : 0;
    double target = plan_round(from + to);
    if (!relative && !a->homed)
        PLAN_FAULT(p, KP_HOMING_REQUIRED, field, "axis %s is not homed: home it, or move it relative", field);
    if (a->homed && (target < a->min || target > a->max))
        plan_range(p, KP_POSITION_OUT_OF_BOUNDS, field, unit, target, a->min, a->max);
    if (!(target > -AXIS_FAR && target < AXIS_FAR))
        plan_range(p, KP_POSITION_OUT_OF_BOUNDS, field, unit, target, -AXIS_FAR, AXIS_FAR);
    note_axis(p, axis, target, a->homed);
    if (joined) {
        p->turns[p->turn_count++] = (struct tr_extra){ a->letter, target };
        p->turn_speed = fmax(p->turn_speed, speed);
        return;
    }
    if (relative && !a->tracked)
        tr_stepper_zero(&p->now->text, a->stepper, false);
    tr_stepper_move(&p->now->text, a->stepper, target, speed, a->acceleration, false);
}

const struct kp_nozzle *plan_nozzle(struct plan *p)
{
    const struct kp_slot *slot = kp_call_slot(p->call, "nozzle");
    const struct kp_nozzle *n = kp_machine_nozzle(p->m, slot->set ? (size_t)slot->index : 0);
    struct kp_vacuum v = kp_machine_vacuum(p->m);
    int z = kp_machine_find_axis(p->m, 'Z');
    if (!n && v.kind != KP_VACUUM_NONE && z >= 0) {
        p->plain = (struct kp_nozzle){ .name = "vacuum", .z_axis = z, .z_direction = 1, .safe_z = NAN, .rotation_axis = -1, .valve = -1, .blow_off = -1,
                                       .sensor = -1, .part_on = NAN, .part_off = NAN, .pick_height = NAN, .place_height = NAN, .travel_height = NAN };
        p->plain.pump = v.kind == KP_VACUUM_PIN ? v.index : -1;
        return &p->plain;
    }
    if (!n)
        PLAN_FAULT(p, KP_NOZZLE_NOT_FOUND, "nozzle", "klipperplace.cfg has neither a [nozzle ...] nor [vacuum] output, and Klipper no [fan]");
    else if (n->fault[0])
        PLAN_FAULT(p, KP_NOZZLE_NOT_FOUND, "nozzle", "nozzle %s cannot be used: %s", n->name, n->fault);
    else if (z < 0 || n->z_axis != z)
        PLAN_FAULT(p, KP_NOZZLE_NOT_FOUND, "nozzle", "nozzle %s cannot be used: its z_axis is not Z", n->name);
    else
        return n;
    return NULL;
}
