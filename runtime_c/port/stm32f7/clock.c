/* SPDX-License-Identifier: Apache-2.0 */
/* Clock and caches of an STM32F7: the F4's PLL and bus dividers (RM0385, chapters 3 and 5), without over-drive. */
#include "../cortexm/caches.h"
#include "../stm32f4/rcc.h"

#define ACR_PREFETCH_AND_ACCELERATOR (3u << 8)

uint32_t board_core_hz = BNN_HSI_HZ;
uint32_t board_uart_hz = BNN_HSI_HZ;

int board_set_clock(void)
{
    board_enable_caches();
    if (!rcc_start_pll(ACR_PREFETCH_AND_ACCELERATOR)) {
        return 0;
    }
    board_uart_hz = board_core_hz / BNN_APB1_DIV;
    return 1;
}
