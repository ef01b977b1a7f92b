/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mechanics, for the MCU's steps and pins. A part is in one place: on a nozzle, lying, in a pocket, or gone. */
#include "world.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double fall_mm = 0.5; /* dropped from higher than this, it falls */
static const double touch_mm = 0.01; /* a bare tip on a surface */
static const double refuse_mm = 1; /* a refused contact ends this much higher */

/* ---- geometry ---- */

double axis_mm(const struct axis *a)
{
    return a->base_mm + (double)a->n * a->mm_per_step;
}

struct point nozzle_tip(const struct world *w, const struct nozzle *n)
{
    struct point p = {n->x, n->y, n->tip + n->sign * axis_mm(&w->axes[n->axis])};

    if (w->x_axis >= 0) p.x += axis_mm(&w->axes[w->x_axis]);
    if (w->y_axis >= 0) p.y += axis_mm(&w->axes[w->y_axis]);
    return p;
}

double nozzle_rot(const struct nozzle *n)
{
    return (double)n->rot_n * n->deg_per_step;
}

static double wrap_deg(double d)
{
    d = fmod(d, 360);
    if (d > 180)
        d -= 360;
    else if (d <= -180)
        d += 360;
    return d;
}

static void turn(double x, double y, double deg, double *ox, double *oy)
{
    double r = deg * 3.14159265358979323846 / 180, c = cos(r), s = sin(r);

    *ox = x * c - y * s;
    *oy = x * s + y * c;
}

void part_pose(const struct world *w, const struct part *p, struct point *at, double *rot)
{
    const struct nozzle *n;
    double dx, dy;

    *at = p->at;
    *rot = wrap_deg(p->rot);
    if (p->state != PART_HELD) return;
    n = &w->nozzles[p->nozzle];
    *at = nozzle_tip(w, n);
    turn(n->hold_x, n->hold_y, nozzle_rot(n), &dx, &dy);
    at->x += dx;
    at->y += dy;
    *rot = wrap_deg(n->hold_rot + nozzle_rot(n));
}

static const struct board *board_at(const struct world *w, double x, double y)
{
    for (int i = 0; i < w->board_n; i++) {
        const struct board *b = &w->boards[i];
        if (x >= b->x0 && x <= b->x1 && y >= b->y0 && y <= b->y1) return b;
    }
    return NULL;
}

static bool near_xy(struct point a, struct point b, double radius)
{
    return hypot(a.x - b.x, a.y - b.y) <= radius;
}

static bool is_down(const struct part *p)
{
    return p->state == PART_LYING || p->state == PART_POCKET;
}

/* ---- vacuum sensor ---- */

double nozzle_level(const struct nozzle *n, int64_t ns)
{
    double t = (double)(ns - n->level_ns) / 1e9;

    if (n->stuck) return n->stuck_value;
    if (n->tau_s <= 0 || t <= 0) return n->tau_s <= 0 ? n->target : n->level_from;
    return n->target + (n->level_from - n->target) * exp(-t / n->tau_s);
}

static void update_target(struct world *w, struct nozzle *n, struct when at)
{
    enum level l = !n->vacuum ? LEVEL_OFF : n->held < 0 ? LEVEL_OPEN : n->leak ? LEVEL_LEAK : LEVEL_PART;
    bool stuck = n->stuck;
    char pin[8];

    if (n->adc.pin == PIN_NONE || n->levels[l] == n->target) return;
    n->stuck = false;
    n->level_from = nozzle_level(n, at.ns);
    n->stuck = stuck;
    n->target = n->levels[l];
    n->level_ns = at.ns;
    log_event(w->log, at, "adc", ",\"pin\":\"%s\",\"name\":\"%s.sensor\",\"value\":%.6g", pin_text(n->adc.pin, pin), n->name, n->target);
}

static double noise(struct world *w)
{
    uint64_t x = w->noise_state;

    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    w->noise_state = x;
    return ((double)(x >> 11) / 4503599627370496.0 - 1) * w->config.noise;
}

double world_adc(struct world *w, int pin, int64_t ns, bool with_noise)
{
    const struct pin *q = &w->pins->at[pin];
    double v = q->value;

    for (int i = 0; !q->forced && i < w->nozzle_n; i++)
        if (w->nozzles[i].adc.pin == pin) v = nozzle_level(&w->nozzles[i], ns);
    if (with_noise && w->config.noise > 0) v += noise(w);
    return v < 0 ? 0 : v > 1 ? 1 : v;
}

/* ---- parts ---- */

void world_parts_changed(struct world *w)
{
    double top = 0, held = 0;

    for (int i = 0; i < w->board_n; i++) top = fmax(top, w->boards[i].z);
    for (int i = 0; i < w->part_n; i++)
        if (is_down(&w->parts[i])) top = fmax(top, w->parts[i].at.z);
    for (int i = 0; i < w->nozzle_n; i++)
        if (w->nozzles[i].held >= 0) held = fmax(held, w->parts[w->nozzles[i].held].thick);
    w->clear_z = top + held + w->config.stick_dz + refuse_mm + 0.1;
}

int world_part_new(struct world *w, const struct part *p)
{
    for (int i = 0; i < w->part_n; i++) {
        if (w->parts[i].state != PART_REMOVED) continue;
        w->parts[i] = *p;
        world_parts_changed(w);
        return i;
    }
    if (w->part_n == w->part_cap) {
        int cap = w->part_cap ? w->part_cap * 2 : 256;
        struct part *more = cap > PARTS_MAX ? NULL : realloc(w->parts, (size_t)cap * sizeof *more);
        if (!more) return -1;
        w->parts = more;
        w->part_cap = cap;
    }
    w->parts[w->part_n] = *p;
    world_parts_changed(w);
    return w->part_n++;
}

static int nearest_part(const struct world *w, struct point tip)
{
    double best = w->config.stick_radius + 1e-9;
    int found = -1;

    for (int i = 0; i < w->part_n; i++) {
        const struct part *p = &w->parts[i];
        double d;
        if (!is_down(p) || fabs(tip.z - p->at.z) > w->config.stick_dz + 1e-9) continue;
        d = hypot(tip.x - p->at.x, tip.y - p->at.y);
        if (d <= best) best = d, found = i;
    }
    return found;
}

static void hold(struct world *w, int ni, int pi, struct point tip, struct when at)
{
    struct nozzle *n = &w->nozzles[ni];
    struct part *p = &w->parts[pi];
    double dx = p->at.x - tip.x, dy = p->at.y - tip.y;
    const char *from = p->state == PART_POCKET ? w->feeders[p->feeder].name : "";

    turn(dx, dy, -nozzle_rot(n), &n->hold_x, &n->hold_y);
    n->hold_rot = p->rot - nozzle_rot(n);
    n->held = pi;
    p->state = PART_HELD;
    p->nozzle = ni;
    p->picks++;
    p->changed_ns = at.ns;
    w->sticks++;
    log_event(w->log, at, "stick",
        ",\"part\":\"%s\",\"nozzle\":\"%s\",\"x\":%.6f,\"y\":%.6f,\"z\":%.6f,\"rot\":%.6f,\"dx\":%.6f,\"dy\":%.6f,"
        "\"feeder\":\"%s\"",
        p->id, n->name, p->at.x, p->at.y, p->at.z, wrap_deg(p->rot), dx, dy, from);
    world_parts_changed(w);
    update_target(w, n, at);
}

static void try_stick(struct world *w, int ni, struct point tip, struct when at)
{
    struct nozzle *n = &w->nozzles[ni];
    int pi;

    if (!n->vacuum || n->held >= 0 || n->refused) return;
    pi = nearest_part(w, tip);
    if (pi < 0) return;
    if (!w->no_stick) {
        hold(w, ni, pi, tip, at);
        return;
    }
    w->no_stick--;
    n->refused = true;
    n->refused_z = w->parts[pi].at.z;
    log_event(w->log, at, "no_stick", ",\"part\":\"%s\",\"nozzle\":\"%s\"", w->parts[pi].id, n->name);
}

/* The height that a part would lie on here. */
static double ground(const struct world *w, struct point p)
{
    const struct board *b = board_at(w, p.x, p.y);

    for (int i = 0; i < w->feeder_n; i++)
        if (near_xy(p, w->feeders[i].at, w->config.stick_radius)) return w->feeders[i].at.z - w->feeders[i].thick;
    return b ? b->z : 0;
}

static void drop(struct world *w, struct nozzle *n, struct when at)
{
    struct part *p = &w->parts[n->held];
    struct point where;
    double rot, base;

    part_pose(w, p, &where, &rot);
    base = ground(w, where);
    p->at = where;
    p->rot = rot;
    p->drop_z = where.z;
    p->drop_mm = where.z - p->thick - base;
    p->fell = p->drop_mm > fall_mm;
    if (p->fell) p->at.z = base + p->thick;
    p->state = PART_LYING;
    p->nozzle = -1;
    p->drops++;
    p->changed_ns = at.ns;
    n->held = -1;
    w->drops++;
    log_event(w->log, at, "drop", ",\"part\":\"%s\",\"nozzle\":\"%s\",\"x\":%.6f,\"y\":%.6f,\"z\":%.6f,\"rot\":%.6f,\"drop_mm\":%.6f,\"fell\":%s", p->id,
        n->name, p->at.x, p->at.y, p->at.z, p->rot, p->drop_mm, p->fell ? "true" : "false");
    world_parts_changed(w);
}

/* ---- contact ---- */

/* What the nozzle runs into, or NULL. */
static const char *crash_on(const struct world *w, const struct nozzle *n, struct point tip)
{
    const struct board *b = board_at(w, tip.x, tip.y);
    double surface = b ? b->z : 0;

    if (tip.z < surface - touch_mm || (n->held >= 0 && tip.z - w->parts[n->held].thick < surface - w->config.press - 1e-9)) return b ? b->name : "table";
    for (int i = 0; i < w->part_n; i++) {
        const struct part *p = &w->parts[i];
        if (is_down(p) && tip.z < p->at.z - w->config.press - 1e-9 && near_xy(tip, p->at, w->config.tip_radius)) return p->id;
    }
    return NULL;
}

static void nozzle_moved(struct world *w, int ni, struct when at)
{
    struct nozzle *n = &w->nozzles[ni];
    struct point tip = nozzle_tip(w, n);
    const char *on;

    if (n->refused && tip.z > n->refused_z + refuse_mm) n->refused = false;
    if (tip.z > w->clear_z) {
        n->crashed = false;
        return;
    }
    try_stick(w, ni, tip, at);
    on = crash_on(w, n, tip);
    if (on && !n->crashed) {
        w->crashes++;
        log_event(w->log, at, "crash", ",\"thing\":\"%s\",\"on\":\"%s\",\"x\":%.6f,\"y\":%.6f,\"z\":%.6f", n->name, on, tip.x, tip.y, tip.z);
    }
    n->crashed = on != NULL;
}

/* ---- steps ---- */

static void axis_moved(struct world *w, int ai, struct when at)
{
    struct axis *a = &w->axes[ai];
    double mm = axis_mm(a);

    if (a->limit.pin != PIN_NONE && !w->pins->at[a->limit.pin].forced) {
        bool hit = a->limit_ge ? mm >= a->limit_at - 1e-9 : mm <= a->limit_at + 1e-9;
        pin_set(w->pins, a->limit.pin, hit != a->limit.inverted, at);
    }
    for (int i = 0; i < w->nozzle_n; i++)
        if (ai == w->x_axis || ai == w->y_axis || ai == w->nozzles[i].axis) nozzle_moved(w, i, at);
}

static void axis_step(struct world *w, int ai, int sign, struct when at)
{
    struct axis *a = &w->axes[ai];
    double stop;

    a->n += sign;
    if (axis_mm(a) >= a->min - 1e-9 && axis_mm(a) <= a->max + 1e-9) {
        a->at_stop = false;
    } else {
        stop = sign * a->mm_per_step > 0 ? a->max : a->min;
        a->base_mm = stop - (double)a->n * a->mm_per_step;
        if (!a->at_stop) {
            w->crashes++;
            log_event(w->log, at, "crash", ",\"thing\":\"%s\",\"on\":\"%s\",\"mm\":%.6f", a->name, sign * a->mm_per_step > 0 ? "max" : "min", stop);
        }
        a->at_stop = true;
    }
    axis_moved(w, ai, at);
}

/* The tape goes on by one pitch. */
static void feed(struct world *w, int fi, struct when at)
{
    struct feeder *f = &w->feeders[fi];
    struct part p = {.state = PART_POCKET, .at = f->at, .rot = f->rot, .thick = f->thick, .nozzle = -1, .feeder = fi, .changed_ns = at.ns};

    for (int i = 0; i < w->part_n; i++) {
        struct part *q = &w->parts[i];
        if (!is_down(q) || !near_xy(q->at, f->at, w->config.stick_radius)) continue;
        q->state = PART_LOST;
        q->changed_ns = at.ns;
        f->lost++;
        log_event(w->log, at, "lost", ",\"feeder\":\"%s\",\"part\":\"%s\"", f->name, q->id);
    }
    if (f->left > 0) {
        snprintf(p.id, sizeof p.id, "%.20s-%u", f->prefix, f->made + 1);
        if (world_part_new(w, &p) >= 0) f->left--, f->fed++, f->made++;
    }
    log_event(w->log, at, "feed", ",\"feeder\":\"%s\",\"part\":\"%s\",\"left\":%d", f->name, p.id, f->left);
    world_parts_changed(w);
}

static void feeder_step(struct world *w, int fi, int sign, struct when at)
{
    struct feeder *f = &w->feeders[fi];

    f->n += sign;
    while ((double)f->n * f->mm_per_step >= (double)(f->pitches + 1) * f->pitch - 1e-6) {
        f->pitches++;
        feed(w, fi, at);
    }
}

void world_step(struct world *w, int step_pin, bool dir, struct when at)
{
    const struct drive *d = &w->drives[step_pin];
    int sign = dir != d->inverted ? 1 : -1;

    if (d->kind == DRIVE_AXIS)
        axis_step(w, d->index, sign, at);
    else if (d->kind == DRIVE_FEEDER)
        feeder_step(w, d->index, sign, at);
    else if (d->kind == DRIVE_ROTATION)
        w->nozzles[d->index].rot_n += sign;
}

void world_pin_changed(struct world *w, int pin, struct when at)
{
    for (int i = 0; i < w->nozzle_n; i++) {
        struct nozzle *n = &w->nozzles[i];
        bool on;
        if (n->pump.pin != pin && n->valve.pin != pin) continue;
        on = pin_is_on(w->pins, n->pump) && pin_is_on(w->pins, n->valve);
        if (on == n->vacuum) continue;
        n->vacuum = on;
        n->refused = false;
        if (!on && n->held >= 0) drop(w, n, at);
        update_target(w, n, at);
        if (on) try_stick(w, i, nozzle_tip(w, n), at);
    }
}

/* ---- by hand ---- */

void world_place_axis(struct world *w, int axis, double mm, struct when at)
{
    struct axis *a = &w->axes[axis];

    a->base_mm = mm - (double)a->n * a->mm_per_step;
    a->at_stop = false;
    axis_moved(w, axis, at);
}

void world_set_leak(struct world *w, int nozzle, bool leak, struct when at)
{
    w->nozzles[nozzle].leak = leak;
    update_target(w, &w->nozzles[nozzle], at);
}

int world_remove_parts(struct world *w, double x0, double y0, double x1, double y1, struct when at)
{
    int removed = 0;

    for (int i = 0; i < w->part_n; i++) {
        struct part *p = &w->parts[i];
        if (!is_down(p) || p->at.x < x0 || p->at.x > x1 || p->at.y < y0 || p->at.y > y1) continue;
        p->state = PART_REMOVED;
        log_event(w->log, at, "removed", ",\"part\":\"%s\"", p->id);
        removed++;
    }
    world_parts_changed(w);
    return removed;
}

void world_start(struct world *w, struct when at)
{
    w->noise_state = (uint64_t)w->config.seed * 2654435761u + 88172645463325252u;
    for (int i = 0; i < w->button_n; i++) w->pins->at[w->buttons[i].pin.pin].value = (w->buttons[i].state > 0.5) != w->buttons[i].pin.inverted;
    for (int i = 0; i < w->adc_n; i++) w->pins->at[w->adcs[i].pin.pin].value = w->adcs[i].state;
    for (int i = 0; i < w->nozzle_n; i++) {
        struct nozzle *n = &w->nozzles[i];
        n->vacuum = pin_is_on(w->pins, n->pump) && pin_is_on(w->pins, n->valve);
        n->target = n->level_from = n->levels[LEVEL_OFF];
        update_target(w, n, at);
    }
    world_parts_changed(w);
    for (int i = 0; i < w->axis_n; i++) axis_moved(w, i, at);
}

void world_init(struct world *w, struct log *log, struct pins *pins)
{
    memset(w, 0, sizeof *w);
    w->log = log, w->pins = pins;
    w->x_axis = w->y_axis = -1;
    w->config = (struct world_config){.stick_dz = 0.2, .stick_radius = 1.5, .press = 0.2, .tip_radius = 0.5, .seed = 1};
}

void world_fini(struct world *w)
{
    free(w->parts);
    w->parts = NULL;
}
