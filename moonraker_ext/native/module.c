/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The module _kp: what it offers beside its types, and how it comes and goes. Invariant: all that it holds hangs on the module object. */
#include "py.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static PyObject *on_version(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    return PyUnicode_FromString(kp_version());
}

static const char *type_name(enum kp_ptype type)
{
    switch (type) {
    case KP_P_NUM: return "number";
    case KP_P_INT: return "integer";
    case KP_P_BOOL: return "boolean";
    case KP_P_AXES: return "axes";
    case KP_P_TEXT: return "text";
    default: return "name";
    }
}

static PyObject *parameters(const struct kp_param *p)
{
    PyObject *list = PyList_New(0);
    for (; list && p->name; p++) {
        PyObject *d = PyDict_New();
        bool ok = d && kpy_put(d, "name", PyUnicode_FromString(p->name)) && kpy_put(d, "type", PyUnicode_FromString(type_name(p->type)))
                  && kpy_put(d, "unit", PyUnicode_FromString(p->unit)) && kpy_put(d, "required", PyBool_FromLong(p->flags & KP_REQUIRED))
                  && kpy_put(d, "min", kpy_num(p->min)) && kpy_put(d, "max", kpy_num(p->max)) && kpy_put(d, "default", kpy_num(p->def))
                  && kpy_put(d, "doc", PyUnicode_FromString(p->doc)) && PyList_Append(list, d) == 0;
        Py_XDECREF(d);
        if (!ok)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *on_commands(PyObject *self, PyObject *unused)
{
    size_t count;
    const struct kp_command *c = kp_commands(&count);
    PyObject *all = PyDict_New();
    (void)self, (void)unused;
    for (size_t i = 0; all && i < count; i++) {
        PyObject *d = PyDict_New();
        const char *method = c[i].method == KP_GET ? "GET" : c[i].method == KP_POST ? "POST" : c[i].method == KP_DELETE ? "DELETE" : "PUT";
        bool ok = d && kpy_put(d, "method", PyUnicode_FromString(method)) && kpy_put(d, "path", PyUnicode_FromString(c[i].path))
                  && kpy_put(d, "moves", PyBool_FromLong(c[i].flags & KP_MOVES)) && kpy_put(d, "timeout_s", kpy_num(c[i].timeout_s))
                  && kpy_put(d, "params", parameters(c[i].params)) && kpy_put(d, "doc", PyUnicode_FromString(c[i].doc))
                  && PyDict_SetItemString(all, c[i].name, d) == 0;
        Py_XDECREF(d);
        if (!ok)
            Py_CLEAR(all);
    }
    return all;
}

static PyMethodDef functions[] = {
    { "version", on_version, METH_NOARGS, "version() -> str\n\nVersion of libkp." },
    { "commands", on_commands, METH_NOARGS, "commands() -> dict\n\nThe registry: command name -> method, path, parameters, documentation." },
    { "parse", kpy_parse, METH_O,
      "parse(line) -> list of (name, parameters)\n\n"
      "Takes one line of G-code apart. Parameters are a dict: letter or key -> float, or str where it is no number,\n"
      "or None where nothing follows." },
    { "check_lines", kpy_check_lines, METH_O,
      "check_lines(text) -> (count, faults)\n\nReads a whole text of G-code lines: how many lines have commands, and a list of (line, column, code, message)\n"
      "of those that are wrong, at most 1000. Other threads run meanwhile." },
    { NULL, NULL, 0, NULL },
};

struct kpy *kpy_of(PyObject *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

static PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (type && PyModule_AddType(module, type) < 0)
        Py_CLEAR(type);
    return type;
}

static int on_exec(PyObject *module)
{
    struct kpy *k = PyModule_GetState(module);
    if (!(k->error = kpy_error_new(module)) || PyModule_AddObjectRef(module, "Error", k->error) < 0)
        return -1;
    k->config = add_type(module, &kpy_config_spec);
    k->machine = k->config ? add_type(module, &kpy_machine_spec) : NULL;
    k->plan = k->machine ? add_type(module, &kpy_plan_spec) : NULL;
    k->cache = k->plan ? add_type(module, &kpy_cache_spec) : NULL;
    return k->cache ? 0 : -1;
}

static int on_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct kpy *k = PyModule_GetState(module);
    Py_VISIT(k->error);
    Py_VISIT(k->config);
    Py_VISIT(k->machine);
    Py_VISIT(k->plan);
    Py_VISIT(k->cache);
    return 0;
}

static int on_clear(PyObject *module)
{
    struct kpy *k = PyModule_GetState(module);
    Py_CLEAR(k->error);
    Py_CLEAR(k->config);
    Py_CLEAR(k->machine);
    Py_CLEAR(k->plan);
    Py_CLEAR(k->cache);
    return 0;
}

static void on_free(void *module)
{
    on_clear(module);
}

/* Python 3.12 asks whether a module may live beside others of its kind, each under a lock of its own; older ones refuse the question. The names of slot and
 * value are not in the limited API of 3.10. */
#define MULTIPLE_INTERPRETERS 3
#define EACH_ITS_OWN_LOCK ((void *)2)

static PyModuleDef_Slot old_slots[] = { { Py_mod_exec, on_exec }, { 0, NULL } };
static PyModuleDef_Slot new_slots[] = { { Py_mod_exec, on_exec }, { MULTIPLE_INTERPRETERS, EACH_ITS_OWN_LOCK }, { 0, NULL } };

#define DEF(slots) { PyModuleDef_HEAD_INIT, "_kp", module_doc, sizeof(struct kpy), functions, slots, on_traverse, on_clear, on_free }
static const char module_doc[] =
    "Decisions of KlipperPlace for Python: G-code lines, the registry and its checks, the machine as Klipper tells it, plans, the cache.\n"
    "Nothing here does any I/O; times are milliseconds of a clock that the caller chooses.";
/* Python writes its own head of these; nothing of ours ever does. */
static PyModuleDef old_def = DEF(old_slots), new_def = DEF(new_slots);

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__kp(void);

PyMODINIT_FUNC PyInit__kp(void)
{
    const char *version = Py_GetVersion(); /* "3.12.1 (main, ..." */
    bool old = !strncmp(version, "3.10.", 5) || !strncmp(version, "3.11.", 5);
    return PyModuleDef_Init(old ? &old_def : &new_def);
}
