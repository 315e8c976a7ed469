/* SPDX-License-Identifier: Apache-2.0 */
/* merge.c -- what another learner has summed up, added to the open experience: sums do not ask who made them. */
#include "internal.h"

enum { SUM_MAX = 0x7FFFFFFF, PAST = 1 };

static int32_t value_at(const uint8_t *values, uint32_t i)
{
    uint32_t v = 0;
    for (uint32_t b = 0; b < 4u; b++) {
        v |= (uint32_t)values[4u * i + b] << (8u * b);
    }
    return (int32_t)v;
}

bnn_status bnn_learner_merge(bnn_learner *self, uint32_t item, uint32_t first, const void *values, uint32_t count)
{
    bnn_learn_item items[BNN_LEARN_ITEMS];
    const uint8_t *const bytes = (const uint8_t *)values;
    const int32_t *kept;
    int32_t *fresh;
    size_t size;
    if (self->state.phase != BNN_LEARN_COLLECT) {
        return BNN_E_STATE;
    }
    if (item >= bnn_learner_items(self, items) || items[item].fresh == NULL) {
        return BNN_E_RANGE;
    }
    size = items[item].bytes / sizeof(int32_t);
    if (first > size || count > size - first) {
        return BNN_E_RANGE;
    }
    kept = (const int32_t *)items[item].data + first;
    fresh = (int32_t *)items[item].fresh + first;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t sum = (int64_t)fresh[i] + value_at(bytes, i);
        const int64_t total = kept == fresh ? sum : sum + kept[i];
        const int64_t least = item == PAST ? 0 : -SUM_MAX;
        if (sum < least || sum > SUM_MAX || total < least || total > SUM_MAX) {
            return BNN_E_RANGE;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        fresh[i] += value_at(bytes, i);
    }
    self->state.added += self->state.added == 0;
    return BNN_OK;
}
