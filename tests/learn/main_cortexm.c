/* SPDX-License-Identifier: Apache-2.0 */
/* main_cortexm.c -- the harness on a bare Cortex-M in the emulator: script linked in, lines by semihosting. */
#include "harness.h"

extern const uint8_t script_begin[], script_end[];
extern uint32_t stack_top;
void reset(void);

typedef struct {
    const void *stack;
    void (*handler[15])(void);
} vector_table;

__attribute__((section(".vectors"), used)) static const vector_table vectors = {&stack_top, {reset}};

#ifndef HARNESS_WORDS
#define HARNESS_WORDS 11000 /* 86 KiB */
#endif

static uint64_t memory[HARNESS_WORDS];
static size_t used;

static int semihost(int call, const void *argument)
{
    register int r0 __asm__("r0") = call;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void leave(uint32_t code)
{
    const uint32_t block[2] = {0x20026u, code}; /* ADP_Stopped_ApplicationExit */
    for (;;) {
        semihost(0x20, block);
    }
}

void *platform_alloc(size_t bytes)
{
    void *const block = (uint8_t *)memory + used;
    used += (bytes + 7u) / 8u * 8u;
    if (used > sizeof memory) {
        leave(3);
    }
    return block;
}

void platform_line(const char *text)
{
    semihost(0x04, text);
    semihost(0x04, "\n");
}

void *memcpy(void *to, const void *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
    return to;
}

void *memset(void *to, int value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        ((volatile uint8_t *)to)[i] = (uint8_t)value;
    }
    return to;
}

void reset(void)
{
    leave((uint32_t)harness_run(script_begin, (size_t)(script_end - script_begin)));
}
