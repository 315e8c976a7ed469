/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this port share. Registers: RM0090. The macros BNN_... come from the target's TOML file
 * by way of the compiler's command line. */
#ifndef BNN_STM32F4_BOARD_H
#define BNN_STM32F4_BOARD_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define RCC_BASE 0x40023800u
#define RCC_CR REGISTER(RCC_BASE + 0x00u)
#define RCC_PLLCFGR REGISTER(RCC_BASE + 0x04u)
#define RCC_CFGR REGISTER(RCC_BASE + 0x08u)
#define RCC_AHB1ENR REGISTER(RCC_BASE + 0x30u)
#define RCC_APB2ENR REGISTER(RCC_BASE + 0x44u)
#define FLASH_ACR REGISTER(0x40023C00u)

/* Start the PLL. Returns 1 when every oscillator reported ready; otherwise the core stays on the HSI. */
int board_set_clock(void);

/* Frequencies as they really are, set by board_set_clock. */
extern uint32_t board_core_hz;
extern uint32_t board_apb2_hz;

/* By the object that moves bytes: get the stream ready; end the program. */
void board_open_stream(void);
void board_exit(int code);

#endif
