/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Keys that nobody guesses, and their hashes: the one place that knows OpenSSL. A key is random, so a plain hash is as hard to turn back as the key to guess. */
#ifndef SECRET_H
#define SECRET_H

#include <stdbool.h>
#include <stddef.h>

#define SECRET_HASH 32                     /* bytes of a hash: SHA-256 */
#define SECRET_HEX (2 * SECRET_HASH + 1)   /* bytes of its hexadecimal text with the 0 */
#define SECRET_TEXT 47                     /* bytes of a key's text with its 0: kp_ and 43 characters for 32 random bytes */

/* Writes a new key. False: the system gives no random bytes. */
bool secret_new(char out[SECRET_TEXT]);
/* Whether a text could be one of secret_new. */
bool secret_formed(const char *text);
/* False: it could not be made; out then matches nothing. */
bool secret_hash(const char *text, size_t n, unsigned char out[SECRET_HASH]);
/* Takes the same time wherever the two differ. */
bool secret_same(const unsigned char a[SECRET_HASH], const unsigned char b[SECRET_HASH]);
void secret_to_hex(const unsigned char hash[SECRET_HASH], char out[SECRET_HEX]);
/* False: it is no hash's text. */
bool secret_from_hex(const char *hex, unsigned char out[SECRET_HASH]);

#endif
