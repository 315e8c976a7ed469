# SPDX-License-Identifier: Apache-2.0
"""Keras -> model.onnx, and the check that both compute the same.

    config.py    what an export is asked for and returns       exporter.py  export_model: the whole story
    session.py   run_onnx (needs onnxruntime, no TensorFlow)   keras_model.py  load_keras, run_keras

Importing the package itself imports neither TensorFlow nor onnxruntime.
"""
