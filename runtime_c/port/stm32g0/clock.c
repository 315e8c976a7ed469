/* SPDX-License-Identifier: Apache-2.0 */
/* Clock set-up of an STM32G0 from the internal oscillator (RM0444, chapters 3 and 5). pll_p is the PLL's divider for
 * the core, which this family calls R. */
#include "../cortexm/board.h"

#define RCC_BASE 0x40021000u
#define RCC_CR REGISTER(RCC_BASE + 0x00u)
#define RCC_CFGR REGISTER(RCC_BASE + 0x08u)
#define RCC_PLLCFGR REGISTER(RCC_BASE + 0x0Cu)
#define FLASH_ACR REGISTER(0x40022000u)

#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define PLLCFGR_HSI16 2u
#define PLLCFGR_OUTPUT_R (1u << 28)
#define CFGR_SW_PLL 2u
#define CFGR_SWS_MASK (7u << 3)
#define CFGR_SWS_PLL (2u << 3)
#define ACR_PREFETCH_AND_CACHE (3u << 8)
#define ACR_LATENCY 7u

uint32_t board_core_hz = BNN_HSI_HZ;
uint32_t board_uart_hz = BNN_HSI_HZ;

int board_set_clock(void)
{
    RCC_PLLCFGR = PLLCFGR_HSI16 | ((BNN_PLL_M - 1u) << 4) | (BNN_PLL_N << 8) | ((BNN_PLL_P - 1u) << 29) |
                  PLLCFGR_OUTPUT_R;
    RCC_CR |= CR_PLLON;
    if (!board_wait(&RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        RCC_CR &= ~CR_PLLON;
        return 0;
    }
    FLASH_ACR = ACR_PREFETCH_AND_CACHE | BNN_FLASH_WAIT_STATES;
    if (!board_wait(&FLASH_ACR, ACR_LATENCY, BNN_FLASH_WAIT_STATES)) {
        return 0;
    }
    RCC_CFGR = (board_apb_bits(BNN_APB1_DIV) << 12) | CFGR_SW_PLL;
    if (!board_wait(&RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL)) {
        RCC_CFGR = 0;
        return 0;
    }
    board_core_hz = BNN_HSI_HZ / BNN_PLL_M * BNN_PLL_N / BNN_PLL_P;
    board_uart_hz = board_core_hz / BNN_APB1_DIV;
    return 1;
}
