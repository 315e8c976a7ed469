/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c -- see harness.h. A latent's first word is the row of the script's feature table. */
#include "harness.h"

#include "bnn/learn.h"

enum { OP_BEGIN = 1, OP_ADD, OP_STEP, OP_END, OP_ABANDON, OP_SCORES, OP_FORGET };

typedef struct {
    const uint8_t *at, *end;
    const uint8_t *table;
    uint32_t rows;
    size_t row_bytes;
    bnn_learn_config config;
    bnn_learner learner;
    int32_t *scores;
} harness;

static void take(harness *h, void *to, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)to)[i] = *h->at++;
    }
}

static uint32_t word(harness *h)
{
    uint32_t v;
    take(h, &v, sizeof v);
    return v;
}

static void hex(char *to, uint32_t v)
{
    for (int i = 0; i < 8; i++) {
        to[i] = "0123456789abcdef"[(v >> (28 - 4 * i)) & 15u];
    }
    to[8] = ' ';
}

/* "op status crc crc ..." in hexadecimal: every state item, and the scores where the call made some. */
static void report(harness *h, uint32_t op, int status)
{
    char text[9 * (BNN_LEARN_ITEMS + 3) + 1];
    char *to = text;
    bnn_learn_item items[BNN_LEARN_ITEMS];
    hex(to, op);
    hex(to += 9, (uint32_t)status);
    const uint32_t count = bnn_learner_items(&h->learner, items);
    for (uint32_t i = 0; i < count; i++) {
        hex(to += 9, bnn_crc32(0, items[i].data, items[i].bytes));
    }
    if (op == OP_SCORES) {
        hex(to += 9, bnn_crc32(0, h->scores, h->config.capacity * sizeof(int32_t)));
    }
    to[8] = 0;
    platform_line(text);
}

static const void *features(void *user, const uint32_t *latent)
{
    const harness *h = (const harness *)user;
    return h->table + (latent[0] % h->rows) * h->row_bytes;
}

static bnn_learn_memory make_memory(const bnn_learn_config *c)
{
    const size_t weights = (size_t)c->capacity * c->features;
    bnn_learn_memory m;
    m.past = (uint32_t *)platform_alloc(c->capacity * 4u);
    m.cur = (uint32_t *)platform_alloc(c->capacity * 4u);
    m.seen = (uint32_t *)platform_alloc(c->capacity * 4u);
    m.cw = platform_alloc(weights * 2u);
    m.tw = platform_alloc(weights * 2u);
    m.replay_labels = (uint16_t *)platform_alloc(c->replay_slots * 2u);
    m.replay_latents = (uint32_t *)platform_alloc((size_t)c->replay_slots * c->latent_words * 4u);
    m.buffer_labels = (uint16_t *)platform_alloc(c->buffer_slots * 2u);
    m.buffer_latents = (uint32_t *)platform_alloc((size_t)c->buffer_slots * c->latent_words * 4u);
    m.order = (uint16_t *)platform_alloc(c->buffer_slots * 2u);
    m.dw = platform_alloc(weights * 4u);
    m.wq = platform_alloc(weights);
    m.x = (int16_t *)platform_alloc(c->features * 2u);
    m.acc = (int32_t *)platform_alloc(c->capacity * 4u);
    return m;
}

static void setup(harness *h)
{
    uint64_t seed;
    bnn_learn_memory memory;
    bnn_learn_parts parts;
    take(h, &h->config, sizeof h->config); /* all fields are 32 bits wide */
    take(h, &seed, sizeof seed);
    h->rows = word(h);
    h->row_bytes = h->config.features * (h->config.stream_type == BNN_S8 ? 1u : 2u);
    h->table = h->at;
    h->at += (h->rows * h->row_bytes + 3u) / 4u * 4u;
    h->scores = (int32_t *)platform_alloc(h->config.capacity * 4u);
    memory = make_memory(&h->config);
    parts.head = &bnn_head_cwr16;
    parts.replay = h->config.replay_slots != 0 ? &bnn_replay_stored : NULL;
    parts.features = features;
    parts.user = h;
    bnn_learner_init(&h->learner, &h->config, &parts, &memory, seed);
}

static int run_op(harness *h, uint32_t op)
{
    if (op == OP_ADD) {
        const uint32_t label = word(h);
        const uint32_t *const latent = (const uint32_t *)(const void *)h->at;
        h->at += (size_t)h->config.latent_words * 4u;
        return bnn_learner_add(&h->learner, latent, NULL, label);
    }
    if (op == OP_SCORES) {
        bnn_learner_scores(&h->learner, h->table + word(h) * h->row_bytes, h->scores);
        return BNN_OK;
    }
    if (op == OP_FORGET) {
        return bnn_learner_forget(&h->learner, word(h));
    }
    return op == OP_BEGIN ? bnn_learner_begin(&h->learner)
           : op == OP_STEP ? bnn_learner_step(&h->learner)
           : op == OP_END ? bnn_learner_end(&h->learner)
                          : bnn_learner_abandon(&h->learner);
}

int harness_run(const uint8_t *script, size_t bytes)
{
    static harness h;
    h.at = script;
    h.end = script + bytes;
    setup(&h);
    while (h.at < h.end) {
        const uint32_t op = word(&h);
        if (op < OP_BEGIN || op > OP_FORGET) {
            return 1;
        }
        report(&h, op, run_op(&h, op));
    }
    return 0;
}
