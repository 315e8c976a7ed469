# SPDX-License-Identifier: Apache-2.0
"""ONNX -> Graph: after this package nobody sees protobufs, transposes or channels-first arrays."""

from bnngen.frontend.load import load_onnx

__all__ = ["load_onnx"]
