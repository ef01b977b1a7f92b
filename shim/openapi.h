/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The registry as an OpenAPI 3.1 document. */
#ifndef OPENAPI_H
#define OPENAPI_H

#include <stddef.h>

/* Gives the JSON text, from malloc. NULL when out of memory. */
char *openapi_text(size_t *n);

#endif
