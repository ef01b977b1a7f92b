/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The database behind history.c: the one place that knows SQLite. One thread at a time; it is opened in one and may be used in another. */
#ifndef HISTORY_DB_H
#define HISTORY_DB_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DB_VALUES_MAX 12

/* What can be asked; each with its values in the order of its SQL. */
enum db_sql {
    DB_ADD_ENTRY,     /* id, command, parameters, priority, batch, stop_on_error, added_at */
    DB_START_ENTRY,   /* started_at, id */
    DB_END_ENTRY,     /* id */
    DB_ADD_COMMAND,   /* id, queued, command, parameters, priority, state, error_code, error_message, added_at, started_at, ended_at */
    DB_ADD_EVENT,     /* id, rank, level, cause, message, got, limit, timestamp */
    DB_SET_HOLDS,     /* holds */
    DB_GET_COMMANDS,  /* limit, id of the one after or null */
    DB_GET_EVENTS,    /* limit */
    DB_GET_LATCH,     /* the last stop or release */
    DB_GET_ENTRIES,
    DB_GET_NUMBERS,   /* one row: holds, batch: the last of each */
    DB_PUT_KEY,       /* id, name, role, enabled, created_at, expires_at, last_used_at, hash */
    DB_DELETE_KEY,    /* id */
    DB_GET_KEYS,
    DB_PRUNE_COMMANDS, /* how many stay */
    DB_PRUNE_EVENTS,  /* how many stay */
    DB_SQL_COUNT
};

/* NULL text and NAN are SQL's null. */
struct db_value { enum { DB_INT, DB_REAL, DB_TEXT } kind; int64_t i; double r; char *s; };
struct db_op { struct db_op *next; enum db_sql sql; int count; struct db_value v[DB_VALUES_MAX]; };

struct db;

/* Opens or makes the file; NULL: a database in memory. One that is damaged or of another version is moved aside, which the log says. Gives a database that
 * fails everything when the file cannot be used. NULL when out of memory. */
struct db *db_open(const char *path);
void db_close(struct db *d);
/* Whether it can be used at all. */
bool db_usable(const struct db *d);
/* In one transaction, as many as db_begin is followed by; false: db_abort, nothing of it has happened. */
bool db_begin(struct db *d);
bool db_run(struct db *d, const struct db_op *op);
bool db_commit(struct db *d);
void db_abort(struct db *d);
/* The rows as an array of objects by column name; NULL: it failed. Gives it. */
json_t *db_rows(struct db *d, const struct db_op *op);
/* Why the last call failed. */
const char *db_error(const struct db *d);

#endif
