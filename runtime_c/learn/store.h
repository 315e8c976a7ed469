/* SPDX-License-Identifier: Apache-2.0 */
/* store.h -- a bounded set of labelled latents, and two rules for what enters it (docs/numerics.md, 5.8). */
#ifndef BNN_LEARN_STORE_H
#define BNN_LEARN_STORE_H

#include "bnn/learn.h"

/* A view: the memory behind it is the learner's. Slots 0 .. *filled - 1 hold members. */
typedef struct {
    uint16_t *labels;  /* [slots] */
    uint32_t *latents; /* [slots][words] */
    uint32_t *seen;    /* [capacity] samples of each class offered so far */
    uint32_t *filled;
    uint64_t *rng;
    uint32_t slots, words, capacity;
} bnn_latent_store;

/* One refill by the random rule: `left` samples still to be offered, `take` of them to be taken; slots below `old`
 * still hold members from before. */
typedef struct {
    uint32_t left, take, old;
} bnn_store_refill;

/* Class-balanced: one reservoir per class inside a quota that shrinks as classes appear. */
void bnn_store_put_balanced(const bnn_latent_store *store, const uint32_t *latent, uint32_t label);

/* Random: `take` of the offered samples enter, each with the same probability, over random earlier members. */
void bnn_store_put_random(const bnn_latent_store *store, bnn_store_refill *refill, const uint32_t *latent, uint32_t label);

/* How many members a class has, and, of a class that was seen, how many it may have when class-balanced. */
uint32_t bnn_store_members(const bnn_latent_store *store, uint32_t label);
uint32_t bnn_store_quota(const bnn_latent_store *store, uint32_t label);

/* All members of the class leave, and its count becomes 0. */
void bnn_store_forget(const bnn_latent_store *store, uint32_t label);

/* Copy `words` words of a latent. */
void bnn_latent_copy(uint32_t *to, const uint32_t *from, uint32_t words);

#endif
