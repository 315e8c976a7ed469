/* SPDX-License-Identifier: Apache-2.0 */
/* USART3 on PD8 (TX) and PD9 (RX), which the Nucleo-144 boards lead to the debugger's virtual serial port (UM1974;
 * RM0385, chapters 6 and 31). */
#define USART_BASE 0x40004800u
#include "../cortexm/usart.h"
#include "../stm32f4/rcc.h"

#define GPIOD_MODER REGISTER(0x40020C00u)
#define GPIOD_AFRH REGISTER(0x40020C24u)

void board_open_stream(void)
{
    RCC_AHB1ENR |= 1u << 3;  /* GPIOD */
    RCC_APB1ENR |= 1u << 18; /* USART3 */
    (void)RCC_APB1ENR;       /* the clock is on two cycles later: a read takes longer */
    GPIOD_AFRH = (GPIOD_AFRH & ~0xFFu) | 0x77u;                 /* PD8, PD9: AF7 */
    GPIOD_MODER = (GPIOD_MODER & ~(0xFu << 16)) | (0xAu << 16); /* alternate function */
    usart_start();
}
