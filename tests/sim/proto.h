/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Klipper's message blocks, from docs/Protocol.md: length, sequence, content, CRC, sync. Knows no command. */
#ifndef SIM_PROTO_H
#define SIM_PROTO_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

enum { FRAME_MAX = 64, FRAME_MIN = 5, FRAME_BODY_MAX = FRAME_MAX - FRAME_MIN, PROTO_OUT_MAX = 1 << 16 };

struct proto {
    uint8_t in[FRAME_MAX];
    size_t in_n;
    bool need_sync; /* skipping to the next sync byte */
    bool nak_sent; /* one nak for a row of bad bytes */
    uint8_t sequence; /* what the next frame must carry, with the 0x10 mark */
    struct buf out; /* to be written to the pty */
    unsigned drop; /* frames still to lose on purpose */
    uint64_t frames_in, frames_bad, frames_dropped, frames_out, naks;
};

/* One outgoing message. */
struct msg {
    uint8_t b[FRAME_BODY_MAX];
    size_t n;
};

void proto_reset(struct proto *p);
/* Takes bytes from the host; `body` gets each good frame's content, in order. */
void proto_input(struct proto *p, const uint8_t *bytes, size_t n, void (*body)(void *arg, const uint8_t *b, size_t n), void *arg);
void proto_send(struct proto *p, const struct msg *m);

void msg_int(struct msg *m, uint32_t v);
void msg_bytes(struct msg *m, const void *p, size_t n);
/* Reads one number at *pos; false past the end. */
bool vlq_get(const uint8_t *b, size_t n, size_t *pos, uint32_t *v);

#endif
