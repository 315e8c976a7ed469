/* SPDX-License-Identifier: Apache-2.0 */
/* tail_sums.c -- sums of gradients over a minibatch (docs/numerics.md, 6.6): the tail's second hot loop.
 *
 * A weight's share is the sum over pixels of +-gradient, the sign being that of the bit it read. That is the sum over
 * all pixels that count, less twice the sum over those whose bit is set: no products, and half the additions. */
#include "tail_internal.h"

enum { SAMPLE_MAX = 32767 }; /* a sample's share of any sum fits int16_t */

/* max over output channels of the sum over pixels of |rshift(gradient, shift)|; at most 4096 * 2^15. */
BNN_TAIL_HOT static int32_t most(const bnn_tail *self, int32_t shift)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const int32_t down = shift > 16 ? 16 : shift; /* |gradient| < 2^15 is 0 from there on */
    const int32_t half = down == 0 ? 0 : (int32_t)1 << (down - 1);
    const int16_t *g = self->memory.inner;
    int32_t *const sums = (int32_t *)(void *)self->memory.total;
    int32_t max = 0;
    for (uint32_t o = 0; o < s.channels; o++) {
        sums[o] = 0;
    }
    for (uint32_t pixel = 0; pixel < s.pixels; pixel++, g += s.channels) {
        for (uint32_t o = 0; o < s.channels; o++) {
            const int32_t v = (g[o] + half) >> down;
            sums[o] += v < 0 ? -v : v;
        }
    }
    for (uint32_t o = 0; o < s.channels; o++) {
        max = sums[o] > max ? sums[o] : max;
    }
    return max;
}

/* Bring the sums of a block to a smaller exponent. */
BNN_TAIL_HOT static void lower_sums(const bnn_tail *self, uint32_t b, int32_t shift)
{
    const tail_sizes s = tail_sizes_of(self->config);
    if (self->config->sum_bits == 16u) {
        int16_t *const sums = (int16_t *)self->memory.sums + b * s.kernel;
        const int32_t down = shift > 16 ? 16 : shift;
        const int32_t half = (int32_t)1 << (down - 1);
        for (uint32_t i = 0; i < s.kernel; i++) {
            sums[i] = (int16_t)((sums[i] + half) >> down);
        }
    } else {
        int32_t *const sums = (int32_t *)self->memory.sums + b * s.kernel;
        for (uint32_t i = 0; i < s.kernel; i++) {
            sums[i] = (int32_t)tail_shift(sums[i], shift);
        }
    }
}

/* Choose the exponent of the sums so that neither they nor the sample's share can overflow; bring them and
 * memory.inner to it. Returns 0 where the sample adds nothing. */
static int make_room(bnn_tail *self, uint32_t b, int32_t exponent)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const int64_t limit = self->config->sum_bits == 16u ? 0x7FFF : 0x7FFFFFFF;
    const int32_t old = self->sum_bound[b] == 0 ? exponent : self->sum_exponent[b];
    int32_t e = old < exponent ? old : exponent;
    int32_t share = most(self, exponent - e);
    int64_t bound = tail_shift(self->sum_bound[b], old - e);
    while (share > SAMPLE_MAX || bound + share > limit) {
        e--; /* ends: both halve */
        share = most(self, exponent - e);
        bound = tail_shift(self->sum_bound[b], old - e);
    }
    if (share == 0) {
        return 0;
    }
    if (self->sum_bound[b] != 0 && e != old) {
        lower_sums(self, b, old - e);
    }
    for (uint32_t i = 0; i < s.map; i++) {
        self->memory.inner[i] = (int16_t)tail_shift(self->memory.inner[i], exponent - e);
    }
    self->sum_exponent[b] = e;
    self->sum_bound[b] = (int32_t)(bound + share);
    return 1;
}

/* Rows first..last-1 of the gradient whose tap at `offset` (0..2) lies inside a map of `size` rows. */
static uint32_t first_row(uint32_t offset)
{
    return offset == 0 ? 1u : 0u;
}

static uint32_t last_row(uint32_t offset, uint32_t size)
{
    return offset == 2u ? size - 1u : size;
}

/* memory.row[tap][o] = sum over the pixels that count for a tap: all of them where the border reads +1. */
BNN_TAIL_HOT static void count_all(const bnn_tail *self, uint32_t b)
{
    const bnn_tail_config *const config = self->config;
    const uint32_t channels = config->channels;
    const int pad = config->blocks[b].pad;
    for (uint32_t tap = 0; tap < 9u; tap++) {
        int16_t *const row = self->memory.row + tap * channels;
        for (uint32_t o = 0; o < channels; o++) {
            row[o] = 0;
        }
        for (uint32_t y = pad != 0 ? 0 : first_row(tap / 3u);
             y < (pad != 0 ? config->height : last_row(tap / 3u, config->height)); y++) {
            for (uint32_t x = pad != 0 ? 0 : first_row(tap % 3u);
                 x < (pad != 0 ? config->width : last_row(tap % 3u, config->width)); x++) {
                tail_add_row(row, self->memory.inner + (y * config->width + x) * channels, channels);
            }
        }
    }
}

/* memory.lane[o] = sum over the pixels whose tap reads a set bit of this input channel: a part of a sample's share. */
BNN_TAIL_HOT static void count_set(const bnn_tail *self, uint32_t b, uint32_t channel, uint32_t tap)
{
    const bnn_tail_config *const config = self->config;
    const tail_sizes s = tail_sizes_of(config);
    const uint32_t *const bits = self->memory.bits + b * s.packed + channel / 32u;
    int16_t *const lane = self->memory.lane;
    for (uint32_t o = 0; o < s.channels; o++) {
        lane[o] = 0;
    }
    for (uint32_t y = first_row(tap / 3u); y < last_row(tap / 3u, config->height); y++) {
        for (uint32_t x = first_row(tap % 3u); x < last_row(tap % 3u, config->width); x++) {
            const uint32_t read = (y + tap / 3u - 1u) * config->width + x + tap % 3u - 1u;
            if (((bits[read * s.words] >> (channel % 32u)) & 1u) != 0) {
                tail_add_row(lane, self->memory.inner + (y * config->width + x) * s.channels, s.channels);
            }
        }
    }
}

/* sums[o] += row[o] - 2 * lane[o], which is at most a sample's share. */
BNN_TAIL_HOT static void add_wide(int32_t *sums, const int16_t *row, const int16_t *lane, uint32_t channels)
{
    for (uint32_t o = 0; o < channels; o++) {
        sums[o] += row[o] - 2 * lane[o];
    }
}

void bnn_tail_add_kernel(bnn_tail *self, uint32_t b, int32_t exponent)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const bnn_tail_memory *const m = &self->memory;
    uint32_t at = b * s.kernel;
    if (make_room(self, b, exponent) == 0) {
        return;
    }
    count_all(self, b);
    for (uint32_t channel = 0; channel < s.channels; channel++) {
        for (uint32_t tap = 0; tap < 9u; tap++, at += s.channels) {
            count_set(self, b, channel, tap);
            if (self->config->sum_bits == 16u) {
                tail_add_share((int16_t *)m->sums + at, m->row + tap * s.channels, m->lane, s.channels);
            } else {
                add_wide((int32_t *)m->sums + at, m->row + tap * s.channels, m->lane, s.channels);
            }
        }
    }
}

void bnn_tail_add_vector(bnn_tail *self, uint32_t b, uint32_t place, int32_t exponent)
{
    const uint32_t channels = self->config->channels;
    const int64_t *const share = self->memory.total;
    int64_t *const sums = self->memory.vector_sums + (tail_vectors_before(self->config, b) + place) * channels;
    int32_t *const e = &self->vector_exponent[b][place];
    int64_t any = 0;
    for (uint32_t c = 0; c < channels; c++) {
        any |= share[c];
    }
    if (any == 0) {
        return;
    }
    if (self->vector_used[b][place] == 0) {
        self->vector_used[b][place] = 1;
        *e = exponent + GUARD_BITS;
    }
    if (exponent + GUARD_BITS < *e) {
        for (uint32_t c = 0; c < channels; c++) {
            sums[c] = tail_shift(sums[c], *e - exponent - GUARD_BITS);
        }
        *e = exponent + GUARD_BITS;
    }
    for (uint32_t c = 0; c < channels; c++) {
        sums[c] += tail_scale(share[c], exponent - *e); /* below 2^53, 256 of them: docs/numerics.md, 6.8 */
    }
}
