/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Random keys and hashes for auth, by OpenSSL, which libwebsockets brings anyway. Invariant: a hash that could not be made is no key's. */
#include "secret.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#define RANDOM_BYTES 32
#define HEAD "kp_"

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

bool secret_new(char out[SECRET_TEXT])
{
    unsigned char bytes[RANDOM_BYTES + 1] = { 0 };
    if (RAND_bytes(bytes, RANDOM_BYTES) != 1)
        return false;
    memcpy(out, HEAD, 3);
    for (size_t i = 0; i < SECRET_TEXT - 4; i++) { /* six bits each */
        size_t bit = i * 6, at = bit / 8;
        unsigned two = (unsigned)bytes[at] << 8 | bytes[at + 1];
        out[3 + i] = letters[two >> (10 - bit % 8) & 63];
    }
    out[SECRET_TEXT - 1] = 0;
    OPENSSL_cleanse(bytes, sizeof bytes);
    return true;
}

bool secret_formed(const char *text)
{
    return strlen(text) == SECRET_TEXT - 1 && !strncmp(text, HEAD, 3) && strspn(text, letters) == SECRET_TEXT - 1;
}

bool secret_hash(const char *text, size_t n, unsigned char out[SECRET_HASH])
{
    unsigned size = 0;
    if (EVP_Digest(text, n, out, &size, EVP_sha256(), NULL) == 1 && size == SECRET_HASH)
        return true;
    memset(out, 0, SECRET_HASH);
    return false;
}

bool secret_same(const unsigned char a[SECRET_HASH], const unsigned char b[SECRET_HASH])
{
    return CRYPTO_memcmp(a, b, SECRET_HASH) == 0;
}

void secret_to_hex(const unsigned char hash[SECRET_HASH], char out[SECRET_HEX])
{
    for (size_t i = 0; i < SECRET_HASH; i++)
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool secret_from_hex(const char *hex, unsigned char out[SECRET_HASH])
{
    if (!hex || strlen(hex) != SECRET_HEX - 1)
        return false;
    for (size_t i = 0; i < SECRET_HASH; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (unsigned char)(high * 16 + low);
    }
    return true;
}
