/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The lane's script in flight: its way out, what its answer means, and what the machine is told of it.
 * Invariant: a script that may not have reached its own restore leaves restore_owed. */
#include "lane_priv.h"

#include <math.h>
#include <string.h>

#include "loop.h"

#define SHUT_DOWN "Klipper was shut down" /* the extra, of a wait that a shutdown ended */
#define GONE 503 /* Moonraker: Klipper is not connected, or went; a saved state went with it, or its script goes on to its restore */

bool lane_script_send(struct lane *n, const char *text, enum wait wait, mr_done *done)
{
    n->script = text;
    n->unknown[0] = 0;
    n->wait = wait;
    n->call = mr_call(n->mr, "printer.gcode.script", json_pack("{s:s}", "script", text), 0, done, n);
    return n->call != 0;
}

/* What a script that did not work means for its command. */
static enum kp_err script_error(const struct lane *n, const struct mr_reply *r, struct kp_error *e)
{
    const char *words = r->message ? r->message : "";
    if (n->unknown[0])
        return kp_error_set(e, KP_EXECUTION_FAILED, NULL, "Klipper has no command %s", n->unknown);
    switch (r->outcome) {
    case MR_OK: return KP_OK;
    case MR_NOT_SENT: return kp_error_set(e, KP_MOONRAKER_DISCONNECTED, NULL, "Moonraker is not connected");
    case MR_OPEN: return kp_error_set(e, KP_MOONRAKER_DISCONNECTED, NULL, "not sent: Moonraker failed on scripts too often; the next goes within a minute");
    case MR_TIMEOUT:
    case MR_LOST: return kp_error_set(e, KP_OUTCOME_UNKNOWN, NULL, "the connection to Moonraker broke after the command was sent: it may have run");
    case MR_ERROR: break;
    }
    if (r->failed)
        return kp_error_set(e, KP_OUTCOME_UNKNOWN, NULL, "Moonraker failed while the command was with it, which may have run: %s", words);
    if (r->code == GONE && strstr(words, "not connected"))
        return kp_error_set(e, KP_KLIPPY_DISCONNECTED, NULL, "Klipper is not connected");
    if (r->code == GONE)
        return kp_error_set(e, KP_OUTCOME_UNKNOWN, NULL, "Klipper went away after the command was sent: it may have run");
    return kp_error_set(e, KP_EXECUTION_FAILED, NULL, "Klipper refused: %s", words);
}

static bool saves_state(const char *script)
{
    struct kp_str w;
    return kp_script_word(script, 0, &w) && kp_str_eq(w, "SAVE_GCODE_STATE");
}

bool lane_script_has(const struct lane *n, const char *word)
{
    struct kp_str w;
    for (size_t i = 0; kp_script_word(n->script, i, &w); i++)
        if (kp_str_eq(w, word))
            return true;
    return false;
}

bool lane_script_may_move(const char *script)
{
    static const char *const still[] = { "SET_PIN", "M400", "G4", "SAVE_GCODE_STATE", "RESTORE_GCODE_STATE", "MANUAL_STEPPER", "SET_SERVO", "SET_FAN_SPEED",
                                         "M106", "M107", "M114", "M204" };
    struct kp_str w;
    for (size_t i = 0; kp_script_word(script, i, &w); i++) {
        size_t k = 0;
        while (k < sizeof still / sizeof *still && !kp_str_eq(w, still[k]))
            k++;
        if (k == sizeof still / sizeof *still)
            return true;
    }
    return false;
}

bool lane_script_answered(struct lane *n, const struct mr_reply *r, struct kp_error *e)
{
    n->call = 0;
    n->answered_ms = loop_now_ms();
    if (lane_script_may_move(n->script))
        n->moved_ms = n->answered_ms;
    if (script_error(n, r, e) == KP_OK)
        return true;
    kp_machine_moved(n->machine, NULL, n->answered_ms);
    if (n->wait != JOIN && strstr(n->script, " GCODE_AXIS="))
        kp_machine_rejoin(n->machine); /* it may have let go of one that it did not join again */
    if (r->outcome == MR_ERROR && r->code != GONE && saves_state(n->script))
        n->restore_owed = true;
    return false;
}

bool lane_script_shut_down(const struct mr_reply *r)
{
    return r->outcome == MR_ERROR && !r->failed && r->message && strstr(r->message, SHUT_DOWN);
}

void lane_script_unmet(struct lane *n)
{
    n->restore_owed = false; /* a check stands behind the restore of its script */
    n->head->klipper[0] = 0; /* the level says more */
    lane_script_noted(n, n->head->seq);
}

static void note_motion(struct lane *n)
{
    if (lane_script_has(n, "M400") || lane_script_has(n, "G4"))
        n->unflushed_ms = LANE_NEVER;
    else if (n->unflushed_ms == LANE_NEVER && lane_script_has(n, "G1"))
        n->unflushed_ms = n->answered_ms;
}

void lane_script_wrote(struct lane *n, const struct kp_pin_write *pins, size_t pin_count, const struct kp_axis_write *axes, size_t axis_count, const double *at)
{
    note_motion(n);
    for (size_t i = 0; i < pin_count; i++) {
        kp_machine_pin_written(n->machine, pins[i].pin, pins[i].value, n->answered_ms);
        lane_ramp_wrote(n, pins[i].pin);
    }
    for (size_t i = 0; i < axis_count; i++)
        kp_machine_axis_written(n->machine, axes[i].axis, axes[i].position, axes[i].homed);
    /* Waiting for Klipper's push to tell where the head is would hold a stream of moves to its tick. */
    if (at)
        kp_machine_moved(n->machine, at, n->answered_ms);
    else if (lane_script_may_move(n->script))
        kp_machine_moved(n->machine, NULL, n->answered_ms);
}

void lane_script_noted(struct lane *n, const struct kp_seq *seq)
{
    double at[3];
    size_t pin_count, axis_count;
    const struct kp_pin_write *pins = kp_seq_writes(seq, &pin_count);
    const struct kp_axis_write *axes = kp_seq_axis_writes(seq, &axis_count);
    bool says = kp_seq_expected(seq, at) && !isnan(at[0]) && !isnan(at[1]) && !isnan(at[2]);
    lane_script_wrote(n, pins, pin_count, axes, axis_count, says ? at : NULL);
}

void lane_script_console(struct lane *n, const char *line)
{
    static const char mark[] = "// Unknown command:\"";
    struct kp_str w;
    if (n->call && n->running && n->head->seq)
        kp_seq_heard(n->head->seq, line);
    if (!n->call || strncmp(line, mark, sizeof mark - 1))
        return;
    const char *word = line + sizeof mark - 1, *end = strchr(word, '"');
    for (size_t i = 0; end && kp_script_word(n->script, i, &w); i++)
        if (w.n == (size_t)(end - word) && !memcmp(w.p, word, w.n) && w.n < sizeof n->unknown) {
            memcpy(n->unknown, w.p, w.n);
            n->unknown[w.n] = 0;
        }
}
