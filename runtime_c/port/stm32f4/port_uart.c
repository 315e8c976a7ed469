/* SPDX-License-Identifier: Apache-2.0 */
/* Byte stream on USART1: 8 data bits, no parity, one stop bit; TX on PA9, RX on PA10 (RM0090, chapter 30). */
#include "../cortexm/board.h"
#include "bnn/port.h"
#include "rcc.h"

#define GPIOA_MODER REGISTER(0x40020000u)
#define GPIOA_AFRH REGISTER(0x40020024u)
#define USART1_SR REGISTER(0x40011000u)
#define USART1_DR REGISTER(0x40011004u)
#define USART1_BRR REGISTER(0x40011008u)
#define USART1_CR1 REGISTER(0x4001100Cu)
#define AIRCR REGISTER(0xE000ED0Cu)

#define SR_RXNE (1u << 5)
#define SR_TC (1u << 6)
#define SR_TXE (1u << 7)
#define CR1_UE_TE_RE ((1u << 13) | (1u << 3) | (1u << 2))
#define AIRCR_SYSRESETREQ (0x05FA0000u | (1u << 2))

void board_open_stream(void)
{
    RCC_AHB1ENR |= 1u;      /* GPIOA */
    RCC_APB2ENR |= 1u << 4; /* USART1 */
    (void)RCC_APB2ENR;      /* the clock is on two cycles later: a read takes longer */
    GPIOA_AFRH = (GPIOA_AFRH & ~0xFF0u) | 0x770u;                                /* PA9, PA10: AF7 */
    GPIOA_MODER = (GPIOA_MODER & ~(0xFu << 18)) | (0xAu << 18);                   /* alternate function */
    USART1_BRR = (board_uart_hz + BNN_UART_BAUD / 2u) / BNN_UART_BAUD;
    USART1_CR1 = CR1_UE_TE_RE;
}

/* An overrun loses bytes; reading SR and then DR clears it, and the checksum tells. */
int bnn_port_read(void *data, size_t bytes)
{
    uint8_t *to = (uint8_t *)data;
    size_t i;

    for (i = 0; i < bytes; i++) {
        while ((USART1_SR & SR_RXNE) == 0) {
        }
        to[i] = (uint8_t)USART1_DR;
    }
    return (int)bytes;
}

int bnn_port_write(const void *data, size_t bytes)
{
    const uint8_t *from = (const uint8_t *)data;
    size_t i;

    for (i = 0; i < bytes; i++) {
        while ((USART1_SR & SR_TXE) == 0) {
        }
        USART1_DR = from[i];
    }
    return 0;
}

/* Nobody waits for an exit code: start afresh once the last byte is out. */
void board_exit(int code)
{
    (void)code;
    while ((USART1_SR & SR_TC) == 0) {
    }
    AIRCR = AIRCR_SYSRESETREQ;
}
