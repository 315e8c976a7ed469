/* SPDX-License-Identifier: Apache-2.0 */
/* tail.c -- the trainable tail's parameters: two sets, their packed signs, their state (docs/numerics.md, 6.2, 6.9). */
#include "tail_internal.h"

#define FULL_RATE 65536u

enum { TO_16_BITS = 258 }; /* 127 * 258 = 32766 */

static void copy_bytes(void *to, const void *from, size_t bytes)
{
    unsigned char *const d = (unsigned char *)to;
    const unsigned char *const s = (const unsigned char *)from;
    for (size_t i = 0; i < bytes; i++) {
        d[i] = s[i];
    }
}

static size_t latent_bytes(const bnn_tail_config *config)
{
    return (size_t)config->count * tail_sizes_of(config).kernel * (config->latent_bits / 8u);
}

static size_t vector_bytes(const bnn_tail_config *config)
{
    return (size_t)tail_vectors_before(config, config->count) * config->channels * sizeof(int32_t);
}

static int negative(const bnn_tail_config *config, const void *latents, uint32_t i)
{
    return config->latent_bits == 8u ? ((const int8_t *)latents)[i] < 0 : ((const int16_t *)latents)[i] < 0;
}

/* signs = those of the latents; from [in][tap][out] to [out][tap][packed in]. */
void bnn_tail_pack(const bnn_tail_config *config, const bnn_tail_parameters *set)
{
    const tail_sizes s = tail_sizes_of(config);
    for (uint32_t b = 0; b < config->count; b++) {
        uint32_t *const signs = set->signs + b * s.signs;
        uint32_t at = b * s.kernel;
        for (uint32_t i = 0; i < s.signs; i++) {
            signs[i] = 0;
        }
        for (uint32_t channel = 0; channel < s.channels; channel++) {
            uint32_t *const word = signs + channel / 32u;
            const uint32_t bit = 1u << (channel % 32u);
            for (uint32_t tap = 0; tap < 9u; tap++) {
                for (uint32_t o = 0; o < s.channels; o++, at++) {
                    word[(o * 9u + tap) * s.words] |= negative(config, set->latents, at) ? bit : 0u;
                }
            }
        }
    }
}

static void load(const bnn_tail_config *config, const bnn_tail_parameters *set)
{
    const tail_sizes s = tail_sizes_of(config);
    for (uint32_t b = 0; b < config->count; b++) {
        const bnn_tail_block *const block = &config->blocks[b];
        for (uint32_t i = 0; i < s.kernel; i++) {
            if (config->latent_bits == 8u) {
                ((int8_t *)set->latents)[b * s.kernel + i] = block->latent[i];
            } else {
                ((int16_t *)set->latents)[b * s.kernel + i] = (int16_t)(block->latent[i] * TO_16_BITS);
            }
        }
        copy_bytes(set->vectors + tail_vectors_before(config, b) * s.channels, block->vectors,
                   (size_t)tail_vector_count(block) * s.channels * sizeof(int32_t));
    }
    bnn_tail_pack(config, set);
}

static void copy_set(const bnn_tail_config *config, const bnn_tail_parameters *to, const bnn_tail_parameters *from)
{
    copy_bytes(to->latents, from->latents, latent_bytes(config));
    copy_bytes(to->vectors, from->vectors, vector_bytes(config));
    copy_bytes(to->signs, from->signs, (size_t)config->count * tail_sizes_of(config).signs * sizeof(uint32_t));
}

void bnn_tail_init(bnn_tail *self, const bnn_tail_config *config, const bnn_tail_memory *memory)
{
    self->config = config;
    self->memory = *memory;
    self->rate = FULL_RATE;
    self->latent = NULL;
    load(config, &memory->committed);
    bnn_tail_prepare(self);
    bnn_tail_clear(self);
}

void bnn_tail_prepare(bnn_tail *self)
{
    copy_set(self->config, &self->memory.training, &self->memory.committed);
}

void bnn_tail_set_rate(bnn_tail *self, uint32_t rate)
{
    self->rate = rate < FULL_RATE ? rate : FULL_RATE;
}

void bnn_tail_commit(bnn_tail *self)
{
    copy_set(self->config, &self->memory.committed, &self->memory.training);
}

static int inside(const int32_t *values, uint32_t count, int32_t limit)
{
    int fit = 1;
    for (uint32_t i = 0; i < count; i++) {
        fit &= values[i] <= limit && values[i] >= -limit;
    }
    return fit;
}

/* Vectors are within the limits on which the bounds of the arithmetic rest. Latents may be any: their signs count. */
static int vectors_fit(const bnn_tail_config *config, const int32_t *vectors)
{
    int fit = 1;
    for (uint32_t b = 0; b < config->count; b++) {
        const bnn_tail_block *const block = &config->blocks[b];
        for (uint32_t place = 0; place < tail_vector_count(block); place++, vectors += config->channels) {
            fit &= inside(vectors, config->channels, tail_vector_limit(block, place));
        }
    }
    return fit;
}

bnn_status bnn_tail_restore(bnn_tail *self)
{
    const bnn_tail_parameters *const committed = &self->memory.committed;
    const bnn_tail_parameters *const training = &self->memory.training;
    if (!vectors_fit(self->config, committed->vectors) || !vectors_fit(self->config, training->vectors)) {
        return BNN_E_FORMAT;
    }
    bnn_tail_pack(self->config, committed);
    bnn_tail_pack(self->config, training);
    return BNN_OK;
}

void bnn_tail_clear(bnn_tail *self)
{
    const bnn_tail_config *const config = self->config;
    const tail_sizes s = tail_sizes_of(config);
    unsigned char *const sums = (unsigned char *)self->memory.sums;
    const size_t bytes = (size_t)config->count * s.kernel * (config->sum_bits / 8u);
    const uint32_t vectors = tail_vectors_before(config, config->count) * s.channels;
    for (size_t i = 0; i < bytes; i++) {
        sums[i] = 0;
    }
    for (uint32_t i = 0; i < vectors; i++) {
        self->memory.vector_sums[i] = 0;
    }
    for (uint32_t b = 0; b < BNN_TAIL_MOST_BLOCKS; b++) {
        self->sum_exponent[b] = 0;
        self->sum_bound[b] = 0;
        for (uint32_t place = 0; place < BNN_TAIL_VECTORS; place++) {
            self->vector_exponent[b][place] = 0;
            self->vector_used[b][place] = 0;
        }
    }
}

uint32_t bnn_tail_items(const bnn_tail *self, bnn_learn_item *items)
{
    const bnn_tail_parameters *const sets[2] = {&self->memory.committed, &self->memory.training};
    for (uint32_t i = 0; i < 2u; i++) {
        items[2u * i].data = sets[i]->latents;
        items[2u * i].bytes = latent_bytes(self->config);
        items[2u * i + 1u].data = sets[i]->vectors;
        items[2u * i + 1u].bytes = vector_bytes(self->config);
    }
    return BNN_TAIL_ITEMS;
}
