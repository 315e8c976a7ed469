/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c -- a trainable tail driven by a script of calls (tests/tail/script.py writes it); one line of checksums
 * after each call. The platforms are those of tests/learn. */
#include "harness.h"

#include "bnn/tail.h"

enum { OP_FORWARD = 1, OP_REPLAY, OP_BACKWARD, OP_CLEAR, OP_UPDATE, OP_PREPARE, OP_COMMIT, OP_RESTORE, OP_RATE, OP_DAMAGE };
enum { OP_QUIET = 256 }; /* added: no report */

typedef struct {
    const uint8_t *at;
    bnn_tail_config config;
    bnn_tail_block blocks[BNN_TAIL_MOST_BLOCKS];
    bnn_tail tail;
    uint64_t rng;
    int32_t status; /* of the last call that has one */
    uint32_t sum_bytes, vector_sum_bytes;
} harness;

/* The next `bytes` of the script, which keeps everything 8-byte aligned. */
static const void *next(harness *h, size_t bytes)
{
    const void *const here = h->at;
    h->at += (bytes + 7u) / 8u * 8u;
    return here;
}

static int32_t number(harness *h)
{
    return *(const int32_t *)next(h, 4);
}

static void *buffer(harness *h, uint32_t *bytes)
{
    *bytes = (uint32_t)number(h);
    return *bytes == 0 ? NULL : platform_alloc(*bytes);
}

static void hex(char *to, uint32_t v)
{
    for (int i = 0; i < 8; i++) {
        to[i] = "0123456789abcdef"[(v >> (28 - 4 * i)) & 15u];
    }
    to[8] = ' ';
}

/* "op features items sums vector_sums bounds exponents rng", in hexadecimal; the status of OP_DAMAGE for features. */
static void report(const harness *h, uint32_t op, const int16_t *features)
{
    char text[9 * 16];
    char *to = text;
    bnn_learn_item items[BNN_TAIL_ITEMS];
    uint32_t crc = 0;
    hex(to, op);
    hex(to += 9, features == NULL ? (uint32_t)h->status : bnn_crc32(0, features, h->config.channels * 2u));
    for (uint32_t i = 0; i < bnn_tail_items(&h->tail, items); i++) {
        hex(to += 9, bnn_crc32(0, items[i].data, items[i].bytes));
    }
    hex(to += 9, bnn_crc32(0, h->tail.memory.sums, h->sum_bytes));
    hex(to += 9, bnn_crc32(0, h->tail.memory.vector_sums, h->vector_sum_bytes));
    hex(to += 9, bnn_crc32(0, h->tail.sum_bound, h->config.count * 4u));
    for (uint32_t b = 0; b < h->config.count; b++) {
        const int32_t e = h->tail.sum_bound[b] == 0 ? 0 : h->tail.sum_exponent[b];
        crc = bnn_crc32(crc, &e, sizeof e);
    }
    hex(to += 9, crc);
    hex(to += 9, (uint32_t)h->rng);
    to[8] = 0;
    platform_line(text);
}

static void read_config(harness *h)
{
    bnn_tail_config *const c = &h->config;
    uint32_t *const whole = &c->count; /* 9 fields from here, then 12 signed ones */
    for (uint32_t i = 0; i < 9u; i++) {
        whole[i] = (uint32_t)number(h);
    }
    c->exponent = number(h);
    c->g_max = number(h);
    c->cut_shift = number(h);
    c->pool_mult = number(h);
    c->pool_shift = number(h);
    c->w_mult = number(h);
    c->w_shift = number(h);
    c->v_mult = number(h);
    c->v_shift = number(h);
    c->s_mult = number(h);
    c->s_shift = number(h);
    c->cut_mult = (const int32_t *)next(h, c->channels * 4u);
    c->low = (const int16_t *)next(h, c->channels * 2u);
    c->high = (const int16_t *)next(h, c->channels * 2u);
    c->blocks = h->blocks;
    for (uint32_t b = 0; b < c->count; b++) {
        bnn_tail_block *const block = &h->blocks[b];
        block->pad = (uint8_t)number(h);
        block->relu = (uint8_t)number(h);
        block->shifted = (uint8_t)number(h);
        block->curved = (uint8_t)number(h);
        block->latent = (const int8_t *)next(h, (size_t)9u * c->channels * c->channels);
        block->vectors = (const int32_t *)next(h, (size_t)number(h) * c->channels * 4u);
    }
}

static void setup(harness *h)
{
    bnn_tail_memory m;
    uint32_t bytes;
    read_config(h);
    m.committed.latents = buffer(h, &bytes);
    m.committed.signs = (uint32_t *)buffer(h, &bytes);
    m.committed.vectors = (int32_t *)buffer(h, &bytes);
    m.training.latents = buffer(h, &bytes);
    m.training.signs = (uint32_t *)buffer(h, &bytes);
    m.training.vectors = (int32_t *)buffer(h, &bytes);
    m.sums = buffer(h, &h->sum_bytes);
    m.vector_sums = (int64_t *)buffer(h, &h->vector_sum_bytes);
    m.bits = (uint32_t *)buffer(h, &bytes);
    m.masks = (uint32_t *)buffer(h, &bytes);
    m.alive = (uint32_t *)buffer(h, &bytes);
    m.stream = (int16_t *)buffer(h, &bytes);
    m.features = (int16_t *)buffer(h, &bytes);
    m.gradient = (int16_t *)buffer(h, &bytes);
    m.inner = (int16_t *)buffer(h, &bytes);
    m.wide = (int32_t *)buffer(h, &bytes);
    m.row = (int16_t *)buffer(h, &bytes);
    m.lane = (int16_t *)buffer(h, &bytes);
    m.total = (int64_t *)buffer(h, &bytes);
    h->rng = *(const uint64_t *)next(h, 8);
    bnn_tail_init(&h->tail, &h->config, &m);
}

/* One number of the committed vectors is another for the time of a restore. */
static void damage(harness *h)
{
    const uint32_t place = (uint32_t)number(h);
    int32_t *const vectors = h->tail.memory.committed.vectors;
    const int32_t old = vectors[place];
    vectors[place] = number(h);
    h->status = (int32_t)bnn_tail_restore(&h->tail);
    vectors[place] = old;
}

static const int16_t *run_op(harness *h, uint32_t op)
{
    const uint32_t channels = h->config.channels;
    const uint32_t pixels = h->config.height * h->config.width;
    h->status = BNN_OK;
    if (op == OP_FORWARD) {
        const int training = number(h);
        return bnn_tail_forward(&h->tail, next(h, (size_t)pixels * channels * h->config.cut_type), training);
    }
    if (op == OP_REPLAY) {
        const int training = number(h);
        const void *const latent = next(h, (size_t)pixels * ((channels + 31u) / 32u) * 4u);
        return bnn_tail_replay(&h->tail, (const uint32_t *)latent, training);
    }
    if (op == OP_BACKWARD) {
        const int32_t exponent = number(h);
        bnn_tail_backward(&h->tail, (const int32_t *)next(h, channels * 4u), exponent);
    } else if (op == OP_CLEAR) {
        bnn_tail_clear(&h->tail);
    } else if (op == OP_UPDATE) {
        bnn_tail_update(&h->tail, &h->rng);
    } else if (op == OP_PREPARE) {
        bnn_tail_prepare(&h->tail);
    } else if (op == OP_COMMIT) {
        bnn_tail_commit(&h->tail);
    } else if (op == OP_RATE) {
        bnn_tail_set_rate(&h->tail, (uint32_t)number(h));
    } else if (op == OP_RESTORE) {
        h->status = (int32_t)bnn_tail_restore(&h->tail);
    } else if (op == OP_DAMAGE) {
        damage(h);
    }
    return NULL;
}

int harness_run(const uint8_t *script, size_t bytes)
{
    static harness h; /* keeps its memory reachable for the leak checker */
    h.at = script;
    setup(&h);
    while (h.at < script + bytes) {
        const uint32_t op = (uint32_t)number(&h);
        const int16_t *const features = run_op(&h, op % OP_QUIET);
        if (op < OP_QUIET) {
            report(&h, op, features);
        }
    }
    return h.at == script + bytes ? 0 : 1;
}
