/* SPDX-License-Identifier: Apache-2.0 */
/* harness.h -- runs kernels on data that comes in through the port, in memory that notices a stray write.
 *
 * A generated file (harness.py) has one function per kernel variant: it reads the arguments in order, calls the kernel,
 * and `finish` answers with a status word and the output. With HARNESS_MALLOC every buffer is an allocation of its
 * exact size, so that a sanitizer sees each byte beyond; otherwise buffers lie between guard bytes. */
#ifndef HARNESS_H
#define HARNESS_H

#include "bnn/kernel.h"

#define FILL 0xA5

typedef void (*harness_fn)(void);

typedef struct {
    int32_t begin, end;
} harness_rows;

/* Functions of the generated file, in the order of the registry. */
extern const harness_fn harness_functions[];

void harness_get(void *to, size_t bytes);
int32_t harness_int(void);
harness_rows harness_get_rows(void);
const void *harness_take(void);   /* input: bytes, data */
const void *const *harness_list(int32_t inputs);   /* inputs, one after the other; valid until the next list */
void *harness_blank(void);        /* output: bytes, index of the input to share memory with, or -1 */
void *harness_scratch(void);      /* bytes; NULL for 0 */
bnn_affine harness_affine(int32_t arithmetic);
void harness_finish(void);

#endif
