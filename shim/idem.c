/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The memory of idempotency keys, for rest. Invariant: a key is forgotten only when its time is over or when nothing was done under it. */
#include "idem.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS 4096u /* a power of two */

struct idem_entry {
    struct idem_entry *chain;        /* of its bucket */
    struct idem_entry *next, *prev;  /* by the time of the answer, oldest first; not while it runs */
    struct idem_print key_print, print;
    bool answered;
    int64_t until_ms;
    enum kp_err code;
    char *body;
    size_t n;
    char key[];
};

struct idem {
    struct idem_entry *buckets[BUCKETS];
    struct idem_entry *oldest, *newest;
    size_t count, bytes;
};

/* Two FNV-1a sums with bases of their own: 128 bits against chance, not against somebody who wants two requests to look the same: he has the key. */
void idem_print_init(struct idem_print *p)
{
    *p = (struct idem_print){ 0xcbf29ce484222325u, 0x9ae16a3b2f90404fu };
}

void idem_print_add(struct idem_print *p, const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++) {
        p->a = (p->a ^ at[i]) * 0x100000001b3u;
        p->b = (p->b ^ at[i]) * 0xc6a4a7935bd1e995u;
        p->b ^= p->b >> 47;
    }
}

static bool same(const struct idem_print *x, const struct idem_print *y)
{
    return x->a == y->a && x->b == y->b;
}

struct idem *idem_new(void)
{
    return calloc(1, sizeof(struct idem));
}

static size_t weight(const struct idem_entry *e)
{
    return sizeof *e + strlen(e->key) + 1 + e->n;
}

static struct idem_entry **place(struct idem *s, const struct idem_print *key_print)
{
    return &s->buckets[(key_print->a ^ key_print->b >> 32) & (BUCKETS - 1)];
}

static void leave_line(struct idem *s, struct idem_entry *e)
{
    *(e->prev ? &e->prev->next : &s->oldest) = e->next;
    *(e->next ? &e->next->prev : &s->newest) = e->prev;
}

void idem_forget(struct idem *s, struct idem_entry *e)
{
    struct idem_entry **at = place(s, &e->key_print);
    while (*at != e)
        at = &(*at)->chain;
    *at = e->chain;
    if (e->answered)
        leave_line(s, e);
    s->count--, s->bytes -= weight(e);
    free(e->body);
    free(e);
}

void idem_free(struct idem *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < BUCKETS; i++)
        while (s->buckets[i])
            idem_forget(s, s->buckets[i]);
    free(s);
}

bool idem_serves(const struct kp_command *c)
{
    return c->method != KP_GET && !(c->flags & KP_URGENT) && c->role > KP_VIEWER;
}

bool idem_key_ok(const char *key)
{
    size_t n = 0;
    while (key[n] > 0x20 && key[n] < 0x7f)
        n++;
    return n && n <= IDEM_KEY_MAX && !key[n];
}

enum idem_found idem_begin(struct idem *s, const char *key, const struct idem_print *print, int64_t now_ms, struct idem_entry **out)
{
    struct idem_print key_print;
    size_t n = strlen(key);
    while (s->oldest && s->oldest->until_ms <= now_ms)
        idem_forget(s, s->oldest);
    idem_print_init(&key_print);
    idem_print_add(&key_print, key, n);
    struct idem_entry **at = place(s, &key_print), *e = *at;
    while (e && (!same(&e->key_print, &key_print) || strcmp(e->key, key)))
        e = e->chain;
    if (e) {
        *out = e;
        return !same(&e->print, print) ? IDEM_OTHER : e->answered ? IDEM_ANSWERED : IDEM_RUNNING;
    }
    if (s->count == IDEM_ENTRIES_MAX || s->bytes >= IDEM_BYTES_MAX || !(e = malloc(sizeof *e + n + 1)))
        return IDEM_FULL;
    *e = (struct idem_entry){ .chain = *at, .key_print = key_print, .print = *print };
    memcpy(e->key, key, n + 1);
    *at = e;
    s->count++, s->bytes += weight(e);
    *out = e;
    return IDEM_NEW;
}

void idem_answer(struct idem *s, struct idem_entry *e, enum kp_err code, const char *body, size_t n, int64_t now_ms)
{
    e->code = code;
    if (body && (e->body = malloc(n))) {
        memcpy(e->body, body, n);
        e->n = n, s->bytes += n;
    }
    e->answered = true, e->until_ms = now_ms + IDEM_KEEP_MS;
    e->prev = s->newest, e->next = NULL;
    *(s->newest ? &s->newest->next : &s->oldest) = e;
    s->newest = e;
}

const char *idem_body(const struct idem_entry *e, size_t *n, enum kp_err *code)
{
    *n = e->n, *code = e->code;
    return e->body;
}

size_t idem_count(const struct idem *s)
{
    return s->count;
}
