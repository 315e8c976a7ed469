/* SPDX-License-Identifier: Apache-2.0 */
/* bnn.h -- what every part of the runtime and every generated file shares: status codes, the ABI number,
 * compiler helpers, the types of the real-valued stream, the trace hook, and the checksum.
 *
 * C99 and C++11, freestanding: needs only stdint.h and stddef.h. Arithmetic is defined in docs/numerics.md. */
#ifndef BNN_BNN_H
#define BNN_BNN_H

#include <stddef.h>
#include <stdint.h>

/* Raised when a header changes in a way that generated code can notice. Generated files check it. */
#define BNN_RUNTIME_ABI 1

/* 0 and positive: done; negative: refused, and then outputs are untouched. */
typedef enum {
    BNN_OK = 0,
    BNN_MORE = 1,       /* done so far, call again */
    BNN_E_SIZE = -1,    /* a buffer or a length is too small or too large */
    BNN_E_ALIGN = -2,   /* a buffer is not aligned to BNN_ALIGN bytes */
    BNN_E_LABEL = -3,   /* a class label outside the capacity of the head */
    BNN_E_STATE = -4,   /* not legal now, for example a step outside an experience */
    BNN_E_RANGE = -5,   /* a value outside what the function accepts */
    BNN_E_COMMAND = -6, /* a command that the server does not know */
    BNN_E_FORMAT = -7,  /* data of another version, or damaged */
    BNN_E_MODEL = -8,   /* data of another model */
    BNN_E_IO = -9       /* the port could not read or write */
} bnn_status;

/* Alignment of the arena, and of every buffer in it. */
#define BNN_ALIGN 8u

#define BNN_CONCAT_(a, b) a##b
#define BNN_CONCAT(a, b) BNN_CONCAT_(a, b)

/* Stops the build where `condition` is false: an array type of negative size. */
#define BNN_STATIC_ASSERT(condition, name) typedef char BNN_CONCAT(bnn_assert_, name)[(condition) ? 1 : -1]

/* Kernels must be inlined: only then are the fields of their shape constants to the compiler. What is outlined is
 * the opposite: instances, so that each has the registers to itself, and hot loops that all shapes share. */
#if defined(__GNUC__)
#define BNN_INLINE static inline __attribute__((always_inline))
#define BNN_OUTLINE static __attribute__((noinline, unused))
#else
#define BNN_INLINE static inline
#define BNN_OUTLINE static
#endif

/* Element types. Those of the real-valued stream equal their size in bytes. BNN_F32 is that of float32 builds alone. */
#define BNN_BITS 0
#define BNN_S8 1
#define BNN_S16 2
#define BNN_F32 4

/* Called after each inference step with the step's output. */
typedef void (*bnn_trace_fn)(void *user, uint32_t step, const void *data, uint32_t bytes);

/* CRC-32 of IEEE 802.3 (reflected polynomial 0xEDB88320), four bits at a time: 16 words of table, in flash.
 * Start with 0; pass the result back in to continue over more data. */
static inline uint32_t bnn_crc32(uint32_t crc, const void *data, size_t bytes)
{
    static const uint32_t table[16] = {
        0x00000000u, 0x1DB71064u, 0x3B6E20C8u, 0x26D930ACu, 0x76DC4190u, 0x6B6B51F4u, 0x4DB26158u, 0x5005713Cu,
        0xEDB88320u, 0xF00F9344u, 0xD6D6A3E8u, 0xCB61B38Cu, 0x9B64C2B0u, 0x86D3D2D4u, 0xA00AE278u, 0xBDBDF21Cu};
    const uint8_t *byte = (const uint8_t *)data;
    size_t i;

    crc = ~crc;
    for (i = 0; i < bytes; i++) {
        crc ^= byte[i];
        crc = table[crc & 15u] ^ (crc >> 4);
        crc = table[crc & 15u] ^ (crc >> 4);
    }
    return ~crc;
}

#endif
