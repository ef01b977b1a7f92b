/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Keys that are changed while a change of theirs is on its way to the database, which is a stand-in here: memory and database say the same in the end. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "auth.h"
#include "auth_api.h"
#include "history.h"
#include "log.h"
#include "loop.h"

/* ---- the stand-ins ---- */

struct row { char id[ANSWER_ID], hash[SECRET_HEX], role[16]; bool enabled, deleted; };
struct history_writes { struct history_writes *next; struct row ops[4]; size_t count; history_done *done; void *user; };
struct history { struct row rows[16]; size_t count; struct history_writes *first, **last; };
struct loop_timer { loop_timer_fn *fn; void *user; };

static struct history database;
static struct loop_timer flush;
static double wall_s;

struct history_writes *history_begin(struct history *h)
{
    (void)h;
    return calloc(1, sizeof(struct history_writes));
}

static struct row *op(struct history_writes *w, const char *id)
{
    struct row *r = &w->ops[w->count++];
    assert_true(w->count <= 4);
    strcpy(r->id, id);
    return r;
}

void history_put_key(struct history_writes *w, const struct history_key *k)
{
    struct row *r = op(w, k->id);
    strcpy(r->hash, k->hash);
    strcpy(r->role, k->role);
    r->enabled = k->enabled;
}

void history_delete_key(struct history_writes *w, const char *id)
{
    op(w, id)->deleted = true;
}

bool history_commit(struct history_writes *w, history_done *done, void *user)
{
    w->done = done, w->user = user;
    *database.last = w;
    database.last = &w->next;
    return true;
}

const struct history_key *history_keys(const struct history *h, size_t *count)
{
    (void)h;
    *count = 0;
    return NULL;
}

bool history_failing(const struct history *h) { (void)h; return false; }

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *user)
{
    (void)l;
    flush = (struct loop_timer){ fn, user };
    return &flush;
}

void loop_timer_set(struct loop_timer *t, int64_t ms) { (void)t, (void)ms; }
void loop_timer_free(struct loop_timer *t) { (void)t; }
int64_t loop_now_ms(void) { return 1000; }
double answer_wall(void) { return wall_s += 1; }

void answer_id(struct answer_pool *pool, char out[ANSWER_ID])
{
    snprintf(out, ANSWER_ID, "%08x-0000-4000-8000-000000000000", (unsigned)pool->left++);
}

static struct row *stored(const char *id)
{
    for (size_t i = 0; i < database.count; i++)
        if (!strcmp(database.rows[i].id, id))
            return &database.rows[i];
    return NULL;
}

/* The database writes what was committed first, or cannot. */
static void write_one(bool ok)
{
    struct history_writes *w = database.first;
    assert_non_null(w);
    if (!(database.first = w->next))
        database.last = &database.first;
    for (size_t i = 0; ok && i < w->count; i++) {
        struct row *r = stored(w->ops[i].id);
        if (!r)
            r = &database.rows[database.count++];
        *r = w->ops[i];
        if (r->deleted)
            *r = database.rows[--database.count];
    }
    if (w->done)
        w->done(w->user, ok);
    free(w);
}

static void write_all(void)
{
    while (database.first)
        write_one(true);
}

/* ---- what is asked ---- */

struct told { enum kp_err code; char id[ANSWER_ID], key[SECRET_TEXT]; int times; };

static struct kp_config *config;
static struct kp_machine *machine;
static struct auth *auth;
static struct auth_api *api;

static void on_told(void *user, const struct app_answer *a)
{
    struct told *t = user;
    json_t *data = a->faults->count ? NULL : json_loadb(a->data, a->n, 0, NULL);
    const char *id = json_string_value(json_object_get(data, "id")), *key = json_string_value(json_object_get(data, "key"));
    t->times++;
    t->code = kp_faults_code(a->faults);
    strcpy(t->id, id ? id : "");
    strcpy(t->key, key ? key : "");
    json_decref(data);
}

/* More arguments: a role for key_create, enabled (0 or 1) for key_update. */
static void ask(struct told *t, const char *command, const char *id, const char *role, int enabled)
{
    static const struct auth_who admin = { KP_ADMIN, 1 };
    struct kp_arg args[3];
    struct kp_faults f = { .count = 0 };
    struct kp_call call;
    size_t n = 0;
    if (id)
        args[n++] = (struct kp_arg){ kp_str_of("id"), { .kind = KP_STR, .str = kp_str_of(id) }, false };
    if (role) {
        args[n++] = (struct kp_arg){ kp_str_of("role"), { .kind = KP_STR, .str = kp_str_of(role) }, false };
        args[n++] = (struct kp_arg){ kp_str_of("name"), { .kind = KP_STR, .str = kp_str_of("a key") }, false };
    }
    if (enabled >= 0)
        args[n++] = (struct kp_arg){ kp_str_of("enabled"), { .kind = KP_BOOL, .flag = enabled }, false };
    assert_int_equal(kp_check(machine, kp_command_by_name(kp_str_of(command)), args, n, &call, &f), KP_OK);
    *t = (struct told){ .times = 0 };
    auth_api_begin(api, &call, &admin, on_told, t);
}

static bool enters(const char *key)
{
    static const struct sockaddr nobody = { .sa_family = AF_UNSPEC };
    struct auth_refusal no;
    struct auth_who who;
    return auth_enter(auth, key, &nobody, &who, &no) == KP_OK;
}

/* What a server would find that starts now. */
static void same_in_the_database(const char *id)
{
    const struct auth_key *k = auth_key(auth, id);
    const struct row *r = stored(id);
    char hex[SECRET_HEX];
    assert_true(!k == !r);
    if (!k)
        return;
    secret_to_hex(k->hash, hex);
    assert_string_equal(r->hash, hex);
    assert_string_equal(r->role, k->role == KP_ADMIN ? "admin" : k->role == KP_OPERATOR ? "operator" : "viewer");
    assert_int_equal(r->enabled, k->enabled);
}

static int setup(void **state)
{
    struct kp_faults f = { .count = 0 };
    (void)state;
    config = kp_config_new();
    kp_config_parse(config, "test", kp_str_of("[api]\napi_key_enabled: true\n"), &f);
    machine = kp_machine_new(config);
    auth = auth_new(config);
    database = (struct history){ .last = &database.first };
    database.last = &database.first;
    api = auth_api_new(NULL, auth, &database, config);
    return !api;
}

static int teardown(void **state)
{
    (void)state;
    auth_api_stop(api);
    write_all();
    auth_api_free(api);
    auth_free(auth);
    kp_machine_free(machine);
    kp_config_free(config);
    return 0;
}

static struct told made_key(void)
{
    struct told t;
    ask(&t, "key_create", NULL, "operator", -1);
    write_all();
    assert_true(t.times == 1 && t.code == KP_OK && enters(t.key));
    return t;
}

/* ---- the tests ---- */

static void test_deleted_while_it_is_rotated(void **state)
{
    struct told key = made_key(), rotated, deleted;
    (void)state;
    ask(&rotated, "key_rotate", key.id, NULL, -1);
    ask(&deleted, "key_delete", key.id, NULL, -1);
    assert_false(enters(key.key));
    write_all();
    assert_true(rotated.times == 1 && deleted.times == 1);
    assert_int_equal(deleted.code, KP_OK);
    assert_int_equal(rotated.code, KP_NOT_FOUND);
    assert_int_equal(auth_keys(auth), 0);
    same_in_the_database(key.id);
}

static void test_changed_while_it_is_rotated(void **state)
{
    struct told key = made_key(), rotated, disabled, lowered;
    (void)state;
    ask(&rotated, "key_rotate", key.id, NULL, -1);
    ask(&disabled, "key_update", key.id, NULL, 0);
    ask(&lowered, "key_update", key.id, "viewer", -1);
    assert_false(enters(key.key));
    write_all();
    assert_true(rotated.times == 1 && disabled.times == 1 && lowered.times == 1);
    assert_true(rotated.code == KP_OK && disabled.code == KP_OK && lowered.code == KP_OK);
    assert_false(enters(rotated.key));
    assert_int_equal(auth_key(auth, key.id)->role, KP_VIEWER);
    same_in_the_database(key.id);
    ask(&disabled, "key_update", key.id, NULL, 1);
    write_all();
    assert_true(enters(rotated.key) && !enters(key.key));
    same_in_the_database(key.id);
}

/* A rotation that the database did not take leaves the old key, with what was changed meanwhile. */
static void test_changed_while_a_rotation_fails(void **state)
{
    struct told key = made_key(), rotated, lowered;
    (void)state;
    ask(&rotated, "key_rotate", key.id, NULL, -1);
    ask(&lowered, "key_update", key.id, "viewer", -1);
    write_one(false);
    write_all();
    assert_int_equal(rotated.code, KP_DATABASE_UNAVAILABLE);
    assert_int_equal(lowered.code, KP_OK);
    assert_true(enters(key.key));
    assert_int_equal(auth_key(auth, key.id)->role, KP_VIEWER);
    same_in_the_database(key.id);
}

/* Four at once, of rotations, changes and deletions in each order. */
static void test_every_order(void **state)
{
    static const char *const commands[4] = { "key_rotate", "key_get", "key_update", "key_delete" };
    (void)state;
    for (int order = 0; order < 4 * 4 * 4 * 4; order++) {
        struct told key = made_key(), told[4];
        for (int i = 0; i < 4; i++) {
            int what = order >> 2 * i & 3;
            ask(&told[i], commands[what], key.id, NULL, what == 2 ? i & 1 : -1);
        }
        flush.fn(flush.user);
        write_all();
        for (int i = 0; i < 4; i++)
            assert_int_equal(told[i].times, 1);
        same_in_the_database(key.id);
        if (auth_key(auth, key.id))
            ask(&told[0], "key_delete", key.id, NULL, -1);
        write_all();
        same_in_the_database(key.id);
    }
}

/* When it was used is written now and then, and never with the old hash behind the new one. */
static void test_flush_while_it_is_rotated(void **state)
{
    struct told key = made_key(), rotated;
    (void)state;
    ask(&rotated, "key_rotate", key.id, NULL, -1);
    flush.fn(flush.user);
    write_all();
    assert_int_equal(rotated.code, KP_OK);
    same_in_the_database(key.id);
    assert_true(enters(rotated.key));
    flush.fn(flush.user);
    assert_non_null(database.first);
    write_all();
    same_in_the_database(key.id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_deleted_while_it_is_rotated, setup, teardown), cmocka_unit_test_setup_teardown(test_changed_while_it_is_rotated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changed_while_a_rotation_fails, setup, teardown), cmocka_unit_test_setup_teardown(test_every_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_while_it_is_rotated, setup, teardown),
    };
    log_setup(LOG_WARNING, false);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
