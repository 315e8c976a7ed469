/* SPDX-License-Identifier: Apache-2.0 */
/* rows.c -- sums by class, and rows with a bias that answer: the part that all analytic heads have in common. */
#include "analytic.h"

enum { MEAN_MAX = 1 << 24, BIAS_MAX = 1 << 30 };

static size_t element_count(const bnn_learner *self)
{
    return (size_t)self->config->capacity * self->config->mapped;
}

static int32_t *new_sums(const bnn_learner *self)
{
    return self->config->undo != 0 ? self->memory.new_sums : self->memory.sums;
}

int64_t bnn_class_count(const bnn_learner *self, uint32_t c)
{
    return (int64_t)self->memory.past[c] + self->memory.cur[c];
}

int64_t bnn_class_sum(const bnn_learner *self, uint32_t c, uint32_t i)
{
    const size_t place = (size_t)c * self->config->mapped + i;
    const int64_t kept = self->memory.sums[place];
    return self->config->undo != 0 ? kept + self->memory.new_sums[place] : kept;
}

/* The clamp acts on sums that no samples could have. */
int64_t bnn_class_mean(const bnn_learner *self, uint32_t c, uint32_t i)
{
    const int64_t count = bnn_class_count(self, c);
    const int64_t mean = bnn_floor_div(bnn_class_sum(self, c, i) * (1 << BNN_MEAN_BITS) + count / 2, count);
    return bnn_learn_clamp(mean, -MEAN_MAX, MEAN_MAX);
}

static int inside(int64_t sum)
{
    return sum <= BNN_SUM_MAX && sum >= -BNN_SUM_MAX;
}

bnn_status bnn_sums_fit(const bnn_learner *self, const int16_t *phi, uint32_t label)
{
    const int32_t *const fresh = new_sums(self) + (size_t)label * self->config->mapped;
    int fit = bnn_class_count(self, label) < BNN_SUM_MAX;
    for (uint32_t i = 0; i < self->config->mapped; i++) {
        fit &= inside((int64_t)fresh[i] + phi[i]) & inside(bnn_class_sum(self, label, i) + phi[i]);
    }
    return fit ? BNN_OK : BNN_E_RANGE;
}

void bnn_sums_add(bnn_learner *self, const int16_t *phi, uint32_t label)
{
    int32_t *const fresh = new_sums(self) + (size_t)label * self->config->mapped;
    for (uint32_t i = 0; i < self->config->mapped; i++) {
        fresh[i] += phi[i];
    }
    self->memory.cur[label]++;
}

/* |row * mean| summed is at most row_max * mapped * 2^24 < 2^55. */
void bnn_rows_bias(bnn_learner *self)
{
    const int16_t *row = (const int16_t *)self->memory.tw;
    for (uint32_t c = 0; c < self->config->capacity; c++, row += self->config->mapped) {
        int64_t sum = 0;
        for (uint32_t i = 0; bnn_class_count(self, c) != 0 && i < self->config->mapped; i++) {
            sum += row[i] * bnn_class_mean(self, c, i);
        }
        self->memory.new_bias[c] = -bnn_learn_clamp(bnn_round_shift(sum, BNN_MEAN_BITS + 1), -BIAS_MAX, BIAS_MAX);
    }
}

void bnn_rows_load(bnn_learner *self, int rows)
{
    self->loaded = rows;
}

/* Products sum up to 2^30 at most, by the choice of row_max, and so does the bias; what was written from outside may
 * wrap round. */
void bnn_rows_score(const bnn_learner *self, const void *stream, int32_t *scores)
{
    const int kept = self->loaded == BNN_ROWS_KEPT;
    const int16_t *row = (const int16_t *)(kept ? self->memory.cw : self->memory.tw);
    const int32_t *const bias = kept ? self->memory.bias : self->memory.new_bias;
    const uint32_t count = self->config->mapped;
    const int16_t *const phi = bnn_map(self, stream);
    for (uint32_t c = 0; c < self->config->capacity; c++, row += count) {
        uint32_t sum = (uint32_t)bias[c];
        for (uint32_t i = 0; i < count; i++) {
            sum += (uint32_t)(phi[i] * row[i]);
        }
        scores[c] = (int32_t)sum;
    }
}

void bnn_sums_commit(int32_t *to, int32_t *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = (int32_t)((uint32_t)to[i] + (uint32_t)from[i]); /* it fits: observe and merge see to that */
        from[i] = 0;
    }
}

void bnn_rows_commit(bnn_learner *self)
{
    const int16_t *const tw = (const int16_t *)self->memory.tw;
    int16_t *const cw = (int16_t *)self->memory.cw;
    const size_t count = element_count(self);
    for (size_t i = 0; i < count; i++) {
        cw[i] = tw[i];
    }
    for (uint32_t c = 0; c < self->config->capacity; c++) {
        self->memory.bias[c] = self->memory.new_bias[c];
    }
    self->state.cw_exp = self->state.tw_exp;
    if (self->config->undo != 0) {
        bnn_sums_commit(self->memory.sums, self->memory.new_sums, count);
    }
}

bnn_status bnn_rows_abandon(bnn_learner *self)
{
    if (self->config->undo == 0) {
        return self->state.added == 0 ? BNN_OK : BNN_E_STATE;
    }
    bnn_learn_clear(self->memory.new_sums, element_count(self) * sizeof(int32_t));
    return BNN_OK;
}

void bnn_rows_forget(bnn_learner *self, uint32_t label)
{
    const size_t count = self->config->mapped;
    bnn_learn_clear((int16_t *)self->memory.cw + label * count, count * sizeof(int16_t));
    bnn_learn_clear(self->memory.sums + label * count, count * sizeof(int32_t));
    self->memory.bias[label] = 0;
}

uint32_t bnn_rows_items(const bnn_learner *self, bnn_learn_item *items)
{
    const bnn_learn_memory *const m = &self->memory;
    const size_t count = element_count(self);
    items[0].data = m->cw;
    items[1].data = m->tw;
    items[0].bytes = items[1].bytes = count * sizeof(int16_t);
    items[2].data = m->bias;
    items[3].data = m->new_bias;
    items[2].bytes = items[3].bytes = self->config->capacity * sizeof(int32_t);
    items[4].data = m->sums;
    items[4].bytes = count * sizeof(int32_t);
    items[4].fresh = new_sums(self);
    if (self->config->undo == 0) {
        return 5;
    }
    items[5].data = m->new_sums;
    items[5].bytes = items[4].bytes;
    return 6;
}
