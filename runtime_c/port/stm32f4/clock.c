/* SPDX-License-Identifier: Apache-2.0 */
/* Clock set-up of an STM32F4 from the internal oscillator (RM0090, chapters 3 and 7). */
#include "../cortexm/board.h"
#include "rcc.h"

#define ACR_PREFETCH_AND_CACHES (7u << 8)

uint32_t board_core_hz = BNN_HSI_HZ;
uint32_t board_uart_hz = BNN_HSI_HZ;

int board_set_clock(void)
{
    if (!rcc_start_pll(ACR_PREFETCH_AND_CACHES)) {
        return 0;
    }
    board_uart_hz = board_core_hz / BNN_APB2_DIV;
    return 1;
}
