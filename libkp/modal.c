/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What lines of G-code mean, for the G-code port and for whoever converts files: the table of commands, and a line's way through
 * it. Invariant: a line with a fault leaves the modal state as it was and gives no action. */
#include "modal.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* takes the letters of axes; words need no number; only a ready machine does it; hangs on where that stands */
enum { AXES = 1, BARE = 2, GATE = 4, PLACE = 8 };

struct row {
    uint32_t key;               /* of a classic command; 0: a named one */
    const char *name;           /* of a named one */
    const char *words;          /* letters, or keys with a blank around each */
    unsigned flags;
    enum kp_err (*run)(struct kp_modal *g);
    enum kp_gcode_kind asks;    /* run is NULL: the action */
};

#define KEY(letter, code) ((uint32_t)(letter) << 24 | (code))

static enum kp_err set_state(struct kp_modal *g);

static const struct row rows[] = {
    { KEY('G', 10), NULL, "F", AXES | GATE | PLACE, modal_move, 0 }, { KEY('G', 0), NULL, "F", AXES | GATE | PLACE, modal_move, 0 },
    { KEY('M', 2040), NULL, "S", GATE, modal_accel, 0 }, { KEY('M', 4000), NULL, "", GATE, modal_wait, 0 },
    { KEY('M', 1140), NULL, "", 0, NULL, KP_DO_POSITION }, { KEY('M', 1050), NULL, "", 0, NULL, KP_DO_SENSORS },
    { KEY('M', 420), NULL, "PS", GATE, modal_pin_number, 0 }, { KEY('G', 40), NULL, "PS", GATE, modal_dwell, 0 },
    { KEY('G', 20), NULL, "FIJKR", AXES | GATE | PLACE, modal_arc, 0 }, { KEY('G', 30), NULL, "FIJKR", AXES | GATE | PLACE, modal_arc, 0 },
    { KEY('G', 170), NULL, "", 0, set_state, 0 }, { KEY('G', 180), NULL, "", 0, set_state, 0 }, { KEY('G', 190), NULL, "", 0, set_state, 0 },
    { KEY('G', 200), NULL, "", 0, set_state, 0 }, { KEY('G', 210), NULL, "", 0, set_state, 0 },
    { KEY('G', 900), NULL, "", 0, set_state, 0 }, { KEY('G', 910), NULL, "", 0, set_state, 0 },
    { KEY('M', 820), NULL, "", 0, set_state, 0 }, { KEY('M', 830), NULL, "", 0, set_state, 0 },
    { KEY('G', 280), NULL, "", AXES | BARE | GATE | PLACE, modal_home, 0 }, { KEY('G', 920), NULL, "", AXES | PLACE, modal_offset, 0 },
    { KEY('M', 0), NULL, "", 0, NULL, KP_DO_PAUSE }, { KEY('M', 10), NULL, "", 0, NULL, KP_DO_PAUSE },
    { KEY('M', 30), NULL, "S", GATE, modal_spindle, 0 }, { KEY('M', 40), NULL, "S", GATE, modal_spindle, 0 },
    { KEY('M', 50), NULL, "", GATE, modal_spindle, 0 },
    { KEY('M', 170), NULL, "", GATE, modal_motors, 0 }, { KEY('M', 180), NULL, "", GATE, modal_motors, 0 },
    { KEY('M', 840), NULL, "", GATE, modal_motors, 0 },
    { KEY('M', 1040), NULL, "S", GATE, modal_heat, 0 }, { KEY('M', 1090), NULL, "S", GATE, modal_heat, 0 },
    { KEY('M', 1400), NULL, "S", GATE, modal_heat, 0 }, { KEY('M', 1900), NULL, "S", GATE, modal_heat, 0 },
    { KEY('M', 1060), NULL, "S", GATE, modal_fan, 0 }, { KEY('M', 1070), NULL, "", GATE, modal_fan, 0 },
    { KEY('M', 1120), NULL, "", 0, NULL, KP_DO_STOP }, { KEY('M', 1150), NULL, "", 0, NULL, KP_DO_VERSION },
    { 0, "SET_PIN", " PIN VALUE CYCLE_TIME ", GATE, modal_pin, 0 },
    { 0, "SET_FAN_SPEED", " FAN SPEED ", GATE, modal_fan_named, 0 },
    { 0, "SET_HEATER_TEMPERATURE", " HEATER TARGET ", GATE, modal_heat_named, 0 },
    { 0, "QUERY_ENDSTOPS", " ", GATE, modal_endstops, 0 },
    { 0, "STEPPER_ENABLE", " STEPPER ", GATE, modal_motor_named, 0 },
    { 0, "STEPPER_DISABLE", " STEPPER ", GATE, modal_motor_named, 0 },
};

static const char *const words[W_COUNT] = {
#define MODAL_X(name) #name,
    MODAL_WORDS(MODAL_X)
#undef MODAL_X
};

/* What every line that reaches Klipper must pass, as every command of the registry does. Homed axes are each command's own matter. */
static const struct kp_command gate_row = { .id = KP_WAIT, .name = "gcode", .flags = KP_MOVES };
static const struct kp_call gate_call = { .command = &gate_row };

/* ---- faults ---- */

void modal_place(struct kp_modal *g, const struct kp_gcode_word *w)
{
    const struct kp_gcode_command *c = g->outer ? g->outer_command : g->command;
    const struct kp_gcode_line *line = g->outer ? g->outer : g->line;
    bool word = w && !g->outer; /* a word of a template stands nowhere in the client's line */
    struct kp_str text = kp_gcode_name(line, c);
    size_t from = word ? w->key : c->name;
    if (word) {
        size_t to = w->letter && w->text_size == 0 ? (size_t)w->key + 1 : (size_t)(w->text + w->text_size + (w->quote != 0));
        text = (struct kp_str){ line->text + from, to - from };
    }
    g->fault->column = from + 1;
    kp_str_clean(g->fault->text, text);
}

enum kp_err modal_range(struct kp_modal *g, const struct kp_gcode_word *w, enum kp_err code, const char *field, const char *unit, double got, double min,
    double max)
{
    modal_place(g, w);
    return kp_error_range(&g->fault->error, code, field, unit, got, isinf(min) ? NAN : min, isinf(max) ? NAN : max);
}

enum kp_err modal_first(struct kp_modal *g, const struct kp_gcode_word *w)
{
    modal_place(g, w);
    g->fault->error = g->faults.item[0];
    return g->faults.item[0].code;
}

/* ---- words ---- */

const struct kp_gcode_word *modal_letter(const struct kp_modal *g, char letter)
{
    const struct kp_gcode_word *w = &g->line->words[g->command->first];
    for (size_t i = 0; i < g->command->count; i++)
        if (w[i].letter == letter)
            return &w[i];
    return NULL;
}

const struct kp_gcode_word *modal_key(const struct kp_modal *g, const char *key)
{
    const struct kp_gcode_word *w = &g->line->words[g->command->first];
    for (size_t i = 0; i < g->command->count; i++)
        if (kp_str_eq(kp_gcode_key(g->line, &w[i]), key))
            return &w[i];
    return NULL;
}

enum kp_err modal_number(struct kp_modal *g, const struct kp_gcode_word *w, const char *name, double min, double max, enum kp_err code, double *out)
{
    if (!w)
        return MODAL_FAIL(g, NULL, KP_MISSING_PARAMETER, name, "%s is missing", name);
    if (isnan(w->value))
        return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, name, "%s must be a number", name);
    if (!(w->value >= min && w->value <= max))
        return modal_range(g, w, code, name, "", w->value, min, max);
    *out = w->value;
    return KP_OK;
}

enum kp_err modal_name(struct kp_modal *g, const char *key, char out[KP_NAME_MAX])
{
    const struct kp_gcode_word *w = modal_key(g, key);
    if (!w)
        return MODAL_FAIL(g, NULL, KP_MISSING_PARAMETER, key, "%s is missing", key);
    struct kp_str text = kp_gcode_text(g->line, w);
    if (!kp_name_ok(text))
        return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, key, "%s is a name of 1 to %d characters of A-Z a-z 0-9 _", key, KP_NAME_MAX - 1);
    kp_str_copy(out, text);
    return KP_OK;
}

enum kp_err modal_has_text(struct kp_modal *g, const char *word)
{
    if (kp_machine_has_command(g->m, kp_str_of(word)))
        return KP_OK;
    return MODAL_FAIL(g, NULL, KP_EXECUTION_FAILED, NULL, "Klipper has no command %s", word);
}

enum kp_err modal_has(struct kp_modal *g, enum modal_word word)
{
    return g->has[word] ? KP_OK : MODAL_FAIL(g, NULL, KP_EXECUTION_FAILED, NULL, "Klipper has no command %s", words[word]);
}

enum kp_err modal_motion_words(struct kp_modal *g)
{
    enum kp_err rc = modal_has(g, W_G1);
    if (g->o.alone)
        return rc == KP_OK ? modal_has(g, W_G90) : rc;
    if (rc == KP_OK)
        rc = modal_has(g, W_SAVE_GCODE_STATE);
    return rc == KP_OK ? modal_has(g, W_RESTORE_GCODE_STATE) : rc;
}

unsigned modal_homed(const struct kp_modal *g)
{
    const struct kp_axis *a;
    unsigned bits = 0;
    for (size_t i = 0; (a = kp_machine_axis(g->m, i)); i++)
        bits |= (unsigned)a->homed << i;
    return (bits | g->next.homes) & ~g->next.unhomes;
}

/* ---- scripts and actions ---- */

static void full(struct kp_modal *g, const char *what)
{
    if (g->failed == KP_OK)
        g->failed = MODAL_FAIL(g, NULL, KP_INVALID_REQUEST, NULL, "%s: write the line as several", what);
}

static struct modal_item *item_add(struct kp_modal *g, enum kp_gcode_kind kind)
{
    struct modal_item *item = &g->items[g->item_count];
    if (g->item_count == MODAL_ITEMS_MAX)
        full(g, "the line makes too many actions");
    else
        g->item_count++;
    item->kind = kind;
    item->resync = item->settle = item->cut = false;
    item->text = -1;
    item->first_write = g->write_count;
    item->write_count = item->axis_count = 0;
    memcpy(item->target, g->next.at, sizeof item->target);
    return item;
}

void modal_text(struct kp_modal *g, struct modal_item *item, const struct tr_script *s)
{
    if (s->fault != TR_OK || s->len >= MODAL_POOL - g->pool_used) {
        full(g, "the line makes too long a script");
        return;
    }
    item->text = (int)g->pool_used;
    memcpy(g->pool + g->pool_used, s->text, s->len + 1);
    g->pool_used += s->len + 1;
}

void modal_begin(const struct kp_modal *g, struct tr_script *s, bool say_absolute, double accel_mm_s2, double *said)
{
    if (g->o.alone) {
        if (say_absolute)
            tr_word(s, words[W_G90]);
        s->framed = true; /* by the file as a whole */
        return;
    }
    tr_open(s);
    double now = isnan(*said) ? g->accel_base : *said;
    if (isnan(accel_mm_s2) || accel_mm_s2 == now)
        return;
    tr_word(s, words[W_M204]);
    tr_number(s, "S", accel_mm_s2);
    *said = accel_mm_s2;
}

void modal_end(const struct kp_modal *g, struct tr_script *s, double said)
{
    if (g->o.alone)
        s->framed = false;
    if (!isnan(said) && said != g->accel_base) {
        tr_word(s, words[W_M204]);
        tr_number(s, "S", g->accel_base);
    }
    tr_close(s);
}

void modal_script_end(struct kp_modal *g)
{
    struct modal_item *item = g->open;
    if (!item)
        return;
    g->open = NULL;
    modal_end(g, &g->script, g->accel_said);
    modal_text(g, item, &g->script);
    item->write_count = g->write_count - item->first_write;
    memcpy(item->target, g->next.at, sizeof item->target);
}

struct tr_script *modal_script(struct kp_modal *g)
{
    if (!g->open) {
        g->open = item_add(g, KP_DO_SCRIPT);
        g->accel_said = NAN;
        tr_start(&g->script);
    }
    return &g->script;
}

struct tr_script *modal_motion(struct kp_modal *g)
{
    if (!g->o.alone && g->open && !g->script.framed)
        modal_script_end(g);
    struct tr_script *s = modal_script(g);
    modal_begin(g, s, !g->next.absolute_said, g->next.accel_mm_s2, &g->accel_said);
    g->next.absolute_said = true;
    return s;
}

struct modal_item *modal_item(struct kp_modal *g, enum kp_gcode_kind kind)
{
    modal_script_end(g);
    return item_add(g, kind);
}

void modal_write(struct kp_modal *g, int pin, double value)
{
    if (g->write_count == KP_LINE_WRITES_MAX)
        full(g, "the line writes too many pins");
    else
        g->writes[g->write_count++] = (struct kp_pin_write){ pin, value };
}

void modal_axis_note(struct kp_modal *g, int axis, double position, bool homed)
{
    struct modal_item *item = g->open;
    size_t i = 0;
    while (i < item->axis_count && item->axes[i].axis != axis)
        i++;
    item->axis_count += i == item->axis_count;
    item->axes[i] = (struct kp_axis_write){ axis, position, homed };
}

/* ---- commands ---- */

static enum kp_err set_state(struct kp_modal *g)
{
    struct modal_state *s = &g->next;
    switch (g->command->code) {
    case 170: s->plane = PLANE_XY; break;
    case 180: s->plane = PLANE_ZX; break;
    case 190: s->plane = PLANE_YZ; break;
    case 200: s->inches = true; break;
    case 210: s->inches = false; break;
    case 900: s->relative = false; break;
    case 910: s->relative = true; break;
    default: break; /* M82, M83: no axis here is an extruder */
    }
    return KP_OK;
}

static enum kp_err ask(struct kp_modal *g, enum kp_gcode_kind kind)
{
    struct modal_item *item = modal_item(g, kind);
    for (size_t i = 0; i < KP_AXES_MAX; i++) {
        const struct kp_axis *a = kp_machine_axis(g->m, i);
        item->offset[i] = g->next.offset[i];
        item->unit[i] = a && !a->rotary && g->next.inches ? MM_PER_INCH : 1;
        item->position[i] = a ? (g->next.at[i] - item->offset[i]) / item->unit[i] : NAN;
    }
    return KP_OK;
}

static const struct row *row_find(const struct kp_gcode_line *line, const struct kp_gcode_command *c)
{
    uint32_t key = c->letter ? KEY(c->letter, c->code) : 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].key == key && (key || kp_str_eq(kp_gcode_name(line, c), rows[i].name)))
            return &rows[i];
    return NULL;
}

bool modal_known(const struct kp_gcode_line *line, const struct kp_gcode_command *c)
{
    return row_find(line, c) != NULL;
}

static enum kp_err words_check(struct kp_modal *g, const struct row *row)
{
    const struct kp_gcode_word *w = &g->line->words[g->command->first];
    for (const struct kp_gcode_word *end = w + g->command->count; w < end; w++) {
        char key[KP_NAME_MAX + 2] = " ", name[KP_NAME_MAX];
        kp_str_clean(name, kp_gcode_name(g->line, g->command));
        if (w->letter) {
            bool axis = (row->flags & AXES) && g->axis_of[w->letter - 'A'] >= 0;
            if (!axis && !strchr(row->words, w->letter))
                return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, NULL, "%s takes no %s%s", name, (char[]){ w->letter, 0 },
                                  row->flags & AXES ? ": this machine has no such axis" : "");
            if (isnan(w->value) && !(row->flags & BARE))
                return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, NULL, "%s needs a number", (char[]){ w->letter, 0 });
            continue;
        }
        memcpy(key + 1, g->line->text + w->key, w->key_size); /* shorter than KP_NAME_MAX: the parser's word */
        memcpy(key + 1 + w->key_size, " ", 2);
        if (!strstr(row->words, key)) {
            key[1 + w->key_size] = 0;
            return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, NULL, "%s takes no%s", name, key);
        }
    }
    return KP_OK;
}

enum kp_err modal_command(struct kp_modal *g)
{
    char name[KP_NAME_MAX];
    const struct row *row = row_find(g->line, g->command);
    enum kp_err rc;
    if (!row) {
        uint32_t code = g->command->code;
        int mcode = g->command->letter == 'M' && code % 10 == 0 ? kp_machine_find_mcode(g->m, (int)(code / 10)) : -1;
        if (mcode >= 0)
            return modal_mcode(g, mcode);
        if (!g->outer && modal_mapped(g, &rc))
            return rc;
        if (g->outer || g->o.klipper_commands)
            return modal_verbatim(g);
        return MODAL_FAIL(g, NULL, KP_COMMAND_NOT_FOUND, NULL, "there is no command %s here", kp_str_clean(name, kp_gcode_name(g->line, g->command)));
    }
    if ((rc = words_check(g, row)) != KP_OK)
        return rc;
    if (!row->run)
        return ask(g, row->asks);
    if ((row->flags & GATE) && (rc = modal_gate(g)) != KP_OK)
        return rc;
    return row->run(g);
}

enum kp_err modal_gate(struct kp_modal *g)
{
    if (g->gated)
        return KP_OK;
    g->faults.count = g->faults.dropped = 0;
    if (kp_safety_gate(g->m, &gate_call, &g->faults) != KP_OK)
        return modal_first(g, NULL);
    g->gated = true;
    return KP_OK;
}

/* ---- public ---- */

struct kp_modal *kp_modal_new(const struct kp_machine *m, const struct kp_modal_options *options)
{
    struct kp_modal *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->m = m;
    if (options)
        g->o = *options;
    g->now.feed = g->now.accel_mm_s2 = NAN;
    g->home_call.command = kp_command_by_name(kp_str_of("home"));
    kp_modal_restart(g);
    return g;
}

void kp_modal_free(struct kp_modal *g)
{
    free(g);
}

void kp_modal_restart(struct kp_modal *g)
{
    const struct kp_setting *accel = kp_machine_find_setting(g->m, "printer", "max_accel");
    const struct kp_axis *a;
    for (size_t i = 0; i < W_COUNT; i++)
        g->has[i] = kp_machine_has_command(g->m, kp_str_of(words[i]));
    for (size_t i = 0; i < sizeof g->axis_of / sizeof *g->axis_of; i++)
        g->axis_of[i] = -1;
    for (size_t i = 0; (a = kp_machine_axis(g->m, i)); i++)
        g->axis_of[a->letter - 'A'] = (int)i;
    memset(g->now.offset, 0, sizeof g->now.offset);
    /* Not toolhead.max_accel: that is what the last M204 of anybody made it. */
    g->accel_base = accel && accel->kind == KP_NUM && accel->num > 0 ? accel->num : NAN;
    g->accel_max = fmin(isnan(g->accel_base) ? INFINITY : g->accel_base, kp_config_num(g->m->config, "safety", "max_acceleration"));
    g->now.accel_mm_s2 = NAN;
    g->now.absolute_said = false;
    g->faults.count = g->faults.dropped = 0;
    g->band = (struct plan){ .m = g->m, .call = &g->home_call, .f = &g->faults, .s = &g->home };
    plan_band(&g->band);
    kp_modal_sync(g);
}

void kp_modal_sync(struct kp_modal *g)
{
    double at[3] = { NAN, NAN, NAN };
    g->taken = g->item_count = 0;
    g->now.homes = g->now.unhomes = 0;
    kp_machine_commanded(g->m, at);
    memcpy(g->now.at, at, sizeof at);
    kp_modal_sync_extra(g);
}

void kp_modal_sync_extra(struct kp_modal *g)
{
    const struct kp_axis *a;
    for (size_t i = 3; i < KP_AXES_MAX; i++)
        g->now.at[i] = (a = kp_machine_axis(g->m, i)) && a->tracked ? a->position : NAN;
}

const char *kp_modal_put_back(struct kp_modal *g)
{
    if (g->o.alone || isnan(g->now.accel_mm_s2))
        return NULL;
    tr_start(&g->script);
    tr_word(&g->script, words[W_M204]);
    tr_number(&g->script, "S", g->accel_base);
    return g->script.text;
}

enum kp_err kp_modal_line(struct kp_modal *g, const struct kp_gcode_line *line, struct kp_gcode_fault *fault)
{
    struct kp_gcode_fault unasked;
    enum kp_err rc = KP_OK;
    assert(g->taken == g->item_count);
    g->next = g->now;
    g->line = line;
    g->fault = fault ? fault : &unasked;
    g->taken = g->item_count = g->pool_used = g->write_count = 0;
    g->gated = false;
    g->failed = KP_OK;
    for (size_t i = 0; i < line->command_count && rc == KP_OK && g->failed == KP_OK; i++) {
        g->command = &line->commands[i];
        rc = modal_command(g);
    }
    if (rc == KP_OK)
        modal_script_end(g);
    rc = rc == KP_OK ? g->failed : rc;
    g->open = NULL;
    if (rc == KP_OK)
        g->now = g->next;
    else
        g->item_count = 0;
    return rc;
}

bool kp_modal_needs_place(const struct kp_modal *g, const struct kp_gcode_line *line)
{
    for (size_t i = 0; i < line->command_count; i++) {
        const struct row *row = row_find(line, &line->commands[i]);
        if (row ? row->flags & PLACE : modal_is_mapped(g, line, &line->commands[i]))
            return true;
    }
    return false;
}

bool kp_modal_next(struct kp_modal *g, struct kp_gcode_action *out)
{
    if (g->taken == g->item_count)
        return false;
    struct modal_item *item = &g->items[g->taken];
    out->kind = item->kind;
    out->resync = item->resync;
    out->settle = item->settle;
    out->text = item->text < 0 ? NULL : g->pool + item->text;
    memcpy(out->target, item->target, sizeof out->target);
    memcpy(out->position, item->position, sizeof out->position);
    memcpy(out->offset, item->offset, sizeof out->offset);
    memcpy(out->unit, item->unit, sizeof out->unit);
    out->writes = &g->writes[item->first_write];
    out->write_count = item->write_count;
    out->axes = item->axes;
    out->axis_count = item->axis_count;
    if (item->cut) {
        modal_arc_script(g, &item->arc, &g->script, out->target);
        out->text = g->script.text;
    }
    g->taken += !item->cut || item->arc.done == item->arc.count;
    return true;
}
