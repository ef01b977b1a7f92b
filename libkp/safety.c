/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What may run now: the latch of an emergency stop, the interlocks before every command, and the level shown to people, each by its
 * table. A command that its row does not allow while stopped passes only a ready Klipper behind a live connection. */
#include "machine.h"

#include <math.h>
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

/* ---- the latch ---- */

static const enum kp_latch latch_next[KP_LATCH_COUNT][KP_LE_COUNT] = {
    /*                   ASKED          SEEN           READY          RELEASE */
    [KP_LATCH_FREE] = { KP_LATCH_OURS, KP_LATCH_SEEN, KP_LATCH_FREE, KP_LATCH_FREE },
    [KP_LATCH_SEEN] = { KP_LATCH_OURS, KP_LATCH_SEEN, KP_LATCH_FREE, KP_LATCH_FREE },
    [KP_LATCH_OURS] = { KP_LATCH_OURS, KP_LATCH_OURS, KP_LATCH_OURS, KP_LATCH_FREE },
};

enum kp_latch kp_safety_latch_next(enum kp_latch latch, enum kp_latch_event event)
{
    return latch_next[latch][event];
}

/* Takes the latch through its table. The first reason tells most; a stop asked of us wins over one seen. */
static void latch_step(struct kp_machine *m, enum kp_latch_event event, const char *reason)
{
    struct kp_error e; /* takes any text and cuts it at a character's end */
    enum kp_latch from = m->latch, to = latch_next[from][event];
    if (to == from)
        return;
    m->latch = to;
    kp_error_set(&e, KP_EMERGENCY_STOP_ACTIVE, NULL, "%s", reason);
    memcpy(m->reason, e.message, sizeof m->reason);
    if (to == KP_LATCH_FREE)
        kp_monitor_event(m, KP_NORMAL, KP_CAUSE_RELEASE, "the emergency stop is released", NAN, NAN);
    else
        kp_monitor_event(m, KP_EMERGENCY, KP_CAUSE_STOP, m->reason, NAN, NAN);
}

void kp_safety_observe(struct kp_machine *m)
{
    char reason[KP_TEXT_MAX];
    if (m->klippy == KP_KLIPPY_READY)
        latch_step(m, KP_LE_READY, "");
    if (m->klippy != KP_KLIPPY_SHUTDOWN || !stop_was_asked(m->message))
        return;
    first_line(reason, m->message);
    latch_step(m, KP_LE_SEEN, reason);
}

/* The journal tells by the words alone whether a stop was only seen: somebody's own reason never begins as Klipper's do. */
void kp_safety_latch(struct kp_machine *m, bool ours, const char *reason)
{
    struct kp_error e;
    const char *text = reason ? reason : "";
    if (ours && stop_was_asked(text)) {
        kp_error_set(&e, KP_EMERGENCY_STOP_ACTIVE, NULL, "asked: %s", text);
        text = e.message;
    }
    latch_step(m, ours ? KP_LE_ASKED : KP_LE_SEEN, text);
}

/* The events of the last run tell how its latch stood. A stop that was only seen has Klipper's words, and goes when Klipper is ready. */
void kp_latch_restore(struct kp_machine *m, const struct kp_safety_event *event)
{
    if (event->cause != KP_CAUSE_STOP && event->cause != KP_CAUSE_RELEASE)
        return;
    bool stop = event->cause == KP_CAUSE_STOP;
    m->latch = !stop ? KP_LATCH_FREE : stop_was_asked(event->text) ? KP_LATCH_SEEN : KP_LATCH_OURS;
    m->reason[0] = 0;
    if (stop)
        memcpy(m->reason, event->text, sizeof m->reason);
}

void kp_safety_release(struct kp_machine *m)
{
    latch_step(m, KP_LE_RELEASE, "");
    kp_monitor_forget(m);
}

enum kp_err kp_safety_reset(struct kp_machine *m, int64_t now_ms, struct kp_error *e)
{
    if (m->latch == KP_LATCH_FREE)
        return KP_OK;
    if (!m->moonraker)
        return kp_error_set(e, KP_MOONRAKER_DISCONNECTED, NULL, "the stop stays: Moonraker is not connected");
    if (m->klippy != KP_KLIPPY_READY)
        return kp_error_set(e, KP_KLIPPY_DISCONNECTED, NULL, "the stop stays: Klipper is in %s", kp_klippy_name(m->klippy));
    enum kp_cause cause = kp_monitor_cause(m, now_ms);
    if (cause != KP_CAUSE_COUNT)
        return kp_error_set(e, KP_INTERLOCK, NULL, "the stop stays: %s", kp_cause_row(cause)->doc);
    kp_safety_release(m);
    return KP_OK;
}

bool kp_safety_latched(const struct kp_machine *m)
{
    return m->latch != KP_LATCH_FREE;
}

const char *kp_safety_reason(const struct kp_machine *m)
{
    return m->reason;
}

/* ---- what is so now ---- */

const char *kp_level_name(enum kp_level level)
{
    static const char *const names[] = { "normal", "caution", "warning", "critical", "emergency" };
    return names[level];
}

bool kp_level_by_name(struct kp_str name, enum kp_level *out)
{
    for (int i = KP_NORMAL; i <= KP_EMERGENCY; i++)
        if (kp_str_eq(name, kp_level_name((enum kp_level)i))) {
            *out = (enum kp_level)i;
            return true;
        }
    return false;
}

static bool unhomed(const struct kp_machine *m)
{
    return !m->axes[0].homed || !m->axes[1].homed || !m->axes[2].homed;
}

enum kp_level kp_safety_level(const struct kp_machine *m)
{
    enum kp_level level = unhomed(m) ? KP_CAUTION : KP_NORMAL;
    if (!m->moonraker || m->klippy != KP_KLIPPY_READY)
        level = KP_WARNING;
    if (m->klippy == KP_KLIPPY_SHUTDOWN || m->klippy == KP_KLIPPY_ERROR)
        level = KP_CRITICAL;
    for (int i = 0; i < KP_CAUSE_COUNT; i++)
        if (m->looks[i] > 0 && kp_cause_row((enum kp_cause)i)->level > level)
            level = kp_cause_row((enum kp_cause)i)->level;
    return m->latch != KP_LATCH_FREE ? KP_EMERGENCY : level;
}

/* Z stands where a nozzle is too low to cross XY. */
static bool is_low(const struct kp_machine *m)
{
    double at[3], low = -INFINITY, high = INFINITY;
    for (size_t i = 0; i < m->nozzle_count; i++) {
        const struct kp_nozzle *n = &m->nozzles[i];
        if (n->z_direction > 0)
            low = fmax(low, n->safe_z); /* NAN: none */
        else
            high = fmin(high, n->safe_z);
    }
    return m->limits.travel_interlock && kp_machine_commanded(m, at) && (at[2] < low || at[2] > high);
}

unsigned kp_safety_states(const struct kp_machine *m)
{
    unsigned states = 0;
    if (kp_safety_latched(m))
        states |= 1u << KP_S_STOPPED;
    if (!m->moonraker)
        states |= 1u << KP_S_NO_MOONRAKER;
    else if (m->klippy != KP_KLIPPY_READY)
        states |= 1u << KP_S_NOT_READY;
    if (kp_machine_printing(m))
        states |= 1u << KP_S_PRINTING;
    if (kp_safety_held(m))
        states |= 1u << KP_S_HELD;
    if (is_low(m))
        states |= 1u << KP_S_LOW;
    if (unhomed(m))
        states |= 1u << KP_S_UNHOMED;
    return states ? states : 1u << KP_S_READY;
}

/* ---- the interlocks ---- */

#define STOPPED KP_EMERGENCY_STOP_ACTIVE
#define GONE KP_MOONRAKER_DISCONNECTED
#define AWAY KP_KLIPPY_DISCONNECTED
#define LOCKED KP_INTERLOCK
#define HOMING KP_HOMING_REQUIRED

static const enum kp_err interlocks[KP_STATE_COUNT][KP_ASK_COUNT] = {
    /*                       READ   STOP   RESET  USE      SWITCH   HOME     MOVE     CROSS    QUEUED */
    [KP_S_READY] =        { KP_OK, KP_OK, KP_OK, KP_OK,   KP_OK,   KP_OK,   KP_OK,   KP_OK,   KP_OK },
    [KP_S_UNHOMED] =      { KP_OK, KP_OK, KP_OK, KP_OK,   KP_OK,   KP_OK,   HOMING,  HOMING,  KP_OK },
    [KP_S_LOW] =          { KP_OK, KP_OK, KP_OK, KP_OK,   KP_OK,   KP_OK,   KP_OK,   LOCKED,  KP_OK },
    [KP_S_HELD] =         { KP_OK, KP_OK, KP_OK, KP_OK,   KP_OK,   KP_OK,   KP_OK,   KP_OK,   LOCKED },
    [KP_S_PRINTING] =     { KP_OK, KP_OK, KP_OK, KP_OK,   LOCKED,  LOCKED,  LOCKED,  LOCKED,  LOCKED },
    [KP_S_NOT_READY] =    { KP_OK, KP_OK, KP_OK, AWAY,    AWAY,    AWAY,    AWAY,    AWAY,    AWAY },
    [KP_S_NO_MOONRAKER] = { KP_OK, KP_OK, KP_OK, GONE,    GONE,    GONE,    GONE,    GONE,    GONE },
    [KP_S_STOPPED] =      { KP_OK, KP_OK, KP_OK, STOPPED, STOPPED, STOPPED, STOPPED, STOPPED, STOPPED },
};

enum kp_err kp_safety_interlock(enum kp_state state, enum kp_ask ask)
{
    return interlocks[state][ask];
}

const char *kp_state_name(enum kp_state state)
{
    static const char *const names[] = { "ready", "unhomed", "low", "held", "printing", "not_ready", "no_moonraker", "stopped" };
    return names[state];
}

const char *kp_ask_name(enum kp_ask ask)
{
    static const char *const names[] = { "read", "stop", "reset", "use", "switch", "home", "move", "cross", "queued" };
    return names[ask];
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

/* Where X and Y are crossed at travel height only, Z must be known for a move of theirs. */
static enum kp_err gate_homed(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f)
{
    unsigned moved = axes_moved(call);
    if (m->limits.travel_interlock && (moved & 3u))
        moved |= 4u;
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

enum kp_ask kp_safety_ask(const struct kp_call *call)
{
    const struct kp_command *c = call->command;
    if (c->flags & KP_URGENT)
        return KP_ASK_STOP;
    if (c->id == KP_RESET)
        return KP_ASK_RESET;
    if (c->flags & KP_WHILE_STOPPED)
        return KP_ASK_READ;
    if (c->flags & KP_NEEDS_HOMED)
        return axes_moved(call) & 3u ? KP_ASK_CROSS : KP_ASK_MOVE;
    if (c->id == KP_HOME)
        return KP_ASK_HOME;
    return c->flags & KP_MOVES ? KP_ASK_SWITCH : KP_ASK_USE;
}

/* The one fault of a state that refuses the call. */
static enum kp_err gate_state(const struct kp_machine *m, const struct kp_call *call, enum kp_state state, struct kp_faults *f)
{
    switch (state) {
    case KP_S_STOPPED: return refuse(f, KP_EMERGENCY_STOP_ACTIVE, "the machine is stopped", m->reason);
    case KP_S_NO_MOONRAKER: return refuse(f, KP_MOONRAKER_DISCONNECTED, "Moonraker is not connected", "");
    case KP_S_NOT_READY: return gate_klippy(m, f);
    case KP_S_PRINTING: return refuse(f, KP_INTERLOCK, "a file print is running", "");
    case KP_S_UNHOMED: return gate_homed(m, call, f);
    default: return KP_OK; /* the travel height is the plan's; what holds the queue does not hold a call */
    }
}

enum kp_err kp_safety_gate(const struct kp_machine *m, const struct kp_call *call, struct kp_faults *f)
{
    enum kp_ask ask = kp_safety_ask(call);
    unsigned states = kp_safety_states(m);
    enum kp_err first = KP_OK;
    for (int s = KP_STATE_COUNT - 1; s > KP_S_READY; s--) {
        if (!(states >> s & 1u) || interlocks[s][ask] == KP_OK)
            continue;
        enum kp_err rc = gate_state(m, call, (enum kp_state)s, f);
        first = first == KP_OK ? rc : first;
        if (s == KP_S_NO_MOONRAKER || s == KP_S_NOT_READY)
            break; /* what follows is not known now */
    }
    return first;
}
