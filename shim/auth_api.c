/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Keys made, changed, listed and ended, for app. Invariant: what gives somebody more holds only once the database has it; what takes something away holds at
 * once, also where the database cannot be written. */
#include "auth_api.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "auth.h"
#include "history.h"
#include "json.h"
#include "log.h"
#include "loop.h"

#define FLUSH_MS 60000 /* between two looks at which keys were used, for the database */
#define PATH_LONGEST 4096

struct auth_api {
    struct auth *auth;
    struct history *history;
    struct answer_pool ids;
    struct loop_timer *flush;
    double flushed_at;       /* Unix s */
    size_t rotations;        /* on their way: meanwhile no row is written, or the old hash of one would come after the new one */
    bool lasting;            /* there is a file to keep keys in */
    char cookie[PATH_LONGEST]; /* empty: not written */
};

/* A change on its way to the database. */
struct change {
    struct auth_api *api;
    struct auth_key key;
    enum { NEW, ROTATED, CHANGED, DELETED } what;
    char secret[SECRET_TEXT]; /* of NEW and ROTATED, to be shown */
    app_done *done;
    void *user;
};

static const char *const roles[] = { "public", "viewer", "operator", "admin" };

/* ---- answers ---- */

/* Takes data. */
static bool tell(const struct auth_api *p, app_done *done, void *user, json_t *data, bool lasts)
{
    static const struct kp_faults none = { .count = 0 };
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    char *text = data ? json_dumps(data, JSON_TEXT) : NULL;
    struct app_answer a = { .faults = &none, .data = text, .n = text ? strlen(text) : 0 };
    if (lasts && !p->lasting)
        a.warning = "[history] database is not set: keys end with this process";
    if (!text) {
        kp_error_set(&e, KP_INTERNAL_ERROR, NULL, "out of memory");
        kp_faults_add(&f, &e);
        a.faults = &f;
    }
    done(user, &a);
    free(text);
    json_decref(data);
    return false;
}

static bool tell_error(app_done *done, void *user, enum kp_err code, const char *field, const char *message)
{
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    kp_error_set(&e, code, field, "%s", message);
    kp_faults_add(&f, &e);
    done(user, &(struct app_answer){ .faults = &f });
    return false;
}

static json_t *when(double t)
{
    return isnan(t) ? json_null() : json_real(round(t * 1000) / 1000);
}

static json_t *key_json(const struct auth_key *k)
{
    return json_pack("{s:s,s:s,s:s,s:b,s:o,s:o,s:o}", "id", k->id, "name", k->name, "role", roles[k->role], "enabled", k->enabled, "created_at",
                     when(k->created_at), "expires_at", when(k->expires_at), "last_used_at", when(k->last_used_at));
}

static json_t *keys_json(const struct auth *a)
{
    json_t *list = json_array();
    const struct auth_key *k;
    for (size_t i = 0; (k = auth_key_at(a, i)); i++)
        json_array_append_new(list, key_json(k));
    return json_pack("{s:o,s:I}", "keys", list, "count", (json_int_t)auth_keys(a));
}

/* ---- the database ---- */

static struct history_key row_of(const struct auth_key *k, char hex[SECRET_HEX])
{
    secret_to_hex(k->hash, hex);
    return (struct history_key){ .id = k->id, .name = k->name, .role = roles[k->role], .hash = hex, .enabled = k->enabled, .created_at = k->created_at,
                                 .expires_at = k->expires_at, .last_used_at = k->last_used_at };
}

static void put(struct history_writes *w, const struct auth_key *k)
{
    char hex[SECRET_HEX];
    struct history_key row = row_of(k, hex);
    history_put_key(w, &row);
}

static bool take_row(struct auth *a, const struct history_key *row)
{
    struct auth_key k = { .enabled = row->enabled, .created_at = row->created_at, .expires_at = row->expires_at, .last_used_at = row->last_used_at };
    snprintf(k.id, sizeof k.id, "%s", row->id);
    snprintf(k.name, sizeof k.name, "%s", row->name);
    for (int i = KP_VIEWER; i <= KP_ADMIN; i++)
        if (!strcmp(row->role, roles[i]))
            k.role = (enum kp_role)i;
    return k.role && secret_from_hex(row->hash, k.hash) && auth_key_put(a, &k);
}

static void on_flush(void *user)
{
    struct auth_api *p = user;
    const struct auth_key *k;
    double now = answer_wall();
    loop_timer_set(p->flush, FLUSH_MS);
    if (p->rotations)
        return;
    struct history_writes *w = history_begin(p->history);
    for (size_t i = 0; (k = auth_key_at(p->auth, i)); i++)
        if (k->last_used_at >= p->flushed_at)
            put(w, k);
    p->flushed_at = now;
    history_commit(w, NULL, NULL); /* of no weight: one that fails is made up for by the next use */
}

/* ---- changes ---- */

/* The new secret gets into the key as it stands now: what was changed meanwhile stays changed. */
static enum kp_err take_given(struct auth_api *p, const struct change *g, struct kp_error *e)
{
    const struct auth_key *now = auth_key(p->auth, g->key.id);
    struct auth_key k = g->what == NEW || !now ? g->key : *now;
    if (g->what == ROTATED && !now)
        return kp_error_set(e, KP_NOT_FOUND, "id", "the key was deleted meanwhile");
    memcpy(k.hash, g->key.hash, sizeof k.hash);
    if (!auth_key_put(p->auth, &k)) /* others were made meanwhile */
        return kp_error_set(e, KP_QUEUE_FULL, NULL, "there are as many keys as there may be: delete one");
    return KP_OK;
}

static void on_given(void *user, bool ok)
{
    struct change *g = user;
    struct auth_api *p = g->api;
    struct kp_error e;
    p->rotations -= g->what == ROTATED;
    if (!ok) {
        tell_error(g->done, g->user, KP_DATABASE_UNAVAILABLE, NULL, "the history database cannot be written: the key is as it was");
    } else if (take_given(p, g, &e) != KP_OK) {
        tell_error(g->done, g->user, e.code, e.field, e.message);
    } else {
        const struct auth_key *k = auth_key(p->auth, g->key.id);
        json_t *data = key_json(k);
        json_object_set_new(data, "key", json_string(g->secret));
        log_line(LOG_INFO, "auth", "key=%s given role=%s", k->id, roles[k->role]);
        tell(p, g->done, g->user, data, true);
    }
    free(g);
}

/* A key with a new secret, shown once it is kept. */
static bool give(struct auth_api *p, const struct auth_key *key, bool is_new, app_done *done, void *user)
{
    struct change *g = malloc(sizeof *g);
    struct history_writes *w = g ? history_begin(p->history) : NULL;
    if (!g)
        return tell(p, done, user, NULL, false);
    *g = (struct change){ p, *key, is_new ? NEW : ROTATED, "", done, user };
    if (!secret_new(g->secret) || !secret_hash(g->secret, strlen(g->secret), g->key.hash)) {
        free(g);
        history_commit(w, NULL, NULL);
        return tell_error(done, user, KP_INTERNAL_ERROR, NULL, "the system gives no random bytes");
    }
    put(w, &g->key);
    if (history_commit(w, on_given, g)) {
        p->rotations += !is_new;
        return true;
    }
    free(g);
    return tell_error(done, user, KP_DATABASE_UNAVAILABLE, NULL, "the history database cannot be written: the key is as it was");
}

static void on_changed(void *user, bool ok)
{
    struct change *g = user;
    const struct auth_key *k = ok ? auth_key(g->api->auth, g->key.id) : NULL;
    if (!ok)
        tell_error(g->done, g->user, KP_DATABASE_UNAVAILABLE, NULL, "the change holds now, but the history database cannot be written: it ends with this process");
    else if (g->what == DELETED)
        tell(g->api, g->done, g->user, json_pack("{s:s}", "deleted_id", g->key.id), false);
    else if (k)
        tell(g->api, g->done, g->user, key_json(k), true);
    else
        tell_error(g->done, g->user, KP_NOT_FOUND, "id", "the key was deleted meanwhile");
    free(g);
}

static bool keep_now(struct change *g);

/* The rotations before it have ended. */
static void on_turn(void *user, bool ok)
{
    struct change *g = user;
    if (!ok || !keep_now(g))
        on_changed(g, false);
}

/* Writes the row as it stands now. False: the database does not take it, and g is still the caller's. */
static bool keep_now(struct change *g)
{
    struct auth_api *p = g->api;
    const struct auth_key *k = auth_key(p->auth, g->key.id); /* NULL: deleted, and so not written again */
    bool waits = g->what == CHANGED && p->rotations;
    struct history_writes *w = history_begin(p->history);
    if (g->what == DELETED)
        history_delete_key(w, g->key.id);
    else if (k && !waits)
        put(w, k);
    return history_commit(w, waits ? on_turn : on_changed, g); /* one without rows comes back when all before it is written */
}

/* What was changed in memory goes to the database. */
static bool keep(struct auth_api *p, const struct auth_key *key, bool deleted, app_done *done, void *user)
{
    struct change *g = malloc(sizeof *g);
    if (!g)
        return tell(p, done, user, NULL, false);
    *g = (struct change){ p, *key, deleted ? DELETED : CHANGED, "", done, user };
    if (keep_now(g))
        return true;
    on_changed(g, false);
    return false;
}

static void read_expiry(const struct kp_call *call, struct auth_key *k)
{
    const struct kp_slot *s = kp_call_slot(call, "expires_at");
    if (s->set)
        k->expires_at = s->num > 0 ? s->num : NAN; /* 0: never */
}

static bool create(struct auth_api *p, const struct kp_call *call, app_done *done, void *user)
{
    struct auth_key k = { .role = (enum kp_role)(KP_VIEWER + kp_call_slot(call, "role")->index), .enabled = kp_call_slot(call, "enabled")->flag,
                          .created_at = answer_wall(), .expires_at = NAN, .last_used_at = NAN };
    if (auth_keys(p->auth) == AUTH_KEYS_MAX)
        return tell_error(done, user, KP_QUEUE_FULL, NULL, "there are as many keys as there may be: delete one");
    answer_id(&p->ids, k.id);
    snprintf(k.name, sizeof k.name, "%s", kp_call_slot(call, "name")->text);
    read_expiry(call, &k);
    return give(p, &k, true, done, user);
}

static bool update(struct auth_api *p, const struct kp_call *call, const struct auth_key *old, app_done *done, void *user)
{
    const struct kp_slot *name = kp_call_slot(call, "name"), *role = kp_call_slot(call, "role"), *enabled = kp_call_slot(call, "enabled");
    struct auth_key k = *old;
    if (name->set)
        snprintf(k.name, sizeof k.name, "%s", name->text);
    if (role->set)
        k.role = (enum kp_role)(KP_VIEWER + role->index);
    if (enabled->set)
        k.enabled = enabled->flag;
    read_expiry(call, &k);
    auth_key_put(p->auth, &k);
    log_line(LOG_INFO, "auth", "key=%s changed role=%s enabled=%d", k.id, roles[k.role], k.enabled);
    return keep(p, &k, false, done, user);
}

static bool end(struct auth_api *p, const struct auth_key *old, app_done *done, void *user)
{
    struct auth_key k = *old;
    auth_key_remove(p->auth, k.id);
    log_line(LOG_INFO, "auth", "key=%s deleted", k.id);
    return keep(p, &k, true, done, user);
}

/* A command about one key. */
static bool about(struct auth_api *p, const struct kp_call *call, app_done *done, void *user)
{
    const struct auth_key *k = auth_key(p->auth, kp_call_slot(call, "id")->text);
    if (!k)
        return tell_error(done, user, KP_NOT_FOUND, "id", "no key has this id");
    switch (call->command->id) {
    case KP_KEY_GET: return tell(p, done, user, key_json(k), false);
    case KP_KEY_UPDATE: return update(p, call, k, done, user);
    case KP_KEY_DELETE: return end(p, k, done, user);
    default: return give(p, k, false, done, user); /* KP_KEY_ROTATE */
    }
}

static bool token(struct auth_api *p, const struct auth_who *who, app_done *done, void *user)
{
    char text[SECRET_TEXT];
    if (!auth_token(p->auth, who, text))
        return tell_error(done, user, KP_INTERNAL_ERROR, NULL, "the system gives no random bytes");
    return tell(p, done, user, json_pack("{s:s,s:f}", "token", text, "expires_in", (double)AUTH_TOKEN_MS / 1000), false);
}

/* ---- for app ---- */

bool auth_api_serves(enum kp_id id)
{
    switch (id) {
    case KP_KEY_CREATE:
    case KP_KEY_LIST:
    case KP_KEY_GET:
    case KP_KEY_UPDATE:
    case KP_KEY_DELETE:
    case KP_KEY_ROTATE:
    case KP_AUTH_STATUS:
    case KP_WS_TOKEN: return true;
    default: return false;
    }
}

bool auth_api_begin(struct auth_api *p, const struct kp_call *call, const struct auth_who *who, app_done *done, void *user)
{
    if (!who)
        return tell_error(done, user, KP_PERMISSION_DENIED, NULL, "keys are not managed this way");
    switch (call->command->id) {
    case KP_KEY_CREATE: return create(p, call, done, user);
    case KP_KEY_LIST: return tell(p, done, user, keys_json(p->auth), false);
    case KP_AUTH_STATUS:
        return tell(p, done, user, json_pack("{s:b,s:I,s:s?}", "enabled", auth_asks(p->auth), "keys", (json_int_t)auth_keys(p->auth), "role",
                                             auth_asks(p->auth) ? roles[who->role] : NULL), false);
    case KP_WS_TOKEN: return token(p, who, done, user);
    default: return about(p, call, done, user);
    }
}

/* The key of this server's command line, for those who may read the server's own files. */
static void write_cookie(struct auth_api *p, const char *database)
{
    char text[SECRET_TEXT];
    unsigned char hash[SECRET_HASH];
    int fd = -1;
    if ((size_t)snprintf(p->cookie, sizeof p->cookie, "%s" AUTH_COOKIE, database) < sizeof p->cookie && secret_new(text) &&
        secret_hash(text, strlen(text), hash)) {
        unlink(p->cookie); /* of a server that was killed */
        fd = open(p->cookie, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    if (written) {
        auth_own_key(p->auth, hash);
        return;
    }
    log_line(LOG_WARNING, "auth", "cookie=%s cannot be written: \"klipperplaced key\" will not work", p->cookie);
    p->cookie[0] = 0;
}

struct auth_api *auth_api_new(struct loop *l, struct auth *a, struct history *h, const struct kp_config *c)
{
    struct auth_api *p = calloc(1, sizeof *p);
    const char *database = kp_config_str(c, "history", "database");
    size_t count, dropped = 0;
    const struct history_key *rows = history_keys(h, &count);
    if (!p || !(p->flush = loop_timer_new(l, on_flush, p))) {
        free(p);
        return NULL;
    }
    p->auth = a, p->history = h, p->lasting = database != NULL, p->flushed_at = answer_wall();
    for (size_t i = 0; i < count; i++)
        dropped += !take_row(a, &rows[i]);
    if (dropped)
        log_line(LOG_ERROR, "auth", "keys=%zu of the database cannot be used", dropped);
    if (database && !history_failing(h)) /* else it may be another server's */
        write_cookie(p, database);
    loop_timer_set(p->flush, FLUSH_MS);
    return p;
}

void auth_api_stop(struct auth_api *p)
{
    if (!p)
        return;
    if (p->cookie[0])
        unlink(p->cookie);
    on_flush(p);
}

void auth_api_free(struct auth_api *p)
{
    if (!p)
        return;
    loop_timer_free(p->flush);
    free(p);
}
