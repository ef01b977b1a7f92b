/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What is to be written, collected as operations for history.c's thread. Invariant: one that memory ran out for is marked, and refused as a whole. */
#include "history_priv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A new operation at the end; NULL when out of memory. */
static struct db_op *op_add(struct history_writes *w, enum db_sql sql)
{
    struct db_op *op = w ? calloc(1, sizeof *op) : NULL;
    if (!op) {
        if (w)
            w->complete = false;
        return NULL;
    }
    op->sql = sql;
    *w->tail = op;
    w->tail = &op->next;
    return op;
}

static void put_int(struct db_op *op, int64_t v)
{
    if (op)
        op->v[op->count++] = (struct db_value){ .kind = DB_INT, .i = v };
}

static void put_real(struct db_op *op, double v)
{
    if (op)
        op->v[op->count++] = (struct db_value){ .kind = DB_REAL, .r = v };
}

/* Unix seconds, to the millisecond. */
static void put_time(struct db_op *op, double at)
{
    put_real(op, round(at * 1000) / 1000);
}

static void put_text(struct history_writes *w, struct db_op *op, const char *v)
{
    if (!op)
        return;
    char *copy = v ? strdup(v) : NULL;
    if (v && !copy)
        w->complete = false;
    op->v[op->count++] = (struct db_value){ .kind = DB_TEXT, .s = copy };
}

void history_add_entry(struct history_writes *w, const struct history_entry *e)
{
    struct db_op *op = op_add(w, DB_ADD_ENTRY);
    put_text(w, op, e->id);
    put_text(w, op, e->command);
    put_text(w, op, e->params);
    put_int(op, e->priority);
    put_int(op, (int64_t)e->batch);
    put_int(op, e->stop_on_error);
    put_time(op, e->added_at);
}

void history_start_entry(struct history_writes *w, const char *id, double at)
{
    struct db_op *op = op_add(w, DB_START_ENTRY);
    put_time(op, at);
    put_text(w, op, id);
}

void history_end_entry(struct history_writes *w, const char *id)
{
    put_text(w, op_add(w, DB_END_ENTRY), id);
    if (w)
        w->lasting = true;
}

void history_add_command(struct history_writes *w, const struct history_command *c)
{
    struct db_op *op = op_add(w, DB_ADD_COMMAND);
    put_text(w, op, c->id);
    put_int(op, c->queued);
    put_text(w, op, c->command);
    put_text(w, op, c->params);
    put_int(op, c->priority);
    put_text(w, op, c->state);
    put_text(w, op, c->error_code);
    put_text(w, op, c->error_message);
    put_time(op, c->added_at);
    put_time(op, c->started_at);
    put_time(op, c->ended_at);
}

void history_add_event(struct history_writes *w, const struct kp_safety_event *e, double at)
{
    struct db_op *op = op_add(w, DB_ADD_EVENT);
    put_int(op, (int64_t)e->id);
    put_int(op, (int64_t)e->level);
    put_text(w, op, kp_level_name(e->level));
    put_text(w, op, kp_cause_name(e->cause));
    put_text(w, op, e->text);
    put_real(op, e->got);
    put_real(op, e->limit);
    put_time(op, at);
}

void history_put_key(struct history_writes *w, const struct history_key *k)
{
    struct db_op *op = op_add(w, DB_PUT_KEY);
    put_text(w, op, k->id);
    put_text(w, op, k->name);
    put_text(w, op, k->role);
    put_int(op, k->enabled);
    put_time(op, k->created_at);
    put_time(op, k->expires_at);
    put_time(op, k->last_used_at);
    put_text(w, op, k->hash);
}

void history_delete_key(struct history_writes *w, const char *id)
{
    put_text(w, op_add(w, DB_DELETE_KEY), id);
}

void history_set_holds(struct history_writes *w, unsigned holds)
{
    put_int(op_add(w, DB_SET_HOLDS), (int64_t)holds);
    if (w)
        w->lasting = true;
}

void history_ask_commands(struct history_writes *w, int limit, const char *before)
{
    struct db_op *op = op_add(w, DB_GET_COMMANDS);
    put_int(op, limit);
    put_text(w, op, before);
}
