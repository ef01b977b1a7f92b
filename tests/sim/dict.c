/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Builds the data dictionary from the tables of mcu.c, for the host's identify. What is not in those tables does not exist. */
#include "dict.h"

#include "mcu.h"

enum { STORED_MAX = 65535 };

static void put_commands(struct buf *b)
{
    buf_printf(b, "\"commands\":{");
    for (unsigned i = 0; i < mcu_command_count; i++) buf_printf(b, "%s\"%s\":%u", i ? "," : "", mcu_commands[i].format, mcu_command_id(i));
    buf_printf(b, "},\"responses\":{");
    for (unsigned i = 0; i < RSP_COUNT; i++) buf_printf(b, "%s\"%s\":%u", i ? "," : "", mcu_responses[i], mcu_response_id((enum response)i));
    buf_printf(b, "},\"output\":{}");
}

static void put_enumerations(struct buf *b)
{
    buf_printf(b, ",\"enumerations\":{\"pin\":{");
    for (int i = 0; i < PIN_PORTS; i++) buf_printf(b, "%s\"P%c0\":[%d,16]", i ? "," : "", 'A' + i, i * 16);
    buf_printf(b, "},\"static_string_id\":{");
    for (int i = 0; mcu_reasons[i]; i++) buf_printf(b, "%s\"%s\":%d", i ? "," : "", mcu_reasons[i], i + REASON_ID_BASE);
    buf_printf(b, "}}");
}

static void put_json(struct buf *b)
{
    buf_printf(b, "{\"app\":\"Klipper\",\"version\":\"kp-sim-1\",\"build_versions\":\"simulated\",");
    put_commands(b);
    put_enumerations(b);
    buf_printf(b,
        ",\"config\":{\"CLOCK_FREQ\":%d,\"ADC_MAX\":%d,\"PWM_MAX\":%d,\"STATS_SUMSQ_BASE\":256,"
        "\"MCU\":\"kp-sim\",\"STEPPER_STEP_BOTH_EDGE\":1}}",
        TICKS_PER_S, ADC_MAX, PWM_MAX);
}

static uint32_t adler32(const uint8_t *p, size_t n)
{
    uint32_t a = 1, b = 0;

    for (size_t i = 0; i < n; i++) {
        a = (a + p[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

bool dict_build(struct buf *out)
{
    struct buf json = {0};
    size_t pos = 0;
    uint32_t sum;

    put_json(&json);
    buf_put(out, "\x78\x01", 2);
    do {
        size_t n = json.n - pos > STORED_MAX ? STORED_MAX : json.n - pos;
        uint8_t head[5] = {pos + n == json.n, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8)};

        buf_put(out, head, sizeof head);
        buf_put(out, json.p + pos, n);
        pos += n;
    } while (pos < json.n);
    sum = adler32((const uint8_t *)json.p, json.n);
    for (int shift = 24; shift >= 0; shift -= 8) {
        uint8_t byte = (uint8_t)(sum >> shift);
        buf_put(out, &byte, 1);
    }
    pos = json.failed || out->failed;
    buf_fini(&json);
    return !pos;
}
