/* SPDX-License-Identifier: Apache-2.0 */
/* freestanding.c -- the four functions that a compiler may call even in freestanding code, for targets without
 * a C library. Hosted targets do not compile this file. */

#include <stddef.h>
#include <stdint.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

/* Keeps the compiler from recognising the loop around it as the very function that it implements. */
#define NOT_AN_IDIOM() __asm__ volatile("" ::: "memory")

/* A word that may hold objects of any type; gcc and clang, as everything in this file. */
typedef uint32_t __attribute__((__may_alias__)) any_word;

void *memcpy(void *to, const void *from, size_t bytes)
{
    uint8_t *t = (uint8_t *)to;
    const uint8_t *f = (const uint8_t *)from;

    if ((((uintptr_t)t | (uintptr_t)f) & 3u) == 0) {
        for (; bytes >= 4; bytes -= 4, t += 4, f += 4) {
            *(any_word *)(void *)t = *(const any_word *)(const void *)f;
            NOT_AN_IDIOM();
        }
    }
    for (; bytes > 0; bytes--) {
        *t++ = *f++;
        NOT_AN_IDIOM();
    }
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    uint8_t *t = (uint8_t *)to;
    const uint8_t *f = (const uint8_t *)from;

    if ((uintptr_t)t - (uintptr_t)f >= bytes) {
        return memcpy(to, from, bytes);
    }
    while (bytes > 0) {
        bytes--;
        t[bytes] = f[bytes];
        NOT_AN_IDIOM();
    }
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    uint8_t *t = (uint8_t *)to;

    for (; bytes > 0; bytes--) {
        *t++ = (uint8_t)value;
        NOT_AN_IDIOM();
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const uint8_t *p = (const uint8_t *)a;
    const uint8_t *q = (const uint8_t *)b;

    for (; bytes > 0; bytes--, p++, q++) {
        if (*p != *q) {
            return (int)*p - (int)*q;
        }
        NOT_AN_IDIOM();
    }
    return 0;
}
