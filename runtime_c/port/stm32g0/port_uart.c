/* SPDX-License-Identifier: Apache-2.0 */
/* USART2 on PA2 (TX) and PA3 (RX), which the Nucleo-64 board leads to the debugger's virtual serial port (UM2324;
 * RM0444, chapters 7 and 33). */
#define USART_BASE 0x40004400u
#include "../cortexm/usart.h"

#define RCC_IOPENR REGISTER(0x40021034u)
#define RCC_APBENR1 REGISTER(0x4002103Cu)
#define GPIOA_MODER REGISTER(0x50000000u)
#define GPIOA_AFRL REGISTER(0x50000020u)

void board_open_stream(void)
{
    RCC_IOPENR |= 1u;        /* GPIOA */
    RCC_APBENR1 |= 1u << 17; /* USART2 */
    (void)RCC_APBENR1;       /* the clock is on two cycles later: a read takes longer */
    GPIOA_AFRL = (GPIOA_AFRL & ~0xFF00u) | 0x1100u;           /* PA2, PA3: AF1 */
    GPIOA_MODER = (GPIOA_MODER & ~(0xFu << 4)) | (0xAu << 4); /* alternate function */
    usart_start();
}
