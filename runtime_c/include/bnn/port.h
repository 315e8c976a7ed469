/* SPDX-License-Identifier: Apache-2.0 */
/* What a board gives to a program: a byte stream, an end, and facts about itself.
 *
 * One object file of port/ implements the stream; programs of one target differ in that object alone.
 */
#ifndef BNN_PORT_H
#define BNN_PORT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Wait for input. Returns 1 .. bytes: so many bytes were stored; 0: the stream has ended; -1: it is broken. */
int bnn_port_read(void *data, size_t bytes);

/* Write everything, waiting as long as it takes. Returns 0, or -1 when the other side has gone. */
int bnn_port_write(const void *data, size_t bytes);

#define BNN_PORT_CLOCK_CONFIRMED 1u /* the oscillator reported the frequency that was asked for */
#define BNN_PORT_STACK_BROKEN 2u    /* the guard word below the stack was overwritten */

typedef struct {
    uint32_t stack_bytes; /* reserved for the stack; 0: the operating system's business */
    uint32_t stack_peak;  /* most of it that was ever in use; 0: not known */
    uint32_t clock_hz;    /* of the core; 0: not known */
    uint32_t flags;       /* BNN_PORT_... */
} bnn_port_info;

void bnn_port_get_info(bnn_port_info *info);

#ifdef __cplusplus
}
#endif

#endif
