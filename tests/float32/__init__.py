# SPDX-License-Identifier: Apache-2.0
"""float32 builds: the C of every op of the float stage against the interpreter, within rounding."""
