/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Prints docs/api.md for `klipperplaced --api-docs`. Invariant: all of it about a command comes from its row, so that the page cannot tell otherwise. */
#include "api_docs.h"

#include <kp.h>
#include <math.h>
#include <string.h>

#include "auth.h"
#include "idem.h"
#include "limit.h"

#define BASE "/api/v1/"
#define FIELD_PATH_MAX 128

static const char head[] =
    "# API\n\n"
    "This page is printed by `klipperplaced --api-docs` from the table that router and validation use; a test fails when it is stale. The same table is\n"
    "served as an OpenAPI 3.1 document at `GET /api/v1/openapi.json`.\n\n"
    "REST and WebSocket share one port, 7180 by default. WebSocket is at `/ws/v1`; its `execute` takes the commands below by name.\n\n"
    "## Requests\n"
    "- A body is one JSON object, `Content-Type: application/json`. Names must not repeat. The parameters of GET and DELETE stand in the query; DELETE\n"
    "  takes a body as well.\n"
    "- All that is wrong with a request is told at once, in `details.errors`, before anything moves. An unknown parameter is wrong.\n"
    "- `X-Request-Id` (visible ASCII, cut at 128 characters) is echoed and stands in the log; without it one is made.\n"
    "- `Idempotency-Key` (1 to %d visible ASCII characters) on POST, PUT and DELETE: a repeat within 10 minutes gets the first answer with\n"
    "  `Idempotency-Replayed: true`, and nothing is done twice. A repeat while the first still runs waits for its answer; a client that left may so come\n"
    "  back for it. The same key with another request is INVALID_REQUEST. A request that was refused before anything was done leaves its key\n"
    "  free. At most %d keys and %u MiB of answers are kept; beyond that a new key is QUEUE_FULL. An emergency stop has no use for a key, as it may be\n"
    "  repeated, nor has what a viewer may run.\n"
    "- Where `[api] api_key_enabled` says so, a request needs a key in `X-API-Key`; its role must be the command's or a higher one: viewer, operator, admin.\n"
    "  Without one: AUTHORIZATION_REQUIRED; unknown: INVALID_API_KEY; switched off or expired: AUTHENTICATION_FAILED; of too low a role: PERMISSION_DENIED.\n"
    "  A wrong key is answered late from the %dth of an address on (by REST; a WebSocket's handshake is refused at once), and after %d of them as IP_BLOCKED for\n"
    "  %d minutes; a valid key passes all the same.\n"
    "- `[security] rate_limit`, on by default: a client (a key; without keys an address) may make %d requests of class motion, %d of class read and %d of class\n"
    "  batch a second, and as many at once after a pause. Answers tell it in `X-RateLimit-Limit`, `-Remaining` (would pass now) and `-Reset` (s until all would);\n"
    "  one too many is RATE_LIMIT_EXCEEDED with `Retry-After`. WebSocket requests come from the same store. An emergency stop is never limited.\n"
    "- The `Host` header must name this machine: an address, localhost, its own name or one of `[security] allowed_hosts`; else PERMISSION_DENIED.\n"
    "- Web pages may use the API from its own origin and from those in `[security] cors_origins`. A write from any other page is PERMISSION_DENIED, and no\n"
    "  other page can read an answer.\n\n"
    "## Limits\n"
    "| what | most | beyond |\n|---|---|---|\n"
    "| body | 1 MiB | PAYLOAD_TOO_LARGE |\n"
    "| request line and headers | 16 kB with what the connection needs itself | 431 or 414 of the HTTP library, closed |\n"
    "| connections | 512 | the one that has been without a whole request for longest is closed |\n"
    "| requests that wait for their answer | 448 | QUEUE_FULL; never for an emergency stop |\n"
    "| connections that have not yet said what they are | 64, 5 s | the oldest is closed |\n"
    "| time of a connection without a whole request | 120 s | closed |\n"
    "| commands in the motion lane | 256 | QUEUE_FULL |\n"
    "| keys | 256 | QUEUE_FULL |\n"
    "| tokens that wait for their WebSocket | 256, 16 of one key | the oldest ends, of that key where it has 16 |\n\n"
    "## Answers\n"
    "Every answer below `/api/v1/` is one JSON object, but for the OpenAPI document and the answer to a browser's preflight:\n\n"
    "| field | |\n|---|---|\n"
    "| `status` | `success`, `error`, `partial` (a batch of which some worked), `timeout`, `cancelled` |\n"
    "| `command` | name of the command; `unknown` where the path has none |\n"
    "| `command_id` | UUID, the same in log, history and events |\n"
    "| `data` | of a success or partial: the fields told below |\n"
    "| `error_code`, `error_message`, `details` | of all others; `details.errors` lists every fault, `details.klipper` has Klipper's own words |\n"
    "| `warnings` | array of strings |\n"
    "| `timestamp` | Unix seconds |\n\n";

static const char *param_type(const struct kp_param *p)
{
    switch (p->type) {
    case KP_P_NUM: return "number";
    case KP_P_INT: return "whole number";
    case KP_P_BOOL: return "true, false";
    case KP_P_TEXT: return "text";
    case KP_P_NAME: return "id";
    case KP_P_CHOICE: return "word";
    case KP_P_COMMAND: return "name of a command";
    case KP_P_OBJECT: return "object";
    case KP_P_OBJECTS: return "array of objects";
    case KP_P_AXES: return "array of axis letters";
    case KP_P_PIN_IN: return "pin";
    case KP_P_PIN_OUT: return "output pin";
    case KP_P_PIN_PWM: return "PWM pin";
    case KP_P_SENSOR: return "sensor";
    case KP_P_NOZZLE: return "nozzle";
    case KP_P_FEEDER: return "feeder";
    case KP_P_FAN: return "fan";
    }
    return "";
}

static void print_range(FILE *f, const struct kp_param *p)
{
    for (const char *c = p->choices; c && *c; c++)
        *c == '|' ? fputs(", ", f) : fputc(*c, f);
    if (isfinite(p->min) && isfinite(p->max) && p->type != KP_P_BOOL)
        fprintf(f, "%.16g to %.16g", p->min, p->max);
    if (p->unit[0])
        fprintf(f, "%s%s", isfinite(p->min) ? " " : "", p->unit);
}

static void print_default(FILE *f, const struct kp_param *p)
{
    if (p->flags & KP_REQUIRED)
        fputs("required", f);
    else if (p->name_def)
        fputs(p->name_def, f);
    else if (p->type == KP_P_BOOL && !isnan(p->def))
        fputs(p->def > 0 ? "true" : "false", f);
    else if (isfinite(p->def))
        fprintf(f, "%g", p->def);
}

static void print_param(FILE *f, const struct kp_param *p)
{
    fprintf(f, "| `%s` | %s | ", p->name, param_type(p));
    print_range(f, p);
    fputs(" | ", f);
    print_default(f, p);
    fprintf(f, " | %s%s |\n", p->flags & KP_IN_PATH ? "In the path. " : "", p->doc);
}

static void print_params(FILE *f, const struct kp_command *c)
{
    if (!c->params->name && !(c->timeout_s > 0))
        return;
    fputs("\n| parameter | type | range, unit | default | |\n|---|---|---|---|---|\n", f);
    for (const struct kp_param *p = c->params; p->name; p++)
        print_param(f, p);
    if (c->timeout_s > 0)
        fprintf(f, "| `timeout_s` | number | %g to %g s | %g | Longest wait for the answer. |\n", KP_TIMEOUT_MIN_S, KP_TIMEOUT_MAX_S, c->timeout_s);
    if (c->flags & KP_EXTRA_AXES)
        fputs("| `a`, `b`, `c`, ... | number | mm or deg |  | Target of an axis that the machine has beside x, y and z. |\n", f);
}

/* One row a field; those of an object follow it as "outer.inner". */
static void print_fields(FILE *f, const struct kp_field *fields, const char *outer)
{
    static const char *const types[] = { "number", "whole number", "true, false", "text", "object", "any" };
    for (; fields->name; fields++) {
        char path[FIELD_PATH_MAX];
        snprintf(path, sizeof path, "%s%s%s", outer, fields->name, fields->flags & KP_LIST ? "[]" : fields->flags & KP_MAP ? ".*" : "");
        fprintf(f, "| `%s` | %s%s%s%s%s | %s |\n", path, types[fields->type], fields->unit[0] ? ", " : "", fields->unit,
                fields->flags & KP_NULLABLE ? ", null" : "", fields->flags & KP_OPTIONAL ? ", may be absent" : "", fields->doc);
        if (fields->type == KP_A_OBJECT) {
            strncat(path, ".", sizeof path - strlen(path) - 1);
            print_fields(f, fields->fields, path);
        }
    }
}

static void print_command(FILE *f, const struct kp_command *c)
{
    static const char *const roles[] = { "anybody", "viewer", "operator", "admin" };
    static const char *const rates[] = { NULL, "motion", "read", "batch" };
    const char *method = c->method == KP_GET ? "GET" : c->method == KP_POST ? "POST" : c->method == KP_PUT ? "PUT" : "DELETE";
    fprintf(f, "### %s\n`%s %s%s`\n\n%s Role: %s.", c->name, method, c->flags & KP_OUTSIDE ? "/" : BASE, c->path, c->doc, roles[c->role]);
    if (rates[c->rate])
        fprintf(f, " Rate class: %s.", rates[c->rate]);
    if (c->flags & KP_NEEDS_HOMED)
        fputs(" The axes it moves must be homed.", f);
    if (c->method != KP_GET && c->flags & KP_WHILE_STOPPED)
        fputs(" Also while an emergency stop is active.", f);
    fputs("\n", f);
    print_params(f, c);
    if (c->answer->name) {
        fprintf(f, "\n| %s | type, unit | |\n|---|---|---|\n", c->flags & KP_PLAIN ? "field of the answer" : "field of `data`");
        print_fields(f, c->answer, "");
    }
    fputs("\n", f);
}

static void print_errors(FILE *f)
{
    fputs("## Errors\n| code | HTTP status | may be asked again |\n|---|---|---|\n", f);
    for (int code = KP_OK + 1; code < KP_ERR_COUNT; code++)
        fprintf(f, "| %s | %d | %s |\n", kp_err_name((enum kp_err)code), kp_err_status((enum kp_err)code), kp_err_retryable((enum kp_err)code) ? "yes" : "");
    fputs("\n\"May be asked again\" is about reads, and about what was refused before it began: a command that moves or switches is never sent\n"
          "twice by us.\n", f);
}

bool api_docs(FILE *f)
{
    size_t count;
    const struct kp_command *rows = kp_commands(&count);
    fprintf(f, head, IDEM_KEY_MAX, IDEM_ENTRIES_MAX, IDEM_BYTES_MAX >> 20, AUTH_SLOW_AFTER + 1, AUTH_BLOCK_AFTER, AUTH_BLOCK_MS / 60000, LIMIT_MOTION, LIMIT_READ,
            LIMIT_BATCH);
    fputs("## Commands\n", f);
    for (size_t i = 0; i < count; i++)
        print_command(f, &rows[i]);
    print_errors(f);
    return !fflush(f) && !ferror(f);
}
