/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the answers of the registry's rows are made of, for command.c alone; OpenAPI and docs are printed from it.
 * Each table ends with a row without name. */
#ifndef KP_ANSWERS_H
#define KP_ANSWERS_H

#include "kp.h"

extern const struct kp_field answer_none[], answer_move[], answer_home[], answer_pick[], answer_pick_and_place[], answer_write[], answer_vacuum[], answer_fan[],
    answer_pwm_set[], answer_pwm_ramp[], answer_pin[], answer_pins[], answer_sensor[], answer_sensors[], answer_feeder[], answer_status[], answer_position[],
    answer_printer_state[], answer_queue_add[], answer_queue_batch[], answer_queue_status[], answer_queue_clear[], answer_queue_cancel[],
    answer_queue_history[],
    answer_batch[], answer_stop[], answer_pause[], answer_resume[], answer_reset[], answer_safety_status[], answer_safety_events[], answer_version[],
    answer_key[], answer_key_secret[], answer_keys[], answer_key_deleted[], answer_auth_status[], answer_ws_token[], answer_health[];

#endif
