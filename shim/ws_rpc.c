/* SPDX-License-Identifier: GPL-3.0-or-later */
/* JSON-RPC 2.0 for ws.c: methods, batches, errors. Invariant: each request with an id gets exactly one response while its session lives, one without none. */
#include "ws_rpc.h"

#include <jansson.h>
#include <kp.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "app.h"
#include "events.h"
#include "guard.h"
#include "json.h"
#include "log.h"

/* Codes of JSON-RPC 2.0; FAILED is the first of those that it leaves to servers. */
enum { PARSE_ERROR = -32700, INVALID_REQUEST = -32600, METHOD_NOT_FOUND = -32601, INVALID_PARAMS = -32602, FAILED = -32000 };

/* The responses of one batch, gathered as text until the last has come. */
struct batch { char *text; size_t n, open; bool failed; };

/* One request on its way. It lives until its answer, or until its session ends. */
struct ws_call {
    struct ws_rpc *rpc;
    struct batch *batch;         /* NULL: alone */
    json_t *id;                  /* NULL: a notification, which gets no response */
    const struct kp_command *command;
    struct app_request *waits;
    char command_id[ANSWER_ID];
    struct ws_call *next, **at;
};

/* Who gets a response: what a call has of it, before there is a call. */
struct asker { struct ws_rpc *rpc; struct batch *batch; json_t *id; };

/* ---- responses ---- */

/* Gives the pieces (ended by NULL) as one text; NULL when out of memory. */
static char *joined(const char *const *pieces, size_t *n)
{
    size_t total = 1;
    for (size_t i = 0; pieces[i]; i++)
        total += strlen(pieces[i]);
    char *out = malloc(total), *at = out;
    for (size_t i = 0; out && pieces[i]; i++)
        at = stpcpy(at, pieces[i]);
    *n = total - 1;
    return out;
}

static void send_json(struct ws_rpc *r, const json_t *j)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    if (text)
        r->send(r->user, text, strlen(text));
    free(text);
}

static void batch_add(struct batch *b, const char *text, size_t n)
{
    char *grown = text && !b->failed ? realloc(b->text, b->n + n + 3) : NULL; /* before it '[' or ',', after all "]" */
    if (!grown) {
        b->failed = true;
        return;
    }
    b->text = grown;
    b->text[b->n] = b->n ? ',' : '[';
    memcpy(b->text + b->n + 1, text, n);
    b->n += n + 1;
}

static void batch_done(struct ws_rpc *r, struct batch *b)
{
    static const char failed[] = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32000,\"message\":\"out of memory\"}}";
    if (--b->open)
        return;
    if (b->failed) {
        r->send(r->user, failed, sizeof failed - 1);
    } else if (b->n) {
        memcpy(b->text + b->n, "]", 2);
        r->send(r->user, b->text, b->n + 1);
    }
    free(b->text);
    free(b);
}

/* Sends a response whose member ("result" or "error") is that JSON text; NULL: out of memory, and the request stays without. */
static void respond(const struct asker *to, const char *member, const char *value)
{
    if (to->id) {
        size_t n = 0;
        char *id = json_dumps(to->id, JSON_COMPACT | JSON_ENCODE_ANY);
        char *text = id && value ? joined((const char *const[]){ "{\"jsonrpc\":\"2.0\",\"id\":", id, ",\"", member, "\":", value, "}", NULL }, &n) : NULL;
        if (to->batch)
            batch_add(to->batch, text, n);
        else if (text)
            to->rpc->send(to->rpc->user, text, n);
        free(text);
        free(id);
    }
    if (to->batch)
        batch_done(to->rpc, to->batch);
}

/* Takes value. */
static void respond_json(const struct asker *to, const char *member, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    respond(to, member, text);
    free(text);
    json_decref(value);
}

/* Takes data (NULL: none). */
static void respond_error(const struct asker *to, int code, const char *message, json_t *data)
{
    json_t *error = json_pack("{s:i,s:s}", "code", code, "message", message);
    if (data)
        json_object_set_new(error, "data", data);
    respond_json(to, "error", error);
}

/* A fault before there was a request that one could answer: id null. */
static void refuse(struct ws_rpc *r, int code, const char *message)
{
    respond_error(&(struct asker){ .rpc = r, .id = json_null() }, code, message, NULL);
}

/* ---- execute ---- */

static void call_free(struct ws_call *c)
{
    *c->at = c->next;
    if (c->next)
        c->next->at = c->at;
    c->rpc->count--;
    json_decref(c->id);
    free(c);
}

/* As REST counts and logs a request. */
static void note(const struct asker *to, const struct kp_command *c, const char *id, enum kp_err code)
{
    int status = kp_err_status(code);
    enum log_level level = status >= 500 ? LOG_WARNING : status >= 400 && c && c->method != KP_GET ? LOG_INFO : LOG_DEBUG;
    app_count(to->rpc->app, c, code);
    if (log_wants(level))
        log_request(level, "ws", id, "command=%s command_id=%s key=%s code=%s", c ? c->name : "unknown", id, auth_name(guard_auth(to->rpc->guard), to->rpc->who),
                    kp_err_name(code));
}

/* The envelope as REST sends it: a success is the result, everything else the data of an error. c NULL: no such command. */
static void respond_envelope(const struct asker *to, const char *id, const struct kp_command *c, const struct app_answer *a)
{
    const char *command = c ? c->name : "unknown";
    size_t n = 0;
    note(to, c, id, kp_faults_code(a->faults));
    if (!a->faults->count) {
        char *envelope = a->partial || a->warning ? answer_warned(a->partial, command, id, a->data, a->n, a->warning, &n)
                                                  : answer_success(command, id, a->data, a->n, &n);
        if (envelope && n && envelope[n - 1] == '\n')
            envelope[n - 1] = 0; /* the line's end is HTTP's; those inside a batch's answer stay */
        respond(to, "result", envelope);
        free(envelope);
        return;
    }
    char *envelope = answer_error(command, id, a->faults, json_incref(a->details), &n);
    json_t *words = json_string(a->faults->item[0].message);
    char *message = words ? json_dumps(words, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    char *error = envelope && message ? joined((const char *const[]){ "{\"code\":-32000,\"message\":", message, ",\"data\":", envelope, "}", NULL }, &n) : NULL;
    respond(to, "error", error);
    free(error);
    free(message);
    json_decref(words);
    free(envelope);
}

static void respond_faults(const struct asker *to, const struct kp_command *c, const struct kp_faults *f)
{
    char id[ANSWER_ID];
    answer_id(to->rpc->ids, id);
    respond_envelope(to, id, c, &(struct app_answer){ .faults = f });
}

static void respond_fault(const struct asker *to, const struct kp_command *c, enum kp_err code, const char *message)
{
    struct kp_faults f;
    struct kp_error e;
    kp_faults_init(&f);
    kp_error_set(&e, code, NULL, "%s", message);
    kp_faults_add(&f, &e);
    respond_faults(to, c, &f);
}

static void on_done(void *user, const struct app_answer *answer)
{
    struct ws_call *c = user;
    struct asker to = { c->rpc, c->batch, c->id };
    respond_envelope(&to, c->command_id, c->command, answer);
    if (c->waits)
        call_free(c); /* else run still holds it */
}

/* Runs a checked call; it is kept until its answer when that does not come at once. body: its parameters; NULL: none. */
static void run(const struct asker *from, const struct kp_call *checked, const json_t *body)
{
    struct ws_rpc *r = from->rpc;
    struct ws_call *c = calloc(1, sizeof *c);
    if (!c) {
        respond_fault(from, checked->command, KP_INTERNAL_ERROR, "out of memory");
        return;
    }
    *c = (struct ws_call){ .rpc = r, .batch = from->batch, .id = json_incref(from->id), .command = checked->command, .next = r->calls, .at = &r->calls };
    if (c->next)
        c->next->at = &c->next;
    r->calls = c;
    r->count++;
    answer_id(r->ids, c->command_id);
    struct app_request *waits = app_execute_how(r->app, checked, &(struct app_how){ .body = body, .id = c->command_id, .who = r->who }, on_done, c);
    if (waits)
        c->waits = waits;
    else
        call_free(c);
}

/* The members of parameters as arguments. NULL, or what is wrong. */
static const char *arguments(json_t *parameters, struct kp_arg *arg, struct json_list *list, size_t *n)
{
    const char *key;
    json_t *v;
    *n = 0;
    if (parameters && !json_is_object(parameters))
        return "parameters is not an object";
    json_object_foreach(parameters, key, v) {
        if (*n == KP_ARGS_MAX)
            return "too many parameters";
        arg[*n] = (struct kp_arg){ kp_str_of(key), json_value(v, &list[*n]), false };
        ++*n;
    }
    return NULL;
}

/* False: it may not run now, and that has been told. */
static bool may_run(const struct asker *from, const struct kp_command *c)
{
    struct ws_rpc *r = from->rpc;
    struct limit_state limit;
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    char id[ANSWER_ID];
    if (guard_admit(r->guard, r->who, r->peer, c, &limit, &e) == KP_OK)
        return true;
    kp_faults_add(&f, &e);
    answer_id(r->ids, id);
    json_t *details = limit.wait_ms ? json_pack("{s:f}", "retry_after", (double)limit.wait_ms / 1000) : NULL;
    respond_envelope(from, id, c, &(struct app_answer){ .faults = &f, .details = details });
    json_decref(details);
    return false;
}

static void execute(const struct asker *from, const char *name, json_t *parameters)
{
    const struct kp_command *command = kp_command_by_name(kp_str_of(name));
    struct kp_arg arg[KP_ARGS_MAX];
    struct json_list list[KP_ARGS_MAX];
    struct kp_call call;
    struct kp_faults f;
    size_t n;
    if (!command || command->flags & KP_PLAIN) { /* those have no envelope */
        respond_fault(from, NULL, KP_COMMAND_NOT_FOUND, "no such command");
        return;
    }
    if (!may_run(from, command))
        return;
    kp_faults_init(&f);
    const char *wrong = arguments(parameters, arg, list, &n);
    if (wrong)
        respond_fault(from, command, KP_INVALID_REQUEST, wrong);
    else if (from->rpc->count >= WS_CALLS_MAX && !(command->flags & KP_URGENT))
        respond_fault(from, command, KP_QUEUE_FULL, "too many commands of this connection wait for their answer");
    else if (app_check(from->rpc->app, command, arg, n, &call, &f) != KP_OK)
        respond_faults(from, command, &f);
    else
        run(from, &call, parameters);
}

/* ---- methods ---- */

/* False when an object has a member that is not among names (ended by NULL). */
static bool only(json_t *object, const char *const *names)
{
    const char *key;
    json_t *v;
    json_object_foreach(object, key, v) {
        size_t i = 0;
        while (names[i] && strcmp(names[i], key))
            i++;
        if (!names[i])
            return false;
    }
    return true;
}

static void on_execute(const struct asker *from, json_t *params)
{
    static const char *const names[] = { "command", "parameters", NULL };
    json_t *command = json_object_get(params, "command");
    if (!json_is_string(command) || !only(params, names))
        respond_error(from, INVALID_PARAMS, "params must be {\"command\": a name, \"parameters\": an object}", NULL);
    else
        execute(from, json_string_value(command), json_object_get(params, "parameters"));
}

static void on_get_status(const struct asker *from, json_t *params)
{
    if (json_object_size(params))
        respond_error(from, INVALID_PARAMS, "get_status takes no params", NULL);
    else
        execute(from, "get_status", NULL);
}

static json_t *kind_names(const bool *wanted)
{
    json_t *names = json_array();
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        if (!wanted || wanted[i])
            json_array_append_new(names, json_string(events_kind_name((enum events_kind)i)));
    return names;
}

/* False: params are wrong, and it has been told. All of params is looked at before anything is done. */
static bool wanted_kinds(const struct asker *from, json_t *params, bool wanted[EVENTS_KINDS])
{
    static const char *const names[] = { "events", NULL };
    json_t *list = json_object_get(params, "events"), *name;
    enum events_kind kind;
    size_t i;
    memset(wanted, 0, EVENTS_KINDS * sizeof *wanted);
    if (!json_is_array(list) || !only(params, names)) {
        respond_error(from, INVALID_PARAMS, "params must be {\"events\": an array of names}", NULL);
        return false;
    }
    json_array_foreach(list, i, name) {
        if (!json_is_string(name) || !events_kind_by_name(json_string_value(name), &kind)) {
            respond_error(from, INVALID_PARAMS, "no such event", json_pack("{s:o}", "events", kind_names(NULL)));
            return false;
        }
        wanted[kind] = true;
    }
    return true;
}

static void change_subscription(const struct asker *from, json_t *params, bool add)
{
    struct ws_rpc *r = from->rpc;
    bool wanted[EVENTS_KINDS];
    if (!wanted_kinds(from, params, wanted))
        return;
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        if (wanted[i])
            (add ? events_subscribe : events_unsubscribe)(app_events(r->app), r->subscriber, (enum events_kind)i);
    respond_json(from, "result", json_pack("{s:o}", "subscribed", kind_names(r->subscriber->wants)));
}

static void on_subscribe(const struct asker *from, json_t *params)
{
    change_subscription(from, params, true);
}

static void on_unsubscribe(const struct asker *from, json_t *params)
{
    change_subscription(from, params, false);
}

static const struct { const char *name; void (*run)(const struct asker *from, json_t *params); } methods[] = {
    { "subscribe", on_subscribe }, { "unsubscribe", on_unsubscribe }, { "execute", on_execute }, { "get_status", on_get_status },
};

/* ---- requests ---- */

static bool id_ok(const json_t *id)
{
    return !id || json_is_null(id) || json_is_number(id) || (json_is_string(id) && json_string_length(id) <= WS_ID_MAX);
}

static void request(struct ws_rpc *r, struct batch *b, json_t *j)
{
    const char *version = json_string_value(json_object_get(j, "jsonrpc")), *method = json_string_value(json_object_get(j, "method"));
    json_t *id = json_object_get(j, "id"), *params = json_object_get(j, "params");
    struct asker from = { .rpc = r, .batch = b, .id = id };
    size_t i = 0;
    if (!version || strcmp(version, "2.0") || !method || !id_ok(id) || (params && !json_is_object(params) && !json_is_array(params))) {
        from.id = id && id_ok(id) ? id : json_null();
        respond_error(&from, INVALID_REQUEST, "not a request of JSON-RPC 2.0 (or an id that is no number, null or string of at most 128 bytes)", NULL);
        return;
    }
    while (i < sizeof methods / sizeof *methods && strcmp(methods[i].name, method))
        i++;
    if (i == sizeof methods / sizeof *methods)
        respond_error(&from, METHOD_NOT_FOUND, "no such method", NULL);
    else if (json_is_array(params))
        respond_error(&from, INVALID_PARAMS, "params must be an object", NULL);
    else
        methods[i].run(&from, params);
}

static void batch(struct ws_rpc *r, json_t *list)
{
    json_t *j;
    size_t i, n = json_array_size(list);
    if (!n || n > WS_BATCH_MAX) {
        refuse(r, INVALID_REQUEST, n ? "a batch has at most 64 requests" : "an empty batch");
        return;
    }
    struct batch *b = calloc(1, sizeof *b);
    if (!b) {
        refuse(r, FAILED, "out of memory");
        return;
    }
    b->open = n + 1; /* one is ours, so that answers given at once do not end it */
    json_array_foreach(list, i, j)
        request(r, b, j);
    batch_done(r, b);
}

/* ---- for ws.c ---- */

void ws_rpc_init(struct ws_rpc *r, const struct ws_rpc *with)
{
    *r = *with;
    r->calls = NULL, r->count = 0;
}

static void drop_message(void *user, const char *text, size_t n)
{
    (void)user, (void)text, (void)n;
}

void ws_rpc_fini(struct ws_rpc *r)
{
    r->send = drop_message;
    while (r->calls) {
        struct ws_call *c = r->calls;
        if (c->waits)
            app_leave(c->waits);
        if (c->batch)
            batch_done(r, c->batch);
        call_free(c);
    }
    for (unsigned i = 0; i < EVENTS_KINDS; i++)
        events_unsubscribe(app_events(r->app), r->subscriber, (enum events_kind)i);
}

void ws_rpc_hello(struct ws_rpc *r, const char *session_id)
{
    json_t *j = json_pack("{s:s,s:s,s:{s:s,s:o}}", "jsonrpc", "2.0", "method", "notify_connected", "params", "session_id", session_id, "events",
                          kind_names(NULL));
    send_json(r, j);
    json_decref(j);
}

void ws_rpc_message(struct ws_rpc *r, const char *text, size_t n)
{
    json_error_t error;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (!j)
        refuse(r, PARSE_ERROR, "not valid JSON (numbers must be finite, names must not repeat)");
    else if (json_is_array(j))
        batch(r, j);
    else
        request(r, NULL, j);
    json_decref(j);
}
