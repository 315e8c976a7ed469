/* SPDX-License-Identifier: Apache-2.0 */
/* The Cortex-M7's caches (ARMv7-M ARM, B2.2 and B3.2; they are empty of meaning after reset, and must be invalidated).
 * No DMA is used, so data in memory and in the cache need not be kept alike. */
#ifndef BNN_CORTEXM_CACHES_H
#define BNN_CORTEXM_CACHES_H

#include "board.h"

#define SCB_CCR REGISTER(0xE000ED14u)
#define SCB_CCSIDR REGISTER(0xE000ED80u)
#define SCB_CSSELR REGISTER(0xE000ED84u)
#define SCB_ICIALLU REGISTER(0xE000EF50u)
#define SCB_DCISW REGISTER(0xE000EF60u)
#define CCR_CACHES (3u << 16)
#define WAYS_SHIFT 30u /* of a cache of four ways, the Cortex-M7's data cache */
#define LINE_SHIFT 5u  /* lines of 32 bytes */

static inline void board_enable_caches(void)
{
    uint32_t set, way, sets;

    SCB_CSSELR = 0; /* the data cache */
    __asm__ volatile("dsb" ::: "memory");
    sets = (SCB_CCSIDR >> 13) & 0x7FFFu;
    SCB_ICIALLU = 0;
    for (set = 0; set <= sets; set++) {
        for (way = 0; way < 4u; way++) {
            SCB_DCISW = (way << WAYS_SHIFT) | (set << LINE_SHIFT);
        }
    }
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    SCB_CCR |= CCR_CACHES;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

#endif
