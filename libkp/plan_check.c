/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Vacuum levels that Klipper looks at inside a script, by PNP_WAIT of the extra [klipperplace], for plan_pnp.c; and what it says of them, for sequence.c.
 * Invariant: a script goes on behind a check only when the level was there, in a sample taken after everything before the check had been done. */
#include "plan.h"

#include <math.h>
#include <string.h>

#define WORD "PNP_WAIT"
#define SAYS WORD ": "
#define KIND "pnp_sensor "
#define RAW_MAX 1e9     /* of a level in the sensor's own unit: past this it loses decimals */
#define REPORTS 3       /* for so many samples, and LATE_S more, the level is waited for: a first one comes even from a busy machine */
#define LATE_S 0.25

/* A level in the unit of the sensor itself; NAN: it cannot be told there. */
static double raw_of(double level, double scale, double offset)
{
    double raw = plan_round((level - offset) / scale);
    return fabs(raw) < RAW_MAX ? raw : NAN;
}

bool plan_inside(struct plan *p, const struct kp_nozzle *n)
{
    const struct kp_sensor *sensor = n->sensor < 0 ? NULL : kp_machine_sensor(p->m, (size_t)n->sensor);
    if (!sensor || strncmp(sensor->object, KIND, sizeof KIND - 1) != 0 || strcmp(sensor->field, "value") != 0)
        return false;
    struct kp_str name = kp_str_of(sensor->object + sizeof KIND - 1);
    if (!kp_name_ok(name) || !kp_machine_has_command(p->m, kp_str_of(WORD)) || isnan(raw_of(n->part_on, sensor->scale, sensor->offset))
        || isnan(raw_of(n->part_off, sensor->scale, sensor->offset)))
        return false;
    memcpy(p->s->inside, name.p, name.n + 1);
    p->s->scale = sensor->scale, p->s->offset = sensor->offset;
    p->s->timeout_s = REPORTS * (double)sensor->report_ms / 1000 + LATE_S;
    return true;
}

/* Whether the sensor's own value must be at most so much: a scale below 0 turns the direction. */
static bool below(const struct kp_seq *s, const struct plan_step *level)
{
    return level->at_most == (s->scale > 0);
}

struct plan_step *plan_check(struct plan *p, const struct plan_step *level)
{
    struct plan_script *now = p->now;
    struct plan_check *c = &now->checks[now->check_count++];
    c->level = *level;
    c->write_count = now->write_count, c->axis_count = now->axis_count;
    memcpy(c->expected, now->expected, sizeof c->expected);
    tr_word(&now->text, WORD);
    tr_name(&now->text, "SENSOR=", p->s->inside);
    tr_number(&now->text, below(p->s, level) ? "BELOW=" : "ABOVE=", raw_of(level->level, p->s->scale, p->s->offset));
    tr_number(&now->text, "TIMEOUT=", p->s->timeout_s);
    return &c->level;
}

/* The number that begins there, as a level; NAN: none does. */
static double level_at(const struct kp_seq *s, const char *at)
{
    double v;
    return kp_number_parse((struct kp_str){ at, strcspn(at, " ") }, &v) ? v * s->scale + s->offset : NAN;
}

/* "PNP_WAIT: vac -70.000 kPa after 0.012 s"; an end: "PNP_WAIT: vac is -20.000 kPa, not below -40.000, after 0.310 s", or "PNP_WAIT: vac gave no sample, not
 * below -40.000, after 0.310 s", or the same of one that "has a fault (5.00 V is out of range)". */
bool plan_check_heard(struct kp_seq *s, const struct plan_script *script, const char *words, bool end)
{
    const char *at = script->check_count > 0 ? strstr(words, SAYS) : NULL;
    size_t n = strlen(s->inside);
    if (!at || strncmp(at + sizeof SAYS - 1, s->inside, n) != 0 || at[sizeof SAYS - 1 + n] != ' ')
        return false;
    at += sizeof SAYS + n;
    const char *wanted;
    for (size_t i = 0; end && i < script->check_count; i++)
        if ((wanted = strstr(at, below(s, &script->checks[i].level) ? ", not below " : ", not above "))) {
            s->unmet = (int)i;
            size_t said = (size_t)(wanted - at) < sizeof s->silent ? (size_t)(wanted - at) : sizeof s->silent - 1;
            memcpy(s->silent, at, said);
            s->silent[said] = 0;
            s->heard = strncmp(at, "is ", 3) == 0 ? level_at(s, at + 3) : NAN;
            return true;
        }
    double level = end ? NAN : level_at(s, at);
    if (!isnan(level))
        s->heard = level;
    return !isnan(level);
}
