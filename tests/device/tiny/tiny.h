/* SPDX-License-Identifier: Apache-2.0 */
/* A model small enough to check by hand, with the interface of a generated one, and some ways to misbehave. */
#ifndef BNN_TINY_H
#define BNN_TINY_H

#include "bnn/bnn.h"

#define BNN_TINY_ARENA_BYTES 64
#define BNN_TINY_IMAGE_BYTES 48
#define BNN_TINY_CLASSES 3
#define BNN_TINY_STEPS 2
#define BNN_TINY_LATENT_WORDS 1
#define BNN_TINY_CUT_BYTES 8
#define BNN_TINY_FEATURES 8
#define BNN_TINY_FEATURES_TYPE 1 /* int8 */
#define BNN_TINY_HASH "0123456789abcdef0123456789abcdef"

/* Images of one value throughout that make the program fail. */
#define TINY_FAULT 0xEE   /* reads where nothing is */
#define TINY_OVERFLOW 0xCC /* uses more stack than there is */
#define TINY_SILENCE 0xDD /* never comes back */
#define TINY_DEEP 0xBB    /* uses a kilobyte of stack, which is allowed */

typedef struct {
    uint8_t *arena;
    bnn_trace_fn trace;
    void *trace_user;
} bnn_tiny;

bnn_status bnn_tiny_init(bnn_tiny *self, void *arena, size_t arena_bytes);
void bnn_tiny_front(bnn_tiny *self, const uint8_t *image);
void bnn_tiny_tail(bnn_tiny *self);
void bnn_tiny_scores(bnn_tiny *self, int32_t *scores);
void bnn_tiny_infer(bnn_tiny *self, const uint8_t *image, int32_t *scores);
void bnn_tiny_pack(bnn_tiny *self, uint32_t *latent);
void bnn_tiny_unpack(bnn_tiny *self, const uint32_t *latent);
const void *bnn_tiny_features(const bnn_tiny *self);
void *bnn_tiny_cut(const bnn_tiny *self);

#endif
