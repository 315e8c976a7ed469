/* SPDX-License-Identifier: Apache-2.0 */
/* feature[f] = (sum of pixels 6f .. 6f+5) / 8 - 96; score[c] = sum of feature[f] * ((5f + 3c) % 7 - 3). */
#include "tiny.h"

/* A table of zeros that gives the size measurements something to find. */
extern const int32_t tiny_table[256];
const int32_t tiny_table[256] = {0};

static volatile uint32_t sink;

/* Recursion on purpose: what no generated program does. */
static void dig(uint32_t depth) /* NOLINT */
{
    volatile uint8_t hole[64];

    hole[0] = (uint8_t)depth;
    if (depth > 0) {
        dig(depth - 1);
    }
    sink += hole[0];
}

static void misbehave(const uint8_t *image)
{
    uint32_t i;

    for (i = 1; i < BNN_TINY_IMAGE_BYTES; i++) {
        if (image[i] != image[0]) {
            return;
        }
    }
    if (image[0] == TINY_FAULT) {
        sink = *(const volatile uint32_t *)(uintptr_t)0x9F000000u; /* memory on no target */
    } else if (image[0] == TINY_OVERFLOW) {
        dig(1000000);
    } else if (image[0] == TINY_DEEP) {
        dig(12);
    }
    while (image[0] == TINY_SILENCE) {
        sink++;
    }
}

bnn_status bnn_tiny_init(bnn_tiny *self, void *arena, size_t arena_bytes)
{
    if (arena_bytes < BNN_TINY_ARENA_BYTES) {
        return BNN_E_SIZE;
    }
    if (((uintptr_t)arena & 7u) != 0) {
        return BNN_E_ALIGN;
    }
    self->arena = (uint8_t *)arena;
    self->trace = NULL;
    self->trace_user = NULL;
    return BNN_OK;
}

void bnn_tiny_front(bnn_tiny *self, const uint8_t *image)
{
    int8_t *features = (int8_t *)self->arena;
    uint32_t f, i;

    misbehave(image);
    for (f = 0; f < BNN_TINY_FEATURES; f++) {
        int32_t sum = 0;
        for (i = 0; i < 6; i++) {
            sum += image[6 * f + i];
        }
        features[f] = (int8_t)(sum / 8 - 96);
    }
    if (self->trace != NULL) {
        self->trace(self->trace_user, 0, features, BNN_TINY_FEATURES);
    }
}

void bnn_tiny_tail(bnn_tiny *self)
{
    (void)self;
}

void bnn_tiny_scores(bnn_tiny *self, int32_t *scores)
{
    const int8_t *features = (const int8_t *)self->arena;
    int32_t c, f;

    for (c = 0; c < BNN_TINY_CLASSES; c++) {
        scores[c] = tiny_table[(uint8_t)features[c]];
        for (f = 0; f < BNN_TINY_FEATURES; f++) {
            scores[c] += features[f] * ((5 * f + 3 * c) % 7 - 3);
        }
    }
    if (self->trace != NULL) {
        self->trace(self->trace_user, 1, scores, 4 * BNN_TINY_CLASSES);
    }
}

void bnn_tiny_infer(bnn_tiny *self, const uint8_t *image, int32_t *scores)
{
    bnn_tiny_front(self, image);
    bnn_tiny_tail(self);
    bnn_tiny_scores(self, scores);
}

void bnn_tiny_pack(bnn_tiny *self, uint32_t *latent)
{
    const int8_t *features = (const int8_t *)self->arena;
    uint32_t f;

    latent[0] = 0;
    for (f = 0; f < BNN_TINY_FEATURES; f++) {
        latent[0] |= (uint32_t)(features[f] < 0) << f;
    }
}

void bnn_tiny_unpack(bnn_tiny *self, const uint32_t *latent)
{
    int8_t *features = (int8_t *)self->arena;
    uint32_t f;

    for (f = 0; f < BNN_TINY_FEATURES; f++) {
        features[f] = (latent[0] >> f) & 1u ? -64 : 64;
    }
}

const void *bnn_tiny_features(const bnn_tiny *self)
{
    return self->arena;
}

void *bnn_tiny_cut(const bnn_tiny *self)
{
    return self->arena;
}
