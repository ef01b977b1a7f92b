/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The arguments of a REST request, from body, query and path, for kp_check. */
#ifndef ARGS_H
#define ARGS_H

#include <jansson.h>
#include <kp.h>
#include <stdbool.h>
#include <stddef.h>

#include "json.h"

/* What arg borrows from must live as long. */
struct args { struct kp_arg arg[KP_ARGS_MAX]; struct json_list list[KP_ARGS_MAX]; size_t n; bool many; };

void args_init(struct args *g);
/* The members of a body. Gives the object that they borrow from; NULL with a message in *wrong when it is none. An empty body is an empty object. */
json_t *args_body(struct args *g, const char *body, size_t n, const char **wrong);
/* One of the query; an http_query_fn with the args as user. */
bool args_query(void *user, const char *name, const char *value);
/* What stands for the {name} of the row's path. */
void args_path(struct args *g, const struct kp_command *c, const char *path);

#endif
