/* SPDX-License-Identifier: Apache-2.0 */
/* The command server: one model behind a byte stream. The frames are described in docs/design.md.
 *
 * The server knows nothing of a model but what stands in `bnn_server`: facts, functions and buffers, which
 * the generated main.c fills in. Nothing is allocated; payloads go straight into the caller's buffers.
 */
#ifndef BNN_SERVER_H
#define BNN_SERVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BNN_SERVER_ABI 3u
#define BNN_VERDICT_WORDS 8u /* bnn_learner_verdict() of bnn/learn.h */

enum {
    BNN_CMD_HELLO = 0,
    BNN_CMD_INFER = 1,
    BNN_CMD_TRACE = 2,
    BNN_CMD_LATENT = 3,
    BNN_CMD_LEARN_INIT = 4,
    BNN_CMD_BEGIN = 5,
    BNN_CMD_ADD = 6,
    BNN_CMD_STEP = 7,
    BNN_CMD_END = 8,
    BNN_CMD_CLASSIFY = 9,
    BNN_CMD_STATE = 10,
    BNN_CMD_READ = 11,
    BNN_CMD_EXIT = 12,
    BNN_CMD_INFO = 13,
    BNN_CMD_FEATURES = 14,
    BNN_CMD_CUT = 15,
    BNN_CMD_ADD_CUT = 16,
    BNN_CMD_CLASSIFY_CUT = 17,
    BNN_CMD_FORGET = 18,
    BNN_CMD_ABANDON = 19,
    BNN_CMD_WRITE = 20,
    BNN_CMD_RESTORE = 21,
    BNN_CMD_MERGE = 22,
    BNN_CMD_DECIDE = 23,
    BNN_CMD_SIZES = 24,
    BNN_CMD_FAULT = 127 /* never asked for: what a program says before it stops */
};

/* What HELLO tells. Bytes and counts; capacity and state_items are 0 where there is no learning part. */
typedef struct {
    uint32_t image_bytes, classes, steps, latent_words, features, feature_bytes, capacity, state_items;
    const char *hash; /* 32 characters */
    uint32_t cut_bytes; /* of the tensor at the cut; 0: the model has none */
} bnn_server_facts;

/* The model's functions. `user` is bnn_server.user; int is a bnn_status, passed on to the client. A null
 * `latent` means no cut, a null `learn_init` no learning part. The server itself answers BNN_E_COMMAND (no such
 * command, or the model has no such part), BNN_E_SIZE (length of the payload), BNN_E_RANGE (an argument) and
 * BNN_E_STATE (LEARN_INIT has not succeeded yet). */
typedef struct {
    void (*infer)(void *user, const uint8_t *image, int32_t *scores);
    /* Infer, calling bnn_server_trace_step once for each step, in order. */
    void (*trace)(void *user, const uint8_t *image, int32_t *scores);
    void (*latent)(void *user, const uint8_t *image, uint32_t *latent);
    const void *(*features)(void *user, const uint8_t *image); /* what the heads read: feature_bytes bytes */
    int (*learn_init)(void *user, uint64_t seed);
    int (*begin)(void *user);
    int (*add)(void *user, uint32_t label, const uint8_t *image);
    int (*step)(void *user); /* BNN_MORE: call again; BNN_OK: nothing left */
    int (*end)(void *user);
    int (*classify)(void *user, const uint8_t *image, int32_t *scores);
    const void *(*state_item)(void *user, uint32_t index, uint32_t *bytes);
    void (*cut)(void *user, const uint8_t *image); /* leaves the tensor at the cut in bnn_server.cut; null: no cut */
    int (*add_cut)(void *user, uint32_t label);    /* as add and classify, from what stands in bnn_server.cut */
    int (*classify_cut)(void *user, int32_t *scores);
    int (*forget)(void *user, uint32_t label);
    int (*abandon)(void *user);
    int (*write)(void *user, uint32_t item, uint32_t offset, const void *data, uint32_t bytes);
    int (*restore)(void *user);
    int (*merge)(void *user, uint32_t item, uint32_t first, const void *values, uint32_t count); /* 32-bit values */
    int (*decide)(void *user, const uint8_t *image, int32_t *scores, int32_t *label); /* -1: unknown */
    void (*verdict)(void *user, uint32_t *words); /* [BNN_VERDICT_WORDS]: on the last experience (bnn/learn.h) */
} bnn_server_ops;

typedef struct {
    const bnn_server_facts *facts;
    const bnn_server_ops *ops;
    void *user;
    uint8_t *image;   /* [facts.image_bytes] */
    int32_t *scores;  /* [max(facts.classes, facts.capacity)] */
    uint32_t *latent; /* [facts.latent_words]; may be null without a cut */
    uint8_t *cut;     /* [facts.cut_bytes]: the tensor's own place in the arena, free between commands; or null */

    /* The rest is the server's own; zero at the start. */
    uint8_t command;
    uint8_t learn_ready;         /* 0: before LEARN_INIT, 1: yes, 2: a state has been written in part */
    uint8_t back[6], back_count; /* bytes of a refused header, to be looked at again */
    uint8_t args[12];
    uint32_t length;             /* of the request's payload */
    uint32_t trace_left;         /* steps that the client still waits for */
    uint32_t crc;                /* of the answer so far */
    uint32_t out_count;
    uint8_t out[128];
} bnn_server;

/* Serve until EXIT (returns 0), the end of the stream (0) or a broken stream (-1). */
int bnn_server_run(bnn_server *server);

/* Called by ops->trace: `bytes` bytes at `data` are the output of the next step. */
void bnn_server_trace_step(bnn_server *server, const void *data, uint32_t bytes);

/* Write a FAULT frame with four words: pc, lr, fault status, fault address. For fault handlers: uses
 * nothing but the stream. */
void bnn_server_fault(const uint32_t words[4]);

#ifdef __cplusplus
}
#endif

#endif
