/* SPDX-License-Identifier: Apache-2.0 */
/* tail.h -- training of the last residual blocks in front of the head, in integers.
 *
 * The tail runs from a feature map (the cut) through binary residual blocks and a global average pool to the features
 * of the head. Every value is defined in docs/numerics.md, section 6; the NumPy twin (bnngen/continual/twin_tail.py)
 * computes the same bits. Two sets of parameters are kept: the committed one answers, the other is trained.
 *
 *     prepare -> { clear -> { replay(latent, 1) -> backward(dx) } ... -> update } ... -> commit
 *
 * replay and forward with training = 0 are legal anywhere but between a sample's replay and its backward; they leave
 * the sums of the minibatch alone. An experience that never commits changes nothing that lasts. No allocation, no
 * globals, no floating point; the caller owns all memory. */
#ifndef BNN_TAIL_H
#define BNN_TAIL_H

#include "bnn/bnn.h"
#include "bnn/learn.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { BNN_TAIL_SGD = 0, BNN_TAIL_SCALED = 1 };        /* rule by which latents move */
enum { BNN_TAIL_MOST_BLOCKS = 8, BNN_TAIL_VECTORS = 6 }; /* of a tail; of a block */
enum { BNN_TAIL_ITEMS = 4 };

/* Parameters of one block before any learning, in flash. Kernels are [C][3][3][C]: in, row, column, out. */
typedef struct {
    const int8_t *latent;   /* 127 = 1.0, at least -127 */
    const int32_t *vectors; /* [n][C]: scale, bias; shift where `shifted`; before, slope, behind where `curved` */
    uint8_t pad;            /* signs outside the map: 1: are +1, 0: do not count */
    uint8_t relu;           /* behind the convolution */
    uint8_t shifted;
    uint8_t curved;
} bnn_tail_block;

/* Constants of a tail, computed by bnngen/lower/tail_constants.py and kept in flash. Names follow section 6. */
typedef struct {
    const bnn_tail_block *blocks;
    const int32_t *cut_mult; /* [C] */
    const int16_t *low;      /* [C] what bit 1 of a packed latent means */
    const int16_t *high;     /* [C] what bit 0 means */
    uint32_t count;          /* blocks, 1..BNN_TAIL_MOST_BLOCKS */
    uint32_t height;
    uint32_t width;
    uint32_t channels;
    uint32_t cut_type;       /* BNN_S8 or BNN_S16 */
    uint32_t relu;           /* in front of the pool */
    uint32_t rule;
    uint32_t latent_bits;    /* 8 or 16 */
    uint32_t sum_bits;       /* 16 or 32 */
    int32_t exponent;        /* stream and features: real = q * 2^-exponent */
    int32_t g_max;           /* 2^(q_b-1) - 1 */
    int32_t cut_shift;
    int32_t pool_mult, pool_shift; /* 1 / pixels */
    int32_t w_mult, w_shift;       /* step of latents */
    int32_t v_mult, v_shift;       /* step of vectors in stream units */
    int32_t s_mult, s_shift;       /* step of slopes */
} bnn_tail_config;

/* One set of parameters of all blocks. */
typedef struct {
    void *latents;     /* int8_t or int16_t [blocks][C][3][3][C]: in, row, column, out */
    uint32_t *signs;   /* [blocks][C][3][3][words]: out, row, column, packed in; follows from latents */
    int32_t *vectors;  /* those of all blocks, one after the other */
} bnn_tail_parameters;

/* Memory given by the caller; sizes in bytes by tail_buffers() of bnngen/lower/tail_constants.py. P: pixels. */
typedef struct {
    bnn_tail_parameters committed;
    bnn_tail_parameters training;
    /* From clear() to update(). */
    void *sums;           /* int16_t or int32_t, as latents */
    int64_t *vector_sums; /* as vectors */
    /* Inside a call, and from replay() to backward(). */
    uint32_t *bits;       /* [blocks][P][words] signs that the convolutions read */
    uint32_t *masks;      /* [blocks][P][words] straight-through masks */
    uint32_t *alive;      /* [P][words] where the last ReLU is open; unused without one */
    int16_t *stream;      /* [P][C] */
    int16_t *features;    /* [C] */
    int16_t *gradient;    /* [P][C] */
    int16_t *inner;       /* [P][C] */
    int32_t *wide;        /* [P][C] */
    int16_t *row;         /* [9][C] */
    int16_t *lane;        /* [C] */
    int64_t *total;       /* [C] */
} bnn_tail_memory;

typedef struct {
    const bnn_tail_config *config;
    bnn_tail_memory memory;
    uint32_t rate;                                /* of full steps, in 1/65536: 65536 unless the caller sets it */
    const uint32_t *latent;                       /* of the last replay; backward may read it again */
    int32_t sum_exponent[BNN_TAIL_MOST_BLOCKS];   /* of the kernel's sums; without meaning where the bound is 0 */
    int32_t sum_bound[BNN_TAIL_MOST_BLOCKS];      /* no sum is larger */
    int32_t vector_exponent[BNN_TAIL_MOST_BLOCKS][BNN_TAIL_VECTORS];
    uint8_t vector_used[BNN_TAIL_MOST_BLOCKS][BNN_TAIL_VECTORS];
} bnn_tail;

/* Both sets = the parameters in flash. The caller's memory may hold anything. */
void bnn_tail_init(bnn_tail *self, const bnn_tail_config *config, const bnn_tail_memory *memory);

/* Start of an experience: the trained set = the committed one. */
void bnn_tail_prepare(bnn_tail *self);

/* Length of the steps to come, in 1/65536 of the configured rates, at most 65536: for schedules. prepare() keeps it. */
void bnn_tail_set_rate(bnn_tail *self, uint32_t rate);

/* Keep what was trained. */
void bnn_tail_commit(bnn_tail *self);

/* After state items were written from outside: what follows from them. BNN_E_FORMAT: vectors that no tail has; then only
 * bnn_tail_init is legal. */
bnn_status bnn_tail_restore(bnn_tail *self);

/* Features of a cut tensor (int8_t or int16_t [H][W][C]), by the trained or the committed set; valid until the next
 * call. */
const int16_t *bnn_tail_forward(bnn_tail *self, const void *cut, int training);

/* Features of a packed latent [H][W][words]. With training it must stay as it is until backward(). */
const int16_t *bnn_tail_replay(bnn_tail *self, const uint32_t *latent, int training);

/* Start of a minibatch: sums = 0. */
void bnn_tail_clear(bnn_tail *self);

/* Add the share of the sample last replayed with training. Real gradient of feature d: dx[d] * 2^-exponent, with
 * |dx[d]| < 2^31 and |exponent| < 2^20. */
void bnn_tail_backward(bnn_tail *self, const int32_t *dx, int32_t exponent);

/* One step of all parameters of the trained set; random numbers from `rng`, the generator of section 5.9. */
void bnn_tail_update(bnn_tail *self, uint64_t *rng);

/* The state: committed latents, committed vectors, trained latents, trained vectors. Returns BNN_TAIL_ITEMS. */
uint32_t bnn_tail_items(const bnn_tail *self, bnn_learn_item *items);

#ifdef __cplusplus
}
#endif

#endif
