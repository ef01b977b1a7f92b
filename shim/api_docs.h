/* SPDX-License-Identifier: GPL-3.0-or-later */
/* docs/api.md, printed from the registry. */
#ifndef API_DOCS_H
#define API_DOCS_H

#include <stdbool.h>
#include <stdio.h>

/* False when it could not be written whole. */
bool api_docs(FILE *f);

#endif
