# SPDX-License-Identifier: Apache-2.0
"""Continual-learning experiments: the compiled runtime learns streams of experiences, for many seeds and settings.

config.py says what a run is, job.py holds one run of one seed, executors.py spreads jobs over processes or a cluster,
results.py keeps what they found, cache.py what the frozen part of the network computes.
"""
