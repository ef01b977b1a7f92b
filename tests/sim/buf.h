/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A growing byte buffer for text that is built and then written out. When memory runs out it stays as it was and says so. */
#ifndef SIM_BUF_H
#define SIM_BUF_H
#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *p; /* owned, not terminated */
    size_t n, cap;
    bool failed; /* an append did not fit into memory */
};

void buf_put(struct buf *b, const void *p, size_t n);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_drop_front(struct buf *b, size_t n);
void buf_fini(struct buf *b);

#endif
