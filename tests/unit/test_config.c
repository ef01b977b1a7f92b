/* SPDX-License-Identifier: GPL-3.0-or-later */
/* klipperplace.cfg: values and defaults, every kind of fault with its line and hint, the environment, hostile bytes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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
    { "[axis X]\nstepper: a\n", "axis X", "k.cfg:1: [axis X]: an axis is named by one letter of A|B|C|U|V|W" },
    { "[axis a]\nstepper: a\n", "axis a", "k.cfg:1: [axis a]: an axis is named by one letter of A|B|C|U|V|W" },
    { "[axis AB]\nstepper: a\n", "axis AB", "k.cfg:1: [axis AB]: an axis is named by one letter of A|B|C|U|V|W" },
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
    { "[nozzle N]\nrotation_axis: x\n", "rotation_axis", "k.cfg:2: rotation_axis: \"x\" is none of A|B|C|U|V|W" },
    { "[nozzle N]\npart_on: 1\n", "part_on", "k.cfg:1: [nozzle N] needs both part_on and part_off, or none" },
    { "[nozzle N]\npart_on: 1\npart_off: 1.0\n", "part_on", "k.cfg:1: [nozzle N]: part_on and part_off are the same" },
    { "[sensor s]\ntype: heat\n", "type", "k.cfg:2: type: \"heat\" is none of vacuum|pressure|temperature|load" },
    { "[axis A]\nrotary: on\n", "stepper", "k.cfg:1: [axis A] needs stepper" },
    { "[pin a]\n", "object", "k.cfg:1: [pin a] needs one of object and pin" },
    { "[pin a]\npin: PA1\nobject: output_pin b\n", "object", "k.cfg:1: [pin a] needs one of object and pin" },
    { "[pin a]\npin: P\x01" "A\n", "pin", "k.cfg:2: pin: \"P?A\" holds a control character or is not UTF-8" },
    { "[pin a]\npin: \xff\xfe\n", "pin", "k.cfg:2: pin: \"??\" holds a control character or is not UTF-8" },
    { "[include other.cfg]\n", "include other.cfg", "k.cfg:1: unknown section [include other.cfg]; the nearest known is [vacuum]" },
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
        char text[256] = "[", *at = text + 1;
        assert_true(rows[i].doc && rows[i].unit && strlen(rows[i].doc) > 5);
        for (const char *s = rows[i].section; *s; s++)
            *at++ = *s == '*' ? 'A' : *s;
        strcpy(at, "]\n");
        strcat(text, rows[i].name);
        strcat(text, ": ");
        strcat(text, rows[i].def ? rows[i].def : rows[i].type == KP_T_STR ? "A" : "1");
        if (!rows[i].def && rows[i].choices)
            text[strlen(text) - 1] = rows[i].choices[0];
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_faults), cmocka_unit_test(test_all_at_once), cmocka_unit_test(test_env),
        cmocka_unit_test(test_table), cmocka_unit_test(test_limits), cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
