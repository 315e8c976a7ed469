/* SPDX-License-Identifier: Apache-2.0 */
/* dump.c -- for each image on stdin, the output of every step and then the scores on stdout, as they lie in memory. */
#include <stdio.h>

#include MODEL_HEADER

static uint64_t arena[(ARENA_BYTES + 7) / 8];
static uint8_t image[IMAGE_BYTES];
static int32_t scores[CLASSES];
static MODEL model;

static void dump(void *user, uint32_t step, const void *data, uint32_t bytes)
{
    (void)user;
    (void)step;
    fwrite(data, 1, bytes, stdout);
}

int main(void)
{
    if (INIT(&model, arena, sizeof arena) != BNN_OK) {
        return 2;
    }
    model.trace = dump;
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        INFER(&model, image, scores);
    }
    return 0;
}
