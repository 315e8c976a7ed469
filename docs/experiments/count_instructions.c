/* SPDX-License-Identifier: Apache-2.0 */
/* count_instructions.c -- a plugin for QEMU 7.2 (plugin interface 1): how many instructions a program executed.
 *
 * The functions of the interface that it uses are declared here, so that neither QEMU's sources nor glib are needed. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct info;
typedef void (*translated)(uint64_t id, struct qemu_plugin_tb *block);
typedef void (*finished)(uint64_t id, void *user);

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated callback);
extern void qemu_plugin_register_atexit_cb(uint64_t id, finished callback, void *user);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *block, int add, void *to, uint64_t value);

int qemu_plugin_version = 1;
int qemu_plugin_install(uint64_t id, const struct info *info, int argc, char **argv);

static uint64_t executed;

static void block(uint64_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0, &executed, qemu_plugin_tb_n_insns(tb));
}

static void report(uint64_t id, void *user)
{
    (void)id;
    (void)user;
    fprintf(stderr, "instructions %llu\n", (unsigned long long)executed);
}

int qemu_plugin_install(uint64_t id, const struct info *info, int argc, char **argv)
{
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, block);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
