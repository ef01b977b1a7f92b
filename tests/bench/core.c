/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libkp alone, for tests/bench/group_core.py: times rounds of work and prints one line a round, seconds for so many lines or calls. Sides that are compared
 * take turns in every round. The lines are made here, always the same ones.
 *   kp-bench-core lines ROUNDS          lines; parse, strtod, translate s; allocations
 *   kp-bench-core cache ROUNDS BYTES    calls; get s, set s with few entries; get s, set s with many */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../unit/alloc_fixture.h"
#include "kp.h"

#define LINES 400000
#define LINE_BYTES 64
#define FEW 100
#define MANY 10000
#define CALLS 1000000

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint32_t draw(void)
{
    static uint64_t seed = 1;
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33);
}

static void stop(const char *why)
{
    fprintf(stderr, "kp-bench-core: %s\n", why);
    exit(1);
}

/* ---- lines ---- */

/* As OpenPnP sends them: of eight lines five moves, a move with its acceleration and no spaces, a nozzle down with a comment, a dwell. */
static size_t make_lines(char *text)
{
    size_t n = 0;
    for (int i = 0; i < LINES; i++) {
        double x = draw() % 3000000 / 1e4, y = draw() % 2000000 / 1e4;
        unsigned f = 1000 + draw() % 20000;
        char *at = text + n;
        switch (i % 8) {
        case 5: n += (size_t)snprintf(at, LINE_BYTES, "M204S%uG1X%.4fY%.4fF%u\n", 100 + draw() % 2900, x, y, f); break;
        case 6: n += (size_t)snprintf(at, LINE_BYTES, "G1 Z%.3f ; down\n", draw() % 20000 / 1e3); break;
        case 7: n += (size_t)snprintf(at, LINE_BYTES, "G4 P%u\n", draw() % 100); break;
        default: n += (size_t)snprintf(at, LINE_BYTES, "G1 X%.4f Y%.4f F%u\n", x, y, f);
        }
    }
    return n;
}

/* What reading the numbers alone costs with the C library: each is found and given to strtod, all else is passed over. */
static double strtod_pass(const char *text, size_t n)
{
    double sum = 0;
    for (const char *p = text, *end = text + n; p < end;) {
        char *after;
        if ((*p < '0' || *p > '9') && *p != '-' && *p != '.') {
            p++;
            continue;
        }
        sum += strtod(p, &after);
        p = after > p ? after : p + 1;
    }
    return sum;
}

static size_t parse_pass(const char *text, size_t n)
{
    struct kp_gcode_reader reader = { 0 };
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_str in = { text, n };
    size_t got = 0;
    while (kp_gcode_feed(&reader, &in, &line, &fault) == KP_GCODE_LINE)
        got++;
    return got;
}

/* Parse, check and translate: what the G-code port does with a line, all but sending it. */
static size_t translate_pass(struct kp_modal *g, const char *text, size_t n)
{
    struct kp_gcode_reader reader = { 0 };
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_gcode_action action;
    struct kp_str in = { text, n };
    size_t bytes = 0;
    while (kp_gcode_feed(&reader, &in, &line, &fault) == KP_GCODE_LINE) {
        if (kp_modal_line(g, &line, &fault) != KP_OK)
            stop(fault.error.message);
        while (kp_modal_next(g, &action))
            bytes += action.text ? strlen(action.text) : 0;
    }
    return bytes;
}

static struct kp_machine *machine_new(void)
{
    static const struct { const char *section, *option; double value; } rows[] = {
        { "printer", "max_velocity", 500 }, { "printer", "max_accel", 3000 },
        { "stepper_x", "position_min", 0 }, { "stepper_x", "position_max", 300 }, { "stepper_y", "position_min", 0 }, { "stepper_y", "position_max", 200 },
        { "stepper_z", "position_min", -32 }, { "stepper_z", "position_max", 32 },
    };
    static const char *const words[] = { "G1", "G4", "G28", "G90", "M204", "M400", "SAVE_GCODE_STATE", "RESTORE_GCODE_STATE", "SET_PIN" };
    static const double at[3] = { 100, 50, 0 };
    static struct kp_faults f;
    struct kp_config *c = kp_config_new();
    struct kp_machine *m = c ? kp_machine_new(c) : NULL;
    struct kp_value homed = { .kind = KP_STR, .str = kp_str_of("xyz") }, place = { .kind = KP_NUMS, .nums = at, .count = 3 };
    kp_config_free(c);
    if (!m)
        stop("out of memory");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        kp_machine_setting(m, kp_str_of(rows[i].section), kp_str_of(rows[i].option), &(struct kp_value){ .kind = KP_NUM, .num = rows[i].value });
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        kp_machine_command(m, kp_str_of(words[i]));
    for (int i = 0; i < 150; i++) { /* as many words as a real Klipper has */
        char word[20];
        snprintf(word, sizeof word, "MACRO_%d", i);
        kp_machine_command(m, kp_str_of(word));
    }
    if (kp_machine_resolve(m, &f) != KP_OK)
        stop(f.item[0].message);
    kp_machine_moonraker(m, true);
    kp_machine_klippy(m, KP_KLIPPY_READY, "");
    kp_machine_status(m, kp_str_of("toolhead"), kp_str_of("homed_axes"), &homed, 1);
    kp_machine_status(m, kp_str_of("toolhead"), kp_str_of("position"), &place, 1);
    kp_machine_status(m, kp_str_of("gcode_move"), kp_str_of("position"), &place, 1);
    kp_machine_pushed(m, 1);
    return m;
}

static void lines(int rounds)
{
    char *text = malloc((size_t)LINES * LINE_BYTES);
    struct kp_machine *m = machine_new();
    struct kp_modal *g = kp_modal_new(m, &(struct kp_modal_options){ .clamp = true });
    if (!text || !g)
        stop("out of memory");
    size_t n = make_lines(text);
    volatile double sum = 0; /* so that the pass is not left out */
    for (int i = 0; i < rounds; i++) {
        double t[4];
        alloc_fail_at(0);
        t[0] = now_s();
        size_t got = parse_pass(text, n);
        t[1] = now_s();
        sum = sum + strtod_pass(text, n);
        t[2] = now_s();
        size_t bytes = translate_pass(g, text, n);
        t[3] = now_s();
        size_t allocs = alloc_count; /* strtod asks for none */
        if (got != LINES || bytes < LINES)
            stop("not all lines were read");
        printf("%d %.9f %.9f %.9f %zu\n", LINES, t[1] - t[0], t[2] - t[1], t[3] - t[2], allocs);
    }
    kp_modal_free(g);
    kp_machine_free(m);
    free(text);
}

/* ---- the cache ---- */

#define KEY_BYTES 16

/* A cache full to a size, and the keys of the calls in the order they are made: like those of requests they come in fresh, so that what is timed is the
 * cache's memory and not the bench's. */
struct bench_cache {
    struct kp_cache *cache;
    struct kp_cache_row row; /* key apart */
    char key[CALLS][KEY_BYTES];
};

static void key_print(char key[KEY_BYTES], size_t i)
{
    char text[KEY_BYTES + 1];
    snprintf(text, sizeof text, "gpio:mcu:P%c%05u", (char)('A' + i % 8), (unsigned)(i % MANY));
    memcpy(key, text, KEY_BYTES);
}

static struct bench_cache *cache_new(size_t keys, struct kp_str value)
{
    struct bench_cache *b = calloc(1, sizeof *b);
    if (!b || kp_cache_new(&b->cache, NULL, NULL) != KP_OK)
        stop("out of memory");
    for (size_t i = 0; i < keys; i++) {
        key_print(b->key[0], i);
        b->row = (struct kp_cache_row){ .category = KP_CACHE_GPIO, .key = { b->key[0], KEY_BYTES }, .value = value };
        if (kp_cache_set(b->cache, &b->row, 0, NULL) != KP_OK)
            stop("a set failed");
    }
    for (size_t i = 0; i < CALLS; i++)
        key_print(b->key[i], draw() % keys);
    return b;
}

static void cache_free(struct bench_cache *b)
{
    kp_cache_free(b->cache);
    free(b);
}

static double gets(struct bench_cache *b)
{
    struct kp_cached out;
    size_t bytes = 0;
    double began = now_s();
    for (size_t i = 0; i < CALLS; i++)
        if (kp_cache_get(b->cache, (struct kp_str){ b->key[i], KEY_BYTES }, false, 1, &out) == KP_CACHE_FRESH)
            bytes += out.value.n;
    double took = now_s() - began;
    if (bytes != CALLS * b->row.value.n)
        stop("a get missed");
    return took;
}

static double sets(struct bench_cache *b)
{
    int bad = 0;
    double began = now_s();
    for (size_t i = 0; i < CALLS; i++) {
        b->row.key.p = b->key[i];
        bad += kp_cache_set(b->cache, &b->row, 1, NULL) != KP_OK;
    }
    double took = now_s() - began;
    if (bad)
        stop("a set failed");
    return took;
}

static void cache(int rounds, size_t bytes)
{
    static char value[KP_CACHE_VALUE_MAX];
    memset(value, 'v', sizeof value);
    struct bench_cache *few = cache_new(FEW, (struct kp_str){ value, bytes }), *many = cache_new(MANY, (struct kp_str){ value, bytes });
    for (int i = 0; i < rounds; i++) {
        double get_few = gets(few), get_many = gets(many), set_few = sets(few), set_many = sets(many);
        printf("%d %.9f %.9f %.9f %.9f\n", CALLS, get_few, set_few, get_many, set_many);
    }
    cache_free(few);
    cache_free(many);
}

int main(int argc, char **argv)
{
    long rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 0, bytes = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    if (argc == 3 && strcmp(argv[1], "lines") == 0 && rounds > 0)
        lines((int)rounds);
    else if (argc == 4 && strcmp(argv[1], "cache") == 0 && rounds > 0 && bytes > 0 && bytes <= KP_CACHE_VALUE_MAX)
        cache((int)rounds, (size_t)bytes);
    else
        stop("usage: kp-bench-core lines ROUNDS | cache ROUNDS BYTES");
    return 0;
}
