/* SPDX-License-Identifier: GPL-3.0-or-later */
/* gcode2klipper [FILE]: prints what Klipper gets for a file of G-code, for a machine of 300 x 200 x 64 mm, without any Klipper. Ends at the first bad line.
 *   cc -o gcode2klipper gcode2klipper.c $(pkg-config --cflags --libs kp) */
#include <kp.h>
#include <stdio.h>

static const struct { const char *section, *option; double value; } machine[] = { /* as Klipper's printer.cfg would say */
    { "printer", "max_velocity", 500 }, { "printer", "max_accel", 3000 }, { "stepper_x", "position_min", 0 }, { "stepper_x", "position_max", 300 },
    { "stepper_y", "position_min", 0 }, { "stepper_y", "position_max", 200 }, { "stepper_z", "position_min", -32 }, { "stepper_z", "position_max", 32 },
};
static const char *const commands[] = { "G1", "G4", "G28", "G90", "M204", "M400" }; /* what this Klipper knows */

static struct kp_machine *machine_new(void)
{
    struct kp_config *config = kp_config_new(); /* every option at its default */
    struct kp_machine *m = config ? kp_machine_new(config) : NULL;
    kp_config_free(config);
    for (size_t i = 0; m && i < sizeof machine / sizeof *machine; i++) {
        struct kp_value v = { .kind = KP_NUM, .num = machine[i].value };
        kp_machine_setting(m, kp_str_of(machine[i].section), kp_str_of(machine[i].option), &v);
    }
    for (size_t i = 0; m && i < sizeof commands / sizeof *commands; i++)
        kp_machine_command(m, kp_str_of(commands[i]));
    if (m && kp_machine_resolve(m, NULL) == KP_OK) {
        kp_machine_moonraker(m, true);
        kp_machine_klippy(m, KP_KLIPPY_READY, NULL);
    }
    return m;
}

int main(int argc, char **argv)
{
    FILE *in = argc > 1 ? fopen(argv[1], "rb") : stdin;
    struct kp_machine *m = machine_new();
    struct kp_modal *g = m ? kp_modal_new(m, &(struct kp_modal_options){ .clamp = true, .alone = true }) : NULL;
    struct kp_gcode_reader reader = { 0 };
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_gcode_action action;
    char bytes[4096];
    int bad = !in || !g;
    for (size_t n = 1; !bad && n > 0;) {
        n = fread(bytes, 1, sizeof bytes, in);
        struct kp_str left = n > 0 ? (struct kp_str){ bytes, n } : kp_str_of("\n"); /* the last line may lack its end */
        for (enum kp_gcode_event ev; !bad && (ev = kp_gcode_feed(&reader, &left, &line, &fault)) != KP_GCODE_MORE;) {
            if ((bad = ev == KP_GCODE_BAD || (ev == KP_GCODE_LINE && kp_modal_line(g, &line, &fault) != KP_OK)))
                fprintf(stderr, "line %llu, column %zu, \"%s\": %s\n", (unsigned long long)reader.lines, fault.column, fault.text, fault.error.message);
            while (!bad && ev == KP_GCODE_LINE && kp_modal_next(g, &action))
                if (action.text)
                    puts(action.text);
        }
    }
    if (!in)
        perror(argv[1]);
    kp_modal_free(g);
    kp_machine_free(m);
    return bad;
}
