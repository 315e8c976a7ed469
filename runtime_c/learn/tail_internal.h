/* SPDX-License-Identifier: Apache-2.0 */
/* tail_internal.h -- what the files of the trainable tail share. Not for users. */
#ifndef BNN_TAIL_INTERNAL_H
#define BNN_TAIL_INTERNAL_H

#include "bnn/kernel.h"
#include "bnn/tail.h"
#include "fixed.h"
#include "tail_lanes.h"

enum { VECTOR_BITS = 15, SLOPE_BITS = 24, STEP_BITS = 16, GUARD_BITS = 8, SLOPE_KEPT = 12, STREAM_MAX = 32767 };

/* Places of a block's vectors; those behind SHIFT move up where a block has none. */
enum { SCALE = 0, BIAS = 1, SHIFT = 2, BEFORE = 2, SLOPE = 3, BEHIND = 4 };

/* Sizes that everything is counted in. */
typedef struct {
    uint32_t channels, words, pixels;
    uint32_t kernel; /* weights of a block */
    uint32_t signs;  /* words of a block's packed kernel */
    uint32_t map;    /* P * C */
    uint32_t packed; /* P * words */
} tail_sizes;

static inline tail_sizes tail_sizes_of(const bnn_tail_config *config)
{
    tail_sizes s;
    s.channels = config->channels;
    s.words = (config->channels + 31u) / 32u;
    s.pixels = config->height * config->width;
    s.kernel = 9u * s.channels * s.channels;
    s.signs = 9u * s.channels * s.words;
    s.map = s.pixels * s.channels;
    s.packed = s.pixels * s.words;
    return s;
}

static inline uint32_t tail_vector_count(const bnn_tail_block *block)
{
    return 2u + (block->shifted != 0 ? 1u : 0u) + (block->curved != 0 ? 3u : 0u);
}

/* Place of a vector in its block: `kind` as above, for the three of an RPReLU behind the shift. */
static inline uint32_t tail_curve_place(const bnn_tail_block *block, uint32_t kind)
{
    return kind + (block->shifted != 0 ? 1u : 0u);
}

/* Largest magnitude of a vector's entries: M, of a slope M_s (docs/numerics.md, 6). */
static inline int32_t tail_vector_limit(const bnn_tail_block *block, uint32_t place)
{
    const int slope = block->curved != 0 && place == tail_curve_place(block, SLOPE);
    return slope ? (int32_t)8 << SLOPE_BITS : (int32_t)STREAM_MAX << VECTOR_BITS;
}

/* Number of vectors of the blocks in front of b; with b = count, of all. */
static inline uint32_t tail_vectors_before(const bnn_tail_config *config, uint32_t b)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < b; i++) {
        sum += tail_vector_count(&config->blocks[i]);
    }
    return sum;
}

/* floor(v / 2^shift + 1/2), shift counted up to 62; |v| <= 2^62. */
static inline int64_t tail_shift(int64_t v, int32_t shift)
{
    return bnn_round_shift(v, shift > 62 ? 62 : shift);
}

/* v * 2^-shift, exact where shift is negative (as far as the caller's bounds allow). */
static inline int64_t tail_scale(int64_t v, int32_t shift)
{
    return shift < 0 ? v * ((int64_t)1 << -shift) : tail_shift(v, shift);
}

static inline int32_t tail_clip(int64_t v)
{
    return bnn_learn_clamp(v, -STREAM_MAX, STREAM_MAX);
}

static inline int tail_bit(const uint32_t *words, uint32_t place)
{
    return (int)((words[place / 32u] >> (place % 32u)) & 1u);
}

/* tail.c: the packed signs of a set's latents. */
void bnn_tail_pack(const bnn_tail_config *config, const bnn_tail_parameters *set);

/* tail_forward.c: out[P][C] = accumulators of block b's convolution, of the signs in memory.bits. |acc| <= 9 C. */
void bnn_tail_accumulate(const bnn_tail *self, const bnn_tail_parameters *set, uint32_t b, int16_t *out);

/* tail_forward.c: memory.stream = levels of a packed latent. */
void bnn_tail_unpack(const bnn_tail *self, const uint32_t *latent);

/* tail_forward.c: memory.stream through block b; leaves its signs and masks, and its accumulators in memory.inner. */
void bnn_tail_run_block(const bnn_tail *self, const bnn_tail_parameters *set, uint32_t b);

/* tail_input.c: memory.wide = gradient of the signs that block b read, from memory.inner; 0 where the mask is. */
void bnn_tail_input_gradient(const bnn_tail *self, uint32_t b);

/* tail_sums.c: sums of block b += filter gradient of memory.inner at that exponent; memory.inner is used up. */
void bnn_tail_add_kernel(bnn_tail *self, uint32_t b, int32_t exponent);

/* tail_sums.c: sums of a block's vector += memory.total at that exponent. */
void bnn_tail_add_vector(bnn_tail *self, uint32_t b, uint32_t place, int32_t exponent);

#endif
