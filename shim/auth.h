/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Who may enter: API keys with their roles, one-use tokens for WebSockets, and what wrong keys cost the address that sends them. No key is kept, only hashes. */
#ifndef AUTH_H
#define AUTH_H

#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "answer.h"
#include "secret.h"

struct auth;

#define AUTH_KEYS_MAX 256       /* one more is refused */
#define AUTH_TOKENS_MAX 256     /* that wait for their WebSocket; with one more the oldest ends */
#define AUTH_TOKENS_OF_KEY 16   /* of one key among them: nobody ends all tokens of the others */
#define AUTH_TOKEN_MS 5000      /* a token may be used so long */
#define AUTH_ADDRESSES_MAX 256  /* whose wrong keys are remembered; the one quiet for longest makes room. An IPv6 /64 is one */
#define AUTH_SLOW_AFTER 3       /* wrong keys of an address; the answer to a further one comes late, */
#define AUTH_SLOW_MS 250        /* so much at first, doubling with each, */
#define AUTH_SLOW_MAX_MS 2000   /* up to this */
#define AUTH_BLOCK_AFTER 10     /* wrong keys, and the address is blocked for further wrong ones, */
#define AUTH_BLOCK_MS 600000    /* until it has sent none for so long */

/* One who asked. */
struct auth_who {
    enum kp_role role;
    unsigned serial; /* of the key, never used twice in one process; 0: nobody was asked for a key */
};

struct auth_key {
    char id[ANSWER_ID];
    char name[KP_TEXT_MAX];
    enum kp_role role;
    bool enabled;
    double created_at, expires_at, last_used_at; /* Unix s; NAN: never */
    unsigned char hash[SECRET_HASH];
    unsigned serial; /* auth's own */
};

/* Why somebody may not enter. */
struct auth_refusal {
    struct kp_error error;
    int64_t late_ms; /* the answer is to wait so long, where one can wait: a handshake cannot */
    int retry_s;     /* another try makes sense after it; 0: at once */
};

/* Gives the keepers of the door as [api] says. NULL when out of memory or without a hash. */
struct auth *auth_new(const struct kp_config *c);
void auth_free(struct auth *a);
/* Whether keys are asked for. */
bool auth_asks(const struct auth *a);
/* Judges a key (NULL: none was sent). peer: who sent it. KP_OK with *who, else the code of *no. */
enum kp_err auth_enter(struct auth *a, const char *key, const struct sockaddr *peer, struct auth_who *who, struct auth_refusal *no);
/* The same of a token, which is used up. One that has ended is no wrong key: its owner was late, and nobody guesses 256 random bits. */
enum kp_err auth_enter_token(struct auth *a, const char *token, const struct sockaddr *peer, struct auth_who *who, struct auth_refusal *no);
/* Makes a token for one who has entered. False: no random bytes. */
bool auth_token(struct auth *a, const struct auth_who *who, char out[SECRET_TEXT]);
/* Whether he could still enter; a role that was changed is the new one then. */
bool auth_still(struct auth *a, struct auth_who *who);
/* What names him in the log: the key's id, "configuration", "command-line" or "-". Borrowed until a key is changed. */
const char *auth_name(const struct auth *a, const struct auth_who *who);
/* A key of the server's own, for its command line: an admin. */
void auth_own_key(struct auth *a, const unsigned char hash[SECRET_HASH]);

/* ---- the keys ---- */

size_t auth_keys(const struct auth *a);
/* The i-th, in the order they were made; NULL past the last. */
const struct auth_key *auth_key_at(const struct auth *a, size_t i);
const struct auth_key *auth_key(const struct auth *a, const char *id);
/* Adds one, or changes the one with its id; a changed hash makes it another key, whose sessions end. False: there are AUTH_KEYS_MAX already. */
bool auth_key_put(struct auth *a, const struct auth_key *key);
void auth_key_remove(struct auth *a, const char *id);

#endif
