/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Idempotency keys: a request that comes again under its key gets the first answer, and nothing is done twice. */
#ifndef IDEM_H
#define IDEM_H

#include <kp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct idem;
struct idem_entry;

#define IDEM_KEEP_MS 600000            /* an answer is kept for so long after it was given */
#define IDEM_KEY_MAX 255               /* characters of a key, visible ASCII */
#define IDEM_ENTRIES_MAX 32768         /* keys remembered; */
#define IDEM_BYTES_MAX (16u << 20)     /* and bytes of answers: with either reached, a new key is refused: forgetting one early could move the machine twice */

/* What a request asks, in short. */
struct idem_print { uint64_t a, b; };
void idem_print_init(struct idem_print *p);
void idem_print_add(struct idem_print *p, const void *bytes, size_t n);

enum idem_found { IDEM_NEW, IDEM_RUNNING, IDEM_ANSWERED, IDEM_OTHER, IDEM_FULL };

/* Gives an empty memory. NULL when out of memory. */
struct idem *idem_new(void);
void idem_free(struct idem *s);
bool idem_key_ok(const char *key);
/* A request of this command is remembered by its key. Not an emergency stop, which may be repeated as often as anybody likes, and nothing that one may do who
 * only looks: he could fill the memory. */
bool idem_serves(const struct kp_command *c);
/* Looks the key up; NEW: remembered now in *out, until idem_answer or idem_forget. RUNNING, ANSWERED: in *out. OTHER: the key stands for another request.
 * FULL: no room, or out of memory. */
enum idem_found idem_begin(struct idem *s, const char *key, const struct idem_print *print, int64_t now_ms, struct idem_entry **out);
/* The answer to keep; copied. Out of memory: an empty one, which is told as lost. */
void idem_answer(struct idem *s, struct idem_entry *e, enum kp_err code, const char *body, size_t n, int64_t now_ms);
/* Nothing was done: the key is free again. */
void idem_forget(struct idem *s, struct idem_entry *e);
/* The answer kept, borrowed until the next call that may forget it; NULL: it was lost. */
const char *idem_body(const struct idem_entry *e, size_t *n, enum kp_err *code);
size_t idem_count(const struct idem *s);

#endif
