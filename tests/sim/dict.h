/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The data dictionary that `identify` hands out: JSON inside zlib stored blocks. */
#ifndef SIM_DICT_H
#define SIM_DICT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

/* Builds it into out (the caller's, freed with buf_fini). False when memory is out. */
bool dict_build(struct buf *out);

#endif
