/* SPDX-License-Identifier: Apache-2.0 */
/* Clock and flash-interface registers that STM32F4 and F7 have at the same place (RM0090 and RM0385, chapters RCC and
 * FLASH). */
#ifndef BNN_STM32F4_RCC_H
#define BNN_STM32F4_RCC_H

#define RCC_BASE 0x40023800u
#define RCC_CR REGISTER(RCC_BASE + 0x00u)
#define RCC_PLLCFGR REGISTER(RCC_BASE + 0x04u)
#define RCC_CFGR REGISTER(RCC_BASE + 0x08u)
#define RCC_AHB1ENR REGISTER(RCC_BASE + 0x30u)
#define RCC_APB1ENR REGISTER(RCC_BASE + 0x40u)
#define RCC_APB2ENR REGISTER(RCC_BASE + 0x44u)
#define FLASH_ACR REGISTER(0x40023C00u)

#define CR_PLLON (1u << 24)
#define CR_PLLRDY (1u << 25)
#define CFGR_SW_PLL 2u
#define CFGR_SWS_MASK (3u << 2)
#define CFGR_SWS_PLL (2u << 2)
#define USB_HZ 48000000u

/* Run the core from the PLL, fed by the internal oscillator. flash_acr: what accelerates the flash, without the wait
 * states. Returns 1 when the oscillators reported ready, and leaves the core on the HSI otherwise. */
static inline int rcc_start_pll(uint32_t flash_acr)
{
    const uint32_t vco_hz = BNN_HSI_HZ / BNN_PLL_M * BNN_PLL_N;
    const uint32_t usb_div = (vco_hz + USB_HZ - 1) / USB_HZ; /* PLLQ must be valid though USB is unused */

    RCC_PLLCFGR = BNN_PLL_M | (BNN_PLL_N << 6) | ((BNN_PLL_P / 2u - 1u) << 16) | (usb_div << 24);
    RCC_CR |= CR_PLLON;
    if (!board_wait(&RCC_CR, CR_PLLRDY, CR_PLLRDY)) {
        RCC_CR &= ~CR_PLLON;
        return 0;
    }
    FLASH_ACR = flash_acr | BNN_FLASH_WAIT_STATES;
    RCC_CFGR = (board_apb_bits(BNN_APB1_DIV) << 10) | (board_apb_bits(BNN_APB2_DIV) << 13) | CFGR_SW_PLL;
    if (!board_wait(&RCC_CFGR, CFGR_SWS_MASK, CFGR_SWS_PLL)) {
        RCC_CFGR = 0;
        return 0;
    }
    board_core_hz = vco_hz / BNN_PLL_P;
    return 1;
}

#endif
