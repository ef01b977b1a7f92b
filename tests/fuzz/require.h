/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the fuzz targets hold libkp to: a broken promise ends the run with its place. Beside assert, so that it also counts in a release build. */
#ifndef REQUIRE_H
#define REQUIRE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define require(ok) do { if (!(ok)) { fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #ok); abort(); } } while (0)

/* Nothing but what libkp writes: words, numbers and names, one command a line. */
static inline void require_script(const char *text, size_t max)
{
    size_t size = strlen(text);
    require(size > 0 && size < max);
    for (size_t i = 0; i < size; i++)
        require((text[i] >= 'A' && text[i] <= 'Z') || (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9') || strchr(" \n._=-", text[i]));
    for (const char *l = text; l; l = strchr(l, '\n') ? strchr(l, '\n') + 1 : NULL)
        require((*l >= 'A' && *l <= 'Z') || *l == '_');
}

#endif
