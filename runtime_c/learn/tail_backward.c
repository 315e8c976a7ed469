/* SPDX-License-Identifier: Apache-2.0 */
/* tail_backward.c -- one sample's way back through the trainable tail (docs/numerics.md, 6.5).
 *
 * Gradients are block floating point: int16 mantissas and one exponent for a tensor, the largest that fits. */
#include "tail_internal.h"

/* The gradient tensor in memory.gradient. */
typedef struct {
    int32_t exponent;
    int any; /* it is not all 0 */
} gradient;

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

/* Smallest shift with which a value of this size fits. */
static int32_t fitting_shift(int64_t max, int32_t limit)
{
    int32_t shift = 0;
    while (bnn_round_shift(max, shift) > limit) {
        shift++;
    }
    return shift;
}

/* out = memory.wide at the largest exponent that fits. */
BNN_TAIL_HOT static gradient store(const bnn_tail *self, int32_t exponent, int16_t *out)
{
    const uint32_t count = tail_sizes_of(self->config).map;
    const int32_t *const wide = self->memory.wide;
    gradient g;
    int32_t max = 0;
    int32_t shift, half;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t v = wide[i] < 0 ? -wide[i] : wide[i];
        max = v > max ? v : max;
    }
    shift = fitting_shift(max, self->config->g_max);
    half = shift == 0 ? 0 : (int32_t)1 << (shift - 1);
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (int16_t)((wide[i] + half) >> shift); /* |wide| <= 2^30 */
    }
    g.exponent = exponent - shift;
    g.any = max != 0;
    return g;
}

/* The gradient of the features, spread over the map: through the average, and the ReLU in front of it. */
static gradient spread(const bnn_tail *self, const int32_t *dx, int32_t exponent)
{
    const bnn_tail_config *const config = self->config;
    const tail_sizes s = tail_sizes_of(config);
    gradient g;
    int64_t max = 0;
    int32_t shift;
    for (uint32_t c = 0; c < s.channels; c++) {
        const int64_t v = magnitude((int64_t)dx[c] * config->pool_mult); /* below 2^62 */
        max = v > max ? v : max;
    }
    shift = fitting_shift(max, config->g_max);
    g.exponent = exponent + config->pool_shift - shift;
    g.any = 0;
    for (uint32_t c = 0; c < s.channels; c++) {
        const int16_t v = (int16_t)tail_shift((int64_t)dx[c] * config->pool_mult, shift);
        for (uint32_t pixel = 0; pixel < s.pixels; pixel++) {
            const int open = config->relu == 0 || tail_bit(self->memory.alive + pixel * s.words, c) != 0;
            self->memory.gradient[pixel * s.channels + c] = open ? v : (int16_t)0;
            g.any |= open && v != 0;
        }
    }
    return g;
}

static void clear_total(const bnn_tail *self)
{
    for (uint32_t c = 0; c < self->config->channels; c++) {
        self->memory.total[c] = 0;
    }
}

/* Sum over pixels of an int16 map, to a vector's sums. */
static void add_map(bnn_tail *self, uint32_t b, uint32_t place, const int16_t *map, int32_t exponent)
{
    const tail_sizes s = tail_sizes_of(self->config);
    clear_total(self);
    for (uint32_t pixel = 0; pixel < s.pixels; pixel++, map += s.channels) {
        for (uint32_t c = 0; c < s.channels; c++) {
            self->memory.total[c] += map[c];
        }
    }
    bnn_tail_add_vector(self, b, place, exponent);
}

/* Through prelu(x + before) + behind. What the PReLU read is computed again, from memory.stream, which holds the
 * block's input, and the accumulators in memory.inner. */
static gradient curve_back(bnn_tail *self, uint32_t b, const int32_t *vectors, gradient g)
{
    const bnn_tail_block *const block = &self->config->blocks[b];
    const tail_sizes s = tail_sizes_of(self->config);
    const uint32_t first = tail_curve_place(block, BEFORE);
    const int32_t *const before = vectors + first * s.channels;
    const int32_t *const slope = before + s.channels;
    add_map(self, b, first + BEHIND - BEFORE, self->memory.gradient, g.exponent);
    clear_total(self);
    for (uint32_t i = 0; i < s.map; i++) {
        const uint32_t c = i % s.channels;
        const int32_t acc = self->memory.inner[i];
        const int32_t y = block->relu != 0 && acc < 0 ? 0 : acc;
        const int64_t sum = (int64_t)y * vectors[c] + vectors[s.channels + c];
        const int32_t out = tail_clip(self->memory.stream[i] + tail_shift(sum, VECTOR_BITS));
        const int32_t u = out + (int32_t)tail_shift(before[c], VECTOR_BITS);
        const int32_t v = self->memory.gradient[i];
        if (u < 0) {
            self->memory.total[c] += (int64_t)v * u; /* 2^15 * 2^17 * 4096 pixels */
            self->memory.wide[i] = (int32_t)tail_shift((int64_t)v * slope[c], SLOPE_BITS - SLOPE_KEPT); /* 2^30 */
        } else {
            self->memory.wide[i] = v * (1 << SLOPE_KEPT);
        }
    }
    bnn_tail_add_vector(self, b, first + SLOPE - BEFORE, g.exponent + self->config->exponent);
    g = store(self, g.exponent + SLOPE_KEPT, self->memory.gradient);
    add_map(self, b, first, self->memory.gradient, g.exponent);
    return g;
}

/* memory.inner: accumulators -> their gradient, memory.gradient times scale. */
static gradient scale_back(bnn_tail *self, uint32_t b, const int32_t *scale, int32_t exponent)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const int relu = self->config->blocks[b].relu;
    int32_t max = 0;
    int32_t down = 0;
    for (uint32_t c = 0; c < s.channels; c++) {
        const int32_t v = scale[c] < 0 ? -scale[c] : scale[c];
        max = v > max ? v : max;
    }
    while ((max >> down) > 32767) {
        down++;
    }
    clear_total(self);
    for (uint32_t i = 0; i < s.map; i++) {
        const uint32_t c = i % s.channels;
        const int32_t acc = self->memory.inner[i];
        const int32_t v = self->memory.gradient[i];
        const int open = relu == 0 || acc > 0;
        self->memory.total[c] += open ? (int64_t)v * acc : 0;
        self->memory.wide[i] = open ? (int32_t)tail_shift((int64_t)v * scale[c], down) : 0; /* below 2^30 */
    }
    bnn_tail_add_vector(self, b, SCALE, exponent);
    return store(self, exponent + self->config->exponent + VECTOR_BITS - down, self->memory.inner);
}

/* memory.gradient + memory.inner, at the smaller exponent and 8 guard bits. */
static gradient join(const bnn_tail *self, gradient g, gradient d)
{
    const uint32_t count = tail_sizes_of(self->config).map;
    const int32_t common = (g.exponent < d.exponent ? g.exponent : d.exponent) + 8;
    for (uint32_t i = 0; i < count; i++) {
        self->memory.wide[i] = (int32_t)(tail_scale(self->memory.gradient[i], g.exponent - common) +
                                         tail_scale(self->memory.inner[i], d.exponent - common)); /* below 2^25 */
    }
    return store(self, common, self->memory.gradient);
}

/* From the block's output in memory.gradient to its input; the first block's input wants no gradient. */
static gradient block_back(bnn_tail *self, uint32_t b, gradient g)
{
    const bnn_tail_block *const block = &self->config->blocks[b];
    const tail_sizes s = tail_sizes_of(self->config);
    const int32_t *const vectors =
        self->memory.training.vectors + tail_vectors_before(self->config, b) * s.channels;
    gradient inner, d;
    if (block->curved != 0) {
        bnn_tail_unpack(self, self->latent);
        for (uint32_t i = 0; i < b; i++) {
            bnn_tail_run_block(self, &self->memory.training, i);
        }
    }
    bnn_tail_accumulate(self, &self->memory.training, b, self->memory.inner);
    if (block->curved != 0) {
        g = curve_back(self, b, vectors, g);
    }
    add_map(self, b, BIAS, self->memory.gradient, g.exponent);
    inner = scale_back(self, b, vectors, g.exponent);
    if (b == 0 && block->shifted == 0) {
        bnn_tail_add_kernel(self, b, inner.exponent);
        return g;
    }
    bnn_tail_input_gradient(self, b);
    bnn_tail_add_kernel(self, b, inner.exponent);
    d = store(self, inner.exponent, self->memory.inner);
    if (block->shifted != 0) {
        add_map(self, b, SHIFT, self->memory.inner, d.exponent);
    }
    if (b == 0 || d.any == 0) {
        return g;
    }
    if (g.any == 0) {
        for (uint32_t i = 0; i < s.map; i++) {
            self->memory.gradient[i] = self->memory.inner[i];
        }
        return d;
    }
    return join(self, g, d);
}

void bnn_tail_backward(bnn_tail *self, const int32_t *dx, int32_t exponent)
{
    gradient g = spread(self, dx, exponent);
    for (uint32_t b = self->config->count; b > 0 && g.any != 0; b--) {
        g = block_back(self, b - 1u, g);
    }
}
