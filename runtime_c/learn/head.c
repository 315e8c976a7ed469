/* SPDX-License-Identifier: Apache-2.0 */
/* head.c -- the CWR* head: quantised forward pass, gradient step and consolidation (docs/numerics.md, 5). */
#include "fixed.h"
#include "internal.h"

enum { GUARD = 8, SHARE_BITS = 30 }; /* guard bits of a weight; fraction bits of the share of the old row */

static uint32_t weight_count(const bnn_learner *self)
{
    return self->config->capacity * self->config->features;
}

static int32_t largest(const int16_t *weights, uint32_t count)
{
    int32_t max = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t w = weights[i] < 0 ? -weights[i] : weights[i];
        max = w > max ? w : max;
    }
    return max;
}

int32_t bnn_head_load(const bnn_learner *self, const int16_t *weights)
{
    const uint32_t count = weight_count(self);
    const int32_t r = largest(weights, count);
    const int32_t w_max = self->config->w_max;
    for (uint32_t i = 0; i < count; i++) {
        /* weights[i] >= -r, so the dividend is positive and the division a floor */
        const uint32_t dividend = (uint32_t)(2 * w_max * (weights[i] + r) + r);
        self->memory.wq[i] = (int8_t)(r == 0 ? 0 : (int32_t)(dividend / (2u * (uint32_t)r)) - w_max);
    }
    return r;
}

/* x = operands of the stream values; the rounding half enters as the start of the product's sum. */
static void load_operands(const bnn_learn_config *config, const void *stream, int16_t *x)
{
    const int8_t *const narrow = (const int8_t *)stream;
    const int16_t *const wide = (const int16_t *)stream;
    const int32_t shift = config->x_shift;
    const int32_t mult = config->x_mult;
    const int64_t half = ((int64_t)1 << shift) >> 1;
    for (uint32_t d = 0; d < config->features; d++) {
        const int32_t q = config->stream_type == BNN_S8 ? narrow[d] : wide[d];
        x[d] = (int16_t)bnn_learn_clamp((half + (int64_t)q * mult) >> shift, config->x_lo, config->x_hi);
    }
}

void bnn_head_forward(const bnn_learner *self, const void *stream, int32_t *out)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t features = config->features;
    const int16_t *const x = self->memory.x;
    const int8_t *row = self->memory.wq;
    load_operands(config, stream, self->memory.x);
    for (uint32_t c = 0; c < config->capacity; c++, row += features) {
        int32_t sum = 0;
        for (uint32_t d = 0; d < features; d++) {
            sum += x[d] * row[d];
        }
        out[c] = sum;
    }
}

void bnn_head_backward(const bnn_learner *self, int32_t r, uint32_t label)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t features = config->features; /* a copy, because the stores below could alias config */
    const int16_t *const x = self->memory.x;
    int32_t *const gradient = self->memory.acc;
    int32_t *row = self->memory.dw;
    bnn_softmax_gradient(config, r, self->state.tw_exp, label, gradient);
    for (uint32_t c = 0; c < config->capacity; c++, row += features) {
        const int32_t g = gradient[c];
        if (g == 0) {
            continue; /* most classes, most of the time: their probability rounds to 0 */
        }
        for (uint32_t d = 0; d < features; d++) {
            row[d] += x[d] * g;
        }
    }
}

static int64_t magnitude(int64_t v)
{
    return v < 0 ? -v : v;
}

/* Smallest shift >= `least` that brings values up to `max` at exponent `e` to stored width, so that the
 * exponent is the largest possible; kept inside e_min..e_max. */
static int32_t storing_shift(const bnn_learn_config *config, int64_t max, int32_t e, int32_t least)
{
    int32_t shift = e - config->e_max > least ? e - config->e_max : least;
    while (shift < e - config->e_min && bnn_round_shift(max, shift) > config->g_max) {
        shift++;
    }
    return shift;
}

static int64_t updated_weight(const bnn_learner *self, uint32_t i, int32_t shift)
{
    const int64_t step = bnn_round_shift((int64_t)self->memory.dw[i] * self->config->u_mult, shift);
    return (int64_t)self->memory.tw[i] * (1 << GUARD) - step;
}

void bnn_head_update(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t count = weight_count(self);
    const int32_t e = self->state.tw_exp;
    const int32_t shift = config->u_shift - e;
    int64_t max = 0;
    int32_t store;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t v = magnitude(updated_weight(self, i, shift));
        max = v > max ? v : max;
    }
    store = storing_shift(config, max, e + GUARD, 0);
    for (uint32_t i = 0; i < count; i++) {
        const int64_t v = bnn_round_shift(updated_weight(self, i, shift), store);
        self->memory.tw[i] = (int16_t)bnn_learn_clamp(v, -config->g_max, config->g_max);
    }
    self->state.tw_exp = max == 0 ? config->e_max : e + GUARD - store;
}

void bnn_head_prepare(bnn_learner *self)
{
    const uint32_t features = self->config->features;
    for (uint32_t i = 0; i < weight_count(self); i++) {
        self->memory.tw[i] = 0;
    }
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        for (uint32_t i = c * features; self->memory.cur[c] != 0 && i < (c + 1) * features; i++) {
            self->memory.tw[i] = self->memory.cw[i];
        }
    }
    self->state.tw_exp =
        largest(self->memory.tw, weight_count(self)) == 0 ? self->config->e_max : self->state.cw_exp;
}

/* What consolidation needs beside the weights. */
typedef struct {
    int32_t mean;     /* of the present rows of tw, at exponent tw_exp + GUARD */
    int32_t exponent; /* common to both heads */
    int32_t tw_shift, cw_shift;
} consolidation;

static consolidation plan_consolidation(const bnn_learner *self)
{
    const bnn_learn_state *const s = &self->state;
    const uint32_t features = self->config->features;
    consolidation plan;
    int64_t sum = 0;
    int64_t count = 0;
    int64_t dividend;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        for (uint32_t i = c * features; self->memory.cur[c] != 0 && i < (c + 1) * features; i++) {
            sum += self->memory.tw[i];
            count++;
        }
    }
    dividend = 2 * sum * (1 << GUARD) + count;
    plan.mean = (int32_t)((dividend >= 0 ? dividend : dividend - 2 * count + 1) / (2 * count)); /* floor */
    plan.exponent = (s->cw_exp < s->tw_exp ? s->cw_exp : s->tw_exp) + GUARD;
    plan.tw_shift = s->tw_exp + GUARD - plan.exponent;
    plan.cw_shift = s->cw_exp + GUARD - plan.exponent;
    return plan;
}

/* 2^30 * w / (w + 1), w = sqrt(past / cur) with 16 fraction bits, floors; an absent class keeps its row. */
static int64_t share_of_past(const bnn_learner *self, uint32_t c)
{
    uint64_t w;
    if (self->memory.cur[c] == 0) {
        return (int64_t)1 << SHARE_BITS;
    }
    w = bnn_isqrt(((uint64_t)self->memory.past[c] << 32) / self->memory.cur[c]);
    return (int64_t)((w << SHARE_BITS) / (w + 65536u));
}

/* The consolidated weight at exponent plan->exponent + SHARE_BITS. */
static int64_t consolidated(const bnn_learner *self, const consolidation *plan, uint32_t i, int64_t share)
{
    const int64_t whole = (int64_t)1 << SHARE_BITS;
    const int64_t old = bnn_round_shift((int64_t)self->memory.cw[i] * (1 << GUARD), plan->cw_shift);
    const int64_t trained =
        bnn_round_shift((int64_t)self->memory.tw[i] * (1 << GUARD) - plan->mean, plan->tw_shift);
    return old * share + trained * (whole - share);
}

void bnn_head_consolidate(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    const uint32_t features = config->features;
    const consolidation plan = plan_consolidation(self);
    int64_t max = 0;
    int32_t store = 0;
    for (int pass = 0; pass < 2; pass++) { /* first the largest weight, then all of them at its exponent */
        for (uint32_t c = 0; c < config->capacity; c++) {
            const int64_t share = share_of_past(self, c);
            for (uint32_t i = c * features; i < (c + 1) * features; i++) {
                const int64_t v = consolidated(self, &plan, i, share);
                if (pass == 0) {
                    max = magnitude(v) > max ? magnitude(v) : max;
                } else {
                    self->memory.cw[i] =
                        (int16_t)bnn_learn_clamp(bnn_round_shift(v, store), -config->g_max, config->g_max);
                }
            }
        }
        store = storing_shift(config, max, plan.exponent + SHARE_BITS, SHARE_BITS);
    }
    self->state.cw_exp = max == 0 ? config->e_max : plan.exponent + SHARE_BITS - store;
    for (uint32_t c = 0; c < config->capacity; c++) {
        const uint32_t room = 0x7FFFFFFFu - self->memory.past[c];
        self->memory.past[c] += self->memory.cur[c] < room ? self->memory.cur[c] : room;
    }
}
