/* SPDX-License-Identifier: GPL-3.0-or-later */
/* _kp.Error: libkp's faults as Python's exception. Invariant: it always has every attribute that its documentation names. */
#include "py.h"

static const char error_doc[] =
    "What libkp refuses. Attributes: code (\"PIN_NOT_FOUND\"), status (as in HTTP), field, message, got, min, max (None where they say nothing),\n"
    "errors (every fault found, each a dict of these), line and column (of G-code, else None).";

PyObject *kpy_error_new(PyObject *module)
{
    (void)module;
    return PyErr_NewExceptionWithDoc("_kp.Error", error_doc, NULL, NULL);
}

static PyObject *text(const char *s)
{
    PyObject *bytes = PyBytes_FromString(s);
    PyObject *o = bytes ? PyUnicode_FromEncodedObject(bytes, "utf-8", "replace") : NULL;
    Py_XDECREF(bytes);
    return o;
}

PyObject *kpy_fault(const struct kp_error *e)
{
    PyObject *d = PyDict_New();
    if (d && kpy_put(d, "code", PyUnicode_FromString(kp_err_name(e->code))) && kpy_put(d, "status", PyLong_FromLong(kp_err_status(e->code)))
        && kpy_put(d, "field", e->field[0] ? text(e->field) : Py_NewRef(Py_None)) && kpy_put(d, "message", text(e->message))
        && kpy_put(d, "got", kpy_num(e->got)) && kpy_put(d, "min", kpy_num(e->min)) && kpy_put(d, "max", kpy_num(e->max)))
        return d;
    Py_XDECREF(d);
    return NULL;
}

/* Steals errors and place values. */
static PyObject *raise(struct kpy *k, const struct kp_error *e, PyObject *errors, PyObject *line, PyObject *column)
{
    PyObject *first = kpy_fault(e), *message = text(e->message), *ex = message ? PyObject_CallFunctionObjArgs(k->error, message, NULL) : NULL;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    bool ok = first && ex && errors && line && column;
    while (ok && PyDict_Next(first, &at, &key, &value))
        ok = PyObject_SetAttr(ex, key, value) == 0;
    ok = ok && PyObject_SetAttrString(ex, "errors", errors) == 0 && PyObject_SetAttrString(ex, "line", line) == 0
         && PyObject_SetAttrString(ex, "column", column) == 0;
    if (ok)
        PyErr_SetObject(k->error, ex);
    Py_XDECREF(first);
    Py_XDECREF(message);
    Py_XDECREF(ex);
    Py_XDECREF(errors);
    Py_XDECREF(line);
    Py_XDECREF(column);
    return NULL;
}

/* Steals the members' only reference each; a list of `count` faults. */
static PyObject *fault_list(const struct kp_error *e, size_t count)
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && i < count; i++) {
        PyObject *d = kpy_fault(&e[i]);
        if (!d || PyList_Append(list, d) < 0)
            Py_CLEAR(list);
        Py_XDECREF(d);
    }
    return list;
}

PyObject *kpy_raise(struct kpy *k, const struct kp_error *e)
{
    return raise(k, e, fault_list(e, 1), Py_NewRef(Py_None), Py_NewRef(Py_None));
}

PyObject *kpy_raise_faults(struct kpy *k, const struct kp_faults *f)
{
    return raise(k, &f->item[0], fault_list(f->item, f->count), Py_NewRef(Py_None), Py_NewRef(Py_None));
}

PyObject *kpy_raise_gcode(struct kpy *k, const struct kp_gcode_fault *fault, size_t line)
{
    return raise(k, &fault->error, fault_list(&fault->error, 1), line ? PyLong_FromSize_t(line) : Py_NewRef(Py_None), PyLong_FromSize_t(fault->column));
}
