/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The client of Moonraker for app.c and state.c: calls, their order, deadlines and outcomes, and a connection that is made again for ever.
 * Invariant: every call in the list has its done still to come, or (done NULL) bytes still to be written. */
#include "moonraker.h"
#include "circuit.h"
#include "log.h"
#include "loop.h"
#include "metrics.h"
#include "mr_link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define PULSE_MS 250 /* between two looks whether it is there */

/* What Moonraker's errors say: Klipper is not there; a fault of its own, in its words and in those of JSON-RPC. */
enum { GONE = 503, FAULT = 500, RPC_FAULT = -32603 };

enum call_state {
    QUEUED,  /* no byte of it written */
    WRITING, /* at most one */
    WRITTEN,
    REFUSED, /* will not be sent; its done comes at the next turn */
};
enum way { PLAIN, PROBE, URGENT }; /* of mr_call, mr_probe, mr_urgent */

struct call {
    struct call *prev, *next; /* by age */
    uint64_t id;
    enum call_state state;
    enum way way;
    bool open;           /* REFUSED by its breaker */
    int64_t since_ms, deadline_ms; /* deadline 0: none */
    mr_done *done;       /* NULL: nobody wants to know */
    void *user;
    const char *method;
    size_t n;            /* of text, which is followed by MR_UNIX_END */
    char text[];
};

struct mr {
    struct loop *loop;
    struct mr_config cfg; /* strings ours */
    struct mr_events ev;
    void *user;
    const struct mr_link_kind *kind;
    struct mr_link *link;
    struct circuits *circuits;
    bool up, closing;
    struct loop_timer *pulse;
    uint64_t asked;          /* the question whether it is there; 0: none */
    int64_t heard_ms, answered_ms; /* the last message, the last answer */
    bool hangs;              /* was dropped for its silence; until something comes again */
    struct call *first, *last;
    unsigned count, queued;
    struct call *writing;
    size_t written_n;        /* bytes of writing */
    uint64_t last_id, written;
    int64_t retry_ms;        /* before the next connect but one */
    unsigned failures;       /* connects in a row */
    int64_t alarm_ms;        /* when the deadline timer fires; 0: not set */
    struct loop_timer *retry, *deadline, *refuse;
};

/* ---- calls ---- */

static void append(struct mr *m, struct call *c)
{
    c->prev = m->last;
    *(m->last ? &m->last->next : &m->first) = c;
    m->last = c;
    m->count++;
    if (c->state == QUEUED) m->queued++;
}

static void drop(struct mr *m, struct call *c)
{
    *(c->prev ? &c->prev->next : &m->first) = c->next;
    *(c->next ? &c->next->prev : &m->last) = c->prev;
    m->count--;
    if (c->state == QUEUED) m->queued--;
    if (m->writing == c) m->writing = NULL;
    free(c);
}

/* Answers that wait for the machine: none in time says nothing of Moonraker. A script has no deadline at all: until it is answered the lane is taken. */
static const char *const waits_for_machine[] = { "printer.query_endstops.status", "printer.firmware_restart" };

static bool may_wait(const struct call *c)
{
    for (size_t i = 0; i < sizeof waits_for_machine / sizeof *waits_for_machine; i++)
        if (!strcmp(c->method, waits_for_machine[i])) return true;
    return false;
}

/* An emergency stop is no operation of a breaker: nothing that fails may ever stand before it. */
static void count(struct mr *m, const struct call *c, const struct mr_reply *r)
{
    bool answered = r->outcome == MR_OK || (r->outcome == MR_ERROR && r->code != GONE);
    if (m->up && c->way != URGENT && (r->failed || answered)) circuit_told(m->circuits, c->method, !r->failed, r->message);
}

/* Tells the outcome and forgets the call. While half of it is written the rest must follow, so the call stays for that, unless the link is gone. */
static void finish(struct mr *m, struct call *c, const struct mr_reply *reply)
{
    mr_done *done = c->done;
    void *user = c->user;

    count(m, c, reply);
    if (c->state == WRITING && m->up) {
        c->done = NULL;
        c->deadline_ms = 0;
    } else drop(m, c);
    if (done) done(user, reply);
}

static void finish_plain(struct mr *m, struct call *c, enum mr_outcome outcome, const char *message)
{
    struct mr_reply reply = { .outcome = outcome, .message = message };
    finish(m, c, &reply);
}

/* Ends every call up to id `last` that is in the list now; done may add and forget calls, so each look-up starts anew. */
static void finish_all(struct mr *m, uint64_t last, bool only_refused, const char *message)
{
    struct call *c = m->first;
    while (c && c->id <= last) {
        bool refused = c->state == REFUSED;
        if (only_refused && !refused) {
            c = c->next;
            continue;
        }
        finish_plain(m, c, c->open ? MR_OPEN : refused || c->state == QUEUED ? MR_NOT_SENT : MR_LOST, message);
        c = m->first;
    }
}

static struct call *find(const struct mr *m, uint64_t id)
{
    struct call *c = m->first;
    while (c && c->id != id) c = c->next;
    return c;
}

static void set_alarm(struct mr *m, int64_t deadline_ms)
{
    int64_t now_ms = loop_now_ms();
    if (m->alarm_ms && m->alarm_ms <= deadline_ms) return;
    m->alarm_ms = deadline_ms;
    loop_timer_set(m->deadline, deadline_ms > now_ms ? deadline_ms - now_ms : 0);
}

static void on_deadline(void *user)
{
    struct mr *m = user;
    int64_t now_ms = loop_now_ms();
    struct call *c = m->first;

    m->alarm_ms = 0;
    while (c) {
        if (!c->deadline_ms || c->deadline_ms > now_ms) {
            c = c->next;
            continue;
        }
        struct mr_reply reply = { .outcome = c->state == QUEUED || c->state == REFUSED ? MR_NOT_SENT : MR_TIMEOUT, .message = "no answer in time" };
        reply.failed = m->up && c->state != REFUSED && !may_wait(c);
        finish(m, c, &reply);
        c = m->first;
    }
    for (c = m->first; c; c = c->next)
        if (c->deadline_ms) set_alarm(m, c->deadline_ms);
}

static void on_refuse(void *user)
{
    struct mr *m = user;
    finish_all(m, m->last_id, true, "not connected, too many calls wait, or this one has failed too often");
}

/* ---- what the link asks and tells ---- */

static struct call *next_to_write(const struct mr *m)
{
    struct call *first = NULL;
    if (m->writing) return m->writing;
    if (!m->queued) return NULL;
    for (struct call *c = m->first; c; c = c->next) {
        if (c->state != QUEUED) continue;
        if (c->way == URGENT) return c;
        if (!first) first = c;
    }
    return first;
}

static const char *on_peek(void *user, size_t *n)
{
    struct mr *m = user;
    struct call *c = next_to_write(m);
    size_t begun = c && c == m->writing ? m->written_n : 0;
    if (!c) return NULL;
    *n = c->n - begun;
    return c->text + begun;
}

static void on_wrote(void *user, size_t n)
{
    struct mr *m = user;
    struct call *c = next_to_write(m);

    if (!m->writing) {
        m->writing = c;
        m->written_n = 0;
        m->written++;
        if (m->cfg.metrics) metrics_upstream(m->cfg.metrics, c->method);
        m->queued--;
        c->state = WRITING;
    }
    m->written_n += n;
    if (m->written_n < c->n + (m->kind->counts_end ? 1 : 0)) return;
    m->writing = NULL;
    c->state = WRITTEN;
    if (!c->done) drop(m, c);
}

static void on_up(void *user)
{
    struct mr *m = user;
    m->up = true;
    m->failures = 0;
    m->heard_ms = m->answered_ms = loop_now_ms();
    if (m->cfg.answers) loop_timer_set(m->pulse, PULSE_MS);
    circuits_connected(m->circuits);
    if (!m->hangs) log_line(LOG_INFO, m->cfg.name, "connected by=%s", m->kind->name);
    if (m->ev.up) m->ev.up(m->user);
}

static void on_down(void *user, const char *why)
{
    struct mr *m = user;
    bool was_up = m->up;
    enum log_level level = !m->hangs && (was_up || !m->failures++) ? LOG_WARNING : LOG_DEBUG;

    m->up = false;
    m->writing = NULL;
    log_line(level, m->cfg.name, "%s by=%s why=\"%s\" retry_ms=%lld", was_up ? "lost" : "unreachable", m->kind->name, why, (long long)m->retry_ms);
    loop_timer_set(m->retry, m->retry_ms);
    m->retry_ms = m->retry_ms * 2 < MR_RETRY_MAX_MS ? m->retry_ms * 2 : MR_RETRY_MAX_MS;
    finish_all(m, m->last_id, false, why);
    if (was_up && m->ev.down) m->ev.down(m->user, why);
}

static void on_retry(void *user)
{
    struct mr *m = user;
    m->kind->connect(m->link);
}

static void answer(struct mr *m, uint64_t id, json_t *message)
{
    json_t *result = json_object_get(message, "result"), *error = json_object_get(message, "error");
    const char *text = json_string_value(json_object_get(error, "message"));
    struct call *c = find(m, id);
    struct mr_reply reply = { .outcome = MR_OK, .result = result };

    m->answered_ms = m->heard_ms;
    if (!c || c->state != WRITTEN) return; /* late, or forgotten */
    if (error || !result) {
        reply = (struct mr_reply){ .outcome = MR_ERROR, .message = text ? text : "an answer without result or message" };
        reply.code = (int)json_integer_value(json_object_get(error, "code"));
        reply.failed = reply.code == FAULT || reply.code == RPC_FAULT;
    }
    finish(m, c, &reply);
}

static void on_message(void *user, char *text, size_t n)
{
    struct mr *m = user;
    json_error_t e;
    /* \u0000 in somebody's console line must not cost us the message. */
    json_t *message = json_loadb(text, n, JSON_ALLOW_NUL, &e);
    json_int_t id = json_integer_value(json_object_get(message, "id"));
    const char *method = json_string_value(json_object_get(message, "method"));

    if (m->hangs) log_line(LOG_INFO, m->cfg.name, "answers again by=%s", m->kind->name);
    m->hangs = false;
    m->heard_ms = loop_now_ms();
    m->retry_ms = MR_RETRY_MIN_MS; /* this connection works; one that only opens and breaks does not get here */
    if (!json_is_object(message)) log_line(LOG_WARNING, m->cfg.name, "unreadable message bytes=%zu error=\"%s\"", n, e.text);
    else if (method && m->ev.notify) m->ev.notify(m->user, method, json_object_get(message, "params"));
    else if (!method && id > 0) answer(m, (uint64_t)id, message);
    else if (!method) log_line(LOG_WARNING, m->cfg.name, "answer without an id bytes=%zu", n);
    json_decref(message);
}

/* ---- whether it is there ---- */

/* Its socket is open and nobody answers: what is with it would never end. */
static void drop_hung(struct mr *m)
{
    if (!m->hangs) log_line(LOG_WARNING, m->cfg.name, "hangs by=%s: connected anew until it answers", m->kind->name);
    m->hangs = true;
    m->kind->drop(m->link);
}

static uint64_t submit(struct mr *m, enum way way, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user);

static void on_there(void *user, const struct mr_reply *r)
{
    struct mr *m = user;
    m->asked = 0;
    if (m->up && (r->outcome == MR_TIMEOUT || r->outcome == MR_NOT_SENT)) drop_hung(m);
}

/* A call waits, and nothing has been answered meanwhile: pushes may come all the same, on a line that is dead in one direction. */
static bool waits_in_vain(const struct mr *m, int64_t now_ms)
{
    for (const struct call *c = m->first; c; c = c->next)
        if (now_ms - c->since_ms >= MR_SILENT_MS && now_ms - m->answered_ms >= MR_SILENT_MS) return true;
    return false;
}

static void on_pulse(void *user)
{
    struct mr *m = user;
    int64_t now_ms = loop_now_ms();
    if (!m->up) return;
    if (!m->asked && (now_ms - m->heard_ms >= MR_SILENT_MS || waits_in_vain(m, now_ms)))
        m->asked = submit(m, PROBE, "server.info", NULL, MR_HANGS_MS, on_there, m);
    loop_timer_set(m->pulse, PULSE_MS);
}

static const struct mr_link_events link_events = { on_up, on_down, on_message, on_peek, on_wrote };

/* ---- public ---- */

/* Gives a call with its text. method is a constant of ours: it needs no escaping. NULL: out of memory. */
static struct call *call_new(uint64_t id, const char *method, const json_t *params)
{
    char *p = params ? json_dumps(params, JSON_COMPACT) : NULL;
    size_t size = strlen(method) + (p ? strlen(p) : 0) + 96;
    struct call *c = params && !p ? NULL : malloc(sizeof *c + size);

    if (c) {
        *c = (struct call){ .id = id, .method = method };
        c->n = (size_t)snprintf(c->text, size, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\"%s%s,\"id\":%llu}", method, p ? ",\"params\":" : "", p ? p : "",
                                (unsigned long long)id);
        c->text[c->n] = MR_UNIX_END;
    }
    free(p);
    return c;
}

static uint64_t submit(struct mr *m, enum way way, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user)
{
    struct call *c = m->closing ? NULL : call_new(m->last_id + 1, method, params);

    assert(timeout_ms > 0 || !strcmp(method, "printer.gcode.script")); /* nothing else may wait for ever */
    json_decref(params);
    if (!c) return 0;
    m->last_id++;
    c->way = way;
    c->open = m->up && way == PLAIN && !circuit_allows(m->circuits, method);
    c->done = done;
    c->user = user;
    c->since_ms = loop_now_ms();
    c->deadline_ms = timeout_ms ? c->since_ms + timeout_ms : 0;
    c->state = m->up && !c->open && m->count < MR_CALLS_MAX ? QUEUED : REFUSED;
    append(m, c);
    if (c->deadline_ms) set_alarm(m, c->deadline_ms);
    if (c->state == REFUSED) loop_timer_set(m->refuse, 0);
    else m->kind->wake(m->link);
    return m->last_id;
}

uint64_t mr_call(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user)
{
    return submit(m, PLAIN, method, params, timeout_ms, done, user);
}

uint64_t mr_probe(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user)
{
    return submit(m, PROBE, method, params, timeout_ms, done, user);
}

uint64_t mr_urgent(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user)
{
    return submit(m, URGENT, method, params, timeout_ms, done, user);
}

void mr_forget(struct mr *m, uint64_t id)
{
    struct call *c = find(m, id);
    if (!c) return;
    c->done = NULL;
    finish_plain(m, c, MR_LOST, NULL);
}

void mr_retried(struct mr *m, const char *method)
{
    if (m->cfg.metrics) metrics_upstream_retried(m->cfg.metrics, method);
}

double mr_jitter(void)
{
    uint16_t drawn = 0;
    if (getrandom(&drawn, sizeof drawn, GRND_NONBLOCK) != (ssize_t)sizeof drawn) return 0.5;
    return drawn / 65535.0;
}

void mr_back(struct mr *m)
{
    circuits_back(m->circuits);
}

bool mr_connected(const struct mr *m)
{
    return m->up;
}

uint64_t mr_calls(const struct mr *m)
{
    return m->written;
}

/* Printable ASCII only: the key goes into a header as it is. */
static bool key_is_sound(const char *key)
{
    for (; key && *key; key++)
        if (*key < 0x21 || *key > 0x7e) return false;
    return true;
}

struct mr *mr_new(struct loop *l, const struct mr_config *cfg, const struct mr_events *ev, void *user)
{
    struct mr *m = key_is_sound(cfg->api_key) ? calloc(1, sizeof *m) : NULL;
    if (!m) return NULL;
    *m = (struct mr){ .loop = l, .ev = *ev, .user = user, .retry_ms = MR_RETRY_MIN_MS, .cfg = { .port = cfg->port, .answers = cfg->answers, .metrics = cfg->metrics } };
    m->kind = cfg->socket && *cfg->socket ? &mr_unix : &mr_ws;
    m->cfg.name = cfg->name ? cfg->name : "moonraker";
    m->cfg.socket = strdup(cfg->socket ? cfg->socket : "");
    m->cfg.host = strdup(cfg->host ? cfg->host : "127.0.0.1");
    m->cfg.api_key = strdup(cfg->api_key ? cfg->api_key : "");
    m->retry = loop_timer_new(l, on_retry, m);
    m->deadline = loop_timer_new(l, on_deadline, m);
    m->refuse = loop_timer_new(l, on_refuse, m);
    m->pulse = loop_timer_new(l, on_pulse, m);
    m->circuits = circuits_new(cfg->metrics);
    if (m->circuits && m->cfg.socket && m->cfg.host && m->cfg.api_key && m->retry && m->deadline && m->refuse && m->pulse)
        m->link = m->kind->new(l, &m->cfg, &link_events, m);
    if (!m->link) {
        mr_free(m);
        return NULL;
    }
    loop_timer_set(m->retry, 0);
    return m;
}

void mr_free(struct mr *m)
{
    if (!m) return;
    m->closing = true;
    m->up = false;
    m->writing = NULL;
    if (m->link) m->kind->free(m->link);
    finish_all(m, m->last_id, false, "shutting down");
    loop_timer_free(m->retry);
    loop_timer_free(m->deadline);
    loop_timer_free(m->refuse);
    loop_timer_free(m->pulse);
    circuits_free(m->circuits);
    free((char *)m->cfg.socket);
    free((char *)m->cfg.host);
    free((char *)m->cfg.api_key);
    free(m);
}
