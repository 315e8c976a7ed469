# SPDX-License-Identifier: Apache-2.0
"""A model -> model.onnx, and the check that both compute the same.

    exporter.py   export_model: the whole story       config.py       what it is asked for and returns
    sources.py    what can be exported                keras_graph.py  a Keras model as a graph
    session.py    run_onnx, on onnxruntime alone      keras_model.py  run_keras
    calibrate.py  ranges of all tensors               ranges.py       the range of one

Importing the package imports neither TensorFlow nor onnxruntime: a name brings its module along when it
is first used, so that run_onnx works where TensorFlow is not installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {"export_model": "exporter", "run_keras": "keras_model", "run_onnx": "session"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
