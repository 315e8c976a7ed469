/* SPDX-License-Identifier: Apache-2.0 */
/* head_cwr16.c -- CWR* and its kin with gradients and stored weights of at most 16 bits. */
#include <stdint.h>

#define CWR_WIDTH 16

typedef int16_t cwr_weight;
typedef int32_t cwr_sum; /* P * L * B < 2^31 is checked at generation */
typedef uint32_t cwr_dividend;
enum { SCALE_BITS = 15, SHARE_BITS = 30 };

#include "head_cwr.h"

const bnn_head_ops bnn_head_cwr16 = {init,  NULL,   NULL,   prepare, bnn_minibatch_step, load,   score,
                                     learn, update, propose, commit,  NULL,               forget, items};
