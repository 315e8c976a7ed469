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
enum { BNN_VERDICT_NONE = 0, BNN_ACCEPTED = 1, BNN_REFUSED_DROP = 2, BNN_REFUSED_LEAST = 3, BNN_REFUSED_NEW = 4 }; /* verdict */
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
    uint32_t hold_every;     /* of a class's samples in an experience, every so manyth is held back; 0: none */
    uint32_t hold_slots;     /* of held-back samples that are kept */
    uint32_t hold_new_slots; /* of those of the open experience */
    uint32_t accept_drop;    /* percentage points that the accuracy on known classes may fall */
    uint32_t accept_least;   /* percent: least accuracy afterwards */
    uint32_t accept_new;     /* percent of the accuracy on known samples before: least accuracy on new ones */
    uint32_t reject;         /* percent of known samples that the threshold would reject; 0: no threshold */
    uint32_t lead_slots;   /* of memory.leads */
    uint32_t components;     /* of a class, in a generative memory */
    /* analytic heads, section 5.11 */
    uint32_t mapped;          /* n: length of a row: features, and projections of them */
    uint32_t projection_seed;
    int32_t phi_shift;
    int32_t phi_max;
    int32_t row_max;          /* largest value of a row */
    int32_t row_shift;        /* nearest mean: fraction bits of a row */
    uint32_t shrinkage;       /* share / (1 - share), or the penalty of ridge regression; 12 fraction bits */
    uint32_t moment_sets;     /* 1, or capacity: second moments by class */
    uint32_t regress;         /* ridge regression instead of discriminants */
    uint32_t undo;            /* sums of the open experience are apart, so that it can be dropped */
    uint32_t x_root;        /* with `centre`: heads read square roots of the features */
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
    uint32_t held;         /* held-back samples that are kept */
    uint32_t held_new;     /* of the open experience */
    uint32_t held_offered; /* of the open experience, whether there was a slot or not */
    uint32_t verdict;      /* on the last experience, and the counts it rests on: */
    uint32_t known;        /* kept samples of classes known before */
    uint32_t known_before; /* of which right before the experience */
    uint32_t known_after;  /* and right with what it taught */
    uint32_t judged;       /* those and the held-back samples of the experience, held_new */
    uint32_t new_right;    /* of the latter, right with what it taught */
    uint32_t threshold;    /* least lead of the best score over the mean that counts as known; 0: any */
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
    /* Held-back samples (govern.c): never trained on. */
    uint32_t *hold_seen;       /* [capacity] samples offered to the kept ones */
    uint32_t *hold_counts;     /* [capacity] samples of the open experience */
    uint16_t *hold_labels;     /* [hold_slots] */
    uint32_t *hold_latents;
    uint16_t *hold_new_labels; /* [hold_new_slots] */
    uint32_t *hold_new_latents;
    uint32_t *leads;         /* [lead_slots] used only inside one call */
    /* Generative memory (replay_generative.c). */
    uint8_t *mix_counts;       /* [capacity][components] samples of a component, at most 255 */
    uint8_t *mix_ones;         /* [capacity][components][latent_words * 32] of which with a set bit */
    uint32_t *latent;          /* [latent_words] a drawn one; used only inside one call */
    /* Analytic heads; rows are [capacity][mapped], moments lower triangles. */
    int32_t *bias;         /* [capacity] of cw */
    int32_t *new_bias;     /* of tw */
    int32_t *sums;         /* [capacity][mapped] */
    int32_t *new_sums;
    int32_t *moments;      /* [moment_sets][mapped (mapped + 1) / 2] */
    int32_t *new_moments;
    int16_t *factor;       /* [mapped (mapped + 1) / 2 + mapped] from the first step to the last */
    int64_t *penalty;      /* [1] likewise */
    int64_t *vector;       /* [mapped] used only inside one call; x has room for [mapped] as well */
} bnn_learn_memory;

typedef struct bnn_learner bnn_learner;

/* One piece of the learner's state, for inspection and storage. */
typedef struct {
    const void *data;
    size_t bytes;
    void *fresh; /* not null: 32-bit sums, and those of the open experience; bnn_learner_merge() adds to them */
} bnn_learn_item;

enum { BNN_LEARN_ITEMS = 32 }; /* most items of a learner */

/* A head. Gradient heads learn from minibatches of latents and use bnn_minibatch_step (learn/internal.h) as `step`;
 * analytic ones are handed every sample's feature vector by add(). Functions that a head does not need are null. */
typedef struct {
    void (*init)(bnn_learner *self); /* memory and state have been cleared */
    void (*begin)(bnn_learner *self);
    bnn_status (*observe)(bnn_learner *self, const void *features, uint32_t label); /* not null: add() needs features */
    void (*prepare)(bnn_learner *self); /* before the first step; `cur` holds the samples of each class */
    bnn_status (*step)(bnn_learner *self);
    void (*load)(bnn_learner *self, int rows); /* before score and, with BNN_ROWS_TRAINED, before a minibatch's samples */
    void (*score)(const bnn_learner *self, const void *features, int32_t *scores);
    void (*learn)(bnn_learner *self, const void *features, uint32_t label);   /* one sample of a minibatch */
    void (*update)(bnn_learner *self);                                        /* after its last sample */
    void (*propose)(bnn_learner *self); /* after training: the trained rows become those that would answer */
    void (*commit)(bnn_learner *self);  /* the trained rows answer from now on; `past` has grown already */
    bnn_status (*abandon)(bnn_learner *self);
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
    int (*fits)(bnn_learner *self); /* a restored state is one that it can have; null: of stored latents (restore.c) */
} bnn_replay_ops;

/* Feature vector (int8_t or int16_t [features]) of a packed latent; valid until the next call. */
typedef const void *(*bnn_features_fn)(void *user, const uint32_t *latent);

/* Held-back samples, the judgement on an experience, the threshold on the unknown (docs/numerics.md, 5.12). */
typedef struct {
    void (*begin)(bnn_learner *self);
    int (*hold)(bnn_learner *self, const uint32_t *latent, uint32_t label); /* 1: held back, not to be trained on */
    int (*judge)(bnn_learner *self);   /* calls the head's `propose`; 1: accepted. Sets the state's verdict */
    void (*commit)(bnn_learner *self); /* after head and replay memory */
    void (*forget)(bnn_learner *self, uint32_t label);
    uint32_t (*items)(const bnn_learner *self, bnn_learn_item *items);
} bnn_govern_ops;

/* The last blocks of the network, trained with a gradient head (bnn/trained.h). A sample's latent has been through
 * `features` and the head's `learn` before `backward`. */
typedef struct {
    void (*init)(bnn_learner *self);     /* parameters as in flash */
    void (*prepare)(bnn_learner *self);  /* before the first step */
    void (*commit)(bnn_learner *self);   /* what was trained answers from now on */
    bnn_status (*restore)(bnn_learner *self); /* items were written from outside; BNN_E_FORMAT: not those of a tail */
    void (*clear)(bnn_learner *self);    /* start of a minibatch */
    const uint32_t *(*disturb)(bnn_learner *self, const uint32_t *latent); /* what to train on instead of a drawn latent */
    void (*backward)(bnn_learner *self); /* of one sample */
    void (*update)(bnn_learner *self);   /* after the head's */
    uint32_t (*items)(const bnn_learner *self, bnn_learn_item *items);
} bnn_tail_ops;

/* What a learner is made of. `replay` null: no replay memory; `govern` null: every experience is accepted; `tail` null:
 * the network is frozen. With a tail `features` must compute with the parameters that bnn_learner.rows says. */
typedef struct {
    const bnn_head_ops *head;
    const bnn_replay_ops *replay;
    bnn_features_fn features;
    void *user;
    const bnn_govern_ops *govern;
    const bnn_tail_ops *tail;
    void *blocks; /* what `tail` works on */
    const int32_t *centre; /* [features] with 16 fraction bits of an operand: taken away from it; null: nothing is */
} bnn_learn_parts;

struct bnn_learner {
    const bnn_learn_config *config;
    bnn_learn_parts parts;
    bnn_learn_memory memory;
    int32_t loaded; /* of the rows that `load` has loaded: their largest magnitude */
    int32_t loaded_exp;
    int32_t rows; /* which were loaded last: BNN_ROWS_KEPT or BNN_ROWS_TRAINED */
    bnn_learn_state state;
};

/* Heads and memories of learn/. */
extern const bnn_head_ops bnn_head_cwr16; /* CWR*, CWR+ or SGD by `consolidation`; q_b <= 16 */
extern const bnn_head_ops bnn_head_cwr32; /* the same with q_b = 32: rows int32_t, gradients int64_t */
extern const bnn_head_ops bnn_head_float; /* CWR* in float32, the reference */
extern const bnn_head_ops bnn_head_mean;  /* nearest class mean */
extern const bnn_head_ops bnn_head_lda;   /* linear discriminants, or ridge regression */
extern const bnn_replay_ops bnn_replay_stored;
extern const bnn_replay_ops bnn_replay_generative;
extern const bnn_govern_ops bnn_governed;

/* Forget everything and start the generator from `seed`. Clears all memory that is state. */
void bnn_learner_init(bnn_learner *self, const bnn_learn_config *config, const bnn_learn_parts *parts,
                      const bnn_learn_memory *memory, uint64_t seed);

/* Open an experience. BNN_E_STATE when one is open. */
bnn_status bnn_learner_begin(bnn_learner *self);

/* Offer one sample. `features`: its feature vector as inference reads it, for heads that observe; others take null.
 * BNN_E_LABEL: label >= capacity. BNN_E_STATE: none open, or training has begun. BNN_E_RANGE: the sums of a head that
 * observes are full; the sample is left out. */
bnn_status bnn_learner_add(bnn_learner *self, const uint32_t *latent, const void *features, uint32_t label);

/* Train: one minibatch, or one bounded piece of a solution. BNN_MORE: call again. BNN_OK: nothing left. BNN_E_STATE: no
 * open experience. */
bnn_status bnn_learner_step(bnn_learner *self);

/* Take over what was learned, refill the replay memory, close the experience. Legal after any step of a gradient head
 * (early stopping) and for an experience without samples, which changes nothing. BNN_E_STATE: not open, or
 * samples but no step yet. A learner with held-back samples judges first; state.verdict tells. What is refused leaves
 * all that answers and all memories as they were before begin(). */
bnn_status bnn_learner_end(bnn_learner *self);

/* Drop the open experience; what answers and the replay memory stay as they were before begin(). BNN_E_STATE: none is
 * open, or it has samples and the head was built without `undo`: it stays open. */
bnn_status bnn_learner_abandon(bnn_learner *self);

/* Forget a class: its row, its counts, its replayed samples. It scores as never seen until it is shown again.
 * BNN_E_LABEL, BNN_E_STATE (an experience is open). */
bnn_status bnn_learner_forget(bnn_learner *self, uint32_t label);

/* Add `count` 32-bit values, which another learner of the same model and configuration has in a state item with sums,
 * from its element `first` on, to those of the open experience; the whole state is merged by merging each such item (the
 * counts `past` among them), in pieces of any size. step() and end() then take it over; with count 0 they only solve anew.
 * BNN_E_STATE: none open, or training has begun. BNN_E_RANGE: not such an item or element, or a sum would leave 31 bits:
 * then nothing of this piece was added. `values` need no alignment. */
bnn_status bnn_learner_merge(bnn_learner *self, uint32_t item, uint32_t first, const void *values, uint32_t count);

/* scores[capacity] of a feature vector; INT32_MIN for classes never seen. Ties: the lowest index wins. */
void bnn_learner_scores(bnn_learner *self, const void *features, int32_t *scores);

/* The class that scores() name, or -1: none has been seen, or the best is less than state.threshold above the mean of the known
 * classes' scores. */
int32_t bnn_learner_decide(const bnn_learner *self, const int32_t *scores);

/* Fill in `items`; return how many there are. Item 0 is `state`. */
uint32_t bnn_learner_items(const bnn_learner *self, bnn_learn_item items[BNN_LEARN_ITEMS]);

/* words[8] = verdict, known, known_before, known_after, judged, right of them, held_new, new_right of the last experience. */
void bnn_learner_verdict(const bnn_learner *self, uint32_t *words);

/* Put back bytes of an item that were read from a learner of the same model and configuration. Between the first write
 * and restore() no other function is legal. BNN_E_RANGE: outside the item. */
bnn_status bnn_learner_write(bnn_learner *self, uint32_t item, uint32_t offset, const void *data, uint32_t bytes);

/* Take over what was written. BNN_E_FORMAT: no learner between experiences holds such a state; the learner is then
 * initialised with seed 0. */
bnn_status bnn_learner_restore(bnn_learner *self);

#ifdef __cplusplus
}
#endif

#endif
