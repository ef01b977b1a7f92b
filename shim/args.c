/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Takes the arguments of a REST request together, for rest. Judges nothing: that is kp_check's. */
#include "args.h"

void args_init(struct args *g)
{
    g->n = 0, g->many = false;
}

static void add(struct args *g, const struct kp_arg *a)
{
    if (g->n == KP_ARGS_MAX)
        g->many = true;
    else
        g->arg[g->n++] = *a;
}

json_t *args_body(struct args *g, const char *body, size_t n, const char **wrong)
{
    const char *key;
    json_t *v;
    if (!n)
        return json_object();
    json_t *j = json_loadb(body, n, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(j)) {
        *wrong = j ? "the body is not a JSON object" : "the body is not valid JSON (numbers must be finite, names must not repeat)";
        json_decref(j);
        return NULL;
    }
    json_object_foreach(j, key, v)
        add(g, &(struct kp_arg){ kp_str_of(key), json_value(v, &g->list[g->n < KP_ARGS_MAX ? g->n : 0]), false });
    return j;
}

bool args_query(void *user, const char *name, const char *value)
{
    add(user, &(struct kp_arg){ kp_str_of(name), { .kind = KP_STR, .str = kp_str_of(value ? value : "") }, true });
    return true;
}

void args_path(struct args *g, const struct kp_command *c, const char *path)
{
    struct kp_arg a;
    if (kp_command_path_arg(c, kp_str_of(path), &a))
        add(g, &a);
}
