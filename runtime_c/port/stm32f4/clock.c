/* SPDX-License-Identifier: Apache-2.0 */
/* Clock set-up from the internal oscillator. Every wait is bounded: a part that is broken, or an emulator that
 * models no oscillator, leaves the core on the 16 MHz it started with, and the flag unset. */
#include "board.h"

#define WAIT_TURNS 100000u /* PLL lock takes 100 to 300 us (DS8626), 16 MHz and 4 cycles a turn give 25 ms */

#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_SW_PLL 2u
#define CFGR_SWS_MASK (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define ACR_PREFETCH_AND_CACHES (7u << 8)
#define USB_HZ 48000000u

uint32_t board_core_hz = BNN_HSI_HZ;
uint32_t board_apb2_hz = BNN_HSI_HZ;

static int wait_for(volatile uint32_t *reg, uint32_t mask, uint32_t value)
{
    uint32_t turn;

    for (turn = 0; turn < WAIT_TURNS; turn++) {
        if ((*reg & mask) == value) {
            return 1;
        }
    }
    return 0;
}

/* PPRE fields: 0xx is no division, 100 is 2, 101 is 4, 110 is 8, 111 is 16. */
static uint32_t apb_bits(uint32_t divider)
{
    uint32_t bits = 3;

    while (divider > 1) {
        divider >>= 1;
        bits++;
    }
    return bits == 3 ? 0 : bits;
}

int board_set_clock(void)
{
    const uint32_t vco_hz = BNN_HSI_HZ / BNN_PLL_M * BNN_PLL_N;
    const uint32_t usb_div = (vco_hz + USB_HZ - 1) / USB_HZ; /* PLLQ must be valid though USB is unused */

    RCC_PLLCFGR = BNN_PLL_M | (BNN_PLL_N << 6) | ((BNN_PLL_P / 2u - 1u) << 16) | (usb_div << 24);
    RCC_CR |= CR_PLLON;
    if (!wait_for(&RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        RCC_CR &= ~CR_PLLON;
        return 0;
    }
    FLASH_ACR = ACR_PREFETCH_AND_CACHES | BNN_FLASH_WAIT_STATES;
    RCC_CFGR = (apb_bits(BNN_APB1_DIV) << 10) | (apb_bits(BNN_APB2_DIV) << 13) | CFGR_SW_PLL;
    if (!wait_for(&RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL)) {
        RCC_CFGR = 0;
        return 0;
    }
    board_core_hz = vco_hz / BNN_PLL_P;
    board_apb2_hz = board_core_hz / BNN_APB2_DIV;
    return 1;
}
