/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Klipper's message blocks, for mcu.c. A frame with the wrong sequence number is never handed on; the answer names the right one. */
#include "proto.h"

#include <string.h>

enum { SYNC = 0x7e, SEQ_MARK = 0x10, SEQ_MASK = 0x0f };

static uint16_t crc16(const uint8_t *p, size_t n)
{
    unsigned crc = 0xffff;

    while (n--) {
        unsigned d = (*p++ ^ crc) & 0xff;
        d = (d ^ (d << 4)) & 0xff;
        crc = (crc >> 8) ^ (d << 8) ^ (d << 3) ^ (d >> 4);
    }
    return (uint16_t)crc;
}

void proto_reset(struct proto *p)
{
    p->in_n = 0;
    p->need_sync = p->nak_sent = false;
    p->sequence = SEQ_MARK;
}

void proto_send(struct proto *p, const struct msg *m)
{
    uint8_t f[FRAME_MAX];
    size_t n = m->n + FRAME_MIN;
    uint16_t crc;

    if (p->out.n + n > PROTO_OUT_MAX) return; /* nobody reads: a response may be lost, as on a wire */
    f[0] = (uint8_t)n;
    f[1] = p->sequence;
    memcpy(f + 2, m->b, m->n);
    crc = crc16(f, n - 3);
    f[n - 3] = (uint8_t)(crc >> 8);
    f[n - 2] = (uint8_t)crc;
    f[n - 1] = SYNC;
    buf_put(&p->out, f, n);
    p->frames_out++;
}

static void answer_empty(struct proto *p)
{
    struct msg none = {.n = 0};

    proto_send(p, &none);
}

static void bad_bytes(struct proto *p)
{
    p->need_sync = true;
    if (p->nak_sent) return;
    p->nak_sent = true;
    p->frames_bad++;
    p->naks++;
    answer_empty(p);
}

/* How many bytes at the start of `in` are done with; 0 means more are needed. */
static size_t take_frame(struct proto *p, void (*body)(void *, const uint8_t *, size_t), void *arg)
{
    const uint8_t *f = p->in;
    size_t n = f[0];

    if (f[0] == SYNC) return 1; /* an extra sync byte in front is allowed */
    if (n < FRAME_MIN || n > FRAME_MAX || (p->in_n > 1 && (f[1] & ~SEQ_MASK) != SEQ_MARK)) {
        bad_bytes(p);
        return 0;
    }
    if (p->in_n < n) return 0;
    if (f[n - 1] != SYNC || crc16(f, n - 3) != (f[n - 3] << 8 | f[n - 2])) {
        bad_bytes(p);
        return 0;
    }
    p->nak_sent = false;
    if (p->drop) {
        p->drop--;
        p->frames_dropped++;
        return n;
    }
    p->frames_in++;
    if (f[1] != p->sequence) {
        p->naks++;
        answer_empty(p);
        return n;
    }
    p->sequence = (uint8_t)(((f[1] + 1) & SEQ_MASK) | SEQ_MARK);
    body(arg, f + 2, n - FRAME_MIN);
    answer_empty(p);
    return n;
}

static void in_drop(struct proto *p, size_t n)
{
    if (n > p->in_n) n = p->in_n; /* a command in the frame may have reset us */
    memmove(p->in, p->in + n, p->in_n - n);
    p->in_n -= n;
}

static void skip_to_sync(struct proto *p)
{
    uint8_t *s = memchr(p->in, SYNC, p->in_n);

    in_drop(p, s ? (size_t)(s - p->in) + 1 : p->in_n);
    if (s) p->need_sync = false;
}

void proto_input(struct proto *p, const uint8_t *bytes, size_t n, void (*body)(void *arg, const uint8_t *b, size_t n), void *arg)
{
    while (n) {
        size_t room = sizeof p->in - p->in_n, some = n < room ? n : room, done = 1;

        memcpy(p->in + p->in_n, bytes, some);
        p->in_n += some, bytes += some, n -= some;
        while (p->in_n && (done || p->need_sync)) {
            if (p->need_sync) {
                skip_to_sync(p);
                done = 1;
                continue;
            }
            done = take_frame(p, body, arg);
            in_drop(p, done);
        }
    }
}

void msg_bytes(struct msg *m, const void *p, size_t n)
{
    if (m->n + n > sizeof m->b) return;
    memcpy(m->b + m->n, p, n);
    m->n += n;
}

void msg_int(struct msg *m, uint32_t v)
{
    int32_t s = (int32_t)v;
    uint8_t b[5];
    size_t n = 0;

    if (s >= 3 << 26 || s < -(1 << 26)) b[n++] = (uint8_t)(((v >> 28) & 0x7f) | 0x80);
    if (s >= 3 << 19 || s < -(1 << 19)) b[n++] = (uint8_t)(((v >> 21) & 0x7f) | 0x80);
    if (s >= 3 << 12 || s < -(1 << 12)) b[n++] = (uint8_t)(((v >> 14) & 0x7f) | 0x80);
    if (s >= 3 << 5 || s < -(1 << 5)) b[n++] = (uint8_t)(((v >> 7) & 0x7f) | 0x80);
    b[n++] = (uint8_t)(v & 0x7f);
    msg_bytes(m, b, n);
}

bool vlq_get(const uint8_t *b, size_t n, size_t *pos, uint32_t *v)
{
    uint32_t c, x;

    if (*pos >= n) return false;
    c = b[(*pos)++];
    x = c & 0x7f;
    if ((c & 0x60) == 0x60) x |= 0xffffffe0u; /* two top bits set: a negative number */
    while (c & 0x80) {
        if (*pos >= n) return false;
        c = b[(*pos)++];
        x = x << 7 | (c & 0x7f);
    }
    *v = x;
    return true;
}
