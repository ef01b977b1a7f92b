/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A sequence: planned whole by the builder of its command, checked whole, then stepped by events for the shim's lane.
 * Invariant: kp_seq_plan gives a sequence only when nothing is wrong with any of its lines. */
#include "plan.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef void (*builder)(struct plan *p);

static const builder builders[KP_ID_COUNT] = {
    [KP_MOVE] = plan_move,
    [KP_HOME] = plan_home,
    [KP_WAIT] = plan_wait,
    [KP_PICK] = plan_pick,
    [KP_PLACE] = plan_place,
    [KP_PICK_AND_PLACE] = plan_pick_and_place,
    [KP_VACUUM_ON] = plan_vacuum_on,
    [KP_VACUUM_OFF] = plan_vacuum_off,
    [KP_VACUUM_SET] = plan_vacuum_set,
    [KP_GPIO_WRITE] = plan_gpio_write,
    [KP_ACTUATE] = plan_actuate,
    [KP_ACTUATOR_ON] = plan_actuator_on,
    [KP_ACTUATOR_OFF] = plan_actuator_off,
    [KP_FAN_ON] = plan_fan_on,
    [KP_FAN_OFF] = plan_fan_off,
    [KP_FAN_SET] = plan_fan_set,
    [KP_PWM_SET] = plan_pwm_set,
    [KP_PWM_RAMP] = plan_pwm_ramp,
    [KP_FEEDER_ADVANCE] = plan_feeder_advance,
    [KP_FEEDER_RETRACT] = plan_feeder_retract,
};

bool kp_call_needs_position(const struct kp_machine *m, const struct kp_call *call)
{
    if (!(call->command->flags & KP_NEEDS_POSITION))
        return false;
    bool interlock = kp_machine_limits(m)->travel_interlock;
    if (call->command->id == KP_MOVE) {
        bool crosses = kp_call_slot(call, "x")->set || kp_call_slot(call, "y")->set;
        bool straight = crosses || kp_call_slot(call, "z")->set;
        return (kp_call_slot(call, "relative")->flag && straight) || (interlock && crosses);
    }
    if (call->command->id == KP_HOME) {
        int z = kp_machine_find_axis(m, 'Z');
        unsigned axes = kp_call_slot(call, "axes")->axes;
        return interlock && axes != 0 && z >= 0 && !(axes >> z & 1u);
    }
    return true;
}

static const struct plan_script *script_at(const struct kp_seq *s, size_t i)
{
    return i < PLAN_SCRIPTS_MAX ? &s->scripts[i] : &s->more[i - PLAN_SCRIPTS_MAX];
}

/* The script sent last; NULL before the first. */
static const struct plan_script *last(const struct kp_seq *s)
{
    return s->last_script < 0 ? NULL : script_at(s, (size_t)s->last_script);
}

static bool word_before(const struct kp_seq *s, size_t script, size_t line, struct kp_str word)
{
    struct kp_str w;
    for (size_t i = 0; i <= script; i++)
        for (size_t j = 0; (i < script || j < line) && kp_script_word(script_at(s, i)->text.text, j, &w); j++)
            if (w.n == word.n && memcmp(w.p, word.p, w.n) == 0)
                return true;
    return false;
}

/* Every word that will be sent must be one of Klipper's: it answers an unknown one with ok. Each missing one is told once. */
static void check_words(struct plan *p)
{
    struct kp_str word;
    for (size_t i = 0; i < p->s->script_count; i++)
        for (size_t j = 0; kp_script_word(script_at(p->s, i)->text.text, j, &word); j++) {
            char name[KP_NAME_MAX] = "";
            if (kp_machine_has_command(p->m, word) || word_before(p->s, i, j, word))
                continue;
            memcpy(name, word.p, word.n < sizeof name ? word.n : sizeof name - 1);
            PLAN_FAULT(p, KP_EXECUTION_FAILED, NULL, "Klipper has no command %s", name);
        }
}

/* No broken script is sent. */
static void check_texts(struct plan *p)
{
    for (size_t i = 0; i < p->s->script_count; i++)
        switch (script_at(p->s, i)->text.fault) {
        case TR_OK:
            break;
        case TR_TOO_LONG:
            PLAN_FAULT(p, KP_INTERNAL_ERROR, NULL, "the script is longer than %d bytes", KP_SCRIPT_MAX - 1);
            break;
        case TR_NAME:
        case TR_NUMBER:
            if (p->f->count + p->f->dropped == p->faults_before) /* else that is what the fault is about */
                PLAN_FAULT(p, KP_INTERNAL_ERROR, NULL, "a name or number cannot be written in a script");
            break;
        }
}

static bool on_main_path(const struct kp_seq *s, size_t script)
{
    for (size_t i = 0; i < s->end; i++)
        if (s->steps[i].kind == KP_ACT_SCRIPT && s->steps[i].script == (int)script)
            return true;
    return false;
}

static bool room(const struct kp_seq *s, size_t n)
{
    return s->line_count < PLAN_LINES_MAX && s->line_used + n < sizeof s->line_text;
}

static void drop_line(struct kp_seq *s)
{
    size_t n = strlen(s->lines[0]) + 1;
    memmove(s->line_text, s->line_text + n, s->line_used - n);
    s->line_used -= n;
    s->line_count--;
    for (size_t i = 0; i < s->line_count; i++)
        s->lines[i] = s->lines[i + 1] - n;
}

/* Adds the lines of a script to those that the answer shows. Of too many tries the last ones stay: they say where the part was picked; of a ramp the first. */
static void list(struct kp_seq *s, const char *text)
{
    while (*text) {
        struct kp_str line = { text, strcspn(text, "\n") };
        text += line.n + (text[line.n] == '\n');
        if (tr_is_frame(line) || (s->ramp.pin != PLAN_NONE && !room(s, line.n)))
            continue;
        while (!room(s, line.n))
            drop_line(s);
        char *at = s->line_text + s->line_used;
        memcpy(at, line.p, line.n);
        at[line.n] = 0;
        s->lines[s->line_count++] = at;
        s->line_used += line.n + 1;
    }
}

/* The lines of the main path, as long as none has been given out. A ramp's steps are not known yet. */
static void list_lines(struct kp_seq *s)
{
    for (size_t i = 0; i < s->script_count; i++)
        if (on_main_path(s, i) && !(s->ramp.pin != PLAN_NONE && i > 0))
            list(s, script_at(s, i)->text.text);
}

/* Picks that go deeper each time have a script for each. */
static size_t more_scripts(const struct kp_machine *m, const struct kp_call *call)
{
    bool picks = call->command->id == KP_PICK || call->command->id == KP_PICK_AND_PLACE;
    return picks && kp_machine_limits(m)->retry_lower_mm > 0 ? PLAN_TRIES_MAX : 0;
}

enum kp_err kp_seq_plan(struct kp_seq **out, const struct kp_machine *m, const struct kp_call *call, bool flush, struct kp_faults *f)
{
    size_t more = more_scripts(m, call);
    struct kp_seq *s = calloc(1, sizeof *s + more * sizeof *s->more);
    struct plan p = { .m = m, .call = call, .f = f, .s = s, .flush = flush, .faults_before = f->count + f->dropped, .low = -INFINITY, .high = INFINITY };
    size_t id = (size_t)call->command->id;
    enum kp_err rc;
    assert(id < KP_ID_COUNT);
    if (!builders[id]) {
        free(s);
        PLAN_FAULT(&p, KP_INVALID_REQUEST, NULL, "%s is not offered by this build", call->command->name);
        return KP_INVALID_REQUEST;
    }
    if (!s) {
        PLAN_FAULT(&p, KP_INTERNAL_ERROR, NULL, "out of memory");
        return KP_INTERNAL_ERROR;
    }
    if (!kp_machine_commanded(m, p.told))
        p.told[0] = p.told[1] = p.told[2] = NAN;
    for (int i = 0; i < 3; i++)
        p.at[i] = kp_call_needs_position(m, call) ? p.told[i] : NAN;
    s->more = (struct plan_script *)(s + 1), s->more_room = more;
    s->last_script = s->ramp.pin = s->unmet = PLAN_NONE;
    builders[id](&p);
    if (s->end == 0)
        s->end = s->step_count;
    s->result.target[0] = s->result.target[1] = s->result.target[2] = NAN;
    check_texts(&p);
    check_words(&p);
    rc = f->count + f->dropped == p.faults_before ? KP_OK : f->item[p.faults_before < f->count ? p.faults_before : 0].code;
    if (rc != KP_OK)
        goto out;
    list_lines(s);
    *out = s, s = NULL;
out:
    kp_seq_free(s);
    return rc;
}

/* A fault of a call that check.c has refused already: worth telling beside those when it is about another parameter. */
static bool tell_too(const struct kp_call *call, const struct kp_faults *f, const struct kp_error *e)
{
    for (size_t i = 0; i < f->count; i++)
        if (strcmp(f->item[i].field, e->field) == 0)
            return false;
    if (e->code == KP_MISSING_PARAMETER)
        return call->command->id != KP_MOVE; /* the axis it misses may be the one at fault */
    return e->code == KP_POSITION_OUT_OF_BOUNDS || e->code == KP_FEEDRATE_OUT_OF_BOUNDS || e->code == KP_PWM_OUT_OF_BOUNDS
        || e->code == KP_FAN_SPEED_OUT_OF_BOUNDS || e->code == KP_HOMING_REQUIRED;
}

void plan_refused(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f)
{
    struct kp_faults more = { .count = 0 };
    struct kp_seq *s = NULL;
    for (size_t i = 0; i < f->count; i++) /* without these the other parameters mean something else */
        for (size_t j = 0; call->command->params[j].name; j++) {
            const struct kp_param *p = &call->command->params[j];
            if (strcmp(p->name, f->item[i].field) == 0 && (p->type == KP_P_BOOL || p->type >= KP_P_AXES))
                return;
        }
    bool unsure = kp_call_needs_position(m, call); /* of the position, which may be old by now */
    if (call->command->strategy != KP_GCODE || (unsure && call->command->id == KP_MOVE && kp_call_slot(call, "relative")->flag))
        return;
    kp_seq_plan(&s, m, call, false, &more);
    kp_seq_free(s);
    for (size_t i = 0; i < more.count; i++)
        if (!(unsure && more.item[i].code == KP_INTERLOCK) && tell_too(call, f, &more.item[i]))
            kp_faults_add(f, &more.item[i]);
}

void kp_seq_free(struct kp_seq *s)
{
    free(s);
}

static void fail(struct kp_seq *s, const struct kp_error *error, struct kp_action *out)
{
    out->kind = KP_ACT_FAIL;
    out->error = *error;
    s->result.completed = false;
}

/* What the step under way asks for; DONE or FAIL past the last of its path. */
static void ask(struct kp_seq *s, struct kp_action *out)
{
    if (s->failing && s->at == s->step_count) {
        out->step = s->failed_step;
        fail(s, &s->failure, out);
        return;
    }
    if (!s->failing && s->at == s->end) {
        out->kind = KP_ACT_DONE;
        return;
    }
    const struct plan_step *step = &s->steps[s->at];
    out->kind = step->kind;
    out->step = step->name;
    out->sensor = step->sensor;
    if (step->kind == KP_ACT_DELAY)
        out->after_ms = plan_ramp_next(s);
    if (step->kind == KP_ACT_SCRIPT) {
        s->last_script = step->script;
        s->unmet = PLAN_NONE;
        s->heard = NAN;
        out->text = last(s)->text.text;
        if (!isnan(last(s)->pick_z))
            s->result.pick[2] = last(s)->pick_z;
        list(s, out->text);
    }
}

static void vacuum_failure(struct kp_seq *s, const struct plan_step *step, double level)
{
    struct kp_error *e = &s->failure;
    const char *more = step->at_most ? "less" : "more";
    if (isnan(level))
        kp_error_set(e, KP_VACUUM_FAILED, "vacuum", "%s: nozzle %s shows no level, its sensor %s, wanted %g or %s", step->name, s->nozzle,
                     s->silent[0] ? s->silent : "gave no sample", step->level, more);
    else
        kp_error_set(e, KP_VACUUM_FAILED, "vacuum", "%s: nozzle %s %s, level %g %s, wanted %g or %s", step->name, s->nozzle,
                     step->held ? "holds no part" : "still holds the part", level, s->unit, step->level, more);
    e->got = level;
    e->min = step->at_most ? NAN : step->level;
    e->max = step->at_most ? step->level : NAN;
}

static void measured(struct kp_seq *s, double level)
{
    s->result.has_level = !isnan(level);
    s->result.level = level;
}

static void go_on(struct kp_seq *s)
{
    const struct plan_step *step = &s->steps[s->at];
    s->at = step->good == PLAN_NONE ? s->at + 1 : (size_t)step->good;
}

/* The level is not what this step wants: to another try, or to the way out. */
static void bad_level(struct kp_seq *s, const struct plan_step *step, double level)
{
    measured(s, level);
    if (step->again != PLAN_NONE && s->tries_left > 0) {
        s->tries_left--;
        s->result.attempts++;
        s->at = (size_t)step->again;
        return;
    }
    vacuum_failure(s, step, level);
    s->failing = true;
    s->failed_step = step->name;
    s->result.vacuum_enabled = false;
    s->at = step->way_out == PLAN_NONE ? s->step_count : (size_t)step->way_out;
}

static void judge(struct kp_seq *s, double level)
{
    const struct plan_step *step = &s->steps[s->at];
    if (!(step->at_most ? level <= step->level : level >= step->level)) {
        bad_level(s, step, level);
        return;
    }
    measured(s, level);
    go_on(s);
}

/* The check at which the last script ended; NULL: it did not end at one. */
static const struct plan_check *ended_at(const struct kp_seq *s)
{
    return s->unmet == PLAN_NONE ? NULL : &last(s)->checks[s->unmet];
}

bool kp_seq_expected(const struct kp_seq *s, double xyz[3])
{
    const struct plan_check *end = ended_at(s);
    const double *at = end ? end->expected : last(s) ? last(s)->expected : NULL;
    if (!at || (isnan(at[0]) && isnan(at[1]) && isnan(at[2])))
        return false;
    memcpy(xyz, at, 3 * sizeof *at);
    return true;
}

/* Takes the way out of a script that Klipper refused; false: it has none. */
static bool refused(struct kp_seq *s, const struct kp_error *error)
{
    const struct plan_step *step = &s->steps[s->at];
    if (s->failing || step->kind != KP_ACT_SCRIPT || step->way_out == PLAN_NONE || error->code != KP_EXECUTION_FAILED)
        return false;
    s->failing = true;
    s->failure = *error;
    s->failed_step = step->name;
    s->at = (size_t)step->way_out;
    return true;
}

/* A script ended because a level that it looks at was not there. Before anything follows, what it did is seen and that nobody else came in between. */
static bool unmet(struct kp_seq *s, const struct kp_error *error, struct kp_action *out)
{
    if (s->failing || s->steps[s->at].kind != KP_ACT_SCRIPT || s->unmet != PLAN_NONE || error->code != KP_EXECUTION_FAILED
        || !plan_check_heard(s, last(s), error->message, true))
        return false;
    out->kind = KP_ACT_SETTLE;
    out->step = ended_at(s)->level.name;
    return true;
}

/* The script that was accepted left the toolhead there. */
static void note_left(struct kp_seq *s)
{
    if (kp_seq_expected(s, s->result.target))
        s->result.moved = true;
}

/* A script, or what it left, is done. */
static void accepted(struct kp_seq *s)
{
    const struct plan_check *end = ended_at(s);
    note_left(s);
    if (end) {
        bad_level(s, &end->level, s->heard);
        return;
    }
    if (s->steps[s->at].kind == KP_ACT_SCRIPT && last(s)->check_count > 0)
        measured(s, s->heard);
    go_on(s);
    if (s->ramp.pin != PLAN_NONE && s->at == s->end && s->ramp.done < s->ramp.steps)
        s->at -= 2; /* to the delay before */
}

bool kp_seq_answers(enum kp_act act, enum kp_event ev)
{
    static const bool legal[KP_ACT_FAIL + 1][KP_EV_ERROR + 1] = {
        [KP_ACT_SCRIPT] = { [KP_EV_OK] = true, [KP_EV_ERROR] = true },
        [KP_ACT_SAMPLE] = { [KP_EV_SAMPLE] = true, [KP_EV_ERROR] = true },
        [KP_ACT_SETTLE] = { [KP_EV_OK] = true, [KP_EV_ERROR] = true },
        [KP_ACT_DELAY] = { [KP_EV_TIME] = true, [KP_EV_REPLACED] = true, [KP_EV_ERROR] = true },
    };
    return legal[act][ev];
}

void kp_seq_step(struct kp_seq *s, enum kp_event ev, double value, const struct kp_error *error, struct kp_action *out)
{
    const char *name = ended_at(s) ? ended_at(s)->level.name : s->at < s->step_count ? s->steps[s->at].name : "";
    *out = (struct kp_action){ .kind = KP_ACT_FAIL, .step = name, .sensor = PLAN_NONE };
    enum kp_act kind = s->at < s->step_count ? s->steps[s->at].kind : KP_ACT_DONE;
    assert(ev == KP_EV_START ? s->last_script == PLAN_NONE : kp_seq_answers(kind, ev));
    switch (ev) {
    case KP_EV_ERROR:
        assert(error);
        if (unmet(s, error, out))
            return;
        if (!refused(s, error)) {
            fail(s, error, out);
            return;
        }
        break;
    case KP_EV_START:
        s->at = 0;
        s->line_count = s->line_used = 0;
        break;
    case KP_EV_OK:
        accepted(s);
        break;
    case KP_EV_TIME:
        plan_ramp_write(s, value);
        s->at++;
        break;
    case KP_EV_REPLACED:
        s->result.replaced = true;
        s->at = s->end;
        break;
    case KP_EV_SAMPLE:
        s->silent[0] = 0;
        if (error)
            memcpy(s->silent, error->message, sizeof s->silent);
        judge(s, value);
        break;
    }
    ask(s, out);
}

void kp_seq_heard(struct kp_seq *s, const char *line)
{
    if (last(s))
        plan_check_heard(s, last(s), line, false);
}

int kp_seq_leads(const struct kp_seq *s)
{
    return s->ramp.pin;
}

const struct kp_result *kp_seq_result(const struct kp_seq *s)
{
    return &s->result;
}

const struct kp_pin_write *kp_seq_writes(const struct kp_seq *s, size_t *count)
{
    const struct plan_check *end = ended_at(s);
    *count = end ? end->write_count : last(s) ? last(s)->write_count : 0;
    return last(s) ? last(s)->writes : NULL;
}

const struct kp_axis_write *kp_seq_axis_writes(const struct kp_seq *s, size_t *count)
{
    const struct plan_check *end = ended_at(s);
    *count = end ? end->axis_count : last(s) ? last(s)->axis_count : 0;
    return last(s) ? last(s)->axes : NULL;
}

const char *kp_seq_gcode(const struct kp_seq *s, size_t i)
{
    return i < s->line_count ? s->lines[i] : NULL;
}
