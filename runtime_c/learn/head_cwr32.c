/* SPDX-License-Identifier: Apache-2.0 */
/* head_cwr32.c -- CWR* and its kin with gradients and stored weights of 32 bits: twice the memory, and divisions of 64
 * bits. What it buys is in docs/numerics.md, 5.5. */
#include <stdint.h>

#define CWR_WIDTH 32

typedef int32_t cwr_weight;
typedef int64_t cwr_sum; /* at most 255 * 2^31 * 256 < 2^47; u_mult < 2^15, so a step's product stays below 2^62 */
typedef uint64_t cwr_dividend;
enum { SCALE_BITS = 31, SHARE_BITS = 22 }; /* a consolidated weight is at most 2^31 * 2^9 * 2^22 = 2^62 */

#include "head_cwr.h"

const bnn_head_ops bnn_head_cwr32 = {init,  NULL,   NULL,   prepare, bnn_minibatch_step, load,   score,
                                     learn, update, propose, commit,  NULL,               forget, items};
