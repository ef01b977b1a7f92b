/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Between Python's objects and libkp's values, for the rooms of _kp. Nothing here decides anything. */
#include "py.h"

#include <math.h>
#include <string.h>

bool kpy_put(PyObject *dict, const char *key, PyObject *v)
{
    int rc = v ? PyDict_SetItemString(dict, key, v) : -1;
    Py_XDECREF(v);
    return rc == 0;
}

PyObject *kpy_num(double v)
{
    return isfinite(v) ? PyFloat_FromDouble(v) : Py_NewRef(Py_None);
}

PyObject *kpy_ms(int64_t v)
{
    return v == INT64_MIN ? Py_NewRef(Py_None) : PyLong_FromLongLong(v);
}

bool kpy_str(PyObject *o, struct kp_str *out)
{
    Py_ssize_t n;
    if (!PyUnicode_Check(o)) {
        PyErr_SetString(PyExc_TypeError, "a str is expected");
        return false;
    }
    out->p = PyUnicode_AsUTF8AndSize(o, &n);
    out->n = (size_t)n;
    return out->p != NULL;
}

bool kpy_text(PyObject *o, struct kp_str *out)
{
    if (kpy_str(o, out))
        return true;
    if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        return false;
    PyErr_Clear();
    *out = kp_str_of("\xEF\xBF\xBD"); /* U+FFFD, as decoders have it */
    return true;
}

static PyObject *numbers(const double *v, Py_ssize_t count)
{
    PyObject *list = PyList_New(count);
    for (Py_ssize_t i = 0; list && i < count; i++) {
        PyObject *n = kpy_num(v[i]);
        if (!n || PyList_SetItem(list, i, n) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *field(const void *at, const struct kpy_field *f)
{
    char letter[2] = { 0, 0 };
    switch (f->kind) {
    case KPY_TEXT: return PyUnicode_DecodeUTF8(at, (Py_ssize_t)strlen(at), "replace");
    case KPY_CHAR: letter[0] = *(const char *)at; return PyUnicode_FromString(letter);
    case KPY_NUM: return kpy_num(*(const double *)at);
    case KPY_NUM2: return numbers(at, 2);
    case KPY_NUM3: return numbers(at, 3);
    case KPY_BOOL: return PyBool_FromLong(*(const bool *)at);
    case KPY_INT: return PyLong_FromLong(*(const int *)at);
    case KPY_MS: return kpy_ms(*(const int64_t *)at);
    case KPY_ENUM: return PyUnicode_FromString(f->names[*(const unsigned *)at]);
    }
    Py_UNREACHABLE();
}

PyObject *kpy_dict(const void *from, const struct kpy_field *fields)
{
    PyObject *d = PyDict_New();
    for (; d && fields->name; fields++)
        if (!kpy_put(d, fields->name, field((const char *)from + fields->at, fields)))
            Py_CLEAR(d);
    return d;
}

static bool is_number(PyObject *o)
{
    return PyFloat_Check(o) || (PyLong_Check(o) && !PyBool_Check(o));
}

/* An int beyond every double is none that libkp takes. */
static double number(PyObject *o)
{
    double v = PyFloat_AsDouble(o);
    if (!PyErr_Occurred())
        return v;
    PyErr_Clear();
    return NAN;
}

static bool list_value(PyObject *o, struct kpy_list *list, struct kp_value *out)
{
    Py_ssize_t n = PySequence_Size(o), nums = 0, strs = 0;
    if (n > KPY_LIST_MAX)
        return true;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *e = PySequence_GetItem(o, i); /* the list holds it on */
        if (!e)
            return false;
        if (is_number(e))
            list->nums[nums++] = number(e);
        else if (PyUnicode_Check(e))
            strs += kpy_text(e, &list->strs[strs]);
        Py_DECREF(e);
        if (PyErr_Occurred())
            return false;
    }
    out->count = (size_t)n;
    if (nums == n && n > 0)
        out->kind = KP_NUMS, out->nums = list->nums;
    else if (strs == n)
        out->kind = KP_STRS, out->strs = list->strs;
    return true;
}

bool kpy_value(PyObject *o, struct kpy_list *list, struct kp_value *out)
{
    *out = (struct kp_value){ .kind = KP_OTHER };
    if (o == Py_None) {
        out->kind = KP_NULL;
    } else if (PyBool_Check(o)) {
        out->kind = KP_BOOL, out->flag = o == Py_True;
    } else if (is_number(o)) {
        out->kind = KP_NUM, out->num = number(o);
    } else if (PyUnicode_Check(o)) {
        out->kind = KP_STR;
        return kpy_text(o, &out->str);
    } else if (PyList_Check(o) || PyTuple_Check(o)) {
        return list_value(o, list, out);
    }
    return true;
}
