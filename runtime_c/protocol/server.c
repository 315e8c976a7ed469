/* SPDX-License-Identifier: Apache-2.0 */
/* The command server (bnn/server.h): what each command does. Frames are frame.c's business. */
#include "bnn/server.h"

#include "bnn/bnn.h"
#include "bnn/port.h"
#include "frame.h"

static void send_words(bnn_server *self, const uint32_t *words, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++) {
        bnn_frame_send_u32(self, words[i]);
    }
}

static void send_scores(bnn_server *self, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++) {
        bnn_frame_send_u32(self, (uint32_t)self->scores[i]);
    }
}

static void answer_status(bnn_server *self, int status)
{
    bnn_frame_begin(self, status, 0);
    bnn_frame_end(self);
}

static void hello(bnn_server *self)
{
    const bnn_server_facts *facts = self->facts;

    bnn_frame_begin(self, 0, 9 * 4 + 32);
    bnn_frame_send_u32(self, BNN_SERVER_ABI);
    bnn_frame_send_u32(self, facts->image_bytes);
    bnn_frame_send_u32(self, facts->classes);
    bnn_frame_send_u32(self, facts->steps);
    bnn_frame_send_u32(self, facts->latent_words);
    bnn_frame_send_u32(self, facts->features);
    bnn_frame_send_u32(self, facts->capacity);
    bnn_frame_send_u32(self, facts->state_items);
    bnn_frame_send(self, facts->hash, 32);
    bnn_frame_send_u32(self, facts->cut_bytes);
    bnn_frame_end(self);
}

static void info(bnn_server *self)
{
    bnn_port_info facts;

    bnn_port_get_info(&facts);
    bnn_frame_begin(self, 0, 16);
    bnn_frame_send_u32(self, facts.stack_bytes);
    bnn_frame_send_u32(self, facts.stack_peak);
    bnn_frame_send_u32(self, facts.clock_hz);
    bnn_frame_send_u32(self, facts.flags);
    bnn_frame_end(self);
}

static void infer(bnn_server *self)
{
    self->ops->infer(self->user, self->image, self->scores);
    bnn_frame_begin(self, 0, 4 * self->facts->classes);
    send_scores(self, self->facts->classes);
    bnn_frame_end(self);
}

void bnn_server_trace_step(bnn_server *server, const void *data, uint32_t bytes)
{
    if (server->trace_left > 0) {
        server->trace_left--;
        bnn_frame_send_u32(server, bytes);
        bnn_frame_send_u32(server, bnn_crc32(0, data, bytes));
    }
}

static void trace(bnn_server *self)
{
    bnn_frame_begin(self, 0, 8 * self->facts->steps + 4 * self->facts->classes);
    self->trace_left = self->facts->steps;
    self->ops->trace(self->user, self->image, self->scores);
    while (self->trace_left > 0) { /* the announced length holds whatever the model does */
        bnn_server_trace_step(self, self->image, 0);
    }
    send_scores(self, self->facts->classes);
    bnn_frame_end(self);
}

static void latent(bnn_server *self)
{
    if (self->ops->latent == NULL) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    self->ops->latent(self->user, self->image, self->latent);
    bnn_frame_begin(self, 0, 4 * self->facts->latent_words);
    send_words(self, self->latent, self->facts->latent_words);
    bnn_frame_end(self);
}

static void cut(bnn_server *self)
{
    if (self->ops->cut == NULL) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    self->ops->cut(self->user, self->image);
    bnn_frame_begin(self, 0, self->facts->cut_bytes);
    bnn_frame_send(self, self->cut, self->facts->cut_bytes);
    bnn_frame_end(self);
}

static void features(bnn_server *self)
{
    const void *data = self->ops->features(self->user, self->image);

    bnn_frame_begin(self, 0, self->facts->feature_bytes);
    bnn_frame_send(self, data, self->facts->feature_bytes);
    bnn_frame_end(self);
}

static void learn_init(bnn_server *self)
{
    uint64_t seed = bnn_get_u32(self->args) | ((uint64_t)bnn_get_u32(self->args + 4) << 32);
    int status = self->ops->learn_init(self->user, seed);

    self->learn_ready = status == 0;
    answer_status(self, status);
}

static void step(bnn_server *self)
{
    uint32_t most = bnn_get_u32(self->args), done = 0;
    int status = 1;

    while (status > 0 && done < most) {
        status = self->ops->step(self->user);
        done += status >= 0;
    }
    if (most == 0 || status < 0) {
        answer_status(self, most == 0 ? BNN_E_RANGE : status);
        return;
    }
    bnn_frame_begin(self, 0, 8);
    bnn_frame_send_u32(self, done);
    bnn_frame_send_u32(self, (uint32_t)status);
    bnn_frame_end(self);
}

/* From the image, or from the tensor at the cut. */
static void classify(bnn_server *self)
{
    int status = self->command == BNN_CMD_CLASSIFY ? self->ops->classify(self->user, self->image, self->scores)
                                                   : self->ops->classify_cut(self->user, self->scores);

    if (status < 0) {
        answer_status(self, status);
        return;
    }
    bnn_frame_begin(self, 0, 4 * self->facts->capacity);
    send_scores(self, self->facts->capacity);
    bnn_frame_end(self);
}

static void state(bnn_server *self)
{
    uint32_t i, bytes = 0;

    bnn_frame_begin(self, 0, 4 * self->facts->state_items);
    for (i = 0; i < self->facts->state_items; i++) {
        const void *data = self->ops->state_item(self->user, i, &bytes);
        bnn_frame_send_u32(self, bnn_crc32(0, data, bytes));
    }
    bnn_frame_end(self);
}

static void sizes(bnn_server *self)
{
    uint32_t i, bytes = 0;

    bnn_frame_begin(self, 0, 4 * self->facts->state_items);
    for (i = 0; i < self->facts->state_items; i++) {
        (void)self->ops->state_item(self->user, i, &bytes);
        bnn_frame_send_u32(self, bytes);
    }
    bnn_frame_end(self);
}

static void end(bnn_server *self)
{
    uint32_t words[BNN_VERDICT_WORDS];
    int status = self->ops->end(self->user);

    if (status < 0) {
        answer_status(self, status);
        return;
    }
    self->ops->verdict(self->user, words);
    bnn_frame_begin(self, status, sizeof words);
    send_words(self, words, BNN_VERDICT_WORDS);
    bnn_frame_end(self);
}

static void decide(bnn_server *self)
{
    int32_t label = -1;
    int status = self->ops->decide(self->user, self->image, self->scores, &label);

    if (status < 0) {
        answer_status(self, status);
        return;
    }
    bnn_frame_begin(self, 0, 4);
    bnn_frame_send_u32(self, (uint32_t)label);
    bnn_frame_end(self);
}

static void write_item(bnn_server *self)
{
    uint32_t item = bnn_get_u32(self->args), offset = bnn_get_u32(self->args + 4), bytes = self->length - 8;
    int status = self->ops->write(self->user, item, offset, self->image, bytes);

    self->learn_ready = status == 0 ? 2 : self->learn_ready; /* from here on, only a whole state will do */
    answer_status(self, status);
}

static void merge(bnn_server *self)
{
    uint32_t item = bnn_get_u32(self->args), first = bnn_get_u32(self->args + 4), bytes = self->length - 8;

    answer_status(self, bytes % 4 != 0 ? BNN_E_SIZE : self->ops->merge(self->user, item, first, self->image, bytes / 4));
}

static void restore(bnn_server *self)
{
    int status = self->ops->restore(self->user);

    self->learn_ready = 1; /* what does not fit has been cleared */
    answer_status(self, status);
}

/* While a state is written piece by piece, nothing may use it. */
static int learn_legal(const bnn_server *self)
{
    if (self->command == BNN_CMD_LEARN_INIT || self->learn_ready == 1) {
        return 1;
    }
    return self->learn_ready == 2 && (self->command == BNN_CMD_WRITE || self->command == BNN_CMD_RESTORE ||
                                      self->command == BNN_CMD_READ || self->command == BNN_CMD_STATE ||
                                      self->command == BNN_CMD_SIZES);
}

static void read_item(bnn_server *self)
{
    uint32_t item = bnn_get_u32(self->args), offset = bnn_get_u32(self->args + 4), count = bnn_get_u32(self->args + 8);
    uint32_t bytes = 0;
    const uint8_t *data;

    if (item >= self->facts->state_items) {
        answer_status(self, BNN_E_RANGE);
        return;
    }
    data = (const uint8_t *)self->ops->state_item(self->user, item, &bytes);
    if (offset > bytes || count > bytes - offset) {
        answer_status(self, BNN_E_RANGE);
        return;
    }
    bnn_frame_begin(self, 0, count);
    bnn_frame_send(self, data + offset, count);
    bnn_frame_end(self);
}

static void learn(bnn_server *self)
{
    const bnn_server_ops *ops = self->ops;

    if (ops->learn_init == NULL) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    if (!learn_legal(self)) {
        answer_status(self, BNN_E_STATE);
        return;
    }
    switch (self->command) {
    case BNN_CMD_LEARN_INIT: learn_init(self); break;
    case BNN_CMD_BEGIN: answer_status(self, ops->begin(self->user)); break;
    case BNN_CMD_ADD: answer_status(self, ops->add(self->user, bnn_get_u32(self->args), self->image)); break;
    case BNN_CMD_STEP: step(self); break;
    case BNN_CMD_END: end(self); break;
    case BNN_CMD_FORGET: answer_status(self, ops->forget(self->user, bnn_get_u32(self->args))); break;
    case BNN_CMD_ABANDON: answer_status(self, ops->abandon(self->user)); break;
    case BNN_CMD_WRITE: write_item(self); break;
    case BNN_CMD_RESTORE: restore(self); break;
    case BNN_CMD_MERGE: merge(self); break;
    case BNN_CMD_DECIDE: decide(self); break;
    case BNN_CMD_SIZES: sizes(self); break;
    case BNN_CMD_ADD_CUT: answer_status(self, ops->add_cut(self->user, bnn_get_u32(self->args))); break;
    case BNN_CMD_CLASSIFY:
    case BNN_CMD_CLASSIFY_CUT: classify(self); break;
    case BNN_CMD_STATE: state(self); break;
    default: read_item(self); break;
    }
}

static void act(bnn_server *self)
{
    int is_piece = self->command == BNN_CMD_WRITE || self->command == BNN_CMD_MERGE; /* of any length */
    uint32_t args = bnn_frame_args_bytes(self->command), most = args + bnn_frame_image_bytes(self, self->command);

    if (self->command > BNN_CMD_SIZES) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    if (self->length > most || self->length < (is_piece ? args : most)) {
        answer_status(self, BNN_E_SIZE);
        return;
    }
    switch (self->command) {
    case BNN_CMD_HELLO: hello(self); break;
    case BNN_CMD_INFER: infer(self); break;
    case BNN_CMD_TRACE: trace(self); break;
    case BNN_CMD_LATENT: latent(self); break;
    case BNN_CMD_EXIT: answer_status(self, 0); break;
    case BNN_CMD_INFO: info(self); break;
    case BNN_CMD_FEATURES: features(self); break;
    case BNN_CMD_CUT: cut(self); break;
    default: learn(self); break;
    }
}

int bnn_server_run(bnn_server *server)
{
    for (;;) {
        int end = bnn_frame_read(server);

        if (end == 1 || end < 0) {
            return end < 0 ? -1 : 0;
        }
        if (end == 0) {
            act(server);
            if (server->command == BNN_CMD_EXIT && server->length == 0) {
                return 0;
            }
        }
    }
}
