/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How lines of G-code are written: every form, every fault with its place, streams cut anywhere, and lines written back. */
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gcode_same.h"

static struct kp_gcode_line line;
static struct kp_gcode_fault fault;

static enum kp_err parse(const char *text)
{
    return kp_gcode_parse(kp_str_of(text), &line, &fault);
}

static const struct { const char *text, *printed; } good[] = {
    { "", "" }, { "   ", "" }, { "; only this", "" }, { "(a) ; (b", "" }, { "(a)(b) \t", "" },
    { "G1 X10 Y-2.5 F1500", "G1 X10 Y-2.5 F1500" },
    { "g0x-.5;note", "G0 X-.5" },
    { "M204S8082G1X20.2053Y140.5999F48493", "M204 S8082 G1 X20.2053 Y140.5999 F48493" },
    { "G28", "G28" }, { "g28 x y", "G28 X Y" }, { "G28XY", "G28 X Y" }, { "G01 X007", "G1 X007" },
    { "G38.2Z-5", "G38.2 Z-5" }, { "G38.20 Z1", "G38.2 Z1" }, { "G1.0X1", "G1 X1" }, { "G1.X1", "G1 X1" },
    { "G 1 X 10 Y\t20", "G1 X10 Y20" }, { "G1 X+3", "G1 X+3" }, { "G1 X3.", "G1 X3." }, { "G1X1E3", "G1 X1 E3" },
    { "G1 (over there) X1 (and) Y2", "G1 X1 Y2" }, { "G1 X1 ; Y2", "G1 X1" }, { "T0", "T0" }, { "G1M400M114", "G1 M400 M114" },
    { "N12 G1 X1", "N12 G1 X1" }, { "n0g1", "N0 G1" }, { "N 7", "N7" }, { "N5 ; note", "N5" },
    { "N3 T0*57", "N3 T0" }, { "N3 T0*57 ; note", "N3 T0" }, { "N3 T0*57 (note)", "N3 T0" }, { "N3 T0*057", "N3 T0" }, { "*0", "" },
    { "SET_PIN PIN=valve1 VALUE=1", "SET_PIN PIN=valve1 VALUE=1" },
    { "set_pin pin=Valve1 value=0.5 ; on", "SET_PIN PIN=Valve1 VALUE=0.5" },
    { "N5 QUERY_ENDSTOPS", "N5 QUERY_ENDSTOPS" }, { "N5QUERY_ENDSTOPS", "N5 QUERY_ENDSTOPS" }, { "_x", "_X" },
    { "SHOW_2 B=\"two words\" C='a\"b' (note) D=", "SHOW_2 B=\"two words\" C='a\"b' D=" },
    { "A_2 B=x;c", "A_2 B=x" }, { "AB C=\"\"", "AB C=\"\"" }, { "AB C=\"x\";y", "AB C=\"x\"" }, { "AB C=\"(;*\"", "AB C=\"(;*\"" },
    { "AB C=\xc3\xa4", "AB C=\xc3\xa4" }, { "AB;x", "AB" },
};

static void good_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char text[KP_LINE_MAX + 1];
        static struct kp_gcode_line again;
        if (parse(good[i].text) != KP_OK)
            fail_msg("%s: column %zu %s", good[i].text, fault.column, fault.error.message);
        assert_int_equal(kp_gcode_print(&line, text), strlen(good[i].printed));
        assert_string_equal(text, good[i].printed);
        assert_int_equal(kp_gcode_parse(kp_str_of(text), &again, NULL), KP_OK);
        assert_true(line_same(&line, &again));
    }
}

static void parts_of_lines(void **state)
{
    (void)state;
    assert_int_equal(parse("N7 M204S8082 G38.2 x-1.25 Y"), KP_OK);
    assert_int_equal(line.number, 7);
    assert_int_equal(line.command_count, 2);
    assert_true(line.commands[0].letter == 'M' && line.commands[0].code == 2040 && line.commands[0].column == 4 && line.commands[0].count == 1);
    assert_true(line.commands[1].letter == 'G' && line.commands[1].code == 382 && line.commands[1].first == 1 && line.commands[1].count == 2);
    assert_true(line.words[1].letter == 'X' && line.words[1].value == -1.25 && line.words[1].column == 20);
    assert_true(line.words[2].letter == 'Y' && isnan(line.words[2].value));
    assert_true(kp_str_eq(kp_gcode_text(&line, &line.words[1]), "-1.25") && kp_str_eq(kp_gcode_key(&line, &line.words[1]), "x"));
    assert_true(kp_str_eq(kp_gcode_name(&line, &line.commands[1]), "G38.2"));

    assert_int_equal(parse(" set_pin Pin='my valve' value=0.25"), KP_OK);
    assert_true(line.commands[0].letter == 0 && kp_str_eq(kp_gcode_name(&line, &line.commands[0]), "SET_PIN") && line.number == -1);
    assert_true(kp_str_eq(kp_gcode_key(&line, &line.words[0]), "PIN") && kp_str_eq(kp_gcode_text(&line, &line.words[0]), "my valve"));
    assert_true(isnan(line.words[0].value) && line.words[0].quote == '\'' && line.words[1].value == 0.25);
}

static void numbers(void **state)
{
    (void)state;
    static const struct { const char *text; double v; } rows[] = {
        { "0", 0 }, { "-0", 0 }, { "1", 1 }, { "+1.5", 1.5 }, { ".5", 0.5 }, { "-.125", -0.125 }, { "3.", 3 }, { "20.2053", 20.2053 },
        { "123456789012345", 123456789012345.0 }, { "0.000000000000001", 1e-15 }, { "1234567890123456789", 1234567890123456789.0 },
        { "0000000000000000000000000000000000000001.25", 1.25 }, { "1234567890123456789012345678901234567890", 1234567890123456789012345678901234567890.0 },
        { "0.1000000000000000055511151231257827", 0.1 }, { "999999999999999.9", 999999999999999.9 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[80];
        double v;
        snprintf(text, sizeof text, "G1X%sY1", rows[i].text);
        assert_int_equal(parse(text), KP_OK);
        bool exact = strlen(rows[i].text) <= 16; /* beyond 15 digits the last bit is free */
        assert_true(exact ? line.words[0].value == rows[i].v : fabs(line.words[0].value - rows[i].v) <= 1e-15 * fabs(rows[i].v));
        assert_true(kp_number_parse(kp_str_of(rows[i].text), &v) && v == line.words[0].value);
    }
}

/* Many decimals against the C library's own reading. */
static void numbers_as_the_c_library_reads_them(void **state)
{
    (void)state;
    unsigned r = 1;
    for (int i = 0; i < 20000; i++) {
        char text[80];
        r = r * 1103515245u + 12345u;
        snprintf(text, sizeof text, "G1X%u.%0*u", r >> 20, 1 + (int)(r >> 8 & 7), (r >> 4) % 10000000u);
        assert_int_equal(parse(text), KP_OK);
        assert_true(line.words[0].value == strtod(text + 3, NULL));
    }
}

static const struct { const char *text; size_t column; const char *at, *message; } bad[] = {
    { "X10", 1, "X10", "X without a command" },
    { "G", 1, "G", "G needs a number of 1 to 4 digits" }, { "G1 M X1", 4, "M", "M needs a number of 1 to 4 digits" },
    { "G12345", 1, "G12345", "G needs a number of 1 to 4 digits" }, { "G1.25", 1, "G1.25", "the number of a command has one decimal at most" },
    { "G1.2.3", 1, "G1.2.3", "the number of a command has one decimal at most" },
    { "G-1", 1, "G-1", "G needs a number of 1 to 4 digits" },
    { "G1 X1 X2", 7, "X2", "X is there twice" }, { "G1 x1X2", 6, "X2", "X is there twice" },
    { "G1 X- Y1", 4, "X-", "X takes one plain number" }, { "G1 X. Y1", 4, "X.", "X takes one plain number" },
    { "G1 X1.2.3", 4, "X1.2.3", "X takes one plain number" }, { "G1 X--1", 4, "X--1", "X takes one plain number" },
    { "G1 X1,5", 6, ",5", "neither command, word nor comment" }, { "G1 X1 #2", 7, "#2", "neither command, word nor comment" },
    { "10", 1, "10", "neither command, word nor comment" }, { "G1 X\xc3\xa4", 5, "??", "neither command, word nor comment" },
    { "G1 X1\x01Y2", 6, "?Y2", "neither command, word nor comment" }, { "G1 X1 (note", 7, "(note", "the comment is not closed" },
    { "G1 X1 N5", 7, "N5", "a line number stands first" }, { "N1.5 G1", 1, "N1.5", "a line number is a whole number of 1 to 9 digits" },
    { "N1234567890", 1, "N1234567890", "a line number is a whole number of 1 to 9 digits" }, { "N G1", 1, "N", "a line number is a whole number of 1 to 9 digits" },
    { "N3 T0*58", 6, "*58", "the checksum says 58, the line's is 57" }, { "N3 T0*", 6, "*", "a checksum is a number of 1 to 3 digits" },
    { "N3 T0*0057", 6, "*0057", "a checksum is a number of 1 to 3 digits" }, { "N3 T0*57 G1", 10, "G1", "nothing follows a checksum" },
    { "N3 T0*57 (x", 10, "(x", "the comment is not closed" }, { "N5 *0", 4, "*0", "the checksum says 0, the line's is 91" },
    { "M400 SET_PIN", 8, "T_PIN", "T needs a number of 1 to 4 digits" }, { "G1 _", 4, "_", "a named command has its line for itself" },
    { "SET_PIN PIN", 9, "PIN", "a parameter is written KEY=value" }, { "SET_PIN =1", 9, "=1", "a name has 1 to 63 characters of A-Z 0-9 _ and begins with a letter" },
    { "SET_PIN PIN = x", 9, "PIN", "a parameter is written KEY=value" }, { "SET_PIN PIN=a pin=b", 15, "pin=b", "this parameter is there twice" },
    { "SET_PIN-X", 8, "-X", "a blank follows the name of a command" }, { "SET_PIN 2=1", 9, "2=1", "a name has 1 to 63 characters of A-Z 0-9 _ and begins with a letter" },
    { "SET_PIN PIN=\"a", 13, "\"a", "the quotes are not closed" }, { "SET_PIN PIN=\"a\"b", 16, "b", "a blank follows a value in quotes" },
    { "SET_PIN PIN=a\"b\"", 14, "\"b\"", "such a value needs quotes" }, { "SET_PIN PIN=a(b)", 14, "(b)", "such a value needs quotes" },
    { "SET_PIN PIN=a'", 14, "'", "such a value needs quotes" }, { "SET_PIN PIN=\"a\tb\"", 15, "", "a control character in a value" },
    { "SET_PIN PIN=\x7f", 13, "?", "a control character in a value" }, { "SET_PIN PIN=a (b", 15, "(b", "the comment is not closed" },
    { "SET_PIN*1", 8, "*1", "the checksum says 1, the line's is 74" },
    { "G1G1G1G1G1G1G1G1G1G1G1G1G1G1G1G1G1", 33, "G1", "more than 16 commands on a line" },
};

static void bad_lines(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (parse(bad[i].text) != KP_INVALID_REQUEST || fault.column != bad[i].column || strcmp(fault.text, bad[i].at) != 0 ||
            strcmp(fault.error.message, bad[i].message) != 0)
            fail_msg("%s: column %zu \"%s\" %s", bad[i].text, fault.column, fault.text, fault.error.message);
        assert_int_equal(fault.error.code, KP_INVALID_REQUEST);
        assert_int_equal(kp_gcode_parse(kp_str_of(bad[i].text), &line, NULL), KP_INVALID_REQUEST);
    }
}

static void bytes_with_zeros(void **state)
{
    (void)state;
    assert_int_equal(kp_gcode_parse((struct kp_str){ "G1\0X1", 5 }, &line, &fault), KP_INVALID_REQUEST);
    assert_true(fault.column == 3 && strcmp(fault.text, "?X1") == 0);
    assert_int_equal(kp_gcode_parse((struct kp_str){ "AB C=\0", 6 }, &line, &fault), KP_INVALID_REQUEST);
    assert_int_equal(kp_gcode_parse((struct kp_str){ "AB\0", 3 }, &line, &fault), KP_INVALID_REQUEST);
    assert_int_equal(kp_gcode_parse((struct kp_str){ "AB C=\"a\"\0", 9 }, &line, &fault), KP_INVALID_REQUEST);
    assert_int_equal(kp_gcode_parse((struct kp_str){ "G1 (\0) X1", 9 }, &line, &fault), KP_OK);
    assert_int_equal(kp_gcode_parse((struct kp_str){ NULL, 0 }, &line, &fault), KP_OK);
}

static void names_and_rooms(void **state)
{
    (void)state;
    char text[KP_LINE_MAX + 2];
    memset(text, 'A', sizeof text);
    text[KP_NAME_MAX - 1] = 0;
    assert_int_equal(parse(text), KP_OK);
    text[KP_NAME_MAX - 1] = 'A', text[KP_NAME_MAX] = 0;
    assert_int_equal(parse(text), KP_INVALID_REQUEST);
    memset(text, ' ', sizeof text);
    memcpy(text, "G1 X1", 5);
    assert_int_equal(kp_gcode_parse((struct kp_str){ text, KP_LINE_MAX }, &line, &fault), KP_OK);
    assert_int_equal(kp_gcode_parse((struct kp_str){ text, KP_LINE_MAX + 1 }, &line, &fault), KP_INVALID_REQUEST);
    assert_true(fault.column == KP_LINE_MAX + 1 && strcmp(fault.error.message, "the line is longer than 256 bytes") == 0);
    assert_int_equal(kp_gcode_parse((struct kp_str){ text, KP_LINE_MAX + 1 }, &line, NULL), KP_INVALID_REQUEST);
    size_t n = 0;
    for (int words = 0; words <= KP_LINE_WORDS_MAX; words++) { /* 16 commands of four words each, and one word more */
        if (words % 4 == 0 && words < KP_LINE_WORDS_MAX)
            n += (size_t)snprintf(text + n, sizeof text - n, "G1");
        text[n++] = "XYZAB"[words < KP_LINE_WORDS_MAX ? words % 4 : 4];
        assert_int_equal(kp_gcode_parse((struct kp_str){ text, n }, &line, &fault), words < KP_LINE_WORDS_MAX ? KP_OK : KP_INVALID_REQUEST);
    }
    assert_string_equal(fault.error.message, "more than 64 words on a line");
}

/* A line that is as long as can be is still one when written back: blanks are left out where there is no room. */
static void the_longest_lines_print(void **state)
{
    (void)state;
    static const char *const forms[] = { "G1X1.111Y2.222Z3.33", "G1A1B2C3X4Y5Z6", "M204S100G1X5", "N5G1X1" };
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        static char text[KP_LINE_MAX + 1], printed[KP_LINE_MAX + 1];
        static struct kp_gcode_line again;
        size_t n = 0, size = strlen(forms[f]);
        for (; n + size <= KP_LINE_MAX && n / size < 8; n += size)
            memcpy(text + n, forms[f], f == 3 && n > 0 ? 0 : size);
        if (f == 3)
            n = size;
        while (n < KP_LINE_MAX)
            text[n++] = '1';
        assert_int_equal(kp_gcode_parse((struct kp_str){ text, n }, &line, &fault), KP_OK);
        size_t out = kp_gcode_print(&line, printed);
        assert_true(out <= KP_LINE_MAX && strlen(printed) == out);
        assert_int_equal(kp_gcode_parse(kp_str_of(printed), &again, NULL), KP_OK);
        assert_true(line_same(&line, &again));
    }
}

/* ---- streams ---- */

/* What a stream gives, as text: L line, B bad, ! stop; cut into pieces of `piece` bytes. */
static void stream(const char *bytes, size_t size, size_t piece, char out[64])
{
    struct kp_gcode_reader r = { 0 };
    size_t n = 0;
    for (size_t at = 0; at < size; at += piece) {
        struct kp_str in = { bytes + at, piece < size - at ? piece : size - at };
        enum kp_gcode_event ev;
        while ((ev = kp_gcode_feed(&r, &in, &line, &fault)) != KP_GCODE_MORE) {
            out[n++] = ev == KP_GCODE_LINE ? 'L' : ev == KP_GCODE_BAD ? 'B' : '!';
            assert_true(n < 63);
        }
        assert_int_equal(in.n, 0);
    }
    out[n] = 0;
}

#define LONG "G1 X1                                                                                                                                " \
             "                                                                                                                                          "

static const struct { const char *bytes, *want; } streams[] = {
    { "", "" }, { "\n\n \r\n\t\n", "" }, { "G1 X1\nG1 X2\n", "LL" }, { "G1 X1\rG1 X2\r", "LL" }, { "G1 X1\r\nG1 X2\r\n", "LL" },
    { "G1 X1\n\rG1 X2\n\r", "LL" }, { "G1 X1", "" }, { ";a\n(b)\nG1 X1\n", "LLL" }, { "G1 X\nG1 Q$\nG1\n", "LBL" },
    { "M112\n", "!L" }, { "G1 X1\nM112\nG1 X1\n", "L!LL" }, { "m112\r\nm112\r\n", "!L!L" }, { "M 0112\n", "!L" }, { "G1X1M112\n", "!L" },
    { "N5 M112*36\n", "!L" }, { "N5 M112*35\n", "!B" }, { "G28XM112\n", "!L" }, { "M112 $\n", "!B" }, { "$ M112\n", "!B" }, { "M112M112\n", "!L" },
    { "M112.0\n", "!L" }, { "M1120\nM11 2\nM1112\nM113\nM111\n", "LBLLL" }, { ";M112\n(M112)\n", "LL" }, { "(M112\n", "B" },
    { "SET_PIN PIN=M112\n", "L" }, { "AB C=\"M112 \"\nAB C='M112 '\n", "LL" }, { "AB C=\"M112 \n", "B" }, { "AM112\nSET_M112\nX_M112\n", "LLL" },
    { "AB C=1M112\n", "L" }, { LONG "\n" "G1\n", "BL" }, { LONG " M112\nG1\n", "!BL" }, { LONG " M112 $\n", "!B" }, { LONG ";M112\n", "B" },
    { LONG LONG LONG "\r\nG1\r\n", "BL" },
};

static void streams_cut_anywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++)
        for (size_t piece = 1; piece < 20 || piece < strlen(streams[i].bytes) + 2; piece += piece < 20 ? 1 : 37) {
            char out[64];
            stream(streams[i].bytes, strlen(streams[i].bytes), piece, out);
            if (strcmp(out, streams[i].want) != 0)
                fail_msg("%s in pieces of %zu: %s", streams[i].bytes, piece, out);
        }
}

/* The stop is told before its line has ended. */
static void a_stop_does_not_wait_for_its_line(void **state)
{
    (void)state;
    struct kp_gcode_reader r = { 0 };
    struct kp_str in = kp_str_of("G1 X1 M112 "), rest = kp_str_of(" still here\nG1\n");
    assert_int_equal(kp_gcode_feed(&r, &in, &line, &fault), KP_GCODE_STOP);
    assert_int_equal(kp_gcode_feed(&r, &in, &line, &fault), KP_GCODE_MORE);
    assert_int_equal(kp_gcode_feed(&r, &rest, &line, &fault), KP_GCODE_BAD);
    assert_int_equal(kp_gcode_feed(&r, &rest, &line, &fault), KP_GCODE_LINE);
    assert_int_equal(kp_gcode_feed(&r, &rest, NULL, NULL), KP_GCODE_MORE);
    rest = kp_str_of("\r\n\n;x\n");
    assert_int_equal(kp_gcode_feed(&r, &rest, &line, &fault), KP_GCODE_LINE);
    assert_int_equal(r.lines, 5); /* blank ones are counted */
}

static void a_long_line_tells_where(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 600; piece += 299) {
        char out[64];
        stream(LONG LONG "\n", 2 * strlen(LONG) + 1, piece, out);
        assert_true(fault.column == KP_LINE_MAX + 1 && strncmp(fault.text, "G1 X1  ", 7) == 0);
        assert_string_equal(fault.error.message, "the line is longer than 256 bytes");
    }
}

/* Bytes drawn from those that matter: whatever comes, pieces change nothing, and what parses parses again when written back. */
static void drawn_bytes(void **state)
{
    (void)state;
    static const char alphabet[] = "GMXYN01259.-+ \t;()*\"'=_AB\r\n\n#";
    unsigned r = 7;
    size_t lines = 0;
    for (int i = 0; i < 20000; i++) {
        char bytes[48], whole[64], pieces[64], printed[KP_LINE_MAX + 1];
        static struct kp_gcode_line again;
        size_t n = sizeof bytes;
        for (size_t j = 0; j < n; j++) {
            r = r * 1103515245u + 12345u;
            bytes[j] = alphabet[(r >> 16) % (sizeof alphabet - 1)];
        }
        stream(bytes, n, n, whole);
        stream(bytes, n, 1 + (r >> 8) % 5, pieces);
        assert_string_equal(whole, pieces);
        if (kp_gcode_parse((struct kp_str){ bytes, n / 6 }, &line, &fault) != KP_OK) {
            assert_true(fault.column >= 1 && fault.column <= n / 6 + 1);
            continue;
        }
        lines++;
        kp_gcode_print(&line, printed);
        assert_int_equal(kp_gcode_parse(kp_str_of(printed), &again, NULL), KP_OK);
        assert_true(line_same(&line, &again));
    }
    assert_true(lines > 500);
}

static void any_locale(void **state)
{
    (void)state;
    static const char *const locales[] = { "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8" };
    for (size_t i = 0; i < sizeof locales / sizeof *locales && !setlocale(LC_ALL, locales[i]);)
        i++;
    numbers(state);
    good_lines(state);
    setlocale(LC_ALL, "C");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_lines),
        cmocka_unit_test(parts_of_lines),
        cmocka_unit_test(numbers),
        cmocka_unit_test(numbers_as_the_c_library_reads_them),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(bytes_with_zeros),
        cmocka_unit_test(names_and_rooms),
        cmocka_unit_test(the_longest_lines_print),
        cmocka_unit_test(streams_cut_anywhere),
        cmocka_unit_test(a_stop_does_not_wait_for_its_line),
        cmocka_unit_test(a_long_line_tells_where),
        cmocka_unit_test(drawn_bytes),
        cmocka_unit_test(any_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
