/* SPDX-License-Identifier: Apache-2.0 */
/* script.S -- the script as data; SCRIPT is its file name in quotes. */
    .section .rodata.script, "a"
    .balign 8
    .global script_begin, script_end
script_begin:
    .incbin SCRIPT
script_end:
