/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the rooms of the Python extension _kp share: the module's state, its error, and values both ways. Invariant: nothing is static but constants, so that
 * any number of interpreters may hold the module. Limited API of Python 3.10: one file for 3.10 and all later ones. */
#ifndef KPY_H
#define KPY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <kp.h>
#include <stdbool.h>

/* Of one module object. */
struct kpy { PyObject *error; PyTypeObject *config, *machine, *plan, *cache; };

/* The state that made the type of this object. */
struct kpy *kpy_of(PyObject *self);

/* ---- errors.c: each raises _kp.Error and returns NULL */
PyObject *kpy_raise(struct kpy *k, const struct kp_error *e);
PyObject *kpy_raise_faults(struct kpy *k, const struct kp_faults *f);
/* A line of G-code that is wrong; line 0: it stood alone. */
PyObject *kpy_raise_gcode(struct kpy *k, const struct kp_gcode_fault *fault, size_t line);
PyObject *kpy_error_new(PyObject *module);
/* One fault as a dict. */
PyObject *kpy_fault(const struct kp_error *e);

/* ---- values.c */
/* Steals v. False with an exception set. */
bool kpy_put(PyObject *dict, const char *key, PyObject *v);
/* None where it is not finite. */
PyObject *kpy_num(double v);
/* None at INT64_MIN, "never". */
PyObject *kpy_ms(int64_t v);
/* Borrowed bytes of a str. False with TypeError set, or UnicodeEncodeError. */
bool kpy_str(PyObject *o, struct kp_str *out);
/* The same of what a client gave: half a surrogate pair, which JSON can bring, makes it a text that is no name. */
bool kpy_text(PyObject *o, struct kp_str *out);

/* How a struct of libkp becomes a dict. */
enum kpy_kind { KPY_TEXT, KPY_CHAR, KPY_NUM, KPY_NUM2, KPY_NUM3, KPY_BOOL, KPY_INT, KPY_MS, KPY_ENUM };
struct kpy_field { const char *name; enum kpy_kind kind; size_t at; const char *const *names; };
PyObject *kpy_dict(const void *from, const struct kpy_field *fields);

#define KPY_LIST_MAX 32 /* as in the shim: a longer list is a value that libkp does not look into */
struct kpy_list { double nums[KPY_LIST_MAX]; struct kp_str strs[KPY_LIST_MAX]; };
/* The value borrows from o and list. False with an exception set. */
bool kpy_value(PyObject *o, struct kpy_list *list, struct kp_value *out);

/* ---- one room a type; each gives its spec */
extern PyType_Spec kpy_config_spec, kpy_machine_spec, kpy_plan_spec, kpy_cache_spec;

/* config.c: NULL with TypeError set when o is not one. */
const struct kp_config *kpy_config(struct kpy *k, PyObject *o);
/* machine.c: the checked call of (command, args, text); what is wrong is in *f and *raised false, or *raised true with an exception of Python's set. */
enum kp_err kpy_call(struct kp_machine *m, PyObject *args, PyObject *kwargs, struct kp_call *out, struct kp_faults *f, bool *raised);
/* plan.c: Gives a plan. */
PyObject *kpy_plan_new(struct kpy *k, struct kp_machine *m, const struct kp_call *call);
/* What the last script of a plan wrote, told to the machine. */
PyObject *kpy_plan_accepted(PyObject *plan, struct kp_machine *m, int64_t now_ms);
/* gcode.c */
PyObject *kpy_translate(struct kpy *k, struct kp_machine *m, struct kp_str text);
PyObject *kpy_parse(PyObject *module, PyObject *line);
PyObject *kpy_check_lines(PyObject *module, PyObject *text);

#endif
