/* SPDX-License-Identifier: Apache-2.0 */
/* Byte stream on standard input and output, for programs under Linux, an emulator's user mode, or ssh. */
#include "bnn/port.h"

#include <errno.h>
#include <unistd.h>

int bnn_port_read(void *data, size_t bytes)
{
    ssize_t got;

    do {
        got = read(STDIN_FILENO, data, bytes);
    } while (got < 0 && errno == EINTR);
    return (int)got; /* at most one payload: far below INT_MAX */
}

int bnn_port_write(const void *data, size_t bytes)
{
    const char *from = (const char *)data;

    while (bytes > 0) {
        ssize_t put = write(STDOUT_FILENO, from, bytes);
        if (put < 0 && errno != EINTR) {
            return -1;
        }
        if (put > 0) {
            from += put;
            bytes -= (size_t)put;
        }
    }
    return 0;
}

/* Stack and clock are the operating system's. */
void bnn_port_get_info(bnn_port_info *info)
{
    info->stack_bytes = 0;
    info->stack_peak = 0;
    info->clock_hz = 0;
    info->flags = 0;
}
