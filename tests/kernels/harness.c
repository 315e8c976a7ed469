/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c -- see harness.h. */
#include "harness.h"

#include "bnn/port.h"

#ifdef HARNESS_MALLOC
#include <stdlib.h>
#endif

#define BLOCKS 16
#define GUARD 16u
#define POOL_BYTES 81920u

enum { INPUT, OUTPUT, SCRATCH };
enum { INPUT_CHANGED = 1, GUARD_BROKEN = 2 };

typedef struct {
    uint8_t *data;
    uint32_t bytes;
    uint32_t crc;
    int kind;
} block;

static block blocks[BLOCKS];
static int count;
#ifndef HARNESS_MALLOC
static uint64_t pool[POOL_BYTES / 8];
static uint32_t used;
#endif

static void fail(void)
{
    for (;;) { /* the test's timeout speaks */
    }
}

static int read_all(void *to, size_t bytes)
{
    uint8_t *at = (uint8_t *)to;

    while (bytes > 0) {
        const int got = bnn_port_read(at, bytes);
        if (got <= 0) {
            return 0;
        }
        at += got;
        bytes -= (size_t)got;
    }
    return 1;
}

void harness_get(void *to, size_t bytes)
{
    if (!read_all(to, bytes)) {
        fail();
    }
}

int32_t harness_int(void)
{
    int32_t value;

    harness_get(&value, sizeof value);
    return value;
}

harness_rows harness_get_rows(void)
{
    harness_rows rows;

    harness_get(&rows, sizeof rows);
    return rows;
}

static void fill(uint8_t *to, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; i++) {
        to[i] = FILL;
    }
}

static block *allocate(uint32_t bytes, int kind)
{
    block *b = &blocks[count++];

    b->bytes = bytes;
    b->kind = kind;
#ifdef HARNESS_MALLOC
    b->data = (uint8_t *)malloc(bytes);
#else
    b->data = (uint8_t *)pool + used + GUARD;
    used += (bytes + 2 * GUARD + 7u) / 8u * 8u;
    if (used > POOL_BYTES) {
        fail();
    }
    fill(b->data - GUARD, bytes + 2 * GUARD);
#endif
    fill(b->data, bytes);
    return b;
}

const void *harness_take(void)
{
    block *b = allocate((uint32_t)harness_int(), INPUT);

    harness_get(b->data, b->bytes);
    b->crc = bnn_crc32(0, b->data, b->bytes);
    return b->data;
}

const void *const *harness_list(int32_t inputs)
{
    static const void *list[BLOCKS];

    for (int32_t i = 0; i < inputs; i++) {
        list[i] = harness_take();
    }
    return list;
}

void *harness_blank(void)
{
    const uint32_t bytes = (uint32_t)harness_int();
    const int32_t shared = harness_int();

    if (shared >= 0) {
        blocks[shared].kind = OUTPUT;
        return blocks[shared].data;
    }
    return allocate(bytes, OUTPUT)->data;
}

void *harness_scratch(void)
{
    const uint32_t bytes = (uint32_t)harness_int();

    return bytes == 0 ? NULL : allocate(bytes, SCRATCH)->data;
}

bnn_affine harness_affine(int32_t arithmetic)
{
    bnn_affine a;
    const void *bias;

    a.mult = (const int32_t *)harness_take();
    bias = harness_take();
    a.bias32 = arithmetic == BNN_NARROW ? (const int32_t *)bias : NULL;
    a.bias64 = arithmetic == BNN_NARROW ? NULL : (const int64_t *)bias;
    a.shift = harness_int();
    a.lo = harness_int();
    a.hi = harness_int();
    a.acc_lo = harness_int();
    a.acc_hi = harness_int();
    return a;
}

static uint32_t examine(const block *b)
{
    uint32_t status = 0;

    if (b->kind == INPUT && bnn_crc32(0, b->data, b->bytes) != b->crc) {
        status |= INPUT_CHANGED;
    }
#ifndef HARNESS_MALLOC
    for (uint32_t i = 0; i < GUARD; i++) {
        if (b->data[-1 - (int)i] != FILL || b->data[b->bytes + i] != FILL) {
            status |= GUARD_BROKEN;
        }
    }
#endif
    return status;
}

void harness_finish(void)
{
    uint32_t status = 0;

    for (int i = 0; i < count; i++) {
        status |= examine(&blocks[i]);
    }
    bnn_port_write(&status, sizeof status);
    for (int i = 0; i < count; i++) {
        if (blocks[i].kind == OUTPUT) {
            bnn_port_write(blocks[i].data, blocks[i].bytes);
        }
#ifdef HARNESS_MALLOC
        free(blocks[i].data);
#endif
    }
    count = 0;
#ifndef HARNESS_MALLOC
    used = 0;
#endif
}

int main(void)
{
    int32_t function;

    while (read_all(&function, sizeof function)) {
        harness_functions[function]();
    }
    return 0;
}
