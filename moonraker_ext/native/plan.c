/* SPDX-License-Identifier: GPL-3.0-or-later */
/* _kp.Plan: a planned command for Python, stepped by what happened. Invariant: after its end it cannot be stepped again. */
#include "py.h"

#include <math.h>
#include <string.h>

struct plan { PyObject_HEAD struct kp_seq *s; bool begun; enum kp_act last; };

PyObject *kpy_plan_new(struct kpy *k, struct kp_machine *m, const struct kp_call *call)
{
    struct kp_faults f = { .count = 0 };
    struct kp_seq *s = NULL;
    if (kp_seq_plan(&s, m, call, false, &f) != KP_OK)
        return kpy_raise_faults(k, &f);
    struct plan *p = (struct plan *)PyType_GenericNew(k->plan, NULL, NULL);
    if (p)
        p->s = s;
    else
        kp_seq_free(s);
    return (PyObject *)p;
}

PyObject *kpy_plan_accepted(PyObject *plan, struct kp_machine *m, int64_t now_ms)
{
    size_t count;
    const struct kp_seq *s = ((struct plan *)plan)->s;
    const struct kp_pin_write *w = kp_seq_writes(s, &count);
    for (size_t i = 0; i < count; i++)
        kp_machine_pin_written(m, w[i].pin, w[i].value, now_ms);
    const struct kp_axis_write *a = kp_seq_axis_writes(s, &count);
    for (size_t i = 0; i < count; i++)
        kp_machine_axis_written(m, a[i].axis, a[i].position, a[i].homed);
    Py_RETURN_NONE;
}

static void on_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    kp_seq_free(((struct plan *)self)->s);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *action(struct plan *p, const struct kp_action *a)
{
    static const char *const kinds[] = { "script", "sample", "settle", "delay", "done", "fail" };
    const char *step = a->kind == KP_ACT_DONE || !a->step ? NULL : a->step;
    p->begun = true, p->last = a->kind;
    if (a->kind == KP_ACT_FAIL)
        return kpy_raise(kpy_of((PyObject *)p), &a->error);
    long long number = a->kind == KP_ACT_SAMPLE ? a->sensor : a->kind == KP_ACT_DELAY ? a->after_ms : -1;
    return Py_BuildValue("(szzL)", kinds[a->kind], a->kind == KP_ACT_SCRIPT ? a->text : NULL, step, number);
}

static PyObject *on_step(PyObject *self, PyObject *args)
{
    static const struct { const char *name; enum kp_event ev; } events[] = {
        { "start", KP_EV_START }, { "ok", KP_EV_OK }, { "sample", KP_EV_SAMPLE }, { "time", KP_EV_TIME },
        { "replaced", KP_EV_REPLACED }, { "error", KP_EV_ERROR } };
    struct plan *p = (struct plan *)self;
    struct kp_action a = { .kind = KP_ACT_DONE };
    struct kp_error e;
    const char *name, *message = "the script failed";
    double value = NAN;
    PyObject *what = NULL;
    if (!PyArg_ParseTuple(args, "s|O:step", &name, &what))
        return NULL;
    for (size_t i = 0; i < sizeof events / sizeof *events; i++) {
        if (strcmp(events[i].name, name) != 0)
            continue;
        if (p->begun ? events[i].ev == KP_EV_START || !kp_seq_answers(p->last, events[i].ev) : events[i].ev != KP_EV_START)
            return PyErr_Format(PyExc_ValueError, "%s does not fit where the plan stands", name);
        if ((events[i].ev == KP_EV_SAMPLE || events[i].ev == KP_EV_TIME) && what && what != Py_None)
            value = PyFloat_AsDouble(what);
        else if (events[i].ev == KP_EV_ERROR && what)
            message = PyUnicode_AsUTF8AndSize(what, NULL);
        if (PyErr_Occurred())
            return NULL;
        kp_error_set(&e, KP_EXECUTION_FAILED, NULL, "%s", message);
        kp_seq_step(p->s, events[i].ev, value, events[i].ev == KP_EV_ERROR ? &e : NULL, &a);
        return action(p, &a);
    }
    return PyErr_Format(PyExc_ValueError, "no event %s", name);
}

static PyObject *on_gcode(PyObject *self, void *unused)
{
    PyObject *list = PyList_New(0);
    const char *line;
    (void)unused;
    for (size_t i = 0; list && (line = kp_seq_gcode(((struct plan *)self)->s, i)); i++) {
        PyObject *s = PyUnicode_FromString(line);
        if (!s || PyList_Append(list, s) < 0)
            Py_CLEAR(list);
        Py_XDECREF(s);
    }
    return list;
}

static PyObject *on_writes(PyObject *self, void *unused)
{
    size_t count;
    const struct kp_pin_write *w = kp_seq_writes(((struct plan *)self)->s, &count);
    PyObject *list = PyList_New(0);
    (void)unused;
    for (size_t i = 0; list && i < count; i++) {
        PyObject *t = Py_BuildValue("(id)", w[i].pin, w[i].value);
        if (!t || PyList_Append(list, t) < 0)
            Py_CLEAR(list);
        Py_XDECREF(t);
    }
    return list;
}

static PyObject *on_result(PyObject *self, void *unused)
{
    const struct kp_result *r = kp_seq_result(((struct plan *)self)->s);
    PyObject *d = PyDict_New();
    (void)unused;
    if (d && kpy_put(d, "completed", PyBool_FromLong(r->completed)) && kpy_put(d, "attempts", PyLong_FromLong(r->attempts))
        && kpy_put(d, "value", kpy_num(r->value))
        && kpy_put(d, "level", r->has_level ? kpy_num(r->level) : Py_NewRef(Py_None)) && kpy_put(d, "vacuum_enabled", PyBool_FromLong(r->vacuum_enabled)))
        return d;
    Py_XDECREF(d);
    return NULL;
}

static PyMethodDef methods[] = {
    { "step", on_step, METH_VARARGS,
      "step(event, what=None) -> (kind, text, step, number)\n\n"
      "event: start, ok, sample (what: its value), time (what: ms since the first script was accepted), replaced,\n"
      "error (what: why). kind: script (run text), sample (read the sensor with that index), settle (until a push shows the writes), "
      "delay (not before number ms after\nthe first script was accepted), done. A plan that fails raises Error; ValueError: the event does not fit." },
    { NULL, NULL, 0, NULL },
};

static PyGetSetDef gets[] = {
    { "gcode", on_gcode, NULL, "All lines of the plan, in order.", NULL },
    { "writes", on_writes, NULL, "(pin index, value) of each pin that the last script writes.", NULL },
    { "result", on_result, NULL, "What came of it so far.", NULL },
    { NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, "A command planned whole; made by Machine.plan." }, { Py_tp_dealloc, on_dealloc },
    { Py_tp_methods, methods }, { Py_tp_getset, gets }, { 0, NULL },
};

PyType_Spec kpy_plan_spec = { "_kp.Plan", sizeof(struct plan), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots };
