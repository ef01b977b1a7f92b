/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The cache of answers, for the shim's reads: bytes by key, each fresh for its category's time, the least recently used giving way.
 * An entry is in the table of buckets and in the list of uses, or in neither; a value that could not be kept leaves no older one behind.
 *
 * Built for a get that waits for little: a key is sought among all tags of a bucket at once, without a branch that depends on where it stands, the list
 * of uses is an array of its own, and a node begins with its key. Only values too long for their node are allocated by themselves. */
#include "kp.h"

#include <stdlib.h>
#include <string.h>

#define LINE 64u        /* bytes of a cache line */
#define BLOCK_MIN 256u  /* bytes of the smallest block for a long value; each next size is twice it */
#define NONE UINT16_MAX /* no node */
#define LANES 7u        /* entries of a bucket */

enum { USED = 1, PUSHED = 2, EXPIRED = 4, ASKED = 8, HINTED = 16 };

static const struct { const char *name; int64_t ttl_ms; } categories[KP_CATEGORY_COUNT] = {
#define KP_X(name, text, ttl) [KP_CACHE_##name] = { text, ttl },
    KP_CATEGORIES(KP_X)
#undef KP_X
};

struct node {
    int64_t set_ms;
    int32_t ttl_ms;
    uint32_t value_n;
    uint8_t key_n, category, flags;
    char small[3 * LINE - 19]; /* the key, then the value; of a value that does not fit the address of its block, which is ours */
};
_Static_assert(sizeof(struct node) == 3 * LINE, "a node fills its cache lines");
_Static_assert(sizeof(((struct node *)0)->small) >= KP_CACHE_KEY_MAX + sizeof(char *), "every key stands in its node");

/* Tags of 16 bits, four a word, 0: empty; the last lane has none. spilled: entries that would stand here or before, but found this bucket full. */
struct bucket { uint64_t tags[2]; uint16_t node[LANES], spilled; };
struct use { uint16_t newer, older; }; /* NONE at the ends; free nodes are chained by newer */
_Static_assert(KP_CACHE_ENTRIES_MAX < NONE, "16 bits number a node");

struct kp_cache {
    struct kp_cache_options o;
    struct node *nodes;
    struct use *uses;
    struct bucket *buckets;
    uint32_t mask;           /* count of buckets less 1 */
    uint16_t newest, oldest; /* of the list of uses */
    uint16_t top, free;      /* nodes from top on were never used; below it the free ones */
    uint16_t clean_at, refresh_at;
    int64_t pushed_ms;       /* INT64_MIN: no push yet */
    struct kp_cache_stats stats;
};

static struct kp_str key_of(const struct node *n)
{
    return (struct kp_str){ n->small, n->key_n };
}

/* ---- time ---- */

static int64_t age_of(int64_t since_ms, int64_t now_ms)
{
    if (now_ms <= since_ms)
        return 0;
    uint64_t age = (uint64_t)now_ms - (uint64_t)since_ms;
    return age < INT64_MAX ? (int64_t)age : INT64_MAX;
}

static int64_t told_of(const struct kp_cache *c, const struct node *n)
{
    return (n->flags & PUSHED) && c->pushed_ms > n->set_ms ? c->pushed_ms : n->set_ms;
}

/* How long the node is fresh from now on by its time alone; 0 and less: it is stale, for so long. */
static int64_t left_of(const struct kp_cache *c, const struct node *n, int64_t now_ms)
{
    int64_t left = n->ttl_ms - age_of(told_of(c, n), now_ms);
    if (n->flags & PUSHED) {
        int64_t push = c->o.push_ms - age_of(c->pushed_ms, now_ms);
        left = push > left ? push : left;
    }
    return left;
}

/* ---- buckets ---- */

/* Eight bytes at a time, the last eight overlapping; short keys byte by byte. */
static uint32_t hash_of(uint64_t seed, struct kp_str key)
{
    uint64_t h = seed ^ (key.n * 0x9e3779b97f4a7c15u), w = 0;
    if (key.n >= 8) {
        for (size_t i = 0; i + 8 < key.n; i += 8) {
            memcpy(&w, key.p + i, 8);
            h = (h ^ w) * 0xff51afd7ed558ccdu;
            h ^= h >> 32;
        }
        memcpy(&w, key.p + key.n - 8, 8);
    } else {
        for (size_t i = 0; i < key.n; i++)
            w = w << 8 | (unsigned char)key.p[i];
    }
    h = (h ^ w) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(h >> 32);
}

static uint64_t tag_of(uint32_t hash)
{
    return hash >> 16 | 1;
}

/* The lanes whose tag is this one: of lane i bit 16 * i, of lane 4 + i bit 16 * i + 1. Exact, no carry crosses a lane. */
static uint64_t lanes_with(const struct bucket *b, uint64_t tag)
{
    const uint64_t low = 0x7fff7fff7fff7fffu, each = 0x0001000100010001u;
    uint64_t x = b->tags[0] ^ tag * each, y = b->tags[1] ^ tag * each;
    x = ~(((x & low) + low) | x | low);
    y = ~(((y & low) + low) | y | low);
    return x >> 15 | y >> 14;
}

static unsigned lane_first(uint64_t lanes)
{
    unsigned bit = (unsigned)__builtin_ctzll(lanes);
    return bit / 16 + bit % 16 * 4;
}

static void lane_put(struct bucket *b, unsigned lane, uint64_t tag, uint16_t node)
{
    unsigned shift = lane % 4 * 16;
    b->tags[lane / 4] = (b->tags[lane / 4] & ~((uint64_t)0xffff << shift)) | tag << shift;
    b->node[lane] = node;
}

/* The key's node, NONE when it is not there. */
static uint16_t bucket_find(const struct kp_cache *c, struct kp_str key, uint32_t hash)
{
    for (uint32_t i = hash & c->mask;; i = (i + 1) & c->mask) {
        const struct bucket *b = &c->buckets[i];
        for (uint64_t lanes = lanes_with(b, tag_of(hash)); lanes; lanes &= lanes - 1) {
            uint16_t node = b->node[lane_first(lanes)];
            if (c->nodes[node].key_n == key.n && memcmp(c->nodes[node].small, key.p, key.n) == 0)
                return node;
        }
        if (b->spilled == 0)
            return NONE;
    }
}

static uint16_t node_find(const struct kp_cache *c, struct kp_str key)
{
    return key.n == 0 || key.n > KP_CACHE_KEY_MAX ? NONE : bucket_find(c, key, hash_of(c->o.seed, key));
}

static void bucket_add(struct kp_cache *c, uint16_t node, uint32_t hash)
{
    for (uint32_t i = hash & c->mask;; i = (i + 1) & c->mask) {
        struct bucket *b = &c->buckets[i];
        unsigned lane = 0;
        while (lane < LANES && (b->tags[lane / 4] >> lane % 4 * 16 & 0xffff) != 0)
            lane++;
        if (lane < LANES) {
            lane_put(b, lane, tag_of(hash), node);
            return;
        }
        b->spilled++;
    }
}

static void bucket_remove(struct kp_cache *c, uint16_t node)
{
    uint32_t hash = hash_of(c->o.seed, key_of(&c->nodes[node]));
    for (uint32_t i = hash & c->mask;; i = (i + 1) & c->mask) {
        struct bucket *b = &c->buckets[i];
        for (uint64_t lanes = lanes_with(b, tag_of(hash)); lanes; lanes &= lanes - 1)
            if (b->node[lane_first(lanes)] == node) {
                lane_put(b, lane_first(lanes), 0, 0);
                return;
            }
        b->spilled--;
    }
}

/* ---- the list of uses ---- */

static void use_unlink(struct kp_cache *c, uint16_t node)
{
    struct use u = c->uses[node];
    *(u.newer == NONE ? &c->newest : &c->uses[u.newer].older) = u.older;
    *(u.older == NONE ? &c->oldest : &c->uses[u.older].newer) = u.newer;
}

static void use_first(struct kp_cache *c, uint16_t node)
{
    c->uses[node] = (struct use){ NONE, c->newest };
    *(c->newest == NONE ? &c->oldest : &c->uses[c->newest].newer) = node;
    c->newest = node;
}

static void use_again(struct kp_cache *c, uint16_t node)
{
    if (c->newest == node)
        return;
    use_unlink(c, node);
    use_first(c, node);
}

/* ---- nodes ---- */

static bool has_block(const struct node *n)
{
    return n->value_n > sizeof n->small - n->key_n;
}

static char *block_of(const struct node *n)
{
    char *block;
    memcpy(&block, n->small + n->key_n, sizeof block);
    return block;
}

/* Bytes of the block for a value of this length. */
static size_t room_for(size_t value_n)
{
    size_t room = BLOCK_MIN;
    while (room < value_n)
        room *= 2;
    return room;
}

/* Leaves the node with an empty value. */
static void block_free(struct kp_cache *c, struct node *n)
{
    if (has_block(n)) {
        c->stats.bytes -= room_for(n->value_n);
        free(block_of(n));
    }
    n->value_n = 0;
}

static void node_remove(struct kp_cache *c, uint16_t node)
{
    struct node *n = &c->nodes[node];
    bucket_remove(c, node);
    use_unlink(c, node);
    block_free(c, n);
    n->flags = 0;
    c->uses[node].newer = c->free;
    c->free = node;
    c->stats.entries--;
}

static void evict(struct kp_cache *c)
{
    node_remove(c, c->oldest);
    c->stats.evictions++;
}

/* A node for a new key, linked as the newest; the oldest one goes when all are taken. */
static uint16_t node_add(struct kp_cache *c, struct kp_str key, uint32_t hash)
{
    if (c->stats.entries == c->o.entries)
        evict(c);
    uint16_t node = c->free;
    if (node != NONE)
        c->free = c->uses[node].newer;
    else
        node = c->top++;
    struct node *n = &c->nodes[node];
    n->value_n = 0;
    n->key_n = (uint8_t)key.n;
    memcpy(n->small, key.p, key.n);
    bucket_add(c, node, hash);
    use_first(c, node);
    c->stats.entries++;
    return node;
}

/* A block for a long value of the newest node, in place of its old value; older entries go until it fits. NULL: no memory, and the value is empty. */
static char *block_new(struct kp_cache *c, struct node *n, size_t value_n)
{
    size_t room = room_for(value_n);
    if (has_block(n) && room_for(n->value_n) == room)
        return block_of(n);
    block_free(c, n);
    while (c->stats.bytes + room > c->o.bytes)
        evict(c); /* ends: without all the others there is room for the longest value */
    char *block = malloc(room);
    if (!block)
        return NULL;
    memcpy(n->small + n->key_n, &block, sizeof block);
    c->stats.bytes += room;
    return block;
}

static bool value_store(struct kp_cache *c, struct node *n, struct kp_str value)
{
    char *to = n->small + n->key_n;
    if (value.n > sizeof n->small - n->key_n) {
        to = block_new(c, n, value.n);
        if (!to)
            return false;
    } else {
        block_free(c, n);
    }
    if (value.n > 0)
        memcpy(to, value.p, value.n);
    n->value_n = (uint32_t)value.n;
    return true;
}

static void node_invalidate(struct kp_cache *c, uint16_t node, enum kp_cache_how how)
{
    if (how == KP_CACHE_DROP)
        node_remove(c, node);
    else
        c->nodes[node].flags |= EXPIRED;
}

/* '*' stands for any bytes, '?' for one. Only the last '*' is ever tried again, so it ends after at most key.n * pattern.n steps. */
static bool pattern_match(struct kp_str pattern, struct kp_str key)
{
    size_t p = 0, k = 0, star = SIZE_MAX, from = 0;
    while (k < key.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            from = k;
        } else if (p < pattern.n && (pattern.p[p] == '?' || pattern.p[p] == key.p[k])) {
            p++;
            k++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            k = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*')
        p++;
    return p == pattern.n;
}

static enum kp_err options_check(const struct kp_cache_options *o, struct kp_error *e)
{
    if (o->entries < 1 || o->entries > KP_CACHE_ENTRIES_MAX)
        return kp_error_range(e, KP_INVALID_PARAMETER, "entries", "", (double)o->entries, 1, KP_CACHE_ENTRIES_MAX);
    if (o->bytes < KP_CACHE_VALUE_MAX)
        return kp_error_range(e, KP_INVALID_PARAMETER, "bytes", "", (double)o->bytes, KP_CACHE_VALUE_MAX, (double)SIZE_MAX);
    for (size_t i = 0; i < KP_CATEGORY_COUNT; i++)
        if (o->ttl_ms[i] < 0 || o->ttl_ms[i] > KP_CACHE_TTL_MAX_MS)
            return kp_error_range(e, KP_INVALID_PARAMETER, categories[i].name, "ms", (double)o->ttl_ms[i], 0, KP_CACHE_TTL_MAX_MS);
    if (o->keep_ms < 0 || o->push_ms < 0)
        return kp_error_set(e, KP_INVALID_PARAMETER, o->keep_ms < 0 ? "keep_ms" : "push_ms", "a time below 0");
    return KP_OK;
}

/* Whether the row can be kept at all, but for its value's length. */
static enum kp_err row_check(const struct kp_cache_row *row, struct kp_error *e)
{
    if (row->key.n == 0 || row->key.n > KP_CACHE_KEY_MAX)
        return kp_error_range(e, KP_INVALID_PARAMETER, "key", "bytes", (double)row->key.n, 1, KP_CACHE_KEY_MAX);
    if ((unsigned)row->category >= KP_CATEGORY_COUNT)
        return kp_error_set(e, KP_INVALID_PARAMETER, "category", "no category has the number %d", (int)row->category);
    if (row->ttl_ms < 0 || row->ttl_ms > KP_CACHE_TTL_MAX_MS)
        return kp_error_range(e, KP_INVALID_PARAMETER, "ttl_ms", "ms", (double)row->ttl_ms, 0, KP_CACHE_TTL_MAX_MS);
    if (row->value.n > KP_CACHE_VALUE_MAX)
        return kp_error_range(e, KP_PAYLOAD_TOO_LARGE, "value", "bytes", (double)row->value.n, 0, KP_CACHE_VALUE_MAX);
    return KP_OK;
}

/* ---- public ---- */

const char *kp_category_name(enum kp_category category)
{
    return (unsigned)category < KP_CATEGORY_COUNT ? categories[category].name : NULL;
}

bool kp_category_by_name(struct kp_str name, enum kp_category *out)
{
    for (size_t i = 0; i < KP_CATEGORY_COUNT; i++)
        if (kp_str_eq(name, categories[i].name)) {
            *out = (enum kp_category)i;
            return true;
        }
    return false;
}

void kp_cache_defaults(struct kp_cache_options *o)
{
    *o = (struct kp_cache_options){ .entries = 10000, .bytes = 8u << 20, .keep_ms = 24 * 3600 * 1000, .push_ms = 1000 };
    for (size_t i = 0; i < KP_CATEGORY_COUNT; i++)
        o->ttl_ms[i] = categories[i].ttl_ms;
}

enum kp_err kp_cache_new(struct kp_cache **out, const struct kp_cache_options *o, struct kp_error *e)
{
    struct kp_cache_options defaults;
    kp_cache_defaults(&defaults);
    o = o ? o : &defaults;
    enum kp_err rc = options_check(o, e);
    if (rc != KP_OK)
        return rc;
    size_t buckets = 1;
    while (buckets * LANES < 2 * o->entries)
        buckets *= 2;
    rc = KP_INTERNAL_ERROR;
    struct kp_cache *c = calloc(1, sizeof *c);
    if (!c)
        goto out;
    c->nodes = aligned_alloc(LINE, o->entries * sizeof *c->nodes);
    c->uses = malloc(o->entries * sizeof *c->uses);
    c->buckets = calloc(buckets, sizeof *c->buckets);
    if (!c->nodes || !c->uses || !c->buckets)
        goto out;
    c->o = *o;
    c->mask = (uint32_t)(buckets - 1);
    c->newest = c->oldest = c->free = NONE;
    c->pushed_ms = INT64_MIN;
    *out = c, c = NULL; /* given */
    rc = KP_OK;
out:
    kp_cache_free(c);
    return rc == KP_OK ? rc : kp_error_set(e, rc, NULL, "out of memory");
}

void kp_cache_free(struct kp_cache *c)
{
    if (!c)
        return;
    for (uint16_t i = 0; i < c->top; i++)
        if (has_block(&c->nodes[i]))
            free(block_of(&c->nodes[i]));
    free(c->nodes);
    free(c->uses);
    free(c->buckets);
    free(c);
}

enum kp_err kp_cache_set(struct kp_cache *c, const struct kp_cache_row *row, int64_t now_ms, struct kp_error *e)
{
    enum kp_err rc = row_check(row, e);
    if (rc != KP_OK) {
        kp_cache_invalidate(c, row->key, KP_CACHE_DROP);
        return rc;
    }
    uint32_t hash = hash_of(c->o.seed, row->key);
    uint16_t node = bucket_find(c, row->key, hash);
    if (node != NONE)
        use_again(c, node);
    else
        node = node_add(c, row->key, hash);
    struct node *n = &c->nodes[node];
    if (!value_store(c, n, row->value)) {
        node_remove(c, node);
        return kp_error_set(e, KP_INTERNAL_ERROR, "value", "out of memory");
    }
    n->set_ms = now_ms;
    n->ttl_ms = (int32_t)(row->ttl_ms > 0 ? row->ttl_ms : c->o.ttl_ms[row->category]);
    n->category = (uint8_t)row->category;
    n->flags = row->pushed ? USED | PUSHED : USED;
    c->stats.sets++;
    return KP_OK;
}

enum kp_cache_found kp_cache_get(struct kp_cache *c, struct kp_str key, bool stale_ok, int64_t now_ms, struct kp_cached *out)
{
    uint16_t node = node_find(c, key);
    if (node == NONE) {
        c->stats.misses++;
        return KP_CACHE_NONE;
    }
    struct node *n = &c->nodes[node];
    bool fresh = !(n->flags & EXPIRED) && left_of(c, n, now_ms) > 0;
    use_again(c, node);
    if (!(n->flags & ASKED))
        n->flags |= ASKED; /* written only when it changes: a node that is only read stays clean in the processor's cache */
    if (!fresh && !stale_ok) {
        c->stats.misses++;
        return KP_CACHE_NONE;
    }
    *(fresh ? &c->stats.hits : &c->stats.stale) += 1;
    out->value = (struct kp_str){ has_block(n) ? block_of(n) : n->small + n->key_n, n->value_n };
    out->category = (enum kp_category)n->category;
    out->told_ms = told_of(c, n);
    out->age_ms = age_of(out->told_ms, now_ms);
    return fresh ? KP_CACHE_FRESH : KP_CACHE_STALE;
}

void kp_cache_pushed(struct kp_cache *c, int64_t now_ms)
{
    c->pushed_ms = now_ms;
}

bool kp_cache_invalidate(struct kp_cache *c, struct kp_str key, enum kp_cache_how how)
{
    uint16_t node = node_find(c, key);
    if (node == NONE)
        return false;
    node_invalidate(c, node, how);
    return true;
}

size_t kp_cache_invalidate_pattern(struct kp_cache *c, struct kp_str pattern, enum kp_cache_how how)
{
    size_t count = 0;
    for (uint16_t i = 0; i < c->top; i++)
        if ((c->nodes[i].flags & USED) && pattern_match(pattern, key_of(&c->nodes[i]))) {
            node_invalidate(c, i, how);
            count++;
        }
    return count;
}

size_t kp_cache_invalidate_category(struct kp_cache *c, enum kp_category category, enum kp_cache_how how)
{
    size_t count = 0;
    for (uint16_t i = 0; i < c->top; i++)
        if ((c->nodes[i].flags & USED) && c->nodes[i].category == (unsigned)category) {
            node_invalidate(c, i, how);
            count++;
        }
    return count;
}

size_t kp_cache_clean(struct kp_cache *c, int64_t now_ms, size_t steps)
{
    size_t count = 0;
    if (c->o.keep_ms == INT64_MAX)
        return 0;
    for (size_t n = steps < c->top ? steps : c->top; n > 0; n--) {
        uint16_t i = c->clean_at < c->top ? c->clean_at : 0;
        c->clean_at = (uint16_t)(i + 1);
        if ((c->nodes[i].flags & USED) && left_of(c, &c->nodes[i], now_ms) <= -c->o.keep_ms) {
            node_remove(c, i);
            count++;
        }
    }
    c->stats.cleaned += count;
    return count;
}

size_t kp_cache_refresh(struct kp_cache *c, int64_t now_ms, int64_t lead_ms, size_t steps, struct kp_cache_hint *out, size_t room)
{
    size_t count = 0;
    for (size_t n = steps < c->top ? steps : c->top; n > 0 && count < room; n--) {
        uint16_t i = c->refresh_at < c->top ? c->refresh_at : 0;
        struct node *node = &c->nodes[i];
        c->refresh_at = (uint16_t)(i + 1);
        if ((node->flags & (USED | ASKED | HINTED)) != (USED | ASKED))
            continue;
        if (!(node->flags & EXPIRED) && left_of(c, node, now_ms) > lead_ms)
            continue;
        node->flags |= HINTED;
        out[count++] = (struct kp_cache_hint){ (enum kp_category)node->category, key_of(node) };
    }
    return count;
}

struct kp_cache_stats kp_cache_stats(const struct kp_cache *c)
{
    return c->stats;
}
