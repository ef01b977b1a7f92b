/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mirror of Klipper's state, for app and lane. Invariant: the machine says "ready" only after all that Klipper is made of has been read since it
 * was last away. */
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "extra.h"
#include "json.h"
#include "log.h"
#include "loop.h"
#include "moonraker.h"

#define CALL_MS 5000       /* deadline of each question asked while reading everything */
#define POLL_MS 500        /* server.info while Klipper is not ready: an error at its start sends no notification */

struct state {
    struct loop *loop;
    struct kp_machine *machine;
    struct mr *mr;
    struct extra *extra;
    struct state_events ev;
    void *user;
    struct loop_timer *poll;
    struct loop_timer *look; /* when everything is to be asked through the extra */
    bool looking;          /* that question is under way */
    double looked_at;      /* Klipper's time of its last answer: a push from before it is older */
    json_t *read_at;       /* owned; the same of single objects that were read since the last push, {object: time} */
    struct refresh *refreshes; /* questions about single objects that are under way */
    uint64_t asked;        /* the question of the reading under way; 0: none */
    double wall;           /* s since the epoch of the last push */
    bool subscribed;       /* everything has been read; pushes come */
    int misses;            /* polls in a row without a push while subscribed */
    int64_t polled_push_ms;
};

struct feed { struct state *s; struct kp_str object; int64_t now_ms; };

static double wall_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void feed_field(void *user, struct kp_str field, const struct kp_value *v)
{
    struct feed *f = user;
    kp_machine_status(f->s->machine, f->object, field, v, f->now_ms);
}

static void set_klippy(struct state *s, enum kp_klippy to, const char *message)
{
    if (to == kp_machine_klippy_state(s->machine) && !strcmp(message, kp_machine_klippy_message(s->machine)))
        return;
    if (to != kp_machine_klippy_state(s->machine))
        log_line(to == KP_KLIPPY_READY ? LOG_INFO : LOG_WARNING, "state", "klipper=%s message=\"%s\"", kp_klippy_name(to), message);
    kp_machine_time(s->machine, loop_now_ms());
    kp_machine_klippy(s->machine, to, message);
    s->ev.changed(s->user);
}

static enum kp_klippy klippy_of(const char *name)
{
    static const struct { const char *name; enum kp_klippy state; } names[] = {
        { "ready", KP_KLIPPY_READY }, { "startup", KP_KLIPPY_STARTUP }, { "shutdown", KP_KLIPPY_SHUTDOWN }, { "error", KP_KLIPPY_ERROR },
    };
    for (size_t i = 0; name && i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i].name, name))
            return names[i].state;
    return KP_KLIPPY_GONE;
}

static void webhooks(struct state *s, json_t *fields)
{
    const char *name = json_string_value(json_object_get(fields, "state"));
    const char *message = json_string_value(json_object_get(fields, "state_message"));
    if (!name && !message)
        return;
    enum kp_klippy to = name ? klippy_of(name) : kp_machine_klippy_state(s->machine);
    set_klippy(s, to, to == KP_KLIPPY_READY || !message ? "" : message);
}

/* One status object of a push or of an answer: {object: {field: value}}. */
static void feed_status(struct state *s, json_t *status)
{
    struct feed f = { .s = s, .now_ms = loop_now_ms() };
    const char *object;
    json_t *fields;
    json_object_foreach(status, object, fields) {
        f.object = kp_str_of(object);
        json_each(fields, feed_field, &f);
    }
    extra_status(s->extra, json_object_get(status, EXTRA_OBJECT));
}

static void feed_push(struct state *s, json_t *status)
{
    feed_status(s, status);
    s->wall = wall_now();
    kp_machine_pushed(s->machine, loop_now_ms());
    webhooks(s, json_object_get(status, "webhooks"));
    s->ev.pushed(s->user);
}

static void poll_later(struct state *s)
{
    loop_timer_set(s->poll, POLL_MS);
}

static void ask(struct state *s, const char *method, json_t *params, mr_done *done)
{
    mr_forget(s->mr, s->asked);
    s->asked = mr_call(s->mr, method, params, CALL_MS, done, s);
    if (!s->asked)
        poll_later(s);
}

/* True when the answer is good; else the reading starts again with the next poll. */
static bool answered(struct state *s, const struct mr_reply *r, const char *what)
{
    s->asked = 0;
    if (r->outcome == MR_OK)
        return true;
    log_line(LOG_DEBUG, "state", "asked=%s outcome=%d message=\"%s\"", what, (int)r->outcome, r->message ? r->message : "");
    poll_later(s);
    return false;
}

static void on_subscribed(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (!answered(s, r, "subscribe"))
        return;
    s->subscribed = true;
    s->misses = 0;
    feed_push(s, json_object_get(r->result, "status"));
    poll_later(s);
}

/* Every object that is watched, as a question. */
static json_t *watched(const struct state *s)
{
    json_t *objects = json_object();
    const char *name;
    for (size_t i = 0; (name = kp_machine_watch(s->machine, i)); i++)
        json_object_set_new(objects, name, json_null());
    if (extra_there(s->extra))
        json_object_set_new(objects, EXTRA_OBJECT, json_null());
    return json_pack("{s:o}", "objects", objects);
}

static void on_settings(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (!answered(s, r, "settings"))
        return;
    json_t *status = json_object_get(r->result, "status"), *section, *value;
    json_t *settings = json_object_get(json_object_get(status, "configfile"), "settings");
    json_t *commands = json_object_get(json_object_get(status, "gcode"), "commands");
    const char *name, *option;
    json_object_foreach(commands, name, value)
        kp_machine_command(s->machine, kp_str_of(name));
    json_object_foreach(settings, name, section)
        json_object_foreach(section, option, value) {
            struct json_list list;
            struct kp_value v = json_value(value, &list);
            kp_machine_setting(s->machine, kp_str_of(name), kp_str_of(option), &v);
        }
    struct kp_faults faults = { .count = 0 };
    kp_machine_resolve(s->machine, &faults);
    for (size_t i = 0; i < faults.count; i++)
        log_line(LOG_WARNING, "state", "config field=%s message=\"%s\"", faults.item[i].field, faults.item[i].message);
    ask(s, "printer.objects.subscribe", watched(s), on_subscribed);
}

static void on_objects(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    size_t i;
    json_t *name;
    if (!answered(s, r, "objects"))
        return;
    kp_machine_reset(s->machine);
    extra_objects(s->extra, s->mr, json_object_get(r->result, "objects"));
    json_array_foreach(json_object_get(r->result, "objects"), i, name)
        if (json_is_string(name))
            kp_machine_object(s->machine, (struct kp_str){ json_string_value(name), json_string_length(name) });
    ask(s, "printer.objects.query", json_pack("{s:{s:[s],s:[s]}}", "objects", "configfile", "settings", "gcode", "commands"), on_settings);
}

static void on_printer(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (!answered(s, r, "printer.info"))
        return;
    enum kp_klippy to = klippy_of(json_string_value(json_object_get(r->result, "state")));
    const char *message = json_string_value(json_object_get(r->result, "state_message"));
    if (to == KP_KLIPPY_READY || to == KP_KLIPPY_SHUTDOWN) {
        /* shutdown is told at once; ready only when everything has been read */
        if (to == KP_KLIPPY_SHUTDOWN)
            set_klippy(s, to, message ? message : "");
        ask(s, "printer.objects.list", NULL, on_objects);
        return;
    }
    set_klippy(s, to, message ? message : "");
    poll_later(s);
}

static void on_server(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (!answered(s, r, "server.info"))
        return;
    if (json_is_true(json_object_get(r->result, "klippy_connected"))) {
        ask(s, "printer.info", NULL, on_printer);
        return;
    }
    set_klippy(s, KP_KLIPPY_GONE, "");
    poll_later(s);
}

static void read_all(struct state *s)
{
    s->subscribed = false;
    s->looked_at = 0;
    json_object_clear(s->read_at);
    loop_timer_cancel(s->poll);
    if (kp_machine_klippy_state(s->machine) == KP_KLIPPY_READY)
        set_klippy(s, KP_KLIPPY_STARTUP, "its state is being read again");
    ask(s, "server.info", NULL, on_server);
}

/* While subscribed, pushes come four times a second; two polls without one mean that the subscription is gone. */
static void on_poll(void *user)
{
    struct state *s = user;
    if (!mr_connected(s->mr) || s->asked)
        return;
    int64_t last = kp_machine_pushed_ms(s->machine);
    s->misses = last == s->polled_push_ms ? s->misses + 1 : 0;
    s->polled_push_ms = last;
    if (!s->subscribed || s->misses >= 4)
        read_all(s);
    else
        poll_later(s);
}

/* ---- everything now, by the extra ---- */

static void on_looked(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    s->looking = false;
    if (r->outcome == MR_ERROR)
        extra_read_failed(s->extra, r->message);
    if (r->outcome != MR_OK || !s->subscribed)
        return;
    s->looked_at = json_number_value(json_object_get(r->result, "eventtime"));
    feed_push(s, json_object_get(r->result, "status"));
}

static void on_look(void *user)
{
    struct state *s = user;
    if (s->looking)
        loop_timer_set(s->look, 1);
    else if (s->subscribed && extra_reads(s->extra))
        s->looking = mr_call(s->mr, EXTRA_READ, watched(s), CALL_MS, on_looked, s) != 0;
}

void state_look(struct state *s, int64_t in_ms)
{
    if (s->subscribed && extra_reads(s->extra))
        loop_timer_set(s->look, in_ms);
}

static void on_identified(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (r->outcome != MR_OK)
        log_line(LOG_WARNING, "state", "identify outcome=%d message=\"%s\"", (int)r->outcome, r->message ? r->message : "");
    if (mr_connected(s->mr))
        read_all(s);
}

static void on_up(void *user)
{
    struct state *s = user;
    log_line(LOG_INFO, "state", "moonraker=connected");
    kp_machine_moonraker(s->machine, true);
    extra_connected(s->extra);
    mr_call(s->mr, "server.connection.identify", json_pack("{s:s,s:s,s:s,s:s}", "client_name", "klipperplace", "version", kp_version(), "type", "agent", "url",
            "http://127.0.0.1/"), CALL_MS, on_identified, s);
    s->ev.changed(s->user);
}

static void on_down(void *user, const char *why)
{
    struct state *s = user;
    log_line(LOG_WARNING, "state", "moonraker=disconnected why=\"%s\"", why);
    s->subscribed = false;
    s->asked = 0;
    loop_timer_cancel(s->poll);
    kp_machine_time(s->machine, loop_now_ms());
    kp_machine_moonraker(s->machine, false);
    kp_machine_klippy(s->machine, KP_KLIPPY_GONE, "");
    s->ev.changed(s->user);
}

/* A push of Klipper's tick. It may have been made before an answer that overtook it at Moonraker: what that told is newer. */
static void ticked(struct state *s, json_t *params)
{
    const char *object;
    json_t *status = json_array_get(params, 0), *read_at;
    double made_at = json_number_value(json_array_get(params, 1));
    if (!s->subscribed || made_at < s->looked_at)
        return;
    json_object_foreach(s->read_at, object, read_at)
        if (made_at < json_number_value(read_at))
            json_object_del(status, object);
    json_object_clear(s->read_at);
    feed_push(s, status);
}

static void on_notify(void *user, const char *method, json_t *params)
{
    struct state *s = user;
    if (!strcmp(method, "notify_status_update")) {
        ticked(s, params);
    } else if (!strcmp(method, EXTRA_PUSH)) {
        if (s->subscribed) { /* some inputs only: it makes nothing else fresh */
            feed_status(s, json_object_get(params, "status"));
            s->ev.changed(s->user);
        }
    } else if (!strcmp(method, "notify_gcode_response")) {
        const char *line = json_string_value(json_array_get(params, 0));
        if (line)
            s->ev.console(s->user, line);
    } else if (!strcmp(method, "notify_klippy_disconnected")) {
        s->subscribed = false;
        set_klippy(s, KP_KLIPPY_GONE, "");
        read_all(s);
    } else if (!strcmp(method, "notify_klippy_ready")) {
        if (!s->subscribed && !s->asked) /* else a poll saw it first, and reading it twice would take "ready" back */
            read_all(s);
    } else if (!strcmp(method, "notify_klippy_shutdown")) {
        loop_timer_cancel(s->poll);
        ask(s, "printer.info", NULL, on_printer); /* Klipper's words on it tell whether somebody asked for it */
    } else {
        s->ev.notice(s->user, method, params);
    }
}

struct state *state_new(struct loop *l, struct kp_machine *m, const struct mr_config *cfg, const struct state_events *ev, void *user)
{
    static const struct mr_events up = { on_up, on_down, on_notify };
    struct state *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->loop = l, s->machine = m, s->ev = *ev, s->user = user;
    s->poll = loop_timer_new(l, on_poll, s);
    s->look = loop_timer_new(l, on_look, s);
    s->extra = extra_new();
    s->read_at = json_object();
    s->mr = s->poll && s->look && s->extra && s->read_at ? mr_new(l, cfg, &up, s) : NULL;
    if (!s->mr) {
        state_free(s);
        return NULL;
    }
    return s;
}

void state_free(struct state *s)
{
    if (!s)
        return;
    mr_free(s->mr);
    extra_free(s->extra);
    json_decref(s->read_at);
    loop_timer_free(s->poll);
    loop_timer_free(s->look);
    free(s);
}

struct mr *state_moonraker(struct state *s)
{
    return s->mr;
}

void state_again(struct state *s)
{
    if (mr_connected(s->mr))
        read_all(s);
}

bool state_fresh(const struct state *s)
{
    return s->subscribed && kp_machine_moonraker_connected(s->machine) && kp_machine_klippy_state(s->machine) == KP_KLIPPY_READY &&
           loop_now_ms() - kp_machine_pushed_ms(s->machine) < STATE_FRESH_MS;
}

double state_pushed_wall(const struct state *s)
{
    return s->wall;
}

json_t *state_extra(const struct state *s)
{
    return extra_told(s->extra);
}

void state_extra_metrics(const struct state *s, struct metrics_extra *out)
{
    extra_metrics(s->extra, out);
}

/* ---- one object, now ---- */

struct asker { struct asker *next; state_done *done; void *user; };
/* One question about an object is under way; who asks meanwhile shares the next one: what it tells is from after they asked. */
struct refresh {
    struct state *s;
    struct refresh *next;
    struct asker *asked, *later;
    int64_t timeout_ms;
    char object[];
};

static void refresh_send(struct refresh *q);

static void tell(struct asker *list, bool ok)
{
    while (list) {
        struct asker *a = list;
        list = a->next;
        a->done(a->user, ok);
        free(a);
    }
}

static void refreshed(struct refresh *q, bool ok)
{
    struct asker *asked = q->asked;
    q->asked = NULL;
    tell(asked, ok);
    if (ok && q->later) {
        q->asked = q->later, q->later = NULL;
        refresh_send(q);
        return;
    }
    struct refresh **at = &q->s->refreshes;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    tell(q->later, false);
    free(q);
}

static void on_refreshed(void *user, const struct mr_reply *r)
{
    struct refresh *q = user;
    if (r->outcome == MR_OK) {
        json_object_set(q->s->read_at, q->object, json_object_get(r->result, "eventtime"));
        feed_status(q->s, json_object_get(r->result, "status"));
    }
    refreshed(q, r->outcome == MR_OK);
}

static json_t *one_object(const char *object)
{
    return json_pack("{s:{s:n}}", "objects", object);
}

/* The extra's answer; an error of its own is no reason not to ask Klipper as without it. */
static void on_read(void *user, const struct mr_reply *r)
{
    struct refresh *q = user;
    if (r->outcome == MR_ERROR) {
        extra_read_failed(q->s->extra, r->message);
        if (mr_call(q->s->mr, "printer.objects.query", one_object(q->object), q->timeout_ms, on_refreshed, q))
            return;
    }
    on_refreshed(q, r);
}

/* {"x": "open"}: the endstops as just asked, in the words of their status object. */
static void on_endstops(void *user, const struct mr_reply *r)
{
    struct refresh *q = user;
    const char *name;
    json_t *answer, *last = json_object();
    if (r->outcome == MR_OK)
        json_object_foreach(r->result, name, answer)
            json_object_set_new(last, name, json_integer(json_is_string(answer) && strcmp(json_string_value(answer), "open") != 0));
    json_t *status = json_pack("{s:{s:o}}", "query_endstops", "last_query", last);
    if (r->outcome == MR_OK && status)
        feed_status(q->s, status);
    json_decref(status);
    refreshed(q, r->outcome == MR_OK);
}

static void refresh_send(struct refresh *q)
{
    struct state *s = q->s;
    bool now = extra_reads(s->extra);
    uint64_t id;
    if (!strcmp(q->object, "query_endstops")) /* its status holds only what was last asked */
        id = mr_call(s->mr, "printer.query_endstops.status", NULL, q->timeout_ms, on_endstops, q);
    else
        id = mr_call(s->mr, now ? EXTRA_READ : "printer.objects.query", one_object(q->object), q->timeout_ms, now ? on_read : on_refreshed, q);
    if (!id)
        refreshed(q, false);
}

static struct refresh *refresh_new(struct state *s, const char *object, int64_t timeout_ms)
{
    size_t n = strlen(object) + 1;
    struct refresh *q = malloc(sizeof *q + n);
    if (!q)
        return NULL;
    *q = (struct refresh){ .s = s, .next = s->refreshes, .timeout_ms = timeout_ms };
    memcpy(q->object, object, n);
    s->refreshes = q;
    return q;
}

void state_refresh(struct state *s, const char *object, int64_t timeout_ms, state_done *done, void *user)
{
    struct asker *a = malloc(sizeof *a);
    struct refresh *q = s->refreshes;
    while (q && strcmp(q->object, object))
        q = q->next;
    bool under_way = q != NULL;
    if (!a || (!q && !(q = refresh_new(s, object, timeout_ms)))) {
        free(a);
        done(user, false);
        return;
    }
    *a = (struct asker){ under_way ? q->later : NULL, done, user };
    *(under_way ? &q->later : &q->asked) = a;
    if (!under_way)
        refresh_send(q);
}
