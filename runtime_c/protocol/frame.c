/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: finding and checking requests, writing answers (docs/design.md, "Command server").
 *
 * A frame that is broken in any way has no effect and gets no answer. The search for the next 'B' 'N'
 * begins behind the last byte that belonged to a plausible header, so that noise cannot hide a good frame,
 * except inside the payload that a bad header announced: lengths are bounded, and a client that gets no
 * answer sends that many zero bytes, after which the server is certainly searching again.
 */
#include "frame.h"

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

uint32_t bnn_get_u32(const uint8_t *from)
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
uint32_t bnn_frame_args_bytes(uint8_t command)
{
    switch (command) {
    case BNN_CMD_LEARN_INIT: return 8;
    case BNN_CMD_ADD:
    case BNN_CMD_ADD_CUT:
    case BNN_CMD_FORGET: return 4;
    case BNN_CMD_STEP: return 4;
    case BNN_CMD_READ: return 12;
    case BNN_CMD_WRITE:
    case BNN_CMD_MERGE: return 8;
    default: return 0;
    }
}

uint32_t bnn_frame_image_bytes(const bnn_server *self, uint8_t command)
{
    switch (command) {
    case BNN_CMD_INFER:
    case BNN_CMD_TRACE:
    case BNN_CMD_LATENT:
    case BNN_CMD_FEATURES:
    case BNN_CMD_CUT:
    case BNN_CMD_ADD:
    case BNN_CMD_CLASSIFY:
    case BNN_CMD_DECIDE:
    case BNN_CMD_WRITE: /* of this and the next, at most: their data wait in the image's buffer */
    case BNN_CMD_MERGE: return self->facts->image_bytes;
    case BNN_CMD_ADD_CUT:
    case BNN_CMD_CLASSIFY_CUT: return self->facts->cut_bytes;
    default: return 0;
    }
}

/* Where the part behind the arguments lands: an image in its buffer, a cut tensor in the arena, where it belongs.
 * Nothing in those places outlives a command, so that a frame which proves broken has spoilt nothing. */
static uint8_t *landing_place(const bnn_server *self)
{
    return self->command == BNN_CMD_ADD_CUT || self->command == BNN_CMD_CLASSIFY_CUT ? self->cut : self->image;
}

/* The longest payload of any command. */
static uint32_t longest_payload(const bnn_server *self)
{
    const bnn_server_facts *facts = self->facts;
    uint32_t longest = (facts->cut_bytes > facts->image_bytes ? facts->cut_bytes : facts->image_bytes) + 8;

    return longest > sizeof self->args ? longest : (uint32_t)sizeof self->args;
}

/* Read the payload: arguments, then the image or cut tensor, then nowhere; the checksum goes over all of it. */
static int read_payload(bnn_server *self, uint32_t *crc)
{
    uint32_t place = 0, args = bnn_frame_args_bytes(self->command), image = bnn_frame_image_bytes(self, self->command);
    uint8_t spill[32];

    while (place < self->length) {
        uint32_t left = self->length - place, room = sizeof spill;
        uint8_t *to = spill;
        int end;

        if (place < args) {
            to = self->args + place;
            room = args - place;
        } else if (place - args < image) {
            to = landing_place(self) + (place - args);
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
int bnn_frame_read(bnn_server *self)
{
    uint8_t header[HEADER_BYTES], trailer[4];
    uint32_t i, crc;
    int end = find_start(self);

    for (i = 0; end == 0 && i < HEADER_BYTES; i++) {
        end = next_byte(self, &header[i]);
    }
    if (end != 0) {
        return end;
    }
    self->command = header[0];
    self->length = bnn_get_u32(header + 2);
    if (header[1] != 0 || self->length > longest_payload(self)) {
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
    return end != 0 ? end : (bnn_get_u32(trailer) == crc ? 0 : 2);
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
void bnn_frame_send(bnn_server *self, const void *data, uint32_t bytes)
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

void bnn_frame_send_u32(bnn_server *self, uint32_t value)
{
    uint8_t bytes[4];

    put_u32(bytes, value);
    bnn_frame_send(self, bytes, sizeof bytes);
}

/* Begin an answer of `length` payload bytes. The checksum starts behind 'B' 'N'. */
void bnn_frame_begin(bnn_server *self, int status, uint32_t length)
{
    uint8_t command_status[2];

    self->crc = 0;
    bnn_frame_send(self, "BN", 2);
    self->crc = 0;
    command_status[0] = self->command;
    command_status[1] = (uint8_t)(status < -128 ? -128 : status);
    bnn_frame_send(self, command_status, 2);
    bnn_frame_send_u32(self, length);
}

void bnn_frame_end(bnn_server *self)
{
    bnn_frame_send_u32(self, self->crc);
    flush(self);
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
