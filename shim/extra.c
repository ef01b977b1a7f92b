/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is known of the Klipper extra, for state.c. Invariant: it counts as there only between Klipper's list of objects that names it and the next list. */
#include "extra.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "metrics.h"
#include "moonraker.h"

#define VERSION 1 /* of its status and endpoints that we understand */
#define CALL_MS 5000

struct extra {
    bool there, registered, failed;
    json_t *told; /* owned; an object while there */
};

struct extra *extra_new(void)
{
    return calloc(1, sizeof(struct extra));
}

void extra_free(struct extra *x)
{
    if (!x)
        return;
    json_decref(x->told);
    free(x);
}

void extra_connected(struct extra *x)
{
    x->registered = false;
}

static void on_registered(void *user, const struct mr_reply *r)
{
    (void)user; /* another shim may have the name: then pushes come four times a second as without the extra */
    if (r->outcome != MR_OK)
        log_line(LOG_WARNING, "extra", "push=off outcome=%d message=\"%s\"", (int)r->outcome, r->message ? r->message : "");
}

void extra_objects(struct extra *x, struct mr *mr, const json_t *names)
{
    size_t i;
    json_t *name;
    x->there = x->failed = false;
    json_decref(x->told);
    x->told = NULL;
    json_array_foreach(names, i, name)
        x->there |= json_is_string(name) && !strcmp(json_string_value(name), EXTRA_OBJECT);
    if (!x->there)
        return;
    x->told = json_object();
    if (!x->registered) /* once a connection: Moonraker tells every Klipper after that */
        x->registered = mr_call(mr, "connection.register_remote_method", json_pack("{s:s}", "method_name", EXTRA_PUSH), CALL_MS, on_registered, x) != 0;
}

bool extra_there(const struct extra *x)
{
    return x->there;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

void extra_status(struct extra *x, json_t *fields)
{
    if (!x->there || !x->told || !json_is_object(fields) || !json_object_size(fields))
        return;
    const char *stopped = text_of(fields, "stopped");
    if (*stopped && strcmp(stopped, text_of(x->told, "stopped")))
        log_line(LOG_WARNING, "extra", "timing=klipper why=\"%s\"", stopped);
    if (!json_object_get(x->told, "version")) {
        const char *part;
        json_t *how;
        json_object_foreach(json_object_get(fields, "parts"), part, how)
            if (json_is_string(how))
                log_line(LOG_INFO, "extra", "part=%s state=\"%s\"", part, json_string_value(how));
    }
    json_t *told = json_copy(x->told); /* subscribers are told what differs from the one before, which they hold */
    if (!told)
        return;
    json_decref(x->told);
    x->told = told;
    json_object_update(x->told, fields);
    json_object_del(x->told, "stands"); /* the machine's matter, and told by its axes */
    json_object_del(x->told, "joined");
}

bool extra_reads(const struct extra *x)
{
    return x->there && !x->failed && json_integer_value(json_object_get(x->told, "version")) == VERSION &&
           !strcmp(text_of(json_object_get(x->told, "parts"), "read"), "on");
}

void extra_read_failed(struct extra *x, const char *message)
{
    if (!x->failed)
        log_line(LOG_WARNING, "extra", "read=off message=\"%s\"", message ? message : "");
    x->failed = true;
}

json_t *extra_told(const struct extra *x)
{
    return x->there ? x->told : NULL;
}

void extra_metrics(const struct extra *x, struct metrics_extra *out)
{
    const char *name;
    json_t *how, *margin = x->there ? json_object_get(x->told, "margin_ms") : NULL;
    *out = (struct metrics_extra){ .there = x->there, .margin_ms = json_is_number(margin) ? json_number_value(margin) : NAN };
    if (!x->there)
        return;
    out->fast = !strcmp(text_of(x->told, "timing"), "fast");
    out->starts = json_number_value(json_object_get(x->told, "starts"));
    json_object_foreach(json_object_get(x->told, "parts"), name, how) {
        if (out->parts == METRICS_PARTS || name[strspn(name, "abcdefghijklmnopqrstuvwxyz_")])
            continue; /* a label must need no quoting */
        out->part[out->parts].name = name;
        out->part[out->parts++].on = json_is_string(how) && !strcmp(json_string_value(how), "on");
    }
}
