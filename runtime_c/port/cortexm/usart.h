/* SPDX-License-Identifier: Apache-2.0 */
/* Byte stream on the USART of newer STM32 families (F7, H7, G0: ISR, RDR and TDR): 8 data bits, no parity, one stop bit.
 * A family's port_uart.c defines USART_BASE, connects pins and clock, and includes this file once. */
#include "board.h"
#include "bnn/port.h"

#define USART_CR1 REGISTER(USART_BASE + 0x00u)
#define USART_BRR REGISTER(USART_BASE + 0x0Cu)
#define USART_ISR REGISTER(USART_BASE + 0x1Cu)
#define USART_ICR REGISTER(USART_BASE + 0x20u)
#define USART_RDR REGISTER(USART_BASE + 0x24u)
#define USART_TDR REGISTER(USART_BASE + 0x28u)
#define AIRCR REGISTER(0xE000ED0Cu)

#define ISR_ORE (1u << 3)
#define ISR_RXNE (1u << 5)
#define ISR_TC (1u << 6)
#define ISR_TXE (1u << 7)
#define CR1_UE_TE_RE ((1u << 0) | (1u << 3) | (1u << 2))
#define AIRCR_SYSRESETREQ (0x05FA0000u | (1u << 2))

static void usart_start(void)
{
    USART_BRR = (board_uart_hz + BNN_UART_BAUD / 2u) / BNN_UART_BAUD;
    USART_CR1 = CR1_UE_TE_RE;
}

/* An overrun loses bytes and stops reception until it is cleared; the checksum tells. */
int bnn_port_read(void *data, size_t bytes)
{
    uint8_t *to = (uint8_t *)data;
    size_t i;

    for (i = 0; i < bytes; i++) {
        while ((USART_ISR & ISR_RXNE) == 0) {
            USART_ICR = ISR_ORE;
        }
        to[i] = (uint8_t)USART_RDR;
    }
    return (int)bytes;
}

int bnn_port_write(const void *data, size_t bytes)
{
    const uint8_t *from = (const uint8_t *)data;
    size_t i;

    for (i = 0; i < bytes; i++) {
        while ((USART_ISR & ISR_TXE) == 0) {
        }
        USART_TDR = from[i];
    }
    return 0;
}

/* Nobody waits for an exit code: start afresh once the last byte is out. */
void board_exit(int code)
{
    (void)code;
    while ((USART_ISR & ISR_TC) == 0) {
    }
    AIRCR = AIRCR_SYSRESETREQ;
}
