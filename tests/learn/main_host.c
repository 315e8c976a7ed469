/* SPDX-License-Identifier: Apache-2.0 */
/* main_host.c -- the harness as a program: script file in, lines out. */
#include <stdio.h>
#include <stdlib.h>

#include "harness.h"

void *platform_alloc(size_t bytes)
{
    void *memory = malloc(bytes); /* one block a buffer, so that the address sanitizer sees each border */
    if (memory == NULL) {
        exit(3);
    }
    for (size_t i = 0; i < bytes; i++) {
        ((unsigned char *)memory)[i] = 0xA5; /* what init must clear */
    }
    return memory;
}

void platform_line(const char *text)
{
    puts(text);
}

int main(int argc, char **argv)
{
    static uint8_t script[1 << 24];
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    size_t bytes;
    if (file == NULL) {
        return 2;
    }
    bytes = fread(script, 1, sizeof script, file);
    fclose(file);
    return harness_run(script, bytes);
}
