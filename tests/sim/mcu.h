/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The microcontroller: commands in, events in the order of their clock, responses out. All clocks here are 64 bit ticks since
 * power-up; only the wire is 32 bit. `at` never goes back. */
#ifndef SIM_MCU_H
#define SIM_MCU_H
#include <stdbool.h>
#include <stdint.h>

#include "log.h"
#include "pins.h"
#include "proto.h"

struct world;
struct mcu;

enum { TICKS_PER_S = 50000000, NS_PER_TICK = 20, ADC_MAX = 4095, PWM_MAX = 255, MOVE_COUNT = 2048, MOVE_POOL = 2 * MOVE_COUNT, OID_MAX = 256, ARGS_MAX = 10 };

enum late_kind { LATE_NEVER, LATE_STEP, LATE_PIN, LATE_ADC, LATE_BUTTON, LATE_ENDSTOP, LATE_TRSYNC };

struct timer {
    uint64_t clock;
    struct timer *prev, *next;
    void (*fn)(struct mcu *m, struct timer *t);
    enum late_kind kind;
};

enum obj_kind { OBJ_NONE, OBJ_STEPPER, OBJ_ENDSTOP, OBJ_TRSYNC, OBJ_OUT, OBJ_PWM, OBJ_ADC, OBJ_BUTTONS };

/* First member of every configured object. */
struct obj {
    enum obj_kind kind;
    uint8_t oid;
};

/* An entry of the move queue, which steppers and outputs share as in the firmware. */
struct move {
    struct move *next;
    uint64_t clock; /* output: when */
    uint32_t value; /* output: on_ticks or pwm value */
    uint32_t interval; /* stepper, ticks */
    uint32_t count;
    int32_t add;
    bool dir;
};

struct move_queue {
    struct move *head, *tail;
    unsigned n;
};

/* What a step pin has done since the program started. */
struct step_stat {
    uint64_t total; /* steps */
    int64_t position; /* steps, signed */
    int64_t last_ns; /* CLOCK_MONOTONIC of the last step, 0 never */
    uint64_t last_clock;
};

struct stepper {
    struct obj obj;
    struct timer timer; /* the next step */
    struct timer quiet; /* when a pause in stepping is called the end of the motion */
    int step_pin, dir_pin;
    struct move_queue queue;
    uint32_t interval, count;
    int32_t add;
    int32_t position; /* the firmware's counter */
    bool dir, next_dir, need_reset;
    uint64_t step_clock; /* of the last step, or as reset_step_clock says */
    struct trsync *stop; /* stops on this, or NULL */
    bool running; /* between motion_start and motion_end */
    uint64_t run_steps;
};

struct mcu {
    struct proto proto;
    struct buf dict; /* owned; the data dictionary as sent */
    struct log *log; /* borrowed */
    struct pins *pins; /* borrowed */
    struct world *world; /* borrowed */
    bool strict, log_steps;
    int64_t boot_ns; /* CLOCK_MONOTONIC when the clock was clock_start */
    uint64_t clock_start; /* ticks at power-up */
    uint64_t at; /* the moment being executed */
    uint64_t run_clock; /* everything before this has been executed */
    int64_t hang_until_ns; /* 0: not hanging */
    int64_t input_ns; /* when the input being read was read */
    int64_t heard_ns; /* last input from the host */
    struct timer timers; /* ring, sorted by clock; this one is the sentinel */
    struct timer stats;
    uint32_t stat_count, stat_sum, stat_sumsq; /* wakes; ticks; ticks squared / 256 */
    bool oids_given, configured;
    unsigned oid_count;
    uint32_t crc;
    int shutdown_id; /* 0: running, else static string id */
    struct obj *oids[OID_MAX]; /* owned */
    struct move moves[MOVE_POOL], *free_move; /* more than we tell: some may be done but not yet executed */
    struct step_stat steps[PIN_COUNT];
    unsigned boots, shutdowns;
    uint64_t late;
    int64_t late_max_us, wake_late_max_us;
    int64_t late_logged_ns;
    uint64_t *command_counts; /* owned; one for each row of mcu_commands */
};

struct mcu_command {
    const char *format;
    void (*fn)(struct mcu *m, const uint32_t *a);
    bool in_shutdown; /* allowed then */
    bool ahead; /* only adds to a queue: taken before what fell due while we slept, so that our own late wake is not the host's */
};

/* ids on the wire: response i is mcu_response_id(i); command i likewise. */
enum response {
    RSP_IDENTIFY,
    RSP_UPTIME,
    RSP_CLOCK,
    RSP_CONFIG,
    RSP_STATS,
    RSP_SHUTDOWN,
    RSP_IS_SHUTDOWN,
    RSP_STARTING,
    RSP_STEPPER,
    RSP_ENDSTOP,
    RSP_TRSYNC,
    RSP_ADC,
    RSP_BUTTONS,
    RSP_COUNT
};
extern const struct mcu_command mcu_commands[];
extern const unsigned mcu_command_count;
extern const char *const mcu_responses[RSP_COUNT];
extern const char *const mcu_reasons[]; /* ends with NULL */
enum { REASON_ID_BASE = 2 };
unsigned mcu_command_id(unsigned index);
unsigned mcu_response_id(enum response r);

/* Returns 0, or -1 when memory is out. */
int mcu_init(struct mcu *m, struct log *log, struct pins *pins, struct world *world, uint64_t clock_start, int64_t now_ns);
void mcu_fini(struct mcu *m);
void mcu_boot(struct mcu *m, const char *why, int64_t now_ns);
void mcu_input(struct mcu *m, const uint8_t *bytes, size_t n, int64_t now_ns);
/* Executes what is due. */
void mcu_run(struct mcu *m, int64_t now_ns);
/* The ns to sleep at most, -1 for ever. */
int64_t mcu_wait(const struct mcu *m, int64_t now_ns);
/* How long the process was busy, for the firmware's load statistics. */
void mcu_note_load(struct mcu *m, int64_t busy_ns);
void mcu_hang(struct mcu *m, int64_t now_ns, int64_t ns);
/* False when the reason is not one of the firmware's. */
bool mcu_shutdown(struct mcu *m, const char *reason);
struct when mcu_when(const struct mcu *m);
struct when mcu_when_ns(const struct mcu *m, int64_t ns);
const char *mcu_shutdown_text(const struct mcu *m);
struct stepper *mcu_stepper(struct mcu *m, int step_pin);

/* For the object files. */
bool timer_armed(const struct timer *t);
void timer_add(struct mcu *m, struct timer *t, uint64_t clock);
void timer_del(struct timer *t);
uint64_t mcu_wide_clock(const struct mcu *m, uint32_t clock);
/* NULL after a shutdown "Can't assign oid". */
void *obj_new(struct mcu *m, uint32_t oid, enum obj_kind kind, size_t size);
/* NULL after a shutdown "Invalid oid type". */
void *obj_get(struct mcu *m, uint32_t oid, enum obj_kind kind);
struct move *move_new(struct mcu *m, struct move_queue *q);
void move_pop(struct mcu *m, struct move_queue *q);
void move_clear(struct mcu *m, struct move_queue *q);
/* False after a shutdown, when the pin is out of range. */
bool mcu_pin(struct mcu *m, uint32_t pin, enum pin_role role);
void mcu_reply(struct mcu *m, enum response r, const uint32_t *v, unsigned n);

/* motion.c */
void motion_shutdown(struct mcu *m, struct obj *o);
void cmd_config_stepper(struct mcu *m, const uint32_t *a);
void cmd_queue_step(struct mcu *m, const uint32_t *a);
void cmd_set_next_step_dir(struct mcu *m, const uint32_t *a);
void cmd_reset_step_clock(struct mcu *m, const uint32_t *a);
void cmd_stepper_get_position(struct mcu *m, const uint32_t *a);
void cmd_stepper_stop_on_trigger(struct mcu *m, const uint32_t *a);
void cmd_config_endstop(struct mcu *m, const uint32_t *a);
void cmd_endstop_home(struct mcu *m, const uint32_t *a);
void cmd_endstop_query_state(struct mcu *m, const uint32_t *a);
void cmd_config_trsync(struct mcu *m, const uint32_t *a);
void cmd_trsync_start(struct mcu *m, const uint32_t *a);
void cmd_trsync_set_timeout(struct mcu *m, const uint32_t *a);
void cmd_trsync_trigger(struct mcu *m, const uint32_t *a);

/* outputs.c */
void outputs_shutdown(struct mcu *m, struct obj *o);
void cmd_config_digital_out(struct mcu *m, const uint32_t *a);
void cmd_set_digital_out_pwm_cycle(struct mcu *m, const uint32_t *a);
void cmd_queue_digital_out(struct mcu *m, const uint32_t *a);
void cmd_update_digital_out(struct mcu *m, const uint32_t *a);
void cmd_set_digital_out(struct mcu *m, const uint32_t *a);
void cmd_config_pwm_out(struct mcu *m, const uint32_t *a);
void cmd_queue_pwm_out(struct mcu *m, const uint32_t *a);
void cmd_set_pwm_out(struct mcu *m, const uint32_t *a);

/* inputs.c */
void inputs_shutdown(struct mcu *m, struct obj *o);
void inputs_pin_changed(struct mcu *m, int pin);
void cmd_config_analog_in(struct mcu *m, const uint32_t *a);
void cmd_query_analog_in(struct mcu *m, const uint32_t *a);
void cmd_config_buttons(struct mcu *m, const uint32_t *a);
void cmd_buttons_add(struct mcu *m, const uint32_t *a);
void cmd_buttons_query(struct mcu *m, const uint32_t *a);
void cmd_buttons_ack(struct mcu *m, const uint32_t *a);

#endif
