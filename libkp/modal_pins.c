/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Commands that switch pins: SET_PIN, M42 and the M-numbers of the configuration. Invariant: a pin is one of the machine's, its value
 * within the limits. */
#include "modal.h"

#include <math.h>

#define BYTE_MAX 255.0
#define CYCLE_MAX_S 5.0 /* Klipper's own */

/* value is 0 to 1, as asked for: an inverted name turns it round. */
static enum kp_err pin_write(struct kp_modal *g, const struct kp_gcode_word *w, int index, bool inverted, double value)
{
    const struct kp_pin *pin = kp_machine_pin(g->m, (size_t)index);
    const struct kp_limits *l = kp_machine_limits(g->m);
    double v = plan_round(inverted ? 1 - value : value);
    if (!kp_name_ok(kp_str_of(pin->name)))
        return MODAL_FAIL(g, w, KP_EXECUTION_FAILED, "pin", "Klipper's name %s cannot be written in a script: use A-Z a-z 0-9 _ there", pin->name);
    if (pin->kind == KP_PIN_PWM && v > 0 && !(v >= l->min_pwm && v <= l->max_pwm))
        return modal_range(g, w, KP_PWM_OUT_OF_BOUNDS, "value", "", v, l->min_pwm, l->max_pwm);
    enum kp_err rc = modal_has(g, W_SET_PIN);
    if (rc != KP_OK)
        return rc;
    tr_pin(modal_script(g), pin->name, pin->scale > 0 ? v * pin->scale : v);
    modal_write(g, index, v);
    return KP_OK;
}

/* S of M42 and its like: 0 to 255; a pin that is only on or off is on above 0. */
static enum kp_err byte_write(struct kp_modal *g, int index)
{
    const struct kp_gcode_word *w = modal_letter(g, 'S');
    double v;
    enum kp_err rc = modal_number(g, w, "S", 0, BYTE_MAX, KP_PWM_OUT_OF_BOUNDS, &v);
    if (rc != KP_OK)
        return rc;
    return pin_write(g, w, index, false, kp_machine_pin(g->m, (size_t)index)->kind == KP_PIN_OUTPUT ? v > 0 : v / BYTE_MAX);
}

/* M42 P5 S255: the pin that klipperplace.cfg gives this number. */
enum kp_err modal_pin_number(struct kp_modal *g)
{
    const struct kp_gcode_word *w = modal_letter(g, 'P');
    double p;
    enum kp_err rc = modal_number(g, w, "P", 0, 9999, KP_PIN_NOT_FOUND, &p);
    if (rc != KP_OK)
        return rc;
    int index = p == floor(p) ? kp_machine_find_m42(g->m, (int)p) : -1;
    if (index < 0)
        return MODAL_FAIL(g, w, KP_PIN_NOT_FOUND, "pin", "no pin has the number %g: klipperplace.cfg gives it one by m42 in a [pin NAME]", p);
    if ((rc = byte_write(g, index)) == KP_OK)
        g->open->settle = true;
    return rc;
}

/* An M-number of klipperplace.cfg. */
enum kp_err modal_mcode(struct kp_modal *g, int index)
{
    const struct kp_mcode *row = kp_machine_mcode(g->m, (size_t)index);
    enum kp_err rc = modal_gate(g);
    if (rc != KP_OK)
        return rc;
    if (row->pin < 0)
        return MODAL_FAIL(g, NULL, KP_PIN_NOT_FOUND, "pin", "M%d cannot be used: %s", row->number, row->fault);
    for (size_t i = 0; i < g->command->count; i++) {
        const struct kp_gcode_word *w = &g->line->words[g->command->first + i];
        if (w->letter != 'S' || row->set != KP_MCODE_VALUE)
            return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, NULL, "M%d takes no %s", row->number, (char[]){ w->letter, 0 });
    }
    rc = row->set == KP_MCODE_VALUE ? byte_write(g, row->pin) : pin_write(g, NULL, row->pin, false, row->set == KP_MCODE_ON);
    if (rc == KP_OK)
        g->open->settle = g->open->settle || row->acted;
    return rc;
}

/* SET_PIN as Klipper has it: VALUE up to the pin's scale. */
enum kp_err modal_pin(struct kp_modal *g)
{
    const struct kp_gcode_word *w = modal_key(g, "PIN"), *value = modal_key(g, "VALUE"), *cycle = modal_key(g, "CYCLE_TIME");
    struct kp_error e;
    int index;
    bool inverted;
    double v, cycle_s = NAN;
    if (!w)
        return MODAL_FAIL(g, NULL, KP_MISSING_PARAMETER, "pin", "PIN is missing");
    enum kp_err rc = kp_machine_find_pin(g->m, kp_gcode_text(g->line, w), &index, &inverted, &e);
    if (rc != KP_OK)
        return MODAL_FAIL(g, w, rc, "pin", "%s", e.message);
    const struct kp_pin *pin = kp_machine_pin(g->m, (size_t)index);
    if (pin->kind != KP_PIN_OUTPUT && pin->kind != KP_PIN_PWM)
        return MODAL_FAIL(g, w, KP_INVALID_PARAMETER, "pin", pin->kind == KP_PIN_SERVO ? "%s is a servo" : "%s is an input", pin->name);
    double full = pin->scale > 0 ? pin->scale : 1;
    if ((rc = modal_number(g, value, "value", 0, full, KP_PWM_OUT_OF_BOUNDS, &v)) != KP_OK)
        return rc;
    if (pin->kind == KP_PIN_OUTPUT && v != 0 && v != full)
        return MODAL_FAIL(g, value, KP_INVALID_PARAMETER, "value", "%s is not PWM: it takes 0 or %g", pin->name, full);
    if (cycle && !pin->cycle_settable)
        return MODAL_FAIL(g, cycle, KP_INVALID_PARAMETER, "cycle_time", "the cycle time of %s is fixed", pin->name);
    if (cycle && (rc = modal_number(g, cycle, "cycle_time", 1e-6, CYCLE_MAX_S, KP_INVALID_PARAMETER, &cycle_s)) != KP_OK)
        return rc;
    if ((rc = pin_write(g, value, index, inverted, v / full)) == KP_OK && cycle)
        tr_number(modal_script(g), "CYCLE_TIME=", cycle_s);
    return rc;
}
