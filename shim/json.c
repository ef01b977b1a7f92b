/* SPDX-License-Identifier: GPL-3.0-or-later */
/* jansson <-> libkp values. Nothing here decides anything. */
#include "json.h"

#include <math.h>
#include <string.h>

static struct kp_str text_of(const json_t *j)
{
    return (struct kp_str){ json_string_value(j), json_string_length(j) };
}

static void list_value(const json_t *j, struct json_list *list, struct kp_value *v)
{
    size_t n = json_array_size(j), nums = 0, strs = 0;
    v->kind = KP_OTHER;
    if (n > JSON_LIST_MAX)
        return;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(j, i);
        if (json_is_number(e))
            list->nums[nums++] = json_number_value(e);
        else if (json_is_string(e))
            list->strs[strs++] = text_of(e);
    }
    if (nums == n && n > 0)
        v->kind = KP_NUMS, v->nums = list->nums, v->count = n;
    else if (strs == n)
        v->kind = KP_STRS, v->strs = list->strs, v->count = n;
}

struct kp_value json_value(const json_t *j, struct json_list *list)
{
    struct kp_value v = { .kind = KP_OTHER };
    switch (j ? json_typeof(j) : JSON_NULL) {
    case JSON_NULL: v.kind = KP_NULL; break;
    case JSON_TRUE:
    case JSON_FALSE: v.kind = KP_BOOL, v.flag = json_is_true(j); break;
    case JSON_INTEGER:
    case JSON_REAL: v.kind = KP_NUM, v.num = json_number_value(j); break;
    case JSON_STRING: v.kind = KP_STR, v.str = text_of(j); break;
    case JSON_ARRAY: list_value(j, list, &v); break;
    case JSON_OBJECT: break;
    }
    return v;
}

struct kp_value json_setting(const json_t *j, struct json_list *list)
{
    struct kp_value v = json_value(j, list);
    size_t i, k, n = 0;
    json_t *inner, *e;
    if (v.kind != KP_OTHER || !json_is_array(j))
        return v;
    json_array_foreach(j, i, inner) {
        if (!json_is_array(inner))
            return v;
        json_array_foreach(inner, k, e) {
            if (n == JSON_LIST_MAX || !json_is_string(e))
                return v;
            list->strs[n++] = text_of(e);
        }
    }
    v.kind = KP_STRS, v.strs = list->strs, v.count = n;
    return v;
}

static void each_below(json_t *object, char *path, size_t used, size_t cap, json_leaf_fn *fn, void *user)
{
    const char *key;
    json_t *j;
    json_object_foreach(object, key, j) {
        size_t n = strlen(key);
        if (used + n + 1 >= cap)
            continue; /* no field of Klipper's that we know is that deep */
        memcpy(path + used, key, n);
        if (json_object_size(j) > 0) {
            path[used + n] = '.';
            each_below(j, path, used + n + 1, cap, fn, user);
            continue;
        }
        struct json_list list;
        struct kp_value v = json_value(j, &list);
        fn(user, (struct kp_str){ path, used + n }, &v);
    }
}

void json_each(json_t *object, json_leaf_fn *fn, void *user)
{
    char path[256];
    if (json_is_object(object))
        each_below(object, path, 0, sizeof path, fn, user);
}

json_t *json_finite(double v)
{
    return isfinite(v) ? json_real(round(v * 1e6) / 1e6 + 0.0) : json_null(); /* what Klipper keeps; + 0.0 makes -0 a 0 */
}

json_t *json_xyz(const double xyz[3])
{
    return json_pack("{s:o,s:o,s:o}", "x", json_finite(xyz[0]), "y", json_finite(xyz[1]), "z", json_finite(xyz[2]));
}
