/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The control socket's commands, for tests and the rig. They are a table; every line gets exactly one answer. */
#include "control.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ARG_WORDS = 12 };

struct request {
    struct control *c;
    struct client *client;
    struct when at;
    char line[CLIENT_LINE_MAX + 1]; /* the whole line, for add_part and fault shutdown */
    char *arg[ARG_WORDS]; /* words after the command */
    int n;
};

struct control_command {
    const char *name;
    int min, max; /* words after it */
    void (*fn)(struct request *r);
};

/* ---- answers ---- */

static void answer_error(struct request *r, const char *text)
{
    buf_printf(&r->client->out, "{\"error\":\"");
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            buf_printf(&r->client->out, "\\%c", *text);
        else if ((unsigned char)*text >= ' ' && (unsigned char)*text < 127)
            buf_put(&r->client->out, text, 1);
    buf_printf(&r->client->out, "\"}\n");
}

static void answer_ok(struct request *r)
{
    buf_printf(&r->client->out, "{\"ok\":true}\n");
}

/* An object from status.c gets "ok" in front. */
static void answer_object(struct request *r, const struct buf *b)
{
    buf_printf(&r->client->out, "{\"ok\":true,");
    buf_put(&r->client->out, b->p + 1, b->n ? b->n - 1 : 0);
    buf_printf(&r->client->out, "\n");
}

static bool number(struct request *r, const char *text, double *v)
{
    char *end;

    *v = strtod(text, &end);
    if (end != text && !*end && isfinite(*v)) return true;
    answer_error(r, "not a number");
    return false;
}

static int pin_arg(struct request *r, const char *name)
{
    int pin = pin_find(r->c->pins, name);

    if (pin == PIN_NONE) answer_error(r, "no such pin");
    return pin;
}

/* ---- commands ---- */

static void do_status(struct request *r)
{
    status_all(&r->client->out, r->c->mcu, r->at.ns);
    buf_printf(&r->client->out, "\n");
}

static void do_pin(struct request *r)
{
    int pin = pin_arg(r, r->arg[0]);
    struct buf b = {0};

    if (pin == PIN_NONE) return;
    status_pin(&b, r->c->world, pin, r->at.ns);
    answer_object(r, &b);
    buf_fini(&b);
}

static void do_set_input(struct request *r)
{
    int pin = pin_arg(r, r->arg[0]);
    double v;

    if (pin == PIN_NONE) return;
    if (!strcmp(r->arg[1], "auto")) {
        r->c->pins->at[pin].forced = false;
        for (int i = 0; i < r->c->world->axis_n; i++)
            if (r->c->world->axes[i].limit.pin == pin) world_place_axis(r->c->world, i, axis_mm(&r->c->world->axes[i]), r->at);
        answer_ok(r);
        return;
    }
    if (!number(r, r->arg[1], &v)) return;
    if (v != 0 && v != 1) {
        answer_error(r, "value must be 0, 1 or auto");
        return;
    }
    r->c->pins->at[pin].forced = true;
    pin_set(r->c->pins, pin, v, r->at);
    answer_ok(r);
}

static void button(struct request *r, bool pressed)
{
    for (int i = 0; i < r->c->world->button_n; i++) {
        const struct button *b = &r->c->world->buttons[i];
        if (strcmp(b->name, r->arg[0])) continue;
        pin_set(r->c->pins, b->pin.pin, pressed != b->pin.inverted, r->at);
        answer_ok(r);
        return;
    }
    answer_error(r, "no such button");
}

static void do_press(struct request *r)
{
    button(r, true);
}

static void do_release(struct request *r)
{
    button(r, false);
}

static void do_adc(struct request *r)
{
    int pin = pin_arg(r, r->arg[0]);
    struct world *w = r->c->world;
    double v = 0;

    if (pin == PIN_NONE) return;
    if (!strcmp(r->arg[1], "auto")) {
        r->c->pins->at[pin].forced = false;
        for (int i = 0; i < w->adc_n; i++)
            if (w->adcs[i].pin.pin == pin) v = w->adcs[i].state;
        r->c->pins->at[pin].value = v;
    } else {
        if (!number(r, r->arg[1], &v)) return;
        if (v < 0 || v > 1) {
            answer_error(r, "value must be 0..1 or auto");
            return;
        }
        r->c->pins->at[pin].forced = true;
        r->c->pins->at[pin].value = v;
    }
    log_event(r->c->log, r->at, "adc", ",\"pin\":\"%s\",\"name\":\"%s\",\"value\":%.6g", pin_text(pin, (char[8]){0}), r->c->pins->at[pin].name,
        world_adc(w, pin, r->at.ns, false));
    answer_ok(r);
}

static void do_axis(struct request *r)
{
    int i = world_axis(r->c->world, r->arg[0]);
    struct buf b = {0};

    if (i < 0) {
        answer_error(r, "no such axis");
        return;
    }
    status_axis(&b, r->c->mcu, i);
    answer_object(r, &b);
    buf_fini(&b);
}

static void do_place_axis(struct request *r)
{
    int i = world_axis(r->c->world, r->arg[0]);
    double mm;

    if (i < 0) {
        answer_error(r, "no such axis");
        return;
    }
    if (!number(r, r->arg[1], &mm)) return;
    world_place_axis(r->c->world, i, mm, r->at);
    answer_ok(r);
}

static void do_parts(struct request *r)
{
    buf_printf(&r->client->out, "{\"ok\":true,\"parts\":");
    status_parts(&r->client->out, r->c->world);
    buf_printf(&r->client->out, "}\n");
}

static void do_part(struct request *r)
{
    int i = world_part(r->c->world, r->arg[0]);
    struct buf b = {0};

    if (i < 0) {
        answer_error(r, "no such part");
        return;
    }
    status_part(&b, r->c->world, i);
    answer_object(r, &b);
    buf_fini(&b);
}

static void do_add_part(struct request *r)
{
    char why[200] = "";

    /* "add_part ID ..." is the world file's "part ID ..." */
    if (world_line(r->c->world, r->line + strlen("add_"), why, sizeof why))
        answer_ok(r);
    else
        answer_error(r, why);
}

static void do_remove_parts(struct request *r)
{
    double v[4];

    for (int i = 0; i < 4; i++)
        if (!number(r, r->arg[i], &v[i])) return;
    buf_printf(&r->client->out, "{\"ok\":true,\"removed\":%d}\n", world_remove_parts(r->c->world, v[0], v[1], v[2], v[3], r->at));
}

static void do_refill(struct request *r)
{
    int i = world_feeder(r->c->world, r->arg[0]);
    double n;

    if (i < 0) {
        answer_error(r, "no such feeder");
        return;
    }
    if (!number(r, r->arg[1], &n)) return;
    if (n < 0 || n > PARTS_MAX || n != floor(n)) {
        answer_error(r, "count is out of range");
        return;
    }
    r->c->world->feeders[i].left = (int)n;
    buf_printf(&r->client->out, "{\"ok\":true,\"left\":%d}\n", (int)n);
}

static void do_wait_pin(struct request *r)
{
    int pin = pin_arg(r, r->arg[0]);
    double value, ms;

    if (pin == PIN_NONE || !number(r, r->arg[1], &value) || !number(r, r->arg[2], &ms)) return;
    r->client->wait_since_ns = r->at.ns;
    r->client->wait_until_ns = r->at.ns + (int64_t)(ms * 1e6);
    r->client->wait_value = value;
    if (fabs(r->c->pins->at[pin].value - value) < 1e-3)
        control_wait_done(r->client, pin, r->c->pins->at[pin].value, r->at.ns, true);
    else
        r->client->wait_pin = pin;
}

static void do_steps(struct request *r)
{
    int pin = world_stepper_pin(r->c->world, r->arg[0]);
    struct buf b = {0};

    if (pin == PIN_NONE) {
        answer_error(r, "no such stepper");
        return;
    }
    status_stepper(&b, r->c->mcu, pin);
    answer_object(r, &b);
    buf_fini(&b);
}

static bool nozzle_arg(struct request *r, int *nozzle)
{
    *nozzle = r->n > 1 ? world_nozzle(r->c->world, r->arg[1]) : -1;
    if (*nozzle < 0) answer_error(r, "no such nozzle");
    return *nozzle >= 0;
}

static void fault_nozzle(struct request *r)
{
    struct world *w = r->c->world;
    double v = 0;
    int i;

    if (!nozzle_arg(r, &i) || (r->n > 2 && !number(r, r->arg[2], &v))) return;
    if (!strcmp(r->arg[0], "sensor_free")) {
        w->nozzles[i].stuck = false;
    } else if (r->n < 3) {
        answer_error(r, "a value is missing");
        return;
    } else if (!strcmp(r->arg[0], "leak")) {
        world_set_leak(w, i, v != 0, r->at);
    } else {
        w->nozzles[i].stuck = true;
        w->nozzles[i].stuck_value = v;
    }
    answer_ok(r);
}

/* The reason is the rest of the line. */
static void fault_shutdown(struct request *r)
{
    const char *text = strstr(r->line, "shutdown") + strlen("shutdown");

    text += strspn(text, " \t");
    if (mcu_shutdown(r->c->mcu, *text ? text : mcu_reasons[0]))
        answer_ok(r);
    else
        answer_error(r, "not one of the firmware's reasons");
}

static void do_fault(struct request *r)
{
    const char *kind = r->arg[0] ? r->arg[0] : "";
    double v = 0;

    log_event(r->c->log, r->at, "fault", ",\"kind\":\"%s\"", strspn(kind, "abcdefghijklmnopqrstuvwxyz_") == strlen(kind) ? kind : "?");
    if (!strcmp(kind, "reboot")) {
        r->c->mcu->hang_until_ns = 0;
        mcu_boot(r->c->mcu, "fault", r->at.ns);
        answer_ok(r);
    } else if (!strcmp(kind, "shutdown")) {
        fault_shutdown(r);
    } else if (!strcmp(kind, "sensor_stuck") || !strcmp(kind, "sensor_free") || !strcmp(kind, "leak")) {
        fault_nozzle(r);
    } else if (r->n != 2) {
        answer_error(r, "unknown fault, or its number is missing");
    } else if (number(r, r->arg[1], &v)) {
        bool ok = v >= 0 && v < 1e9;
        if (ok && !strcmp(kind, "drop_frames"))
            r->c->mcu->proto.drop = (unsigned)v;
        else if (ok && !strcmp(kind, "hang"))
            mcu_hang(r->c->mcu, r->at.ns, (int64_t)(v * 1e6));
        else if (ok && !strcmp(kind, "no_stick"))
            r->c->world->no_stick = (unsigned)v;
        else
            ok = false;
        if (ok)
            answer_ok(r);
        else
            answer_error(r, "unknown fault, or its number is out of range");
    }
}

static void do_strict(struct request *r)
{
    r->c->mcu->strict = !strcmp(r->arg[0], "1");
    answer_ok(r);
}

static void do_counts(struct request *r)
{
    struct buf b = {0};

    status_counts(&b, r->c->mcu);
    answer_object(r, &b);
    buf_fini(&b);
}

static void do_reset_counts(struct request *r)
{
    struct mcu *m = r->c->mcu;
    struct proto *p = &m->proto;

    p->frames_in = p->frames_bad = p->frames_dropped = p->frames_out = p->naks = 0;
    m->late = 0;
    m->late_max_us = m->wake_late_max_us = m->late_logged_ns = 0;
    memset(m->command_counts, 0, mcu_command_count * sizeof *m->command_counts);
    answer_ok(r);
}

static void do_watch(struct request *r)
{
    memset(r->client->kinds, 0, sizeof r->client->kinds);
    for (int i = 0; i < r->n; i++) {
        size_t n = strlen(r->arg[i]);
        if (n >= sizeof r->client->kinds[i]) {
            answer_error(r, "no such kind");
            return;
        }
        memcpy(r->client->kinds[i], r->arg[i], n + 1);
    }
    answer_ok(r);
    r->client->watching = true;
}

static void do_quit(struct request *r)
{
    r->c->quit = true;
    answer_ok(r);
}

static const struct control_command commands[] = {
    {"status", 0, 0, do_status},
    {"pin", 1, 1, do_pin},
    {"set_input", 2, 2, do_set_input},
    {"press", 1, 1, do_press},
    {"release", 1, 1, do_release},
    {"adc", 2, 2, do_adc},
    {"axis", 1, 1, do_axis},
    {"place_axis", 2, 2, do_place_axis},
    {"parts", 0, 0, do_parts},
    {"part", 1, 1, do_part},
    {"add_part", 1, 9, do_add_part},
    {"remove_parts", 4, 4, do_remove_parts},
    {"refill", 2, 2, do_refill},
    {"wait_pin", 3, 3, do_wait_pin},
    {"steps", 1, 1, do_steps},
    {"fault", 1, 11, do_fault},
    {"strict", 1, 1, do_strict},
    {"counts", 0, 0, do_counts},
    {"reset_counts", 0, 0, do_reset_counts},
    {"watch", 0, WATCH_KINDS_MAX - 1, do_watch},
    {"quit", 0, 0, do_quit},
};

void control_run_line(struct control *c, struct client *cl, const char *line, int64_t now_ns)
{
    struct request r = {.c = c, .client = cl, .at = mcu_when_ns(c->mcu, now_ns)};
    char words[CLIENT_LINE_MAX + 1], *save = NULL, *name;

    line += strspn(line, " \t");
    memcpy(r.line, line, strlen(line) + 1);
    memcpy(words, line, strlen(line) + 1);
    name = strtok_r(words, " \t", &save);
    for (char *t = name ? strtok_r(NULL, " \t", &save) : NULL; t && r.n < ARG_WORDS; t = strtok_r(NULL, " \t", &save)) r.arg[r.n++] = t;
    for (size_t i = 0; name && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name)) continue;
        if (r.n < commands[i].min || r.n > commands[i].max)
            answer_error(&r, "wrong number of words");
        else
            commands[i].fn(&r);
        return;
    }
    answer_error(&r, "unknown command");
}
