/* SPDX-License-Identifier: Apache-2.0 */
/* replay_generative.c -- the replay memory that keeps no samples: per class a mixture of Bernoulli distributions over
 * the latent bits, from which latents are drawn (docs/numerics.md, 5.14).
 *
 * A component is a number of samples n and, for each bit, how many of them had it set: no probabilities, no rounding.
 * n stays below 256; what leaves that range is halved, so that old samples fade. */
#include "fixed.h"
#include "internal.h"

enum { COUNT_MAX = 255, PRIOR_COUNT = 2, PRIOR_ONES = 1 }; /* a new component begins with one half for each bit */

static uint32_t bits_of(const bnn_learner *self)
{
    return self->config->latent_words * 32u;
}

/* n of each component of a class. */
static uint8_t *counts_of(const bnn_learner *self, uint32_t label)
{
    return self->memory.mix_counts + label * self->config->components;
}

/* Samples with a set bit, [bits], of a component of a class. */
static uint8_t *ones_of(const bnn_learner *self, uint32_t label, uint32_t component)
{
    return self->memory.mix_ones + ((size_t)label * self->config->components + component) * bits_of(self);
}

/* The memory's size in samples in equal parts, what is left over to the lowest class numbers; `rank`: of the class
 * among the `classes` that have been seen. A class stands for no more samples than it has had. */
static uint32_t stands_for(const bnn_learner *self, uint32_t label, uint32_t rank, uint32_t classes)
{
    const uint32_t slots = self->config->replay_slots;
    const uint32_t quota = slots / classes + (rank < slots % classes);
    return self->memory.seen[label] < quota ? self->memory.seen[label] : quota;
}

static uint32_t classes_seen(const bnn_learner *self)
{
    uint32_t classes = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        classes += self->memory.seen[c] != 0;
    }
    return classes;
}

static void count(const bnn_learner *self, int32_t *samples)
{
    const uint32_t classes = classes_seen(self);
    uint32_t rank = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        if (self->memory.seen[c] != 0) {
            samples[c] += (int32_t)stands_for(self, c, rank++, classes);
        }
    }
}

/* state.replayed = samples that the whole memory stands for; at most replay_slots. */
static void recount(bnn_learner *self)
{
    const uint32_t classes = classes_seen(self);
    uint32_t rank = 0;
    self->state.replayed = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        if (self->memory.seen[c] != 0) {
            self->state.replayed += stands_for(self, c, rank++, classes);
        }
    }
}

/* A class, in proportion to the samples it stands for. The parts sum up to state.replayed, which is above `left`; that
 * the walk ends at the last class, and below at the last component, matters only to a state that is not a learner's. */
static uint32_t draw_class(bnn_learner *self)
{
    const uint32_t classes = classes_seen(self);
    uint32_t left = bnn_random_below(&self->state.rng, self->state.replayed);
    uint32_t rank = 0;
    uint32_t label = 0;
    for (; label + 1u < self->config->capacity; label++) {
        if (self->memory.seen[label] != 0) {
            const uint32_t samples = stands_for(self, label, rank++, classes);
            if (left < samples) {
                break;
            }
            left -= samples;
        }
    }
    return label;
}

/* A component of a class, in proportion to its count; the sum is at most 255 * components. */
static uint32_t draw_component(bnn_learner *self, uint32_t label)
{
    const uint8_t *const counts = counts_of(self, label);
    uint32_t sum = 0;
    uint32_t component = 0;
    uint32_t left;
    for (uint32_t k = 0; k < self->config->components; k++) {
        sum += counts[k];
    }
    left = bnn_random_below(&self->state.rng, sum);
    while (component + 1u < self->config->components && left >= counts[component]) {
        left -= counts[component++];
    }
    return component;
}

/* Each bit is set with probability ones / n: a random byte, scaled to 0 .. n - 1, is below `ones`. A random word serves
 * four bits, its lowest byte first. */
static const uint32_t *draw(bnn_learner *self, uint32_t *label)
{
    uint32_t *const latent = self->memory.latent;
    const uint8_t *ones;
    uint32_t component;
    uint32_t n;
    *label = draw_class(self);
    component = draw_component(self, *label);
    ones = ones_of(self, *label, component);
    n = counts_of(self, *label)[component];
    for (uint32_t i = 0; i < self->config->latent_words; i++, ones += 32) {
        uint32_t word = 0;
        for (uint32_t bit = 0; bit < 32u; bit += 4u) {
            const uint32_t random = bnn_random(&self->state.rng);
            for (uint32_t j = 0; j < 4u; j++) {
                const uint32_t level = (((random >> (8u * j)) & 255u) * n) >> 8;
                word |= (uint32_t)(level < ones[bit + j]) << (bit + j);
            }
        }
        latent[i] = word;
    }
    return latent;
}

static uint32_t bit_of(const uint32_t *latent, uint32_t d)
{
    return (latent[d / 32u] >> (d % 32u)) & 1u;
}

/* n times the expected Hamming distance; at most 65536 * 255 < 2^24. */
static uint32_t distance(const uint8_t *ones, uint32_t n, const uint32_t *latent, uint32_t bits)
{
    uint32_t sum = 0;
    for (uint32_t d = 0; d < bits; d++) {
        sum += bit_of(latent, d) != 0 ? n - ones[d] : ones[d];
    }
    return sum;
}

/* The first unused component, else the nearest, of equal ones the first. Compared by products below 2^24 * 255 < 2^32. */
static uint32_t component_for(const bnn_learner *self, const uint32_t *latent, uint32_t label)
{
    const uint8_t *const counts = counts_of(self, label);
    const uint32_t bits = bits_of(self);
    uint32_t best = 0;
    uint32_t best_distance = 0;
    for (uint32_t k = 0; k < self->config->components; k++) {
        uint32_t found;
        if (counts[k] == 0) {
            return k;
        }
        found = distance(ones_of(self, label, k), counts[k], latent, bits);
        if (k == 0 || found * counts[best] < best_distance * counts[k]) {
            best = k;
            best_distance = found;
        }
    }
    return best;
}

static void take_in(bnn_learner *self, const uint32_t *latent, uint32_t label)
{
    const uint32_t component = component_for(self, latent, label);
    uint8_t *const ones = ones_of(self, label, component);
    uint8_t *const n = &counts_of(self, label)[component];
    const int fresh = *n == 0;
    const int full = *n == COUNT_MAX;
    for (uint32_t d = 0; d < bits_of(self); d++) { /* ones <= n, before and after */
        const uint32_t old = fresh ? (uint32_t)PRIOR_ONES : full ? (ones[d] + 1u) >> 1 : ones[d];
        ones[d] = (uint8_t)(old + bit_of(latent, d));
    }
    *n = (uint8_t)((fresh ? PRIOR_COUNT : full ? (COUNT_MAX + 1) >> 1 : *n) + 1);
    self->memory.seen[label] += self->memory.seen[label] < 0x7FFFFFFFu;
}

/* One pass over the buffer, in slot order; classes that return go on where they stopped. */
static void refill(bnn_learner *self)
{
    const uint32_t *latent = self->memory.buffer_latents;
    for (uint32_t i = 0; i < self->state.buffered; i++, latent += self->config->latent_words) {
        take_in(self, latent, self->memory.buffer_labels[i]);
    }
    recount(self);
}

/* Exact: nothing of a class is kept outside its own components. */
static void forget(bnn_learner *self, uint32_t label)
{
    const uint32_t components = self->config->components;
    bnn_learn_clear(counts_of(self, label), components);
    bnn_learn_clear(ones_of(self, label, 0), (size_t)components * bits_of(self));
    self->memory.seen[label] = 0;
    recount(self);
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    const size_t components = (size_t)self->config->capacity * self->config->components;
    list[0].data = self->memory.mix_counts;
    list[0].bytes = components;
    list[1].data = self->memory.mix_ones;
    list[1].bytes = components * bits_of(self);
    return 2;
}

/* Of a component: no more ones than samples, and at least one sample beside those that it begins with. */
static int component_fits(const uint8_t *ones, uint32_t n, uint32_t bits)
{
    int fit = n == 0 || n > PRIOR_COUNT;
    for (uint32_t d = 0; d < bits; d++) {
        fit &= ones[d] <= n;
    }
    return fit;
}

/* Classes that were seen have components, the others none, and state.replayed is what the parts sum up to. */
static int fits(bnn_learner *self)
{
    const uint32_t replayed = self->state.replayed;
    int fit = 1;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        const uint8_t *const counts = counts_of(self, c);
        for (uint32_t k = 0; k < self->config->components; k++) {
            fit &= component_fits(ones_of(self, c, k), counts[k], bits_of(self));
            fit &= self->memory.seen[c] != 0 || counts[k] == 0;
        }
        fit &= self->memory.seen[c] == 0 || counts[0] != 0;
    }
    recount(self);
    return fit != 0 && self->state.replayed == replayed;
}

const bnn_replay_ops bnn_replay_generative = {count, draw, refill, forget, items, fits};
