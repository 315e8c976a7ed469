/* SPDX-License-Identifier: Apache-2.0 */
/* trained.h -- a trainable tail (bnn/tail.h) as a part of a learner (bnn/learn.h), for gradient heads of at most 16 bits.
 * Every value is defined in docs/numerics.md, section 6.11. */
#ifndef BNN_TRAINED_H
#define BNN_TRAINED_H

#include "bnn/tail.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What `blocks` of bnn_learn_parts points to. The owner sets all fields but `flips`, `tail` by bnn_tail_init. */
typedef struct {
    bnn_tail tail;
    int32_t *dx;       /* [features] gradient at the features, used only inside one call */
    int32_t grad_mult; /* 1 / (F * L) with 15 bits */
    int32_t grad_shift;
    uint32_t noise; /* 32nds of a drawn latent's bits that are flipped in training, below 32 */
    uint64_t flips; /* generator of those flips, seeded anew for each minibatch */
} bnn_trained;

extern const bnn_tail_ops bnn_trained_tail;

#ifdef __cplusplus
}
#endif

#endif
