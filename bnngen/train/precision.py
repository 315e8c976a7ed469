# SPDX-License-Identifier: Apache-2.0
"""Which Keras policy the training steps compute in: mixed precision where the hardware gains by it.

Only training steps are mixed. Weights, the head, batch statistics, every measurement and the saved model are float32,
so what is reported is the model that is exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from bnngen.errors import UsageError

CPU_FLAGS = {"avx512_bf16", "amx_bf16"}  # as Linux names them
BFLOAT16_GPU, FLOAT16_GPU = (8, 0), (7, 0)  # compute capability from which tensor cores take the type


def resolve(precision: str) -> str:
    """Return the name of the policy that `precision` (config.PRECISIONS) means on this machine.

    Raises UsageError where mixed precision would gain nothing, or cannot be had.
    """
    gpus = [_capability(device) for device in tf.config.list_physical_devices("GPU")]
    if precision == "mixed_float16" and not gpus:
        raise UsageError("--precision mixed_float16 needs a GPU", why="CPUs do not compute in float16",
                         fix="use --precision mixed, or leave it out")
    if precision != "mixed":
        return precision
    if gpus and min(gpus) >= BFLOAT16_GPU:
        return "mixed_bfloat16"
    if gpus and min(gpus) >= FLOAT16_GPU:
        return "mixed_float16"
    if not gpus and CPU_FLAGS & cpu_flags():
        return "mixed_bfloat16"
    what = "the GPU" if gpus else "this CPU"
    raise UsageError(f"mixed precision would gain nothing here: {what} has no fast 16-bit arithmetic",
                     why="it takes a GPU of compute capability 7.0, or a CPU with AVX512-BF16 or AMX",
                     fix="leave --precision out; --precision mixed_bfloat16 does it all the same, slower")


@contextmanager
def policy(name: str) -> Iterator[None]:
    """Build layers under the policy `name`."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def cpu_flags(file: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Return the features that Linux lists for the processor; none where there is no such list."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}


def _capability(device: tf.config.PhysicalDevice) -> tuple[int, int]:
    """(0, 0) where the driver does not say."""
    return tf.config.experimental.get_device_details(device).get("compute_capability", (0, 0))
