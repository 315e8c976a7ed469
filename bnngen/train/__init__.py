# SPDX-License-Identifier: Apache-2.0
"""Larq backbones and the trainer; with `bnngen.export` the only part that needs TensorFlow."""
