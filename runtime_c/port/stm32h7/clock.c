/* SPDX-License-Identifier: Apache-2.0 */
/* Clock and caches of an STM32H742/743 from the internal oscillator, at the voltage scale of reset, VOS3: core at most
 * 200 MHz, buses half of that, peripherals a quarter (RM0433, chapters 6 and 8). */
#include "../cortexm/caches.h"
#include "rcc.h"

#define CR3_LDO (1u << 1) /* the only supply of the Nucleo board; written once after power-on */
#define CSR1_ACTVOSRDY (1u << 13)
#define CR_PLL1ON (1u << 24)
#define CR_PLL1RDY (1u << 25)
#define CFGR_SW_PLL1 3u
#define CFGR_SWS_MASK (7u << 3)
#define CFGR_SWS_PLL1 (3u << 3)
#define PLLCFGR_RANGE_8_TO_16_MHZ (3u << 2)
#define PLLCFGR_OUTPUT_P (1u << 16)
#define HPRE_2 8u
#define ACR_HIGH_FREQUENCY (2u << 4) /* WRHIGHFREQ for 90 to 135 MHz at VOS3, table 17 */

uint32_t board_core_hz = BNN_HSI_HZ;
uint32_t board_uart_hz = BNN_HSI_HZ;

static int run_from_pll(void)
{
    RCC_PLLCKSELR = BNN_PLL_M << 4; /* fed by the HSI */
    RCC_PLLCFGR = PLLCFGR_RANGE_8_TO_16_MHZ | PLLCFGR_OUTPUT_P;
    RCC_PLL1DIVR = (BNN_PLL_N - 1u) | ((BNN_PLL_P - 1u) << 9) | (1u << 16) | (1u << 24);
    RCC_CR |= CR_PLL1ON;
    if (!board_wait(&RCC_CR, CR_PLL1RDY, CR_PLL1RDY)) {
        return 0;
    }
    FLASH_ACR = ACR_HIGH_FREQUENCY | BNN_FLASH_WAIT_STATES;
    RCC_D1CFGR = HPRE_2 | (board_apb_bits(2) << 4);
    RCC_D2CFGR = (board_apb_bits(BNN_APB1_DIV / 2u) << 4) | (board_apb_bits(BNN_APB2_DIV / 2u) << 8);
    RCC_D3CFGR = board_apb_bits(2) << 4;
    RCC_CFGR = CFGR_SW_PLL1;
    return board_wait(&RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL1);
}

int board_set_clock(void)
{
    PWR_CR3 = CR3_LDO;
    (void)board_wait(&PWR_CSR1, CSR1_ACTVOSRDY, CSR1_ACTVOSRDY);
    board_enable_caches();
    if (!run_from_pll()) {
        return 0;
    }
    board_core_hz = BNN_HSI_HZ / BNN_PLL_M * BNN_PLL_N / BNN_PLL_P;
    board_uart_hz = board_core_hz / BNN_APB1_DIV;
    return 1;
}
