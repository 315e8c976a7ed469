/* SPDX-License-Identifier: Apache-2.0 */
/* Byte stream on the debugger's or emulator's standard input and output (Arm semihosting, version 2).
 *
 * For bulk data in the emulator. On a board without a debugger the first BKPT is a fault: flash the UART
 * program there.
 */
#include "board.h"
#include "bnn/port.h"

#define SYS_OPEN 0x01
#define SYS_WRITE 0x05
#define SYS_READ 0x06
#define SYS_EXIT_EXTENDED 0x20
#define MODE_RB 1u
#define MODE_WB 5u
#define ADP_STOPPED_APPLICATION_EXIT 0x20026u

static uint32_t standard_input, standard_output;

static uint32_t call(int operation, const uint32_t *arguments)
{
    register int r0 __asm__("r0") = operation;
    register const uint32_t *r1 __asm__("r1") = arguments;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return (uint32_t)r0;
}

static uint32_t open_terminal(uint32_t mode)
{
    static const char name[] = ":tt";
    uint32_t arguments[3];

    arguments[0] = (uint32_t)name;
    arguments[1] = mode;
    arguments[2] = sizeof name - 1;
    return call(SYS_OPEN, arguments);
}

void board_open_stream(void)
{
    standard_input = open_terminal(MODE_RB);
    standard_output = open_terminal(MODE_WB);
}

/* SYS_READ returns how many bytes it did NOT read: all of them at the end of the file. */
int bnn_port_read(void *data, size_t bytes)
{
    uint32_t arguments[3], missing;

    arguments[0] = standard_input;
    arguments[1] = (uint32_t)data;
    arguments[2] = bytes;
    missing = call(SYS_READ, arguments);
    return missing <= bytes ? (int)(bytes - missing) : -1;
}

/* SYS_WRITE returns how many bytes it did NOT write. */
int bnn_port_write(const void *data, size_t bytes)
{
    const uint8_t *from = (const uint8_t *)data;

    while (bytes > 0) {
        uint32_t arguments[3], missing;

        arguments[0] = standard_output;
        arguments[1] = (uint32_t)from;
        arguments[2] = bytes;
        missing = call(SYS_WRITE, arguments);
        if (missing >= bytes) {
            return -1;
        }
        from += bytes - missing;
        bytes = missing;
    }
    return 0;
}

void board_exit(int code)
{
    uint32_t arguments[2];

    arguments[0] = ADP_STOPPED_APPLICATION_EXIT;
    arguments[1] = (uint32_t)code;
    (void)call(SYS_EXIT_EXTENDED, arguments);
}
