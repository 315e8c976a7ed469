/* SPDX-License-Identifier: Apache-2.0 */
/* From reset to main, and what happens when something goes wrong.
 *
 * memory.ld puts the stack at the lower end of the RAM: one that grows too far leaves the RAM and faults at
 * once, instead of changing data. It is painted at the start, so that its peak can be read off at any time.
 * No interrupt is ever enabled: the vector table ends with the core's own exceptions.
 */
#include "board.h"
#include "bnn/port.h"
#include "bnn/server.h"

#define PAINT 0xC5C5C5C5u
#define CPACR REGISTER(0xE000ED88u)
#if __ARM_ARCH >= 7 /* ARMv6-M says only that there was a fault, not which */
#define CFSR REGISTER(0xE000ED28u)
#define BFAR REGISTER(0xE000ED38u)
#else
#define CFSR 0u
#define BFAR 0u
#endif
#define CFSR_STKERR (1u << 12)
#define EXIT_FAULT 98

/* Addresses from memory.ld. */
extern uint32_t bnn_stack_bottom[], bnn_stack_top[];
extern uint32_t bnn_data_start[], bnn_data_end[], bnn_bss_start[], bnn_bss_end[];
extern const uint32_t bnn_data_image[];

int main(void);
void Reset_Handler(void);
void Fault_Handler(void);
void bnn_fault(const uint32_t *frame, uint32_t sp);

static int clock_confirmed;

/* The frame that the core stacked holds lr at word 5 and pc at word 6 (ARMv7-M ARM, B1.5.6); a stack pointer
 * outside the stack means that there is no such frame. */
void bnn_fault(const uint32_t *frame, uint32_t sp)
{
    const int stacked = sp >= (uint32_t)bnn_stack_bottom && sp + 32u <= (uint32_t)bnn_stack_top;
    uint32_t words[4];

    words[0] = stacked ? frame[6] : 0u;
    words[1] = stacked ? frame[5] : 0u;
    words[2] = CFSR | (stacked ? 0u : CFSR_STKERR); /* ARMv6-M does not say so itself */
    words[3] = BFAR;
    bnn_server_fault(words);
    board_exit(EXIT_FAULT);
    for (;;) {
    }
}

/* Take the old stack pointer along, and begin a new stack: the old one may be what is broken. */
__attribute__((naked)) void Fault_Handler(void)
{
    __asm__ volatile("mov r0, sp\n"
                     "mov r1, sp\n"
                     "ldr r2, =bnn_stack_top\n"
                     "mov sp, r2\n"
                     "bl bnn_fault\n"
                     ".ltorg\n");
}

typedef void (*handler)(void);

/* The core reads this table at reset: the initial stack pointer, then the exceptions 1 to 15. */
typedef struct {
    uint32_t *stack;
    handler exceptions[15];
} vector_table;

__attribute__((section(".isr_vector"), used)) static const vector_table vectors = {
    bnn_stack_top,
    {
        Reset_Handler, Fault_Handler, Fault_Handler, /* reset, NMI, hard fault */
        Fault_Handler, Fault_Handler, Fault_Handler, /* memory, bus and usage fault */
        0, 0, 0, 0, Fault_Handler,                   /* supervisor call */
        Fault_Handler, 0, Fault_Handler,             /* debug, PendSV */
        Fault_Handler,                               /* SysTick */
    },
};

static void enable_fpu(void)
{
#ifdef __ARM_FP
    CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
}

static void paint_stack(void)
{
    volatile uint32_t *word, *sp;

    __asm__ volatile("mov %0, sp" : "=r"(sp));
    for (word = bnn_stack_bottom; word < sp; word++) {
        *word = PAINT;
    }
}

void Reset_Handler(void)
{
    const uint32_t *from = bnn_data_image;
    uint32_t *to;

    enable_fpu();
    for (to = bnn_data_start; to < bnn_data_end; to++) {
        *to = *from++;
    }
    for (to = bnn_bss_start; to < bnn_bss_end; to++) {
        *to = 0;
    }
    paint_stack();
    clock_confirmed = board_set_clock();
    board_open_stream();
    board_exit(main());
    for (;;) {
    }
}

void bnn_port_get_info(bnn_port_info *info)
{
    const volatile uint32_t *word = bnn_stack_bottom;

    while (word < bnn_stack_top && *word == PAINT) {
        word++;
    }
    info->stack_bytes = (uint32_t)bnn_stack_top - (uint32_t)bnn_stack_bottom;
    info->stack_peak = (uint32_t)bnn_stack_top - (uint32_t)word;
    info->clock_hz = board_core_hz;
    info->flags = clock_confirmed ? BNN_PORT_CLOCK_CONFIRMED : 0u;
    if (bnn_stack_bottom[0] != PAINT) {
        info->flags |= BNN_PORT_STACK_BROKEN;
    }
}
