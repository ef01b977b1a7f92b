/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The mirror of Klipper's state, for app and lane. Invariant: the machine says "ready" only after all that Klipper is made of has been read since it
 * was last away. */
#include "state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "extra.h"
#include "json.h"
#include "log.h"
#include "loop.h"
#include "moonraker.h"
#include "refresh.h"

#define CALL_MS 5000       /* deadline of each question asked while reading everything */
#define POLL_MS 500        /* server.info while Klipper is not ready: an error at its start sends no notification */
#define READING "its state is being read again"
#define SILENT_POLLS 4     /* so many without a push between, and everything is read again */

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
    struct refreshes *refreshes; /* questions about single objects */
    uint64_t asked;        /* the question of the reading under way; 0: none */
    double wall;           /* s since the epoch of the last push */
    bool had_klipper;      /* Moonraker has had one on this connection */
    bool subscribed;       /* everything has been read; pushes come */
    int misses;            /* polls in a row without a push while subscribed */
    int64_t polled_push_ms;
    int64_t fed_ms;        /* when the last push was fed, of whichever Klipper */
    bool stale;            /* pushes have stopped, and that was told */
    unsigned retries;      /* readings in a row that began because a question had failed */
    bool unanswered;       /* the last of them because no answer came */
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

/* As Klipper was told to be. */
struct klippy { enum kp_klippy state; char message[KP_TEXT_MAX]; };

static struct klippy klippy_now(const struct state *s)
{
    struct klippy now = { .state = kp_machine_klippy_state(s->machine) };
    snprintf(now.message, sizeof now.message, "%s", kp_machine_klippy_message(s->machine));
    return now;
}

static void set_klippy_from(struct state *s, const struct klippy *was, enum kp_klippy to, const char *message)
{
    bool same = to == was->state && !strcmp(message, was->message);
    if (same && !strcmp(message, kp_machine_klippy_message(s->machine)))
        return;
    if (to != was->state)
        log_line(to == KP_KLIPPY_READY ? LOG_INFO : LOG_WARNING, "state", "klipper=%s message=\"%s\"", kp_klippy_name(to), message);
    kp_machine_time(s->machine, loop_now_ms());
    kp_machine_klippy(s->machine, to, message);
    if (!same)
        s->ev.changed(s->user);
}

static void set_klippy(struct state *s, enum kp_klippy to, const char *message)
{
    const struct klippy was = klippy_now(s);
    set_klippy_from(s, &was, to, message);
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

/* The machine has been fed with these fields: what they change is seen by how it was before. */
static void webhooks(struct state *s, const struct klippy *was, json_t *fields)
{
    const char *name = json_string_value(json_object_get(fields, "state"));
    const char *message = json_string_value(json_object_get(fields, "state_message"));
    if (!name && !message)
        return;
    enum kp_klippy to = name ? klippy_of(name) : kp_machine_klippy_state(s->machine);
    set_klippy_from(s, was, to, to == KP_KLIPPY_READY || !message ? "" : message);
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

/* Pushes have stopped, or come again: each is told once. */
static void set_stale(struct state *s, bool stale)
{
    if (s->stale == stale)
        return;
    s->stale = stale;
    log_line(stale ? LOG_WARNING : LOG_INFO, "state", stale ? "reads=stale why=\"no push for %lld ms\"" : "reads=fresh silent_ms=%lld",
             (long long)(loop_now_ms() - s->fed_ms));
    if (stale)
        s->ev.changed(s->user); /* fresh ones are told by the push */
}

static void feed_push(struct state *s, json_t *status)
{
    const struct klippy was = klippy_now(s);
    feed_status(s, status);
    set_stale(s, false);
    s->fed_ms = loop_now_ms();
    s->wall = wall_now();
    kp_machine_pushed(s->machine, loop_now_ms());
    webhooks(s, &was, json_object_get(status, "webhooks"));
    s->ev.pushed(s->user);
}

static void poll_later(struct state *s)
{
    loop_timer_set(s->poll, POLL_MS);
}

static void ask(struct state *s, const char *method, json_t *params, mr_done *done)
{
    mr_forget(s->mr, s->asked);
    s->asked = mr_probe(s->mr, method, params, CALL_MS, done, s); /* only this reading finds out that Klipper is back: no breaker stands before it */
    if (!s->asked)
        poll_later(s);
}

/* The reading starts again: at the pace of retries when a question failed, else with the next poll. After the last retry the pace begins anew. */
static void read_later(struct state *s, const struct mr_reply *r, const char *what)
{
    int64_t wait_ms = r->failed ? kp_breaker_retry_ms(s->retries, mr_jitter(), 0, INT64_MAX) : POLL_MS;
    s->unanswered = r->failed && r->outcome != MR_ERROR;
    s->retries = wait_ms < 0 ? 0 : s->retries + r->failed;
    if (r->failed)
        mr_retried(s->mr, what);
    loop_timer_set(s->poll, wait_ms < 0 ? POLL_MS : wait_ms);
}

/* True when the answer is good; else the reading starts again. */
static bool answered(struct state *s, const struct mr_reply *r, const char *what)
{
    s->asked = 0;
    if (r->outcome == MR_OK)
        return true;
    log_line(LOG_DEBUG, "state", "asked=%s outcome=%d message=\"%s\"", what, (int)r->outcome, r->message ? r->message : "");
    read_later(s, r, what);
    return false;
}

static void on_subscribed(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (!answered(s, r, "printer.objects.subscribe"))
        return;
    s->subscribed = true;
    s->misses = 0;
    s->retries = 0;
    mr_back(s->mr);
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
    if (!answered(s, r, "printer.objects.query"))
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
            struct kp_value v = json_setting(value, &list);
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
    if (!answered(s, r, "printer.objects.list"))
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
        s->had_klipper = true;
        if (kp_machine_klippy_state(s->machine) == KP_KLIPPY_GONE)
            set_klippy(s, KP_KLIPPY_STARTUP, READING); /* it is there, and not gone as before */
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
    s->unanswered = false;
    loop_timer_cancel(s->poll);
    if (kp_machine_klippy_state(s->machine) == KP_KLIPPY_READY) {
        log_line(LOG_WARNING, "state", "klipper=%s message=\"%s\"", kp_klippy_name(KP_KLIPPY_STARTUP), READING);
        kp_machine_time(s->machine, loop_now_ms());
        kp_machine_reading(s->machine, READING);
        s->ev.changed(s->user);
    }
    ask(s, "server.info", NULL, on_server);
}

/* While subscribed, pushes come four times a second; some polls without one mean that the subscription is gone, or Klipper or Moonraker hangs. */
static void on_poll(void *user)
{
    struct state *s = user;
    if (!mr_connected(s->mr) || s->asked)
        return;
    int64_t last = kp_machine_pushed_ms(s->machine);
    s->misses = last == s->polled_push_ms ? s->misses + 1 : 0;
    s->polled_push_ms = last;
    if (s->subscribed && loop_now_ms() - s->fed_ms >= STATE_FRESH_MS)
        set_stale(s, true);
    if (!s->subscribed || s->misses >= SILENT_POLLS)
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

/* Connected is only who answers: a Moonraker that hangs takes connections all the same. */
static void on_identified(void *user, const struct mr_reply *r)
{
    struct state *s = user;
    if (r->outcome != MR_OK)
        log_line(LOG_WARNING, "state", "identify outcome=%d message=\"%s\"", (int)r->outcome, r->message ? r->message : "");
    if (!mr_connected(s->mr))
        return;
    log_line(LOG_INFO, "state", "moonraker=connected");
    kp_machine_moonraker(s->machine, true);
    s->ev.changed(s->user);
    read_all(s);
}

static void on_up(void *user)
{
    struct state *s = user;
    extra_connected(s->extra);
    s->retries = 0;
    mr_probe(s->mr, "server.connection.identify", json_pack("{s:s,s:s,s:s,s:s}", "client_name", "klipperplace", "version", kp_version(), "type", "agent", "url",
             "http://127.0.0.1/"), CALL_MS, on_identified, s);
}

static void on_down(void *user, const char *why)
{
    struct state *s = user;
    bool was = kp_machine_moonraker_connected(s->machine);
    s->subscribed = s->had_klipper = false;
    s->asked = 0;
    loop_timer_cancel(s->poll);
    refreshes_down(s->refreshes);
    if (!was)
        return;
    log_line(LOG_WARNING, "state", "moonraker=disconnected why=\"%s\"", why);
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
        if (s->unanswered && !s->subscribed && !s->asked) /* Klipper hung, and lives again: no wait for the next retry */
            read_all(s);
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
        s->had_klipper = true;
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

bool state_saw_it_go(const struct state *s)
{
    return s->had_klipper && kp_machine_klippy_state(s->machine) == KP_KLIPPY_GONE;
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

static void on_fed(void *user, int64_t asked_ms, json_t *eventtime, json_t *status)
{
    struct state *s = user;
    const char *object;
    json_t *fields;
    if (eventtime)
        json_object_foreach(status, object, fields)
            json_object_set(s->read_at, object, eventtime);
    feed_status(s, status);
    if (json_object_get(status, "gcode_move"))
        kp_machine_asked(s->machine, asked_ms);
}

void state_refresh(struct state *s, const char *objects, int64_t timeout_ms, refresh_done *done, void *user)
{
    refresh_objects(s->refreshes, objects, timeout_ms, done, user);
}

/* ---- its life ---- */

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
    s->refreshes = s->mr ? refreshes_new(l, s->mr, s->extra, on_fed, s) : NULL;
    if (!s->refreshes) {
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
    refreshes_free(s->refreshes);
    extra_free(s->extra);
    json_decref(s->read_at);
    loop_timer_free(s->poll);
    loop_timer_free(s->look);
    free(s);
}
