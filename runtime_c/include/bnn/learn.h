/* SPDX-License-Identifier: Apache-2.0 */
/* learn.h -- continual learning over packed latents, in integers.
 *
 * A learner is put together from parts that are chosen when code is generated (docs/adr/0010-learning-in-full.md):
 *
 *     head     what is learned: a gradient head (CWR*, CWR+, SGD) or an analytic one (bnn/heads.h)
 *     replay   what stands for earlier experiences: stored latents, a generative model of them, or nothing
 *     tail     optional: the last residual blocks, trained too (bnn/tail.h)
 *
 * and a bounded buffer of the present experience's latents. It knows no model: a callback turns a packed latent into
 * the feature vector. Every value is defined in docs/numerics.md, section 5; the NumPy twin (bnngen/continual/twin.py)
 * computes the same bits.
 *
 *     begin -> add(latent, label) ... -> step() until it is not BNN_MORE -> end
 *
 * Between any two calls scores() is legal and answers from what was learned up to the last end(), which alone changes
 * it. No allocation, no globals, no floating point but in the float32 reference head; the caller owns all memory.
 */
#ifndef BNN_LEARN_H
#define BNN_LEARN_H

#include "bnn/bnn.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BNN_LEARN_BALANCED = 0, BNN_LEARN_RANDOM = 1 };                                   /* policy */
enum { BNN_LEARN_STAR = 0, BNN_LEARN_PLUS = 1, BNN_LEARN_LAST = 2 };                     /* consolidation */
enum { BNN_LEARN_IDLE = 0, BNN_LEARN_COLLECT = 1, BNN_LEARN_TRAIN = 2, BNN_LEARN_DONE = 3 }; /* phase */
enum { BNN_ROWS_KEPT = 0, BNN_ROWS_TRAINED = 1 }; /* which rows: those that answer, or those of the open experience */

/* Constants of one learner, computed by bnngen/lower/learning and kept in flash; 32 bits each, in the order of
 * CONFIG_FIELDS there. Names follow section 5. */
typedef struct {
    uint32_t features;      /* D: length of the feature vector */
    uint32_t capacity;      /* C: most classes */
    uint32_t latent_words;  /* 32-bit words of a packed latent */
    uint32_t replay_slots;  /* of a generative memory: how many samples it stands for */
    uint32_t buffer_slots;
    uint32_t batch;         /* B: samples of one step */
    uint32_t new_per_batch; /* of which new when the replay memory has any; 0: in proportion to the classes */
    uint32_t epochs;
    uint32_t stream_type;   /* BNN_S8 or BNN_S16: of the feature vector */
    uint32_t policy;        /* of stored latents */
    uint32_t consolidation;
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

/* Memory given by the caller; null where the parts in use need none. Rows are [capacity][features], latents
 * [slots][latent_words]. */
typedef struct {
    uint32_t *past;            /* [capacity] */
    uint32_t *cur;             /* [capacity] */
    uint32_t *seen;            /* [capacity] samples offered to the replay memory */
    void *cw;                  /* rows that answer; the head's type */
    void *tw;                  /* rows in training */
    uint16_t *replay_labels;   /* [replay_slots] */
    uint32_t *replay_latents;
    uint16_t *buffer_labels;   /* [buffer_slots] */
    uint32_t *buffer_latents;
    uint16_t *order;           /* [buffer_slots] permutation of the buffer */
    /* Used only inside one call; may hold anything between calls. */
    void *dw;                  /* [capacity][features] gradient of a minibatch */
    void *wq;                  /* [capacity][features] forward operands of the rows */
    int16_t *x;                /* [features] */
    int32_t *acc;              /* [capacity] */
} bnn_learn_memory;

typedef struct bnn_learner bnn_learner;

/* One piece of the learner's state, for inspection and storage. */
typedef struct {
    const void *data;
    size_t bytes;
} bnn_learn_item;

enum { BNN_LEARN_ITEMS = 32 }; /* most items of a learner */

/* A head. Gradient heads learn from minibatches of latents and use bnn_minibatch_step (learn/internal.h) as `step`;
 * analytic ones are handed every sample's feature vector by add(). Functions that a head does not need are null. */
typedef struct {
    void (*init)(bnn_learner *self); /* memory and state have been cleared */
    void (*begin)(bnn_learner *self);
    void (*observe)(bnn_learner *self, const void *features, uint32_t label); /* not null: add() needs features */
    void (*prepare)(bnn_learner *self); /* before the first step; `cur` holds the samples of each class */
    bnn_status (*step)(bnn_learner *self);
    void (*load)(bnn_learner *self, int rows); /* before score and, with BNN_ROWS_TRAINED, before a minibatch's samples */
    void (*score)(const bnn_learner *self, const void *features, int32_t *scores);
    void (*learn)(bnn_learner *self, const void *features, uint32_t label);   /* one sample of a minibatch */
    void (*update)(bnn_learner *self);                                        /* after its last sample */
    void (*propose)(bnn_learner *self); /* after training: the trained rows become those that would answer */
    void (*commit)(bnn_learner *self);  /* the trained rows answer from now on; `past` has grown already */
    void (*abandon)(bnn_learner *self);
    void (*forget)(bnn_learner *self, uint32_t label);
    uint32_t (*items)(const bnn_learner *self, bnn_learn_item *items); /* appends; returns how many */
} bnn_head_ops;

/* A replay memory. */
typedef struct {
    void (*count)(const bnn_learner *self, int32_t *samples); /* samples[c] += samples of c that it stands for */
    const uint32_t *(*draw)(bnn_learner *self, uint32_t *label); /* only when count() found any */
    void (*refill)(bnn_learner *self); /* takes in the buffer at the end of an experience */
    void (*forget)(bnn_learner *self, uint32_t label);
    uint32_t (*items)(const bnn_learner *self, bnn_learn_item *items);
} bnn_replay_ops;

/* Feature vector (int8_t or int16_t [features]) of a packed latent; valid until the next call. */
typedef const void *(*bnn_features_fn)(void *user, const uint32_t *latent);

/* What a learner is made of. `replay` null: no replay memory. */
typedef struct {
    const bnn_head_ops *head;
    const bnn_replay_ops *replay;
    bnn_features_fn features;
    void *user;
} bnn_learn_parts;

struct bnn_learner {
    const bnn_learn_config *config;
    bnn_learn_parts parts;
    bnn_learn_memory memory;
    int32_t loaded; /* of the rows that `load` has loaded: their largest magnitude */
    int32_t loaded_exp;
    bnn_learn_state state;
};

/* Heads and memories of learn/. */
extern const bnn_head_ops bnn_head_cwr16; /* CWR*, CWR+ or SGD by `consolidation`; q_b <= 16 */
extern const bnn_head_ops bnn_head_cwr32; /* the same with q_b = 32: rows int32_t, gradients int64_t */
extern const bnn_head_ops bnn_head_float; /* CWR* in float32, the reference */
extern const bnn_replay_ops bnn_replay_stored;

/* Forget everything and start the generator from `seed`. Clears all memory that is state. */
void bnn_learner_init(bnn_learner *self, const bnn_learn_config *config, const bnn_learn_parts *parts,
                      const bnn_learn_memory *memory, uint64_t seed);

/* Open an experience. BNN_E_STATE when one is open. */
bnn_status bnn_learner_begin(bnn_learner *self);

/* Offer one sample. `features`: its feature vector as inference reads it, for heads that observe; others take null.
 * BNN_E_LABEL: label >= capacity. BNN_E_STATE: none open, or training has begun. */
bnn_status bnn_learner_add(bnn_learner *self, const uint32_t *latent, const void *features, uint32_t label);

/* Train: one minibatch, or one bounded piece of a solution. BNN_MORE: call again. BNN_OK: nothing left. BNN_E_STATE: no
 * open experience. */
bnn_status bnn_learner_step(bnn_learner *self);

/* Take over what was learned, refill the replay memory, close the experience. Legal after any step of a gradient head
 * (early stopping) and for an experience without samples, which changes nothing. BNN_E_STATE: not open, or
 * samples but no step yet. */
bnn_status bnn_learner_end(bnn_learner *self);

/* Drop the open experience; what answers and the replay memory stay as they were before begin(). */
bnn_status bnn_learner_abandon(bnn_learner *self);

/* Forget a class: its row, its counts, its replayed samples. It scores as never seen until it is shown again.
 * BNN_E_LABEL, BNN_E_STATE (an experience is open). */
bnn_status bnn_learner_forget(bnn_learner *self, uint32_t label);

/* scores[capacity] of a feature vector; INT32_MIN for classes never seen. Ties: the lowest index wins. */
void bnn_learner_scores(bnn_learner *self, const void *features, int32_t *scores);

/* Fill in `items`; return how many there are. Item 0 is `state`. */
uint32_t bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS]);

#ifdef __cplusplus
}
#endif

#endif
