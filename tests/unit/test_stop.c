/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The two ways of an emergency stop, with stand-ins for Moonraker, Klipper's socket and the loop: what is owed, and when it is sent again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "loop.h"
#include "moonraker.h"
#include "stop.h"

/* ---- the stand-ins ---- */

struct mr {
    struct mr_events ev;
    void *user;
    bool connected;
    int sent;              /* calls ever */
    mr_done *done;         /* of the one under way; NULL: none */
    void *done_user;
};

struct loop_timer { loop_timer_fn *fn; void *user; bool set; };

static struct mr moonraker, klipper;
static struct kp_config *config;
static struct loop_timer timer;
static int confirmed;

struct mr *mr_new(struct loop *l, const struct mr_config *cfg, const struct mr_events *ev, void *user)
{
    (void)l, (void)cfg;
    klipper = (struct mr){ .ev = *ev, .user = user };
    return &klipper;
}

void mr_free(struct mr *m) { (void)m; }
bool mr_connected(const struct mr *m) { return m->connected; }

uint64_t mr_call(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user)
{
    (void)m, (void)method, (void)params, (void)timeout_ms, (void)done, (void)user;
    return 0;
}

uint64_t mr_urgent(struct mr *m, const char *method, json_t *params, int64_t timeout_ms, mr_done *done, void *user)
{
    assert_string_equal(method, m == &klipper ? "emergency_stop" : "printer.emergency_stop");
    assert_true(m->connected && !params && timeout_ms > 0 && !m->done);
    m->sent++;
    m->done = done, m->done_user = user;
    return (uint64_t)m->sent;
}

void mr_forget(struct mr *m, uint64_t id) { (void)m, (void)id; }

struct loop_timer *loop_timer_new(struct loop *l, loop_timer_fn *fn, void *user)
{
    (void)l;
    timer = (struct loop_timer){ fn, user, false };
    return &timer;
}

void loop_timer_set(struct loop_timer *t, int64_t ms) { (void)ms, t->set = true; }
void loop_timer_cancel(struct loop_timer *t) { t->set = false; }
void loop_timer_free(struct loop_timer *t) { (void)t; }

/* ---- what happens ---- */

static void on_done(void *user, const char *by)
{
    (void)user, (void)by;
    confirmed++;
}

static void answer(struct mr *m, enum mr_outcome outcome)
{
    mr_done *done = m->done;
    struct mr_reply r = { .outcome = outcome, .message = "a test's" };
    assert_non_null(done);
    m->done = NULL;
    done(m->done_user, &r);
}

static void due(void)
{
    assert_true(timer.set);
    timer.set = false;
    timer.fn(timer.user);
}

static void up(struct mr *m)
{
    m->connected = true;
    if (m->ev.up)
        m->ev.up(m->user);
}

static void down(struct mr *m)
{
    m->connected = false;
    if (m->done)
        answer(m, MR_LOST);
    if (m->ev.down)
        m->ev.down(m->user, "a test's");
}

/* Klipper's socket is known. Both are away. */
static struct stop *stop_make(void)
{
    struct kp_faults f = { .count = 0 };
    config = kp_config_new();
    assert_int_equal(kp_config_parse(config, "k.cfg", kp_str_of("[api]\nklipper_socket: /tmp/klippy\n"), &f), KP_OK);
    moonraker = klipper = (struct mr){ .sent = 0 };
    confirmed = 0;
    struct stop *s = stop_new(NULL, &moonraker, config, on_done, NULL);
    assert_non_null(s);
    return s;
}

static void end(struct stop *s)
{
    stop_free(s);
    kp_config_free(config);
}

static struct stop *stop_both(void)
{
    struct stop *s = stop_make();
    moonraker.connected = true;
    up(&klipper);
    stop_changed(s, KP_KLIPPY_READY, false);
    return s;
}

static void test_both_ways(void **state)
{
    (void)state;
    struct stop *s = stop_both();
    stop_send(s);
    assert_true(moonraker.sent == 1 && klipper.sent == 1 && stop_owed(s));
    answer(&klipper, MR_OK);
    assert_true(stop_owed(s) && confirmed == 0); /* Moonraker has its time */
    answer(&moonraker, MR_OK);
    assert_true(!stop_owed(s) && confirmed == 1);
    stop_send(s);
    answer(&klipper, MR_OK);
    due();
    assert_true(!stop_owed(s) && confirmed == 2);
    end(s);
}

/* Nobody could be told. Moonraker is back, and has not yet said how Klipper is: no reason to forget. */
static void test_owed_over_a_reconnect(void **state)
{
    (void)state;
    for (int calls_first = 0; calls_first < 2; calls_first++) {
        struct stop *s = stop_make();
        stop_send(s);
        due();
        assert_true(stop_owed(s) && moonraker.sent == 0 && klipper.sent == 0);
        stop_changed(s, KP_KLIPPY_GONE, false);
        moonraker.connected = true;
        if (calls_first) { /* asked once more, on a connection that nobody answers */
            stop_send(s);
            answer(&moonraker, MR_TIMEOUT);
        }
        for (int i = 0; i < 2; i++) { /* connected; and knows none yet */
            stop_changed(s, KP_KLIPPY_GONE, false);
            assert_true(stop_owed(s));
        }
        stop_changed(s, KP_KLIPPY_READY, false);
        assert_int_equal(moonraker.sent, 1 + calls_first);
        answer(&moonraker, MR_OK);
        assert_true(!stop_owed(s) && confirmed == 1);
        end(s);
    }
}

/* Moonraker has the stop and does not answer. Klipper's socket comes up late: it goes that way at once. */
static void test_a_late_socket(void **state)
{
    (void)state;
    struct stop *s = stop_make();
    moonraker.connected = true;
    stop_changed(s, KP_KLIPPY_READY, false);
    stop_send(s);
    due();
    assert_true(stop_owed(s) && moonraker.sent == 1 && klipper.sent == 0);
    up(&klipper);
    assert_true(moonraker.sent == 1 && klipper.sent == 1);
    answer(&klipper, MR_OK);
    due();
    assert_true(!stop_owed(s) && confirmed == 1);
    down(&klipper);
    up(&klipper);
    assert_int_equal(klipper.sent, 1); /* nothing is owed */
    end(s);
}

/* Moonraker says that there is no Klipper, and its socket is closed: a new one begins with nothing under way. */
static void test_a_dead_klipper_is_owed_nothing(void **state)
{
    (void)state;
    struct stop *s = stop_both();
    stop_send(s);
    down(&klipper);
    assert_true(stop_owed(s));
    stop_changed(s, KP_KLIPPY_GONE, true);
    assert_false(stop_owed(s));
    answer(&moonraker, MR_ERROR);
    stop_changed(s, KP_KLIPPY_READY, false);
    assert_int_equal(moonraker.sent, 1);
    end(s);

    s = stop_both(); /* the socket goes last */
    stop_send(s);
    stop_changed(s, KP_KLIPPY_GONE, true);
    answer(&moonraker, MR_ERROR);
    assert_true(stop_owed(s));
    down(&klipper);
    assert_false(stop_owed(s));
    end(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways), cmocka_unit_test(test_owed_over_a_reconnect), cmocka_unit_test(test_a_late_socket),
        cmocka_unit_test(test_a_dead_klipper_is_owed_nothing),
    };
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
