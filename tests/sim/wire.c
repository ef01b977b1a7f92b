/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Delay and jitter of the line, for main.c. What goes in later never comes out earlier. */
#include "wire.h"

#include <string.h>

void wire_init(struct wire *w, int64_t delay_ns, int64_t jitter_ns, uint64_t seed)
{
    *w = (struct wire){.delay_ns = delay_ns, .jitter_ns = jitter_ns, .seed = seed ? seed : 1};
}

void wire_fini(struct wire *w)
{
    buf_fini(&w->bytes);
    buf_fini(&w->marks);
}

static uint64_t draw(struct wire *w)
{
    w->seed ^= w->seed << 13, w->seed ^= w->seed >> 7, w->seed ^= w->seed << 17; /* xorshift64 */
    return w->seed;
}

static struct wire_mark mark_at(const struct wire *w, size_t i)
{
    struct wire_mark m;

    memcpy(&m, w->marks.p + i * sizeof m, sizeof m);
    return m;
}

bool wire_put(struct wire *w, const uint8_t *p, size_t n, int64_t now_ns)
{
    size_t count = w->marks.n / sizeof(struct wire_mark);
    struct wire_mark m = {.due_ns = now_ns + w->delay_ns, .n = n};

    if (!n) return true;
    if (w->jitter_ns) m.due_ns += (int64_t)(draw(w) % (uint64_t)w->jitter_ns);
    if (count && mark_at(w, count - 1).due_ns > m.due_ns) m.due_ns = mark_at(w, count - 1).due_ns;
    buf_put(&w->bytes, p, n);
    if (!w->bytes.failed) buf_put(&w->marks, &m, sizeof m);
    return !w->bytes.failed && !w->marks.failed;
}

size_t wire_ready(const struct wire *w, int64_t now_ns)
{
    size_t n = 0;

    for (size_t i = 0; i < w->marks.n / sizeof(struct wire_mark) && mark_at(w, i).due_ns <= now_ns; i++) n += mark_at(w, i).n;
    return n;
}

void wire_take(struct wire *w, size_t n)
{
    buf_drop_front(&w->bytes, n);
    while (n && w->marks.n) {
        struct wire_mark m = mark_at(w, 0);

        if (m.n > n) {
            m.n -= n;
            memcpy(w->marks.p, &m, sizeof m);
            return;
        }
        n -= m.n;
        buf_drop_front(&w->marks, sizeof m);
    }
}

int64_t wire_wait(const struct wire *w, int64_t now_ns)
{
    int64_t due;

    if (!w->marks.n) return -1;
    due = mark_at(w, 0).due_ns;
    return due > now_ns ? due - now_ns : 0;
}
