/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The door's keeper for guard and auth_api. Invariant: how long a key is looked at does not depend on how much of it is right. */
#include "auth.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "loop.h"
#include "peer.h"

enum { NOBODY, CONFIGURED, OWN, FIRST_KEY }; /* serials */

struct token { unsigned char hash[SECRET_HASH]; int64_t until_ms; uint64_t number; struct auth_who who; }; /* number: they count up */
struct wrongs { unsigned char address[PEER_BYTES]; unsigned count; int64_t last_ms; };

struct auth {
    bool asks;
    struct { bool there; unsigned char hash[SECRET_HASH]; } fixed[FIRST_KEY]; /* by serial: of the configuration, of the command line */
    struct auth_key keys[AUTH_KEYS_MAX];
    size_t count;
    unsigned last_serial;
    struct token tokens[AUTH_TOKENS_MAX];
    uint64_t last_token;
    struct wrongs wrongs[AUTH_ADDRESSES_MAX];
};

struct auth *auth_new(const struct kp_config *c)
{
    struct auth *a = calloc(1, sizeof *a);
    const char *key = kp_config_str(c, "api", "api_key");
    if (!a)
        return NULL;
    a->asks = kp_config_bool(c, "api", "api_key_enabled");
    a->last_serial = FIRST_KEY - 1;
    if (!key || !*key)
        return a;
    a->fixed[CONFIGURED].there = secret_hash(key, strlen(key), a->fixed[CONFIGURED].hash);
    if (a->fixed[CONFIGURED].there)
        return a;
    auth_free(a);
    return NULL;
}

void auth_free(struct auth *a)
{
    free(a);
}

bool auth_asks(const struct auth *a)
{
    return a->asks;
}

void auth_own_key(struct auth *a, const unsigned char hash[SECRET_HASH])
{
    a->fixed[OWN].there = true;
    memcpy(a->fixed[OWN].hash, hash, SECRET_HASH);
}

/* ---- wrong keys ---- */

static struct wrongs *wrongs_of(struct auth *a, const struct sockaddr *peer)
{
    unsigned char address[PEER_BYTES];
    struct wrongs *oldest = a->wrongs;
    peer_client(peer, address);
    for (size_t i = 0; i < AUTH_ADDRESSES_MAX; i++) {
        struct wrongs *w = &a->wrongs[i];
        if (w->count && !memcmp(w->address, address, sizeof address))
            return w;
        if (oldest->count && (!w->count || w->last_ms < oldest->last_ms))
            oldest = w;
    }
    *oldest = (struct wrongs){ .count = 0 };
    memcpy(oldest->address, address, sizeof address);
    return oldest;
}

static enum kp_err refuse(struct auth_refusal *no, enum kp_err code, const char *why)
{
    return kp_error_set(&no->error, code, NULL, "%s", why);
}

/* A wrong key: late, then not at all. */
static enum kp_err wrong(struct auth *a, const struct sockaddr *peer, struct auth_refusal *no)
{
    int64_t now_ms = loop_now_ms();
    struct wrongs *w = wrongs_of(a, peer);
    if (now_ms - w->last_ms > AUTH_BLOCK_MS)
        w->count = 0;
    w->last_ms = now_ms;
    if (w->count++ >= AUTH_BLOCK_AFTER) {
        no->retry_s = AUTH_BLOCK_MS / 1000;
        return refuse(no, KP_IP_BLOCKED, "too many wrong keys came from this address: wait, or send a valid one");
    }
    if (w->count == AUTH_BLOCK_AFTER)
        log_line(LOG_WARNING, "auth", "wrong_keys=%d of one address: further ones are refused for %d s", AUTH_BLOCK_AFTER, AUTH_BLOCK_MS / 1000);
    if (w->count > AUTH_SLOW_AFTER) {
        no->late_ms = (int64_t)AUTH_SLOW_MS << (w->count - AUTH_SLOW_AFTER - 1);
        if (no->late_ms > AUTH_SLOW_MAX_MS)
            no->late_ms = AUTH_SLOW_MAX_MS;
    }
    return refuse(no, KP_INVALID_API_KEY, "this key is not known");
}

/* ---- entering ---- */

static enum kp_err usable(const struct auth_key *k, struct auth_refusal *no)
{
    if (!k->enabled)
        return refuse(no, KP_AUTHENTICATION_FAILED, "this key is switched off");
    if (k->expires_at <= answer_wall()) /* never, where it is NAN */
        return refuse(no, KP_AUTHENTICATION_FAILED, "this key has expired");
    return KP_OK;
}

enum kp_err auth_enter(struct auth *a, const char *key, const struct sockaddr *peer, struct auth_who *who, struct auth_refusal *no)
{
    unsigned char hash[SECRET_HASH];
    unsigned fixed = NOBODY;
    struct auth_key *found = NULL;
    *no = (struct auth_refusal){ .late_ms = 0 };
    *who = (struct auth_who){ KP_ADMIN, NOBODY };
    if (!a->asks)
        return KP_OK;
    if (!key || !*key)
        return refuse(no, KP_AUTHORIZATION_REQUIRED, "this server asks for a key: send it as X-API-Key");
    if (!secret_hash(key, strlen(key), hash))
        return refuse(no, KP_INTERNAL_ERROR, "no hash can be made");
    for (unsigned i = CONFIGURED; i < FIRST_KEY; i++) /* all are looked at, whichever it is */
        if (secret_same(a->fixed[i].hash, hash) && a->fixed[i].there)
            fixed = i;
    for (size_t i = 0; i < a->count; i++)
        if (secret_same(a->keys[i].hash, hash))
            found = &a->keys[i];
    if (fixed) {
        who->serial = fixed;
        return KP_OK;
    }
    if (!found)
        return wrong(a, peer, no);
    enum kp_err rc = usable(found, no);
    if (rc)
        return rc;
    found->last_used_at = answer_wall();
    *who = (struct auth_who){ found->role, found->serial };
    return KP_OK;
}

enum kp_err auth_enter_token(struct auth *a, const char *token, const struct sockaddr *peer, struct auth_who *who, struct auth_refusal *no)
{
    unsigned char hash[SECRET_HASH];
    struct token *found = NULL;
    int64_t now_ms = loop_now_ms();
    *no = (struct auth_refusal){ .late_ms = 0 };
    if (!secret_hash(token, strlen(token), hash))
        return refuse(no, KP_INTERNAL_ERROR, "no hash can be made");
    for (size_t i = 0; i < AUTH_TOKENS_MAX; i++)
        if (secret_same(a->tokens[i].hash, hash) && a->tokens[i].until_ms > now_ms)
            found = &a->tokens[i];
    if (!found && secret_formed(token))
        return refuse(no, KP_INVALID_API_KEY, "this token is not known, was used or has ended: ask for another");
    if (!found)
        return wrong(a, peer, no);
    *who = found->who;
    found->until_ms = 0;
    return auth_still(a, who) ? KP_OK : refuse(no, KP_AUTHENTICATION_FAILED, "the key behind this token has ended");
}

/* The place for one more token of a key: a free one, or the oldest's; the key's own oldest when it has its share. */
static struct token *token_place(struct auth *a, unsigned serial, int64_t now_ms)
{
    struct token *oldest = a->tokens, *own = NULL;
    size_t count = 0;
    for (size_t i = 0; i < AUTH_TOKENS_MAX; i++) {
        struct token *t = &a->tokens[i];
        if (t->until_ms <= now_ms) /* used or ended */
            t->number = 0;
        if (t->number < oldest->number)
            oldest = t;
        if (!t->number || t->who.serial != serial)
            continue;
        count++;
        if (!own || t->number < own->number)
            own = t;
    }
    return count >= AUTH_TOKENS_OF_KEY ? own : oldest;
}

bool auth_token(struct auth *a, const struct auth_who *who, char out[SECRET_TEXT])
{
    int64_t now_ms = loop_now_ms();
    struct token *t = token_place(a, who->serial, now_ms);
    if (!secret_new(out) || !secret_hash(out, strlen(out), t->hash))
        return false;
    t->until_ms = now_ms + AUTH_TOKEN_MS;
    t->number = ++a->last_token;
    t->who = *who;
    return true;
}

static const struct auth_key *by_serial(const struct auth *a, unsigned serial)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->keys[i].serial == serial)
            return &a->keys[i];
    return NULL;
}

bool auth_still(struct auth *a, struct auth_who *who)
{
    struct auth_refusal no;
    if (who->serial < FIRST_KEY)
        return true;
    const struct auth_key *k = by_serial(a, who->serial);
    if (!k || usable(k, &no) != KP_OK)
        return false;
    who->role = k->role;
    return true;
}

const char *auth_name(const struct auth *a, const struct auth_who *who)
{
    static const char *const names[FIRST_KEY] = { "-", "configuration", "command-line" };
    const struct auth_key *k = who->serial < FIRST_KEY ? NULL : by_serial(a, who->serial);
    return who->serial < FIRST_KEY ? names[who->serial] : k ? k->id : "ended";
}

/* ---- the keys ---- */

size_t auth_keys(const struct auth *a)
{
    return a->count;
}

const struct auth_key *auth_key_at(const struct auth *a, size_t i)
{
    return i < a->count ? &a->keys[i] : NULL;
}

static struct auth_key *find(struct auth *a, const char *id)
{
    for (size_t i = 0; i < a->count; i++)
        if (!strcmp(a->keys[i].id, id))
            return &a->keys[i];
    return NULL;
}

const struct auth_key *auth_key(const struct auth *a, const char *id)
{
    return find((struct auth *)(uintptr_t)a, id);
}

bool auth_key_put(struct auth *a, const struct auth_key *key)
{
    struct auth_key *k = find(a, key->id);
    unsigned serial = k && secret_same(k->hash, key->hash) ? k->serial : 0;
    if (!k && a->count == AUTH_KEYS_MAX)
        return false;
    if (!k)
        k = &a->keys[a->count++];
    *k = *key;
    k->serial = serial ? serial : ++a->last_serial;
    return true;
}

void auth_key_remove(struct auth *a, const char *id)
{
    struct auth_key *k = find(a, id);
    if (!k)
        return;
    a->count--;
    memmove(k, k + 1, (size_t)(&a->keys[a->count] - k) * sizeof *k);
}
