/* SPDX-License-Identifier: Apache-2.0 */
/* harness.h -- runs a learner from a script of calls and prints the whole state after each. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stddef.h>
#include <stdint.h>

/* Given by the platform: memory that lasts for the run, and one line of text out. */
void *platform_alloc(size_t bytes);
void platform_line(const char *text);

/* Run a script (tests/learn/script.py writes it; 4-byte aligned). Returns 0, or 1 for a broken script. */
int harness_run(const uint8_t *script, size_t bytes);

#endif
