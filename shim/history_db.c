/* SPDX-License-Identifier: GPL-3.0-or-later */
/* SQLite for history.c: schema, statements, and what to do with a file that is no good. Invariant: a file that cannot be read as ours is never written over. */
#include "history_db.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define VERSION 1 /* of the schema, in the file as user_version */
#define PATH_LONGEST 4096
#define BUSY_MS 2000 /* how long start waits for somebody who reads the file, a backup for one */

struct db {
    sqlite3 *sqlite; /* NULL: the file cannot be used */
    sqlite3_stmt *statements[DB_SQL_COUNT];
    char error[256];
};

static const char schema[] =
    "BEGIN;"
    "CREATE TABLE queue(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, command TEXT NOT NULL, parameters TEXT NOT NULL,"
    " priority INTEGER NOT NULL, batch INTEGER NOT NULL, stop_on_error INTEGER NOT NULL, executing INTEGER NOT NULL DEFAULT 0,"
    " added_at REAL NOT NULL, started_at REAL);"
    "CREATE TABLE commands(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, queued INTEGER NOT NULL, command TEXT NOT NULL, parameters TEXT,"
    " priority INTEGER NOT NULL, state TEXT NOT NULL, error_code TEXT, error_message TEXT, added_at REAL, started_at REAL, ended_at REAL NOT NULL);"
    "CREATE INDEX commands_id ON commands(id);"
    "CREATE TABLE events(id INTEGER PRIMARY KEY, rank INTEGER NOT NULL, level TEXT NOT NULL, cause TEXT NOT NULL, message TEXT NOT NULL, got REAL, bound REAL,"
    " timestamp REAL NOT NULL);"
    "CREATE TABLE keys(seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL, role TEXT NOT NULL, enabled INTEGER NOT NULL,"
    " created_at REAL NOT NULL, expires_at REAL, last_used_at REAL, hash TEXT NOT NULL);"
    "CREATE TABLE numbers(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "PRAGMA user_version=1;"
    "COMMIT;";

#define LATCHES "'EMERGENCY_STOP','RELEASE'" /* the last of these tells how the latch stands, however old it is */

static const char *const texts[DB_SQL_COUNT] = {
    [DB_ADD_ENTRY] = "INSERT INTO queue(id, command, parameters, priority, batch, stop_on_error, added_at) VALUES(?,?,?,?,?,?,?)",
    [DB_START_ENTRY] = "UPDATE queue SET executing=1, started_at=? WHERE id=?",
    [DB_END_ENTRY] = "DELETE FROM queue WHERE id=?",
    [DB_ADD_COMMAND] = "INSERT INTO commands(id, queued, command, parameters, priority, state, error_code, error_message, added_at, started_at, ended_at)"
                       " VALUES(?,?,?,?,?,?,?,?,?,?,?)",
    [DB_ADD_EVENT] = "INSERT OR REPLACE INTO events(id, rank, level, cause, message, got, bound, timestamp) VALUES(?,?,?,?,?,?,?,?)",
    [DB_SET_HOLDS] = "INSERT OR REPLACE INTO numbers(name, value) VALUES('holds', ?)",
    [DB_GET_COMMANDS] = "SELECT id AS command_id, CASE WHEN queued THEN id END AS queue_id, command, parameters, priority, state, error_code, error_message,"
                        " added_at, started_at, ended_at FROM commands"
                        " WHERE ?2 IS NULL OR seq < (SELECT seq FROM commands WHERE id = ?2) ORDER BY seq DESC LIMIT ?1",
    [DB_GET_EVENTS] = "SELECT id, level, cause, message, got, bound AS \"limit\", timestamp FROM events ORDER BY id DESC LIMIT ?",
    [DB_GET_LATCH] = "SELECT id, level, cause, message, got, bound AS \"limit\", timestamp FROM events WHERE cause IN (" LATCHES ") ORDER BY id DESC LIMIT 1",
    [DB_GET_ENTRIES] = "SELECT id, command, parameters AS text, priority, batch, stop_on_error, executing, added_at, started_at FROM queue ORDER BY seq",
    [DB_GET_NUMBERS] = "SELECT coalesce((SELECT value FROM numbers WHERE name='holds'), 0) AS holds, coalesce((SELECT max(batch) FROM queue), 0) AS batch",
    [DB_PUT_KEY] = "INSERT INTO keys(id, name, role, enabled, created_at, expires_at, last_used_at, hash) VALUES(?,?,?,?,?,?,?,?)"
                   " ON CONFLICT(id) DO UPDATE SET name=excluded.name, role=excluded.role, enabled=excluded.enabled, expires_at=excluded.expires_at,"
                   " last_used_at=excluded.last_used_at, hash=excluded.hash",
    [DB_DELETE_KEY] = "DELETE FROM keys WHERE id=?",
    [DB_GET_KEYS] = "SELECT id, name, role, enabled, created_at, expires_at, last_used_at, hash FROM keys ORDER BY seq",
    [DB_PRUNE_COMMANDS] = "DELETE FROM commands WHERE seq <= (SELECT max(seq) FROM commands) - ?",
    [DB_PRUNE_EVENTS] = "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?"
                        " AND id IS NOT (SELECT max(id) FROM events WHERE cause IN (" LATCHES "))",
};

/* ---- one statement ---- */

static bool failed(struct db *d)
{
    snprintf(d->error, sizeof d->error, "%s", d->sqlite ? sqlite3_errmsg(d->sqlite) : "the file could not be opened");
    return false;
}

static bool exec(struct db *d, const char *text)
{
    return (d->sqlite && sqlite3_exec(d->sqlite, text, NULL, NULL, NULL) == SQLITE_OK) || failed(d);
}

static bool bind(sqlite3_stmt *s, int at, const struct db_value *v)
{
    switch (v->kind) {
    case DB_INT: return sqlite3_bind_int64(s, at, v->i) == SQLITE_OK;
    case DB_REAL: return (isnan(v->r) ? sqlite3_bind_null(s, at) : sqlite3_bind_double(s, at, v->r)) == SQLITE_OK;
    case DB_TEXT: return (v->s ? sqlite3_bind_text(s, at, v->s, -1, SQLITE_STATIC) : sqlite3_bind_null(s, at)) == SQLITE_OK;
    }
    return false;
}

/* The statement with its values, ready to step; NULL: it failed. */
static sqlite3_stmt *ready(struct db *d, const struct db_op *op)
{
    sqlite3_stmt **s = &d->statements[op->sql];
    if (!d->sqlite || (!*s && sqlite3_prepare_v3(d->sqlite, texts[op->sql], -1, SQLITE_PREPARE_PERSISTENT, s, NULL) != SQLITE_OK)) {
        failed(d);
        return NULL;
    }
    for (int i = 0; i < op->count; i++)
        if (!bind(*s, i + 1, &op->v[i])) {
            failed(d);
            return NULL;
        }
    return *s;
}

static void rest(sqlite3_stmt *s)
{
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
}

static json_t *column(sqlite3_stmt *s, int at)
{
    const char *text;
    switch (sqlite3_column_type(s, at)) {
    case SQLITE_INTEGER: return json_integer(sqlite3_column_int64(s, at));
    case SQLITE_FLOAT: return json_real(sqlite3_column_double(s, at));
    case SQLITE_TEXT:
        text = (const char *)sqlite3_column_text(s, at);
        return !text ? json_null() : strcmp(sqlite3_column_name(s, at), "parameters") ? json_string(text) : json_loads(text, 0, NULL);
    default: return json_null();
    }
}

static json_t *row(sqlite3_stmt *s)
{
    json_t *j = json_object();
    for (int i = 0; i < sqlite3_column_count(s); i++) {
        json_t *v = column(s, i);
        json_object_set_new(j, sqlite3_column_name(s, i), v ? v : json_null());
    }
    return j;
}

/* ---- the file ---- */

enum found { GOOD, NOT_OURS, UNUSABLE };

static enum found bad(struct db *d)
{
    int code = d->sqlite ? sqlite3_errcode(d->sqlite) & 0xff : SQLITE_CANTOPEN;
    failed(d);
    return code == SQLITE_NOTADB || code == SQLITE_CORRUPT ? NOT_OURS : UNUSABLE;
}

/* The first column of the first row. False: it failed. */
static bool ask(struct db *d, const char *text, char *out, size_t size)
{
    sqlite3_stmt *s = NULL;
    bool ok = sqlite3_prepare_v2(d->sqlite, text, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW;
    const char *got = ok ? (const char *)sqlite3_column_text(s, 0) : NULL;
    if (got)
        snprintf(out, size, "%s", got);
    sqlite3_finalize(s);
    return got != NULL;
}

/* Nothing is written before it is known that the file is ours or empty. */
static enum found look(struct db *d, bool *empty)
{
    char got[64], tables[64];
    if (!exec(d, "PRAGMA locking_mode=EXCLUSIVE") || !ask(d, "PRAGMA user_version", got, sizeof got) ||
        !ask(d, "SELECT count(*) FROM sqlite_master", tables, sizeof tables))
        return bad(d);
    *empty = atoi(got) == 0 && atoi(tables) == 0;
    if (!*empty && atoi(got) != VERSION) {
        snprintf(d->error, sizeof d->error, "its version is %s, not %d", got, VERSION);
        return NOT_OURS;
    }
    if (!ask(d, "PRAGMA quick_check(1)", got, sizeof got))
        return bad(d);
    if (!strcmp(got, "ok"))
        return GOOD;
    snprintf(d->error, sizeof d->error, "damaged: %s", got);
    return NOT_OURS;
}

static enum found make_ready(struct db *d)
{
    bool empty = false;
    enum found found = look(d, &empty);
    if (found != GOOD)
        return found;
    /* Two servers on one queue would both run it, so the file stays locked for as long as it is open. */
    if (!exec(d, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; BEGIN IMMEDIATE; COMMIT;") || (empty && !exec(d, schema)))
        return bad(d);
    return GOOD;
}

static void shut(struct db *d)
{
    for (int i = 0; i < DB_SQL_COUNT; i++)
        sqlite3_finalize(d->statements[i]);
    memset(d->statements, 0, sizeof d->statements);
    sqlite3_close(d->sqlite);
    d->sqlite = NULL;
}

static enum found open_file(struct db *d, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* SQLite would let everybody read it */
    if (fd < 0) {
        snprintf(d->error, sizeof d->error, "%s", strerror(errno));
        return UNUSABLE;
    }
    close(fd);
    if (sqlite3_open_v2(path, &d->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return bad(d);
    sqlite3_busy_timeout(d->sqlite, BUSY_MS);
    return make_ready(d);
}

/* Gives the file another name that no file has; its log goes with it. */
static bool move_aside(struct db *d, const char *path)
{
    static const char *const parts[] = { "", "-wal", "-shm" };
    char from[PATH_LONGEST], to[PATH_LONGEST], kept[PATH_LONGEST - 16];
    int i = 0;
    do
        snprintf(kept, sizeof kept, "%s.%lld-%d.aside", path, (long long)time(NULL), i++);
    while (!access(kept, F_OK));
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        snprintf(from, sizeof from, "%s%s", path, parts[p]);
        snprintf(to, sizeof to, "%s%s", kept, parts[p]);
        if (rename(from, to) && (p == 0 || errno != ENOENT)) {
            snprintf(d->error, sizeof d->error, "cannot be moved aside: %s", strerror(errno));
            return false;
        }
    }
    log_line(LOG_ERROR, "history", "database=%s moved_aside=%s why=\"%s\"", path, kept, d->error);
    return true;
}

/* ---- for history.c ---- */

struct db *db_open(const char *path)
{
    struct db *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    enum found found = UNUSABLE;
    if (!path)
        found = sqlite3_open_v2(":memory:", &d->sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK && exec(d, schema) ? GOOD : bad(d);
    else if (strlen(path) < PATH_LONGEST - 64)
        found = open_file(d, path);
    if (found == NOT_OURS) {
        shut(d);
        found = move_aside(d, path) ? open_file(d, path) : UNUSABLE;
    }
    if (found != GOOD) {
        log_line(LOG_ERROR, "history", "database=%s cannot be used until the next start: \"%s\"", path ? path : "memory", d->error);
        shut(d);
    }
    return d;
}

void db_close(struct db *d)
{
    if (!d)
        return;
    shut(d);
    free(d);
}

bool db_usable(const struct db *d)
{
    return d->sqlite != NULL;
}

bool db_begin(struct db *d)
{
    return exec(d, "BEGIN IMMEDIATE");
}

bool db_run(struct db *d, const struct db_op *op)
{
    sqlite3_stmt *s = ready(d, op);
    bool ok = s && (sqlite3_step(s) == SQLITE_DONE || failed(d));
    if (s)
        rest(s);
    return ok;
}

bool db_commit(struct db *d)
{
    return exec(d, "COMMIT");
}

void db_abort(struct db *d)
{
    if (d->sqlite && !sqlite3_get_autocommit(d->sqlite)) /* SQLite may have rolled back by itself */
        sqlite3_exec(d->sqlite, "ROLLBACK", NULL, NULL, NULL);
}

json_t *db_rows(struct db *d, const struct db_op *op)
{
    sqlite3_stmt *s = ready(d, op);
    json_t *rows = s ? json_array() : NULL;
    int rc = SQLITE_DONE;
    while (rows && (rc = sqlite3_step(s)) == SQLITE_ROW)
        json_array_append_new(rows, row(s));
    if (rc != SQLITE_DONE) {
        failed(d);
        json_decref(rows);
        rows = NULL;
    }
    if (s)
        rest(s);
    return rows;
}

const char *db_error(const struct db *d)
{
    return d->error;
}
