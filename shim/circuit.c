/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Breakers by operation, for moonraker.c. Invariant: of a degradation there is one line when it begins, one when its breaker opens and one when it is over,
 * however many calls fail meanwhile. */
#include "circuit.h"

#include <kp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "loop.h"
#include "metrics.h"

struct circuit {
    const char *method;       /* NULL: none yet */
    struct kp_breaker breaker;
    bool failing;             /* since the line that said so */
    unsigned failures, well;  /* since that line; successes in a row */
};

struct circuits { struct metrics *metrics; struct circuit at[CIRCUITS_MAX]; };

struct circuits *circuits_new(struct metrics *metrics)
{
    struct circuits *c = calloc(1, sizeof *c);
    if (c)
        c->metrics = metrics;
    return c;
}

void circuits_free(struct circuits *c)
{
    free(c);
}

/* NULL: there are too many. */
static struct circuit *circuit_of(struct circuits *c, const char *method)
{
    size_t i = 0;
    while (i < CIRCUITS_MAX && c->at[i].method && strcmp(c->at[i].method, method))
        i++;
    if (i == CIRCUITS_MAX)
        return NULL;
    c->at[i].method = method;
    return &c->at[i];
}

static void show(const struct circuits *c, const struct circuit *a)
{
    if (c->metrics)
        metrics_circuit(c->metrics, a->method, a->breaker.state);
}

static void over(struct circuit *a)
{
    if (a->failing)
        log_line(LOG_INFO, "circuit", "operation=%s works again failures=%u", a->method, a->failures);
    a->failing = false;
    a->failures = a->well = 0;
}

bool circuit_allows(struct circuits *c, const char *method)
{
    struct circuit *a = circuit_of(c, method);
    bool allowed = !a || kp_breaker_allows(&a->breaker, loop_now_ms());
    if (a)
        show(c, a);
    return allowed;
}

static void worked(struct circuit *a)
{
    kp_breaker_step(&a->breaker, KP_BREAKER_WORKED, loop_now_ms());
    if (a->failing && ++a->well >= KP_BREAKER_SUCCESSES && a->breaker.state == KP_BREAKER_CLOSED)
        over(a);
}

static void failed(struct circuit *a, const char *why)
{
    enum kp_breaker_state was = a->breaker.state;
    kp_breaker_step(&a->breaker, KP_BREAKER_FAILED, loop_now_ms());
    a->well = 0;
    a->failures++;
    if (!a->failing)
        log_line(LOG_WARNING, "circuit", "operation=%s fails why=\"%s\"", a->method, why ? why : "");
    a->failing = true;
    if (was == KP_BREAKER_CLOSED && a->breaker.state == KP_BREAKER_OPEN)
        log_line(LOG_WARNING, "circuit", "operation=%s open for_ms=%d failures=%u why=\"%s\"", a->method, KP_BREAKER_OPEN_MS, a->failures, why ? why : "");
}

void circuit_told(struct circuits *c, const char *method, bool it_worked, const char *why)
{
    struct circuit *a = circuit_of(c, method);
    if (!a)
        return;
    if (it_worked)
        worked(a);
    else
        failed(a, why);
    if (!it_worked && c->metrics)
        metrics_upstream_failed(c->metrics, method);
    show(c, a);
}

void circuits_connected(struct circuits *c)
{
    for (size_t i = 0; i < CIRCUITS_MAX && c->at[i].method; i++)
        if (c->at[i].breaker.state == KP_BREAKER_CLOSED)
            kp_breaker_step(&c->at[i].breaker, KP_BREAKER_BACK, loop_now_ms());
}

void circuits_back(struct circuits *c)
{
    for (size_t i = 0; i < CIRCUITS_MAX && c->at[i].method; i++) {
        kp_breaker_step(&c->at[i].breaker, KP_BREAKER_BACK, loop_now_ms());
        over(&c->at[i]);
        show(c, &c->at[i]);
    }
}
