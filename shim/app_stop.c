/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Emergency stop and reset, for app. Invariant: the latch is set before anything is sent, and goes only when Klipper is ready and the cause is gone. */
#include "app_priv.h"

#include "answer.h"
#include "history.h"
#include "jobs.h"
#include "lane.h"
#include "log.h"
#include "loop.h"
#include "monitor.h"
#include "moonraker.h"
#include "state.h"
#include "stop.h"

#define RESET_MS 30000 /* how long a reset waits for Klipper to be ready */

static json_t *stop_data(struct app_request *r, const char *confirmed_by)
{
    return json_pack("{s:b,s:s,s:f,s:f,s:s}", "emergency_stop_active", 1, "reason", kp_safety_reason(r->app->machine), "latency", app_request_seconds(r), "execution_time",
                     app_request_seconds(r), "confirmed_by", confirmed_by);
}

/* Somebody confirmed that Klipper has stopped. */
void app_on_stopped(void *user, const char *by)
{
    struct app *a = user;
    struct app_request *r;
    log_line(LOG_CRITICAL, "app", "emergency_stop=confirmed by=%s reason=\"%s\"", by, kp_safety_reason(a->machine));
    state_again(a->state); /* else a reset right after this would still see Klipper ready */
    while ((r = app_request_waiting(a, FOR_STOP)))
        app_request_done(r, stop_data(r, by));
}

/* The latch is set: everything of ours ends, and Klipper is told. */
static void stop_now(struct app *a)
{
    a->generation++;
    stop_send(a->stop);
    log_line(LOG_CRITICAL, "app", "emergency_stop=latched reason=\"%s\"", kp_safety_reason(a->machine));
    jobs_machine(a->jobs); /* held before its entry ends with the lane */
    lane_stop(a->lane);
    struct app_request *r; /* a reset that was asked for before it must not take it away */
    while ((r = app_request_waiting(a, FOR_RESET)))
        app_request_fail_with(r, KP_EMERGENCY_STOP_ACTIVE, "stopped again before the reset was done", NULL);
}

/* A monitor found what must not be. */
void app_on_reaction(void *user, unsigned reaction)
{
    struct app *a = user;
    a->generation++;
    if (reaction & KP_REACT_HOLD)
        jobs_hold(a->jobs, KP_HOLD_SAFETY, "a monitor found what must not be");
    if (reaction & KP_REACT_STOP)
        stop_now(a);
}

struct app_request *app_stop_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    const struct kp_slot *reason = kp_call_slot(call, "reason");
    kp_safety_latch(a->machine, true, reason->set ? reason->text : "asked by a client");
    struct app_request *r = app_request_new(a, call, done, user, FOR_STOP, stop_timeout_ms(a->stop));
    app_request_record(r, how);
    stop_now(a);
    return r;
}

static void on_kept(void *user, bool ok)
{
    struct app_request *r = user;
    struct app *a = r->app;
    (void)ok; /* it holds in memory; answers warn while the database cannot be written */
    app_request_done(r, json_pack("{s:b,s:o,s:b,s:f}", "reset_complete", 1, "homed_axes", answer_homed(a->machine), "paused", jobs_held(a->jobs),
                                  "execution_time", app_request_seconds(r)));
}

/* A reset is told once its event is in the journal: a process that ends then must not come back with the stop latched. */
static bool tell_kept(struct app_request *r)
{
    r->waits = FOR_JOURNAL;
    loop_timer_cancel(r->deadline);
    if (history_commit(history_begin(r->app->history), on_kept, r))
        return true;
    on_kept(r, false);
    return false;
}

/* Klipper is ready and the latch may go, unless its cause is still there. Gives the request that waits on, NULL when it has been told. */
static struct app_request *release(struct app_request *r)
{
    struct app *a = r->app;
    struct kp_error e;
    bool was = kp_safety_latched(a->machine);
    if (kp_safety_reset(a->machine, loop_now_ms(), &e) != KP_OK) {
        app_request_fail_with(r, e.code, e.message, NULL);
        return NULL;
    }
    stop_forget(a->stop);
    a->generation++;
    if (was)
        log_line(LOG_WARNING, "app", "emergency_stop=released");
    return tell_kept(r) ? r : NULL;
}

static void on_restart(void *user, const struct mr_reply *reply)
{
    struct app *a = user;
    struct app_request *r;
    if (reply->outcome != MR_ERROR && reply->outcome != MR_NOT_SENT && reply->outcome != MR_OPEN)
        return; /* the mirror tells when Klipper is ready; the deadline tells when it is not */
    while ((r = app_request_waiting(a, FOR_RESET)))
        app_request_fail_with(r, KP_EXECUTION_FAILED, "Klipper's firmware could not be restarted",
                          json_pack("{s:o}", "klipper", answer_klipper(a->machine, reply->message ? reply->message : "")));
}

static void restart(struct app *a)
{
    mr_call(state_moonraker(a->state), "printer.firmware_restart", NULL, RESET_MS, on_restart, a);
}

/* A busy host may fail to reset its microcontroller, and Klipper comes back with an error that the next restart mends (tried): that is asked for once. */
static void came_back_with_error(struct app *a)
{
    struct app_request *r;
    if (!a->reset_went)
        return;
    if (!a->reset_again) {
        log_line(LOG_WARNING, "app", "reset=again klipper=error message=\"%s\"", kp_machine_klippy_message(a->machine));
        a->reset_again = true, a->reset_went = false;
        restart(a);
        return;
    }
    while ((r = app_request_waiting(a, FOR_RESET)))
        app_request_fail_with(r, KP_EXECUTION_FAILED, "Klipper came back with an error", json_pack("{s:o}", "klipper", answer_klipper(a->machine, NULL)));
}

void app_reset_changed(struct app *a, enum kp_klippy klippy)
{
    struct app_request *r = app_request_waiting(a, FOR_RESET);
    if (!r)
        return;
    stop_forget(a->stop);
    if (klippy == KP_KLIPPY_ERROR)
        came_back_with_error(a);
    else if (klippy == KP_KLIPPY_GONE)
        a->reset_went = true;
    else if (klippy == KP_KLIPPY_READY && a->reset_went) /* else it is still the Klipper of before, perhaps read anew */
        for (; r; r = app_request_waiting(a, FOR_RESET))
            release(r);
}

struct app_request *app_reset_begin(struct app *a, const struct kp_call *call, const struct app_how *how, app_done *done, void *user)
{
    if (!kp_machine_moonraker_connected(a->machine)) {
        app_tell_error(a, done, user, KP_MOONRAKER_DISCONNECTED, "Moonraker is not connected", NULL);
        return NULL;
    }
    bool under_way = app_request_waiting(a, FOR_RESET) != NULL;
    struct app_request *r = app_request_new(a, call, done, user, FOR_RESET, RESET_MS);
    if (!r)
        return NULL;
    app_request_record(r, how);
    if (under_way)
        return r; /* a second restart would spoil the first */
    if (kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY && !stop_owed(a->stop))
        return release(r);
    a->reset_went = a->reset_again = false;
    restart(a);
    return r;
}
