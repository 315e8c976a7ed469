/* SPDX-License-Identifier: Apache-2.0 */
/* The command server (bnn/server.h): reads a frame, checks it, acts, answers.
 *
 * A frame that is broken in any way has no effect and gets no answer. The search for the next 'B' 'N'
 * begins behind the last byte that belonged to a plausible header, so that noise cannot hide a good frame,
 * except inside the payload that a bad header announced: lengths are bounded, and a client that gets no
 * answer sends that many zero bytes, after which the server is certainly searching again.
 */
#include "bnn/server.h"

#include "bnn/bnn.h"
#include "bnn/port.h"

#define HEADER_BYTES 6u /* command, status, length: what follows 'B' 'N' */

static void put_u32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
    to[2] = (uint8_t)(value >> 16);
    to[3] = (uint8_t)(value >> 24);
}

static uint32_t get_u32(const uint8_t *from)
{
    return from[0] | ((uint32_t)from[1] << 8) | ((uint32_t)from[2] << 16) | ((uint32_t)from[3] << 24);
}

/* ------------------------------------------------------------------------------------------ reading */

/* Read exactly `bytes` bytes. Returns 0, 1 at the end of the stream, -1 when it is broken. */
static int read_all(uint8_t *to, uint32_t bytes)
{
    while (bytes > 0) {
        int got = bnn_port_read(to, bytes);
        if (got <= 0) {
            return got == 0 ? 1 : -1;
        }
        to += got;
        bytes -= (uint32_t)got;
    }
    return 0;
}

/* The next byte: first those that a refused header has given back. */
static int next_byte(bnn_server *self, uint8_t *byte)
{
    uint8_t i;

    if (self->back_count == 0) {
        return read_all(byte, 1);
    }
    *byte = self->back[0];
    self->back_count--;
    for (i = 0; i < self->back_count; i++) {
        self->back[i] = self->back[i + 1];
    }
    return 0;
}

static int find_start(bnn_server *self)
{
    uint8_t byte = 0, before;
    int end;

    do {
        before = byte;
        end = next_byte(self, &byte);
    } while (end == 0 && !(before == 'B' && byte == 'N'));
    return end;
}

/* Arguments in front of the image, in bytes. */
static uint32_t args_bytes(uint8_t command)
{
    switch (command) {
    case BNN_CMD_LEARN_INIT: return 8;
    case BNN_CMD_ADD: return 4;
    case BNN_CMD_STEP: return 4;
    case BNN_CMD_READ: return 12;
    default: return 0;
    }
}

static uint32_t image_bytes(const bnn_server *self, uint8_t command)
{
    switch (command) {
    case BNN_CMD_INFER:
    case BNN_CMD_TRACE:
    case BNN_CMD_LATENT:
    case BNN_CMD_ADD:
    case BNN_CMD_CLASSIFY: return self->facts->image_bytes;
    default: return 0;
    }
}

/* Read the payload: arguments, then the image, then nowhere; the checksum goes over all of it. */
static int read_payload(bnn_server *self, uint32_t *crc)
{
    uint32_t place = 0, args = args_bytes(self->command), image = image_bytes(self, self->command);
    uint8_t spill[32];

    while (place < self->length) {
        uint32_t left = self->length - place, room = sizeof spill;
        uint8_t *to = spill;
        int end;

        if (place < args) {
            to = self->args + place;
            room = args - place;
        } else if (place - args < image) {
            to = self->image + (place - args);
            room = image - (place - args);
        }
        if (room > left) {
            room = left;
        }
        end = read_all(to, room);
        if (end != 0) {
            return end;
        }
        *crc = bnn_crc32(*crc, to, room);
        place += room;
    }
    return 0;
}

/* Read one frame. Returns 0: `command`, `length` and the buffers hold a good request; 2: a broken frame was
 * dropped; 1 and -1 as read_all. */
static int read_frame(bnn_server *self)
{
    uint8_t header[HEADER_BYTES], trailer[4];
    uint32_t i, crc, longest = self->facts->image_bytes + 4;
    int end = find_start(self);

    for (i = 0; end == 0 && i < HEADER_BYTES; i++) {
        end = next_byte(self, &header[i]);
    }
    if (end != 0) {
        return end;
    }
    self->command = header[0];
    self->length = get_u32(header + 2);
    if (longest < sizeof self->args) {
        longest = sizeof self->args;
    }
    if (header[1] != 0 || self->length > longest) {
        /* Look again at these bytes. The queue is empty here: it never holds more than one header, of which
         * 'B' 'N' took two bytes and this header the rest. */
        for (i = 0; i < HEADER_BYTES; i++) {
            self->back[i] = header[i];
        }
        self->back_count = HEADER_BYTES;
        return 2;
    }
    crc = bnn_crc32(0, header, HEADER_BYTES);
    end = read_payload(self, &crc);
    if (end == 0) {
        end = read_all(trailer, sizeof trailer);
    }
    return end != 0 ? end : (get_u32(trailer) == crc ? 0 : 2);
}

/* ---------------------------------------------------------------------------------------- answering */

static void flush(bnn_server *self)
{
    if (self->out_count > 0) {
        (void)bnn_port_write(self->out, self->out_count); /* a client that has gone is seen when reading */
        self->out_count = 0;
    }
}

/* Collect small pieces, so that a system call or a trap carries more than four bytes. */
static void send(bnn_server *self, const void *data, uint32_t bytes)
{
    const uint8_t *from = (const uint8_t *)data;
    uint32_t i;

    self->crc = bnn_crc32(self->crc, data, bytes);
    if (bytes > sizeof self->out) {
        flush(self);
        (void)bnn_port_write(data, bytes);
        return;
    }
    if (self->out_count + bytes > sizeof self->out) {
        flush(self);
    }
    for (i = 0; i < bytes; i++) {
        self->out[self->out_count++] = from[i];
    }
}

static void send_u32(bnn_server *self, uint32_t value)
{
    uint8_t bytes[4];

    put_u32(bytes, value);
    send(self, bytes, sizeof bytes);
}

static void send_words(bnn_server *self, const uint32_t *words, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++) {
        send_u32(self, words[i]);
    }
}

static void send_scores(bnn_server *self, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++) {
        send_u32(self, (uint32_t)self->scores[i]);
    }
}

/* Begin an answer of `length` payload bytes. The checksum starts behind 'B' 'N'. */
static void begin_answer(bnn_server *self, int status, uint32_t length)
{
    uint8_t command_status[2];

    self->crc = 0;
    send(self, "BN", 2);
    self->crc = 0;
    command_status[0] = self->command;
    command_status[1] = (uint8_t)(status < -128 ? -128 : status);
    send(self, command_status, 2);
    send_u32(self, length);
}

static void end_answer(bnn_server *self)
{
    send_u32(self, self->crc);
    flush(self);
}

static void answer_status(bnn_server *self, int status)
{
    begin_answer(self, status, 0);
    end_answer(self);
}

static void hello(bnn_server *self)
{
    const bnn_server_facts *facts = self->facts;

    begin_answer(self, 0, 8 * 4 + 32);
    send_u32(self, BNN_SERVER_ABI);
    send_u32(self, facts->image_bytes);
    send_u32(self, facts->classes);
    send_u32(self, facts->steps);
    send_u32(self, facts->latent_words);
    send_u32(self, facts->features);
    send_u32(self, facts->capacity);
    send_u32(self, facts->state_items);
    send(self, facts->hash, 32);
    end_answer(self);
}

static void info(bnn_server *self)
{
    bnn_port_info facts;

    bnn_port_get_info(&facts);
    begin_answer(self, 0, 16);
    send_u32(self, facts.stack_bytes);
    send_u32(self, facts.stack_peak);
    send_u32(self, facts.clock_hz);
    send_u32(self, facts.flags);
    end_answer(self);
}

static void infer(bnn_server *self)
{
    self->ops->infer(self->user, self->image, self->scores);
    begin_answer(self, 0, 4 * self->facts->classes);
    send_scores(self, self->facts->classes);
    end_answer(self);
}

void bnn_server_trace_step(bnn_server *server, const void *data, uint32_t bytes)
{
    if (server->trace_left > 0) {
        server->trace_left--;
        send_u32(server, bytes);
        send_u32(server, bnn_crc32(0, data, bytes));
    }
}

static void trace(bnn_server *self)
{
    begin_answer(self, 0, 8 * self->facts->steps + 4 * self->facts->classes);
    self->trace_left = self->facts->steps;
    self->ops->trace(self->user, self->image, self->scores);
    while (self->trace_left > 0) { /* the announced length holds whatever the model does */
        bnn_server_trace_step(self, self->image, 0);
    }
    send_scores(self, self->facts->classes);
    end_answer(self);
}

static void latent(bnn_server *self)
{
    if (self->ops->latent == NULL) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    self->ops->latent(self->user, self->image, self->latent);
    begin_answer(self, 0, 4 * self->facts->latent_words);
    send_words(self, self->latent, self->facts->latent_words);
    end_answer(self);
}

static void learn_init(bnn_server *self)
{
    uint64_t seed = get_u32(self->args) | ((uint64_t)get_u32(self->args + 4) << 32);
    int status = self->ops->learn_init(self->user, seed);

    self->learn_ready = status == 0;
    answer_status(self, status);
}

static void step(bnn_server *self)
{
    uint32_t most = get_u32(self->args), done = 0;
    int status = 1;

    while (status > 0 && done < most) {
        status = self->ops->step(self->user);
        done += status >= 0;
    }
    if (most == 0 || status < 0) {
        answer_status(self, most == 0 ? BNN_E_RANGE : status);
        return;
    }
    begin_answer(self, 0, 8);
    send_u32(self, done);
    send_u32(self, (uint32_t)status);
    end_answer(self);
}

static void classify(bnn_server *self)
{
    int status = self->ops->classify(self->user, self->image, self->scores);

    if (status < 0) {
        answer_status(self, status);
        return;
    }
    begin_answer(self, 0, 4 * self->facts->capacity);
    send_scores(self, self->facts->capacity);
    end_answer(self);
}

static void state(bnn_server *self)
{
    uint32_t i, bytes = 0;

    begin_answer(self, 0, 4 * self->facts->state_items);
    for (i = 0; i < self->facts->state_items; i++) {
        const void *data = self->ops->state_item(self->user, i, &bytes);
        send_u32(self, bnn_crc32(0, data, bytes));
    }
    end_answer(self);
}

static void read_item(bnn_server *self)
{
    uint32_t item = get_u32(self->args), offset = get_u32(self->args + 4), count = get_u32(self->args + 8);
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
    begin_answer(self, 0, count);
    send(self, data + offset, count);
    end_answer(self);
}

static void learn(bnn_server *self)
{
    const bnn_server_ops *ops = self->ops;

    if (ops->learn_init == NULL) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    if (self->command != BNN_CMD_LEARN_INIT && !self->learn_ready) {
        answer_status(self, BNN_E_STATE);
        return;
    }
    switch (self->command) {
    case BNN_CMD_LEARN_INIT: learn_init(self); break;
    case BNN_CMD_BEGIN: answer_status(self, ops->begin(self->user)); break;
    case BNN_CMD_ADD: answer_status(self, ops->add(self->user, get_u32(self->args), self->image)); break;
    case BNN_CMD_STEP: step(self); break;
    case BNN_CMD_END: answer_status(self, ops->end(self->user)); break;
    case BNN_CMD_CLASSIFY: classify(self); break;
    case BNN_CMD_STATE: state(self); break;
    default: read_item(self); break;
    }
}

static void act(bnn_server *self)
{
    if (self->command > BNN_CMD_INFO) {
        answer_status(self, BNN_E_COMMAND);
        return;
    }
    if (self->length != args_bytes(self->command) + image_bytes(self, self->command)) {
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
    default: learn(self); break;
    }
}

int bnn_server_run(bnn_server *server)
{
    for (;;) {
        int end = read_frame(server);

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

void bnn_server_fault(const uint32_t words[4])
{
    uint8_t frame[2 + HEADER_BYTES + 16 + 4];
    uint32_t i;

    frame[0] = 'B';
    frame[1] = 'N';
    frame[2] = BNN_CMD_FAULT;
    frame[3] = (uint8_t)-1;
    put_u32(frame + 4, 16);
    for (i = 0; i < 4; i++) {
        put_u32(frame + 8 + 4 * i, words[i]);
    }
    put_u32(frame + 24, bnn_crc32(0, frame + 2, HEADER_BYTES + 16));
    (void)bnn_port_write(frame, sizeof frame);
}
