/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The microcontroller's core, for main.c: clock, timers, command table, configuration, shutdown. Events run in the order of their
 * clock, however late the process wakes. */
#include "mcu.h"

#include <stdlib.h>
#include <string.h>

#include "dict.h"

/* Host silent for this long: nobody is there, and unasked responses would only fill the pty. */
static const int64_t silent_ns = 3000000000;
/* Due events are gathered this long, so that 48k steps/s are not 48k wakes. */
static const int64_t gather_ns = 1000000;

const char *const mcu_reasons[] = {"Simulated shutdown", "Command request", "Timer too close", "Stepper too far in past", "Rescheduled timer in the past",
    "Missed scheduling of next digital out event", "Missed scheduling of next hard pwm event", "Scheduled digital out event will exceed max_duration",
    "Scheduled pwm event will exceed max_duration", "update_digital_out not valid with active queue", "Can not set soft pwm cycle ticks while updates pending",
    "ADC out of range", "Move queue overflow", "Invalid count parameter", "Can't reset time when stepper active", "Can't add signal that is already active",
    "Invalid oid type", "Can't assign oid", "oids already allocated", "Already finalized", "Shutdown cleared when not shutdown", "Command parser error",
    "Invalid command", "Not an output pin", "Not a valid input pin", "Max of 8 buttons", "Set button past maximum button count", "Watchdog timer!", NULL};

const char *const mcu_responses[RSP_COUNT] = {
    [RSP_IDENTIFY] = "identify_response offset=%u data=%.*s",
    [RSP_UPTIME] = "uptime high=%u clock=%u",
    [RSP_CLOCK] = "clock clock=%u",
    [RSP_CONFIG] = "config is_config=%c crc=%u is_shutdown=%c move_count=%hu",
    [RSP_STATS] = "stats count=%u sum=%u sumsq=%u",
    [RSP_SHUTDOWN] = "shutdown clock=%u static_string_id=%hu",
    [RSP_IS_SHUTDOWN] = "is_shutdown static_string_id=%hu",
    [RSP_STARTING] = "starting",
    [RSP_STEPPER] = "stepper_position oid=%c pos=%i",
    [RSP_ENDSTOP] = "endstop_state oid=%c homing=%c next_clock=%u pin_value=%c",
    [RSP_TRSYNC] = "trsync_state oid=%c can_trigger=%c trigger_reason=%c clock=%u",
    [RSP_ADC] = "analog_in_state oid=%c next_clock=%u value=%hu",
    [RSP_BUTTONS] = "buttons_state oid=%c ack_count=%c state=%*s",
};

/* ---- timers ---- */

bool timer_armed(const struct timer *t)
{
    return t->next != NULL;
}

void timer_del(struct timer *t)
{
    if (!t->next) return;
    t->prev->next = t->next;
    t->next->prev = t->prev;
    t->next = t->prev = NULL;
}

static void timer_insert(struct mcu *m, struct timer *t)
{
    struct timer *after = m->timers.next;

    while (after != &m->timers && after->clock <= t->clock) after = after->next;
    t->next = after;
    t->prev = after->prev;
    after->prev->next = t;
    after->prev = t;
}

void timer_add(struct mcu *m, struct timer *t, uint64_t clock)
{
    timer_del(t);
    if (m->strict && t->kind != LATE_NEVER && clock < m->run_clock) {
        mcu_shutdown(m, t->kind == LATE_STEP ? "Stepper too far in past" : "Timer too close");
        return;
    }
    t->clock = clock;
    timer_insert(m, t);
}

static void note_late(struct mcu *m, const struct timer *t)
{
    static const char *const kinds[] = {"", "step", "pin", "adc", "button", "endstop", "trsync"};
    int64_t us = (int64_t)(m->run_clock - t->clock) * NS_PER_TICK / 1000;
    struct when at = mcu_when(m);

    m->late++;
    if (us > m->late_max_us) m->late_max_us = us;
    if (m->late_logged_ns && at.ns - m->late_logged_ns < 100000000) return;
    m->late_logged_ns = at.ns;
    log_event(m->log, at, "late", ",\"kind\":\"%s\",\"late_us\":%lld", kinds[t->kind], (long long)us);
}

/* ---- clock ---- */

static uint64_t clock_of_ns(const struct mcu *m, int64_t ns)
{
    return m->clock_start + (uint64_t)((ns - m->boot_ns) / NS_PER_TICK);
}

struct when mcu_when(const struct mcu *m)
{
    return (struct when){.ns = m->boot_ns + (int64_t)(m->at - m->clock_start) * NS_PER_TICK, .clock = m->at};
}

struct when mcu_when_ns(const struct mcu *m, int64_t ns)
{
    return (struct when){.ns = ns, .clock = clock_of_ns(m, ns)};
}

uint64_t mcu_wide_clock(const struct mcu *m, uint32_t clock)
{
    int64_t wide = (int64_t)m->at + (int32_t)(clock - (uint32_t)m->at);

    return wide < 0 ? 0 : (uint64_t)wide;
}

/* ---- objects ---- */

void *obj_new(struct mcu *m, uint32_t oid, enum obj_kind kind, size_t size)
{
    struct obj *o = NULL;

    if (!m->configured && oid < m->oid_count && !m->oids[oid]) o = calloc(1, size);
    if (!o) {
        mcu_shutdown(m, "Can't assign oid");
        return NULL;
    }
    o->kind = kind;
    o->oid = (uint8_t)oid;
    m->oids[oid] = o;
    return o;
}

void *obj_get(struct mcu *m, uint32_t oid, enum obj_kind kind)
{
    if (oid < OID_MAX && m->oids[oid] && m->oids[oid]->kind == kind) return m->oids[oid];
    mcu_shutdown(m, "Invalid oid type");
    return NULL;
}

struct move *move_new(struct mcu *m, struct move_queue *q)
{
    struct move *mv = m->free_move;

    if (!mv) {
        mcu_shutdown(m, "Move queue overflow");
        return NULL;
    }
    m->free_move = mv->next;
    *mv = (struct move){0};
    if (q->tail)
        q->tail->next = mv;
    else
        q->head = mv;
    q->tail = mv;
    q->n++;
    return mv;
}

void move_pop(struct mcu *m, struct move_queue *q)
{
    struct move *mv = q->head;

    q->head = mv->next;
    if (!q->head) q->tail = NULL;
    q->n--;
    mv->next = m->free_move;
    m->free_move = mv;
}

void move_clear(struct mcu *m, struct move_queue *q)
{
    while (q->head) move_pop(m, q);
}

bool mcu_pin(struct mcu *m, uint32_t pin, enum pin_role role)
{
    if (pin >= PIN_COUNT) {
        mcu_shutdown(m, role == PIN_IN || role == PIN_ADC ? "Not a valid input pin" : "Not an output pin");
        return false;
    }
    m->pins->at[pin].role = role;
    return true;
}

struct stepper *mcu_stepper(struct mcu *m, int step_pin)
{
    for (unsigned i = 0; i < m->oid_count; i++) {
        struct stepper *s = (struct stepper *)m->oids[i];
        if (s && s->obj.kind == OBJ_STEPPER && s->step_pin == step_pin) return s;
    }
    return NULL;
}

void mcu_reply(struct mcu *m, enum response r, const uint32_t *v, unsigned n)
{
    struct msg msg = {.n = 0};

    msg_int(&msg, mcu_response_id(r));
    for (unsigned i = 0; i < n; i++) msg_int(&msg, v[i]);
    proto_send(&m->proto, &msg);
}

/* ---- shutdown, boot ---- */

const char *mcu_shutdown_text(const struct mcu *m)
{
    return m->shutdown_id ? mcu_reasons[m->shutdown_id - REASON_ID_BASE] : "";
}

static void objects_shutdown(struct mcu *m)
{
    for (unsigned i = 0; i < m->oid_count; i++) {
        struct obj *o = m->oids[i];
        if (!o) continue;
        motion_shutdown(m, o);
        outputs_shutdown(m, o);
        inputs_shutdown(m, o);
    }
}

bool mcu_shutdown(struct mcu *m, const char *reason)
{
    int i = 0;

    while (mcu_reasons[i] && strcmp(mcu_reasons[i], reason)) i++;
    if (!mcu_reasons[i]) return false;
    if (m->shutdown_id) return true;
    m->shutdown_id = i + REASON_ID_BASE;
    m->shutdowns++;
    log_event(m->log, mcu_when(m), "shutdown", ",\"reason\":\"%s\"", reason);
    objects_shutdown(m);
    mcu_reply(m, RSP_SHUTDOWN, (uint32_t[]){(uint32_t)m->at, (uint32_t)m->shutdown_id}, 2);
    return true;
}

static void moves_init(struct mcu *m)
{
    m->free_move = NULL;
    for (unsigned i = 0; i < MOVE_POOL; i++) {
        m->moves[i].next = m->free_move;
        m->free_move = &m->moves[i];
    }
}

static void stats_event(struct mcu *m, struct timer *t)
{
    mcu_reply(m, RSP_STATS, (uint32_t[]){m->stat_count, m->stat_sum, m->stat_sumsq}, 3);
    m->stat_count = m->stat_sum = m->stat_sumsq = 0;
    timer_add(m, t, t->clock + 5ull * TICKS_PER_S);
}

static void objects_free(struct mcu *m)
{
    for (unsigned i = 0; i < OID_MAX; i++) {
        free(m->oids[i]);
        m->oids[i] = NULL;
    }
}

void mcu_boot(struct mcu *m, const char *why, int64_t now_ns)
{
    struct when at = mcu_when_ns(m, now_ns);

    if (at.clock > m->at) m->at = at.clock;
    for (unsigned i = 0; i < m->oid_count; i++)
        if (m->oids[i]) motion_shutdown(m, m->oids[i]);
    objects_free(m);
    m->timers.next = m->timers.prev = &m->timers;
    moves_init(m);
    for (int i = 0; i < PIN_COUNT; i++) {
        enum pin_role role = m->pins->at[i].role;
        if (role == PIN_OUT || role == PIN_PWM || role == PIN_DIR || role == PIN_STEP) pin_set(m->pins, i, 0, mcu_when(m));
        m->pins->at[i].role = PIN_FREE;
    }
    m->boot_ns = now_ns;
    m->at = m->run_clock = m->clock_start;
    m->oids_given = m->configured = false;
    m->oid_count = 0, m->crc = 0, m->shutdown_id = 0, m->late_logged_ns = 0;
    m->boots++;
    m->stats = (struct timer){.fn = stats_event};
    timer_add(m, &m->stats, m->at + 5ull * TICKS_PER_S);
    log_event(m->log, mcu_when(m), "boot", ",\"why\":\"%s\"", why);
    /* Before the sequence starts again: with a new one the host drops this frame, takes later acks for its own retransmissions
     * and goes on talking to an MCU without a configuration. A board on USB would vanish instead. */
    mcu_reply(m, RSP_STARTING, NULL, 0);
    proto_reset(&m->proto);
}

/* ---- base commands ---- */

static void cmd_identify(struct mcu *m, const uint32_t *a)
{
    struct msg msg = {.n = 0};
    size_t n = 0;

    if (a[0] < m->dict.n) n = m->dict.n - a[0] < a[1] ? m->dict.n - a[0] : a[1];
    if (n > 40) n = 40; /* what the host asks for, and what fits a frame */
    msg_int(&msg, mcu_response_id(RSP_IDENTIFY));
    msg_int(&msg, a[0]);
    msg_int(&msg, (uint32_t)n);
    if (n) msg_bytes(&msg, m->dict.p + a[0], n);
    proto_send(&m->proto, &msg);
}

static void cmd_get_uptime(struct mcu *m, const uint32_t *a)
{
    (void)a;
    mcu_reply(m, RSP_UPTIME, (uint32_t[]){(uint32_t)(m->at >> 32), (uint32_t)m->at}, 2);
}

static void cmd_get_clock(struct mcu *m, const uint32_t *a)
{
    (void)a;
    mcu_reply(m, RSP_CLOCK, (uint32_t[]){(uint32_t)m->at}, 1);
}

static void cmd_get_config(struct mcu *m, const uint32_t *a)
{
    (void)a;
    mcu_reply(m, RSP_CONFIG, (uint32_t[]){m->configured, m->crc, m->shutdown_id != 0, MOVE_COUNT}, 4);
}

static void cmd_allocate_oids(struct mcu *m, const uint32_t *a)
{
    if (m->oids_given || a[0] > OID_MAX - 1) {
        mcu_shutdown(m, "oids already allocated");
        return;
    }
    m->oids_given = true;
    m->oid_count = a[0];
}

static void cmd_finalize_config(struct mcu *m, const uint32_t *a)
{
    if (m->configured) {
        mcu_shutdown(m, "Already finalized");
        return;
    }
    m->configured = true;
    m->crc = a[0];
    log_event(m->log, mcu_when(m), "configured", ",\"crc\":%u", m->crc);
}

static void cmd_emergency_stop(struct mcu *m, const uint32_t *a)
{
    (void)a;
    mcu_shutdown(m, "Command request");
}

static void cmd_reset(struct mcu *m, const uint32_t *a)
{
    (void)a;
    mcu_boot(m, "reset", mcu_when(m).ns);
}

static void cmd_clear_shutdown(struct mcu *m, const uint32_t *a)
{
    (void)a;
    if (!m->shutdown_id) {
        mcu_shutdown(m, "Shutdown cleared when not shutdown");
        return;
    }
    m->shutdown_id = 0;
    log_event(m->log, mcu_when(m), "clear_shutdown", "%s", "");
}

static void cmd_debug_nop(struct mcu *m, const uint32_t *a)
{
    (void)m, (void)a;
}

/* Row 0 must be identify: its wire id is fixed at 1. */
const struct mcu_command mcu_commands[] = {
    {"identify offset=%u count=%c", cmd_identify, true, false},
    {"get_uptime", cmd_get_uptime, true, false},
    {"get_clock", cmd_get_clock, true, false},
    {"get_config", cmd_get_config, true, false},
    {"allocate_oids count=%c", cmd_allocate_oids, false, false},
    {"finalize_config crc=%u", cmd_finalize_config, false, false},
    {"emergency_stop", cmd_emergency_stop, true, false},
    {"reset", cmd_reset, true, false},
    {"clear_shutdown", cmd_clear_shutdown, true, false},
    {"debug_nop", cmd_debug_nop, true, false},
    {"config_digital_out oid=%c pin=%u value=%c default_value=%c max_duration=%u", cmd_config_digital_out, false, false},
    {"set_digital_out_pwm_cycle oid=%c cycle_ticks=%u", cmd_set_digital_out_pwm_cycle, false, false},
    {"queue_digital_out oid=%c clock=%u on_ticks=%u", cmd_queue_digital_out, false, true},
    {"update_digital_out oid=%c value=%c", cmd_update_digital_out, false, false},
    {"set_digital_out pin=%u value=%c", cmd_set_digital_out, false, false},
    {"config_pwm_out oid=%c pin=%u cycle_ticks=%u value=%hu default_value=%hu max_duration=%u", cmd_config_pwm_out, false, false},
    {"queue_pwm_out oid=%c clock=%u value=%hu", cmd_queue_pwm_out, false, true},
    {"set_pwm_out pin=%u cycle_ticks=%u value=%hu", cmd_set_pwm_out, false, false},
    {"config_analog_in oid=%c pin=%u", cmd_config_analog_in, false, false},
    {"query_analog_in oid=%c clock=%u sample_ticks=%u sample_count=%c rest_ticks=%u min_value=%hu max_value=%hu"
     " range_check_count=%c",
        cmd_query_analog_in, false, false},
    {"config_buttons oid=%c button_count=%c", cmd_config_buttons, false, false},
    {"buttons_add oid=%c pos=%c pin=%u pull_up=%c", cmd_buttons_add, false, false},
    {"buttons_query oid=%c clock=%u rest_ticks=%u retransmit_count=%c invert=%c", cmd_buttons_query, false, false},
    {"buttons_ack oid=%c count=%c", cmd_buttons_ack, false, false},
    {"config_stepper oid=%c step_pin=%c dir_pin=%c invert_step=%c step_pulse_ticks=%u", cmd_config_stepper, false, false},
    {"queue_step oid=%c interval=%u count=%hu add=%hi", cmd_queue_step, false, true},
    {"set_next_step_dir oid=%c dir=%c", cmd_set_next_step_dir, false, true},
    {"reset_step_clock oid=%c clock=%u", cmd_reset_step_clock, false, false},
    {"stepper_get_position oid=%c", cmd_stepper_get_position, false, false},
    {"stepper_stop_on_trigger oid=%c trsync_oid=%c", cmd_stepper_stop_on_trigger, false, false},
    {"config_endstop oid=%c pin=%c pull_up=%c", cmd_config_endstop, false, false},
    {"endstop_home oid=%c clock=%u sample_ticks=%u sample_count=%c rest_ticks=%u pin_value=%c trsync_oid=%c"
     " trigger_reason=%c",
        cmd_endstop_home, false, false},
    {"endstop_query_state oid=%c", cmd_endstop_query_state, false, false},
    {"config_trsync oid=%c", cmd_config_trsync, false, false},
    {"trsync_start oid=%c report_clock=%u report_ticks=%u expire_reason=%c", cmd_trsync_start, false, false},
    {"trsync_set_timeout oid=%c clock=%u", cmd_trsync_set_timeout, false, false},
    {"trsync_trigger oid=%c reason=%c", cmd_trsync_trigger, false, false},
};
const unsigned mcu_command_count = sizeof mcu_commands / sizeof mcu_commands[0];

unsigned mcu_command_id(unsigned index)
{
    return index + 1;
}

unsigned mcu_response_id(enum response r)
{
    return r == RSP_IDENTIFY ? 0 : mcu_command_count + 1 + (unsigned)r;
}

/* ---- running ---- */

static unsigned count_args(const char *format)
{
    unsigned n = 0;

    for (; *format; format++) n += *format == '%';
    return n;
}

static void message_block(void *arg, const uint8_t *b, size_t n)
{
    struct mcu *m = arg;
    size_t pos = 0;
    unsigned boots = m->boots;
    uint32_t id, a[ARGS_MAX] = {0};

    while (pos < n && boots == m->boots) {
        const struct mcu_command *c;
        unsigned args;

        if (!vlq_get(b, n, &pos, &id) || id == 0 || id > mcu_command_count) {
            mcu_shutdown(m, "Invalid command");
            return;
        }
        c = &mcu_commands[id - 1];
        args = count_args(c->format);
        for (unsigned i = 0; i < args; i++) {
            if (!vlq_get(b, n, &pos, &a[i])) {
                mcu_shutdown(m, "Command parser error");
                return;
            }
        }
        m->command_counts[id - 1]++;
        if (!c->ahead) mcu_run(m, m->input_ns);
        if (m->shutdown_id && !c->in_shutdown)
            mcu_reply(m, RSP_IS_SHUTDOWN, (uint32_t[]){(uint32_t)m->shutdown_id}, 1);
        else
            c->fn(m, a);
    }
}

void mcu_input(struct mcu *m, const uint8_t *bytes, size_t n, int64_t now_ns)
{
    m->heard_ns = m->input_ns = now_ns;
    proto_input(&m->proto, bytes, n, message_block, m);
}

static void run_due(struct mcu *m, uint64_t now)
{
    struct timer *t;

    while ((t = m->timers.next) != &m->timers && t->clock <= now) {
        uint64_t due = t->clock;
        timer_del(t);
        if (due > m->at) m->at = due;
        if (t->kind != LATE_NEVER && due < m->run_clock) {
            note_late(m, t);
            if (m->strict) {
                mcu_shutdown(m, "Rescheduled timer in the past");
                continue;
            }
        }
        t->fn(m, t);
    }
}

void mcu_run(struct mcu *m, int64_t now_ns)
{
    uint64_t now = clock_of_ns(m, now_ns);
    const struct timer *t = m->timers.next;

    if (m->hang_until_ns) {
        if (now_ns < m->hang_until_ns) return;
        m->hang_until_ns = 0;
        m->at = m->run_clock = now;
    }
    if (now < m->at) now = m->at;
    if (t != &m->timers && t->clock < now && t->clock > m->run_clock) {
        int64_t us = (int64_t)(now - t->clock) * NS_PER_TICK / 1000;
        if (us > m->wake_late_max_us) m->wake_late_max_us = us;
    }
    run_due(m, now);
    if (now > m->at) m->at = now;
    m->run_clock = m->at;
    if (now_ns - m->heard_ns > silent_ns) m->proto.out.n = 0;
}

int64_t mcu_wait(const struct mcu *m, int64_t now_ns)
{
    const struct timer *t = m->timers.next;
    uint64_t now = clock_of_ns(m, now_ns);
    int64_t wait;

    if (m->hang_until_ns) return m->hang_until_ns > now_ns ? m->hang_until_ns - now_ns : 0;
    if (t == &m->timers) return -1;
    wait = t->clock <= now ? 0 : (int64_t)(t->clock - now) * NS_PER_TICK;
    return wait < gather_ns ? gather_ns : wait;
}

void mcu_note_load(struct mcu *m, int64_t busy_ns)
{
    uint64_t ticks = (uint64_t)(busy_ns > 0 ? busy_ns : 0) / NS_PER_TICK;

    m->stat_count++;
    m->stat_sum += (uint32_t)ticks;
    m->stat_sumsq += (uint32_t)((ticks * ticks + 255) / 256);
}

void mcu_hang(struct mcu *m, int64_t now_ns, int64_t ns)
{
    m->hang_until_ns = now_ns + ns;
}

int mcu_init(struct mcu *m, struct log *log, struct pins *pins, struct world *world, uint64_t clock_start, int64_t now_ns)
{
    memset(m, 0, sizeof *m);
    m->log = log, m->pins = pins, m->world = world;
    m->clock_start = clock_start;
    m->at = clock_start;
    m->boot_ns = now_ns;
    m->timers.next = m->timers.prev = &m->timers;
    m->command_counts = calloc(mcu_command_count, sizeof *m->command_counts);
    if (!m->command_counts || !dict_build(&m->dict)) return -1;
    mcu_boot(m, "power", now_ns);
    return 0;
}

void mcu_fini(struct mcu *m)
{
    objects_free(m);
    free(m->command_counts);
    buf_fini(&m->proto.out);
    buf_fini(&m->dict);
}
