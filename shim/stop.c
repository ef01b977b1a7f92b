/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The two ways of an emergency stop, for app. Invariant: a stop that was asked for is owed until somebody has confirmed it or Klipper was seen stopped. */
#include "stop.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "loop.h"
#include "moonraker.h"

#define ASK_MS 5000
#define PAUSE_US 1000 /* of us, and with us of Moonraker, once Klipper has the stop: they would take the processor that it needs. Measured by scripts/bench stop */

struct stop {
    struct loop *loop;
    struct mr *moonraker, *klipper; /* klipper NULL: its socket is not known */
    const struct kp_config *config;
    stop_done *done;
    void *user;
    struct loop_timer *second;
    uint64_t calls[2];              /* under way by either; 0: none */
    char *path;                     /* of Klipper's socket */
    bool gone;                      /* Moonraker saw Klipper go, and no new one yet */
    bool owed, asked;               /* asked: where that socket is */
    bool untold;                    /* sent, and done has not come: Klipper may be seen stopped before the confirmation comes */
    bool patient;                   /* Moonraker still has its time to confirm */
    bool stopped;                   /* meanwhile Klipper itself has confirmed */
};

/* ---- Klipper's own socket ---- */

static void on_klipper_up(void *user)
{
    struct stop *s = user;
    if (s->owed) /* also past a Moonraker that is connected: it may hang */
        stop_send(s);
}

/* Neither Moonraker nor its socket knows a Klipper: the process is gone and drives nothing any more. A new one begins with nothing under way. */
static void forget_the_dead(struct stop *s)
{
    if (s->owed && s->klipper && !mr_connected(s->klipper) && s->gone)
        stop_forget(s);
}

static void on_klipper_down(void *user, const char *why)
{
    (void)why;
    forget_the_dead(user);
}

static void use_socket(struct stop *s, const char *path)
{
    static const struct mr_events ev = { .up = on_klipper_up, .down = on_klipper_down };
    if (s->path && !strcmp(s->path, path))
        return;
    mr_free(s->klipper);
    free(s->path);
    s->calls[1] = 0;
    s->path = strdup(path);
    struct mr_config cfg = { .socket = s->path, .name = "klipper" };
    s->klipper = s->path ? mr_new(s->loop, &cfg, &ev, s) : NULL;
}

static void on_config(void *user, const struct mr_reply *r)
{
    struct stop *s = user;
    const char *path = NULL;
    if (r->outcome == MR_OK)
        path = json_string_value(json_object_get(json_object_get(json_object_get(r->result, "config"), "server"), "klippy_uds_address"));
    if (path && path[0] == '/')
        use_socket(s, path);
    else
        log_line(LOG_WARNING, "stop", "klipper_socket=unknown: an emergency stop has one way only");
}

/* A path that Moonraker tells is one of its machine; elsewhere the same path may be another Klipper's. */
static bool moonraker_is_here(const struct kp_config *c)
{
    const char *socket = kp_config_str(c, "api", "moonraker_socket"), *host = kp_config_str(c, "api", "moonraker_host");
    return (socket && *socket) || (host && (!strcmp(host, "localhost") || !strncmp(host, "127.", 4) || !strcmp(host, "::1")));
}

static void find_socket(struct stop *s)
{
    if (kp_config_str(s->config, "api", "klipper_socket") || !moonraker_is_here(s->config))
        return;
    if (!mr_connected(s->moonraker))
        s->asked = false;
    else if (!s->asked)
        s->asked = mr_call(s->moonraker, "server.config", NULL, ASK_MS, on_config, s) != 0;
}

/* ---- a stop ---- */

static const char *const names[] = { "moonraker", "klipper" };

static void tell(struct stop *s, int way)
{
    if (!s->untold)
        return;
    s->untold = false;
    stop_forget(s);
    s->done(s->user, names[way]);
}

/* Klipper's own word counts when Moonraker's time is over: before that the mirror, which comes from Moonraker, would still show a Klipper that is ready. */
static void confirmed(struct stop *s, int way, const struct mr_reply *r)
{
    s->calls[way] = 0;
    if (r->outcome != MR_OK) {
        log_line(LOG_ERROR, "stop", "unconfirmed by=%s outcome=%d message=\"%s\"", names[way], (int)r->outcome, r->message ? r->message : "");
        forget_the_dead(s);
    } else if (way && s->patient) {
        s->stopped = true;
    } else {
        tell(s, way);
    }
}

static void on_moonraker(void *user, const struct mr_reply *r)
{
    confirmed(user, 0, r);
}

static void on_klipper(void *user, const struct mr_reply *r)
{
    confirmed(user, 1, r);
}

/* False: not sent, or under way already. */
static bool send_second(struct stop *s)
{
    if ((!s->owed && !s->untold) || s->calls[1] || !stop_second_way(s)) /* Klipper seen stopped is not yet the answer to who waits for one */
        return false;
    s->calls[1] = mr_urgent(s->klipper, "emergency_stop", NULL, stop_timeout_ms(s), on_klipper, s);
    return true;
}

static void on_second(void *user)
{
    struct stop *s = user;
    s->patient = false;
    if (s->stopped)
        tell(s, 1);
    else if (send_second(s))
        log_line(LOG_CRITICAL, "stop", "sent by=klipper");
}

void stop_send(struct stop *s)
{
    s->patient = mr_connected(s->moonraker);
    s->stopped = false;
    s->owed = s->untold = true;
    if (send_second(s)) /* the shorter way */
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_US * 1000 }, NULL);
    if (!s->calls[0] && s->patient)
        s->calls[0] = mr_urgent(s->moonraker, "printer.emergency_stop", NULL, stop_timeout_ms(s), on_moonraker, s);
    log_line(LOG_CRITICAL, "stop", "sent moonraker=%s klipper=%s", s->calls[0] ? "yes" : "no", s->calls[1] ? "yes" : "no");
    loop_timer_set(s->second, s->patient ? STOP_SECOND_MS : 0);
}

void stop_changed(struct stop *s, enum kp_klippy klippy, bool gone)
{
    s->gone = gone;
    find_socket(s);
    if (klippy == KP_KLIPPY_SHUTDOWN)
        s->owed = false;
    if (s->owed && klippy == KP_KLIPPY_READY)
        stop_send(s);
    forget_the_dead(s);
}

void stop_forget(struct stop *s)
{
    s->owed = false;
    loop_timer_cancel(s->second);
}

bool stop_owed(const struct stop *s)
{
    return s->owed;
}

bool stop_second_way(const struct stop *s)
{
    return s->klipper && mr_connected(s->klipper);
}

int64_t stop_timeout_ms(const struct stop *s)
{
    return (int64_t)(kp_config_num(s->config, "safety", "emergency_stop_timeout") * 1000);
}

struct stop *stop_new(struct loop *l, struct mr *moonraker, const struct kp_config *c, stop_done *done, void *user)
{
    struct stop *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->loop = l, s->moonraker = moonraker, s->config = c, s->done = done, s->user = user;
    if (!(s->second = loop_timer_new(l, on_second, s))) {
        free(s);
        return NULL;
    }
    if (kp_config_str(c, "api", "klipper_socket"))
        use_socket(s, kp_config_str(c, "api", "klipper_socket"));
    return s;
}

void stop_free(struct stop *s)
{
    if (!s)
        return;
    mr_forget(s->moonraker, s->calls[0]);
    mr_free(s->klipper);
    loop_timer_free(s->second);
    free(s->path);
    free(s);
}
