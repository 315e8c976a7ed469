/* SPDX-License-Identifier: Apache-2.0 */
/* replay.c -- the replay memory: put() under a policy, draw() with replacement (docs/numerics.md, 5.8).
 *
 * Slots 0 .. replayed-1 are filled. Class-balanced: one reservoir per class inside a quota that shrinks as
 * classes appear. Random: after experience i a random replay_slots / (i + 1) of the new samples enter.
 */
#include "fixed.h"
#include "internal.h"

void bnn_latent_copy(uint32_t *to, const uint32_t *from, uint32_t words)
{
    for (uint32_t i = 0; i < words; i++) {
        to[i] = from[i];
    }
}

static void store(bnn_learner *self, uint32_t slot, const uint32_t *latent, uint32_t label)
{
    const uint32_t words = self->config->latent_words;
    bnn_latent_copy(self->memory.replay_latents + (size_t)slot * words, latent, words);
    self->memory.replay_labels[slot] = (uint16_t)label;
}

static void move(bnn_learner *self, uint32_t to, uint32_t from)
{
    const size_t offset = (size_t)from * self->config->latent_words;
    store(self, to, self->memory.replay_latents + offset, self->memory.replay_labels[from]);
}

static uint32_t members(const bnn_learner *self, uint32_t label)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < self->state.replayed; slot++) {
        count += self->memory.replay_labels[slot] == label;
    }
    return count;
}

/* Slot of the class's member number `index`, in slot order. */
static uint32_t member(const bnn_learner *self, uint32_t label, uint32_t index)
{
    uint32_t slot = 0;
    while (self->memory.replay_labels[slot] != label || index-- != 0) {
        slot++;
    }
    return slot;
}

/* Equal parts for the classes seen; what is left over goes to the lowest class numbers, one slot each. */
static uint32_t quota(const bnn_learner *self, uint32_t label)
{
    const uint32_t slots = self->config->replay_slots;
    uint32_t classes = 0;
    uint32_t rank = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        classes += self->memory.seen[c] != 0;
        rank += c < label && self->memory.seen[c] != 0;
    }
    return slots / classes + (rank < slots % classes);
}

static void shrink_to_quota(bnn_learner *self, uint32_t label)
{
    const uint32_t limit = quota(self, label);
    for (uint32_t count = members(self, label); count > limit; count--) {
        const uint32_t slot = member(self, label, bnn_random_below(&self->state.rng, count));
        self->state.replayed--;
        if (slot != self->state.replayed) {
            move(self, slot, self->state.replayed);
        }
    }
}

static void put_balanced(bnn_learner *self, const uint32_t *latent, uint32_t label)
{
    uint32_t *const seen = self->memory.seen;
    const uint32_t first_of_class = seen[label] == 0;
    uint32_t count;
    uint32_t limit;
    seen[label] += seen[label] < 0x7FFFFFFFu;
    for (uint32_t c = 0; first_of_class && c < self->config->capacity; c++) {
        if (seen[c] != 0) {
            shrink_to_quota(self, c);
        }
    }
    count = members(self, label);
    limit = quota(self, label);
    if (count < limit) {
        store(self, self->state.replayed++, latent, label);
    } else if (limit != 0) {
        const uint32_t pick = bnn_random_below(&self->state.rng, seen[label]);
        if (pick < count) {
            store(self, member(self, label, pick), latent, label);
        }
    }
}

/* Selection sampling: of the `left` samples to come, `take` are still wanted. */
static void put_random(bnn_learner *self, bnn_replay_refill *refill, const uint32_t *latent, uint32_t label)
{
    self->memory.seen[label] += self->memory.seen[label] < 0x7FFFFFFFu;
    if (bnn_random_below(&self->state.rng, refill->left) < refill->take) {
        refill->take--;
        if (self->state.replayed < self->config->replay_slots) {
            store(self, self->state.replayed++, latent, label);
        } else { /* the last old member takes the victim's slot, so that no new sample is a victim */
            const uint32_t victim = bnn_random_below(&self->state.rng, refill->old--);
            if (victim != refill->old) {
                move(self, victim, refill->old);
            }
            store(self, refill->old, latent, label);
        }
    }
    refill->left--;
}

bnn_replay_refill bnn_replay_begin(const bnn_learner *self, uint32_t offered)
{
    const uint32_t share = self->config->replay_slots / (self->state.experiences + 1u);
    bnn_replay_refill refill;
    refill.left = offered;
    refill.take = share < offered ? share : offered;
    refill.old = self->state.replayed;
    return refill;
}

void bnn_replay_put(bnn_learner *self, bnn_replay_refill *refill, const uint32_t *latent, uint32_t label)
{
    if (self->config->policy == BNN_LEARN_BALANCED) {
        put_balanced(self, latent, label);
    } else {
        put_random(self, refill, latent, label);
    }
}

uint32_t bnn_replay_draw(bnn_learner *self)
{
    return bnn_random_below(&self->state.rng, self->state.replayed);
}
