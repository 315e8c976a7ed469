# SPDX-License-Identifier: Apache-2.0
"""Continual learning on the host: the twin of the device, methods to compare with, streams and metrics."""
