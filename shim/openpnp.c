/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The URLs for OpenPnP's HttpActuator. They change the machine by GET, so they are off by default, served on a loopback address only, hold a token, and no
 * web page may ask them. Answers are one line of text: ok, read:VALUE or !! and what is wrong.
 * Invariant: a call is one of the registry's, checked as REST's. */
#include "openpnp.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app.h"
#include "http.h"
#include "log.h"

#define TEXT_MAX 256

struct openpnp {
    struct app *app;
    const char *token; /* NULL: off */
};

/* One request on its way through app; the request's slot points at it. */
struct call {
    struct http_request *http;
    struct app_request *waits;
    bool reads;
};

static void answer(struct http_request *h, int status, const char *text)
{
    size_t n = strlen(text);
    char *body = malloc(n + 1);
    if (body) {
        memcpy(body, text, n);
        body[n++] = '\n';
    }
    http_reply(h, body ? status : 500, "text/plain", body, body ? n : 0, NULL);
}

static void refuse(struct http_request *h, enum kp_err code, const char *why)
{
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "!! %s: %s", kp_err_name(code), why);
    answer(h, kp_err_status(code), text);
}

/* read:-45.20, with a point always: the pattern of OpenPnP asks for it or for none. */
static void answer_value(struct http_request *h, const struct app_answer *a)
{
    char text[TEXT_MAX], digits[KP_NUMBER_MAX];
    json_t *data = json_loadb(a->data, a->n, 0, NULL), *value = json_object_get(data, "value");
    if (json_is_true(json_object_get(data, "stale")) || !json_is_number(value) || !kp_number_print(digits, json_number_value(value), 2)) {
        refuse(h, KP_KLIPPY_DISCONNECTED, "the sensor tells nothing now");
    } else {
        const char *point = strchr(digits, '.');
        snprintf(text, sizeof text, "read:%s%s", digits, !point ? ".00" : strlen(point) == 2 ? "0" : "");
        answer(h, 200, text);
    }
    json_decref(data);
}

static void on_done(void *user, const struct app_answer *a)
{
    struct call *c = user;
    struct http_request *h = c->http;
    c->http = NULL;
    if (a->faults->count)
        refuse(h, kp_faults_code(a->faults), a->faults->item[0].message);
    else if (c->reads)
        answer_value(h, a);
    else
        answer(h, 200, "ok");
    if (c->waits)
        free(c); /* else run still holds it */
}

static void run(struct openpnp *o, struct http_request *h, const char *command, const struct kp_arg *args, size_t count)
{
    struct kp_call checked;
    struct kp_faults f = { .count = 0 };
    const struct kp_command *row = kp_command_by_name(kp_str_of(command));
    if (!row || app_check(o->app, row, args, count, &checked, &f) != KP_OK) {
        refuse(h, row ? kp_faults_code(&f) : KP_NOT_FOUND, row ? f.item[0].message : "no such command");
        return;
    }
    struct call *c = calloc(1, sizeof *c);
    if (!c) {
        refuse(h, KP_INTERNAL_ERROR, "out of memory");
        return;
    }
    c->http = h, c->reads = row->method == KP_GET;
    *http_slot(h) = c;
    struct app_request *waits = app_execute(o->app, &checked, on_done, c);
    if (waits)
        c->waits = waits;
    else
        free(c);
}

/* ---- paths ---- */

static struct kp_arg text_arg(const char *name, struct kp_str text)
{
    return (struct kp_arg){ kp_str_of(name), { .kind = KP_STR, .str = text }, true };
}

static struct kp_arg flag_arg(const char *name)
{
    return (struct kp_arg){ kp_str_of(name), { .kind = KP_BOOL, .flag = true }, false };
}

static bool find_value(void *user, const char *name, const char *value)
{
    const char **found = user;
    if (strcmp(name, "value") == 0)
        *found = value ? value : "";
    return true;
}

/* output/NAME/on, output/NAME/off, output/NAME?value=V */
static void output(struct openpnp *o, struct http_request *h, const char *name)
{
    const char *slash = strchr(name, '/'), *value = NULL;
    struct kp_str pin = { name, slash ? (size_t)(slash - name) : strlen(name) };
    double v = 0;
    http_query(h, find_value, &value);
    if (slash && !value && (!strcmp(slash, "/on") || !strcmp(slash, "/off")))
        value = slash[2] == 'n' ? "1" : "0";
    else if (slash || !value) {
        refuse(h, KP_NOT_FOUND, "the paths are output/NAME/on, output/NAME/off, output/NAME?value=V and sensor/NAME");
        return;
    }
    if (!strcmp(value, "true") || !strcmp(value, "false"))
        value = value[0] == 't' ? "1" : "0";
    bool number = kp_number_parse(kp_str_of(value), &v), binary = number && (v == 0 || v == 1);
    struct kp_arg args[] = { text_arg("pin", pin), text_arg("value", kp_str_of(value)), flag_arg("wait") };
    if (binary)
        args[1].value = (struct kp_value){ .kind = KP_NUM, .num = v };
    run(o, h, binary ? "gpio_write" : "pwm_set", args, 3);
}

/* The same time whatever is wrong with it. */
static bool token_is(const char *token, const char *given, size_t n)
{
    size_t want = strlen(token);
    unsigned char wrong = n != want;
    for (size_t i = 0; i < n; i++)
        wrong = (unsigned char)(wrong | (unsigned char)(given[i] ^ token[i % want]));
    return !wrong;
}

/* A browser says whose page asks: none may. */
static bool from_a_page(struct http_request *h)
{
    const char *site = http_header(h, "Sec-Fetch-Site");
    return http_header(h, "Origin") || (site && strcmp(site, "none") != 0 && strcmp(site, "same-origin") != 0);
}

void openpnp_request(struct openpnp *o, struct http_request *h)
{
    const char *token = http_path(h) + sizeof OPENPNP_BASE - 1, *path = strchr(token, '/');
    if (!o->token || !path || !token_is(o->token, token, (size_t)(path - token))) {
        refuse(h, KP_NOT_FOUND, "no such path");
        return;
    }
    path++;
    if (strcmp(http_method(h), "GET") != 0) {
        refuse(h, KP_METHOD_NOT_ALLOWED, "only GET");
    } else if (from_a_page(h)) {
        refuse(h, KP_PERMISSION_DENIED, "web pages may not ask this");
    } else if (!strncmp(path, "output/", 7)) {
        output(o, h, path + 7);
    } else if (!strncmp(path, "sensor/", 7)) {
        struct kp_arg args[] = { text_arg("sensor", kp_str_of(path + 7)), flag_arg("live") };
        run(o, h, "sensor_read", args, 2);
    } else {
        refuse(h, KP_NOT_FOUND, "no such path");
    }
}

bool openpnp_gone(struct openpnp *o, struct http_request *h)
{
    struct call *c = *http_slot(h);
    (void)o;
    if (strncmp(http_path(h), OPENPNP_BASE, sizeof OPENPNP_BASE - 1) != 0)
        return false;
    if (c) {
        app_leave(c->waits);
        free(c);
    }
    return true;
}

static bool is_loopback(const char *host)
{
    return !strncmp(host, "127.", 4) || !strcmp(host, "localhost") || !strcmp(host, "::1");
}

struct openpnp *openpnp_new(struct app *a, const struct kp_config *c)
{
    struct openpnp *o = calloc(1, sizeof *o);
    if (!o)
        return NULL;
    o->app = a;
    o->token = kp_config_bool(c, "gcode_port", "actuator_urls") ? kp_config_str(c, "gcode_port", "actuator_token") : NULL;
    if (o->token && (!*o->token || !is_loopback(kp_config_str(c, "api", "host")))) {
        log_line(LOG_ERROR, "openpnp", "actuator_urls are off: they need an actuator_token and a loopback address in [api] host");
        o->token = NULL;
    }
    return o;
}

void openpnp_free(struct openpnp *o)
{
    free(o);
}
