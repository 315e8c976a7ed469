/* SPDX-License-Identifier: Apache-2.0 */
/* learn.h -- continual learning of a linear head over replayed 1-bit latents, in integers.
 *
 * The learner is a CWR* head (consolidated rows `cw`, trained rows `tw`), a bounded buffer of the present
 * experience's latents and a replay memory. It knows no model: a callback turns a packed latent into the
 * feature vector. Every value is defined in docs/numerics.md, section 5; the NumPy twin
 * (bnngen/continual/twin.py) computes the same bits.
 *
 *     begin -> add(latent, label) ... -> step() until it is not BNN_MORE -> end (consolidate)
 *
 * Between any two calls scores() is legal and answers from `cw`, which only end() changes. No allocation, no
 * globals, no floating point; the caller owns all memory.
 */
#ifndef BNN_LEARN_H
#define BNN_LEARN_H

#include "bnn/bnn.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BNN_LEARN_BALANCED = 0, BNN_LEARN_RANDOM = 1 };                                   /* policy */
enum { BNN_LEARN_IDLE = 0, BNN_LEARN_COLLECT = 1, BNN_LEARN_TRAIN = 2, BNN_LEARN_DONE = 3 }; /* phase */

/* Constants of one head, computed by bnngen/lower/learning.py and kept in flash. Names follow section 5. */
typedef struct {
    uint32_t features;      /* D: length of the feature vector */
    uint32_t capacity;      /* C: most classes */
    uint32_t latent_words;  /* 32-bit words of a packed latent */
    uint32_t replay_slots;
    uint32_t buffer_slots;
    uint32_t batch;         /* B: samples of one step */
    uint32_t new_per_batch; /* of which new when the replay memory has any; 0: in proportion to the classes */
    uint32_t epochs;
    uint32_t stream_type;   /* BNN_S8 or BNN_S16: of the feature vector */
    uint32_t policy;
    int32_t p_max;          /* 2^q_f - 1 */
    int32_t w_max;          /* 2^(q_f-1) - 1 */
    int32_t g_max;          /* 2^(q_b-1) - 1, also the largest stored weight */
    int32_t x_lo, x_hi;     /* operand range: -z .. p_max - z */
    int32_t x_shift;
    int32_t x_mult;
    int32_t t_shift;        /* softmax: K = (t_mult * R) >> 15 at shift t_shift + e */
    uint32_t t_mult;
    int32_t u_shift;        /* update: shift u_shift - e */
    int32_t u_mult;
    int32_t e_min, e_max;   /* range of the weight exponents */
} bnn_learn_config;

/* Fixed-width integers without padding: this block is state item 0. */
typedef struct {
    uint64_t rng;
    int32_t tw_exp, cw_exp;
    uint32_t phase;
    uint32_t experiences; /* finished ones that had samples */
    uint32_t added;       /* samples offered in this experience */
    uint32_t buffered;    /* of which the buffer holds this many */
    uint32_t replayed;    /* samples in the replay memory */
    uint32_t position;    /* in `order` */
    uint32_t fresh;       /* new samples in each step of this experience */
    uint32_t epoch_steps;
    uint32_t steps_done;
    uint32_t steps_total;
} bnn_learn_state;

/* Memory given by the caller. Weights are [capacity][features], latents [slots][latent_words]. */
typedef struct {
    uint32_t *past;            /* [capacity] */
    uint32_t *cur;             /* [capacity] */
    uint32_t *seen;            /* [capacity] samples offered to the replay memory */
    int16_t *cw;
    int16_t *tw;
    uint16_t *replay_labels;   /* [replay_slots] */
    uint32_t *replay_latents;
    uint16_t *buffer_labels;   /* [buffer_slots] */
    uint32_t *buffer_latents;
    uint16_t *order;           /* [buffer_slots] permutation of the buffer */
    /* Used only inside step(), end() and scores(); may hold anything between calls. */
    int32_t *dw;               /* [capacity][features] */
    int8_t *wq;                /* [capacity][features] */
    int16_t *x;                /* [features] */
    int32_t *acc;              /* [capacity] */
} bnn_learn_memory;

/* Feature vector (int8_t or int16_t [features]) of a packed latent; valid until the next call. */
typedef const void *(*bnn_features_fn)(void *user, const uint32_t *latent);

typedef struct {
    const bnn_learn_config *config;
    bnn_learn_memory memory;
    bnn_features_fn features;
    void *user;
    bnn_learn_state state;
} bnn_learner;

/* One piece of the learner's state, for inspection and storage. */
typedef struct {
    const void *data;
    size_t bytes;
} bnn_learn_item;

/* state, past, cur, seen, cw, tw, replay_labels, replay_latents, buffer_labels, buffer_latents, order */
enum { BNN_LEARN_ITEMS = 11 };

/* Forget everything and start the generator from `seed`. Clears all memory but the step-only part. */
void bnn_learner_init(bnn_learner *self, const bnn_learn_config *config, const bnn_learn_memory *memory,
                      bnn_features_fn features, void *user, uint64_t seed);

/* Open an experience. BNN_E_STATE when one is open. */
bnn_status bnn_learner_begin(bnn_learner *self);

/* Offer one sample. BNN_E_LABEL: label >= capacity. BNN_E_STATE: none open, or training has begun. */
bnn_status bnn_learner_add(bnn_learner *self, const uint32_t *latent, uint32_t label);

/* Train on one minibatch. BNN_MORE: call again. BNN_OK: nothing left. BNN_E_STATE: no open experience. */
bnn_status bnn_learner_step(bnn_learner *self);

/* Consolidate, refill the replay memory, close the experience. Legal after any step (early stopping) and for
 * an experience without samples, which changes nothing. BNN_E_STATE: not open, or samples but no step yet. */
bnn_status bnn_learner_end(bnn_learner *self);

/* Drop the open experience; the head and the replay memory stay as they were before begin(). */
bnn_status bnn_learner_abandon(bnn_learner *self);

/* scores[capacity] of a feature vector; INT32_MIN for classes never seen. Ties: the lowest index wins. */
void bnn_learner_scores(const bnn_learner *self, const void *features, int32_t *scores);

void bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS]);

#ifdef __cplusplus
}
#endif

#endif
