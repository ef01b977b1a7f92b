/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Lines of G-code for Python: one taken apart, a whole text checked, and lines translated for a machine. The check of a text runs without Python's lock. */
#include "py.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FAULTS_MAX 1000 /* faults told of one text */

static PyObject *word_value(const struct kp_gcode_line *line, const struct kp_gcode_word *w)
{
    struct kp_str s = kp_gcode_text(line, w);
    if (!isnan(w->value))
        return PyFloat_FromDouble(w->value);
    return s.n ? PyUnicode_DecodeUTF8(s.p, (Py_ssize_t)s.n, "replace") : Py_NewRef(Py_None);
}

/* "G1" also for "g1". */
static PyObject *command_name(const struct kp_gcode_command *c, struct kp_str name)
{
    char text[KP_NAME_MAX];
    if (!c->letter || name.n >= sizeof text)
        return PyUnicode_FromStringAndSize(name.p, (Py_ssize_t)name.n);
    memcpy(text, name.p, name.n);
    text[0] = c->letter;
    return PyUnicode_FromStringAndSize(text, (Py_ssize_t)name.n);
}

static PyObject *command(const struct kp_gcode_line *line, const struct kp_gcode_command *c)
{
    struct kp_str name = kp_gcode_name(line, c);
    PyObject *words = PyDict_New(), *both = NULL;
    bool ok = words != NULL;
    for (size_t i = 0; ok && i < c->count; i++) {
        const struct kp_gcode_word *w = &line->words[c->first + i];
        struct kp_str s = w->letter ? (struct kp_str){ &w->letter, 1 } : kp_gcode_key(line, w);
        PyObject *key = PyUnicode_FromStringAndSize(s.p, (Py_ssize_t)s.n), *value = word_value(line, w);
        ok = key && value && PyDict_SetItem(words, key, value) == 0;
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    PyObject *n = ok ? command_name(c, name) : NULL;
    if (n)
        both = PyTuple_Pack(2, n, words);
    Py_XDECREF(n);
    Py_XDECREF(words);
    return both;
}

PyObject *kpy_parse(PyObject *module, PyObject *o)
{
    struct kp_str text;
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    if (!kpy_str(o, &text))
        return NULL;
    if (kp_gcode_parse(text, &line, &fault) != KP_OK)
        return kpy_raise_gcode(PyModule_GetState(module), &fault, 0);
    PyObject *list = PyList_New(line.command_count);
    for (Py_ssize_t i = 0; list && i < line.command_count; i++) {
        PyObject *c = command(&line, &line.commands[i]);
        if (!c || PyList_SetItem(list, i, c) < 0)
            Py_CLEAR(list);
    }
    return list;
}

struct found { uint64_t line; struct kp_gcode_fault fault; };
struct checked { size_t lines, count; struct found *faults; bool out_of_memory; };

static void note(struct checked *r, uint64_t line, const struct kp_gcode_fault *fault)
{
    if (r->count == FAULTS_MAX)
        return;
    if (!r->faults && !(r->faults = malloc(FAULTS_MAX * sizeof *r->faults)))
        r->out_of_memory = true;
    else
        r->faults[r->count++] = (struct found){ line, *fault };
}

static void check_line(struct kp_str text, uint64_t number, struct checked *r)
{
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    if (kp_gcode_parse(text, &line, &fault) != KP_OK)
        note(r, number, &fault);
    else
        r->lines += line.command_count > 0;
}

/* The whole text is here, so lines are cut where they end and need no copy. Ends are LF, CR or CRLF, as kp_gcode_feed has them. */
static void check(struct kp_str text, struct checked *r)
{
    const char *p = text.p, *end = text.p + text.n;
    for (uint64_t number = 1; p < end; number++) {
        const char *lf = memchr(p, '\n', (size_t)(end - p)), *stop = lf ? lf : end;
        const char *cr = memchr(p, '\r', (size_t)(stop - p));
        if (cr)
            stop = cr;
        check_line((struct kp_str){ p, (size_t)(stop - p) }, number, r);
        p = stop + (cr && cr + 1 == lf ? 2 : 1);
    }
}

PyObject *kpy_check_lines(PyObject *module, PyObject *o)
{
    struct kp_str text;
    struct checked r = { .count = 0 };
    (void)module;
    if (!kpy_str(o, &text))
        return NULL;
    Py_BEGIN_ALLOW_THREADS /* the caller holds o, and a str never changes */
    check(text, &r);
    Py_END_ALLOW_THREADS
    PyObject *list = r.out_of_memory ? PyErr_NoMemory() : PyList_New(0);
    for (size_t i = 0; list && i < r.count; i++) {
        const struct kp_gcode_fault *f = &r.faults[i].fault;
        PyObject *t = Py_BuildValue("(Knss)", (unsigned long long)r.faults[i].line, (Py_ssize_t)f->column, kp_err_name(f->error.code), f->error.message);
        if (!t || PyList_Append(list, t) < 0)
            Py_CLEAR(list);
        Py_XDECREF(t);
    }
    free(r.faults);
    return list ? Py_BuildValue("(nN)", (Py_ssize_t)r.lines, list) : NULL;
}

/* Appends the scripts that one line means. */
static bool scripts(struct kp_modal *g, PyObject *list)
{
    struct kp_gcode_action a;
    bool ok = true;
    while (kp_modal_next(g, &a)) {
        if (!a.text || !ok)
            continue;
        PyObject *s = PyUnicode_FromString(a.text);
        ok = s && PyList_Append(list, s) == 0;
        Py_XDECREF(s);
    }
    return ok;
}

PyObject *kpy_translate(struct kpy *k, struct kp_machine *m, struct kp_str text)
{
    struct kp_gcode_reader reader = { .lines = 0 };
    struct kp_gcode_line line;
    struct kp_gcode_fault fault;
    struct kp_str last = { "\n", 1 }, *in = &text;
    struct kp_modal *g = kp_modal_new(m, NULL);
    PyObject *list = g ? PyList_New(0) : PyErr_NoMemory();
    while (list) {
        enum kp_gcode_event ev = kp_gcode_feed(&reader, in, &line, &fault);
        if (ev == KP_GCODE_MORE && in == &last)
            break;
        if (ev == KP_GCODE_MORE) {
            in = &last;
        } else if (ev == KP_GCODE_BAD || (ev == KP_GCODE_LINE && kp_modal_line(g, &line, &fault) != KP_OK)) {
            kpy_raise_gcode(k, &fault, (size_t)reader.lines);
            Py_CLEAR(list);
        } else if (ev == KP_GCODE_LINE && !scripts(g, list)) {
            Py_CLEAR(list);
        }
    }
    kp_modal_free(g);
    return list;
}
