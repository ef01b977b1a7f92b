/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The journal for jobs and app: transactions go to the writer thread by a list, their outcomes come back by another and an eventfd.
 * Invariant: a job belongs to one side at a time, and only what is under `lock` is seen by both. */
#include "history_priv.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "answer.h"
#include "log.h"
#include "loop.h"

#define OWED_MAX (2 * KP_QUEUE_ENTRIES_MAX) /* kept while they cannot be written: more than a whole queue ends with */
#define RETRY_S 1       /* between tries of what must not be lost */
#define PRUNE_EVERY 256 /* commands and events added between two cuts of their tables */

struct list { struct history_writes *head, **tail; size_t count; };

struct history {
    struct loop *loop;
    struct db *db;           /* the thread's once it runs */
    struct history_numbers numbers;
    struct history_entry *entries;
    json_t *entry_rows;      /* what entries borrows from */
    size_t entry_count;
    struct kp_safety_event *events;
    size_t event_count;
    struct history_key *keys;
    json_t *key_rows;        /* what keys borrows from */
    size_t key_count;
    int64_t commands;
    int event_fd;
    struct loop_timer *wake; /* wakes the thread at the next turn: not before who waits for an answer, or for a stop, has got it */
    bool waking;
    bool started, failing;   /* failing: as last told */
    pthread_t thread;
    /* ---- under lock ---- */
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct list in, out;
    bool quit, broken;
    /* ---- the thread's own ---- */
    struct list owed;        /* lasting ones that failed */
    int added;               /* rows since the last cut */
    bool said_broken;
};

static void list_add(struct list *l, struct history_writes *w)
{
    w->next = NULL;
    if (!l->head)
        l->tail = &l->head;
    *l->tail = w;
    l->tail = &w->next;
    l->count++;
}

static struct history_writes *list_take(struct list *l)
{
    struct history_writes *w = l->head;
    if (w) {
        l->head = w->next;
        l->count--;
    }
    return w;
}

static void writes_free(struct history_writes *w)
{
    while (w && w->ops) {
        struct db_op *op = w->ops;
        w->ops = op->next;
        for (int i = 0; i < op->count; i++)
            if (op->v[i].kind == DB_TEXT)
                free(op->v[i].s);
        free(op);
    }
    if (w)
        json_decref(w->rows);
    free(w);
}

/* ---- the thread ---- */

static bool run_one(struct history *h, const struct history_writes *w)
{
    for (const struct db_op *op = w->ops; op; op = op->next) {
        if (!db_run(h->db, op))
            return false;
        h->added += op->sql == DB_ADD_COMMAND || op->sql == DB_ADD_EVENT;
    }
    return true;
}

/* All of the list in one transaction. */
static bool transact(struct history *h, const struct history_writes *first, bool alone)
{
    bool ok = db_begin(h->db);
    for (const struct history_writes *w = first; ok && w; w = alone ? NULL : w->next)
        ok = run_one(h, w);
    ok = ok && db_commit(h->db);
    if (!ok)
        db_abort(h->db);
    return ok;
}

static void prune(struct history *h)
{
    const struct db_op commands = { .sql = DB_PRUNE_COMMANDS, .count = 1, .v = { { .kind = DB_INT, .i = h->commands } } };
    const struct db_op events = { .sql = DB_PRUNE_EVENTS, .count = 1, .v = { { .kind = DB_INT, .i = HISTORY_EVENTS_MAX } } };
    if (h->added < PRUNE_EVERY)
        return;
    h->added = 0;
    db_run(h->db, &commands); /* one that fails is made up for by the next */
    db_run(h->db, &events);
}

static void note(struct history *h, bool ok)
{
    if (ok == !h->said_broken)
        return;
    h->said_broken = !ok;
    if (ok)
        log_line(LOG_WARNING, "history", "database=writable");
    else
        log_line(LOG_ERROR, "history", "database=unwritable why=\"%s\" nothing is queued until it can be written; commands go on", db_error(h->db));
}

static void give_back(struct history *h, struct list *done)
{
    uint64_t one = 1;
    struct history_writes *w;
    pthread_mutex_lock(&h->lock);
    h->broken = h->said_broken;
    while ((w = list_take(done)))
        list_add(&h->out, w);
    pthread_mutex_unlock(&h->lock);
    if (write(h->event_fd, &one, sizeof one) < 0)
        return; /* only when 2^64 - 1 of them were not read */
}

/* What could not be written before goes first, so that nothing older overwrites it. */
static void pay(struct history *h, struct list *done)
{
    struct history_writes *w;
    if (!h->owed.head)
        return;
    bool ok = transact(h, h->owed.head, false);
    note(h, ok);
    while (ok && (w = list_take(&h->owed)))
        list_add(done, w);
}

static void ended(struct history *h, struct history_writes *w, struct list *done)
{
    bool keep = !w->ok && w->lasting && db_usable(h->db) && h->owed.count < OWED_MAX;
    list_add(keep ? &h->owed : done, w);
}

/* Writes in a row share a transaction; when that fails, each is tried alone. */
static void write_all(struct history *h, struct list *writes, struct list *done)
{
    struct history_writes *w;
    if (!writes->head)
        return;
    bool ok = transact(h, writes->head, false);
    bool single = writes->count == 1;
    while ((w = list_take(writes))) {
        w->ok = ok || (!single && transact(h, w, true));
        if (w->ops) /* one that only waits for those before it tells nothing of the disk */
            note(h, w->ok);
        ended(h, w, done);
    }
    prune(h);
}

static void work(struct history *h, struct list *in)
{
    struct list writes = { 0 }, done = { 0 };
    struct history_writes *w;
    pay(h, &done);
    while ((w = list_take(in))) {
        if (!w->page && w->lasting && h->owed.head)
            list_add(&h->owed, w); /* behind those that wait, in order */
        else if (!w->page)
            list_add(&writes, w);
        else {
            write_all(h, &writes, &done);
            w->rows = db_rows(h->db, w->ops);
            list_add(&done, w);
        }
    }
    write_all(h, &writes, &done);
    give_back(h, &done);
}

static void wait_for_work(struct history *h)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RETRY_S;
    while (!h->in.head && !h->quit)
        if (!h->owed.head)
            pthread_cond_wait(&h->more, &h->lock);
        else if (pthread_cond_timedwait(&h->more, &h->lock, &until) == ETIMEDOUT)
            return;
}

static void *run(void *user)
{
    struct history *h = user;
    bool quit = false;
    while (!quit) {
        struct list in = { 0 };
        struct history_writes *w;
        pthread_mutex_lock(&h->lock);
        wait_for_work(h);
        while ((w = list_take(&h->in)))
            list_add(&in, w);
        quit = h->quit;
        pthread_mutex_unlock(&h->lock);
        work(h, &in);
    }
    if (h->owed.head)
        log_line(LOG_ERROR, "history", "lost=%zu changes of the queue could not be written", h->owed.count);
    return NULL;
}

/* ---- the loop's side ---- */

static void on_event(void *user, int fd, uint32_t events)
{
    struct history *h = user;
    struct list out = { 0 };
    struct history_writes *w;
    uint64_t count;
    (void)events;
    if (read(fd, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&h->lock);
    while ((w = list_take(&h->out)))
        list_add(&out, w);
    h->failing = h->broken;
    pthread_mutex_unlock(&h->lock);
    while ((w = list_take(&out))) {
        if (w->page)
            w->page(w->user, w->rows);
        else if (w->done)
            w->done(w->user, w->ok);
        writes_free(w);
    }
}

static void on_wake(void *user)
{
    struct history *h = user;
    h->waking = false;
    pthread_mutex_lock(&h->lock);
    pthread_cond_signal(&h->more);
    pthread_mutex_unlock(&h->lock);
}

/* Takes w. */
static bool submit(struct history *h, struct history_writes *w)
{
    bool taken = w->complete && h->started;
    if (taken) {
        pthread_mutex_lock(&h->lock);
        taken = h->in.count < HISTORY_WAITING_MAX || w->lasting;
        if (taken)
            list_add(&h->in, w);
        pthread_mutex_unlock(&h->lock);
    }
    if (taken && !h->waking) {
        h->waking = true;
        loop_timer_set(h->wake, 0);
    }
    if (!taken)
        writes_free(w);
    return taken;
}

/* ---- for the others ---- */

struct history_writes *history_begin(struct history *h)
{
    struct history_writes *w = calloc(1, sizeof *w);
    if (w) {
        w->history = h, w->complete = true;
        w->tail = &w->ops;
    }
    return w;
}

bool history_commit(struct history_writes *w, history_done *done, void *user)
{
    if (!w)
        return false;
    if (!done && !w->ops && w->complete) { /* nothing was collected */
        writes_free(w);
        return true;
    }
    w->done = done, w->user = user;
    w->lasting = w->lasting && !done;
    return submit(w->history, w);
}

bool history_commands(struct history *h, int limit, const char *before, history_page *page, void *user)
{
    struct history_writes *w = history_begin(h);
    if (!w)
        return false;
    history_ask_commands(w, limit, before);
    w->page = page, w->user = user;
    return submit(h, w);
}

/* ---- start and end ---- */

static double number(json_t *row, const char *name)
{
    json_t *v = json_object_get(row, name);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int64_t whole(json_t *row, const char *name)
{
    return json_integer_value(json_object_get(row, name));
}

static const char *text(json_t *row, const char *name)
{
    const char *v = json_string_value(json_object_get(row, name));
    return v ? v : "";
}

static void read_event(struct history *h, json_t *row)
{
    struct kp_safety_event *e = &h->events[h->event_count];
    struct kp_error cut; /* cuts a text at a character's end */
    kp_error_set(&cut, KP_OK, NULL, "%s", text(row, "message"));
    *e = (struct kp_safety_event){ .id = (uint64_t)whole(row, "id"), .at_ms = loop_now_ms() - (int64_t)((answer_wall() - number(row, "timestamp")) * 1000),
        .got = number(row, "got"), .limit = number(row, "limit") };
    memcpy(e->text, cut.message, sizeof e->text);
    h->event_count += kp_level_by_name(kp_str_of(text(row, "level")), &e->level) && kp_cause_by_name(kp_str_of(text(row, "cause")), &e->cause);
}

static bool read_events(struct history *h)
{
    const struct db_op events = { .sql = DB_GET_EVENTS, .count = 1, .v = { { .kind = DB_INT, .i = KP_EVENTS_MAX } } };
    const struct db_op latch = { .sql = DB_GET_LATCH };
    json_t *rows = db_rows(h->db, &events), *latches = db_rows(h->db, &latch), *stop = json_array_get(latches, 0);
    size_t count = json_array_size(rows);
    h->events = calloc(KP_EVENTS_MAX + 1, sizeof *h->events);
    bool read = rows && latches && h->events;
    if (read && stop && whole(stop, "id") < whole(json_array_get(rows, count - 1), "id"))
        read_event(h, stop); /* the latch is as it left it, whatever came since */
    for (size_t i = count; read && i-- > 0;) /* the last one came first */
        read_event(h, json_array_get(rows, i));
    json_decref(rows);
    json_decref(latches);
    return read;
}

static bool read_keys(struct history *h)
{
    const struct db_op keys = { .sql = DB_GET_KEYS };
    json_t *row;
    size_t i;
    h->key_rows = db_rows(h->db, &keys);
    h->keys = calloc(json_array_size(h->key_rows) + 1, sizeof *h->keys);
    if (!h->key_rows || !h->keys)
        return false;
    json_array_foreach(h->key_rows, i, row)
        h->keys[h->key_count++] = (struct history_key){
            .id = text(row, "id"), .name = text(row, "name"), .role = text(row, "role"), .hash = text(row, "hash"), .enabled = whole(row, "enabled"),
            .created_at = number(row, "created_at"), .expires_at = number(row, "expires_at"), .last_used_at = number(row, "last_used_at") };
    return true;
}

/* What the last process left. False: out of memory, or the file cannot be read. */
static bool read_start(struct history *h)
{
    const struct db_op numbers = { .sql = DB_GET_NUMBERS }, entries = { .sql = DB_GET_ENTRIES };
    json_t *rows = db_rows(h->db, &numbers), *row = json_array_get(rows, 0);
    size_t i;
    h->numbers = (struct history_numbers){ (unsigned)whole(row, "holds"), (uint64_t)whole(row, "batch") };
    json_decref(rows);
    h->entry_rows = row ? db_rows(h->db, &entries) : NULL;
    h->entries = calloc(json_array_size(h->entry_rows) + 1, sizeof *h->entries);
    if (!h->entry_rows || !h->entries)
        return false;
    json_array_foreach(h->entry_rows, i, row)
        h->entries[h->entry_count++] = (struct history_entry){
            .id = text(row, "id"), .command = text(row, "command"), .params = text(row, "text"), .priority = (int)whole(row, "priority"),
            .batch = (uint64_t)whole(row, "batch"), .stop_on_error = whole(row, "stop_on_error"), .executing = whole(row, "executing"),
            .added_at = number(row, "added_at"), .started_at = number(row, "started_at") };
    return read_events(h) && read_keys(h);
}

struct history *history_new(struct loop *l, const char *path, size_t commands)
{
    struct history *h = calloc(1, sizeof *h);
    if (!h)
        return NULL;
    h->loop = l, h->commands = (int64_t)commands;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->more, NULL);
    h->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    h->db = db_open(path);
    h->wake = loop_timer_new(l, on_wake, h);
    if (!h->wake || h->event_fd < 0 || !h->db || loop_watch(l, h->event_fd, EPOLLIN, on_event, h)) {
        history_free(h);
        return NULL;
    }
    h->failing = h->said_broken = !db_usable(h->db);
    if (!h->failing && !read_start(h))
        log_line(LOG_ERROR, "history", "what the last run left cannot be read: \"%s\"", db_error(h->db));
    return h;
}

bool history_start(struct history *h)
{
    free(h->entries);
    json_decref(h->entry_rows);
    free(h->events);
    h->entries = NULL, h->entry_rows = NULL, h->entry_count = 0;
    h->events = NULL, h->event_count = 0;
    h->started = pthread_create(&h->thread, NULL, run, h) == 0;
    return h->started;
}

void history_free(struct history *h)
{
    struct history_writes *w;
    if (!h)
        return;
    if (h->started) {
        h->started = false; /* what callbacks commit now is refused */
        pthread_mutex_lock(&h->lock);
        h->quit = true;
        pthread_cond_signal(&h->more);
        pthread_mutex_unlock(&h->lock);
        pthread_join(h->thread, NULL);
    }
    while ((w = list_take(&h->in)) || (w = list_take(&h->out)) || (w = list_take(&h->owed))) {
        if (w->page)
            w->page(w->user, NULL);
        else if (w->done)
            w->done(w->user, false);
        writes_free(w);
    }
    if (h->event_fd >= 0) {
        loop_unwatch(h->loop, h->event_fd);
        close(h->event_fd);
    }
    loop_timer_free(h->wake);
    db_close(h->db);
    free(h->entries);
    free(h->events);
    free(h->keys);
    json_decref(h->entry_rows);
    json_decref(h->key_rows);
    pthread_cond_destroy(&h->more);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

void history_numbers(const struct history *h, struct history_numbers *out)
{
    *out = h->numbers;
}

const struct history_entry *history_entries(const struct history *h, size_t *count)
{
    *count = h->entry_count;
    return h->entries;
}

const struct kp_safety_event *history_events(const struct history *h, size_t *count)
{
    *count = h->event_count;
    return h->events;
}

const struct history_key *history_keys(const struct history *h, size_t *count)
{
    *count = h->key_count;
    return h->keys;
}

bool history_failing(const struct history *h)
{
    return h->failing;
}
