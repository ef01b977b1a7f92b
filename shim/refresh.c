/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Questions about objects of Klipper's status, for state.c. Invariant: of the same objects at most one is under way; who asks meanwhile shares the next one,
 * since what that tells is from after they asked. */
#include "refresh.h"

#include <stdlib.h>
#include <string.h>

#include "extra.h"
#include "loop.h"
#include "moonraker.h"

struct asker { struct asker *next; refresh_done *done; void *user; };

struct refresh {
    struct refreshes *all;
    struct refresh *next;
    struct asker *asked, *later;
    struct loop_timer *again;         /* the next retry, while it waits for that */
    bool waits;
    int64_t timeout_ms, deadline_ms;  /* of the question under way, its retries included */
    int64_t asked_ms;                 /* when it was last sent */
    unsigned retries;
    char objects[];
};

struct refreshes {
    struct loop *loop;
    struct mr *mr;
    struct extra *extra;
    refresh_fed *fed;
    void *user;
    struct refresh *first;
};

static void send_it(struct refresh *q);

static void tell(struct asker *list, enum kp_err how)
{
    while (list) {
        struct asker *a = list;
        list = a->next;
        a->done(a->user, how);
        free(a);
    }
}

static void begin(struct refresh *q)
{
    q->deadline_ms = loop_now_ms() + q->timeout_ms;
    q->retries = 0;
    send_it(q);
}

static void ended(struct refresh *q, enum kp_err how)
{
    struct asker *asked = q->asked;
    q->asked = NULL;
    tell(asked, how);
    if (how == KP_OK && q->later) {
        q->asked = q->later, q->later = NULL;
        begin(q);
        return;
    }
    struct refresh **at = &q->all->first;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    tell(q->later, how);
    loop_timer_free(q->again);
    free(q);
}

/* It was no good answer: asked again where that may help and there is time, else told. */
static void no_answer(struct refresh *q, const char *method, const struct mr_reply *r)
{
    int64_t wait_ms = r->failed ? kp_breaker_retry_ms(q->retries, mr_jitter(), loop_now_ms(), q->deadline_ms) : -1;
    if (wait_ms < 0) {
        ended(q, r->outcome == MR_OPEN ? KP_MOONRAKER_DISCONNECTED : KP_TIMEOUT);
        return;
    }
    q->retries++;
    q->waits = true;
    mr_retried(q->all->mr, method);
    loop_timer_set(q->again, wait_ms);
}

static const char query[] = "printer.objects.query", endstops[] = "printer.query_endstops.status";

static void on_query(void *user, const struct mr_reply *r)
{
    struct refresh *q = user;
    if (r->outcome != MR_OK) {
        no_answer(q, query, r);
        return;
    }
    q->all->fed(q->all->user, q->asked_ms, json_object_get(r->result, "eventtime"), json_object_get(r->result, "status"));
    ended(q, KP_OK);
}

static int64_t left_ms(const struct refresh *q)
{
    int64_t left = q->deadline_ms - loop_now_ms();
    return left > 0 ? left : 1; /* 0 would be no deadline */
}

static json_t *question(const char *names)
{
    json_t *objects = json_object();
    for (size_t n; *names; names += n + (names[n] == '\n')) {
        n = strcspn(names, "\n");
        json_object_setn_new(objects, names, n, json_null());
    }
    return json_pack("{s:o}", "objects", objects);
}

/* The extra's answer; an error of its own is no reason not to ask Klipper as without it. */
static void on_read(void *user, const struct mr_reply *r)
{
    struct refresh *q = user;
    if (r->outcome == MR_ERROR)
        extra_read_failed(q->all->extra, r->message);
    if (r->outcome == MR_OK)
        on_query(q, r);
    else if ((r->outcome != MR_ERROR && r->outcome != MR_OPEN) || !mr_call(q->all->mr, query, question(q->objects), left_ms(q), on_query, q))
        no_answer(q, EXTRA_READ, r);
}

/* {"x": "open"}: the endstops as just asked, in the words of their status object. */
static void on_endstops(void *user, const struct mr_reply *r)
{
    struct refresh *q = user;
    const char *name;
    json_t *answer, *last = json_object();
    if (r->outcome == MR_OK)
        json_object_foreach(r->result, name, answer)
            json_object_set_new(last, name, json_integer(json_is_string(answer) && strcmp(json_string_value(answer), "open") != 0));
    json_t *status = json_pack("{s:{s:o}}", "query_endstops", "last_query", last);
    if (r->outcome == MR_OK && status)
        q->all->fed(q->all->user, q->asked_ms, NULL, status);
    json_decref(status);
    if (r->outcome == MR_OK)
        ended(q, KP_OK);
    else
        no_answer(q, endstops, r);
}

static void send_it(struct refresh *q)
{
    struct refreshes *all = q->all;
    bool now = extra_reads(all->extra);
    uint64_t id;
    q->asked_ms = loop_now_ms();
    if (!strcmp(q->objects, "query_endstops")) /* its status holds only what was last asked */
        id = mr_call(all->mr, endstops, NULL, left_ms(q), on_endstops, q);
    else
        id = mr_call(all->mr, now ? EXTRA_READ : query, question(q->objects), left_ms(q), now ? on_read : on_query, q);
    if (!id)
        ended(q, KP_TIMEOUT);
}

static void on_again(void *user)
{
    struct refresh *q = user;
    q->waits = false;
    send_it(q);
}

static struct refresh *refresh_new(struct refreshes *r, const char *objects, int64_t timeout_ms)
{
    size_t n = strlen(objects) + 1;
    struct refresh *q = malloc(sizeof *q + n);
    if (!q)
        return NULL;
    *q = (struct refresh){ .all = r, .next = r->first, .timeout_ms = timeout_ms };
    memcpy(q->objects, objects, n);
    if (!(q->again = loop_timer_new(r->loop, on_again, q))) {
        free(q);
        return NULL;
    }
    r->first = q;
    return q;
}

/* ---- for state ---- */

struct refreshes *refreshes_new(struct loop *l, struct mr *mr, struct extra *extra, refresh_fed *fed, void *user)
{
    struct refreshes *r = calloc(1, sizeof *r);
    if (r)
        *r = (struct refreshes){ .loop = l, .mr = mr, .extra = extra, .fed = fed, .user = user };
    return r;
}

void refreshes_free(struct refreshes *r)
{
    while (r && r->first)
        ended(r->first, KP_TIMEOUT);
    free(r);
}

void refreshes_down(struct refreshes *r)
{
    for (struct refresh *q = r->first; q; q = q->next)
        if (q->waits) /* asking now is refused, which tells them */
            loop_timer_set(q->again, 0);
}

void refresh_objects(struct refreshes *r, const char *objects, int64_t timeout_ms, refresh_done *done, void *user)
{
    struct asker *a = malloc(sizeof *a);
    struct refresh *q = r->first;
    while (q && strcmp(q->objects, objects))
        q = q->next;
    bool under_way = q != NULL;
    if (!a || (!q && !(q = refresh_new(r, objects, timeout_ms)))) {
        free(a);
        done(user, KP_TIMEOUT);
        return;
    }
    *a = (struct asker){ under_way ? q->later : NULL, done, user };
    *(under_way ? &q->later : &q->asked) = a;
    if (!under_way)
        begin(q);
}
