/* SPDX-License-Identifier: GPL-3.0-or-later */
/* klipperplace.cfg: values and defaults, every kind of fault with its line and hint, the environment, hostile bytes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "alloc_fixture.h"
#include "kp.h"

static const char sample[] =
    "# a machine\r\n"
    "[api]\n"
    "host: 127.0.0.1\n"
    "port = 7181   # not the usual one\n"
    "moonraker_socket: /run/moonraker.sock ; beside it\n"
    "\n"
    "[safety]\n"
    "max_x_position: 300.5\n"
    "Max_Feedrate: 24000\n"
    "[vacuum]\n"
    "travel_interlock: Yes\n"
    "[nozzle N1]\n"
    "z_axis: Z\n"
    "safe_z: 20\n"
    "pump: output_pin pump1\n"
    "part_on: -40\n"
    "part_off: -10\n"
    "[ nozzle  N2 ]\n"
    "z_direction: -1\n"
    "offset_x: +12.5\n"
    "rotation_axis: b\n"
    "[axis A]\n"
    "stepper: manual_stepper rotation1\n"
    "rotary: true\n"
    "[sensor vacuum1]\n"
    "type: VACUUM\n"
    "[feeder feeder1]\n"
    "stepper: manual_stepper feeder1\n"
    "part: 4.7\xc2\xb5" "F\n"
    "[pin light]\n"
    "pin: PB5";

static void test_values(void **state)
{
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    (void)state;
    assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of(sample), &f), KP_OK);
    assert_int_equal(f.count, 0);
    assert_string_equal(kp_config_str(c, "api", "host"), "127.0.0.1");
    assert_true(kp_config_num(c, "api", "port") == 7181);
    assert_true(kp_config_num(c, "api", "moonraker_port") == 7125);
    assert_string_equal(kp_config_str(c, "api", "moonraker_socket"), "/run/moonraker.sock");
    assert_null(kp_config_str(c, "api", "moonraker_api_key"));
    assert_true(kp_config_num(c, "safety", "max_x_position") == 300.5);
    assert_true(kp_config_num(c, "safety", "max_feedrate") == 24000);
    assert_true(isnan(kp_config_num(c, "safety", "min_x_position")));
    assert_true(kp_config_num(c, "safety", "emergency_stop_timeout") == 5);
    assert_true(kp_config_bool(c, "vacuum", "travel_interlock"));
    assert_string_equal(kp_config_str(c, "nozzle N1", "z_axis"), "z");
    assert_true(kp_config_num(c, "nozzle N1", "part_on") == -40);
    assert_true(kp_config_num(c, "nozzle N1", "z_direction") == 1);
    assert_true(kp_config_num(c, "nozzle N2", "z_direction") == -1);
    assert_true(kp_config_num(c, "nozzle N2", "offset_x") == 12.5);
    assert_string_equal(kp_config_str(c, "nozzle N2", "rotation_axis"), "B");
    assert_true(isnan(kp_config_num(c, "nozzle N2", "safe_z")));
    assert_true(kp_config_bool(c, "axis A", "rotary"));
    assert_string_equal(kp_config_str(c, "sensor vacuum1", "type"), "vacuum");
    assert_string_equal(kp_config_str(c, "feeder feeder1", "part"), "4.7\xc2\xb5" "F");
    assert_string_equal(kp_config_section(c, "nozzle", 0), "N1");
    assert_string_equal(kp_config_section(c, "nozzle", 1), "N2");
    assert_null(kp_config_section(c, "nozzle", 2));
    assert_null(kp_config_section(c, "api", 0));
    assert_null(kp_config_section(c, "nothing", 0));
    assert_null(kp_config_str(c, "nozzle N3", "z_axis"));
    assert_null(kp_config_str(c, "nozzle", "z_axis"));
    assert_null(kp_config_str(c, "api x", "host"));
    assert_null(kp_config_str(c, "api", "nothing"));
    kp_config_free(c);
    kp_config_free(NULL);
}

static const struct { const char *text, *field, *message; } faulty[] = {
    { "[safety]\nmin_x_positon: 1\n", "min_x_positon", "k.cfg:2: unknown option \"min_x_positon\" in [safety]; the nearest known is \"min_x_position\"" },
    { "\n\n[nozle N1]\nfoo: 1\n", "nozle N1", "k.cfg:3: unknown section [nozle N1]; the nearest known is [nozzle NAME]" },
    { "[saftey]\n", "saftey", "k.cfg:1: unknown section [saftey]; the nearest known is [safety]" },
    { "[api x]\n", "api x", "k.cfg:1: unknown section [api x]; the nearest known is [api]" },
    { "[]\n", "", "k.cfg:1: unknown section []; the nearest known is [api]" },
    { "[nozzle]\n", "nozzle", "k.cfg:1: [nozzle] needs a name, as in [nozzle NAME]" },
    { "[nozzle a-b]\n", "nozzle a-b", "k.cfg:1: [nozzle a-b]: a name has 1 to 63 characters of A-Z a-z 0-9 _" },
    { "[axis X]\nstepper: a\n", "axis X", "k.cfg:1: [axis X]: an axis is named by one letter of A|B|C|D|H|L|O|P|Q|S|U|V|W" },
    { "[axis a]\nstepper: a\n", "axis a", "k.cfg:1: [axis a]: an axis is named by one letter of A|B|C|D|H|L|O|P|Q|S|U|V|W" },
    { "[axis AB]\nstepper: a\n", "axis AB", "k.cfg:1: [axis AB]: an axis is named by one letter of A|B|C|D|H|L|O|P|Q|S|U|V|W" },
    { "[api\nport: 1\n", "", "k.cfg:1: a section's line ends in \"]\": \"[api\"" },
    { "port: 1\nhost: b\n", "port", "k.cfg:1: \"port\" stands before the first section" },
    { "[api]\nhello\n", "", "k.cfg:2: neither \"option: value\" nor a section: \"hello\"" },
    { "[api]\n: 5\n", "", "k.cfg:2: neither \"option: value\" nor a section: \": 5\"" },
    { "[api]\nport: 1\n[api]\nport: 2\n", "api", "k.cfg:3: [api] is there twice, first in line 1" },
    { "[nozzle A]\n[nozzle A]\n", "nozzle A", "k.cfg:2: [nozzle A] is there twice, first in line 1" },
    { "[api]\nport: 1\nport: 2\n", "port", "k.cfg:3: port is there twice in this section" },
    { "[api]\nhost: a\n  b\n", "", "k.cfg:3: a value ends with its line; this one is indented" },
    { "[api]\nport: abc\n", "port", "k.cfg:2: port: \"abc\" is not a number" },
    { "[api]\nport:\n", "port", "k.cfg:2: port: \"\" is not a number" },
    { "[api]\nport: 1e3\n", "port", "k.cfg:2: port: \"1e3\" is not a number" },
    { "[api]\nport: 7180.5\n", "port", "k.cfg:2: port: \"7180.5\" is not a whole number" },
    { "[api]\nport: 0\n", "port", "k.cfg:2: port is 0; allowed are 1 to 65535" },
    { "[safety]\nmax_velocity: nan\n", "max_velocity", "k.cfg:2: max_velocity: \"nan\" is not a number" },
    { "[safety]\nmax_velocity: -5\n", "max_velocity", "k.cfg:2: max_velocity is -5 mm/s; allowed are 0.001 to 100000 mm/s" },
    { "[safety]\nmin_x_position: 5\nmax_x_position: 4\n", "min_x_position", "k.cfg:1: min_x_position is above max_x_position" },
    { "[vacuum]\ntravel_interlock: maybe\n", "travel_interlock", "k.cfg:2: travel_interlock: \"maybe\" is neither true nor false" },
    { "[nozzle N]\nz_direction: 0\n", "z_direction", "k.cfg:2: z_direction: \"0\" is none of 1|-1" },
    { "[nozzle N]\nrotation_axis: x\n", "rotation_axis", "k.cfg:2: rotation_axis: \"x\" is none of A|B|C|D|H|L|O|P|Q|S|U|V|W" },
    { "[nozzle N]\npart_on: 1\n", "part_on", "k.cfg:1: [nozzle N] needs both part_on and part_off, or none" },
    { "[nozzle N]\npart_on: 1\npart_off: 1.0\n", "part_on", "k.cfg:1: [nozzle N]: part_on and part_off are the same" },
    { "[sensor s]\ntype: heat\n", "type", "k.cfg:2: type: \"heat\" is none of vacuum|pressure|temperature|load" },
    { "[axis A]\nrotary: on\n", "stepper", "k.cfg:1: [axis A] needs stepper" },
    { "[pin a]\n", "object", "k.cfg:1: [pin a] needs one of object and pin" },
    { "[pin a]\npin: PA1\nobject: output_pin b\n", "object", "k.cfg:1: [pin a] needs one of object and pin" },
    { "[pin a]\npin: P\x01" "A\n", "pin", "k.cfg:2: pin: \"P?A\" holds a control character or is not UTF-8" },
    { "[pin a]\npin: \xff\xfe\n", "pin", "k.cfg:2: pin: \"??\" holds a control character or is not UTF-8" },
    { "[include other.cfg]\n", "include other.cfg", "k.cfg:1: unknown section [include other.cfg]; the nearest known is [mcode NAME]" },
};

static void test_faults(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faulty / sizeof *faulty; i++) {
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of(faulty[i].text), &f), KP_INVALID_PARAMETER);
        assert_string_equal(f.item[0].message, faulty[i].message);
        assert_string_equal(f.item[0].field, faulty[i].field);
        assert_int_equal(f.count, 1);
        kp_config_free(c);
    }
}

/* One reading tells everything that is wrong, and good lines still count. */
static void test_all_at_once(void **state)
{
    static const char text[] = "[api]\nport: x\nhost: h\n[nope]\na: 1\nb: 2\n[safety]\nmax_velocity: 0\nbad: 1\n";
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    (void)state;
    assert_int_equal(kp_config_parse(c, "/a/very/long/path/that/goes/on/and/on/and/never/ends/before/the/file/k.cfg", kp_str_of(text), &f), KP_INVALID_PARAMETER);
    assert_int_equal(f.count, 4);
    assert_non_null(strstr(f.item[3].message, "k.cfg:9: "));
    assert_true(f.item[2].got == 0 && f.item[2].min == 0.001);
    assert_string_equal(kp_config_str(c, "api", "host"), "h");
    kp_config_free(c);
}

static void test_env(void **state)
{
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    struct kp_error e;
    (void)state;
    assert_int_equal(kp_config_env(c, "KLIPPERPLACE_PORT", "9000", &e), KP_OK);
    assert_int_equal(kp_config_env(c, "LOG_LEVEL", "INFO", &e), KP_OK);
    assert_int_equal(kp_config_env(c, "MOONRAKER_API_KEY", "k", NULL), KP_OK);
    assert_int_equal(kp_config_env(c, "MOONRAKER_HOST", "", &e), KP_OK);
    assert_int_equal(kp_config_env(c, "HOME", "/", &e), KP_NOT_FOUND);
    assert_int_equal(kp_config_env(c, "MOONRAKER_PORT", "99999", &e), KP_INVALID_PARAMETER);
    assert_string_equal(e.message, "MOONRAKER_PORT: moonraker_port is 99999; allowed are 1 to 65535");
    assert_int_equal(kp_config_env(c, "LOG_FORMAT", "xml", NULL), KP_INVALID_PARAMETER);
    assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of("[api]\nport: 7200\nmoonraker_host: m\nlog_level: debug\n"), &f), KP_OK);
    assert_true(kp_config_num(c, "api", "port") == 9000);
    assert_string_equal(kp_config_str(c, "api", "log_level"), "info");
    assert_string_equal(kp_config_str(c, "api", "moonraker_host"), "m");
    assert_int_equal(kp_config_env(c, "MOONRAKER_HOST", "e", &e), KP_OK);
    assert_string_equal(kp_config_str(c, "api", "moonraker_host"), "e");
    kp_config_free(c);
}

/* Every row can be kept by the parser and its default passes its own check. */
static void test_table(void **state)
{
    size_t count;
    const struct kp_option *rows = kp_options(&count);
    (void)state;
    assert_in_range(count, 40, 200);
    for (size_t i = 0; i < count; i++) {
        char text[512] = "[";
        const char *star = strchr(rows[i].section, '*');
        assert_true(rows[i].doc && rows[i].unit && strlen(rows[i].doc) > 5);
        assert_true(rows[i].def || rows[i].example); /* what the sample file shows */
        strncat(text, rows[i].section, star ? (size_t)(star - rows[i].section) : 100);
        strcat(text, star ? strncmp(rows[i].section, "mcode", 5) ? "A]\n" : "M800]\n" : "]\n");
        strcat(text, rows[i].name);
        strcat(text, ": ");
        strcat(text, rows[i].def ? rows[i].def : rows[i].example);
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        kp_config_parse(c, "k.cfg", kp_str_of(text), &f);
        for (size_t j = 0; j < f.count; j++) /* nothing but "needs ..." of the section as a whole */
            assert_non_null(strstr(f.item[j].message, " needs "));
        kp_config_free(c);
    }
}

static void test_limits(void **state)
{
    static char text[40000];
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    size_t n = 0;
    (void)state;
    for (int i = 0; i < KP_NOZZLES_MAX + 1; i++) {
        const char line[] = { '[', 'n', 'o', 'z', 'z', 'l', 'e', ' ', 'N', (char)('a' + i), ']', '\n' };
        memcpy(text + n, line, sizeof line);
        n += sizeof line;
    }
    assert_int_equal(kp_config_parse(c, "k.cfg", (struct kp_str){ text, n }, &f), KP_INVALID_PARAMETER);
    assert_string_equal(f.item[0].message, "k.cfg:9: [nozzle Ni]: more than 8 sections of this kind");
    memset(text, 'a', sizeof text);
    memcpy(text, "[api]\nhost: ", 12);
    f.count = 0;
    struct kp_config *d = kp_config_new();
    assert_int_equal(kp_config_parse(d, "k.cfg", (struct kp_str){ text, sizeof text }, &f), KP_INVALID_PARAMETER);
    assert_string_equal(f.item[0].message, "k.cfg:2: host: longer than 191 characters");
    kp_config_free(c);
    kp_config_free(d);
}

/* Broken copies of a good file and plain noise: whatever they hold, the parser stays within them (run under sanitizers). */
static void test_hostile(void **state)
{
    static const char noise[] = "[]:=#; \t\r\n\0axis nozzle1-.\xff\xc3";
    uint64_t seed = 99;
    (void)state;
    for (int round = 0; round < 3000; round++) {
        size_t n = round % 2 ? sizeof sample - 1 : (size_t)(round % 300);
        char *text = malloc(n + 1); /* exact size: an overrun is seen */
        for (size_t i = 0; i < n; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bool keep = round % 2 && seed >> 60 != 0;
            text[i] = keep ? sample[i] : noise[(seed >> 33) % (sizeof noise - 1)];
        }
        char *exact = n ? realloc(text, n) : text;
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        kp_config_parse(c, "k.cfg", (struct kp_str){ exact, n }, &f);
        struct kp_machine *m = kp_machine_new(c);
        assert_non_null(m);
        kp_machine_free(m);
        kp_config_free(c);
        free(exact);
    }
}

/* ---- the seed's files ---- */

/* A file below tests/golden; 0-ended, to be freed. */
static char *read_file(const char *name, size_t *n)
{
    char path[1024];
    const char *golden = getenv("KP_GOLDEN");
    assert_non_null(golden);
    snprintf(path, sizeof path, "%s/%s", golden, name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s cannot be read", path);
    char *text = malloc(1 << 18);
    *n = fread(text, 1, (1 << 18) - 1, f);
    text[*n] = 0;
    fclose(f);
    return text;
}

/* The samples of the first implementation's documentation, unchanged. */
static void test_seed(void **state)
{
    static const struct { const char *section, *name; double value; } numbers[] = {
        { "api", "port", 7125 }, { "cache", "default_ttl", 1 }, { "cache", "max_cache_size", 10000 }, { "cache", "cleanup_interval", 10 },
        { "cache", "gpio_ttl", 1 }, { "cache", "sensor_ttl", 0.5 }, { "cache", "position_ttl", 0.1 }, { "cache", "printer_state_ttl", 2 },
        { "safety", "max_extruder_temp", 250 }, { "safety", "max_bed_temp", 120 }, { "safety", "max_chamber_temp", 60 }, { "safety", "min_temp_delta", 5 },
        { "safety", "max_x_position", 300 }, { "safety", "max_z_position", 400 }, { "safety", "min_z_position", 0 }, { "safety", "max_velocity", 500 },
        { "safety", "max_acceleration", 3000 }, { "safety", "max_pwm_value", 1 }, { "safety", "min_fan_speed", 0 }, { "safety", "max_feedrate", 30000 },
        { "safety", "min_feedrate", 1 }, { "safety", "emergency_stop_timeout", 5 }, { "safety", "temperature_check_interval", 1 },
        { "safety", "position_check_interval", 0.5 }, { "safety", "state_check_interval", 2 },
        { "gcode_driver", "max_queue_size", 1000 }, { "gcode_driver", "max_history_entries", 1000 }, { "gcode_driver", "default_timeout", 30 },
    };
    static const char *const mappings[][2] = {
        { "OPENPNP_VACUUM_ON", "['M106 S255']" }, { "OPENPNP_VACUUM_OFF", "['M107']" }, { "OPENPNP_ACTUATE_ON", "['SET_PIN PIN={pin} VALUE=1']" },
        { "OPENPNP_ACTUATE_OFF", "['SET_PIN PIN={pin} VALUE=0']" },
    };
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    size_t n;
    const char *text;
    char *file = read_file("config/seed.cfg", &n);
    (void)state;
    assert_int_equal(kp_config_parse(c, "seed.cfg", (struct kp_str){ file, n }, &f), KP_OK);
    assert_int_equal(f.count, 0);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        assert_true(kp_config_num(c, numbers[i].section, numbers[i].name) == numbers[i].value);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(kp_config_item(c, "gcode_driver", "command_mappings", i, &text), mappings[i][0]);
        assert_string_equal(text, mappings[i][1]);
    }
    assert_null(kp_config_item(c, "gcode_driver", "command_mappings", 4, NULL));
    assert_string_equal(kp_config_str(c, "api", "host"), "localhost");
    assert_null(kp_config_str(c, "api", "api_key"));
    assert_true(kp_config_bool(c, "api", "enable_cors") && kp_config_bool(c, "cache", "enable_auto_refresh"));
    assert_int_equal(kp_config_verify(c, &f), KP_OK);
    assert_null(kp_config_secret_exposed(c, 0644)); /* it has an empty key only */
    free(file);

    size_t set = 0;
    file = read_file("config/seed.env", &n);
    for (char *line = strtok(file, "\n"); line; line = strtok(NULL, "\n")) {
        char *equals = strchr(line, '=');
        if (line[0] == '#' || !equals)
            continue;
        *equals = 0;
        assert_int_equal(kp_config_env(c, line, equals + 1, NULL), KP_OK);
        set++;
    }
    assert_int_equal(set, 9);
    assert_string_equal(kp_config_str(c, "api", "log_format"), "json");
    free(file);
    kp_config_free(c);
}

/* ---- values of several lines ---- */

static void test_lines(void **state)
{
    static const char text[] =
        "[security]\ncors_origins: http://a, http://b\n   http://c # not d\n"
        "[gcode_port]\nhome_script:\n\n  G28 Z ; up first\r\n    # nothing\n\n\tG28 X Y\nhost:\n    127.0.0.2\n"
        "[gcode_driver]\ncommand_mappings =\n  A_1 = ['G1 X1',\n         'G1: [Y]']\n  m800: G4 P5\nmax_queue_size: 5";
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    const char *word = "", *value = "";
    (void)state;
    assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of(text), &f), KP_OK);
    static const char *const origins[] = { "http://a", "http://b", "http://c" };
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(kp_config_item(c, "security", "cors_origins", i, &word), origins[i]);
        assert_null(word);
    }
    assert_null(kp_config_item(c, "security", "cors_origins", 3, NULL));
    assert_null(kp_config_item(c, "security", "allowed_hosts", 0, NULL));
    assert_null(kp_config_item(c, "api", "host", 0, NULL));
    assert_null(kp_config_str(c, "security", "cors_origins"));
    assert_string_equal(kp_config_str(c, "gcode_port", "home_script"), "G28 Z\nG28 X Y");
    assert_string_equal(kp_config_str(c, "gcode_port", "host"), "127.0.0.2");
    assert_string_equal(kp_config_item(c, "gcode_driver", "command_mappings", 0, &value), "A_1");
    assert_string_equal(value, "['G1 X1',\n'G1: [Y]']");
    assert_string_equal(kp_config_item(c, "gcode_driver", "command_mappings", 1, &value), "m800");
    assert_string_equal(value, "G4 P5");
    assert_true(kp_config_num(c, "gcode_driver", "max_queue_size") == 5);
    kp_config_free(c);
}

static const struct { const char *text, *message; } faulty_lines[] = {
    { "[api]\nport: 1\n  2\n  3\n", "k.cfg:3: a value ends with its line; this one is indented" },
    { "[api]\nprt: 1\n  2\n  3\n", "k.cfg:2: unknown option \"prt\" in [api]; the nearest known is \"port\"" },
    { "[api]\nport:\n  x\n", "k.cfg:2: port: \"x\" is not a number" },
    { "[gcode_driver]\ncommand_mappings:\n  no colon\n", "k.cfg:2: command_mappings: \"no colon\" is not \"NAME: value\"" },
    { "[gcode_driver]\ncommand_mappings:\n  a-b: ['G1']\n", "k.cfg:2: command_mappings: \"a-b\" is not \"NAME: value\"" },
    { "[gcode_driver]\ncommand_mappings:\n  A:\n", "k.cfg:2: command_mappings: A has no value" },
    { "[gcode_driver]\ncommand_mappings:\n  A: ['G1'\n  B: 'G2'\n", "k.cfg:2: command_mappings: A opens a bracket that nothing closes" },
    { "[gcode_driver]\ncommand_mappings:\n  A: G1\n  a: G2\n", "k.cfg:2: command_mappings: a is there twice" },
    { "[gcode_driver]\ncommand_mappings:\n  A: G1 \x02\n", "k.cfg:2: command_mappings holds a control character or is not UTF-8" },
    { "[cache]\nenable_auto_refresh: off\n",
      "k.cfg:2: enable_auto_refresh: only \"true\" is possible: values are kept fresh by a subscription, which cannot be switched off" },
    { "[cache]\ngpio_ttl: 1\nsensor_ttl: 5\n", "k.cfg:3: sensor_ttl: only \"0.5\" is possible: Klipper's pushes keep the values, and each is fresh while the "
      "last push is younger than 1 s" },
    { "[cache]\nmax_cache_size: 10\n",
      "k.cfg:2: max_cache_size: only \"10000\" is possible: one value is kept for each part of the machine, as long as Klipper has the part" },
    { "[api]\napi_key: se\xff" "cret\n", "k.cfg:2: api_key: \"***\" holds a control character or is not UTF-8" },
    { "[feeder f]\nmacro: a-b\n", "k.cfg:2: macro: \"a-b\" is not a name of A-Z a-z 0-9 _" },
    { "[mcode M800]\n", "k.cfg:1: [mcode M800] needs pin" },
    { "[mcode 800]\npin: a\n", "k.cfg:1: [mcode 800]: an M-number is M and up to 4 digits, and none that has a meaning already" },
    { "[mcode M112]\npin: a\n", "k.cfg:1: [mcode M112]: an M-number is M and up to 4 digits, and none that has a meaning already" },
    { "[mcode M08]\npin: a\n", "k.cfg:1: [mcode M08]: an M-number is M and up to 4 digits, and none that has a meaning already" },
    { "[mcode M8x]\npin: a\n", "k.cfg:1: [mcode M8x]: an M-number is M and up to 4 digits, and none that has a meaning already" },
    { "[feeder f]\npitch: 4\n", "k.cfg:1: [feeder f] needs one of stepper and macro" },
    { "[feeder f]\nstepper: s\nmacro: M\n", "k.cfg:1: [feeder f] needs one of stepper and macro" },
    { "[pin a]\npin: PA1\nm42: 7\n[pin b]\npin: PA2\nm42: 7\n", "k.cfg:4: [pin b]: m42 7 is that of [pin a], too" },
    { "[sensor a]\nm105: V1\n[sensor b]\nm105: v1\n", "k.cfg:3: [sensor b]: m105 v1 is that of [sensor a], too" },
    { "[safety]\nmax_feedrate: 0.5\n", "k.cfg:1: min_feedrate is above max_feedrate" },
    { "[safety]\nmin_pwm_value: 0.6\nmax_pwm_value: 0.5\n", "k.cfg:1: min_pwm_value is above max_pwm_value" },
    { "[safety]\nmax_extruder_temp: 3000\n", "k.cfg:2: max_extruder_temp is 3000 C; allowed are 0 to 2000 C" },
};

static void test_faulty_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof faulty_lines / sizeof *faulty_lines; i++) {
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        assert_int_equal(kp_config_parse(c, "k.cfg", kp_str_of(faulty_lines[i].text), &f), KP_INVALID_PARAMETER);
        assert_string_equal(f.item[0].message, faulty_lines[i].message);
        assert_int_equal(f.count, i == 0 ? 2 : 1);
        kp_config_free(c);
    }
}

/* Values longer than anything needs, by kind; a '%' of the line becomes its number. */
static void test_long_lines(void **state)
{
    static const struct { const char *head, *line; int lines; const char *message; } rows[] = {
        { "[gcode_port]\nhome_script:\n", "  G1 X1234567890\n", 700, "k.cfg:2: home_script: longer than 8191 characters" },
        { "[gcode_driver]\ncommand_mappings:\n", "  N%: G1\n", 65, "k.cfg:2: command_mappings: N64 is one too many" },
        { "[security]\ncors_origins:\n", "  w\n", 65, "k.cfg:2: cors_origins: more than 64 words, or one longer than 191 characters" },
    };
    static char text[20000];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        size_t n = strlen(strcpy(text, rows[i].head));
        for (int j = 0; j < rows[i].lines; j++)
            for (const char *s = rows[i].line; *s; s++)
                if (*s == '%')
                    n += (size_t)snprintf(text + n, 8, "%d", j);
                else
                    text[n++] = *s;
        assert_int_equal(kp_config_parse(c, "k.cfg", (struct kp_str){ text, n }, &f), KP_INVALID_PARAMETER);
        assert_string_equal(f.item[0].message, rows[i].message);
        assert_int_equal(f.count, 1);
        kp_config_free(c);
    }
}

/* ---- keys, and the whole ---- */

static void test_secrets(void **state)
{
    static const char *const keys[] = { "[api]\napi_key: k\n", "[api]\nmoonraker_api_key: k\n", "[gcode_port]\nactuator_token: k\n" };
    static const char *const names[] = { "api_key", "moonraker_api_key", "actuator_token" };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        kp_config_env(c, "API_KEY", "of the environment", NULL);
        assert_null(kp_config_secret_exposed(c, 0777));
        kp_config_parse(c, "k.cfg", kp_str_of(keys[i]), &f);
        assert_null(kp_config_secret_exposed(c, 0100600));
        assert_null(kp_config_secret_exposed(c, 0700));
        assert_string_equal(kp_config_secret_exposed(c, 0640), names[i]);
        assert_string_equal(kp_config_secret_exposed(c, 0604), names[i]);
        assert_string_equal(kp_config_secret_exposed(c, 0620), names[i]);
        kp_config_free(c);
    }
}

static void test_verify(void **state)
{
    static const struct { const char *text, *field; size_t count; } rows[] = {
        { "", NULL, 0 },
        { "[api]\napi_key: k\n", "api_key", 1 },
        { "[api]\napi_key: k\napi_key_enabled: false\n", NULL, 0 },
        { "[api]\napi_key: k\napi_key_enabled: true\nhost: 0.0.0.0\n", NULL, 0 },
        { "[api]\nhost: 0.0.0.0\n", "host", 1 },
        { "[api]\nhost: 127.example.org\nallow_insecure: true\n", NULL, 0 },
        { "[api]\nhost: ::1\n", NULL, 0 },
        { "[gcode_port]\nhost: 192.168.0.1\n", "host", 1 },
        { "[gcode_port]\nhost: 192.168.0.1\nenabled: no\n", NULL, 0 },
        { "[gcode_port]\nport: 7180\n", "port", 1 },
        { "[gcode_port]\nactuator_urls: on\n", "actuator_token", 1 },
        { "[gcode_port]\nactuator_urls: on\nactuator_token: t\n[api]\nallow_insecure: true\nhost: 10.0.0.1\n", "actuator_urls", 1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct kp_config *c = kp_config_new();
        struct kp_faults f = { .count = 0 };
        kp_config_parse(c, "k.cfg", kp_str_of(rows[i].text), &f);
        assert_int_equal(f.count, 0);
        assert_int_equal(kp_config_verify(c, &f), rows[i].count ? KP_INVALID_PARAMETER : KP_OK);
        assert_int_equal(f.count, rows[i].count);
        if (rows[i].field)
            assert_string_equal(f.item[0].field, rows[i].field);
        kp_config_free(c);
    }
}

/* ---- what is printed from the table ---- */

struct printed { char text[1 << 17]; size_t n; };

static void keep(void *to, const char *text, size_t n)
{
    struct printed *p = to;
    assert_true(p->n + n < sizeof p->text);
    memcpy(p->text + p->n, text, n);
    p->text[p->n += n] = 0;
}

/* The committed files are what the table prints: print_config makes them. */
static void test_printed(void **state)
{
    static struct printed p;
    size_t n;
    (void)state;
    for (int docs = 0; docs < 2; docs++) {
        p.n = 0;
        (docs ? kp_config_docs : kp_config_sample)(keep, &p);
        char *file = read_file(docs ? "../../docs/configuration.md" : "../../klipper_cfg/klipperplace.cfg", &n);
        if (n != p.n || memcmp(file, p.text, n) != 0)
            fail_msg("%s is stale: print_config makes it", docs ? "docs/configuration.md" : "klipper_cfg/klipperplace.cfg");
        free(file);
    }
}

/* The sample is a file that changes nothing; with its options uncommented it is one that sets them all. */
static void test_sample(void **state)
{
    static struct printed p;
    struct kp_config *c = kp_config_new();
    struct kp_faults f = { .count = 0 };
    (void)state;
    p.n = 0;
    kp_config_sample(keep, &p);
    assert_int_equal(kp_config_parse(c, "s.cfg", (struct kp_str){ p.text, p.n }, &f), KP_OK);
    kp_config_free(c);
    bool start = true, skip = false;
    for (size_t i = 0; i < p.n; start = p.text[i++] == '\n') {
        bool more = p.text[i + 1] == ' ' && p.text[i + 2] == ' ' && p.text[i + 3] != ' ';
        if (!start || p.text[i] != '#' || (p.text[i + 1] == ' ' && !more))
            continue;
        skip = strncmp(p.text + i, "#pin: PB5", 9) == 0 || strncmp(p.text + i, "#macro:", 7) == 0; /* the other one of two */
        p.text[i] = skip ? '#' : more ? ' ' : '\r';
    }
    size_t n = 0; /* an option begins at its line's start */
    for (size_t i = 0; i < p.n; i++)
        if (p.text[i] != '\r')
            p.text[n++] = p.text[i];
    c = kp_config_new();
    kp_config_parse(c, "s.cfg", (struct kp_str){ p.text, n }, &f);
    for (size_t i = 0; i < f.count; i++)
        print_error("%s\n", f.item[i].message);
    assert_int_equal(f.count, 0);
    assert_string_equal(kp_config_str(c, "api", "api_key"), "your-secure-api-key-here");
    assert_string_equal(kp_config_item(c, "gcode_driver", "command_mappings", 1, NULL), "OPENPNP_ACTUATE_ON");
    assert_string_equal(kp_config_str(c, "gcode_port", "home_script"), "G28 Z\nG28 X Y");
    assert_string_equal(kp_config_section(c, "mcode", 0), "M800");
    assert_true(kp_config_num(c, "feeder feeder1", "pick_rotation") == 90);
    kp_config_free(c);
}

/* ---- no memory ---- */

/* Every allocation of reading a file, of the environment and of a machine's copy fails once: told, and nothing lost or broken. */
static void test_no_memory(void **state)
{
    size_t n, failed = 0;
    char *file = read_file("config/seed.cfg", &n);
    (void)state;
    for (size_t nth = 1; nth < 400; nth++) {
        struct kp_faults f = { .count = 0 };
        struct kp_error e;
        alloc_fail_at(nth);
        struct kp_config *c = kp_config_new();
        enum kp_err parsed = c ? kp_config_parse(c, "k.cfg", (struct kp_str){ file, n }, &f) : KP_INTERNAL_ERROR;
        if (c && parsed == KP_OK)
            parsed = kp_config_parse(c, "k.cfg", kp_str_of("[nozzle N1]\npump: p\n[sensor s]\nunit: bar\n[security]\ncors_origins: a, b\n"), &f);
        enum kp_err env = c ? kp_config_env(c, "LOG_LEVEL", "debug", &e) : KP_INTERNAL_ERROR;
        struct kp_machine *m = c ? kp_machine_new(c) : NULL;
        bool reached = alloc_count >= nth;
        alloc_fail_at(0);
        failed += reached;
        assert_int_equal(parsed != KP_OK || env != KP_OK || !m, reached);
        assert_true(parsed == KP_OK || parsed == KP_INTERNAL_ERROR || f.item[0].code == KP_INTERNAL_ERROR);
        kp_machine_free(m);
        kp_config_free(c);
        if (!reached)
            break;
    }
    assert_in_range(failed, 50, 390);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_faults), cmocka_unit_test(test_all_at_once), cmocka_unit_test(test_env),
        cmocka_unit_test(test_table), cmocka_unit_test(test_limits), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_seed), cmocka_unit_test(test_lines), cmocka_unit_test(test_faulty_lines), cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_secrets), cmocka_unit_test(test_verify), cmocka_unit_test(test_printed), cmocka_unit_test(test_sample),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
