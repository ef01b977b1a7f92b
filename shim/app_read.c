/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Reads, for app: answered from the mirror, with the text of an answer kept until the mirror changes. Invariant: a pin that was written is never told with its
 * old value as if it were fresh. */
#include "app_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "jobs.h"
#include "json.h"
#include "lane.h"
#include "loop.h"
#include "metrics.h"
#include "state.h"
#include "stop.h"

#define LOOK_AGAIN_MS 20 /* a written pin has not been seen yet */
#define READ_MS 5000   /* how long a read waits for Klipper */

/* Away, or never told: a read without a value has nothing to answer with. */
static enum kp_err unreadable(const struct app *a)
{
    if (!kp_machine_moonraker_connected(a->machine))
        return KP_MOONRAKER_DISCONNECTED;
    return kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY ? KP_OK : KP_KLIPPY_DISCONNECTED;
}

static struct answer_filter event_filter(const struct kp_call *call)
{
    const struct kp_slot *level = kp_call_slot(call, "level");
    return (struct answer_filter){ .limit = (size_t)kp_call_slot(call, "limit")->num, .level = level->set ? (enum kp_level)level->index : KP_NORMAL,
                                   .since = (uint64_t)kp_call_slot(call, "since")->num };
}

static json_t *read_data(struct app *a, const struct kp_call *call, const struct answer_time *t)
{
    struct answer_clock clock = { answer_wall(), loop_now_ms() };
    struct answer_filter filter;
    const struct kp_slot *s = call->slot;
    switch (call->command->id) {
    case KP_GPIO_READ: return answer_pin(kp_machine_pin(a->machine, (size_t)s->index), s->inverted, t);
    case KP_GPIO_READ_ALL: return answer_pins(a->machine, t);
    case KP_SENSOR_READ: return answer_sensor(kp_machine_sensor(a->machine, (size_t)s->index), t);
    case KP_SENSOR_READ_ALL: return answer_sensors(a->machine, NULL, t);
    case KP_SENSOR_READ_BY_TYPE: return answer_sensors(a->machine, s->text, t);
    case KP_GET_POSITION: return answer_position(a->machine, t);
    case KP_GET_STATUS: return answer_status(a->machine, t);
    case KP_GET_PRINTER_STATE: return answer_printer_state(a->machine, t);
    case KP_SAFETY_STATUS: return answer_safety_status(a->machine, &clock);
    case KP_SAFETY_EVENTS: filter = event_filter(call); return answer_safety_events(a->machine, &clock, &filter);
    default: return answer_version();
    }
}

/* Where the text of a read is kept; NULL: it is made each time. */
static struct kept *kept_for(struct app *a, const struct kp_call *call)
{
    const struct kp_slot *s = call->slot;
    switch (call->command->id) {
    case KP_GPIO_READ: return s->inverted ? NULL : &a->pins[s->index];
    case KP_GPIO_READ_ALL: return &a->all_pins;
    case KP_SENSOR_READ: return &a->sensors[s->index];
    case KP_SENSOR_READ_ALL: return &a->all_sensors;
    case KP_GET_POSITION: return &a->position;
    case KP_GET_STATUS: return &a->status;
    default: return NULL;
    }
}

bool app_bent(const struct app *a, char out[KP_TEXT_MAX])
{
    static const struct { const char *section, *word; } rows[] = { /* Klipper does not tell of a section that sets nothing: then the word does */
        { "bed_mesh", "BED_MESH_CALIBRATE" }, { "skew_correction", "SET_SKEW" }, { "axis_twist_compensation", "AXIS_TWIST_COMPENSATION_CALIBRATE" },
    };
    size_t n = 0;
    out[0] = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (kp_machine_has_section(a->machine, rows[i].section) || kp_machine_has_command(a->machine, kp_str_of(rows[i].word)))
            n += (size_t)snprintf(out + n, KP_TEXT_MAX - n, "%s [%s]", n ? " and" : "Klipper has", rows[i].section);
    if (n)
        snprintf(out + n, KP_TEXT_MAX - n, ": when it is active, heights and places of a job are not where G-code says");
    return n > 0;
}

/* Takes data. */
static void keep(struct app *a, struct kept *k, json_t *data)
{
    free(k->text);
    k->text = data ? json_dumps(data, JSON_TEXT) : NULL;
    k->n = k->text ? strlen(k->text) : 0;
    k->generation = a->generation, k->ours = kp_machine_ours(a->machine), k->fresh = state_fresh(a->state);
    k->queue = lane_size(a->lane), k->running = lane_running(a->lane);
    json_decref(data);
}

static bool holds(const struct app *a, const struct kept *k, bool fresh)
{
    bool lane = k != &a->status || (k->queue == lane_size(a->lane) && k->running == lane_running(a->lane));
    return k->text && k->generation == a->generation && k->ours == kp_machine_ours(a->machine) && k->fresh == fresh && lane;
}

void app_read_reply(struct app *a, const struct kp_call *call, app_done *done, void *user)
{
    static const struct kp_faults none = { .count = 0 };
    struct kept *k = kept_for(a, call);
    bool fresh = state_fresh(a->state);
    if (call->command->strategy != KP_LOCAL)
        metrics_read(a->metrics, fresh ? METRICS_FRESH : METRICS_STALE);
    if (!k) {
        struct answer_time t = app_read_time(a);
        app_tell_data(a, done, user, read_data(a, call, &t));
        return;
    }
    if (!holds(a, k, fresh)) {
        struct answer_time t = app_read_time(a);
        keep(a, k, read_data(a, call, &t));
        if (k == &a->status)
            app_bent(a, a->bent);
    }
    if (k == &a->status && k->text && a->bent[0])
        done(user, &(struct app_answer){ .faults = &none, .data = k->text, .n = k->n, .warning = a->bent });
    else
        app_tell_text(a, done, user, k->text, k->n);
}

static bool pin_dirty(const struct app *a, const struct kp_call *call)
{
    return call->command->id == KP_GPIO_READ && kp_machine_pin(a->machine, (size_t)call->slot[0].index)->dirty;
}

static bool never_told(const struct app *a, const struct kp_call *call)
{
    double xyz[3];
    switch (call->command->id) {
    case KP_GPIO_READ: return kp_machine_pin(a->machine, (size_t)call->slot[0].index)->changed_ms == INT64_MIN;
    case KP_SENSOR_READ: return kp_machine_sensor(a->machine, (size_t)call->slot[0].index)->changed_ms == INT64_MIN;
    case KP_GPIO_READ_ALL: return !kp_machine_pin(a->machine, 0);
    case KP_SENSOR_READ_ALL:
    case KP_SENSOR_READ_BY_TYPE: return !kp_machine_sensor(a->machine, 0);
    case KP_GET_POSITION: return !kp_machine_position(a->machine, xyz) && !kp_machine_commanded(a->machine, xyz);
    default: return false;
    }
}

static void on_refreshed(void *user, enum kp_err how)
{
    struct app_request *r = user;
    if (!r->done) { /* left meanwhile */
        app_request_free(r);
        return;
    }
    if (how == KP_OK) {
        struct answer_time t = app_read_time(r->app);
        t.fresh = true, t.wall = answer_wall();
        r->app->generation++;
        app_tell_data(r->app, r->done, r->user, read_data(r->app, &r->call, &t));
        app_request_free(r);
        return;
    }
    enum kp_err away = unreadable(r->app);
    const char *words = away || how == KP_TIMEOUT ? "Klipper did not answer" : "not asked: Moonraker failed on this too often; it is asked again within a minute";
    app_request_fail_with(r, away ? away : how, words, NULL);
}

/* What a live read asks for, for state_refresh. */
static const char *live_object(const struct app *a, const struct kp_call *call)
{
    const struct kp_pin *p;
    switch (call->command->id) {
    case KP_GPIO_READ:
        p = kp_machine_pin(a->machine, (size_t)call->slot[0].index);
        return p->kind == KP_PIN_ENDSTOP ? "query_endstops" : p->object;
    case KP_SENSOR_READ: return kp_machine_sensor(a->machine, (size_t)call->slot[0].index)->object;
    default: return "motion_report\ntoolhead\ngcode_move";
    }
}

static bool asks_live(const struct kp_call *call)
{
    return (call->command->id == KP_GPIO_READ || call->command->id == KP_SENSOR_READ || call->command->id == KP_GET_POSITION) && kp_call_slot(call, "live")->flag;
}

struct app_request *app_read_begin(struct app *a, const struct kp_call *call, app_done *done, void *user)
{
    enum kp_err away = unreadable(a);
    bool live = asks_live(call);
    if (away && (live || never_told(a, call))) {
        app_tell_error(a, done, user, away, away == KP_MOONRAKER_DISCONNECTED ? "Moonraker is not connected" : "Klipper is not ready", NULL);
        return NULL;
    }
    if (!live && (away || !pin_dirty(a, call))) {
        app_read_reply(a, call, done, user);
        return NULL;
    }
    if (live && state_extra(a->state) && pin_dirty(a, call)) { /* asked at once, Klipper would still tell the old value */
        live = false;
        state_look(a->state, LOOK_AGAIN_MS);
    }
    struct app_request *r = app_request_new(a, call, done, user, live ? FOR_KLIPPER : FOR_PIN, live ? 2 * READ_MS : READ_MS);
    if (r && live)
        metrics_read(a->metrics, METRICS_ASKED), state_refresh(a->state, live_object(a, call), READ_MS, on_refreshed, r);
    return r;
}

void app_reads_that_waited(struct app *a, bool all)
{
    struct app_request *next;
    for (struct app_request *r = a->waiting; r; r = next) {
        next = r->next;
        if (r->waits != FOR_PIN)
            continue;
        if (!all && pin_dirty(a, &r->call)) {
            state_look(a->state, LOOK_AGAIN_MS);
            continue;
        }
        app_read_reply(a, &r->call, r->done, r->user);
        app_request_free(r);
    }
}

const char *app_health(struct app *a, size_t *n, bool *ready)
{
    struct kept *k = &a->health;
    *ready = kp_machine_klippy_state(a->machine) == KP_KLIPPY_READY;
    bool second = stop_second_way(a->stop), fresh = state_fresh(a->state);
    if (!k->text || k->generation != a->generation || k->fresh != fresh || a->second_way != second) {
        a->second_way = second;
        keep(a, k, answer_health(a->machine, second, fresh));
    }
    *n = k->n;
    return k->text;
}

static void kept_free(struct kept *k, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(k[i].text);
}

void app_reads_free(struct app *a)
{
    kept_free(a->pins, KP_PINS_MAX);
    kept_free(a->sensors, KP_SENSORS_MAX);
    kept_free(&a->all_pins, 1);
    kept_free(&a->all_sensors, 1);
    kept_free(&a->position, 1);
    kept_free(&a->status, 1);
    kept_free(&a->health, 1);
}
