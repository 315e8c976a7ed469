/* SPDX-License-Identifier: Apache-2.0 */
/* head_lda.c -- linear discriminants and ridge regression from second moments, one pass, whatever the order
 * (docs/numerics.md, 5.11). `regress` makes it ridge regression onto one-hot labels. */
#include "analytic.h"
#include "cholesky.h"

enum { SHRINKAGE_BITS = 12, SCATTER_BITS = 47, SCALES_APART = 24, FEW_SAMPLES = 2, NO_ROW = 127, SHIFT_MAX = 62 };

static size_t moment_count(const bnn_learner *self)
{
    return self->config->moment_sets * bnn_triangle(self->config->mapped);
}

static int32_t *new_moments(const bnn_learner *self)
{
    return self->config->undo != 0 ? self->memory.new_moments : self->memory.moments;
}

/* Scale of place i: A[i][i] < 4^scale. They lie behind the factor. */
static int16_t *scales(const bnn_learner *self)
{
    return self->memory.factor + bnn_triangle(self->config->mapped);
}

/* ---- samples -------------------------------------------------------------------------------------- */

/* Sum of phi[i] * phi[j] over all samples, at place i (i + 1) / 2 + j. */
static int64_t moment(const bnn_learner *self, size_t place)
{
    const size_t size = bnn_triangle(self->config->mapped);
    int64_t sum = 0;
    for (uint32_t set = 0; set < self->config->moment_sets; set++, place += size) {
        sum += self->memory.moments[place];
        if (self->config->undo != 0) {
            sum += self->memory.new_moments[place];
        }
    }
    return sum;
}

/* A moment is at most as large as the larger of two on the diagonal (Cauchy and Schwarz): these alone are watched. */
static bnn_status observe(bnn_learner *self, const void *features, uint32_t label)
{
    const uint32_t count = self->config->mapped;
    const int16_t *const phi = bnn_map(self, features);
    uint32_t *to = (uint32_t *)new_moments(self);
    int fit = bnn_sums_fit(self, phi, label) == BNN_OK;
    for (uint32_t i = 0; i < count; i++) {
        fit &= moment(self, bnn_triangle(i) + i) + (int32_t)phi[i] * phi[i] <= BNN_SUM_MAX;
    }
    if (!fit) {
        return BNN_E_RANGE;
    }
    bnn_sums_add(self, phi, label);
    to += (self->config->moment_sets > 1u ? label : 0u) * bnn_triangle(count);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            *to++ += (uint32_t)(phi[i] * phi[j]);
        }
    }
    return BNN_OK;
}

/* ---- the matrix ----------------------------------------------------------------------------------- */

/* out[j - first] = scatter within the classes at (i, j), j = first..i, BNN_MEAN_BITS fraction bits. For samples that
 * exist the sum over classes is below 2^55; for any other state it wraps round. */
static void scatter(const bnn_learner *self, uint32_t i, uint32_t first, int64_t *out)
{
    const int64_t limit = (int64_t)1 << SCATTER_BITS;
    for (uint32_t j = first; j <= i; j++) {
        out[j - first] = moment(self, bnn_triangle(i) + j) * (1 << BNN_MEAN_BITS);
    }
    for (uint32_t c = 0; self->config->regress == 0 && c < self->config->capacity; c++) {
        const int64_t mean = bnn_class_count(self, c) != 0 ? bnn_class_mean(self, c, i) : 0;
        for (uint32_t j = first; mean != 0 && j <= i; j++) {
            out[j - first] = (int64_t)((uint64_t)out[j - first] - (uint64_t)(mean * bnn_class_sum(self, c, j)));
        }
    }
    for (uint32_t j = 0; j <= i - first; j++) {
        out[j] = out[j] > limit ? limit : out[j] < -limit ? -limit : out[j];
    }
}

/* Degrees of freedom of the scatter, at least 1: samples less classes. */
static int64_t freedom(const bnn_learner *self)
{
    int64_t count = 0;
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        const int64_t samples = bnn_class_count(self, c);
        count += samples != 0 ? samples - 1 : 0;
    }
    return count != 0 ? count : 1;
}

/* What is added to the diagonal: shrinkage relative to its mean, and at least so much that few samples do not rule. The
 * trace is at most 2048 * 2^47, the shrinkage 9 * 2^12. */
static int64_t penalty(const bnn_learner *self, int64_t trace)
{
    const int64_t mean = trace / self->config->mapped;
    const int64_t few = self->config->regress != 0 ? 0 : trace * FEW_SAMPLES / freedom(self);
    const int64_t share = (mean * self->config->shrinkage) >> SHRINKAGE_BITS;
    const int64_t larger = share > few ? share : few;
    return larger != 0 ? larger : 1;
}

/* The diagonal decides on penalty and scales. */
static void prepare(bnn_learner *self)
{
    const uint32_t count = self->config->mapped;
    int64_t *const diagonal = self->memory.vector;
    int64_t trace = 0;
    int largest = 1;
    for (uint32_t i = 0; i < count; i++) {
        scatter(self, i, i, &diagonal[i]);
        diagonal[i] = diagonal[i] < 0 ? 0 : diagonal[i];
        trace += diagonal[i];
    }
    *self->memory.penalty = penalty(self, trace);
    for (uint32_t i = 0; i < count; i++) {
        const int64_t value = diagonal[i] + *self->memory.penalty;
        int scale = 1;
        while ((value >> (2 * scale)) != 0) {
            scale++;
        }
        scales(self)[i] = (int16_t)scale;
        largest = scale > largest ? scale : largest;
    }
    for (uint32_t i = 0; i < count; i++) {
        const int16_t least = (int16_t)(largest - SCALES_APART);
        scales(self)[i] = scales(self)[i] < least ? least : scales(self)[i];
    }
    self->state.tw_exp = NO_ROW;
    self->state.steps_total = count + self->config->capacity;
}

/* v * 2^-shift, to nearest; what would leave 2^60 to the left does not occur where it matters, and is cut off. */
static int64_t shifted(int64_t v, int32_t shift)
{
    if (shift < 0) {
        const int64_t limit = (int64_t)1 << (60 + shift);
        return (v > limit ? limit : v < -limit ? -limit : v) * ((int64_t)1 << -shift);
    }
    return bnn_round_shift(v, shift < SHIFT_MAX ? shift : SHIFT_MAX);
}

/* Row i of the factor. */
static void factor_row(bnn_learner *self, uint32_t i)
{
    const int32_t limit = (int32_t)1 << BNN_CHOLESKY_BITS;
    int64_t *const row = self->memory.vector;
    scatter(self, i, 0, row);
    row[i] = (row[i] < 0 ? 0 : row[i]) + *self->memory.penalty;
    for (uint32_t j = 0; j <= i; j++) {
        row[j] = bnn_learn_clamp(shifted(row[j], scales(self)[i] + scales(self)[j] - BNN_CHOLESKY_BITS), -limit, limit);
    }
    bnn_cholesky_row(self->memory.factor, i, row);
}

/* ---- rows ----------------------------------------------------------------------------------------- */

static int64_t magnitude(const int64_t *v, uint32_t count)
{
    int64_t max = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t value = v[i] < 0 ? -v[i] : v[i];
        max = value > max ? value : max;
    }
    return max;
}

static int32_t largest_scale(const bnn_learner *self)
{
    int32_t largest = 0;
    for (uint32_t i = 0; i < self->config->mapped; i++) {
        largest = scales(self)[i] > largest ? scales(self)[i] : largest;
    }
    return largest;
}

/* memory.vector = mean of class c, or sum, in the factor's scales; returns the shift that brought it to 22 bits. */
static int32_t right_hand_side(bnn_learner *self, uint32_t c, int32_t scale)
{
    const uint32_t count = self->config->mapped;
    int64_t *const v = self->memory.vector;
    int32_t shift = -BNN_CHOLESKY_RHS_BITS;
    int64_t max;
    for (uint32_t i = 0; i < count; i++) { /* at most 2^31 * 2^24 */
        const int64_t value = self->config->regress != 0 ? bnn_class_sum(self, c, i) : bnn_class_mean(self, c, i);
        v[i] = value * ((int64_t)1 << (scale - scales(self)[i]));
    }
    for (max = magnitude(v, count); max != 0; max >>= 1) {
        shift++;
    }
    for (uint32_t i = 0; i < count; i++) {
        v[i] = shifted(v[i], shift);
    }
    return shift;
}

/* All rows so far to the smaller exponent e. */
static void lower_exponent(bnn_learner *self, uint32_t rows, int32_t e)
{
    int16_t *const tw = (int16_t *)self->memory.tw;
    const int32_t shift = self->state.tw_exp - e;
    for (size_t i = 0; i < (size_t)rows * self->config->mapped; i++) {
        tw[i] = (int16_t)shifted(tw[i], shift);
    }
    self->state.tw_exp = e;
}

/* Row c of tw = solution for class c, at the exponent common to all rows up to c: the largest that fits. */
static void solve_row(bnn_learner *self, uint32_t c)
{
    const uint32_t count = self->config->mapped;
    int16_t *const row = (int16_t *)self->memory.tw + (size_t)c * count;
    int64_t *const v = self->memory.vector;
    const int32_t scale = largest_scale(self);
    int32_t shift;
    int32_t store = -SHIFT_MAX / 2;
    bnn_learn_clear(row, count * sizeof *row);
    if (bnn_class_count(self, c) == 0) {
        return;
    }
    shift = right_hand_side(self, c, scale);
    bnn_cholesky_solve(self->memory.factor, count, v);
    for (uint32_t i = 0; i < count; i++) {
        v[i] *= (int64_t)1 << (scale - scales(self)[i]); /* at most 2^36 * 2^24 */
    }
    const int64_t max = magnitude(v, count);
    if (max == 0) {
        return;
    }
    while (shifted(max, store) > self->config->row_max) {
        store++;
    }
    if (-(store + shift) < self->state.tw_exp) {
        lower_exponent(self, c, -(store + shift));
    }
    for (uint32_t i = 0; i < count; i++) {
        const int64_t value = shifted(v[i], -self->state.tw_exp - shift);
        row[i] = (int16_t)bnn_learn_clamp(value, -self->config->row_max, self->config->row_max);
    }
}

/* A row of the factor, or a class's row. */
static bnn_status step(bnn_learner *self)
{
    const uint32_t i = self->state.steps_done++;
    if (i < self->config->mapped) {
        factor_row(self, i);
    } else {
        solve_row(self, i - self->config->mapped);
    }
    return self->state.steps_done < self->state.steps_total ? BNN_MORE : BNN_OK;
}

static void propose(bnn_learner *self)
{
    while (self->state.steps_done < self->state.steps_total) {
        (void)step(self);
    }
    if (self->config->regress == 0) {
        bnn_rows_bias(self);
    }
}

static void commit(bnn_learner *self)
{
    bnn_rows_commit(self);
    if (self->config->undo != 0) {
        bnn_sums_commit(self->memory.moments, self->memory.new_moments, moment_count(self));
    }
}

static bnn_status drop(bnn_learner *self)
{
    const bnn_status status = bnn_rows_abandon(self);
    if (self->config->undo != 0) {
        bnn_learn_clear(self->memory.new_moments, moment_count(self) * sizeof(int32_t));
    }
    return status;
}

/* Moments by class leave with the class. Of shared ones its mean's part leaves, and its scatter stays; of those of a
 * regression nothing can. */
static void forget(bnn_learner *self, uint32_t label)
{
    const uint32_t count = self->config->mapped;
    const int64_t samples = self->memory.past[label];
    const int32_t *const sums = self->memory.sums + (size_t)label * count;
    int32_t *to = self->memory.moments;
    if (self->config->moment_sets > 1u) {
        bnn_learn_clear(to + label * bnn_triangle(count), bnn_triangle(count) * sizeof *to);
    } else if (samples != 0 && self->config->regress == 0) {
        for (uint32_t i = 0; i < count; i++) {
            for (uint32_t j = 0; j <= i; j++, to++) {
                const int64_t part = bnn_floor_div((int64_t)sums[i] * sums[j] + samples / 2, samples);
                *to = bnn_learn_clamp(*to - part, -BNN_SUM_MAX, BNN_SUM_MAX);
            }
        }
    }
    bnn_rows_forget(self, label);
}

static uint32_t items(const bnn_learner *self, bnn_learn_item *list)
{
    const uint32_t n = bnn_rows_items(self, list);
    const size_t bytes = moment_count(self) * sizeof(int32_t);
    list[n].data = self->memory.moments;
    list[n].bytes = bytes;
    list[n].fresh = new_moments(self);
    if (self->config->undo == 0) {
        return n + 1u;
    }
    list[n + 1u].data = self->memory.new_moments;
    list[n + 1u].bytes = bytes;
    return n + 2u;
}

static void init(bnn_learner *self)
{
    self->state.tw_exp = 0;
    self->state.cw_exp = 0;
}

const bnn_head_ops bnn_head_lda = {init, NULL, observe, prepare, step, bnn_rows_load, bnn_rows_score,
                                   NULL, NULL, propose, commit,  drop, forget,        items};
