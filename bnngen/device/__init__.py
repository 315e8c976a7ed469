# SPDX-License-Identifier: Apache-2.0
"""Between generated C and a running program: compile, measure, emulate, flash, talk.

The only package that starts other programs.
"""
