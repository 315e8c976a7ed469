/* SPDX-License-Identifier: Apache-2.0 */
/* What server.c calls in frame.c. Not for users. */
#ifndef BNN_PROTOCOL_FRAME_H
#define BNN_PROTOCOL_FRAME_H

#include "bnn/server.h"

/* Read one frame. Returns 0: `command`, `length` and the buffers hold a good request; 2: a broken frame was
 * dropped; 1: the stream has ended; -1: it is broken. */
int bnn_frame_read(bnn_server *self);

/* Bytes of arguments, and of an image or a cut tensor behind them, that a command's payload consists of. */
uint32_t bnn_frame_args_bytes(uint8_t command);
uint32_t bnn_frame_image_bytes(const bnn_server *self, uint8_t command);

/* An answer: begin with the status and the payload's length, send exactly that much, end. */
void bnn_frame_begin(bnn_server *self, int status, uint32_t length);
void bnn_frame_send(bnn_server *self, const void *data, uint32_t bytes);
void bnn_frame_send_u32(bnn_server *self, uint32_t value);
void bnn_frame_end(bnn_server *self);

uint32_t bnn_get_u32(const uint8_t *from);

#endif
