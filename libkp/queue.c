/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The queue of commands, for the shim, which runs one entry at a time and keeps the journal. An entry moves only along the table of moves and is told
 * of once for each; one that may have run is never given out again.
 *
 * Entries that wait stand in slots that order[] lists in the order they go; the one that runs has a place of its own; ended ones are in the ring. */
#include "kp.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[KP_Q_STATES] = {
    [KP_Q_PENDING] = "pending", [KP_Q_EXECUTING] = "executing", [KP_Q_DONE] = "done",
    [KP_Q_FAILED] = "failed", [KP_Q_CANCELLED] = "cancelled", [KP_Q_INTERRUPTED] = "interrupted",
};

/* The state that follows, plus 1; 0: refused. */
#define TO(state) ((unsigned char)((state) + 1))
static const unsigned char moves[KP_Q_STATES][KP_QE_EVENTS] = {
    [KP_Q_PENDING] = {
        [KP_QE_TAKE] = TO(KP_Q_EXECUTING), [KP_QE_CANCEL] = TO(KP_Q_CANCELLED), [KP_QE_EXPIRE] = TO(KP_Q_FAILED), [KP_QE_RESTORE] = TO(KP_Q_PENDING),
    },
    [KP_Q_EXECUTING] = {
        [KP_QE_SUCCEED] = TO(KP_Q_DONE), [KP_QE_FAIL] = TO(KP_Q_FAILED), [KP_QE_EXPIRE] = TO(KP_Q_FAILED), [KP_QE_LOSE] = TO(KP_Q_INTERRUPTED),
        [KP_QE_RESTORE] = TO(KP_Q_INTERRUPTED),
    },
    [KP_Q_DONE] = { [KP_QE_RESTORE] = TO(KP_Q_DONE) },
    [KP_Q_FAILED] = { [KP_QE_RESTORE] = TO(KP_Q_FAILED) },
    [KP_Q_CANCELLED] = { [KP_QE_RESTORE] = TO(KP_Q_CANCELLED) },
    [KP_Q_INTERRUPTED] = { [KP_QE_RESTORE] = TO(KP_Q_INTERRUPTED) },
};

struct kp_queue {
    struct kp_queue_options o;
    struct kp_queue_entry *slots;   /* room for o.entries */
    uint64_t *slot_hash;            /* of the id, by slot; 0: the slot is free */
    uint32_t *spare, *order;        /* free slots as a stack; waiting slots, the next one first */
    size_t spare_count, order_count;
    size_t limited;                 /* waiting entries with a wait_ms */
    struct kp_queue_entry current;  /* while current.running */
    struct kp_queue_entry *history; /* a ring with room for o.history */
    uint64_t *history_hash;         /* of the id, by place in the ring */
    size_t history_at, history_count; /* where the next one goes */
    size_t bytes;
    unsigned holds;
    uint64_t total[KP_Q_STATES];
};

/* ---- ids ---- */

/* Never 0 (FNV-1a). Ids are sought by their hashes, which stand close together. */
static uint64_t id_hash(struct kp_str id)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < id.n; i++)
        h = (h ^ (unsigned char)id.p[i]) * 0x100000001b3u;
    return h | 1;
}

static bool id_ok(struct kp_str id)
{
    if (id.n == 0 || id.n >= KP_QUEUE_ID_MAX)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        struct kp_str one = { id.p + i, 1 };
        if (id.p[i] != '-' && !kp_name_ok(one))
            return false;
    }
    return true;
}

/* The slot of a waiting entry, or of one that is just being added; SIZE_MAX: none. */
static size_t slot_find(const struct kp_queue *q, struct kp_str id)
{
    uint64_t hash = id_hash(id);
    for (size_t i = 0; i < q->o.entries; i++)
        if (q->slot_hash[i] == hash && kp_str_eq(id, q->slots[i].id))
            return i;
    return SIZE_MAX;
}

static struct kp_queue_entry *history_find(const struct kp_queue *q, struct kp_str id)
{
    uint64_t hash = id_hash(id);
    for (size_t i = 0; i < q->history_count; i++)
        if (q->history_hash[i] == hash && kp_str_eq(id, q->history[i].id))
            return &q->history[i];
    return NULL;
}

static bool current_is(const struct kp_queue *q, struct kp_str id)
{
    return q->current.running && kp_str_eq(id, q->current.id);
}

/* ---- time ---- */

static bool is_over(int64_t since_ms, int64_t limit_ms, int64_t now_ms)
{
    return limit_ms > 0 && now_ms > since_ms && (uint64_t)now_ms - (uint64_t)since_ms >= (uint64_t)limit_ms;
}

static int64_t end_of(int64_t since_ms, int64_t limit_ms)
{
    return limit_ms == 0 || since_ms > INT64_MAX - limit_ms ? INT64_MAX : since_ms + limit_ms;
}

/* ---- entries ---- */

static void tell(const struct kp_queue *q, const struct kp_queue_entry *entry)
{
    if (q->o.changed)
        q->o.changed(q->o.context, entry);
}

/* Makes a move that is legal: the public functions refuse the others before. */
static void move(struct kp_queue *q, struct kp_queue_entry *entry, enum kp_queue_event event)
{
    bool legal = kp_queue_next(entry->state, event, &entry->state);
    assert(legal);
    (void)legal;
    q->total[entry->state]++;
}

static void params_free(struct kp_queue *q, struct kp_queue_entry *entry)
{
    q->bytes -= entry->params.n;
    free((void *)(uintptr_t)entry->params.p);
    entry->params = (struct kp_str){ NULL, 0 };
}

static void history_add(struct kp_queue *q, const struct kp_queue_entry *entry)
{
    struct kp_queue_entry *kept = &q->history[q->history_at];
    *kept = *entry;
    kept->params = (struct kp_str){ NULL, 0 };
    q->history_hash[q->history_at] = id_hash(kp_str_of(entry->id));
    q->history_at = (q->history_at + 1) % q->o.history;
    if (q->history_count < q->o.history)
        q->history_count++;
}

/* Ends an entry, by an event that is legal for it: told, then remembered without its parameters. */
static void end(struct kp_queue *q, struct kp_queue_entry *entry, enum kp_queue_event event, enum kp_err result, int64_t now_ms)
{
    move(q, entry, event);
    entry->result = result;
    entry->ended_ms = now_ms;
    tell(q, entry);
    history_add(q, entry);
}

static void slot_free(struct kp_queue *q, uint32_t slot)
{
    q->limited -= q->slots[slot].wait_ms > 0;
    q->slot_hash[slot] = 0;
    q->spare[q->spare_count++] = slot;
}

static void order_remove(struct kp_queue *q, size_t at)
{
    memmove(q->order + at, q->order + at + 1, (--q->order_count - at) * sizeof *q->order);
}

/* Behind the last one whose priority is as high. */
static void order_add(struct kp_queue *q, uint32_t slot)
{
    size_t low = 0, high = q->order_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (q->slots[q->order[middle]].priority >= q->slots[slot].priority)
            low = middle + 1;
        else
            high = middle;
    }
    memmove(q->order + low + 1, q->order + low, (q->order_count++ - low) * sizeof *q->order);
    q->order[low] = slot;
}

static size_t order_of(const struct kp_queue *q, size_t slot)
{
    size_t at = 0;
    while (q->order[at] != slot)
        at++;
    return at;
}

/* Ends a pending entry: by cancelling it, or as too late. */
static void pending_end(struct kp_queue *q, uint32_t slot, enum kp_queue_event event, int64_t now_ms)
{
    end(q, &q->slots[slot], event, event == KP_QE_CANCEL ? KP_CANCELLED : KP_TIMEOUT, now_ms);
    params_free(q, &q->slots[slot]);
    slot_free(q, slot);
}

/* Cancels what waits: all of it, or what a failure in a batch stops. Returns how many. */
static size_t sweep(struct kp_queue *q, bool all, uint64_t batch, int64_t now_ms)
{
    size_t kept = 0, count = q->order_count;
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = q->order[i];
        const struct kp_queue_entry *entry = &q->slots[slot];
        if (all || (entry->batch == batch && entry->stop_on_error))
            pending_end(q, slot, KP_QE_CANCEL, now_ms);
        else
            q->order[kept++] = slot;
    }
    q->order_count = kept;
    return count - kept;
}

static void batch_stop(struct kp_queue *q, uint64_t batch, int64_t now_ms)
{
    if (batch != 0)
        sweep(q, false, batch, now_ms);
}

/* ---- adding ---- */

static enum kp_err item_check(const struct kp_queue_item *item, struct kp_error *e)
{
    if (!id_ok(item->id))
        return kp_error_set(e, KP_INVALID_PARAMETER, "id", "an id has 1 to %d characters of A-Z a-z 0-9 _ -", KP_QUEUE_ID_MAX - 1);
    if (!kp_name_ok(item->command))
        return kp_error_set(e, KP_INVALID_PARAMETER, "command", "a command has 1 to %d characters of A-Z a-z 0-9 _", KP_NAME_MAX - 1);
    if (item->params.n > KP_QUEUE_PARAMS_MAX)
        return kp_error_range(e, KP_PAYLOAD_TOO_LARGE, "parameters", "bytes", (double)item->params.n, 0, KP_QUEUE_PARAMS_MAX);
    if (item->wait_ms < 0 || item->timeout_ms < 0)
        return kp_error_set(e, KP_INVALID_PARAMETER, item->wait_ms < 0 ? "wait_ms" : "timeout_ms", "a time below 0");
    return KP_OK;
}

/* An entry of an item that was checked. False: out of memory. */
static bool entry_make(struct kp_queue *q, struct kp_queue_entry *entry, const struct kp_queue_item *item, int64_t now_ms)
{
    char *params = NULL;
    if (item->params.n > 0) {
        params = malloc(item->params.n);
        if (!params)
            return false;
        memcpy(params, item->params.p, item->params.n);
        q->bytes += item->params.n;
    }
    *entry = (struct kp_queue_entry){ .params = { params, item->params.n }, .priority = item->priority, .batch = item->batch,
        .stop_on_error = item->stop_on_error, .state = KP_Q_PENDING, .result = KP_OK, .wait_ms = item->wait_ms, .timeout_ms = item->timeout_ms,
        .added_ms = now_ms, .started_ms = INT64_MIN, .ended_ms = INT64_MIN };
    memcpy(entry->id, item->id.p, item->id.n);
    memcpy(entry->command, item->command.p, item->command.n);
    return true;
}

static enum kp_err id_new(const struct kp_queue *q, struct kp_str id, struct kp_error *e)
{
    if (slot_find(q, id) == SIZE_MAX && !kp_queue_find(q, id))
        return KP_OK;
    char shown[KP_QUEUE_ID_MAX] = "";
    memcpy(shown, id.p, id.n);
    return kp_error_set(e, KP_INVALID_PARAMETER, "id", "%s is there already", shown);
}

/* Puts a checked item into a slot that order does not list yet. */
static enum kp_err slot_stage(struct kp_queue *q, const struct kp_queue_item *item, int64_t now_ms, struct kp_error *e)
{
    enum kp_err rc = id_new(q, item->id, e);
    if (rc != KP_OK)
        return rc;
    uint32_t slot = q->spare[q->spare_count - 1];
    if (!entry_make(q, &q->slots[slot], item, now_ms))
        return kp_error_set(e, KP_INTERNAL_ERROR, NULL, "out of memory");
    q->spare_count--;
    q->slot_hash[slot] = id_hash(item->id);
    q->limited += item->wait_ms > 0;
    return KP_OK;
}

static enum kp_err room_check(const struct kp_queue *q, const struct kp_queue_item *items, size_t count, struct kp_error *e)
{
    size_t bytes = q->bytes, used = q->order_count + q->current.running;
    if (count > q->o.entries - used)
        return kp_error_set(e, KP_QUEUE_FULL, NULL, "the queue has room for %zu more of %zu entries", q->o.entries - used, q->o.entries);
    for (size_t i = 0; i < count; i++)
        bytes += items[i].params.n;
    if (bytes > q->o.bytes)
        return kp_error_set(e, KP_QUEUE_FULL, NULL, "the queue has room for %zu more bytes of parameters", q->o.bytes - q->bytes);
    return KP_OK;
}

static enum kp_err size_check(const char *field, size_t got, struct kp_error *e)
{
    if (got >= 1 && got <= KP_QUEUE_ENTRIES_MAX)
        return KP_OK;
    return kp_error_range(e, KP_INVALID_PARAMETER, field, "", (double)got, 1, KP_QUEUE_ENTRIES_MAX);
}

/* ---- public ---- */

const char *kp_queue_state_name(enum kp_queue_state state)
{
    return (unsigned)state < KP_Q_STATES ? state_names[state] : NULL;
}

bool kp_queue_state_by_name(struct kp_str name, enum kp_queue_state *out)
{
    for (size_t i = 0; i < KP_Q_STATES; i++)
        if (kp_str_eq(name, state_names[i])) {
            *out = (enum kp_queue_state)i;
            return true;
        }
    return false;
}

bool kp_queue_next(enum kp_queue_state state, enum kp_queue_event event, enum kp_queue_state *next)
{
    if ((unsigned)state >= KP_Q_STATES || (unsigned)event >= KP_QE_EVENTS || !moves[state][event])
        return false;
    *next = (enum kp_queue_state)(moves[state][event] - 1);
    return true;
}

void kp_queue_defaults(struct kp_queue_options *o)
{
    *o = (struct kp_queue_options){ .entries = 1000, .history = 1000, .bytes = 8u << 20 };
}

enum kp_err kp_queue_new(struct kp_queue **out, const struct kp_queue_options *o, struct kp_error *e)
{
    struct kp_queue_options defaults;
    enum kp_err rc;
    kp_queue_defaults(&defaults);
    o = o ? o : &defaults;
    if ((rc = size_check("entries", o->entries, e)) != KP_OK || (rc = size_check("history", o->history, e)) != KP_OK)
        return rc;
    rc = KP_INTERNAL_ERROR;
    struct kp_queue *q = calloc(1, sizeof *q);
    if (!q)
        goto out;
    q->o = *o;
    q->slots = calloc(o->entries, sizeof *q->slots);
    q->slot_hash = calloc(o->entries, sizeof *q->slot_hash);
    q->spare = malloc(o->entries * sizeof *q->spare);
    q->order = malloc(o->entries * sizeof *q->order);
    q->history = calloc(o->history, sizeof *q->history);
    q->history_hash = calloc(o->history, sizeof *q->history_hash);
    if (!q->slots || !q->slot_hash || !q->spare || !q->order || !q->history || !q->history_hash)
        goto out;
    for (size_t i = o->entries; i > 0; i--)
        q->spare[q->spare_count++] = (uint32_t)(i - 1);
    *out = q, q = NULL; /* given */
    rc = KP_OK;
out:
    kp_queue_free(q);
    return rc == KP_OK ? rc : kp_error_set(e, rc, NULL, "out of memory");
}

void kp_queue_free(struct kp_queue *q)
{
    if (!q)
        return;
    for (size_t i = 0; i < q->order_count; i++)
        params_free(q, &q->slots[q->order[i]]);
    params_free(q, &q->current);
    free(q->slots);
    free(q->slot_hash);
    free(q->spare);
    free(q->order);
    free(q->history);
    free(q->history_hash);
    free(q);
}

enum kp_err kp_queue_add(struct kp_queue *q, const struct kp_queue_item *items, size_t count, int64_t now_ms, struct kp_error *e)
{
    enum kp_err rc = KP_OK;
    for (size_t i = 0; i < count && rc == KP_OK; i++)
        rc = item_check(&items[i], e);
    if (rc == KP_OK)
        rc = room_check(q, items, count, e);
    if (rc != KP_OK)
        return rc;
    size_t before = q->spare_count, staged = 0;
    while (staged < count && (rc = slot_stage(q, &items[staged], now_ms, e)) == KP_OK)
        staged++;
    for (size_t i = 0; rc == KP_OK && i < staged; i++) {
        uint32_t slot = q->spare[before - 1 - i]; /* taken from the stack, still to be read above its top */
        order_add(q, slot);
        q->total[KP_Q_PENDING]++;
        tell(q, &q->slots[slot]);
    }
    for (size_t i = staged; rc != KP_OK && i > 0; i--) {
        uint32_t slot = q->spare[before - i];
        params_free(q, &q->slots[slot]);
        slot_free(q, slot);
    }
    return rc;
}

enum kp_err kp_queue_restore(struct kp_queue *q, const struct kp_queue_item *item, enum kp_queue_state state, enum kp_err result, int64_t now_ms,
    struct kp_error *e)
{
    enum kp_err rc = item_check(item, e);
    struct kp_queue_entry entry;
    struct kp_queue_item bare = *item;
    if (rc != KP_OK)
        return rc;
    if ((unsigned)state >= KP_Q_STATES)
        return kp_error_set(e, KP_INVALID_PARAMETER, "state", "no state has the number %d", (int)state);
    if (state == KP_Q_PENDING) {
        if ((rc = room_check(q, item, 1, e)) != KP_OK || (rc = slot_stage(q, item, now_ms, e)) != KP_OK)
            return rc;
        order_add(q, q->spare[q->spare_count]);
        q->total[KP_Q_PENDING]++;
        return KP_OK;
    }
    if ((rc = id_new(q, item->id, e)) != KP_OK)
        return rc;
    bare.params = (struct kp_str){ NULL, 0 };
    entry_make(q, &entry, &bare, now_ms); /* without parameters it allocates nothing */
    entry.state = state;
    entry.result = state == KP_Q_EXECUTING ? KP_OUTCOME_UNKNOWN : result;
    entry.ended_ms = now_ms;
    move(q, &entry, KP_QE_RESTORE);
    if (state == KP_Q_EXECUTING) {
        q->holds |= KP_HOLD_INTERRUPTED;
        tell(q, &entry);
    }
    history_add(q, &entry);
    return KP_OK;
}

const struct kp_queue_entry *kp_queue_take(struct kp_queue *q, int64_t now_ms)
{
    if (q->holds != 0 || q->current.running || q->order_count == 0)
        return NULL;
    uint32_t slot = q->order[0];
    q->current = q->slots[slot];
    order_remove(q, 0);
    slot_free(q, slot);
    move(q, &q->current, KP_QE_TAKE);
    q->current.running = true;
    q->current.started_ms = now_ms;
    tell(q, &q->current);
    return &q->current;
}

/* The lane is free again. */
static void current_clear(struct kp_queue *q)
{
    params_free(q, &q->current);
    q->current.running = false;
}

/* rest: what is left of its batch ends with it where it says so. */
static enum kp_err finish(struct kp_queue *q, struct kp_str id, enum kp_err result, bool rest, int64_t now_ms, struct kp_error *e)
{
    struct kp_queue_entry *entry = &q->current;
    if (!current_is(q, id))
        return kp_queue_find(q, id) ? kp_error_set(e, KP_INVALID_REQUEST, "id", "the entry does not run")
                                    : kp_error_set(e, KP_NOT_FOUND, "id", "no such entry in the queue");
    entry->running = false;
    if (entry->state != KP_Q_EXECUTING) { /* it had timed out: its result stands */
        struct kp_queue_entry *kept = history_find(q, id);
        if (kept)
            kept->running = false;
        tell(q, entry);
    } else {
        end(q, entry, result == KP_OK ? KP_QE_SUCCEED : result == KP_OUTCOME_UNKNOWN ? KP_QE_LOSE : KP_QE_FAIL, result, now_ms);
        if (entry->state == KP_Q_INTERRUPTED)
            q->holds |= KP_HOLD_INTERRUPTED;
        if (entry->state == KP_Q_FAILED && rest)
            batch_stop(q, entry->batch, now_ms);
    }
    current_clear(q);
    return KP_OK;
}

enum kp_err kp_queue_finish(struct kp_queue *q, struct kp_str id, enum kp_err result, int64_t now_ms, struct kp_error *e)
{
    return finish(q, id, result, true, now_ms, e);
}

enum kp_err kp_queue_skip(struct kp_queue *q, struct kp_str id, enum kp_err result, int64_t now_ms, struct kp_error *e)
{
    return finish(q, id, result, false, now_ms, e);
}

enum kp_err kp_queue_cancel(struct kp_queue *q, struct kp_str id, int64_t now_ms, struct kp_error *e)
{
    size_t slot = slot_find(q, id);
    if (slot == SIZE_MAX) {
        const struct kp_queue_entry *entry = kp_queue_find(q, id);
        return entry ? kp_error_set(e, KP_INVALID_REQUEST, "id", "only what is pending can be cancelled; this entry is %s", state_names[entry->state])
                     : kp_error_set(e, KP_NOT_FOUND, "id", "no such entry in the queue");
    }
    order_remove(q, order_of(q, slot));
    pending_end(q, (uint32_t)slot, KP_QE_CANCEL, now_ms);
    return KP_OK;
}

size_t kp_queue_clear(struct kp_queue *q, int64_t now_ms)
{
    return sweep(q, true, 0, now_ms);
}

size_t kp_queue_expire(struct kp_queue *q, int64_t now_ms)
{
    size_t count = 0, i = 0;
    struct kp_queue_entry *current = &q->current;
    if (current->running && current->state == KP_Q_EXECUTING && is_over(current->started_ms, current->timeout_ms, now_ms)) {
        end(q, current, KP_QE_EXPIRE, KP_TIMEOUT, now_ms);
        batch_stop(q, current->batch, now_ms);
        count++;
    }
    while (q->limited > 0 && i < q->order_count) {
        uint32_t slot = q->order[i];
        if (!is_over(q->slots[slot].added_ms, q->slots[slot].wait_ms, now_ms)) {
            i++;
            continue;
        }
        uint64_t batch = q->slots[slot].batch;
        order_remove(q, i);
        pending_end(q, slot, KP_QE_EXPIRE, now_ms);
        count++;
        if (batch != 0) {
            batch_stop(q, batch, now_ms);
            i = 0; /* what stood before may have gone */
        }
    }
    return count;
}

int64_t kp_queue_deadline(const struct kp_queue *q)
{
    int64_t first = INT64_MAX;
    if (q->current.running && q->current.state == KP_Q_EXECUTING)
        first = end_of(q->current.started_ms, q->current.timeout_ms);
    for (size_t i = 0; q->limited > 0 && i < q->order_count; i++) {
        const struct kp_queue_entry *entry = &q->slots[q->order[i]];
        int64_t at = end_of(entry->added_ms, entry->wait_ms);
        first = at < first ? at : first;
    }
    return first;
}

void kp_queue_pause(struct kp_queue *q, unsigned holds)
{
    q->holds |= holds & KP_HOLD_ALL;
}

void kp_queue_resume(struct kp_queue *q, unsigned holds)
{
    q->holds &= ~holds;
}

unsigned kp_queue_holds(const struct kp_queue *q)
{
    return q->holds;
}

const struct kp_queue_entry *kp_queue_running(const struct kp_queue *q)
{
    return q->current.running ? &q->current : NULL;
}

const struct kp_queue_entry *kp_queue_pending(const struct kp_queue *q, size_t i)
{
    return i < q->order_count ? &q->slots[q->order[i]] : NULL;
}

const struct kp_queue_entry *kp_queue_history(const struct kp_queue *q, size_t i)
{
    return i < q->history_count ? &q->history[(q->history_at + q->o.history - 1 - i) % q->o.history] : NULL;
}

const struct kp_queue_entry *kp_queue_find(const struct kp_queue *q, struct kp_str id)
{
    size_t slot = slot_find(q, id);
    if (slot != SIZE_MAX)
        return &q->slots[slot];
    return current_is(q, id) ? &q->current : history_find(q, id);
}

size_t kp_queue_position(const struct kp_queue *q, struct kp_str id)
{
    size_t slot = slot_find(q, id);
    return slot == SIZE_MAX ? 0 : order_of(q, slot) + 1;
}

struct kp_queue_counts kp_queue_counts(const struct kp_queue *q)
{
    struct kp_queue_counts counts = { .pending = q->order_count, .executing = q->current.running, .history = q->history_count, .bytes = q->bytes };
    memcpy(counts.total, q->total, sizeof counts.total);
    return counts;
}
