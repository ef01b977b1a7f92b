/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Prints the registry as OpenAPI 3.1, for rest. Invariant: every path, parameter, field and code in it is a row of libkp; what is written here is only what
 * HTTP adds to them (envelope, headers). */
#include "openapi.h"

#include <jansson.h>
#include <kp.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "idem.h"

#define PATTERN_MAX 32
#define REF(name) json_pack("{s:s}", "$ref", name)

/* ---- parameters ---- */

/* An array of the words of "a|b|c". */
static json_t *words(const char *text)
{
    json_t *list = json_array();
    for (const char *end; text && *text; text = *end ? end + 1 : end) {
        end = text + strcspn(text, "|");
        json_array_append_new(list, json_stringn(text, (size_t)(end - text)));
    }
    return list;
}

static json_t *nesting_commands(void)
{
    size_t count;
    const struct kp_command *rows = kp_commands(&count);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        if (kp_command_nests(&rows[i]))
            json_array_append_new(list, json_string(rows[i].name));
    return list;
}

static json_t *number_schema(const struct kp_param *p)
{
    json_t *j = json_pack("{s:s}", "type", p->type == KP_P_INT ? "integer" : "number");
    bool whole = p->type == KP_P_INT;
    if (isfinite(p->min))
        json_object_set_new(j, "minimum", whole ? json_integer((json_int_t)p->min) : json_real(p->min));
    if (isfinite(p->max))
        json_object_set_new(j, "maximum", whole ? json_integer((json_int_t)p->max) : json_real(p->max));
    if (isfinite(p->def))
        json_object_set_new(j, "default", whole ? json_integer((json_int_t)p->def) : json_real(p->def));
    if (p->unit[0])
        json_object_set_new(j, "x-unit", json_string(p->unit));
    return j;
}

static json_t *name_schema(const char *pattern, const char *def)
{
    json_t *j = json_pack("{s:s,s:s}", "type", "string", "pattern", pattern);
    if (def)
        json_object_set_new(j, "default", json_string(def));
    return j;
}

/* in_query: the argument comes as text. */
static json_t *param_schema(const struct kp_param *p, bool in_query)
{
    char pattern[PATTERN_MAX];
    json_t *j;
    switch (p->type) {
    case KP_P_NUM:
    case KP_P_INT: return number_schema(p);
    case KP_P_BOOL:
        j = json_pack("{s:s}", "type", "boolean");
        if (!isnan(p->def))
            json_object_set_new(j, "default", json_boolean(p->def > 0));
        return j;
    case KP_P_TEXT: return json_pack("{s:s}", "type", "string");
    case KP_P_CHOICE: return json_pack("{s:s,s:o}", "type", "string", "enum", words(p->choices));
    case KP_P_COMMAND: return json_pack("{s:s,s:o}", "type", "string", "enum", nesting_commands());
    case KP_P_OBJECT: return json_pack("{s:s}", "type", "object");
    case KP_P_OBJECTS: return json_pack("{s:s,s:{s:s}}", "type", "array", "items", "type", "object");
    case KP_P_AXES:
        if (in_query)
            return json_pack("{s:s}", "type", "string");
        return json_pack("{s:s,s:{s:s,s:s}}", "type", "array", "items", "type", "string", "pattern", "^[A-Za-z]$");
    case KP_P_NAME: snprintf(pattern, sizeof pattern, "^[0-9A-Za-z_-]{1,%d}$", KP_NAME_MAX - 1); return name_schema(pattern, NULL);
    default: snprintf(pattern, sizeof pattern, "^[ -~]{1,%d}$", KP_NAME_MAX - 1); return name_schema(pattern, p->name_def); /* a part of the machine */
    }
}

/* The parameter that a row with a time of its own takes beside those of its table. */
static struct kp_param timeout_param(const struct kp_command *c)
{
    return (struct kp_param){ .name = "timeout_s", .type = KP_P_NUM, .unit = "s", .min = KP_TIMEOUT_MIN_S, .max = KP_TIMEOUT_MAX_S, .def = c->timeout_s,
                              .doc = "Longest wait for the answer." };
}

static void add_property(json_t *properties, json_t *required, const struct kp_param *p)
{
    json_t *j = param_schema(p, false);
    json_object_set_new(j, "description", json_string(p->doc));
    json_object_set_new(properties, p->name, j);
    if (p->flags & KP_REQUIRED)
        json_array_append_new(required, json_string(p->name));
}

static json_t *body_schema(const struct kp_command *c)
{
    json_t *properties = json_object(), *required = json_array();
    struct kp_param timeout = timeout_param(c);
    for (const struct kp_param *p = c->params; p->name; p++)
        if (!(p->flags & KP_IN_PATH))
            add_property(properties, required, p);
    if (c->timeout_s > 0)
        add_property(properties, required, &timeout);
    bool must = json_array_size(required) > 0;
    json_t *j = json_pack("{s:s,s:o,s:b}", "type", "object", "properties", properties, "additionalProperties", 0);
    if (must)
        json_object_set(j, "required", required);
    json_decref(required);
    if (c->flags & KP_EXTRA_AXES)
        json_object_set_new(j, "patternProperties", json_pack("{s:{s:s,s:s}}", "^[a-z]$", "type", "number", "description",
                                                              "Target of an axis that the machine has beside x, y and z: deg or mm."));
    return json_pack("{s:b,s:{s:{s:o}}}", "required", must, "content", "application/json", "schema", j);
}

static json_t *parameters(const struct kp_command *c)
{
    json_t *list = json_array();
    bool in_body = c->method == KP_POST || c->method == KP_PUT;
    for (const struct kp_param *p = c->params; p->name; p++) {
        bool in_path = p->flags & KP_IN_PATH;
        if (in_body && !in_path)
            continue;
        json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:s,s:o}", "name", p->name, "in", in_path ? "path" : "query", "required",
                                              (p->flags & KP_REQUIRED) || in_path, "description", p->doc, "schema", param_schema(p, true)));
    }
    json_array_append_new(list, REF("#/components/parameters/RequestId"));
    if (idem_serves(c))
        json_array_append_new(list, REF("#/components/parameters/IdempotencyKey"));
    return list;
}

/* ---- answers ---- */

static json_t *object_schema(const struct kp_field *fields);

static json_t *field_schema(const struct kp_field *f)
{
    static const char *const types[] = { [KP_A_NUM] = "number", [KP_A_INT] = "integer", [KP_A_BOOL] = "boolean", [KP_A_TEXT] = "string" };
    json_t *j;
    if (f->type == KP_A_ANY)
        j = json_object();
    else if (f->type == KP_A_OBJECT)
        j = object_schema(f->fields);
    else
        j = json_pack("{s:s}", "type", types[f->type]);
    if (f->unit[0])
        json_object_set_new(j, "x-unit", json_string(f->unit));
    if (f->flags & KP_NULLABLE && f->type != KP_A_ANY) /* in a map or a list each of them may be null */
        json_object_set_new(j, "type", json_pack("[s,s]", json_string_value(json_object_get(j, "type")), "null"));
    if (f->flags & KP_MAP)
        j = json_pack("{s:o,s:o}", "type", f->flags & KP_NULLABLE ? json_pack("[s,s]", "object", "null") : json_string("object"), "additionalProperties", j);
    if (f->flags & KP_LIST)
        j = json_pack("{s:s,s:o}", "type", "array", "items", j);
    json_object_set_new(j, "description", json_string(f->doc));
    return j;
}

static json_t *object_schema(const struct kp_field *fields)
{
    json_t *properties = json_object(), *required = json_array();
    for (; fields->name; fields++) {
        json_object_set_new(properties, fields->name, field_schema(fields));
        if (!(fields->flags & KP_OPTIONAL))
            json_array_append_new(required, json_string(fields->name));
    }
    json_t *j = json_pack("{s:s,s:o}", "type", "object", "properties", properties);
    if (json_array_size(required))
        json_object_set(j, "required", required);
    json_decref(required);
    return j;
}

/* What every answer has around its data. */
static json_t *envelope(json_t *status, json_t *command)
{
    return json_pack("{s:s,s:{s:o,s:o,s:{s:s,s:s},s:{s:s,s:{s:s}},s:{s:s,s:s}},s:[s,s,s,s,s]}", "type", "object", "properties", "status", status,
                     "command", command, "command_id", "type", "string", "format", "uuid", "warnings", "type", "array", "items", "type", "string",
                     "timestamp", "type", "number",
                     "description", "Unix seconds.", "required", "status", "command", "command_id", "warnings", "timestamp");
}

static json_t *success_schema(const struct kp_command *c)
{
    json_t *status = c->id == KP_BATCH_EXECUTE ? json_pack("{s:[s,s]}", "enum", "success", "partial") : json_pack("{s:s}", "const", "success");
    json_t *j = envelope(status, json_pack("{s:s}", "const", c->name));
    json_object_set_new(json_object_get(j, "properties"), "data", object_schema(c->answer));
    json_array_append_new(json_object_get(j, "required"), json_string("data"));
    return j;
}

/* c NULL: of an error, which may be any row's. */
static json_t *headers(const struct kp_command *c)
{
    json_t *j = json_pack("{s:o}", "X-Request-Id", REF("#/components/headers/RequestId"));
    if (c && c->rate == KP_RATE_NONE)
        return j;
    json_object_set_new(j, "X-RateLimit-Limit", REF("#/components/headers/RateLimit"));
    json_object_set_new(j, "X-RateLimit-Remaining", REF("#/components/headers/RateLimitRemaining"));
    json_object_set_new(j, "X-RateLimit-Reset", REF("#/components/headers/RateLimitReset"));
    return j;
}

static json_t *header(const char *description, const char *type, bool required)
{
    return json_pack("{s:s,s:b,s:{s:s}}", "description", description, "required", required, "schema", "type", type);
}

static json_t *success(const struct kp_command *c)
{
    const char *type = c->id == KP_METRICS ? "text/plain" : "application/json";
    json_t *schema = c->id == KP_METRICS ? json_pack("{s:s}", "type", "string") : c->id == KP_OPENAPI ? json_pack("{s:s}", "type", "object")
                     : c->flags & KP_PLAIN ? object_schema(c->answer) : success_schema(c);
    return json_pack("{s:s,s:o,s:{s:{s:o}}}", "description", c->doc, "headers", headers(c), "content", type, "schema", schema);
}

/* Statuses that an error code has, lowest first; the next after `last`, 0 past the last. */
static int next_status(int last)
{
    int next = 0;
    for (int code = KP_OK + 1; code < KP_ERR_COUNT; code++) {
        int status = kp_err_status((enum kp_err)code);
        if (status > last && (!next || status < next))
            next = status;
    }
    return next;
}

/* What the row can never be answered with: it has no body, or nobody is asked for a key. 403 is also of a Host header that is not this machine's. */
static bool never(const struct kp_command *c, int status)
{
    switch (status) {
    case 401: return c->role == KP_PUBLIC;
    case 405: return true;
    case 409:
    case 413:
    case 415:
    case 502: return c->method == KP_GET;
    default: return false;
    }
}

static json_t *responses(const struct kp_command *c)
{
    json_t *j = json_pack("{s:o}", "200", success(c));
    char key[16], ref[48];
    if (c->id == KP_READY)
        json_object_set_new(j, "503", success(c));
    for (int status = next_status(0); status && !(c->flags & KP_PLAIN); status = next_status(status)) {
        if (never(c, status))
            continue;
        snprintf(key, sizeof key, "%d", status);
        snprintf(ref, sizeof ref, "#/components/responses/Error%d", status);
        json_object_set_new(j, key, REF(ref));
    }
    return j;
}

static json_t *operation(const struct kp_command *c)
{
    static const char *const roles[] = { "public", "viewer", "operator", "admin" };
    char tag[KP_NAME_MAX];
    snprintf(tag, sizeof tag, "%.*s", (int)strcspn(c->path, "/"), c->path);
    json_t *j = json_pack("{s:s,s:s,s:[s],s:s,s:o,s:o}", "operationId", c->name, "summary", c->doc, "tags", tag, "x-role", roles[c->role],
                          "parameters", parameters(c), "responses", responses(c));
    if (c->method == KP_POST || c->method == KP_PUT)
        json_object_set_new(j, "requestBody", body_schema(c));
    if (c->role == KP_PUBLIC)
        json_object_set_new(j, "security", json_array());
    return j;
}

/* ---- the document ---- */

static json_t *paths(void)
{
    static const struct { enum kp_method method; const char *name; } methods[] = {
        { KP_GET, "get" }, { KP_POST, "post" }, { KP_PUT, "put" }, { KP_DELETE, "delete" },
    };
    size_t count;
    const struct kp_command *rows = kp_commands(&count);
    json_t *all = json_object();
    for (size_t i = 0; i < count; i++) {
        char path[128];
        const char *method = "";
        snprintf(path, sizeof path, "%s%s", rows[i].flags & KP_OUTSIDE ? "/" : "/api/v1/", rows[i].path);
        for (size_t k = 0; k < sizeof methods / sizeof *methods; k++)
            if (methods[k].method == rows[i].method)
                method = methods[k].name;
        if (!json_object_get(all, path))
            json_object_set_new(all, path, json_object());
        json_object_set_new(json_object_get(all, path), method, operation(&rows[i]));
    }
    return all;
}

static json_t *error_names(int status)
{
    json_t *list = json_array();
    for (int code = KP_OK + 1; code < KP_ERR_COUNT; code++)
        if (kp_err_status((enum kp_err)code) == status)
            json_array_append_new(list, json_string(kp_err_name((enum kp_err)code)));
    return list;
}

static json_t *fault_schema(void)
{
    return json_pack("{s:s,s:{s:{s:s},s:{s:s},s:{s:s},s:{s:s},s:{s:s},s:{s:s}},s:[s,s]}", "type", "object", "properties", "code", "type", "string",
                     "message", "type", "string", "field", "type", "string", "got", "type", "number", "min", "type", "number", "max", "type", "number",
                     "required", "code", "message");
}

static json_t *error_response(int status)
{
    json_t *j = envelope(json_pack("{s:[s,s,s]}", "enum", "error", "timeout", "cancelled"), json_pack("{s:s}", "type", "string"));
    json_t *properties = json_object_get(j, "properties"), *required = json_object_get(j, "required");
    json_object_set_new(properties, "error_code", json_pack("{s:o}", "enum", error_names(status)));
    json_object_set_new(properties, "error_message", json_pack("{s:s}", "type", "string"));
    json_object_set_new(properties, "details", json_pack("{s:s,s:{s:{s:s,s:o,s:s}},s:[s]}", "type", "object", "properties", "errors", "type", "array", "items",
                                                         REF("#/components/schemas/Fault"), "description", "All that is wrong with the request.",
                                                         "required", "errors"));
    json_array_append_new(required, json_string("error_code"));
    json_array_append_new(required, json_string("error_message"));
    json_array_append_new(required, json_string("details"));
    json_t *more = headers(NULL);
    if (status == 429) {
        json_object_set_new(more, "Retry-After", header("s until another try makes sense.", "integer", true));
        json_object_set_new(more, "X-RateLimit-Retry-After", header("The same.", "integer", true));
    }
    return json_pack("{s:s,s:o,s:{s:{s:o}}}", "description", "An error; error_code says which.", "headers", more, "content", "application/json", "schema", j);
}

static json_t *components(void)
{
    char key[16], pattern[PATTERN_MAX];
    json_t *errors = json_object();
    for (int status = next_status(0); status; status = next_status(status)) {
        snprintf(key, sizeof key, "Error%d", status);
        json_object_set_new(errors, key, error_response(status));
    }
    snprintf(pattern, sizeof pattern, "^[!-~]{1,%d}$", IDEM_KEY_MAX);
    json_t *request_id = json_pack("{s:s,s:s,s:s,s:{s:s}}", "name", "X-Request-Id", "in", "header", "description", "Echoed; made when left out.",
                                   "schema", "type", "string");
    json_t *key_param = json_pack("{s:s,s:s,s:s,s:{s:s,s:s}}", "name", "Idempotency-Key", "in", "header", "description",
                                  "A repeat within 10 minutes is answered with the first answer, and nothing is done twice.",
                                  "schema", "type", "string", "pattern", pattern);
    return json_pack("{s:{s:o},s:{s:o,s:o},s:{s:o,s:o,s:o,s:o},s:o,s:{s:{s:s,s:s,s:s}}}", "schemas", "Fault", fault_schema(), "parameters",
                     "RequestId", request_id, "IdempotencyKey", key_param, "headers", "RequestId", header("As given, or made.", "string", true), "RateLimit",
                     header("Requests of this class that one client may make a second, and as many at once after a pause; absent where nothing is limited.",
                            "integer", false),
                     "RateLimitRemaining", header("Of these, how many would pass now.", "integer", false), "RateLimitReset",
                     header("s until all of them would pass.", "integer", false), "responses", errors, "securitySchemes", "ApiKey", "type", "apiKey", "in", "header", "name", "X-API-Key");
}

char *openapi_text(size_t *n)
{
    json_t *info = json_pack("{s:s,s:s,s:s,s:{s:s,s:s}}", "title", "KlipperPlace", "version", kp_version(), "description",
                             "Pick and place machines on Klipper: motion, vacuum, pins, sensors, feeders, queue and safety.", "license", "name",
                             "GPL-3.0-or-later", "identifier", "GPL-3.0-or-later");
    json_t *j = json_pack("{s:s,s:o,s:[{s:[]},{}],s:o,s:o}", "openapi", "3.1.0", "info", info, "security", "ApiKey", "paths", paths(),
                          "components", components());
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    *n = text ? strlen(text) : 0;
    json_decref(j);
    return text;
}
