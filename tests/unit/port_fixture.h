/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A session of the G-code port with a stand-in for lane, Klipper and clock behind it, for its unit test and its fuzz target. */
#ifndef PORT_FIXTURE_H
#define PORT_FIXTURE_H

#include "gcode_fixture.h"
#include "gcode_session.h"
#include "log.h"

#define PORT_LOG_MAX 65536

struct port_rig {
    struct gcode_rig r;              /* the machine; r.at is where Klipper has the head */
    struct gcode_session *s;
    struct gcode_options options;
    struct gcode_up up;
    struct lane_script script;       /* in flight when done is set */
    lane_done *done;
    void *user;
    size_t unread;                   /* of the client's bytes, by the session */
    int64_t now_ms;
    unsigned stops, scripts;
    uint64_t movers;                 /* as lane_movers */
    bool full;                       /* the lane takes nothing */
    bool behind;                     /* the script in flight has not begun: another command runs */
    char log[PORT_LOG_MAX];          /* every script, one line each, its own lines joined by "; " */
    void (*submitted)(struct port_rig *p);
};

static inline struct lane_job *port_submit(void *to, const struct lane_script *s, lane_done *done, void *user, struct kp_faults *f)
{
    struct port_rig *p = to;
    struct kp_error e;
    if (p->done)
        abort();
    if (p->full || kp_safety_latched(p->r.m) || kp_machine_klippy_state(p->r.m) != KP_KLIPPY_READY) { /* the lane's gate */
        kp_error_set(&e, p->full ? KP_QUEUE_FULL : KP_KLIPPY_DISCONNECTED, NULL, p->full ? "the lane is full" : "Klipper is not ready");
        kp_faults_add(f, &e);
        return NULL;
    }
    p->script = *s, p->done = done, p->user = user;
    p->scripts++;
    p->movers += s->axis_count > 0 || strstr(s->text, "G1 ") || strstr(s->text, "G28");
    size_t n = strlen(p->log);
    for (const char *c = s->text; *c && n + 4 < sizeof p->log; c++) {
        p->log[n++] = *c == '\n' ? ';' : *c;
        if (*c == '\n')
            p->log[n++] = ' ';
    }
    if (n + 4 < sizeof p->log)
        memcpy(p->log + n, "\n", 2);
    if (p->submitted)
        p->submitted(p);
    return (struct lane_job *)p;
}

static inline bool port_take_back(void *to, struct lane_job *job)
{
    struct port_rig *p = to;
    (void)job;
    if (p->behind)
        p->done = NULL;
    return p->behind;
}

static inline uint64_t port_movers(void *to) { return ((struct port_rig *)to)->movers; }
static inline size_t port_unread(void *to, void *client) { (void)client; return ((struct port_rig *)to)->unread; }
static inline int64_t port_now_ms(void *to) { return ((struct port_rig *)to)->now_ms; }
static inline void port_look(void *to, int64_t in_ms) { (void)to, (void)in_ms; }
static inline void port_wake(void *to, void *client) { (void)to, (void)client; }

/* What the lane does at an emergency stop: the script in flight has failed. */
static inline void port_fail(struct port_rig *p, enum kp_err code, const char *text)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    lane_done *done = p->done;
    if (!done)
        return;
    kp_error_set(&e, code, NULL, "%s", text);
    kp_faults_add(&f, &e);
    p->done = NULL;
    done(p->user, &(struct lane_outcome){ .faults = &f, .step = "", .klipper = "", .console = "" });
}

static inline void port_stop(void *to)
{
    struct port_rig *p = to;
    p->stops++;
    kp_safety_latch(p->r.m, true, "M112");
    port_fail(p, KP_EMERGENCY_STOP_ACTIVE, "the machine was stopped: M112");
}

/* Where a script's G1 lines end. */
static inline void port_walk(struct port_rig *p, const char *l)
{
    for (; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
        for (int i = 0; i < 3 && strncmp(l, "G1 ", 3) == 0; i++) {
            const char key[] = { ' ', "XYZ"[i], 0 }, *end = strchr(l, '\n'), *at = strstr(l, key);
            if (at && (!end || at < end))
                p->r.at[i] = strtod(at + 2, NULL);
        }
}

/* Klipper has accepted the script in flight. False: there is none. */
static inline bool port_answer(struct port_rig *p)
{
    struct kp_faults f = { .count = 0 };
    char console[128] = "";
    lane_done *done = p->done;
    if (!done)
        return false;
    p->now_ms++;
    port_walk(p, p->script.text);
    if (strstr(p->script.text, "G28 X") || strncmp(p->script.text, "G28", 4) == 0)
        p->r.at[0] = p->r.at[1] = p->r.at[2] = 0;
    if (strstr(p->script.text, "M114"))
        snprintf(console, sizeof console, "X:%.3f Y:%.3f Z:%.3f E:0.000", p->r.at[0], p->r.at[1], p->r.at[2]);
    if (strstr(p->script.text, "QUERY_ENDSTOPS"))
        snprintf(console, sizeof console, "x:open y:open z:TRIGGERED");
    for (size_t i = 0; i < p->script.write_count; i++)
        kp_machine_pin_written(p->r.m, p->script.writes[i].pin, p->script.writes[i].value, p->now_ms);
    for (size_t i = 0; i < p->script.axis_count; i++)
        kp_machine_axis_written(p->r.m, p->script.axes[i].axis, p->script.axes[i].position, p->script.axes[i].homed);
    kp_machine_moved(p->r.m, p->r.at, p->now_ms);
    p->done = NULL;
    done(p->user, &(struct lane_outcome){ .faults = &f, .step = "", .klipper = "", .console = console });
    return true;
}

/* Klipper's next push, 250 ms later. */
static inline void port_push(struct port_rig *p)
{
    p->now_ms += 250;
    kp_machine_status(p->r.m, kp_str_of("gcode_move"), kp_str_of("position"), &(struct kp_value){ .kind = KP_NUMS, .nums = p->r.at, .count = 3 }, p->now_ms);
    kp_machine_pushed(p->r.m, p->now_ms);
    gcode_session_pushed(p->s);
}

static inline void port_klippy(struct port_rig *p, enum kp_klippy to)
{
    kp_machine_klippy(p->r.m, to, "");
    if (to != KP_KLIPPY_READY) {
        port_fail(p, KP_KLIPPY_DISCONNECTED, "Klipper is not ready: shutdown");
    } else {
        kp_safety_release(p->r.m);
        fixture_status(p->r.m);
        tell_point(p->r.m, "gcode_move", "position", p->r.at[0], p->r.at[1], p->r.at[2]);
    }
    gcode_session_changed(p->s);
}

static inline void port_feed(struct port_rig *p, const char *bytes, size_t n)
{
    while (n > 0) {
        size_t room = gcode_session_room(p->s), take = n < room ? n : room;
        if (take == 0)
            return;
        gcode_session_take(p->s, bytes, take);
        bytes += take, n -= take;
    }
}

/* A new client. */
static inline void port_connect(struct port_rig *p)
{
    gcode_session_free(p->s);
    p->s = gcode_session_new(p->r.m, &p->options, &p->up, NULL);
}

/* Ready, homed, at 100 50 0, sensors at -45.2 and -3.1; the client has been told where the head is, a second ago. */
static inline void port_open(struct port_rig *p, bool ack, const char *home_script)
{
    memset(p, 0, sizeof *p);
    log_setup(LOG_CRITICAL, false);
    if (!rig_open(&p->r, "port"))
        abort();
    tell(p->r.m, "temperature_sensor vacuum1", "temperature", number_value(-45.2));
    tell(p->r.m, "temperature_sensor vacuum2", "temperature", number_value(-3.1));
    p->now_ms = 2000;
    p->options = (struct gcode_options){ .firmware_name = "KlipperPlace GcodeServer", .home_script = home_script, .mappings = p->r.maps, .ack = ack };
    p->up = (struct gcode_up){ port_submit, port_take_back, port_movers, port_stop, port_unread, port_now_ms, port_look, port_wake, p };
    port_connect(p);
    size_t n;
    port_feed(p, "M400\n", 5);
    port_answer(p);
    gcode_session_out(p->s, &n);
    gcode_session_sent(p->s, n);
    p->now_ms += 1000;
    p->scripts = 0, p->log[0] = 0;
}

static inline void port_close(struct port_rig *p)
{
    p->done = NULL;
    gcode_session_free(p->s);
    rig_close(&p->r);
}

#endif
