/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c -- see harness.h. A latent's first word is the row of the script's feature table. */
#include "harness.h"

#include "bnn/learn.h"

enum { OP_BEGIN = 1, OP_ADD, OP_STEP, OP_END, OP_ABANDON, OP_SCORES, OP_FORGET, OP_DECIDE, OP_RESTORE, OP_MERGE };

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

/* The heads and replay memories that a script can ask for: HEAD_SYMBOLS and REPLAY_SYMBOLS of script.py. */
static const bnn_head_ops *const heads[] = {&bnn_head_cwr16, &bnn_head_cwr32, &bnn_head_float, &bnn_head_mean,
                                            &bnn_head_lda};
static const bnn_replay_ops *const memories[] = {NULL, &bnn_replay_stored, &bnn_replay_generative};

/* Every field of the struct is a pointer to data; its size in bytes is in the script, 0 for null. */
static bnn_learn_memory make_memory(harness *h)
{
    bnn_learn_memory memory;
    for (size_t i = 0; i < sizeof memory / sizeof(void *); i++) {
        const uint32_t bytes = word(h);
        void *const block = bytes != 0 ? platform_alloc(bytes) : NULL;
        for (size_t j = 0; j < sizeof block; j++) {
            ((uint8_t *)&memory)[i * sizeof block + j] = ((const uint8_t *)&block)[j];
        }
    }
    return memory;
}

static const int32_t *centre(harness *h)
{
    const int32_t *const values = (const int32_t *)(const void *)h->at;
    h->at += (size_t)h->config.features * 4u;
    return values;
}

static void setup(harness *h)
{
    uint64_t seed;
    bnn_learn_memory memory;
    bnn_learn_parts parts;
    take(h, &h->config, sizeof h->config); /* all fields are 32 bits wide */
    take(h, &seed, sizeof seed);
    parts.head = heads[word(h)];
    parts.replay = memories[word(h)];
    parts.features = features;
    parts.user = h;
    parts.centre = word(h) != 0 ? centre(h) : NULL;
    parts.tail = NULL;
    parts.blocks = NULL;
    parts.govern = h->config.hold_every != 0 || h->config.reject != 0 ? &bnn_governed : NULL;
    memory = make_memory(h);
    h->rows = word(h);
    h->row_bytes = h->config.features * (h->config.stream_type == BNN_S8 ? 1u : 2u);
    h->table = h->at;
    h->at += (h->rows * h->row_bytes + 3u) / 4u * 4u;
    h->scores = (int32_t *)platform_alloc(h->config.capacity * 4u);
    bnn_learner_init(&h->learner, &h->config, &parts, &memory, seed);
}

/* Pieces of items, each as item, offset, bytes, data padded to words; then restore. */
static int restore(harness *h)
{
    const uint32_t pieces = word(h);
    int status = BNN_OK;
    for (uint32_t i = 0; i < pieces; i++) {
        const uint32_t item = word(h), offset = word(h), bytes = word(h);
        const int written = bnn_learner_write(&h->learner, item, offset, h->at, bytes);
        status = status == BNN_OK ? written : status;
        h->at += (bytes + 3u) / 4u * 4u;
    }
    return status == BNN_OK ? bnn_learner_restore(&h->learner) : status;
}

/* Item, first element, count, values. */
static int merge(harness *h)
{
    const uint32_t item = word(h), first = word(h), count = word(h);
    const uint8_t *const values = h->at;
    h->at += (size_t)count * 4u;
    return bnn_learner_merge(&h->learner, item, first, values, count);
}

static int run_op(harness *h, uint32_t op)
{
    if (op == OP_ADD) {
        const uint32_t label = word(h);
        const uint32_t *const latent = (const uint32_t *)(const void *)h->at;
        h->at += (size_t)h->config.latent_words * 4u;
        return bnn_learner_add(&h->learner, latent, features(h, latent), label);
    }
    if (op == OP_SCORES) {
        bnn_learner_scores(&h->learner, h->table + word(h) * h->row_bytes, h->scores);
        return BNN_OK;
    }
    if (op == OP_DECIDE) { /* the answer takes the place of the status */
        bnn_learner_scores(&h->learner, h->table + word(h) * h->row_bytes, h->scores);
        return bnn_learner_decide(&h->learner, h->scores);
    }
    if (op == OP_RESTORE) {
        return restore(h);
    }
    if (op == OP_MERGE) {
        return merge(h);
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
        if (op < OP_BEGIN || op > OP_MERGE) {
            return 1;
        }
        report(&h, op, run_op(&h, op));
    }
    return 0;
}
