/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The world file: one thing a line, keys by table. A line that is not wholly understood is refused. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

enum { LINE_SIZE = 1024, WORDS_MAX = 40 };
enum key_type { KEY_NUM, KEY_PIN, KEY_TEXT, KEY_SIDE };

struct key {
    const char *name;
    enum key_type type;
    size_t offset;
    bool required;
};

struct kind {
    const char *name;
    const struct key *keys;
    /* Where the keys go: a fresh element with its defaults; NULL when there are too many. */
    void *(*fresh)(struct world *w, const char *name);
    /* Last check; a message or NULL. */
    const char *(*done)(struct world *w, void *thing);
};

#define NUM(type, field, req)                                                                                                                                  \
    {                                                                                                                                                          \
#field, KEY_NUM, offsetof(struct type, field), req                                                                                                     \
    }
#define PIN(type, field, req)                                                                                                                                  \
    {                                                                                                                                                          \
#field, KEY_PIN, offsetof(struct type, field), req                                                                                                     \
    }

static const struct key config_keys[] = {NUM(world_config, stick_dz, false), NUM(world_config, stick_radius, false), NUM(world_config, press, false),
    NUM(world_config, tip_radius, false), NUM(world_config, noise, false), NUM(world_config, seed, false), NUM(world_config, thick, false), {0}};
static const struct key axis_keys[] = {PIN(axis, step, true), PIN(axis, dir, true), NUM(axis, mm_per_step, true), NUM(axis, start, true), NUM(axis, min, false),
    NUM(axis, max, false), PIN(axis, limit, false), NUM(axis, limit_at, false), {"limit_side", KEY_SIDE, offsetof(struct axis, limit_ge), false}, {0}};
static const struct key nozzle_keys[] = {{"axis", KEY_TEXT, offsetof(struct nozzle, axis_name), true}, NUM(nozzle, sign, true), NUM(nozzle, tip, true),
    NUM(nozzle, x, false), NUM(nozzle, y, false), PIN(nozzle, step, false), PIN(nozzle, dir, false), NUM(nozzle, deg_per_step, false), PIN(nozzle, pump, true),
    PIN(nozzle, valve, true), PIN(nozzle, adc, false), NUM(nozzle, tau_s, false), {"off", KEY_NUM, offsetof(struct nozzle, levels[LEVEL_OFF]), false},
    {"open", KEY_NUM, offsetof(struct nozzle, levels[LEVEL_OPEN]), false}, {"part", KEY_NUM, offsetof(struct nozzle, levels[LEVEL_PART]), false},
    {"leak", KEY_NUM, offsetof(struct nozzle, levels[LEVEL_LEAK]), false}, {0}};
static const struct key board_keys[] = {NUM(board, x0, true), NUM(board, y0, true), NUM(board, x1, true), NUM(board, y1, true), NUM(board, z, true), {0}};
static const struct key feeder_keys[] = {PIN(feeder, step, true), PIN(feeder, dir, true), NUM(feeder, mm_per_step, true), NUM(feeder, pitch, true),
    {"x", KEY_NUM, offsetof(struct feeder, at.x), true}, {"y", KEY_NUM, offsetof(struct feeder, at.y), true},
    {"z", KEY_NUM, offsetof(struct feeder, at.z), true}, NUM(feeder, rot, false), NUM(feeder, thick, false),
    {"part", KEY_TEXT, offsetof(struct feeder, prefix), false}, NUM(feeder, count, true), {0}};
static const struct key part_keys[] = {{"x", KEY_NUM, offsetof(struct part, at.x), true}, {"y", KEY_NUM, offsetof(struct part, at.y), true},
    {"z", KEY_NUM, offsetof(struct part, at.z), true}, NUM(part, rot, false), NUM(part, thick, false), {0}};
static const struct key button_keys[] = {PIN(button, pin, true), NUM(button, state, false), {0}};
static const struct key adc_keys[] = {PIN(button, pin, true), {"value", KEY_NUM, offsetof(struct button, state), true}, {0}};

/* ---- the kinds ---- */

static void name_pin(struct world *w, struct pinref r, const char *name, const char *what)
{
    if (r.pin != PIN_NONE) snprintf(w->pins->at[r.pin].name, NAME_SIZE, "%s%s", name, what);
}

static const char *drive(struct world *w, struct pinref step, struct pinref dir, enum drive_kind kind, int index)
{
    if (step.pin == PIN_NONE) return NULL;
    if (w->drives[step.pin].kind != DRIVE_NONE) return "step pin is taken";
    w->drives[step.pin] = (struct drive){kind, index, dir.inverted};
    return NULL;
}

static const struct pinref no_pin = {PIN_NONE, false};

static void *config_fresh(struct world *w, const char *name)
{
    (void)name;
    return &w->config;
}

static void *axis_fresh(struct world *w, const char *name)
{
    struct axis *a = &w->axes[w->axis_n];

    if (w->axis_n == AXES_MAX) return NULL;
    *a = (struct axis){.min = -HUGE_VAL, .max = HUGE_VAL, .limit = no_pin, .step = no_pin, .dir = no_pin};
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

static const char *axis_done(struct world *w, void *thing)
{
    struct axis *a = thing;

    if (a->mm_per_step == 0) return "mm_per_step is 0";
    a->base_mm = a->start;
    name_pin(w, a->limit, a->name, ".limit");
    if (!strcmp(a->name, "x"))
        w->x_axis = w->axis_n;
    else if (!strcmp(a->name, "y"))
        w->y_axis = w->axis_n;
    return drive(w, a->step, a->dir, DRIVE_AXIS, w->axis_n++);
}

static void *nozzle_fresh(struct world *w, const char *name)
{
    struct nozzle *n = &w->nozzles[w->nozzle_n];

    if (w->nozzle_n == NOZZLES_MAX) return NULL;
    *n = (struct nozzle){
        .held = -1, .tau_s = 0.03, .levels = {0, 0.2, 0.8, 0.45}, .step = no_pin, .dir = no_pin, .pump = no_pin, .valve = no_pin, .adc = no_pin};
    snprintf(n->name, sizeof n->name, "%s", name);
    return n;
}

static const char *nozzle_done(struct world *w, void *thing)
{
    struct nozzle *n = thing;

    n->axis = world_axis(w, n->axis_name);
    if (n->axis < 0) return "no such axis above this line";
    if (fabs(n->sign) != 1) return "sign must be 1 or -1";
    name_pin(w, n->pump, n->name, ".pump");
    name_pin(w, n->valve, n->name, ".valve");
    name_pin(w, n->adc, n->name, ".sensor");
    return drive(w, n->step, n->dir, DRIVE_ROTATION, w->nozzle_n++);
}

static void *board_fresh(struct world *w, const char *name)
{
    struct board *b = &w->boards[w->board_n];

    if (w->board_n == BOARDS_MAX) return NULL;
    *b = (struct board){0};
    snprintf(b->name, sizeof b->name, "%s", name);
    return b;
}

static const char *board_done(struct world *w, void *thing)
{
    (void)thing;
    w->board_n++;
    return NULL;
}

static void *feeder_fresh(struct world *w, const char *name)
{
    struct feeder *f = &w->feeders[w->feeder_n];

    if (w->feeder_n == FEEDERS_MAX) return NULL;
    *f = (struct feeder){.thick = w->config.thick, .step = no_pin, .dir = no_pin};
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(f->prefix, sizeof f->prefix, "%s", name);
    return f;
}

static const char *feeder_done(struct world *w, void *thing)
{
    struct feeder *f = thing;

    if (f->pitch <= 0 || f->mm_per_step == 0) return "pitch must be above 0 and mm_per_step must not be 0";
    if (f->count < 0 || f->count > PARTS_MAX) return "count is out of range";
    f->left = (int)f->count;
    return drive(w, f->step, f->dir, DRIVE_FEEDER, w->feeder_n++);
}

static void *part_fresh(struct world *w, const char *name)
{
    struct part p = {.state = PART_REMOVED, .nozzle = -1, .feeder = -1, .thick = w->config.thick};
    int i;

    snprintf(p.id, sizeof p.id, "%s", name);
    i = world_part_new(w, &p);
    return i < 0 ? NULL : &w->parts[i];
}

static const char *part_done(struct world *w, void *thing)
{
    ((struct part *)thing)->state = PART_LYING;
    world_parts_changed(w);
    return NULL;
}

static void *button_fresh_in(struct button *list, int n, const char *name)
{
    if (n == BUTTONS_WORLD_MAX) return NULL;
    list[n] = (struct button){.pin = no_pin};
    snprintf(list[n].name, sizeof list[n].name, "%s", name);
    return &list[n];
}

static void *button_fresh(struct world *w, const char *name)
{
    return button_fresh_in(w->buttons, w->button_n, name);
}

static const char *button_done(struct world *w, void *thing)
{
    struct button *b = thing;

    name_pin(w, b->pin, b->name, "");
    w->button_n++;
    return NULL;
}

static void *adc_fresh(struct world *w, const char *name)
{
    return button_fresh_in(w->adcs, w->adc_n, name);
}

static const char *adc_done(struct world *w, void *thing)
{
    struct button *b = thing;

    name_pin(w, b->pin, b->name, "");
    w->adc_n++;
    return NULL;
}

static const struct kind kinds[] = {
    {"config", config_keys, config_fresh, NULL},
    {"axis", axis_keys, axis_fresh, axis_done},
    {"nozzle", nozzle_keys, nozzle_fresh, nozzle_done},
    {"board", board_keys, board_fresh, board_done},
    {"feeder", feeder_keys, feeder_fresh, feeder_done},
    {"part", part_keys, part_fresh, part_done},
    {"button", button_keys, button_fresh, button_done},
    {"adc", adc_keys, adc_fresh, adc_done},
};

/* ---- reading ---- */

static bool name_ok(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

    return n && !s[n] && n < ID_SIZE - 12;
}

static bool name_taken(const struct world *w, const char *kind, const char *name)
{
    if (!strcmp(kind, "config")) return false;
    if (!strcmp(kind, "part")) return world_part(w, name) >= 0;
    for (int i = 0; i < w->board_n; i++)
        if (!strcmp(w->boards[i].name, name)) return true;
    for (int i = 0; i < w->button_n; i++)
        if (!strcmp(w->buttons[i].name, name)) return true;
    for (int i = 0; i < w->adc_n; i++)
        if (!strcmp(w->adcs[i].name, name)) return true;
    return world_axis(w, name) >= 0 || world_nozzle(w, name) >= 0 || world_feeder(w, name) >= 0;
}

static bool value_set(const struct key *k, void *thing, const char *text)
{
    char *to = (char *)thing + k->offset, *end;

    if (k->type == KEY_NUM) {
        double v = strtod(text, &end);
        if (end == text || *end || !isfinite(v)) return false;
        *(double *)(void *)to = v;
    } else if (k->type == KEY_PIN) {
        struct pinref r = {pin_parse(text + (*text == '!')), *text == '!'};
        if (r.pin == PIN_NONE) return false;
        *(struct pinref *)(void *)to = r;
    } else if (k->type == KEY_TEXT) {
        if (!name_ok(text)) return false;
        snprintf(to, ID_SIZE, "%s", text);
    } else {
        if (strcmp(text, "le") && strcmp(text, "ge")) return false;
        *(bool *)(void *)to = text[0] == 'g';
    }
    return true;
}

/* words: key=value, changed while reading. */
static bool keys_set(const struct key *keys, void *thing, char **words, int n, char *err, size_t size)
{
    unsigned seen = 0;

    for (int i = 0; i < n; i++) {
        char *value = strchr(words[i], '=');
        unsigned k = 0;
        if (value) *value++ = 0;
        while (keys[k].name && strcmp(keys[k].name, words[i])) k++;
        if (!keys[k].name || !value) return snprintf(err, size, "unknown key '%s'", words[i]), false;
        if (seen & 1u << k) return snprintf(err, size, "'%s' is given twice", words[i]), false;
        if (!value_set(&keys[k], thing, value)) return snprintf(err, size, "bad value '%s' for '%s'", value, words[i]), false;
        seen |= 1u << k;
    }
    for (unsigned k = 0; keys[k].name; k++)
        if (keys[k].required && !(seen & 1u << k)) return snprintf(err, size, "'%s' is missing", keys[k].name), false;
    return true;
}

static int split(char *line, char **words)
{
    int n = 0;
    char *save = NULL;

    line[strcspn(line, "#\r\n")] = 0;
    for (char *t = strtok_r(line, " \t", &save); t && n < WORDS_MAX; t = strtok_r(NULL, " \t", &save)) words[n++] = t;
    return n;
}

bool world_line(struct world *w, const char *text, char *err, size_t size)
{
    char line[LINE_SIZE], *words[WORDS_MAX];
    const char *wrong;
    unsigned k = 0;
    void *thing;
    int n;

    if (strlen(text) >= sizeof line) return snprintf(err, size, "line too long"), false;
    snprintf(line, sizeof line, "%s", text);
    n = split(line, words);
    if (!n) return true;
    while (k < sizeof kinds / sizeof kinds[0] && strcmp(kinds[k].name, words[0])) k++;
    if (k == sizeof kinds / sizeof kinds[0]) return snprintf(err, size, "unknown kind '%s'", words[0]), false;
    if (n < 2 || !name_ok(words[1])) return snprintf(err, size, "a name of letters, digits and _ . - is needed"), false;
    if (name_taken(w, words[0], words[1])) return snprintf(err, size, "'%s' exists already", words[1]), false;
    thing = kinds[k].fresh(w, words[1]);
    if (!thing) return snprintf(err, size, "too many of '%s'", words[0]), false;
    if (!keys_set(kinds[k].keys, thing, words + 2, n - 2, err, size)) return false;
    wrong = kinds[k].done ? kinds[k].done(w, thing) : NULL;
    return wrong ? (snprintf(err, size, "%s", wrong), false) : true;
}

bool world_load(struct world *w, const char *path, char *err, size_t size)
{
    FILE *f = fopen(path, "re");
    char line[LINE_SIZE], why[200] = "";
    bool ok = true;

    if (!f) {
        snprintf(err, size, "%s: %s", path, strerror(errno));
        return false;
    }
    for (int n = 1; ok && fgets(line, sizeof line, f); n++) {
        ok = world_line(w, line, why, sizeof why);
        if (!ok) snprintf(err, size, "%s:%d: %s", path, n, why);
    }
    fclose(f);
    return ok;
}

/* ---- finding ---- */

#define FIND(list, count, field)                                                                                                                               \
    for (int i = 0; i < w->count; i++)                                                                                                                         \
        if (!strcmp(w->list[i].field, name)) return i;                                                                                                         \
    return -1

int world_axis(const struct world *w, const char *name)
{
    FIND(axes, axis_n, name);
}

int world_nozzle(const struct world *w, const char *name)
{
    FIND(nozzles, nozzle_n, name);
}

int world_feeder(const struct world *w, const char *name)
{
    FIND(feeders, feeder_n, name);
}

int world_part(const struct world *w, const char *name)
{
    for (int i = w->part_n - 1; i >= 0; i--)
        if (w->parts[i].state != PART_REMOVED && !strcmp(w->parts[i].id, name)) return i;
    return -1;
}

const char *world_stepper_name(const struct world *w, int step_pin, char buf[NAME_SIZE])
{
    const struct drive *d = &w->drives[step_pin];

    if (d->kind == DRIVE_AXIS)
        snprintf(buf, NAME_SIZE, "%s", w->axes[d->index].name);
    else if (d->kind == DRIVE_FEEDER)
        snprintf(buf, NAME_SIZE, "%s", w->feeders[d->index].name);
    else if (d->kind == DRIVE_ROTATION)
        snprintf(buf, NAME_SIZE, "%s.rotation", w->nozzles[d->index].name);
    else
        pin_text(step_pin, buf);
    return buf;
}

int world_stepper_pin(const struct world *w, const char *name)
{
    char buf[NAME_SIZE];

    for (int i = 0; i < PIN_COUNT; i++)
        if (w->drives[i].kind != DRIVE_NONE && !strcmp(world_stepper_name(w, i, buf), name)) return i;
    return pin_parse(name);
}
