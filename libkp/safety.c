/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What may run now: the latch of an emergency stop, the gate before every command, and the level shown to people. A command
 * that its row does not allow while stopped passes only a ready Klipper behind a live connection. */
#include "machine.h"

#include <string.h>

/* How Klipper begins its words when a stop was asked for: by Moonraker or its own socket, and by M112. */
static const char *const stop_words[] = { "Shutdown due to webhooks request", "Shutdown due to M112 command" };

static bool stop_was_asked(const char *message)
{
    for (size_t i = 0; i < sizeof stop_words / sizeof *stop_words; i++)
        if (kp_str_starts(kp_str_of(message), stop_words[i]))
            return true;
    return false;
}

/* The first line of Klipper's words: the rest tells how to restart. */
static void first_line(char out[KP_TEXT_MAX], const char *message)
{
    size_t n = strcspn(message, "\r\n");
    if (n >= KP_TEXT_MAX)
        n = KP_TEXT_MAX - 1;
    memcpy(out, message, n);
    out[n] = 0;
}

void kp_safety_observe(struct kp_machine *m)
{
    char reason[KP_TEXT_MAX];
    if (m->klippy == KP_KLIPPY_READY && m->latched && !m->latch_ours)
        kp_safety_release(m);
    if (m->klippy != KP_KLIPPY_SHUTDOWN || m->latched || !stop_was_asked(m->message))
        return;
    first_line(reason, m->message);
    kp_safety_latch(m, false, reason);
}

const char *kp_level_name(enum kp_level level)
{
    static const char *const names[] = { "normal", "caution", "warning", "critical", "emergency" };
    return names[level];
}

enum kp_level kp_safety_level(const struct kp_machine *m)
{
    if (m->latched)
        return KP_EMERGENCY;
    if (m->klippy == KP_KLIPPY_SHUTDOWN || m->klippy == KP_KLIPPY_ERROR)
        return KP_CRITICAL;
    if (!m->moonraker || m->klippy != KP_KLIPPY_READY)
        return KP_WARNING;
    for (size_t i = 0; i < 3; i++)
        if (!m->axes[i].homed)
            return KP_CAUTION;
    return KP_NORMAL;
}

void kp_safety_latch(struct kp_machine *m, bool ours, const char *reason)
{
    struct kp_error e; /* takes any text and cuts it at a character's end */
    if (m->latched && (m->latch_ours || !ours))
        return; /* the first reason tells most; ours, which only reset releases, wins over one seen */
    kp_error_set(&e, KP_EMERGENCY_STOP_ACTIVE, NULL, "%s", reason ? reason : "");
    memcpy(m->reason, e.message, sizeof m->reason);
    m->latched = true;
    m->latch_ours = ours;
}

void kp_safety_release(struct kp_machine *m)
{
    m->latched = m->latch_ours = false;
    m->reason[0] = 0;
}

bool kp_safety_latched(const struct kp_machine *m)
{
    return m->latched;
}

const char *kp_safety_reason(const struct kp_machine *m)
{
    return m->reason;
}

/* Bits of the kinematic axes a call moves: a move only those it names, a pick or placement on the spot Z, all others each. */
static unsigned axes_moved(const struct kp_call *call)
{
    unsigned bits = 0;
    if (call->command->id == KP_PICK || call->command->id == KP_PLACE)
        return 4;
    if (call->command->id != KP_MOVE)
        return 7;
    for (size_t i = 0; call->command->params[i].name; i++) {
        const char *name = call->command->params[i].name;
        if (name[0] >= 'x' && name[0] <= 'z' && !name[1] && call->slot[i].set)
            bits |= 1u << (name[0] - 'x');
    }
    return bits;
}

static enum kp_err refuse(struct kp_faults *f, enum kp_err code, const char *text, const char *detail)
{
    struct kp_error e;
    kp_error_set(&e, code, NULL, "%s%s%s", text, *detail ? ": " : "", detail);
    return kp_faults_add(f, &e);
}

static enum kp_err gate_klippy(const struct kp_machine *m, struct kp_faults *f)
{
    char words[KP_TEXT_MAX];
    struct kp_error e;
    first_line(words, m->message);
    kp_error_set(&e, KP_KLIPPY_DISCONNECTED, NULL, "Klipper is not ready: %s%s%s", kp_klippy_name(m->klippy), words[0] ? ", " : "", words);
    return kp_faults_add(f, &e);
}

static enum kp_err gate_homed(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f)
{
    unsigned moved = axes_moved(call);
    char names[12] = "";
    size_t n = 0;
    for (unsigned i = 0; i < 3; i++)
        if ((moved >> i & 1u) && !m->axes[i].homed) {
            if (n > 0)
                names[n++] = ' ';
            names[n++] = (char)(m->axes[i].letter | 0x20);
        }
    if (n == 0)
        return KP_OK;
    names[n] = 0;
    struct kp_error e;
    kp_error_set(&e, KP_HOMING_REQUIRED, names, "home these axes first: %s", names);
    return kp_faults_add(f, &e);
}

enum kp_err kp_safety_gate(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f)
{
    unsigned flags = call->command->flags;
    enum kp_err first = KP_OK, rc;
    if (flags & KP_WHILE_STOPPED)
        return KP_OK;
    if (m->latched)
        first = refuse(f, KP_EMERGENCY_STOP_ACTIVE, "the machine is stopped", m->reason);
    if (!m->moonraker || m->klippy != KP_KLIPPY_READY) {
        rc = m->moonraker ? gate_klippy(m, f) : refuse(f, KP_MOONRAKER_DISCONNECTED, "Moonraker is not connected", "");
        return first == KP_OK ? rc : first; /* what follows is not known now */
    }
    if ((flags & KP_MOVES) && kp_machine_printing(m)) {
        rc = refuse(f, KP_INTERLOCK, "a file print is running", "");
        first = first == KP_OK ? rc : first;
    }
    if (flags & KP_NEEDS_HOMED) {
        rc = gate_homed(m, call, f);
        first = first == KP_OK ? rc : first;
    }
    return first;
}
