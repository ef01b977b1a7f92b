/* SPDX-License-Identifier: GPL-3.0-or-later */
/* States of the machine as messages for subscribers. For ws.c through app. Invariant: all changes a subscriber is told, applied in order to the full state it
 * was told first, give the state that is kept here. */
#include "events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "loop.h"
#include "state.h"

#define STALE_MS (STATE_FRESH_MS + 50) /* after the last push, to tell that values are stale */
#define SAFETY_FIRST 16                /* events in a first message, the last ones */

/* One message's text with EVENTS_ROOM before it, and which changes it tells: those after `from` up to `to`. */
struct text { char *room; size_t n; uint64_t from, to; };

struct kind {
    json_t *state;              /* as last looked at; NULL: nobody wants it */
    uint64_t changes;           /* looks that found a change, ever */
    double at[EVENTS_KEPT];     /* s since the epoch, of change i at i % EVENTS_KEPT */
    json_t *change[EVENTS_KEPT];
    size_t subscribers;
    struct text full, last, behind; /* behind: for one that missed some */
};

struct events {
    struct kp_machine *machine;
    struct events_source source;
    struct kind kinds[EVENTS_KINDS];
    struct events_subscriber *subscribers; /* those that want something */
    json_t *entries;            /* of the queue, changed since the last look; NULL: none */
    struct loop_timer *queue, *stale;
    bool queue_set;
    uint64_t safety_id;         /* of the last safety event */
};

typedef json_t *state_fn(struct events *e, const struct answer_time *t);

/* ---- states ---- */

/* Removes what changes with every push without a change of the machine. */
static void strip_times(json_t *j)
{
    static const char *const times[] = { "timestamp", "last_updated", "last_heartbeat" };
    const char *key;
    json_t *v;
    for (size_t i = 0; i < sizeof times / sizeof *times; i++)
        json_object_del(j, times[i]);
    json_object_foreach(j, key, v)
        if (json_is_object(v))
            strip_times(v);
}

static json_t *position_state(struct events *e, const struct answer_time *t)
{
    return answer_position(e->machine, t);
}

static json_t *status_state(struct events *e, const struct answer_time *t)
{
    return answer_status(e->machine, t);
}

/* An array of named objects as an object of them; takes list. */
static json_t *by_name(json_t *list, const char *name)
{
    json_t *out = json_object(), *row;
    size_t i;
    json_array_foreach(list, i, row) {
        const char *key = json_string_value(json_object_get(row, name));
        json_object_del(row, "stale"); /* told once for all */
        if (key)
            json_object_set(out, key, row);
        json_object_del(row, name);
    }
    json_decref(list);
    return out;
}

static json_t *sensors_state(struct events *e, const struct answer_time *t)
{
    json_t *all = answer_sensors(e->machine, NULL, t);
    json_t *out = json_pack("{s:o,s:b}", "sensors", by_name(json_incref(json_object_get(all, "sensors")), "sensor"), "stale", !t->fresh);
    json_decref(all);
    return out;
}

static json_t *gpio_state(struct events *e, const struct answer_time *t)
{
    json_t *all = answer_pins(e->machine, t);
    json_t *out = json_pack("{s:o,s:b}", "pins", by_name(json_incref(json_object_get(all, "pins")), "pin"), "stale", answer_stale(e->machine, t));
    json_decref(all);
    return out;
}

/* What the status says of all that switches. */
static json_t *actuators_state(struct events *e, const struct answer_time *t)
{
    static const char *const members[] = { "actuators", "pwm_outputs", "vacuum_enabled", "vacuum_power", "fan_speed", "fan_states", "stale" };
    json_t *status = answer_status(e->machine, t), *out = json_object(), *v;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        if ((v = json_object_get(status, members[i])))
            json_object_set(out, members[i], v);
    json_decref(status);
    return out;
}

static json_t *queue_state(struct events *e, const struct answer_time *t)
{
    (void)t;
    return e->source.queue(e->source.user);
}

/* Safety has no state to compare: its events are numbered. */
static const struct { const char *name, *method; state_fn *state; } rows[EVENTS_KINDS] = {
    [EVENTS_SAFETY] = { "safety", "notify_safety_event", NULL },
    [EVENTS_POSITION] = { "position", "notify_position_update", position_state },
    [EVENTS_SENSORS] = { "sensors", "notify_sensor_update", sensors_state },
    [EVENTS_GPIO] = { "gpio", "notify_gpio_update", gpio_state },
    [EVENTS_ACTUATORS] = { "actuators", "notify_actuators_update", actuators_state },
    [EVENTS_QUEUE] = { "queue", "notify_queue_update", queue_state },
    [EVENTS_STATUS] = { "status", "notify_status_update", status_state },
};

/* ---- changes ---- */

/* Gives the merge patch that makes `from` into `to`; NULL: they are equal. */
static json_t *difference(json_t *from, json_t *to)
{
    json_t *out = NULL, *v, *old, *change;
    const char *key;
    json_object_foreach(to, key, v) {
        old = json_object_get(from, key);
        if (json_is_object(old) && json_is_object(v))
            change = difference(old, v);
        else
            change = old && json_equal(old, v) ? NULL : json_incref(v);
        if (change && !out)
            out = json_object();
        if (change)
            json_object_set_new(out, key, change);
    }
    json_object_foreach(from, key, v)
        if (!json_object_get(to, key)) {
            if (!out)
                out = json_object();
            json_object_set_new(out, key, json_null());
        }
    return out;
}

static void text_free(struct text *t)
{
    free(t->room);
    *t = (struct text){ 0 };
}

static void texts_free(struct kind *k)
{
    text_free(&k->full);
    text_free(&k->last);
    text_free(&k->behind);
}

static void forget(struct kind *k)
{
    json_decref(k->state);
    k->state = NULL;
    for (size_t i = 0; i < EVENTS_KEPT; i++) {
        json_decref(k->change[i]);
        k->change[i] = NULL;
    }
    texts_free(k);
}

static void wake(struct events *e, enum events_kind kind)
{
    for (struct events_subscriber *s = e->subscribers; s; s = s->next)
        if (s->wants[kind])
            s->wake(s->user);
}

/* Takes change. */
static void add_change(struct events *e, enum events_kind kind, json_t *change)
{
    struct kind *k = &e->kinds[kind];
    size_t i = (size_t)(++k->changes % EVENTS_KEPT);
    json_decref(k->change[i]);
    k->change[i] = change, k->at[i] = answer_wall();
    texts_free(k);
    wake(e, kind);
}

/* Compares the state with the kept one and tells the difference. */
static void look(struct events *e, enum events_kind kind, const struct answer_time *t)
{
    struct kind *k = &e->kinds[kind];
    if (!k->subscribers || !rows[kind].state)
        return;
    json_t *now = rows[kind].state(e, t), *change;
    if (!now)
        return; /* out of memory: the next look tells it */
    strip_times(now);
    change = k->state ? difference(k->state, now) : json_object();
    if (kind == EVENTS_QUEUE && e->entries) {
        if (!change)
            change = json_object();
        json_object_set_new(change, "entries", e->entries);
        e->entries = NULL;
    }
    json_decref(k->state);
    k->state = now;
    if (change)
        add_change(e, kind, change);
}

static void look_at(struct events *e, unsigned kinds)
{
    struct answer_time t = e->source.time(e->source.user);
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        if (kinds >> i & 1)
            look(e, (enum events_kind)i, &t);
}

static void on_queue(void *user)
{
    struct events *e = user;
    e->queue_set = false;
    look_at(e, 1u << EVENTS_QUEUE | 1u << EVENTS_STATUS);
}

static void on_stale(void *user)
{
    look_at(user, ~0u);
}

/* ---- messages ---- */

/* Takes params; at: their timestamp. False: out of memory. */
static bool make(struct text *out, const char *method, json_t *params, double at, uint64_t from, uint64_t to)
{
    char *body = params ? json_dumps(params, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
    size_t n = body ? strlen(body) - 1 : 0, cap = n + strlen(method) + 96; /* without its brace */
    text_free(out);
    json_decref(params);
    if (body && (out->room = malloc(EVENTS_ROOM + cap))) {
        out->n = (size_t)snprintf(out->room + EVENTS_ROOM, cap, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%.*s%s\"timestamp\":%.3f}}", method,
                                  (int)n, body, n > 1 ? "," : "", at);
        out->from = from, out->to = to;
    }
    free(body);
    return out->room != NULL;
}

/* All changes after `from` as one. */
static json_t *merged(const struct kind *k, uint64_t from)
{
    json_t *out = json_object();
    for (uint64_t i = from + 1; i <= k->changes; i++) {
        json_t *copy = json_deep_copy(k->change[i % EVENTS_KEPT]); /* a part shared with the sum would be changed by the next one */
        if (!copy || json_object_update_recursive(out, copy)) {
            json_decref(copy);
            json_decref(out);
            return NULL;
        }
        json_decref(copy);
    }
    return out;
}

static struct text *state_text(struct events *e, enum events_kind kind, const struct events_subscriber *s)
{
    struct kind *k = &e->kinds[kind];
    uint64_t from = s->seen[kind];
    double at = k->at[k->changes % EVENTS_KEPT];
    if (s->full[kind] || k->changes - from > EVENTS_KEPT)
        return k->full.room || make(&k->full, rows[kind].method, json_copy(k->state), at, 0, k->changes) ? &k->full : NULL;
    struct text *t = k->changes - from == 1 ? &k->last : &k->behind;
    if (t->room && t->from == from)
        return t;
    return make(t, rows[kind].method, merged(k, from), at, from, k->changes) ? t : NULL;
}

/* Events after `from`, oldest first, and how safety stands. NULL: out of memory, or some are no longer kept. */
static struct text *safety_text(struct events *e, const struct events_subscriber *s)
{
    struct kind *k = &e->kinds[EVENTS_SAFETY];
    bool full = s->full[EVENTS_SAFETY];
    uint64_t from = s->seen[EVENTS_SAFETY], count = e->safety_id - from;
    struct text *t = full ? &k->full : count == 1 ? &k->last : &k->behind;
    if (!full && t->room && t->from == from)
        return t; /* a whole one tells the level too, which changes without an event */
    struct answer_clock clock = { answer_wall(), loop_now_ms() };
    struct answer_filter after = { .limit = (size_t)count, .level = KP_NORMAL, .since = from };
    json_t *all = answer_safety_events(e->machine, &clock, &after), *list = json_object_get(all, "events"), *events = json_array();
    for (size_t i = json_array_size(list); i-- > 0;)
        json_array_append(events, json_array_get(list, i));
    json_decref(all);
    if (!full && json_array_size(events) != count) {
        json_decref(events);
        return NULL;
    }
    json_t *params = json_pack("{s:s,s:b,s:s,s:o}", "level", kp_level_name(kp_safety_level(e->machine)), "emergency_stop_active", kp_safety_latched(e->machine),
                               "reason", kp_safety_reason(e->machine), "events", events);
    return make(t, rows[EVENTS_SAFETY].method, params, clock.wall, from, e->safety_id) ? t : NULL;
}

/* ---- public ---- */

const char *events_kind_name(enum events_kind kind)
{
    return rows[kind].name;
}

bool events_kind_by_name(const char *name, enum events_kind *out)
{
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        if (!strcmp(rows[i].name, name))
            return *out = (enum events_kind)i, true;
    return false;
}

static bool wants_any(const struct events_subscriber *s)
{
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        if (s->wants[i])
            return true;
    return false;
}

void events_subscribe(struct events *e, struct events_subscriber *s, enum events_kind kind)
{
    struct kind *k = &e->kinds[kind];
    if (!wants_any(s)) {
        s->next = e->subscribers, s->at = &e->subscribers;
        if (s->next)
            s->next->at = &s->next;
        e->subscribers = s;
    }
    if (!s->wants[kind])
        k->subscribers++;
    s->wants[kind] = s->full[kind] = true;
    s->seen[kind] = kind != EVENTS_SAFETY ? k->changes : e->safety_id < SAFETY_FIRST ? 0 : e->safety_id - SAFETY_FIRST;
    look_at(e, 1u << kind);
    loop_timer_set(e->stale, STALE_MS);
    s->wake(s->user);
}

void events_unsubscribe(struct events *e, struct events_subscriber *s, enum events_kind kind)
{
    if (!s->wants[kind])
        return;
    s->wants[kind] = s->full[kind] = false;
    if (!--e->kinds[kind].subscribers)
        forget(&e->kinds[kind]);
    if (!e->kinds[EVENTS_QUEUE].subscribers)
        e->entries = (json_decref(e->entries), NULL);
    if (wants_any(s))
        return;
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
    if (!e->subscribers)
        loop_timer_cancel(e->stale);
}

static bool waits(const struct events *e, const struct events_subscriber *s, enum events_kind kind)
{
    uint64_t now = kind == EVENTS_SAFETY ? e->safety_id : e->kinds[kind].changes;
    return s->wants[kind] && (s->full[kind] || s->seen[kind] != now);
}

bool events_waiting(const struct events *e, const struct events_subscriber *s)
{
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        if (waits(e, s, (enum events_kind)i))
            return true;
    return false;
}

enum events_next events_next(struct events *e, struct events_subscriber *s, struct events_message *out)
{
    unsigned i = 0;
    while (i < EVENTS_KINDS && !waits(e, s, (enum events_kind)i))
        i++;
    if (i == EVENTS_KINDS)
        return EVENTS_NOTHING;
    enum events_kind kind = (enum events_kind)i;
    struct text *t = kind == EVENTS_SAFETY ? safety_text(e, s) : e->kinds[kind].state ? state_text(e, kind, s) : NULL;
    if (!t)
        return EVENTS_LOST;
    s->seen[kind] = t->to;
    s->full[kind] = false;
    *out = (struct events_message){ t->room + EVENTS_ROOM, t->n };
    return EVENTS_MESSAGE;
}

void events_mirror(struct events *e)
{
    if (!e->subscribers)
        return;
    look_at(e, ~0u);
    loop_timer_set(e->stale, STALE_MS);
}

void events_queue(struct events *e, const struct kp_queue_entry *entry)
{
    if (!e->kinds[EVENTS_QUEUE].subscribers && !e->kinds[EVENTS_STATUS].subscribers)
        return;
    if (entry && e->kinds[EVENTS_QUEUE].subscribers) {
        json_t *row = json_pack("{s:s,s:s}", "command", entry->command, "state", kp_queue_state_name(entry->state));
        if (row && entry->state != KP_Q_PENDING && entry->state != KP_Q_EXECUTING)
            json_object_set_new(row, "result", json_string(kp_err_name(entry->result)));
        if (!e->entries)
            e->entries = json_object();
        json_object_set_new(e->entries, entry->id, row);
    }
    if (!e->queue_set)
        loop_timer_set(e->queue, EVENTS_QUEUE_MS);
    e->queue_set = true;
}

void events_safety(struct events *e, const struct kp_safety_event *event)
{
    e->safety_id = event->id;
    texts_free(&e->kinds[EVENTS_SAFETY]);
    wake(e, EVENTS_SAFETY);
    events_queue(e, NULL); /* the status has it too */
}

struct events *events_new(struct loop *l, struct kp_machine *m, const struct events_source *source)
{
    struct events *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    const struct kp_safety_event *last = kp_safety_event(m, 0);
    *e = (struct events){ .machine = m, .source = *source, .safety_id = last ? last->id : 0 };
    e->queue = loop_timer_new(l, on_queue, e);
    e->stale = loop_timer_new(l, on_stale, e);
    if (e->queue && e->stale)
        return e;
    events_free(e);
    return NULL;
}

void events_free(struct events *e)
{
    if (!e)
        return;
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        forget(&e->kinds[i]);
    json_decref(e->entries);
    loop_timer_free(e->queue);
    loop_timer_free(e->stale);
    free(e);
}
