# SPDX-License-Identifier: Apache-2.0
"""bnngen: binary neural networks, from training to a small board that keeps learning."""

__version__ = "0.1.0"
