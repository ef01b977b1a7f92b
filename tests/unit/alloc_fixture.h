/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Memory that runs out when a test says so, for tests of every allocation's failure. The program's own malloc stands before libc's, or before the
 * sanitizer's, for the library too. Include it in one file of a program. Without alloc_fail_at nothing is changed. */
#ifndef ALLOC_FIXTURE_H
#define ALLOC_FIXTURE_H

#include <stddef.h>
#include <stdlib.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void *__interceptor_malloc(size_t n) __attribute__((weak));
void *__interceptor_calloc(size_t count, size_t n) __attribute__((weak));
void *__interceptor_realloc(void *p, size_t n) __attribute__((weak));
void *__interceptor_aligned_alloc(size_t alignment, size_t n) __attribute__((weak));

static size_t alloc_count;   /* allocations asked for since alloc_fail_at */
static size_t alloc_fail_nth; /* the one of them that fails, from 1; 0: none */

/* The n-th allocation from now on fails; 0: none does. */
static inline void alloc_fail_at(size_t n)
{
    alloc_count = 0;
    alloc_fail_nth = n;
}

static inline int alloc_fails(void)
{
    return ++alloc_count == alloc_fail_nth;
}

void *malloc(size_t n)
{
    if (alloc_fails())
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(n) : __libc_malloc(n);
}

void *calloc(size_t count, size_t n)
{
    if (alloc_fails())
        return NULL;
    return __interceptor_calloc ? __interceptor_calloc(count, n) : __libc_calloc(count, n);
}

void *realloc(void *p, size_t n)
{
    if (alloc_fails())
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(p, n) : __libc_realloc(p, n);
}

void *aligned_alloc(size_t alignment, size_t n)
{
    if (alloc_fails())
        return NULL;
    return __interceptor_aligned_alloc ? __interceptor_aligned_alloc(alignment, n) : __libc_memalign(alignment, n);
}

#endif
