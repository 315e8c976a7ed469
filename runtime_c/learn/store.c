/* SPDX-License-Identifier: Apache-2.0 */
/* store.c -- a bounded set of labelled latents (store.h). */
#include "store.h"

#include "fixed.h"

void bnn_latent_copy(uint32_t *to, const uint32_t *from, uint32_t words)
{
    for (uint32_t i = 0; i < words; i++) {
        to[i] = from[i];
    }
}

static void write(const bnn_latent_store *self, uint32_t slot, const uint32_t *latent, uint32_t label)
{
    bnn_latent_copy(self->latents + (size_t)slot * self->words, latent, self->words);
    self->labels[slot] = (uint16_t)label;
}

static void move(const bnn_latent_store *self, uint32_t to, uint32_t from)
{
    const size_t offset = (size_t)from * self->words;
    write(self, to, self->latents + offset, self->labels[from]);
}

uint32_t bnn_store_members(const bnn_latent_store *self, uint32_t label)
{
    uint32_t count = 0;
    for (uint32_t slot = 0; slot < *self->filled; slot++) {
        count += self->labels[slot] == label;
    }
    return count;
}

/* Slot of the class's member number `index`, in slot order. */
static uint32_t member(const bnn_latent_store *self, uint32_t label, uint32_t index)
{
    uint32_t slot = 0;
    while (self->labels[slot] != label || index-- != 0) {
        slot++;
    }
    return slot;
}

/* Equal parts for the classes seen; what is left over goes to the lowest class numbers, one slot each. */
uint32_t bnn_store_quota(const bnn_latent_store *self, uint32_t label)
{
    const uint32_t slots = self->slots;
    uint32_t classes = 0;
    uint32_t rank = 0;
    for (uint32_t c = 0; c < self->capacity; c++) {
        classes += self->seen[c] != 0;
        rank += c < label && self->seen[c] != 0;
    }
    return slots / classes + (rank < slots % classes);
}

static void shrink_to_quota(const bnn_latent_store *self, uint32_t label)
{
    const uint32_t limit = bnn_store_quota(self, label);
    for (uint32_t count = bnn_store_members(self, label); count > limit; count--) {
        const uint32_t slot = member(self, label, bnn_random_below(self->rng, count));
        (*self->filled)--;
        if (slot != *self->filled) {
            move(self, slot, *self->filled);
        }
    }
}

void bnn_store_put_balanced(const bnn_latent_store *self, const uint32_t *latent, uint32_t label)
{
    uint32_t *const seen = self->seen;
    const uint32_t first_of_class = seen[label] == 0;
    uint32_t count;
    uint32_t limit;
    seen[label] += seen[label] < 0x7FFFFFFFu;
    for (uint32_t c = 0; first_of_class && c < self->capacity; c++) {
        if (seen[c] != 0) {
            shrink_to_quota(self, c);
        }
    }
    count = bnn_store_members(self, label);
    limit = bnn_store_quota(self, label);
    if (count < limit) {
        write(self, (*self->filled)++, latent, label);
    } else if (limit != 0) {
        const uint32_t pick = bnn_random_below(self->rng, seen[label]);
        if (pick < count) {
            write(self, member(self, label, pick), latent, label);
        }
    }
}

/* Selection sampling: of the `left` samples to come, `take` are still wanted. */
void bnn_store_put_random(const bnn_latent_store *self, bnn_store_refill *refill, const uint32_t *latent, uint32_t label)
{
    self->seen[label] += self->seen[label] < 0x7FFFFFFFu;
    if (bnn_random_below(self->rng, refill->left) < refill->take) {
        refill->take--;
        if (*self->filled < self->slots) {
            write(self, (*self->filled)++, latent, label);
        } else { /* the last old member takes the victim's slot, so that no new sample is a victim */
            const uint32_t victim = bnn_random_below(self->rng, refill->old--);
            if (victim != refill->old) {
                move(self, victim, refill->old);
            }
            write(self, refill->old, latent, label);
        }
    }
    refill->left--;
}

void bnn_store_forget(const bnn_latent_store *self, uint32_t label)
{
    for (uint32_t slot = *self->filled; slot-- > 0;) { /* from the end, so that what moves in was looked at */
        if (self->labels[slot] == label) {
            (*self->filled)--;
            if (slot != *self->filled) {
                move(self, slot, *self->filled);
            }
        }
    }
    self->seen[label] = 0;
}
