/* SPDX-License-Identifier: GPL-3.0-or-later */
/* _kp.Cache: libkp's cache for Python. Time is the caller's. */
#include "py.h"

struct cache { PyObject_HEAD struct kp_cache *c; };

static struct kp_cache *of(PyObject *self)
{
    return ((struct cache *)self)->c;
}

static PyObject *on_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "entries", "bytes", NULL };
    struct kp_cache_options o;
    struct kp_error e;
    Py_ssize_t entries = 0, bytes = 0;
    struct kp_cache *c = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|nn:Cache", names, &entries, &bytes))
        return NULL;
    kp_cache_defaults(&o);
    if (entries)
        o.entries = entries > 0 ? (size_t)entries : SIZE_MAX;
    if (bytes)
        o.bytes = bytes > 0 ? (size_t)bytes : 0;
    if (kp_cache_new(&c, &o, &e) != KP_OK)
        return kpy_raise(PyType_GetModuleState(type), &e);
    struct cache *self = (struct cache *)PyType_GenericNew(type, args, kwargs);
    if (self)
        self->c = c;
    else
        kp_cache_free(c);
    return (PyObject *)self;
}

static void on_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    kp_cache_free(of(self));
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *on_set(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "category", "key", "value", "now_ms", "ttl_ms", "pushed", NULL };
    struct kp_cache_row row = { .key.p = NULL };
    const char *category;
    Py_ssize_t key_n, value_n;
    long long now_ms, ttl_ms = 0;
    int pushed = 0;
    struct kp_error e;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss#y#L|Lp:set", names, &category, &row.key.p, &key_n, &row.value.p, &value_n, &now_ms, &ttl_ms, &pushed))
        return NULL;
    if (!kp_category_by_name(kp_str_of(category), &row.category))
        return PyErr_Format(PyExc_ValueError, "no category %s", category);
    row.key.n = (size_t)key_n, row.value.n = (size_t)value_n, row.ttl_ms = ttl_ms, row.pushed = pushed;
    if (kp_cache_set(of(self), &row, now_ms, &e) != KP_OK)
        return kpy_raise(kpy_of(self), &e);
    Py_RETURN_NONE;
}

static PyObject *on_get(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "key", "now_ms", "stale", NULL };
    struct kp_str key;
    struct kp_cached found;
    Py_ssize_t n;
    long long now_ms;
    int stale = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#L|p:get", names, &key.p, &n, &now_ms, &stale))
        return NULL;
    key.n = (size_t)n;
    enum kp_cache_found what = kp_cache_get(of(self), key, stale, now_ms, &found);
    if (what == KP_CACHE_NONE)
        Py_RETURN_NONE;
    return Py_BuildValue("(y#OL)", found.value.p, (Py_ssize_t)found.value.n, what == KP_CACHE_FRESH ? Py_True : Py_False, (long long)found.age_ms);
}

static PyObject *on_pushed(PyObject *self, PyObject *o)
{
    long long now_ms = PyLong_AsLongLong(o);
    if (PyErr_Occurred())
        return NULL;
    kp_cache_pushed(of(self), now_ms);
    Py_RETURN_NONE;
}

static PyObject *on_invalidate(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = { "pattern", "keep", NULL };
    struct kp_str pattern;
    Py_ssize_t n;
    int keep = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s#|p:invalidate", names, &pattern.p, &n, &keep))
        return NULL;
    pattern.n = (size_t)n;
    return PyLong_FromSize_t(kp_cache_invalidate_pattern(of(self), pattern, keep ? KP_CACHE_EXPIRE : KP_CACHE_DROP));
}

static PyObject *on_stats(PyObject *self, PyObject *unused)
{
    struct kp_cache_stats s = kp_cache_stats(of(self));
    (void)unused;
    return Py_BuildValue("{s:K,s:K,s:K,s:K,s:K,s:K,s:n,s:n}", "hits", (unsigned long long)s.hits, "stale", (unsigned long long)s.stale, "misses",
                         (unsigned long long)s.misses, "sets", (unsigned long long)s.sets, "evictions", (unsigned long long)s.evictions, "cleaned",
                         (unsigned long long)s.cleaned, "entries", (Py_ssize_t)s.entries, "bytes", (Py_ssize_t)s.bytes);
}

#define BOTH(f) (PyCFunction)(void (*)(void))(f), METH_VARARGS | METH_KEYWORDS
static PyMethodDef methods[] = {
    { "set", BOTH(on_set), "set(category, key, value, now_ms, ttl_ms=0, pushed=False)\n\nKeeps bytes under a key. ttl_ms 0: the category's." },
    { "get", BOTH(on_get), "get(key, now_ms, stale=False) -> (value, fresh, age_ms) or None" },
    { "pushed", on_pushed, METH_O, "pushed(now_ms)\n\nA push came: what was set with pushed=True holds." },
    { "invalidate", BOTH(on_invalidate), "invalidate(pattern, keep=False) -> int\n\nForgets keys ('*' any bytes, '?' one), or keeps them as stale." },
    { "stats", on_stats, METH_NOARGS, "stats() -> dict" },
    { NULL, NULL, 0, NULL },
};

static PyType_Slot slots[] = {
    { Py_tp_doc, "Cache(entries=10000, bytes=8388608)\n\nValues by key, fresh for a time by category." },
    { Py_tp_new, on_new }, { Py_tp_dealloc, on_dealloc }, { Py_tp_methods, methods }, { 0, NULL },
};

PyType_Spec kpy_cache_spec = { "_kp.Cache", sizeof(struct cache), 0, Py_TPFLAGS_DEFAULT, slots };
