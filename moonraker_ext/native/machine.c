/* SPDX-License-Identifier: GPL-3.0-or-later */
/* _kp.Machine: libkp's model of the machine for Python: fed row by row, asked for its parts, and what may be done with it checked and planned. */
#include "parts.h"

#include <math.h>
#include <string.h>

struct machine { PyObject_HEAD struct kp_machine *m; };

static struct kp_machine *of(PyObject *self)
{
    return ((struct machine *)self)->m;
}

static PyObject *on_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "config", NULL };
    struct kpy *k = PyType_GetModuleState(type);
    PyObject *config = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Machine", names, &config))
        return NULL;
    struct kp_config *plain = config ? NULL : kp_config_new();
    const struct kp_config *c = config ? kpy_config(k, config) : plain;
    struct kp_machine *m = c ? kp_machine_new(c) : NULL;
    kp_config_free(plain);
    if (!m)
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    struct machine *self = (struct machine *)PyType_GenericNew(type, args, kwargs);
    if (self)
        self->m = m;
    else
        kp_machine_free(m);
    return (PyObject *)self;
}

static void on_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    kp_machine_free(of(self));
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- what Klipper is made of ---- */

static PyObject *on_reset(PyObject *self, PyObject *unused)
{
    (void)unused;
    kp_machine_reset(of(self));
    Py_RETURN_NONE;
}

static PyObject *on_command(PyObject *self, PyObject *word)
{
    struct kp_str s;
    if (!kpy_str(word, &s))
        return NULL;
    kp_machine_command(of(self), s);
    Py_RETURN_NONE;
}

static PyObject *on_object(PyObject *self, PyObject *name)
{
    struct kp_str s;
    if (!kpy_str(name, &s))
        return NULL;
    kp_machine_object(of(self), s);
    Py_RETURN_NONE;
}

static PyObject *on_setting(PyObject *self, PyObject *args)
{
    struct kp_str section, option;
    struct kpy_list list;
    struct kp_value v;
    PyObject *value;
    Py_ssize_t n, o;
    if (!PyArg_ParseTuple(args, "s#s#O:setting", &section.p, &n, &option.p, &o, &value) || !kpy_value(value, &list, &v))
        return NULL;
    section.n = (size_t)n, option.n = (size_t)o;
    kp_machine_setting(of(self), section, option, &v);
    Py_RETURN_NONE;
}

static PyObject *on_resolve(PyObject *self, PyObject *unused)
{
    struct kp_faults f = { .count = 0 };
    PyObject *list = PyList_New(0);
    (void)unused;
    kp_machine_resolve(of(self), &f);
    for (size_t i = 0; list && i < f.count; i++) {
        PyObject *d = kpy_fault(&f.item[i]);
        if (!d || PyList_Append(list, d) < 0)
            Py_CLEAR(list);
        Py_XDECREF(d);
    }
    return list;
}

static PyObject *on_watch(PyObject *self, PyObject *unused)
{
    PyObject *list = PyList_New(0);
    const char *name;
    (void)unused;
    for (size_t i = 0; list && (name = kp_machine_watch(of(self), i)); i++) {
        PyObject *s = PyUnicode_FromString(name);
        if (!s || PyList_Append(list, s) < 0)
            Py_CLEAR(list);
        Py_XDECREF(s);
    }
    return list;
}

/* ---- how it stands ---- */

struct feed { struct kp_machine *m; struct kp_str object; int64_t now_ms; char path[256]; };

/* Fields of a status object; one inside another is "a.b". */
static bool feed_fields(struct feed *f, PyObject *fields, size_t used)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    struct kpy_list list;
    struct kp_value v;
    struct kp_str s;
    while (PyDict_Next(fields, &at, &key, &value)) {
        if (!kpy_str(key, &s))
            return false;
        if (used + s.n + 1 >= sizeof f->path)
            continue; /* no field of Klipper's that we know is that deep */
        memcpy(f->path + used, s.p, s.n);
        if (PyDict_Check(value)) {
            f->path[used + s.n] = '.';
            if (!feed_fields(f, value, used + s.n + 1))
                return false;
            continue;
        }
        if (!kpy_value(value, &list, &v))
            return false;
        kp_machine_status(f->m, f->object, (struct kp_str){ f->path, used + s.n }, &v, f->now_ms);
    }
    return true;
}

static PyObject *on_feed(PyObject *self, PyObject *args)
{
    PyObject *status, *object, *fields;
    Py_ssize_t at = 0;
    long long now_ms;
    struct feed f = { .m = of(self) };
    if (!PyArg_ParseTuple(args, "OL:feed", &status, &now_ms))
        return NULL;
    if (!PyDict_Check(status))
        return PyErr_Format(PyExc_TypeError, "a dict is expected");
    f.now_ms = now_ms;
    while (PyDict_Next(status, &at, &object, &fields)) {
        if (!kpy_str(object, &f.object))
            return NULL;
        if (PyDict_Check(fields) && !feed_fields(&f, fields, 0))
            return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *on_pushed(PyObject *self, PyObject *o)
{
    long long now_ms = PyLong_AsLongLong(o);
    if (PyErr_Occurred())
        return NULL;
    kp_machine_pushed(of(self), now_ms);
    Py_RETURN_NONE;
}

static PyObject *on_klippy(PyObject *self, PyObject *args)
{
    const char *name, *message = "";
    enum kp_klippy state = KP_KLIPPY_GONE;
    if (!PyArg_ParseTuple(args, "s|s:klippy", &name, &message))
        return NULL;
    for (enum kp_klippy s = KP_KLIPPY_GONE; s <= KP_KLIPPY_SHUTDOWN; s++)
        if (!strcmp(name, kp_klippy_name(s)))
            state = s;
    kp_machine_klippy(of(self), state, message);
    Py_RETURN_NONE;
}

static PyObject *on_moonraker(PyObject *self, PyObject *connected)
{
    int is = PyObject_IsTrue(connected);
    if (is < 0)
        return NULL;
    kp_machine_moonraker(of(self), is);
    Py_RETURN_NONE;
}

static PyObject *xyz(bool known, const double v[3])
{
    if (!known)
        Py_RETURN_NONE;
    return Py_BuildValue("{s:N,s:N,s:N}", "x", kpy_num(v[0]), "y", kpy_num(v[1]), "z", kpy_num(v[2]));
}

static PyObject *states(unsigned bits)
{
    PyObject *list = PyList_New(0);
    for (unsigned s = 0; list && s < KP_STATE_COUNT; s++) {
        PyObject *name = bits & 1u << s ? PyUnicode_FromString(kp_state_name(s)) : NULL;
        if ((bits & 1u << s) && (!name || PyList_Append(list, name) < 0))
            Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *on_state(PyObject *self, PyObject *unused)
{
    const struct kp_machine *m = of(self);
    double is[3], to[3];
    bool has_is = kp_machine_position(m, is), has_to = kp_machine_commanded(m, to);
    PyObject *d = PyDict_New();
    (void)unused;
    if (d && kpy_put(d, "klippy", PyUnicode_FromString(kp_klippy_name(kp_machine_klippy_state(m))))
        && kpy_put(d, "message", PyUnicode_FromString(kp_machine_klippy_message(m)))
        && kpy_put(d, "moonraker", PyBool_FromLong(kp_machine_moonraker_connected(m)))
        && kpy_put(d, "level", PyUnicode_FromString(kp_level_name(kp_safety_level(m))))
        && kpy_put(d, "latched", PyBool_FromLong(kp_safety_latched(m))) && kpy_put(d, "reason", PyUnicode_FromString(kp_safety_reason(m)))
        && kpy_put(d, "states", states(kp_safety_states(m))) && kpy_put(d, "printing", PyBool_FromLong(kp_machine_printing(m)))
        && kpy_put(d, "pushed_ms", kpy_ms(kp_machine_pushed_ms(m))) && kpy_put(d, "position", xyz(has_is, is)) && kpy_put(d, "commanded", xyz(has_to, to)))
        return d;
    Py_XDECREF(d);
    return NULL;
}

/* ---- parts ---- */

#define LIST(name, part) static PyObject *name(PyObject *self, PyObject *unused) { (void)unused; return part_list(of(self), part); }
LIST(on_axes, PART_AXIS)
LIST(on_pins, PART_PIN)
LIST(on_sensors, PART_SENSOR)
LIST(on_nozzles, PART_NOZZLE)
LIST(on_feeders, PART_FEEDER)
LIST(on_fans, PART_FAN)
LIST(on_heaters, PART_HEATER)

static PyObject *on_limits(PyObject *self, PyObject *unused)
{
    (void)unused;
    return part_limits(of(self));
}

/* Visible ASCII: what may be looked up and told back, as in libkp's own check of names. */
static enum kp_err name_sound(struct kp_str s, enum kp_err code, struct kp_error *e)
{
    bool ok = s.n > 0 && s.n < KP_NAME_MAX;
    for (size_t i = 0; ok && i < s.n; i++)
        ok = s.p[i] >= ' ' && s.p[i] <= '~';
    return ok ? KP_OK : kp_error_set(e, code, NULL, "nothing has a name with such characters or of such a length");
}

static PyObject *on_pin(PyObject *self, PyObject *name)
{
    struct kp_error e;
    struct kp_str s;
    bool inverted;
    int i;
    if (!kpy_text(name, &s))
        return NULL;
    if (name_sound(s, KP_PIN_NOT_FOUND, &e) != KP_OK || kp_machine_find_pin(of(self), s, &i, &inverted, &e) != KP_OK)
        return kpy_raise(kpy_of(self), &e);
    PyObject *d = part_dict(of(self), PART_PIN, (size_t)i);
    if (d && !kpy_put(d, "asked_inverted", PyBool_FromLong(inverted)))
        Py_CLEAR(d);
    return d;
}

static PyObject *on_sensor(PyObject *self, PyObject *name)
{
    struct kp_error e;
    struct kp_str s;
    int i;
    if (!kpy_text(name, &s))
        return NULL;
    if (name_sound(s, KP_SENSOR_NOT_FOUND, &e) != KP_OK || kp_machine_find_sensor(of(self), s, &i, &e) != KP_OK)
        return kpy_raise(kpy_of(self), &e);
    return part_dict(of(self), PART_SENSOR, (size_t)i);
}

static PyObject *on_fan(PyObject *self, PyObject *name)
{
    struct kp_error e;
    struct kp_str s;
    int i;
    if (!kpy_text(name, &s))
        return NULL;
    if (name_sound(s, KP_INVALID_PARAMETER, &e) != KP_OK || kp_machine_find_fan(of(self), s, &i, &e) != KP_OK)
        return kpy_raise(kpy_of(self), &e);
    return part_dict(of(self), PART_FAN, (size_t)i);
}

/* ---- commands ---- */

enum kp_err kpy_call(struct kp_machine *m, PyObject *args, PyObject *kwargs, struct kp_call *out, struct kp_faults *f, bool *raised)
{
    static char *names[] = { "command", "args", "text", NULL };
    struct kp_str name;
    struct kp_arg list[KP_ARGS_MAX + 1];
    struct kpy_list values[KP_ARGS_MAX + 1];
    PyObject *given = NULL, *key, *value;
    Py_ssize_t n, at = 0;
    size_t count = 0;
    int text = 0;
    struct kp_error e;
    *raised = true;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#|Op:check", names, &name.p, &n, &given, &text))
        return KP_INVALID_REQUEST;
    name.n = (size_t)n;
    if (given && !PyDict_Check(given)) {
        PyErr_SetString(PyExc_TypeError, "args must be a dict");
        return KP_INVALID_REQUEST;
    }
    while (given && count <= KP_ARGS_MAX && PyDict_Next(given, &at, &key, &value)) {
        list[count].text = text;
        if (!kpy_text(key, &list[count].name) || !kpy_value(value, &values[count], &list[count].value))
            return KP_INVALID_REQUEST;
        count++;
    }
    *raised = false;
    const struct kp_command *c = kp_command_by_name(name);
    if (c)
        return kp_check(m, c, list, count, out, f);
    kp_error_set(&e, KP_COMMAND_NOT_FOUND, "command", "there is no such command");
    return kp_faults_add(f, &e);
}

static PyObject *on_check(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct kp_faults f = { .count = 0 };
    struct kp_call call;
    bool raised;
    if (kpy_call(of(self), args, kwargs, &call, &f, &raised) != KP_OK)
        return raised ? NULL : kpy_raise_faults(kpy_of(self), &f);
    Py_RETURN_NONE;
}

static PyObject *on_plan(PyObject *self, PyObject *args, PyObject *kwargs)
{
    struct kp_faults f = { .count = 0 };
    struct kp_call call;
    bool raised;
    if (kpy_call(of(self), args, kwargs, &call, &f, &raised) != KP_OK)
        return raised ? NULL : kpy_raise_faults(kpy_of(self), &f);
    if (call.command->strategy != KP_GCODE)
        return PyErr_Format(PyExc_ValueError, "%s has no plan", call.command->name);
    if (kp_safety_gate(of(self), &call, &f) != KP_OK)
        return kpy_raise_faults(kpy_of(self), &f);
    return kpy_plan_new(kpy_of(self), of(self), &call);
}

static PyObject *on_accepted(PyObject *self, PyObject *args)
{
    PyObject *plan;
    long long now_ms;
    if (!PyArg_ParseTuple(args, "OL:accepted", &plan, &now_ms))
        return NULL;
    if (Py_TYPE(plan) != kpy_of(self)->plan)
        return PyErr_Format(PyExc_TypeError, "a Plan is expected");
    return kpy_plan_accepted(plan, of(self), now_ms);
}

static PyObject *on_translate(PyObject *self, PyObject *text)
{
    struct kp_str s;
    return kpy_str(text, &s) ? kpy_translate(kpy_of(self), of(self), s) : NULL;
}

static PyObject *on_latch(PyObject *self, PyObject *reason)
{
    struct kp_str s;
    if (!kpy_str(reason, &s))
        return NULL;
    kp_safety_latch(of(self), true, s.p);
    Py_RETURN_NONE;
}

static PyObject *on_release(PyObject *self, PyObject *unused)
{
    (void)unused;
    kp_safety_release(of(self));
    Py_RETURN_NONE;
}

#define BOTH(f) (PyCFunction)(void (*)(void))(f), METH_VARARGS | METH_KEYWORDS
static PyMethodDef methods[] = {
    { "reset", on_reset, METH_NOARGS, "reset()\n\nForgets what Klipper is made of; last values stay readable, as stale." },
    { "command", on_command, METH_O, "command(word)\n\nA command word that Klipper offers." },
    { "object", on_object, METH_O, "object(name)\n\nAn object that tells a status." },
    { "setting", on_setting, METH_VARARGS, "setting(section, option, value)\n\nA row of Klipper's configuration." },
    { "resolve", on_resolve, METH_NOARGS, "resolve() -> list of faults\n\nAfter the last row: what the configuration names and Klipper lacks." },
    { "watch", on_watch, METH_NOARGS, "watch() -> list of str\n\nObjects to subscribe to." },
    { "feed", on_feed, METH_VARARGS, "feed(status, now_ms)\n\nA status as Klipper tells it: {object: {field: value}}." },
    { "pushed", on_pushed, METH_O, "pushed(now_ms)\n\nA push was fed whole: every subscribed field is as last told." },
    { "klippy", on_klippy, METH_VARARGS, "klippy(state, message=\"\")\n\nKlipper's state: ready, startup, error, shutdown; anything else is disconnected." },
    { "moonraker", on_moonraker, METH_O, "moonraker(connected)" },
    { "state", on_state, METH_NOARGS, "state() -> dict\n\nKlipper's state, safety level and latch, what hinders, positions, time of the last push." },
    { "axes", on_axes, METH_NOARGS, "axes() -> list of dict" },
    { "pins", on_pins, METH_NOARGS, "pins() -> list of dict" },
    { "sensors", on_sensors, METH_NOARGS, "sensors() -> list of dict" },
    { "nozzles", on_nozzles, METH_NOARGS, "nozzles() -> list of dict\n\nParts are indices into the other lists, -1 for none." },
    { "feeders", on_feeders, METH_NOARGS, "feeders() -> list of dict" },
    { "fans", on_fans, METH_NOARGS, "fans() -> list of dict" },
    { "heaters", on_heaters, METH_NOARGS, "heaters() -> list of dict" },
    { "limits", on_limits, METH_NOARGS, "limits() -> dict\n\nNone: no limit." },
    { "pin", on_pin, METH_O,
      "pin(name) -> dict\n\nBy alias, section, short name or board pin; \"!\" before it is told in asked_inverted. Error PIN_NOT_FOUND." },
    { "sensor", on_sensor, METH_O, "sensor(name) -> dict. Error SENSOR_NOT_FOUND." },
    { "fan", on_fan, METH_O, "fan(name) -> dict. Error INVALID_PARAMETER." },
    { "check", BOTH(on_check), 
      "check(command, args={}, text=False)\n\nArguments against the registry; Error lists every fault. text: values come from a query string." },
    { "plan", BOTH(on_plan), "plan(command, args={}, text=False) -> Plan\n\nChecks and plans a command, limits and interlocks too; Error lists every fault." },
    { "accepted", on_accepted, METH_VARARGS, 
      "accepted(plan, now_ms)\n\nKlipper took the plan's last script: what it wrote is dirty until a push shows it." },
    { "translate", on_translate, METH_O, "translate(text) -> list of str\n\nScripts for Klipper that lines of G-code mean. Error has line and column." },
    { "latch", on_latch, METH_O, "latch(reason)\n\nAn emergency stop was asked for." },
    { "release", on_release, METH_NOARGS, "release()\n\nThe stop's cause is gone." },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, "Machine(config=None)\n\nThe machine as klipperplace.cfg and Klipper tell it." },
    { Py_tp_new, on_new }, { Py_tp_dealloc, on_dealloc }, { Py_tp_methods, methods }, { 0, NULL },
};

PyType_Spec kpy_machine_spec = { "_kp.Machine", sizeof(struct machine), 0, Py_TPFLAGS_DEFAULT, slots };
