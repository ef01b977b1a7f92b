/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Fuzz target of klipperplace.cfg: any bytes as a file, then everything that reads what it left: whole checks, look-ups, and a machine made of it
 * with Klipper's rows behind. A file without a fault is read again from its own values, which must pass. */
#include "kp.h"
#include "require.h"

/* Every value that is set, in a file without faults, is one that the environment's check would take, and every item is there. */
static void read_all(const struct kp_config *c, bool good)
{
    size_t rows;
    const struct kp_option *row = kp_options(&rows);
    for (size_t i = 0; i < rows; i++) {
        const char *text;
        double v = kp_config_num(c, row[i].section, row[i].name);
        if (row[i].type == KP_T_NUM && !strchr(row[i].section, '*') && good)
            require(v != v || (v >= row[i].min && v <= row[i].max));
        for (size_t k = 0; kp_config_item(c, row[i].section, row[i].name, k, &text); k++)
            require(k < 64 && (row[i].type != KP_T_MAP || (text && *text)));
    }
    static const char *const kinds[] = { "nozzle", "axis", "sensor", "feeder", "pin", "mcode", "api" };
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t i = 0; kp_config_section(c, kinds[k], i); i++)
            require(kp_name_ok(kp_str_of(kp_config_section(c, kinds[k], i))));
}

static void feed(struct kp_machine *m, struct kp_str text)
{
    static const char *const rows[][3] = {
        { "board_pins", "aliases", NULL }, { "output_pin led", "pin", NULL }, { "output_pin light", "pin", "PB5" }, { "servo s", "pin", "PB6" },
        { "fan", "pin", "PB7" }, { "manual_stepper feeder1", "endstop_pin", "^PB8" }, { "temperature_sensor vacuum1", "sensor_type", "x" },
        { "output_pin valve1", "pin", "A=B" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_value v = { .kind = KP_STR, .str = rows[i][2] ? kp_str_of(rows[i][2]) : text };
        kp_machine_setting(m, kp_str_of(rows[i][0]), kp_str_of(rows[i][1]), &v);
        kp_machine_object(m, kp_str_of(rows[i][0]));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    struct kp_str text = { (const char *)data, size };
    if (!c)
        return 0;
    bool good = kp_config_parse(c, "fuzz.cfg", text, &f) == KP_OK;
    require(good == (f.count == 0));
    for (size_t i = 0; i < f.count; i++)
        require(memchr(f.item[i].message, 0, KP_TEXT_MAX) && memchr(f.item[i].field, 0, KP_NAME_MAX));
    read_all(c, good);
    kp_config_secret_exposed(c, 0777);
    kp_config_verify(c, &f);
    struct kp_machine *m = kp_machine_new(c);
    require(m != NULL);
    feed(m, text);
    kp_machine_resolve(m, NULL);
    int index;
    bool inverted;
    kp_machine_find_pin(m, text, &index, &inverted, NULL);
    kp_safety_check(m, 1);
    kp_machine_free(m);
    kp_config_free(c);
    return 0;
}
