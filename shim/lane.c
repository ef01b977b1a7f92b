/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The motion lane, for app. Invariant: at most one script of ours is unanswered, and no script is ever sent twice. */
#include "lane_priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop.h"

#define FOREIGN_MM 0.001 /* a toolhead further than this from where we left it was moved by somebody else */
#define ASK_AGAIN_MS 20  /* a written pin has not been seen yet */
#define CONFIRM_MS 5000  /* deadline of the question after a script that waited */

void lane_wake(struct lane *n)
{
    if (n->wait != IDLE || (!n->head && !n->restore_owed && !lane_ramp_due(n) && kp_machine_joining(n->machine) < 0))
        return;
    n->wait = NEXT_TURN;
    loop_timer_set(n->turn, 0);
}

/* ---- the end of a job ---- */

static struct lane_job *pop(struct lane *n)
{
    struct lane_job *j = n->head;
    n->head = j->next;
    if (!n->head)
        n->tail = NULL;
    n->size--;
    return j;
}

static void job_free(struct lane_job *j)
{
    kp_seq_free(j->seq);
    free(j->port);
    free(j);
}

void lane_job_tell(struct lane_job *j, const struct kp_faults *f)
{
    struct lane_outcome o = { .faults = f, .seq = j->seq, .step = j->step, .klipper = j->klipper, .console = lane_port_answer(j), .sent = j->sent > 0,
                              .seconds = j->began_ms == LANE_NEVER ? 0 : (double)(loop_now_ms() - j->began_ms) / 1000 };
    if (j->done)
        j->done(j->user, &o);
    job_free(j);
}

void lane_job_end(struct lane *n, const struct kp_faults *f)
{
    struct lane_job *j = pop(n);
    n->running = false;
    n->wait = IDLE;
    lane_job_tell(j, f);
    lane_wake(n);
}

/* A ramp gives the lane back until its next step. */
static void put_aside(struct lane *n)
{
    n->running = false;
    n->wait = IDLE;
    lane_ramp_aside(n, pop(n), n->action.after_ms);
    lane_wake(n);
}

void lane_job_fail(struct lane *n, const struct kp_error *e)
{
    struct kp_faults f = { .count = 0 };
    kp_faults_add(&f, e);
    lane_job_end(n, &f);
}

void lane_head_fail(struct lane *n, const struct kp_error *e)
{
    n->wait = IDLE;
    if (n->head)
        lane_job_fail(n, e);
}

/* ---- scripts ---- */

void lane_send(struct lane *n, const char *text, enum wait wait, mr_done *done)
{
    struct kp_error e;
    if (lane_script_send(n, text, wait, done))
        return;
    kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
    lane_head_fail(n, &e);
}

static void step(struct lane *n, enum kp_event ev, double value, const struct kp_error *e);

void lane_wait_for_push(struct lane *n, enum wait wait, int64_t in_ms)
{
    n->wait = wait;
    if (n->waits)
        n->waits(n->waits_user, in_ms);
}

static void away(struct lane *n);

/* Klipper is not ready any more; the mirror knows why, or is about to tell it by lane_changed. */
static void await_away(struct lane *n)
{
    if (kp_machine_klippy_state(n->machine) == KP_KLIPPY_READY)
        n->wait = CONFIRM;
    else
        away(n);
}

/* A shutdown ends M400 early and Klipper answers ok to it (tried), so "done" is believed only of a Klipper that is still ready afterwards. */
static void on_confirmed(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct kp_error e;
    const char *state = r->outcome == MR_OK ? json_string_value(json_object_get(r->result, "state")) : NULL;
    n->call = 0;
    if (state && !strcmp(state, "ready"))
        step(n, KP_EV_OK, 0, NULL);
    else if (r->outcome == MR_OK)
        await_away(n);
    else {
        kp_error_set(&e, KP_OUTCOME_UNKNOWN, NULL, "Klipper accepted the command and went away: it may have run");
        step(n, KP_EV_ERROR, 0, &e);
    }
}

static void on_script(void *user, const struct mr_reply *r)
{
    struct lane *n = user;
    struct kp_error e;
    if (r->outcome == MR_NOT_SENT || r->outcome == MR_OPEN)
        n->head->sent--;
    if (!lane_script_answered(n, r, &e)) {
        snprintf(n->head->klipper, sizeof n->head->klipper, "%s", r->outcome == MR_ERROR && r->message ? r->message : "");
        if (lane_script_shut_down(r)) {
            await_away(n);
            return;
        }
        step(n, KP_EV_ERROR, 0, &e);
        if (n->wait == SETTLE)
            lane_script_unmet(n);
        return;
    }
    lane_script_noted(n, n->head->seq);
    if (!lane_script_has(n, "M400")) {
        step(n, KP_EV_OK, 0, NULL);
        return;
    }
    n->wait = CONFIRM;
    n->call = mr_call(n->mr, "printer.info", NULL, CONFIRM_MS, on_confirmed, n);
    if (!n->call)
        away(n);
}

/* ---- the running sequence ---- */

static void step(struct lane *n, enum kp_event ev, double value, const struct kp_error *e)
{
    struct lane_job *j = n->head;
    kp_seq_step(j->seq, ev, value, e, &n->action);
    n->action_ms = loop_now_ms();
    if (n->action.kind != KP_ACT_DONE && n->action.step)
        snprintf(j->step, sizeof j->step, "%s", n->action.step);
    switch (n->action.kind) {
    case KP_ACT_SCRIPT:
        j->sent++;
        lane_send(n, n->action.text, SCRIPT, on_script);
        return;
    case KP_ACT_SAMPLE: lane_wait_for_push(n, SAMPLE, kp_machine_sensor(n->machine, (size_t)n->action.sensor)->report_ms); return;
    case KP_ACT_SETTLE: lane_wait_for_push(n, SETTLE, LANE_ASK_MS); return;
    case KP_ACT_DELAY: put_aside(n); return;
    case KP_ACT_DONE: lane_job_end(n, &(struct kp_faults){ .count = 0 }); return;
    case KP_ACT_FAIL: lane_job_fail(n, &n->action.error); return;
    }
}

/* Somebody else moved the toolhead between two scripts of the sequence. */
static bool foreign_move(struct lane *n, struct kp_error *e)
{
    double want[3], is[3];
    if (!kp_seq_expected(n->head->seq, want) || !kp_machine_commanded(n->machine, is))
        return false;
    for (int i = 0; i < 3; i++)
        if (!isnan(want[i]) && fabs(want[i] - is[i]) > FOREIGN_MM) {
            kp_error_set(e, KP_INTERLOCK, NULL, "somebody else moved the machine during this command");
            e->got = is[i];
            return true;
        }
    return false;
}

static bool writes_seen(struct lane *n)
{
    size_t count;
    const struct kp_pin_write *w = kp_seq_writes(n->head->seq, &count);
    for (size_t i = 0; i < count; i++)
        if (kp_machine_pin(n->machine, (size_t)w[i].pin)->dirty)
            return false;
    return true;
}

static void sample(struct lane *n)
{
    const struct kp_sensor *s = kp_machine_sensor(n->machine, (size_t)n->action.sensor);
    struct kp_error e;
    if (kp_machine_pushed_ms(n->machine) < n->action_ms + s->report_ms)
        return;
    if (foreign_move(n, &e)) {
        step(n, KP_EV_ERROR, 0, &e);
        return;
    }
    kp_error_set(&e, KP_VACUUM_FAILED, NULL, "has a fault (%s)", s->fault);
    step(n, KP_EV_SAMPLE, s->known ? s->value : NAN, s->fault[0] ? &e : NULL);
}

/* ---- the start of a job ---- */

bool lane_covered(const struct lane *n)
{
    return kp_machine_pushed_ms(n->machine) > n->answered_ms;
}

static void plan(struct lane *n)
{
    struct lane_job *j = n->head;
    struct kp_faults f = { .count = 0 };
    if (!j->done) { /* its caller left before anything was sent */
        lane_job_end(n, &f);
        return;
    }
    if (j->port) {
        lane_port_send(n);
        return;
    }
    bool flush = n->unflushed_ms != LANE_NEVER && loop_now_ms() - n->unflushed_ms >= LANE_FLUSH_MS;
    if (kp_safety_gate(n->machine, &j->call, &f) != KP_OK || kp_seq_plan(&j->seq, n->machine, &j->call, flush, &f) != KP_OK) {
        lane_job_end(n, &f);
        return;
    }
    step(n, KP_EV_START, 0, NULL);
}

/* Where the head is, is known well enough for this call. Relative distances count from there, whoever moved it: that takes Klipper's own word. */
static bool placed(const struct lane *n, const struct kp_call *call)
{
    bool relative = call->command->id == KP_MOVE && kp_call_slot(call, "relative")->flag;
    return kp_machine_pushed_ms(n->machine) > n->moved_ms || (!relative && kp_machine_left(n->machine));
}

static bool plans(struct lane *n, struct kp_faults *f)
{
    struct kp_seq *s = NULL;
    bool ok = kp_seq_plan(&s, n->machine, &n->head->call, false, f) == KP_OK;
    kp_seq_free(s);
    return ok;
}

void lane_advance(struct lane *n)
{
    struct lane_job *j = n->head;
    struct kp_faults f = { .count = 0 };
    if (!j) {
        n->wait = IDLE;
        return;
    }
    if (!n->running) {
        n->running = true;
        j->began_ms = loop_now_ms();
    }
    if (kp_safety_gate(n->machine, &j->call, &f) != KP_OK)
        lane_job_end(n, &f);
    else if (kp_call_needs_position(n->machine, &j->call) && !placed(n, &j->call))
        lane_wait_for_push(n, PLAN_PUSH, LANE_ASK_MS);
    else if ((n->restore_owed || n->neutral_owed) && !plans(n, &f))
        lane_job_end(n, &f); /* what is refused sends nothing, not even a script of ours */
    else if (n->restore_owed)
        lane_own_restore(n);
    else if (kp_machine_joining(n->machine) >= 0)
        lane_own_join(n); /* before the neutral state, which Klipper saves with the axes that it has */
    else if (n->neutral_owed)
        lane_own_neutral(n);
    else
        plan(n);
}

/* A ramp has the lane for one step. */
static void ramp_step(struct lane *n, struct lane_job *j)
{
    struct kp_faults f = { .count = 0 };
    lane_ramp_back(n, j);
    j->next = n->head;
    n->head = j;
    n->tail = n->tail ? n->tail : j;
    n->size++;
    n->running = true;
    if (kp_safety_gate(n->machine, &j->call, &f) != KP_OK)
        step(n, KP_EV_ERROR, 0, &f.item[0]);
    else
        step(n, KP_EV_TIME, (double)(loop_now_ms() - j->first_ms), NULL);
}

static void on_ramps(void *user)
{
    lane_wake(user);
}

static void on_turn(void *user)
{
    struct lane *n = user;
    struct lane_job *due;
    if (n->wait != NEXT_TURN)
        return;
    if (n->restore_owed && kp_machine_klippy_state(n->machine) == KP_KLIPPY_READY && !kp_safety_latched(n->machine))
        lane_own_restore(n); /* also when no command follows: the state is everybody's */
    else if ((due = lane_ramp_due(n)))
        ramp_step(n, due);
    else if (kp_machine_joining(n->machine) >= 0)
        lane_own_join(n);
    else
        lane_advance(n);
}

/* ---- for app ---- */

void lane_on_wait(struct lane *n, lane_waits *waits, void *user)
{
    n->waits = waits, n->waits_user = user;
}

struct lane *lane_new(struct loop *l, struct mr *mr, struct kp_machine *m)
{
    struct lane *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->loop = l, n->mr = mr, n->machine = m;
    n->unflushed_ms = n->answered_ms = n->moved_ms = LANE_NEVER;
    n->neutral_owed = true;
    if ((n->turn = loop_timer_new(l, on_turn, n)) && (n->ramps = loop_timer_new(l, on_ramps, n)))
        return n;
    lane_free(n);
    return NULL;
}

void lane_free(struct lane *n)
{
    if (!n)
        return;
    mr_forget(n->mr, n->call);
    while (n->head) {
        job_free(pop(n));
    }
    for (struct lane_job *j; (j = n->beside);) {
        lane_ramp_back(n, j);
        job_free(j);
    }
    loop_timer_free(n->turn);
    loop_timer_free(n->ramps);
    free(n);
}

/* A fault that no command before it in the lane can mend is told at once; the rest is for the plan at its start. */
static bool wrong_now(struct lane *n, const struct kp_call *call, struct kp_faults *f)
{
    struct kp_faults now = { .count = 0 };
    struct kp_seq *s = NULL;
    if (kp_call_needs_position(n->machine, call) || kp_seq_plan(&s, n->machine, call, false, &now) == KP_OK) {
        kp_seq_free(s);
        return false;
    }
    int status = kp_err_status(kp_faults_code(&now));
    if (kp_faults_code(&now) == KP_HOMING_REQUIRED || (status != 400 && status != 404))
        return false;
    *f = now;
    return true;
}

struct lane_job *lane_job_add(struct lane *n, const struct kp_call *call, lane_done *done, void *user, struct kp_faults *f)
{
    struct kp_error e;
    struct lane_job *j = n->size < LANE_WAITING_MAX ? calloc(1, sizeof *j) : NULL;
    if (!j) {
        if (n->size >= LANE_WAITING_MAX)
            kp_error_set(&e, KP_QUEUE_FULL, NULL, "%d commands wait for the machine already", LANE_WAITING_MAX);
        else
            kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
        kp_faults_add(f, &e);
        return NULL;
    }
    j->call = *call, j->done = done, j->user = user, j->began_ms = j->first_ms = LANE_NEVER;
    if (n->tail)
        n->tail->next = j;
    else
        n->head = j;
    n->tail = j;
    n->size++;
    lane_wake(n);
    return j;
}

/* A feeder that is a macro may do anything; one may share its motor with an axis. */
static bool feeder_may_move(const struct kp_machine *m, const struct kp_call *call)
{
    int index = kp_call_slot(call, "feeder")->index;
    const struct kp_feeder *f = index < 0 ? NULL : kp_machine_feeder(m, (size_t)index);
    const struct kp_axis *a;
    bool shared = false;
    for (size_t i = 3; f && (a = kp_machine_axis(m, i)); i++)
        shared = shared || !strcmp(a->stepper, f->stepper);
    return f && (f->macro[0] || shared);
}

/* The head or an extra axis. */
static bool may_move(const struct kp_machine *m, const struct kp_call *call)
{
    const struct kp_command *c = call->command;
    if (c->id == KP_FEEDER_ADVANCE || c->id == KP_FEEDER_RETRACT)
        return feeder_may_move(m, call);
    return c->flags & (KP_NEEDS_HOMED | KP_NEEDS_POSITION);
}

struct lane_job *lane_submit(struct lane *n, const struct kp_call *call, lane_done *done, void *user, struct kp_faults *f)
{
    if (n->size < LANE_WAITING_MAX && n->head && wrong_now(n, call, f))
        return NULL;
    struct lane_job *j = lane_job_add(n, call, done, user, f);
    n->movers += j && may_move(n->machine, call);
    return j;
}

/* Takes a job that has not begun out of the list. */
static void job_drop(struct lane *n, struct lane_job *job)
{
    struct lane_job **at = &n->head, *before = NULL;
    while (*at != job) {
        before = *at;
        at = &before->next;
    }
    *at = job->next;
    if (n->tail == job)
        n->tail = before;
    n->size--;
    job_free(job);
}

bool lane_leave(struct lane *n, struct lane_job *job)
{
    job->done = NULL;
    if ((job == n->head && n->running) || lane_ramp_has(n, job))
        return job->seq != NULL;
    job_drop(n, job);
    return false;
}

bool lane_take_back(struct lane *n, struct lane_job *job)
{
    if (job == n->head && n->running)
        return false;
    job_drop(n, job);
    return true;
}

void lane_stop(struct lane *n)
{
    struct kp_error e;
    mr_forget(n->mr, n->call);
    n->call = 0;
    n->unflushed_ms = LANE_NEVER;
    while (n->head) {
        if (n->running)
            kp_error_set(&e, KP_EMERGENCY_STOP_ACTIVE, NULL, "the machine was stopped: %s", kp_safety_reason(n->machine));
        else
            kp_error_set(&e, KP_CANCELLED, NULL, "not begun: the machine was stopped: %s", kp_safety_reason(n->machine));
        lane_job_fail(n, &e);
    }
    n->wait = IDLE;
    loop_timer_cancel(n->turn);
    kp_error_set(&e, KP_EMERGENCY_STOP_ACTIVE, NULL, "the machine was stopped: %s", kp_safety_reason(n->machine));
    lane_ramp_end(n, &e);
}

uint64_t lane_movers(const struct lane *n)
{
    return n->movers;
}

size_t lane_size(const struct lane *n)
{
    return n->size;
}

const char *lane_running(const struct lane *n)
{
    return n->running ? n->head->call.command->name : NULL;
}

/* ---- from the mirror ---- */

void lane_pushed(struct lane *n)
{
    struct kp_error e;
    if (!n->call && lane_covered(n))
        kp_machine_axes_check(n->machine);
    lane_wake(n); /* an axis may wait to be joined: a stop was released, a file has ended, somebody let go of it */
    switch (n->wait) {
    case SAMPLE: sample(n); break;
    case SETTLE:
        if (!lane_covered(n) || !writes_seen(n)) {
            lane_wait_for_push(n, SETTLE, ASK_AGAIN_MS);
            break;
        }
        if (foreign_move(n, &e))
            step(n, KP_EV_ERROR, 0, &e);
        else
            step(n, KP_EV_OK, 0, NULL);
        break;
    case PLAN_PUSH: lane_advance(n); break;
    case NEUTRAL_PUSH: lane_own_neutral_pushed(n); break;
    case JOIN_PUSH: lane_own_join_pushed(n); break;
    default: break;
    }
}

static void away_error(const struct lane *n, struct kp_error *e)
{
    if (kp_safety_latched(n->machine))
        kp_error_set(e, KP_EMERGENCY_STOP_ACTIVE, NULL, "the machine was stopped: %s", kp_safety_reason(n->machine));
    else
        kp_error_set(e, KP_KLIPPY_DISCONNECTED, NULL, "Klipper is not ready: %s", kp_klippy_name(kp_machine_klippy_state(n->machine)));
}

/* Klipper is not ready any more: ends what runs. */
static void away(struct lane *n)
{
    struct kp_error e;
    mr_forget(n->mr, n->call);
    n->call = 0;
    away_error(n, &e);
    if (n->running && n->head->seq)
        step(n, KP_EV_ERROR, 0, &e);
    else
        lane_head_fail(n, &e);
}

/* Klipper left "ready": what waited for a push of it will never come, and a script that it drops in a shutdown may never be answered. */
void lane_changed(struct lane *n)
{
    struct kp_error e;
    if (kp_machine_klippy_state(n->machine) == KP_KLIPPY_READY) {
        lane_wake(n);
        return;
    }
    away_error(n, &e);
    lane_ramp_end(n, &e);
    n->neutral_owed = true;
    n->unflushed_ms = LANE_NEVER;
    /* A restore stays owed: it may be the same Klipper that comes back, and one that never saved the state says so. */
    if (n->call && n->wait != CONFIRM && kp_machine_klippy_state(n->machine) != KP_KLIPPY_SHUTDOWN)
        return; /* Moonraker answers what is in flight when Klipper or the connection goes */
    if (n->running || n->call)
        away(n);
    else if (n->wait == JOIN_PUSH)
        n->wait = IDLE;
}

void lane_console(struct lane *n, const char *line)
{
    lane_script_console(n, line);
    lane_port_console(n, line);
}
