/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Counters and histograms for the rooms, printed for Prometheus. Invariant: every number of the text was counted, or read from the kernel while it was made. */
#include "metrics.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define METHODS_MAX 24 /* of Moonraker's that we use; a further one is counted as "other" */
#define BOUNDS_MAX 20

/* Upper bounds in microseconds. */
static const int64_t request_bounds[] = { 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
                                          30000000, 60000000, 120000000 };
static const int64_t turn_bounds[] = { 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 1000000 };

struct histogram { uint64_t bucket[BOUNDS_MAX + 1], sum_us, count; }; /* bucket i: up to bound i, beyond the one before; the last: beyond all */
struct method { const char *name; uint64_t calls, failures, retries; enum kp_breaker_state circuit; };

struct metrics {
    size_t commands;                 /* rows of the registry; one more stands for what has none */
    uint64_t (*requests)[KP_ERR_COUNT];
    struct histogram *took;          /* by row, as requests */
    struct histogram turns;
    uint64_t reads[METRICS_READS];
    struct method methods[METHODS_MAX + 1];
    struct { metrics_room_fn *fn; const void *user; } rooms[METRICS_ROOMS_MAX];
    size_t room_count;
};

struct metrics *metrics_new(void)
{
    struct metrics *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    kp_commands(&m->commands);
    m->requests = calloc(m->commands + 1, sizeof *m->requests);
    m->took = calloc(m->commands + 1, sizeof *m->took);
    m->methods[METHODS_MAX].name = "other";
    if (m->requests && m->took)
        return m;
    metrics_free(m);
    return NULL;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    free(m->requests);
    free(m->took);
    free(m);
}

/* ---- counting ---- */

static void add(struct histogram *h, const int64_t *bounds, size_t count, int64_t us)
{
    size_t i = 0;
    while (i < count && us > bounds[i])
        i++;
    h->bucket[i]++, h->count++;
    h->sum_us += us > 0 ? (uint64_t)us : 0;
}

static size_t row_of(const struct metrics *m, const struct kp_command *c)
{
    return c ? (size_t)(c - kp_commands(NULL)) : m->commands;
}

void metrics_answer(struct metrics *m, const struct kp_command *c, enum kp_err code)
{
    m->requests[row_of(m, c)][code]++;
}

void metrics_took(struct metrics *m, const struct kp_command *c, int64_t us)
{
    add(&m->took[row_of(m, c)], request_bounds, sizeof request_bounds / sizeof *request_bounds, us);
}

void metrics_read(struct metrics *m, enum metrics_read how)
{
    m->reads[how]++;
}

static struct method *method_of(struct metrics *m, const char *name)
{
    size_t i = 0;
    while (i < METHODS_MAX && m->methods[i].name && strcmp(m->methods[i].name, name))
        i++;
    if (i < METHODS_MAX)
        m->methods[i].name = name;
    return &m->methods[i];
}

void metrics_upstream(struct metrics *m, const char *method)
{
    method_of(m, method)->calls++;
}

void metrics_upstream_failed(struct metrics *m, const char *method)
{
    method_of(m, method)->failures++;
}

void metrics_upstream_retried(struct metrics *m, const char *method)
{
    method_of(m, method)->retries++;
}

void metrics_circuit(struct metrics *m, const char *method, enum kp_breaker_state state)
{
    method_of(m, method)->circuit = state;
}

void metrics_turn(void *user, int64_t us)
{
    struct metrics *m = user;
    add(&m->turns, turn_bounds, sizeof turn_bounds / sizeof *turn_bounds, us);
}

/* ---- the text ---- */

static void head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP klipperplace_%s %s\n# TYPE klipperplace_%s %s\n", name, help, name, type);
}

/* label: "command=\"move\"," or "". */
static void print_histogram(FILE *f, const char *name, const char *label, const struct histogram *h, const int64_t *bounds, size_t count)
{
    uint64_t below = 0;
    int n = (int)strlen(label);
    for (size_t i = 0; i < count; i++)
        fprintf(f, "klipperplace_%s_bucket{%sle=\"%g\"} %llu\n", name, label, (double)bounds[i] / 1e6, (unsigned long long)(below += h->bucket[i]));
    fprintf(f, "klipperplace_%s_bucket{%sle=\"+Inf\"} %llu\n", name, label, (unsigned long long)h->count);
    if (n)
        n--; /* the comma */
    fprintf(f, "klipperplace_%s_sum%s%.*s%s %.6f\n", name, n ? "{" : "", n, label, n ? "}" : "", (double)h->sum_us / 1e6);
    fprintf(f, "klipperplace_%s_count%s%.*s%s %llu\n", name, n ? "{" : "", n, label, n ? "}" : "", (unsigned long long)h->count);
}

static void print_requests(FILE *f, const struct metrics *m)
{
    const struct kp_command *rows = kp_commands(NULL);
    head(f, "requests_total", "counter", "Answers by command and error code; OK is a success, unknown is no path or method of the API.");
    for (size_t i = 0; i <= m->commands; i++)
        for (int code = 0; code < KP_ERR_COUNT; code++)
            if (m->requests[i][code])
                fprintf(f, "klipperplace_requests_total{command=\"%s\",code=\"%s\"} %llu\n", i < m->commands ? rows[i].name : "unknown",
                        kp_err_name((enum kp_err)code), (unsigned long long)m->requests[i][code]);
    head(f, "request_seconds", "histogram", "Time from the whole HTTP request to its answer.");
    for (size_t i = 0; i <= m->commands; i++) {
        char label[KP_NAME_MAX + 16];
        snprintf(label, sizeof label, "command=\"%s\",", i < m->commands ? rows[i].name : "unknown");
        if (m->took[i].count)
            print_histogram(f, "request_seconds", label, &m->took[i], request_bounds, sizeof request_bounds / sizeof *request_bounds);
    }
}

/* Every method that was ever sent has its four lines, 0 or not, so that an alert finds them before the first failure. */
static void print_upstream(FILE *f, const struct metrics *m)
{
    head(f, "upstream_calls_total", "counter", "Requests to Moonraker by method.");
    for (size_t i = 0; i <= METHODS_MAX; i++)
        if (m->methods[i].calls)
            fprintf(f, "klipperplace_upstream_calls_total{method=\"%s\"} %llu\n", m->methods[i].name, (unsigned long long)m->methods[i].calls);
    head(f, "upstream_failures_total", "counter", "Those that failed on a live connection: no answer in time, or an error of Moonraker's own.");
    for (size_t i = 0; i <= METHODS_MAX; i++)
        if (m->methods[i].calls)
            fprintf(f, "klipperplace_upstream_failures_total{method=\"%s\"} %llu\n", m->methods[i].name, (unsigned long long)m->methods[i].failures);
    head(f, "upstream_retries_total", "counter", "Reads that were asked again after such a failure.");
    for (size_t i = 0; i <= METHODS_MAX; i++)
        if (m->methods[i].calls)
            fprintf(f, "klipperplace_upstream_retries_total{method=\"%s\"} %llu\n", m->methods[i].name, (unsigned long long)m->methods[i].retries);
    head(f, "upstream_circuit", "gauge", "The breaker of the method: 0 closed, 1 half open, 2 open: nothing is asked.");
    for (size_t i = 0; i < METHODS_MAX; i++)
        if (m->methods[i].calls)
            fprintf(f, "klipperplace_upstream_circuit{method=\"%s\"} %d\n", m->methods[i].name, (int)m->methods[i].circuit);
}

static void print_counters(FILE *f, const struct metrics *m)
{
    static const char *const reads[METRICS_READS] = { "fresh", "stale", "asked" };
    head(f, "reads_total", "counter", "Reads by how they were answered: from the mirror, fresh or stale, or by asking Klipper.");
    for (int i = 0; i < METRICS_READS; i++)
        fprintf(f, "klipperplace_reads_total{answered=\"%s\"} %llu\n", reads[i], (unsigned long long)m->reads[i]);
    print_upstream(f, m);
    head(f, "loop_turn_seconds", "histogram", "Time of one turn of the loop: all work between two waits.");
    print_histogram(f, "loop_turn_seconds", "", &m->turns, turn_bounds, sizeof turn_bounds / sizeof *turn_bounds);
}

static void gauge(FILE *f, const char *name, const char *help, double v)
{
    head(f, name, "gauge", help);
    fprintf(f, "klipperplace_%s %.17g\n", name, v);
}

static void print_gauges(FILE *f, const struct metrics_now *now)
{
    gauge(f, "moonraker_connected", "1 while Moonraker is connected.", now->moonraker_connected);
    gauge(f, "klipper_ready", "1 while Klipper can be used.", now->klipper_ready);
    gauge(f, "safety_level", "0 normal, 1 caution, 2 warning, 3 critical, 4 emergency.", now->level);
    gauge(f, "emergency_stop_active", "1 while an emergency stop is latched.", now->latched);
    gauge(f, "lane_commands", "Commands in the motion lane, the running one included.", (double)now->lane);
    gauge(f, "queue_pending", "Queue entries that wait.", (double)now->queue_pending);
    gauge(f, "queue_executing", "Queue entries that run.", (double)now->queue_executing);
    gauge(f, "queue_held", "1 while the queue is held.", now->queue_held);
    gauge(f, "idempotency_keys", "Idempotency keys remembered.", (double)now->idempotency_keys);
    head(f, "connections", "gauge", "Open connections.");
    fprintf(f, "klipperplace_connections{kind=\"http\"} %u\nklipperplace_connections{kind=\"websocket\"} %u\n", now->http_connections, now->ws_sessions);
}

static void print_extra(FILE *f, const struct metrics_extra *x)
{
    gauge(f, "extra", "1 while Klipper has our extra.", x->there);
    if (!x->there)
        return;
    head(f, "extra_part", "gauge", "1 for each part of the extra that is on.");
    for (size_t i = 0; i < x->parts; i++)
        fprintf(f, "klipperplace_extra_part{part=\"%s\"} %d\n", x->part[i].name, x->part[i].on);
    gauge(f, "extra_fast", "1 while motion from rest starts early, 0 on Klipper's own timing.", x->fast);
    head(f, "extra_starts_total", "counter", "Early starts since Klipper's start.");
    fprintf(f, "klipperplace_extra_starts_total %.0f\n", x->starts);
    if (!isnan(x->margin_ms))
        gauge(f, "extra_margin_seconds", "The smallest time that was left of a lead when its steps were sent.", x->margin_ms / 1000);
}

/* 0 where the kernel does not tell. */
static double resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%*s %llu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void print_process(FILE *f)
{
    struct rusage u;
    fprintf(f, "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %.0f\n",
            resident_bytes());
    if (getrusage(RUSAGE_SELF, &u))
        return;
    fprintf(f, "# HELP process_cpu_seconds_total Processor time, user and system.\n# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total %.6f\n",
            (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
}

void metrics_room(struct metrics *m, metrics_room_fn *fn, const void *user)
{
    assert(m->room_count < METRICS_ROOMS_MAX);
    m->rooms[m->room_count].fn = fn;
    m->rooms[m->room_count++].user = user;
}

char *metrics_text(const struct metrics *m, size_t *n)
{
    struct metrics_now now = { .level = KP_NORMAL };
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    if (!f)
        return NULL;
    for (size_t i = 0; i < m->room_count; i++)
        m->rooms[i].fn(m->rooms[i].user, &now);
    print_requests(f, m);
    print_counters(f, m);
    print_gauges(f, &now);
    print_extra(f, &now.extra);
    print_process(f);
    bool bad = ferror(f) != 0;
    if (fclose(f) || bad) {
        free(text);
        return NULL;
    }
    return text;
}
