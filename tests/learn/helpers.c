/* SPDX-License-Identifier: Apache-2.0 */
/* helpers.c -- the learner's arithmetic helpers on numbers from standard input (test_arithmetic.py). */
#include <inttypes.h>
#include <stdio.h>

#include "fixed.h"
#include "softmax.c" /* for its static exponential */

int main(void)
{
    uint64_t value;
    uint64_t rng = 0;
    uint32_t crc = 0;
    int first = 1;
    while (scanf("%" SCNu64, &value) == 1) {
        if (first) {
            bnn_random_seed(&rng, value);
            first = 0;
        }
        printf("%" PRIu32 " %" PRId64 " %" PRIu32 "\n", bnn_isqrt(value),
               bnn_round_shift((int64_t)value >> 2, (int32_t)(value % 62u)), bnn_random_below(&rng, (uint32_t)value));
    }
    for (uint32_t t = 0; t <= 18u << 16; t++) {
        const uint32_t e = exp2_negative(t);
        crc = bnn_crc32(crc, &e, sizeof e);
    }
    printf("%" PRIu32 "\n", crc);
    return 0;
}
