/* SPDX-License-Identifier: Apache-2.0 */
/* tail_input.c -- gradient at the input of a binary convolution (docs/numerics.md, 6.5): the tail's first hot loop. */
#include "tail_internal.h"

/* row[8 - tap][o] = signs of a kernel's weights for one input channel: taps reversed, because a tap to the right of
 * the pixel that read it lies to the left of the pixel that was read. */
BNN_TAIL_HOT static void load_row(const bnn_tail *self, uint32_t b, uint32_t channel)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const uint32_t from = b * s.kernel + channel * 9u * s.channels;
    for (uint32_t tap = 0; tap < 9u; tap++) {
        int16_t *const row = self->memory.row + (8u - tap) * s.channels;
        if (self->config->latent_bits == 8u) {
            const int8_t *const latent = (const int8_t *)self->memory.training.latents + from + tap * s.channels;
            for (uint32_t o = 0; o < s.channels; o++) {
                row[o] = (int16_t)(latent[o] < 0 ? -1 : 1);
            }
        } else {
            const int16_t *const latent = (const int16_t *)self->memory.training.latents + from + tap * s.channels;
            for (uint32_t o = 0; o < s.channels; o++) {
                row[o] = (int16_t)(latent[o] < 0 ? -1 : 1);
            }
        }
    }
}

/* One pixel of one channel: the 3x3 pixels around it, as far as there are any, were reached by it. At most 9 * 1024
 * products of at most 32767: below 2^29. */
BNN_TAIL_HOT static int32_t pixel_gradient(const bnn_tail *self, uint32_t y, uint32_t x)
{
    const uint32_t channels = self->config->channels;
    const uint32_t left = x == 0 ? 1u : 0u;
    const uint32_t right = x + 1u == self->config->width ? 1u : 2u;
    int32_t sum = 0;
    for (uint32_t row = y == 0 ? 1u : 0u; row <= (y + 1u == self->config->height ? 1u : 2u); row++) {
        const uint32_t from = (y + row - 1u) * self->config->width + x + left - 1u;
        sum += tail_dot_row(self->memory.inner + from * channels, self->memory.row + (3u * row + left) * channels,
                            (right - left + 1u) * channels);
    }
    return sum;
}

void bnn_tail_input_gradient(const bnn_tail *self, uint32_t b)
{
    const tail_sizes s = tail_sizes_of(self->config);
    const uint32_t *const masks = self->memory.masks + b * s.packed;
    for (uint32_t c = 0; c < s.channels; c++) {
        load_row(self, b, c);
        for (uint32_t pixel = 0; pixel < s.pixels; pixel++) {
            const int open = tail_bit(masks + pixel * s.words, c);
            self->memory.wide[pixel * s.channels + c] =
                open != 0 ? pixel_gradient(self, pixel / self->config->width, pixel % self->config->width) : 0;
        }
    }
}
