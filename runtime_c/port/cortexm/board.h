/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the STM32 ports share, and what each family brings. The macros BNN_... come from the target's TOML
 * file by way of the compiler's command line. */
#ifndef BNN_CORTEXM_BOARD_H
#define BNN_CORTEXM_BOARD_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

/* Start the PLL. Returns 1 when every oscillator reported ready; otherwise the core stays on its reset clock. */
int board_set_clock(void);

/* Frequencies as they really are, set by board_set_clock: of the core, and of the bus that feeds the UART. */
extern uint32_t board_core_hz;
extern uint32_t board_uart_hz;

/* By the object that moves bytes: get the stream ready; end the program. */
void board_open_stream(void);
void board_exit(int code);

#define BOARD_WAIT_TURNS 100000u /* PLL lock takes at most 300 us; 64 MHz and 4 cycles a turn give 6 ms */

/* Wait, but not forever: a part that is broken, or an emulator that models no oscillator, gives 0. */
static inline int board_wait(volatile uint32_t *reg, uint32_t mask, uint32_t value)
{
    uint32_t turn;

    for (turn = 0; turn < BOARD_WAIT_TURNS; turn++) {
        if ((*reg & mask) == value) {
            return 1;
        }
    }
    return 0;
}

/* PPRE fields: 0xx is no division, 100 is 2, 101 is 4, 110 is 8, 111 is 16. */
static inline uint32_t board_apb_bits(uint32_t divider)
{
    uint32_t bits = 3;

    while (divider > 1) {
        divider >>= 1;
        bits++;
    }
    return bits == 3 ? 0 : bits;
}

#endif
