# SPDX-License-Identifier: Apache-2.0
"""The one locator of the files that are not Python: templates, the C runtime, target descriptions.

In a checkout they stand beside the package; in a wheel they travel inside it, under `_resources`.
"""

from __future__ import annotations

from pathlib import Path


def templates() -> Path:
    """Return the directory of the Jinja templates."""
    return _find("templates")


def runtime() -> Path:
    """Return the directory of the C runtime: include, kernels, learn, protocol, port."""
    return _find("runtime_c")


def targets() -> Path:
    """Return the directory of the target descriptions."""
    return _find("targets")


def _find(kind: str) -> Path:
    package = Path(__file__).resolve().parent
    for candidate in (package / "_resources" / kind, package.parent / kind):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"bnngen is not installed completely: {kind} is missing beside {package}")


def checkpoints() -> Path:
    """Return the directory of the models that bnngen ships: NAME.keras, NAME.onnx and what stands beside them."""
    return Path(__file__).resolve().parent / "train" / "checkpoints"
