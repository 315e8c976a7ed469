/* SPDX-License-Identifier: Apache-2.0 */
/* head_float.c -- CWR*, CWR+ or SGD in float32: what integer heads are held against, and the only file of the learner
 * with floating point (docs/numerics.md, 5.13).
 *
 * Plain on purpose: sums run in the order of memory, and a product that is added has a statement of its own, so that no
 * compiler joins the two into one rounding. No libm. */
#include "fixed.h"
#include "internal.h"

/* Weights are held in +-WEIGHT_MAX, so that a logit, D * |x| * |w|, stays a number: D < 2^17 and |x| < 2^40 (checked at
 * generation) leave it below 2^97. */
static const float WEIGHT_MAX = 1099511627776.0f; /* 2^40 */

enum { SCORE_BITS = 30 }; /* a score's magnitude stays below 2^SCORE_BITS */

static uint32_t weight_count(const bnn_learner *self)
{
    return self->config->capacity * self->config->features;
}

static float *rows_of(const bnn_learner *self, int rows)
{
    return (float *)(rows == BNN_ROWS_KEPT ? self->memory.cw : self->memory.tw);
}

/* v * 2^-shift, exact as long as the result is a normal number. */
static float scaled(float v, int32_t shift)
{
    for (; shift > 0; shift--) {
        v *= 0.5f;
    }
    for (; shift < 0; shift++) {
        v *= 2.0f;
    }
    return v;
}

/* e^x for x <= 0, relative error below 2^-21; 0 below -87, where the number would not be normal. x = r - n ln 2 with
 * |r| <= ln 2 / 2; ln 2 is 0.693359375, whose products with n are exact, less 2.12194440e-4. Terms of the series up to
 * r^7 / 5040: the next is below 2^-27. */
static float exponential(float x)
{
    const float octaves = x < -87.0f ? 0.0f : x * -1.44269504f;
    const int32_t n = (int32_t)(octaves + 0.5f);
    const float coarse = (float)n * 0.693359375f;
    const float fine = (float)n * 2.12194440e-4f;
    const float r = (x + coarse) - fine;
    float sum = 1.0f;
    if (x < -87.0f) {
        return 0.0f;
    }
    for (int32_t k = 7; k > 0; k--) {
        sum = 1.0f + r * sum / (float)k;
    }
    return scaled(sum, n);
}

/* sqrt(v) for v >= 0 by Newton's rule from above; it stops where it no longer falls. */
static float square_root(float v)
{
    float root = v > 1.0f ? v : 1.0f;
    float next = 0.5f * (root + v / root);
    if (v <= 0.0f) {
        return 0.0f;
    }
    while (next < root) {
        root = next;
        next = 0.5f * (root + v / root);
    }
    return root;
}

static float bounded(float w)
{
    return w < -WEIGHT_MAX ? -WEIGHT_MAX : w > WEIGHT_MAX ? WEIGHT_MAX : w;
}

/* Also the scale of scores: the largest power of two that keeps any logit of these rows below 2^SCORE_BITS. */
static void load(bnn_learner *self, int rows)
{
    const bnn_learn_config *const config = self->config;
    float *const w = rows_of(self, rows);
    const int32_t plain_bits = config->stream_type == BNN_S8 ? 7 : 15;
    /* what is taken away is no larger than the largest value: one bit more */
    const int32_t stream_bits = self->parts.centre == NULL ? plain_bits : config->x_root != 0 ? 17 : plain_bits + 1;
    float limit = 0.0f;
    for (uint32_t i = 0; i < weight_count(self); i++) {
        const float magnitude = w[i] < 0.0f ? -w[i] : w[i];
        if (!(magnitude <= WEIGHT_MAX)) {
            w[i] = 0.0f; /* not a weight of any learner: bnn_learner_write has put it there */
            continue;
        }
        limit = magnitude > limit ? magnitude : limit;
    }
    limit = scaled(limit * (float)config->features * (float)config->x_mult, config->x_shift - stream_bits);
    if (rows == BNN_ROWS_TRAINED) {
        bnn_learn_clear(self->memory.dw, (size_t)weight_count(self) * sizeof(float));
    }
    self->loaded = 0;
    for (; limit >= 1073741824.0f; limit *= 0.5f) {
        self->loaded--;
    }
    for (; limit != 0.0f && limit < 536870912.0f; limit *= 2.0f) {
        self->loaded++;
    }
    self->loaded_exp = rows;
}

/* x = real feature vector, z[c] = its logits on the loaded rows; both lie in memory.wq. */
static void forward(const bnn_learner *self, const void *stream, float *x, float *z)
{
    const bnn_learn_config *const config = self->config;
    const int32_t *const centre = self->parts.centre;
    const float unit = scaled((float)config->x_mult, config->x_shift);
    const float centre_unit = scaled((float)config->t_mult, config->t_shift);
    const float *row = rows_of(self, self->loaded_exp);
    for (uint32_t d = 0; d < config->features; d++) {
        const float value = unit * (float)bnn_head_value(config, stream, d);
        const float common = centre == NULL ? 0.0f : centre_unit * (float)centre[d];
        x[d] = value - common;
    }
    for (uint32_t c = 0; c < config->capacity; c++, row += config->features) {
        float sum = 0.0f;
        for (uint32_t d = 0; d < config->features; d++) {
            const float product = x[d] * row[d];
            sum += product;
        }
        z[c] = sum;
    }
}

static float *features_of(const bnn_learner *self)
{
    return (float *)self->memory.wq + self->config->capacity;
}

/* Nearest integers of the scaled logits: their order is kept, ties may appear. */
static void score(const bnn_learner *self, const void *stream, int32_t *scores)
{
    float *const z = (float *)self->memory.wq;
    forward(self, stream, features_of(self), z);
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        const float v = scaled(z[c], -self->loaded);
        scores[c] = (int32_t)(v < 0.0f ? v - 0.5f : v + 0.5f);
    }
}

/* z -> softmax, in place. */
static void softmax(float *z, uint32_t classes)
{
    float top = z[0];
    float sum = 0.0f;
    for (uint32_t c = 1; c < classes; c++) {
        top = z[c] > top ? z[c] : top;
    }
    for (uint32_t c = 0; c < classes; c++) {
        z[c] = exponential(z[c] - top);
        sum += z[c];
    }
    for (uint32_t c = 0; c < classes; c++) {
        z[c] = z[c] / sum;
    }
}

static void learn(bnn_learner *self, const void *stream, uint32_t label)
{
    const uint32_t features = self->config->features;
    float *const z = (float *)self->memory.wq;
    float *const x = features_of(self);
    float *row = (float *)self->memory.dw;
    forward(self, stream, x, z);
    softmax(z, self->config->capacity);
    z[label] -= 1.0f;
    for (uint32_t c = 0; c < self->config->capacity; c++, row += features) {
        for (uint32_t d = 0; d < features; d++) {
            const float product = x[d] * z[c];
            row[d] += product;
        }
    }
}

/* u_mult * 2^-u_shift = lr / B. */
static void update(bnn_learner *self)
{
    const float rate = scaled((float)self->config->u_mult, self->config->u_shift);
    const float *const dw = (const float *)self->memory.dw;
    float *const tw = rows_of(self, BNN_ROWS_TRAINED);
    for (uint32_t i = 0; i < weight_count(self); i++) {
        const float step = rate * dw[i];
        tw[i] = bounded(tw[i] - step);
    }
}

static void prepare(bnn_learner *self)
{
    const uint32_t features = self->config->features;
    const float *const cw = rows_of(self, BNN_ROWS_KEPT);
    float *const tw = rows_of(self, BNN_ROWS_TRAINED);
    const int all = self->config->consolidation == BNN_LEARN_LAST;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        for (uint32_t i = c * features; i < (c + 1) * features; i++) {
            tw[i] = all || self->memory.cur[c] != 0 ? cw[i] : 0.0f;
        }
    }
}

/* Mean weight of the rows of the classes present: of each row's sum, so that few roundings meet. */
static float mean_of_present(const bnn_learner *self)
{
    const uint32_t features = self->config->features;
    const float *row = rows_of(self, BNN_ROWS_TRAINED);
    float sum = 0.0f;
    uint32_t rows = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++, row += features) {
        float part = 0.0f;
        for (uint32_t d = 0; d < features; d++) {
            part += row[d];
        }
        sum += self->memory.cur[c] != 0 ? part : 0.0f;
        rows += self->memory.cur[c] != 0;
    }
    return sum / ((float)rows * (float)features);
}

static void propose(bnn_learner *self)
{
    const bnn_learn_config *const config = self->config;
    const float *const cw = rows_of(self, BNN_ROWS_KEPT);
    float *const tw = rows_of(self, BNN_ROWS_TRAINED);
    float mean;
    if (config->consolidation == BNN_LEARN_LAST) {
        return;
    }
    mean = mean_of_present(self);
    for (uint32_t c = 0; c < config->capacity; c++) {
        const uint32_t cur = self->memory.cur[c];
        float w = 0.0f;
        if (cur != 0 && config->consolidation == BNN_LEARN_STAR) {
            w = square_root((float)self->memory.past[c] / (float)cur);
        }
        for (uint32_t i = c * config->features; i < (c + 1) * config->features; i++) {
            const float old = w * cw[i];
            tw[i] = cur == 0 ? cw[i] : bounded((old + (tw[i] - mean)) / (w + 1.0f));
        }
    }
}

static void commit(bnn_learner *self)
{
    const float *const tw = rows_of(self, BNN_ROWS_TRAINED);
    float *const cw = rows_of(self, BNN_ROWS_KEPT);
    for (uint32_t i = 0; i < weight_count(self); i++) {
        cw[i] = tw[i];
    }
}

static void init(bnn_learner *self)
{
    (void)self; /* cleared memory is 0.0 in every float */
}

static void forget(bnn_learner *self, uint32_t label)
{
    const size_t row = (size_t)self->config->features;
    bnn_learn_clear(rows_of(self, BNN_ROWS_KEPT) + label * row, row * sizeof(float));
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    list[0].data = self->memory.cw;
    list[1].data = self->memory.tw;
    list[0].bytes = list[1].bytes = (size_t)weight_count(self) * sizeof(float);
    return 2;
}

const bnn_head_ops bnn_head_float = {init,  NULL,   NULL,   prepare, bnn_minibatch_step, load,   score,
                                     learn, update, propose, commit,  NULL,               forget, items};
