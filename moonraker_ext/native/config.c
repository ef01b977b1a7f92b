/* SPDX-License-Identifier: GPL-3.0-or-later */
/* _kp.Config: klipperplace.cfg for Python, read once. Invariant: an object exists only of a text without faults. */
#include "py.h"

#include <math.h>
#include <string.h>

struct config { PyObject_HEAD struct kp_config *c; };

const struct kp_config *kpy_config(struct kpy *k, PyObject *o)
{
    if (Py_TYPE(o) == k->config)
        return ((struct config *)o)->c;
    PyErr_SetString(PyExc_TypeError, "a Config is expected");
    return NULL;
}

static PyObject *on_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "text", "file", NULL };
    const char *text = "", *file = "klipperplace.cfg";
    Py_ssize_t n = 0;
    struct kp_faults f = { .count = 0 };
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|s#s:Config", names, &text, &n, &file))
        return NULL;
    struct kp_config *c = kp_config_new();
    if (!c)
        return PyErr_NoMemory();
    if (kp_config_parse(c, file, (struct kp_str){ text, (size_t)n }, &f) != KP_OK) {
        kp_config_free(c);
        return kpy_raise_faults(PyType_GetModuleState(type), &f);
    }
    struct config *self = (struct config *)PyType_GenericNew(type, args, kwargs);
    if (self)
        self->c = c;
    else
        kp_config_free(c);
    return (PyObject *)self;
}

static void on_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    kp_config_free(((struct config *)self)->c);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* The row of ("nozzle N1", "safe_z") is that of ("nozzle *", "safe_z"). */
static const struct kp_option *option_row(const char *section, const char *name)
{
    size_t count;
    const struct kp_option *rows = kp_options(&count);
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(rows[i].section);
        bool named = n > 1 && rows[i].section[n - 1] == '*';
        bool same = named ? !strncmp(rows[i].section, section, n - 1) : !strcmp(rows[i].section, section);
        if (same && !strcmp(rows[i].name, name))
            return &rows[i];
    }
    return NULL;
}

static PyObject *items(const struct kp_config *c, const char *section, const char *name, bool map)
{
    PyObject *all = map ? PyDict_New() : PyList_New(0);
    const char *item, *text = NULL;
    for (size_t i = 0; all && (item = kp_config_item(c, section, name, i, &text)); i++) {
        PyObject *s = PyUnicode_FromString(map ? text : item);
        if (!s || (map ? PyDict_SetItemString(all, item, s) : PyList_Append(all, s)) < 0)
            Py_CLEAR(all);
        Py_XDECREF(s);
    }
    return all;
}

static PyObject *on_get(PyObject *self, PyObject *args)
{
    const struct kp_config *c = ((struct config *)self)->c;
    const char *section, *name, *text;
    double num;
    if (!PyArg_ParseTuple(args, "ss:get", &section, &name))
        return NULL;
    const struct kp_option *row = option_row(section, name);
    if (!row)
        return PyErr_Format(PyExc_KeyError, "[%s] %s", section, name);
    switch (row->type) {
    case KP_T_NUM: return kpy_num(kp_config_num(c, section, name));
    case KP_T_INT:
        num = kp_config_num(c, section, name);
        return isnan(num) ? Py_NewRef(Py_None) : PyLong_FromDouble(num);
    case KP_T_BOOL: return PyBool_FromLong(kp_config_bool(c, section, name));
    case KP_T_LIST: return items(c, section, name, false);
    case KP_T_MAP: return items(c, section, name, true);
    default:
        text = kp_config_str(c, section, name);
        return text ? PyUnicode_FromString(text) : Py_NewRef(Py_None);
    }
}

static PyObject *on_sections(PyObject *self, PyObject *kind)
{
    struct kp_str s;
    const char *name;
    if (!kpy_str(kind, &s))
        return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list && (name = kp_config_section(((struct config *)self)->c, s.p, i)); i++) {
        PyObject *o = PyUnicode_FromString(name);
        if (!o || PyList_Append(list, o) < 0)
            Py_CLEAR(list);
        Py_XDECREF(o);
    }
    return list;
}

static PyMethodDef methods[] = {
    { "get", on_get, METH_VARARGS, "get(section, option)\n\nIts value or default, None where there is neither. KeyError: no such option." },
    { "sections", on_sections, METH_O, "sections(kind) -> list of str\n\nNames of [nozzle NAME], [feeder NAME], ... in the order of the file." },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, "Config(text=\"\", file=\"klipperplace.cfg\")\n\nA whole klipperplace.cfg. Error names file and line of every fault." },
    { Py_tp_new, on_new }, { Py_tp_dealloc, on_dealloc }, { Py_tp_methods, methods }, { 0, NULL },
};

PyType_Spec kpy_config_spec = { "_kp.Config", sizeof(struct config), 0, Py_TPFLAGS_DEFAULT, slots };
