/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fuzz target of the G-code port: any bytes as a client's stream, in pieces, with Klipper's answers, failures, pushes, shutdowns and a slow reader
 * between them.
 * Whatever comes, one script is in flight, no script leaves the limits, every line gets one last word, in one line, and a halted client moves nothing.
 * Each byte of the input from 0xf0 on is an event, all others are the client's. */
#include "../unit/port_fixture.h"
#include "require.h"

static struct port_rig p;
static size_t lines, answered; /* lines the client has sent; last words about them */
static bool line_starts;

static double word_of(const char *l, char letter)
{
    for (; *l && *l != '\n'; l++)
        if (l[0] == ' ' && l[1] == letter)
            return strtod(l + 2, NULL);
    return NAN;
}

static void check_script(struct port_rig *rig)
{
    const char *text = rig->script.text;
    require_script(text, KP_SCRIPT_MAX);
    require(!kp_safety_latched(rig->r.m));
    for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL) {
        if (strncmp(l, "G1 ", 3) != 0)
            continue;
        double x = word_of(l, 'X'), y = word_of(l, 'Y'), z = word_of(l, 'Z'), f = word_of(l, 'F');
        require(!(x < 0 || x > 300 || y < 0 || y > 200 || z < -32 || z > 32) && f > 0 && f <= 30000);
    }
}

static void read_out(size_t most)
{
    size_t n;
    const char *out = gcode_session_out(p.s, &n);
    n = n < most ? n : most;
    for (size_t i = 0; i < n; i++) {
        require((out[i] >= 0x20 && out[i] <= 0x7e) || out[i] == '\n');
        if (line_starts) {
            require(out[i] == 'o' || out[i] == '!' || out[i] == 'F' || out[i] == 'x' || out[i] == 'V' || out[i] == 'C' || out[i] == '\n');
            answered += (out[i] == 'o' || (out[i] == '!' && !p.options.ack));
        }
        line_starts = out[i] == '\n';
    }
    gcode_session_sent(p.s, n);
}

static void event(uint8_t what)
{
    switch (what & 7) {
    case 0:
    case 1: port_answer(&p); break;
    case 2: port_fail(&p, KP_EXECUTION_FAILED, "Klipper refused: it\nwould not"); break;
    case 3: port_push(&p); break;
    case 4: port_klippy(&p, kp_machine_klippy_state(p.r.m) == KP_KLIPPY_READY ? KP_KLIPPY_SHUTDOWN : KP_KLIPPY_READY); break;
    case 5: read_out(7); break;
    case 6: read_out(SIZE_MAX); break;
    case 7:
        if (what & 8)
            p.movers++, p.r.at[0] = 10; /* REST moves */
        else
            p.full = !p.full;
        break;
    }
}

static void take(struct kp_gcode_reader *count, const char *bytes, size_t n)
{
    static struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    enum kp_gcode_event ev;
    size_t room = gcode_session_room(p.s);
    struct kp_str in = { bytes, n < room ? n : room };
    if (in.n == 0)
        return;
    gcode_session_take(p.s, bytes, in.n);
    while ((ev = kp_gcode_feed(count, &in, &line, &fault)) != KP_GCODE_MORE)
        lines += ev != KP_GCODE_STOP;
}

/* Klipper answers all, and the client reads all. */
static void finish(void)
{
    p.full = false;
    for (int i = 0; i < 100000 && gcode_session_open(p.s); i++) {
        if (kp_machine_klippy_state(p.r.m) != KP_KLIPPY_READY)
            port_klippy(&p, KP_KLIPPY_READY);
        if (!port_answer(&p))
            port_push(&p);
        read_out(SIZE_MAX);
    }
    require(!gcode_session_open(p.s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kp_gcode_reader count = { .size = 0 };
    if (size == 0)
        return 0;
    port_open(&p, data[0] & 1, data[0] & 2 ? "HOME_ALL\nG28 Z" : NULL);
    p.options.klipper_commands = data[0] & 4;
    p.unread = data[0] & 8 ? 20 : 0;
    port_connect(&p);
    p.submitted = check_script;
    lines = answered = 0;
    line_starts = true;
    for (size_t i = 1, from = 1; i <= size; i++) {
        if (i < size && data[i] < 0xf0)
            continue;
        take(&count, (const char *)data + from, i - from);
        if (i < size)
            event(data[i]);
        from = i + 1;
    }
    finish();
    require(answered == lines);
    gcode_session_end(p.s);
    while (gcode_session_busy(p.s))
        port_answer(&p);
    port_close(&p);
    return 0;
}
