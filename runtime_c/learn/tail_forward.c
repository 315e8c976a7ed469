/* SPDX-License-Identifier: Apache-2.0 */
/* tail_forward.c -- the trainable tail's forward pass (docs/numerics.md, 6.3 and 6.4). */
#include "tail_internal.h"

/* Differing bits of n words. */
static inline int32_t differ(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
#if defined(__POPCNT__)
        sum += __builtin_popcount(a[i] ^ b[i]);
#else
        sum += bnn_popcount32(a[i] ^ b[i]);
#endif
    }
    return sum;
}

static int32_t ones(const uint32_t *a, uint32_t n)
{
    int32_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += bnn_popcount32(a[i]);
    }
    return sum;
}

/* The part of a 3x3 window inside the map: rows and columns of taps. */
typedef struct {
    uint32_t top, bottom, left, right;
} window;

static window window_at(const bnn_tail_config *config, uint32_t y, uint32_t x)
{
    window w;
    w.top = y == 0 ? 1u : 0u;
    w.bottom = y + 1u == config->height ? 1u : 2u;
    w.left = x == 0 ? 1u : 0u;
    w.right = x + 1u == config->width ? 1u : 2u;
    return w;
}

/* Differing bits of the taps outside the map, which read +1 (bit 0). */
static int32_t outside(const uint32_t *kernel, const window *w, uint32_t words)
{
    int32_t sum = 0;
    for (uint32_t tap = 0; tap < 9u; tap++) {
        const uint32_t row = tap / 3u;
        const uint32_t column = tap % 3u;
        if (row < w->top || row > w->bottom || column < w->left || column > w->right) {
            sum += ones(kernel + tap * words, words);
        }
    }
    return sum;
}

/* One pixel's accumulators: taps that count, less twice the differing bits. */
BNN_TAIL_HOT static void pixel_dots(const bnn_tail_config *config, const uint32_t *bits, const uint32_t *kernel,
                                    uint32_t pixel, int16_t *out)
{
    const tail_sizes s = tail_sizes_of(config);
    const uint32_t y = pixel / config->width;
    const uint32_t x = pixel % config->width;
    const window w = window_at(config, y, x);
    const uint32_t columns = w.right - w.left + 1u;
    const uint32_t inside = (w.bottom - w.top + 1u) * columns;
    for (uint32_t o = 0; o < s.channels; o++, kernel += 9u * s.words) {
        int32_t sum = 0;
        for (uint32_t row = w.top; row <= w.bottom; row++) {
            const uint32_t from = (y + row - 1u) * config->width + x + w.left - 1u;
            sum += differ(bits + from * s.words, kernel + (3u * row + w.left) * s.words, columns * s.words);
        }
        out[o] = (int16_t)((int32_t)(inside * s.channels) - 2 * sum); /* at most 9 * 1024 */
    }
}

void bnn_tail_accumulate(const bnn_tail *self, const bnn_tail_parameters *set, uint32_t b, int16_t *out)
{
    const bnn_tail_config *const config = self->config;
    const tail_sizes s = tail_sizes_of(config);
    const uint32_t *const kernel = set->signs + b * s.signs;
    const uint32_t *const bits = self->memory.bits + b * s.packed;
    for (uint32_t pixel = 0; pixel < s.pixels; pixel++) {
        int16_t *const at = out + pixel * s.channels;
        const window w = window_at(config, pixel / config->width, pixel % config->width);
        const uint32_t inside = (w.bottom - w.top + 1u) * (w.right - w.left + 1u);
        pixel_dots(config, bits, kernel, pixel, at);
        for (uint32_t o = 0; config->blocks[b].pad != 0 && inside < 9u && o < s.channels; o++) {
            const int32_t beyond = (int32_t)((9u - inside) * s.channels);
            at[o] = (int16_t)(at[o] + beyond - 2 * outside(kernel + o * 9u * s.words, &w, s.words));
        }
    }
}

/* Signs of stream + shift, and where its absolute value is at most 1.0. */
static void take_signs(const bnn_tail *self, uint32_t b, const int32_t *shift)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const int32_t one = (int32_t)1 << (self->config->exponent + VECTOR_BITS); /* exponent <= 14 */
    const int16_t *x = self->memory.stream;
    uint32_t *bits = self->memory.bits + b * s.packed;
    uint32_t *masks = self->memory.masks + b * s.packed;
    for (uint32_t i = 0; i < s.packed; i++) {
        bits[i] = 0;
        masks[i] = 0;
    }
    for (uint32_t pixel = 0; pixel < s.pixels; pixel++, x += s.channels, bits += s.words, masks += s.words) {
        for (uint32_t c = 0; c < s.channels; c++) {
            /* |x| <= 32767 and |shift| <= 32767 * 2^15: below 2^31 */
            const int32_t a = x[c] * ((int32_t)1 << VECTOR_BITS) + (shift == NULL ? 0 : shift[c]);
            bits[c / 32u] |= (a < 0 ? 1u : 0u) << (c % 32u);
            masks[c / 32u] |= (a <= one && a >= -one ? 1u : 0u) << (c % 32u);
        }
    }
}

/* prelu(x + before) + behind; |slope| <= 8 * 2^24, |x + before| <= 2^16. */
static int32_t curve(int32_t x, const int32_t *before, uint32_t channels)
{
    const int32_t *const slope = before + channels;
    const int32_t *const behind = slope + channels;
    const int32_t u = x + (int32_t)tail_shift(*before, VECTOR_BITS);
    const int64_t v = u < 0 ? tail_shift((int64_t)u * *slope, SLOPE_BITS) : u;
    return tail_clip(v + tail_shift(*behind, VECTOR_BITS));
}

void bnn_tail_run_block(const bnn_tail *self, const bnn_tail_parameters *set, uint32_t b)
{
    const bnn_tail_block *const block = &self->config->blocks[b];
    const tail_sizes s = tail_sizes_of(self->config);
    const int32_t *const scale = set->vectors + tail_vectors_before(self->config, b) * s.channels;
    const int32_t *const bias = scale + s.channels;
    const int32_t *const curved = scale + tail_curve_place(block, BEFORE) * s.channels;
    int16_t *x = self->memory.stream;
    const int16_t *acc = self->memory.inner;
    take_signs(self, b, block->shifted != 0 ? scale + SHIFT * s.channels : NULL);
    bnn_tail_accumulate(self, set, b, self->memory.inner);
    for (uint32_t pixel = 0; pixel < s.pixels; pixel++, x += s.channels, acc += s.channels) {
        for (uint32_t c = 0; c < s.channels; c++) {
            const int32_t y = block->relu != 0 && acc[c] < 0 ? 0 : acc[c];
            /* |y * scale + bias| < 2^14 * 2^30 + 2^30 */
            const int32_t out = tail_clip(x[c] + tail_shift((int64_t)y * scale[c] + bias[c], VECTOR_BITS));
            x[c] = (int16_t)(block->curved != 0 ? curve(out, curved + c, s.channels) : out);
        }
    }
}

/* Global average, behind a ReLU where there is one, whose open places are noted. */
static const int16_t *pool(const bnn_tail *self)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const int32_t n = (int32_t)s.pixels;
    uint32_t *const alive = self->memory.alive;
    for (uint32_t i = 0; self->config->relu != 0 && i < s.packed; i++) {
        alive[i] = 0;
    }
    for (uint32_t c = 0; c < s.channels; c++) {
        int32_t sum = 0; /* |sum| <= 4096 * 32767, and 2 * sum + n stays inside 2^29 */
        for (uint32_t pixel = 0; pixel < s.pixels; pixel++) {
            const int32_t x = self->memory.stream[pixel * s.channels + c];
            if (self->config->relu == 0) {
                sum += x;
            } else if (x > 0) {
                sum += x;
                alive[pixel * s.words + c / 32u] |= 1u << (c % 32u);
            }
        }
        sum = 2 * sum + n;
        self->memory.features[c] = (int16_t)((sum >= 0 ? sum : sum - 2 * n + 1) / (2 * n)); /* floor */
    }
    return self->memory.features;
}

static const int16_t *run(const bnn_tail *self, int training)
{
    for (uint32_t b = 0; b < self->config->count; b++) {
        bnn_tail_run_block(self, training != 0 ? &self->memory.training : &self->memory.committed, b);
    }
    return pool(self);
}

const int16_t *bnn_tail_forward(bnn_tail *self, const void *cut, int training)
{
    const bnn_tail_config *const config = self->config;
    const tail_sizes s = tail_sizes_of(config);
    const int8_t *const narrow = (const int8_t *)cut;
    const int16_t *const wide = (const int16_t *)cut;
    for (uint32_t i = 0; i < s.map; i++) {
        const int64_t q = config->cut_type == BNN_S8 ? narrow[i] : wide[i];
        const int64_t x = tail_shift(q * config->cut_mult[i % s.channels], config->cut_shift); /* below 2^46 */
        self->memory.stream[i] = (int16_t)tail_clip(x);
    }
    return run(self, training);
}

void bnn_tail_unpack(const bnn_tail *self, const uint32_t *latent)
{
    const bnn_tail_config *const config = self->config;
    const tail_sizes s = tail_sizes_of(config);
    int16_t *x = self->memory.stream;
    for (uint32_t pixel = 0; pixel < s.pixels; pixel++, latent += s.words, x += s.channels) {
        for (uint32_t c = 0; c < s.channels; c++) {
            x[c] = tail_bit(latent, c) != 0 ? config->low[c] : config->high[c];
        }
    }
}

const int16_t *bnn_tail_replay(bnn_tail *self, const uint32_t *latent, int training)
{
    self->latent = latent;
    bnn_tail_unpack(self, latent);
    return run(self, training);
}
